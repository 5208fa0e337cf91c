//! The hang that this system exists to prevent: `/` and `/health` answer whatever feeds, daemon and clients do.
//!
//! These tests run alone (`.config/nextest.toml`), because they measure time.

use std::{collections::BTreeMap, time::Duration};

use e2e::{
    Behaviour, Binary, DocumentFormat, Origin, PageProber, ProbeReport, TestSource, TestStack,
    TestSubscriber, log_line, scenario, wait_for,
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

/// Feeds in all; every second one hangs.
const FEEDS: usize = 40;
/// Duration of the hang.
const HANG: Duration = Duration::from_secs(60);
/// Deadline for the first item of each other feed, from the start of the daemon.
const FIRST_ITEM_WITHIN: Duration = Duration::from_secs(2);
/// Deadline of every response of `/` and `/health`.
const PAGE_WITHIN: Duration = Duration::from_millis(100);
/// Pause between two pairs of probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_half_of_the_feeds_hanging_the_others_arrive_in_2_s_and_pages_answer_within_100_ms() {
    let origin = Origin::start().await.unwrap();
    let sources = feeds_half_of_them_hanging(&origin);
    let mut stack = TestStack::new(&sources).unwrap();
    // The total timeout must not end the hang early.
    stack.set("fetch.timeout_total", "\"90s\"");
    stack.start(Binary::Gateway).unwrap();
    stack.wait_serving().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    let prober = PageProber::start(&stack.gateway(), PROBE_EVERY).unwrap();

    let began = Instant::now();
    stack.start(Binary::Ingestd).unwrap();
    let firsts = first_items(&subscriber, FEEDS / 2).await;
    let slowest = firsts.values().map(|at| at.saturating_duration_since(began)).max().unwrap();
    log_line(&format!("the first item of {} feeds arrived after at most {slowest:?}", firsts.len()));

    // What froze the system that this one replaces: clients connect and disconnect while feeds are silent.
    while began.elapsed() < HANG {
        let short_streams: Vec<_> = (0..6).map(|_| stack.subscribe("/news/stream")).collect();
        sleep(Duration::from_secs(1)).await;
        drop(short_streams);
    }
    let report = prober.stop();
    log_line(&report.to_string());
    let late: Vec<_> = firsts
        .iter()
        .map(|(feed, at)| (feed, at.saturating_duration_since(began)))
        .filter(|(_, after)| *after >= FIRST_ITEM_WITHIN)
        .collect();
    assert!(late.is_empty(), "later than {FIRST_ITEM_WITHIN:?} after the start: {late:?}");
    assert_pages(&report, HANG);
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
async fn with_the_daemon_stopped_or_dead_pages_answer_within_100_ms() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 4)).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    let guid = origin.publish("feed-0", "Before");
    let limit = Duration::from_secs(10);
    subscriber.wait_event("item", limit, |r| r.json()["guid"] == *guid).await.unwrap();
    let prober = PageProber::start(&stack.gateway(), PROBE_EVERY).unwrap();

    let part = Duration::from_secs(8);
    stack.process(Binary::Ingestd).unwrap().signal(Signal::STOP).unwrap();
    sleep(part).await;
    let stopped = stack.json("/news").await.unwrap();
    assert!(stopped.to_string().contains(&guid), "known items are still served: {stopped}");
    stack.kill(Binary::Ingestd).unwrap();
    sleep(part).await;
    let report = prober.stop();
    log_line(&report.to_string());
    assert_pages(&report, part * 2);

    stack.start(Binary::Ingestd).unwrap();
    let guid = origin.publish("feed-1", "After");
    subscriber.wait_event("item", limit, |r| r.json()["guid"] == *guid).await.unwrap();
    assert_eq!(subscriber.count("item"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_feed_hanging_pages_answer_within_100_ms() {
    let origin = Origin::start().await.unwrap();
    let sources = scenario::feeds(&origin, FEEDS);
    for number in 0..FEEDS {
        let name = format!("feed-{number}");
        origin.publish(&name, "Never delivered");
        origin.set_behaviour(&name, hanging_behaviour(number));
    }
    let mut stack = TestStack::new(&sources).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream");
    let prober = PageProber::start(&stack.gateway(), PROBE_EVERY).unwrap();
    let lasted = Duration::from_secs(12);
    sleep(lasted).await;
    let report = prober.stop();
    log_line(&report.to_string());
    assert_pages(&report, lasted);
    assert_eq!((subscriber.count("stream"), subscriber.count("item")), (1, 0));
    let visited = (0..FEEDS).filter(|n| !origin.requests(&format!("feed-{n}")).is_empty()).count();
    assert_eq!(visited, FEEDS, "no feed waits for another");
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
    let outcome = wait_for("the first items", Duration::from_secs(20), async || {
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

fn assert_pages(report: &ProbeReport, lasted: Duration) {
    let least = lasted.as_millis() / PROBE_EVERY.as_millis() / 2;
    assert!(report.probes.len() as u128 > least, "probed throughout: {report}");
    let bad = report.worse_than(PAGE_WITHIN);
    assert!(bad.is_empty(), "{report}\n{bad:#?}");
}
