//! A web server that publishes feeds: well-behaved unless a test sets another [`Behaviour`]. It records all requests.
//!
//! It works on bare sockets, because it must do what no server framework allows: never answer, stall in the middle of a
//! body, drip, cut off, reset.

mod document;
mod serve;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

pub use self::document::DocumentFormat;
use self::document::FeedEntry;
use crate::Published;

/// How the server answers requests for one path.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers at once; conditional requests with 304 if nothing has changed.
    Honest,
    /// Waits that long, then answers as [`Behaviour::Honest`].
    Late(Duration),
    /// Reads the request and never answers.
    SilentHead,
    /// Sends the head and half of the body, then nothing more.
    SilentBody,
    /// Sends the head at once and then that many bytes of the body at a time, with a pause after each.
    Drip(usize, Duration),
    /// Announces the whole body, sends half of it and closes the connection.
    CutOff,
    /// Resets the connection (TCP RST) after reading the request.
    Reset,
    /// Answers with a status, headers (`Retry-After: 60`), and a short text.
    Status(u16, Vec<String>),
    /// Redirects: status and `Location`.
    Redirect(u16, String),
    /// Answers one request an hour as [`Behaviour::Honest`], and any other with 429 and a `Retry-After` of a day.
    OnceAnHour,
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its head had been read.
    pub at: Instant,
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// In the order sent, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status of the response; `None` if there was none.
    pub answered: Option<u16>,
}

impl Request {
    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// How much of a feed is in its document: the newest entries, as publishers do it.
#[derive(Clone, Copy, Debug)]
pub struct FeedShape {
    /// Entries at most.
    pub window: usize,
    /// About the bytes at most; the newest entry is there in any case.
    pub document_bytes_max: usize,
}

impl Default for FeedShape {
    fn default() -> Self {
        Self { window: 200, document_bytes_max: usize::MAX }
    }
}

impl FeedShape {
    fn newest(self, entries: &[FeedEntry]) -> &[FeedEntry] {
        let mut bytes = 0_usize;
        let fits = |entry: &&FeedEntry| {
            bytes = bytes.saturating_add(entry.bytes());
            bytes <= self.document_bytes_max
        };
        let count = entries.iter().rev().take(self.window).take_while(fits).count();
        &entries[entries.len() - count.max(1).min(entries.len())..]
    }
}

/// A running server; dropping it closes all connections.
pub struct Origin {
    address: SocketAddr,
    state: Arc<Mutex<OriginState>>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the server has, by path.
#[derive(Default)]
struct OriginState {
    resources: BTreeMap<String, Resource>,
    requests: Vec<Request>,
    published: u64,
}

/// What is served at one path.
struct Resource {
    content: Content,
    behaviour: Behaviour,
    /// Counts the changes; validators are derived from it.
    version: u64,
    /// Sent with every answer.
    headers: Vec<String>,
}

enum Content {
    Feed { name: String, format: DocumentFormat, shape: FeedShape, entries: Vec<FeedEntry> },
    File { bytes: Arc<[u8]>, media_type: &'static str },
}

impl Origin {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_on_hosts(1).await
    }

    /// The same on `hosts` addresses, 127.0.0.1 and the following ones, each of which is a host of its own to a daemon.
    ///
    /// # Errors
    /// If no port is free on all of them.
    pub async fn start_on_hosts(hosts: u8) -> std::io::Result<Self> {
        const ATTEMPTS: usize = 8;
        let mut attempts = 0;
        let listeners = loop {
            attempts += 1;
            match Self::listen(hosts).await {
                // The port of the first address is in use on another one.
                Err(_) if attempts < ATTEMPTS => {}
                listeners => break listeners?,
            }
        };
        let address = listeners[0].local_addr()?;
        let state = Arc::new(Mutex::new(OriginState::default()));
        let serve = |listener| tokio::spawn(serve::accept(listener, Arc::clone(&state)));
        let tasks = listeners.into_iter().map(serve).collect();
        Ok(Self { address, state, tasks })
    }

    async fn listen(hosts: u8) -> std::io::Result<Vec<TcpListener>> {
        let first = TcpListener::bind("127.0.0.1:0").await?;
        let port = first.local_addr()?.port();
        let mut listeners = vec![first];
        for host in 2..=hosts {
            listeners.push(TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port)).await?);
        }
        Ok(listeners)
    }

    fn state(&self) -> MutexGuard<'_, OriginState> {
        self.state.lock().expect("no thread panics while holding it")
    }

    /// Adds a feed without entries and returns its URL.
    pub fn add_feed(&self, name: &str, format: DocumentFormat) -> String {
        self.add_shaped_feed(name, format, FeedShape::default())
    }

    /// The same on another host, of those on which it was started: 1 is the one of [`Origin::url`].
    pub fn add_feed_on(&self, host: u8, name: &str, format: DocumentFormat) -> String {
        self.add_feed(name, format);
        format!("http://127.0.0.{host}:{}{}", self.address.port(), path_of(name))
    }

    /// The same, with a document of that shape.
    pub fn add_shaped_feed(&self, name: &str, format: DocumentFormat, shape: FeedShape) -> String {
        let content = Content::Feed { name: name.to_owned(), format, shape, entries: Vec::new() };
        self.state().resources.insert(
            path_of(name),
            Resource { content, behaviour: Behaviour::Honest, version: 0, headers: Vec::new() },
        );
        self.url(&path_of(name))
    }

    /// Serves a file and returns its URL.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn add_file(&self, file: &Path) -> std::io::Result<String> {
        let bytes: Arc<[u8]> = std::fs::read(file)?.into();
        let media_type = Self::media_type_of(file);
        let mut state = self.state();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/files/{}/{}", state.resources.len(), percent_encoded(&name));
        let content = Content::File { bytes, media_type };
        state.resources.insert(
            path.clone(),
            Resource { content, behaviour: Behaviour::Honest, version: 0, headers: Vec::new() },
        );
        Ok(self.url(&path))
    }

    /// Serves this RSS document as the feed `name` from now on, and returns its URL.
    pub fn set_document(&self, name: &str, rss: &str) -> String {
        let content = Content::File { bytes: rss.as_bytes().into(), media_type: "application/rss+xml" };
        let mut state = self.state();
        let version = state.resources.get(&path_of(name)).map_or(0, |resource| resource.version + 1);
        let resource = Resource { content, behaviour: Behaviour::Honest, version, headers: Vec::new() };
        state.resources.insert(path_of(name), resource);
        self.url(&path_of(name))
    }

    /// The media type that a file is served with.
    #[must_use]
    pub fn media_type_of(file: &Path) -> &'static str {
        match file.extension().and_then(|e| e.to_str()) {
            Some("json") => "application/feed+json",
            Some("rss") => "application/rss+xml",
            Some("atom") => "application/atom+xml",
            Some("html") => "text/html; charset=utf-8",
            _ => "application/xml",
        }
    }

    /// The files of a folder that look like feeds, in the order of their names.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn feeds_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let feed = [".xml", ".rss", ".atom", ".json"].iter().any(|end| name.ends_with(end));
            if path.is_dir() {
                files.extend(Self::feeds_in(&path)?);
            } else if feed && !name.ends_with(".serde.json") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Adds an entry to a feed and returns its guid; the next response has it.
    ///
    /// # Panics
    /// If there is no such feed.
    pub fn publish(&self, name: &str, title: &str) -> String {
        self.publish_article(name, title, 0)
    }

    /// The same with an article of about that many bytes; 0: only a summary.
    ///
    /// # Panics
    /// If there is no such feed.
    pub fn publish_article(&self, name: &str, title: &str, article_bytes: usize) -> String {
        let mut state = self.state();
        state.published += 1;
        let number = state.published;
        let resource =
            state.resources.get_mut(&path_of(name)).expect("the feed was added with Origin::add_feed");
        resource.version += 1;
        let Content::Feed { entries, .. } = &mut resource.content else {
            unreachable!("feeds and files differ by path")
        };
        let entry = FeedEntry::new(name, number, title, article_bytes);
        let guid = entry.guid.clone();
        entries.push(entry);
        guid
    }

    /// Changes the title of an entry, and with it the document.
    ///
    /// # Panics
    /// If there is no such feed or entry.
    pub fn edit(&self, name: &str, guid: &str, title: &str) {
        let mut state = self.state();
        let resource =
            state.resources.get_mut(&path_of(name)).expect("the feed was added with Origin::add_feed");
        resource.version += 1;
        let Content::Feed { entries, .. } = &mut resource.content else {
            unreachable!("feeds and files differ by path")
        };
        let entry = entries.iter_mut().find(|entry| entry.guid == guid).expect("the entry was published");
        title.clone_into(&mut entry.title);
    }

    /// Everything published so far: the guids of each feed, in the order of publication.
    #[must_use]
    pub fn published(&self) -> Published {
        let mut published = Published::new();
        for resource in self.state().resources.values() {
            if let Content::Feed { name, entries, .. } = &resource.content {
                published.insert(name.clone(), entries.iter().map(|entry| entry.guid.clone()).collect());
            }
        }
        published
    }

    /// Sets how a feed answers from its next request on.
    ///
    /// # Panics
    /// If there is no such feed.
    pub fn set_behaviour(&self, name: &str, behaviour: Behaviour) {
        self.state()
            .resources
            .get_mut(&path_of(name))
            .expect("the feed was added with Origin::add_feed")
            .behaviour = behaviour;
    }

    /// Adds a header to every document of a feed, such as `Link: <https://hub.example/>; rel="hub"`.
    ///
    /// # Panics
    /// If there is no such feed.
    pub fn add_header(&self, name: &str, header: &str) {
        let mut state = self.state();
        let resource =
            state.resources.get_mut(&path_of(name)).expect("the feed was added with Origin::add_feed");
        resource.headers.push(header.to_owned());
    }

    /// Removes the headers that were added to a feed.
    pub fn clear_headers(&self, name: &str) {
        if let Some(resource) = self.state().resources.get_mut(&path_of(name)) {
            resource.headers.clear();
        }
    }

    /// The requests for a feed so far.
    #[must_use]
    pub fn requests(&self, name: &str) -> Vec<Request> {
        let path = path_of(name);
        self.state().requests.iter().filter(|r| r.path == path).cloned().collect()
    }

    /// How many requests of feeds had no validators, beyond the first one of each feed.
    #[must_use]
    pub fn asked_anew(&self) -> usize {
        let state = self.state();
        let is_bare = |request: &&Request| {
            request.header("if-none-match").is_none() && request.header("if-modified-since").is_none()
        };
        let mut bare = BTreeMap::<&str, usize>::new();
        for request in state.requests.iter().filter(is_bare) {
            *bare.entry(request.path.as_str()).or_default() += 1;
        }
        bare.values().map(|count| count - 1).sum()
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> crate::http::Address {
        self.address.into()
    }

    /// The URL of a path on this server.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn path_of(name: &str) -> String {
    format!("/feeds/{name}")
}

fn percent_encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::http;

    async fn ask(
        origin: &Origin,
        name: &str,
        headers: &[(&str, &str)],
    ) -> std::io::Result<http::RawResponse> {
        http::get(&origin.address.into(), &path_of(name), headers).await
    }

    #[tokio::test]
    async fn a_published_entry_is_in_the_next_answer_and_changes_the_validators() {
        let origin = Origin::start().await.unwrap();
        origin.add_feed("a", DocumentFormat::Rss);
        let empty = ask(&origin, "a", &[]).await.unwrap();
        let etag = empty.header("etag").unwrap().to_owned();
        assert_eq!(ask(&origin, "a", &[("If-None-Match", &etag)]).await.unwrap().status, 304);
        let guid = origin.publish("a", "Rain & <wind>");
        let full = ask(&origin, "a", &[("If-None-Match", &etag)]).await.unwrap();
        assert_eq!(full.status, 200);
        let since = full.header("last-modified").unwrap().to_owned();
        let text = full.text().await.unwrap();
        assert!(text.contains(&guid) && text.contains("Rain &amp; &lt;wind&gt;"), "{text}");
        assert_eq!(ask(&origin, "a", &[("If-Modified-Since", &since)]).await.unwrap().status, 304);
        let answered: Vec<_> = origin.requests("a").iter().map(|r| r.answered).collect();
        assert_eq!(answered, [Some(200), Some(304), Some(200), Some(304)]);
    }

    #[tokio::test]
    async fn a_client_sees_every_kind_of_misbehaviour() {
        let origin = Origin::start().await.unwrap();
        origin.add_feed("a", DocumentFormat::Atom);
        origin.publish("a", "x");
        let ask_all = async || ask(&origin, "a", &[]).await?.text().await;
        let limit = Duration::from_millis(150);

        origin.set_behaviour("a", Behaviour::CutOff);
        assert_eq!(ask_all().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        origin.set_behaviour("a", Behaviour::Reset);
        assert_eq!(ask_all().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        for silent in
            [Behaviour::SilentHead, Behaviour::SilentBody, Behaviour::Drip(1, Duration::from_millis(20))]
        {
            origin.set_behaviour("a", silent.clone());
            assert!(tokio::time::timeout(limit, ask_all()).await.is_err(), "{silent:?}");
        }
        origin.set_behaviour("a", Behaviour::SilentBody);
        assert_eq!(tokio::time::timeout(limit, ask(&origin, "a", &[])).await.unwrap().unwrap().status, 200);
        origin.set_behaviour("a", Behaviour::Status(429, vec!["Retry-After: 60".to_owned()]));
        let throttled = ask(&origin, "a", &[]).await.unwrap();
        assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("60")));
        origin.set_behaviour("a", Behaviour::Redirect(301, "/feeds/b".to_owned()));
        assert_eq!(ask(&origin, "a", &[]).await.unwrap().header("location"), Some("/feeds/b"));
        origin.set_behaviour("a", Behaviour::Late(Duration::from_millis(30)));
        assert!(ask_all().await.unwrap().contains("<feed"));
    }
}
