//! Step 10 of the life of an item: into another process, without holes.
//!
//! A [`Subscription`] keeps the cursor. Whatever happens to the other side, it comes back with it and goes on after
//! the last event it gave out: what it has given out is never given out again.

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
    client::{ClientError, Endpoint, deepest},
    resume::{Gap, Resume, StreamOpened},
};

/// Whether a hole in the sequence is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Every event is asked for: a hole ends the connection, and the next one asks again.
    All,
    /// A filter is set, so holes are to be expected.
    Filtered,
}

/// How patient a subscription is.
#[derive(Clone, Copy, Debug)]
pub struct SubscriptionTiming {
    /// Longest wait for an answer to the request.
    pub answer: Duration,
    /// Longest silence; must exceed the other side's heartbeat.
    pub silence: Duration,
    /// First and longest wait between attempts; doubles in between, each time drawn from the upper half.
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

/// What a subscription has to say.
#[derive(Clone, Debug)]
pub enum SubscriptionEvent {
    /// The stream is open; this became of our cursor. After `reset` the events of another log follow.
    Connected(StreamOpened),
    /// The next event.
    Event(ReceivedEvent),
    /// Events were lost to us; the next one is `oldest`.
    Gap(Gap),
    /// Something without an id: the event's name and its data.
    Notice(String, Bytes),
    /// The other side lives; its data, when the heartbeat has some.
    Heartbeat(Bytes),
    /// The stream ended, or could not be opened; the next call waits that long and tries again.
    Lost {
        /// What happened.
        reason: String,
        /// How long the next call waits.
        wait: Duration,
    },
}

/// An event as it came.
#[derive(Clone, Debug)]
pub struct ReceivedEvent {
    /// Its id.
    pub id: Cursor,
    /// New or changed.
    pub kind: EventKind,
    /// Its one JSON form, on one line.
    pub json: Bytes,
}

/// A stream of events that comes back by itself.
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
    state: State,
    attempts: u32,
    /// The other side's `retry:`; replaces our first wait.
    retry: Option<Duration>,
}

enum State {
    Waiting(Duration),
    Open(Box<Open>),
}

struct Open {
    response: Response,
    decoder: russe::Decoder,
    buffer: BytesMut,
}

impl Subscription {
    /// Largest block taken, in bytes: far above the largest event, far below what would hurt.
    pub const BLOCK_BYTES_MAX: usize = 1024 * 1024;

    /// A subscription to `path` (with its query), going on after `cursor` when there is one. Nothing is dialled yet.
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
            state: State::Waiting(Duration::ZERO),
            attempts: 0,
            retry: None,
        }
    }

    /// The same for a server that asks who reads: shows it this token, each time anew.
    ///
    /// # Errors
    /// When no header can carry it.
    pub fn with_bearer(mut self, token: &str) -> Result<Self, InvalidHeaderValue> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        self.authorization = Some(authorization);
        Ok(self)
    }

    /// The last event given out, or the place a heartbeat moved us to.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// The next thing that happens. A dropped call loses nothing; a connection that was being made begins again.
    pub async fn next(&mut self) -> SubscriptionEvent {
        loop {
            let result = match &mut self.state {
                State::Waiting(wait) => {
                    // Waits piecewise, so that a dropped call has not to begin again.
                    while !wait.is_zero() {
                        let step = (*wait).min(Duration::from_millis(100));
                        tokio::time::sleep(step).await;
                        *wait -= step;
                    }
                    self.connect().await.map(|()| None).map_err(|e| e.to_string())
                }
                State::Open(open) => match open.read(self.timing.silence).await {
                    Ok(event) => self.take(event),
                    Err(reason) => Err(reason),
                },
            };
            match result {
                Ok(Some(signal)) => return signal,
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
            Ok(sent) => sent.map_err(|e| self.endpoint.unreachable(&e))?,
            Err(_) => {
                let reason = format!("no answer within {:?}", self.timing.answer);
                return Err(ClientError::Unreachable(self.endpoint.clone(), reason));
            }
        };
        if response.status() != 200 {
            return Err(ClientError::Refused(self.endpoint.clone(), response.status()));
        }
        let (decoder, buffer) = (russe::Decoder::default(), BytesMut::new());
        self.state = State::Open(Box::new(Open { response, decoder, buffer }));
        Ok(())
    }

    fn lost(&mut self, reason: String) -> SubscriptionEvent {
        let (first, longest) = self.timing.retry;
        let ceiling = first.saturating_mul(1 << self.attempts.min(16)).min(longest);
        let ceiling = ceiling.max(self.retry.take().unwrap_or_default());
        self.attempts += 1;
        // From the upper half: spread out, but never at once.
        let wait = ceiling.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.state = State::Waiting(wait);
        SubscriptionEvent::Lost { reason, wait }
    }

    /// Makes a signal of a block, or nothing; an error ends the connection.
    fn take(&mut self, event: russe::Event) -> Result<Option<SubscriptionEvent>, String> {
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
            "stream" => return self.hello(id, &data).map(Some),
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

    /// The first event; its id is our place in this log.
    fn hello(&mut self, id: Option<Cursor>, data: &[u8]) -> Result<SubscriptionEvent, String> {
        let hello: StreamOpened =
            serde_json::from_slice(data).map_err(|e| format!("bad first event: {e}"))?;
        self.attempts = 0;
        self.contiguous = id.is_some() && self.coverage == Coverage::All;
        match (id, hello.resume) {
            (Some(place), _) => self.cursor = Some(place),
            // The old cursor says nothing about this log.
            (None, Resume::Live | Resume::Reset) => self.cursor = None,
            (None, Resume::Exact | Resume::Gap) => {}
        }
        Ok(SubscriptionEvent::Connected(hello))
    }

    fn gap(&mut self, data: &[u8]) -> Result<SubscriptionEvent, String> {
        self.contiguous = false;
        serde_json::from_slice(data).map(SubscriptionEvent::Gap).map_err(|e| format!("bad gap event: {e}"))
    }
}

impl Open {
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
                Ok(Ok(None)) => return Err("the other side ended the stream".to_owned()),
                Ok(Err(error)) => return Err(format!("the stream broke: {}", deepest(&error))),
                Err(_) => return Err(format!("silence for {silence:?}")),
            }
        }
    }
}
