//! What an open makes durable: seen from between the process and the disk, by the recorder of the crate e2e.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    built::{options, segments},
    preload::run_with,
    visits::{item, source, visit},
};

const CHILD: &str = "NEWSWIRE_TEST_SYNCS";
/// Bytes of `struct entry` of the recorder.
const HEAD: usize = 48;

/// In the child of [`synced_by_an_open`]: opens the store, and dies.
#[test]
fn child() {
    let Ok(store) = std::env::var(CHILD) else { return };
    let _opened = store::open(Path::new(&store), &options(64)).unwrap();
    std::process::exit(7);
}

/// The files and folders below `under` that an open of `store` has synced.
fn synced_by_an_open(store: &Path, under: &Path) -> BTreeSet<PathBuf> {
    let tools = tempfile::tempdir().unwrap();
    let record = tools.path().join("record");
    let environment = [(CHILD, store), ("FAULTS_UNDER", under), ("FAULTS_RECORD", &record)];
    let child = run_with("../e2e/preload/faults.c", "syncs::child", &environment);
    assert_eq!(child.status.code(), Some(7), "{}", String::from_utf8_lossy(&child.stderr));
    let bytes = fs::read(record).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut synced) = (0, BTreeSet::new());
    while at < bytes.len() {
        let (path, data) = (at + HEAD, at + HEAD + word(at + 12) + word(at + 16));
        if word(at + 4) == usize::from(b'S') {
            synced.insert(PathBuf::from(str::from_utf8(&bytes[path..path + word(at + 12)]).unwrap()));
        }
        at = data + usize::try_from(u64::from_le_bytes(bytes[at + 40..at + 48].try_into().unwrap())).unwrap();
    }
    synced
}

#[test]
fn the_folders_that_a_first_start_makes_are_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let under = fs::canonicalize(dir.path()).unwrap();
    let synced = synced_by_an_open(&under.join("a/b/store"), &under);
    for folder in ["", "a", "a/b", "a/b/store", "a/b/store/journal"] {
        assert!(
            synced.contains(&under.join(folder)) || (folder.is_empty() && synced.contains(&under)),
            "{folder}"
        );
    }
}

#[test]
fn what_a_killed_process_has_written_and_not_synced_is_on_disk_before_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let under = fs::canonicalize(dir.path()).unwrap();
    let (mut writer, _) = store::open(&under, &options(64)).unwrap();
    for n in 0..100 {
        writer.append(vec![visit(&source("a"), vec![item(&format!("item {n}"), 1)], n)]).unwrap();
    }
    writer.close().unwrap();
    let files = segments(&under);
    assert!(files.len() > 1);
    let synced = synced_by_an_open(&under, &under);
    for file in files.iter().chain([&under.join("journal")]) {
        assert!(synced.contains(file), "{} is served and not synced", file.display());
    }
}
