//! The evidence, as the rules read it and as `--json` shows it. [`run`](super::run) documents its names.

use control::{GatewayVitals, HealthReport, IngestVitals, WatchReport, watch::SourcesReport};
use serde::Serialize;

use super::{
    admin::LateLoop,
    http,
    listener::ListenerReport,
    log_end::LogEnd,
    part::Part,
    process::{ProcessSample, Usage},
    systemd::SystemdUnit,
    threads::Stacks,
};

/// Whether a process is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Presence {
    /// It runs, which says nothing about its health.
    Running,
    /// It does not run.
    Absent,
    /// This user may not see.
    Unknown,
    /// It is not examined.
    NotAsked,
}

/// All evidence.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Evidence {
    pub(crate) at: String,
    pub(crate) took_ms: u64,
    pub(crate) version: &'static str,
    pub(crate) quick: bool,
    pub(crate) config: Option<String>,
    pub(crate) run_dir: String,
    pub(crate) http: Part<http::HttpProbes>,
    pub(crate) listener: Part<ListenerReport>,
    pub(crate) ingestd: DaemonEvidence,
    pub(crate) gateway: DaemonEvidence,
    pub(crate) store: Part<Disk>,
}

impl Evidence {
    /// Both processes, the ingestion daemon first.
    pub(crate) fn daemons(&self) -> impl Iterator<Item = &DaemonEvidence> {
        [&self.ingestd, &self.gateway].into_iter()
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
    pub(crate) health: Part<HealthReport>,
    pub(crate) watch: Part<WatchReport>,
    /// Loops whose beats were late repeatedly within a second.
    pub(crate) late: Vec<LateLoop>,
    pub(crate) unit: Part<SystemdUnit>,
    pub(crate) stacks: Part<Stacks>,
    /// Where its log goes; looked for only if that takes no lines.
    pub(crate) log_end: Part<LogEnd>,
    /// Processes of the same program that belong to another configuration.
    pub(crate) others: Vec<OtherProcess>,
}

impl DaemonEvidence {
    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.get().map(|process| process.pid)
    }

    /// What a gateway reports.
    pub(crate) fn gateway_vitals(&self) -> Option<&GatewayVitals> {
        self.watch.get()?.vitals.as_ref()?.gateway()
    }

    /// What an ingestion daemon reports.
    pub(crate) fn ingest_vitals(&self) -> Option<&IngestVitals> {
        self.watch.get()?.vitals.as_ref()?.ingest()
    }

    /// What an ingestion daemon reports about its sources.
    pub(crate) fn sources(&self) -> Option<&SourcesReport> {
        self.ingest_vitals()?.sources.as_ref()
    }

    /// Open descriptors, counted from outside, else as the process reports them.
    pub(crate) fn open_files(&self) -> Option<Usage> {
        let counted = self.process.get().and_then(|process| process.open_files);
        let reported = || {
            let files = self.watch.get()?.vitals.as_ref()?.open_files();
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

/// A process of the same program that belongs to another instance.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OtherProcess {
    pub(crate) pid: i32,
    pub(crate) command: String,
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
