//! Plain HTTP on one connection per request, with the time of each step. A pooled client would hide what matters here:
//! whether connecting works, and how long the first byte takes.

use std::{io, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{part::Part, program::GATEWAY};

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The answers of a gateway.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HttpProbes {
    pub(crate) address: String,
    pub(crate) probes: Vec<HttpProbe>,
    pub(crate) ready: Part<Ready>,
}

impl HttpProbes {
    /// Whether the answer to `/health` is that of a gateway of ours.
    pub(crate) fn is_ours(&self) -> bool {
        self.health().is_some()
    }

    /// The answer to `/health`, if it is that of a gateway of ours.
    pub(crate) fn health(&self) -> Option<&PublicHealth> {
        self.probes.iter().find_map(|probe| probe.health.as_ref())
    }
}

/// One request and its answer.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct HttpProbe {
    pub(crate) path: &'static str,
    /// Both since the request began.
    pub(crate) connect_ms: Option<f64>,
    pub(crate) first_byte_ms: Option<f64>,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    /// There was no complete answer in time.
    #[serde(skip)]
    pub(crate) timed_out: bool,
    /// The answer to `/health`, if it is that of a gateway of ours.
    pub(crate) health: Option<PublicHealth>,
}

/// The answer of a gateway to `/health`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PublicHealth {
    pub(crate) status: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// In its own pid namespace. An older gateway does not say it.
    pub(crate) pid: Option<i32>,
    pub(crate) uptime_s: u64,
}

impl PublicHealth {
    fn of_gateway(body: &[u8]) -> Option<Self> {
        let health: Self = serde_json::from_slice(body).ok()?;
        (health.status == "ok" && health.name == GATEWAY).then_some(health)
    }
}

/// The answer to `/ready`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ready {
    pub(crate) ready: bool,
    pub(crate) reasons: Vec<String>,
    pub(crate) draining: bool,
    pub(crate) wire: ReadyWire,
    pub(crate) loops: Vec<ReadyLoop>,
}

/// The wire, in the answer to `/ready`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReadyWire {
    pub(crate) connected: Option<bool>,
    pub(crate) heartbeat_age_ms: Option<u64>,
}

/// A stalled loop, in the answer to `/ready`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReadyLoop {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) stalled: bool,
    pub(crate) beat_ms_ago: u64,
    pub(crate) culprit: Option<String>,
}

/// The text of a timeout.
pub(crate) fn no_answer_within(limit: Duration) -> String {
    format!("no answer within {limit:?}")
}

/// A complete answer.
struct HttpAnswer {
    status: u16,
    body: Vec<u8>,
}

/// Requests all `paths` at the same time, each within `limit`.
pub(crate) async fn probe_all(
    host: &str,
    address: &str,
    paths: &[&'static str],
    limit: Duration,
) -> HttpProbes {
    let requests = paths.iter().map(|path| probe(host, address, path, limit));
    let mut probes = Vec::new();
    let mut ready = Part::not_asked();
    for (probe, body) in futures_util::future::join_all(requests).await {
        if probe.path == "/ready" {
            ready = match &probe.error {
                Some(error) if probe.timed_out => Part::timed_out(error.clone()),
                Some(error) => Part::missing(error.clone()),
                // A gateway over its limits refuses, which says nothing about it.
                None if !matches!(probe.status, Some(200 | 503)) => {
                    Part::missing(format!("/ready was answered with {}", probe.status.unwrap_or(0)))
                }
                None => Part::from_result(
                    serde_json::from_slice(&body).map_err(|_| "the answer is not that of a newswire gateway"),
                ),
            };
        }
        probes.push(probe);
    }
    HttpProbes { address: address.to_owned(), probes, ready }
}

async fn probe(host: &str, address: &str, path: &'static str, limit: Duration) -> (HttpProbe, Vec<u8>) {
    let mut probe = HttpProbe { path, ..HttpProbe::default() };
    let began = Instant::now();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        probe.connect_ms = Some(millis(began));
        send(&mut stream, host, path, "*/*").await?;
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.map_err(cut_off)?;
        probe.first_byte_ms = Some(millis(began));
        receive(&mut stream, &first).await
    };
    let answer = match timeout(limit, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, no_answer_within(limit))),
    };
    match answer {
        Ok(answer) => {
            probe.status = Some(answer.status);
            if path == "/health" && answer.status == 200 {
                probe.health = PublicHealth::of_gateway(&answer.body);
            }
            (probe, answer.body)
        }
        Err(error) => {
            probe.timed_out = error.kind() == io::ErrorKind::TimedOut;
            probe.error = Some(error.to_string());
            (probe, Vec::new())
        }
    }
}

/// HTTP/1.0: the body is not chunked and ends with the connection.
async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    host: &str,
    path: &str,
    accept: &str,
) -> io::Result<()> {
    let head = format!(
        "GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: {accept}\r\nUser-Agent: newswire-doctor\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), first: &[u8]) -> io::Result<HttpAnswer> {
    let mut bytes = first.to_vec();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
    parse(bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(mut bytes: Vec<u8>) -> Option<HttpAnswer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let body = bytes.split_off(end + 4);
    Some(HttpAnswer { status, body })
}

fn cut_off(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "connection closed without an answer"),
        _ => error,
    }
}

fn millis(began: Instant) -> f64 {
    (began.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

/// The address at which a client on this machine reaches a listener.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let ip = match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => listen.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let answer = parse(b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\n{}\r\n\r\n".to_vec()).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (503, b"{}\r\n\r\n".as_slice()));
        assert!(parse(b"SSH-2.0-OpenSSH\r\n".to_vec()).is_none());
        assert!(parse(b"HTTP/1.1 2\r\n\r\n".to_vec()).is_none());
    }

    #[test]
    fn an_unspecified_address_is_reached_over_loopback() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:8700"), "127.0.0.1:8700");
        assert_eq!(reached("[::]:8700"), "[::1]:8700");
        assert_eq!(reached("10.0.0.5:80"), "10.0.0.5:80");
    }

    #[test]
    fn the_answer_of_an_older_gateway_to_ready_is_read() {
        let ready: Ready = serde_json::from_str(r#"{"ready":false,"reasons":["draining"]}"#).unwrap();
        assert!(!ready.ready && ready.loops.is_empty() && ready.wire.connected.is_none());
    }
}
