//! The sources and their health, as the daemon last reported them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
};

use news::{SourceId, SourceStatus};

/// The status of every source, by id.
#[derive(Debug, Default)]
pub(crate) struct SourceDirectory(RwLock<BTreeMap<SourceId, Arc<SourceStatus>>>);

impl SourceDirectory {
    /// Replaces all of them.
    pub(crate) fn replace(&self, sources: Vec<SourceStatus>) {
        let sources = sources.into_iter().map(|s| (s.id.clone(), Arc::new(s))).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    /// Inserts one, or replaces it.
    pub(crate) fn insert(&self, source: SourceStatus) {
        let mut sources = self.0.write().unwrap_or_else(PoisonError::into_inner);
        sources.insert(source.id.clone(), Arc::new(source));
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<SourceStatus>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The categories of these sources, each once. An unknown source has the empty category, which no token grants.
    pub(crate) fn categories(&self, ids: &[String]) -> Arc<[String]> {
        let sources = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let category =
            |id: &String| sources.get(id.as_str()).map_or_else(String::new, |source| source.category.clone());
        let categories: BTreeSet<_> = ids.iter().map(category).collect();
        categories.into_iter().collect()
    }

    /// All of them, ordered by id.
    pub(crate) fn all(&self) -> Vec<Arc<SourceStatus>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
