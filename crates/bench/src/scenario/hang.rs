//! `/health` answers while half of the feeds hang and clients connect and disconnect, which froze the system that this
//! one replaces for minutes. The tests compare with a twin; this measures.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::Instant;

use super::Options;
use crate::{
    attack::probe::{HealthProbes, ProbeCounts, connect},
    feeds::{FeedBehaviour, Feeds},
    ingestd::Ingestd,
    process::{pause, wait_for},
    report::{Bar, Row, ScenarioReport},
};

const SOURCES: usize = 200;
/// Deadline for all feeds that answer to have been read, and for the others to hang.
const WITHIN: Duration = Duration::from_secs(60);
/// Streams that are opened, and aborted after a second.
const STREAMS: usize = 6;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The promise of `/health`, in milliseconds.
const HEALTH_MS_MAX: f64 = 100.0;

fn measure(
    options: &Options,
    feeds: &Feeds,
    behaviour: impl Fn(usize) -> FeedBehaviour,
) -> anyhow::Result<ProbeCounts> {
    let daemon = Ingestd::start(&options.cpus, "", (0..SOURCES).map(|n| feeds.url(n, behaviour(n))))?;
    let (_gateway, address) = daemon.start_gateway(&options.cpus, "")?;
    let visited = || {
        let sources = daemon.sources().ok()?;
        let is_visited = |n: usize| match behaviour(n) {
            FeedBehaviour::Ok => sources.get(n).is_some_and(|source| source.counts.items > 0),
            _ => sources.get(n).is_some_and(|source| source.activity != "idle" || source.counts.visits > 0),
        };
        (0..SOURCES).all(is_visited).then_some(())
    };
    wait_for("a visit to every feed", WITHIN, visited)?;
    let probes = HealthProbes::start(address, CLIENT)?;
    let until = Instant::now() + options.steady();
    while Instant::now() < until {
        // The daemon gives up a feed that hangs after some seconds.
        daemon.visit_all()?;
        let streams = (0..STREAMS).map(|_| open_stream(address)).collect::<anyhow::Result<Vec<_>>>()?;
        pause(Duration::from_secs(1));
        drop(streams);
    }
    probes.stop()
}

/// Opens a stream and reads its first bytes; dropping it aborts it.
fn open_stream(address: SocketAddr) -> anyhow::Result<std::net::TcpStream> {
    let mut stream = connect(address, CLIENT, WITHIN)?;
    stream.write_all(b"GET /news/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").context("send")?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.read_exact(&mut [0; 64]).context("read the beginning of a stream")?;
    Ok(stream)
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let feeds = Feeds::start()?;
    let with = measure(options, &feeds, FeedBehaviour::half_bad)?;
    let without = measure(options, &feeds, |_| FeedBehaviour::Ok)?;
    let row = |what: &str, unit: &'static str, of: &dyn Fn(&ProbeCounts) -> f64| {
        Row::new(what, unit, of(&with), Some(of(&without)))
    };
    let rows = vec![
        row("probes of /health", "", &|p| p.took.count() as f64),
        row("latency p50", "ms", &|p| p.took.per_mille(500) as f64 / 1000.0),
        row("latency p99", "ms", &|p| p.took.per_mille(990) as f64 / 1000.0),
        row("latency max", "ms", &|p| p.took.max() as f64 / 1000.0).bar(Bar::AtMost(HEALTH_MS_MAX)),
        row("failed", "probes", &|p| p.failed as f64).bar(Bar::AtMost(0.0)),
    ];
    let load = format!(
        "/health while every second one of {SOURCES} feeds hangs or drips, and {STREAMS} streams a second are aborted"
    );
    Ok(ScenarioReport { scenario: "hang", load, columns: ["ours", "all answer"], rows })
}
