//! The numbers of the ingestion process.

use std::sync::Arc;

use daemon::metrics::Metrics;
use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

use crate::vitals::Shown;

type Labels = [(&'static str, &'static str); 1];
type TwoLabels = [(&'static str, &'static str); 2];

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
    pub(crate) waiting: Gauge,
    pub(crate) waits: Family<Labels, Counter>,
    pub(crate) gave_way: Counter,
    pub(crate) hosts_widened: Counter,
    pub(crate) hosts_held: Counter,
    pub(crate) outage: Gauge,
    pub(crate) pardoned: Counter,
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
    pub(crate) websub: OfHubs,
    /// What only the admin socket shows.
    pub(crate) shown: Arc<Shown>,
}

/// The numbers of WebSub.
#[derive(Clone, Debug)]
pub(crate) struct OfHubs {
    pub(crate) subscriptions: Family<Labels, Gauge>,
    pub(crate) requests: Family<TwoLabels, Counter>,
    pub(crate) verifications: Family<Labels, Counter>,
    pub(crate) pushes: Family<Labels, Counter>,
    pub(crate) missed: Counter,
}

impl Numbers {
    /// Registers all of them, and what the process counts by itself.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        metrics.register_counter(
            "newswire_ingestd_panics_total",
            "Panics, caught ones included",
            daemon::panics::count,
        );
        let seconds = |first| Histogram::new(exponential_buckets(first, 2.0, 14));
        Self {
            visits: metrics.add("newswire_ingestd_visits_total", "Visits that ended, by how they ended"),
            failures: metrics.add("newswire_ingestd_visit_failures_total", "Visits without a feed, by class"),
            items: metrics.add("newswire_ingestd_items_total", "Items recorded, by kind"),
            items_dropped: metrics.add("newswire_ingestd_items_dropped_total", "Items over the caps"),
            items_held: metrics.add(
                "newswire_ingestd_items_held_total",
                "New items that wait for a later visit, because the guids of their source flap",
            ),
            body_bytes: metrics.add("newswire_ingestd_body_bytes_total", "Bytes of bodies, decoded"),
            panics: metrics.add("newswire_ingestd_visit_panics_total", "Visits that ended in a panic"),
            restarts: metrics.add("newswire_ingestd_source_restarts_total", "Source actors rebuilt"),
            sources: metrics.add("newswire_ingestd_sources", "Sources in the catalogue"),
            in_flight: metrics.add("newswire_ingestd_visits_in_flight", "Visits under way"),
            waiting: metrics
                .add("newswire_ingestd_visits_waiting", "Visits that are due and may not begin yet"),
            waits: metrics.add("newswire_ingestd_visit_waits_total", "Visits that had to wait, by what for"),
            gave_way: metrics.add(
                "newswire_ingestd_visits_gave_way_total",
                "Visits that hung while others wanted their place, and began again as suspects",
            ),
            hosts_widened: metrics.add(
                "newswire_ingestd_hosts_widened_total",
                "Times that a 429 doubled the spacing of a host",
            ),
            hosts_held: metrics.add(
                "newswire_ingestd_hosts_held_total",
                "Times that the Retry-After of a 429 sent all visits to a host away",
            ),
            outage: metrics.add("newswire_ingestd_outage", "1 while most hosts cannot be reached all at once"),
            pardoned: metrics.add(
                "newswire_ingestd_visits_pardoned_total",
                "Failed visits not blamed on their feeds, because of an outage of ours",
            ),
            slow_parses: metrics.add("newswire_ingestd_slow_parses_total", "Documents that took over 2 s to read"),
            quarantines: metrics.add(
                "newswire_ingestd_quarantines_total",
                "Sources put into quarantine, by what for: a slow document, or one that was being read at three deaths",
            ),
            clock_jumps: metrics.add("newswire_ingestd_clock_jumps_total", "Jumps of the clock, sleeps included"),
            visit_seconds: metrics.add_this(
                "newswire_ingestd_visit_seconds",
                "Duration of visits",
                seconds(0.005),
            ),
            late_seconds: metrics.add_this(
                "newswire_ingestd_visit_late_seconds",
                "Start of visits after they were due",
                seconds(0.01),
            ),
            append_seconds: metrics.add_this(
                "newswire_ingestd_append_seconds",
                "Duration of group commits, sync included",
                seconds(0.0005),
            ),
            appends: metrics.add("newswire_ingestd_appends_total", "Group commits"),
            events_removed: metrics
                .add("newswire_ingestd_events_removed_total", "Events removed by retention"),
            log_bytes: metrics.add("newswire_ingestd_log_bytes", "Bytes of events kept"),
            log_head: metrics.add("newswire_ingestd_log_head", "Sequence number of the newest event"),
            subscribers: metrics.add("newswire_ingestd_wire_subscribers", "Open streams on the wire"),
            websub: OfHubs::register(metrics),
            shown: Arc::default(),
        }
    }
}

impl OfHubs {
    fn register(metrics: &Metrics) -> Self {
        Self {
            subscriptions: metrics
                .add("newswire_ingestd_websub_subscriptions", "Sources, by how they stand with their hub"),
            requests: metrics.add(
                "newswire_ingestd_websub_requests_total",
                "Questions to hubs, by mode and by whether they were taken",
            ),
            verifications: metrics.add(
                "newswire_ingestd_websub_verifications_total",
                "Questions of hubs whether we want a subscription, by our answer",
            ),
            pushes: metrics
                .add("newswire_ingestd_websub_pushes_total", "Pushes of hubs, by what became of them"),
            missed: metrics.add(
                "newswire_ingestd_websub_missed_total",
                "Visits that found something of which a hub that had promised to push said nothing",
            ),
        }
    }
}
