//! Daemons that divide one list of sources: `ingestd.share_group`.
//!
//! ```text
//! keeper      renews the lease ─► `lease`, without which no visit begins
//! assignment  the table of shards ─► which sources this daemon takes over, and which it hands over
//! checkpoints   what the store has of a source ─► NATS, after the events that it knows
//!                                               ─► the daemon that takes the source over
//! ```
//!
//! All of it runs on the thread for NATS. What it decides reaches the supervisor by the control loop, which applies the list as
//! if it had only the sources that this daemon visits ([`SharedCatalogue`]).

mod assignment;
mod changed;
mod checkpoints;
mod ends;
mod keeper;
mod list;
mod metrics;

use std::sync::Arc;

use news::Timestamp;
use wire::nats::{Checkpoints, EventStream, Membership};

use self::{assignment::Assignment, checkpoints::CheckpointPublisher, keeper::LeaseKeeper, list::ListEnds};
pub(crate) use self::{
    changed::ChangedSources,
    ends::{OutboxEnd, SharingActors},
    list::{OwnPart, SharedCatalogue},
    metrics::SharingMetrics,
};
use crate::{lease::Lease, recording::Recording};

/// What sharing needs of the rest of the daemon.
pub(crate) struct Sharing {
    pub(crate) group: String,
    pub(crate) actors: SharingActors,
    pub(crate) recording: Recording,
    pub(crate) changed: ChangedSources,
    pub(crate) metrics: SharingMetrics,
    pub(crate) lease: Lease,
    pub(crate) since: Timestamp,
    ends: ListEnds,
}

impl Sharing {
    pub(crate) fn new(
        group: String,
        actors: SharingActors,
        recording: Recording,
        changed: ChangedSources,
        metrics: SharingMetrics,
        since: Timestamp,
    ) -> (SharedCatalogue, Self) {
        let (catalogue, ends) = SharedCatalogue::new();
        let lease = Lease::unconfirmed();
        metrics.show_lease(&lease);
        (catalogue, Self { group, actors, recording, changed, metrics, lease, since, ends })
    }

    /// Runs as long as the thread for NATS.
    pub(crate) async fn run(self, stream: EventStream, daemon: &str, outbox: OutboxEnd) {
        let membership = Membership::new(stream.clone(), &self.group);
        let keeper = LeaseKeeper::new(
            membership.clone(),
            self.lease,
            self.recording,
            keeper::member(daemon, self.since),
            (self.ends.list.clone(), self.ends.visited.subscribe()),
        );
        let publisher = CheckpointPublisher::new(
            Checkpoints::new(stream, daemon, Arc::clone(&self.metrics.counts().checkpoints)),
            daemon,
            self.actors.clone(),
            outbox,
            self.changed,
            (self.ends.list.clone(), self.ends.visited.subscribe()),
            self.metrics.clone(),
        );
        let assignment =
            Assignment::new(daemon, membership, &keeper, &publisher, self.actors, self.ends, self.metrics);
        tokio::join!(keeper.run(), keeper.watch_lease(), publisher.run(), assignment.run());
    }
}
