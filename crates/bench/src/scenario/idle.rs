//! The cost of a client that receives only heartbeats.

use std::time::Duration;

use super::{CATCH_UP, CONNECT, Options};
use crate::{
    fleet::Fleet,
    report::{Bar, ScenarioReport},
    server::{MeasuredServer, Server},
};

/// Pause before memory is read: what connecting needed has been freed.
const SETTLE: Duration = Duration::from_secs(2);
/// Enough for one or two heartbeats per client.
const WATCHED: Duration = Duration::from_secs(20);
const BURST_ITEMS: u64 = 100;
/// If a burst enlarged the buffer of every connection for good, it would show as 40 KiB.
const AFTER_BURST_KIB_MAX: f64 = 20.0;

struct IdleCost {
    idle_bytes: f64,
    connect_micros: f64,
    watch_micros: f64,
    after_burst_bytes: f64,
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let clients = options.clients.unwrap_or(10_000);
    let all = clients as f64;
    let found = options.measure_alternating(|side| {
        let mut measured = MeasuredServer::start(side, &options.cpus, options.item_bytes)?;
        let mut fleet = Fleet::new(measured.server.target(), measured.began, clients, 0)?;
        fleet.read_for(SETTLE)?;
        let (empty, cpu) = (measured.server.process().memory()?, measured.server.process().cpu()?);
        let memory = |server: &dyn Server| -> anyhow::Result<f64> {
            Ok(server.process().memory()?.saturating_sub(empty) as f64 / all)
        };
        fleet.connect(CONNECT)?;
        let connected = measured.server.process().cpu()?;
        fleet.read_for(WATCHED)?;
        let watched = measured.server.process().cpu()?;
        let idle_bytes = memory(&*measured.server)?;
        measured.publish(BURST_ITEMS)?;
        anyhow::ensure!(fleet.until_current(measured.head, CATCH_UP)?, "the burst did not reach all clients");
        fleet.read_for(SETTLE)?;
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / all;
        Ok(IdleCost {
            idle_bytes,
            connect_micros: micros(connected - cpu),
            watch_micros: micros(watched - connected) / WATCHED.as_secs_f64(),
            after_burst_bytes: memory(&*measured.server)?,
        })
    })?;
    Ok(ScenarioReport {
        scenario: "idle",
        load: format!("{clients} clients, heartbeats only, {WATCHED:?}, median of {}", options.rounds),
        columns: ["ours", "nchan"],
        rows: vec![
            found.row("memory (PSS) per client", "KiB", |f| f.idle_bytes / 1024.0).bar(Bar::AtMost(12.0)),
            found
                .row("memory per client after a burst of 100 items", "KiB", |f| f.after_burst_bytes / 1024.0)
                .bar(Bar::AtMost(AFTER_BURST_KIB_MAX)),
            found.row("CPU per connect", "µs", |f| f.connect_micros),
            found.row("CPU per client and second", "µs", |f| f.watch_micros),
        ],
    })
}
