//! Kills the real programs at any time while feeds publish and clients read, and counts what was lost and doubled.
//!
//! ```text
//! step: run a while ─► kill (at work, at the start, during the stop) or stop ─► start ─► wait until it serves
//! check: stop publishing ─► every client has everything ─► count, measure the disk ─► publish again
//! ```

use std::{
    fmt,
    ops::Range,
    path::Path,
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::{
    Binary, KnownEvents, Origin, StreamAudit, TestStack, TestSubscriber, Workload, WorkloadPublisher, http,
    wait_for,
};

/// When a program is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillMoment {
    /// At work.
    Running,
    /// At work, and then again before it serves.
    Starting,
    /// After a SIGTERM, unless it was faster.
    Stopping,
    /// Not at all: it stops by itself after a SIGTERM.
    Never,
}

/// One step of a run.
#[derive(Clone, Debug)]
pub struct KillStep {
    /// When they are killed.
    pub moment: KillMoment,
    /// Who, in the order in which they are started again.
    pub programs: Vec<Binary>,
}

impl KillStep {
    /// Any of the steps.
    #[must_use]
    pub fn random() -> Self {
        let moment = match fastrand::u8(0..20) {
            0..10 => KillMoment::Running,
            10..16 => KillMoment::Starting,
            16..19 => KillMoment::Stopping,
            _ => KillMoment::Never,
        };
        let programs = match fastrand::u8(0..10) {
            0..6 => vec![Binary::Ingestd],
            6..8 => vec![Binary::Gateway],
            8 => vec![Binary::Ingestd, Binary::Gateway],
            _ => vec![Binary::Gateway, Binary::Ingestd],
        };
        Self { moment, programs }
    }
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct KillReport {
    /// SIGKILLs at work.
    pub running: usize,
    /// SIGKILLs before the program served.
    pub starting: usize,
    /// SIGKILLs during a stop.
    pub stopping: usize,
    /// Stops by SIGTERM that were left to end by themselves, or were faster than the SIGKILL.
    pub stopped: usize,
    /// Items that the origin has served.
    pub written: usize,
    /// Items that each client had to receive, all clients together.
    pub delivered: usize,
    /// Items that a client never received.
    pub lost: usize,
    /// Items that a client received again.
    pub doubled: usize,
    /// What is wrong, in words.
    pub faults: Vec<String>,
    /// The longest time from the start of the ingestion daemon until it served.
    pub reopen_max: Duration,
    /// Bytes of the store's files, as the file system has them, at the last check.
    pub disk_bytes: u64,
    /// Bytes of the events that the log has, as JSON, at the last check.
    pub live_bytes: u64,
    /// The most that the first was as a multiple of the second, with so much in the log that it counts.
    pub disk_ratio_max: f64,
}

impl KillReport {
    /// Below that many bytes of live data the size of the disk is that of empty files.
    const LIVE_BYTES_MIN: u64 = 16 * 1024 * 1024;

    /// All SIGKILLs.
    #[must_use]
    pub fn kills(&self) -> usize {
        self.running + self.starting + self.stopping
    }
}

impl fmt::Display for KillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{} kills ({} running, {} starting, {} stopping) and {} stops; {} items written, {} delivered to clients, {} \
             lost, {} doubled, {} other faults; longest reopen {} ms; disk {:.1} MiB for {:.1} MiB of events",
            self.kills(),
            self.running,
            self.starting,
            self.stopping,
            self.stopped,
            self.written,
            self.delivered,
            self.lost,
            self.doubled,
            self.faults.len().saturating_sub(self.lost + self.doubled),
            self.reopen_max.as_millis(),
            mib(self.disk_bytes),
            mib(self.live_bytes),
        )?;
        if self.disk_ratio_max > 0.0 {
            write!(f, ", at most {:.1} times", self.disk_ratio_max)
        } else {
            Ok(())
        }
    }
}

/// Deadline for every client to have all items, counted from the last publication.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// Deadline of a stop by SIGTERM.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// The time of a visit, after which duplicates would have arrived.
const VISITED_WITHIN: Duration = Duration::from_millis(1_500);
/// How long the programs run before a step, in milliseconds.
const AT_WORK_MS: Range<u64> = 20..700;

/// Both daemons with a workload, and its clients.
pub struct KillRun {
    stack: TestStack,
    origin: Arc<Origin>,
    known: Arc<Mutex<KnownEvents>>,
    clients: Vec<(TestSubscriber, StreamAudit)>,
    publisher: WorkloadPublisher,
    report: KillReport,
}

impl KillRun {
    /// Starts the daemons with these settings (`section.key` and TOML), the clients, and the feeds.
    ///
    /// # Errors
    /// If the daemons do not start.
    pub async fn start(workload: &Workload, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_prepared(workload, settings, |_| {}).await
    }

    /// The same, after `prepare`.
    ///
    /// # Errors
    /// As [`KillRun::start`].
    pub async fn start_prepared(
        workload: &Workload,
        settings: &[(&str, &str)],
        prepare: impl FnOnce(&mut TestStack),
    ) -> anyhow::Result<Self> {
        let origin = Arc::new(Origin::start().await?);
        let mut stack = Self::stack_for(workload, &origin)?;
        for (key, value) in settings {
            stack.set(key, value);
        }
        prepare(&mut stack);
        stack.start_both().await?;
        let run = Self::begin(origin, stack, workload, "snapshot=0").await?;
        workload.publish_before(&run.origin);
        run.publisher.set_paused(false);
        Ok(run)
    }

    /// The daemons of a run, not started, with the feeds of the workload.
    ///
    /// # Errors
    /// If their files cannot be written.
    pub fn stack_for(workload: &Workload, origin: &Origin) -> anyhow::Result<TestStack> {
        let mut stack = TestStack::new(&workload.add_to(origin))?;
        // A source that is in quarantine, because a busy machine was slow to parse it, is visited all the same.
        stack.set("fetch.interval_max", "\"2s\"");
        Ok(stack)
    }

    /// Starts the clients, from the event that `from` names, and a paused publisher. The daemons serve already.
    ///
    /// # Errors
    /// If the clients are not served.
    pub async fn begin(
        origin: Arc<Origin>,
        stack: TestStack,
        workload: &Workload,
        from: &str,
    ) -> anyhow::Result<Self> {
        let known = Arc::default();
        let mut clients = Vec::new();
        let of_one = workload.examples().into_iter().map(Some);
        for source in [None, None, None].into_iter().chain(of_one) {
            let audit = StreamAudit::new(source, &known);
            clients.push((subscribe(&stack, from, source, &audit), audit));
        }
        // Nothing is published before every client has a cursor.
        for (client, _) in &clients {
            let has_cursor = async || (!client.last_event_id().is_empty()).then_some(());
            wait_for("a client's first block", TestStack::READY_WITHIN, has_cursor).await?;
        }
        let publisher = WorkloadPublisher::start(Arc::clone(&origin), workload, clients[0].1.clone());
        Ok(Self { stack, origin, known, clients, publisher, report: KillReport::default() })
    }

    /// What was found so far.
    #[must_use]
    pub fn report(&self) -> &KillReport {
        &self.report
    }

    /// The daemons.
    pub fn stack_mut(&mut self) -> &mut TestStack {
        &mut self.stack
    }

    /// Runs one step.
    ///
    /// # Errors
    /// If a program ended by itself, does not stop, or does not serve again.
    pub async fn step(&mut self, step: &KillStep) -> anyhow::Result<()> {
        sleep(random_delay(AT_WORK_MS)).await;
        for program in &step.programs {
            self.end(*program, step.moment).await.with_context(|| format!("{step:?}"))?;
        }
        for program in &step.programs {
            self.start_again(*program).await.with_context(|| format!("after {step:?}"))?;
        }
        Ok(())
    }

    async fn end(&mut self, program: Binary, moment: KillMoment) -> anyhow::Result<()> {
        match moment {
            KillMoment::Running => {
                self.stack.kill(program)?;
                self.report.running += 1;
            }
            KillMoment::Starting => {
                self.stack.kill(program)?;
                self.report.running += 1;
                self.stack.start(program)?;
                let usual = u64::try_from(self.report.reopen_max.as_millis()).unwrap_or_default();
                sleep(random_delay(0..usual.clamp(100, 2_000))).await;
                self.stack.kill(program)?;
                self.report.starting += 1;
            }
            KillMoment::Stopping => {
                let process = self.stack.process(program)?;
                process.signal(Signal::TERM)?;
                sleep(random_delay(0..150)).await;
                if process.is_running() {
                    process.kill();
                    self.report.stopping += 1;
                } else {
                    check_exit(process.wait_exit(STOPPED_WITHIN).await?.0, &process.log())?;
                    self.report.stopped += 1;
                }
            }
            KillMoment::Never => {
                let process = self.stack.process(program)?;
                process.signal(Signal::TERM)?;
                check_exit(process.wait_exit(STOPPED_WITHIN).await?.0, &process.log())?;
                self.report.stopped += 1;
            }
        }
        Ok(())
    }

    /// Starts a program and waits until it serves.
    ///
    /// # Errors
    /// If it ends by itself or does not serve.
    pub async fn start_again(&mut self, program: Binary) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.stack.start(program)?;
        let address = if program == Binary::Ingestd { self.stack.wire() } else { self.stack.gateway() };
        let process = self.stack.process(program)?;
        let what = format!("{} to serve", program.name());
        let served = wait_for(&what, TestStack::READY_WITHIN, async || {
            if !process.is_running() {
                return Some(false);
            }
            let answer = http::fetch(&address, "/health", Duration::from_secs(5)).await;
            matches!(answer, Ok((200, _))).then_some(true)
        })
        .await?;
        anyhow::ensure!(served, "{program:?} ended by itself; its log:\n{}", process.log());
        if program == Binary::Ingestd {
            self.report.reopen_max = self.report.reopen_max.max(begun.elapsed());
        }
        Ok(())
    }

    /// Stops publishing until every client has everything, counts, and publishes again.
    ///
    /// # Errors
    /// If a client lacks an item, or there is any other fault; the report has them.
    pub async fn check(&mut self) -> anyhow::Result<()> {
        self.stack.wait_ready().await?;
        self.publisher.set_paused(true);
        let published = self.origin.published();
        self.report.written = published.values().map(Vec::len).sum();
        let complete = wait_for("all items", SETTLED_WITHIN, async || {
            let is_done = |(client, audit): &(TestSubscriber, StreamAudit)| {
                client.closed().is_some() || audit.is_complete(&published)
            };
            self.clients.iter().all(is_done).then_some(())
        })
        .await;
        sleep(VISITED_WITHIN).await;
        let report = &mut self.report;
        (report.delivered, report.lost, report.doubled) = (0, 0, 0);
        report.faults.clear();
        for (client, audit) in &self.clients {
            let totals = audit.totals(&published);
            report.delivered += totals.delivered;
            report.lost += totals.lost;
            report.doubled += totals.doubled;
            if !totals.faults.is_empty() || client.closed().is_some() {
                report.faults.extend(totals.faults);
                report.faults.push(client.summary());
            }
        }
        self.measure_disk().await?;
        anyhow::ensure!(self.report.faults.is_empty(), "{}\n{}", self.report, self.report.faults.join("\n"));
        complete?;
        self.publisher.set_paused(false);
        Ok(())
    }

    /// Publishes, or pauses.
    pub fn set_paused(&self, paused: bool) {
        self.publisher.set_paused(paused);
    }

    async fn measure_disk(&mut self) -> anyhow::Result<()> {
        let (status, text) = http::fetch(&self.stack.wire(), "/health", Duration::from_secs(30)).await?;
        let health: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let oldest = health["oldest"].as_u64();
        let oldest = oldest.with_context(|| format!("GET /health answered {status}: {text}"))?;
        let known = self.known.lock().expect("no thread panics while holding it");
        self.report.live_bytes = known.bytes_from(oldest);
        drop(known);
        self.report.disk_bytes = disk_bytes(&self.stack.path("data"))?;
        if self.report.live_bytes >= KillReport::LIVE_BYTES_MIN {
            let ratio = self.report.disk_bytes as f64 / self.report.live_bytes as f64;
            self.report.disk_ratio_max = self.report.disk_ratio_max.max(ratio);
        }
        Ok(())
    }
}

fn subscribe(stack: &TestStack, from: &str, source: Option<&str>, audit: &StreamAudit) -> TestSubscriber {
    let filter = source.map(|source| format!("&source={source}")).unwrap_or_default();
    let audit = audit.clone();
    let path = format!("/news/stream?{from}{filter}");
    TestSubscriber::start_into(stack.gateway(), &path, move |event| audit.record(&event))
}

fn check_exit(status: ExitStatus, log: &str) -> anyhow::Result<()> {
    anyhow::ensure!(status.success(), "a SIGTERM ended it with {status}; its log:\n{log}");
    Ok(())
}

fn random_delay(range_ms: Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range_ms))
}

/// What the files of a folder occupy, in bytes.
fn disk_bytes(folder: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sum += disk_bytes(&entry.path())?,
            Ok(metadata) => sum += metadata.blocks() * 512,
            // The daemon has removed it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}
