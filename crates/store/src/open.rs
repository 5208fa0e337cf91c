//! Opens the store: locks the directory, finds out what the journal has, and brings sled to the same place.
//!
//! ```text
//! journal     sled
//! there       behind it          what is missing is replayed
//! there       missing, damaged   made again from the journal, in the same epoch
//! end is gone ahead of it        the events are lost, their numbers are not used again
//! gone        says that it was   refused, or a new epoch
//! none        of layout 1 to 3   its events are written into a journal
//! ```
//!
//! sled 0.34 refuses to open after a crash at one point: its snapshot writer leaves `snap.N.generating`, and its reader
//! mistakes that for a snapshot. The file is removed before opening.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use news::{Epoch, Seq};

use crate::{
    append::{AppendError, LogWriter},
    identity::{self, FoundIdentity, Identity},
    journal::{self, JournalScan, JournalWriter, Operation, ScanError, SegmentLimits},
    lock::{JOURNAL, SLED, lock},
    migrate::{self, WasUsed},
    notes::OpenNote,
    options::{Retention, StoreOpenError, StoreOptions},
    read::{LogReader, SharedLog},
    record::{self, Damage},
    seen_sets,
    table::{AppliedCommits, REBUILD_NOTE, Table, TableChange, TableError},
    totals::{EventTotals, OwnerTotals},
};

/// Where a damaged sled goes, for those who want to look at it; the next one replaces it.
const SET_ASIDE: &str = "damaged-log.sled";

/// Bytes at which a segment ends, at most and at least.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// Events at which a segment may end.
const SEGMENT_EVENTS_MIN: u64 = 64;
/// What is replayed in one batch.
const REPLAY_BYTES: usize = 1 << 20;
const REPLAY_CHANGES: usize = 1000;

/// Looks at sled's lock, and the delay between them: 15 s in all, many times what a busy machine needs.
const LOCK_ATTEMPTS: u32 = 750;
const LOCK_DELAY: Duration = Duration::from_millis(20);

/// Opens the store in `path`; creates it if it does not exist.
///
/// Reads what was written since sled was last flushed, or all states if they must be made again: some seconds per gigabyte.
/// A store of an earlier version is brought into the layout of this one, which programs of that version refuse. Blocks.
///
/// # Errors
/// See [`StoreOpenError`]. Nothing in the directory has changed then.
pub fn open(path: &Path, options: &StoreOptions) -> Result<(LogWriter, LogReader), StoreOpenError> {
    let io = |source| StoreOpenError::Io { path: path.to_owned(), source };
    journal::create_folders(path).map_err(io)?;
    let mut lock = lock(path)?;
    let mut opening = Opening { path, options, notes: Vec::new() };
    let (journal, table, unjournalled) = opening.open_both()?;
    let is_new = journal.is_new();
    let Opened { journal, oldest, head, totals } = opening.bounds(journal, &table).map_err(io)?;
    if journal.removed_end() > 0 {
        opening.notes.push(OpenNote::EndUnfinished { bytes: journal.removed_end() });
    }
    let (identity, found) = Identity::open(path, &journal.journal().epoch, is_new).map_err(io)?;
    match found {
        FoundIdentity::Original => {}
        FoundIdentity::Repaired => opening.notes.push(OpenNote::IdentityRepaired),
        FoundIdentity::Copied => opening.notes.push(OpenNote::Copied),
    }
    lock.keep_name();
    migrate::remove_old(path).map_err(io)?;
    let shared = Arc::new(SharedLog::new(table, &journal, identity, (oldest, head), opening.notes));
    shared.note_missing_segments();
    let reader = LogReader::new(Arc::clone(&shared));
    let mut writer = LogWriter::try_new(shared, journal, lock, totals, options).map_err(io)?;
    if !unjournalled.is_empty() {
        writer.journal_again(&unjournalled).map_err(|error| opening_failed(path, error))?;
    }
    Ok((writer, reader))
}

fn opening_failed(path: &Path, error: AppendError) -> StoreOpenError {
    let path = path.to_owned();
    match error {
        // A full disk above all: it is not damaged, and a start with its ballast removed can have the space.
        AppendError::Journal(source)
        | AppendError::Table(TableError::Io(source) | TableError::Sled(sled::Error::Io(source))) => {
            StoreOpenError::Io { path, source }
        }
        error => StoreOpenError::Damaged { path, what: error.to_string() },
    }
}

/// An open that is under way.
struct Opening<'a> {
    path: &'a Path,
    options: &'a StoreOptions,
    notes: Vec<OpenNote>,
}

/// The journal, ready to be written, and what it has.
struct Opened {
    journal: JournalWriter,
    oldest: Seq,
    head: Seq,
    totals: OwnerTotals,
}

/// The journal as it was found, or a new one.
enum FoundJournal {
    Old(JournalScan),
    New(JournalWriter),
}

impl FoundJournal {
    /// Whether nothing was ever recorded in it.
    fn is_new(&self) -> bool {
        match self {
            Self::Old(scanned) => !scanned.has_commits(),
            Self::New(_) => true,
        }
    }
}

impl Opening<'_> {
    fn io(&self, source: io::Error) -> StoreOpenError {
        StoreOpenError::Io { path: self.path.to_owned(), source }
    }

    fn damaged(&self, what: &dyn ToString) -> StoreOpenError {
        StoreOpenError::Damaged { path: self.path.to_owned(), what: what.to_string() }
    }

    fn lost(&self, what: &str) -> StoreOpenError {
        StoreOpenError::Lost { path: self.path.to_owned(), what: what.to_owned() }
    }

    fn table_failed(&self, error: TableError) -> StoreOpenError {
        match error {
            TableError::Io(source) | TableError::Sled(sled::Error::Io(source)) => self.io(source),
            other => self.damaged(&other),
        }
    }

    /// The journal, and sled as far as the journal has come. Also the commits whose values are in sled, and may not be in
    /// the journal.
    fn open_both(&mut self) -> Result<(FoundJournal, Table, Vec<Range<u64>>), StoreOpenError> {
        let scanned = self.scan()?;
        let scanned = match scanned {
            Some(scanned) => Some(scanned),
            None => self.migrate()?,
        };
        let Some(mut scanned) = scanned else { return self.begin() };
        if !scanned.strays.is_empty() {
            self.notes.push(OpenNote::Strays { segments: scanned.strays.clone() });
        }
        let table = self.open_table(&mut scanned)?;
        let AppliedCommits { commit, head, .. } = table.applied();
        let next = scanned.next();
        let mut unjournalled = scanned.missing_commits();
        if commit >= next.0 {
            unjournalled.push(next.0..u64::MAX);
        }
        if head >= next.1 {
            self.notes.push(OpenNote::EndLost { first: next.1, count: head.0 + 1 - next.1.0 });
        }
        Ok((FoundJournal::Old(scanned), table, unjournalled))
    }

    fn scan(&self) -> Result<Option<JournalScan>, StoreOpenError> {
        let scanned = journal::scan(&self.path.join(JOURNAL)).map_err(|error| match error {
            ScanError::File { path, source } => StoreOpenError::Unreadable { path, source },
            ScanError::Newer(layout) => StoreOpenError::Newer { path: self.path.to_owned(), layout },
            ScanError::Misplaced(segment) => StoreOpenError::Misplaced(segment),
            mixed @ ScanError::Mixed { .. } => self.damaged(&mixed),
        })?;
        // If no header of a segment is whole, another file may say it.
        let with_epoch = |mut scanned: JournalScan| {
            let folder = self.path.join(JOURNAL);
            scanned.epoch = scanned.epoch.or_else(|| identity::epoch(self.path));
            scanned.epoch = scanned.epoch.or_else(|| journal::epoch_of_events(&folder));
            scanned
        };
        Ok(scanned.filter(JournalScan::has_segments).map(with_epoch))
    }

    /// Brings the store of an earlier version into the layout of this one, if that is what is here.
    fn migrate(&mut self) -> Result<Option<JournalScan>, StoreOpenError> {
        let folder = self.path.join(SLED);
        let is_migrated = identity::exists(self.path) && !migrate::is_unfinished(self.path);
        if is_migrated || !folder.join("db").exists() {
            return Ok(None);
        }
        wait_until_sled_unlocks(&folder).map_err(|error| self.io(error))?;
        let was_used = migrate::was_used(&folder).map_err(|error| self.io(error))?;
        if was_used == WasUsed::Cut && !self.options.accept_loss {
            return Err(self.lost("log.sled/db is cut"));
        }
        remove_half_written_snapshots(&folder).map_err(|error| self.io(error))?;
        let limits = self.limits();
        let migrated = match migrate::migrate(self.path, limits) {
            Err(TableError::Sled(sled::Error::Corruption { .. }) | TableError::Panicked(_))
                if rename_snapshots(&folder).map_err(|error| self.io(error))? > 0 =>
            {
                migrate::migrate(self.path, limits)
            }
            migrated => migrated,
        };
        match migrated {
            Ok(Some(events)) => self.notes.push(OpenNote::Migrated { events }),
            Ok(None) if was_used != WasUsed::No => {
                return if self.options.accept_loss {
                    Ok(None)
                } else {
                    Err(self.lost("log.sled/ has nothing"))
                };
            }
            // A start that was interrupted has made it.
            Ok(None) => {
                migrate::remove_folder(&folder).map_err(|error| self.io(error))?;
                return Ok(None);
            }
            Err(TableError::Damaged { damage: Damage::Version(layout), what }) => {
                let path = self.path.to_owned();
                let is_newer = layout > crate::record::STORE_LAYOUT;
                if layout == crate::record::STORE_LAYOUT && self.options.accept_loss {
                    return Ok(None);
                }
                return Err(if is_newer {
                    StoreOpenError::Newer { path, layout: layout.into() }
                } else {
                    StoreOpenError::Lost { path, what }
                });
            }
            Err(error) => return Err(self.table_failed(error)),
        }
        self.scan()
    }

    /// A new log. If there was one before, the caller must have accepted that it is lost.
    fn begin(&mut self) -> Result<(FoundJournal, Table, Vec<Range<u64>>), StoreOpenError> {
        let remains = journal::remains(&self.path.join(JOURNAL)).map_err(|error| self.io(error))?;
        let is_there =
            |entries: io::Result<fs::ReadDir>| entries.is_ok_and(|mut entries| entries.next().is_some());
        let was_one = remains || identity::exists(self.path) || is_there(fs::read_dir(self.path.join(SLED)));
        if was_one {
            if !self.options.accept_loss {
                let what =
                    if remains { "no segment in journal/ can be read" } else { "journal/ has no segments" };
                return Err(self.lost(what));
            }
            self.notes.push(OpenNote::NewEpoch);
        }
        let epoch = Epoch::random(fastrand::digit);
        if !was_one {
            self.notes.push(OpenNote::Begun);
            // First the journal: the next start goes on from it if this one is interrupted.
            let journal = self.begin_journal(epoch.clone())?;
            return Ok((FoundJournal::New(journal), self.begin_table(&epoch)?, Vec::new()));
        }
        // First the table: a table of another epoch is not trusted.
        let table = self.begin_table(&epoch)?;
        let unjournalled = 0..1;
        Ok((FoundJournal::New(self.begin_journal(epoch)?), table, vec![unjournalled]))
    }

    fn begin_table(&mut self, epoch: &Epoch) -> Result<Table, StoreOpenError> {
        let table = match self.try_table() {
            Ok(table) => table,
            Err(error) if error.is_damage() || error.is_unreadable() => self.replace_table(&error)?,
            Err(error) => return Err(self.table_failed(error)),
        };
        table.begin_epoch(epoch).map_err(|error| self.table_failed(error))?;
        Ok(table)
    }

    fn begin_journal(&self, epoch: Epoch) -> Result<JournalWriter, StoreOpenError> {
        let folder = self.path.join(JOURNAL);
        journal::set_aside_all(&folder).map_err(|error| self.io(error))?;
        JournalWriter::create(&folder, epoch, Seq(1), self.limits()).map_err(|error| self.io(error))
    }

    /// Values in sled that are older than the journal are replaced.
    fn open_table(&mut self, scanned: &mut JournalScan) -> Result<Table, StoreOpenError> {
        let note = fs::read_to_string(self.path.join(REBUILD_NOTE)).ok();
        let is_missing = !self.path.join(SLED).join("db").exists();
        let why_empty = Some(if is_missing { "it was missing" } else { "it was empty" });
        let is_right = |table: &Table| match (table.epoch(), &scanned.epoch) {
            (Ok(Some(epoch)), Some(of_journal)) if epoch != *of_journal => {
                Err(format!("it is of the log {epoch}"))
            }
            (Ok(_), _) => table.verify().map_err(|error| error.to_string()),
            (Err(error), _) => Err(error.to_string()),
        };
        let wrong = match note {
            Some(why) => why.trim().to_owned(),
            None => match self.try_table() {
                Ok(table) => match is_right(&table) {
                    Ok(()) => match self.replay(table, scanned, why_empty) {
                        Err(error) if error.is_damage() => error.to_string(),
                        replayed => return replayed.map_err(|error| self.table_failed(error)),
                    },
                    Err(why) => why,
                },
                Err(error) if error.is_damage() || error.is_unreadable() => error.to_string(),
                Err(error) => return Err(self.table_failed(error)),
            },
        };
        let table = self.replace_table(&wrong)?;
        self.replay(table, scanned, None).map_err(|error| self.table_failed(error))
    }

    fn try_table(&self) -> Result<Table, TableError> {
        let folder = self.path.join(SLED);
        wait_until_sled_unlocks(&folder)?;
        remove_half_written_snapshots(&folder)?;
        Table::open(&folder, self.options.cache_bytes)
    }

    /// An empty table; the one before is set aside.
    fn replace_table(&mut self, why: &dyn ToString) -> Result<Table, StoreOpenError> {
        let folder = self.path.join(SLED);
        let set_aside = || {
            wait_until_sled_unlocks(&folder)?;
            let aside = self.path.join(SET_ASIDE);
            migrate::remove_folder(&aside)?;
            match fs::rename(&folder, &aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            journal::sync_folder(self.path)?;
            crate::crash::point("rebuild-renamed");
            match fs::remove_file(self.path.join(REBUILD_NOTE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        set_aside().map_err(|error| self.io(error))?;
        self.notes.push(OpenNote::Rebuilt { why: why.to_string() });
        self.try_table().map_err(|error| self.table_failed(error))
    }

    /// `why_empty` is why the table is made again if there is nothing in it.
    fn replay(
        &mut self,
        table: Table,
        scanned: &mut JournalScan,
        why_empty: Option<&str>,
    ) -> Result<Table, TableError> {
        scanned.leave_out_torn(table.applied().commit);
        let is_new = table.epoch()?.is_none();
        if let Some(why) = why_empty.filter(|_| is_new && scanned.has_commits() && !self.is_migration()) {
            self.notes.push(OpenNote::Rebuilt { why: why.to_owned() });
        }
        let from = if is_new { 1 } else { table.applied().flushed + 1 };
        let damaged = replay(&table, scanned, from)?;
        if damaged > 0 {
            self.notes.push(OpenNote::DamagedChanges { records: damaged });
        }
        if is_new || damaged > 0 {
            seen_sets::mend_all(&table)?;
        }
        if let Some(epoch) = scanned.epoch.as_ref().filter(|_| is_new) {
            table.set_epoch(epoch)?;
            table.close()?;
            crate::crash::point("rebuild-built");
        }
        Ok(table)
    }

    fn is_migration(&self) -> bool {
        matches!(self.notes.last(), Some(OpenNote::Migrated { .. }))
    }

    fn limits(&self) -> SegmentLimits {
        let Retention { events, bytes, .. } = self.options.retention;
        SegmentLimits {
            bytes: crate::crash::segment_bytes((bytes / 8).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES)),
            events: (events / 8).max(SEGMENT_EVENTS_MIN),
        }
    }

    /// Makes the journal ready, and finds what of it is kept.
    fn bounds(&self, journal: FoundJournal, table: &Table) -> io::Result<Opened> {
        let scanned = match journal {
            FoundJournal::New(journal) => {
                let totals = OwnerTotals::new();
                return Ok(Opened { journal, oldest: Seq(1), head: Seq::NONE, totals });
            }
            FoundJournal::Old(scanned) => scanned,
        };
        let AppliedCommits { commit, head, oldest, .. } = table.applied();
        let oldest = scanned.oldest().max(oldest);
        let epoch = match (&scanned.epoch, table.epoch()) {
            (Some(epoch), _) => epoch.clone(),
            (None, Ok(Some(epoch))) => epoch,
            (None, _) => return Err(io::Error::other("no file says which epoch the log has")),
        };
        let mut totals = scanned.totals.clone();
        let journal = JournalWriter::resume(scanned, epoch, (commit + 1, head.next()), self.limits())?;
        let head = Seq(journal.next().1.0 - 1);
        subtract_removed(&mut totals, &journal, oldest)?;
        Ok(Opened { journal, oldest: oldest.min(head.next()), head, totals })
    }
}

/// Takes out of the totals the events that retention had removed from a segment that is still there.
fn subtract_removed(totals: &mut OwnerTotals, journal: &JournalWriter, oldest: Seq) -> io::Result<()> {
    let mut events = journal.journal().events_from(journal.journal().first_event());
    while let Some(event) = events.next()?.filter(|event| event.seq < oldest) {
        if let Some(has) = totals.get_mut(&event.owner) {
            *has = has.without(EventTotals { events: 1, bytes: u64::from(event.bytes) });
        }
    }
    totals.retain(|_, has| has.events > 0);
    Ok(())
}

/// Applies what the journal has from a commit on. Returns in how many records it is damaged.
fn replay(table: &Table, scanned: &JournalScan, from: u64) -> Result<u64, TableError> {
    let (next_commit, next_event) = scanned.next();
    let head = Seq(next_event.0 - 1);
    // Each value at most once in a batch.
    let mut changes = BTreeMap::new();
    let mut bytes = 0;
    let mut last = 0;
    let mut with_damaged_values = 0;
    let damaged = scanned.operations_in(from..next_commit, |commit, operations| {
        let all = operations.len();
        let operations = whole_values(operations)?;
        with_damaged_values += u64::from(operations.len() < all);
        for operation in operations {
            // What sled has of a later commit, or in addition to this one, stays.
            let stored = table.get(&operation.key)?;
            if stored.is_some_and(|stored| stored.commit >= commit) {
                continue;
            }
            bytes += operation.value.as_ref().map_or(0, Vec::len);
            changes.insert(operation.key.clone(), TableChange::of(operation, commit));
        }
        last = commit;
        if bytes > REPLAY_BYTES || changes.len() > REPLAY_CHANGES {
            table.apply(std::mem::take(&mut changes).into_values(), commit, head)?;
            bytes = 0;
        }
        Ok::<_, TableError>(())
    })?;
    let applied = table.applied();
    let commit = (next_commit - 1).max(applied.commit).max(last);
    if !changes.is_empty() || applied.commit < commit {
        table.apply(changes.into_values(), commit, head.max(applied.head))?;
    }
    Ok(damaged + with_damaged_values)
}

/// Leaves out values that were damaged before they came into the journal: each start would make them again, and each visit of
/// their source would end the process.
fn whole_values(operations: Vec<Operation>) -> Result<Vec<Operation>, TableError> {
    let mut whole = Vec::with_capacity(operations.len());
    for operation in operations {
        match operation.value.as_deref().map_or(Ok(()), |value| record::check_value(&operation.key, value)) {
            Ok(()) => whole.push(operation),
            // Of a later version of this program, which can read it.
            Err(damage @ Damage::Version(_)) => {
                let what = String::from_utf8_lossy(&operation.key).into_owned();
                return Err(TableError::Damaged { what, damage });
            }
            Err(_) => {}
        }
    }
    Ok(whole)
}

/// Waits for sled's own lock. This process has the lock on the directory, so only a dropped database of this process can hold
/// it: its background threads release the file a moment later. The lock of a process that has ended is free.
pub(crate) fn wait_until_sled_unlocks(directory: &Path) -> io::Result<()> {
    let file = match File::open(directory.join("db")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => pause(),
            // Released at the end of this function, for sled.
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    // sled's error says what is wrong.
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "opening blocks by contract, and is never done on an event loop"
)]
fn pause() {
    std::thread::sleep(LOCK_DELAY);
}

fn snapshots(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_half_written_snapshots(directory: &Path) -> io::Result<()> {
    for path in snapshots(directory)? {
        if path.extension().is_some_and(|e| e == "generating") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Renames `snap.N` to `damaged-snap.N`, which sled ignores. Returns their number.
fn rename_snapshots(directory: &Path) -> io::Result<usize> {
    let found = snapshots(directory)?;
    for path in &found {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        fs::rename(path, directory.join(format!("damaged-{name}")))?;
    }
    Ok(found.len())
}
