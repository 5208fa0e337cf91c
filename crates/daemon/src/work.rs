//! The current task of each thread: a source, a request, a commit. Set by the thread itself, read by the watchdog while
//! the thread is stuck.
//!
//! There is one slot per thread, created with its first task and removed when the thread ends. Its lock is held for
//! assignments only, so that a reader never waits for the task itself.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::black_box;

/// The slots of all live threads that had a task.
static SLOTS: Mutex<Vec<Arc<ThreadSlot>>> = Mutex::new(Vec::new());

thread_local! {
    static OWN_SLOT: RefCell<Option<SlotOwner>> = const { RefCell::new(None) };
}

/// What a thread is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CurrentTask {
    /// A word or two: `parsing`, `GET /news`.
    pub what: &'static str,
    /// For which source, client or address.
    pub of: Arc<str>,
    /// For how long.
    pub since_ms_ago: u64,
}

/// A thread with a task.
#[derive(Clone, Debug, Serialize)]
pub struct BusyWorker {
    /// The thread id.
    pub tid: i32,
    /// The name of the thread.
    pub name: Arc<str>,
    /// Its task.
    pub work: CurrentTask,
}

#[derive(Clone, Debug)]
struct StartedTask {
    what: &'static str,
    of: Arc<str>,
    since_ms: u64,
}

#[derive(Debug)]
struct ThreadSlot {
    tid: i32,
    name: Arc<str>,
    task: Mutex<Option<StartedTask>>,
}

/// Removes the slot from the list when the thread ends.
struct SlotOwner(Arc<ThreadSlot>);

/// The task of a thread lasts until this is dropped; then the previous task is current again.
#[derive(Debug)]
#[must_use = "the task ends when this is dropped"]
pub struct TaskGuard {
    slot: Option<Arc<ThreadSlot>>,
    previous: Option<StartedTask>,
    /// Not `Send`: it belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

/// Sets the task of this thread until the guard is dropped. Nests.
pub fn on(what: &'static str, of: impl Into<Arc<str>>) -> TaskGuard {
    start(what, of.into())
}

/// Sets the task of the thread during each poll of a future, since a thread is stuck in a poll that does not end. A poll
/// allocates nothing.
pub async fn during<F: Future>(what: &'static str, of: impl Into<Arc<str>>, future: F) -> F::Output {
    let of = of.into();
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _task = start(what, Arc::clone(&of));
        future.as_mut().poll(cx)
    })
    .await
}

/// All threads that have a task now, the one that began first at the front.
#[must_use]
pub fn busy_workers() -> Vec<BusyWorker> {
    let slots = slots().clone();
    let now = coarse_ms();
    let mut workers: Vec<_> = slots.iter().filter_map(|slot| slot.worker(now)).collect();
    workers.sort_by_key(|worker| std::cmp::Reverse(worker.work.since_ms_ago));
    workers
}

fn start(what: &'static str, of: Arc<str>) -> TaskGuard {
    let slot =
        OWN_SLOT.try_with(|own| Arc::clone(&own.borrow_mut().get_or_insert_with(SlotOwner::register).0));
    // A thread that is ending has lost its slot.
    let slot = slot.ok();
    let task = StartedTask { what, of, since_ms: coarse_ms() };
    let previous = slot.as_ref().and_then(|slot| slot.task().replace(task));
    TaskGuard { slot, previous, _not_send: PhantomData }
}

fn slots() -> MutexGuard<'static, Vec<Arc<ThreadSlot>>> {
    // The list is valid after a panic: it is only pushed to, removed from and cloned.
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The monotonic clock in milliseconds, to a few of them, at a fifth of the cost of the exact one and comparable with it.
#[must_use]
pub fn coarse_ms() -> u64 {
    crate::clock::millis(clock_gettime(ClockId::MonotonicCoarse))
}

impl ThreadSlot {
    fn task(&self) -> MutexGuard<'_, Option<StartedTask>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self, now_ms: u64) -> Option<BusyWorker> {
        let StartedTask { what, of, since_ms } = self.task().clone()?;
        let work = CurrentTask { what, of, since_ms_ago: now_ms.saturating_sub(since_ms) };
        Some(BusyWorker { tid: self.tid, name: Arc::clone(&self.name), work })
    }
}

impl SlotOwner {
    fn register() -> Self {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let name = rustix::thread::name().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let slot = Arc::new(ThreadSlot { tid, name: name.into(), task: Mutex::default() });
        slots().push(Arc::clone(&slot));
        Self(slot)
    }
}

impl Drop for SlotOwner {
    fn drop(&mut self) {
        slots().retain(|slot| !Arc::ptr_eq(slot, &self.0));
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let Some(slot) = &self.slot else { return };
        let ended = std::mem::replace(&mut *slot.task(), self.previous.take());
        // Told and freed outside the lock.
        if let Some(StartedTask { what, of, since_ms }) = &ended {
            let ms = coarse_ms().saturating_sub(*since_ms);
            if ms > black_box::LONG_MS {
                black_box::long_task(&slot.name, what, of, ms);
            }
        }
        drop(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current_task() -> Option<(&'static str, String)> {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let work = busy_workers().into_iter().find(|worker| worker.tid == tid)?.work;
        Some((work.what, work.of.to_string()))
    }

    #[test]
    fn the_inner_task_is_shown_and_then_the_outer_one_again() {
        let _outer = on("visiting", "bbc");
        {
            let _inner = on("parsing", "bbc");
            assert_eq!(current_task(), Some(("parsing", "bbc".to_owned())));
        }
        assert_eq!(current_task(), Some(("visiting", "bbc".to_owned())));
    }

    #[test]
    fn a_panic_ends_the_task_too() {
        let work = || {
            let _work = on("parsing", "bbc");
            panic!("as ordered");
        };
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(current_task(), None);
    }

    #[tokio::test]
    async fn a_future_sets_the_task_only_while_it_is_polled() {
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let seen = async {
            let before = current_task();
            released.await.unwrap();
            (before, current_task())
        };
        let ask = async {
            assert_eq!(current_task(), None, "it waits, so the thread is free");
            release.send(()).unwrap();
        };
        let (seen, ()) = tokio::join!(during("fetching", "bbc", seen), ask);
        let fetching = Some(("fetching", "bbc".to_owned()));
        assert_eq!(seen, (fetching.clone(), fetching));
        assert_eq!(current_task(), None);
    }

    #[test]
    fn the_task_of_a_stuck_thread_can_be_read_and_an_ended_thread_is_removed() {
        let (free, stuck) = std::sync::mpsc::sync_channel::<()>(0);
        let (release, released) = std::sync::mpsc::sync_channel(0);
        let thread = std::thread::spawn(move || {
            let _work = on("parsing", "the stuck one");
            release.send(()).unwrap();
            assert!(stuck.recv().is_err());
        });
        released.recv().unwrap();
        let is_there = || busy_workers().iter().any(|worker| &*worker.work.of == "the stuck one");
        assert!(is_there());
        drop(free);
        thread.join().unwrap();
        assert!(!is_there());
    }
}
