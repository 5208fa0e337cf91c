//! Threads that did nothing between two samples, and what the kernel does for them meanwhile.

use std::{fs, path::Path};

use procfs::process::Process;
use serde::Serialize;

/// So many frames of the kernel are shown.
const KERNEL_FRAMES: usize = 4;

/// A thread that has neither run nor been woken between two samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StillThread {
    pub(crate) tid: i32,
    pub(crate) name: String,
    /// In the later sample: S sleeping, D waiting in the kernel and not to be interrupted.
    pub(crate) state: char,
    /// The function of the kernel in which it waits.
    pub(crate) wchan: Option<String>,
    /// The system call that it is in, if that is one on files.
    pub(crate) call: Option<&'static str>,
    /// The file of that call.
    pub(crate) file: Option<String>,
    /// Functions of the kernel, the innermost first, if it must not be interrupted and this user may see them.
    pub(crate) kernel: Option<String>,
}

impl StillThread {
    /// Whether the kernel works for it on a file, which an idle thread never waits for.
    pub(crate) fn waits_for_disk(&self) -> bool {
        self.state == 'D' || self.call.is_some()
    }
}

/// One thread in one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ThreadMark {
    tid: i32,
    name: String,
    state: char,
    /// It differs as soon as the thread has run or slept again.
    switches: u64,
    ran_ns: u64,
}

/// Marks all threads of a process.
pub(crate) fn marks(pid: i32) -> Vec<ThreadMark> {
    let tasks = Process::new(pid).and_then(|process| process.tasks());
    let one = |task: procfs::process::Task| {
        let (status, stat) = (task.status().ok()?, task.stat().ok()?);
        let switches =
            status.voluntary_ctxt_switches.unwrap_or(0) + status.nonvoluntary_ctxt_switches.unwrap_or(0);
        let ran_ns = task.schedstat().map_or(0, |times| times.sum_exec_runtime);
        Some(ThreadMark { tid: task.tid, name: stat.comm, state: stat.state, switches, ran_ns })
    };
    tasks.into_iter().flatten().flatten().filter_map(one).collect()
}

/// Those threads that are as they were.
pub(crate) fn still(pid: i32, before: &[ThreadMark], after: &[ThreadMark]) -> Vec<StillThread> {
    let is_still = |now: &&ThreadMark| matches!(now.state, 'S' | 'D') && before.contains(now);
    after.iter().filter(is_still).map(|mark| describe(pid, mark)).collect()
}

fn describe(pid: i32, mark: &ThreadMark) -> StillThread {
    let folder = format!("/proc/{pid}/task/{}", mark.tid);
    let text = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok();
    let wchan =
        text("wchan").map(|text| text.trim().to_owned()).filter(|text| text != "0" && !text.is_empty());
    let (call, descriptor) = text("syscall").and_then(|text| file_call(&text)).unzip();
    let path = |fd: u64| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok();
    let file = descriptor.and_then(path).filter(|path| path.is_absolute());
    // A call on a pipe or a socket waits for a process, not for a disk.
    let call = call.filter(|_| file.is_some());
    StillThread {
        tid: mark.tid,
        name: mark.name.clone(),
        state: mark.state,
        wchan,
        call,
        file: file.map(|path| path.display().to_string()),
        kernel: (mark.state == 'D').then(|| kernel_stack(pid, mark.tid)).flatten(),
    }
}

/// `NUMBER ARGUMENT …` of `/proc/PID/task/TID/syscall`: a call that works on the file of its first argument.
fn file_call(text: &str) -> Option<(&'static str, u64)> {
    let mut words = text.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let (name, _) = FILE_CALLS.iter().find(|(_, known)| *known == number)?;
    let argument = words.next()?.strip_prefix("0x")?;
    Some((name, u64::from_str_radix(argument, 16).ok()?))
}

const FILE_CALLS: [(&str, i64); 8] = [
    ("fdatasync", libc::SYS_fdatasync),
    ("fsync", libc::SYS_fsync),
    ("sync_file_range", libc::SYS_sync_file_range),
    ("pwrite", libc::SYS_pwrite64),
    ("write", libc::SYS_write),
    ("pread", libc::SYS_pread64),
    ("ftruncate", libc::SYS_ftruncate),
    ("fallocate", libc::SYS_fallocate),
];

/// The stack of a thread in the kernel, the innermost function first; only root may read it.
fn kernel_stack(pid: i32, tid: i32) -> Option<String> {
    let text = fs::read_to_string(Path::new(&format!("/proc/{pid}/task/{tid}/stack"))).ok()?;
    // `[<0>] percpu_rwsem_wait+0x120/0x160`
    let function = |line: &str| Some(line.split_whitespace().nth(1)?.split('+').next()?.to_owned());
    let functions: Vec<_> = text.lines().filter_map(function).take(KERNEL_FRAMES).collect();
    (!functions.is_empty()).then(|| functions.join(" ← "))
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::AsRawFd as _};

    use super::*;

    #[test]
    fn a_thread_that_waits_is_still_and_one_that_works_is_not() {
        let me = std::process::id().cast_signed();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let waits = std::thread::Builder::new().name("waits".into());
        let waits = waits.spawn(move || {
            ready.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            reader.read(&mut [0]).unwrap()
        });
        let waits = waits.unwrap();
        let tid = is_ready.recv().unwrap();
        let sleeps = |marks: &[ThreadMark]| marks.iter().any(|mark| mark.tid == tid && mark.state == 'S');
        while !sleeps(&marks(me)) {
            std::thread::yield_now();
        }
        let before = marks(me);
        let found = still(me, &before, &marks(me));
        let waiting = found.iter().find(|thread| thread.tid == tid).unwrap();
        assert_eq!(waiting.name, "waits");
        assert!(!waiting.waits_for_disk(), "a pipe is no disk: {waiting:?}");
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(found.iter().all(|thread| thread.tid != own));
        drop(writer);
        assert_eq!(waits.join().unwrap(), 0);
    }

    #[test]
    fn a_call_on_a_file_is_told_from_others() {
        let file = tempfile::tempfile().unwrap();
        let line = |number: i64| format!("{number} {:#x} 0x0 0x0 0x7ffd 0x7f", file.as_raw_fd());
        let descriptor = u64::try_from(file.as_raw_fd()).unwrap();
        assert_eq!(file_call(&line(libc::SYS_fdatasync)), Some(("fdatasync", descriptor)));
        assert_eq!(file_call(&line(libc::SYS_futex)), None);
        assert_eq!(file_call("running\n"), None);
    }
}
