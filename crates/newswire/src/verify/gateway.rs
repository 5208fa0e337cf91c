//! The gateway as its clients use it: probes, streams as a browser opens them, and streams that are aborted.

use std::{fmt, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use news::Cursor;
use reqwest::{Client, Response, StatusCode, header::HeaderValue};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_util::{bytes::BytesMut, codec::Decoder as _};
use url::Url;

use super::probes::LIMIT;

/// How long opening a stream may take.
const OPEN_WITHIN: Duration = Duration::from_secs(3);
/// Largest answer to a probe, in bytes.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest block of a stream, in bytes.
const BLOCK_BYTES_MAX: usize = wire::Subscription::BLOCK_BYTES_MAX;

/// A client of one gateway; cheap to clone.
#[derive(Clone)]
pub(super) struct GatewayClient {
    base: Url,
    /// Where to connect for a stream that is aborted.
    address: SocketAddr,
    client: Client,
    authorization: Option<HeaderValue>,
}

impl fmt::Display for GatewayClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.base.scheme(), self.base.authority().rsplit('@').next().unwrap_or_default())
    }
}

/// What a stream had received when it was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstResponse {
    /// It did not wait for anything.
    NotAwaited,
    /// Its first event.
    Stream,
    /// The request to reconnect later: the gateway is full, or draining.
    Full,
}

/// A stream that is to be aborted.
pub(super) struct AbortedStream {
    socket: TcpStream,
    /// What it has received.
    pub(super) first_response: FirstResponse,
}

impl GatewayClient {
    /// Looks the name up; does not connect yet.
    pub(super) async fn connect(base: &Url, token: Option<&str>) -> anyhow::Result<Self> {
        // An error means that a provider is installed already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .tls_certs_only([])
            .connect_timeout(OPEN_WITHIN)
            .build()
            .context("create an HTTP client")?;
        let host = base.host_str().context("the URL has no host")?;
        let port = base.port_or_known_default().context("the URL has no port")?;
        let found = timeout(OPEN_WITHIN, tokio::net::lookup_host(format!("{host}:{port}"))).await;
        let address = found
            .context("the host lookup timed out")?
            .with_context(|| format!("look up {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        let bearer = |token| HeaderValue::try_from(format!("Bearer {token}")).context("use the token");
        let mut authorization = token.map(bearer).transpose()?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Ok(Self { base: base.clone(), address, client, authorization })
    }

    /// Requests a page; returns how long the complete answer took.
    ///
    /// # Errors
    /// If the status is not 200, or the answer took more than [`LIMIT`].
    pub(super) async fn probe(&self, path: &str) -> Result<Duration, String> {
        let start = Instant::now();
        match timeout(LIMIT, self.page(path)).await {
            Ok(answer) => answer.map(|_| start.elapsed()),
            Err(_) => Err(format!("no answer within {LIMIT:?}")),
        }
    }

    async fn page(&self, path: &str) -> Result<Vec<u8>, String> {
        let url = self.base.join(path).map_err(|error| error.to_string())?;
        let mut answer = self.client.get(url).send().await.map_err(|error| innermost(&error))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| innermost(&error))? {
            body.extend_from_slice(&piece);
            if body.len() > PAGE_BYTES_MAX {
                return Err(format!("the answer is larger than {PAGE_BYTES_MAX} bytes"));
            }
        }
        if status == StatusCode::OK { Ok(body) } else { Err(format!("{path} was answered with {status}")) }
    }

    /// The number of open streams, from `/health`.
    pub(super) async fn clients(&self) -> Option<u64> {
        let page = timeout(LIMIT, self.page("/health")).await.ok()?.ok()?;
        serde_json::from_slice::<Value>(&page).ok()?["clients"].as_u64()
    }

    /// Opens a stream as a browser would, with the last id it has seen.
    pub(super) async fn stream(&self, path: &str, last: Option<&Cursor>) -> Result<ClientStream, String> {
        let url = self.base.join(path).map_err(|error| error.to_string())?;
        let mut request = self.client.get(url).header("accept", "text/event-stream");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization.clone());
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = match timeout(OPEN_WITHIN, request.send()).await {
            Ok(sent) => sent.map_err(|error| innermost(&error))?,
            Err(_) => return Err(format!("no stream within {OPEN_WITHIN:?}")),
        };
        match response.status() {
            StatusCode::OK => {
                Ok(ClientStream { response, decoder: russe::Decoder::default(), buffer: BytesMut::new() })
            }
            StatusCode::UNAUTHORIZED => {
                Err("the gateway requires a token: name a file that contains one with --token-file"
                    .to_owned())
            }
            status => Err(format!("the request for a stream was answered with {status}")),
        }
    }

    /// Opens a stream on a bare socket, and waits for its first event if `wait`.
    pub(super) async fn stream_to_abort(&self, wait: bool) -> Result<AbortedStream, String> {
        let open = async {
            let mut socket = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
            let host = self.base.authority().rsplit('@').next().unwrap_or_default();
            let mut request = format!(
                "GET /news/stream?snapshot=50 HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n"
            );
            if let Some(token) = self.authorization.as_ref().and_then(|value| value.to_str().ok()) {
                request.push_str(&format!("Authorization: {token}\r\n"));
            }
            request.push_str("\r\n");
            socket.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
            let first_response =
                if wait { read_first_response(&mut socket).await? } else { FirstResponse::NotAwaited };
            Ok(AbortedStream { socket, first_response })
        };
        timeout(OPEN_WITHIN, open).await.unwrap_or_else(|_| Err(format!("no stream within {OPEN_WITHIN:?}")))
    }
}

/// Reads until it is clear how the gateway answers.
async fn read_first_response(socket: &mut TcpStream) -> Result<FirstResponse, String> {
    const HEAD_BYTES_MAX: usize = 64 * 1024;
    let mut received = Vec::new();
    let has = |received: &[u8], part: &[u8]| received.windows(part.len()).any(|window| window == part);
    while received.len() < HEAD_BYTES_MAX {
        let mut piece = [0; 2048];
        let read = socket.read(&mut piece).await.map_err(|error| error.to_string())?;
        received.extend_from_slice(&piece[..read]);
        if received.len() >= 12 && !received.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&received[..12]).into_owned());
        }
        if has(&received, b"event: stream") {
            return Ok(FirstResponse::Stream);
        }
        // A full gateway says `retry:` and ends, by an empty chunk or by closing.
        if read == 0 || has(&received, b"\r\n0\r\n\r\n") {
            return if has(&received, b"retry:") {
                Ok(FirstResponse::Full)
            } else {
                Err("the gateway closed the connection without an answer".to_owned())
            };
        }
    }
    Err("the stream does not begin with its first event".to_owned())
}

impl AbortedStream {
    /// Closes the connection in the middle of the stream, by a reset or in order.
    pub(super) fn abort(self, reset: bool) {
        if reset {
            // If this fails, the socket is closed in order.
            self.socket.set_zero_linger().ok();
        }
        drop(self.socket);
    }
}

/// An open stream.
pub(super) struct ClientStream {
    response: Response,
    decoder: russe::Decoder,
    buffer: BytesMut,
}

impl ClientStream {
    /// The next block.
    ///
    /// # Errors
    /// If nothing is received for `silence`, the stream ends, or is not an event stream.
    pub(super) async fn next(&mut self, silence: Duration) -> Result<russe::Message, String> {
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(russe::Event::Message(message))) => return Ok(message),
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(error) => return Err(format!("not an event stream: {error}")),
            }
            if self.buffer.len() > BLOCK_BYTES_MAX {
                return Err(format!("a block is larger than {BLOCK_BYTES_MAX} bytes"));
            }
            match timeout(silence, self.response.chunk()).await {
                Ok(Ok(Some(piece))) => self.buffer.extend_from_slice(&piece),
                Ok(Ok(None)) => return Err("the gateway ended the stream".to_owned()),
                Ok(Err(error)) => return Err(format!("the stream broke: {}", innermost(&error))),
                Err(_) => return Err(format!("nothing received for {silence:?}")),
            }
        }
    }

    /// The first block, which must be the event `stream`.
    pub(super) async fn first_event(&mut self) -> Result<wire::StreamOpened, String> {
        let message = self.next(OPEN_WITHIN).await?;
        if message.event.as_deref() != Some("stream") {
            return Err(format!("the first event is {:?}, expected `stream`", message.event.as_deref()));
        }
        serde_json::from_str(&message.data).map_err(|error| format!("invalid first event: {error}"))
    }
}

/// The innermost cause; the outer ones only repeat the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
