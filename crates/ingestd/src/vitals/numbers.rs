//! The vitals in metrics: the same readings as on `/watch`, so that the two agree. Whatever the number of sources, the
//! number of series is the same.

use std::{fmt, sync::Arc};

use daemon::{
    metrics::{MetricsRegistry, MetricsSink},
    watch::try_briefly,
};
use news::Timestamp;
use rustix::fs::statvfs;
use tokio::time::Instant;

use super::{Tally, Vitals};
use crate::board::{Activity, Health};

impl Vitals {
    /// Adds them all.
    pub(crate) fn register(self: &Arc<Self>, metrics: &MetricsRegistry) {
        let (vitals, started) = (Arc::clone(self), Instant::now());
        metrics.register_collector(move |answers| {
            vitals.answer_store(answers, started)?;
            vitals.answer_sources(answers)
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes of a disk and events of a log are far below 2^53")]
    fn answer_store(&self, answers: &mut MetricsSink<'_>, started: Instant) -> fmt::Result {
        let commits = &self.numbers.shown.commits;
        let age = commits.last_ms_ago().map_or_else(|| started.elapsed().as_secs_f64(), seconds);
        let disk = statvfs(&self.path).ok();
        answers.gauge(
            "newswire_ingestd_log_oldest",
            "Sequence number of the oldest event that is kept; who asks for older ones is told of a gap",
            self.reader.oldest().0 as f64,
        )?;
        answers.gauge(
            "newswire_ingestd_recorder_queue",
            "Visits that wait to be written to disk; at 1024 every further visit waits too",
            (self.queued)() as f64,
        )?;
        answers.gauge(
            "newswire_ingestd_commit_age_seconds",
            "Since the last group commit ended, or since the start when there was none",
            age,
        )?;
        answers.gauge(
            "newswire_ingestd_commit_last_seconds",
            "How long the last group commit took, sync included",
            commits.last_took_ms().map_or(0.0, seconds),
        )?;
        answers.gauge(
            "newswire_ingestd_commit_under_way_seconds",
            "How long the group commit under way has lasted; 0 when there is none. Seconds mean that the disk hangs",
            commits.under_way_ms().map_or(0.0, seconds),
        )?;
        let (free, all) = disk.map_or((0, 0), |disk| {
            (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize))
        });
        answers.gauge(
            "newswire_ingestd_disk_free_bytes",
            "Free on the file system of the store; when it is full the daemon ends with an error",
            free as f64,
        )?;
        answers.gauge("newswire_ingestd_disk_bytes", "Size of the file system of the store", all as f64)
    }

    /// Nothing while the list of sources is being changed.
    #[expect(clippy::cast_precision_loss, reason = "sources are counted in hundred thousands")]
    fn answer_sources(&self, answers: &mut MetricsSink<'_>) -> fmt::Result {
        let Some(plates) = try_briefly(|| self.board.try_plates()) else { return Ok(()) };
        let tally = Tally::of(&plates, Timestamp::from_millis(self.clock.now_millis()));
        answers.gauges(
            "newswire_ingestd_sources_by_activity",
            "Sources by what they are doing; down ones died and are being rebuilt",
            "activity",
            Activity::ALL.iter().map(|it| (it.as_str(), tally.activities[*it as usize] as f64)),
        )?;
        answers.gauges(
            "newswire_ingestd_sources_by_health",
            "Sources by how they fare: of failing ones the last visit brought no feed, gone ones said 410, \
             of quarantined ones no document is read until an operator orders a visit",
            "health",
            Health::ALL.iter().map(|it| (it.as_str(), tally.healths[*it as usize] as f64)),
        )?;
        answers.gauge(
            "newswire_ingestd_sources_overdue",
            "Idle sources whose visit should have begun by now; more than a handful means that we do not keep up",
            tally.overdue as f64,
        )?;
        answers.gauge(
            "newswire_ingestd_overdue_seconds_max",
            "How long the latest idle source is past its time",
            seconds(tally.overdue_ms_max),
        )?;
        answers.gauge(
            "newswire_ingestd_waiting_seconds_max",
            "How long the first in a queue has waited for its host, for a place, or to be rebuilt",
            seconds(tally.waiting_ms_max),
        )?;
        answers.gauge(
            "newswire_ingestd_working_seconds_max",
            "How long the longest visit under way has been fetching, parsing or recording",
            seconds(tally.working_ms_max),
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
    use crate::{
        board::{Board, Plate},
        metrics::Numbers,
    };

    /// Series of the whole process, loops of the watch left out; the alerts and panels need no more.
    const SERIES_MAX: usize = 250;

    fn plate(n: u32) -> Arc<Plate> {
        let url = FeedUrl::try_new("https://example.org/").unwrap();
        let mut source = Source::new(SourceId::try_new(&format!("s{n}")).unwrap(), url);
        source.enabled = !n.is_multiple_of(7);
        let mut state = SourceState { failures: n % 3, ..SourceState::default() };
        state.quarantine = n.is_multiple_of(11).then(|| "slow".to_owned());
        let plate = Plate::new(Arc::new(source), state);
        if n.is_multiple_of(5) {
            plate.set_activity(Activity::ALL[n as usize / 5 % 6], Timestamp::from_millis(0));
        }
        Arc::new(plate)
    }

    fn series(text: &str) -> BTreeSet<&str> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap().0).collect()
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test may wait for the disk")]
    async fn a_hundred_thousand_sources_make_no_more_series_than_none() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, reader) = store::open(folder.path(), &store::StoreOptions::default()).unwrap();
        let (metrics, board) = (MetricsRegistry::new(), Board::default());
        let vitals = Vitals {
            board: board.clone(),
            reader,
            clock: Clock::from_tokio(1_000_000),
            numbers: Numbers::register(&metrics),
            path: folder.path().to_path_buf(),
            queued: Box::new(|| 3),
        };
        Arc::new(vitals).register(&metrics);
        let empty = metrics.encode();
        (0..100_000).for_each(|n| board.put(plate(n)));
        let full = metrics.encode();
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
