//! The file that says that a folder is a store, and which one: a copy of it is recognised by the number of its inode, which
//! every copy changes and a move within the file system does not.
//!
//! ```text
//! identity   layout 4
//!            epoch k3v9q2
//!            inode 1234567
//! ```

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use news::Epoch;

use crate::{journal::sync_folder, record::STORE_LAYOUT};

/// Whether the files are where they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) is_original: bool,
}

impl Identity {
    /// Whether there is, or was, a store with a journal.
    pub(crate) fn exists(store: &Path) -> bool {
        file(store).exists()
    }

    /// The epoch of the log, if it can be read.
    pub(crate) fn epoch(store: &Path) -> Option<Epoch> {
        let text = fs::read_to_string(file(store)).ok()?;
        Epoch::try_new(field(&text, "epoch")?).ok()
    }

    /// Reads it, and writes it if it is missing or of another epoch.
    pub(crate) fn check(store: &Path, epoch: &Epoch) -> io::Result<Self> {
        let inode = match fs::read_to_string(file(store)) {
            Ok(text) if field(&text, "epoch") == Some(epoch.as_str()) => {
                field(&text, "inode").and_then(|inode| inode.parse::<u64>().ok())
            }
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            Err(error) => return Err(error),
        };
        if let Some(inode) = inode {
            return Ok(Self { is_original: fs::metadata(file(store))?.ino() == inode });
        }
        Self::renew(store, epoch)?;
        Ok(Self { is_original: true })
    }

    /// Writes it: what is here is now the original.
    pub(crate) fn renew(store: &Path, epoch: &Epoch) -> io::Result<()> {
        let mut file = File::create(file(store))?;
        let inode = file.metadata()?.ino();
        write!(file, "layout {STORE_LAYOUT}\nepoch {epoch}\ninode {inode}\n")?;
        file.sync_all()?;
        sync_folder(store)
    }
}

fn file(store: &Path) -> PathBuf {
    store.join("identity")
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}
