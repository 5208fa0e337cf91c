//! A client of the public stream that does what an `EventSource` does: keeps its last id, comes back after the delay that
//! it was told, and gives up for good where a browser would.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::Value;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    http::{self, Address},
    sse::{Message, Parser},
    wait_for,
};

/// How long to wait before connecting again until the server has said so, as browsers do.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);
/// Silence after which the connection is given up: three heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// An event as it arrived.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// When.
    pub at: Instant,
    /// What.
    pub message: Message,
}

impl Record {
    /// Its data as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.message.data).unwrap_or(Value::Null)
    }
}

/// One connection, successful or not.
#[derive(Clone, Debug)]
pub struct Connection {
    /// When it was tried.
    pub at: Instant,
    /// `Last-Event-ID` as it was sent.
    pub resumed_from: Option<String>,
    /// How it ended; nothing while it lasts.
    pub ended: Option<String>,
}

/// The client; disconnects when this is dropped.
pub struct Subscriber {
    notes: Arc<Mutex<Notes>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Notes {
    records: Vec<Record>,
    connections: Vec<Connection>,
    /// Why it stopped for good: a status or type on which an `EventSource` does not come back.
    closed: Option<String>,
    last_event_id: String,
}

impl Subscriber {
    /// Begins to connect to a path such as `/news/stream?snapshot=1000`.
    #[must_use]
    pub fn start(address: Address, path: &str) -> Self {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let task = tokio::spawn(follow(address, path.to_owned(), Arc::clone(&notes)));
        Self { notes, task }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("nobody panics while holding it")
    }

    /// Everything so far, in the order of arrival.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.notes().records.clone()
    }

    /// Events of one type so far.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<Record> {
        self.notes().records.iter().filter(|r| r.message.event == event).cloned().collect()
    }

    /// How many events of one type so far.
    #[must_use]
    pub fn count(&self, event: &str) -> usize {
        self.notes().records.iter().filter(|r| r.message.event == event).count()
    }

    /// Every connection so far.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.notes().connections.clone()
    }

    /// Why it will not come back, where a browser would not.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        self.notes().closed.clone()
    }

    /// Its place; empty when it has none.
    #[must_use]
    pub fn last_event_id(&self) -> String {
        self.notes().last_event_id.clone()
    }

    /// Waits for an event of that type that fits.
    ///
    /// # Errors
    /// When none comes in time; says what came instead.
    pub async fn wait_event(
        &self,
        event: &str,
        limit: Duration,
        fits: impl Fn(&Record) -> bool,
    ) -> anyhow::Result<Record> {
        wait_for(&format!("an event `{event}` that fits"), limit, async || {
            self.notes().records.iter().find(|r| r.message.event == event && fits(r)).cloned()
        })
        .await
        .map_err(|error| error.context(self.summary()))
    }

    /// What has happened to it, in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let notes = self.notes();
        let mut counts = std::collections::BTreeMap::new();
        for record in &notes.records {
            *counts.entry(record.message.event.as_str()).or_insert(0) += 1;
        }
        let ends: Vec<_> = notes.connections.iter().filter_map(|c| c.ended.as_deref()).collect();
        format!(
            "the subscriber saw {counts:?} on {} connections, stands at {:?}, ends: {ends:?}, closed: {:?}",
            notes.connections.len(),
            notes.last_event_id,
            notes.closed
        )
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(address: Address, path: String, notes: Arc<Mutex<Notes>>) {
    let lock = || notes.lock().expect("nobody panics while holding it");
    let mut parser = Parser::default();
    loop {
        parser.reconnect();
        let place = Some(parser.last_event_id().to_owned()).filter(|place| !place.is_empty());
        let number = {
            let mut notes = lock();
            notes.connections.push(Connection {
                at: Instant::now(),
                resumed_from: place.clone(),
                ended: None,
            });
            notes.connections.len() - 1
        };
        let end = read_stream(&address, &path, place.as_deref(), &mut parser, |message, last_event_id| {
            let mut notes = lock();
            notes.last_event_id.clear();
            notes.last_event_id.push_str(last_event_id);
            notes.records.extend(message.map(|message| Record {
                connection: number,
                at: Instant::now(),
                message,
            }));
        })
        .await;
        let (text, final_) = match end {
            End::Again(why) => (why, false),
            End::Never(why) => (why, true),
        };
        lock().connections[number].ended = Some(text.clone());
        if final_ {
            lock().closed = Some(text);
            return;
        }
        tokio::time::sleep(parser.retry().unwrap_or(RETRY_DEFAULT)).await;
    }
}

/// How a connection ended.
enum End {
    /// A browser comes back.
    Again(String),
    /// A browser does not.
    Never(String),
}

async fn read_stream(
    address: &Address,
    path: &str,
    place: Option<&str>,
    parser: &mut Parser,
    mut note: impl FnMut(Option<Message>, &str),
) -> End {
    let mut headers = vec![("Accept", "text/event-stream"), ("Cache-Control", "no-store")];
    headers.extend(place.map(|place| ("Last-Event-ID", place)));
    let mut answer = match tokio::time::timeout(SILENCE_MAX, http::get(address, path, &headers)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return End::Again(format!("no answer: {error}")),
        Err(_) => return End::Again(format!("no answer within {SILENCE_MAX:?}")),
    };
    let media_type = answer.header("content-type").unwrap_or_default().to_owned();
    if answer.status != 200 || !media_type.starts_with("text/event-stream") {
        return End::Never(format!("answered {} with {media_type:?}", answer.status));
    }
    loop {
        match tokio::time::timeout(SILENCE_MAX, answer.next()).await {
            Ok(Ok(Some(bytes))) => {
                for message in parser.push(&bytes) {
                    let place = message.last_event_id.clone();
                    note(Some(message), &place);
                }
                note(None, parser.last_event_id());
            }
            Ok(Ok(None)) => return End::Again("the stream ended".to_owned()),
            Ok(Err(error)) => return End::Again(format!("the stream broke: {error}")),
            Err(_) => return End::Again(format!("nothing came for {SILENCE_MAX:?}")),
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

    /// Answers one connection after the other with these bytes, then holds the last one open; gives the request heads.
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
    async fn it_comes_back_with_its_last_id_after_the_delay_it_was_told() {
        const ANSWERS: &[&str] = &[
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 120\nid: e-1\nevent: item\ndata: 1\n\n\
             id: e-2\nevent: item\ndata: ha",
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: e-2\nevent: item\ndata: 2\n\n",
        ];
        let (address, server) = serve(ANSWERS).await;
        let subscriber = Subscriber::start(address, "/news/stream");
        let limit = Duration::from_secs(5);
        let second = subscriber.wait_event("item", limit, |r| r.message.data == "2").await.unwrap();
        assert_eq!((second.connection, subscriber.count("item")), (1, 2), "half an event is none");
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
    async fn it_gives_up_where_a_browser_would() {
        let (address, _server) = serve(&["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"]).await;
        let subscriber = Subscriber::start(address, "/news/stream");
        let limit = Duration::from_secs(5);
        let why = wait_for("the end", limit, async || subscriber.closed()).await.unwrap();
        assert!(why.contains("503"), "{why}");
    }
}
