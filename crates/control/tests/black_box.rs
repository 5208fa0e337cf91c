//! The file of a black box: what is written is read back, and damage costs the record that it hits.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use control::black_box::{
    BlackBoxContents, BlackBoxError, BlackBoxEvent, BlackBoxHeader, BlackBoxPulse, BlackBoxRing, FORMAT,
    layout::{BlackBoxWrite, RECORD_BYTES_MAX, RING_AT, RING_BYTES_MIN},
};
use proptest::prelude::*;

/// A file and the ring of the run that writes it.
struct Written {
    directory: tempfile::TempDir,
    file: std::fs::File,
    header: BlackBoxHeader,
    ring: BlackBoxRing,
}

impl Written {
    fn new() -> Self {
        let header = BlackBoxHeader {
            format: FORMAT,
            program: "newswire-gateway".into(),
            version: "1.2.3".into(),
            pid: 7,
            started_wall_ms: 1_000,
            started_boot_ms: 10,
            boot_id: "b".into(),
            run: 42,
            ring_bytes: RING_BYTES_MIN,
            ready: true,
        };
        let directory = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(directory.path().join("box")).unwrap();
        file.set_len(RING_AT + header.ring_bytes).unwrap();
        let ring = BlackBoxRing::new(&header);
        let written = Self { directory, file, header, ring };
        written.write_header();
        written
    }

    fn write_header(&self) {
        BlackBoxRing::header(&self.header).iter().for_each(|copy| self.write(copy));
    }

    fn write(&self, write: &BlackBoxWrite) {
        self.file.write_all_at(&write.bytes, write.offset).unwrap();
    }

    /// Writes a line of the log; returns where it is.
    fn log(&mut self, text: &str) -> BlackBoxWrite {
        let event = BlackBoxEvent::Log { level: "INFO".into(), text: text.into() };
        let write = self.ring.record(2_000, 20, &event).unwrap();
        self.write(&write);
        write
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("box")
    }

    fn read(&self) -> BlackBoxContents {
        BlackBoxContents::read(&self.path()).unwrap()
    }

    fn texts(&self) -> Vec<String> {
        let text = |event| match event {
            BlackBoxEvent::Log { text, .. } => text.to_string(),
            other => panic!("{other:?}"),
        };
        self.read().records.into_iter().map(|record| text(record.event)).collect()
    }
}

#[test]
fn a_full_ring_keeps_the_newest_records_and_its_size() {
    let mut written = Written::new();
    for n in 0..5_000 {
        written.log(&format!("line {n}"));
    }
    let contents = written.read();
    assert_eq!((contents.header, contents.damaged), (written.header.clone(), 0));
    let first = contents.records[0].seq;
    assert!(first > 0, "the oldest are overwritten");
    let expected: Vec<_> = (first..5_000).map(|n| format!("line {n}")).collect();
    assert_eq!(written.texts(), expected);
    assert!(expected.len() > 500, "the ring is used: {}", expected.len());
    assert_eq!(written.file.metadata().unwrap().len(), RING_AT + RING_BYTES_MIN);
}

#[test]
fn a_torn_record_is_left_out_and_counted_and_its_neighbours_are_read() {
    let mut written = Written::new();
    let places = ["one", "two", "three"].map(|text| written.log(text));
    // The process was killed, or the machine went down, in the middle of the write.
    let torn = &places[1];
    written
        .file
        .write_all_at(&vec![0; torn.bytes.len() / 2], torn.offset + torn.bytes.len() as u64 / 2)
        .unwrap();
    assert_eq!(written.texts(), ["one", "three"]);
    assert_eq!(written.read().damaged, 1);
}

#[test]
fn one_copy_of_the_header_is_enough_and_the_newest_pulse_that_is_whole_counts() {
    let mut written = Written::new();
    for boot_ms in [100, 200] {
        let pulse = BlackBoxPulse { boot_ms, wall_ms: 5, ..BlackBoxPulse::default() };
        let write = written.ring.pulse(&pulse);
        written.write(&write);
    }
    assert_eq!(written.read().pulse.unwrap().boot_ms, 200);
    assert_eq!(written.read().last_sign(), (200, 5));
    // The first copy of the header, and the second pulse.
    written.file.write_all_at(&[0; 64], 0).unwrap();
    written.file.write_all_at(&[0; 64], 3 * 1024).unwrap();
    let contents = written.read();
    assert_eq!((contents.header.pid, contents.pulse.unwrap().boot_ms), (7, 100));
    written.file.write_all_at(&[0; 64], 1024).unwrap();
    assert!(matches!(BlackBoxContents::read(&written.path()), Err(BlackBoxError::Header { .. })));
}

#[test]
fn another_format_is_refused_with_the_version_that_reads_it_and_unknown_events_are_not() {
    let mut written = Written::new();
    let event = BlackBoxEvent::Log { level: "INFO".into(), text: "xxxxxxxx".into() };
    // As a later version may write it: an event and a field that this one does not know.
    let json = serde_json::to_string(&event).unwrap();
    assert_eq!(json, r#"{"event":"log","level":"INFO","text":"xxxxxxxx"}"#, "the names are a format");
    let later: BlackBoxEvent = serde_json::from_str(r#"{"event":"moonrise","over":"Kent"}"#).unwrap();
    assert_eq!(later, BlackBoxEvent::Unknown);
    written.log("one");
    written.header.format = FORMAT + 1;
    written.write_header();
    let error = BlackBoxContents::read(&written.path()).unwrap_err();
    assert!(matches!(error, BlackBoxError::Format { format, .. } if format == FORMAT + 1));
    assert!(error.to_string().contains("1.2.3"), "{error}");
}

#[test]
fn a_file_that_is_not_a_black_box_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "not a box").unwrap();
    let refused = |path| matches!(BlackBoxContents::read(path), Err(BlackBoxError::Header { .. }));
    assert!(refused(&text) && refused(directory.path()));
    let absent = BlackBoxContents::read(&directory.path().join("absent"));
    assert!(matches!(absent, Err(BlackBoxError::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is written, the file has the newest records in order, without a hole.
    #[test]
    fn what_was_written_last_is_read_back(lengths in prop::collection::vec(0..4_000_usize, 1..200)) {
        let mut written = Written::new();
        for (n, length) in lengths.iter().enumerate() {
            // Text that looks like the beginning of a record is not a record.
            written.log(&format!("{n} {}", "NWbr".repeat(length / 4)));
        }
        let contents = written.read();
        let seqs: Vec<_> = contents.records.iter().map(|record| record.seq).collect();
        let last = lengths.len() as u64 - 1;
        prop_assert_eq!(*seqs.last().unwrap(), last);
        let newest: Vec<_> = (0..8.min(lengths.len() as u64)).map(|back| last - back).collect();
        prop_assert!(newest.iter().all(|seq| seqs.contains(seq)), "{:?}", seqs);
        for record in contents.records {
            let length = lengths[usize::try_from(record.seq).unwrap()];
            let text = format!("{} {}", record.seq, "NWbr".repeat(length / 4));
            prop_assert_eq!(record.event, BlackBoxEvent::Log { level: "INFO".into(), text: text.into() });
        }
        prop_assert!(written.file.metadata().unwrap().len() == RING_AT + RING_BYTES_MIN);
    }

    /// Any damage of a few bytes costs the records that it hits.
    #[test]
    fn damage_costs_the_record_only(at in RING_AT..RING_AT + 8_000, byte in any::<u8>(), length in 1..4_usize) {
        let mut written = Written::new();
        let places: Vec<_> = (0..200).map(|n| written.log(&format!("line {n}"))).collect();
        written.file.write_all_at(&vec![byte; length], at).unwrap();
        let hit = |place: &BlackBoxWrite| {
            at < place.offset + place.bytes.len() as u64 && at + length as u64 > place.offset
        };
        let texts = written.texts();
        for (n, place) in places.iter().enumerate() {
            let text = format!("line {n}");
            prop_assert!(hit(place) || texts.contains(&text), "{}", text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is damaged, also lengths, and however short the file is: it is refused, or read as far as it goes.
    #[test]
    fn any_file_is_refused_or_read(
        damage in prop::collection::vec((0..RING_AT + 8_000, prop::collection::vec(any::<u8>(), 1..40)), 0..24),
        length in 0..RING_AT + RING_BYTES_MIN,
    ) {
        let mut written = Written::new();
        (0..100).for_each(|n| drop(written.log(&format!("line {n}"))));
        for (at, bytes) in &damage {
            written.file.write_all_at(bytes, *at).unwrap();
        }
        for cut in [RING_AT + RING_BYTES_MIN, length] {
            written.file.set_len(cut).unwrap();
            match BlackBoxContents::read(&written.path()) {
                Ok(contents) => prop_assert!(contents.records.len() <= 100 && contents.last_sign().0 >= 10),
                Err(error) => prop_assert!(matches!(error, BlackBoxError::Header { .. }), "{}", error),
            }
        }
    }
}

#[test]
fn a_record_that_is_too_long_is_left_out() {
    let mut written = Written::new();
    let text = "x".repeat(RECORD_BYTES_MAX);
    let event = BlackBoxEvent::Log { level: "INFO".into(), text: text.into() };
    assert_eq!(written.ring.record(0, 0, &event), None);
    written.log("one");
    assert_eq!(written.texts(), ["one"]);
}
