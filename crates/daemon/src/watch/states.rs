//! What the watch keeps about listeners, tasks and threads that read on request. Atomics, and locks for assignments only: it
//! is read while any thread may be stuck.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Arc, Mutex};

use control::watch::WatchKind;

/// Where a listener of this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerAddress {
    /// The address that it is bound to.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What is known about a listener. Read while any thread may be stuck.
#[derive(Debug)]
pub(super) struct ListenerState {
    pub(super) name: &'static str,
    pub(super) kind: WatchKind,
    pub(super) address: ListenerAddress,
    /// 0 until it has answered.
    pub(super) answered_ms: AtomicU64,
    pub(super) took_ms: AtomicU64,
    /// 0 while it answers.
    pub(super) mute_ms: AtomicU64,
    /// The last probe found no listener of ours at the address.
    pub(super) is_missing: AtomicBool,
    pub(super) error: Mutex<Option<String>>,
    /// It was told that it does not answer.
    pub(super) is_told: AtomicBool,
}

/// How much is queued, and how much fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLength {
    /// What waits.
    pub queued: usize,
    /// How much can.
    pub capacity: usize,
}

impl QueueLength {
    /// Reads a bounded channel without keeping it open; empty once it is closed.
    pub fn of<T: Send + 'static>(
        queue: &tokio::sync::mpsc::Sender<T>,
    ) -> impl Fn() -> Self + Send + Sync + use<T> {
        // A strong handle would keep the channel open, and its receiver waiting.
        let (queue, capacity) = (queue.downgrade(), queue.max_capacity());
        move || {
            let free = queue.upgrade().map_or(capacity, |queue| queue.capacity());
            Self { queued: capacity - free, capacity }
        }
    }
}

/// Where a task is.
#[derive(Clone, Copy, Debug)]
pub(super) struct AwaitPoint {
    /// `None` while it works.
    pub(super) waits_for: Option<&'static str>,
    pub(super) idle: bool,
    pub(super) since_ms: u64,
}

pub(super) type ReadQueue = dyn Fn() -> QueueLength + Send + Sync;

/// What is known about a long-lived task.
pub(super) struct TaskState {
    pub(super) name: Arc<str>,
    pub(super) queue: Option<Box<ReadQueue>>,
    /// Locked for assignments only.
    pub(super) wait: Mutex<AwaitPoint>,
    /// How often it has begun to wait.
    pub(super) steps: AtomicU64,
}

/// A thread that reads something on request, one at a time.
#[derive(Debug, Default)]
pub(super) struct ObserverThread {
    pub(super) running: AtomicBool,
    /// 0 until it has begun.
    pub(super) tid: AtomicI32,
    pub(super) since_ms: AtomicU64,
}
