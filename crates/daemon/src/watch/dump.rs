//! Stacks and diagnostics as text, for the log and for `/stacks`.

use std::fmt::Write as _;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use stacks::{StackDump, StackFrame, ThreadStack};

use super::Watch;
use crate::json::to_json;
use crate::logs;
use crate::work::{self, BusyWorker};

/// Frames in the log line of a stall.
const FRAMES_MAX: usize = 40;
/// How long a dump waits for the diagnostics.
const DIAGNOSTICS_TIMEOUT: Duration = Duration::from_secs(1);

/// The function of a frame with its file and line, or else its module.
pub(super) fn location(frame: &StackFrame) -> String {
    let function = frame.function.as_deref().unwrap_or("an unknown function");
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{function} at {file}:{line}"),
        _ => format!("{function} in {}", frame.module),
    }
}

/// The stack on one line, innermost frame first.
pub(super) fn one_line(thread: &ThreadStack) -> String {
    let mut frames: Vec<_> = thread.frames.iter().take(FRAMES_MAX).map(location).collect();
    if thread.frames.len() > FRAMES_MAX {
        frames.push("…".to_owned());
    }
    frames.extend(thread.missing.as_ref().map(|reason| format!("({reason})")));
    frames.join(" < ")
}

/// The stacks in the style of a JVM thread dump, each with the thread's current task.
pub(crate) fn stacks_text(capture: &StackDump) -> String {
    let workers = work::busy_workers();
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

/// Logs all stacks and the diagnostics, one line each; called on the watchdog's thread.
pub(super) fn log_dump(watch: &Watch) {
    if !logs::has_room_for_a_dump() {
        tracing::warn!("skipped a dump: the output of the log has not taken the ones before it");
        return;
    }
    match watch.0.sampler.get() {
        Some(sampler) => {
            let capture = watch.sampled(|| sampler.all());
            let (threads, took_ms) = (capture.threads.len(), u64::try_from(capture.took.as_millis()).ok());
            tracing::info!(threads, took_ms, "dump of all stacks");
            for line in stacks_text(&capture).lines().filter(|line| !line.is_empty()) {
                tracing::info!("{line}");
                watch.looks();
            }
        }
        None => tracing::info!(
            "dump without stacks: the signal handler for them could not be installed at the start"
        ),
    }
    let report = watch.report();
    let (reply, answer) = sync_channel(1);
    // The receiver is gone if they come too late.
    watch.request_diagnostics(move |diagnostics| drop(reply.try_send(diagnostics)));
    let diagnostics = answer.recv_timeout(DIAGNOSTICS_TIMEOUT);
    if diagnostics.is_err() {
        tracing::info!("diagnostics unavailable: timed out");
    }
    for value in std::iter::once(to_json(&report)).chain(diagnostics) {
        for (part, state) in value.as_object().into_iter().flatten() {
            tracing::info!(part, %state, "state");
        }
    }
    tracing::info!("end of the dump");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_lines_of_a_dump_have_the_target_that_no_filter_hides() {
        assert_eq!(module_path!(), format!("{}::tests", crate::logs::DUMP_TARGET));
    }
}
