//! Opens the store: locks the directory, repairs what a crash can leave, finds the head.
//!
//! sled 0.34 refuses to open after a crash at one point: its snapshot writer leaves `snap.N.generating`, and its reader
//! mistakes that for a snapshot. The log is complete then, so the file is removed before opening. A damaged snapshot is
//! renamed once, and sled rebuilds it from the log.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use news::{Epoch, Seq};

use crate::{
    EventTotals, LogReader, LogWriter, SourceShare,
    read::{LogReadError, SharedLog},
    record::{self, Damage},
    share::Shares,
};

/// Options of the store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// sled's page cache, in bytes; expect 64 MiB more after many long items.
    pub cache_bytes: u64,
    /// How much of the log is kept.
    pub retention: Retention,
    /// Maximum size of the events that one visit records, in bytes as stored; the rest waits for the next visits.
    /// [`news::Source::new_bytes_max`] overrides it.
    pub new_bytes_max: u64,
    /// How much one source may take from the others.
    pub share: SourceShare,
}

/// How much of the log is kept; the oldest events are deleted first.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Maximum age of an event.
    pub age: Duration,
    /// Maximum number of events.
    pub events: u64,
    /// Maximum size of all events, in bytes as stored (the files take about twice as much).
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
        layout: u8,
    },
    /// The data is damaged.
    #[error(
        "the data in {path} is damaged ({what}); move the directory away to start with an empty log, or restore a backup"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}

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
/// Reads what was written since it was last opened: some seconds per gigabyte. Blocks.
///
/// # Errors
/// See [`StoreOpenError`]. Nothing in the directory has changed then, except that a damaged snapshot may have been renamed.
pub fn open(path: &Path, options: &StoreOptions) -> Result<(LogWriter, LogReader), StoreOpenError> {
    let io = |source| StoreOpenError::Io { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(io)?;
    let lock = lock(path)?;
    let directory = path.join("log.sled");
    remove_half_written_snapshots(&directory).map_err(io)?;
    let db = match open_sled(&directory, options) {
        Err(sled::Error::Corruption { .. }) if rename_snapshots(&directory).map_err(io)? > 0 => {
            open_sled(&directory, options)
        }
        other => other,
    };
    let db = db.map_err(|error| match error {
        sled::Error::Io(source) => io(source),
        other => StoreOpenError::Damaged { path: path.to_owned(), what: other.to_string() },
    })?;
    let file = File::open(directory.join("db")).map_err(io)?;
    let damaged = |what: String| StoreOpenError::Damaged { path: path.to_owned(), what };
    let refused = |what: &str, error| match error {
        FindError::Damage(Damage::Version(layout)) if layout > record::VERSION => {
            StoreOpenError::Newer { path: path.to_owned(), layout }
        }
        error => damaged(format!("{what}: {error}")),
    };
    let epoch = find_epoch(&db).map_err(|error| refused("epoch", error))?;
    let (oldest, head) = find_bounds(&db).map_err(|e| damaged(e.to_string()))?;
    let live_bytes = find_live_bytes(&db).map_err(|error| refused("byte count", error))?;
    let shared = Arc::new(SharedLog::new(db, epoch, oldest, head));
    let Retention { age, events, bytes } = options.retention;
    let shares = Shares::open(&shared, options.share, EventTotals { events, bytes }, age);
    let shares = shares.map_err(|error| match error {
        LogReadError::Damaged { what, damage } => refused(&what, FindError::Damage(damage)),
        LogReadError::Sled(error) => damaged(error.to_string()),
    })?;
    // Recovered data may be in the page cache only: it must be on disk before it is visible.
    shared.db.flush().map_err(|e| damaged(e.to_string()))?;
    file.sync_data().map_err(io)?;
    let reader = LogReader::new(Arc::clone(&shared));
    Ok((LogWriter::new(shared, file, lock, live_bytes, shares, options), reader))
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

/// sled's deserialiser can panic on a damaged log; that is reported as damage, too.
fn open_sled(directory: &Path, options: &StoreOptions) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(directory)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(Some(500))
        .mode(sled::Mode::LowSpace);
    let open = || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()))
            .unwrap_or_else(|_| Err(sled::Error::Corruption { at: None, bt: () }))
    };
    wait_until_sled_unlocks(directory)?;
    open()
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

#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error(transparent)]
    Sled(#[from] sled::Error),
    #[error(transparent)]
    Damage(#[from] Damage),
    #[error("it has events, but no epoch")]
    NoEpoch,
}

fn find_epoch(db: &sled::Db) -> Result<Epoch, FindError> {
    if let Some(value) = db.get(record::EPOCH)? {
        let text = std::str::from_utf8(record::unseal(&value)?).map_err(|_| Damage::Content)?;
        return Ok(Epoch::try_new(text).map_err(|_| Damage::Content)?);
    }
    if !db.is_empty() {
        return Err(FindError::NoEpoch);
    }
    // 36^6 names: two logs get the same one with a probability of one in two thousand million.
    let name: String = std::iter::repeat_with(|| fastrand::digit(36)).take(6).collect();
    let epoch = Epoch::try_new(&name).expect("six lower-case letters and digits");
    db.insert(record::EPOCH, record::seal(&[name.as_bytes()]))?;
    db.flush()?;
    Ok(epoch)
}

/// The oldest event kept and the newest; an empty log has `(1, 0)`.
fn find_bounds(db: &sled::Db) -> Result<(Seq, Seq), FindError> {
    let events = db.range(record::event_key(Seq(0))..=record::event_key(Seq(u64::MAX)));
    let mut keys = events.keys();
    let first = keys.next().transpose()?.and_then(|key| record::seq_of(&key));
    let last = keys.next_back().transpose()?.and_then(|key| record::seq_of(&key)).or(first);
    Ok((first.unwrap_or(Seq(1)), last.unwrap_or(Seq::NONE)))
}

fn find_live_bytes(db: &sled::Db) -> Result<u64, FindError> {
    let Some(value) = db.get(record::LIVE_BYTES)? else { return Ok(0) };
    let bytes = record::unseal(&value)?.try_into().map_err(|_| Damage::Cut)?;
    Ok(u64::from_le_bytes(bytes))
}
