//! Which sources an order is for: those that it names, and those that its selection describes.

use std::collections::HashSet;

use actix_web::web;
use control::{Problem, SourceSelection, orders::ORDER_SOURCES_MAX};

use crate::status::registry::SourceRegistry;

/// The sources of an order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SelectedSources {
    /// As named, and then those of the selection in the order of their ids.
    pub(super) ids: Vec<String>,
    /// Categories that no source has.
    pub(super) unknown_categories: Vec<String>,
}

impl SelectedSources {
    /// Looks through all sources, in the pool.
    ///
    /// # Errors
    /// If the order names too many sources.
    pub(super) async fn find(
        registry: &SourceRegistry,
        named: Vec<String>,
        select: Option<SourceSelection>,
    ) -> Result<Self, Problem> {
        if named.len() > ORDER_SOURCES_MAX {
            let detail = format!("too many sources; at most {ORDER_SOURCES_MAX} per request");
            return Err(Problem::new(413, "too-many-sources", detail));
        }
        let Some(select) = select else { return Ok(Self { ids: named, unknown_categories: Vec::new() }) };
        let registry = registry.clone();
        let selected = web::block(move || Self::select(&registry, named, &select)).await;
        selected.map_err(|_| Problem::new(503, "no-selection", "the sources cannot be looked through"))
    }

    fn select(registry: &SourceRegistry, named: Vec<String>, select: &SourceSelection) -> Self {
        let wanted: HashSet<_> = select.categories.iter().map(|category| category.to_lowercase()).collect();
        let (mut found, mut more) = (HashSet::new(), Vec::new());
        let listed: HashSet<_> = named.iter().map(String::as_str).collect();
        for entry in registry.entries() {
            let category = entry.source.category.to_lowercase();
            let is_wanted = wanted.is_empty() || wanted.contains(&category);
            let is_selected = is_wanted && entry.source.enabled && (!select.failing || entry.is_failing());
            if is_selected && !listed.contains(entry.source.id.as_str()) {
                more.push(entry.source.id.to_string());
            }
            found.insert(category);
        }
        let is_unknown = |written: &&String| !found.contains(&written.to_lowercase());
        let unknown_categories = select.categories.iter().filter(is_unknown).cloned().collect();
        let ids = named.into_iter().chain(more).collect();
        Self { ids, unknown_categories }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use news::{
        FeedUrl, Flooding, FloodingBound, FloodingState, Source, SourceId, SourceState, Timestamp,
        VisitStatus,
    };

    use super::*;
    use crate::status::registry::SourceEntry;

    fn registry() -> SourceRegistry {
        let registry = SourceRegistry::default();
        let gone = SourceState { last_status: Some(VisitStatus::Gone), ..SourceState::default() };
        let failed = SourceState { failures: 2, ..SourceState::default() };
        let flooding = Flooding {
            since: Timestamp::from_millis(0),
            waiting_items: 1,
            waiting_bytes: 1,
            bound: FloodingBound::Visit,
            lost_items: 0,
        };
        let flooding = Some(Box::new(FloodingState { flooding, full_visits: 0 }));
        let flooding = SourceState { flooding, ..SourceState::default() };
        for (id, category, state) in [
            ("a", "world", SourceState::default()),
            ("b", "world", failed.clone()),
            ("c", "Été", gone),
            ("d", "sport", SourceState::default()),
            ("e", "floods", flooding),
            ("off", "world", failed),
        ] {
            let url = FeedUrl::try_new("https://example.org/").unwrap();
            let mut source = Source::new(SourceId::try_new(id).unwrap(), url);
            (source.category, source.enabled) = (category.to_owned(), id != "off");
            registry.insert(Arc::new(SourceEntry::new(Arc::new(source), state)));
        }
        registry
    }

    fn select(named: &[&str], failing: bool, categories: &[&str]) -> (Vec<String>, Vec<String>) {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let select = SourceSelection { failing, categories: owned(categories) };
        let selected = SelectedSources::select(&registry(), owned(named), &select);
        (selected.ids, selected.unknown_categories)
    }

    #[test]
    fn every_condition_that_is_given_holds_for_a_selected_source() {
        let ids = |failing, categories: &[&str]| select(&[], failing, categories).0.join(" ");
        assert_eq!(ids(false, &[]), "a b c d e");
        assert_eq!(ids(true, &[]), "b c e", "as `sources list --failing` has them");
        assert_eq!(ids(false, &["World", "sport"]), "a b d");
        assert_eq!(ids(true, &["world"]), "b");
        assert_eq!(ids(false, &["ÉTÉ"]), "c");
    }

    #[actix_web::test]
    async fn named_sources_come_first_and_no_source_twice() {
        assert_eq!(select(&["d", "b", "x"], false, &["world"]).0, ["d", "b", "x", "a"]);
        let none = SelectedSources::find(&registry(), vec!["x".to_owned()], None).await.unwrap();
        assert_eq!(none.ids, ["x"]);
    }

    #[test]
    fn a_category_that_no_source_has_is_told() {
        assert_eq!(select(&[], false, &["Wrold", "sport"]), (vec!["d".to_owned()], vec!["Wrold".to_owned()]));
    }

    #[actix_web::test]
    async fn an_order_names_a_limited_number_of_sources() {
        let many = vec!["a".to_owned(); ORDER_SOURCES_MAX + 1];
        assert_eq!(SelectedSources::find(&registry(), many, None).await.unwrap_err().status, 413);
    }
}
