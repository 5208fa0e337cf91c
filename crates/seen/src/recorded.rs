//! What recorded events tell about a source: all that is known of it, if an import has them; what another daemon has recorded
//! of it, beside a seen set.

use std::collections::{HashMap, HashSet};

use news::{EventKind, Item, Timestamp};

use crate::{
    classify::SeenSet,
    entry::{EntryIdentity, Layout, SeenEntry, Traits, key_bytes},
    shape::shape_of,
};

/// So many of the newest items are taken to be those of the newest document, which no event tells: what feeds usually have.
const NEWEST: usize = 50;

/// The items of a source, in the order of their events.
#[derive(Clone, Debug, Default)]
pub struct RecordedItems(Vec<RecordedItem>);

#[derive(Clone, Copy, Debug)]
struct RecordedItem {
    entry: SeenEntry,
    kind: EventKind,
}

impl RecordedItems {
    /// Adds the item of an event: a later one of the same key counts. It must have its evidence.
    pub fn add(&mut self, kind: EventKind, item: &Item, first_seen: Timestamp) {
        let traits = Traits::of(item);
        let is_bare = traits.guid == 0 && traits.link == 0;
        let entry = SeenEntry {
            identity: EntryIdentity::Known { key: key_bytes(&item.key), traits },
            first_seen,
            heat: 0,
            counts: false,
            before: 0,
            sent: traits.version(),
            shape: if is_bare { shape_of(item) } else { 0 },
        };
        self.0.push(RecordedItem { entry, kind });
        if self.0.len() >= 4 * SeenSet::ENTRIES_MAX {
            self.0 = self.newest_first();
            self.0.reverse();
        }
    }

    /// The newest of each key, as many as a set has.
    fn newest_first(&self) -> Vec<RecordedItem> {
        let mut keys = HashSet::new();
        let is_newest = |item: &&RecordedItem| keys.insert(item.entry.key());
        self.0.iter().rev().filter(is_newest).take(SeenSet::ENTRIES_MAX).copied().collect()
    }

    /// The set, as if the newest items were the last document of the source.
    #[must_use]
    pub fn into_set(self) -> SeenSet {
        let entries: Vec<_> = self.newest_first().into_iter().map(|item| item.entry).collect();
        let newest = entries.len().min(NEWEST);
        SeenSet::of(Layout { entries, newest, ..Layout::default() })
    }
}

impl SeenSet {
    /// Adds what events say that were recorded elsewhere, after those that this set knows. Items that it does not have become
    /// known, as those that were seen last. An update makes its version the one that was sent last, unless it is. Returns
    /// whether anything has changed.
    pub fn add_recorded(&mut self, items: &RecordedItems) -> bool {
        let entries = &mut self.layout.entries;
        let by_key: HashMap<_, _> = entries.iter().enumerate().map(|(n, entry)| (entry.key(), n)).collect();
        let articles: HashSet<_> = entries.iter().filter_map(article).collect();
        let (mut added, mut has_changed) = (Vec::new(), false);
        for RecordedItem { entry, kind } in items.newest_first() {
            match by_key.get(&entry.key()) {
                Some(n) => has_changed |= kind == EventKind::Update && take_update(&mut entries[*n], &entry),
                // The same under another key: two entries of one article would recognise none of its later versions.
                None if article(&entry).is_some_and(|article| articles.contains(&article)) => {}
                None => added.push(entry),
            }
        }
        if added.is_empty() {
            return has_changed;
        }
        let older = added.split_off(added.len().min(NEWEST));
        let newest = self.layout.newest;
        self.layout.newest += added.len();
        let mut known = entries.drain(..);
        added.extend(known.by_ref().take(newest));
        added.extend(older);
        added.extend(known);
        added.truncate(Self::ENTRIES_MAX.max(self.layout.newest));
        self.layout.entries = added;
        true
    }
}

/// What no two articles of one source have in common: title, text, date and page.
fn article(entry: &SeenEntry) -> Option<[u64; 4]> {
    let Traits { title, text, date, page, .. } = *entry.traits()?;
    (title != 0 || text != 0).then_some([title, text, date.into(), page.into()])
}

/// Makes what was sent elsewhere the version that was sent last. Returns whether it was another one.
fn take_update(known: &mut SeenEntry, update: &SeenEntry) -> bool {
    let (EntryIdentity::Known { key, traits }, Some(sent)) = (known.identity, update.traits()) else {
        return false;
    };
    let version = traits.version();
    let known_sent = if known.sent == 0 { version } else { known.sent };
    if known_sent == update.sent {
        return false;
    }
    if version != update.sent {
        known.identity = EntryIdentity::Known { key, traits: *sent };
        (known.before, known.shape) = (version, update.shape);
    }
    known.sent = update.sent;
    true
}
