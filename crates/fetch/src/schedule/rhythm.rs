//! How often a healthy feed is visited: at half the mean gap between its items, less often once it stops publishing.
//!
//! After a new item it is visited more often, because items come in bursts, corrections follow, and the dates of a feed
//! may be wrong: the interval is at least the time since the last new item.

use std::{cmp::Ordering, time::Duration};

use notation::humanize;

use super::{DAY, IntervalBounds, Rule, ScheduleInput};

/// Number of newest items that count.
const ITEMS_MAX: usize = 20;
/// Interval of a feed whose items have no dates.
const UNDATED: Duration = Duration::from_secs(3600);
/// A feed without a new item for this many days is visited every `interval_max` divided by the second number.
const DORMANT: [(u32, u32); 3] = [(30, 1), (14, 2), (7, 4)];

pub(super) fn base(input: &ScheduleInput<'_>, bounds: IntervalBounds) -> Rule {
    let base = by_dates(input, bounds);
    let Some(quiet) = input.quiet_for.filter(|_| input.every.is_none()) else { return base };
    let soon = quiet.max(bounds.interval_min);
    if soon >= base.wait {
        return base;
    }
    let why = if quiet.is_zero() {
        format!("in {}: a new source is visited often at first", humanize(soon))
    } else {
        format!("in {}: the last new item came {} ago", humanize(soon), humanize(quiet))
    };
    Rule { wait: soon, why }
}

fn by_dates(input: &ScheduleInput<'_>, bounds: IntervalBounds) -> Rule {
    let clamp = |wait: Duration, max: Duration| wait.min(max).clamp(bounds.interval_min, bounds.interval_max);
    if let Some(every) = input.every {
        let wait = clamp(every, bounds.interval_max);
        let why = match wait.cmp(&every) {
            Ordering::Equal => format!("every {}, as configured", humanize(wait)),
            Ordering::Greater => {
                format!("every {}, the minimum ({} configured)", humanize(wait), humanize(every))
            }
            Ordering::Less => {
                format!("every {}, the maximum ({} configured)", humanize(wait), humanize(every))
            }
        };
        return Rule { wait, why };
    }
    let (Some(newest), Some((_, gap))) =
        (input.recent.iter().filter(|at| **at <= input.now).max(), mean_gap(input))
    else {
        let wait = clamp(UNDATED, bounds.interval_max);
        return Rule { wait, why: format!("every {} (no item has a date)", humanize(wait)) };
    };
    let silence = input.now.since(*newest);
    if let Some((_, part)) = DORMANT.into_iter().find(|(days, _)| silence >= DAY * *days) {
        let wait = clamp(bounds.interval_max / part, bounds.interval_max);
        return Rule {
            wait,
            why: format!("every {} (nothing new for {})", humanize(wait), humanize(silence)),
        };
    }
    let wait = clamp(gap / 2, bounds.interval_max / 4);
    Rule { wait, why: format!("every {} (the feed publishes about every {})", humanize(wait), humanize(gap)) }
}

/// The mean time between the newest items, and their number; `None` without dates. Up to now, not up to the newest item: a
/// feed that stops publishing is visited less often at once.
pub(super) fn mean_gap(input: &ScheduleInput<'_>) -> Option<(usize, Duration)> {
    let mut past: Vec<_> = input.recent.iter().copied().filter(|at| *at <= input.now).collect();
    past.sort_unstable_by(|a, b| b.cmp(a));
    past.truncate(ITEMS_MAX);
    let gap = input.now.since(*past.last()?) / u32::try_from(past.len()).ok()?;
    Some((past.len(), gap))
}
