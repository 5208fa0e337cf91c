//! A reader of `text/event-stream` to the letter of the HTML standard, section 9.2.6, written for these tests alone.
//!
//! Its letter is stricter than most browsers in one place: what a block's `id` sets is forgotten at the end of a
//! connection unless the block was complete, and a new connection begins with an empty id buffer. A stream whose first
//! block on a resumed connection has no `id` therefore makes such a client lose its place.

use std::time::Duration;

/// One event as an `EventSource` would dispatch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type: `message` unless an `event` field named another.
    pub event: String,
    /// Its data, lines joined by LF.
    pub data: String,
    /// The last event id when it was dispatched; empty when there was none.
    pub last_event_id: String,
}

/// Takes bytes, gives messages, remembers the place.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line of this connection has been read: a byte order mark can no longer come.
    begun: bool,
    data: String,
    event: String,
    id: String,
    last_event_id: String,
    retry: Option<Duration>,
    blocks: u64,
}

impl Parser {
    /// What a client would send as `Last-Event-ID`; empty when it has no place.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// How long the server wants a client to wait before it connects again.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Complete blocks so far, those without data included.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// A new connection begins: whatever was half read is forgotten, the place and the delay are kept.
    pub fn reconnect(&mut self) {
        let place = std::mem::take(&mut self.last_event_id);
        *self = Self { last_event_id: place, retry: self.retry, blocks: self.blocks, ..Self::default() };
    }

    /// Reads what has arrived.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for &byte in bytes {
            let second_half = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            match byte {
                b'\n' if second_half => {}
                b'\r' | b'\n' => messages.extend(self.end_of_line()),
                other => self.line.push(other),
            }
        }
        messages
    }

    fn end_of_line(&mut self) -> Option<Message> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = if self.begun { &*line } else { line.strip_prefix('\u{feff}').unwrap_or(&line) };
        self.begun = true;
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        self.field(field, value.strip_prefix(' ').unwrap_or(value));
        None
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Message> {
        self.blocks += 1;
        self.last_event_id.clone_from(&self.id);
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        data.pop()?; // the LF after the last line; without one there was no data
        let event = if event.is_empty() { "message".to_owned() } else { event };
        Some(Message { event, data, last_event_id: self.last_event_id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, String)> {
        Parser::default()
            .push(text.as_bytes())
            .into_iter()
            .map(|m| (m.event, m.data, m.last_event_id))
            .collect()
    }

    fn message(event: &str, data: &str, id: &str) -> (String, String, String) {
        (event.to_owned(), data.to_owned(), id.to_owned())
    }

    #[test]
    fn the_examples_of_the_standard_read_as_it_says() {
        assert_eq!(
            read(
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
            ),
            [
                message("message", "first event", "1"),
                message("message", "second event", ""),
                message("message", " third event", "")
            ]
        );
        assert_eq!(
            read("data\n\ndata\ndata\n\ndata:"),
            [message("message", "", ""), message("message", "\n", "")]
        );
        assert_eq!(read("data: YHOO\ndata: +2\ndata: 10\n\n"), [message("message", "YHOO\n+2\n10", "")]);
    }

    #[test]
    fn every_line_end_and_a_byte_order_mark_are_understood() {
        for text in ["\u{feff}event: a\ndata: b\n\n", "event: a\rdata: b\r\r", "event: a\r\ndata: b\r\n\r\n"]
        {
            assert_eq!(read(text), [message("a", "b", "")], "{text:?}");
            let mut parser = Parser::default();
            let pieces: Vec<_> = text.bytes().flat_map(|byte| parser.push(&[byte])).collect();
            assert_eq!(pieces.len(), 1, "{text:?} byte by byte");
        }
    }

    #[test]
    fn a_block_with_an_id_alone_moves_the_place() {
        let mut parser = Parser::default();
        assert!(parser.push(b"id: e-7\n\n").is_empty());
        assert_eq!(parser.last_event_id(), "e-7");
        parser.push(b"id: e-8\n");
        assert_eq!(parser.last_event_id(), "e-7", "a block counts when it is complete");
        parser.push(b"id: e-\09\n\n");
        assert_eq!(parser.last_event_id(), "e-8", "an id with a NUL is no id");
    }

    #[test]
    fn a_new_connection_keeps_the_place_until_a_block_ends_without_an_id() {
        let mut parser = Parser::default();
        parser.push(b"retry: 250\nid: e-7\n\ndata: half");
        parser.reconnect();
        assert_eq!((parser.last_event_id(), parser.retry()), ("e-7", Some(Duration::from_millis(250))));
        assert_eq!(parser.push(b"data: whole\n\n")[0].data, "whole");
        assert_eq!(parser.last_event_id(), "");
    }
}
