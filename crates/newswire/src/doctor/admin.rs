//! What a process reports about itself over its admin socket.

use std::{collections::HashMap, path::Path, time::Duration};

use control::{
    ControlClient, ControlError, HealthReport, WatchReport, paths,
    watch::{LoopReport, TaskReport, WatchKind},
};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    part::{MissingCause, Part},
    process,
    second_look::needs_second_look,
};

/// A lag from which a loop is sampled for late beats.
pub(super) const LATE_MS: u64 = 250;
/// Samples, and the pause between two of them.
const SAMPLES: u32 = 8;
const SAMPLE_EVERY: Duration = Duration::from_millis(110);
/// A beat that is this late in a sample is late; less than [`LATE_MS`], because most samples catch it half way.
const LATE_IN_SAMPLE_MS: u64 = 120;
/// Time between two beats of a loop.
const BEAT_MS: u64 = 100;

/// Of the time that a process has to answer; the first answer must not be lost for want of a second one.
const SECOND_LOOK_RESERVE: Duration = Duration::from_millis(100);

/// Whether a loop has regular beats: a pool is probed once a second only, a helper beats as seldom, and a recorder beats only
/// while it works.
fn has_regular_beats(l: &LoopReport) -> bool {
    !matches!(l.kind, WatchKind::Pool | WatchKind::Recorder) && !l.kind.is_helper()
}

/// `GET /health`
pub(crate) async fn health(socket: &Path) -> Part<HealthReport> {
    ControlClient::new(socket).get(paths::HEALTH).await.into()
}

/// `GET /watch`
pub(crate) async fn watch(socket: &Path) -> Part<WatchReport> {
    ControlClient::new(socket).get(paths::WATCH).await.into()
}

/// `GET /watch`, and again after `pause` if that calls for a second look: then the second one counts, if there is one before
/// the time `within` is over.
pub(crate) async fn watch_again_if_needed(
    socket: &Path,
    pause: Duration,
    within: Duration,
) -> Part<WatchReport> {
    let until = Instant::now() + within.saturating_sub(SECOND_LOOK_RESERVE);
    let first = watch(socket).await;
    if !first.get().is_some_and(needs_second_look) {
        return first;
    }
    let second = async {
        sleep(pause).await;
        watch(socket).await
    };
    match timeout_at(until, second).await {
        Ok(second @ Part::Found(_)) => second,
        _ => first,
    }
}

/// `GET /stacks`: the stacks as the process captures them itself.
pub(crate) async fn stacks(socket: &Path) -> Part<stacks::StackDump> {
    ControlClient::new(socket).get(paths::STACKS).await.into()
}

impl<T> From<Result<T, ControlError>> for Part<T> {
    fn from(result: Result<T, ControlError>) -> Self {
        let error = match result {
            Ok(found) => return Self::Found(found),
            Err(error) => error,
        };
        let cause = match &error {
            ControlError::Timeout { .. } => MissingCause::TimedOut,
            ControlError::Denied(_) => MissingCause::Denied,
            ControlError::Missing(_) | ControlError::Refused(_) => MissingCause::NoSocket,
            ControlError::Shape { .. }
            | ControlError::NotJson { .. }
            | ControlError::Status { status: 404, .. } => MissingCause::OtherVersion,
            _ => MissingCause::Other,
        };
        Self::Missing { missing: error.to_string(), cause }
    }
}

/// Samples the loops of a process, if one of them is stalled or was late lately: a single late beat is not starvation.
pub(crate) async fn late_loops(socket: &Path, first: &WatchReport) -> Vec<LateLoop> {
    let loops: Vec<_> = first.progress.loops.iter().filter(|l| has_regular_beats(l)).collect();
    if loops.iter().all(|l| l.lag_ms_max < LATE_MS && !l.stalled) {
        return Vec::new();
    }
    let began = Instant::now();
    let pid = first.process.pid;
    let times = |l: &LoopReport| process::thread_times(pid, l.tid);
    let before: HashMap<_, _> = loops.iter().filter_map(|l| Some((l.tid, times(l)?))).collect();
    let mut late: Vec<_> = loops.iter().map(|l| LateLoop::new(l.name.clone(), l.tid)).collect();
    for _ in 0..SAMPLES {
        sleep(SAMPLE_EVERY).await;
        let Part::Found(watch) = watch(socket).await else { break };
        for entry in &mut late {
            entry.looks += 1;
            if let Some(l) = watch.progress.loops.iter().find(|l| l.name == entry.name) {
                entry.add_sample(l);
            }
        }
    }
    let over_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    for entry in &mut late {
        entry.over_ms = over_ms;
        let after = process::thread_times(pid, entry.tid);
        if let (Some(before), Some(after)) = (before.get(&entry.tid), after) {
            entry.cpu_ms = Some(after.cpu_ms.saturating_sub(before.cpu_ms));
            entry.run_delay_ms = Some(after.run_delay_ms.saturating_sub(before.run_delay_ms));
        }
    }
    late.retain(|entry| entry.late >= 2);
    late.sort_by_key(|entry| std::cmp::Reverse(entry.worst_ms));
    late
}

/// How late the beats of one loop were, sampled for about a second.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LateLoop {
    #[serde(rename = "loop")]
    pub(crate) name: String,
    pub(crate) tid: i32,
    /// Samples, and those of them in which it was late.
    pub(crate) looks: u32,
    pub(crate) late: u32,
    pub(crate) worst_ms: u64,
    /// What its thread did meanwhile: it ran, or it was ready and had no processor.
    pub(crate) over_ms: u64,
    pub(crate) cpu_ms: Option<u64>,
    pub(crate) run_delay_ms: Option<u64>,
    /// What it worked on when it was late.
    pub(crate) work: Option<TaskReport>,
}

impl LateLoop {
    fn new(name: String, tid: i32) -> Self {
        Self {
            name,
            tid,
            looks: 0,
            late: 0,
            worst_ms: 0,
            over_ms: 0,
            cpu_ms: None,
            run_delay_ms: None,
            work: None,
        }
    }

    fn add_sample(&mut self, l: &LoopReport) {
        let by = l.lag_ms.max(l.beat_ms_ago.saturating_sub(BEAT_MS));
        if by >= LATE_IN_SAMPLE_MS {
            self.late += 1;
            if by >= self.worst_ms {
                self.work = l.work.clone().or_else(|| self.work.take());
            }
        }
        self.worst_ms = self.worst_ms.max(by);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
    };

    use super::*;

    /// A process whose admin socket has this answer to every request.
    fn answering(status: &'static str, body: &'static str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gateway-admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut request = [0; 4096];
                let _read = stream.read(&mut request);
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                stream.write_all(format!("{head}{body}").as_bytes()).ok();
            }
        });
        (folder, socket)
    }

    fn missing<T: std::fmt::Debug>(part: Part<T>) -> (String, MissingCause) {
        match part {
            Part::Missing { missing, cause } => (missing, cause),
            Part::Found(found) => panic!("{found:?}"),
        }
    }

    #[tokio::test]
    async fn a_report_of_another_version_is_missing_with_both_versions() {
        let body = r#"{"name":"newswire-gateway","version":"9.1.0","pid":7,"loops":[{"name":"worker-0"}]}"#;
        let (_folder, socket) = answering("200 OK", body);
        let (why, cause) = missing(watch(&socket).await);
        let ours = env!("CARGO_PKG_VERSION");
        assert!(why.contains(&format!("newswire-gateway is version 9.1.0, this tool is {ours}")), "{why}");
        assert_eq!(cause, MissingCause::OtherVersion);
    }

    #[tokio::test]
    async fn a_version_without_the_route_is_distinguished_from_no_answer() {
        let (_folder, socket) = answering("404 Not Found", "");
        assert_eq!(missing(watch(&socket).await).1, MissingCause::OtherVersion);
        let absent = socket.with_file_name("none.sock");
        assert_eq!(missing(health(&absent).await).1, MissingCause::NoSocket);
    }

    #[test]
    fn a_beat_that_is_still_missing_is_late_too() {
        let sample = |beat_ms_ago| LoopReport {
            name: "worker-0".into(),
            kind: WatchKind::Worker,
            tid: 1,
            beat_ms_ago,
            lag_ms: 2,
            lag_ms_max: 2,
            stalled: false,
            work: None,
        };
        let mut late = LateLoop::new("worker-0".into(), 1);
        late.add_sample(&sample(90));
        assert_eq!(late.late, 0);
        late.add_sample(&sample(400));
        assert_eq!((late.late, late.worst_ms), (1, 300));
    }
}
