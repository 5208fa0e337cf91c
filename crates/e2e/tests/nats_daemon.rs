//! The ingestion daemon with `wire.transport = "nats"`: what programs that know nothing of newswire read from NATS.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{collections::BTreeSet, time::Duration};

use async_nats::{Message, Subscriber};
use e2e::{Binary, NatsServer, Origin, TestStack, http, nats_server_program, scenario, wait_for};
use futures_util::StreamExt as _;
use serde_json::Value;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

async fn next(subscriber: &mut Subscriber) -> Message {
    tokio::time::timeout(LIMIT, subscriber.next()).await.expect("a message comes").unwrap()
}

fn json(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

/// A daemon that publishes to the server.
fn daemon_on(server: &NatsServer, origin: &Origin) -> TestStack {
    let mut stack = TestStack::new(&scenario::feeds(origin, 3)).unwrap();
    stack.set("wire.transport", "\"nats\"");
    stack.set("wire.nats_urls", &format!("[\"{}\"]", server.url()));
    stack.set("store.retention_bytes", "67108864");
    stack.start(Binary::Ingestd).unwrap();
    stack
}

#[tokio::test]
async fn items_of_a_feed_arrive_on_the_subject_of_their_category_and_source() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut events = client.subscribe("newswire.events.>").await.unwrap();
    let mut heartbeats = client.subscribe("newswire.heartbeats").await.unwrap();
    let mut notices = client.subscribe("newswire.notices").await.unwrap();
    client.flush().await.unwrap();
    let origin = Origin::start().await.unwrap();
    let stack = daemon_on(&server, &origin);
    let guid = origin.publish("feed-1", "Rain & <wind>");
    let event = loop {
        let message = next(&mut events).await;
        if json(&message)["guid"] == *guid {
            break message;
        }
    };
    let item = json(&event);
    assert_eq!(
        event.subject.as_str(),
        format!("newswire.events.{}.feed-1", item["category"].as_str().unwrap())
    );
    assert_eq!((&item["source"], &item["title"]), (&"feed-1".into(), &"Rain & <wind>".into()));
    assert!(item.get("id").is_none(), "the number of the message is the id");
    let headers = event.headers.unwrap();
    let origin_id = headers.get("Newswire-Origin").unwrap().as_str().to_owned();
    let (log_epoch, seq) = origin_id.split_once('-').unwrap();

    let notice = loop {
        let notice = json(&next(&mut notices).await);
        if notice["data"]["source"] == "feed-1" && notice["data"]["new"].as_u64() > Some(0) {
            break notice;
        }
    };
    assert_eq!((&notice["daemon"], &notice["event"]), (&log_epoch.into(), &"source".into()));
    assert!(notice["after"].is_string(), "it follows the item: {notice}");
    let heartbeat = loop {
        let heartbeat = json(&next(&mut heartbeats).await);
        let published = heartbeat["published"].as_str().unwrap().rsplit_once('-').unwrap().1.parse::<u64>();
        if published.unwrap() >= seq.parse().unwrap() {
            break heartbeat;
        }
    };
    assert_eq!(heartbeat["daemon"], log_epoch);
    assert_eq!(heartbeat["oldest"], format!("{log_epoch}-1"));
    drop(stack);
}

#[tokio::test]
async fn the_daemon_starts_and_records_without_nats_and_publishes_once_it_is_there() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    server.kill();
    let origin = Origin::start().await.unwrap();
    let mut stack = daemon_on(&server, &origin);
    let mut guids: BTreeSet<String> =
        (0..3).map(|feed| origin.publish(&format!("feed-{feed}"), "away")).collect();
    wait_for("the items are recorded", LIMIT, async || {
        let (_, metrics) = http::fetch(&stack.admin(Binary::Ingestd), "/metrics", LIMIT).await.ok()?;
        let value = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")))?;
            line.rsplit_once(' ')?.1.parse::<f64>().ok()
        };
        let pending = value("newswire_ingestd_nats_pending")?;
        let connected = value("newswire_ingestd_nats_connected")?;
        (connected == 0.0 && pending >= 3.0).then_some(())
    })
    .await
    .unwrap();
    // A stop does not wait for NATS longer than it may.
    let (status, _) = stack.terminate(Binary::Ingestd, LIMIT).await.unwrap();
    assert!(status.success(), "{status}");
    stack.start(Binary::Ingestd).unwrap();
    server.restart().await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = wait_for("the stream is made", LIMIT, async || jetstream.get_stream("newswire").await.ok())
        .await
        .unwrap();
    let config = async_nats::jetstream::consumer::pull::OrderedConfig::default();
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    while !guids.is_empty() {
        let message = tokio::time::timeout(LIMIT, messages.next()).await.expect("all come").unwrap().unwrap();
        guids.remove(json(&message.message)["guid"].as_str().unwrap());
    }
}
