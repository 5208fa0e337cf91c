//! What a daemon that takes over a source needs of it, in a real nats-server: it is read as it was written, with the events after
//! it, and only the daemon that wrote or read the last checkpoint of a source publishes the next one.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use async_nats::jetstream::{self, message::PublishMessage, stream::Config};
use bytes::Bytes;
use e2e::{NatsServer, nats_server_program};
use news::{Cursor, Event, EventKind, FeedUrl, Item, Seq, Source, SourceId, Timestamp};
use wire::nats::{
    CheckpointCounters, CheckpointOutcome, Checkpoints, EventMessage, EventStream, NatsConnection,
    NatsCredentials, NatsSettings, NewCheckpoint, StreamLimits, StreamProblem, SubjectNames,
};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const PUBLISHED: CheckpointOutcome = CheckpointOutcome::Published { too_large: Vec::new() };

async fn stream_of(server: &NatsServer) -> EventStream {
    let settings = NatsSettings {
        urls: vec![server.url()],
        names: SubjectNames::new("newswire"),
        credentials: NatsCredentials::default(),
        ca_file: None,
        replicas: 1,
        limits: StreamLimits { age: Duration::from_secs(36_000), events: 1_000_000, bytes: 1 << 30 },
        client: "test".to_owned(),
    };
    let connection = NatsConnection::open(settings).await.unwrap();
    let mut connections = connection.connections();
    tokio::time::timeout(LIMIT, connections.wait_for(|count| *count > 0)).await.unwrap().unwrap();
    EventStream::new(connection)
}

/// The checkpoints as a daemon of this name has them, and what it counts.
async fn checkpoints(server: &NatsServer, daemon: &str) -> (Checkpoints, Arc<CheckpointCounters>) {
    let (stream, counters) = (stream_of(server).await, Arc::<CheckpointCounters>::default());
    stream.ensure().await.unwrap();
    let checkpoints = Checkpoints::new(stream, daemon, Arc::clone(&counters));
    checkpoints.prepare().await.unwrap();
    (checkpoints, counters)
}

fn checkpoint(state: &'static str, seen: Option<&'static str>, through: Option<Cursor>) -> NewCheckpoint {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    NewCheckpoint { source: "a-b".to_owned(), through, state: bytes(state), seen: seen.map(bytes) }
}

/// Publishes items of the source `a-b`, as the daemon `log` does.
async fn publish_items(server: &NatsServer, log: &str, keys: std::ops::Range<u64>) {
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let epoch = stream_of(server).await.look().await.unwrap().0.epoch;
    let (url, id) =
        (FeedUrl::try_new("https://example.org/feed").unwrap(), SourceId::try_new("a-b").unwrap());
    let source = Source::new(id, url);
    for n in keys {
        let origin: Cursor = format!("{log}-{n}").parse().unwrap();
        let item = Item { key: format!("key {n}"), ..Item::default() };
        let event = Event::new(origin.clone(), EventKind::Item, &source, Timestamp::from_millis(0), item);
        let message = EventMessage::from_log(origin, EventKind::Item, &event.to_json()).unwrap();
        let subject = message.subject(&SubjectNames::new("newswire")).unwrap();
        let message = PublishMessage::build()
            .payload(message.json_without_id.clone())
            .header("Nats-Msg-Id", message.message_id(&epoch).as_str())
            .header("Newswire-Origin", message.origin.to_string().as_str())
            .header("Newswire-Kind", "item");
        context.send_publish(subject, message).await.unwrap().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_a_source_reads_what_was_written_and_the_events_after_it() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let (one, _) = checkpoints(&server, "one").await;
    let nothing = one.read("a-b", "general").await.unwrap();
    assert_eq!((nothing.state, nothing.seen, nothing.end.seq), (None, None, Seq(0)));
    publish_items(&server, "one", 1..4).await;
    let through = Cursor { seq: Seq(3), ..nothing.end };
    let written = checkpoint("{\"next\":1}", Some("seen\0set"), Some(through.clone()));
    assert_eq!(one.publish(written).await.unwrap(), PUBLISHED);
    publish_items(&server, "one", 4..6).await;

    let (two, counters) = checkpoints(&server, "two").await;
    let read = two.read("a-b", "general").await.unwrap();
    let (state, seen) = (read.state.unwrap(), read.seen.unwrap());
    assert_eq!((&*state.bytes, &*state.writer), (&b"{\"next\":1}"[..], "one"));
    assert_eq!(
        (&*seen.bytes, &*seen.writer, seen.through),
        (&b"seen\0set"[..], "one", Some(through.clone()))
    );
    let events: Vec<_> = read
        .events
        .iter()
        .map(|later| (later.sequence, later.origin.to_string(), later.event.item.key.as_str()))
        .collect();
    assert_eq!(events, [(4, "one-4".to_owned(), "key 4"), (5, "one-5".to_owned(), "key 5")]);
    assert_eq!(read.events[1].event.id, read.end, "the id that clients see");
    assert_eq!((read.end.seq, read.is_cut, counters.events_read.load(Relaxed)), (Seq(5), false, 2));

    // The seen set is as it was; what it does not know is read, although the state knows it.
    let through = Cursor { seq: Seq(5), ..through };
    assert_eq!(two.publish(checkpoint("{\"next\":2}", None, Some(through))).await.unwrap(), PUBLISHED);
    let (three, _) = checkpoints(&server, "three").await;
    let read = three.read("a-b", "general").await.unwrap();
    assert_eq!((read.state.unwrap().writer, read.seen.unwrap().writer), ("two".to_owned(), "one".to_owned()));
    assert_eq!(read.events.len(), 2);
    let of_another_epoch = Cursor { epoch: "other-1".parse::<Cursor>().unwrap().epoch, seq: Seq(5) };
    let written = checkpoint("{}", Some("seen"), Some(of_another_epoch));
    assert_eq!(three.publish(written).await.unwrap(), PUBLISHED);
    let read = three.read("a-b", "general").await.unwrap();
    assert_eq!(read.events.len(), 5, "a number under another epoch says nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_that_had_a_source_before_is_refused_and_the_one_that_has_it_is_not() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let (old, refused) = checkpoints(&server, "old").await;
    old.read("a-b", "general").await.unwrap();
    for state in ["1", "2"] {
        assert_eq!(old.publish(checkpoint(state, Some("seen"), None)).await.unwrap(), PUBLISHED);
    }
    let (new, _) = checkpoints(&server, "new").await;
    new.read("a-b", "general").await.unwrap();
    assert_eq!(new.publish(checkpoint("3", Some("seen 3"), None)).await.unwrap(), PUBLISHED);

    let by_new = CheckpointOutcome::OwnedByAnother { writer: Some("new".to_owned()) };
    assert_eq!(old.publish(checkpoint("late", Some("late"), None)).await.unwrap(), by_new);
    assert_eq!(old.publish(checkpoint("late", None, None)).await.unwrap(), by_new);
    assert_eq!(refused.fenced.load(Relaxed), 2);
    let (unread, _) = checkpoints(&server, "unread").await;
    assert_eq!(unread.publish(checkpoint("late", None, None)).await.unwrap(), by_new, "it has read nothing");
    let read = new.read("a-b", "general").await.unwrap();
    assert_eq!((&*read.state.unwrap().bytes, &*read.seen.unwrap().bytes), (&b"3"[..], &b"seen 3"[..]));

    // The same daemon after a restart; it has not written down which message its last one was.
    let (again, _) = checkpoints(&server, "new").await;
    assert_eq!(again.publish(checkpoint("4", Some("seen 4"), None)).await.unwrap(), PUBLISHED);
    // The old one has it again.
    old.read("a-b", "general").await.unwrap();
    assert_eq!(old.publish(checkpoint("5", None, None)).await.unwrap(), PUBLISHED);
    let by_old = CheckpointOutcome::OwnedByAnother { writer: Some("old".to_owned()) };
    assert_eq!(again.publish(checkpoint("late", None, None)).await.unwrap(), by_old);
    again.forget("a-b");
    assert_eq!(again.publish(checkpoint("late", None, None)).await.unwrap(), by_old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_too_large_is_said_and_the_rest_is_published() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "max_payload: 64KB").await.unwrap();
    let (daemon, counters) = checkpoints(&server, "one").await;
    daemon.read("a-b", "general").await.unwrap();
    let seen = Bytes::from(vec![1; 65_500]);
    let written = NewCheckpoint { seen: Some(seen), ..checkpoint("state", None, None) };
    let too_large = vec![("seen", 65_500)];
    assert_eq!(daemon.publish(written).await.unwrap(), CheckpointOutcome::Published { too_large });
    assert_eq!(counters.too_large.load(Relaxed), 1);
    let read = daemon.read("a-b", "general").await.unwrap();
    assert_eq!((read.state.unwrap().bytes, read.seen), (Bytes::from_static(b"state"), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_it_is_tried_again_and_a_stream_that_would_lose_checkpoints_is_refused() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let wrong = Config {
        name: "newswire-checkpoints".to_owned(),
        subjects: vec!["newswire.checkpoints.>".to_owned()],
        max_messages_per_subject: 1,
        max_bytes: 1 << 20,
        ..Config::default()
    };
    context.create_stream(wrong).await.unwrap();
    let stream = stream_of(&server).await;
    stream.ensure().await.unwrap();
    let daemon = Checkpoints::new(stream, "one", Arc::default());
    let Err(StreamProblem::DoesNotFit { stream, complaints }) = daemon.prepare().await else { panic!() };
    assert_eq!((&*stream, complaints.len()), ("newswire-checkpoints", 1));
    context.delete_stream("newswire-checkpoints").await.unwrap();
    assert_eq!(daemon.prepare().await.unwrap(), [""; 0]);
    let made = context.get_stream("newswire-checkpoints").await.unwrap().cached_info().config.clone();
    assert_eq!((made.max_messages_per_subject, made.max_bytes, made.allow_direct), (1, -1, true));

    daemon.read("a-b", "general").await.unwrap();
    server.kill();
    assert!(daemon.read("a-b", "general").await.is_err());
    assert!(daemon.publish(checkpoint("1", Some("1"), None)).await.is_err());
    server.restart().await.unwrap();
    // The first attempt may have been stored.
    e2e::wait_for("the checkpoint is published", LIMIT, async || {
        let outcome = daemon.publish(checkpoint("2", Some("2"), None)).await.ok()?;
        (outcome == PUBLISHED).then_some(())
    })
    .await
    .unwrap();
    let read = daemon.read("a-b", "general").await.unwrap();
    assert_eq!((&*read.state.unwrap().bytes, &*read.seen.unwrap().bytes), (&b"2"[..], &b"2"[..]));
}
