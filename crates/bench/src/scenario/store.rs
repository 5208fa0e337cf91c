//! The store by itself, beside the same bytes written and synced by hand: what a commit costs, what one item of a source with many
//! known items writes, and how long a start takes.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use news::{FeedUrl, Item, ItemEvidence, Source, SourceId, SourceState, Timestamp, VisitStatus};
use store::{LogWriter, NewsPlan, StoreOptions, VisitRecord};
use tokio::time::Instant;

use super::Options;
use crate::report::{Bar, Row, ScenarioReport};

/// Commits of one measurement, ours and by hand in turns.
const COMMITS: usize = 200;
const TURNS: usize = 10;
const ITEMS_PER_COMMIT: usize = 10;
/// Sources that publish them in turns.
const PUBLISHERS: usize = 50;
/// Items that the source of the second measurement had before.
const KNOWN: usize = 3000;
const WINDOW: usize = 50;
const NEW: usize = 300;
/// Events of the log whose start is measured.
const EVENTS: usize = 1_000_000;
const SOURCES: usize = 1000;
const ITEMS_PER_BULK: usize = 2000;

fn source(n: usize) -> anyhow::Result<Arc<Source>> {
    let url = FeedUrl::try_new(&format!("https://example.org/feeds/{n}"))?;
    Ok(Arc::new(Source::new(SourceId::try_new(&format!("source-{n}"))?, url)))
}

fn item(source: usize, n: usize, text_bytes: usize) -> Item {
    let key = format!("{source}/{n}");
    Item {
        evidence: ItemEvidence { guid: news::stable_hash(key.as_bytes()), ..ItemEvidence::default() },
        title: format!("Item {n} of source {source}"),
        summary: "x".repeat(text_bytes),
        key,
        ..Item::default()
    }
}

fn visit(source: &Arc<Source>, items: Vec<Item>, second: usize) -> VisitRecord {
    let now = Timestamp::from_millis(i64::try_from(second).unwrap_or(0) * 1000);
    let state = SourceState { last_status: Some(VisitStatus::New), ..SourceState::default() };
    VisitRecord { source: Arc::clone(source), items, state, now, plan: NewsPlan::default() }
}

/// Seconds per commit of ours and by hand, of the same bytes on the same file system.
fn commits(folder: &Path) -> anyhow::Result<(f64, f64)> {
    let (mut writer, _reader) = store::open(&folder.join("store"), &StoreOptions::default())?;
    let mut by_hand = File::create(folder.join("by-hand"))?;
    let sources = (0..PUBLISHERS).map(source).collect::<anyhow::Result<Vec<_>>>()?;
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..TURNS {
        let bytes = writer.journal_bytes();
        for commit in 0..COMMITS {
            let first = (turn * COMMITS + commit) * ITEMS_PER_COMMIT;
            let of = commit % PUBLISHERS;
            let items = (first..first + ITEMS_PER_COMMIT).map(|n| item(of, n, 1000)).collect();
            let record = visit(&sources[of], items, first);
            let began = Instant::now();
            writer.append(vec![record])?;
            ours += began.elapsed();
        }
        let written = usize::try_from(writer.journal_bytes() - bytes)?;
        let record = vec![b'x'; written / COMMITS];
        for _ in 0..COMMITS {
            let began = Instant::now();
            by_hand.write_all(&record)?;
            by_hand.sync_data()?;
            theirs += began.elapsed();
        }
    }
    writer.close()?;
    let per_commit =
        |time: Duration| time.as_secs_f64() / f64::from(u32::try_from(COMMITS * TURNS).unwrap_or(1));
    Ok((per_commit(ours), per_commit(theirs)))
}

/// Bytes that this process has written to files. What comes to the disk is counted in whole pages by the kernel, and in larger
/// parts by some file systems.
fn written_bytes() -> anyhow::Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.context("/proc/self/io has no wchar")?.parse()?)
}

/// Bytes written for each new item of a source that has many known ones.
fn bytes_per_item(folder: &Path) -> anyhow::Result<f64> {
    let (folder, options) = (folder.join("long"), StoreOptions::default());
    let (mut writer, reader) = store::open(&folder, &options)?;
    let source = source(0)?;
    let document = |newest: usize| (newest.saturating_sub(WINDOW)..newest).map(|n| item(0, n, 800)).collect();
    let mut newest = 0;
    while newest < KNOWN {
        newest += WINDOW;
        writer.append(vec![visit(&source, document(newest), newest)])?;
    }
    // What is written late is of the items before.
    drop(reader);
    writer.close()?;
    let (mut writer, _reader) = store::open(&folder, &options)?;
    let before = written_bytes()?;
    for _ in 0..NEW {
        newest += 1;
        writer.append(vec![visit(&source, document(newest), newest)])?;
    }
    writer.close()?;
    let bytes = u32::try_from(written_bytes()? - before)?;
    Ok(f64::from(bytes) / f64::from(u32::try_from(NEW)?))
}

fn fill(writer: &mut LogWriter) -> anyhow::Result<()> {
    let sources = (0..SOURCES).map(source).collect::<anyhow::Result<Vec<_>>>()?;
    for bulk in 0..EVENTS / ITEMS_PER_BULK {
        let of = bulk % SOURCES;
        let first = bulk * ITEMS_PER_BULK;
        let items = (first..first + ITEMS_PER_BULK).map(|n| item(of, n, 300)).collect();
        writer.append(vec![visit(&sources[of], items, bulk)])?;
    }
    Ok(())
}

/// Seconds until a store of a million events is open, after it was closed and after it was not.
fn starts(folder: &Path) -> anyhow::Result<(f64, f64)> {
    let (folder, options) = (folder.join("million"), StoreOptions::default());
    let (mut writer, reader) = store::open(&folder, &options)?;
    fill(&mut writer)?;
    drop((writer, reader));
    let open = || -> anyhow::Result<_> {
        let began = Instant::now();
        let (writer, reader) = store::open(&folder, &options)?;
        anyhow::ensure!(reader.head().0 == EVENTS as u64, "the log has {} events", reader.head());
        Ok((began.elapsed().as_secs_f64(), writer))
    };
    let (not_closed, writer) = open()?;
    writer.close()?;
    let (closed, _writer) = open()?;
    Ok((not_closed, closed))
}

pub(super) fn run(_: &Options) -> anyhow::Result<ScenarioReport> {
    let folder = tempfile::tempdir_in(".").context("make a folder for the stores")?;
    let (ours, by_hand) = commits(folder.path())?;
    let per_item = bytes_per_item(folder.path())?;
    let (not_closed, closed) = starts(folder.path())?;
    let rows = vec![
        Row::new("time of a commit of 10 items", "ms", ours * 1e3, Some(by_hand * 1e3))
            .bar(Bar::RatioAtMost(1.25)),
        Row::new("written for one item, with 3,000 known ones", "B", per_item, None)
            .bar(Bar::AtMost(10_240.0)),
        Row::new("start with 1,000,000 events, not closed before", "s", not_closed, None)
            .bar(Bar::AtMost(1.0)),
        Row::new("start with 1,000,000 events", "s", closed, None).bar(Bar::AtMost(1.0)),
    ];
    let load = format!("{} commits; {NEW} items; {EVENTS} events of {SOURCES} sources", COMMITS * TURNS);
    Ok(ScenarioReport { scenario: "store", load, baseline: "by hand", rows })
}
