//! Cuts of power, from a record: a daemon works on an empty folder while feeds publish and a client reads; it is killed and
//! stopped on the way. The folder is then rebuilt as it may be after a cut at many points, and a daemon starts on each.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::{runtime::Handle, task::JoinSet, time::sleep};

use super::{
    announced::{AnnouncedEvents, sent_ids},
    copy_folder, files_of,
    log_check::{check_log, visit_quarantined},
    preload::Preload,
    rebuild::{rebuild_after_cut, rebuild_everything},
    record::{DiskRecord, DiskStep},
    workload::{Articles, StoreWorkload},
};
use crate::{Binary, TestStack, TestSubscriber, http, log_line, wait_for};

/// Deadline of a start of the recorded daemon.
const OPEN_WITHIN: Duration = Duration::from_secs(60);
/// Recordings that are tried: SIGKILL can end the daemon between an operation and its entry, and then the record is
/// incomplete.
const RECORDINGS_MAX: usize = 5;
/// Steps by which half of the points come after an announcement, at most.
const STEPS_AFTER_ANNOUNCEMENT: usize = 12;

/// What is cut, and how often.
#[derive(Clone, Debug)]
pub struct CutOptions {
    /// What the feeds publish.
    pub articles: Articles,
    /// Number of cuts.
    pub points: usize,
    /// The cut `n` is drawn from `seed + n`.
    pub seed: u64,
    /// Daemons at the same time.
    pub concurrency: usize,
    /// Between the kills of the recorded daemon.
    pub phase: Duration,
    /// Folder for the stores of cuts that showed a fault.
    pub keep: PathBuf,
}

/// The result of [`cut_recorded_stores`].
#[derive(Clone, Debug, Default)]
pub struct CutSummary {
    /// Cuts made.
    pub cuts: usize,
    /// Those after which something announced had to be there.
    pub cuts_after_announcements: usize,
    /// Operations recorded.
    pub steps: usize,
    /// Files removed in the record.
    pub files_removed: usize,
    /// Events announced in the record.
    pub announced: usize,
    /// Cuts after which the store did not open.
    pub refused: usize,
    /// Cuts after which the log began again, in another epoch.
    pub reset: usize,
    /// Announced events lost, over all cuts.
    pub lost: u64,
    /// Items that came twice, over all cuts.
    pub doubled: u64,
    /// Cuts with a fault, each with its seed and folder.
    pub faults: Vec<String>,
    /// The longest start.
    pub opened_ms_max: u128,
}

/// A finished recording.
struct DiskRecording {
    workload: Arc<StoreWorkload>,
    record: DiskRecord,
    announced: AnnouncedEvents,
    /// The step at which each announced event was first sent.
    sent_at: BTreeMap<u64, usize>,
}

impl DiskRecording {
    /// Files of the store itself that were removed; the notes about what is being parsed are none.
    fn removed_files(&self) -> usize {
        let is_one =
            |step: &&DiskStep| matches!(step, DiskStep::Unlink { path } if !path.starts_with("parsing/"));
        self.record.steps.iter().filter(is_one).count()
    }
}

/// Records a daemon, and checks its store after cuts at random points.
///
/// # Errors
/// If the tool itself does not work: nothing was recorded, or the record does not lead to the folder as it was.
pub async fn cut_recorded_stores(options: &CutOptions) -> anyhow::Result<CutSummary> {
    let recording = Arc::new(record_daemon(options).await?);
    let mut summary = CutSummary {
        steps: recording.record.steps.len(),
        files_removed: recording.removed_files(),
        announced: recording.announced.events.len(),
        ..CutSummary::default()
    };
    let mut running = JoinSet::new();
    for number in 0..options.points {
        if running.len() >= options.concurrency {
            summary.add(running.join_next().await.context("one runs")???);
        }
        let seed = options.seed + number as u64;
        let (recording, keep) = (Arc::clone(&recording), options.keep.clone());
        // On a thread: rebuilding a store takes a processor.
        let handle = Handle::current();
        running.spawn_blocking(move || handle.block_on(cut_once(&recording, seed, &keep)));
    }
    while let Some(outcome) = running.join_next().await {
        summary.add(outcome??);
    }
    Ok(summary)
}

impl CutSummary {
    fn add(&mut self, one: Self) {
        self.cuts += one.cuts;
        self.cuts_after_announcements += one.cuts_after_announcements;
        self.refused += one.refused;
        self.reset += one.reset;
        self.lost += one.lost;
        self.doubled += one.doubled;
        self.opened_ms_max = self.opened_ms_max.max(one.opened_ms_max);
        one.faults.iter().for_each(|fault| log_line(fault));
        self.faults.extend(one.faults);
    }
}

async fn record_daemon(options: &CutOptions) -> anyhow::Result<DiskRecording> {
    let mut last = anyhow::anyhow!("nothing was tried");
    for _ in 0..RECORDINGS_MAX {
        match record_once(options).await {
            Ok(recording) => return Ok(recording),
            Err(error) => last = error,
        }
        log_line(&format!("recording again: {last:#}"));
    }
    Err(last)
}

async fn record_once(options: &CutOptions) -> anyhow::Result<DiskRecording> {
    let preload = Preload::build()?;
    let workload = StoreWorkload::start(options.articles).await?;
    let mut stack = workload.stack()?;
    let (data, file) = (stack.path("data"), stack.path("record"));
    fs::create_dir(&data)?;
    stack.set_start_options(Binary::Ingestd, preload.recording(&data, &file)?);
    start_and_wait(&mut stack).await?;
    let subscriber = TestSubscriber::start(stack.wire(), "/wire?snapshot=1000000");
    let publishing = workload.publish();
    work(&stack, options.phase).await;
    stack.kill(Binary::Ingestd)?;
    start_and_wait(&mut stack).await?;
    work(&stack, options.phase).await;
    stack.terminate(Binary::Ingestd, OPEN_WITHIN).await?;
    start_and_wait(&mut stack).await?;
    work(&stack, options.phase).await;
    drop(publishing);
    stack.kill(Binary::Ingestd)?;

    let announced = AnnouncedEvents::of(&subscriber.records())?;
    let record = DiskRecord::read(&file, &data)?;
    check_record(&record, &data)?;
    let sent = sent_ids(&record);
    let at = |seq: &u64| Some((*seq, *sent.get(&format!("{}-{seq}", announced.epoch))?));
    let sent_at: BTreeMap<_, _> = announced.events.keys().filter_map(at).collect();
    anyhow::ensure!(!announced.events.is_empty(), "nothing was announced: {}", subscriber.summary());
    anyhow::ensure!(
        sent_at.len() == announced.events.len(),
        "{} of {} announced events are in the record",
        sent_at.len(),
        announced.events.len()
    );
    Ok(DiskRecording { workload, record, announced, sent_at })
}

/// Lets the daemon work for a time.
async fn work(stack: &TestStack, time: Duration) {
    sleep(time / 2).await;
    visit_quarantined(&stack.wire()).await;
    sleep(time / 2).await;
}

/// Starts the daemon of a stack, and waits until it answers.
pub(super) async fn start_and_wait(stack: &mut TestStack) -> anyhow::Result<()> {
    stack.start(Binary::Ingestd)?;
    let wire = stack.wire();
    let answers = wait_for("the daemon to answer", OPEN_WITHIN, async || {
        http::fetch(&wire, "/health", Duration::from_secs(5)).await.is_ok().then_some(())
    })
    .await;
    answers.with_context(|| stack.process(Binary::Ingestd).map(|p| p.log()).unwrap_or_default())
}

/// If nothing is lost, the record must lead to the folder as it is: then no way of writing has escaped it.
fn check_record(record: &DiskRecord, data: &Path) -> anyhow::Result<()> {
    let syncs = record.steps.iter().filter(|step| matches!(step, DiskStep::SyncEnd { .. })).count();
    anyhow::ensure!(syncs > 0, "no sync was recorded");
    let scratch = TempDir::new()?;
    let rebuilt = scratch.path().join("data");
    rebuild_everything(record, &rebuilt)?;
    let names = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let files = files_of(folder)?;
        files.iter().map(|file| Ok(file.strip_prefix(folder)?.to_owned())).collect()
    };
    let (expected, found) = (names(data)?, names(&rebuilt)?);
    anyhow::ensure!(expected == found, "the record leads to {found:?}, not to {expected:?}");
    for name in expected {
        let same = fs::read(data.join(&name))? == fs::read(rebuilt.join(&name))?;
        anyhow::ensure!(same, "the record leads to another {}", name.display());
    }
    Ok(())
}

async fn cut_once(recording: &DiskRecording, seed: u64, keep: &Path) -> anyhow::Result<CutSummary> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let steps = recording.record.steps.len();
    let point = if rng.bool() {
        rng.usize(..=steps)
    } else {
        let sent: Vec<_> = recording.sent_at.values().collect();
        (sent[rng.usize(..sent.len())] + rng.usize(1..STEPS_AFTER_ANNOUNCEMENT)).min(steps)
    };
    let announced = recording.announced.only(|seq| recording.sent_at[&seq] < point);
    let mut stack = recording.workload.stack()?;
    let (data, kept) = (stack.path("data"), stack.path("as-rebuilt"));
    rebuild_after_cut(&recording.record, point, seed, &data)?;
    copy_folder(&data, &kept)?;
    let mut verdict =
        check_log(&mut stack, &recording.workload, &announced, recording.workload.events_kept()).await?;
    if verdict.missed > 0 {
        verdict.faults.push(format!("{} announced events are gone, as clients are told", verdict.missed));
    }
    let mut summary = CutSummary {
        cuts: 1,
        cuts_after_announcements: usize::from(!announced.events.is_empty()),
        refused: usize::from(verdict.refused.is_some()),
        reset: usize::from(verdict.is_reset),
        lost: verdict.lost + verdict.changed + verdict.missed,
        doubled: verdict.doubled,
        opened_ms_max: verdict.opened_ms,
        ..CutSummary::default()
    };
    if !verdict.is_right() {
        let folder = keep.join(format!("cut-{seed}"));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        copy_folder(&kept, &folder.join("data"))?;
        fs::write(folder.join("daemon.log"), stack.process(Binary::Ingestd)?.log())?;
        let what = verdict.refused.iter().chain(&verdict.faults).cloned().collect::<Vec<_>>().join("; ");
        let announced = announced.events.keys().next_back().copied().unwrap_or(0);
        summary.faults = vec![format!(
            "seed {seed}, before step {point} of {steps}, announced up to {announced}: {what}; the store is in {}",
            folder.display()
        )];
    }
    Ok(summary)
}
