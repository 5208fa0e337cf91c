//! Thousands of origins: one listener for every address of 127.0.0.0/8, so that each feed has its own host. The path
//! selects the behaviour: `/ok`, `/large` (300 items), `/news` (new items in every answer, whose titles say when it was given),
//! `/hang` (never answers), `/drip` (a byte per second).

use std::{
    borrow::Cow,
    fmt::Write as _,
    io,
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    time::Instant,
};

/// Backlog of the listener.
const BACKLOG: u32 = 4096;
/// Limit of a request's head.
const HEAD_MAX: usize = 8192;

/// How a feed behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeedBehaviour {
    /// Answers at once: 200, then 304.
    Ok,
    /// As [`FeedBehaviour::Ok`], with 300 items and about 913 KB.
    Large,
    /// Has new items in every answer: see [`Feeds::set_new_items`].
    News,
    /// Never answers.
    Hang,
    /// Never finishes its response.
    Drip,
}

impl FeedBehaviour {
    /// Of feeds by number: half of them hang or drip.
    pub(crate) fn half_bad(number: usize) -> Self {
        match number % 4 {
            1 => Self::Hang,
            3 => Self::Drip,
            _ => Self::Ok,
        }
    }
}

/// What the feeds with news have published.
#[derive(Debug)]
struct Published {
    /// The origin of the stamps.
    began: Instant,
    /// New items of one answer.
    per_answer: AtomicU64,
    items: AtomicU64,
}

/// The listener; ends when dropped.
pub(crate) struct Feeds {
    address: SocketAddr,
    published: Arc<Published>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Feeds {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listen = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from(([0, 0, 0, 0], 0)))?;
            socket.listen(BACKLOG)
        };
        let listener = runtime.block_on(async { listen() }).context("bind the listener")?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (per_answer, items) = (AtomicU64::new(1), AtomicU64::new(0));
        let published = Arc::new(Published { began: Instant::now(), per_answer, items });
        let news = Arc::clone(&published);
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, news) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("feeds".into()).spawn(serve)?;
        Ok(Self { address, published, stop: Some(stop), thread: Some(thread) })
    }

    /// From now on, each answer of a feed with news has so many new items.
    pub(crate) fn set_new_items(&self, per_answer: u64) {
        self.published.per_answer.store(per_answer, Relaxed);
    }

    /// How many items the feeds with news have published.
    pub(crate) fn published(&self) -> u64 {
        self.published.items.load(Relaxed)
    }

    /// The origin of the stamps in their titles, `@` and microseconds.
    pub(crate) fn began(&self) -> Instant {
        self.published.began
    }

    /// The address of feed `n`, from 0.
    pub(crate) fn url(&self, n: usize, behaviour: FeedBehaviour) -> String {
        let [_, b, c, d] = u32::try_from(n + 256).unwrap_or(u32::MAX).to_be_bytes();
        let path = match behaviour {
            FeedBehaviour::Ok => "ok",
            FeedBehaviour::Large => "large",
            FeedBehaviour::News => "news",
            FeedBehaviour::Hang => "hang",
            FeedBehaviour::Drip => "drip",
        };
        format!("http://127.{b}.{c}.{d}:{}/{path}/{n}", self.address.port())
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn accept(listener: TcpListener, published: Arc<Published>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, Arc::clone(&published)))),
            // Too many open files: some are about to close.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, published: Arc<Published>) -> io::Result<()> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    if path.starts_with("/hang") {
        // Until the client closes the connection.
        stream.read_u8().await?;
    } else if path.starts_with("/drip") {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n<rss>").await?;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stream.write_all(b" ").await?;
        }
    } else if head.to_ascii_lowercase().contains("\r\nif-none-match: \"1\"") {
        stream.write_all(b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\nconnection: close\r\n\r\n").await?;
    } else {
        let body: Cow<'_, str> = match path {
            path if path.starts_with("/large") => Cow::Borrowed(&LARGE),
            path if path.starts_with("/news") => Cow::Owned(published.document(path)),
            path => Cow::Owned(document(path)),
        };
        let validator = if path.starts_with("/news") { "" } else { "etag: \"1\"\r\n" };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/rss+xml\r\n{validator}content-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

impl Published {
    /// A feed of new items only, published now.
    fn document(&self, path: &str) -> String {
        let count = self.per_answer.load(Relaxed);
        let first = self.items.fetch_add(count, Relaxed);
        let stamp = self.began.elapsed().as_micros();
        let summary = "Some words of a summary. ".repeat(20);
        let item = |n: u64| {
            format!(
                "<item><title>@{stamp}</title><link>http://x.example{path}/{n}</link><guid>{path}/{n}</guid>\
                 <description>{n} {summary}</description></item>"
            )
        };
        let items: String = (first..first + count).map(item).collect();
        format!(
            "<rss version=\"2.0\"><channel><title>{path}</title><link>http://x.example/</link>\
             <description>d</description>{items}</channel></rss>"
        )
    }
}

/// A feed of ten items, about 4 KiB.
fn document(path: &str) -> String {
    let item = |n: u32| {
        format!(
            "<item><title>Item {n} of {path}</title><link>http://x.example{path}/{n}</link><guid>{path}/{n}</guid>\
             <description>{}</description><pubDate>Mon, 0{n} Sep 2025 10:00:00 GMT</pubDate></item>",
            "Some words of a summary. ".repeat(9)
        )
    };
    let items: String = (1..=9).map(item).collect();
    format!(
        "<rss version=\"2.0\"><channel><title>{path}</title><link>http://x.example/</link>\
         <description>d</description>{items}</channel></rss>"
    )
}

/// A feed of 300 articles, as a blog with whole texts has it: about 913 KB. The same one at every address, so that the daemon
/// never waits for it.
static LARGE: LazyLock<String> = LazyLock::new(|| large_document("/large"));

fn large_document(path: &str) -> String {
    const ITEMS: u32 = 300;
    let paragraph = |n: u32, p: u32| {
        format!(
            "<p>Paragraph {p} of article {n}: <a href=\"http://x.example{path}/{n}/{p}\">a link</a>, <em>some \
             emphasis</em> &amp; {}</p>",
            "words of a text that goes on for a while. ".repeat(8)
        )
    };
    let mut items = String::with_capacity(1 << 20);
    for n in 0..ITEMS {
        let text: String = (0..6).map(|p| paragraph(n, p)).collect();
        let (hour, minute) = (n / 60, n % 60);
        write!(
            items,
            "<item><title>Article {n} of {path}</title><link>http://x.example{path}/{n}</link><guid>{path}/{n}</guid>\
             <category>one</category><category>two</category><author>a@x.example (A)</author>\
             <description><![CDATA[{text}]]></description>\
             <pubDate>Mon, 01 Sep 2025 {hour:02}:{minute:02}:00 GMT</pubDate></item>"
        )
        .expect("a string can be written");
    }
    format!(
        "<rss version=\"2.0\"><channel><title>{path}</title><link>http://x.example/</link>\
         <description>d</description>{items}</channel></rss>"
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;

    #[test]
    fn each_answer_of_a_feed_with_news_has_new_items_and_they_are_counted() {
        let feeds = Feeds::start().unwrap();
        let answer = || {
            let mut stream = TcpStream::connect(("127.0.0.1", feeds.address.port())).unwrap();
            write!(stream, "GET /news/3 HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        assert!(answer().contains("<guid>/news/3/0</guid>"));
        feeds.set_new_items(2);
        let second = answer();
        assert!(second.contains("/news/3/1</guid>") && second.contains("/news/3/2</guid>"), "{second}");
        assert!(!second.contains("/news/3/0</guid>"), "{second}");
        assert_eq!(feeds.published(), 3);
    }
}
