//! The lock on the folder of a store, and the names in it.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::Path,
};

use crate::options::StoreOpenError;

/// The folder of the journal.
pub(crate) const JOURNAL: &str = "journal";
/// The folder of sled.
pub(crate) const SLED: &str = "log.sled";

/// The lock on the folder; held as long as this exists.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
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

/// Locks a folder, for this process.
pub(crate) fn lock(path: &Path) -> Result<Lock, StoreOpenError> {
    let io = |source| StoreOpenError::Io { path: path.to_owned(), source };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("lock"))
        .map_err(io)?;
    leave_to_owner(&file, path).map_err(io)?;
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
