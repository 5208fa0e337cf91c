//! Jumps of the wall clock: it was set, or the machine slept. Timers do not notice.

use std::time::Duration;

use daemon::Clock;
use news::Timestamp;
use tokio::time::Instant;

/// The wall clock, and at the same moment a clock that never jumps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockReading {
    pub(crate) wall: Timestamp,
    pub(crate) steady: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockJump {
    Ahead(Duration),
    Back(Duration),
}

impl ClockReading {
    pub(crate) fn now(clock: &Clock) -> Self {
        Self { wall: Timestamp::from_millis(clock.now_millis()), steady: Instant::now() }
    }

    /// How the wall clock jumped between the two readings; `None` if by less than `min`.
    pub(crate) fn jump_until(self, now: Self, min: Duration) -> Option<ClockJump> {
        let expected = self.wall.plus(now.steady - self.steady);
        let (ahead, back) = (now.wall.since(expected), expected.since(now.wall));
        if ahead.max(back) < min {
            return None;
        }
        Some(if back > ahead { ClockJump::Back(back) } else { ClockJump::Ahead(ahead) })
    }
}
