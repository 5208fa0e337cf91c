//! The metrics of the daemon: counters and histograms. What is read at a scrape is in [`super::gauges`].

use std::sync::Arc;

use daemon::metrics::MetricsRegistry;
use news::{FailureClass, PushState, RecordingPauseReason, VisitStatus};
use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

use super::progress::IngestProgress;
use crate::{
    lists::ReadResult,
    queue::memory::MemoryPart,
    websub::messages::{IntentAnswer, PushResult},
};

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
    pub(crate) items_forgotten: Counter,
    pub(crate) updates_absorbed: Counter,
    pub(crate) items_deferred: Counter,
    pub(crate) bytes_deferred: Counter,
    pub(crate) items_lost: Counter,
    pub(crate) body_bytes: Counter,
    pub(crate) panics: Counter,
    pub(crate) restarts: Counter,
    pub(crate) sources: Gauge,
    pub(crate) lists: Gauge,
    pub(crate) lists_failing: Gauge,
    pub(crate) list_reads: Family<Labels, Counter>,
    pub(crate) in_flight: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) waits: Family<Labels, Counter>,
    pub(crate) preempted: Counter,
    pub(crate) memory: MemoryMetrics,
    pub(crate) hosts_widened: Counter,
    pub(crate) hosts_held: Counter,
    pub(crate) outage: Gauge,
    pub(crate) exempted: Counter,
    pub(crate) slow_parses: Counter,
    pub(crate) parses_unmarked: Counter,
    pub(crate) quarantines: Family<Labels, Counter>,
    pub(crate) clock_jumps: Counter,
    pub(crate) visit_seconds: Histogram,
    pub(crate) late_seconds: Histogram,
    pub(crate) append_seconds: Histogram,
    pub(crate) appends: Counter,
    pub(crate) recording_paused: Family<Labels, Gauge>,
    pub(crate) events_removed: Counter,
    pub(crate) events_damaged: Counter,
    pub(crate) log_read_errors: Counter,
    pub(crate) log_bytes: Gauge,
    pub(crate) journal_bytes: Gauge,
    pub(crate) log_head: Gauge,
    pub(crate) subscribers: Gauge,
    pub(crate) websub: WebSubMetrics,
    /// Shown on the admin socket only.
    pub(crate) progress: Arc<IngestProgress>,
}

/// The metrics of the memory budget.
#[derive(Clone, Debug)]
pub(crate) struct MemoryMetrics {
    bytes: Family<Labels, Gauge>,
    max: Gauge,
    /// Visits that had to wait in their middle; those that had to wait before it are counted with the other reasons.
    pub(crate) waits: Counter,
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
    /// Registers all metrics.
    #[expect(clippy::too_many_lines, reason = "a list, one metric after the other")]
    pub(crate) fn register(registry: &MetricsRegistry) -> Self {
        let waits = registry.add_by(
            "newswire_ingestd_visit_waits_total",
            "Visits that had to wait, by reason: a limit of their host, all slots in use, all slots for sources on probation in use, all memory (fetch.memory_bytes) in use, or recording paused",
            "for",
            ["host-in-flight", "host-spacing", "host-asked", "in-flight", "suspects", "memory", "paused"],
        );
        let seconds = |first| Histogram::new(exponential_buckets(first, 2.0, 14));
        Self {
            visits: registry.add_by(
                "newswire_ingestd_visits_total",
                "Finished visits by outcome; throttled is a 429 or 503, gone a 410",
                "status",
                VisitStatus::ALL.map(VisitStatus::as_str),
            ),
            failures: registry.add_by(
                "newswire_ingestd_visit_failures_total",
                "Failed visits by failure class; many dns, connect and timeout at once point to our own network",
                "class",
                FailureClass::ALL.map(FailureClass::as_str),
            ),
            items: registry.add_by(
                "newswire_ingestd_items_total",
                "Items recorded as events, new ones and updates",
                "kind",
                ["item", "update"],
            ),
            items_dropped: registry.add(
                "newswire_ingestd_items_dropped_total",
                "Items that were not parsed, because their document has more than the limit",
            ),
            items_held: registry.add(
                "newswire_ingestd_items_held_total",
                "New items that wait for a later visit, because the guids of their source flap",
            ),
            items_forgotten: registry.add(
                "newswire_ingestd_items_forgotten_total",
                "Items that are no longer remembered, because their source has had 32768 others since; they are new if they appear again",
            ),
            updates_absorbed: registry.add(
                "newswire_ingestd_updates_absorbed_total",
                "Changed items that were not sent as updates, because their source changes them at most visits",
            ),
            items_deferred: registry.add(
                "newswire_ingestd_items_deferred_total",
                "Items that a visit left to later ones, because more was new than fetch.new_bytes_max or store.source_share_percent allows; each visit counts those that it left",
            ),
            bytes_deferred: registry.add(
                "newswire_ingestd_deferred_bytes_total",
                "Bytes of the items that visits left to later ones, as they would be stored",
            ),
            items_lost: registry.add(
                "newswire_ingestd_items_lost_total",
                "Items that a visit left to later ones, and that their feed no longer had then, or whose source got another address first: they were never recorded",
            ),
            body_bytes: registry
                .add("newswire_ingestd_body_bytes_total", "Bytes of response bodies, after decompression"),
            panics: registry.add(
                "newswire_ingestd_visit_panics_total",
                "Visits that ended in a panic of our own code; the source is visited again",
            ),
            restarts: registry.add(
                "newswire_ingestd_source_restarts_total",
                "Source actors that died and were rebuilt",
            ),
            sources: registry.add("newswire_ingestd_sources", "Sources in the catalogue"),
            lists: registry.add("newswire_ingestd_lists", "Lists of feeds in the catalogue ([[list]])"),
            lists_failing: registry.add(
                "newswire_ingestd_lists_failing",
                "Lists of feeds whose sources are not what they have: the last read failed, or found so few feeds that this may be a fault, or the catalogue is full",
            ),
            list_reads: registry.add_by(
                "newswire_ingestd_list_reads_total",
                "Reads of lists of feeds by result; the old sources stay after a doubtful and a failed one",
                "result",
                ReadResult::ALL,
            ),
            in_flight: registry
                .add("newswire_ingestd_visits_in_flight", "Visits in progress; fetch.in_flight is the limit"),
            waiting: registry.add(
                "newswire_ingestd_visits_waiting",
                "Visits that are due and wait for their host or for a slot",
            ),
            waits: waits.clone(),
            preempted: registry.add(
                "newswire_ingestd_visits_gave_way_total",
                "Visits that were preempted because they hung while others waited; they start over on probation",
            ),
            memory: MemoryMetrics::register(registry, waits.get_or_create(&[("for", "memory")]).clone()),
            hosts_widened: registry.add(
                "newswire_ingestd_hosts_widened_total",
                "Times that a 429 doubled the spacing of a host",
            ),
            hosts_held: registry.add(
                "newswire_ingestd_hosts_held_total",
                "Times that a host asked for a pause of all visits (429 or 503 with Retry-After)",
            ),
            outage: registry.add(
                "newswire_ingestd_outage",
                "1 during a local outage, when most hosts are unreachable at the same time",
            ),
            exempted: registry.add(
                "newswire_ingestd_visits_pardoned_total",
                "Failed visits not counted against their feeds: during a local outage, or because this process was stopped or had no processor or disk for them",
            ),
            slow_parses: registry.add(
                "newswire_ingestd_slow_parses_total",
                "Documents that took more than 2 s of processor time to parse; their sources are quarantined",
            ),
            parses_unmarked: registry.add(
                "newswire_ingestd_parses_unmarked_total",
                "Documents parsed without a mark in store.path/parsing, because the disk did not answer within 2 s; if one of them crashes the process, it is not recognised",
            ),
            quarantines: registry.add_by(
                "newswire_ingestd_quarantines_total",
                "Sources quarantined: for a slow document, or one that was being parsed at three crashes of the process",
                "for",
                ["slow", "deaths"],
            ),
            clock_jumps: registry.add(
                "newswire_ingestd_clock_jumps_total",
                "Jumps of the wall clock by more than 5 s, including suspends; visits are rescheduled",
            ),
            visit_seconds: registry.add_this(
                "newswire_ingestd_visit_seconds",
                "Duration of visits, from the first packet to the commit",
                seconds(0.005),
            ),
            late_seconds: registry.add_this(
                "newswire_ingestd_visit_late_seconds",
                "Delay of visits from their due time to their start, including the queue of their host",
                seconds(0.01),
            ),
            append_seconds: registry.add_this(
                "newswire_ingestd_append_seconds",
                "Duration of group commits, including the sync; shows the speed of the disk",
                seconds(0.0005),
            ),
            appends: registry.add("newswire_ingestd_appends_total", "Group commits, each of up to 256 visits"),
            recording_paused: registry.add_by(
                "newswire_ingestd_recording_paused",
                "1 while no visits begin, by reason: the disk of the store has too little free space, or too few free inodes, the log is behind a gateway, the store is a copy of another one, or NATS does not confirm the daemon's lease; what is recorded is still served",
                "reason",
                RecordingPauseReason::ALL.map(RecordingPauseReason::as_str),
            ),
            events_removed: registry
                .add("newswire_ingestd_events_removed_total", "Old events removed by store.retention_*"),
            events_damaged: registry.add(
                "newswire_ingestd_events_damaged_total",
                "Events of the log that were met and are damaged, or too large to be sent; readers are told a gap of so many",
            ),
            log_read_errors: registry.add(
                "newswire_ingestd_log_read_errors_total",
                "Reads of the log that failed because of the disk; the request got an error, and the rest is still served",
            ),
            log_bytes: registry.add(
                "newswire_ingestd_log_bytes",
                "Bytes of the events that are kept; the files of the store are larger",
            ),
            journal_bytes: registry.add(
                "newswire_ingestd_journal_bytes",
                "Bytes of the segments of the journal, which has the events and what changes with them",
            ),
            log_head: registry.add(
                "newswire_ingestd_log_head",
                "Sequence number of the newest event on disk; the difference to newswire_gateway_head is on its way to the gateway",
            ),
            subscribers: registry.add(
                "newswire_ingestd_wire_subscribers",
                "Open streams on the wire; 1 per running gateway",
            ),
            websub: WebSubMetrics::register(registry),
            progress: Arc::default(),
        }
    }
}

impl MemoryMetrics {
    fn register(registry: &MetricsRegistry, waits: Counter) -> Self {
        Self {
            bytes: registry.add_by(
                "newswire_ingestd_memory_bytes",
                "Bytes in use of fetch.memory_bytes: by bodies, by documents that are being parsed, and by items on their way to the disk",
                "part",
                MemoryPart::ALL.map(MemoryPart::as_str),
            ),
            max: registry.add("newswire_ingestd_memory_bytes_max", "The limit fetch.memory_bytes, in bytes"),
            waits: waits.clone(),
        }
    }

    pub(crate) fn set_max(&self, bytes: usize) {
        self.max.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn add(&self, part: MemoryPart, bytes: usize) {
        self.of(part).inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn remove(&self, part: MemoryPart, bytes: usize) {
        self.of(part).dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn of(&self, part: MemoryPart) -> Gauge {
        self.bytes.get_or_create(&[("part", part.as_str())]).clone()
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
                "Sources by the state of their hub subscription; a hub pushes to verified ones",
                "state",
                PushState::ALL.map(PushState::as_str),
            ),
            requests: registry.add_this(
                "newswire_ingestd_websub_requests_total",
                "Requests to hubs by mode and result",
                requests,
            ),
            verifications: registry.add_by(
                "newswire_ingestd_websub_verifications_total",
                "Verification requests from hubs by our answer",
                "result",
                IntentAnswer::ALL.map(IntentAnswer::as_str),
            ),
            pushes: registry.add_by(
                "newswire_ingestd_websub_pushes_total",
                "Pushes from hubs by result; taken ones lead to a visit",
                "result",
                PushResult::ALL.map(PushResult::as_str),
            ),
            missed: registry.add(
                "newswire_ingestd_websub_missed_total",
                "Visits that found new items which a verified hub had not pushed",
            ),
        }
    }
}
