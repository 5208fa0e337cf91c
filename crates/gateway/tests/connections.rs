//! One request per connection: whatever a client sends behind it costs nothing and gets no answer, and the first answer
//! arrives whole.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests may block")]

#[path = "support/harness.rs"]
mod harness;

use std::time::Duration;

use harness::{Endpoint, FakeDaemon, Gateway, Serving, TIMEOUT, gateway_with};
use newswire_gateway::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// Requests behind the first one.
const PIPELINED: usize = 3_000;
/// A request that leaves a trace wherever it is processed.
const COUNTED: &str = "GET /news?token=x HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn counted(gateway: &Endpoint) -> u64 {
    gateway.number("newswire_gateway_requests_refused_total{reason=\"token_in_query\"}").await
}

/// Sends everything, and reads until the connection is closed.
async fn exchange(gateway: &Endpoint, bytes: &[u8]) -> String {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let bytes = bytes.to_vec();
    let sending = tokio::spawn(async move {
        // The gateway may close the connection meanwhile.
        write.write_all(&bytes).await.ok();
        write
    });
    let mut answer = Vec::new();
    timeout(TIMEOUT, read.read_to_end(&mut answer)).await.expect("the connection is closed").unwrap();
    drop(sending.await.unwrap());
    String::from_utf8(answer).unwrap()
}

/// The body of an answer with `content-length`, or `None` if it is cut short or longer.
fn whole_body(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    (body.len() == length.parse::<usize>().ok()?).then_some(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_closed_its_own_side_gets_the_answer_and_no_stream() {
    let (gateway, _daemon, _serving) = gateway_with(500).await;
    for path in
        ["/health", "/news?q=nothing", "/news?limit=500", "/sources", "/metrics", "/openapi.json", "/no"]
    {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(TIMEOUT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(whole_body(&answer).is_some() || answer.contains("chunked"), "{path}: {answer:?}");
    }
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"GET /news/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    timeout(TIMEOUT, stream.read_to_end(&mut Vec::new())).await.expect("the stream ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_3000_pipelined_requests_one_is_processed_and_its_answer_arrives_whole() {
    let (gateway, _daemon, _serving) = gateway_with(500).await;
    let plain = "GET /news?limit=500 HTTP/1.1\r\nhost: localhost\r\n";
    let post = "POST /news HTTP/1.1\r\nhost: localhost\r\n";
    for (name, first, status) in [
        ("a request", format!("{plain}\r\n"), 200),
        ("lines that end in LF", plain.replace("\r\n", "\n") + "\n", 200),
        ("empty lines before it", format!("\r\n\r\n{plain}\r\n"), 200),
        ("keep-alive", format!("{plain}connection: keep-alive\r\n\r\n"), 200),
        ("a body", format!("{post}content-length: 5\r\n\r\nGET /"), 405),
        (
            "a body of another request",
            format!("{post}content-length: {}\r\n\r\n{COUNTED}", COUNTED.len()),
            405,
        ),
        ("a chunked body", format!("{post}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), 405),
        ("trailers", format!("{post}transfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n"), 405),
        ("a websocket", format!("{plain}upgrade: websocket\r\nconnection: upgrade\r\n\r\n"), 200),
        ("HEAD", format!("HEAD{}\r\n", plain.strip_prefix("GET").unwrap()), 200),
        ("a probe", "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), 200),
        ("what is no request", "GET /news\r\n\r\n".to_owned(), 400),
    ] {
        for pipelined in [COUNTED.to_owned(), COUNTED.replace("\r\n", "\n")] {
            let answer = exchange(&gateway, (first.clone() + &pipelined.repeat(PIPELINED)).as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{name}");
            let has_body = name != "HEAD" && status != 400;
            assert!(!has_body || whole_body(&answer).is_some(), "{name}: {answer}");
        }
    }
    assert_eq!(counted(&gateway).await, 0, "none of them was processed");
    assert_eq!(gateway.number("newswire_gateway_requests_refused_total{reason=\"second\"}").await, 0);
    let answer = exchange(&gateway, COUNTED.repeat(PIPELINED).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    assert_eq!(counted(&gateway).await, 1, "the first one was");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_that_arrive_one_by_one_are_not_processed_either() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"GET /news HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    for _ in 0..PIPELINED {
        if stream.write_all(COUNTED.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut answer)).await.expect("the connection is closed").ok();
    assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1").count(), 1);
    assert_eq!(counted(&gateway).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_a_stream_are_not_processed_and_end_it() {
    let (gateway, daemon, _serving) = gateway_with(1).await;
    let mut client = gateway.stream("", "").await;
    client.ids(1).await;
    // A few bytes too many do no harm.
    client.stream.get_mut().write_all(b"\r\n").await.unwrap();
    daemon.publish("a");
    client.ids(1).await;
    client.stream.get_mut().write_all(COUNTED.repeat(PIPELINED).as_bytes()).await.ok();
    let gone = async { while client.block().await.is_some() {} };
    timeout(TIMEOUT, gone).await.expect("the connection is closed");
    gateway.until_clients(0, TIMEOUT).await;
    assert_eq!(counted(&gateway).await, 0);
    let line = "newswire_gateway_connections_cut_total{reason=\"pipelining\"}";
    assert_eq!(gateway.number(line).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_behind_an_answer_ends_in_bounded_time() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"GET /news HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let started = Instant::now();
    let flood = vec![b'x'; 1 << 20];
    while stream.write_all(&flood).await.is_ok() {
        assert!(started.elapsed() < TIMEOUT, "it is read for ever");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_whatever_form_its_request_has() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    for request in [
        "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /health?x=1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n",
        "GET http://localhost/health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "\r\nGET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /health HTTP/1.1\nhost: localhost\n\n",
    ] {
        let answer = exchange(&gateway, request.as_bytes()).await;
        assert!(
            whole_body(&answer).is_some_and(|body| body.contains("\"status\":\"ok\"")),
            "{request:?}: {answer}"
        );
    }
    for (request, status) in [
        ("HEAD /health HTTP/1.1\r\nhost: localhost\r\n\r\n", 200),
        ("POST /health HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        ("GET /healthy HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
        ("GET /health/ HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    ] {
        let answer = exchange(&gateway, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_come_ends_the_connection_wherever_it_stops() {
    // The other limits would end it, too, but later than a busy machine needs.
    let limits =
        Limits { head: Duration::from_secs(1), connection: Duration::from_secs(120), ..Limits::default() };
    let gateway = Gateway::within(limits, |_| ()).await;
    for begun in ["", "G", "GET /hea", "GET /health HT", "GET /news HTTP/1.1\r\nhost: lo"] {
        let started = Instant::now();
        let answer = exchange(&gateway, begun.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{begun:?}: {answer}");
        let took = started.elapsed();
        // actix's clock has a resolution of half a second.
        assert!((Duration::from_millis(400)..Duration::from_secs(20)).contains(&took), "{begun:?}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let (gateway, _daemon, _serving): (Gateway, FakeDaemon, Serving) = gateway_with(1).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        "POST /news/refresh HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; 25];
    timeout(TIMEOUT, stream.read_exact(&mut line)).await.unwrap().unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && whole_body(&answer).is_some(), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_noticed_at_once_whatever_it_has_sent_before() {
    // No heartbeat finds out that it is not read.
    let gateway = Gateway::start(|config| config.gateway.heartbeat = Duration::from_secs(3600)).await;
    let daemon = FakeDaemon::new("e");
    daemon.publish("a");
    let _serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    for reset in [true, false] {
        for surplus in ["", "\r\n", COUNTED] {
            let mut clients = Vec::new();
            for _ in 0..20 {
                let mut client = gateway.stream("", "").await;
                client.ids(1).await;
                client.stream.get_mut().write_all(surplus.as_bytes()).await.unwrap();
                clients.push(client);
            }
            gateway.until_clients(20, TIMEOUT).await;
            sleep(Duration::from_millis(50)).await;
            for client in clients {
                let socket = client.stream.into_inner();
                if reset {
                    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
            let took = gateway.until_clients(0, TIMEOUT).await;
            println!("reset {reset}, surplus of {}: gone after {took:?}", surplus.len());
        }
    }
    assert_eq!(counted(&gateway).await, 0);
}
