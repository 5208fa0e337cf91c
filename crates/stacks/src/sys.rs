//! The only module with `unsafe`: a signal handler that copies the thread it runs on, and a system call whose safe wrapper
//! is too narrow.
//!
//! One request is open at a time. Its state is one word: generation, thread id and phase. A late handler, whose request was
//! cancelled, finds another word and touches nothing; a handler that has begun to write owns the slot until it sets DONE,
//! and a slot that stays in WRITING is never reused.
#![expect(
    unsafe_code,
    reason = "a signal handler, and a signal number that the safe wrapper's type cannot hold"
)]

use std::{
    cell::UnsafeCell,
    io, mem, ptr,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
    time::Duration,
};

use nix::errno::Errno;

use crate::{
    copy::{Registers, STACK_MAX, ThreadCopy},
    modules::read_memory,
};

/// Slots are 512 KiB. A second one is only allocated if a thread is stuck in the handler (for example because its stack is
/// swapped out to a dead disk).
const SLOTS_MAX: usize = 2;

/// Detaches from a traced thread and delivers `signal` to it, 0 for none. The safe wrapper does not accept real-time
/// signals, and dropping a pending one could hang a process (glibc's `setuid` uses one).
pub(crate) fn detach(tid: i32, signal: i32) -> Result<(), Errno> {
    let signal = ptr::without_provenance_mut::<libc::c_void>(usize::try_from(signal).unwrap_or(0));
    // SAFETY: PTRACE_DETACH takes a number of a thread and, in place of a pointer, a number of a signal; it reads and
    // writes no memory of ours. For a thread that we do not trace it fails with ESRCH.
    let result = unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, ptr::null_mut::<libc::c_void>(), signal) };
    Errno::result(result).map(drop)
}

/// Returns freed memory to the system: reading debug information takes tens of megabytes, which glibc would keep.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, may be called by any thread at any time (it takes the allocator's own locks), and only
    // gives back pages that hold nothing.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The sampling signal: a real-time signal that no known library uses.
pub(crate) fn signal() -> i32 {
    libc::SIGRTMIN() + 9
}

/// Installs the handler, once per process.
pub(crate) fn install() -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sigaction` (integers, a set of bits, and an optional function).
    let mut before: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: a null new action only asks for the present one, which is written to a live local of the right type.
    Errno::result(unsafe { libc::sigaction(signal(), ptr::null(), &raw mut before) })?;
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
    let handler = handler as libc::sighandler_t;
    if before.sa_sigaction == handler {
        return Ok(());
    }
    if before.sa_sigaction != libc::SIG_DFL {
        return Err(io::Error::other(format!("signal {} has a handler already", signal())));
    }
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: writes the set of a live local. All signals wait while the handler runs, so that it is never nested.
    Errno::result(unsafe { libc::sigfillset(&raw mut action.sa_mask) })?;
    // SAFETY: `action` is a live local; its handler has the signature that SA_SIGINFO asks for, lives as long as the
    // program, and does only what a handler may (see there).
    Errno::result(unsafe { libc::sigaction(signal(), &raw const action, ptr::null_mut()) })?;
    Ok(())
}

/// The memory that a sample is written to.
struct Slot {
    word: AtomicU64,
    sample: UnsafeCell<Sample>,
}

struct Sample {
    registers: Option<Registers>,
    stack: Box<[u8]>,
    read: usize,
    paused: Duration,
}

// SAFETY: `sample` has one owner at a time, told by `word`: between REQUESTED and DONE the one handler whose exchange to
// WRITING succeeded, else the holder of the only `&mut SignalSampler` that the slot belongs to. The exchanges and the store of
// DONE are release operations that the other side acquires, so that what was written is seen.
unsafe impl Sync for Slot {}

/// The slot of the open request. Slots are leaked, so that it never dangles.
static CURRENT: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

const FREE: u64 = 0;
const REQUESTED: u64 = 1;
const WRITING: u64 = 2;
const DONE: u64 = 3;

fn word(generation: u32, tid: i32, phase: u64) -> u64 {
    u64::from(generation) << 32 | u64::from(tid.cast_unsigned() & 0x3fff_ffff) << 2 | phase
}

fn phase(word: u64) -> u64 {
    word & 3
}

fn with_phase(word: u64, phase: u64) -> u64 {
    word & !3 | phase
}

fn is_for(word: u64, tid: i32) -> bool {
    word >> 2 & 0x3fff_ffff == u64::from(tid.cast_unsigned())
}

/// Runs on the sampled thread, between any two of its instructions: no allocation, no lock, no panic, only atomics and
/// async-signal-safe calls; restores `errno`.
extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: null or a slot that was leaked, hence valid for ever; a slot is only shared, never borrowed mutably.
    if let Some(slot) = unsafe { CURRENT.load(Ordering::Acquire).as_ref() } {
        // SAFETY: with SA_SIGINFO the third argument is the interrupted thread's `ucontext_t`, valid until we return.
        if let Some(context) = unsafe { context.cast::<libc::ucontext_t>().as_ref() } {
            write_sample(slot, &context.uc_mcontext);
        }
    }
    Errno::set_raw(errno);
}

fn write_sample(slot: &Slot, context: &libc::mcontext_t) {
    let request = slot.word.load(Ordering::Acquire);
    if phase(request) != REQUESTED || !is_for(request, rustix::thread::gettid().as_raw_nonzero().get()) {
        return;
    }
    let began = monotonic();
    let mine = with_phase(request, WRITING);
    if slot.word.compare_exchange(request, mine, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: the exchange from REQUESTED to WRITING succeeded, and only for us: no other handler can pass it for this
    // generation, and the sampler leaves a slot alone that is WRITING.
    let sample = unsafe { &mut *slot.sample.get() };
    let registers = Registers::from(context);
    let base = usize::try_from(registers.sp).unwrap_or(0);
    // The kernel copies: for unmapped memory it returns an error instead of a fault.
    sample.read = read_memory(std::process::id().cast_signed(), base, &mut sample.stack).unwrap_or(0);
    sample.registers = Some(registers);
    sample.paused = monotonic().saturating_sub(began);
    slot.word.store(with_phase(request, DONE), Ordering::Release);
}

fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes a live local of the right type; allowed in a handler.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The result of a request.
pub(crate) enum SampleResult {
    /// The copy of the thread, and how long the handler took.
    Sampled(Box<ThreadCopy>, Duration),
    /// The thread did not handle the signal in time.
    TimedOut,
    /// The thread has ended.
    Ended,
    /// All slots are in use by handlers that have not finished.
    NoSlot,
    /// The system did not deliver the signal.
    SignalFailed(Errno),
}

/// Samples threads, one at a time. There is one per process.
pub(crate) struct SignalSampler {
    slots: Vec<&'static Slot>,
    generation: u32,
}

impl SignalSampler {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), generation: 0 }
    }

    /// Samples one thread of this process; `wait` is called between polls and returns whether to continue.
    pub(crate) fn sample(&mut self, tid: i32, mut wait: impl FnMut() -> bool) -> SampleResult {
        let Some(slot) = self.slot() else { return SampleResult::NoSlot };
        self.generation = self.generation.wrapping_add(1);
        let request = word(self.generation, tid, REQUESTED);
        CURRENT.store(ptr::from_ref(slot).cast_mut(), Ordering::Release);
        slot.word.store(request, Ordering::Release);
        let pid = libc::pid_t::from(std::process::id().cast_signed());
        // SAFETY: takes three numbers, touches no memory of ours, and our own process has a handler for the signal.
        let sent = Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal()) });
        if let Err(error) = sent {
            self.cancel(slot, request);
            return if error == Errno::ESRCH {
                SampleResult::Ended
            } else {
                SampleResult::SignalFailed(error)
            };
        }
        loop {
            if phase(slot.word.load(Ordering::Acquire)) == DONE {
                return Self::take(slot);
            }
            if !wait() {
                break;
            }
        }
        if self.cancel(slot, request) || phase(slot.word.load(Ordering::Acquire)) != DONE {
            return SampleResult::TimedOut;
        }
        Self::take(slot)
    }

    /// Cancels a request; returns whether no handler has begun, and none will.
    fn cancel(&mut self, slot: &Slot, request: u64) -> bool {
        let free = with_phase(request, FREE);
        slot.word.compare_exchange(request, free, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn slot(&mut self) -> Option<&'static Slot> {
        let unused = |slot: &&&Slot| phase(slot.word.load(Ordering::Acquire)) != WRITING;
        if let Some(slot) = self.slots.iter().find(unused) {
            return Some(slot);
        }
        if self.slots.len() == SLOTS_MAX {
            return None;
        }
        let stack = vec![0; STACK_MAX].into_boxed_slice();
        let sample = Sample { registers: None, stack, read: 0, paused: Duration::ZERO };
        let slot = Slot { word: AtomicU64::new(FREE), sample: UnsafeCell::new(sample) };
        let slot: &'static Slot = Box::leak(Box::new(slot));
        self.slots.push(slot);
        Some(slot)
    }

    fn take(slot: &'static Slot) -> SampleResult {
        // SAFETY: the phase is DONE, which was read with Acquire: the handler has written its last and will not write
        // again, since it needs REQUESTED for that; and REQUESTED is set by `sample` alone, which has `&mut self`.
        let sample = unsafe { &*slot.sample.get() };
        match sample.registers {
            Some(registers) => {
                let stack = sample.stack.get(..sample.read).unwrap_or_default().to_vec();
                SampleResult::Sampled(Box::new(ThreadCopy { registers, stack }), sample.paused)
            }
            None => SampleResult::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        let stack = vec![0; 64].into_boxed_slice();
        let sample = Sample { registers: None, stack, read: 0, paused: Duration::ZERO };
        Slot { word: AtomicU64::new(FREE), sample: UnsafeCell::new(sample) }
    }

    fn me() -> i32 {
        rustix::thread::gettid().as_raw_nonzero().get()
    }

    fn context() -> libc::mcontext_t {
        // SAFETY: numbers, and a pointer that is never dereferenced.
        unsafe { mem::zeroed() }
    }

    #[test]
    fn a_request_to_this_thread_is_answered_once() {
        let slot = slot();
        slot.word.store(word(1, me(), REQUESTED), Ordering::Release);
        write_sample(&slot, &context());
        assert_eq!(slot.word.load(Ordering::Acquire), word(1, me(), DONE));
    }

    #[test]
    fn a_late_handler_touches_nothing() {
        let slot = slot();
        for left in [
            word(1, me(), FREE),          // cancelled
            word(2, me() + 1, REQUESTED), // the slot is now used for another thread
            word(3, me(), WRITING),
            word(4, me(), DONE),
        ] {
            slot.word.store(left, Ordering::Release);
            write_sample(&slot, &context());
            assert_eq!(slot.word.load(Ordering::Acquire), left);
        }
        assert!(slot.sample.into_inner().registers.is_none());
    }

    #[test]
    fn a_cancelled_request_is_not_answered() {
        let slot = slot();
        let request = word(7, me(), REQUESTED);
        slot.word.store(request, Ordering::Release);
        assert!(SignalSampler::new().cancel(&slot, request));
        assert_eq!(phase(slot.word.load(Ordering::Acquire)), FREE);
        slot.word.store(with_phase(request, WRITING), Ordering::Release);
        assert!(!SignalSampler::new().cancel(&slot, request));
    }
}
