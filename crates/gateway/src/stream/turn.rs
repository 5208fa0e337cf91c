//! How much one stream may do before the other streams of its worker come first: events looked at, time, bytes.

use std::time::Duration;

use tokio::time::Instant;

/// Events that a stream may look at in one turn.
const EVENTS_MAX: usize = 8192;
/// How long it may look at events in one turn.
const SCAN_MAX: Duration = Duration::from_micros(300);
/// Bytes that it may hand out in one turn.
const BYTES_MAX: usize = 32 * 1024;
/// Work between two looks at the clock, in events.
const CLOCK_INTERVAL: usize = 32;
/// Bytes of text that are as much work as an event, when words are searched for.
const TEXT_BYTES_PER_EVENT: usize = 1024;

/// What a stream has done in its turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    events: usize,
    /// Work since the last look at the clock.
    unclocked: usize,
    /// At the first look at the clock: a turn of a few events never looks.
    started: Option<Instant>,
    bytes: usize,
    scanned_enough: bool,
}

impl Turn {
    /// An event was looked at, and `text_bytes` of its text.
    pub(crate) fn on_event(&mut self, text_bytes: usize) {
        self.events += 1;
        self.unclocked += 1 + text_bytes / TEXT_BYTES_PER_EVENT;
        self.scanned_enough |= self.events >= EVENTS_MAX;
        if self.unclocked >= CLOCK_INTERVAL {
            self.unclocked = 0;
            let now = Instant::now();
            let started = *self.started.get_or_insert(now);
            self.scanned_enough |= now.duration_since(started) >= SCAN_MAX;
        }
    }

    /// So many bytes were handed out.
    pub(crate) fn on_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Ends the turn, whatever was done in it.
    pub(crate) fn end(&mut self) {
        self.scanned_enough = true;
    }

    /// Whether it may look at no more events.
    pub(crate) fn scanned_enough(&self) -> bool {
        self.scanned_enough
    }

    /// Whether the others come first.
    pub(crate) fn is_over(&self) -> bool {
        self.scanned_enough || self.bytes >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_bounded_in_events_and_in_bytes() {
        let mut turn = Turn::default();
        let events = (0..2 * EVENTS_MAX).take_while(|_| {
            turn.on_event(0);
            !turn.is_over()
        });
        assert!(events.count() < EVENTS_MAX);
        let mut turn = Turn::default();
        turn.on_bytes(BYTES_MAX - 1);
        assert!(!turn.is_over());
        turn.on_bytes(1);
        assert!(turn.is_over() && !turn.scanned_enough());
    }

    #[test]
    fn a_turn_of_long_texts_is_bounded_in_time() {
        let mut turn = Turn::default();
        let started = Instant::now();
        let mut texts = 0;
        while !turn.scanned_enough() {
            assert!(started.elapsed() < Duration::from_secs(5), "{texts} texts");
            std::thread::sleep(Duration::from_micros(50));
            turn.on_event(64 * 1024);
            texts += 1;
        }
        assert!((2..EVENTS_MAX).contains(&texts), "{texts}");
    }
}
