//! Step 8 of the life of an item: visible. The log is read up to the head, and no further.

use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use news::{Epoch, EventKind, HeldHost, Seq, SourceId, SourceState, Timestamp};

use crate::{
    disk_work::DiskWork,
    identity::Identity,
    journal::{EventCursor, EventMeta, FoundEvent, JournalFiles, JournalWriter},
    notes::OpenNote,
    record::{self, Damage},
    table::{StoredValue, Table, TableError},
};

/// What the writer and all readers share.
#[derive(Debug)]
pub(crate) struct SharedLog {
    pub(crate) table: Table,
    pub(crate) journal: Arc<JournalFiles>,
    pub(crate) identity: Identity,
    /// The oldest event kept; one more than the head if the log is empty.
    oldest: AtomicU64,
    /// The newest event that is on disk and in sled.
    head: AtomicU64,
    damage: Mutex<FoundDamage>,
    notes: Vec<OpenNote>,
}

/// Events that are not what was written, or one that is too large to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedEvents {
    /// The first one.
    pub first: Seq,
    /// How many, in a row.
    pub count: u64,
    /// Their source, if that can still be told.
    pub source: Option<SourceId>,
    /// The bytes of one event that is as it was written, and larger than [`StoredEvent::JSON_BYTES_MAX`].
    pub too_large: Option<u64>,
}

/// Damage that was met so far.
#[derive(Debug, Default)]
struct FoundDamage {
    /// How many events in a row, by the first of them.
    known: BTreeMap<u64, u64>,
    untold: Vec<DamagedEvents>,
}

/// So many damaged places are told apart; what is met after them is told each time.
const KNOWN_DAMAGE_MAX: usize = 10_000;

/// What the log has in one place.
enum LogEntry {
    Event(StoredEvent),
    /// Events that are damaged or gone.
    Missing(u64),
}

impl SharedLog {
    pub(crate) fn new(
        table: Table,
        journal: &JournalWriter,
        identity: Identity,
        (oldest, head): (Seq, Seq),
        notes: Vec<OpenNote>,
    ) -> Self {
        let journal = Arc::clone(journal.journal());
        let (oldest, head) = (AtomicU64::new(oldest.0), AtomicU64::new(head.0));
        Self { table, journal, identity, oldest, head, damage: Mutex::default(), notes }
    }

    /// The state of a source, and the commit whose record has it.
    pub(crate) fn state(&self, source: &SourceId) -> Result<Option<(SourceState, u64)>, TableError> {
        let Some(StoredValue { value, commit }) = self.table.get(&record::state_key(source))? else {
            return Ok(None);
        };
        let state = record::unseal(&value)
            .and_then(|json| serde_json::from_slice(json).map_err(|_| Damage::Content))
            .map_err(|damage| self.table.damaged(format!("the state of source {source}"), damage))?;
        Ok(Some((state, commit)))
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

    /// Calls `each` with what the log has from one event to another, until it breaks.
    fn entries(
        &self,
        first: Seq,
        last: Seq,
        mut each: impl FnMut(LogEntry) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let mut events = self.journal.events_from(first);
        let mut expected = first;
        while expected <= last {
            let meta = events.next()?.filter(|meta| meta.seq <= last);
            let seq = meta.as_ref().map_or(Seq(last.0.saturating_add(1)), |meta| meta.seq);
            if seq > expected {
                let missing = self.note_damage(expected, seq.0 - expected.0, None, None);
                if each(LogEntry::Missing(missing)).is_break() {
                    return Ok(());
                }
            }
            let Some(meta) = meta else { return Ok(()) };
            if each(self.entry(&mut events, &meta)?).is_break() {
                return Ok(());
            }
            expected = seq.next();
        }
        Ok(())
    }

    fn entry(&self, events: &mut EventCursor<'_>, meta: &EventMeta) -> io::Result<LogEntry> {
        let seq = meta.seq;
        let json_bytes = (meta.bytes as usize).saturating_sub(record::EVENT_SEAL);
        if json_bytes > StoredEvent::JSON_BYTES_MAX {
            let source = events.owner(meta).clone();
            return Ok(LogEntry::Missing(self.note_damage(seq, 1, Some(source), Some(json_bytes as u64))));
        }
        Ok(match events.read(meta)? {
            FoundEvent::Whole(sealed) => match StoredEvent::unseal(seq, &sealed) {
                Ok(event) => LogEntry::Event(event),
                Err(_) => LogEntry::Missing(self.note_damage(seq, 1, None, None)),
            },
            FoundEvent::Damaged(source) => LogEntry::Missing(self.note_damage(seq, 1, Some(source), None)),
        })
    }

    /// Segments that are missing are told before an event of them is asked for.
    pub(crate) fn note_missing_segments(&self) {
        for missing in self.journal.missing_events(self.oldest()) {
            let is_told =
                |note: &OpenNote| matches!(note, OpenNote::EndLost { first, .. } if *first == missing.start);
            if !self.notes.iter().any(is_told) {
                self.note_damage(missing.start, missing.end.0 - missing.start.0, None, None);
            }
        }
    }

    /// Returns how many are missing. Those that retention removed meanwhile are not damaged.
    fn note_damage(&self, first: Seq, count: u64, source: Option<SourceId>, too_large: Option<u64>) -> u64 {
        let kept = first.max(self.oldest());
        let damaged = (first.0 + count).saturating_sub(kept.0);
        if damaged > 0 {
            let mut found = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known = found
                .known
                .range(..=kept.0)
                .next_back()
                .is_some_and(|(known, count)| kept.0 + damaged <= known + count);
            if !is_known {
                if found.known.len() < KNOWN_DAMAGE_MAX {
                    found.known.insert(kept.0, damaged);
                }
                found.untold.push(DamagedEvents { first: kept, count: damaged, source, too_large });
            }
        }
        count
    }
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogReadError {
    /// The journal could not be read.
    #[error("cannot read the journal: {0}; check the disk")]
    Journal(#[from] io::Error),
    /// sled could not be read.
    #[error("cannot read the states of sources: {0}; a start makes them again from the journal")]
    Table(#[from] TableError),
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

impl StoredEvent {
    /// Longest JSON that is served, in bytes: with its id and its name it is a block of 4 MiB, the largest that a gateway
    /// takes. An item of a feed has less than half of it. A longer one, which can only have been imported, is left out as a
    /// damaged one is.
    pub const JSON_BYTES_MAX: usize = 4 * 1024 * 1024 - 1024;

    fn unseal(seq: Seq, sealed: &[u8]) -> Result<Self, Damage> {
        let (kind, recorded, json) = record::unseal_event(sealed)?;
        Ok(Self { seq, kind, recorded, json: json.to_owned() })
    }
}

/// Consecutive events, and how many before them were missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPage {
    /// In order, without holes.
    pub records: Vec<StoredEvent>,
    /// Number of events after the requested position that retention has removed, or that are damaged. If all of them up to the
    /// head are, there are no records.
    pub missed: u64,
}

/// So many events at a time are read when the newest are wanted first.
const READ_BACK: u64 = 64;

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
        &self.shared.journal.epoch
    }

    /// What the store has the disk do, and which of it was slow lately. Waits for nothing.
    #[must_use]
    pub fn disk_work(&self) -> &DiskWork {
        &self.shared.journal.disk_work
    }

    /// The hosts that had asked for a pause when they were written last.
    ///
    /// # Errors
    /// [`LogReadError`] if the value is damaged.
    pub fn held_hosts(&self) -> Result<Vec<HeldHost>, LogReadError> {
        let Some(stored) = self.shared.table.get(record::HOSTS)? else { return Ok(Vec::new()) };
        let hosts = record::unseal(&stored.value)
            .and_then(|json| serde_json::from_slice(json).map_err(|_| Damage::Content));
        Ok(hosts.map_err(|damage| self.shared.table.damaged("the list of held hosts".to_owned(), damage))?)
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

    /// The events after `after`, at most `limit` and about `bytes` of JSON, but at least one if there is one. Damage ends a page;
    /// the next one counts it.
    ///
    /// # Errors
    /// [`LogReadError`] if the disk cannot be read.
    pub fn page(&self, after: Seq, limit: usize, bytes: usize) -> Result<EventPage, LogReadError> {
        let head = self.shared.head();
        let mut page = EventPage::default();
        if after >= head {
            return Ok(page);
        }
        let first = after.next().max(self.oldest());
        page.missed = first.0 - after.0 - 1;
        let mut taken = 0;
        self.shared.entries(first, head, |entry| match entry {
            LogEntry::Missing(count) if page.records.is_empty() => {
                page.missed += count;
                ControlFlow::Continue(())
            }
            LogEntry::Missing(_) => ControlFlow::Break(()),
            LogEntry::Event(event) => {
                taken += event.json.len();
                page.records.push(event);
                if page.records.len() >= limit || taken >= bytes {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            }
        })?;
        Ok(page)
    }

    /// The events before `before` and not before `floor`, the newest first; at most `limit` and about `bytes` of JSON, but
    /// at least one if there is one. Retention may remove the oldest meanwhile: then the page ends above them. Damaged events
    /// are left out.
    ///
    /// # Errors
    /// [`LogReadError`] if the disk cannot be read.
    pub fn page_before(
        &self,
        before: Seq,
        floor: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, LogReadError> {
        let mut records: Vec<StoredEvent> = Vec::new();
        let mut last = before.0.saturating_sub(1).min(self.shared.head().0);
        let mut taken = 0;
        loop {
            let floor = floor.max(self.oldest()).0.max(1);
            if last < floor {
                return Ok(records);
            }
            // The journal is read forwards.
            let first = last.saturating_sub(READ_BACK - 1).max(floor);
            let mut part = Vec::new();
            self.shared.entries(Seq(first), Seq(last), |entry| {
                if let LogEntry::Event(event) = entry {
                    part.push(event);
                }
                ControlFlow::Continue(())
            })?;
            for event in part.into_iter().rev() {
                taken += event.json.len();
                records.push(event);
                if records.len() >= limit || taken >= bytes {
                    return Ok(records);
                }
            }
            last = first - 1;
        }
    }

    /// The first event recorded at or after `instant`; one more than the head if there is none yet.
    ///
    /// A binary search, because events are recorded in the order of their sequence: about twenty reads.
    ///
    /// # Errors
    /// [`LogReadError`] if the disk cannot be read.
    pub fn first_since(&self, instant: Timestamp) -> Result<Seq, LogReadError> {
        let head = self.head();
        let (mut low, mut high) = (self.oldest().0, head.0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.shared.journal.events_from(Seq(middle)).next()?;
            match found.filter(|meta| meta.seq <= head) {
                Some(meta) if meta.recorded < instant => low = meta.seq.0 + 1,
                _ => high = middle,
            }
        }
        Ok(Seq(low))
    }

    /// Makes the store a copy for later opens, as if its files had been copied: it was found to be an older state of itself,
    /// and that must not be forgotten with the process. `restore` and `restore_in_place` decide what becomes of it. Blocks.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn mark_copied(&self) -> io::Result<()> {
        self.shared.identity.mark_copied()
    }

    /// What the open found and mended.
    #[must_use]
    pub fn notes(&self) -> &[OpenNote] {
        &self.shared.notes
    }

    /// Damage that was met and not yet told.
    #[must_use]
    pub fn take_damage(&self) -> Vec<DamagedEvents> {
        std::mem::take(&mut self.shared.damage.lock().unwrap_or_else(PoisonError::into_inner).untold)
    }

    /// The state of a source; `None` if it was never visited.
    ///
    /// # Errors
    /// [`LogReadError`] if the data is damaged.
    pub fn state(&self, source: &SourceId) -> Result<Option<SourceState>, LogReadError> {
        Ok(self.shared.state(source)?.map(|(state, _)| state))
    }
}
