//! How far the slowest client of each worker is behind, in events.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One number per worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerLag(Mutex<Vec<u64>>);

impl WorkerLag {
    fn all(&self) -> MutexGuard<'_, Vec<u64>> {
        // Every change under it is complete before it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a worker; returns its number.
    pub(crate) fn add_worker(&self) -> usize {
        let mut all = self.all();
        all.push(0);
        all.len() - 1
    }

    /// Stores the lag of one worker; returns the largest of all workers.
    pub(crate) fn update(&self, worker: usize, lag: u64) -> u64 {
        let mut all = self.all();
        all[worker] = lag;
        all.iter().copied().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_lag_of_all_workers_is_reported() {
        let lags = WorkerLag::default();
        let (one, other) = (lags.add_worker(), lags.add_worker());
        assert_eq!((lags.update(one, 7), lags.update(other, 3), lags.update(one, 0)), (7, 7, 3));
    }
}
