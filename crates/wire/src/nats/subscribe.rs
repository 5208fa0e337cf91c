//! Step 10 of the life of an item, over NATS: into a gateway, in the order of the stream and without holes.
//!
//! ```text
//! waiting ──► look at the stream and its epoch ──► one ordered consumer, begun at the newest event that was returned ──► open
//!    ▲                                              (the first message must be that very event)                         │
//!    └──── the connection broke │ another epoch │ the stream was made anew │ numbers that went back ◄───────────────────┘
//! ```
//!
//! After each of these everything is compared anew, so that no id is ever returned for two events. What the consumer sends
//! once more is passed over: async-nats makes a consumer anew that has lost messages, from the first message of the stream if
//! none has come yet.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{
    Subscriber,
    jetstream::{
        self,
        consumer::{DeliverPolicy, pull},
    },
};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use news::{Cursor, Epoch, Seq};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    connection::ANSWER_MAX,
    epoch::{EpochChange, EpochRecord},
    event_stream::{EventStream, StreamProblem, StreamState, chain},
    message::EventMessage,
    notices::{DAEMON_GONE_AFTER, DaemonHeartbeat, DaemonNotice, NOTICE_HELD_MAX, NewestSeen, NoticeKind},
    pages::StreamPages,
};
use crate::{
    publish::WireHeartbeat,
    resume::{Gap, LogBounds, Resume, ResumeDecision, event_hash},
    subscribe::{LostReason, ReceivedEvent, SubscriptionEvent},
};

/// First and longest delay between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long the first attempt waits for a connection to be made.
const FIRST_CONNECTION_MAX: Duration = Duration::from_secs(2);
/// How often the bounds of the stream are read while it is open.
const BOUNDS_INTERVAL: Duration = Duration::from_secs(10);
/// Notices that wait for the event that they follow. With more, the list of sources is read anew instead.
const HELD_NOTICES_MAX: usize = 1024;
/// Daemons that are known at once. Others are not counted on.
const DAEMONS_MAX: usize = 1024;
/// How long one request for messages is open. Twice in this time the server says that the consumer is there; one whose server
/// has died is made anew after two of these.
const PULL_EXPIRES: Duration = Duration::from_secs(4);
/// How often, and after which pause, a stream is looked at again that ends before the newest event that was returned.
const AHEAD_LOOKS: usize = 4;
const AHEAD_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The daemons that have sent a heartbeat lately. Cheap to clone; all clones are one list.
#[derive(Clone, Debug, Default)]
pub struct KnownDaemons {
    daemons: Arc<Mutex<BTreeMap<String, (Instant, DaemonHeartbeat)>>>,
}

impl KnownDaemons {
    /// Their names, in alphabetical order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.with(|daemons| daemons.keys().cloned().collect())
    }

    /// The last heartbeat of each.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<DaemonHeartbeat> {
        self.with(|daemons| daemons.values().map(|(_, heartbeat)| heartbeat.clone()).collect())
    }

    fn with<T>(&self, read: impl FnOnce(&BTreeMap<String, (Instant, DaemonHeartbeat)>) -> T) -> T {
        let mut daemons = self.daemons.lock().unwrap_or_else(PoisonError::into_inner);
        daemons.retain(|_, (heard, _)| heard.elapsed() < DAEMON_GONE_AFTER);
        read(&daemons)
    }

    /// Whether it was not known before.
    fn note(&self, heartbeat: DaemonHeartbeat) -> bool {
        self.with(|_| ());
        let mut daemons = self.daemons.lock().unwrap_or_else(PoisonError::into_inner);
        if daemons.len() >= DAEMONS_MAX && !daemons.contains_key(&heartbeat.daemon) {
            return false;
        }
        daemons.insert(heartbeat.daemon.clone(), (Instant::now(), heartbeat)).is_none()
    }
}

/// The events of the stream, in order, and what daemons say besides. It reconnects by itself.
pub struct NatsSubscription {
    stream: EventStream,
    /// Where a reader without a cursor begins: so many events before the newest.
    snapshot: u64,
    daemons: KnownDaemons,
    cursor: Option<Cursor>,
    /// The newest event that was returned.
    newest: Option<NewestMessage>,
    state: ReaderState,
    /// What pages of the stream may ask for; none while it is not open.
    bounds: watch::Sender<Option<LogBounds>>,
    /// An event of the present epoch was returned whose number belongs to another one: a new epoch must begin.
    contested: bool,
    attempts: u32,
    /// Returned before anything else.
    ready: VecDeque<SubscriptionEvent>,
}

/// What an event of the stream is recognised by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NewestMessage {
    seq: u64,
    message_id: Option<String>,
    hash: String,
}

enum ReaderState {
    Waiting(Duration),
    Open(Box<OpenReader>),
}

struct OpenReader {
    epoch: Epoch,
    messages: pull::Ordered,
    /// The event that the first message must be.
    expected: Option<NewestMessage>,
    /// The last epoch of a message that is not the present one; the stream was looked at when it was met.
    other_epoch: Option<String>,
    connections: watch::Receiver<u64>,
    connection: u64,
    epoch_changed: BoxFuture<'static, Result<(), StreamProblem>>,
    heartbeats: Subscriber,
    notices: Subscriber,
    questions: Subscriber,
    held: VecDeque<(Instant, DaemonNotice)>,
    bounds_read: BoxFuture<'static, Result<(EpochRecord, StreamState), StreamProblem>>,
}

/// What an open reader has to do next.
enum Happened {
    Message(Box<Option<Result<jetstream::Message, pull::OrderedError>>>),
    Heartbeat(async_nats::Message),
    Notice(async_nats::Message),
    Question(async_nats::Message),
    HeldNotice,
    BoundsRead(Result<(EpochRecord, StreamState), StreamProblem>),
    /// It has to compare everything anew.
    Broken(String),
}

impl NatsSubscription {
    /// A subscription without a cursor, which begins `snapshot` events before the newest one. Nothing is asked yet.
    #[must_use]
    pub fn new(stream: EventStream, snapshot: u64) -> Self {
        Self {
            stream,
            snapshot,
            daemons: KnownDaemons::default(),
            cursor: None,
            newest: None,
            state: ReaderState::Waiting(Duration::ZERO),
            bounds: watch::Sender::new(None),
            contested: false,
            attempts: 0,
            ready: VecDeque::new(),
        }
    }

    /// The daemons that publish.
    #[must_use]
    pub fn daemons(&self) -> KnownDaemons {
        self.daemons.clone()
    }

    /// Pages of the stream, for readers that were away for long.
    #[must_use]
    pub fn pages(&self) -> StreamPages {
        StreamPages::new(self.stream.clone(), self.bounds.subscribe())
    }

    /// The last event returned, or the last one missed.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Waits for the next event. Cancel-safe: a dropped call loses nothing, but an attempt to connect starts again.
    pub async fn next(&mut self) -> SubscriptionEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let result = match &mut self.state {
                ReaderState::Waiting(wait) => {
                    // In small steps, so that a dropped call does not start again.
                    while !wait.is_zero() {
                        let step = (*wait).min(Duration::from_millis(100));
                        tokio::time::sleep(step).await;
                        *wait -= step;
                    }
                    self.open().await.map_err(|problem| problem.to_string())
                }
                ReaderState::Open(open) => {
                    let happened = open.next().await;
                    self.handle(happened).await
                }
            };
            if let Err(reason) = result {
                return self.lost(reason);
            }
        }
    }

    fn lost(&mut self, reason: String) -> SubscriptionEvent {
        let (first, longest) = RETRY;
        let ceiling = first.saturating_mul(1 << self.attempts.min(16)).min(longest);
        self.attempts += 1;
        // From the upper half: spread out, but never at once.
        let wait = ceiling.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.state = ReaderState::Waiting(wait);
        self.bounds.send_replace(None);
        SubscriptionEvent::Lost { reason: LostReason::Ended(reason), wait }
    }

    async fn open(&mut self) -> Result<(), StreamProblem> {
        let mut connections = self.stream.connection().connections();
        if *connections.borrow() == 0 {
            // The first connection is made in the background: what comes a moment later is no loss.
            timeout(FIRST_CONNECTION_MAX, connections.wait_for(|count| *count > 0)).await.ok();
        }
        // Marked as seen: a receiver that is new considers every connection of the past a change.
        let connection = *connections.borrow_and_update();
        let (mut record, mut state) = self.stream.look().await?;
        if self.is_ahead_of(&record.epoch, state.last) {
            // A leader that was just elected may not have applied everything yet.
            for _ in 0..AHEAD_LOOKS {
                tokio::time::sleep(AHEAD_LOOK_INTERVAL).await;
                (record, state) = self.stream.look().await?;
                if !self.is_ahead_of(&record.epoch, state.last) {
                    break;
                }
            }
        }
        let is_own = self.cursor.as_ref().is_some_and(|cursor| cursor.epoch == record.epoch);
        if (self.contested && is_own) || self.is_ahead_of(&record.epoch, state.last) {
            record = self.stream.begin_epoch(&record.epoch, EpochChange::SequenceWentBack).await?;
        }
        let bounds = bounds(&record.epoch, &state);
        let requested = self.cursor.as_ref().map(ToString::to_string);
        let decision = bounds.resolve_cursor(requested.as_deref());
        let cursor = decision.after.unwrap_or_else(|| bounds.snapshot(self.snapshot));
        let expected = self.newest.clone().filter(|newest| {
            decision.resume == Resume::Exact && newest.seq == cursor.0 && cursor >= bounds.oldest
        });
        // With the event that was returned last, so that a message comes, whatever the night is like.
        let start = if expected.is_some() { cursor.0 } else { cursor.0 + 1 };
        let messages = self.consumer(start).await?;
        // The consumer is found by the name of the stream, which may have been made anew since.
        let (again, _) = self.stream.look().await?;
        if again.epoch != record.epoch {
            return Err(StreamProblem::NoEpoch(self.stream.connection().names().stream().to_owned()));
        }
        let client = self.stream.connection().client();
        let names = self.stream.connection().names();
        let subscribe = async |subject: String| {
            client.subscribe(subject).await.map_err(|e| StreamProblem::NoAnswer(e.to_string()))
        };
        let (heartbeats, notices, questions) = (
            subscribe(names.heartbeats()).await?,
            subscribe(names.notices()).await?,
            subscribe(names.seen()).await?,
        );
        let (watched, epoch) = (self.stream.clone(), record.epoch.clone());
        self.state = ReaderState::Open(Box::new(OpenReader {
            messages,
            expected,
            other_epoch: None,
            connections,
            connection,
            epoch_changed: async move { watched.epoch_changed(&epoch).await }.boxed(),
            heartbeats,
            notices,
            questions,
            held: VecDeque::new(),
            bounds_read: later(&self.stream),
            epoch: record.epoch,
        }));
        self.attempts = 0;
        self.contested = false;
        self.connected(&bounds, &decision, requested.as_deref(), cursor);
        Ok(())
    }

    /// Whether the stream ends before the newest event that was returned.
    fn is_ahead_of(&self, epoch: &Epoch, last: u64) -> bool {
        self.cursor.as_ref().is_some_and(|cursor| cursor.epoch == *epoch && cursor.seq.0 > last)
    }

    fn connected(
        &mut self,
        bounds: &LogBounds,
        decision: &ResumeDecision,
        requested: Option<&str>,
        cursor: Seq,
    ) {
        let version = self.stream.connection().server().map(|server| server.version).unwrap_or_default();
        let opened = bounds.stream_opened(decision, requested, &format!("nats-server/{version}"));
        if decision.resume != Resume::Exact {
            self.newest = None;
        }
        self.cursor = Some(Cursor { epoch: bounds.epoch.clone(), seq: cursor });
        self.bounds.send_replace(Some(bounds.clone()));
        self.ready.push_back(SubscriptionEvent::Connected(opened));
    }

    /// An ordered consumer whose first message is the first one from `start` on.
    async fn consumer(&self, start: u64) -> Result<pull::Ordered, StreamProblem> {
        let connection = self.stream.connection();
        let config = pull::OrderedConfig {
            name: Some(format!("reader-{}", Epoch::random(fastrand::digit))),
            description: Some(connection.settings().client.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: start.max(1) },
            max_expires: PULL_EXPIRES,
            ..Default::default()
        };
        let made = async {
            let consumer = self.stream.handle().await?.create_consumer(config).await;
            let consumer = consumer.map_err(|e| StreamProblem::NoAnswer(chain(&e)))?;
            consumer.messages().await.map_err(|e| StreamProblem::NoAnswer(chain(&e)))
        };
        timeout(ANSWER_MAX, made)
            .await
            .unwrap_or_else(|_| Err(StreamProblem::NoAnswer("the consumer was not made in time".to_owned())))
    }

    async fn handle(&mut self, happened: Happened) -> Result<(), String> {
        match happened {
            Happened::Message(message) => match *message {
                Some(Ok(message)) => self.message(&message).await,
                Some(Err(error)) => Err(format!("the consumer failed: {}", chain(&error))),
                None => Err("the consumer has ended".to_owned()),
            },
            Happened::Heartbeat(message) => {
                self.heartbeat(&message.payload);
                Ok(())
            }
            Happened::Notice(message) => {
                self.notice(&message.payload);
                Ok(())
            }
            Happened::Question(message) => {
                self.answer(message).await;
                Ok(())
            }
            Happened::HeldNotice => {
                self.release_notices();
                Ok(())
            }
            Happened::BoundsRead(looked) => self.take_bounds(looked).await,
            Happened::Broken(reason) => Err(reason),
        }
    }

    async fn message(&mut self, message: &jetstream::Message) -> Result<(), String> {
        let ReaderState::Open(open) = &mut self.state else { return Ok(()) };
        let seq = message.info().map_err(|e| e.to_string())?.stream_sequence;
        let headers = message.headers.clone().unwrap_or_default();
        let newest = NewestMessage {
            seq,
            message_id: EventMessage::message_id_of(&headers).map(str::to_owned),
            hash: event_hash(&message.payload),
        };
        // What comes before it is a repetition: the comparison still follows.
        if let Some(expected) = open.expected.take_if(|expected| expected.seq <= seq)
            && expected.seq == seq
            && expected != newest
        {
            return self.went_back(&expected, &newest).await;
        }
        if let Some(epoch) = EventMessage::stream_epoch_of(&headers)
            && epoch != open.epoch.as_str()
            && open.other_epoch.as_deref() != Some(epoch)
        {
            self.check_epoch(epoch).await?;
        }
        let Some(cursor) = self.cursor.clone().filter(|cursor| cursor.seq.0 < seq) else { return Ok(()) };
        let id = Cursor { epoch: cursor.epoch.clone(), seq: Seq(seq) };
        let received = EventMessage::from_received(&headers, message.payload.clone());
        let missed = cursor.seq.missing_before(id.seq) + u64::from(received.is_err());
        if missed > 0 {
            let oldest = received.is_ok().then(|| id.clone());
            self.ready.push_back(SubscriptionEvent::Gap(Gap { missed, oldest }));
        }
        match received {
            Ok(event) => {
                let json = event.json_with_id(&id);
                self.ready.push_back(SubscriptionEvent::Event(ReceivedEvent {
                    id: id.clone(),
                    kind: event.kind,
                    json,
                }));
            }
            Err(error) => self.ready.push_back(SubscriptionEvent::Notice(
                "unreadable".to_owned(),
                Bytes::from(format!("message {seq} of the stream is no event: {error}")),
            )),
        }
        self.newest = Some(newest);
        self.note_head(id.seq);
        self.cursor = Some(id);
        self.release_notices();
        Ok(())
    }

    /// A message was published under another epoch: before the present one, or after it, of which this reader does not know yet.
    async fn check_epoch(&mut self, epoch: &str) -> Result<(), String> {
        let ReaderState::Open(open) = &mut self.state else { return Ok(()) };
        let own = open.epoch.clone();
        open.other_epoch = Some(epoch.to_owned());
        match self.stream.look().await {
            Ok((record, _)) if record.epoch == own => Ok(()),
            Ok((record, _)) => Err(format!("the stream has a new epoch, {}", record.epoch)),
            Err(problem) => Err(problem.to_string()),
        }
    }

    /// Another event has the number of one that was returned.
    async fn went_back(&mut self, expected: &NewestMessage, found: &NewestMessage) -> Result<(), String> {
        let ReaderState::Open(open) = &self.state else { return Ok(()) };
        let epoch = open.epoch.clone();
        // A call that is dropped from here on leaves nothing open, and the next one begins the epoch.
        self.state = ReaderState::Waiting(Duration::ZERO);
        self.contested = true;
        let name =
            |message: &NewestMessage| message.message_id.clone().unwrap_or_else(|| "another".to_owned());
        let reason = format!(
            "the servers lost acknowledged events: number {} was {}, and is {} now",
            found.seq,
            name(expected),
            name(found)
        );
        match self.stream.begin_epoch(&epoch, EpochChange::SequenceWentBack).await {
            Ok(_) => Err(reason),
            Err(problem) => Err(format!("{reason}; a new epoch could not be begun: {problem}")),
        }
    }

    fn heartbeat(&mut self, payload: &[u8]) {
        let Ok(heartbeat) = serde_json::from_slice::<DaemonHeartbeat>(payload) else { return };
        let is_new = self.daemons.note(heartbeat);
        self.push_heartbeat();
        if is_new {
            self.push_catalogue();
        }
    }

    fn push_heartbeat(&mut self) {
        let Some(bounds) = self.bounds.borrow().clone() else { return };
        let heartbeats = self.daemons.heartbeats();
        let data = WireHeartbeat {
            head: Some(bounds.head_cursor()),
            oldest: Cursor { epoch: bounds.epoch.clone(), seq: bounds.oldest },
            recording_paused: heartbeats
                .into_iter()
                .flat_map(|daemon| daemon.heartbeat.recording_paused)
                .collect(),
        };
        let json = serde_json::to_vec(&data).expect("a heartbeat has a JSON form");
        self.ready.push_back(SubscriptionEvent::Heartbeat(json.into()));
    }

    fn push_catalogue(&mut self) {
        self.ready.push_back(SubscriptionEvent::Notice("catalogue".to_owned(), Bytes::from_static(b"{}")));
    }

    fn notice(&mut self, payload: &[u8]) {
        let ReaderState::Open(open) = &mut self.state else { return };
        let Ok(notice) = serde_json::from_slice::<DaemonNotice>(payload) else { return };
        if notice.event == NoticeKind::Catalogue {
            return self.push_catalogue();
        }
        if open.held.len() >= HELD_NOTICES_MAX {
            open.held.clear();
            return self.push_catalogue();
        }
        open.held.push_back((Instant::now() + NOTICE_HELD_MAX, notice));
        self.release_notices();
    }

    /// Returns the notices, in order, whose events were returned, or that have waited long enough.
    fn release_notices(&mut self) {
        let ReaderState::Open(open) = &mut self.state else { return };
        let (now, cursor) = (Instant::now(), self.cursor.as_ref());
        let is_due = |(until, notice): &(Instant, DaemonNotice)| {
            let follows = notice.after.as_ref().zip(cursor);
            let waits =
                follows.is_some_and(|(after, cursor)| after.epoch == cursor.epoch && after.seq > cursor.seq);
            !waits || *until <= now
        };
        while open.held.front().is_some_and(is_due) {
            let (_, notice) = open.held.pop_front().expect("there is a first one");
            let data = Bytes::from(notice.data.get().to_owned());
            self.ready.push_back(SubscriptionEvent::Notice(notice.event.as_str().to_owned(), data));
        }
    }

    /// The stream ends with this event at least.
    fn note_head(&self, seq: Seq) {
        self.bounds.send_if_modified(|bounds| {
            let bounds = bounds.as_mut().filter(|bounds| bounds.head < seq);
            bounds.map(|bounds| bounds.head = seq).is_some()
        });
    }

    async fn take_bounds(
        &mut self,
        looked: Result<(EpochRecord, StreamState), StreamProblem>,
    ) -> Result<(), String> {
        let (record, mut state) = looked.map_err(|problem| problem.to_string())?;
        let ReaderState::Open(open) = &mut self.state else { return Ok(()) };
        if record.epoch != open.epoch {
            return Err(format!("the stream has a new epoch, {}", record.epoch));
        }
        open.bounds_read = later(&self.stream);
        let is_ahead = |last: u64| self.cursor.as_ref().is_some_and(|cursor| cursor.seq.0 > last);
        if is_ahead(state.last) {
            // Events have come since it was asked; now none are taken meanwhile.
            (_, state) = self.stream.look().await.map_err(|problem| problem.to_string())?;
        }
        if is_ahead(state.last) {
            return Err("the stream ends before the newest event that was read".to_owned());
        }
        self.bounds.send_replace(Some(bounds(&record.epoch, &state)));
        Ok(())
    }

    /// Says which event is the newest here, to a daemon that asks before it publishes to a server that was restarted.
    async fn answer(&self, question: async_nats::Message) {
        let (Some(reply), Some(newest), Some(cursor)) = (question.reply, &self.newest, &self.cursor) else {
            return;
        };
        let seen = NewestSeen {
            newest: Cursor { epoch: cursor.epoch.clone(), seq: Seq(newest.seq) },
            message_id: newest.message_id.clone(),
        };
        let json = serde_json::to_vec(&seen).expect("an answer has a JSON form");
        // A daemon that hears nothing goes on after a second.
        self.stream.connection().client().publish(reply, json.into()).await.ok();
    }
}

impl OpenReader {
    /// Waits for what happens next. Cancel-safe.
    async fn next(&mut self) -> Happened {
        let held_until = self.held.front().map(|(until, _)| *until);
        tokio::select! {
            biased;
            changed = self.connections.changed() => match changed {
                Ok(()) if *self.connections.borrow() == self.connection => {
                    Happened::Broken("the connection to NATS was lost".to_owned())
                }
                Ok(()) => Happened::Broken("NATS was connected anew".to_owned()),
                Err(_) => Happened::Broken("the client of NATS has ended".to_owned()),
            },
            changed = &mut self.epoch_changed => Happened::Broken(match changed {
                Ok(()) => "the stream has a new epoch".to_owned(),
                Err(problem) => problem.to_string(),
            }),
            question = self.questions.next() => received(question, Happened::Question),
            heartbeat = self.heartbeats.next() => received(heartbeat, Happened::Heartbeat),
            notice = self.notices.next() => received(notice, Happened::Notice),
            () = due(held_until) => Happened::HeldNotice,
            looked = &mut self.bounds_read => Happened::BoundsRead(looked),
            message = self.messages.next() => Happened::Message(Box::new(message)),
        }
    }
}

fn received(message: Option<async_nats::Message>, happened: fn(async_nats::Message) -> Happened) -> Happened {
    message.map_or_else(|| Happened::Broken("a subscription in NATS has ended".to_owned()), happened)
}

/// The stream as it will be in a while.
fn later(stream: &EventStream) -> BoxFuture<'static, Result<(EpochRecord, StreamState), StreamProblem>> {
    let stream = stream.clone();
    async move {
        tokio::time::sleep(BOUNDS_INTERVAL).await;
        stream.look().await
    }
    .boxed()
}

async fn due(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn bounds(epoch: &Epoch, state: &StreamState) -> LogBounds {
    LogBounds { epoch: epoch.clone(), oldest: Seq(state.first), head: Seq(state.last) }
}
