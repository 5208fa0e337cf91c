//! The stacks of another process: each thread is stopped, copied and let go; the rest is done on the copies.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, sys::ptrace, unistd::Pid};
use rustix::process::{WaitOptions, WaitStatus, waitpid};

use crate::{
    StackDump, ThreadStack,
    copy::{Copied, Registers, STACK_MAX, extent},
    modules::read_memory,
    proc::{self, Mapping},
    symbols::Symbols,
    sys,
};

/// How long a thread may take to stop. One that waits for a disk does not.
const STOP_WITHIN: Duration = Duration::from_millis(50);

/// How long all of them together may take: a process with hundreds of threads that wait for a dead disk is told by
/// its first ones.
pub(crate) const ALL_WITHIN: Duration = Duration::from_secs(1);

/// What came of one thread.
enum Looked {
    Copied {
        copied: Copied,
        paused: Duration,
    },
    Missing(String),
    /// It did not stop, and is still traced.
    Late,
    /// It ended meanwhile.
    Gone,
}

pub(crate) fn capture(pid: i32) -> io::Result<StackDump> {
    let began = now();
    let threads: Vec<ThreadStack> =
        proc::tids(pid)?.into_iter().filter_map(|tid| proc::thread(pid, tid)).collect();
    let maps = proc::maps(pid);
    let mut looked = Vec::with_capacity(threads.len());
    while let Some(rest) = threads.get(looked.len()..).filter(|rest| !rest.is_empty()) {
        looked.extend(on_its_own_thread(pid, rest, &maps, began)?);
    }
    let mut symbols = Symbols::of(pid, &maps);
    let mut longest_pause = Duration::ZERO;
    let mut named = Vec::with_capacity(threads.len());
    for (mut thread, looked) in threads.into_iter().zip(looked) {
        match looked {
            Looked::Gone => continue,
            Looked::Missing(why) => thread.missing = Some(why),
            Looked::Late => thread.missing = Some(late(pid, thread.tid)),
            Looked::Copied { copied, paused } => {
                longest_pause = longest_pause.max(paused);
                symbols.name(&mut thread, &copied);
            }
        }
        named.push(thread);
    }
    Ok(StackDump { pid, threads: named, took: began.elapsed(), longest_pause })
}

/// Looks at threads until one does not stop in time. The kernel lets go of all that a thread traces when that thread
/// ends: so that one is not caught, and held, when it comes to the place where it can be stopped.
fn on_its_own_thread(
    pid: i32,
    threads: &[ThreadStack],
    maps: &[Mapping],
    began: Instant,
) -> io::Result<Vec<Looked>> {
    thread::scope(|scope| {
        let tracer = thread::Builder::new().name("stacks".to_owned());
        let tracer = tracer.spawn_scoped(scope, move || look(pid, threads, maps, began))?;
        tracer.join().map_err(|_| io::Error::other("the tracing thread panicked"))
    })
}

fn look(pid: i32, threads: &[ThreadStack], maps: &[Mapping], began: Instant) -> Vec<Looked> {
    let mut buffer = vec![0; STACK_MAX];
    let mut all = Vec::with_capacity(threads.len());
    for thread in threads {
        let looked = if matches!(thread.state, 'Z' | 'X') {
            Looked::Missing("it has ended, and others of its process have not".to_owned())
        } else if began.elapsed() > ALL_WITHIN {
            Looked::Missing("no time left: others took too long to stop".to_owned())
        } else {
            one(pid, thread.tid, maps, &mut buffer)
        };
        let late = matches!(looked, Looked::Late);
        all.push(looked);
        if late {
            break;
        }
    }
    all
}

fn one(pid: i32, tid: i32, maps: &[Mapping], buffer: &mut [u8]) -> Looked {
    let thread = Pid::from_raw(tid);
    let failed = |what: &str, error: Errno| match error {
        _ if proc::state(pid, tid).is_none() => Looked::Gone,
        Errno::EPERM | Errno::EACCES => Looked::Missing(refusal(pid, tid)),
        error => Looked::Missing(format!("{what}: {}", error.desc())),
    };
    if let Err(error) = ptrace::seize(thread, ptrace::Options::empty()) {
        return failed("it could not be traced", error);
    }
    let began = now();
    if let Err(error) = ptrace::interrupt(thread) {
        return failed("it could not be stopped", error);
    }
    let signal = match stopped(tid, began + STOP_WITHIN) {
        Stopped::With(signal) => signal,
        Stopped::Ended => return Looked::Gone,
        Stopped::Late => return Looked::Late,
    };
    let copied = ptrace::getregs(thread).map(|regs| {
        let registers = Registers::from(&regs);
        let wanted = buffer.get_mut(..extent(maps, registers.sp)).unwrap_or_default();
        let base = usize::try_from(registers.sp).unwrap_or(usize::MAX);
        (registers, read_memory(pid, base, wanted).unwrap_or(0))
    });
    let detached = sys::detach(tid, signal);
    let paused = began.elapsed();
    match (copied, detached) {
        (Ok((registers, read)), Ok(())) => {
            let stack = buffer.get(..read).unwrap_or_default().to_vec();
            Looked::Copied { copied: Copied { registers, stack }, paused }
        }
        // Killed in between.
        (Err(Errno::ESRCH), _) | (_, Err(Errno::ESRCH)) => Looked::Gone,
        (Err(error), _) | (_, Err(error)) => failed("it could not be read", error),
    }
}

enum Stopped {
    /// With the number of a signal that was on its way to it and has to be passed on; 0 for none.
    With(i32),
    Ended,
    Late,
}

fn stopped(tid: i32, until: Instant) -> Stopped {
    // Threads are children to a tracer only when asked for all kinds of them.
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    let Some(thread) = rustix::process::Pid::from_raw(tid) else { return Stopped::Ended };
    for round in 0.. {
        match waitpid(Some(thread), options) {
            Ok(Some((_, status))) if status.stopped() => return Stopped::With(passed_on(status)),
            Ok(Some(_)) => return Stopped::Ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Stopped::Ended,
        }
        if now() >= until {
            break;
        }
        pause(round);
    }
    Stopped::Late
}

/// A stop of our own making has the event in the upper half; any other is a signal's.
fn passed_on(status: WaitStatus) -> i32 {
    if status.as_raw() >> 16 == libc::PTRACE_EVENT_STOP { 0 } else { status.stopping_signal().unwrap_or(0) }
}

fn late(pid: i32, tid: i32) -> String {
    match proc::state(pid, tid) {
        Some('D') => "it waits in the kernel, for a disk most likely, and cannot be stopped".to_owned(),
        _ => format!("it did not stop within {} ms", STOP_WITHIN.as_millis()),
    }
}

/// Why the system does not let us, and what to do about it.
fn refusal(pid: i32, tid: i32) -> String {
    let number = |pid, tid, field: &str| -> Option<i32> {
        proc::status(pid, tid, field)?.split_whitespace().next()?.parse().ok()
    };
    if std::process::id() == pid.cast_unsigned() {
        return "a process cannot trace itself; it has a capture of its own for that".to_owned();
    }
    if let Some(tracer) = number(pid, tid, "TracerPid").filter(|tracer| *tracer != 0) {
        // The system names the thread; people know the process.
        let tracer = number(tracer, tracer, "Tgid").unwrap_or(tracer);
        let name = proc::thread(tracer, tracer).map_or_else(|| "?".to_owned(), |tracer| tracer.name);
        return format!(
            "process {tracer} ({name}) traces it already, and only one can: end that one and ask again"
        );
    }
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let scope = scope.trim();
    let owner = number(pid, tid, "Uid").map(i32::cast_unsigned);
    let me = rustix::process::geteuid();
    match owner {
        _ if scope == "3" => "kernel.yama.ptrace_scope is 3: nobody may trace until the next boot".to_owned(),
        Some(owner) if !me.is_root() && owner != me.as_raw() => {
            format!("it belongs to user {owner}, not to user {me}: run as root")
        }
        _ if !me.is_root() && matches!(scope, "1" | "2") => {
            format!("kernel.yama.ptrace_scope is {scope}: run as root")
        }
        _ if me.is_root() => {
            "this root lacks CAP_SYS_PTRACE, as in most containers: run on the host".to_owned()
        }
        _ => "the system does not permit to trace it: run as root".to_owned(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures a pause of microseconds; no arbiter and no paused clock here"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets others run: at first at once again, later in small steps.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, outside every runtime")]
pub(crate) fn pause(round: u32) {
    if round < 100 {
        thread::yield_now();
    } else {
        thread::sleep(Duration::from_micros(50));
    }
}
