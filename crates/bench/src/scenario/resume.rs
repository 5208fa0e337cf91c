//! The gateway is killed with everybody connected, misses items, and comes back to all of them at once.

use std::time::Duration;

use tokio::time::Instant;

use super::{CATCH_UP, CONNECT, Options};
use crate::{
    fleet::{Fleet, Tally},
    report::{Bar, Row, Section},
    server::{Door, Gateway, Server as _, Stand, free_address},
};

const MISSED: u64 = 1000;
/// How long it is away.
const AWAY: Duration = Duration::from_secs(1);

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients.unwrap_or(10_000);
    let gateway = Gateway::start(&options.seats, "", Door::Own(free_address()?), None)?;
    let mut stand = Stand::of(Box::new(gateway), options.item_bytes);
    let mut fleet = Fleet::new(stand.server.target(), stand.began, clients, 0)?;
    fleet.connect(CONNECT)?;
    stand.publish(10)?;
    anyhow::ensure!(fleet.until_current(stand.head, CATCH_UP)?, "the first items did not come to everybody");
    fleet.tally = Tally::default();

    stand.server.process.kill();
    stand.publish(MISSED)?;
    fleet.read_for(AWAY)?;
    let started = Instant::now();
    stand.server.again(&options.seats)?;
    let listens = Instant::now();
    let current = fleet.until_current(stand.head, CATCH_UP)?;
    let (took, cpu) = (started.elapsed(), stand.server.process().cpu()?);
    let last_back = fleet.tally.returned.iter().max().map_or(Duration::ZERO, |at| *at - started);
    // Whoever would get something twice gets it now.
    stand.publish(1)?;
    fleet.until_current(stand.head, CATCH_UP)?;
    fleet.settle(stand.head);
    let tally = &fleet.tally;
    let memory = stand.server.process().memory()? as f64 / 1024.0 / 1024.0;
    anyhow::ensure!(current, "not everybody became current in {CATCH_UP:?}");
    let bytes = options.item_bytes;
    Ok(Section {
        scenario: "resume",
        load: format!("kill -9 with {clients} clients, {MISSED} items of {bytes} B missed, started again"),
        beside: "-",
        rows: vec![
            Row::new("until all are current, from its start", "s", took.as_secs_f64(), None)
                .bar(Bar::AtMost(10.0)),
            Row::new("until it listens", "s", (listens - started).as_secs_f64(), None),
            Row::new("until the last client is back", "s", last_back.as_secs_f64(), None),
            Row::new("CPU of the gateway", "s", cpu.as_secs_f64(), None),
            Row::new("memory (PSS) then", "MiB", memory, None),
            Row::new("deliveries", "", tally.deliveries as f64, None),
            Row::new("lost", "", tally.lost as f64, None).bar(Bar::AtMost(0.0)),
            Row::new("doubled", "", tally.doubled as f64, None).bar(Bar::AtMost(0.0)),
            Row::new("told of a gap or a reset", "", tally.gaps as f64, None).bar(Bar::AtMost(0.0)),
        ],
    })
}
