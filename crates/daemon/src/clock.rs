//! The wall clock as a value that is passed in, so that tests decide what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::Timespec;
use tokio::time::Instant;

/// The milliseconds of a time that the system reports.
pub(crate) fn millis(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or_default() * 1000
        + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}

/// The time of day, in milliseconds since 1970-01-01T00:00:00Z. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(TimeSource);

#[derive(Clone, Debug)]
enum TimeSource {
    System,
    Tokio { start_ms: i64, started: Instant },
}

impl Clock {
    /// The system's clock; it jumps when an operator or NTP sets it.
    #[must_use]
    pub fn system() -> Self {
        Self(TimeSource::System)
    }

    /// Starts at `start_ms` (milliseconds since 1970) and follows tokio's clock, also while that is paused.
    #[must_use]
    pub fn from_tokio(start_ms: i64) -> Self {
        Self(TimeSource::Tokio { start_ms, started: Instant::now() })
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn now_millis(&self) -> i64 {
        match &self.0 {
            TimeSource::System => system_millis().saturating_add(ahead_ms()),
            TimeSource::Tokio { start_ms, started } => {
                start_ms.saturating_add(i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX))
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the only place that reads the system clock; all other code takes a Clock"
)]
fn system_millis() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// How far a drill has set the clock ahead, in milliseconds.
#[cfg(feature = "drill")]
pub(crate) use crate::drill::clock_ahead_ms as ahead_ms;

#[cfg(not(feature = "drill"))]
pub(crate) fn ahead_ms() -> i64 {
    0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_system_clock_is_past_2024() {
        assert!(Clock::system().now_millis() > 1_704_067_200_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_paused_time() {
        let clock = Clock::from_tokio(1_000);
        assert_eq!(clock.now_millis(), 1_000);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.clone().now_millis(), 1_250);
    }
}
