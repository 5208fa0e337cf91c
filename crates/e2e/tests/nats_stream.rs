//! The stream in NATS and its epoch, against a real server.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::time::Duration;

use async_nats::jetstream;
use e2e::{
    NatsCluster, NatsNetwork, NatsPath, NatsServer, PathState, free_address, nats_server_program,
    old_nats_server_program, wait_for,
};
use wire::nats::{
    EpochChange, EventStream, NatsConnection, NatsCredentials, NatsSettings, NatsSurvey, StreamLimits,
    StreamProblem, SubjectNames, SurveyProblemKind,
};

/// Only a fault reaches it.
const SOON: Duration = Duration::from_secs(120);

async fn stream_on(server: &NatsServer) -> EventStream {
    stream_at(vec![server.url()], 1).await
}

async fn stream_at(urls: Vec<String>, replicas: usize) -> EventStream {
    let settings = NatsSettings {
        urls,
        names: SubjectNames::new("newswire"),
        credentials: NatsCredentials::default(),
        ca_file: None,
        replicas,
        limits: StreamLimits { age: Duration::from_secs(3600), events: 1000, bytes: 1 << 30 },
        client: "test".to_owned(),
    };
    let connection = NatsConnection::open(settings).await.unwrap();
    let mut connections = connection.connections();
    tokio::time::timeout(Duration::from_secs(60), connections.wait_for(|count| *count > 0))
        .await
        .unwrap()
        .unwrap();
    EventStream::new(connection)
}

async fn publish(server: &NatsServer, count: usize) {
    let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    for _ in 0..count {
        jetstream.publish("newswire.events.general.bbc", "{}".into()).await.unwrap().await.unwrap();
    }
}

async fn purge(server: &NatsServer) {
    let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    jetstream.get_stream("newswire").await.unwrap().purge().await.unwrap();
}

async fn delete(server: &NatsServer) {
    let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    jetstream.delete_stream("newswire").await.unwrap();
}

#[tokio::test]
async fn a_stream_has_one_epoch_for_all_and_another_one_after_it_was_made_anew() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let stream = stream_on(&server).await;
    assert!(matches!(stream.look().await, Err(StreamProblem::NoStream(_))), "a gateway makes nothing");
    let others = [stream_on(&server).await, stream_on(&server).await];
    let (first, second, third) = tokio::join!(stream.ensure(), others[0].ensure(), others[1].ensure());
    let (first, state, differences) = first.unwrap();
    assert_eq!((second.unwrap().0, third.unwrap().0), (first.clone(), first.clone()), "all agree");
    assert_eq!((state.first, state.last, differences), (1, 0, vec![]));
    publish(&server, 3).await;
    server.kill();
    server.restart().await.unwrap();
    let stream = stream_on(&server).await;
    let (again, state) = stream.look().await.unwrap();
    assert_eq!((&again.epoch, state.last), (&first.epoch, 3), "a restart keeps the epoch");

    delete(&server).await;
    assert!(matches!(stream.look().await, Err(StreamProblem::NoStream(_))));
    let (anew, state, _) = stream.ensure().await.unwrap();
    assert_ne!(anew.epoch, first.epoch);
    assert_eq!((anew.reason, state.last), (EpochChange::NewStream, 0));
}

#[tokio::test]
async fn a_purge_is_noticed_and_a_new_epoch_is_begun_once_however_many_notice_it() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let stream = stream_on(&server).await;
    let (first, ..) = stream.ensure().await.unwrap();
    publish(&server, 3).await;
    assert!(!stream.was_purged(&first.epoch).await.unwrap());
    let watching = stream.clone();
    let epoch = first.epoch.clone();
    let mut changed = tokio::spawn(async move { watching.epoch_changed(&epoch).await });
    purge(&server).await;
    assert!(stream.was_purged(&first.epoch).await.unwrap());
    assert!(!changed.is_finished());
    let (one, other) = tokio::join!(
        stream.begin_epoch(&first.epoch, EpochChange::Purged),
        stream.begin_epoch(&first.epoch, EpochChange::Purged),
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((&one, one.reason), (&other, EpochChange::Purged));
    assert_ne!(one.epoch, first.epoch);
    tokio::time::timeout(Duration::from_secs(60), &mut changed).await.unwrap().unwrap().unwrap();
    assert!(!stream.was_purged(&one.epoch).await.unwrap(), "the new epoch begins after the purge");
    let (_, state) = stream.look().await.unwrap();
    assert_eq!((state.first, state.last), (4, 3), "numbers go on");
}

#[tokio::test]
async fn a_stream_that_does_not_fit_is_refused_and_other_limits_are_told() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let config = jetstream::stream::Config {
        name: "newswire".to_owned(),
        subjects: vec!["news.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let stream = stream_on(&server).await;
    let Err(StreamProblem::DoesNotFit { complaints, .. }) = stream.ensure().await else { panic!("refused") };
    assert_eq!(complaints.len(), 3, "{complaints:?}");

    jetstream.delete_stream("newswire").await.unwrap();
    let config = jetstream::stream::Config {
        name: "newswire".to_owned(),
        subjects: vec!["newswire.events.>".to_owned()],
        allow_direct: true,
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let (_, _, differences) = stream.ensure().await.unwrap();
    assert_eq!(differences.len(), 3, "{differences:?}");
    assert!(differences[0].contains("nats stream edit newswire --max-age 3600s"), "{differences:?}");
}

#[tokio::test]
async fn a_nats_server_that_is_too_old_is_refused_in_one_line_with_the_remedy() {
    let Some(program) = old_nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let stream = stream_on(&server).await;
    let Err(StreamProblem::WrongServer(text)) = stream.ensure().await else { panic!("refused") };
    assert!(text.contains("nats-server 2.9.10 is too old") && text.contains("upgrade"), "{text}");
    assert!(!text.contains('\n'), "{text}");
    assert!(server.api().stream("newswire").await.is_err(), "nothing was made");
}

#[tokio::test]
async fn a_stream_on_three_servers_outlives_any_of_them_with_its_files() {
    let Some(program) = nats_server_program() else { return };
    let mut cluster = NatsCluster::start(&program).await.unwrap();
    let stream = stream_at(cluster.urls(), 3).await;
    let (epoch, ..) = wait_for("the stream", SOON, async || stream.ensure().await.ok()).await.unwrap();
    cluster.wait_replicated("newswire").await.unwrap();
    let leader = cluster.leader_of("newswire").await.unwrap();
    publish(cluster.server(leader), 5).await;
    cluster.server_mut(leader).kill();
    assert_ne!(cluster.leader_of("newswire").await.unwrap(), leader);
    let (now, state) = wait_for("an answer", SOON, async || stream.look().await.ok()).await.unwrap();
    assert_eq!((now, state.last), (epoch.clone(), 5));
    cluster.server(leader).lose_data().unwrap();
    cluster.restart_all().await.unwrap();
    cluster.wait_replicated("newswire").await.unwrap();
    let leader = cluster.leader_of("newswire").await.unwrap();
    let starved = cluster.server(leader).starve(Duration::from_millis(200), Duration::from_millis(50));
    wait_for("an answer of a slow server", SOON, async || stream.look().await.ok()).await.unwrap();
    drop(starved);
    let copies = cluster.copy_data().unwrap();
    publish(cluster.server(cluster.leader_of("newswire").await.unwrap()), 5).await;
    cluster.kill_all();
    for (number, copy) in copies.iter().enumerate() {
        cluster.server(number).put_back(copy).unwrap();
    }
    cluster.restart_all().await.unwrap();
    cluster.leader_of("newswire").await.unwrap();
    let (now, state) = wait_for("an answer", SOON, async || stream.look().await.ok()).await.unwrap();
    assert_eq!((now, state.last), (epoch, 5), "what was confirmed since the copy is lost");
}

#[tokio::test]
async fn a_stream_behind_a_path_that_stalls_or_is_cut_comes_back_with_the_path() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let path = NatsPath::start(&[server.address()]).await.unwrap();
    let stream = stream_at(vec![format!("nats://{}", path.addresses()[0])], 1).await;
    stream.ensure().await.unwrap();
    for state in [PathState::Stalled, PathState::Cut] {
        path.set(state);
        stream.look().await.unwrap_err();
        path.set(PathState::Open);
        wait_for("an answer", SOON, async || stream.look().await.ok()).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_behind_a_cable_comes_back_with_the_cable() {
    let Some(program) = nats_server_program() else { return };
    let Some(network) = NatsNetwork::create().unwrap() else { return };
    let _server = NatsServer::spawn_in(&program, &network).unwrap();
    let url = |link| vec![format!("nats://{}:4222", network.address(link))];
    let streams = [stream_at(url(0), 1).await, stream_at(url(1), 1).await];
    streams[0].ensure().await.unwrap();
    network.cut(0).unwrap();
    streams[0].look().await.unwrap_err();
    streams[1].look().await.unwrap();
    network.mend(0).unwrap();
    wait_for("an answer", SOON, async || streams[0].look().await.ok()).await.unwrap();
}

#[tokio::test]
async fn a_survey_tells_each_server_the_stream_its_readers_and_how_far_daemons_have_published() {
    let Some(program) = nats_server_program() else { return };
    let monitor = free_address().unwrap();
    let server =
        NatsServer::start(&program, &format!("max_payload: 2MB\nhttp: \"{monitor}\"")).await.unwrap();
    let stream = stream_on(&server).await;
    let settings = stream.connection().settings().clone();
    let silent = "nats://127.0.0.1:1".to_owned();
    let settings = NatsSettings { urls: vec![silent.clone(), server.url()], ..settings };
    let monitors = [format!("http://{monitor}"), "http://u:secret@127.0.0.1:1".to_owned()];
    let before = NatsSurvey::take(&settings, &monitors).await.unwrap();
    assert_eq!(before.problem.unwrap().kind, SurveyProblemKind::NoStream);
    assert!(before.stream.is_none());

    let (epoch, ..) = stream.ensure().await.unwrap();
    publish(&server, 3).await;
    let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let config = jetstream::consumer::pull::Config {
        name: Some("reader".to_owned()),
        description: Some("a gateway".to_owned()),
        ..Default::default()
    };
    jetstream.get_stream("newswire").await.unwrap().create_consumer(config).await.unwrap();
    let bucket = jetstream.get_key_value("newswire-state").await.unwrap();
    bucket.put("outbox.k3v9q2", r#"{"through":17}"#.into()).await.unwrap();
    let record = r#"{"daemon":"k3v9q2","machine":"a","since":"s","list":"1f","listed":9,"visited":4}"#;
    bucket.put("member.main.k3v9q2", record.into()).await.unwrap();
    let table = r#"{"members":["k3v9q2"],"owners":{"k3v9q2":"0-999","gone":"1000-1499"}}"#;
    bucket.put("shards.main", table.into()).await.unwrap();
    let survey = NatsSurvey::take(&settings, &monitors).await.unwrap();
    assert!(survey.problem.is_none(), "{:?}", survey.problem);
    assert_eq!(survey.epoch, Some(epoch));
    let [dead, alive] = &survey.servers[..] else { panic!("{:?}", survey.servers) };
    assert!(dead.url == silent && dead.error.is_some() && dead.version.is_none(), "{dead:?}");
    assert!(alive.error.is_none() && alive.answered_ms.is_some() && !alive.is_too_old, "{alive:?}");
    assert_eq!(alive.payload_bytes_max, Some(2 * 1024 * 1024));
    let surveyed = survey.stream.unwrap();
    assert_eq!((surveyed.last, surveyed.messages, surveyed.replicas), (3, 3, 1));
    let [reader] = &survey.readers[..] else { panic!("{:?}", survey.readers) };
    assert_eq!((reader.behind, reader.description.as_deref()), (3, Some("a gateway")));
    let [outbox] = &survey.outboxes[..] else { panic!("{:?}", survey.outboxes) };
    assert_eq!((outbox.daemon.as_str(), outbox.through), ("k3v9q2", 17));
    let [group] = &survey.groups[..] else { panic!("{:?}", survey.groups) };
    assert_eq!((group.name.as_str(), group.free), ("main", 2596));
    let members: Vec<_> = group.members.iter().map(|m| (m.daemon.as_str(), m.shards, m.is_live())).collect();
    assert_eq!(members, [("k3v9q2", 1000, true), ("gone", 500, false)]);
    let [monitored, silent] = &survey.monitored[..] else { panic!("{:?}", survey.monitored) };
    assert_eq!((monitored.sync_interval_ms, monitored.last), (Some(120_000), Some(3)), "{monitored:?}");
    assert_eq!(monitored.version, alive.version);
    assert!(
        monitored.disk_bytes_reserved >= Some(1 << 30) && monitored.disk_bytes_max > Some(0),
        "{monitored:?}"
    );
    assert!(monitored.error.is_none() && monitored.disk_bytes > Some(0), "{monitored:?}");
    assert!(silent.error.is_some() && silent.url == "http://***@127.0.0.1:1", "{silent:?}");
}
