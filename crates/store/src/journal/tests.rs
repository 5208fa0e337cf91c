//! The bytes of the journal: what a wrong bit and a cut cost, and that they are those of the files in `tests/golden`.

use std::{collections::HashSet, path::Path};

use news::{Epoch, EventKind, Seq, SourceId, Timestamp};

use crate::{
    record as values,
    totals::{EventTotals, OwnerTotals},
};

use super::{
    record::{
        BadSegment, CommitRecord, NewRecordEvent, Operation, RECORD_HEADER, RECORD_MAGIC, RecordHeader,
        SEGMENT_HEADER, SegmentHeader,
    },
    segment::{
        FoundRecord, Records, Segment, add_totals, decode_index, encode_index, number_of, segment_name,
    },
};

fn id(name: &str) -> SourceId {
    SourceId::try_new(name).unwrap()
}

fn event(owner: &str, seq: u64, text: &str) -> NewRecordEvent {
    let recorded = Timestamp::from_millis(1_700_000_000_000 + seq.cast_signed());
    let json = format!("{{\"id\":\"k3v9q2-{seq}\",\"source\":\"{owner}\",\"title\":\"{text}\"}}");
    let sealed = values::seal_event(EventKind::Item, recorded, &json);
    NewRecordEvent { owner: id(owner), recorded, sealed }
}

fn commit(number: u64, first: u64, events: Vec<NewRecordEvent>) -> CommitRecord {
    let operations = vec![
        Operation { key: b"sbbc".to_vec(), value: Some(values::seal(&[b"{\"etag\":\"a\"}"])) },
        Operation { key: b"wbbc".to_vec(), value: None },
        Operation { key: b"mhosts".to_vec(), value: Some(Vec::new()) },
    ];
    CommitRecord { number, first: Seq(first), oldest: Seq(1), events, operations }
}

fn three_events() -> CommitRecord {
    commit(7, 41, vec![event("bbc", 41, "one"), event("bbc", 42, "two"), event("le-monde", 43, "three")])
}

/// What is read of a record: its events, by their numbers, as far as they are whole, and its operations if they are.
type ReadRecord = (Vec<(u64, Vec<u8>)>, Option<Vec<Operation>>);

/// `None` if these are not the bytes of a record.
fn read(bytes: &[u8]) -> Option<ReadRecord> {
    let Some(FoundRecord::Record(at, header)) = Records::new(bytes, 0).next() else { return None };
    let part = |from: u64, length: u64| {
        let from = at + usize::try_from(from).unwrap();
        &bytes[from..from + usize::try_from(length).unwrap()]
    };
    let table = header.table(part(RECORD_HEADER as u64, header.table_length.into())).unwrap_or_default();
    let mut place = header.events_at();
    let mut events = Vec::new();
    for (n, event) in table.events.iter().enumerate() {
        let sealed = part(place, event.length.into());
        place += u64::from(event.length);
        if values::unseal_event(sealed).is_ok() {
            events.push((header.first.0 + n as u64, sealed.to_vec()));
        }
    }
    Some((events, header.operations(part(header.operations_at(), header.operations_length()))))
}

#[test]
fn a_record_is_read_as_written() {
    for record in [
        three_events(),
        commit(1, 1, Vec::new()),
        CommitRecord { operations: Vec::new(), ..three_events() },
        commit(3, 9, vec![event("bbc", 9, &"long ".repeat(20_000))]),
    ] {
        let (header, table, bytes) = record.encode().unwrap();
        let (events, operations) = read(&bytes).unwrap();
        let expected: Vec<_> =
            (record.first.0..).zip(record.events.iter().map(|event| event.sealed.clone())).collect();
        assert_eq!((events, operations), (expected, Some(record.operations.clone())));
        let of_table =
            |n: usize| (&table.owners[usize::from(table.events[n].owner)], table.events[n].recorded);
        for (n, event) in record.events.iter().enumerate() {
            assert_eq!(of_table(n), (&event.owner, event.recorded));
        }
        assert_eq!(header.whole_length(), bytes.len() as u64);
        assert_eq!(
            (header.commit, header.first, header.oldest),
            (record.number, record.first, record.oldest)
        );
    }
}

#[test]
fn a_wrong_bit_costs_one_event_or_what_the_record_has_beside_them_or_the_record() {
    let record = three_events();
    let (header, _, bytes) = record.encode().unwrap();
    let (whole, operations) = read(&bytes).unwrap();
    let place = |at: u64| usize::try_from(at).unwrap() * 8;
    let (events_at, operations_at) = (place(header.events_at()), place(header.operations_at()));
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let found = read(&bad);
        if bit < RECORD_HEADER * 8 {
            assert_eq!(found, None, "bit {bit} of the header");
            continue;
        }
        let (events, found_operations) = found.unwrap();
        assert!(events.iter().all(|event| whole.contains(event)), "bit {bit}: a wrong event");
        let lost = whole.len() - events.len();
        match bit {
            bit if bit < events_at => assert_eq!((lost, found_operations), (3, operations.clone()), "{bit}"),
            bit if bit < operations_at => {
                assert_eq!((lost, found_operations), (1, operations.clone()), "{bit}")
            }
            _ => assert_eq!((lost, found_operations), (0, None), "{bit}"),
        }
    }
}

#[test]
fn a_record_that_is_cut_is_none() {
    let (_, _, bytes) = three_events().encode().unwrap();
    for cut in 0..bytes.len() {
        assert_eq!(read(&bytes[..cut]), None, "cut at {cut}");
        let last = Records::new(&bytes[..cut], 0).last();
        assert_eq!(last, (cut > 0).then_some(FoundRecord::Tail(0)), "cut at {cut}");
    }
}

/// Records of one to five events.
fn segment(records: u64) -> (Vec<u8>, Vec<(usize, RecordHeader)>) {
    let head = SegmentHeader { epoch: epoch(), number: 1, commit: 1, first: Seq(1) };
    let mut bytes = head.encode().to_vec();
    let mut places = Vec::new();
    let mut next = 1;
    for number in 1..=records {
        let events: Vec<_> = (0..number % 5).map(|n| event("bbc", next + n, "a title")).collect();
        let (header, _, record) = commit(number, next, events).encode().unwrap();
        places.push((bytes.len(), header));
        bytes.extend_from_slice(&record);
        next = header.next_event().0;
    }
    (bytes, places)
}

fn epoch() -> Epoch {
    Epoch::try_new("k3v9q2").unwrap()
}

fn records(bytes: &[u8]) -> Vec<(usize, RecordHeader)> {
    let found = Records::new(bytes, SEGMENT_HEADER as u64).filter_map(|found| match found {
        FoundRecord::Record(at, header) => Some((at, header)),
        FoundRecord::Damage | FoundRecord::Tail(_) => None,
    });
    found.collect()
}

#[test]
fn behind_any_damage_all_other_records_are_found() {
    let (bytes, places) = segment(12);
    assert_eq!(records(&bytes), places);
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..3000 {
        let mut bad = bytes.clone();
        let from = random.usize(SEGMENT_HEADER..bytes.len());
        let to = (from + [1, 8, 100, 600][round % 4]).min(bytes.len());
        let is_zero = random.bool();
        bad[from..to].fill_with(|| if is_zero { 0 } else { random.u8(..) });
        let is_whole = |(at, _): &&(usize, RecordHeader)| {
            let header = *at..at + RECORD_HEADER;
            bad[header.clone()] == bytes[header]
        };
        let whole: Vec<_> = places.iter().filter(is_whole).copied().collect();
        assert_eq!(records(&bad), whole, "bytes {from} to {to}");
    }
}

#[test]
fn the_bytes_of_a_record_in_the_text_of_an_item_are_no_record() {
    // An event is valid UTF-8, and the first byte of a record cannot be before its second one there.
    assert!(std::str::from_utf8(&RECORD_MAGIC).is_err());
    let (_, _, inner) = commit(8, 44, vec![event("evil", 44, "forged")]).encode().unwrap();
    let text = String::from_utf8_lossy(&inner).into_owned();
    let (_, _, mut outer) = commit(7, 41, vec![event("bbc", 41, &text)]).encode().unwrap();
    outer[8] ^= 1;
    let (_, _, after) = commit(9, 45, vec![event("bbc", 45, "after")]).encode().unwrap();
    let at = outer.len();
    let bytes = [outer, after].concat();
    let found: Vec<_> = Records::new(&bytes, 0).collect();
    assert!(
        matches!(found[..], [FoundRecord::Damage, FoundRecord::Record(place, _)] if place == at),
        "{found:?}"
    );
}

#[test]
fn a_header_of_a_segment_is_read_as_written_and_any_wrong_bit_is_noticed() {
    for name in ["a", "k3v9q2", "abcdefghij012345"] {
        let epoch = Epoch::try_new(name).unwrap();
        let header = SegmentHeader { epoch, number: 3, commit: 70, first: Seq(u64::MAX) };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), Err(BadSegment::Header), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(SegmentHeader::decode(&bytes[..cut]), Err(BadSegment::Header), "cut at {cut}");
        }
    }
}

#[test]
fn a_segment_of_a_later_layout_is_told_from_a_damaged_one() {
    let header = SegmentHeader { epoch: epoch(), number: 1, commit: 1, first: Seq(1) };
    let mut bytes = header.encode();
    bytes[16] = 2;
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&bytes), Err(BadSegment::Layout(2)));
}

fn indexed() -> (Segment, OwnerTotals) {
    let (bytes, places) = segment(12);
    let mut segment = Segment::empty(1, 1, Seq(1));
    let mut totals = OwnerTotals::new();
    for (at, header) in places {
        segment.add(at as u64, header);
        let table = at + RECORD_HEADER..at + usize::try_from(header.events_at()).unwrap();
        add_totals(&mut totals, &header.table(&bytes[table]).unwrap());
    }
    totals.insert(77, EventTotals { events: 1, bytes: 2 });
    (segment, totals)
}

#[test]
fn an_index_is_read_as_written_and_any_wrong_bit_or_cut_is_noticed() {
    let (segment, totals) = indexed();
    let bytes = encode_index(&segment, &totals);
    assert_eq!(decode_index(1, &bytes), Some((segment, totals)));
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_index(1, &bad), None, "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert_eq!(decode_index(1, &bytes[..cut]), None, "cut at {cut}");
    }
}

#[test]
fn only_names_of_segments_are_taken_for_segments() {
    for number in [1, 99_999_999, 100_000_000, u64::MAX] {
        assert_eq!(number_of(&segment_name(number)), Some(number));
    }
    let others = ["1.segment", "0000000a.segment", "00000001.index", "00000001.segment~", "+0000001.segment"];
    for name in others.into_iter().chain(["99999999999999999999999.segment", ".segment"]) {
        assert_eq!(number_of(name), None, "{name}");
    }
    assert_eq!(HashSet::from([segment_name(1), segment_name(2)]).len(), 2);
}

/// With `NEWSWIRE_BLESS=1` the files are written anew: only for a new layout, beside the old ones.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("NEWSWIRE_BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(
        golden == bytes,
        "this version writes other bytes than those of {name}: a new layout needs a new number"
    );
    golden
}

#[test]
fn a_segment_and_its_index_have_the_bytes_that_other_versions_read_and_write() {
    let (bytes, places) = segment(12);
    assert_eq!(records(&golden("layout-1.segment", &bytes)), places);
    let (segment, totals) = indexed();
    let index = golden("layout-1.index", &encode_index(&segment, &totals));
    assert_eq!(decode_index(1, &index), Some((segment, totals)));
}

#[test]
fn the_values_in_sled_have_the_bytes_that_other_versions_read_and_write() {
    let mut seen = seen::SeenSet::default();
    let evidence = news::ItemEvidence { guid: 1, link: 2, ..news::ItemEvidence::default() };
    let item = news::Item { key: "a key".to_owned(), evidence, ..news::Item::default() };
    let empty = seen.clone();
    seen.classify(&[item], Timestamp::from_millis(1_700_000_000_000));
    let all = [
        ("epoch", values::seal_epoch("k3v9q2")),
        ("applied", values::seal_numbers([7, 41, 3, 6])),
        ("state", values::seal_state(&news::SourceState::default())),
        ("seen", values::seal_seen(&seen)),
        ("delta", values::seal(&[&seen.delta_from(&empty)])),
        ("event", values::seal_event(EventKind::Update, Timestamp::from_millis(7), "{}")),
    ];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text: String = all.iter().map(|(name, value)| format!("{name} {}\n", hex(value))).collect();
    let golden = String::from_utf8(golden("layout-4.values", text.as_bytes())).unwrap();
    let bytes_of = |name: &str| {
        let hex = golden.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        hex.as_bytes().chunks(2).map(byte).collect::<Vec<_>>()
    };
    assert_eq!(values::unseal_epoch(&bytes_of("epoch")), Ok("k3v9q2"));
    assert_eq!(values::unseal_numbers(&bytes_of("applied")), Ok([7, 41, 3, 6]));
    let state: news::SourceState =
        serde_json::from_slice(values::unseal(&bytes_of("state")).unwrap()).unwrap();
    assert_eq!(state, news::SourceState::default());
    assert_eq!(values::unseal_seen(&bytes_of("seen")).unwrap().encode(), seen.encode());
    let mut from_delta = empty;
    from_delta.apply_deltas([values::unseal(&bytes_of("delta")).unwrap()]).unwrap();
    assert_eq!(from_delta.encode(), seen.encode());
    let event = bytes_of("event");
    assert_eq!(values::unseal_event(&event), Ok((EventKind::Update, Timestamp::from_millis(7), "{}")));
}
