//! Orders of the operator to visit sources now: passed to the daemon, with their progress for the clients.
//!
//! ```text
//! POST /news/refresh ──► forwarder ──POST /visits──► daemon
//!        │ 202 {refresh, total}                        │ visits
//!        ▼                                             ▼
//!   `refresh` events ◄── notices of those sources ◄── wire
//! ```
//!
//! The handler waits for the daemon's answer for a bounded time; a daemon that is stopped costs a 503.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use control::{VisitAnswer, VisitOrder, paths::VISITS};
use news::SourceId;
use serde::Serialize;
use tokio::time::Instant;

use super::{daemons::Daemons, no_answer::NoAnswer};
use crate::forwarder::{Forwarder, QueueFull, RequestQueue};

/// Orders that wait for the daemon; one more is refused.
const WAITING_MAX: usize = 16;
/// One order after the other.
const IN_FLIGHT_MAX: usize = 1;
/// How long the daemon may take to accept an order.
const DEADLINE: Duration = Duration::from_secs(3);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Refreshes whose progress is reported at the same time; one more is carried out without progress events.
const TRACKED_MAX: usize = 64;
/// After this, a refresh is no longer tracked: a visit ends within its deadlines, but may wait long for its host.
const TRACKED_FOR: Duration = Duration::from_secs(600);

/// Why an order was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshError {
    /// Too many orders wait already.
    Busy,
    /// The daemon did not answer, or refused; the reason has been logged.
    NoDaemon(NoAnswer),
}

type RefreshResult = Result<VisitAnswer, RefreshError>;

/// The intake's end of the queue.
pub(crate) type RefreshForwarder = Forwarder<Vec<String>, RefreshResult>;

/// The data of a `refresh` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RefreshProgress {
    pub(crate) refresh: String,
    pub(crate) completed: usize,
    pub(crate) total: usize,
    pub(crate) state: &'static str,
    /// The categories of all its sources.
    #[serde(skip)]
    pub(crate) categories: Arc<[String]>,
}

/// Orders to visit sources, and the progress of the accepted ones.
#[derive(Debug)]
pub(crate) struct Refreshes {
    queue: RequestQueue<Vec<String>, RefreshResult>,
    tracked: Mutex<BTreeMap<String, TrackedRefresh>>,
}

#[derive(Debug)]
struct TrackedRefresh {
    /// Sources that were not visited yet.
    missing: BTreeSet<String>,
    total: usize,
    categories: Arc<[String]>,
    since: Instant,
}

impl Refreshes {
    pub(crate) fn new() -> (Self, RefreshForwarder) {
        let (queue, forwarder) = RequestQueue::new(WAITING_MAX, IN_FLIGHT_MAX);
        (Self { queue, tracked: Mutex::default() }, forwarder)
    }

    /// Orders visits to these sources, and waits for the daemon's answer.
    ///
    /// # Errors
    /// If too many orders wait, or the daemon did not accept this one.
    pub(crate) async fn order(&self, sources: Vec<String>) -> RefreshResult {
        let answer = self.queue.send(sources).map_err(|QueueFull| RefreshError::Busy)?;
        match tokio::time::timeout(DEADLINE * 2, answer).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(_)) | Err(_) => Err(RefreshError::NoDaemon(NoAnswer::Late)),
        }
    }

    fn tracked(&self) -> MutexGuard<'_, BTreeMap<String, TrackedRefresh>> {
        // Every change under it is complete before it can panic.
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to track an accepted order of sources in these categories; returns the name of the refresh.
    pub(crate) fn track(&self, accepted: &[String], categories: Arc<[String]>) -> String {
        let name: String = std::iter::repeat_with(fastrand::alphanumeric).take(12).collect();
        let mut tracked = self.tracked();
        tracked.retain(|_, refresh| refresh.since.elapsed() < TRACKED_FOR);
        if tracked.len() < TRACKED_MAX && !accepted.is_empty() {
            let missing: BTreeSet<_> = accepted.iter().cloned().collect();
            let total = missing.len();
            tracked
                .insert(name.clone(), TrackedRefresh { missing, total, categories, since: Instant::now() });
        }
        name
    }

    /// Records a visit that ended; returns the progress of each refresh that waited for it.
    pub(crate) fn record_visit(&self, source: &SourceId) -> Vec<RefreshProgress> {
        let mut progress = Vec::new();
        self.tracked().retain(|name, refresh| {
            if refresh.missing.remove(source.as_str()) {
                let is_complete = refresh.missing.is_empty();
                progress.push(RefreshProgress {
                    refresh: name.clone(),
                    completed: refresh.total - refresh.missing.len(),
                    total: refresh.total,
                    state: if is_complete { "complete" } else { "running" },
                    categories: Arc::clone(&refresh.categories),
                });
            }
            !refresh.missing.is_empty() && refresh.since.elapsed() < TRACKED_FOR
        });
        progress
    }
}

/// Passes an order to each daemon; the answers are added up.
///
/// # Errors
/// [`RefreshError::NoDaemon`] if none that has answered has the sources, and not all have; the reason has been logged.
pub(crate) async fn send(daemons: Daemons, sources: Vec<String>) -> RefreshResult {
    let order = serde_json::to_string(&VisitOrder { sources: Some(sources), ..VisitOrder::default() })
        .expect("an order has a JSON form");
    let (mut answers, mut failure) = (Vec::new(), None);
    for (daemon, body) in daemons.post_all(VISITS, order, DEADLINE, ANSWER_BYTES_MAX).await {
        match body.map(|body| serde_json::from_slice::<VisitAnswer>(&body)) {
            Ok(Ok(answer)) => answers.push(answer),
            Ok(Err(error)) => {
                tracing::error!(%error, "the daemon's answer to a refresh is unreadable");
                failure = Some(NoAnswer::Unusable);
            }
            Err(error) => {
                tracing::warn!(%daemon, %error, "could not forward a refresh to the daemon");
                failure = Some((&error).into());
            }
        }
    }
    let added_up = add_up(answers);
    match (added_up, failure) {
        (Some(answer), None) => Ok(answer),
        // What the others do not know may be of the one that has not answered.
        (Some(answer), Some(_)) if answer.unknown.is_empty() || !answer.accepted.is_empty() => Ok(answer),
        (_, failure) => Err(RefreshError::NoDaemon(failure.unwrap_or(NoAnswer::NotConnected))),
    }
}

/// Each source once, by the best that a daemon has done with it; `None` without any answer.
fn add_up(mut answers: Vec<VisitAnswer>) -> Option<VisitAnswer> {
    if answers.len() <= 1 {
        return answers.into_iter().next();
    }
    let mut done = BTreeSet::<String>::new();
    let mut added_up = VisitAnswer::default();
    let lists: [fn(&mut VisitAnswer) -> &mut Vec<String>; 5] = [
        |answer| &mut answer.accepted,
        |answer| &mut answer.busy,
        |answer| &mut answer.paused,
        |answer| &mut answer.disabled,
        |answer| &mut answer.unknown,
    ];
    for list in lists {
        let ids: Vec<_> = answers.iter_mut().flat_map(|answer| std::mem::take(list(answer))).collect();
        list(&mut added_up).extend(ids.into_iter().filter(|id| done.insert(id.clone())));
    }
    Some(added_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn source(id: &str) -> SourceId {
        SourceId::try_new(id).unwrap()
    }

    #[test]
    fn progress_is_reported_until_every_source_was_visited() {
        let (refreshes, _forwarder) = Refreshes::new();
        let name = refreshes.track(&ids(&["a", "b"]), Arc::default());
        let visit = |id: &str| {
            let progress = refreshes.record_visit(&source(id));
            progress
                .into_iter()
                .map(|p| (p.refresh == name, p.completed, p.total, p.state))
                .collect::<Vec<_>>()
        };
        assert_eq!(visit("x"), []);
        assert_eq!(visit("a"), [(true, 1, 2, "running")]);
        assert_eq!(visit("a"), [], "a second visit does not count");
        assert_eq!(visit("b"), [(true, 2, 2, "complete")]);
        assert_eq!(visit("b"), []);
    }

    #[test]
    fn the_number_of_tracked_refreshes_is_limited() {
        let (refreshes, _forwarder) = Refreshes::new();
        for _ in 0..TRACKED_MAX + 5 {
            refreshes.track(&ids(&["a"]), Arc::default());
        }
        assert_eq!(refreshes.record_visit(&source("a")).len(), TRACKED_MAX);
    }

    #[test]
    fn a_source_that_one_daemon_visits_is_unknown_to_none() {
        let of = |accepted: &[&str], busy: &[&str], unknown: &[&str]| VisitAnswer {
            accepted: ids(accepted),
            busy: ids(busy),
            unknown: ids(unknown),
            ..VisitAnswer::default()
        };
        assert_eq!(add_up(vec![]), None);
        assert_eq!(
            add_up(vec![of(&["a"], &["d"], &["b", "c"]), of(&["b", "d"], &[], &["a", "c"])]),
            Some(of(&["a", "b", "d"], &[], &["c"]))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn more_orders_than_may_wait_are_refused_and_one_without_an_answer_times_out() {
        let (refreshes, _forwarder) = Refreshes::new();
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| refreshes.order(vec!["a".into()])).collect();
        let waiting = futures(waiting);
        let refused = async {
            tokio::task::yield_now().await;
            refreshes.order(vec!["a".into()]).await
        };
        let (waited, refused) = tokio::join!(waiting, refused);
        assert_eq!(refused, Err(RefreshError::Busy));
        assert!(waited.iter().all(|w| matches!(w, Err(RefreshError::NoDaemon(_)))));
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
