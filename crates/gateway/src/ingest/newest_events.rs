//! The newest event of each source that this gateway has received. A daemon behind NATS knows its own ids only, which are not
//! those that clients get.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use news::{Cursor, SourceId, SourceStatus};

/// Sources whose newest event is remembered; as many as a list of sources has at most.
const SOURCES_MAX: usize = 100_000;

/// The newest events; without any while the daemon is on this machine, whose ids are those of clients.
#[derive(Debug, Default)]
pub(crate) struct NewestEvents(Mutex<Option<HashMap<SourceId, Cursor>>>);

impl NewestEvents {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<SourceId, Cursor>>> {
        // Every change under it is complete before it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, what daemons say of their newest events is replaced.
    pub(crate) fn begin(&self) {
        *self.lock() = Some(HashMap::new());
    }

    /// The ids before have another epoch.
    pub(crate) fn clear(&self) {
        if let Some(newest) = &mut *self.lock() {
            newest.clear();
        }
    }

    /// An event was received.
    pub(crate) fn note(&self, source: &SourceId, id: &Cursor) {
        if let Some(newest) = &mut *self.lock() {
            if let Some(known) = newest.get_mut(source) {
                known.clone_from(id);
            } else if newest.len() < SOURCES_MAX {
                newest.insert(source.clone(), id.clone());
            }
        }
    }

    /// Replaces what the daemon says by what was received, if anything was.
    pub(crate) fn replace_in(&self, status: &mut SourceStatus) {
        if let Some(newest) = &*self.lock() {
            status.last_event = newest.get(&status.id).cloned();
        }
    }
}
