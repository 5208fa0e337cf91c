//! A worker: a thread with an event loop that serves connections and streams.

use std::{sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use daemon::watch::QueueLength;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{sleep, timeout},
};

use super::connection_service;
use crate::{
    connection::{AcceptedConnection, capacity::WorkerLoad},
    state::AppState,
    stream::worker_streams::WorkerStreams,
};

/// Connections that wait for a worker that is busy; one more is given to another worker.
const QUEUE_MAX: usize = 16_384;
/// How long connections have to end when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// How often a worker that stops looks whether they have.
const STOP_CHECK: Duration = Duration::from_millis(10);

/// The front loop's end of a worker. The worker ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    number: usize,
    queue: mpsc::Sender<AcceptedConnection>,
    load: WorkerLoad,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    /// Starts its thread.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start(state: &Arc<AppState>) -> anyhow::Result<Self> {
        let number = state.worker_lag.add_worker();
        let (queue, received) = mpsc::channel(QUEUE_MAX);
        let (state, load) = (Arc::clone(state), WorkerLoad::default());
        let (of_thread, length) = (load.clone(), QueueLength::of(&queue));
        let run = move || {
            if let Err(error) = run(&state, number, received, length, &of_thread) {
                tracing::error!("loop" = %format_args!("worker-{number}"), error = format!("{error:#}"), "a worker has failed");
            }
        };
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(run);
        Ok(Self { number, queue, load, thread: thread.context("start a thread")? })
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Connections that it has.
    pub(super) fn load(&self) -> usize {
        self.load.count()
    }

    /// Connections that it has not looked at yet: many while it is busy.
    pub(super) fn backlog(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Its thread has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Gives it a connection.
    ///
    /// # Errors
    /// The connection, if too many wait for the worker or it has ended.
    pub(super) fn take(&self, mut accepted: AcceptedConnection) -> Result<(), AcceptedConnection> {
        accepted.share = Some(self.load.add_one());
        self.queue.try_send(accepted).map_err(|error| match error {
            TrySendError::Full(mut accepted) | TrySendError::Closed(mut accepted) => {
                accepted.share = None;
                accepted
            }
        })
    }

    /// Makes the worker end; returns its thread.
    pub(super) fn stop(self) -> thread::JoinHandle<()> {
        self.thread
    }
}

#[cfg(test)]
impl Worker {
    /// A worker whose thread has ended.
    pub(super) fn ended(state: &Arc<AppState>) -> Self {
        let worker = Self {
            number: state.worker_lag.add_worker(),
            queue: mpsc::channel(1).0,
            load: WorkerLoad::default(),
            thread: thread::spawn(|| ()),
        };
        while !worker.has_ended() {
            thread::yield_now();
        }
        worker
    }
}

fn run(
    state: &Arc<AppState>,
    number: usize,
    queue: mpsc::Receiver<AcceptedConnection>,
    length: impl Fn() -> QueueLength + Send + Sync + 'static,
    load: &WorkerLoad,
) -> anyhow::Result<()> {
    let runtime = actix_web::rt::Runtime::new().context("start an event loop")?;
    runtime.block_on(serve(state, number, queue, length, load))
}

async fn serve(
    state: &Arc<AppState>,
    number: usize,
    mut queue: mpsc::Receiver<AcceptedConnection>,
    length: impl Fn() -> QueueLength + Send + Sync + 'static,
    load: &WorkerLoad,
) -> anyhow::Result<()> {
    let task = state.watch.task(format!("worker-{number}"), Some(length));
    let (streams, mut ticks) = WorkerStreams::start(Arc::clone(state), number);
    let serve = connection_service::start(state, Some(streams)).await?;
    loop {
        task.idles_until("a connection");
        tokio::select! {
            accepted = queue.recv() => match accepted {
                Some(accepted) => {
                    task.works();
                    serve(accepted);
                }
                None => break,
            },
            // Without it no stream would get a heartbeat.
            ended = &mut ticks => return ended.context("tick"),
        }
    }
    let ended = async {
        while load.count() > 0 {
            sleep(STOP_CHECK).await;
        }
    };
    timeout(STOP_GRACE, ended).await.ok();
    Ok(())
}
