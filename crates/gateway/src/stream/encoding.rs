//! The encoding of a stream: Server-Sent Events, or one JSON object per line.
//!
//! ```text
//! id: k3v9q2-412                 {"event":"item","id":"k3v9q2-412","data":{…}}
//! event: item
//! data: {…}
//! ```

use std::fmt::Write as _;

use bytes::Bytes;
use news::{Cursor, Timestamp};
use serde::Serialize;
use wire::StreamOpened;

/// The encoding of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamFormat {
    /// `text/event-stream`, rendered once for all clients.
    EventStream,
    /// `application/x-ndjson`.
    NdJson,
}

/// Whether events come with their `content_html`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ContentHtml {
    #[default]
    Included,
    LeftOut,
}

/// The form of the blocks of events: every client with the same one gets the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockForm {
    pub(crate) format: StreamFormat,
    pub(crate) content: ContentHtml,
}

/// The data of a `heartbeat` event, for clients that asked for one.
#[derive(Debug, Serialize)]
pub(crate) struct HeartbeatData {
    /// The newest event; null before the gateway has received any.
    pub(crate) head: Option<Cursor>,
    /// Events between the client's cursor and the head; null before they are known.
    pub(crate) lag: Option<u64>,
    pub(crate) time: Timestamp,
}

/// The data of the `live` event.
#[derive(Debug, Serialize)]
pub(crate) struct LiveData {
    /// The newest event when the client came: it has everything up to this one.
    pub(crate) head: Cursor,
}

impl StreamFormat {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::EventStream => "text/event-stream",
            Self::NdJson => "application/x-ndjson",
        }
    }

    /// An event without an id.
    pub(crate) fn event(self, name: &str, data: &impl Serialize) -> Bytes {
        let json = serde_json::to_string(data).expect("our own types have a JSON form");
        self.event_of_json(name, &json)
    }

    /// The same, of data that is JSON already.
    pub(crate) fn event_of_json(self, name: &str, json: &str) -> Bytes {
        match self {
            Self::EventStream => format!("event: {name}\ndata: {json}\n\n").into(),
            Self::NdJson => format!("{{\"event\":\"{name}\",\"data\":{json}}}\n").into(),
        }
    }

    /// The first event, with the client's cursor, so that a client that loses the stream before its first item does not
    /// lose it. `retry_ms` is left out if it was sent before.
    pub(crate) fn hello(self, retry_ms: Option<u64>, cursor: Option<&Cursor>, hello: &StreamOpened) -> Bytes {
        let json = serde_json::to_string(hello).expect("our own types have a JSON form");
        let mut out = String::new();
        match self {
            Self::EventStream => {
                if let Some(ms) = retry_ms {
                    writeln!(out, "retry: {ms}").expect(STRING);
                }
                if let Some(cursor) = cursor {
                    writeln!(out, "id: {cursor}").expect(STRING);
                }
                write!(out, "event: stream\ndata: {json}\n\n").expect(STRING);
            }
            Self::NdJson => {
                out.push_str("{\"event\":\"stream\"");
                if let Some(cursor) = cursor {
                    write!(out, ",\"id\":\"{cursor}\"").expect(STRING);
                }
                if let Some(ms) = retry_ms {
                    write!(out, ",\"retry_ms\":{ms}").expect(STRING);
                }
                writeln!(out, ",\"data\":{json}}}").expect(STRING);
            }
        }
        out.into()
    }

    /// For a client whose cursor cannot be resolved yet. In SSE these are lines without a blank one: by the letter of the
    /// standard, the end of a block resets the last event id of a client that resumed, unless this connection has sent
    /// one.
    pub(crate) fn waiting(self, retry_ms: u64) -> Bytes {
        match self {
            Self::EventStream => format!("retry: {retry_ms}\n: waiting for the ingestion daemon\n").into(),
            Self::NdJson => format!("{{\"event\":\"waiting\",\"retry_ms\":{retry_ms}}}\n").into(),
        }
    }

    /// A heartbeat: moves the client's cursor, or only proves the connection. An `EventSource` passes no event on.
    pub(crate) fn heartbeat(self, cursor: Option<&Cursor>) -> Bytes {
        match (self, cursor) {
            (Self::EventStream, Some(cursor)) => format!("id: {cursor}\n\n").into(),
            (Self::EventStream, None) => Bytes::from_static(b": waiting\n"),
            (Self::NdJson, Some(cursor)) => {
                format!("{{\"event\":\"heartbeat\",\"id\":\"{cursor}\"}}\n").into()
            }
            (Self::NdJson, None) => Bytes::from_static(b"{\"event\":\"waiting\"}\n"),
        }
    }

    /// The same as an event with data, which an `EventSource` passes on.
    pub(crate) fn heartbeat_event(self, id: Option<&Cursor>, data: &HeartbeatData) -> Bytes {
        let json = serde_json::to_string(data).expect("our own types have a JSON form");
        match (self, id) {
            (_, None) => self.event_of_json("heartbeat", &json),
            (Self::EventStream, Some(id)) => format!("id: {id}\nevent: heartbeat\ndata: {json}\n\n").into(),
            (Self::NdJson, Some(id)) => {
                format!("{{\"event\":\"heartbeat\",\"id\":\"{id}\",\"data\":{json}}}\n").into()
            }
        }
    }

    /// The last block: when to reconnect, and the id to resume from.
    pub(crate) fn end(self, retry_ms: u64, cursor: Option<&Cursor>) -> Bytes {
        match (self, cursor) {
            (Self::EventStream, Some(cursor)) => format!("retry: {retry_ms}\n\nid: {cursor}\n\n").into(),
            // A parser may apply `retry` only once a blank line has ended the block.
            (Self::EventStream, None) => format!("retry: {retry_ms}\n\n").into(),
            (Self::NdJson, Some(cursor)) => {
                format!("{{\"event\":\"end\",\"id\":\"{cursor}\",\"retry_ms\":{retry_ms}}}\n").into()
            }
            (Self::NdJson, None) => format!("{{\"event\":\"end\",\"retry_ms\":{retry_ms}}}\n").into(),
        }
    }
}

const STRING: &str = "writing to a String cannot fail";

#[cfg(test)]
mod tests {
    use wire::Resume;

    use super::*;

    #[test]
    fn every_line_is_a_json_object_that_names_its_event() {
        let cursor: Cursor = "e-7".parse().unwrap();
        let hello = StreamOpened {
            resume: Resume::Live,
            requested: None,
            oldest: None,
            head: None,
            missed: None,
            server: "a \"server\"".to_owned(),
            ignored: Vec::new(),
            unknown: Vec::new(),
            older_copy: false,
            newest_seen: None,
            aliases: Vec::new(),
        };
        let beat =
            HeartbeatData { head: Some(cursor.clone()), lag: Some(0), time: Timestamp::from_millis(0) };
        let lines = StreamFormat::NdJson;
        for (line, event, id) in [
            (lines.hello(Some(5), Some(&cursor), &hello), "stream", Some("e-7")),
            (lines.hello(None, None, &hello), "stream", None),
            (lines.event("gap", &1), "gap", None),
            (lines.waiting(5), "waiting", None),
            (lines.heartbeat(Some(&cursor)), "heartbeat", Some("e-7")),
            (lines.heartbeat(None), "waiting", None),
            (lines.heartbeat_event(Some(&cursor), &beat), "heartbeat", Some("e-7")),
            (lines.heartbeat_event(None, &beat), "heartbeat", None),
            (lines.end(5, Some(&cursor)), "end", Some("e-7")),
            (lines.end(5, None), "end", None),
        ] {
            let text = std::str::from_utf8(&line).unwrap();
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!((value["event"].as_str(), value["id"].as_str()), (Some(event), id), "{text}");
        }
    }
}
