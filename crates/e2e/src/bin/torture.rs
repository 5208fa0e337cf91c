//! `torture [MINUTES]`: the crash scenario in a loop. Each run has its own store and clients; the first fault ends it.

use std::time::Duration;

use e2e::{Binary, log_line, scenario};
use tokio::time::Instant;

/// Rounds of one run; the next run begins with an empty store.
const ROUNDS: usize = 30;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let minutes: u64 = match std::env::args().nth(1) {
        None => 10,
        Some(text) => text.parse().map_err(|_| anyhow::anyhow!("usage: torture [MINUTES], not {text:?}"))?,
    };
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let (mut kills, mut published) = (0, 0);
    while Instant::now() < until {
        let summary = scenario::kill_repeatedly(|round| {
            let on = round < ROUNDS && Instant::now() < until;
            // They are restarted in this order.
            on.then(|| match fastrand::u8(0..4) {
                0 => vec![Binary::Ingestd],
                1 => vec![Binary::Gateway],
                2 => vec![Binary::Ingestd, Binary::Gateway],
                _ => vec![Binary::Gateway, Binary::Ingestd],
            })
        })
        .await?;
        kills += summary.kills;
        published += summary.published;
        log_line(&format!(
            "{kills} kills, {published} items, each received once by every subscriber ({summary:?})"
        ));
    }
    anyhow::ensure!(kills > 0, "the time was too short for a single kill");
    Ok(())
}
