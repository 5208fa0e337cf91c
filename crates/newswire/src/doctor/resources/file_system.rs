//! The file system of the store: where it is mounted, and whether it takes changes.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use procfs::{
    FromRead as _,
    process::{MountInfo, MountInfos},
};
use serde::Serialize;
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

use super::kernel_files::KernelFiles;

/// How long a file system may take to refuse the removal of a directory that does not exist.
const PROBE_WITHIN: Duration = Duration::from_millis(1_500);
/// The name of that directory, without the id of this process.
const PROBE_NAME: &str = ".newswire-doctor-removes-nothing";

/// The file system of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StoreFileSystem {
    pub(crate) mount_point: String,
    /// Usually the device.
    pub(crate) source: String,
    /// `ext4`, `xfs`, …
    pub(crate) kind: String,
    /// Major and minor number.
    pub(crate) device: String,
    /// How long it took to refuse a change that changes nothing; `None` if that was not tried, or cannot be.
    pub(crate) refused_after_ms: Option<u64>,
    /// It did not refuse it within [`PROBE_WITHIN`], as a frozen one.
    pub(crate) hangs: bool,
}

impl StoreFileSystem {
    /// Where the path is mounted for the process. `None` if the kernel does not tell.
    pub(crate) fn of(files: &KernelFiles, pid: Option<i32>, path: &Path) -> Option<Self> {
        let table = pid.map_or("/proc/self/mountinfo".to_owned(), |pid| format!("/proc/{pid}/mountinfo"));
        let mounts = MountInfos::from_read(std::fs::File::open(files.at(table)).ok()?).ok()?;
        // The last one of the same mount point covers those before it.
        let has_path = |mount: &&MountInfo| path.starts_with(unescaped(&mount.mount_point));
        let depth = |mount: &&MountInfo| mount.mount_point.components().count();
        let mount = mounts.0.iter().filter(has_path).max_by_key(depth)?;
        Some(Self {
            mount_point: mount.mount_point.display().to_string(),
            source: mount.mount_source.clone().unwrap_or_default(),
            kind: mount.fs_type.clone(),
            device: mount.majmin.clone(),
            ..Self::default()
        })
    }

    /// Whether the file system takes changes, without one: the kernel refuses to remove a directory that does not exist, but
    /// waits before that until the file system is not frozen. What waits is another process, which cannot be ended then, and
    /// would keep this one from ending.
    pub(crate) async fn probe(&mut self, store: &Path) {
        let began = Instant::now();
        let nothing: PathBuf = store.join(format!("{PROBE_NAME}-{}", std::process::id()));
        let mut command = Command::new("rmdir");
        command.arg("--").arg(nothing).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else { return };
        match timeout(PROBE_WITHIN, child.wait()).await {
            Ok(_) => {
                self.refused_after_ms = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
            }
            Err(_) => self.hangs = is_in_the_kernel(child.id()),
        }
    }
}

/// The kernel writes a space as `\040`.
fn unescaped(path: &Path) -> PathBuf {
    path.to_string_lossy().replace("\\040", " ").into()
}

/// Whether a process waits in the kernel and cannot be interrupted. A busy machine may not have let it run yet.
fn is_in_the_kernel(pid: Option<u32>) -> bool {
    let process = pid.and_then(|pid| procfs::process::Process::new(i32::try_from(pid).ok()?).ok());
    process.and_then(|process| process.stat().ok()).is_some_and(|stat| stat.state == 'D')
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::KernelFixture, *};

    #[test]
    fn the_mount_that_covers_the_others_is_named() {
        let fixture = KernelFixture::new();
        fixture.write(
            "/proc/7/mountinfo",
            "27 1 254:0 / / rw - ext4 /dev/vda rw\n28 27 254:1 / /var rw - ext4 /dev/vdb rw\n\
             29 28 254:2 / /var/lib/news\\040wire rw - xfs /dev/vdc rw\n30 28 254:3 / /var rw - btrfs /dev/vdd rw\n",
        );
        let of = |path: &str| StoreFileSystem::of(&fixture.files(), Some(7), Path::new(path)).unwrap();
        assert_eq!(of("/var/x").source, "/dev/vdd");
        assert_eq!(of("/home").mount_point, "/");
        assert_eq!((of("/variable").source, of("/var").kind), ("/dev/vda".to_owned(), "btrfs".to_owned()));
    }

    #[tokio::test]
    async fn a_file_system_that_takes_changes_refuses_at_once_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let mut found = StoreFileSystem::default();
        found.probe(folder.path()).await;
        assert!(!found.hangs, "{found:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
