//! The gateway from the outside: what a browser, a probe and a client that hangs up are to it.

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

/// A gateway; cheap to clone.
#[derive(Clone)]
pub(super) struct GatewayClient {
    base: Url,
    /// What is dialled for a stream that is aborted.
    address: SocketAddr,
    client: Client,
    authorization: Option<HeaderValue>,
}

impl fmt::Display for GatewayClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.base.scheme(), self.base.authority().rsplit('@').next().unwrap_or_default())
    }
}

/// What a stream had said when it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstResponse {
    /// Nothing was waited for.
    Unheard,
    /// Its first event.
    Stream,
    /// To come back later: the gateway is full, or draining.
    Full,
}

/// A stream that is to be aborted.
pub(super) struct AbortedStream {
    socket: TcpStream,
    /// What it had said.
    pub(super) opened: FirstResponse,
}

impl GatewayClient {
    /// Looks the name up; dials nothing yet.
    pub(super) async fn connect(base: &Url, token: Option<&str>) -> anyhow::Result<Self> {
        // Err means that somebody installed one before us, which serves as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .tls_certs_only([])
            .connect_timeout(OPEN_WITHIN)
            .build()
            .context("make a client")?;
        let host = base.host_str().context("the address has no host")?;
        let port = base.port_or_known_default().context("the address has no port")?;
        let found = timeout(OPEN_WITHIN, tokio::net::lookup_host(format!("{host}:{port}"))).await;
        let address = found
            .context("looking up the host took too long")?
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

    /// Asks for a page; gives how long the whole answer took.
    ///
    /// # Errors
    /// When it is no 200, or took more than [`LIMIT`].
    pub(super) async fn probe(&self, path: &str) -> Result<Duration, String> {
        let start = Instant::now();
        match timeout(LIMIT, self.page(path)).await {
            Ok(answer) => answer.map(|_| start.elapsed()),
            Err(_) => Err(format!("no answer within {LIMIT:?}")),
        }
    }

    async fn page(&self, path: &str) -> Result<Vec<u8>, String> {
        let url = self.base.join(path).map_err(|error| error.to_string())?;
        let mut answer = self.client.get(url).send().await.map_err(|error| deepest(&error))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| deepest(&error))? {
            body.extend_from_slice(&piece);
            if body.len() > PAGE_BYTES_MAX {
                return Err(format!("an answer of more than {PAGE_BYTES_MAX} bytes"));
            }
        }
        if status == StatusCode::OK { Ok(body) } else { Err(format!("{path} answered {status}")) }
    }

    /// Streams open, as `/health` says.
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
            Ok(sent) => sent.map_err(|error| deepest(&error))?,
            Err(_) => return Err(format!("no stream within {OPEN_WITHIN:?}")),
        };
        match response.status() {
            StatusCode::OK => {
                Ok(ClientStream { response, decoder: russe::Decoder::default(), buffer: BytesMut::new() })
            }
            StatusCode::UNAUTHORIZED => {
                Err("the gateway asks for a token; name its file with --token-file".to_owned())
            }
            status => Err(format!("the stream was answered {status}")),
        }
    }

    /// Opens a stream on a bare socket; waits for its first event or not.
    pub(super) async fn doomed(&self, wait: bool) -> Result<AbortedStream, String> {
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
            let opened = if wait { first_words(&mut socket).await? } else { FirstResponse::Unheard };
            Ok(AbortedStream { socket, opened })
        };
        timeout(OPEN_WITHIN, open).await.unwrap_or_else(|_| Err(format!("no stream within {OPEN_WITHIN:?}")))
    }
}

/// Reads until it is clear what the gateway makes of the request.
async fn first_words(socket: &mut TcpStream) -> Result<FirstResponse, String> {
    const WORDS_BYTES_MAX: usize = 64 * 1024;
    let mut words = Vec::new();
    let has = |words: &[u8], part: &[u8]| words.windows(part.len()).any(|window| window == part);
    while words.len() < WORDS_BYTES_MAX {
        let mut piece = [0; 2048];
        let read = socket.read(&mut piece).await.map_err(|error| error.to_string())?;
        words.extend_from_slice(&piece[..read]);
        if words.len() >= 12 && !words.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&words[..12]).into_owned());
        }
        if has(&words, b"event: stream") {
            return Ok(FirstResponse::Stream);
        }
        // A full gateway says `retry:` and ends, by an empty chunk or by closing.
        if read == 0 || has(&words, b"\r\n0\r\n\r\n") {
            return if has(&words, b"retry:") {
                Ok(FirstResponse::Full)
            } else {
                Err("closed without a word".to_owned())
            };
        }
    }
    Err("the stream does not begin with its first event".to_owned())
}

impl AbortedStream {
    /// Leaves, whatever was still to come: by a reset, or by closing.
    pub(super) fn abort(self, reset: bool) {
        if reset {
            // Where it cannot be set, the socket is closed like the others.
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
    /// When nothing comes for that long, or the stream ends or is none.
    pub(super) async fn next(&mut self, silence: Duration) -> Result<russe::Message, String> {
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(russe::Event::Message(message))) => return Ok(message),
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(error) => return Err(format!("not an event stream: {error}")),
            }
            if self.buffer.len() > BLOCK_BYTES_MAX {
                return Err(format!("a block of more than {BLOCK_BYTES_MAX} bytes"));
            }
            match timeout(silence, self.response.chunk()).await {
                Ok(Ok(Some(piece))) => self.buffer.extend_from_slice(&piece),
                Ok(Ok(None)) => return Err("the gateway ended the stream".to_owned()),
                Ok(Err(error)) => return Err(format!("the stream broke: {}", deepest(&error))),
                Err(_) => return Err(format!("silence for {silence:?}")),
            }
        }
    }

    /// The first block, which must be the event `stream`.
    pub(super) async fn hello(&mut self) -> Result<wire::StreamOpened, String> {
        let message = self.next(OPEN_WITHIN).await?;
        if message.event.as_deref() != Some("stream") {
            return Err(format!("the first event is {:?} and not `stream`", message.event.as_deref()));
        }
        serde_json::from_str(&message.data).map_err(|error| format!("bad first event: {error}"))
    }
}

/// The innermost reason says it best; the outer ones repeat the address.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
