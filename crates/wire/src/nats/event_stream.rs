//! The stream of events and the bucket beside it: made by a daemon, or checked whether they fit; and their epoch.

use std::time::Duration;

use async_nats::jetstream::{
    self, ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    kv::Store,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType},
};
use futures_util::StreamExt as _;
use news::{Cursor, Epoch, Seq};

use super::{
    connection::NatsConnection,
    epoch::{self, EpochChange, EpochRecord, StoredEpoch},
};

/// In which time the server notices that a message was published twice with the same id.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Processes that want a new epoch at once: each attempt but one finds that another has begun it.
const EPOCH_ATTEMPTS: usize = 8;

/// The stream at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// When the stream was made, in nanoseconds since 1970.
    pub created: String,
    /// The oldest event kept; one more than `last` if there is none.
    pub first: u64,
    /// The newest event that was ever stored.
    pub last: u64,
    /// Number of events.
    pub messages: u64,
    /// Bytes of events with their headers.
    pub bytes: u64,
    /// When the oldest one was stored, in milliseconds since 1970.
    pub first_stored_ms: i64,
}

/// Why the stream cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamProblem {
    /// There is no connection.
    #[error("{0}")]
    NotConnected(String),
    /// The server cannot be used.
    #[error("{0}")]
    WrongServer(String),
    /// A daemon makes the stream; none has.
    #[error("the stream `{0}` does not exist; a daemon with wire.transport = \"nats\" makes it")]
    NoStream(String),
    /// Its epoch is that of an older stream, or there is none; a daemon begins a new one.
    #[error("the stream `{0}` has no epoch yet; a daemon begins one")]
    NoEpoch(String),
    /// It was made by hand or by another program, and cannot carry events.
    #[error("the stream `{stream}` does not fit: {}", .complaints.join("; "))]
    DoesNotFit {
        /// Its name.
        stream: String,
        /// What is wrong and how to change it.
        complaints: Vec<String>,
    },
    /// The server did not answer, or refused.
    #[error("NATS did not do it: {0}")]
    NoAnswer(String),
    /// What the bucket has is not ours.
    #[error("{0}")]
    Unreadable(String),
}

/// What has become of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EpochStanding {
    /// It is that of the stream.
    Current(StreamState),
    /// It still is, but messages were removed that retention would have kept: a new one must begin.
    Purged,
    /// Another one has begun.
    Ended,
}

/// The stream and its bucket. Cheap to clone.
#[derive(Clone)]
pub struct EventStream {
    connection: NatsConnection,
}

/// The stream and the record of its epoch at one moment.
struct Found {
    state: StreamState,
    epoch: Option<StoredEpoch>,
}

impl Found {
    /// The record if it belongs to this stream.
    fn own_epoch(&self) -> Option<&StoredEpoch> {
        self.epoch.as_ref().filter(|stored| stored.record.created == self.state.created)
    }
}

impl EventStream {
    /// Over this connection.
    #[must_use]
    pub fn new(connection: NatsConnection) -> Self {
        Self { connection }
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &NatsConnection {
        &self.connection
    }

    /// For a daemon: makes the stream, the bucket and the epoch unless they exist. The texts are differences from the
    /// configuration that do no harm; the stream's own values are in force.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn ensure(&self) -> Result<(EpochRecord, StreamState, Vec<String>), StreamProblem> {
        self.check_server()?;
        let info = match self.info().await {
            Err(StreamProblem::NoStream(_)) => self.create().await?,
            other => other?,
        };
        self.check_fit(&info)?;
        let differences = self.differences(&info.config);
        let bucket = self.bucket_or_new().await?;
        for _ in 0..EPOCH_ATTEMPTS {
            let found = self.found(&info, &bucket).await?;
            if let Some(own) = found.own_epoch() {
                return Ok((own.record.clone(), found.state, differences));
            }
            epoch::begin(&bucket, found.epoch.as_ref(), &found.state, EpochChange::NewStream).await?;
        }
        Err(StreamProblem::NoAnswer("other processes change the epoch all the time".to_owned()))
    }

    /// For a gateway: the epoch and the stream as they are.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn look(&self) -> Result<(EpochRecord, StreamState), StreamProblem> {
        self.check_server()?;
        let info = self.info().await?;
        self.check_fit(&info)?;
        let no_epoch = || StreamProblem::NoEpoch(self.stream_name().to_owned());
        let bucket = self.bucket().await?.ok_or_else(no_epoch)?;
        let found = self.found(&info, &bucket).await?;
        let own = found.own_epoch().ok_or_else(no_epoch)?;
        Ok((own.record.clone(), found.state))
    }

    /// Begins a new epoch, unless another process has done so since `old` was read. The stream must exist.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn begin_epoch(&self, old: &Epoch, reason: EpochChange) -> Result<EpochRecord, StreamProblem> {
        let info = self.info().await?;
        let bucket = self.bucket_or_new().await?;
        for _ in 0..EPOCH_ATTEMPTS {
            let found = self.found(&info, &bucket).await?;
            if let Some(own) = found.own_epoch().filter(|own| own.record.epoch != *old) {
                return Ok(own.record.clone());
            }
            epoch::begin(&bucket, found.epoch.as_ref(), &found.state, reason).await?;
        }
        Err(StreamProblem::NoAnswer("other processes change the epoch all the time".to_owned()))
    }

    /// Whether messages were removed that retention would have kept; a daemon asks every few seconds. Otherwise what retention
    /// has removed is noted, so that the next daemon knows it.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn was_purged(&self, epoch: &Epoch) -> Result<bool, StreamProblem> {
        match self.standing(epoch).await {
            Ok(standing) => Ok(standing == EpochStanding::Purged),
            Err(StreamProblem::NoEpoch(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Whether numbers under this epoch still mean what they did. What retention has removed is noted.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn standing(&self, epoch: &Epoch) -> Result<EpochStanding, StreamProblem> {
        let info = self.info().await?;
        let no_epoch = || StreamProblem::NoEpoch(self.stream_name().to_owned());
        let bucket = self.bucket().await?.ok_or_else(no_epoch)?;
        let found = self.found(&info, &bucket).await?;
        let own = found.own_epoch().ok_or_else(no_epoch)?;
        if own.record.epoch != *epoch {
            return Ok(EpochStanding::Ended);
        }
        if found.state.first > own.record.first {
            if !retention_explains(&info) {
                return Ok(EpochStanding::Purged);
            }
            epoch::note_first(&bucket, own, found.state.first).await?;
        }
        Ok(EpochStanding::Current(found.state))
    }

    /// The id of an event under this epoch.
    #[must_use]
    pub fn id(epoch: &Epoch, sequence: u64) -> Cursor {
        Cursor { epoch: epoch.clone(), seq: Seq(sequence) }
    }

    /// Completes when the record of the epoch has changed, or may have.
    ///
    /// # Errors
    /// [`StreamProblem`] if the bucket cannot be watched.
    pub async fn epoch_changed(&self, from: &Epoch) -> Result<(), StreamProblem> {
        let no_answer = |e: String| StreamProblem::NoAnswer(e);
        let bucket = self.bucket().await?.ok_or_else(|| no_answer("the bucket does not exist".to_owned()))?;
        let mut changes = bucket.watch_with_history("epoch").await.map_err(|e| no_answer(e.to_string()))?;
        while let Some(change) = changes.next().await {
            let entry = change.map_err(|e| no_answer(e.to_string()))?;
            let record = serde_json::from_slice::<EpochRecord>(&entry.value);
            if record.map_or(true, |record| record.epoch != *from) {
                return Ok(());
            }
        }
        Err(no_answer("the watch of the bucket has ended".to_owned()))
    }

    /// The stream as the server describes it, and what differs from the configuration.
    pub(super) async fn info_and_differences(&self) -> Result<(Info, Vec<String>), StreamProblem> {
        let info = self.info().await?;
        let differences = self.differences(&info.config);
        Ok((info, differences))
    }

    /// The stream, for reads and consumers.
    pub(super) async fn handle(&self) -> Result<jetstream::stream::Stream<()>, StreamProblem> {
        let stream = self.connection.jetstream().get_stream_no_info(self.stream_name()).await;
        stream.map_err(|e| StreamProblem::NoAnswer(e.to_string()))
    }

    /// The bucket; `None` if it does not exist.
    pub(super) async fn bucket(&self) -> Result<Option<Store>, StreamProblem> {
        let name = self.connection.names().bucket();
        let stream = format!("KV_{name}");
        match self.connection.jetstream().get_stream(&stream).await {
            Ok(_) => {}
            Err(error) if is_missing(&error.kind()) => return Ok(None),
            Err(error) => return Err(StreamProblem::NoAnswer(error.to_string())),
        }
        let bucket = self.connection.jetstream().get_key_value(name).await;
        bucket.map(Some).map_err(|e| StreamProblem::NoAnswer(e.to_string()))
    }

    async fn bucket_or_new(&self) -> Result<Store, StreamProblem> {
        if let Some(bucket) = self.bucket().await? {
            return Ok(bucket);
        }
        let config = jetstream::kv::Config {
            bucket: self.connection.names().bucket(),
            description: "the epoch of newswire's events, and how far each daemon has published".to_owned(),
            history: 1,
            storage: StorageType::File,
            num_replicas: self.connection.settings().replicas,
            ..Default::default()
        };
        let made = self.connection.jetstream().create_key_value(config).await;
        made.map_err(|e| StreamProblem::NoAnswer(format!("cannot make the bucket: {}", chain(&e))))
    }

    fn stream_name(&self) -> &str {
        self.connection.names().stream()
    }

    pub(super) fn check_server(&self) -> Result<(), StreamProblem> {
        let server = self.connection.server().filter(|_| self.connection.is_connected());
        let server = server.ok_or_else(|| StreamProblem::NotConnected(self.connection.trouble()))?;
        server.too_old().map_or(Ok(()), |text| Err(StreamProblem::WrongServer(text)))
    }

    async fn info(&self) -> Result<Info, StreamProblem> {
        self.info_of(self.stream_name()).await
    }

    /// A stream as the server describes it.
    pub(super) async fn info_of(&self, stream: &str) -> Result<Info, StreamProblem> {
        match self.connection.jetstream().get_stream(stream).await {
            Ok(stream) => Ok(stream.cached_info().clone()),
            Err(error) if is_missing(&error.kind()) => Err(StreamProblem::NoStream(stream.to_owned())),
            Err(error) => Err(self.refused(&error.kind(), &chain(&error))),
        }
    }

    fn refused(&self, kind: &GetStreamErrorKind, text: &str) -> StreamProblem {
        match kind {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED =>
            {
                StreamProblem::WrongServer(
                    "the NATS server has JetStream off; start it with `-js` or a `jetstream` block"
                        .to_owned(),
                )
            }
            _ if !self.connection.is_connected() => StreamProblem::NotConnected(self.connection.trouble()),
            _ => StreamProblem::NoAnswer(text.to_owned()),
        }
    }

    async fn create(&self) -> Result<Info, StreamProblem> {
        let config = self.wanted();
        match self.connection.jetstream().create_stream(config).await {
            Ok(stream) => Ok(stream.cached_info().clone()),
            // Another daemon was quicker, perhaps with other limits.
            Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STREAM_NAME_EXIST) => {
                self.info().await
            }
            Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED) => {
                Err(StreamProblem::NoAnswer(format!(
                    "cannot make the stream: the servers have less room than store.retention_bytes ({} bytes on each of {} \
                     servers); raise max_file_store of their jetstream block, or lower that key",
                    self.connection.settings().limits.bytes,
                    self.connection.settings().replicas
                )))
            }
            Err(error) => Err(StreamProblem::NoAnswer(format!("cannot make the stream: {}", chain(&error)))),
        }
    }

    fn wanted(&self) -> Config {
        let settings = self.connection.settings();
        let limit = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Config {
            name: self.stream_name().to_owned(),
            description: Some("the events of newswire".to_owned()),
            subjects: vec![settings.names.events()],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            storage: StorageType::File,
            max_age: settings.limits.age,
            max_messages: limit(settings.limits.events),
            max_bytes: limit(settings.limits.bytes),
            max_messages_per_subject: -1,
            max_message_size: -1,
            max_consumers: -1,
            num_replicas: settings.replicas,
            duplicate_window: DUPLICATE_WINDOW.min(settings.limits.age),
            allow_direct: true,
            ..Default::default()
        }
    }

    /// What keeps the stream from carrying events.
    fn check_fit(&self, info: &Info) -> Result<(), StreamProblem> {
        let complaints = complaints(&info.config, &self.connection.names().events());
        if complaints.is_empty() {
            return Ok(());
        }
        Err(StreamProblem::DoesNotFit { stream: self.stream_name().to_owned(), complaints })
    }

    /// What differs from the configuration, with the command that changes it.
    fn differences(&self, config: &Config) -> Vec<String> {
        let (wanted, name) = (self.wanted(), self.stream_name());
        let mut differences = Vec::new();
        let mut differs = |what: &str, is: String, wanted: String, option: String| {
            if is != wanted {
                differences.push(format!(
                    "the stream `{name}` keeps {what} {is}, the configuration says {wanted}; `nats stream edit {name} \
                     {option}` changes the stream"
                ));
            }
        };
        let age = |config: &Config| notation_of_age(config.max_age);
        differs("max_age", age(config), age(&wanted), format!("--max-age {}s", wanted.max_age.as_secs()));
        differs(
            "max_msgs",
            config.max_messages.to_string(),
            wanted.max_messages.to_string(),
            format!("--max-msgs {}", wanted.max_messages),
        );
        differs(
            "max_bytes",
            config.max_bytes.to_string(),
            wanted.max_bytes.to_string(),
            format!("--max-bytes {}", wanted.max_bytes),
        );
        differs(
            "replicas",
            config.num_replicas.to_string(),
            wanted.num_replicas.to_string(),
            format!("--replicas {}", wanted.num_replicas),
        );
        differences
    }

    async fn found(&self, info: &Info, bucket: &Store) -> Result<Found, StreamProblem> {
        Ok(Found { state: state(info), epoch: epoch::read(bucket).await? })
    }
}

fn state(info: &Info) -> StreamState {
    let State { first, last, messages, bytes } = State::of(info);
    StreamState {
        created: info.created.unix_timestamp_nanos().to_string(),
        first,
        last,
        messages,
        bytes,
        first_stored_ms: milliseconds(info.state.first_timestamp),
    }
}

struct State {
    first: u64,
    last: u64,
    messages: u64,
    bytes: u64,
}

impl State {
    /// A stream that never had a message says that its first one is 0.
    fn of(info: &Info) -> Self {
        let state = &info.state;
        let first = if state.messages == 0 { state.last_sequence + 1 } else { state.first_sequence };
        Self { first, last: state.last_sequence, messages: state.messages, bytes: state.bytes }
    }
}

fn milliseconds(time: time::OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn notation_of_age(age: Duration) -> String {
    format!("{}s", age.as_secs())
}

/// What keeps a stream from carrying events, each with what to change.
fn complaints(config: &Config, subjects: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |is_wrong: bool, text: &str| {
        if is_wrong {
            complaints.push(text.to_owned());
        }
    };
    let lacks_subjects = !config.subjects.iter().any(|subject| subject == subjects);
    complain(lacks_subjects, &format!("it does not take `{subjects}`; add that to its subjects"));
    let has_others = config.subjects.iter().any(|subject| subject != subjects);
    complain(
        has_others,
        "it takes other subjects, too, and their messages would be taken for events; remove those subjects",
    );
    complain(
        config.retention != RetentionPolicy::Limits,
        "it removes messages once they are read (retention must be `limits`); make a new stream",
    );
    complain(
        config.discard != DiscardPolicy::Old,
        "it refuses new messages when it is full; set its discard policy to `old`",
    );
    complain(
        config.max_messages_per_subject > 0,
        "it limits the messages per subject, so events in the middle would vanish; set that limit to -1",
    );
    complain(
        !config.allow_direct,
        "it allows no direct gets, by which missed events are read; set allow_direct",
    );
    complain(config.no_ack, "it acknowledges nothing; set no_ack to false");
    complain(config.sealed, "it is sealed; make a new stream");
    complain(
        config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty()),
        "it is filled from another stream; make a new stream",
    );
    complain(config.subject_transform.is_some(), "it changes subjects; remove its subject transform");
    complaints
}

/// Whether age, number or bytes can be why the oldest messages are gone: one of them is near its limit.
fn retention_explains(info: &Info) -> bool {
    let (config, state) = (&info.config, &info.state);
    let is_near =
        |limit: i64, is: u64| u64::try_from(limit).is_ok_and(|limit| limit > 0 && is >= limit / 10 * 9);
    // The server removes what is too old every few seconds, and also when the last message has gone.
    let age = time::OffsetDateTime::now_utc() - state.first_timestamp;
    let old = state.last_timestamp;
    let is_old =
        |age: time::Duration| !config.max_age.is_zero() && age.unsigned_abs() >= config.max_age.mul_f64(0.9);
    let is_empty_by_age = state.messages == 0 && is_old(time::OffsetDateTime::now_utc() - old);
    is_near(config.max_messages, state.messages)
        || is_near(config.max_bytes, state.bytes)
        || (state.messages > 0 && is_old(age))
        || is_empty_by_age
}

fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// An error and its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let next = source.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitting() -> Config {
        Config {
            subjects: vec!["newswire.events.>".to_owned()],
            allow_direct: true,
            max_messages_per_subject: -1,
            ..Default::default()
        }
    }

    #[test]
    fn a_stream_that_would_lose_or_mix_events_is_refused_with_what_to_change() {
        assert_eq!(complaints(&fitting(), "newswire.events.>"), [""; 0]);
        let wrong: [(Config, &str); 6] = [
            (Config { subjects: vec!["news.>".to_owned()], ..fitting() }, "add that to its subjects"),
            (Config { retention: RetentionPolicy::Interest, ..fitting() }, "make a new stream"),
            (Config { discard: DiscardPolicy::New, ..fitting() }, "discard policy to `old`"),
            (Config { max_messages_per_subject: 1, ..fitting() }, "set that limit to -1"),
            (Config { allow_direct: false, ..fitting() }, "set allow_direct"),
            (Config { no_ack: true, ..fitting() }, "set no_ack to false"),
        ];
        for (config, remedy) in wrong {
            let found = complaints(&config, "newswire.events.>");
            assert!(found.iter().any(|complaint| complaint.contains(remedy)), "{found:?} lacks {remedy:?}");
        }
    }
}
