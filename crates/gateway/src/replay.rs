//! What the ring no longer has, from the daemon's log: a client that was away for days still misses nothing.
//!
//! ```text
//! subscriber ──Order──► bounded queue ──► the intake's thread ──GET /log──► daemon
//!     ▲                                                                       │
//!     └──────────────────────── one page of frames ◄──────────────────────────┘
//! ```
//!
//! A page at a time, and the next one only when the client has taken the last: a slow client holds one page. No
//! worker ever waits for the daemon.

use std::{sync::Arc, time::Duration};

use news::{Cursor, Epoch, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc, oneshot};
use wire::PeerClient;

use crate::sse::Frame;

/// Clients that wait for a page.
const ORDERS_MAX: usize = 4096;
/// Pages asked for at the same time: the daemon has better things to do.
const IN_FLIGHT_MAX: usize = 8;
/// Events of one page: what a client that stops reading in the middle of a replay holds, so less than it may cost.
const PAGE_EVENTS: usize = 50;
/// Largest answer: a page of the largest events.
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long the daemon may take for one.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// After this event.
    After(Cursor),
    /// With the first event recorded since then.
    Since(Timestamp),
}

/// Events in order, and how many before them the log no longer has.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) frames: Vec<Arc<Frame>>,
    pub(crate) missed: u64,
}

/// The daemon cannot be asked now, or its log is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoPage;

type Reply = oneshot::Sender<Result<Page, NoPage>>;

/// Takes orders from the workers.
#[derive(Clone, Debug)]
pub(crate) struct Replays(mpsc::Sender<(From, Reply)>);

/// Carries them out, on the intake's thread.
pub(crate) struct Librarian(mpsc::Receiver<(From, Reply)>);

impl Replays {
    pub(crate) fn new() -> (Self, Librarian) {
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        (Self(orders), Librarian(queue))
    }

    /// Orders a page. When too many wait already, the answer is [`NoPage`] at once.
    pub(crate) fn order(&self, from: From) -> oneshot::Receiver<Result<Page, NoPage>> {
        let (reply, answer) = oneshot::channel();
        if let Err(refused) = self.0.try_send((from, reply)) {
            let (_, reply) = refused.into_inner();
            // The other end is in our hand.
            reply.send(Err(NoPage)).ok();
        }
        answer
    }
}

impl Librarian {
    /// Until the workers are gone.
    pub(crate) async fn serve(&mut self, peer: &PeerClient) {
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        while let Some((from, reply)) = self.0.recv().await {
            let place = Arc::clone(&places).acquire_owned().await.expect("the places are never closed");
            if reply.is_closed() {
                continue;
            }
            let peer = peer.clone();
            tokio::spawn(async move {
                let page = fetch(&peer, &from).await;
                // The client may have left.
                reply.send(page).ok();
                drop(place);
            });
        }
    }
}

#[derive(Deserialize)]
struct LogAnswer {
    epoch: Epoch,
    missed: u64,
    events: Vec<Box<RawValue>>,
}

async fn fetch(peer: &PeerClient, from: &From) -> Result<Page, NoPage> {
    let path = match from {
        From::After(cursor) => format!("/log?limit={PAGE_EVENTS}&after={cursor}"),
        From::Since(instant) => format!("/log?limit={PAGE_EVENTS}&since={instant}"),
    };
    let cursor = match from {
        From::After(cursor) => Some(tracing::field::display(cursor)),
        From::Since(_) => None,
    };
    let body = peer.get(&path, ANSWER_WITHIN, PAGE_BYTES_MAX).await.map_err(|error| {
        tracing::debug!(cursor, %error, "could not read a page of the log");
        NoPage
    })?;
    let answer: LogAnswer = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
    let mut frames = Vec::with_capacity(answer.events.len());
    for event in answer.events {
        let frame = Frame::render(event.get().as_bytes()).map_err(|error| unreadable(&error))?;
        frames.push(Arc::new(frame));
    }
    if matches!(from, From::After(cursor) if cursor.epoch != answer.epoch) {
        return Err(NoPage);
    }
    Ok(Page { frames, missed: answer.missed })
}

fn unreadable(error: &serde_json::Error) -> NoPage {
    tracing::error!(%error, "a page of the log is unreadable");
    NoPage
}
