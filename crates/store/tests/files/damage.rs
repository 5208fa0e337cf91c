//! Damage to the files of a stopped store costs what is damaged, is told, and never the start.
//!
//! What must be lost is computed here from the layout of the journal as it is documented, not by the code under test.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use news::Seq;
use store::{OpenNote, StoreOpenError, VisitRecord};

use crate::built::{copy_folder, files, news_in, options, read_log, segments};
use crate::visits::{item, source, visit};

const SOURCES: u64 = 8;
const PER_VISIT: u64 = 5;
const ROUNDS: u64 = 75;
const EVENTS: u64 = SOURCES * PER_VISIT * ROUNDS;
const PER_SEGMENT: u64 = 512;

/// Of one source: items that no other round has.
fn round(n: u64, round: u64) -> VisitRecord {
    let items = (0..PER_VISIT).map(|k| item(&format!("{n}/{round}/{k}"), 1)).collect();
    visit(&source(&format!("source-{n}")), items, (round * 1000 + n).cast_signed())
}

/// A store that was closed, and what it has.
struct Original {
    folder: tempfile::TempDir,
    epoch: news::Epoch,
    events: BTreeMap<u64, String>,
    places: BTreeMap<PathBuf, Vec<RecordPlaces>>,
}

/// Where the parts of a record are in its file.
struct RecordPlaces {
    /// The header and the table.
    head: Range<usize>,
    events: Vec<(u64, Range<usize>)>,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(number)
}

/// As the head of `journal.rs` documents it.
fn places(bytes: &[u8]) -> Vec<RecordPlaces> {
    let mut at = 64;
    let mut places = Vec::new();
    while at < bytes.len() {
        assert_eq!(bytes[at..at + 4], *b"\xf1NWR");
        let length = usize::try_from(number::<4>(bytes, at + 4)).unwrap();
        let (first, count) = (number::<8>(bytes, at + 16), number::<4>(bytes, at + 32));
        let table_end = at + 64 + usize::try_from(number::<4>(bytes, at + 40)).unwrap();
        let mut event_at = table_end;
        let lengths = table_end - 14 * usize::try_from(count).unwrap();
        let event = |(n, seq): (usize, u64)| {
            let from = event_at;
            event_at += usize::try_from(number::<4>(bytes, lengths + 14 * n)).unwrap();
            (seq, from..event_at)
        };
        let events = (first..first + count).enumerate().map(event).collect();
        places.push(RecordPlaces { head: at..table_end, events });
        at += 64 + length;
    }
    places
}

fn original() -> Original {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = store::open(folder.path(), &options(PER_SEGMENT)).unwrap();
    for n in 0..ROUNDS {
        for source in 0..SOURCES {
            writer.append(vec![round(source, n)]).unwrap();
        }
    }
    let (epoch, log) = (reader.epoch().clone(), read_log(&reader));
    assert_eq!((log.events.len() as u64, log.missed), (EVENTS, 0));
    writer.close().unwrap();
    drop(reader);
    let of_file = |path: PathBuf| {
        let places = places(&fs::read(&path).unwrap());
        (path.strip_prefix(folder.path()).unwrap().to_owned(), places)
    };
    let places: BTreeMap<_, _> = segments(folder.path()).into_iter().map(of_file).collect();
    assert_eq!(places.values().flatten().flat_map(|record| &record.events).count() as u64, EVENTS);
    Original { folder, epoch, events: log.events, places }
}

impl Original {
    /// The events that are gone if a file has become this; all of its events without it.
    fn lost(&self, file: &Path, now: Option<&[u8]>) -> BTreeSet<u64> {
        let Some(places) = self.places.get(file) else { return BTreeSet::new() };
        let before = fs::read(self.folder.path().join(file)).unwrap();
        let is_whole = |range: &Range<usize>| {
            now.is_some_and(|now| now.get(range.clone()) == Some(&before[range.clone()]))
        };
        // A record is whole only with its last byte.
        let mut lost = BTreeSet::new();
        for (n, record) in places.iter().enumerate() {
            let end = places.get(n + 1).map_or(before.len(), |next| next.head.start);
            let is_cut = now.is_none_or(|now| now.len() < end);
            for (seq, range) in &record.events {
                if is_cut || !is_whole(&record.head) || !is_whole(range) {
                    lost.insert(*seq);
                }
            }
        }
        lost
    }

    /// Opens a copy of which one file was changed, and reads and appends.
    fn check(&self, file: &Path, damage: impl FnOnce(&mut Vec<u8>) -> bool, what: &str) -> Outcome {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), copy.path());
        let path = copy.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let is_there = damage(&mut bytes);
        if is_there {
            fs::write(&path, &bytes).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        let lost = self.lost(file, is_there.then_some(&bytes[..]));
        let what = format!("{what} of {}", file.display());
        self.check_folder(copy.path(), &lost, &what)
    }

    fn check_folder(&self, folder: &Path, lost: &BTreeSet<u64>, what: &str) -> Outcome {
        let (mut writer, reader) = store::open(folder, &options(PER_SEGMENT)).unwrap_or_else(|error| {
            panic!("{what}: refused: {error}");
        });
        assert_eq!((reader.epoch(), reader.head()), (&self.epoch, Seq(EVENTS)), "{what}");
        let log = read_log(&reader);
        let found: BTreeSet<_> =
            self.events.keys().filter(|seq| !log.events.contains_key(seq)).copied().collect();
        assert_eq!(&found, lost, "{what}: the events that are missing");
        assert_eq!(log.missed, lost.len() as u64, "{what}: told to a reader");
        for (seq, json) in &log.events {
            assert!(self.events.get(seq) == Some(json), "{what}: {seq} is not what was written");
        }
        let of_end = |note: &OpenNote| match note {
            OpenNote::EndLost { first, count } => first.0..first.0 + count,
            _ => 0..0,
        };
        let mut told: BTreeSet<_> = reader.notes().iter().flat_map(of_end).collect();
        told.extend(
            reader.take_damage().iter().flat_map(|damage| damage.first.0..damage.first.0 + damage.count),
        );
        assert_eq!(&told, lost, "{what}: told to the operator");
        let known = (0..SOURCES).map(|n| round(n, ROUNDS - 1)).chain((0..SOURCES).map(|n| round(n, 0)));
        assert_eq!(news_in(&mut writer, known.collect()), 0, "{what}: known items come twice");
        let next = writer.append(vec![round(0, ROUNDS)]).unwrap();
        assert_eq!((next[0].new, next[0].first), (5, Some(Seq(EVENTS + 1))), "{what}: the next number");
        let notes = reader.notes().to_vec();
        writer.close().unwrap();
        drop(reader);
        let (_writer, reader) = store::open(folder, &options(PER_SEGMENT)).unwrap();
        let again = read_log(&reader);
        assert_eq!(again.missed, lost.len() as u64, "{what}: after one more start");
        assert_eq!(again.events.len() as u64, EVENTS + PER_VISIT - lost.len() as u64, "{what}");
        Outcome { lost: lost.len(), notes }
    }
}

struct Outcome {
    lost: usize,
    notes: Vec<OpenNote>,
}

impl Outcome {
    fn is_rebuilt(&self) -> bool {
        self.notes.iter().any(|note| matches!(note, OpenNote::Rebuilt { .. }))
    }
}

fn relative(original: &Original) -> Vec<(PathBuf, usize)> {
    let folder = original.folder.path();
    let with_length = |path: PathBuf| {
        let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
        (path.strip_prefix(folder).unwrap().to_owned(), length)
    };
    files(folder).into_iter().map(with_length).filter(|(path, _)| path != Path::new("lock")).collect()
}

/// A random place in all files, each byte as likely as any other; every second one in the journal.
fn random_place(files: &[(PathBuf, usize)], n: u64, random: &mut fastrand::Rng) -> (PathBuf, usize) {
    let files: Vec<_> =
        files.iter().filter(|(path, _)| n.is_multiple_of(2) || path.starts_with("journal")).collect();
    let sum: usize = files.iter().map(|(_, length)| length).sum();
    let mut at = random.usize(..sum);
    for (path, length) in files {
        if at < *length {
            return (path.clone(), at);
        }
        at -= length;
    }
    unreachable!("it is less than the sum")
}

fn go_through(cases: u64, seed: u64, what: &str, damage: impl Fn(&mut Vec<u8>, usize)) {
    let original = original();
    let files = relative(&original);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut lost, mut rebuilt) = (0, 0);
    for n in 0..cases {
        let (file, at) = random_place(&files, n, &mut random);
        let apply = |bytes: &mut Vec<u8>| {
            damage(bytes, at);
            true
        };
        let outcome = original.check(&file, apply, &format!("{what} at {at}"));
        lost += outcome.lost;
        rebuilt += usize::from(outcome.is_rebuilt());
    }
    println!("{what}: {cases} cases, {lost} of {} events lost, {rebuilt} times made again", EVENTS * cases);
}

#[test]
fn a_wrong_bit_costs_what_it_is_in_and_is_told() {
    go_through(100, 1, "a wrong bit", |bytes, at| bytes[at] ^= 1 << (at % 8));
}

#[test]
fn a_cut_costs_what_is_behind_it_in_its_file_and_is_told() {
    go_through(20, 2, "a cut", |bytes, at| bytes.truncate(at));
}

#[test]
fn a_block_of_zeros_costs_what_it_is_in_and_is_told() {
    go_through(10, 3, "a block of zeros", |bytes, at| {
        let from = at / 4096 * 4096;
        let end = (from + 4096).min(bytes.len());
        bytes[from..end].fill(0);
    });
}

#[test]
fn each_file_may_be_missing_and_costs_its_own_events() {
    let original = original();
    for (file, _) in relative(&original) {
        let outcome = original.check(&file, |_| false, "the absence");
        let is_segment = file.extension().is_some_and(|extension| extension == "segment");
        assert_eq!(outcome.lost > 0, is_segment, "{}", file.display());
    }
}

#[test]
fn any_damage_of_the_heads_of_segments_and_of_last_records_is_survived() {
    let original = original();
    let files: Vec<_> = original.places.keys().cloned().collect();
    for file in [&files[0], &files[2], &files[files.len() - 1]] {
        for at in [0, 16, 25, 40, 50, 59, 63] {
            let flip = |bytes: &mut Vec<u8>| {
                bytes[at] ^= 4;
                true
            };
            assert_eq!(original.check(file, flip, &format!("a wrong bit at {at}")).lost, 0);
        }
        let records = &original.places[file];
        for record in [&records[0], &records[records.len() - 1]] {
            let at = record.head.start + 9;
            let flip = |bytes: &mut Vec<u8>| {
                bytes[at] ^= 4;
                true
            };
            assert_eq!(original.check(file, flip, &format!("a wrong bit at {at}")).lost, 5);
        }
    }
}

#[test]
fn what_is_behind_the_last_record_is_not_read() {
    let original = original();
    let files: Vec<_> = original.places.keys().cloned().collect();
    let record = fs::read(original.folder.path().join(&files[0])).unwrap()[64..3000].to_vec();
    for garbage in [vec![0; 5000], vec![0xf1; 70], record, b"\xf1NWR".to_vec()] {
        for file in [&files[0], &files[files.len() - 1]] {
            let append = |bytes: &mut Vec<u8>| {
                bytes.extend_from_slice(&garbage);
                true
            };
            assert_eq!(original.check(file, append, "garbage at the end").lost, 0);
        }
    }
    let last = &files[files.len() - 1];
    let empty = |bytes: &mut Vec<u8>| {
        bytes.clear();
        true
    };
    assert!(original.check(last, empty, "the emptying").lost > 0);
}

#[test]
fn without_a_journal_a_start_is_refused_and_changes_nothing_until_the_loss_is_accepted() {
    let original = original();
    for without_identity in [false, true] {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(original.folder.path(), copy.path());
        fs::remove_dir_all(copy.path().join("journal")).unwrap();
        if without_identity {
            fs::remove_file(copy.path().join("identity")).unwrap();
            fs::remove_file(copy.path().join("identity.2")).unwrap();
        }
        for _ in 0..2 {
            let error = store::open(copy.path(), &options(PER_SEGMENT)).unwrap_err();
            assert!(matches!(error, StoreOpenError::Lost { .. }), "{error}");
            assert!(error.to_string().contains("--accept-loss"), "{error}");
        }
        let accepted = store::StoreOptions { accept_loss: true, ..options(PER_SEGMENT) };
        let (mut writer, reader) = store::open(copy.path(), &accepted).unwrap();
        assert_ne!(reader.epoch(), &original.epoch);
        assert_eq!((reader.oldest(), reader.head()), (Seq(1), Seq::NONE));
        assert!(reader.notes().contains(&OpenNote::NewEpoch), "{:?}", reader.notes());
        let known = (0..SOURCES).map(|n| round(n, ROUNDS - 1)).collect();
        assert_eq!(news_in(&mut writer, known), 0, "sled has the keys");
        assert_eq!(writer.append(vec![round(0, ROUNDS)]).unwrap()[0].first, Some(Seq(1)));
        let epoch = reader.epoch().clone();
        drop((writer, reader));
        fs::remove_dir_all(copy.path().join("log.sled")).unwrap();
        let (mut writer, reader) = store::open(copy.path(), &options(PER_SEGMENT)).unwrap();
        assert_eq!((reader.epoch(), reader.head()), (&epoch, Seq(5)));
        let known = (0..SOURCES).map(|n| round(n, ROUNDS - 1)).collect();
        assert_eq!(news_in(&mut writer, known), 0, "and the new journal has them, too");
    }
}

#[test]
fn a_journal_alone_in_which_nothing_can_be_read_is_never_taken_for_a_new_one_and_stays_for_salvage() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let (mut writer, _) = store::open(dir.path(), &options(PER_SEGMENT)).unwrap();
    writer.append(vec![round(0, 0)]).unwrap();
    writer.close().unwrap();
    for others in ["identity", "log.sled", "lock"] {
        let path = dir.path().join(others);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    let file = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[..130].fill(0);
    fs::write(&file, &bytes).unwrap();
    let error = store::open(dir.path(), &options(PER_SEGMENT)).unwrap_err();
    assert!(matches!(error, StoreOpenError::Lost { .. }), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "a refused start changes nothing");
    let accepted = store::StoreOptions { accept_loss: true, ..options(PER_SEGMENT) };
    drop(store::open(dir.path(), &accepted).unwrap());
    assert_eq!(fs::read(journal.join("00000001.damaged")).unwrap(), bytes);
    let mut salvaged = 0;
    store::tools::salvage(dir.path(), |_| {
        salvaged += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(salvaged, PER_VISIT);
}

#[test]
fn a_last_segment_in_which_nothing_can_be_read_stays_for_salvage() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = store::open(dir.path(), &options(PER_SEGMENT)).unwrap();
    for n in 0..ROUNDS {
        writer.append(vec![round(0, n), round(1, n)]).unwrap();
    }
    writer.close().unwrap();
    let files = segments(dir.path());
    let last = files.last().unwrap();
    let mut bytes = fs::read(last).unwrap();
    for at in places(&bytes).iter().map(|record| record.head.start).chain([0]) {
        bytes[at] ^= 1;
    }
    fs::write(last, &bytes).unwrap();
    let (_writer, reader) = store::open(dir.path(), &options(PER_SEGMENT)).unwrap();
    assert!(
        reader.notes().iter().any(|note| matches!(note, OpenNote::EndLost { .. })),
        "{:?}",
        reader.notes()
    );
    assert_eq!(reader.head(), Seq(2 * PER_VISIT * ROUNDS));
    assert_eq!(fs::read(last.with_extension("damaged")).unwrap(), bytes);
}

#[test]
fn a_segment_of_another_log_is_refused_by_name() {
    let original = original();
    let other = tempfile::tempdir().unwrap();
    let (mut writer, reader) = store::open(other.path(), &options(PER_SEGMENT)).unwrap();
    writer.append(vec![round(0, 0)]).unwrap();
    let names = [reader.epoch().clone(), original.epoch.clone()];
    let copy = tempfile::tempdir().unwrap();
    copy_folder(original.folder.path(), copy.path());
    fs::copy(&segments(other.path())[0], &segments(copy.path())[1]).unwrap();
    let error = store::open(copy.path(), &options(PER_SEGMENT)).unwrap_err().to_string();
    assert!(names.iter().all(|name| error.contains(name.as_str())), "{error}");
    // What the start found is as it was.
    fs::copy(&segments(original.folder.path())[1], &segments(copy.path())[1]).unwrap();
    original.check_folder(copy.path(), &BTreeSet::new(), "put right again");
}

/// Exchanges the names of two files.
fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(aside, other).unwrap();
}

#[test]
fn a_segment_under_the_name_of_another_one_is_refused_by_name_and_costs_nothing_once_it_is_put_right() {
    let original = original();
    let copy = tempfile::tempdir().unwrap();
    copy_folder(original.folder.path(), copy.path());
    let all = segments(copy.path());
    let (first, second, last) = (&all[0], &all[1], &all[all.len() - 1]);
    let beyond = |number: u64| copy.path().join(format!("journal/{number:08}.segment"));
    let refused = |names: [&Path; 2]| {
        let opened = store::open(copy.path(), &options(PER_SEGMENT)).unwrap_err().to_string();
        let surveyed = store::tools::survey(copy.path()).unwrap_err().to_string();
        for error in [opened, surveyed] {
            let has = |name: &&Path| error.contains(name.file_name().unwrap().to_str().unwrap());
            assert!(names.iter().all(has), "{error}");
        }
    };
    swap(first, second);
    refused([first, second]);
    swap(first, second);
    swap(second, last);
    refused([second, last]);
    swap(second, last);
    fs::rename(last, beyond(u64::MAX)).unwrap();
    refused([&beyond(u64::MAX), last]);
    fs::rename(beyond(u64::MAX), last).unwrap();
    // Other files are not the journal's, and the index of another segment is not believed.
    for name in ["000000001.segment", "00000001.segment.bak", "copy of 00000001.segment", "+0000001.segment"]
    {
        fs::copy(first, first.with_file_name(name)).unwrap();
    }
    swap(&first.with_extension("index"), &second.with_extension("index"));
    original.check_folder(copy.path(), &BTreeSet::new(), "put right again");
}

#[test]
fn a_last_record_that_came_to_the_disk_in_part_was_never_announced_and_its_items_come_again() {
    let original = original();
    let folder = original.folder.path();
    let before = tempfile::tempdir().unwrap();
    copy_folder(&folder.join("log.sled"), before.path());
    let (mut writer, _) = store::open(folder, &options(PER_SEGMENT)).unwrap();
    assert_eq!(news_in(&mut writer, vec![round(0, ROUNDS)]), 5);
    writer.close().unwrap();
    let file = segments(folder).pop().unwrap();
    let bytes = fs::read(&file).unwrap();
    let last = places(&bytes).pop().unwrap();
    let operations = last.events[4].1.end..bytes.len();
    for part in [last.head.end - 20..last.head.end, last.events[2].1.clone(), operations.clone()] {
        for is_announced in [false, true] {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(folder, copy.path());
            if !is_announced {
                fs::remove_dir_all(copy.path().join("log.sled")).unwrap();
                copy_folder(before.path(), &copy.path().join("log.sled"));
            }
            let mut bad = bytes.clone();
            bad[part.clone()].fill(0);
            fs::write(segments(copy.path()).pop().unwrap(), bad).unwrap();
            let (mut writer, reader) = store::open(copy.path(), &options(PER_SEGMENT)).unwrap();
            let log = read_log(&reader);
            if is_announced {
                assert_eq!((reader.head().0, news_in(&mut writer, vec![round(0, ROUNDS)])), (EVENTS + 5, 0));
                continue;
            }
            assert_eq!((reader.head().0, log.missed), (EVENTS, 0), "{part:?}");
            let removed = (operations.end - last.head.start) as u64;
            assert_eq!(
                reader.notes(),
                [OpenNote::EndUnfinished { bytes: removed }, OpenNote::Copied],
                "{part:?}"
            );
            assert_eq!(reader.take_damage(), []);
            let again = writer.append(vec![round(0, ROUNDS)]).unwrap();
            assert_eq!((again[0].new, again[0].first), (5, Some(Seq(EVENTS + 1))), "{part:?}");
            assert_eq!(read_log(&reader).events.len() as u64, EVENTS + 5);
        }
    }
}
