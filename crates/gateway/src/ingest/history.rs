//! Parts of the daemon's log for pages that go below the ring, the newest event first. They wait in a queue of their
//! own, and few are read at the same time: the replays of live clients come first.
//!
//! ```text
//!              a request was not answered in time
//! answering ────────────────────────────────────────► silent: one probe in flight, no other request is sent
//!     ▲                                                 │
//!     └─────────────────────────────────────────────────┘
//!              the probe was answered, or cannot be sent
//! ```
//!
//! So a daemon that hangs costs the wait of one request, and not that of every page.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use news::{Cursor, Epoch, Seq, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use wire::nats::PageStart;

use super::{
    log_unavailable::LogUnavailable,
    no_answer::NoAnswer,
    transport::{LogBelowRing, LogPageRequest},
};
use daemon::watch::Watch;

use crate::forwarder::{Forwarder, QueueFull, RequestQueue};

/// Pages that wait for a part.
const REQUESTS_MAX: usize = 256;
/// Parts requested at the same time; replays may request twice as many.
const IN_FLIGHT_MAX: usize = 2;
/// Bytes of the events of a part, about: what a page can parse in one turn.
const PART_BYTES: usize = 256 * 1024;
/// Largest answer: a part and the largest event.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long the daemon may take to answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// The pause between two probes of a silent daemon.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Which part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryRequest {
    /// It begins before this event.
    pub(crate) before: Cursor,
    /// It ends with the first event recorded since then.
    pub(crate) since: Option<Timestamp>,
    /// Events, at most.
    pub(crate) limit: usize,
}

/// Events, the newest first.
#[derive(Debug)]
pub(crate) struct HistoryPart {
    pub(crate) events: Vec<Box<RawValue>>,
    /// Bytes of the events.
    pub(crate) bytes: usize,
    /// The oldest event of the log.
    pub(crate) oldest: Seq,
    /// Whether nothing follows.
    pub(crate) is_last: bool,
}

pub(crate) type HistoryResult = Result<HistoryPart, LogUnavailable>;

/// Requests for parts of the log.
#[derive(Debug)]
pub(crate) struct HistoryQueue {
    queue: RequestQueue<HistoryRequest, HistoryResult>,
    is_silent: Arc<AtomicBool>,
}

/// The intake's end of the queue.
pub(crate) struct HistoryForwarder {
    forwarder: Forwarder<HistoryRequest, HistoryResult>,
    is_silent: Arc<AtomicBool>,
}

impl HistoryQueue {
    pub(crate) fn new() -> (Self, HistoryForwarder) {
        let (queue, forwarder) = RequestQueue::new(REQUESTS_MAX, IN_FLIGHT_MAX);
        let is_silent = Arc::new(AtomicBool::new(false));
        (Self { queue, is_silent: Arc::clone(&is_silent) }, HistoryForwarder { forwarder, is_silent })
    }

    /// Reads a part, until this instant at the latest.
    ///
    /// # Errors
    /// [`LogUnavailable`]
    pub(crate) async fn read(&self, request: HistoryRequest, until: Instant) -> HistoryResult {
        if self.is_silent.load(Ordering::Acquire) {
            return Err(LogUnavailable::Silent);
        }
        let answer = self.queue.send(request).map_err(|QueueFull| LogUnavailable::Busy)?;
        match timeout_at(until, answer).await {
            Ok(Ok(answer)) => answer,
            // The intake has ended.
            Ok(Err(_)) => Err(LogUnavailable::NoAnswer(NoAnswer::NotConnected)),
            Err(_) => Err(LogUnavailable::NoAnswer(NoAnswer::Late)),
        }
    }
}

impl HistoryForwarder {
    /// See [`Forwarder::show`].
    pub(crate) fn show(&mut self, watch: &Watch, name: &'static str) {
        self.forwarder.show(watch, name);
    }

    /// Sends the requests, until the workers are gone; none but probes while the daemon is silent.
    pub(crate) async fn run<F>(&mut self, exchange: impl Fn(HistoryRequest) -> F)
    where
        F: Future<Output = HistoryResult> + Send + 'static,
    {
        let is_silent = Arc::clone(&self.is_silent);
        let (unanswered, mut to_probe) = mpsc::channel(1);
        let send = |request: HistoryRequest| {
            let (is_silent, unanswered) = (Arc::clone(&is_silent), unanswered.clone());
            let probe = HistoryRequest { limit: 1, since: None, ..request.clone() };
            let answer = exchange(request);
            async move {
                // It waited while another one was not answered.
                if is_silent.load(Ordering::Acquire) {
                    return Err(LogUnavailable::Silent);
                }
                let answer = answer.await;
                if is_late(&answer) && !is_silent.swap(true, Ordering::AcqRel) {
                    tracing::warn!("the daemon did not answer a request for the log in time");
                    // There is room: the state changes again only after this one was taken out and answered.
                    unanswered.try_send(probe).ok();
                }
                answer
            }
        };
        let probe = async {
            while let Some(request) = to_probe.recv().await {
                while is_late(&exchange(request.clone()).await) {
                    sleep(PROBE_INTERVAL).await;
                }
                tracing::info!("requests for the log are sent to the daemon again");
                is_silent.store(false, Ordering::Release);
            }
        };
        tokio::select! {
            () = self.forwarder.run(send) => {}
            () = probe => {}
        }
    }
}

fn is_late(answer: &HistoryResult) -> bool {
    matches!(answer, Err(LogUnavailable::NoAnswer(NoAnswer::Late)))
}

/// The daemon's answer at `/log?before=`.
#[derive(Deserialize)]
struct HistoryAnswer {
    epoch: Epoch,
    oldest: Cursor,
    events: Vec<Box<RawValue>>,
    next: Option<Cursor>,
}

/// Reads a part from the daemon.
///
/// # Errors
/// [`LogUnavailable`]; the reason has been logged.
pub(crate) async fn fetch(log: LogBelowRing, request: HistoryRequest) -> HistoryResult {
    let HistoryRequest { before, since, limit } = request;
    let request = LogPageRequest {
        start: PageStart::Before(&before, since),
        limit,
        bytes: PART_BYTES,
        deadline: DEADLINE,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let body = log.read(request).await?;
    let answer: HistoryAnswer = serde_json::from_slice(&body).map_err(|error| {
        tracing::error!(%error, "a part of the log is unreadable");
        LogUnavailable::NoAnswer(NoAnswer::Unusable)
    })?;
    if answer.epoch != before.epoch {
        return Err(LogUnavailable::OtherLog);
    }
    Ok(HistoryPart {
        bytes: body.len(),
        events: answer.events,
        oldest: answer.oldest.seq,
        is_last: answer.next.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    fn request(seq: u64) -> HistoryRequest {
        let before = Cursor { epoch: Epoch::try_new("e").unwrap(), seq: Seq(seq) };
        HistoryRequest { before, since: Some(Timestamp::from_millis(0)), limit: 50 }
    }

    fn part() -> HistoryPart {
        HistoryPart { events: Vec::new(), bytes: 0, oldest: Seq(1), is_last: true }
    }

    #[tokio::test(start_paused = true)]
    async fn after_one_request_without_an_answer_only_probes_are_sent_until_one_is_answered() {
        let (queue, mut forwarder) = HistoryQueue::new();
        let hangs = Arc::new(AtomicBool::new(true));
        let (sent, in_flight) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let exchange = |_request: HistoryRequest| {
            let (hangs, sent, in_flight) = (Arc::clone(&hangs), Arc::clone(&sent), Arc::clone(&in_flight));
            async move {
                sent.fetch_add(1, Relaxed);
                assert!(in_flight.fetch_add(1, Relaxed) < IN_FLIGHT_MAX);
                let hangs = hangs.load(Relaxed);
                sleep(if hangs { DEADLINE } else { Duration::from_millis(1) }).await;
                in_flight.fetch_sub(1, Relaxed);
                if hangs { Err(LogUnavailable::NoAnswer(NoAnswer::Late)) } else { Ok(part()) }
            }
        };
        let pages = async {
            let began = Instant::now();
            let later = began + Duration::from_secs(3600);
            let waiting = (1..=40).map(|n| queue.read(request(n), later));
            let (mut late, mut not_asked) = (0, 0);
            for answer in in_parallel(waiting).await {
                match answer.unwrap_err() {
                    LogUnavailable::NoAnswer(NoAnswer::Late) => late += 1,
                    LogUnavailable::Silent => not_asked += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((late, not_asked, began.elapsed()), (IN_FLIGHT_MAX, 40 - IN_FLIGHT_MAX, DEADLINE));
            for _ in 0..100 {
                assert_eq!(queue.read(request(5), later).await.unwrap_err(), LogUnavailable::Silent);
            }
            assert_eq!(began.elapsed(), DEADLINE, "none of them waited");
            sleep(DEADLINE * 10).await;
            let probes = sent.load(Relaxed) - IN_FLIGHT_MAX;
            assert!((5..=10).contains(&probes) && in_flight.load(Relaxed) <= 1, "{probes}");
            hangs.store(false, Relaxed);
            sleep(DEADLINE + PROBE_INTERVAL * 2).await;
            assert!(queue.read(request(5), later).await.is_ok());
            // A second time likewise.
            hangs.store(true, Relaxed);
            let late = LogUnavailable::NoAnswer(NoAnswer::Late);
            assert_eq!(queue.read(request(5), later).await.unwrap_err(), late);
            assert_eq!(queue.read(request(5), later).await.unwrap_err(), LogUnavailable::Silent);
        };
        tokio::select! {
            () = pages => {}
            () = forwarder.run(exchange) => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_request_alone_does_not_keep_the_others_from_the_daemon() {
        let (queue, mut forwarder) = HistoryQueue::new();
        let exchange = |request: HistoryRequest| async move {
            // Too much to search, down to the instant; a probe has no instant.
            if request.since.is_some() && request.before.seq == Seq(7) {
                sleep(DEADLINE).await;
                return Err(LogUnavailable::NoAnswer(NoAnswer::Late));
            }
            Ok(part())
        };
        let pages = async {
            let later = Instant::now() + Duration::from_secs(3600);
            assert!(queue.read(request(7), later).await.is_err());
            sleep(Duration::from_millis(1)).await;
            assert!(queue.read(request(8), later).await.is_ok());
        };
        tokio::select! {
            () = pages => {}
            () = forwarder.run(exchange) => unreachable!(),
        }
    }

    async fn in_parallel<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
        let mut all: Vec<_> = all.map(Box::pin).collect();
        let mut done = Vec::new();
        std::future::poll_fn(|cx| {
            all.retain_mut(|future| match future.as_mut().poll(cx) {
                std::task::Poll::Ready(answer) => {
                    done.push(answer);
                    false
                }
                std::task::Poll::Pending => true,
            });
            if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        done
    }
}
