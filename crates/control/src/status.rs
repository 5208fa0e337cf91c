//! `GET /status` of the admin sockets: the full status of a process. Unlike `/watch`, it may have to wait for other
//! threads.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /status` of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Open streams.
    pub clients: u64,
    /// Whether it is closing streams because it stops.
    pub draining: bool,
    /// Panics since its start.
    pub panics: u64,
    /// Its connection to the ingestion daemon.
    pub wire: LinkStatus,
    /// Its newest events.
    pub ring: RingReport,
}

/// The gateway's end of the wire, for `/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Whether it is connected.
    pub connected: bool,
    /// Why it was last disconnected; empty if it never was.
    pub reason: String,
    /// When anything was received last.
    pub heard_ms_ago: Option<u64>,
}

/// The events in a gateway's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingReport {
    /// Whether the first fill is complete.
    pub filled: bool,
    /// Number of events.
    pub events: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// `GET /status` of the ingestion daemon. `S` is the status of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestStatus<S = Value> {
    /// The epoch of the log.
    pub epoch: String,
    /// The sequence number of the oldest event.
    pub oldest: u64,
    /// The sequence number of the newest event.
    pub head: u64,
    /// Panics since its start.
    pub panics: u64,
    /// Idle sources whose visit should have started.
    pub overdue: u64,
    /// Every source.
    pub sources: Vec<S>,
}

/// `GET /health` of `ingestd.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestHealth {
    /// `ok`
    pub status: String,
    /// The name of the program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The epoch of the log.
    pub epoch: String,
    /// The sequence number of the oldest event.
    pub oldest: u64,
    /// The sequence number of the newest event.
    pub head: u64,
}
