//! Requests to the ingestion daemon: a worker queues one, the intake's thread sends it and returns the answer.
//!
//! ```text
//! worker ──RequestQueue──► bounded queue ──► Forwarder (the intake's thread) ──► daemon
//!    ▲                                                                             │
//!    └──────────────────────────────── answer ◄────────────────────────────────────┘
//! ```
//!
//! No worker ever waits for the daemon without its own deadline, and none is held up by a full queue.

use std::{sync::Arc, time::Duration};

use daemon::watch::{QueueLength, Watch, WatchedTask};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep},
};

/// The longest pause after an exchange: one that was not answered costs nothing.
const PAUSE_MAX: Duration = Duration::from_millis(20);

type Pending<Q, A> = (Q, oneshot::Sender<A>);

/// The workers' end: takes requests `Q` and returns answers `A`.
#[derive(Debug)]
pub(crate) struct RequestQueue<Q, A>(mpsc::Sender<Pending<Q, A>>);

/// The intake's end: sends the requests.
pub(crate) struct Forwarder<Q, A> {
    requests: mpsc::Receiver<Pending<Q, A>>,
    in_flight: Arc<Semaphore>,
    /// The workers' end, to see how many requests wait.
    queue: mpsc::WeakSender<Pending<Q, A>>,
    watched: Option<WatchedTask>,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

impl<Q, A> RequestQueue<Q, A> {
    /// A queue of at most `waiting_max` requests, of which `in_flight_max` are with the daemon at the same time.
    pub(crate) fn new(waiting_max: usize, in_flight_max: usize) -> (Self, Forwarder<Q, A>) {
        let (sender, requests) = mpsc::channel(waiting_max);
        let (queue, in_flight) = (sender.downgrade(), Arc::new(Semaphore::new(in_flight_max)));
        (Self(sender), Forwarder { requests, in_flight, queue, watched: None })
    }

    /// Queues a request. Dropping the receiver withdraws it.
    ///
    /// # Errors
    /// If the queue is full.
    pub(crate) fn send(&self, request: Q) -> Result<oneshot::Receiver<A>, QueueFull> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send((request, reply)).map_err(|_| QueueFull)?;
        Ok(answer)
    }
}

#[cfg(test)]
impl<Q, A> Forwarder<Q, A> {
    /// The next request, for a test that answers it itself.
    pub(crate) fn try_next(&mut self) -> Option<(Q, oneshot::Sender<A>)> {
        self.requests.try_recv().ok()
    }
}

impl<Q: Send + 'static, A: Send + 'static> Forwarder<Q, A> {
    /// Shows in `/watch` what it waits for, and how many requests wait for it.
    pub(crate) fn show(&mut self, watch: &Watch, name: &'static str) {
        let length = self.queue.upgrade().map(|queue| QueueLength::of(&queue));
        self.watched = Some(watch.task(name, length));
    }

    fn tell(&self, tell: impl FnOnce(&WatchedTask)) {
        if let Some(task) = &self.watched {
            tell(task);
        }
    }

    /// Sends the requests in order, until the workers are gone. A request that was withdrawn is not sent.
    pub(crate) async fn run<F>(&mut self, exchange: impl Fn(Q) -> F)
    where
        F: Future<Output = A> + Send + 'static,
    {
        self.run_with(exchange, false).await;
    }

    /// The same, and after each exchange a pause that is as long: half of the time is left to what is more urgent, and
    /// more of it the busier the machine is.
    pub(crate) async fn run_sparingly<F>(&mut self, exchange: impl Fn(Q) -> F)
    where
        F: Future<Output = A> + Send + 'static,
    {
        self.run_with(exchange, true).await;
    }

    async fn run_with<F>(&mut self, exchange: impl Fn(Q) -> F, is_sparing: bool)
    where
        F: Future<Output = A> + Send + 'static,
    {
        loop {
            self.tell(|task| task.waits_for("answers of the daemon"));
            let permit = Arc::clone(&self.in_flight).acquire_owned().await.expect("it is never closed");
            self.tell(|task| task.idles_until("a request"));
            let Some((request, reply)) = self.requests.recv().await else { return };
            if reply.is_closed() {
                continue;
            }
            let answer = exchange(request);
            tokio::spawn(async move {
                let began = Instant::now();
                // The client may have left.
                reply.send(answer.await).ok();
                if is_sparing {
                    sleep(began.elapsed().min(PAUSE_MAX)).await;
                }
                drop(permit);
            });
        }
    }
}
