//! Retention beside appends and reads, and what outlives a removed segment.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use news::{HeldHost, Pause, Seq, Timestamp};
use store::{LogReader, Retention, StoreOptions};

use crate::{
    built::{news_in, options, read_log, segments},
    visits::{all, item, source, visit},
};

fn keeping(events: u64) -> StoreOptions {
    let retention = Retention { events, ..StoreOptions::default().retention };
    StoreOptions { retention, ..options(1) }
}

#[test]
fn what_only_a_removed_segment_knew_of_a_source_is_still_there_when_sled_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = store::open(dir.path(), &keeping(200)).unwrap();
    let quiet: Vec<_> = (0..30).map(|n| source(&format!("quiet-{n}"))).collect();
    let items = |n: usize| (0..=n % 7 * 20).map(|k| item(&format!("{n}/{k}"), 1)).collect();
    for (n, source) in quiet.iter().enumerate() {
        writer.append(vec![visit(source, items(n), 5)]).unwrap();
    }
    let pause = Pause { since: Timestamp::from_millis(1), until: None, reason: None };
    writer.pause(vec![(quiet[3].id.clone(), Some(pause.clone()))]).unwrap();
    let hosts = [HeldHost { host: "example.org".into(), until: Timestamp::from_millis(99), code: 429 }];
    writer.write_held_hosts(&hosts).unwrap();
    for n in 0..200 {
        let items = (0..10).map(|k| item(&format!("busy {n}/{k}"), 1)).collect();
        writer.append(vec![visit(&source("busy"), items, 1000 + n)]).unwrap();
        while writer.retain(None).unwrap().more {}
    }
    assert!(segments(dir.path()).len() < 6);
    let oldest = reader.oldest();
    assert_eq!(reader.head().0 + 1 - oldest.0, 200);
    let before = all(&reader);
    writer.close().unwrap();
    drop(reader);
    fs::remove_dir_all(dir.path().join("log.sled")).unwrap();

    let (mut writer, reader) = store::open(dir.path(), &keeping(200)).unwrap();
    assert_eq!((reader.take_damage(), reader.held_hosts().unwrap()), (Vec::new(), hosts.to_vec()));
    while writer.retain(None).unwrap().more {}
    assert_eq!((reader.oldest(), all(&reader)), (oldest, before));
    for (n, source) in quiet.iter().enumerate() {
        let state = reader.state(&source.id).unwrap().unwrap();
        assert_eq!((state.etag.as_deref(), state.paused), (Some("\"5\""), (n == 3).then(|| pause.clone())));
        assert_eq!(news_in(&mut writer, vec![visit(source, items(n), 9_000_000)]), 0, "quiet source {n}");
    }
}

/// How long the longest call took, and all of them.
#[derive(Debug, Default)]
struct Calls {
    longest: Duration,
    all: Duration,
}

impl Calls {
    #[expect(clippy::disallowed_methods, reason = "the store blocks, and has no runtime")]
    fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        self.longest = self.longest.max(start.elapsed());
        self.all += start.elapsed();
        result
    }
}

#[test]
fn retention_is_quicker_than_appends_and_no_append_waits_long_for_it() {
    const PER_VISIT: u64 = 50;
    const VISITS: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _reader) = store::open(dir.path(), &keeping(2000)).unwrap();
    let (mut appends, mut steps) = (Calls::default(), Calls::default());
    let mut removed = 0;
    for n in 0..VISITS {
        let items = (0..PER_VISIT).map(|k| item(&format!("{n}/{k}"), 1)).collect();
        let visit = visit(&source(&format!("source-{}", n % 40)), items, n.cast_signed());
        appends.time(|| writer.append(vec![visit]).unwrap());
        if n % 20 == 19 {
            while {
                let step = steps.time(|| writer.retain(None).unwrap());
                removed += step.removed;
                step.more
            } {}
        }
    }
    assert_eq!(removed, PER_VISIT * VISITS - 2000);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = removed as f64 / steps.all.as_secs_f64();
    println!(
        "retention: {rate:.0} events/s, the longest step {:?}; the longest append {:?}",
        steps.longest, appends.longest
    );
    assert!(steps.all < appends.all, "retention {steps:?}, appends {appends:?}");
    let allowed = Duration::from_millis(50).max(appends.longest * 2);
    assert!(steps.longest <= allowed, "retention {steps:?}, appends {appends:?}");
}

/// Reads pages from places all over the log until the writer is done. Returns how many events.
fn read_beside(reader: &LogReader, is_done: &AtomicBool, seed: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    while !is_done.load(Ordering::Acquire) {
        let head = reader.head();
        let after = Seq(random.u64(..=head.0));
        let page = reader.page(after, random.usize(1..300), 40_000).unwrap();
        let first = page.records.first().map(|record| record.seq.0);
        assert!(
            first.is_none_or(|first| first == after.0 + page.missed + 1),
            "{after}: {first:?}, {}",
            page.missed
        );
        assert!(first.is_some() || head == after, "retention never takes the newest event");
        let back = reader.page_before(Seq(random.u64(1..=head.0 + 1)), Seq::NONE, 100, 40_000).unwrap();
        for (n, record) in (0..).zip(&page.records) {
            assert_eq!(record.seq.0, after.0 + page.missed + 1 + n);
        }
        for pair in back.windows(2) {
            assert_eq!(pair[0].seq.0, pair[1].seq.0 + 1);
        }
        for record in page.records.iter().chain(&back) {
            let event: news::Event = serde_json::from_str(&record.json).unwrap();
            assert_eq!((event.id.seq, event.item.title), (record.seq, format!("key {} 1", record.seq)));
            count += 1;
        }
        assert!(
            reader.first_since(Timestamp::from_millis(random.i64(0..1000))).unwrap().0 <= reader.head().0 + 1
        );
    }
    count
}

#[test]
fn a_reader_beside_retention_and_new_segments_gets_whole_pages_and_is_told_of_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = store::open(dir.path(), &keeping(300)).unwrap();
    let is_done = AtomicBool::new(false);
    let read: u64 = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|n| {
                scope.spawn({
                    let (reader, is_done) = (reader.clone(), &is_done);
                    move || read_beside(&reader, is_done, n)
                })
            })
            .collect();
        for n in 0..100 {
            let items = (1..=20).map(|k| item(&format!("key {}", n * 20 + k), 1)).collect();
            writer.append(vec![visit(&source("a"), items, n)]).unwrap();
            writer.retain(None).unwrap();
        }
        is_done.store(true, Ordering::Release);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    assert!(read > 1000, "{read} events were read");
    assert_eq!(reader.take_damage(), []);
}

#[test]
fn what_a_damaged_or_deleted_segment_knew_of_a_source_is_written_again_when_its_turn_comes() {
    for is_deleted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, reader) = store::open(dir.path(), &keeping(128)).unwrap();
        let quiet = || (0..40).map(|n| item(&format!("quiet {n}"), 1)).collect();
        assert_eq!(news_in(&mut writer, vec![visit(&source("quiet"), quiet(), 1)]), 40);
        let mut append = |range: std::ops::Range<u32>| {
            for n in range {
                writer.append(vec![visit(&source("a"), vec![item(&format!("{n}"), 1)], n.into())]).unwrap();
                while writer.retain(None).unwrap().more {}
            }
        };
        append(0..100);
        let first = &segments(dir.path())[0];
        if is_deleted {
            fs::remove_file(first).unwrap();
        } else {
            let mut bytes = fs::read(first).unwrap();
            // The header of the first record.
            bytes[70] ^= 1;
            fs::write(first, bytes).unwrap();
        }
        append(100..250);
        assert!(!first.exists(), "its turn has come");
        assert_eq!(read_log(&reader).events.len(), 128);
        writer.close().unwrap();
        drop(reader);
        let notes = |store: &std::path::Path| store::open(store, &keeping(128)).unwrap().1.notes().to_vec();
        assert_eq!(notes(dir.path()), []);
        fs::remove_dir_all(dir.path().join("log.sled")).unwrap();
        let (mut writer, _reader) = store::open(dir.path(), &keeping(128)).unwrap();
        assert_eq!(news_in(&mut writer, vec![visit(&source("quiet"), quiet(), 1000)]), 0, "{is_deleted}");
    }
}
