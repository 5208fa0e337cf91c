//! A feed that sends more than a visit records harms neither the news of others nor its own, and its status says so.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fmt::Write as _, time::Duration};

use e2e::{DocumentFormat, Origin, TestSource, TestStack, wait_for};
use serde_json::Value;

/// Deadline of each step.
const SOON: Duration = Duration::from_secs(60);

fn document(items: usize) -> String {
    let mut text = "<rss version=\"2.0\"><channel><title>Flood</title>".to_owned();
    // The newest first, as feeds are.
    for n in (0..items).rev() {
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
