//! Step 12 of the life of an item: among the newest. The end of the log, in memory; bounded by number and by bytes.
//!
//! ```text
//! frames:  [oldest … head]   without holes, so a frame is found by subtracting sequence numbers
//! cursor:  the last event that a client has; it gets everything after it
//! ```

use std::{
    collections::VecDeque,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use news::{Cursor, Epoch, Seq, Timestamp};
use wire::LogBounds;

use super::{
    encoding::BlockForm,
    filter::EventFilter,
    frame::Frame,
    outgoing::{ChunkBuilder, Outgoing},
    turn::Turn,
};

/// How much the ring may keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingBounds {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// The newest events of one epoch.
#[derive(Debug)]
pub(crate) struct Ring {
    bounds: RingBounds,
    inner: RwLock<RingInner>,
}

#[derive(Debug)]
struct RingInner {
    epoch: Option<Epoch>,
    /// Counts epochs, so that a client of another one is recognised without comparing names.
    generation: u64,
    /// Whether the ring holds the events that the daemon had when the wire connected.
    filled: bool,
    frames: VecDeque<RingEntry>,
    /// The sequence number of the first frame; in an empty ring, of the next one to come.
    oldest: Seq,
    /// The oldest event in the daemon's log.
    log_oldest: Seq,
    bytes: usize,
}

#[derive(Debug)]
struct RingEntry {
    frame: Arc<Frame>,
    /// When it was recorded, as far as the events tell: the latest `first_seen` so far.
    recorded: Timestamp,
}

/// Where a client reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingPosition {
    /// Of the epoch that the cursor belongs to.
    pub(crate) generation: u64,
    /// It gets what comes after this event,
    pub(crate) cursor: Seq,
    /// up to this one.
    pub(crate) until: Seq,
}

/// What a client got.
#[derive(Debug, Default)]
pub(crate) struct EventBatch {
    /// How many events.
    pub(crate) events: u64,
    /// How many count as sent from the past, if this is the past: of the log also those that the filter left out.
    pub(crate) charged: u64,
    /// Bytes of their blocks.
    pub(crate) bytes: usize,
    /// The client's cursor after these.
    pub(crate) cursor: Seq,
    /// Events after the client's cursor that the ring no longer has; then this batch has no events, and `cursor` is the
    /// one after the missed events.
    pub(crate) missed: u64,
    /// Whether there are more events for the client.
    pub(crate) more: bool,
}

/// A search for the cursor before the newest events that a filter selects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotSearch {
    pub(crate) generation: u64,
    /// The next event to be looked at.
    pub(crate) at: Seq,
    /// How many selected events are still to be found.
    pub(crate) left: u64,
    /// The cursor before the oldest selected event so far.
    pub(crate) cursor: Seq,
}

/// A step of a search.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SearchStep {
    Found(Seq),
    /// To be continued in another turn.
    Unfinished(SnapshotSearch),
    /// The ring has no more events; the daemon's log has.
    BelowRing(SnapshotSearch),
    /// The ring has another epoch: the search starts again.
    OtherEpoch,
}

/// What is in the ring.
#[derive(Clone, Debug)]
pub(crate) struct RingState {
    /// What clients can get, from the ring or from the daemon's log; `None` before the wire connected for the first time.
    pub(crate) log_bounds: Option<LogBounds>,
    /// The oldest event in the ring.
    pub(crate) oldest: Seq,
    pub(crate) generation: u64,
    pub(crate) filled: bool,
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

impl Ring {
    pub(crate) fn new(bounds: RingBounds) -> Self {
        let inner = RingInner {
            epoch: None,
            generation: 0,
            filled: false,
            frames: VecDeque::new(),
            oldest: Seq(1),
            log_oldest: Seq(1),
            bytes: 0,
        };
        Self { bounds, inner: RwLock::new(inner) }
    }

    pub(crate) fn bounds(&self) -> RingBounds {
        self.bounds
    }

    fn read(&self) -> RwLockReadGuard<'_, RingInner> {
        self.inner.read().expect("no code that holds the ring can panic")
    }

    fn write(&self) -> RwLockWriteGuard<'_, RingInner> {
        self.inner.write().expect("no code that holds the ring can panic")
    }

    /// Starts a new epoch, without events.
    pub(crate) fn reset(&self, epoch: Epoch) {
        let mut inner = self.write();
        inner.generation += 1;
        inner.epoch = Some(epoch);
        inner.filled = false;
        let removed = inner.clear(Seq(1));
        // Freed after the lock is released.
        drop(inner);
        drop(removed);
    }

    /// Records that the ring holds what the daemon had; `head` matters only if the ring is empty.
    pub(crate) fn set_filled(&self, head: Seq) {
        let mut inner = self.write();
        inner.filled = true;
        if inner.frames.is_empty() {
            inner.oldest = head.next();
        }
    }

    /// Records where the daemon's log begins.
    pub(crate) fn set_log_oldest(&self, oldest: Seq) {
        self.write().log_oldest = oldest;
    }

    /// Adds the next event. If it does not follow the last one, some were missed: the ring then starts again with it,
    /// and clients get a gap.
    pub(crate) fn push(&self, frame: Frame) {
        let mut inner = self.write();
        let mut removed = VecDeque::new();
        if frame.seq != inner.head().next() {
            removed = inner.clear(frame.seq);
        }
        inner.bytes += frame.weight();
        let before = inner.frames.back().map_or(frame.first_seen, |entry| entry.recorded);
        let recorded = before.max(frame.first_seen);
        inner.frames.push_back(RingEntry { frame: Arc::new(frame), recorded });
        while inner.frames.len() > self.bounds.events
            || inner.bytes > self.bounds.bytes && inner.frames.len() > 1
        {
            let Some(entry) = inner.frames.pop_front() else { break };
            inner.bytes -= entry.frame.weight();
            inner.oldest = inner.oldest.next();
            removed.push_back(entry);
        }
        // Freed after the lock is released.
        drop(inner);
        drop(removed);
    }

    pub(crate) fn state(&self) -> RingState {
        self.read().state()
    }

    /// Without waiting for the lock.
    pub(crate) fn try_state(&self) -> Option<RingState> {
        self.inner.try_read().ok().map(|inner| inner.state())
    }

    /// Hands out what a client at this position gets next: about one chunk, but at least one event, unless its turn is
    /// over before one is found. `None` if the ring has another epoch.
    pub(crate) fn read_after(
        &self,
        at: RingPosition,
        filter: &EventFilter,
        form: BlockForm,
        turn: &mut Turn,
        outgoing: &mut Outgoing,
    ) -> Option<EventBatch> {
        let inner = self.read();
        if inner.generation != at.generation {
            return None;
        }
        let mut batch = EventBatch { cursor: at.cursor, ..EventBatch::default() };
        if at.cursor.next() < inner.oldest {
            batch.missed = inner.oldest.0 - at.cursor.next().0;
            batch.cursor = Seq(inner.oldest.0 - 1);
            batch.more = true;
            return Some(batch);
        }
        let frames = inner.frames.range(inner.index_after(at.cursor)..).map(|entry| &*entry.frame);
        batch.read(frames, at.until, filter, form, turn, outgoing);
        Some(batch)
    }

    /// A search for the cursor before the `n` newest events that a filter selects.
    pub(crate) fn search_newest(&self, n: u64) -> SnapshotSearch {
        let inner = self.read();
        SnapshotSearch { generation: inner.generation, at: inner.head(), left: n, cursor: inner.head() }
    }

    /// Continues a search until it has found the cursor or the turn is over.
    pub(crate) fn continue_search(
        &self,
        mut search: SnapshotSearch,
        filter: &EventFilter,
        turn: &mut Turn,
    ) -> SearchStep {
        let inner = self.read();
        if inner.generation != search.generation {
            return SearchStep::OtherEpoch;
        }
        let end = inner.index_after(search.at);
        for entry in inner.frames.range(..end).rev() {
            if search.left == 0 {
                break;
            }
            if turn.scanned_enough() {
                return SearchStep::Unfinished(search);
            }
            let frame = &entry.frame;
            turn.on_event(filter.text_bytes(frame));
            search.at = Seq(frame.seq.0 - 1);
            if filter.matches(frame) {
                search.left -= 1;
                search.cursor = search.at;
            }
        }
        match search.left > 0 && inner.log_oldest < inner.oldest {
            true => SearchStep::BelowRing(search),
            false => SearchStep::Found(search.cursor),
        }
    }

    /// The cursor before everything recorded since `instant`; `None` if that may be below the ring, in the log.
    pub(crate) fn before_instant(&self, instant: Timestamp) -> Option<Seq> {
        let inner = self.read();
        let index = inner.frames.partition_point(|entry| entry.recorded < instant);
        let is_below = index == 0 && inner.log_oldest < inner.oldest;
        (!is_below).then(|| Seq(inner.oldest.0 + index as u64 - 1))
    }

    /// The events before `before`, the newest first, at most `limit`, and when each was recorded; none if the ring no
    /// longer has any. `None` if the ring has another epoch than that of `generation`.
    pub(crate) fn read_before(
        &self,
        generation: u64,
        before: Seq,
        limit: usize,
    ) -> Option<Vec<(Arc<Frame>, Timestamp)>> {
        let inner = self.read();
        if inner.generation != generation {
            return None;
        }
        let end = inner.index_after(Seq(before.0.saturating_sub(1)));
        let entries = inner.frames.range(end.saturating_sub(limit)..end).rev();
        Some(entries.map(|entry| (Arc::clone(&entry.frame), entry.recorded)).collect())
    }

    /// The oldest event in the daemon's log, as far as the gateway knows.
    pub(crate) fn log_oldest(&self) -> Seq {
        self.read().log_oldest
    }

    /// One event.
    pub(crate) fn get(&self, id: &Cursor) -> RingLookup {
        let inner = self.read();
        if inner.epoch.as_ref() != Some(&id.epoch) || id.seq > inner.head() || id.seq == Seq::NONE {
            return RingLookup::Unknown;
        }
        if id.seq < inner.oldest {
            return RingLookup::TooOld;
        }
        match inner.frames.get(inner.index_after(Seq(id.seq.0 - 1))) {
            Some(entry) => RingLookup::Found(Arc::clone(&entry.frame)),
            None => RingLookup::Unknown,
        }
    }
}

impl EventBatch {
    /// Reads consecutive events; the cursor moves past those that the filter does not select.
    pub(crate) fn read<'f>(
        &mut self,
        frames: impl Iterator<Item = &'f Frame>,
        until: Seq,
        filter: &EventFilter,
        form: BlockForm,
        turn: &mut Turn,
        outgoing: &mut Outgoing,
    ) {
        let mut chunk = ChunkBuilder::new(form);
        for frame in frames {
            if frame.seq > until || turn.scanned_enough() {
                self.more = true;
                break;
            }
            turn.on_event(filter.text_bytes(frame));
            if filter.matches(frame) {
                if !chunk.try_add(frame) {
                    self.more = true;
                    break;
                }
                self.events += 1;
            }
            self.cursor = frame.seq;
        }
        (self.charged, self.bytes) = (self.events, chunk.bytes());
        chunk.finish(outgoing);
        outgoing.then_cursor(self.cursor);
    }
}

/// Result of looking up an id.
#[derive(Debug)]
pub(crate) enum RingLookup {
    Found(Arc<Frame>),
    /// The ring no longer has it.
    TooOld,
    Unknown,
}

impl RingInner {
    fn state(&self) -> RingState {
        let log_bounds = self.epoch.as_ref().map(|epoch| LogBounds {
            epoch: epoch.clone(),
            oldest: self.log_oldest.min(self.oldest),
            head: self.head(),
        });
        RingState {
            log_bounds,
            oldest: self.oldest,
            generation: self.generation,
            filled: self.filled,
            events: self.frames.len(),
            bytes: self.bytes,
        }
    }

    fn head(&self) -> Seq {
        Seq(self.oldest.0 + self.frames.len() as u64 - 1)
    }

    /// Removes all events and returns them: they are freed outside the lock.
    fn clear(&mut self, oldest: Seq) -> VecDeque<RingEntry> {
        self.bytes = 0;
        self.oldest = oldest;
        std::mem::take(&mut self.frames)
    }

    /// The index of the first frame after `cursor`.
    fn index_after(&self, cursor: Seq) -> usize {
        let index = cursor.next().0.saturating_sub(self.oldest.0);
        usize::try_from(index).unwrap_or(usize::MAX).min(self.frames.len())
    }
}

#[cfg(test)]
mod tests {
    use news::{Event, EventKind, FeedUrl, Item, Source, SourceId};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        http::query::NewsQuery,
        stream::encoding::{ContentHtml, StreamFormat},
    };

    const FORM: BlockForm = BlockForm { format: StreamFormat::EventStream, content: ContentHtml::Included };

    /// What a client after this event gets with one chunk, and its ids.
    fn read(ring: &Ring, cursor: u64, until: u64, filter: &EventFilter) -> (EventBatch, Vec<u64>) {
        let mut outgoing = Outgoing::default();
        let at = RingPosition { generation: 1, cursor: Seq(cursor), until: Seq(until) };
        let batch = ring.read_after(at, filter, FORM, &mut Turn::default(), &mut outgoing).unwrap();
        let mut bytes = Vec::new();
        while let Some((chunk, _)) = outgoing.next_chunk() {
            bytes.extend_from_slice(&chunk);
        }
        assert_eq!(batch.bytes, bytes.len());
        let ids = ids(&bytes);
        (batch, ids)
    }

    fn before_newest(ring: &Ring, n: u64, filter: &EventFilter) -> Seq {
        let mut search = ring.search_newest(n);
        loop {
            match ring.continue_search(search, filter, &mut Turn::default()) {
                SearchStep::Found(seq) => return seq,
                SearchStep::Unfinished(next) => search = next,
                SearchStep::BelowRing(search) => return search.cursor,
                SearchStep::OtherEpoch => panic!("it has one epoch"),
            }
        }
    }

    fn frame(seq: u64, source: &str) -> Frame {
        frame_of(seq, source, 0)
    }

    fn frame_of(seq: u64, source: &str, bytes: usize) -> Frame {
        let item = Item { summary: "x".repeat(bytes), ..Item::default() };
        let url = FeedUrl::try_new("https://example.org/").unwrap();
        let source = Source::new(SourceId::try_new(source).unwrap(), url);
        let id = Cursor { epoch: Epoch::try_new("e").unwrap(), seq: Seq(seq) };
        let first_seen = Timestamp::from_millis(i64::try_from(seq).unwrap() * 1000);
        let json = Event::new(id.clone(), EventKind::Item, &source, first_seen, item).to_json();
        Frame::render(json.as_bytes()).unwrap()
    }

    fn ring(events: usize, pushed: std::ops::RangeInclusive<u64>) -> Ring {
        let ring = Ring::new(RingBounds { events, bytes: usize::MAX });
        ring.reset(Epoch::try_new("e").unwrap());
        for seq in pushed {
            ring.push(frame(seq, if seq % 2 == 0 { "even" } else { "odd" }));
        }
        ring
    }

    fn ids(bytes: &[u8]) -> Vec<u64> {
        let text = std::str::from_utf8(bytes).unwrap();
        text.lines().filter_map(|l| l.strip_prefix("id: e-")).map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn the_oldest_events_are_removed_first_and_a_client_behind_them_learns_how_many() {
        let ring = ring(3, 5..=10);
        let all = EventFilter::default();
        let (batch, ids) = read(&ring, 5, u64::MAX, &all);
        assert_eq!((batch.missed, batch.cursor, ids), (2, Seq(7), vec![]));
        let (batch, ids) = read(&ring, 7, u64::MAX, &all);
        assert_eq!((batch.missed, ids, batch.more), (0, vec![8, 9, 10], false));
        let (batch, ids) = read(&ring, 7, 9, &all);
        assert_eq!((batch.cursor, ids, batch.more), (Seq(9), vec![8, 9], true));
        let other = RingPosition { generation: 0, cursor: Seq(7), until: Seq(99) };
        let mut outgoing = Outgoing::default();
        assert!(ring.read_after(other, &all, FORM, &mut Turn::default(), &mut outgoing).is_none());
    }

    #[test]
    fn a_large_event_is_handed_out_alone_and_the_others_together() {
        let ring = Ring::new(RingBounds { events: 100, bytes: usize::MAX });
        ring.reset(Epoch::try_new("e").unwrap());
        for (seq, bytes) in [(1, 10), (2, 10), (3, 20_000), (4, 10)] {
            ring.push(frame_of(seq, "a", bytes));
        }
        let all = EventFilter::default();
        assert_eq!(read(&ring, 0, 99, &all).1, [1, 2]);
        assert_eq!(read(&ring, 2, 99, &all).1, [3]);
        assert_eq!(read(&ring, 3, 99, &all).1, [4]);
    }

    #[test]
    fn bytes_limit_the_ring_too_but_the_newest_event_is_always_kept() {
        let ring = Ring::new(RingBounds { events: 100, bytes: 1 });
        ring.reset(Epoch::try_new("e").unwrap());
        for seq in 1..=3 {
            ring.push(frame(seq, "a"));
        }
        assert_eq!(ring.state().events, 1);
        assert_eq!(ring.state().oldest, Seq(3));
    }

    #[test]
    fn an_event_that_does_not_follow_the_last_makes_a_gap() {
        let ring = ring(100, 1..=3);
        ring.push(frame(9, "a"));
        let (batch, ids) = read(&ring, 3, u64::MAX, &EventFilter::default());
        assert_eq!((batch.missed, batch.cursor, ids), (5, Seq(8), vec![]));
        assert_eq!(read(&ring, 8, u64::MAX, &EventFilter::default()).1, [9]);
    }

    #[test]
    fn the_cursor_of_a_filtered_client_passes_other_events() {
        let ring = ring(100, 1..=9);
        let filter = NewsQuery::parse("source=even").unwrap().filter;
        let (batch, ids) = read(&ring, 2, u64::MAX, &filter);
        assert_eq!((ids, batch.cursor), (vec![4, 6, 8], Seq(9)));
        assert_eq!(before_newest(&ring, 2, &filter), Seq(5));
        assert_eq!(before_newest(&ring, 0, &filter), Seq(9));
        assert_eq!(before_newest(&ring, 99, &filter), Seq(1));
        let none = NewsQuery::parse("source=none").unwrap().filter;
        assert_eq!(before_newest(&ring, 99, &none), Seq(9));
    }

    #[test]
    fn a_turn_ends_in_the_middle_of_the_ring_and_the_next_continues_there() {
        let ring = ring(20_000, 1..=20_000);
        let none = NewsQuery::parse("source=none").unwrap().filter;
        let at = |cursor| RingPosition { generation: 1, cursor, until: Seq(u64::MAX) };
        let (mut cursor, mut turns, mut outgoing) = (Seq(0), 0, Outgoing::default());
        loop {
            let batch =
                ring.read_after(at(cursor), &none, FORM, &mut Turn::default(), &mut outgoing).unwrap();
            assert!(batch.cursor > cursor && batch.cursor.0 - cursor.0 <= 8192, "{batch:?}");
            (cursor, turns) = (batch.cursor, turns + 1);
            if !batch.more {
                break;
            }
        }
        assert!(cursor == Seq(20_000) && turns > 2, "{turns}");
        let (mut search, mut turns) = (ring.search_newest(5), 1);
        while let SearchStep::Unfinished(next) = ring.continue_search(search, &none, &mut Turn::default()) {
            (search, turns) = (next, turns + 1);
        }
        assert!(turns > 2, "{turns}");
        ring.reset(Epoch::try_new("f").unwrap());
        let step = ring.continue_search(search, &none, &mut Turn::default());
        assert!(matches!(step, SearchStep::OtherEpoch), "{step:?}");
    }

    #[test]
    fn a_time_resolves_to_the_cursor_before_it() {
        let ring = ring(4, 1..=9);
        let before = |ms| ring.before_instant(Timestamp::from_millis(ms)).map(|cursor| cursor.0);
        for (ms, cursor) in [(0, None), (6000, None), (6001, Some(6)), (9000, Some(8)), (9001, Some(9))] {
            assert_eq!(before(ms), cursor, "{ms}");
        }
        ring.set_log_oldest(Seq(6));
        assert_eq!((before(0), before(6000)), (Some(5), Some(5)), "the log has no more than the ring");
    }

    #[test]
    fn slices_go_back_from_the_newest_event_without_overlap() {
        let ring = ring(100, 4..=9);
        let seqs = |before, limit| {
            let entries = ring.read_before(1, Seq(before), limit).unwrap();
            entries.iter().map(|(frame, _)| frame.seq.0).collect::<Vec<_>>()
        };
        assert_eq!(seqs(u64::MAX, 4), [9, 8, 7, 6]);
        assert_eq!(seqs(6, 4), [5, 4]);
        assert_eq!(seqs(4, 4), [0; 0]);
        assert_eq!(seqs(0, 4), [0; 0]);
        assert!(ring.read_before(2, Seq(9), 4).is_none(), "another generation");
    }

    #[test]
    fn an_event_is_found_too_old_or_unknown() {
        let ring = ring(3, 1..=9);
        let get = |id: &str| ring.get(&id.parse().unwrap());
        assert!(matches!(get("e-8"), RingLookup::Found(frame) if frame.seq == Seq(8)));
        assert!(matches!(get("e-2"), RingLookup::TooOld));
        assert!(matches!(get("e-10"), RingLookup::Unknown));
        assert!(matches!(get("x-8"), RingLookup::Unknown));
        assert!(matches!(get("e-0"), RingLookup::Unknown));
    }

    proptest! {
        #[test]
        fn whatever_the_size_of_a_write_every_event_comes_once_and_in_order(
            head in 1..60u64, kept in 1..60usize, start in 0..60u64, until in 1..90u64, bytes in 1..9000usize,
        ) {
            let ring = Ring::new(RingBounds { events: kept, bytes: usize::MAX });
            ring.reset(Epoch::try_new("e").unwrap());
            (1..=head).for_each(|seq| ring.push(frame_of(seq, "a", bytes * usize::try_from(seq % 3).unwrap())));
            let start = start.min(head);
            let (mut cursor, mut got, mut missed) = (start, Vec::new(), 0);
            loop {
                // First up to an event, then the rest.
                let limit = if cursor < until { until } else { u64::MAX };
                let (batch, ids) = read(&ring, cursor, limit, &EventFilter::default());
                got.extend(ids);
                missed += batch.missed;
                cursor = batch.cursor.0;
                if !batch.more { break; }
            }
            let first = (start + missed + 1)..=head;
            prop_assert_eq!(got, first.collect::<Vec<_>>());
            prop_assert_eq!(cursor, head);
        }
    }
}
