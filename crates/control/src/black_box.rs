//! The black box of a daemon: a file of fixed size with what it did last, which outlives the process. The daemon writes it
//! ([`layout`]), and the operator's tool reads it without the daemon ([`contents`]).
//!
//! The records are JSON, so that a reader ignores the fields and events that it does not know.

pub mod contents;
pub mod layout;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::watch::WatchKind;

pub use self::contents::{BlackBoxContents, BlackBoxError};
pub use self::layout::BlackBoxRing;

/// The version of the layout of the file. A reader of another version refuses it.
pub const FORMAT: u32 = 1;
/// The file of the ingestion daemon, in `daemon.run_dir`.
pub const INGESTD_FILE: &str = "ingestd.blackbox";
/// The file of a gateway, next to its admin socket.
pub const GATEWAY_FILE: &str = "gateway.blackbox";

/// Where the file of the run before is kept.
#[must_use]
pub fn previous(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".previous");
    path.with_file_name(name)
}

/// Whose file it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlackBoxHeader {
    /// [`FORMAT`] of the process that wrote it.
    pub format: u32,
    /// `newswire-ingestd` or `newswire-gateway`.
    pub program: String,
    /// The version of the program.
    pub version: String,
    /// Its process id.
    pub pid: i32,
    /// When it started, milliseconds since 1970.
    pub started_wall_ms: i64,
    /// The same by the clock that counts from the start of the machine, suspends included (`CLOCK_BOOTTIME`), milliseconds.
    pub started_boot_ms: u64,
    /// `/proc/sys/kernel/random/boot_id`: `boot_ms` of two files with the same one are comparable.
    pub boot_id: String,
    /// Distinguishes the records of this run from any others.
    pub run: u64,
    /// Bytes of the ring.
    pub ring_bytes: u64,
    /// Whether the process has finished its start.
    pub ready: bool,
}

/// What is written again and again at the same place: the last sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlackBoxPulse {
    /// When it was written, milliseconds since 1970.
    pub wall_ms: i64,
    /// The same by `CLOCK_BOOTTIME`.
    pub boot_ms: u64,
    /// When the watchdog last looked at all loops, by `CLOCK_BOOTTIME`; `None` before it started.
    pub watchdog_boot_ms: Option<u64>,
    /// Records that were dropped because the queue was full.
    pub dropped: u64,
    /// Writes that failed.
    pub failed_writes: u64,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlackBoxRecord {
    /// Starts at 0 and has no holes, unless a record was overwritten or damaged.
    pub seq: u64,
    /// When it happened, milliseconds since 1970, by a clock that may have been set.
    pub wall_ms: i64,
    /// The same by `CLOCK_BOOTTIME`.
    pub boot_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: BlackBoxEvent,
}

/// What a record says. Durations are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BlackBoxEvent {
    /// The process has finished its start.
    Ready,
    /// Every few seconds: the maximum lag of each loop since the last such record.
    Loops {
        /// All loops, pools and watched threads.
        loops: Vec<LoopLag>,
    },
    /// Every few seconds: queue lengths, clients, accepted connections and the like, by name.
    Counts {
        /// The values.
        counts: BTreeMap<Cow<'static, str>, u64>,
    },
    /// Loops whose beat was more than 10 ms late, so that a poll took that long or there was no processor.
    Late {
        /// These loops.
        loops: Vec<LoopLag>,
    },
    /// A task occupied its thread for more than 10 ms.
    Task {
        /// The name of the thread.
        thread: Arc<str>,
        /// What it did.
        what: Cow<'static, str>,
        /// For which source, client or address.
        of: Arc<str>,
        /// How long.
        ms: u64,
    },
    /// Visits were written to disk and synced.
    Commit {
        /// How many visits.
        visits: u64,
        /// Jobs that waited when it was done.
        queued: u64,
        /// How long it took.
        ms: u64,
    },
    /// A visit began.
    VisitBegan {
        /// The id of the source.
        source: Arc<str>,
    },
    /// A visit ended.
    VisitEnded {
        /// The id of the source.
        source: Arc<str>,
        /// `ok`, or its failure class.
        outcome: Cow<'static, str>,
        /// How long it took.
        ms: u64,
    },
    /// A loop stalled.
    StallBegan(Box<StallBeginning>),
    /// It is still stalled.
    StallContinues {
        /// The loop.
        name: Arc<str>,
        /// For how long so far.
        silent_ms: u64,
    },
    /// It continued.
    StallEnded {
        /// The loop.
        name: Arc<str>,
        /// How long it was stalled.
        lasted_ms: u64,
    },
    /// The stacks of all threads, one frame of each.
    Stacks {
        /// The threads that are at work or wait inside our code.
        threads: Vec<ThreadPlace>,
        /// How many others there were.
        idle: u64,
    },
    /// The whole process did not run.
    ProcessPaused {
        /// For how long.
        ms: u64,
    },
    /// The wall clock jumped.
    ClockJumped {
        /// By how much.
        ms: i64,
    },
    /// No visits begin from now on.
    RecordingPaused {
        /// Why.
        reason: Cow<'static, str>,
    },
    /// One reason for that is over.
    RecordingResumed {
        /// Which.
        reason: Cow<'static, str>,
    },
    /// A signal arrived.
    Signal {
        /// Such as `SIGTERM`.
        name: Cow<'static, str>,
    },
    /// The configuration was read again.
    Reload {
        /// Whether it is right, and in force.
        taken: bool,
    },
    /// A line of the log.
    Log {
        /// `ERROR`, `WARN` or `INFO`.
        level: Cow<'static, str>,
        /// Message and fields, cut.
        text: Arc<str>,
    },
    /// Records that were dropped because the queue was full.
    Dropped {
        /// How many.
        records: u64,
    },
    /// The process ended by itself. Without this record it was killed, or the machine went down.
    Ended {
        /// The exit code.
        exit: u8,
        /// The last error line of the log.
        error: Option<Arc<str>>,
    },
    /// An event of another version.
    #[serde(other)]
    Unknown,
}

/// How late a loop was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopLag {
    /// Its name.
    pub name: Arc<str>,
    /// How late its beat was at most, milliseconds.
    pub ms: u64,
}

/// Where a thread was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadPlace {
    /// The thread id.
    pub tid: i32,
    /// The name of the thread.
    pub name: String,
    /// The function, with file and line.
    pub at: String,
}

/// The beginning of a stall, as the watchdog saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallBeginning {
    /// The loop.
    pub name: Arc<str>,
    /// What it is.
    pub kind: WatchKind,
    /// The thread; 0 for a pool of which none is known.
    pub tid: i32,
    /// How long it had made no progress then, milliseconds.
    pub silent_ms: u64,
    /// What the thread was doing, and for whom.
    pub work: Option<String>,
    /// The function that blocked it, with file and line.
    pub culprit: Option<String>,
    /// The stack on one line, innermost frame first, cut.
    pub stack: Option<String>,
}
