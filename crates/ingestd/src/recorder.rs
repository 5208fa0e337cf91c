//! Step 6 of the life of an item: group commit. The recorder is the only owner of the store's writer.
//!
//! ```text
//! SourceActors ──RecordVisit──► Recorder ──bounded channel──► writer thread: take what is queued → one commit
//!                                                             → the head changes → the wire is notified → answers
//! ```
//!
//! The actor only forwards, and not while nothing may be written; the thread blocks on the disk. When the disk fails, or
//! the thread panics, the process must stop: the thread then returns the error and ends, and every later visit is answered
//! with [`LogClosed`].

use std::{
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use actix::{Actor, Context, Handler, ResponseFuture};
use anyhow::Context as _;
use control::black_box::BlackBoxEvent;
use daemon::{
    Clock, black_box,
    watch::{BusyThread, QueueLength, Watch, WatchKind, WorkMark},
};
use futures_util::FutureExt as _;
use news::{HeldHost, Pause, Seq, SourceId};
use store::{AdoptedSource, AppendedVisit, BadExport, LogReader, LogWriter, SourceExport, VisitRecord};
use tokio::{
    sync::{
        mpsc::{self, error::TryRecvError},
        oneshot, watch,
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock_reading::ClockReading,
    error::WriterError,
    messages::{
        AdoptSources, ExportSources, LogClosed, RecordHeldHosts, RecordPauses, RecordRemovals,
        RecordSubscriptions, RecordVisit, Stop,
    },
    queue::memory::MemoryShare,
    recording::Recording,
    retention_clock::RetentionClock,
    sharing::ChangedSources,
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
/// How often the writer thread looks after the store if there is nothing to record.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sources, and the pause that each gets; `None` ends it.
type PauseOrders = Vec<(SourceId, Option<Pause>)>;

enum Job {
    Visit(Box<RecordVisit>, oneshot::Sender<AppendedVisit>),
    Pauses(PauseOrders, oneshot::Sender<()>),
    Subscriptions(Vec<Arc<SourceEntry>>),
    Removals(Vec<SourceId>),
    HeldHosts(Vec<HeldHost>, oneshot::Sender<()>),
    Export(Vec<SourceId>, oneshot::Sender<Vec<SourceExport>>),
    Adopt(Vec<AdoptedSource>, oneshot::Sender<Vec<BadExport>>),
    /// Nothing but a look after the store.
    Look,
}

/// Jobs that are done together.
#[derive(Default)]
struct JobBatch {
    count: usize,
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
    /// The last job; what is queued behind it is not done before it.
    handover: Option<HandoverJob>,
}

/// A job for sources that come from another daemon, or leave for one.
enum HandoverJob {
    Export(Vec<SourceId>, oneshot::Sender<Vec<SourceExport>>),
    Adopt(Vec<AdoptedSource>, oneshot::Sender<Vec<BadExport>>),
}

impl JobBatch {
    /// The jobs that are queued, as many as are done together; waits for the first one unless `is_busy`. `None` once the queue
    /// is closed.
    #[expect(clippy::disallowed_methods, reason = "on the writer thread")]
    fn next(queue: &mut mpsc::Receiver<Job>, is_busy: bool) -> Option<Self> {
        let mut jobs = Self::default();
        if !is_busy {
            jobs.add(queue.blocking_recv()?);
        }
        for _ in jobs.count..COMMIT_VISITS_MAX {
            if jobs.bytes >= COMMIT_BYTES_MAX || jobs.handover.is_some() {
                break;
            }
            match queue.try_recv() {
                Ok(job) => jobs.add(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if jobs.count == 0 => return None,
                Err(TryRecvError::Disconnected) => break,
            }
        }
        Some(jobs)
    }

    /// The sources whose state or list of keys these jobs change.
    fn changed_sources(&self) -> Vec<SourceId> {
        let visited = self.visits.iter().map(|visit| visit.source.id.clone());
        let paused = self.pauses.iter().flat_map(|(orders, _)| orders.iter().map(|(id, _)| id.clone()));
        let subscribed = self.subscriptions.iter().map(|entry| entry.source.id.clone());
        visited.chain(paused).chain(subscribed).collect()
    }

    fn add(&mut self, job: Job) {
        self.count += 1;
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
            Job::Export(sources, reply) => self.handover = Some(HandoverJob::Export(sources, reply)),
            Job::Adopt(sources, reply) => self.handover = Some(HandoverJob::Adopt(sources, reply)),
            Job::Look => {}
        }
    }
}

/// When old events are removed, and which.
struct RetentionProgress {
    clock: RetentionClock,
    /// When the last step was.
    last: Instant,
    /// More than one step removes is too old: the next step follows at once, after the jobs that are queued by then.
    is_behind: bool,
}

impl RetentionProgress {
    fn is_due(&self) -> bool {
        self.is_behind || self.last.elapsed() >= RETAIN_EVERY
    }
}

/// Forwards jobs to the writer thread.
pub(crate) struct Recorder {
    jobs: mpsc::Sender<Job>,
    recording: Recording,
    look_every: Duration,
    /// Set by the writer thread at its start.
    mark: Arc<OnceLock<WorkMark>>,
    /// Ends the wait of jobs that may not be written yet: their senders would keep the writer thread from ending.
    stopped: CancellationToken,
}

/// The writer thread; joined at the end of the process.
pub(crate) struct WriterThread {
    thread: thread::JoinHandle<Result<(), WriterError>>,
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
    /// Told which sources have changed, if that is of interest.
    pub(crate) changed: Option<ChangedSources>,
}

impl Recorder {
    /// Starts the writer thread; `failed` is called on it once, when the log can no longer be written. Then the writer is
    /// never dropped, because that may wait for ever for the disk that has failed.
    pub(crate) fn start(
        writer_loop: WriterLoop,
        failed: impl FnOnce(&WriterError) + Send + 'static,
    ) -> anyhow::Result<(Self, WriterThread)> {
        let (jobs, queue) = mpsc::channel(QUEUE_VISITS);
        let length = QueueLength::of(&jobs);
        let recording = writer_loop.recording.clone();
        let mark = Arc::<OnceLock<WorkMark>>::default();
        let of_thread = Arc::clone(&mark);
        let work = move || {
            let mut writer_loop = ManuallyDrop::new(writer_loop);
            let result = or_panic(|| writer_loop.run(queue, length, &of_thread))
                .and_then(|()| or_panic(|| Ok(ManuallyDrop::into_inner(writer_loop).writer.close()?)));
            result.inspect_err(failed)
        };
        let thread = thread::Builder::new().name("recorder".into()).spawn(work).context("start a thread")?;
        let stopped = CancellationToken::new();
        let recorder = Self { jobs, recording, look_every: LOOK_EVERY, mark, stopped };
        Ok((recorder, WriterThread { thread }))
    }

    /// For tests on simulated time, in which each second would wake the thread.
    #[cfg(test)]
    pub(crate) fn looking_every(self, look_every: Duration) -> Self {
        Self { look_every, ..self }
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
        let mark = Arc::clone(&self.mark);
        async move {
            stopped.run_until_cancelled(recording.writable()).await.ok_or(LogClosed)?;
            mark.get().inspect(|mark| mark.expect());
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

/// The result of `work`, or its panic.
fn or_panic(work: impl FnOnce() -> Result<(), WriterError>) -> Result<(), WriterError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(WriterError::Panicked(daemon::panics::message(&*panic).to_owned())))
}

impl WriterThread {
    /// Waits until everything queued is on disk. Blocks; the recorder's actor must have stopped.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn join(self) -> Result<(), WriterError> {
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Actor for Recorder {
    type Context = Context<Self>;

    fn started(&mut self, actor_ctx: &mut Self::Context) {
        use actix::AsyncContext as _;
        actor_ctx.run_interval(self.look_every, |recorder, _| {
            recorder.mark.get().inspect(|mark| mark.expect());
            // With a full queue, the thread looks without being told.
            recorder.jobs.try_send(Job::Look).ok();
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

impl Handler<ExportSources> for Recorder {
    type Result = ResponseFuture<Result<Vec<SourceExport>, LogClosed>>;

    fn handle(&mut self, ExportSources(sources): ExportSources, _: &mut Self::Context) -> Self::Result {
        self.ask(|reply| Job::Export(sources, reply))
    }
}

impl Handler<AdoptSources> for Recorder {
    type Result = ResponseFuture<Result<Vec<BadExport>, LogClosed>>;

    fn handle(&mut self, AdoptSources(sources): AdoptSources, _: &mut Self::Context) -> Self::Result {
        self.ask(|reply| Job::Adopt(sources, reply))
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
    fn run(
        &mut self,
        mut queue: mpsc::Receiver<Job>,
        length: impl Fn() -> QueueLength + Send + Sync + 'static,
        mark: &OnceLock<WorkMark>,
    ) -> Result<(), WriterError> {
        let busy = self.watch.busy_thread("recorder", WatchKind::Recorder);
        mark.get_or_init(|| busy.work_mark());
        let task = self.watch.task("recorder", Some(length));
        self.update_gauges();
        let mut retention = self.start_retention();
        loop {
            task.idles_until("a job");
            if queue.is_empty() {
                busy.idles();
            }
            let is_busy = retention.is_behind && !self.recording.holds_writes();
            let Some(jobs) = JobBatch::next(&mut queue, is_busy) else { return Ok(()) };
            task.works();
            #[cfg(feature = "drill")]
            crate::drill::fail_a_job()?;
            self.writer.check()?;
            self.work_on(&busy, jobs, queue.len())?;
            if retention.is_due() && !self.recording.holds_writes() {
                let _busy = busy.during("removing", "old events");
                self.retain(&mut retention)?;
            }
        }
    }

    /// `queued` is how many jobs wait behind these.
    fn work_on(
        &mut self,
        busy: &BusyThread,
        jobs: JobBatch,
        queued: usize,
    ) -> Result<(), store::AppendError> {
        let changed = self.changed.is_some().then(|| jobs.changed_sources());
        let JobBatch { visits, replies, memory, pauses, subscriptions, removals, .. } = jobs;
        self.commit(busy, visits, replies, memory, queued)?;
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
        if let (Some(all), Some(changed)) = (&self.changed, changed) {
            all.add(changed);
        }
        if let Some((hosts, reply)) = jobs.held_hosts {
            let _busy = busy.during("remembering", "held hosts");
            self.writer.write_held_hosts(&hosts)?;
            reply.send(()).ok();
        }
        jobs.handover.map_or(Ok(()), |job| self.hand_over(busy, job))
    }

    fn hand_over(&mut self, busy: &BusyThread, job: HandoverJob) -> Result<(), store::AppendError> {
        match job {
            HandoverJob::Export(sources, reply) => {
                let _busy = busy.during("exporting", format!("{} sources", sources.len()));
                reply.send(self.writer.export(&sources)?).ok();
            }
            HandoverJob::Adopt(mut sources, reply) => {
                let _busy = busy.during("adopting", format!("{} sources", sources.len()));
                for event in sources.iter_mut().flat_map(|adopted| &mut adopted.events) {
                    event.item.evidence = feed::evidence_of(&event.item);
                }
                // What asked for it may be gone; it is on disk anyway.
                reply.send(self.writer.adopt(sources)?).ok();
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        busy: &BusyThread,
        visits: Vec<VisitRecord>,
        replies: Vec<oneshot::Sender<AppendedVisit>>,
        memory: Vec<Arc<MemoryShare>>,
        queued: usize,
    ) -> Result<(), store::AppendError> {
        if visits.is_empty() {
            return Ok(());
        }
        let count = visits.len();
        let _busy = busy.during("committing", format!("{count} visits"));
        let started = Instant::now();
        self.metrics.progress.commits.begin();
        #[cfg(feature = "drill")]
        crate::drill::stall_a_commit();
        let appended = self.writer.append(visits)?;
        drop(memory);
        self.metrics.progress.commits.end();
        let took = started.elapsed();
        self.metrics.append_seconds.observe(took.as_secs_f64());
        self.metrics.appends.inc();
        black_box::record(BlackBoxEvent::Commit {
            visits: count as u64,
            queued: queued as u64,
            ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
        self.head_changed.send_replace(self.reader.head());
        store::crash::point("publish");
        self.update_gauges();
        for (reply, appended) in replies.into_iter().zip(appended) {
            // The actor may be gone (reload, stop); its visit is recorded anyway.
            reply.send(appended).ok();
        }
        Ok(())
    }

    fn start_retention(&self) -> RetentionProgress {
        let head = self.reader.head();
        // What cannot be read says nothing about the clock.
        let newest = || self.reader.page(Seq(head.0 - 1), 1, 1).ok()?.records.pop();
        let newest = (head > Seq::NONE).then(newest).flatten().map(|newest| newest.recorded);
        let now = ClockReading::now(&self.clock);
        let clock = RetentionClock::start(self.retention_age, now, newest);
        // The first step is at the start: the limits may have changed.
        RetentionProgress { clock, last: now.steady, is_behind: true }
    }

    /// One step, which is short, so that no visit waits long.
    fn retain(&mut self, retention: &mut RetentionProgress) -> Result<(), store::AppendError> {
        let now = ClockReading::now(&self.clock);
        let retained = self.writer.retain(retention.clock.aged_before(now))?;
        (retention.last, retention.is_behind) = (now.steady, retained.more);
        self.metrics.events_removed.inc_by(retained.removed);
        self.update_gauges();
        Ok(())
    }

    fn update_gauges(&self) {
        self.metrics.log_bytes.set(self.writer.live_bytes().cast_signed());
        self.metrics.journal_bytes.set(self.writer.journal_bytes().cast_signed());
        self.metrics.log_head.set(self.reader.head().0.cast_signed());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use daemon::metrics::MetricsRegistry;
    use news::{FeedUrl, Item, Source, Timestamp};
    use store::{Retention, StoreOptions};

    use super::*;
    use crate::{
        queue::memory::{MemoryBudget, MemoryPart},
        recording::PausedWork,
    };

    /// A visit of source `s<n>`, and its answer.
    fn visit_job(
        n: usize,
        items: Vec<Item>,
        memory: Option<Arc<MemoryShare>>,
    ) -> (Job, oneshot::Receiver<AppendedVisit>) {
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        let source = Arc::new(Source::new(SourceId::try_new(&format!("s{n}")).unwrap(), url));
        let (state, plan) = Default::default();
        let visit = VisitRecord { source, items, state, now: Timestamp::from_millis(0), plan };
        let (reply, answer) = oneshot::channel();
        (Job::Visit(Box::new(RecordVisit { visit, memory }), reply), answer)
    }

    fn no_length() -> QueueLength {
        QueueLength { queued: 0, capacity: 0 }
    }

    fn writer_loop(folder: &Path, options: &StoreOptions) -> WriterLoop {
        let (writer, reader) = store::open(folder, options).unwrap();
        let (head_changed, clock) = (watch::channel(Seq::NONE).0, Clock::system());
        let metrics = IngestMetrics::register(&MetricsRegistry::new());
        let recording = Recording::new(clock.clone(), metrics.clone());
        let (retention_age, watch) = (Duration::MAX, Watch::new());
        let changed = None;
        WriterLoop { writer, reader, head_changed, clock, retention_age, metrics, recording, watch, changed }
    }

    /// Commits that the writer makes of these visits, by what each uses of the memory budget, if all of them are queued.
    fn commits(visits: &[Option<usize>]) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let mut writer_loop = writer_loop(folder.path(), &StoreOptions::default());
        let metrics = writer_loop.metrics.clone();
        let budget = MemoryBudget::new(64 << 20, metrics.memory.clone());
        let (jobs, queue) = mpsc::channel(QUEUE_VISITS);
        let mut answers = Vec::new();
        for (n, bytes) in visits.iter().enumerate() {
            let memory = bytes.map(|bytes| {
                let share = budget.admit(true);
                share.use_for(MemoryPart::Queue, bytes);
                Arc::new(share)
            });
            let (job, answer) = visit_job(n, Vec::new(), memory);
            answers.push(answer);
            assert!(jobs.try_send(job).is_ok(), "there is room in the queue");
        }
        drop(jobs);
        writer_loop.run(queue, no_length, &OnceLock::new()).unwrap();
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
            let writer_loop = writer_loop(folder.path(), &StoreOptions::default());
            let paused = writer_loop.recording.clone();
            let (recorder, thread) = Recorder::start(writer_loop, |_| panic!("the log failed")).unwrap();
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

    #[test]
    fn what_leaves_and_what_comes_is_done_between_the_visits_before_and_after_it() {
        let item = |title: &str| {
            let item = Item { key: title.to_owned(), title: title.to_owned(), ..Item::default() };
            Item { evidence: feed::evidence_of(&item), ..item }
        };
        let folder = tempfile::tempdir().unwrap();
        let mut writer_loop = writer_loop(folder.path(), &StoreOptions::default());
        let (first, _first) = visit_job(0, vec![item("one")], None);
        let (second, mut answer) = visit_job(0, ["one", "elsewhere", "two"].map(item).to_vec(), None);
        let Job::Visit(recorded, _) = &first else { panic!("it is a visit") };
        let source = Arc::clone(&recorded.visit.source);
        let id = news::Cursor { epoch: writer_loop.reader.epoch().clone(), seq: Seq(9) };
        let first_seen = Timestamp::from_millis(0);
        // As it is read from its JSON.
        let without_evidence = Item { evidence: news::ItemEvidence::default(), ..item("elsewhere") };
        let event = news::Event::new(id, news::EventKind::Item, &source, first_seen, without_evidence);
        let adopted =
            AdoptedSource { source: source.id.clone(), state: None, seen: None, events: vec![event] };
        let (jobs, queue) = mpsc::channel(QUEUE_VISITS);
        let ((reply, mut exported), (done, mut bad)) = (oneshot::channel(), oneshot::channel());
        let export = Job::Export(vec![source.id.clone()], reply);
        for job in [first, export, Job::Adopt(vec![adopted], done), second] {
            assert!(jobs.try_send(job).is_ok());
        }
        drop(jobs);
        writer_loop.run(queue, no_length, &OnceLock::new()).unwrap();
        let exported = exported.try_recv().unwrap();
        assert_eq!(
            exported.iter().map(|export| (&export.source, export.head)).collect::<Vec<_>>(),
            [(&source.id, Seq(1))]
        );
        assert_eq!((bad.try_recv().unwrap(), answer.try_recv().unwrap().new), (Vec::new(), 1));
        assert_eq!(writer_loop.metrics.appends.get(), 2, "the visits are not committed together");
    }

    const STEP: u64 = LogWriter::REMOVED_MAX as u64;

    /// A writer whose log has three and a half steps of retention too many events.
    fn writer_that_is_behind(folder: &Path) -> WriterLoop {
        let unlimited = StoreOptions { new_bytes_max: u64::MAX, ..StoreOptions::default() };
        let mut writer_loop = writer_loop(folder, &unlimited);
        let item = |n: u64| Item { key: n.to_string(), title: n.to_string(), ..Item::default() };
        let (Job::Visit(recorded, _), _) = visit_job(0, (0..STEP * 7 / 2 + 10).map(item).collect(), None)
        else {
            panic!("it is a visit")
        };
        writer_loop.writer.append(vec![recorded.visit]).unwrap();
        drop(writer_loop);
        let retention = Retention { events: 10, ..StoreOptions::default().retention };
        self::writer_loop(folder, &StoreOptions { retention, ..StoreOptions::default() })
    }

    #[test]
    fn retention_that_is_behind_yields_to_queued_visits_and_to_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer_loop = writer_that_is_behind(folder.path());
        let (jobs, queue) = mpsc::channel(QUEUE_VISITS);
        let mut answers = Vec::new();
        for n in 0..=COMMIT_VISITS_MAX {
            let (job, answer) = visit_job(n, Vec::new(), None);
            assert!(jobs.try_send(job).is_ok());
            answers.push(answer);
        }
        drop(jobs);
        writer_loop.run(queue, no_length, &OnceLock::new()).unwrap();
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_ok()), "each visit is answered");
        let metrics = &writer_loop.metrics;
        assert_eq!((metrics.appends.get(), metrics.events_removed.get()), (2, 2 * STEP));
    }

    #[test]
    fn retention_that_is_behind_goes_on_until_nothing_is_too_old() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer_loop = writer_that_is_behind(folder.path());
        let (metrics, reader) = (writer_loop.metrics.clone(), writer_loop.reader.clone());
        let (jobs, queue) = mpsc::channel(QUEUE_VISITS);
        let writer = thread::spawn(move || writer_loop.run(queue, no_length, &OnceLock::new()));
        let deadline = Instant::now() + Duration::from_secs(60);
        while metrics.events_removed.get() < STEP * 7 / 2 {
            assert!(Instant::now() < deadline, "{} removed", metrics.events_removed.get());
            thread::sleep(Duration::from_millis(5));
        }
        drop(jobs);
        writer.join().unwrap().unwrap();
        assert_eq!(reader.head().0 - reader.oldest().0, 9, "ten are kept");
    }
}
