//! A new store that is written beside the place where it will be, and put there at once.
//!
//! ```text
//! data.new ──► fsync ──► exchanged with data ──► what was there is data.before-restore-1
//! ```
//!
//! A crash leaves the old store or the new one. What is left of a draft is removed by the next one, and nothing else that has
//! its name: after a crash behind the exchange, that is the store that was there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use news::{Epoch, Seq, SourceId, Timestamp};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    identity,
    journal::{
        CommitRecord, JournalWriter, NewRecordEvent, Operation, SegmentLimits, create_folders, sync_folder,
    },
    lock::{JOURNAL, Lock, lock},
    migrate::remove_folder,
    open::SEGMENT_BYTES,
};

use super::ToolError;

/// What one record has.
const EVENTS_PER_RECORD: usize = 2000;
const BYTES_PER_RECORD: usize = 4 << 20;
/// Events at which a segment ends.
const SEGMENT_EVENTS: u64 = 100_000;

/// The file that a draft has until it is done.
const DRAFT: &str = "draft";

/// The folder of a store that must not be used meanwhile, and the one beside it.
#[derive(Debug)]
pub(crate) struct StorePlace {
    /// Absolute.
    pub(crate) store: PathBuf,
    /// Where the new store is written.
    pub(crate) new: PathBuf,
    /// `None` if there is no folder yet.
    _lock: Option<Lock>,
}

impl StorePlace {
    /// Locks the store, if there is one.
    pub(crate) fn take(store: &Path) -> Result<Self, ToolError> {
        let is_there = store.is_dir();
        // The new store comes where the old one is, and not where a symbolic link to it is.
        let found = if is_there { fs::canonicalize(store) } else { std::path::absolute(store) };
        let store = found.map_err(ToolError::file("find", store))?;
        let lock = if is_there { Some(lock(&store)?) } else { None };
        let new = beside(&store, "new");
        if new.join(DRAFT).exists() {
            remove_folder(&new).map_err(ToolError::file("remove", &new))?;
        } else if new.symlink_metadata().is_ok() {
            return Err(ToolError::InTheWay(new));
        }
        Ok(Self { store, new, _lock: lock })
    }

    /// Whether there is nothing but the lock.
    pub(crate) fn is_empty(&self) -> Result<bool, ToolError> {
        let entries = match fs::read_dir(&self.store) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            entries => entries.map_err(ToolError::file("read", &self.store))?,
        };
        for entry in entries {
            let entry = entry.map_err(ToolError::file("read", &self.store))?;
            if entry.file_name() != "lock" {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Begins the new folder, with the owner and the mode of the one before.
    pub(crate) fn create(&self) -> Result<(), ToolError> {
        create_folders(&self.new).map_err(ToolError::file("create", &self.new))?;
        let draft = self.new.join(DRAFT);
        File::create(&draft).map(drop).map_err(ToolError::file("create", &draft))
    }

    /// Puts the new folder in place. Returns where the store before is now, if there was one.
    pub(crate) fn replace(self, epoch: &Epoch) -> Result<Option<PathBuf>, ToolError> {
        let parent = self.store.parent().unwrap_or(&self.store).to_owned();
        identity::write(&self.new, epoch).map_err(ToolError::file("write", &self.new))?;
        self.take_over_owner().map_err(ToolError::file("set the owner of", &self.new))?;
        fs::remove_file(self.new.join(DRAFT)).map_err(ToolError::file("finish", &self.new))?;
        sync_folder(&self.new).map_err(ToolError::file("sync", &self.new))?;
        sync_folder(&parent).map_err(ToolError::file("sync", &parent))?;
        if self.is_empty()? {
            // An empty folder is replaced by a rename, but the lock is in it.
            fs::remove_file(self.store.join("lock")).ok();
            fs::rename(&self.new, &self.store).map_err(ToolError::file("replace", &self.store))?;
            sync_folder(&parent).map_err(ToolError::file("sync", &parent))?;
            return Ok(None);
        }
        let free = (1..u32::MAX).map(|n| beside(&self.store, &format!("before-restore-{n}")));
        let before =
            free.into_iter().find(|path| !path.exists()).unwrap_or_else(|| beside(&self.store, "before"));
        match renameat_with(CWD, &self.new, CWD, &self.store, RenameFlags::EXCHANGE) {
            Ok(()) => fs::rename(&self.new, &before),
            // A file system that cannot exchange two names.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::rename(&self.store, &before).and_then(|()| fs::rename(&self.new, &self.store))
            }
            Err(error) => Err(error.into()),
        }
        .map_err(ToolError::file("replace", &self.store))?;
        sync_folder(&parent).map_err(ToolError::file("sync", &parent))?;
        Ok(Some(before))
    }

    /// The daemon may run as another user than this tool.
    fn take_over_owner(&self) -> io::Result<()> {
        let Ok(before) = fs::metadata(&self.store) else { return Ok(()) };
        fs::set_permissions(&self.new, before.permissions())?;
        let (uid, gid) = (before.uid(), before.gid());
        let is_ours = fs::metadata(&self.new).is_ok_and(|new| (new.uid(), new.gid()) == (uid, gid));
        if is_ours { Ok(()) } else { own_all(&self.new, uid, gid) }
    }
}

fn own_all(folder: &Path, uid: u32, gid: u32) -> io::Result<()> {
    chown(folder, Some(uid), Some(gid))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            own_all(&entry.path(), uid, gid)?;
        } else {
            chown(entry.path(), Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

fn beside(store: &Path, what: &str) -> PathBuf {
    let mut name = store.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    store.with_file_name(name)
}

/// The journal of a new store. Events and changes of several commits become one record.
#[derive(Debug)]
pub(crate) struct DraftJournal {
    folder: PathBuf,
    journal: JournalWriter,
    /// Of the next record.
    events: Vec<NewRecordEvent>,
    operations: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    first: Seq,
    oldest: Seq,
    bytes: usize,
    pub(crate) count: u64,
}

impl DraftJournal {
    /// In the new folder of a place. The log begins with this event.
    pub(crate) fn begin(place: &StorePlace, epoch: Epoch, oldest: Seq) -> Result<Self, ToolError> {
        place.create()?;
        let folder = place.new.join(JOURNAL);
        let limits =
            SegmentLimits { bytes: crate::crash::segment_bytes(SEGMENT_BYTES), events: SEGMENT_EVENTS };
        let journal = JournalWriter::create(&folder, epoch, oldest, limits);
        let journal = journal.map_err(ToolError::file("write", &folder))?;
        let (events, operations) = (Vec::new(), BTreeMap::new());
        Ok(Self { folder, journal, events, operations, first: oldest, oldest, bytes: 0, count: 0 })
    }

    /// Adds an event; those between it and the one before it are missing.
    pub(crate) fn add_event(
        &mut self,
        seq: Seq,
        owner: SourceId,
        recorded: Timestamp,
        sealed: Vec<u8>,
    ) -> Result<(), ToolError> {
        let is_next = self.first.0 + self.events.len() as u64 == seq.0;
        if !is_next || self.events.len() >= EVENTS_PER_RECORD || self.bytes >= BYTES_PER_RECORD {
            self.write()?;
            self.first = seq;
        }
        self.bytes += sealed.len();
        self.events.push(NewRecordEvent { owner, recorded, sealed });
        self.count += 1;
        Ok(())
    }

    /// Adds changes, which come after those that were added before.
    pub(crate) fn add_operations(&mut self, operations: Vec<Operation>) -> Result<(), ToolError> {
        for Operation { key, value } in operations {
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            self.operations.insert(key, value);
        }
        if self.bytes >= BYTES_PER_RECORD { self.write() } else { Ok(()) }
    }

    /// Writes what is left, and brings the names of the files to the disk.
    pub(crate) fn finish(mut self) -> Result<(), ToolError> {
        self.write()?;
        sync_folder(&self.folder).map_err(ToolError::file("sync", &self.folder))
    }

    fn write(&mut self) -> Result<(), ToolError> {
        let events = std::mem::take(&mut self.events);
        let operations: Vec<_> = std::mem::take(&mut self.operations)
            .into_iter()
            .map(|(key, value)| Operation { key, value })
            .collect();
        self.bytes = 0;
        if events.is_empty() && operations.is_empty() {
            return Ok(());
        }
        let (number, next) = self.journal.next();
        let first = if events.is_empty() { next } else { self.first };
        self.first = Seq(first.0 + events.len() as u64);
        let commit = CommitRecord { number, first, oldest: self.oldest, events, operations };
        self.journal.append(&commit).map_err(ToolError::file("write", &self.folder))
    }
}
