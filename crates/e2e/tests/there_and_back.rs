//! An installation moves from the local wire to NATS and back, by one key of its configuration: its clients miss nothing and get
//! nothing twice, and ids that would not be exact are told as reset.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{collections::BTreeSet, fs, time::Duration};

use e2e::{
    Binary, DocumentFormat, NatsServer, Origin, TestSource, TestStack, TestSubscriber, Transport, http,
    nats_server_program, wait_for,
};
use serde_json::Value;

/// Only a fault reaches it.
const SOON: Duration = Duration::from_secs(120);

/// Feeds whose items come in turn.
const FEEDS: usize = 5;

/// An installation on the local wire that knows of a NATS server; its sources are `NAME-0` and up.
fn installation(server: &NatsServer, origin: &Origin, name: &str) -> TestStack {
    let sources = (0..FEEDS).map(|number| {
        let id = format!("{name}-{number}");
        TestSource::new(&id, origin.add_feed(&id, DocumentFormat::of(number)))
    });
    let mut stack = TestStack::with_transport(&sources.collect::<Vec<_>>(), &Transport::Local).unwrap();
    stack.set("wire.transport", "\"local\"");
    stack.set("wire.nats_urls", &format!("[\"{}\"]", server.url()));
    stack.set("store.retention_bytes", "67108864");
    stack
}

/// As an operator does it: stop, change the key, start.
async fn switch(stack: &mut TestStack, transport: &str) {
    stop(stack).await;
    start_on(stack, transport).await;
}

async fn stop(stack: &mut TestStack) {
    for program in [Binary::Gateway, Binary::Ingestd] {
        let (status, _) = stack.terminate(program, SOON).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

async fn start_on(stack: &mut TestStack, transport: &str) {
    stack.set("wire.transport", &format!("\"{transport}\""));
    stack.start_both().await.unwrap();
}

/// Publishes items and waits until a client has them.
async fn publish(origin: &Origin, name: &str, client: &TestSubscriber, count: usize) {
    let expected = client.count("item") + count;
    for n in 0..count {
        origin.publish(&format!("{name}-{}", n % FEEDS), &format!("item {n}"));
    }
    wait_items(client, expected).await;
}

async fn wait_items(client: &TestSubscriber, count: usize) {
    wait_for("the items", SOON, async || (client.count("item") >= count).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", client.summary()));
}

/// The items of a client: id and guid, in the order in which they came.
fn items(client: &TestSubscriber) -> Vec<(String, String)> {
    let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let items = client.events("item").into_iter().map(|record| record.json());
    items.map(|item| (text(&item, "id"), text(&item, "guid"))).collect()
}

fn resumes(client: &TestSubscriber) -> Vec<String> {
    client.events("stream").iter().map(|r| r.json()["resume"].as_str().unwrap().to_owned()).collect()
}

/// What a client is told that comes with this id, and the guids of the items that follow up to now.
async fn come_with(stack: &TestStack, id: &str) -> (String, Vec<String>) {
    let client = stack.subscribe(&format!("/news/stream?after={id}"));
    client.wait_event("live", SOON, |_| true).await.unwrap();
    let guids = items(&client).into_iter().map(|(_, guid)| guid).collect();
    (resumes(&client)[0].clone(), guids)
}

/// Clients come with ids that another one was given, and are told exact and get what follows, or are told reset; returns how
/// many of how many were told exact.
async fn come_with_each(stack: &TestStack, all: &[(String, String)], ids: &[&str]) -> (usize, usize) {
    let mut exact = 0;
    for id in ids {
        let (resume, guids) = come_with(stack, id).await;
        let position = all.iter().position(|(known, _)| known == id).unwrap();
        let expected: BTreeSet<_> = all[position + 1..].iter().map(|(_, guid)| guid.as_str()).collect();
        match resume.as_str() {
            "exact" => {
                let unique: BTreeSet<_> = guids.iter().map(String::as_str).collect();
                assert_eq!(guids.len(), unique.len(), "{id}: some are doubled");
                assert_eq!(unique, expected, "{id}");
                exact += 1;
            }
            "reset" => {}
            other => panic!("{id}: {other}"),
        }
    }
    (exact, ids.len())
}

fn every_tenth(all: &[(String, String)]) -> Vec<&str> {
    all.iter().step_by(10).map(|(id, _)| id.as_str()).collect()
}

/// Most of them: what is on its way for a quarter of a second, on a busy machine, may get out of order.
fn assert_most((exact, of): (usize, usize), what: &str) {
    assert!(exact * 10 >= of * 7, "{exact} of {of} {what} were told exact");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_goes_to_nats_and_back_and_no_client_misses_an_item_or_gets_one_twice() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let origin = Origin::start().await.unwrap();
    let mut stack = installation(&server, &origin, "feed");
    stack.start_both().await.unwrap();
    let clients: Vec<_> = (0..4).map(|_| stack.subscribe("/news/stream?snapshot=0")).collect();
    for client in &clients {
        client.wait_event("live", SOON, |_| true).await.unwrap();
    }
    publish(&origin, "feed", &clients[0], 200).await;
    let moves = [("nats", 100), ("local", 30), ("nats", 30), ("local", 10)];
    for (moved, (transport, more)) in moves.into_iter().enumerate() {
        let all = items(&clients[0]);
        for client in &clients {
            wait_items(client, all.len()).await;
        }
        stop(&mut stack).await;
        if transport == "local" {
            // It is not needed any more.
            server.kill();
        } else if moved > 0 {
            server.restart().await.unwrap();
        }
        start_on(&mut stack, transport).await;
        for client in &clients {
            wait_for("the client is back", SOON, async || {
                (client.count("stream") >= moved + 2).then_some(())
            })
            .await
            .unwrap_or_else(|error| panic!("{error}: {}", client.summary()));
            assert_eq!(resumes(client).last().unwrap(), "exact", "{transport}: {}", client.summary());
        }
        let with_old_ids = come_with_each(&stack, &all, &every_tenth(&all)).await;
        assert_most(with_old_ids, &format!("old ids on {transport}"));
        check_page(&stack, &all).await;
        publish(&origin, "feed", &clients[0], more).await;
    }
    let published: BTreeSet<_> = origin.published().into_values().flatten().collect();
    for client in &clients {
        wait_items(client, published.len()).await;
        let guids: Vec<_> = items(client).into_iter().map(|(_, guid)| guid).collect();
        assert_eq!(guids.len(), published.len(), "{}", client.summary());
        assert_eq!(guids.into_iter().collect::<BTreeSet<_>>(), published);
        assert_eq!(client.count("gap"), 0);
    }
}

/// Pages take ids of the other wire as well.
async fn check_page(stack: &TestStack, all: &[(String, String)]) {
    // The newest one always has a place.
    let (id, _) = all.last().unwrap();
    let (status, text) = http::fetch(&stack.gateway(), &format!("/news?after={id}"), SOON).await.unwrap();
    assert_eq!(status, 200, "{text}");
    let page: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["missed"]), (0, &0.into()), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_another_daemon_has_published_or_the_ids_are_lost_a_client_is_told_reset() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let (origin, other_origin) = (Origin::start().await.unwrap(), Origin::start().await.unwrap());
    let mut stack = installation(&server, &origin, "feed");
    let mut other = installation(&server, &other_origin, "other");
    let mut histories = Vec::new();
    for (stack, origin, name) in [(&mut stack, &origin, "feed"), (&mut other, &other_origin, "other")] {
        stack.start_both().await.unwrap();
        let client = stack.subscribe("/news/stream?snapshot=0");
        client.wait_event("live", SOON, |_| true).await.unwrap();
        publish(origin, name, &client, 20).await;
        histories.push(items(&client));
    }
    switch(&mut stack, "nats").await;
    let client = stack.subscribe(&format!("/news/stream?after={}", histories[0][0].0));
    wait_items(&client, 19).await;
    assert_eq!(resumes(&client), ["exact"]);
    switch(&mut other, "nats").await;
    wait_items(&client, 39).await;
    publish(&origin, "feed", &client, 10).await;

    let (resume, guids) = come_with(&stack, &histories[0][4].0).await;
    assert_eq!((resume.as_str(), guids.len()), ("exact", 15 + 20 + 10), "nothing of others was before it");
    for (what, id) in [("of the second daemon", &histories[1][4].0), ("of no log", &"nolog-5".to_owned())] {
        let (resume, _) = come_with(&stack, id).await;
        assert_eq!(resume, "reset", "an id {what}");
    }

    let all = items(&client);
    let newest = all.last().unwrap().0.clone();
    let before_the_other = &all[3].0;
    switch(&mut stack, "local").await;
    let (resume, _) = come_with(&stack, &newest).await;
    assert_eq!(resume, "reset", "events of the other daemon are up to it");
    let (resume, guids) = come_with(&stack, before_the_other).await;
    assert_eq!((resume.as_str(), guids.len()), ("exact", 15 + 10), "what follows in the log");
    stop(&mut stack).await;
    fs::remove_file(stack.path("data/nats-ids")).unwrap();
    stack.start_both().await.unwrap();
    let (resume, _) = come_with(&stack, before_the_other).await;
    assert_eq!(resume, "reset", "nothing says what it stands for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_purge_ids_of_the_stream_are_reset_and_those_of_the_log_are_exact_again() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let origin = Origin::start().await.unwrap();
    let mut stack = installation(&server, &origin, "feed");
    stack.start_both().await.unwrap();
    let client = stack.subscribe("/news/stream?snapshot=0");
    client.wait_event("live", SOON, |_| true).await.unwrap();
    publish(&origin, "feed", &client, 20).await;
    let local = items(&client);
    drop(client);
    switch(&mut stack, "nats").await;
    let client = stack.subscribe(&format!("/news/stream?after={}", local[9].0));
    wait_items(&client, 10).await;
    let before = items(&client);
    server.api().purge("newswire").await.unwrap();
    wait_for("the client is told", SOON, async || (client.count("stream") > 1).then_some(())).await.unwrap();
    assert_eq!(resumes(&client)[1], "reset");
    let (resume, guids) = come_with(&stack, &local[9].0).await;
    let expected: Vec<_> = local[10..].iter().map(|(_, guid)| guid.clone()).collect();
    assert_eq!((resume.as_str(), &guids), ("exact", &expected), "the log was published anew");
    let (resume, _) = come_with(&stack, &before[3].0).await;
    assert_eq!(resume, "reset", "the stream of this id is gone");
}
