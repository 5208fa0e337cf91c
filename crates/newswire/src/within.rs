//! Reads that may never return, each with a deadline on a thread of its own, which is abandoned if it is late. Not on a thread of
//! the runtime, which has a bound on them and waits for them at its end.
//!
//! The command line, the environment and the memory map of a process are read through its memory: while a thread of it holds
//! the lock of that memory (a page fault on a disk that hangs), such a read never returns. Nothing in the doctor may wait for
//! it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use procfs::process::Process;
use tokio::{sync::oneshot, time::timeout};

/// How long a read through the memory of another process may take. It takes microseconds unless the process hangs.
const MEMORY_READ_WITHIN: Duration = Duration::from_millis(250);
/// Processes with a read that did not return: a second read of such a process would not return either.
static HUNG: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Runs `read` on a thread of its own. `None` if it has no result in time; the thread is abandoned then.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    read: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = mpsc::sync_channel(1);
    // Nothing receives the result of a late read.
    run_on(thread::Builder::new(), move || drop(done.send(read())));
    result.recv_timeout(limit).ok()
}

/// The same on an event loop.
pub(crate) async fn later<T: Send + 'static>(
    limit: Duration,
    read: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    run_on(thread::Builder::new(), move || drop(done.send(read())));
    timeout(limit, result).await.ok()?.ok()
}

/// Runs `work` on a new thread. On this one if none can be started: that threads are used up is a fault which the doctor must be
/// able to find.
fn run_on(thread: thread::Builder, work: impl FnOnce() + Send + 'static) {
    let (hand_over, work_of_thread) = mpsc::sync_channel::<Box<dyn FnOnce() + Send>>(1);
    let run = move || {
        if let Ok(work) = work_of_thread.recv() {
            work();
        }
    };
    match thread.name("read".to_owned()).spawn(run) {
        // The thread waits for it.
        Ok(_) => drop(hand_over.send(Box::new(work))),
        Err(_) => work(),
    }
}

/// Reads something through the memory of a process. `None` if it does not return in time, and at once for a process whose
/// memory could not be read in time before.
pub(crate) fn through_memory<T: Send + 'static>(
    pid: i32,
    read: impl FnOnce(&Process) -> procfs::ProcResult<T> + Send + 'static,
) -> Option<T> {
    through_memory_within(MEMORY_READ_WITHIN, pid, read)
}

fn through_memory_within<T: Send + 'static>(
    limit: Duration,
    pid: i32,
    read: impl FnOnce(&Process) -> procfs::ProcResult<T> + Send + 'static,
) -> Option<T> {
    if is_hung(pid) {
        return None;
    }
    let result = within(limit, move || read(&Process::new(pid)?));
    if result.is_none() {
        HUNG.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }
    result?.ok()
}

/// Whether a read through the memory of this process did not return in time.
pub(crate) fn is_hung(pid: i32) -> bool {
    HUNG.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_is_late_keeps_neither_the_loop_nor_the_end_of_the_tool_waiting() {
        let (_keeps_it_waiting, never) = mpsc::sync_channel::<()>(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let late = later(Duration::from_millis(20), move || never.recv().ok());
        assert_eq!(runtime.block_on(late), None);
        assert_eq!(runtime.block_on(later(Duration::from_secs(60), || 7)), Some(7));
        // Waits for all threads of the runtime: for ever, if the read were on one of them.
        drop(runtime);
    }

    #[test]
    fn without_a_further_thread_a_read_is_made_all_the_same() {
        // More than there are addresses.
        let impossible = thread::Builder::new().stack_size(1 << 47);
        let (done, result) = mpsc::sync_channel(1);
        let reader = thread::current().id();
        run_on(impossible, move || done.send(thread::current().id()).unwrap());
        assert_eq!(result.try_recv(), Ok(reader));
    }

    #[test]
    fn a_read_that_never_returns_costs_its_deadline_once_and_then_nothing() {
        let (_keeps_it_waiting, never) = mpsc::sync_channel::<()>(0);
        let pid = std::process::id().cast_signed();
        // Another pid of the same process: a test beside this one reads this process, too.
        let other = std::os::unix::process::parent_id().cast_signed();
        let hung = move |_: &Process| -> procfs::ProcResult<()> {
            never.recv().ok();
            Ok(())
        };
        assert_eq!(through_memory_within(Duration::from_millis(20), other, hung), None);
        assert!(is_hung(other) && !is_hung(pid));
        let refused = |_: &Process| -> procfs::ProcResult<()> { panic!("it was read again") };
        assert_eq!(through_memory(other, refused), None);
        assert!(through_memory(pid, |process| process.cmdline()).is_some_and(|all| !all.is_empty()));
    }
}
