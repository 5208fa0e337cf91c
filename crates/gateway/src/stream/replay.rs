//! Events that the ring no longer has, from the daemon's log: a client that was away for days still misses nothing.
//!
//! A page at a time, and the next one only when the client has taken the last: a slow client holds one page. No
//! worker ever waits for the daemon; see [`crate::forwarder`]. A client waits for it as long as it takes.

use std::{sync::Arc, time::Duration};

use news::{Cursor, Epoch, Seq, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use wire::nats::PageStart;

use super::frame::Frame;
use crate::{
    forwarder::{Forwarder, RequestQueue},
    ingest::{
        log_unavailable::LogUnavailable,
        no_answer::NoAnswer,
        transport::{LogBelowRing, LogPageRequest},
    },
};

/// Clients that wait for a page.
const REQUESTS_MAX: usize = 4096;
/// Pages requested at the same time: replays must not delay what is new.
const IN_FLIGHT_MAX: usize = 1;
/// Events per page. A client that stops reading in the middle of a replay holds one page, so it is kept small.
const PAGE_EVENTS: usize = 50;
/// Bytes of the events of a page, about; one event at least.
pub(super) const PAGE_BYTES: usize = 256 * 1024;
/// Largest answer: a page and the largest event.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long the daemon may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);
const UNREADABLE: LogUnavailable = LogUnavailable::NoAnswer(NoAnswer::Unusable);

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplayStart {
    /// After this event.
    After(Cursor),
    /// With the first event recorded since then.
    Since(Timestamp),
}

/// A part of the log.
#[derive(Debug)]
pub(crate) struct ReplayPage {
    /// In order. What lies between them, and between the last one and `end`, is missing.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// How many events are missing before the first one.
    pub(crate) missed: u64,
    /// The next page begins after this event.
    pub(crate) end: Seq,
    /// The newest event of the log.
    pub(crate) head: Seq,
    /// The oldest event of the log.
    pub(crate) oldest: Seq,
}

pub(crate) type ReplayResult = Result<ReplayPage, LogUnavailable>;

/// Requests for pages of the log.
pub(crate) type ReplayQueue = RequestQueue<ReplayStart, ReplayResult>;

/// The intake's end of the queue.
pub(crate) type ReplayForwarder = Forwarder<ReplayStart, ReplayResult>;

/// The queue for pages of the log.
pub(crate) fn queue() -> (ReplayQueue, ReplayForwarder) {
    RequestQueue::new(REQUESTS_MAX, IN_FLIGHT_MAX)
}

/// The daemon's answer at `/log`.
#[derive(Deserialize)]
struct LogAnswer {
    epoch: Epoch,
    oldest: Cursor,
    head: Cursor,
    missed: u64,
    events: Vec<Box<RawValue>>,
    next: Option<Cursor>,
}

/// Reads a page from the daemon.
///
/// # Errors
/// [`LogUnavailable`]; the reason has been logged.
pub(crate) async fn fetch(log: LogBelowRing, start: ReplayStart) -> ReplayResult {
    let request = LogPageRequest {
        start: match &start {
            ReplayStart::After(cursor) => PageStart::After(cursor),
            ReplayStart::Since(instant) => PageStart::Since(*instant),
        },
        limit: PAGE_EVENTS,
        bytes: PAGE_BYTES,
        deadline: DEADLINE,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let body = log.read(request).await?;
    // On a thread of the blocking pool: this one reads the wire.
    let rendered = tokio::task::spawn_blocking(move || render(&body)).await;
    let rendered = rendered.map_err(|error| tracing::error!(%error, "could not render a page of the log"));
    let (epoch, page) = rendered.map_err(|()| UNREADABLE)?.map_err(|error| unreadable(&error))?;
    match start {
        ReplayStart::After(cursor) if cursor.epoch != epoch => Err(LogUnavailable::OtherLog),
        _ => Ok(page),
    }
}

fn render(body: &[u8]) -> Result<(Epoch, ReplayPage), serde_json::Error> {
    let LogAnswer { epoch, oldest, head, mut missed, events, next } = serde_json::from_slice(body)?;
    let mut frames = Vec::with_capacity(events.len());
    for event in events {
        match Frame::render(event.get().as_bytes()) {
            // A stream sends the shortened form of a long event, and nothing else reads these frames.
            Ok(frame) => frames.push(Arc::new(frame.shortened_only())),
            Err(error) => {
                // It is left out, and the client is told of the gap.
                tracing::error!(%error, "an event of the log is unreadable");
                missed += u64::from(frames.is_empty());
            }
        }
    }
    let end = next.map_or(head.seq, |next| next.seq);
    let end = frames.last().map_or(end, |last| end.max(last.seq));
    Ok((epoch, ReplayPage { frames, missed, end, head: head.seq, oldest: oldest.seq }))
}

fn unreadable(error: &serde_json::Error) -> LogUnavailable {
    tracing::error!(%error, "a page of the log is unreadable");
    UNREADABLE
}
