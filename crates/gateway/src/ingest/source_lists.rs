//! The lists of sources of all daemons, put together to one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use news::{SourceId, SourceStatus};
use serde::Deserialize;

use super::{
    catalogue_labels::LabelIndex,
    daemons::DaemonName,
    source_directory::{RenderedSource, RenderedSourceList},
};
use crate::state::AppState;

/// Sources that are shown, at most, if some of them are of daemons that are away: those are left out first.
const SOURCES_MAX: usize = 100_000;

/// Which daemon has which sources, as they were last listed.
pub(crate) type SourceOwners = BTreeMap<SourceId, DaemonName>;

#[derive(Deserialize)]
struct SourceList {
    sources: Vec<SourceStatus>,
}

/// Replaces the sources by these lists, each of one daemon. The sources of a daemon that has no list here stay as they are:
/// it is away, and what it said last is the best that is known. Returns which daemon has which.
///
/// # Errors
/// If no list is readable.
pub(super) fn take(
    state: &AppState,
    lists: Vec<(DaemonName, Bytes)>,
    owners: &SourceOwners,
) -> serde_json::Result<SourceOwners> {
    let (mut sources, mut next, mut listed) = (BTreeMap::new(), SourceOwners::new(), BTreeSet::new());
    let mut unreadable = None;
    for (daemon, body) in lists {
        match serde_json::from_slice::<SourceList>(&body) {
            Ok(list) => {
                list.sources.into_iter().for_each(|status| add(&mut sources, &mut next, &daemon, status));
                listed.insert(daemon);
            }
            Err(error) => unreadable = Some((daemon, error)),
        }
    }
    match unreadable {
        Some((_, error)) if listed.is_empty() => return Err(error),
        Some((daemon, error)) => tracing::error!(%daemon, %error, "the list of sources is unreadable"),
        None => {}
    }
    let mut sources: Vec<_> = sources.into_values().collect();
    sources.iter_mut().for_each(|status| state.newest_events.replace_in(status));
    let mut labels = LabelIndex::new(&sources);
    let mut kept = Vec::new();
    for (id, daemon) in owners {
        if next.len() >= SOURCES_MAX {
            state.metrics.daemons.left_out.get_or_create(&[("what", "sources")]).inc();
            break;
        }
        if !listed.contains(daemon)
            && !next.contains_key(id)
            && let Some(source) = state.sources.get(id.as_str())
        {
            next.insert(id.clone(), Arc::clone(daemon));
            if let Some(status) = status_of(&source) {
                labels.add(&status);
            }
            kept.push(source);
        }
    }
    state.catalogue_labels.replace(labels);
    state.sources.replace(RenderedSourceList::with_kept(sources, kept));
    Ok(next)
}

/// Of two daemons that have the same source, the one counts that has visited it last.
fn add(
    sources: &mut BTreeMap<SourceId, SourceStatus>,
    owners: &mut SourceOwners,
    daemon: &DaemonName,
    status: SourceStatus,
) {
    if sources.get(&status.id).is_none_or(|other| status.last_visit > other.last_visit) {
        owners.insert(status.id.clone(), Arc::clone(daemon));
        sources.insert(status.id.clone(), status);
    }
}

fn status_of(source: &RenderedSource) -> Option<SourceStatus> {
    serde_json::from_slice(&[&source.status()[..], b"}"].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(id: &str, last_visit: Option<&str>) -> SourceStatus {
        let status = serde_json::json!({
            "id": id, "name": id, "url": "", "category": "world", "country": null, "language": null, "tags": [],
            "enabled": true, "activity": "idle", "activity_since": null, "last_status": "unchanged",
            "last_code": 304, "last_visit": last_visit, "last_took_ms": 1, "last_success": null, "last_error": null,
            "consecutive_failures": 0, "next_visit": null, "why": "", "warnings": [], "restarts": 0,
            "counts": {}, "last_event": null, "push": {},
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn of_two_daemons_with_the_same_source_the_one_counts_that_has_visited_it_last() {
        let (one, other): (DaemonName, DaemonName) = ("one".into(), "other".into());
        let (older, newer) = (Some("2026-11-28T06:00:00Z"), Some("2026-11-28T07:00:00Z"));
        let (mut sources, mut owners) = (BTreeMap::new(), SourceOwners::new());
        add(&mut sources, &mut owners, &one, status("a", newer));
        add(&mut sources, &mut owners, &one, status("b", None));
        add(&mut sources, &mut owners, &one, status("c", older));
        add(&mut sources, &mut owners, &other, status("a", older));
        add(&mut sources, &mut owners, &other, status("b", older));
        add(&mut sources, &mut owners, &other, status("d", None));
        let owner =
            |id: &str| owners.iter().find(|(source, _)| source.as_str() == id).map(|(_, name)| &**name);
        assert_eq!(["a", "b", "c", "d"].map(owner), [Some("one"), Some("other"), Some("one"), Some("other")]);
        assert_eq!(sources.len(), 4);
    }
}
