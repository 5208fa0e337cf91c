//! The categories that a reader may see; everything else behaves as if it did not exist. Upper and lower case are the
//! same, as in filters: two names that every filter takes for one are one here, too.

use std::{borrow::Cow, collections::BTreeSet};

use sha2::{Digest as _, Sha256};

/// A set of categories, shared by the readers that may see exactly these. A reader that may see all has no scope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CategoryScope {
    /// In lower case, sorted.
    categories: Box<[Box<str>]>,
    /// Of the categories.
    hash: u64,
}

impl CategoryScope {
    pub(crate) fn new<'c>(categories: impl IntoIterator<Item = &'c str>) -> Self {
        let categories: BTreeSet<Box<str>> =
            categories.into_iter().map(|category| lower_case(category).into()).collect();
        let mut hash = Sha256::new();
        for category in &categories {
            hash.update(category.as_bytes());
            hash.update([0]);
        }
        let hash = news::hash_prefix(&hash.finalize().into());
        Self { categories: categories.into_iter().collect(), hash }
    }

    /// Whether it has the category, in upper or lower case.
    pub(crate) fn allows(&self, category: &str) -> bool {
        let category = lower_case(category);
        self.categories.binary_search_by(|allowed| (**allowed).cmp(&category)).is_ok()
    }

    /// The categories, in lower case.
    pub(super) fn categories(&self) -> impl Iterator<Item = &str> {
        self.categories.iter().map(|category| &**category)
    }

    /// Differs between scopes; part of an `ETag`.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

/// The lower case that filters compare. Nearly every category has it already: then nothing is copied.
fn lower_case(category: &str) -> Cow<'_, str> {
    let is_lower = category.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase());
    if is_lower { Cow::Borrowed(category) } else { Cow::Owned(category.to_lowercase()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_its_set_of_categories() {
        let scope = CategoryScope::new(["sport", "culture", "sport"]);
        assert!(scope.allows("sport") && scope.allows("culture"));
        assert!(!scope.allows("") && !scope.allows("sports"));
        for (granted, category) in
            [("sport", "Sport"), ("SPORT", "sport"), ("Ärzte", "ÄRZTE"), ("ΟΔΟΣ", "οδος")]
        {
            assert!(CategoryScope::new([granted]).allows(category), "{granted} {category}");
            assert_eq!(CategoryScope::new([granted]), CategoryScope::new([category, granted]));
        }
        assert_eq!(scope, CategoryScope::new(["culture", "sport"]));
        assert_ne!(scope.hash(), CategoryScope::new(["culture"]).hash());
        assert_ne!(CategoryScope::new(["ab", "c"]).hash(), CategoryScope::new(["a", "bc"]).hash());
        assert!(!CategoryScope::new([]).allows(""));
    }
}
