//! A client of the public stream that behaves like an `EventSource`: it keeps its last event id, reconnects after the
//! reconnection time, and stops for good where a browser would.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::Value;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    http::{self, Address},
    sse::{Message, SseParser},
    wait_for,
};

/// Reconnection time until the server sets one, as in browsers.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);
/// Silence after which a connection is closed: three heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// An event as it arrived.
#[derive(Clone, Debug)]
pub struct RecordedEvent {
    /// The connection it arrived on, counted from 0.
    pub connection: usize,
    /// When.
    pub at: Instant,
    /// What.
    pub message: Message,
}

impl RecordedEvent {
    /// Its data as JSON; `null` if it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.message.data).unwrap_or(Value::Null)
    }
}

/// One connection, successful or not.
#[derive(Clone, Debug)]
pub struct StreamConnection {
    /// When it was attempted.
    pub at: Instant,
    /// `Last-Event-ID` as it was sent.
    pub resumed_from: Option<String>,
    /// How it ended; `None` while it is open.
    pub ended: Option<String>,
}

/// Gateways between which a client moves.
#[derive(Clone, Debug)]
pub struct Hops {
    /// Where it connects: to any of them in turn, by chance.
    pub gateways: Vec<Address>,
    /// How long it stays.
    pub stay: Range<Duration>,
}

impl Hops {
    fn next(&self) -> (Address, Duration) {
        let gateway = self.gateways[fastrand::usize(0..self.gateways.len())].clone();
        let more = self.stay.end.saturating_sub(self.stay.start);
        (gateway, self.stay.start.saturating_add(more.mul_f64(fastrand::f64())))
    }
}

/// A running client; disconnects when dropped.
pub struct TestSubscriber {
    recording: Arc<Mutex<Recording>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Recording {
    records: Vec<RecordedEvent>,
    connections: Vec<StreamConnection>,
    /// Why it stopped for good: a status or media type on which an `EventSource` does not reconnect.
    closed: Option<String>,
    last_event_id: String,
    /// When the last bytes came.
    heard: Option<Instant>,
    /// The longest time without bytes, on whatever connection.
    silence_max: Duration,
}

impl Recording {
    fn hear(&mut self) {
        let now = Instant::now();
        let before = self.heard.replace(now).unwrap_or(now);
        self.silence_max = self.silence_max.max(now.duration_since(before));
    }
}

impl TestSubscriber {
    /// Starts a client of a path such as `/news/stream?snapshot=1000`.
    #[must_use]
    pub fn start(address: Address, path: &str) -> Self {
        let recording = Arc::new(Mutex::new(Recording::default()));
        let records = Arc::clone(&recording);
        let record = move |event| {
            records.lock().expect("no thread panics while holding it").records.push(event);
        };
        Self { task: Self::spawn(address, path, &recording, record), recording }
    }

    fn spawn(
        address: Address,
        path: &str,
        recording: &Arc<Mutex<Recording>>,
        record: impl FnMut(RecordedEvent) + Send + 'static,
    ) -> JoinHandle<()> {
        let stays = move || (address.clone(), Duration::MAX);
        tokio::spawn(follow(stays, path.to_owned(), Arc::clone(recording), record))
    }

    /// Starts a client that passes on its events and keeps none of them.
    #[must_use]
    pub fn start_into(
        address: Address,
        path: &str,
        record: impl FnMut(RecordedEvent) + Send + 'static,
    ) -> Self {
        let recording = Arc::new(Mutex::new(Recording::default()));
        Self { task: Self::spawn(address, path, &recording, record), recording }
    }

    /// The same, moving between gateways with its last event id.
    #[must_use]
    pub fn start_hopping(hops: Hops, path: &str, record: impl FnMut(RecordedEvent) + Send + 'static) -> Self {
        let recording = Arc::new(Mutex::new(Recording::default()));
        let task = tokio::spawn(follow(move || hops.next(), path.to_owned(), Arc::clone(&recording), record));
        Self { recording, task }
    }

    /// The longest time without any bytes since this was last asked; the silence that lasts counts.
    #[must_use]
    pub fn take_silence(&self) -> Duration {
        let mut recording = self.recording();
        recording.hear();
        std::mem::take(&mut recording.silence_max)
    }

    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().expect("no thread panics while holding it")
    }

    /// All events so far, in order of arrival.
    #[must_use]
    pub fn records(&self) -> Vec<RecordedEvent> {
        self.recording().records.clone()
    }

    /// The events of one type so far.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<RecordedEvent> {
        self.recording().records.iter().filter(|r| r.message.event == event).cloned().collect()
    }

    /// The number of events of one type so far.
    #[must_use]
    pub fn count(&self, event: &str) -> usize {
        self.recording().records.iter().filter(|r| r.message.event == event).count()
    }

    /// All connections so far.
    #[must_use]
    pub fn connections(&self) -> Vec<StreamConnection> {
        self.recording().connections.clone()
    }

    /// Why it does not reconnect, if a browser would not.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        self.recording().closed.clone()
    }

    /// The last event id; empty if it has none.
    #[must_use]
    pub fn last_event_id(&self) -> String {
        self.recording().last_event_id.clone()
    }

    /// Waits for an event of that type for which `matches` returns true.
    ///
    /// # Errors
    /// If none arrives within `limit`; the error has a summary of what arrived.
    pub async fn wait_event(
        &self,
        event: &str,
        limit: Duration,
        matches: impl Fn(&RecordedEvent) -> bool,
    ) -> anyhow::Result<RecordedEvent> {
        wait_for(&format!("a matching event `{event}`"), limit, async || {
            self.recording().records.iter().find(|r| r.message.event == event && matches(r)).cloned()
        })
        .await
        .map_err(|error| error.context(self.summary()))
    }

    /// What has happened to it, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let recording = self.recording();
        let mut counts = std::collections::BTreeMap::new();
        for record in &recording.records {
            *counts.entry(record.message.event.as_str()).or_insert(0) += 1;
        }
        let ends: Vec<_> = recording.connections.iter().filter_map(|c| c.ended.as_deref()).collect();
        format!(
            "the subscriber received {counts:?} on {} connections, last event id {:?}, ends: {ends:?}, closed: {:?}",
            recording.connections.len(),
            recording.last_event_id,
            recording.closed
        )
    }
}

impl Drop for TestSubscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    next: impl Fn() -> (Address, Duration),
    path: String,
    recording: Arc<Mutex<Recording>>,
    mut pass_on: impl FnMut(RecordedEvent),
) {
    let lock = || recording.lock().expect("no thread panics while holding it");
    let mut parser = SseParser::default();
    loop {
        parser.reconnect();
        let (address, stay) = next();
        let last_event_id = Some(parser.last_event_id().to_owned()).filter(|id| !id.is_empty());
        let number = {
            let mut recording = lock();
            recording.connections.push(StreamConnection {
                at: Instant::now(),
                resumed_from: last_event_id.clone(),
                ended: None,
            });
            recording.connections.len() - 1
        };
        let reading =
            read_stream(&address, &path, last_event_id.as_deref(), &mut parser, |message, last_event_id| {
                {
                    let mut recording = lock();
                    recording.hear();
                    recording.last_event_id.clear();
                    recording.last_event_id.push_str(last_event_id);
                }
                if let Some(message) = message {
                    pass_on(RecordedEvent { connection: number, at: Instant::now(), message });
                }
            });
        let (text, is_closed) = match tokio::time::timeout(stay, reading).await {
            Err(_) => {
                lock().connections[number].ended = Some("it moved on".to_owned());
                continue;
            }
            Ok(End::Retry(why)) => (why, false),
            Ok(End::Closed(why)) => (why, true),
        };
        lock().connections[number].ended = Some(text.clone());
        if is_closed {
            lock().closed = Some(text);
            return;
        }
        tokio::time::sleep(parser.retry().unwrap_or(RETRY_DEFAULT)).await;
    }
}

/// How a connection ended.
enum End {
    /// A browser reconnects.
    Retry(String),
    /// A browser does not reconnect.
    Closed(String),
}

async fn read_stream(
    address: &Address,
    path: &str,
    last_event_id: Option<&str>,
    parser: &mut SseParser,
    mut record: impl FnMut(Option<Message>, &str),
) -> End {
    let mut headers = vec![("Accept", "text/event-stream"), ("Cache-Control", "no-store")];
    headers.extend(last_event_id.map(|id| ("Last-Event-ID", id)));
    let mut answer = match tokio::time::timeout(SILENCE_MAX, http::get(address, path, &headers)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return End::Retry(format!("no answer: {error}")),
        Err(_) => return End::Retry(format!("no answer within {SILENCE_MAX:?}")),
    };
    let media_type = answer.header("content-type").unwrap_or_default().to_owned();
    if answer.status != 200 || !media_type.starts_with("text/event-stream") {
        return End::Closed(format!("answered {} with {media_type:?}", answer.status));
    }
    loop {
        match tokio::time::timeout(SILENCE_MAX, answer.next()).await {
            Ok(Ok(Some(bytes))) => {
                for message in parser.push(&bytes) {
                    let id = message.last_event_id.clone();
                    record(Some(message), &id);
                }
                record(None, parser.last_event_id());
            }
            Ok(Ok(None)) => return End::Retry("the stream ended".to_owned()),
            Ok(Err(error)) => return End::Retry(format!("the stream broke: {error}")),
            Err(_) => return End::Retry(format!("nothing came for {SILENCE_MAX:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers one connection after the other with these bytes, then holds the last one open; returns the request heads.
    async fn serve(answers: &'static [&'static str]) -> (Address, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().into();
        let task = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                heads.push(String::from_utf8(head).unwrap());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            heads
        });
        (address, task)
    }

    #[tokio::test]
    async fn it_reconnects_with_its_last_event_id_after_the_retry_time() {
        const ANSWERS: &[&str] = &[
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 120\nid: e-1\nevent: item\ndata: 1\n\n\
             id: e-2\nevent: item\ndata: ha",
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: e-2\nevent: item\ndata: 2\n\n",
        ];
        let (address, server) = serve(ANSWERS).await;
        let subscriber = TestSubscriber::start(address, "/news/stream");
        let limit = Duration::from_secs(60);
        let second = subscriber.wait_event("item", limit, |r| r.message.data == "2").await.unwrap();
        assert_eq!(
            (second.connection, subscriber.count("item")),
            (1, 2),
            "an incomplete event does not count"
        );
        let connections = subscriber.connections();
        assert_eq!(connections[1].resumed_from.as_deref(), Some("e-1"));
        assert!(connections[1].at - connections[0].at >= Duration::from_millis(120));
        let heads = server.await.unwrap();
        assert!(
            !heads[0].contains("Last-Event-ID") && heads[1].contains("Last-Event-ID: e-1\r\n"),
            "{heads:?}"
        );
    }

    #[tokio::test]
    async fn it_stops_where_a_browser_would() {
        let (address, _server) = serve(&["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"]).await;
        let subscriber = TestSubscriber::start(address, "/news/stream");
        let limit = Duration::from_secs(60);
        let why = wait_for("the end", limit, async || subscriber.closed()).await.unwrap();
        assert!(why.contains("503"), "{why}");
    }
}
