//! Whether the files that the ingestion daemon has open are those that its configuration names: a store may be deleted,
//! renamed, unmounted or covered by another file system while the daemon runs.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use procfs::process::{FDTarget, Process};
use serde::Serialize;

use super::super::mounts;

/// The file that the daemon keeps locked, in the folder of the store.
const LOCK: &str = "lock";
/// The folder of the journal in it.
const JOURNAL: &str = "journal";
/// What the kernel appends to the path of a file without a name.
const DELETED: &str = " (deleted)";

/// The configured path of the store as the daemon reads it: from its working directory, not from that of this tool.
pub(crate) fn path_of(pid: Option<i32>, configured: &Path) -> PathBuf {
    let folder = pid.and_then(|pid| fs::read_link(format!("/proc/{pid}/cwd")).ok());
    let absolute = || std::path::absolute(configured).unwrap_or_else(|_| configured.to_path_buf());
    folder.map_or_else(absolute, |folder| folder.join(configured))
}

/// Where the files of the store are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StorePlacement {
    /// Where the configuration says.
    InPlace,
    /// They have no name any more.
    Deleted,
    /// They are at this path now.
    Renamed(String),
    /// Their file system is not mounted any more.
    Unmounted {
        /// Where it was mounted, if the path of the store tells that.
        mount_point: Option<String>,
        /// Its device, if it has one.
        device: Option<String>,
    },
    /// Another file system is mounted over them.
    Covered,
    /// There is no store at the path, and no daemon that could have it open.
    Absent,
}

impl StorePlacement {
    /// Whether there is a store, for a daemon that does not run.
    ///
    /// # Errors
    /// The reason why it cannot be told.
    pub(crate) fn without_daemon(store: &Path) -> Result<Self, String> {
        match store.join(JOURNAL).try_exists() {
            Ok(true) => Ok(Self::InPlace),
            Ok(false) => Ok(Self::Absent),
            Err(error) => Err(format!("{}: {error}", store.display())),
        }
    }

    /// # Errors
    /// The reason why it cannot be told.
    pub(crate) fn of(pid: i32, store: &Path) -> Result<Self, String> {
        let process = Process::new(pid).map_err(|error| error.to_string())?;
        let open = process.fd().map_err(|error| format!("the open files of {pid}: {error}"))?;
        let files = open.flatten().filter_map(|descriptor| match descriptor.target {
            FDTarget::Path(path) => OpenStoreFile::of(descriptor.fd, &path),
            _ => None,
        });
        let places =
            files.filter_map(|file| Some((file.relative == Path::new(LOCK), file.place(&process, store)?)));
        // What is not in place counts, and the lock before the journal, which may have been moved alone.
        let worst = places.max_by_key(|(is_lock, place)| (*place != Self::InPlace, *is_lock));
        worst.map(|(_, place)| place).ok_or_else(|| format!("process {pid} has no store open"))
    }
}

/// A file of the store that the daemon has open for as long as it runs.
struct OpenStoreFile {
    descriptor: i32,
    /// As the kernel names it now.
    path: PathBuf,
    is_deleted: bool,
    /// Below the folder of the store.
    relative: PathBuf,
}

impl OpenStoreFile {
    fn of(descriptor: i32, path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        let path = PathBuf::from(text.strip_suffix(DELETED).unwrap_or(text));
        let is_deleted = text.ends_with(DELETED);
        let name = path.file_name()?;
        let is_in_journal = path.parent().and_then(Path::file_name).is_some_and(|folder| folder == JOURNAL);
        let relative = match () {
            () if name == LOCK => PathBuf::from(LOCK),
            // Retention removes the segments that a reader may still have open.
            () if is_in_journal && !is_deleted => Path::new(JOURNAL).join(name),
            () => return None,
        };
        Some(Self { descriptor, path, is_deleted, relative })
    }

    /// `None` if it is not a file of this store, or that cannot be told.
    fn place(&self, process: &Process, store: &Path) -> Option<StorePlacement> {
        let pid = process.pid();
        let of = |path: PathBuf| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let seen_by_it = |path: &Path| {
            PathBuf::from(format!("/proc/{pid}/root")).join(path.strip_prefix("/").unwrap_or(path))
        };
        let open = of(format!("/proc/{pid}/fd/{}", self.descriptor).into())?;
        if of(seen_by_it(&store.join(&self.relative))) == Some(open) {
            let has_journal = seen_by_it(&store.join(JOURNAL)).try_exists().unwrap_or(true);
            return Some(if has_journal { StorePlacement::InPlace } else { StorePlacement::Deleted });
        }
        if self.relative != Path::new(LOCK) {
            // The lock decides what has happened; the journal alone may have been moved.
            let lock = seen_by_it(&store.join(LOCK));
            return (lock.exists() && of(seen_by_it(&self.path)) == Some(open))
                .then(|| StorePlacement::Renamed(self.path.display().to_string()));
        }
        Some(match () {
            () if self.is_deleted => StorePlacement::Deleted,
            () if of(seen_by_it(&self.path)) == Some(open) => {
                let folder = self.path.parent().unwrap_or(&self.path);
                StorePlacement::Renamed(folder.display().to_string())
            }
            // The mount through which it was opened still is in the namespace of the process.
            () if mounts::of_descriptor(process, self.descriptor)?.is_some() => StorePlacement::Covered,
            () => self.unmounted(store, open.0),
        })
    }

    /// Without its mount, the kernel names the file from the root of its file system.
    fn unmounted(&self, store: &Path, device: u64) -> StorePlacement {
        let inside = self.path.parent().and_then(|folder| folder.to_str());
        let mount_point = inside.and_then(|inside| store.to_str()?.strip_suffix(inside));
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let described = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok();
        let name =
            described.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("DEVNAME=")));
        StorePlacement::Unmounted {
            mount_point: mount_point.filter(|path| !path.is_empty()).map(str::to_owned),
            device: name.map(|name| format!("/dev/{name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with the files of a store, open.
    fn open_store(folder: &Path) -> [fs::File; 2] {
        fs::create_dir_all(folder.join(JOURNAL)).unwrap();
        [folder.join(LOCK), folder.join(JOURNAL).join("00000001.journal")]
            .map(|path| fs::File::create(path).unwrap())
    }

    #[test]
    fn a_store_that_is_renamed_and_then_deleted_is_noticed() {
        let parent = tempfile::tempdir().unwrap();
        let (store, moved) = (parent.path().join("data"), parent.path().join("moved"));
        let _open = open_store(&store);
        let me = std::process::id().cast_signed();
        assert_eq!(StorePlacement::of(me, &store), Ok(StorePlacement::InPlace));
        fs::rename(&store, &moved).unwrap();
        assert_eq!(StorePlacement::of(me, &store), Ok(StorePlacement::Renamed(moved.display().to_string())));
        // Another store in its place is not the one that the process has open.
        fs::create_dir_all(&store).unwrap();
        fs::write(store.join(LOCK), "").unwrap();
        assert_eq!(StorePlacement::of(me, &store), Ok(StorePlacement::Renamed(moved.display().to_string())));
        fs::remove_dir_all(&moved).unwrap();
        assert_eq!(StorePlacement::of(me, &store), Ok(StorePlacement::Deleted));
        assert_eq!(StorePlacement::without_daemon(&store), Ok(StorePlacement::Absent));
    }

    #[test]
    fn a_store_without_its_journal_is_noticed() {
        let store = tempfile::tempdir().unwrap();
        let _open = open_store(store.path());
        let me = std::process::id().cast_signed();
        assert_eq!(StorePlacement::of(me, store.path()), Ok(StorePlacement::InPlace));
        fs::remove_dir_all(store.path().join(JOURNAL)).unwrap();
        assert_eq!(StorePlacement::of(me, store.path()), Ok(StorePlacement::Deleted));
    }
}
