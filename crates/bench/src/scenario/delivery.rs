//! What a delivery costs, and how long it takes: one by one, and in bursts.

use super::{CATCH_UP, Cost, Options, filled, publish_steadily};
use crate::report::{Bar, Section, note};

const BURSTS: u64 = 5;
const BURST_ITEMS: u64 = 100;

pub(super) fn broadcast(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients.unwrap_or(5000);
    let costs = options.in_turns(|which| {
        let (mut stand, mut fleet) = filled(which, options, clients, 0)?;
        Cost::of(&mut stand, &mut fleet, |stand, fleet| publish_steadily(stand, fleet, options.time))
    })?;
    let (bytes, time, rounds) = (options.item_bytes, options.time, options.rounds);
    Ok(Section {
        scenario: "broadcast",
        load: format!("{clients} clients, 5 items/s of {bytes} B for {time:?}, median of {rounds}"),
        beside: "nchan",
        rows: Cost::rows(&costs, Bar::RatioAtMost(0.85)),
    })
}

pub(super) fn burst(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients.unwrap_or(2000);
    let costs = options.in_turns(|which| {
        let (mut stand, mut fleet) = filled(which, options, clients, 0)?;
        Cost::of(&mut stand, &mut fleet, |stand, fleet| {
            for _ in 0..BURSTS {
                stand.publish(BURST_ITEMS)?;
                if !fleet.until_current(stand.head, CATCH_UP)? {
                    note("a burst did not come to everybody");
                }
            }
            Ok(())
        })
    })?;
    let (bytes, rounds) = (options.item_bytes, options.rounds);
    Ok(Section {
        scenario: "burst",
        load: format!(
            "{clients} clients, {BURSTS} bursts of {BURST_ITEMS} items of {bytes} B, median of {rounds}"
        ),
        beside: "nchan",
        rows: Cost::rows(&costs, Bar::RatioAtMost(0.25)),
    })
}
