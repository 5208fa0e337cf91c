//! Requests to daemons and their answers over NATS, against a real server and daemons that answer by script.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use e2e::{NatsServer, nats_server_program};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use wire::{
    ClientError, Endpoint, PeerClient, RequestMethod,
    nats::{
        NatsConnection, NatsCredentials, NatsResponder, NatsSettings, RequestCounters, RequestCounts,
        StreamLimits, SubjectNames,
    },
};

/// What no healthy exchange of these tests needs, on however busy a machine.
const LONG: Duration = Duration::from_secs(120);
const MIB: usize = 1024 * 1024;

async fn connect(server: &NatsServer) -> NatsConnection {
    let settings = NatsSettings {
        urls: vec![server.url()],
        names: SubjectNames::new("newswire"),
        credentials: NatsCredentials::default(),
        ca_file: None,
        replicas: 1,
        limits: StreamLimits { age: Duration::from_secs(3600), events: 1000, bytes: 1 << 30 },
        client: "test".to_owned(),
    };
    let connection = NatsConnection::open(settings).await.unwrap();
    let mut connections = connection.connections();
    tokio::time::timeout(LONG, connections.wait_for(|count| *count > 0)).await.unwrap().unwrap();
    connection
}

/// Where answers stop.
#[derive(Clone)]
struct Gate {
    /// One for each that has come to the gate.
    came: Arc<Semaphore>,
    /// One for each that may go on.
    open: Arc<Semaphore>,
}

impl Gate {
    async fn pass(&self) {
        self.came.add_permits(1);
        self.open.acquire().await.unwrap().forget();
    }

    async fn wait_for_one(&self) {
        tokio::time::timeout(LONG, self.came.acquire()).await.unwrap().unwrap().forget();
    }
}

/// A daemon that answers by script behind a socket, and its responder.
struct ScriptedDaemon {
    name: &'static str,
    socket: PathBuf,
    _folder: TempDir,
    gate: Gate,
    counters: RequestCounters,
    responder: JoinHandle<()>,
    stop: CancellationToken,
}

impl ScriptedDaemon {
    async fn start(name: &'static str, server: &NatsServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ingestd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let gate = Gate { came: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) };
        let gate_of_server = gate.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(name, stream, gate_of_server.clone()));
            }
        });
        let (counters, stop) = (RequestCounters::default(), CancellationToken::new());
        let responder = NatsResponder::try_new(
            connect(server).await,
            name,
            Endpoint::Socket(socket.clone()),
            |_, path| path != "/wire",
            counters.clone(),
        )
        .unwrap();
        let responder = tokio::spawn(responder.run(stop.clone()));
        let daemon = Self { name, socket, _folder: folder, gate, counters, responder, stop };
        daemon.wait_until_it_answers(server).await;
        daemon
    }

    /// Waits until it answers, and has answered.
    async fn wait_until_it_answers(&self, server: &NatsServer) {
        let client = self.client(server).await;
        e2e::wait_for("the responder answers", LONG, async || client.get("/name", LONG, 100).await.ok())
            .await
            .unwrap();
        self.wait_for("nothing is in progress", |counts| counts.in_progress == 0).await;
    }

    async fn client(&self, server: &NatsServer) -> PeerClient {
        PeerClient::over_nats(connect(server).await, self.name)
    }

    async fn wait_for(&self, what: &str, reached: impl Fn(RequestCounts) -> bool) {
        e2e::wait_for(what, LONG, async || reached(self.counters.read()).then_some(())).await.unwrap();
    }
}

/// Bytes that differ from place to place.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Answers one request: `/bytes/N`, `/name`, `/half` (ends before its length), `/half-wait` (a part, then nothing until the
/// gate opens), `/wait`, `/echo`, `/refuse`.
async fn answer(name: &'static str, mut stream: UnixStream, gate: Gate) {
    let mut request = Vec::new();
    let (head_len, body_len) = loop {
        let mut buffer = [0; 16 * 1024];
        let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
        request.extend_from_slice(&buffer[..read]);
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        break (end + 4, length.map_or(0, |length| length.parse::<usize>().unwrap()));
    };
    let head = String::from_utf8_lossy(&request[..head_len]).into_owned();
    let mut body = request.split_off(head_len);
    while body.len() < body_len {
        let mut buffer = [0; 16 * 1024];
        let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
        body.extend_from_slice(&buffer[..read]);
    }
    let path = head.split(' ').nth(1).unwrap();
    let (status, length, body) = match path.strip_prefix("/bytes/") {
        Some(bytes) => (200, None, content(bytes.parse().unwrap())),
        None => match path {
            "/name" => (200, None, name.as_bytes().to_vec()),
            "/half" => (200, Some(4 * MIB), content(2 * MIB)),
            "/half-wait" => (200, Some(4 * MIB), content(2 * MIB)),
            "/echo" => {
                let signature = head.lines().find(|line| line.starts_with("x-hub-signature"));
                (200, None, [signature.unwrap().as_bytes(), &body].concat())
            }
            "/refuse" => (409, None, br#"{"detail":"not now"}"#.to_vec()),
            _ => (200, None, Vec::new()),
        },
    };
    if path == "/wait" {
        gate.pass().await;
    }
    let length = length.unwrap_or(body.len());
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok();
    stream.write_all(&body).await.ok();
    if path == "/half-wait" {
        gate.pass().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_hundreds_of_megabytes_arrives_whole_and_one_larger_than_allowed_is_refused() {
    let Some(program) = nats_server_program() else { return };
    // Far less than one answer: the server closes a connection that takes less than it is sent.
    let server = NatsServer::start(&program, "max_pending: 16MB").await.unwrap();
    let daemon = ScriptedDaemon::start("k3v9q2", &server).await;
    let client = daemon.client(&server).await;
    for bytes in [0, 1, 512 * 1024, 512 * 1024 + 1, 200 * MIB] {
        let body = client.get(&format!("/bytes/{bytes}"), LONG, 256 * MIB).await.unwrap();
        assert!(body == content(bytes), "{bytes} bytes");
    }
    let late = client.get("/bytes/1001", LONG, 1000).await;
    assert!(matches!(late, Err(ClientError::TooLarge(_, 1000))), "{late:?}");
    assert!(server.log().lines().all(|line| !line.contains("Slow Consumer")), "{}", server.log());
    daemon.wait_for("all are counted", |counts| counts.in_progress == 0 && counts.failed == 1).await;
}

#[tokio::test]
async fn parts_fit_into_what_the_server_accepts_in_both_directions() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "max_payload: 8KB").await.unwrap();
    let daemon = ScriptedDaemon::start("k3v9q2", &server).await;
    let client = daemon.client(&server).await;
    assert!(client.get("/bytes/100000", LONG, MIB).await.unwrap() == content(100_000));
    let sent = Bytes::from(content(MIB));
    let headers = [("x-hub-signature", "sha256=00")];
    let echoed = client.post_bytes("/echo", &headers, sent.clone(), LONG, 2 * MIB).await.unwrap();
    assert!(echoed.starts_with(b"x-hub-signature: sha256=00") && echoed.ends_with(&sent));
}

#[tokio::test]
async fn a_refusal_has_its_status_and_reason_and_a_name_that_no_daemon_has_is_unreachable_at_once() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let daemon = ScriptedDaemon::start("k3v9q2", &server).await;
    let client = daemon.client(&server).await;
    let Err(ClientError::Refused(endpoint, refusal)) = client.get("/refuse", LONG, 100).await else {
        panic!("refused")
    };
    assert_eq!((refusal.status.as_u16(), refusal.detail.as_deref()), (409, Some("not now")));
    assert_eq!(endpoint.to_string(), "daemon k3v9q2 over NATS");
    let not_passed_on = client.get("/wire?snapshot=1", LONG, 100).await;
    assert!(matches!(not_passed_on, Err(ClientError::Setup(..))), "{not_passed_on:?}");

    let began = Instant::now();
    let other = PeerClient::over_nats(connect(&server).await, "other");
    let unreachable = other.get("/name", LONG, 100).await;
    assert!(matches!(unreachable, Err(ClientError::Unreachable(..))), "{unreachable:?}");
    assert!(began.elapsed() < LONG, "the deadline is not waited for");
    std::fs::remove_file(&daemon.socket).unwrap();
    let without_socket = client.get("/name", LONG, 100).await;
    assert!(matches!(without_socket, Err(ClientError::Unreachable(..))), "{without_socket:?}");
}

#[tokio::test]
async fn an_answer_of_which_a_part_is_missing_is_an_error_whatever_ended_it() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let daemon = ScriptedDaemon::start("k3v9q2", &server).await;
    let client = daemon.client(&server).await;
    let half = client.get("/half", LONG, 8 * MIB).await;
    assert!(matches!(half, Err(ClientError::Unreachable(..))), "the socket: {half:?}");

    let late = client.get("/half-wait", Duration::from_secs(2), 8 * MIB).await;
    assert!(matches!(late, Err(ClientError::Late(_))), "nothing more comes: {late:?}");
    daemon.gate.wait_for_one().await;

    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.get("/half-wait", LONG, 8 * MIB).await }
    });
    daemon.gate.wait_for_one().await;
    server.kill();
    let ended = asked.await.unwrap();
    assert!(matches!(ended, Err(ClientError::Unreachable(..))), "the server: {ended:?}");
    let without_server = client.get("/name", LONG, 100).await;
    assert!(matches!(without_server, Err(ClientError::Unreachable(..))), "{without_server:?}");
    server.restart().await.unwrap();
    daemon.wait_until_it_answers(&server).await;
    e2e::wait_for("the same client is answered", LONG, async || client.get("/name", LONG, 100).await.ok())
        .await
        .unwrap();

    let daemon = ScriptedDaemon::start("a1b2c3", &server).await;
    let client = daemon.client(&server).await;
    let asked = tokio::spawn(async move { client.get("/half-wait", LONG, 8 * MIB).await });
    daemon.gate.wait_for_one().await;
    let began = Instant::now();
    daemon.stop.cancel();
    daemon.responder.await.unwrap();
    let ended = asked.await.unwrap();
    assert!(matches!(ended, Err(ClientError::Unreachable(..))), "the daemon: {ended:?}");
    assert!(began.elapsed() < LONG, "the deadline is not waited for");
}

#[tokio::test]
async fn each_of_two_daemons_answers_what_is_asked_of_it_and_many_requests_at_once_are_refused_as_busy() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let one = ScriptedDaemon::start("k3v9q2", &server).await;
    let other = ScriptedDaemon::start("a1b2c3", &server).await;
    let (of_one, of_other) = (one.client(&server).await, other.client(&server).await);
    let waiting: Vec<_> = (0..32)
        .map(|_| {
            let client = of_one.clone();
            tokio::spawn(async move { client.get("/wait", LONG, 100).await })
        })
        .collect();
    one.wait_for("all are in progress", |counts| counts.in_progress == 32).await;
    let Err(ClientError::Refused(_, refusal)) = of_one.get("/name", LONG, 100).await else { panic!("busy") };
    assert!(refusal.status.as_u16() == 503 && refusal.detail.unwrap().contains("try again"));
    assert_eq!(of_other.get("/name", LONG, 100).await.unwrap(), "a1b2c3", "the other one is not");
    assert_eq!(one.counters.read().busy, 1);
    one.gate.open.add_permits(32);
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(of_one.get("/name", LONG, 100).await.unwrap(), "k3v9q2");
    // Its method is what the daemon's socket is asked with.
    assert_eq!(serde_json::to_string(&RequestMethod::Post).unwrap(), r#""POST""#);
}

#[tokio::test]
async fn a_gateway_that_goes_away_frees_its_place_at_the_daemon() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let daemon = ScriptedDaemon::start("k3v9q2", &server).await;
    let client = daemon.client(&server).await;
    let slow = Arc::new(AtomicBool::new(true));
    let asked = tokio::spawn({
        let (client, slow) = (client.clone(), Arc::clone(&slow));
        async move {
            client.get("/bytes/64000000", LONG, 256 * MIB).await.ok();
            slow.store(false, Relaxed);
        }
    });
    daemon.wait_for("the request is in progress", |counts| counts.in_progress == 1).await;
    asked.abort();
    daemon.wait_for("its place is free", |counts| counts.in_progress == 0).await;
    // It may have been answered before it was left.
    assert!(daemon.counters.read().abandoned == 1 || !slow.load(Relaxed));
    assert_eq!(client.get("/name", LONG, 100).await.unwrap(), "k3v9q2");

    // The daemon's socket hangs: that the gateway is silent tells enough.
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.get("/wait", LONG * 10, 100).await }
    });
    daemon.gate.wait_for_one().await;
    asked.abort();
    daemon.wait_for("its place is free", |counts| counts.in_progress == 0).await;
}
