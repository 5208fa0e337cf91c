//! Ends the ingestion daemon at each named step of the store and of itself, or a backup beside it, and checks that nothing
//! is lost or doubled.
//!
//! ```text
//! start with CRASH_AT=STEP:TIMES ─► bring it to that step ─► it dies ─► start again ─► every client has everything
//! ```
//!
//! A step that the daemon never comes to is an error. It is the build with crash points, and its segments are small.

use std::{
    fs,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::{Binary, ChildProcess, KillRun, Origin, StartOptions, TestStack, Workload, log_line};

/// What brings the daemon to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashCause {
    /// New items.
    Items,
    /// So many items that segments are full, and retention removes the oldest ones.
    ManyItems,
    /// A SIGTERM.
    Stop,
    /// A start after which the last record is torn.
    TornRecord,
    /// A start with a damaged database.
    DamagedDatabase,
    /// The first start with the store of the release before the journal.
    OldStore,
    /// `newswire log backup` beside the daemon; the command dies.
    Backup,
}

impl CrashCause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Items,
        Self::ManyItems,
        Self::Stop,
        Self::TornRecord,
        Self::DamagedDatabase,
        Self::OldStore,
        Self::Backup,
    ];

    /// The steps that it brings the daemon to.
    #[must_use]
    pub fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Items => &[
                "append-built",
                "append-written",
                "append-synced",
                "append-applied",
                "append-visible",
                "publish",
                "publish-block",
                "flush-started",
                "flush-synced",
            ],
            Self::ManyItems => {
                &["roll-created", "roll-synced", "retain-noted", "retain-carried", "retain-unlinked"]
            }
            Self::Stop => &["shutdown-begun", "flush-noted", "shutdown-flushed", "shutdown-joined"],
            Self::TornRecord => &["open-truncated"],
            Self::DamagedDatabase => &["rebuild-built", "rebuild-renamed"],
            Self::OldStore => &["migrate-segments", "migrate-renamed", "migrate-removed"],
            Self::Backup => &["backup-segment", "backup-done"],
        }
    }

    /// Whether the daemon comes to its steps more than once in a life.
    fn recurs(self) -> bool {
        matches!(self, Self::Items | Self::ManyItems)
    }
}

/// Deadline for the daemon to come to a step: retention runs every 5 s, and has nothing to do at first.
const DIES_WITHIN: Duration = Duration::from_secs(90);
/// Deadline of a command.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// The pause between two items.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);
/// The size of a segment: a second of items.
const SEGMENT_BYTES: u64 = 64 * 1024;
/// Ten seconds of items: a client that is a little late still gets them all.
const RETENTION_EVENTS: &str = "500";

/// Lets the daemon die at steps of one cause, at the passing of each that `times` returns.
///
/// # Errors
/// At the first step that the daemon never comes to, or after which an item is lost or doubled, or it does not start.
pub async fn sweep(
    cause: CrashCause,
    steps: &[&str],
    mut times: impl FnMut(&str) -> u64,
) -> anyhow::Result<()> {
    let mut run = None;
    for step in steps {
        let times = if cause.recurs() { times(step) } else { 1 };
        let begun = Instant::now();
        let at = match (cause, run.take()) {
            (CrashCause::OldStore, _) => migrate(step).await,
            (_, Some(at)) => Ok(at),
            (_, None) => start().await,
        };
        let mut at = at.with_context(|| format!("before {step}"))?;
        let outcome = at.crash(cause, step, times).await;
        if outcome.is_err() {
            at.run.stack_mut().show_logs();
            at.run.stack_mut().keep_folder();
        }
        outcome.with_context(|| format!("{step}, time {times}"))?;
        let (report, seconds) = (at.run.report(), begun.elapsed().as_secs_f64());
        log_line(&format!(
            "{step}, time {times}: {seconds:.1} s, {} items written, 0 lost, 0 doubled, reopened within {} ms",
            report.written,
            report.reopen_max.as_millis()
        ));
        run = Some(at);
    }
    Ok(())
}

/// A run whose daemon can die on order.
struct CrashRun {
    run: KillRun,
}

fn workload() -> Workload {
    Workload::brief().at_pace(PUBLISH_EVERY)
}

/// The build with crash points, small segments, and the step at which it dies, if any.
fn with_crash(order: Option<(&str, u64)>) -> StartOptions {
    let mut environment = vec![("CRASH_SEGMENT_BYTES".to_owned(), SEGMENT_BYTES.to_string())];
    environment.extend(order.map(|(step, times)| ("CRASH_AT".to_owned(), format!("{step}:{times}"))));
    StartOptions { drill: true, environment, ..StartOptions::default() }
}

fn with_order(stack: &mut TestStack, order: Option<(&str, u64)>) {
    stack.set_start_options(Binary::Ingestd, with_crash(order));
}

async fn start() -> anyhow::Result<CrashRun> {
    let settings = [("store.retention_events", RETENTION_EVENTS), ("store.source_share_percent", "100")];
    let run = KillRun::start_prepared(&workload(), &settings, |stack| with_order(stack, None)).await?;
    Ok(CrashRun { run })
}

/// Unpacks the old store, lets its migration die at `step`, and starts the clients at its first event.
async fn migrate(step: &str) -> anyhow::Result<CrashRun> {
    let (origin, workload) = (Arc::new(Origin::start().await?), workload());
    let mut stack = KillRun::stack_for(&workload, &origin)?;
    workload.publish_before(&origin);
    let epoch = unpack_old_store(&stack.path("data"))?;
    with_order(&mut stack, Some((step, 1)));
    stack.start(Binary::Ingestd)?;
    died(&mut stack).await?;
    with_order(&mut stack, None);
    stack.start_both().await?;
    let run = KillRun::begin(origin, stack, &workload, &format!("after={epoch}-0")).await?;
    run.set_paused(false);
    Ok(CrashRun { run })
}

impl CrashRun {
    async fn crash(&mut self, cause: CrashCause, step: &str, times: u64) -> anyhow::Result<()> {
        match cause {
            CrashCause::OldStore => {}
            CrashCause::Backup => {
                check_died(self.backup(Some((step, times))).await?)?;
                let (status, output) = self.backup(None).await?;
                anyhow::ensure!(
                    status.success(),
                    "the next backup ended with {status}; its output:\n{output}"
                );
            }
            _ => {
                self.bring_to(cause, step, times).await?;
                with_order(self.run.stack_mut(), None);
                self.run.start_again(Binary::Ingestd).await?;
            }
        }
        // Something is recorded after the crash, too.
        sleep(Duration::from_secs(1)).await;
        self.run.check().await
    }

    async fn bring_to(&mut self, cause: CrashCause, step: &str, times: u64) -> anyhow::Result<()> {
        let stack = self.run.stack_mut();
        stack.kill(Binary::Ingestd)?;
        let data = stack.path("data");
        match cause {
            CrashCause::TornRecord => tear_last_record(&data)?,
            CrashCause::DamagedDatabase => damage_database(&data)?,
            _ => {}
        }
        with_order(stack, Some((step, times)));
        match cause {
            CrashCause::Stop => {
                self.run.start_again(Binary::Ingestd).await?;
                sleep(Duration::from_secs(1)).await;
                self.run.stack_mut().process(Binary::Ingestd)?.signal(Signal::TERM)?;
            }
            _ => self.run.stack_mut().start(Binary::Ingestd)?,
        }
        died(self.run.stack_mut()).await
    }

    /// Runs `newswire log backup` beside the daemon, to its end; its status and output.
    async fn backup(&mut self, order: Option<(&str, u64)>) -> anyhow::Result<(ExitStatus, String)> {
        let stack = self.run.stack_mut();
        let (config, to) = (stack.write_config("newswire.toml", &[])?, stack.path("backup"));
        let [config, to] = [&config, &to].map(|path| path.display().to_string());
        let arguments = ["log", "backup", "--config", &config, &to];
        let mut command =
            ChildProcess::start_with(&with_crash(order), Binary::Newswire, &arguments, stack.folder())?;
        let (status, _) = command.wait_exit(COMMAND_WITHIN).await?;
        Ok((status, command.log()))
    }
}

/// Waits until the daemon has ended itself with SIGKILL.
async fn died(stack: &mut TestStack) -> anyhow::Result<()> {
    let process = stack.process(Binary::Ingestd)?;
    let (status, _) = process.wait_exit(DIES_WITHIN).await.context("it never came to this step")?;
    check_died((status, process.log()))
}

fn check_died((status, log): (ExitStatus, String)) -> anyhow::Result<()> {
    anyhow::ensure!(
        status.signal() == Some(Signal::KILL.as_raw()),
        "it ended by itself before it came to this step, with {status}; its log:\n{log}"
    );
    Ok(())
}

/// The last segment of the journal.
fn last_segment(data: &Path) -> anyhow::Result<PathBuf> {
    let journal = data.join("journal");
    let entries = fs::read_dir(&journal).with_context(|| format!("read {}", journal.display()))?;
    let segments = entries.filter_map(Result::ok).map(|entry| entry.path());
    let segments = segments.filter(|path| path.extension().is_some_and(|end| end == "segment"));
    segments.max().with_context(|| format!("{} has no segment", journal.display()))
}

/// Adds half a record to the journal, as a loss of power in the middle of a write leaves it: the beginning of the segment
/// again.
fn tear_last_record(data: &Path) -> anyhow::Result<()> {
    let segment = last_segment(data)?;
    let bytes = fs::read(&segment)?;
    fs::OpenOptions::new().append(true).open(&segment)?.write_all(&bytes[..bytes.len().min(200)])?;
    Ok(())
}

/// Overwrites the files by which sled knows its database.
fn damage_database(data: &Path) -> anyhow::Result<()> {
    let conf = data.join("log.sled/conf");
    let length = fs::metadata(&conf).with_context(|| format!("read {}", conf.display()))?.len();
    fs::write(conf, vec![b'x'; usize::try_from(length)?])?;
    Ok(())
}

/// Unpacks `crates/e2e/tests/old_store.tar.gz`: the store that the last release without a journal made of what
/// [`Workload::brief`] has from the beginning. Returns its epoch.
fn unpack_old_store(data: &Path) -> anyhow::Result<String> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old_store.tar.gz");
    let file = fs::File::open(&packed).with_context(|| format!("open {}", packed.display()))?;
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(data)?;
    Ok(fs::read_to_string(data.join("epoch"))?.trim().to_owned())
}
