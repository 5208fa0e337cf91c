//! Diagnostics of the process for `/watch` on the admin socket: read while any thread may be stuck, so nothing in
//! here waits for a lock.

use std::{
    cmp::Reverse,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use control::watch::{
    BusySource, DiskWorkPhase, DiskWorkReport, IngestVitals, OpenFiles, PublisherReport,
    RecordingPauseReport, SlowDiskReport, SourcesReport, StoreReport,
};
use daemon::{Clock, watch::try_briefly};
use fetch::VisitPhase;
use news::{Cursor, RecordingPause, Seq, Timestamp};
use store::{
    LogReader,
    disk_work::{DiskPhase, DiskPhaseProgress, SlowDiskWork},
    space,
};

use super::{
    activity::{Activity, SourceHealth},
    feeds::FeedCounts,
    metrics::IngestMetrics,
    registry::{SourceEntry, SourceRegistry},
};
use crate::recording::Recording;

/// Sources that are listed by name.
const BUSIEST_MAX: usize = 50;

/// What the diagnostics are read from.
pub(crate) struct IngestDiagnostics {
    pub(crate) registry: SourceRegistry,
    pub(crate) reader: LogReader,
    pub(crate) clock: Clock,
    pub(crate) metrics: IngestMetrics,
    pub(crate) recording: Recording,
    /// Where the store is.
    pub(crate) path: PathBuf,
    /// How many visits may be in progress at once.
    pub(crate) slots: usize,
    /// How many jobs wait for the recorder.
    pub(crate) queued: Box<dyn Fn() -> usize + Send + Sync>,
}

impl IngestDiagnostics {
    /// For the `vitals` of `/watch`.
    pub(crate) fn vitals(&self) -> IngestVitals {
        let (used, max) = daemon::limits::open_files();
        let epoch = self.reader.epoch();
        let seq = Seq(self.metrics.progress.sent.load(Ordering::Relaxed));
        let subscribers = self.metrics.subscribers.get();
        let entries = try_briefly(|| self.registry.try_entries());
        let now = Timestamp::from_millis(self.clock.now_millis());
        IngestVitals {
            epoch: epoch.to_string(),
            oldest: self.reader.oldest().0,
            head: self.reader.head().0,
            wire: PublisherReport {
                subscribers: u64::try_from(subscribers).unwrap_or_default(),
                sent: Cursor { epoch: epoch.clone(), seq }.to_string(),
            },
            outage: self.metrics.outage.get() != 0,
            store: self.store(),
            recording_paused: self.recording.pauses().into_iter().map(|pause| paused(pause, now)).collect(),
            open_files: OpenFiles { used, max },
            sources: entries.map(|entries| sources(&entries, now, self.slots)),
        }
    }

    fn store(&self) -> StoreReport {
        let commits = &self.metrics.progress.commits;
        let disk = space::of_file_system(&self.path).ok();
        let work = self.reader.disk_work();
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        StoreReport {
            path: path.display().to_string(),
            bytes: u64::try_from(self.metrics.log_bytes.get()).unwrap_or_default(),
            free_bytes: disk.map(|disk| disk.free_bytes),
            last_commit_ms_ago: commits.last_ms_ago(),
            last_commit_took_ms: commits.last_took_ms(),
            committing_ms: commits.in_progress_ms(),
            disk: work.in_progress().map(disk_work),
            slow_disk: Some(slow_disk(work.slow())).filter(|slow| slow.count > 0),
            queued: (self.queued)() as u64,
            last_read_failure_ms_ago: self.metrics.progress.read_failures.last_ms_ago(),
        }
    }
}

fn disk_work(DiskPhaseProgress { phase, since_ms }: DiskPhaseProgress) -> DiskWorkReport {
    let phase = match phase {
        DiskPhase::Write => DiskWorkPhase::Write,
        DiskPhase::Sync => DiskWorkPhase::Sync,
        DiskPhase::Sled => DiskWorkPhase::Sled,
    };
    DiskWorkReport { phase, since_ms }
}

fn slow_disk(SlowDiskWork { count, total_ms, slowest_ms, slowest_ms_ago }: SlowDiskWork) -> SlowDiskReport {
    SlowDiskReport { count, total_ms, slowest_ms, slowest_ms_ago }
}

fn paused(RecordingPause { reason, since, detail }: RecordingPause, now: Timestamp) -> RecordingPauseReport {
    let since_ms_ago = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
    RecordingPauseReport { reason: reason.as_str().to_owned(), since_ms_ago, detail }
}

/// The number of sources per activity. An entry that is locked at this moment is left out.
#[derive(Debug, Default)]
pub(crate) struct ActivityCounts<'a> {
    pub(crate) activities: [usize; Activity::ALL.len()],
    pub(crate) healths: [usize; SourceHealth::ALL.len()],
    /// Those that are fetching, by what the visit waits for.
    phases: [u64; VisitPhase::ALL.len()],
    /// Idle sources whose visit should have started.
    pub(crate) overdue: usize,
    /// Sources with items that wait, because they have more new ones than they may record.
    pub(crate) flooding: usize,
    /// Healthy sources without news for much longer than usual.
    pub(crate) quiet: usize,
    pub(crate) overdue_ms_max: u64,
    pub(crate) waiting_ms_max: u64,
    pub(crate) working_ms_max: u64,
    /// Sources that are neither idle nor disabled, and since when.
    busy: Vec<(u64, Activity, &'a Arc<SourceEntry>)>,
    feeds: FeedCounts<'a>,
}

impl<'a> ActivityCounts<'a> {
    pub(crate) fn of(entries: &'a [Arc<SourceEntry>], now: Timestamp) -> Self {
        let mut counts = Self::default();
        for (snapshot, entry) in entries.iter().filter_map(|entry| Some((entry.try_snapshot(now)?, entry))) {
            counts.feeds.add(entry, &snapshot, now);
            counts.activities[snapshot.activity as usize] += 1;
            if let Some(phase) = snapshot.phase {
                counts.phases[phase as usize] += 1;
            }
            counts.healths[snapshot.health as usize] += 1;
            counts.flooding += usize::from(snapshot.is_flooding);
            counts.quiet += usize::from(snapshot.is_quiet);
            let since = |then: Timestamp| u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX);
            match snapshot.activity {
                Activity::Idle => {
                    if let Some(next) = snapshot.next_visit.filter(|next| *next < now) {
                        counts.overdue += 1;
                        counts.overdue_ms_max = counts.overdue_ms_max.max(since(next));
                    }
                }
                Activity::Paused | Activity::Disabled => {}
                activity => {
                    let since = snapshot.since.map_or(0, since);
                    let longest = match activity {
                        Activity::Fetching | Activity::Parsing | Activity::Recording => {
                            &mut counts.working_ms_max
                        }
                        _ => &mut counts.waiting_ms_max,
                    };
                    *longest = since.max(*longest);
                    counts.busy.push((since, activity, entry));
                }
            }
        }
        counts
    }
}

/// The counts and the busiest sources.
fn sources(entries: &[Arc<SourceEntry>], now: Timestamp, slots: usize) -> SourcesReport {
    let ActivityCounts { activities, phases, overdue, mut busy, feeds, .. } =
        ActivityCounts::of(entries, now);
    busy.sort_by_key(|(since, ..)| Reverse(*since));
    busy.truncate(BUSIEST_MAX);
    let busy_source = |(since_ms_ago, activity, entry): (u64, Activity, &Arc<SourceEntry>)| BusySource {
        source: entry.source.id.to_string(),
        activity: activity.as_str().to_owned(),
        since_ms_ago,
        waiting_for: match activity {
            Activity::Fetching => Some(entry.phase.get().as_str().to_owned()),
            _ => entry.try_wait_reason(),
        },
    };
    let count = |activity: &Activity| (activity.as_str().to_owned(), activities[*activity as usize] as u64);
    let in_phase = |phase: &VisitPhase| (phase.as_str().to_owned(), phases[*phase as usize]);
    SourcesReport {
        actors: Activity::ALL.iter().map(count).collect(),
        fetching: VisitPhase::ALL.iter().filter(|phase| phases[**phase as usize] > 0).map(in_phase).collect(),
        busiest: busy.into_iter().map(busy_source).collect(),
        overdue: overdue as u64,
        feeds: Some(Box::new(feeds.into_report(now, slots))),
    }
}

#[cfg(test)]
mod tests {
    use news::{FeedUrl, Source, SourceId, SourceState};

    use serde_json::json;

    use super::*;

    fn entry(id: &str, next_ms: i64) -> Arc<SourceEntry> {
        let url = FeedUrl::try_new("https://example.org/").unwrap();
        let source = Arc::new(Source::new(SourceId::try_new(id).unwrap(), url));
        let next_visit = Some(Timestamp::from_millis(next_ms));
        Arc::new(SourceEntry::new(source, SourceState { next_visit, ..SourceState::default() }))
    }

    #[test]
    fn sources_are_counted_and_the_longest_busy_are_listed_first() {
        let now = Timestamp::from_millis(100_000);
        let entries: Vec<_> = (0..200).map(|n| entry(&format!("s{n}"), 100_000 + n)).collect();
        let late = entry("late", 99_999);
        for (n, entry) in entries.iter().enumerate().take(60) {
            entry.set_activity(Activity::Fetching, Timestamp::from_millis(1_000 * n as i64));
            entry.phase.set(if n < 2 { VisitPhase::Answer } else { VisitPhase::Lookup });
        }
        let all: Vec<_> = entries.into_iter().chain([late]).collect();
        let json = serde_json::to_value(sources(&all, now, 256)).unwrap();
        assert_eq!((&json["actors"]["fetching"], &json["actors"]["idle"]), (&json!(60), &json!(141)));
        assert_eq!(json["fetching"], json!({"answer": 2, "lookup": 58}));
        assert_eq!(json["overdue"], 1);
        let busiest = json["busiest"].as_array().unwrap();
        assert_eq!(busiest.len(), BUSIEST_MAX);
        let first =
            json!({"source": "s0", "activity": "fetching", "since_ms_ago": 100_000, "waiting_for": "answer"});
        assert_eq!(busiest[0], first);
    }

    #[test]
    fn a_locked_registry_is_left_out_and_not_waited_for() {
        let registry = SourceRegistry::default();
        registry.insert(entry("a", 0));
        let other = registry.clone();
        registry.while_locked(|| assert!(other.try_entries().is_none()));
        assert_eq!(other.try_entries().unwrap().len(), 1);
    }
}
