//! kill -9, again and again, while feeds publish and subscribers stay connected.

use std::time::Duration;

use e2e::{Origin, Program, Stack, say, story};

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

/// Who has had nothing but the first block has a place already: what is published while the gateway is dead is not lost
/// to a client that asked for no snapshot. This client keeps to the letter of the standard, in which a block without an id
/// on a new connection takes the place away.
#[tokio::test]
async fn the_first_block_gives_a_place_that_outlives_the_gateway() {
    let origin = Origin::start().await.unwrap();
    let mut stack = Stack::new(&story::feeds(&origin, 1)).unwrap();
    let limit = Duration::from_secs(10);
    origin.publish("feed-0", "Before");
    stack.start_both().await.unwrap();
    let early = stack.subscribe("/news/stream?snapshot=10");
    early.wait_event("item", limit, |_| true).await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=0");
    subscriber.wait_event("stream", limit, |_| true).await.unwrap();
    let place = subscriber.last_event_id();
    assert!(place.ends_with("-1"), "the place of the newest event, not {place:?}");

    for round in 1..4 {
        stack.kill(Program::Gateway).unwrap();
        let guid = origin.publish("feed-0", &format!("While the gateway is dead, {round}"));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        stack.start(Program::Gateway).unwrap();
        subscriber.wait_event("item", limit, |r| r.json()["guid"] == *guid).await.unwrap();
        assert_eq!(subscriber.count("item"), round, "{}", subscriber.summary());
        let resumed = subscriber.events("stream").pop().expect("each connection begins with one");
        assert_eq!(resumed.json()["resume"], "exact");
        let place = subscriber.connections().pop().and_then(|c| c.resumed_from);
        assert_eq!(resumed.message.last_event_id, place.unwrap_or_default(), "resuming takes no place away");
    }
}
