//! What a file is that a thread waits for.

use std::{
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use procfs::process::Process;

use super::super::mounts;
use crate::within;

/// How long a file system may take to tell what a file is.
const FILE_KIND_WITHIN: Duration = Duration::from_millis(100);

/// A mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountPlace {
    pub(crate) mount: PathBuf,
    pub(crate) file_system: String,
}

/// The mount of a descriptor.
pub(crate) fn mount_of(pid: i32, fd: i32) -> Option<MountPlace> {
    let found = mounts::of_descriptor(&Process::new(pid).ok()?, fd)??;
    Some(MountPlace { mount: found.mount_point, file_system: found.fs_type })
}

/// The mount that a path of the process is on, if no link leads elsewhere.
pub(crate) fn mount_at(pid: i32, path: &Path) -> Option<MountPlace> {
    let found = mounts::of_path(Process::new(pid).ok()?.mountinfo().ok()?, path)?;
    Some(MountPlace { mount: found.mount_point, file_system: found.fs_type })
}

/// Whether the kernel stack of a thread shows that it waits for a file system to be thawed. Only root can read it.
pub(crate) fn waits_for_thaw(pid: i32, tid: i32, wchan: Option<&str>) -> bool {
    let stack = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stack")).unwrap_or_default();
    // sb_start_write, sb_start_pagefault and sb_start_intwrite take this lock for reading; only a freeze holds it for longer.
    let frozen = ["percpu_rwsem_wait", "__percpu_down_read", "sb_start", "ext4_journal_check_start"];
    let in_stack = frozen.iter().any(|function| stack.contains(function));
    in_stack || wchan.is_some_and(|wchan| frozen.iter().any(|function| wchan.contains(function)))
}

/// Whether a descriptor is a pipe with a name. `false` if its file system does not answer.
pub(crate) fn is_fifo(pid: i32, fd: i32) -> bool {
    let path = format!("/proc/{pid}/fd/{fd}");
    let kind = within::within(FILE_KIND_WITHIN, move || std::fs::metadata(path).map(|data| data.file_type()));
    kind.and_then(Result::ok).is_some_and(|kind| kind.is_fifo())
}

pub(crate) fn is_terminal(path: &Path) -> bool {
    path.starts_with("/dev/pts") || path.starts_with("/dev/tty") || path == Path::new("/dev/console")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn the_file_system_of_a_descriptor_is_known() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let found = mount_of(std::process::id().cast_signed(), file.as_raw_fd()).unwrap();
        assert_eq!(found, MountPlace { mount: "/proc".into(), file_system: "proc".to_owned() });
        assert_eq!(mount_at(std::process::id().cast_signed(), Path::new("/proc/1/x")), Some(found));
        assert!(is_terminal(Path::new("/dev/pts/3")) && !is_terminal(Path::new("/dev/null")));
    }
}
