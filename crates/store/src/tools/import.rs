//! Makes a store of events that were exported.

use std::{collections::HashMap, path::Path};

use news::{Cursor, Epoch, Event, Seq, SourceId, Timestamp};
use seen::RecordedItems;

use crate::{journal::Operation, open::new_epoch, record};

use super::{
    ToolError,
    draft::{DraftJournal, StorePlace},
};

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
        let epoch = new_epoch();
        let draft = DraftJournal::begin(&mut place, epoch.clone(), Seq(1), 0)?;
        let recorded = Timestamp::from_millis(i64::MIN);
        Ok(Self { place, draft, epoch, next: Seq(1), recorded, seen: HashMap::new() })
    }

    /// The epoch of the new store.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Adds an event, whose item has its evidence. Its id is written anew.
    ///
    /// # Errors
    /// [`ToolError`] if the disk fails.
    pub fn add(&mut self, mut event: Event) -> Result<(), ToolError> {
        let seq = self.next;
        event.id = Cursor { epoch: self.epoch.clone(), seq };
        // The JSON of an update does not say when it was recorded, and events are in the order of that.
        self.recorded = self.recorded.max(event.first_seen);
        let sealed = record::seal_event(event.kind, self.recorded, &event.to_json());
        self.seen.entry(event.source.clone()).or_default().add(&event.item, event.first_seen);
        self.draft.add_event(seq, event.source, self.recorded, sealed)?;
        self.next = seq.next();
        Ok(())
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
