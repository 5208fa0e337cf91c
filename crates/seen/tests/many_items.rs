//! Sources that have had tens of thousands of items: none is sent twice, and a visit stays cheap.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use news::{Item, ItemEvidence, Timestamp, stable_hash};
use seen::{Classification, ItemStatus, SeenSet};

/// An item as the parser would return it; without parsing, because there are many.
fn item(n: usize, dated: bool) -> Item {
    let hash = |part: usize| stable_hash(&[n.to_le_bytes(), part.to_le_bytes()].concat());
    let seconds = i64::try_from(n).unwrap();
    Item {
        key: format!("{:032x}", n + 1),
        title: format!("Offer {n}"),
        published: dated.then(|| Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)),
        evidence: ItemEvidence {
            guid: hash(0),
            link: hash(1),
            path: hash(2),
            page: hash(3),
            title: hash(4),
            ..ItemEvidence::default()
        },
        ..Item::default()
    }
}

#[derive(Default)]
struct Visits {
    seen: SeenSet,
    at: i64,
}

impl Visits {
    fn visit(&mut self, items: &[Item]) -> Classification {
        self.at += 300_000;
        self.seen.classify(items, Timestamp::from_millis(1_800_000_000_000 + self.at))
    }

    /// Items 0 to `known`, in documents of 1,000.
    fn with_known(known: usize) -> Self {
        let mut visits = Self::default();
        for from in (0..known).step_by(1000) {
            let items: Vec<_> = (from..known.min(from + 1000)).map(|n| item(n, true)).collect();
            visits.visit(&items);
        }
        visits
    }
}

#[test]
fn items_that_a_feed_shows_in_turn_are_sent_once_however_many_they_are() {
    for (ids, window, dated) in [(10_000, 1000, false), (10_000, 50, true), (30_000, 1000, true)] {
        let all: Vec<_> = (0..ids).map(|n| item(n, dated)).collect();
        let mut visits = Visits::default();
        let mut sent = 0;
        // Two rounds, of which each visit shows some items that the one before had.
        for from in (0..2 * ids).step_by(window - 7) {
            let items: Vec<_> = (from..from + window).map(|n| all[n % ids].clone()).collect();
            let visit = visits.visit(&items);
            assert_eq!(visit.forgotten, 0);
            sent += visit.count(ItemStatus::New);
        }
        assert_eq!(sent, ids, "{ids} in windows of {window}");
    }
}

#[test]
fn a_full_set_forgets_what_was_not_seen_for_longest_and_says_so() {
    let max = SeenSet::ENTRIES_MAX;
    let mut visits = Visits::default();
    let (mut had, mut forgotten) = (0, 0);
    for from in (10..max + 1500).step_by(990) {
        // The first ones stay in the feed.
        let items: Vec<_> = (0..10).chain(from..from + 990).map(|n| item(n, false)).collect();
        forgotten += visits.visit(&items).forgotten;
        had = from + 990;
    }
    assert_eq!((forgotten, visits.seen.encode().len()), (had - max, 15 + 76 * max));
    let items: Vec<_> = (0..50).map(|n| item(n, false)).collect();
    let again = visits.visit(&items);
    assert!(again.items[..10].iter().all(|item| item.status == ItemStatus::Known), "they stayed in the feed");
    assert_eq!(again.count(ItemStatus::New), 40, "they were forgotten");
}

/// The shortest of some times that it takes.
#[expect(clippy::disallowed_methods, reason = "how long it really takes")]
fn shortest(mut work: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..9).map(time).min().unwrap()
}

#[test]
fn a_document_of_50_items_costs_little_more_than_reading_a_full_set() {
    let full = Visits::with_known(SeenSet::ENTRIES_MAX);
    let bytes = full.seen.encode();
    let reading = shortest(|| drop(SeenSet::decode(SeenSet::LAYOUT, &bytes).unwrap()));
    let last = SeenSet::ENTRIES_MAX;
    let edited = |n| {
        let mut item = item(n, true);
        item.evidence.title ^= 1;
        item
    };
    let documents: [(&str, Vec<_>); 4] = [
        ("one new item", (last - 49..=last).map(|n| item(n, true)).collect()),
        ("50 new items", (last..last + 50).map(|n| item(n, true)).collect()),
        ("50 that were not seen for long", (0..50).map(|n| item(n, true)).collect()),
        ("50 that were edited", (last - 50..last).map(edited).collect()),
    ];
    for (what, items) in documents {
        let mut sets: Vec<_> = (0..9).map(|_| full.seen.clone()).collect();
        let now = Timestamp::from_millis(1_900_000_000_000);
        let classifying = shortest(|| drop(sets.pop().unwrap().classify(&items, now)));
        println!("{what}: {classifying:?}, reading the set: {reading:?}");
        assert!(classifying < reading * 10, "{what}: {classifying:?}, reading the set {reading:?}");
    }
}
