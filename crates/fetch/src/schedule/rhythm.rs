//! How often a healthy feed is visited: half its mean gap between items, less often when it falls asleep.
//!
//! Soon after something new it is visited more often, because news comes in bursts, corrections follow, and what a
//! feed says about its own dates has yet to prove true: never again before it has been quiet for as long again.

use std::time::Duration;

use notation::humanize;

use super::{DAY, IntervalBounds, Rule, ScheduleInput};

/// So many of the newest items show the rhythm.
const ITEMS_MAX: usize = 20;
/// A feed whose items have no dates is visited so often.
const UNDATED: Duration = Duration::from_secs(3600);
/// A feed that published nothing for so many days is visited every `interval_max` divided by the second number.
const ASLEEP: [(u32, u32); 3] = [(30, 1), (14, 2), (7, 4)];

pub(super) fn base(facts: &ScheduleInput<'_>, pace: IntervalBounds) -> Rule {
    let base = by_dates(facts, pace);
    let Some(quiet) = facts.quiet_for.filter(|_| facts.every.is_none()) else { return base };
    let soon = quiet.max(pace.interval_min);
    if soon >= base.wait {
        return base;
    }
    let why = if quiet.is_zero() {
        format!("in {}: a new source is watched closely at first", humanize(soon))
    } else {
        format!("in {}: something new came {} ago", humanize(soon), humanize(quiet))
    };
    Rule { wait: soon, why }
}

fn by_dates(facts: &ScheduleInput<'_>, pace: IntervalBounds) -> Rule {
    let clamp = |wait: Duration, max: Duration| wait.min(max).clamp(pace.interval_min, pace.interval_max);
    if let Some(every) = facts.every {
        let wait = clamp(every, pace.interval_max);
        let why = format!("every {}, as configured", humanize(wait));
        let cut =
            if wait == every { String::new() } else { format!(" ({}, within the bounds)", humanize(every)) };
        return Rule { wait, why: why + &cut };
    }
    let mut past: Vec<_> = facts.recent.iter().copied().filter(|at| *at <= facts.now).collect();
    past.sort_unstable_by(|a, b| b.cmp(a));
    past.truncate(ITEMS_MAX);
    let (Some(newest), Some(oldest)) = (past.first(), past.last()) else {
        let wait = clamp(UNDATED, pace.interval_max);
        return Rule { wait, why: format!("every {} (no item has a date)", humanize(wait)) };
    };
    let silence = facts.now.since(*newest);
    if let Some((_, part)) = ASLEEP.into_iter().find(|(days, _)| silence >= DAY * *days) {
        let wait = clamp(pace.interval_max / part, pace.interval_max);
        return Rule {
            wait,
            why: format!("every {} (nothing new for {})", humanize(wait), humanize(silence)),
        };
    }
    // Up to now, not up to the newest item: so a feed that stops publishing slows down at once.
    let gap = facts.now.since(*oldest) / u32::try_from(past.len()).expect("at most ITEMS_MAX are left");
    let wait = clamp(gap / 2, pace.interval_max / 4);
    Rule { wait, why: format!("every {} (feed publishes about every {})", humanize(wait), humanize(gap)) }
}
