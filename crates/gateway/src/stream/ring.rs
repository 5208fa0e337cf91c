//! Step 12 of the life of an item: among the newest. The end of the log, in memory; bounded by number and by bytes.
//!
//! ```text
//! frames:  [oldest … head]   a sequence number without a frame is that of an event that is missing for good
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
    /// Where the ring begins; what has no frame from here on is missing in the log, too.
    oldest: Seq,
    /// The newest event, even if it is missing.
    head: Seq,
    /// The log is an older copy of the one before, so that ids up to this one may stand for other events.
    contested_until: Option<Seq>,
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

/// What comes next for a client.
#[derive(Debug)]
pub(crate) enum NextEvents {
    Events(EventBatch),
    /// So many events are missing for good, up to this one.
    Missing {
        missed: u64,
        until: Seq,
    },
    /// The ring no longer has it; the daemon's log may.
    BelowRing,
    /// The ring has another epoch.
    OtherEpoch,
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
    /// Ids up to this one may stand for other events than those that the log has.
    pub(crate) contested_until: Option<Seq>,
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
            head: Seq::NONE,
            contested_until: None,
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

    /// Starts a new epoch, without events; the first one comes after `start`, if that is known.
    pub(crate) fn reset(&self, epoch: Epoch, start: Option<Seq>) {
        let mut inner = self.write();
        inner.generation += 1;
        inner.epoch = Some(epoch);
        inner.filled = false;
        inner.contested_until = None;
        let start = start.unwrap_or(Seq::NONE);
        let removed = inner.clear(start.next());
        // Freed after the lock is released.
        drop(inner);
        drop(removed);
    }

    /// Records that ids up to this one may stand for other events than those that the log has.
    pub(crate) fn contest(&self, until: Option<Seq>) {
        self.write().contested_until = until;
    }

    /// Records that the ring holds what the daemon had; `head` matters only if the ring is empty.
    pub(crate) fn set_filled(&self, head: Seq) {
        let mut inner = self.write();
        inner.filled = true;
        if inner.frames.is_empty() && inner.head <= head {
            inner.clear(head.next());
        }
    }

    /// Records that the log has got to this event; what the ring was not given up to here is missing.
    pub(crate) fn reach(&self, head: Seq) {
        if self.read().head < head {
            self.write().head = head;
        }
    }

    /// Records where the daemon's log begins.
    pub(crate) fn set_log_oldest(&self, oldest: Seq) {
        self.write().log_oldest = oldest;
    }

    /// Adds the next event. If it does not follow the last one, those in between are missing in the log, too, and clients
    /// get a gap.
    pub(crate) fn push(&self, frame: Frame) {
        let mut inner = self.write();
        let mut removed = VecDeque::new();
        let is_first = inner.frames.is_empty() && inner.head == Seq::NONE;
        if is_first || frame.seq <= inner.head {
            removed = inner.clear(frame.seq);
        }
        inner.head = frame.seq;
        inner.bytes += frame.weight();
        let before = inner.frames.back().map_or(frame.first_seen, |entry| entry.recorded);
        let recorded = before.max(frame.first_seen);
        inner.frames.push_back(RingEntry { frame: Arc::new(frame), recorded });
        while inner.frames.len() > self.bounds.events
            || inner.bytes > self.bounds.bytes && inner.frames.len() > 1
        {
            let Some(entry) = inner.frames.pop_front() else { break };
            inner.bytes -= entry.frame.weight();
            inner.oldest = entry.frame.seq.next();
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
    /// over before one is found.
    pub(crate) fn read_after(
        &self,
        at: RingPosition,
        filter: &EventFilter,
        form: BlockForm,
        turn: &mut Turn,
        outgoing: &mut Outgoing,
    ) -> NextEvents {
        let inner = self.read();
        if inner.generation != at.generation {
            return NextEvents::OtherEpoch;
        }
        if at.cursor.next() < inner.oldest {
            return NextEvents::BelowRing;
        }
        let index = inner.index_after(at.cursor);
        let missed = inner.missing_before(at.cursor, index);
        if missed > 0 {
            return NextEvents::Missing { missed, until: Seq(at.cursor.0 + missed) };
        }
        let mut batch = EventBatch { cursor: at.cursor, ..EventBatch::default() };
        let frames = inner.frames.range(index..).map(|entry| &*entry.frame);
        batch.read(frames, at.until, filter, form, turn, outgoing);
        // The newest ones may be missing.
        batch.more |= batch.cursor < inner.head;
        NextEvents::Events(batch)
    }

    /// What is missing after an event: how many directly after it, and how many altogether. `None` if the ring does not
    /// know, because that is below it or above its head, or of another generation.
    pub(crate) fn missing_after(&self, generation: u64, cursor: Seq) -> Option<(u64, u64)> {
        let inner = self.read();
        let is_known = cursor.next() >= inner.oldest && cursor <= inner.head;
        if !is_known || inner.generation != generation {
            return None;
        }
        let index = inner.index_after(cursor);
        let total = (inner.head.0 - cursor.0).saturating_sub((inner.frames.len() - index) as u64);
        Some((inner.missing_before(cursor, index), total))
    }

    /// A search for the cursor before the `n` newest events that a filter selects.
    pub(crate) fn search_newest(&self, n: u64) -> SnapshotSearch {
        let inner = self.read();
        SnapshotSearch { generation: inner.generation, at: inner.head, left: n, cursor: inner.head }
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
            search.at = frame.seq.previous();
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
        let before = index.checked_sub(1).and_then(|last| inner.frames.get(last));
        (!is_below).then(|| before.map_or(inner.oldest.previous(), |entry| entry.frame.seq))
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
        let end = inner.index_after(before.previous());
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
        if inner.epoch.as_ref() != Some(&id.epoch) || id.seq > inner.head || id.seq == Seq::NONE {
            return RingLookup::Unknown;
        }
        let entry = inner.frames.get(inner.index_after(id.seq.previous()));
        match entry.filter(|entry| entry.frame.seq == id.seq) {
            Some(entry) => RingLookup::Found(Arc::clone(&entry.frame)),
            None => RingLookup::NotHere,
        }
    }
}

impl EventBatch {
    /// Reads events, up to the first that is missing; the cursor moves past those that the filter does not select.
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
            let is_next = frame.seq == self.cursor.next();
            if !is_next || frame.seq > until || turn.scanned_enough() {
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
    /// The ring does not have it; the daemon's log may.
    NotHere,
    Unknown,
}

impl RingInner {
    fn state(&self) -> RingState {
        let log_bounds = self.epoch.as_ref().map(|epoch| LogBounds {
            epoch: epoch.clone(),
            oldest: self.log_oldest.min(self.oldest),
            head: self.head,
        });
        RingState {
            log_bounds,
            oldest: self.oldest,
            contested_until: self.contested_until,
            generation: self.generation,
            filled: self.filled,
            events: self.frames.len(),
            bytes: self.bytes,
        }
    }

    /// Removes all events and returns them: they are freed outside the lock.
    fn clear(&mut self, oldest: Seq) -> VecDeque<RingEntry> {
        self.bytes = 0;
        (self.oldest, self.head) = (oldest, oldest.previous());
        std::mem::take(&mut self.frames)
    }

    /// The index of the first frame after `cursor`.
    fn index_after(&self, cursor: Seq) -> usize {
        // Nearly every client is close to the head, and hardly ever is anything missing there.
        let behind = usize::try_from(self.head.0.saturating_sub(cursor.0)).unwrap_or(usize::MAX);
        let likely = self.frames.len().saturating_sub(behind);
        let (last, next) = (likely.checked_sub(1).and_then(|n| self.frames.get(n)), self.frames.get(likely));
        let is_right = last.is_none_or(|entry| entry.frame.seq <= cursor)
            && next.is_none_or(|entry| entry.frame.seq > cursor);
        if is_right { likely } else { self.frames.partition_point(|entry| entry.frame.seq <= cursor) }
    }

    /// How many events are missing between `cursor` and the frame at `index`, which is the first one after it.
    fn missing_before(&self, cursor: Seq, index: usize) -> u64 {
        let next = self.frames.get(index).map_or(self.head.next(), |entry| entry.frame.seq);
        cursor.missing_before(next)
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

    fn next(
        ring: &Ring,
        cursor: u64,
        until: u64,
        filter: &EventFilter,
        outgoing: &mut Outgoing,
    ) -> NextEvents {
        let at = RingPosition { generation: 1, cursor: Seq(cursor), until: Seq(until) };
        ring.read_after(at, filter, FORM, &mut Turn::default(), outgoing)
    }

    /// What a client after this event gets with one chunk, and its ids.
    fn read(ring: &Ring, cursor: u64, until: u64, filter: &EventFilter) -> (EventBatch, Vec<u64>) {
        let mut outgoing = Outgoing::default();
        let NextEvents::Events(batch) = next(ring, cursor, until, filter, &mut outgoing) else {
            panic!("the ring has no events after {cursor}")
        };
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
        ring.reset(Epoch::try_new("e").unwrap(), None);
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
    fn the_oldest_events_are_removed_first_and_a_client_behind_them_is_below_the_ring() {
        let ring = ring(3, 5..=10);
        let all = EventFilter::default();
        for below in [0, 5, 6] {
            let next = next(&ring, below, u64::MAX, &all, &mut Outgoing::default());
            assert!(matches!(next, NextEvents::BelowRing), "{below}: {next:?}");
            assert_eq!(ring.missing_after(1, Seq(below)), None, "{below}");
        }
        let (batch, ids) = read(&ring, 7, u64::MAX, &all);
        assert_eq!((ids, batch.more), (vec![8, 9, 10], false));
        let (batch, ids) = read(&ring, 7, 9, &all);
        assert_eq!((batch.cursor, ids, batch.more), (Seq(9), vec![8, 9], true));
        let other = RingPosition { generation: 0, cursor: Seq(7), until: Seq(99) };
        let next = ring.read_after(other, &all, FORM, &mut Turn::default(), &mut Outgoing::default());
        assert!(matches!(next, NextEvents::OtherEpoch), "{next:?}");
    }

    #[test]
    fn a_large_event_is_handed_out_alone_and_the_others_together() {
        let ring = Ring::new(RingBounds { events: 100, bytes: usize::MAX });
        ring.reset(Epoch::try_new("e").unwrap(), None);
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
        ring.reset(Epoch::try_new("e").unwrap(), None);
        for seq in 1..=3 {
            ring.push(frame(seq, "a"));
        }
        assert_eq!(ring.state().events, 1);
        assert_eq!(ring.state().oldest, Seq(3));
    }

    /// What a client after this event is told is missing: how many, and up to which event.
    fn missing(ring: &Ring, cursor: u64) -> Option<(u64, u64)> {
        match next(ring, cursor, u64::MAX, &EventFilter::default(), &mut Outgoing::default()) {
            NextEvents::Missing { missed, until } => Some((missed, until.0)),
            _ => None,
        }
    }

    #[test]
    fn what_does_not_follow_the_last_event_is_missing_where_it_would_be() {
        let ring = ring(6, 1..=3);
        ring.push(frame(9, "a"));
        ring.push(frame(10, "a"));
        let all = EventFilter::default();
        let (batch, ids) = read(&ring, 1, u64::MAX, &all);
        assert_eq!((ids, batch.cursor, batch.more), (vec![2, 3], Seq(3), true));
        assert_eq!((missing(&ring, 3), missing(&ring, 6)), (Some((5, 8)), Some((2, 8))));
        assert_eq!(read(&ring, 8, u64::MAX, &all).1, [9, 10]);
        // The newest ones are missing, too.
        ring.reach(Seq(12));
        assert_eq!((missing(&ring, 10), missing(&ring, 12)), (Some((2, 12)), None));
        assert_eq!(ring.state().log_bounds.unwrap().head, Seq(12));
        let known = [0, 2, 3, 5, 8, 9, 10, 11, 12].map(|seq| ring.missing_after(1, Seq(seq)).unwrap());
        let expected = [(0, 7), (0, 7), (5, 7), (3, 5), (0, 2), (0, 2), (2, 2), (1, 1), (0, 0)];
        assert_eq!(known, expected, "directly after it, and altogether");
        assert_eq!((ring.missing_after(1, Seq(13)), ring.missing_after(2, Seq(9))), (None, None));
        (13..=18).for_each(|seq| ring.push(frame(seq, "a")));
        // The hole of 11 and 12 is now the beginning of what the ring knows.
        assert_eq!((ring.state().oldest, missing(&ring, 10)), (Seq(11), Some((2, 12))));
        ring.push(frame(19, "a"));
        assert_eq!(ring.state().oldest, Seq(14));
        let seqs: Vec<_> = ring.read_before(1, Seq::LAST, 99).unwrap().iter().map(|(f, _)| f.seq.0).collect();
        assert_eq!(seqs, [19, 18, 17, 16, 15, 14]);
    }

    #[test]
    fn the_first_event_after_a_known_start_is_not_the_beginning_if_others_are_missing() {
        let ring = Ring::new(RingBounds { events: 9, bytes: usize::MAX });
        ring.reset(Epoch::try_new("e").unwrap(), Some(Seq(4)));
        ring.reach(Seq(4));
        ring.push(frame(7, "a"));
        assert_eq!((missing(&ring, 4), ring.state().oldest), (Some((2, 6)), Seq(5)));
        let lookups = ["e-4", "e-5", "e-7", "e-8"].map(|id| ring.get(&id.parse().unwrap()));
        assert!(
            matches!(
                lookups,
                [RingLookup::NotHere, RingLookup::NotHere, RingLookup::Found(_), RingLookup::Unknown]
            ),
            "{lookups:?}"
        );
        assert_eq!(ring.before_instant(Timestamp::from_millis(7_000)), None, "the log has older ones");
        ring.set_log_oldest(Seq(5));
        assert_eq!(ring.before_instant(Timestamp::from_millis(7_000)), Some(Seq(4)));
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
            let next = ring.read_after(at(cursor), &none, FORM, &mut Turn::default(), &mut outgoing);
            let NextEvents::Events(batch) = next else { panic!("{next:?}") };
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
        ring.reset(Epoch::try_new("f").unwrap(), None);
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
    fn an_event_is_found_or_not_here_or_unknown() {
        let ring = ring(3, 1..=9);
        let get = |id: &str| ring.get(&id.parse().unwrap());
        assert!(matches!(get("e-8"), RingLookup::Found(frame) if frame.seq == Seq(8)));
        assert!(matches!(get("e-2"), RingLookup::NotHere));
        assert!(matches!(get("e-10"), RingLookup::Unknown));
        assert!(matches!(get("x-8"), RingLookup::Unknown));
        assert!(matches!(get("e-0"), RingLookup::Unknown));
    }

    proptest! {
        #[test]
        fn whatever_the_size_of_a_write_every_event_comes_once_and_in_order(
            head in 1..60u64, kept in 1..60usize, start in 0..60u64, until in 1..90u64, bytes in 1..9000usize,
            damaged in prop::collection::hash_set(1..60u64, 0..12),
        ) {
            let ring = Ring::new(RingBounds { events: kept, bytes: usize::MAX });
            ring.reset(Epoch::try_new("e").unwrap(), Some(Seq::NONE));
            for seq in 1..=head {
                if !damaged.contains(&seq) {
                    ring.push(frame_of(seq, "a", bytes * usize::try_from(seq % 3).unwrap()));
                }
                ring.reach(Seq(seq));
            }
            let start = start.min(head).max(ring.state().oldest.previous().0);
            let (mut cursor, mut got, mut missed) = (start, Vec::new(), Vec::new());
            let expected = ring.missing_after(1, Seq(start)).unwrap();
            let mut direct = 0;
            loop {
                // First up to an event, then the rest.
                let limit = if cursor < until { until } else { u64::MAX };
                let mut outgoing = Outgoing::default();
                match next(&ring, cursor, limit, &EventFilter::default(), &mut outgoing) {
                    NextEvents::Events(_) => {
                        let (batch, ids) = read(&ring, cursor, limit, &EventFilter::default());
                        got.extend(ids);
                        cursor = batch.cursor.0;
                        if !batch.more { break; }
                    }
                    NextEvents::Missing { missed: n, until } => {
                        prop_assert_eq!(cursor + n, until.0);
                        if cursor == start { direct = n; }
                        missed.extend(cursor + 1..=until.0);
                        cursor = until.0;
                    }
                    other => prop_assert!(false, "{:?} at {}", other, cursor),
                }
            }
            prop_assert_eq!(cursor, head);
            prop_assert_eq!(expected, (direct, missed.len() as u64));
            let (lost, kept): (Vec<_>, Vec<_>) = (start + 1..=head).partition(|seq| damaged.contains(seq));
            prop_assert_eq!((got, missed), (kept, lost));
        }
    }
}
