//! The watchdog: a plain thread, outside of every runtime, that sees when an event loop, a pool or the recorder makes
//! no progress, and says at once in which function.
//!
//! ```text
//! loops  ── a beat each 100 ms ──┐
//! pools  ── a canary each second ┼─► entries (atomics) ◄── looks each 250 ms ── "watchdog" ──► log, /watch, systemd
//! busy   ── since when at work ──┘                              │ stack of the culprit, of all on SIGQUIT
//! ```
//!
//! Nothing here takes a lock that a stuck thread could hold: entries are atomics, and the lists around them are locked
//! for assignments only.

mod judge;
mod numbers;
mod show;
mod thread;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::Serialize;
use serde_json::Value;
use stacks::SelfSampler;
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::work::{self, CurrentTask};

pub use self::show::StalledLoop;
pub(crate) use self::show::text;
pub use self::thread::WatchHandle;
pub use control::watch::WatchKind;

/// How often a loop shows that it lives.
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// Attempts of [`try_briefly`]: about a millisecond.
const ATTEMPTS: usize = 1_000;
/// Stalls that are remembered.
const STALLS_MAX: usize = 16;

/// Everything in the process that must make progress. Cheap to clone; every clone is the same watch.
#[derive(Clone, Default)]
pub struct Watch(Arc<Shared>);

type Vitals = dyn Fn() -> Value + Send + Sync;

#[derive(Default)]
struct Shared {
    entries: Mutex<Vec<Arc<Entry>>>,
    pools: Mutex<Vec<Pool>>,
    found: Mutex<Found>,
    inside: OnceLock<SelfSampler>,
    /// While the watchdog runs.
    vitals: Mutex<Option<Arc<Vitals>>>,
    /// Whom to wake.
    thread: Mutex<Option<std::thread::Thread>>,
    dump: AtomicBool,
    /// Somebody waits for the vitals, perhaps for ever.
    asking_vitals: Arc<AtomicBool>,
    /// The same for stacks.
    asking_stacks: Arc<AtomicBool>,
}

/// What the watchdog's thread found.
#[derive(Debug, Default)]
struct Found {
    /// The newest first.
    stalls: VecDeque<Stall>,
    stalls_total: u64,
    clock: Odd,
    /// Times that the process did not run at all.
    pauses: Odd,
}

/// Something odd that happens now and then.
#[derive(Clone, Copy, Debug, Default)]
struct Odd {
    count: u64,
    last_ms: i64,
    at_ms: u64,
}

#[derive(Clone, Debug)]
struct Stall {
    number: u64,
    name: Arc<str>,
    kind: WatchKind,
    tid: i32,
    began_ms: u64,
    lasted_ms: Option<u64>,
    /// As it was when the stall was noticed.
    work: Option<CurrentTask>,
    culprit: Option<String>,
}

/// One thing that is watched.
#[derive(Debug)]
struct Entry {
    number: u64,
    name: Arc<str>,
    kind: WatchKind,
    /// None of a pool: 0.
    tid: i32,
    /// When it showed last that it lives, or began what it is busy with.
    beat_ms: AtomicU64,
    /// Nothing is expected of it at present.
    idle: AtomicBool,
    /// How late the last beat was.
    lag_ms: AtomicU64,
    /// The latest since the watchdog looked last.
    worst_ms: AtomicU64,
    /// The latest of the last minute, as the watchdog found it.
    lag_ms_max: AtomicU64,
    stalled: AtomicBool,
    stalls: AtomicU64,
}

struct Pool {
    entry: Arc<Entry>,
    handle: Handle,
    sent_ms: u64,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("entries", &*self.entries()).finish_non_exhaustive()
    }
}

/// Takes its entry off the watch when it is dropped.
struct Registered {
    watch: Watch,
    entry: Arc<Entry>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.watch.forget(&self.entry);
    }
}

/// A thread that counts only while it is busy.
pub struct BusyThread(Registered);

/// As long as it lives, the thread is busy.
#[must_use = "the work ends when this is dropped"]
pub struct BusyGuard<'a> {
    entry: &'a Entry,
    _work: work::TaskGuard,
}

impl Watch {
    /// Watches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches the loop that this is called on, by a task of its own on the current `LocalSet`, until that ends. Names
    /// the thread after it, as far as the system's 15 bytes go.
    pub fn event_loop(&self, name: &str, kind: WatchKind) {
        tokio::task::spawn_local(self.beats(name, kind));
    }

    /// The same as a future for whoever has no `LocalSet`: call and poll it on the thread of the loop; it never ends.
    pub fn beats(&self, name: &str, kind: WatchKind) -> impl Future<Output = ()> + Send + use<> {
        name_thread(name);
        let registered = self.register(name, kind, this_thread(), false);
        async move {
            let mut every = interval(BEAT_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let due = every.tick().await;
                let late = Instant::now().saturating_duration_since(due);
                registered.entry.beat(u64::try_from(late.as_millis()).unwrap_or(u64::MAX));
            }
        }
    }

    /// Watches the thread that this is called on while it is busy, until [`BusyThread`] is dropped.
    #[must_use]
    pub fn busy_thread(&self, name: &str, kind: WatchKind) -> BusyThread {
        BusyThread(self.register(name, kind, this_thread(), true))
    }

    /// Watches the threads for blocking work of a runtime, until that ends: each second a job that does nothing must come
    /// back. It keeps one thread of the pool alive.
    pub fn pool(&self, name: &str, handle: &Handle) {
        let entry = Arc::new(Entry::new(name, WatchKind::Pool, 0, true));
        self.entries().push(Arc::clone(&entry));
        self.pools().push(Pool { entry, handle: handle.clone(), sent_ms: 0 });
    }

    /// Starts the watchdog's thread; it ends when the handle is dropped. `vitals` is the `vitals` of `/watch`, such as
    /// [`control::GatewayVitals`], and must not wait for anything. Without `inside` there are no stacks.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<V: Serialize>(
        &self,
        inside: impl Into<Option<SelfSampler>>,
        vitals: impl Fn() -> V + Send + Sync + 'static,
    ) -> io::Result<WatchHandle> {
        if let Some(inside) = inside.into() {
            // A second start changes nothing of what the first one said.
            self.0.inside.set(inside).ok();
        }
        self.set_vitals(Some(Arc::new(move || crate::json::to_json(&vitals()))));
        thread::start(self.clone())
    }

    /// Has all stacks and what the process is doing written to the log, by the watchdog's thread.
    pub fn dump(&self) {
        self.0.dump.store(true, Relaxed);
        self.wake();
    }

    fn vitals(&self) -> Option<Arc<Vitals>> {
        self.0.vitals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_vitals(&self, vitals: Option<Arc<Vitals>>) {
        let before =
            std::mem::replace(&mut *self.0.vitals.lock().unwrap_or_else(PoisonError::into_inner), vitals);
        // Whatever it holds is let go outside of the lock.
        drop(before);
    }

    fn wake(&self) {
        if let Some(thread) = &*self.0.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }

    fn register(&self, name: &str, kind: WatchKind, tid: i32, idle: bool) -> Registered {
        let entry = Arc::new(Entry::new(name, kind, tid, idle));
        self.entries().push(Arc::clone(&entry));
        Registered { watch: self.clone(), entry }
    }

    fn forget(&self, entry: &Arc<Entry>) {
        self.entries().retain(|other| !Arc::ptr_eq(other, entry));
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Pool>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BusyThread {
    /// It is busy with this from now on.
    pub fn during(&self, what: &'static str, of: impl Into<Arc<str>>) -> BusyGuard<'_> {
        let entry = &*self.0.entry;
        entry.set_out();
        BusyGuard { entry, _work: work::on(what, of) }
    }
}

impl fmt::Debug for BusyThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Busy").field(&self.0.entry).finish()
    }
}

impl fmt::Debug for BusyGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BusyGuard").field(&self.entry).finish()
    }
}

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        self.entry.set_idle(0);
    }
}

impl Entry {
    fn new(name: &str, kind: WatchKind, tid: i32, idle: bool) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NUMBERS.fetch_add(1, Relaxed),
            name: name.into(),
            kind,
            tid,
            beat_ms: AtomicU64::new(now_ms()),
            idle: AtomicBool::new(idle),
            lag_ms: AtomicU64::new(0),
            worst_ms: AtomicU64::new(0),
            lag_ms_max: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            stalls: AtomicU64::new(0),
        }
    }

    fn beat(&self, late_ms: u64) {
        self.lag_ms.store(late_ms, Relaxed);
        self.worst_ms.fetch_max(late_ms, Relaxed);
        self.beat_ms.store(now_ms(), Relaxed);
    }

    /// Something is under way from now on.
    fn set_out(&self) {
        self.beat_ms.store(now_ms(), Relaxed);
        self.idle.store(false, std::sync::atomic::Ordering::Release);
    }

    /// It is back.
    fn set_idle(&self, late_ms: u64) {
        self.idle.store(true, std::sync::atomic::Ordering::Release);
        self.beat(late_ms);
    }
}

/// For vitals: tries for a lock until a moment has passed, in which whoever holds it for a few instructions lets it go, and
/// whoever is stuck does not.
pub fn try_briefly<T>(attempt: impl Fn() -> Option<T>) -> Option<T> {
    (0..ATTEMPTS).find_map(|_| {
        let got = attempt();
        if got.is_none() {
            std::thread::yield_now();
        }
        got
    })
}

/// The monotonic clock, which stands still while the machine sleeps.
fn now_ms() -> u64 {
    millis(clock_gettime(ClockId::Monotonic))
}

pub(crate) fn millis(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or_default() * 1000
        + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}

fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// So that tools from outside tell the loops apart. The main thread's name is that of the process.
fn name_thread(name: &str) {
    if rustix::thread::gettid() == rustix::process::getpid() {
        return;
    }
    let name = &name.as_bytes()[..name.len().min(15)];
    if let Ok(name) = std::ffi::CString::new(name)
        && let Err(error) = rustix::thread::set_name(&name)
    {
        tracing::debug!(%error, "could not name a thread");
    }
}
