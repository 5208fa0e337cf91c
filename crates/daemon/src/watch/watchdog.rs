//! The watchdog's thread: it checks all entries, logs what it detects, notifies systemd and writes dumps.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed},
};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use stacks::SelfSampler;

use super::detector::{CHECK_EVERY_MS, ClockReadings, Sample, StallDetector, WatchEvent};
use super::listeners::ListenerProber;
use super::recorded::{self, RecordedLags};
use super::{RareEvent, StallRecord, Watch, WatchEntry, WatchKind, dump, now_ms, this_thread};
use crate::black_box;
use crate::clock::{ahead_ms, millis};
use crate::json::to_json;
use crate::notify;
use crate::work::{self, BusyWorker};

/// How often a probe is sent into each pool.
const PROBE_EVERY_MS: u64 = 1_000;
/// Notifications in the time that systemd waits for one.
const NOTIFIED_PER_INTERVAL: u64 = 3;
/// Stalls that are remembered.
const STALLS_MAX: usize = 16;
/// Stacks sampled in one check, however many loops stall together.
const STACKS_MAX: usize = 8;
/// Clocks that are read further apart than this do not show one moment.
const READ_MS_MAX: u64 = 100;
/// How long [`WatchHandle`] waits for the thread to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The running watchdog and prober; dropping it ends their threads.
#[derive(Debug)]
pub struct WatchHandle {
    watch: Watch,
    stop: Arc<AtomicBool>,
    /// Closed when both threads have ended.
    ended: Receiver<()>,
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.watch.wake();
        self.watch.set_diagnostics(None);
        if self.ended.recv_timeout(END_TIMEOUT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the threads of the watchdog did not end in time");
        }
    }
}

impl Watch {
    /// Starts the threads of the watchdog and of the prober; they end when the handle is dropped. `diagnostics` is the `vitals` of `/watch`, such as
    /// [`control::GatewayVitals`], and must not block. Without `sampler` there are no stacks.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<D: Serialize>(
        &self,
        sampler: impl Into<Option<SelfSampler>>,
        diagnostics: impl Fn() -> D + Send + Sync + 'static,
    ) -> io::Result<WatchHandle> {
        if let Some(sampler) = sampler.into() {
            // A second start keeps the sampler of the first.
            self.0.sampler.set(sampler).ok();
        }
        self.set_diagnostics(Some(Arc::new(move || to_json(&diagnostics()))));
        spawn(self.clone())
    }
}

fn spawn(watch: Watch) -> io::Result<WatchHandle> {
    let stop = Arc::new(AtomicBool::new(false));
    let (end, ended) = sync_channel::<()>(1);
    let handle = WatchHandle { watch: watch.clone(), stop, ended };
    let (stop_requested, shared, of_prober) = (Arc::clone(&handle.stop), watch.clone(), end.clone());
    let work = move || {
        // Dropped with the thread, which the handle waits for.
        let _end = end;
        Watchdog::new(shared).run(&stop_requested);
    };
    let watchdog = std::thread::Builder::new().name("watchdog".to_owned()).spawn(work)?;
    watch.threads().push(watchdog.thread().clone());
    let (stop_requested, shared) = (Arc::clone(&handle.stop), watch.clone());
    let work = move || {
        let _end = of_prober;
        ListenerProber::new(shared).run(&stop_requested);
    };
    let prober = std::thread::Builder::new().name("prober".to_owned()).spawn(work)?;
    watch.threads().push(prober.thread().clone());
    Ok(handle)
}

struct Watchdog {
    watch: Watch,
    detector: StallDetector,
    /// How often systemd is notified; `None` without a watchdog in its unit.
    notify_every_ms: Option<u64>,
    notified_ms: u64,
    lags: RecordedLags,
}

/// A job for a pool that does nothing but finish.
struct PoolProbe {
    entry: Arc<WatchEntry>,
    watch: Watch,
    sent_ms: u64,
    finished: bool,
}

impl PoolProbe {
    fn finish(mut self) {
        self.finished = true;
        self.entry.set_idle(now_ms().saturating_sub(self.sent_ms));
    }
}

impl Drop for PoolProbe {
    fn drop(&mut self) {
        if !self.finished {
            // The runtime has ended, and its pool with it.
            self.watch.pools().retain(|pool| !Arc::ptr_eq(&pool.entry, &self.entry));
            self.watch.unregister(&self.entry);
        }
    }
}

impl Watchdog {
    fn new(watch: Watch) -> Self {
        let notify_every_ms = notify::watchdog_interval()
            .map(|every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX) / NOTIFIED_PER_INTERVAL);
        Self {
            watch,
            detector: StallDetector::default(),
            notify_every_ms,
            notified_ms: 0,
            lags: RecordedLags::default(),
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        self.watch.0.watchdog.tid.store(this_thread(), Relaxed);
        while !stop.load(Relaxed) {
            // A panic in one check must not end the watchdog.
            let checked = catch_unwind(AssertUnwindSafe(|| self.check_all()));
            if checked.is_err() {
                self.detector = StallDetector::default();
            }
            park_until_next_check();
        }
    }

    fn check_all(&mut self) {
        self.watch.looks();
        self.send_probes();
        let entries = self.watch.entries().clone();
        let now = read_clocks();
        let samples: Vec<_> = entries.iter().map(|entry| entry.sample(now.monotonic)).collect();
        self.lags.record(now.monotonic, &entries, &samples);
        let events = self.detector.check(now, &samples);
        for entry in &entries {
            entry.lag_ms_max.store(self.detector.lag_ms_max(entry.number), Relaxed);
            entry.stalled.store(self.detector.is_stalled(entry.number), Relaxed);
        }
        black_box::watchdog_looked();
        let mut stacks_left = STACKS_MAX;
        for event in events {
            recorded::record(&event, &entries);
            self.report(event, &entries, &mut stacks_left);
            self.watch.looks();
        }
        self.notify_systemd(now.monotonic, &entries);
        if self.watch.0.dump_requested.swap(false, Relaxed) {
            self.watch.sampled(|| dump::log_dump(&self.watch));
        }
        self.detector.worked(now_ms() - now.monotonic);
    }

    fn report(&self, event: WatchEvent, entries: &[Arc<WatchEntry>], stacks_left: &mut usize) {
        let entry = |number| entries.iter().find(|entry| entry.number == number);
        match event {
            WatchEvent::StallBegan { number, began_ms, silent_ms } => {
                if let Some(entry) = entry(number) {
                    self.report_stall(entry, began_ms, silent_ms, stacks_left);
                }
            }
            WatchEvent::StallContinues { number, silent_ms } => {
                let known = self.watch.history().stalls.iter().find(|stall| stall.number == number).cloned();
                if let Some(StallRecord { name, kind, tid, culprit, .. }) = known {
                    let (kind, culprit) = (kind.as_str(), culprit.as_deref());
                    tracing::warn!("loop" = %name, kind, tid, stalled_ms = silent_ms, blame = culprit, "an event loop is still stalled");
                }
            }
            WatchEvent::StallEnded { number, lasted_ms } => {
                let mut history = self.watch.history();
                let stall = history
                    .stalls
                    .iter_mut()
                    .find(|stall| stall.number == number && stall.lasted_ms.is_none());
                let Some(stall) = stall else { return };
                stall.lasted_ms = Some(lasted_ms);
                let (name, kind, tid) = (Arc::clone(&stall.name), stall.kind.as_str(), stall.tid);
                drop(history);
                tracing::info!("loop" = %name, kind, tid, lasted_ms, "an event loop recovered");
            }
            WatchEvent::ProcessPaused { ms } => {
                self.watch.history().pauses.record(ms.cast_signed());
                tracing::info!(
                    paused_ms = ms,
                    "the whole process was paused: stopped, suspended with the machine, or without CPU"
                );
            }
            WatchEvent::ClockJumped { ms } => {
                self.watch.history().clock_jumps.record(ms);
                tracing::warn!(jumped_ms = ms, "the wall clock jumped");
            }
        }
    }

    /// Records a stall for the admin socket first, then logs it: the log itself may be stuck.
    fn report_stall(&self, entry: &WatchEntry, began_ms: u64, silent_ms: u64, stacks_left: &mut usize) {
        entry.stalls.fetch_add(1, Relaxed);
        let (tid, work) = self.find_culprit(entry);
        let WatchEntry { number, name, kind, .. } = entry;
        let stall = StallRecord {
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
            let mut history = self.watch.history();
            history.stalls_total += 1;
            history.stalls.push_front(stall);
            history.stalls.truncate(STALLS_MAX);
        }
        let may_sample = *stacks_left > 0 && tid != 0;
        let sampler = self.watch.0.sampler.get().filter(|_| may_sample);
        let thread = sampler.and_then(|sampler| self.watch.sampled(|| sampler.one(tid)));
        *stacks_left -= usize::from(may_sample);
        let culprit = thread.as_ref().and_then(stacks::ThreadStack::culprit).map(dump::location);
        {
            let mut history = self.watch.history();
            let known =
                history.stalls.iter_mut().find(|stall| stall.number == *number && stall.lasted_ms.is_none());
            if let Some(stall) = known {
                stall.culprit.clone_from(&culprit);
            }
        }
        let (what, of) = (work.as_ref().map(|work| work.what), work.as_ref().map(|work| &*work.of));
        let (kind, culprit) = (kind.as_str(), culprit.as_deref());
        let stack = thread.as_ref().map(dump::one_line);
        recorded::record_stall(&self.watch, entry, tid, silent_ms, work.as_ref(), culprit, stack.as_deref());
        tracing::warn!(
            "loop" = %name, kind, tid, stalled_ms = silent_ms, work = what, of, blame = culprit, stack,
            "an event loop stalled"
        );
    }

    /// The thread of the loop; for a pool, the thread that has been busy the longest.
    fn find_culprit(&self, entry: &WatchEntry) -> (i32, Option<work::CurrentTask>) {
        let workers = work::busy_workers();
        let culprit = if entry.kind == WatchKind::Pool {
            let loops: Vec<i32> = self.watch.entries().iter().map(|entry| entry.tid).collect();
            workers.into_iter().find(|worker| !loops.contains(&worker.tid))
        } else {
            workers.into_iter().find(|worker| worker.tid == entry.tid)
        };
        match culprit {
            Some(BusyWorker { tid, work, .. }) => (tid, Some(work)),
            None => (entry.tid, None),
        }
    }

    fn send_probes(&self) {
        let now = now_ms();
        let mut due = Vec::new();
        for pool in self.watch.pools().iter_mut() {
            if pool.entry.idle.load(Acquire) && pool.sent_ms + PROBE_EVERY_MS <= now {
                pool.sent_ms = now;
                due.push((Arc::clone(&pool.entry), pool.handle.clone()));
            }
        }
        for (entry, handle) in due {
            entry.set_busy();
            let probe = PoolProbe { entry, watch: self.watch.clone(), sent_ms: now, finished: false };
            drop(handle.spawn_blocking(move || probe.finish()));
        }
    }

    /// Sends `WATCHDOG=1` unless something is stalled or a listener has been mute for as long as systemd waits. A stalled
    /// admin loop is exempt: it may be busy with a stack dump, which is not a reason to kill the process.
    fn notify_systemd(&mut self, now_ms: u64, entries: &[Arc<WatchEntry>]) {
        let Some(every) = self.notify_every_ms else { return };
        let is_admin =
            |number| entries.iter().any(|entry| entry.number == number && entry.kind == WatchKind::Admin);
        let is_mute = || self.watch.has_mute_listener(every.saturating_mul(NOTIFIED_PER_INTERVAL));
        if now_ms - self.notified_ms >= every && !self.detector.any_stalled(is_admin) && !is_mute() {
            self.notified_ms = now_ms;
            notify::watchdog();
        }
    }
}

impl WatchEntry {
    fn sample(&self, now_ms: u64) -> Sample {
        let beat_ms = self.progress_ms(now_ms);
        Sample { number: self.number, beat_ms, lag_ms_max: self.unread_lag_ms_max.swap(0, Relaxed) }
    }
}

impl RareEvent {
    fn record(&mut self, ms: i64) {
        *self = Self { count: self.count + 1, last_ms: ms, at_ms: now_ms() };
    }
}

/// All clocks at one moment; they are read again if the process was stopped in between.
fn read_clocks() -> ClockReadings {
    loop {
        let before = millis(clock_gettime(ClockId::Boottime));
        let wall = clock_gettime(ClockId::Realtime);
        let monotonic = now_ms();
        let boot = millis(clock_gettime(ClockId::Boottime));
        if boot - before < READ_MS_MAX {
            let wall = wall.tv_sec * 1000 + wall.tv_nsec / 1_000_000 + ahead_ms();
            return ClockReadings { monotonic, boot, wall };
        }
    }
}

fn park_until_next_check() {
    std::thread::park_timeout(Duration::from_millis(CHECK_EVERY_MS));
}
