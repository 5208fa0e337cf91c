//! Makes one verdict of the evidence. Pure functions: no I/O, no clock.
//!
//! [`RULES`] is the order of precedence: what explains more comes first. A stopped process explains a silent wire; a stalled
//! loop explains waiting clients, and the descriptors that they hold. Each rule decides by fields, never by texts.

mod chain_rules;
mod feed_rules;
mod log_rules;
mod nats_rules;
mod next;
mod presence_rules;
mod progress_rules;
pub(super) mod proof;
mod resource_rules;
#[cfg(test)]
mod resource_tests;
mod stalled;
#[cfg(test)]
mod tests;
mod watch_rules;

use daemon::Exit;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{
    evidence::{DaemonEvidence, Evidence, Presence, Target},
    proof_entry::ProofEntry,
    show::{bytes, duration},
};
use crate::out::{safe, whole};

/// The conclusion, as a stable word. `doctor/README.md` explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
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
    NatsUnreachable,
    NatsUnusable,
    NatsDegraded,
    PublishingBehind,
    ShardsUnvisited,
    ListsDiffer,
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
            Self::NatsUnreachable => "nats-unreachable",
            Self::NatsUnusable => "nats-unusable",
            Self::NatsDegraded => "nats-degraded",
            Self::PublishingBehind => "publishing-behind",
            Self::ShardsUnvisited => "shards-unvisited",
            Self::ListsDiffer => "lists-differ",
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
    /// Whether it is about a phase that passes by itself, in which not everything can be seen yet, or any more.
    is_passing: bool,
}

impl DoctorVerdict {
    fn new(code: VerdictCode, line: impl Into<String>, next: impl IntoIterator<Item = String>) -> Self {
        Self { code, line: line.into(), next: next.into_iter().collect(), is_passing: false }
    }

    fn passing(self) -> Self {
        Self { is_passing: true, ..self }
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
    resource_rules::out_of_reach,
    presence_rules::orphan_listener,
    presence_rules::other_gateway,
    presence_rules::not_running,
    chain_rules::held_by_debugger,
    presence_rules::gateway_stopped,
    presence_rules::daemon_stopped,
    presence_rules::disk_full,
    presence_rules::gateway_dead,
    resource_rules::store_gone_and_daemon_dead,
    presence_rules::daemon_dead,
    presence_rules::draining,
    resource_rules::throttled,
    resource_rules::memory_pressure,
    resource_rules::disk_stalled,
    progress_rules::loop_stalled,
    resource_rules::blocked_from_outside,
    resource_rules::tasks_exhausted,
    watch_rules::watchdog_blocked,
    progress_rules::pool_exhausted,
    resource_rules::disk_slow,
    progress_rules::store_slow,
    progress_rules::log_unreadable,
    progress_rules::descriptors_exhausted,
    progress_rules::does_not_answer,
    resource_rules::store_gone,
    resource_rules::run_dir_gone,
    watch_rules::socket_barred,
    watch_rules::listener_mute,
    watch_rules::observer_blocked,
    watch_rules::helper_blocked,
    watch_rules::task_held_up,
    watch_rules::black_box_silent,
    presence_rules::recording_paused,
    progress_rules::worker_starved,
    progress_rules::loop_moves,
    presence_rules::starting,
    nats_rules::nats_unusable,
    progress_rules::wire_cut,
    progress_rules::daemon_stale,
    log_rules::log_blocked,
    nats_rules::publishing_behind,
    nats_rules::shards_unvisited,
    nats_rules::nats_degraded,
    nats_rules::lists_differ,
    feed_rules::feeds_failing,
    resource_rules::elsewhere,
    resource_rules::other_gateway,
    progress_rules::clock_jumped,
    feed_rules::slow_feeds,
];

/// Applies the rules. What they find well must be proved.
pub(crate) fn conclude(evidence: &Evidence) -> DoctorVerdict {
    let found = RULES.iter().find_map(|rule| rule(evidence)).unwrap_or_else(|| healthy(evidence));
    let proved = match found.exit() {
        Exit::Ok => prove(evidence, found),
        _ => chain_rules::with_root(evidence, found),
    };
    let mut verdict = with_configuration(evidence, proved);
    verdict.next = verdict.next.into_iter().map(|step| next::with_configuration(evidence, step)).collect();
    verdict
}

fn healthy(evidence: &Evidence) -> DoctorVerdict {
    let verb = if evidence.target == Target::Both { "run and make" } else { "runs and makes" };
    let only = match evidence.target {
        Target::Url => ", according to its answers; nothing else was asked for",
        Target::Pid => "; the other process was not asked for",
        Target::Both => "",
    };
    DoctorVerdict::new(VerdictCode::Healthy, format!("{} {verb} progress{only}", proof::scope(evidence)), [])
}

/// How many reasons the line of a verdict has, and how many remedies it leads to.
const REASONS_MAX: usize = 3;

/// The verdict that was found, unless a part of its proof is missing.
fn prove(evidence: &Evidence, found: DoctorVerdict) -> DoctorVerdict {
    // A process that has just started cannot show everything yet.
    let passes = found.is_passing
        || evidence.daemons().any(|daemon| daemon.is_running() && presence_rules::is_starting(daemon));
    let unknown: Vec<_> = proof::prove(evidence)
        .into_iter()
        .filter(|entry| entry.is_unknown() && (entry.is_lasting || !passes))
        .collect();
    let Some(first) = unknown.first() else { return found };
    let seen = match found.code {
        VerdictCode::Healthy if !found.is_passing => String::new(),
        _ => format!("; what was seen: {}", found.line),
    };
    let reasons = distinct(&unknown, |entry| Some(&entry.why));
    let more = match reasons.len().saturating_sub(REASONS_MAX) {
        0 => String::new(),
        more => format!("; and {more} more, in the section proof"),
    };
    let reasons = reasons.into_iter().take(REASONS_MAX).cloned().collect::<Vec<_>>().join("; ");
    let line = format!("cannot tell whether all is well ({}): {reasons}{more}{seen}", first.part.as_str());
    let next = distinct(&unknown, |entry| entry.remedy.as_ref()).into_iter().take(REASONS_MAX).cloned();
    let mut next: Vec<_> = next.chain(found.next).collect();
    if let Some(http) = evidence.http.get()
        && evidence.target == Target::Both
        && unknown.iter().any(|entry| entry.is_denied)
    {
        let address = safe(&http.address);
        next.push(format!(
            "newswire doctor --quick --url http://{address}/   # needs no rights: what the gateway answers"
        ));
    }
    DoctorVerdict::new(VerdictCode::Unknown, line, next)
}

/// Texts of the entries without repetitions, in their order.
fn distinct(entries: &[ProofEntry], text: impl Fn(&ProofEntry) -> Option<&String>) -> Vec<&String> {
    let mut texts: Vec<&String> = Vec::new();
    for text in entries.iter().filter_map(text) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// A broken configuration is a fault of its own, unless a worse one is found: then the line mentions it.
fn with_configuration(evidence: &Evidence, found: DoctorVerdict) -> DoctorVerdict {
    let complaints = &evidence.configured.complaints;
    let Some(first) = complaints.first() else { return found };
    let check = match &evidence.config {
        Some(config) => format!("newswire config check --config {}", next::quoted(config)),
        None => "newswire config check".to_owned(),
    };
    if matches!(found.exit(), Exit::Ok | Exit::Unknown) {
        let all = complaints.iter().map(|complaint| whole(complaint)).collect::<Vec<_>>().join("; ");
        let line = format!(
            "the configuration has mistakes, with which the programs would not start again: {all}; what was seen: {}",
            found.line
        );
        let mut verdict = DoctorVerdict::new(VerdictCode::ConfigurationBroken, line, [check]);
        verdict.next.extend(found.next);
        return verdict;
    }
    let line = format!("{}; besides, the configuration is broken: {}", found.line, whole(first));
    let mut verdict = DoctorVerdict { line, ..found };
    verdict.next.push(format!("{check}   # with its mistakes the programs would not start"));
    verdict
}

/// `; it was killed 5s ago in the middle of a stall: …`, from the black box of a process that does not run.
fn last_words(daemon: &DaemonEvidence) -> String {
    let ending = daemon.black_box.get().and_then(|report| report.last.ending());
    ending.map(|ending| format!("; {ending}")).unwrap_or_default()
}

/// What was stalled when a process that does not answer last wrote its black box.
fn stalled_before(daemon: &DaemonEvidence) -> String {
    let last = daemon.black_box.get().map(|report| &report.last).filter(|last| last.running);
    let stalled = last.and_then(|last| Some((last.stalled()?, duration(last.written_ms_ago))));
    stalled.map(|(stall, ago)| format!("; {ago} ago {stall}")).unwrap_or_default()
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
