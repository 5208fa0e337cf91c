//! The largest number of sources for one daemon, each on its own host; 5% of them hang.
//!
//! ```text
//! start ─► all sources once (200, spread) ─► idle: memory ─► refresh of all (304, as fast as possible)
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::Options;
use crate::{
    feeds::{FeedBehaviour, Feeds},
    ingestd::Ingestd,
    process::{pause, wait_for},
    report::{Bar, Row, ScenarioReport},
};

/// Number of sources, if none was given.
const SOURCES: u32 = 100_000;
const SOURCES_MAX: usize = 200_000;
const LATE: &str = "newswire_ingestd_visit_late_seconds";
/// Deadline of one round.
const WITHIN: Duration = Duration::from_secs(1800);
/// Bytes per source at most, with at least [`MANY`] sources: those of the store's cache hardly count then. With 10,000 they
/// are a third of [`FEW_BAR`].
const MANY_BAR: f64 = 3960.0;
const MANY: usize = 100_000;
const FEW_BAR: f64 = 8192.0;
/// After this only hanging visits are in progress.
const CALM: Duration = Duration::from_secs(5);

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let sources = options.sources.unwrap_or(SOURCES) as usize;
    anyhow::ensure!(sources <= SOURCES_MAX, "at most {SOURCES_MAX} sources can be visited");
    let feeds = Feeds::start()?;
    let empty = Ingestd::start(&options.cpus, "", std::iter::empty())?.process.memory()?;
    let behaviour = |n: usize| if n % 20 == 7 { FeedBehaviour::Hang } else { FeedBehaviour::Ok };
    let living = (0..sources).filter(|n| behaviour(*n) == FeedBehaviour::Ok).count() as f64;
    let daemon = Ingestd::start(&options.cpus, "", (0..sources).map(|n| feeds.url(n, behaviour(n))))?;
    let healthy = |status: &str| daemon.sum(&format!("newswire_ingestd_visits_total{{status=\"{status}\""));
    let round = |status: &'static str| {
        let (began, before) = (Instant::now(), daemon.process.cpu()?);
        let done = || {
            pause(Duration::from_millis(200));
            healthy(status).ok().filter(|visits| *visits >= living)
        };
        wait_for("a visit to every source", WITHIN, done)?;
        anyhow::Ok((began.elapsed(), daemon.process.cpu()?.saturating_sub(before)))
    };
    let (_, first) = round("new")?;
    let late = [500.0, 990.0].map(|per_mille| daemon.per_mille(LATE, per_mille));
    pause(CALM);
    let memory = daemon.process.memory()?.saturating_sub(empty);
    daemon.visit_all()?;
    let (took, again) = round("unchanged")?;
    let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6 / living;
    let [p50, p99] = late;
    let bar = if sources >= MANY { MANY_BAR } else { FEW_BAR };
    let rows = vec![
        Row::new("memory per source", "B", memory as f64 / sources as f64, None).bar(Bar::AtMost(bar)),
        Row::new("CPU per visit, 200 with 9 new items", "µs", micros(first), None),
        Row::new("CPU per visit, 304", "µs", micros(again), None),
        Row::new("visits per second, 304", "", living / took.as_secs_f64(), None),
        Row::new("late p50, at most", "s", p50?, None),
        Row::new("late p99, at most", "s", p99?, None).bar(Bar::AtMost(60.0)),
    ];
    let load =
        format!("{sources} new sources, each on its own host, 5% hang; all once, then all again at once");
    Ok(ScenarioReport { scenario: "scale", load, columns: ["ours", "-"], rows })
}
