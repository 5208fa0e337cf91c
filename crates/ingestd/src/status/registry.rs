//! The state of every source, readable from any thread at any time, also while the actors' thread is stuck.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use control::watch::FeedTrouble;
use fetch::{VisitPhase, VisitPhaseCell, schedule::PlannedVisit};
use news::{
    Cursor, HubSubscription, Pause, PushStatus, Quiet, Source, SourceId, SourceState, SourceStatus,
    Timestamp, VisitStatus, WebSubState,
};
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use super::activity::{Activity, SourceHealth};
use crate::{queue::wait_reason::WaitStatus, visit::redirects::url_hash, websub::subscription::keep_newer};

/// The part of an entry that diagnostics count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceSnapshot {
    pub(crate) activity: Activity,
    pub(crate) health: SourceHealth,
    /// What the visit waits for, if it is fetching.
    pub(crate) phase: Option<VisitPhase>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) next_visit: Option<Timestamp>,
    pub(crate) is_flooding: bool,
    pub(crate) is_quiet: bool,
    /// `None` if no visit has ended since the start.
    pub(crate) ended: Option<EndedVisit>,
    /// The newest visit that ended, and the newest that succeeded, also before the start.
    pub(crate) last_visit: Option<Timestamp>,
    pub(crate) last_success: Option<Timestamp>,
    /// Whether it has failed for [`FAILING_LONG`] or more, if it fails.
    pub(crate) is_failing_long: bool,
    /// The visit waits because all slots are in use.
    pub(crate) waits_for_slot: bool,
}

/// How a visit of this process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndedVisit {
    /// `None` if it succeeded.
    pub(crate) trouble: Option<FeedTrouble>,
    /// How long it waited for the server: for the connection and for the answer, not for the lookup of the name.
    pub(crate) waited_ms: u32,
}

/// A source without a success for so long fails for reasons of its own.
const FAILING_LONG: Duration = Duration::from_secs(7 * 24 * 3600);

/// One source and its state.
#[derive(Debug)]
pub(crate) struct SourceEntry {
    pub(crate) source: Arc<Source>,
    /// What the visit waits for, while the source is fetching.
    pub(crate) phase: VisitPhaseCell,
    is_leaving: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    activity: Activity,
    since: Option<Timestamp>,
    /// Why the visit waits, while it does.
    wait_status: Option<Arc<WaitStatus>>,
    state: SourceState,
    restarts: u32,
    last_event: Option<Cursor>,
    /// An operator ordered a visit without validators, and none has begun since.
    full_visit: bool,
    ended: Option<EndedVisit>,
}

impl Inner {
    fn health(&self) -> SourceHealth {
        match &self.state {
            _ if self.activity == Activity::Disabled => SourceHealth::Disabled,
            state if state.paused.is_some() => SourceHealth::Paused,
            state if state.quarantine.is_some() => SourceHealth::Quarantined,
            state if state.last_status == Some(VisitStatus::Gone) => SourceHealth::Gone,
            state if state.failures > 0 => SourceHealth::Failing,
            state if state.last_status.is_none() => SourceHealth::New,
            _ => SourceHealth::Healthy,
        }
    }

    /// Without a success so far, the oldest attempt counts that is remembered.
    fn is_failing_long(&self, now: Timestamp) -> bool {
        let oldest = self.state.attempts.first().map(|attempt| attempt.at);
        self.state.last_success.or(oldest).is_some_and(|since| now.since(since) >= FAILING_LONG)
    }

    fn quiet(&self) -> Option<Quiet> {
        self.state.quiet().filter(|_| self.health() == SourceHealth::Healthy)
    }
}

/// The next visit and its reason. The second look for a push may come before what the schedule says.
fn next_planned(state: &SourceState) -> (Option<Timestamp>, &str) {
    let subscription = state.websub.as_deref().and_then(|websub| websub.subscription.as_ref());
    let look = subscription.and_then(|subscription| subscription.unsettled.look);
    match look.filter(|look| state.next_visit.is_some_and(|next| *look < next)) {
        Some(look) => (Some(look), "one more look for a push"),
        None => (state.next_visit, &state.why),
    }
}

impl SourceEntry {
    pub(crate) fn new(source: Arc<Source>, state: SourceState) -> Self {
        let activity = if source.enabled { Activity::Idle } else { Activity::Disabled };
        let (phase, is_leaving) = (VisitPhaseCell::default(), AtomicBool::new(false));
        Self { source, phase, is_leaving, inner: Mutex::new(Inner { activity, state, ..Inner::default() }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every write is a single assignment, so a panic while it is held leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another daemon visits the source from now on: this entry goes out of the registry, and never comes back.
    pub(crate) fn set_leaving(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    /// Whether the source leaves for another daemon, or has left.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    pub(crate) fn set_activity(&self, activity: Activity, now: Timestamp) {
        let mut inner = self.inner();
        inner.activity = activity;
        inner.since = Some(now);
        inner.wait_status = None;
    }

    /// The visit is due and waits for the limiter.
    pub(crate) fn set_waiting(&self, wait_status: Arc<WaitStatus>, now: Timestamp) {
        let mut inner = self.inner();
        inner.activity = Activity::Waiting;
        inner.since = Some(now);
        inner.wait_status = Some(wait_status);
    }

    /// `None` if the entry is locked at this moment; does not copy the state.
    pub(crate) fn try_snapshot(&self, now: Timestamp) -> Option<SourceSnapshot> {
        let inner = self.inner.try_lock().ok()?;
        let is_resting = inner.activity == Activity::Idle && inner.state.paused.is_some();
        let activity = if is_resting { Activity::Paused } else { inner.activity };
        let health = inner.health();
        Some(SourceSnapshot {
            activity,
            health,
            phase: (activity == Activity::Fetching).then(|| self.phase.get()),
            since: inner.since,
            next_visit: inner.state.next_visit,
            is_flooding: inner.state.flooding.is_some(),
            is_quiet: inner.quiet().is_some(),
            ended: inner.ended,
            last_visit: inner.state.last_visit,
            last_success: inner.state.last_success,
            is_failing_long: inner.is_failing_long(now),
            waits_for_slot: inner.wait_status.as_ref().is_some_and(|it| it.try_is_for_slot() == Some(true)),
        })
    }

    /// Why the visit waits; `None` if it does not, or if the entry is locked at this moment.
    pub(crate) fn try_wait_reason(&self) -> Option<String> {
        let wait_status = self.inner.try_lock().ok()?.wait_status.clone()?;
        wait_status.text()
    }

    pub(crate) fn activity(&self) -> Activity {
        self.inner().activity
    }

    pub(crate) fn state(&self) -> SourceState {
        self.inner().state.clone()
    }

    /// When the next visit is due; does not copy the state.
    pub(crate) fn next_visit(&self) -> Option<Timestamp> {
        self.inner().state.next_visit
    }

    /// Takes the state after a visit. The pause and the subscription stay: those in the entry may be newer.
    pub(crate) fn set_state(&self, mut state: SourceState) {
        let mut inner = self.inner();
        keep_newer(inner.state.websub.take(), &mut state.websub);
        let paused = inner.state.paused.take();
        inner.state = SourceState { paused, ..state };
    }

    /// How the last visit ended.
    pub(crate) fn set_ended(&self, ended: EndedVisit) {
        self.inner().ended = Some(ended);
    }

    pub(crate) fn pause(&self) -> Option<Pause> {
        self.inner().state.paused.clone()
    }

    pub(crate) fn set_pause(&self, pause: Pause) {
        self.inner().state.paused = Some(pause);
    }

    /// A visit that was due meanwhile is due now, and does not count as late.
    pub(crate) fn end_pause(&self, now: Timestamp) {
        let mut inner = self.inner();
        inner.state.paused = None;
        if inner.state.next_visit.is_some_and(|next| next < now) {
            inner.state.next_visit = Some(now);
            inner.state.why = "due since the pause".to_owned();
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.inner().state.paused.is_some()
    }

    /// Reschedules the next visit; `why` replaces the reason if there is one.
    pub(crate) fn set_next_visit(&self, next: Timestamp, why: Option<&str>) {
        let mut inner = self.inner();
        inner.state.next_visit = Some(next);
        if let Some(why) = why {
            why.clone_into(&mut inner.state.why);
        }
    }

    /// The last and the next visit, while the source is idle and not paused.
    pub(crate) fn planned_visit(&self) -> Option<PlannedVisit> {
        let inner = self.inner();
        let next = inner
            .state
            .next_visit
            .filter(|_| inner.activity == Activity::Idle && inner.state.paused.is_none())?;
        let is_gone = fetch::schedule::is_confirmed_gone(inner.state.gone_in_a_row);
        Some(PlannedVisit { last: inner.state.last_visit, next, is_gone })
    }

    pub(crate) fn quarantine(&self) -> Option<String> {
        self.inner().state.quarantine.clone()
    }

    /// For a visit that an operator ordered: the document gets another chance.
    pub(crate) fn lift_quarantine(&self) {
        self.inner().state.quarantine = None;
    }

    /// The next visit is sent no validators, and its document is read even if it has the same bytes. Nothing happens to a
    /// source that takes no orders.
    pub(crate) fn order_full_visit(&self) {
        let mut inner = self.inner();
        inner.full_visit = self.source.enabled && inner.state.paused.is_none();
    }

    pub(crate) fn is_full_visit_ordered(&self) -> bool {
        self.inner().full_visit
    }

    /// Whether the visit that begins now is ordered to be a full one; the next one is not.
    pub(crate) fn take_full_visit(&self) -> bool {
        std::mem::take(&mut self.inner().full_visit)
    }

    /// See [`SourceStatus::is_failing`].
    pub(crate) fn is_failing(&self) -> bool {
        self.inner().state.is_failing()
    }

    pub(crate) fn has_websub(&self) -> bool {
        self.inner().state.websub.is_some()
    }

    pub(crate) fn websub(&self) -> Option<Box<WebSubState>> {
        self.inner().state.websub.clone()
    }

    pub(crate) fn set_subscription(&self, subscription: Option<HubSubscription>) {
        if let Some(websub) = &mut self.inner().state.websub {
            websub.subscription = subscription;
        }
    }

    /// Changes the subscription, if there is one.
    pub(crate) fn update_subscription<R>(&self, change: impl FnOnce(&mut HubSubscription) -> R) -> Option<R> {
        self.inner().state.websub.as_mut()?.subscription.as_mut().map(change)
    }

    pub(crate) fn set_last_event(&self, event: Cursor) {
        self.inner().last_event = Some(event);
    }

    /// Counts a death of the actor; returns how many there were.
    pub(crate) fn count_restart(&self) -> u32 {
        let mut inner = self.inner();
        inner.restarts += 1;
        inner.restarts
    }

    /// The status including the last visits.
    pub(crate) fn full_status(&self) -> SourceStatus {
        let attempts = self.inner().state.attempts.clone();
        SourceStatus { attempts, ..self.status() }
    }

    pub(crate) fn status(&self) -> SourceStatus {
        let (source, inner) = (&self.source, self.inner());
        let state = &inner.state;
        let (activity, next_visit, why) = match &state.paused {
            _ if !source.enabled => (inner.activity, None, "disabled in the catalogue".to_owned()),
            Some(pause) => {
                let activity =
                    if inner.activity == Activity::Idle { Activity::Paused } else { inner.activity };
                let next = pause.until.map(|until| state.next_visit.map_or(until, |next| next.max(until)));
                (activity, next, pause.why())
            }
            None => {
                let (next, why) = next_planned(state);
                (inner.activity, next, why.to_owned())
            }
        };
        let adopted = state.moves.adopted.as_ref().filter(|_| state.moves.home == url_hash(&source.url));
        SourceStatus {
            id: source.id.clone(),
            name: source.name.clone(),
            url: source.url.to_string(),
            category: source.category.clone(),
            country: source.country.clone(),
            language: source.language.clone(),
            tags: source.tags.clone(),
            enabled: source.enabled,
            access: source.access.keys().into_iter().map(str::to_owned).collect(),
            moved_to: adopted.map(|adopted| adopted.to.to_string()),
            moved_since: adopted.map(|adopted| adopted.since),
            activity: activity.as_str().to_owned(),
            activity_since: inner.since,
            waiting_for: inner.wait_status.as_ref().and_then(|wait_status| wait_status.text()),
            quarantine: state.quarantine.clone(),
            last_status: state.last_status,
            last_code: state.last_code,
            last_visit: state.last_visit,
            last_took_ms: state.last_took_ms,
            last_body_bytes: state.attempts.last().map(|attempt| attempt.body_bytes.into()),
            last_success: state.last_success,
            last_error: state.last_error.clone(),
            consecutive_failures: state.failures,
            next_visit,
            why,
            warnings: warnings(state),
            restarts: inner.restarts,
            counts: state.counts,
            last_event: inner.last_event.clone(),
            paused: state.paused.clone(),
            push: state.websub.as_deref().map(PushStatus::from).unwrap_or_default(),
            flooding: state.flooding.as_deref().map(|state| state.flooding),
            quiet: inner.quiet(),
            list: source.list.as_ref().map(|list| list.id.clone()),
            attempts: Vec::new(),
        }
    }
}

/// A source whose status is read when it is serialised: many of them are never in memory at once.
pub(crate) struct StatusOf(pub(crate) Arc<SourceEntry>);

impl Serialize for StatusOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.status().serialize(serializer)
    }
}

/// What is wrong with the last document, and with the server.
fn warnings(state: &SourceState) -> Vec<String> {
    let expired = state.certificate_expired.as_deref().map(|expired| {
        format!(
            "the certificate of the server expired at {expired}, and is trusted only because it is in tls_ca_file; ask its \
             operator to renew it, and put the new one there"
        )
    });
    state.warnings.iter().cloned().chain(expired).collect()
}

/// All sources, by id. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceRegistry {
    entries: Arc<RwLock<SourceEntries>>,
    start: Arc<watch::Sender<StartPhase>>,
}

type SourceEntries = BTreeMap<SourceId, Arc<SourceEntry>>;

/// How far the start of the process is with the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StartPhase {
    /// The list of sources is being read.
    #[default]
    Reading,
    /// So many sources are being started.
    Starting(usize),
    /// All of them are here.
    Complete,
}

impl SourceRegistry {
    fn read(&self) -> RwLockReadGuard<'_, SourceEntries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, SourceEntries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, entry: Arc<SourceEntry>) {
        self.write().insert(entry.source.id.clone(), entry);
    }

    pub(crate) fn remove(&self, id: &SourceId) {
        self.write().remove(id);
    }

    /// The first catalogue has so many sources, which come now.
    pub(crate) fn expect(&self, sources: usize) {
        self.start.send_replace(StartPhase::Starting(sources));
    }

    /// The sources of the first catalogue are here.
    pub(crate) fn set_complete(&self) {
        self.start.send_replace(StartPhase::Complete);
    }

    /// Completes when the sources of the first catalogue are here.
    ///
    /// # Errors
    /// How many of them are, if it takes longer than this.
    pub(crate) async fn complete(&self, within: Duration) -> Result<(), String> {
        let mut start = self.start.subscribe();
        let complete = start.wait_for(|start| *start == StartPhase::Complete);
        // The sender is in `self`, so that it is there until then.
        if matches!(tokio::time::timeout(within, complete).await, Ok(Ok(_))) {
            return Ok(());
        }
        let loaded = match *self.start.borrow() {
            StartPhase::Reading => "its list of sources is being read".to_owned(),
            StartPhase::Starting(sources) => format!("{} of {sources} sources are loaded", self.read().len()),
            StartPhase::Complete => return Ok(()),
        };
        Err(format!("newswire-ingestd is still starting, {loaded}; try again in a moment"))
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<SourceEntry>> {
        self.read().get(id).cloned()
    }

    /// Every source; `None` if the registry is locked at this moment.
    pub(crate) fn try_entries(&self) -> Option<Vec<Arc<SourceEntry>>> {
        Some(self.entries.try_read().ok()?.values().cloned().collect())
    }

    #[cfg(test)]
    pub(crate) fn while_locked(&self, then: impl FnOnce()) {
        let _held = self.write();
        then();
    }

    /// Every source. A walk over them takes too long for an event loop.
    pub(crate) fn entries(&self) -> Vec<Arc<SourceEntry>> {
        self.read().values().cloned().collect()
    }

    /// The next `limit` sources after this id, ordered by id; the lock is held for these only.
    pub(crate) fn entries_after(&self, id: Option<&str>, limit: usize) -> Vec<Arc<SourceEntry>> {
        let after = (id.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        self.read().range::<str, _>(after).take(limit).map(|(_, entry)| Arc::clone(entry)).collect()
    }

    /// How many idle sources should have been visited before `now`.
    pub(crate) fn overdue(&self, now: Timestamp) -> usize {
        let is_late = |entry: &SourceEntry| entry.next_visit().is_some_and(|next| next < now);
        let is_idle = |entry: &SourceEntry| entry.activity() == Activity::Idle && !entry.is_paused();
        self.entries().iter().filter(|entry| is_idle(entry) && is_late(entry)).count()
    }
}

#[cfg(test)]
mod tests {
    use news::FeedUrl;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn until_the_first_catalogue_is_there_it_is_waited_for_and_then_said_how_much_is() {
        let registry = SourceRegistry::default();
        let error = registry.complete(WITHIN).await.unwrap_err();
        assert!(error.contains("its list of sources is being read"), "{error}");
        registry.expect(3);
        let url = FeedUrl::try_new("https://example.org/").unwrap();
        let source = Source::new(SourceId::try_new("a").unwrap(), url);
        registry.insert(Arc::new(SourceEntry::new(Arc::new(source), SourceState::default())));
        let error = registry.complete(WITHIN).await.unwrap_err();
        assert!(error.contains("still starting, 1 of 3 sources are loaded"), "{error}");
        let (waited, ()) = tokio::join!(registry.complete(WITHIN), async {
            tokio::time::sleep(WITHIN / 2).await;
            registry.set_complete();
        });
        assert_eq!(waited, Ok(()));
        assert_eq!(registry.complete(Duration::ZERO).await, Ok(()));
    }
}
