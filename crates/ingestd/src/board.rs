//! What every source is doing, readable from any thread at any time, also while the actors' thread is stuck.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use fetch::schedule::PlannedVisit;
use news::{
    Cursor, HubSubscription, Pause, PushStatus, Source, SourceId, SourceState, SourceStatus, Timestamp,
    VisitStatus, WebSubState,
};

use crate::{gates::Sign, websub};

use crate::moving::url_hash;

/// What a source's actor does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Waits for its next visit.
    #[default]
    Idle,
    /// Due, but its host or the whole process has enough visits under way.
    Waiting,
    /// Talks to the server.
    Fetching,
    /// Its document is being read.
    Parsing,
    /// Its items are on their way into the log.
    Recording,
    /// Its actor died and is going to be rebuilt.
    Down,
    /// Not visited until an order or a date ends its pause.
    Paused,
    /// Not visited.
    Disabled,
}

impl Activity {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 8] = [
        Self::Idle,
        Self::Waiting,
        Self::Fetching,
        Self::Parsing,
        Self::Recording,
        Self::Down,
        Self::Paused,
        Self::Disabled,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Parsing => "parsing",
            Self::Recording => "recording",
            Self::Down => "down",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

/// How a source fares, by its last visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Not visited yet.
    New,
    /// The last visit brought a feed, or the word that nothing has changed.
    Healthy,
    /// The last visits brought none.
    Failing,
    /// Its documents are not read, because one took too long or was read at three deaths.
    Quarantined,
    /// The server says that the feed is no more.
    Gone,
    /// Paused by an operator.
    Paused,
    /// Disabled in the catalogue.
    Disabled,
}

impl Health {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 7] = [
        Self::New,
        Self::Healthy,
        Self::Failing,
        Self::Quarantined,
        Self::Gone,
        Self::Paused,
        Self::Disabled,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Quarantined => "quarantined",
            Self::Gone => "gone",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

/// What a source is doing, as far as it can be told without waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    pub(crate) activity: Activity,
    pub(crate) health: Health,
    pub(crate) since: Option<Timestamp>,
    pub(crate) next_visit: Option<Timestamp>,
}

/// One source's place on the board.
#[derive(Debug)]
pub(crate) struct Plate {
    pub(crate) source: Arc<Source>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    activity: Activity,
    since: Option<Timestamp>,
    /// What it waits for, while it waits.
    sign: Option<Arc<Sign>>,
    state: SourceState,
    restarts: u32,
    last_event: Option<Cursor>,
}

impl Inner {
    fn health(&self) -> Health {
        match &self.state {
            _ if self.activity == Activity::Disabled => Health::Disabled,
            state if state.paused.is_some() => Health::Paused,
            state if state.quarantine.is_some() => Health::Quarantined,
            state if state.last_status == Some(VisitStatus::Gone) => Health::Gone,
            state if state.failures > 0 => Health::Failing,
            state if state.last_status.is_none() => Health::New,
            _ => Health::Healthy,
        }
    }
}

impl Plate {
    pub(crate) fn new(source: Arc<Source>, state: SourceState) -> Self {
        let activity = if source.enabled { Activity::Idle } else { Activity::Disabled };
        Self { source, inner: Mutex::new(Inner { activity, state, ..Inner::default() }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every write is a single assignment, so a panic while it is held leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_activity(&self, activity: Activity, now: Timestamp) {
        let mut inner = self.inner();
        inner.activity = activity;
        inner.since = Some(now);
        inner.sign = None;
    }

    /// The visit is due and waits for what the sign says.
    pub(crate) fn set_waiting(&self, sign: Arc<Sign>, now: Timestamp) {
        let mut inner = self.inner();
        inner.activity = Activity::Waiting;
        inner.since = Some(now);
        inner.sign = Some(sign);
    }

    /// Without waiting and without a copy of the state.
    pub(crate) fn try_glance(&self) -> Option<Glance> {
        let inner = self.inner.try_lock().ok()?;
        let rests = inner.activity == Activity::Idle && inner.state.paused.is_some();
        let activity = if rests { Activity::Paused } else { inner.activity };
        let health = inner.health();
        Some(Glance { activity, health, since: inner.since, next_visit: inner.state.next_visit })
    }

    /// What it waits for; without waiting.
    pub(crate) fn try_sign(&self) -> Option<String> {
        let sign = self.inner.try_lock().ok()?.sign.clone()?;
        sign.text()
    }

    pub(crate) fn activity(&self) -> Activity {
        self.inner().activity
    }

    pub(crate) fn state(&self) -> SourceState {
        self.inner().state.clone()
    }

    /// When the next visit is due, without a copy of everything else.
    pub(crate) fn next_visit(&self) -> Option<Timestamp> {
        self.inner().state.next_visit
    }

    /// What a visit left behind. It changes neither the pause, which may have been ordered meanwhile, nor how the source
    /// stands with its hub, which is known better here.
    pub(crate) fn set_state(&self, mut state: SourceState) {
        let mut inner = self.inner();
        websub::keep(inner.state.websub.take(), &mut state.websub);
        let paused = inner.state.paused.take();
        inner.state = SourceState { paused, ..state };
    }

    pub(crate) fn pause(&self) -> Option<Pause> {
        self.inner().state.paused.clone()
    }

    pub(crate) fn set_pause(&self, pause: Pause) {
        self.inner().state.paused = Some(pause);
    }

    /// A visit that fell due meanwhile is due now, and not late.
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

    /// Plans the next visit anew.
    pub(crate) fn plan(&self, next: Timestamp, why: Option<&str>) {
        let mut inner = self.inner();
        inner.state.next_visit = Some(next);
        if let Some(why) = why {
            why.clone_into(&mut inner.state.why);
        }
    }

    /// When it was visited last and is due next, unless something else is going on.
    pub(crate) fn planned(&self) -> Option<PlannedVisit> {
        let inner = self.inner();
        let next = inner
            .state
            .next_visit
            .filter(|_| inner.activity == Activity::Idle && inner.state.paused.is_none())?;
        Some(PlannedVisit { last: inner.state.last_visit, next })
    }

    pub(crate) fn quarantine(&self) -> Option<String> {
        self.inner().state.quarantine.clone()
    }

    /// An operator wants a visit: whatever was suspected of the document is to be seen again.
    pub(crate) fn lift_quarantine(&self) {
        self.inner().state.quarantine = None;
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
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut HubSubscription) -> R) -> Option<R> {
        self.inner().state.websub.as_mut()?.subscription.as_mut().map(change)
    }

    pub(crate) fn set_last_event(&self, event: Cursor) {
        self.inner().last_event = Some(event);
    }

    /// Counts a death and returns how many there were.
    pub(crate) fn count_restart(&self) -> u32 {
        let mut inner = self.inner();
        inner.restarts += 1;
        inner.restarts
    }

    /// With the last visits.
    pub(crate) fn status_in_full(&self) -> SourceStatus {
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
            None => (inner.activity, state.next_visit, state.why.clone()),
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
            waiting_for: inner.sign.as_ref().and_then(|sign| sign.text()),
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
            warnings: state.warnings.clone(),
            restarts: inner.restarts,
            counts: state.counts,
            last_event: inner.last_event.clone(),
            paused: state.paused.clone(),
            push: state.websub.as_deref().map(PushStatus::from).unwrap_or_default(),
            attempts: Vec::new(),
        }
    }
}

/// All sources. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<RwLock<BTreeMap<SourceId, Arc<Plate>>>>);

impl Board {
    pub(crate) fn put(&self, plate: Arc<Plate>) {
        let mut board = self.0.write().unwrap_or_else(PoisonError::into_inner);
        board.insert(plate.source.id.clone(), plate);
    }

    pub(crate) fn take_off(&self, id: &SourceId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Plate>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Every source, by id; nothing while somebody changes the board.
    pub(crate) fn try_plates(&self) -> Option<Vec<Arc<Plate>>> {
        Some(self.0.try_read().ok()?.values().cloned().collect())
    }

    #[cfg(test)]
    pub(crate) fn while_held(&self, then: impl FnOnce()) {
        let _held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        then();
    }

    /// Every source, by id.
    pub(crate) fn plates(&self) -> Vec<Arc<Plate>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
