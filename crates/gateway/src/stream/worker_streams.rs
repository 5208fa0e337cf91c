//! The streams of one worker: which are woken, which need a heartbeat, which have to end.
//!
//! One subscription to changes, one timer and one list per worker, however many clients it has; nothing in here is
//! shared between threads.

use std::{cell::RefCell, rc::Rc, sync::Arc, task::Waker, time::Duration};

use actix_web::rt::task::JoinHandle;
use daemon::watch::{WatchKind, coarse_ms};
use news::Seq;
use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    stream_waits::{ShownWaits, StreamWait, WaitCounts, WaitingStream},
    throughput::Throughput,
};
use crate::{
    auth::authenticator::AuthorisedReader,
    connection::{
        ClientConnection,
        ending::{ConnectionCut, StreamEnd},
    },
    settings::Settings,
    state::AppState,
};

/// The resolution of heartbeats and endings.
const TICK: Duration = Duration::from_millis(100);
/// How long a client has to take the last block when it is drained; after that its connection is closed.
const DRAIN_GRACE: Duration = Duration::from_millis(300);
/// The same when its token has expired; a thousand tokens may expire at once.
const EXPIRY_GRACE: Duration = Duration::from_secs(5);

/// The streams of one worker.
pub(crate) struct WorkerStreams {
    pub(crate) state: Arc<AppState>,
    /// The worker's number, in the metrics and in [`AppState::worker_lag`].
    worker: usize,
    slots: RefCell<Slab<StreamSlot>>,
    /// The settings at the last tick.
    settings: RefCell<Arc<Settings>>,
    /// What the streams wait for, at the last tick.
    waits: Arc<ShownWaits>,
}

struct StreamSlot {
    waker: Option<Waker>,
    /// When the client was last sent an id, or a heartbeat without one.
    id_sent: Instant,
    /// A heartbeat is due.
    heartbeat: bool,
    /// The client asks for heartbeats.
    requests_heartbeats: bool,
    /// When the stream ends, once the process drains.
    drains_at: Option<Instant>,
    /// When the reader's token expires.
    expires_at: Option<Instant>,
    /// Whose stream it is, to be checked again after a reload.
    reader: Box<AuthorisedReader>,
    connection: Rc<ClientConnection>,
    cursor: Seq,
    throughput: Throughput,
    waiting: WaitingStream,
}

/// Why a stream is polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WakeReason {
    /// Its heartbeat is due.
    pub(crate) heartbeat: bool,
    /// It has to end, as the process drains.
    pub(crate) drain: bool,
    /// Its token has expired.
    pub(crate) expired: bool,
}

impl WorkerStreams {
    /// Creates the list of this worker and starts its timer, which never ends; call it on the worker's thread.
    pub(crate) fn start(state: Arc<AppState>, worker: usize) -> (Rc<Self>, JoinHandle<()>) {
        state.watch.event_loop(&format!("worker-{worker}"), WatchKind::Worker);
        let settings = RefCell::new(state.settings());
        let waits = state.stream_waits.add_worker();
        let streams = Rc::new(Self { worker, state, slots: RefCell::default(), settings, waits });
        let ticks = actix_web::rt::spawn(Rc::clone(&streams).run());
        #[cfg(feature = "drill")]
        crate::drill::run_worker_drills();
        (streams, ticks)
    }

    async fn run(self: Rc<Self>) {
        let mut changes = self.state.subscribe_to_changes();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => self.wake_all(),
                    Err(_) => return,
                },
                _ = tick.tick() => self.on_tick(),
            }
        }
    }

    fn wake_all(&self) {
        for (_, slot) in &mut *self.slots.borrow_mut() {
            slot.wake();
        }
    }

    /// After a reload: treats the token of a reader that is no longer authorised, or for something else, as expired.
    fn apply_settings(&self, settings: &Arc<Settings>, now: Instant) {
        if Arc::ptr_eq(settings, &self.settings.borrow()) {
            return;
        }
        self.settings.replace(Arc::clone(settings));
        for (_, slot) in &mut *self.slots.borrow_mut() {
            let is_valid = slot.expires_at.is_none_or(|at| at > now);
            if is_valid && !settings.authenticator.still_authorised(&slot.reader) {
                slot.expires_at = Some(now);
            }
        }
    }

    fn on_tick(&self) {
        let now = Instant::now();
        let draining = self.state.is_draining();
        let settings = self.state.settings();
        self.apply_settings(&settings, now);
        let drain_window = if draining { self.state.drain_window() } else { Duration::ZERO };
        let metrics = &self.state.metrics;
        let head = Seq(u64::try_from(metrics.head.get()).unwrap_or_default());
        let (mut lag_max, mut waits, now_ms) = (0, WaitCounts::default(), coarse_ms());
        for (_, slot) in &mut *self.slots.borrow_mut() {
            if draining {
                slot.drain(now, drain_window);
            }
            if slot.expires_at.is_some_and(|at| at <= now) {
                slot.expire(now);
            }
            if now.duration_since(slot.id_sent) >= slot.heartbeat_interval(&settings) && !slot.heartbeat {
                slot.heartbeat = true;
                slot.wake();
            }
            if slot.throughput.window_ends <= now
                && slot.throughput.is_too_slow(slot.cursor, now, settings.limits.throughput_window)
            {
                slot.connection.cut(ConnectionCut::Slow);
            }
            lag_max = lag_max.max(slot.lag(head));
            waits.add(&slot.waiting, now_ms);
        }
        self.waits.show(&waits);
        let clients = i64::try_from(self.slots.borrow().len()).unwrap_or(i64::MAX);
        metrics.worker_clients.get_or_create(&[("worker", self.worker)]).set(clients);
        let lag_max = self.state.worker_lag.update(self.worker, lag_max);
        metrics.lag_events_max.set(i64::try_from(lag_max).unwrap_or(i64::MAX));
    }

    /// Adds a stream; returns its key.
    pub(crate) fn insert(
        &self,
        connection: Rc<ClientConnection>,
        reader: AuthorisedReader,
        requests_heartbeats: bool,
    ) -> usize {
        let now = Instant::now();
        let expires_at = reader.expires.map(|expires| now + expires.since(self.state.now()));
        let slot = StreamSlot {
            waker: None,
            id_sent: now,
            heartbeat: false,
            requests_heartbeats,
            drains_at: None,
            expires_at,
            reader: Box::new(reader),
            connection,
            cursor: Seq::NONE,
            throughput: Throughput::new(now + self.state.settings().limits.throughput_window),
            waiting: WaitingStream::new(),
        };
        self.slots.borrow_mut().insert(slot)
    }

    /// Counts that the stream ends itself; the client is still to take the last block.
    pub(crate) fn count_end(&self, key: usize, end: StreamEnd) {
        self.slots.borrow()[key].connection.count_stream_end(end);
    }

    pub(crate) fn remove(&self, key: usize) {
        let slot = self.slots.borrow_mut().try_remove(key);
        if let Some(slot) = slot {
            slot.connection.end_stream();
        }
    }

    /// Why the stream is polled now.
    pub(crate) fn wake_reason(&self, key: usize) -> WakeReason {
        let slot = &mut self.slots.borrow_mut()[key];
        slot.waiting.on_polled();
        let drain = slot.drains_at.is_some_and(|at| at <= Instant::now());
        let expired = slot.expires_at.is_some_and(|at| at <= Instant::now());
        WakeReason { heartbeat: slot.heartbeat, drain, expired }
    }

    /// Records that an id, or a heartbeat, was written to the client. Nothing else puts the next heartbeat off: events
    /// without an id would leave the client's id behind for ever.
    pub(crate) fn on_id_written(&self, key: usize) {
        let slot = &mut self.slots.borrow_mut()[key];
        (slot.id_sent, slot.heartbeat) = (Instant::now(), false);
    }

    /// Records that something was written to the client.
    pub(crate) fn on_written(&self, key: usize, cursor: Seq) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[key];
        slot.cursor = cursor;
        slot.throughput.on_events();
        slot.waiting.waits_for(StreamWait::Client);
    }

    /// Records that the stream continues when the others had their turn.
    pub(crate) fn on_yield(&self, key: usize, cursor: Seq) {
        let slot = &mut self.slots.borrow_mut()[key];
        slot.cursor = cursor;
        slot.throughput.on_events();
        slot.waiting.waits_for(StreamWait::Turn);
    }

    /// Records that the client has all that there is to write now; its cursor may have passed events that its filter left
    /// out.
    pub(crate) fn on_idle(&self, key: usize, cursor: Seq, wait: StreamWait) {
        let slot = &mut self.slots.borrow_mut()[key];
        slot.cursor = cursor;
        slot.throughput.on_caught_up();
        slot.waiting.waits_for(wait);
    }

    pub(crate) fn set_waker(&self, key: usize, waker: &Waker) {
        let mut slots = self.slots.borrow_mut();
        match &mut slots[key].waker {
            Some(old) => old.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }
}

impl Drop for WorkerStreams {
    fn drop(&mut self) {
        // A worker that has ended is not behind.
        self.state.worker_lag.update(self.worker, 0);
        self.state.metrics.worker_clients.get_or_create(&[("worker", self.worker)]).set(0);
    }
}

impl StreamSlot {
    fn heartbeat_interval(&self, settings: &Settings) -> Duration {
        match self.requests_heartbeats {
            true => settings.heartbeat.min(settings.limits.requested_heartbeat),
            false => settings.heartbeat,
        }
    }

    /// Ends the stream at its own moment within the window; closes the connection of a client that does not read.
    fn drain(&mut self, now: Instant, window: Duration) {
        let drains_at = *self.drains_at.get_or_insert_with(|| now + window.mul_f64(fastrand::f64()));
        if drains_at + DRAIN_GRACE <= now {
            self.connection.cut(ConnectionCut::Drain);
        } else if drains_at <= now {
            self.wake();
        }
    }

    /// Makes the stream end itself; closes the connection of a client that does not read.
    fn expire(&mut self, now: Instant) {
        if self.expires_at.is_some_and(|at| at + EXPIRY_GRACE <= now) {
            self.connection.cut(ConnectionCut::Expired);
        } else {
            self.wake();
        }
    }

    /// Events that the client has not had; 0 before it has a cursor.
    fn lag(&self, head: Seq) -> u64 {
        if self.cursor == Seq::NONE { 0 } else { head.0.saturating_sub(self.cursor.0) }
    }

    fn wake(&mut self) {
        self.throughput.on_events();
        self.waiting.on_woken();
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use actix_web::test::TestRequest;
    use tokio::{
        net::{TcpListener, TcpStream},
        task::LocalSet,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::connection::{AcceptedConnection, client_io::FirstBytes};

    /// Streams whose clients do not read, so that they are never polled.
    struct UnreadStreams {
        streams: Rc<WorkerStreams>,
        listener: TcpListener,
        clients: Cell<Vec<TcpStream>>,
    }

    impl UnreadStreams {
        async fn start() -> Self {
            let state = Arc::new(AppState::for_tests(Settings::for_tests()));
            let worker = state.worker_lag.add_worker();
            let (streams, _) = WorkerStreams::start(state, worker);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Self { streams, listener, clients: Cell::default() }
        }

        async fn open(&self) -> (usize, Rc<ClientConnection>) {
            let state = &self.streams.state;
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
            self.clients.set([self.clients.take(), vec![client]].into_iter().flatten().collect());
            let (socket, peer) = self.listener.accept().await.unwrap();
            let permit = state.connections.admit(peer.ip(), &state.settings()).unwrap();
            let socket = socket.into_std().unwrap();
            let accepted =
                AcceptedConnection { socket, peer, permit, first: FirstBytes::default(), share: None };
            let (_, _, connection) = ClientConnection::open(state, accepted).unwrap();
            connection.begin_stream();
            let request = TestRequest::default().to_http_request();
            let reader = state.settings().authenticator.authorise(request.headers(), state.now()).unwrap();
            (self.streams.insert(Rc::clone(&connection), reader, false), connection)
        }

        /// The ends that were counted.
        fn ended(&self) -> Vec<(&'static str, u64)> {
            let ended = &self.streams.state.metrics.ended;
            let count = |end: StreamEnd| ended.get_or_create(&[("reason", end.as_str())]).get();
            let all = StreamEnd::ALL.map(|end| (end.as_str(), count(end)));
            all.into_iter().filter(|(_, count)| *count > 0).collect()
        }

        async fn until_cut(&self, key: usize, connection: &ClientConnection) {
            let cut = async {
                while !connection.was_cut() {
                    sleep(TICK).await;
                }
            };
            timeout(Duration::from_secs(60), cut).await.expect("it is cut");
            // Further ticks find the stream still there.
            sleep(TICK * 3).await;
            self.streams.remove(key);
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_because_its_client_does_not_read_is_counted_once_with_its_reason() {
        let drained = async {
            let unread = UnreadStreams::start().await;
            let (key, connection) = unread.open().await;
            let (ended_itself, also_cut) = unread.open().await;
            unread.streams.state.drain();
            unread.streams.count_end(ended_itself, StreamEnd::Drain);
            unread.until_cut(key, &connection).await;
            unread.until_cut(ended_itself, &also_cut).await;
            assert_eq!(unread.ended(), [("drain", 2)]);
        };
        LocalSet::new().run_until(drained).await;
        let expired = async {
            let unread = UnreadStreams::start().await;
            let (key, connection) = unread.open().await;
            unread.streams.slots.borrow_mut()[key].expires_at = Some(Instant::now());
            unread.until_cut(key, &connection).await;
            assert_eq!(unread.ended(), [("expired", 1)]);
        };
        LocalSet::new().run_until(expired).await;
        let slow = async {
            let unread = UnreadStreams::start().await;
            let (key, connection) = unread.open().await;
            unread.streams.slots.borrow_mut()[key].throughput = Throughput::slow_at(Instant::now());
            unread.until_cut(key, &connection).await;
            assert_eq!(unread.ended(), [("slow", 1)]);
        };
        LocalSet::new().run_until(slow).await;
    }

    #[tokio::test]
    async fn a_stream_that_a_panic_or_the_end_of_its_worker_ends_is_a_fault() {
        struct Removed(Rc<WorkerStreams>, usize);
        impl Drop for Removed {
            fn drop(&mut self) {
                self.0.remove(self.1);
            }
        }
        let ends = async {
            let unread = UnreadStreams::start().await;
            unread.streams.state.drain();
            let removed = Removed(Rc::clone(&unread.streams), unread.open().await.0);
            let panics = tokio::task::spawn_local(async move {
                let _removed = removed;
                panic!("a stream panics");
            });
            assert!(panics.await.unwrap_err().is_panic());
            assert_eq!(unread.ended(), [("fault", 1)]);
            drop(Removed(Rc::clone(&unread.streams), unread.open().await.0));
            assert_eq!(unread.ended(), [("drain", 1), ("fault", 1)]);
            let running = UnreadStreams::start().await;
            drop(Removed(Rc::clone(&running.streams), running.open().await.0));
            assert_eq!(running.ended(), [("fault", 1)]);
        };
        LocalSet::new().run_until(ends).await;
    }
}
