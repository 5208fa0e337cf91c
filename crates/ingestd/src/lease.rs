//! The lease of this daemon: as long as NATS has confirmed it lately, no other daemon visits the sources of its shards.
//!
//! It is counted on a clock that goes on while the process is stopped or the machine sleeps: a daemon that wakes up knows at once
//! that its lease is over, and begins no visit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Until when the lease counts. Cheap to clone; all clones are one lease.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// Milliseconds since the machine was booted.
    until: Arc<AtomicU64>,
}

/// A moment on the clock of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeaseTime(u64);

impl LeaseTime {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Self(seconds * 1000 + u64::try_from(time.tv_nsec / 1_000_000).unwrap_or_default())
    }

    pub(crate) fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Since the machine was booted.
    pub(crate) fn millis(self) -> u64 {
        self.0
    }

    /// How long ago an earlier moment was.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    fn plus(self, duration: Duration) -> u64 {
        self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Lease {
    /// Of a daemon that shares nothing: it needs none.
    pub(crate) fn not_needed() -> Self {
        Self { until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Not confirmed yet.
    pub(crate) fn unconfirmed() -> Self {
        Self { until: Arc::default() }
    }

    /// Whether visits may begin.
    pub(crate) fn is_valid(&self) -> bool {
        LeaseTime::now().0 < self.until.load(Relaxed)
    }

    /// Counts for so long from the moment at which the renewal was sent.
    pub(crate) fn extend(&self, sent: LeaseTime, trusted_for: Duration) {
        self.until.fetch_max(sent.plus(trusted_for), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_when_its_renewal_was_sent_and_never_shrinks() {
        assert!(Lease::not_needed().is_valid());
        let lease = Lease::unconfirmed();
        assert!(!lease.is_valid());
        let sent = LeaseTime::now();
        lease.extend(sent, Duration::from_secs(3600));
        assert!(lease.is_valid());
        lease.extend(LeaseTime(0), Duration::from_secs(1));
        assert!(lease.is_valid(), "that answer was late");
        let of_yesterday = Lease::unconfirmed();
        of_yesterday.extend(LeaseTime(0), Duration::from_millis(1));
        assert!(!of_yesterday.is_valid());
    }
}
