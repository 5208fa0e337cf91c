//! Which sources this daemon visits: what the table of shards says, and what this daemon changes in it.
//!
//! ```text
//! each second: read the table and the leases ─► leave at once what another member has taken
//!                                            ─► take over the sources of own shards that are not visited yet
//!                                            ─► claim shards without a live owner, or hand shards over
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use news::SourceId;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use wire::nats::{
    LEASE_EXPIRES_AFTER, MemberRecord, MemberState, MemberStates, Membership, ShardSet, ShardTable,
    StoredTable, StreamProblem,
};

use super::{
    checkpoints::CheckpointPublisher,
    ends::SharingActors,
    keeper::LeaseKeeper,
    list::{ListEnds, SharedSource, VisitedSources},
    metrics::{Counts, SharingMetrics},
};
use crate::messages::LeaveSources;

/// How often the table is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// A member that has not looked for so long does not count what it did not see.
const LOOK_GAP_MAX: Duration = Duration::from_secs(3);
/// Shards that are handed over at once: their sources are not visited meanwhile.
const HANDED_OVER_MAX: usize = 256;
/// Sources that are taken over at once; the next ones follow.
const TAKEN_OVER_MAX: usize = 4096;
/// How long one handover may take, until the shards are visited again by this daemon.
const HAND_OVER_MAX: Duration = Duration::from_secs(60);
/// How long the supervisor may take to start what was taken over, or to stop what is left.
const APPLIED_MAX: Duration = Duration::from_secs(30);
/// A member that is gone for so long, and owns nothing, is removed from the table.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What was seen of another member.
#[derive(Clone, Copy, Debug)]
struct SeenLease {
    revision: u64,
    /// When the revision was new, as far as this daemon has looked without a gap.
    at: Instant,
    /// It was seen to grow.
    has_grown: bool,
}

/// The leases of the other members, as they are seen from here.
#[derive(Debug)]
struct SeenLeases {
    leases: BTreeMap<String, SeenLease>,
    /// Since when they are looked at without a gap.
    since: Instant,
    last: Instant,
}

impl SeenLeases {
    fn new(now: Instant) -> Self {
        Self { leases: BTreeMap::new(), since: now, last: now }
    }

    fn look(&mut self, now: Instant, members: &BTreeSet<String>, leases: &[(MemberRecord, u64)]) {
        if now.duration_since(self.last) > LOOK_GAP_MAX {
            // What did not happen while nothing was seen says nothing.
            self.since = now;
            self.leases.values_mut().for_each(|seen| seen.at = now);
        }
        self.last = now;
        self.leases.retain(|member, _| members.contains(member));
        let revision_of: BTreeMap<_, _> =
            leases.iter().map(|(record, revision)| (record.daemon.as_str(), *revision)).collect();
        for member in members {
            let revision = revision_of.get(member.as_str()).copied().unwrap_or_default();
            let seen = self.leases.entry(member.clone()).or_insert(SeenLease {
                revision,
                at: now,
                has_grown: false,
            });
            if seen.revision != revision {
                *seen = SeenLease { revision, at: now, has_grown: true };
            }
        }
    }

    fn states(&self, now: Instant) -> MemberStates {
        let state = |seen: &SeenLease| match now.duration_since(seen.at) >= LEASE_EXPIRES_AFTER {
            true => MemberState::Gone,
            false if seen.has_grown => MemberState::Live,
            false => MemberState::Unclear,
        };
        MemberStates(self.leases.iter().map(|(member, seen)| (member.clone(), state(seen))).collect())
    }

    /// Whether a shard that is free now may be claimed: its owner has had the time to come back after all was lost.
    fn may_claim_free(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= LEASE_EXPIRES_AFTER
    }

    fn forgotten(&self, now: Instant, table: &ShardTable) -> Vec<String> {
        let is_forgotten = |(member, seen): &(&String, &SeenLease)| {
            now.duration_since(seen.at) >= FORGOTTEN_AFTER && table.of(member).is_empty()
        };
        self.leases.iter().filter(is_forgotten).map(|(member, _)| member.clone()).collect()
    }
}

/// The loop.
pub(super) struct Assignment<'a> {
    me: &'a str,
    membership: Membership,
    keeper: &'a LeaseKeeper,
    publisher: &'a CheckpointPublisher,
    actors: SharingActors,
    ends: ListEnds,
    metrics: SharingMetrics,
    seen_leases: SeenLeases,
    /// Shards that this process has owned, according to the table.
    owned: ShardSet,
    visited: HashSet<SourceId>,
    version: u64,
}

/// Why a step did not do everything.
enum StepEnd {
    Nats(StreamProblem),
    /// The process stops.
    Stopped,
}

impl From<StreamProblem> for StepEnd {
    fn from(problem: StreamProblem) -> Self {
        Self::Nats(problem)
    }
}

impl<'a> Assignment<'a> {
    pub(super) fn new(
        me: &'a str,
        membership: Membership,
        keeper: &'a LeaseKeeper,
        publisher: &'a CheckpointPublisher,
        actors: SharingActors,
        ends: ListEnds,
        metrics: SharingMetrics,
    ) -> Self {
        Self {
            me,
            membership,
            keeper,
            publisher,
            actors,
            ends,
            metrics,
            seen_leases: SeenLeases::new(Instant::now()),
            owned: ShardSet::default(),
            visited: HashSet::new(),
            version: 0,
        }
    }

    /// Runs for ever, or until the process stops.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.step().await {
                Ok(()) => {}
                Err(StepEnd::Nats(error)) => {
                    tracing::debug!(%error, "the table of shards was not read or changed")
                }
                Err(StepEnd::Stopped) => return,
            }
            self.show();
        }
    }

    async fn step(&mut self) -> Result<(), StepEnd> {
        // Before the table is read: what is confirmed later says nothing about this reading.
        let confirmed = self.keeper.confirmed();
        let stored = self.membership.table().await?;
        self.leave_lost(&stored.table).await?;
        self.keeper.restore(confirmed);
        if !stored.table.members.contains(self.me) {
            let mut table = stored.table.clone();
            table.members.insert(self.me.to_owned());
            self.membership.change(&stored, table).await?;
            return Ok(());
        }
        let leases = self.membership.leases(stored.table.members.iter().filter(|m| *m != self.me)).await?;
        let now = Instant::now();
        let others: BTreeSet<_> = stored.table.members.iter().filter(|m| *m != self.me).cloned().collect();
        self.seen_leases.look(now, &others, &leases);
        if !self.keeper.is_valid() {
            return Ok(());
        }
        self.publisher.settle_conflicts().await;
        self.leave_unlisted().await?;
        self.take_over_missing().await?;
        self.change_table(&stored, now).await
    }

    /// Claims what has no live owner, and hands over what another member should have.
    async fn change_table(&mut self, stored: &StoredTable, now: Instant) -> Result<(), StepEnd> {
        let plan = stored.table.plan(self.me, &self.seen_leases.states(now));
        let mut claimed = plan.taken;
        let mut free = plan.free;
        if !self.seen_leases.may_claim_free(now) {
            // Only what this process had: the other members come back for theirs.
            free.keep_common(&self.owned);
        }
        claimed.add_all(&free);
        let forgotten = self.seen_leases.forgotten(now, &stored.table);
        if !claimed.is_empty() || !forgotten.is_empty() {
            let mut table = stored.table.clone().with(&claimed, self.me);
            forgotten.iter().for_each(|member| {
                table.members.remove(member);
            });
            if self.membership.change(stored, table).await?.is_some() && !claimed.is_empty() {
                tracing::info!(shards = claimed.len(), "this daemon takes over shards of the shared list");
            }
            // The next step sees what has become of it.
            return Ok(());
        }
        let Some((successor, shards)) = plan.handed_over.into_iter().next() else { return Ok(()) };
        self.hand_over(&shards.first(HANDED_OVER_MAX), &successor).await
    }

    /// Leaves at once, without a checkpoint, what another member has taken.
    async fn leave_lost(&mut self, table: &ShardTable) -> Result<(), StepEnd> {
        let mine = table.of(self.me);
        let mut lost = self.owned.clone();
        lost.remove_all(&mine);
        let mut gained = mine.clone();
        gained.remove_all(&self.owned);
        Counts::add(&self.metrics.counts().taken, gained.len());
        // What the table has lost altogether is still visited: this daemon claims it again.
        lost.remove_all(&table.free());
        self.owned.remove_all(&lost);
        self.owned.add_all(&mine);
        if lost.is_empty() {
            return Ok(());
        }
        Counts::add(&self.metrics.counts().given_up, lost.len());
        tracing::warn!(
            shards = lost.len(),
            "another daemon has taken over shards of the shared list while this one had no lease; their sources are left"
        );
        let ids = self.visited_of(|source| lost.contains(source.shard));
        self.leave(ids, true).await
    }

    /// Leaves sources that are no longer in the list, or have moved to a shard of another member.
    async fn leave_unlisted(&mut self) -> Result<(), StepEnd> {
        let list = self.ends.list.borrow().clone();
        let own = |source: &&SharedSource| self.owned.contains(source.shard);
        let kept: HashSet<_> = list.sources.iter().filter(own).map(|source| &source.id).collect();
        let left: Vec<_> = self.visited.iter().filter(|id| !kept.contains(id)).cloned().collect();
        if left.is_empty() {
            return Ok(());
        }
        let listed: HashSet<_> = list.sources.iter().map(|source| &source.id).collect();
        let moved: Vec<_> = left.iter().filter(|id| listed.contains(id)).cloned().collect();
        self.leave(left, false).await?;
        if !moved.is_empty() {
            self.publisher.publish_all(&moved).await;
        }
        Ok(())
    }

    /// Takes over the sources of own shards that are not visited yet.
    async fn take_over_missing(&mut self) -> Result<(), StepEnd> {
        let list = self.ends.list.borrow_and_update().clone();
        let is_missing =
            |source: &&SharedSource| self.owned.contains(source.shard) && !self.visited.contains(&source.id);
        let missing: Vec<_> = list.sources.iter().filter(is_missing).take(TAKEN_OVER_MAX).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let taken = self.publisher.take_over(&missing).await.map_err(|_| StepEnd::Stopped)?;
        if taken.len() < missing.len() {
            tracing::debug!(
                sources = missing.len() - taken.len(),
                "checkpoints could not be read; they are read again"
            );
        }
        tracing::info!(sources = taken.len(), "sources of the shared list are visited by this daemon now");
        self.visited.extend(taken);
        self.tell_visited();
        self.applied().await;
        Ok(())
    }

    async fn hand_over(&mut self, shards: &ShardSet, successor: &str) -> Result<(), StepEnd> {
        let ids = self.visited_of(|source| shards.contains(source.shard));
        let sources = ids.len();
        self.leave(ids.clone(), false).await?;
        let published = timeout(HAND_OVER_MAX, self.publisher.publish_all(&ids)).await;
        if !published.is_ok_and(|left| left.is_empty()) {
            tracing::warn!(
                sources,
                daemon = successor,
                "sources are not handed over to another daemon, because NATS did not confirm their checkpoints in time; this \
                 daemon goes on with them"
            );
            // The next step takes them over from itself.
            return Ok(());
        }
        let stored = self.membership.table().await?;
        let mut still_mine = stored.table.of(self.me);
        still_mine.keep_common(shards);
        let table = stored.table.clone().with(&still_mine, successor);
        if self.membership.change(&stored, table).await?.is_some() {
            self.owned.remove_all(shards);
            Counts::add(&self.metrics.counts().given_up, still_mine.len());
            tracing::info!(
                shards = still_mine.len(),
                sources,
                daemon = successor,
                "shards of the shared list handed over"
            );
        }
        Ok(())
    }

    /// The visited sources that are such.
    fn visited_of(&self, is_such: impl Fn(&SharedSource) -> bool) -> Vec<SourceId> {
        let list = self.ends.list.borrow();
        let such = list.sources.iter().filter(|source| is_such(source) && self.visited.contains(&source.id));
        such.map(|source| source.id.clone()).collect()
    }

    /// Completes when they are no longer visited, and the control loop knows it.
    async fn leave(&mut self, ids: Vec<SourceId>, at_once: bool) -> Result<(), StepEnd> {
        if ids.is_empty() {
            return Ok(());
        }
        ids.iter().for_each(|id| {
            self.visited.remove(id);
        });
        // The supervisor has this order before the list without them, which would end their visits at once.
        let left = self.actors.leave.send(LeaveSources { ids, at_once });
        self.tell_visited();
        left.await.map_err(|_| StepEnd::Stopped)?;
        self.applied().await;
        Ok(())
    }

    fn tell_visited(&mut self) {
        self.version += 1;
        let visited = VisitedSources { version: self.version, ids: Arc::new(self.visited.clone()) };
        self.ends.visited.send_replace(visited);
    }

    /// Completes when the supervisor runs what it was told last; a control loop that is busy is not waited for for ever.
    async fn applied(&mut self) {
        let version = self.version;
        timeout(APPLIED_MAX, self.ends.applied.wait_for(|applied| *applied >= version)).await.ok();
    }

    fn show(&self) {
        let counts = self.metrics.counts();
        counts.shards.store(self.owned.len() as u64, Relaxed);
        let listed = self.ends.list.borrow().sources.len();
        counts.elsewhere.store(listed.saturating_sub(self.visited.len()) as u64, Relaxed);
    }
}
