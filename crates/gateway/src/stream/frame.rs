//! Step 11 of the life of an item: its bytes, rendered once. Every client gets the same ones.

use bytes::Bytes;
use news::{Cursor, Event, EventKind, Seq, SourceId, Timestamp};

/// An event as every client gets it, and what filters look at.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) id: Cursor,
    pub(crate) seq: Seq,
    pub(crate) kind: EventKind,
    pub(crate) source: SourceId,
    pub(crate) category: Box<str>,
    pub(crate) tags: Box<[String]>,
    /// Title and summary in lower case, for word filters.
    pub(crate) text: Box<str>,
    pub(crate) first_seen: Timestamp,
    /// The block: `id`, `event`, `data`, blank line.
    pub(crate) block: Bytes,
    /// The range of the JSON within the block.
    json: (usize, usize),
}

impl Frame {
    /// Renders an event that was received as JSON on one line.
    ///
    /// # Errors
    /// If it is not an event.
    pub(crate) fn render(json: &[u8]) -> Result<Self, serde_json::Error> {
        let event: Event = serde_json::from_slice(json)?;
        let kind = event.kind;
        let head = format!("id: {}\nevent: {}\ndata: ", event.id, kind.as_str());
        let from = head.len();
        let mut block = head.into_bytes();
        block.extend_from_slice(json);
        let to = block.len();
        block.extend_from_slice(b"\n\n");
        let text = format!("{}\n{}", event.item.title, event.item.summary).to_lowercase();
        Ok(Self {
            seq: event.id.seq,
            id: event.id,
            kind,
            source: event.source,
            category: event.category.into(),
            tags: event.tags.into(),
            text: text.into(),
            first_seen: event.first_seen,
            block: block.into(),
            json: (from, to),
        })
    }

    /// The event as JSON, as it was received.
    pub(crate) fn json(&self) -> Bytes {
        self.block.slice(self.json.0..self.json.1)
    }

    /// Bytes of memory that the frame takes, about.
    pub(crate) fn weight(&self) -> usize {
        const FIXED: usize = 256;
        self.block.len() + self.text.len() + FIXED
    }
}

#[cfg(test)]
mod tests {
    use news::{Epoch, FeedUrl, Item, Source};

    use super::*;

    fn frame(title: &str) -> (Cursor, String, Frame) {
        let url = FeedUrl::try_new("https://example.org/").unwrap();
        let source = Source::new(SourceId::try_new("a").unwrap(), url);
        let id = Cursor { epoch: Epoch::try_new("e").unwrap(), seq: Seq(7) };
        let item = Item { title: title.to_owned(), ..Item::default() };
        let json =
            Event::new(id.clone(), EventKind::Item, &source, Timestamp::from_millis(0), item).to_json();
        let frame = Frame::render(json.as_bytes()).unwrap();
        (id, json, frame)
    }

    #[test]
    fn a_block_is_one_event_whatever_its_title_contains() {
        for title in
            ["plain", "two\nlines", "\r\n\r\nevent: error\n\n", "\u{2028}\u{0}\u{FEFF}", "data: x\n\nid: 9"]
        {
            let (id, json, frame) = frame(title);
            let text = std::str::from_utf8(&frame.block).unwrap();
            assert_eq!(text, format!("id: {id}\nevent: item\ndata: {json}\n\n"));
            assert_eq!(text.matches(['\n', '\r']).count(), 4, "{title:?}");
            assert_eq!(frame.json(), json.as_bytes());
        }
    }
}
