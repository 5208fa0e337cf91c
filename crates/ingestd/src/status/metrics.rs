//! The metrics of the daemon: counters and histograms. What is read at a scrape is in [`super::gauges`].

use std::sync::Arc;

use daemon::metrics::MetricsRegistry;
use news::{FailureClass, PushState, VisitStatus};
use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

use super::progress::IngestProgress;
use crate::websub::messages::PushResult;

type Labels = [(&'static str, &'static str); 1];
type TwoLabels = [(&'static str, &'static str); 2];

/// One field per metric; its help text below says what it counts.
#[derive(Clone, Debug)]
pub(crate) struct IngestMetrics {
    pub(crate) visits: Family<Labels, Counter>,
    pub(crate) failures: Family<Labels, Counter>,
    pub(crate) items: Family<Labels, Counter>,
    pub(crate) items_dropped: Counter,
    pub(crate) items_held: Counter,
    pub(crate) body_bytes: Counter,
    pub(crate) panics: Counter,
    pub(crate) restarts: Counter,
    pub(crate) sources: Gauge,
    pub(crate) in_flight: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) waits: Family<Labels, Counter>,
    pub(crate) preempted: Counter,
    pub(crate) hosts_widened: Counter,
    pub(crate) hosts_held: Counter,
    pub(crate) outage: Gauge,
    pub(crate) exempted: Counter,
    pub(crate) slow_parses: Counter,
    pub(crate) quarantines: Family<Labels, Counter>,
    pub(crate) clock_jumps: Counter,
    pub(crate) visit_seconds: Histogram,
    pub(crate) late_seconds: Histogram,
    pub(crate) append_seconds: Histogram,
    pub(crate) appends: Counter,
    pub(crate) events_removed: Counter,
    pub(crate) log_bytes: Gauge,
    pub(crate) log_head: Gauge,
    pub(crate) subscribers: Gauge,
    pub(crate) websub: WebSubMetrics,
    /// Shown on the admin socket only.
    pub(crate) progress: Arc<IngestProgress>,
}

/// The metrics of WebSub.
#[derive(Clone, Debug)]
pub(crate) struct WebSubMetrics {
    pub(crate) subscriptions: Family<Labels, Gauge>,
    pub(crate) requests: Family<TwoLabels, Counter>,
    pub(crate) verifications: Family<Labels, Counter>,
    pub(crate) pushes: Family<Labels, Counter>,
    pub(crate) missed: Counter,
}

impl IngestMetrics {
    /// Registers all of them.
    #[expect(clippy::too_many_lines, reason = "a list, one metric after the other")]
    pub(crate) fn register(registry: &MetricsRegistry) -> Self {
        let seconds = |first| Histogram::new(exponential_buckets(first, 2.0, 14));
        Self {
            visits: registry.add_by(
                "newswire_ingestd_visits_total",
                "Visits that ended, by how: new and unchanged are well, throttled is a 429 or 503, gone a 410",
                "status",
                VisitStatus::ALL.map(VisitStatus::as_str),
            ),
            failures: registry.add_by(
                "newswire_ingestd_visit_failures_total",
                "Visits that brought no feed, by why; dns, connect and timeout of many at once are rather our network",
                "class",
                FailureClass::ALL.map(FailureClass::as_str),
            ),
            items: registry.add_by(
                "newswire_ingestd_items_total",
                "Items recorded as events: new ones, and updates of known ones",
                "kind",
                ["item", "update"],
            ),
            items_dropped: registry.add(
                "newswire_ingestd_items_dropped_total",
                "Items that were not read, because their document has more than the cap",
            ),
            items_held: registry.add(
                "newswire_ingestd_items_held_total",
                "New items that wait for a later visit, because the guids of their source flap",
            ),
            body_bytes: registry
                .add("newswire_ingestd_body_bytes_total", "Bytes of feed documents, after decompression"),
            panics: registry.add(
                "newswire_ingestd_visit_panics_total",
                "Visits that ended in a fault of our own; the source is visited again",
            ),
            restarts: registry.add(
                "newswire_ingestd_source_restarts_total",
                "Source actors that died and were rebuilt",
            ),
            sources: registry.add("newswire_ingestd_sources", "Sources in the catalogue"),
            in_flight: registry
                .add("newswire_ingestd_visits_in_flight", "Visits that hold one of the fetch.in_flight places"),
            waiting: registry.add(
                "newswire_ingestd_visits_waiting",
                "Visits that are due and wait for their host or for a place",
            ),
            waits: registry.add_by(
                "newswire_ingestd_visit_waits_total",
                "Visits that had to wait, by what for: their host's politeness, all places taken, or the few of suspects",
                "for",
                ["host-in-flight", "host-spacing", "host-asked", "in-flight", "suspects"],
            ),
            preempted: registry.add(
                "newswire_ingestd_visits_gave_way_total",
                "Visits that hung while others wanted their place, and began again as suspects",
            ),
            hosts_widened: registry.add(
                "newswire_ingestd_hosts_widened_total",
                "Times that a 429 doubled the spacing of a host",
            ),
            hosts_held: registry.add(
                "newswire_ingestd_hosts_held_total",
                "Times that a host sent all visits away for a while (429 with Retry-After)",
            ),
            outage: registry.add(
                "newswire_ingestd_outage",
                "1 while most hosts cannot be reached all at once, which is then blamed on our own network",
            ),
            exempted: registry.add(
                "newswire_ingestd_visits_pardoned_total",
                "Failed visits not blamed on their feeds, because of an outage of ours",
            ),
            slow_parses: registry.add(
                "newswire_ingestd_slow_parses_total",
                "Documents that took more than 2 s to read; their sources go into quarantine",
            ),
            quarantines: registry.add_by(
                "newswire_ingestd_quarantines_total",
                "Sources put into quarantine: for a slow document, or one that was being read at three deaths",
                "for",
                ["slow", "deaths"],
            ),
            clock_jumps: registry.add(
                "newswire_ingestd_clock_jumps_total",
                "Jumps of the wall clock by more than 5 s, sleeps of the machine included; visits are planned anew",
            ),
            visit_seconds: registry.add_this(
                "newswire_ingestd_visit_seconds",
                "How long visits took, from the first packet to the commit",
                seconds(0.005),
            ),
            late_seconds: registry.add_this(
                "newswire_ingestd_visit_late_seconds",
                "How long after they were due visits began, queues of hosts included",
                seconds(0.01),
            ),
            append_seconds: registry.add_this(
                "newswire_ingestd_append_seconds",
                "How long group commits took, sync included; the speed of the disk",
                seconds(0.0005),
            ),
            appends: registry.add("newswire_ingestd_appends_total", "Group commits, each of up to 256 visits"),
            events_removed: registry
                .add("newswire_ingestd_events_removed_total", "Old events removed by store.retention_*"),
            log_bytes: registry.add(
                "newswire_ingestd_log_bytes",
                "Bytes of the events that are kept; the files of the store are larger",
            ),
            log_head: registry.add(
                "newswire_ingestd_log_head",
                "Sequence number of the newest event on disk; minus newswire_gateway_head is what is on the wire",
            ),
            subscribers: registry.add(
                "newswire_ingestd_wire_subscribers",
                "Open streams on the wire; 1 for each running gateway",
            ),
            websub: WebSubMetrics::register(registry),
            progress: Arc::default(),
        }
    }
}

impl WebSubMetrics {
    fn register(registry: &MetricsRegistry) -> Self {
        let requests = Family::<TwoLabels, Counter>::default();
        for (mode, result) in [
            ("subscribe", "taken"),
            ("subscribe", "failed"),
            ("unsubscribe", "taken"),
            ("unsubscribe", "failed"),
            ("unsubscribe", "skipped"),
        ] {
            drop(requests.get_or_create(&[("mode", mode), ("result", result)]));
        }
        Self {
            subscriptions: registry.add_by(
                "newswire_ingestd_websub_subscriptions",
                "Sources by how they stand with their hub; verified ones are pushed to us",
                "state",
                PushState::ALL.map(PushState::as_str),
            ),
            requests: registry.add_this(
                "newswire_ingestd_websub_requests_total",
                "Questions to hubs, by mode and by whether they were taken",
                requests,
            ),
            verifications: registry.add_by(
                "newswire_ingestd_websub_verifications_total",
                "Questions of hubs whether we want a subscription, by our answer",
                "result",
                ["confirmed", "refused"],
            ),
            pushes: registry.add_by(
                "newswire_ingestd_websub_pushes_total",
                "Pushes of hubs by what became of them; taken ones led to a visit",
                "result",
                PushResult::ALL.map(PushResult::as_str),
            ),
            missed: registry.add(
                "newswire_ingestd_websub_missed_total",
                "Visits that found something of which a hub that had promised to push said nothing",
            ),
        }
    }
}
