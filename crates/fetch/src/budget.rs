//! Room for bodies, which a caller may limit in bytes, all visits together.

use std::{fmt, pin::Pin, time::Duration};

use tokio::time::Instant;

/// Completes when there is room.
pub type RoomWait<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What a body asks for room before it grows.
pub trait ByteBudget: fmt::Debug + Send + Sync {
    /// Completes when the body of a visit may have `bytes` in total. No time limit of the visit runs meanwhile.
    fn grow_to(&self, bytes: usize) -> RoomWait<'_>;

    /// The body of a visit and what decodes it have `bytes` in total already, whether there is room for them or not.
    fn hold(&self, bytes: usize);

    /// Whether other visits wait for what this body has: it must then arrive at [`crate::Policy::rate_bytes_wanted`].
    fn is_wanted(&self) -> bool;
}

/// The room that one body has.
pub(crate) struct BodyRoom<'a> {
    budget: Option<&'a dyn ByteBudget>,
    /// Longest body.
    max: usize,
    /// What decodes the body has so many bytes.
    decoder: usize,
}

impl<'a> BodyRoom<'a> {
    pub(crate) fn new(budget: Option<&'a dyn ByteBudget>, max: usize) -> Self {
        Self { budget, max, decoder: 0 }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.budget.is_some_and(ByteBudget::is_wanted)
    }

    /// What decodes the body has so many bytes now, and the body itself has room for `capacity`.
    pub(crate) fn decoder_has(&mut self, bytes: usize, capacity: usize) {
        self.decoder = bytes;
        if let Some(budget) = self.budget {
            budget.hold(capacity + bytes);
        }
    }

    /// Makes room for `more` bytes: as much again as there is, if that is more. Returns how long the budget took.
    pub(crate) async fn make(&self, buffer: &mut Vec<u8>, more: usize) -> Duration {
        let needed = buffer.len() + more;
        if needed <= buffer.capacity() {
            return Duration::ZERO;
        }
        let capacity = (2 * buffer.capacity()).min(self.max).max(needed);
        let asked = Instant::now();
        if let Some(budget) = self.budget {
            budget.grow_to(capacity + self.decoder).await;
        }
        buffer.reserve_exact(capacity - buffer.len());
        asked.elapsed()
    }
}
