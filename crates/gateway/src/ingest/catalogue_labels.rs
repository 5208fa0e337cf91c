//! Which categories, sources, tags and countries the catalogue has, to tell a client about one that does not exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock},
};

use news::SourceStatus;

use crate::auth::scope::CategoryScope;

/// What a value of a filter names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LabelKind {
    Category,
    Source,
    Tag,
    Country,
}

/// The labels of the catalogue; `None` until it is known.
#[derive(Debug, Default)]
pub(crate) struct CatalogueLabels(RwLock<Option<LabelIndex>>);

/// The categories of the sources that have a label, by kind and label in lower case.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex(BTreeMap<(LabelKind, Box<str>), BTreeSet<Box<str>>>);

impl CatalogueLabels {
    /// Replaces all of them.
    pub(crate) fn replace(&self, index: LabelIndex) {
        let before = self.0.write().unwrap_or_else(PoisonError::into_inner).replace(index);
        // Freed after the lock is released.
        drop(before);
    }

    /// Adds those of a source that was visited.
    pub(crate) fn add(&self, source: &SourceStatus) {
        let is_complete = |index: &LabelIndex| index.has_all(source);
        if self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_none_or(is_complete) {
            return;
        }
        if let Some(index) = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner) {
            index.add(source);
        }
    }

    /// Whether a source that a reader of this scope may see has the label, in upper or lower case; true while the
    /// catalogue is not known.
    pub(crate) fn has(&self, kind: LabelKind, label: &str, scope: Option<&CategoryScope>) -> bool {
        let index = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(LabelIndex(index)) = &*index else { return true };
        let categories = index.get(&(kind, label.to_lowercase().into()));
        categories.is_some_and(|categories| {
            scope.is_none_or(|scope| categories.iter().any(|category| scope.allows(category)))
        })
    }
}

impl LabelIndex {
    /// The labels of all sources.
    pub(crate) fn new(sources: &[SourceStatus]) -> Self {
        let mut index = Self::default();
        sources.iter().for_each(|source| index.add(source));
        index
    }

    fn labels(source: &SourceStatus) -> impl Iterator<Item = (LabelKind, Box<str>)> + '_ {
        let category = (LabelKind::Category, source.category.as_str());
        let id = (LabelKind::Source, source.id.as_str());
        let tags = source.tags.iter().map(|tag| (LabelKind::Tag, tag.as_str()));
        let country = source.country.as_deref().map(|country| (LabelKind::Country, country));
        let all = [category, id].into_iter().chain(tags).chain(country);
        all.map(|(kind, label)| (kind, label.to_lowercase().into()))
    }

    /// Adds those of a source.
    pub(crate) fn add(&mut self, source: &SourceStatus) {
        for label in Self::labels(source) {
            self.0.entry(label).or_default().insert(source.category.as_str().into());
        }
    }

    fn has_all(&self, source: &SourceStatus) -> bool {
        Self::labels(source).all(|label| {
            self.0.get(&label).is_some_and(|categories| categories.contains(source.category.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source(id: &str, category: &str, tag: &str, country: Option<&str>) -> SourceStatus {
        let status = json!({
            "id": id, "name": "", "url": "", "category": category, "country": country, "tags": [tag],
            "enabled": true, "activity": "idle", "consecutive_failures": 0, "why": "", "warnings": [], "restarts": 0,
            "counts": {},
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_label_exists_if_a_source_has_it_that_the_reader_may_see() {
        let labels = CatalogueLabels::default();
        assert!(labels.has(LabelKind::Category, "whatever", None), "nothing is known yet");
        labels.add(&source("a", "x", "x", None));
        assert!(labels.has(LabelKind::Tag, "whatever", None), "one visit does not make it known");
        let sources = [source("bbc", "World", "Top", Some("GB")), source("faz", "sport", "top", None)];
        labels.replace(LabelIndex::new(&sources));
        for (kind, label) in [
            (LabelKind::Category, "wORLD"),
            (LabelKind::Source, "BBC"),
            (LabelKind::Tag, "top"),
            (LabelKind::Country, "gb"),
        ] {
            assert!(labels.has(kind, label, None), "{label}");
        }
        assert!(!labels.has(LabelKind::Category, "bbc", None) && !labels.has(LabelKind::Country, "", None));
        let scope = CategoryScope::new(["sport"]);
        let sees = |kind, label| labels.has(kind, label, Some(&scope));
        assert!(sees(LabelKind::Tag, "Top") && sees(LabelKind::Source, "faz"));
        assert!(!sees(LabelKind::Category, "World") && !sees(LabelKind::Source, "bbc"));
        assert!(!labels.has(LabelKind::Source, "new", None));
        labels.add(&source("new", "sport", "fresh", None));
        assert!(sees(LabelKind::Source, "new") && sees(LabelKind::Tag, "fresh"));
        labels.replace(LabelIndex::default());
        assert!(!labels.has(LabelKind::Source, "new", None));
    }
}
