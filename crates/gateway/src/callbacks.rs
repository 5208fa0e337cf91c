//! What hubs (WebSub) call us for, passed on to the daemon, which alone knows what is ours.
//!
//! ```text
//! GET, POST /websub/{id} ──► bounded queue ──► the intake's thread ──POST /websub/…──► daemon
//!        │ 200, 202, 404                                                                 │ known, or not
//!        └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A handler waits for a bounded time; a daemon that is dead or stopped costs a 503, after which a hub comes again.
//! Whoever guesses ids is stopped here, before he costs the daemon anything.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};
use wire::PeerClient;

use crate::hub::neighbourhood;

/// Callbacks that are read or wait for the daemon, each with at most 1 MiB; one more is refused.
const CALLS_MAX: usize = 32;
/// Of these, so many are with the daemon at the same time.
const IN_FLIGHT_MAX: usize = 8;
/// How long the daemon may take for one.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// How long a handler waits, the queue included.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 4096;
/// Ids of nobody that one address may try in [`WINDOW`]; after that only ids that are known to be ours are passed on.
const UNKNOWN_MAX: u32 = 30;
/// After so long the counting begins anew.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are counted one by one; the others share a count.
const ADDRESSES_MAX: usize = 4096;
/// Ids that are remembered as ours.
const KNOWN_MAX: usize = 65_536;

/// What a hub wants to know or to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Whether we want this.
    Verify { mode: String, topic: String, lease_seconds: Option<u64>, reason: String },
    /// Something new.
    Push { signature: Option<String>, body: Bytes },
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Too many calls are under way.
    Busy,
    /// This address has tried too many ids that are none.
    Guessing,
    /// The daemon did not answer in time.
    Daemon,
}

type Order = (String, Call, oneshot::Sender<Result<bool, NoAnswer>>);

/// Takes calls from the workers.
#[derive(Debug)]
pub(crate) struct Callbacks {
    orders: mpsc::Sender<Order>,
    places: Arc<Semaphore>,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    ours: HashSet<String>,
    /// Tries by address; `None` is everybody who found no room.
    tries: HashMap<Option<IpAddr>, u32>,
    since: Instant,
}

/// Passes them on, on the intake's thread.
pub(crate) struct Porter(mpsc::Receiver<Order>);

impl Callbacks {
    pub(crate) fn new() -> (Self, Porter) {
        let (orders, queue) = mpsc::channel(CALLS_MAX);
        let memory = Memory { ours: HashSet::new(), tries: HashMap::new(), since: Instant::now() };
        let places = Arc::new(Semaphore::new(CALLS_MAX));
        (Self { orders, places, memory: Mutex::new(memory) }, Porter(queue))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every change under it is complete before it can panic.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more call, before its body is read.
    pub(crate) fn admit(&self, id: &str, address: IpAddr) -> Result<OwnedSemaphorePermit, NoAnswer> {
        if !self.memory().admits(id, address) {
            return Err(NoAnswer::Guessing);
        }
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| NoAnswer::Busy)
    }

    /// Asks the daemon; whether it is ours.
    pub(crate) async fn pass_on(
        &self,
        (id, call): (&str, Call),
        address: IpAddr,
        _place: OwnedSemaphorePermit,
    ) -> Result<bool, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.orders.try_send((id.to_owned(), call, reply)).map_err(|_| NoAnswer::Busy)?;
        let answer = timeout(WAIT_MAX, answer).await;
        let is_ours = answer.ok().and_then(Result::ok).unwrap_or(Err(NoAnswer::Daemon))?;
        self.memory().learn(id, address, is_ours);
        Ok(is_ours)
    }
}

impl Memory {
    fn place(&self, address: IpAddr) -> Option<IpAddr> {
        let address = Some(neighbourhood(address));
        let has_room = self.tries.contains_key(&address) || self.tries.len() < ADDRESSES_MAX;
        address.filter(|_| has_room)
    }

    fn admits(&mut self, id: &str, address: IpAddr) -> bool {
        if self.since.elapsed() >= WINDOW {
            self.tries.clear();
            self.since = Instant::now();
        }
        self.ours.contains(id)
            || self.tries.get(&self.place(address)).is_none_or(|tries| *tries < UNKNOWN_MAX)
    }

    fn learn(&mut self, id: &str, address: IpAddr, is_ours: bool) {
        if !is_ours {
            self.ours.remove(id);
            let place = self.place(address);
            *self.tries.entry(place).or_default() += 1;
        } else if self.ours.len() < KNOWN_MAX {
            self.ours.insert(id.to_owned());
        }
    }
}

impl Porter {
    /// Until the workers are gone.
    pub(crate) async fn serve(&mut self, peer: &PeerClient) {
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        while let Some((id, call, reply)) = self.0.recv().await {
            let place = Arc::clone(&places).acquire_owned().await.expect("the places are never closed");
            if reply.is_closed() {
                continue;
            }
            let peer = peer.clone();
            tokio::spawn(async move {
                let answer = ask(&peer, &id, call).await;
                // The hub may have left.
                reply.send(answer).ok();
                drop(place);
            });
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(alias = "confirmed", alias = "known")]
    is_ours: bool,
}

async fn ask(peer: &PeerClient, id: &str, call: Call) -> Result<bool, NoAnswer> {
    let answer = match call {
        Call::Verify { mode, topic, lease_seconds, reason } => {
            let asked = json!({
                "id": id, "mode": mode, "topic": topic, "lease_seconds": lease_seconds, "reason": reason,
            });
            peer.post("/websub/verifications", asked.to_string(), ANSWER_WITHIN, ANSWER_BYTES_MAX).await
        }
        Call::Push { signature, body } => {
            let signature = signature.as_deref().map(|signature| ("x-hub-signature", signature));
            let path = format!("/websub/pushes/{id}");
            peer.post_bytes(&path, signature.as_slice(), body, ANSWER_WITHIN, ANSWER_BYTES_MAX).await
        }
    };
    let answer = answer.map_err(|error| {
        tracing::warn!(%error, "could not pass a hub's call on");
        NoAnswer::Daemon
    })?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(|error| {
        tracing::error!(%error, "the daemon's answer to a hub's call is unreadable");
        NoAnswer::Daemon
    })?;
    Ok(answer.is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push() -> Call {
        Call::Push { signature: None, body: Bytes::new() }
    }

    /// Answers every call.
    fn answer(mut porter: Porter, is_ours: fn(&str) -> bool) {
        tokio::spawn(async move {
            while let Some((id, _, reply)) = porter.0.recv().await {
                reply.send(Ok(is_ours(&id))).ok();
            }
        });
    }

    async fn call(callbacks: &Callbacks, id: &str, address: &str) -> Result<bool, NoAnswer> {
        let address = address.parse().unwrap();
        let place = callbacks.admit(id, address)?;
        callbacks.pass_on((id, push()), address, place).await
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_guesses_ids_is_stopped_and_who_knows_one_is_not() {
        let (callbacks, porter) = Callbacks::new();
        answer(porter, |id| id == "ours");
        assert_eq!(call(&callbacks, "ours", "192.0.2.1").await, Ok(true));
        for n in 0..UNKNOWN_MAX {
            assert_eq!(call(&callbacks, &n.to_string(), "192.0.2.1").await, Ok(false));
        }
        assert_eq!(call(&callbacks, "x", "192.0.2.1").await, Err(NoAnswer::Guessing));
        assert_eq!(
            call(&callbacks, "ours", "192.0.2.1").await,
            Ok(true),
            "a hub at the same address goes on"
        );
        assert_eq!(call(&callbacks, "x", "192.0.2.2").await, Ok(false), "others are not concerned");
        tokio::time::advance(WINDOW).await;
        assert_eq!(call(&callbacks, "x", "192.0.2.1").await, Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_does_not_answer_costs_a_bounded_wait_and_bounded_memory() {
        let (callbacks, _porter) = Callbacks::new();
        let started = Instant::now();
        assert_eq!(call(&callbacks, "a", "192.0.2.1").await, Err(NoAnswer::Daemon));
        assert_eq!(started.elapsed(), WAIT_MAX);
        let address = "192.0.2.1".parse().unwrap();
        let places: Vec<_> = (0..CALLS_MAX).map(|_| callbacks.admit("a", address).unwrap()).collect();
        assert_eq!(callbacks.admit("a", address).unwrap_err(), NoAnswer::Busy);
        drop(places);
        assert!(callbacks.admit("a", address).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_guessers_is_bounded() {
        let (callbacks, porter) = Callbacks::new();
        answer(porter, |_| false);
        for n in 0..u32::try_from(ADDRESSES_MAX).unwrap() + UNKNOWN_MAX + 10 {
            call(&callbacks, "x", &std::net::Ipv4Addr::from(n).to_string()).await.ok();
        }
        assert_eq!(callbacks.memory().tries.len(), ADDRESSES_MAX + 1);
        assert_eq!(call(&callbacks, "x", "203.0.113.1").await, Err(NoAnswer::Guessing));
    }
}
