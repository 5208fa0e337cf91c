//! Brings a store of the layouts 1 to 3, which had its events in sled, into the layout of this version.
//!
//! ```text
//! log.sled ──► journal.new ──► journal      then log.sled is old-log.sled, and a new one is made from the journal
//! ```
//!
//! A start that is interrupted begins again, or goes on from the journal once that is whole. `old-log.sled` is removed when the
//! store is open.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use news::{Epoch, Seq, SourceId};
use serde::Deserialize;
use sled::{Db, IVec};

use crate::{
    identity,
    journal::{CommitRecord, JournalWriter, NewRecordEvent, Operation, SegmentLimits, sync_folder},
    lock::{JOURNAL, SLED},
    pieces,
    record::{self, Damage},
    table::TableError,
};

const NEW_JOURNAL: &str = "journal.new";
const OLD_SLED: &str = "old-log.sled";
/// What one record has.
const EVENTS_PER_RECORD: usize = 500;
const BYTES_PER_RECORD: usize = 1 << 20;

/// Writes the journal, and sets the old store aside. Returns how many events there are; `None` if there is nothing at all.
pub(crate) fn migrate(store: &Path, limits: SegmentLimits) -> Result<Option<u64>, TableError> {
    let migrated = catch_unwind(AssertUnwindSafe(|| write_journal(store, limits)));
    let migrated =
        migrated.unwrap_or_else(|_| Err(TableError::Panicked("the old store is damaged".to_owned())))?;
    let Some((epoch, events)) = migrated else { return Ok(None) };
    crate::crash::point("migrate-segments");
    identity::write(store, &epoch)?;
    fs::rename(store.join(NEW_JOURNAL), store.join(JOURNAL))?;
    sync_folder(store)?;
    crate::crash::point("migrate-renamed");
    fs::rename(store.join(SLED), store.join(OLD_SLED))?;
    sync_folder(store)?;
    Ok(Some(events))
}

/// Whether a migration was interrupted before the journal was in its place.
pub(crate) fn is_unfinished(store: &Path) -> bool {
    store.join(NEW_JOURNAL).exists()
}

/// Whether a sled has ever had something, as its files say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WasUsed {
    /// It was made and never written to.
    No,
    Yes,
    /// Its file is shorter than that of a new one. sled would take it for one.
    Cut,
}

/// Looks at the sled of an earlier version, which opens as an empty one if its file was cut.
pub(crate) fn was_used(folder: &Path) -> io::Result<WasUsed> {
    /// Bytes of the file of an empty sled.
    const NEW_DB: u64 = 96;
    let length = fs::metadata(folder.join("db"))?.len();
    let is_blob = |entries: fs::ReadDir| entries.count() > 0;
    let has_blobs = fs::read_dir(folder.join("blobs")).is_ok_and(is_blob);
    Ok(match length {
        ..NEW_DB => WasUsed::Cut,
        NEW_DB if !has_blobs => WasUsed::No,
        _ => WasUsed::Yes,
    })
}

/// Removes what a migration has left.
pub(crate) fn remove_old(store: &Path) -> io::Result<()> {
    remove_folder(&store.join(OLD_SLED))?;
    crate::crash::point("migrate-removed");
    Ok(())
}

/// Removes a folder, if there is one.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_journal(store: &Path, limits: SegmentLimits) -> Result<Option<(Epoch, u64)>, TableError> {
    let db = sled::Config::new().path(store.join(SLED)).flush_every_ms(None).open()?;
    if db.is_empty() {
        return Ok(None);
    }
    let epoch = old_epoch(&db)?;
    let folder = store.join(NEW_JOURNAL);
    remove_folder(&folder)?;
    let mut events = db.range(record::event_key(Seq(0))..=record::event_key(Seq(u64::MAX)));
    let first = events.next().transpose()?.and_then(|(key, _)| record::seq_of(&key)).unwrap_or(Seq(1));
    let last = events.next_back().transpose()?.and_then(|(key, _)| record::seq_of(&key));
    let journal = JournalWriter::create(&folder, epoch.clone(), first, limits)?;
    let mut copy = JournalCopy {
        db: &db,
        journal,
        events: Vec::new(),
        first: Seq(1),
        end: last.map_or(first, Seq::next),
        bytes: 0,
        count: 0,
    };
    for entry in db.range(record::event_key(Seq(0))..=record::event_key(Seq(u64::MAX))) {
        let (key, stored) = entry?;
        copy.add_event(&key, stored)?;
    }
    copy.write_events(Vec::new())?;
    for prefix in [&b"s"[..], b"k", b"w", record::HOSTS] {
        copy.copy_values(prefix)?;
    }
    copy.write_events(Vec::new())?;
    sync_folder(&folder)?;
    Ok(Some((epoch, copy.count)))
}

fn old_epoch(db: &Db) -> Result<Epoch, TableError> {
    let damaged = |damage| TableError::Damaged { what: "the epoch".to_owned(), damage };
    let stored = db.get(record::EPOCH)?.ok_or_else(|| damaged(Damage::Cut))?;
    let name = record::unseal(&stored).map_err(damaged)?;
    let name = std::str::from_utf8(name).map_err(|_| damaged(Damage::Content))?;
    Epoch::try_new(name).map_err(|_| damaged(Damage::Content))
}

/// The journal that is being written.
struct JournalCopy<'a> {
    db: &'a Db,
    journal: JournalWriter,
    /// Of the next record.
    events: Vec<NewRecordEvent>,
    first: Seq,
    /// The event after the last one; its number must not be used again if that is damaged.
    end: Seq,
    bytes: usize,
    count: u64,
}

impl JournalCopy<'_> {
    /// An event that is damaged is left out: readers are told so.
    fn add_event(&mut self, key: &[u8], stored: IVec) -> Result<(), TableError> {
        let Some(seq) = record::seq_of(key) else { return Ok(()) };
        let Ok(sealed) = pieces::value(self.db, key, stored)? else { return Ok(()) };
        let Ok((_, recorded, json)) = record::unseal_event(&sealed) else { return Ok(()) };
        let Some(owner) = owner_of(json) else { return Ok(()) };
        let is_next = self.first.0 + self.events.len() as u64 == seq.0;
        if !is_next || self.events.len() >= EVENTS_PER_RECORD || self.bytes >= BYTES_PER_RECORD {
            self.write_events(Vec::new())?;
            self.first = seq;
        }
        self.bytes += sealed.len();
        self.events.push(NewRecordEvent { owner, recorded, sealed: sealed.to_vec() });
        self.count += 1;
        Ok(())
    }

    fn copy_values(&mut self, prefix: &[u8]) -> Result<(), TableError> {
        let mut operations = Vec::new();
        let mut bytes = 0;
        for entry in self.db.scan_prefix(prefix) {
            let (key, stored) = entry?;
            let what = || String::from_utf8_lossy(&key).into_owned();
            let value = pieces::value(self.db, &key, stored)?;
            let value = value.map_err(|damage| TableError::Damaged { what: what(), damage })?;
            let mut value = value.to_vec();
            if prefix == b"k" {
                // The generation of its deltas.
                value.extend_from_slice(&[0; 4]);
            }
            bytes += value.len();
            operations.push(Operation { key: key.to_vec(), value: Some(value) });
            if bytes >= BYTES_PER_RECORD {
                bytes = 0;
                self.write_events(std::mem::take(&mut operations))?;
            }
        }
        self.write_events(operations)
    }

    /// Writes a record, unless it would be empty.
    fn write_events(&mut self, operations: Vec<Operation>) -> Result<(), TableError> {
        let events = std::mem::take(&mut self.events);
        self.bytes = 0;
        if events.is_empty() && operations.is_empty() {
            return Ok(());
        }
        let (number, next) = self.journal.next();
        let first = if events.is_empty() { next.max(self.end) } else { self.first };
        self.first = Seq(first.0 + events.len() as u64);
        let oldest = self.journal.journal().first_event();
        Ok(self.journal.append(&CommitRecord { number, first, oldest, events, operations })?)
    }
}

/// The source of a stored event.
fn owner_of(json: &str) -> Option<SourceId> {
    #[derive(Deserialize)]
    struct OwnedEvent<'a> {
        source: &'a str,
    }
    SourceId::try_new(serde_json::from_str::<OwnedEvent<'_>>(json).ok()?.source).ok()
}
