//! The requests of the real daemon to a host, counted at the host: redirects from elsewhere are paced like visits.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use e2e::{TestSource, TestStack, wait_for};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};

const SOON: Duration = Duration::from_secs(60);
const SOURCES: usize = 30;
const SPACING: Duration = Duration::from_millis(200);

/// Answers every request by its path; remembers when each was received.
struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&received), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut piece = [0; 1024];
                        match stream.read(&mut piece).await {
                            Ok(0) | Err(_) => return,
                            Ok(read) => head.extend_from_slice(&piece[..read]),
                        }
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    kept.lock().unwrap().push((Instant::now(), path.clone()));
                    stream.write_all(answer(&path).as_bytes()).await.ok();
                });
            }
        });
        Self { address, received }
    }

    /// In the order of their arrival.
    fn received(&self) -> Vec<(Instant, String)> {
        self.received.lock().unwrap().clone()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn feed(path: &str) -> String {
    let body = format!(
        "<rss version='2.0'><channel><title>t</title><link>http://x.example/</link><item><title>{path}</title>\
         <guid>{path}</guid></item></channel></rss>"
    );
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_hosts_that_redirect_to_one_do_not_meet_there() {
    let target = Server::start(feed).await;
    let (mut fronts, mut sources) = (Vec::new(), Vec::new());
    for n in 0..SOURCES {
        let to = target.url(&format!("/{n}"));
        let head =
            format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let front = Server::start(move |_| head.clone()).await;
        sources.push(TestSource::new(&format!("s{n}"), front.url("/feed")));
        fronts.push(front);
    }
    let mut stack = TestStack::new(&sources).unwrap();
    let catalogue = std::fs::read_to_string(stack.path("sources.toml")).unwrap();
    std::fs::write(stack.path("sources.toml"), catalogue.replace("every = \"1s\"", "every = \"1h\""))
        .unwrap();
    stack.set("fetch.host_spacing", &format!("\"{}ms\"", SPACING.as_millis()));
    stack.start_both().await.unwrap();
    let all = wait_for("a request for every feed", SOON, async || {
        let received = target.received();
        (received.len() >= SOURCES).then_some(received)
    });
    let all = all.await.unwrap();
    let first: Vec<_> = fronts.iter().map(|front| front.received()[0].0).collect();
    let spread = *first.iter().max().unwrap() - *first.iter().min().unwrap();
    let lasted = all[SOURCES - 1].0 - all[0].0;
    // The control: the hosts that redirect were asked at once.
    assert!(spread < lasted / 2, "the fronts within {spread:?}, the target within {lasted:?}");
    assert!(lasted >= SPACING * (SOURCES as u32 - 1) - SPACING / 2, "{lasted:?}");
    // The time of arrival, so a request that was late by a bit shortens the gap behind it.
    let gaps: Vec<_> = all.windows(2).map(|two| two[1].0 - two[0].0).collect();
    let close = gaps.iter().filter(|gap| **gap < SPACING / 2).count();
    assert!(close <= 1, "{gaps:?}");
    let recorded = wait_for("every feed to be recorded", SOON, async || {
        let shown = stack.json("/sources").await.ok()?;
        let sources = shown.as_array().or_else(|| shown["sources"].as_array())?;
        sources.iter().all(|source| source["last_status"] == "new").then_some(())
    });
    recorded.await.unwrap();
    assert_eq!(target.received().len(), SOURCES, "one request each");
}
