//! kill -9, again and again, while feeds publish and subscribers stay connected.

use std::time::Duration;

use e2e::{Binary, Origin, TestStack, log_line, scenario};

/// Kills of one test; `scripts/torture` goes on for minutes.
const ROUNDS: usize = 4;

async fn killing(victims: &[Binary]) {
    let tally = scenario::kill_repeatedly(|round| (round < ROUNDS).then(|| victims.to_vec()))
        .await
        .expect("nobody misses anything");
    assert_eq!(tally.kills, ROUNDS * victims.len());
    assert!(tally.published > 40, "{tally:?}");
    log_line(&format!("{tally:?}"));
}

#[tokio::test]
async fn no_client_loses_an_item_when_the_daemon_is_killed() {
    killing(&[Binary::Ingestd]).await;
}

#[tokio::test]
async fn no_client_loses_an_item_when_the_gateway_is_killed() {
    killing(&[Binary::Gateway]).await;
}

#[tokio::test]
async fn no_client_loses_an_item_when_both_are_killed_at_once() {
    killing(&[Binary::Ingestd, Binary::Gateway]).await;
}

#[tokio::test]
async fn no_client_loses_an_item_when_both_are_killed_and_the_gateway_restarts_first() {
    killing(&[Binary::Gateway, Binary::Ingestd]).await;
}

/// Who has had nothing but the first block has a place already: what is published while the gateway is dead is not lost
/// to a client that asked for no snapshot. This client keeps to the letter of the standard, in which a block without an id
/// on a new connection takes the place away.
#[tokio::test]
async fn the_first_block_has_an_id_that_outlives_the_gateway() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
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
        stack.kill(Binary::Gateway).unwrap();
        let guid = origin.publish("feed-0", &format!("While the gateway is dead, {round}"));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        stack.start(Binary::Gateway).unwrap();
        subscriber.wait_event("item", limit, |r| r.json()["guid"] == *guid).await.unwrap();
        assert_eq!(subscriber.count("item"), round, "{}", subscriber.summary());
        let resumed = subscriber.events("stream").pop().expect("each connection begins with one");
        assert_eq!(resumed.json()["resume"], "exact");
        let place = subscriber.connections().pop().and_then(|c| c.resumed_from);
        assert_eq!(resumed.message.last_event_id, place.unwrap_or_default(), "resuming takes no place away");
    }
}
