//! Brings what the store has of a source to NATS, and what NATS has into the store.
//!
//! A checkpoint is published only after all events that it knows are in the stream: what it calls known is never lost with this
//! machine.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use news::{Cursor, Seq, SourceId};
use store::{AdoptedSource, SourceExport};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use wire::nats::{CheckpointOutcome, Checkpoints, NewCheckpoint, Predecessor, StreamProblem};

use super::{
    changed::ChangedSources,
    ends::{OutboxEnd, SharingActors},
    list::{SharedList, SharedSource, VisitedSources},
    metrics::{Counts, SharingMetrics},
};
use crate::messages::{AdoptSources, ExportSources, LogClosed};

/// How long changes are gathered before checkpoints are made of them.
const GATHERED_FOR: Duration = Duration::from_millis(500);
/// How long after a failure the next attempt follows.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Sources that the store is asked for at once.
const EXPORTED_MAX: usize = 128;
/// Sources that are read or published at once.
const IN_FLIGHT_MAX: usize = 64;
/// How long the events of a checkpoint may take to be confirmed, until it is made anew.
const CONFIRMED_MAX: Duration = Duration::from_secs(20);

/// What was published last of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PublishedParts {
    state: u64,
    seen: u64,
}

/// Publishes checkpoints of the sources that this daemon visits.
pub(super) struct CheckpointPublisher {
    checkpoints: Checkpoints,
    daemon: String,
    actors: SharingActors,
    outbox: OutboxEnd,
    changed: ChangedSources,
    list: watch::Receiver<Arc<SharedList>>,
    visited: watch::Receiver<VisitedSources>,
    metrics: SharingMetrics,
    published: RefCell<HashMap<SourceId, PublishedParts>>,
    /// Sources of which another daemon has published a checkpoint.
    conflicts: RefCell<Vec<SourceId>>,
    /// Of one source, only one checkpoint may be on its way, and none while it is taken over.
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl CheckpointPublisher {
    pub(super) fn new(
        checkpoints: Checkpoints,
        daemon: &str,
        actors: SharingActors,
        outbox: OutboxEnd,
        changed: ChangedSources,
        (list, visited): (watch::Receiver<Arc<SharedList>>, watch::Receiver<VisitedSources>),
        metrics: SharingMetrics,
    ) -> Self {
        Self {
            checkpoints,
            daemon: daemon.to_owned(),
            actors,
            outbox,
            changed,
            list,
            visited,
            metrics,
            published: RefCell::default(),
            conflicts: RefCell::default(),
            one_at_a_time: tokio::sync::Mutex::default(),
        }
    }

    /// Publishes what changes, for ever.
    pub(super) async fn run(&self) {
        tokio::join!(self.publish_changes(), self.follow_epoch());
    }

    async fn publish_changes(&self) {
        let mut is_prepared = false;
        loop {
            self.show_waiting();
            if !is_prepared {
                is_prepared = self.prepare().await;
                if !is_prepared {
                    sleep(RETRY_AFTER).await;
                    continue;
                }
            }
            self.changed.added().await;
            if self.changed.len() < EXPORTED_MAX {
                sleep(GATHERED_FOR).await;
            }
            let visited = Arc::clone(&self.visited.borrow().ids);
            let mut ids = self.changed.take(EXPORTED_MAX);
            ids.retain(|id| visited.contains(id));
            let left = self.publish_all(&ids).await;
            if !left.is_empty() {
                self.changed.add(left);
                // NATS may have lost the stream.
                is_prepared = false;
                sleep(RETRY_AFTER).await;
            }
        }
    }

    async fn prepare(&self) -> bool {
        match self.checkpoints.prepare().await {
            Ok(differences) => {
                for reason in differences {
                    tracing::warn!(reason, "the stream of checkpoints differs from the configuration");
                }
                true
            }
            Err(StreamProblem::NotConnected(_)) => false,
            Err(error) => {
                tracing::warn!(%error, "checkpoints of sources cannot be published; it is tried again");
                false
            }
        }
    }

    /// A new epoch of the stream may mean that NATS has lost everything.
    async fn follow_epoch(&self) {
        let mut status = self.outbox.status.clone();
        let mut epoch = None;
        loop {
            let now = status.borrow_and_update().epoch.clone();
            if now.is_some() && now != epoch {
                epoch = now;
                self.published.borrow_mut().clear();
                let visited = Arc::clone(&self.visited.borrow().ids);
                self.changed.add(visited.iter().cloned());
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Publishes the checkpoints of these sources as the store has them now; returns those that were not confirmed.
    pub(super) async fn publish_all(&self, ids: &[SourceId]) -> Vec<SourceId> {
        let _alone = self.one_at_a_time.lock().await;
        let mut left = Vec::new();
        for ids in ids.chunks(EXPORTED_MAX) {
            let exported = self.actors.export.send(ExportSources(ids.to_vec())).await;
            let Ok(Ok(exports)) = exported else {
                left.extend_from_slice(ids);
                continue;
            };
            let head = exports.iter().map(|export| export.head).max().unwrap_or(Seq::NONE);
            if !self.are_confirmed(head).await {
                left.extend_from_slice(ids);
                continue;
            }
            let published =
                stream::iter(exports).map(|export| self.publish(export)).buffer_unordered(IN_FLIGHT_MAX);
            left.extend(published.filter_map(async |left| left).collect::<Vec<_>>().await);
        }
        left
    }

    /// Whether all events up to this one are in the stream.
    async fn are_confirmed(&self, head: Seq) -> bool {
        let mut status = self.outbox.status.clone();
        let confirmed = status.wait_for(|status| status.epoch.is_some() && status.through >= head);
        timeout(CONFIRMED_MAX, confirmed).await.is_ok_and(|confirmed| confirmed.is_ok())
    }

    /// `None` if nothing is left to do.
    async fn publish(&self, export: SourceExport) -> Option<SourceId> {
        let SourceExport { source, state, seen, head } = export;
        let state = state.map(|state| serde_json::to_vec(&state).expect("a state has a JSON form"))?;
        let parts = PublishedParts { state: news::stable_hash(&state), seen: news::stable_hash(&seen) };
        let before = self.published.borrow().get(&source).copied();
        if before == Some(parts) {
            return None;
        }
        let has_seen_changed = before.is_none_or(|before| before.seen != parts.seen);
        let checkpoint = NewCheckpoint {
            source: source.to_string(),
            through: self.known_through(&source, head),
            state: state.into(),
            seen: has_seen_changed.then(|| Bytes::from(seen)),
        };
        let counts = self.metrics.counts();
        match self.checkpoints.publish(checkpoint).await {
            Ok(CheckpointOutcome::Published { too_large }) => {
                for (part, bytes) in too_large {
                    tracing::warn!(
                        source = %source, part, bytes,
                        "a part of a checkpoint is larger than the NATS servers allow; the daemon that takes the source over uses an \
                         older one; raise max_payload of the servers"
                    );
                }
                Counts::add(&counts.checkpoints_published, 1);
                self.published.borrow_mut().insert(source, parts);
                None
            }
            Ok(CheckpointOutcome::OwnedByAnother { writer }) => {
                tracing::debug!(source = %source, daemon = writer, "another daemon has published a checkpoint of a source");
                Counts::add(&counts.checkpoints_failed, 1);
                self.conflicts.borrow_mut().push(source);
                None
            }
            Err(error) => {
                tracing::debug!(source = %source, %error, "a checkpoint was not confirmed");
                Counts::add(&counts.checkpoints_failed, 1);
                Some(source)
            }
        }
    }

    /// Called after the table was read: a source that is still this daemon's own was written by one that did not know it yet.
    pub(super) async fn settle_conflicts(&self) {
        let conflicts = std::mem::take(&mut *self.conflicts.borrow_mut());
        for id in conflicts {
            let is_visited = self.visited.borrow().ids.contains(&id);
            let category = self.category_of(&id).filter(|_| is_visited);
            let Some(category) = category else {
                self.checkpoints.forget(id.as_str());
                continue;
            };
            self.published.borrow_mut().remove(&id);
            // The numbers of its messages, which the next checkpoint replaces.
            if self.checkpoints.read(id.as_str(), &category).await.is_err() {
                self.conflicts.borrow_mut().push(id);
            } else {
                self.changed.add([id]);
            }
        }
    }

    /// Brings the store up to what other daemons have done with these sources; returns those of which that is known.
    ///
    /// # Errors
    /// [`LogClosed`]: the process stops.
    pub(super) async fn take_over(&self, sources: &[SharedSource]) -> Result<Vec<SourceId>, LogClosed> {
        let _alone = self.one_at_a_time.lock().await;
        let read = |source: &SharedSource| {
            let source = source.clone();
            async move {
                let read = self.checkpoints.read(source.id.as_str(), &source.category).await;
                read.map(|predecessor| (source, predecessor))
            }
        };
        let read: Vec<_> = stream::iter(sources).map(read).buffered(IN_FLIGHT_MAX).collect().await;
        let (mut adopted, mut ends, mut written_by_others) = (Vec::new(), Vec::new(), Vec::new());
        for result in read {
            match result {
                Ok((source, predecessor)) => {
                    self.published.borrow_mut().remove(&source.id);
                    ends.push((source.clone(), predecessor.end.clone()));
                    let adoption = self.adoption(&source.id, predecessor);
                    if adoption.state.is_some() {
                        written_by_others.push(source.id);
                    }
                    adopted.push(adoption);
                }
                Err(error) => tracing::debug!(%error, "the checkpoint of a source was not read"),
            }
        }
        let is_needed = |adoption: &AdoptedSource| {
            adoption.state.is_some() || adoption.seen.is_some() || !adoption.events.is_empty()
        };
        adopted.retain(is_needed);
        for adopted in in_parts(adopted, EXPORTED_MAX) {
            let sent = self.actors.adopt.send(AdoptSources(adopted)).await;
            for unreadable in sent.map_err(|_| LogClosed).flatten()? {
                tracing::error!(error = %unreadable, "a checkpoint of a source cannot be used");
            }
        }
        let head = self.outbox.log.bounds().head;
        let names = self.checkpoints.names();
        let mut taken = Vec::new();
        for (source, end) in ends {
            let subject = names.event(&source.category, source.id.as_str());
            self.outbox.known_ends.know(&subject, &end, head);
            taken.push(source.id);
        }
        self.changed.add(taken.iter().cloned());
        Ok(taken)
    }

    /// What the store has to learn about a source. Its own events are known to it, unless its list of keys is replaced.
    fn adoption(&self, id: &SourceId, predecessor: Predecessor) -> AdoptedSource {
        let Predecessor { state, seen, events, is_cut, .. } = predecessor;
        if is_cut {
            tracing::warn!(source = %id, "a source has more new events than are read; some of its items may be taken for new");
        }
        let foreign = |part: &wire::nats::CheckpointPart| part.writer != self.daemon;
        let seen = seen.filter(foreign).map(|part| part.bytes.to_vec());
        let state = state.filter(foreign).and_then(|part| {
            let state = serde_json::from_slice(&part.bytes);
            state
                .inspect_err(
                    |error| tracing::error!(source = %id, %error, "the checkpoint of a state is unreadable"),
                )
                .ok()
        });
        let is_new = |origin: &Cursor| seen.is_some() || origin.epoch.as_str() != self.daemon;
        let events =
            events.into_iter().filter(|later| is_new(&later.origin)).map(|later| later.event).collect();
        AdoptedSource { source: id.clone(), state, seen, events }
    }

    fn known_through(&self, id: &SourceId, head: Seq) -> Option<Cursor> {
        let subject = self.checkpoints.names().event(&self.category_of(id)?, id.as_str());
        self.outbox.known_ends.last_of(&subject, head)
    }

    fn category_of(&self, id: &SourceId) -> Option<String> {
        let list = self.list.borrow();
        list.get(id).map(|source| source.category.clone())
    }

    fn show_waiting(&self) {
        let waiting = &self.metrics.counts().checkpoints_waiting;
        waiting.store(self.changed.len() as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Parts of so many, so that visits are recorded between them.
fn in_parts<T>(mut all: Vec<T>, count: usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    while all.len() > count {
        let rest = all.split_off(count);
        parts.push(std::mem::replace(&mut all, rest));
    }
    parts.push(all);
    parts
}
