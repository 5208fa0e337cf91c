//! What was found, as the judge reads it and as `--json` shows it. See [`run`](super::run) for the names.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{admin, http, listener::Listener, process::ProcessSample, systemd::SystemdUnit, threads::Stacks};

/// Something that was looked for: found, or why not.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Part<T> {
    /// It was found.
    Found(T),
    /// It was not.
    Missing {
        /// Why not.
        missing: String,
    },
}

impl<T> Part<T> {
    pub(crate) fn missing(why: impl Into<String>) -> Self {
        Self::Missing { missing: why.into() }
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

/// Whether a process of ours is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Presence {
    /// It is, which says nothing about its health.
    Running,
    /// It is not.
    Absent,
    /// This user may not know.
    Unknown,
    /// Nobody asked about this one.
    NotAsked,
}

/// All of it.
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
    /// Both, the daemon first.
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
    /// Loops whose beats came late, looked at again and again for a second.
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

/// A process of the same program that is none of ours.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OtherProcess {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

/// How late the beats of one loop were, over about a second.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LateLoop {
    #[serde(rename = "loop")]
    pub(crate) name: String,
    pub(crate) tid: i32,
    /// How often it was looked at, and how often it was late.
    pub(crate) looks: u32,
    pub(crate) late: u32,
    pub(crate) worst_ms: u64,
    /// What its thread did meanwhile: ran, or was ready and got no processor.
    pub(crate) over_ms: u64,
    pub(crate) cpu_ms: Option<u64>,
    pub(crate) run_delay_ms: Option<u64>,
    /// What it worked on when it was late.
    pub(crate) work: Option<admin::Work>,
}

/// The file system of the store, as this process sees it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Disk {
    pub(crate) path: String,
    /// To users without privileges.
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
    /// `None` where the file system has no such number.
    pub(crate) free_inodes: Option<u64>,
}

/// How many of something there are, and how many there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Usage {
    pub(crate) used: u64,
    pub(crate) max: u64,
}

/// Threads of a process by the letter of their state.
pub(crate) type ThreadStates = BTreeMap<char, u32>;
