//! In which words a stream is written: Server-Sent Events, or the same as one JSON object a line.
//!
//! ```text
//! id: k3v9q2-412                 {"event":"item","id":"k3v9q2-412","data":{…}}
//! event: item
//! data: {…}
//! ```

use std::fmt::Write as _;

use bytes::Bytes;
use news::Cursor;
use serde::Serialize;
use wire::StreamOpened;

use super::frame::Frame;

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamFormat {
    /// `text/event-stream`, rendered once for all clients.
    EventStream,
    /// `application/x-ndjson`.
    NdJson,
}

impl StreamFormat {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::EventStream => "text/event-stream",
            Self::NdJson => "application/x-ndjson",
        }
    }

    pub(crate) fn frame(self, frame: &Frame) -> Bytes {
        match self {
            Self::EventStream => frame.block.clone(),
            Self::NdJson => {
                let (id, kind, json) = (&frame.id, frame.kind.as_str(), frame.json());
                let head = format!("{{\"event\":\"{kind}\",\"id\":\"{id}\",\"data\":");
                [head.as_bytes(), &json, b"}\n"].concat().into()
            }
        }
    }

    /// An event without an id.
    pub(crate) fn event(self, name: &str, data: &impl Serialize) -> Bytes {
        let json = serde_json::to_string(data).expect("what we say has a JSON form");
        self.event_of_json(name, &json)
    }

    /// The same, when its JSON is there already.
    pub(crate) fn event_of_json(self, name: &str, json: &str) -> Bytes {
        match self {
            Self::EventStream => format!("event: {name}\ndata: {json}\n\n").into(),
            Self::NdJson => format!("{{\"event\":\"{name}\",\"data\":{json}}}\n").into(),
        }
    }

    /// The first event, with the client's place: a client that loses the stream before its first item keeps it.
    ///
    /// `retry_ms` is for whoever has not been told yet how long to wait after a loss.
    pub(crate) fn hello(self, retry_ms: Option<u64>, place: Option<&Cursor>, hello: &StreamOpened) -> Bytes {
        let json = serde_json::to_string(hello).expect("what we say has a JSON form");
        let mut out = String::new();
        match self {
            Self::EventStream => {
                if let Some(ms) = retry_ms {
                    writeln!(out, "retry: {ms}").expect(STRING);
                }
                if let Some(place) = place {
                    writeln!(out, "id: {place}").expect(STRING);
                }
                write!(out, "event: stream\ndata: {json}\n\n").expect(STRING);
            }
            Self::NdJson => {
                out.push_str("{\"event\":\"stream\"");
                if let Some(place) = place {
                    write!(out, ",\"id\":\"{place}\"").expect(STRING);
                }
                if let Some(ms) = retry_ms {
                    write!(out, ",\"retry_ms\":{ms}").expect(STRING);
                }
                writeln!(out, ",\"data\":{json}}}").expect(STRING);
            }
        }
        out.into()
    }

    /// Said to a client whose place cannot be judged yet. For SSE these are lines and no block: to the letter of the
    /// standard, the end of a block takes away the place of a client that resumed, unless an id has come on this
    /// connection.
    pub(crate) fn waiting(self, retry_ms: u64) -> Bytes {
        match self {
            Self::EventStream => format!("retry: {retry_ms}\n: waiting for the ingestion daemon\n").into(),
            Self::NdJson => format!("{{\"event\":\"waiting\",\"retry_ms\":{retry_ms}}}\n").into(),
        }
    }

    /// A heartbeat: moves the client's place, or only shows that we live.
    pub(crate) fn heartbeat(self, place: Option<&Cursor>) -> Bytes {
        match (self, place) {
            (Self::EventStream, Some(place)) => format!("id: {place}\n\n").into(),
            (Self::EventStream, None) => Bytes::from_static(b": waiting\n"),
            (Self::NdJson, Some(place)) => format!("{{\"event\":\"heartbeat\",\"id\":\"{place}\"}}\n").into(),
            (Self::NdJson, None) => Bytes::from_static(b"{\"event\":\"waiting\"}\n"),
        }
    }

    /// The last words: come back after that long, and go on from here.
    pub(crate) fn end(self, retry_ms: u64, place: Option<&Cursor>) -> Bytes {
        match (self, place) {
            (Self::EventStream, Some(place)) => format!("retry: {retry_ms}\n\nid: {place}\n\n").into(),
            (Self::EventStream, None) => format!("retry: {retry_ms}\n").into(),
            (Self::NdJson, Some(place)) => {
                format!("{{\"event\":\"end\",\"id\":\"{place}\",\"retry_ms\":{retry_ms}}}\n").into()
            }
            (Self::NdJson, None) => format!("{{\"event\":\"end\",\"retry_ms\":{retry_ms}}}\n").into(),
        }
    }
}

const STRING: &str = "a String takes everything";

#[cfg(test)]
mod tests {
    use wire::Resume;

    use super::*;

    #[test]
    fn every_line_is_a_json_object_with_the_name_of_its_event() {
        let place: Cursor = "e-7".parse().unwrap();
        let hello = StreamOpened {
            resume: Resume::Live,
            requested: None,
            oldest: None,
            head: None,
            missed: None,
            server: "a \"server\"".to_owned(),
        };
        let lines = StreamFormat::NdJson;
        for (line, event, id) in [
            (lines.hello(Some(5), Some(&place), &hello), "stream", Some("e-7")),
            (lines.hello(None, None, &hello), "stream", None),
            (lines.event("gap", &1), "gap", None),
            (lines.waiting(5), "waiting", None),
            (lines.heartbeat(Some(&place)), "heartbeat", Some("e-7")),
            (lines.heartbeat(None), "waiting", None),
            (lines.end(5, Some(&place)), "end", Some("e-7")),
            (lines.end(5, None), "end", None),
        ] {
            let text = std::str::from_utf8(&line).unwrap();
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!((value["event"].as_str(), value["id"].as_str()), (Some(event), id), "{text}");
        }
    }
}
