//! What one address may use, from outside: requests, connections, and whose address it is.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests may block")]

#[path = "support/harness.rs"]
mod harness;

use std::time::Duration;

use harness::{Gateway, TIMEOUT};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// So many requests at once; how many of them were answered with each status.
async fn statuses(gateway: &Gateway, path: &str, headers: &str, requests: usize) -> Vec<u16> {
    let mut found = Vec::new();
    for _ in 0..requests {
        found.push(status(&gateway.ask("GET", path, headers).await));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_the_budget_of_an_address_are_told_when_to_come_back() {
    let gateway = Gateway::start(|config| config.gateway.requests_per_address = Some(1)).await;
    for path in ["/news", "/", "/sources", "/nothing", "/websub/0123456789abcdef0123456789abcdef"] {
        let headers = format!("x-forwarded-for: 192.0.2.1\r\norigin: https://{}.example\r\n", path.len());
        statuses(&gateway, path, &headers, 4).await;
    }
    let refused = gateway.ask("GET", "/news", "").await;
    assert_eq!(status(&refused), 429, "{refused}");
    assert!(refused.contains("\"code\":\"too-many-requests\""), "{refused}");
    let wait = refused.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((1..=2).contains(&wait.parse::<u64>().unwrap()), "{wait}");
    assert_eq!(status(&gateway.ask("POST", "/websub/0123456789abcdef0123456789abcdef", "").await), 429);
    let preflight = gateway.ask("OPTIONS", "/news", "").await;
    assert_eq!(status(&preflight), 204, "or a page would never see the 429: {preflight}");
    let stream = gateway.ask("GET", "/news/stream", "").await;
    assert!(stream.starts_with("HTTP/1.1 200") && stream.contains("\r\n\r\nretry: "), "{stream}");
    assert!(statuses(&gateway, "/health", "", 50).await.iter().all(|status| *status == 200));

    tokio::time::sleep(Duration::from_millis(2100)).await;
    let metrics = gateway.ask("GET", "/metrics", "").await;
    for line in [
        "newswire_gateway_requests_refused_total{reason=\"requests_per_address\"} ",
        "newswire_gateway_streams_refused_total{reason=\"requests_per_address\"} 1",
    ] {
        assert!(metrics.contains(line) && !metrics.contains(&format!("{line}0\n")), "{line}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_that_of_the_client_and_not_of_its_proxy() {
    let gateway = Gateway::start(|config| {
        config.gateway.requests_per_address = Some(1);
        config.gateway.trusted_proxies = vec!["127.0.0.1/32".to_owned()];
    })
    .await;
    let requests = 40;
    for client in
        ["9.9.9.9", "9.9.9.8:51000", "[2001:db8::1]:443", "\"[2001:db8:0:1::1]\"", "2001:db8:0:2::1"]
    {
        let headers = format!("x-forwarded-for: 1.2.3.4\r\nx-forwarded-for: {client}, 127.0.0.1\r\n");
        let found = statuses(&gateway, "/news", &headers, requests).await;
        let served = found.iter().filter(|status| **status != 429).count();
        assert!((16..requests).contains(&served), "{client}: {found:?}");
    }
    let port = "x-forwarded-for: 9.9.9.9:52000\r\n";
    assert_eq!(status(&gateway.ask("GET", "/news", port).await), 429, "another port is the same client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_at_the_ipv6_loopback_is_trusted() {
    let gateway = Gateway::start(|config| {
        config.gateway.listen = format!("[::1]:{}", config.gateway.listen.port()).parse().unwrap();
        config.gateway.clients_per_address_max = 2;
        config.gateway.connections_per_address = Some(3);
        config.gateway.requests_per_address = Some(0);
        config.gateway.trusted_proxies = vec!["::1/128".to_owned()];
    })
    .await;
    let mut open = Vec::new();
    for n in 0..8 {
        open.push(gateway.stream("", &format!("x-forwarded-for: 9.9.9.{n}\r\n")).await);
    }
    gateway.until_clients(8, TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_48_gets_as_many_streams_as_eight_addresses_and_others_are_served() {
    let gateway = Gateway::start(|config| {
        config.gateway.clients_per_address_max = 2;
        config.gateway.requests_per_address = Some(0);
        config.gateway.trusted_proxies = vec!["127.0.0.1/32".to_owned()];
    })
    .await;
    let mut open = Vec::new();
    for n in 0..40 {
        open.push(gateway.stream("", &format!("x-forwarded-for: 2001:db8:7:{n:x}::1\r\n")).await);
    }
    gateway.until_clients(16, TIMEOUT).await;
    open.push(gateway.stream("", "x-forwarded-for: 2001:db8:8::1\r\n").await);
    gateway.until_clients(17, TIMEOUT).await;
    let line = "newswire_gateway_streams_refused_total{reason=\"addresses_per_network\"}";
    assert_eq!(gateway.number(line).await, 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_of_an_address_are_closed_at_once() {
    // No connection may end by itself meanwhile.
    let limits = newswire_gateway::Limits { head: Duration::from_secs(120), ..Default::default() };
    let gateway = Gateway::within(limits, |config| config.gateway.connections_per_address = Some(10)).await;
    let mut open = Vec::new();
    while open.len() < 10 {
        let mut connection = TcpStream::connect(gateway.address).await.unwrap();
        // The connection with which the harness has seen that the gateway is up may still count.
        if timeout(Duration::from_millis(500), connection.read(&mut [0])).await.is_err() {
            open.push(connection);
        }
    }
    // The connect may fail already.
    if let Ok(mut refused) = TcpStream::connect(gateway.address).await {
        let read = timeout(TIMEOUT, refused.read(&mut [0])).await.expect("closed at once");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    drop(open);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let line = "newswire_gateway_connections_cut_total{reason=\"connections_per_address\"}";
    assert!(gateway.number(line).await >= 1);
}

/// Set in the network namespace that the test makes for itself.
const NAMESPACE: &str = "NEWSWIRE_TEST_NAMESPACE";
/// Gives the loopback an address in each of 40 networks of one /48, and one of another /48, and runs the arguments.
const WITH_ADDRESSES: &str = r#"ip link set lo up && ip addr add 2001:db8:8::1/128 dev lo &&
n=0; while [ $n -lt 40 ]; do ip addr add "2001:db8:7:$n::1/128" dev lo || exit 77; n=$((n + 1)); done; exec "$@""#;

/// A stream of a client with this address.
async fn stream_from(gateway: &Gateway, address: &str) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v6().unwrap();
    socket.bind(format!("[{address}]:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(gateway.address).await.unwrap();
    stream.write_all(b"GET /news/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    // The head of the answer, unless the connection was refused.
    stream.read_u8().await.ok();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_48_of_real_addresses_gets_as_much_as_eight_of_them() {
    if std::env::var_os(NAMESPACE).is_none() {
        let inside = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new("unshare");
            command.args(["-rn", "sh", "-c", WITH_ADDRESSES, "sh", program]).args(arguments);
            command.env(NAMESPACE, "1").output()
        };
        if !inside("true", &[]).is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: real IPv6 addresses need a network namespace (unshare -rn) and ip");
            return;
        }
        let name = "a_48_of_real_addresses_gets_as_much_as_eight_of_them";
        let this = std::env::current_exe().unwrap();
        let output = inside(this.to_str().unwrap(), &["--exact", name, "--nocapture"]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
        return;
    }
    let gateway = Gateway::start(|config| {
        config.gateway.listen = format!("[::1]:{}", config.gateway.listen.port()).parse().unwrap();
        config.gateway.clients_per_address_max = 2;
        config.gateway.connections_per_address = Some(3);
        config.gateway.requests_per_address = Some(0);
    })
    .await;
    let mut open = Vec::new();
    for n in 0..40 {
        open.push(stream_from(&gateway, &format!("2001:db8:7:{n}::1")).await);
    }
    gateway.until_clients(16, TIMEOUT).await;
    // So that connections of theirs stay open without a stream.
    let mut idle = Vec::new();
    for n in 0..40 {
        let socket = tokio::net::TcpSocket::new_v6().unwrap();
        socket.bind(format!("[2001:db8:7:{n}::1]:0").parse().unwrap()).unwrap();
        idle.push(socket.connect(gateway.address).await);
    }
    open.push(stream_from(&gateway, "2001:db8:8::1").await);
    gateway.until_clients(17, TIMEOUT).await;
    let refused = "newswire_gateway_streams_refused_total{reason=\"addresses_per_network\"}";
    assert_eq!(gateway.number(refused).await, 24);
    let cut = "newswire_gateway_connections_cut_total{reason=\"addresses_per_network\"}";
    assert!(gateway.number(cut).await >= 16, "of 24 connections 16 are streams");
}
