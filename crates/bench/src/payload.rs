//! The published events: the same bytes for both sides, each with its sequence number and the time it was sent.

use news::{Cursor, Epoch, Event, EventKind, FeedUrl, Item, Seq, Source, SourceId, Timestamp};

/// The epoch of the log.
pub(crate) const EPOCH: &str = "bench";
/// The beginning of an item's JSON; its sequence number follows.
pub(crate) const ITEM_MARK: &[u8] = b"{\"id\":\"bench-";
/// What precedes the stamp (microseconds since the start).
pub(crate) const STAMP_MARK: &[u8] = b"\"title\":\"@";

/// The JSON of an item, padded to `bytes`.
pub(crate) fn json(seq: u64, stamp: u64, bytes: usize) -> String {
    let url = FeedUrl::try_new("https://example.org/").expect("a valid URL");
    let source = Source::new(SourceId::try_new("bench").expect("a valid name"), url);
    let id = Cursor { epoch: Epoch::try_new(EPOCH).expect("a valid name"), seq: Seq(seq) };
    let event = |summary: String| {
        let item = Item { key: seq.to_string(), title: format!("@{stamp}"), summary, ..Item::default() };
        Event::new(id.clone(), EventKind::Item, &source, Timestamp::from_millis(0), item).to_json()
    };
    let bare = event(String::new()).len();
    event("x".repeat(bytes.saturating_sub(bare)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_has_the_requested_length_and_begins_with_its_number() {
        let item = json(17, 99, 512);
        assert_eq!(item.len(), 512);
        assert!(item.as_bytes().starts_with(ITEM_MARK), "{item}");
        assert!(item.contains("\"title\":\"@99\""), "{item}");
    }
}
