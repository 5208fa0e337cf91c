//! The seen set of a source of which only the recorded events are known: those that an import has.

use std::collections::HashSet;

use news::{Item, Timestamp};

use crate::{
    classify::SeenSet,
    entry::{EntryIdentity, Layout, SeenEntry, Traits, key_bytes},
    shape::shape_of,
};

/// So many of the newest items are taken to be those of the newest document, which no event tells: what feeds usually have.
const NEWEST: usize = 50;

/// The items of a source, in the order of their events.
#[derive(Clone, Debug, Default)]
pub struct RecordedItems(Vec<SeenEntry>);

impl RecordedItems {
    /// Adds the item of an event: a later one of the same key counts. It must have its evidence.
    pub fn add(&mut self, item: &Item, first_seen: Timestamp) {
        let traits = Traits::of(item);
        let is_bare = traits.guid == 0 && traits.link == 0;
        self.0.push(SeenEntry {
            identity: EntryIdentity::Known { key: key_bytes(&item.key), traits },
            first_seen,
            heat: 0,
            counts: false,
            before: 0,
            sent: traits.version(),
            shape: if is_bare { shape_of(item) } else { 0 },
        });
        if self.0.len() >= 4 * SeenSet::ENTRIES_MAX {
            self.0 = self.newest_first();
            self.0.reverse();
        }
    }

    /// The newest of each key, as many as a set has.
    fn newest_first(&self) -> Vec<SeenEntry> {
        let mut keys = HashSet::new();
        let is_newest = |entry: &&SeenEntry| match entry.identity {
            EntryIdentity::Known { key, .. } => keys.insert(key),
            EntryIdentity::Version1 { .. } => true,
        };
        self.0.iter().rev().filter(is_newest).take(SeenSet::ENTRIES_MAX).copied().collect()
    }

    /// The set, as if the newest items were the last document of the source.
    #[must_use]
    pub fn into_set(self) -> SeenSet {
        let entries = self.newest_first();
        let newest = entries.len().min(NEWEST);
        SeenSet::of(Layout { entries, newest, ..Layout::default() })
    }
}
