//! The thread on which pages are made. Jobs take turns: each works for a slice, bounded in events and in time, so that
//! a long search does not delay a short page. How many jobs there are is bounded, in total and per address.
//!
//! A job never blocks; it may wait for the daemon. A job whose client has left is dropped at its next turn.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use daemon::{
    metrics::MetricsRegistry,
    watch::{QueueLength, Watch, WatchKind},
};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    address_counts::{AddressCounts, CountLimit, CountLimits},
    client_address::ClientAddress,
    settings::Settings,
};

/// Jobs at the same time.
const JOBS_MAX: usize = 256;
/// Of these, one address may have a quarter of its streams (`gateway.clients_per_address_max`), but at least so many.
const JOBS_PER_ADDRESS_MIN: usize = 8;
/// Events, sources or other things that a job looks at in one turn.
const SLICE_STEPS: u32 = 256;
/// How long a turn lasts at most, about: a step takes some microseconds.
const SLICE_TIME: Duration = Duration::from_micros(500);
/// Turns after which the runtime looks for new jobs, timers and answers of the daemon.
const TURNS_PER_POLL: u32 = 4;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The handlers' end.
#[derive(Debug)]
pub(crate) struct PagePool {
    jobs: mpsc::Sender<Job>,
    open: Arc<OpenJobs>,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
}

/// The thread's end.
pub(crate) struct PoolJobs {
    queue: mpsc::Receiver<Job>,
    /// The handlers' end, to see how many jobs wait.
    handlers: mpsc::WeakSender<Job>,
}

/// Why a page was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageRefused {
    /// This address has too many jobs.
    Address,
    /// Its IPv6 /48 has too many jobs.
    Network,
    /// There are too many jobs.
    Total,
    /// It was not finished in time.
    Late,
}

#[derive(Debug)]
struct OpenJobs {
    counts: Mutex<AddressCounts>,
    jobs: Gauge,
}

/// Counts a job until it is dropped.
struct JobPermit {
    open: Arc<OpenJobs>,
    address: ClientAddress,
}

/// For whom a job is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageClient {
    pub(crate) address: ClientAddress,
    pub(crate) limits: CountLimits,
}

impl PageClient {
    pub(crate) fn new(address: ClientAddress, settings: &Settings) -> Self {
        let per_address = (settings.clients_per_address_max / 4).max(JOBS_PER_ADDRESS_MIN);
        Self { address, limits: CountLimits::new(JOBS_MAX, per_address, settings.addresses_per_network) }
    }
}

impl PageRefused {
    const ALL: [Self; 4] = [Self::Address, Self::Network, Self::Total, Self::Late];

    /// Its name in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Address => "jobs_per_address",
            Self::Network => "addresses_per_network",
            Self::Total => "jobs",
            Self::Late => "deadline",
        }
    }
}

impl PagePool {
    pub(crate) fn new(registry: &MetricsRegistry) -> (Self, PoolJobs) {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let open = OpenJobs {
            counts: Mutex::default(),
            jobs: registry.add(
                "newswire_gateway_page_jobs",
                "Pages, lists and metrics that are being made for clients",
            ),
        };
        let refused = registry.add_by(
            "newswire_gateway_pages_refused_total",
            "Pages, lists and metrics that were not made: too many at the same time, in total or for one address, or too slow",
            "reason",
            PageRefused::ALL.map(PageRefused::as_str),
        );
        let jobs_of_thread = PoolJobs { queue, handlers: jobs.downgrade() };
        (Self { jobs, open: Arc::new(open), refused }, jobs_of_thread)
    }

    /// Does `job` on the pool's thread, `what` is its name for the watchdog. The job is dropped if the caller is, or
    /// when `deadline` has passed.
    ///
    /// # Errors
    /// If there are too many jobs, or it was not finished in time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        client: PageClient,
        deadline: Duration,
        job: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, PageRefused> {
        let made = self.try_run(what, client, Instant::now() + deadline, job).await;
        if let Err(refused) = &made {
            self.refused.get_or_create(&[("reason", refused.as_str())]).inc();
        }
        made
    }

    async fn try_run<T: Send + 'static>(
        &self,
        what: &'static str,
        client: PageClient,
        deadline: Instant,
        job: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, PageRefused> {
        let permit = OpenJobs::admit(&self.open, client)?;
        let (mut reply, answer) = oneshot::channel();
        let of = client.address.to_string();
        let job = async move {
            let _permit = permit;
            let made = tokio::select! {
                biased;
                () = reply.closed() => return,
                made = timeout_at(deadline, job) => made,
            };
            if let Ok(made) = made {
                // The client may have left just now.
                reply.send(made).ok();
            }
        };
        let job = daemon::work::during(what, of, job);
        self.jobs.try_send(Box::pin(job)).map_err(|_| PageRefused::Total)?;
        // The second deadline is for a thread that is stuck.
        timeout_at(deadline, answer).await.ok().and_then(Result::ok).ok_or(PageRefused::Late)
    }
}

impl OpenJobs {
    fn counts(&self) -> MutexGuard<'_, AddressCounts> {
        // Every change under it is complete before it can panic.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(open: &Arc<Self>, client: PageClient) -> Result<JobPermit, PageRefused> {
        let PageClient { address, limits } = client;
        open.counts().try_add(address, limits).map_err(|limit| match limit {
            CountLimit::Total => PageRefused::Total,
            CountLimit::Address => PageRefused::Address,
            CountLimit::Network => PageRefused::Network,
        })?;
        open.jobs.inc();
        Ok(JobPermit { open: Arc::clone(open), address })
    }
}

impl Drop for JobPermit {
    fn drop(&mut self) {
        self.open.counts().remove(self.address);
        self.open.jobs.dec();
    }
}

/// Starts the pool's thread.
///
/// # Errors
/// If the system cannot start a thread or a runtime.
pub(crate) fn start(
    watch: Watch,
    jobs: PoolJobs,
    stop: CancellationToken,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .event_interval(TURNS_PER_POLL)
        .global_queue_interval(TURNS_PER_POLL)
        .build()?;
    #[expect(clippy::disallowed_methods, reason = "this thread runs nothing but this loop")]
    let run = move || {
        runtime.block_on(async {
            #[cfg(feature = "drill")]
            crate::drill::run_pages_drills();
            let beats = watch.send_beats("pages", WatchKind::Worker);
            tokio::select! {
                () = stop.cancelled() => {}
                () = beats => {}
                () = spawn_all(&watch, jobs) => {}
            }
        });
    };
    Ok(thread::Builder::new().name("pages".into()).spawn(run)?)
}

async fn spawn_all(watch: &Watch, PoolJobs { mut queue, handlers }: PoolJobs) {
    let length = handlers.upgrade().map(|jobs| QueueLength::of(&jobs));
    let task = watch.task("pages", length);
    while let Some(job) = task.idle("a job", queue.recv()).await {
        tokio::spawn(job);
    }
}

/// The turn of a job.
#[derive(Debug)]
pub(crate) struct Slice {
    began: Instant,
    steps: u32,
}

impl Slice {
    /// A turn that begins now.
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), steps: 0 }
    }

    /// How many events to take from a shared list at once.
    pub(crate) const STEPS: usize = SLICE_STEPS as usize;

    /// Counts a step; lets the other jobs go first if the turn is over.
    pub(crate) async fn step(&mut self) {
        self.steps += 1;
        if self.steps >= SLICE_STEPS || self.began.elapsed() >= SLICE_TIME {
            tokio::task::yield_now().await;
            *self = Self::begin();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    struct RunningPool {
        pool: Arc<PagePool>,
        stop: CancellationToken,
        thread: Option<thread::JoinHandle<()>>,
        registry: MetricsRegistry,
    }

    impl RunningPool {
        fn start() -> Self {
            let registry = MetricsRegistry::new();
            let (pool, jobs) = PagePool::new(&registry);
            let stop = CancellationToken::new();
            let thread = start(Watch::new(), jobs, stop.clone()).unwrap();
            Self { pool: Arc::new(pool), stop, thread: Some(thread), registry }
        }

        fn has_line(&self, line: &str) -> bool {
            self.registry.encode().lines().any(|l| l == line)
        }
    }

    impl Drop for RunningPool {
        fn drop(&mut self) {
            self.stop.cancel();
            self.thread.take().unwrap().join().unwrap();
        }
    }

    fn client(n: u8) -> PageClient {
        let address = std::net::IpAddr::from([192, 0, 2, n]).into();
        PageClient::new(address, &Settings::for_tests())
    }

    /// A job that counts its steps for ever.
    async fn endless(steps: Arc<AtomicU64>) {
        let mut slice = Slice::begin();
        loop {
            steps.fetch_add(1, Relaxed);
            slice.step().await;
        }
    }

    #[tokio::test]
    async fn a_short_job_waits_for_one_slice_of_each_long_one_and_not_for_their_end() {
        let running = RunningPool::start();
        let steps: Vec<_> = (0..8).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let long: Vec<_> = steps
            .iter()
            .map(|steps| {
                let (pool, steps) = (Arc::clone(&running.pool), Arc::clone(steps));
                tokio::spawn(async move { pool.run("test", client(1), DEADLINE, endless(steps)).await })
            })
            .collect();
        let short =
            async || assert_eq!(running.pool.run("test", client(2), DEADLINE, async { 7 }).await, Ok(7));
        // Every long job has its turn, and none of them ends.
        while steps.iter().any(|steps| steps.load(Relaxed) == 0) {
            short().await;
            tokio::task::yield_now().await;
        }
        for _ in 0..50 {
            short().await;
        }
        long.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn the_jobs_of_an_address_are_bounded_and_others_are_not_affected() {
        let running = RunningPool::start();
        let wait = || {
            let pool = Arc::clone(&running.pool);
            tokio::spawn(
                async move { pool.run("test", client(1), DEADLINE, std::future::pending::<()>()).await },
            )
        };
        let waiting: Vec<_> = (0..16).map(|_| wait()).collect();
        while !running.has_line("newswire_gateway_page_jobs 16") {
            tokio::task::yield_now().await;
        }
        assert_eq!(wait().await.unwrap(), Err(PageRefused::Address));
        assert_eq!(running.pool.run("test", client(2), DEADLINE, async { 7 }).await, Ok(7));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        // The clients have left: their jobs are dropped, and their places are free.
        while !running.has_line("newswire_gateway_page_jobs 0") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(running.pool.run("test", client(1), DEADLINE, async { 7 }).await, Ok(7));
        assert!(running.has_line("newswire_gateway_pages_refused_total{reason=\"jobs_per_address\"} 1"));
    }

    #[tokio::test]
    async fn a_job_that_is_late_is_dropped() {
        let running = RunningPool::start();
        let steps = Arc::new(AtomicU64::new(0));
        let late =
            running.pool.run("test", client(1), Duration::from_millis(20), endless(Arc::clone(&steps)));
        assert_eq!(late.await, Err(PageRefused::Late));
        while !running.has_line("newswire_gateway_page_jobs 0") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(Arc::strong_count(&steps), 1);
    }

    #[test]
    fn all_jobs_together_are_bounded() {
        let (pool, _jobs) = PagePool::new(&MetricsRegistry::new());
        let settings = Settings::for_tests();
        let address = |n: usize| {
            let address = std::net::Ipv4Addr::from(u32::try_from(n).unwrap());
            PageClient::new(std::net::IpAddr::from(address).into(), &settings)
        };
        let permits: Vec<_> =
            (0..JOBS_MAX).map(|n| OpenJobs::admit(&pool.open, address(n)).unwrap()).collect();
        assert_eq!(OpenJobs::admit(&pool.open, address(JOBS_MAX)).err(), Some(PageRefused::Total));
        drop(permits);
        assert!(OpenJobs::admit(&pool.open, address(0)).is_ok());
        assert_eq!(pool.open.counts().total(), 0);
    }
}
