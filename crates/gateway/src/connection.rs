//! One client's TCP connection: one request, one answer, and how to close it from outside.
//!
//! actix polls no body while the client's buffer is full, and its only deadline is that for the first head. So each
//! connection is served by a task that ends at once when the connection is *cut*, whatever actix waits for.

// The socket, as actix reads and writes it.
pub(crate) mod client_io;

// Where the first request ends.
mod request_end;

// How many connections there are, and may be.
pub(crate) mod capacity;

// Why connections and streams end.
pub(crate) mod ending;

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use actix_web::rt::net::TcpStream;
use socket2::SockRef;
use tokio::time::{Instant, Sleep, sleep_until};

use self::{
    capacity::{ConnectionPermit, WorkerShare},
    client_io::FirstBytes,
    ending::{ConnectionCut, StreamEnd},
};
use crate::state::AppState;

/// What the kernel buffers for a client that does not read (it counts as much again for its own bookkeeping); its
/// default grows to 4 MB.
const SEND_BUFFER_BYTES: usize = 96 * 1024;

/// A connection that was accepted, on its way to the thread that serves it.
pub(crate) struct AcceptedConnection {
    pub(crate) socket: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) permit: ConnectionPermit,
    pub(crate) first: FirstBytes,
    /// Counts it as one of its worker's; `None` before it has one, and on the front thread.
    pub(crate) share: Option<WorkerShare>,
}

/// One connection, on the thread that serves it.
pub(crate) struct ClientConnection {
    state: Arc<AppState>,
    /// The peer, as the watchdog shows it; formatted once, because every poll needs it.
    pub(crate) peer: Arc<str>,
    _permit: ConnectionPermit,
    _share: Option<WorkerShare>,
    was_cut: Cell<bool>,
    /// The client has closed it, or it is lost.
    client_left: Cell<bool>,
    stream: Cell<StreamStage>,
    has_request: Cell<bool>,
    /// When it is cut; `None` for a stream, which is judged by its throughput.
    deadline: Cell<Option<Instant>>,
    /// Wakes the task that serves it.
    waker: RefCell<Option<Waker>>,
}

/// Whether a connection is a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StreamStage {
    /// It is not.
    #[default]
    None,
    Open,
    /// Its end was counted; the client may still have to take the last of it.
    Ended,
}

impl fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConnection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl ClientConnection {
    /// Prepares an accepted connection; call it on the thread that serves it.
    ///
    /// # Errors
    /// If this thread cannot wait for the socket.
    pub(crate) fn open(
        state: &Arc<AppState>,
        accepted: AcceptedConnection,
    ) -> io::Result<(TcpStream, FirstBytes, Rc<Self>)> {
        let AcceptedConnection { socket, peer, permit, first, share } = accepted;
        let limits = state.settings().limits;
        let options = SockRef::from(&socket);
        let bounded = options
            .set_tcp_nodelay(true)
            .and(options.set_send_buffer_size(SEND_BUFFER_BYTES))
            .and(options.set_tcp_user_timeout(Some(limits.unacknowledged)));
        if let Err(error) = bounded {
            tracing::debug!(%error, "could not set the options of a client's socket");
        }
        let connection = Rc::new(Self {
            state: Arc::clone(state),
            peer: peer.to_string().into(),
            _permit: permit,
            _share: share,
            was_cut: Cell::default(),
            client_left: Cell::default(),
            stream: Cell::default(),
            has_request: Cell::default(),
            deadline: Cell::new(Some(Instant::now() + limits.connection)),
            waker: RefCell::default(),
        });
        Ok((TcpStream::from_std(socket)?, first, connection))
    }

    /// Whether this is the first request of the connection. Later ones are never served.
    pub(crate) fn is_first_request(&self) -> bool {
        !self.has_request.replace(true)
    }

    /// The connection becomes a stream: it has no deadline, because it is judged by its throughput.
    pub(crate) fn begin_stream(&self) {
        self.stream.set(StreamStage::Open);
        self.deadline.set(None);
        // The client may have closed its side before.
        self.wake();
    }

    /// Counts the end of the stream, if this is its first reason to end.
    pub(crate) fn count_stream_end(&self, end: StreamEnd) {
        if self.stream.get() == StreamStage::Open {
            self.stream.set(StreamStage::Ended);
            self.state.metrics.ended.get_or_create(&[("reason", end.as_str())]).inc();
        }
    }

    /// The stream is gone: what is left to send has the deadline of any other answer.
    pub(crate) fn end_stream(&self) {
        self.count_stream_end(if self.client_left.get() {
            StreamEnd::Client
        } else if self.state.is_draining() && !std::thread::panicking() {
            // Its worker has stopped before the stream could end itself.
            StreamEnd::Drain
        } else {
            StreamEnd::Fault
        });
        self.deadline.set(Some(Instant::now() + self.state.settings().limits.connection));
        self.wake();
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.stream.get() != StreamStage::None
    }

    /// The client has closed the connection, or it is lost.
    fn on_client_left(&self) {
        self.client_left.set(true);
    }

    pub(crate) fn was_cut(&self) -> bool {
        self.was_cut.get()
    }

    /// Closes the connection at once, and discards what the kernel still holds for it.
    pub(crate) fn cut(&self, reason: ConnectionCut) {
        if self.was_cut.replace(true) {
            return;
        }
        self.state.metrics.connections_cut.get_or_create(&[("reason", reason.as_str())]).inc();
        if let Some(end) = reason.stream_end() {
            self.count_stream_end(end);
        }
        tracing::debug!(subscriber = %self.peer, reason = reason.as_str(), "closed a connection");
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn set_waker(&self, waker: &Waker) {
        match &mut *self.waker.borrow_mut() {
            Some(old) => old.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }

    /// Whether the deadline is over; otherwise wakes the task when it is.
    fn poll_deadline(&self, timer: &mut Option<std::pin::Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline.get() else {
            *timer = None;
            return false;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).is_ready()
    }

    /// Runs actix's part of the connection until it has ended or the connection is cut.
    pub(crate) fn serve<E: std::fmt::Display>(
        self: Rc<Self>,
        dispatcher: impl Future<Output = Result<(), E>>,
    ) -> impl Future<Output = ()> {
        // An `async` function would keep room for it twice, for the life of a stream.
        let mut dispatcher = Box::pin(dispatcher);
        let mut timer = None;
        std::future::poll_fn(move |cx| {
            self.set_waker(cx.waker());
            if self.was_cut() {
                return Poll::Ready(());
            }
            if let Poll::Ready(result) = dispatcher.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(subscriber = %self.peer, %error, "a connection has failed");
                }
                return Poll::Ready(());
            }
            // After the poll, in which it may have become a stream.
            if self.poll_deadline(&mut timer, cx) {
                self.cut(ConnectionCut::Deadline);
            }
            if self.was_cut() { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}
