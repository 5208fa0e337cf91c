//! What the gateways have in memory, without the events themselves: the owner and the size of each.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{
    read::{LogReadError, SharedLog},
    record,
};

use super::{EventTotals, NewEvent, owner_hash, owner_of};

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

    fn of(event: NewEvent<'_>) -> Self {
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

    /// From the end of the log. It ends at damage, which is found by the first one who reads there.
    pub(super) fn read(
        log: &SharedLog,
        max: EventTotals,
        max_of_source: EventTotals,
    ) -> Result<Self, LogReadError> {
        let mut newest = Vec::new();
        let mut totals = EventTotals::default();
        let events = record::event_key(log.oldest())..=record::event_key(log.head());
        for entry in log.db.range(events).rev() {
            let (key, stored) = entry?;
            let Ok(Some(value)) = log.event(&key, stored) else { break };
            let Ok((_, recorded, json)) = record::unseal_event(&value) else { break };
            let Ok(owner) = owner_of(json) else { break };
            let event = RecentEvent::new(owner_hash(owner), value.len() as u64, recorded);
            totals = totals.with(u64::from(event.bytes));
            if totals.exceeds(max) {
                break;
            }
            newest.push(event);
        }
        let mut recent = Self::new(max, max_of_source);
        for event in newest.into_iter().rev() {
            recent.push_event(event);
        }
        Ok(recent)
    }

    /// Whether the event would displace a protected one of another source, and its own source is over its share.
    pub(super) fn displaces_others(&self, event: NewEvent<'_>) -> bool {
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

    pub(super) fn push(&mut self, event: NewEvent<'_>) {
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
