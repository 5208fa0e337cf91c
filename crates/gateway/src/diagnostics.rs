//! What the gateway reports about itself on its admin socket: `/status`, and `/watch` while any thread may be stuck.

use std::net::SocketAddr;

use control::{
    GatewayStatus, GatewayVitals,
    status::{LinkStatus, RingReport},
    watch::{OpenFiles, WireReport},
};
use daemon::watch::try_briefly;
use news::Cursor;

use crate::{ingest::wire_link::WireState, state::AppState, stream::ring::RingState};

/// For `/watch`: does not wait for a lock. A part whose lock is held all the time is `None`.
pub(crate) fn vitals(state: &AppState, listen: SocketAddr, inherited: bool) -> GatewayVitals {
    let (wire, ring) = (try_briefly(|| state.wire.try_get()), try_briefly(|| state.ring.try_state()));
    let (used, max) = daemon::limits::open_files();
    let bounds = ring.as_ref().and_then(|ring| ring.log_bounds.as_ref());
    let cursor = bounds.map(|bounds| Cursor { epoch: bounds.epoch.clone(), seq: bounds.head }.to_string());
    GatewayVitals {
        listen,
        inherited,
        clients: u64::try_from(state.metrics.clients.get()).unwrap_or_default(),
        streams: try_briefly(|| state.stream_waits.try_report()).unwrap_or_default(),
        draining: state.is_draining(),
        wire: wire.map(|wire| WireReport {
            heard_ms_ago: received_ms_ago(&wire),
            reason: (!wire.connected && !wire.reason.is_empty()).then_some(wire.reason),
            connected: wire.connected,
            cursor,
        }),
        ring: ring.as_ref().map(ring_report),
        open_files: OpenFiles { used, max },
    }
}

/// For the black box: atomics only.
pub(crate) fn counts(state: &AppState) -> Vec<(&'static str, u64)> {
    let gauge = |value: i64| u64::try_from(value).unwrap_or_default();
    let metrics = &state.metrics;
    vec![
        ("clients", gauge(metrics.clients.get())),
        ("connections", gauge(metrics.connections.get())),
        ("accepted", state.connections.accepted()),
        ("received", metrics.received.get()),
        ("delivered", metrics.delivered.get()),
        ("wire_connected", gauge(metrics.wire_connected.get())),
        ("head", gauge(metrics.head.get())),
    ]
}

/// For `/status`.
pub(crate) fn status(state: &AppState) -> GatewayStatus {
    let wire = state.wire.get();
    GatewayStatus {
        clients: state.client_count() as u64,
        draining: state.is_draining(),
        panics: daemon::panics::count(),
        wire: LinkStatus {
            connected: wire.connected,
            heard_ms_ago: received_ms_ago(&wire),
            reason: wire.reason,
        },
        ring: ring_report(&state.ring.state()),
    }
}

fn received_ms_ago(wire: &WireState) -> Option<u64> {
    wire.last_received.map(|received| u64::try_from(received.elapsed().as_millis()).unwrap_or(u64::MAX))
}

fn ring_report(ring: &RingState) -> RingReport {
    RingReport { filled: ring.filled, events: ring.events as u64, bytes: ring.bytes as u64 }
}
