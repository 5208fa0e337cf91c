//! A new store that is written beside the place where it will be, and put there at once.
//!
//! ```text
//! data.draft-1 ──► fsync ──► exchanged with data ──► what was there is data.before-restore-1
//! ```
//!
//! A store that is a mount point, such as a volume of a container, cannot be exchanged: the draft and what was there are in the
//! store, and the files move one by one. The journal goes first and comes last: a start after a crash between them is refused.
//!
//! A crash leaves the old store or the new one. A draft never has the name of something that is there. It is removed when the
//! work fails, and by the next one after a crash, but nothing else that has such a name: after a crash behind the exchange,
//! that is the store that was there.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use news::{Epoch, Seq, SourceId, Timestamp};
use rustix::fs::{AtFlags, CWD, RenameFlags, StatxAttributes, StatxFlags, renameat_with, statx};

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
/// The beginning of the name of a draft's folder.
const DRAFT_NAME: &str = "draft-";
/// The beginning of the name of a folder with what was there.
const BEFORE_NAME: &str = "before-restore-";

/// The folder of a store that must not be used meanwhile, and the one beside it.
#[derive(Debug)]
pub(crate) struct StorePlace {
    /// Absolute.
    pub(crate) store: PathBuf,
    is_mount_point: bool,
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
        let is_mount_point = is_there && is_mount_point(&store).map_err(ToolError::file("find", &store))?;
        Ok(Self { store, is_mount_point, draft: None, _lock: lock })
    }

    /// The folder that drafts are in, and the beginning of the name of a folder in it that is made for `what`.
    fn name_for(&self, what: &str) -> (PathBuf, OsString) {
        if self.is_mount_point {
            return (self.store.clone(), what.into());
        }
        let mut name = self.store.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(what);
        (self.store.parent().unwrap_or(&self.store).to_owned(), name)
    }

    fn names_for(&self, what: &str) -> impl Iterator<Item = PathBuf> {
        let (folder, begin) = self.name_for(what);
        (1..u32::MAX).map(move |n| {
            let mut name = begin.clone();
            name.push(n.to_string());
            folder.join(name)
        })
    }

    /// Whether there is nothing but the lock.
    pub(crate) fn is_empty(&self) -> Result<bool, ToolError> {
        let entries = match fs::read_dir(&self.store) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            entries => entries.map_err(ToolError::file("read", &self.store))?,
        };
        for entry in entries {
            let entry = entry.map_err(ToolError::file("read", &self.store))?;
            if !is_kept(&entry.file_name()) {
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
        let mut path = self.store.clone();
        let created = self.names_for(DRAFT_NAME).find_map(|name| {
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
        let (folder, prefix) = self.name_for(DRAFT_NAME);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_named = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
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
        if self.is_mount_point {
            return self.move_in(&draft.path).map_err(ToolError::file("replace", &self.store));
        }
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
        let before = self.free_name_for_before()?;
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

    fn free_name_for_before(&self) -> io::Result<PathBuf> {
        let is_free = |path: &PathBuf| path.symlink_metadata().is_err();
        self.names_for(BEFORE_NAME).find(is_free).ok_or_else(|| io::ErrorKind::AlreadyExists.into())
    }

    /// Moves what is in the store into a folder of it, and what is in the draft into the store. If it cannot, all is where it
    /// was. There is an identity at every moment: without a journal beside it, a start is refused.
    fn move_in(&self, draft: &Path) -> io::Result<Option<PathBuf>> {
        let before = self.free_name_for_before()?;
        fs::create_dir(&before)?;
        let mut moves = Moves::default();
        let moved = self.move_each(draft, &before, &mut moves);
        if let Err(error) = moved {
            moves.undo();
            for copy in names_of_identity(&before)? {
                fs::remove_file(before.join(copy))?;
            }
            // If something is in it, it is what could not be moved back.
            fs::remove_dir(&before).ok();
            return Err(error);
        }
        sync_folder(&self.store)?;
        // It is empty if there was nothing.
        Ok(fs::remove_dir(&before).is_err().then_some(before))
    }

    fn move_each(&self, draft: &Path, before: &Path, moves: &mut Moves) -> io::Result<()> {
        for name in names_in(&self.store)?.into_iter().filter(|name| !is_kept(name)) {
            if is_identity(&name) {
                fs::copy(self.store.join(&name), before.join(&name))?;
            } else {
                moves.add(self.store.join(&name), before.join(&name))?;
            }
            if name == JOURNAL {
                sync_folder(&self.store)?;
            }
        }
        sync_folder(before)?;
        for name in names_of_identity(draft)? {
            fs::rename(draft.join(&name), self.store.join(&name))?;
        }
        sync_folder(&self.store)?;
        names_in(draft)?
            .into_iter()
            .rev()
            .try_for_each(|name| moves.add(draft.join(&name), self.store.join(&name)))
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

/// What was moved, and where to.
#[derive(Debug, Default)]
struct Moves(Vec<(PathBuf, PathBuf)>);

impl Moves {
    fn add(&mut self, from: PathBuf, to: PathBuf) -> io::Result<()> {
        fs::rename(&from, &to)?;
        self.0.push((from, to));
        Ok(())
    }

    fn undo(self) {
        for (from, to) in self.0.into_iter().rev() {
            // What cannot be moved back stays where it is found by its name.
            fs::rename(to, from).ok();
        }
    }
}

/// What is in a folder; the journal is the first.
fn names_in(folder: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort_by_key(|name| (name != JOURNAL, name.clone()));
    Ok(names)
}

fn names_of_identity(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = names_in(folder)?;
    names.retain(|name| is_identity(name));
    Ok(names)
}

fn is_identity(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"identity")
}

/// Whether something in the folder of a store is not of the store: it stays where it is.
fn is_kept(name: &OsStr) -> bool {
    let begins = |with: &str| name.as_encoded_bytes().starts_with(with.as_bytes());
    name == "lock" || name == "lost+found" || begins(DRAFT_NAME) || begins(BEFORE_NAME)
}

/// Whether a file system is mounted there. It cannot be renamed then.
fn is_mount_point(folder: &Path) -> io::Result<bool> {
    let found = statx(CWD, folder, AtFlags::empty(), StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// A new store of no events is put into a store that is treated as a mount point.
    fn restored(store: &Path, spoil: impl FnOnce(&Path)) -> Result<Option<PathBuf>, ToolError> {
        let mut place = StorePlace::take(store).unwrap();
        place.is_mount_point = true;
        let epoch = Epoch::try_new("k3v9q2").unwrap();
        DraftJournal::begin(&mut place, epoch, Seq(1), 0).unwrap().finish().unwrap();
        spoil(store);
        place.replace()
    }

    #[test]
    fn a_store_that_is_a_mount_point_is_replaced_file_by_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("data");
        let (mut writer, reader) = crate::open(&store, &crate::StoreOptions::default()).unwrap();
        writer.write_held_hosts(&[]).unwrap();
        writer.close().unwrap();
        drop(reader);
        fs::create_dir(store.join("lost+found")).unwrap();
        let was = names(&store);
        let before = restored(&store, |_| {}).unwrap().unwrap();
        assert_eq!(before, fs::canonicalize(&store).unwrap().join("before-restore-1"));
        let moved: Vec<_> = was.iter().filter(|name| !is_kept(OsStr::new(name))).cloned().collect();
        assert_eq!(names(&before), moved);
        let now = ["before-restore-1", "identity", "identity.2", "journal", "lock", "lost+found"];
        assert_eq!(names(&store), now);
        assert_eq!(names(&store.join("journal")), ["00000002.segment"]);
        let (writer, reader) = crate::open(&store, &crate::StoreOptions::default()).unwrap();
        assert_eq!((reader.epoch().as_str(), reader.notes()), ("k3v9q2", &[][..]));
        writer.close().unwrap();
    }

    #[test]
    fn an_empty_mount_point_gets_the_store_and_no_other_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(restored(folder.path(), |_| {}).unwrap(), None);
        assert_eq!(names(folder.path()), ["identity", "identity.2", "journal", "lock"]);
    }

    #[test]
    fn a_move_that_fails_leaves_the_store_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, reader) = crate::open(folder.path(), &crate::StoreOptions::default()).unwrap();
        writer.close().unwrap();
        drop(reader);
        let was = names(folder.path());
        let spoil = |store: &Path| {
            // A folder cannot take the place of a file.
            fs::remove_file(store.join("draft-1/identity")).unwrap();
            fs::create_dir(store.join("draft-1/identity")).unwrap();
        };
        assert!(restored(folder.path(), spoil).is_err());
        assert_eq!(names(folder.path()), was);
    }
}
