//! A store that is a copy, or that an older copy was written over, says so; damage to its identity is no copy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use store::{
    LogReader, LogWriter, OpenNote,
    tools::{RestoredEpoch, restore_in_place},
};

use crate::{
    built::{copy_folder, options},
    visits::{item, source, visit},
};

const IDENTITIES: [&str; 2] = ["identity", "identity.2"];

fn open(folder: &Path) -> (LogWriter, LogReader) {
    store::open(folder, &options(64)).unwrap()
}

fn record(writer: &mut LogWriter, key: &str) {
    writer.append(vec![visit(&source("a"), vec![item(key, 1)], 1000)]).unwrap();
}

/// A store with one event that was closed, and a copy of it.
fn store_and_copy(folder: &Path) -> (PathBuf, PathBuf) {
    let (data, copy) = (folder.join("data"), folder.join("copy"));
    let (mut writer, _) = open(&data);
    record(&mut writer, "first");
    writer.close().unwrap();
    copy_folder(&data, &copy);
    (data, copy)
}

fn notes(folder: &Path) -> Vec<OpenNote> {
    let (writer, reader) = open(folder);
    writer.close().unwrap();
    reader.notes().to_vec()
}

#[test]
fn an_older_copy_that_is_written_over_the_files_is_a_copy() {
    for is_closed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (data, copy) = store_and_copy(folder.path());
        let (mut writer, reader) = open(&data);
        record(&mut writer, "second");
        if is_closed {
            writer.close().unwrap();
        } else {
            drop(writer);
        }
        drop(reader);
        // As `cp -a copy/. data/` does: the files keep their inodes.
        copy_folder(&copy, &data);
        for _ in 0..2 {
            assert!(notes(&data).contains(&OpenNote::Copied), "closed: {is_closed}");
        }
        restore_in_place(&data, RestoredEpoch::Same).unwrap();
        assert_eq!(notes(&data), []);
    }
}

#[test]
fn a_copy_without_a_readable_identity_is_a_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = store_and_copy(folder.path());
    for (n, change) in [
        (|path: &Path| fs::remove_file(path).unwrap()) as fn(&Path),
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, fs::read(path).unwrap().split_last().unwrap().1).unwrap(),
        |path| fs::write(path, [&fs::read(path).unwrap()[..], b"more"].concat()).unwrap(),
    ]
    .into_iter()
    .enumerate()
    {
        for changed in [&IDENTITIES[..], &IDENTITIES[..1], &IDENTITIES[1..]] {
            let place = folder.path().join("place");
            copy_folder(&copy, &place);
            changed.iter().for_each(|name| change(&place.join(name)));
            assert!(notes(&place).contains(&OpenNote::Copied), "change {n} of {changed:?}");
            fs::remove_dir_all(place).unwrap();
        }
    }
    // Only the journal, as it is put into an empty folder.
    fs::create_dir(folder.path().join("journal-only")).unwrap();
    copy_folder(&copy.join("journal"), &folder.path().join("journal-only/journal"));
    assert!(notes(&folder.path().join("journal-only")).contains(&OpenNote::Copied));
    assert_eq!(notes(&data), [], "the original");
}

#[test]
fn damage_to_one_file_of_the_identity_is_no_copy_and_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = store_and_copy(folder.path());
    for name in IDENTITIES {
        let length = fs::read(data.join(name)).unwrap().len();
        for at in 0..length {
            let mut bytes = fs::read(data.join(name)).unwrap();
            bytes[at] ^= 1;
            fs::write(data.join(name), bytes).unwrap();
            assert_eq!(notes(&data), [OpenNote::IdentityRepaired], "byte {at} of {name}");
        }
        fs::remove_file(data.join(name)).unwrap();
        assert_eq!(notes(&data), [OpenNote::IdentityRepaired], "without {name}");
        assert_eq!(notes(&data), []);
    }
}

#[test]
fn a_store_of_another_machine_is_a_copy_unless_one_of_them_has_no_id() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = store_and_copy(folder.path());
    let is_named = |path: &Path| !fs::read_to_string(path).unwrap().contains("machine unknown");
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    for (id, expected) in [("unknown", false), ("00000000", !machine.trim().is_empty())] {
        for path in IDENTITIES.map(|name| data.join(name)) {
            assert_eq!(is_named(&path), !machine.trim().is_empty());
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with("checksum "));
            let lines = lines.map(|line| match line.strip_prefix("machine ") {
                Some(_) => format!("machine {id}\n"),
                None => format!("{line}\n"),
            });
            let lines: String = lines.collect();
            fs::write(&path, format!("{lines}checksum {:08x}\n", crc32c::crc32c(lines.as_bytes()))).unwrap();
        }
        assert_eq!(notes(&data).contains(&OpenNote::Copied), expected, "{id}");
    }
}

#[test]
fn a_store_that_moves_or_changes_its_owner_and_mode_stays_the_original() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = store_and_copy(folder.path());
    let moved = folder.path().join("moved");
    fs::rename(&data, &moved).unwrap();
    for name in IDENTITIES {
        fs::set_permissions(moved.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        chown(moved.join(name), Some(rustix::process::getuid().as_raw()), None).unwrap();
    }
    assert_eq!(notes(&moved), []);
}

#[test]
fn a_store_that_was_found_to_be_older_asks_at_each_start_until_it_is_decided() {
    for epoch in [RestoredEpoch::Same, RestoredEpoch::New] {
        let folder = tempfile::tempdir().unwrap();
        let (data, _) = store_and_copy(folder.path());
        let (mut writer, reader) = open(&data);
        reader.mark_copied().unwrap();
        record(&mut writer, "second");
        writer.close().unwrap();
        drop(reader);
        assert_eq!(notes(&data), [OpenNote::Copied]);
        assert_eq!(notes(&data), [OpenNote::Copied]);
        restore_in_place(&data, epoch).unwrap();
        assert!(!notes(&data).contains(&OpenNote::Copied));
    }
}

#[test]
fn a_journal_that_another_program_has_changed_ends_the_writer_before_it_announces_more() {
    let change = |change: fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (mut writer, reader) = open(&data);
        record(&mut writer, "first");
        change(&data);
        let error = writer.append(vec![visit(&source("a"), vec![item("second", 1)], 2000)]).unwrap_err();
        assert_eq!(reader.head().0, 1, "nothing is announced that no start finds");
        assert!(writer.check().is_err());
        error.to_string()
    };
    let segment = |data: &Path| data.join("journal/00000001.segment");
    let all_files_are_gone = change(|data| fs::remove_dir_all(data).unwrap());
    assert!(all_files_are_gone.contains("has removed"), "{all_files_are_gone}");
    for how in [
        change(|data| fs::rename(data, data.with_file_name("moved")).unwrap()),
        change(|data| fs::remove_file(data.join("journal/00000001.segment")).unwrap()),
    ] {
        assert!(how.contains("has removed") && how.contains("00000001.segment"), "{how}");
    }
    for length in [0, 100] {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(folder.path());
        record(&mut writer, "first");
        fs::File::options().write(true).open(segment(folder.path())).unwrap().set_len(length).unwrap();
        let error = writer.retain(None).unwrap_err().to_string();
        assert!(error.contains("has written to or cut"), "{error}");
    }
    let replaced = change(|data| {
        let path = data.join("journal/00000001.segment");
        fs::copy(&path, path.with_extension("copy")).unwrap();
        fs::rename(path.with_extension("copy"), path).unwrap();
    });
    assert!(replaced.contains("has replaced"), "{replaced}");
}
