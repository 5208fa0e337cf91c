//! What was found, as the judge reads it and as `--json` shows it. See [`run`](super::run) for the names.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{admin, http, listener::Listener, process::ProcessSample, systemd::SystemdUnit, threads::Stacks};

/// A part of the evidence, or why it is missing.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Part<T> {
    /// It is available.
    Found(T),
    /// It is not.
    Missing {
        /// Why not, for people.
        missing: String,
        /// Why not, for the rules.
        #[serde(skip)]
        cause: MissingCause,
    },
}

/// Why a part of the evidence is missing, as far as the rules tell reasons apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingCause {
    /// The options exclude it.
    NotAsked,
    /// There was no complete answer in time.
    TimedOut,
    /// Anything else.
    Other,
}

impl<T> Part<T> {
    pub(crate) fn missing(why: impl Into<String>) -> Self {
        Self::Missing { missing: why.into(), cause: MissingCause::Other }
    }

    pub(crate) fn not_asked() -> Self {
        Self::Missing { missing: "not asked".to_owned(), cause: MissingCause::NotAsked }
    }

    pub(crate) fn timed_out(why: impl Into<String>) -> Self {
        Self::Missing { missing: why.into(), cause: MissingCause::TimedOut }
    }

    pub(crate) fn is_missing_because(&self, expected: MissingCause) -> bool {
        matches!(self, Self::Missing { cause, .. } if *cause == expected)
    }

    pub(crate) fn get(&self) -> Option<&T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Missing { .. } => None,
        }
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Part<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(found) => Self::Found(found),
            Err(error) => Self::missing(error.to_string()),
        }
    }
}

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
    pub(crate) listener: Part<Listener>,
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
    pub(crate) health: Part<admin::Health>,
    pub(crate) watch: Part<admin::Watch>,
    /// Loops whose beats were late repeatedly within a second.
    pub(crate) late: Vec<LateLoop>,
    pub(crate) unit: Part<SystemdUnit>,
    pub(crate) stacks: Part<Stacks>,
    /// Processes of the same program that belong to another configuration.
    pub(crate) others: Vec<OtherProcess>,
}

impl DaemonEvidence {
    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.get().map(|process| process.pid)
    }

    pub(crate) fn vitals(&self) -> Option<&admin::Vitals> {
        self.watch.get().map(|watch| &watch.vitals)
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
    pub(crate) work: Option<admin::Work>,
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

/// How much of something is used, and its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Usage {
    pub(crate) used: u64,
    pub(crate) max: u64,
}

/// Threads of a process by the letter of their state (proc_pid_stat(5)).
pub(crate) type ThreadStates = BTreeMap<char, u32>;
