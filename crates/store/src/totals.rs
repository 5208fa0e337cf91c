//! How much each source has: events, and their size.

use std::collections::HashMap;

/// Events and their size: what a source has, or may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTotals {
    /// How many.
    pub events: u64,
    /// In bytes, as stored.
    pub bytes: u64,
}

impl EventTotals {
    pub(crate) fn with(self, bytes: u64) -> Self {
        Self { events: self.events + 1, bytes: self.bytes + bytes }
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_sub(other.events),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    pub(crate) fn exceeds(self, max: Self) -> bool {
        self.events > max.events || self.bytes > max.bytes
    }

    /// Whether a source that has this may not take more from others: but its only event need not wait for ever.
    pub(crate) fn is_over(self, max: Self, bytes: u64) -> bool {
        self.events > 0 && self.with(bytes).exceeds(max)
    }
}

/// How many events each source has in a segment, and their bytes; by the hashes of their ids.
pub(crate) type OwnerTotals = HashMap<u64, EventTotals>;

pub(crate) fn owner_hash(source: &str) -> u64 {
    news::stable_hash(source.as_bytes())
}
