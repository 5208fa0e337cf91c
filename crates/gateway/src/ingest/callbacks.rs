//! Requests of WebSub hubs, passed on to the daemon, which alone knows the subscriptions.
//!
//! ```text
//! GET, POST /websub/{id} ──► forwarder ──POST /websub/…──► daemon
//!        │ 200, 202, 404                                     │ known, or not
//!        └───────────────────────────────────────────────────┘
//! ```
//!
//! A handler waits for a bounded time; a daemon that is stopped costs a 503, after which the hub retries. Clients that
//! probe for callback ids are limited here, before the daemon is involved.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout};
use wire::PeerClient;

use super::{daemons::Daemons, no_answer::NoAnswer};
use crate::{
    address_counts::{AddressCounts, CountLimit, CountLimits},
    client_address::ClientAddress,
    forwarder::{Forwarder, QueueFull, RequestQueue},
};

/// Requests that are read or wait for the daemon, each with at most 1 MiB; one more is refused.
const OPEN_MAX: usize = 32;
/// Of these, requests from one address whose id is not known to be right: their bodies may be slow on purpose.
const OPEN_PER_ADDRESS_MAX: usize = 4;
/// The same for an IPv6 /48.
const OPEN_PER_NETWORK_MAX: usize = 8;
/// Of [`OPEN_MAX`], at most so many are sent to the daemon at the same time.
const IN_FLIGHT_MAX: usize = 8;
/// How long the daemon may take to answer.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long a handler waits, the queue included.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 4096;
/// Unknown ids that one address may request in [`WINDOW`]; after that only known ids are passed on.
const UNKNOWN_MAX: u32 = 30;
/// After this time the counts restart at zero.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses with their own count; the others share one.
const ADDRESSES_MAX: usize = 4096;
/// Known ids that are remembered.
const KNOWN_MAX: usize = 65_536;

/// What a hub requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallbackRequest {
    /// Verification of intent (WebSub, section 5.3), or a denial (section 5.2).
    Verify { mode: String, topic: String, lease_seconds: Option<u64>, reason: String },
    /// Content distribution (section 7).
    Push { signature: Option<String>, body: Bytes },
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackError {
    /// Too many requests are in progress.
    Busy,
    /// Too many of them are from this address.
    AddressBusy,
    /// This address has requested too many unknown ids.
    TooManyUnknown,
    /// The daemon did not answer.
    NoDaemon(NoAnswer),
}

type CallbackResult = Result<bool, CallbackError>;

/// The intake's end of the queue.
pub(crate) type CallbackForwarder = Forwarder<(String, CallbackRequest), CallbackResult>;

/// Requests of hubs, on their way to the daemon.
#[derive(Debug)]
pub(crate) struct Callbacks {
    queue: RequestQueue<(String, CallbackRequest), CallbackResult>,
    open: Mutex<AddressCounts>,
    ids: Mutex<IdHistory>,
}

/// Which ids are known, and how many unknown ones each address has requested.
#[derive(Debug)]
struct IdHistory {
    known: HashSet<String>,
    /// Requests of unknown ids by address; `None` counts for all addresses beyond [`ADDRESSES_MAX`].
    unknown: HashMap<Option<ClientAddress>, u32>,
    since: Instant,
}

impl Callbacks {
    pub(crate) fn new() -> (Self, CallbackForwarder) {
        let (queue, forwarder) = RequestQueue::new(OPEN_MAX, IN_FLIGHT_MAX);
        let ids = IdHistory { known: HashSet::new(), unknown: HashMap::new(), since: Instant::now() };
        (Self { queue, open: Mutex::default(), ids: Mutex::new(ids) }, forwarder)
    }

    fn ids(&self) -> MutexGuard<'_, IdHistory> {
        // Every change under it is complete before it can panic.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, AddressCounts> {
        // The same.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits one more request, before its body is read. A request whose id is not known counts as a guess from now on.
    ///
    /// # Errors
    /// If too many are in progress, or this address has requested too many unknown ids.
    pub(crate) fn admit(
        &self,
        id: &str,
        address: ClientAddress,
    ) -> Result<CallbackPermit<'_>, CallbackError> {
        let guess = self.ids().begin(id, address)?;
        let limits = CountLimits {
            total: OPEN_MAX,
            per_address: OPEN_PER_ADDRESS_MAX,
            per_network: OPEN_PER_NETWORK_MAX,
        };
        let limits = if guess.is_some() { limits } else { limits.without_address() };
        let added = self.open().try_add(address, limits);
        match added {
            Ok(()) => Ok(CallbackPermit { callbacks: self, address, guess }),
            Err(limit) => {
                // Nothing was learned from it.
                self.ids().take_back(guess);
                let is_total = limit == CountLimit::Total;
                Err(if is_total { CallbackError::Busy } else { CallbackError::AddressBusy })
            }
        }
    }
}

/// The right to one request in progress; given back when dropped.
#[derive(Debug)]
pub(crate) struct CallbackPermit<'a> {
    callbacks: &'a Callbacks,
    address: ClientAddress,
    /// `None` if the id was known.
    guess: Option<Guess>,
}

impl CallbackPermit<'_> {
    /// Passes the request on to the daemon; returns whether the id is known.
    ///
    /// # Errors
    /// If the daemon did not answer in time.
    pub(crate) async fn forward(mut self, id: &str, request: CallbackRequest) -> CallbackResult {
        let answer = self.callbacks.queue.send((id.to_owned(), request));
        let answer = match answer {
            Ok(answer) => timeout(WAIT_MAX, answer).await,
            Err(QueueFull) => Ok(Ok(Err(CallbackError::Busy))),
        };
        let answer = answer.ok().and_then(Result::ok).unwrap_or(Err(CallbackError::NoDaemon(NoAnswer::Late)));
        let mut ids = self.callbacks.ids();
        match answer {
            Ok(true) => ids.add_known(id),
            Ok(false) => ids.add_unknown(id, self.address, self.guess.take()),
            Err(_) => {}
        }
        // If it was right, or was never checked.
        ids.take_back(self.guess.take());
        answer
    }
}

impl Drop for CallbackPermit<'_> {
    fn drop(&mut self) {
        self.callbacks.open().remove(self.address);
    }
}

/// A request whose id is not known, and where it is counted.
#[derive(Debug)]
struct Guess(Option<ClientAddress>);

impl IdHistory {
    /// The key under which an address is counted.
    fn key(&self, address: ClientAddress) -> Option<ClientAddress> {
        let address = Some(address);
        let has_count = self.unknown.contains_key(&address) || self.unknown.len() < ADDRESSES_MAX;
        address.filter(|_| has_count)
    }

    /// Counts a request, unless its id is known.
    fn begin(&mut self, id: &str, address: ClientAddress) -> Result<Option<Guess>, CallbackError> {
        if self.since.elapsed() >= WINDOW {
            self.unknown.clear();
            self.since = Instant::now();
        }
        if self.known.contains(id) {
            return Ok(None);
        }
        let key = self.key(address);
        let guesses = self.unknown.entry(key).or_default();
        if *guesses >= UNKNOWN_MAX {
            return Err(CallbackError::TooManyUnknown);
        }
        *guesses += 1;
        Ok(Some(Guess(key)))
    }

    /// Counts the request no longer; its window may be over.
    fn take_back(&mut self, guess: Option<Guess>) {
        if let Some(Guess(key)) = guess
            && let Some(guesses) = self.unknown.get_mut(&key)
        {
            *guesses = guesses.saturating_sub(1);
            if *guesses == 0 {
                self.unknown.remove(&key);
            }
        }
    }

    fn add_known(&mut self, id: &str) {
        if self.known.len() < KNOWN_MAX {
            self.known.insert(id.to_owned());
        }
    }

    /// The id is unknown, and no longer known if it was.
    fn add_unknown(&mut self, id: &str, address: ClientAddress, guess: Option<Guess>) {
        self.known.remove(id);
        if guess.is_none() {
            let key = self.key(address);
            *self.unknown.entry(key).or_default() += 1;
        }
    }
}

/// The daemon's answer: `confirmed` to a verification, `known` to a push.
#[derive(Deserialize)]
struct CallbackAnswer {
    #[serde(alias = "confirmed")]
    known: bool,
}

/// Passes a request to the daemon that knows its id; returns whether one does.
///
/// # Errors
/// [`CallbackError::NoDaemon`]; the reason has been logged.
pub(crate) async fn send(daemons: Daemons, (id, request): (String, CallbackRequest)) -> CallbackResult {
    let ask = |daemon| ask(daemons.clone(), daemon, id.clone(), request.clone());
    daemons.first_that_knows(&id, ask).await
}

async fn ask(daemons: Daemons, daemon: PeerClient, id: String, request: CallbackRequest) -> CallbackResult {
    let answer = match request {
        CallbackRequest::Verify { mode, topic, lease_seconds, reason } => {
            let body = json!({
                "id": id, "mode": mode, "topic": topic, "lease_seconds": lease_seconds, "reason": reason,
            });
            daemon.post("/websub/verifications", body.to_string(), DEADLINE, ANSWER_BYTES_MAX).await
        }
        CallbackRequest::Push { signature, body } => {
            let signature = signature.as_deref().map(|signature| ("x-hub-signature", signature));
            let path = format!("/websub/pushes/{id}");
            daemon.post_bytes(&path, signature.as_slice(), body, DEADLINE, ANSWER_BYTES_MAX).await
        }
    };
    daemons.count(&answer);
    let answer = answer.map_err(|error| {
        tracing::warn!(%error, "could not forward a hub's request to the daemon");
        CallbackError::NoDaemon((&error).into())
    })?;
    let answer: CallbackAnswer = serde_json::from_slice(&answer).map_err(|error| {
        tracing::error!(%error, "the daemon's answer to a hub's request is unreadable");
        CallbackError::NoDaemon(NoAnswer::Unusable)
    })?;
    Ok(answer.known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push() -> CallbackRequest {
        CallbackRequest::Push { signature: None, body: Bytes::new() }
    }

    /// Answers every request.
    fn answer(mut forwarder: CallbackForwarder, is_known: fn(&str) -> bool) {
        tokio::spawn(async move {
            forwarder.run(|(id, _)| std::future::ready(Ok(is_known(&id)))).await;
        });
    }

    async fn call(callbacks: &Callbacks, id: &str, address: &str) -> Result<bool, CallbackError> {
        let address = address.parse().unwrap();
        callbacks.admit(id, address)?.forward(id, push()).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_probes_for_ids_is_limited_and_a_known_id_still_works() {
        let (callbacks, forwarder) = Callbacks::new();
        answer(forwarder, |id| id == "known");
        assert_eq!(call(&callbacks, "known", "192.0.2.1").await, Ok(true));
        for n in 0..UNKNOWN_MAX {
            assert_eq!(call(&callbacks, &n.to_string(), "192.0.2.1").await, Ok(false));
        }
        assert_eq!(call(&callbacks, "x", "192.0.2.1").await, Err(CallbackError::TooManyUnknown));
        assert_eq!(
            call(&callbacks, "known", "192.0.2.1").await,
            Ok(true),
            "a hub at the same address is still served"
        );
        assert_eq!(call(&callbacks, "x", "192.0.2.2").await, Ok(false), "other addresses are not limited");
        tokio::time::advance(WINDOW).await;
        assert_eq!(call(&callbacks, "x", "192.0.2.1").await, Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_does_not_answer_costs_a_bounded_wait_and_bounded_memory() {
        let (callbacks, _forwarder) = Callbacks::new();
        let started = Instant::now();
        assert_eq!(call(&callbacks, "a", "192.0.2.1").await, Err(CallbackError::NoDaemon(NoAnswer::Late)));
        assert_eq!(started.elapsed(), WAIT_MAX);
        let of = |n: usize| format!("192.0.2.{n}").parse().unwrap();
        let permits: Vec<_> = (0..OPEN_MAX).map(|n| callbacks.admit("a", of(n)).unwrap()).collect();
        assert_eq!(callbacks.admit("a", of(99)).unwrap_err(), CallbackError::Busy);
        drop(permits);
        assert!(callbacks.admit("a", of(99)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_bodies_of_unknown_ids_count_at_once_and_take_few_places() {
        let (callbacks, forwarder) = Callbacks::new();
        answer(forwarder, |id| id == "known");
        let one = "192.0.2.1".parse().unwrap();
        for _ in 0..UNKNOWN_MAX / u32::try_from(OPEN_PER_ADDRESS_MAX).unwrap() {
            let slow: Vec<_> =
                (0..OPEN_PER_ADDRESS_MAX).map(|_| callbacks.admit("x", one).unwrap()).collect();
            assert_eq!(callbacks.admit("x", one).unwrap_err(), CallbackError::AddressBusy);
            assert_eq!(call(&callbacks, "known", "192.0.2.2").await, Ok(true), "other addresses are served");
            // Their bodies did not come in time: the daemon was never asked.
            drop(slow);
        }
        let slow: Vec<_> = (0..2).map(|_| callbacks.admit("x", one).unwrap()).collect();
        assert_eq!(callbacks.admit("x", one).unwrap_err(), CallbackError::TooManyUnknown);
        drop(slow);
        assert_eq!(callbacks.admit("x", one).unwrap_err(), CallbackError::TooManyUnknown);
        let known: Vec<_> = (0..OPEN_MAX).map(|_| callbacks.admit("known", one).unwrap()).collect();
        assert_eq!(known.len(), OPEN_MAX, "a hub that knows the id may take every place");
        drop(known);
        let of = |n: u16| format!("2001:db8:0:{n:x}::").parse().unwrap();
        let slow: Vec<_> = (0..32).filter_map(|n| callbacks.admit("x", of(n)).ok()).collect();
        assert_eq!(slow.len(), OPEN_PER_NETWORK_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guess_that_was_right_or_was_never_checked_does_not_count() {
        let (callbacks, _forwarder) = Callbacks::new();
        for n in 0..2 * UNKNOWN_MAX {
            // The queue is full after a while, because nothing takes requests out of it.
            let failed = call(&callbacks, &n.to_string(), "192.0.2.1").await.unwrap_err();
            assert!(matches!(failed, CallbackError::NoDaemon(_) | CallbackError::Busy), "{failed:?}");
        }
        assert!(callbacks.ids().unknown.is_empty());
        let (callbacks, forwarder) = Callbacks::new();
        answer(forwarder, |_| true);
        for n in 0..2 * UNKNOWN_MAX {
            assert_eq!(call(&callbacks, &n.to_string(), "192.0.2.1").await, Ok(true));
        }
        assert!(callbacks.ids().unknown.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_counts_of_unknown_ids_are_bounded() {
        let (callbacks, forwarder) = Callbacks::new();
        answer(forwarder, |_| false);
        for n in 0..u32::try_from(ADDRESSES_MAX).unwrap() + UNKNOWN_MAX + 10 {
            call(&callbacks, "x", &std::net::Ipv4Addr::from(n).to_string()).await.ok();
        }
        assert_eq!(callbacks.ids().unknown.len(), ADDRESSES_MAX + 1);
        assert_eq!(call(&callbacks, "x", "203.0.113.1").await, Err(CallbackError::TooManyUnknown));
    }
}
