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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use wire::PeerClient;

use crate::{
    client_address::ClientAddress,
    forwarder::{Forwarder, QueueFull, RequestQueue},
};

/// Requests that are read or wait for the daemon, each with at most 1 MiB; one more is refused.
const OPEN_MAX: usize = 32;
/// Of these, at most so many are sent to the daemon at the same time.
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
    /// This address has requested too many unknown ids.
    TooManyUnknown,
    /// The daemon did not answer in time.
    NoDaemon,
}

type CallbackResult = Result<bool, CallbackError>;

/// The intake's end of the queue.
pub(crate) type CallbackForwarder = Forwarder<(String, CallbackRequest), CallbackResult>;

/// Requests of hubs, on their way to the daemon.
#[derive(Debug)]
pub(crate) struct Callbacks {
    queue: RequestQueue<(String, CallbackRequest), CallbackResult>,
    open: Arc<Semaphore>,
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
        (Self { queue, open: Arc::new(Semaphore::new(OPEN_MAX)), ids: Mutex::new(ids) }, forwarder)
    }

    fn ids(&self) -> MutexGuard<'_, IdHistory> {
        // Every change under it is complete before it can panic.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits one more request, before its body is read.
    ///
    /// # Errors
    /// If too many are in progress, or this address has requested too many unknown ids.
    pub(crate) fn admit(
        &self,
        id: &str,
        address: ClientAddress,
    ) -> Result<OwnedSemaphorePermit, CallbackError> {
        if !self.ids().admits(id, address) {
            return Err(CallbackError::TooManyUnknown);
        }
        Arc::clone(&self.open).try_acquire_owned().map_err(|_| CallbackError::Busy)
    }

    /// Passes the request on to the daemon; returns whether the id is known.
    ///
    /// # Errors
    /// If the daemon did not answer in time.
    pub(crate) async fn forward(
        &self,
        (id, request): (&str, CallbackRequest),
        address: ClientAddress,
        _permit: OwnedSemaphorePermit,
    ) -> CallbackResult {
        let answer = self.queue.send((id.to_owned(), request)).map_err(|QueueFull| CallbackError::Busy)?;
        let answer = timeout(WAIT_MAX, answer).await;
        let is_known = answer.ok().and_then(Result::ok).unwrap_or(Err(CallbackError::NoDaemon))?;
        self.ids().record(id, address, is_known);
        Ok(is_known)
    }
}

impl IdHistory {
    /// The key under which an address is counted.
    fn key(&self, address: ClientAddress) -> Option<ClientAddress> {
        let address = Some(address);
        let has_count = self.unknown.contains_key(&address) || self.unknown.len() < ADDRESSES_MAX;
        address.filter(|_| has_count)
    }

    fn admits(&mut self, id: &str, address: ClientAddress) -> bool {
        if self.since.elapsed() >= WINDOW {
            self.unknown.clear();
            self.since = Instant::now();
        }
        self.known.contains(id)
            || self.unknown.get(&self.key(address)).is_none_or(|requests| *requests < UNKNOWN_MAX)
    }

    fn record(&mut self, id: &str, address: ClientAddress, is_known: bool) {
        if !is_known {
            self.known.remove(id);
            let key = self.key(address);
            *self.unknown.entry(key).or_default() += 1;
        } else if self.known.len() < KNOWN_MAX {
            self.known.insert(id.to_owned());
        }
    }
}

/// The daemon's answer: `confirmed` to a verification, `known` to a push.
#[derive(Deserialize)]
struct CallbackAnswer {
    #[serde(alias = "confirmed")]
    known: bool,
}

/// Passes a request to the daemon; returns whether the id is known.
///
/// # Errors
/// [`CallbackError::NoDaemon`]; the reason has been logged.
pub(crate) async fn send(daemon: PeerClient, (id, request): (String, CallbackRequest)) -> CallbackResult {
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
    let answer = answer.map_err(|error| {
        tracing::warn!(%error, "could not forward a hub's request to the daemon");
        CallbackError::NoDaemon
    })?;
    let answer: CallbackAnswer = serde_json::from_slice(&answer).map_err(|error| {
        tracing::error!(%error, "the daemon's answer to a hub's request is unreadable");
        CallbackError::NoDaemon
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
        let permit = callbacks.admit(id, address)?;
        callbacks.forward((id, push()), address, permit).await
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
        assert_eq!(call(&callbacks, "a", "192.0.2.1").await, Err(CallbackError::NoDaemon));
        assert_eq!(started.elapsed(), WAIT_MAX);
        let address = "192.0.2.1".parse().unwrap();
        let permits: Vec<_> = (0..OPEN_MAX).map(|_| callbacks.admit("a", address).unwrap()).collect();
        assert_eq!(callbacks.admit("a", address).unwrap_err(), CallbackError::Busy);
        drop(permits);
        assert!(callbacks.admit("a", address).is_ok());
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
