//! The numbers of the gateway.

use std::{fmt, sync::Arc};

use daemon::metrics::{MetricsRegistry, MetricsSink};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use crate::{hub::Hub, readers::Refusal, routes::Readiness};

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

impl Numbers {
    /// Registers all of them.
    #[expect(clippy::too_many_lines, reason = "a list, one metric after the other")]
    pub(crate) fn register(metrics: &MetricsRegistry) -> Self {
        Self {
            clients: metrics.add("newswire_gateway_clients", "Open streams"),
            worker_clients: metrics.add("newswire_gateway_worker_clients", "Open streams, by worker"),
            connections: metrics
                .add("newswire_gateway_connections", "Open connections, the streams' included"),
            connections_cut: metrics.add_by(
                "newswire_gateway_connections_cut_total",
                "Connections that we cut: no room, too slow a request, stopping, a client that does not read, \
                 a token at its end",
                "reason",
                ["full", "deadline", "drain", "slow", "expired"],
            ),
            requests_refused: metrics.add_by(
                "newswire_gateway_requests_refused_total",
                "Requests refused unread: a token in the query, or connections near their maximum",
                "reason",
                ["token_in_query", "connections"],
            ),
            callbacks_refused: metrics.add_by(
                "newswire_gateway_callbacks_refused_total",
                "Calls of WebSub hubs that were not passed on or not answered, by reason",
                "reason",
                ["no_id", "callbacks", "unknown_callbacks", "no_daemon", "large_body", "slow_body"],
            ),
            readers_granted: metrics.add_by(
                "newswire_gateway_readers_granted_total",
                "Requests of readers let pass where tokens are asked for, by what they came in by",
                "by",
                ["public", "static", "jwt"],
            ),
            readers_refused: metrics.add_by(
                "newswire_gateway_readers_refused_total",
                "Requests without a good token, by what is wrong with it",
                "reason",
                Refusal::ALL.map(Refusal::reason),
            ),
            streams: metrics.add("newswire_gateway_streams_total", "Streams opened"),
            refused: metrics.add_by(
                "newswire_gateway_streams_refused_total",
                "Streams refused, by the limit that was reached (gateway.clients_max and the like), or as we stop",
                "reason",
                ["draining", "connections", "clients_max", "clients_per_address_max"],
            ),
            ended: metrics.add_by(
                "newswire_gateway_streams_ended_total",
                "Streams that we ended: stopping, token at its end, another log, client too slow or pipelining",
                "reason",
                ["drain", "expired", "epoch", "slow", "pipelining"],
            ),
            resumes: metrics.add_by(
                "newswire_gateway_resumes_total",
                "Streams opened: live without an id, exact after the id, gap when events after it are gone, \
                 reset when the id is of another log",
                "result",
                ["live", "exact", "gap", "reset"],
            ),
            refreshes: metrics.add_by(
                "newswire_gateway_refreshes_total",
                "Orders to visit sources (POST /news/refresh), by whether the daemon took them",
                "result",
                ["accepted", "busy", "no_daemon"],
            ),
            delivered: metrics.add(
                "newswire_gateway_events_delivered_total",
                "Events given to clients, each client counted",
            ),
            delivered_bytes: metrics.add("newswire_gateway_delivered_bytes_total", "Bytes given to clients"),
            lag_events_max: metrics.add(
                "newswire_gateway_lag_events_max",
                "Events that the slowest client is behind; at newswire_gateway_ring_events it reads from disk",
            ),
            missed: metrics.add(
                "newswire_gateway_events_missed_total",
                "Events that clients were told they missed, because they are no longer kept",
            ),
            notices_missed: metrics.add(
                "newswire_gateway_notices_missed_total",
                "Notices about sources that a slow client did not get; it got the events all the same",
            ),
            pages: metrics.add(
                "newswire_gateway_replay_pages_total",
                "Pages asked of the daemon's log for clients that are behind the ring",
            ),
            heartbeats: metrics.add("newswire_gateway_heartbeats_total", "Heartbeats given to quiet streams"),
            received: metrics.add("newswire_gateway_events_received_total", "Events that came by the wire"),
            unreadable: metrics.add(
                "newswire_gateway_events_unreadable_total",
                "Events or notices on the wire that could not be read: the two programs are of different versions",
            ),
            wire_connected: metrics.add(
                "newswire_gateway_wire_connected",
                "1 while the wire to the ingestion daemon is connected; at 0 clients get nothing new",
            ),
            wire_losses: metrics.add("newswire_gateway_wire_losses_total", "Times that the wire was lost"),
            ring_events: metrics.add("newswire_gateway_ring_events", "Recent events kept in memory"),
            ring_bytes: metrics.add("newswire_gateway_ring_bytes", "Bytes of the recent events in memory"),
            head: metrics.add(
                "newswire_gateway_head",
                "Sequence number of the newest event that came by the wire; 0 before the first",
            ),
        }
    }
}

/// What is asked of the hub at each scrape, from when it is shared on: the same readings as of `/ready`.
pub(crate) fn ask(hub: &Arc<Hub>) {
    let asked = Arc::downgrade(hub);
    hub.metrics
        .register_collector(move |answers| asked.upgrade().map_or(Ok(()), |hub| answer(&hub, answers)));
}

#[expect(clippy::cast_precision_loss, reason = "clients, events and bytes of a memory are far below 2^53")]
fn answer(hub: &Hub, answers: &mut MetricsSink<'_>) -> fmt::Result {
    let truth = |is: bool| f64::from(u8::from(is));
    let readiness = Readiness::of(hub);
    let bounds = hub.ring.bounds();
    answers.gauge(
        "newswire_gateway_ready",
        "1 when /ready says 200; at 0 it gives the reasons in words",
        truth(readiness.reasons.is_empty()),
    )?;
    answers.gauge(
        "newswire_gateway_draining",
        "1 while streams are being ended for a stop",
        truth(hub.is_draining()),
    )?;
    answers.gauge(
        "newswire_gateway_wire_silence_seconds",
        "Since anything was heard of the ingestion daemon, which beats every 2 s; since the start when never",
        readiness.silence.unwrap_or_else(|| hub.started.elapsed()).as_secs_f64(),
    )?;
    answers.gauge(
        "newswire_gateway_ring_filled",
        "1 when the ring holds what the daemon had when we came; before that /ready says 503",
        truth(readiness.ring.filled),
    )?;
    answers.gauge(
        "newswire_gateway_ring_events_max",
        "Events that the ring may hold (gateway.ring_events)",
        bounds.events as f64,
    )?;
    answers.gauge(
        "newswire_gateway_ring_bytes_max",
        "Bytes that the ring may hold (gateway.ring_bytes)",
        bounds.bytes as f64,
    )?;
    answers.gauge(
        "newswire_gateway_clients_max",
        "Streams that may be open (gateway.clients_max); more are told to come back later",
        hub.settings().clients_max as f64,
    )?;
    answers.gauge(
        "newswire_gateway_connections_max",
        "Connections that may be open; near it only probes are answered",
        hub.connections.max() as f64,
    )
}
