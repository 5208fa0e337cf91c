//! The stacks of the process itself, thread after thread by a signal: no privilege, no tracer.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    StackDump, ThreadStack,
    copy::{Copied, extent},
    outside::{ALL_WITHIN, now, pause},
    proc::{self, Mapping},
    symbols::Symbols,
    sys::{self, Asked, Asker},
};

/// How long a thread may take to answer. One that waits for a disk does not.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);

static ASKER: Mutex<Asker> = Mutex::new(Asker::new());

/// The process looks at its own threads, without any privilege. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SelfSampler(());

impl SelfSampler {
    /// Sets up the signal by which threads are asked; call once a process, before other threads start.
    ///
    /// # Errors
    /// When the system refuses the handler, or something else handles that signal.
    pub fn install() -> io::Result<Self> {
        sys::install().map(|()| Self(()))
    }

    /// Every thread but the calling one.
    #[must_use]
    pub fn all(&self) -> StackDump {
        let me = rustix::thread::gettid().as_raw_nonzero().get();
        let tids = proc::tids(pid()).unwrap_or_default();
        capture(tids.into_iter().filter(|tid| *tid != me))
    }

    /// One thread; nothing when it is gone.
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
    let mut looked: Vec<(ThreadStack, Option<Copied>)> = Vec::new();
    {
        let mut asker = ASKER.lock().unwrap_or_else(PoisonError::into_inner);
        for mut thread in tids.filter_map(|tid| proc::thread(pid(), tid)) {
            let copied = match ask(&mut asker, &thread, &maps, began) {
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
            looked.push((thread, copied));
        }
    }
    // The threads go on by now; nobody waits for the names.
    let mut symbols = Symbols::of(pid(), &maps);
    let name = |(mut thread, copied): (ThreadStack, Option<Copied>)| {
        if let Some(copied) = copied {
            symbols.name(&mut thread, &copied);
        }
        thread
    };
    let threads = looked.into_iter().map(name).collect();
    drop(symbols);
    sys::give_back();
    StackDump { pid: pid(), threads, took: began.elapsed(), longest_pause }
}

/// What a thread answers, nothing when it is gone, or why there is no answer.
fn ask(
    asker: &mut Asker,
    thread: &ThreadStack,
    maps: &[Mapping],
    began: Instant,
) -> Result<Option<(Copied, Duration)>, String> {
    let tid = thread.tid;
    if matches!(thread.state, 'Z' | 'X') {
        return Err("it has ended, and others of its process have not".to_owned());
    }
    if began.elapsed() > ALL_WITHIN {
        return Err("no time left: others took too long to answer".to_owned());
    }
    let blocked = proc::status(pid(), tid, "SigBlk").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    if blocked.is_some_and(|mask| mask >> (sys::signal() - 1) & 1 == 1) {
        return Err("it blocks the signal by which threads are asked".to_owned());
    }
    let until = now() + ANSWER_WITHIN;
    let mut round = 0;
    let wait = || {
        pause(round);
        round += 1;
        now() < until
    };
    match asker.ask(tid, wait) {
        Asked::Answered(mut copied, paused) => {
            copied.stack.truncate(extent(maps, copied.registers.sp));
            Ok(Some((copied, paused)))
        }
        Asked::Gone => Ok(None),
        Asked::Late => match proc::state(pid(), tid) {
            None => Ok(None),
            Some('D') => {
                Err("it waits in the kernel, for a disk most likely, and does not answer".to_owned())
            }
            Some(_) => Err(format!("it did not answer within {} ms", ANSWER_WITHIN.as_millis())),
        },
        Asked::Stuck => Err("earlier questions are stuck in the middle of their answers".to_owned()),
        Asked::Refused(error) => Err(format!("it could not be asked: {}", error.desc())),
    }
}
