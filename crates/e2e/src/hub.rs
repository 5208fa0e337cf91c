//! A WebSub hub: takes subscriptions, verifies them as it was told to, and pushes what it is given.

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

/// A subscription as it was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When.
    pub at: Instant,
    /// The fields of the form.
    pub form: BTreeMap<String, String>,
    /// What the callback answered to the question whether it is wanted; nothing while nobody asked.
    pub verified: Option<(u16, String)>,
}

impl Asked {
    /// A field of the form, without its `hub.`; empty when it is not there.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.form.get(&format!("hub.{name}")).map_or("", String::as_str)
    }
}

/// The hub; it ends when this is dropped.
pub struct Hub {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

/// What is sent back before anything is verified.
const CHALLENGE: &str = "a & <b> challenge";
/// How long a callback may take.
const CALLBACK_WITHIN: Duration = Duration::from_secs(10);

impl Hub {
    /// Starts on a free port of 127.0.0.1; grants leases of that many seconds.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(lease_s: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&asked), lease_s));
        Ok(Self { address, asked, task })
    }

    fn all(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().expect("nobody panics while holding it")
    }

    /// Its address, for the `Link` of a feed.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hub", self.address)
    }

    /// Everything it was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.all().clone()
    }

    /// The last subscription that was verified.
    #[must_use]
    pub fn subscription(&self) -> Option<Asked> {
        let is_good = |asked: &&Asked| {
            asked.field("mode") == "subscribe" && asked.verified == Some((200, CHALLENGE.to_owned()))
        };
        self.all().iter().rev().find(is_good).cloned()
    }

    /// Pushes to a subscription, signed with `secret` by SHA-256; gives the status of the answer.
    ///
    /// # Errors
    /// When nobody answers.
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

    /// Asks a callback whether it wants this, as a hub would: status and body of the answer.
    ///
    /// # Errors
    /// When nobody answers.
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

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where an address of 127.0.0.1 is asked, and for what.
fn target(url: &str) -> io::Result<(http::Address, String)> {
    let url = Url::parse(url).map_err(io::Error::other)?;
    let addresses = url.socket_addrs(|| None)?;
    let address = *addresses.first().ok_or_else(|| io::Error::other("a callback without an address"))?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok((address.into(), format!("{}{query}", url.path())))
}

async fn accept(listener: TcpListener, asked: Arc<Mutex<Vec<Asked>>>, lease_s: u64) {
    while let Ok((socket, _)) = listener.accept().await {
        let asked = Arc::clone(&asked);
        tokio::spawn(async move {
            // Whoever does not send a form is not answered.
            if let Ok(form) = read_form(socket).await {
                take(&asked, form, lease_s).await;
            }
        });
    }
}

/// Reads the form and accepts it.
async fn read_form(socket: TcpStream) -> io::Result<BTreeMap<String, String>> {
    let mut socket = BufReader::new(socket);
    let mut length = 0;
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    socket.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await?;
    socket.shutdown().await?;
    Ok(url::form_urlencoded::parse(&body).into_owned().collect())
}

/// Remembers what was asked, and asks back.
async fn take(all: &Mutex<Vec<Asked>>, form: BTreeMap<String, String>, lease_s: u64) {
    let asked = Asked { at: Instant::now(), form, verified: None };
    let number = {
        let mut all = all.lock().expect("nobody panics while holding it");
        all.push(asked.clone());
        all.len() - 1
    };
    let (callback, mode, topic) = (asked.field("callback"), asked.field("mode"), asked.field("topic"));
    let answer = Hub::verify(callback, mode, topic, lease_s).await;
    let answer = answer.unwrap_or_else(|error| (0, error.to_string()));
    all.lock().expect("nobody panics while holding it")[number].verified = Some(answer);
}
