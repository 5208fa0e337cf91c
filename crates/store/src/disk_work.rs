//! What the store has the disk do at this moment, and which of it was slow lately: kept without a lock, so that it can be read
//! while the disk hangs.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

/// Work of the disk that takes this long is slow.
pub const SLOW_MS: u64 = 1_000;
/// Slow work is counted for this long after its end.
pub const RECENT_MS: u64 = 60_000;
/// Two threads cannot do more slow work in [`RECENT_MS`] than this.
const SLOTS: usize = 128;
/// A slot has the duration in its low bits, and above them the time of the end.
const DURATION_BITS: u32 = 24;

/// What the disk does for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskPhase {
    /// Takes the bytes of a commit.
    Write,
    /// Brings them to the medium.
    Sync,
    /// Writes and syncs the files of sled, in the background.
    Sled,
}

/// Work of the disk that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskPhaseProgress {
    /// What it is.
    pub phase: DiskPhase,
    /// For how long, in milliseconds.
    pub since_ms: u64,
}

/// Work of the disk that took at least [`SLOW_MS`] and ended within [`RECENT_MS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowDiskWork {
    /// How often.
    pub count: u64,
    /// All of it together, in milliseconds.
    pub total_ms: u64,
    /// The slowest, in milliseconds.
    pub slowest_ms: u64,
    /// When the slowest ended, in milliseconds.
    pub slowest_ms_ago: u64,
}

/// See [`LogReader::disk_work`](crate::LogReader::disk_work).
#[derive(Debug)]
pub struct DiskWork {
    started: Instant,
    /// When the present work of each phase began, plus one; 0 if there is none.
    began: [AtomicU64; 3],
    slow: [AtomicU64; SLOTS],
    next: AtomicUsize,
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a disk takes is real time, also in a test with a paused clock"
)]
fn now() -> Instant {
    Instant::now()
}

impl Default for DiskWork {
    fn default() -> Self {
        Self {
            started: now(),
            began: Default::default(),
            slow: std::array::from_fn(|_| AtomicU64::new(0)),
            next: AtomicUsize::new(0),
        }
    }
}

impl DiskWork {
    /// What takes the longest of what has not ended.
    #[must_use]
    pub fn in_progress(&self) -> Option<DiskPhaseProgress> {
        let now = self.now();
        let phases = [DiskPhase::Write, DiskPhase::Sync, DiskPhase::Sled].into_iter().zip(&self.began);
        let running = phases.filter_map(|(phase, began)| match began.load(Relaxed) {
            0 => None,
            began => Some(DiskPhaseProgress { phase, since_ms: now.saturating_sub(began) }),
        });
        running.max_by_key(|running| running.since_ms)
    }

    /// What was slow lately.
    #[must_use]
    pub fn slow(&self) -> SlowDiskWork {
        let now = self.now();
        let ended = |slot: &AtomicU64| match slot.load(Relaxed) {
            0 => None,
            slot => Some((now.saturating_sub(slot >> DURATION_BITS), slot & ((1 << DURATION_BITS) - 1))),
        };
        let recent = self.slow.iter().filter_map(ended).filter(|(ago, _)| *ago <= RECENT_MS);
        recent.fold(SlowDiskWork::default(), |mut all, (ago, took)| {
            all.count += 1;
            all.total_ms += took;
            if took > all.slowest_ms {
                (all.slowest_ms, all.slowest_ms_ago) = (took, ago);
            }
            all
        })
    }

    /// Runs work of the disk.
    pub(crate) fn during<T>(&self, phase: DiskPhase, work: impl FnOnce() -> T) -> T {
        let began = &self.began[phase as usize];
        let (at, without_processor) = (self.now(), run_delay_ms());
        began.store(at, Relaxed);
        let result = work();
        began.store(0, Relaxed);
        let now = self.now();
        let took = now.saturating_sub(at);
        if took >= SLOW_MS {
            // A thread that had no processor did not wait for the disk.
            let delay = run_delay_ms().saturating_sub(without_processor);
            self.note(now, took.saturating_sub(delay));
        }
        result
    }

    fn note(&self, now: u64, took: u64) {
        if took >= SLOW_MS {
            let slot = self.next.fetch_add(1, Relaxed) % SLOTS;
            self.slow[slot].store(now << DURATION_BITS | took.min((1 << DURATION_BITS) - 1), Relaxed);
        }
    }

    /// Milliseconds since the start, plus one.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// How long this thread was ready to run and had no processor, also because of a quota, since its start. 0 if the kernel does
/// not count it.
fn run_delay_ms() -> u64 {
    // Time on a processor, time ready and without one, both in nanoseconds, and the number of times that it ran.
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|delay| delay.parse::<u64>().ok()).unwrap_or(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_and_what_was_slow_in_the_last_minute_is_told() {
        let work = DiskWork { started: now() - std::time::Duration::from_secs(600), ..DiskWork::default() };
        work.during(DiskPhase::Sync, || {
            work.during(DiskPhase::Sled, || ());
            assert_eq!(work.in_progress().unwrap().phase, DiskPhase::Sync);
        });
        assert_eq!((work.in_progress(), work.slow()), (None, SlowDiskWork::default()));
        let now = work.now();
        work.note(now - RECENT_MS - 5_000, 9_000);
        work.note(now, SLOW_MS - 1);
        work.note(now, 3_000);
        work.note(now, 2_000);
        let slow = work.slow();
        assert_eq!((slow.count, slow.total_ms, slow.slowest_ms), (2, 5_000, 3_000));
    }
}
