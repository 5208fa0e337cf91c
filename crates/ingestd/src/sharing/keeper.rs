//! Renews the lease, and says when it is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use news::{RecordingPauseReason, Timestamp};
use tokio::{sync::watch, time::sleep};
use wire::nats::{LEASE_RENEWED_EVERY, LEASE_TRUSTED_FOR, MemberRecord, Membership};

use super::list::{SharedList, VisitedSources};
use crate::{
    lease::{Lease, LeaseTime},
    recording::{PausedWork, Recording},
};

/// A daemon that has just started is given so long to get its lease before it says that it has none.
const FIRST_LEASE_MAX: Duration = Duration::from_secs(10);
/// How long after a renewal that failed the next one is tried.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How soon the end of a lease is noticed, for the log and `/ready`; that no visit begins does not depend on it.
const WATCHED_EVERY: Duration = Duration::from_millis(250);

/// Renews the lease.
pub(super) struct LeaseKeeper {
    membership: Membership,
    lease: Lease,
    recording: Recording,
    member: MemberRecord,
    list: watch::Receiver<Arc<SharedList>>,
    visited: watch::Receiver<VisitedSources>,
    /// When the newest renewal that was confirmed was sent, as [`LeaseTime`]; 0 before the first.
    confirmed: AtomicU64,
}

/// What a member says of itself, but for its list.
pub(super) fn member(daemon: &str, since: Timestamp) -> MemberRecord {
    MemberRecord {
        daemon: daemon.to_owned(),
        machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        since: since.to_string(),
        list: String::new(),
        listed: 0,
        visited: 0,
    }
}

impl LeaseKeeper {
    pub(super) fn new(
        membership: Membership,
        lease: Lease,
        recording: Recording,
        member: MemberRecord,
        (list, visited): (watch::Receiver<Arc<SharedList>>, watch::Receiver<VisitedSources>),
    ) -> Self {
        Self { membership, lease, recording, member, list, visited, confirmed: AtomicU64::new(0) }
    }

    /// Renews for ever.
    pub(super) async fn run(&self) {
        loop {
            let sent = LeaseTime::now();
            let next = match self.membership.renew(&self.record()).await {
                Ok(()) => {
                    self.confirmed.fetch_max(sent.millis(), Relaxed);
                    // One that is over counts again only once the table was read: another member may have the shards.
                    if self.lease.is_valid() {
                        self.lease.extend(sent, LEASE_TRUSTED_FOR);
                    }
                    LEASE_RENEWED_EVERY.saturating_sub(LeaseTime::now().since(sent))
                }
                Err(error) => {
                    tracing::debug!(%error, "the lease was not renewed");
                    RETRY_AFTER
                }
            };
            sleep(next).await;
        }
    }

    /// Says it when the lease is over.
    pub(super) async fn watch_lease(&self) {
        let began = LeaseTime::now();
        let mut had_one = false;
        loop {
            sleep(WATCHED_EVERY).await;
            let is_valid = self.lease.is_valid();
            had_one |= is_valid;
            if !is_valid && (had_one || LeaseTime::now().since(began) > FIRST_LEASE_MAX) {
                let detail = format!(
                    "this daemon shares its list of sources (ingestd.share_group), and NATS has not confirmed its lease for {} s, \
                     so another daemon may visit its sources; visits begin again when NATS does; `newswire doctor` says what \
                     is wrong with it",
                    LEASE_TRUSTED_FOR.as_secs()
                );
                self.recording.pause(RecordingPauseReason::NoLease, PausedWork::NewVisits, detail);
            }
        }
    }

    /// When the renewal was sent that was confirmed last.
    pub(super) fn confirmed(&self) -> LeaseTime {
        LeaseTime::from_millis(self.confirmed.load(Relaxed))
    }

    /// The table was read after this renewal was confirmed, and what it does not have was left: the lease counts.
    pub(super) fn restore(&self, confirmed: LeaseTime) {
        self.lease.extend(confirmed, LEASE_TRUSTED_FOR);
        if self.lease.is_valid() {
            self.recording.resume(RecordingPauseReason::NoLease);
        }
    }

    pub(super) fn is_valid(&self) -> bool {
        self.lease.is_valid()
    }

    fn record(&self) -> MemberRecord {
        let list = self.list.borrow().clone();
        let count = |sources: usize| u64::try_from(sources).unwrap_or(u64::MAX);
        MemberRecord {
            list: list.hash.clone(),
            listed: count(list.sources.len()),
            visited: count(self.visited.borrow().ids.len()),
            ..self.member.clone()
        }
    }
}
