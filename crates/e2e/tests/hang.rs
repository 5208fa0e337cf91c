//! The hang that this system exists to prevent: `/` and `/health` answer whatever feeds, daemon and clients do.
//!
//! Time is compared with a twin in the same run: a second pair of daemons without the fault, which has no other clients.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{collections::BTreeMap, time::Duration};

use e2e::{
    Behaviour, Binary, DocumentFormat, LatencyControl, LatencyReport, Origin, TestSource, TestStack,
    TestSubscriber, log_line, scenario, wait_for,
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

/// Feeds in all; every second one hangs.
const FEEDS: usize = 40;
/// Duration of the hang.
const HANG: Duration = Duration::from_secs(60);
/// The first item of each other feed arrives within this time of the daemon's start, or within so many times the twin's
/// time: a feed that waited for a hanging one would take as long as the hang.
const FIRST_ITEM_WITHIN: Duration = Duration::from_secs(2);
const FIRST_ITEM_RATIO_MAX: u32 = 3;
/// Deadline of an event; only one that is lost reaches it.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two pairs of probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_half_of_the_feeds_hanging_the_others_arrive_and_pages_answer_as_if_none_did() {
    let origin = Origin::start().await.unwrap();
    let sources = feeds_half_of_them_hanging(&origin);
    let mut stack = TestStack::new(&sources).unwrap();
    // The total timeout must not end the hang early.
    stack.set("fetch.timeout_total", "\"90s\"");
    let others: Vec<_> = sources.into_iter().step_by(2).collect();
    let mut twin = TestStack::new(&others).unwrap();
    for stack in [&mut stack, &mut twin] {
        stack.start(Binary::Gateway).unwrap();
        stack.wait_serving().await.unwrap();
    }
    let subscribers = [&stack, &twin].map(|stack| stack.subscribe("/news/stream?snapshot=1000"));
    let control = LatencyControl::start(&stack.gateway(), &twin.gateway(), PROBE_EVERY).unwrap();

    let began = Instant::now();
    stack.start(Binary::Ingestd).unwrap();
    twin.start(Binary::Ingestd).unwrap();
    let [firsts, of_twin] = subscribers.each_ref().map(|subscriber| first_items(subscriber, FEEDS / 2));
    let (firsts, of_twin) = tokio::join!(firsts, of_twin);
    let after = |at: &Instant| at.saturating_duration_since(began);
    let slowest = of_twin.values().map(after).max().unwrap();
    let limit = FIRST_ITEM_WITHIN.max(slowest * FIRST_ITEM_RATIO_MAX);
    let late: Vec<_> = firsts.iter().filter(|(_, at)| after(at) > limit).collect();
    log_line(&format!(
        "the first item of {} feeds arrived after at most {:?}, at the twin after {slowest:?}",
        firsts.len(),
        firsts.values().map(after).max()
    ));
    assert!(late.is_empty(), "later than {limit:?} after the start: {late:?}");

    // What froze the system that this one replaces: clients connect and disconnect while feeds are silent.
    while began.elapsed() < HANG {
        let short_streams: Vec<_> = (0..6).map(|_| stack.subscribe("/news/stream")).collect();
        sleep(Duration::from_secs(1)).await;
        drop(short_streams);
    }
    assert_pages(&control.stop(), HANG);
    let hung = (0..FEEDS)
        .filter(|n| n % 2 == 1)
        .filter(|n| !origin.requests(&format!("feed-{n}")).is_empty())
        .count();
    assert_eq!(hung, FEEDS / 2, "every hanging feed was visited");
    assert!(
        stack.process(Binary::Ingestd).unwrap().is_running()
            && stack.process(Binary::Gateway).unwrap().is_running()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_daemon_stopped_or_dead_pages_answer_as_with_a_live_one() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 4)).unwrap();
    stack.start_both().await.unwrap();
    let twin = idle_twin().await;
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    let guid = origin.publish("feed-0", "Before");
    subscriber.wait_event("item", ARRIVES_WITHIN, |r| r.json()["guid"] == *guid).await.unwrap();
    let control = LatencyControl::start(&stack.gateway(), &twin.gateway(), PROBE_EVERY).unwrap();

    let part = Duration::from_secs(8);
    stack.process(Binary::Ingestd).unwrap().signal(Signal::STOP).unwrap();
    sleep(part).await;
    let stopped = stack.json("/news").await.unwrap();
    assert!(stopped.to_string().contains(&guid), "known items are still served: {stopped}");
    stack.kill(Binary::Ingestd).unwrap();
    sleep(part).await;
    assert_pages(&control.stop(), part * 2);

    stack.start(Binary::Ingestd).unwrap();
    let guid = origin.publish("feed-1", "After");
    subscriber.wait_event("item", ARRIVES_WITHIN, |r| r.json()["guid"] == *guid).await.unwrap();
    assert_eq!(subscriber.count("item"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_feed_hanging_pages_answer_as_if_none_did() {
    let origin = Origin::start().await.unwrap();
    let sources = scenario::feeds(&origin, FEEDS);
    for number in 0..FEEDS {
        let name = format!("feed-{number}");
        origin.publish(&name, "Never delivered");
        origin.set_behaviour(&name, hanging_behaviour(number));
    }
    let mut stack = TestStack::new(&sources).unwrap();
    // The total timeout must not end the hang early.
    stack.set("fetch.timeout_total", "\"90s\"");
    stack.start_both().await.unwrap();
    let twin = idle_twin().await;
    let subscriber = stack.subscribe("/news/stream");
    let control = LatencyControl::start(&stack.gateway(), &twin.gateway(), PROBE_EVERY).unwrap();
    let lasted = Duration::from_secs(12);
    sleep(lasted).await;
    assert_pages(&control.stop(), lasted);
    wait_for("a visit to every feed, since no feed waits for another", HANG / 2, async || {
        let visited = (0..FEEDS).filter(|n| !origin.requests(&format!("feed-{n}")).is_empty()).count();
        (visited == FEEDS).then_some(())
    })
    .await
    .unwrap();
    assert_eq!((subscriber.count("stream"), subscriber.count("item")), (1, 0));
}

/// Two daemons without a feed.
async fn idle_twin() -> TestStack {
    let mut twin = TestStack::new(&[]).unwrap();
    twin.start_both().await.unwrap();
    twin
}

/// Feeds with one item each; every second one hangs.
fn feeds_half_of_them_hanging(origin: &Origin) -> Vec<TestSource> {
    let sources: Vec<_> = (0..FEEDS)
        .map(|number| {
            let name = format!("feed-{number}");
            // The formats alternate among the healthy ones too.
            TestSource::new(&name, origin.add_feed(&name, DocumentFormat::of(number / 2)))
        })
        .collect();
    for number in 0..FEEDS {
        let name = format!("feed-{number}");
        origin.publish(&name, &format!("The first item of {name}"));
        if number % 2 == 1 {
            origin.set_behaviour(&name, hanging_behaviour(number / 2));
        }
    }
    sources
}

/// The kinds of hang in turn.
fn hanging_behaviour(number: usize) -> Behaviour {
    match number % 4 {
        0 => Behaviour::SilentBody,
        1 => Behaviour::Drip(1, Duration::from_secs(1)),
        2 => Behaviour::Late(HANG),
        _ => Behaviour::SilentHead,
    }
}

/// Waits until `wanted` sources have delivered an item; when the first item of each arrived.
async fn first_items(subscriber: &TestSubscriber, wanted: usize) -> BTreeMap<String, Instant> {
    let mut firsts = BTreeMap::new();
    let outcome = wait_for("the first items", HANG * 5 / 6, async || {
        for record in subscriber.events("item") {
            firsts
                .entry(record.json()["source"].as_str().unwrap_or_default().to_owned())
                .or_insert(record.at);
        }
        (firsts.len() >= wanted).then_some(())
    })
    .await;
    outcome.map_err(|error| error.context(subscriber.summary())).expect("the healthy feeds deliver");
    firsts
}

fn assert_pages(report: &LatencyReport, lasted: Duration) {
    log_line(&report.to_string());
    // One a second if the machine is very busy.
    assert!(report.count() as u64 > lasted.as_secs(), "probed throughout: {report}");
    report.check().unwrap();
}
