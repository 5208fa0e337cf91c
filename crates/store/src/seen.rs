//! The seen set: the keys of the items that a source had before, 32 bytes each, in one value per source.
//!
//! A sled key per guid would cost about 170 bytes of disk and 145 bytes of memory each; a bounded list in one value does
//! not. The list has every key of the newest document, then the most recently seen ones.
//!
//! Some publishers change their guids at every visit. If nearly everything in a known source looks new, and most of it is
//! known by link and title, items are matched by those instead of being published again.

use std::collections::{HashMap, HashSet};

use news::{Item, Timestamp, stable_hash};

use crate::record::Damage;

/// Maximum number of keys of one source. A document has at most 1,000, so a large feed must be replaced four times
/// before an item that reappears counts as new.
pub(crate) const KEYS_MAX: usize = 4096;
/// Maximum number of new items per visit of a source with flapping guids; rarely are more of them genuinely new.
const FLAPPING_NEW_MAX: usize = 20;
const ENTRY: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeenEntry {
    content: u64,
    first_seen: Timestamp,
    /// Hash of link and title; 0 if there is no link.
    second: u64,
}

/// The items that a source had so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenSet {
    entries: HashMap<u64, SeenEntry>,
    /// Keys, the most recently seen first.
    order: Vec<u64>,
}

/// How an item compares with the seen set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemStatus {
    New,
    Changed {
        first_seen: Timestamp,
    },
    Known,
    /// New, but over the limit for a source whose guids flap: classified again at the next visit.
    Held,
}

/// How a document compares with the seen set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Classification {
    /// One for each item.
    pub(crate) statuses: Vec<ItemStatus>,
    /// Whether the seen set must be written.
    pub(crate) changed: bool,
    /// The source has changed the guids of its items.
    pub(crate) flapping: bool,
}

impl SeenSet {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        if !bytes.len().is_multiple_of(ENTRY) {
            return Err(Damage::Cut);
        }
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes of an entry"));
        let mut seen = Self::default();
        for entry in bytes.chunks_exact(ENTRY) {
            let (key, content) = (word(&entry[..8]), word(&entry[8..16]));
            let (first, second) = (word(&entry[16..24]), word(&entry[24..]));
            let first_seen = Timestamp::from_millis(first.cast_signed());
            seen.entries.insert(key, SeenEntry { content, first_seen, second });
            seen.order.push(key);
        }
        Ok(seen)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.order.len() * ENTRY);
        for key in &self.order {
            let entry = &self.entries[key];
            for word in [*key, entry.content, entry.first_seen.millis().cast_unsigned(), entry.second] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out
    }

    /// Classifies the items of one document, oldest first, and adds them. Of items with the same key the first counts.
    pub(crate) fn classify(&mut self, items: &[Item], now: Timestamp) -> Classification {
        let keys: Vec<_> = items.iter().map(|item| stable_hash(item.key.as_bytes())).collect();
        let flapping = self.match_new_guids(items, &keys);
        let fresh = keys.iter().filter(|key| !self.entries.contains_key(key)).count();
        // The newest are accepted, the older ones are held back.
        let mut held = if flapping { fresh.saturating_sub(FLAPPING_NEW_MAX) } else { 0 };
        let mut present = HashSet::with_capacity(items.len());
        let mut classify = |(item, key): (&Item, &u64)| {
            let is_first = present.insert(*key);
            match self.entries.get_mut(key) {
                None if held > 0 => {
                    held -= 1;
                    ItemStatus::Held
                }
                None => {
                    let second = item.second_key.unwrap_or(0);
                    self.entries
                        .insert(*key, SeenEntry { content: item.content_hash, first_seen: now, second });
                    ItemStatus::New
                }
                Some(entry) if entry.content == item.content_hash || !is_first => ItemStatus::Known,
                Some(entry) => {
                    entry.content = item.content_hash;
                    entry.second = item.second_key.unwrap_or(0);
                    ItemStatus::Changed { first_seen: entry.first_seen }
                }
            }
        };
        let statuses: Vec<_> = items.iter().zip(&keys).map(&mut classify).collect();
        let changed =
            flapping || statuses.iter().any(|v| matches!(v, ItemStatus::New | ItemStatus::Changed { .. }));
        if changed {
            self.reorder(&keys, &present);
        }
        Classification { statuses, changed, flapping }
    }

    /// Detects whether the source has changed the guids of its items: at least four of five are new, although most of
    /// those are known by link and title. If so, their entries are moved to the new keys.
    fn match_new_guids(&mut self, items: &[Item], keys: &[u64]) -> bool {
        let fresh: Vec<_> = (0..items.len()).filter(|n| !self.entries.contains_key(&keys[*n])).collect();
        if self.entries.is_empty() || fresh.len() * 5 < items.len() * 4 {
            return false;
        }
        let by_second: HashMap<_, _> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.second != 0)
            .map(|(key, entry)| (entry.second, *key))
            .collect();
        let old_key = |n: usize| items[n].second_key.and_then(|second| by_second.get(&second).copied());
        let known: Vec<_> = fresh.iter().filter_map(|n| Some((*n, old_key(*n)?))).collect();
        if known.len() * 2 <= fresh.len() {
            return false;
        }
        for (n, old) in known {
            // Of two items with the same link and title the first gets the entry.
            if let Some(entry) = self.entries.remove(&old) {
                self.entries.insert(keys[n], entry);
            }
        }
        true
    }

    /// Moves the keys of the newest document to the front, and removes the oldest beyond the limit.
    fn reorder(&mut self, keys: &[u64], present: &HashSet<u64>) {
        let mut added = HashSet::new();
        let mut order: Vec<_> =
            keys.iter().copied().filter(|key| self.entries.contains_key(key) && added.insert(*key)).collect();
        let bound = KEYS_MAX.max(order.len());
        let older =
            self.order.iter().copied().filter(|key| !present.contains(key) && self.entries.contains_key(key));
        order.extend(older);
        for removed in order.drain(bound.min(order.len())..) {
            self.entries.remove(&removed);
        }
        self.order = order;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, content_hash: u64) -> Item {
        Item { key: key.to_owned(), content_hash, ..Item::default() }
    }

    const T1: fn() -> Timestamp = || Timestamp::from_millis(1);
    const T2: fn() -> Timestamp = || Timestamp::from_millis(2);

    #[test]
    fn an_item_is_new_once_and_changed_when_its_content_is() {
        let mut seen = SeenSet::default();
        assert_eq!(
            seen.classify(&[item("a", 1), item("b", 1)], T1()).statuses,
            [ItemStatus::New, ItemStatus::New]
        );
        let again = seen.classify(&[item("a", 1)], T2());
        assert_eq!((again.statuses.as_slice(), again.changed), (&[ItemStatus::Known][..], false));
        let changed = ItemStatus::Changed { first_seen: T1() };
        assert_eq!(seen.classify(&[item("a", 2), item("c", 1)], T2()).statuses, [changed, ItemStatus::New]);
        let again = SeenSet::decode(&seen.encode()).unwrap();
        assert_eq!((again.entries, again.order), (seen.entries, seen.order));
    }

    #[test]
    fn a_key_that_occurs_twice_in_a_document_counts_once() {
        let mut seen = SeenSet::default();
        let twice = [item("a", 1), item("a", 2)];
        assert_eq!(seen.classify(&twice, T1()).statuses.iter().filter(|v| **v == ItemStatus::New).count(), 1);
        assert!(!seen.classify(&twice, T1()).changed);
    }

    #[test]
    fn the_list_is_bounded_and_always_has_the_newest_document() {
        let mut seen = SeenSet::default();
        let old: Vec<_> = (0..KEYS_MAX).map(|n| item(&format!("old{n}"), 1)).collect();
        seen.classify(&old, T1());
        let new: Vec<_> = (0..1000).map(|n| item(&format!("new{n}"), 1)).collect();
        seen.classify(&new, T2());
        assert_eq!((seen.order.len(), seen.entries.len()), (KEYS_MAX, KEYS_MAX));
        assert!(!seen.classify(&new, T2()).changed);
        assert_eq!(seen.classify(&old[..1], T2()).statuses, [ItemStatus::Known]);
        assert_eq!(seen.classify(&old[KEYS_MAX - 1..], T2()).statuses, [ItemStatus::New]);
    }

    /// A document of ten articles, of which `first` is the oldest, with guids that change with `visit`.
    fn flapping_document(visit: usize, first: u64) -> Vec<Item> {
        let article = |n: u64| Item { second_key: Some(n), ..item(&format!("guid-{visit}-{n}"), n) };
        (first..first + 10).map(article).collect()
    }

    #[test]
    fn guids_that_change_at_every_visit_do_not_flood_the_stream() {
        let mut seen = SeenSet::default();
        let mut new = 0;
        for visit in 0..50 {
            // A really new article at every fifth visit.
            let classified = seen.classify(&flapping_document(visit, 1 + visit as u64 / 5), T1());
            new += classified.statuses.iter().filter(|v| **v == ItemStatus::New).count();
            assert_eq!(classified.flapping, visit > 0, "visit {visit}");
            assert!(classified.statuses.iter().all(|v| matches!(v, ItemStatus::New | ItemStatus::Known)));
            seen = SeenSet::decode(&seen.encode()).unwrap();
        }
        assert_eq!(new, 10 + 9);
    }

    #[test]
    fn a_known_item_with_a_new_guid_keeps_first_seen_and_its_changes_are_found() {
        let mut seen = SeenSet::default();
        seen.classify(&flapping_document(0, 1), T1());
        let mut second = flapping_document(1, 1);
        second[3].content_hash = 99;
        let classified = seen.classify(&second, T2());
        assert_eq!(classified.statuses[3], ItemStatus::Changed { first_seen: T1() });
        assert_eq!(classified.statuses.iter().filter(|v| **v == ItemStatus::Known).count(), 9);
    }

    #[test]
    fn a_feed_that_is_really_all_new_is_all_new() {
        let mut seen = SeenSet::default();
        seen.classify(&flapping_document(0, 1), T1());
        let classified = seen.classify(&flapping_document(0, 1000), T2());
        assert!(!classified.flapping);
        assert_eq!(classified.statuses, [ItemStatus::New; 10]);
    }

    #[test]
    fn while_guids_flap_new_items_are_accepted_in_portions_newest_first() {
        let mut seen = SeenSet::default();
        let article =
            |visit: usize, n: u64| Item { second_key: Some(n), ..item(&format!("guid-{visit}-{n}"), n) };
        let document =
            |visit, articles: std::ops::Range<u64>| articles.map(|n| article(visit, n)).collect::<Vec<_>>();
        seen.classify(&document(0, 1..101), T1());
        let classified = seen.classify(&document(1, 1..151), T2());
        let count = |wanted| classified.statuses.iter().filter(|v| **v == wanted).count();
        assert_eq!(
            (count(ItemStatus::New), count(ItemStatus::Held), count(ItemStatus::Known)),
            (20, 30, 100)
        );
        assert_eq!(classified.statuses[149], ItemStatus::New);
        let classified = seen.classify(&document(2, 1..151), T2());
        assert_eq!(classified.statuses.iter().filter(|v| **v == ItemStatus::New).count(), 20);
    }

    #[test]
    fn a_truncated_list_is_damage() {
        assert!(SeenSet::decode(&[0; ENTRY + 1]).is_err());
    }
}
