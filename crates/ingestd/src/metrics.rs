//! The numbers of the ingestion process.

use daemon::metrics::Metrics;
use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

type Labels = [(&'static str, &'static str); 1];

/// One field a metric; what each counts is its help text below.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
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
    pub(crate) visit_seconds: Histogram,
    pub(crate) late_seconds: Histogram,
    pub(crate) append_seconds: Histogram,
    pub(crate) appends: Counter,
    pub(crate) events_removed: Counter,
    pub(crate) log_bytes: Gauge,
    pub(crate) log_head: Gauge,
    pub(crate) subscribers: Gauge,
}

impl Numbers {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let seconds = |first| Histogram::new(exponential_buckets(first, 2.0, 14));
        let numbers = Self {
            visits: Family::default(),
            failures: Family::default(),
            items: Family::default(),
            items_dropped: Counter::default(),
            items_held: Counter::default(),
            body_bytes: Counter::default(),
            panics: Counter::default(),
            restarts: Counter::default(),
            sources: Gauge::default(),
            in_flight: Gauge::default(),
            visit_seconds: seconds(0.005),
            late_seconds: seconds(0.01),
            append_seconds: seconds(0.0005),
            appends: Counter::default(),
            events_removed: Counter::default(),
            log_bytes: Gauge::default(),
            log_head: Gauge::default(),
            subscribers: Gauge::default(),
        };
        let n = numbers.clone();
        metrics.register("newswire_ingestd_visits_total", "Visits that ended, by how they ended", n.visits);
        metrics.register(
            "newswire_ingestd_visit_failures_total",
            "Visits without a feed, by class",
            n.failures,
        );
        metrics.register("newswire_ingestd_items_total", "Items recorded, by kind", n.items);
        metrics.register("newswire_ingestd_items_dropped_total", "Items over the caps", n.items_dropped);
        metrics.register(
            "newswire_ingestd_items_held_total",
            "New items that wait for a later visit, because the guids of their source flap",
            n.items_held,
        );
        metrics.register("newswire_ingestd_body_bytes_total", "Bytes of bodies, decoded", n.body_bytes);
        metrics.register("newswire_ingestd_panics_total", "Visits that ended in a panic", n.panics);
        metrics.register("newswire_ingestd_source_restarts_total", "Source actors rebuilt", n.restarts);
        metrics.register("newswire_ingestd_sources", "Sources in the catalogue", n.sources);
        metrics.register("newswire_ingestd_visits_in_flight", "Visits under way", n.in_flight);
        metrics.register("newswire_ingestd_visit_seconds", "Duration of visits", n.visit_seconds);
        metrics.register(
            "newswire_ingestd_visit_late_seconds",
            "Start of visits after they were due",
            n.late_seconds,
        );
        metrics.register(
            "newswire_ingestd_append_seconds",
            "Duration of group commits, sync included",
            n.append_seconds,
        );
        metrics.register("newswire_ingestd_appends_total", "Group commits", n.appends);
        metrics.register(
            "newswire_ingestd_events_removed_total",
            "Events removed by retention",
            n.events_removed,
        );
        metrics.register("newswire_ingestd_log_bytes", "Bytes of events kept", n.log_bytes);
        metrics.register("newswire_ingestd_log_head", "Sequence number of the newest event", n.log_head);
        metrics.register("newswire_ingestd_wire_subscribers", "Open streams on the wire", n.subscribers);
        numbers
    }
}
