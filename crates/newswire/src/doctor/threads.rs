//! The stacks of a process, with the task of each thread: captured by the process itself if it answers, which needs no
//! privilege, else from outside, which also works for a frozen process.

use std::{collections::HashMap, path::Path};

use control::{WatchReport, watch::TaskReport};
use serde::Serialize;
use stacks::{StackDump, StackFrame, ThreadStack};

use super::{admin, part::Part};

/// Threads that observe the others; the last two run because of our requests. None of them is ever the culprit.
const OBSERVERS: [&str; 4] = ["watchdog", "stacks", "vitals", "black-box"];

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

/// Captures the stacks from inside if the process answers, and from outside what is missing then.
pub(crate) async fn capture(pid: Option<i32>, socket: &Path, watch: Option<&WatchReport>) -> Part<Stacks> {
    let inside = match watch {
        Some(_) => admin::stacks(socket).await,
        None => Part::missing("its admin socket does not answer"),
    };
    let incomplete = |dump: &StackDump| dump.threads.iter().any(|thread| thread.frames.is_empty());
    match inside {
        Part::Found(mut dump) if incomplete(&dump) => {
            let outside = from_outside(pid).await.ok();
            let from = if outside.is_some() { "both" } else { "inside" };
            if let Some(outside) = outside {
                fill_in(&mut dump, outside);
            }
            Part::Found(merge(dump, from, watch))
        }
        Part::Found(dump) => Part::Found(merge(dump, "inside", watch)),
        Part::Missing { missing: inside, .. } => match from_outside(pid).await {
            Ok(dump) => Part::Found(merge(dump, "outside", watch)),
            Err(outside) => Part::missing(format!("from inside: {inside}; from outside: {outside}")),
        },
    }
}

async fn from_outside(pid: Option<i32>) -> Result<StackDump, String> {
    let pid = pid.ok_or("its process is unknown")?;
    let captured = tokio::task::spawn_blocking(move || stacks::of_process(pid)).await;
    captured.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
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
        (!examined.stalled, examined.idle, examined.work.is_none(), examined.thread.tid)
    });
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Stacks { from, took_ms: millis(dump.took), longest_pause_ms: millis(dump.longest_pause), threads }
}

fn describe(thread: ThreadStack, watch: Option<&WatchReport>) -> ExaminedThread {
    let its_loop = watch.and_then(|watch| watch.progress.loops.iter().find(|l| l.tid == thread.tid));
    let busy = watch.and_then(|watch| watch.progress.threads.iter().find(|busy| busy.tid == thread.tid));
    let work = its_loop.and_then(|l| l.work.clone()).or_else(|| busy.map(|busy| busy.work.clone()));
    let stalled = its_loop.is_some_and(|l| l.stalled);
    let idle = (thread.is_idle() || OBSERVERS.contains(&thread.name.as_str())) && !stalled;
    // The task was read before the stack: an idle thread has finished it since.
    let work = work.filter(|_| !idle);
    let culprit = thread.culprit().map(location);
    ExaminedThread { idle, stalled, loop_name: its_loop.map(|l| l.name.clone()), work, culprit, thread }
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
        assert!(describe(thread("watchdog", 1), Some(&watch)).idle);
        assert!(describe(thread("black-box", 1), Some(&watch)).idle);
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
