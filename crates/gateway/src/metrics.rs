//! The gateway's metrics that are counted as things happen; [`crate::scrape`] has those that are read at each scrape.

use daemon::metrics::MetricsRegistry;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use crate::{
    auth::error::AuthError,
    connection::ending::{ConnectionCut, StreamEnd},
    ingest::{daemons::DaemonMetrics, log_unavailable},
};

type Labels = [(&'static str, &'static str); 1];
type Worker = [(&'static str, usize); 1];

/// One field per metric; the help text below says what it counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct GatewayMetrics {
    pub(crate) clients: Gauge,
    pub(crate) worker_clients: Family<Worker, Gauge>,
    pub(crate) connections: Gauge,
    pub(crate) connections_cut: Family<Labels, Counter>,
    pub(crate) accept_failures: Family<Labels, Counter>,
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
    pub(crate) log_requests: Family<Labels, Counter>,
    pub(crate) replay_waits: Family<Labels, Counter>,
    pub(crate) heartbeats: Counter,
    pub(crate) received: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) wire_connected: Gauge,
    pub(crate) wire_losses: Counter,
    pub(crate) ring_events: Gauge,
    pub(crate) ring_bytes: Gauge,
    pub(crate) head: Gauge,
    pub(crate) daemons: DaemonMetrics,
}

impl GatewayMetrics {
    /// Registers all metrics.
    #[expect(clippy::too_many_lines, reason = "a list, one metric after the other")]
    pub(crate) fn register(registry: &MetricsRegistry) -> Self {
        Self {
            clients: registry.add("newswire_gateway_clients", "Open streams"),
            worker_clients: registry.add("newswire_gateway_worker_clients", "Open streams, by worker"),
            connections: registry.add("newswire_gateway_connections", "Open connections, streams included"),
            connections_cut: registry.add_by(
                "newswire_gateway_connections_cut_total",
                "Connections closed by the gateway: limit reached, request too slow, shutdown, client not reading, token expired, too much sent behind the request",
                "reason",
                ["full", "connections_per_address", "addresses_per_network"]
                    .into_iter()
                    .chain(ConnectionCut::ALL.map(ConnectionCut::as_str)),
            ),
            accept_failures: registry.add_by(
                "newswire_gateway_accept_failures_total",
                "Connections that could not be accepted: no descriptors or memory were left, all workers were behind, or another failure",
                "reason",
                ["descriptors", "workers", "other"],
            ),
            requests_refused: registry.add_by(
                "newswire_gateway_requests_refused_total",
                "Requests refused before their handler: a token in the query, connections near their maximum, too many from one address or IPv6 /48, or a second one on a connection",
                "reason",
                ["token_in_query", "connections", "requests_per_address", "addresses_per_network", "second"],
            ),
            callbacks_refused: registry.add_by(
                "newswire_gateway_callbacks_refused_total",
                "Requests of WebSub hubs that were not forwarded or not answered, by reason",
                "reason",
                ["no_id", "callbacks", "callbacks_per_address", "unknown_callbacks", "no_daemon", "large_body", "slow_body"],
            ),
            readers_granted: registry.add_by(
                "newswire_gateway_readers_granted_total",
                "Requests authorised while read tokens are configured, by credential",
                "by",
                ["public", "static", "jwt"],
            ),
            readers_refused: registry.add_by(
                "newswire_gateway_readers_refused_total",
                "Requests refused because of their token, by what is wrong with it",
                "reason",
                AuthError::ALL.map(AuthError::reason),
            ),
            streams: registry.add("newswire_gateway_streams_total", "Streams opened"),
            refused: registry.add_by(
                "newswire_gateway_streams_refused_total",
                "Streams refused, by the limit that was reached (such as gateway.clients_max), or during shutdown",
                "reason",
                [
                    "draining",
                    "connections",
                    "clients_max",
                    "clients_per_address_max",
                    "addresses_per_network",
                    "requests_per_address",
                ],
            ),
            ended: registry.add_by(
                "newswire_gateway_streams_ended_total",
                "Streams ended: shutdown, token expired, another log, client too slow or pipelining, client gone, or a fault of the gateway",
                "reason",
                StreamEnd::ALL.map(StreamEnd::as_str),
            ),
            resumes: registry.add_by(
                "newswire_gateway_resumes_total",
                "Streams opened: live without an id, exact after the id, gap if events after it are gone, reset if the id is of another log",
                "result",
                ["live", "exact", "gap", "reset"],
            ),
            refreshes: registry.add_by(
                "newswire_gateway_refreshes_total",
                "Orders to visit sources (POST /news/refresh), by whether the daemon accepted them",
                "result",
                ["accepted", "busy", "no_daemon"],
            ),
            delivered: registry.add(
                "newswire_gateway_events_delivered_total",
                "Events sent, counted once per client",
            ),
            delivered_bytes: registry.add("newswire_gateway_delivered_bytes_total", "Bytes sent to clients"),
            lag_events_max: registry.add(
                "newswire_gateway_lag_events_max",
                "Events that the slowest client is behind; above newswire_gateway_ring_events it reads from disk",
            ),
            missed: registry.add(
                "newswire_gateway_events_missed_total",
                "Events that clients missed because they are no longer kept; the clients were told",
            ),
            notices_missed: registry.add(
                "newswire_gateway_notices_missed_total",
                "Notices that slow clients did not get; they got all events nevertheless",
            ),
            replay_waits: registry.add_by(
                "newswire_gateway_replay_waits_total",
                "Times that a stream waited before it was sent more from the past: its address has used its events or bytes per second, or the bytes that clients have not taken yet are at their maximum",
                "reason",
                ["replay_per_address", "unsent_bytes_max"],
            ),
            pages: registry.add(
                "newswire_gateway_replay_pages_total",
                "Pages requested from the daemon's log for clients that are behind the ring",
            ),
            log_requests: registry.add_by(
                "newswire_gateway_log_requests_total",
                "Parts of the daemon's log requested for pages below the ring, by result; not_asked: an earlier request is not answered yet, so that this one was refused at once",
                "result",
                log_unavailable::results(),
            ),
            heartbeats: registry.add("newswire_gateway_heartbeats_total", "Heartbeats sent to idle streams"),
            received: registry.add("newswire_gateway_events_received_total", "Events received on the wire"),
            unreadable: registry.add(
                "newswire_gateway_events_unreadable_total",
                "Events or notices on the wire that could not be parsed: the two programs have different versions",
            ),
            wire_connected: registry.add(
                "newswire_gateway_wire_connected",
                "1 while the wire to the ingestion daemon is connected; at 0 clients get nothing new",
            ),
            wire_losses: registry.add("newswire_gateway_wire_losses_total", "Lost connections to the ingestion daemon"),
            ring_events: registry.add("newswire_gateway_ring_events", "Events in the ring"),
            ring_bytes: registry.add("newswire_gateway_ring_bytes", "Bytes of the events in the ring"),
            head: registry.add(
                "newswire_gateway_head",
                "Sequence number of the newest event received on the wire; 0 before the first",
            ),
            daemons: DaemonMetrics {
                requests: registry.add_by(
                    "newswire_gateway_nats_requests_total",
                    "Requests to daemons over NATS, by what became of them; 0 unless wire.transport is nats",
                    "result",
                    ["answered", "late", "unreachable", "refused", "unusable"],
                ),
                left_out: registry.add_by(
                    "newswire_gateway_nats_left_out_total",
                    "What daemons say and this gateway leaves out, because that of all daemons together is larger than 256 MiB (sources) or 16 MiB (metrics), or of more than 1,024 logs (ids)",
                    "what",
                    ["sources", "metrics", "ids"],
                ),
                known: registry.add(
                    "newswire_gateway_nats_daemons",
                    "Daemons that have sent a heartbeat over NATS within the last 10 s; 0 unless wire.transport is nats",
                ),
            },
        }
    }
}
