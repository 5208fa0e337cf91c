//! What counts as a stall. No clock and no thread in here: a look is made with the times of its moment.
//!
//! A loop's silence grows by what the watchdog itself has been awake for, so that a process that was stopped, asleep or
//! without a processor as a whole blames nobody.

use std::collections::{HashMap, VecDeque};

/// How often the watchdog looks.
pub(super) const LOOK_EVERY_MS: u64 = 250;
/// More than this between two looks counts as this much: then the watchdog did not run either.
const LOOK_COUNTS_MS: u64 = 2 * LOOK_EVERY_MS;
/// Longer silence is a stall.
pub(super) const SILENCE_MS: u64 = 1_000;
/// So much of the watchdog's own work counts in full; taking stacks takes a second at most.
const WORKED_MS_MAX: u64 = 5_000;
/// A watchdog that is later than this says that the process did not run.
const OVERSLEPT_MS: u64 = 1_000;
/// The wall clock may drift this much between two looks.
const JUMP_MS: u64 = 1_000;
/// A stall is mentioned again when it has lasted so long, then each time that the last interval has passed.
const REMIND_MS: [u64; 3] = [10_000, 60_000, 300_000];
/// The worst lateness is kept for a minute, in so many pieces.
const PIECES: usize = 12;
const PIECE_MS: u64 = 5_000;

/// The clocks at one moment, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Stands still while the machine sleeps.
    pub(super) monotonic: u64,
    /// Counts sleep too.
    pub(super) boot: u64,
    /// The time of day.
    pub(super) wall: i64,
}

/// What one of those that are watched shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) number: u64,
    /// The last beat; of an idle one, now.
    pub(super) beat_ms: u64,
    /// The latest beat since the last look.
    pub(super) worst_ms: u64,
}

/// What a look brought to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Began {
        number: u64,
        began_ms: u64,
        silent_ms: u64,
    },
    Lasts {
        number: u64,
        silent_ms: u64,
    },
    Ended {
        number: u64,
        lasted_ms: u64,
    },
    /// The process did not run.
    Paused {
        ms: u64,
    },
    /// The time of day was set.
    Jumped {
        ms: i64,
    },
}

#[derive(Debug, Default)]
pub(super) struct Judge {
    last: Option<Times>,
    /// How long the watchdog was busy with what the last look brought to light.
    worked_ms: u64,
    loops: HashMap<u64, Loop>,
}

#[derive(Debug, Default)]
struct Loop {
    beat_ms: u64,
    silent_ms: u64,
    stall: Option<Stall>,
    worst: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
struct Stall {
    began_ms: u64,
    /// Mentioned so often besides its beginning.
    reminders: usize,
    remind_at_ms: u64,
}

impl Judge {
    /// Looks round.
    pub(super) fn look(&mut self, now: Times, sights: &[Sight]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let last = self.last.replace(now).unwrap_or(now);
        let worked_ms = std::mem::take(&mut self.worked_ms).min(WORKED_MS_MAX);
        let counts = now.monotonic.saturating_sub(last.monotonic).min(LOOK_COUNTS_MS + worked_ms);
        let passed = now.boot.saturating_sub(last.boot);
        let expected = LOOK_EVERY_MS + worked_ms;
        if passed > expected + OVERSLEPT_MS {
            findings.push(Finding::Paused { ms: passed - expected });
        }
        let jump = (now.wall - last.wall) - i64::try_from(passed).unwrap_or(i64::MAX);
        if jump.unsigned_abs() > JUMP_MS {
            findings.push(Finding::Jumped { ms: jump });
        }
        for sight in sights {
            let known = self.loops.entry(sight.number).or_default();
            known.take(sight, now.monotonic, counts);
            findings.extend(known.judge(sight.number, now.monotonic));
        }
        self.loops.retain(|number, known| {
            let is_here = sights.iter().any(|sight| sight.number == *number);
            if !is_here {
                findings.extend(known.end(*number, now.monotonic));
            }
            is_here
        });
        findings
    }

    /// So long the watchdog was at what this look had found: the process ran all the while.
    pub(super) fn worked(&mut self, ms: u64) {
        self.worked_ms = ms;
    }

    /// The latest beat of the last minute, a stall that lasts included.
    pub(super) fn worst_ms(&self, number: u64) -> u64 {
        let Some(known) = self.loops.get(&number) else { return 0 };
        let now = if known.stall.is_some() { known.silent_ms } else { 0 };
        known.worst.iter().map(|(_, worst)| *worst).max().unwrap_or_default().max(now)
    }

    pub(super) fn is_stalled(&self, number: u64) -> bool {
        self.loops.get(&number).is_some_and(|known| known.stall.is_some())
    }

    pub(super) fn any_stalled(&self, but: impl Fn(u64) -> bool) -> bool {
        self.loops.iter().any(|(number, known)| known.stall.is_some() && !but(*number))
    }
}

impl Loop {
    fn take(&mut self, sight: &Sight, now_ms: u64, counts_ms: u64) {
        if sight.beat_ms == self.beat_ms {
            self.silent_ms += counts_ms;
        } else {
            self.beat_ms = sight.beat_ms;
            self.silent_ms = now_ms.saturating_sub(sight.beat_ms).min(counts_ms);
        }
        let piece = now_ms / PIECE_MS;
        match self.worst.back_mut() {
            Some((last, worst)) if *last == piece => *worst = sight.worst_ms.max(*worst),
            _ => self.worst.push_back((piece, sight.worst_ms)),
        }
        while self.worst.len() > PIECES
            || self.worst.front().is_some_and(|(first, _)| first + PIECES as u64 <= piece)
        {
            self.worst.pop_front();
        }
    }

    fn judge(&mut self, number: u64, now_ms: u64) -> Option<Finding> {
        let silent_ms = self.silent_ms;
        match &mut self.stall {
            None if silent_ms > SILENCE_MS => {
                let began_ms = now_ms - silent_ms;
                self.stall = Some(Stall { began_ms, reminders: 0, remind_at_ms: REMIND_MS[0] });
                Some(Finding::Began { number, began_ms, silent_ms })
            }
            Some(_) if silent_ms <= SILENCE_MS => self.end(number, self.beat_ms),
            Some(stall) if silent_ms >= stall.remind_at_ms => {
                stall.reminders += 1;
                stall.remind_at_ms = match REMIND_MS.get(stall.reminders) {
                    Some(at) => *at,
                    None => stall.remind_at_ms + REMIND_MS[REMIND_MS.len() - 1],
                };
                Some(Finding::Lasts { number, silent_ms })
            }
            _ => None,
        }
    }

    fn end(&mut self, number: u64, at_ms: u64) -> Option<Finding> {
        let stall = self.stall.take()?;
        Some(Finding::Ended { number, lasted_ms: at_ms.saturating_sub(stall.began_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A world in which time passes as the test says.
    struct World {
        judge: Judge,
        now: Times,
        beat_ms: u64,
        found: Vec<Finding>,
    }

    impl World {
        fn new() -> Self {
            let now = Times { monotonic: 50_000, boot: 90_000, wall: 1_700_000_000_000 };
            let mut world = Self { judge: Judge::default(), now, beat_ms: 50_000, found: Vec::new() };
            world.look();
            world
        }

        fn look(&mut self) {
            let sight = Sight { number: 7, beat_ms: self.beat_ms, worst_ms: 0 };
            self.found.extend(self.judge.look(self.now, &[sight]));
        }

        fn pass(&mut self, ms: u64) {
            self.now.monotonic += ms;
            self.now.boot += ms;
            self.now.wall += ms.cast_signed();
        }

        /// So many looks at their usual distance, with beats or without.
        fn looks(&mut self, looks: u64, beats: bool) {
            for _ in 0..looks {
                self.pass(LOOK_EVERY_MS);
                if beats {
                    self.beat_ms = self.now.monotonic - 60;
                }
                self.look();
            }
        }

        fn take(&mut self) -> Vec<Finding> {
            std::mem::take(&mut self.found)
        }
    }

    #[test]
    fn a_loop_that_beats_is_never_blamed() {
        let mut world = World::new();
        world.looks(5_000, true);
        assert_eq!(world.take(), []);
    }

    #[test]
    fn silence_for_more_than_a_second_is_one_stall_with_a_beginning_and_an_end() {
        let mut world = World::new();
        world.looks(4, true);
        let silent_since = world.beat_ms;
        world.looks(4, false);
        assert_eq!(world.take(), [Finding::Began { number: 7, began_ms: silent_since, silent_ms: 1_060 }]);
        assert!(world.judge.is_stalled(7));
        world.looks(8, false);
        assert_eq!(world.judge.worst_ms(7), 3_060);
        world.looks(1, true);
        assert_eq!(world.take(), [Finding::Ended { number: 7, lasted_ms: 3_250 }]);
        assert!(!world.judge.is_stalled(7));
    }

    #[test]
    fn a_long_stall_is_mentioned_now_and_then() {
        let mut world = World::new();
        world.looks(4 * 1_000, false);
        let seconds: Vec<u64> = world
            .take()
            .into_iter()
            .map(|finding| match finding {
                Finding::Began { silent_ms, .. } | Finding::Lasts { silent_ms, .. } => silent_ms / 1_000,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seconds, [1, 10, 60, 300, 600, 900]);
    }

    #[test]
    fn a_process_that_was_stopped_as_a_whole_blames_no_loop() {
        for stopped_ms in [300, 700, 900, 1_100, 3_000, 3_600_000] {
            let mut world = World::new();
            world.looks(4, true);
            world.pass(stopped_ms + LOOK_EVERY_MS);
            world.look();
            // The loops wake up after the watchdog.
            world.looks(1, false);
            world.looks(8, true);
            let paused = Finding::Paused { ms: stopped_ms };
            assert_eq!(world.take(), if stopped_ms > 1_000 { vec![paused] } else { vec![] }, "{stopped_ms}");
        }
    }

    #[test]
    fn a_loop_that_does_not_wake_up_with_the_others_is_blamed_soon() {
        let mut world = World::new();
        world.looks(4, true);
        world.pass(60_000);
        world.look();
        world.looks(3, false);
        assert!(matches!(
            world.take()[..],
            [Finding::Paused { .. }, Finding::Began { silent_ms: 1_060, .. }]
        ));
    }

    #[test]
    fn time_that_the_watchdog_itself_needs_for_stacks_is_no_pause_and_counts_as_silence() {
        let mut world = World::new();
        world.looks(4, true);
        world.judge.worked(2_000);
        world.pass(2_000);
        world.looks(1, false);
        assert!(matches!(world.take()[..], [Finding::Began { silent_ms: 2_310, .. }]));
        world.looks(1, true);
        world.take();
        world.judge.worked(2_000);
        world.pass(2_000);
        world.looks(8, true);
        assert_eq!(world.take(), []);
    }

    #[test]
    fn a_sleep_of_the_machine_is_a_pause_and_no_jump_of_the_clock() {
        let mut world = World::new();
        world.looks(4, true);
        world.now.boot += 7_200_000;
        world.now.wall += 7_200_000;
        world.looks(4, true);
        assert_eq!(world.take(), [Finding::Paused { ms: 7_200_000 }]);
    }

    #[test]
    fn a_clock_that_was_set_is_told_by_how_much() {
        for ms in [-3_600_000, -1_001, 1_001, 86_400_000] {
            let mut world = World::new();
            world.now.wall += ms;
            world.looks(4, true);
            assert_eq!(world.take(), [Finding::Jumped { ms }]);
        }
        let mut world = World::new();
        for _ in 0..100 {
            world.now.wall += 900;
            world.looks(1, true);
        }
        assert_eq!(world.take(), [], "slewing is no jump");
    }

    #[test]
    fn a_loop_that_is_gone_is_no_longer_stalled() {
        let mut world = World::new();
        world.looks(8, false);
        world.take();
        world.pass(LOOK_EVERY_MS);
        assert!(matches!(world.judge.look(world.now, &[])[..], [Finding::Ended { number: 7, .. }]));
        assert!(!world.judge.any_stalled(|_| false));
    }

    #[test]
    fn the_worst_beat_is_remembered_for_a_minute() {
        let mut world = World::new();
        world.pass(LOOK_EVERY_MS);
        world.beat_ms = world.now.monotonic;
        world.judge.look(world.now, &[Sight { number: 7, beat_ms: world.beat_ms, worst_ms: 420 }]);
        world.looks(4 * 50, true);
        assert_eq!(world.judge.worst_ms(7), 420);
        world.looks(4 * 11, true);
        assert_eq!(world.judge.worst_ms(7), 0);
    }
}
