//! The black box of this process: a ring of what it did last, in a file that outlives it. `newswire doctor` reads it when the
//! process is dead or does not answer.
//!
//! ```text
//! any thread ── record(event) ──► bounded queue ── every 100 ms ── "black-box" ──► pwrite to a file of fixed size
//! ```
//!
//! Recording never waits and takes no lock: a full queue drops the record and counts it. Only the thread `black-box` touches
//! the disk, so a disk that hangs stops nothing else. The file needs no sync: the page cache outlives a killed process.
//!
//! dial9-tokio-telemetry records polls, parks and wakes of tokio, and is not used: its polls need tokio's unstable hooks, it
//! wants to build the runtimes, which actix does here, and it writes an entry per poll, which are several per event and
//! client, into files that rotate.

mod file;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use control::black_box::BlackBoxEvent;
use crossbeam_queue::ArrayQueue;
use rustix::time::{ClockId, clock_gettime};

use self::writer::BlackBoxWriter;
use crate::clock::{Clock, millis};
use crate::metrics::MetricsRegistry;

/// Records that wait for the thread, which takes them every 100 ms.
const QUEUE_RECORDS: usize = 2_048;
/// How long the end of the process waits for the last records to be written.
const LAST_WRITE_MAX: Duration = Duration::from_secs(1);
/// The same when the process has no time left.
const LAST_MOMENT_MS: u64 = 100;
/// A task that occupies its thread for longer is recorded, and so is a beat that is this late, milliseconds.
pub(crate) const LONG_MS: u64 = 10;
/// Records of long tasks in [`BURST_MS`]; of further ones only the number is kept.
const TASKS_MAX: u64 = 20;
const BURST_MS: u64 = 1_000;

/// The black box of this process, once it has one.
static CURRENT: OnceLock<BlackBox> = OnceLock::new();

/// What a black box is for, and how large it is.
#[derive(Clone, Debug)]
pub struct BlackBoxOptions {
    /// The file.
    pub path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    /// The program.
    pub program: String,
}

/// A running black box. Cheap to clone.
#[derive(Clone)]
pub struct BlackBox(Arc<BlackBoxState>);

/// Reads counts for the records; it takes no lock that a stuck thread could hold.
type ReadCounts = dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync;

struct BlackBoxState {
    queue: ArrayQueue<QueuedRecord>,
    dropped: AtomicU64,
    failed_writes: AtomicU64,
    /// 0 before the watchdog has looked.
    watchdog_boot_ms: AtomicU64,
    is_ready: AtomicBool,
    is_ending: AtomicBool,
    has_ended: AtomicBool,
    thread: OnceLock<std::thread::Thread>,
    counts: OnceLock<Box<ReadCounts>>,
    /// When the current burst of long tasks began, and how many there were.
    burst_ms: AtomicU64,
    burst_tasks: AtomicU64,
}

struct QueuedRecord {
    wall_ms: i64,
    boot_ms: u64,
    event: BlackBoxEvent,
}

impl fmt::Debug for BlackBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlackBox").field("queued", &self.0.queue.len()).finish_non_exhaustive()
    }
}

/// Makes a black box that of this process; the second one is ignored. Returns what waits for its end. Its thread calls `begin`
/// first, and what that returns every 100 ms, as long as it makes progress.
///
/// # Errors
/// If its thread cannot be started.
pub fn install<B: Fn()>(
    options: BlackBoxOptions,
    begin: impl FnOnce() -> B + Send + 'static,
) -> std::io::Result<BlackBoxEnd> {
    let (black_box, end) = BlackBox::start(options, begin)?;
    CURRENT.set(black_box).ok();
    Ok(end)
}

/// Records an event in the black box of this process, if it has one. Never waits.
pub fn record(event: BlackBoxEvent) {
    if let Some(black_box) = CURRENT.get() {
        black_box.record(event);
    }
}

/// Whether records are kept: else there is no need to make one.
#[must_use]
pub fn is_on() -> bool {
    CURRENT.get().is_some()
}

/// The process has finished its start.
pub fn ready() {
    if let Some(black_box) = CURRENT.get() {
        black_box.ready();
    }
}

/// Adds counts to the records, every few seconds. `read` runs on the thread of the black box and must not wait: it takes no
/// lock that a stuck thread could hold. Only the first call counts.
pub fn count_with(read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) {
    if let Some(black_box) = CURRENT.get() {
        black_box.0.counts.get_or_init(|| Box::new(read));
    }
}

/// The watchdog has looked at all loops.
pub(crate) fn watchdog_looked() {
    if let Some(black_box) = CURRENT.get() {
        black_box.0.watchdog_boot_ms.store(boot_ms(), Relaxed);
    }
}

/// A task occupied its thread for `ms`.
pub(crate) fn long_task(thread: &Arc<str>, what: &'static str, of: &Arc<str>, ms: u64) {
    let Some(black_box) = CURRENT.get() else { return };
    if black_box.0.may_record_task() {
        let (thread, of) = (Arc::clone(thread), Arc::clone(of));
        black_box.record(BlackBoxEvent::Task { thread, what: what.into(), of, ms });
    }
}

/// Registers `newswire_<part>_black_box_records_dropped_total` and `newswire_<part>_black_box_write_failures_total`.
pub(crate) fn register(metrics: &MetricsRegistry, part: &str) {
    let read = |counter: fn(&BlackBoxState) -> &AtomicU64| {
        move || CURRENT.get().map_or(0, |black_box| counter(&black_box.0).load(Relaxed))
    };
    metrics.register_counter(
        &format!("newswire_{part}_black_box_records_dropped_total"),
        "Records of the black box lost because its disk did not take them in time",
        read(|state| &state.dropped),
    );
    metrics.register_counter(
        &format!("newswire_{part}_black_box_write_failures_total"),
        "Failures to open or write the file of the black box in daemon.run_dir",
        read(|state| &state.failed_writes),
    );
}

/// Ends a black box.
#[derive(Debug)]
pub struct BlackBoxEnd {
    black_box: BlackBox,
    ended: Receiver<()>,
}

impl BlackBoxEnd {
    /// Records how the process ends, and waits a moment until everything is written.
    pub fn end(self, exit: u8) {
        self.black_box.end(exit, None);
        // An error means that all is written; a disk that takes longer keeps no process.
        self.ended.recv_timeout(LAST_WRITE_MAX).ok();
    }
}

/// Records that this process ends now and why, and waits a moment until that is written. Blocks.
#[expect(clippy::disallowed_methods, reason = "on the thread that ends the process")]
pub(crate) fn end_now(exit: u8, why: &str) {
    let Some(black_box) = CURRENT.get() else { return };
    black_box.end(exit, Some(why.into()));
    let began_ms = boot_ms();
    while !black_box.0.has_ended.load(Acquire) && boot_ms() - began_ms < LAST_MOMENT_MS {
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl BlackBox {
    /// Starts the thread that writes the file. The file is made as soon as its directory exists.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<B: Fn()>(
        options: BlackBoxOptions,
        begin: impl FnOnce() -> B + Send + 'static,
    ) -> std::io::Result<(Self, BlackBoxEnd)> {
        let black_box = Self(Arc::new(BlackBoxState {
            queue: ArrayQueue::new(QUEUE_RECORDS),
            dropped: AtomicU64::new(0),
            failed_writes: AtomicU64::new(0),
            watchdog_boot_ms: AtomicU64::new(0),
            is_ready: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            thread: OnceLock::new(),
            counts: OnceLock::new(),
            burst_ms: AtomicU64::new(0),
            burst_tasks: AtomicU64::new(0),
        }));
        let (open, ended) = sync_channel::<()>(1);
        let mut writer = BlackBoxWriter::new(black_box.clone(), options);
        let work = move || {
            // Dropped with the thread, which the end waits for.
            let _open = open;
            writer.run(begin());
        };
        let thread = std::thread::Builder::new().name("black-box".to_owned()).spawn(work)?;
        black_box.0.thread.get_or_init(|| thread.thread().clone());
        let end = BlackBoxEnd { black_box: black_box.clone(), ended };
        Ok((black_box, end))
    }

    /// Records an event. Never waits; a full queue drops it, and it is counted.
    pub fn record(&self, event: BlackBoxEvent) {
        if self.0.queue.push(QueuedRecord::now(event)).is_err() {
            self.0.dropped.fetch_add(1, Relaxed);
        }
    }

    /// The process has finished its start.
    pub fn ready(&self) {
        self.0.is_ready.store(true, Relaxed);
        self.record(BlackBoxEvent::Ready);
    }

    /// Records dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Attempts to open or write the file that failed.
    #[must_use]
    pub fn failed_writes(&self) -> u64 {
        self.0.failed_writes.load(Relaxed)
    }

    fn end(&self, exit: u8, error: Option<Arc<str>>) {
        // In a full queue it displaces the oldest record: nothing is worth more.
        if self.0.queue.force_push(QueuedRecord::now(BlackBoxEvent::Ended { exit, error })).is_some() {
            self.0.dropped.fetch_add(1, Relaxed);
        }
        // A thread that sees this sees the record, too.
        self.0.is_ending.store(true, Release);
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
    }
}

impl QueuedRecord {
    fn now(event: BlackBoxEvent) -> Self {
        Self { wall_ms: Clock::system().now_millis(), boot_ms: boot_ms(), event }
    }
}

impl BlackBoxState {
    /// Whether one more long task is recorded: on a machine without a processor to spare, every task is long.
    fn may_record_task(&self) -> bool {
        let now = boot_ms();
        if now.saturating_sub(self.burst_ms.load(Relaxed)) >= BURST_MS {
            self.burst_ms.store(now, Relaxed);
            self.burst_tasks.store(0, Relaxed);
        }
        self.burst_tasks.fetch_add(1, Relaxed) < TASKS_MAX
    }
}

/// The clock that counts from the start of the machine, suspends included.
fn boot_ms() -> u64 {
    millis(clock_gettime(ClockId::Boottime))
}
