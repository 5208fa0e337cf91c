//! The share of a source: how much of the log, and of what the gateways keep in memory, one source may take from others.
//!
//! ```text
//! over its share? ── no ──► recorded
//!       │ yes
//!       └─ does its event displace one of another source? ── no ──► recorded: the log has room, or its own event goes
//!                   │ yes
//!                   └──► it waits, and so do the items after it
//! ```
//!
//! The log is not changed for it: events still leave it in their order, without holes. A source alone is never limited. What a
//! source has is counted in memory, from the journal's indexes at first; the owner of the event that would go is read only if
//! a source over its share meets a full log.

mod recent;

use std::{io, time::Duration};

use news::{FloodingBound, Seq, SourceId, Timestamp};

use crate::{
    journal::{EventMeta, has_too_many_files},
    read::SharedLog,
    totals::{EventTotals, OwnerTotals, owner_hash},
};

use recent::RecentEvents;

/// How much one source may take from others.
#[derive(Clone, Copy, Debug)]
pub struct SourceShare {
    /// Of the events and the bytes that are kept, in percent; 100 is no limit.
    pub percent: u64,
    /// Each source may have so much, however small the log is: about what the first document of a feed has.
    pub at_least: EventTotals,
    /// How much of the newest events the gateways keep in memory, of which a source has the same share.
    pub ring: EventTotals,
}

impl Default for SourceShare {
    fn default() -> Self {
        Self {
            percent: 25,
            at_least: EventTotals { events: 100, bytes: 1 << 20 },
            ring: EventTotals { events: 20_000, bytes: 64 << 20 },
        }
    }
}

impl SourceShare {
    /// What a source may have of all of this.
    fn of(&self, all: EventTotals) -> EventTotals {
        let part = |all: u64| all / 100 * self.percent + all % 100 * self.percent / 100;
        EventTotals {
            events: part(all.events).max(self.at_least.events),
            bytes: part(all.bytes).max(self.at_least.bytes),
        }
    }
}

/// In the log, events of others are protected as long as they are kept, but not for longer than this: a source that has most
/// of a log without an age limit must not wait for ever behind the last event of a feed that has died.
const PROTECTED_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Stored events that one visit looks at to find the ones that would go; a source whose visit finds more waits.
const LOOKED_AT_MAX: usize = 2000;

/// Where retention will have removed events to: those that will go are still in the log.
#[derive(Clone, Copy, Debug)]
struct RetentionFront {
    first_kept: Seq,
    /// Bytes of the events before it that are still there.
    bytes: u64,
}

/// A new event whose source may be over its share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEvent {
    owner: u64,
    bytes: u64,
    now: Timestamp,
}

impl NewEvent {
    /// Of a source that is visited now; its size comes later.
    pub(crate) fn of(source: &SourceId, now: Timestamp) -> Self {
        Self { owner: owner_hash(source.as_str()), bytes: 0, now }
    }

    pub(crate) fn sized(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }
}

/// An event of the commit that is being built.
#[derive(Clone, Copy, Debug)]
struct AddedEvent {
    owner: u64,
    bytes: u64,
}

/// What each source has, and what it may have.
pub(crate) struct Shares {
    /// `None`: no limit.
    max: Option<EventTotals>,
    kept: EventTotals,
    protected: Duration,
    front: RetentionFront,
    recent: Option<RecentEvents>,
    /// What the sources have, by the hashes of their ids.
    totals: OwnerTotals,
    /// Of the commit that is being built.
    added: Vec<AddedEvent>,
}

impl Shares {
    /// Reads what is needed of a log that was just opened, whose sources have so much, and that keeps so much for so long.
    pub(crate) fn open(
        log: &SharedLog,
        share: SourceShare,
        totals: OwnerTotals,
        kept: EventTotals,
        age: Duration,
    ) -> io::Result<Self> {
        let is_limited = share.percent < 100;
        let recent =
            if is_limited { Some(RecentEvents::read(log, share.ring, share.of(share.ring))?) } else { None };
        Ok(Self {
            max: is_limited.then(|| share.of(kept)),
            kept,
            protected: age.min(PROTECTED_MAX),
            front: RetentionFront { first_kept: log.oldest(), bytes: 0 },
            recent,
            totals,
            added: Vec::new(),
        })
    }

    /// A commit begins.
    pub(crate) fn begin(&mut self) {
        self.added.clear();
    }

    /// The bound that keeps an event from being recorded as the next one of a log with this head and these bytes.
    pub(crate) fn bound_met(
        &mut self,
        log: &SharedLog,
        head: Seq,
        live_bytes: u64,
        event: NewEvent,
    ) -> io::Result<Option<FloodingBound>> {
        let Some(max) = self.max else { return Ok(None) };
        if self.recent.as_ref().is_some_and(|recent| recent.displaces_others(event)) {
            return Ok(Some(FloodingBound::Ring));
        }
        let has = self.totals.get(&event.owner).copied().unwrap_or_default();
        if !has.is_over(max, event.bytes) {
            return Ok(None);
        }
        let displaces_others = match self.displaces_others(log, head, live_bytes, event) {
            // It cannot be told, so it waits.
            Err(error) if has_too_many_files(&error) => true,
            displaces_others => displaces_others?,
        };
        Ok(displaces_others.then_some(FloodingBound::Retention))
    }

    /// Counts an event that is added to the commit.
    pub(crate) fn add(&mut self, event: NewEvent) {
        let totals = self.totals.entry(event.owner).or_default();
        *totals = totals.with(event.bytes);
        if self.max.is_some() {
            self.added.push(AddedEvent { owner: event.owner, bytes: event.bytes });
        }
        if let Some(recent) = &mut self.recent {
            recent.push(event);
        }
    }

    /// Counts events that retention has removed; the first that is kept is this one.
    pub(crate) fn remove(&mut self, removed: &RemovedEvents, first_kept: Seq) {
        for (owner, gone) in &removed.by_owner {
            let Some(has) = self.totals.get_mut(owner) else { continue };
            *has = has.without(*gone);
            if has.events == 0 {
                self.totals.remove(owner);
            }
        }
        self.front = if first_kept < self.front.first_kept {
            RetentionFront { bytes: self.front.bytes.saturating_sub(removed.bytes), ..self.front }
        } else {
            RetentionFront { first_kept, bytes: 0 }
        };
    }

    /// Whether the log is full, and the next event displaces a protected one of another source. What goes for the events
    /// before it, or because of its age, is not displaced by it.
    fn displaces_others(
        &mut self,
        log: &SharedLog,
        head: Seq,
        live_bytes: u64,
        event: NewEvent,
    ) -> io::Result<bool> {
        let mut front = self.front;
        let mut stored = log.journal.events_from(front.first_kept);
        let mut next = stored.next()?;
        let kept = |front: RetentionFront| EventTotals {
            events: (head.0 + 1).saturating_sub(front.first_kept.0),
            bytes: live_bytes.saturating_sub(front.bytes),
        };
        for _ in 0..LOOKED_AT_MAX {
            // The newest event always stays.
            let goes_anyway = front.first_kept < head && kept(front).exceeds(self.kept);
            if goes_anyway {
                self.front = front;
            }
            if front.first_kept > head || !kept(front).with(event.bytes).exceeds(self.kept) {
                self.front = front;
                return Ok(false);
            }
            let (is_protected, bytes) = match &next {
                // What is damaged is nothing to protect.
                Some(meta) if meta.seq > front.first_kept => (false, 0),
                Some(meta) => {
                    let found = (self.protects(meta, event), u64::from(meta.bytes));
                    next = stored.next()?;
                    found
                }
                // Of this commit.
                None => match self.added_event(log.head(), front.first_kept) {
                    Some(added) => (added.owner != event.owner, added.bytes),
                    None => return Ok(false),
                },
            };
            if is_protected && !goes_anyway {
                return Ok(true);
            }
            front = RetentionFront { first_kept: front.first_kept.next(), bytes: front.bytes + bytes };
        }
        Ok(true)
    }

    fn added_event(&self, head: Seq, seq: Seq) -> Option<AddedEvent> {
        let n = seq.0.checked_sub(head.0 + 1)?;
        self.added.get(usize::try_from(n).ok()?).copied()
    }

    /// Whether a stored event is of another source, and not so old that it may go for any source.
    fn protects(&self, stored: &EventMeta, event: NewEvent) -> bool {
        let is_old = event.now.since(stored.recorded) > self.protected;
        !is_old && stored.owner != event.owner
    }
}

/// The events that one retention removes.
#[derive(Debug, Default)]
pub(crate) struct RemovedEvents {
    by_owner: OwnerTotals,
    pub(crate) bytes: u64,
}

impl RemovedEvents {
    pub(crate) fn add(&mut self, removed: &EventMeta) {
        self.bytes += u64::from(removed.bytes);
        let totals = self.by_owner.entry(removed.owner).or_default();
        *totals = totals.with(u64::from(removed.bytes));
    }
}
