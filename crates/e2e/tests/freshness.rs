//! What overrides the freshness that a server states, and what does not, on the real daemon.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{collections::BTreeMap, fs, time::Duration};

use e2e::{Behaviour, Binary, DocumentFormat, Origin, TestStack, http, wait_for};
use news::Timestamp;
use serde_json::Value;

/// Deadline of each step.
const SOON: Duration = Duration::from_secs(60);
/// What the servers ask for, less the jitter.
const ASKED: Duration = Duration::from_secs(3500);

async fn status(stack: &TestStack, id: &str) -> Option<Value> {
    let (code, text) = http::fetch(&stack.wire(), &format!("/sources/{id}"), SOON).await.ok()?;
    (code == 200).then(|| serde_json::from_str(&text).unwrap())
}

/// From the last visit to the next one.
fn pause(status: &Value) -> Option<Duration> {
    let time = |field: &str| serde_json::from_value::<Option<Timestamp>>(status[field].clone()).unwrap();
    Some(time("next_visit")?.since(time("last_visit")?))
}

async fn until(stack: &TestStack, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, SOON, async || status(stack, id).await.filter(&holds)).await.unwrap()
}

/// Waits until a feed was requested so many more times.
async fn requests(origin: &Origin, id: &str, more: usize) {
    let before = origin.requests(id).len();
    let enough = async || (origin.requests(id).len() >= before + more).then_some(());
    wait_for(&format!("{more} visits of {id}"), SOON, enough).await.unwrap();
}

#[tokio::test]
async fn every_and_fresh_ignore_override_max_age_but_not_retry_after() {
    let mut origins = BTreeMap::new();
    let mut list = String::new();
    for (id, keys) in [
        ("as-asked", ""),
        ("every", "every = \"2s\"\n"),
        ("ignore", "fresh = \"ignore\"\n"),
        ("other", "every = \"1s\"\n"),
    ] {
        // A Retry-After concerns all feeds of its host.
        let origin = Origin::start().await.unwrap();
        let url = origin.add_feed(id, DocumentFormat::Rss);
        origin.add_header(id, "Cache-Control: max-age=3600");
        list.push_str(&format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\n{keys}\n"));
        origins.insert(id, origin);
    }
    let mut stack = TestStack::new(&[]).unwrap();
    // Without freshness, no source waits longer.
    stack.set("fetch.interval_max", "\"3s\"");
    fs::write(stack.path("sources.toml"), list).unwrap();
    stack.start(Binary::Ingestd).unwrap();

    for id in ["every", "ignore", "other"] {
        requests(&origins[id], id, 3).await;
    }
    let asked = until(&stack, "as-asked", "its visit", |status| status["counts"]["visits"] == 1).await;
    assert!(pause(&asked) >= Some(ASKED), "{asked}");
    assert!(asked["why"].as_str().unwrap().contains("max-age"), "{asked}");
    assert_eq!(origins["as-asked"].requests("as-asked").len(), 1);

    origins["every"].set_behaviour("every", Behaviour::Status(429, vec!["Retry-After: 3600".to_owned()]));
    origins["ignore"].set_behaviour("ignore", Behaviour::Status(503, vec!["Retry-After: 3600".to_owned()]));
    let mut after = Vec::new();
    for id in ["every", "ignore"] {
        let throttled = until(&stack, id, "its throttling", |s| s["last_status"] == "throttled").await;
        assert!(pause(&throttled) >= Some(ASKED), "{throttled}");
        after.push((id, origins[id].requests(id).len()));
    }
    // Longer than both intervals, as another source shows.
    requests(&origins["other"], "other", 6).await;
    for (id, before) in after {
        assert_eq!(origins[id].requests(id).len(), before, "{id} waits as long as its server asked for");
    }
}
