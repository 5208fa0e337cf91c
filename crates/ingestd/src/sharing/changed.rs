//! The sources of which the store has something newer than their checkpoint in NATS.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use news::SourceId;
use tokio::sync::Notify;

/// The sources whose state has changed. Cheap to clone; all clones are one set. It is never larger than the list of sources.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangedSources(Arc<Changed>);

#[derive(Debug, Default)]
struct Changed {
    ids: Mutex<BTreeSet<SourceId>>,
    added: Notify,
}

impl ChangedSources {
    /// From any thread; takes a lock for a few instructions.
    pub(crate) fn add(&self, ids: impl IntoIterator<Item = SourceId>) {
        self.lock().extend(ids);
        self.0.added.notify_one();
    }

    /// Takes out the first ones.
    pub(super) fn take(&self, count: usize) -> Vec<SourceId> {
        let mut ids = self.lock();
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(id) = ids.pop_first()
        {
            taken.push(id);
        }
        taken
    }

    /// Completes when there may be some.
    pub(super) async fn added(&self) {
        if self.lock().is_empty() {
            self.0.added.notified().await;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<SourceId>> {
        self.0.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
