//! The diagnostics as metrics: the same readings as on `/watch`, so that the two agree. The number of series does not
//! depend on the number of sources.

use std::{fmt, sync::Arc};

use daemon::{
    metrics::{MetricsRegistry, MetricsSink},
    watch::try_briefly,
};
use news::Timestamp;
use store::space::{self, FileSystemInodes};
use tokio::time::Instant;

use super::{
    activity::{Activity, SourceHealth},
    diagnostics::{ActivityCounts, IngestDiagnostics},
};

impl IngestDiagnostics {
    /// Registers all gauges.
    pub(crate) fn register(self: &Arc<Self>, metrics_registry: &MetricsRegistry) {
        let (diagnostics, started) = (Arc::clone(self), Instant::now());
        metrics_registry.register_collector(move |sink| {
            diagnostics.write_store(sink, started)?;
            diagnostics.write_sources(sink)
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes of a disk and events of a log are far below 2^53")]
    fn write_store(&self, sink: &mut MetricsSink<'_>, started: Instant) -> fmt::Result {
        let commits = &self.metrics.progress.commits;
        let age = commits.last_ms_ago().map_or_else(|| started.elapsed().as_secs_f64(), seconds);
        let disk = space::of_file_system(&self.path).ok();
        sink.gauge(
            "newswire_ingestd_log_oldest",
            "Sequence number of the oldest event that is kept; a client that asks for older ones gets a gap event",
            self.reader.oldest().0 as f64,
        )?;
        sink.gauge(
            "newswire_ingestd_recorder_queue",
            "Visits waiting to be written to disk; at 1024 further visits wait before the queue",
            (self.queued)() as f64,
        )?;
        sink.gauge(
            "newswire_ingestd_commit_age_seconds",
            "Time since the last group commit ended, or since the start if there was none",
            age,
        )?;
        sink.gauge(
            "newswire_ingestd_commit_last_seconds",
            "Duration of the last group commit, including the sync",
            commits.last_took_ms().map_or(0.0, seconds),
        )?;
        sink.gauge(
            "newswire_ingestd_commit_under_way_seconds",
            "Duration of the group commit in progress, 0 if there is none; several seconds mean that the disk hangs",
            commits.in_progress_ms().map_or(0.0, seconds),
        )?;
        let (free, all) = disk.map_or((0, 0), |disk| (disk.free_bytes, disk.bytes));
        sink.gauge(
            "newswire_ingestd_disk_free_bytes",
            "Free space on the file system of the store; recording pauses below store.free_bytes_min and store.free_percent_min",
            free as f64,
        )?;
        sink.gauge("newswire_ingestd_disk_bytes", "Size of the file system of the store", all as f64)?;
        // 0 of 0 if the file system has no fixed number of them.
        let FileSystemInodes { free, all } =
            disk.and_then(|disk| disk.inodes).unwrap_or(FileSystemInodes { free: 0, all: 0 });
        sink.gauge(
            "newswire_ingestd_disk_free_inodes",
            "Free inodes of the file system of the store; recording pauses below store.free_percent_min",
            free as f64,
        )?;
        sink.gauge(
            "newswire_ingestd_disk_inodes",
            "Inodes of the file system of the store, 0 if it has no fixed number of them",
            all as f64,
        )
    }

    /// Writes nothing while the registry is locked.
    #[expect(clippy::cast_precision_loss, reason = "sources are counted in hundred thousands")]
    fn write_sources(&self, sink: &mut MetricsSink<'_>) -> fmt::Result {
        let Some(entries) = try_briefly(|| self.registry.try_entries()) else { return Ok(()) };
        let counts = ActivityCounts::of(&entries, Timestamp::from_millis(self.clock.now_millis()));
        sink.gauges(
            "newswire_ingestd_sources_by_activity",
            "Sources by what they are doing; the actor of a down one died and will be rebuilt",
            "activity",
            Activity::ALL.iter().map(|it| (it.as_str(), counts.activities[*it as usize] as f64)),
        )?;
        sink.gauges(
            "newswire_ingestd_sources_by_health",
            "Sources by health: the last visit of a failing one failed, a gone one answered 410, a quarantined one is visited every fetch.interval_max only",
            "health",
            SourceHealth::ALL.iter().map(|it| (it.as_str(), counts.healths[*it as usize] as f64)),
        )?;
        sink.gauge(
            "newswire_ingestd_sources_flooding",
            "Sources with items that wait, because they have more new ones than they may record",
            counts.flooding as f64,
        )?;
        sink.gauge(
            "newswire_ingestd_sources_quiet",
            "Sources that answer, and have had nothing new for much longer than usual",
            counts.quiet as f64,
        )?;
        sink.gauge(
            "newswire_ingestd_sources_overdue",
            "Idle sources whose visit should have started; more than a handful means that the daemon does not keep up",
            counts.overdue as f64,
        )?;
        sink.gauge(
            "newswire_ingestd_overdue_seconds_max",
            "How long the most overdue idle source has been due",
            seconds(counts.overdue_ms_max),
        )?;
        sink.gauge(
            "newswire_ingestd_waiting_seconds_max",
            "Longest current wait of a source for its host, for a slot, or for its rebuild",
            seconds(counts.waiting_ms_max),
        )?;
        sink.gauge(
            "newswire_ingestd_working_seconds_max",
            "Longest time that a source has been fetching, parsing or recording",
            seconds(counts.working_ms_max),
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a process")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use daemon::Clock;
    use news::{FeedUrl, Source, SourceId, SourceState};

    use super::*;
    use crate::status::{
        metrics::IngestMetrics,
        registry::{SourceEntry, SourceRegistry},
    };

    /// Series of the whole process, loops of the watch left out; the alerts and panels need no more.
    const SERIES_MAX: usize = 250;

    fn entry(n: u32) -> Arc<SourceEntry> {
        let url = FeedUrl::try_new("https://example.org/").unwrap();
        let mut source = Source::new(SourceId::try_new(&format!("s{n}")).unwrap(), url);
        source.enabled = !n.is_multiple_of(7);
        let mut state = SourceState { failures: n % 3, ..SourceState::default() };
        state.quarantine = n.is_multiple_of(11).then(|| "slow".to_owned());
        let entry = SourceEntry::new(Arc::new(source), state);
        if n.is_multiple_of(5) {
            entry.set_activity(Activity::ALL[n as usize / 5 % 6], Timestamp::from_millis(0));
        }
        Arc::new(entry)
    }

    fn series(text: &str) -> BTreeSet<&str> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap().0).collect()
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test may wait for the disk")]
    async fn a_hundred_thousand_sources_have_as_many_series_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, reader) = store::open(folder.path(), &store::StoreOptions::default()).unwrap();
        let (metrics_registry, registry) = (MetricsRegistry::new(), SourceRegistry::default());
        let diagnostics = IngestDiagnostics {
            registry: registry.clone(),
            reader,
            clock: Clock::from_tokio(1_000_000),
            recording: crate::recording::tests::recording(),
            metrics: IngestMetrics::register(&metrics_registry),
            path: folder.path().to_path_buf(),
            slots: 256,
            queued: Box::new(|| 3),
        };
        Arc::new(diagnostics).register(&metrics_registry);
        let empty = metrics_registry.encode();
        (0..100_000).for_each(|n| registry.insert(entry(n)));
        let full = metrics_registry.encode();
        assert_eq!(series(&empty), series(&full));
        assert!(series(&full).len() <= SERIES_MAX, "{} series", series(&full).len());
        assert!(!full.contains("s99999") && !full.contains("source="), "a source is named");
        let values = |name: &str| -> f64 {
            let lines = full.lines().filter(|line| line.starts_with(name));
            lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
        };
        assert_eq!(values("newswire_ingestd_sources_by_health{"), 100_000.0, "each source has one health");
        assert_eq!(values("newswire_ingestd_sources_by_activity{"), 100_000.0);
        assert!(values("newswire_ingestd_working_seconds_max ") >= 1000.0, "some have fetched since 1970");
    }
}
