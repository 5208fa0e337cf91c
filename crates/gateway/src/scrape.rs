//! The gateway's metrics that are read at each scrape: the same readings as of `/ready`, and the limits in force.

use std::{fmt, sync::Arc};

use daemon::metrics::MetricsSink;

use crate::{readiness::Readiness, state::AppState};

/// Registers these metrics; they disappear when the state is dropped.
pub(crate) fn register(state: &Arc<AppState>) {
    let weak = Arc::downgrade(state);
    state.registry.register_collector(move |sink| weak.upgrade().map_or(Ok(()), |state| write(&state, sink)));
}

#[expect(clippy::cast_precision_loss, reason = "clients, events and bytes of a memory are far below 2^53")]
fn write(state: &AppState, sink: &mut MetricsSink<'_>) -> fmt::Result {
    let flag = |is: bool| f64::from(u8::from(is));
    let readiness = Readiness::of(state);
    let bounds = state.ring.bounds();
    sink.gauge(
        "newswire_gateway_ready",
        "1 if /ready answers 200; at 0 its answer has the reasons",
        flag(readiness.reasons.is_empty()),
    )?;
    sink.gauge(
        "newswire_gateway_draining",
        "1 while streams are ended for a shutdown",
        flag(state.is_draining()),
    )?;
    sink.gauge(
        "newswire_gateway_wire_silence_seconds",
        "Time since anything was received from the ingestion daemon, which sends a heartbeat every 2 s; since the start if never",
        readiness.silence.unwrap_or_else(|| state.started.elapsed()).as_secs_f64(),
    )?;
    sink.gauge(
        "newswire_gateway_ring_filled",
        "1 once the ring holds what the daemon had when the wire connected; before that /ready answers 503",
        flag(readiness.ring.filled),
    )?;
    sink.gauge(
        "newswire_gateway_ring_events_max",
        "Events that the ring may hold (gateway.ring_events)",
        bounds.events as f64,
    )?;
    sink.gauge(
        "newswire_gateway_ring_bytes_max",
        "Bytes that the ring may hold (gateway.ring_bytes)",
        bounds.bytes as f64,
    )?;
    sink.gauge(
        "newswire_gateway_clients_max",
        "Streams that may be open (gateway.clients_max); clients beyond that are told to retry later",
        state.settings().clients_max as f64,
    )?;
    sink.gauge(
        "newswire_gateway_connections_max",
        "Connections that may be open; near it only probes are answered",
        state.connections.max() as f64,
    )
}
