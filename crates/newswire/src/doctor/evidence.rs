//! The evidence, as the rules read it and as `--json` shows it. [`run`](super::run) documents its names.

use std::net::SocketAddr;

use control::{GatewayVitals, HealthReport, IngestVitals, ProcessVitals, WatchReport, watch::SourcesReport};
use serde::Serialize;
use wire::nats::NatsSurvey;

use crate::black_box::BlackBoxReport;

pub(crate) use super::presence::{OtherProcess, Presence};
use super::{
    admin::LateLoop,
    http,
    listener::ListenerReport,
    log_end::LogEnd,
    part::Part,
    process::{ProcessSample, Usage},
    proof_entry::ProofEntry,
    resources::{
        ProcessResources, file_system::StoreFileSystem, pressure::Pressures, store_placement::StorePlacement,
    },
    started_as::StartedAs,
    systemd::SystemdUnit,
    threads::Stacks,
    waits::WaitChain,
};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// Both processes of the configuration.
    Both,
    /// One process, whatever its configuration.
    Pid,
    /// A gateway, by its answers only.
    Url,
}

/// What the configuration says, as far as the proof needs it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Configured {
    /// `gateway.listen`
    pub(crate) listen: Option<SocketAddr>,
    /// `store.path`, absolute.
    pub(crate) store: Option<String>,
    /// What is wrong with the configuration or the list of sources.
    pub(crate) complaints: Vec<String>,
    /// Why this user may not read the configuration.
    pub(crate) unreadable: Option<String>,
}

/// All evidence.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Evidence {
    pub(crate) at: String,
    pub(crate) took_ms: u64,
    pub(crate) version: &'static str,
    /// Whether root asks: what takes rights needs no `sudo` then.
    pub(crate) is_root: bool,
    pub(crate) quick: bool,
    pub(crate) target: Target,
    pub(crate) config: Option<String>,
    pub(crate) configured: Configured,
    pub(crate) run_dir: String,
    /// The group that may enter `run_dir`.
    pub(crate) run_dir_group: Option<String>,
    /// What was proved, and what could not be looked at.
    pub(crate) proof: Vec<ProofEntry>,
    pub(crate) http: Part<http::HttpProbes>,
    pub(crate) listener: Part<ListenerReport>,
    pub(crate) ingestd: DaemonEvidence,
    pub(crate) gateway: DaemonEvidence,
    pub(crate) store: Part<Disk>,
    pub(crate) file_system: Part<StoreFileSystem>,
    pub(crate) store_place: Part<StorePlacement>,
    pub(crate) other_gateways: Vec<OtherGateway>,
    /// What NATS says, if it is the wire.
    pub(crate) nats: Part<NatsSurvey>,
    /// Of the machine.
    pub(crate) pressure: Part<Pressures>,
    /// What threads wait for, the chain that explains most first.
    pub(crate) waits: Part<Vec<WaitChain>>,
}

impl Evidence {
    /// Both processes, the ingestion daemon first.
    pub(crate) fn daemons(&self) -> impl Iterator<Item = &DaemonEvidence> {
        [&self.ingestd, &self.gateway].into_iter()
    }

    /// The chains that explain something, of one process or of both.
    pub(crate) fn chains<'a>(&'a self, process: Option<&'a str>) -> impl Iterator<Item = &'a WaitChain> {
        let of = move |chain: &&WaitChain| process.is_none_or(|process| chain.process == process);
        self.waits.get().into_iter().flatten().filter(|chain| chain.explains()).filter(of)
    }
}

/// One of the two processes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DaemonEvidence {
    pub(crate) name: &'static str,
    pub(crate) presence: Presence,
    /// How it was found, or why it was not.
    pub(crate) found_by: String,
    /// Its admin socket.
    pub(crate) socket: String,
    pub(crate) process: Part<ProcessSample>,
    pub(crate) resources: Part<ProcessResources>,
    pub(crate) health: Part<HealthReport>,
    pub(crate) watch: Part<WatchReport>,
    /// The same about a second later.
    pub(crate) watch_later: Part<WatchReport>,
    /// Time between the two.
    pub(crate) watched_for_ms: u64,
    /// Whether the thread of its watchdog ran meanwhile, as the kernel counts. `None` if it has none, or was not looked at.
    pub(crate) watchdog_ran: Option<bool>,
    /// Loops whose beats were late repeatedly within a second.
    pub(crate) late: Vec<LateLoop>,
    pub(crate) unit: Part<SystemdUnit>,
    pub(crate) stacks: Part<Stacks>,
    /// What it did last, from its file.
    pub(crate) black_box: Part<BlackBoxReport>,
    /// Where its log goes; looked for only if that takes no lines.
    pub(crate) log_end: Part<LogEnd>,
    /// Processes of the same program that belong to another configuration.
    pub(crate) others: Vec<OtherProcess>,
    /// A process of another program that listens on its admin socket.
    pub(crate) foreign: Option<OtherProcess>,
    /// Whether this user may not enter the directory of its sockets.
    pub(crate) denied: bool,
    /// Whether this user may send it signals: root, and the user of the process.
    pub(crate) may_end: bool,
    /// How it was started, or would be.
    pub(crate) started: StartedAs,
}

impl DaemonEvidence {
    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.get().map(|process| process.pid)
    }

    /// What it reported last.
    pub(crate) fn latest(&self) -> Option<&WatchReport> {
        self.watch_later.get().or_else(|| self.watch.get())
    }

    /// What it reported first and, unless there was one report only, about a second later.
    pub(crate) fn reports(&self) -> impl Iterator<Item = &WatchReport> {
        [&self.watch, &self.watch_later].into_iter().filter_map(Part::get)
    }

    /// The diagnostics that it reported, the last first.
    fn vitals(&self) -> impl Iterator<Item = &ProcessVitals> {
        [&self.watch_later, &self.watch].into_iter().filter_map(|report| report.get()?.vitals.as_ref())
    }

    /// What a gateway reported last.
    pub(crate) fn gateway_vitals(&self) -> Option<&GatewayVitals> {
        self.vitals().next()?.gateway()
    }

    /// What an ingestion daemon reported last.
    pub(crate) fn ingest_vitals(&self) -> Option<&IngestVitals> {
        self.vitals().next()?.ingest()
    }

    /// What an ingestion daemon reported first.
    pub(crate) fn first_ingest_vitals(&self) -> Option<&IngestVitals> {
        self.reports().find_map(|report| report.vitals.as_ref()?.ingest())
    }

    /// How often it was looked at, for rules that read counters: what a rule finds in every report lasts.
    pub(crate) fn looks(&self) -> usize {
        self.reports().count()
    }

    /// What an ingestion daemon reports about its sources.
    pub(crate) fn sources(&self) -> Option<&SourcesReport> {
        self.ingest_vitals()?.sources.as_ref()
    }

    /// Open descriptors, counted from outside, else as the process reports them.
    pub(crate) fn open_files(&self) -> Option<Usage> {
        let counted = self.process.get().and_then(|process| process.open_files);
        let reported = || {
            let files = self.vitals().next()?.open_files();
            Some(Usage { used: files.used, max: files.max })
        };
        counted.or_else(reported)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.presence == Presence::Running
    }

    pub(crate) fn uptime_ms(&self) -> Option<u64> {
        let process = self.process.get().map(|process| process.uptime_ms);
        process.or_else(|| self.health.get().map(|health| health.uptime_ms))
    }
}

/// A gateway beside the one that is examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OtherGateway {
    pub(crate) pid: i32,
    pub(crate) command: String,
    pub(crate) admin_socket: String,
    /// The word of the verdict on it, as `newswire doctor --pid` would say it.
    pub(crate) verdict: &'static str,
    /// The verdict is a fault.
    pub(crate) is_sick: bool,
    pub(crate) line: String,
}

/// The file system of the store, as this tool sees it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Disk {
    pub(crate) path: String,
    /// Available to unprivileged users.
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
    /// `None` if the file system does not count inodes.
    pub(crate) free_inodes: Option<u64>,
}
