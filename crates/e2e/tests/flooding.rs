//! A feed that sends more than a visit records harms neither the news of others nor its own, and its status says so.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fmt::Write as _, time::Duration};

use e2e::{Binary, DocumentFormat, Origin, TestSource, TestStack, wait_for};
use serde_json::Value;

/// Deadline of each step.
const SOON: Duration = Duration::from_secs(60);

fn document(items: usize) -> String {
    document_of(0..items)
}

fn document_of(items: std::ops::Range<usize>) -> String {
    let mut text = "<rss version=\"2.0\"><channel><title>Flood</title>".to_owned();
    // The newest first, as feeds are.
    for n in items.rev() {
        let words = format!("word{n} ").repeat(60);
        write!(
            text,
            "<item><guid>flood-{n}</guid><title>Flood {n:03}</title><description>{words}</description></item>"
        )
        .unwrap();
    }
    text + "</channel></rss>"
}

#[tokio::test]
async fn a_flooding_feed_is_recorded_in_parts_once_and_in_order_and_says_so() {
    let origin = Origin::start().await.unwrap();
    let flood = origin.set_document("flood", &document(60));
    let quiet = origin.add_feed("quiet", DocumentFormat::Rss);
    let mut stack =
        TestStack::new(&[TestSource::new("flood", flood), TestSource::new("quiet", quiet)]).unwrap();
    // Some ten items of about 1.2 KB per visit: six visits for all of them.
    stack.set("fetch.new_bytes_max", "16384");
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");

    let status = async || stack.json("/sources/flood").await.unwrap();
    let waits = async || Some(status().await).filter(|status| status["flooding"]["waiting_items"].is_u64());
    let first = wait_for("the first part", SOON, waits).await.unwrap();
    let flooding = &first["flooding"];
    let waiting = flooding["waiting_items"].as_u64().unwrap();
    assert_eq!(
        first["counts"]["items"].as_u64().unwrap() + waiting,
        60,
        "nothing is dropped in silence: {first}"
    );
    assert!(flooding["since"].is_string() && flooding["waiting_bytes"].as_u64().unwrap() > waiting * 300);
    let warnings: Vec<_> = first["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(warnings.iter().any(|warning| warning.starts_with("flooding: ")), "{warnings:?}");
    let listed = stack.json("/sources").await.unwrap().to_string();
    assert!(listed.contains("waiting_items"), "{listed}");

    // Others are not affected meanwhile.
    origin.publish("quiet", "News of others");
    subscriber.wait_event("item", SOON, |event| event.json()["title"] == "News of others").await.unwrap();

    let ended = async || Some(status().await).filter(|status| status["counts"]["items"] == 60);
    let last = wait_for("the last part", SOON, ended).await.unwrap();
    assert_eq!(last["flooding"], Value::Null, "{last}");
    subscriber.wait_event("item", SOON, |event| event.json()["title"] == "Flood 059").await.unwrap();
    let titles: Vec<_> = subscriber
        .events("item")
        .iter()
        .filter_map(|event| event.json()["title"].as_str().map(str::to_owned))
        .filter(|title| title.starts_with("Flood"))
        .collect();
    assert_eq!(titles, (0..60).map(|n| format!("Flood {n:03}")).collect::<Vec<_>>());
    // The same bytes were read again for it, and are no more once nothing waits.
    let full = last["counts"]["body_bytes"].as_u64().unwrap();
    assert!(full > document(60).len() as u64, "{last}");
}

/// Events that the log or the ring may have in the next test.
const KEPT: usize = 300;
/// Items of the other feeds in it.
const OTHERS: usize = 50;

/// Of the items of a page, those of the flood and those of others, the newest first.
fn by_owner(page: &Value) -> (Vec<String>, Vec<String>) {
    let titles =
        page["items"].as_array().unwrap().iter().map(|item| item["title"].as_str().unwrap().to_owned());
    titles.partition(|title| title.starts_with("Flood"))
}

async fn flood(limit: &str, bound: &str) {
    let origin = Origin::start().await.unwrap();
    let others = ["north", "south"];
    let mut sources: Vec<_> =
        others.iter().map(|name| TestSource::new(name, origin.add_feed(name, DocumentFormat::Rss))).collect();
    sources.push(TestSource::new("flood", origin.set_document("flood", &document(0))));
    let mut stack = TestStack::new(&sources).unwrap();
    stack.set(limit, &KEPT.to_string());
    for n in 0..OTHERS {
        origin.publish(others[n % 2], &format!("News {n}"));
    }
    stack.start_both().await.unwrap();
    let page = async |path: &str| stack.json(path).await.unwrap();
    let has_all = async || {
        let (_, news) = by_owner(&page("/news?limit=1000").await);
        Some(()).filter(|()| news.len() == OTHERS)
    };
    wait_for("the news of others", SOON, has_all).await.unwrap();

    origin.set_document("flood", &document(600));
    let status = async || page("/sources/flood").await;
    let waits = async || Some(status().await).filter(|status| status["flooding"]["waiting_items"].is_u64());
    let first = wait_for("the flood", SOON, waits).await.unwrap();
    let flooding = &first["flooding"];
    assert_eq!(flooding["bound"], bound, "{first}");
    assert_eq!(first["counts"]["items"], KEPT - OTHERS, "as long as there is room");
    assert_eq!(flooding["waiting_items"], 600 - (KEPT - OTHERS), "nothing is dropped in silence: {first}");
    let warning = first["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("flooding: ") && warning.contains(limit), "{warning}");
    assert!(warning.contains("store.source_share_percent"), "what to raise: {warning}");

    // The others publish on, and make room for what waits.
    for n in 0..OTHERS + 10 {
        origin.publish(others[n % 2], &format!("More news {n}"));
    }
    let moved = async || {
        origin.set_document("flood", &document(600));
        let status = status().await;
        Some(()).filter(|()| status["counts"]["items"].as_u64() > Some((KEPT - OTHERS + 50) as u64))
    };
    wait_for("what waited", SOON, moved).await.unwrap();
    let (floods, news) = by_owner(&page("/news?limit=1000").await);
    assert!(news.len() >= OTHERS, "{news:?}");
    let newest: usize = floods[0].strip_prefix("Flood ").unwrap().parse().unwrap();
    let in_order: Vec<_> = (0..=newest).rev().take(floods.len()).map(|n| format!("Flood {n:03}")).collect();
    assert_eq!(floods, in_order, "once and in order");

    origin.set_document("flood", &document_of(newest + 21..newest + 200));
    let lost =
        async || Some(status().await).filter(|status| status["flooding"]["lost_items"].as_u64() > Some(0));
    let last = wait_for("the loss", SOON, lost).await.unwrap();
    assert_eq!(last["flooding"]["bound"], bound);
    let (_, news) = by_owner(&page("/news?limit=1000").await);
    assert!(news.len() >= OTHERS, "{news:?}");
    stack.kill(Binary::Ingestd).unwrap();
    let (floods, news) = by_owner(&stack.json(&format!("/news?limit={KEPT}")).await.unwrap());
    assert!(news.len() >= OTHERS && !floods.is_empty(), "the gateway has them in memory: {news:?}");
}

#[tokio::test]
async fn a_flooding_feed_leaves_the_news_of_others_in_ring_and_log_and_says_so() {
    flood("gateway.ring_events", "ring").await;
    flood("store.retention_events", "retention").await;
}
