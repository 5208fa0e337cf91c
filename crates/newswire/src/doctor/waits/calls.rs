//! The system calls in which threads wait, and what their arguments mean.

use super::link::WaitAccess;

/// What a system call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallAim {
    /// A word in memory.
    Word,
    /// The descriptor of its first argument.
    Transfer(WaitAccess),
    /// The file of its first argument.
    File(&'static str),
    /// A path, and which argument it is.
    Path(&'static str, Option<usize>),
    /// Events of any descriptor, connections, or time.
    Events(&'static str),
    Child,
    /// A change of its own memory.
    Memory,
    Other,
}

/// The aim of a system call, by its number on this architecture.
pub(crate) fn aim(number: i64) -> CallAim {
    use CallAim::{Child, Events, File, Memory, Path, Transfer, Word};
    use libc as call;
    match number {
        call::SYS_futex => Word,
        call::SYS_read | call::SYS_readv | call::SYS_recvfrom | call::SYS_recvmsg | call::SYS_recvmmsg => {
            Transfer(WaitAccess::Read)
        }
        call::SYS_write | call::SYS_writev | call::SYS_sendto | call::SYS_sendmsg | call::SYS_sendmmsg => {
            Transfer(WaitAccess::Write)
        }
        call::SYS_connect | call::SYS_sendfile => Transfer(WaitAccess::Write),
        call::SYS_pread64 | call::SYS_preadv | call::SYS_preadv2 => File("pread"),
        call::SYS_pwrite64 | call::SYS_pwritev | call::SYS_pwritev2 => File("pwrite"),
        call::SYS_fsync => File("fsync"),
        call::SYS_fdatasync => File("fdatasync"),
        call::SYS_sync_file_range => File("sync_file_range"),
        call::SYS_syncfs => File("syncfs"),
        call::SYS_ftruncate => File("ftruncate"),
        call::SYS_fallocate => File("fallocate"),
        call::SYS_flock => File("flock"),
        call::SYS_fcntl => File("fcntl"),
        call::SYS_getdents64 => File("getdents"),
        call::SYS_fstat => File("fstat"),
        call::SYS_fstatfs => File("fstatfs"),
        call::SYS_close => File("close"),
        call::SYS_openat | call::SYS_openat2 => Path("open", Some(1)),
        call::SYS_newfstatat | call::SYS_statx => Path("stat", Some(1)),
        call::SYS_statfs => Path("statfs", Some(0)),
        call::SYS_renameat | call::SYS_renameat2 => Path("rename", Some(1)),
        call::SYS_unlinkat => Path("unlink", Some(1)),
        call::SYS_mkdirat => Path("mkdir", Some(1)),
        call::SYS_linkat => Path("link", Some(1)),
        call::SYS_faccessat => Path("access", Some(1)),
        call::SYS_truncate => Path("truncate", Some(0)),
        call::SYS_sync => Path("sync", None),
        call::SYS_epoll_pwait | call::SYS_epoll_pwait2 => Events("epoll_wait"),
        call::SYS_ppoll => Events("poll"),
        call::SYS_pselect6 => Events("select"),
        call::SYS_accept | call::SYS_accept4 => Events("accept"),
        call::SYS_nanosleep | call::SYS_clock_nanosleep => Events("sleep"),
        call::SYS_rt_sigtimedwait | call::SYS_rt_sigsuspend => Events("signals"),
        call::SYS_wait4 | call::SYS_waitid => Child,
        call::SYS_mmap | call::SYS_munmap | call::SYS_mprotect | call::SYS_madvise | call::SYS_brk => Memory,
        call::SYS_msync => Path("msync", None),
        other => older(other),
    }
}

/// Calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
fn older(number: i64) -> CallAim {
    use CallAim::{Events, Other, Path};
    use libc as call;
    match number {
        call::SYS_epoll_wait => Events("epoll_wait"),
        call::SYS_poll => Events("poll"),
        call::SYS_select => Events("select"),
        call::SYS_pause => Events("signals"),
        call::SYS_open => Path("open", Some(0)),
        call::SYS_stat | call::SYS_lstat => Path("stat", Some(0)),
        call::SYS_rename => Path("rename", Some(0)),
        call::SYS_unlink => Path("unlink", Some(0)),
        call::SYS_mkdir => Path("mkdir", Some(0)),
        call::SYS_rmdir => Path("rmdir", Some(0)),
        call::SYS_link => Path("link", Some(0)),
        call::SYS_access => Path("access", Some(0)),
        _ => Other,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn older(_: i64) -> CallAim {
    CallAim::Other
}
