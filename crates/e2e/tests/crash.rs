//! kill -9, again and again, while feeds publish and subscribers stay connected.

use e2e::{Program, say, story};

/// Kills of one test; `scripts/torture` goes on for minutes.
const ROUNDS: usize = 4;

async fn killing(victims: &[Program]) {
    let tally = story::kills(|round| (round < ROUNDS).then(|| victims.to_vec()))
        .await
        .expect("nobody misses anything");
    assert_eq!(tally.kills, ROUNDS * victims.len());
    assert!(tally.published > 40, "{tally:?}");
    say(&format!("{tally:?}"));
}

#[tokio::test]
async fn a_killed_daemon_costs_nobody_an_item() {
    killing(&[Program::Ingestd]).await;
}

#[tokio::test]
async fn a_killed_gateway_costs_nobody_an_item() {
    killing(&[Program::Gateway]).await;
}

#[tokio::test]
async fn both_killed_at_once_cost_nobody_an_item() {
    killing(&[Program::Ingestd, Program::Gateway]).await;
}

#[tokio::test]
async fn both_killed_at_once_and_the_gateway_back_first_cost_nobody_an_item() {
    killing(&[Program::Gateway, Program::Ingestd]).await;
}
