//! Third-party client libraries against the real programs: `eventsource` of Node and `requests-sse` of Python, in the
//! versions pinned in crates/e2e/clients. Both reconnect by themselves, without help from the tests.
//!
//! `CLIENT_LIBRARIES` names the folder where `scripts/test` has installed them; without it these tests report that they
//! were skipped.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use e2e::{
    Binary, ExternalProgram, Origin, Published, RecordedEvent, TestStack, faults, on_path, scenario,
    sse::Message, wait_for,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

const FEEDS: usize = 2;
/// Deadline for an event to reach a client, including its reconnection after a kill: `requests-sse` waits twice the
/// retry time, and doubles it after each failure.
const SHOWN: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Library {
    Node,
    Python,
}

/// A client that uses the library to read a stream.
struct Client(ExternalProgram);

impl Client {
    /// Reports a skipped test and returns `None` if the library is not installed.
    fn start(library: Library, stack: &TestStack, path: &str) -> anyhow::Result<Option<Self>> {
        let Some(installed) = std::env::var_os("CLIENT_LIBRARIES").map(PathBuf::from) else {
            e2e::log_line("SKIPPED: CLIENT_LIBRARIES is not set");
            return Ok(None);
        };
        let e2e::http::Address::Tcp(address) = stack.gateway() else { unreachable!("it listens on TCP") };
        let url = format!("http://{address}{path}");
        let drivers = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/clients"));
        let folder = stack.path("client");
        fs::create_dir(&folder)?;
        let listener = match library {
            Library::Node => {
                let node =
                    on_path("node").context("node was there when scripts/test installed the package")?;
                let driver = drivers.join("eventsource.mjs");
                ExternalProgram::start(&node, &[driver, installed, url.into()], &folder)?
            }
            Library::Python => {
                let python = installed.join("python/bin/python");
                ExternalProgram::start(&python, &[drivers.join("eventsource.py"), url.into()], &folder)?
            }
        };
        Ok(Some(Self(listener)))
    }

    /// All events so far. Every connection begins with the event `stream`.
    fn records(&self) -> Vec<RecordedEvent> {
        let mut connection = 0;
        let lines = self.0.output_lines().into_iter().map(|line| {
            let line: Value = serde_json::from_str(&line).expect("the drivers write JSON");
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let message = Message { event: text("event"), data: text("data"), last_event_id: text("id") };
            connection += usize::from(message.event == "stream");
            RecordedEvent { connection: connection.saturating_sub(1), at: Instant::now(), message }
        });
        lines.collect()
    }

    fn events(&self, name: &str) -> Vec<RecordedEvent> {
        self.records().into_iter().filter(|record| record.message.event == name).collect()
    }

    /// Waits for `count` events of a name and returns them.
    async fn wait(&mut self, name: &str, count: usize) -> anyhow::Result<Vec<RecordedEvent>> {
        let outcome = wait_for(&format!("{count} events `{name}`"), SHOWN, async || {
            sleep(Duration::from_millis(50)).await;
            Some(self.events(name)).filter(|events| events.len() >= count || !self.0.is_running())
        })
        .await;
        let events = outcome.with_context(|| format!("{:?}\n{}", self.0.output_lines(), self.0.stderr()))?;
        anyhow::ensure!(events.len() >= count, "it exited: {}", self.0.stderr());
        Ok(events)
    }
}

/// The gateway is killed while feeds publish; the client must resume with its exact id.
async fn gets_each_item_once(library: Library) -> anyhow::Result<()> {
    let origin = Arc::new(Origin::start().await?);
    let mut stack = TestStack::new(&scenario::feeds(&origin, FEEDS))?;
    stack.start_both().await?;
    let Some(mut client) = Client::start(library, &stack, "/news/stream?snapshot=1000")? else {
        return Ok(());
    };
    let publisher = scenario::FeedPublisher::start(Arc::clone(&origin), FEEDS);
    client.wait("item", 10).await?;
    for kill in 1..=2 {
        stack.kill(Binary::Gateway)?;
        stack.start(Binary::Gateway)?;
        let hello = client.wait("stream", kill + 1).await?[kill].json();
        // The last id of the connections before.
        let records = client.records();
        let earlier = records.iter().rev().filter(|record| record.connection < kill);
        let last_event_id = earlier.map(|r| r.message.last_event_id.clone()).find(|id| !id.is_empty());
        assert_eq!(
            (hello["resume"].as_str(), hello["requested"].as_str()),
            (Some("exact"), last_event_id.as_deref())
        );
        sleep(Duration::from_millis(500)).await;
    }
    publisher.stop().await;
    let published = origin.published();
    client.wait("item", published.values().map(Vec::len).sum()).await?;
    sleep(Duration::from_secs(1)).await;
    let faults = faults(&published, &client.records());
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
    anyhow::ensure!(!client.events("source").is_empty(), "named events arrive too");
    Ok(())
}

/// The client filters for one of two feeds while the other one publishes, so that heartbeats have ids that none of its
/// events had. Returns its last event id before the gateway is killed, the head of the log then, and the id with which
/// it reconnected.
async fn resumes_a_filtered_stream(library: Library) -> anyhow::Result<Option<[String; 3]>> {
    let origin = Origin::start().await?;
    let mut stack = TestStack::new(&scenario::feeds(&origin, FEEDS))?;
    stack.set("gateway.heartbeat", "\"1s\"");
    stack.start_both().await?;
    let path = "/news/stream?snapshot=10&kinds=item,update&source=feed-1";
    let Some(mut client) = Client::start(library, &stack, path)? else { return Ok(None) };
    let first = origin.publish("feed-1", "Wanted");
    let last = client.wait("item", 1).await?[0].message.last_event_id.clone();
    (0..5).for_each(|number| drop(origin.publish("feed-0", &format!("Not wanted, {number}"))));
    let head = wait_for("the items outside the filter", SHOWN, async || {
        let page = stack.json("/news").await.ok()?;
        (page["items"].as_array()?.len() == 6).then(|| page["head"].as_str().unwrap_or_default().to_owned())
    })
    .await?;
    sleep(Duration::from_secs(5)).await; // at least one heartbeat, on a busy machine too
    stack.kill(Binary::Gateway)?;
    let second = origin.publish("feed-1", "Wanted, too");
    origin.edit("feed-1", &first, "Wanted more");
    sleep(Duration::from_millis(1_500)).await; // a visit
    stack.start(Binary::Gateway)?;
    let hello = client.wait("stream", 2).await?[1].json();
    assert_eq!(hello["resume"], "exact", "{hello}");
    client.wait("update", 1).await?;
    client.wait("item", 2).await?;
    sleep(Duration::from_secs(1)).await;
    let updates = client.events("update");
    assert!(updates.len() == 1 && updates[0].json()["title"] == "Wanted more", "{updates:?}");
    let rest: Vec<_> = client.records().into_iter().filter(|r| r.message.event != "update").collect();
    assert_eq!(faults(&Published::from([("feed-1".to_owned(), vec![first, second])]), &rest), [""; 0]);
    Ok(Some([last, head, hello["requested"].as_str().unwrap_or_default().to_owned()]))
}

#[tokio::test]
async fn eventsource_of_node_gets_each_item_once_through_kills_of_the_gateway() {
    gets_each_item_once(Library::Node).await.unwrap();
}

#[tokio::test]
async fn requests_sse_of_python_gets_each_item_once_through_kills_of_the_gateway() {
    gets_each_item_once(Library::Python).await.unwrap();
}

/// This version ignores the id of a block without data: it resumes from an earlier id, and still misses nothing.
#[tokio::test]
async fn eventsource_of_node_misses_nothing_of_a_filtered_stream() {
    let Some([last, _, requested]) = resumes_a_filtered_stream(Library::Node).await.unwrap() else { return };
    assert_eq!(requested, last);
}

#[tokio::test]
async fn requests_sse_of_python_resumes_past_events_outside_its_filter() {
    let Some([_, head, requested]) = resumes_a_filtered_stream(Library::Python).await.unwrap() else {
        return;
    };
    assert_eq!(requested, head);
}
