//! What each thread is working for: a source, a request, a commit. Written by the thread itself, read by the watchdog
//! while the thread is stuck.
//!
//! A slot a thread, made at its first work and gone with the thread. Its lock is held for assignments only, so that no
//! reader ever waits for the work itself.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Every thread that has worked and lives.
static SLOTS: Mutex<Vec<Arc<Slot>>> = Mutex::new(Vec::new());

thread_local! {
    static MINE: RefCell<Option<Mine>> = const { RefCell::new(None) };
}

/// What a thread does at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CurrentTask {
    /// A word or two: `parsing`, `GET /news`.
    pub what: &'static str,
    /// For whom: a source, an address.
    pub of: Arc<str>,
    /// For how long.
    pub since_ms_ago: u64,
}

/// A thread that is at work.
#[derive(Clone, Debug, Serialize)]
pub struct BusyWorker {
    /// Its number.
    pub tid: i32,
    /// Its name.
    pub name: Arc<str>,
    /// What it does.
    pub work: CurrentTask,
}

#[derive(Clone, Debug)]
struct Doing {
    what: &'static str,
    of: Arc<str>,
    since_ms: u64,
}

#[derive(Debug)]
struct Slot {
    tid: i32,
    name: Arc<str>,
    doing: Mutex<Option<Doing>>,
}

/// Takes the slot off the list when the thread ends.
struct Mine(Arc<Slot>);

/// As long as it lives the thread counts as at work; dropped, what it did before counts again.
#[derive(Debug)]
#[must_use = "the work ends when this is dropped"]
pub struct TaskGuard {
    slot: Option<Arc<Slot>>,
    before: Option<Doing>,
    /// It belongs to its thread.
    _here: PhantomData<*const ()>,
}

/// Says that this thread works on something from now on. Nests.
pub fn on(what: &'static str, of: impl Into<Arc<str>>) -> TaskGuard {
    enter(what, of.into())
}

/// Says so whenever the future is polled: what a thread is stuck in is the poll that does not end. Nothing is allocated
/// a poll.
pub async fn during<F: Future>(what: &'static str, of: impl Into<Arc<str>>, future: F) -> F::Output {
    let of = of.into();
    let mut future = pin!(future);
    poll_fn(|cx| {
        let _at_work = enter(what, Arc::clone(&of));
        future.as_mut().poll(cx)
    })
    .await
}

/// All threads that are at work now, the longest at it first.
#[must_use]
pub fn everywhere() -> Vec<BusyWorker> {
    let slots = slots().clone();
    let now = coarse_ms();
    let mut workers: Vec<_> = slots.iter().filter_map(|slot| slot.worker(now)).collect();
    workers.sort_by_key(|worker| std::cmp::Reverse(worker.work.since_ms_ago));
    workers
}

fn enter(what: &'static str, of: Arc<str>) -> TaskGuard {
    let slot = MINE.try_with(|mine| Arc::clone(&mine.borrow_mut().get_or_insert_with(Mine::register).0));
    // A thread that is just ending has no slot any more.
    let slot = slot.ok();
    let doing = Doing { what, of, since_ms: coarse_ms() };
    let before = slot.as_ref().and_then(|slot| slot.doing().replace(doing));
    TaskGuard { slot, before, _here: PhantomData }
}

fn slots() -> MutexGuard<'static, Vec<Arc<Slot>>> {
    // Only pushed to, removed from and cloned.
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// To a few milliseconds, for a fifth of the price of the exact clock; comparable with it.
fn coarse_ms() -> u64 {
    crate::watch::millis(clock_gettime(ClockId::MonotonicCoarse))
}

impl Slot {
    fn doing(&self) -> MutexGuard<'_, Option<Doing>> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self, now_ms: u64) -> Option<BusyWorker> {
        let Doing { what, of, since_ms } = self.doing().clone()?;
        let work = CurrentTask { what, of, since_ms_ago: now_ms.saturating_sub(since_ms) };
        Some(BusyWorker { tid: self.tid, name: Arc::clone(&self.name), work })
    }
}

impl Mine {
    fn register() -> Self {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let name = rustix::thread::name().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let slot = Arc::new(Slot { tid, name: name.into(), doing: Mutex::default() });
        slots().push(Arc::clone(&slot));
        Self(slot)
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        slots().retain(|slot| !Arc::ptr_eq(slot, &self.0));
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let Some(slot) = &self.slot else { return };
        let ended = std::mem::replace(&mut *slot.doing(), self.before.take());
        // Freed here and not under the lock.
        drop(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Option<(&'static str, String)> {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let work = everywhere().into_iter().find(|worker| worker.tid == tid)?.work;
        Some((work.what, work.of.to_string()))
    }

    #[test]
    fn the_inner_work_is_shown_and_the_outer_one_comes_back() {
        let _outer = on("visiting", "bbc");
        {
            let _inner = on("parsing", "bbc");
            assert_eq!(here(), Some(("parsing", "bbc".to_owned())));
        }
        assert_eq!(here(), Some(("visiting", "bbc".to_owned())));
    }

    #[test]
    fn a_panic_ends_the_work_too() {
        let work = || {
            let _work = on("parsing", "bbc");
            panic!("as ordered");
        };
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(here(), None);
    }

    #[tokio::test]
    async fn a_future_is_at_work_only_while_it_is_polled() {
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let seen = async {
            let before = here();
            told.await.unwrap();
            (before, here())
        };
        let ask = async {
            assert_eq!(here(), None, "it waits, so the thread is free");
            tell.send(()).unwrap();
        };
        let (seen, ()) = tokio::join!(during("fetching", "bbc", seen), ask);
        let fetching = Some(("fetching", "bbc".to_owned()));
        assert_eq!(seen, (fetching.clone(), fetching));
        assert_eq!(here(), None);
    }

    #[test]
    fn a_thread_that_ended_is_forgotten_and_a_stuck_one_can_be_read() {
        let (free, stuck) = std::sync::mpsc::sync_channel::<()>(0);
        let (tell, told) = std::sync::mpsc::sync_channel(0);
        let thread = std::thread::spawn(move || {
            let _work = on("parsing", "the stuck one");
            tell.send(()).unwrap();
            assert!(stuck.recv().is_err());
        });
        told.recv().unwrap();
        let is_there = || everywhere().iter().any(|worker| &*worker.work.of == "the stuck one");
        assert!(is_there());
        drop(free);
        thread.join().unwrap();
        assert!(!is_there());
    }
}
