//! The published events: the same bytes for both sides, each with its sequence number and the time it was sent.

use news::{Cursor, Epoch, Event, EventKind, FeedUrl, Item, Seq, Source, SourceId, Timestamp};

/// The epoch of the log.
pub(crate) const EPOCH: &str = "bench";
/// The beginning of an item's JSON; the epoch, a dash and its sequence number follow.
pub(crate) const ID_MARK: &[u8] = b"{\"id\":\"";
/// What precedes the stamp (microseconds since the start).
pub(crate) const STAMP_MARK: &[u8] = b"\"title\":\"@";

/// The JSON of an item, padded to `bytes`.
pub(crate) fn json(seq: u64, stamp: u64, bytes: usize) -> String {
    let bare = event(seq, stamp, String::new(), None).len();
    event(seq, stamp, "x".repeat(bytes.saturating_sub(bare)), None)
}

/// The JSON of an item of about `bytes` whose summary and content are words: half of the bytes each, but a small item has
/// a summary only.
pub(crate) fn json_of_words(seq: u64, stamp: u64, bytes: usize) -> String {
    const CONTENT_FROM: usize = 4096;
    let bare = event(seq, stamp, String::new(), None).len();
    let left = bytes.saturating_sub(bare);
    if bytes < CONTENT_FROM {
        return event(seq, stamp, words(seq, left), None);
    }
    event(seq, stamp, words(seq, left / 2), Some(words(seq, left / 2)))
}

/// About `bytes` of words, a few of which are in every hundredth item only.
fn words(seq: u64, bytes: usize) -> String {
    let mut text = format!("Nummer {} Überschrift rare{} ", seq, seq % 100);
    let mut n = seq;
    while text.len() < bytes {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(
            ["news ", "Zürich ", "parliament ", "aaaaaaaab ", "of ", "market ", "weather "]
                [(n >> 33) as usize % 7],
        );
    }
    text.truncate((0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
    text
}

fn event(seq: u64, stamp: u64, summary: String, content_html: Option<String>) -> String {
    let url = FeedUrl::try_new("https://example.org/").expect("a valid URL");
    let source = Source::new(SourceId::try_new("bench").expect("a valid name"), url);
    let id = Cursor { epoch: Epoch::try_new(EPOCH).expect("a valid name"), seq: Seq(seq) };
    let item =
        Item { key: seq.to_string(), title: format!("@{stamp}"), summary, content_html, ..Item::default() };
    Event::new(id, EventKind::Item, &source, Timestamp::from_millis(0), item).to_json()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_of_words_has_about_the_requested_length() {
        for bytes in [512, 65_536] {
            let length = json_of_words(17, 99, bytes).len();
            assert!(length.abs_diff(bytes) < bytes / 20, "{length}");
        }
    }

    #[test]
    fn an_item_has_the_requested_length_and_begins_with_its_number() {
        let item = json(17, 99, 512);
        assert_eq!(item.len(), 512);
        assert!(item.starts_with("{\"id\":\"bench-17\""), "{item}");
        assert!(item.contains("\"title\":\"@99\""), "{item}");
    }
}
