//! The file system of the store: where it is mounted, and whether it takes changes.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use procfs::{FromRead as _, process::MountInfos};
use serde::Serialize;
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

use super::{super::mounts, kernel_files::KernelFiles};

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
        let mount = mounts::of_path(mounts, path)?;
        Some(Self {
            mount_point: mount.mount_point.display().to_string(),
            source: mount.mount_source.unwrap_or_default(),
            kind: mount.fs_type,
            device: mount.majmin,
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

/// Whether a process waits in the kernel and cannot be interrupted. A busy machine may not have let it run yet.
fn is_in_the_kernel(pid: Option<u32>) -> bool {
    let process = pid.and_then(|pid| procfs::process::Process::new(i32::try_from(pid).ok()?).ok());
    process.and_then(|process| process.stat().ok()).is_some_and(|stat| stat.state == 'D')
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::KernelFixture, *};

    #[test]
    fn the_file_system_is_the_one_that_the_process_sees() {
        let fixture = KernelFixture::new();
        fixture.write("/proc/7/mountinfo", "27 1 254:0 / / rw - xfs /dev/vdc rw\n");
        fixture.write("/proc/self/mountinfo", "27 1 254:1 / / rw - ext4 /dev/vda rw\n");
        let of = |pid| StoreFileSystem::of(&fixture.files(), pid, Path::new("/var")).unwrap();
        let seen = |pid| [of(pid).source, of(pid).kind, of(pid).device, of(pid).mount_point];
        assert_eq!(seen(Some(7)), ["/dev/vdc", "xfs", "254:0", "/"]);
        assert_eq!(seen(None), ["/dev/vda", "ext4", "254:1", "/"]);
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
