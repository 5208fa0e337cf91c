//! The sources and their health, as the daemon last reported them. Each is rendered once, when it is received; its
//! lists are made of these bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use news::{SourceId, SourceInFull, SourceStatus};
use serde::Serialize;

/// The status of every source, by id.
#[derive(Debug)]
pub(crate) struct SourceDirectory {
    inner: RwLock<Directory>,
    /// Differs between processes, so that a version means one state of one directory.
    life: u64,
}

/// A source, as clients get it.
#[derive(Debug)]
pub(crate) struct RenderedSource {
    pub(crate) id: SourceId,
    pub(crate) category: Box<str>,
    /// [`SourceInFull`] as JSON.
    full: Bytes,
    /// How much of it is the status, without the last brace; then come the last visits.
    status_len: usize,
}

/// The sources of a category.
#[derive(Clone, Debug)]
pub(crate) struct CategoryEntry {
    pub(crate) category: Arc<str>,
    sources: u64,
    /// `{"category":…,"sources":…` without the last brace.
    pub(crate) json: Bytes,
}

/// A whole list of sources, to replace the one before.
#[derive(Debug, Default)]
pub(crate) struct RenderedSourceList(Directory);

#[derive(Debug, Default)]
struct Directory {
    sources: BTreeMap<SourceId, Arc<RenderedSource>>,
    categories: BTreeMap<Arc<str>, CategoryEntry>,
    /// Counts changes of the sources, and of the categories.
    version: u64,
    categories_version: u64,
    /// Whether a list was received: then what is missing does not exist.
    is_listed: bool,
    /// What was inserted since a list was requested: it may be newer than the list.
    recent: Option<BTreeMap<SourceId, Arc<RenderedSource>>>,
}

impl Default for SourceDirectory {
    fn default() -> Self {
        Self { inner: RwLock::default(), life: fastrand::u64(..) }
    }
}

impl RenderedSource {
    fn render(source: SourceStatus) -> Self {
        let (id, category) = (source.id.clone(), source.category.as_str().into());
        let full = json(&SourceInFull::from(source.clone()));
        let status_len = json(&SourceStatus { attempts: Vec::new(), ..source }).len() - 1;
        Self { id, category, full, status_len }
    }

    /// The source and its status without the last visits, as JSON without the last brace.
    pub(crate) fn status(&self) -> Bytes {
        self.full.slice(..self.status_len)
    }

    /// The source, its status and its last visits, as JSON.
    pub(crate) fn full(&self) -> Bytes {
        self.full.clone()
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("our own types have a JSON form").into()
}

impl CategoryEntry {
    fn new(category: Arc<str>, sources: u64) -> Self {
        let json = json(&serde_json::json!({ "category": &*category, "sources": sources }));
        Self { json: json.slice(..json.len() - 1), category, sources }
    }
}

impl RenderedSourceList {
    /// Renders a list: milliseconds for a thousand sources.
    #[cfg(test)]
    pub(crate) fn new(sources: Vec<SourceStatus>) -> Self {
        Self::with_kept(sources, Vec::new())
    }

    /// The same, and others that stay as they are.
    pub(crate) fn with_kept(sources: Vec<SourceStatus>, kept: Vec<Arc<RenderedSource>>) -> Self {
        let sources = sources.into_iter().map(|source| Arc::new(RenderedSource::render(source)));
        let sources: BTreeMap<_, _> = sources.chain(kept).map(|source| (source.id.clone(), source)).collect();
        let mut counts = BTreeMap::<&str, u64>::new();
        for source in sources.values() {
            *counts.entry(&source.category).or_default() += 1;
        }
        let categories = counts.into_iter().map(|(category, sources)| {
            let category: Arc<str> = category.into();
            (Arc::clone(&category), CategoryEntry::new(category, sources))
        });
        let categories = categories.collect();
        Self(Directory { sources, categories, ..Directory::default() })
    }
}

impl Directory {
    fn insert(&mut self, source: Arc<RenderedSource>) {
        self.version += 1;
        let category = source.category.clone();
        let before = self.sources.insert(source.id.clone(), source);
        if before.as_ref().is_some_and(|before| before.category == category) {
            return;
        }
        self.categories_version += 1;
        let sources = self.categories.get(&*category).map_or(0, |entry| entry.sources);
        let name: Arc<str> = category.into();
        self.categories.insert(Arc::clone(&name), CategoryEntry::new(name, sources + 1));
        if let Some(before) = before {
            self.remove_from(&before.category);
        }
    }

    fn remove_from(&mut self, category: &str) {
        let Some((name, entry)) = self.categories.get_key_value(category) else { return };
        let (name, sources) = (Arc::clone(name), entry.sources - 1);
        match sources {
            0 => self.categories.remove(category),
            _ => self.categories.insert(Arc::clone(&name), CategoryEntry::new(name, sources)),
        };
    }
}

impl SourceDirectory {
    fn read(&self) -> RwLockReadGuard<'_, Directory> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Directory> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list is requested now: what is inserted until [`SourceDirectory::replace`] may be newer than the list.
    pub(crate) fn expect_list(&self) {
        self.write().recent = Some(BTreeMap::new());
    }

    /// Replaces all of them. What was inserted since the list was requested stays, unless the list does not have it.
    pub(crate) fn replace(&self, RenderedSourceList(mut next): RenderedSourceList) {
        let mut inner = self.write();
        for (id, source) in inner.recent.take().unwrap_or_default() {
            if next.sources.contains_key(&id) {
                next.insert(source);
            }
        }
        next.is_listed = true;
        next.version = inner.version + 1;
        next.categories_version = inner.categories_version + 1;
        let before = std::mem::replace(&mut *inner, next);
        // Freed after the lock is released.
        drop(inner);
        drop(before);
    }

    /// Whether a list was ever received.
    pub(crate) fn is_listed(&self) -> bool {
        self.read().is_listed
    }

    /// Inserts one, or replaces it.
    pub(crate) fn insert(&self, source: SourceStatus) {
        let source = Arc::new(RenderedSource::render(source));
        let mut inner = self.write();
        if let Some(recent) = &mut inner.recent {
            recent.insert(source.id.clone(), Arc::clone(&source));
        }
        inner.insert(source);
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<RenderedSource>> {
        self.read().sources.get(id).cloned()
    }

    /// The categories of these sources, each once. An unknown source has the empty category, which no token grants.
    pub(crate) fn categories(&self, ids: &[String]) -> Arc<[String]> {
        let inner = self.read();
        let category =
            |id: &String| inner.sources.get(id.as_str()).map_or_else(String::new, |s| s.category.to_string());
        let categories: BTreeSet<_> = ids.iter().map(category).collect();
        categories.into_iter().collect()
    }

    /// The next `limit` sources after this id, ordered by id; the lock is held for these only.
    pub(crate) fn sources_after(&self, id: Option<&str>, limit: usize) -> Vec<Arc<RenderedSource>> {
        let inner = self.read();
        inner.sources.range::<str, _>(after(id)).take(limit).map(|(_, source)| Arc::clone(source)).collect()
    }

    /// The next `limit` categories after this one, ordered by name.
    pub(crate) fn categories_after(&self, category: Option<&str>, limit: usize) -> Vec<CategoryEntry> {
        let inner = self.read();
        inner
            .categories
            .range::<str, _>(after(category))
            .take(limit)
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// Changes with every change of a source.
    pub(crate) fn version(&self) -> String {
        format!("{:x}-{}", self.life, self.read().version)
    }

    /// Changes with every change of the categories.
    pub(crate) fn categories_version(&self) -> String {
        format!("{:x}-{}", self.life, self.read().categories_version)
    }
}

fn after(key: Option<&str>) -> (Bound<&str>, Bound<&str>) {
    (key.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn status(id: &str, category: &str, visits: u64) -> SourceStatus {
        let status = serde_json::json!({
            "id": id, "name": id, "url": "", "category": category, "country": null, "language": null, "tags": [],
            "enabled": true, "activity": "idle", "activity_since": null, "last_status": "unchanged",
            "last_code": 304, "last_visit": null, "last_took_ms": 1, "last_success": null, "last_error": null,
            "consecutive_failures": 0, "next_visit": null, "why": "", "warnings": [], "restarts": 0,
            "counts": {"visits": visits}, "last_event": null, "push": {},
            "attempts": [[0, "unchanged", 304, 1, 0, 0, 0, null]],
        });
        serde_json::from_value(status).unwrap()
    }

    /// Visits by id, and sources by category, as the lists show them.
    fn shown(directory: &SourceDirectory) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
        let read = |bytes: Bytes| serde_json::from_slice::<Value>(&[&bytes[..], b"}"].concat()).unwrap();
        let sources = directory.sources_after(None, usize::MAX).into_iter().map(|source| {
            let source = read(source.status());
            (source["id"].as_str().unwrap().to_owned(), source["counts"]["visits"].as_u64().unwrap())
        });
        let categories = directory.categories_after(None, usize::MAX).into_iter().map(|entry| {
            let category = read(entry.json);
            (category["category"].as_str().unwrap().to_owned(), category["sources"].as_u64().unwrap())
        });
        (sources.collect(), categories.collect())
    }

    #[test]
    fn a_list_has_no_visits_and_a_single_source_has_them() {
        let directory = SourceDirectory::default();
        directory.insert(status("a", "world", 3));
        let source = directory.get("a").unwrap();
        let short: Value = serde_json::from_slice(&[&source.status()[..], b"}"].concat()).unwrap();
        let mut full: Value = serde_json::from_slice(&source.full()).unwrap();
        assert!(!short.as_object().unwrap().contains_key("attempts"));
        let visits = full.as_object_mut().unwrap().remove("attempts").unwrap();
        assert_eq!((visits.as_array().unwrap().len(), full), (1, short));
    }

    #[test]
    fn a_visit_that_ends_while_a_list_is_read_is_not_lost() {
        let directory = SourceDirectory::default();
        directory.insert(status("a", "world", 1));
        directory.insert(status("gone", "world", 1));
        directory.expect_list();
        let list = RenderedSourceList::new(vec![status("a", "world", 1), status("b", "sport", 1)]);
        directory.insert(status("a", "science", 2));
        directory.insert(status("gone", "world", 2));
        directory.replace(list);
        let visits = [("a", 2), ("b", 1)].map(|(id, n)| (id.to_owned(), n)).into();
        let categories = [("science", 1), ("sport", 1)].map(|(id, n)| (id.to_owned(), n)).into();
        assert_eq!(shown(&directory), (visits, categories));
    }

    #[test]
    fn the_version_changes_with_the_sources_and_that_of_the_categories_only_with_them() {
        let directory = SourceDirectory::default();
        let versions = || (directory.version(), directory.categories_version());
        directory.insert(status("a", "world", 1));
        let first = versions();
        directory.insert(status("a", "world", 2));
        let visited = versions();
        assert!(visited.0 != first.0 && visited.1 == first.1);
        directory.insert(status("a", "sport", 2));
        assert_ne!(versions().1, visited.1);
        assert_ne!(SourceDirectory::default().version(), SourceDirectory::default().version());
    }

    proptest! {
        #[test]
        fn the_categories_are_those_of_the_sources_whatever_changes(
            changes in prop::collection::vec((0..6u8, 0..4u8, any::<bool>()), 0..40),
        ) {
            let directory = SourceDirectory::default();
            let mut model = BTreeMap::new();
            for (n, (id, category, is_list)) in (0..).zip(changes) {
                let (id, category) = (id.to_string(), category.to_string());
                if is_list {
                    model.clear();
                    directory.replace(RenderedSourceList::new(vec![status(&id, &category, n)]));
                } else {
                    directory.insert(status(&id, &category, n));
                }
                model.insert(id, (category, n));
            }
            let visits = model.iter().map(|(id, (_, n))| (id.clone(), *n)).collect();
            let mut categories = BTreeMap::<String, u64>::new();
            for (category, _) in model.values() {
                *categories.entry(category.clone()).or_default() += 1;
            }
            prop_assert_eq!(shown(&directory), (visits, categories));
        }
    }
}
