//! What the watchdog found: typed for the admin socket, and as text for the log and `/ready`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use control::watch::{
    ClockReport, LoopReport, PauseReport, ProgressReport, StallReport, TaskReport, ThreadReport,
};
use serde::Serialize;
use serde_json::Value;
use stacks::{StackDump, StackFrame, ThreadStack};

use super::{Entry, Odd, Stall, Watch, WatchKind, now_ms};
use crate::json::to_json;
use crate::work::{self, BusyWorker, CurrentTask};

/// Frames in the log line of a stall.
const FRAMES_MAX: usize = 40;
/// How long a dump waits for the vitals.
const VITALS_WITHIN: Duration = Duration::from_secs(1);

/// A loop that makes no progress, for `/ready`.
#[derive(Clone, Debug, Serialize)]
pub struct StalledLoop {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub kind: WatchKind,
    /// Always so.
    pub stalled: bool,
    /// How late its last beat was.
    pub lag_ms: u64,
    /// How long ago that was.
    pub beat_ms_ago: u64,
    /// The function that it is stuck in.
    pub culprit: Option<String>,
}

impl StalledLoop {
    /// In words.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut out = format!("{} has not answered for {} s", self.name, self.beat_ms_ago / 1000);
        if let Some(culprit) = &self.culprit {
            write!(out, " ({culprit})").expect("a String takes every write");
        }
        out
    }
}

impl Watch {
    /// The loops that make no progress now. Takes no lock that a stuck thread could hold.
    #[must_use]
    pub fn stalled(&self) -> Vec<StalledLoop> {
        let entries = self.entries().clone();
        let now = now_ms();
        let stalled = entries.into_iter().filter(|entry| entry.stalled.load(Relaxed));
        stalled
            .map(|entry| {
                let found = self.found();
                let stall = found.stalls.iter().find(|stall| stall.number == entry.number);
                StalledLoop {
                    name: Arc::clone(&entry.name),
                    kind: entry.kind,
                    stalled: true,
                    lag_ms: entry.lag_ms.load(Relaxed),
                    beat_ms_ago: now.saturating_sub(entry.beat_ms.load(Relaxed)),
                    culprit: stall.and_then(|stall| stall.culprit.clone()),
                }
            })
            .collect()
    }

    /// Everything of `GET /watch` that is not the vitals.
    pub(crate) fn report(&self) -> ProgressReport {
        let now = now_ms();
        let entries = self.entries().clone();
        let workers = work::everywhere();
        let is_loop = |tid| entries.iter().any(|entry| entry.tid == tid && entry.kind != WatchKind::Recorder);
        let threads = workers.iter().filter(|worker| !is_loop(worker.tid));
        let found = self.found();
        ProgressReport {
            loops: entries.iter().map(|entry| entry.report(now, &workers)).collect(),
            threads: threads.map(BusyWorker::report).collect(),
            stalls: found.stalls.iter().map(|stall| stall.report(now)).collect(),
            stalls_total: found.stalls_total,
            clock: found.clock.clock_report(now),
            pauses: found.pauses.pause_report(now),
        }
    }

    /// Asks for the vitals on a thread of their own, as nobody knows how long that takes; `answer` is dropped when there
    /// are none, or somebody still waits for earlier ones.
    pub(crate) fn ask_vitals(&self, answer: impl FnOnce(Value) + Send + 'static) {
        let watch = self.clone();
        ask("vitals", &self.0.asking_vitals, move || {
            if let Some(vitals) = watch.vitals() {
                answer(vitals());
            }
        });
    }

    /// The same for the stacks of all threads.
    pub(crate) fn ask_stacks(&self, answer: impl FnOnce(StackDump) + Send + 'static) {
        let watch = self.clone();
        ask("stacks", &self.0.asking_stacks, move || {
            if let Some(inside) = watch.0.inside.get() {
                answer(inside.all());
            }
        });
    }
}

/// On a thread of its own, unless the last one is still out.
fn ask(name: &str, out: &Arc<AtomicBool>, question: impl FnOnce() + Send + 'static) {
    struct Out(Arc<AtomicBool>);
    impl Drop for Out {
        fn drop(&mut self) {
            self.0.store(false, Release);
        }
    }
    if out.compare_exchange(false, true, AcqRel, Acquire).is_err() {
        return;
    }
    let out = Out(Arc::clone(out));
    let work = move || {
        let _out = out;
        question();
    };
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::debug!(%error, name, "could not start a thread");
    }
}

impl Entry {
    fn report(&self, now: u64, workers: &[BusyWorker]) -> LoopReport {
        let quiet = self.kind == WatchKind::Recorder && self.idle.load(Acquire);
        let beat_ms_ago = if quiet { 0 } else { now.saturating_sub(self.beat_ms.load(Relaxed)) };
        let work = workers.iter().find(|worker| worker.tid == self.tid).map(|worker| &worker.work);
        let lag_ms = self.lag_ms.load(Relaxed);
        LoopReport {
            name: self.name.to_string(),
            kind: self.kind,
            tid: self.tid,
            beat_ms_ago,
            lag_ms,
            lag_ms_max: self.lag_ms_max.load(Relaxed).max(lag_ms),
            stalled: self.stalled.load(Relaxed),
            work: work.map(CurrentTask::report),
        }
    }
}

impl BusyWorker {
    fn report(&self) -> ThreadReport {
        ThreadReport { tid: self.tid, name: self.name.to_string(), work: self.work.report() }
    }
}

impl CurrentTask {
    fn report(&self) -> TaskReport {
        let Self { what, of, since_ms_ago } = self;
        TaskReport { what: (*what).to_owned(), of: of.to_string(), since_ms_ago: *since_ms_ago }
    }
}

impl Stall {
    fn report(&self, now: u64) -> StallReport {
        StallReport {
            name: self.name.to_string(),
            kind: self.kind,
            tid: self.tid,
            began_ms_ago: now.saturating_sub(self.began_ms),
            lasted_ms: self.lasted_ms,
            work: self.work.as_ref().map(CurrentTask::report),
            culprit: self.culprit.clone(),
        }
    }
}

impl Odd {
    fn clock_report(&self, now: u64) -> ClockReport {
        let (last_ms, last_ms_ago) = self.last(now).unzip();
        ClockReport { jumps: self.count, last_ms, last_ms_ago }
    }

    fn pause_report(&self, now: u64) -> PauseReport {
        let (last_ms, last_ms_ago) = self.last(now).unzip();
        PauseReport { count: self.count, last_ms: last_ms.map(i64::unsigned_abs), last_ms_ago }
    }

    /// How long the last one was, and when; `None` if there was none.
    fn last(&self, now: u64) -> Option<(i64, u64)> {
        (self.count > 0).then(|| (self.last_ms, now.saturating_sub(self.at_ms)))
    }
}

/// A frame as the place to look at.
pub(super) fn place(frame: &StackFrame) -> String {
    let function = frame.function.as_deref().unwrap_or("an unknown function");
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{function} at {file}:{line}"),
        _ => format!("{function} in {}", frame.module),
    }
}

/// Innermost first.
pub(super) fn stack_in_a_line(thread: &ThreadStack) -> String {
    let mut frames: Vec<_> = thread.frames.iter().take(FRAMES_MAX).map(place).collect();
    if thread.frames.len() > FRAMES_MAX {
        frames.push("…".to_owned());
    }
    frames.extend(thread.missing.as_ref().map(|why| format!("({why})")));
    frames.join(" < ")
}

/// The threads as a dump of a JVM shows them, each with what it works for.
pub(crate) fn text(capture: &StackDump) -> String {
    let workers = work::everywhere();
    let mut out = String::new();
    for thread in &capture.threads {
        let shown = thread.to_string();
        let mut lines = shown.lines();
        if let Some(head) = lines.next() {
            out.push_str(head);
            out.push('\n');
        }
        if let Some(BusyWorker { work, .. }) = workers.iter().find(|worker| worker.tid == thread.tid) {
            let (what, of, since) = (work.what, &work.of, work.since_ms_ago);
            writeln!(out, "    works on: {what} {of} since {since} ms").expect("a String takes every write");
        }
        for line in lines {
            out.push_str(line);
            out.push('\n');
        }
        out.push('\n');
    }
    out
}

/// All stacks and the vitals to the log, one line each; called on the watchdog's thread.
pub(super) fn dump(watch: &Watch) {
    match watch.0.inside.get() {
        Some(inside) => {
            let capture = inside.all();
            let (threads, took_ms) = (capture.threads.len(), u64::try_from(capture.took.as_millis()).ok());
            tracing::info!(threads, took_ms, "dump of all stacks");
            for line in text(&capture).lines().filter(|line| !line.is_empty()) {
                tracing::info!("{line}");
            }
        }
        None => tracing::info!("dump without stacks: the system refused the signal for them at the start"),
    }
    let report = watch.report();
    let (tell, told) = sync_channel(1);
    // Nobody listens any more when it comes too late.
    watch.ask_vitals(move |vitals| drop(tell.try_send(vitals)));
    let vitals = told.recv_timeout(VITALS_WITHIN);
    if vitals.is_err() {
        tracing::info!("nobody told how the process fares");
    }
    for value in std::iter::once(to_json(&report)).chain(vitals) {
        for (part, state) in value.as_object().into_iter().flatten() {
            tracing::info!(part, %state, "state");
        }
    }
    tracing::info!("end of the dump");
}
