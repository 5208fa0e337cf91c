//! What an outbox says about itself: a status for others to wait for, counters, and reports for the log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use news::{Cursor, Epoch, Seq};
use tokio::sync::watch;

use crate::nats::{connection::ServerIdentity, epoch::EpochChange, notices::NewestSeen};

/// An outbox at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxStatus {
    /// Whether it publishes, or would if there were events.
    pub connected: bool,
    /// The epoch of the stream that it publishes to.
    pub epoch: Option<Epoch>,
    /// The newest event of the log of which the stream has, or had, this one and all before.
    pub through: Seq,
    /// The newest event of the stream that it has published.
    pub newest: Option<NewestSeen>,
    /// Events in memory that wait for others of their source, or for a confirmation.
    pub waiting: usize,
    /// Events that wait for a confirmation.
    pub in_flight: usize,
    /// Whether it goes through the whole log, because the epoch of the stream is new.
    pub refilling: bool,
    /// Why it does not publish, or not all.
    pub problem: Option<String>,
}

/// What an outbox has done since its start.
#[derive(Debug, Default)]
pub struct OutboxCounters {
    /// Events that the servers confirmed.
    pub published: AtomicU64,
    /// Events that were in the stream already, and were not published again.
    pub passed_over: AtomicU64,
    /// Events that another daemon had published already, and were not published again.
    pub same_as_another: AtomicU64,
    /// Messages of other daemons and earlier ones of this one that were read, to know what is the same.
    pub others_read: AtomicU64,
    /// Times that the oldest messages of a subject were left unread, because there were too many.
    pub unread: AtomicU64,
    /// Attempts to publish an event that did not succeed, and were made again.
    pub retries: AtomicU64,
    /// Events that were published without their content, because they were larger than the servers allow.
    pub shortened: AtomicU64,
    /// Events that cannot be published at all.
    pub refused: AtomicU64,
    /// Events that the retention of the log removed before they were published.
    pub lost: AtomicU64,
    /// Times that it went through the whole log.
    pub refills: AtomicU64,
    /// Epochs that it began.
    pub epochs: AtomicU64,
    /// Runs of ids of the log and of the stream that mean the same, and were forgotten because there were too many.
    pub alias_runs_dropped: AtomicU64,
    /// Notices that were not published, because too many waited.
    pub notices_dropped: AtomicU64,
}

impl OutboxCounters {
    pub(in crate::nats) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Relaxed);
    }
}

/// What is worth a line in the log: a change of state, or an event that is not published as it is.
#[derive(Clone, Debug)]
pub enum OutboxReport {
    /// It publishes.
    Connected(ServerIdentity),
    /// It cannot publish; the log keeps the events.
    Lost {
        /// Why.
        problem: String,
    },
    /// The stream has other limits than the configuration; the text says what changes them.
    Differs(String),
    /// It begins a new epoch of the stream: all clients are told.
    EpochBegins(EpochChange),
    /// The epoch of the stream is new: it goes through the whole log.
    RefillBegun {
        /// The epoch.
        epoch: Epoch,
        /// Why it is new.
        reason: EpochChange,
        /// Events of the log.
        events: u64,
    },
    /// It has gone through the whole log.
    RefillEnded {
        /// The epoch.
        epoch: Epoch,
        /// How long that took.
        took: Duration,
    },
    /// An event was larger than the servers allow, and went without its content.
    Shortened {
        /// Its id in the log.
        origin: Cursor,
        /// Its size.
        bytes: usize,
        /// The limit of the servers.
        bytes_max: usize,
    },
    /// An event cannot be published.
    Refused {
        /// Its id in the log.
        origin: Cursor,
        /// Why.
        reason: String,
    },
    /// Retention removed events of the log before they were published.
    Missed {
        /// The first one.
        first: Seq,
        /// How many.
        events: u64,
    },
}

/// Where reports go; must not block.
pub type OutboxReports = Arc<dyn Fn(OutboxReport) + Send + Sync>;

/// What all parts of an outbox tell.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) status: Arc<watch::Sender<OutboxStatus>>,
    pub(super) counters: Arc<OutboxCounters>,
    pub(super) reports: OutboxReports,
}

impl Told {
    pub(super) fn report(&self, report: OutboxReport) {
        (self.reports)(report);
    }

    /// It publishes again, as far as is known.
    pub(super) fn works(&self, server: Option<ServerIdentity>) {
        let was_connected = self.status.borrow().connected;
        self.status.send_modify(|status| {
            status.connected = true;
            status.problem = None;
        });
        if let Some(server) = server.filter(|_| !was_connected) {
            self.report(OutboxReport::Connected(server));
        }
    }

    /// It does not publish; reported if that is new.
    pub(super) fn stopped_working(&self, problem: String) {
        let is_new = {
            let status = self.status.borrow();
            status.connected || status.problem.is_none()
        };
        self.status.send_modify(|status| {
            status.connected = false;
            status.problem = Some(problem.clone());
        });
        if is_new {
            self.report(OutboxReport::Lost { problem });
        }
    }
}
