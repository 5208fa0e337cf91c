//! Hang injection, for tests and drills: what can be made to go wrong in a running process, by name. Only in builds with
//! the feature `drill`; nothing of it is in the others.
//!
//! ```text
//! POST /drill/NAME?seconds=N ─► admin thread ─► the drill that the process offers ─► Mailbox ─► the loop that suffers
//! ```
//!
//! A drill only posts an order and returns: the admin thread must go on whatever hangs. `DELETE /drill` ends all that
//! are under way, so that nobody has to know beforehand how long one is needed.

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
use tokio::sync::mpsc;

use crate::work;

/// Orders that wait for a loop to take them.
const ORDERS: usize = 16;
/// More files than this are not leaked, whatever the limit.
const FILES_MAX: usize = 1 << 16;

/// More jobs than any pool of ours has threads.
const POOL_JOBS: usize = 1024;

/// What the threads of the pool wait for.
static POOL: Mutex<()> = Mutex::new(());

type Drill = Arc<dyn Fn(Duration) + Send + Sync>;

static OFFERED: Mutex<BTreeMap<&str, Drill>> = Mutex::new(BTreeMap::new());
/// How often all drills were ended.
static ENDINGS: Mutex<u64> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();
static CLOCK_AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// Lets the admin socket start `drill` under this name, for as long as the order says. It must return at once.
pub fn offer(name: &'static str, drill: impl Fn(Duration) + Send + Sync + 'static) {
    OFFERED.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(drill));
}

/// How long.
#[derive(Debug, Deserialize)]
pub(crate) struct Length {
    seconds: u64,
}

/// `POST /drill/NAME?seconds=N`.
pub(crate) async fn start(name: web::Path<String>, length: web::Query<Length>) -> HttpResponse {
    let offered = OFFERED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(drill) = offered.get(name.as_str()) else {
        return HttpResponse::build(StatusCode::NOT_FOUND).json(offered.keys().collect::<Vec<_>>());
    };
    tracing::warn!(drill = name.as_str(), seconds = length.seconds, "a drill began");
    drill(Duration::from_secs(length.seconds));
    HttpResponse::Accepted().finish()
}

/// `DELETE /drill`.
pub(crate) async fn end() -> HttpResponse {
    *ENDINGS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    ENDED.notify_all();
    tracing::info!("the drills ended");
    HttpResponse::NoContent().finish()
}

/// Orders for one event loop, or for whichever of several takes them first. Cheap to clone.
#[derive(Debug)]
pub struct DrillQueue<T> {
    post: mpsc::Sender<T>,
    box_: Arc<tokio::sync::Mutex<mpsc::Receiver<T>>>,
}

impl<T> DrillQueue<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let (post, orders) = mpsc::channel(ORDERS);
        Self { post, box_: Arc::new(tokio::sync::Mutex::new(orders)) }
    }

    /// Leaves an order; one too many is lost.
    pub fn post(&self, order: T) {
        if self.post.try_send(order).is_err() {
            tracing::warn!("nobody takes the orders of drills");
        }
    }

    /// Carries out orders, one after the other, for ever.
    pub async fn attend(self, carry_out: impl AsyncFn(T)) {
        loop {
            let order = self.box_.lock().await.recv().await;
            let Some(order) = order else { return };
            carry_out(order).await;
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
        Self { post: self.post.clone(), box_: Arc::clone(&self.box_) }
    }
}

/// A pipe that says nothing for so long, and then ends.
///
/// # Panics
/// When the system gives no pipe or no thread.
#[must_use]
pub fn silent_pipe(time: Duration) -> PipeReader {
    let (reader, writer) = std::io::pipe().expect("a drill has descriptors to spare");
    apart(move || {
        rest(time);
        drop(writer);
    });
    reader
}

/// Opens files until the system gives no more, and keeps them for so long.
pub fn leak_descriptors(time: Duration) {
    apart(move || {
        let open = |_| std::fs::File::open("/dev/null").ok().map(OwnedFd::from);
        let leaked: Vec<OwnedFd> = (0..FILES_MAX).map_while(open).collect();
        rest(time);
        drop(leaked);
    });
}

/// Sets the wall clock of this process ahead, and leaves it there.
pub fn jump_clock(ahead: Duration) {
    CLOCK_AHEAD_MS.fetch_add(i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
}

/// How far the wall clock was set ahead.
pub(crate) fn clock_ahead_ms() -> i64 {
    CLOCK_AHEAD_MS.load(Ordering::Relaxed)
}

/// Does something on a thread of its own, which nobody joins.
///
/// # Panics
/// When the system gives no thread.
pub fn apart(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name("drill".to_owned()).spawn(work).expect("a drill gets a thread");
}

/// Blocks this thread for so long, or until the drills are ended.
pub fn rest(time: Duration) {
    let endings = ENDINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let before = *endings;
    // Whether it was time or an order that ended it does not matter.
    drop(ENDED.wait_timeout_while(endings, time, |now| *now == before));
}

/// How often drills were ended: another number than before means that it is over.
#[must_use]
pub fn endings() -> u64 {
    *ENDINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Offers the drills that are the same in every daemon: `leak-descriptors`, `clock-jump`, and `exhaust-pool` for the pool of
/// the current runtime.
///
/// # Panics
/// Outside a tokio runtime.
pub fn offer_common() {
    offer("leak-descriptors", leak_descriptors);
    offer("clock-jump", jump_clock);
    let runtime = tokio::runtime::Handle::current();
    offer("exhaust-pool", move |time| {
        hold(&POOL, time);
        for _ in 0..POOL_JOBS {
            drop(runtime.spawn_blocking(fill_the_pool));
        }
    });
}

#[inline(never)]
fn fill_the_pool() -> usize {
    let _work = work::on("a drill", "exhaust-pool");
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

/// Holds `lock` for so long on a thread of its own; when this returns it is held.
///
/// # Panics
/// When that thread dies.
pub fn hold(lock: &'static Mutex<()>, time: Duration) {
    let (held, holds) = std::sync::mpsc::sync_channel(1);
    apart(move || {
        let _guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever waits for this is there.
        held.try_send(()).ok();
        rest(time);
    });
    holds.recv().expect("the thread has the lock");
}
