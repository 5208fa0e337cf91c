//! What the gateways have in memory, without the events themselves: the owner and the size of each.

use std::{
    collections::{HashMap, VecDeque},
    io,
    time::Duration,
};

use news::Seq;

use crate::{read::SharedLog, totals::EventTotals};

use super::NewEvent;

/// For so long after they were recorded, events stay in memory rather than those of a source over its share: clients that
/// come back find them there. Older ones are in the log only, where the share of the log protects them; a source that
/// publishes most of everything must not wait here for a feed that has died.
const PROTECTED: Duration = Duration::from_secs(3600);

/// What a gateway needs for an event in addition to its bytes, about: the frames around it, the words that filters compare,
/// and the record itself.
const MEMORY_BYTES: u64 = 768;

/// The newest events of the log, as far as a gateway has them in memory.
pub(super) struct RecentEvents {
    max: EventTotals,
    max_of_source: EventTotals,
    events: VecDeque<RecentEvent>,
    bytes: u64,
    by_owner: HashMap<u64, EventTotals>,
}

#[derive(Clone, Copy)]
struct RecentEvent {
    owner: u64,
    bytes: u32,
    recorded_s: u32,
}

impl RecentEvent {
    fn new(owner: u64, bytes: u64, recorded: news::Timestamp) -> Self {
        Self {
            owner,
            bytes: u32::try_from(bytes + MEMORY_BYTES).unwrap_or(u32::MAX),
            recorded_s: u32::try_from(recorded.millis() / 1000).unwrap_or_default(),
        }
    }

    fn of(event: NewEvent) -> Self {
        Self::new(event.owner, event.bytes, event.now)
    }

    fn recorded(self) -> news::Timestamp {
        news::Timestamp::from_millis(i64::from(self.recorded_s) * 1000)
    }
}

impl RecentEvents {
    pub(super) fn new(max: EventTotals, max_of_source: EventTotals) -> Self {
        Self { max, max_of_source, events: VecDeque::new(), bytes: 0, by_owner: HashMap::new() }
    }

    /// From the end of the log.
    pub(super) fn read(log: &SharedLog, max: EventTotals, max_of_source: EventTotals) -> io::Result<Self> {
        let mut recent = Self::new(max, max_of_source);
        let first = (log.head().0 + 1).saturating_sub(max.events).max(log.oldest().0);
        let mut events = log.journal.events_from(Seq(first));
        while let Some(event) = events.next()? {
            recent.push_event(RecentEvent::new(event.owner, u64::from(event.bytes), event.recorded));
        }
        Ok(recent)
    }

    /// Whether the event would displace a protected one of another source, and its own source is over its share.
    pub(super) fn displaces_others(&self, event: NewEvent) -> bool {
        let new = RecentEvent::of(event);
        let has = self.by_owner.get(&new.owner).copied().unwrap_or_default();
        if !has.is_over(self.max_of_source, u64::from(new.bytes)) {
            return false;
        }
        let mut kept = self.totals().with(u64::from(new.bytes));
        for oldest in &self.events {
            if !kept.exceeds(self.max) {
                return false;
            }
            if oldest.owner != new.owner && event.now.since(oldest.recorded()) <= PROTECTED {
                return true;
            }
            kept = kept.without(EventTotals { events: 1, bytes: u64::from(oldest.bytes) });
        }
        false
    }

    pub(super) fn push(&mut self, event: NewEvent) {
        self.push_event(RecentEvent::of(event));
    }

    fn push_event(&mut self, event: RecentEvent) {
        self.events.push_back(event);
        self.bytes += u64::from(event.bytes);
        let totals = self.by_owner.entry(event.owner).or_default();
        *totals = totals.with(u64::from(event.bytes));
        while self.events.len() > 1 && self.totals().exceeds(self.max) {
            let Some(oldest) = self.events.pop_front() else { break };
            let gone = EventTotals { events: 1, bytes: u64::from(oldest.bytes) };
            self.bytes -= gone.bytes;
            if let Some(totals) = self.by_owner.get_mut(&oldest.owner) {
                *totals = totals.without(gone);
                if totals.events == 0 {
                    self.by_owner.remove(&oldest.owner);
                }
            }
        }
    }

    fn totals(&self) -> EventTotals {
        EventTotals { events: self.events.len() as u64, bytes: self.bytes }
    }
}
