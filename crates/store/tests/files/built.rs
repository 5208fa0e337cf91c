//! Stores that tests damage, and what is then in them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use news::Seq;
use store::{LogReader, LogWriter, Retention, SourceShare, StoreOptions, VisitRecord};

/// With segments of 64 events or so many, and no limit for a source.
pub(crate) fn options(events_per_segment: u64) -> StoreOptions {
    StoreOptions {
        retention: Retention { events: events_per_segment * 8, ..StoreOptions::default().retention },
        share: SourceShare { percent: 100, ..SourceShare::default() },
        ..StoreOptions::default()
    }
}

/// What a reader gets that begins before the first event: the events by their numbers, and how many it is told are missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadLog {
    pub(crate) events: BTreeMap<u64, String>,
    pub(crate) missed: u64,
}

pub(crate) fn read_log(reader: &LogReader) -> ReadLog {
    let mut log = ReadLog::default();
    let mut after = Seq::NONE;
    while after < reader.head() {
        let page = reader.page(after, 700, usize::MAX).unwrap();
        log.missed += page.missed;
        assert!(page.missed > 0 || !page.records.is_empty(), "a reader at {after} makes no progress");
        after = page.records.last().map_or(Seq(after.0 + page.missed), |last| last.seq);
        for record in page.records {
            assert!(log.events.insert(record.seq.0, record.json).is_none(), "{} twice", record.seq);
        }
    }
    let back = reader.page_before(Seq(u64::MAX), Seq::NONE, usize::MAX, usize::MAX).unwrap();
    let back: BTreeMap<_, _> = back.into_iter().map(|record| (record.seq.0, record.json)).collect();
    assert!(back == log.events, "the same events backwards");
    assert_eq!(after, reader.head());
    log
}

/// How many new or changed items the writer finds in visits.
pub(crate) fn news_in(writer: &mut LogWriter, visits: Vec<VisitRecord>) -> u32 {
    writer.append(visits).unwrap().iter().map(|visit| visit.new + visit.updated).sum()
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All files below a folder, in order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The segments of a store, in order.
pub(crate) fn segments(store: &Path) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "segment");
    files(&store.join("journal")).into_iter().filter(is_segment).collect()
}
