//! Damage to a stopped store: wrong bits, files that were cut off, zeroed blocks, deleted files. The daemon must start,
//! announce nothing wrong, and tell its clients of exactly what is gone; or refuse with a reason, where there is nothing to
//! rebuild from.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use fastrand::Rng;
use tokio::{runtime::Handle, task::JoinSet};

use super::{
    announced::AnnouncedEvents,
    copy_folder,
    failing_calls::prepare_store,
    files_of,
    log_check::{LogVerdict, check_log},
    workload::{Articles, StoreWorkload},
};
use crate::{Binary, log_line};

/// A zeroed block, in bytes.
const BLOCK: u64 = 4096;
/// The daemon may take so much memory on a damaged store, in KiB.
const MEMORY_MAX_KIB: u64 = 256 * 1024;

/// How much is damaged.
#[derive(Clone, Debug)]
pub struct DamageOptions {
    /// Stores with one wrong bit.
    pub flips: usize,
    /// Stores with one file cut off.
    pub cuts: usize,
    /// Stores with one block of zeros.
    pub zeroed: usize,
    /// Also stores with each file and each folder deleted.
    pub deletes: bool,
    /// Everything is drawn from it.
    pub seed: u64,
    /// Daemons at the same time.
    pub concurrency: usize,
    /// Folder for the stores that showed a fault.
    pub keep: PathBuf,
}

/// The result of [`damage_stores`].
#[derive(Clone, Debug, Default)]
pub struct DamageSummary {
    /// Cases by kind of damage and outcome, such as `flip: right`.
    pub outcomes: BTreeMap<String, usize>,
    /// Events that clients were told were missing, at most, by kind of damage.
    pub missed_max: BTreeMap<&'static str, u64>,
    /// Highest resident memory of a daemon, in KiB, and its case.
    pub memory_peak_kib: (u64, String),
    /// What must not happen, each with its case.
    pub faults: Vec<String>,
}

/// One damage to one file.
#[derive(Clone, Debug)]
enum StoreDamage {
    Flip { file: PathBuf, bit: u64 },
    Cut { file: PathBuf, length: u64 },
    Zero { file: PathBuf, offset: u64 },
    Delete { path: PathBuf },
}

impl fmt::Display for StoreDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip { file, bit } => {
                write!(f, "bit {} of byte {} of {}", bit % 8, bit / 8, file.display())
            }
            Self::Cut { file, length } => write!(f, "{} cut off at {length}", file.display()),
            Self::Zero { file, offset } => write!(f, "zeros from {offset} in {}", file.display()),
            Self::Delete { path } => write!(f, "{} deleted", path.display()),
        }
    }
}

impl StoreDamage {
    fn kind(&self) -> &'static str {
        match self {
            Self::Flip { .. } => "flip",
            Self::Cut { .. } => "cut",
            Self::Zero { .. } => "zero",
            Self::Delete { .. } => "delete",
        }
    }

    /// No event is left, so that there is nothing to rebuild: the daemon refuses to start.
    fn leaves_nothing(&self) -> bool {
        matches!(self, Self::Delete { path } if path.as_os_str() == "journal")
    }

    fn apply(&self, store: &Path) -> anyhow::Result<()> {
        let open = |file: &Path| fs::File::options().read(true).write(true).open(store.join(file));
        match self {
            Self::Flip { file, bit } => {
                let file = open(file)?;
                let mut byte = [0];
                file.read_exact_at(&mut byte, bit / 8)?;
                file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit / 8)?;
            }
            Self::Cut { file, length } => open(file)?.set_len(*length)?,
            Self::Zero { file, offset } => {
                let file = open(file)?;
                let length = BLOCK.min(file.metadata()?.len() - offset);
                file.write_all_at(&vec![0; usize::try_from(length)?], *offset)?;
            }
            Self::Delete { path } if store.join(path).is_dir() => fs::remove_dir_all(store.join(path))?,
            Self::Delete { path } => fs::remove_file(store.join(path))?,
        }
        Ok(())
    }
}

/// What all cases have in common.
struct DamageRun {
    workload: Arc<StoreWorkload>,
    base: tempfile::TempDir,
    announced: AnnouncedEvents,
    keep: PathBuf,
}

/// Damages copies of one store, starts a daemon on each, and reads its whole log.
///
/// # Errors
/// If the tool itself does not work.
pub async fn damage_stores(options: &DamageOptions) -> anyhow::Result<DamageSummary> {
    let workload = StoreWorkload::start(Articles::Mixed).await?;
    let base = tempfile::tempdir()?;
    let announced = prepare_store(&workload, base.path()).await?;
    let damages = draw_damages(options, base.path())?;
    let run = Arc::new(DamageRun { workload, base, announced, keep: options.keep.clone() });
    let mut summary = DamageSummary::default();
    let mut running = JoinSet::new();
    for (number, damage) in damages.into_iter().enumerate() {
        if running.len() >= options.concurrency {
            summary.add(running.join_next().await.context("one runs")???);
        }
        let (run, handle) = (Arc::clone(&run), Handle::current());
        running.spawn_blocking(move || handle.block_on(damage_one(&run, number, &damage)));
    }
    while let Some(outcome) = running.join_next().await {
        summary.add(outcome??);
    }
    Ok(summary)
}

/// Half of them in a file drawn by its size, half in any file.
fn draw_damages(options: &DamageOptions, base: &Path) -> anyhow::Result<Vec<StoreDamage>> {
    let mut rng = Rng::with_seed(options.seed);
    let mut files = Vec::new();
    for file in files_of(base)? {
        let length = fs::metadata(&file)?.len();
        files.push((file.strip_prefix(base)?.to_owned(), length));
    }
    let filled: Vec<_> = files.iter().filter(|(_, length)| *length > 0).cloned().collect();
    anyhow::ensure!(!filled.is_empty(), "the store has no files");
    let all: u64 = filled.iter().map(|(_, length)| length).sum();
    let draw = |rng: &mut Rng| {
        if rng.bool() {
            return filled[rng.usize(..filled.len())].clone();
        }
        let mut at = rng.u64(..all);
        let by_size = filled.iter().find(|(_, length)| match at.checked_sub(*length) {
            None => true,
            Some(rest) => {
                at = rest;
                false
            }
        });
        by_size.unwrap_or(&filled[0]).clone()
    };
    let mut damages = Vec::new();
    for _ in 0..options.flips {
        let (file, length) = draw(&mut rng);
        damages.push(StoreDamage::Flip { file, bit: rng.u64(..length * 8) });
    }
    for _ in 0..options.cuts {
        let (file, length) = draw(&mut rng);
        damages.push(StoreDamage::Cut { file, length: rng.u64(..length) });
    }
    for _ in 0..options.zeroed {
        let (file, length) = draw(&mut rng);
        damages.push(StoreDamage::Zero { file, offset: rng.u64(..length.div_ceil(BLOCK)) * BLOCK });
    }
    if options.deletes {
        damages.extend(files.iter().map(|(path, _)| StoreDamage::Delete { path: path.clone() }));
        for entry in fs::read_dir(base)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                damages.push(StoreDamage::Delete { path: entry.file_name().into() });
            }
        }
    }
    Ok(damages)
}

impl DamageSummary {
    fn add(&mut self, one: Self) {
        for (outcome, count) in one.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        for (kind, missed) in one.missed_max {
            let most = self.missed_max.entry(kind).or_default();
            *most = missed.max(*most);
        }
        self.memory_peak_kib = std::mem::take(&mut self.memory_peak_kib).max(one.memory_peak_kib);
        one.faults.iter().for_each(|fault| log_line(fault));
        self.faults.extend(one.faults);
    }
}

async fn damage_one(run: &DamageRun, number: usize, damage: &StoreDamage) -> anyhow::Result<DamageSummary> {
    let mut stack = run.workload.stack()?;
    let data = stack.path("data");
    copy_folder(run.base.path(), &data)?;
    damage.apply(&data)?;
    let verdict = check_log(&mut stack, &run.workload, &run.announced, run.workload.events_kept()).await?;
    let outcome = outcome_of(&verdict);
    let mut summary = DamageSummary {
        outcomes: BTreeMap::from([(format!("{}: {outcome}", damage.kind()), 1)]),
        missed_max: BTreeMap::from([(damage.kind(), verdict.missed)]),
        memory_peak_kib: (verdict.memory_peak_kib, damage.to_string()),
        faults: Vec::new(),
    };
    let refused = verdict.refused.iter().filter(|_| !damage.leaves_nothing());
    let mut faults: Vec<_> = refused.map(|line| format!("refused: {line}")).collect();
    faults.extend(verdict.faults.clone());
    if verdict.panicked {
        faults.push("a panic in the log".to_owned());
    }
    if verdict.memory_peak_kib > MEMORY_MAX_KIB {
        faults.push(format!("{} KiB of memory", verdict.memory_peak_kib));
    }
    if !faults.is_empty() {
        let folder = run.keep.join(format!("damage-{number}"));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        copy_folder(run.base.path(), &folder.join("data"))?;
        damage.apply(&folder.join("data"))?;
        fs::write(folder.join("daemon.log"), stack.process(Binary::Ingestd)?.log())?;
        summary.faults =
            vec![format!("{damage}: {outcome}: {}; the store is in {}", faults.join("; "), folder.display())];
    }
    Ok(summary)
}

fn outcome_of(verdict: &LogVerdict) -> &'static str {
    match verdict {
        LogVerdict { panicked: true, refused: Some(_), .. } => "refused after a panic",
        LogVerdict { refused: Some(_), .. } => "refused",
        LogVerdict { is_reset: true, .. } => "another epoch",
        LogVerdict { changed: 1.., .. } => "ids given twice",
        LogVerdict { lost: 1.., .. } => "silent",
        LogVerdict { doubled: 1.., .. } => "doubled",
        LogVerdict { faults, .. } if !faults.is_empty() => "wrong",
        LogVerdict { missed: 1.., .. } => "gap",
        LogVerdict { panicked: true, .. } => "right after a panic",
        _ => "right",
    }
}
