//! The file that says that a folder is a store, and which one: a copy of it is recognised by the number of its inode, which
//! every copy changes and a move within the file system does not.
//!
//! ```text
//! identity   layout 4
//!            epoch k3v9q2
//!            inode 1234567
//!            checksum 1a2b3c4d          CRC-32C of the lines before, hexadecimal
//! ```

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use news::Epoch;

use crate::{
    journal::{is_unreadable, sync_folder},
    lock::leave_to_owner,
    record::STORE_LAYOUT,
};

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
        let text = read(store).ok()?;
        Epoch::try_new(field(&text, "epoch")?).ok()
    }

    /// Whether it is there and says that the files are where they were written. Changes nothing.
    pub(crate) fn is_original(store: &Path) -> bool {
        let inode = read(store).ok().and_then(|text| field(&text, "inode")?.parse::<u64>().ok());
        inode.is_some_and(|inode| fs::metadata(file(store)).is_ok_and(|found| found.ino() == inode))
    }

    /// Reads it, and writes it if it is missing or of another epoch.
    pub(crate) fn check(store: &Path, epoch: &Epoch) -> io::Result<Self> {
        let text = read(store)?;
        let inode = match field(&text, "epoch") {
            Some(of) if of == epoch.as_str() => {
                field(&text, "inode").and_then(|inode| inode.parse::<u64>().ok())
            }
            _ => None,
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
        leave_to_owner(&file, store)?;
        let inode = file.metadata()?.ino();
        let text = format!("layout {STORE_LAYOUT}\nepoch {epoch}\ninode {inode}\n");
        let checksum = crc32c::crc32c(text.as_bytes());
        writeln!(file, "{text}checksum {checksum:08x}")?;
        file.sync_all()?;
        sync_folder(store)
    }
}

fn file(store: &Path) -> PathBuf {
    store.join("identity")
}

/// What it says; nothing if it is missing or damaged.
fn read(store: &Path) -> io::Result<String> {
    let bytes = match fs::read(file(store)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_unreadable(&error) => {
            return Ok(String::new());
        }
        bytes => bytes?,
    };
    let text = String::from_utf8(bytes).unwrap_or_default();
    let is_right = text
        .split_once("checksum ")
        .is_some_and(|(before, checksum)| checksum == format!("{:08x}\n", crc32c::crc32c(before.as_bytes())));
    Ok(if is_right { text } else { String::new() })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}
