//! The first start with a list of large feeds: all of them are new, so each body is read, parsed and recorded whole.

use std::time::Duration;

use tokio::time::Instant;

use super::Options;
use crate::{
    feeds::{FeedBehaviour, Feeds},
    ingestd::Ingestd,
    process::{pause, wait_for},
    report::{Bar, Row, ScenarioReport},
};

const SOURCES: usize = 300;
/// Deadline of the first round.
const WITHIN: Duration = Duration::from_secs(600);
/// After the last visit; by then what is not needed must have gone back to the system.
const REST: Duration = Duration::from_secs(60);
const MB: f64 = 1e6;

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let feeds = Feeds::start()?;
    // The more parsers, the more documents at once.
    let cpus = options.cpus.shared()?;
    let none = Ingestd::start(&cpus, "", std::iter::empty())?;
    let (_, empty) = none.process.resident()?;
    drop(none);
    let urls = (0..SOURCES).map(|n| feeds.url(n, FeedBehaviour::Large));
    let daemon = Ingestd::start(&cpus, "", urls)?;
    let began = Instant::now();
    let all_recorded = || {
        pause(Duration::from_millis(500));
        let visits = daemon.sum("newswire_ingestd_visits_total{status=\"new\"").ok()?;
        (visits >= SOURCES as f64).then_some(())
    };
    wait_for("a visit to every source", WITHIN, all_recorded)?;
    let took = began.elapsed();
    let body_bytes = daemon.sum("newswire_ingestd_body_bytes_total")?;
    let cpu = daemon.process.cpu()?;
    pause(REST);
    let (rest, most) = daemon.process.resident()?;
    let mut rows = vec![
        Row::new("most memory", "MB", most as f64 / MB, Some(empty as f64 / MB)).bar(Bar::AtMost(400.0)),
        Row::new("memory 60 s later", "MB", rest as f64 / MB, None).bar(Bar::AtMost(150.0)),
        Row::new("time until all are recorded", "s", took.as_secs_f64(), None),
        Row::new("CPU time", "s", cpu.as_secs_f64(), None),
    ];
    let gave_way = daemon.sum("newswire_ingestd_visits_gave_way_total")?;
    rows.push(Row::new("preempted", "visits", gave_way, None));
    for (name, count) in daemon.metrics("newswire_ingestd_visit_waits_total")? {
        rows.push(Row::new(name.replace("newswire_ingestd_visit_", ""), "visits", count, None));
    }
    let load = format!("{SOURCES} new feeds of 300 items, {:.0} MB of bodies", body_bytes / MB);
    Ok(ScenarioReport { scenario: "start", load, columns: ["ours", "no feeds"], rows })
}
