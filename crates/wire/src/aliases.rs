//! Ids of a daemon's log and ids of the stream of NATS that mean the same: a client that comes with one of them to a reader of
//! the other goes on exactly where it was.
//!
//! ```text
//! log        1 2 3 4 5 6 7 8      places: (3,3) (4,4) (7,7) (8,8)
//! stream     1 2 3 4 6 5 7 8      5 and 6 have none: up to there, the two have different events
//! ```
//!
//! A *place* is a number of the log and one of the stream up to which both have the same events. Only places are aliases:
//! after any other pair, a reader would lose events, or get some twice.

use news::{Cursor, Epoch, Seq};
use serde::{Deserialize, Serialize};

/// Places that follow each other: the first number in the stream, the first one in the log, and how many. In JSON an array of
/// these three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRun(pub u64, pub u64, pub u64);

impl AliasRun {
    /// The number that stands where `number` stands, if it is in the run that begins at `from`; the other one begins at `to`.
    fn counterpart(self, number: u64, from: u64, to: u64) -> Option<Seq> {
        let nth = number.checked_sub(from).filter(|nth| *nth < self.2)?;
        to.checked_add(nth).map(Seq)
    }

    /// The last place: its numbers in the stream and in the log.
    #[must_use]
    pub fn last(self) -> (u64, u64) {
        let more = self.2.saturating_sub(1);
        (self.0.saturating_add(more), self.1.saturating_add(more))
    }
}

/// The aliases of the ids of one log under one epoch of the stream. As JSON in the bucket, on the disk of the daemon, and on
/// the local wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdAliases {
    /// The epoch of the stream.
    pub stream: Epoch,
    /// The epoch of the log.
    pub log: Epoch,
    /// The places, in order, without those that were too many.
    pub runs: Vec<AliasRun>,
    /// The stream lacks this event of the log, and none of those after it: for an older id of the log, it would be lost.
    pub complete_after: Seq,
    /// The newest event of the log, published or not.
    #[serde(default)]
    pub head: Seq,
    /// No places are added any more: an event of another log follows in the stream.
    #[serde(default)]
    pub ended: bool,
}

/// What an id is in the other numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdAlias {
    /// It stands here. Everything after this number follows, and nothing else.
    At(Seq),
    /// Newer than what is known of the other side, which may still come to it.
    NotYet,
    /// It has none.
    None,
}

impl IdAliases {
    /// Runs that are kept. With more, the oldest are dropped, and their ids have no aliases.
    pub const RUNS_MAX: usize = 256;

    /// Where an id of the log stands in the stream.
    #[must_use]
    pub fn in_stream(&self, id: &Cursor) -> IdAlias {
        if id.epoch != self.log || id.seq < self.complete_after {
            return IdAlias::None;
        }
        let is_newer = self.runs.last().is_none_or(|run| id.seq.0 > run.last().1);
        if is_newer {
            return if self.ended { IdAlias::None } else { IdAlias::NotYet };
        }
        let found = self.runs.iter().rev().find_map(|run| run.counterpart(id.seq.0, run.1, run.0));
        found.map_or(IdAlias::None, IdAlias::At)
    }

    /// Where an id of the stream stands in the log.
    #[must_use]
    pub fn in_log(&self, id: &Cursor) -> IdAlias {
        if id.epoch != self.stream {
            return IdAlias::None;
        }
        let found = self.runs.iter().rev().find_map(|run| run.counterpart(id.seq.0, run.0, run.1));
        found.map_or(IdAlias::None, IdAlias::At)
    }

    /// Adds a place behind all others; returns how many runs were dropped.
    pub(crate) fn push(&mut self, stream: u64, log: u64) -> u64 {
        match self.runs.last_mut() {
            Some(run) if stream <= run.last().0 => return 0,
            Some(run) if run.last() == (stream - 1, log.saturating_sub(1)) => run.2 += 1,
            _ => self.runs.push(AliasRun(stream, log, 1)),
        }
        let too_many = self.runs.len().saturating_sub(Self::RUNS_MAX);
        self.runs.drain(..too_many);
        too_many as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(name: &str) -> Epoch {
        Epoch::try_new(name).unwrap()
    }

    fn aliases(runs: &[AliasRun]) -> IdAliases {
        IdAliases {
            stream: epoch("s"),
            log: epoch("l"),
            runs: runs.to_vec(),
            complete_after: Seq(3),
            head: Seq(9),
            ended: false,
        }
    }

    #[test]
    fn an_id_has_an_alias_only_where_both_sides_have_the_same_events() {
        let aliases = aliases(&[AliasRun(10, 3, 2), AliasRun(14, 7, 1)]);
        let in_stream = |id: &str| aliases.in_stream(&id.parse().unwrap());
        let in_log = |id: &str| aliases.in_log(&id.parse().unwrap());
        assert_eq!((in_stream("l-3"), in_stream("l-4")), (IdAlias::At(Seq(10)), IdAlias::At(Seq(11))));
        assert_eq!((in_stream("l-5"), in_stream("l-6")), (IdAlias::None, IdAlias::None));
        assert_eq!((in_stream("l-7"), in_stream("l-8")), (IdAlias::At(Seq(14)), IdAlias::NotYet));
        assert_eq!((in_stream("l-2"), in_stream("x-4")), (IdAlias::None, IdAlias::None), "2 lacks event 3");
        assert_eq!(in_stream("l-18446744073709551615"), IdAlias::NotYet);
        assert_eq!((in_log("s-10"), in_log("s-14")), (IdAlias::At(Seq(3)), IdAlias::At(Seq(7))));
        for id in ["s-9", "s-12", "s-15", "l-10", "s-0", "s-18446744073709551615"] {
            assert_eq!(in_log(id), IdAlias::None, "{id}");
        }
        let ended = IdAliases { ended: true, ..aliases.clone() };
        assert_eq!(ended.in_stream(&"l-8".parse().unwrap()), IdAlias::None);
    }

    #[test]
    fn the_oldest_runs_are_dropped_when_there_are_too_many() {
        let mut aliases = aliases(&[]);
        let dropped: u64 = (0..300_u64).map(|n| aliases.push(n * 3 + 4, n * 2 + 4)).sum();
        assert_eq!((dropped, aliases.runs.len()), (300 - IdAliases::RUNS_MAX as u64, IdAliases::RUNS_MAX));
        assert_eq!(aliases.in_stream(&"l-4".parse().unwrap()), IdAlias::None);
        assert_eq!(aliases.in_stream(&"l-602".parse().unwrap()), IdAlias::At(Seq(901)));
        assert_eq!(serde_json::to_string(&aliases.runs[0]).unwrap(), "[136,92,1]");
    }
}
