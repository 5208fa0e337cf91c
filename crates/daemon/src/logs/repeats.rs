//! Lines that say the same again and again: the first few of a minute are written, the others counted, and the next
//! one that is written says how many they were (`repeats=37`).
//!
//! The same is: the same place in the code, the same message, about the same thing. Only `info` and worse are held
//! back: whoever turns the detail up wants all of it. Of every error some lines a minute are written, so none is lost
//! as a whole. Memory is bounded however many sources there are: two generations of keys, the older of which is
//! forgotten as a whole when the younger is full or a minute old.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tracing::{Level, Metadata};

use super::fields::{Fields, Scalar};

/// Lines of one kind that are written in a [`WINDOW`].
pub(super) const LINES_MAX: u32 = 10;
/// How long a kind of line is remembered since its first one.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Kinds in one generation; 64 bytes each at most.
const KINDS_MAX: usize = 8_192;

/// The fields that say what a line is about, the most telling first. `part` and `loop` are of the watchdog's lines.
const ABOUT: [&str; 6] = ["source", "subscriber", "peer", "host", "part", "loop"];

/// A dump that an operator asked for is shown in full; its stacks have many lines that are the same.
const IN_FULL: &str = "daemon::watch::show";

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written, and so many like it were not since the last one.
    Write {
        repeats: u64,
    },
    Swallow,
}

/// Which kinds of lines there were lately.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    young: HashMap<u64, Kind>,
    old: HashMap<u64, Kind>,
    /// When the younger generation began.
    since: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    since: Duration,
    written: u32,
    swallowed: u64,
}

/// The kind of a line; nothing when it is written in any case.
pub(super) fn kind(metadata: &Metadata<'_>, fields: &Fields) -> Option<u64> {
    if *metadata.level() > Level::INFO || metadata.target() == IN_FULL {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    (metadata.target(), metadata.file(), metadata.line(), &fields.message).hash(&mut hasher);
    let value = |name: &str| fields.list.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
    if let Some(Scalar::Text(text) | Scalar::Number(text)) = ABOUT.iter().find_map(|name| value(name)) {
        text.hash(&mut hasher);
    }
    Some(hasher.finish())
}

impl Repeats {
    /// Counts a line of this kind. `now` runs forward from any beginning.
    pub(super) fn admit(&mut self, kind: u64, now: Duration) -> Verdict {
        if now.saturating_sub(self.since) >= WINDOW || self.young.len() >= KINDS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
        let fresh = Kind { since: now, written: 0, swallowed: 0 };
        let kind = self.young.entry(kind).or_insert_with(|| self.old.remove(&kind).unwrap_or(fresh));
        let is_over = now.saturating_sub(kind.since) >= WINDOW;
        if kind.written >= LINES_MAX && !is_over {
            kind.swallowed += 1;
            return Verdict::Swallow;
        }
        if is_over {
            (kind.since, kind.written) = (now, 0);
        }
        kind.written += 1;
        Verdict::Write { repeats: std::mem::take(&mut kind.swallowed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(repeats: &mut Repeats, kind: u64, ms: u64) -> Verdict {
        repeats.admit(kind, Duration::from_millis(ms))
    }

    const WRITE: Verdict = Verdict::Write { repeats: 0 };

    #[test]
    fn the_first_lines_of_a_minute_are_written_and_the_next_says_how_many_were_not() {
        let mut repeats = Repeats::default();
        for n in 0..u64::from(LINES_MAX) {
            assert_eq!(at(&mut repeats, 1, n), WRITE);
        }
        for n in 0..37 {
            assert_eq!(at(&mut repeats, 1, 1_000 + n), Verdict::Swallow);
            assert_eq!(at(&mut repeats, 2 + n, 1_000 + n), WRITE, "others are not held back");
        }
        assert_eq!(at(&mut repeats, 1, 59_999), Verdict::Swallow);
        assert_eq!(at(&mut repeats, 1, 60_000), Verdict::Write { repeats: 38 });
        assert_eq!(at(&mut repeats, 1, 60_001), WRITE, "each is told once");
    }

    #[test]
    fn of_a_line_that_never_stops_some_are_written_in_every_minute() {
        let mut repeats = Repeats::default();
        let (mut written, mut told) = (0, 0);
        for ms in (0..3_600_000).step_by(100) {
            if let Verdict::Write { repeats } = at(&mut repeats, 7, ms) {
                (written, told) = (written + 1, told + repeats);
            }
        }
        assert_eq!(written, 60 * u64::from(LINES_MAX));
        let last_minute = 600 - u64::from(LINES_MAX);
        assert_eq!(written + told + last_minute, 36_000, "every line is written or told of");
    }

    #[test]
    fn a_hundred_thousand_sources_cost_two_generations_and_lose_no_first_line() {
        let mut repeats = Repeats::default();
        for kind in 0..100_000 {
            assert_eq!(at(&mut repeats, kind, kind / 10), WRITE);
            assert!(repeats.young.len() + repeats.old.len() <= 2 * KINDS_MAX);
        }
        assert!(size_of::<(u64, Kind)>() <= 64);
    }

    #[test]
    fn what_is_quiet_for_long_is_forgotten() {
        let mut repeats = Repeats::default();
        at(&mut repeats, 1, 0);
        at(&mut repeats, 2, 60_000);
        at(&mut repeats, 2, 120_000);
        assert!(!repeats.young.contains_key(&1) && !repeats.old.contains_key(&1));
    }

    #[test]
    fn a_clock_that_stands_does_no_harm() {
        let mut repeats = Repeats::default();
        at(&mut repeats, 1, 100_000);
        assert_eq!(at(&mut repeats, 1, 0), WRITE);
    }
}
