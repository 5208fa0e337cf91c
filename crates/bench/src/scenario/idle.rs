//! What a client costs that gets nothing but heartbeats.

use std::time::Duration;

use super::{CATCH_UP, CONNECT, Options};
use crate::{
    fleet::Fleet,
    report::{Bar, Section},
    server::{Server, Stand},
};

/// Before the memory is read: whatever connecting took has been given back.
const SETTLE: Duration = Duration::from_secs(2);
/// In which everybody has a heartbeat or two.
const WATCHED: Duration = Duration::from_secs(20);
const BURST_ITEMS: u64 = 100;
/// A burst that makes every connection's buffer grow for good would show as 40 KiB.
const AFTER_BURST_KIB_MAX: f64 = 20.0;

struct Found {
    idle_bytes: f64,
    connect_micros: f64,
    watch_micros: f64,
    after_burst_bytes: f64,
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients.unwrap_or(10_000);
    let all = clients as f64;
    let found = options.in_turns(|which| {
        let mut stand = Stand::start(which, &options.seats, options.item_bytes)?;
        let mut fleet = Fleet::new(stand.server.target(), stand.began, clients, 0)?;
        fleet.read_for(SETTLE)?;
        let (empty, cpu) = (stand.server.process().memory()?, stand.server.process().cpu()?);
        let memory = |server: &dyn Server| -> anyhow::Result<f64> {
            Ok(server.process().memory()?.saturating_sub(empty) as f64 / all)
        };
        fleet.connect(CONNECT)?;
        let connected = stand.server.process().cpu()?;
        fleet.read_for(WATCHED)?;
        let watched = stand.server.process().cpu()?;
        let idle_bytes = memory(&*stand.server)?;
        stand.publish(BURST_ITEMS)?;
        anyhow::ensure!(fleet.until_current(stand.head, CATCH_UP)?, "the burst did not come to everybody");
        fleet.read_for(SETTLE)?;
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / all;
        Ok(Found {
            idle_bytes,
            connect_micros: micros(connected - cpu),
            watch_micros: micros(watched - connected) / WATCHED.as_secs_f64(),
            after_burst_bytes: memory(&*stand.server)?,
        })
    })?;
    Ok(Section {
        scenario: "idle",
        load: format!("{clients} clients, heartbeats only, {WATCHED:?}, median of {}", options.rounds),
        beside: "nchan",
        rows: vec![
            found.row("memory (PSS) per client", "KiB", |f| f.idle_bytes / 1024.0).bar(Bar::AtMost(12.0)),
            found
                .row("the same after a burst of 100 items", "KiB", |f| f.after_burst_bytes / 1024.0)
                .bar(Bar::AtMost(AFTER_BURST_KIB_MAX)),
            found.row("CPU per connect", "µs", |f| f.connect_micros),
            found.row("CPU per second and client", "µs", |f| f.watch_micros),
        ],
    })
}
