//! Tests what an operator reads in the log during a normal hour of 300 sources: changes, and nothing else.

use std::{sync::Arc, time::Duration};

use actix_rt::time::sleep;
use daemon::{Clock, logs};
use fetch::schedule::IntervalBounds;
use http::Response;
use reqwest::{Body, Request};

use super::{MONDAY_MS, Reply, Servers, SimulatedDaemon, directory, id_of, simulate, source};

const SOURCES: usize = 300;
const HOUR: Duration = Duration::from_secs(3600);
/// The half day before is warm-up: every feed is new once, which logs one line per feed.
const WARM_UP: Duration = Duration::from_secs(12 * 3600);
/// The most lines that the sources below may log; a person can still follow one per minute.
const LINES_MAX: usize = 60;

/// 300 feeds: one in ten has new items now and then, five fail, three are slow, one is gone, one redirects
/// permanently.
struct MixedServers {
    clock: Clock,
    /// When the hour starts.
    begin_ms: i64,
}

impl MixedServers {
    /// The version of the feed of a source.
    fn version(&self, n: usize) -> i64 {
        let since_ms = self.clock.now_millis() - MONDAY_MS;
        if n.is_multiple_of(10) { since_ms / (4 * 3_600_000 + n as i64 * 1_000) } else { 0 }
    }

    fn is_hour(&self) -> bool {
        self.clock.now_millis() >= self.begin_ms
    }
}

fn feed(version: i64) -> String {
    let item = |n: i64| format!("<item><title>item {n}</title><guid>{n}</guid></item>");
    let items: String = (0..=version).rev().map(item).collect();
    format!(
        "<rss version='2.0'><channel><title>t</title><link>http://x.example/</link>{items}</channel></rss>"
    )
}

impl Servers for MixedServers {
    fn respond(&self, _: i64, request: &Request) -> Reply {
        let n: usize = id_of(request.url()).trim_start_matches("feed-").parse().unwrap();
        let slow = if (11..14).contains(&n) { Duration::from_secs(8) } else { Duration::from_millis(80) };
        let etag = format!("\"{}\"", self.version(n));
        let known = request.headers().get("if-none-match").is_some_and(|value| *value == *etag);
        let is_old_url = request.url().host_str() == Some("feed-21.example");
        let (status, body) = match n {
            1..6 if self.is_hour() || n < 4 => (503, String::new()),
            22 if self.is_hour() => (410, String::new()),
            21 if is_old_url && self.is_hour() => (301, String::new()),
            _ if known => (304, String::new()),
            _ => (200, feed(self.version(n))),
        };
        let response = Response::builder().status(status).header("etag", etag);
        let response = match status {
            301 => response.header("location", "http://new.example/feed-21"),
            _ => response,
        };
        Reply::After(slow, response.body(Body::from(body)).unwrap())
    }
}

/// The log lines of the hour.
async fn run_hour() -> String {
    let clock = Clock::from_tokio(MONDAY_MS);
    let (subscriber, kept) = logs::capture("info", clock.clone()).unwrap();
    let _guard = tracing::subscriber::set_default(subscriber);
    let begin_ms = MONDAY_MS + i64::try_from(WARM_UP.as_millis()).unwrap();
    let servers = Arc::new(MixedServers { clock: clock.clone(), begin_ms });
    let directory = directory();
    let simulated =
        SimulatedDaemon::start(directory.path(), &clock, servers, IntervalBounds::default()).await;
    let catalogue =
        (0..SOURCES).map(|n| source(&format!("feed-{n}"), &format!("http://feed-{n}.example/feed-{n}")));
    simulated.apply(catalogue.collect()).await;
    sleep(WARM_UP).await;
    let before = kept.text().len();
    sleep(HOUR).await;
    let lines = kept.text().split_off(before);
    simulated.stop().await;
    lines
}

#[test]
fn a_normal_hour_of_300_sources_is_readable() {
    let text = simulate(run_hour());
    let lines: Vec<_> = text.lines().collect();
    println!("{text}\n{} lines", lines.len());
    let of = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert!(lines.len() <= LINES_MAX, "{} lines", lines.len());
    let changes = [
        "recorded items",
        "visit failed",
        "source recovered",
        "adopted a permanent redirect",
        "source quarantined",
    ];
    let noise: Vec<_> = lines.iter().filter(|line| !changes.iter().any(|what| line.contains(what))).collect();
    assert!(noise.is_empty(), "not changes: {noise:#?}");
    assert!(of("recorded items") >= 1, "there are new items in every hour");
    assert!(of("visit failed") <= 4, "a failure is logged once, when it starts");
}
