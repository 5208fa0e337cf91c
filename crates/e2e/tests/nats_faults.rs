//! Every fault of `scripts/torture --nats` once, on a small scale, in three tests that run side by side; and cables that are pulled out.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use e2e::{
    Binary, FaultRow, NatsFault, NatsNetwork, NatsRun, NatsRunSize, NatsServer, Origin, TestStack, Transport,
    faults, http, log_line, nats_server_program,
    scenario::{self, FeedPublisher},
    wait_for,
};

/// Only a fault reaches it.
const SOON: Duration = Duration::from_secs(180);

async fn strike(chosen: impl Fn(NatsFault) -> bool) {
    if nats_server_program().is_none() {
        return;
    }
    let mut run = NatsRun::start(NatsRunSize::brief()).await.unwrap();
    let mut wrong = Vec::new();
    log_line(FaultRow::HEAD);
    for fault in NatsFault::ALL.into_iter().filter(|fault| chosen(*fault)) {
        let row = run.row(fault).await.unwrap();
        log_line(&row.to_string());
        wrong.extend(row.faults.into_iter().map(|text| format!("{fault}: {text}")));
    }
    if !wrong.is_empty() {
        run.show_logs();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_servers_of_nats_no_client_loses_or_doubles_an_item() {
    strike(NatsFault::is_of_servers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_stream_the_network_or_our_programs_resets_come_where_promised_and_nothing_is_lost()
 {
    strike(|fault| !fault.is_of_servers() && !fault.moves_sources()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_daemon_is_gone_asleep_or_new_its_sources_are_visited_by_another_one_politely_and_published_once()
 {
    strike(NatsFault::moves_sources).await;
}

/// One network for the daemon, one for the gateway; each loses all packets for longer than a connection is silent.
async fn pull_cables() -> anyhow::Result<()> {
    const FEEDS: usize = 3;
    let Some(program) = nats_server_program() else { return Ok(()) };
    let Some(network) = NatsNetwork::create()? else { return Ok(()) };
    let server = NatsServer::spawn_in(&program, &network)?;
    let origin = Arc::new(Origin::start().await?);
    let sources = scenario::feeds(&origin, FEEDS);
    let through = |link| Transport::Nats(format!("[\"nats://{}:4222\"]", network.address(link)));
    let mut daemon = TestStack::with_transport(&sources, &through(0))?;
    let mut gateway = TestStack::with_transport(&[], &through(1))?;
    gateway.set("gateway.heartbeat", "\"2s\"");
    daemon.start(Binary::Ingestd)?;
    gateway.start(Binary::Gateway)?;
    gateway.wait_ready().await?;
    let client = gateway.subscribe("/news/stream?snapshot=0&kinds=item");
    wait_for("a cursor", SOON, async || (!client.last_event_id().is_empty()).then_some(())).await?;

    for link in [0, 1] {
        let publisher = FeedPublisher::start(Arc::clone(&origin), FEEDS);
        wait_for("items", SOON, async || (client.count("item") > 0).then_some(())).await?;
        network.cut(link)?;
        wait_for("a gateway that says so", SOON, async || {
            let answer = http::fetch(&gateway.gateway(), "/ready", Duration::from_secs(5)).await;
            answer.ok().filter(|(status, _)| *status == 503)
        })
        .await
        .with_context(|| format!("link {link}"))?;
        network.mend(link)?;
        gateway.wait_ready().await.with_context(|| format!("link {link}"))?;
        publisher.stop().await;
    }
    let published = origin.published();
    let total: usize = published.values().map(Vec::len).sum();
    let complete = wait_for("all items", SOON, async || (client.count("item") >= total).then_some(())).await;
    let faults = faults(&published, &client.records());
    anyhow::ensure!(faults.is_empty(), "{faults:#?} {}", client.summary());
    anyhow::ensure!(client.connections().len() == 1, "it stayed connected: {}", client.summary());
    drop(server);
    complete
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_daemons_or_the_gateways_cable_to_nats_pulled_out_clients_stay_and_lose_nothing() {
    pull_cables().await.unwrap();
}
