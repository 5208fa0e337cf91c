//! A new store that is written beside the place where it will be, and put there at once.
//!
//! ```text
//! data.draft-1 ──► fsync ──► exchanged with data ──► what was there is data.before-restore-1
//! ```
//!
//! A crash leaves the old store or the new one. A draft never has the name of something that is there. It is removed when the
//! work fails, and by the next one after a crash, but nothing else that has such a name: after a crash behind the exchange,
//! that is the store that was there.

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
        CommitRecord, JournalWriter, NewRecordEvent, Operation, SegmentLimits, create_folders,
        segment_numbers, sync_folder,
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

/// The file that a draft has until it is done, locked by the process that makes it.
const DRAFT: &str = "draft";

/// The folder of a store that must not be used meanwhile, and the one beside it.
#[derive(Debug)]
pub(crate) struct StorePlace {
    /// Absolute.
    pub(crate) store: PathBuf,
    draft: Option<DraftFolder>,
    /// `None` if there is no folder yet.
    _lock: Option<Lock>,
}

/// Where the new store is written. Removed when dropped, unless it was put in place.
#[derive(Debug)]
struct DraftFolder {
    path: PathBuf,
    /// Then the store that was there may have its name.
    is_in_place: bool,
    _marker: File,
}

impl Drop for DraftFolder {
    fn drop(&mut self) {
        if !self.is_in_place {
            remove_folder(&self.path).ok();
        }
    }
}

impl StorePlace {
    /// Locks the store, if there is one.
    pub(crate) fn take(store: &Path) -> Result<Self, ToolError> {
        let is_there = store.is_dir();
        // The new store comes where the old one is, and not where a symbolic link to it is.
        let found = if is_there { fs::canonicalize(store) } else { std::path::absolute(store) };
        let store = found.map_err(ToolError::file("find", store))?;
        let lock = if is_there { Some(lock(&store)?) } else { None };
        Ok(Self { store, draft: None, _lock: lock })
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

    /// Begins the new folder, under a name that nothing has.
    pub(crate) fn create(&mut self) -> Result<PathBuf, ToolError> {
        let parent = self.store.parent().unwrap_or(&self.store);
        create_folders(parent).map_err(ToolError::file("create", parent))?;
        self.remove_interrupted();
        let names = (1..u32::MAX).map(|n| beside(&self.store, &format!("draft-{n}")));
        let mut path = self.store.clone();
        let created = { names }.find_map(|name| {
            path = name;
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                created => Some(created),
            }
        });
        let created = created.unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()));
        created.map_err(ToolError::file("create", &path))?;
        let marker = File::create_new(path.join(DRAFT)).and_then(|marker| {
            marker.lock()?;
            Ok(marker)
        });
        let marker = marker.map_err(|error| {
            remove_folder(&path).ok();
            ToolError::file("create", path.join(DRAFT))(error)
        })?;
        self.draft = Some(DraftFolder { path: path.clone(), is_in_place: false, _marker: marker });
        Ok(path)
    }

    /// Removes the drafts of processes that have died. They have a marker that is not locked.
    fn remove_interrupted(&self) {
        let prefix = beside(&self.store, "draft-");
        let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
        let entries = self.store.parent().and_then(|parent| fs::read_dir(parent).ok());
        for entry in entries.into_iter().flatten().flatten() {
            let is_named = entry.file_name().as_encoded_bytes().starts_with(prefix);
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_named || !is_folder {
                continue;
            }
            let marker = File::open(entry.path().join(DRAFT));
            if marker.is_ok_and(|marker| marker.try_lock().is_ok()) {
                // Nothing depends on it.
                remove_folder(&entry.path()).ok();
            }
        }
    }

    /// Puts the new folder in place. Returns where the store before is now, if there was one.
    pub(crate) fn replace(mut self) -> Result<Option<PathBuf>, ToolError> {
        let Some(mut draft) = self.draft.take() else { return Ok(None) };
        let parent = self.store.parent().unwrap_or(&self.store).to_owned();
        self.take_over_owner(&draft.path).map_err(ToolError::file("set the owner of", &draft.path))?;
        let is_empty = self.is_empty()?;
        fs::remove_file(draft.path.join(DRAFT)).map_err(ToolError::file("finish", &draft.path))?;
        sync_folder(&draft.path).map_err(ToolError::file("sync", &draft.path))?;
        sync_folder(&parent).map_err(ToolError::file("sync", &parent))?;
        let before = if is_empty {
            // An empty folder is replaced by a rename, but the lock is in it.
            fs::remove_file(self.store.join("lock")).ok();
            fs::rename(&draft.path, &self.store).map(|()| {
                draft.is_in_place = true;
                None
            })
        } else {
            self.exchange(&mut draft).map(Some)
        };
        let before = before.map_err(ToolError::file("replace", &self.store))?;
        sync_folder(&parent).map_err(ToolError::file("sync", &parent))?;
        Ok(before)
    }

    fn exchange(&self, draft: &mut DraftFolder) -> io::Result<PathBuf> {
        let names = (1..u32::MAX).map(|n| beside(&self.store, &format!("before-restore-{n}")));
        let is_free = |path: &PathBuf| path.symlink_metadata().is_err();
        let before = { names }.find(is_free).unwrap_or_else(|| beside(&self.store, "before"));
        match renameat_with(CWD, &draft.path, CWD, &self.store, RenameFlags::EXCHANGE) {
            Ok(()) => {
                draft.is_in_place = true;
                fs::rename(&draft.path, &before)?;
            }
            // A file system that cannot exchange two names.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::rename(&self.store, &before)?;
                if let Err(error) = fs::rename(&draft.path, &self.store) {
                    fs::rename(&before, &self.store)?;
                    return Err(error);
                }
                draft.is_in_place = true;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(before)
    }

    /// The daemon may run as another user than this tool.
    fn take_over_owner(&self, new: &Path) -> io::Result<()> {
        let Ok(before) = fs::metadata(&self.store) else { return Ok(()) };
        fs::set_permissions(new, before.permissions())?;
        let (uid, gid) = (before.uid(), before.gid());
        let is_ours = fs::metadata(new).is_ok_and(|new| (new.uid(), new.gid()) == (uid, gid));
        if is_ours { Ok(()) } else { own_all(new, uid, gid) }
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
    /// In the new folder of a place. The log begins with this event, and its segments have numbers behind this one and those
    /// of the store that is there: a tool that copies a folder over another one then never mixes files of two logs under one
    /// name.
    pub(crate) fn begin(
        place: &mut StorePlace,
        epoch: Epoch,
        oldest: Seq,
        behind: u64,
    ) -> Result<Self, ToolError> {
        let folder = place.store.join(JOURNAL);
        let numbers = segment_numbers(&folder).map_err(ToolError::file("read", folder))?;
        let behind = numbers.into_iter().fold(behind, u64::max);
        let new = place.create()?;
        identity::write(&new, &epoch).map_err(ToolError::file("write", &new))?;
        let folder = new.join(JOURNAL);
        let limits =
            SegmentLimits { bytes: crate::crash::segment_bytes(SEGMENT_BYTES), events: SEGMENT_EVENTS };
        let journal = JournalWriter::create_behind(behind, &folder, epoch, oldest, limits);
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
