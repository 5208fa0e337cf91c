//! Diagnostics of the process for `/watch` on the admin socket: read while any thread may be stuck, so nothing in here waits
//! for a lock.

use std::{
    cmp::Reverse,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use daemon::{Clock, watch::try_briefly};
use news::{Cursor, Seq, Timestamp};
use rustix::fs::statvfs;
use serde_json::{Map, Value, json};
use store::LogReader;

use super::{
    activity::{Activity, Health},
    metrics::IngestMetrics,
    registry::{SourceEntry, SourceRegistry},
};

/// Sources that are listed by name.
const BUSIEST_MAX: usize = 50;

/// What the diagnostics are read from.
pub(crate) struct IngestDiagnostics {
    pub(crate) registry: SourceRegistry,
    pub(crate) reader: LogReader,
    pub(crate) clock: Clock,
    pub(crate) metrics: IngestMetrics,
    /// Where the store is.
    pub(crate) path: PathBuf,
    /// How many jobs wait for the recorder.
    pub(crate) queued: Box<dyn Fn() -> usize + Send + Sync>,
}

impl IngestDiagnostics {
    /// The diagnostics as JSON.
    pub(crate) fn to_json(&self) -> Value {
        let metrics = &self.metrics;
        let (used, max) = daemon::limits::open_files();
        let sent = Cursor {
            epoch: self.reader.epoch().clone(),
            seq: Seq(metrics.progress.sent.load(Ordering::Relaxed)),
        };
        let mut all = json!({
            "epoch": self.reader.epoch(),
            "oldest": self.reader.oldest(),
            "head": self.reader.head(),
            "wire": { "subscribers": metrics.subscribers.get(), "sent": sent },
            "outage": metrics.outage.get() != 0,
            "store": self.store(),
            "open_files": { "used": used, "max": max },
        });
        // Without the sources while the registry is locked.
        if let (Value::Object(map), Some(entries)) = (&mut all, try_briefly(|| self.registry.try_entries())) {
            map.extend(sources(&entries, Timestamp::from_millis(self.clock.now_millis())));
        }
        all
    }

    fn store(&self) -> Value {
        let (metrics, commits) = (&self.metrics, &self.metrics.progress.commits);
        let disk = statvfs(&self.path).ok();
        json!({
            "path": std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone()),
            "bytes": metrics.log_bytes.get(),
            "free_bytes": disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            "last_commit_ms_ago": commits.last_ms_ago(),
            "last_commit_took_ms": commits.last_took_ms(),
            "committing_ms": commits.in_progress_ms(),
            "queued": (self.queued)(),
        })
    }
}

/// How many sources do what. An entry that is locked at this moment is left out.
#[derive(Debug, Default)]
pub(crate) struct ActivityCounts<'a> {
    pub(crate) activities: [usize; Activity::ALL.len()],
    pub(crate) healths: [usize; Health::ALL.len()],
    /// Idle sources whose visit should have started.
    pub(crate) overdue: usize,
    pub(crate) overdue_ms_max: u64,
    pub(crate) waiting_ms_max: u64,
    pub(crate) working_ms_max: u64,
    /// Sources that are neither idle nor disabled, and since when.
    busy: Vec<(u64, Activity, &'a Arc<SourceEntry>)>,
}

impl<'a> ActivityCounts<'a> {
    pub(crate) fn of(entries: &'a [Arc<SourceEntry>], now: Timestamp) -> Self {
        let mut counts = Self::default();
        for (snapshot, entry) in entries.iter().filter_map(|entry| Some((entry.try_snapshot()?, entry))) {
            counts.activities[snapshot.activity as usize] += 1;
            counts.healths[snapshot.health as usize] += 1;
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

/// The counts and the busiest sources as JSON.
fn sources(entries: &[Arc<SourceEntry>], now: Timestamp) -> Map<String, Value> {
    let ActivityCounts { activities: counts, overdue, mut busy, .. } = ActivityCounts::of(entries, now);
    busy.sort_by_key(|(since, ..)| Reverse(*since));
    busy.truncate(BUSIEST_MAX);
    let show = |(since, activity, entry): (u64, Activity, &Arc<SourceEntry>)| {
        json!({
            "source": entry.source.id,
            "activity": activity.as_str(),
            "since_ms_ago": since,
            "waiting_for": entry.try_sign(),
        })
    };
    let counted = Activity::ALL.iter().map(|a| (a.as_str().to_owned(), json!(counts[*a as usize])));
    let mut out = Map::new();
    out.insert("actors".to_owned(), Value::Object(counted.collect()));
    out.insert("busiest".to_owned(), busy.into_iter().map(show).collect());
    out.insert("overdue".to_owned(), json!(overdue));
    out
}

#[cfg(test)]
mod tests {
    use news::{FeedUrl, Source, SourceId, SourceState};

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
        }
        let all: Vec<_> = entries.into_iter().chain([late]).collect();
        let json = sources(&all, now);
        assert_eq!((&json["actors"]["fetching"], &json["actors"]["idle"]), (&json!(60), &json!(141)));
        assert_eq!(json["overdue"], 1);
        let busiest = json["busiest"].as_array().unwrap();
        assert_eq!(busiest.len(), BUSIEST_MAX);
        let first =
            json!({"source": "s0", "activity": "fetching", "since_ms_ago": 100_000, "waiting_for": null});
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
