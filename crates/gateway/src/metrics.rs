//! The numbers of the gateway.

use daemon::metrics::Metrics;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

type Labels = [(&'static str, &'static str); 1];

/// One field a metric; what each counts is its help text below.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) clients: Gauge,
    pub(crate) streams: Counter,
    pub(crate) refused: Family<Labels, Counter>,
    pub(crate) ended: Family<Labels, Counter>,
    pub(crate) resumes: Family<Labels, Counter>,
    pub(crate) delivered: Counter,
    pub(crate) delivered_bytes: Counter,
    pub(crate) missed: Counter,
    pub(crate) notices_missed: Counter,
    pub(crate) heartbeats: Counter,
    pub(crate) received: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) wire_connected: Gauge,
    pub(crate) wire_losses: Counter,
    pub(crate) ring_events: Gauge,
    pub(crate) ring_bytes: Gauge,
    pub(crate) head: Gauge,
}

impl Numbers {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let numbers = Self::default();
        let n = numbers.clone();
        metrics.register("newswire_gateway_clients", "Open streams", n.clients);
        metrics.register("newswire_gateway_streams_total", "Streams opened", n.streams);
        metrics.register("newswire_gateway_streams_refused_total", "Streams refused, by reason", n.refused);
        metrics.register("newswire_gateway_streams_ended_total", "Streams that we ended, by reason", n.ended);
        metrics.register(
            "newswire_gateway_resumes_total",
            "Streams opened, by what became of the id",
            n.resumes,
        );
        metrics.register("newswire_gateway_events_delivered_total", "Events given to clients", n.delivered);
        metrics.register(
            "newswire_gateway_delivered_bytes_total",
            "Bytes given to clients",
            n.delivered_bytes,
        );
        metrics.register(
            "newswire_gateway_events_missed_total",
            "Events told to clients as missed",
            n.missed,
        );
        metrics.register(
            "newswire_gateway_notices_missed_total",
            "Notices that a client was too late for",
            n.notices_missed,
        );
        metrics.register("newswire_gateway_heartbeats_total", "Heartbeats given to clients", n.heartbeats);
        metrics.register(
            "newswire_gateway_events_received_total",
            "Events that came by the wire",
            n.received,
        );
        metrics.register(
            "newswire_gateway_events_unreadable_total",
            "Events on the wire that are none",
            n.unreadable,
        );
        metrics.register(
            "newswire_gateway_wire_connected",
            "Whether the wire is connected",
            n.wire_connected,
        );
        metrics.register("newswire_gateway_wire_losses_total", "Times that the wire was lost", n.wire_losses);
        metrics.register("newswire_gateway_ring_events", "Events in the ring", n.ring_events);
        metrics.register("newswire_gateway_ring_bytes", "Bytes in the ring", n.ring_bytes);
        metrics.register("newswire_gateway_head", "Sequence number of the newest event", n.head);
        numbers
    }
}
