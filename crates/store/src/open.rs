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
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use news::{Epoch, Seq};

use crate::{
    LogReader, LogWriter, SourceShare,
    identity::Identity,
    journal::{self, JournalWriter, OwnerTotals, ScanError, Scanned, SegmentLimits},
    migrate,
    read::SharedLog,
    record::Damage,
    share::EventTotals,
    table::{AppliedCommits, REBUILD_NOTE, Table, TableChange, TableError},
};

/// Options of the store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// sled's page cache, in bytes.
    pub cache_bytes: u64,
    /// How much of the log is kept.
    pub retention: Retention,
    /// Maximum size of the events that one visit records, in bytes as stored; the rest waits for the next visits.
    /// [`news::Source::new_bytes_max`] overrides it.
    pub new_bytes_max: u64,
    /// How much one source may take from the others.
    pub share: SourceShare,
    /// Whether a store whose journal is gone begins a new epoch, instead of being refused.
    pub accept_loss: bool,
}

/// How much of the log is kept; the oldest events are deleted first.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Maximum age of an event.
    pub age: Duration,
    /// Maximum number of events.
    pub events: u64,
    /// Maximum size of all events, in bytes as stored; the files take up to four times as much.
    pub bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let retention = Retention {
            age: Duration::from_secs(30 * 86_400),
            events: 1_000_000,
            bytes: 4 * 1024 * 1024 * 1024,
        };
        Self {
            cache_bytes: 32 * 1024 * 1024,
            retention,
            new_bytes_max: 8 * 1024 * 1024,
            share: SourceShare::default(),
            accept_loss: false,
        }
    }
}

/// Why the store could not be opened. The text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// Another process uses it.
    #[error(
        "the data directory {path} is in use by {holder}; stop that process or choose another store.path"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock, as written in the lock file.
        holder: String,
    },
    /// The directory cannot be used.
    #[error(
        "cannot use the data directory {path}: {source}; check that it exists, is writable and has space"
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A later version of this program wrote it.
    #[error(
        "the data in {path} was written by a newer version of this program (layout {layout}); install that version \
         again, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The layout of its records.
        layout: u16,
    },
    /// The data is damaged, and there is nothing to make it again from.
    #[error(
        "the data in {path} is damaged ({what}); restore a backup (newswire log restore), or move the directory away to \
         start with an empty log"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The journal is gone, while other files say that there was one.
    #[error(
        "the journal of the store in {path} is gone ({what}), and with it all events; restore a backup (newswire log \
         restore), or start once with --accept-loss: the log is then empty and has a new epoch, and clients are told so"
    )]
    Lost {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}

/// What an open found and mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenNote {
    /// A store of an earlier version was brought into the layout of this one; it had so many events.
    Migrated {
        /// Events that are in the journal now.
        events: u64,
    },
    /// The states of sources were made again from the journal.
    Rebuilt {
        /// Why.
        why: String,
    },
    /// The end of the journal is gone or damaged; these events are lost. Their numbers are not used again.
    EndLost {
        /// The first of them.
        first: Seq,
        /// How many.
        count: u64,
    },
    /// Records whose changes of states are damaged; their events are not.
    DamagedChanges {
        /// How many.
        records: u64,
    },
    /// The files are a copy of another store, or were restored.
    Copied,
    /// The log is empty and has a new epoch, as the caller has accepted.
    NewEpoch,
}

/// The folder of the journal.
pub(crate) const JOURNAL: &str = "journal";
/// The folder of sled.
pub(crate) const SLED: &str = "log.sled";
/// Where a damaged sled goes, for those who want to look at it; the next one replaces it.
const SET_ASIDE: &str = "damaged-log.sled";

/// Bytes at which a segment ends, at most and at least.
const SEGMENT_BYTES: u64 = 16 << 20;
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// Events at which a segment may end.
const SEGMENT_EVENTS_MIN: u64 = 64;
/// What is replayed in one batch.
const REPLAY_BYTES: usize = 1 << 20;
const REPLAY_CHANGES: usize = 1000;

/// Looks at sled's lock, and the delay between them: 15 s in all, many times what a busy machine needs.
const LOCK_ATTEMPTS: u32 = 750;
const LOCK_DELAY: Duration = Duration::from_millis(20);

/// The lock on the directory; held as long as the writer exists.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Opens the store in `path`; creates it if it does not exist.
///
/// Reads what was written since sled was last flushed, or all states if they must be made again: some seconds per gigabyte.
/// A store of an earlier version is brought into the layout of this one, which programs of that version refuse. Blocks.
///
/// # Errors
/// See [`StoreOpenError`]. Nothing in the directory has changed then.
pub fn open(path: &Path, options: &StoreOptions) -> Result<(LogWriter, LogReader), StoreOpenError> {
    let io = |source| StoreOpenError::Io { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(io)?;
    let lock = lock(path)?;
    let mut opening = Opening { path, options, notes: Vec::new() };
    let (journal, table, unjournalled) = opening.open_both()?;
    let Opened { journal, oldest, head, totals } = opening.bounds(journal, &table).map_err(io)?;
    let identity = Identity::check(path, &journal.journal().epoch).map_err(io)?;
    if !identity.is_original {
        opening.notes.push(OpenNote::Copied);
    }
    migrate::remove_old(path).map_err(io)?;
    let shared = Arc::new(SharedLog::new(table, Arc::clone(journal.journal()), oldest, head, opening.notes));
    let reader = LogReader::new(Arc::clone(&shared));
    let mut writer = LogWriter::try_new(shared, journal, lock, totals, options).map_err(io)?;
    if let Some(from) = unjournalled {
        writer.journal_again(from).map_err(|error| opening_failed(path, &error))?;
    }
    Ok((writer, reader))
}

fn opening_failed(path: &Path, error: &dyn std::error::Error) -> StoreOpenError {
    StoreOpenError::Damaged { path: path.to_owned(), what: error.to_string() }
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
    Old(Scanned),
    New(JournalWriter),
}

impl Opening<'_> {
    fn io(&self, source: io::Error) -> StoreOpenError {
        StoreOpenError::Io { path: self.path.to_owned(), source }
    }

    fn damaged(&self, what: &dyn ToString) -> StoreOpenError {
        StoreOpenError::Damaged { path: self.path.to_owned(), what: what.to_string() }
    }

    fn table_failed(&self, error: TableError) -> StoreOpenError {
        match error {
            TableError::Io(source) | TableError::Sled(sled::Error::Io(source)) => self.io(source),
            other => self.damaged(&other),
        }
    }

    /// The journal, and sled as far as the journal has come. Also from which commit on the values in sled are not in the
    /// journal.
    fn open_both(&mut self) -> Result<(FoundJournal, Table, Option<u64>), StoreOpenError> {
        let scanned = self.scan()?;
        let scanned = match scanned {
            Some(scanned) => Some(scanned),
            None => self.migrate()?,
        };
        let Some(scanned) = scanned else { return self.begin() };
        let table = self.open_table(&scanned)?;
        let AppliedCommits { commit, head, .. } = table.applied();
        let next = scanned.next();
        let unjournalled = (commit >= next.0).then_some(next.0);
        if head >= next.1 {
            self.notes.push(OpenNote::EndLost { first: next.1, count: head.0 + 1 - next.1.0 });
        }
        Ok((FoundJournal::Old(scanned), table, unjournalled))
    }

    fn scan(&self) -> Result<Option<Scanned>, StoreOpenError> {
        let scanned = journal::scan(&self.path.join(JOURNAL)).map_err(|error| match error {
            ScanError::Io(source) => self.io(source),
            ScanError::Newer(layout) => StoreOpenError::Newer { path: self.path.to_owned(), layout },
            mixed @ ScanError::Mixed(..) => self.damaged(&mixed),
        })?;
        Ok(scanned.filter(|scanned| scanned.has_segments()))
    }

    /// Brings the store of an earlier version into the layout of this one, if that is what is here.
    fn migrate(&mut self) -> Result<Option<Scanned>, StoreOpenError> {
        let folder = self.path.join(SLED);
        if Identity::exists(self.path) || !folder.join("db").exists() {
            return Ok(None);
        }
        wait_until_sled_unlocks(&folder).map_err(|error| self.io(error))?;
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
            Ok(events) => self.notes.push(OpenNote::Migrated { events }),
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
    fn begin(&mut self) -> Result<(FoundJournal, Table, Option<u64>), StoreOpenError> {
        let was_one = Identity::exists(self.path) || self.path.join(SLED).join("db").exists();
        if was_one {
            if !self.options.accept_loss {
                let what = "journal/ has no segments".to_owned();
                return Err(StoreOpenError::Lost { path: self.path.to_owned(), what });
            }
            self.notes.push(OpenNote::NewEpoch);
        }
        let epoch = new_epoch();
        let table = match self.try_table() {
            Ok(table) => table,
            Err(error) if error.is_damage() => self.replace_table(&error)?,
            Err(error) => return Err(self.table_failed(error)),
        };
        // First the table: a table of another epoch is not trusted.
        table.begin_epoch(&epoch).map_err(|error| self.table_failed(error))?;
        let folder = self.path.join(JOURNAL);
        journal::remove_unfinished(&folder).map_err(|error| self.io(error))?;
        let journal = JournalWriter::create(&folder, epoch, Seq(1), self.limits());
        let journal = journal.map_err(|error| self.io(error))?;
        Ok((FoundJournal::New(journal), table, was_one.then_some(0)))
    }

    /// Values in sled that are older than the journal are replaced.
    fn open_table(&mut self, scanned: &Scanned) -> Result<Table, StoreOpenError> {
        let note = fs::read_to_string(self.path.join(REBUILD_NOTE)).ok();
        let is_missing = !self.path.join(SLED).join("db").exists();
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
                    Ok(()) => return self.replay(table, scanned, is_missing),
                    Err(why) => why,
                },
                Err(error) if error.is_damage() => error.to_string(),
                Err(error) => return Err(self.table_failed(error)),
            },
        };
        let table = self.replace_table(&wrong)?;
        self.replay(table, scanned, false)
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

    fn replay(&mut self, table: Table, scanned: &Scanned, is_missing: bool) -> Result<Table, StoreOpenError> {
        let is_new = table.epoch().map_err(|error| self.table_failed(error))?.is_none();
        if is_new && is_missing && !self.is_migration() {
            self.notes.push(OpenNote::Rebuilt { why: "it was missing".to_owned() });
        }
        let from = if is_new { 1 } else { table.applied().flushed + 1 };
        let damaged = replay(&table, scanned, from).map_err(|error| self.table_failed(error))?;
        if damaged > 0 {
            self.notes.push(OpenNote::DamagedChanges { records: damaged });
        }
        if let Some(epoch) = scanned.epoch.as_ref().filter(|_| is_new) {
            let flushed = table.set_epoch(epoch).and_then(|()| table.close());
            flushed.map_err(|error| self.table_failed(error))?;
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
fn replay(table: &Table, scanned: &Scanned, from: u64) -> Result<u64, TableError> {
    let (next_commit, next_event) = scanned.next();
    let head = Seq(next_event.0 - 1);
    let mut changes = Vec::new();
    let mut bytes = 0;
    let mut last = 0;
    let damaged = scanned.operations_in(from..next_commit, |commit, operations| {
        for operation in operations {
            // What sled has of a later commit, or in addition to this one, stays.
            let stored = table.get(&operation.key)?;
            if stored.is_some_and(|stored| stored.commit >= commit) {
                continue;
            }
            bytes += operation.value.as_ref().map_or(0, Vec::len);
            changes.push(TableChange::of(operation, commit));
        }
        last = commit;
        if bytes > REPLAY_BYTES || changes.len() > REPLAY_CHANGES {
            table.apply(&std::mem::take(&mut changes), commit, head)?;
            bytes = 0;
        }
        Ok::<_, TableError>(())
    })?;
    let applied = table.applied();
    let commit = (next_commit - 1).max(applied.commit).max(last);
    if !changes.is_empty() || applied.commit < commit {
        table.apply(&changes, commit, head.max(applied.head))?;
    }
    Ok(damaged)
}

/// 36^6 names: two logs get the same one with a probability of one in two thousand million.
fn new_epoch() -> Epoch {
    let name: String = std::iter::repeat_with(|| fastrand::digit(36)).take(6).collect();
    Epoch::try_new(&name).expect("six lower-case letters and digits")
}

fn lock(path: &Path) -> Result<Lock, StoreOpenError> {
    let io = |source| StoreOpenError::Io { path: path.to_owned(), source };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("lock"))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.take(256).read_to_string(&mut holder).map_err(io)?;
            let holder =
                if holder.trim().is_empty() { "another process".into() } else { holder.trim().into() };
            return Err(StoreOpenError::Locked { path: path.to_owned(), holder });
        }
        Err(fs::TryLockError::Error(source)) => return Err(io(source)),
    }
    let name =
        std::env::current_exe().ok().and_then(|exe| Some(exe.file_name()?.to_string_lossy().into_owned()));
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "process {} ({})", std::process::id(), name.unwrap_or_default()).map_err(io)?;
    Ok(Lock { _file: file })
}

/// Waits for sled's own lock. This process has the lock on the directory, so only a dropped database of this process can hold
/// it: its background threads release the file a moment later. The lock of a process that has ended is free.
fn wait_until_sled_unlocks(directory: &Path) -> io::Result<()> {
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
