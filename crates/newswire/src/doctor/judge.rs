//! From the evidence to one verdict. No input, no output, no clock: what counts is in [`Evidence`].
//!
//! [`RULES`] is the order of precedence: what explains more comes first. A process that is stopped explains a silent wire;
//! a loop that is stalled explains clients that wait, and the descriptors that they hold.

mod running;
mod standing;
#[cfg(test)]
mod tests;

use daemon::Exit;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{
    evidence::{Daemon, Evidence, Presence},
    show::{ago, bytes},
};
use crate::out::safe;

/// What is the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
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

impl Code {
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
    pub(crate) code: Code,
    pub(crate) line: String,
    pub(crate) next: Vec<String>,
}

impl Verdict {
    fn new(code: Code, line: impl Into<String>, next: impl IntoIterator<Item = String>) -> Self {
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
    standing::orphan_listener,
    standing::not_running,
    standing::gateway_stopped,
    standing::daemon_stopped,
    standing::disk_full,
    standing::gateway_dead,
    standing::daemon_dead,
    standing::draining,
    running::loop_stalled,
    running::pool_exhausted,
    running::store_slow,
    running::descriptors_exhausted,
    running::does_not_answer,
    running::worker_starved,
    standing::starting,
    running::wire_cut,
    running::daemon_stale,
    running::clock_jumped,
    running::slow_feeds,
];

/// One verdict, always.
pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    RULES.iter().find_map(|rule| rule(evidence)).unwrap_or_else(|| healthy(evidence))
}

fn healthy(evidence: &Evidence) -> Verdict {
    let running: Vec<_> =
        evidence.daemons().filter(|daemon| daemon.is_running()).map(|daemon| daemon.name).collect();
    let who = if running.is_empty() { "the gateway".to_owned() } else { running.join(" and ") };
    let unknown = evidence.daemons().find(|daemon| daemon.presence == Presence::Unknown);
    let but =
        unknown.map(|daemon| format!("; this user may not look at {}", daemon.name)).unwrap_or_default();
    let verb = if running.len() == 2 { "run and make" } else { "runs and makes" };
    Verdict::new(Code::Healthy, format!("{who} {verb} progress{but}"), [])
}

/// The command that ends a process and starts it anew.
fn restart(daemon: &Daemon) -> String {
    match (daemon.unit.get(), daemon.pid()) {
        (Some(unit), _) => format!("systemctl restart {}", safe(&unit.id)),
        (None, Some(pid)) => format!("kill -9 {pid}, then start {} as you do otherwise", daemon.name),
        (None, None) => start(daemon),
    }
}

/// The command that starts it.
fn start(daemon: &Daemon) -> String {
    match daemon.unit.get() {
        Some(unit) => format!("systemctl start {}", safe(&unit.id)),
        None => format!("start {}, or both with `newswire up`", daemon.name),
    }
}

/// Where it says why it ended.
fn last_words(daemon: &Daemon) -> String {
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
fn named(daemon: &Daemon) -> String {
    daemon.pid().map_or_else(|| daemon.name.to_owned(), |pid| format!("{} (pid {pid})", daemon.name))
}

/// `GET /news/stream of 127.0.0.1:55044 for 3 s`
pub(crate) fn on(work: &super::admin::Work) -> String {
    let of = if work.of.is_empty() { String::new() } else { format!(" of {}", safe(&work.of)) };
    format!("{}{of} for {}", safe(&work.what), ago(work.since_ms_ago))
}
