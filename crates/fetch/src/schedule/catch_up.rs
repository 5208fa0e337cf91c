//! After a stop, a sleep or a jump of the clock many visits are overdue at once: they are made at the rate at which
//! the schedule makes visits anyway, so that both together are at most twice that.

use std::time::Duration;

use news::Timestamp;

use super::{DAY, IntervalBounds, ask_max};

/// What the schedule says of one source that was visited before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedVisit {
    /// When it was visited last.
    pub last: Option<Timestamp>,
    /// When it is due.
    pub next: Timestamp,
}

impl PlannedVisit {
    fn interval(&self, pace: IntervalBounds) -> Duration {
        let interval = self.last.map_or(pace.interval_max, |last| self.next.since(last));
        interval.clamp(pace.interval_min, pace.interval_max.max(pace.interval_min))
    }
}

/// New dates for those of `planned` that are overdue, or planned later than anything may be (then the clock was wrong
/// when they were): the place in `planned`, and the date. Whoever has waited longest, measured by its own interval,
/// comes first; all of them within `interval_max`.
#[must_use]
pub fn catch_up(now: Timestamp, planned: &[PlannedVisit], pace: IntervalBounds) -> Vec<(usize, Timestamp)> {
    // A tenth of jitter, and a day out of skipHours and skipDays.
    let latest = now.plus(ask_max(pace).saturating_add(ask_max(pace) / 10).saturating_add(DAY));
    let rate: f64 = planned.iter().map(|plan| 1.0 / plan.interval(pace).as_secs_f64().max(0.001)).sum();
    let mut late: Vec<_> =
        planned.iter().enumerate().filter(|(_, p)| p.next <= now || p.next > latest).collect();
    late.sort_by_key(|(place, plan)| (plan.next.plus(plan.interval(pace)), *place));
    let step = 1.0 / rate.max(f64::MIN_POSITIVE);
    let date = |place: u32| {
        let wait = (f64::from(place) * step).min(pace.interval_max.as_secs_f64());
        now.plus(Duration::from_secs_f64(wait))
    };
    (0..).zip(late).map(|(nth, (place, _))| (place, date(nth))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW_MS: i64 = 1_800_000_000_000;

    fn now() -> Timestamp {
        Timestamp::from_millis(NOW_MS)
    }

    fn before(ago: Duration) -> Timestamp {
        Timestamp::from_millis(NOW_MS - i64::try_from(ago.as_millis()).unwrap())
    }

    /// `n` sources of one interval, evenly spread, after a stop of `stopped`.
    fn stopped(n: u32, interval: Duration, stopped: Duration) -> Vec<PlannedVisit> {
        let plan = |k| {
            let last = before(stopped + interval / n * k);
            PlannedVisit { last: Some(last), next: last.plus(interval) }
        };
        (0..n).map(plan).collect()
    }

    fn busiest_minute(mut dates: Vec<Timestamp>) -> usize {
        dates.sort_unstable();
        let within =
            |from: &Timestamp| dates.iter().filter(|at| *at >= from && at.since(*from) < HOUR / 60).count();
        dates.iter().map(within).max().unwrap_or(0)
    }

    #[test]
    fn after_a_stop_visits_come_at_most_twice_as_often_as_always_and_none_is_forgotten() {
        for pause in [HOUR / 10, HOUR / 2, HOUR, HOUR * 50] {
            let planned = stopped(1200, HOUR, pause);
            let caught = catch_up(now(), &planned, IntervalBounds::default());
            assert!(!caught.is_empty());
            let mut dates: Vec<_> = planned.iter().map(|plan| plan.next).collect();
            for (place, at) in caught {
                dates[place] = at;
            }
            assert!(dates.iter().all(|at| *at >= now() && at.since(now()) <= HOUR), "within an interval");
            assert!(busiest_minute(dates) <= 2 * 1200 / 60 + 1);
        }
    }

    #[test]
    fn whoever_is_visited_often_comes_first() {
        let slow = PlannedVisit { last: Some(before(HOUR * 30)), next: before(HOUR * 6) };
        let fast = PlannedVisit { last: Some(before(HOUR * 6)), next: before(HOUR * 5) };
        let caught = catch_up(now(), &[slow, fast], IntervalBounds::default());
        assert_eq!(caught[0], (1, now()));
        assert_eq!(caught[1].0, 0);
    }

    #[test]
    fn what_a_wrong_clock_planned_is_pulled_back_and_the_rest_left_alone() {
        let fine = PlannedVisit { last: Some(now()), next: now().plus(HOUR) };
        let far = PlannedVisit { last: Some(now()), next: now().plus(HOUR * 24 * 400) };
        assert_eq!(catch_up(now(), &[fine, far], IntervalBounds::default()), [(1, now())]);
        assert!(catch_up(now(), &[], IntervalBounds::default()).is_empty());
    }
}
