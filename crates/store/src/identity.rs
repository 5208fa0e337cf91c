//! The files that say that a folder is a store, which one, and that it is no copy.
//!
//! ```text
//! identity, identity.2   layout 4
//!                        epoch k3v9q2
//!                        machine 5b21c0aa            CRC-32C of /etc/machine-id; "unknown" without one
//!                        inode 1234567
//!                        born 1764270000.123456789   when the file system created it; "unknown" if it does not say
//!                        checksum 1a2b3c4d           CRC-32C of the lines before, hexadecimal
//! ```
//!
//! Each names the machine, its own inode and the birth of it, which a copy changes and a move within the file system does not.
//! Both are made anew at each open, at each close, and once a minute while there is something to record: what is written over
//! them from an older copy names other ones.
//! There are two, so that damage to one of them is not taken for a copy.

use std::{
    fs::{self, File, Metadata},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use news::Epoch;

use crate::{
    journal::{has_too_many_files, is_unreadable, sync_folder},
    record::STORE_LAYOUT,
};

const NAMES: [&str; 2] = ["identity", "identity.2"];
/// A file that is about to take the place of one of them.
const UNFINISHED: &str = "identity.new";
const RENEW_EVERY: Duration = Duration::from_secs(60);
const UNKNOWN: &str = "unknown";

/// What the files of a store say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundIdentity {
    /// The files are where they were written.
    Original,
    /// As [`FoundIdentity::Original`], by one file; the other one was missing or damaged.
    Repaired,
    /// They are a copy, or of an older store that was written over this one, or cannot say.
    Copied,
}

/// What one of the files says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdentityFile {
    Original,
    /// Of another file, or of another log.
    Other,
    /// Missing or damaged.
    Unreadable,
}

/// The files of a store that is open.
#[derive(Debug)]
pub(crate) struct Identity {
    store: PathBuf,
    epoch: Epoch,
    state: Mutex<IdentityState>,
}

#[derive(Debug)]
struct IdentityState {
    is_original: bool,
    renewed: Instant,
}

impl Identity {
    /// Reads the files, and makes them anew unless they are those of a copy. A new store has none yet.
    pub(crate) fn open(store: &Path, epoch: &Epoch, is_new: bool) -> io::Result<(Self, FoundIdentity)> {
        let found = if is_new { FoundIdentity::Original } else { find(store, epoch)? };
        let is_original = found != FoundIdentity::Copied;
        if is_new {
            write(store, epoch)?;
        }
        let state = Mutex::new(IdentityState { is_original, renewed: now() });
        let identity = Self { store: store.to_owned(), epoch: epoch.clone(), state };
        if !is_new {
            identity.renew()?;
        }
        Ok((identity, found))
    }

    /// Makes the files anew, unless they are those of a copy. Those that are there stay if there is no room for others.
    pub(crate) fn renew(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.renewed = now();
        match if state.is_original { write(&self.store, &self.epoch) } else { Ok(()) } {
            Err(error) if is_without_room(&error) => Ok(()),
            renewed => renewed,
        }
    }

    /// The same, once a minute.
    pub(crate) fn renew_if_due(&self) -> io::Result<()> {
        let renewed = self.state.lock().unwrap_or_else(PoisonError::into_inner).renewed;
        if renewed.elapsed() >= RENEW_EVERY { self.renew() } else { Ok(()) }
    }

    /// Makes the store a copy, also for later opens, until it is decided what becomes of it.
    pub(crate) fn mark_copied(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut state.is_original, false) {
            write_files(&self.store, &self.epoch, |_| (0, UNKNOWN.to_owned()))?;
        }
        Ok(())
    }
}

/// Whether there is, or was, a store with a journal.
pub(crate) fn exists(store: &Path) -> bool {
    NAMES.iter().any(|name| store.join(name).exists())
}

/// The epoch of the log, if one of the files can be read.
pub(crate) fn epoch(store: &Path) -> Option<Epoch> {
    NAMES.iter().find_map(|name| Epoch::try_new(field(&read(&store.join(name)).ok()??, "epoch")?).ok())
}

/// Whether one of the files says that they are where they were written, and none that they are not. Changes nothing.
pub(crate) fn is_original(store: &Path) -> bool {
    epoch(store).is_some_and(|epoch| find(store, &epoch).is_ok_and(|found| found != FoundIdentity::Copied))
}

/// Writes both: what is here is the original.
pub(crate) fn write(store: &Path, epoch: &Epoch) -> io::Result<()> {
    write_files(store, epoch, |metadata| (metadata.ino(), born(metadata)))
}

fn find(store: &Path, epoch: &Epoch) -> io::Result<FoundIdentity> {
    use IdentityFile::{Original, Other, Unreadable};
    let [first, second] = NAMES.map(|name| look_at(&store.join(name), epoch));
    Ok(match (first?, second?) {
        (Original, Original) => FoundIdentity::Original,
        (Original, Unreadable) | (Unreadable, Original) => FoundIdentity::Repaired,
        (Other, _) | (_, Other) | (Unreadable, Unreadable) => FoundIdentity::Copied,
    })
}

fn look_at(path: &Path, epoch: &Epoch) -> io::Result<IdentityFile> {
    let Some(text) = read(path)? else { return Ok(IdentityFile::Unreadable) };
    let metadata = fs::metadata(path)?;
    let (inode, birth) = (metadata.ino().to_string(), born(&metadata));
    // A kernel may learn to say the birth, or forget it; a container may get an id of its machine, or lose it.
    let is_same = |name: &str, here: &str| {
        field(&text, name).is_none_or(|of| of == here || of == UNKNOWN || here == UNKNOWN)
    };
    let is_original = field(&text, "epoch") == Some(epoch.as_str())
        && field(&text, "inode") == Some(&inode)
        && is_same("born", &birth)
        && is_same("machine", &machine());
    Ok(if is_original { IdentityFile::Original } else { IdentityFile::Other })
}

/// Writes each beside its place first: a cut leaves what was there, or all of the new one.
fn write_files(store: &Path, epoch: &Epoch, place: impl Fn(&Metadata) -> (u64, String)) -> io::Result<()> {
    let (unfinished, machine) = (store.join(UNFINISHED), machine());
    for name in NAMES {
        let mut file = File::create(&unfinished)?;
        leave_to_owner(&file, store)?;
        let (inode, born) = place(&file.metadata()?);
        let text =
            format!("layout {STORE_LAYOUT}\nepoch {epoch}\nmachine {machine}\ninode {inode}\nborn {born}\n");
        let checksum = crc32c::crc32c(text.as_bytes());
        file.write_all(format!("{text}checksum {checksum:08x}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, store.join(name))?;
    }
    sync_folder(store)
}

#[expect(
    clippy::disallowed_methods,
    reason = "when files are made anew decides nothing that a test waits for"
)]
fn now() -> Instant {
    Instant::now()
}

/// A file that root makes belongs to the owner of the folder, who must be able to write it later.
pub(crate) fn leave_to_owner(file: &File, folder: &Path) -> io::Result<()> {
    let (owner, of_file) = (fs::metadata(folder)?, file.metadata()?);
    if of_file.uid() == 0 && owner.uid() != 0 {
        // Not every root may; then it is as good as it can be.
        fchown(file, Some(owner.uid()), Some(owner.gid())).ok();
    }
    Ok(())
}

/// Not the id itself, which is not for others.
fn machine() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let id = id.trim();
    if id.is_empty() { UNKNOWN.to_owned() } else { format!("{:08x}", crc32c::crc32c(id.as_bytes())) }
}

fn born(metadata: &Metadata) -> String {
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    born.map_or_else(|| UNKNOWN.to_owned(), |born| format!("{}.{:09}", born.as_secs(), born.subsec_nanos()))
}

/// What it says; `None` if it is missing or damaged.
fn read(path: &Path) -> io::Result<Option<String>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_unreadable(&error) => return Ok(None),
        bytes => bytes?,
    };
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    let is_right = text
        .split_once("checksum ")
        .is_some_and(|(before, checksum)| checksum == format!("{:08x}\n", crc32c::crc32c(before.as_bytes())));
    Ok(is_right.then_some(text))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

/// Whether a file cannot be created because there is no room for one.
fn is_without_room(error: &io::Error) -> bool {
    has_too_many_files(error)
        || matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
