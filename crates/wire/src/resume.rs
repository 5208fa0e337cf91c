//! Where a reader that comes with an id goes on, and what it is told.

use news::{Cursor, Epoch, Seq};
use serde::{Deserialize, Serialize};

/// What became of the id that a reader came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// It came with none: it starts with a snapshot and goes on live.
    Live,
    /// Every event after its id follows.
    Exact,
    /// Its id is older than what is kept: [`StreamOpened::missed`] events are lost to it, the rest follows.
    Gap,
    /// Its id belongs to another log, to the future, or is none of ours: it starts as one that came with none.
    Reset,
}

impl Resume {
    /// Every result, for metric labels.
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
    /// What became of the id.
    pub resume: Resume,
    /// The id as it was sent, when it had the shape of one.
    pub requested: Option<String>,
    /// The oldest event kept.
    pub oldest: Option<Cursor>,
    /// The newest event, `<epoch>-0` before the first; nothing when the one who answers does not know the log yet.
    pub head: Option<Cursor>,
    /// Events lost to this reader; nothing when that cannot be known (`reset`).
    pub missed: Option<u64>,
    /// Who answers, as `name/version`.
    pub server: String,
}

/// The data of a `gap` event: the reader fell behind and the log no longer has what comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Events lost.
    pub missed: u64,
    /// The event it goes on with.
    pub oldest: Option<Cursor>,
}

/// What a log holds at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Which log.
    pub epoch: Epoch,
    /// The oldest event kept; one more than the head when there is none.
    pub oldest: Seq,
    /// The newest event.
    pub head: Seq,
}

/// Where a reader goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeDecision {
    /// What it is told.
    pub resume: Resume,
    /// It gets every event after this one; nothing when it starts afresh.
    pub after: Option<Seq>,
    /// Events lost to it.
    pub missed: Option<u64>,
}

impl LogBounds {
    /// Judges the id of a reader, as it came off the network.
    #[must_use]
    pub fn resolve_cursor(&self, requested: Option<&str>) -> ResumeDecision {
        let Some(requested) = requested else {
            return ResumeDecision { resume: Resume::Live, after: None, missed: Some(0) };
        };
        let cursor = requested.parse::<Cursor>().ok();
        let Some(cursor) = cursor.filter(|c| c.epoch == self.epoch && c.seq <= self.head) else {
            return ResumeDecision { resume: Resume::Reset, after: None, missed: None };
        };
        let floor = Seq(self.oldest.0 - 1);
        if cursor.seq >= floor {
            ResumeDecision { resume: Resume::Exact, after: Some(cursor.seq), missed: Some(0) }
        } else {
            ResumeDecision { resume: Resume::Gap, after: Some(floor), missed: Some(floor.0 - cursor.seq.0) }
        }
    }

    /// Where a reader starts that wants the `snapshot` newest events.
    #[must_use]
    pub fn snapshot(&self, snapshot: u64) -> Seq {
        Seq(self.head.0.saturating_sub(snapshot).max(self.oldest.0 - 1))
    }

    /// What the reader is told first.
    #[must_use]
    pub fn stream_opened(
        &self,
        verdict: &ResumeDecision,
        requested: Option<&str>,
        server: &str,
    ) -> StreamOpened {
        let id = |seq| Cursor { epoch: self.epoch.clone(), seq };
        StreamOpened {
            resume: verdict.resume,
            requested: requested.filter(|r| r.parse::<Cursor>().is_ok()).map(str::to_owned),
            oldest: (self.oldest <= self.head).then(|| id(self.oldest)),
            head: Some(id(self.head)),
            missed: verdict.missed,
            server: server.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(oldest: u64, head: u64) -> LogBounds {
        LogBounds { epoch: Epoch::try_new("abc").unwrap(), oldest: Seq(oldest), head: Seq(head) }
    }

    #[test]
    fn a_reader_is_told_exactly_what_became_of_its_id() {
        let log = standing(11, 20);
        let told = |id: &str| {
            let v = log.resolve_cursor(Some(id));
            (v.resume, v.after.map(|s| s.0), v.missed)
        };
        assert_eq!(told("abc-15"), (Resume::Exact, Some(15), Some(0)));
        assert_eq!(told("abc-20"), (Resume::Exact, Some(20), Some(0)));
        assert_eq!(told("abc-10"), (Resume::Exact, Some(10), Some(0)));
        assert_eq!(told("abc-9"), (Resume::Gap, Some(10), Some(1)));
        assert_eq!(told("abc-0"), (Resume::Gap, Some(10), Some(10)));
        for id in ["abc-21", "xyz-15", "", "15", "abc-99999999999999999999", "abc-1x", "\u{1F600}"] {
            assert_eq!(told(id), (Resume::Reset, None, None), "{id:?}");
        }
        assert_eq!(log.resolve_cursor(None).resume, Resume::Live);
    }

    #[test]
    fn an_empty_log_has_a_name_but_no_events() {
        let log = standing(1, 0);
        let verdict = log.resolve_cursor(Some("abc-0"));
        assert_eq!((verdict.resume, verdict.after), (Resume::Exact, Some(Seq(0))));
        let hello = log.stream_opened(&verdict, Some("abc-0"), "test");
        assert_eq!((hello.oldest, hello.head.unwrap().to_string().as_str()), (None, "abc-0"));
        assert_eq!(log.snapshot(50), Seq(0));
    }

    #[test]
    fn a_snapshot_is_what_is_kept_at_most() {
        assert_eq!(standing(11, 20).snapshot(5), Seq(15));
        assert_eq!(standing(11, 20).snapshot(500), Seq(10));
        assert_eq!(standing(11, 20).snapshot(0), Seq(20));
    }
}
