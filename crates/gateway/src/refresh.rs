//! Orders to visit sources now: a message to the daemon, and progress for everybody who listens.
//!
//! ```text
//! POST /news/refresh ──► bounded queue ──► the intake's thread ──POST /visits──► daemon
//!        │ 202 {refresh, total}                                                    │ visits
//!        ▼                                                                         ▼
//!   `refresh` events ◄──────────── the notices of those sources ◄──────────── the wire
//! ```
//!
//! The handler waits for the daemon's word for a bounded time; a daemon that is dead or stopped costs a 503.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use news::SourceId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use wire::PeerClient;

/// Orders that wait for the daemon; one more is refused.
const ORDERS_MAX: usize = 16;
/// How long the daemon may take to accept one.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Refreshes whose progress is told at the same time; one more is carried out in silence.
const FOLLOWED_MAX: usize = 64;
/// After this, a refresh counts as complete whatever is missing: a visit ends within its deadlines, but may wait long
/// for its host.
const FOLLOWED_FOR: Duration = Duration::from_secs(600);

/// What the daemon made of an order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Accepted {
    pub(crate) accepted: Vec<SourceId>,
    pub(crate) unknown: Vec<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Too many orders wait already.
    Busy,
    /// The daemon did not answer in time, or refused.
    Daemon(String),
}

type Order = (Vec<String>, oneshot::Sender<Result<Accepted, NoAnswer>>);

/// The data of a `refresh` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    pub(crate) refresh: String,
    pub(crate) completed: usize,
    pub(crate) total: usize,
    pub(crate) state: &'static str,
    /// Those of all its sources.
    #[serde(skip)]
    pub(crate) categories: Arc<[String]>,
}

/// Takes orders from the workers, and follows what becomes of them.
#[derive(Debug)]
pub(crate) struct Refreshes {
    orders: mpsc::Sender<Order>,
    followed: Mutex<BTreeMap<String, Followed>>,
}

#[derive(Debug)]
struct Followed {
    missing: BTreeSet<SourceId>,
    total: usize,
    categories: Arc<[String]>,
    since: Instant,
}

/// Carries orders out, on the intake's thread.
pub(crate) struct Clerk(mpsc::Receiver<Order>);

impl Refreshes {
    pub(crate) fn new() -> (Self, Clerk) {
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        (Self { orders, followed: Mutex::default() }, Clerk(queue))
    }

    /// Sends an order and waits for the daemon's word.
    pub(crate) async fn order(&self, sources: Vec<String>) -> Result<Accepted, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.orders.try_send((sources, reply)).map_err(|_| NoAnswer::Busy)?;
        match tokio::time::timeout(ANSWER_WITHIN * 2, answer).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(_)) | Err(_) => Err(NoAnswer::Daemon("the order was not carried out in time".to_owned())),
        }
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<String, Followed>> {
        // Every change under it is complete before it can panic.
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to follow an order of sources in these categories; returns the name of the refresh.
    pub(crate) fn follow(&self, accepted: &[SourceId], categories: Arc<[String]>) -> String {
        let name: String = std::iter::repeat_with(fastrand::alphanumeric).take(12).collect();
        let mut followed = self.followed();
        followed.retain(|_, refresh| refresh.since.elapsed() < FOLLOWED_FOR);
        if followed.len() < FOLLOWED_MAX && !accepted.is_empty() {
            let missing: BTreeSet<_> = accepted.iter().cloned().collect();
            let total = missing.len();
            followed.insert(name.clone(), Followed { missing, total, categories, since: Instant::now() });
        }
        name
    }

    /// A visit ended: what is to be told of the refreshes that wait for it.
    pub(crate) fn visited(&self, source: &SourceId) -> Vec<Progress> {
        let mut told = Vec::new();
        self.followed().retain(|name, refresh| {
            if refresh.missing.remove(source) {
                let done = refresh.missing.is_empty();
                told.push(Progress {
                    refresh: name.clone(),
                    completed: refresh.total - refresh.missing.len(),
                    total: refresh.total,
                    state: if done { "complete" } else { "running" },
                    categories: Arc::clone(&refresh.categories),
                });
            }
            !refresh.missing.is_empty() && refresh.since.elapsed() < FOLLOWED_FOR
        });
        told
    }
}

impl Clerk {
    /// One order after the other, until the workers are gone.
    pub(crate) async fn serve(&mut self, daemon: &PeerClient) {
        while let Some((sources, reply)) = self.0.recv().await {
            if reply.is_closed() {
                continue;
            }
            let order = json!({ "sources": sources }).to_string();
            let answer = daemon.post("/visits", order, ANSWER_WITHIN, ANSWER_BYTES_MAX).await;
            let accepted = match answer {
                Ok(body) => serde_json::from_slice(&body).map_err(|e| NoAnswer::Daemon(e.to_string())),
                Err(error) => Err(NoAnswer::Daemon(error.to_string())),
            };
            // The client may have left.
            reply.send(accepted).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<SourceId> {
        ids.iter().map(|id| SourceId::try_new(id).unwrap()).collect()
    }

    #[test]
    fn progress_is_told_until_every_source_was_visited() {
        let (refreshes, _clerk) = Refreshes::new();
        let name = refreshes.follow(&ids(&["a", "b"]), Arc::default());
        let told = |source: &str| {
            let told = refreshes.visited(&ids(&[source])[0]);
            told.into_iter().map(|p| (p.refresh == name, p.completed, p.total, p.state)).collect::<Vec<_>>()
        };
        assert_eq!(told("x"), []);
        assert_eq!(told("a"), [(true, 1, 2, "running")]);
        assert_eq!(told("a"), [], "a second visit is not of this refresh");
        assert_eq!(told("b"), [(true, 2, 2, "complete")]);
        assert_eq!(told("b"), []);
    }

    #[test]
    fn what_is_followed_is_bounded() {
        let (refreshes, _clerk) = Refreshes::new();
        for _ in 0..FOLLOWED_MAX + 5 {
            refreshes.follow(&ids(&["a"]), Arc::default());
        }
        assert_eq!(refreshes.visited(&ids(&["a"])[0]).len(), FOLLOWED_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn more_orders_than_wait_are_refused_and_one_without_an_answer_ends() {
        let (refreshes, _clerk) = Refreshes::new();
        let waiting: Vec<_> = (0..ORDERS_MAX).map(|_| refreshes.order(vec!["a".into()])).collect();
        let waiting = futures(waiting);
        let refused = async {
            tokio::task::yield_now().await;
            refreshes.order(vec!["a".into()]).await
        };
        let (waited, refused) = tokio::join!(waiting, refused);
        assert_eq!(refused, Err(NoAnswer::Busy));
        assert!(waited.iter().all(|w| matches!(w, Err(NoAnswer::Daemon(_)))));
    }

    async fn futures<F: Future>(all: Vec<F>) -> Vec<F::Output> {
        let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
        let mut done = Vec::new();
        // Each is polled once at least before the first is waited for.
        for one in &mut all {
            if let std::task::Poll::Ready(output) = poll_once(one.as_mut()).await {
                done.push(output);
            }
        }
        for one in all {
            done.push(one.await);
        }
        done
    }

    async fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        let mut future = Some(future);
        std::future::poll_fn(|cx| {
            let future = future.take().expect("polled once");
            std::task::Poll::Ready(future.poll(cx))
        })
        .await
    }
}
