//! Makes a store of events that were exported.
//!
//! Exports overlap: one has what another one had, and a log that was restored has the events of the one before with other
//! ids. An event comes into the new log once. It is recognised by its id, and between two epochs by its source, its kind and
//! its item: a version of an item that each of two epochs has n times comes n times, because an item may return to an earlier
//! version, and its updates are all events of their own.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{DefaultHasher, Hash, Hasher as _},
    path::Path,
};

use news::{Cursor, Epoch, Event, Seq, SourceId, Timestamp};
use seen::RecordedItems;

use crate::{StoredEvent, journal::Operation, record};

use super::{
    ToolError,
    draft::{DraftJournal, StorePlace},
};

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportedEvent {
    /// It is in the new log.
    New,
    /// It was read before, and was left out.
    Known,
}

/// A store that is being made. It has a new epoch, and its events are numbered from 1.
#[derive(Debug)]
pub struct StoreImport {
    place: StorePlace,
    draft: DraftJournal,
    epoch: Epoch,
    next: Seq,
    /// When the last event was recorded, as far as its JSON tells.
    recorded: Timestamp,
    seen: HashMap<SourceId, RecordedItems>,
    read: ReadEvents,
}

impl StoreImport {
    /// Begins a store in `store`, which must be empty or not exist.
    ///
    /// # Errors
    /// [`ToolError`] if there is something, or it cannot be written.
    pub fn begin(store: &Path) -> Result<Self, ToolError> {
        let mut place = StorePlace::take(store)?;
        if !place.is_empty()? {
            return Err(ToolError::NotEmpty(store.to_owned()));
        }
        let epoch = Epoch::random(fastrand::digit);
        let draft = DraftJournal::begin(&mut place, epoch.clone(), Seq(1), 0)?;
        let recorded = Timestamp::from_millis(i64::MIN);
        let (seen, read) = Default::default();
        Ok(Self { place, draft, epoch, next: Seq(1), recorded, seen, read })
    }

    /// The epoch of the new store.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Adds the event of this line, whose item has its evidence. Its id is written anew.
    ///
    /// # Errors
    /// [`ToolError`] if it is too large, another one has its id, or the disk fails.
    pub fn add(&mut self, mut event: Event, line: u64) -> Result<ImportedEvent, ToolError> {
        if !self.read.add(&event, line)? {
            return Ok(ImportedEvent::Known);
        }
        let seq = self.next;
        event.id = Cursor { epoch: self.epoch.clone(), seq };
        let json = event.to_json();
        let (bytes, limit) = (json.len(), StoredEvent::JSON_BYTES_MAX);
        if bytes > limit {
            return Err(ToolError::TooLarge { bytes, limit });
        }
        // The JSON of an update does not say when it was recorded, and events are in the order of that.
        self.recorded = self.recorded.max(event.first_seen);
        let sealed = record::seal_event(event.kind, self.recorded, &json);
        let seen = self.seen.entry(event.source.clone()).or_default();
        seen.add(event.kind, &event.item, event.first_seen);
        self.draft.add_event(seq, event.source, self.recorded, sealed)?;
        self.next = seq.next();
        Ok(ImportedEvent::New)
    }

    /// Writes what each source has had, and puts the store in place. Returns how many events it has.
    ///
    /// # Errors
    /// [`ToolError`] if the disk fails; nothing is in place then.
    pub fn finish(mut self) -> Result<u64, ToolError> {
        for (source, items) in self.seen {
            // The generation of its deltas is 0.
            let value = [&record::seal_seen(&items.into_set())[..], &[0; 4]].concat();
            self.draft
                .add_operations(vec![Operation { key: record::seen_key(&source), value: Some(value) }])?;
        }
        let count = self.draft.count;
        self.draft.finish()?;
        self.place.replace()?;
        Ok(count)
    }
}

/// What an event that comes again is recognised by: about 100 bytes of memory for each.
#[derive(Debug, Default)]
struct ReadEvents {
    /// The number of each epoch.
    epochs: HashMap<Epoch, u32>,
    /// The hash of the whole event, and its line.
    ids: HashMap<(u32, Seq), (u64, u64)>,
    /// How often an epoch has a version of an item, by its hash.
    of_epoch: HashMap<(u32, u64), u32>,
    /// How often the new log has it.
    of_log: HashMap<u64, u32>,
}

impl ReadEvents {
    /// Whether the event is new.
    fn add(&mut self, event: &Event, line: u64) -> Result<bool, ToolError> {
        let Event { id, kind, source, source_name, category, country, tags, first_seen, item } = event;
        let item = serde_json::to_string(item).expect("every field of an item has a JSON form");
        // What is from the list of sources and when it was seen first can differ from epoch to epoch.
        let version = hash_of(&(source, kind, item));
        let content = hash_of(&(version, source_name, category, country, tags, first_seen));
        let next = u32::try_from(self.epochs.len()).unwrap_or(u32::MAX);
        let epoch = *self.epochs.entry(id.epoch.clone()).or_insert(next);
        match self.ids.entry((epoch, id.seq)) {
            Entry::Occupied(known) => {
                let (known_content, first_line) = *known.get();
                return match known_content == content {
                    true => Ok(false),
                    false => Err(ToolError::OtherContent { id: id.clone(), first_line }),
                };
            }
            Entry::Vacant(place) => place.insert((content, line)),
        };
        let of_epoch = self.of_epoch.entry((epoch, version)).or_default();
        *of_epoch += 1;
        let of_log = self.of_log.entry(version).or_default();
        let is_new = *of_epoch > *of_log;
        *of_log = (*of_log).max(*of_epoch);
        Ok(is_new)
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
