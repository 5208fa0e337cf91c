//! The free space of the file system under a directory, and a reserve of it: the ballast.
//!
//! A store on a full disk could not be opened, because sled and the journal write while they open. So the store keeps some
//! files that hold nothing: when the disk is full they are removed, and the open has their bytes and their inodes.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use crate::lock::JOURNAL;

/// The folder of the ballast, in the directory of the store.
const BALLAST: &str = "ballast";
/// Several files, for their inodes.
const BALLAST_FILES: u64 = 16;
const BALLAST_FILE_BYTES: usize = 512 << 10;

/// The size of the ballast, in bytes.
pub const BALLAST_BYTES: u64 = BALLAST_FILES * BALLAST_FILE_BYTES as u64;
/// The inodes of the ballast, with its folder.
pub const BALLAST_INODES: u64 = BALLAST_FILES + 1;

/// The space of a file system, as far as it is not reserved for root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystemSpace {
    /// Free bytes.
    pub free_bytes: u64,
    /// All bytes.
    pub bytes: u64,
    /// `None` if the file system has no fixed number of inodes.
    pub inodes: Option<FileSystemInodes>,
}

/// The inodes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystemInodes {
    /// Free ones.
    pub free: u64,
    /// All of them.
    pub all: u64,
}

/// The space of the file system that `path` is on. Blocks, for ever on a file system of the network that is gone.
///
/// # Errors
/// If `path` does not exist or cannot be examined.
pub fn of_file_system(path: &Path) -> io::Result<FileSystemSpace> {
    let found = rustix::fs::statvfs(path)?;
    Ok(FileSystemSpace {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        bytes: found.f_blocks.saturating_mul(found.f_frsize),
        inodes: (found.f_files > 0).then_some(FileSystemInodes { free: found.f_favail, all: found.f_files }),
    })
}

/// The same for the folder of a store that is open: something else may have made the folder anew. Blocks as that.
///
/// # Errors
/// As [`of_file_system`]; `NotFound` also if the journal is not in the folder any more.
pub fn of_open_store(path: &Path) -> io::Result<FileSystemSpace> {
    if path.join(JOURNAL).try_exists()? { of_file_system(path) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Writes the ballast of the store in `path`, as far as it is missing. Returns whether anything was.
///
/// The bytes are random and on disk afterwards: a file system that compresses, or that allocates late, has them all the
/// same. Blocks for the time of writing [`BALLAST_BYTES`].
///
/// # Errors
/// Of the system. What was written before stays.
pub fn keep_ballast(path: &Path) -> io::Result<bool> {
    let folder = path.join(BALLAST);
    if !folder.is_dir() {
        fs::create_dir(&folder)?;
    }
    let mut written = false;
    for number in 0..BALLAST_FILES {
        let file = folder.join(number.to_string());
        if file.metadata().is_ok_and(|found| found.len() == BALLAST_FILE_BYTES as u64) {
            continue;
        }
        written = true;
        if let Err(error) = write_random(&file) {
            // A file that is cut would be taken for room on the disk.
            fs::remove_file(&file).ok();
            return Err(error);
        }
    }
    Ok(written)
}

fn write_random(path: &Path) -> io::Result<()> {
    let mut bytes = vec![0; BALLAST_FILE_BYTES];
    fastrand::fill(&mut bytes);
    let mut file = File::create(path)?;
    file.write_all(&bytes)?;
    file.sync_data()
}

/// Removes the ballast of the store in `path`. Returns whether there was any. Call it when a disk is too full to open the
/// store, and [`keep_ballast`] when it has room again.
///
/// # Errors
/// Of the system.
pub fn release_ballast(path: &Path) -> io::Result<bool> {
    match fs::remove_dir_all(path.join(BALLAST)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn allocated(folder: &Path) -> u64 {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        files.map(|file| file.blocks() * 512).sum()
    }

    #[test]
    fn the_ballast_is_really_allocated_and_what_is_missing_of_it_is_written_again() {
        let store = tempfile::tempdir().unwrap();
        assert!(keep_ballast(store.path()).unwrap());
        let folder = store.path().join(BALLAST);
        assert!(allocated(&folder) >= BALLAST_BYTES, "{} bytes", allocated(&folder));
        assert_eq!(fs::read_dir(&folder).unwrap().count() as u64 + 1, BALLAST_INODES);
        assert!(!keep_ballast(store.path()).unwrap(), "nothing is missing");
        fs::remove_file(folder.join("3")).unwrap();
        File::options().write(true).open(folder.join("7")).unwrap().set_len(1).unwrap();
        assert!(keep_ballast(store.path()).unwrap());
        assert!(allocated(&folder) >= BALLAST_BYTES);
        assert!(release_ballast(store.path()).unwrap() && !folder.exists());
        assert!(!release_ballast(store.path()).unwrap(), "there is none left");
    }

    #[test]
    fn the_ballast_of_a_store_that_does_not_exist_is_an_error_and_creates_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("data");
        assert_eq!(keep_ballast(&store).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!release_ballast(&store).unwrap() && !store.exists());
    }

    #[test]
    fn the_space_of_a_file_system_is_never_more_than_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let space = of_file_system(folder.path()).unwrap();
        assert!(space.bytes > 0 && space.free_bytes <= space.bytes, "{space:?}");
        assert!(space.inodes.is_none_or(|inodes| inodes.free <= inodes.all), "{space:?}");
        assert!(of_file_system(&folder.path().join("missing")).is_err());
    }
}
