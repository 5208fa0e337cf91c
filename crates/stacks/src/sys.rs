//! The only module with `unsafe`: what the safe wrappers of the system's calls do not offer.
#![expect(
    unsafe_code,
    reason = "a signal handler, and a signal number that the safe wrapper's type cannot hold"
)]

use std::ptr;

use nix::errno::Errno;

/// Lets a traced thread go on and delivers `signal` to it, 0 for none. The safe wrapper takes no real-time signals,
/// and to swallow one that was on its way could hang a process (glibc's `setuid` goes by one).
pub(crate) fn detach(tid: i32, signal: i32) -> Result<(), Errno> {
    let signal = ptr::without_provenance_mut::<libc::c_void>(usize::try_from(signal).unwrap_or(0));
    // SAFETY: PTRACE_DETACH takes a number of a thread and, in place of a pointer, a number of a signal; it reads and
    // writes no memory of ours. For a thread that we do not trace it fails with ESRCH.
    let result = unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, ptr::null_mut::<libc::c_void>(), signal) };
    Errno::result(result).map(drop)
}
