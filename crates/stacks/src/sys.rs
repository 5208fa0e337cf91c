//! The only module with `unsafe`: a signal handler that copies the thread it runs on, and a call whose safe wrapper is
//! too narrow.
//!
//! One question is open at a time. Its whole state is one word: a generation, the thread asked and a phase. A handler
//! that comes late, after its question was withdrawn, finds another word and touches nothing; one that has begun to
//! write owns the slot until it says that it is done, and a slot it never gives back is never used again.
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
    copy::{Copied, Registers, STACK_MAX},
    modules::read_memory,
};

/// Slots are 512 KiB, and a second one is only had when a thread is stuck in the handler itself (its stack is on a
/// swap disk that does not answer, say).
const SLOTS_MAX: usize = 2;

/// Lets a traced thread go on and delivers `signal` to it, 0 for none. The safe wrapper takes no real-time signals,
/// and to swallow one that was on its way could hang a process (glibc's `setuid` goes by one).
pub(crate) fn detach(tid: i32, signal: i32) -> Result<(), Errno> {
    let signal = ptr::without_provenance_mut::<libc::c_void>(usize::try_from(signal).unwrap_or(0));
    // SAFETY: PTRACE_DETACH takes a number of a thread and, in place of a pointer, a number of a signal; it reads and
    // writes no memory of ours. For a thread that we do not trace it fails with ESRCH.
    let result = unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, ptr::null_mut::<libc::c_void>(), signal) };
    Errno::result(result).map(drop)
}

/// Gives freed memory back to the system: debug information takes tens of megabytes while it is read, and glibc would
/// keep them.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, may be called by any thread at any time (it takes the allocator's own locks), and only
    // gives back pages that hold nothing.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The signal by which threads are asked: of the real-time ones, away from those that others are known to use.
pub(crate) fn signal() -> i32 {
    libc::SIGRTMIN() + 9
}

/// Sets up the handler, once a process.
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

/// Where an answer is written.
struct Slot {
    word: AtomicU64,
    answer: UnsafeCell<Answer>,
}

struct Answer {
    registers: Option<Registers>,
    stack: Box<[u8]>,
    read: usize,
    paused: Duration,
}

// SAFETY: `answer` has one owner at a time, told by `word`: between ASKED and DONE the one handler whose exchange to
// WRITING succeeded, else the holder of the only `&mut Asker` that the slot belongs to. The exchanges and the store of
// DONE are release operations that the other side acquires, so that what was written is seen.
unsafe impl Sync for Slot {}

/// The slot of the open question. Slots are leaked, so that it never dangles.
static OPEN: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

const FREE: u64 = 0;
const ASKED: u64 = 1;
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

/// Runs on the thread that was asked, between any two of its instructions: no allocation, no lock, no panic, only
/// atomics and calls that are allowed in a handler; `errno` is as before afterwards.
extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: null or a slot that was leaked, hence valid for ever; a slot is only shared, never borrowed mutably.
    if let Some(slot) = unsafe { OPEN.load(Ordering::Acquire).as_ref() } {
        // SAFETY: with SA_SIGINFO the third argument is the interrupted thread's `ucontext_t`, valid until we return.
        if let Some(context) = unsafe { context.cast::<libc::ucontext_t>().as_ref() } {
            answer(slot, &context.uc_mcontext);
        }
    }
    Errno::set_raw(errno);
}

fn answer(slot: &Slot, context: &libc::mcontext_t) {
    let asked = slot.word.load(Ordering::Acquire);
    if phase(asked) != ASKED || !is_for(asked, rustix::thread::gettid().as_raw_nonzero().get()) {
        return;
    }
    let began = monotonic();
    let mine = with_phase(asked, WRITING);
    if slot.word.compare_exchange(asked, mine, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: the exchange from ASKED to WRITING succeeded, and only for us: no other handler can pass it for this
    // generation, and the asker leaves a slot alone that is WRITING.
    let answer = unsafe { &mut *slot.answer.get() };
    let registers = Registers::from(context);
    let base = usize::try_from(registers.sp).unwrap_or(0);
    // The kernel copies: where there is no memory it says so instead of killing us.
    answer.read = read_memory(std::process::id().cast_signed(), base, &mut answer.stack).unwrap_or(0);
    answer.registers = Some(registers);
    answer.paused = monotonic().saturating_sub(began);
    slot.word.store(with_phase(asked, DONE), Ordering::Release);
}

fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes a live local of the right type; allowed in a handler.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What came of a question.
pub(crate) enum Asked {
    /// The thread, and how long the handler took.
    Answered(Copied, Duration),
    /// Not in time.
    Late,
    /// There is no such thread any more.
    Gone,
    /// An earlier question is stuck in the middle of its answer.
    Stuck,
    /// The system did not deliver the signal.
    Refused(Errno),
}

/// Asks threads, one at a time. There is one in the process.
pub(crate) struct Asker {
    slots: Vec<&'static Slot>,
    generation: u32,
}

impl Asker {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), generation: 0 }
    }

    /// Asks one thread of this process; `wait` is called between looks and says whether to go on waiting.
    pub(crate) fn ask(&mut self, tid: i32, mut wait: impl FnMut() -> bool) -> Asked {
        let Some(slot) = self.slot() else { return Asked::Stuck };
        self.generation = self.generation.wrapping_add(1);
        let asked = word(self.generation, tid, ASKED);
        OPEN.store(ptr::from_ref(slot).cast_mut(), Ordering::Release);
        slot.word.store(asked, Ordering::Release);
        let pid = libc::pid_t::from(std::process::id().cast_signed());
        // SAFETY: takes three numbers, touches no memory of ours, and our own process has a handler for the signal.
        let sent = Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal()) });
        if let Err(error) = sent {
            self.withdraw(slot, asked);
            return if error == Errno::ESRCH { Asked::Gone } else { Asked::Refused(error) };
        }
        loop {
            if phase(slot.word.load(Ordering::Acquire)) == DONE {
                return Self::take(slot);
            }
            if !wait() {
                break;
            }
        }
        if self.withdraw(slot, asked) || phase(slot.word.load(Ordering::Acquire)) != DONE {
            return Asked::Late;
        }
        Self::take(slot)
    }

    /// Whether no handler has begun to answer, and none will.
    fn withdraw(&mut self, slot: &Slot, asked: u64) -> bool {
        let free = with_phase(asked, FREE);
        slot.word.compare_exchange(asked, free, Ordering::AcqRel, Ordering::Acquire).is_ok()
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
        let answer = Answer { registers: None, stack, read: 0, paused: Duration::ZERO };
        let slot = Slot { word: AtomicU64::new(FREE), answer: UnsafeCell::new(answer) };
        let slot: &'static Slot = Box::leak(Box::new(slot));
        self.slots.push(slot);
        Some(slot)
    }

    fn take(slot: &'static Slot) -> Asked {
        // SAFETY: the phase is DONE, which was read with Acquire: the handler has written its last and will not write
        // again, since it needs ASKED for that; and ASKED is set by `ask` alone, which holds `&mut self` all the while.
        let answer = unsafe { &*slot.answer.get() };
        match answer.registers {
            Some(registers) => {
                let stack = answer.stack.get(..answer.read).unwrap_or_default().to_vec();
                Asked::Answered(Copied { registers, stack }, answer.paused)
            }
            None => Asked::Late,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        let stack = vec![0; 64].into_boxed_slice();
        let answer = Answer { registers: None, stack, read: 0, paused: Duration::ZERO };
        Slot { word: AtomicU64::new(FREE), answer: UnsafeCell::new(answer) }
    }

    fn me() -> i32 {
        rustix::thread::gettid().as_raw_nonzero().get()
    }

    fn context() -> libc::mcontext_t {
        // SAFETY: numbers, and a pointer that nobody follows.
        unsafe { mem::zeroed() }
    }

    #[test]
    fn a_request_to_this_thread_is_answered_once() {
        let slot = slot();
        slot.word.store(word(1, me(), ASKED), Ordering::Release);
        answer(&slot, &context());
        assert_eq!(slot.word.load(Ordering::Acquire), word(1, me(), DONE));
    }

    #[test]
    fn a_late_handler_touches_nothing() {
        let slot = slot();
        for left in [
            word(1, me(), FREE),      // withdrawn
            word(2, me() + 1, ASKED), // the slot is asked of another thread by now
            word(3, me(), WRITING),
            word(4, me(), DONE),
        ] {
            slot.word.store(left, Ordering::Release);
            answer(&slot, &context());
            assert_eq!(slot.word.load(Ordering::Acquire), left);
        }
        assert!(slot.answer.into_inner().registers.is_none());
    }

    #[test]
    fn a_cancelled_request_is_not_answered() {
        let slot = slot();
        let asked = word(7, me(), ASKED);
        slot.word.store(asked, Ordering::Release);
        assert!(Asker::new().withdraw(&slot, asked));
        assert_eq!(phase(slot.word.load(Ordering::Acquire)), FREE);
        slot.word.store(with_phase(asked, WRITING), Ordering::Release);
        assert!(!Asker::new().withdraw(&slot, asked));
    }
}
