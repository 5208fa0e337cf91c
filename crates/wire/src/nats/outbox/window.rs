//! The events of the log that are read and not yet confirmed, in the order of the log: which one may be sent next, and up to
//! which one all are confirmed.
//!
//! At most one event of a source is in flight, so the order of a source holds although many are. While ids of the log and of
//! the stream are to mean the same, the next event waits for its source, and all after it wait, too, so that the stream has
//! them in the order of the log; but not for long. Otherwise a source that is slow holds up the others only when the window
//! is full.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use news::Seq;
use tokio::time::Instant;

use crate::nats::message::EventMessage;

/// How long the events after it wait for an event whose source has another one in flight. Without an answer in this time, order
/// is not what is missing.
const ORDER_WAIT_MAX: Duration = Duration::from_millis(250);

/// Which events may be sent before others of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendOrder {
    /// None, as long as an event is not in flight for long.
    OfLog,
    /// Those of other sources.
    OfSource,
}

/// An event on its way.
#[derive(Clone, Debug)]
pub(super) struct OutgoingEvent {
    pub(super) seq: Seq,
    pub(super) message: EventMessage,
    pub(super) subject: Arc<str>,
}

/// How much the window may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowBounds {
    /// Events from the oldest that is not confirmed, confirmed ones included.
    pub(super) events: usize,
    /// About the bytes of those that are not confirmed.
    pub(super) bytes: usize,
    /// Events in flight.
    pub(super) in_flight: usize,
    /// About the bytes in flight.
    pub(super) in_flight_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    seq: Seq,
    source: Arc<str>,
    bytes: usize,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Waiting(OutgoingEvent),
    InFlight(Instant),
    Done,
}

/// The window.
#[derive(Debug)]
pub(super) struct Window {
    bounds: WindowBounds,
    /// The log has been read up to this event.
    read_to: Seq,
    slots: VecDeque<Slot>,
    /// Number of the first slot.
    first: u64,
    /// The slots of each source that wait or are in flight, in order.
    queues: HashMap<Arc<str>, VecDeque<u64>>,
    /// The first slot of each source of which none is in flight.
    ready: BTreeSet<u64>,
    /// All slots before this one were sent.
    sent: u64,
    waiting: usize,
    bytes: usize,
    in_flight: usize,
    in_flight_bytes: usize,
}

impl Window {
    /// After this event of the log.
    pub(super) fn new(bounds: WindowBounds, after: Seq) -> Self {
        Self {
            bounds,
            read_to: after,
            slots: VecDeque::new(),
            first: 0,
            queues: HashMap::new(),
            ready: BTreeSet::new(),
            sent: 0,
            waiting: 0,
            bytes: 0,
            in_flight: 0,
            in_flight_bytes: 0,
        }
    }

    /// The log has been read up to this event.
    pub(super) fn read_to(&self) -> Seq {
        self.read_to
    }

    /// The newest event of the log of which this one and all before are done.
    pub(super) fn through(&self) -> Seq {
        self.slots.front().map_or(self.read_to, |slot| slot.seq.previous())
    }

    /// Whether the next page of the log fits.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.bounds.events && self.bytes < self.bounds.bytes
    }

    /// Events that are not done.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The log has nothing to publish up to this event.
    pub(super) fn skip_to(&mut self, seq: Seq) {
        self.read_to = self.read_to.max(seq);
    }

    /// The next event of the log.
    pub(super) fn push(&mut self, source: Arc<str>, outgoing: OutgoingEvent) {
        self.skip_to(outgoing.seq);
        let number = self.first + self.slots.len() as u64;
        let bytes = outgoing.message.json_without_id.len();
        self.waiting += 1;
        self.bytes += bytes;
        let queue = self.queues.entry(Arc::clone(&source)).or_default();
        if queue.is_empty() {
            self.ready.insert(number);
        }
        queue.push_back(number);
        self.slots.push_back(Slot { seq: outgoing.seq, source, bytes, state: SlotState::Waiting(outgoing) });
    }

    /// The next event that may be sent, which is in flight from now on, and the number to [`Window::settle`] it by.
    pub(super) fn next(&mut self, order: SendOrder, now: Instant) -> Option<(u64, OutgoingEvent)> {
        let has_room =
            self.in_flight < self.bounds.in_flight && self.in_flight_bytes < self.bounds.in_flight_bytes;
        if !has_room {
            return None;
        }
        let number = *self.ready.first()?;
        if order == SendOrder::OfLog && self.is_early(number, now) {
            return None;
        }
        self.ready.remove(&number);
        let slot = self.slot(number)?;
        let bytes = slot.bytes;
        let SlotState::Waiting(outgoing) = std::mem::replace(&mut slot.state, SlotState::InFlight(now))
        else {
            return None;
        };
        self.in_flight += 1;
        self.in_flight_bytes += bytes;
        Some((number, outgoing))
    }

    /// Whether an event before it was not sent, because its source has another one in flight, and not for long.
    fn is_early(&mut self, number: u64, now: Instant) -> bool {
        self.sent = self.sent.max(self.first);
        let is_waiting = |slot: &Slot| matches!(slot.state, SlotState::Waiting(_));
        while self.sent < number && !self.slot(self.sent).is_some_and(|slot| is_waiting(slot)) {
            self.sent += 1;
        }
        if self.sent == number {
            return false;
        }
        let source = self.slot(self.sent).map(|slot| Arc::clone(&slot.source));
        let in_flight = source.and_then(|source| self.queues.get(&source)?.front().copied());
        let state = in_flight.and_then(|number| self.slot(number)).map(|slot| &slot.state);
        matches!(state, Some(SlotState::InFlight(since)) if now.duration_since(*since) < ORDER_WAIT_MAX)
    }

    /// An event that was in flight is done.
    pub(super) fn settle(&mut self, number: u64) {
        let Some(slot) = self.slot(number) else { return };
        slot.state = SlotState::Done;
        let (bytes, source) = (slot.bytes, Arc::clone(&slot.source));
        self.waiting -= 1;
        self.bytes -= bytes;
        self.in_flight -= 1;
        self.in_flight_bytes -= bytes;
        if let Some(queue) = self.queues.get_mut(&source) {
            queue.pop_front();
            match queue.front() {
                Some(next) => _ = self.ready.insert(*next),
                None => _ = self.queues.remove(&source),
            }
        }
        while self.slots.front().is_some_and(|slot| matches!(slot.state, SlotState::Done)) {
            self.slots.pop_front();
            self.first += 1;
        }
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use news::{Cursor, Epoch, EventKind};

    use super::*;

    const BOUNDS: WindowBounds = WindowBounds { events: 6, bytes: 1000, in_flight: 3, in_flight_bytes: 250 };

    fn push(window: &mut Window, seq: u64, source: &str) {
        let message = EventMessage {
            origin: Cursor { epoch: Epoch::try_new("e").unwrap(), seq: Seq(seq) },
            kind: EventKind::Item,
            json_without_id: Bytes::from(vec![b'x'; 100]),
        };
        window.push(source.into(), OutgoingEvent { seq: Seq(seq), message, subject: source.into() });
    }

    fn taken(window: &mut Window) -> Vec<(u64, u64)> {
        taken_in(window, SendOrder::OfSource, Instant::now())
    }

    fn taken_in(window: &mut Window, order: SendOrder, now: Instant) -> Vec<(u64, u64)> {
        let next = || window.next(order, now).map(|(number, outgoing)| (number, outgoing.seq.0));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn one_event_of_a_source_is_in_flight_and_a_slow_source_holds_up_no_other() {
        let mut window = Window::new(BOUNDS, Seq(10));
        assert_eq!(window.through(), Seq(10));
        for (seq, source) in [(11, "a"), (12, "a"), (14, "b"), (15, "a"), (16, "b")] {
            push(&mut window, seq, source);
        }
        assert_eq!(taken(&mut window), [(0, 11), (2, 14)], "one of each source, in the order of the log");
        window.settle(2);
        assert_eq!(taken(&mut window), [(4, 16)], "the next of the same source");
        window.settle(4);
        assert_eq!((window.through(), window.waiting(), window.in_flight()), (Seq(10), 3, 1));
        assert!(window.has_room());
        push(&mut window, 17, "c");
        assert!(!window.has_room(), "six events since the oldest that is not done");
        window.settle(0);
        assert_eq!(window.through(), Seq(11));
        assert_eq!(taken(&mut window), [(1, 12), (5, 17)]);
        window.settle(1);
        assert_eq!(window.through(), Seq(14), "13 is not in the log, 14 was done before");
        assert_eq!(taken(&mut window), [(3, 15)]);
        window.settle(3);
        window.settle(5);
        window.skip_to(Seq(19));
        assert_eq!((window.through(), window.waiting(), window.in_flight()), (Seq(19), 0, 0));
    }

    #[test]
    fn in_the_order_of_the_log_an_event_waits_for_its_source_and_so_do_those_after_it_but_not_for_long() {
        let bounds = WindowBounds { in_flight: 9, in_flight_bytes: 9999, ..BOUNDS };
        let mut window = Window::new(bounds, Seq(10));
        for (seq, source) in [(11, "a"), (12, "b"), (13, "a"), (14, "c"), (15, "b")] {
            push(&mut window, seq, source);
        }
        let now = Instant::now();
        let taken = |window: &mut Window, now| taken_in(window, SendOrder::OfLog, now);
        assert_eq!(taken(&mut window, now), [(0, 11), (1, 12)]);
        window.settle(1);
        assert_eq!(taken(&mut window, now), [], "12 is confirmed, and 13 waits for 11");
        window.settle(0);
        assert_eq!(taken(&mut window, now), [(2, 13), (3, 14), (4, 15)]);
        window.settle(2);
        for (seq, source) in [(16, "b"), (17, "a")] {
            push(&mut window, seq, source);
        }
        assert_eq!(taken(&mut window, now), []);
        assert_eq!(
            taken(&mut window, now + ORDER_WAIT_MAX),
            [(6, 17)],
            "a source that hangs holds up no other"
        );
    }

    #[test]
    fn what_is_in_flight_is_bounded_in_events_and_in_bytes() {
        let mut window = Window::new(WindowBounds { in_flight: 2, ..BOUNDS }, Seq(0));
        (1..=4).for_each(|seq| push(&mut window, seq, &seq.to_string()));
        assert_eq!(taken(&mut window).len(), 2);
        let mut window = Window::new(WindowBounds { in_flight: 9, ..BOUNDS }, Seq(0));
        (1..=4).for_each(|seq| push(&mut window, seq, &seq.to_string()));
        assert_eq!(taken(&mut window).len(), 3, "the third one passes 250 bytes");
    }
}
