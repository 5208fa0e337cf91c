//! A publisher whose feed is changed by a test, and a source that is visited.

use std::fmt::Write as _;

use news::Timestamp;
use seen::{Classification, ItemStatus, SeenSet};

/// An entry as the publisher writes it; an empty field is left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) guid: String,
    pub(crate) link: String,
    pub(crate) title: String,
    /// HTML.
    pub(crate) text: String,
    /// Minutes since some Monday.
    pub(crate) minute: Option<i64>,
    pub(crate) enclosure: String,
}

impl Entry {
    fn rss(&self) -> String {
        let mut item = String::from("<item>");
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                writeln!(item, "<{name}><![CDATA[{value}]]></{name}>").unwrap();
            }
        };
        add("guid", &self.guid);
        add("link", &self.link);
        add("title", &self.title);
        add("description", &self.text);
        if let Some(minute) = self.minute {
            add("pubDate", &Timestamp::from_millis(1_700_000_000_000 + minute * 60_000).to_string());
        }
        if !self.enclosure.is_empty() {
            writeln!(item, "<enclosure url=\"{}\" type=\"audio/mpeg\" length=\"7\"/>", self.enclosure)
                .unwrap();
        }
        item + "</item>"
    }
}

pub(crate) fn document(entries: &[Entry]) -> Vec<news::Item> {
    let items: String = entries.iter().map(Entry::rss).collect();
    let rss = format!("<rss version=\"2.0\"><channel><title>Feed</title>{items}</channel></rss>");
    feed::read(rss.as_bytes(), &feed::Hints::default()).unwrap().items
}

/// A source, and what its visits sent.
#[derive(Default)]
pub(crate) struct Visits {
    pub(crate) seen: SeenSet,
    pub(crate) at: i64,
}

impl Visits {
    pub(crate) fn visit(&mut self, entries: &[Entry]) -> Classification {
        self.at += 300_000;
        let items = seen::oldest_first(document(entries));
        assert_eq!(items.len(), entries.len(), "the parser keeps every entry");
        let now = Timestamp::from_millis(1_800_000_000_000 + self.at);
        let classification = self.seen.classify(&items, now);
        let restarted = SeenSet::decode(SeenSet::LAYOUT, &self.seen.encode()).unwrap();
        assert_eq!(restarted.encode(), self.seen.encode());
        self.seen = restarted;
        classification
    }

    /// A visit: how many items and how many updates it sent.
    pub(crate) fn sent(&mut self, entries: &[Entry]) -> (usize, usize) {
        let visit = self.visit(entries);
        let updates = visit.items.iter().filter(|i| matches!(i.status, ItemStatus::Changed { .. })).count();
        (visit.count(ItemStatus::New), updates)
    }
}

/// Ten articles with permalinks, the newest first. `guids` says what guid the article of a number has.
pub(crate) fn ten(guid: impl Fn(i64) -> String) -> Vec<Entry> {
    (0..10)
        .rev()
        .map(|n| Entry {
            guid: guid(n),
            link: format!("http://news.example/2024/article-{n}"),
            title: format!("Article {n}"),
            text: format!("<p>What happened on day {n}, in a few words.</p>"),
            minute: Some(n * 1440),
            ..Entry::default()
        })
        .collect()
}

pub(crate) fn permalinks() -> Vec<Entry> {
    ten(|n| format!("http://news.example/2024/article-{n}"))
}

pub(crate) fn opaque() -> Vec<Entry> {
    ten(|n| format!("id-{n}"))
}

pub(crate) fn without_guid() -> Vec<Entry> {
    ten(|_| String::new())
}

pub(crate) fn undated(entries: Vec<Entry>) -> Vec<Entry> {
    entries.into_iter().map(|entry| Entry { minute: None, ..entry }).collect()
}

/// Each entry changed by a function of its number, from 0 for the newest.
pub(crate) fn changed(entries: &[Entry], change: impl Fn(usize, &mut Entry)) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    entries.iter_mut().enumerate().for_each(|(n, entry)| change(n, entry));
    entries
}
