//! Memory between the sockets and the disk: one budget in bytes (`fetch.memory_bytes`) for the bodies, the parsed documents
//! and what waits to be written.
//!
//! ```text
//! admitted ─► a share: what a visit usually needs ─► grows with the body, and for the parser (may wait)
//!          ─► resized to the document ─► queue of the recorder ─► commit ─► dropped
//! ```
//!
//! Visits grow within three quarters of the budget; the rest is for the reservations of others, so that visits that fit into
//! theirs go on while large or slow ones use up everything else. The first visit that needs more than its part goes beyond
//! it, and the others that need more wait until it has ended or the room suffices again; then comes the oldest of them. So
//! they never wait for each other for ever. Without the one that goes beyond, no more than the budget is in use: when that
//! is used up, further visits are admitted into the quarter for reservations only, and the limiter may preempt one that
//! waits. So the most that is in use is the budget and one visit, and what decoders have that no one could foresee
//! ([`MemoryShare::hold`]). While others wait, a large body must arrive faster than otherwise ([`MemoryShare::is_wanted`]).

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::{Notify, oneshot};

use crate::status::metrics::MemoryMetrics;

/// The least that a visit reserves at its start: enough for most feeds and their documents.
pub(crate) const RESERVED_BYTES_MIN: usize = 256 * 1024;
/// A visit reserves at most this part of the budget at its start.
const RESERVED_SHARE: usize = 16;
/// This part of the budget is only for reservations.
const RESERVATIONS_SHARE: usize = 4;
/// From this part of the budget on, a body is large: others that wait need what it has.
const LARGE_SHARE: usize = 32;
/// How many of the last visits decide what is reserved for the next one.
const VISITS_AVERAGED: usize = 16;

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryPart {
    /// The body of a visit, or the room for it.
    Body,
    /// A body that is being parsed, with its document.
    Document,
    /// Items on their way to the disk.
    Queue,
}

impl MemoryPart {
    /// All variants, in the order of their discriminants.
    pub(crate) const ALL: [Self; 3] = [Self::Body, Self::Document, Self::Queue];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Document => "document",
            Self::Queue => "queue",
        }
    }
}

/// The budget. Cheap to clone; all clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    shares: Mutex<Shares>,
    /// There may be room for a further visit. The thread of the recorder frees memory, too.
    room: Notify,
    metrics: MemoryMetrics,
}

#[derive(Debug)]
struct Shares {
    max: usize,
    used: usize,
    last_ticket: u64,
    by_ticket: HashMap<u64, Share>,
    waiting: BTreeMap<u64, Waiter>,
    /// The visit that may use more than visits may grow to, while more is in use; only then do others wait.
    overdrawing: Option<u64>,
    /// What the last visits needed, on average.
    usual: usize,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    part: MemoryPart,
    bytes: usize,
    /// The most that was needed of it so far, without what is only reserved.
    needed: usize,
}

#[derive(Debug)]
struct Waiter {
    more: usize,
    granted: oneshot::Sender<()>,
}

/// The part of the budget that one visit uses; given back when dropped, on any thread.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    budget: MemoryBudget,
    ticket: u64,
}

impl MemoryBudget {
    pub(crate) fn new(max: usize, metrics: MemoryMetrics) -> Self {
        metrics.set_max(max);
        let shares = Shares {
            max,
            used: 0,
            last_ticket: 0,
            by_ticket: HashMap::new(),
            waiting: BTreeMap::new(),
            overdrawing: None,
            usual: 0,
        };
        Self(Arc::new(BudgetState { shares: Mutex::new(shares), room: Notify::new(), metrics }))
    }

    /// Changes the budget; what is in use stays in use.
    pub(crate) fn set_max(&self, max: usize) {
        self.0.metrics.set_max(max);
        let mut shares = self.shares();
        shares.max = max;
        self.serve(shares);
    }

    pub(crate) fn max(&self) -> usize {
        self.shares().max
    }

    /// Whether one more visit may begin: always if there is none.
    pub(crate) fn has_room(&self) -> bool {
        self.shares().has_room()
    }

    /// The share of a visit that begins; the caller has checked [`MemoryBudget::has_room`]. Where no document is expected,
    /// because the source did not answer the last time, that is the least.
    pub(crate) fn admit(&self, expects_document: bool) -> MemoryShare {
        let mut shares = self.shares();
        shares.last_ticket += 1;
        let (ticket, bytes) =
            (shares.last_ticket, if expects_document { shares.reserved() } else { RESERVED_BYTES_MIN });
        shares.used += bytes;
        shares.by_ticket.insert(ticket, Share { part: MemoryPart::Body, bytes, needed: 0 });
        self.0.metrics.add(MemoryPart::Body, bytes);
        MemoryShare { budget: self.clone(), ticket }
    }

    /// Completes when there may be room again.
    pub(crate) async fn room(&self) {
        self.0.room.notified().await;
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        // A panic in between could at most leave a share counted that is gone.
        self.0.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants what there is room for, the oldest visit first.
    fn serve(&self, mut shares: MutexGuard<'_, Shares>) {
        if shares.used <= shares.grown_max() {
            shares.overdrawing = None;
        }
        while shares.overdrawing.is_none()
            && let Some((ticket, waiter)) = shares.waiting.pop_first()
        {
            self.0.metrics.add(shares.take(ticket, waiter.more), waiter.more);
            // A visit that is cancelled at this moment drops its share.
            waiter.granted.send(()).ok();
        }
        if shares.has_room() {
            self.0.room.notify_one();
        }
    }
}

impl Shares {
    /// What the next visit reserves: while others wait, or the budget is used up, the least.
    fn reserved(&self) -> usize {
        let is_tight = !self.waiting.is_empty() || self.used >= self.max;
        let usual = if is_tight { 0 } else { self.usual };
        usual.min(self.max / RESERVED_SHARE).max(RESERVED_BYTES_MIN)
    }

    fn has_room(&self) -> bool {
        let beyond = self.overdrawing.and_then(|ticket| self.by_ticket.get(&ticket));
        let others = self.used - beyond.map_or(0, |share| share.bytes);
        self.used == 0
            || others + self.reserved() <= self.max
            || self.small() + RESERVED_BYTES_MIN <= self.max / RESERVATIONS_SHARE
    }

    /// What visits have that need no more than is reserved for each: there is room for them whatever decoders have.
    fn small(&self) -> usize {
        let bytes = self.by_ticket.values().map(|share| share.bytes);
        bytes.filter(|bytes| *bytes <= RESERVED_BYTES_MIN).sum()
    }

    /// Up to here visits may grow beyond what they have reserved.
    fn grown_max(&self) -> usize {
        self.max - self.max / RESERVATIONS_SHARE
    }

    /// Whether this visit need not wait: the others wait for the one that goes beyond.
    fn may_take(&self, ticket: u64) -> bool {
        self.overdrawing.is_none_or(|overdrawing| overdrawing == ticket)
    }

    fn take(&mut self, ticket: u64, more: usize) -> MemoryPart {
        self.used += more;
        if self.used > self.grown_max() && self.overdrawing.is_none() {
            self.overdrawing = Some(ticket);
        }
        let share = self.by_ticket.get_mut(&ticket).expect("a share is counted until it is dropped");
        share.bytes += more;
        share.part
    }
}

impl MemoryShare {
    /// Asks for room for `bytes` in total; `None` if the share has it now, else what completes as soon as it has.
    pub(crate) fn grow_to(&self, bytes: usize) -> Option<MemoryWait<'_>> {
        let mut shares = self.budget.shares();
        let share = shares.by_ticket.get_mut(&self.ticket)?;
        share.needed = share.needed.max(bytes);
        let more = bytes.checked_sub(share.bytes).filter(|more| *more > 0)?;
        if shares.may_take(self.ticket) {
            let part = shares.take(self.ticket, more);
            self.budget.0.metrics.add(part, more);
            return None;
        }
        let (granted, grant) = oneshot::channel();
        shares.waiting.insert(self.ticket, Waiter { more, granted });
        self.budget.0.metrics.waits.inc();
        Some(MemoryWait { share: self, grant })
    }

    /// The visit has `bytes` in total already, whether there is room for them or not: a decoder takes what a body asks it for.
    pub(crate) fn hold(&self, bytes: usize) {
        let mut shares = self.budget.shares();
        let Some(share) = shares.by_ticket.get_mut(&self.ticket) else { return };
        share.needed = share.needed.max(bytes);
        if let Some(more) = bytes.checked_sub(share.bytes).filter(|more| *more > 0) {
            let part = shares.take(self.ticket, more);
            self.budget.0.metrics.add(part, more);
        }
    }

    /// The visit now has `bytes` and nothing besides; what it has reserved stays, and the rest is free for others.
    pub(crate) fn shrink_to(&self, bytes: usize) {
        let mut shares = self.budget.shares();
        let Some(share) = shares.by_ticket.get_mut(&self.ticket) else { return };
        let less = share.bytes.saturating_sub(bytes.max(RESERVED_BYTES_MIN));
        share.bytes -= less;
        let part = share.part;
        shares.used -= less;
        self.budget.0.metrics.remove(part, less);
        self.budget.serve(shares);
    }

    /// The visit now uses `bytes` for this, whether there is room for them or not: they are in use already.
    pub(crate) fn use_for(&self, part: MemoryPart, bytes: usize) {
        let mut shares = self.budget.shares();
        let Some(share) = shares.by_ticket.get_mut(&self.ticket) else { return };
        let needed = share.needed.max(bytes);
        let before = std::mem::replace(share, Share { part, bytes, needed });
        shares.used = shares.used - before.bytes + bytes;
        self.budget.0.metrics.remove(before.part, before.bytes);
        self.budget.0.metrics.add(part, bytes);
        self.budget.serve(shares);
    }

    /// The visit waits for another host, and needs nothing meanwhile: what it reserved is free for others.
    pub(crate) fn give_back(&self) {
        let mut shares = self.budget.shares();
        let Some(share) = shares.by_ticket.get_mut(&self.ticket) else { return };
        let (part, bytes) = (share.part, std::mem::take(&mut share.bytes));
        shares.used -= bytes;
        self.budget.0.metrics.remove(part, bytes);
        self.budget.serve(shares);
    }

    /// Takes what another share of the same visit has.
    pub(crate) fn take_over(&self, other: &Self) {
        let mut shares = self.budget.shares();
        let Some(other) = shares.by_ticket.remove(&other.ticket) else { return };
        self.budget.0.metrics.remove(other.part, other.bytes);
        match shares.by_ticket.get_mut(&self.ticket) {
            Some(share) => {
                share.bytes += other.bytes;
                self.budget.0.metrics.add(share.part, other.bytes);
            }
            None => shares.used -= other.bytes,
        }
    }

    /// Whether the visit needed more than is reserved for each, and has it.
    pub(crate) fn has_grown(&self) -> bool {
        let shares = self.budget.shares();
        let share = shares.by_ticket.get(&self.ticket);
        share.is_some_and(|share| share.needed > RESERVED_BYTES_MIN)
            && !shares.waiting.contains_key(&self.ticket)
    }

    /// Whether this is a large share, and other visits wait for room.
    pub(crate) fn is_wanted(&self) -> bool {
        let shares = self.budget.shares();
        let is_large =
            shares.by_ticket.get(&self.ticket).is_some_and(|share| share.bytes >= shares.max / LARGE_SHARE);
        is_large && (!shares.waiting.is_empty() || !shares.has_room())
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.budget.shares().by_ticket.get(&self.ticket).map_or(0, |share| share.bytes)
    }

    /// The budget that this is a part of.
    pub(crate) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        let mut shares = self.budget.shares();
        let Some(share) = shares.by_ticket.remove(&self.ticket) else { return };
        shares.used -= share.bytes;
        shares.waiting.remove(&self.ticket);
        shares.overdrawing = shares.overdrawing.filter(|ticket| *ticket != self.ticket);
        shares.usual = (shares.usual * (VISITS_AVERAGED - 1) + share.needed) / VISITS_AVERAGED;
        self.budget.0.metrics.remove(share.part, share.bytes);
        self.budget.serve(shares);
    }
}

/// A visit that waits for room; it leaves the queue when dropped.
#[derive(Debug)]
pub(crate) struct MemoryWait<'a> {
    share: &'a MemoryShare,
    grant: oneshot::Receiver<()>,
}

impl Future for MemoryWait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Not an error: a waiter leaves the queue when it is granted, or with this.
        Pin::new(&mut self.grant).poll(cx).map(drop)
    }
}

impl Drop for MemoryWait<'_> {
    fn drop(&mut self) {
        self.share.budget.shares().waiting.remove(&self.share.ticket);
    }
}

#[cfg(test)]
mod tests;
