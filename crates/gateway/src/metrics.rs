//! The numbers of the gateway.

use daemon::metrics::Metrics;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

type Labels = [(&'static str, &'static str); 1];
type Worker = [(&'static str, usize); 1];

/// One field a metric; what each counts is its help text below.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) clients: Gauge,
    pub(crate) worker_clients: Family<Worker, Gauge>,
    pub(crate) connections: Gauge,
    pub(crate) connections_cut: Family<Labels, Counter>,
    pub(crate) requests_refused: Family<Labels, Counter>,
    pub(crate) callbacks_refused: Family<Labels, Counter>,
    pub(crate) readers_granted: Family<Labels, Counter>,
    pub(crate) readers_refused: Family<Labels, Counter>,
    pub(crate) streams: Counter,
    pub(crate) refused: Family<Labels, Counter>,
    pub(crate) ended: Family<Labels, Counter>,
    pub(crate) resumes: Family<Labels, Counter>,
    pub(crate) delivered: Counter,
    pub(crate) delivered_bytes: Counter,
    pub(crate) lag_events_max: Gauge,
    pub(crate) missed: Counter,
    pub(crate) notices_missed: Counter,
    pub(crate) pages: Counter,
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
    /// Registers all of them, and what the process counts by itself.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        metrics.register_counter(
            "newswire_gateway_panics_total",
            "Panics, caught ones included",
            daemon::panics::count,
        );
        Self {
            clients: metrics.add("newswire_gateway_clients", "Open streams"),
            worker_clients: metrics.add("newswire_gateway_worker_clients", "Open streams, by worker"),
            connections: metrics
                .add("newswire_gateway_connections", "Open connections, the streams' included"),
            connections_cut: metrics
                .add("newswire_gateway_connections_cut_total", "Connections that we cut, by reason"),
            requests_refused: metrics
                .add("newswire_gateway_requests_refused_total", "Requests refused unread, by reason"),
            callbacks_refused: metrics.add(
                "newswire_gateway_callbacks_refused_total",
                "Calls of hubs that were not passed on or not answered, by reason",
            ),
            readers_granted: metrics.add(
                "newswire_gateway_readers_granted_total",
                "Requests of readers let pass where tokens are asked for, by what they came in by",
            ),
            readers_refused: metrics.add(
                "newswire_gateway_readers_refused_total",
                "Requests without a token that is good, by reason",
            ),
            streams: metrics.add("newswire_gateway_streams_total", "Streams opened"),
            refused: metrics.add("newswire_gateway_streams_refused_total", "Streams refused, by reason"),
            ended: metrics.add("newswire_gateway_streams_ended_total", "Streams that we ended, by reason"),
            resumes: metrics
                .add("newswire_gateway_resumes_total", "Streams opened, by what became of the id"),
            delivered: metrics.add("newswire_gateway_events_delivered_total", "Events given to clients"),
            delivered_bytes: metrics.add("newswire_gateway_delivered_bytes_total", "Bytes given to clients"),
            lag_events_max: metrics
                .add("newswire_gateway_lag_events_max", "Events that the slowest client is behind"),
            missed: metrics.add("newswire_gateway_events_missed_total", "Events told to clients as missed"),
            notices_missed: metrics
                .add("newswire_gateway_notices_missed_total", "Notices that a client was too late for"),
            pages: metrics.add(
                "newswire_gateway_replay_pages_total",
                "Pages asked of the daemon's log for clients that are behind the ring",
            ),
            heartbeats: metrics.add("newswire_gateway_heartbeats_total", "Heartbeats given to clients"),
            received: metrics.add("newswire_gateway_events_received_total", "Events that came by the wire"),
            unreadable: metrics
                .add("newswire_gateway_events_unreadable_total", "Events on the wire that are none"),
            wire_connected: metrics.add("newswire_gateway_wire_connected", "Whether the wire is connected"),
            wire_losses: metrics.add("newswire_gateway_wire_losses_total", "Times that the wire was lost"),
            ring_events: metrics.add("newswire_gateway_ring_events", "Events in the ring"),
            ring_bytes: metrics.add("newswire_gateway_ring_bytes", "Bytes in the ring"),
            head: metrics.add("newswire_gateway_head", "Sequence number of the newest event"),
        }
    }
}
