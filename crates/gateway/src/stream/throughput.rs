//! How fast a client takes the events that it has not had: the slow-client rule.
//!
//! actix does not poll a client whose buffer is full, so what counts is whether the client ever caught up.

use std::time::Duration;

use news::Seq;
use tokio::time::Instant;

/// A client that is behind and slower than this would stay behind for ever.
const EVENTS_PER_SECOND_MIN: f64 = 5.0;

/// One client's progress in the current window.
pub(super) struct Throughput {
    /// When this window ends.
    pub(super) window_ends: Instant,
    /// The client's cursor at the start of the window.
    from: Seq,
    /// The client has every event now.
    caught_up: bool,
    /// The client had every event at some time in this window.
    was_caught_up: bool,
    /// The window before was too slow.
    was_slow: bool,
}

impl Throughput {
    pub(super) fn new(window_ends: Instant) -> Self {
        Self { window_ends, from: Seq::NONE, caught_up: false, was_caught_up: true, was_slow: false }
    }

    /// The client has every event, and waits.
    pub(super) fn on_caught_up(&mut self) {
        (self.caught_up, self.was_caught_up) = (true, true);
    }

    /// There are events for the client again.
    pub(super) fn on_events(&mut self) {
        self.caught_up = false;
    }

    /// Ends a window and starts the next; returns whether this one and the one before were too slow.
    pub(super) fn is_too_slow(&mut self, cursor: Seq, now: Instant, window: Duration) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "no client takes 2^52 events in a window")]
        let events = cursor.0.saturating_sub(self.from.0) as f64;
        let is_behind = !self.caught_up && !self.was_caught_up;
        let is_slow = is_behind && events < EVENTS_PER_SECOND_MIN * window.as_secs_f64();
        let was_slow = std::mem::replace(&mut self.was_slow, is_slow);
        (self.window_ends, self.from, self.was_caught_up) = (now + window, cursor, self.caught_up);
        is_slow && was_slow
    }
}

#[cfg(test)]
impl Throughput {
    /// Too slow in the window before, and in the one that ends then unless events are taken.
    pub(super) fn slow_at(window_ends: Instant) -> Self {
        Self { was_caught_up: false, was_slow: true, ..Self::new(window_ends) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    /// The result of each window of a client that takes so many events in it, and never catches up.
    fn windows_too_slow(events: &[u64]) -> Vec<bool> {
        let now = Instant::now();
        let mut throughput = Throughput { was_caught_up: false, ..Throughput::new(now) };
        let mut cursor = Seq::NONE;
        let window = |n: &u64| {
            cursor = Seq(cursor.0 + n);
            throughput.is_too_slow(cursor, now, WINDOW)
        };
        events.iter().map(window).collect()
    }

    #[test]
    fn two_slow_windows_in_a_row_are_too_slow() {
        assert_eq!(windows_too_slow(&[149, 149]), [false, true]);
        assert_eq!(windows_too_slow(&[0, 150, 0, 150]), [false; 4]);
        assert_eq!(windows_too_slow(&[1000, 0, 0]), [false, false, true]);
    }

    #[test]
    fn a_client_that_caught_up_is_never_too_slow() {
        let now = Instant::now();
        let mut throughput = Throughput::new(now);
        for _ in 0..3 {
            throughput.caught_up = true;
            assert!(!throughput.is_too_slow(Seq(1), now, WINDOW), "there is nothing to take, and it waits");
        }
        throughput.caught_up = false;
        assert!(!throughput.is_too_slow(Seq(1), now, WINDOW), "it waited when the window began");
        assert!(!throughput.is_too_slow(Seq(1), now, WINDOW), "one window is not enough");
        assert!(throughput.is_too_slow(Seq(1), now, WINDOW));
    }
}
