//! A made-up `/proc` and `/sys`.

use std::{fs, path::Path};

use super::kernel_files::KernelFiles;

pub(super) struct KernelFixture(tempfile::TempDir);

impl KernelFixture {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Version 2 alone, mounted where distributions mount it.
    pub(super) fn v2() -> Self {
        let fixture = Self::new();
        fixture.write(
            "/proc/self/mountinfo",
            "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        fixture
    }

    /// Some controllers of version 1, and version 2 beside them.
    pub(super) fn hybrid() -> Self {
        let fixture = Self::new();
        let mut mounts = String::new();
        for controllers in ["cpu,cpuacct", "memory", "pids", "freezer"] {
            let name = controllers.split(',').next().unwrap();
            mounts.push_str(&format!(
                "32 31 0:29 / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{controllers}\n"
            ));
        }
        mounts.push_str("41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        fixture.write("/proc/self/mountinfo", &mounts);
        fixture
    }

    pub(super) fn files(&self) -> KernelFiles {
        KernelFiles::below(self.0.path())
    }

    pub(super) fn folder(&self, path: &str) {
        fs::create_dir_all(self.files().at(path)).unwrap();
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.files().at(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
    }
}
