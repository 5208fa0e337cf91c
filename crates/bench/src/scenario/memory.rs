//! What clients cost in memory before and after bursts of large items, and what is kept of it when they have left.

use std::time::Duration;

use super::{CATCH_UP, CONNECT, Options};
use crate::{
    fleet::Fleet,
    report::{Bar, Row, ScenarioReport},
    server::{GatewayServer, MeasuredServer, Server as _, for_many_clients},
};

const ITEM_BYTES: usize = 64 * 1024;
/// Published first: the ring is full then, and no longer grows.
const FILL_ITEMS: u64 = 1200;
const BURSTS: usize = 3;
const BURST_ITEMS: u64 = 10;
/// Pause before memory is read.
const SETTLE: Duration = Duration::from_secs(5);
/// When memory is read after the clients have left.
const LEFT: Duration = Duration::from_secs(30);
const WAITING_KIB_MAX: f64 = 12.0;
/// After bursts, compared with clients that have only waited.
const AFTER_BURSTS_KIB_MAX: f64 = 12.5;
/// After all have left.
const KEPT_MIB_MAX: f64 = 10.0;

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let clients = options.clients.unwrap_or(2000);
    let gateway = GatewayServer::start_empty(&options.cpus, &for_many_clients())?;
    let mut measured = MeasuredServer::of(Box::new(gateway), ITEM_BYTES);
    let mut fleet = Fleet::new(measured.server.target(), measured.began, clients, 0)?;
    for _ in 0..FILL_ITEMS / BURST_ITEMS {
        measured.publish(BURST_ITEMS)?;
        fleet.read_for(Duration::from_millis(10))?;
    }
    fleet.read_for(SETTLE)?;
    let process = |measured: &MeasuredServer<GatewayServer>| measured.server.process().memory();
    let empty = process(&measured)?;
    let more = |now: u64| now as f64 - empty as f64;
    fleet.connect(CONNECT)?;
    fleet.read_for(SETTLE + SETTLE)?;
    let waiting = more(process(&measured)?) / clients as f64 / 1024.0;
    let cpu = measured.server.process().cpu()?;
    for _ in 0..BURSTS {
        measured.publish(BURST_ITEMS)?;
        anyhow::ensure!(fleet.until_current(measured.head, CATCH_UP)?, "a burst did not reach all clients");
    }
    let cpu = measured.server.process().cpu()?.saturating_sub(cpu);
    let at_once = more(process(&measured)?) / clients as f64 / 1024.0;
    fleet.read_for(SETTLE)?;
    let after = more(process(&measured)?) / clients as f64 / 1024.0;
    drop(fleet);
    crate::process::pause(LEFT);
    let kept = more(process(&measured)?) / 1024.0 / 1024.0;
    let deliveries = (BURSTS as u64 * BURST_ITEMS) as f64 * clients as f64;
    Ok(ScenarioReport {
        scenario: "memory",
        load: format!(
            "{clients} clients, {BURSTS} bursts of {BURST_ITEMS} items of {ITEM_BYTES} B, a full ring"
        ),
        columns: ["ours", "waiting"],
        rows: vec![
            Row::new("memory (PSS) per waiting client", "KiB", waiting, None)
                .bar(Bar::AtMost(WAITING_KIB_MAX)),
            Row::new("right after the bursts", "KiB", at_once, Some(waiting)),
            Row::new(format!("{SETTLE:?} after the bursts"), "KiB", after, Some(waiting))
                .bar(Bar::AtMost(AFTER_BURSTS_KIB_MAX)),
            Row::new(format!("kept {LEFT:?} after all have left"), "MiB", kept, None)
                .bar(Bar::AtMost(KEPT_MIB_MAX)),
            Row::new("memory without clients", "MiB", empty as f64 / 1024.0 / 1024.0, None),
            Row::new("CPU per delivery", "µs", cpu.as_secs_f64() * 1e6 / deliveries, None),
        ],
    })
}
