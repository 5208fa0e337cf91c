//! Step 13 of the life of an item: one client takes it. A body that is nothing but a cursor into the ring.
//!
//! ```text
//! opening ──the ring is filled──► live ──its turn to leave, or another epoch──► ended
//!   │ retry, stream                 │ gap, events, notices, heartbeats            retry, id
//! ```
//!
//! Everything the client has not had goes out in one write. When its socket is full the body is not polled, so a slow
//! client costs its cursor and its socket's buffer, and falls behind until the ring tells it `gap`.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};
use news::{Cursor, Epoch, Seq};
use tokio::time::Instant;
use wire::{Hello, Missed, Resume, Verdict};

use crate::{
    filter::{Filter, Since},
    hub::Place,
    shard::{Call, Shard},
    sse,
};

/// Bytes of one write, about: what a poll may cost the other clients of the worker.
const WRITE_BYTES_MAX: usize = 32 * 1024;
/// Polls in a second that nobody asked for. A client that pipelines requests on its open stream makes actix poll for
/// ever; an honest one causes a handful.
const SPURIOUS_MAX: u32 = 1000;
/// First wait of a client that loses its stream, in milliseconds; drawn for each.
const RETRY_MS: std::ops::Range<u64> = 1000..3000;
/// The same when we end the stream ourselves.
const RETRY_DRAIN_MS: std::ops::Range<u64> = 500..5000;

/// What a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The id it comes with, as sent.
    pub(crate) requested: Option<String>,
    pub(crate) since: Option<Since>,
    pub(crate) snapshot: u64,
    pub(crate) filter: Filter,
}

/// One client's stream.
pub(crate) struct Subscriber {
    shard: Rc<Shard>,
    slot: usize,
    _place: Place,
    wish: Wish,
    stage: Stage,
    epoch: Option<Epoch>,
    generation: u64,
    cursor: Seq,
    notice: u64,
    /// More is ready, but the other clients of this worker come first.
    breathe: bool,
    spurious: u32,
    spurious_since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has been said.
    New,
    /// It waits for the ring; `told` when it has had its `stream` event.
    Waiting {
        told: bool,
    },
    Live,
    Ended,
}

/// The client keeps its connection busy without reading: it is cut off.
#[derive(Debug, thiserror::Error)]
#[error("the client pipelines requests on its open stream")]
pub(crate) struct Spinning;

impl Subscriber {
    pub(crate) fn new(shard: Rc<Shard>, place: Place, wish: Wish) -> Self {
        let now = Instant::now();
        Self {
            slot: shard.enter(),
            notice: shard.hub.notices.next(),
            shard,
            _place: place,
            wish,
            stage: Stage::New,
            epoch: None,
            generation: 0,
            cursor: Seq::NONE,
            breathe: false,
            spurious: 0,
            spurious_since: now,
        }
    }

    /// What is to be written now, if anything.
    fn next(&mut self, call: Call) -> Option<Bytes> {
        if call.leave && self.stage != Stage::Ended {
            return Some(self.end("drain"));
        }
        match self.stage {
            Stage::New => Some(self.greet()),
            Stage::Waiting { told } => self.open(told).or_else(|| call.beat.then(|| sse::comment("waiting"))),
            Stage::Live => self.read_on().or_else(|| call.beat.then(|| self.beat())),
            Stage::Ended => None,
        }
    }

    /// The first block: how long to wait after a loss, and what became of the id, as soon as that is known.
    fn greet(&mut self) -> Bytes {
        let retry = fastrand::u64(RETRY_MS);
        let fresh = self.wish.requested.is_none();
        let state = self.shard.hub.ring.state();
        let (filled, told) = (state.filled, fresh);
        if filled {
            self.stage = Stage::Waiting { told: false };
            let rest = self.open(false).unwrap_or_default();
            return join(format!("retry: {retry}\n").as_bytes(), &rest);
        }
        self.stage = Stage::Waiting { told };
        let mut bytes = BytesMut::from(format!("retry: {retry}\n").as_bytes());
        if told {
            // It wants what is new, and what is kept when we have it: that can be said without the daemon.
            self.count_resume(Resume::Live);
            let hello = Hello {
                resume: Resume::Live,
                requested: None,
                oldest: None,
                head: None,
                missed: Some(0),
                server: SERVER.to_owned(),
            };
            bytes.extend_from_slice(&sse::block("stream", &hello));
        } else {
            bytes.extend_from_slice(b": waiting for the ingestion daemon\n");
        }
        bytes.freeze()
    }

    /// Decides where the client goes on, once the ring is filled.
    fn open(&mut self, told: bool) -> Option<Bytes> {
        let hub = &self.shard.hub;
        let state = hub.ring.state();
        let standing = state.standing.filter(|_| state.filled)?;
        let requested = self.wish.requested.as_deref();
        let verdict = standing.judge(requested);
        let Verdict { resume, after, .. } = verdict;
        let filter = &self.wish.filter;
        self.generation = state.generation;
        self.epoch = Some(standing.epoch.clone());
        self.cursor = match (after, self.wish.since) {
            (Some(after), _) => after,
            (None, Some(since)) if resume == Resume::Live => {
                hub.ring.before_instant(since.instant(hub.now()))
            }
            (None, _) => hub.ring.before_newest(self.wish.snapshot, filter),
        };
        self.stage = Stage::Live;
        let place = Cursor { epoch: standing.epoch.clone(), seq: self.cursor };
        if told {
            let events = self.read_on().unwrap_or_default();
            return Some(join(&sse::id_only(&place), &events));
        }
        self.count_resume(resume);
        hub.numbers.missed.inc_by(verdict.missed.unwrap_or(0));
        // Its place with the first block: a client that loses the stream before its first event keeps it, and so does
        // one that forgets its id when a new connection begins with a block without one (the letter of the standard).
        let hello = sse::block("stream", &standing.hello(&verdict, requested, SERVER));
        let hello = join(format!("id: {place}\n").as_bytes(), &hello);
        let events = self.read_on().unwrap_or_default();
        Some(join(&hello, &events))
    }

    fn count_resume(&self, resume: Resume) {
        self.shard.hub.numbers.resumes.get_or_create(&[("result", resume.as_str())]).inc();
    }

    /// Everything the client has not had, as far as one write goes.
    fn read_on(&mut self) -> Option<Bytes> {
        let hub = &self.shard.hub;
        let filter = &self.wish.filter;
        let Some(taken) = hub.ring.take(self.generation, self.cursor, filter, WRITE_BYTES_MAX) else {
            return Some(self.end("epoch"));
        };
        self.cursor = taken.cursor;
        self.breathe = taken.more;
        hub.numbers.delivered.inc_by(taken.events);
        let mut bytes = taken.bytes;
        if taken.missed > 0 {
            hub.numbers.missed.inc_by(taken.missed);
            let oldest = hub.ring.state().standing.map(|s| Cursor { epoch: s.epoch, seq: s.oldest });
            bytes = join(&sse::block("gap", &Missed { missed: taken.missed, oldest }), &bytes);
        }
        if !taken.more && filter.wants_kind("source") {
            let noticed = hub.notices.take(self.notice, filter);
            self.notice = noticed.next;
            hub.numbers.notices_missed.inc_by(noticed.missed);
            if !noticed.bytes.is_empty() {
                bytes = join(&bytes, &noticed.bytes.concat());
            }
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Moves the cursor of a client past what it did not ask for, and shows that we live.
    fn beat(&self) -> Bytes {
        self.shard.hub.numbers.heartbeats.inc();
        match self.id() {
            Some(id) => sse::id_only(&id),
            None => sse::comment("waiting"),
        }
    }

    fn id(&self) -> Option<Cursor> {
        self.epoch.clone().map(|epoch| Cursor { epoch, seq: self.cursor })
    }

    /// The last block: come back a little later, and go on from here.
    fn end(&mut self, reason: &'static str) -> Bytes {
        self.stage = Stage::Ended;
        self.shard.hub.numbers.ended.get_or_create(&[("reason", reason)]).inc();
        let retry = sse::retry(fastrand::u64(RETRY_DRAIN_MS));
        match self.id() {
            Some(id) => [&retry[..], b"\n", &sse::id_only(&id)].concat().into(),
            None => retry,
        }
    }

    /// Whether actix polls without anybody having asked for it, again and again.
    fn is_spinning(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.spurious_since) > Duration::from_secs(1) {
            self.spurious_since = now;
            self.spurious = 0;
        }
        self.spurious += 1;
        self.spurious > SPURIOUS_MAX
    }
}

/// Who answers.
pub(crate) const SERVER: &str = concat!("newswire-gateway/", env!("CARGO_PKG_VERSION"));

fn join(first: &[u8], second: &[u8]) -> Bytes {
    [first, second].concat().into()
}

impl MessageBody for Subscriber {
    type Error = Spinning;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Spinning>>> {
        let this = self.get_mut();
        if this.stage == Stage::Ended {
            return Poll::Ready(None);
        }
        this.shard.park(this.slot, cx.waker());
        let call = this.shard.call(this.slot);
        if std::mem::take(&mut this.breathe) {
            this.shard.wrote(this.slot);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(bytes) = this.next(call) {
            this.shard.wrote(this.slot);
            this.shard.hub.numbers.delivered_bytes.inc_by(bytes.len() as u64);
            return Poll::Ready(Some(Ok(bytes)));
        }
        if !call.woken && this.is_spinning() {
            this.stage = Stage::Ended;
            this.shard.hub.numbers.ended.get_or_create(&[("reason", "pipelining")]).inc();
            return Poll::Ready(Some(Err(Spinning)));
        }
        Poll::Pending
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shard.leave(self.slot);
    }
}
