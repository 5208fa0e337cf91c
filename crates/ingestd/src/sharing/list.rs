//! The list of sources that the members share, and which of them this one visits.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use news::{Catalogue, Source, SourceId};
use tokio::sync::watch;
use wire::nats::shard_of;

use crate::{messages::CatalogueDiff, queue::host::Host};

/// A source of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SharedSource {
    pub(super) id: SourceId,
    pub(super) category: String,
    pub(super) shard: u16,
}

/// The whole list, as far as sharing needs it.
#[derive(Debug, Default)]
pub(super) struct SharedList {
    /// In the order of their ids.
    pub(super) sources: Vec<SharedSource>,
    /// 16 hexadecimal digits: two lists with the same ids and addresses have the same.
    pub(super) hash: String,
}

impl SharedList {
    fn of(sources: &[Source]) -> Self {
        let shared = |source: &Source| SharedSource {
            id: source.id.clone(),
            category: source.category.clone(),
            shard: shard_of(Host::of(source.url.secret()).name()),
        };
        // In the order of the list, which may differ between the members.
        let of_one =
            |source: &Source| news::stable_hash(format!("{} {}", source.id, source.url.secret()).as_bytes());
        let hash = sources.iter().map(of_one).fold(0_u64, u64::wrapping_add);
        let mut sources: Vec<_> = sources.iter().map(shared).collect();
        sources.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Self { sources, hash: format!("{hash:016x}") }
    }

    pub(super) fn get(&self, id: &SourceId) -> Option<&SharedSource> {
        self.sources.binary_search_by(|source| source.id.cmp(id)).ok().map(|index| &self.sources[index])
    }
}

/// The sources that this daemon visits. Each change has a greater number.
#[derive(Clone, Debug, Default)]
pub(super) struct VisitedSources {
    pub(super) version: u64,
    pub(super) ids: Arc<HashSet<SourceId>>,
}

/// The whole list on the side of the control loop, which runs what this daemon visits of it.
pub(crate) struct SharedCatalogue {
    whole: Arc<Catalogue>,
    list: watch::Sender<Arc<SharedList>>,
    visited: watch::Receiver<VisitedSources>,
    applied: watch::Sender<u64>,
}

/// The other ends, for the loop of sharing.
pub(super) struct ListEnds {
    pub(super) list: watch::Receiver<Arc<SharedList>>,
    pub(super) visited: watch::Sender<VisitedSources>,
    /// The version of [`VisitedSources`] that the supervisor has been told last.
    pub(super) applied: watch::Receiver<u64>,
}

/// What the supervisor is told.
pub(crate) struct OwnPart {
    /// The whole list.
    pub(crate) catalogue: Catalogue,
    /// The sources of it that this daemon does not visit.
    pub(crate) elsewhere: HashSet<SourceId>,
    pub(crate) version: u64,
}

impl SharedCatalogue {
    pub(super) fn new() -> (Self, ListEnds) {
        let (list, list_seen) = watch::channel(Arc::default());
        let (visited, visited_seen) = watch::channel(VisitedSources::default());
        let (applied, applied_seen) = watch::channel(0);
        let own = Self { whole: Arc::default(), list, visited: visited_seen, applied };
        (own, ListEnds { list: list_seen, visited, applied: applied_seen })
    }

    /// Completes when this daemon visits other sources than before.
    pub(crate) async fn changed(&mut self) {
        if self.visited.changed().await.is_err() {
            // The loop of sharing has ended with the process.
            std::future::pending::<()>().await;
        }
    }

    /// Takes a new list. Returns how the whole list differs from the one before.
    pub(crate) fn replace(&mut self, catalogue: Catalogue) -> CatalogueDiff {
        let before: HashMap<_, _> = self.whole.sources.iter().map(|source| (&source.id, source)).collect();
        let mut diff = CatalogueDiff::default();
        for source in &catalogue.sources {
            match before.get(&source.id) {
                None => diff.added += 1,
                Some(old) if *old == source => diff.unchanged += 1,
                Some(_) => diff.changed += 1,
            }
        }
        diff.removed = before.len() - diff.unchanged - diff.changed;
        self.list.send_replace(Arc::new(SharedList::of(&catalogue.sources)));
        self.whole = Arc::new(catalogue);
        diff
    }

    /// The part that this daemon visits.
    pub(crate) fn own_part(&mut self) -> OwnPart {
        let VisitedSources { version, ids } = self.visited.borrow_and_update().clone();
        let others = self.whole.sources.iter().filter(|source| !ids.contains(&source.id));
        OwnPart {
            elsewhere: others.map(|source| source.id.clone()).collect(),
            catalogue: Catalogue::clone(&self.whole),
            version,
        }
    }

    /// The supervisor runs this part.
    pub(crate) fn set_applied(&self, part_version: u64) {
        self.applied.send_replace(part_version);
    }
}
