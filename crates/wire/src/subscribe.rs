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
    client::{ClientError, Endpoint, Refusal, deepest},
    resume::{Gap, Resume, StreamOpened},
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
    /// Events were missed; the next one is `oldest`.
    Gap(Gap),
    /// An event without an id: name and data.
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
    /// Whether the next event must be the one after the cursor.
    contiguous: bool,
    state: ConnectionState,
    attempts: u32,
    /// `retry:` of the server; a lower bound of the next delay.
    retry: Option<Duration>,
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
        if let Some(cursor) = &self.cursor {
            request = request.header("last-event-id", cursor.to_string());
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
            "gap" => return self.gap(&data).map(Some),
            "heartbeat" | "" => {
                self.cursor = id.or(self.cursor.take());
                return Ok(Some(SubscriptionEvent::Heartbeat(data)));
            }
            _ => return Ok(Some(SubscriptionEvent::Notice(name, data))),
        };
        let id = id.ok_or("an event without an id in the stream")?;
        self.event(ReceivedEvent { id, kind, json: data })
    }

    fn event(&mut self, incoming: ReceivedEvent) -> Result<Option<SubscriptionEvent>, String> {
        if let Some(last) = self.cursor.as_ref().filter(|last| last.epoch == incoming.id.epoch) {
            if incoming.id.seq <= last.seq {
                return Ok(None);
            }
            if self.contiguous && incoming.id.seq != last.seq.next() {
                return Err(format!("a hole in the stream: {} after {last}", incoming.id));
            }
        }
        self.contiguous = self.coverage == Coverage::All;
        self.cursor = Some(incoming.id.clone());
        Ok(Some(SubscriptionEvent::Event(incoming)))
    }

    /// The first event; its id is the cursor in this log.
    fn stream_opened(&mut self, id: Option<Cursor>, data: &[u8]) -> Result<SubscriptionEvent, String> {
        let opened: StreamOpened =
            serde_json::from_slice(data).map_err(|e| format!("bad first event: {e}"))?;
        self.attempts = 0;
        self.contiguous = id.is_some() && self.coverage == Coverage::All;
        match (id, opened.resume) {
            (Some(cursor), _) => self.cursor = Some(cursor),
            // The old cursor is not of this log.
            (None, Resume::Live | Resume::Reset) => self.cursor = None,
            (None, Resume::Exact | Resume::Gap) => {}
        }
        Ok(SubscriptionEvent::Connected(opened))
    }

    fn gap(&mut self, data: &[u8]) -> Result<SubscriptionEvent, String> {
        self.contiguous = false;
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
