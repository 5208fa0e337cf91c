//! What has been sent and committed so far: written by the threads that do it, read by the diagnostics without a
//! lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// A failed read of the log is logged so often at most.
const FAILURE_LOGGED_EVERY: Duration = Duration::from_secs(60);

/// Shown by the diagnostics only.
#[derive(Debug, Default)]
pub(crate) struct IngestProgress {
    /// The newest event that was sent on the wire.
    pub(crate) sent: AtomicU64,
    pub(crate) commits: CommitProgress,
    pub(crate) read_failures: ReadFailures,
}

/// Reads of the log that failed.
#[derive(Debug, Default)]
pub(crate) struct ReadFailures {
    clock: ProgressClock,
    last: AtomicU64,
    logged: AtomicU64,
}

impl ReadFailures {
    /// Notes one. Returns whether it is to be logged.
    pub(crate) fn note(&self) -> bool {
        let now = self.clock.now();
        self.last.store(now, Ordering::Relaxed);
        let is_due = |logged: u64| {
            let since_ms = u128::from(now.saturating_sub(logged));
            logged == 0 || since_ms >= FAILURE_LOGGED_EVERY.as_millis()
        };
        let logged = |logged| is_due(logged).then_some(now);
        self.logged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, logged).is_ok()
    }

    pub(crate) fn last_ms_ago(&self) -> Option<u64> {
        self.clock.since(&self.last)
    }
}

/// Times in atomic numbers: milliseconds since `started`, plus one; 0 means never.
#[derive(Debug)]
struct ProgressClock {
    started: Instant,
}

impl Default for ProgressClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl ProgressClock {
    fn since(&self, at: &AtomicU64) -> Option<u64> {
        let at = at.load(Ordering::Relaxed);
        (at > 0).then(|| self.now().saturating_sub(at))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// The last group commit and the one in progress.
#[derive(Debug, Default)]
pub(crate) struct CommitProgress {
    clock: ProgressClock,
    began: AtomicU64,
    ended: AtomicU64,
    took_ms: AtomicU64,
}

impl CommitProgress {
    pub(crate) fn begin(&self) {
        self.began.store(self.clock.now(), Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        let now = self.clock.now();
        let began = self.began.swap(0, Ordering::Relaxed);
        self.took_ms.store(now.saturating_sub(began), Ordering::Relaxed);
        self.ended.store(now, Ordering::Relaxed);
    }

    pub(crate) fn last_ms_ago(&self) -> Option<u64> {
        self.clock.since(&self.ended)
    }

    pub(crate) fn last_took_ms(&self) -> Option<u64> {
        self.last_ms_ago().map(|_| self.took_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn in_progress_ms(&self) -> Option<u64> {
        self.clock.since(&self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_read_is_logged_once_a_minute_and_remembered() {
        let failures = ReadFailures::default();
        assert_eq!(failures.last_ms_ago(), None);
        let mut logged = Vec::new();
        for second in 0..150_u64 {
            if failures.note() {
                logged.push(second);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!((logged, failures.last_ms_ago()), (vec![0, 60, 120], Some(1000)));
    }
}
