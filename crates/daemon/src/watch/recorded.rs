//! What the watchdog notices, for the black box.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use control::black_box::{BlackBoxEvent, LoopLag, StallBeginning, ThreadPlace};
use stacks::{StackDump, ThreadStack};

use super::detector::{Sample, WatchEvent};
use super::{Watch, WatchEntry, dump, now_ms};
use crate::black_box;
use crate::work::CurrentTask;

/// How often the lags of all loops are recorded.
const LAGS_EVERY_MS: u64 = 5_000;
/// How often late loops are recorded at most: on a busy machine some loop is late at every check.
const LATE_EVERY_MS: u64 = 1_000;
/// Loops in one record.
const LOOPS_MAX: usize = 64;
/// How often all stacks are recorded at most: capturing them stops each thread for a moment.
const STACKS_EVERY_MS: u64 = 30_000;
/// Threads in a record of all stacks.
const THREADS_MAX: usize = 40;
/// Longest text of a frame, characters.
const FRAME_CHARS_MAX: usize = 300;
/// Longest stack on one line, characters.
const STACK_CHARS_MAX: usize = 2_000;

/// The lags since they were last recorded.
#[derive(Debug, Default)]
pub(super) struct RecordedLags {
    all: LagWindow,
    late: LagWindow,
}

/// The maximum lag by the number of the loop.
#[derive(Debug, Default)]
struct LagWindow {
    due_ms: u64,
    worst: Vec<(u64, u64)>,
}

impl LagWindow {
    fn add(&mut self, sample: &Sample) {
        match self.worst.iter_mut().find(|(number, _)| *number == sample.number) {
            Some((_, worst)) => *worst = sample.lag_ms_max.max(*worst),
            None => self.worst.push((sample.number, sample.lag_ms_max)),
        }
    }

    /// The lags of the loops that still exist, if it is time to record them and there are any.
    fn take(&mut self, now_ms: u64, every_ms: u64, entries: &[Arc<WatchEntry>]) -> Option<Vec<LoopLag>> {
        if now_ms < self.due_ms || self.worst.is_empty() {
            return None;
        }
        self.due_ms = now_ms + every_ms;
        let worst = std::mem::take(&mut self.worst);
        let of = |entry: &Arc<WatchEntry>| {
            let (_, ms) = worst.iter().find(|(number, _)| *number == entry.number)?;
            Some(LoopLag { name: Arc::clone(&entry.name), ms: *ms })
        };
        Some(entries.iter().filter_map(of).take(LOOPS_MAX).collect())
    }
}

impl RecordedLags {
    /// Records the loops that were late within the last second, and all loops every few seconds.
    pub(super) fn record(&mut self, now_ms: u64, entries: &[Arc<WatchEntry>], samples: &[Sample]) {
        if !black_box::is_on() {
            return;
        }
        for sample in samples {
            self.all.add(sample);
            if sample.lag_ms_max > black_box::LONG_MS {
                self.late.add(sample);
            }
        }
        if let Some(loops) = self.late.take(now_ms, LATE_EVERY_MS, entries) {
            black_box::record(BlackBoxEvent::Late { loops });
        }
        if let Some(loops) = self.all.take(now_ms, LAGS_EVERY_MS, entries) {
            black_box::record(BlackBoxEvent::Loops { loops });
        }
    }
}

/// Records an event of the detector; the beginning of a stall is recorded with its stack.
pub(super) fn record(event: &WatchEvent, entries: &[Arc<WatchEntry>]) {
    let name = |number: &u64| {
        let entry = entries.iter().find(|entry| entry.number == *number);
        entry.map_or_else(|| Arc::from("a loop that has ended"), |entry| Arc::clone(&entry.name))
    };
    black_box::record(match event {
        WatchEvent::StallBegan { .. } => return,
        WatchEvent::StallContinues { number, silent_ms } => {
            BlackBoxEvent::StallContinues { name: name(number), silent_ms: *silent_ms }
        }
        WatchEvent::StallEnded { number, lasted_ms } => {
            BlackBoxEvent::StallEnded { name: name(number), lasted_ms: *lasted_ms }
        }
        WatchEvent::ProcessPaused { ms } => BlackBoxEvent::ProcessPaused { ms: *ms },
        WatchEvent::ClockJumped { ms } => BlackBoxEvent::ClockJumped { ms: *ms },
    });
}

/// Records the beginning of a stall, and the stacks of all threads a moment later.
pub(super) fn record_stall(
    watch: &Watch,
    entry: &WatchEntry,
    tid: i32,
    silent_ms: u64,
    work: Option<&CurrentTask>,
    culprit: Option<&str>,
    stack: Option<&str>,
) {
    if !black_box::is_on() {
        return;
    }
    black_box::record(BlackBoxEvent::StallBegan(Box::new(StallBeginning {
        name: Arc::clone(&entry.name),
        kind: entry.kind,
        tid,
        silent_ms,
        work: work.map(|work| match &*work.of {
            "" => work.what.to_owned(),
            of => format!("{} of {of}", work.what),
        }),
        culprit: culprit.map(|at| cut(at, FRAME_CHARS_MAX)),
        stack: stack.map(|stack| cut(stack, STACK_CHARS_MAX)),
    })));
    /// When all stacks were last recorded.
    static STACKS_MS: AtomicU64 = AtomicU64::new(0);
    let (now, last) = (now_ms(), STACKS_MS.load(Relaxed));
    if last == 0 || now.saturating_sub(last) >= STACKS_EVERY_MS {
        STACKS_MS.store(now, Relaxed);
        // On a thread of its own, so that the watchdog goes on.
        watch.request_stacks(|dump| black_box::record(places(&dump)));
    }
}

/// One frame of each thread: that of our own code, if there is one.
fn places(dump: &StackDump) -> BlackBoxEvent {
    let place = |thread: &ThreadStack| {
        let at = cut(&dump::location(thread.culprit()?), FRAME_CHARS_MAX);
        Some(ThreadPlace { tid: thread.tid, name: thread.name.clone(), at })
    };
    let at_work = dump.threads.iter().filter(|thread| !thread.is_idle());
    let threads: Vec<_> = at_work.filter_map(place).take(THREADS_MAX).collect();
    let idle = dump.threads.len().saturating_sub(threads.len()) as u64;
    BlackBoxEvent::Stacks { threads, idle }
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
