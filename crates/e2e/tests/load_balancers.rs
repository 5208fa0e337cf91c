//! The shipped configurations of nginx and HAProxy in front of two gateways: one is taken out, comes back, and the other one
//! dies, and the clients, which move, lose nothing.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use e2e::{
    BalancerKind, Binary, ChildProcess, LoadBalancer, Origin, ReverseProxy, TestStack, TestSubscriber,
    faults, free_address,
    http::{self, Address},
    on_path,
    scenario::{self, FeedPublisher},
    wait_for,
};
use rustix::process::Signal;

const HOST: &str = ReverseProxy::HOST;
/// A page of this origin may read.
const READER: &str = "https://pages.example";
/// Only a fault reaches it.
const SOON: Duration = Duration::from_secs(120);
const CLIENTS: usize = 24;
const FEEDS: usize = 3;

/// Open streams of a gateway.
async fn clients_of(gateway: &Address) -> Option<u64> {
    let (_, body) = http::fetch(gateway, "/health", Duration::from_secs(5)).await.ok()?;
    serde_json::from_str::<serde_json::Value>(&body).ok()?["clients"].as_u64()
}

async fn wait_ready(gateway: &Address) -> anyhow::Result<()> {
    wait_for("a gateway to be ready", SOON, async || {
        http::fetch(gateway, "/ready", SOON).await.ok().filter(|(status, _)| *status == 200).map(|_| ())
    })
    .await
}

/// The second gateway beside a stack's own one.
struct Second {
    listen: std::net::SocketAddr,
}

impl Second {
    fn start(&self, stack: &TestStack) -> anyhow::Result<ChildProcess> {
        let changes = [
            ("gateway.listen", &*format!("\"{}\"", self.listen)),
            ("gateway.admin_dir", &*format!("{:?}", stack.path("second").display().to_string())),
        ];
        stack.start_extra(Binary::Gateway, "second.toml", &changes)
    }
}

fn subscribe(balancer: &LoadBalancer, count: usize) -> Vec<TestSubscriber> {
    let start = |_| TestSubscriber::start(balancer.plain().into(), "/news/stream?snapshot=0&kinds=item");
    (0..count).map(start).collect()
}

async fn wait_cursors(clients: &[TestSubscriber]) -> anyhow::Result<()> {
    wait_for("every client's first block", SOON, async || {
        clients.iter().all(|client| !client.last_event_id().is_empty()).then_some(())
    })
    .await
}

async fn check_balancer(kind: BalancerKind) -> anyhow::Result<()> {
    let origin = Arc::new(Origin::start().await?);
    let mut stack = TestStack::new(&scenario::feeds(&origin, FEEDS))?;
    stack.set("gateway.hosts", &format!("[{HOST:?}]"));
    stack.set("gateway.trusted_proxies", "[\"127.0.0.1\"]");
    stack.set("gateway.drain", "\"2s\"");
    stack.start_both().await?;
    let second = Second { listen: free_address()? };
    let mut second_process = second.start(&stack)?;
    let Address::Tcp(first) = stack.gateway() else { unreachable!("it listens on TCP") };
    let gateways: [Address; 2] = [first.into(), second.listen.into()];
    wait_ready(&gateways[1]).await?;
    let started = LoadBalancer::start(kind, stack.path("balancer"), [first, second.listen], READER).await?;
    let Some(balancer) = started else { return Ok(()) };

    let mut clients = subscribe(&balancer, CLIENTS);
    wait_cursors(&clients).await?;
    for gateway in &gateways {
        let count = clients_of(gateway).await.context("a gateway answers")?;
        anyhow::ensure!(count >= CLIENTS as u64 / 4, "{kind:?}: {gateway:?} has {count} of {CLIENTS}");
    }
    let publisher = FeedPublisher::start(Arc::clone(&origin), FEEDS);

    // One is taken out.
    balancer.take_out(1)?;
    second_process.signal(Signal::TERM)?;
    second_process.wait_exit(SOON).await?;
    wait_for("all clients at the first gateway", SOON, async || {
        (clients_of(&gateways[0]).await? == CLIENTS as u64).then_some(())
    })
    .await?;

    // It comes back, and gets the next clients.
    second_process = second.start(&stack)?;
    wait_ready(&gateways[1]).await?;
    balancer.put_in()?;
    let mut late = Vec::new();
    wait_for("a client at the second gateway", SOON, async || {
        late.extend(subscribe(&balancer, 1));
        tokio::time::sleep(Duration::from_millis(200)).await;
        clients_of(&gateways[1]).await.filter(|count| *count > 0).map(|_| ())
    })
    .await?;
    drop(late);

    // The other one dies.
    stack.kill(Binary::Gateway)?;
    wait_for("all clients at the second gateway", SOON, async || {
        clients_of(&gateways[1]).await.filter(|count| *count >= CLIENTS as u64).map(|_| ())
    })
    .await?;
    publisher.stop().await;
    let published = origin.published();
    let total: usize = published.values().map(Vec::len).sum();
    let complete = wait_for("all items at all clients", SOON, async || {
        clients.iter().all(|client| client.count("item") >= total).then_some(())
    })
    .await;
    for client in &clients {
        let faults = faults(&published, &client.records());
        anyhow::ensure!(
            faults.is_empty(),
            "{kind:?}: {faults:#?}\n{}\n{}",
            client.summary(),
            balancer.logs()
        );
        anyhow::ensure!(client.closed().is_none(), "{kind:?}: {}", client.summary());
        anyhow::ensure!(client.connections().len() > 1, "each has moved: {}", client.summary());
    }
    complete?;
    clients.clear();
    check_tls(kind, &balancer).await?;
    second_process.kill();
    check_while_down(&balancer).await
}

/// HTTP/2 over TLS, with the routes that the file closes.
async fn check_tls(kind: BalancerKind, balancer: &LoadBalancer) -> anyhow::Result<()> {
    let Some(curl) = on_path("curl") else { return Ok(()) };
    for (path, expected) in [("/health", "200 2"), ("/metrics", "404 2")] {
        let (port, ip) = (balancer.tls().port(), balancer.tls().ip());
        let output = tokio::process::Command::new(&curl)
            .args(["-sS", "--noproxy", "*", "--http2", "--max-time", "60", "-o", "/dev/null"])
            .args([
                "-w",
                "%{http_code} %{http_version}",
                "--resolve",
                &format!("{HOST}:{port}:{ip}"),
                "--cacert",
            ])
            .arg(balancer.folder().join("cert.pem"))
            .arg(format!("https://{HOST}:{port}{path}"))
            .output()
            .await?;
        let (answer, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(answer == expected, "{kind:?} {path}: {answer} {error}");
    }
    Ok(())
}

/// No gateway is left: a browser is told to retry, and keeps its id.
async fn check_while_down(balancer: &LoadBalancer) -> anyhow::Result<()> {
    for (reader, expected) in [(READER, Some(READER)), ("https://evil.example", None)] {
        let headers = [("Last-Event-ID", "e-7"), ("Origin", reader), ("Accept", "text/event-stream")];
        let answer = http::get(&balancer.plain().into(), "/news/stream", &headers).await?;
        let header = |name: &str| answer.header(name).map(str::to_owned);
        anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, balancer.logs());
        anyhow::ensure!(header("content-type").as_deref() == Some("text/event-stream"));
        anyhow::ensure!(header("access-control-allow-origin").as_deref() == expected);
        anyhow::ensure!(header("vary").as_deref() == Some("Origin"));
        let text = answer.text().await?;
        anyhow::ensure!(text == "retry: 5000\nid: e-7\n\n", "{text:?}");
    }
    let (status, _) = http::fetch(&balancer.plain().into(), "/health", SOON).await?;
    anyhow::ensure!(status == 502 || status == 503, "{status}");
    Ok(())
}

/// Without the daemon no gateway is ready; those that are alive go on taking clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy_gateways_that_are_all_not_ready_take_clients_all_the_same() {
    let origin = Arc::new(Origin::start().await.unwrap());
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    stack.set("gateway.hosts", &format!("[{HOST:?}]"));
    origin.publish("feed-0", "Something");
    stack.start_both().await.unwrap();
    let second = Second { listen: free_address().unwrap() };
    let mut second_process = second.start(&stack).unwrap();
    wait_ready(&second.listen.into()).await.unwrap();
    let Address::Tcp(first) = stack.gateway() else { unreachable!("it listens on TCP") };
    let gateways = [first, second.listen];
    let started =
        LoadBalancer::start(BalancerKind::HaProxy, stack.path("balancer"), gateways, READER).await.unwrap();
    let Some(balancer) = started else { return };
    stack.kill(Binary::Ingestd).unwrap();
    let is = |server: &str, state: &str| balancer.state_of(server).is_some_and(|now| now.starts_with(state));
    wait_for("HAProxy to notice that no gateway is ready", SOON, async || {
        let ready = ["newswire/a", "newswire/b", "newswire_streams/a", "newswire_streams/b"];
        let alive = ["alive/a", "newswire/a-alive", "newswire_streams/b-alive"];
        (ready.iter().all(|server| is(server, "DOWN")) && alive.iter().all(|server| is(server, "UP")))
            .then_some(())
    })
    .await
    .unwrap();
    let clients = subscribe(&balancer, 4);
    wait_cursors(&clients).await.unwrap();
    let (status, _) = http::fetch(&balancer.plain().into(), "/news", SOON).await.unwrap();
    assert_eq!(status, 200, "{}", balancer.logs());
    drop(clients);
    second_process.kill();
    stack.kill(Binary::Gateway).unwrap();
    wait_for("HAProxy to notice that no gateway is left", SOON, async || {
        ["alive/a", "alive/b"].iter().all(|server| is(server, "DOWN")).then_some(())
    })
    .await
    .unwrap();
    check_while_down(&balancer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_a_gateway_is_taken_out_and_its_clients_move_and_lose_nothing() {
    check_balancer(BalancerKind::Nginx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy_a_gateway_is_taken_out_and_its_clients_move_and_lose_nothing() {
    check_balancer(BalancerKind::HaProxy).await.unwrap();
}
