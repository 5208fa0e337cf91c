//! Step 10 of the life of an item: into another process, without holes.
//!
//! A [`Subscription`] keeps the cursor. Whatever happens to the server, it reconnects and continues after the last event:
//! no event is returned twice.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use news::{Cursor, EventKind};
use reqwest::{
    Client, Response,
    header::{HeaderValue, InvalidHeaderValue},
};
use tokio::time::timeout;
use tokio_util::codec::Decoder as _;

use crate::{
    endpoint::{ClientError, Endpoint, Refusal, deepest},
    resume::{Gap, NEWEST_EVENT_HASH, NEWEST_EVENT_ID, Resume, StreamOpened, event_hash},
};

/// Whether a hole in the sequence is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// All events are requested: a hole ends the connection, and the next one requests them again.
    All,
    /// A filter is set: holes are expected.
    Filtered,
}

/// Time limits of a subscription.
#[derive(Clone, Copy, Debug)]
pub struct SubscriptionTiming {
    /// Longest wait for the head of the response.
    pub answer: Duration,
    /// Longest silence; must exceed the heartbeat of the server.
    pub silence: Duration,
    /// First and longest delay between attempts; it doubles, with jitter in the upper half.
    pub retry: (Duration, Duration),
}

impl Default for SubscriptionTiming {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(5),
            silence: Duration::from_secs(10),
            retry: (Duration::from_millis(100), Duration::from_secs(2)),
        }
    }
}

/// What happened to a subscription.
#[derive(Clone, Debug)]
pub enum SubscriptionEvent {
    /// The stream is open, with the resolved cursor. After `reset` it starts as if there had been no cursor.
    Connected(StreamOpened),
    /// The next event.
    Event(ReceivedEvent),
    /// Events were missed; the next one is `oldest`, if there is one yet. The cursor may have moved past them.
    Gap(Gap),
    /// An event without an id, or of a kind that this version does not know: name and data.
    Notice(String, Bytes),
    /// A heartbeat, with its data.
    Heartbeat(Bytes),
    /// The stream ended or could not be opened; the next call waits and tries again.
    Lost {
        /// What happened.
        reason: LostReason,
        /// How long the next call waits.
        wait: Duration,
    },
}

/// Why there is no stream.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LostReason {
    /// It could not be opened.
    #[error("{0}")]
    NotOpened(#[from] ClientError),
    /// It was open, and has ended.
    #[error("{0}")]
    Ended(String),
}

/// An event as received.
#[derive(Clone, Debug)]
pub struct ReceivedEvent {
    /// Its id.
    pub id: Cursor,
    /// Item or update.
    pub kind: EventKind,
    /// The event as JSON, on one line.
    pub json: Bytes,
}

/// A stream of events that reconnects by itself.
pub struct Subscription {
    endpoint: Endpoint,
    path: String,
    coverage: Coverage,
    timing: SubscriptionTiming,
    /// `Authorization`, as it is sent; never shown.
    authorization: Option<HeaderValue>,
    client: Option<Client>,
    cursor: Option<Cursor>,
    /// The newest event of the log that was ever returned, which the server is told of with each request.
    newest: Option<NewestEvent>,
    /// The newest event that any reader has returned, if the server says that it does not have that one.
    newest_elsewhere: Option<Cursor>,
    /// The log of the server does not have one of the two, in the same epoch: the cursor means nothing there.
    is_older_copy: bool,
    /// Whether the next event must be the one after the cursor.
    contiguous: bool,
    state: ConnectionState,
    attempts: u32,
    /// `retry:` of the server; a lower bound of the next delay.
    retry: Option<Duration>,
}

/// The newest event of a log, and what the log that had it can be recognised by.
struct NewestEvent {
    id: Cursor,
    /// Its JSON; `None` if it was missing.
    json: Option<Bytes>,
}

enum ConnectionState {
    Waiting(Duration),
    Open(Box<OpenStream>),
}

struct OpenStream {
    response: Response,
    decoder: russe::Decoder,
    buffer: BytesMut,
}

impl Subscription {
    /// Largest block accepted, in bytes: twice the largest event, whose content has 256 KiB (768 KiB if each character is
    /// written as a reference), its summary 64 KiB, and its lists 256 KiB.
    pub const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;

    /// A subscription to `path` (with its query), after `cursor` if there is one. No connection is made yet.
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        path: &str,
        cursor: Option<Cursor>,
        coverage: Coverage,
        timing: SubscriptionTiming,
    ) -> Self {
        Self {
            endpoint,
            path: path.to_owned(),
            coverage,
            timing,
            authorization: None,
            client: None,
            cursor,
            newest: None,
            newest_elsewhere: None,
            is_older_copy: false,
            contiguous: false,
            state: ConnectionState::Waiting(Duration::ZERO),
            attempts: 0,
            retry: None,
        }
    }

    /// Sends this bearer token with each request.
    ///
    /// # Errors
    /// If it is not a valid header value.
    pub fn with_bearer(mut self, token: &str) -> Result<Self, InvalidHeaderValue> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        self.authorization = Some(authorization);
        Ok(self)
    }

    /// The last event returned, or the cursor of a later heartbeat.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// The newest event that was ever returned, here or to another reader as far as the server knows, if the log of the
    /// server is an older copy without it: it has the same epoch, and ends before that event or has another one in its place.
    #[must_use]
    pub fn newest_unknown_to_server(&self) -> Option<&Cursor> {
        let own = self.newest.as_ref().map(|newest| &newest.id);
        let newest = match (own, &self.newest_elsewhere) {
            (Some(own), Some(other)) if own.epoch != other.epoch || own.seq < other.seq => Some(other),
            (Some(own), _) => Some(own),
            (None, other) => other.as_ref(),
        };
        newest.filter(|_| self.is_older_copy)
    }

    /// Waits for the next event. Cancel-safe: a dropped call loses nothing, but a connection attempt starts again.
    pub async fn next(&mut self) -> SubscriptionEvent {
        loop {
            let result = match &mut self.state {
                ConnectionState::Waiting(wait) => {
                    // In small steps, so that a dropped call does not start again.
                    while !wait.is_zero() {
                        let step = (*wait).min(Duration::from_millis(100));
                        tokio::time::sleep(step).await;
                        *wait -= step;
                    }
                    self.connect().await.map(|()| None).map_err(LostReason::NotOpened)
                }
                ConnectionState::Open(open) => match open.read(self.timing.silence).await {
                    Ok(event) => self.handle(event).map_err(LostReason::Ended),
                    Err(reason) => Err(LostReason::Ended(reason)),
                },
            };
            match result {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(reason) => return self.lost(reason),
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(self.endpoint.client()?).clone(),
        };
        let mut request = client.get(self.endpoint.url(&self.path)?).header("accept", "text/event-stream");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization.clone());
        }
        if let Some(cursor) = self.cursor.as_ref().filter(|_| !self.is_older_copy) {
            request = request.header("last-event-id", cursor.to_string());
        }
        if let Some(NewestEvent { id, json }) = &self.newest {
            request = request.header(NEWEST_EVENT_ID, id.to_string());
            if let Some(json) = json {
                request = request.header(NEWEST_EVENT_HASH, event_hash(json));
            }
        } else if let Some(id) = &self.newest_elsewhere {
            request = request.header(NEWEST_EVENT_ID, id.to_string());
        }
        let response = match timeout(self.timing.answer, request.send()).await {
            Ok(sent) => sent.map_err(|e| self.endpoint.no_response(&e))?,
            Err(_) => return Err(ClientError::Late(self.endpoint.clone())),
        };
        if response.status() != 200 {
            let refusal = timeout(self.timing.answer, Refusal::read(response)).await;
            let refusal = refusal.map_err(|_| ClientError::Late(self.endpoint.clone()))?;
            return Err(ClientError::Refused(self.endpoint.clone(), refusal));
        }
        let (decoder, buffer) = (russe::Decoder::default(), BytesMut::new());
        self.state = ConnectionState::Open(Box::new(OpenStream { response, decoder, buffer }));
        Ok(())
    }

    fn lost(&mut self, reason: LostReason) -> SubscriptionEvent {
        let (first, longest) = self.timing.retry;
        let ceiling = first.saturating_mul(1 << self.attempts.min(16)).min(longest);
        let ceiling = ceiling.max(self.retry.take().unwrap_or_default());
        self.attempts += 1;
        // From the upper half: spread out, but never at once.
        let wait = ceiling.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.state = ConnectionState::Waiting(wait);
        SubscriptionEvent::Lost { reason, wait }
    }

    /// Turns a block into an event, if it is one; an error ends the connection.
    fn handle(&mut self, event: russe::Event) -> Result<Option<SubscriptionEvent>, String> {
        let message = match event {
            russe::Event::Comment(_) => return Ok(None),
            russe::Event::Retry(retry) => {
                self.retry = Some(retry);
                return Ok(None);
            }
            russe::Event::Message(message) => message,
        };
        if message.retry.is_some() {
            self.retry = message.retry;
        }
        let id = match message.id.as_deref() {
            Some(id) => Some(id.parse::<Cursor>().map_err(|e| format!("bad id in the stream: {e}"))?),
            None => None,
        };
        let name = message.event.as_deref().unwrap_or_default().to_owned();
        let data = message.data.into_bytes();
        let kind = match name.as_str() {
            "item" => EventKind::Item,
            "update" => EventKind::Update,
            "stream" => return self.stream_opened(id, &data).map(Some),
            "gap" => return self.gap(id, &data).map(Some),
            "heartbeat" | "" => {
                self.move_to(id);
                return Ok(Some(SubscriptionEvent::Heartbeat(data)));
            }
            // Of a kind that a later version has; with an id it is an event of the log.
            _ => {
                let is_new = id.map_or(Ok(true), |id| self.follow(&id, None))?;
                return Ok(is_new.then_some(SubscriptionEvent::Notice(name, data)));
            }
        };
        let id = id.ok_or("an event without an id in the stream")?;
        self.event(ReceivedEvent { id, kind, json: data })
    }

    fn event(&mut self, incoming: ReceivedEvent) -> Result<Option<SubscriptionEvent>, String> {
        let ReceivedEvent { id, json, .. } = &incoming;
        let is_new = self.follow(id, Some(json))?;
        Ok(is_new.then_some(SubscriptionEvent::Event(incoming)))
    }

    /// Moves the cursor to an event of the log; returns false if it was there already.
    ///
    /// # Errors
    /// If there is a hole before it.
    fn follow(&mut self, id: &Cursor, json: Option<&Bytes>) -> Result<bool, String> {
        if let Some(last) = self.cursor.as_ref().filter(|last| last.epoch == id.epoch) {
            if id.seq <= last.seq {
                return Ok(false);
            }
            if self.contiguous && id.seq != last.seq.next() {
                return Err(format!("a hole in the stream: {id} after {last}"));
            }
        }
        self.contiguous = self.coverage == Coverage::All;
        self.cursor = Some(id.clone());
        self.record_newest(id, json);
        Ok(true)
    }

    /// The first event; its id is the cursor in this log.
    fn stream_opened(&mut self, id: Option<Cursor>, data: &[u8]) -> Result<SubscriptionEvent, String> {
        let opened: StreamOpened =
            serde_json::from_slice(data).map_err(|e| format!("bad first event: {e}"))?;
        self.attempts = 0;
        self.contiguous = id.is_some() && self.coverage == Coverage::All;
        // What another reader is ahead by concerns this one, too: it is asked for ids that come from there.
        self.newest_elsewhere = opened.newest_seen.clone();
        let is_above = |head: &Cursor| {
            self.newest
                .as_ref()
                .is_some_and(|newest| newest.id.epoch == head.epoch && newest.id.seq > head.seq)
        };
        self.is_older_copy = opened.older_copy || opened.head.as_ref().is_some_and(is_above);
        match (id, opened.resume) {
            (Some(cursor), _) => {
                self.record_newest(&cursor, None);
                self.cursor = Some(cursor);
            }
            // The old cursor is not of this log.
            (None, Resume::Live | Resume::Reset) => self.cursor = None,
            (None, Resume::Exact | Resume::Gap) => {}
        }
        Ok(SubscriptionEvent::Connected(opened))
    }

    /// Moves the cursor past events that were not returned.
    fn move_to(&mut self, id: Option<Cursor>) {
        let is_ahead = |id: &Cursor| {
            self.cursor.as_ref().is_none_or(|cursor| cursor.epoch != id.epoch || cursor.seq < id.seq)
        };
        if let Some(id) = id.filter(is_ahead) {
            self.record_newest(&id, None);
            self.cursor = Some(id);
        }
    }

    /// While the server has an older copy of the log, the event that tells so is kept.
    fn record_newest(&mut self, id: &Cursor, json: Option<&Bytes>) {
        let is_newer = |newest: &NewestEvent| newest.id.epoch != id.epoch || newest.id.seq < id.seq;
        if !self.is_older_copy && self.newest.as_ref().is_none_or(is_newer) {
            self.newest = Some(NewestEvent { id: id.clone(), json: json.cloned() });
        }
    }

    /// A gap; its id, if it has one, is the last event missed.
    fn gap(&mut self, id: Option<Cursor>, data: &[u8]) -> Result<SubscriptionEvent, String> {
        self.contiguous = id.is_some() && self.coverage == Coverage::All;
        self.move_to(id);
        serde_json::from_slice(data).map(SubscriptionEvent::Gap).map_err(|e| format!("bad gap event: {e}"))
    }
}

impl OpenStream {
    async fn read(&mut self, silence: Duration) -> Result<russe::Event, String> {
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => return Err(format!("not an event stream: {error}")),
            }
            if self.buffer.len() > Subscription::BLOCK_BYTES_MAX {
                return Err(format!("a block of more than {} bytes", Subscription::BLOCK_BYTES_MAX));
            }
            match timeout(silence, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Err("the server ended the stream".to_owned()),
                Ok(Err(error)) => return Err(format!("the stream broke: {}", deepest(&error))),
                Err(_) => return Err(format!("silence for {silence:?}")),
            }
        }
    }
}
