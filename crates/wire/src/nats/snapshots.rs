//! What a daemon that takes over a source needs of it, in the stream `NAME-snapshots`: its state and its seen set.
//!
//! ```text
//! newswire.snapshots.bbc.seen     the seen set, and what waits to be recorded
//! newswire.snapshots.bbc.state    the state: validators, the next visit
//!   Newswire-Daemon: <daemon>     who wrote it
//!   Newswire-Through: <epoch of the stream of events>-<seq>   the last event on the source's subject that it knows
//! ```
//!
//! Each publication names the message that it replaces: a daemon whose source was taken over by another one is refused.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use bytes::Bytes;
use news::{Cursor, Event};

use super::{
    event_stream::{EventStream, StreamProblem},
    names::SubjectNames,
};

/// What has been done with snapshots since the start.
#[derive(Debug, Default)]
pub struct SnapshotCounters {
    /// Snapshots that the servers confirmed.
    pub published: AtomicU64,
    /// Snapshots that were refused, because another daemon had published one of the source.
    pub fenced: AtomicU64,
    /// States or seen sets that were not published, because they are larger than the servers allow.
    pub too_large: AtomicU64,
    /// Messages of the stream of events that were read, because a snapshot did not know them.
    pub events_read: AtomicU64,
    /// Times that events of a source were left unread, because there were too many.
    pub unread: AtomicU64,
}

/// A source as its daemon knows it.
#[derive(Clone, Debug)]
pub struct SourceSnapshot {
    /// The id of the source.
    pub source: String,
    /// The last event on the source's subject that it knows, [`KnownEnds::last_of`](super::KnownEnds::last_of); without it, who
    /// takes over reads all events of the source.
    pub through: Option<Cursor>,
    /// The state, as JSON.
    pub state: Bytes,
    /// The seen set; `None` leaves the one that is there.
    pub seen: Option<Bytes>,
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// It is in the stream. `too_large` says which parts are not, because they are larger than the servers allow
    /// (`max_payload`); the earlier ones stay.
    Published {
        /// `state` or `seen`, and their bytes.
        too_large: Vec<(&'static str, usize)>,
    },
    /// Another daemon has published one of this source since this process has read or written it; nothing more was published.
    /// If the source is still its own, it is to be read anew.
    OwnedByAnother {
        /// The other daemon.
        writer: Option<String>,
    },
}

/// A part of a snapshot as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    /// As it was written.
    pub bytes: Bytes,
    /// The daemon that wrote it.
    pub writer: String,
    /// The last event on the source's subject that it knows.
    pub through: Option<Cursor>,
}

/// An event on the subject of a source that its snapshot does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaterEvent {
    /// Its number in the stream.
    pub sequence: u64,
    /// Its id in the log of the daemon that recorded it.
    pub origin: Cursor,
    /// The event, with its id in the stream.
    pub event: Event,
}

/// What there is of a source that is taken over.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// The state, as JSON.
    pub state: Option<SnapshotPart>,
    /// The seen set.
    pub seen: Option<SnapshotPart>,
    /// The events on the source's subject that the seen set does not know, or all of them without one; in order.
    pub events: Vec<LaterEvent>,
    /// Whether older ones of these were left out, because there were too many.
    pub is_cut: bool,
    /// The last message on the source's subject when it was read, 0 without one, under the epoch of the stream: with
    /// `events` in the store, the store knows all events of the source up to it.
    pub end: Cursor,
}

/// Reads and publishes snapshots. Cheap to clone; all clones know the same.
#[derive(Clone)]
pub struct Snapshots {
    stream: EventStream,
    daemon: Arc<str>,
    counters: Arc<SnapshotCounters>,
    /// The number of the last message of each subject that this process has read or written.
    last: Arc<Mutex<HashMap<String, u64>>>,
}

impl Snapshots {
    /// Beside this stream of events, as `daemon`: the epoch of its log.
    #[must_use]
    pub fn new(stream: EventStream, daemon: &str, counters: Arc<SnapshotCounters>) -> Self {
        Self { stream, daemon: daemon.into(), counters, last: Arc::default() }
    }

    /// Makes the stream unless it exists, or checks whether it fits. The texts are differences from the configuration that
    /// do no harm.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn prepare(&self) -> Result<Vec<String>, StreamProblem> {
        Err(StreamProblem::NoAnswer("snapshots are not read or written yet".to_owned()))
    }

    /// What there is of a source, and the events on its subject that the snapshot does not know.
    ///
    /// # Errors
    /// [`StreamProblem`]; to be tried again.
    pub async fn read(&self, source: &str, category: &str) -> Result<Predecessor, StreamProblem> {
        Err(StreamProblem::NoAnswer("snapshots are not read or written yet".to_owned()))
    }

    /// Publishes a snapshot, the seen set first. Only one of a source may be on its way at a time.
    ///
    /// # Errors
    /// [`StreamProblem`]; to be tried again, with what the source is like then.
    pub async fn publish(&self, snapshot: SourceSnapshot) -> Result<SnapshotOutcome, StreamProblem> {
        Err(StreamProblem::NoAnswer("snapshots are not read or written yet".to_owned()))
    }

    /// The names in NATS.
    #[must_use]
    pub fn names(&self) -> &SubjectNames {
        self.stream.connection().names()
    }

    /// Forgets what was read or written of a source, which belongs to another daemon now.
    pub fn forget(&self, source: &str) {
        let names = self.stream.connection().names();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.remove(&names.snapshot_state(source));
        last.remove(&names.snapshot_seen(source));
    }
}
