//! What has been sent and committed so far: written by the threads that do it, read by the diagnostics without a
//! lock.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Shown by the diagnostics only.
#[derive(Debug, Default)]
pub(crate) struct IngestProgress {
    /// The newest event that was sent on the wire.
    pub(crate) sent: AtomicU64,
    pub(crate) commits: CommitProgress,
}

/// The last group commit and the one in progress.
#[derive(Debug)]
pub(crate) struct CommitProgress {
    started: Instant,
    /// Milliseconds since `started`, plus one: 0 means never.
    began: AtomicU64,
    ended: AtomicU64,
    took_ms: AtomicU64,
}

impl Default for CommitProgress {
    fn default() -> Self {
        let (began, ended, took_ms) = Default::default();
        Self { started: Instant::now(), began, ended, took_ms }
    }
}

impl CommitProgress {
    pub(crate) fn begin(&self) {
        self.began.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        let now = self.now();
        let began = self.began.swap(0, Ordering::Relaxed);
        self.took_ms.store(now.saturating_sub(began), Ordering::Relaxed);
        self.ended.store(now, Ordering::Relaxed);
    }

    pub(crate) fn last_ms_ago(&self) -> Option<u64> {
        self.since(&self.ended)
    }

    pub(crate) fn last_took_ms(&self) -> Option<u64> {
        self.last_ms_ago().map(|_| self.took_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn in_progress_ms(&self) -> Option<u64> {
        self.since(&self.began)
    }

    fn since(&self, at: &AtomicU64) -> Option<u64> {
        let at = at.load(Ordering::Relaxed);
        (at > 0).then(|| self.now().saturating_sub(at))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}
