//! A store of an earlier version, which had its events in sled, is brought into the layout of this one, whole and once.
//!
//! The old store is written here as its version documented it: events, states, keys, what waits, and totals, each sealed.
use std::{fs, path::Path};

use news::{Cursor, Epoch, Event, EventKind, Item, Seq, SourceState, Timestamp};
use seen::SeenSet;
use store::{OpenNote, StoreOpenError};

use crate::built::{copy_folder, news_in, options, read_log, segments};
use crate::visits::{item, source, visit};

const EPOCH: &str = "old1ep";
const FIRST: u64 = 41;
const EVENTS: u64 = 500;

fn sealed(version: u8, rest: &[u8]) -> Vec<u8> {
    [&[version][..], &crc32(rest).to_le_bytes(), rest].concat()
}

/// CRC-32 of zlib, as the old version used it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, step)
}

/// Values of over 4,096 bytes are in pieces of 2,048.
fn insert(db: &sled::Db, key: &[u8], value: &[u8]) {
    if value.len() <= 4096 {
        db.insert(key, value).unwrap();
        return;
    }
    for (n, piece) in (0_u32..).zip(value.chunks(2048)) {
        db.insert([b"p", key, &n.to_be_bytes()].concat(), piece).unwrap();
    }
    let numbers = [value.len().div_ceil(2048), value.len()].map(|n| u32::try_from(n).unwrap().to_le_bytes());
    db.insert(key, [&[255][..], numbers.as_flattened()].concat()).unwrap();
}

/// Of two sources in turn; every tenth one has 90 KB.
fn item_of(seq: u64) -> Item {
    let mut item = item(&format!("item {seq}"), 1);
    if seq.is_multiple_of(10) {
        item.content_html = Some(format!("<p>{seq}</p>").repeat(9000));
    }
    item
}

fn name_of(seq: u64) -> &'static str {
    if seq.is_multiple_of(2) { "even" } else { "odd" }
}

fn old_json(seq: u64) -> String {
    let id = Cursor { epoch: Epoch::try_new(EPOCH).unwrap(), seq: Seq(seq) };
    let recorded = Timestamp::from_millis(seq.cast_signed());
    Event::new(id, EventKind::Item, &source(name_of(seq)), recorded, item_of(seq)).to_json()
}

fn items(name: &str) -> Vec<Item> {
    (FIRST..FIRST + EVENTS).filter(|seq| name_of(*seq) == name).map(item_of).collect()
}

fn old_db(store: &Path) -> sled::Db {
    if let Ok(file) = fs::File::open(store.join("log.sled/db")) {
        // The threads of a database that was dropped release its lock a moment later; this waits for them.
        file.lock().unwrap();
    }
    sled::Config::new().path(store.join("log.sled")).flush_every_ms(None).open().unwrap()
}

fn write_old(store: &Path, layout: u8) {
    fs::create_dir_all(store).unwrap();
    let db = old_db(store);
    insert(&db, b"mepoch", &sealed(1, EPOCH.as_bytes()));
    insert(&db, b"mlive_bytes", &sealed(1, &7_u64.to_le_bytes()));
    insert(&db, b"mcounted", &sealed(1, &[0; 24]));
    insert(&db, b"mhosts", &sealed(1, b"[]"));
    for seq in FIRST..FIRST + EVENTS {
        let event = [&[0][..], &seq.to_le_bytes(), old_json(seq).as_bytes()].concat();
        insert(&db, &[b"e", &seq.to_be_bytes()[..]].concat(), &sealed(1, &event));
    }
    for name in ["odd", "even"] {
        let mut seen = SeenSet::default();
        seen.classify(&items(name), Timestamp::from_millis(1));
        insert(&db, format!("k{name}").as_bytes(), &sealed(layout, &seen.encode()));
        let state = SourceState { etag: Some(format!("\"{name}\"")), ..SourceState::default() };
        insert(&db, format!("s{name}").as_bytes(), &sealed(1, &serde_json::to_vec(&state).unwrap()));
        insert(&db, format!("c{name}").as_bytes(), &sealed(1, &[0; 16]));
    }
    insert(&db, b"weven", &sealed(1, &9_u64.to_le_bytes()));
    db.flush().unwrap();
}

/// All of it is there, nothing comes twice, and the log goes on.
fn assert_migrated(store: &Path, what: &str) {
    let (mut writer, reader) = store::open(store, &options(64)).unwrap();
    assert_eq!(
        (reader.epoch().as_str(), reader.oldest().0, reader.head().0),
        (EPOCH, FIRST, FIRST + EVENTS - 1)
    );
    let log = read_log(&reader);
    assert_eq!((log.events.len() as u64, log.missed), (EVENTS, FIRST - 1), "{what}");
    for (seq, json) in log.events {
        assert!(json == old_json(seq), "{what}: {seq} has other bytes");
    }
    assert_eq!(reader.take_damage(), [], "{what}");
    for name in ["odd", "even"] {
        let state = reader.state(&source(name).id).unwrap().unwrap();
        assert_eq!(state.etag, Some(format!("\"{name}\"")), "{what}");
        let known = visit(&source(name), items(name), 1000);
        assert_eq!(news_in(&mut writer, vec![known]), 0, "{what}: known items of {name} come again");
    }
    let next = writer.append(vec![visit(&source("odd"), vec![item("new", 1)], 2000)]).unwrap();
    assert_eq!(next[0].first, Some(Seq(FIRST + EVENTS)), "{what}");
    writer.close().unwrap();
    let left: Vec<_> = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("old-")), "{what}: {left:?}");
}

#[test]
fn an_old_store_is_brought_over_whole_and_once() {
    let dir = tempfile::tempdir().unwrap();
    write_old(dir.path(), SeenSet::LAYOUT);
    let (writer, reader) = store::open(dir.path(), &options(64)).unwrap();
    assert_eq!(reader.notes(), [OpenNote::Migrated { events: EVENTS }]);
    assert!(segments(dir.path()).len() > 4);
    writer.close().unwrap();
    drop(reader);
    assert_migrated(dir.path(), "after a second start");
    // Only the journal is needed from now on.
    fs::remove_dir_all(dir.path().join("log.sled")).unwrap();
    let (mut writer, reader) = store::open(dir.path(), &options(64)).unwrap();
    assert_eq!(reader.head().0, FIRST + EVENTS);
    assert_eq!(news_in(&mut writer, vec![visit(&source("even"), items("even"), 3000)]), 0);
}

#[test]
fn the_first_start_of_the_new_version_already_knows_what_the_old_one_did() {
    let dir = tempfile::tempdir().unwrap();
    write_old(dir.path(), SeenSet::LAYOUT);
    assert_migrated(dir.path(), "the first start");
}

#[test]
fn a_damaged_event_of_an_old_store_is_told_and_its_number_is_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    write_old(dir.path(), SeenSet::LAYOUT);
    let last = FIRST + EVENTS - 1;
    let db = old_db(dir.path());
    for seq in [FIRST, FIRST + 77, last] {
        let mut key = [b"e", &seq.to_be_bytes()[..]].concat();
        let mut value = db.get(&key).unwrap().unwrap().to_vec();
        if value[0] == 255 {
            // Its first piece.
            key = [b"p", &key[..], &[0; 4]].concat();
            value = db.get(&key).unwrap().unwrap().to_vec();
        }
        value[9] ^= 1;
        db.insert(key, value).unwrap();
    }
    db.flush().unwrap();
    drop(db);
    let (mut writer, reader) = store::open(dir.path(), &options(64)).unwrap();
    let log = read_log(&reader);
    assert_eq!((log.events.len() as u64, reader.head().0), (EVENTS - 3, last));
    assert_eq!(log.missed, FIRST - 1 + 3);
    let told: Vec<_> = reader.take_damage().iter().map(|damage| (damage.first.0, damage.count)).collect();
    assert_eq!(told, [(FIRST, 1), (FIRST + 77, 1), (last, 1)]);
    let next = writer.append(vec![visit(&source("odd"), vec![item("new", 1)], 2000)]).unwrap();
    assert_eq!(next[0].first, Some(Seq(last + 1)));
}

#[test]
fn a_damaged_state_of_an_old_store_costs_that_state_and_no_visit_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    write_old(dir.path(), SeenSet::LAYOUT);
    let db = old_db(dir.path());
    let mut state = db.get("sodd").unwrap().unwrap().to_vec();
    state[9] ^= 1;
    db.insert("sodd", state).unwrap();
    db.flush().unwrap();
    drop(db);
    let (mut writer, reader) = store::open(dir.path(), &options(64)).unwrap();
    assert!(reader.notes().contains(&OpenNote::DamagedChanges { records: 1 }), "{:?}", reader.notes());
    assert_eq!(reader.state(&source("odd").id).unwrap(), None);
    assert_eq!(
        news_in(&mut writer, vec![visit(&source("odd"), items("odd"), 1000)]),
        0,
        "its keys are whole"
    );
}

#[test]
fn what_is_left_of_an_old_store_is_never_taken_for_a_store_without_anything() {
    let original = tempfile::tempdir().unwrap();
    write_old(original.path(), SeenSet::LAYOUT);
    for left in [None, Some(0), Some(1), Some(95)] {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(original.path(), copy.path());
        let db = copy.path().join("log.sled/db");
        match left {
            None => fs::remove_file(&db).unwrap(),
            Some(left) => fs::File::options().write(true).open(&db).unwrap().set_len(left).unwrap(),
        }
        for _ in 0..2 {
            let error = store::open(copy.path(), &options(64)).unwrap_err();
            assert!(matches!(error, StoreOpenError::Lost { .. }), "{left:?}: {error}");
            assert_eq!(fs::metadata(&db).ok().map(|db| db.len()), left, "a refused start changes nothing");
        }
        let accepted = store::StoreOptions { accept_loss: true, ..options(64) };
        let (mut writer, reader) = store::open(copy.path(), &accepted).unwrap();
        assert!(reader.notes().contains(&OpenNote::NewEpoch), "{left:?}: {:?}", reader.notes());
        assert_eq!(news_in(&mut writer, vec![visit(&source("odd"), vec![item("new", 1)], 1)]), 1);
        writer.close().unwrap();
        drop(reader);
        store::open(copy.path(), &options(64)).unwrap();
    }
}

#[test]
fn an_old_store_without_events_keeps_its_epoch_and_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    write_old(dir.path(), SeenSet::LAYOUT);
    let db = old_db(dir.path());
    for key in db.scan_prefix("e").keys().chain(db.scan_prefix("pe").keys()) {
        db.remove(key.unwrap()).unwrap();
    }
    db.flush().unwrap();
    drop(db);
    let (mut writer, reader) = store::open(dir.path(), &options(64)).unwrap();
    assert_eq!((reader.epoch().as_str(), reader.head()), (EPOCH, Seq::NONE));
    assert_eq!(news_in(&mut writer, vec![visit(&source("odd"), items("odd"), 1000)]), 0);
}

#[test]
fn a_store_that_was_begun_and_never_used_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    old_db(dir.path()).flush().unwrap();
    let (mut writer, reader) = store::open(dir.path(), &options(64)).unwrap();
    assert_eq!(
        writer.append(vec![visit(&source("odd"), vec![item("new", 1)], 1)]).unwrap()[0].first,
        Some(Seq(1))
    );
    assert_eq!(reader.head(), Seq(1));
}

#[test]
fn a_store_of_a_version_to_come_is_refused_by_its_layout() {
    let dir = tempfile::tempdir().unwrap();
    write_old(dir.path(), SeenSet::LAYOUT);
    let db = old_db(dir.path());
    insert(&db, b"mepoch", &sealed(5, EPOCH.as_bytes()));
    db.flush().unwrap();
    drop(db);
    let error = store::open(dir.path(), &options(64)).unwrap_err();
    assert!(matches!(error, StoreOpenError::Newer { layout: 5, .. }), "{error}");
}

/// In the child of [`interrupted`]: opens the store, until a crash point ends it.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    drop(store::open(Path::new(&dir), &options(64)).unwrap());
}

const CHILD: &str = "NEWSWIRE_TEST_MIGRATION";

#[cfg(feature = "crash-points")]
fn dies_at(step: &str, times: u32, store: &Path) {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["migration::child", "--exact", "--nocapture"])
        .env(CHILD, store)
        .env("CRASH_AT", format!("{step}:{times}"))
        .output()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
    assert_eq!(signal, Some(9), "{step} fired: {}", String::from_utf8_lossy(&child.stderr));
}

#[cfg(feature = "crash-points")]
#[test]
fn a_migration_that_was_interrupted_at_any_step_goes_on_or_begins_again() {
    let steps = [
        "migrate-segments",
        "migrate-renamed",
        "migrate-removed",
        "rebuild-built",
        "roll-created",
        "roll-synced",
    ];
    for (step, times) in
        steps.into_iter().flat_map(|step| [(step, 1)]).chain([("roll-synced", 3), ("append-written", 2)])
    {
        let dir = tempfile::tempdir().unwrap();
        write_old(dir.path(), SeenSet::LAYOUT);
        dies_at(step, times, dir.path());
        assert_migrated(dir.path(), step);
    }
}

#[cfg(feature = "crash-points")]
#[test]
fn a_rebuilding_that_was_interrupted_at_any_step_begins_again() {
    for step in ["rebuild-renamed", "rebuild-built"] {
        let dir = tempfile::tempdir().unwrap();
        write_old(dir.path(), SeenSet::LAYOUT);
        store::open(dir.path(), &options(64)).unwrap().0.close().unwrap();
        fs::write(dir.path().join("rebuild"), "a page is damaged").unwrap();
        dies_at(step, 1, dir.path());
        assert_migrated(dir.path(), step);
    }
}

#[cfg(feature = "crash-points")]
#[test]
fn a_first_start_that_was_interrupted_at_any_step_does_not_prevent_the_next_one() {
    for step in ["roll-created", "roll-synced", "flush-started", "flush-synced", "migrate-removed"] {
        let dir = tempfile::tempdir().unwrap();
        dies_at(step, 1, dir.path());
        let (mut writer, reader) = store::open(dir.path(), &options(64)).unwrap();
        let next = writer.append(vec![visit(&source("odd"), vec![item("new", 1)], 1)]).unwrap();
        assert_eq!((next[0].first, reader.head()), (Some(Seq(1)), Seq(1)), "{step}");
        assert!(
            !reader.notes().iter().any(|note| matches!(note, OpenNote::Rebuilt { .. })),
            "{:?}",
            reader.notes()
        );
    }
}
