//! The gateway on a machine without a daemon: events come from the stream of NATS, which the test fills itself.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::time::Duration;

use async_nats::jetstream;
use e2e::{
    Binary, NatsServer, RecordedEvent, TestStack, TestSubscriber, Transport, http, nats_server_program,
    wait_for,
};
use news::{Cursor, Epoch, Event, EventKind, FeedUrl, Item, Seq, Source, SourceId, Timestamp};
use wire::{
    SubscriptionEvent,
    nats::{
        EpochRecord, EventMessage, EventStream, NatsConnection, NatsCredentials, NatsSettings,
        NatsSubscription, PageStart, StreamLimits, SubjectNames,
    },
};

/// Only a fault reaches it.
const SOON: Duration = Duration::from_secs(120);

/// What a daemon does with the stream, as far as a gateway can see.
struct Publisher {
    stream: EventStream,
    jetstream: jetstream::Context,
    epoch: EpochRecord,
    published: u64,
}

impl Publisher {
    async fn on(server: &NatsServer) -> Self {
        let settings = NatsSettings {
            urls: vec![server.url()],
            names: SubjectNames::new("newswire"),
            credentials: NatsCredentials::default(),
            ca_file: None,
            replicas: 1,
            limits: StreamLimits { age: Duration::from_secs(3600), events: 100_000, bytes: 1 << 30 },
            client: "test".to_owned(),
        };
        let connection = NatsConnection::open(settings).await.unwrap();
        let mut connections = connection.connections();
        tokio::time::timeout(SOON, connections.wait_for(|count| *count > 0)).await.unwrap().unwrap();
        let stream = EventStream::new(connection);
        let (epoch, ..) = stream.ensure().await.unwrap();
        let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
        Self { stream, jetstream, epoch, published: 0 }
    }

    /// The same after the stream may have been made anew.
    async fn ensure(&mut self) {
        (self.epoch, ..) = self.stream.ensure().await.unwrap();
    }

    /// Publishes so many items; their titles go on counting.
    async fn publish(&mut self, count: u64) {
        for _ in 0..count {
            self.published += 1;
            let message = message(self.published);
            let subject = message.subject(&SubjectNames::new("newswire")).unwrap();
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", message.message_id(&self.epoch.epoch));
            headers.insert("Newswire-Origin", message.origin.to_string());
            headers.insert("Newswire-Kind", message.kind.as_str());
            let payload = message.json_without_id;
            self.jetstream.publish_with_headers(subject, headers, payload).await.unwrap().await.unwrap();
        }
    }

    fn id(&self, seq: u64) -> String {
        format!("{}-{seq}", self.epoch.epoch)
    }
}

fn message(number: u64) -> EventMessage {
    let id = Cursor { epoch: Epoch::try_new("origin").unwrap(), seq: Seq(number) };
    let url = FeedUrl::try_new("https://example.org/feed").unwrap();
    let source = Source::new(SourceId::try_new("bbc").unwrap(), url);
    let item = Item { key: format!("k{number}"), title: format!("story {number}"), ..Item::default() };
    let event = Event::new(id.clone(), EventKind::Item, &source, now(), item);
    EventMessage::from_log(id, EventKind::Item, &event.to_json()).unwrap()
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

fn stack(server: &NatsServer, ring_events: u64) -> TestStack {
    let transport = Transport::Nats(format!("[\"{}\"]", server.url()));
    let mut stack = TestStack::with_transport(&[], &transport).unwrap();
    stack.set("gateway.ring_events", &ring_events.to_string());
    stack
}

/// Ids and titles of the items, in the order of their arrival.
fn items(events: &[RecordedEvent]) -> Vec<(String, String)> {
    let item = |event: &RecordedEvent| {
        let json = event.json();
        assert_eq!(json["id"], *event.message.last_event_id, "the id of the block is that of the item");
        (event.message.last_event_id.clone(), json["title"].as_str().unwrap().to_owned())
    };
    events.iter().filter(|event| event.message.event == "item").map(item).collect()
}

fn expected(publisher: &Publisher, numbers: std::ops::RangeInclusive<u64>) -> Vec<(String, String)> {
    numbers.map(|n| (publisher.id(n), format!("story {n}"))).collect()
}

async fn wait_items(client: &TestSubscriber, count: usize) {
    wait_for(&format!("{count} items"), SOON, async || (client.count("item") >= count).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", client.summary()));
}

/// What the newest connection was told first.
fn opened(client: &TestSubscriber) -> serde_json::Value {
    client.events("stream").last().expect("a first event").json()
}

#[tokio::test]
async fn a_gateway_without_a_daemon_serves_the_stream_with_ids_of_its_own() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let mut publisher = Publisher::on(&server).await;
    publisher.publish(30).await;
    // The ring has ten: what is below comes from NATS.
    let mut stack = stack(&server, 10);
    stack.start(Binary::Gateway).unwrap();
    stack.wait_serving().await.unwrap();
    let client = stack.subscribe(&format!("/news/stream?after={}", publisher.id(3)));
    wait_items(&client, 27).await;
    publisher.publish(3).await;
    wait_items(&client, 30).await;
    assert_eq!(items(&client.records()), expected(&publisher, 4..=33));
    assert_eq!(opened(&client)["resume"], "exact");
    let page = stack.json("/news?limit=20").await.unwrap();
    let ids = |page: &serde_json::Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&page), (14..=33).rev().map(|n| publisher.id(n)).collect::<Vec<_>>());
    let page = stack.json(&format!("/news?limit=20&before={}", publisher.id(14))).await.unwrap();
    assert_eq!(ids(&page), (1..=13).rev().map(|n| publisher.id(n)).collect::<Vec<_>>());
    let item = stack.json(&format!("/news/{}", publisher.id(2))).await.unwrap();
    assert_eq!(item["title"], "story 2");
    let since = stack.subscribe("/news/stream?since=1h");
    wait_items(&since, 33).await;
    assert_eq!(items(&since.records()), expected(&publisher, 1..=33));
}

#[tokio::test]
async fn a_client_that_hops_between_gateways_with_its_last_id_gets_each_event_once() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let mut publisher = Publisher::on(&server).await;
    let (mut one, mut other) = (stack(&server, 100), stack(&server, 5));
    for stack in [&mut one, &mut other] {
        stack.start(Binary::Gateway).unwrap();
        stack.wait_serving().await.unwrap();
    }
    let mut last = publisher.id(0);
    let mut seen = Vec::new();
    for hop in 0..8 {
        publisher.publish(10).await;
        let stack = if hop % 2 == 0 { &one } else { &other };
        let client = stack.subscribe(&format!("/news/stream?after={last}"));
        wait_items(&client, 10).await;
        assert_eq!(opened(&client)["resume"], "exact", "hop {hop}");
        last = client.last_event_id();
        seen.extend(items(&client.records()));
    }
    assert_eq!(seen, expected(&publisher, 1..=80));
}

/// A gateway that has been slow has not read what its stream has.
#[tokio::test]
async fn an_id_that_a_quicker_gateway_has_sent_is_known_to_one_that_lags() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let mut publisher = Publisher::on(&server).await;
    publisher.publish(3).await;
    let mut lagging = NatsSubscription::new(publisher.stream.clone(), 10);
    let pages = lagging.pages();
    while !matches!(lagging.next().await, SubscriptionEvent::Connected(_)) {}
    publisher.publish(5).await;
    for (id, events, head) in [(6, 2, 8), (8, 0, 8), (9, 0, 8)] {
        let cursor = publisher.id(id).parse::<Cursor>().unwrap();
        let page = pages.read(PageStart::After(&cursor), 10, 1 << 20).await.unwrap();
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        assert_eq!(page["head"], publisher.id(head), "{id}: {page}");
        assert_eq!(page["events"].as_array().unwrap().len(), events, "{id}: {page}");
        assert_eq!(page["missed"], 0, "{id}: {page}");
    }
}

#[tokio::test]
async fn while_nats_is_away_clients_stay_and_then_continue_exactly() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let mut publisher = Publisher::on(&server).await;
    publisher.publish(5).await;
    let mut stack = stack(&server, 100);
    stack.start(Binary::Gateway).unwrap();
    stack.wait_serving().await.unwrap();
    let client = stack.subscribe(&format!("/news/stream?after={}", publisher.id(0)));
    wait_items(&client, 5).await;
    for pause in [false, true] {
        if pause {
            server.pause();
        } else {
            server.kill();
        }
        wait_for("the gateway says that NATS is away", SOON, async || {
            let (status, text) = http::fetch(&stack.gateway(), "/ready", SOON).await.ok()?;
            (status == 503 && text.contains("NATS")).then_some(())
        })
        .await
        .unwrap();
        assert_eq!(http::fetch(&stack.gateway(), "/health", SOON).await.unwrap().0, 200);
        if pause {
            server.resume();
        } else {
            server.restart().await.unwrap();
        }
        publisher.publish(5).await;
        let count = if pause { 15 } else { 10 };
        wait_items(&client, count).await;
    }
    assert_eq!(items(&client.records()), expected(&publisher, 1..=15));
    assert_eq!(client.connections().len(), 1, "it stayed connected: {}", client.summary());
    assert_eq!((client.count("gap"), client.count("stream")), (0, 1));
}

#[tokio::test]
async fn after_a_purge_or_a_new_stream_clients_are_told_reset_and_no_id_is_used_twice() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let mut publisher = Publisher::on(&server).await;
    publisher.publish(5).await;
    let mut stack = stack(&server, 100);
    stack.start(Binary::Gateway).unwrap();
    stack.wait_serving().await.unwrap();
    let client = stack.subscribe(&format!("/news/stream?after={}", publisher.id(0)));
    wait_items(&client, 5).await;
    let mut ids = items(&client.records());
    for is_deleted in [false, true] {
        let before = client.count("stream");
        if is_deleted {
            server.api().delete("newswire").await.unwrap();
            publisher.ensure().await;
        } else {
            server.api().purge("newswire").await.unwrap();
            let old = publisher.epoch.epoch.clone();
            assert!(publisher.stream.was_purged(&old).await.unwrap());
            publisher.epoch =
                publisher.stream.begin_epoch(&old, wire::nats::EpochChange::Purged).await.unwrap();
        }
        publisher.publish(5).await;
        wait_for("the client is told", SOON, async || (client.count("stream") > before).then_some(()))
            .await
            .unwrap();
        assert_eq!(opened(&client)["resume"], "reset");
        let newest = format!("story {}", publisher.published);
        wait_for("the newest item", SOON, async || {
            items(&client.records()).iter().any(|(_, title)| *title == newest).then_some(())
        })
        .await
        .unwrap();
        ids = items(&client.records());
    }
    let mut unique: Vec<_> = ids.iter().map(|(id, _)| id).collect();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
}

#[tokio::test]
async fn a_deleted_message_is_a_gap_of_one() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let mut publisher = Publisher::on(&server).await;
    publisher.publish(10).await;
    publisher.jetstream.get_stream("newswire").await.unwrap().delete_message(4).await.unwrap();
    // Both from the ring and from NATS.
    for ring in [100, 3] {
        let mut stack = stack(&server, ring);
        stack.start(Binary::Gateway).unwrap();
        stack.wait_serving().await.unwrap();
        let client = stack.subscribe(&format!("/news/stream?after={}", publisher.id(1)));
        wait_items(&client, 8).await;
        let gaps: Vec<_> = client.events("gap").iter().map(|gap| gap.json()["missed"].clone()).collect();
        assert_eq!(gaps, [1], "ring of {ring}: {}", client.summary());
        let told = items(&client.records());
        let expected: Vec<_> =
            expected(&publisher, 2..=10).into_iter().filter(|(_, title)| title != "story 4").collect();
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn an_acknowledged_event_that_the_server_lost_ends_the_epoch() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let mut publisher = Publisher::on(&server).await;
    publisher.publish(3).await;
    let copy = server.copy_data().unwrap();
    publisher.publish(4).await;
    let mut stack = stack(&server, 100);
    stack.start(Binary::Gateway).unwrap();
    stack.wait_serving().await.unwrap();
    let client = stack.subscribe(&format!("/news/stream?after={}", publisher.id(0)));
    wait_items(&client, 7).await;
    server.kill();
    server.put_back(&copy).unwrap();
    server.restart().await.unwrap();
    // A daemon that has not noticed publishes other events under numbers that were used.
    publisher.published = 100;
    publisher.publish(6).await;
    wait_for("the client is told", SOON, async || {
        (client.count("stream") > 1 && opened(&client)["resume"] == "reset").then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {}", client.summary()));
    wait_for("the newest item", SOON, async || {
        items(&client.records()).iter().any(|(_, title)| title == "story 106").then_some(())
    })
    .await
    .unwrap();
    let records = items(&client.records());
    let mut unique: Vec<_> = records.iter().map(|(id, _)| id).collect();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), records.len(), "{records:?}");
}
