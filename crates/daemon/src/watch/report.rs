//! The state of the watch as typed reports, for the admin socket and `/ready`.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use control::watch::{
    ClockReport, LoopReport, ObserverReport, PauseReport, ProgressReport, StallReport, TaskReport,
    ThreadReport, WatchdogReport,
};
use serde::Serialize;
use serde_json::Value;
use stacks::StackDump;

use super::listeners::PROBER_RESTS_MS;
use super::states::ObserverThread;
use super::{RareEvent, StallRecord, Watch, WatchEntry, WatchKind, now_ms, this_thread};
use crate::logs;
use crate::work::{self, BusyWorker, CurrentTask};

/// A watchdog that has shown no sign of life for longer is stuck: it looks every 250 ms, and one sample of a stack takes a
/// second at most.
const WATCHDOG_SILENT_MS: u64 = 6_000;

/// A loop that has beaten since then moves again.
const MOVES_AGAIN_MS: u64 = 500;

/// An event loop, pool or thread without progress, for `/ready`.
#[derive(Clone, Debug, Serialize)]
pub struct StalledLoop {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub kind: WatchKind,
    /// Always true.
    pub stalled: bool,
    /// How late its last beat was.
    pub lag_ms: u64,
    /// How long ago that was.
    pub beat_ms_ago: u64,
    /// Nothing: the function that it is stuck in is in the log and on the admin socket, and `/ready` is public.
    pub culprit: Option<String>,
}

impl StalledLoop {
    /// One sentence, safe to publish.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!("{} has not answered for {} s", self.name, self.beat_ms_ago / 1000)
    }
}

impl Watch {
    /// What makes no progress now. Takes no lock that a stuck thread could hold.
    #[must_use]
    pub fn stalled(&self) -> Vec<StalledLoop> {
        let entries = self.entries().clone();
        let now = now_ms();
        // A watchdog that is stuck sets no mark.
        let is_unwatched = self.watchdog_silent_ms(now).is_some_and(|silent| silent > WATCHDOG_SILENT_MS);
        let stalled = entries.into_iter().filter(|entry| {
            let silent = entry.silent_ms(now);
            // The watchdog takes a mark back when it looks again, which may be after the stack of the stall was read.
            let is_marked = entry.stalled.load(Relaxed) && silent >= MOVES_AGAIN_MS;
            is_marked || (is_unwatched && silent > WATCHDOG_SILENT_MS)
        });
        stalled
            .map(|entry| StalledLoop {
                name: Arc::clone(&entry.name),
                kind: entry.kind,
                stalled: true,
                lag_ms: entry.lag_ms.load(Relaxed),
                beat_ms_ago: now.saturating_sub(entry.beat_ms.load(Relaxed)),
                culprit: None,
            })
            .collect()
    }

    /// Everything in `GET /watch` except the diagnostics.
    pub(crate) fn report(&self) -> ProgressReport {
        let now = now_ms();
        let entries = self.entries().clone();
        let workers = work::busy_workers();
        let is_loop = |tid| entries.iter().any(|entry| entry.tid == tid && entry.kind != WatchKind::Recorder);
        let threads = workers.iter().filter(|worker| !is_loop(worker.tid));
        let history = self.history();
        ProgressReport {
            loops: entries.iter().map(|entry| entry.report(now, &workers)).collect(),
            threads: threads.map(BusyWorker::report).collect(),
            stalls: history.stalls.iter().map(|stall| stall.report(now)).collect(),
            stalls_total: history.stalls_total,
            clock: history.clock_jumps.clock_report(now),
            pauses: history.pauses.pause_report(now),
            log: logs::report(),
            watchdog: self.watchdog_silent_ms(now).map(|looked_ms_ago| WatchdogReport {
                tid: self.0.watchdog.tid.load(Relaxed),
                looked_ms_ago,
                sampling: self.0.watchdog.sampling.load(Relaxed),
            }),
            observers: [("vitals", &self.0.reading_diagnostics), ("stacks", &self.0.reading_stacks)]
                .into_iter()
                .filter_map(|(name, observer)| observer.report(name, now))
                .collect(),
            listeners: self.listeners().iter().map(|listener| listener.report(now)).collect(),
            tasks: self.task_waits(),
        }
    }

    /// The watchdog's thread makes progress.
    pub(super) fn looks(&self) {
        self.0.watchdog.looked_ms.store(now_ms(), Release);
    }

    /// Reads stacks on the watchdog's thread.
    pub(super) fn sampled<T>(&self, sample: impl FnOnce() -> T) -> T {
        self.looks();
        self.0.watchdog.sampling.store(true, Relaxed);
        let sampled = sample();
        self.looks();
        self.0.watchdog.sampling.store(false, Relaxed);
        sampled
    }

    /// The time since the watchdog looked last; `None` before the first time.
    fn watchdog_silent_ms(&self, now: u64) -> Option<u64> {
        let looked_ms = self.0.watchdog.looked_ms.load(Acquire);
        (looked_ms != 0).then(|| now.saturating_sub(looked_ms))
    }

    /// Reads the diagnostics on a separate thread, since that may block. `reply` is dropped uncalled if there are none or
    /// an earlier request is still running.
    pub(crate) fn request_diagnostics(&self, reply: impl FnOnce(Value) + Send + 'static) {
        let watch = self.clone();
        spawn_exclusive("vitals", &self.0.reading_diagnostics, move || {
            if let Some(diagnostics) = watch.diagnostics() {
                reply(diagnostics());
            }
        });
    }

    /// The same for the stacks of all threads.
    pub(crate) fn request_stacks(&self, reply: impl FnOnce(StackDump) + Send + 'static) {
        let watch = self.clone();
        spawn_exclusive("stacks", &self.0.reading_stacks, move || {
            if let Some(sampler) = watch.0.sampler.get() {
                reply(sampler.all());
            }
        });
    }
}

impl ObserverThread {
    /// `None` if it reads nothing now.
    fn report(&self, name: &str, now: u64) -> Option<ObserverReport> {
        self.running.load(Acquire).then(|| ObserverReport {
            name: name.to_owned(),
            tid: self.tid.load(Relaxed),
            since_ms_ago: now.saturating_sub(self.since_ms.load(Relaxed)),
        })
    }
}

/// Runs `job` on a separate thread unless the previous one is still running.
fn spawn_exclusive(name: &str, observer: &Arc<ObserverThread>, job: impl FnOnce() + Send + 'static) {
    struct Running(Arc<ObserverThread>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.running.store(false, Release);
        }
    }
    if observer.running.compare_exchange(false, true, AcqRel, Acquire).is_err() {
        return;
    }
    observer.tid.store(0, Relaxed);
    observer.since_ms.store(now_ms(), Relaxed);
    let running = Running(Arc::clone(observer));
    let work = move || {
        running.0.tid.store(this_thread(), Relaxed);
        job();
        drop(running);
    };
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::debug!(%error, name, "could not start a thread");
    }
}

impl WatchEntry {
    /// For how long it has made no progress that was expected.
    fn silent_ms(&self, now: u64) -> u64 {
        now.saturating_sub(self.progress_ms(now))
    }

    /// The last moment at which it made the progress that was expected: while it has nothing to do, none is.
    pub(super) fn progress_ms(&self, now: u64) -> u64 {
        let beat_ms = self.beat_ms.load(Relaxed);
        match (self.idle.load(Acquire), self.kind) {
            (false, _) => beat_ms,
            // It wakes by itself.
            (true, WatchKind::Prober) => now.min(beat_ms + PROBER_RESTS_MS),
            (true, _) => now,
        }
    }

    fn report(&self, now: u64, workers: &[BusyWorker]) -> LoopReport {
        let beats_at_work_only = matches!(self.kind, WatchKind::Recorder | WatchKind::Prober);
        let beat_ms_ago = match beats_at_work_only {
            true => self.silent_ms(now),
            false => now.saturating_sub(self.beat_ms.load(Relaxed)),
        };
        let work = workers.iter().find(|worker| worker.tid == self.tid).map(|worker| &worker.work);
        let lag_ms = self.lag_ms.load(Relaxed);
        LoopReport {
            name: self.name.to_string(),
            kind: self.kind,
            tid: self.tid,
            beat_ms_ago,
            lag_ms,
            lag_ms_max: self.lag_ms_max.load(Relaxed).max(lag_ms),
            stalled: self.stalled.load(Relaxed),
            work: work.map(CurrentTask::report),
        }
    }
}

impl BusyWorker {
    fn report(&self) -> ThreadReport {
        ThreadReport { tid: self.tid, name: self.name.to_string(), work: self.work.report() }
    }
}

impl CurrentTask {
    fn report(&self) -> TaskReport {
        let Self { what, of, since_ms_ago } = self;
        TaskReport { what: (*what).to_owned(), of: of.to_string(), since_ms_ago: *since_ms_ago }
    }
}

impl StallRecord {
    fn report(&self, now: u64) -> StallReport {
        StallReport {
            name: self.name.to_string(),
            kind: self.kind,
            tid: self.tid,
            began_ms_ago: now.saturating_sub(self.began_ms),
            lasted_ms: self.lasted_ms,
            work: self.work.as_ref().map(CurrentTask::report),
            culprit: self.culprit.clone(),
        }
    }
}

impl RareEvent {
    fn clock_report(&self, now: u64) -> ClockReport {
        let (last_ms, last_ms_ago) = self.last(now).unzip();
        ClockReport { jumps: self.count, last_ms, last_ms_ago }
    }

    fn pause_report(&self, now: u64) -> PauseReport {
        let (last_ms, last_ms_ago) = self.last(now).unzip();
        PauseReport { count: self.count, last_ms: last_ms.map(i64::unsigned_abs), last_ms_ago }
    }

    /// The size of the last one and how long ago it was, in milliseconds; `None` if there was none.
    fn last(&self, now: u64) -> Option<(i64, u64)> {
        (self.count > 0).then(|| (self.last_ms, now.saturating_sub(self.at_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prober_that_rests_for_too_long_is_silent_and_a_recorder_without_work_is_not() {
        let now = 60_000;
        let silent = |kind, beat_ms| {
            let entry = WatchEntry::new("thread", kind, 1, true);
            entry.beat_ms.store(beat_ms, Relaxed);
            (entry.silent_ms(now), entry.report(now, &[]).beat_ms_ago)
        };
        assert_eq!(silent(WatchKind::Recorder, 1), (0, 0));
        assert_eq!(silent(WatchKind::Prober, now - PROBER_RESTS_MS), (0, 0));
        assert_eq!(silent(WatchKind::Prober, now - PROBER_RESTS_MS - 1_500), (1_500, 1_500));
    }
}
