//! Parks one thread of a running program in a call that never returns, and lets go of it: what a held lock, a silent pipe or
//! an endless loop in the program looks like. The program is the shipped one; no other thread is stopped for longer than a
//! few system calls.
//!
//! A hardware breakpoint at the first instruction of a function stops the thread that calls it. Its stack then has the
//! program's own frames; on top of it goes a return address into that function, and the thread continues in a function of
//! libc. Nothing of this outlives the tracer but that thread.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    libc::{c_long, user_regs_struct},
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use object::{Object as _, ObjectSymbol as _};
use tokio::{task::JoinHandle, time::Instant};

/// Where the thread never comes back from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hold {
    /// A futex that no thread wakes.
    Futex,
    /// A mutex of pthread that is locked.
    Mutex,
    /// A pipe that is empty and whose other end stays open.
    Pipe,
    /// An endless loop.
    Loop,
}

/// Which thread is parked, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// How the name of the thread begins; every thread, also one that begins later, if it is empty.
    thread: &'static str,
    /// How the path of the function ends, the first one that the program has; wherever the thread is, if it is empty.
    functions: &'static [&'static str],
}

impl Spot {
    /// A call of a function by a thread. Of several functions, the first one that the build has: an optimised build lacks
    /// those that were inlined.
    pub(crate) const fn in_call(thread: &'static str, functions: &'static [&'static str]) -> Self {
        Self { thread, functions }
    }

    /// Wherever the thread is when it is idle.
    pub(crate) const fn idle(thread: &'static str) -> Self {
        Self { thread, functions: &[] }
    }
}

/// How long a thread has to come to the function.
const CALLED_WITHIN: Duration = Duration::from_secs(60);
/// As many as the processor has.
const BREAKPOINTS_MAX: usize = 4;
/// The pause between two looks at the threads.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A function of libc that these programs never call, whose code makes way for the endless loop.
const UNUSED: &str = "gnu_get_libc_version";
/// `jmp` to itself.
const ENDLESS: c_long = 0xfeeb;

/// Whether this machine can park threads; else says why not.
pub(crate) fn is_possible() -> bool {
    let possible = cfg!(all(target_arch = "x86_64", target_env = "gnu"));
    if !possible {
        e2e::log_line("SKIPPED: threads are parked on x86-64 with the GNU libc only");
    }
    possible
}

/// Sets the trap. The thread walks into it when it calls the function, so the test may have to cause that; then await the
/// id of the parked thread.
pub(crate) fn park(process: u32, spot: Spot, hold: Hold) -> JoinHandle<anyhow::Result<i32>> {
    // A tracer is a thread: all of it happens on this one.
    tokio::task::spawn_blocking(move || {
        let process = Pid::from_raw(i32::try_from(process)?);
        Trap::set(process, spot)?.catch(hold).with_context(|| format!("park {spot:?}"))
    })
}

/// The traced threads of a process.
struct Trap {
    process: Pid,
    threads: Vec<Pid>,
    breakpoints: Vec<u64>,
    /// Without it, every thread is meant.
    is_chosen: bool,
}

impl Trap {
    fn set(process: Pid, spot: Spot) -> anyhow::Result<Self> {
        let breakpoints = match spot.functions {
            [] => Vec::new(),
            functions => Image::of_program(process)?
                .first_of(functions)
                .or_else(|missing| Image::of_libc(process)?.first_of(functions).map_err(|_| missing))?,
        };
        let threads = threads_named(process, spot.thread)?;
        anyhow::ensure!(!threads.is_empty(), "{process} has threads named {}", spot.thread);
        let is_chosen = !spot.thread.is_empty();
        let mut trap = Self { process, threads: Vec::new(), breakpoints, is_chosen };
        let options = if is_chosen { Options::empty() } else { Options::PTRACE_O_TRACECLONE };
        for thread in threads {
            match ptrace::seize(thread, options) {
                Err(Errno::ESRCH) if !is_chosen => continue,
                result => result.context("ptrace; it takes root, or the same user")?,
            }
            trap.threads.push(thread);
            trap.arm(thread)?;
        }
        Ok(trap)
    }

    /// Sets the breakpoints of a thread and lets it run.
    fn arm(&self, thread: Pid) -> anyhow::Result<()> {
        if self.breakpoints.is_empty() {
            return Ok(());
        }
        interrupt(thread)?;
        self.arm_stopped(thread)
    }

    fn arm_stopped(&self, thread: Pid) -> anyhow::Result<()> {
        for (number, address) in self.breakpoints.iter().enumerate() {
            write_debug_register(thread, number, *address)?;
        }
        // A bit per breakpoint; the other fields of 0 mean: when the instruction is executed.
        let enabled = (0..self.breakpoints.len()).fold(0, |bits, number| bits | (1 << (2 * number)));
        write_debug_register(thread, 7, enabled)?;
        Ok(ptrace::cont(thread, None)?)
    }

    /// Waits until one thread comes to a breakpoint, parks it, and lets go of all.
    fn catch(mut self, hold: Hold) -> anyhow::Result<i32> {
        let caught = if self.breakpoints.is_empty() {
            interrupt(self.threads[0])?;
            Ok(self.threads[0])
        } else {
            self.wait_hit()
        };
        for thread in self.threads.iter().filter(|thread| caught.as_ref().ok() != Some(thread)) {
            // Fails if it has ended.
            release(*thread).ok();
        }
        let thread = caught?;
        hold_thread(self.process, thread, hold, !self.breakpoints.is_empty())?;
        write_debug_register(thread, 7, 0)?;
        ptrace::detach(thread, None)?;
        Ok(thread.as_raw())
    }

    fn wait_hit(&mut self) -> anyhow::Result<Pid> {
        let until = Instant::now() + CALLED_WITHIN;
        while Instant::now() < until {
            let mut begun = Vec::new();
            for thread in self.threads.clone() {
                match waitpid(thread, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                    Ok(WaitStatus::Stopped(thread, Signal::SIGTRAP)) => {
                        if self.breakpoints.contains(&ptrace::getregs(thread)?.rip) {
                            return Ok(thread);
                        }
                        ptrace::cont(thread, None)?;
                    }
                    Ok(WaitStatus::Stopped(thread, signal)) => ptrace::cont(thread, signal)?,
                    Ok(WaitStatus::PtraceEvent(thread, _, event)) => {
                        if !self.is_chosen && event == nix::libc::PTRACE_EVENT_CLONE {
                            begun.push(Pid::from_raw(i32::try_from(ptrace::getevent(thread)?)?));
                        }
                        ptrace::cont(thread, None)?;
                    }
                    Ok(WaitStatus::Exited(..)) | Err(Errno::ECHILD) if !self.is_chosen => {
                        self.threads.retain(|traced| *traced != thread);
                    }
                    Ok(WaitStatus::StillAlive) => {}
                    other => anyhow::bail!("thread {thread}: {other:?}"),
                }
            }
            for thread in begun {
                waitpid(thread, Some(WaitPidFlag::__WALL))?;
                self.threads.push(thread);
                self.arm_stopped(thread)?;
            }
            pause();
        }
        anyhow::bail!("no thread called the function within {CALLED_WITHIN:?}")
    }
}

#[expect(clippy::disallowed_methods, reason = "a tracer has a thread of its own")]
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

/// Stops a traced thread.
fn interrupt(thread: Pid) -> anyhow::Result<()> {
    ptrace::interrupt(thread)?;
    // The signals that come in between are those by which the program samples its own stacks.
    match waitpid(thread, Some(WaitPidFlag::__WALL))? {
        WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => Ok(()),
        other => anyhow::bail!("thread {thread} did not stop: {other:?}"),
    }
}

fn release(thread: Pid) -> anyhow::Result<()> {
    interrupt(thread)?;
    write_debug_register(thread, 7, 0)?;
    Ok(ptrace::detach(thread, None)?)
}

fn write_debug_register(thread: Pid, number: usize, value: u64) -> anyhow::Result<()> {
    // `offsetof(struct user, u_debugreg)` of x86-64.
    let offset = 848 + 8 * number;
    let value = c_long::from_ne_bytes(value.to_ne_bytes());
    Ok(ptrace::write_user(thread, std::ptr::without_provenance_mut(offset), value)?)
}

fn write_memory(thread: Pid, address: u64, value: c_long) -> anyhow::Result<()> {
    let address = std::ptr::without_provenance_mut(usize::try_from(address)?);
    Ok(ptrace::write(thread, address, value)?)
}

fn read_memory(thread: Pid, address: u64) -> anyhow::Result<c_long> {
    Ok(ptrace::read(thread, std::ptr::without_provenance_mut(usize::try_from(address)?))?)
}

/// Lets a stopped thread continue in a function of libc that does not return, called from where it is.
fn hold_thread(process: Pid, thread: Pid, hold: Hold, at_a_function: bool) -> anyhow::Result<()> {
    let libc = Image::of_libc(process)?;
    let mut held = ptrace::getregs(thread)?;
    let calls = SystemCalls { thread, instruction: libc.syscall_instruction()? };
    let anonymous = (nix::libc::MAP_PRIVATE | nix::libc::MAP_ANONYMOUS).cast_unsigned();
    let page = calls.make(nix::libc::SYS_mmap, [0, 4096, 3, u64::from(anonymous), u64::MAX, 0])?;
    let function = match hold {
        Hold::Futex => {
            (held.rdi, held.rsi, held.rdx) = (nix::libc::SYS_futex.cast_unsigned(), page, 0);
            (held.rcx, held.r8, held.r9) = (0, 0, 0);
            "syscall"
        }
        Hold::Mutex => {
            // Locked, with waiters, by this very thread.
            write_memory(thread, page, 2)?;
            write_memory(thread, page + 8, c_long::from(thread.as_raw()) | (1 << 32))?;
            held.rdi = page;
            "pthread_mutex_lock"
        }
        Hold::Pipe => {
            calls.make(nix::libc::SYS_pipe2, [page, 0, 0, 0, 0, 0])?;
            let ends = read_memory(thread, page)?.cast_unsigned();
            (held.rdi, held.rsi, held.rdx) = (ends & 0xffff_ffff, page + 64, 1);
            "read"
        }
        Hold::Loop => {
            write_memory(thread, libc.symbol(UNUSED)?, ENDLESS)?;
            UNUSED
        }
    };
    // An unwinder looks up the instruction before a return address: the first one of the function, where the frame is as
    // the caller left it.
    let back = if at_a_function { held.rip + 1 } else { held.rip };
    held.rsp -= 8;
    write_memory(thread, held.rsp, c_long::from_ne_bytes(back.to_ne_bytes()))?;
    held.rip = libc.symbol(function)?;
    // A system call that was interrupted is not begun again.
    held.orig_rax = u64::MAX;
    Ok(ptrace::setregs(thread, held)?)
}

/// Makes a traced thread make system calls.
pub(crate) struct SystemCalls {
    thread: Pid,
    instruction: u64,
}

impl SystemCalls {
    fn make(&self, number: c_long, arguments: [u64; 6]) -> anyhow::Result<u64> {
        let before = ptrace::getregs(self.thread)?;
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let (rax, rip, orig_rax) = (number.cast_unsigned(), self.instruction, u64::MAX);
        ptrace::setregs(
            self.thread,
            user_regs_struct { rdi, rsi, rdx, r10, r8, r9, rax, rip, orig_rax, ..before },
        )?;
        ptrace::step(self.thread, None)?;
        waitpid(self.thread, Some(WaitPidFlag::__WALL))?;
        let result = ptrace::getregs(self.thread)?.rax;
        ptrace::setregs(self.thread, before)?;
        let error = result.cast_signed();
        anyhow::ensure!(!(-4095..0).contains(&error), "system call {number}: {error}");
        Ok(result)
    }
}

/// Makes a thread of the process make one system call, wherever it is, and lets go of it.
///
/// # Errors
/// If it cannot be traced, or the call fails.
pub(crate) fn make_system_call(
    process: u32,
    thread: &str,
    number: c_long,
    arguments: [u64; 6],
) -> anyhow::Result<()> {
    let process = Pid::from_raw(i32::try_from(process)?);
    let thread = *threads_named(process, thread)?.first().context("the process has this thread")?;
    ptrace::seize(thread, Options::empty())?;
    interrupt(thread)?;
    let calls = SystemCalls { thread, instruction: Image::of_libc(process)?.syscall_instruction()? };
    // It continues in the call that it was in, because its registers are as before.
    let made = calls.make(number, arguments);
    ptrace::detach(thread, None)?;
    made.map(drop)
}

/// The threads whose name begins so.
fn threads_named(process: Pid, name: &str) -> anyhow::Result<Vec<Pid>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.starts_with(name) {
            threads.push(Pid::from_raw(entry.file_name().to_string_lossy().parse()?));
        }
    }
    threads.sort();
    Ok(threads)
}

/// A program or library as it lies in the memory of a process.
struct Image {
    path: PathBuf,
    base: u64,
}

impl Image {
    fn of_program(process: Pid) -> anyhow::Result<Self> {
        let path = fs::read_link(format!("/proc/{process}/exe"))?;
        Self::mapped(process, |mapped| mapped == path)
    }

    fn of_libc(process: Pid) -> anyhow::Result<Self> {
        Self::mapped(process, |mapped| mapped.ends_with("libc.so.6"))
    }

    fn mapped(process: Pid, is_it: impl Fn(&Path) -> bool) -> anyhow::Result<Self> {
        // `55d0-55d1 r--p 00000000 fe:00 1234   /usr/bin/newswire`
        let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
        let first = maps.lines().find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let (range, path) = (words.first()?, PathBuf::from(words.get(5)?));
            let base = u64::from_str_radix(range.split_once('-')?.0, 16).ok()?;
            is_it(&path).then_some(Self { path, base })
        });
        first.context("the file is mapped")
    }

    /// The addresses of the first function that the file has.
    fn first_of(&self, functions: &[&str]) -> anyhow::Result<Vec<u64>> {
        let bytes = fs::read(&self.path)?;
        let file = object::File::parse(&*bytes)?;
        for function in functions {
            let last = function.rsplit("::").next().unwrap_or(function);
            let found: Vec<_> = file
                .symbols()
                .chain(file.dynamic_symbols())
                .filter(|symbol| symbol.is_definition())
                .filter(|symbol| {
                    symbol.name().is_ok_and(|name| {
                        // Demangling all of them takes a while.
                        name.contains(last)
                            && format!("{:#}", rustc_demangle::demangle(name)).ends_with(function)
                    })
                })
                .map(|symbol| self.base + symbol.address())
                .take(BREAKPOINTS_MAX)
                .collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        anyhow::bail!("{} has none of {functions:?}", self.path.display())
    }

    fn symbol(&self, name: &str) -> anyhow::Result<u64> {
        let bytes = fs::read(&self.path)?;
        let file = object::File::parse(&*bytes)?;
        let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name));
        Ok(self.base + symbol.with_context(|| format!("{} has {name}", self.path.display()))?.address())
    }

    /// Where libc has the instruction that makes a system call.
    fn syscall_instruction(&self) -> anyhow::Result<u64> {
        let function = self.symbol("syscall")?;
        let bytes = fs::read(&self.path)?;
        let from = usize::try_from(function - self.base)?;
        let code = bytes.get(from..from + 64).context("the function is in the file")?;
        let at = code.windows(2).position(|pair| pair == [0x0f, 0x05]).context("it makes the call")?;
        Ok(function + u64::try_from(at)?)
    }
}

/// The id of the first thread of that name.
pub(crate) fn thread_named(process: u32, name: &str) -> anyhow::Result<u32> {
    let threads = threads_named(Pid::from_raw(i32::try_from(process)?), name)?;
    Ok(u32::try_from(threads.first().context("the process has this thread")?.as_raw())?)
}
