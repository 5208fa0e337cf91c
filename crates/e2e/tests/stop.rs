//! SIGTERM ends a daemon, whatever hangs and however many clients are connected.

use std::time::Duration;

use e2e::{Behaviour, Binary, Origin, TestStack, TestSubscriber, log_line, scenario, wait_for};

/// Deadline of an exit.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);
const FEEDS: usize = 12;
const SUBSCRIBERS: usize = 30;

/// Both daemons at work: most feeds hang in the middle of a visit, and all streams are open.
async fn start_busy() -> anyhow::Result<(Origin, TestStack, Vec<TestSubscriber>)> {
    let origin = Origin::start().await?;
    let mut stack = TestStack::new(&scenario::feeds(&origin, FEEDS))?;
    for number in 0..FEEDS {
        let name = format!("feed-{number}");
        origin.publish(&name, "Something");
        match number % 3 {
            0 => origin.set_behaviour(&name, Behaviour::SilentHead),
            1 => origin.set_behaviour(&name, Behaviour::SilentBody),
            _ => {}
        }
    }
    stack.set("gateway.drain", "\"1s\"");
    stack.start_both().await?;
    let subscribers: Vec<_> =
        (0..SUBSCRIBERS).map(|_| stack.subscribe("/news/stream?snapshot=1000")).collect();
    wait_for("an item on every stream, and a visit to every feed", Duration::from_secs(15), async || {
        let read = subscribers.iter().all(|s| s.count("item") >= FEEDS / 3);
        let hung = (0..FEEDS).all(|n| !origin.requests(&format!("feed-{n}")).is_empty());
        (read && hung).then_some(())
    })
    .await?;
    Ok((origin, stack, subscribers))
}

#[tokio::test]
async fn sigterm_ends_the_gateway_within_5_s_with_streams_open() {
    let (_origin, mut stack, subscribers) = start_busy().await.unwrap();
    let (status, after) = stack.terminate(Binary::Gateway, STOPPED_WITHIN).await.unwrap();
    log_line(&format!("the gateway ended after {after:?}"));
    assert_eq!(status.code(), Some(0));
    tokio::time::sleep(Duration::from_millis(200)).await;
    for subscriber in &subscribers {
        let end = subscriber.connections()[0].ended.clone();
        assert_eq!(end.as_deref(), Some("the stream ended"), "ended, not cut: {}", subscriber.summary());
        assert_eq!(subscriber.closed(), None);
    }
    assert!(stack.process(Binary::Ingestd).unwrap().is_running());
}

#[tokio::test]
async fn sigterm_ends_the_daemon_within_5_s_with_feeds_hanging_and_the_wire_open() {
    let (_origin, mut stack, subscribers) = start_busy().await.unwrap();
    let (status, after) = stack.terminate(Binary::Ingestd, STOPPED_WITHIN).await.unwrap();
    log_line(&format!("the daemon ended after {after:?}"));
    assert_eq!(status.code(), Some(0));
    assert!(stack.process(Binary::Gateway).unwrap().is_running());
    let undisturbed =
        subscribers.iter().all(|s| s.connections().len() == 1 && s.connections()[0].ended.is_none());
    assert!(undisturbed, "streams stay open without the daemon");

    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    let (status, after) = stack.terminate(Binary::Ingestd, STOPPED_WITHIN).await.unwrap();
    assert_eq!(status.code(), Some(0), "again, after {after:?}");
}
