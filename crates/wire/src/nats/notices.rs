//! What daemons say on subjects that no stream stores: heartbeats, and notices of visits and of the catalogue.
//!
//! Each is a JSON object. What is lost is not sent again: heartbeats come every few seconds, and a gateway that was away reads
//! the list of sources anew.

use std::time::Duration;

use news::Cursor;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::publish::WireHeartbeat;

/// How often a daemon says that it is there.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// A daemon that has been silent for this long is not counted on.
pub const DAEMON_GONE_AFTER: Duration = Duration::from_secs(10);
/// How long a gateway holds a notice back until it has the event that the notice follows.
pub const NOTICE_HELD_MAX: Duration = Duration::from_secs(2);

/// A daemon is there: on `<name>.heartbeats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonHeartbeat {
    /// Its name, by which requests reach it.
    pub daemon: String,
    /// The bounds of its log, under the epoch of its log, and why it records nothing.
    #[serde(flatten)]
    pub heartbeat: WireHeartbeat,
    /// The newest event of its log that is in the stream, and all before it; `<epoch of its log>-0` without one.
    pub published: Cursor,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeKind {
    /// A visit has ended.
    Source,
    /// The catalogue has changed, or notices were lost: read the list of sources again.
    Catalogue,
}

impl NoticeKind {
    /// The name of the event in streams.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Catalogue => "catalogue",
        }
    }
}

/// Something happened at a daemon: on `<name>.notices`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DaemonNotice {
    /// Its name.
    pub daemon: String,
    /// What it is about.
    pub event: NoticeKind,
    /// The event of the stream that must be sent to clients before it; `None` if it waits for none.
    #[serde(default)]
    pub after: Option<Cursor>,
    /// The data of the event that clients get, as JSON.
    pub data: Box<RawValue>,
}

impl DaemonNotice {
    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a notice has a JSON form")
    }
}

/// What a process has seen of the stream: the answer to the question on `<name>.seen`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestSeen {
    /// The newest event: the epoch of the stream, and its number there.
    pub newest: Cursor,
    /// `Nats-Msg-Id` of its message, if the process has read or published it.
    #[serde(default)]
    pub message_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_and_notices_are_flat_json_objects() {
        let text = r#"{"daemon":"k3v9q2","head":"k3v9q2-7","oldest":"k3v9q2-1","published":"k3v9q2-5"}"#;
        let heartbeat: DaemonHeartbeat = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&heartbeat).unwrap(), text);
        let text = r#"{"daemon":"k3v9q2","event":"source","after":"s1-18","data":{"source":"bbc"}}"#;
        let notice: DaemonNotice = serde_json::from_str(text).unwrap();
        assert_eq!(notice.to_json(), text.as_bytes());
        assert_eq!((notice.event, notice.data.get()), (NoticeKind::Source, r#"{"source":"bbc"}"#));
        let catalogue: DaemonNotice =
            serde_json::from_str(r#"{"daemon":"d","event":"catalogue","data":{}}"#).unwrap();
        assert_eq!((catalogue.event, catalogue.after), (NoticeKind::Catalogue, None));
    }
}
