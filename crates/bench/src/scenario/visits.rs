//! Feeds that hang or drip must not delay the others, not even at the first start.

use std::time::Duration;

use super::Options;
use crate::{
    feeds::{FeedBehaviour, Feeds},
    histogram::Histogram,
    ingestd::Ingestd,
    process::{pause, wait_for},
    report::{Bar, Row, ScenarioReport},
};

const SOURCES: usize = 2000;
/// Spacing of the first visits of new sources.
const STEP_MS: u64 = 10;
const WITHIN: Duration = Duration::from_secs(180);

/// Results of the feeds that always answer: every second one.
struct HealthyFeeds {
    /// From the first visit of any feed to the end of their own, in milliseconds.
    first_item: Histogram,
    /// The same, counted from when it was due.
    late: Histogram,
    missing: usize,
}

fn measure(
    options: &Options,
    feeds: &Feeds,
    behaviour: impl Fn(usize) -> FeedBehaviour,
) -> anyhow::Result<HealthyFeeds> {
    let urls = (0..SOURCES).map(|n| feeds.url(n, behaviour(n)));
    let daemon = Ingestd::start(&options.cpus, "", urls)?;
    // The last is due after 20 s.
    pause(Duration::from_millis(STEP_MS * SOURCES as u64));
    let all_arrived =
        || Some(daemon.sources().ok()?.iter().step_by(2).all(|s| s.counts.items > 0)).filter(|all| *all);
    // Feeds that are still missing are counted below.
    wait_for("the healthy feeds", WITHIN, all_arrived).ok();
    let mut others =
        HealthyFeeds { first_item: Histogram::default(), late: Histogram::default(), missing: 0 };
    let sources = daemon.sources()?;
    let begun = sources.iter().filter_map(|s| s.last_success).map(|at| at.millis()).min().unwrap_or(0);
    for (n, source) in sources.iter().enumerate().step_by(2) {
        let Some(ended) = source.last_success.filter(|_| source.counts.items > 0) else {
            others.missing += 1;
            continue;
        };
        let took = u64::try_from(ended.millis() - begun).unwrap_or(0);
        others.first_item.record(took);
        others.late.record(took.saturating_sub(STEP_MS * n as u64));
    }
    Ok(others)
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let feeds = Feeds::start()?;
    let with = measure(options, &feeds, FeedBehaviour::half_bad)?;
    let without = measure(options, &feeds, |_| FeedBehaviour::Ok)?;
    let row = |what: &str, of: fn(&HealthyFeeds) -> u64| {
        Row::new(what, "ms", of(&with) as f64, Some(of(&without) as f64))
    };
    let rows = vec![
        row("time to first item p50", |o| o.first_item.per_mille(500)).bar(Bar::RatioAtMost(1.2)),
        row("time to first item p99", |o| o.first_item.per_mille(990)).bar(Bar::RatioAtMost(1.2)),
        row("time to first item max", |o| o.first_item.max()).bar(Bar::RatioAtMost(1.2)),
        row("after it was due p50", |o| o.late.per_mille(500)),
        row("after it was due p99", |o| o.late.per_mille(990)).bar(Bar::AtMost(1000.0)),
        Row::new("without an item", "feeds", with.missing as f64, Some(without.missing as f64))
            .bar(Bar::AtMost(0.0)),
    ];
    let load =
        format!("{SOURCES} new feeds, every second one hangs or drips; compared with: all of them answer");
    Ok(ScenarioReport { scenario: "visits", load, columns: ["ours", "all answer"], rows })
}
