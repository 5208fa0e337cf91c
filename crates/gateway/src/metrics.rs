//! The gateway's metrics that are counted as things happen; [`crate::scrape`] has those that are read at each scrape.

use daemon::metrics::MetricsRegistry;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use crate::auth::error::AuthError;

type Labels = [(&'static str, &'static str); 1];
type Worker = [(&'static str, usize); 1];

/// One field per metric; the help text below says what it counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct GatewayMetrics {
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
    pub(crate) refreshes: Family<Labels, Counter>,
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

impl GatewayMetrics {
    /// Registers all of them.
    #[expect(clippy::too_many_lines, reason = "a list, one metric after the other")]
    pub(crate) fn register(registry: &MetricsRegistry) -> Self {
        Self {
            clients: registry.add("newswire_gateway_clients", "Open streams"),
            worker_clients: registry.add("newswire_gateway_worker_clients", "Open streams, by worker"),
            connections: registry.add("newswire_gateway_connections", "Open connections, the streams' included"),
            connections_cut: registry.add_by(
                "newswire_gateway_connections_cut_total",
                "Connections that we cut: no room, too slow a request, stopping, a client that does not read, \
                 a token at its end",
                "reason",
                ["full", "deadline", "drain", "slow", "expired"],
            ),
            requests_refused: registry.add_by(
                "newswire_gateway_requests_refused_total",
                "Requests refused unread: a token in the query, or connections near their maximum",
                "reason",
                ["token_in_query", "connections"],
            ),
            callbacks_refused: registry.add_by(
                "newswire_gateway_callbacks_refused_total",
                "Calls of WebSub hubs that were not passed on or not answered, by reason",
                "reason",
                ["no_id", "callbacks", "unknown_callbacks", "no_daemon", "large_body", "slow_body"],
            ),
            readers_granted: registry.add_by(
                "newswire_gateway_readers_granted_total",
                "Requests of readers let pass where tokens are asked for, by what they came in by",
                "by",
                ["public", "static", "jwt"],
            ),
            readers_refused: registry.add_by(
                "newswire_gateway_readers_refused_total",
                "Requests without a good token, by what is wrong with it",
                "reason",
                AuthError::ALL.map(AuthError::reason),
            ),
            streams: registry.add("newswire_gateway_streams_total", "Streams opened"),
            refused: registry.add_by(
                "newswire_gateway_streams_refused_total",
                "Streams refused, by the limit that was reached (gateway.clients_max and the like), or as we stop",
                "reason",
                ["draining", "connections", "clients_max", "clients_per_address_max"],
            ),
            ended: registry.add_by(
                "newswire_gateway_streams_ended_total",
                "Streams that we ended: stopping, token at its end, another log, client too slow or pipelining",
                "reason",
                ["drain", "expired", "epoch", "slow", "pipelining"],
            ),
            resumes: registry.add_by(
                "newswire_gateway_resumes_total",
                "Streams opened: live without an id, exact after the id, gap when events after it are gone, \
                 reset when the id is of another log",
                "result",
                ["live", "exact", "gap", "reset"],
            ),
            refreshes: registry.add_by(
                "newswire_gateway_refreshes_total",
                "Orders to visit sources (POST /news/refresh), by whether the daemon took them",
                "result",
                ["accepted", "busy", "no_daemon"],
            ),
            delivered: registry.add(
                "newswire_gateway_events_delivered_total",
                "Events given to clients, each client counted",
            ),
            delivered_bytes: registry.add("newswire_gateway_delivered_bytes_total", "Bytes given to clients"),
            lag_events_max: registry.add(
                "newswire_gateway_lag_events_max",
                "Events that the slowest client is behind; at newswire_gateway_ring_events it reads from disk",
            ),
            missed: registry.add(
                "newswire_gateway_events_missed_total",
                "Events that clients were told they missed, because they are no longer kept",
            ),
            notices_missed: registry.add(
                "newswire_gateway_notices_missed_total",
                "Notices about sources that a slow client did not get; it got the events all the same",
            ),
            pages: registry.add(
                "newswire_gateway_replay_pages_total",
                "Pages asked of the daemon's log for clients that are behind the ring",
            ),
            heartbeats: registry.add("newswire_gateway_heartbeats_total", "Heartbeats given to quiet streams"),
            received: registry.add("newswire_gateway_events_received_total", "Events that came by the wire"),
            unreadable: registry.add(
                "newswire_gateway_events_unreadable_total",
                "Events or notices on the wire that could not be read: the two programs are of different versions",
            ),
            wire_connected: registry.add(
                "newswire_gateway_wire_connected",
                "1 while the wire to the ingestion daemon is connected; at 0 clients get nothing new",
            ),
            wire_losses: registry.add("newswire_gateway_wire_losses_total", "Times that the wire was lost"),
            ring_events: registry.add("newswire_gateway_ring_events", "Recent events kept in memory"),
            ring_bytes: registry.add("newswire_gateway_ring_bytes", "Bytes of the recent events in memory"),
            head: registry.add(
                "newswire_gateway_head",
                "Sequence number of the newest event that came by the wire; 0 before the first",
            ),
        }
    }
}
