//! The gateway is killed with all clients connected, misses items, and is restarted: all clients resume at once.

use std::time::Duration;

use tokio::time::Instant;

use super::{CATCH_UP, CONNECT, Options};
use crate::{
    fleet::{DeliveryCounts, Fleet},
    report::{Bar, Row, ScenarioReport},
    server::{GatewayServer, MeasuredServer, Server as _, for_many_clients},
};

const MISSED: u64 = 1000;
/// How long it is down.
const DOWN: Duration = Duration::from_secs(1);

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let clients = options.clients.unwrap_or(10_000);
    let gateway = GatewayServer::start_empty(&options.cpus, &for_many_clients())?;
    let mut measured = MeasuredServer::of(Box::new(gateway), options.item_bytes);
    let mut fleet = Fleet::new(measured.server.target(), measured.began, clients, 0)?;
    fleet.connect(CONNECT)?;
    measured.publish(10)?;
    anyhow::ensure!(
        fleet.until_current(measured.head, CATCH_UP)?,
        "the first items did not reach all clients"
    );
    fleet.counts = DeliveryCounts::default();

    measured.server.process.kill();
    measured.publish(MISSED)?;
    fleet.read_for(DOWN)?;
    let started = Instant::now();
    measured.server.restart(&options.cpus)?;
    let listens = Instant::now();
    let current = fleet.until_current(measured.head, CATCH_UP)?;
    let (took, cpu) = (started.elapsed(), measured.server.process().cpu()?);
    let last_back = fleet.counts.reconnected.iter().max().map_or(Duration::ZERO, |at| *at - started);
    // Duplicates would arrive with this event.
    measured.publish(1)?;
    fleet.until_current(measured.head, CATCH_UP)?;
    fleet.count_missing(measured.head);
    let counts = &fleet.counts;
    let memory = measured.server.process().memory()? as f64 / 1024.0 / 1024.0;
    anyhow::ensure!(current, "not all clients were current within {CATCH_UP:?}");
    let bytes = options.item_bytes;
    Ok(ScenarioReport {
        scenario: "resume",
        load: format!("kill -9 with {clients} clients, {MISSED} items of {bytes} B missed, restarted"),
        columns: ["ours", "-"],
        rows: vec![
            Row::new("until all clients are current, from its start", "s", took.as_secs_f64(), None)
                .bar(Bar::AtMost(10.0)),
            Row::new("until it listens", "s", (listens - started).as_secs_f64(), None),
            Row::new("until the last client has reconnected", "s", last_back.as_secs_f64(), None),
            Row::new("CPU of the gateway", "s", cpu.as_secs_f64(), None),
            Row::new("memory (PSS) afterwards", "MiB", memory, None),
            Row::new("deliveries", "", counts.deliveries as f64, None),
            Row::new("lost", "", counts.lost as f64, None).bar(Bar::AtMost(0.0)),
            Row::new("duplicates", "", counts.doubled as f64, None).bar(Bar::AtMost(0.0)),
            Row::new("gaps or resets", "", counts.gaps as f64, None).bar(Bar::AtMost(0.0)),
        ],
    })
}
