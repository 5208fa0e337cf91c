//! `torture [MINUTES]`: the crash story in a loop. Each run has a store and clients of its own; the first fault ends it.

use std::time::Duration;

use e2e::{Program, say, story};
use tokio::time::Instant;

/// Rounds of one run; then the next begins with an empty store.
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
        let tally = story::kills(|round| {
            let on = round < ROUNDS && Instant::now() < until;
            // They are started again in this order.
            on.then(|| match fastrand::u8(0..4) {
                0 => vec![Program::Ingestd],
                1 => vec![Program::Gateway],
                2 => vec![Program::Ingestd, Program::Gateway],
                _ => vec![Program::Gateway, Program::Ingestd],
            })
        })
        .await?;
        kills += tally.kills;
        published += tally.published;
        say(&format!("{kills} kills, {published} items, each seen once by every subscriber ({tally:?})"));
    }
    anyhow::ensure!(kills > 0, "no time for a single kill");
    Ok(())
}
