//! Step 13 of the life of an item: one client takes it. A body that is little more than a cursor into the ring.
//!
//! ```text
//! new ──the ring is filled──► opening ──the start is found──► live ──drain, expired token, other epoch──► ended
//!   │ retry, stream              │ stream                      │ gap, events, live, notices, heartbeats   retry, id
//! ```
//!
//! While its socket is full the body is not polled: a slow client costs its cursor and its socket's buffer, and falls
//! behind. Events that the ring no longer has are read from the daemon's log, page by page; while the daemon is away, the
//! client is held with heartbeats. Only what the log does not have is a `gap`. Never here: a turn without an end
//! ([`Turn`]).

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use news::{Cursor, Epoch, Seq, Timestamp};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};
use wire::{Gap, IdAlias, LogBounds, Resume, ResumeDecision, StreamOpened};

use super::{
    admission::StreamPermit,
    encoding::{BlockForm, HeartbeatData, LiveData},
    filter::{EventFilter, Since},
    frame::Frame,
    outgoing::Outgoing,
    replay::{PAGE_BYTES, ReplayPage, ReplayResult, ReplayStart},
    ring::{EventBatch, NextEvents, RingPosition, RingState, SearchStep, SnapshotSearch},
    stream_waits::StreamWait,
    turn::Turn,
    worker_streams::{WakeReason, WorkerStreams},
};
use crate::{
    auth::authenticator::AuthorisedReader,
    connection::{ClientConnection, ending::StreamEnd},
    forwarder::QueueFull,
    http::query::QueryRemarks,
    pages::{
        news_page::NewsScan,
        pool::PageClient,
        snapshot::{self, SnapshotStart},
    },
    state::AppState,
    unsent::UnsentBytes,
};

/// How long after a failure the page is requested again, in milliseconds; random, as many may wait for the same daemon.
const PAGE_RETRY_MS: std::ops::Range<u64> = 750..1250;
/// How long a client waits for room for a page, in milliseconds; random, as others may wait for the same.
const ROOM_RETRY_MS: std::ops::Range<u64> = 200..600;
/// How long a client waits before it reconnects, in milliseconds; random for each client.
#[derive(Clone, Debug)]
pub(crate) struct ReconnectDelays {
    /// After its connection was lost.
    lost: std::ops::Range<u64>,
    /// After the gateway has ended the stream.
    ended: std::ops::Range<u64>,
}

impl ReconnectDelays {
    pub(crate) const USUAL: Self = Self { lost: 1000..3000, ended: 500..5000 };
    /// Through a proxy that answers 502 while the gateway is down, which ends a browser's `EventSource` for good: a restart
    /// of up to ten seconds is over before the client comes back.
    pub(crate) const BEHIND_PLAIN_PROXY: Self = Self { lost: 14_000..18_000, ended: 14_000..18_000 };
}

/// What a client requests.
#[derive(Clone, Debug)]
pub(crate) struct StreamRequest {
    /// The id that it resumes after, as sent.
    pub(crate) requested: Option<String>,
    pub(crate) since: Option<Since>,
    pub(crate) snapshot: u64,
    pub(crate) filter: EventFilter,
    pub(crate) form: BlockForm,
    /// Heartbeats are events with data.
    pub(crate) heartbeat: bool,
    /// When it reconnects.
    pub(crate) delays: ReconnectDelays,
    /// What it is told about its query.
    pub(crate) remarks: Box<QueryRemarks>,
}

/// One client's stream.
pub(crate) struct StreamSubscriber {
    streams: Rc<WorkerStreams>,
    /// The key in [`WorkerStreams`].
    key: usize,
    /// The client, as the watchdog shows it.
    peer: Arc<str>,
    permit: StreamPermit,
    request: StreamRequest,
    stage: Stage,
    epoch: Option<Epoch>,
    generation: u64,
    cursor: Seq,
    /// The newest event when the client came, until it has everything up to this one.
    live_at: Option<Seq>,
    replay: Replay,
    /// The start of a snapshot is searched for in the log, for this generation of the ring.
    snapshot: Option<(u64, SnapshotStart)>,
    /// Its address was sent too much from the past: nothing is read until then.
    hold: Option<Pin<Box<Sleep>>>,
    /// The number of the next notice.
    next_notice: u64,
    outgoing: Outgoing,
    /// What was prepared has an id, or is a heartbeat.
    has_id: bool,
    turn: Turn,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing was sent.
    New,
    /// The ring is not filled yet, or the start is still searched for, in it or in the log.
    Opening(Opening),
    Live,
    Ended,
}

/// A stream whose start is not known yet.
#[derive(Clone, Copy, Debug, Default)]
struct Opening {
    /// When the client was told `live`, if it has been.
    live_since: Option<Timestamp>,
    /// How long to wait before a reconnect, in milliseconds, if the client was not told yet.
    retry_ms: Option<u64>,
    search: Option<SnapshotSearch>,
    /// The daemon's log says that the client's id is above its head: for this generation of the ring.
    above_head: Option<u64>,
    /// Since when the client waits for its id, which is of another epoch, to get a place in this one.
    waits_since: Option<Instant>,
}

/// Where the stream of a client starts, and what it is told about its id.
struct StreamStart {
    decision: ResumeDecision,
    cursor: Seq,
    replay: Replay,
    bounds: LogBounds,
}

impl StreamSubscriber {
    pub(crate) fn new(
        streams: Rc<WorkerStreams>,
        connection: Rc<ClientConnection>,
        permit: StreamPermit,
        request: StreamRequest,
        reader: AuthorisedReader,
    ) -> Self {
        Self {
            peer: Arc::clone(&connection.peer),
            key: streams.insert(connection, reader, request.heartbeat),
            next_notice: streams.state.notices.next(),
            streams,
            permit,
            request,
            stage: Stage::New,
            epoch: None,
            generation: 0,
            cursor: Seq::NONE,
            live_at: None,
            replay: Replay::Idle,
            snapshot: None,
            hold: None,
            outgoing: Outgoing::default(),
            has_id: false,
            turn: Turn::default(),
        }
    }

    /// Prepares what is to be written now, if anything; everything before that was handed out.
    fn prepare(&mut self, wake: WakeReason, cx: &mut Context<'_>) {
        if wake.expired {
            return self.end(StreamEnd::Expired);
        }
        if wake.drain {
            return self.end(StreamEnd::Drain);
        }
        match self.stage {
            Stage::New => self.send_hello(cx),
            Stage::Opening(opening) => self.open(opening, cx),
            Stage::Live => self.read_events(cx),
            Stage::Ended => return,
        }
        self.pass_over();
        if self.outgoing.is_empty() && wake.heartbeat {
            self.heartbeat();
        }
    }

    /// The first block: how long to wait before a reconnect, and the result of the resumption as soon as it is known.
    fn send_hello(&mut self, cx: &mut Context<'_>) {
        let retry_ms = fastrand::u64(self.request.delays.lost.clone());
        if self.streams.state.ring.state().filled {
            return self.open(Opening { retry_ms: Some(retry_ms), ..Opening::default() }, cx);
        }
        let format = self.request.form.format;
        if self.request.requested.is_some() {
            self.stage = Stage::Opening(Opening::default());
            return self.outgoing.push(format.waiting(retry_ms));
        }
        // A client without an id is live whatever the log holds: that needs no daemon.
        let live_since = Some(self.streams.state.now());
        self.stage = Stage::Opening(Opening { live_since, ..Opening::default() });
        self.count_resume(Resume::Live);
        let remarks = std::mem::take(&mut *self.request.remarks);
        let hello = StreamOpened {
            resume: Resume::Live,
            requested: None,
            oldest: None,
            head: None,
            missed: Some(0),
            server: SERVER.to_owned(),
            ignored: remarks.ignored,
            unknown: remarks.unknown,
            older_copy: false,
            newest_seen: None,
            aliases: Vec::new(),
        };
        self.outgoing.push(format.hello(Some(retry_ms), None, &hello));
    }

    /// Resolves the client's cursor, once the ring is filled.
    fn open(&mut self, mut opening: Opening, cx: &mut Context<'_>) {
        let streams = Rc::clone(&self.streams);
        let ring = streams.state.ring.state();
        let bounds = ring.log_bounds.clone().filter(|_| ring.filled);
        let start = bounds.and_then(|bounds| self.find_start(&mut opening, &ring, bounds, cx));
        let Some(StreamStart { decision, cursor, replay, bounds }) = start else {
            self.stage = Stage::Opening(opening);
            return;
        };
        (self.cursor, self.replay, self.generation) = (cursor, replay, ring.generation);
        (self.epoch, self.live_at) = (Some(bounds.epoch.clone()), Some(bounds.head.max(cursor)));
        self.stage = Stage::Live;
        self.opened(opening, &decision, &bounds);
        self.read_events(cx);
    }

    /// Finds where the stream starts; `None` if that has to be continued in another turn.
    fn find_start(
        &mut self,
        opening: &mut Opening,
        ring: &RingState,
        bounds: LogBounds,
        cx: &mut Context<'_>,
    ) -> Option<StreamStart> {
        let is_above_head = opening.above_head == Some(ring.generation);
        let requested = self.request.requested.is_some();
        let id = self.request.requested.as_deref().and_then(|id| id.parse::<Cursor>().ok());
        let known = self.resolve_epoch(opening, id, &bounds)?;
        let known =
            known.filter(|id| ring.contested_until.is_none_or(|until| id.seq > until) && !is_above_head);
        let decision = match (requested, known) {
            (false, _) => bounds.resolve_cursor(None),
            (true, None) => ResumeDecision::RESET,
            (true, Some(id)) => match self.streams.state.ring.missing_after(ring.generation, id.seq) {
                Some((missed, total)) => resumed(id.seq, missed, total),
                None => return self.find_start_in_log(opening, ring, bounds, id, cx),
            },
        };
        let state = Rc::clone(&self.streams);
        let state = &state.state;
        let (cursor, replay) = match (decision.after, self.request.since) {
            (Some(after), _) => (after, Replay::Idle),
            (None, Some(since)) => start_at(since.instant(state.now()), state, &bounds),
            (None, None) => {
                let snapshot = self.search_snapshot(opening, &bounds, cx)?;
                // A client that was told `live` gets everything since then, however late the daemon started.
                opening
                    .live_since
                    .map(|since| start_at(since, state, &bounds))
                    .filter(|(cursor, _)| *cursor < snapshot)
                    .unwrap_or((snapshot, Replay::Idle))
            }
        };
        Some(StreamStart { decision, cursor, replay, bounds })
    }

    /// The client's id in the epoch of the ring, if it has a place there; `None` if that is known later.
    fn resolve_epoch(
        &mut self,
        opening: &mut Opening,
        id: Option<Cursor>,
        bounds: &LogBounds,
    ) -> Option<Option<Cursor>> {
        let Some(id) = id else { return Some(None) };
        let waited = opening.waits_since.map_or(Duration::ZERO, |since| since.elapsed());
        match self.streams.state.aliases.resolve(&id, &bounds.epoch, waited) {
            IdAlias::At(seq) => Some(Some(Cursor { epoch: bounds.epoch.clone(), seq })),
            IdAlias::None => Some(None),
            IdAlias::NotYet => {
                opening.waits_since.get_or_insert_with(Instant::now);
                if let Some(retry_ms) = opening.retry_ms.take() {
                    self.outgoing.push(self.request.form.format.waiting(retry_ms));
                }
                None
            }
        }
    }

    /// The same for an id that the ring does not know: the log tells what became of it, with the first page. Until then
    /// the client waits, as long as the daemon is away.
    fn find_start_in_log(
        &mut self,
        opening: &mut Opening,
        ring: &RingState,
        bounds: LogBounds,
        id: Cursor,
        cx: &mut Context<'_>,
    ) -> Option<StreamStart> {
        if let Some(retry_ms) = opening.retry_ms.take() {
            self.outgoing.push(self.request.form.format.waiting(retry_ms));
        }
        if self.generation != ring.generation || !self.replay.is_active() {
            self.generation = ring.generation;
            self.replay = Replay::wanted(ReplayStart::After(id.clone()));
        }
        let Poll::Ready(Some(page)) = self.poll_page(cx) else { return None };
        if id.seq > page.head {
            (opening.above_head, self.replay) = (Some(ring.generation), Replay::Idle);
            self.turn.end();
            return None;
        }
        let lost_of_page = page.end.0.saturating_sub(id.seq.0).saturating_sub(page.frames.len() as u64);
        let of_ring = self.streams.state.ring.missing_after(ring.generation, ring.oldest.previous());
        let of_ring = of_ring.filter(|_| id.seq < ring.oldest).map_or(0, |(_, total)| total);
        let decision = resumed(id.seq, page.missed, lost_of_page + of_ring);
        let cursor = Seq(id.seq.0.saturating_add(page.missed));
        let oldest = page.oldest.min(ring.oldest);
        let bounds = LogBounds { oldest, head: bounds.head.max(id.seq), ..bounds };
        let replay = self.begin_page(page);
        Some(StreamStart { decision, cursor, replay, bounds })
    }

    /// Tells the client where its stream starts.
    fn opened(&mut self, opening: Opening, decision: &ResumeDecision, bounds: &LogBounds) {
        let cursor = Cursor { epoch: bounds.epoch.clone(), seq: self.cursor };
        let (subscriber, status, missed) = (&self.peer, decision.resume.as_str(), decision.missed);
        tracing::debug!(%subscriber, %cursor, status, missed, "resolved a subscriber's cursor");
        let format = self.request.form.format;
        if opening.live_since.is_some() {
            // It was told so, without an id.
            return self.heartbeat();
        }
        self.count_resume(decision.resume);
        self.streams.state.metrics.missed.inc_by(decision.missed.unwrap_or(0));
        let mut hello = bounds.stream_opened(decision, self.request.requested.as_deref(), SERVER);
        let remarks = std::mem::take(&mut *self.request.remarks);
        (hello.ignored, hello.unknown) = (remarks.ignored, remarks.unknown);
        self.outgoing.push(format.hello(opening.retry_ms, Some(&cursor), &hello));
        self.has_id = true;
    }

    /// Looks for the cursor before the snapshot; `None` if that has to be continued in another turn.
    fn search_snapshot(
        &mut self,
        opening: &mut Opening,
        bounds: &LogBounds,
        cx: &mut Context<'_>,
    ) -> Option<Seq> {
        let ring = &self.streams.state.ring;
        if self.snapshot.is_none() {
            let search = opening.search.take().unwrap_or_else(|| ring.search_newest(self.request.snapshot));
            match ring.continue_search(search, &self.request.filter, &mut self.turn) {
                SearchStep::Found(cursor) => return Some(cursor),
                SearchStep::Unfinished(search) => opening.search = Some(search),
                SearchStep::BelowRing(search) => {
                    self.snapshot = Some((search.generation, self.search_log(search, bounds)));
                }
                SearchStep::OtherEpoch => self.turn.end(),
            }
        }
        let (generation, start) = self.snapshot.as_mut()?;
        let Poll::Ready(cursor) = start.as_mut().poll(cx) else { return None };
        let is_current = *generation == self.streams.state.ring.state().generation;
        self.snapshot = None;
        if !is_current {
            self.turn.end();
        }
        is_current.then_some(cursor)
    }

    /// Looks for the rest of a snapshot in the daemon's log.
    fn search_log(&self, search: SnapshotSearch, bounds: &LogBounds) -> SnapshotStart {
        let state = &self.streams.state;
        let client = PageClient::new(self.permit.address(), &state.settings());
        let scan = NewsScan {
            epoch: bounds.epoch.clone(),
            generation: search.generation,
            before: search.at.next(),
            after: Seq::NONE,
            since: None,
            filter: self.request.filter.clone(),
            limit: usize::try_from(search.left).unwrap_or(usize::MAX),
            within: snapshot::WITHIN,
        };
        snapshot::search(Arc::clone(state), client, scan, search.cursor)
    }

    fn count_resume(&self, resume: Resume) {
        self.streams.state.metrics.resumes.get_or_create(&[("result", resume.as_str())]).inc();
    }

    /// Prepares what the client has not had, up to the size of a chunk.
    fn read_events(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(hold) = &mut self.hold {
                if hold.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.hold = None;
            }
            let is_replay = self.replay.is_active();
            let next = match is_replay {
                true => match self.poll_replay(cx) {
                    Poll::Pending => return,
                    Poll::Ready(None) => continue,
                    Poll::Ready(Some(next)) => next,
                },
                false => self.read_ring(),
            };
            match next {
                NextEvents::OtherEpoch => return self.end(StreamEnd::Epoch),
                NextEvents::BelowRing => {
                    let Some(cursor) = self.cursor() else { return };
                    self.replay = Replay::wanted(ReplayStart::After(cursor));
                }
                NextEvents::Missing { missed, until } => {
                    self.gap(missed, until);
                    self.on_batch(&EventBatch { cursor: until, ..EventBatch::default() });
                }
                NextEvents::Events(batch) if is_replay => {
                    self.on_batch(&batch);
                    self.pass_over();
                    if !self.outgoing.is_empty() || self.turn.scanned_enough() {
                        return;
                    }
                }
                NextEvents::Events(batch) => {
                    self.on_batch(&batch);
                    if !batch.more && self.live_at.is_none() {
                        self.read_notices();
                    }
                    return;
                }
            }
        }
    }

    fn read_ring(&mut self) -> NextEvents {
        let until = self.live_at.unwrap_or(Seq::LAST);
        let at = RingPosition { generation: self.generation, cursor: self.cursor, until };
        let StreamRequest { filter, form, .. } = &self.request;
        self.streams.state.ring.read_after(at, filter, *form, &mut self.turn, &mut self.outgoing)
    }

    /// Moves the cursor past events that the filter left out, if none was prepared.
    fn pass_over(&mut self) {
        if let Some(cursor) = self.outgoing.take_cursor() {
            self.cursor = cursor;
        }
    }

    /// Charges what the client was sent from the past, or what was read from the log for it, to its address.
    fn charge(&mut self, batch: &EventBatch) {
        let state = &self.streams.state;
        if let Err(wait) = state.budgets.replay(&self.permit.address(), batch.charged, batch.bytes as u64) {
            state.metrics.replay_waits.get_or_create(&[("reason", "replay_per_address")]).inc();
            self.hold = Some(Box::pin(sleep(wait)));
        }
    }

    /// Counts events that were prepared, and tells the client once that it has everything up to where it came.
    fn on_batch(&mut self, batch: &EventBatch) {
        self.streams.state.metrics.delivered.inc_by(batch.events);
        self.has_id |= batch.events > 0;
        if self.live_at.is_some() && batch.charged > 0 {
            self.charge(batch);
        }
        let Some(seq) = self.live_at.filter(|at| batch.cursor >= *at) else { return };
        self.live_at = None;
        let Some(epoch) = self.epoch.clone() else { return };
        let data = LiveData { head: Cursor { epoch, seq } };
        self.outgoing.push(self.request.form.format.event("live", &data));
    }

    /// The `gap` event: how many events are missed, and the oldest that follows. The cursor moves to the last one missed.
    fn gap(&mut self, missed: u64, until: Seq) {
        self.cursor = until;
        self.streams.state.metrics.missed.inc_by(missed);
        tracing::debug!(subscriber = %self.peer, missed, "sent a gap to a subscriber");
        let oldest = self.epoch.clone().map(|epoch| Cursor { epoch, seq: until.next() });
        self.outgoing.push(self.request.form.format.event("gap", &Gap { missed, oldest }));
    }

    fn read_notices(&mut self) {
        let state = &self.streams.state;
        let format = self.request.form.format;
        let batch = state.notices.read_from(self.next_notice, &self.request.filter, format);
        self.next_notice = batch.next;
        state.metrics.notices_missed.inc_by(batch.missed);
        self.outgoing.push(batch.bytes.into());
    }

    /// Prepares what the daemon's log has for the client; `None` if there is nothing more: the ring continues from there.
    fn poll_replay(&mut self, cx: &mut Context<'_>) -> Poll<Option<NextEvents>> {
        if !matches!(self.replay, Replay::Reading { .. }) {
            match std::task::ready!(self.poll_page(cx)) {
                Some(page) => self.read_page(page),
                None => return Poll::Ready(None),
            }
        }
        let Replay::Reading { frames, end, room } = &mut self.replay else { return Poll::Ready(None) };
        let next = frames.front().map_or(end.next(), |frame| frame.seq);
        let missed = self.cursor.missing_before(next);
        if missed > 0 {
            return Poll::Ready(Some(NextEvents::Missing { missed, until: next.previous() }));
        }
        if frames.is_empty() {
            self.replay = Replay::Idle;
            return Poll::Ready(None);
        }
        let until = self.live_at.unwrap_or(Seq::LAST);
        let StreamRequest { filter, form, .. } = &self.request;
        let mut batch = EventBatch { cursor: self.cursor, ..EventBatch::default() };
        let events = frames.iter().map(|frame| &**frame);
        batch.read(events, until, filter, *form, &mut self.turn, &mut self.outgoing);
        let read = frames.partition_point(|frame| frame.seq <= batch.cursor);
        let bytes = frames.drain(..read).map(|frame| frame.block_bytes(*form)).sum();
        // The daemon has read and sent them, whatever the filter.
        (batch.charged, batch.bytes) = (read as u64, bytes);
        room.release(bytes);
        Poll::Ready(Some(NextEvents::Events(batch)))
    }

    /// The next page of the log, once the daemon has answered; `None` if the daemon now has another log.
    fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<Option<ReplayPage>> {
        loop {
            let state = &self.streams.state;
            match &mut self.replay {
                Replay::Idle | Replay::Reading { .. } => return Poll::Ready(None),
                Replay::Wanted(start, timer) => {
                    if let Some(timer) = timer {
                        std::task::ready!(timer.as_mut().poll(cx));
                    }
                    if state.ring.state().generation != self.generation {
                        // What reads the ring ends the stream.
                        self.replay = Replay::Idle;
                        return Poll::Ready(None);
                    }
                    let start = start.clone();
                    if !state.wire.is_connected() {
                        // The events are still there when the daemon is back.
                        self.replay = Replay::later(start);
                        continue;
                    }
                    self.replay = match state.unsent.reserve_log_page(self.permit.address(), PAGE_BYTES) {
                        Ok(room) => {
                            state.metrics.pages.inc();
                            match state.replays.send(start.clone()) {
                                Ok(answer) => Replay::Requested(start, answer, room),
                                Err(QueueFull) => Replay::later(start),
                            }
                        }
                        Err(_) => {
                            let reason = &[("reason", "unsent_bytes_max")];
                            state.metrics.replay_waits.get_or_create(reason).inc();
                            let wait = Duration::from_millis(fastrand::u64(ROOM_RETRY_MS));
                            Replay::Wanted(start, Some(Box::pin(sleep(wait))))
                        }
                    };
                }
                Replay::Requested(start, answer, _) => match std::task::ready!(Pin::new(answer).poll(cx)) {
                    Ok(Ok(page)) => return Poll::Ready(Some(page)),
                    // The events are still there when the daemon answers again.
                    _ => self.replay = Replay::later(start.clone()),
                },
            }
        }
    }

    /// Begins with a page of the log. The cursor must not stay below it: the client would never get to where it is live.
    fn read_page(&mut self, page: ReplayPage) {
        let Replay::Requested(start, ..) = &self.replay else { return };
        let has_nothing = page.frames.is_empty() && page.missed == 0;
        self.replay = match start {
            // The daemon does not have yet what the ring had, or its log has become another one: the client waits.
            ReplayStart::After(_) if has_nothing => Replay::later(start.clone()),
            ReplayStart::Since(_) if has_nothing => Replay::Idle,
            ReplayStart::After(_) => self.begin_page(page),
            ReplayStart::Since(_) => {
                let before = page.frames.first().map_or(page.end, |first| first.seq.previous());
                self.cursor = self.cursor.max(Seq(before.0.saturating_sub(page.missed)));
                self.begin_page(page)
            }
        };
    }

    /// A page that was requested, to be read; it takes no more room than its events need.
    fn begin_page(&mut self, page: ReplayPage) -> Replay {
        let Replay::Requested(.., mut room) = std::mem::replace(&mut self.replay, Replay::Idle) else {
            return Replay::Idle;
        };
        let form = self.request.form;
        let bytes = page.frames.iter().map(|frame| frame.block_bytes(form)).sum();
        room.release(PAGE_BYTES.saturating_sub(bytes));
        Replay::Reading { frames: page.frames.into(), end: page.end, room }
    }

    /// Moves the client's cursor past the events that its filter left out, and proves the connection.
    fn heartbeat(&mut self) {
        let state = &self.streams.state;
        state.metrics.heartbeats.inc();
        let (format, cursor) = (self.request.form.format, self.cursor());
        let beat = if self.request.heartbeat {
            let ring = state.ring.state();
            let head = ring.log_bounds.filter(|_| ring.filled).map(|bounds| bounds.head_cursor());
            let lag = head
                .as_ref()
                .filter(|_| cursor.is_some())
                .map(|head| head.seq.0.saturating_sub(self.cursor.0));
            // Before its cursor is resolved, a client keeps the id that it came with.
            let id = cursor.or_else(|| self.request.requested.as_deref()?.parse().ok());
            format.heartbeat_event(id.as_ref(), &HeartbeatData { head, lag, time: state.now() })
        } else {
            format.heartbeat(cursor.as_ref())
        };
        self.outgoing.push(beat);
        self.has_id = true;
    }

    /// What it waits for while nothing is to be written.
    fn wait(&self) -> StreamWait {
        match (&self.stage, &self.replay) {
            _ if self.hold.is_some() => StreamWait::Allowance,
            (_, Replay::Wanted(..) | Replay::Requested(..)) => StreamWait::LogPage,
            (Stage::New | Stage::Opening(_), _) => StreamWait::Start,
            (Stage::Live | Stage::Ended, _) => StreamWait::Events,
        }
    }

    /// Where the client is; `None` before that is resolved.
    fn cursor(&self) -> Option<Cursor> {
        self.epoch.clone().map(|epoch| Cursor { epoch, seq: self.cursor })
    }

    /// The last block: when to reconnect, and the id to resume from.
    fn end(&mut self, end: StreamEnd) {
        self.stage = Stage::Ended;
        self.streams.count_end(self.key, end);
        let retry_ms = fastrand::u64(self.request.delays.ended.clone());
        // Before its cursor is resolved, a client keeps the id that it came with.
        let id = self.cursor().or_else(|| self.request.requested.as_deref()?.parse().ok());
        self.outgoing.push(self.request.form.format.end(retry_ms, id.as_ref()));
    }

    /// The next chunk of what was prepared.
    fn hand_out(&mut self) -> Option<Bytes> {
        let (chunk, cursor) = self.outgoing.next_chunk()?;
        self.cursor = cursor.unwrap_or(self.cursor);
        self.turn.on_bytes(chunk.len());
        if std::mem::take(&mut self.has_id) {
            self.streams.on_id_written(self.key);
        }
        self.streams.on_written(self.key, self.cursor);
        self.streams.state.metrics.delivered_bytes.inc_by(chunk.len() as u64);
        Some(chunk)
    }
}

/// The cursor before the first event recorded since `instant`; if that may be below the ring, the daemon looks it up.
fn start_at(instant: Timestamp, state: &AppState, bounds: &LogBounds) -> (Seq, Replay) {
    match state.ring.before_instant(instant) {
        Some(cursor) => (cursor, Replay::Idle),
        None => (bounds.oldest.previous(), Replay::wanted(ReplayStart::Since(instant))),
    }
}

/// How an id was resolved of which is known what is missing after it: how many directly, and how many altogether. What is
/// missing further on is told where it was.
fn resumed(id: Seq, missed: u64, total: u64) -> ResumeDecision {
    let resume = if total == 0 { Resume::Exact } else { Resume::Gap };
    ResumeDecision { resume, after: Some(Seq(id.0.saturating_add(missed))), missed: Some(missed) }
}

/// The `server` of the `stream` event.
const SERVER: &str = concat!("newswire-gateway/", env!("CARGO_PKG_VERSION"));

/// What the client reads from the daemon's log before it reads the ring.
enum Replay {
    /// It reads the ring.
    Idle,
    /// A page is to be requested, after a while if it was unavailable.
    Wanted(ReplayStart, Option<Pin<Box<Sleep>>>),
    /// A page was requested, and there is room for it.
    Requested(ReplayStart, oneshot::Receiver<ReplayResult>, UnsentBytes),
    /// It reads a page, which ends with this event, there or missing.
    Reading { frames: VecDeque<Arc<Frame>>, end: Seq, room: UnsentBytes },
}

impl Replay {
    fn wanted(start: ReplayStart) -> Self {
        Self::Wanted(start, None)
    }

    fn later(start: ReplayStart) -> Self {
        let wait = Duration::from_millis(fastrand::u64(PAGE_RETRY_MS));
        Self::Wanted(start, Some(Box::pin(sleep(wait))))
    }

    fn is_active(&self) -> bool {
        !matches!(self, Self::Idle)
    }
}

impl MessageBody for StreamSubscriber {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        let has_ended = matches!(this.stage, Stage::Ended);
        if has_ended && this.outgoing.is_empty() {
            return Poll::Ready(None);
        }
        let _task = daemon::work::on("GET /news/stream", Arc::clone(&this.peer));
        this.streams.set_waker(this.key, cx.waker());
        let wake = this.streams.wake_reason(this.key);
        if this.outgoing.is_empty() && !this.turn.is_over() {
            this.prepare(wake, cx);
        }
        if !this.turn.is_over()
            && let Some(chunk) = this.hand_out()
        {
            return Poll::Ready(Some(Ok(chunk)));
        }
        if std::mem::take(&mut this.turn).is_over() {
            // The others come first.
            this.streams.on_yield(this.key, this.cursor);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.streams.on_idle(this.key, this.cursor, this.wait());
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

#[cfg(test)]
mod interleavings;
