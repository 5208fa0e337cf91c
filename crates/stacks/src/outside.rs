//! Stacks of another process: each thread is stopped, copied and resumed; unwinding works on the copies.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, sys::ptrace, unistd::Pid};
use rustix::process::{WaitOptions, WaitStatus, waitpid};

use crate::{
    StackDump, ThreadStack,
    copy::{Registers, STACK_MAX, ThreadCopy, copy_len},
    modules::read_memory,
    proc::{self, Mapping},
    symbols::Symbols,
    sys,
};

/// Deadline for a thread to stop. A thread that waits for a disk does not.
const STOP_TIMEOUT: Duration = Duration::from_millis(50);
/// The same of one that waits for a processor: on a busy machine it stops once it gets one, and nothing delays it meanwhile.
pub(crate) const SCHEDULED_TIMEOUT: Duration = Duration::from_millis(500);

/// Deadline of the whole dump: of a process with hundreds of threads that wait for a dead disk, the first ones are enough.
pub(crate) const TOTAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The result of tracing one thread.
pub(crate) enum TraceResult {
    Copied {
        copied: Box<ThreadCopy>,
        paused: Duration,
    },
    Missing(String),
    /// It did not stop in time, and is still traced.
    TimedOut,
    /// It has ended.
    Ended,
}

pub(crate) fn capture(pid: i32) -> io::Result<StackDump> {
    let began = now();
    let threads: Vec<ThreadStack> =
        proc::tids(pid)?.into_iter().filter_map(|tid| proc::thread(pid, tid)).collect();
    let maps = proc::maps(pid);
    let mut results = Vec::with_capacity(threads.len());
    while let Some(rest) = threads.get(results.len()..).filter(|rest| !rest.is_empty()) {
        results.extend(trace_on_new_thread(pid, rest, &maps, began)?);
    }
    let mut symbols = Symbols::of(pid, &maps);
    let mut longest_pause = Duration::ZERO;
    let mut named = Vec::with_capacity(threads.len());
    for (mut thread, result) in threads.into_iter().zip(results) {
        match result {
            TraceResult::Ended => continue,
            TraceResult::Missing(why) => thread.missing = Some(why),
            TraceResult::TimedOut => thread.missing = Some(timeout_message(pid, thread.tid)),
            TraceResult::Copied { copied, paused } => {
                longest_pause = longest_pause.max(paused);
                symbols.name(&mut thread, &copied);
            }
        }
        named.push(thread);
    }
    Ok(StackDump { pid, threads: named, took: began.elapsed(), longest_pause })
}

/// Traces threads until one does not stop in time, on a new thread: when a tracer ends, the kernel detaches all its
/// tracees, so that the late thread is not stopped for good once it becomes interruptible.
pub(crate) fn trace_on_new_thread(
    pid: i32,
    threads: &[ThreadStack],
    maps: &[Mapping],
    began: Instant,
) -> io::Result<Vec<TraceResult>> {
    thread::scope(|scope| {
        let tracer = thread::Builder::new().name("stacks".to_owned());
        let tracer = tracer.spawn_scoped(scope, move || trace_threads(pid, threads, maps, began))?;
        tracer.join().map_err(|_| io::Error::other("the tracing thread panicked"))
    })
}

fn trace_threads(pid: i32, threads: &[ThreadStack], maps: &[Mapping], began: Instant) -> Vec<TraceResult> {
    let mut buffer = vec![0; STACK_MAX];
    let mut all = Vec::with_capacity(threads.len());
    for thread in threads {
        let result = if matches!(thread.state, 'Z' | 'X') {
            TraceResult::Missing("the thread has ended, but its process has not".to_owned())
        } else if began.elapsed() > TOTAL_TIMEOUT {
            TraceResult::Missing("no time left: other threads took too long".to_owned())
        } else {
            trace_thread(pid, thread.tid, maps, &mut buffer)
        };
        let late = matches!(result, TraceResult::TimedOut);
        all.push(result);
        if late {
            break;
        }
    }
    all
}

fn trace_thread(pid: i32, tid: i32, maps: &[Mapping], buffer: &mut [u8]) -> TraceResult {
    let thread = Pid::from_raw(tid);
    let failed = |what: &str, error: Errno| match error {
        _ if proc::state(pid, tid).is_none() => TraceResult::Ended,
        Errno::EPERM | Errno::EACCES => TraceResult::Missing(permission_advice(pid, tid)),
        error => TraceResult::Missing(format!("{what}: {}", error.desc())),
    };
    if let Err(error) = ptrace::seize(thread, ptrace::Options::empty()) {
        return failed("cannot trace the thread", error);
    }
    let began = now();
    if let Err(error) = ptrace::interrupt(thread) {
        return failed("cannot stop the thread", error);
    }
    let signal = match wait_stopped(pid, tid, began) {
        Stopped::With(signal) => signal,
        Stopped::Ended => return TraceResult::Ended,
        Stopped::TimedOut => return TraceResult::TimedOut,
    };
    let copied = ptrace::getregs(thread).map(|regs| {
        let registers = Registers::from(&regs);
        let target = buffer.get_mut(..copy_len(maps, registers.sp)).unwrap_or_default();
        let base = usize::try_from(registers.sp).unwrap_or(usize::MAX);
        (registers, read_memory(pid, base, target).unwrap_or(0))
    });
    let detached = sys::detach(tid, signal);
    let paused = began.elapsed();
    match (copied, detached) {
        (Ok((registers, read)), Ok(())) => {
            let stack = buffer.get(..read).unwrap_or_default().to_vec();
            TraceResult::Copied { copied: Box::new(ThreadCopy { registers, stack }), paused }
        }
        // Killed meanwhile.
        (Err(Errno::ESRCH), _) | (_, Err(Errno::ESRCH)) => TraceResult::Ended,
        (Err(error), _) | (_, Err(error)) => failed("cannot read the thread", error),
    }
}

enum Stopped {
    /// With the number of a pending signal that must be delivered on detach; 0 for none.
    With(i32),
    Ended,
    TimedOut,
}

fn wait_stopped(pid: i32, tid: i32, began: Instant) -> Stopped {
    // A tracer gets the status of threads only with `__WALL`.
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    let Some(thread) = rustix::process::Pid::from_raw(tid) else { return Stopped::Ended };
    for round in 0.. {
        match waitpid(Some(thread), options) {
            Ok(Some((_, status))) if status.stopped() => return Stopped::With(signal_to_deliver(status)),
            Ok(Some(_)) => return Stopped::Ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Stopped::Ended,
        }
        if is_too_late(began.elapsed(), STOP_TIMEOUT, pid, tid) {
            break;
        }
        pause(round);
    }
    Stopped::TimedOut
}

/// Whether a thread that has not reacted for that long will not: after `limit` if it waits for a disk, and later if it waits
/// for a processor.
pub(crate) fn is_too_late(waited: Duration, limit: Duration, pid: i32, tid: i32) -> bool {
    waited >= limit && (waited >= SCHEDULED_TIMEOUT || matches!(proc::state(pid, tid), None | Some('D')))
}

/// A stop by PTRACE_INTERRUPT has its event in the upper half of the status; any other is a signal's.
fn signal_to_deliver(status: WaitStatus) -> i32 {
    if status.as_raw() >> 16 == libc::PTRACE_EVENT_STOP { 0 } else { status.stopping_signal().unwrap_or(0) }
}

fn timeout_message(pid: i32, tid: i32) -> String {
    match proc::state(pid, tid) {
        Some('D') => {
            "the thread is in uninterruptible sleep in the kernel, probably waiting for a disk".to_owned()
        }
        _ => format!("the thread did not stop within {} ms", SCHEDULED_TIMEOUT.as_millis()),
    }
}

/// Why tracing is not permitted, and what to do about it.
fn permission_advice(pid: i32, tid: i32) -> String {
    let number = |pid, tid, field: &str| -> Option<i32> {
        proc::status(pid, tid, field)?.split_whitespace().next()?.parse().ok()
    };
    if std::process::id() == pid.cast_unsigned() {
        return "a process cannot trace itself; use its own stack dump".to_owned();
    }
    if let Some(tracer) = number(pid, tid, "TracerPid").filter(|tracer| *tracer != 0) {
        // TracerPid is a thread; show its process.
        let tracer = number(tracer, tracer, "Tgid").unwrap_or(tracer);
        let name = proc::thread(tracer, tracer).map_or_else(|| "?".to_owned(), |tracer| tracer.name);
        return format!(
            "process {tracer} ({name}) already traces it, and only one can; end that process and retry"
        );
    }
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let scope = scope.trim();
    let owner = number(pid, tid, "Uid").map(i32::cast_unsigned);
    let me = rustix::process::geteuid();
    match owner {
        _ if scope == "3" => {
            "kernel.yama.ptrace_scope is 3: tracing is disabled until the next boot".to_owned()
        }
        Some(owner) if !me.is_root() && owner != me.as_raw() => {
            format!("the process belongs to user {owner}, not to user {me}; run as root")
        }
        _ if !me.is_root() && matches!(scope, "1" | "2") => {
            format!("kernel.yama.ptrace_scope is {scope}; run as root")
        }
        _ if me.is_root() => {
            "root lacks CAP_SYS_PTRACE here, as in most containers; run on the host".to_owned()
        }
        _ => "the system does not permit tracing; run as root".to_owned(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures a pause of microseconds; no event loop and no paused clock here"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Yields the CPU; sleeps briefly in later rounds.
#[expect(clippy::disallowed_methods, reason = "a dedicated thread outside every runtime")]
pub(crate) fn pause(round: u32) {
    if round < 100 {
        thread::yield_now();
    } else {
        thread::sleep(Duration::from_micros(50));
    }
}
