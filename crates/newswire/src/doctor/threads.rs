//! The stacks of a process, with the task of each thread: captured by the process itself if it answers, which needs no
//! privilege, else from outside, which also works for a frozen process.

use std::{collections::HashMap, path::Path, time::Duration};

use control::{WatchReport, watch::TaskReport};
use serde::Serialize;
use stacks::{StackDump, StackFrame, ThreadStack};
use tokio::time::Instant;

use super::{admin, part::Part, second_look};
use crate::within;

/// Threads that observe the others; `stacks` and `vitals` run because of our requests. While the process reports that they
/// make progress, none of them is the culprit.
const OBSERVERS: [&str; 5] = ["watchdog", "prober", "stacks", "vitals", "black-box"];

/// How long a capture from outside may take, and at least: it has a deadline of its own, but not while the memory of the process
/// is locked, nor for its symbols, which take seconds on a machine without a free processor.
const OUTSIDE_WITHIN: Duration = Duration::from_secs(5);
const OUTSIDE_WITHIN_MIN: Duration = Duration::from_secs(1);

/// All threads, the most suspicious first.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stacks {
    /// `inside`, `outside`, or `both`.
    pub(crate) from: &'static str,
    pub(crate) took_ms: u64,
    pub(crate) longest_pause_ms: u64,
    pub(crate) threads: Vec<ExaminedThread>,
}

/// One thread, with what its process reports about it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ExaminedThread {
    #[serde(flatten)]
    pub(crate) thread: ThreadStack,
    /// Whether it waits for work.
    pub(crate) idle: bool,
    /// Whether its loop is stalled.
    pub(crate) stalled: bool,
    /// The name of its loop.
    #[serde(rename = "loop")]
    pub(crate) loop_name: Option<String>,
    pub(crate) work: Option<TaskReport>,
    /// The frame that most likely blocks it.
    pub(crate) culprit: Option<String>,
}

impl Stacks {
    pub(crate) fn of(&self, tid: i32) -> Option<&ExaminedThread> {
        self.threads.iter().find(|examined| examined.thread.tid == tid)
    }
}

/// Captures the stacks from inside if the process answers, and from outside what is missing then, by `until`.
pub(crate) async fn capture(
    pid: Option<i32>,
    socket: &Path,
    watch: Option<&WatchReport>,
    until: Instant,
) -> Part<Stacks> {
    let inside = match watch {
        Some(_) => admin::stacks(socket).await,
        None => Part::missing("its admin socket does not answer"),
    };
    let incomplete = |dump: &StackDump| dump.threads.iter().any(|thread| thread.frames.is_empty());
    match inside {
        Part::Found(mut dump) if incomplete(&dump) => {
            let outside = from_outside(pid, until).await.ok();
            let from = if outside.is_some() { "both" } else { "inside" };
            if let Some(outside) = outside {
                fill_in(&mut dump, outside);
            }
            Part::Found(merge(dump, from, watch))
        }
        Part::Found(dump) => Part::Found(merge(dump, "inside", watch)),
        Part::Missing { missing: inside, .. } => match from_outside(pid, until).await {
            Ok(dump) => Part::Found(merge(dump, "outside", watch)),
            Err(outside) => Part::missing(format!("from inside: {inside}; from outside: {outside}")),
        },
    }
}

async fn from_outside(pid: Option<i32>, until: Instant) -> Result<StackDump, String> {
    let pid = pid.ok_or("its process is unknown")?;
    let limit = until.saturating_duration_since(Instant::now()).clamp(OUTSIDE_WITHIN_MIN, OUTSIDE_WITHIN);
    match within::later(limit, move || stacks::of_process(pid)).await {
        Some(captured) => captured.map_err(|error| error.to_string()),
        None => Err(format!("they were not complete within {} s", limit.as_secs())),
    }
}

/// Adds the stacks from outside of threads that did not answer inside.
fn fill_in(dump: &mut StackDump, outside: StackDump) {
    let mut outside: HashMap<_, _> = outside.threads.into_iter().map(|thread| (thread.tid, thread)).collect();
    for thread in dump.threads.iter_mut().filter(|thread| thread.frames.is_empty()) {
        if let Some(better) = outside.remove(&thread.tid).filter(|better| !better.frames.is_empty()) {
            *thread = better;
        }
    }
}

fn merge(dump: StackDump, from: &'static str, watch: Option<&WatchReport>) -> Stacks {
    let mut threads: Vec<_> = dump.threads.into_iter().map(|thread| describe(thread, watch)).collect();
    threads.sort_by_key(|examined| {
        // Without a report of the process, an observer at work looks like one that is stuck.
        let observes = OBSERVERS.contains(&examined.thread.name.as_str());
        (!examined.stalled, examined.idle, observes, examined.work.is_none(), examined.thread.tid)
    });
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Stacks { from, took_ms: millis(dump.took), longest_pause_ms: millis(dump.longest_pause), threads }
}

fn describe(thread: ThreadStack, watch: Option<&WatchReport>) -> ExaminedThread {
    let its_loop = watch.and_then(|watch| watch.progress.loops.iter().find(|l| l.tid == thread.tid));
    let busy = watch.and_then(|watch| watch.progress.threads.iter().find(|busy| busy.tid == thread.tid));
    let work = its_loop.and_then(|l| l.work.clone()).or_else(|| busy.map(|busy| busy.work.clone()));
    let stalled = its_loop.is_some_and(|l| l.stalled)
        || watch.is_some_and(|watch| observer_is_stuck(watch, thread.tid));
    let observes = watch.is_some() && OBSERVERS.contains(&thread.name.as_str());
    let idle = (thread.is_idle() || observes) && !stalled;
    // The task was read before the stack: an idle thread has finished it since.
    let work = work.filter(|_| !idle);
    let culprit = thread.culprit().map(location);
    ExaminedThread { idle, stalled, loop_name: its_loop.map(|l| l.name.clone()), work, culprit, thread }
}

/// Whether the thread is the watchdog or one that reads for the admin socket, and makes no progress.
fn observer_is_stuck(watch: &WatchReport, tid: i32) -> bool {
    let progress = &watch.progress;
    let is_watchdog = progress.watchdog.is_some_and(|watchdog| watchdog.tid == tid);
    (is_watchdog && second_look::watchdog_is_stuck(watch))
        || progress.observers.iter().any(|observer| observer.tid == tid && second_look::is_stuck(observer))
}

/// `function at file:line`, as far as known.
pub(crate) fn location(frame: &StackFrame) -> String {
    let mut text = frame.function.clone().unwrap_or_else(|| format!("{}+{:#x}", frame.module, frame.address));
    if let Some(file) = &frame.file {
        text.push_str(&format!(" at {file}"));
        if let Some(line) = frame.line {
            text.push_str(&format!(":{line}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use control::watch::{ObserverReport, WatchdogReport};

    use super::*;

    fn frame(function: Option<&str>, file: Option<&str>, line: Option<u32>) -> StackFrame {
        StackFrame {
            address: 0x10,
            module: "newswire-gateway".into(),
            function: function.map(str::to_owned),
            file: file.map(str::to_owned),
            line,
            inlined: false,
        }
    }

    #[test]
    fn a_location_contains_what_is_known() {
        assert_eq!(location(&frame(Some("a::b"), Some("a/src/b.rs"), Some(7))), "a::b at a/src/b.rs:7");
        assert_eq!(location(&frame(Some("a::b"), None, None)), "a::b");
        assert_eq!(location(&frame(None, None, None)), "newswire-gateway+0x10");
    }

    #[test]
    fn a_thread_that_observes_the_others_is_idle_unless_stalled() {
        let thread = |name: &str, tid| ThreadStack {
            tid,
            name: name.into(),
            state: 'R',
            wchan: None,
            frames: vec![frame(Some("daemon::watch::thread::rest"), None, None)],
            missing: None,
        };
        let watch = r#"{"name":"testd","version":"1","pid":1,"uptime_ms":1,"threads":[],"stalls":[],"stalls_total":0,
            "clock":{"jumps":0},"pauses":{"count":0},"vitals":null,
            "loops":[{"name":"worker-0","kind":"worker","tid":2,"beat_ms_ago":9000,"lag_ms":0,"lag_ms_max":0,
                      "stalled":true,"work":{"what":"GET /","of":"","since_ms_ago":9000}}]}"#;
        let watch: WatchReport = serde_json::from_str(watch).unwrap();
        let mut watch = watch;
        for silent in [false, true] {
            watch.progress.watchdog = Some(WatchdogReport {
                tid: 1,
                looked_ms_ago: if silent { 60_000 } else { 100 },
                sampling: false,
            });
            let since_ms_ago = if silent { 60_000 } else { 100 };
            watch.progress.observers = vec![ObserverReport { name: "vitals".into(), tid: 3, since_ms_ago }];
            let watchdog = describe(thread("watchdog", 1), Some(&watch));
            let vitals = describe(thread("vitals", 3), Some(&watch));
            assert_eq!((watchdog.idle, watchdog.stalled), (!silent, silent));
            assert_eq!((vitals.idle, vitals.stalled), (!silent, silent));
            assert!(describe(thread("stacks", 4), Some(&watch)).idle, "it answers us");
        }
        assert!(!describe(thread("watchdog", 1), None).idle, "without a report it is not known");
        let worker = describe(thread("worker-0", 2), Some(&watch));
        assert!(!worker.idle && worker.stalled && worker.loop_name.as_deref() == Some("worker-0"));
        assert_eq!(worker.work.unwrap().what, "GET /");
    }

    #[test]
    fn the_stack_of_a_thread_that_did_not_answer_is_captured_from_outside() {
        let thread = |tid, frames: Vec<StackFrame>| ThreadStack {
            tid,
            name: "t".into(),
            state: 'S',
            wchan: None,
            frames,
            missing: None,
        };
        let dump = |threads| StackDump {
            pid: 1,
            threads,
            took: std::time::Duration::ZERO,
            longest_pause: std::time::Duration::ZERO,
        };
        let known = frame(Some("x"), None, None);
        let mut inside = dump(vec![thread(1, vec![known.clone()]), thread(2, vec![]), thread(3, vec![])]);
        let better = frame(Some("y"), None, None);
        fill_in(&mut inside, dump(vec![thread(1, vec![better.clone()]), thread(2, vec![better.clone()])]));
        let frames: Vec<_> = inside.threads.into_iter().map(|thread| thread.frames).collect();
        assert_eq!(frames, [vec![known], vec![better], vec![]]);
    }
}
