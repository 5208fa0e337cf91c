//! Whether clients that stop reading affect the others.

use super::{CATCH_UP, Cost, Options, publish_steadily, start_with_clients};
use crate::{
    histogram::median,
    report::{Bar, Row, ScenarioReport},
    server::Side,
};

/// One in this many clients stops reading.
const ONE_IN: usize = 20;
/// Published first, to fill the socket buffers of clients that do not read.
const FILL_ITEMS: u64 = 600;

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let clients = options.clients.unwrap_or(5000);
    let measure = |slow: usize| {
        // The number of reading clients is the same in both.
        let (mut measured, mut fleet) =
            start_with_clients(Side::Ours, options, clients - clients / ONE_IN + slow, slow)?;
        measured.publish(FILL_ITEMS)?;
        anyhow::ensure!(
            fleet.until_current(measured.head, CATCH_UP)?,
            "the first items did not reach all clients"
        );
        Cost::measure(&mut measured, &mut fleet, |measured, fleet| {
            publish_steadily(measured, fleet, options.steady())
        })
    };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        without.push(measure(0)?);
        with.push(measure(clients / ONE_IN)?);
    }
    let row = |measure: &str, unit: &'static str, value: &dyn Fn(&Cost) -> f64| {
        let median_of = |costs: &[Cost]| median(&costs.iter().map(value).collect::<Vec<_>>());
        Row::new(measure, unit, median_of(&with), Some(median_of(&without)))
    };
    Ok(ScenarioReport {
        scenario: "slow",
        load: format!(
            "{clients} clients, {} of them stop reading, 5 items/s for {:?}, median of {}",
            clients / ONE_IN,
            options.steady(),
            options.rounds
        ),
        columns: ["ours", "without them"],
        rows: vec![
            row("latency p50 of the others", "ms", &|c| c.latency_ms(500)),
            row("latency p99 of the others", "ms", &|c| c.latency_ms(990)).bar(Bar::RatioAtMost(1.2)),
            row("latency max of the others", "ms", &|c| c.counts.latency.max() as f64 / 1000.0),
            row("CPU per delivery", "µs", &Cost::cpu_micros),
            row("lost", "", &|c| c.counts.lost as f64).bar(Bar::AtMost(0.0)),
            row("duplicates", "", &|c| c.counts.doubled as f64).bar(Bar::AtMost(0.0)),
        ],
    })
}
