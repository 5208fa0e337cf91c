//! Step 6 of the life of an item: its turn. The recorder owns the store's writer and nobody else does.
//!
//! ```text
//! SourceActors ──Record──► Recorder ──bounded channel──► the writer's thread: take what is queued → one commit
//!                                                        → head moves → bell rings → answers
//! ```
//!
//! The actor only passes on; the thread blocks on the disk. When the disk fails the process must stop: the thread
//! then says why and ends, and every later visit is answered with [`Closed`].

use std::{sync::Arc, thread, time::Duration};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use anyhow::Context as _;
use daemon::{
    Clock,
    watch::{BusyThread, Watch, WatchKind},
};
use futures_util::FutureExt as _;
use news::{Pause, Seq, SourceId, Timestamp};
use store::{AppendedVisit, LogReader, LogWriter, VisitRecord};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{board::Plate, metrics::Numbers};

/// Visits that wait for the writer; more than are ever under way by default, so that none waits to wait.
const QUEUE_VISITS: usize = 1024;
/// Visits in one commit: what is queued is taken together, but nobody waits for a commit of minutes.
const COMMIT_VISITS_MAX: usize = 256;
/// How often retention is looked after.
const RETAIN_EVERY: Duration = Duration::from_secs(5);

/// Puts a visit on record.
#[derive(Debug, Message)]
#[rtype(result = "Result<AppendedVisit, Closed>")]
pub(crate) struct Record(pub(crate) VisitRecord);

/// Sets or ends the pause of these sources; answered when that is on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Closed>")]
pub(crate) struct RecordPauses(pub(crate) Vec<(SourceId, Option<Pause>)>);

/// Remembers how these sources stand with their hubs by the time it is written.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Remember(pub(crate) Vec<Arc<Plate>>);

/// Take nothing more in; what is queued is still written.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Close;

/// The store can no longer be written, or the process is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is closed")]
pub(crate) struct Closed;

enum Job {
    Record(Box<VisitRecord>, oneshot::Sender<AppendedVisit>),
    Pause(Vec<(SourceId, Option<Pause>)>, oneshot::Sender<()>),
    Remember(Vec<Arc<Plate>>),
    Retain,
}

/// The actor's face of the writer.
pub(crate) struct Recorder {
    jobs: mpsc::Sender<Job>,
}

/// The writer's thread; joined at the end of the process.
pub(crate) struct WriterThread {
    thread: thread::JoinHandle<Result<(), store::AppendError>>,
}

/// What the writer's thread works with.
pub(crate) struct Desk {
    pub(crate) writer: LogWriter,
    pub(crate) reader: LogReader,
    pub(crate) bell: watch::Sender<Seq>,
    pub(crate) clock: Clock,
    pub(crate) numbers: Numbers,
    pub(crate) watch: Watch,
}

impl Recorder {
    /// Starts the writer's thread; `failed` is called on it once, when the log can no longer be written.
    pub(crate) fn start(
        desk: Desk,
        failed: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<(Self, WriterThread)> {
        let (jobs, queue) = mpsc::channel(QUEUE_VISITS);
        let work = move || {
            let result = desk.work(queue);
            if result.is_err() {
                failed();
            }
            result
        };
        let thread = thread::Builder::new().name("recorder".into()).spawn(work).context("start a thread")?;
        Ok((Self { jobs }, WriterThread { thread }))
    }

    /// Tells how many jobs wait, for as long as the process lives.
    pub(crate) fn queued(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        // A handle that counts would keep the writer from ending.
        let jobs = self.jobs.downgrade();
        move || jobs.upgrade().map_or(0, |jobs| jobs.max_capacity() - jobs.capacity())
    }
}

impl WriterThread {
    /// Waits until everything queued is on disk. Blocks; the recorder's actor must be gone by then.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn join(self) -> Result<(), store::AppendError> {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Actor for Recorder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        use actix::AsyncContext as _;
        ctx.run_interval(RETAIN_EVERY, |recorder, _| {
            // A full queue means that the writer has better things to do; there is a next time.
            recorder.jobs.try_send(Job::Retain).ok();
        });
    }
}

impl Handler<Record> for Recorder {
    type Result = ResponseFuture<Result<AppendedVisit, Closed>>;

    fn handle(&mut self, Record(visit): Record, _: &mut Self::Context) -> Self::Result {
        let jobs = self.jobs.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            jobs.send(Job::Record(Box::new(visit), reply)).await.map_err(|_| Closed)?;
            answer.await.map_err(|_| Closed)
        }
        .boxed_local()
    }
}

impl Handler<RecordPauses> for Recorder {
    type Result = ResponseFuture<Result<(), Closed>>;

    fn handle(&mut self, RecordPauses(orders): RecordPauses, _: &mut Self::Context) -> Self::Result {
        let jobs = self.jobs.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            jobs.send(Job::Pause(orders, reply)).await.map_err(|_| Closed)?;
            answer.await.map_err(|_| Closed)
        }
        .boxed_local()
    }
}

impl Handler<Remember> for Recorder {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Remember(plates): Remember, _: &mut Self::Context) -> Self::Result {
        let jobs = self.jobs.clone();
        // A closed log means that the process is about to end.
        async move { jobs.send(Job::Remember(plates)).await.unwrap_or_default() }.boxed_local()
    }
}

impl Handler<Close> for Recorder {
    type Result = ();

    fn handle(&mut self, _: Close, ctx: &mut Self::Context) {
        use actix::ActorContext as _;
        ctx.stop();
    }
}

#[expect(clippy::disallowed_methods, reason = "all of it on the recorder's own thread")]
impl Desk {
    fn work(mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), store::AppendError> {
        let busy = self.watch.busy_thread("recorder", WatchKind::Recorder);
        self.tell_sizes();
        while let Some(job) = queue.blocking_recv() {
            let mut visits = Vec::new();
            let mut replies = Vec::new();
            let mut pauses = Vec::new();
            let mut remember = Vec::new();
            let mut retain = false;
            let mut take = |job| match job {
                Job::Record(visit, reply) => {
                    visits.push(*visit);
                    replies.push(reply);
                }
                Job::Pause(orders, reply) => pauses.push((orders, reply)),
                Job::Remember(plates) => remember.extend(plates),
                Job::Retain => retain = true,
            };
            take(job);
            for _ in 1..COMMIT_VISITS_MAX {
                let Ok(job) = queue.try_recv() else { break };
                take(job);
            }
            self.commit(&busy, visits, replies)?;
            for (orders, reply) in pauses {
                let _busy = busy.during("recording pauses", "sources");
                self.writer.pause(orders)?;
                // Whoever ordered it may be gone: it is on disk all the same.
                reply.send(()).ok();
            }
            // After the visits, which hold what was known when they ended.
            if !remember.is_empty() {
                let _busy = busy.during("remembering", "subscriptions");
                let now = |plate: Arc<Plate>| (plate.source.id.clone(), plate.websub());
                self.writer.write_subscriptions(remember.into_iter().map(now).collect())?;
            }
            if retain {
                let _busy = busy.during("removing", "old events");
                self.retain()?;
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        busy: &BusyThread,
        visits: Vec<VisitRecord>,
        replies: Vec<oneshot::Sender<AppendedVisit>>,
    ) -> Result<(), store::AppendError> {
        if visits.is_empty() {
            return Ok(());
        }
        let _busy = busy.during("committing", format!("{} visits", visits.len()));
        let started = Instant::now();
        self.numbers.shown.commits.begin();
        #[cfg(feature = "drill")]
        crate::drill::stall_a_commit();
        let appended = self.writer.append(visits)?;
        self.numbers.shown.commits.end();
        self.numbers.append_seconds.observe(started.elapsed().as_secs_f64());
        self.numbers.appends.inc();
        self.bell.send_replace(self.reader.head());
        self.tell_sizes();
        for (reply, appended) in replies.into_iter().zip(appended) {
            // The actor may be gone (reload, stop): its visit is on record all the same.
            reply.send(appended).ok();
        }
        Ok(())
    }

    fn retain(&mut self) -> Result<(), store::AppendError> {
        let retained = self.writer.retain(Timestamp::from_millis(self.clock.now_millis()))?;
        self.numbers.events_removed.inc_by(retained.removed);
        self.tell_sizes();
        Ok(())
    }

    fn tell_sizes(&self) {
        self.numbers.log_bytes.set(self.writer.live_bytes().cast_signed());
        self.numbers.log_head.set(self.reader.head().0.cast_signed());
    }
}
