//! Suppresses repeated lines: the first few per minute are written, the others are counted, and the next one written
//! says how many were suppressed (`repeats=37`).
//!
//! Lines repeat each other if they come from the same place in the code, with the same message, about the same thing.
//! Only `info`, `warn` and `error` are suppressed: an operator who raises the level wants every line. Some lines of every
//! error are written each minute, so no error goes unseen. Memory is bounded whatever the number of sources: there are
//! two generations of keys, and the older is dropped when the younger is full or a minute old.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tracing::{Level, Metadata};

use super::fields::{EventFields, Scalar};
use super::unfiltered::{DROPPED_TARGET, DUMP_TARGET};
use crate::line_queue::LineShare;

/// Lines of one kind that are written in a [`WINDOW`].
pub(super) const LINES_MAX: u32 = 10;
/// How long a kind of line is remembered, counted from its first one.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Kinds in one generation; at most 64 bytes each.
const KINDS_MAX: usize = 8_192;

/// The fields that say what a line is about, the most specific first. `part` and `loop` are fields of the watchdog.
const SUBJECT_FIELDS: [&str; 6] = ["source", "subscriber", "peer", "host", "part", "loop"];

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineAction {
    /// Write it, and say how many were suppressed since the last one.
    Write { repeats: u64 },
    /// Count it only.
    Suppress,
}

/// The kinds of lines logged lately.
#[derive(Debug, Default)]
pub(super) struct RepeatFilter {
    young: HashMap<u64, LineKind>,
    old: HashMap<u64, LineKind>,
    /// When the younger generation began.
    since: Duration,
}

#[derive(Clone, Copy, Debug)]
struct LineKind {
    since: Duration,
    written: u32,
    suppressed: u64,
}

/// Which part of the queue a line uses. Stack dumps have their own: an operator asked for it, and a part of it is of no use.
pub(super) fn share(metadata: &Metadata<'_>) -> LineShare {
    match metadata.target() {
        DUMP_TARGET | DROPPED_TARGET => LineShare::Reserved,
        _ => LineShare::Ordinary,
    }
}

/// The kind of a line; `None` if it is always written. Lines of a stack dump are: many of its lines are equal.
pub(super) fn kind(metadata: &Metadata<'_>, fields: &EventFields) -> Option<u64> {
    if *metadata.level() > Level::INFO || share(metadata) == LineShare::Reserved {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    (metadata.target(), metadata.file(), metadata.line(), &fields.message).hash(&mut hasher);
    let value = |name: &str| fields.list.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
    if let Some(Scalar::Text(text) | Scalar::Number(text)) =
        SUBJECT_FIELDS.iter().find_map(|name| value(name))
    {
        text.hash(&mut hasher);
    }
    Some(hasher.finish())
}

impl RepeatFilter {
    /// Counts a line of this kind and decides whether it is written. `now` is the time since any fixed moment.
    pub(super) fn check(&mut self, kind: u64, now: Duration) -> LineAction {
        if now.saturating_sub(self.since) >= WINDOW || self.young.len() >= KINDS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
        let fresh = LineKind { since: now, written: 0, suppressed: 0 };
        let kind = self.young.entry(kind).or_insert_with(|| self.old.remove(&kind).unwrap_or(fresh));
        let is_over = now.saturating_sub(kind.since) >= WINDOW;
        if kind.written >= LINES_MAX && !is_over {
            kind.suppressed += 1;
            return LineAction::Suppress;
        }
        if is_over {
            (kind.since, kind.written) = (now, 0);
        }
        kind.written += 1;
        LineAction::Write { repeats: std::mem::take(&mut kind.suppressed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(repeats: &mut RepeatFilter, kind: u64, ms: u64) -> LineAction {
        repeats.check(kind, Duration::from_millis(ms))
    }

    const WRITE: LineAction = LineAction::Write { repeats: 0 };

    #[test]
    fn the_first_lines_of_a_minute_are_written_and_the_next_says_how_many_were_not() {
        let mut repeats = RepeatFilter::default();
        for n in 0..u64::from(LINES_MAX) {
            assert_eq!(at(&mut repeats, 1, n), WRITE);
        }
        for n in 0..37 {
            assert_eq!(at(&mut repeats, 1, 1_000 + n), LineAction::Suppress);
            assert_eq!(at(&mut repeats, 2 + n, 1_000 + n), WRITE, "other kinds are not suppressed");
        }
        assert_eq!(at(&mut repeats, 1, 59_999), LineAction::Suppress);
        assert_eq!(at(&mut repeats, 1, 60_000), LineAction::Write { repeats: 38 });
        assert_eq!(at(&mut repeats, 1, 60_001), WRITE, "each is reported once");
    }

    #[test]
    fn a_line_that_never_stops_is_written_a_few_times_per_minute() {
        let mut repeats = RepeatFilter::default();
        let (mut written, mut reported) = (0, 0);
        for ms in (0..3_600_000).step_by(100) {
            if let LineAction::Write { repeats } = at(&mut repeats, 7, ms) {
                (written, reported) = (written + 1, reported + repeats);
            }
        }
        assert_eq!(written, 60 * u64::from(LINES_MAX));
        let last_minute = 600 - u64::from(LINES_MAX);
        assert_eq!(written + reported + last_minute, 36_000, "every line is written or counted");
    }

    #[test]
    fn with_a_hundred_thousand_sources_memory_is_bounded_and_every_first_line_is_written() {
        let mut repeats = RepeatFilter::default();
        for kind in 0..100_000 {
            assert_eq!(at(&mut repeats, kind, kind / 10), WRITE);
            assert!(repeats.young.len() + repeats.old.len() <= 2 * KINDS_MAX);
        }
        assert!(size_of::<(u64, LineKind)>() <= 64);
    }

    #[test]
    fn a_kind_that_is_not_logged_for_long_is_dropped() {
        let mut repeats = RepeatFilter::default();
        at(&mut repeats, 1, 0);
        at(&mut repeats, 2, 60_000);
        at(&mut repeats, 2, 120_000);
        assert!(!repeats.young.contains_key(&1) && !repeats.old.contains_key(&1));
    }

    #[test]
    fn a_clock_that_goes_backwards_does_no_harm() {
        let mut repeats = RepeatFilter::default();
        at(&mut repeats, 1, 100_000);
        assert_eq!(at(&mut repeats, 1, 0), WRITE);
    }
}
