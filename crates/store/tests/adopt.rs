//! Sources that go from one store to another one: what was known of them is known there, and nothing is sent again.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/visits.rs"]
mod visits;

use std::{fs, path::Path, sync::Arc, time::Instant};

use news::{Event, EventKind, Item, Pause, Seq, Source, SourceId, SourceState, Timestamp, VisitStatus};
use store::{
    AdoptedSource, AppendedVisit, LogReader, LogWriter, Retention, SourceExport, SourceShare, StoreOptions,
    VisitRecord, tools,
};

use visits::{all, item, source, visit};

fn open(path: &Path) -> (LogWriter, LogReader) {
    store::open(path, &StoreOptions::default()).unwrap()
}

fn exported(writer: &LogWriter, source: &Source) -> SourceExport {
    let mut exports = writer.export(std::slice::from_ref(&source.id)).unwrap();
    assert_eq!(exports.len(), 1);
    exports.remove(0)
}

fn whole(export: SourceExport) -> AdoptedSource {
    let SourceExport { source, state, seen, .. } = export;
    AdoptedSource { source, state, seen: Some(seen), events: Vec::new() }
}

/// What was only recorded elsewhere.
fn recorded(source: &Source, events: Vec<Event>) -> AdoptedSource {
    AdoptedSource { source: source.id.clone(), state: None, seen: None, events }
}

fn adopt(writer: &mut LogWriter, adopted: AdoptedSource) {
    assert_eq!(writer.adopt(vec![adopted]).unwrap(), []);
}

fn append(writer: &mut LogWriter, source: &Arc<Source>, items: Vec<Item>, now: i64) -> AppendedVisit {
    writer.append(vec![visit(source, items, now)]).unwrap().remove(0)
}

/// New and changed items of a visit.
fn news(writer: &mut LogWriter, source: &Arc<Source>, items: Vec<Item>, now: i64) -> (u32, u32) {
    let appended = append(writer, source, items, now);
    (appended.new, appended.updated)
}

/// The events of a log, with the evidence of their items.
fn events(reader: &LogReader) -> Vec<Event> {
    let with_evidence = |mut event: Event| {
        let (key, version) = event.item.title.rsplit_once(' ').unwrap();
        event.item.evidence = item(key, version.parse().unwrap()).evidence;
        event
    };
    all(reader).into_iter().map(with_evidence).collect()
}

fn first_seen(reader: &LogReader, title: &str) -> i64 {
    all(reader).iter().rfind(|event| event.item.title == title).unwrap().first_seen.millis()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

/// A source that one store has visited four times.
fn moved() -> (tempfile::TempDir, LogWriter, LogReader, Arc<Source>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(&dir.path().join("from"));
    let source = source("moved");
    append(&mut writer, &source, vec![item("a", 1), item("b", 1)], 1000);
    append(&mut writer, &source, vec![item("a", 1), item("b", 2)], 2000);
    append(&mut writer, &source, vec![item("b", 2), item("c", 1)], 3000);
    let unchanged = SourceState {
        etag: Some("last".to_owned()),
        last_status: Some(VisitStatus::Unchanged),
        ..SourceState::default()
    };
    writer.append(vec![VisitRecord { state: unchanged, ..visit(&source, Vec::new(), 4000) }]).unwrap();
    let pause = Pause { since: Timestamp::from_millis(1), until: None, reason: None };
    writer.pause(vec![(source.id.clone(), Some(pause))]).unwrap();
    (dir, writer, reader, source)
}

#[test]
fn what_one_store_knows_of_a_source_another_one_knows_after_it() {
    let (dir, from, reader, source) = moved();
    let export = exported(&from, &source);
    assert_eq!((export.head, export.state.clone()), (reader.head(), reader.state(&source.id).unwrap()));
    assert_eq!(export.state.as_ref().unwrap().etag.as_deref(), Some("last"));
    let (mut to, reader) = open(&dir.path().join("to"));
    // Control: in a store that knows nothing, all of it is new.
    assert_eq!(news(&mut to, &crate::source("control"), vec![item("a", 1), item("b", 2)], 5000), (2, 0));
    adopt(&mut to, whole(export.clone()));
    assert_eq!(reader.state(&source.id).unwrap(), export.state);
    assert_eq!(exported(&to, &source).seen, export.seen, "nothing is lost on the way");
    assert_eq!(news(&mut to, &source, vec![item("a", 1), item("b", 2), item("c", 1)], 6000), (0, 0));
    assert_eq!(news(&mut to, &source, vec![item("a", 1), item("b", 3), item("d", 1)], 7000), (1, 1));
    assert_eq!((first_seen(&reader, "b 3"), first_seen(&reader, "d 1")), (1000, 7000));
    assert!(
        reader.state(&source.id).unwrap().unwrap().paused.is_some(),
        "the order of the operator moves, too"
    );
}

#[test]
fn what_a_store_knows_of_a_source_has_an_event_up_to_the_head_that_is_exported_with_it() {
    let (_dir, mut writer, reader, source) = moved();
    for n in 1..20 {
        append(&mut writer, &source, vec![item("c", 1 + n), item(&format!("n{n}"), 1)], 10_000);
        let SourceExport { seen, head, .. } = exported(&writer, &source);
        assert_eq!(head, reader.head());
        let dir = tempfile::tempdir().unwrap();
        let (mut other, _) = open(dir.path());
        adopt(&mut other, AdoptedSource { seen: Some(seen), ..recorded(&source, Vec::new()) });
        let told = events(&reader).into_iter().filter(|event| event.id.seq <= head);
        let newest: std::collections::BTreeMap<_, _> =
            told.map(|event| (event.item.key.clone(), event.item)).collect();
        assert_eq!(news(&mut other, &source, newest.into_values().collect(), 20_000), (0, 0));
    }
}

#[test]
fn what_was_recorded_elsewhere_is_known_and_an_update_is_not_sent_again() {
    let (dir, mut here, reader, source) = moved();
    let (mut there, of_there) = open(&dir.path().join("there"));
    adopt(&mut there, whole(exported(&here, &source)));
    append(&mut there, &source, vec![item("a", 1), item("b", 7), item("d", 1)], 8000);
    append(&mut there, &source, vec![item("a", 1), item("b", 8), item("d", 2)], 9000);
    let foreign = events(&of_there);
    assert_eq!(foreign.len(), 4);
    let state = reader.state(&source.id).unwrap();
    adopt(&mut here, recorded(&source, foreign.clone()));
    assert_eq!(reader.state(&source.id).unwrap(), state, "that stays");
    let document = || vec![item("a", 1), item("b", 8), item("c", 1), item("d", 2)];
    assert_eq!(news(&mut here, &source, document(), 10_000), (0, 0));
    // The same a second time changes nothing, also behind what was seen since.
    let before = exported(&here, &source).seen;
    adopt(&mut here, recorded(&source, foreign));
    assert_eq!(exported(&here, &source).seen, before);
    let changed = vec![item("a", 1), item("b", 9), item("d", 3), item("e", 1)];
    assert_eq!(news(&mut here, &source, changed, 11_000), (1, 2));
    assert_eq!((first_seen(&reader, "b 9"), first_seen(&reader, "d 3")), (1000, 8000));
}

#[test]
fn a_store_that_has_visited_the_source_before_takes_what_the_other_one_knows_instead() {
    let (dir, from, _reader, source) = moved();
    let (mut to, reader) = open(&dir.path().join("to"));
    // As a base and deltas, as long sets are stored.
    append(&mut to, &source, (0..200).map(|n| item(&format!("old {n}"), 1)).collect(), 100);
    for n in 0..30 {
        append(&mut to, &source, vec![item("a", 1), item(&format!("older {n}"), 1)], 200 + n);
    }
    let export = exported(&from, &source);
    let new = Event { item: item("d", 1), kind: EventKind::Item, ..events(&reader).remove(0) };
    adopt(&mut to, AdoptedSource { events: vec![new], ..whole(export.clone()) });
    assert_eq!(reader.state(&source.id).unwrap(), export.state);
    let document = || vec![item("a", 1), item("b", 2), item("c", 1), item("d", 1)];
    assert_eq!(news(&mut to, &source, document(), 9000), (0, 0));
    // What it alone had is as if it had never been.
    let two = vec![item("c", 1), item("older 3", 1), item("old 7", 1)];
    assert_eq!(news(&mut to, &source, two, 9500), (2, 0));
    to.close().unwrap();
    drop(reader);
    let (mut to, _reader) = open(&dir.path().join("to"));
    assert_eq!(news(&mut to, &source, document(), 10_000), (0, 0), "no delta of before is read with it");
}

#[test]
fn a_source_twice_in_one_order_is_adopted_twice() {
    let (dir, from, reader, source) = moved();
    let (mut to, _) = open(&dir.path().join("to"));
    let event = |key: &str| Event { item: item(key, 1), kind: EventKind::Item, ..events(&reader).remove(0) };
    let twice = vec![
        whole(exported(&from, &source)),
        recorded(&source, vec![event("d")]),
        recorded(&source, vec![event("e")]),
    ];
    assert_eq!(to.adopt(twice).unwrap(), []);
    let document = ["c", "d", "e", "f"].map(|key| item(key, 1));
    assert_eq!(news(&mut to, &source, document.to_vec(), 9000), (1, 0));
}

#[test]
fn what_waits_for_later_visits_moves_and_what_was_recorded_elsewhere_waits_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { new_bytes_max: 1500, ..StoreOptions::default() };
    let (mut from, _) = store::open(&dir.path().join("from"), &options).unwrap();
    let source = source("flooding");
    let document =
        |numbers: std::ops::Range<u32>| numbers.map(|n| item(&format!("n{n}"), 1)).collect::<Vec<_>>();
    let first = append(&mut from, &source, document(0..40), 1000);
    let taken = first.new;
    assert!(taken > 0 && first.deferred == 40 - taken, "{first:?}");
    let (mut to, reader) = store::open(&dir.path().join("to"), &options).unwrap();
    let export = exported(&from, &source);
    // Control: without what waits, nothing could be lost.
    let (mut control, _) = store::open(&dir.path().join("control"), &options).unwrap();
    let state = export.state.clone().unwrap();
    let visited =
        |state: &SourceState, items| VisitRecord { state: state.clone(), ..visit(&source, items, 2000) };
    assert_eq!(control.append(vec![visited(&state, document(45..46))]).unwrap()[0].lost, 0);
    // The first two that wait were recorded by a third daemon meanwhile.
    let (mut third, of_third) = store::open(&dir.path().join("third"), &options).unwrap();
    adopt(&mut third, whole(export.clone()));
    append(&mut third, &source, document(taken..taken + 2), 1500);
    adopt(&mut to, AdoptedSource { events: events(&of_third), ..whole(export) });
    let appended = to.append(vec![visited(&state, document(45..46))]).unwrap().remove(0);
    assert_eq!((appended.new, appended.lost), (1, 40 - taken - 2), "{appended:?}");
    assert_eq!(reader.head(), Seq(1));
}

#[test]
fn an_adopted_source_outlives_a_crash_and_is_made_again_from_the_journal() {
    let (dir, from, _reader, source) = moved();
    let store = dir.path().join("to");
    let (mut to, reader) = open(&store);
    append(&mut to, &source, (0..50).map(|n| item(&format!("old {n}"), 1)).collect(), 100);
    // Of this, the journal knows nothing.
    append(&mut to, &source, Vec::new(), 200);
    let new = Event { item: item("d", 1), kind: EventKind::Item, ..events(&reader).remove(0) };
    adopt(&mut to, AdoptedSource { events: vec![new], ..whole(exported(&from, &source)) });
    let rebuilt = dir.path().join("rebuilt");
    copy_folder(&store, &rebuilt);
    fs::remove_dir_all(rebuilt.join("log.sled")).unwrap();
    assert_eq!(exported(&open(&rebuilt).0, &source).seen, exported(&to, &source).seen);
    let update = Event { item: item("a", 2), kind: EventKind::Update, ..events(&reader).remove(0) };
    adopt(&mut to, recorded(&source, vec![update]));
    let (state, seen) = (reader.state(&source.id).unwrap(), exported(&to, &source).seen);
    // What a process that is killed now would leave.
    for with_sled in [true, false] {
        let copy = dir.path().join(format!("copy-{with_sled}"));
        copy_folder(&store, &copy);
        if !with_sled {
            fs::remove_dir_all(copy.join("log.sled")).unwrap();
        }
        let (mut again, reader) = open(&copy);
        assert_eq!((reader.take_damage(), reader.state(&source.id).unwrap()), (Vec::new(), state.clone()));
        assert_eq!(exported(&again, &source).seen, seen, "sled is there: {with_sled}");
        let document = vec![item("a", 2), item("b", 2), item("c", 1), item("d", 1), item("e", 1)];
        assert_eq!(news(&mut again, &source, document, 9000), (1, 0));
        again.close().unwrap();
        let found = tools::survey(&copy).unwrap();
        assert_eq!((found.damaged_places, found.events, found.sources.len()), (0, 51, 1), "{found:?}");
    }
}

#[test]
fn retention_keeps_what_was_adopted() {
    let (dir, from, _reader, source) = moved();
    let store = dir.path().join("to");
    let retention = Retention { events: 200, ..StoreOptions::default().retention };
    let share = SourceShare { percent: 100, ..SourceShare::default() };
    let options = StoreOptions { retention, share, ..StoreOptions::default() };
    let (mut to, reader) = store::open(&store, &options).unwrap();
    adopt(&mut to, whole(exported(&from, &source)));
    let (state, seen) = (reader.state(&source.id).unwrap(), exported(&to, &source).seen);
    for n in 0..100 {
        append(
            &mut to,
            &crate::source("busy"),
            (0..10).map(|k| item(&format!("{n}/{k}"), 1)).collect(),
            5000,
        );
        while to.retain(None).unwrap().more {}
    }
    assert!(reader.oldest() > Seq(500), "the segment that had it is gone");
    to.close().unwrap();
    drop(reader);
    fs::remove_dir_all(store.join("log.sled")).unwrap();
    let (to, reader) = store::open(&store, &options).unwrap();
    assert_eq!((reader.state(&source.id).unwrap(), exported(&to, &source).seen), (state, seen));
}

#[test]
fn a_value_that_is_no_export_costs_its_source_only_and_that_keeps_what_it_had() {
    let (dir, from, _reader, source) = moved();
    let other = crate::source("other");
    let export = exported(&from, &source);
    let (mut to, reader) = open(&dir.path().join("to"));
    append(&mut to, &source, vec![item("own", 1)], 100);
    let own = exported(&to, &source).seen;
    let mut bad = (0..export.seen.len()).map(|cut| export.seen[..cut].to_vec()).collect::<Vec<_>>();
    let flipped = |bit: usize| {
        let mut seen = export.seen.clone();
        seen[bit / 8] ^= 1 << (bit % 8);
        seen
    };
    bad.extend((0..export.seen.len() * 8).step_by(3).map(flipped));
    bad.push([&export.seen[..], &[0]].concat());
    for seen in bad {
        let adopted = AdoptedSource { state: None, seen: Some(seen), ..whole(export.clone()) };
        let refused = to.adopt(vec![adopted]).unwrap();
        assert_eq!(refused.iter().map(|bad| &bad.source).collect::<Vec<_>>(), [&source.id]);
        assert_eq!(exported(&to, &source).seen, own);
    }
    // A later version may have another layout; the state and the events are taken, and the other sources.
    let seen = Some([&[9], &export.seen[1..]].concat());
    let event = Event { item: item("d", 1), kind: EventKind::Item, ..events(&reader).remove(0) };
    let newer = AdoptedSource { seen, events: vec![event], ..whole(export.clone()) };
    let refused = to.adopt(vec![newer, AdoptedSource { source: other.id.clone(), ..whole(export.clone()) }]);
    let text = refused.unwrap().iter().map(ToString::to_string).collect::<String>();
    assert!(text.contains("source moved cannot be read") && text.contains("layout 9"), "{text}");
    assert_eq!(reader.state(&source.id).unwrap(), export.state);
    assert_eq!(news(&mut to, &source, vec![item("own", 1), item("d", 1), item("e", 1)], 9000), (1, 0));
    assert_eq!(news(&mut to, &other, vec![item("a", 1), item("b", 2), item("c", 1)], 9000), (0, 0));
}

#[test]
fn a_source_that_no_store_has_visited_is_exported_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    let source = source("new");
    let export = exported(&writer, &source);
    assert_eq!((export.state.clone(), export.head), (None, Seq(0)));
    adopt(&mut writer, whole(export));
    assert_eq!(reader.state(&source.id).unwrap(), None);
    assert_eq!(news(&mut writer, &source, vec![item("a", 1)], 9), (1, 0));
}

/// How long it takes is printed, because it holds up the commits of visits.
#[test]
#[expect(clippy::disallowed_methods, reason = "the store blocks, and has no runtime")]
fn a_hundred_sources_move_at_once() {
    const SOURCES: usize = 100;
    let dir = tempfile::tempdir().unwrap();
    let (mut from, _) = open(&dir.path().join("from"));
    let sources: Vec<_> = (0..SOURCES).map(|n| source(&format!("s{n}"))).collect();
    let items: Vec<_> = (0..100).map(|n| item(&format!("n{n}"), 1)).collect();
    for some in sources.chunks(100) {
        from.append(some.iter().map(|source| visit(source, items.clone(), 1000)).collect()).unwrap();
    }
    let ids: Vec<SourceId> = sources.iter().map(|source| source.id.clone()).collect();
    let began = Instant::now();
    let exports = from.export(&ids).unwrap();
    let bytes: usize = exports.iter().map(|export| export.seen.len()).sum();
    println!("export of {SOURCES} sources with 100 items each: {:?}, {bytes} bytes", began.elapsed());
    let (mut to, _) = open(&dir.path().join("to"));
    let began = Instant::now();
    assert_eq!(to.adopt(exports.into_iter().map(whole).collect()).unwrap(), []);
    println!("adoption: {:?}, {} bytes in the journal", began.elapsed(), to.journal_bytes());
    for some in sources.chunks(100) {
        let visits = some.iter().map(|source| visit(source, items.clone(), 2000)).collect();
        assert!(to.append(visits).unwrap().iter().all(|appended| appended.last.is_none()));
    }
}
