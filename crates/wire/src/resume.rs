//! Resolves the id of a reader: where its stream continues, and what its first event says.

use news::{Cursor, Epoch, Seq};
use serde::{Deserialize, Serialize};

use crate::aliases::IdAliases;

/// The header in which a reader names the newest event that it has ever seen of the log.
pub const NEWEST_EVENT_ID: &str = "newest-event-id";
/// The header with the [`event_hash`] of that event.
pub const NEWEST_EVENT_HASH: &str = "newest-event-hash";

/// What an event is recognised by: 16 hexadecimal digits. An event never changes, so two logs in which it differs have
/// different histories.
#[must_use]
pub fn event_hash(json: &[u8]) -> String {
    format!("{:016x}", news::stable_hash(json))
}

/// How the id of a reader was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// It sent none: it starts with a snapshot and continues live.
    Live,
    /// Every event after its id follows.
    Exact,
    /// Its id is older than the oldest event kept: it misses [`StreamOpened::missed`] events, the rest follows.
    Gap,
    /// Its id is of another epoch, newer than the head, or invalid: it starts as if it had sent none.
    Reset,
}

impl Resume {
    /// All of them, for metric labels.
    pub const ALL: [Self; 4] = [Self::Live, Self::Exact, Self::Gap, Self::Reset];

    /// The word in the stream and in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Exact => "exact",
            Self::Gap => "gap",
            Self::Reset => "reset",
        }
    }
}

/// The data of the first event of every stream, `stream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOpened {
    /// How the id was resolved.
    pub resume: Resume,
    /// The id as it was sent, if it has the form of one.
    pub requested: Option<String>,
    /// The oldest event kept.
    pub oldest: Option<Cursor>,
    /// The newest event, `<epoch>-0` before the first; `None` if the server does not know the log yet.
    pub head: Option<Cursor>,
    /// Number of events that the reader missed; `None` if unknown (`reset`).
    pub missed: Option<u64>,
    /// Name and version of the server, `name/version`.
    pub server: String,
    /// Parameters of the request that mean nothing here.
    #[serde(default)]
    pub ignored: Vec<IgnoredParameter>,
    /// Values of its filters that no source of the catalogue has, as they were sent.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// This or another reader has seen an event that this log does not have, in the same epoch: the log is an older copy.
    #[serde(default, skip_serializing_if = "is_false")]
    pub older_copy: bool,
    /// The newest event that any reader is known to have seen of it, if the log does not have that one: ids up to it may
    /// stand for other events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_seen: Option<Cursor>,
    /// To a gateway: what ids of the stream of NATS mean here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<IdAliases>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A query parameter that means nothing to the route that it was sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredParameter {
    /// Its name as it was sent, shortened if it is long.
    pub name: String,
    /// The parameter that was probably meant; `None` if none is similar.
    pub did_you_mean: Option<String>,
}

/// The data of a `gap` event: the log does not have what comes next. The reader fell behind, or it is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Number of events missed.
    pub missed: u64,
    /// The event that follows; `None` if there is none yet.
    pub oldest: Option<Cursor>,
}

/// The oldest and the newest event of a log at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The oldest event kept; one more than the head if there is none.
    pub oldest: Seq,
    /// The newest event.
    pub head: Seq,
}

/// Where the stream of a reader continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeDecision {
    /// How its id was resolved.
    pub resume: Resume,
    /// It gets every event after this one; `None` if it starts with a snapshot.
    pub after: Option<Seq>,
    /// Number of events that it missed.
    pub missed: Option<u64>,
}

impl ResumeDecision {
    /// It starts as if it had sent no id.
    pub const RESET: Self = Self { resume: Resume::Reset, after: None, missed: None };
}

impl LogBounds {
    /// The newest event, as a cursor.
    #[must_use]
    pub fn head_cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch.clone(), seq: self.head }
    }

    /// Resolves the id that a reader sent.
    #[must_use]
    pub fn resolve_cursor(&self, requested: Option<&str>) -> ResumeDecision {
        let Some(requested) = requested else {
            return ResumeDecision { resume: Resume::Live, after: None, missed: Some(0) };
        };
        let cursor = requested.parse::<Cursor>().ok();
        let Some(cursor) = cursor.filter(|c| c.epoch == self.epoch && c.seq <= self.head) else {
            return ResumeDecision::RESET;
        };
        let floor = self.oldest.previous();
        if cursor.seq >= floor {
            ResumeDecision { resume: Resume::Exact, after: Some(cursor.seq), missed: Some(0) }
        } else {
            ResumeDecision { resume: Resume::Gap, after: Some(floor), missed: Some(floor.0 - cursor.seq.0) }
        }
    }

    /// The cursor before the `snapshot` newest events.
    #[must_use]
    pub fn snapshot(&self, snapshot: u64) -> Seq {
        Seq(self.head.0.saturating_sub(snapshot).max(self.oldest.previous().0))
    }

    /// The first event of the stream.
    #[must_use]
    pub fn stream_opened(
        &self,
        decision: &ResumeDecision,
        requested: Option<&str>,
        server: &str,
    ) -> StreamOpened {
        let id = |seq| Cursor { epoch: self.epoch.clone(), seq };
        StreamOpened {
            resume: decision.resume,
            requested: requested.filter(|r| r.parse::<Cursor>().is_ok()).map(str::to_owned),
            oldest: (self.oldest <= self.head).then(|| id(self.oldest)),
            head: Some(id(self.head)),
            missed: decision.missed,
            server: server.to_owned(),
            ignored: Vec::new(),
            unknown: Vec::new(),
            older_copy: false,
            newest_seen: None,
            aliases: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(oldest: u64, head: u64) -> LogBounds {
        LogBounds { epoch: Epoch::try_new("abc").unwrap(), oldest: Seq(oldest), head: Seq(head) }
    }

    #[test]
    fn a_reader_is_told_exactly_how_its_id_was_resolved() {
        let log = bounds(11, 20);
        let resolved = |id: &str| {
            let v = log.resolve_cursor(Some(id));
            (v.resume, v.after.map(|s| s.0), v.missed)
        };
        assert_eq!(resolved("abc-15"), (Resume::Exact, Some(15), Some(0)));
        assert_eq!(resolved("abc-20"), (Resume::Exact, Some(20), Some(0)));
        assert_eq!(resolved("abc-10"), (Resume::Exact, Some(10), Some(0)));
        assert_eq!(resolved("abc-9"), (Resume::Gap, Some(10), Some(1)));
        assert_eq!(resolved("abc-0"), (Resume::Gap, Some(10), Some(10)));
        for id in ["abc-21", "xyz-15", "", "15", "abc-99999999999999999999", "abc-1x", "\u{1F600}"] {
            assert_eq!(resolved(id), (Resume::Reset, None, None), "{id:?}");
        }
        assert_eq!(log.resolve_cursor(None).resume, Resume::Live);
    }

    #[test]
    fn an_empty_log_has_a_name_but_no_events() {
        let log = bounds(1, 0);
        let decision = log.resolve_cursor(Some("abc-0"));
        assert_eq!((decision.resume, decision.after), (Resume::Exact, Some(Seq(0))));
        let opened = log.stream_opened(&decision, Some("abc-0"), "test");
        assert_eq!((opened.oldest, opened.head.unwrap().to_string().as_str()), (None, "abc-0"));
        assert_eq!(log.snapshot(50), Seq(0));
    }

    #[test]
    fn a_snapshot_never_has_more_than_is_kept() {
        assert_eq!(bounds(11, 20).snapshot(5), Seq(15));
        assert_eq!(bounds(11, 20).snapshot(500), Seq(10));
        assert_eq!(bounds(11, 20).snapshot(0), Seq(20));
    }
}
