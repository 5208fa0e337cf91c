//! What a running daemon makes of changes in the list of sources: what belongs to an old address ends with it.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fs, time::Duration};

use e2e::{Behaviour, Binary, DocumentFormat, Origin, TestStack, http, wait_for};
use serde_json::Value;

/// Deadline of each step; three 410s in a row take about 20 s.
const SOON: Duration = Duration::from_secs(60);

/// Writes a list with one source.
fn write_list(stack: &TestStack, url: &str, keys: &str) {
    let text = format!("[[source]]\nid = \"a\"\nurl = \"{url}\"\n{keys}\n");
    fs::write(stack.path("sources.toml"), text).unwrap();
}

async fn start(stack: &mut TestStack) {
    stack.start(Binary::Ingestd).unwrap();
    let wire = stack.wire();
    let answers = async || matches!(http::fetch(&wire, "/health", SOON).await, Ok((200, _))).then_some(());
    wait_for("the daemon to answer", SOON, answers).await.unwrap();
    // The socket answers before the list is read.
    let is_listed =
        async || matches!(http::fetch(&wire, "/sources/a", SOON).await, Ok((200, _))).then_some(());
    wait_for("the source", SOON, is_listed).await.unwrap();
}

async fn reload(stack: &TestStack) -> Value {
    let headers = [("Connection", "close"), ("Content-Length", "0")];
    let answer = http::send("POST", &stack.wire(), "/reload", &headers, "").await.unwrap();
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// The status of the source.
async fn status(stack: &TestStack) -> Value {
    let (code, text) = http::fetch(&stack.wire(), "/sources/a", SOON).await.unwrap();
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

async fn until(stack: &TestStack, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, SOON, async || Some(status(stack).await).filter(&holds)).await.unwrap()
}

fn gone() -> Behaviour {
    Behaviour::Status(410, Vec::new())
}

/// A daemon whose only source has been answered with 410 three times.
async fn with_a_gone_source(origin: &Origin) -> TestStack {
    let old = origin.add_feed("old", DocumentFormat::Rss);
    origin.set_behaviour("old", gone());
    let mut stack = TestStack::new(&[]).unwrap();
    write_list(&stack, &old, "every = \"1s\"");
    start(&mut stack).await;
    let confirmed = |status: &Value| status["why"].as_str().unwrap().starts_with("gone (410), confirmed");
    let status = until(&stack, "the third 410", confirmed).await;
    assert!(status["next_visit"].is_string(), "nothing is dead in silence: {status}");
    assert_eq!(origin.requests("old").len(), 3);
    stack
}

#[tokio::test]
async fn a_corrected_address_is_visited_at_once_after_three_410s() {
    let origin = Origin::start().await.unwrap();
    let mut stack = with_a_gone_source(&origin).await;
    let (new, newer) =
        (origin.add_feed("new", DocumentFormat::Rss), origin.add_feed("newer", DocumentFormat::Rss));
    origin.publish("new", "First");
    write_list(&stack, &new, "every = \"1h\"");
    assert_eq!(reload(&stack).await["changed"], 1);
    let healthy = |status: &Value| status["last_status"] == "new" && status["counts"]["items"] == 1;
    let after = until(&stack, "the first item", healthy).await;
    assert_eq!((&after["consecutive_failures"], &after["last_error"]), (&Value::from(0), &Value::Null));
    assert!(after["counts"]["visits"].as_u64() >= Some(4), "its counts stay: {after}");

    stack.kill(Binary::Ingestd).unwrap();
    origin.publish("newer", "Second");
    write_list(&stack, &newer, "every = \"1h\"");
    start(&mut stack).await;
    until(&stack, "the second item", |status| status["counts"]["items"] == 2).await;
    assert_eq!(origin.requests("old").len(), 3);

    stack.kill(Binary::Ingestd).unwrap();
    start(&mut stack).await;
    let restarted = status(&stack).await;
    assert_eq!(origin.requests("newer").len(), 1, "a restart changes nothing: {restarted}");
}

#[tokio::test]
async fn removed_and_added_again_a_gone_source_brings_its_items() {
    let origin = Origin::start().await.unwrap();
    let stack = with_a_gone_source(&origin).await;
    let list = fs::read_to_string(stack.path("sources.toml")).unwrap();
    fs::write(stack.path("sources.toml"), "").unwrap();
    assert_eq!(reload(&stack).await["removed"], 1);
    origin.set_behaviour("old", Behaviour::Honest);
    origin.publish("old", "It is back");
    fs::write(stack.path("sources.toml"), list).unwrap();
    assert_eq!(reload(&stack).await["added"], 1);
    until(&stack, "its item", |status| status["counts"]["items"] == 1).await;
}

#[tokio::test]
async fn removed_from_a_running_daemon_and_added_to_a_stopped_one_a_gone_source_brings_its_items() {
    let origin = Origin::start().await.unwrap();
    let mut stack = with_a_gone_source(&origin).await;
    let list = fs::read_to_string(stack.path("sources.toml")).unwrap();
    fs::write(stack.path("sources.toml"), "").unwrap();
    assert_eq!(reload(&stack).await["removed"], 1);
    stack.terminate(Binary::Ingestd, SOON).await.unwrap();
    origin.set_behaviour("old", Behaviour::Honest);
    origin.publish("old", "It is back");
    fs::write(stack.path("sources.toml"), list).unwrap();
    start(&mut stack).await;
    until(&stack, "its item", |status| status["counts"]["items"] == 1).await;
}

#[tokio::test]
async fn a_shorter_every_and_new_headers_apply_at_once_and_a_pause_that_was_asked_for_stays() {
    let origin = Origin::start().await.unwrap();
    let url = origin.add_feed("feed", DocumentFormat::Rss);
    let mut stack = TestStack::new(&[]).unwrap();
    write_list(&stack, &url, "every = \"1h\"");
    start(&mut stack).await;
    until(&stack, "the first visit", |status| status["counts"]["visits"] == 1).await;
    write_list(&stack, &url, "every = \"2s\"");
    reload(&stack).await;
    until(&stack, "two more visits", |status| status["counts"]["visits"] == 3).await;
    assert!(origin.requests("feed").iter().all(|request| request.header("x-key").is_none()));

    origin.set_behaviour("feed", Behaviour::Status(403, Vec::new()));
    write_list(&stack, &url, "every = \"1h\"");
    reload(&stack).await;
    // The change may fall together with a visit of the old plan.
    write_list(&stack, &url, "every = \"1h\"\nheaders = { X-Key = \"wrong\" }");
    reload(&stack).await;
    let refused = |status: &Value| status["last_status"] == "error" && status["activity"] == "idle";
    let failed = until(&stack, "a refusal", refused).await;
    origin.set_behaviour("feed", Behaviour::Honest);
    write_list(&stack, &url, "every = \"1h\"\nheaders = { X-Key = \"right\" }");
    reload(&stack).await;
    // Until it is visited, the source is a new one, without a status.
    let works = |status: &Value| ["new", "unchanged"].iter().any(|word| status["last_status"] == *word);
    until(&stack, "the end of the failures", works).await;
    assert_eq!(origin.requests("feed").last().unwrap().header("x-key"), Some("right"), "{failed}");

    origin.set_behaviour("feed", Behaviour::Status(429, vec!["Retry-After: 3600".to_owned()]));
    write_list(&stack, &url, "every = \"1s\"\nheaders = { X-Key = \"right\" }");
    reload(&stack).await;
    let throttled = |status: &Value| status["last_status"] == "throttled" && status["activity"] == "idle";
    let before = until(&stack, "a 429", throttled).await;
    write_list(&stack, &url, "every = \"2s\"\nheaders = { X-Key = \"right\" }");
    reload(&stack).await;
    assert_eq!(status(&stack).await["next_visit"], before["next_visit"]);
}

#[tokio::test]
async fn a_short_retry_after_backs_off_all_the_same() {
    let origin = Origin::start().await.unwrap();
    let url = origin.add_feed("feed", DocumentFormat::Rss);
    origin.set_behaviour("feed", Behaviour::Status(503, vec!["Retry-After: 1".to_owned()]));
    let mut stack = TestStack::new(&[]).unwrap();
    write_list(&stack, &url, "");
    start(&mut stack).await;
    until(&stack, "the fourth visit", |status| status["counts"]["visits"] == 4).await;
    let at: Vec<_> = origin.requests("feed").iter().map(|request| request.at).collect();
    let gaps: Vec<_> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    // Doubled from interval_min, 1 s; each with a tenth of jitter.
    assert!(gaps[1] >= 1.8 && gaps[2] >= 3.6, "{gaps:?}");
}
