//! The links of a chain, as `--json` shows them.

use std::path::PathBuf;

use serde::Serialize;

/// What a thread waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum WaitsFor {
    /// A lock, or another word in memory that another thread changes.
    Lock {
        /// Of the word, hexadecimal.
        address: String,
        lock: LockKind,
    },
    /// A pipe.
    Pipe { inode: Option<u64>, path: Option<PathBuf>, access: WaitAccess },
    /// A Unix socket.
    UnixSocket {
        inode: Option<u64>,
        /// The socket at the other end; `None` if the kernel does not tell.
        peer_inode: Option<u64>,
        path: Option<PathBuf>,
        access: WaitAccess,
    },
    /// A connection to another machine or process.
    Tcp { local: String, peer: String, access: WaitAccess },
    /// A socket of another kind.
    Socket { inode: u64, access: WaitAccess },
    /// A terminal.
    Terminal { path: PathBuf, access: WaitAccess },
    /// A file, or the file system that it is on.
    File {
        path: Option<PathBuf>,
        mount: Option<PathBuf>,
        file_system: Option<String>,
        /// The file system takes no writes (`fsfreeze`).
        frozen: bool,
        call: &'static str,
        wchan: Option<String>,
    },
    /// A page of its memory that must be read, or the lock of its memory.
    PageFault { wchan: Option<String> },
    /// A process that traces it.
    Tracer,
    /// A signal that continues it.
    Signal,
    /// Its control group to be thawed.
    Frozen { group: Option<String> },
    /// A child.
    Child,
    /// Events, messages or time: it may be idle.
    Events { call: &'static str },
    /// Something in the kernel.
    Kernel { call: Option<i64>, wchan: Option<String> },
    /// Nothing: it runs, or waits for a processor.
    Nothing,
}

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WaitAccess {
    Read,
    Write,
}

/// What is known about a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LockKind {
    /// A mutex of C, which names its owner.
    Pthread,
    /// A mutex of the standard library.
    Mutex,
    /// The lock of `parking_lot`, which is known by its queue only.
    ParkingLot,
    /// That of the allocator.
    Allocator,
    /// A condition, a channel, or a lock that is not known.
    Other,
}

/// Who holds the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HeldBy {
    pub(crate) pid: i32,
    /// `None` if it is any thread of the process.
    pub(crate) tid: Option<i32>,
    pub(crate) how: HeldHow,
}

/// How the holder is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HeldHow {
    /// The lock names it.
    Owner,
    /// Its stack refers to the lock.
    Likely,
    /// It holds the other end of the pipe.
    OtherEnd,
    /// It holds the other end of the connection.
    Peer,
    /// It traces the thread.
    Tracer,
}

/// One thread of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct WaitLink {
    /// The name of the process.
    pub(crate) process: String,
    pub(crate) pid: i32,
    /// `None` if it is the whole process.
    pub(crate) tid: Option<i32>,
    /// The name of its loop, else of the thread.
    pub(crate) thread: String,
    /// Whether the process is one of ours.
    pub(crate) ours: bool,
    pub(crate) waits_for: WaitsFor,
    pub(crate) held_by: Option<HeldBy>,
    /// In both samples the same wait, and it did not run in between. Otherwise it moves.
    pub(crate) still: bool,
    /// The function that most likely waits.
    pub(crate) at: Option<String>,
    /// The last link: what everything before waits for.
    pub(crate) root: bool,
    /// The sentence about it, as in the text.
    pub(crate) says: String,
}

/// A thread that waits, and those that it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct WaitChain {
    /// The program whose thread is the first link.
    pub(crate) process: &'static str,
    /// How long at least, if a stalled loop tells.
    pub(crate) since_ms: Option<u64>,
    /// Whether each link is the same in both samples.
    pub(crate) still: bool,
    /// The links wait for each other.
    pub(crate) deadlock: bool,
    /// Further threads of the process that wait for the same as the first link.
    pub(crate) also: Vec<String>,
    pub(crate) links: Vec<WaitLink>,
    /// All links in one line.
    pub(crate) line: String,
}

impl WaitChain {
    pub(crate) fn root(&self) -> Option<&WaitLink> {
        self.links.last()
    }

    /// Whether the chain says more about its first thread than that it waits.
    pub(crate) fn explains(&self) -> bool {
        let Some(root) = self.root() else { return false };
        let silent =
            matches!(root.waits_for, WaitsFor::Nothing | WaitsFor::Events { .. } | WaitsFor::Kernel { .. })
                || matches!(root.waits_for, WaitsFor::Lock { .. }) && root.held_by.is_none();
        self.deadlock || self.links.len() > 1 || !silent
    }
}

impl WaitsFor {
    /// Whether something else keeps the thread from going on: never an idle wait.
    pub(crate) fn is_held(&self) -> bool {
        match self {
            Self::Lock { lock, .. } => *lock != LockKind::Other,
            Self::Pipe { access, .. }
            | Self::UnixSocket { access, .. }
            | Self::Tcp { access, .. }
            | Self::Socket { access, .. }
            | Self::Terminal { access, .. } => *access == WaitAccess::Write,
            Self::File { .. }
            | Self::PageFault { .. }
            | Self::Tracer
            | Self::Signal
            | Self::Frozen { .. } => true,
            Self::Child | Self::Events { .. } | Self::Kernel { .. } | Self::Nothing => false,
        }
    }
}
