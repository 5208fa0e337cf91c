//! How the process fares, for `/watch` of the admin socket: asked while any thread may be stuck, so nothing in here waits
//! for a lock.

mod numbers;

use std::{
    cmp::Reverse,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use daemon::{Clock, watch::try_briefly};
use news::{Cursor, Seq, Timestamp};
use rustix::fs::statvfs;
use serde_json::{Map, Value, json};
use store::LogReader;
use tokio::time::Instant;

use crate::{
    board::{Activity, Board, Health, Plate},
    metrics::Numbers,
};

/// Sources that are named.
const BUSIEST_MAX: usize = 50;

/// What the vitals are read from.
pub(crate) struct Vitals {
    pub(crate) board: Board,
    pub(crate) reader: LogReader,
    pub(crate) clock: Clock,
    pub(crate) numbers: Numbers,
    /// Where the store is.
    pub(crate) path: PathBuf,
    /// Jobs that wait for the recorder.
    pub(crate) queued: Box<dyn Fn() -> usize + Send + Sync>,
}

/// What only the vitals show.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The newest event that was sent on the wire.
    pub(crate) sent: AtomicU64,
    pub(crate) commits: Commits,
}

/// The last group commit and the one under way.
#[derive(Debug)]
pub(crate) struct Commits {
    started: Instant,
    /// Milliseconds after `started`, and one more: 0 is never.
    began: AtomicU64,
    ended: AtomicU64,
    took_ms: AtomicU64,
}

impl Default for Commits {
    fn default() -> Self {
        let (began, ended, took_ms) = Default::default();
        Self { started: Instant::now(), began, ended, took_ms }
    }
}

impl Commits {
    pub(crate) fn begin(&self) {
        self.began.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        let now = self.now();
        let began = self.began.swap(0, Ordering::Relaxed);
        self.took_ms.store(now.saturating_sub(began), Ordering::Relaxed);
        self.ended.store(now, Ordering::Relaxed);
    }

    pub(crate) fn last_ms_ago(&self) -> Option<u64> {
        self.since(&self.ended)
    }

    pub(crate) fn last_took_ms(&self) -> Option<u64> {
        self.last_ms_ago().map(|_| self.took_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn under_way_ms(&self) -> Option<u64> {
        self.since(&self.began)
    }

    fn since(&self, at: &AtomicU64) -> Option<u64> {
        let at = at.load(Ordering::Relaxed);
        (at > 0).then(|| self.now().saturating_sub(at))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl Vitals {
    pub(crate) fn tell(&self) -> Value {
        let numbers = &self.numbers;
        let (used, max) = daemon::limits::open_files();
        let sent = Cursor {
            epoch: self.reader.epoch().clone(),
            seq: Seq(numbers.shown.sent.load(Ordering::Relaxed)),
        };
        let mut vitals = json!({
            "epoch": self.reader.epoch(),
            "oldest": self.reader.oldest(),
            "head": self.reader.head(),
            "wire": { "subscribers": numbers.subscribers.get(), "sent": sent },
            "outage": numbers.outage.get() != 0,
            "store": self.store(),
            "open_files": { "used": used, "max": max },
        });
        // Nothing of the sources while their list is being changed.
        if let (Value::Object(all), Some(plates)) = (&mut vitals, try_briefly(|| self.board.try_plates())) {
            all.extend(sources(&plates, Timestamp::from_millis(self.clock.now_millis())));
        }
        vitals
    }

    fn store(&self) -> Value {
        let (numbers, commits) = (&self.numbers, &self.numbers.shown.commits);
        let disk = statvfs(&self.path).ok();
        json!({
            "path": std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone()),
            "bytes": numbers.log_bytes.get(),
            "free_bytes": disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            "last_commit_ms_ago": commits.last_ms_ago(),
            "last_commit_took_ms": commits.last_took_ms(),
            "committing_ms": commits.under_way_ms(),
            "queued": (self.queued)(),
        })
    }
}

/// The sources together. One whose lock is held at this very moment is left out.
#[derive(Debug, Default)]
pub(crate) struct Tally<'a> {
    pub(crate) activities: [usize; Activity::ALL.len()],
    pub(crate) healths: [usize; Health::ALL.len()],
    /// Idle ones whose visit should have begun.
    pub(crate) overdue: usize,
    pub(crate) overdue_ms_max: u64,
    pub(crate) waiting_ms_max: u64,
    pub(crate) working_ms_max: u64,
    /// Whatever is neither idle nor off, and since when.
    busy: Vec<(u64, Activity, &'a Arc<Plate>)>,
}

impl<'a> Tally<'a> {
    pub(crate) fn of(plates: &'a [Arc<Plate>], now: Timestamp) -> Self {
        let mut tally = Self::default();
        for (glance, plate) in plates.iter().filter_map(|plate| Some((plate.try_glance()?, plate))) {
            tally.activities[glance.activity as usize] += 1;
            tally.healths[glance.health as usize] += 1;
            let since = |then: Timestamp| u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX);
            match glance.activity {
                Activity::Idle => {
                    if let Some(next) = glance.next_visit.filter(|next| *next < now) {
                        tally.overdue += 1;
                        tally.overdue_ms_max = tally.overdue_ms_max.max(since(next));
                    }
                }
                Activity::Paused | Activity::Disabled => {}
                activity => {
                    let since = glance.since.map_or(0, since);
                    let longest = match activity {
                        Activity::Fetching | Activity::Parsing | Activity::Recording => {
                            &mut tally.working_ms_max
                        }
                        _ => &mut tally.waiting_ms_max,
                    };
                    *longest = since.max(*longest);
                    tally.busy.push((since, activity, plate));
                }
            }
        }
        tally
    }
}

/// What the tally says.
fn sources(plates: &[Arc<Plate>], now: Timestamp) -> Map<String, Value> {
    let Tally { activities: counts, overdue, mut busy, .. } = Tally::of(plates, now);
    busy.sort_by_key(|(since, ..)| Reverse(*since));
    busy.truncate(BUSIEST_MAX);
    let show = |(since, activity, plate): (u64, Activity, &Arc<Plate>)| {
        json!({
            "source": plate.source.id,
            "activity": activity.as_str(),
            "since_ms_ago": since,
            "waiting_for": plate.try_sign(),
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

    fn plate(id: &str, next_ms: i64) -> Arc<Plate> {
        let url = FeedUrl::try_new("https://example.org/").unwrap();
        let source = Arc::new(Source::new(SourceId::try_new(id).unwrap(), url));
        let next_visit = Some(Timestamp::from_millis(next_ms));
        Arc::new(Plate::new(source, SourceState { next_visit, ..SourceState::default() }))
    }

    #[test]
    fn the_sources_are_counted_and_the_longest_at_work_are_named_first() {
        let now = Timestamp::from_millis(100_000);
        let plates: Vec<_> = (0..200).map(|n| plate(&format!("s{n}"), 100_000 + n)).collect();
        let late = plate("late", 99_999);
        for (n, plate) in plates.iter().enumerate().take(60) {
            plate.set_activity(Activity::Fetching, Timestamp::from_millis(1_000 * n as i64));
        }
        let all: Vec<_> = plates.into_iter().chain([late]).collect();
        let told = sources(&all, now);
        assert_eq!((&told["actors"]["fetching"], &told["actors"]["idle"]), (&json!(60), &json!(141)));
        assert_eq!(told["overdue"], 1);
        let busiest = told["busiest"].as_array().unwrap();
        assert_eq!(busiest.len(), BUSIEST_MAX);
        let first =
            json!({"source": "s0", "activity": "fetching", "since_ms_ago": 100_000, "waiting_for": null});
        assert_eq!(busiest[0], first);
    }

    #[test]
    fn whatever_is_held_by_somebody_is_left_out_and_not_waited_for() {
        let board = Board::default();
        board.put(plate("a", 0));
        let other = board.clone();
        board.while_held(|| assert!(other.try_plates().is_none()));
        assert_eq!(other.try_plates().unwrap().len(), 1);
    }
}
