//! Whether the wall clock is trusted to say which events are too old.
//!
//! A clock that is weeks ahead makes the whole log too old, and what retention removes does not come back. So no event is
//! removed because of its age in the first hour after a start, nor in the hour after a jump of the clock: time for an operator
//! to set it right. Removal by number and by bytes needs no clock and goes on.

use std::time::Duration;

use news::Timestamp;
use tokio::time::Instant;

use crate::clock_reading::{ClockJump, ClockReading};

/// After so long without a jump the clock is trusted.
const TRUSTED_AFTER: Duration = Duration::from_secs(3600);
/// Smaller differences, also the sum of many, are corrections by NTP.
const JUMP_MIN: Duration = Duration::from_secs(60);

/// Says which events are too old. All times are passed in.
#[derive(Debug)]
pub(crate) struct RetentionClock {
    /// `store.retention_age`.
    age: Duration,
    /// At the start, or after the last jump.
    reading: ClockReading,
}

impl RetentionClock {
    /// At the start of the daemon; `newest` is when the newest event was recorded. Logs a warning if the log makes the clock
    /// doubtful.
    pub(crate) fn start(age: Duration, now: ClockReading, newest: Option<Timestamp>) -> Self {
        let until = now.wall.plus(TRUSTED_AFTER);
        match newest {
            Some(newest) if newest.since(now.wall) >= JUMP_MIN => tracing::warn!(
                by_s = newest.since(now.wall).as_secs(), %until,
                "the clock is behind the newest event of the log; until then no event is removed because of its age: set the \
                 clock if it is wrong"
            ),
            Some(newest) if now.wall.since(newest) > age => tracing::warn!(
                by_s = now.wall.since(newest).as_secs(), %until,
                "by the clock, all events are older than store.retention_age; until then none is removed because of its age: \
                 set the clock if it is wrong"
            ),
            _ => {}
        }
        Self { age, reading: now }
    }

    /// Events recorded before this time are too old; `None` while the clock is not trusted. Logs a warning about a jump.
    pub(crate) fn aged_before(&mut self, now: ClockReading) -> Option<Timestamp> {
        if let Some(jump) = self.reading.jump_until(now, JUMP_MIN) {
            self.reading = now;
            let until = now.wall.plus(TRUSTED_AFTER);
            match jump {
                ClockJump::Ahead(by) => tracing::warn!(
                    by_s = by.as_secs(), %until,
                    "the clock jumped ahead; until then no event is removed because of its age (store.retention_age): set the \
                     clock if it is wrong"
                ),
                ClockJump::Back(by) => tracing::warn!(
                    by_s = by.as_secs(), %until,
                    "the clock was set back; until then no event is removed because of its age (store.retention_age): set the \
                     clock if it is wrong"
                ),
            }
        }
        let age_ms = i64::try_from(self.age.as_millis()).unwrap_or(i64::MAX);
        let aged_before = || Timestamp::from_millis(now.wall.millis().saturating_sub(age_ms));
        self.is_trusted(now.steady).then(aged_before)
    }

    fn is_trusted(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.reading.steady) >= TRUSTED_AFTER
    }
}

#[cfg(test)]
mod tests {
    use daemon::{Clock, logs::capture};

    use super::*;

    /// What `work` logs.
    fn logged<T>(work: impl FnOnce() -> T) -> String {
        let (subscriber, log) = capture("info", Clock::system()).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        log.text()
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const AGE: Duration = Duration::from_secs(30 * 86_400);

    /// A machine whose clock a test sets.
    struct Machine {
        now: ClockReading,
        clock: RetentionClock,
    }

    impl Machine {
        fn start(newest_ago: Option<Duration>) -> Self {
            let wall = Timestamp::from_millis(1_800_000_000_000);
            let now = ClockReading { wall, steady: Instant::now() };
            let before = |ago: Duration| Timestamp::from_millis(wall.millis() - ago.as_millis() as i64);
            Self { now, clock: RetentionClock::start(AGE, now, newest_ago.map(before)) }
        }

        fn set(&mut self, by_s: i64) {
            self.now.wall = Timestamp::from_millis(self.now.wall.millis() + 1000 * by_s);
        }

        /// Lets time pass, with a step of retention every five seconds. Returns after how long the first was that may remove
        /// events by age, and checks which.
        fn first_removal(&mut self, within: Duration) -> Option<Duration> {
            let began = self.now.steady;
            while self.now.steady - began < within {
                let step = Duration::from_secs(5);
                self.now = ClockReading { wall: self.now.wall.plus(step), steady: self.now.steady + step };
                if let Some(aged_before) = self.clock.aged_before(self.now) {
                    assert_eq!(aged_before.plus(AGE), self.now.wall);
                    return Some(self.now.steady - began);
                }
            }
            None
        }
    }

    #[test]
    fn no_event_is_removed_by_age_in_the_first_hour_nor_in_the_hour_after_a_jump() {
        let log = logged(|| {
            let mut machine = Machine::start(Some(DAY));
            assert_eq!(machine.first_removal(2 * HOUR), Some(HOUR), "after a start");
            for by_s in [40 * 86_400, -40 * 86_400, 61, -61] {
                machine.set(by_s);
                assert_eq!(machine.first_removal(2 * HOUR), Some(HOUR + Duration::from_secs(5)), "{by_s}");
            }
        });
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 4, "one for each jump: {log}");
        assert!(lines[0].contains("by_s=3456000") && lines[0].contains("jumped ahead"), "{log}");
        assert!(lines[1].contains("by_s=3456000") && lines[1].contains("was set back"), "{log}");
        assert!(lines.iter().all(|line| line.contains("WARN") && line.contains("until=20")), "{log}");
    }

    #[test]
    fn the_hour_begins_again_with_each_jump_and_not_with_small_corrections() {
        let mut machine = Machine::start(None);
        for _ in 0..5 {
            assert_eq!(machine.first_removal(HOUR / 2), None);
            machine.set(90);
        }
        assert_eq!(machine.first_removal(2 * HOUR), Some(HOUR + Duration::from_secs(5)));
        let log = logged(|| {
            for by_s in [50, -50, 4, 1, 50, -50] {
                machine.set(by_s);
                assert_eq!(machine.first_removal(HOUR), Some(Duration::from_secs(5)), "{by_s}");
            }
        });
        assert_eq!(log, "");
    }

    #[test]
    fn a_clock_that_the_log_makes_doubtful_is_told_at_the_start() {
        let started = |newest_ago| logged(|| Machine::start(newest_ago));
        let doubtful = started(Some(40 * DAY));
        assert!(
            doubtful.contains("by the clock, all events") && doubtful.contains("by_s=3456000"),
            "{doubtful}"
        );
        for newest_ago in [None, Some(Duration::ZERO), Some(DAY), Some(AGE)] {
            assert_eq!(started(newest_ago), "", "{newest_ago:?}");
        }
        let ahead = Timestamp::from_millis(1_800_000_000_000).plus(40 * DAY);
        let now = ClockReading { wall: Timestamp::from_millis(1_800_000_000_000), steady: Instant::now() };
        let behind = logged(|| RetentionClock::start(AGE, now, Some(ahead)));
        assert!(behind.contains("behind the newest event") && behind.contains("by_s=3456000"), "{behind}");
    }
}
