//! Whether all of a log is there is told by what else knows it; what is not whole is not restored silently.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use news::{Seq, Timestamp};
use store::{
    OpenNote, StoreOpenError,
    tools::{
        self, BackupManifest, DamageKind, DamagedPlace, EndWitness, FolderBackup, RestoreOptions,
        RestoredEpoch, StoreSurvey, ToolError,
    },
};

use crate::{
    built::{copy_folder, files, options, read_log, segments},
    visits::{item, source, visit},
};

const EVENTS: u64 = 200;

fn fill(store: &Path) {
    let (mut writer, _) = store::open(store, &options(64)).unwrap();
    for n in 0..EVENTS {
        writer.append(vec![visit(&source("a"), vec![item(&format!("item {n}"), 1)], 1000)]).unwrap();
    }
    writer.close().unwrap();
    assert_eq!(segments(store).len(), 4);
}

fn filled() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("data");
    fill(&store);
    (dir, store)
}

fn survey(store: &Path) -> StoreSurvey {
    let content =
        || files(store).into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect::<Vec<_>>();
    let before = content();
    let survey = tools::survey(store).unwrap();
    assert!(content() == before, "nothing is changed by reading");
    survey
}

fn kinds(survey: &StoreSurvey) -> Vec<(DamageKind, u64)> {
    survey.places.iter().map(|place| (place.kind, place.segment)).collect()
}

fn backed_up(store: &Path, to: &Path) {
    let mut target = FolderBackup::open(to, store).unwrap();
    tools::backup(store, &mut target, None, Timestamp::from_millis(7)).unwrap();
}

#[test]
fn newest_events_that_are_missing_are_counted_by_what_the_states_know() {
    let (dir, store) = filled();
    let whole = survey(&store);
    assert_eq!((whole.damaged_places, whole.end), (0, EndWitness::States), "{whole:?}");
    let last = segments(&store).pop().unwrap();
    let kept = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    let found = survey(&store);
    let [DamagedPlace { kind: DamageKind::Head, segment: 3, first, events, .. }] = &found.places[..] else {
        panic!("{found:?}")
    };
    assert_eq!((found.events + events, *first), (EVENTS, Some(found.head.next())));
    assert_eq!(found.lost_events, *events);
    // The same with a link to nothing, and with a file that is cut at the end of a record.
    symlink("nowhere", &last).unwrap();
    let found = survey(&store);
    assert_eq!((kinds(&found), found.lost_events), (vec![(DamageKind::NotAFile, 4)], *events));
    fs::remove_file(&last).unwrap();
    let third = memchr::memmem::find_iter(&kept, b"\xf1NWR").nth(2).unwrap();
    fs::write(&last, &kept[..third]).unwrap();
    let found = survey(&store);
    assert_eq!((kinds(&found), found.lost_events), (vec![(DamageKind::Head, 4)], events - 2));
    // A copy that was made file by file of a running store has states that are newer than its journal.
    let copy = dir.path().join("copy");
    copy_folder(&store, &copy);
    let found = survey(&copy);
    assert_eq!(
        (found.damaged_places, found.end, found.known_head),
        (0, EndWitness::NewerStates, Seq(EVENTS))
    );
    tools::restore(&copy, &dir.path().join("restored"), RestoredEpoch::New).unwrap();
    // Without the states, nothing knows of them; that is said.
    fs::remove_dir_all(store.join("log.sled")).unwrap();
    let found = survey(&store);
    assert_eq!((found.damaged_places, found.end), (0, EndWitness::None));
}

#[test]
fn an_index_without_its_segment_tells_which_events_it_had() {
    let (_dir, store) = filled();
    fs::remove_dir_all(store.join("log.sled")).unwrap();
    for path in &segments(&store)[2..] {
        fs::remove_file(path).unwrap();
    }
    let found = survey(&store);
    assert_eq!((kinds(&found), found.head), (vec![(DamageKind::Segment, 3)], Seq(128)));
    assert_eq!((found.places[0].first, found.lost_events), (Some(Seq(129)), 64));
}

#[test]
fn what_is_no_file_in_place_of_a_segment_is_named_and_refused() {
    for make in [
        |path: &Path| fs::create_dir(path).unwrap(),
        |path: &Path| symlink("nowhere", path).unwrap(),
        |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
    ] {
        let (_dir, store) = filled();
        let path = segments(&store).remove(1);
        fs::remove_file(&path).unwrap();
        make(&path);
        let found = tools::survey(&store).unwrap();
        assert_eq!((kinds(&found), found.lost_events), (vec![(DamageKind::NotAFile, 2)], 64));
        let lock = store.join("lock");
        let before = (fs::read(&lock).unwrap(), fs::metadata(&lock).unwrap().modified().unwrap());
        let refused = store::open(&store, &options(64)).map(drop).unwrap_err();
        assert!(
            matches!(&refused, StoreOpenError::Unreadable { path: named, .. } if *named == path),
            "{refused}"
        );
        let after = (fs::read(&lock).unwrap(), fs::metadata(&lock).unwrap().modified().unwrap());
        assert_eq!(before, after, "a start that refuses has changed nothing");
    }
}

#[test]
fn a_copy_of_a_segment_under_another_number_costs_nothing() {
    let (_dir, store) = filled();
    let paths = segments(&store);
    let (before, behind) = (store.join("journal/00000000.segment"), store.join("journal/00000005.segment"));
    fs::copy(&paths[3], &before).unwrap();
    fs::copy(&paths[0], &behind).unwrap();
    let found = survey(&store);
    assert_eq!(kinds(&found), [(DamageKind::Copy, 0), (DamageKind::Copy, 5)]);
    assert_eq!((found.events, found.head, found.lost_events), (EVENTS, Seq(EVENTS), 0));
    {
        let (mut writer, reader) = store::open(&store, &options(64)).unwrap();
        assert!(reader.notes().contains(&OpenNote::Strays { segments: vec![0, 5] }), "{:?}", reader.notes());
        // A segment that needs the name of the copy.
        for n in EVENTS..EVENTS + 100 {
            writer.append(vec![visit(&source("a"), vec![item(&format!("item {n}"), 1)], 1000)]).unwrap();
        }
        let log = read_log(&reader);
        assert_eq!((log.events.len() as u64, log.missed), (EVENTS + 100, 0));
        writer.close().unwrap();
    }
    assert_eq!(survey(&store).damaged_places, 0);
    assert_eq!(fs::read(behind.with_extension("copy-1")).unwrap(), fs::read(&paths[0]).unwrap());
}

/// What is wrong with a backup, and what is then found.
type BackupFault = (fn(&Path), Vec<(DamageKind, u64)>, u64);

#[test]
fn a_backup_that_is_not_whole_is_named_and_restored_only_if_the_loss_is_accepted() {
    let (dir, store) = filled();
    let backup = dir.path().join("backup");
    backed_up(&store, &backup);
    let whole = survey(&backup);
    assert_eq!((whole.damaged_places, whole.end), (0, EndWitness::Backup), "{whole:?}");
    let segment = |n: u64| format!("journal/{n:08}.segment");
    let faults: [BackupFault; 6] = [
        (
            |to| fs::remove_file(to.join("journal/00000004.segment")).unwrap(),
            vec![(DamageKind::Segment, 4)],
            8,
        ),
        (
            |to| fs::remove_file(to.join("journal/00000002.segment")).unwrap(),
            vec![(DamageKind::Segment, 2)],
            64,
        ),
        (|to| fs::remove_file(to.join("backup")).unwrap(), vec![(DamageKind::Unnamed, 0)], 0),
        (|to| fs::write(to.join("backup"), "junk").unwrap(), vec![(DamageKind::Manifest, 0)], 0),
        (
            |to| {
                let text = fs::read_to_string(to.join("backup")).unwrap();
                fs::write(to.join("backup"), text.replace("\"made\": \"1970", "\"made\": \"1971")).unwrap();
            },
            vec![(DamageKind::Manifest, 0)],
            0,
        ),
        (
            |to| {
                let path = to.join("journal/00000003.segment");
                let bytes = fs::read(&path).unwrap();
                let last = memchr::memmem::rfind(&bytes, b"\xf1NWR").unwrap();
                fs::write(path, &bytes[..last]).unwrap();
            },
            vec![(DamageKind::Missing, 4), (DamageKind::Changed, 3)],
            1,
        ),
    ];
    for (n, (damage, expected, lost)) in faults.into_iter().enumerate() {
        let (copy, place) = (dir.path().join(format!("copy{n}")), dir.path().join(format!("restored{n}")));
        copy_folder(&backup, &copy);
        damage(&copy);
        let found = survey(&copy);
        assert_eq!((kinds(&found), found.lost_events), (expected, lost), "{n}");
        let refused = tools::restore(&copy, &place, RestoredEpoch::New).unwrap_err();
        assert!(matches!(refused, ToolError::NotWhole { .. }), "{n}: {refused}");
        let text = refused.to_string();
        assert!(text.contains("--accept-loss") && text.starts_with(&*copy.to_string_lossy()), "{text}");
        let beside = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!beside.into_iter().any(|name| name.to_string_lossy().starts_with("restored")), "{n}");
        let accepted = RestoreOptions { epoch: RestoredEpoch::New, accept_loss: true };
        let report = tools::restore(&copy, &place, accepted).unwrap();
        assert_eq!(report.lost, lost);
        assert_eq!(survey(&place).events, EVENTS - lost, "{n}");
        fs::remove_dir_all(&place).unwrap();
    }
    // A backup that goes on from another one, and has not come to its end, has all that the former one had.
    fs::write(backup.join(segment(5)), fs::read(backup.join(segment(4))).unwrap()).unwrap();
    fs::remove_file(backup.join(segment(5))).unwrap();
    let mut longer = fs::read(backup.join(segment(4))).unwrap();
    longer.extend_from_slice(b"more");
    fs::write(backup.join(segment(4)), longer).unwrap();
    assert_eq!(kinds(&survey(&backup)), [(DamageKind::End, 4)]);
    tools::restore(&backup, &dir.path().join("restored"), RestoredEpoch::New).unwrap();
}

#[test]
fn a_restored_store_is_whole_before_its_first_start_and_a_store_is_not_restored_from_itself() {
    let (dir, store) = filled();
    for (epoch, name) in [(RestoredEpoch::New, "new"), (RestoredEpoch::Same, "same")] {
        let to = dir.path().join(name);
        tools::restore(&store, &to, epoch).unwrap();
        assert_eq!(survey(&to).damaged_places, 0, "{name}");
        let (_writer, reader) = store::open(&to, &options(64)).unwrap();
        assert!(!reader.notes().contains(&OpenNote::Copied), "{name}");
    }
    let link = dir.path().join("link");
    symlink(&store, &link).unwrap();
    let refused = tools::restore(&link, &store, RestoredEpoch::New);
    assert!(matches!(refused, Err(ToolError::IsTheStore(_))));
}

#[test]
fn a_restored_log_uses_no_number_of_a_segment_again_so_that_copied_folders_never_mix_files() {
    let (dir, store) = filled();
    let nightly = dir.path().join("nightly");
    copy_folder(&store, &nightly);
    let epoch = tools::restore_in_place(&store, RestoredEpoch::New).unwrap().epoch;
    let names: Vec<_> =
        segments(&store).into_iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["00000005.segment"]);
    // The next night, without removing what is not there any more.
    copy_folder(&store, &nightly);
    let found = survey(&nightly);
    assert_eq!((&found.epoch, found.head, found.events), (&epoch, Seq(EVENTS), EVENTS));
    let refused = store::open(&nightly, &options(64)).map(drop).unwrap_err().to_string();
    assert!(refused.contains("00000005.segment is of the log") && refused.contains("move away"), "{refused}");
    let refused = tools::restore(&nightly, &dir.path().join("restored"), RestoredEpoch::New).unwrap_err();
    assert!(refused.to_string().contains("segment 1: the file is of another log"), "{refused}");
}

#[test]
fn a_backup_into_the_store_or_onto_a_disk_that_is_not_mounted_is_refused() {
    let (dir, store) = filled();
    let link = dir.path().join("link");
    symlink(&store, &link).unwrap();
    for inside in [store.join("backup"), store.join("journal/backup"), link.join("backup"), store.clone()] {
        let refused = FolderBackup::open(&inside, &store);
        assert!(matches!(refused, Err(ToolError::InsideStore { .. })), "{}", inside.display());
        assert!(inside == store || !inside.exists());
    }
    let missing = dir.path().join("mnt/backup");
    let refused = FolderBackup::open(&missing, &store);
    assert!(matches!(refused, Err(ToolError::NoParent(parent)) if parent == dir.path().join("mnt")));
    assert!(!dir.path().join("mnt").exists());
}

#[test]
fn a_backup_that_fails_leaves_no_half_file_and_the_one_before() {
    let (dir, store) = filled();
    let backup = dir.path().join("backup");
    backed_up(&store, &backup);
    let manifest = BackupManifest::read(&backup).unwrap();
    let path = segments(&backup).pop().unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir_all(path.join("in the way")).unwrap();
    // The last segment is longer now, and is written again.
    let (mut writer, _) = store::open(&store, &options(64)).unwrap();
    writer.append(vec![visit(&source("a"), vec![item("one more", 1)], 1000)]).unwrap();
    writer.close().unwrap();
    let mut target = FolderBackup::open(&backup, &store).unwrap();
    let failed = tools::backup(&store, &mut target, None, Timestamp::from_millis(8)).unwrap_err();
    assert!(matches!(failed, ToolError::File { .. }), "{failed}");
    assert!(files(&backup).iter().all(|path| path.extension().is_none_or(|extension| extension != "new")));
    assert_eq!(BackupManifest::read(&backup).unwrap(), manifest);
}
