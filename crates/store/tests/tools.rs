//! What an operator does with the files of a store: nothing that is read is changed, and nothing is silently lost.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/visits.rs"]
mod visits;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use news::{Cursor, Event, Seq, Timestamp};
use store::{
    LogReader, LogWriter, OpenNote, Retention, StoreOptions, StoredEvent,
    tools::{
        self, BackupManifest, DaemonLog, DamageKind, FolderBackup, ImportedEvent, RestoredEpoch, StoreImport,
        StoreSurvey, ToolError,
    },
};

use visits::{all, item, source, visit};

fn open(path: &Path) -> (LogWriter, LogReader) {
    store::open(path, &StoreOptions::default()).unwrap()
}

/// Small segments.
fn small() -> StoreOptions {
    let retention = Retention { events: 400, ..StoreOptions::default().retention };
    StoreOptions { retention, ..StoreOptions::default() }
}

/// Ten visits of two sources, with 20 events in all; the store is closed again.
fn fill(path: &Path) -> Vec<Event> {
    let (mut writer, reader) = open(path);
    for n in 0..10_u32 {
        let visits =
            ["a", "b"].map(|id| visit(&source(id), vec![item(&format!("{id}{n}"), 1)], 1000 + i64::from(n)));
        writer.append(visits.to_vec()).unwrap();
    }
    let events = all(&reader);
    writer.close().unwrap();
    events
}

/// Every file below a folder, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn survey(path: &Path) -> StoreSurvey {
    let before = files(path);
    let survey = tools::survey(path).unwrap();
    assert_eq!(files(path), before, "nothing is changed by reading");
    survey
}

fn export(path: &Path) -> (Vec<Event>, u64) {
    let before = files(path);
    let mut events = Vec::new();
    let report = tools::export(path, None, None, |json| {
        events.push(serde_json::from_str(json).unwrap());
        Ok(())
    });
    assert_eq!(files(path), before, "nothing is changed by reading");
    (events, report.unwrap().lost)
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "segment");
    files(path).into_keys().filter(is_segment).collect()
}

fn place_of(bytes: &[u8], text: &str) -> usize {
    memchr::memmem::find(bytes, text.as_bytes()).unwrap()
}

#[test]
fn a_whole_store_has_no_damage_and_its_counts_are_those_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let events = fill(dir.path());
    let found = survey(dir.path());
    assert_eq!((found.damaged_places, found.lost_events, found.places.len()), (0, 0, 0), "{found:?}");
    assert_eq!((found.oldest, found.head, found.events, found.segments), (Seq(1), Seq(20), 20, 1));
    assert_eq!(found.epoch, events[0].id.epoch);
    let counts: Vec<_> = found.sources.iter().map(|source| (source.source.as_str(), source.events)).collect();
    assert_eq!(counts, [("b", 10), ("a", 10)], "20 has one digit more than 1");
    assert_eq!(found.sources.iter().map(|source| source.bytes).sum::<u64>(), found.bytes);
    let recorded = (Some(Timestamp::from_millis(1000)), Some(Timestamp::from_millis(1009)));
    assert_eq!((found.first_recorded, found.last_recorded), recorded);
    assert_eq!(export(dir.path()), (events, 0));
}

#[test]
fn every_changed_byte_of_a_segment_is_found_and_costs_one_record_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let events = fill(dir.path());
    // Each survey would compare with it.
    fs::remove_dir_all(dir.path().join("log.sled")).unwrap();
    let [path] = &segments(dir.path())[..] else { panic!("one segment") };
    let whole = fs::read(path).unwrap();
    let length = whole.len();
    for at in (0..length).step_by(61).chain([0, 20, 60, length - 1]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(path, &bytes).unwrap();
        let found = tools::survey(dir.path()).unwrap();
        assert!(found.damaged_places > 0, "byte {at} of {length}: {found:?}");
        assert!(found.lost_events <= 2 && found.events >= 18, "byte {at} of {length}: {found:?}");
        let mut left = Vec::new();
        tools::export(dir.path(), None, None, |json| {
            left.push(serde_json::from_str::<Event>(json).unwrap());
            Ok(())
        })
        .unwrap();
        assert!(left.iter().all(|event| events.contains(event)), "byte {at} of {length}");
        assert_eq!(left.len() as u64, found.events, "byte {at} of {length}");
    }
    for cut in [length - 1, length - 100] {
        fs::write(path, &whole[..cut]).unwrap();
        let found = tools::survey(dir.path()).unwrap();
        assert_eq!(found.places.last().map(|place| place.kind), Some(DamageKind::End), "cut at {cut}");
    }
}

#[test]
fn a_damaged_event_is_named_with_its_source_and_left_out_of_the_export() {
    let dir = tempfile::tempdir().unwrap();
    let mut events = fill(dir.path());
    let [path] = &segments(dir.path())[..] else { panic!("one segment") };
    let mut bytes = fs::read(path).unwrap();
    let at = place_of(&bytes, "\"title\":\"b3 1\"");
    bytes[at + 10] ^= 1;
    fs::write(path, &bytes).unwrap();
    let found = survey(dir.path());
    let [place] = &found.places[..] else { panic!("{found:?}") };
    let source = place.source.as_ref().map(|source| source.as_str());
    assert_eq!(
        (place.kind, place.segment, place.first, place.events, source),
        (DamageKind::Event, 1, Some(Seq(8)), 1, Some("b"))
    );
    events.remove(7);
    assert_eq!(export(dir.path()), (events, 1));
    let of_a = tools::export(dir.path(), None, Some(&"a".parse_id()), |_| Ok(())).unwrap();
    assert_eq!((of_a.events, of_a.lost), (10, 0), "what is lost is of another source");
}

trait ParseId {
    fn parse_id(&self) -> news::SourceId;
}

impl ParseId for str {
    fn parse_id(&self) -> news::SourceId {
        news::SourceId::try_new(self).unwrap()
    }
}

#[test]
fn a_missing_segment_is_named_with_the_events_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _reader) = store::open(dir.path(), &small()).unwrap();
    for n in 0..200_u32 {
        writer.append(vec![visit(&source("a"), vec![item(&format!("a{n}"), 1)], 1000)]).unwrap();
    }
    writer.close().unwrap();
    let files = segments(dir.path());
    assert!(files.len() > 3, "{files:?}");
    assert_eq!(survey(dir.path()).damaged_places, 0);
    fs::remove_file(&files[1]).unwrap();
    let found = survey(dir.path());
    let [place] = &found.places[..] else { panic!("{found:?}") };
    assert_eq!((place.kind, place.segment), (DamageKind::Segment, 2));
    assert_eq!((place.events, found.events), (found.lost_events, 200 - found.lost_events));
    assert!(place.events > 10, "{place:?}");
    // Any damage of an index is found, and costs nothing.
    let index = files[2].with_extension("index");
    fs::write(&index, b"x").unwrap();
    let kinds: Vec<_> = survey(dir.path()).places.iter().map(|place| place.kind).collect();
    assert_eq!(kinds, [DamageKind::Segment, DamageKind::Index]);
}

#[test]
fn an_export_goes_on_after_an_id_and_refuses_one_of_another_log() {
    let dir = tempfile::tempdir().unwrap();
    let events = fill(dir.path());
    let after = |after: &Cursor| {
        let mut ids = Vec::new();
        let write = |json: &str| {
            ids.push(serde_json::from_str::<Event>(json).unwrap().id.seq.0);
            Ok(())
        };
        tools::export(dir.path(), Some(after), Some(&"b".parse_id()), write).map(|_| ids)
    };
    assert_eq!(after(&events[15].id).unwrap(), [18, 20]);
    assert_eq!(after(&events[19].id).unwrap(), [0; 0]);
    for above in [21, u64::MAX] {
        let above = Cursor { seq: Seq(above), ..events[0].id.clone() };
        let error = after(&above).unwrap_err().to_string();
        assert!(error.contains(&format!("has no event {above}")), "{error}");
        assert!(error.contains(&format!("ends at {}", events[19].id)), "{error}");
    }
    for (source, is_unknown) in [("a", false), ("nosuch", true)] {
        let last = Some(&events[19].id);
        let report = tools::export(dir.path(), last, Some(&source.parse_id()), |_| Ok(())).unwrap();
        assert_eq!((report.events, report.is_source_unknown), (0, is_unknown), "{source}");
    }
    let other = Cursor { epoch: news::Epoch::try_new("other1").unwrap(), seq: Seq(1) };
    assert!(matches!(after(&other), Err(ToolError::OtherEpoch { .. })));
}

#[test]
fn an_imported_store_has_the_events_in_a_new_epoch_and_knows_their_items() {
    let dir = tempfile::tempdir().unwrap();
    let events = fill(&dir.path().join("old"));
    let new = dir.path().join("new");
    let mut import = StoreImport::begin(&new).unwrap();
    for (line, event) in (1..).zip(&events[4..]) {
        // An export has no evidence; the caller makes it again.
        let mut event = event.clone();
        let (key, _) = event.item.title.split_once(' ').unwrap();
        event.item.evidence = item(key, 1).evidence;
        import.add(event, line).unwrap();
    }
    assert_eq!(import.finish().unwrap(), 16);
    assert!(matches!(StoreImport::begin(&new), Err(ToolError::NotEmpty(_))));
    let (mut writer, reader) = open(&new);
    assert_ne!(reader.epoch(), &events[0].id.epoch);
    let imported = all(&reader);
    assert_eq!(imported.iter().map(|event| event.id.seq.0).collect::<Vec<_>>(), (1..=16).collect::<Vec<_>>());
    assert!(imported.iter().all(|event| event.id.epoch == *reader.epoch()));
    assert!(
        imported
            .iter()
            .zip(&events[4..])
            .all(|(new, old)| new.item.key == old.item.key && new.first_seen == old.first_seen)
    );
    let first_visit = vec![item("a5", 1), item("a9", 2), item("anew", 1)];
    let appended = writer.append(vec![visit(&source("a"), first_visit, 5000)]).unwrap();
    assert_eq!((appended[0].new, appended[0].updated), (1, 1), "a5 is known, a9 has changed");
    assert_eq!(all(&reader)[16].first_seen, Timestamp::from_millis(1009), "as it was first");
}

/// Imports these events, one line each. Returns which of them came into the log, and how it ended.
fn import_of(events: &[Event]) -> (Vec<bool>, Result<(), ToolError>) {
    let dir = tempfile::tempdir().unwrap();
    let mut import = StoreImport::begin(&dir.path().join("new")).unwrap();
    let mut came = Vec::new();
    for (line, event) in (1..).zip(events) {
        match import.add(event.clone(), line) {
            Ok(became) => came.push(became == ImportedEvent::New),
            Err(error) => return (came, Err(error)),
        }
    }
    let new = came.iter().filter(|is_new| **is_new).count();
    assert_eq!(import.finish().unwrap(), new as u64);
    (came, Ok(()))
}

#[test]
fn an_event_that_an_import_has_twice_comes_once_and_every_update_of_a_key_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path());
    for version in [1, 2] {
        writer.append(vec![visit(&source("a"), vec![item("a", version)], 1000)]).unwrap();
    }
    let mut events = all(&reader);
    // The item goes back to its first version, and on again.
    for (seq, version) in [(3, 0), (4, 1)] {
        let id = Cursor { seq: Seq(seq), ..events[0].id.clone() };
        events.push(Event { id, kind: news::EventKind::Update, ..events[version].clone() });
    }
    assert_eq!(import_of(&events).0, [true; 4]);

    let overlapping = [&events[..3], &events[1..]].concat();
    assert_eq!(import_of(&overlapping).0, [true, true, true, false, false, true]);

    // The log was restored after three events, and went on: ids and names are others, and so is the fourth event.
    let mut restored = events.clone();
    for event in &mut restored {
        event.id.epoch = news::Epoch::try_new("other1").unwrap();
        event.source_name = "Another name".to_owned();
    }
    restored[3].item.title = "After the restore".to_owned();
    let both = [&events[..], &restored].concat();
    assert_eq!(import_of(&both).0, [true, true, true, true, false, false, false, true]);
    let turned = [&restored[..], &events].concat();
    assert_eq!(import_of(&turned).0, [true, true, true, true, false, false, false, true]);
}

#[test]
fn an_import_refuses_an_id_that_stands_for_two_events_and_an_event_that_cannot_be_served() {
    let dir = tempfile::tempdir().unwrap();
    let events = fill(dir.path());
    let mut other = events[7].clone();
    other.item.title = "Another title".to_owned();
    let (came, ended) = import_of(&[&events[..], &[other.clone()]].concat());
    assert_eq!(came.len(), 20);
    let error = ended.unwrap_err().to_string();
    assert!(error.contains(&format!("{} is in line 8", other.id)), "{error}");

    other.id.seq = Seq(21);
    other.item.title = "x".repeat(StoredEvent::JSON_BYTES_MAX);
    let (came, ended) = import_of(&[&events[..], &[other]].concat());
    assert_eq!(came.len(), 20);
    let limit = format!("at most {} can be served", StoredEvent::JSON_BYTES_MAX);
    let error = ended.unwrap_err().to_string();
    assert!(error.contains(&limit), "{error}");
}

#[test]
fn salvage_finds_the_events_of_a_journal_whatever_else_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let events = fill(dir.path());
    let [path] = &segments(dir.path())[..] else { panic!("one segment") };
    let mut bytes = fs::read(path).unwrap();
    // The header of the segment, and the tables of all records.
    bytes[..64].fill(0);
    let markers: Vec<_> = memchr::memmem::find_iter(&bytes, b"\xf1NWR").collect();
    for at in markers {
        bytes[at..at + 80].fill(0);
    }
    fs::write(path, &bytes).unwrap();
    assert!(tools::survey(dir.path()).is_err(), "nothing else reads it");
    assert_eq!(salvaged(dir.path()), events);
    let mut of_a_file = Vec::new();
    let write = |json: &str| {
        of_a_file.push(serde_json::from_str::<Event>(json).unwrap());
        Ok(())
    };
    assert_eq!(tools::salvage(path, write).unwrap().files, 1);
    assert_eq!(of_a_file, events, "a part of the folder is enough");
    assert_eq!(salvaged(&dir.path().join("journal")), events);
}

fn salvaged(path: &Path) -> Vec<Event> {
    let before = files(path);
    let mut found = Vec::new();
    tools::salvage(path, |json| {
        found.push(serde_json::from_str(json).unwrap());
        Ok(())
    })
    .unwrap();
    assert_eq!(files(path), before, "nothing is changed by reading");
    found
}

#[test]
fn salvage_finds_the_events_of_an_earlier_version_without_opening_its_sled() {
    let dir = tempfile::tempdir().unwrap();
    let written = fill(&dir.path().join("new"));
    let old = dir.path().join("old");
    let mut expected = Vec::new();
    let db = sled::open(old.join("log.sled")).unwrap();
    for (n, mut event) in (0_usize..).zip(written) {
        // Some are over 128 KiB, and so in files of their own.
        event.item.summary = "long ".repeat(if n % 5 == 4 { 60_000 } else { n });
        let json = event.to_json();
        let mut rest = vec![0_u8];
        rest.extend_from_slice(&7_i64.to_le_bytes());
        rest.extend_from_slice(json.as_bytes());
        let sealed = [&[1][..], &crc32fast::hash(&rest).to_le_bytes(), &rest].concat();
        let key = [b"e".as_slice(), &event.id.seq.0.to_be_bytes()].concat();
        db.insert(key, sealed).unwrap();
        expected.push(event);
    }
    db.flush().unwrap();
    drop(db);
    assert!(old.join("log.sled/blobs").read_dir().unwrap().next().is_some(), "some are in blobs");
    fs::write(old.join("log.sled/conf"), b"garbage").unwrap();
    assert_eq!(salvaged(&old), expected);
}

#[test]
fn salvage_joins_the_pieces_of_long_events_of_an_earlier_version() {
    let dir = tempfile::tempdir().unwrap();
    let written = fill(&dir.path().join("new"));
    let old = dir.path().join("old");
    let db = sled::open(old.join("log.sled")).unwrap();
    let mut expected = Vec::new();
    for (n, mut event) in (0_usize..).zip(written).take(8) {
        event.item.summary = "x".repeat(3900 + 1100 * n);
        let rest = [&[0][..], &7_i64.to_le_bytes(), event.to_json().as_bytes()].concat();
        let sealed = [&[1][..], &crc32fast::hash(&rest).to_le_bytes(), &rest].concat();
        let key = [b"e".as_slice(), &event.id.seq.0.to_be_bytes()].concat();
        let count = u32::try_from(sealed.len().div_ceil(2048)).unwrap();
        for (n, piece) in (0..count).zip(sealed.chunks(2048)) {
            db.insert([b"p", &key[..], &n.to_be_bytes()].concat(), piece).unwrap();
        }
        let length = u32::try_from(sealed.len()).unwrap();
        db.insert(key, [&[255][..], &count.to_le_bytes(), &length.to_le_bytes()].concat()).unwrap();
        expected.push(event);
    }
    db.flush().unwrap();
    drop(db);
    let mut found = Vec::new();
    let report = tools::salvage(&old, |json| {
        found.push(serde_json::from_str::<Event>(json).unwrap());
        Ok(())
    });
    // Those whose pieces are in several pages are counted.
    let broken = report.unwrap().broken;
    assert_eq!(found.len() as u64 + broken, 8);
    assert!(found.len() >= 5, "{}", found.len());
    assert!(found.iter().all(|event| expected.contains(event)));
}

#[test]
fn a_restored_copy_has_a_new_epoch_the_same_numbers_and_the_states_of_its_sources() {
    let dir = tempfile::tempdir().unwrap();
    let events = fill(&dir.path().join("from"));
    let store = dir.path().join("data");
    let later = fill(&store);
    let before = files(&dir.path().join("from"));
    let report = tools::restore(&dir.path().join("from"), &store, RestoredEpoch::New).unwrap();
    assert_eq!(files(&dir.path().join("from")), before, "what is restored from is not changed");
    let aside = report.before.unwrap();
    assert_eq!(aside.file_name().unwrap(), "data.before-restore-1");
    assert_eq!(export(&aside).0, later);
    let (mut writer, reader) = open(&store);
    assert_eq!((reader.epoch(), reader.head(), report.lost), (&report.epoch, Seq(20), 0));
    assert_ne!(reader.epoch(), &events[0].id.epoch);
    let restored = all(&reader);
    let ids: Vec<_> = restored.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(ids[6], format!("{}-7", report.epoch));
    let but_id = |event: &Event| Event { id: events[0].id.clone(), ..event.clone() };
    assert!(restored.iter().map(but_id).eq(events.iter().map(but_id)));
    assert_eq!(reader.state(&source("a").id).unwrap().unwrap().etag.as_deref(), Some("\"1009\""));
    let appended = writer.append(vec![visit(&source("a"), vec![item("a3", 1), item("x", 1)], 5000)]).unwrap();
    assert_eq!((appended[0].new, appended[0].first), (1, Some(Seq(21))));
    assert!(!reader.notes().contains(&OpenNote::Copied));
}

#[test]
fn a_restore_with_the_same_epoch_continues_it() {
    let dir = tempfile::tempdir().unwrap();
    let events = fill(&dir.path().join("from"));
    let store = dir.path().join("data");
    let report = tools::restore(&dir.path().join("from"), &store, RestoredEpoch::Same).unwrap();
    assert_eq!((report.before, report.head), (None, Seq(20)));
    let (_writer, reader) = open(&store);
    assert_eq!(all(&reader), events);
}

#[test]
fn a_new_store_is_made_where_nothing_is_and_a_draft_stays_only_while_its_process_lives() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("data");
    fill(&store);
    let others = ["data.new", "data.draft-1", "data.draft-3"].map(|name| dir.path().join(name));
    let kept = others.each_ref().map(|path| fill(path));
    // As an interrupted draft is.
    let interrupted = dir.path().join("data.draft-2");
    fs::create_dir_all(interrupted.join("journal")).unwrap();
    fs::write(interrupted.join("draft"), "").unwrap();
    fs::write(interrupted.join("journal/00000001.segment"), "half").unwrap();
    // As another process makes one.
    let foreign = dir.path().join("data.draft-4");
    fs::create_dir(&foreign).unwrap();
    let marker = fs::File::create(foreign.join("draft")).unwrap();
    marker.lock().unwrap();
    tools::restore(&others[0], &store, RestoredEpoch::Same).unwrap();
    tools::restore_in_place(&store, RestoredEpoch::New).unwrap();
    let import = StoreImport::begin(&dir.path().join("imported")).unwrap();
    assert!(dir.path().join("imported.draft-1").exists());
    drop(import);
    assert!(!dir.path().join("imported.draft-1").exists(), "what fails leaves no draft");
    assert_eq!(export(&dir.path().join("data.before-restore-2")).0, kept[0]);
    assert_eq!(others.map(|path| export(&path).0), kept, "what is there stays");
    assert!(!interrupted.exists() && foreign.exists() && !store.join("draft").exists());
}

#[test]
fn a_store_behind_a_symbolic_link_is_replaced_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (from, large, link) = (dir.path().join("from"), dir.path().join("large"), dir.path().join("data"));
    fill(&large.join("store"));
    let events = fill(&from);
    std::os::unix::fs::symlink(large.join("store"), &link).unwrap();
    let report = tools::restore(&from, &link, RestoredEpoch::Same).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(export(&large.join("store")).0, events);
    assert_eq!(report.before.unwrap().parent(), Some(&*fs::canonicalize(&large).unwrap()));
}

#[test]
fn a_copied_store_is_decided_about_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let events = fill(&dir.path().join("original"));
    let copy = dir.path().join("copy");
    let copy_all = || {
        fs::remove_dir_all(&copy).ok();
        let status =
            std::process::Command::new("cp").arg("-a").arg(dir.path().join("original")).arg(&copy).status();
        assert!(status.unwrap().success());
    };
    copy_all();
    {
        let (_writer, reader) = open(&copy);
        assert!(reader.notes().contains(&OpenNote::Copied));
        let locked = tools::restore_in_place(&copy, RestoredEpoch::Same).unwrap_err().to_string();
        assert!(locked.contains("is in use by process"), "{locked}");
    }
    tools::restore_in_place(&copy, RestoredEpoch::Same).unwrap();
    {
        let (_writer, reader) = open(&copy);
        assert!(!reader.notes().contains(&OpenNote::Copied));
        assert_eq!(all(&reader), events);
    }
    copy_all();
    let report = tools::restore_in_place(&copy, RestoredEpoch::New).unwrap();
    let (_writer, reader) = open(&copy);
    assert_eq!((reader.epoch(), reader.head()), (&report.epoch, Seq(20)));
    assert_ne!(reader.epoch(), &events[0].id.epoch);
}

#[test]
fn what_root_makes_in_the_folder_of_a_store_belongs_to_the_user_of_the_daemon() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    const USER: u32 = 4711;
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("data");
    fill(&store);
    for name in ["lock", "identity"] {
        fs::remove_file(store.join(name)).unwrap();
    }
    if chown(&store, Some(USER), Some(USER)).is_err() {
        println!("SKIPPED: only root can give files away");
        return;
    }
    tools::restore_in_place(&store, RestoredEpoch::Same).unwrap();
    for name in ["lock", "identity"] {
        assert_eq!(fs::metadata(store.join(name)).unwrap().uid(), USER, "{name}");
    }
}

fn back_up(store: &Path, to: &Path) -> tools::BackupReport {
    let mut target = FolderBackup::open(to, store).unwrap();
    tools::backup(store, &mut target, None, Timestamp::from_millis(7)).unwrap()
}

#[test]
fn a_backup_copies_what_is_new_and_a_right_segment_is_never_replaced_by_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, to) = (dir.path().join("data"), dir.path().join("backup"));
    let (mut writer, reader) = store::open(&store, &small()).unwrap();
    let mut append = |range: std::ops::Range<u32>| {
        for n in range {
            writer.append(vec![visit(&source("a"), vec![item(&format!("a{n}"), 1)], 1000)]).unwrap();
        }
    };
    append(0..120);
    let first = back_up(&store, &to);
    assert_eq!((first.kept, first.copied), (0, segments(&store).len() as u64));
    append(120..180);
    let second = back_up(&store, &to);
    assert!(second.kept > 0 && second.copied < segments(&store).len() as u64, "{second:?}");
    assert_eq!(export(&to).0, all(&reader));
    assert_eq!(BackupManifest::read(&to).unwrap(), second.manifest);
    // The epoch is that of the daemon, and the head has come as far as it says.
    let epoch = reader.epoch().clone();
    for (daemon, is_right) in [
        (DaemonLog { epoch: epoch.clone(), head: Seq(180) }, true),
        (DaemonLog { epoch, head: Seq(181) }, false),
        (DaemonLog { epoch: news::Epoch::try_new("other1").unwrap(), head: Seq(1) }, false),
    ] {
        let mut target = FolderBackup::open(&to, &store).unwrap();
        let made = tools::backup(&store, &mut target, Some(daemon), Timestamp::from_millis(8));
        assert_eq!(made.is_ok(), is_right, "{made:?}");
    }
    let damaged = &segments(&store)[0];
    let mut bytes = fs::read(damaged).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(damaged, bytes).unwrap();
    let third = back_up(&store, &to);
    assert_eq!((third.damaged_since, third.damaged_places), (vec![1], 1));
    assert_eq!(survey(&to).damaged_places, 0);
    // Another log does not come into the same folder, nor into one that has something else.
    let other = dir.path().join("other");
    fill(&other);
    let mut target = FolderBackup::open(&to, &store).unwrap();
    let refused = tools::backup(&other, &mut target, None, Timestamp::from_millis(7));
    assert!(matches!(refused, Err(ToolError::OtherLog { .. })));
    assert!(matches!(FolderBackup::open(&other, &store), Err(ToolError::NotEmpty(_))));
}

/// A store with several segments and its backup.
fn backed_up() -> (tempfile::TempDir, PathBuf, PathBuf, Vec<Event>) {
    let dir = tempfile::tempdir().unwrap();
    let (store, to) = (dir.path().join("data"), dir.path().join("backup"));
    let (mut writer, reader) = store::open(&store, &small()).unwrap();
    for n in 0..260 {
        writer.append(vec![visit(&source("a"), vec![item(&format!("a{n}"), 1)], 1000)]).unwrap();
    }
    let events = all(&reader);
    writer.close().unwrap();
    assert_eq!(back_up(&store, &to).manifest.head, Seq(260));
    assert!(segments(&store).len() > 3);
    (dir, store, to, events)
}

#[test]
fn what_the_store_has_lost_since_the_last_backup_stays_in_the_backup() {
    for n in [0, 1] {
        for is_cut in [false, true] {
            let (_dir, store, to, events) = backed_up();
            let damaged = &segments(&store)[n];
            if is_cut {
                let bytes = fs::read(damaged).unwrap();
                fs::write(damaged, &bytes[..bytes.len() / 2]).unwrap();
            } else {
                fs::remove_file(damaged).unwrap();
            }
            // Twice: the second one sees what the first one has left.
            for _ in 0..2 {
                let report = back_up(&store, &to);
                assert_eq!(report.damaged_since, [n as u64 + 1], "segment {n}, cut: {is_cut}");
                assert_eq!(survey(&to).damaged_places, 0, "segment {n}, cut: {is_cut}");
                assert_eq!(export(&to), (events.clone(), 0), "segment {n}, cut: {is_cut}");
            }
        }
    }
}

#[test]
fn an_older_state_of_a_store_does_not_replace_a_newer_backup() {
    let (dir, store, to, events) = backed_up();
    let last = segments(&store).pop().unwrap();
    fs::remove_file(last).unwrap();
    let mut target = FolderBackup::open(&to, &store).unwrap();
    let refused = tools::backup(&store, &mut target, None, Timestamp::from_millis(8)).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("up to 260") && text.contains("another folder"), "{text}");
    assert_eq!(export(&to).0, events);
    // Another folder takes it.
    back_up(&store, &dir.path().join("other"));
}

#[test]
fn a_first_backup_that_was_interrupted_at_its_end_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, to) = (dir.path().join("data"), dir.path().join("backup"));
    let events = fill(&store);
    back_up(&store, &to);
    fs::rename(to.join("backup"), to.join("backup.new")).unwrap();
    fs::write(to.join("journal/00000009.new"), "half a segment").unwrap();
    back_up(&store, &to);
    assert_eq!(export(&to).0, events);
    let left: Vec<_> =
        files(&to).into_keys().map(|path| path.strip_prefix(&to).unwrap().to_owned()).collect();
    assert_eq!(left, [Path::new("backup"), Path::new("journal/00000001.segment")]);
}

/// Appends and retains until it is told to stop, while `work` runs.
fn under_load<T: Send>(store: &Path, options: &StoreOptions, work: impl Fn(&LogReader) -> T + Send) -> T {
    let (mut writer, reader) = store::open(store, options).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let is_done = &is_done;
        let load = scope.spawn(move || {
            let mut n = 0_u32;
            while !is_done.load(Ordering::Acquire) {
                let items = (0..5).map(|k| item(&format!("{n}.{k}"), 1)).collect();
                let id = if n.is_multiple_of(2) { "a" } else { "b" };
                writer.append(vec![visit(&source(id), items, 1000 + i64::from(n))]).unwrap();
                writer.retain(None).unwrap();
                n += 1;
            }
            n
        });
        while reader.head() < Seq(500) {
            thread::yield_now();
        }
        let result = work(&reader);
        is_done.store(true, Ordering::Release);
        assert!(load.join().unwrap() > 100);
        result
    })
}

/// What a copy has: everything that was visible before it was begun and is still kept when it ends, each once, without holes.
fn assert_has(events: &[Event], (oldest_after, head_before): (Seq, Seq)) {
    let ids: Vec<_> = events.iter().map(|event| event.id.seq.0).collect();
    assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{ids:?}");
    assert!(*ids.last().unwrap() >= head_before.0, "{:?} of {head_before}", ids.last());
    assert!(ids[0] <= oldest_after.0, "{} of {oldest_after}", ids[0]);
}

#[test]
fn a_copy_of_the_files_of_a_store_that_is_written_to_opens_and_has_all_that_was_visible() {
    for options in [StoreOptions::default(), small()] {
        let dir = tempfile::tempdir().unwrap();
        let (store, copies) = (dir.path().join("data"), dir.path());
        let copied = under_load(&store, &options, |reader| {
            let copy = |n: u32| {
                let to = copies.join(format!("copy-{n}"));
                let head = reader.head();
                let output =
                    std::process::Command::new("cp").arg("-a").arg(&store).arg(&to).output().unwrap();
                // Retention may remove a file during the copy; `cp` then says that it does not exist.
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success() || said.contains("No such file"), "{said}");
                (to, (reader.oldest(), head))
            };
            (0..5).map(copy).collect::<Vec<_>>()
        });
        for (copy, kept) in copied {
            assert_has(&export(&copy).0, kept);
            let found = survey(&copy);
            assert!(found.places.iter().all(|place| place.kind == DamageKind::End), "{found:?}");
            let (_writer, reader) = store::open(&copy, &options).unwrap();
            assert!(reader.notes().contains(&OpenNote::Copied), "{:?}", reader.notes());
            assert_has(&all(&reader), kept);
        }
    }
}

#[test]
fn a_backup_of_a_store_that_is_written_to_has_all_that_was_visible_and_restores() {
    for options in [StoreOptions::default(), small()] {
        let dir = tempfile::tempdir().unwrap();
        let (store, to) = (dir.path().join("data"), dir.path().join("backup"));
        let kept = under_load(&store, &options, |reader| {
            let mut kept = (Seq(0), Seq(0));
            for _ in 0..10 {
                let head = reader.head();
                let report = back_up(&store, &to);
                assert_eq!((report.lost, report.damaged_places), (0, 0), "{report:?}");
                kept = (reader.oldest(), head);
                assert_has(&export(&to).0, kept);
            }
            kept
        });
        assert_eq!(survey(&to).damaged_places, 0);
        let restored = dir.path().join("restored");
        let report = tools::restore(&to, &restored, RestoredEpoch::New).unwrap();
        assert_eq!((report.lost, report.damaged_places), (0, 0));
        let (_writer, reader) = store::open(&restored, &options).unwrap();
        assert_has(&all(&reader), kept);
    }
}
