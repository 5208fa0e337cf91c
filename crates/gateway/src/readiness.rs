//! Whether clients are served as they should be, and if not, why.

use std::time::Duration;

use daemon::watch::StalledLoop;
use tokio::time::Instant;

use crate::{ingest::wire_link::WireState, state::AppState, stream::ring::RingState};

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
    /// Why the gateway is not ready, for people; empty if it is.
    pub(crate) reasons: Vec<String>,
}

impl Readiness {
    /// As of now.
    pub(crate) fn of(state: &AppState) -> Self {
        let (wire, ring, stalled) = (state.wire.get(), state.ring.state(), state.watch.stalled());
        let silence = wire.last_received.map(|received| Instant::now().duration_since(received));
        let mut reasons = Vec::new();
        if !wire.connected {
            let why = if wire.reason.is_empty() { "not connected yet" } else { wire.reason.as_str() };
            reasons.push(format!("the wire is not connected: {why}"));
        } else if let Some(silence) = silence.filter(|s| *s > SILENCE_MAX) {
            reasons.push(format!("the ingestion daemon has been silent for {} s", silence.as_secs()));
        }
        if !ring.filled {
            reasons.push("the ring is not filled yet".to_owned());
        }
        if state.is_draining() {
            reasons.push("draining".to_owned());
        }
        reasons.extend(stalled.iter().map(StalledLoop::sentence));
        Self { wire, ring, stalled, silence, reasons }
    }
}
