//! The watchdog: a plain thread, outside every runtime, that detects when an event loop, a thread pool or the recorder
//! makes no progress, and logs at once in which function.
//!
//! ```text
//! loops  ── a beat every 100 ms ─┐
//! pools  ── a probe every second ┼─► entries (atomics) ◄── every 250 ms ── "watchdog" ──► log, /watch, systemd
//! busy   ── since when at work ──┘                             │ stack of the culprit, all stacks on SIGQUIT
//!
//! own listeners ◄── a probe every 3 s ── "prober" ──► log, /watch, systemd; it looks at the watchdog, too
//! ```
//!
//! Nothing here may take a lock that a stuck thread could hold: entries are atomics, and the lists of them are locked for
//! assignments only.

mod detector;
mod dump;
mod listeners;
mod metrics;
mod recorded;
mod report;
mod states;
mod tasks;
mod watchdog;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use stacks::SelfSampler;
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::states::{ListenerState, ObserverThread, TaskState};
use crate::clock::millis;
use crate::work::{self, CurrentTask};

pub(crate) use self::dump::stacks_text;
pub use self::listeners::WatchedListener;
pub use self::report::StalledLoop;
pub use self::states::{ListenerAddress, QueueLength};
pub use self::tasks::WatchedTask;
pub use self::watchdog::WatchHandle;
pub use crate::brief_lock::try_briefly;
pub use crate::work::coarse_ms;
pub use control::watch::WatchKind;

/// How often an event loop sends a beat.
const BEAT_EVERY: Duration = Duration::from_millis(100);

/// Everything in the process that must make progress. Cheap to clone; all clones share their state.
#[derive(Clone, Default)]
pub struct Watch(Arc<WatchState>);

type ReadDiagnostics = dyn Fn() -> Value + Send + Sync;

#[derive(Default)]
struct WatchState {
    entries: Mutex<Vec<Arc<WatchEntry>>>,
    pools: Mutex<Vec<WatchedPool>>,
    history: Mutex<WatchHistory>,
    sampler: OnceLock<SelfSampler>,
    /// Set while the watchdog runs.
    diagnostics: Mutex<Option<Arc<ReadDiagnostics>>>,
    /// The watchdog's thread, and that of the prober.
    threads: Mutex<Vec<std::thread::Thread>>,
    watchdog: WatchdogState,
    listeners: Mutex<Vec<Arc<ListenerState>>>,
    tasks: Mutex<Vec<Arc<TaskState>>>,
    /// The prober's end of its connection to a TCP socket.
    own_probe: Mutex<Option<SocketAddr>>,
    dump_requested: AtomicBool,
    /// The thread that reads the diagnostics, which may never finish.
    reading_diagnostics: Arc<ObserverThread>,
    /// The same for the stacks.
    reading_stacks: Arc<ObserverThread>,
}

/// When the watchdog looked last: it cannot notice by itself that it is stuck.
#[derive(Debug, Default)]
struct WatchdogState {
    /// 0 before its first check.
    tid: AtomicI32,
    looked_ms: AtomicU64,
    /// It reads the stack of a thread, which takes seconds on a busy machine.
    sampling: AtomicBool,
}

/// What the watchdog has detected so far.
#[derive(Debug, Default)]
struct WatchHistory {
    /// The newest first.
    stalls: VecDeque<StallRecord>,
    stalls_total: u64,
    clock_jumps: RareEvent,
    /// Times that the whole process did not run.
    pauses: RareEvent,
}

/// An event that happens now and then: how often, how large the last one was, and when that was.
#[derive(Clone, Copy, Debug, Default)]
struct RareEvent {
    count: u64,
    last_ms: i64,
    at_ms: u64,
}

#[derive(Clone, Debug)]
struct StallRecord {
    number: u64,
    name: Arc<str>,
    kind: WatchKind,
    tid: i32,
    began_ms: u64,
    lasted_ms: Option<u64>,
    /// The task when the stall was detected.
    work: Option<CurrentTask>,
    culprit: Option<String>,
}

/// One event loop, pool or thread that is watched.
#[derive(Debug)]
struct WatchEntry {
    number: u64,
    name: Arc<str>,
    kind: WatchKind,
    /// 0 for a pool.
    tid: i32,
    /// The last beat, or the start of the current work.
    beat_ms: AtomicU64,
    /// No progress is expected while it is idle.
    idle: AtomicBool,
    /// How late the last beat was.
    lag_ms: AtomicU64,
    /// The maximum lag since the last check of the watchdog.
    unread_lag_ms_max: AtomicU64,
    /// The maximum lag of the last minute, set by the watchdog.
    lag_ms_max: AtomicU64,
    stalled: AtomicBool,
    stalls: AtomicU64,
}

struct WatchedPool {
    entry: Arc<WatchEntry>,
    handle: Handle,
    sent_ms: u64,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("entries", &*self.entries()).finish_non_exhaustive()
    }
}

/// Removes its entry from the watch when dropped.
#[derive(Debug)]
struct Registration {
    watch: Watch,
    entry: Arc<WatchEntry>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.watch.unregister(&self.entry);
    }
}

/// How often a helper beats.
pub const HELPER_BEAT_EVERY: Duration = Duration::from_secs(1);

/// A thread that is watched by its own beats.
#[derive(Debug)]
pub struct HelperThread(Registration);

/// A thread that is watched only while it is busy.
pub struct BusyThread(Registration);

/// What a helper is busy with, until this is dropped.
pub(crate) struct HelperGuard<'a> {
    thread: &'a HelperThread,
    _work: work::TaskGuard,
}

/// Marks a [`BusyThread`] from another thread: without it, one that is stuck while it waits for work seems to be idle.
#[derive(Clone, Debug)]
pub struct WorkMark(Arc<WatchEntry>);

/// The thread is busy until this is dropped.
#[must_use = "the thread is idle again when this is dropped"]
pub struct BusyGuard<'a> {
    entry: &'a WatchEntry,
    _work: work::TaskGuard,
}

impl Watch {
    /// A watch without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches the event loop that this is called on, by a task on the current `LocalSet`, until that ends. Names the
    /// thread after it, cut to the 15 bytes of the system.
    pub fn event_loop(&self, name: &str, kind: WatchKind) {
        tokio::task::spawn_local(self.send_beats(name, kind));
    }

    /// The same as a future, for event loops without a `LocalSet`: call and poll it on the thread of the loop. It never
    /// completes.
    pub fn send_beats(&self, name: &str, kind: WatchKind) -> impl Future<Output = ()> + Send + use<> {
        name_thread(name);
        let registration = self.register(name, kind, this_thread(), false);
        async move {
            let mut every = interval(BEAT_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let due = every.tick().await;
                let late = Instant::now().saturating_duration_since(due);
                registration.entry.beat(u64::try_from(late.as_millis()).unwrap_or(u64::MAX));
            }
        }
    }

    /// Watches the thread that this is called on while it is busy, until [`BusyThread`] is dropped.
    #[must_use]
    pub fn busy_thread(&self, name: &str, kind: WatchKind) -> BusyThread {
        BusyThread(self.register(name, kind, this_thread(), true))
    }

    /// Watches the thread that this is called on, which works for the operator only, until [`HelperThread`] is dropped. It
    /// must beat every [`HELPER_BEAT_EVERY`] at least, whatever it waits for.
    #[must_use]
    pub fn helper_thread(&self, name: &str, kind: WatchKind) -> HelperThread {
        HelperThread(self.register(name, kind, this_thread(), false))
    }

    /// Watches the blocking pool of a runtime until that ends: every second, a job that does nothing must finish. This keeps
    /// one thread of the pool alive.
    pub fn pool(&self, name: &str, handle: &Handle) {
        let entry = Arc::new(WatchEntry::new(name, WatchKind::Pool, 0, true));
        self.entries().push(Arc::clone(&entry));
        self.pools().push(WatchedPool { entry, handle: handle.clone(), sent_ms: 0 });
    }

    /// Requests a dump of all stacks and the diagnostics to the log; the watchdog's thread writes it.
    pub fn request_dump(&self) {
        self.0.dump_requested.store(true, Relaxed);
        self.wake();
    }

    fn diagnostics(&self) -> Option<Arc<ReadDiagnostics>> {
        self.0.diagnostics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_diagnostics(&self, diagnostics: Option<Arc<ReadDiagnostics>>) {
        let mut current = self.0.diagnostics.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = std::mem::replace(&mut *current, diagnostics);
        // Its captured values are dropped outside the lock.
        drop(current);
        drop(previous);
    }

    fn wake(&self) {
        self.threads().iter().for_each(std::thread::Thread::unpark);
    }

    fn register(&self, name: &str, kind: WatchKind, tid: i32, idle: bool) -> Registration {
        let entry = Arc::new(WatchEntry::new(name, kind, tid, idle));
        self.entries().push(Arc::clone(&entry));
        Registration { watch: self.clone(), entry }
    }

    fn unregister(&self, entry: &Arc<WatchEntry>) {
        self.entries().retain(|other| !Arc::ptr_eq(other, entry));
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<WatchEntry>>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pools(&self) -> MutexGuard<'_, Vec<WatchedPool>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<std::thread::Thread>> {
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Arc<ListenerState>>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<Arc<TaskState>>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, WatchHistory> {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HelperThread {
    /// The thread makes progress.
    pub fn beat(&self) {
        self.0.entry.beat_ms.store(now_ms(), Relaxed);
    }

    /// The same while it is busy with `what` of `of`, until the guard is dropped.
    pub(crate) fn during(&self, what: &'static str, of: impl Into<Arc<str>>) -> HelperGuard<'_> {
        self.beat();
        HelperGuard { thread: self, _work: work::on(what, of) }
    }
}

impl HelperGuard<'_> {
    /// The work goes on: the thread is not stuck.
    pub(crate) fn progress(&self) {
        self.thread.beat();
    }
}

impl WorkMark {
    /// Something is about to be queued for the thread: it has to go on.
    pub fn expect(&self) {
        if self.0.idle.load(std::sync::atomic::Ordering::Acquire) {
            self.0.set_busy();
        }
    }
}

impl BusyThread {
    /// What those mark who queue work for the thread.
    #[must_use]
    pub fn work_mark(&self) -> WorkMark {
        WorkMark(Arc::clone(&self.0.entry))
    }

    /// Nothing is queued for the thread any more.
    pub fn idles(&self) {
        self.0.entry.set_idle(0);
    }

    /// Marks the thread as busy with `what` of `of`, until the guard is dropped.
    pub fn during(&self, what: &'static str, of: impl Into<Arc<str>>) -> BusyGuard<'_> {
        let entry = &*self.0.entry;
        entry.set_busy();
        BusyGuard { entry, _work: work::on(what, of) }
    }
}

impl fmt::Debug for BusyThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BusyThread").field(&self.0.entry).finish()
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

impl WatchEntry {
    fn new(name: &str, kind: WatchKind, tid: i32, idle: bool) -> Self {
        static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT_NUMBER.fetch_add(1, Relaxed),
            name: name.into(),
            kind,
            tid,
            beat_ms: AtomicU64::new(now_ms()),
            idle: AtomicBool::new(idle),
            lag_ms: AtomicU64::new(0),
            unread_lag_ms_max: AtomicU64::new(0),
            lag_ms_max: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            stalls: AtomicU64::new(0),
        }
    }

    fn beat(&self, late_ms: u64) {
        self.lag_ms.store(late_ms, Relaxed);
        self.unread_lag_ms_max.fetch_max(late_ms, Relaxed);
        self.beat_ms.store(now_ms(), Relaxed);
    }

    /// Progress is expected from now on.
    fn set_busy(&self) {
        self.beat_ms.store(now_ms(), Relaxed);
        self.idle.store(false, std::sync::atomic::Ordering::Release);
    }

    /// The work is done; it took `late_ms` longer than expected.
    fn set_idle(&self, late_ms: u64) {
        self.idle.store(true, std::sync::atomic::Ordering::Release);
        self.beat(late_ms);
    }
}

/// The monotonic clock, which does not advance while the machine is suspended.
fn now_ms() -> u64 {
    millis(clock_gettime(ClockId::Monotonic))
}

fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Names the thread, for tools outside the process. The main thread keeps the name of the process.
fn name_thread(name: &str) {
    if rustix::thread::gettid() == rustix::process::getpid() {
        return;
    }
    let name = &name.as_bytes()[..name.len().min(15)];
    if let Ok(name) = std::ffi::CString::new(name)
        && let Err(error) = rustix::thread::set_name(&name)
    {
        tracing::debug!(%error, "could not set the name of a thread");
    }
}
