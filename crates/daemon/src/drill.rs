//! Hangs on demand, for tests and drills, started by name in a running process. Only in builds with the feature `drill`;
//! other builds contain none of this.
//!
//! ```text
//! POST /drill/NAME?seconds=N ─► admin thread ─► the drill of that name ─► DrillQueue ─► the event loop to hang
//! ```
//!
//! A drill must return at once, since the admin thread must keep working: it only queues an order or starts a thread.
//! `DELETE /drill` ends all running drills, so that a test need not know in advance how long it needs one.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::work;

/// Orders that may wait for an event loop.
const ORDERS_MAX: usize = 16;
/// Files that are opened at most, whatever the limit.
const LEAKED_FILES_MAX: usize = 1 << 16;
/// More than any of our thread pools has threads.
const POOL_JOBS: usize = 1024;

type Drill = Arc<dyn Fn(Duration) + Send + Sync>;

static OFFERED: Mutex<BTreeMap<&str, Drill>> = Mutex::new(BTreeMap::new());
/// How often all drills were ended.
static ENDINGS: Mutex<u64> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();
/// The lock that the threads of an exhausted pool wait for.
static POOL: Mutex<()> = Mutex::new(());
static CLOCK_AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// Lets the admin socket start `drill` by this name, for the duration in the request. `drill` must return at once.
pub fn offer(name: &'static str, drill: impl Fn(Duration) + Send + Sync + 'static) {
    OFFERED.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(drill));
}

/// The query of `POST /drill/NAME`.
#[derive(Debug, Deserialize)]
pub(crate) struct DrillLength {
    seconds: u64,
}

/// `POST /drill/NAME?seconds=N`.
pub(crate) async fn start(name: web::Path<String>, length: web::Query<DrillLength>) -> HttpResponse {
    let offered = OFFERED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(drill) = offered.get(name.as_str()) else {
        return HttpResponse::build(StatusCode::NOT_FOUND).json(offered.keys().collect::<Vec<_>>());
    };
    tracing::warn!(drill = name.as_str(), seconds = length.seconds, "started a drill");
    drill(Duration::from_secs(length.seconds));
    HttpResponse::Accepted().finish()
}

/// `DELETE /drill`.
pub(crate) async fn end() -> HttpResponse {
    *ENDINGS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    ENDED.notify_all();
    tracing::info!("ended all drills");
    HttpResponse::NoContent().finish()
}

/// Orders for one event loop, or for the first of several that takes them. Cheap to clone.
#[derive(Debug)]
pub struct DrillQueue<T> {
    sender: mpsc::Sender<T>,
    orders: Arc<tokio::sync::Mutex<mpsc::Receiver<T>>>,
}

impl<T> DrillQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        Self { sender, orders: Arc::new(tokio::sync::Mutex::new(orders)) }
    }

    /// Queues an order; if the queue is full, it is dropped and logged.
    pub fn post(&self, order: T) {
        if self.sender.try_send(order).is_err() {
            tracing::warn!("dropped a drill: the event loop takes no more orders");
        }
    }

    /// Runs the orders with `run_order`, one after the other, for ever.
    pub async fn run(self, run_order: impl AsyncFn(T)) {
        loop {
            let order = self.orders.lock().await.recv().await;
            let Some(order) = order else { return };
            run_order(order).await;
        }
    }
}

impl<T> Default for DrillQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for DrillQueue<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), orders: Arc::clone(&self.orders) }
    }
}

/// A pipe without data that is closed after `time`.
///
/// # Panics
/// If no pipe or thread can be created.
#[must_use]
pub fn silent_pipe(time: Duration) -> PipeReader {
    let (reader, writer) = std::io::pipe().expect("a pipe for the drill");
    spawn_detached(move || {
        block(time);
        drop(writer);
    });
    reader
}

/// Opens files up to the limit of the process, and closes them after `time`.
pub fn leak_descriptors(time: Duration) {
    spawn_detached(move || {
        let open = |_| std::fs::File::open("/dev/null").ok().map(OwnedFd::from);
        let leaked: Vec<OwnedFd> = (0..LEAKED_FILES_MAX).map_while(open).collect();
        block(time);
        drop(leaked);
    });
}

/// Sets the wall clock of this process ahead for good.
pub fn jump_clock(ahead: Duration) {
    CLOCK_AHEAD_MS.fetch_add(i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
}

/// How far the wall clock was set ahead, in milliseconds.
pub(crate) fn clock_ahead_ms() -> i64 {
    CLOCK_AHEAD_MS.load(Ordering::Relaxed)
}

/// Runs `work` on a separate thread, which is never joined.
///
/// # Panics
/// If the thread cannot be started.
pub fn spawn_detached(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name("drill".to_owned()).spawn(work).expect("a thread for the drill");
}

/// Blocks this thread for `time`, or until the drills are ended.
pub fn block(time: Duration) {
    let endings = ENDINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let before = *endings;
    // It does not matter which of the two ended it.
    drop(ENDED.wait_timeout_while(endings, time, |now| *now == before));
}

/// How often the drills were ended. A running drill is over when the number changes.
#[must_use]
pub fn endings() -> u64 {
    *ENDINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds `lock` for `time` on a separate thread. When this returns, it is held.
///
/// # Panics
/// If that thread dies.
pub fn hold_lock(lock: &'static Mutex<()>, time: Duration) {
    let (held, holds) = std::sync::mpsc::sync_channel(1);
    spawn_detached(move || {
        let _guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        held.try_send(()).ok();
        block(time);
    });
    holds.recv().expect("the thread has the lock");
}

/// Offers the drills that every daemon has: `leak-descriptors`, `clock-jump`, and `exhaust-pool` for the blocking pool of
/// the current runtime.
///
/// # Panics
/// Outside a tokio runtime.
pub fn offer_common() {
    offer("leak-descriptors", leak_descriptors);
    offer("clock-jump", jump_clock);
    let runtime = Handle::current();
    offer("exhaust-pool", move |time| {
        hold_lock(&POOL, time);
        for _ in 0..POOL_JOBS {
            drop(runtime.spawn_blocking(fill_the_pool));
        }
    });
}

// The drill blocks three calls deep, in functions that are never inlined: a tool that finds the cause has to name the
// innermost one, and to show the calls that lead to it.

#[inline(never)]
fn fill_the_pool() -> usize {
    let _task = work::on("a drill", "exhaust-pool");
    black_box(look_up_a_slow_name()) + 1
}

#[inline(never)]
fn look_up_a_slow_name() -> usize {
    black_box(sit_in_the_pool()) + 1
}

#[inline(never)]
fn sit_in_the_pool() -> usize {
    let _guard = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    black_box(1)
}
