//! The harness of tests over real sockets: a gateway in this process, clients, and a scripted daemon.
#![allow(dead_code, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    ops::{Deref, Range},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use daemon::{
    Clock,
    config::{Config, Reloader},
    logs::Logs,
    process::DaemonContext,
    stop::Signals,
    watch::Watch,
};
use news::{Cursor, Epoch, Event, EventKind, FeedUrl, Item, Seq, Source, SourceId, Timestamp};
use newswire_gateway::Limits;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream, UnixListener, UnixStream},
    sync::{broadcast, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Deadline of every step of a test: on a busy machine only something that hangs reaches it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The address of a gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
}

impl Endpoint {
    pub(crate) async fn send(&self, request: &str) -> BufReader<TcpStream> {
        self.send_bytes(request.as_bytes()).await
    }

    pub(crate) async fn send_bytes(&self, request: &[u8]) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        BufReader::new(stream)
    }

    /// One request on one connection: the whole answer as text.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str) -> String {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
        let mut answer = Vec::new();
        let mut stream = self.send(&request).await;
        timeout(TIMEOUT, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8(answer).unwrap()
    }

    pub(crate) async fn stream(&self, query: &str, headers: &str) -> Client {
        let request = format!("GET /news/stream{query} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        let mut client = Client { stream: self.send(&request).await };
        let status = client.line().await.unwrap();
        assert_eq!(status, "HTTP/1.1 200 OK", "a stream is never refused with a status");
        while !client.line().await.unwrap().is_empty() {}
        client
    }

    pub(crate) async fn until_ready(&self) {
        let ready = async {
            while !self.ask("GET", "/ready", "").await.starts_with("HTTP/1.1 200") {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TIMEOUT, ready).await.unwrap();
    }

    /// A stream of a client with a very small receive buffer.
    pub(crate) async fn small_stream(&self, query: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        let request = format!("GET /news/stream{query} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Client { stream: BufReader::new(stream) }
    }

    /// Open streams, as the gateway reports.
    pub(crate) async fn clients(&self) -> usize {
        let health = self.ask("GET", "/health", "").await;
        let body: serde_json::Value = serde_json::from_str(health.split_once("\r\n\r\n").unwrap().1).unwrap();
        body["clients"].as_u64().unwrap() as usize
    }

    /// Waits until so many streams are open; returns how long it took.
    pub(crate) async fn until_clients(&self, expected: usize, within: Duration) -> Duration {
        let started = Instant::now();
        while self.clients().await != expected {
            assert!(
                started.elapsed() < within,
                "{} clients after {within:?}, not {expected}",
                self.clients().await
            );
            sleep(Duration::from_millis(20)).await;
        }
        started.elapsed()
    }

    /// The value of one line of the metrics.
    pub(crate) async fn number(&self, line: &str) -> u64 {
        let metrics = self.ask("GET", "/metrics", "").await;
        let value = metrics.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

/// A free port of 127.0.0.1 below the kernel's ephemeral range, so that no outgoing connection can take it before it is
/// bound. Tests that run at the same time begin their search at different ports.
pub(crate) fn free_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 20_000;
    let candidate = || {
        let number = std::process::id().wrapping_mul(8).wrapping_add(TAKEN.fetch_add(1, Relaxed));
        SocketAddr::from(([127, 0, 0, 1], u16::try_from(FIRST + number % PORTS).unwrap()))
    };
    let mut candidates = std::iter::repeat_with(candidate).take(PORTS as usize);
    candidates.find(|address| std::net::TcpListener::bind(address).is_ok()).expect("a port is free")
}

/// A gateway on its own thread.
pub(crate) struct Gateway {
    pub(crate) endpoint: Endpoint,
    pub(crate) stop: CancellationToken,
    pub(crate) thread: Option<thread::JoinHandle<()>>,
    pub(crate) directory: tempfile::TempDir,
    /// What must make progress in it.
    pub(crate) watch: Watch,
}

impl Gateway {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        Self::within(Limits::default(), change).await
    }

    /// With other limits than the usual ones.
    pub(crate) async fn within(limits: Limits, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut config = Config::default();
        config.daemon.run_dir = directory.path().to_owned();
        config.gateway.listen = address;
        config.gateway.workers = 2;
        config.gateway.heartbeat = Duration::from_millis(500);
        config.gateway.drain = Duration::from_secs(1);
        change(&mut config);
        let address = config.gateway.listen;
        let stop = CancellationToken::new();
        let signals =
            Signals { stop: stop.clone(), abort: CancellationToken::new(), reload: watch::channel(0).1 };
        let watch = Watch::new();
        let reloader = Reloader::new(None, daemon::config::load(None, []).unwrap());
        let start = DaemonContext {
            config,
            reloader,
            clock: Clock::system(),
            logs: Logs::detached(),
            signals,
            watch: watch.clone(),
            self_sampler: None,
        };
        let thread = thread::spawn(move || {
            actix_web::rt::System::new().block_on(newswire_gateway::run_within(start, limits)).unwrap();
        });
        let gateway = Self { endpoint: Endpoint { address }, stop, thread: Some(thread), directory, watch };
        let up = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(TIMEOUT, up).await.unwrap();
        gateway
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("ingestd.sock")
    }

    /// Stops it; returns how long that took.
    pub(crate) async fn end(mut self) -> Duration {
        let started = Instant::now();
        self.stop.cancel();
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        started.elapsed()
    }
}

impl Deref for Gateway {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A client that reads lines of the event stream.
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Client {
    /// The next line; nothing at the end of the stream.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(TIMEOUT, self.stream.read_line(&mut line)).await.expect("a line in time");
        match read {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// The next block as its fields. Lines of the stream end with a line feed; what ends with CRLF is the size of a chunk,
    /// or the end of one, which may be anywhere in a line.
    pub(crate) async fn block(&mut self) -> Option<Vec<String>> {
        let (mut fields, mut cut) = (Vec::new(), String::new());
        loop {
            let mut line = String::new();
            let read = timeout(TIMEOUT, self.stream.read_line(&mut line)).await.expect("a line in time");
            if !matches!(read, Ok(1..)) {
                return None;
            }
            if let Some(piece) = line.strip_suffix("\r\n") {
                let is_chunk_size = !piece.is_empty() && piece.bytes().all(|b| b.is_ascii_hexdigit());
                match piece {
                    // The chunk that ends the body; the connection may live on.
                    "0" => return None,
                    _ if is_chunk_size => {}
                    piece => cut.push_str(piece),
                }
                continue;
            }
            let line = std::mem::take(&mut cut) + line.trim_end_matches('\n');
            match line.as_str() {
                "" if fields.is_empty() => {}
                "" => return Some(fields),
                _ => fields.push(line),
            }
        }
    }

    /// The ids of the next `n` blocks with an event and an id.
    pub(crate) async fn ids(&mut self, n: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < n {
            let block = self.block().await.expect("the stream goes on");
            let id = block.iter().find_map(|f| f.strip_prefix("id: "));
            if let (Some(id), true) = (id, block.iter().any(|f| f == "event: item")) {
                ids.push(id.to_owned());
            }
        }
        ids
    }

    /// The data of the next event that is an item.
    pub(crate) async fn item(&mut self) -> serde_json::Value {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if block.iter().any(|f| f == "event: item") {
                let data = block.iter().find_map(|f| f.strip_prefix("data: ")).unwrap();
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// The data of the next `stream` event.
    pub(crate) async fn hello(&mut self) -> serde_json::Value {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if block.iter().any(|f| f == "event: stream") {
                let data = block.iter().find_map(|f| f.strip_prefix("data: ")).unwrap();
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

/// A daemon that serves a log in memory.
#[derive(Clone)]
pub(crate) struct FakeDaemon {
    pub(crate) epoch: &'static str,
    /// The JSON of each event.
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    /// Events before this one are no longer kept.
    pub(crate) oldest: Arc<AtomicU64>,
    /// Events that are damaged on disk.
    damaged: Arc<Mutex<BTreeSet<u64>>>,
    /// Requests for the log are not answered.
    pub(crate) mute: Arc<AtomicBool>,
    /// It is as if stopped by SIGSTOP: connections are made, and nothing is answered on new ones.
    pub(crate) hangs: Arc<AtomicBool>,
    /// Requests for the log.
    pub(crate) log_requests: Arc<AtomicU64>,
    /// Open requests for the log, and the maximum so far.
    pub(crate) pages: Arc<(AtomicU64, AtomicU64)>,
    /// The list of sources.
    pub(crate) sources: Arc<Mutex<Vec<serde_json::Value>>>,
    pub(crate) live: broadcast::Sender<String>,
}

pub(crate) fn source(id: &str) -> Source {
    Source::new(SourceId::try_new(id).unwrap(), FeedUrl::try_new("https://example.org/").unwrap())
}

impl FakeDaemon {
    pub(crate) fn new(epoch: &'static str) -> Self {
        let oldest = Arc::new(AtomicU64::new(1));
        let live = broadcast::channel(10_000).0;
        let (log, mute, hangs, log_requests) = Default::default();
        let (pages, sources, damaged) = Default::default();
        Self { epoch, log, oldest, damaged, mute, hangs, log_requests, pages, sources, live }
    }

    /// Adds an item of `from`, titled after its number.
    pub(crate) fn publish(&self, from: &str) {
        self.publish_item(from, Item::default());
    }

    /// The same with the test's own item; its key, and the title if it is empty, are filled in.
    pub(crate) fn publish_item(&self, from: &str, item: Item) {
        self.publish_of(&source(from), item);
    }

    /// The same of a source in that category.
    pub(crate) fn publish_in(&self, category: &str) {
        let source = Source { category: category.to_owned(), ..source(&category.to_lowercase()) };
        self.publish_of(&source, Item::default());
    }

    fn publish_of(&self, source: &Source, item: Item) {
        let mut log = self.log.lock().unwrap();
        let seq = log.len() as u64 + 1;
        let title = if item.title.is_empty() { format!("Story {seq}") } else { item.title };
        let id = Cursor { epoch: Epoch::try_new(self.epoch).unwrap(), seq: Seq(seq) };
        let item = Item { key: seq.to_string(), title, ..item };
        let event =
            Event::new(id.clone(), EventKind::Item, source, Timestamp::from_millis(1_000 * seq as i64), item);
        log.push(event.to_json());
        self.live.send(self.block(seq, &event.to_json())).ok();
    }

    /// Adds `n` items with a summary of so many bytes.
    pub(crate) fn publish_large(&self, n: usize, bytes: usize) {
        let summary = "x".repeat(bytes);
        (0..n).for_each(|_| self.publish_item("a", Item { summary: summary.clone(), ..Item::default() }));
    }

    /// Adds `n` events that are damaged, and tells readers of the gap.
    pub(crate) fn publish_damaged(&self, n: u64) {
        let first = self.log.lock().unwrap().len() as u64 + 1;
        self.log.lock().unwrap().resize((first + n - 1) as usize, String::new());
        self.damage(first..first + n);
        self.live.send(self.gap_block(first - 1, first + n - 1)).ok();
    }

    /// Damages events.
    pub(crate) fn damage(&self, events: Range<u64>) {
        self.damaged.lock().unwrap().extend(events);
    }

    /// What readers are told of that are missing after `before`, up to `until`.
    fn gap_block(&self, before: u64, until: u64) -> String {
        let (epoch, missed) = (self.epoch, until - before);
        format!("id: {epoch}-{until}\nevent: gap\ndata: {{\"missed\":{missed},\"oldest\":null}}\n\n")
    }

    /// The blocks of the events after `from`.
    fn backlog(&self, from: u64) -> String {
        let (log, damaged) = (self.log.lock().unwrap(), self.damaged.lock().unwrap());
        let (mut blocks, mut cursor) = (String::new(), from);
        for (json, seq) in log.iter().zip(1..).filter(|(_, seq)| *seq > from && !damaged.contains(seq)) {
            if cursor + 1 < seq {
                blocks.push_str(&self.gap_block(cursor, seq - 1));
            }
            blocks.push_str(&self.block(seq, json));
            cursor = seq;
        }
        if cursor < log.len() as u64 {
            blocks.push_str(&self.gap_block(cursor, log.len() as u64));
        }
        blocks
    }

    /// Sends the notice of a visit.
    pub(crate) fn visited(&self, id: &str) {
        self.visited_in(id, "general");
    }

    /// The health of a source, as the daemon reports it.
    pub(crate) fn health(id: &str, category: &str) -> serde_json::Value {
        serde_json::json!({
                "id": id, "name": id, "url": "", "category": category, "country": null, "language": null, "tags": [],
                "enabled": true, "activity": "idle", "activity_since": null, "last_status": "unchanged",
                "last_code": 304, "last_visit": null, "last_took_ms": 1, "last_success": null, "last_error": null,
                "consecutive_failures": 0, "next_visit": null, "why": "", "warnings": [], "restarts": 0,
        "counts": {}, "last_event": null, "push": {},
        "attempts": [[0, "unchanged", 304, 1, 0, 0, 0, null]],
            })
    }

    /// Sends the notice of a visit to a source in that category.
    pub(crate) fn visited_in(&self, id: &str, category: &str) {
        let notice = serde_json::json!({
            "source": id, "status": "unchanged", "new": 0, "updated": 0, "took_ms": 1, "next_visit": null,
            "why": "", "error": null,
            "health": Self::health(id, category),
        });
        self.live.send(format!("event: source\ndata: {notice}\n\n")).ok();
    }

    pub(crate) fn block(&self, seq: u64, json: &str) -> String {
        format!("id: {}-{seq}\nevent: item\ndata: {json}\n\n", self.epoch)
    }

    /// `/log?limit=…` with `after=…`, `since=…`, or `before=…` and perhaps `since=…` (an event of number n was recorded n
    /// seconds after 1970).
    pub(crate) fn page(&self, request: &str) -> String {
        let query = request.split_whitespace().nth(1).unwrap().split_once('?').unwrap().1;
        let value = |name: &str| {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.into_owned())
        };
        let limit: usize = value("limit").unwrap().parse().unwrap();
        let since = value("since")
            .map(|since| (since.parse::<Timestamp>().unwrap().millis().max(0) as u64).div_ceil(1000).max(1));
        let number = |id: String| id.parse::<Cursor>().unwrap().seq.0;
        let oldest = self.oldest.load(Relaxed);
        let log = self.log.lock().unwrap();
        let head = log.len() as u64;
        let (events, missed, next) = match (value("before"), value("after")) {
            (Some(before), _) => {
                let floor = since.unwrap_or(1).max(oldest);
                let end = number(before).saturating_sub(1);
                let bytes_max: usize = value("bytes").unwrap().parse().unwrap();
                let mut bytes = 0;
                let damaged = self.damaged.lock().unwrap();
                let kept = (floor..=end.min(head)).rev().filter(|n| !damaged.contains(n));
                let numbers = kept.take(limit).take_while(|n| {
                    let fits = bytes < bytes_max;
                    bytes += log[*n as usize - 1].len();
                    fits
                });
                let numbers: Vec<_> = numbers.collect();
                let next = numbers.last().copied().filter(|last| *last > floor);
                (numbers.iter().map(|n| log[*n as usize - 1].clone()).collect::<Vec<_>>(), 0, next)
            }
            (None, after) => {
                let after = after.map_or_else(|| since.unwrap() - 1, number);
                let damaged = self.damaged.lock().unwrap();
                let kept = |n: &u64| *n >= oldest && !damaged.contains(n);
                let numbers: Vec<_> = (after.saturating_add(1)..=head).filter(kept).take(limit).collect();
                let missed = numbers.first().map_or(head.saturating_sub(after), |first| first - after - 1);
                let end = numbers.last().copied().unwrap_or(head);
                let events = numbers.iter().map(|n| log[*n as usize - 1].clone()).collect();
                (events, missed, Some(end).filter(|end| *end < head))
            }
        };
        let next = next.map(|next| format!("{}-{next}", self.epoch));
        let (epoch, events) = (self.epoch, events.join(","));
        format!(
            "{{\"epoch\":\"{epoch}\",\"oldest\":\"{epoch}-{oldest}\",\"head\":\"{epoch}-{head}\",\"missed\":{missed},\
             \"events\":[{events}],\"next\":{}}}",
            serde_json::json!(next)
        )
    }

    /// Whether the log does not have the newest event that the sender of a request has seen.
    fn lacks_newest_of(&self, request: &str) -> bool {
        let header =
            |name: &str| request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let newest = header(wire::NEWEST_EVENT_ID).map(|id| id.parse::<Cursor>().unwrap());
        let Some(newest) = newest.filter(|id| id.epoch.as_str() == self.epoch && id.seq != Seq::NONE) else {
            return false;
        };
        let log = self.log.lock().unwrap();
        let Some(json) = log.get(newest.seq.0 as usize - 1) else { return true };
        header(wire::NEWEST_EVENT_HASH).is_some_and(|hash| hash != wire::event_hash(json.as_bytes()))
    }

    /// Serves until it is dropped.
    pub(crate) fn serve(&self, socket: PathBuf) -> Serving {
        std::fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(socket).unwrap();
        let daemon = self.clone();
        let accept = async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(daemon.clone().answer(stream));
            }
        };
        Serving(tokio::spawn(accept))
    }

    pub(crate) async fn answer(self, mut stream: UnixStream) -> Option<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.ok()?);
        }
        let request = String::from_utf8(request).ok()?;
        if !request.starts_with("GET /wire") {
            if request.starts_with("GET /log") {
                self.log_requests.fetch_add(1, Relaxed);
            }
            if self.hangs.load(Relaxed) {
                // Until the client gives up.
                stream.read_u8().await.ok();
                return None;
            }
            let body = if request.starts_with("GET /sources") {
                serde_json::json!({ "sources": *self.sources.lock().unwrap() }).to_string()
            } else if request.starts_with("POST /visits") {
                "{\"accepted\":[\"a\",\"b\"],\"unknown\":[\"x\"],\"disabled\":[],\"busy\":[],\"paused\":[]}"
                    .to_owned()
            } else if request.starts_with("GET /log") {
                if self.mute.load(Relaxed) {
                    return None;
                }
                let open = self.pages.0.fetch_add(1, Relaxed) + 1;
                self.pages.1.fetch_max(open, Relaxed);
                sleep(Duration::from_millis(2)).await;
                self.pages.0.fetch_sub(1, Relaxed);
                self.page(&request)
            } else {
                "# EOF\n".to_owned()
            };
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            return stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
        }
        let id = request.lines().find_map(|l| l.strip_prefix("last-event-id: ")?.parse::<Cursor>().ok());
        let mut live = self.live.subscribe();
        let head = self.log.lock().unwrap().len() as u64;
        let older_copy = self.lacks_newest_of(&request);
        let known = id.filter(|id| id.epoch.as_str() == self.epoch && id.seq.0 <= head && !older_copy);
        let resume = match (&known, request.contains("last-event-id: ")) {
            (Some(_), _) => "exact",
            (None, true) => "reset",
            (None, false) => "live",
        };
        let from = known.map_or(0, |id| id.seq.0);
        let epoch = self.epoch;
        let hello = format!(
            "id: {epoch}-{from}\nevent: stream\ndata: {{\"resume\":\"{resume}\",\"requested\":null,\
             \"oldest\":\"{epoch}-{}\",\"head\":\"{epoch}-{head}\",\"missed\":0,\"server\":\"fake\",\"older_copy\":{older_copy}}}\n\n",
            self.oldest.load(Relaxed),
        );
        let http = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let all = [http, &hello, &self.backlog(from)].concat();
        stream.write_all(all.as_bytes()).await.ok()?;
        loop {
            let block = live.recv().await.ok()?;
            stream.write_all(block.as_bytes()).await.ok()?;
        }
    }
}

pub(crate) struct Serving(pub(crate) tokio::task::JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn gateway_with(events: usize) -> (Gateway, FakeDaemon, Serving) {
    gateway_and_log(events, |_| ()).await
}

/// A gateway of this configuration, and a daemon whose log has so many events.
pub(crate) async fn gateway_and_log(
    events: usize,
    change: impl FnOnce(&mut Config),
) -> (Gateway, FakeDaemon, Serving) {
    let gateway = Gateway::start(change).await;
    let daemon = FakeDaemon::new("e");
    for n in 0..events {
        daemon.publish(if n % 2 == 0 { "odd" } else { "even" });
    }
    let serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    (gateway, daemon, serving)
}
