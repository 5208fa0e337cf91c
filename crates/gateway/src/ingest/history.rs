//! Parts of the daemon's log for pages that go below the ring, the newest event first. They wait in a queue of their
//! own, and few are read at the same time: the replays of live clients come first.

use std::time::Duration;

use news::{Cursor, Epoch, Seq, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use wire::PeerClient;

use crate::forwarder::{Forwarder, RequestQueue};

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

/// The daemon did not answer, or its log is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistoryUnavailable;

pub(crate) type HistoryResult = Result<HistoryPart, HistoryUnavailable>;

/// The intake's end of the queue.
pub(crate) type HistoryForwarder = Forwarder<HistoryRequest, HistoryResult>;

/// Requests for parts of the log.
#[derive(Debug)]
pub(crate) struct HistoryQueue(RequestQueue<HistoryRequest, HistoryResult>);

impl HistoryQueue {
    pub(crate) fn new() -> (Self, HistoryForwarder) {
        let (queue, forwarder) = RequestQueue::new(REQUESTS_MAX, IN_FLIGHT_MAX);
        (Self(queue), forwarder)
    }

    /// Requests a part. The receiver returns an error at once if too many pages wait already.
    pub(crate) fn request(&self, request: HistoryRequest) -> oneshot::Receiver<HistoryResult> {
        // A receiver whose sender is gone.
        self.0.send(request).unwrap_or_else(|_full| oneshot::channel().1)
    }
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
/// [`HistoryUnavailable`]; the reason has been logged.
pub(crate) async fn fetch(daemon: PeerClient, request: HistoryRequest) -> HistoryResult {
    let HistoryRequest { before, since, limit } = request;
    let mut path = format!("/log?limit={limit}&bytes={PART_BYTES}&before={before}");
    if let Some(since) = since {
        path.push_str(&format!("&since={since}"));
    }
    let body = daemon.get(&path, DEADLINE, ANSWER_BYTES_MAX).await.map_err(|error| {
        tracing::debug!(cursor = %before, %error, "could not read a part of the log");
        HistoryUnavailable
    })?;
    let answer: HistoryAnswer = serde_json::from_slice(&body).map_err(|error| {
        tracing::error!(%error, "a part of the log is unreadable");
        HistoryUnavailable
    })?;
    if answer.epoch != before.epoch {
        return Err(HistoryUnavailable);
    }
    Ok(HistoryPart {
        bytes: body.len(),
        events: answer.events,
        oldest: answer.oldest.seq,
        is_last: answer.next.is_none(),
    })
}
