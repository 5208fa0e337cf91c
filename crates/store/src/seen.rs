//! The keys a source has already given us: 32 bytes each, in one value per source.
//!
//! A key per guid in sled would cost some 170 bytes of disk and 145 bytes of memory each; a bounded list in one value
//! costs neither. The list keeps every key of the newest document, then the ones met most recently.
//!
//! Some publishers give their items new guids at every visit. When nearly everything in a known source looks new and
//! most of it is known by link and title, it is matched by those, instead of being sent out again.

use std::collections::{HashMap, HashSet};

use news::{Item, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::record::Damage;

/// Keys remembered of one source; a document gives at most 1,000, so it takes four complete replacements of a large
/// feed before an article that comes back is news again.
pub(crate) const KEYS_MAX: usize = 4096;
/// Items of a source with flapping guids that are taken as new in one visit: what is really new there is rarely more.
const FLAPPING_NEW_MAX: usize = 20;
const ENTRY: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Met {
    content: u64,
    first_seen: Timestamp,
    /// Link and title; 0 when there is no link.
    second: u64,
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
    Changed {
        first_seen: Timestamp,
    },
    Known,
    /// New, but too many are in a source whose guids flap: looked at again at the next visit.
    Held,
}

/// What a document is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// One for each item.
    pub(crate) verdicts: Vec<Verdict>,
    /// Whether anything has to be written.
    pub(crate) changed: bool,
    /// The source gave its old items new guids.
    pub(crate) flapping: bool,
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
            let (key, content) = (word(&entry[..8]), word(&entry[8..16]));
            let (first, second) = (word(&entry[16..24]), word(&entry[24..]));
            let first_seen = Timestamp::from_millis(first.cast_signed());
            seen.met.insert(key, Met { content, first_seen, second });
            seen.order.push(key);
        }
        Ok(seen)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.order.len() * ENTRY);
        for key in &self.order {
            let met = &self.met[key];
            for word in [*key, met.content, met.first_seen.millis().cast_unsigned(), met.second] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out
    }

    /// Judges the items of one document, oldest first, and remembers them. A key that stands twice in a
    /// document counts once: the first wins.
    pub(crate) fn take_in(&mut self, items: &[Item], now: Timestamp) -> Judgement {
        let keys: Vec<_> = items.iter().map(|item| hash(&item.key)).collect();
        let flapping = self.carry_over(items, &keys);
        let fresh = keys.iter().filter(|key| !self.met.contains_key(key)).count();
        // The newest are taken, the older ones wait.
        let mut held = if flapping { fresh.saturating_sub(FLAPPING_NEW_MAX) } else { 0 };
        let mut here = HashSet::with_capacity(items.len());
        let mut judge = |(item, key): (&Item, &u64)| {
            let is_first = here.insert(*key);
            match self.met.get_mut(key) {
                None if held > 0 => {
                    held -= 1;
                    Verdict::Held
                }
                None => {
                    let second = item.second_key.unwrap_or(0);
                    self.met.insert(*key, Met { content: item.content_hash, first_seen: now, second });
                    Verdict::New
                }
                Some(met) if met.content == item.content_hash || !is_first => Verdict::Known,
                Some(met) => {
                    met.content = item.content_hash;
                    met.second = item.second_key.unwrap_or(0);
                    Verdict::Changed { first_seen: met.first_seen }
                }
            }
        };
        let verdicts: Vec<_> = items.iter().zip(&keys).map(&mut judge).collect();
        let changed =
            flapping || verdicts.iter().any(|v| matches!(v, Verdict::New | Verdict::Changed { .. }));
        if changed {
            self.renew(&keys, &here);
        }
        Judgement { verdicts, changed, flapping }
    }

    /// Finds out whether the source gave its old items new guids: at least four of five are new although most of
    /// those are known by link and title. Then what is known of them goes over to their new keys.
    fn carry_over(&mut self, items: &[Item], keys: &[u64]) -> bool {
        let fresh: Vec<_> = (0..items.len()).filter(|n| !self.met.contains_key(&keys[*n])).collect();
        if self.met.is_empty() || fresh.len() * 5 < items.len() * 4 {
            return false;
        }
        let by_second: HashMap<_, _> =
            self.met.iter().filter(|(_, met)| met.second != 0).map(|(key, met)| (met.second, *key)).collect();
        let old_key = |n: usize| items[n].second_key.and_then(|second| by_second.get(&second).copied());
        let known: Vec<_> = fresh.iter().filter_map(|n| Some((*n, old_key(*n)?))).collect();
        if known.len() * 2 <= fresh.len() {
            return false;
        }
        for (n, old) in known {
            // Two items of one link and title: the first took it over.
            if let Some(met) = self.met.remove(&old) {
                self.met.insert(keys[n], met);
            }
        }
        true
    }

    /// Puts the keys of the newest document in front, and forgets the oldest over the bound.
    fn renew(&mut self, keys: &[u64], here: &HashSet<u64>) {
        let mut met = HashSet::new();
        let mut order: Vec<_> =
            keys.iter().copied().filter(|key| self.met.contains_key(key) && met.insert(*key)).collect();
        let bound = KEYS_MAX.max(order.len());
        let older =
            self.order.iter().copied().filter(|key| !here.contains(key) && self.met.contains_key(key));
        order.extend(older);
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
        assert_eq!(seen.take_in(&[item("a", 1), item("b", 1)], T1()).verdicts, [Verdict::New, Verdict::New]);
        let again = seen.take_in(&[item("a", 1)], T2());
        assert_eq!((again.verdicts.as_slice(), again.changed), (&[Verdict::Known][..], false));
        let changed = Verdict::Changed { first_seen: T1() };
        assert_eq!(seen.take_in(&[item("a", 2), item("c", 1)], T2()).verdicts, [changed, Verdict::New]);
        let again = Seen::decode(&seen.encode()).unwrap();
        assert_eq!((again.met, again.order), (seen.met, seen.order));
    }

    #[test]
    fn a_key_that_stands_twice_in_a_document_counts_once() {
        let mut seen = Seen::default();
        let twice = [item("a", 1), item("a", 2)];
        assert_eq!(seen.take_in(&twice, T1()).verdicts.iter().filter(|v| **v == Verdict::New).count(), 1);
        assert!(!seen.take_in(&twice, T1()).changed);
    }

    #[test]
    fn the_list_is_bounded_and_never_forgets_the_newest_document() {
        let mut seen = Seen::default();
        let old: Vec<_> = (0..KEYS_MAX).map(|n| item(&format!("old{n}"), 1)).collect();
        seen.take_in(&old, T1());
        let new: Vec<_> = (0..1000).map(|n| item(&format!("new{n}"), 1)).collect();
        seen.take_in(&new, T2());
        assert_eq!((seen.order.len(), seen.met.len()), (KEYS_MAX, KEYS_MAX));
        assert!(!seen.take_in(&new, T2()).changed);
        assert_eq!(seen.take_in(&old[..1], T2()).verdicts, [Verdict::Known]);
        assert_eq!(seen.take_in(&old[KEYS_MAX - 1..], T2()).verdicts, [Verdict::New]);
    }

    /// A document of ten articles, of which `first` is the oldest, with guids that change with `visit`.
    fn flapping_document(visit: usize, first: u64) -> Vec<Item> {
        let article = |n: u64| Item { second_key: Some(n), ..item(&format!("guid-{visit}-{n}"), n) };
        (first..first + 10).map(article).collect()
    }

    #[test]
    fn guids_that_change_at_every_visit_do_not_flood_the_wire() {
        let mut seen = Seen::default();
        let mut new = 0;
        for visit in 0..50 {
            // A really new article at every fifth visit.
            let judgement = seen.take_in(&flapping_document(visit, 1 + visit as u64 / 5), T1());
            new += judgement.verdicts.iter().filter(|v| **v == Verdict::New).count();
            assert_eq!(judgement.flapping, visit > 0, "visit {visit}");
            assert!(judgement.verdicts.iter().all(|v| matches!(v, Verdict::New | Verdict::Known)));
            seen = Seen::decode(&seen.encode()).unwrap();
        }
        assert_eq!(new, 10 + 9);
    }

    #[test]
    fn a_known_article_under_a_new_guid_keeps_its_first_sight_and_its_changes_are_told() {
        let mut seen = Seen::default();
        seen.take_in(&flapping_document(0, 1), T1());
        let mut second = flapping_document(1, 1);
        second[3].content_hash = 99;
        let judgement = seen.take_in(&second, T2());
        assert_eq!(judgement.verdicts[3], Verdict::Changed { first_seen: T1() });
        assert_eq!(judgement.verdicts.iter().filter(|v| **v == Verdict::Known).count(), 9);
    }

    #[test]
    fn a_feed_that_is_really_all_new_is_all_new() {
        let mut seen = Seen::default();
        seen.take_in(&flapping_document(0, 1), T1());
        let judgement = seen.take_in(&flapping_document(0, 1000), T2());
        assert!(!judgement.flapping);
        assert_eq!(judgement.verdicts, [Verdict::New; 10]);
    }

    #[test]
    fn while_guids_flap_new_articles_are_taken_in_portions_the_newest_first() {
        let mut seen = Seen::default();
        let article =
            |visit: usize, n: u64| Item { second_key: Some(n), ..item(&format!("guid-{visit}-{n}"), n) };
        let document =
            |visit, articles: std::ops::Range<u64>| articles.map(|n| article(visit, n)).collect::<Vec<_>>();
        seen.take_in(&document(0, 1..101), T1());
        let judgement = seen.take_in(&document(1, 1..151), T2());
        let count = |wanted| judgement.verdicts.iter().filter(|v| **v == wanted).count();
        assert_eq!((count(Verdict::New), count(Verdict::Held), count(Verdict::Known)), (20, 30, 100));
        assert_eq!(judgement.verdicts[149], Verdict::New);
        let judgement = seen.take_in(&document(2, 1..151), T2());
        assert_eq!(judgement.verdicts.iter().filter(|v| **v == Verdict::New).count(), 20);
    }

    #[test]
    fn a_list_that_was_cut_is_damage() {
        assert!(Seen::decode(&[0; ENTRY + 1]).is_err());
    }
}
