//! The stacks of a process with what each thread works on: from inside when it answers, which needs no privilege, else
//! from outside, which also sees a frozen one.

use std::{collections::HashMap, path::Path};

use serde::Serialize;
use stacks::{StackDump, StackFrame, ThreadStack};

use super::{
    admin::{self, Watch, Work},
    evidence::Part,
};

/// Threads that look at the others, of which the last two run while we ask: none of them is ever to blame.
const WATCHERS: [&str; 3] = ["watchdog", "stacks", "vitals"];

/// All threads, the ones to look at first.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stacks {
    /// `inside`, `outside`, or `both`.
    pub(crate) from: &'static str,
    pub(crate) took_ms: u64,
    pub(crate) longest_pause_ms: u64,
    pub(crate) threads: Vec<ThreadReport>,
}

/// One thread.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ThreadReport {
    #[serde(flatten)]
    pub(crate) thread: ThreadStack,
    /// It waits for work.
    pub(crate) idle: bool,
    /// Its loop does not beat.
    pub(crate) stalled: bool,
    /// The name of its loop.
    #[serde(rename = "loop")]
    pub(crate) loop_name: Option<String>,
    pub(crate) work: Option<Work>,
    /// The frame to blame.
    pub(crate) culprit: Option<String>,
}

impl Stacks {
    pub(crate) fn of(&self, tid: i32) -> Option<&ThreadReport> {
        self.threads.iter().find(|seen| seen.thread.tid == tid)
    }
}

/// Asks the process when it answers at all, and looks from outside at what that leaves open.
pub(crate) async fn take(pid: Option<i32>, socket: &Path, watch: Option<&Watch>) -> Part<Stacks> {
    let inside = match watch {
        Some(_) => admin::stacks(socket).await,
        None => Err("its admin socket does not answer".to_owned()),
    };
    let incomplete = |capture: &StackDump| capture.threads.iter().any(|thread| thread.frames.is_empty());
    match inside {
        Ok(mut capture) if incomplete(&capture) => {
            let outside = from_outside(pid).await.ok();
            let from = if outside.is_some() { "both" } else { "inside" };
            if let Some(outside) = outside {
                fill_in(&mut capture, outside);
            }
            Part::Found(merge(capture, from, watch))
        }
        Ok(capture) => Part::Found(merge(capture, "inside", watch)),
        Err(inside) => match from_outside(pid).await {
            Ok(capture) => Part::Found(merge(capture, "outside", watch)),
            Err(outside) => Part::missing(format!("from inside: {inside}; from outside: {outside}")),
        },
    }
}

async fn from_outside(pid: Option<i32>) -> Result<StackDump, String> {
    let pid = pid.ok_or("its process is not known")?;
    let taken = tokio::task::spawn_blocking(move || stacks::of_process(pid)).await;
    taken.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Threads that did not answer inside are taken from outside.
fn fill_in(capture: &mut StackDump, outside: StackDump) {
    let mut outside: HashMap<_, _> = outside.threads.into_iter().map(|thread| (thread.tid, thread)).collect();
    for thread in capture.threads.iter_mut().filter(|thread| thread.frames.is_empty()) {
        if let Some(better) = outside.remove(&thread.tid).filter(|better| !better.frames.is_empty()) {
            *thread = better;
        }
    }
}

fn merge(capture: StackDump, from: &'static str, watch: Option<&Watch>) -> Stacks {
    let mut threads: Vec<_> = capture.threads.into_iter().map(|thread| see(thread, watch)).collect();
    threads.sort_by_key(|seen| (!seen.stalled, seen.idle, seen.work.is_none(), seen.thread.tid));
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Stacks { from, took_ms: millis(capture.took), longest_pause_ms: millis(capture.longest_pause), threads }
}

fn see(thread: ThreadStack, watch: Option<&Watch>) -> ThreadReport {
    let its_loop = watch.and_then(|watch| watch.loops.iter().find(|l| l.tid == thread.tid));
    let busy = watch.and_then(|watch| watch.threads.iter().find(|busy| busy.tid == thread.tid));
    let work = its_loop.and_then(|l| l.work.clone()).or_else(|| busy.and_then(|busy| busy.work.clone()));
    let stalled = its_loop.is_some_and(|l| l.stalled);
    let idle = (thread.is_idle() || WATCHERS.contains(&thread.name.as_str())) && !stalled;
    // Work is noted while it is done, so what an idle thread worked on when it was asked is over.
    let work = work.filter(|_| !idle);
    let culprit = thread.culprit().map(place);
    ThreadReport { idle, stalled, loop_name: its_loop.map(|l| l.name.clone()), work, culprit, thread }
}

/// `function at file:line`, as far as it is known.
pub(crate) fn place(frame: &StackFrame) -> String {
    let mut place =
        frame.function.clone().unwrap_or_else(|| format!("{}+{:#x}", frame.module, frame.address));
    if let Some(file) = &frame.file {
        place.push_str(&format!(" at {file}"));
        if let Some(line) = frame.line {
            place.push_str(&format!(":{line}"));
        }
    }
    place
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
    fn a_place_says_what_is_known() {
        assert_eq!(place(&frame(Some("a::b"), Some("a/src/b.rs"), Some(7))), "a::b at a/src/b.rs:7");
        assert_eq!(place(&frame(Some("a::b"), None, None)), "a::b");
        assert_eq!(place(&frame(None, None, None)), "newswire-gateway+0x10");
    }

    #[test]
    fn who_looks_at_the_others_is_not_to_blame_unless_stalled() {
        let thread = |name: &str, tid| ThreadStack {
            tid,
            name: name.into(),
            state: 'R',
            wchan: None,
            frames: vec![frame(Some("daemon::watch::thread::rest"), None, None)],
            missing: None,
        };
        let watch = r#"{"loops":[{"name":"worker-0","tid":2,"stalled":true,"work":{"what":"GET /"}}]}"#;
        let watch: Watch = serde_json::from_str(watch).unwrap();
        assert!(see(thread("watchdog", 1), Some(&watch)).idle);
        let worker = see(thread("worker-0", 2), Some(&watch));
        assert!(!worker.idle && worker.stalled && worker.loop_name.as_deref() == Some("worker-0"));
        assert_eq!(worker.work.unwrap().what, "GET /");
    }

    #[test]
    fn a_thread_that_did_not_answer_inside_is_taken_from_outside() {
        let thread = |tid, frames: Vec<StackFrame>| ThreadStack {
            tid,
            name: "t".into(),
            state: 'S',
            wchan: None,
            frames,
            missing: None,
        };
        let capture = |threads| StackDump {
            pid: 1,
            threads,
            took: std::time::Duration::ZERO,
            longest_pause: std::time::Duration::ZERO,
        };
        let known = frame(Some("x"), None, None);
        let mut inside = capture(vec![thread(1, vec![known.clone()]), thread(2, vec![]), thread(3, vec![])]);
        let better = frame(Some("y"), None, None);
        fill_in(&mut inside, capture(vec![thread(1, vec![better.clone()]), thread(2, vec![better.clone()])]));
        let frames: Vec<_> = inside.threads.into_iter().map(|thread| thread.frames).collect();
        assert_eq!(frames, [vec![known], vec![better], vec![]]);
    }
}
