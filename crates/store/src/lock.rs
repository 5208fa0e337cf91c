//! The lock on the folder of a store, and the names in it.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    time::SystemTime,
};

use crate::{identity::leave_to_owner, options::StoreOpenError};

/// The folder of the journal.
pub(crate) const JOURNAL: &str = "journal";
/// The folder of sled.
pub(crate) const SLED: &str = "log.sled";

/// The lock on the folder; held as long as this exists.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// What the file had, and its date: both come back, unless this process has changed the store.
    before: Option<(Vec<u8>, SystemTime)>,
}

impl Lock {
    /// The file names this process also when it has ended.
    pub(crate) fn keep_name(&mut self) {
        self.before = None;
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some((text, modified)) = self.before.take() else { return };
        let mut come_back = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(&text)?;
            self.file.set_modified(modified)
        };
        // Nothing depends on it.
        come_back().ok();
    }
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
    let mut text = Vec::new();
    (&file).take(256).read_to_end(&mut text).map_err(io)?;
    let modified = file.metadata().and_then(|metadata| metadata.modified()).map_err(io)?;
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "process {} ({})", std::process::id(), name.unwrap_or_default()).map_err(io)?;
    Ok(Lock { file, before: Some((text, modified)) })
}
