//! The file of the black box: locked while its process lives, of fixed size, and renamed by the next run.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use control::black_box::layout::{BlackBoxWrite, RING_AT, RING_BYTES_MIN};
use control::black_box::{BlackBoxContents, previous};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// As the other files in the directory: its own user writes, the group reads.
const MODE: u32 = 0o640;

/// An open file that no other process uses.
#[derive(Debug)]
pub(super) struct BlackBoxFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// Bytes of the ring in a file of this size.
pub(super) fn ring_bytes(file_bytes: u64) -> u64 {
    file_bytes.saturating_sub(RING_AT).max(RING_BYTES_MIN)
}

impl BlackBoxFile {
    /// Keeps the file of the run before as `.previous`, and makes a new one.
    ///
    /// # Errors
    /// Those of the operating system; `WouldBlock` if a running process uses the file.
    pub(super) fn create(path: &Path, ring_bytes: u64) -> io::Result<Self> {
        keep_previous(path)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(MODE).open(path)?;
        lock(&file)?;
        // The umask of the process does not apply to this.
        file.set_permissions(Permissions::from_mode(MODE))?;
        let bytes = RING_AT + ring_bytes;
        file.set_len(bytes)?;
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    pub(super) fn write(&self, write: &BlackBoxWrite) -> io::Result<()> {
        self.file.write_all_at(&write.bytes, write.offset)
    }

    /// An error if the file was removed, replaced or truncated.
    pub(super) fn check(&self) -> io::Result<()> {
        let (open, named) = (self.file.metadata()?, std::fs::symlink_metadata(&self.path)?);
        if (open.dev(), open.ino()) != (named.dev(), named.ino()) {
            return Err(io::Error::other("another file has its place"));
        }
        let mut start = [0; 8];
        // The writes that follow a truncation make it longer again, but not its header.
        if open.len() < self.bytes || self.file.read_exact_at(&mut start, 0).is_err() || start == [0; 8] {
            return Err(io::Error::other("another program has truncated it"));
        }
        Ok(())
    }
}

/// Renames the file of the run before. A start that failed does not displace a run that was ready: a unit that is started
/// again and again would lose what happened before.
fn keep_previous(path: &Path) -> io::Result<()> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()).unwrap_or_default();
    let old = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !old.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    lock(&old)?;
    let was_ready = BlackBoxContents::read(path).is_ok_and(|contents| contents.header.ready);
    let kept = previous(path);
    if was_ready || !kept.exists() { std::fs::rename(path, kept) } else { std::fs::remove_file(path) }
}

/// The kernel releases the lock when the process ends, however that is.
fn lock(file: &File) -> io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        Errno::WOULDBLOCK => io::Error::new(io::ErrorKind::WouldBlock, "another process uses it"),
        other => other.into(),
    })
}
