//! What can happen to a store: loss of power, calls that fail, damage. Tests of the release and debug programs as they are.
//!
//! ```text
//! preload   a C library between the program and the disk: records what it does, makes the nth call fail
//! record    what was recorded
//! rebuild   the folder as it may be after a cut of power at one point of the record
//! workload  feeds that publish small items, long articles and long lists of keys
//! log_check starts the daemon on a store and compares it with what clients had received
//! cuts, images, failing_calls, damage      the scenarios
//! ```
//!
//! What must never happen here: a check that passes because nothing was announced before the fault.

mod announced;
mod cuts;
mod damage;
mod failing_calls;
mod images;
mod log_check;
mod preload;
mod rebuild;
mod record;
mod workload;

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path, time::UNIX_EPOCH};

pub use self::{
    cuts::{CutOptions, CutSummary, cut_recorded_stores},
    damage::{DamageOptions, DamageSummary, damage_stores},
    failing_calls::{FailingCall, FailingCallSummary, FailingCalls},
    images::{ImageSummary, cut_images},
    preload::preload_library,
    workload::Articles,
};

/// Copies a folder with everything in it.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A store that was copied here for a test takes the place of the one that it was: its identity says the inodes that it has
/// now, else it would be recognised as a copy, for which nothing is recorded. What is damaged stays so.
fn take_place(store: &Path) -> io::Result<()> {
    for name in ["identity", "identity.2"] {
        let path = store.join(name);
        let text = match fs::read_to_string(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                continue;
            }
            text => text?,
        };
        let Some((lines, checksum)) = text.split_once("checksum ") else { continue };
        if checksum.trim_end() != format!("{:08x}", crc32c::crc32c(lines.as_bytes())) {
            continue;
        }
        let metadata = fs::metadata(&path)?;
        let born = metadata.created()?.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let here = lines.lines().map(|line| match line.split_once(' ') {
            Some(("inode", _)) => format!("inode {}\n", metadata.ino()),
            Some(("born", _)) => format!("born {}.{:09}\n", born.as_secs(), born.subsec_nanos()),
            _ => format!("{line}\n"),
        });
        let here: String = here.collect();
        fs::write(&path, format!("{here}checksum {:08x}\n", crc32c::crc32c(here.as_bytes())))?;
    }
    Ok(())
}

/// The files of a folder and of those in it, in the order of their paths.
fn files_of(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_of(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
