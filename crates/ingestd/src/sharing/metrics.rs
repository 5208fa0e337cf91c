//! The metrics of sharing; the lease is valid, and all counts are 0, if no list is shared.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use daemon::metrics::{MetricsRegistry, MetricsSink};
use wire::nats::CheckpointCounters;

use crate::lease::Lease;

/// What was done, and how things are. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharingMetrics(Arc<Counts>);

#[derive(Debug, Default)]
pub(super) struct Counts {
    lease: OnceLock<Lease>,
    /// Shards that this daemon owns now.
    pub(super) shards: AtomicU64,
    /// Sources of its list that others visit, or that it is taking over.
    pub(super) elsewhere: AtomicU64,
    /// Shards that it claimed, or was handed.
    pub(super) taken: AtomicU64,
    /// Shards that it handed over, or has lost.
    pub(super) given_up: AtomicU64,
    pub(super) checkpoints_published: AtomicU64,
    /// Attempts that NATS did not confirm, or that another daemon was ahead of.
    pub(super) checkpoints_failed: AtomicU64,
    /// Sources whose checkpoint waits.
    pub(super) checkpoints_waiting: AtomicU64,
    pub(super) checkpoints: Arc<CheckpointCounters>,
}

impl SharingMetrics {
    pub(crate) fn register(registry: &MetricsRegistry) -> Self {
        let metrics = Self::default();
        let add = |name: &str, help: &str, read: fn(&Counts) -> &AtomicU64| {
            let counts = Arc::clone(&metrics.0);
            registry.register_counter(name, help, move || read(&counts).load(Relaxed));
        };
        add(
            "newswire_ingestd_shards_taken_total",
            "Shards of the shared list that this daemon has taken over",
            |c| &c.taken,
        );
        add(
            "newswire_ingestd_shards_given_up_total",
            "Shards of the shared list that this daemon has handed over to another one, or has lost to it with its lease",
            |c| &c.given_up,
        );
        add(
            "newswire_ingestd_checkpoints_published_total",
            "Checkpoints of sources that NATS has confirmed, for the daemon that visits the source next",
            |c| &c.checkpoints_published,
        );
        add(
            "newswire_ingestd_checkpoints_failed_total",
            "Checkpoints of sources that NATS did not confirm, or that another daemon was ahead of; they are published again",
            |c| &c.checkpoints_failed,
        );
        metrics.register_checkpoints(registry);
        let of_gauges = metrics.clone();
        registry.register_collector(move |sink| of_gauges.write_gauges(sink));
        metrics
    }

    fn register_checkpoints(&self, registry: &MetricsRegistry) {
        let add = |name: &str, help: &str, read: fn(&CheckpointCounters) -> &AtomicU64| {
            let counters = Arc::clone(&self.0.checkpoints);
            registry.register_counter(name, help, move || read(&counters).load(Relaxed));
        };
        add(
            "newswire_ingestd_checkpoints_fenced_total",
            "Checkpoints of sources that NATS refused, because another daemon has published one of the source since",
            |c| &c.fenced,
        );
        add(
            "newswire_ingestd_checkpoints_too_large_total",
            "States and seen sets that are larger than max_payload of the NATS servers; the daemon that takes the source over uses older ones",
            |c| &c.too_large,
        );
        add(
            "newswire_ingestd_checkpoints_events_read_total",
            "Events of the stream that were read when sources were taken over, because their checkpoints did not know them",
            |c| &c.events_read,
        );
        add(
            "newswire_ingestd_checkpoints_unread_total",
            "Times that a source was taken over with more than 4096 such events, and the oldest were not read; those may be in the stream twice",
            |c| &c.unread,
        );
    }

    pub(super) fn show_lease(&self, lease: &Lease) {
        // There is one in a process.
        self.0.lease.set(lease.clone()).ok();
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.0
    }

    #[expect(clippy::cast_precision_loss, reason = "shards and sources are far below 2^53")]
    fn write_gauges(&self, sink: &mut MetricsSink<'_>) -> fmt::Result {
        let read = |gauge: &AtomicU64| gauge.load(Relaxed) as f64;
        sink.gauge(
            "newswire_ingestd_lease_valid",
            "1 while this daemon may visit sources: NATS has confirmed its lease lately, or it shares no list",
            f64::from(u8::from(self.0.lease.get().is_none_or(Lease::is_valid))),
        )?;
        sink.gauge(
            "newswire_ingestd_shards_owned",
            "Shards of the shared list that this daemon visits, of 4096",
            read(&self.0.shards),
        )?;
        sink.gauge(
            "newswire_ingestd_sources_elsewhere",
            "Sources of the shared list that other daemons visit, or that this one is taking over",
            read(&self.0.elsewhere),
        )?;
        sink.gauge(
            "newswire_ingestd_checkpoints_waiting",
            "Sources whose newest checkpoint is not in NATS yet",
            read(&self.0.checkpoints_waiting),
        )
    }
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }
}
