//! The front loop: accepts connections, within the limits, and gives each to a worker. It answers `/health` itself, so
//! that nothing that a worker does can delay a probe.
//!
//! A connection goes to the worker with the fewest connections among those that keep up. The loop never waits for a
//! worker, and it reads no more of a connection than tells who serves it.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read as _},
    net::{SocketAddr, TcpListener as StdTcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_web::rt::net::{TcpListener, TcpStream};
use anyhow::Context as _;
use daemon::watch::WatchKind;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{connection_service, worker::Worker};
use crate::{
    connection::{
        AcceptedConnection, capacity::ConnectionPermit, client_io::FirstBytes, ending::ConnectionCut,
    },
    state::AppState,
};

/// How long it does not accept when it could not.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often it looks whether all workers live.
const WORKERS_CHECK: Duration = Duration::from_secs(1);
/// How long the workers may take to stop; one that is stuck is left behind.
const STOP_MAX: Duration = Duration::from_secs(3);
/// How often it looks whether they have.
const STOP_CHECK: Duration = Duration::from_millis(10);
/// The same as actix answers on a worker.
const TIMEOUT_ANSWER: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What the process answers to itself.
const PROBE_ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

/// What the main thread wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrontOrder {
    /// Leave further connections in the backlog.
    Pause,
    /// End.
    Stop,
}

/// Who serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    Front,
    Worker,
}

/// A connection of which nothing was read yet, or too little.
struct NewConnection {
    socket: TcpStream,
    peer: SocketAddr,
    permit: ConnectionPermit,
    first: FirstBytes,
}

struct FrontLoop<H> {
    state: Arc<AppState>,
    /// Serves a connection on this thread.
    serve: H,
    /// Empty once the server stops.
    workers: RefCell<Vec<Worker>>,
    /// The last attempt to accept has failed.
    is_failing: Cell<bool>,
}

/// Runs the front loop until it is told to stop.
pub(super) fn run(
    state: &Arc<AppState>,
    listener: StdTcpListener,
    workers: usize,
    orders: mpsc::Receiver<FrontOrder>,
) {
    let runtime = actix_web::rt::Runtime::new().context("start an event loop");
    let result = runtime.and_then(|runtime| runtime.block_on(accept_all(state, listener, workers, orders)));
    if let Err(error) = result {
        tracing::error!(error = format!("{error:#}"), "the front loop has failed");
    }
}

async fn accept_all(
    state: &Arc<AppState>,
    listener: StdTcpListener,
    workers: usize,
    mut orders: mpsc::Receiver<FrontOrder>,
) -> anyhow::Result<()> {
    state.watch.event_loop("front", WatchKind::Front);
    let workers = (0..workers).map(|_| Worker::start(state)).collect::<Result<Vec<_>, _>>()?;
    let front = Rc::new(FrontLoop {
        state: Arc::clone(state),
        serve: connection_service::start(state, None).await?,
        workers: RefCell::new(workers),
        is_failing: Cell::default(),
    });
    let listener = TcpListener::from_std(listener).context("wait for connections")?;
    let mut is_paused = false;
    let mut check = interval(WORKERS_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(FrontOrder::Pause) => is_paused = true,
                Some(FrontOrder::Stop) | None => break,
            },
            () = front.accept(&listener), if !is_paused => {}
            _ = check.tick() => front.replace_ended_workers(),
        }
    }
    drop(listener);
    front.stop().await;
    Ok(())
}

impl<H: Fn(AcceptedConnection) + 'static> FrontLoop<H> {
    /// Accepts the next connection; waits a while if that fails.
    async fn accept(self: &Rc<Self>, listener: &TcpListener) {
        match listener.accept().await {
            Ok((socket, peer)) => {
                if self.is_failing.take() {
                    tracing::info!("connections are accepted again");
                }
                self.on_accepted(socket, peer);
            }
            Err(error) => {
                self.on_accept_failure(&error);
                sleep(ACCEPT_RETRY_AFTER).await;
            }
        }
        tokio::task::coop::consume_budget().await;
    }

    fn on_accept_failure(&self, error: &io::Error) {
        let reason = match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => "descriptors",
            _ => "other",
        };
        self.state.metrics.accept_failures.get_or_create(&[("reason", reason)]).inc();
        if !self.is_failing.replace(true) {
            tracing::warn!(%error, "could not accept a connection; trying again");
        }
    }

    fn on_accepted(self: &Rc<Self>, socket: TcpStream, peer: SocketAddr) {
        if self.state.watch.is_own_probe(peer) {
            // It asks whether connections are accepted, and they are; it has no limit and is not counted.
            socket.try_write(PROBE_ANSWER).ok();
            return;
        }
        let permit = match self.state.connections.admit(peer.ip(), &self.state.settings()) {
            Ok(permit) => permit,
            Err(reason) => {
                self.state.metrics.connections_cut.get_or_create(&[("reason", reason)]).inc();
                return reset(&SockRef::from(&socket));
            }
        };
        let mut new = NewConnection { socket, peer, permit, first: FirstBytes::default() };
        // Most clients send their request at once, so there is nothing to wait for.
        let read = (&*SockRef::from(&new.socket)).read(new.first.unfilled());
        match new.first.after(read).map(|()| destination(new.first.as_slice())) {
            // The client has left already.
            Err(_) => {}
            Ok(Some(destination)) => self.dispatch(new, destination),
            Ok(None) => {
                actix_web::rt::spawn(Rc::clone(self).wait(new));
            }
        }
    }

    /// Waits for the bytes that tell who serves the connection.
    async fn wait(self: Rc<Self>, mut new: NewConnection) {
        match timeout(self.state.settings().limits.head, new.read_destination()).await {
            Ok(Ok(destination)) => self.dispatch(new, destination),
            // The client has left.
            Ok(Err(_)) => {}
            Err(_) => {
                self.state
                    .metrics
                    .connections_cut
                    .get_or_create(&[("reason", ConnectionCut::Deadline.as_str())])
                    .inc();
                new.socket.try_write(TIMEOUT_ANSWER).ok();
            }
        }
    }

    /// Serves the connection here, or hands it to its worker.
    fn dispatch(&self, new: NewConnection, destination: Destination) {
        let NewConnection { socket, peer, permit, first } = new;
        let Ok(socket) = socket.into_std() else { return };
        let mut accepted = AcceptedConnection { socket, peer, permit, first, share: None };
        if destination == Destination::Front {
            return (self.serve)(accepted);
        }
        let workers = self.workers.borrow();
        let mut by_load: Vec<&Worker> = workers.iter().collect();
        // A worker that is stuck gets no more than the others leave.
        by_load.sort_by_key(|worker| (worker.backlog(), worker.load()));
        for worker in by_load {
            match worker.take(accepted) {
                Ok(()) => return,
                Err(refused) => accepted = refused,
            }
        }
        if !workers.is_empty() {
            self.state.metrics.accept_failures.get_or_create(&[("reason", "workers")]).inc();
            reset(&SockRef::from(&accepted.socket));
        }
    }

    /// A worker ends only by a fault; its clients reconnect to the others.
    fn replace_ended_workers(&self) {
        for worker in &mut *self.workers.borrow_mut() {
            if !worker.has_ended() {
                continue;
            }
            match Worker::start(&self.state) {
                Ok(new) => {
                    let (ended, new_loop) = (worker.number(), new.number());
                    tracing::error!("loop" = %format_args!("worker-{ended}"), new = new_loop, "replaced a worker that had ended");
                    *worker = new;
                }
                Err(error) => tracing::error!(error = format!("{error:#}"), "could not replace a worker"),
            }
        }
    }

    /// Ends the workers; they end their connections.
    async fn stop(&self) {
        let threads: Vec<_> = self.workers.take().into_iter().map(Worker::stop).collect();
        let ended = async {
            while !threads.iter().all(std::thread::JoinHandle::is_finished) {
                sleep(STOP_CHECK).await;
            }
        };
        if timeout(STOP_MAX, ended).await.is_err() {
            tracing::warn!("a worker did not stop in time");
        }
    }
}

impl NewConnection {
    /// Reads until it is known who serves the connection.
    ///
    /// # Errors
    /// If the client has left.
    async fn read_destination(&mut self) -> io::Result<Destination> {
        loop {
            self.socket.readable().await?;
            let read = self.socket.try_read(self.first.unfilled());
            self.first.after(read)?;
            if let Some(destination) = destination(self.first.as_slice()) {
                return Ok(destination);
            }
        }
    }
}

/// Who serves a connection that begins with `bytes`; `None` if they do not tell.
fn destination(bytes: &[u8]) -> Option<Destination> {
    for probe in [b"GET /health".as_slice(), b"HEAD /health"] {
        let common = bytes.len().min(probe.len());
        if bytes[..common] == probe[..common] {
            let next = bytes.get(probe.len())?;
            let is_probe = matches!(next, b' ' | b'?');
            return Some(if is_probe { Destination::Front } else { Destination::Worker });
        }
    }
    Some(Destination::Worker)
}

/// Closes a connection without an answer: a flood of connections must not become a flood of answers.
fn reset(socket: &SockRef<'_>) {
    socket.set_linger(Some(Duration::ZERO)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[tokio::test]
    async fn a_worker_that_has_ended_is_replaced_and_gets_no_connection_before() {
        let state = Arc::new(AppState::for_tests(Settings::for_tests()));
        let workers = RefCell::new(vec![Worker::ended(&state), Worker::start(&state).unwrap()]);
        let serve = |_: AcceptedConnection| {};
        let front = FrontLoop { state: Arc::clone(&state), serve, workers, is_failing: Cell::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut clients = Vec::new();
        for round in 0..2 {
            for _ in 0..4 {
                clients.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
                let (socket, peer) = listener.accept().await.unwrap();
                let permit = state.connections.admit(peer.ip(), &state.settings()).unwrap();
                let new = NewConnection { socket, peer, permit, first: FirstBytes::default() };
                front.dispatch(new, Destination::Worker);
            }
            let loads: Vec<_> = front.workers.borrow().iter().map(Worker::load).collect();
            // Of two that keep up, the one with fewer connections is preferred.
            assert!(if round == 0 { loads == [0, 4] } else { loads[0] > 0 && loads[0] + loads[1] == 8 });
            front.replace_ended_workers();
            assert!(front.workers.borrow().iter().all(|worker| !worker.has_ended()));
        }
        drop(clients);
        front.stop().await;
        assert_eq!(state.connections.count(), 0);
    }

    #[test]
    fn only_a_probe_is_served_in_front_and_as_few_bytes_as_possible_decide() {
        for probe in ["GET /health HTTP/1.1", "HEAD /health HTTP/1.0", "GET /health?x=1", "HEAD /health?"] {
            assert_eq!(destination(probe.as_bytes()), Some(Destination::Front), "{probe}");
            let path_end = probe.find("/health").unwrap() + 7;
            assert!(
                (0..=path_end).all(|length| destination(&probe.as_bytes()[..length]).is_none()),
                "{probe}"
            );
        }
        for other in ["GET /healthy", "GET /health/", "GET /n", "P", "get", "\r\nGET /health ", "GET http://"]
        {
            assert_eq!(destination(other.as_bytes()), Some(Destination::Worker), "{other}");
        }
        assert!("HEAD /health?".len() <= FirstBytes::MAX);
    }
}
