//! Step 8 of the life of an item: visible. The log is read up to the head, and no further.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use news::{Epoch, EventKind, HeldHost, Seq, SourceId, SourceState, Timestamp};

use crate::{
    pieces,
    record::{self, Damage},
};

/// What the writer and all readers share.
#[derive(Debug)]
pub(crate) struct SharedLog {
    pub(crate) db: sled::Db,
    pub(crate) epoch: Epoch,
    /// The oldest event kept; one more than the head if the log is empty.
    oldest: AtomicU64,
    /// The newest event on disk. sled shows inserted data before it is flushed, so every read ends here.
    head: AtomicU64,
}

impl SharedLog {
    pub(crate) fn new(db: sled::Db, epoch: Epoch, oldest: Seq, head: Seq) -> Self {
        Self { db, epoch, oldest: AtomicU64::new(oldest.0), head: AtomicU64::new(head.0) }
    }

    pub(crate) fn state(&self, source: &SourceId) -> Result<Option<SourceState>, LogReadError> {
        let Some(value) = self.db.get(record::state_key(source))? else { return Ok(None) };
        let damaged =
            |damage| LogReadError::Damaged { what: format!("the state of source {source}"), damage };
        let json = record::unseal(&value).map_err(damaged)?;
        serde_json::from_slice(json).map(Some).map_err(|_| damaged(Damage::Content))
    }

    /// The sealed event of an entry of sled; `None` if retention has removed it meanwhile.
    pub(crate) fn event(&self, key: &[u8], stored: sled::IVec) -> Result<Option<sled::IVec>, LogReadError> {
        match pieces::value(&self.db, key, stored)? {
            Ok(value) => Ok(Some(value)),
            Err(_) if !self.db.contains_key(key)? => Ok(None),
            Err(damage) => {
                let seq = record::seq_of(key).unwrap_or_default();
                Err(LogReadError::Damaged { what: format!("event {seq}"), damage })
            }
        }
    }

    pub(crate) fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }

    pub(crate) fn oldest(&self) -> Seq {
        Seq(self.oldest.load(Ordering::Acquire))
    }

    pub(crate) fn set_head(&self, head: Seq) {
        self.head.store(head.0, Ordering::Release);
    }

    pub(crate) fn set_oldest(&self, oldest: Seq) {
        self.oldest.store(oldest.0, Ordering::Release);
    }
}

/// Why the log could not be read: the data or the disk is damaged. The process must stop.
#[derive(Debug, thiserror::Error)]
pub enum LogReadError {
    /// sled or the disk failed.
    #[error("cannot read the log: {0}")]
    Sled(#[from] sled::Error),
    /// A value is not what was written.
    #[error(
        "{what} in the log is damaged: {damage}; stop, and restore a backup or move the data directory away"
    )]
    Damaged {
        /// Which value.
        what: String,
        /// In what way.
        damage: Damage,
    },
}

/// One event, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its sequence number.
    pub seq: Seq,
    /// Item or update.
    pub kind: EventKind,
    /// When it was recorded.
    pub recorded: Timestamp,
    /// The event as JSON, on one line.
    pub json: String,
}

/// Consecutive events, and how many before them were missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPage {
    /// In order, without holes.
    pub records: Vec<StoredEvent>,
    /// Number of events after the requested position that retention has removed.
    pub missed: u64,
}

/// A view of the log. Cheap to clone; every call blocks on the disk.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<SharedLog>,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<SharedLog>) -> Self {
        Self { shared }
    }

    /// The epoch of the log.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.shared.epoch
    }

    /// The hosts that had asked for a pause when they were written last.
    ///
    /// # Errors
    /// [`LogReadError`] if the value is damaged.
    pub fn held_hosts(&self) -> Result<Vec<HeldHost>, LogReadError> {
        let Some(stored) = self.shared.db.get(record::HOSTS)? else { return Ok(Vec::new()) };
        let damaged = |damage| LogReadError::Damaged { what: "the list of held hosts".to_owned(), damage };
        let value = pieces::value(&self.shared.db, record::HOSTS, stored)?.map_err(damaged)?;
        let json = record::unseal(&value).map_err(damaged)?;
        serde_json::from_slice(json).map_err(|_| damaged(Damage::Content))
    }

    /// The newest event on disk; [`Seq::NONE`] before the first.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.shared.head()
    }

    /// The oldest event kept; one more than the head if there is none.
    #[must_use]
    pub fn oldest(&self) -> Seq {
        self.shared.oldest()
    }

    /// The events after `after`, at most `limit` and about `bytes` of JSON, but at least one if there is one.
    ///
    /// # Errors
    /// [`LogReadError`] if the data is damaged.
    pub fn page(&self, after: Seq, limit: usize, bytes: usize) -> Result<EventPage, LogReadError> {
        let head = self.shared.head();
        let mut page = EventPage::default();
        if after >= head {
            return Ok(page);
        }
        let mut taken = 0;
        let mut expected = after.next();
        for entry in self.shared.db.range(record::event_key(expected)..=record::event_key(head)) {
            let (key, value) = entry?;
            let damaged = |damage| LogReadError::Damaged { what: format!("event {expected}"), damage };
            let seq = record::seq_of(&key).ok_or_else(|| damaged(Damage::Content))?;
            if seq != expected {
                // Only retention makes holes, so there are none after the first event.
                if !page.records.is_empty() {
                    break;
                }
                page.missed = seq.0 - expected.0;
            }
            let Some(value) = self.shared.event(&key, value)? else { continue };
            let (kind, recorded, json) = record::unseal_event(&value).map_err(damaged)?;
            taken += json.len();
            page.records.push(StoredEvent { seq, kind, recorded, json: json.to_owned() });
            expected = seq.next();
            if page.records.len() >= limit || taken >= bytes {
                break;
            }
        }
        Ok(page)
    }

    /// The events before `before` and not before `floor`, the newest first; at most `limit` and about `bytes` of JSON, but
    /// at least one if there is one. Retention may remove the oldest meanwhile: then the page ends above them.
    ///
    /// # Errors
    /// [`LogReadError`] if the data is damaged.
    pub fn page_before(
        &self,
        before: Seq,
        floor: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, LogReadError> {
        let mut records = Vec::new();
        let last = before.0.min(self.shared.head().next().0).saturating_sub(1);
        let floor = floor.max(self.oldest());
        if last < floor.0 {
            return Ok(records);
        }
        let mut taken = 0;
        let mut expected = last;
        for entry in self.shared.db.range(record::event_key(floor)..=record::event_key(Seq(last))).rev() {
            let (key, value) = entry?;
            let damaged = |damage| LogReadError::Damaged { what: format!("event {expected}"), damage };
            let seq = record::seq_of(&key).ok_or_else(|| damaged(Damage::Content))?;
            // Only retention makes holes, and everything below one is gone.
            if seq.0 != expected {
                break;
            }
            let Some(value) = self.shared.event(&key, value)? else { break };
            let (kind, recorded, json) = record::unseal_event(&value).map_err(damaged)?;
            taken += json.len();
            records.push(StoredEvent { seq, kind, recorded, json: json.to_owned() });
            expected -= 1;
            if records.len() >= limit || taken >= bytes {
                break;
            }
        }
        Ok(records)
    }

    /// The first event recorded at or after `instant`; one more than the head if there is none yet.
    ///
    /// A binary search, because events are recorded in the order of their sequence: about twenty reads.
    ///
    /// # Errors
    /// [`LogReadError`] if the data is damaged.
    pub fn first_since(&self, instant: Timestamp) -> Result<Seq, LogReadError> {
        let (mut low, mut high) = (self.oldest().0, self.head().0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let page = self.page(Seq(middle - 1), 1, 1)?;
            match page.records.first() {
                Some(record) if record.recorded < instant => low = record.seq.0 + 1,
                _ => high = middle,
            }
        }
        Ok(Seq(low))
    }

    /// The state of a source; `None` if it was never visited.
    ///
    /// # Errors
    /// [`LogReadError`] if the data is damaged.
    pub fn state(&self, source: &SourceId) -> Result<Option<SourceState>, LogReadError> {
        self.shared.state(source)
    }
}
