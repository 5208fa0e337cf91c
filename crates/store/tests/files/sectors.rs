//! Sectors that the disk cannot read cost what is in them: the start, and every tool.

use std::{fs, path::Path};

use news::{Seq, Timestamp};
use store::{
    OpenNote,
    tools::{self, FolderBackup, RestoreOptions, RestoredEpoch, ToolError},
};

use crate::{
    built::{news_in, options, read_log},
    preload::run_with,
    visits::{item, source, visit},
};

const CHILD: &str = "NEWSWIRE_TEST_SECTORS";
const EVENTS: u64 = 200;

/// In the child of [`a_bad_sector_costs_what_is_in_it`].
#[test]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let bad = std::env::var("BAD_FILE").unwrap();
    if !bad.ends_with("segment") {
        open_whole(Path::new(&folder), bad.starts_with("log.sled"));
        std::process::exit(7);
    }
    let (store, folder) = (Path::new(&folder).join("data"), Path::new(&folder));
    let survey = tools::survey(&store).unwrap();
    let lost = survey.lost_events;
    assert!(survey.damaged_places > 0 && (1..40).contains(&lost), "{survey:?}");
    assert_eq!(survey.events, EVENTS - lost);
    let exported = tools::export(&store, None, None, |_| Ok(())).unwrap();
    assert_eq!((exported.events, exported.lost), (EVENTS - lost, lost));
    let mut salvaged = 0;
    let report = tools::salvage(&store, |_| {
        salvaged += 1;
        Ok(())
    });
    assert!(report.unwrap().unreadable.is_empty() && salvaged >= EVENTS - lost, "{salvaged}");
    let mut target = FolderBackup::open(&folder.join("backup"), &store).unwrap();
    assert_eq!(tools::backup(&store, &mut target, None, Timestamp::from_millis(1)).unwrap().lost, lost);
    let restore = |accept_loss| {
        let options = RestoreOptions { epoch: RestoredEpoch::New, accept_loss };
        tools::restore(&store, &folder.join("restored"), options)
    };
    assert!(matches!(restore(false), Err(ToolError::NotWhole { .. })));
    assert_eq!(restore(true).unwrap().lost, lost);
    let (_writer, reader) = store::open(&store, &options(64)).unwrap();
    let log = read_log(&reader);
    assert_eq!((reader.head(), log.events.len() as u64, log.missed), (Seq(EVENTS), EVENTS - lost, lost));
    std::process::exit(7);
}

/// The journal is whole.
fn open_whole(folder: &Path, is_made_again: bool) {
    let (mut writer, reader) = store::open(&folder.join("data"), &options(64)).unwrap();
    let is_rebuilt = reader.notes().iter().any(|note| matches!(note, OpenNote::Rebuilt { .. }));
    assert_eq!(is_rebuilt, is_made_again, "{:?}", reader.notes());
    assert_eq!(read_log(&reader).events.len() as u64, EVENTS);
    let known = (0..EVENTS).map(|n| item(&format!("item {n}"), 1)).collect();
    assert_eq!(news_in(&mut writer, vec![visit(&source("a"), known, 1000)]), 0);
}

#[test]
fn a_bad_sector_costs_what_is_in_it() {
    // The header of a segment with an index, of one without, and places in the middle.
    for (file, from, to, without_index) in [
        ("00000001.segment", "0", "4096", false),
        ("00000002.segment", "8192", "12288", false),
        ("00000002.segment", "0", "4096", true),
        ("log.sled/db", "0", "10000000", false),
        ("log.sled/conf", "0", "4096", false),
        ("identity", "0", "4096", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("data");
        let (mut writer, _) = store::open(&store, &options(64)).unwrap();
        for n in 0..EVENTS {
            writer
                .append(vec![visit(&source("a"), vec![item(&format!("item {n}"), 1)], n.cast_signed())])
                .unwrap();
        }
        writer.close().unwrap();
        if without_index {
            fs::remove_file(store.join("journal").join(file).with_extension("index")).unwrap();
        }
        let environment = [
            (CHILD, dir.path()),
            ("BAD_FILE", Path::new(file)),
            ("BAD_FROM", Path::new(from)),
            ("BAD_TO", Path::new(to)),
        ];
        let child = run_with("tests/support/bad_sectors.c", "sectors::child", &environment);
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(7), "{file} {from}: {said}");
    }
}
