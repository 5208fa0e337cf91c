//! What a tool is promised about the client: one deadline, one limit, and errors that it can tell apart.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread::JoinHandle,
    time::Duration,
};

use control::{
    ControlClient, ControlError, ControlRequest, HealthReport, LogLevel, VisitAnswer, VisitOrder, WatchReport,
};
use tempfile::TempDir;

const SHORT: Duration = Duration::from_millis(300);
const HEALTH: &str = r#"{"name":"testd","pid":7,"status":"ok","uptime_ms":1,"version":"0.1.0"}"#;

/// Serves one connection on a thread, which returns the request as it came.
struct Server {
    _folder: TempDir,
    socket: PathBuf,
    thread: JoinHandle<String>,
}

impl Server {
    fn start(respond: impl FnOnce(&mut UnixStream) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("testd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            let length = stream.read(&mut bytes).unwrap();
            respond(&mut stream);
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        });
        Self { _folder: folder, socket, thread }
    }

    /// Answers with this status line, media type and body.
    fn answer(status: &'static str, media_type: &'static str, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::start(move |stream| {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n"
            );
            // The client may have seen enough.
            stream.write_all((head + &body).as_bytes()).ok();
        })
    }

    fn client(&self) -> ControlClient {
        ControlClient::new(&self.socket).deadline(Duration::from_secs(60))
    }

    fn request(self) -> String {
        self.thread.join().unwrap()
    }
}

/// Blocks until the client closes the connection, or for this long.
fn client_closed(stream: &mut UnixStream, wait: Option<Duration>) -> bool {
    stream.set_read_timeout(wait).unwrap();
    matches!(stream.read(&mut [0; 1]), Ok(0))
}

#[tokio::test]
async fn an_answer_is_read_as_the_requested_type() {
    let server = Server::answer("200 OK", "application/json", HEALTH);
    let health: HealthReport = server.client().get("/health").await.unwrap();
    assert_eq!((health.process.name.as_str(), health.process.pid), ("testd", 7));
    let request = server.request().to_lowercase();
    assert!(
        request.starts_with("get /health http/1.1\r\nhost: localhost\r\nconnection: close\r\n"),
        "{request}"
    );
    assert!(request.contains("accept: application/json"), "{request}");
}

#[tokio::test]
async fn orders_are_sent_as_json_and_levels_as_text() {
    let answer = r#"{"accepted":["a"],"busy":[],"disabled":[],"paused":[],"unknown":[]}"#;
    let server = Server::answer("202 Accepted", "application/json", answer);
    let order = VisitOrder { sources: Some(vec!["a".to_owned()]), ..VisitOrder::default() };
    let answer: VisitAnswer = server.client().post("/visits", &order).await.unwrap();
    assert_eq!(answer.accepted, ["a"]);
    let request = server.request();
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"sources\":[\"a\"]}"), "{request}");

    let server = Server::answer("200 OK", "application/json", r#"{"level":"debug"}"#);
    let request = ControlRequest::put_text("/log-level", "debug");
    let level: LogLevel = server.client().request(request).await.unwrap();
    assert_eq!(level.level, "debug");
    let request = server.request();
    assert!(request.starts_with("PUT /log-level ") && request.ends_with("\r\n\r\ndebug"), "{request}");
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_or_comes_in_chunks_is_read_to_its_end() {
    for rest in [
        format!("\r\n{HEALTH}"),
        format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{HEALTH}\r\n0\r\n\r\n", HEALTH.len()),
    ] {
        let head = "HTTP/1.1 200 OK\r\n";
        let server =
            Server::start(move |stream| stream.write_all((head.to_owned() + &rest).as_bytes()).unwrap());
        server.client().get::<HealthReport>("/health").await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_socket_and_one_without_a_listener_are_distinguished() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("testd.sock");
    let client = ControlClient::new(&socket);
    let error = client.get::<HealthReport>("/health").await.unwrap_err();
    assert!(matches!(&error, ControlError::Missing(path) if *path == socket) && error.is_absent(), "{error}");
    drop(UnixListener::bind(&socket).unwrap());
    let error = client.get::<HealthReport>("/health").await.unwrap_err();
    assert!(matches!(error, ControlError::Refused(_)) && error.is_absent(), "{error}");
}

#[tokio::test]
async fn the_deadline_covers_silence_before_and_within_the_answer() {
    let silent = Server::start(|stream| assert!(client_closed(stream, None)));
    let dripping = Server::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").unwrap();
        while !client_closed(stream, Some(SHORT / 10)) {
            // It may close at this moment.
            stream.write_all(b" ").ok();
        }
    });
    let slow_head = Server::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nserver: ").unwrap();
        while !client_closed(stream, Some(SHORT / 10)) {
            stream.write_all(b"H").ok();
        }
    });
    for server in [silent, slow_head, dripping] {
        let error = server.client().deadline(SHORT).get::<HealthReport>("/health").await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(error.to_string().contains("GET /health") && error.to_string().contains("300ms"), "{error}");
        server.request();
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_not_read_to_its_end() {
    let endless = Server::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while stream.write_all(&[b' '; 4096]).is_ok() {}
    });
    let error = endless.client().body_bytes_max(10_000).get::<HealthReport>("/health").await.unwrap_err();
    assert!(matches!(error, ControlError::TooLarge { bytes_max: 10_000, .. }), "{error}");
    endless.request();

    let server = Server::answer("200 OK", "application/json", HEALTH);
    let exact = server.client().body_bytes_max(HEALTH.len()).get::<HealthReport>("/health").await;
    exact.unwrap();
}

#[tokio::test]
async fn an_answer_that_ends_early_or_is_not_http_is_broken() {
    for sent in [
        "",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{",
    ] {
        let server = Server::start(move |stream| stream.write_all(sent.as_bytes()).unwrap());
        let error = server.client().get::<HealthReport>("/health").await.unwrap_err();
        assert!(matches!(error, ControlError::Broken { .. }), "{sent:?}: {error}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_distinguished_from_one_of_another_shape_and_the_version_is_named() {
    let server = Server::answer("200 OK", "text/plain", "hello");
    let error = server.client().get::<HealthReport>("/health").await.unwrap_err();
    assert!(matches!(error, ControlError::NotJson { .. }), "{error}");

    let server = Server::answer("200 OK", "application/json", r#"{"level":1}"#);
    let error = server.client().get::<LogLevel>("/log-level").await.unwrap_err();
    assert!(matches!(error, ControlError::Shape { process: None, .. }), "{error}");

    let newer = r#"{"name":"newswire-gateway","version":"9.1.0","pid":7,"uptime_ms":1,"loops":{}}"#;
    let server = Server::answer("200 OK", "application/json", newer);
    let error = server.client().get::<WatchReport>("/watch").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("newswire-gateway is version 9.1.0, this tool is 0.1.0"), "{text}");
    let ControlError::Shape { process: Some(process), .. } = error else { panic!("{error}") };
    assert_eq!(process.pid, 7);
}

#[tokio::test]
async fn an_error_status_is_the_problem_that_comes_with_it_or_the_bare_status() {
    let body = r#"{"type":"about:blank","title":"Unprocessable Entity","status":422,"code":"bad-configuration",
        "detail":"the configuration has mistakes","complaints":["f.toml:1: wrong"]}"#;
    let server = Server::answer("422 Unprocessable Entity", "application/problem+json", body);
    let request = ControlRequest::post("/reload");
    let error = server.client().request::<control::ReloadAnswer>(request.clone()).await.unwrap_err();
    let ControlError::Problem(problem) = error else { panic!("{error}") };
    assert_eq!((problem.code.as_str(), problem.complaints.len()), ("bad-configuration", 1));

    let server = Server::answer("404 Not Found", "text/plain", "");
    let error = server.client().request::<control::ReloadAnswer>(request.clone()).await.unwrap_err();
    assert!(matches!(error, ControlError::Status { status: 404, .. }), "{error}");

    let server = Server::answer("503 Service Unavailable", "text/plain", "busy");
    let answer = server.client().send(&request.accept("text/plain")).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (503, b"busy".as_slice()));
}

#[tokio::test]
async fn a_path_that_is_not_valid_is_an_error_and_not_a_panic() {
    let server = Server::answer("200 OK", "application/json", HEALTH);
    let error = server.client().get::<HealthReport>("/a b").await.unwrap_err();
    assert!(matches!(error, ControlError::BadRequest { .. }), "{error}");
}
