//! Where the events come from: the socket of the daemon on this machine, or NATS.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use control::ControlSocket;
use daemon::config::{Config, WireTransport};
use news::Cursor;
use wire::{
    Coverage, Endpoint, PeerClient, StreamOpened, Subscription, SubscriptionEvent, SubscriptionTiming,
    nats::{
        EventStream, KnownDaemons, NatsConnection, NatsCredentials, NatsError, NatsSettings,
        NatsSubscription, PageProblem, PageStart, StreamLimits, StreamPages, StreamProblem, SubjectNames,
    },
};

use super::{alias_directory::AliasDirectory, log_unavailable::LogUnavailable, no_answer::NoAnswer};

/// Where the events come from, as it is configured.
#[derive(Clone, Debug)]
pub(crate) enum TransportSettings {
    /// The wire's socket of the daemon on this machine.
    Local(PathBuf),
    /// The servers of `wire.nats_urls`.
    Nats(Box<NatsSettings>),
}

impl TransportSettings {
    /// Takes the settings from the configuration.
    ///
    /// # Errors
    /// [`NatsError`] if a file or an address that it names cannot be used.
    pub(crate) fn from_config(config: &Config) -> Result<Self, NatsError> {
        let (wire, store) = (&config.wire, &config.store);
        if wire.transport == WireTransport::Local {
            return Ok(Self::Local(config.socket(ControlSocket::Ingestd)));
        }
        let settings = NatsSettings {
            urls: wire.nats_urls.clone(),
            names: SubjectNames::new(&wire.nats_name),
            credentials: NatsCredentials {
                credentials_file: wire.nats_credentials_file.clone(),
                nkey_file: wire.nats_nkey_file.clone(),
            },
            ca_file: wire.nats_ca_file.clone(),
            replicas: usize::try_from(wire.nats_replicas).unwrap_or(1),
            limits: StreamLimits {
                age: store.retention_age,
                events: store.retention_events,
                bytes: store.retention_bytes,
            },
            client: format!("newswire-gateway/{} at {}", env!("CARGO_PKG_VERSION"), config.gateway.listen),
        };
        NatsConnection::check(&settings)?;
        Ok(Self::Nats(Box::new(settings)))
    }
}

/// The events, from either.
pub(crate) enum EventSource {
    Local(Box<Subscription>),
    Nats(Box<NatsSubscription>),
}

impl EventSource {
    /// Begins so many events before the newest one. Nothing is asked yet.
    pub(crate) fn local(socket: PathBuf, ring_events: usize) -> Self {
        let path = format!("/wire?snapshot={ring_events}");
        let (endpoint, timing) = (Endpoint::Socket(socket), SubscriptionTiming::default());
        Self::Local(Box::new(Subscription::new(endpoint, &path, None, Coverage::All, timing)))
    }

    /// Begins so many events before the newest one. Nothing is asked yet.
    pub(crate) fn nats(connection: NatsConnection, ring_events: usize) -> (Self, StreamPages, KnownDaemons) {
        let events = NatsSubscription::new(EventStream::new(connection), ring_events as u64);
        let (pages, daemons) = (events.pages(), events.daemons());
        (Self::Nats(Box::new(events)), pages, daemons)
    }

    /// Waits for the next event.
    pub(crate) async fn next(&mut self) -> SubscriptionEvent {
        match self {
            Self::Local(wire) => wire.next().await,
            Self::Nats(wire) => wire.next().await,
        }
    }

    /// The last event returned, or the last one missed.
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        match self {
            Self::Local(wire) => wire.cursor(),
            Self::Nats(wire) => wire.cursor(),
        }
    }

    /// The newest event that was ever returned, if the daemon's log is an older copy without it. The stream of NATS has a new
    /// epoch then.
    pub(crate) fn newest_unknown_to_server(&self) -> Option<&Cursor> {
        match self {
            Self::Local(wire) => wire.newest_unknown_to_server(),
            Self::Nats(_) => None,
        }
    }

    /// Takes over what ids of the other wire mean here, which must be known before the ring has the epoch.
    pub(crate) fn show_aliases(&self, hello: &StreamOpened, head: &Cursor, aliases: &AliasDirectory) {
        match self {
            Self::Local(_) => aliases.replace(&hello.aliases),
            Self::Nats(_) => aliases.opened(&head.epoch),
        }
    }

    /// What the loop waits for, for the operator.
    pub(crate) fn waits_for(&self) -> &'static str {
        match self {
            Self::Local(_) => "the daemon's end of the wire",
            Self::Nats(_) => "the stream of NATS",
        }
    }
}

/// The log below the ring, from either: the daemon's, or the stream of NATS.
#[derive(Clone)]
pub(crate) enum LogBelowRing {
    Daemon(PeerClient),
    Stream(StreamPages),
}

/// A page of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogPageRequest<'a> {
    pub(crate) start: PageStart<'a>,
    /// Events, at most.
    pub(crate) limit: usize,
    /// Bytes of events, about; one event at least.
    pub(crate) bytes: usize,
    /// How long the answer may take.
    pub(crate) deadline: Duration,
    /// Largest answer, in bytes.
    pub(crate) answer_bytes_max: usize,
}

impl LogBelowRing {
    /// Reads a page, as JSON in the form of the daemon's `/log`.
    ///
    /// # Errors
    /// [`LogUnavailable`]; the reason has been logged.
    pub(crate) async fn read(&self, request: LogPageRequest<'_>) -> Result<Bytes, LogUnavailable> {
        let LogPageRequest { start, limit, bytes, deadline, answer_bytes_max } = request;
        match self {
            Self::Daemon(daemon) => {
                let path = format!("/log?limit={limit}&bytes={bytes}&{}", query(start));
                daemon.get(&path, deadline, answer_bytes_max).await.map_err(|error| {
                    tracing::debug!(%error, "could not read a page of the log");
                    LogUnavailable::NoAnswer((&error).into())
                })
            }
            Self::Stream(pages) => {
                let page = tokio::time::timeout(deadline, pages.read(start, limit, bytes)).await;
                page.map_err(|_| LogUnavailable::NoAnswer(NoAnswer::Late))?.map(Bytes::from).map_err(
                    |problem| {
                        tracing::debug!(error = %problem, "could not read a page of the stream");
                        unavailable(&problem)
                    },
                )
            }
        }
    }
}

fn query(start: PageStart<'_>) -> String {
    match start {
        PageStart::After(cursor) => format!("after={cursor}"),
        PageStart::Since(instant) => format!("since={instant}"),
        PageStart::Before(cursor, None) => format!("before={cursor}"),
        PageStart::Before(cursor, Some(since)) => format!("before={cursor}&since={since}"),
    }
}

fn unavailable(problem: &PageProblem) -> LogUnavailable {
    LogUnavailable::NoAnswer(match problem {
        PageProblem::OtherEpoch => return LogUnavailable::OtherLog,
        PageProblem::Stream(StreamProblem::NotConnected(_)) => NoAnswer::NotConnected,
        PageProblem::Stream(StreamProblem::NoAnswer(_)) => NoAnswer::Late,
        PageProblem::Stream(_) => NoAnswer::Unusable,
    })
}
