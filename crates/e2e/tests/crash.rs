//! Repeated kill -9 while feeds publish and subscribers stay connected.

use std::time::Duration;

use e2e::{
    Binary, KillMoment, KillReport, KillRun, KillStep, Origin, TestStack, Workload, log_line, scenario,
};

/// Kills of one test of a kind; `scripts/torture` runs for minutes.
const ROUNDS: usize = 4;
/// Steps at any time.
const STEPS: usize = 20;

/// Runs these steps on a small workload and checks that every client has everything.
async fn run(steps: impl Iterator<Item = KillStep>) -> KillReport {
    let mut run =
        KillRun::start(&Workload::brief(), &[("gateway.drain", "\"1s\"")]).await.expect("both start");
    let result = async {
        for step in steps {
            run.step(&step).await?;
        }
        run.check().await
    };
    let result = result.await;
    if result.is_err() {
        run.stack_mut().show_logs();
    }
    result.expect("no client misses an item");
    let report = run.report().clone();
    assert!(report.written > 300, "{report}");
    log_line(&report.to_string());
    report
}

async fn kill_and_check(victims: &[Binary]) {
    let step = KillStep { moment: KillMoment::Running, programs: victims.to_vec() };
    let report = run(std::iter::repeat_n(step, ROUNDS)).await;
    assert_eq!(report.kills(), ROUNDS * victims.len());
}

/// Also while they start, and while they stop.
#[tokio::test]
async fn no_client_loses_an_item_when_either_is_killed_at_any_time() {
    let report = run(std::iter::repeat_with(KillStep::random).take(STEPS)).await;
    assert!(report.kills() + report.stopped >= STEPS, "{report}");
}

#[tokio::test]
async fn no_client_loses_an_item_when_the_daemon_is_killed() {
    kill_and_check(&[Binary::Ingestd]).await;
}

#[tokio::test]
async fn no_client_loses_an_item_when_the_gateway_is_killed() {
    kill_and_check(&[Binary::Gateway]).await;
}

#[tokio::test]
async fn no_client_loses_an_item_when_both_are_killed_at_once() {
    kill_and_check(&[Binary::Ingestd, Binary::Gateway]).await;
}

#[tokio::test]
async fn no_client_loses_an_item_when_both_are_killed_and_the_gateway_restarts_first() {
    kill_and_check(&[Binary::Gateway, Binary::Ingestd]).await;
}

/// The first block has an id, so that a client without a snapshot does not lose what is published while the gateway is
/// dead. This client follows the standard literally: a block without an id clears the last event id.
#[tokio::test]
async fn the_first_block_has_an_id_that_outlives_the_gateway() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    let limit = Duration::from_secs(60);
    origin.publish("feed-0", "Before");
    stack.start_both().await.unwrap();
    let early = stack.subscribe("/news/stream?snapshot=10");
    early.wait_event("item", limit, |_| true).await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=0");
    subscriber.wait_event("stream", limit, |_| true).await.unwrap();
    let last_event_id = subscriber.last_event_id();
    assert!(last_event_id.ends_with("-1"), "the id of the newest event, not {last_event_id:?}");

    for round in 1..4 {
        stack.kill(Binary::Gateway).unwrap();
        let guid = origin.publish("feed-0", &format!("While the gateway is dead, {round}"));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        stack.start(Binary::Gateway).unwrap();
        subscriber.wait_event("item", limit, |r| r.json()["guid"] == *guid).await.unwrap();
        assert_eq!(subscriber.count("item"), round, "{}", subscriber.summary());
        let resumed = subscriber.events("stream").pop().expect("each connection begins with one");
        assert_eq!(resumed.json()["resume"], "exact");
        let last_event_id = subscriber.connections().pop().and_then(|c| c.resumed_from);
        assert_eq!(
            resumed.message.last_event_id,
            last_event_id.unwrap_or_default(),
            "resuming keeps the last event id"
        );
    }
}
