//! What every source is doing, readable from any thread at any time, also while the actors' thread is stuck.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use news::{Cursor, Source, SourceId, SourceState, SourceStatus, Timestamp};

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
    /// Not visited.
    Disabled,
}

impl Activity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Parsing => "parsing",
            Self::Recording => "recording",
            Self::Down => "down",
            Self::Disabled => "disabled",
        }
    }
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
    state: SourceState,
    restarts: u32,
    last_event: Option<Cursor>,
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
    }

    pub(crate) fn activity(&self) -> Activity {
        self.inner().activity
    }

    pub(crate) fn state(&self) -> SourceState {
        self.inner().state.clone()
    }

    pub(crate) fn set_state(&self, state: SourceState) {
        self.inner().state = state;
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

    pub(crate) fn status(&self) -> SourceStatus {
        let (source, inner) = (&self.source, self.inner());
        let state = &inner.state;
        SourceStatus {
            id: source.id.clone(),
            name: source.name.clone(),
            url: source.url.to_string(),
            category: source.category.clone(),
            country: source.country.clone(),
            language: source.language.clone(),
            tags: source.tags.clone(),
            enabled: source.enabled,
            activity: inner.activity.as_str().to_owned(),
            activity_since: inner.since,
            last_status: state.last_status,
            last_code: state.last_code,
            last_visit: state.last_visit,
            last_took_ms: state.last_took_ms,
            last_success: state.last_success,
            last_error: state.last_error.clone(),
            consecutive_failures: state.failures,
            next_visit: state.next_visit.filter(|_| source.enabled),
            why: if source.enabled { state.why.clone() } else { "disabled in the catalogue".to_owned() },
            warnings: state.warnings.clone(),
            restarts: inner.restarts,
            counts: state.counts,
            last_event: inner.last_event.clone(),
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

    /// Every source, by id.
    pub(crate) fn plates(&self) -> Vec<Arc<Plate>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
