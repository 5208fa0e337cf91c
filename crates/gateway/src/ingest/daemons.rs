//! The ingestion daemons that are asked: the one on this machine, or all that publish to NATS.
//!
//! With several, lists and metrics are put together of all their answers, orders go to all of them, and a hub's request to the
//! one that knows its id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use wire::{
    ClientError, PeerClient,
    nats::{KnownDaemons, NatsConnection},
};

use super::{callbacks::CallbackError, no_answer::NoAnswer};

/// Daemons whose answer is read at the same time, if it may be large.
const LARGE_AT_ONCE_MAX: usize = 2;
/// Daemons that are given the same order at the same time.
const ORDERS_AT_ONCE_MAX: usize = 16;
/// Ids of WebSub subscriptions whose daemon is remembered; for others all daemons are asked.
const REMEMBERED_MAX: usize = 65_536;

/// How long after the first heartbeat all daemons have sent one: they do every 2 s.
const ALL_HEARD_AFTER: Duration = Duration::from_millis(2500);
/// How long a hub's request may wait for the heartbeats of a gateway that has just started.
const HEARTBEATS_WAIT_MAX: Duration = Duration::from_secs(3);
/// How often is looked meanwhile.
const HEARTBEATS_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The name of a daemon; empty for the one on this machine.
pub(crate) type DaemonName = Arc<str>;

/// What each daemon has answered.
pub(crate) type DaemonAnswers = Vec<(DaemonName, Result<Bytes, ClientError>)>;

/// Counts the requests over NATS.
#[derive(Clone, Debug, Default)]
pub(crate) struct DaemonMetrics {
    pub(crate) requests: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) left_out: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) known: Gauge,
}

/// The daemons. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Daemons(Arc<DaemonsInner>);

enum DaemonsInner {
    Local(PeerClient),
    Nats {
        connection: NatsConnection,
        known: KnownDaemons,
        metrics: DaemonMetrics,
        /// Which daemon knows an id.
        knowing: Mutex<HashMap<String, DaemonName>>,
        /// When the first heartbeat was noticed.
        first_heard: OnceLock<Instant>,
    },
}

impl Daemons {
    /// The one on this machine.
    pub(crate) fn local(daemon: PeerClient) -> Self {
        Self(Arc::new(DaemonsInner::Local(daemon)))
    }

    /// All that are known, whenever they are asked.
    pub(crate) fn over_nats(connection: NatsConnection, known: KnownDaemons, metrics: DaemonMetrics) -> Self {
        Self(Arc::new(DaemonsInner::Nats {
            connection,
            known,
            metrics,
            knowing: Mutex::default(),
            first_heard: OnceLock::new(),
        }))
    }

    /// Whether they are on other machines: what one of them says of its log means nothing here.
    pub(crate) fn are_remote(&self) -> bool {
        matches!(*self.0, DaemonsInner::Nats { .. })
    }

    fn peers(&self) -> Vec<(DaemonName, PeerClient)> {
        match &*self.0 {
            DaemonsInner::Local(daemon) => vec![("".into(), daemon.clone())],
            DaemonsInner::Nats { connection, known, metrics, .. } => {
                let names = known.names();
                metrics.known.set(i64::try_from(names.len()).unwrap_or(i64::MAX));
                let peer = |name: String| {
                    let peer = PeerClient::over_nats(connection.clone(), &name);
                    (name.into(), peer)
                };
                names.into_iter().map(peer).collect()
            }
        }
    }

    /// Counts what became of a request.
    pub(crate) fn count<T>(&self, answer: &Result<T, ClientError>) {
        let DaemonsInner::Nats { metrics, .. } = &*self.0 else { return };
        let result = match answer {
            Ok(_) => "answered",
            Err(ClientError::Late(_)) => "late",
            Err(ClientError::Unreachable(..)) => "unreachable",
            Err(ClientError::Refused(..)) => "refused",
            Err(ClientError::Setup(..) | ClientError::TooLarge(..)) => "unusable",
        };
        metrics.requests.get_or_create(&[("result", result)]).inc();
    }

    /// Counts an answer that is not shown, because all answers together are too large.
    pub(crate) fn count_left_out(&self, what: &'static str) {
        if let DaemonsInner::Nats { metrics, .. } = &*self.0 {
            metrics.left_out.get_or_create(&[("what", what)]).inc();
        }
    }

    /// Fetches a route of each daemon, within `deadline` and at most `bytes_max` of body each; the answers are in the order of
    /// the names.
    pub(crate) async fn get_all(
        &self,
        path: &'static str,
        deadline: Duration,
        bytes_max: usize,
    ) -> DaemonAnswers {
        let get = |peer: PeerClient| async move { peer.get(path, deadline, bytes_max).await };
        self.ask_all(LARGE_AT_ONCE_MAX, get).await
    }

    /// Sends JSON to a route of each daemon; otherwise as [`Daemons::get_all`].
    pub(crate) async fn post_all(
        &self,
        path: &'static str,
        json: String,
        deadline: Duration,
        bytes_max: usize,
    ) -> DaemonAnswers {
        let post = |peer: PeerClient| {
            let json = json.clone();
            async move { peer.post(path, json, deadline, bytes_max).await }
        };
        self.ask_all(ORDERS_AT_ONCE_MAX, post).await
    }

    async fn ask_all<F>(&self, at_once_max: usize, ask: impl Fn(PeerClient) -> F) -> DaemonAnswers
    where
        F: Future<Output = Result<Bytes, ClientError>> + Send + 'static,
    {
        let mut waiting = self.peers().into_iter();
        let (mut asked, mut answers) = (JoinSet::new(), Vec::new());
        loop {
            while asked.len() < at_once_max {
                let Some((name, peer)) = waiting.next() else { break };
                let answer = ask(peer);
                asked.spawn(async move { (name, answer.await) });
            }
            match asked.join_next().await {
                Some(Ok(answer)) => answers.push(answer),
                // It panicked, which is reported where that happened.
                Some(Err(_)) => {}
                None => break,
            }
        }
        answers.iter().for_each(|(_, answer)| self.count(answer));
        answers.sort_by(|(a, _), (b, _)| a.cmp(b));
        answers
    }

    /// Asks the daemon that has known this id before, or all at once; returns whether one of them knows it.
    ///
    /// # Errors
    /// If none knows it, and not all have answered.
    pub(crate) async fn first_that_knows<F>(
        &self,
        id: &str,
        ask: impl Fn(PeerClient) -> F,
    ) -> Result<bool, CallbackError>
    where
        F: Future<Output = Result<bool, CallbackError>> + Send + 'static,
    {
        self.all_heard().await;
        let mut peers = self.peers();
        if peers.is_empty() {
            return Err(CallbackError::NoDaemon(NoAnswer::NotConnected));
        }
        let remembered = self.knowing().and_then(|knowing| knowing.get(id).cloned());
        let first = remembered.and_then(|name| peers.iter().position(|(known, _)| *known == name));
        let first = first.map(|index| peers.swap_remove(index));
        match first_of(first, peers, ask).await {
            Ok(Some(name)) => {
                self.remember(id, name);
                Ok(true)
            }
            Ok(None) => {
                self.forget(id);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until all daemons can have sent a heartbeat since the start, for a bounded time: the one that is asked for may be
    /// the last one.
    async fn all_heard(&self) {
        let DaemonsInner::Nats { known, first_heard, .. } = &*self.0 else { return };
        let until = Instant::now() + HEARTBEATS_WAIT_MAX;
        loop {
            if !known.names().is_empty() {
                first_heard.get_or_init(Instant::now);
            }
            let are_heard = first_heard.get().is_some_and(|first| first.elapsed() >= ALL_HEARD_AFTER);
            if are_heard || Instant::now() >= until {
                return;
            }
            sleep(HEARTBEATS_LOOK_INTERVAL).await;
        }
    }

    fn knowing(&self) -> Option<MutexGuard<'_, HashMap<String, DaemonName>>> {
        let DaemonsInner::Nats { knowing, .. } = &*self.0 else { return None };
        // Every change under it is complete before it can panic.
        Some(knowing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn remember(&self, id: &str, name: DaemonName) {
        if let Some(mut knowing) = self.knowing()
            && (knowing.len() < REMEMBERED_MAX || knowing.contains_key(id))
        {
            knowing.insert(id.to_owned(), name);
        }
    }

    fn forget(&self, id: &str) {
        if let Some(mut knowing) = self.knowing() {
            knowing.remove(id);
        }
    }
}

/// Which daemon says yes: `first` is asked alone, then all others at once, also if `first` has refused to answer, because what
/// it knew may be known by another one now.
async fn first_of<P, F>(
    first: Option<(DaemonName, P)>,
    others: Vec<(DaemonName, P)>,
    ask: impl Fn(P) -> F,
) -> Result<Option<DaemonName>, CallbackError>
where
    F: Future<Output = Result<bool, CallbackError>> + Send + 'static,
{
    let mut failure = None;
    if let Some((name, peer)) = first {
        match ask(peer).await {
            Ok(true) => return Ok(Some(name)),
            Ok(false) => {}
            Err(error) => failure = Some(error),
        }
    }
    let mut asked = JoinSet::new();
    for (name, peer) in others {
        let answer = ask(peer);
        asked.spawn(async move { (name, answer.await) });
    }
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((name, Ok(true))) => return Ok(Some(name)),
            Ok((_, Ok(false))) => {}
            Ok((_, Err(error))) => failure = Some(error),
            Err(_) => failure = Some(CallbackError::NoDaemon(NoAnswer::Unusable)),
        }
    }
    failure.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_daemon_refuses_that_knew_it_is_asked_of_the_others() {
        const REFUSED: CallbackError = CallbackError::NoDaemon(NoAnswer::Unusable);
        type Answer = Result<bool, CallbackError>;
        let ask = |answer: Answer| std::future::ready(answer);
        let of = async |first: Option<Answer>, others: &[Answer]| {
            let named = |(n, answer): (usize, &Answer)| (DaemonName::from(n.to_string().as_str()), *answer);
            let first = first.map(|answer| (DaemonName::from("first"), answer));
            let name = first_of(first, others.iter().enumerate().map(named).collect(), ask).await?;
            Ok(name.map(|name| name.to_string()))
        };
        let by = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(of(Some(Ok(true)), &[Ok(true)]).await, by("first"));
        assert_eq!(of(Some(Err(REFUSED)), &[Ok(false), Ok(true)]).await, by("1"));
        assert_eq!(of(Some(Ok(false)), &[Ok(true)]).await, by("0"));
        assert_eq!(of(Some(Err(REFUSED)), &[Ok(false)]).await, Err(REFUSED), "it is not unknown");
        assert_eq!(of(None, &[Err(REFUSED), Ok(false)]).await, Err(REFUSED));
        assert_eq!(of(Some(Ok(false)), &[Ok(false)]).await, Ok(None));
    }
}
