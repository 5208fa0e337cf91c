//! What a visit adds to the seen set on disk: little, however many items the source had.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use news::{Item, Timestamp};
use seen::SeenSet;

/// The items of a document, oldest first; `text` has the text of an item.
fn document(numbers: impl IntoIterator<Item = u32>, text: impl Fn(u32) -> String) -> Vec<Item> {
    let mut rss = String::from("<rss version=\"2.0\"><channel><title>Feed</title>");
    for n in numbers {
        let link = format!("https://news.example/2024/article-{n}");
        let date = Timestamp::from_millis(1_700_000_000_000 + i64::from(n) * 600_000);
        write!(rss, "<item><guid>{link}</guid><link>{link}</link><title>Article {n}</title>").unwrap();
        write!(rss, "<description>{}</description><pubDate>{date}</pubDate></item>", text(n)).unwrap();
    }
    rss.push_str("</channel></rss>");
    seen::oldest_first(feed::read(rss.as_bytes(), &feed::Hints::default()).unwrap().items)
}

/// A source whose seen set is stored as a base and deltas.
struct StoredSource {
    seen: SeenSet,
    base: Vec<u8>,
    deltas: Vec<Vec<u8>>,
    at: i64,
}

impl StoredSource {
    /// It has had items 0 to `known`, the last ones in the newest document.
    fn with_known(known: u32) -> Self {
        let mut source = Self { seen: SeenSet::default(), base: Vec::new(), deltas: Vec::new(), at: 0 };
        for from in (0..known).step_by(50) {
            source.visit_of(&document((from..known.min(from + 50)).rev(), |n| format!("Text {n}")));
        }
        source.base = source.seen.encode();
        source.deltas.clear();
        source
    }

    /// Bytes of the delta; 0 if nothing is written.
    fn visit_of(&mut self, items: &[Item]) -> usize {
        let before = self.seen.clone();
        self.at += 300_000;
        if !self.seen.classify(items, Timestamp::from_millis(1_800_000_000_000 + self.at)).changed {
            return 0;
        }
        self.deltas.push(self.seen.delta_from(&before));
        self.deltas[self.deltas.len() - 1].len()
    }

    /// A visit to a document with these items, the newest first.
    fn visit(&mut self, numbers: impl IntoIterator<Item = u32>) -> usize {
        self.visit_of(&document(numbers, |n| format!("Text {n}")))
    }

    fn assert_is_stored(&self) {
        let mut stored = SeenSet::decode(SeenSet::LAYOUT, &self.base).unwrap();
        stored.apply_deltas(self.deltas.iter().map(Vec::as_slice)).unwrap();
        assert!(stored.encode() == self.seen.encode());
    }
}

#[test]
fn one_new_item_of_a_source_with_3000_known_ones_is_a_delta_of_less_than_400_bytes() {
    let mut source = StoredSource::with_known(3000);
    assert!(source.base.len() > 3000 * 70);
    let grows = source.visit((2950..3001).rev());
    let moves: Vec<_> = (0..100).map(|n| source.visit((2952 + n..3002 + n).rev())).collect();
    let loses = source.visit((3060..3101).rev());
    let rotates = source.visit(100..150);
    let scattered = source.visit((0..50).map(|n| (n * 1873 + 11) % 3000));
    println!("bytes: one more {grows}, one new and one gone {:?}, some gone {loses}", &moves[..3]);
    println!("bytes: 50 others in a row {rotates}, 50 others from anywhere {scattered}");
    source.assert_is_stored();
    let largest = moves.iter().chain([&grows, &loses, &rotates, &scattered]).max();
    assert!(*largest.unwrap() < 400, "{largest:?}");
}

#[test]
fn what_changes_at_many_visits_is_a_delta_of_a_few_bytes_an_item() {
    let mut source = StoredSource::with_known(3000);
    let window = |n: u32| (2951 + n..3001 + n).rev();
    // Half of the items count their comments, and there is one new item a visit.
    let counts =
        |visit| move |n: u32| format!("Text {n}, {} comments", if n.is_multiple_of(2) { visit } else { 0 });
    let counting: Vec<_> =
        (0..20).map(|visit| source.visit_of(&document(window(visit), counts(visit)))).collect();
    let quiet: Vec<_> = (20..40).map(|visit| source.visit_of(&document(window(visit), counts(19)))).collect();
    println!("bytes: half of 50 items count {counting:?}, then nothing but one new item {quiet:?}");
    source.assert_is_stored();
    // Of all items at first, then of half of them: the text, its version and the one before are others.
    assert!(counting[0] < 50 * 24 + 400, "{counting:?}");
    assert!(counting[1..].iter().all(|bytes| *bytes < 25 * 24 + 400), "{counting:?}");
    assert!(quiet[8..].iter().all(|bytes| *bytes < 400), "{quiet:?}");
}

#[test]
fn a_set_of_the_first_version_and_deltas_are_the_later_set() {
    let base = include_bytes!("version1/permalinks.seen");
    let document = include_bytes!("version1/permalinks.xml");
    let items = seen::oldest_first(feed::read(document, &feed::Hints::default()).unwrap().items);
    let before = SeenSet::decode(1, base).unwrap();
    let mut after = before.clone();
    assert!(after.classify(&items, Timestamp::from_millis(1_900_000_000_000)).changed);
    let mut stored = SeenSet::decode(1, base).unwrap();
    stored.apply_deltas([&*after.delta_from(&before)]).unwrap();
    assert_eq!(stored.encode(), after.encode());
    let again = stored.classify(&items, Timestamp::from_millis(1_900_000_300_000));
    assert!(!again.changed, "it is no upgrade any more");
}

#[test]
fn a_delta_that_is_not_of_the_set_leaves_it_as_it_was() {
    let mut source = StoredSource::with_known(100);
    let before = source.seen.clone();
    source.visit(51..101);
    let delta = &source.deltas[0];
    let mut other = StoredSource::with_known(90).seen;
    let encoded = other.encode();
    assert!(other.apply_deltas([&**delta]).is_err());
    assert_eq!(other.encode(), encoded);
    let mut twice = before.clone();
    assert!(twice.apply_deltas([&**delta, &**delta]).is_err());
    assert_eq!(twice.encode(), before.encode());
    twice.apply_deltas([]).unwrap();
    assert_eq!(twice.encode(), before.encode());
}
