//! A source that answers and went quiet: what its status, the list, the metric and the log say.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fs,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use e2e::{Binary, DocumentFormat, Origin, TestStack, http, wait_for};
use news::{FeedUrl, Silences, Source, SourceId, SourceState, Timestamp, VisitStatus};
use serde_json::Value;
use store::{NewsPlan, StoreOptions, VisitRecord};

/// Deadline of each step.
const SOON: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;

#[expect(clippy::disallowed_methods, reason = "the daemon under test reads the clock, too")]
fn days_ago(days: i64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    Timestamp::from_millis(i64::try_from(now).unwrap() - days * DAY_MS)
}

/// A source that had something new on each day until 30 days ago.
fn state(silences: Silences) -> SourceState {
    let mut state = SourceState {
        last_visit: Some(days_ago(0)),
        last_success: Some(days_ago(0)),
        last_status: Some(VisitStatus::Unchanged),
        last_news: Some(days_ago(30)),
        silences,
        ..SourceState::default()
    };
    state.counts.visits = 900;
    state
}

/// Writes the states that a daemon of the past would have written.
fn write_store(stack: &TestStack, states: Vec<(&str, &str, SourceState)>) {
    let (mut writer, _) = store::open(&stack.path("data"), &StoreOptions::default()).unwrap();
    let record = |(id, url, state): (&str, &str, SourceState)| VisitRecord {
        source: Arc::new(Source::new(SourceId::try_new(id).unwrap(), FeedUrl::try_new(url).unwrap())),
        items: Vec::new(),
        state,
        now: days_ago(0),
        plan: NewsPlan::default(),
    };
    writer.append(states.into_iter().map(record).collect()).unwrap();
}

async fn newswire(stack: &TestStack, arguments: &[&str]) -> String {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(arguments).arg("--config").arg(config).env_clear().current_dir(stack.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

async fn ids(stack: &TestStack, filter: &[&str]) -> Vec<String> {
    let text = newswire(stack, &[&["sources", "list", "--json"], filter].concat()).await;
    let listed: Value = serde_json::from_str(&text).unwrap();
    let id = |source: &Value| source["id"].as_str().unwrap().to_owned();
    listed["sources"].as_array().unwrap().iter().map(id).collect()
}

async fn gauge(stack: &TestStack) -> Option<f64> {
    let (_, text) = http::fetch(&stack.wire(), "/metrics", SOON).await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("newswire_ingestd_sources_quiet "));
    value.map(|value| value.parse().unwrap())
}

#[tokio::test]
async fn a_quiet_source_is_told_in_status_list_and_metric_until_its_next_item() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&[]).unwrap();
    let mut silences = Silences::default();
    for day in (30..60).rev() {
        silences.note(days_ago(day + 1), days_ago(day));
    }
    let failing = SourceState { failures: 2, last_status: Some(VisitStatus::Error), ..state(silences) };
    let (mut list, mut states) = (String::new(), Vec::new());
    for (id, state) in [
        ("quiet", state(silences)),
        ("disabled", state(silences)),
        ("failing", SourceState { next_visit: Some(days_ago(-1)), ..failing }),
        ("unknown-rhythm", state(Silences::default())),
    ] {
        let url = origin.add_feed(id, DocumentFormat::Rss);
        let keys = if id == "disabled" { "enabled = false\n" } else { "" };
        list.push_str(&format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\nevery = \"1h\"\n{keys}\n"));
        states.push((id, url, state));
    }
    fs::write(stack.path("sources.toml"), list).unwrap();
    write_store(&stack, states.iter().map(|(id, url, state)| (*id, url.as_str(), state.clone())).collect());
    stack.start_both().await.unwrap();

    let status = stack.json("/sources/quiet").await.unwrap();
    let since: Timestamp = serde_json::from_value(status["quiet"]["since"].clone()).unwrap();
    assert_eq!(days_ago(0).since(since).as_secs() / 86_400, 30, "{status}");
    assert_eq!(status["quiet"]["usually_every_s"], 86_400, "{status}");
    for other in ["disabled", "failing", "unknown-rhythm"] {
        assert_eq!(stack.json(&format!("/sources/{other}")).await.unwrap()["quiet"], Value::Null, "{other}");
    }
    assert_eq!(ids(&stack, &["--quiet"]).await, ["quiet"]);
    assert_eq!(ids(&stack, &["--failing"]).await, ["failing"], "a quiet source is not a failing one");
    let table = newswire(&stack, &["sources", "list", "--quiet"]).await;
    assert!(table.contains("quiet: nothing new for 30d, usually every 24h"), "{table}");
    assert_eq!(gauge(&stack).await, Some(1.0));

    origin.publish("quiet", "It is back");
    newswire(&stack, &["sources", "refresh", "quiet"]).await;
    let ended = async || {
        let status = stack.json("/sources/quiet").await.unwrap();
        (status["counts"]["items"] == 1).then_some(status)
    };
    let status = wait_for("the item", SOON, ended).await.unwrap();
    assert_eq!(status["quiet"], Value::Null, "{status}");
    assert_eq!(gauge(&stack).await, Some(0.0));
    assert!(ids(&stack, &["--quiet"]).await.is_empty());
}
