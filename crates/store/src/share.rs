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
//! source has is counted with each commit and each removal, in their batches; the owner of the event that would go is read
//! only if a source over its share meets a full log.

mod recent;

use std::{collections::HashMap, time::Duration};

use news::{FloodingBound, Seq, SourceId, Timestamp};
use serde::Deserialize;

use crate::{
    pieces,
    read::{LogReadError, SharedLog},
    record::{self, Damage},
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

/// Events and their size: what a source has, or may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTotals {
    /// How many.
    pub events: u64,
    /// In bytes, as stored.
    pub bytes: u64,
}

impl EventTotals {
    fn seal(self) -> Vec<u8> {
        record::seal_numbers([self.events, self.bytes])
    }

    fn unseal(value: &[u8]) -> Result<Self, Damage> {
        let [events, bytes] = record::unseal_numbers(value)?;
        Ok(Self { events, bytes })
    }

    fn with(self, bytes: u64) -> Self {
        Self { events: self.events + 1, bytes: self.bytes + bytes }
    }

    fn without(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_sub(other.events),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn exceeds(self, max: Self) -> bool {
        self.events > max.events || self.bytes > max.bytes
    }

    /// Whether a source that has this may not take more from others: but its only event need not wait for ever.
    fn is_over(self, max: Self, bytes: u64) -> bool {
        self.events > 0 && self.with(bytes).exceeds(max)
    }
}

/// Which events are counted: a log of an older version has events that are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CountedEvents {
    /// Those from this one on,
    pub(crate) from: Seq,
    /// if the log has these bounds. If it has others, a program that does not count has written to it.
    pub(crate) oldest: Seq,
    pub(crate) head: Seq,
}

impl CountedEvents {
    fn seal(self) -> Vec<u8> {
        record::seal_numbers([self.from.0, self.oldest.0, self.head.0])
    }

    fn unseal(value: &[u8]) -> Result<Self, Damage> {
        let [from, oldest, head] = record::unseal_numbers(value)?.map(Seq);
        Ok(Self { from, oldest, head })
    }
}

/// Where retention will have removed events to: those that will go are still in the log.
#[derive(Clone, Copy, Debug)]
struct RetentionFront {
    first_kept: Seq,
    /// Bytes of the events before it that are still there.
    bytes: u64,
}

/// A new event whose source may be over its share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEvent<'a> {
    source: &'a SourceId,
    owner: u64,
    bytes: u64,
    now: Timestamp,
}

impl<'a> NewEvent<'a> {
    /// Of a source that is visited now; its size comes later.
    pub(crate) fn of(source: &'a SourceId, now: Timestamp) -> Self {
        Self { source, owner: owner_hash(source.as_str()), bytes: 0, now }
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
    counted_from: Seq,
    front: RetentionFront,
    recent: Option<RecentEvents>,
    /// What the sources of the commit that is being built will have.
    totals: HashMap<SourceId, EventTotals>,
    added: Vec<AddedEvent>,
}

impl Shares {
    /// Reads what is needed of a log that was just opened, and that keeps so much for so long. If a program without counts has
    /// written to it, the counts are removed: what is there is not counted, and its sources have it in addition to their share
    /// until it is gone.
    pub(crate) fn open(
        log: &SharedLog,
        share: SourceShare,
        kept: EventTotals,
        age: Duration,
    ) -> Result<Self, LogReadError> {
        let (oldest, head) = (log.oldest(), log.head());
        let counted =
            read_counted(&log.db)?.filter(|counted| (counted.oldest, counted.head) == (oldest, head));
        let counted_from = match counted {
            Some(counted) => counted.from,
            None => forget_counts(&log.db, oldest, head)?,
        };
        let is_limited = share.percent < 100;
        let recent =
            if is_limited { Some(RecentEvents::read(log, share.ring, share.of(share.ring))?) } else { None };
        Ok(Self {
            max: is_limited.then(|| share.of(kept)),
            kept,
            protected: age.min(PROTECTED_MAX),
            counted_from,
            front: RetentionFront { first_kept: oldest, bytes: 0 },
            recent,
            totals: HashMap::new(),
            added: Vec::new(),
        })
    }

    /// A commit begins.
    pub(crate) fn begin(&mut self) {
        self.totals.clear();
        self.added.clear();
    }

    /// The bound that keeps an event from being recorded as the next one of a log with this head and these bytes.
    pub(crate) fn bound_met(
        &mut self,
        log: &SharedLog,
        head: Seq,
        live_bytes: u64,
        event: NewEvent<'_>,
    ) -> Result<Option<FloodingBound>, LogReadError> {
        let Some(max) = self.max else { return Ok(None) };
        if self.recent.as_ref().is_some_and(|recent| recent.displaces_others(event)) {
            return Ok(Some(FloodingBound::Ring));
        }
        if !self.totals_mut(log, event.source)?.is_over(max, event.bytes) {
            return Ok(None);
        }
        Ok(self.displaces_others(log, head, live_bytes, event)?.then_some(FloodingBound::Retention))
    }

    /// Counts an event that is added to the commit.
    pub(crate) fn add(&mut self, log: &SharedLog, event: NewEvent<'_>) -> Result<(), LogReadError> {
        let totals = self.totals_mut(log, event.source)?;
        *totals = totals.with(event.bytes);
        if self.max.is_some() {
            self.added.push(AddedEvent { owner: event.owner, bytes: event.bytes });
        }
        if let Some(recent) = &mut self.recent {
            recent.push(event);
        }
        Ok(())
    }

    /// Writes the counts of the commit into its batch.
    pub(crate) fn finish(&mut self, batch: &mut sled::Batch, oldest: Seq, head: Seq) {
        for (source, totals) in self.totals.drain() {
            batch.insert(record::totals_key(source.as_str()), totals.seal());
        }
        self.write_counted(batch, oldest, head);
    }

    /// Writes what is left of the counts of sources into the batch that removes events of them.
    pub(crate) fn remove(
        &mut self,
        log: &SharedLog,
        batch: &mut sled::Batch,
        removed: RemovedEvents,
        first_kept: Seq,
    ) -> Result<(), LogReadError> {
        for (source, gone) in removed.by_source {
            let key = record::totals_key(&source);
            let left = read_totals(&log.db, &source)?.without(gone);
            match left.events {
                0 => batch.remove(key),
                _ => batch.insert(key, left.seal()),
            }
        }
        self.front = if first_kept < self.front.first_kept {
            RetentionFront { bytes: self.front.bytes.saturating_sub(removed.bytes), ..self.front }
        } else {
            RetentionFront { first_kept, bytes: 0 }
        };
        self.write_counted(batch, first_kept, log.head());
        Ok(())
    }

    /// Whether events of this number are counted.
    pub(crate) fn counts(&self, seq: Seq) -> bool {
        seq >= self.counted_from
    }

    fn write_counted(&self, batch: &mut sled::Batch, oldest: Seq, head: Seq) {
        let counted = CountedEvents { from: self.counted_from, oldest, head };
        batch.insert(record::COUNTED, counted.seal());
    }

    fn totals_mut(&mut self, log: &SharedLog, source: &SourceId) -> Result<&mut EventTotals, LogReadError> {
        if !self.totals.contains_key(source) {
            self.totals.insert(source.clone(), read_totals(&log.db, source.as_str())?);
        }
        Ok(self.totals.get_mut(source).expect("it was read"))
    }

    /// Whether the log is full, and the next event displaces a protected one of another source. What goes for the events
    /// before it, or because of its age, is not displaced by it.
    fn displaces_others(
        &mut self,
        log: &SharedLog,
        head: Seq,
        live_bytes: u64,
        event: NewEvent<'_>,
    ) -> Result<bool, LogReadError> {
        let mut front = self.front;
        let mut stored = log.db.range(record::event_key(front.first_kept)..=record::event_key(log.head()));
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
            let (is_protected, bytes) = match stored.next() {
                Some(entry) => {
                    let (key, stored) = entry?;
                    let bytes = pieces::length(&stored);
                    let is_protected = !goes_anyway && self.protects(log, &key, stored, event)?;
                    (is_protected, bytes)
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
    fn protects(
        &self,
        log: &SharedLog,
        key: &[u8],
        stored: sled::IVec,
        event: NewEvent<'_>,
    ) -> Result<bool, LogReadError> {
        // Retention and this are of one thread, so nothing is removed meanwhile.
        let Some(value) = log.event(key, stored)? else { return Ok(false) };
        let damaged = |damage| {
            let seq = record::seq_of(key).unwrap_or_default();
            LogReadError::Damaged { what: format!("event {seq}"), damage }
        };
        let (_, recorded, json) = record::unseal_event(&value).map_err(damaged)?;
        let is_old = event.now.since(recorded) > self.protected;
        Ok(!is_old && owner_of(json).map_err(damaged)? != event.source.as_str())
    }
}

/// The events that one retention removes.
#[derive(Debug, Default)]
pub(crate) struct RemovedEvents {
    by_source: HashMap<String, EventTotals>,
    bytes: u64,
}

impl RemovedEvents {
    pub(crate) fn add(&mut self, json: &str, bytes: u64, is_counted: bool) -> Result<(), Damage> {
        self.bytes += bytes;
        if !is_counted {
            return Ok(());
        }
        let owner = owner_of(json)?;
        match self.by_source.get_mut(owner) {
            Some(totals) => *totals = totals.with(bytes),
            None => {
                self.by_source.insert(owner.to_owned(), EventTotals::default().with(bytes));
            }
        }
        Ok(())
    }
}

/// The id of the source of a stored event.
fn owner_of(json: &str) -> Result<&str, Damage> {
    #[derive(Deserialize)]
    struct OwnedEvent<'a> {
        source: &'a str,
    }
    Ok(serde_json::from_str::<OwnedEvent<'_>>(json).map_err(|_| Damage::Content)?.source)
}

fn owner_hash(source: &str) -> u64 {
    news::stable_hash(source.as_bytes())
}

fn read_totals(db: &sled::Db, source: &str) -> Result<EventTotals, LogReadError> {
    let Some(value) = db.get(record::totals_key(source))? else { return Ok(EventTotals::default()) };
    let damaged = |damage| LogReadError::Damaged { what: format!("the count of source {source}"), damage };
    EventTotals::unseal(&value).map_err(damaged)
}

fn read_counted(db: &sled::Db) -> Result<Option<CountedEvents>, LogReadError> {
    let Some(value) = db.get(record::COUNTED)? else { return Ok(None) };
    let damaged = |damage| LogReadError::Damaged { what: "what is counted".to_owned(), damage };
    CountedEvents::unseal(&value).map(Some).map_err(damaged)
}

/// Removes all counts. Returns the first event that is counted: the next one.
fn forget_counts(db: &sled::Db, oldest: Seq, head: Seq) -> Result<Seq, LogReadError> {
    let from = head.next();
    let mut batch = sled::Batch::default();
    for key in db.scan_prefix(record::totals_key("")).keys() {
        batch.remove(key?);
    }
    batch.insert(record::COUNTED, CountedEvents { from, oldest, head }.seal());
    db.apply_batch(batch)?;
    Ok(from)
}
