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
    due_ms: u64,
    worst: Vec<(u64, u64)>,
}

impl RecordedLags {
    /// Records the loops that were late at this check, and all loops every few seconds.
    pub(super) fn record(&mut self, now_ms: u64, entries: &[Arc<WatchEntry>], samples: &[Sample]) {
        if !black_box::is_on() {
            return;
        }
        let lag = |(entry, ms): (&Arc<WatchEntry>, u64)| LoopLag { name: Arc::clone(&entry.name), ms };
        let late = entries.iter().zip(samples.iter().map(|sample| sample.lag_ms_max));
        let late: Vec<_> = late.filter(|(_, ms)| *ms > black_box::LONG_MS).map(lag).take(LOOPS_MAX).collect();
        if !late.is_empty() {
            black_box::record(BlackBoxEvent::Late { loops: late });
        }
        self.worst.retain(|(number, _)| samples.iter().any(|sample| sample.number == *number));
        for sample in samples {
            match self.worst.iter_mut().find(|(number, _)| *number == sample.number) {
                Some((_, worst)) => *worst = sample.lag_ms_max.max(*worst),
                None => self.worst.push((sample.number, sample.lag_ms_max)),
            }
        }
        if now_ms < self.due_ms {
            return;
        }
        self.due_ms = now_ms + LAGS_EVERY_MS;
        let worst = std::mem::take(&mut self.worst);
        let of = |entry: &WatchEntry| worst.iter().find(|(number, _)| *number == entry.number);
        let all = entries.iter().filter_map(|entry| Some((entry, of(entry)?.1)));
        black_box::record(BlackBoxEvent::Loops { loops: all.map(lag).take(LOOPS_MAX).collect() });
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
