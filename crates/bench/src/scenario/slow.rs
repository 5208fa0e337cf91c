//! Whether those who read notice those who do not.

use super::{CATCH_UP, Cost, Options, filled, publish_steadily};
use crate::{
    histogram::median,
    report::{Bar, Row, Section},
    server::Which,
};

/// One in so many stops reading.
const ONE_IN: usize = 20;
/// Published first: it fills what the system keeps for whoever does not read.
const FILL_ITEMS: u64 = 600;

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients.unwrap_or(5000);
    let measure = |slow: usize| {
        // Those who read are the same number in both.
        let (mut stand, mut fleet) = filled(Which::Ours, options, clients - clients / ONE_IN + slow, slow)?;
        stand.publish(FILL_ITEMS)?;
        anyhow::ensure!(
            fleet.until_current(stand.head, CATCH_UP)?,
            "the first items did not come to everybody"
        );
        Cost::of(&mut stand, &mut fleet, |stand, fleet| publish_steadily(stand, fleet, options.time))
    };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        without.push(measure(0)?);
        with.push(measure(clients / ONE_IN)?);
    }
    let row = |measure: &str, unit: &'static str, value: &dyn Fn(&Cost) -> f64| {
        let middle = |costs: &[Cost]| median(&costs.iter().map(value).collect::<Vec<_>>());
        Row::new(measure, unit, middle(&with), Some(middle(&without)))
    };
    Ok(Section {
        scenario: "slow",
        load: format!(
            "{clients} clients, {} of them stop reading, 5 items/s for {:?}, median of {}",
            clients / ONE_IN,
            options.time,
            options.rounds
        ),
        beside: "without them",
        rows: vec![
            row("latency p50 of the others", "ms", &|c| c.latency_ms(500)),
            row("latency p99 of the others", "ms", &|c| c.latency_ms(990)).bar(Bar::RatioAtMost(1.2)),
            row("latency max of the others", "ms", &|c| c.tally.latency.max() as f64 / 1000.0),
            row("CPU per delivery", "µs", &Cost::cpu_micros),
            row("lost", "", &|c| c.tally.lost as f64).bar(Bar::AtMost(0.0)),
            row("doubled", "", &|c| c.tally.doubled as f64).bar(Bar::AtMost(0.0)),
        ],
    })
}
