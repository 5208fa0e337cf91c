//! What the states of sources know of the log: sled notes with each commit how far the log had come.
//!
//! sled writes to what it opens, so a copy is opened. Beside a daemon the copy can be torn; then it tells nothing.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use news::{Epoch, Seq};

use crate::{lock::SLED, migrate::remove_folder, table::Table};

/// A copy of more bytes is not made.
const BYTES_MAX: u64 = 1 << 30;
/// sled's page cache, in bytes.
const CACHE_BYTES: u64 = 4 << 20;

/// The newest event that the states know; `None` if they are missing, damaged, of another log, or too large to be copied.
pub(super) fn head_in_states(store: &Path) -> Option<(Epoch, Seq)> {
    let states = store.join(SLED);
    if !states.join("db").is_file() || bytes_in(&states).ok()? > BYTES_MAX {
        return None;
    }
    let temporary = TemporaryFolder::create().ok()?;
    let copy = temporary.0.join(SLED);
    copy_files(&states, &copy).ok()?;
    let table = Table::open(&copy, CACHE_BYTES).ok()?;
    let epoch = table.epoch().ok()??;
    Some((epoch, table.applied().head))
}

/// Removed when dropped.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn create() -> io::Result<Self> {
        loop {
            let path = std::env::temp_dir().join(format!("newswire-{:016x}", fastrand::u64(..)));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|()| Self(path)),
            }
        }
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        remove_folder(&self.0).ok();
    }
}

fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let metadata = entry?.metadata()?;
        bytes += metadata.len();
    }
    Ok(bytes)
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &to)?;
        } else if entry.file_type()?.is_file() && !is_half_written(&entry.path()) {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// sled mistakes it for a snapshot.
fn is_half_written(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "generating")
}
