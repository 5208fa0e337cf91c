//! The records as text, one line each.

use std::{sync::Arc, time::Duration};

use control::black_box::{BlackBoxEvent, LoopLag, StallBeginning, ThreadPlace};

use super::{OpenStall, TimedRecord};
use crate::out::{safe, whole};

/// Loops in one line.
const LOOPS_SHOWN: usize = 8;
/// Threads in the line of a stack dump.
const THREADS_SHOWN: usize = 12;

pub(super) fn duration(ms: u64) -> String {
    notation::approximate(Duration::from_millis(ms))
}

/// `worker-0 had been blocked for 12s in FUNCTION at FILE:LINE, working on GET /x of 192.0.2.1`
pub(super) fn open_stall(stall: &OpenStall) -> String {
    let OpenStall { lasted_ms, beginning } = stall;
    format!("{} had been blocked for {}{}", safe(&beginning.name), duration(*lasted_ms), place(beginning))
}

fn place(stall: &StallBeginning) -> String {
    let at = stall.culprit.as_deref().map(|at| format!(" in {}", whole(at))).unwrap_or_default();
    let work = stall.work.as_deref().map(|work| format!(", working on {}", whole(work))).unwrap_or_default();
    format!("{at}{work}")
}

/// `2026-01-02T03:04:05.678Z 12s ago  a stall of worker-0 began …`
pub(crate) fn describe(timed: &TimedRecord) -> String {
    let TimedRecord { at, ms_ago, record } = timed;
    format!("{at} {:>9}  {}", format!("{} ago", duration(*ms_ago)), event(&record.event))
}

fn event(event: &BlackBoxEvent) -> String {
    match event {
        BlackBoxEvent::Ready => "ready".to_owned(),
        BlackBoxEvent::Loops { loops } => format!("lags at most: {}", lags(loops)),
        BlackBoxEvent::Counts { counts } => {
            let counts: Vec<_> = counts.iter().map(|(name, n)| format!("{} {n}", safe(name))).collect();
            counts.join(", ")
        }
        BlackBoxEvent::Late { loops } => format!("late: {}", lags(loops)),
        BlackBoxEvent::Task { thread, what, of, ms } => {
            format!("{} was busy for {}: {} {}", safe(thread), duration(*ms), safe(what), safe(of))
        }
        BlackBoxEvent::Commit { visits, queued, ms } => {
            format!("committed {visits} visits in {}, {queued} queued", duration(*ms))
        }
        BlackBoxEvent::VisitBegan { source } => format!("visit of {} began", safe(source)),
        BlackBoxEvent::VisitEnded { source, outcome, ms } => {
            format!("visit of {} ended: {}, {}", safe(source), safe(outcome), duration(*ms))
        }
        BlackBoxEvent::StallBegan(stall) => stall_began(stall),
        BlackBoxEvent::StallContinues { name, silent_ms } => {
            format!("{} is still stalled, for {}", safe(name), duration(*silent_ms))
        }
        BlackBoxEvent::StallEnded { name, lasted_ms } => {
            format!("{} continued after {}", safe(name), duration(*lasted_ms))
        }
        BlackBoxEvent::Stacks { threads, idle } => stacks(threads, *idle),
        other => rare(other),
    }
}

fn rare(event: &BlackBoxEvent) -> String {
    match event {
        BlackBoxEvent::ProcessPaused { ms } => {
            format!("the whole process did not run for {}", duration(*ms))
        }
        BlackBoxEvent::ClockJumped { ms } => {
            let direction = if *ms < 0 { "back" } else { "ahead" };
            format!("the wall clock was set {direction} by {}", duration(ms.unsigned_abs()))
        }
        BlackBoxEvent::RecordingPaused { reason } => format!("recording paused: {}", safe(reason)),
        BlackBoxEvent::RecordingResumed { reason } => format!("recording resumed: {}", safe(reason)),
        BlackBoxEvent::Signal { name } => format!("{} arrived", safe(name)),
        BlackBoxEvent::Reload { taken: true } => "reload: the configuration was taken".to_owned(),
        BlackBoxEvent::Reload { taken: false } => "reload: the old configuration was kept".to_owned(),
        BlackBoxEvent::Log { level, text } => format!("log {:5} {}", safe(level), whole(text)),
        BlackBoxEvent::Dropped { records } => format!("{records} records did not fit and are missing here"),
        BlackBoxEvent::Ended { exit, error } => {
            let error = error.as_deref().map(|error| format!(": {}", whole(error))).unwrap_or_default();
            format!("ended with exit code {exit}{error}")
        }
        _ => "an event of another version".to_owned(),
    }
}

fn stall_began(stall: &StallBeginning) -> String {
    let StallBeginning { name, kind, tid, silent_ms, stack, .. } = stall;
    let stack = stack.as_deref().map(|stack| format!("; stack {}", whole(stack))).unwrap_or_default();
    format!(
        "STALL of {} ({}, thread {tid}) for {}{}{stack}",
        safe(name),
        kind.as_str(),
        duration(*silent_ms),
        place(stall)
    )
}

fn lags(loops: &[LoopLag]) -> String {
    let mut loops: Vec<(&Arc<str>, u64)> = loops.iter().map(|lag| (&lag.name, lag.ms)).collect();
    loops.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
    let more = loops.len().saturating_sub(LOOPS_SHOWN);
    let mut shown: Vec<_> =
        loops.iter().take(LOOPS_SHOWN).map(|(name, ms)| format!("{} {ms} ms", safe(name))).collect();
    shown.extend((more > 0).then(|| format!("and {more} more")));
    shown.join(", ")
}

fn stacks(threads: &[ThreadPlace], idle: u64) -> String {
    let shown = threads.iter().take(THREADS_SHOWN);
    let mut shown: Vec<_> =
        shown.map(|thread| format!("{} in {}", safe(&thread.name), whole(&thread.at))).collect();
    let others = idle.saturating_add(threads.len().saturating_sub(THREADS_SHOWN) as u64);
    shown.extend((others > 0).then(|| format!("{others} others")));
    format!("all stacks: {}", shown.join("; "))
}
