//! What a reload changed in the files of tokens and keys: numbers, never anything of a token.

use std::collections::BTreeMap;

use control::CredentialChanges;

/// What the credentials of one file are and grant, by the beginnings of their hashes.
pub(super) type CredentialMap<G> = BTreeMap<u64, G>;

/// How the file of this key differs; `None` if it does not.
pub(super) fn difference<G: PartialEq>(
    key: &str,
    old: &CredentialMap<G>,
    new: &CredentialMap<G>,
) -> Option<CredentialChanges> {
    let added = new.keys().filter(|hash| !old.contains_key(hash)).count();
    let removed = old.keys().filter(|hash| !new.contains_key(hash)).count();
    let changed = new.iter().filter(|(hash, grant)| old.get(hash).is_some_and(|old| old != *grant)).count();
    let has_changed = added + changed + removed > 0;
    has_changed.then(|| CredentialChanges { key: key.to_owned(), added, changed, removed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_counted_as_added_changed_or_removed() {
        let [old, new] = [[(1, "a"), (2, "a"), (3, "a"), (4, "a")], [(3, "b"), (4, "a"), (5, "a"), (6, "a")]];
        let (old, new, none) = (BTreeMap::from(old), BTreeMap::from(new), BTreeMap::new());
        assert_eq!(difference("k", &old, &old), None);
        assert_eq!(difference("k", &none, &none), None);
        let counts = |old, new| {
            let CredentialChanges { key, added, changed, removed } = difference("k", old, new).unwrap();
            (key, added, changed, removed)
        };
        assert_eq!(counts(&old, &new), ("k".to_owned(), 2, 1, 2));
        assert_eq!(counts(&old, &none), ("k".to_owned(), 0, 0, 4));
        assert_eq!(counts(&none, &old), ("k".to_owned(), 4, 0, 0));
    }
}
