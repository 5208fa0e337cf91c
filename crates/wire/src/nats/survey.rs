//! What NATS says of an installation at one moment, for the operator's tools. It changes nothing.

mod monitor;
mod sharing;

use std::time::Duration;

use async_nats::jetstream::{consumer::Info as ConsumerInfo, stream::Info};
use futures_util::{StreamExt as _, future::join_all};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::{
    connection::{NatsConnection, NatsError, NatsSettings, without_password},
    epoch::EpochRecord,
    event_stream::{EventStream, StreamProblem},
};

pub use monitor::MonitoredServer;
pub use sharing::{SurveyedGroup, SurveyedMember};

/// How long one server may take to answer.
const SERVER_MAX: Duration = Duration::from_secs(2);
/// Readers that are listed.
const READERS_MAX: usize = 256;
/// Daemons whose outbox is listed.
const OUTBOXES_MAX: usize = 256;

/// What was found. As JSON in the doctor's evidence.
#[derive(Clone, Debug, Serialize)]
pub struct NatsSurvey {
    /// The servers of `wire.nats_urls`, in their order.
    pub servers: Vec<SurveyedServer>,
    /// What the addresses of `wire.nats_monitor_urls` say, in their order.
    pub monitored: Vec<MonitoredServer>,
    /// The stream of events, if a server has told of it.
    pub stream: Option<SurveyedStream>,
    /// Why the stream cannot be used.
    pub problem: Option<SurveyProblem>,
    /// The epoch of its ids.
    pub epoch: Option<EpochRecord>,
    /// How far each daemon has published.
    pub outboxes: Vec<SurveyedOutbox>,
    /// The groups of daemons that share a list of sources.
    pub groups: Vec<SurveyedGroup>,
    /// Who reads the stream.
    pub readers: Vec<SurveyedReader>,
}

/// A server.
#[derive(Clone, Debug, Serialize)]
pub struct SurveyedServer {
    /// Its address, without a password.
    pub url: String,
    /// Its name in the cluster, if it answers.
    pub name: Option<String>,
    /// Its version, if it answers.
    pub version: Option<String>,
    /// Milliseconds from a question to its answer.
    pub answered_ms: Option<u64>,
    /// Largest message that it accepts, in bytes.
    pub payload_bytes_max: Option<usize>,
    /// Why it does not answer.
    pub error: Option<String>,
    /// It is older than newswire needs.
    pub is_too_old: bool,
}

/// Why the stream cannot be used.
#[derive(Clone, Debug, Serialize)]
pub struct SurveyProblem {
    /// Which kind.
    pub kind: SurveyProblemKind,
    /// What is wrong, and what to do.
    pub text: String,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SurveyProblemKind {
    /// No server answers.
    NotConnected,
    /// The server is too old, or has JetStream off.
    WrongServer,
    /// No daemon has made the stream.
    NoStream,
    /// No daemon has begun an epoch.
    NoEpoch,
    /// The stream cannot carry events.
    DoesNotFit,
    /// A server is connected, but the stream does not answer: most often, too few servers of the cluster are up.
    NoAnswer,
    /// The bucket has something else.
    Unreadable,
}

/// The stream of events.
#[derive(Clone, Debug, Serialize)]
pub struct SurveyedStream {
    /// Its name.
    pub name: String,
    /// On how many servers it is kept.
    pub replicas: usize,
    /// The server that leads it; `None` without a cluster.
    pub leader: Option<String>,
    /// The other servers that keep it.
    pub followers: Vec<SurveyedFollower>,
    /// The oldest event kept.
    pub first: u64,
    /// The newest event.
    pub last: u64,
    /// Number of events.
    pub messages: u64,
    /// Bytes of events with their headers.
    pub bytes: u64,
    /// In which time the server notices a message that is published twice, in milliseconds.
    pub duplicate_window_ms: u64,
    /// What differs from the configuration, with the command that changes it.
    pub differences: Vec<String>,
}

/// A server that keeps a copy of the stream.
#[derive(Clone, Debug, Serialize)]
pub struct SurveyedFollower {
    /// Its name.
    pub name: String,
    /// It has all that the leader has.
    pub is_current: bool,
    /// It does not answer the leader.
    pub is_offline: bool,
    /// How many operations it is behind.
    pub behind: u64,
}

/// How far a daemon has published.
#[derive(Clone, Debug, Serialize)]
pub struct SurveyedOutbox {
    /// The daemon: the epoch of its log.
    pub daemon: String,
    /// The newest event of its log that the stream has.
    pub through: u64,
}

/// A gateway, or another program that reads the stream.
#[derive(Clone, Debug, Serialize)]
pub struct SurveyedReader {
    /// The name of its consumer.
    pub name: String,
    /// What it says of itself.
    pub description: Option<String>,
    /// Events that it was not sent yet.
    pub behind: u64,
}

impl NatsSurvey {
    /// Asks all servers, also at their monitoring addresses `monitors`, and the stream. Takes a few seconds at most.
    ///
    /// # Errors
    /// [`NatsError`] if the configuration cannot be used.
    pub async fn take(settings: &NatsSettings, monitors: &[String]) -> Result<Self, NatsError> {
        let (servers, monitored) = tokio::join!(
            join_all(settings.urls.iter().map(|url| server(settings, url))),
            monitor::monitored(monitors, settings.ca_file.as_deref(), settings.names.stream()),
        );
        let servers = servers.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut survey = Self {
            servers,
            monitored,
            stream: None,
            problem: None,
            epoch: None,
            outboxes: Vec::new(),
            groups: Vec::new(),
            readers: Vec::new(),
        };
        let connection = NatsConnection::open(settings.clone()).await?;
        if !connected(&connection).await {
            survey.problem = Some(problem(&StreamProblem::NotConnected(connection.trouble())));
            return Ok(survey);
        }
        let stream = EventStream::new(connection);
        match stream.look().await {
            Ok((epoch, _)) => survey.epoch = Some(epoch),
            Err(why) => survey.problem = Some(problem(&why)),
        }
        if let Ok((info, differences)) = stream.info_and_differences().await {
            survey.stream = Some(surveyed(&info, differences));
        }
        survey.readers = readers(&stream).await.unwrap_or_default();
        survey.outboxes = outboxes(&stream).await.unwrap_or_default();
        survey.groups =
            timeout(SERVER_MAX, sharing::groups(&stream)).await.ok().and_then(Result::ok).unwrap_or_default();
        Ok(survey)
    }
}

impl NatsSurvey {
    /// How many servers answer.
    #[must_use]
    pub fn answering(&self) -> usize {
        self.servers.iter().filter(|server| server.error.is_none()).count()
    }
}

impl SurveyProblem {
    fn kind(problem: &StreamProblem) -> SurveyProblemKind {
        match problem {
            StreamProblem::NotConnected(_) => SurveyProblemKind::NotConnected,
            StreamProblem::WrongServer(_) => SurveyProblemKind::WrongServer,
            StreamProblem::NoStream(_) => SurveyProblemKind::NoStream,
            StreamProblem::NoEpoch(_) => SurveyProblemKind::NoEpoch,
            StreamProblem::DoesNotFit { .. } => SurveyProblemKind::DoesNotFit,
            StreamProblem::NoAnswer(_) => SurveyProblemKind::NoAnswer,
            StreamProblem::Unreadable(_) => SurveyProblemKind::Unreadable,
        }
    }
}

fn problem(why: &StreamProblem) -> SurveyProblem {
    SurveyProblem { kind: SurveyProblem::kind(why), text: why.to_string() }
}

/// Whether a connection is made in time.
async fn connected(connection: &NatsConnection) -> bool {
    let mut connections = connection.connections();
    timeout(SERVER_MAX, connections.wait_for(|count| *count > 0)).await.is_ok_and(|made| made.is_ok())
}

/// One server alone, whatever the others do.
async fn server(settings: &NatsSettings, url: &str) -> Result<SurveyedServer, NatsError> {
    let alone = NatsSettings { urls: vec![url.to_owned()], ..settings.clone() };
    let connection = NatsConnection::open_to_this_only(alone).await?;
    let is_connected = connected(&connection).await;
    let began = Instant::now();
    let answered =
        is_connected && timeout(SERVER_MAX, connection.client().flush()).await.is_ok_and(|f| f.is_ok());
    let identity = connection.server().filter(|_| is_connected);
    Ok(SurveyedServer {
        url: without_password(url),
        name: identity.as_ref().map(|identity| identity.name.clone()),
        version: identity.as_ref().map(|identity| identity.version.clone()),
        answered_ms: answered.then(|| u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)),
        payload_bytes_max: identity.as_ref().map(|identity| identity.payload_bytes_max),
        error: (!answered).then(|| connection.trouble()),
        is_too_old: identity.is_some_and(|identity| identity.too_old().is_some()),
    })
}

fn surveyed(info: &Info, differences: Vec<String>) -> SurveyedStream {
    let cluster = info.cluster.as_ref();
    let followers = cluster.map(|cluster| cluster.replicas.as_slice()).unwrap_or_default();
    SurveyedStream {
        name: info.config.name.clone(),
        replicas: info.config.num_replicas,
        leader: cluster.and_then(|cluster| cluster.leader.clone()).filter(|leader| !leader.is_empty()),
        followers: followers
            .iter()
            .map(|peer| SurveyedFollower {
                name: peer.name.clone(),
                is_current: peer.current,
                is_offline: peer.offline,
                behind: peer.lag.unwrap_or_default(),
            })
            .collect(),
        first: info.state.first_sequence,
        last: info.state.last_sequence,
        messages: info.state.messages,
        bytes: info.state.bytes,
        duplicate_window_ms: u64::try_from(info.config.duplicate_window.as_millis()).unwrap_or(u64::MAX),
        differences,
    }
}

async fn readers(stream: &EventStream) -> Result<Vec<SurveyedReader>, StreamProblem> {
    let handle = stream.handle().await?;
    let consumers = handle.consumers().take(READERS_MAX).filter_map(|consumer| async { consumer.ok() });
    let reader = |consumer: ConsumerInfo| SurveyedReader {
        name: consumer.name,
        description: consumer.config.description,
        behind: consumer.num_pending,
    };
    let listed = timeout(SERVER_MAX, consumers.map(reader).collect()).await;
    listed.map_err(|_| StreamProblem::NoAnswer("the list of consumers came too late".to_owned()))
}

async fn outboxes(stream: &EventStream) -> Result<Vec<SurveyedOutbox>, StreamProblem> {
    let Some(bucket) = stream.bucket().await? else { return Ok(Vec::new()) };
    let late = || StreamProblem::NoAnswer("the list of outboxes came too late".to_owned());
    let read = async {
        let Ok(keys) = bucket.keys().await else { return Vec::new() };
        let keys: Vec<_> = keys.take(OUTBOXES_MAX).filter_map(|key| async { key.ok() }).collect().await;
        let mut outboxes = Vec::new();
        for key in keys {
            let Some(daemon) = key.strip_prefix(super::OUTBOX_KEY_PREFIX) else { continue };
            let Ok(Some(value)) = bucket.get(&key).await else { continue };
            let through = serde_json::from_slice::<serde_json::Value>(&value).ok();
            let through = through.and_then(|value| value.get("through")?.as_u64());
            outboxes.extend(through.map(|through| SurveyedOutbox { daemon: daemon.to_owned(), through }));
        }
        outboxes
    };
    timeout(SERVER_MAX, read).await.map_err(|_| late())
}
