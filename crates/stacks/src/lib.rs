//! What every thread of a process is doing: stacks with function, file and line, taken from outside
//! ([`of_process`]) or by the process itself ([`SelfSampler`]).

mod copy;
mod inside;
mod modules;
mod outside;
mod proc;
mod symbols;
mod sys;
mod text;

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};

pub use inside::SelfSampler;
pub use text::OUR_CRATES;

/// One place in a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFrame {
    /// Its address in the memory of the process.
    pub address: u64,
    /// The file it was loaded from, without its folder.
    pub module: String,
    /// Demangled, without the hash.
    pub function: Option<String>,
    /// As the compiler wrote it, shortened to what follows the last `/src/../..` of the workspace or registry.
    pub file: Option<String>,
    /// Counted from 1.
    pub line: Option<u32>,
    /// The compiler put it into the next one.
    #[serde(default)]
    pub inlined: bool,
}

/// One thread at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStack {
    /// Its number.
    pub tid: i32,
    /// Its name (`comm`).
    pub name: String,
    /// The letter of `/proc/PID/task/TID/stat`: R running, S asleep, D waiting for the disk, T stopped, ...
    pub state: char,
    /// The function of the kernel it waits in, where the system tells.
    pub wchan: Option<String>,
    /// Innermost first. Empty when they could not be had; then `missing` says why.
    pub frames: Vec<StackFrame>,
    /// Why there are no frames, or not all.
    pub missing: Option<String>,
}

/// All threads of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackDump {
    /// The process.
    pub pid: i32,
    /// By tid.
    pub threads: Vec<ThreadStack>,
    /// From first to last, with the symbols.
    pub took: Duration,
    /// The longest that a thread was kept from running.
    pub longest_pause: Duration,
}

/// Takes the stacks of another process from outside (ptrace). Blocks up to a second; each thread is stopped for well
/// under a millisecond. Without the right to, threads come with what `/proc` tells and with `missing` set.
///
/// # Errors
/// When there is no such process.
pub fn of_process(pid: i32) -> io::Result<StackDump> {
    outside::capture(pid)
}
