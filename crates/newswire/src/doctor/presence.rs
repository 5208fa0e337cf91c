//! Whether a process runs, and a process that is another one.

use serde::Serialize;

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

/// A process of the same program that belongs to another instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OtherProcess {
    pub(crate) pid: i32,
    pub(crate) command: String,
}
