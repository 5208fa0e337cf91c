//! The watchdog's thread: looks, says what it found, feeds systemd, writes dumps.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed},
};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::judge::{Finding, Judge, LOOK_EVERY_MS, Sight, Times};
use super::{Entry, Odd, STALLS_MAX, Stall, Watch, WatchKind, millis, now_ms, show};
use crate::clock::ahead_ms;
use crate::notify;
use crate::work::{self, BusyWorker};

/// How often a canary is sent into each pool.
const CANARY_EVERY_MS: u64 = 1_000;
/// Stacks taken in one look, however many loops stall together.
const STACKS_MAX: usize = 8;
/// What lies further apart was not read at one moment.
const APART_MS_MAX: u64 = 100;
/// How long [`WatchHandle`] waits for the thread to end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The running watchdog; dropping it ends its thread.
#[derive(Debug)]
pub struct WatchHandle {
    watch: Watch,
    stop: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.watch.wake();
        self.watch.set_vitals(None);
        if self.ended.recv_timeout(END_WITHIN) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the watchdog's thread did not end in time");
        }
    }
}

pub(super) fn start(watch: Watch) -> io::Result<WatchHandle> {
    let stop = Arc::new(AtomicBool::new(false));
    let (end, ended) = sync_channel::<()>(1);
    let (told, shared) = (Arc::clone(&stop), watch.clone());
    let work = move || {
        // Dropped with the thread, which the handle waits for.
        let _end = end;
        Watchdog::new(shared).run(&told);
    };
    let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(work)?;
    *watch.0.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread.thread().clone());
    Ok(WatchHandle { watch, stop, ended })
}

struct Watchdog {
    watch: Watch,
    judge: Judge,
    /// How often systemd is fed.
    feed_every_ms: Option<u64>,
    fed_ms: u64,
}

/// A job that does nothing but come back.
struct Canary {
    entry: Arc<Entry>,
    watch: Watch,
    sent_ms: u64,
    came_back: bool,
}

impl Canary {
    fn come_back(mut self) {
        self.came_back = true;
        self.entry.set_idle(now_ms().saturating_sub(self.sent_ms));
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        if !self.came_back {
            // The runtime has ended, and its pool with it.
            self.watch.pools().retain(|pool| !Arc::ptr_eq(&pool.entry, &self.entry));
            self.watch.forget(&self.entry);
        }
    }
}

impl Watchdog {
    fn new(watch: Watch) -> Self {
        let feed_every_ms =
            notify::watchdog_every().map(|every| u64::try_from(every.as_millis() / 3).unwrap_or(u64::MAX));
        Self { watch, judge: Judge::default(), feed_every_ms, fed_ms: 0 }
    }

    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            // Whatever is wrong with one look: the next one is needed all the more.
            let looked = catch_unwind(AssertUnwindSafe(|| self.look_round()));
            if looked.is_err() {
                self.judge = Judge::default();
            }
            rest();
        }
    }

    fn look_round(&mut self) {
        self.send_canaries();
        let entries = self.watch.entries().clone();
        let now = times();
        let sights: Vec<_> = entries.iter().map(|entry| entry.sight(now.monotonic)).collect();
        let findings = self.judge.look(now, &sights);
        for entry in &entries {
            entry.lag_ms_max.store(self.judge.worst_ms(entry.number), Relaxed);
            entry.stalled.store(self.judge.is_stalled(entry.number), Relaxed);
        }
        let mut stacks_left = STACKS_MAX;
        for finding in findings {
            self.tell(finding, &entries, &mut stacks_left);
        }
        self.feed(now.monotonic, &entries);
        if self.watch.0.dump.swap(false, Relaxed) {
            show::dump(&self.watch);
        }
        self.judge.worked(now_ms() - now.monotonic);
    }

    fn tell(&self, finding: Finding, entries: &[Arc<Entry>], stacks_left: &mut usize) {
        let entry = |number| entries.iter().find(|entry| entry.number == number);
        match finding {
            Finding::Began { number, began_ms, silent_ms } => {
                if let Some(entry) = entry(number) {
                    self.tell_of_stall(entry, began_ms, silent_ms, stacks_left);
                }
            }
            Finding::Lasts { number, silent_ms } => {
                let known = self.watch.found().stalls.iter().find(|stall| stall.number == number).cloned();
                if let Some(Stall { name, kind, tid, culprit, .. }) = known {
                    let (kind, culprit) = (kind.as_str(), culprit.as_deref());
                    tracing::warn!("loop" = %name, kind, tid, stalled_ms = silent_ms, blame = culprit, "an event loop is still stalled");
                }
            }
            Finding::Ended { number, lasted_ms } => {
                let mut found = self.watch.found();
                let stall =
                    found.stalls.iter_mut().find(|stall| stall.number == number && stall.lasted_ms.is_none());
                let Some(stall) = stall else { return };
                stall.lasted_ms = Some(lasted_ms);
                let (name, kind, tid) = (Arc::clone(&stall.name), stall.kind.as_str(), stall.tid);
                drop(found);
                tracing::info!("loop" = %name, kind, tid, lasted_ms, "an event loop goes on");
            }
            Finding::Paused { ms } => {
                self.watch.found().pauses.count(ms.cast_signed());
                tracing::info!(
                    paused_ms = ms,
                    "the process did not run: it was stopped, or the machine asleep or without a free processor"
                );
            }
            Finding::Jumped { ms } => {
                self.watch.found().clock.count(ms);
                tracing::warn!(jumped_ms = ms, "the wall clock jumped");
            }
        }
    }

    /// First for the answers of the admin socket, then for the log, which may be what is stuck.
    fn tell_of_stall(&self, entry: &Entry, began_ms: u64, silent_ms: u64, stacks_left: &mut usize) {
        entry.stalls.fetch_add(1, Relaxed);
        let (tid, work) = self.whom_to_blame(entry);
        let Entry { number, name, kind, .. } = entry;
        let stall = Stall {
            number: *number,
            name: Arc::clone(name),
            kind: *kind,
            tid: entry.tid,
            began_ms,
            lasted_ms: None,
            work: work.clone(),
            culprit: None,
        };
        {
            let mut found = self.watch.found();
            found.stalls_total += 1;
            found.stalls.push_front(stall);
            found.stalls.truncate(STALLS_MAX);
        }
        let may_ask = *stacks_left > 0 && tid != 0;
        let thread = self.watch.0.inside.get().filter(|_| may_ask).and_then(|inside| inside.one(tid));
        *stacks_left -= usize::from(may_ask);
        let culprit = thread.as_ref().and_then(stacks::ThreadStack::culprit).map(show::place);
        {
            let mut found = self.watch.found();
            let known =
                found.stalls.iter_mut().find(|stall| stall.number == *number && stall.lasted_ms.is_none());
            if let Some(stall) = known {
                stall.culprit.clone_from(&culprit);
            }
        }
        let (what, of) = (work.as_ref().map(|work| work.what), work.as_ref().map(|work| &*work.of));
        let (kind, culprit) = (kind.as_str(), culprit.as_deref());
        let stack = thread.as_ref().map(show::stack_in_a_line);
        tracing::warn!(
            "loop" = %name, kind, tid, stalled_ms = silent_ms, work = what, of, blame = culprit, stack,
            "an event loop stalled"
        );
    }

    /// The thread of the loop; for a pool the one that has been at its job for longest.
    fn whom_to_blame(&self, entry: &Entry) -> (i32, Option<work::CurrentTask>) {
        let workers = work::everywhere();
        let found = if entry.kind == WatchKind::Pool {
            let loops: Vec<i32> = self.watch.entries().iter().map(|entry| entry.tid).collect();
            workers.into_iter().find(|worker| !loops.contains(&worker.tid))
        } else {
            workers.into_iter().find(|worker| worker.tid == entry.tid)
        };
        match found {
            Some(BusyWorker { tid, work, .. }) => (tid, Some(work)),
            None => (entry.tid, None),
        }
    }

    fn send_canaries(&self) {
        let now = now_ms();
        let mut due = Vec::new();
        for pool in self.watch.pools().iter_mut() {
            if pool.entry.idle.load(Acquire) && pool.sent_ms + CANARY_EVERY_MS <= now {
                pool.sent_ms = now;
                due.push((Arc::clone(&pool.entry), pool.handle.clone()));
            }
        }
        for (entry, handle) in due {
            entry.set_out();
            let canary = Canary { entry, watch: self.watch.clone(), sent_ms: now, came_back: false };
            drop(handle.spawn_blocking(move || canary.come_back()));
        }
    }

    /// The admin socket may be slow with somebody's dump of stacks: no reason to kill the process.
    fn feed(&mut self, now_ms: u64, entries: &[Arc<Entry>]) {
        let Some(every) = self.feed_every_ms else { return };
        let is_admin =
            |number| entries.iter().any(|entry| entry.number == number && entry.kind == WatchKind::Admin);
        if now_ms - self.fed_ms >= every && !self.judge.any_stalled(is_admin) {
            self.fed_ms = now_ms;
            notify::watchdog();
        }
    }
}

impl Entry {
    fn sight(&self, now_ms: u64) -> Sight {
        let idle = self.idle.load(Acquire);
        let beat_ms = if idle { now_ms } else { self.beat_ms.load(Relaxed) };
        Sight { number: self.number, beat_ms, worst_ms: self.worst_ms.swap(0, Relaxed) }
    }
}

impl Odd {
    fn count(&mut self, ms: i64) {
        *self = Self { count: self.count + 1, last_ms: ms, at_ms: now_ms() };
    }
}

/// The clocks at one moment: read again when the process was stopped in between.
fn times() -> Times {
    loop {
        let before = millis(clock_gettime(ClockId::Boottime));
        let wall = clock_gettime(ClockId::Realtime);
        let monotonic = now_ms();
        let boot = millis(clock_gettime(ClockId::Boottime));
        if boot - before < APART_MS_MAX {
            let wall = wall.tv_sec * 1000 + wall.tv_nsec / 1_000_000 + ahead_ms();
            return Times { monotonic, boot, wall };
        }
    }
}

fn rest() {
    std::thread::park_timeout(Duration::from_millis(LOOK_EVERY_MS));
}
