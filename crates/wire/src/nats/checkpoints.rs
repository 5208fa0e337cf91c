//! What a daemon that takes over a source needs of it, in the stream `NAME-checkpoints`: its state and its seen set.
//!
//! ```text
//! newswire.checkpoints.bbc.seen     the seen set, and what waits to be recorded
//! newswire.checkpoints.bbc.state    the state: validators, the next visit
//!   Newswire-Daemon: <daemon>     who wrote it
//!   Newswire-Through: <epoch of the stream of events>-<seq>   the last event on the source's subject that it knows
//! ```
//!
//! Each publication names the message that it replaces: a daemon whose source was taken over by another one is refused.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::{
    HeaderMap, HeaderName,
    header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
    jetstream::{
        ErrorCode,
        context::{CreateStreamErrorKind, PublishErrorKind},
        message::{PublishMessage, StreamMessage},
        stream::{Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType, Stream},
    },
};
use bytes::Bytes;
use news::{Cursor, Epoch, Event};
use tokio::time::{Instant, sleep};

use super::{
    event_stream::{EventStream, StreamProblem, chain},
    message::{EventMessage, code_of, is_wrong_last_sequence},
    names::SubjectNames,
    subject_events::read_subject,
};

/// The daemon that wrote a checkpoint.
const DAEMON: HeaderName = HeaderName::from_static("Newswire-Daemon");
/// The last event on the source's subject that a checkpoint knows, an id in the stream.
const THROUGH: HeaderName = HeaderName::from_static("Newswire-Through");
/// How long an epoch counts as that of the stream. What was read under one that is over is not relied on by an outbox.
const EPOCH_ASKED_EVERY: Duration = Duration::from_secs(1);
/// Attempts to publish one part: the first may find an earlier message of this daemon.
const ATTEMPTS_MAX: usize = 4;
/// How long to wait for a message of another daemon that is on its way.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// About the bytes of the headers of a message.
const HEADER_BYTES: usize = 512;

/// What has been done with checkpoints since the start.
#[derive(Debug, Default)]
pub struct CheckpointCounters {
    /// Checkpoints that were refused, because another daemon had published one of the source.
    pub fenced: AtomicU64,
    /// States or seen sets that were not published, because they are larger than the servers allow.
    pub too_large: AtomicU64,
    /// Messages of the stream of events that were read, because a checkpoint did not know them.
    pub events_read: AtomicU64,
    /// Times that events of a source were left unread, because there were too many.
    pub unread: AtomicU64,
}

/// A source as its daemon knows it.
#[derive(Clone, Debug)]
pub struct NewCheckpoint {
    /// The id of the source.
    pub source: String,
    /// The last event on the source's subject that it knows, [`KnownEnds::last_of`](super::KnownEnds::last_of); without it, who
    /// takes over reads all events of the source.
    pub through: Option<Cursor>,
    /// The state, as JSON.
    pub state: Bytes,
    /// The seen set; `None` leaves the one that is there.
    pub seen: Option<Bytes>,
}

/// What became of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointOutcome {
    /// It is in the stream. `too_large` says which parts are not, because they are larger than the servers allow
    /// (`max_payload`); the earlier ones stay.
    Published {
        /// `state` or `seen`, and their bytes.
        too_large: Vec<(&'static str, usize)>,
    },
    /// Another daemon has published one of this source since this process has read or written it; nothing more was published.
    /// If the source is still its own, it is to be read anew.
    OwnedByAnother {
        /// The other daemon.
        writer: Option<String>,
    },
}

/// A part of a checkpoint as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointPart {
    /// As it was written.
    pub bytes: Bytes,
    /// The daemon that wrote it.
    pub writer: String,
    /// The last event on the source's subject that it knows.
    pub through: Option<Cursor>,
}

/// An event on the subject of a source that its checkpoint does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaterEvent {
    /// Its number in the stream.
    pub sequence: u64,
    /// Its id in the log of the daemon that recorded it.
    pub origin: Cursor,
    /// The event, with its id in the stream.
    pub event: Event,
}

/// What there is of a source that is taken over.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// The state, as JSON.
    pub state: Option<CheckpointPart>,
    /// The seen set.
    pub seen: Option<CheckpointPart>,
    /// The events on the source's subject that the seen set does not know, or all of them without one; in order.
    pub events: Vec<LaterEvent>,
    /// Whether older ones of these were left out, because there were too many.
    pub is_cut: bool,
    /// The last message on the source's subject when it was read, 0 without one, under the epoch of the stream: with
    /// `events` in the store, the store knows all events of the source up to it.
    pub end: Cursor,
}

/// Reads and publishes checkpoints. Cheap to clone; all clones know the same.
#[derive(Clone)]
pub struct Checkpoints {
    stream: EventStream,
    daemon: Arc<str>,
    counters: Arc<CheckpointCounters>,
    /// The number of the last message of each subject that this process has read or written.
    last: Arc<Mutex<HashMap<String, u64>>>,
    epoch: Arc<Mutex<Option<(Instant, Epoch)>>>,
}

/// What became of one part of a checkpoint.
enum PutPart {
    Stored,
    TooLarge,
    OfAnother(Option<String>),
}

impl Checkpoints {
    /// Beside this stream of events, as `daemon`: the epoch of its log.
    #[must_use]
    pub fn new(stream: EventStream, daemon: &str, counters: Arc<CheckpointCounters>) -> Self {
        Self { stream, daemon: daemon.into(), counters, last: Arc::default(), epoch: Arc::default() }
    }

    /// The names in NATS.
    #[must_use]
    pub fn names(&self) -> &SubjectNames {
        self.stream.connection().names()
    }

    /// Makes the stream unless it exists, or checks whether it fits. The texts are differences from the configuration that
    /// do no harm.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn prepare(&self) -> Result<Vec<String>, StreamProblem> {
        self.stream.check_server()?;
        let wanted = self.wanted();
        let jetstream = self.stream.connection().jetstream();
        let config = match self.stream.info_of(&wanted.name).await {
            Ok(info) => info.config,
            Err(StreamProblem::NoStream(name)) => match jetstream.create_stream(wanted.clone()).await {
                Ok(stream) => stream.cached_info().config.clone(),
                // Another daemon was quicker.
                Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STREAM_NAME_EXIST) => {
                    self.stream.info_of(&name).await?.config
                }
                Err(error) => {
                    return Err(StreamProblem::NoAnswer(format!(
                        "cannot make the stream `{name}`: {}",
                        chain(&error)
                    )));
                }
            },
            Err(problem) => return Err(problem),
        };
        let complaints = complaints(&config, &wanted);
        if !complaints.is_empty() {
            return Err(StreamProblem::DoesNotFit { stream: wanted.name, complaints });
        }
        Ok(differences(&config, &wanted))
    }

    /// What there is of a source, and the events on its subject that the checkpoint does not know.
    ///
    /// # Errors
    /// [`StreamProblem`]; to be tried again.
    pub async fn read(&self, source: &str, category: &str) -> Result<Predecessor, StreamProblem> {
        self.stream.check_server()?;
        let epoch = self.epoch().await?;
        let names = self.names();
        let checkpoints = self.handle().await?;
        let state = self.part(&checkpoints, names.checkpoint_state(source)).await?;
        let seen = self.part(&checkpoints, names.checkpoint_seen(source)).await?;
        // What the seen set knows counts, and not the state: events are what it lacks.
        let through = seen.as_ref().and_then(|seen| seen.through.as_ref());
        let after = through.filter(|through| through.epoch == epoch).map_or(0, |through| through.seq.0);

        let (events, subject) = (self.stream.handle().await?, names.event(category, source));
        let last = last_message(&events, &subject).await?.map_or(0, |message| message.sequence);
        let take = |message: StreamMessage| {
            let sequence = message.sequence;
            let message = EventMessage::from_received(&message.headers, message.payload).ok()?;
            let json = message.json_with_id(&EventStream::id(&epoch, sequence));
            let event = serde_json::from_slice(&json).ok()?;
            Some(LaterEvent { sequence, origin: message.origin, event })
        };
        let read = read_subject(&events, &subject, after, last, take).await;
        let read = read.map_err(|e| no_answer("return the events of a source", &e))?;
        self.count(&self.counters.events_read, read.messages.len());
        self.count(&self.counters.unread, usize::from(read.unread_from.is_some()));
        Ok(Predecessor {
            state,
            seen,
            events: read.messages.into_iter().flatten().collect(),
            is_cut: read.unread_from.is_some(),
            end: EventStream::id(&epoch, last),
        })
    }

    /// Publishes a checkpoint, the seen set first. Only one of a source may be on its way at a time, and everything that it knows
    /// must be in the stream of events.
    ///
    /// # Errors
    /// [`StreamProblem`]; to be tried again, with what the source is like then.
    pub async fn publish(&self, checkpoint: NewCheckpoint) -> Result<CheckpointOutcome, StreamProblem> {
        self.stream.check_server()?;
        let NewCheckpoint { source, through, state, seen } = checkpoint;
        let names = self.names();
        let mut too_large = Vec::new();
        let seen = seen.map(|seen| ("seen", names.checkpoint_seen(&source), seen));
        for (part, subject, bytes) in
            seen.into_iter().chain([("state", names.checkpoint_state(&source), state)])
        {
            let count = bytes.len();
            match self.put(subject, bytes, through.as_ref()).await? {
                PutPart::Stored => {}
                PutPart::TooLarge => {
                    self.count(&self.counters.too_large, 1);
                    too_large.push((part, count));
                }
                PutPart::OfAnother(writer) => {
                    self.count(&self.counters.fenced, 1);
                    return Ok(CheckpointOutcome::OwnedByAnother { writer });
                }
            }
        }
        Ok(CheckpointOutcome::Published { too_large })
    }

    /// Forgets what was read or written of a source, which belongs to another daemon now.
    pub fn forget(&self, source: &str) {
        let names = self.names();
        let mut last = self.last();
        last.remove(&names.checkpoint_state(source));
        last.remove(&names.checkpoint_seen(source));
    }

    async fn put(
        &self,
        subject: String,
        bytes: Bytes,
        through: Option<&Cursor>,
    ) -> Result<PutPart, StreamProblem> {
        let server = self.stream.connection().server();
        if server.is_some_and(|server| bytes.len() + HEADER_BYTES > server.payload_bytes_max) {
            return Ok(PutPart::TooLarge);
        }
        for _ in 0..ATTEMPTS_MAX {
            let expected = self.last().get(&subject).copied().unwrap_or(0);
            let message =
                PublishMessage::build().headers(self.headers(through, expected)).payload(bytes.clone());
            let published =
                match self.stream.connection().jetstream().send_publish(subject.clone(), message).await {
                    Ok(confirmation) => confirmation.await,
                    Err(error) => Err(error),
                };
            let error = match published {
                Ok(ack) => {
                    self.last().insert(subject, ack.sequence);
                    return Ok(PutPart::Stored);
                }
                Err(error) => error,
            };
            let code = code_of(&error);
            match error.kind() {
                _ if is_wrong_last_sequence(&error) => {}
                PublishErrorKind::MaxPayloadExceeded => return Ok(PutPart::TooLarge),
                _ if code == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) => return Ok(PutPart::TooLarge),
                PublishErrorKind::StreamNotFound => return Err(StreamProblem::NoStream(self.wanted().name)),
                _ => return Err(no_answer("take a checkpoint", &error)),
            }
            // One of this daemon, whose confirmation was lost or which it published before its last start, or none any more:
            // no other daemon has published since.
            let there = last_message(&self.handle().await?, &subject).await?;
            let writer = there.as_ref().map(|there| writer_of(&there.headers));
            if writer.as_ref().is_some_and(|writer| **writer != *self.daemon) {
                return Ok(PutPart::OfAnother(writer));
            }
            let found = there.map_or(0, |there| there.sequence);
            if found == expected {
                // Another message is on its way through the cluster.
                sleep(RETRY_AFTER).await;
            }
            self.last().insert(subject.clone(), found);
        }
        Err(StreamProblem::NoAnswer(format!(
            "NATS did not take a checkpoint, although `{subject}` is as expected"
        )))
    }

    fn headers(&self, through: Option<&Cursor>, expected: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(DAEMON, &*self.daemon);
        if let Some(through) = through {
            headers.insert(THROUGH, through.to_string());
        }
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        headers
    }

    /// One part of a checkpoint, whose number is remembered.
    async fn part(
        &self,
        checkpoints: &Stream<()>,
        subject: String,
    ) -> Result<Option<CheckpointPart>, StreamProblem> {
        let message = last_message(checkpoints, &subject).await?;
        self.last().insert(subject, message.as_ref().map_or(0, |message| message.sequence));
        Ok(message.map(|message| CheckpointPart {
            writer: writer_of(&message.headers),
            through: message.headers.get_last(THROUGH).and_then(|value| value.as_str().parse().ok()),
            bytes: message.payload,
        }))
    }

    /// The epoch of the stream, asked once for many sources.
    async fn epoch(&self) -> Result<Epoch, StreamProblem> {
        let known = self.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, epoch)) = known.filter(|(asked, _)| asked.elapsed() < EPOCH_ASKED_EVERY) {
            return Ok(epoch);
        }
        let asked = Instant::now();
        let (record, _) = self.stream.look().await?;
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, record.epoch.clone()));
        Ok(record.epoch)
    }

    async fn handle(&self) -> Result<Stream<()>, StreamProblem> {
        let name = self.names().checkpoints_stream();
        let stream = self.stream.connection().jetstream().get_stream_no_info(name).await;
        stream.map_err(|e| no_answer("find the stream of checkpoints", &e))
    }

    fn last(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    fn wanted(&self) -> Config {
        let settings = self.stream.connection().settings();
        Config {
            name: settings.names.checkpoints_stream(),
            description: Some("what a daemon of newswire that takes over a source needs of it".to_owned()),
            subjects: vec![settings.names.checkpoints()],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            storage: StorageType::File,
            // One state and one seen set of each source. A limit in bytes would remove those of some sources.
            max_messages_per_subject: 1,
            max_messages: -1,
            max_bytes: -1,
            max_message_size: -1,
            max_consumers: -1,
            num_replicas: settings.replicas,
            allow_direct: true,
            ..Default::default()
        }
    }
}

/// What keeps a stream from carrying checkpoints, each with what to change.
fn complaints(config: &Config, wanted: &Config) -> Vec<String> {
    let checks = [
        (
            config.subjects != wanted.subjects,
            format!("it takes other subjects than `{}`; set its subjects to that", wanted.subjects[0]),
        ),
        (
            config.max_messages_per_subject != 1,
            "it keeps more than the last message of a subject; set --max-msgs-per-subject 1".to_owned(),
        ),
        (
            config.retention != RetentionPolicy::Limits,
            "it removes messages once they are read (retention must be `limits`); make a new stream".to_owned(),
        ),
        (
            !config.max_age.is_zero() || config.max_messages > 0 || config.max_bytes > 0,
            "it has a limit of age, messages or bytes, so what is known of some sources would be lost; remove these limits"
                .to_owned(),
        ),
        (config.no_ack, "it acknowledges nothing; set no_ack to false".to_owned()),
        (config.sealed, "it is sealed; make a new stream".to_owned()),
    ];
    checks.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, text)| text).collect()
}

fn differences(config: &Config, wanted: &Config) -> Vec<String> {
    let (name, is, replicas) = (&wanted.name, config.num_replicas, wanted.num_replicas);
    if is == replicas {
        return Vec::new();
    }
    vec![format!(
        "the stream `{name}` keeps replicas {is}, the configuration says {replicas}; `nats stream edit {name} --replicas \
         {replicas}` changes the stream"
    )]
}

/// The last message of a subject, as the leader has it.
async fn last_message(stream: &Stream<()>, subject: &str) -> Result<Option<StreamMessage>, StreamProblem> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(no_answer("return the last message of a source", &error)),
    }
}

fn writer_of(headers: &HeaderMap) -> String {
    headers.get_last(DAEMON).map_or_else(String::new, |value| value.as_str().to_owned())
}

fn no_answer(what: &str, error: &dyn std::error::Error) -> StreamProblem {
    StreamProblem::NoAnswer(format!("NATS did not {what}: {}", chain(error)))
}
