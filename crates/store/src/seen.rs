//! The keys a source has already given us: 24 bytes each, in one value per source.
//!
//! A key per guid in sled would cost some 170 bytes of disk and 145 bytes of memory each; a bounded list in one value
//! costs neither. The list keeps every key of the newest document, then the ones met most recently.

use std::collections::HashMap;

use news::{Item, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::record::Damage;

/// Keys remembered of one source; a document gives at most 1,000, so it takes four complete replacements of a large
/// feed before an article that comes back is news again.
pub(crate) const KEYS_MAX: usize = 4096;
const ENTRY: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Met {
    content: u64,
    first_seen: Timestamp,
}

/// What a source has given so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    met: HashMap<u64, Met>,
    /// Keys from the one met most recently to the oldest.
    order: Vec<u64>,
}

/// What an item is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    New,
    Changed { first_seen: Timestamp },
    Known,
}

/// 64 bits of SHA-256: the same for ever, on every machine.
fn hash(key: &str) -> u64 {
    let digest = Sha256::digest(key.as_bytes());
    u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

impl Seen {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        if !bytes.len().is_multiple_of(ENTRY) {
            return Err(Damage::Cut);
        }
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes of an entry"));
        let mut seen = Self::default();
        for entry in bytes.chunks_exact(ENTRY) {
            let (key, content, first) = (word(&entry[..8]), word(&entry[8..16]), word(&entry[16..]));
            let first_seen = Timestamp::from_millis(first.cast_signed());
            seen.met.insert(key, Met { content, first_seen });
            seen.order.push(key);
        }
        Ok(seen)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.order.len() * ENTRY);
        for key in &self.order {
            let met = &self.met[key];
            for word in [*key, met.content, met.first_seen.millis().cast_unsigned()] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out
    }

    /// Judges the items of one document, in their order, and remembers them. A key that stands twice in a document
    /// counts once: the first wins.
    ///
    /// Returns the verdicts and whether anything has to be written.
    pub(crate) fn take_in(&mut self, items: &[Item], now: Timestamp) -> (Vec<Verdict>, bool) {
        let mut current = Vec::with_capacity(items.len());
        let mut here = std::collections::HashSet::with_capacity(items.len());
        let verdicts: Vec<_> = items
            .iter()
            .map(|item| {
                let key = hash(&item.key);
                if !here.insert(key) {
                    return Verdict::Known;
                }
                current.push(key);
                self.judge(key, item.content_hash, now)
            })
            .collect();
        let changed = verdicts.iter().any(|v| *v != Verdict::Known);
        if changed {
            self.renew(current, &here);
        }
        (verdicts, changed)
    }

    fn judge(&mut self, key: u64, content: u64, now: Timestamp) -> Verdict {
        match self.met.get_mut(&key) {
            None => {
                self.met.insert(key, Met { content, first_seen: now });
                Verdict::New
            }
            Some(met) if met.content == content => Verdict::Known,
            Some(met) => {
                met.content = content;
                Verdict::Changed { first_seen: met.first_seen }
            }
        }
    }

    fn renew(&mut self, mut order: Vec<u64>, here: &std::collections::HashSet<u64>) {
        let bound = KEYS_MAX.max(order.len());
        order.extend(self.order.iter().copied().filter(|key| !here.contains(key)));
        for forgotten in order.drain(bound.min(order.len())..) {
            self.met.remove(&forgotten);
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
        let mut seen = Seen::default();
        assert_eq!(seen.take_in(&[item("a", 1), item("b", 1)], T1()).0, [Verdict::New, Verdict::New]);
        assert_eq!(seen.take_in(&[item("a", 1)], T2()), (vec![Verdict::Known], false));
        let changed = Verdict::Changed { first_seen: T1() };
        assert_eq!(seen.take_in(&[item("a", 2), item("c", 1)], T2()).0, [changed, Verdict::New]);
        let again = Seen::decode(&seen.encode()).unwrap();
        assert_eq!((again.met, again.order), (seen.met, seen.order));
    }

    #[test]
    fn a_key_that_stands_twice_in_a_document_counts_once() {
        let mut seen = Seen::default();
        assert_eq!(seen.take_in(&[item("a", 1), item("a", 2)], T1()).0, [Verdict::New, Verdict::Known]);
        assert!(!seen.take_in(&[item("a", 1), item("a", 2)], T1()).1);
    }

    #[test]
    fn the_list_is_bounded_and_never_forgets_the_newest_document() {
        let mut seen = Seen::default();
        let old: Vec<_> = (0..KEYS_MAX).map(|n| item(&format!("old{n}"), 1)).collect();
        seen.take_in(&old, T1());
        let new: Vec<_> = (0..1000).map(|n| item(&format!("new{n}"), 1)).collect();
        seen.take_in(&new, T2());
        assert_eq!((seen.order.len(), seen.met.len()), (KEYS_MAX, KEYS_MAX));
        assert!(!seen.take_in(&new, T2()).1);
        assert_eq!(seen.take_in(&old[..1], T2()).0, [Verdict::Known]);
        assert_eq!(seen.take_in(&old[KEYS_MAX - 1..], T2()).0, [Verdict::New]);
    }

    #[test]
    fn a_list_that_was_cut_is_damage() {
        assert!(Seen::decode(&[0; ENTRY + 1]).is_err());
    }
}
