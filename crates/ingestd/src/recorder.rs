//! Step 6 of the life of an item: group commit. The recorder is the only owner of the store's writer.
//!
//! ```text
//! SourceActors ──RecordVisit──► Recorder ──bounded channel──► writer thread: take what is queued → one commit
//!                                                             → the head changes → the wire is notified → answers
//! ```
//!
//! The actor only forwards, and not while nothing may be written; the thread blocks on the disk. When the disk fails the process must stop: the thread then
//! returns the error and ends, and every later visit is answered with [`LogClosed`].

use std::{sync::Arc, thread, time::Duration};

use actix::{Actor, Context, Handler, ResponseFuture};
use anyhow::Context as _;
use daemon::{
    Clock,
    watch::{BusyThread, Watch, WatchKind},
};
use futures_util::FutureExt as _;
use news::{HeldHost, Pause, Seq, SourceId, Timestamp};
use store::{AppendedVisit, LogReader, LogWriter, VisitRecord};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    messages::{
        LogClosed, RecordHeldHosts, RecordPauses, RecordRemovals, RecordSubscriptions, RecordVisit, Stop,
    },
    queue::memory::MemoryShare,
    recording::Recording,
    status::{metrics::IngestMetrics, registry::SourceEntry},
};

/// Capacity of the queue to the writer; by default more visits than can be in progress, so that none waits for room.
const QUEUE_VISITS: usize = 1024;
/// Visits in one commit: what is queued is committed together, but a commit must not take minutes.
const COMMIT_VISITS_MAX: usize = 256;
/// Bytes of the memory budget that the visits of one commit use; it has at least one visit.
const COMMIT_BYTES_MAX: usize = 16 << 20;
/// How often retention is applied.
const RETAIN_EVERY: Duration = Duration::from_secs(5);

/// Sources, and the pause that each gets; `None` ends it.
type PauseOrders = Vec<(SourceId, Option<Pause>)>;

enum Job {
    Visit(Box<RecordVisit>, oneshot::Sender<AppendedVisit>),
    Pauses(PauseOrders, oneshot::Sender<()>),
    Subscriptions(Vec<Arc<SourceEntry>>),
    Removals(Vec<SourceId>),
    HeldHosts(Vec<HeldHost>, oneshot::Sender<()>),
    Retain,
}

/// Jobs that are done together.
#[derive(Default)]
struct JobBatch {
    visits: Vec<VisitRecord>,
    replies: Vec<oneshot::Sender<AppendedVisit>>,
    /// What the visits use of the memory budget, and how much that is in bytes.
    memory: Vec<Arc<MemoryShare>>,
    bytes: usize,
    pauses: Vec<(PauseOrders, oneshot::Sender<()>)>,
    subscriptions: Vec<Arc<SourceEntry>>,
    removals: Vec<SourceId>,
    /// The newest counts.
    held_hosts: Option<(Vec<HeldHost>, oneshot::Sender<()>)>,
    retain: bool,
}

impl JobBatch {
    fn add(&mut self, job: Job) {
        match job {
            Job::Visit(recorded, reply) => {
                let RecordVisit { visit, memory } = *recorded;
                self.bytes += memory.as_ref().map_or(0, |share| share.bytes());
                self.visits.push(visit);
                self.memory.extend(memory);
                self.replies.push(reply);
            }
            Job::Pauses(orders, reply) => self.pauses.push((orders, reply)),
            Job::Subscriptions(entries) => self.subscriptions.extend(entries),
            Job::Removals(sources) => self.removals.extend(sources),
            Job::HeldHosts(hosts, reply) => self.held_hosts = Some((hosts, reply)),
            Job::Retain => self.retain = true,
        }
    }
}

/// Forwards jobs to the writer thread.
pub(crate) struct Recorder {
    jobs: mpsc::Sender<Job>,
    recording: Recording,
    /// Ends the wait of jobs that may not be written yet: their senders would keep the writer thread from ending.
    stopped: CancellationToken,
}

/// The writer thread; joined at the end of the process.
pub(crate) struct WriterThread {
    thread: thread::JoinHandle<Result<(), store::AppendError>>,
}

/// What the writer thread owns.
pub(crate) struct WriterLoop {
    pub(crate) writer: LogWriter,
    pub(crate) reader: LogReader,
    pub(crate) head_changed: watch::Sender<Seq>,
    pub(crate) clock: Clock,
    pub(crate) retention_age: Duration,
    pub(crate) metrics: IngestMetrics,
    pub(crate) recording: Recording,
    pub(crate) watch: Watch,
}

impl Recorder {
    /// Starts the writer thread; `failed` is called on it once, when the log can no longer be written.
    pub(crate) fn start(
        writer_loop: WriterLoop,
        failed: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<(Self, WriterThread)> {
        let (jobs, queue) = mpsc::channel(QUEUE_VISITS);
        let recording = writer_loop.recording.clone();
        let work = move || {
            let result = writer_loop.run(queue);
            if result.is_err() {
                failed();
            }
            result
        };
        let thread = thread::Builder::new().name("recorder".into()).spawn(work).context("start a thread")?;
        Ok((Self { jobs, recording, stopped: CancellationToken::new() }, WriterThread { thread }))
    }

    /// Queues a job for the writer thread, as soon as the store may be written to, and completes with its answer.
    fn ask<T: 'static>(
        &self,
        job: impl FnOnce(oneshot::Sender<T>) -> Job + 'static,
    ) -> ResponseFuture<Result<T, LogClosed>> {
        let (reply, answer) = oneshot::channel();
        let queued = self.queue(job(reply));
        async move {
            queued.await?;
            answer.await.map_err(|_| LogClosed)
        }
        .boxed_local()
    }

    /// Queues a job for the writer thread, as soon as the store may be written to.
    fn queue(&self, job: Job) -> impl Future<Output = Result<(), LogClosed>> + use<> {
        let (jobs, recording, stopped) = (self.jobs.clone(), self.recording.clone(), self.stopped.clone());
        async move {
            stopped.run_until_cancelled(recording.writable()).await.ok_or(LogClosed)?;
            jobs.send(job).await.map_err(|_| LogClosed)
        }
    }

    /// A function that returns how many jobs wait.
    pub(crate) fn queued(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        // A strong handle would keep the writer thread from ending.
        let jobs = self.jobs.downgrade();
        move || jobs.upgrade().map_or(0, |jobs| jobs.max_capacity() - jobs.capacity())
    }
}

impl WriterThread {
    /// Waits until everything queued is on disk. Blocks; the recorder's actor must have stopped.
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

    fn started(&mut self, actor_ctx: &mut Self::Context) {
        use actix::AsyncContext as _;
        actor_ctx.run_interval(RETAIN_EVERY, |recorder, _| {
            if !recorder.recording.holds_writes() {
                // With a full queue, retention waits for the next time.
                recorder.jobs.try_send(Job::Retain).ok();
            }
        });
    }
}

impl Handler<RecordVisit> for Recorder {
    type Result = ResponseFuture<Result<AppendedVisit, LogClosed>>;

    fn handle(&mut self, visit: RecordVisit, _: &mut Self::Context) -> Self::Result {
        self.ask(|reply| Job::Visit(Box::new(visit), reply))
    }
}

impl Handler<RecordPauses> for Recorder {
    type Result = ResponseFuture<Result<(), LogClosed>>;

    fn handle(&mut self, RecordPauses(orders): RecordPauses, _: &mut Self::Context) -> Self::Result {
        self.ask(|reply| Job::Pauses(orders, reply))
    }
}

impl Handler<RecordHeldHosts> for Recorder {
    type Result = ResponseFuture<Result<(), LogClosed>>;

    fn handle(&mut self, RecordHeldHosts(hosts): RecordHeldHosts, _: &mut Self::Context) -> Self::Result {
        self.ask(|reply| Job::HeldHosts(hosts, reply))
    }
}

impl Handler<RecordSubscriptions> for Recorder {
    type Result = ResponseFuture<()>;

    fn handle(
        &mut self,
        RecordSubscriptions(entries): RecordSubscriptions,
        _: &mut Self::Context,
    ) -> Self::Result {
        // A closed log means that the process is about to end.
        self.queue(Job::Subscriptions(entries)).map(Result::unwrap_or_default).boxed_local()
    }
}

impl Handler<RecordRemovals> for Recorder {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, RecordRemovals(sources): RecordRemovals, _: &mut Self::Context) -> Self::Result {
        // A closed log means that the process is about to end.
        self.queue(Job::Removals(sources)).map(Result::unwrap_or_default).boxed_local()
    }
}

/// No further jobs are accepted; what is queued is still written. What waits until it may be written is not.
impl Handler<Stop> for Recorder {
    type Result = ();

    fn handle(&mut self, _: Stop, actor_ctx: &mut Self::Context) {
        use actix::ActorContext as _;
        self.stopped.cancel();
        actor_ctx.stop();
    }
}

#[expect(clippy::disallowed_methods, reason = "all of it on the writer thread")]
impl WriterLoop {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), store::AppendError> {
        let busy = self.watch.busy_thread("recorder", WatchKind::Recorder);
        self.update_gauges();
        while let Some(job) = queue.blocking_recv() {
            let mut jobs = JobBatch::default();
            jobs.add(job);
            for _ in 1..COMMIT_VISITS_MAX {
                if jobs.bytes >= COMMIT_BYTES_MAX {
                    break;
                }
                let Ok(job) = queue.try_recv() else { break };
                jobs.add(job);
            }
            let JobBatch { visits, replies, memory, pauses, subscriptions, removals, .. } = jobs;
            self.commit(&busy, visits, replies, memory)?;
            for (orders, reply) in pauses {
                let _busy = busy.during("recording pauses", "sources");
                self.writer.pause(orders)?;
                // The client may have gone; the pause is on disk anyway.
                reply.send(()).ok();
            }
            // After the visits, whose records have the subscriptions as they were when the visits ended.
            if !subscriptions.is_empty() {
                let _busy = busy.during("remembering", "subscriptions");
                let current = |entry: Arc<SourceEntry>| (entry.source.id.clone(), entry.websub());
                self.writer.write_subscriptions(subscriptions.into_iter().map(current).collect())?;
            }
            if !removals.is_empty() {
                let _busy = busy.during("remembering", "removed sources");
                self.writer.mark_removed(removals)?;
            }
            if let Some((hosts, reply)) = jobs.held_hosts {
                let _busy = busy.during("remembering", "held hosts");
                self.writer.write_held_hosts(&hosts)?;
                reply.send(()).ok();
            }
            if jobs.retain {
                let _busy = busy.during("removing", "old events");
                self.retain()?;
            }
        }
        self.writer.close()
    }

    fn commit(
        &mut self,
        busy: &BusyThread,
        visits: Vec<VisitRecord>,
        replies: Vec<oneshot::Sender<AppendedVisit>>,
        memory: Vec<Arc<MemoryShare>>,
    ) -> Result<(), store::AppendError> {
        if visits.is_empty() {
            return Ok(());
        }
        let _busy = busy.during("committing", format!("{} visits", visits.len()));
        let started = Instant::now();
        self.metrics.progress.commits.begin();
        #[cfg(feature = "drill")]
        crate::drill::stall_a_commit();
        let appended = self.writer.append(visits)?;
        drop(memory);
        self.metrics.progress.commits.end();
        self.metrics.append_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.appends.inc();
        self.head_changed.send_replace(self.reader.head());
        store::crash::point("publish");
        self.update_gauges();
        for (reply, appended) in replies.into_iter().zip(appended) {
            // The actor may be gone (reload, stop); its visit is recorded anyway.
            reply.send(appended).ok();
        }
        Ok(())
    }

    fn retain(&mut self) -> Result<(), store::AppendError> {
        let age = i64::try_from(self.retention_age.as_millis()).unwrap_or(i64::MAX);
        let aged_before = Timestamp::from_millis(self.clock.now_millis().saturating_sub(age));
        let retained = self.writer.retain(Some(aged_before))?;
        self.metrics.events_removed.inc_by(retained.removed);
        self.update_gauges();
        Ok(())
    }

    fn update_gauges(&self) {
        self.metrics.log_bytes.set(self.writer.live_bytes().cast_signed());
        self.metrics.log_head.set(self.reader.head().0.cast_signed());
    }
}

#[cfg(test)]
mod tests {
    use daemon::metrics::MetricsRegistry;
    use news::{FeedUrl, Source};

    use super::*;
    use crate::{
        queue::memory::{MemoryBudget, MemoryPart},
        recording::PausedWork,
    };

    /// Commits that the writer makes of these visits, by what each uses of the memory budget, if all of them are queued.
    fn commits(visits: &[Option<usize>]) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let (writer, reader) = store::open(folder.path(), &store::StoreOptions::default()).unwrap();
        let metrics = IngestMetrics::register(&MetricsRegistry::new());
        let budget = MemoryBudget::new(64 << 20, metrics.memory.clone());
        let (jobs, queue) = mpsc::channel(QUEUE_VISITS);
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        let mut answers = Vec::new();
        for (n, bytes) in visits.iter().enumerate() {
            let source = Arc::new(Source::new(SourceId::try_new(&format!("s{n}")).unwrap(), url.clone()));
            let memory = bytes.map(|bytes| {
                let share = budget.admit(true);
                share.use_for(MemoryPart::Queue, bytes);
                Arc::new(share)
            });
            let now = Timestamp::from_millis(0);
            let (items, state, plan) = Default::default();
            let visit = VisitRecord { source, items, state, now, plan };
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            let job = Job::Visit(Box::new(RecordVisit { visit, memory }), reply);
            assert!(jobs.try_send(job).is_ok(), "there is room in the queue");
        }
        drop(jobs);
        let (head_changed, clock) = (watch::channel(Seq::NONE).0, Clock::system());
        let recording = Recording::new(clock.clone(), metrics.clone());
        let writer_loop = WriterLoop {
            writer,
            reader,
            head_changed,
            clock,
            retention_age: Duration::MAX,
            metrics: metrics.clone(),
            recording,
            watch: Watch::new(),
        };
        writer_loop.run(queue).unwrap();
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_ok()), "each visit is answered");
        assert!(budget.admit(true).grow_to(64 << 20).is_none(), "and its memory is free");
        metrics.appends.get()
    }

    #[test]
    fn a_commit_takes_no_more_than_its_bytes_of_queued_visits() {
        const MIB: usize = 1 << 20;
        assert_eq!(commits(&[None; 40]), 1, "control: what uses no memory is committed together");
        assert_eq!(commits(&[Some(MIB / 4); 40]), 1, "control: 10 MiB");
        assert_eq!(commits(&[Some(MIB); 16]), 1);
        assert_eq!(commits(&[Some(MIB); 17]), 2);
        assert_eq!(commits(&[Some(MIB); 40]), 3);
        assert_eq!(
            commits(&[Some(20 * MIB), None, Some(20 * MIB)]),
            2,
            "one visit may be larger than a commit"
        );
        assert_eq!(commits(&[None; COMMIT_VISITS_MAX + 1]), 2);
    }

    #[test]
    fn while_nothing_may_be_written_visits_wait_and_a_stop_does_not_wait_for_them() {
        use news::RecordingPauseReason::DiskSpace;

        actix_rt::System::new().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (writer, reader) = store::open(folder.path(), &store::StoreOptions::default()).unwrap();
            let metrics = IngestMetrics::register(&MetricsRegistry::new());
            let (head_changed, clock) = (watch::channel(Seq::NONE).0, Clock::system());
            let recording = Recording::new(clock.clone(), metrics.clone());
            let (paused, watch, retention_age) = (recording.clone(), Watch::new(), Duration::MAX);
            let writer_loop =
                WriterLoop { writer, reader, head_changed, clock, retention_age, metrics, recording, watch };
            let (recorder, thread) = Recorder::start(writer_loop, || panic!("the log failed")).unwrap();
            let recorder = recorder.start();
            let visit = || {
                let url = FeedUrl::try_new("https://example.org/feed").unwrap();
                let source = Arc::new(Source::new(SourceId::try_new("a").unwrap(), url));
                let (items, state, plan) = Default::default();
                let now = Timestamp::from_millis(0);
                RecordVisit { visit: VisitRecord { source, items, state, now, plan }, memory: None }
            };
            paused.pause(DiskSpace, PausedWork::NewVisits, "3 left".into());
            recorder.send(visit()).await.unwrap().unwrap();
            paused.pause(DiskSpace, PausedWork::AllWrites, "1 left".into());
            let mut held = Box::pin(recorder.send(visit()));
            let still = tokio::time::timeout(Duration::from_millis(100), &mut held).await;
            assert!(still.is_err(), "it is answered when it is on disk");
            paused.resume(DiskSpace);
            held.await.unwrap().unwrap();
            // What is held when the daemon stops is not recorded: the source has it at the next start.
            paused.pause(DiskSpace, PausedWork::AllWrites, "1 left".into());
            let lost = recorder.send(visit());
            recorder.send(Stop).await.unwrap();
            drop(recorder);
            assert!(matches!(lost.await, Ok(Err(LogClosed))));
            tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap();
        });
    }
}
