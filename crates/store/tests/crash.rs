//! A process that dies at any step of an append loses nothing that was visible, and the store opens again.
//!
//! The test starts itself as a child that appends until a crash point ends it; the parent then opens the store.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, sync::Arc};

use news::{FeedUrl, Item, ItemEvidence, Seq, Source, SourceId, SourceState, Timestamp};
use store::{NewsPlan, StoreOptions, VisitRecord};

const CHILD: &str = "NEWSWIRE_TEST_CRASH";
const PER_VISIT: u64 = 3;

fn visit(n: u64) -> VisitRecord {
    let url = FeedUrl::try_new("https://example.org/feed").unwrap();
    let source = Arc::new(Source::new(SourceId::try_new("a").unwrap(), url));
    let items = (0..PER_VISIT)
        .map(|k| {
            let guid = news::stable_hash(format!("{n}/{k}").as_bytes());
            Item {
                key: format!("{n}/{k}"),
                evidence: ItemEvidence { guid, ..ItemEvidence::default() },
                ..Item::default()
            }
        })
        .collect();
    let state = SourceState { etag: Some(n.to_string()), ..SourceState::default() };
    VisitRecord { source, items, state, now: Timestamp::from_millis(0), plan: NewsPlan::default() }
}

/// In the child: appends and reports what became visible, until a crash point ends it.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let (mut writer, reader) = store::open(Path::new(&dir), &StoreOptions::default()).unwrap();
    let start = reader.head().0 / PER_VISIT;
    for n in start.. {
        writer.append(vec![visit(n)]).unwrap();
        fs::write(Path::new(&dir).join("visible"), reader.head().to_string()).unwrap();
    }
}

const CHILD_WITHOUT_NEWS: &str = "NEWSWIRE_TEST_CRASH_WITHOUT_NEWS";

/// In the child: a visit without news, and then a sudden end.
#[test]
fn child_without_news() {
    let Ok(dir) = std::env::var(CHILD_WITHOUT_NEWS) else { return };
    let (mut writer, _reader) = store::open(Path::new(&dir), &StoreOptions::default()).unwrap();
    writer.append(vec![visit(1)]).unwrap();
    let state = SourceState { etag: Some("later".to_owned()), ..SourceState::default() };
    writer.append(vec![VisitRecord { items: Vec::new(), state, ..visit(1) }]).unwrap();
    std::process::abort();
}

#[test]
fn a_visit_without_news_is_remembered_although_the_process_died_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["child_without_news", "--exact"]).env(CHILD_WITHOUT_NEWS, dir.path());
    assert!(!child.output().unwrap().status.success(), "it died");
    let (_writer, reader) = store::open(dir.path(), &StoreOptions::default()).unwrap();
    let state = reader.state(&SourceId::try_new("a").unwrap()).unwrap().unwrap();
    assert_eq!((state.etag.as_deref(), reader.head()), (Some("later"), Seq(PER_VISIT)));
}

#[cfg(feature = "crash-points")]
fn crash_at(step: &str, dir: &Path) {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, dir)
        .env("CRASH_AT", format!("{step}:5"))
        .output()
        .unwrap()
        .status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step} fired");
}

#[cfg(feature = "crash-points")]
#[test]
fn a_crash_at_any_step_loses_nothing_visible_and_leaves_no_partial_visit() {
    for step in store::crash::ALL.iter().filter(|step| step.starts_with("append-")) {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..2 {
            crash_at(step, dir.path());
            let visible: u64 = fs::read_to_string(dir.path().join("visible")).unwrap().parse().unwrap();
            let (mut writer, reader) = store::open(dir.path(), &StoreOptions::default()).unwrap();
            let head = reader.head();
            assert!(head.0 >= visible, "{step}: {head} of {visible}");
            assert_eq!(head.0 % PER_VISIT, 0, "{step}: a visit is whole or absent");
            let page = reader.page(Seq::NONE, usize::MAX, usize::MAX).unwrap();
            let seqs: Vec<_> = page.records.iter().map(|r| r.seq.0).collect();
            assert_eq!(seqs, (1..=head.0).collect::<Vec<_>>(), "{step} round {round}");
            let state = reader.state(&SourceId::try_new("a").unwrap()).unwrap().unwrap();
            let last = head.0 / PER_VISIT - 1;
            assert_eq!(state.etag, Some(last.to_string()), "{step}: state and events agree");
            let again = writer.append(vec![visit(last)]).unwrap();
            assert_eq!(again[0].new, 0, "{step}: what is in the log is known");
        }
    }
}

fn filled(dir: &Path) {
    let (mut writer, _) = store::open(dir, &StoreOptions::default()).unwrap();
    for n in 0..20 {
        writer.append(vec![visit(n)]).unwrap();
    }
    drop(writer);
    // Opening once more makes sled write its snapshot.
    drop(store::open(dir, &StoreOptions::default()).unwrap());
}

#[test]
fn a_half_written_snapshot_does_not_prevent_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    for content in [&b""[..], b"half"] {
        let left_over = dir.path().join("log.sled/snap.00000000FFFFFFFF.generating");
        fs::write(&left_over, content).unwrap();
        let (_writer, reader) = store::open(dir.path(), &StoreOptions::default()).unwrap();
        assert_eq!(reader.head(), Seq(20 * PER_VISIT));
        assert!(!left_over.exists());
    }
}

#[test]
fn a_damaged_snapshot_is_renamed_and_rebuilt_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let mut cut = 0;
    for entry in fs::read_dir(dir.path().join("log.sled")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            let length = fs::metadata(&path).unwrap().len();
            fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
            cut += 1;
        }
    }
    assert!(cut > 0, "sled wrote a snapshot");
    let (_writer, reader) = store::open(dir.path(), &StoreOptions::default()).unwrap();
    assert_eq!(reader.page(Seq::NONE, usize::MAX, usize::MAX).unwrap().records.len() as u64, 20 * PER_VISIT);
}
