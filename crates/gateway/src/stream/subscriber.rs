//! Step 13 of the life of an item: one client takes it. A body that is little more than a cursor into the ring.
//!
//! ```text
//! new ──the ring is filled──► live ──drain, expired token or another epoch──► ended
//!   │ retry, stream             │ gap, events, notices, heartbeats              retry, id
//! ```
//!
//! Everything the client has not had goes out in one write. While its socket is full the body is not polled: a slow
//! client costs its cursor and its socket's buffer, and falls behind. Events that the ring no longer has are read from
//! the daemon's log, page by page; a `gap` event reports those that the log no longer has either.

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

use super::{
    admission::StreamPermit,
    encoding::StreamFormat,
    filter::{EventFilter, Since},
    frame::Frame,
    replay::{ReplayPage, ReplayStart, ReplayUnavailable},
    ring::RingState,
    worker_streams::{WakeReason, WorkerStreams},
};
use crate::{auth::authenticator::AuthorisedReader, connection::ClientConnection, state::AppState};

/// Bytes per write, about. actix gives each connection a buffer of 8 KiB, and keeps what it grows to: larger writes
/// would cost every client 32 KiB for the life of its stream as soon as a hundred items come at once.
const WRITE_BYTES: usize = 8 * 1024 - 16;
/// The same for the first write, which goes out with the head of the response.
const WRITE_BYTES_FIRST: usize = 6 * 1024;
/// While a client is far behind, writes double up to this, and the buffer with them: the bound of what one poll may
/// cost the other clients of the worker.
const WRITE_BYTES_MAX: usize = 30 * 1024;
/// A client with more events than this left after a write is far behind: then speed counts, as all clients may have
/// reconnected at once.
const FAR_BEHIND: u64 = 256;
/// Unrequested polls per second. A client that pipelines requests on its open stream makes actix poll in a
/// busy loop; other clients cause a handful.
const SPURIOUS_POLLS_MAX: u32 = 1000;
/// Failed pages in a row after which the client gets a gap and continues with the ring.
const PAGE_FAILURES_MAX: u32 = 5;
/// How long after a failure the page is requested again.
const PAGE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a client waits before it reconnects, in milliseconds; random for each client.
const RETRY_MS: std::ops::Range<u64> = 1000..3000;
/// The same when the gateway ends the stream.
const RETRY_DRAIN_MS: std::ops::Range<u64> = 500..5000;

/// What a client requests.
#[derive(Clone, Debug)]
pub(crate) struct StreamRequest {
    /// The id that it resumes after, as sent.
    pub(crate) requested: Option<String>,
    pub(crate) since: Option<Since>,
    pub(crate) snapshot: u64,
    pub(crate) filter: EventFilter,
    pub(crate) format: StreamFormat,
}

/// One client's stream.
pub(crate) struct StreamSubscriber {
    streams: Rc<WorkerStreams>,
    /// The key in [`WorkerStreams`].
    key: usize,
    /// The client, as the watchdog shows it.
    peer: Arc<str>,
    _permit: StreamPermit,
    request: StreamRequest,
    stage: Stage,
    epoch: Option<Epoch>,
    generation: u64,
    cursor: Seq,
    replay: Replay,
    /// How many bytes the next write has, about.
    write_bytes: usize,
    /// Failed pages in a row.
    page_failures: u32,
    /// The number of the next notice.
    next_notice: u64,
    /// More is ready, but the other clients of this worker come first.
    yield_now: bool,
    spurious_polls: u32,
    spurious_since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent.
    New,
    /// The ring is not filled yet.
    Waiting {
        /// When the client was told `live`, if it has been.
        live_since: Option<Timestamp>,
    },
    Live,
    Ended,
}

/// The client keeps its connection busy without reading: the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("the client pipelines requests on its open stream")]
pub(crate) struct PipelinedRequests;

impl StreamSubscriber {
    pub(crate) fn new(
        streams: Rc<WorkerStreams>,
        connection: Rc<ClientConnection>,
        permit: StreamPermit,
        request: StreamRequest,
        reader: AuthorisedReader,
    ) -> Self {
        let now = Instant::now();
        Self {
            peer: Arc::clone(&connection.peer),
            key: streams.insert(connection, reader),
            next_notice: streams.state.notices.next(),
            streams,
            _permit: permit,
            request,
            stage: Stage::New,
            epoch: None,
            generation: 0,
            cursor: Seq::NONE,
            replay: Replay::Idle,
            write_bytes: WRITE_BYTES_FIRST,
            page_failures: 0,
            yield_now: false,
            spurious_polls: 0,
            spurious_since: now,
        }
    }

    /// What is to be written now, if anything.
    fn next(&mut self, wake: WakeReason, cx: &mut Context<'_>) -> Option<Bytes> {
        if wake.expired && self.stage != Stage::Ended {
            return Some(self.end("expired"));
        }
        if wake.drain && self.stage != Stage::Ended {
            return Some(self.end("drain"));
        }
        let bytes = match self.stage {
            Stage::New => return Some(self.send_hello(cx)),
            Stage::Waiting { live_since } => self.open(live_since, None, cx),
            Stage::Live => self.read_events(cx),
            Stage::Ended => return None,
        };
        bytes.or_else(|| wake.heartbeat.then(|| self.heartbeat()))
    }

    /// The first block: how long to wait before a reconnect, and the result of the resumption as soon as it is known.
    fn send_hello(&mut self, cx: &mut Context<'_>) -> Bytes {
        let retry = fastrand::u64(RETRY_MS);
        if self.streams.state.ring.state().filled {
            self.stage = Stage::Waiting { live_since: None };
            return self.open(None, Some(retry), cx).unwrap_or_default();
        }
        if self.request.requested.is_some() {
            self.stage = Stage::Waiting { live_since: None };
            return self.request.format.waiting(retry);
        }
        // A client without an id is live whatever the log holds: that needs no daemon.
        self.stage = Stage::Waiting { live_since: Some(self.streams.state.now()) };
        self.count_resume(Resume::Live);
        let hello = StreamOpened {
            resume: Resume::Live,
            requested: None,
            oldest: None,
            head: None,
            missed: Some(0),
            server: SERVER.to_owned(),
        };
        self.request.format.hello(Some(retry), None, &hello)
    }

    /// Resolves the client's cursor, once the ring is filled.
    fn open(
        &mut self,
        live_since: Option<Timestamp>,
        retry: Option<u64>,
        cx: &mut Context<'_>,
    ) -> Option<Bytes> {
        let state = &self.streams.state;
        let ring = state.ring.state();
        let bounds = ring.log_bounds.clone().filter(|_| ring.filled)?;
        let requested = self.request.requested.as_deref();
        let decision = bounds.resolve_cursor(requested);
        let ResumeDecision { resume, after, .. } = decision;
        self.generation = ring.generation;
        self.epoch = Some(bounds.epoch.clone());
        (self.cursor, self.replay) = match (after, self.request.since) {
            (Some(after), _) => (after, Replay::Idle),
            (None, Some(since)) if resume == Resume::Live => {
                start_at(since.instant(state.now()), state, &ring, &bounds)
            }
            (None, _) => {
                let snapshot =
                    (state.ring.before_newest(self.request.snapshot, &self.request.filter), Replay::Idle);
                // A client that was told `live` gets everything since then, however late the daemon started.
                live_since
                    .map(|since| start_at(since, state, &ring, &bounds))
                    .filter(|(cursor, _)| *cursor < snapshot.0)
                    .unwrap_or(snapshot)
            }
        };
        self.stage = Stage::Live;
        let cursor = Cursor { epoch: bounds.epoch.clone(), seq: self.cursor };
        let format = self.request.format;
        let (subscriber, missed) = (&self.peer, decision.missed);
        tracing::debug!(%subscriber, %cursor, status = resume.as_str(), missed, "resolved a subscriber's cursor");
        let first = if live_since.is_some() {
            format.heartbeat(Some(&cursor))
        } else {
            self.count_resume(resume);
            state.metrics.missed.inc_by(decision.missed.unwrap_or(0));
            format.hello(retry, Some(&cursor), &bounds.stream_opened(&decision, requested, SERVER))
        };
        let events = self.read_events(cx).unwrap_or_default();
        Some(join(&first, &events, &[]))
    }

    fn count_resume(&self, resume: Resume) {
        self.streams.state.metrics.resumes.get_or_create(&[("result", resume.as_str())]).inc();
    }

    /// Everything that the client has not had, up to the size of a write.
    fn read_events(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        loop {
            match self.read_replay(cx) {
                ReplayPoll::Ready(bytes) => return Some(bytes),
                ReplayPoll::Pending => return None,
                ReplayPoll::Done => {}
            }
            let state = &self.streams.state;
            let StreamRequest { filter, format, .. } = &self.request;
            let batch =
                state.ring.read_after(self.generation, self.cursor, filter, *format, self.write_bytes);
            let Some(batch) = batch else { return Some(self.end("epoch")) };
            if batch.missed > 0 && self.page_failures < PAGE_FAILURES_MAX {
                self.request_page();
                continue;
            }
            self.cursor = batch.cursor;
            self.yield_now = batch.more;
            self.write_bytes = match batch.behind {
                0..=FAR_BEHIND => WRITE_BYTES,
                _ => (2 * self.write_bytes).min(WRITE_BYTES_MAX),
            };
            self.page_failures = 0;
            state.metrics.delivered.inc_by(batch.events);
            let gap = self.gap(batch.missed, batch.cursor_before);
            let notices = if batch.more { Vec::new() } else { self.read_notices() };
            let bytes = join(&gap, &batch.bytes, &notices);
            return (!bytes.is_empty()).then_some(bytes);
        }
    }

    /// The `gap` event, if anything is missed: how many events, and the oldest that follows.
    fn gap(&self, missed: u64, before: Seq) -> Bytes {
        if missed == 0 {
            return Bytes::new();
        }
        self.streams.state.metrics.missed.inc_by(missed);
        tracing::debug!(subscriber = %self.peer, missed, "sent a gap to a subscriber");
        let oldest = self.epoch.clone().map(|epoch| Cursor { epoch, seq: before.next() });
        self.request.format.event("gap", &Gap { missed, oldest })
    }

    fn read_notices(&mut self) -> Vec<u8> {
        let state = &self.streams.state;
        let batch = state.notices.read_from(self.next_notice, &self.request.filter, self.request.format);
        self.next_notice = batch.next;
        state.metrics.notices_missed.inc_by(batch.missed);
        batch.bytes
    }

    /// Requests the events that the ring no longer has.
    fn request_page(&mut self) {
        if let Some(cursor) = self.cursor() {
            let state = &self.streams.state;
            self.replay = Replay::Requested(state.replays.request(ReplayStart::After(cursor)));
            state.metrics.pages.inc();
        }
    }

    /// What the daemon's log has for the client.
    fn read_replay(&mut self, cx: &mut Context<'_>) -> ReplayPoll {
        loop {
            match &mut self.replay {
                Replay::Idle => return ReplayPoll::Done,
                Replay::BackingOff(timer) => match timer.as_mut().poll(cx) {
                    Poll::Pending => return ReplayPoll::Pending,
                    Poll::Ready(()) => self.replay = Replay::Idle,
                },
                Replay::Requested(answer) => match Pin::new(answer).poll(cx) {
                    Poll::Pending => return ReplayPoll::Pending,
                    Poll::Ready(Ok(Ok(page))) if !page.frames.is_empty() => {
                        self.replay = Replay::Reading(page.into())
                    }
                    Poll::Ready(_) => {
                        self.page_failures += 1;
                        self.replay = Replay::BackingOff(Box::pin(tokio::time::sleep(PAGE_RETRY_AFTER)));
                    }
                },
                Replay::Reading(page) if page.frames.is_empty() => {
                    self.page_failures = 0;
                    self.replay = Replay::Idle;
                }
                Replay::Reading(page) => {
                    let (missed, before) = (std::mem::take(&mut page.missed), self.cursor);
                    let batch = page.read(&self.request.filter, self.request.format);
                    self.yield_now = !page.frames.is_empty();
                    self.cursor = batch.cursor;
                    self.streams.state.metrics.delivered.inc_by(batch.events);
                    let gap = self.gap(missed, Seq(before.0 + missed));
                    let bytes = join(&gap, &batch.bytes, &[]);
                    if !bytes.is_empty() {
                        return ReplayPoll::Ready(bytes);
                    }
                }
            }
        }
    }

    /// Moves the client's cursor past the events that its filter left out, and proves the connection.
    fn heartbeat(&self) -> Bytes {
        self.streams.state.metrics.heartbeats.inc();
        self.request.format.heartbeat(self.cursor().as_ref())
    }

    /// Where the client is; `None` before that is resolved.
    fn cursor(&self) -> Option<Cursor> {
        self.epoch.clone().map(|epoch| Cursor { epoch, seq: self.cursor })
    }

    /// The last block: when to reconnect, and the id to resume from.
    fn end(&mut self, reason: &'static str) -> Bytes {
        self.stage = Stage::Ended;
        self.streams.state.metrics.ended.get_or_create(&[("reason", reason)]).inc();
        self.request.format.end(fastrand::u64(RETRY_DRAIN_MS), self.cursor().as_ref())
    }

    /// Counts an unrequested poll; returns whether there are too many.
    fn is_busy_loop(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.spurious_since) > Duration::from_secs(1) {
            self.spurious_since = now;
            self.spurious_polls = 0;
        }
        self.spurious_polls += 1;
        self.spurious_polls > SPURIOUS_POLLS_MAX
    }
}

/// The cursor before the first event recorded since `instant`; if that may be below the ring, the daemon looks it up.
fn start_at(instant: Timestamp, state: &AppState, ring: &RingState, bounds: &LogBounds) -> (Seq, Replay) {
    let cursor = state.ring.before_instant(instant);
    if cursor.next() != ring.oldest || bounds.oldest == ring.oldest {
        return (cursor, Replay::Idle);
    }
    let page = state.replays.request(ReplayStart::Since(instant));
    (Seq(bounds.oldest.0 - 1), Replay::Requested(page))
}

/// The `server` of the `stream` event.
const SERVER: &str = concat!("newswire-gateway/", env!("CARGO_PKG_VERSION"));

/// Joins chunks for one write; the usual one, of a single event, is not copied.
fn join(before: &[u8], bytes: &Bytes, after: &[u8]) -> Bytes {
    if before.is_empty() && after.is_empty() { bytes.clone() } else { [before, bytes, after].concat().into() }
}

/// What the client reads from the daemon's log before it reads the ring.
enum Replay {
    /// It reads the ring.
    Idle,
    /// A page was requested.
    Requested(oneshot::Receiver<Result<ReplayPage, ReplayUnavailable>>),
    /// The page was unavailable, and is requested again a little later.
    BackingOff(Pin<Box<tokio::time::Sleep>>),
    /// It reads a page.
    Reading(PendingPage),
}

/// What is left of a page.
struct PendingPage {
    frames: VecDeque<Arc<Frame>>,
    missed: u64,
}

/// Part of a page.
struct PageBatch {
    bytes: Bytes,
    events: u64,
    cursor: Seq,
}

/// What the replay has for the client.
enum ReplayPoll {
    Ready(Bytes),
    /// Nothing yet.
    Pending,
    /// Nothing more: the ring continues from here.
    Done,
}

impl From<ReplayPage> for PendingPage {
    fn from(page: ReplayPage) -> Self {
        Self { frames: page.frames.into(), missed: page.missed }
    }
}

impl PendingPage {
    /// The next frames, up to the size of a write, but at least one.
    fn read(&mut self, filter: &EventFilter, format: StreamFormat) -> PageBatch {
        let mut bytes = BytesMut::new();
        let mut batch = PageBatch { bytes: Bytes::new(), events: 0, cursor: Seq::NONE };
        while let Some(frame) = self.frames.front() {
            if filter.matches(frame) {
                let block = format.frame(frame);
                if !bytes.is_empty() && bytes.len() + block.len() > WRITE_BYTES_MAX {
                    break;
                }
                bytes.extend_from_slice(&block);
                batch.events += 1;
            }
            batch.cursor = frame.seq;
            self.frames.pop_front();
        }
        batch.bytes = bytes.freeze();
        batch
    }
}

impl MessageBody for StreamSubscriber {
    type Error = PipelinedRequests;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, PipelinedRequests>>> {
        let this = self.get_mut();
        if this.stage == Stage::Ended {
            return Poll::Ready(None);
        }
        let _task = daemon::work::on("GET /news/stream", Arc::clone(&this.peer));
        this.streams.set_waker(this.key, cx.waker());
        let wake = this.streams.wake_reason(this.key);
        if std::mem::take(&mut this.yield_now) {
            this.streams.on_written(this.key, this.cursor);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(bytes) = this.next(wake, cx) {
            this.streams.on_written(this.key, this.cursor);
            this.streams.state.metrics.delivered_bytes.inc_by(bytes.len() as u64);
            return Poll::Ready(Some(Ok(bytes)));
        }
        if !wake.woken && this.is_busy_loop() {
            this.stage = Stage::Ended;
            this.streams.state.metrics.ended.get_or_create(&[("reason", "pipelining")]).inc();
            return Poll::Ready(Some(Err(PipelinedRequests)));
        }
        this.streams.on_idle(this.key, this.cursor);
        Poll::Pending
    }
}

impl Drop for StreamSubscriber {
    fn drop(&mut self) {
        self.streams.remove(self.key);
        let cursor = self.cursor().map(tracing::field::display);
        tracing::debug!(subscriber = %self.peer, cursor, "a subscriber disconnected");
    }
}
