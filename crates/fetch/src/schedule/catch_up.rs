//! Spreads overdue visits after a stop, a suspend or a jump of the clock: they are made at the normal rate of visits, so
//! that overdue and normal visits together are at most twice as many.

use std::time::Duration;

use news::Timestamp;

use super::{DAY, GONE_WAITS, IntervalBounds, server_interval_max};

/// The schedule of one source that was visited before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedVisit {
    /// When it was visited last.
    pub last: Option<Timestamp>,
    /// When it is due.
    pub next: Timestamp,
    /// Whether three 410s have confirmed that it is gone: its visits are weeks apart.
    pub is_gone: bool,
}

impl PlannedVisit {
    fn interval(&self, bounds: IntervalBounds) -> Duration {
        let interval = self.last.map_or(bounds.interval_max, |last| self.next.since(last));
        interval.clamp(bounds.interval_min, bounds.interval_max.max(bounds.interval_min))
    }

    /// The longest time until it that the schedule has: more means that the clock was wrong.
    fn latest(&self, bounds: IntervalBounds) -> Duration {
        let wait = server_interval_max(bounds);
        let wait = if self.is_gone { wait.max(GONE_WAITS.1) } else { wait };
        // A tenth of jitter, and a day to defer past skipHours and skipDays.
        wait.saturating_add(wait / 10).saturating_add(DAY)
    }
}

/// New dates for those of `planned` that are overdue, or due later than any visit can be (the clock was wrong): the index
/// in `planned`, and the date. The source that is most overdue, relative to its interval, comes first; all of them are
/// visited within `interval_max`.
#[must_use]
pub fn catch_up(now: Timestamp, planned: &[PlannedVisit], bounds: IntervalBounds) -> Vec<(usize, Timestamp)> {
    let rate: f64 = planned.iter().map(|plan| 1.0 / plan.interval(bounds).as_secs_f64().max(0.001)).sum();
    let is_late = |plan: &PlannedVisit| plan.next <= now || plan.next > now.plus(plan.latest(bounds));
    let mut late: Vec<_> = planned.iter().enumerate().filter(|(_, plan)| is_late(plan)).collect();
    late.sort_by_key(|(index, plan)| (plan.next.plus(plan.interval(bounds)), *index));
    let step = 1.0 / rate.max(f64::MIN_POSITIVE);
    let date = |nth: u32| {
        let wait = (f64::from(nth) * step).min(bounds.interval_max.as_secs_f64());
        now.plus(Duration::from_secs_f64(wait))
    };
    (0..).zip(late).map(|(nth, (index, _))| (index, date(nth))).collect()
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
            PlannedVisit { last: Some(last), next: last.plus(interval), is_gone: false }
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
    fn after_a_stop_visits_come_at_most_twice_as_often_as_usual_and_none_is_lost() {
        for pause in [HOUR / 10, HOUR / 2, HOUR, HOUR * 50] {
            let planned = stopped(1200, HOUR, pause);
            let caught = catch_up(now(), &planned, IntervalBounds::default());
            assert!(!caught.is_empty());
            let mut dates: Vec<_> = planned.iter().map(|plan| plan.next).collect();
            for (index, at) in caught {
                dates[index] = at;
            }
            assert!(dates.iter().all(|at| *at >= now() && at.since(now()) <= HOUR), "within an interval");
            assert!(busiest_minute(dates) <= 2 * 1200 / 60 + 1);
        }
    }

    #[test]
    fn a_source_that_is_visited_often_comes_first() {
        let slow = PlannedVisit { last: Some(before(HOUR * 30)), next: before(HOUR * 6), is_gone: false };
        let fast = PlannedVisit { last: Some(before(HOUR * 6)), next: before(HOUR * 5), is_gone: false };
        let caught = catch_up(now(), &[slow, fast], IntervalBounds::default());
        assert_eq!(caught[0], (1, now()));
        assert_eq!(caught[1].0, 0);
    }

    #[test]
    fn a_visit_planned_with_a_wrong_clock_is_moved_back_and_others_are_not() {
        let fine = PlannedVisit { last: Some(now()), next: now().plus(HOUR), is_gone: false };
        let far = PlannedVisit { last: Some(now()), next: now().plus(HOUR * 24 * 400), is_gone: false };
        assert_eq!(catch_up(now(), &[fine, far], IntervalBounds::default()), [(1, now())]);
        assert!(catch_up(now(), &[], IntervalBounds::default()).is_empty());
    }

    #[test]
    fn a_gone_source_is_not_visited_because_its_visit_is_weeks_away() {
        let gone =
            |days: u32| PlannedVisit { last: Some(now()), next: now().plus(HOUR * 24 * days), is_gone: true };
        assert_eq!(catch_up(now(), &[gone(7), gone(62)], IntervalBounds::default()), []);
        assert_eq!(catch_up(now(), &[gone(400)], IntervalBounds::default()), [(0, now())]);
    }
}
