//! The categories that a reader may see; everything else does not exist for it.

use sha2::{Digest as _, Sha256};

/// A set of categories, shared by everybody who may see just these. Whoever may see all has no scope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Sorted.
    categories: Box<[Box<str>]>,
    /// Of what the set holds.
    mark: u64,
}

impl Scope {
    pub(crate) fn new<'c>(categories: impl IntoIterator<Item = &'c str>) -> Self {
        let mut categories: Vec<Box<str>> = categories.into_iter().map(Box::from).collect();
        categories.sort_unstable();
        categories.dedup();
        let mut hash = Sha256::new();
        for category in &categories {
            hash.update(category.as_bytes());
            hash.update([0]);
        }
        let mark = news::hash_prefix(&hash.finalize().into());
        Self { categories: categories.into(), mark }
    }

    pub(crate) fn allows(&self, category: &str) -> bool {
        self.categories.binary_search_by(|allowed| (**allowed).cmp(category)).is_ok()
    }

    /// Tells answers to readers of different scopes apart, as part of an `ETag`.
    pub(crate) fn mark(&self) -> u64 {
        self.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_what_it_holds() {
        let scope = Scope::new(["sport", "culture", "sport"]);
        assert!(scope.allows("sport") && scope.allows("culture"));
        assert!(!scope.allows("Sport") && !scope.allows("") && !scope.allows("sports"));
        assert_eq!(scope, Scope::new(["culture", "sport"]));
        assert_ne!(scope.mark(), Scope::new(["culture"]).mark());
        assert_ne!(Scope::new(["ab", "c"]).mark(), Scope::new(["a", "bc"]).mark());
        assert!(!Scope::new([]).allows(""));
    }
}
