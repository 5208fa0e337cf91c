//! Every attack of the catalogue that concerns the gateway, by its number, over loopback: each test is the attack, and
//! its assertion the limit. (B27, one connection per browser, concerns the page only: its case is in
//! crates/e2e/tests/page.rs.)
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/program.rs"]
mod program;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use news::Item;
use newswire_gateway::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use harness::{Endpoint, FakeDaemon, Gateway, Serving, TIMEOUT, gateway_with};
use program::Program;

const SECOND: Duration = Duration::from_secs(1);
/// What a limit of a second or two ends is over within this time even on a busy machine; what no limit ends is not.
const IN_TIME: Duration = Duration::from_secs(20);
const TOKEN: &str = "a token of many characters";

/// A gateway with the test's own limits and settings, in front of a daemon.
async fn gateway_and_daemon(
    limits: Limits,
    change: impl FnOnce(&mut daemon::config::Config),
) -> (Gateway, FakeDaemon, Serving) {
    let gateway = Gateway::within(limits, change).await;
    let daemon = FakeDaemon::new("e");
    daemon.publish("a");
    let serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    (gateway, daemon, serving)
}

/// A program in front of a daemon.
async fn program(settings: &str, open_files: &str) -> (Program, FakeDaemon, Serving) {
    let program = Program::start(settings, open_files);
    let daemon = FakeDaemon::new("e");
    daemon.publish("a");
    let serving = daemon.serve(program.socket());
    program.endpoint.until_ready().await;
    (program, daemon, serving)
}

fn with_token(config: &mut daemon::config::Config) {
    let file = config.daemon.run_dir.join("token");
    std::fs::write(&file, TOKEN).unwrap();
    config.gateway.operator_token_file = Some(file);
}

/// Reads until the other side closes; returns what was received and how long that took.
async fn until_closed(stream: &mut TcpStream) -> (String, Duration) {
    let started = Instant::now();
    let mut came = Vec::new();
    // A reset is an end, too.
    timeout(TIMEOUT, stream.read_to_end(&mut came)).await.expect("it is closed").ok();
    (String::from_utf8_lossy(&came).into_owned(), started.elapsed())
}

/// Sends raw bytes on a separate connection; returns the answer, which is empty if the connection is closed at once.
async fn raw(endpoint: &Endpoint, bytes: &[u8]) -> String {
    let Ok(mut stream) = TcpStream::connect(endpoint.address).await else { return String::new() };
    stream.write_all(bytes).await.ok();
    until_closed(&mut stream).await.0
}

/// Until a request is answered, and not refused or cut.
async fn until_served(endpoint: &Endpoint) {
    while status(&raw(endpoint, b"GET /news HTTP/1.1\r\nhost: localhost\r\n\r\n").await) != 200 {
        sleep(Duration::from_millis(20)).await;
    }
}

fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|a| a.get(..3)?.parse().ok()).unwrap_or(0)
}

/// The value of a header.
fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test(flavor = "multi_thread")]
async fn b01_slow_heads_bodies_and_second_requests_are_closed_in_time() {
    // The other limits would end what these do not, but too late.
    let limits = Limits { head: SECOND, body: SECOND, connection: SECOND * 120, ..Limits::default() };
    let (gateway, _daemon, _serving) = gateway_and_daemon(limits, with_token).await;
    let connect = async || TcpStream::connect(gateway.address).await.unwrap();

    let mut silent = connect().await;
    let mut half = connect().await;
    half.write_all(b"GET /health HTTP/1.1\r\nhost: loc").await.unwrap();
    let mut second = connect().await;
    second.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut body = connect().await;
    let post = format!(
        "POST /news/refresh HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    body.write_all(post.as_bytes()).await.unwrap();
    let mut unasked = connect().await;
    unasked
        .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();

    let (silent, half, second, body, unasked) = tokio::join!(
        until_closed(&mut silent),
        until_closed(&mut half),
        until_closed(&mut second),
        until_closed(&mut body),
        until_closed(&mut unasked),
    );
    for (name, (_, took)) in
        [("silent", &silent), ("half", &half), ("second", &second), ("body", &body), ("unasked", &unasked)]
    {
        assert!(*took < IN_TIME, "{name}: {took:?}");
    }
    assert_eq!(status(&half.0), 408);
    assert_eq!(status(&second.0), 200);
    assert_eq!(header(&second.0, "connection"), Some("close"), "one request per connection");
    assert_eq!(status(&unasked.0), 200);
    assert_eq!(status(&body.0), 408, "{}", body.0);
    assert!(body.0.contains("\"code\":\"slow-body\""), "{}", body.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b01_a_large_body_is_refused_and_an_unauthorised_client_may_send_none() {
    let limits = Limits { body: SECOND * 120, ..Limits::default() };
    let (gateway, _daemon, _serving) = gateway_and_daemon(limits, with_token).await;
    let head = |who: &str, length: usize| {
        format!(
            "POST /news/refresh HTTP/1.1\r\nhost: localhost\r\n{who}content-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        )
    };
    let operator = format!("authorization: Bearer {TOKEN}\r\n");
    let large = [head(&operator, 16_385).into_bytes(), vec![b' '; 16_385]].concat();
    let answer = raw(&gateway, &large).await;
    assert_eq!(status(&answer), 413, "{answer}");
    assert!(answer.contains("\"code\":\"large-body\""), "{answer}");
    let started = Instant::now();
    let answer = raw(&gateway, head("", 1_000_000_000).as_bytes()).await;
    assert_eq!(status(&answer), 401, "the body is not waited for");
    assert!(started.elapsed() < IN_TIME);
}

#[tokio::test(flavor = "multi_thread")]
async fn b01_a_response_that_is_never_read_ends_with_the_connection() {
    let limits = Limits { connection: SECOND * 2, ..Limits::default() };
    let (gateway, daemon, _serving) = gateway_and_daemon(limits, |_| ()).await;
    daemon.publish_large(100, 20_000);
    let mut client = gateway.small_stream("").await;
    client.hello().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut lazy = socket.connect(gateway.address).await.unwrap();
    lazy.write_all(b"GET /news?limit=100 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let cut = async {
        while gateway.number("newswire_gateway_connections_cut_total{reason=\"deadline\"}").await == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, cut).await.expect("it is cut");
    assert!(until_closed(&mut lazy).await.0.len() < 1_000_000);
    assert_eq!(gateway.clients().await, 1, "a stream has no such deadline");
}

#[tokio::test(flavor = "multi_thread")]
async fn b02_clients_that_do_not_read_are_closed_in_time_and_the_others_are_not_affected() {
    let limits = Limits { unacknowledged: SECOND, ..Limits::default() };
    let (gateway, daemon, _serving) = gateway_and_daemon(limits, |_| ()).await;
    let mut healthy = gateway.stream("?snapshot=0", "").await;
    let mut stuck = Vec::new();
    for _ in 0..30 {
        stuck.push(gateway.small_stream("?snapshot=0").await);
    }
    gateway.until_clients(31, TIMEOUT).await;
    daemon.publish_large(200, 5_000);
    healthy.ids(200).await;
    let took = gateway.until_clients(1, IN_TIME).await;
    println!("stuck readers were gone after {took:?} with a limit of 1 s");
    daemon.publish("a");
    assert_eq!(healthy.ids(1).await, ["e-202"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b02_a_client_that_does_not_read_costs_little_memory() {
    const STUCK: usize = 200;
    let (program, daemon, _serving) = program("clients_per_address_max = 5000\nring_events = 500", "").await;
    let mut healthy = program.endpoint.stream("?snapshot=0", "").await;
    // The ring is full before we measure.
    for _ in 0..4 {
        daemon.publish_large(500, 1_000);
        healthy.ids(500).await;
    }
    let before = program.resident();
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        stuck.push(program.endpoint.small_stream("?snapshot=0").await);
    }
    program.endpoint.until_clients(STUCK + 1, TIMEOUT).await;
    for _ in 0..4 {
        daemon.publish_large(500, 1_000);
        healthy.ids(500).await;
    }
    let each = program.resident().saturating_sub(before) / STUCK;
    println!("a stuck reader takes {} KiB of the process", each / 1024);
    assert_eq!(program.endpoint.clients().await, STUCK + 1, "they were there all the time");
    // With twice what the kernel may hold for a socket, 192 KiB, that is below 0.3 MiB.
    assert!(each < 100 * 1024, "{each} bytes each");
}

/// Twenty bytes per second, until it is ended.
async fn read_drop_by_drop(mut client: harness::Client) {
    let mut byte = [0];
    while matches!(client.stream.read(&mut byte).await, Ok(1)) {
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_a_slow_reader_is_ended_and_neither_an_idle_nor_a_fast_one() {
    let limits = Limits { throughput_window: SECOND, ..Limits::default() };
    let (gateway, daemon, _serving) = gateway_and_daemon(limits, |_| ()).await;
    let mut fast = gateway.stream("?snapshot=0", "").await;
    let mut quiet = gateway.stream("?snapshot=0&source=idle", "").await;
    let drip = gateway.small_stream("?snapshot=0").await;
    gateway.until_clients(3, TIMEOUT).await;
    let dripping = tokio::spawn(read_drop_by_drop(drip));
    daemon.publish_large(200, 5_000);
    fast.ids(200).await;
    let took = gateway.until_clients(2, IN_TIME).await;
    println!("a drip reader was gone after {took:?} with windows of 1 s");
    assert_eq!(gateway.number("newswire_gateway_streams_ended_total{reason=\"slow\"}").await, 1);
    // The client may still read what its own kernel has buffered.
    dripping.abort();
    sleep(SECOND * 3).await;
    daemon.publish("idle");
    assert_eq!(quiet.ids(1).await, ["e-202"]);
    assert_eq!(fast.ids(1).await, ["e-202"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_as_shipped_a_stuck_client_is_gone_in_30_s_and_a_slow_reader_in_90_s() {
    let (gateway, daemon, _serving) = gateway_and_daemon(Limits::default(), |_| ()).await;
    let mut healthy = gateway.stream("?snapshot=0", "").await;
    let _stuck = gateway.small_stream("?snapshot=0").await;
    let drip = gateway.small_stream("?snapshot=0").await;
    gateway.until_clients(3, TIMEOUT).await;
    let dripping = tokio::spawn(read_drop_by_drop(drip));
    let started = Instant::now();
    daemon.publish_large(200, 5_000);
    healthy.ids(200).await;
    gateway.until_clients(2, SECOND * 60).await;
    let stuck_for = started.elapsed();
    gateway.until_clients(1, SECOND * 180).await;
    let dripped_for = started.elapsed();
    println!("the stuck reader was gone after {stuck_for:?}, the one that drips after {dripped_for:?}");
    // Twice the limits: without them, neither would ever be gone.
    assert!(stuck_for < SECOND * 60 && dripped_for < SECOND * 180, "{stuck_for:?} {dripped_for:?}");
    daemon.publish("a");
    assert_eq!(healthy.ids(1).await, ["e-202"]);
    dripping.abort();
}

/// How long an event takes to `client`.
async fn delivery(daemon: &FakeDaemon, client: &mut harness::Client) -> Duration {
    let started = Instant::now();
    daemon.publish_large(1, 2_000);
    client.ids(1).await;
    started.elapsed()
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() * 99 / 100 - 1]
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_stuck_clients_do_not_slow_the_others_down() {
    let (gateway, daemon, _serving) =
        gateway_and_daemon(Limits::default(), |config| config.gateway.clients_per_address_max = 200).await;
    let mut healthy = gateway.stream("?snapshot=0", "").await;
    // A twin whose clients all read, on the same machine at the same time.
    let (twin, twin_daemon, _twin_serving) = gateway_and_daemon(Limits::default(), |_| ()).await;
    let mut alone = twin.stream("?snapshot=0", "").await;
    let mut stuck = Vec::new();
    for _ in 0..100 {
        stuck.push(gateway.small_stream("?snapshot=0").await);
    }
    gateway.until_clients(101, TIMEOUT).await;
    daemon.publish_large(200, 5_000);
    healthy.ids(200).await;
    let mut took = (Vec::new(), Vec::new());
    for _ in 0..200 {
        took.0.push(delivery(&daemon, &mut healthy).await);
        took.1.push(delivery(&twin_daemon, &mut alone).await);
    }
    let (among, alone) = (p99(took.0), p99(took.1));
    println!("p99 alone {alone:?}, among 100 stuck clients {among:?}");
    assert!(among < alone * 2 + SECOND / 4, "{alone:?} became {among:?}");
    assert_eq!(gateway.clients().await, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_one_address_has_a_limited_number_of_streams() {
    let (gateway, daemon, _serving) =
        gateway_and_daemon(Limits::default(), |config| config.gateway.clients_per_address_max = 10).await;
    let mut inside = Vec::new();
    for _ in 0..10 {
        inside.push(gateway.stream("?snapshot=0", "").await);
    }
    for _ in 0..50 {
        let refused = gateway.ask("GET", "/news/stream", "").await;
        assert_eq!(status(&refused), 200, "{refused}");
        assert!(refused.contains("retry: ") && !refused.contains("event:"), "{refused}");
    }
    let line = "newswire_gateway_streams_refused_total{reason=\"clients_per_address_max\"}";
    assert_eq!(gateway.number(line).await, 50);
    daemon.publish("a");
    for client in &mut inside {
        assert_eq!(client.ids(1).await, ["e-2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_when_connections_run_out_routes_say_so_and_health_still_answers() {
    // 64 files: sixteen connections, of which the last two are for refusals.
    let (program, _daemon, _serving) = program("", "64").await;
    let mut idle = Vec::new();
    for _ in 0..14 {
        idle.push(TcpStream::connect(program.endpoint.address).await.unwrap());
    }
    let refused = program.endpoint.ask("GET", "/news", "").await;
    assert_eq!(status(&refused), 503, "{refused}");
    assert_eq!(header(&refused, "retry-after"), Some("5"));
    assert_eq!(header(&refused, "content-type"), Some("application/problem+json"));
    assert!(refused.contains("\"code\":\"overloaded\""), "{refused}");
    assert_eq!(status(&program.endpoint.ask("GET", "/health", "").await), 200);
    let stream = program.endpoint.ask("GET", "/news/stream", "").await;
    assert_eq!(status(&stream), 200);
    assert!(stream.contains("\r\n\r\nretry: "), "{stream}");
    drop(idle);
    let again = until_served(&program.endpoint);
    timeout(IN_TIME, again).await.expect("it recovers");
}

#[tokio::test(flavor = "multi_thread")]
async fn b06_at_the_limit_new_streams_are_refused_and_open_ones_stay() {
    let (gateway, daemon, _serving) =
        gateway_and_daemon(Limits::default(), |config| config.gateway.clients_max = 20).await;
    let mut inside = Vec::new();
    for _ in 0..20 {
        inside.push(gateway.stream("?snapshot=0", "").await);
    }
    let mut waits = BTreeSet::new();
    for _ in 0..100 {
        let refused = gateway.ask("GET", "/news/stream", "").await;
        let retry = refused.lines().find_map(|l| l.strip_prefix("retry: ")).unwrap();
        waits.insert(retry.parse::<u64>().unwrap());
    }
    assert!(waits.iter().all(|ms| (5_000..15_000).contains(ms)));
    assert!(waits.len() > 80, "they do not reconnect together");
    daemon.publish("a");
    for client in &mut inside {
        assert_eq!(client.ids(1).await, ["e-2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b07_a_forwarded_address_counts_only_from_our_proxies_and_from_the_right() {
    for trusted in [false, true] {
        let (gateway, _daemon, _serving) = gateway_and_daemon(Limits::default(), |config| {
            config.gateway.clients_per_address_max = 3;
            if trusted {
                config.gateway.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
            }
        })
        .await;
        let mut open = Vec::new();
        for n in 0..20 {
            // What the client writes itself is to the left of what the proxy adds.
            let forged = format!("x-forwarded-for: 198.51.100.{n}, 203.0.113.7\r\n");
            open.push(gateway.stream("?snapshot=0", &forged).await);
        }
        gateway.until_clients(3, TIMEOUT).await;
        let other = gateway.stream("?snapshot=0", "x-forwarded-for: 203.0.113.8\r\n").await;
        gateway.until_clients(if trusted { 4 } else { 3 }, TIMEOUT).await;
        drop((open, other));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_running_out_of_files_is_survived_without_spinning() {
    let (program, _daemon, _serving) = program("", "64").await;
    let mut clients = Vec::new();
    for _ in 0..120 {
        // One that is cut at once is part of the attack.
        let Ok(mut client) = TcpStream::connect(program.endpoint.address).await else { continue };
        client.write_all(b"GET /news/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.ok();
        clients.push(client);
    }
    sleep(SECOND / 2).await;
    let before = program.ticks();
    sleep(SECOND).await;
    let busy = program.ticks() - before;
    println!("busy for {busy} % of a second with 120 clients on 64 files, {} open", program.files());
    assert!(busy < 30, "it spins");
    drop(clients);
    let again = until_served(&program.endpoint);
    let started = Instant::now();
    timeout(IN_TIME, again).await.expect("it recovers");
    println!("it answers {:?} after they left", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_an_idle_client_costs_little_memory() {
    const IDLE: usize = 1_000;
    let (program, _daemon, _serving) = program("clients_per_address_max = 5000", "").await;
    let before = program.resident();
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(program.endpoint.stream("", "").await);
    }
    program.endpoint.until_clients(IDLE, TIMEOUT).await;
    let each = program.resident().saturating_sub(before) / IDLE;
    println!("an idle client takes {} bytes of the process", each);
    assert!(each < 32 * 1024, "{each} bytes each");
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_only_our_host_names_are_served_and_exactly_one() {
    let (gateway, _daemon, _serving) = gateway_and_daemon(Limits::default(), |config| {
        config.gateway.hosts = vec!["news.example".to_owned()]
    })
    .await;
    let status_for = async |hosts: &str| {
        let request = format!("GET /health HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        status(&raw(&gateway, request.as_bytes()).await)
    };
    for ours in [
        "localhost",
        "LOCALHOST:8700",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]:8700",
        "news.example",
        "News.Example:443",
    ] {
        assert_eq!(status_for(&format!("host: {ours}\r\n")).await, 200, "{ours}");
    }
    for foreign in [
        "evil.example",
        "localhost.evil.example",
        "news.example.evil",
        "evilnews.example",
        "127.0.0.1.evil.example",
        "127.0.0.2",
        "news.example.",
        "localhost:80:80",
        "user@localhost",
        "",
        "localhost,evil.example",
    ] {
        let status = status_for(&format!("host: {foreign}\r\n")).await;
        assert!(matches!(status, 400 | 421), "{foreign:?}: {status}");
    }
    for hosts in ["", "host: localhost\r\nhost: localhost\r\n", "host: localhost\r\nhost: evil.example\r\n"] {
        let status = status_for(hosts).await;
        assert!(matches!(status, 400 | 421), "{hosts:?}: {status}");
    }
}

/// Routes that are read, and one of each kind that is not there.
const PATHS: [&str; 14] = [
    "/",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/news",
    "/news/e-1",
    "/news/e-99",
    "/news/%00",
    "/sources",
    "/sources/unknown",
    "/categories",
    "/assets/app.js",
    "/nowhere",
];

#[tokio::test(flavor = "multi_thread")]
async fn b11_no_response_repeats_the_host_that_a_client_claims() {
    let gateway = Gateway::start(|config| config.gateway.listen.set_ip([0, 0, 0, 0].into())).await;
    let daemon = FakeDaemon::new("e");
    (0..3).for_each(|_| daemon.publish("a"));
    let _serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    for path in PATHS.into_iter().chain(["/news?limit=1", "/news?limit=zz"]) {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: evil.example\r\nx-forwarded-host: evil.example\r\n\
             forwarded: host=evil.example\r\nx-forwarded-proto: evil\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(matches!(status(&answer), 200 | 400 | 404), "{path}: {answer}");
        assert!(!answer.contains("evil"), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_an_origin_is_allowed_by_its_whole_name_or_not_at_all() {
    let ours = "https://reader.example";
    let (open, _d1, _s1) =
        gateway_and_daemon(Limits::default(), |c| c.gateway.cors_origins = vec![ours.to_owned()]).await;
    let (shut, _d2, _s2) = gateway_and_daemon(Limits::default(), |_| ()).await;
    let allowed = async |gateway: &Gateway, method: &str, path: &str, origin: &str| {
        let headers = format!("origin: {origin}\r\naccess-control-request-method: GET\r\n");
        let answer = gateway.ask(method, path, &headers).await;
        let exposed = header(&answer, "access-control-expose-headers");
        let is_allowed = header(&answer, "access-control-allow-origin").is_some();
        assert_eq!(exposed, is_allowed.then_some("ETag, Link, Retry-After"), "{answer}");
        assert!(!answer.contains("access-control-allow-credentials"), "{answer}");
        (header(&answer, "access-control-allow-origin").map(str::to_owned), answer)
    };
    for (method, path) in
        [("GET", "/health"), ("OPTIONS", "/news"), ("GET", "/nowhere"), ("HEAD", "/news/stream")]
    {
        let (origin, answer) = allowed(&open, method, path, ours).await;
        assert_eq!(origin.as_deref(), Some(ours), "{path}");
        assert!(answer.contains("Origin"), "the response varies by Origin: {answer}");
        assert_eq!(allowed(&shut, method, path, ours).await.0, None, "{path}: off unless configured");
    }
    for foreign in [
        "null",
        "*",
        "",
        "https://reader.example.evil",
        "https://evilreader.example",
        "https://evil.reader.example",
        "http://reader.example",
        "https://reader.example:8443",
        "https://reader.example/",
        "https://reader.example@evil",
        "https://reader.example, https://evil.example",
        "reader.example",
        "https://reader_example",
        "file://",
        "https://reader.exampl",
        "https://reader.example%00.evil",
        "https://reader.example#",
        " ",
        "https://*",
        "https://evil.example?https://reader.example",
    ] {
        let (origin, answer) = allowed(&open, "GET", "/health", foreign).await;
        assert_eq!(origin, None, "{foreign:?}");
        assert!(answer.contains("vary: Origin") || answer.contains("Origin"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_a_preflight_names_the_methods_of_the_route_and_the_headers_of_our_clients() {
    let (gateway, _daemon, _serving) = gateway_and_daemon(Limits::default(), |config| {
        config.gateway.cors_origins = vec!["https://reader.example".to_owned()];
    })
    .await;
    let ask = async |path: &str, origin: &str| {
        let headers = format!(
            "origin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: authorization,content-type\r\n"
        );
        gateway.ask("OPTIONS", path, &headers).await
    };
    let reads = "GET, HEAD, OPTIONS";
    for (path, methods) in [
        ("/news", reads),
        ("/news/e-1", reads),
        ("/news/stream", reads),
        ("/sources", reads),
        ("/health", reads),
        ("/nowhere", reads),
        ("/news/refresh", "POST, OPTIONS"),
    ] {
        let answer = ask(path, "https://reader.example").await;
        assert_eq!(status(&answer), 204, "{answer}");
        assert_eq!(header(&answer, "access-control-allow-methods"), Some(methods), "{path}");
        assert_eq!(header(&answer, "allow"), Some(methods), "{path}");
        let named = header(&answer, "access-control-allow-headers").unwrap();
        for name in ["If-None-Match", "Content-Type", "Authorization", "Last-Event-ID", "Cache-Control"] {
            assert!(named.split(", ").any(|one| one == name), "{name} of {path}: {named}");
        }
        assert!(header(&answer, "access-control-allow-credentials").is_none(), "{answer}");
        let foreign = ask(path, "https://evil.example").await;
        assert!(!foreign.contains("access-control-"), "{foreign}");
    }
    let hub = ask("/websub/abc", "https://reader.example").await;
    assert!(!hub.contains("access-control-"), "{hub}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_errors_are_readable_by_an_allowed_page_and_credentials_only_if_configured() {
    let origin = "origin: https://reader.example\r\n";
    for credentials in [false, true] {
        let gateway = Gateway::start(|config| {
            with_token(config);
            config.gateway.cors_origins = vec!["https://reader.example".to_owned()];
            config.gateway.cors_credentials = credentials;
        })
        .await;
        for (method, path, more, expected) in [
            ("GET", "/health", "", 200),
            ("HEAD", "/news/stream", "", 200),
            ("OPTIONS", "/news", "", 204),
            ("GET", "/news?limit=x", "", 400),
            ("GET", "/news?jwt=x", "", 400),
            ("POST", "/news/refresh", "content-length: 0\r\n", 401),
            ("GET", "/nowhere", "", 404),
            ("DELETE", "/news", "", 405),
            ("GET", "/news", "", 503),
            ("GET", "http://evil.example/news", "", 421),
        ] {
            let answer = gateway.ask(method, path, &format!("{origin}{more}")).await;
            assert_eq!(status(&answer), expected, "{method} {path}: {answer}");
            assert_eq!(
                header(&answer, "access-control-allow-origin"),
                Some("https://reader.example"),
                "{answer}"
            );
            let with = header(&answer, "access-control-allow-credentials");
            assert_eq!(with, credentials.then_some("true"), "{answer}");
            let varies = answer.lines().filter_map(|line| line.strip_prefix("vary: "));
            assert!(varies.flat_map(|names| names.split(", ")).any(|name| name == "Origin"), "{answer}");
            let foreign = gateway.ask(method, path, &format!("origin: https://evil.example\r\n{more}")).await;
            assert!(!foreign.contains("access-control-"), "{foreign}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b13_nothing_but_an_order_of_the_operator_changes_anything() {
    let (gateway, _daemon, _serving) = gateway_and_daemon(Limits::default(), with_token).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"] {
        for path in
            ["/", "/health", "/metrics", "/news", "/news/e-1", "/news/stream", "/sources", "/sources/a"]
        {
            let answer = gateway.ask(method, path, "content-length: 0\r\n").await;
            assert_eq!(status(&answer), 405, "{method} {path}: {answer}");
        }
    }
    // What a page of another origin can send without asking: no token, or no JSON.
    let order = "{\"sources\":[\"a\"]}";
    let length = order.len();
    for (kind, token, expected) in [
        ("text/plain", "", 401),
        ("application/x-www-form-urlencoded", "", 401),
        ("application/json", "", 401),
        ("text/plain", TOKEN, 400),
        ("multipart/form-data", TOKEN, 400),
        ("application/json", TOKEN, 202),
    ] {
        let headers = format!(
            "content-type: {kind}\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\
             origin: https://evil.example\r\nconnection: close"
        );
        let request = format!("POST /news/refresh HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n{order}");
        let answer = raw(&gateway, request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{kind} {token}: {answer}");
    }
}

/// Texts that try to be something other than text.
const NASTY: [&str; 10] = [
    "two\nlines",
    "\r\n\r\nevent: error\ndata: x\n\n",
    "x\r\nset-cookie: a=b\r\nlocation: https://evil.example/",
    "id: e-9999\n\nretry: 1\n",
    "\u{0}\u{1b}[31m\u{7f}\u{85}\u{9b}",
    "\u{2028}\u{2029}\u{feff}\u{202e}",
    ":comment\r: comment",
    "</script><script>alert(1)</script>",
    "\"}\n\ndata: {\"",
    "\u{10ffff}\u{fffd}",
];

/// What a browser makes of a stream: (name, data, id) of each event; follows the standard literally.
fn parse(stream: &str) -> Vec<(String, String, String)> {
    let (mut events, mut name, mut data, mut id) = (Vec::new(), String::new(), String::new(), String::new());
    let unified = stream.replace("\r\n", "\n").replace('\r', "\n");
    for line in unified.split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                if let Some(data) = data.strip_suffix('\n') {
                    events.push((name.clone(), data.to_owned(), id.clone()));
                }
                name.clear();
                data.clear();
            }
            "event" => value.clone_into(&mut name),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            _ => {}
        }
    }
    events
}

/// A body without its chunk sizes.
fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(line) = body.windows(2).position(|w| w == b"\r\n") {
        let Ok(size) = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16) else { break };
        let Some(chunk) = body.get(line + 2..line + 2 + size) else { break };
        whole.extend_from_slice(chunk);
        body = &body[line + 2 + size + 2..];
    }
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn b14_each_item_is_one_event_whatever_it_contains() {
    let (gateway, daemon, _serving) = gateway_and_daemon(Limits::default(), |_| ()).await;
    for nasty in NASTY {
        let text = || nasty.to_owned();
        let item = Item { title: text(), summary: text(), guid: Some(text()), ..Item::default() };
        daemon.publish_item("a", item);
    }
    let last = format!("e-{}", NASTY.len() + 1);
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client
        .write_all(b"GET /news/stream?after=e-1&kinds=item HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut came = Vec::new();
    let all = async {
        loop {
            client.read_buf(&mut came).await.unwrap();
            let Some(head) = came.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let events = parse(std::str::from_utf8(&unchunk(&came[head + 4..])).unwrap_or_default());
            if events.last().is_some_and(|(_, _, id)| *id == last) {
                return events;
            }
        }
    };
    let events = timeout(TIMEOUT, all).await.unwrap();
    assert_eq!(events[0].0, "stream");
    let events: Vec<_> = events.into_iter().filter(|(name, ..)| name != "live").collect();
    assert_eq!(events.len(), NASTY.len() + 1);
    for ((name, data, id), (nasty, seq)) in events[1..].iter().zip(NASTY.into_iter().zip(2..)) {
        let item: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!((name.as_str(), id), ("item", &format!("e-{seq}")));
        assert_eq!((&item["title"], &item["summary"]), (&nasty.into(), &nasty.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b15_no_text_of_a_feed_is_in_a_header() {
    let (gateway, daemon, _serving) = gateway_and_daemon(Limits::default(), |_| ()).await;
    let expected: BTreeSet<_> = header_names(&gateway.ask("GET", "/news/e-1", "").await);
    for (nasty, seq) in NASTY.into_iter().zip(2..) {
        daemon.publish_item(
            "a",
            Item { title: nasty.to_owned(), link: Some(nasty.to_owned()), ..Item::default() },
        );
        let path = format!("/news/e-{seq}");
        let there = async {
            while status(&gateway.ask("GET", &path, "").await) != 200 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, there).await.unwrap();
        assert_eq!(header_names(&gateway.ask("GET", &path, "").await), expected, "{nasty:?}");
    }
    for path in ["/news", "/sources"] {
        assert_eq!(header(&gateway.ask("GET", path, "").await, "set-cookie"), None);
    }
}

fn header_names(answer: &str) -> BTreeSet<String> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    head.lines().skip(1).map(|line| line.split(':').next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn b16_an_odd_id_is_a_reset_and_never_an_error_or_a_wait() {
    let (gateway, _daemon, _serving) = gateway_with(5).await;
    let long = ["e-1".repeat(30), "e".repeat(60_000), format!("e-{}", "9".repeat(5_000))];
    let texts = [
        "-",
        "e",
        "e-",
        "-1",
        "e--1",
        "e-+1",
        "e-0x1",
        "e-1e3",
        "e-1.0",
        "e-1 2",
        "e-01x",
        "e-99",
        "e-18446744073709551615",
        "e-18446744073709551616",
        "e-99999999999999999999999999",
        "E-1",
        "f-1",
        "f-0",
        "ee-1",
        "e-1-1",
        "e-1;e-2",
        "e-1, e-2",
        "null",
        "undefined",
        "NaN",
        "[object Object]",
        "../e-1",
        "e-1%00",
        "e-%31",
        "\u{e9}-1",
        "e-\u{661}",
        "\"e-1\"",
        "{}",
        "<script>",
        "' or 1=1",
        "e-1\t2",
    ];
    let started = Instant::now();
    let ids: Vec<&[u8]> =
        texts.iter().map(|t| t.as_bytes()).chain(long.iter().map(String::as_bytes)).collect();
    for id in ids.into_iter().chain([&b"\xff\xfe-1"[..], b"e-\xc3\x28"]) {
        let shown = String::from_utf8_lossy(&id[..id.len().min(40)]).into_owned();
        let request =
            [b"GET /news/stream HTTP/1.1\r\nhost: localhost\r\nlast-event-id: ", id, b"\r\n\r\n"].concat();
        let mut client = harness::Client { stream: gateway.send_bytes(&request).await };
        assert_eq!(client.line().await.as_deref(), Some("HTTP/1.1 200 OK"), "{shown}");
        assert_eq!(client.hello().await["resume"], "reset", "{shown}");
        assert_eq!(client.ids(1).await, ["e-1"], "{shown}: it starts as one that came with none");
    }
    let each = started.elapsed() / 41;
    // A wait for the daemon would be one of seconds.
    assert!(each < SECOND, "{each:?} each");
}

#[tokio::test(flavor = "multi_thread")]
async fn b17_many_full_replays_cost_the_daemon_a_few_pages_at_a_time() {
    let (gateway, daemon, _serving) =
        gateway_and_daemon(Limits::default(), |config| config.gateway.ring_events = 10).await;
    (0..999).for_each(|_| daemon.publish("a"));
    let mut newest = gateway.stream("?after=e-1", "").await;
    newest.ids(999).await;
    let all: Vec<_> = (2..=1000).map(|n| format!("e-{n}")).collect();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let endpoint = gateway.endpoint;
        asking.spawn(async move { endpoint.stream("?after=e-1", "").await.ids(999).await });
    }
    while let Some(ids) = asking.join_next().await {
        assert_eq!(ids.unwrap(), all, "every client gets every event once");
    }
    let most = daemon.pages.1.load(Relaxed);
    assert!((1..=8).contains(&most), "{most} pages at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn b18_a_client_that_connects_while_events_are_published_misses_none_and_gets_none_twice() {
    let (gateway, daemon, _serving) = gateway_and_daemon(Limits::default(), |_| ()).await;
    let publishing = {
        let daemon = daemon.clone();
        tokio::spawn(async move {
            for _ in 0..400 {
                daemon.publish("a");
                sleep(Duration::from_millis(2)).await;
            }
        })
    };
    let mut coming = tokio::task::JoinSet::new();
    for n in 0..40_u64 {
        let endpoint = gateway.endpoint;
        coming.spawn(async move {
            sleep(Duration::from_millis(n * 15)).await;
            let mut client = endpoint.stream("", "last-event-id: e-1\r\n").await;
            assert_eq!(client.hello().await["resume"], "exact");
            client.ids(400).await
        });
    }
    let all: Vec<_> = (2..=401).map(|n| format!("e-{n}")).collect();
    while let Some(ids) = coming.join_next().await {
        assert_eq!(ids.unwrap(), all);
    }
    publishing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b19_a_query_is_short_and_has_no_patterns() {
    let (gateway, _daemon, _serving) = gateway_and_daemon(Limits::default(), |_| ()).await;
    let many = |name: &str, n: usize| (0..n).map(|i| format!("{name}={i}&")).collect::<String>();
    let long = "x".repeat(65);
    for query in [
        many("source", 33),
        many("category", 33),
        many("tag", 33),
        format!("q={}", "a+".repeat(33)),
        format!("source={long}"),
        format!("q={long}"),
    ] {
        for path in ["/news", "/news/stream"] {
            let answer = gateway.ask("GET", &format!("{path}?{query}"), "").await;
            assert_eq!(status(&answer), 400, "{path}?{query}: {answer}");
            let answer = gateway.ask("GET", &format!("{path}?{}", "y".repeat(8192)), "").await;
            assert_eq!(status(&answer), 414, "{path}: {answer}");
        }
    }
    assert_eq!(status(&gateway.ask("GET", &format!("/news?{}", many("source", 32)), "").await), 200);
    let started = Instant::now();
    for pattern in ["(a%2B)%2B%24", ".*", "%5E(([a-z])%2B.)%2B", "Story", "[", "%25"] {
        let answer = gateway.ask("GET", &format!("/news?q={pattern}"), "").await;
        assert_eq!(status(&answer), 200, "{pattern}");
        assert_eq!(answer.contains("Story 1"), pattern == "Story", "a word is a word: {pattern}");
    }
    assert!(started.elapsed() < IN_TIME, "a pattern that is followed takes for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn b20_a_token_in_a_query_is_refused_on_every_route_and_repeated_nowhere() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a-secret-of-the-operator").unwrap();
    let settings = format!("operator_token_file = \"{}\"", file.path().display());
    let (program, _daemon, _serving) = program(&settings, "").await;
    let secret = "a-secret-of-the-operator";
    for name in [
        "token",
        "access_token",
        "authorization",
        "api_key",
        "newswire_read",
        "%74oken",
        "Access_Token",
        "jwt",
        "ApiKey",
        "id-token",
    ] {
        for path in PATHS.into_iter().chain(["/news/refresh", "/nowhere", "/assets/app.js"]) {
            for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
                let body = "content-type: application/json\r\ncontent-length: 0\r\n";
                let path = path.split('?').next().unwrap();
                let target = format!("{path}?limit=1&{name}={secret}");
                let answer = program.endpoint.ask(method, &target, body).await;
                assert_eq!(status(&answer), 400, "{method} {target}: {answer}");
                assert_eq!(header(&answer, "content-type"), Some("application/problem+json"), "{answer}");
                assert!(method == "HEAD" || answer.contains("\"code\":\"token-in-query\""), "{answer}");
                assert!(!answer.contains(secret), "{answer}");
            }
        }
    }
    // In the right header a wrong token grants nothing either.
    let wrong = format!("authorization: Bearer {secret}x\r\ncontent-length: 0\r\n");
    assert_eq!(status(&program.endpoint.ask("POST", "/news/refresh", &wrong).await), 401);
    let refused =
        program.endpoint.number("newswire_gateway_requests_refused_total{reason=\"token_in_query\"}").await;
    assert!(refused > 100, "{refused}");
    assert!(program.log().contains("ready") && !program.log().contains(secret), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn b21_every_wrong_token_gets_the_same_answer() {
    let (gateway, _daemon, _serving) = gateway_and_daemon(Limits::default(), with_token).await;
    let mut answers = BTreeSet::new();
    for wrong in
        ["", "a", &TOKEN[..TOKEN.len() - 1], &format!("{TOKEN}x"), &TOKEN.to_uppercase(), &"x".repeat(5000)]
    {
        let headers = format!("authorization: Bearer {wrong}\r\ncontent-length: 0\r\n");
        let answer = gateway.ask("POST", "/news/refresh", &headers).await;
        assert_eq!(status(&answer), 401);
        answers.insert(answer.split_once("\r\n\r\n").unwrap().1.to_owned());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    // Time cannot be measured here; that hashes are compared in constant time is a matter of the code.
    assert!(include_str!("../src/auth/operator.rs").contains("TokenHash::of(presented).is(&token)"));
    assert!(include_str!("../src/auth/bearer.rs").contains("self.0.ct_eq(&other.0).into()"));
}

#[tokio::test(flavor = "multi_thread")]
async fn b22_every_response_has_cache_control_and_every_security_header() {
    let (gateway, _daemon, _serving) = gateway_and_daemon(Limits::default(), with_token).await;
    let empty = Gateway::start(|_| ()).await;
    let mut statuses = BTreeSet::new();
    let mut check = |shown: &str, answer: &str| {
        statuses.insert(status(answer));
        for guard in [
            "x-content-type-options",
            "referrer-policy",
            "cross-origin-resource-policy",
            "cross-origin-opener-policy",
            "permissions-policy",
            "content-security-policy",
        ] {
            assert!(header(answer, guard).is_some(), "{shown}: no {guard}: {answer}");
        }
        let csp = header(answer, "content-security-policy").unwrap();
        assert!(csp.starts_with("default-src 'none'") && !csp.contains("unsafe"), "{shown}: {csp}");
        let kept = header(answer, "cache-control");
        assert!(kept.is_some() || status(answer) == 204 || status(answer) == 304, "{shown}: {answer}");
        if status(answer) >= 400 && status(answer) != 503 {
            assert_eq!(kept, Some("no-store"), "{shown}");
        }
    };
    for path in PATHS {
        for method in ["GET", "HEAD", "OPTIONS", "POST"] {
            check(path, &gateway.ask(method, path, "content-length: 0\r\n").await);
            check(path, &empty.ask(method, path, "content-length: 0\r\n").await);
        }
        let html = gateway.ask("GET", path, "accept: text/html\r\n").await;
        check(path, &html);
    }
    check("host", &raw(&gateway, b"GET / HTTP/1.1\r\nhost: evil\r\nconnection: close\r\n\r\n").await);
    check("refresh", &gateway.ask("POST", "/news/refresh", "content-length: 0\r\n").await);
    check("query", &gateway.ask("GET", "/news?limit=x", "").await);
    check("other log", &gateway.ask("GET", "/news?after=f-1", "").await);
    check("head", &gateway.ask("HEAD", "/news/stream", "").await);
    let etag = gateway.ask("GET", "/news", "").await;
    let etag = format!("if-none-match: {}\r\n", header(&etag, "etag").unwrap());
    check("again", &gateway.ask("GET", "/news", &etag).await);
    assert_eq!(header(&gateway.ask("GET", "/", "").await, "vary"), Some("Accept"));
    let expected = BTreeSet::from([200, 204, 304, 400, 401, 404, 405, 410, 421, 503]);
    assert_eq!(statuses, expected, "every kind of answer was looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn b23_a_request_within_a_request_is_never_answered() {
    let (gateway, _daemon, _serving) = gateway_and_daemon(Limits::default(), |_| ()).await;
    let inner = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (name, headers) in [
        ("both lengths", "content-length: 4\r\ntransfer-encoding: chunked"),
        ("two lengths", "content-length: 4\r\ncontent-length: 60"),
        ("a signed length", "content-length: +4"),
        ("a list of lengths", "content-length: 4, 60"),
        ("an unknown encoding", "transfer-encoding: xchunked"),
        ("a space before the colon", "transfer-encoding : chunked"),
        ("a folded line", "transfer-encoding:\r\n chunked"),
        ("a bare carriage return", "x: y\rtransfer-encoding: chunked"),
    ] {
        let request = format!("POST /news HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n0\r\n\r\n{inner}");
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(matches!(status(&answer), 400 | 405), "{name}: {answer}");
        assert!(!answer.contains("openapi"), "{name}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b24_no_error_reveals_internals() {
    let (gateway, _daemon, serving) = gateway_and_daemon(Limits::default(), with_token).await;
    drop(serving);
    let order = format!(
        "POST /news/refresh HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: 17\r\n\r\n{{\"sources\":[\"a\"]}}"
    );
    let mut answers = vec![
        raw(&gateway, order.as_bytes()).await,
        raw(&gateway, b"nonsense\r\n\r\n").await,
        raw(&gateway, b"GET /health HTTP/1.0\r\nhost: evil\r\n\r\n").await,
        raw(
            &gateway,
            &[b"GET /health HTTP/1.1\r\nx: ", vec![b'x'; 300_000].as_slice(), b"\r\n\r\n"].concat(),
        )
        .await,
    ];
    for path in [
        "/nowhere",
        "/news?limit=x",
        "/news/zz",
        "/news/e-99",
        "/news?q=%ff%fe",
        "/../../etc/passwd",
        "/assets/..",
    ] {
        answers.push(gateway.ask("GET", path, "").await);
        answers.push(gateway.ask("DELETE", path, "").await);
    }
    assert_eq!(status(&answers[0]), 503, "the daemon is gone: {}", answers[0]);
    for answer in answers.into_iter().filter(|a| status(a) >= 400) {
        for inside in [
            "actix",
            "hyper",
            "rust",
            "panicked",
            "src/",
            ".rs",
            ".sock",
            "os error",
            env!("CARGO_PKG_VERSION"),
            "server:",
        ] {
            assert!(!answer.to_lowercase().contains(inside), "{inside}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b25_after_a_drain_clients_reconnect_spread_over_seconds() {
    const CLIENTS: usize = 200;
    let (gateway, _daemon, _serving) = gateway_and_daemon(Limits::default(), |config| {
        config.gateway.clients_per_address_max = CLIENTS;
        config.gateway.drain = SECOND * 2;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = gateway.stream("?snapshot=1", "").await;
        client.ids(1).await;
        clients.push(client);
    }
    let started = Instant::now();
    let ending = tokio::spawn(gateway.end());
    let mut reading = tokio::task::JoinSet::new();
    for mut client in clients {
        reading.spawn(async move {
            let mut retry = 0;
            while let Some(block) = client.block().await {
                retry = block.iter().find_map(|f| f.strip_prefix("retry: ")?.parse().ok()).unwrap_or(retry);
            }
            started.elapsed() + Duration::from_millis(retry)
        });
    }
    let mut bins = BTreeMap::new();
    while let Some(back) = reading.join_next().await {
        *bins.entry(back.unwrap().as_secs()).or_insert(0) += 1;
    }
    let peak = bins.values().max().unwrap();
    assert!(*peak <= CLIENTS * 2 / 5, "too many reconnect in the same second: {bins:?}");
    assert!(ending.await.unwrap() < IN_TIME);
}

#[tokio::test(flavor = "multi_thread")]
async fn b26_a_browser_is_never_answered_in_a_way_that_ends_its_retries() {
    const CLIENTS: usize = 100;
    let (gateway, _daemon, serving) = gateway_and_daemon(Limits::default(), |config| {
        config.gateway.clients_max = CLIENTS;
        config.gateway.clients_per_address_max = CLIENTS + 1;
        // Until the test has seen it.
        config.gateway.drain = SECOND * 60;
    })
    .await;
    let retries = async |why: &str| {
        let answer = gateway.ask("GET", "/news/stream", "accept: text/event-stream\r\n").await;
        assert_eq!(status(&answer), 200, "{why}: {answer}");
        assert_eq!(header(&answer, "content-type"), Some("text/event-stream"), "{why}");
        assert!(answer.contains("\r\n\r\nretry: ") || answer.contains("\nretry: "), "{why}: {answer}");
        assert!(answer.ends_with("\n\n"), "{why}: a blank line ends the block: {answer:?}");
    };
    let mut inside = Vec::new();
    for _ in 0..CLIENTS {
        inside.push(gateway.stream("", "").await);
    }
    retries("full").await;
    drop(serving);
    retries("full, and the daemon is gone").await;
    gateway.stop.cancel();
    let draining = async {
        while !gateway.ask("GET", "/ready", "").await.contains("\"draining\":true") {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, draining).await.expect("it drains");
    retries("draining").await;
    let refused = "newswire_gateway_streams_refused_total";
    assert_eq!(gateway.number(&format!("{refused}{{reason=\"clients_max\"}}")).await, 2);
    assert_eq!(gateway.number(&format!("{refused}{{reason=\"draining\"}}")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn b28_endless_streams_do_not_delay_the_end() {
    let settings = "clients_per_address_max = 5000\ndrain = \"1s\"\nring_events = 500";
    let (program, daemon, _serving) = program(settings, "").await;
    let mut clients = Vec::new();
    for n in 0..300 {
        // One of them reads; for a third, the buffers of its own system are full as well.
        clients.push(if n % 3 == 0 {
            program.endpoint.small_stream("?snapshot=0").await
        } else {
            program.endpoint.stream("?snapshot=0", "").await
        });
    }
    program.endpoint.until_clients(300, TIMEOUT).await;
    daemon.publish_large(100, 5_000);
    clients[1].ids(100).await;
    let (status, took, log) = program.end().await;
    println!("300 streams, nearly all of them stuck: it ended after {took:?} with a window of 1 s");
    assert!(status.success(), "{status}");
    // On an idle machine it takes 1.7 s. Stuck clients are disconnected without waiting.
    assert!(took < IN_TIME, "{took:?}");
    let cut = log.split_once("drained cut=").and_then(|(_, cut)| cut.split_whitespace().next()?.parse().ok());
    assert!((100..300).contains(&cut.unwrap_or(0)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b28_a_restart_behind_an_inherited_socket_refuses_no_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let old = Program::at(&listener);
    let endpoint = old.endpoint;
    assert_eq!(endpoint.address, listener.local_addr().unwrap(), "gateway.listen is not used");
    let mut stream = endpoint.stream("", "").await;
    stream.hello().await;
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let asking = tokio::spawn(async move {
        let mut count = 0;
        while !is_over.load(Relaxed) || count < 20 {
            // No connection is refused or reset, and no answer is another one.
            assert_eq!(status(&endpoint.ask("GET", "/health", "").await), 200);
            count += 1;
        }
    });
    sleep(SECOND / 2).await;
    let (status, ..) = old.end().await;
    assert!(status.success());
    while stream.block().await.is_some() {}
    sleep(SECOND / 4).await;
    let new = Program::at(&listener);
    stream = new.endpoint.stream("", "").await;
    stream.hello().await;
    over.store(true, Relaxed);
    asking.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b29_a_client_that_vanishes_leaves_nothing_behind() {
    let (program, daemon, _serving) = program("clients_per_address_max = 5000", "").await;
    // Until the start has opened its last one.
    let mut files = 0;
    while files != program.files() {
        files = program.files();
        sleep(SECOND).await;
    }
    for end in ["reset", "half", "close"] {
        let mut clients = Vec::new();
        for _ in 0..200 {
            clients.push(program.endpoint.stream("", "").await.stream.into_inner());
        }
        program.endpoint.until_clients(200, TIMEOUT).await;
        assert!(program.files() >= files + 200);
        let mut kept = Vec::new();
        for client in clients {
            match end {
                "reset" => socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap(),
                "half" => {
                    socket2::SockRef::from(&client).shutdown(std::net::Shutdown::Write).unwrap();
                    kept.push(client);
                }
                _ => drop(client),
            }
        }
        let took = program.endpoint.until_clients(0, IN_TIME).await;
        println!("{end}: all gone after {took:?}");
        let back = async {
            while program.files() > files + 4 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(IN_TIME, back).await.expect("their files are closed");
    }
    daemon.publish("a");
    assert_eq!(program.endpoint.stream("?after=e-1", "").await.ids(1).await, ["e-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b30_a_large_item_arrives_is_whole_at_its_address_and_the_stream_continues() {
    let (gateway, daemon, _serving) = gateway_and_daemon(Limits::default(), |_| ()).await;
    let mut client = gateway.stream("?snapshot=0", "").await;
    client.hello().await;
    for (bytes, seq) in [131_071, 131_072, 131_073, 32_768, 500_000].into_iter().zip((2..).step_by(2)) {
        daemon.publish_large(1, bytes);
        daemon.publish("a");
        let large = client.item().await;
        assert_eq!(large["id"], format!("e-{seq}"));
        // What does not fit into a line that clients read is shortened, and says so.
        let is_whole = bytes < 60_000;
        assert_eq!(large["summary"].as_str().unwrap().len() == bytes, is_whole, "{bytes}");
        assert_eq!(large["truncated"] == serde_json::json!(["summary"]), !is_whole, "{bytes}");
        assert_eq!(client.ids(1).await, [format!("e-{}", seq + 1)]);
        let again = gateway.ask("GET", &format!("/news/e-{seq}"), "").await;
        assert!(again.len() > bytes);
    }
}
