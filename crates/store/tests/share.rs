//! The share of a source: one that publishes much leaves the news of the others in the log, and what it has waits.
#![allow(clippy::unwrap_used)]

#[path = "support/visits.rs"]
mod visits;

use std::{path::Path, sync::Arc, time::Duration};

use news::{
    Attempt, Cursor, Event, EventKind, FloodingBound, Item, Seq, Source, SourceState, Timestamp, VisitStatus,
};
use proptest::prelude::*;
use store::{
    AppendedVisit, EventTotals, LogReader, LogWriter, Retention, SourceShare, StoreOptions, VisitRecord,
};

use visits::{all, item, source, visit};

/// A ring that nothing ever leaves.
const ENDLESS: EventTotals = EventTotals { events: u64::MAX, bytes: u64::MAX };
/// A month, in milliseconds: as long as the events of others are protected at most.
const MONTH: i64 = 30 * 86_400_000;

fn options(events: u64, bytes: u64, percent: u64, ring: EventTotals) -> StoreOptions {
    StoreOptions {
        retention: Retention { age: Duration::from_secs(365 * 86_400), events, bytes },
        share: SourceShare { percent, at_least: EventTotals { events: 1, bytes: 1 }, ring },
        ..StoreOptions::default()
    }
}

fn open(path: &Path, options: &StoreOptions) -> (LogWriter, LogReader) {
    store::open(path, options).unwrap()
}

fn items(of: &str, numbers: std::ops::Range<u32>) -> Vec<Item> {
    numbers.map(|n| item(&format!("{of}{n:03}"), 1)).collect()
}

/// A visit that found a document, of a source with this state.
fn visited(source: &Arc<Source>, items: Vec<Item>, now: i64, state: SourceState) -> VisitRecord {
    let mut record = visit(source, items, now);
    record.state = SourceState { last_status: Some(VisitStatus::New), warnings: Vec::new(), ..state };
    record
}

fn append(writer: &mut LogWriter, source: &Arc<Source>, items: Vec<Item>, now: i64) -> AppendedVisit {
    writer.append(vec![visit(source, items, now)]).unwrap().remove(0)
}

fn retain(writer: &mut LogWriter) {
    while writer.retain(None).unwrap().more {}
}

/// Of whom the events of the log are, in order.
fn owners(reader: &LogReader) -> Vec<String> {
    all(reader).iter().map(|event| event.source.to_string()).collect()
}

/// What the rule says, counted anew for each event.
struct Model {
    kept: (u64, u64),
    ring: (u64, u64),
    percent: u64,
    /// Source and size of every event there ever was.
    log: Vec<(usize, u64)>,
    /// How many of them are removed from the log, and from what the gateways keep.
    removed: usize,
    forgotten: usize,
}

/// What an event needs in the memory of a gateway, in addition to its size.
const MEMORY_BYTES: u64 = 768;

/// The first event that is kept.
fn first_kept(log: &[(usize, u64)], (events, bytes): (u64, u64)) -> usize {
    let fits = |from: &usize| {
        let kept = &log[*from..];
        kept.len() as u64 <= events && kept.iter().map(|(_, size)| size).sum::<u64>() <= bytes
    };
    (0..log.len()).find(fits).unwrap_or(log.len().saturating_sub(1))
}

impl Model {
    fn displaces_others(&self, max: (u64, u64), counted_from: usize, (source, size): (usize, u64)) -> bool {
        let own = self.log[counted_from..].iter().filter(|(owner, _)| *owner == source);
        let (events, bytes) = own.fold((0, 0), |(events, bytes), (_, size)| (events + 1, bytes + size));
        let share = |all: u64| (u128::from(all) * u128::from(self.percent) / 100).max(1);
        let is_over = events > 0
            && (u128::from(events + 1_u64) > share(max.0) || u128::from(bytes + size) > share(max.1));
        let mut after = self.log.clone();
        after.push((source, size));
        let goes = first_kept(&self.log, max).max(counted_from)..first_kept(&after, max);
        is_over && goes.into_iter().any(|n| after[n].0 != source)
    }

    /// The same log, as the gateways have it in memory.
    fn in_memory(&self) -> Self {
        let log = self.log.iter().map(|(source, size)| (*source, size + MEMORY_BYTES)).collect();
        Self { log, ..*self }
    }

    fn append(&mut self, event: (usize, u64)) -> Option<FloodingBound> {
        let memory = self.in_memory();
        let from = first_kept(&memory.log, self.ring).max(self.forgotten);
        if memory.displaces_others(self.ring, from, (event.0, event.1 + MEMORY_BYTES)) {
            return Some(FloodingBound::Ring);
        }
        if self.displaces_others(self.kept, self.removed, event) {
            return Some(FloodingBound::Retention);
        }
        self.log.push(event);
        None
    }

    fn retain(&mut self) {
        self.removed = self.removed.max(first_kept(&self.log, self.kept));
    }
}

/// The size of an event as stored.
fn size(source: &Source, mut item: Item, seq: u64, reader: &LogReader) -> u64 {
    item.key = "0".repeat(32);
    let id = Cursor { epoch: reader.epoch().clone(), seq: Seq(seq) };
    let event = Event::new(id, EventKind::Item, source, Timestamp::from_millis(0), item);
    event.to_json().len() as u64 + 14
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_source_over_its_share_displaces_its_own_events_only(
        events in 2..16_u64,
        bytes in prop_oneof![Just(u64::MAX), 2_000..12_000_u64],
        ring in prop_oneof![Just((u64::MAX, u64::MAX)), (2..16_u64, prop_oneof![Just(u64::MAX), 4_000..20_000_u64])],
        percent in 10..100_u64,
        steps in prop::collection::vec((0..3_usize, prop::collection::vec(1..150_u64, 0..5)), 1..40),
        together in 1..4_usize,
        retain_every in 1..5_usize,
        reopen_every in 1..12_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = options(events, bytes, percent, EventTotals { events: ring.0, bytes: ring.1 });
        let (mut writer, mut reader) = open(dir.path(), &options);
        let sources = ["a", "b", "c"].map(source);
        let mut documents = [const { Vec::new() }; 3];
        let mut recorded = [0; 3];
        let mut model =
            Model { kept: (events, bytes), ring, percent, log: Vec::new(), removed: 0, forgotten: 0 };
        for (n, commit) in steps.chunks(together).enumerate() {
            let mut visits = Vec::new();
            let mut expected = Vec::new();
            for (of, new) in commit {
                for version in new {
                    let number = documents[*of].len();
                    documents[*of].push(item(&format!("{of}/{number}"), *version));
                }
                visits.push(visit(&sources[*of], documents[*of].clone(), 0));
                let mut bound = None;
                let before = recorded[*of];
                while bound.is_none() && let Some(next) = documents[*of].get(recorded[*of]) {
                    let seq = model.log.len() as u64 + 1;
                    bound = model.append((*of, size(&sources[*of], next.clone(), seq, &reader)));
                    recorded[*of] += usize::from(bound.is_none());
                }
                expected.push((recorded[*of] - before, documents[*of].len() - recorded[*of], bound));
            }
            let appended = writer.append(visits).unwrap();
            let got = appended.iter().map(|a| (a.new as usize, a.deferred as usize, a.bound));
            prop_assert_eq!(got.collect::<Vec<_>>(), expected);
            if n % retain_every == 0 {
                retain(&mut writer);
                model.retain();
            }
            if n % reopen_every == 0 {
                drop((writer, reader));
                (writer, reader) = open(dir.path(), &options);
                model.forgotten = model.removed;
            }
            let names: Vec<_> =
                model.log[model.removed..].iter().map(|(of, _)| sources[*of].id.to_string()).collect();
            prop_assert_eq!(owners(&reader), names);
        }
    }
}

#[test]
fn a_single_source_may_fill_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let ring = EventTotals { events: 5, bytes: 1 << 20 };
    let (mut writer, reader) = open(dir.path(), &options(20, u64::MAX, 10, ring));
    let alone = source("alone");
    for n in 0..30 {
        let appended = append(&mut writer, &alone, items("k", n * 4..n * 4 + 4), 0);
        assert_eq!((appended.new, appended.deferred), (4, 0));
        retain(&mut writer);
    }
    assert_eq!((reader.oldest(), reader.head()), (Seq(101), Seq(120)));
}

#[test]
fn with_a_share_of_100_percent_nothing_waits() {
    let dir = tempfile::tempdir().unwrap();
    let ring = EventTotals { events: 5, bytes: 1 << 20 };
    for (percent, waits) in [(100, 0), (99, 9)] {
        let options = options(10, u64::MAX, percent, ring);
        let (mut writer, _) = open(&dir.path().join(percent.to_string()), &options);
        append(&mut writer, &source("other"), items("o", 0..1), 0);
        let appended = append(&mut writer, &source("flood"), items("f", 0..13), 0);
        assert_eq!(appended.deferred, waits, "{percent} %");
    }
}

#[test]
fn the_first_document_of_a_feed_fits_into_a_small_log() {
    let dir = tempfile::tempdir().unwrap();
    let small = options(200, u64::MAX, 25, EventTotals { events: 150, bytes: u64::MAX });
    let share = SourceShare { at_least: SourceShare::default().at_least, ..small.share };
    let (mut writer, _) = open(dir.path(), &StoreOptions { share, ..small });
    for of in ["a", "b", "c"] {
        assert_eq!(append(&mut writer, &source(of), items(of, 0..101), 0).deferred, u32::from(of != "a"));
    }
}

#[test]
fn what_waits_for_its_share_comes_in_order_when_the_log_moves_on_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(dir.path(), &options(20, u64::MAX, 25, ENDLESS));
    let (flood, other) = (source("flood"), source("other"));
    append(&mut writer, &other, items("o", 0..10), 0);
    let document = items("f", 0..30);
    let mut state = SourceState::default();
    let mut others = 10;
    for visit in 0..100 {
        let record = visited(&flood, document.clone(), visit, state);
        let appended = writer.append(vec![record]).unwrap().remove(0);
        retain(&mut writer);
        state = appended.state;
        let left = owners(&reader).iter().filter(|owner| *owner == "other").count();
        assert!(left >= 10, "visit {visit}: the flood never takes an event of another source");
        let Some(flooding) = &state.flooding else { break };
        let flooding = flooding.flooding;
        assert_eq!((flooding.bound, flooding.lost_items), (FloodingBound::Retention, 0));
        assert_eq!(flooding.waiting_items, appended.deferred);
        let warning = &state.warnings[0];
        assert!(warning.contains("25 %, store.source_share_percent") && warning.contains("retention_events"));
        // Once again with the same log: nothing moves.
        assert_eq!(append(&mut writer, &flood, document.clone(), visit).new, 0);
        append(&mut writer, &other, items("o", others..others + 1), visit);
        others += 1;
    }
    assert!(state.flooding.is_none(), "nothing waits any more");
    let mut titles: Vec<_> = all(&reader)
        .into_iter()
        .filter(|event| event.source == flood.id)
        .map(|event| event.item.title)
        .collect();
    let newest = titles.split_off(titles.len() - 3);
    assert_eq!(newest, ["f027 1", "f028 1", "f029 1"]);
    assert!(others > 12, "control: it had to wait for {others} events of another source");
}

#[test]
fn events_of_others_are_protected_until_they_are_old() {
    let hour = 3_600_000;
    let ring = EventTotals { events: 8, bytes: 1 << 20 };
    let limited = |age_hours: u64, events, ring| StoreOptions {
        retention: Retention { age: Duration::from_secs(age_hours * 3600), events, bytes: u64::MAX },
        share: SourceShare { percent: 25, at_least: EventTotals::default(), ring },
        ..StoreOptions::default()
    };
    let cases = [
        (limited(10, 8, ENDLESS), 10 * hour, FloodingBound::Retention),
        (limited(1_000_000, 8, ENDLESS), MONTH, FloodingBound::Retention),
        (limited(10, 1000, ring), hour, FloodingBound::Ring),
    ];
    for (options, protected, bound) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(dir.path(), &options);
        let flood = source("flood");
        append(&mut writer, &source("other"), items("o", 0..4), 0);
        assert_eq!(append(&mut writer, &flood, items("f", 0..4), 0).deferred, 0, "it is full now");
        let last = append(&mut writer, &flood, items("f", 0..9), protected);
        assert_eq!((last.new, last.bound), (0, Some(bound)));
        // The ring knows seconds.
        assert_eq!(append(&mut writer, &flood, items("f", 0..9), protected + 1000).new, 5, "{bound:?}");
    }
}

#[test]
fn what_leaves_the_feed_while_it_waits_is_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), &options(8, u64::MAX, 25, ENDLESS));
    let flood = source("flood");
    append(&mut writer, &source("other"), items("o", 0..8), 0);
    let mut look = |items: Vec<Item>, state: SourceState| {
        writer.append(vec![visited(&flood, items, 0, state)]).unwrap().remove(0)
    };
    // The first two are within its share.
    let first = look(items("f", 0..7), SourceState::default());
    assert_eq!((first.new, first.deferred, first.lost), (2, 5, 0));
    let mut edited = items("f", 2..8);
    edited[4] = item("f006", 2);
    let second = look(edited, first.state);
    assert_eq!((second.deferred, second.lost), (6, 0), "an edit loses nothing");
    let third = look(items("f", 4..9), second.state);
    assert_eq!((third.deferred, third.lost), (5, 2));
    let warning = &third.state.warnings[0];
    assert!(warning.ends_with("2 that waited have left the feed and are lost"), "{warning}");
    let fourth = look(items("f", 5..9), third.state);
    assert_eq!((fourth.deferred, fourth.lost), (4, 1));
    assert_eq!(fourth.state.flooding.as_ref().unwrap().flooding.lost_items, 3, "since it began");
    let unchanged = SourceState { last_status: Some(VisitStatus::Unchanged), ..fourth.state };
    let mut record = visited(&flood, Vec::new(), 0, unchanged.clone());
    record.state.last_status = Some(VisitStatus::Unchanged);
    let fifth = writer.append(vec![record]).unwrap().remove(0);
    assert_eq!((fifth.lost, fifth.state.flooding.is_some()), (0, true), "no document, no loss");
    let last = writer.append(vec![visited(&flood, Vec::new(), 0, fifth.state)]).unwrap().remove(0);
    assert_eq!((last.lost, last.state.flooding), (4, None), "an empty document has none of it");
}

/// A visit whose document may not have all that the feed has.
fn incomplete(source: &Arc<Source>, items: Vec<Item>, state: SourceState, is_delta: bool) -> VisitRecord {
    let mut record = visited(source, items, 0, state);
    record.plan.is_delta = is_delta;
    if !is_delta {
        record.state.last_status = Some(VisitStatus::Partial);
        let attempt = attempt(VisitStatus::Partial);
        Attempt::push(&mut record.state.attempts, attempt);
    }
    record
}

fn attempt(status: VisitStatus) -> Attempt {
    let at = Timestamp::from_millis(0);
    Attempt { at, status, code: Some(200), took_ms: 0, body_bytes: 0, new: 0, updated: 0, class: None }
}

/// A full log, and a source of which five items wait.
fn waiting(dir: &Path) -> (LogWriter, Arc<Source>, SourceState) {
    let (mut writer, _) = open(dir, &options(8, u64::MAX, 25, ENDLESS));
    let flood = source("flood");
    append(&mut writer, &source("other"), items("o", 0..8), 0);
    let record = visited(&flood, items("f", 0..7), 0, SourceState::default());
    let first = writer.append(vec![record]).unwrap().remove(0);
    assert_eq!((first.new, first.deferred), (2, 5));
    (writer, flood, first.state)
}

#[test]
fn what_waits_still_does_after_a_document_that_was_cut_off_or_has_only_the_changes() {
    for is_delta in [false, true] {
        // All known, nothing at all, and some of what waits.
        for (there, absent) in [(0..2, 5), (0..0, 5), (0..4, 3)] {
            let dir = tempfile::tempdir().unwrap();
            let (mut writer, flood, state) = waiting(dir.path());
            let before = state.flooding.clone().unwrap().flooding;
            let record = incomplete(&flood, items("f", there.clone()), state, is_delta);
            let cut = writer.append(vec![record]).unwrap().remove(0);
            assert_eq!((cut.new, cut.lost, cut.deferred), (0, 0, 5 - absent), "{there:?}");
            let flooding = cut.state.flooding.clone().unwrap().flooding;
            assert_eq!((flooding, cut.state.body_hash), (before, None), "{there:?}");
            // The whole document, which has lost two of them, while three more wait.
            let whole = visited(&flood, items("f", 4..10), 0, cut.state);
            let whole = writer.append(vec![whole]).unwrap().remove(0);
            assert_eq!((whole.deferred, whole.lost), (6, 2), "{there:?}");
        }
    }
}

#[test]
fn what_a_document_that_was_cut_off_has_is_recorded_and_waits_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut flood, state) = waiting(dir.path());
    let (writer_state, bytes) = (state.clone(), state.flooding.unwrap().flooding.waiting_bytes);
    for n in 0..30 {
        append(&mut writer, &source("other"), items(&format!("x{n}"), 0..1), 0);
    }
    // It may record again, one item a visit.
    Arc::make_mut(&mut flood).new_bytes_max = Some(1);
    let record = incomplete(&flood, items("f", 0..3), writer_state, false);
    let cut = writer.append(vec![record]).unwrap().remove(0);
    let flooding = cut.state.flooding.clone().unwrap().flooding;
    assert_eq!((cut.new, cut.deferred, flooding.waiting_items), (1, 0, 4));
    assert_eq!(flooding.waiting_bytes, bytes / 5 * 4, "items of the same size");
    let mut state = cut.state;
    for left in (0..4).rev() {
        append(&mut writer, &source("other"), items(&format!("y{left}"), 0..8), 0);
        let record = visited(&flood, items("f", 0..7), 0, state);
        let part = writer.append(vec![record]).unwrap().remove(0);
        assert_eq!((part.new, part.deferred, part.lost), (1, left, 0));
        state = part.state;
    }
    assert_eq!(state.flooding, None);
}

#[test]
fn a_document_that_is_always_cut_off_is_all_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, flood, mut state) = waiting(dir.path());
    let mut cut_off = 0;
    let lost = loop {
        let record = incomplete(&flood, items("f", 0..3), state, false);
        let cut = writer.append(vec![record]).unwrap().remove(0);
        cut_off += 1;
        if cut.lost > 0 {
            break cut.lost;
        }
        state = cut.state;
        assert!(state.flooding.is_some() && cut_off < 20);
    };
    assert_eq!((cut_off, lost), (8, 4));
}

#[test]
fn no_more_waits_than_is_remembered_of_a_source_whatever_its_documents_leave_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, flood, mut state) = waiting(dir.path());
    let mut lost = 0;
    for n in 0..9 {
        let new = items(&format!("n{n}"), 0..500);
        let delta = writer.append(vec![incomplete(&flood, new, state, true)]).unwrap().remove(0);
        state = delta.state;
        lost += delta.lost;
        assert!(state.flooding.as_ref().unwrap().flooding.waiting_items <= 4096);
    }
    assert_eq!(lost, 5 + 9 * 500 - 4096);
}

#[test]
fn retention_that_is_far_behind_does_not_stop_a_source_and_protects_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (flood, other) = (source("flood"), source("other"));
    let (mut writer, reader) = open(dir.path(), &options(1_000_000, u64::MAX, 25, ENDLESS));
    append(&mut writer, &other, items("o", 0..5000), 0);
    let eight = (8, writer.live_bytes());
    append(&mut writer, &flood, items("f", 0..8), 0);
    let eight = (eight.0, writer.live_bytes() - eight.1);
    drop((writer, reader));
    // Each visit looks at 2000 events that are to be removed.
    for (events, bytes, expected) in [
        (16, u64::MAX, [0, 0, 0, 0]),
        (1_000_000, 2 * eight.1, [0, 0, 0, 0]),
        (eight.0, u64::MAX, [0, 0, 4, 0]),
    ] {
        let copy = tempfile::tempdir().unwrap();
        copy_store(dir.path(), copy.path());
        let (mut writer, _) = open(copy.path(), &options(events, bytes, 25, ENDLESS));
        let new = (0..4).map(|n| {
            if n == 2 {
                assert!(writer.retain(None).unwrap().more, "control: it is behind");
            }
            append(&mut writer, &flood, items("f", 0..12), 0).new
        });
        assert_eq!(new.collect::<Vec<_>>(), expected, "{events} events, {bytes} bytes");
    }
}

/// A store with the same content.
fn copy_store(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").args(["-aT"]).args([from, to]).status().unwrap();
    assert!(status.success());
}
