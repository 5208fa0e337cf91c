//! What the processes say about themselves over their admin sockets. Every field may be absent: the process may be
//! older or newer than this program.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    evidence::{LateLoop, Part, Usage},
    http, process,
};

/// How long each question may take.
const WITHIN: Duration = Duration::from_secs(2);
/// A beat that comes so much late makes one look again.
pub(super) const LATE_MS: u64 = 250;
/// Late beats are looked for so often, with this pause; a beat is late there sooner, because it is mostly caught half way.
const LOOKS: u32 = 8;
const LOOK_EVERY: Duration = Duration::from_millis(110);
const LATE_AT_A_LOOK_MS: u64 = 120;
/// Pause between two beats, as the watchdog's loops have it.
const BEAT_MS: u64 = 100;

/// `GET /health`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Health {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) pid: i32,
    pub(crate) uptime_ms: u64,
}

/// `GET /watch`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Watch {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) pid: i32,
    pub(crate) uptime_ms: u64,
    pub(crate) loops: Vec<Loop>,
    pub(crate) threads: Vec<Busy>,
    pub(crate) stalls: Vec<Stall>,
    pub(crate) stalls_total: u64,
    pub(crate) clock: Clock,
    pub(crate) pauses: Pauses,
    pub(crate) vitals: Vitals,
}

/// What a thread works on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Work {
    pub(crate) what: String,
    pub(crate) of: String,
    pub(crate) since_ms_ago: u64,
}

/// Something that beats.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Loop {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) tid: i32,
    pub(crate) beat_ms_ago: u64,
    pub(crate) lag_ms: u64,
    pub(crate) lag_ms_max: u64,
    pub(crate) stalled: bool,
    pub(crate) work: Option<Work>,
}

impl Loop {
    /// A canary is sent through a pool once a second, and a recorder beats only while it works.
    fn beats_often(&self) -> bool {
        !matches!(self.kind.as_str(), "pool" | "recorder")
    }
}

/// Another thread with work.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Busy {
    pub(crate) tid: i32,
    pub(crate) name: String,
    pub(crate) work: Option<Work>,
}

/// A loop that did not beat for more than a second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stall {
    #[serde(rename = "loop")]
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) tid: i32,
    pub(crate) began_ms_ago: u64,
    /// Absent while it lasts.
    pub(crate) lasted_ms: Option<u64>,
    pub(crate) work: Option<Work>,
    pub(crate) culprit: Option<String>,
}

/// The wall clock against the monotonic one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Clock {
    pub(crate) jumps: u64,
    pub(crate) last_ms: Option<i64>,
    pub(crate) last_ms_ago: Option<u64>,
}

/// The whole process, its watchdog too, did not run for a while: stopped, or the machine slept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pauses {
    pub(crate) count: u64,
    pub(crate) last_ms: Option<u64>,
    pub(crate) last_ms_ago: Option<u64>,
}

/// The numbers of either process; each has some of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Vitals {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inherited: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients: Option<u64>,
    pub(crate) draining: bool,
    pub(crate) wire: Wire,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) head: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oldest: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) actors: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) busiest: Vec<Actor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overdue: Option<u64>,
    pub(crate) outage: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<Store>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) open_files: Option<Usage>,
}

/// The wire, from one side or the other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Wire {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connected: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heard_ms_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subscribers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent: Option<String>,
}

/// A source that is being visited, or waits to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Actor {
    pub(crate) source: String,
    pub(crate) activity: String,
    pub(crate) since_ms_ago: u64,
    pub(crate) waiting_for: Option<String>,
}

/// The store, as its writer knows it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Store {
    pub(crate) path: String,
    pub(crate) bytes: Option<u64>,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) last_commit_ms_ago: Option<u64>,
    pub(crate) last_commit_took_ms: Option<u64>,
    /// For so long a commit has been under way.
    pub(crate) committing_ms: Option<u64>,
    pub(crate) queued: Option<u64>,
}

async fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, String> {
    let answer =
        http::ask_socket(socket, path, "application/json", WITHIN).await.map_err(|e| e.to_string())?;
    match answer.status {
        200 => read(&answer.body).map_err(|error| format!("GET {path}: {error}")),
        404 => Err(format!("this version has no {path}")),
        status => Err(format!("GET {path} answered {status}")),
    }
}

/// What is null is absent: a part whose lock is held at that moment, or whose question took too long.
fn read<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let mut value = serde_json::from_slice(body)?;
    leave_out_nulls(&mut value);
    serde_json::from_value(value)
}

fn leave_out_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(leave_out_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_nulls),
        _ => {}
    }
}

pub(crate) async fn health(socket: &Path) -> Part<Health> {
    ask(socket, "/health").await.into()
}

pub(crate) async fn watch(socket: &Path) -> Part<Watch> {
    ask(socket, "/watch").await.into()
}

/// The stacks as the process itself takes them.
pub(crate) async fn stacks(socket: &Path) -> Result<stacks::StackDump, String> {
    ask(socket, "/stacks").await
}

/// Looks again and again at a process of which some loop was late lately: one hiccup is no starvation.
pub(crate) async fn late_loops(socket: &Path, first: &Watch) -> Vec<LateLoop> {
    let loops: Vec<_> = first.loops.iter().filter(|l| l.beats_often() && !l.stalled).collect();
    if loops.iter().all(|l| l.lag_ms_max < LATE_MS) {
        return Vec::new();
    }
    let began = Instant::now();
    let times = |l: &Loop| process::thread_times(first.pid, l.tid);
    let before: HashMap<_, _> = loops.iter().filter_map(|l| Some((l.tid, times(l)?))).collect();
    let mut late: Vec<_> = loops.iter().map(|l| LateLoop::new(l.name.clone(), l.tid)).collect();
    for _ in 0..LOOKS {
        sleep(LOOK_EVERY).await;
        let Ok(watch) = ask::<Watch>(socket, "/watch").await else { break };
        for entry in &mut late {
            entry.looks += 1;
            if let Some(l) = watch.loops.iter().find(|l| l.name == entry.name) {
                entry.look_at(l);
            }
        }
    }
    let over_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    for entry in &mut late {
        entry.over_ms = over_ms;
        let after = process::thread_times(first.pid, entry.tid);
        if let (Some(before), Some(after)) = (before.get(&entry.tid), after) {
            entry.cpu_ms = Some(after.cpu_ms.saturating_sub(before.cpu_ms));
            entry.run_delay_ms = Some(after.run_delay_ms.saturating_sub(before.run_delay_ms));
        }
    }
    late.retain(|entry| entry.late >= 2);
    late.sort_by_key(|entry| std::cmp::Reverse(entry.worst_ms));
    late
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

    fn look_at(&mut self, l: &Loop) {
        let by = l.lag_ms.max(l.beat_ms_ago.saturating_sub(BEAT_MS));
        if by >= LATE_AT_A_LOOK_MS {
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
    use super::*;

    #[test]
    fn what_an_older_process_does_not_say_is_absent() {
        let watch: Watch =
            serde_json::from_str(r#"{"pid":7,"loops":[{"name":"worker-0"}],"new":1}"#).unwrap();
        assert_eq!((watch.pid, watch.loops.len(), watch.vitals.wire.connected), (7, 1, None));
    }

    #[test]
    fn what_is_null_is_absent() {
        let watch: Watch =
            read(br#"{"loops":[{"name":"pool","tid":null,"work":{"what":"x","of":null}}],"vitals":null}"#)
                .unwrap();
        assert_eq!((watch.loops[0].tid, watch.vitals.head), (0, None));
        let watch: Watch = read(br#"{"vitals":{"wire":null,"open_files":{"used":1,"max":null}}}"#).unwrap();
        assert_eq!(watch.vitals.open_files, Some(Usage { used: 1, max: 0 }));
    }

    #[test]
    fn the_vitals_of_both_processes_are_understood() {
        let gateway = r#"{"listen":"127.0.0.1:8700","inherited":false,"clients":0,"draining":false,
            "wire":{"connected":true,"reason":null,"heard_ms_ago":900,"cursor":"k3-412"},
            "ring":{"filled":true,"events":9,"bytes":9},"open_files":{"used":20,"max":1048576}}"#;
        let vitals: Vitals = serde_json::from_str(gateway).unwrap();
        assert_eq!((vitals.wire.connected, vitals.open_files.unwrap().used), (Some(true), 20));
        let ingestd = r#"{"epoch":"k3","oldest":1,"head":412,"wire":{"subscribers":1,"sent":"k3-412"},
            "actors":{"idle":10,"fetching":2},"busiest":[{"source":"bbc","activity":"fetching","since_ms_ago":4000,
            "waiting_for":null}],"overdue":0,"outage":false,"store":{"path":"/d","bytes":1,"free_bytes":1,
            "last_commit_ms_ago":1,"last_commit_took_ms":4,"committing_ms":null,"queued":0}}"#;
        let vitals: Vitals = serde_json::from_str(ingestd).unwrap();
        assert_eq!((vitals.head, vitals.actors["fetching"], vitals.busiest.len()), (Some(412), 2, 1));
    }

    #[test]
    fn a_beat_that_did_not_come_yet_is_late_too() {
        let mut late = LateLoop::new("worker-0".into(), 1);
        late.look_at(&Loop { beat_ms_ago: 90, lag_ms: 2, ..Loop::default() });
        assert_eq!(late.late, 0);
        late.look_at(&Loop { beat_ms_ago: 400, lag_ms: 2, ..Loop::default() });
        assert_eq!((late.late, late.worst_ms), (1, 300));
    }
}
