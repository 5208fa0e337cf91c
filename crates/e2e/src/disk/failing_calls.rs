//! Calls to the disk that fail: the nth write, create, sync, rename or unlink in the folder of the store. The daemon must
//! end within 5 s and say why, or go on as if nothing had happened; a start without the fault then has every event that was
//! announced, once.

use std::{fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    announced::AnnouncedEvents,
    copy_folder,
    cuts::start_and_wait,
    log_check::{check_log, last_error},
    preload::Preload,
    take_place,
    workload::{Articles, StoreWorkload},
};
use crate::{Binary, TestStack, TestSubscriber, log_line, wait_for};

/// Deadline of the end of a daemon after a failed call, unless a daemon without a fault stops as slowly at that time.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// A daemon may take so many times as long as one that is stopped without a fault.
const STOPS_MAX: u32 = 5;
/// How long a daemon works before it is clear that it makes no more calls of the kind.
const FIRES_WITHIN: Duration = Duration::from_secs(8);
/// Deadline for a daemon that goes on to announce what is published after the fault.
const GOES_ON_WITHIN: Duration = Duration::from_secs(20);
/// How long the daemon works on the store before the calls fail.
const PREPARED_WITHIN: Duration = Duration::from_secs(4);
/// Exit code of an error of the disk.
const EX_IOERR: i32 = 74;

/// One call that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailingCall {
    /// `write`, `short` (half is written, and the next write fails), `create`, `sync`, `rename`, `unlink` or `truncate`.
    pub kind: &'static str,
    /// Which one, counted from 1 at the start of the process.
    pub number: u32,
    /// The disk is full, or has an error.
    pub is_full: bool,
    /// All later calls of this kind fail, too.
    pub and_later: bool,
}

impl FailingCall {
    /// The kinds.
    pub const KINDS: [&'static str; 7] = ["write", "short", "create", "sync", "rename", "unlink", "truncate"];

    /// What the library is told: ENOSPC is 28, EIO is 5.
    fn plan(self) -> String {
        let on = if self.and_later { " on" } else { "" };
        format!("{} {} {}{on}", self.kind, self.number, if self.is_full { 28 } else { 5 })
    }

    /// How the error is named in a log.
    fn cause(self) -> &'static str {
        if self.is_full { "No space left on device" } else { "Input/output error" }
    }
}

impl fmt::Display for FailingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let later = if self.and_later { " and later ones" } else { "" };
        write!(f, "{} {}{later}: {}", self.kind, self.number, self.cause())
    }
}

/// The result of [`FailingCalls::fail`].
#[derive(Clone, Debug, Default)]
pub struct FailingCallSummary {
    /// Cases in which the call was made and failed.
    pub failed: usize,
    /// Cases in which the daemon made fewer calls.
    pub not_reached: usize,
    /// The daemon ended with code 74 and the cause.
    pub ended: usize,
    /// The daemon went on.
    pub went_on: usize,
    /// The longest time to the end.
    pub end_ms_max: u128,
    /// What must not happen, each with its case.
    pub faults: Vec<String>,
}

/// A store on which calls fail, prepared once for all of them.
pub struct FailingCalls(Arc<FailingRun>);

struct FailingRun {
    workload: Arc<StoreWorkload>,
    preload: Preload,
    /// A stopped store with retention at work.
    base: tempfile::TempDir,
    announced: AnnouncedEvents,
    keep: PathBuf,
}

impl FailingCalls {
    /// Lets a daemon fill a store. `keep` is the folder for the logs of cases with a fault.
    ///
    /// # Errors
    /// If it cannot.
    pub async fn prepare(keep: PathBuf) -> anyhow::Result<Self> {
        let workload = StoreWorkload::start(Articles::Mixed).await?;
        let base = tempfile::tempdir()?;
        let announced = prepare_store(&workload, base.path()).await?;
        Ok(Self(Arc::new(FailingRun { workload, preload: Preload::build()?, base, announced, keep })))
    }

    /// Makes each of these calls fail once, in `concurrency` daemons at a time.
    ///
    /// # Errors
    /// If the tool itself does not work.
    pub async fn fail(
        &self,
        calls: &[FailingCall],
        concurrency: usize,
    ) -> anyhow::Result<FailingCallSummary> {
        let publishing = self.0.workload.publish();
        let mut summary = FailingCallSummary::default();
        let mut running = JoinSet::new();
        for call in calls {
            if running.len() >= concurrency {
                summary.add(running.join_next().await.context("one runs")???);
            }
            let (run, call, handle) = (Arc::clone(&self.0), *call, Handle::current());
            running.spawn_blocking(move || handle.block_on(fail_one(&run, call)));
        }
        while let Some(outcome) = running.join_next().await {
            summary.add(outcome??);
        }
        drop(publishing);
        Ok(summary)
    }
}

/// Lets a daemon work on an empty folder, stops it and copies its store to `base`; returns what it announced.
pub(super) async fn prepare_store(
    workload: &Arc<StoreWorkload>,
    base: &std::path::Path,
) -> anyhow::Result<AnnouncedEvents> {
    let mut stack = workload.stack()?;
    start_and_wait(&mut stack).await?;
    let subscriber = TestSubscriber::start(stack.wire(), "/wire?snapshot=1000000");
    let publishing = workload.publish();
    let all_shown = usize::try_from(workload.events_kept())?;
    let recorded = async || (subscriber.count("item") >= all_shown).then_some(());
    wait_for("everything to be recorded", Duration::from_secs(60), recorded).await?;
    sleep(PREPARED_WITHIN).await;
    drop(publishing);
    stack.terminate(Binary::Ingestd, Duration::from_secs(60)).await?;
    copy_folder(&stack.path("data"), base)?;
    AnnouncedEvents::of(&subscriber.records())
}

impl FailingCallSummary {
    /// Adds the cases of another run.
    pub fn add(&mut self, one: Self) {
        self.failed += one.failed;
        self.not_reached += one.not_reached;
        self.ended += one.ended;
        self.went_on += one.went_on;
        self.end_ms_max = self.end_ms_max.max(one.end_ms_max);
        self.faults.extend(one.faults);
    }
}

async fn fail_one(run: &FailingRun, call: FailingCall) -> anyhow::Result<FailingCallSummary> {
    let mut stack = run.workload.stack()?;
    let (data, fired) = (stack.path("data"), stack.path("fired"));
    copy_folder(run.base.path(), &data)?;
    take_place(&data)?;
    // Files are removed when there is much that retention no longer keeps.
    let events_kept = run.workload.events_kept() / if call.kind == "unlink" { 4 } else { 1 };
    stack.set("store.retention_events", &events_kept.to_string());
    stack.set_start_options(Binary::Ingestd, run.preload.failing(&data, &call.plan(), &fired)?);
    stack.start(Binary::Ingestd)?;
    let subscriber = TestSubscriber::start(stack.wire(), &format!("/wire?after={}-0", run.announced.epoch));
    let has_fired = async || fs::metadata(&fired).is_ok_and(|file| file.len() > 0).then_some(());
    if wait_for("the failing call", FIRES_WITHIN, has_fired).await.is_err() {
        stack.process(Binary::Ingestd)?.kill();
        return Ok(FailingCallSummary { not_reached: 1, ..FailingCallSummary::default() });
    }
    let mut summary = FailingCallSummary { failed: 1, ..FailingCallSummary::default() };
    let mut faults = Vec::new();
    after_failure(run, call, &mut stack, &subscriber, &mut summary, &mut faults).await?;
    let log = stack.process(Binary::Ingestd)?.log();

    let mut announced = AnnouncedEvents::of(&subscriber.records())?;
    announced.epoch.clone_from(&run.announced.epoch);
    announced.events.extend(run.announced.events.clone());
    drop(subscriber);
    stack.process(Binary::Ingestd)?.kill();
    stack.set_start_options(Binary::Ingestd, crate::StartOptions::default());
    let verdict = check_log(&mut stack, &run.workload, &announced, events_kept).await?;
    faults.extend(verdict.refused.iter().chain(&verdict.faults).map(|fault| format!("then: {fault}")));
    if verdict.missed > 0 {
        faults.push(format!("then: {} announced events are gone", verdict.missed));
    }
    if !faults.is_empty() {
        let folder = run.keep.join(call.plan().replace(' ', "-"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("daemon.log"), log)?;
        let at = fs::read_to_string(&fired)?.lines().next().unwrap_or_default().to_owned();
        summary.faults =
            vec![format!("{call} ({at}): {}; its log is in {}", faults.join("; "), folder.display())];
        summary.faults.iter().for_each(|fault| log_line(fault));
    }
    Ok(summary)
}

/// Waits until the daemon has ended, or has shown that it goes on.
async fn after_failure(
    run: &FailingRun,
    call: FailingCall,
    stack: &mut TestStack,
    subscriber: &TestSubscriber,
    summary: &mut FailingCallSummary,
    faults: &mut Vec<String>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let shown = run.workload.shown();
    let mut first_new = None;
    loop {
        let process = stack.process(Binary::Ingestd)?;
        if !process.is_running() {
            let (status, _) = process.wait_exit(Duration::ZERO).await?;
            let (took, log) = (began.elapsed(), process.log());
            summary.end_ms_max = took.as_millis();
            let named = log.lines().any(|line| line.contains("ERROR") && line.contains(call.cause()));
            if status.code() != Some(EX_IOERR) || !named {
                faults.push(format!("it ended with {status} and {:?}", last_error(&log)));
            } else if took > ENDS_WITHIN && took > STOPS_MAX * stop_of_control(run).await? {
                faults.push(format!("it ended after {took:?}"));
            } else {
                summary.ended = 1;
            }
            return Ok(());
        }
        // Something that was published after the fault was announced, and again something later: it records.
        if began.elapsed() > ENDS_WITHIN {
            let newest = subscriber.events("item").pop();
            let new = newest.filter(|event| {
                let json = event.json();
                let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
                !shown.contains(&(text("source"), text("guid"))) && event.at > began + ENDS_WITHIN / 2
            });
            first_new = first_new.or(new);
            if first_new.is_some() {
                summary.went_on = 1;
                return Ok(());
            }
        }
        if began.elapsed() > GOES_ON_WITHIN {
            faults.push(format!("it neither ended nor announced anything for {GOES_ON_WITHIN:?}"));
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// How long a daemon without a fault takes to stop now.
async fn stop_of_control(run: &FailingRun) -> anyhow::Result<Duration> {
    let mut stack = run.workload.stack()?;
    copy_folder(run.base.path(), &stack.path("data"))?;
    take_place(&stack.path("data"))?;
    start_and_wait(&mut stack).await?;
    Ok(stack.terminate(Binary::Ingestd, Duration::from_secs(60)).await?.1)
}
