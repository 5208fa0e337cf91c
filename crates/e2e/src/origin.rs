//! A web server that publishes feeds: honest unless told otherwise, and it remembers who asked for what.
//!
//! It is written on a bare socket, because it must be able to do what no server framework lets one do: say nothing, stop in
//! the middle, drip, cut off, reset.

mod document;
mod serve;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

use self::document::Entry;
pub use self::document::Format;
use crate::Published;

/// What the server does with a request for one path.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers at once, and conditional requests with 304 when nothing has changed.
    Honest,
    /// Says nothing for so long, then answers honestly.
    Late(Duration),
    /// Reads the request and never says a word.
    SilentHead,
    /// Sends the head and half of the body, then never another byte.
    SilentBody,
    /// Sends the head at once and then that many bytes of the body at a time, with a pause after each.
    Drip(usize, Duration),
    /// Promises the whole body, sends half and closes the connection.
    CutOff,
    /// Resets the connection (TCP RST) after reading the request.
    Reset,
    /// Answers with a status, headers (`Retry-After: 60`), and a short text.
    Status(u16, Vec<String>),
    /// Sends the client elsewhere: status and `Location`.
    Redirect(u16, String),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its head had been read.
    pub at: Instant,
    /// `GET`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// In the order sent, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status it was answered with; nothing when it got none.
    pub answered: Option<u16>,
}

impl Request {
    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The server; it ends, and every connection with it, when this is dropped.
pub struct Origin {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    task: JoinHandle<()>,
}

/// Everything that can be asked for, by path.
#[derive(Default)]
struct World {
    places: BTreeMap<String, Place>,
    requests: Vec<Request>,
    published: u64,
}

/// What is to be had at one path.
struct Place {
    what: What,
    behaviour: Behaviour,
    /// Counts the changes: validators are made of it.
    version: u64,
    /// Sent with every answer.
    headers: Vec<String>,
}

enum What {
    Feed { name: String, format: Format, entries: Vec<Entry> },
    File { bytes: Arc<[u8]>, media_type: &'static str },
}

impl Origin {
    /// Newest entries that a feed shows; older ones have scrolled out of it.
    pub const WINDOW: usize = 200;

    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let world = Arc::new(Mutex::new(World::default()));
        let task = tokio::spawn(serve::accept(listener, Arc::clone(&world)));
        Ok(Self { address, world, task })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nobody panics while holding it")
    }

    /// Begins a feed without entries; gives its address.
    pub fn feed(&self, name: &str, format: Format) -> String {
        let what = What::Feed { name: name.to_owned(), format, entries: Vec::new() };
        self.world().places.insert(
            path_of(name),
            Place { what, behaviour: Behaviour::Honest, version: 0, headers: Vec::new() },
        );
        self.url(&path_of(name))
    }

    /// Serves a file under a path of its own, honestly; gives its address.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn file(&self, file: &Path) -> std::io::Result<String> {
        let bytes: Arc<[u8]> = std::fs::read(file)?.into();
        let media_type = Self::media_type_of(file);
        let mut world = self.world();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/files/{}/{}", world.places.len(), percent_encoded(&name));
        let what = What::File { bytes, media_type };
        world.places.insert(
            path.clone(),
            Place { what, behaviour: Behaviour::Honest, version: 0, headers: Vec::new() },
        );
        Ok(self.url(&path))
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
    /// When the folder cannot be read.
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

    /// Adds an entry to a feed: the next visit has it. Gives its guid.
    ///
    /// # Panics
    /// When there is no such feed.
    pub fn publish(&self, name: &str, title: &str) -> String {
        let mut world = self.world();
        world.published += 1;
        let number = world.published;
        let place = world.places.get_mut(&path_of(name)).expect("the feed was begun with Origin::feed");
        place.version += 1;
        let What::Feed { entries, .. } = &mut place.what else {
            unreachable!("feeds and files differ by path")
        };
        let entry = Entry::new(name, number, title);
        let guid = entry.guid.clone();
        entries.push(entry);
        guid
    }

    /// Changes the title of an entry, and with it the document.
    ///
    /// # Panics
    /// When there is no such feed or entry.
    pub fn edit(&self, name: &str, guid: &str, title: &str) {
        let mut world = self.world();
        let place = world.places.get_mut(&path_of(name)).expect("the feed was begun with Origin::feed");
        place.version += 1;
        let What::Feed { entries, .. } = &mut place.what else {
            unreachable!("feeds and files differ by path")
        };
        let entry = entries.iter_mut().find(|entry| entry.guid == guid).expect("the entry was published");
        title.clone_into(&mut entry.title);
    }

    /// Everything published so far: the guids of each feed, in the order of publication.
    #[must_use]
    pub fn published(&self) -> Published {
        let mut published = Published::new();
        for place in self.world().places.values() {
            if let What::Feed { name, entries, .. } = &place.what {
                published.insert(name.clone(), entries.iter().map(|entry| entry.guid.clone()).collect());
            }
        }
        published
    }

    /// Lets a feed behave otherwise from its next request on.
    ///
    /// # Panics
    /// When there is no such feed.
    pub fn behave(&self, name: &str, behaviour: Behaviour) {
        self.world()
            .places
            .get_mut(&path_of(name))
            .expect("the feed was begun with Origin::feed")
            .behaviour = behaviour;
    }

    /// Sends one more header with every honest answer for a feed, such as `Link: <https://hub.example/>; rel="hub"`.
    ///
    /// # Panics
    /// When there is no such feed.
    pub fn also_send(&self, name: &str, header: &str) {
        let mut world = self.world();
        let place = world.places.get_mut(&path_of(name)).expect("the feed was begun with Origin::feed");
        place.headers.push(header.to_owned());
    }

    /// The requests for a feed so far.
    #[must_use]
    pub fn requests(&self, name: &str) -> Vec<Request> {
        let path = path_of(name);
        self.world().requests.iter().filter(|r| r.path == path).cloned().collect()
    }

    /// Where it listens.
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
        self.task.abort();
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

    async fn ask(origin: &Origin, name: &str, headers: &[(&str, &str)]) -> std::io::Result<http::Answer> {
        http::get(&origin.address.into(), &path_of(name), headers).await
    }

    #[tokio::test]
    async fn a_published_entry_is_in_the_next_answer_and_changes_the_validators() {
        let origin = Origin::start().await.unwrap();
        origin.feed("a", Format::Rss);
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
    async fn each_way_to_behave_badly_is_felt_by_the_client() {
        let origin = Origin::start().await.unwrap();
        origin.feed("a", Format::Atom);
        origin.publish("a", "x");
        let ask_all = async || ask(&origin, "a", &[]).await?.text().await;
        let limit = Duration::from_millis(150);

        origin.behave("a", Behaviour::CutOff);
        assert_eq!(ask_all().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        origin.behave("a", Behaviour::Reset);
        assert_eq!(ask_all().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        for silent in
            [Behaviour::SilentHead, Behaviour::SilentBody, Behaviour::Drip(1, Duration::from_millis(20))]
        {
            origin.behave("a", silent.clone());
            assert!(tokio::time::timeout(limit, ask_all()).await.is_err(), "{silent:?}");
        }
        origin.behave("a", Behaviour::SilentBody);
        assert_eq!(tokio::time::timeout(limit, ask(&origin, "a", &[])).await.unwrap().unwrap().status, 200);
        origin.behave("a", Behaviour::Status(429, vec!["Retry-After: 60".to_owned()]));
        let throttled = ask(&origin, "a", &[]).await.unwrap();
        assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("60")));
        origin.behave("a", Behaviour::Redirect(301, "/feeds/b".to_owned()));
        assert_eq!(ask(&origin, "a", &[]).await.unwrap().header("location"), Some("/feeds/b"));
        origin.behave("a", Behaviour::Late(Duration::from_millis(30)));
        assert!(ask_all().await.unwrap().contains("<feed"));
    }
}
