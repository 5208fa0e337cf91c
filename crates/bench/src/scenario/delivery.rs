//! Cost and latency of a delivery: one by one, and in bursts.

use super::{CATCH_UP, Cost, Options, publish_steadily, start_with_clients};
use crate::report::{Bar, ScenarioReport, note};

const BURSTS: u64 = 5;
const BURST_ITEMS: u64 = 100;

pub(super) fn broadcast(options: &Options) -> anyhow::Result<ScenarioReport> {
    let clients = options.clients.unwrap_or(5000);
    let costs = options.measure_alternating(|side| {
        let (mut measured, mut fleet) = start_with_clients(side, options, clients, 0)?;
        Cost::measure(&mut measured, &mut fleet, |measured, fleet| {
            publish_steadily(measured, fleet, options.steady())
        })
    })?;
    let (bytes, time, rounds) = (options.item_bytes, options.steady(), options.rounds);
    Ok(ScenarioReport {
        scenario: "broadcast",
        load: format!("{clients} clients, 5 items/s of {bytes} B for {time:?}, median of {rounds}"),
        columns: ["ours", "nchan"],
        rows: Cost::rows(&costs, Bar::RatioAtMost(0.85)),
    })
}

pub(super) fn burst(options: &Options) -> anyhow::Result<ScenarioReport> {
    let clients = options.clients.unwrap_or(2000);
    let costs = options.measure_alternating(|side| {
        let (mut measured, mut fleet) = start_with_clients(side, options, clients, 0)?;
        Cost::measure(&mut measured, &mut fleet, |measured, fleet| {
            for _ in 0..BURSTS {
                measured.publish(BURST_ITEMS)?;
                if !fleet.until_current(measured.head, CATCH_UP)? {
                    note("a burst did not reach all clients");
                }
            }
            Ok(())
        })
    })?;
    let (bytes, rounds) = (options.item_bytes, options.rounds);
    Ok(ScenarioReport {
        scenario: "burst",
        load: format!(
            "{clients} clients, {BURSTS} bursts of {BURST_ITEMS} items of {bytes} B, median of {rounds}"
        ),
        columns: ["ours", "nchan"],
        rows: Cost::rows(&costs, Bar::RatioAtMost(0.25)),
    })
}
