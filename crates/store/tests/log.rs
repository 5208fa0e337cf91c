//! The promises of the log: no holes, no reuse, order, no duplicates, and retention that is reported.
#![allow(clippy::unwrap_used)]

#[path = "support/visits.rs"]
mod visits;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use news::{Event, EventKind, HeldHost, Pause, Seq, SourceId, SourceState, Timestamp, VisitStatus};
use proptest::prelude::*;
use store::{LogReader, LogWriter, NewsPlan, Retention, SoonerVisit, StoreOptions, VisitRecord};

use visits::{all, item, source, visit};

fn open(path: &Path) -> (LogWriter, LogReader) {
    store::open(path, &StoreOptions::default()).unwrap()
}

#[test]
fn a_visit_is_committed_with_its_events_and_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let bbc = source("bbc");
    let (mut writer, reader) = open(dir.path());
    assert_eq!((reader.oldest(), reader.head()), (Seq(1), Seq(0)));
    let appended = writer.append(vec![visit(&bbc, vec![item("a", 1), item("b", 1)], 5)]).unwrap();
    assert_eq!((appended[0].new, appended[0].first, appended[0].last), (2, Some(Seq(1)), Some(Seq(2))));
    let appended = writer.append(vec![visit(&bbc, vec![item("a", 1), item("b", 2)], 6)]).unwrap();
    assert_eq!((appended[0].new, appended[0].updated, appended[0].last), (0, 1, Some(Seq(3))));
    let epoch = reader.epoch().clone();
    drop((writer, reader));

    let (mut writer, reader) = open(dir.path());
    assert_eq!(reader.epoch(), &epoch);
    let events = all(&reader);
    let listed: Vec<_> = events.iter().map(|e| (e.id.seq.0, e.kind, e.item.title.as_str())).collect();
    assert_eq!(
        listed,
        [(1, EventKind::Item, "a 1"), (2, EventKind::Item, "b 1"), (3, EventKind::Update, "b 2")]
    );
    assert_eq!(events[2].first_seen, Timestamp::from_millis(5));
    let state = reader.state(&bbc.id).unwrap().unwrap();
    assert_eq!((state.etag.as_deref(), state.counts.items, state.counts.updates), (Some("\"6\""), 0, 1));
    let appended = writer.append(vec![visit(&bbc, vec![item("a", 1), item("c", 1)], 7)]).unwrap();
    assert_eq!((appended[0].new, appended[0].first), (1, Some(Seq(4))));
}

#[test]
fn new_items_make_the_next_visit_sooner_if_there_are_enough_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    let source = source("a");
    for (keys, expected) in [(&["one"][..], 900), (&["two", "three"], 300), (&["two", "three"], 900)] {
        let mut record = visit(&source, keys.iter().map(|key| item(key, 1)).collect(), 100_000);
        record.state.next_visit = Some(Timestamp::from_millis(900));
        let sooner = SoonerVisit { items: 2, at: Timestamp::from_millis(300), why: "a burst".to_owned() };
        record.plan = NewsPlan {
            since: Some(Timestamp::from_millis(40_000)),
            sooner: Some(sooner),
            ..NewsPlan::default()
        };
        let stored = writer.append(vec![record]).unwrap().remove(0).state;
        assert_eq!(stored.next_visit, Some(Timestamp::from_millis(expected)));
        assert_eq!(stored.why == "a burst", expected == 300);
        let appeared = Timestamp::from_millis(40_000);
        let two = (keys.len() == 2 && expected == 300).then_some(appeared);
        assert_eq!(stored.news.since(), ((expected == 300 || keys.len() == 1).then_some(appeared), two));
        assert_eq!(reader.state(&source.id).unwrap(), Some(stored));
    }
}

#[test]
fn a_silence_counts_only_while_the_source_was_watched_and_was_not_flooding() {
    const DAY_MS: i64 = 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { new_bytes_max: 1500, ..StoreOptions::default() };
    let (mut writer, reader) = store::open(dir.path(), &options).unwrap();
    let source = source("a");
    let mut state = SourceState::default();
    let mut visit_on = |day: i64, was_watched: bool, keys: &[&str]| {
        let items = keys.iter().map(|key| item(key, 1)).collect();
        let mut record = visit(&source, items, day * DAY_MS);
        record.state = state.clone();
        record.plan.was_watched = was_watched;
        state = writer.append(vec![record]).unwrap().remove(0).state;
        (state.last_news, state.silences)
    };
    visit_on(1, true, &["first"]);
    let (_, before) = visit_on(2, true, &["a"]);
    assert_eq!(before.quiet(Timestamp::from_millis(0), Timestamp::from_millis(1)), None);
    let (_, one) = visit_on(3, true, &["b"]);
    assert_ne!(one, before, "a day");
    assert_eq!(visit_on(4, true, &["b"]), (Some(Timestamp::from_millis(3 * DAY_MS)), one), "nothing new");
    let (news, unwatched) = visit_on(40, false, &["c"]);
    assert_eq!((news, unwatched), (Some(Timestamp::from_millis(40 * DAY_MS)), one));
    // More than one visit records.
    let keys: Vec<_> = (0..40).map(|n| format!("many {n}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    for day in 41..44 {
        let (news, flooding) = visit_on(day, true, &keys);
        assert_eq!((news, flooding), (Some(Timestamp::from_millis(day * DAY_MS)), one), "in parts");
    }
    let stored = reader.state(&source.id).unwrap().unwrap();
    assert_eq!(stored.silences, one);
    assert!(stored.flooding.is_some());
}

#[test]
fn the_subscription_of_a_source_is_stored_without_a_visit() {
    let dir = tempfile::tempdir().unwrap();
    let bbc = source("bbc");
    let (mut writer, reader) = open(dir.path());
    writer.append(vec![visit(&bbc, vec![item("a", 1)], 5)]).unwrap();
    let hub = Some(news::SecretText::new("https://hub.example/".to_owned()));
    let websub = Some(Box::new(news::WebSubState { hub, ..news::WebSubState::default() }));
    let unknown = SourceId::try_new("unknown").unwrap();
    writer
        .write_subscriptions(vec![(bbc.id.clone(), websub.clone()), (unknown.clone(), websub.clone())])
        .unwrap();
    assert_eq!((reader.head(), reader.state(&unknown).unwrap()), (Seq(1), None));
    drop((writer, reader));
    let state = open(dir.path()).1.state(&bbc.id).unwrap().unwrap();
    assert_eq!((state.websub, state.etag.as_deref()), (websub, Some("\"5\"")), "and nothing else is touched");
}

#[test]
fn a_source_that_is_taken_out_of_the_list_is_marked_until_it_is_visited_again() {
    let dir = tempfile::tempdir().unwrap();
    let bbc = source("bbc");
    let (mut writer, reader) = open(dir.path());
    writer.append(vec![visit(&bbc, vec![item("a", 1)], 5)]).unwrap();
    let unknown = SourceId::try_new("unknown").unwrap();
    writer.mark_removed(vec![bbc.id.clone(), unknown.clone()]).unwrap();
    assert_eq!(reader.state(&unknown).unwrap(), None);
    drop((writer, reader));
    let (mut writer, reader) = open(dir.path());
    let state = reader.state(&bbc.id).unwrap().unwrap();
    assert_eq!((state.removed, state.etag.as_deref()), (true, Some("\"5\"")), "and nothing else is touched");
    writer.append(vec![visit(&bbc, Vec::new(), 6)]).unwrap();
    assert!(!reader.state(&bbc.id).unwrap().unwrap().removed);
}

#[test]
fn the_same_key_of_two_sources_is_two_items() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    let visits = ["x", "y"].map(|id| visit(&source(id), vec![item("same", 1)], 1));
    writer.append(visits.into()).unwrap();
    assert_eq!(all(&reader).len(), 2);
}

#[test]
fn a_pause_is_kept_by_visits_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    let at = Timestamp::from_millis;
    let pause = Pause { since: at(10), until: Some(at(100)), reason: Some("moves house".to_owned()) };
    let id = &source("a").id;
    writer.append(vec![visit(&source("a"), vec![], 1)]).unwrap();
    writer.pause(vec![(id.clone(), Some(pause.clone()))]).unwrap();
    writer.append(vec![visit(&source("a"), vec![], 50)]).unwrap();
    drop((writer, reader));
    let (mut writer, reader) = open(dir.path());
    let state = reader.state(id).unwrap().unwrap();
    assert_eq!((state.paused, state.etag), (Some(pause), Some("\"50\"".to_owned())));
    writer.append(vec![visit(&source("a"), vec![], 100)]).unwrap();
    assert_eq!(reader.state(id).unwrap().unwrap().paused, None);
}

#[test]
fn a_page_stops_at_its_limits_and_always_has_one_event() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    let items = (0..10).map(|n| item(&n.to_string(), 1)).collect();
    writer.append(vec![visit(&source("a"), items, 1)]).unwrap();
    let seqs = |after, limit, bytes| {
        let page = reader.page(Seq(after), limit, bytes).unwrap();
        page.records.iter().map(|r| r.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 3, usize::MAX), [1, 2, 3]);
    assert_eq!(seqs(7, 100, usize::MAX), [8, 9, 10]);
    assert_eq!(seqs(4, 100, 1), [5]);
    assert_eq!(seqs(10, 100, 100), [0; 0]);
    assert_eq!(seqs(99, 100, 100), [0; 0]);
}

#[test]
fn a_page_downwards_has_the_newest_first_and_stops_at_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    let items = (0..10).map(|n| item(&n.to_string(), 1)).collect();
    writer.append(vec![visit(&source("a"), items, 1)]).unwrap();
    let seqs = |before, floor, limit, bytes| {
        let page = reader.page_before(Seq(before), Seq(floor), limit, bytes).unwrap();
        page.iter().map(|r| r.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(seqs(5, 1, 3, usize::MAX), [4, 3, 2]);
    assert_eq!(seqs(5, 3, 100, usize::MAX), [4, 3]);
    assert_eq!(seqs(5, 1, 100, 1), [4]);
    assert_eq!(seqs(u64::MAX, 0, 2, usize::MAX), [10, 9], "what is not there yet is passed over");
    for (before, floor) in [(0, 0), (1, 1), (5, 5), (5, 9), (99, 11)] {
        assert_eq!(seqs(before, floor, 100, usize::MAX), [0; 0], "before {before}, not before {floor}");
    }
}

#[test]
fn retention_removes_the_oldest_and_a_page_counts_what_was_missed() {
    let dir = tempfile::tempdir().unwrap();
    let limits = |events, bytes| StoreOptions {
        retention: Retention { events, bytes, ..StoreOptions::default().retention },
        ..StoreOptions::default()
    };
    let (mut writer, reader) = store::open(dir.path(), &limits(4, u64::MAX)).unwrap();
    for n in 0..10 {
        writer.append(vec![visit(&source("a"), vec![item(&n.to_string(), 1)], n * 1000)]).unwrap();
    }
    assert_eq!(writer.retain(None).unwrap().removed, 6);
    let page = reader.page(Seq(2), 100, usize::MAX).unwrap();
    assert_eq!((page.missed, page.records[0].seq, reader.oldest()), (4, Seq(7), Seq(7)));
    let downwards = reader.page_before(Seq(9), Seq(1), 100, usize::MAX).unwrap();
    assert_eq!(downwards.iter().map(|r| r.seq.0).collect::<Vec<_>>(), [8, 7]);
    drop((writer, reader));

    let (mut writer, reader) = store::open(dir.path(), &limits(100, u64::MAX)).unwrap();
    assert_eq!(reader.oldest(), Seq(7));
    assert_eq!(writer.retain(None).unwrap().removed, 0, "without a trusted clock none is too old");
    let aged_before = |ms| Some(Timestamp::from_millis(ms));
    assert_eq!(writer.retain(aged_before(6_000)).unwrap().removed, 0, "what was recorded at that time stays");
    assert_eq!(writer.retain(aged_before(8_000)).unwrap().removed, 2);
    assert_eq!(writer.retain(aged_before(1_000_000)).unwrap().removed, 1, "the newest stays");
    drop((writer, reader));

    let (mut writer, reader) = store::open(dir.path(), &limits(100, 1)).unwrap();
    assert_eq!(writer.retain(None).unwrap().removed, 0);
    writer.append(vec![visit(&source("a"), vec![item("next", 1)], 0)]).unwrap();
    assert_eq!(reader.head(), Seq(11), "a number is never used again");
    assert_eq!(writer.retain(None).unwrap().removed, 1);
}

#[test]
fn the_first_event_since_an_instant_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    assert_eq!(reader.first_since(Timestamp::from_millis(0)).unwrap(), Seq(1));
    for n in 1..=9 {
        writer.append(vec![visit(&source("a"), vec![item(&n.to_string(), 1)], n * 10)]).unwrap();
    }
    for (instant, seq) in [(0, 1), (10, 1), (11, 2), (90, 9), (91, 10)] {
        assert_eq!(reader.first_since(Timestamp::from_millis(instant)).unwrap(), Seq(seq), "{instant}");
    }
}

#[test]
fn a_second_process_is_refused_with_the_holder_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = open(dir.path());
    let error = store::open(dir.path(), &StoreOptions::default()).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    assert_eq!(reader.head(), Seq(0));
}

/// The only segment of a small journal.
fn segment(dir: &Path) -> PathBuf {
    dir.join("journal/00000001.segment")
}

#[test]
fn an_event_that_was_changed_on_disk_is_left_out_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    let items = (0..5).map(|n| item(&format!("key-of-{n}"), 1)).collect();
    writer.append(vec![visit(&source("a"), items, 1)]).unwrap();
    let before = reader.page(Seq(0), 100, usize::MAX).unwrap().records;
    drop((writer, reader));
    let mut bytes = std::fs::read(segment(dir.path())).unwrap();
    let title = &b"key-of-2 1"[..];
    let at = bytes.windows(title.len()).position(|window| window == title).unwrap();
    bytes[at] ^= 1;
    std::fs::write(segment(dir.path()), bytes).unwrap();

    let (mut writer, reader) = open(dir.path());
    let page = reader.page(Seq(0), 100, usize::MAX).unwrap();
    assert_eq!((page.missed, &page.records[..]), (0, &before[..2]), "a page ends at damage");
    let page = reader.page(Seq(2), 100, usize::MAX).unwrap();
    assert_eq!((page.missed, &page.records[..]), (1, &before[3..]));
    let down = reader.page_before(Seq(6), Seq(1), 100, usize::MAX).unwrap();
    assert_eq!(down.iter().map(|event| event.seq.0).collect::<Vec<_>>(), [5, 4, 2, 1]);
    let source_a = Some(source("a").id.clone());
    let damage = store::DamagedEvents { first: Seq(3), count: 1, source: source_a, too_large: None };
    assert_eq!(reader.take_damage(), [damage], "told once");
    writer.append(vec![visit(&source("a"), vec![item("next", 1)], 2)]).unwrap();
    assert_eq!(reader.head(), Seq(6));
    assert_eq!(writer.append(vec![visit(&source("a"), vec![item("key-of-2", 1)], 3)]).unwrap()[0].new, 0);
}

#[test]
fn a_young_log_whose_only_header_is_damaged_and_whose_states_are_gone_keeps_its_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    writer.append(vec![visit(&source("a"), vec![item("a", 1)], 1)]).unwrap();
    let (epoch, before) = (reader.epoch().clone(), all(&reader));
    drop((writer, reader));
    let mut bytes = std::fs::read(segment(dir.path())).unwrap();
    bytes[21] ^= 1;
    std::fs::write(segment(dir.path()), bytes).unwrap();
    std::fs::remove_dir_all(dir.path().join("log.sled")).unwrap();

    for _ in 0..2 {
        let (mut writer, reader) = open(dir.path());
        assert_eq!((reader.epoch(), all(&reader)), (&epoch, before.clone()));
        assert_eq!(writer.append(vec![visit(&source("a"), vec![item("a", 1)], 2)]).unwrap()[0].new, 0);
    }
}

#[test]
fn data_of_a_newer_version_is_refused_with_a_remedy_and_left_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    writer.append(vec![visit(&source("a"), vec![item("a", 1)], 1)]).unwrap();
    drop((writer, reader));
    let mut bytes = std::fs::read(segment(dir.path())).unwrap();
    bytes[16] = 9;
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(segment(dir.path()), &bytes).unwrap();
    let error = store::open(dir.path(), &StoreOptions::default()).unwrap_err();
    assert!(matches!(error, store::StoreOpenError::Newer { layout: 9, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("install that version again") && text.contains("backup"), "{text}");
    assert!(!text.contains("move the directory away"), "no operator is told to drop a good log: {text}");
    assert_eq!(std::fs::read(segment(dir.path())).unwrap(), bytes);
}

#[test]
fn a_store_that_was_just_closed_opens_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..40 {
        let (mut writer, reader) = open(dir.path());
        writer.append(vec![visit(&source("a"), vec![item(&n.to_string(), 1)], n)]).unwrap();
        drop((writer, reader));
    }
}

/// A model of the log, in ten lines: per source, the content last seen of each key.
fn model(visits: &[(u8, Vec<(u8, u8)>)]) -> Vec<(String, EventKind, String)> {
    let mut latest = std::collections::HashMap::new();
    let mut log = Vec::new();
    for (source, items) in visits {
        let mut here = std::collections::HashSet::new();
        for (key, content) in items.iter().filter(|(key, _)| here.insert(*key)) {
            let kind = match latest.insert((source, *key), *content) {
                None => EventKind::Item,
                Some(before) if before != *content => EventKind::Update,
                Some(_) => continue,
            };
            log.push((format!("s{source}"), kind, format!("{key} {content}")));
        }
    }
    log
}

/// Visits in which the content of an item is the number of its changes so far: items that return to an earlier version,
/// and more than two that change at each visit, would be damped.
fn versions(steps: Vec<(u8, Vec<(u8, u8)>)>) -> Vec<(u8, Vec<(u8, u8)>)> {
    let mut latest = std::collections::HashMap::new();
    let mut version = |source: u8, (key, step): (u8, u8)| {
        let version: &mut u8 = latest.entry((source, key)).or_default();
        *version += step;
        (key, *version)
    };
    steps
        .into_iter()
        .map(|(source, items)| (source, items.into_iter().map(|item| version(source, item)).collect()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_log_is_what_the_model_says(
        steps in prop::collection::vec(
            (0..3u8, prop::collection::vec(prop_oneof![(0..2u8, 0..2u8), (2..6u8, Just(0))], 0..6)),
            0..24,
        ),
        reopen_every in 1..6usize,
        together in 1..4usize,
    ) {
        let visits = versions(steps);
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Some(open(dir.path()));
        for (n, group) in visits.chunks(together).enumerate() {
            if n % reopen_every == 0 {
                drop(opened.take());
                opened = Some(open(dir.path()));
            }
            let group = group.iter().map(|(s, items)| {
                let mut here = std::collections::HashSet::new();
                let items = items.iter().filter(|(key, _)| here.insert(*key));
                let items = items.map(|(key, content)| item(&key.to_string(), u64::from(*content)));
                visit(&source(&format!("s{s}")), items.collect(), 0)
            });
            opened.as_mut().unwrap().0.append(group.collect()).unwrap();
        }
        let reader = &opened.as_ref().unwrap().1;
        let events = all(reader);
        let mut downwards = Vec::new();
        let mut before = Seq(u64::MAX);
        loop {
            let page = reader.page_before(before, Seq(1), together + 1, 600).unwrap();
            let Some(last) = page.last() else { break };
            before = last.seq;
            downwards.extend(page.iter().map(|r| serde_json::from_str::<Event>(&r.json).unwrap()));
        }
        downwards.reverse();
        prop_assert_eq!(&downwards, &events);
        let seqs: Vec<_> = events.iter().map(|e| e.id.seq.0).collect();
        prop_assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
        let events: Vec<_> =
            events.into_iter().map(|e| (e.source.to_string(), e.kind, e.item.title)).collect();
        prop_assert_eq!(events, model(&visits));
    }
}

#[test]
fn a_source_with_more_items_than_are_remembered_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { new_bytes_max: u64::MAX, ..StoreOptions::default() };
    let (mut writer, _) = store::open(dir.path(), &options).unwrap();
    let source = source("many");
    let max = seen::SeenSet::ENTRIES_MAX;
    for (numbers, forgotten) in [(0..max - 5, 0), (max - 5..max, 0), (max..max + 7, 7)] {
        let items = numbers.map(|n| item(&format!("k{n}"), 1)).collect();
        let appended = writer.append(vec![visit(&source, items, 5)]).unwrap().remove(0);
        let is_told = appended.state.warnings.iter().any(|warning| warning.starts_with("too-many-items: "));
        assert_eq!((appended.forgotten, is_told), (forgotten, forgotten > 0));
    }
}

#[test]
fn what_a_visit_defers_comes_with_the_next_ones_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { new_bytes_max: 4096, ..StoreOptions::default() };
    let (mut writer, reader) = store::open(dir.path(), &options).unwrap();
    let source = source("flood");
    let mut items: Vec<_> = (0..40).map(|n| item(&format!("k{n:02}"), 1)).collect();
    let mut state = SourceState::default();
    let mut visits = 0;
    loop {
        (state.last_status, state.asked_in_full) =
            (Some(VisitStatus::New), Some(Timestamp::from_millis(visits)));
        state.warnings.clear();
        (state.etag, state.body_hash) = (Some("\"1\"".to_owned()), Some(7));
        let record = VisitRecord {
            source: Arc::clone(&source),
            items: items.clone(),
            plan: NewsPlan::default(),
            state,
            now: Timestamp::from_millis(visits),
        };
        let appended = writer.append(vec![record]).unwrap().remove(0);
        visits += 1;
        state = appended.state;
        assert!(appended.new > 0, "each visit records something");
        let Some(flooding) = &state.flooding else {
            assert_eq!((appended.deferred, appended.deferred_bytes), (0, 0));
            assert_eq!((state.body_hash, state.warnings.len()), (Some(7), 0));
            break;
        };
        assert_eq!(flooding.flooding.waiting_items, appended.deferred);
        assert_eq!(flooding.flooding.waiting_bytes, appended.deferred_bytes);
        assert_eq!(flooding.flooding.since, Timestamp::from_millis(0));
        assert_eq!(i64::from(flooding.full_visits), visits - 1);
        assert_eq!(
            (state.body_hash, state.etag.as_deref()),
            (None, Some("\"1\"")),
            "read again, validators kept"
        );
        assert!(state.warnings[0].starts_with("flooding: "), "{:?}", state.warnings);
        if visits == 2 {
            // What came last and an edit of what is recorded wait behind the others.
            items.push(item("k99", 1));
            items[0] = item("k00", 2);
        }
    }
    assert!(visits > 3, "{visits}");
    let events = all(&reader);
    let news: Vec<_> =
        events.iter().filter(|e| e.kind == EventKind::Item).map(|e| e.item.title.clone()).collect();
    let mut expected: Vec<_> = (0..40).map(|n| format!("k{n:02} 1")).collect();
    expected.push("k99 1".to_owned());
    assert_eq!(news, expected, "once and in order");
    let updates: Vec<_> =
        events.iter().filter(|e| e.kind == EventKind::Update).map(|e| e.item.title.as_str()).collect();
    assert_eq!(updates, ["k00 2"]);
    let bytes: Vec<_> =
        reader.page(Seq::NONE, 40, usize::MAX).unwrap().records.iter().map(|r| r.json.len()).collect();
    assert!(bytes.iter().sum::<usize>() > 2 * 4096, "control: all of it is more than two visits may record");
}

#[test]
fn a_mass_update_over_the_limit_is_sent_in_parts_and_not_taken_for_flapping() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path());
    let source = source("a");
    let all_at = |version| (0..30).map(|n| item(&format!("k{n:02}"), version)).collect::<Vec<_>>();
    writer.append(vec![visit(&source, all_at(1), 0)]).unwrap();
    drop(writer);
    let options = StoreOptions { new_bytes_max: 4096, ..StoreOptions::default() };
    let (mut writer, reader) = store::open(dir.path(), &options).unwrap();
    for n in 1.. {
        let appended = writer.append(vec![visit(&source, all_at(2), n)]).unwrap().remove(0);
        assert_eq!(appended.absorbed, 0);
        assert!(!appended.state.updates_damped && appended.updated > 0, "visit {n}: {appended:?}");
        if appended.deferred == 0 {
            assert!(n > 1);
            break;
        }
    }
    let updates = all(&reader).into_iter().filter(|e| e.kind == EventKind::Update);
    let keys: Vec<_> = updates.map(|e| e.item.title).collect();
    assert_eq!(keys, (0..30).map(|n| format!("k{n:02} 2")).collect::<Vec<_>>());
}

#[test]
fn items_that_waited_do_not_hasten_the_next_visit() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { new_bytes_max: 4096, ..StoreOptions::default() };
    let (mut writer, _) = store::open(dir.path(), &options).unwrap();
    let source = source("a");
    let all = |n: usize| (0..n).map(|n| item(&format!("k{n:02}"), 1)).collect::<Vec<_>>();
    let sooner = |now| SoonerVisit { items: 2, at: Timestamp::from_millis(now), why: "news".to_owned() };
    let mut state = SourceState::default();
    for n in 1.. {
        let mut record = visit(&source, all(30), n);
        record.state.flooding = state.flooding.take();
        record.plan.sooner = Some(sooner(n));
        let appended = writer.append(vec![record]).unwrap().remove(0);
        assert!(appended.new >= 2, "control: enough for a sooner visit");
        assert_eq!(appended.state.next_visit, None, "visit {n}");
        state = appended.state;
        if appended.deferred == 0 {
            break;
        }
    }
    let mut record = visit(&source, all(33), 99);
    record.plan.sooner = Some(sooner(99));
    let appended = writer.append(vec![record]).unwrap().remove(0);
    assert_eq!((appended.new, appended.state.next_visit), (3, Some(Timestamp::from_millis(99))), "control");
}

#[test]
fn an_item_larger_than_a_visit_may_record_is_recorded_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { new_bytes_max: 1024, ..StoreOptions::default() };
    let (mut writer, _) = store::open(dir.path(), &options).unwrap();
    let source = source("a");
    let items = [item("large", 1000), item("small", 1)];
    let new = |writer: &mut LogWriter, now| {
        let appended = writer.append(vec![visit(&source, items.to_vec(), now)]).unwrap().remove(0);
        (appended.new, appended.deferred)
    };
    assert_eq!([new(&mut writer, 1), new(&mut writer, 2), new(&mut writer, 3)], [(1, 1), (1, 0), (0, 0)]);
}

#[test]
fn the_limit_of_a_source_overrides_that_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { new_bytes_max: 1024, ..StoreOptions::default() };
    let (mut writer, _) = store::open(dir.path(), &options).unwrap();
    let mut source = (*source("a")).clone();
    source.new_bytes_max = Some(1 << 20);
    let items = (0..40).map(|n| item(&format!("k{n:02}"), 1)).collect();
    let appended = writer.append(vec![visit(&Arc::new(source), items, 1)]).unwrap().remove(0);
    assert_eq!((appended.new, appended.deferred, appended.state.flooding), (40, 0, None));
}

#[test]
fn unchanged_visits_between_two_documents_are_quiet_ones_for_their_items() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    let source = source("a");
    let toll = |dead: u64| {
        let mut item = item("toll", 0);
        (item.title, item.evidence.text) = (format!("{dead} dead"), dead + 1);
        item
    };
    let mut state = SourceState { last_status: Some(VisitStatus::New), ..SourceState::default() };
    for dead in 0..8 {
        for items in [vec![toll(dead)], vec![], vec![], vec![]] {
            let status = if items.is_empty() { VisitStatus::Unchanged } else { VisitStatus::New };
            state.last_status = Some(status);
            let record = VisitRecord {
                source: Arc::clone(&source),
                items,
                state: state.clone(),
                now: Timestamp::from_millis(0),
                plan: NewsPlan::default(),
            };
            state = writer.append(vec![record]).unwrap().remove(0).state;
        }
        assert_eq!(state.unchanged_visits, 3);
    }
    assert_eq!(all(&reader).len(), 8, "each of them is sent");
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn the_held_hosts_are_those_that_were_written_last_however_many() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = |count: i64| -> Vec<_> {
        let host = |n| HeldHost {
            host: format!("{n}.example.org").into(),
            until: Timestamp::from_millis(n),
            code: 429,
        };
        (0..count).map(host).collect()
    };
    for (before, count) in [(0, 1000), (1000, 3), (3, 0)] {
        let (mut writer, reader) = open(dir.path());
        assert_eq!(reader.held_hosts().unwrap(), hosts(before));
        writer.write_held_hosts(&hosts(count)).unwrap();
        assert_eq!(reader.held_hosts().unwrap(), hosts(count));
    }
}

#[test]
fn long_items_and_long_lists_of_keys_are_in_pages_that_stay_in_the_log_file() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { events: 60, ..StoreOptions::default().retention };
    let options = StoreOptions { retention, ..StoreOptions::default() };
    let (mut writer, reader) = store::open(dir.path(), &options).unwrap();
    let many = source("many");
    let keys: Vec<_> = (0..4096).map(|n| format!("key {n}")).collect();
    writer.append(vec![visit(&many, keys.iter().map(|key| item(key, 1)).collect(), 1)]).unwrap();
    let long = source("long");
    let sizes = [10_000, 24_000, 60_000, 90_000];
    let long_item = |n: usize| {
        let mut item = item(&format!("long {n}"), 1);
        item.content_html = Some("x".repeat(sizes[n % sizes.len()]));
        item
    };
    for n in 0..80 {
        let now = i64::try_from(n).unwrap() + 2;
        let visits = vec![
            visit(&long, vec![long_item(n)], now),
            visit(&many, vec![item(&format!("later {n}"), 1)], now),
        ];
        writer.append(visits).unwrap();
    }
    while writer.retain(None).unwrap().more {}
    let listed = |reader: &LogReader| -> Vec<_> {
        all(reader).iter().map(|event| (event.id.seq, event.item.title.clone())).collect()
    };
    let events = listed(&reader);
    assert_eq!((events.len(), reader.oldest()), (60, Seq(reader.head().0 - 59)));
    let down = reader.page_before(Seq(u64::MAX), Seq(1), 100, usize::MAX).unwrap();
    assert_eq!(down.len(), 60);
    drop((writer, reader));
    assert_eq!(files_in(&dir.path().join("log.sled/blobs")), 0);

    let (mut writer, reader) = store::open(dir.path(), &options).unwrap();
    assert_eq!(listed(&reader), events);
    let again = visit(&long, (0..80).map(long_item).collect(), 200);
    let appended = writer.append(vec![again, visit(&many, vec![item("key 5", 1)], 200)]).unwrap();
    assert_eq!((appended[0].new, appended[0].updated, appended[1].new), (0, 0, 0));
}

#[test]
fn a_reader_beside_retention_never_finds_a_part_of_an_item() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { events: 3, ..StoreOptions::default().retention };
    let options = StoreOptions { retention, ..StoreOptions::default() };
    let (mut writer, reader) = store::open(dir.path(), &options).unwrap();
    let long = source("long");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            let mut events = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let page = reader.page(Seq::NONE, 10, usize::MAX).unwrap();
                let last = page.records.last().map_or(page.missed, |record| record.seq.0);
                assert_eq!(last, page.missed + page.records.len() as u64);
                events += page.records.len();
                reader.page_before(Seq(u64::MAX), Seq(1), 10, usize::MAX).unwrap();
            }
            events
        });
        for n in 0..300_i64 {
            let mut item = item(&n.to_string(), 1);
            item.content_html = Some("x".repeat(50_000));
            writer.append(vec![visit(&long, vec![item], n)]).unwrap();
            writer.retain(None).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(read.join().unwrap() > 0);
    });
}
