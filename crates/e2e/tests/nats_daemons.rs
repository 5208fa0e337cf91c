//! One gateway and two daemons that it reaches over NATS only: what it shows of both, and what it asks of them.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, time::Duration};

use e2e::{
    Binary, NatsServer, Origin, TestStack, Transport, http, http::Address, nats_server_program, scenario,
    wait_for,
};
use serde_json::{Value, json};

/// Only a fault reaches it.
const SOON: Duration = Duration::from_secs(120);
const TOKEN: &str = "an-operator-token-long-enough";

async fn get(address: &Address, path: &str) -> Option<Value> {
    let (status, text) = http::fetch(address, path, SOON).await.ok()?;
    serde_json::from_str(&text).ok().filter(|_| status == 200)
}

/// The sources that a gateway shows, as soon as they are these.
async fn wait_for_sources(gateway: &Address, ids: &[&str]) -> Vec<Value> {
    wait_for(&format!("the sources are {ids:?}"), SOON, async || {
        let sources = get(gateway, "/sources").await?["sources"].as_array()?.clone();
        let shown: Vec<_> = sources.iter().filter_map(|source| source["id"].as_str()).collect();
        (shown == ids).then_some(sources)
    })
    .await
    .unwrap()
}

/// The values of the label `daemon` in the gateway's metrics.
async fn daemons_in_metrics(gateway: &Address) -> BTreeSet<String> {
    let text = http::fetch(gateway, "/metrics", SOON).await.map(|(_, text)| text).unwrap_or_default();
    let series = text.lines().filter(|line| line.starts_with("newswire_ingestd_log_head{"));
    series.filter_map(|line| Some(line.split("daemon=\"").nth(1)?.split('"').next()?.to_owned())).collect()
}

async fn refresh(gateway: &Address, sources: &[&str]) -> Value {
    let token = format!("Bearer {TOKEN}");
    let headers =
        [("Content-Type", "application/json"), ("Authorization", token.as_str()), ("Connection", "close")];
    let order = json!({ "sources": sources }).to_string();
    let answer = http::send("POST", gateway, "/news/refresh", &headers, &order).await.unwrap();
    let (status, text) = (answer.status, answer.text().await.unwrap());
    assert_eq!(status, 202, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn stack_on(server: &NatsServer) -> TestStack {
    let transport = Transport::Nats(format!("[\"{}\"]", server.url()));
    let mut stack = TestStack::with_transport(&[], &transport).unwrap();
    stack.set("store.retention_bytes", "67108864");
    stack.set("gateway.operator_token_file", &format!("{:?}", stack.path("operator").display().to_string()));
    fs::write(stack.path("operator"), TOKEN).unwrap();
    fs::set_permissions(stack.path("operator"), fs::Permissions::from_mode(0o600)).unwrap();
    stack
}

#[tokio::test]
async fn a_gateway_shows_and_asks_all_daemons_and_keeps_what_one_said_that_is_away() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let origin = Origin::start().await.unwrap();
    let mut feeds = scenario::feeds(&origin, 5);
    let (more, of_two, of_one) = (feeds.split_off(4), feeds.split_off(2), feeds);
    let (mut one, mut two) = (stack_on(&server), stack_on(&server));
    one.write_catalogue(&of_one).unwrap();
    two.write_catalogue(&of_two).unwrap();
    one.start(Binary::Ingestd).unwrap();
    two.start(Binary::Ingestd).unwrap();
    one.start(Binary::Gateway).unwrap();
    let gateway = one.gateway();
    wait_for_sources(&gateway, &["feed-0", "feed-1", "feed-2", "feed-3"]).await;

    // An event of each daemon, by the id that clients get and no daemon knows.
    for feed in ["feed-0", "feed-3"] {
        let guid = origin.publish(feed, "news");
        wait_for("the newest event of the source is the one of the stream", SOON, async || {
            let page = get(&gateway, &format!("/news?source={feed}&limit=1")).await?;
            let item = page["items"].get(0).or_else(|| page["events"].get(0))?.clone();
            let source = get(&gateway, &format!("/sources/{feed}")).await?;
            (item["guid"] == *guid && item["id"] == source["last_event"]).then_some(())
        })
        .await
        .unwrap();
    }

    let ordered = refresh(&gateway, &["feed-1", "feed-2", "nowhere"]).await;
    assert_eq!((&ordered["total"], &ordered["unknown"]), (&json!(2), &json!(["nowhere"])), "{ordered}");
    wait_for("the metrics name both daemons", SOON, async || {
        (daemons_in_metrics(&gateway).await.len() == 2).then_some(())
    })
    .await
    .unwrap();

    // The second one goes; the list is read anew, because the first one has another source.
    two.kill(Binary::Ingestd).unwrap();
    one.write_catalogue(&of_one.into_iter().chain(more).collect::<Vec<_>>()).unwrap();
    let reloaded = http::send("POST", &one.wire(), "/reload", &[("Connection", "close")], "").await.unwrap();
    assert_eq!(reloaded.status, 200);
    let sources = wait_for_sources(&gateway, &["feed-0", "feed-1", "feed-2", "feed-3", "feed-4"]).await;
    assert!(sources[3]["last_event"].is_string(), "what the second one said is still shown");
    wait_for("the only daemon has no name in the metrics", SOON, async || {
        let (_, text) = http::fetch(&gateway, "/metrics", SOON).await.ok()?;
        text.lines().any(|line| line.starts_with("newswire_ingestd_log_head ")).then_some(())
    })
    .await
    .unwrap();
    two.start(Binary::Ingestd).unwrap();
    wait_for("both daemons are back", SOON, async || {
        (daemons_in_metrics(&gateway).await.len() == 2).then_some(())
    })
    .await
    .unwrap();
}
