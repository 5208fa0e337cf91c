//! The server: one thread that accepts, and the workers.
//!
//! ```text
//! listening socket ──► front: limits, first bytes ──┬─ GET /health ──► answered on the front thread
//!                                                   └─ anything else ──► the worker with the fewest connections
//! ```
//!
//! Whatever the workers are busy with, `/health` has its own thread: a probe must not depend on what other clients do.

use std::{net::TcpListener, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::front::{self, FrontOrder};
use crate::state::AppState;

/// Orders that wait for the front loop: there are two kinds, and each is given once.
const ORDERS_MAX: usize = 2;
/// How long the front thread may take to stop; it waits 3 s for the workers.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether threads have ended.
const STOP_CHECK: Duration = Duration::from_millis(10);

/// The running server.
pub(crate) struct ClientServer {
    orders: mpsc::Sender<FrontOrder>,
    ended: oneshot::Receiver<()>,
    thread: thread::JoinHandle<()>,
}

impl ClientServer {
    /// Starts the threads; `workers` of 0 means one per processor.
    ///
    /// # Errors
    /// If it cannot start a thread or use the socket.
    pub(crate) fn start(
        state: &Arc<AppState>,
        listener: TcpListener,
        workers: usize,
    ) -> anyhow::Result<Self> {
        listener.set_nonblocking(true).context("use the listening socket")?;
        let workers = match workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let (end, ended) = oneshot::channel();
        let state = Arc::clone(state);
        let run = move || {
            front::run(&state, listener, workers, received);
            // Dropped by a panic, too.
            drop(end);
        };
        let thread = thread::Builder::new().name("front".to_owned()).spawn(run).context("start a thread")?;
        Ok(Self { orders, ended, thread })
    }

    /// Completes when the server has ended, which it does by itself only if it has failed.
    pub(crate) async fn ended(&mut self) {
        (&mut self.ended).await.ok();
    }

    /// Accepts no further connections; they wait in the backlog of the socket.
    pub(crate) async fn pause(&self) {
        self.orders.send(FrontOrder::Pause).await.ok();
    }

    /// Ends the server: open connections have a short time to end. A thread that does not come back is left behind.
    pub(crate) async fn stop(self) {
        let Self { orders, ended: _, thread } = self;
        orders.try_send(FrontOrder::Stop).ok();
        // If the queue is full, its end tells the same.
        drop(orders);
        end_within(STOP_MAX, [thread]).await;
    }
}

/// Waits until the threads have ended, `within` at most: one that is stuck must not hold up the end of the process.
pub(crate) async fn end_within<const N: usize>(within: Duration, threads: [thread::JoinHandle<()>; N]) {
    let ended = async {
        while !threads.iter().all(thread::JoinHandle::is_finished) {
            sleep(STOP_CHECK).await;
        }
    };
    if timeout(within, ended).await.is_err() {
        let stuck = threads.iter().filter(|thread| !thread.is_finished());
        let stuck: Vec<_> = stuck.map(|thread| thread.thread().name().unwrap_or("?")).collect();
        tracing::warn!(
            threads = stuck.join(", "),
            seconds = within.as_secs(),
            "threads did not stop in time; they are left behind"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
    };

    use tokio::time::Instant;

    use super::*;
    use crate::settings::Settings;

    const WORKERS: usize = 2;

    fn started() -> (Arc<AppState>, SocketAddr, ClientServer) {
        let state = Arc::new(AppState::for_tests(Settings::for_tests()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = ClientServer::start(&state, listener, WORKERS).unwrap();
        (state, address, server)
    }

    fn send(address: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn answer(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn health_is_answered_while_every_worker_is_stuck() {
        let (state, address, server) = started();
        // This route waits for the lock, without giving the thread back.
        let lock = state.wire.lock();
        let stuck: Vec<_> = (0..2 * WORKERS)
            .map(|_| send(address, "GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        let mut longest = Duration::ZERO;
        for n in 0..100 {
            let method = if n % 2 == 0 { "GET" } else { "HEAD" };
            let request = format!("{method} /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
            let began = Instant::now();
            // In one piece, and byte by byte.
            let health = if n % 10 == 0 {
                let mut stream = send(address, "");
                request.bytes().for_each(|byte| stream.write_all(&[byte]).unwrap());
                answer(stream)
            } else {
                answer(send(address, &request))
            };
            longest = longest.max(began.elapsed());
            assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
            assert_eq!(health.contains("\"status\":\"ok\""), method == "GET", "{health}");
            assert!(health.contains("content-security-policy: "), "{health}");
        }
        // Without its own path it would wait for the lock for ever.
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        let foreign = send(address, "GET /health HTTP/1.1\r\nhost: example.org\r\n\r\n");
        assert!(answer(foreign).starts_with("HTTP/1.1 421 "), "the host is checked as everywhere");
        drop(lock);
        assert!(stuck.into_iter().all(|stream| answer(stream).starts_with("HTTP/1.1 503 ")));
        server.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_front_thread_that_does_not_come_back_does_not_hold_up_the_end_of_the_process() {
        let (release, stuck) = std::sync::mpsc::channel::<()>();
        let (orders, _received) = mpsc::channel(ORDERS_MAX);
        let (_end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            stuck.recv().ok();
        });
        let server = ClientServer { orders, ended, thread };
        server.pause().await;
        let began = Instant::now();
        timeout(Duration::from_secs(60), server.stop()).await.expect("it does not wait for the thread");
        assert!(began.elapsed() >= STOP_MAX, "but it has waited");
        drop(release);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stuck_worker_gets_no_connections_that_another_one_can_serve() {
        let (state, address, server) = started();
        // It serves more than the stuck one.
        let open: Vec<_> = (0..20).map(|_| send(address, "GET /ne")).collect();
        while state.connections.count() < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let lock = state.wire.lock();
        let stuck = send(address, "GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n");
        std::thread::sleep(Duration::from_millis(200));
        let mut given_to_it = 0;
        for _ in 0..40 {
            let mut stream = send(address, "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n");
            let mut status = [0; 12];
            match stream.read_exact(&mut status) {
                Ok(()) => assert_eq!(&status, b"HTTP/1.1 200"),
                Err(_) => given_to_it += 1,
            }
        }
        // One may have been, before it was known to be stuck.
        assert!(given_to_it <= 1, "{given_to_it} of 40");
        drop(lock);
        assert!(answer(stuck).starts_with("HTTP/1.1 503 "));
        drop(open);
        server.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_are_shared_by_the_workers_and_a_paused_server_leaves_them_in_the_backlog() {
        let (state, address, server) = started();
        let open: Vec<_> = (0..40).map(|_| send(address, "GET /ne")).collect();
        while state.connections.count() < 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.pause().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let waiting = send(address, "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(state.connections.count(), 40, "it was not accepted");
        drop(open);
        server.stop().await;
        assert_eq!(state.connections.count(), 0);
        drop(waiting);
    }
}
