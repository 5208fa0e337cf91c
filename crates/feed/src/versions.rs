//! Versions of one Atom entry in one document.
//!
//! Entries with the same id are the same entry, and the one with the latest `updated` is the newest version of it (RFC
//! 4287 section 4.1.1). Some programs write one id into every entry: entries are versions of each other only if their
//! links or their titles are the same, too.

use std::collections::HashMap;

use news::{Item, Timestamp};

/// Drops every entry of which the document has a version with a later date; returns their number. Entries of the same
/// date are left to [`crate::identity`].
pub(crate) fn drop_older(items: &mut Vec<Item>) -> usize {
    let mut by_id: HashMap<&str, Vec<usize>> = HashMap::with_capacity(items.len());
    for (n, item) in items.iter().enumerate() {
        by_id.entry(item.guid.as_deref().unwrap_or_default()).or_default().push(n);
    }
    let mut keep = vec![true; items.len()];
    for group in by_id.iter().filter(|(id, group)| !id.is_empty() && group.len() > 1) {
        drop_older_in(items, group.1, &mut keep);
    }
    let before = items.len();
    let mut keep = keep.into_iter();
    items.retain(|_| keep.next().unwrap_or(true));
    before - items.len()
}

/// The same for entries of one id. Of those with the same link, and of those with the same title, the latest is kept.
fn drop_older_in(items: &[Item], group: &[usize], keep: &mut [bool]) {
    let parts: [fn(&Item) -> Option<&str>; 2] = [
        |item| Some(item.link.as_deref().unwrap_or_default()),
        |item| Some(item.title.as_str()).filter(|title| !title.is_empty()),
    ];
    for part in parts {
        let mut latest: HashMap<&str, Option<Timestamp>> = HashMap::new();
        for &n in group {
            let Some(part) = part(&items[n]) else { continue };
            let date = latest.entry(part).or_default();
            *date = items[n].updated.max(*date);
        }
        for &n in group {
            let latest = part(&items[n]).and_then(|part| latest.get(part));
            keep[n] &= latest.is_none_or(|date| *date == items[n].updated);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, link: &str, title: &str, updated: i64) -> Item {
        Item {
            guid: Some(id.to_owned()),
            link: Some(link.to_owned()).filter(|l| !l.is_empty()),
            title: title.to_owned(),
            updated: (updated > 0).then(|| Timestamp::from_millis(updated)),
            ..Item::default()
        }
    }

    fn kept(mut items: Vec<Item>) -> Vec<String> {
        drop_older(&mut items);
        items.into_iter().map(|item| item.title).collect()
    }

    #[test]
    fn the_version_with_the_later_date_is_kept_wherever_it_is() {
        let (old, new) =
            (entry("a", "http://x.example/", "old", 1), entry("a", "http://x.example/", "new", 2));
        assert_eq!(kept(vec![old.clone(), new.clone()]), ["new"]);
        assert_eq!(kept(vec![new.clone(), old.clone()]), ["new"]);
        let undated = entry("a", "http://x.example/", "undated", 0);
        assert_eq!(kept(vec![undated, old, new]), ["new"]);
        let moved =
            [entry("a", "http://x.example/1", "same", 1), entry("a", "http://x.example/2", "same", 2)];
        assert_eq!(kept(moved.to_vec()).len(), 1);
    }

    #[test]
    fn different_articles_with_one_id_are_kept() {
        let two = [entry("a", "http://x.example/1", "one", 1), entry("a", "http://x.example/2", "two", 2)];
        assert_eq!(kept(two.to_vec()), ["one", "two"]);
        assert_eq!(kept(vec![entry("a", "", "one", 1), entry("a", "", "two", 1)]), ["one", "two"]);
    }
}
