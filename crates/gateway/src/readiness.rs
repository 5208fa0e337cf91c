//! Whether clients are served as they should be, and if not, why.

use std::time::Duration;

use daemon::watch::StalledLoop;
use news::{RecordingPause, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    ingest::wire_link::{OlderCopy, WireState},
    state::AppState,
    stream::ring::RingState,
};

/// The daemon sends a heartbeat every two seconds; after this much silence it counts as stopped.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// What `/ready` and the metrics report.
pub(crate) struct Readiness {
    pub(crate) wire: WireState,
    pub(crate) ring: RingState,
    /// Event loops without progress.
    pub(crate) stalled: Vec<StalledLoop>,
    /// Time since anything was received from the daemon.
    pub(crate) silence: Option<Duration>,
    /// Why the gateway is not ready, as published: no paths and no messages of the system, which are in the log and on
    /// the admin socket. Empty if it is ready.
    pub(crate) reasons: Vec<String>,
    /// What is missing although clients are served, as published.
    pub(crate) degraded: Vec<Degradation>,
}

/// Something that is missing although clients are served. Figures and paths are in the log and on the admin socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Degradation {
    reason: &'static str,
    since: Timestamp,
    detail: &'static str,
}

impl Readiness {
    /// As of now.
    pub(crate) fn of(state: &AppState) -> Self {
        let (wire, ring, stalled) = (state.wire.get(), state.ring.state(), state.watch.stalled());
        let silence = wire.last_received.map(|received| Instant::now().duration_since(received));
        let is_nats = state.settings().is_nats;
        let mut reasons = Vec::new();
        if !wire.connected {
            reasons.push(format!("the wire is not connected: {}", why_not_connected(&wire, is_nats)));
        } else if let Some(silence) = silence.filter(|s| *s > SILENCE_MAX) {
            let daemon = if is_nats { "every ingestion daemon" } else { "the ingestion daemon" };
            reasons.push(format!("{daemon} has been silent for {} s", silence.as_secs()));
        }
        if let Some(OlderCopy { head, newest }) = &wire.older_copy {
            reasons.push(format!(
                "the log of the ingestion daemon is an older copy, without {newest}: it ended at {head}; recording is \
                 paused until the operator restores the newest copy, or accepts the loss"
            ));
        }
        if !ring.filled {
            reasons.push("the ring is not filled yet".to_owned());
        }
        // Only before the first one: a client that comes when the gateway is ready must not be told to come later.
        if !state.sources.is_listed() {
            reasons.push("the list of sources has not arrived yet".to_owned());
        }
        if state.is_draining() {
            reasons.push("draining".to_owned());
        }
        reasons.extend(stalled.iter().filter(|it| !it.kind.is_helper()).map(StalledLoop::sentence));
        let degradation = |pause: &RecordingPause| Degradation {
            reason: pause.reason.as_str(),
            since: pause.since,
            detail: pause.reason.sentence(),
        };
        let degraded = wire.recording_paused.iter().map(degradation).collect();
        Self { wire, ring, stalled, silence, reasons, degraded }
    }
}

fn why_not_connected(wire: &WireState, is_nats: bool) -> &'static str {
    match (wire.last_received, wire.reason.is_empty(), is_nats) {
        (_, true, _) => "not connected yet",
        (None, false, false) => "the ingestion daemon cannot be reached",
        (Some(_), false, false) => "the connection to the ingestion daemon was lost",
        (None, false, true) => "the stream of NATS cannot be read",
        (Some(_), false, true) => "the connection to the stream of NATS was lost",
    }
}
