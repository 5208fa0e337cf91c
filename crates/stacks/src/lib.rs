//! Stack dumps of all threads of a process, with function, file and line: taken from outside ([`of_process`]) or by the
//! process itself ([`SelfSampler`]).

mod copy;
mod inside;
mod modules;
mod outside;
mod proc;
mod references;
mod symbols;
mod sys;
mod text;

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};

pub use inside::SelfSampler;
pub use references::{StackReference, references, words};

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFrame {
    /// Its code address in the process.
    pub address: u64,
    /// The name of the binary or library, without its folder.
    pub module: String,
    /// Demangled, without the hash.
    pub function: Option<String>,
    /// The path in the debug information, without the prefix of the build machine.
    pub file: Option<String>,
    /// Counted from 1.
    pub line: Option<u32>,
    /// The compiler inlined it into the next frame.
    #[serde(default)]
    pub inlined: bool,
}

/// One thread at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStack {
    /// Its thread id.
    pub tid: i32,
    /// Its name (`comm`).
    pub name: String,
    /// The letter of `/proc/PID/task/TID/stat`: R running, S sleeping, D uninterruptible (disk), T stopped, ...
    pub state: char,
    /// The kernel function it waits in, if the system reports it.
    pub wchan: Option<String>,
    /// Innermost first. Empty if unavailable; then `missing` says why.
    pub frames: Vec<StackFrame>,
    /// Why there are no frames, or not all.
    pub missing: Option<String>,
}

/// All threads of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackDump {
    /// The process id.
    pub pid: i32,
    /// By tid.
    pub threads: Vec<ThreadStack>,
    /// Duration of the whole dump, with symbols.
    pub took: Duration,
    /// The longest pause of a single thread.
    pub longest_pause: Duration,
}

/// Dumps the stacks of another process by ptrace. Blocks for up to a second; each thread is stopped for well under a
/// millisecond. Without permission, threads have only the data of `/proc`, and `missing` is set.
///
/// # Errors
/// If there is no such process.
pub fn of_process(pid: i32) -> io::Result<StackDump> {
    outside::capture(pid)
}
