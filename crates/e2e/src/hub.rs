//! A WebSub hub: accepts subscription requests, verifies them, and pushes what a test passes to it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use ring::hmac;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};
use url::Url;

use crate::http;

/// A subscription request as the hub received it.
#[derive(Clone, Debug)]
pub struct HubRequest {
    /// When.
    pub at: Instant,
    /// Request line and headers.
    pub head: String,
    /// The fields of the form.
    pub form: BTreeMap<String, String>,
    /// Status and body of the callback's answer to the verification; `None` until it was sent.
    pub verified: Option<(u16, String)>,
}

impl HubRequest {
    /// A field of the form by its name without `hub.`; empty if it is missing.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.form.get(&format!("hub.{name}")).map_or("", String::as_str)
    }
}

/// A running hub; stopped when dropped.
pub struct TestHub {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<HubRequest>>>,
    task: JoinHandle<()>,
}

/// `hub.challenge`, which the callback must echo.
const CHALLENGE: &str = "a & <b> challenge";
/// How long a callback may take.
const CALLBACK_WITHIN: Duration = Duration::from_secs(60);

impl TestHub {
    /// Starts a hub on a free port of 127.0.0.1 that grants leases of `lease_s` seconds.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(lease_s: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let requests = Arc::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&requests), lease_s));
        Ok(Self { address, requests, task })
    }

    fn all(&self) -> MutexGuard<'_, Vec<HubRequest>> {
        self.requests.lock().expect("no thread panics while holding it")
    }

    /// Its address, for the `Link` of a feed.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hub", self.address)
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<HubRequest> {
        self.all().clone()
    }

    /// The last subscription request that was verified.
    #[must_use]
    pub fn verified_subscription(&self) -> Option<HubRequest> {
        let is_verified = |request: &&HubRequest| {
            request.field("mode") == "subscribe" && request.verified == Some((200, CHALLENGE.to_owned()))
        };
        self.all().iter().rev().find(is_verified).cloned()
    }

    /// Pushes to a callback, signed with `secret` (HMAC-SHA256), and returns the status of the response.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn push(callback: &str, body: &str, secret: &str) -> io::Result<u16> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut signature = "sha256=".to_owned();
        for byte in hmac::sign(&key, body.as_bytes()).as_ref() {
            write!(signature, "{byte:02x}").map_err(io::Error::other)?;
        }
        let (address, path) = target(callback)?;
        let headers = [
            ("X-Hub-Signature", signature.as_str()),
            ("Content-Type", "application/rss+xml"),
            ("Connection", "close"),
        ];
        Ok(http::send("POST", &address, &path, &headers, body).await?.status)
    }

    /// Sends a verification of intent (W3C WebSub, section 5.3); returns status and body of the response.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn verify(callback: &str, mode: &str, topic: &str, lease_s: u64) -> io::Result<(u16, String)> {
        let mut url = Url::parse(callback).map_err(io::Error::other)?;
        url.query_pairs_mut().extend_pairs([
            ("hub.mode", mode),
            ("hub.topic", topic),
            ("hub.challenge", CHALLENGE),
            ("hub.lease_seconds", &lease_s.to_string()),
        ]);
        let (address, path) = target(url.as_str())?;
        http::fetch(&address, &path, CALLBACK_WITHIN).await
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Address and path of a callback URL on this machine.
fn target(url: &str) -> io::Result<(http::Address, String)> {
    let url = Url::parse(url).map_err(io::Error::other)?;
    let addresses = url.socket_addrs(|| None)?;
    let address = *addresses.first().ok_or_else(|| io::Error::other("a callback without an address"))?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok((address.into(), format!("{}{query}", url.path())))
}

async fn accept(listener: TcpListener, requests: Arc<Mutex<Vec<HubRequest>>>, lease_s: u64) {
    while let Ok((socket, _)) = listener.accept().await {
        let requests = Arc::clone(&requests);
        tokio::spawn(async move {
            // A request that is not a form gets no response.
            if let Ok((head, form)) = read_form(socket).await {
                record_and_verify(&requests, head, form, lease_s).await;
            }
        });
    }
}

/// Reads the head and the form of a request and answers 202.
async fn read_form(socket: TcpStream) -> io::Result<(String, BTreeMap<String, String>)> {
    let mut socket = BufReader::new(socket);
    let (mut length, mut head) = (0, String::new());
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    socket.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await?;
    socket.shutdown().await?;
    Ok((head, url::form_urlencoded::parse(&body).into_owned().collect()))
}

/// Records a request, then verifies it.
async fn record_and_verify(
    all: &Mutex<Vec<HubRequest>>,
    head: String,
    form: BTreeMap<String, String>,
    lease_s: u64,
) {
    let request = HubRequest { at: Instant::now(), head, form, verified: None };
    let number = {
        let mut all = all.lock().expect("no thread panics while holding it");
        all.push(request.clone());
        all.len() - 1
    };
    let (callback, mode, topic) = (request.field("callback"), request.field("mode"), request.field("topic"));
    let answer = TestHub::verify(callback, mode, topic, lease_s).await;
    let answer = answer.unwrap_or_else(|error| (0, error.to_string()));
    all.lock().expect("no thread panics while holding it")[number].verified = Some(answer);
}
