//! Stacks of the process itself: each thread is sampled by a signal. Needs no privilege and no tracer.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    StackDump, ThreadStack,
    copy::{ThreadCopy, copy_len},
    outside::{SCHEDULED_TIMEOUT, TOTAL_TIMEOUT, is_too_late, now, pause},
    proc::{self, Mapping},
    symbols::Symbols,
    sys::{self, SampleResult, SignalSampler},
};

/// Deadline for a thread to handle the signal. A thread that waits for a disk does not; one that waits for a processor does a
/// little later.
const SAMPLE_TIMEOUT: Duration = Duration::from_millis(100);

static SAMPLER: Mutex<SignalSampler> = Mutex::new(SignalSampler::new());

/// Dumps the stacks of the process's own threads, without privileges. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SelfSampler(());

impl SelfSampler {
    /// Installs the signal handler; call once per process, before other threads start.
    ///
    /// # Errors
    /// If the handler cannot be installed, or the signal already has another handler.
    pub fn install() -> io::Result<Self> {
        sys::install().map(|()| Self(()))
    }

    /// Dumps all threads except the calling one.
    #[must_use]
    pub fn all(&self) -> StackDump {
        let me = rustix::thread::gettid().as_raw_nonzero().get();
        let tids = proc::tids(pid()).unwrap_or_default();
        capture(tids.into_iter().filter(|tid| *tid != me))
    }

    /// Dumps one thread; `None` if it has ended.
    #[must_use]
    pub fn one(&self, tid: i32) -> Option<ThreadStack> {
        capture([tid].into_iter()).threads.pop()
    }
}

fn pid() -> i32 {
    std::process::id().cast_signed()
}

fn capture(tids: impl Iterator<Item = i32>) -> StackDump {
    let began = now();
    let mut longest_pause = Duration::ZERO;
    let maps = proc::maps(pid());
    let mut copies: Vec<(ThreadStack, Option<ThreadCopy>)> = Vec::new();
    {
        let mut sampler = SAMPLER.lock().unwrap_or_else(PoisonError::into_inner);
        // Not from the beginning, which would count the samples of other threads.
        let sampling = now();
        for mut thread in tids.filter_map(|tid| proc::thread(pid(), tid)) {
            let copied = match sample(&mut sampler, &thread, &maps, sampling) {
                Ok(Some((copied, paused))) => {
                    longest_pause = longest_pause.max(paused);
                    Some(copied)
                }
                Ok(None) => continue,
                Err(why) => {
                    thread.missing = Some(why);
                    None
                }
            };
            copies.push((thread, copied));
        }
    }
    // The threads run again; resolving symbols delays none of them.
    let mut symbols = Symbols::of(pid(), &maps);
    let name = |(mut thread, copied): (ThreadStack, Option<ThreadCopy>)| {
        if let Some(copied) = copied {
            symbols.name(&mut thread, &copied);
        }
        thread
    };
    let threads = copies.into_iter().map(name).collect();
    drop(symbols);
    sys::trim_heap();
    StackDump { pid: pid(), threads, took: began.elapsed(), longest_pause }
}

/// Samples a thread. `None` if it has ended; an error says why there is no sample.
fn sample(
    sampler: &mut SignalSampler,
    thread: &ThreadStack,
    maps: &[Mapping],
    began: Instant,
) -> Result<Option<(ThreadCopy, Duration)>, String> {
    let tid = thread.tid;
    if matches!(thread.state, 'Z' | 'X') {
        return Err("the thread has ended, but its process has not".to_owned());
    }
    if began.elapsed() > TOTAL_TIMEOUT {
        return Err("no time left: other threads took too long".to_owned());
    }
    let blocked = proc::status(pid(), tid, "SigBlk").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    if blocked.is_some_and(|mask| mask >> (sys::signal() - 1) & 1 == 1) {
        return Err("the thread blocks the sampling signal".to_owned());
    }
    let signalled = now();
    let mut round = 0;
    let wait = || {
        pause(round);
        round += 1;
        !is_too_late(signalled.elapsed(), SAMPLE_TIMEOUT, pid(), tid)
    };
    match sampler.sample(tid, wait) {
        SampleResult::Sampled(mut copied, paused) => {
            copied.stack.truncate(copy_len(maps, copied.registers.sp));
            Ok(Some((*copied, paused)))
        }
        SampleResult::Ended => Ok(None),
        SampleResult::TimedOut => match proc::state(pid(), tid) {
            None => Ok(None),
            Some('D') => {
                Err("the thread is in uninterruptible sleep in the kernel, probably waiting for a disk"
                    .to_owned())
            }
            Some(_) => Err(format!(
                "the thread did not handle the signal within {} ms",
                SCHEDULED_TIMEOUT.as_millis()
            )),
        },
        SampleResult::NoSlot => Err("earlier samples have not finished".to_owned()),
        SampleResult::SignalFailed(error) => Err(format!("cannot signal the thread: {}", error.desc())),
    }
}
