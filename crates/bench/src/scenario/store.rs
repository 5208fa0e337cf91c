//! The store by itself, beside the same bytes written and synced by hand: what a commit costs, what one item of a source with many
//! known items writes, and how long a start takes.

use std::{
    fs::{self, File},
    hint,
    io::Write as _,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use news::{FeedUrl, Item, ItemEvidence, Source, SourceId, SourceState, Timestamp, VisitStatus};
use store::{LogWriter, NewsPlan, StoreOptions, VisitRecord};
use tokio::time::Instant;

use super::Options;
use crate::report::{Bar, Row, ScenarioReport};

/// What the commits of one measurement are like. Each is of a visit whose document has as many known items as new ones.
#[derive(Clone, Copy)]
struct CommitLoad {
    commits: usize,
    items: usize,
    text_bytes: usize,
}

const LOADS: [CommitLoad; 3] = [
    CommitLoad { commits: 2000, items: 10, text_bytes: 1000 },
    CommitLoad { commits: 300, items: 100, text_bytes: 1000 },
    CommitLoad { commits: 500, items: 10, text_bytes: 24_000 },
];
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

/// Seconds, one for each commit.
#[derive(Default)]
struct CommitTimes {
    /// The whole: what is new is found, encoded and committed.
    visit: Vec<f64>,
    /// The append of it: the record, its write, its sync, and sled.
    append: Vec<f64>,
    /// A write and a sync of as many bytes, by hand, after each.
    by_hand: Vec<f64>,
}

fn commits(folder: &Path, load: CommitLoad) -> anyhow::Result<CommitTimes> {
    let folder = tempfile::tempdir_in(folder)?;
    let (mut writer, _reader) = store::open(&folder.path().join("store"), &StoreOptions::default())?;
    let mut by_hand = File::create(folder.path().join("by-hand"))?;
    let sources = (0..PUBLISHERS).map(source).collect::<anyhow::Result<Vec<_>>>()?;
    let document = |commit: usize| -> Vec<_> {
        let first = commit / PUBLISHERS * load.items;
        let numbers = first.saturating_sub(load.items)..first + load.items;
        numbers.map(|n| item(commit % PUBLISHERS, n, load.text_bytes)).collect()
    };
    let mut times = CommitTimes::default();
    let mut items = document(0);
    for commit in 0..load.commits {
        let visits = vec![visit(&sources[commit % PUBLISHERS], items, commit)];
        let before = writer.journal_bytes();
        let began = Instant::now();
        let mut prepared = began;
        writer.append_noting(visits, &mut || prepared = Instant::now())?;
        times.visit.push(began.elapsed().as_secs_f64());
        times.append.push(prepared.elapsed().as_secs_f64());
        // A sync that comes sooner after the one before takes less time: both come after as much work.
        let preparation = prepared - began;
        let began = Instant::now();
        items = document(commit + 1);
        while began.elapsed() < preparation {
            hint::spin_loop();
        }
        let record = vec![b'x'; usize::try_from(writer.journal_bytes() - before)?];
        let began = Instant::now();
        by_hand.write_all(&record)?;
        by_hand.sync_data()?;
        times.by_hand.push(began.elapsed().as_secs_f64());
    }
    writer.close()?;
    Ok(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The appends have the bar: what is new must be found and encoded whatever it is written to.
fn commit_rows(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for load in LOADS {
        let CommitTimes { visit, append, by_hand } = commits(folder, load)?;
        let by_hand = median(by_hand) * 1e3;
        let what = format!("{} items of {} B, median", load.items, load.text_bytes);
        let row = |of: &str, ours| Row::new(format!("{of} {what}"), "ms", median(ours) * 1e3, Some(by_hand));
        rows.push(row("append of", append).bar(Bar::RatioAtMost(1.25)));
        rows.push(row("visit with", visit));
    }
    Ok(rows)
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
    let mut rows = commit_rows(folder.path())?;
    let per_item = bytes_per_item(folder.path())?;
    let (not_closed, closed) = starts(folder.path())?;
    rows.extend([
        Row::new("written for one item, with 3,000 known ones", "B", per_item, None)
            .bar(Bar::AtMost(10_240.0)),
        Row::new("start with 1,000,000 events, not closed before", "s", not_closed, None)
            .bar(Bar::AtMost(1.0)),
        Row::new("start with 1,000,000 events", "s", closed, None).bar(Bar::AtMost(1.0)),
    ]);
    let commits = LOADS.map(|load| load.commits.to_string()).join(", ");
    let load = format!("{commits} commits; {NEW} items; {EVENTS} events of {SOURCES} sources");
    Ok(ScenarioReport { scenario: "store", load, columns: ["ours", "by hand"], rows })
}
