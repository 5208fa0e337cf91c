//! One connection to the servers of `wire.nats_urls`, which is made again whenever it breaks.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, connection::State, jetstream};
use tokio::sync::watch;

use super::names::SubjectNames;

/// The oldest server that is used. Earlier ones lose or reorder acknowledged messages after a restart, and know neither
/// `sync_interval` nor the answers that a publisher is told of a conflict with.
const SERVER_VERSION_MIN: (u64, u64, u64) = (2, 10, 23);
/// How long the server may take to answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often a connection is tested; it is given up after two tests without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// How long one attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// The longest delay between two attempts to connect.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Messages that a subscription may have waiting; what comes beyond is counted as refused by NATS.
const SUBSCRIPTION_MESSAGES_MAX: usize = 64 * 1024;

/// How to reach NATS, and what to ask of it.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// `nats://` or `tls://` addresses of servers of one cluster; one that answers is enough.
    pub urls: Vec<String>,
    /// What all names in NATS begin with.
    pub names: SubjectNames,
    /// How to sign in; what an address has (`nats://user:password@host`) counts, too.
    pub credentials: NatsCredentials,
    /// File with certificate authorities in PEM form; the machine's own ones count, too.
    pub ca_file: Option<PathBuf>,
    /// On how many servers the stream is kept.
    pub replicas: usize,
    /// How much the stream keeps.
    pub limits: StreamLimits,
    /// What the server calls this client: the name of the program.
    pub client: String,
}

/// How much the stream keeps; the configuration's retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Events older than this are removed.
    pub age: Duration,
    /// Number of events.
    pub events: u64,
    /// Bytes of events with their headers.
    pub bytes: u64,
}

/// How to sign in to NATS.
#[derive(Clone, Debug, Default)]
pub struct NatsCredentials {
    /// File with a user's JWT and NKey seed, as `nsc` writes it.
    pub credentials_file: Option<PathBuf>,
    /// File with an NKey seed, `SU…`.
    pub nkey_file: Option<PathBuf>,
}

/// Why NATS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// A file of the configuration cannot be used.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address of the configuration cannot be used.
    #[error("`{url}` is not the address of a NATS server: {reason}")]
    Address {
        /// Without its password.
        url: String,
        /// Why.
        reason: String,
    },
    /// The client cannot be set up.
    #[error("cannot set up the client of NATS: {0}")]
    Setup(String),
}

/// A server, in one of its lives: another one after each of its starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIdentity {
    /// What the server calls itself; new at each of its starts.
    pub id: String,
    /// Its name in the cluster.
    pub name: String,
    /// `2.10.29`
    pub version: String,
    /// Largest message that it accepts, in bytes.
    pub payload_bytes_max: usize,
}

impl ServerIdentity {
    /// What is wrong with its version, and the remedy.
    #[must_use]
    pub fn too_old(&self) -> Option<String> {
        let (major, minor, patch) = SERVER_VERSION_MIN;
        let too_old = version(&self.version).is_none_or(|version| version < SERVER_VERSION_MIN);
        too_old.then(|| {
            format!(
                "nats-server {} is too old: newswire needs {major}.{minor}.{patch} or later; upgrade the servers of \
                 wire.nats_urls",
                self.version
            )
        })
    }
}

/// `2.10.29-beta.1` is `(2, 10, 29)`.
fn version(text: &str) -> Option<(u64, u64, u64)> {
    let numbers = text.split(['-', '+']).next()?;
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

/// A connection. Cheap to clone; all clones are one connection.
#[derive(Clone)]
pub struct NatsConnection(Arc<ConnectionParts>);

struct ConnectionParts {
    client: Client,
    jetstream: jetstream::Context,
    settings: NatsSettings,
    /// How often a connection was made.
    connected: watch::Receiver<u64>,
    last_error: Arc<OnceErrors>,
}

/// The last error that the server or the client reported, for the operator.
#[derive(Default)]
struct OnceErrors {
    text: std::sync::Mutex<Option<String>>,
    dropped: AtomicU64,
}

impl NatsConnection {
    /// Whether the configuration can be used: its files and addresses. Reads the files.
    ///
    /// # Errors
    /// [`NatsError`]
    pub fn check(settings: &NatsSettings) -> Result<(), NatsError> {
        settings.urls.iter().try_for_each(|url| address(url).map(drop))?;
        options(settings).map(drop)
    }

    /// Sets the connection up. It is made in the background, and again whenever it breaks: NATS need not be there yet.
    ///
    /// # Errors
    /// [`NatsError`] if the configuration cannot be used.
    pub async fn open(settings: NatsSettings) -> Result<Self, NatsError> {
        let options = options(&settings)?;
        Self::open_with(settings, options).await
    }

    /// The same without the other servers of the cluster that the server tells of.
    pub(super) async fn open_to_this_only(settings: NatsSettings) -> Result<Self, NatsError> {
        let options = options(&settings)?.ignore_discovered_servers();
        Self::open_with(settings, options).await
    }

    async fn open_with(settings: NatsSettings, options: ConnectOptions) -> Result<Self, NatsError> {
        // Fails if another one is installed already, which is fine.
        rustls::crypto::ring::default_provider().install_default().ok();
        let addresses = settings.urls.iter().map(|url| address(url)).collect::<Result<Vec<_>, _>>()?;
        let (connections, connected) = watch::channel(0_u64);
        let last_error = Arc::<OnceErrors>::default();
        let of_callback = Arc::clone(&last_error);
        let connections = Arc::new(connections);
        let options = options.event_callback(move |event| {
            let (connections, last_error) = (Arc::clone(&connections), Arc::clone(&of_callback));
            async move {
                match event {
                    Event::Connected => connections.send_modify(|count| *count += 1),
                    // Wakes those that wait for a change.
                    Event::Disconnected => connections.send_modify(|_| {}),
                    Event::SlowConsumer(_) => {
                        last_error.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                    Event::ServerError(error) => last_error.set(error.to_string()),
                    Event::ClientError(error) => last_error.set(error.to_string()),
                    _ => {}
                }
            }
        });
        let client = options.connect(addresses).await.map_err(|e| NatsError::Setup(e.to_string()))?;
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(ANSWER_MAX)
            .ack_timeout(ANSWER_MAX)
            // The outbox has bounds of its own, in events and bytes.
            .backpressure_on_inflight(false)
            .build(client.clone());
        Ok(Self(Arc::new(ConnectionParts { client, jetstream, settings, connected, last_error })))
    }

    /// The client, for subjects that no stream stores.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    pub(super) fn jetstream(&self) -> &jetstream::Context {
        &self.0.jetstream
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &NatsSettings {
        &self.0.settings
    }

    /// The names in NATS.
    #[must_use]
    pub fn names(&self) -> &SubjectNames {
        &self.0.settings.names
    }

    /// Whether a server is connected now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.client.connection_state() == State::Connected
    }

    /// The server that is connected, or was last.
    #[must_use]
    pub fn server(&self) -> Option<ServerIdentity> {
        let info = self.0.client.try_server_info()?;
        Some(ServerIdentity {
            id: info.server_id,
            name: info.server_name,
            version: info.version,
            payload_bytes_max: info.max_payload,
        })
    }

    /// Changes whenever a connection is made or lost; the value is how often one was made.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.0.connected.clone()
    }

    /// Messages that the client dropped because a subscription did not take them in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.last_error.dropped.load(Ordering::Relaxed)
    }

    /// Why there is no connection, as far as that is known.
    #[must_use]
    pub fn trouble(&self) -> String {
        let servers =
            || self.0.settings.urls.iter().map(|url| without_password(url)).collect::<Vec<_>>().join(", ");
        match self.0.last_error.text.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_ref() {
            Some(error) => format!("NATS ({}): {error}", servers()),
            None => format!("none of the NATS servers answers ({})", servers()),
        }
    }
}

impl OnceErrors {
    fn set(&self, text: String) {
        *self.text.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(text);
    }
}

#[expect(clippy::disallowed_methods, reason = "three small files, read once before the connection is made")]
fn options(settings: &NatsSettings) -> Result<ConnectOptions, NatsError> {
    let mut options = ConnectOptions::new()
        .name(&settings.client)
        .retry_on_initial_connect()
        .connection_timeout(CONNECT_MAX)
        .request_timeout(Some(ANSWER_MAX))
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .reconnect_delay_callback(|attempts| {
            let ceiling = Duration::from_millis(100).saturating_mul(1 << attempts.min(8)).min(RETRY_MAX);
            // From the upper half: spread out, but never at once.
            ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
        });
    if let Some(path) = &settings.credentials.credentials_file {
        let wrong = |source| NatsError::File { path: path.clone(), source };
        options = options.credentials(&fs::read_to_string(path).map_err(wrong)?).map_err(wrong)?;
    }
    if let Some(path) = &settings.credentials.nkey_file {
        let seed =
            fs::read_to_string(path).map_err(|source| NatsError::File { path: path.clone(), source })?;
        options = options.nkey(seed.trim().to_owned());
    }
    if let Some(path) = &settings.ca_file {
        fs::metadata(path).map_err(|source| NatsError::File { path: path.clone(), source })?;
        options = options.add_root_certificates(path.clone());
    }
    Ok(options)
}

fn address(url: &str) -> Result<ServerAddr, NatsError> {
    url.parse().map_err(|error: io::Error| NatsError::Address {
        url: without_password(url),
        reason: error.to_string(),
    })
}

/// An address without what may be secret in it.
pub(super) fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_older_than_2_10_23_are_refused_by_name() {
        let server = |version: &str| ServerIdentity {
            id: String::new(),
            name: String::new(),
            version: version.to_owned(),
            payload_bytes_max: 0,
        };
        for version in ["2.10.23", "2.10.29-RC.1", "2.11.0", "3.0.0"] {
            assert_eq!(server(version).too_old(), None, "{version}");
        }
        for version in ["2.9.10", "2.10.22", "1.99.99", "", "new"] {
            assert!(server(version).too_old().unwrap().contains("upgrade the servers"), "{version}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_never_shown() {
        assert_eq!(without_password("nats://u:p@h:4222"), "nats://***@h:4222");
        assert_eq!(without_password("tls://h"), "tls://h");
    }
}
