//! Makes one verdict of the evidence. Pure functions: no I/O, no clock.
//!
//! [`RULES`] is the order of precedence: what explains more comes first. A stopped process explains a silent wire; a stalled
//! loop explains waiting clients, and the descriptors that they hold. Each rule decides by fields, never by texts.

mod presence_rules;
mod progress_rules;
#[cfg(test)]
mod tests;
mod watch_rules;

use daemon::Exit;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

pub(crate) use self::watch_rules::{is_held_up, is_mute, is_stuck, needs_second_look, watchdog_is_stuck};
use super::{
    evidence::{DaemonEvidence, Evidence, Presence},
    part::{MissingCause, Part},
    show::{bytes, duration},
};
use crate::out::safe;

/// The conclusion, as a stable word. `doctor/README.md` explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code, reason = "the rules for some of them follow")]
pub(crate) enum VerdictCode {
    Healthy,
    SlowFeeds,
    EventLoopBlocked,
    WorkerStarved,
    BlockingPoolExhausted,
    StoreSlow,
    LogUnreadable,
    DiskFull,
    RecordingPaused,
    DescriptorsExhausted,
    DaemonDead,
    DaemonStopped,
    DaemonStale,
    GatewayDead,
    GatewayStopped,
    NotRunning,
    OrphanListener,
    WireCut,
    ClockJumped,
    DiskStalled,
    Throttled,
    MemoryPressure,
    TasksExhausted,
    LogBlocked,
    HeldByDebugger,
    StoreGone,
    RunDirGone,
    FeedsFailing,
    OtherGateway,
    ConfigurationBroken,
    Unknown,
}

impl VerdictCode {
    /// Its word in the JSON and in the last line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::SlowFeeds => "slow-feeds",
            Self::EventLoopBlocked => "event-loop-blocked",
            Self::WorkerStarved => "worker-starved",
            Self::BlockingPoolExhausted => "blocking-pool-exhausted",
            Self::StoreSlow => "store-slow",
            Self::LogUnreadable => "log-unreadable",
            Self::DiskFull => "disk-full",
            Self::RecordingPaused => "recording-paused",
            Self::DescriptorsExhausted => "descriptors-exhausted",
            Self::DaemonDead => "daemon-dead",
            Self::DaemonStopped => "daemon-stopped",
            Self::DaemonStale => "daemon-stale",
            Self::GatewayDead => "gateway-dead",
            Self::GatewayStopped => "gateway-stopped",
            Self::NotRunning => "not-running",
            Self::OrphanListener => "orphan-listener",
            Self::WireCut => "wire-cut",
            Self::ClockJumped => "clock-jumped",
            Self::DiskStalled => "disk-stalled",
            Self::Throttled => "throttled",
            Self::MemoryPressure => "memory-pressure",
            Self::TasksExhausted => "tasks-exhausted",
            Self::LogBlocked => "log-blocked",
            Self::HeldByDebugger => "held-by-debugger",
            Self::StoreGone => "store-gone",
            Self::RunDirGone => "run-dir-gone",
            Self::FeedsFailing => "feeds-failing",
            Self::OtherGateway => "other-gateway",
            Self::ConfigurationBroken => "configuration-broken",
            Self::Unknown => "unknown",
        }
    }

    /// 0 for [`Self::Healthy`] and [`Self::SlowFeeds`], which is not a hang; 3 for [`Self::Unknown`]; else 1.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::Healthy | Self::SlowFeeds => Exit::Ok,
            Self::Unknown => Exit::Unknown,
            _ => Exit::Failure,
        }
    }
}

/// The conclusion: a code, one line of text, and what to do next.
#[derive(Clone, Debug)]
pub(crate) struct DoctorVerdict {
    pub(crate) code: VerdictCode,
    pub(crate) line: String,
    pub(crate) next: Vec<String>,
}

impl DoctorVerdict {
    fn new(code: VerdictCode, line: impl Into<String>, next: impl IntoIterator<Item = String>) -> Self {
        Self { code, line: line.into(), next: next.into_iter().collect() }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.code.exit()
    }
}

impl Serialize for DoctorVerdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Verdict", 4)?;
        object.serialize_field("code", &self.code)?;
        object.serialize_field("line", &self.line)?;
        object.serialize_field("next", &self.next)?;
        object.serialize_field("exit", &self.exit().code())?;
        object.end()
    }
}

type Rule = fn(&Evidence) -> Option<DoctorVerdict>;

/// The first rule that applies decides.
const RULES: &[Rule] = &[
    presence_rules::orphan_listener,
    presence_rules::not_running,
    presence_rules::gateway_stopped,
    presence_rules::daemon_stopped,
    presence_rules::disk_full,
    presence_rules::gateway_dead,
    presence_rules::daemon_dead,
    presence_rules::draining,
    progress_rules::loop_stalled,
    watch_rules::watchdog_blocked,
    progress_rules::pool_exhausted,
    progress_rules::store_slow,
    progress_rules::log_unreadable,
    progress_rules::descriptors_exhausted,
    progress_rules::does_not_answer,
    watch_rules::listener_mute,
    watch_rules::observer_blocked,
    watch_rules::task_held_up,
    presence_rules::recording_paused,
    progress_rules::worker_starved,
    presence_rules::starting,
    progress_rules::wire_cut,
    progress_rules::daemon_stale,
    progress_rules::clock_jumped,
    progress_rules::slow_feeds,
];

/// Applies the rules.
pub(crate) fn conclude(evidence: &Evidence) -> DoctorVerdict {
    RULES.iter().find_map(|rule| rule(evidence)).unwrap_or_else(|| healthy(evidence))
}

fn healthy(evidence: &Evidence) -> DoctorVerdict {
    let running: Vec<_> =
        evidence.daemons().filter(|daemon| daemon.is_running()).map(|daemon| daemon.name).collect();
    let who = if running.is_empty() { "the gateway".to_owned() } else { running.join(" and ") };
    let unknown = evidence.daemons().find(|daemon| daemon.presence == Presence::Unknown);
    let unreadable = evidence.daemons().find_map(|daemon| match &daemon.watch {
        Part::Missing { missing, cause: MissingCause::OtherVersion } => Some(missing),
        _ => None,
    });
    let but = match (unknown, unreadable) {
        (Some(daemon), _) => format!("; this user may not examine {}", daemon.name),
        (None, Some(why)) => format!("; its own report is unreadable: {}", safe(why)),
        (None, None) => String::new(),
    };
    let verb = if running.len() == 2 { "run and make" } else { "runs and makes" };
    DoctorVerdict::new(VerdictCode::Healthy, format!("{who} {verb} progress{but}"), [])
}

/// The command that restarts a process.
fn restart(daemon: &DaemonEvidence) -> String {
    match (daemon.unit.get(), daemon.pid()) {
        (Some(unit), _) => format!("systemctl restart {}", safe(&unit.id)),
        (None, Some(pid)) => format!("kill -9 {pid}, then start {} as usual", daemon.name),
        (None, None) => start(daemon),
    }
}

/// The command that starts a process.
fn start(daemon: &DaemonEvidence) -> String {
    match daemon.unit.get() {
        Some(unit) => format!("systemctl start {}", safe(&unit.id)),
        None => format!("start {}, or both with `newswire up`", daemon.name),
    }
}

/// Where to read why a process ended.
fn exit_log_hint(daemon: &DaemonEvidence) -> String {
    match daemon.unit.get() {
        Some(unit) => format!("journalctl -u {} -n 50   # why it ended", safe(&unit.id)),
        None => {
            format!("read the end of the log of {}; if that says nothing, `dmesg | grep -i oom`", daemon.name)
        }
    }
}

const BUNDLE: &str = "newswire bundle --since 30m   # first: a restart destroys the evidence";

fn bundle() -> String {
    BUNDLE.to_owned()
}

/// `newswire-gateway (pid 7)`
fn name_and_pid(daemon: &DaemonEvidence) -> String {
    daemon.pid().map_or_else(|| daemon.name.to_owned(), |pid| format!("{} (pid {pid})", daemon.name))
}

/// `GET /news/stream of 127.0.0.1:55044 for 3 s`
pub(crate) fn task_text(work: &control::watch::TaskReport) -> String {
    let of = if work.of.is_empty() { String::new() } else { format!(" of {}", safe(&work.of)) };
    format!("{}{of} for {}", safe(&work.what), duration(work.since_ms_ago))
}
