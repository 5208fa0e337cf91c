//! A parser of `text/event-stream` that follows the HTML standard (section 9.2.6) literally; only for tests.
//!
//! The standard is stricter than most browsers in one point: an `id` counts only when its block is complete, and each
//! connection begins with an empty id buffer. If the first block of a resumed stream has no `id`, such a client loses its
//! last event id.

use std::time::Duration;

/// One event as an `EventSource` would dispatch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type: `message` unless an `event` field named another.
    pub event: String,
    /// Its data; lines are joined by LF.
    pub data: String,
    /// The last event id when it was dispatched; empty if there was none.
    pub last_event_id: String,
}

/// Turns bytes into messages; keeps the last event id.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    /// The last byte was CR; a following LF belongs to it.
    after_cr: bool,
    /// The first line of this connection has been read; a byte order mark is no longer recognised.
    begun: bool,
    data: String,
    event: String,
    id: String,
    last_event_id: String,
    retry: Option<Duration>,
    blocks: u64,
}

impl SseParser {
    /// What a client would send as `Last-Event-ID`; empty if it has no id.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time that the server has set.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Complete blocks so far, including those without data.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Begins a new connection: drops incomplete input, keeps the last event id and the reconnection time.
    pub fn reconnect(&mut self) {
        let last_event_id = std::mem::take(&mut self.last_event_id);
        *self = Self { last_event_id, retry: self.retry, blocks: self.blocks, ..Self::default() };
    }

    /// Parses the next bytes and returns the messages that they complete.
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
                self.retry = value.parse().map_or(self.retry, |ms| Some(Duration::from_millis(ms)));
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
        SseParser::default()
            .push(text.as_bytes())
            .into_iter()
            .map(|m| (m.event, m.data, m.last_event_id))
            .collect()
    }

    fn message(event: &str, data: &str, id: &str) -> (String, String, String) {
        (event.to_owned(), data.to_owned(), id.to_owned())
    }

    #[test]
    fn the_examples_of_the_standard_parse_as_specified() {
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

    /// The vectors of the web platform tests, `eventsource/format-*`: a stream, and the data of the events in it.
    #[test]
    fn the_vectors_of_the_web_platform_tests_parse_as_specified() {
        let long = "x".repeat(2_048);
        let comments = format!("data:1\r:\0\n:\r\ndata:2\n:{long}\rdata:3\n:data:fail\r:{long}\ndata:4\n\n");
        let vectors: [(&str, &str, &[&str]); 14] = [
            ("bom", "\u{feff}data:1\n\n\u{feff}data:2\n\ndata:3\n\n", &["1", "3"]),
            ("bom-2", "\u{feff}\u{feff}data:1\n\ndata:2\n\ndata:3\n\n", &["2", "3"]),
            ("comments", &comments, &["1\n2\n3\n4"]),
            ("data-before-final-empty-line", "retry:1000\ndata:test1\n\nid:test\ndata:test2", &["test1"]),
            ("field-data", "data:\n\ndata\ndata\n\ndata:test\n\n", &["", "\n", "test"]),
            (
                "field-parsing",
                "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\n\
                 data:4\n\n",
                &["\0\n 2\n1\n3\n\n4"],
            ),
            (
                "field-unknown",
                "data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
                &["test\n\ntest"],
            ),
            ("leading-space", "data:\ttest\rdata: \ndata:test\n\n", &["\ttest\n\ntest"]),
            ("newlines", "data:test\r\ndata\ndata:test\r\n\r", &["test\n\ntest"]),
            ("null-character", "data:\0\n\n\n\n", &["\0"]),
            ("utf-8", "data:ok\u{2026}\n\n", &["ok\u{2026}"]),
            (
                "no line end but these",
                "data:a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f\n\n",
                &["a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f"],
            ),
            ("an event without data", "event:test\n\ndata:x\n\n", &["x"]),
            ("half a block", "data:x\n", &[]),
        ];
        for (name, stream, data) in vectors {
            let read: Vec<_> = read(stream).into_iter().map(|(_, data, _)| data).collect();
            assert_eq!(read, data, "{name}");
            let mut parser = SseParser::default();
            let bytes = stream.bytes().flat_map(|byte| parser.push(&[byte])).map(|message| message.data);
            assert_eq!(bytes.collect::<Vec<_>>(), data, "{name}, byte by byte");
        }
    }

    #[test]
    fn event_types_ids_and_retry_follow_the_web_platform_tests() {
        let events = [message("test", "x", ""), message("message", "x", "")];
        assert_eq!(read("event:test\ndata:x\n\ndata:x\n\n"), events);
        assert_eq!(read("event: \ndata:data\n\n"), [message("message", "data", "")]);
        let events =
            [message("message", "1", "1"), message("message", "2", "1"), message("message", "3", "")];
        assert_eq!(read("id: 1\ndata:1\n\ndata:2\n\nid\ndata:3\n\n"), events);
        for id in ["\0\0", "x\0", "\0x", "x\0x", " \0"] {
            let stream = format!("id: kept\n\nid: {id}\ndata:x\n\n");
            assert_eq!(read(&stream), [message("message", "x", "kept")], "{id:?}");
        }
        let retry = |stream: &str| {
            let mut parser = SseParser::default();
            parser.push(stream.as_bytes());
            parser.retry().map(|delay| delay.as_millis())
        };
        assert_eq!(retry("retry:03000\n"), Some(3_000), "before the block ends");
        for bogus in ["1000x", "-1", "+1", "1.5", "1e3", "", "  1", "\u{661}", "99999999999999999999"] {
            assert_eq!(retry(&format!("retry:3000\nretry:{bogus}\n")), Some(3_000), "{bogus:?}");
        }
    }

    #[test]
    fn every_line_ending_and_a_byte_order_mark_are_parsed() {
        for text in ["\u{feff}event: a\ndata: b\n\n", "event: a\rdata: b\r\r", "event: a\r\ndata: b\r\n\r\n"]
        {
            assert_eq!(read(text), [message("a", "b", "")], "{text:?}");
            let mut parser = SseParser::default();
            let pieces: Vec<_> = text.bytes().flat_map(|byte| parser.push(&[byte])).collect();
            assert_eq!(pieces.len(), 1, "{text:?} byte by byte");
        }
    }

    #[test]
    fn a_block_with_only_an_id_sets_the_last_event_id() {
        let mut parser = SseParser::default();
        assert!(parser.push(b"id: e-7\n\n").is_empty());
        assert_eq!(parser.last_event_id(), "e-7");
        parser.push(b"id: e-8\n");
        assert_eq!(parser.last_event_id(), "e-7", "a block counts when it is complete");
        parser.push(b"id: e-\09\n\n");
        assert_eq!(parser.last_event_id(), "e-8", "an id with a NUL is ignored");
    }

    #[test]
    fn a_new_connection_keeps_the_last_event_id_until_a_block_ends_without_one() {
        let mut parser = SseParser::default();
        parser.push(b"retry: 250\nid: e-7\n\ndata: half");
        parser.reconnect();
        assert_eq!((parser.last_event_id(), parser.retry()), ("e-7", Some(Duration::from_millis(250))));
        assert_eq!(parser.push(b"data: whole\n\n")[0].data, "whole");
        assert_eq!(parser.last_event_id(), "");
    }
}
