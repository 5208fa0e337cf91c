//! Damage of the journal, and then of sled as well: what is made again is made of what is left, and the daemon goes on.

use std::{fs, path::Path};

use store::{LogWriter, OpenNote, StoreOptions};

use crate::{
    built::{news_in, options, segments},
    visits::{item, source, visit},
};

/// Where the operations of each record are: from the head of `journal.rs`.
fn operations(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let number = |at: usize| {
        let number: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        usize::try_from(u32::from_le_bytes(number)).unwrap()
    };
    let mut at = 64;
    let mut found = Vec::new();
    while at < bytes.len() {
        let end = at + 64 + number(at + 4);
        found.push(at + 64 + number(at + 40) + number(at + 44)..end);
        at = end;
    }
    found
}

fn one_more(writer: &mut LogWriter, n: u32) -> u32 {
    let items = (0..=n).map(|k| item(&format!("item {k}"), 1)).collect();
    news_in(writer, vec![visit(&source("a"), items, i64::from(n))])
}

/// A source with 40 items, and then one more at each of 20 visits: a list of keys and 20 deltas of it.
fn fill(store: &Path) {
    let (mut writer, _reader) = store::open(store, &options(512)).unwrap();
    assert_eq!(one_more(&mut writer, 39), 40);
    for n in 40..60 {
        assert_eq!(one_more(&mut writer, n), 1);
    }
    writer.close().unwrap();
}

#[test]
fn a_damaged_part_of_a_list_of_keys_costs_what_came_after_it_when_sled_is_lost_too() {
    for damaged in [1, 10, 19] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let file = segments(dir.path()).pop().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        let places = operations(&bytes);
        assert_eq!(places.len(), 21);
        bytes[places[damaged].start + 20] ^= 1;
        fs::write(&file, bytes).unwrap();
        fs::remove_dir_all(dir.path().join("log.sled")).unwrap();
        for start in 0..2 {
            let (mut writer, reader) = store::open(dir.path(), &options(512)).unwrap();
            if start == 0 {
                assert!(reader.notes().contains(&OpenNote::DamagedChanges { records: 1 }));
            }
            // The items of the damaged visit and of later ones are no longer known.
            let again = if start == 0 { 21 - u32::try_from(damaged).unwrap() } else { 0 };
            assert_eq!(one_more(&mut writer, 59), again, "{damaged}, start {start}");
            assert_eq!(one_more(&mut writer, 60 + start), 1, "{damaged}, start {start}");
            writer.close().unwrap();
        }
    }
}

/// A store of 8 sources with 3,000 items each, of which only sled is left.
fn without_journal() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _reader) = store::open(dir.path(), &options(512)).unwrap();
    for n in 0..8 {
        let items = (0..3000).map(|k| item(&format!("{n}/{k}"), 1)).collect();
        assert_eq!(news_in(&mut writer, vec![visit(&source(&format!("source-{n}")), items, n)]), 3000);
    }
    writer.close().unwrap();
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    dir
}

#[test]
fn what_the_journal_gets_again_is_in_records_of_a_megabyte() {
    let dir = without_journal();
    let accepted = StoreOptions { accept_loss: true, ..options(512) };
    drop(store::open(dir.path(), &accepted).unwrap());
    let of_file = |path| operations(&fs::read(path).unwrap());
    let lengths: Vec<_> =
        segments(dir.path()).into_iter().flat_map(of_file).map(|operations| operations.len()).collect();
    assert!(lengths.iter().sum::<usize>() > 1_800_000, "{lengths:?}");
    assert!(lengths.iter().max() < Some(&1_500_000), "{lengths:?}");
}

#[test]
fn the_ids_of_events_say_the_epoch_if_no_header_and_no_other_file_does() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let epoch = store::open(dir.path(), &options(512)).unwrap().1.epoch().clone();
    let file = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[..64].fill(0);
    fs::write(&file, bytes).unwrap();
    fs::remove_dir_all(dir.path().join("log.sled")).unwrap();
    fs::remove_file(dir.path().join("identity")).unwrap();
    let (mut writer, reader) = store::open(dir.path(), &options(512)).unwrap();
    assert_eq!((reader.epoch(), reader.head()), (&epoch, news::Seq(60)));
    assert_eq!(one_more(&mut writer, 59), 0);
}
