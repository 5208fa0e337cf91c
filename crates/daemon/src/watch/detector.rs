//! Decides what is a stall. It reads no clock and has no thread: each check is given the clock readings of its moment.
//!
//! The silence of a loop grows only by the time that the watchdog itself ran, so that no loop is blamed if the whole
//! process was stopped, suspended or without CPU.

use std::collections::{HashMap, VecDeque};

/// How often the watchdog checks.
pub(super) const CHECK_EVERY_MS: u64 = 250;
/// A longer time between two checks counts as this much: the watchdog did not run either.
const COUNTED_MS_MAX: u64 = 2 * CHECK_EVERY_MS;
/// Longer silence is a stall.
pub(super) const SILENCE_MS: u64 = 1_000;
/// The watchdog's own work counts in full up to this; sampling stacks takes a second at most.
const WORKED_MS_MAX: u64 = 5_000;
/// If the watchdog is later than this, the process did not run.
const PAUSE_MS: u64 = 1_000;
/// The wall clock may drift this much between two checks.
const JUMP_MS: u64 = 1_000;
/// A stall is reported again after these durations, then each time the last of them has passed again.
const REMIND_MS: [u64; 3] = [10_000, 60_000, 300_000];
/// The maximum lag is kept for a minute, in this many buckets.
const BUCKETS: usize = 12;
const BUCKET_MS: u64 = 5_000;

/// All clocks at one moment, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReadings {
    /// Does not advance while the machine is suspended.
    pub(super) monotonic: u64,
    /// Advances during suspend too.
    pub(super) boot: u64,
    /// The time of day.
    pub(super) wall: i64,
}

/// The state of a watched entry at a check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) number: u64,
    /// The last beat; if the entry is idle, now.
    pub(super) beat_ms: u64,
    /// The maximum lag since the last check.
    pub(super) lag_ms_max: u64,
}

/// What a check detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchEvent {
    StallBegan {
        number: u64,
        began_ms: u64,
        silent_ms: u64,
    },
    StallContinues {
        number: u64,
        silent_ms: u64,
    },
    StallEnded {
        number: u64,
        lasted_ms: u64,
    },
    /// The whole process did not run.
    ProcessPaused {
        ms: u64,
    },
    /// The time of day was set.
    ClockJumped {
        ms: i64,
    },
}

/// Detects stalls, pauses and clock jumps from check to check.
#[derive(Debug, Default)]
pub(super) struct StallDetector {
    last: Option<ClockReadings>,
    /// How long the watchdog handled the events of the last check.
    worked_ms: u64,
    loops: HashMap<u64, LoopState>,
}

#[derive(Debug, Default)]
struct LoopState {
    beat_ms: u64,
    silent_ms: u64,
    stall: Option<OngoingStall>,
    /// The maximum lag per bucket: its number and milliseconds.
    lags: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
struct OngoingStall {
    began_ms: u64,
    /// How often it was reported again.
    reminders: usize,
    remind_at_ms: u64,
}

impl StallDetector {
    /// Checks all entries; those missing in `samples` are no longer watched.
    pub(super) fn check(&mut self, now: ClockReadings, samples: &[Sample]) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        let last = self.last.replace(now).unwrap_or(now);
        let worked_ms = std::mem::take(&mut self.worked_ms).min(WORKED_MS_MAX);
        let counted = now.monotonic.saturating_sub(last.monotonic).min(COUNTED_MS_MAX + worked_ms);
        let passed = now.boot.saturating_sub(last.boot);
        let expected = CHECK_EVERY_MS + worked_ms;
        if passed > expected + PAUSE_MS {
            events.push(WatchEvent::ProcessPaused { ms: passed - expected });
        }
        let jump = (now.wall - last.wall) - i64::try_from(passed).unwrap_or(i64::MAX);
        if jump.unsigned_abs() > JUMP_MS {
            events.push(WatchEvent::ClockJumped { ms: jump });
        }
        for sample in samples {
            let state = self.loops.entry(sample.number).or_default();
            state.record(sample, now.monotonic, counted);
            events.extend(state.detect(sample.number, now.monotonic));
        }
        self.loops.retain(|number, state| {
            let is_watched = samples.iter().any(|sample| sample.number == *number);
            if !is_watched {
                events.extend(state.end(*number, now.monotonic));
            }
            is_watched
        });
        events
    }

    /// Records how long the watchdog handled the events of this check; the process ran during that time.
    pub(super) fn worked(&mut self, ms: u64) {
        self.worked_ms = ms;
    }

    /// The maximum lag of the last minute, including an ongoing stall.
    pub(super) fn lag_ms_max(&self, number: u64) -> u64 {
        let Some(state) = self.loops.get(&number) else { return 0 };
        let now = if state.stall.is_some() { state.silent_ms } else { 0 };
        state.lags.iter().map(|(_, lag)| *lag).max().unwrap_or_default().max(now)
    }

    pub(super) fn is_stalled(&self, number: u64) -> bool {
        self.loops.get(&number).is_some_and(|state| state.stall.is_some())
    }

    /// Whether anything is stalled, apart from the entries that `is_exempt` accepts.
    pub(super) fn any_stalled(&self, is_exempt: impl Fn(u64) -> bool) -> bool {
        self.loops.iter().any(|(number, state)| state.stall.is_some() && !is_exempt(*number))
    }
}

impl LoopState {
    fn record(&mut self, sample: &Sample, now_ms: u64, counted_ms: u64) {
        if sample.beat_ms == self.beat_ms {
            self.silent_ms += counted_ms;
        } else {
            self.beat_ms = sample.beat_ms;
            self.silent_ms = now_ms.saturating_sub(sample.beat_ms).min(counted_ms);
        }
        let bucket = now_ms / BUCKET_MS;
        match self.lags.back_mut() {
            Some((last, lag)) if *last == bucket => *lag = sample.lag_ms_max.max(*lag),
            _ => self.lags.push_back((bucket, sample.lag_ms_max)),
        }
        while self.lags.len() > BUCKETS
            || self.lags.front().is_some_and(|(first, _)| first + BUCKETS as u64 <= bucket)
        {
            self.lags.pop_front();
        }
    }

    fn detect(&mut self, number: u64, now_ms: u64) -> Option<WatchEvent> {
        let silent_ms = self.silent_ms;
        match &mut self.stall {
            None if silent_ms > SILENCE_MS => {
                let began_ms = now_ms - silent_ms;
                self.stall = Some(OngoingStall { began_ms, reminders: 0, remind_at_ms: REMIND_MS[0] });
                Some(WatchEvent::StallBegan { number, began_ms, silent_ms })
            }
            Some(_) if silent_ms <= SILENCE_MS => self.end(number, self.beat_ms),
            Some(stall) if silent_ms >= stall.remind_at_ms => {
                stall.reminders += 1;
                stall.remind_at_ms = match REMIND_MS.get(stall.reminders) {
                    Some(at) => *at,
                    None => stall.remind_at_ms + REMIND_MS[REMIND_MS.len() - 1],
                };
                Some(WatchEvent::StallContinues { number, silent_ms })
            }
            _ => None,
        }
    }

    fn end(&mut self, number: u64, at_ms: u64) -> Option<WatchEvent> {
        let stall = self.stall.take()?;
        Some(WatchEvent::StallEnded { number, lasted_ms: at_ms.saturating_sub(stall.began_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One watched loop and clocks that the test advances.
    struct Simulation {
        detector: StallDetector,
        now: ClockReadings,
        beat_ms: u64,
        events: Vec<WatchEvent>,
    }

    impl Simulation {
        fn new() -> Self {
            let now = ClockReadings { monotonic: 50_000, boot: 90_000, wall: 1_700_000_000_000 };
            let mut simulation =
                Self { detector: StallDetector::default(), now, beat_ms: 50_000, events: Vec::new() };
            simulation.check();
            simulation
        }

        fn check(&mut self) {
            let sample = Sample { number: 7, beat_ms: self.beat_ms, lag_ms_max: 0 };
            self.events.extend(self.detector.check(self.now, &[sample]));
        }

        fn advance(&mut self, ms: u64) {
            self.now.monotonic += ms;
            self.now.boot += ms;
            self.now.wall += ms.cast_signed();
        }

        /// Checks at the usual interval, with beats or without.
        fn checks(&mut self, checks: u64, beats: bool) {
            for _ in 0..checks {
                self.advance(CHECK_EVERY_MS);
                if beats {
                    self.beat_ms = self.now.monotonic - 60;
                }
                self.check();
            }
        }

        fn take_events(&mut self) -> Vec<WatchEvent> {
            std::mem::take(&mut self.events)
        }
    }

    #[test]
    fn a_loop_with_beats_is_never_blamed() {
        let mut simulation = Simulation::new();
        simulation.checks(5_000, true);
        assert_eq!(simulation.take_events(), []);
    }

    #[test]
    fn silence_for_more_than_a_second_is_one_stall_with_a_beginning_and_an_end() {
        let mut simulation = Simulation::new();
        simulation.checks(4, true);
        let silent_since = simulation.beat_ms;
        simulation.checks(4, false);
        assert_eq!(
            simulation.take_events(),
            [WatchEvent::StallBegan { number: 7, began_ms: silent_since, silent_ms: 1_060 }]
        );
        assert!(simulation.detector.is_stalled(7));
        simulation.checks(8, false);
        assert_eq!(simulation.detector.lag_ms_max(7), 3_060);
        simulation.checks(1, true);
        assert_eq!(simulation.take_events(), [WatchEvent::StallEnded { number: 7, lasted_ms: 3_250 }]);
        assert!(!simulation.detector.is_stalled(7));
    }

    #[test]
    fn a_long_stall_is_reported_again_at_growing_intervals() {
        let mut simulation = Simulation::new();
        simulation.checks(4 * 1_000, false);
        let seconds: Vec<u64> = simulation
            .take_events()
            .into_iter()
            .map(|event| match event {
                WatchEvent::StallBegan { silent_ms, .. } | WatchEvent::StallContinues { silent_ms, .. } => {
                    silent_ms / 1_000
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seconds, [1, 10, 60, 300, 600, 900]);
    }

    #[test]
    fn a_pause_of_the_whole_process_blames_no_loop() {
        for stopped_ms in [300, 700, 900, 1_100, 3_000, 3_600_000] {
            let mut simulation = Simulation::new();
            simulation.checks(4, true);
            simulation.advance(stopped_ms + CHECK_EVERY_MS);
            simulation.check();
            // The loops resume after the watchdog.
            simulation.checks(1, false);
            simulation.checks(8, true);
            let paused = WatchEvent::ProcessPaused { ms: stopped_ms };
            assert_eq!(
                simulation.take_events(),
                if stopped_ms > 1_000 { vec![paused] } else { vec![] },
                "{stopped_ms}"
            );
        }
    }

    #[test]
    fn a_loop_that_does_not_resume_after_a_pause_is_blamed_soon() {
        let mut simulation = Simulation::new();
        simulation.checks(4, true);
        simulation.advance(60_000);
        simulation.check();
        simulation.checks(3, false);
        assert!(matches!(
            simulation.take_events()[..],
            [WatchEvent::ProcessPaused { .. }, WatchEvent::StallBegan { silent_ms: 1_060, .. }]
        ));
    }

    #[test]
    fn the_time_the_watchdog_needs_for_stacks_is_not_a_pause_and_counts_as_silence() {
        let mut simulation = Simulation::new();
        simulation.checks(4, true);
        simulation.detector.worked(2_000);
        simulation.advance(2_000);
        simulation.checks(1, false);
        assert!(matches!(simulation.take_events()[..], [WatchEvent::StallBegan { silent_ms: 2_310, .. }]));
        simulation.checks(1, true);
        simulation.take_events();
        simulation.detector.worked(2_000);
        simulation.advance(2_000);
        simulation.checks(8, true);
        assert_eq!(simulation.take_events(), []);
    }

    #[test]
    fn a_suspend_is_a_pause_and_not_a_clock_jump() {
        let mut simulation = Simulation::new();
        simulation.checks(4, true);
        simulation.now.boot += 7_200_000;
        simulation.now.wall += 7_200_000;
        simulation.checks(4, true);
        assert_eq!(simulation.take_events(), [WatchEvent::ProcessPaused { ms: 7_200_000 }]);
    }

    #[test]
    fn a_clock_jump_is_reported_with_its_size() {
        for ms in [-3_600_000, -1_001, 1_001, 86_400_000] {
            let mut simulation = Simulation::new();
            simulation.now.wall += ms;
            simulation.checks(4, true);
            assert_eq!(simulation.take_events(), [WatchEvent::ClockJumped { ms }]);
        }
        let mut simulation = Simulation::new();
        for _ in 0..100 {
            simulation.now.wall += 900;
            simulation.checks(1, true);
        }
        assert_eq!(simulation.take_events(), [], "slewing is not a jump");
    }

    #[test]
    fn a_loop_that_is_no_longer_watched_is_no_longer_stalled() {
        let mut simulation = Simulation::new();
        simulation.checks(8, false);
        simulation.take_events();
        simulation.advance(CHECK_EVERY_MS);
        assert!(matches!(
            simulation.detector.check(simulation.now, &[])[..],
            [WatchEvent::StallEnded { number: 7, .. }]
        ));
        assert!(!simulation.detector.any_stalled(|_| false));
    }

    #[test]
    fn the_maximum_lag_is_kept_for_a_minute() {
        let mut simulation = Simulation::new();
        simulation.advance(CHECK_EVERY_MS);
        simulation.beat_ms = simulation.now.monotonic;
        simulation
            .detector
            .check(simulation.now, &[Sample { number: 7, beat_ms: simulation.beat_ms, lag_ms_max: 420 }]);
        simulation.checks(4 * 50, true);
        assert_eq!(simulation.detector.lag_ms_max(7), 420);
        simulation.checks(4 * 11, true);
        assert_eq!(simulation.detector.lag_ms_max(7), 0);
    }
}
