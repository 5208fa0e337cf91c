//! What the streams of each worker wait for. Workers write atomics, so that a report never waits for a worker, nor a worker
//! for a report.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use control::watch::StreamWaits;
use daemon::watch::coarse_ms;

/// What a stream waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StreamWait {
    /// The ring is filled, or the log says where the stream starts.
    #[default]
    Start,
    /// A page of the daemon's log.
    LogPage,
    /// Its address was sent too much from the past.
    Allowance,
    /// New events: it has everything.
    Events,
    /// The client reads what was written to it.
    Client,
    /// Its worker polls it: it was woken, or the others have their turn.
    Turn,
}

impl StreamWait {
    /// All variants, in the order of their discriminants.
    const ALL: [Self; 6] =
        [Self::Start, Self::LogPage, Self::Allowance, Self::Events, Self::Client, Self::Turn];

    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::LogPage => "log-page",
            Self::Allowance => "allowance",
            Self::Events => "events",
            Self::Client => "client",
            Self::Turn => "turn",
        }
    }
}

/// What one stream waits for, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingStream {
    wait: StreamWait,
    since_ms: u64,
    /// When it was woken, if it was not polled since.
    woken_ms: Option<u64>,
}

impl WaitingStream {
    pub(super) fn new() -> Self {
        Self { wait: StreamWait::Start, since_ms: coarse_ms(), woken_ms: None }
    }

    /// It waits for this now; the wait goes on if it waited for the same before.
    pub(super) fn waits_for(&mut self, wait: StreamWait) {
        if self.wait != wait {
            (self.wait, self.since_ms) = (wait, coarse_ms());
        }
    }

    pub(super) fn on_woken(&mut self) {
        self.woken_ms.get_or_insert_with(coarse_ms);
    }

    pub(super) fn on_polled(&mut self) {
        self.woken_ms = None;
    }

    fn now(&self) -> (StreamWait, u64) {
        match self.woken_ms {
            // A stream whose socket is full is not polled, woken or not.
            Some(since) if self.wait != StreamWait::Client => (StreamWait::Turn, since),
            _ => (self.wait, self.since_ms),
        }
    }
}

/// The streams of one worker by what they wait for.
#[derive(Debug, Default)]
pub(super) struct WaitCounts([WaitCount; StreamWait::ALL.len()]);

#[derive(Clone, Copy, Debug, Default)]
struct WaitCount {
    streams: u64,
    longest_ms: u64,
}

impl WaitCounts {
    pub(super) fn add(&mut self, stream: &WaitingStream, now_ms: u64) {
        let (wait, since_ms) = stream.now();
        let count = &mut self.0[wait as usize];
        count.streams += 1;
        count.longest_ms = count.longest_ms.max(now_ms.saturating_sub(since_ms));
    }
}

/// The counts of one worker at its last tick, for other threads.
#[derive(Debug, Default)]
pub(super) struct ShownWaits([(AtomicU64, AtomicU64); StreamWait::ALL.len()]);

impl ShownWaits {
    pub(super) fn show(&self, counts: &WaitCounts) {
        for ((streams, longest_ms), count) in self.0.iter().zip(&counts.0) {
            streams.store(count.streams, Relaxed);
            longest_ms.store(count.longest_ms, Relaxed);
        }
    }
}

/// Those of all workers.
#[derive(Debug, Default)]
pub(crate) struct WaitsOfWorkers(Mutex<Vec<Weak<ShownWaits>>>);

impl WaitsOfWorkers {
    /// Adds a worker; its streams are counted until it drops what this returns.
    pub(super) fn add_worker(&self) -> Arc<ShownWaits> {
        let shown = Arc::<ShownWaits>::default();
        // Each change is complete before it can panic.
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(&shown));
        shown
    }

    /// The streams of all workers, without what none waits for. `None` if a worker is being added at this moment.
    pub(crate) fn try_report(&self) -> Option<Vec<StreamWaits>> {
        let workers: Vec<_> = self.0.try_lock().ok()?.iter().filter_map(Weak::upgrade).collect();
        let report = |wait: &StreamWait| {
            let counts = || workers.iter().map(|worker| &worker.0[*wait as usize]);
            StreamWaits {
                waits_for: wait.as_str().to_owned(),
                streams: counts().map(|(streams, _)| streams.load(Relaxed)).sum(),
                longest_ms: counts().map(|(_, longest)| longest.load(Relaxed)).max().unwrap_or_default(),
            }
        };
        Some(StreamWait::ALL.iter().map(report).filter(|waits| waits.streams > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(wait: StreamWait, since_ms: u64, woken_ms: Option<u64>) -> WaitingStream {
        WaitingStream { wait, since_ms, woken_ms }
    }

    #[test]
    fn the_streams_of_all_workers_are_counted_by_what_they_wait_for() {
        let all = WaitsOfWorkers::default();
        let (one, other) = (all.add_worker(), all.add_worker());
        let mut counts = WaitCounts::default();
        counts.add(&stream(StreamWait::Events, 900, None), 1_000);
        counts.add(&stream(StreamWait::Events, 400, None), 1_000);
        counts.add(&stream(StreamWait::Events, 100, Some(950)), 1_000);
        one.show(&counts);
        let mut counts = WaitCounts::default();
        counts.add(&stream(StreamWait::Events, 800, None), 1_000);
        counts.add(&stream(StreamWait::Client, 700, Some(990)), 1_000);
        other.show(&counts);
        let waits = |waits_for: &str, streams, longest_ms| StreamWaits {
            waits_for: waits_for.to_owned(),
            streams,
            longest_ms,
        };
        let expected = vec![waits("events", 3, 600), waits("client", 1, 300), waits("turn", 1, 50)];
        assert_eq!(all.try_report(), Some(expected));
        drop(other);
        assert_eq!(
            all.try_report().unwrap()[0],
            waits("events", 2, 600),
            "a worker that has ended does not count"
        );
        let _third = all.add_worker();
        assert_eq!(all.0.lock().unwrap().len(), 2, "nor is it kept");
    }

    #[test]
    fn a_wait_that_goes_on_keeps_its_beginning() {
        let mut stream = stream(StreamWait::Events, 5, None);
        stream.on_woken();
        stream.on_polled();
        stream.waits_for(StreamWait::Events);
        assert_eq!(stream.now(), (StreamWait::Events, 5));
        stream.waits_for(StreamWait::LogPage);
        assert!(stream.now().1 > 5);
    }
}
