//! Step 13 of the life of an item: one client takes it. A body that is nothing but a cursor into the ring.
//!
//! ```text
//! opening ──the ring is filled──► live ──its turn to leave, or another epoch──► ended
//!   │ retry, stream                 │ gap, events, notices, heartbeats            retry, id
//! ```
//!
//! Everything the client has not had goes out in one write. When its socket is full the body is not polled, so a slow
//! client costs its cursor and its socket's buffer, and falls behind. What the ring no longer has then it reads from
//! the daemon's log, page by page; what that no longer has is told by a `gap` event.

use std::{
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};
use news::{Cursor, Epoch, Seq, Timestamp};
use tokio::{sync::oneshot, time::Instant};
use wire::{Gap, LogBounds, Resume, ResumeDecision, StreamOpened};

use crate::{
    connection::Connection,
    filter::{Filter, Since},
    hub::{Hub, Place},
    readers::Reader,
    replay::{self, NoPage, Page},
    ring::State,
    shard::{Call, Shard},
    sse::Frame,
    wording::Wording,
};

/// Bytes of one write, about. actix gives each connection a buffer of 8 KiB, and keeps what it grows to: in large writes
/// only, a hundred items at once would cost every client 32 KiB for as long as it stays.
const WRITE_BYTES: usize = 8 * 1024 - 16;
/// The same for the first write, which goes out with the head of the answer.
const WRITE_BYTES_FIRST: usize = 6 * 1024;
/// Where writes end up that double, as the buffer does, while a client is far behind: what a poll may cost the other
/// clients of the worker.
const WRITE_BYTES_MAX: usize = 30 * 1024;
/// Events left after a write that make a client far behind: then speed counts, as everybody may be back at once.
const FAR_BEHIND: u64 = 256;
/// Polls in a second that nobody asked for. A client that pipelines requests on its open stream makes actix poll for
/// ever; an honest one causes a handful.
const SPURIOUS_MAX: u32 = 1000;
/// Pages that may be refused in a row before the client is told of a gap and goes on with what is here.
const REFUSALS_MAX: u32 = 5;
/// How long after a refusal the page is asked for again.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
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
    pub(crate) wording: Wording,
}

/// One client's stream.
pub(crate) struct Subscriber {
    shard: Rc<Shard>,
    slot: usize,
    /// Who it is, for the watchdog.
    peer: Arc<str>,
    _place: Place,
    wish: Wish,
    stage: Stage,
    epoch: Option<Epoch>,
    generation: u64,
    cursor: Seq,
    book: Book,
    /// How much the next write takes, about.
    write_bytes: usize,
    /// Pages refused in a row.
    refusals: u32,
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
    /// It waits for the ring. Told at that moment that it is `live`, or not told anything yet.
    Waiting {
        told: Option<Timestamp>,
    },
    Live,
    Ended,
}

/// The client keeps its connection busy without reading: it is cut off.
#[derive(Debug, thiserror::Error)]
#[error("the client pipelines requests on its open stream")]
pub(crate) struct Spinning;

impl Subscriber {
    pub(crate) fn new(
        shard: Rc<Shard>,
        connection: Rc<Connection>,
        place: Place,
        wish: Wish,
        reader: Reader,
    ) -> Self {
        let now = Instant::now();
        Self {
            peer: Arc::clone(&connection.peer),
            slot: shard.enter(connection, reader),
            notice: shard.hub.notices.next(),
            shard,
            _place: place,
            wish,
            stage: Stage::New,
            epoch: None,
            generation: 0,
            cursor: Seq::NONE,
            book: Book::Closed,
            write_bytes: WRITE_BYTES_FIRST,
            refusals: 0,
            breathe: false,
            spurious: 0,
            spurious_since: now,
        }
    }

    /// What is to be written now, if anything.
    fn next(&mut self, call: Call, cx: &mut Context<'_>) -> Option<Bytes> {
        if call.expired && self.stage != Stage::Ended {
            return Some(self.end("expired"));
        }
        if call.leave && self.stage != Stage::Ended {
            return Some(self.end("drain"));
        }
        match self.stage {
            Stage::New => Some(self.greet(cx)),
            Stage::Waiting { told } => self.open(told, None, cx).or_else(|| call.beat.then(|| self.beat())),
            Stage::Live => self.read_on(cx).or_else(|| call.beat.then(|| self.beat())),
            Stage::Ended => None,
        }
    }

    /// The first block: how long to wait after a loss, and what became of the id, as soon as that is known.
    fn greet(&mut self, cx: &mut Context<'_>) -> Bytes {
        let retry = fastrand::u64(RETRY_MS);
        let fresh = self.wish.requested.is_none();
        let state = self.shard.hub.ring.state();
        if state.filled {
            self.stage = Stage::Waiting { told: None };
            return self.open(None, Some(retry), cx).unwrap_or_default();
        }
        self.stage = Stage::Waiting { told: fresh.then(|| self.shard.hub.now()) };
        if !fresh {
            return self.wish.wording.waiting(retry);
        }
        // It wants what is new, and what is kept when we have it: that can be said without the daemon.
        self.count_resume(Resume::Live);
        let hello = StreamOpened {
            resume: Resume::Live,
            requested: None,
            oldest: None,
            head: None,
            missed: Some(0),
            server: SERVER.to_owned(),
        };
        self.wish.wording.hello(Some(retry), None, &hello)
    }

    /// Decides where the client goes on, once the ring is filled.
    fn open(&mut self, told: Option<Timestamp>, retry: Option<u64>, cx: &mut Context<'_>) -> Option<Bytes> {
        let hub = &self.shard.hub;
        let state = hub.ring.state();
        let standing = state.standing.clone().filter(|_| state.filled)?;
        let requested = self.wish.requested.as_deref();
        let verdict = standing.resolve_cursor(requested);
        let ResumeDecision { resume, after, .. } = verdict;
        self.generation = state.generation;
        self.epoch = Some(standing.epoch.clone());
        (self.cursor, self.book) = match (after, self.wish.since) {
            (Some(after), _) => (after, Book::Closed),
            (None, Some(since)) if resume == Resume::Live => {
                place_at(since.instant(hub.now()), hub, &state, &standing)
            }
            (None, _) => {
                let newest = (hub.ring.before_newest(self.wish.snapshot, &self.wish.filter), Book::Closed);
                // Whoever was told that it is live gets everything since, however late the daemon came.
                told.map(|told| place_at(told, hub, &state, &standing))
                    .filter(|(place, _)| *place < newest.0)
                    .unwrap_or(newest)
            }
        };
        self.stage = Stage::Live;
        let place = Cursor { epoch: standing.epoch.clone(), seq: self.cursor };
        let wording = self.wish.wording;
        let (subscriber, missed) = (&self.peer, verdict.missed);
        tracing::debug!(%subscriber, cursor = %place, status = resume.as_str(), missed, "placed a subscriber");
        let first = if told.is_some() {
            wording.heartbeat(Some(&place))
        } else {
            self.count_resume(resume);
            hub.numbers.missed.inc_by(verdict.missed.unwrap_or(0));
            wording.hello(retry, Some(&place), &standing.stream_opened(&verdict, requested, SERVER))
        };
        let events = self.read_on(cx).unwrap_or_default();
        Some(join(&first, &events, &[]))
    }

    fn count_resume(&self, resume: Resume) {
        self.shard.hub.numbers.resumes.get_or_create(&[("result", resume.as_str())]).inc();
    }

    /// Everything the client has not had, as far as one write goes.
    fn read_on(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        loop {
            match self.read_book(cx) {
                Read::Some(bytes) => return Some(bytes),
                Read::Wait => return None,
                Read::Through => {}
            }
            let hub = &self.shard.hub;
            let filter = &self.wish.filter;
            let Some(taken) =
                hub.ring.take(self.generation, self.cursor, filter, self.wish.wording, self.write_bytes)
            else {
                return Some(self.end("epoch"));
            };
            if taken.missed > 0 && self.refusals < REFUSALS_MAX {
                self.order_page();
                continue;
            }
            self.cursor = taken.cursor;
            self.breathe = taken.more;
            self.write_bytes = match taken.behind {
                0..=FAR_BEHIND => WRITE_BYTES,
                _ => (2 * self.write_bytes).min(WRITE_BYTES_MAX),
            };
            self.refusals = 0;
            hub.numbers.delivered.inc_by(taken.events);
            let gap = self.gap(taken.missed, taken.cursor_before);
            let notices = if taken.more { Vec::new() } else { self.read_notices() };
            let bytes = join(&gap, &taken.bytes, &notices);
            return (!bytes.is_empty()).then_some(bytes);
        }
    }

    /// Tells what is lost, if anything is, and the event it goes on with.
    fn gap(&self, missed: u64, before: Seq) -> Bytes {
        if missed == 0 {
            return Bytes::new();
        }
        self.shard.hub.numbers.missed.inc_by(missed);
        tracing::debug!(subscriber = %self.peer, missed, "told a subscriber of a gap");
        let oldest = self.epoch.clone().map(|epoch| Cursor { epoch, seq: before.next() });
        self.wish.wording.event("gap", &Gap { missed, oldest })
    }

    fn read_notices(&mut self) -> Vec<u8> {
        let (hub, filter) = (&self.shard.hub, &self.wish.filter);
        let noticed = hub.notices.take(self.notice, filter, self.wish.wording);
        self.notice = noticed.next;
        hub.numbers.notices_missed.inc_by(noticed.missed);
        noticed.bytes
    }

    /// Asks the daemon for what the ring no longer has.
    fn order_page(&mut self) {
        if let Some(id) = self.id() {
            self.book = Book::Ordered(self.shard.hub.replays.order(replay::From::After(id)));
            self.shard.hub.numbers.pages.inc();
        }
    }

    /// What has come from the daemon's log.
    fn read_book(&mut self, cx: &mut Context<'_>) -> Read {
        loop {
            match &mut self.book {
                Book::Closed => return Read::Through,
                Book::Paused(pause) => match pause.as_mut().poll(cx) {
                    Poll::Pending => return Read::Wait,
                    Poll::Ready(()) => self.book = Book::Closed,
                },
                Book::Ordered(answer) => match Pin::new(answer).poll(cx) {
                    Poll::Pending => return Read::Wait,
                    Poll::Ready(Ok(Ok(page))) if !page.frames.is_empty() => {
                        self.book = Book::Open(page.into())
                    }
                    Poll::Ready(_) => {
                        self.refusals += 1;
                        self.book = Book::Paused(Box::pin(tokio::time::sleep(REFUSAL_PAUSE)));
                    }
                },
                Book::Open(pages) if pages.frames.is_empty() => {
                    self.refusals = 0;
                    self.book = Book::Closed;
                }
                Book::Open(pages) => {
                    let (missed, before) = (std::mem::take(&mut pages.missed), self.cursor);
                    let taken = pages.take(&self.wish.filter, self.wish.wording);
                    self.breathe = !pages.frames.is_empty();
                    self.cursor = taken.cursor;
                    self.shard.hub.numbers.delivered.inc_by(taken.events);
                    let gap = self.gap(missed, Seq(before.0 + missed));
                    let bytes = join(&gap, &taken.bytes, &[]);
                    if !bytes.is_empty() {
                        return Read::Some(bytes);
                    }
                }
            }
        }
    }

    /// Moves the cursor of a client past what it did not ask for, and shows that we live.
    fn beat(&self) -> Bytes {
        self.shard.hub.numbers.heartbeats.inc();
        self.wish.wording.heartbeat(self.id().as_ref())
    }

    fn id(&self) -> Option<Cursor> {
        self.epoch.clone().map(|epoch| Cursor { epoch, seq: self.cursor })
    }

    /// The last block: come back a little later, and go on from here.
    fn end(&mut self, reason: &'static str) -> Bytes {
        self.stage = Stage::Ended;
        self.shard.hub.numbers.ended.get_or_create(&[("reason", reason)]).inc();
        self.wish.wording.end(fastrand::u64(RETRY_DRAIN_MS), self.id().as_ref())
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

/// The place after everything that was recorded before `instant`; where the ring begins later, the daemon is asked.
fn place_at(instant: Timestamp, hub: &Hub, state: &State, standing: &LogBounds) -> (Seq, Book) {
    let place = hub.ring.before_instant(instant);
    if place.next() != state.oldest || standing.oldest == state.oldest {
        return (place, Book::Closed);
    }
    (Seq(standing.oldest.0 - 1), Book::Ordered(hub.replays.order(replay::From::Since(instant))))
}

/// Who answers.
pub(crate) const SERVER: &str = concat!("newswire-gateway/", env!("CARGO_PKG_VERSION"));

/// One chunk of several; the usual one, of a single event, is not copied.
fn join(before: &[u8], bytes: &Bytes, after: &[u8]) -> Bytes {
    if before.is_empty() && after.is_empty() { bytes.clone() } else { [before, bytes, after].concat().into() }
}

/// What the client reads before the ring.
enum Book {
    /// It reads the ring.
    Closed,
    /// A page has been asked for.
    Ordered(oneshot::Receiver<Result<Page, NoPage>>),
    /// There was none; a little later it is asked for again.
    Paused(Pin<Box<tokio::time::Sleep>>),
    /// A page that it is reading.
    Open(Pages),
}

struct Pages {
    frames: VecDeque<Arc<Frame>>,
    missed: u64,
}

/// Part of a page.
struct Leaf {
    bytes: Bytes,
    events: u64,
    cursor: Seq,
}

/// What the book has for the client.
enum Read {
    Some(Bytes),
    /// Nothing yet.
    Wait,
    /// Nothing more: the ring goes on from here.
    Through,
}

impl From<Page> for Pages {
    fn from(page: Page) -> Self {
        Self { frames: page.frames.into(), missed: page.missed }
    }
}

impl Pages {
    /// As much as one write takes; always something.
    fn take(&mut self, filter: &Filter, wording: Wording) -> Leaf {
        let mut bytes = BytesMut::new();
        let mut leaf = Leaf { bytes: Bytes::new(), events: 0, cursor: Seq::NONE };
        while let Some(frame) = self.frames.front() {
            if filter.wants(frame) {
                let block = wording.frame(frame);
                if !bytes.is_empty() && bytes.len() + block.len() > WRITE_BYTES_MAX {
                    break;
                }
                bytes.extend_from_slice(&block);
                leaf.events += 1;
            }
            leaf.cursor = frame.seq;
            self.frames.pop_front();
        }
        leaf.bytes = bytes.freeze();
        leaf
    }
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
        let _at_work = daemon::work::on("GET /news/stream", Arc::clone(&this.peer));
        this.shard.listen(this.slot, cx.waker());
        let call = this.shard.call(this.slot);
        if std::mem::take(&mut this.breathe) {
            this.shard.wrote(this.slot, this.cursor);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(bytes) = this.next(call, cx) {
            this.shard.wrote(this.slot, this.cursor);
            this.shard.hub.numbers.delivered_bytes.inc_by(bytes.len() as u64);
            return Poll::Ready(Some(Ok(bytes)));
        }
        if !call.woken && this.is_spinning() {
            this.stage = Stage::Ended;
            this.shard.hub.numbers.ended.get_or_create(&[("reason", "pipelining")]).inc();
            return Poll::Ready(Some(Err(Spinning)));
        }
        this.shard.rest(this.slot, this.cursor);
        Poll::Pending
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shard.leave(self.slot);
        let cursor = self.id().map(tracing::field::display);
        tracing::debug!(subscriber = %self.peer, cursor, "a subscriber left");
    }
}
