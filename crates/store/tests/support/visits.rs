//! Visits and what they have left in the log.

use std::sync::Arc;

use news::{Event, FeedUrl, Item, ItemEvidence, Seq, Source, SourceId, SourceState, Timestamp};
use store::{LogReader, NewsPlan, VisitRecord};

pub(crate) fn source(id: &str) -> Arc<Source> {
    let url = FeedUrl::try_new("https://example.org/feed").unwrap();
    Arc::new(Source::new(SourceId::try_new(id).unwrap(), url))
}

pub(crate) fn item(key: &str, version: u64) -> Item {
    let title = format!("{key} {version}");
    let evidence = ItemEvidence {
        guid: news::stable_hash(key.as_bytes()),
        text: news::stable_hash(title.as_bytes()),
        ..ItemEvidence::default()
    };
    // In other words, too: numbers that change at each visit would be damped as counters.
    let summary = "again ".repeat(usize::try_from(version).unwrap());
    Item { key: key.to_owned(), title, summary, evidence, ..Item::default() }
}

pub(crate) fn visit(source: &Arc<Source>, items: Vec<Item>, now: i64) -> VisitRecord {
    let state = SourceState { etag: Some(format!("\"{now}\"")), ..SourceState::default() };
    VisitRecord {
        source: Arc::clone(source),
        items,
        state,
        now: Timestamp::from_millis(now),
        plan: NewsPlan::default(),
    }
}

pub(crate) fn all(reader: &LogReader) -> Vec<Event> {
    let page = reader.page(Seq(reader.oldest().0 - 1), usize::MAX, usize::MAX).unwrap();
    page.records.iter().map(|r| serde_json::from_str(&r.json).unwrap()).collect()
}
