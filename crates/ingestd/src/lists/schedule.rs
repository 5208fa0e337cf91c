//! When a list is read again: one pure function.

use std::time::Duration;

use fetch::schedule::{IntervalBounds, server_interval_max};
use news::Timestamp;

/// So long after the first time, a doubtful loss that is still there counts.
pub(super) const DOUBT: Duration = Duration::from_secs(24 * 3600);
/// First interval after [a 429 or 503](is_throttled), unless the list is read more often.
const THROTTLED: Duration = Duration::from_secs(3600);

/// How a read ended, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// The list was read, or has not changed.
    Fine,
    /// It has lost so much that this may be a fault, since this time.
    Doubtful(Timestamp),
    /// It was not read.
    Failed {
        /// So many times in a row.
        failures: u32,
        /// See [`is_throttled`].
        is_throttled: bool,
        /// How long its host asks to wait.
        wait: Option<Duration>,
    },
}

/// Whether an answer asks for fewer requests, and not only for a pause: a 429 does, however short the time it names, and a 503
/// that names none.
pub(super) fn is_throttled(code: Option<u16>, wait: Option<Duration>) -> bool {
    match code {
        Some(429) => true,
        Some(_) => wait.is_none(),
        None => false,
    }
}

/// When a list is read again that was read now. `jitter` is from 0 to 1.
///
/// A list that fails is read again sooner than others, with intervals that double up to its usual one. None is read sooner
/// than after `fetch.interval_min`.
pub(super) fn next_read(
    every: Duration,
    bounds: IntervalBounds,
    now: Timestamp,
    end: ReadEnd,
    jitter: f64,
) -> Timestamp {
    let every = every.max(bounds.interval_min);
    let doubled = |first: Duration, failures: u32| {
        first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(30)))
    };
    let pause = match end {
        ReadEnd::Fine => every,
        ReadEnd::Doubtful(since) => every.min(since.plus(DOUBT).since(now)),
        ReadEnd::Failed { failures, is_throttled, wait } => {
            let first = if is_throttled { THROTTLED.max(bounds.interval_min) } else { bounds.interval_min };
            let asked = wait.unwrap_or_default().min(server_interval_max(bounds));
            doubled(first, failures).min(every).max(asked)
        }
    };
    let pause = pause.max(bounds.interval_min);
    now.plus(pause + pause.mul_f64(jitter / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    fn after(every: u64, end: ReadEnd) -> u64 {
        let now = Timestamp::from_millis(1_000_000_000);
        let next = next_read(Duration::from_secs(every), IntervalBounds::default(), now, end, 0.0);
        next.since(now).as_secs()
    }

    #[test]
    fn a_list_is_read_every_so_often_and_never_below_the_least_interval() {
        assert_eq!(after(DAY, ReadEnd::Fine), DAY);
        assert_eq!(after(1, ReadEnd::Fine), 5 * MINUTE);
        let now = Timestamp::from_millis(0);
        let late = next_read(Duration::from_secs(DAY), IntervalBounds::default(), now, ReadEnd::Fine, 1.0);
        assert_eq!(late.since(now).as_secs(), DAY + DAY / 10);
    }

    #[test]
    fn a_failure_is_followed_sooner_by_another_read_and_less_and_less_so() {
        let failed =
            |every, failures| after(every, ReadEnd::Failed { failures, is_throttled: false, wait: None });
        let pauses = [1, 2, 3, 9, 10, 40].map(|failures| failed(DAY, failures));
        assert_eq!(pauses, [5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 1280 * MINUTE, DAY, DAY]);
        assert_eq!(failed(HOUR, 9), HOUR);
    }

    #[test]
    fn retry_after_is_kept_and_a_server_that_asks_for_less_is_asked_less() {
        let asked = |every, failures, code: Option<u16>, asked: Option<u64>| {
            let wait = asked.map(Duration::from_secs);
            after(every, ReadEnd::Failed { failures, is_throttled: is_throttled(code, wait), wait })
        };
        for code in [429, 503] {
            let throttled = |failures, wait| asked(DAY, failures, Some(code), wait);
            assert_eq!((throttled(1, None), throttled(3, None)), (HOUR, 4 * HOUR));
            assert_eq!(throttled(1, Some(7 * HOUR)), 7 * HOUR);
            assert_eq!(throttled(1, Some(90 * DAY)), DAY);
        }
        for short in [0, 5] {
            assert_eq!(asked(DAY, 1, Some(429), Some(short)), HOUR, "about our requests");
            assert_eq!(asked(DAY, 3, Some(429), Some(short)), 4 * HOUR);
            assert_eq!(asked(DAY, 1, Some(503), Some(short)), 5 * MINUTE, "an overloaded server");
            assert_eq!(asked(DAY, 3, Some(503), Some(short)), 20 * MINUTE, "it does not end the doubling");
        }
        assert_eq!(asked(5 * MINUTE, 6, Some(429), None), 5 * MINUTE, "never longer than usual");
        assert_eq!(asked(5 * MINUTE, 1, Some(429), Some(HOUR)), HOUR);
        assert_eq!(asked(DAY, 1, None, Some(2 * HOUR)), 2 * HOUR, "a host that was not asked");
        assert_eq!(asked(DAY, 1, None, Some(5)), 5 * MINUTE, "a host that was not asked");
    }

    #[test]
    fn a_doubtful_list_is_read_again_a_day_later_at_the_latest() {
        let now = Timestamp::from_millis(1_000_000_000);
        assert_eq!(after(30 * DAY, ReadEnd::Doubtful(now)), DAY);
        assert_eq!(after(HOUR, ReadEnd::Doubtful(now)), HOUR);
    }
}
