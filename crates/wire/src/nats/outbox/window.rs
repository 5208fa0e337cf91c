//! The events of the log that are read and not yet confirmed, in the order of the log: which one may be sent next, and up to
//! which one all are confirmed.
//!
//! At most one event of a source is in flight, so the order of a source holds although many are. A source that is slow
//! holds up the others only when the window is full.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use news::Seq;

use crate::nats::message::EventMessage;

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
    InFlight,
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
    /// Sources of which none is in flight and one waits.
    ready: VecDeque<Arc<str>>,
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
            ready: VecDeque::new(),
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
            self.ready.push_back(Arc::clone(&source));
        }
        queue.push_back(number);
        self.slots.push_back(Slot { seq: outgoing.seq, source, bytes, state: SlotState::Waiting(outgoing) });
    }

    /// The next event that may be sent, which is in flight from now on, and the number to [`Window::settle`] it by.
    pub(super) fn next(&mut self) -> Option<(u64, OutgoingEvent)> {
        let has_room =
            self.in_flight < self.bounds.in_flight && self.in_flight_bytes < self.bounds.in_flight_bytes;
        if !has_room {
            return None;
        }
        let source = self.ready.pop_front()?;
        let number = *self.queues.get(&source)?.front()?;
        let slot = self.slot(number)?;
        let bytes = slot.bytes;
        let SlotState::Waiting(outgoing) = std::mem::replace(&mut slot.state, SlotState::InFlight) else {
            return None;
        };
        self.in_flight += 1;
        self.in_flight_bytes += bytes;
        Some((number, outgoing))
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
            if queue.is_empty() {
                self.queues.remove(&source);
            } else {
                self.ready.push_back(source);
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
        std::iter::from_fn(|| window.next().map(|(number, outgoing)| (number, outgoing.seq.0))).collect()
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
        assert_eq!(taken(&mut window), [(5, 17), (1, 12)]);
        window.settle(1);
        assert_eq!(window.through(), Seq(14), "13 is not in the log, 14 was done before");
        assert_eq!(taken(&mut window), [(3, 15)]);
        window.settle(3);
        window.settle(5);
        window.skip_to(Seq(19));
        assert_eq!((window.through(), window.waiting(), window.in_flight()), (Seq(19), 0, 0));
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
