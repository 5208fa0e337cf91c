//! The categories that a reader may see; everything else behaves as if it did not exist.

use sha2::{Digest as _, Sha256};

/// A set of categories, shared by the readers that may see exactly these. A reader that may see all has no scope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CategoryScope {
    /// Sorted.
    categories: Box<[Box<str>]>,
    /// Of the categories.
    hash: u64,
}

impl CategoryScope {
    pub(crate) fn new<'c>(categories: impl IntoIterator<Item = &'c str>) -> Self {
        let mut categories: Vec<Box<str>> = categories.into_iter().map(Box::from).collect();
        categories.sort_unstable();
        categories.dedup();
        let mut hash = Sha256::new();
        for category in &categories {
            hash.update(category.as_bytes());
            hash.update([0]);
        }
        let hash = news::hash_prefix(&hash.finalize().into());
        Self { categories: categories.into(), hash }
    }

    pub(crate) fn allows(&self, category: &str) -> bool {
        self.categories.binary_search_by(|allowed| (**allowed).cmp(category)).is_ok()
    }

    /// Differs between scopes; part of an `ETag`.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_its_set_of_categories() {
        let scope = CategoryScope::new(["sport", "culture", "sport"]);
        assert!(scope.allows("sport") && scope.allows("culture"));
        assert!(!scope.allows("Sport") && !scope.allows("") && !scope.allows("sports"));
        assert_eq!(scope, CategoryScope::new(["culture", "sport"]));
        assert_ne!(scope.hash(), CategoryScope::new(["culture"]).hash());
        assert_ne!(CategoryScope::new(["ab", "c"]).hash(), CategoryScope::new(["a", "bc"]).hash());
        assert!(!CategoryScope::new([]).allows(""));
    }
}
