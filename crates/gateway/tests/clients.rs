//! What other people's clients need of the stream: old HTTP, visible heartbeats, the end of the snapshot, short lines,
//! and to be told about mistyped filters.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

#[path = "support/harness.rs"]
mod harness;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use harness::{Client, Endpoint, Gateway, TIMEOUT, gateway_with};

/// Sends a request of HTTP/1.0; the head of the response, and the rest of the connection.
async fn http_10(gateway: &Endpoint, method: &str, headers: &str) -> (String, BufReader<TcpStream>) {
    let request = format!("{method} /news/stream?snapshot=2 HTTP/1.0\r\nhost: localhost\r\n{headers}\r\n");
    let mut stream = gateway.send(&request).await;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = timeout(TIMEOUT, stream.read_line(&mut head)).await.unwrap().unwrap();
        assert!(read > 0, "the head is whole: {head}");
    }
    (head, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_gets_the_stream_without_chunks_until_the_connection_ends() {
    let (gateway, daemon, _serving) = gateway_with(3).await;
    for headers in ["", "connection: keep-alive\r\n"] {
        let (head, stream) = http_10(&gateway, "GET", headers).await;
        assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
        for framing in ["transfer-encoding", "content-length", "keep-alive"] {
            assert!(!head.to_ascii_lowercase().contains(framing), "{head}");
        }
        let mut client = Client { stream };
        let first = client.line().await.unwrap();
        assert!(first.starts_with("retry: "), "no size of a chunk comes first: {first}");
        assert_eq!(client.ids(2).await.len(), 2);
        daemon.publish("a");
        client.ids(1).await;
    }
    let (head, stream) = http_10(&gateway, "GET", "accept: application/x-ndjson\r\n").await;
    assert!(head.contains("application/x-ndjson") && !head.contains("transfer-encoding"), "{head}");
    let mut lines = stream.lines();
    for _ in 0..3 {
        let line = timeout(TIMEOUT, lines.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http_1_0_ends_with_its_cursor_and_the_connection_when_the_gateway_drains() {
    let (gateway, _daemon, _serving) = gateway_with(3).await;
    let (_head, mut stream) = http_10(&gateway, "GET", "").await;
    let ended = tokio::spawn(gateway.end());
    let mut body = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut body)).await.expect("the connection ends").unwrap();
    assert!(body.contains("event: stream\n") && body.ends_with("id: e-3\n\n"), "{body}");
    ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn head_of_the_stream_promises_no_length() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    let (old, mut rest) = http_10(&gateway, "HEAD", "").await;
    let mut body = Vec::new();
    timeout(TIMEOUT, rest.read_to_end(&mut body)).await.unwrap().unwrap();
    assert!(body.is_empty(), "{body:?}");
    let new = gateway.ask("HEAD", "/news/stream", "").await;
    for head in [old, new] {
        assert!(head.contains(" 200 OK\r\n") && head.contains("content-type: text/event-stream"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
    }
}

/// nginx with a `proxy_pass` and nothing else, as most people begin: HTTP/1.0 to the gateway, and buffering on.
struct PlainNginx {
    child: Child,
    endpoint: Endpoint,
    _folder: tempfile::TempDir,
}

impl PlainNginx {
    /// `None` where nginx is not installed.
    async fn start(gateway: &Gateway) -> Option<Self> {
        let binary =
            ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists())?;
        let folder = tempfile::tempdir().unwrap();
        let address = harness::free_address();
        let here = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {here}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log stderr warn;\nworker_processes 1;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}server {{\nlisten {address};\n\
             location / {{ proxy_pass http://{}; }}\n}}\n}}\n",
            gateway.address
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(binary)
            .args(["-e", "stderr", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { child, endpoint: Endpoint { address }, _folder: folder };
        let up = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(TIMEOUT, up).await.unwrap();
        Some(nginx)
    }
}

impl Drop for PlainNginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_plain_proxy_pass_of_nginx_events_arrive_while_the_stream_is_open() {
    let (gateway, daemon, _serving) = gateway_with(3).await;
    let Some(nginx) = PlainNginx::start(&gateway).await else {
        eprintln!("SKIPPED: nginx is not installed; its plain proxy_pass was not tested");
        return;
    };
    let mut client = nginx.endpoint.stream("?snapshot=2", "").await;
    assert_eq!(client.ids(2).await, ["e-2", "e-3"]);
    for seq in 4..=6 {
        daemon.publish("a");
        assert_eq!(client.ids(1).await, [format!("e-{seq}")]);
    }
    let mut resumed = nginx.endpoint.stream("", "last-event-id: e-4\r\n").await;
    assert_eq!(resumed.hello().await["resume"], "exact");
    assert_eq!(resumed.ids(2).await, ["e-5", "e-6"]);
}
