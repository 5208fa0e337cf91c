//! From the evidence to one verdict. No input, no output, no clock: what counts is in [`Evidence`].
//!
//! [`RULES`] is the order of precedence: what explains more comes first. A process that is stopped explains a silent wire;
//! a loop that is stalled explains clients that wait, and the descriptors that they hold.

mod presence_rules;
mod progress_rules;
#[cfg(test)]
mod tests;

use daemon::Exit;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{
    evidence::{DaemonEvidence, Evidence, Presence},
    show::{ago, bytes},
};
use crate::out::safe;

/// What is the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VerdictCode {
    Healthy,
    SlowFeeds,
    EventLoopBlocked,
    WorkerStarved,
    BlockingPoolExhausted,
    StoreSlow,
    DiskFull,
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
}

impl VerdictCode {
    /// As the JSON and the last line have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::SlowFeeds => "slow-feeds",
            Self::EventLoopBlocked => "event-loop-blocked",
            Self::WorkerStarved => "worker-starved",
            Self::BlockingPoolExhausted => "blocking-pool-exhausted",
            Self::StoreSlow => "store-slow",
            Self::DiskFull => "disk-full",
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
        }
    }

    /// Slow feeds are no hang.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::Healthy | Self::SlowFeeds => Exit::Ok,
            _ => Exit::Failure,
        }
    }
}

/// What is the matter, in one line, and what to do.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) code: VerdictCode,
    pub(crate) line: String,
    pub(crate) next: Vec<String>,
}

impl Verdict {
    fn new(code: VerdictCode, line: impl Into<String>, next: impl IntoIterator<Item = String>) -> Self {
        Self { code, line: line.into(), next: next.into_iter().collect() }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.code.exit()
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Verdict", 4)?;
        object.serialize_field("code", &self.code)?;
        object.serialize_field("line", &self.line)?;
        object.serialize_field("next", &self.next)?;
        object.serialize_field("exit", &self.exit().code())?;
        object.end()
    }
}

type Rule = fn(&Evidence) -> Option<Verdict>;

/// The first that has something to say decides.
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
    progress_rules::pool_exhausted,
    progress_rules::store_slow,
    progress_rules::descriptors_exhausted,
    progress_rules::does_not_answer,
    progress_rules::worker_starved,
    presence_rules::starting,
    progress_rules::wire_cut,
    progress_rules::daemon_stale,
    progress_rules::clock_jumped,
    progress_rules::slow_feeds,
];

/// One verdict, always.
pub(crate) fn verdict(evidence: &Evidence) -> Verdict {
    RULES.iter().find_map(|rule| rule(evidence)).unwrap_or_else(|| healthy(evidence))
}

fn healthy(evidence: &Evidence) -> Verdict {
    let progress_rules: Vec<_> =
        evidence.daemons().filter(|daemon| daemon.is_running()).map(|daemon| daemon.name).collect();
    let who = if progress_rules.is_empty() { "the gateway".to_owned() } else { progress_rules.join(" and ") };
    let unknown = evidence.daemons().find(|daemon| daemon.presence == Presence::Unknown);
    let but =
        unknown.map(|daemon| format!("; this user may not look at {}", daemon.name)).unwrap_or_default();
    let verb = if progress_rules.len() == 2 { "run and make" } else { "runs and makes" };
    Verdict::new(VerdictCode::Healthy, format!("{who} {verb} progress{but}"), [])
}

/// The command that ends a process and starts it anew.
fn restart(daemon: &DaemonEvidence) -> String {
    match (daemon.unit.get(), daemon.pid()) {
        (Some(unit), _) => format!("systemctl restart {}", safe(&unit.id)),
        (None, Some(pid)) => format!("kill -9 {pid}, then start {} as you do otherwise", daemon.name),
        (None, None) => start(daemon),
    }
}

/// The command that starts it.
fn start(daemon: &DaemonEvidence) -> String {
    match daemon.unit.get() {
        Some(unit) => format!("systemctl start {}", safe(&unit.id)),
        None => format!("start {}, or both with `newswire up`", daemon.name),
    }
}

/// Where it says why it ended.
fn exit_log_hint(daemon: &DaemonEvidence) -> String {
    match daemon.unit.get() {
        Some(unit) => format!("journalctl -u {} -n 50   # its last words", safe(&unit.id)),
        None => {
            format!("read the end of the log of {}; `dmesg | grep -i oom` when it says nothing", daemon.name)
        }
    }
}

const BUNDLE: &str = "newswire bundle --since 30m   # before anything else: a restart destroys the evidence";

fn bundle() -> String {
    BUNDLE.to_owned()
}

/// `newswire-gateway (pid 7)`
fn named(daemon: &DaemonEvidence) -> String {
    daemon.pid().map_or_else(|| daemon.name.to_owned(), |pid| format!("{} (pid {pid})", daemon.name))
}

/// `GET /news/stream of 127.0.0.1:55044 for 3 s`
pub(crate) fn on(work: &super::admin::Work) -> String {
    let of = if work.of.is_empty() { String::new() } else { format!(" of {}", safe(&work.of)) };
    format!("{}{of} for {}", safe(&work.what), ago(work.since_ms_ago))
}
