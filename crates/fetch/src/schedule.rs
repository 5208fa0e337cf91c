//! When to come again, and why: one pure function.
//!
//! ```text
//!   base   every | rhythm of the feed | doubling after failures          within interval_min..interval_max
//!   asks   Retry-After, max-age/Expires (up to a day), ttl, sy:update    the longer of base and asks counts
//!   spread ±10 %, never below interval_min nor below what was asked
//!   moved  out of skipHours and skipDays, by at most a day
//! ```
//!
//! `every` overrules the hints inside the document (ttl, sy:update), never what the server asks over HTTP.
//! No source is ever silently dead: only a 410 that was confirmed ends its visits, and says so.

mod calendar;
mod catch_up;
mod ordinal;
mod rhythm;

use std::time::Duration;

use news::Timestamp;
use notation::humanize;

use calendar::Calendar;
pub use catch_up::{PlannedVisit, catch_up};
use ordinal::ordinal;

/// The bounds of every interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntervalBounds {
    /// Never come sooner, whatever anybody says. 5 minutes.
    pub interval_min: Duration,
    /// Never come later, unless the server asks for it. 24 hours.
    pub interval_max: Duration,
}

impl Default for IntervalBounds {
    fn default() -> Self {
        Self { interval_min: Duration::from_secs(5 * 60), interval_max: DAY }
    }
}

/// How the visit ended, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleOutcome {
    /// The feed was had, whole or in part.
    Healthy,
    /// We had it already: 304, or the same bytes again.
    Unchanged,
    /// No feed.
    Failed,
    /// 429 or 503.
    Throttled,
    /// 410.
    Gone,
}

/// Everything that decides about the next visit.
#[derive(Clone, Debug)]
pub struct ScheduleInput<'a> {
    /// The bounds, from the configuration.
    pub pace: IntervalBounds,
    /// When the visit ended.
    pub now: Timestamp,
    /// How it ended.
    pub outcome: ScheduleOutcome,
    /// Its HTTP status, if a server answered.
    pub code: Option<u16>,
    /// Visits in a row without a feed, this one included; 0 counts as 1 after a failure.
    pub failures: u32,
    /// 410s in a row, this one included; 0 counts as 1 after a 410.
    pub gone_in_a_row: u32,
    /// The interval that the operator fixed for this source.
    pub every: Option<Duration>,
    /// When its items were published (or first seen, where the feed does not say), in any order; the newest 20 count.
    pub recent: &'a [Timestamp],
    /// For how long it has given us nothing new; zero for a source that was never visited before. Nothing when that is
    /// not known.
    pub quiet_for: Option<Duration>,
    /// `ttl` of RSS 2.0.
    pub ttl: Option<Duration>,
    /// `sy:updatePeriod` divided by `sy:updateFrequency`.
    pub update_period: Option<Duration>,
    /// `skipHours`: hours of the day in UTC in which the feed wants no visit. Bit `n` is the hour `n`, 0 to 23.
    pub skip_hours: u32,
    /// `skipDays`: days of the week in UTC on which the feed wants no visit. Bit 0 is Monday, bit 6 Sunday.
    pub skip_days: u8,
    /// How long the server says that its answer stays fresh ([`crate::Freshness`]).
    pub cache_life: Option<Duration>,
    /// How long the server asks us to stay away.
    pub retry_after: Option<Duration>,
}

impl ScheduleInput<'_> {
    /// Facts that say no more than how a visit ended.
    #[must_use]
    pub fn new(pace: IntervalBounds, now: Timestamp, outcome: ScheduleOutcome) -> Self {
        Self {
            pace,
            now,
            outcome,
            code: None,
            failures: 0,
            gone_in_a_row: 0,
            every: None,
            recent: &[],
            quiet_for: None,
            ttl: None,
            update_period: None,
            skip_hours: 0,
            skip_days: 0,
            cache_life: None,
            retry_after: None,
        }
    }
}

/// When to come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The time; nothing when no visit is planned.
    pub at: Option<Timestamp>,
    /// One short sentence that names the rule that decided.
    pub why: String,
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a server may send us away, when `interval_max` is not longer still.
const ASK_MAX: Duration = DAY;
/// The first pause after a 429 that does not say how long.
const THROTTLED: Duration = Duration::from_secs(3600);
/// A 410 counts only when it is confirmed so often in a row.
const GONE_CONFIRMATIONS: u32 = 3;
/// A 410 is often a deployment gone wrong, so the confirmations are spread wider than the visits.
const GONE_SPREAD: u32 = 6;
/// New sources start so far apart.
const FIRST_STEP: Duration = Duration::from_millis(10);

/// A wait, and the sentence for it.
struct Rule {
    wait: Duration,
    why: String,
}

/// Says when to come again after a visit. `jitter` is a random number from 0 to 1, from outside.
#[must_use]
pub fn next_visit(facts: &ScheduleInput<'_>, jitter: f64) -> Next {
    let pace = IntervalBounds {
        interval_min: facts.pace.interval_min,
        interval_max: facts.pace.interval_max.max(facts.pace.interval_min),
    };
    let start = facts.every.unwrap_or_default().clamp(pace.interval_min, pace.interval_max);
    let base = match facts.outcome {
        ScheduleOutcome::Healthy | ScheduleOutcome::Unchanged => rhythm::base(facts, pace),
        ScheduleOutcome::Failed => failed(facts.failures.max(1), start, pace),
        ScheduleOutcome::Throttled => throttled(facts, start, pace),
        ScheduleOutcome::Gone if facts.gone_in_a_row >= GONE_CONFIRMATIONS => {
            return Next { at: None, why: format!("gone (410), confirmed {GONE_CONFIRMATIONS} times") };
        }
        ScheduleOutcome::Gone => gone(facts.gone_in_a_row.max(1), start, pace),
    };
    let (wait, why) = match longest_ask(facts, pace) {
        Some(ask) if ask.wait >= base.wait => (between(ask.wait, tenth_more(ask.wait), jitter), ask.why),
        ask => {
            let floor = ask.map_or(pace.interval_min, |ask| ask.wait.max(pace.interval_min));
            let low = (base.wait - base.wait / 10).max(floor);
            let high = tenth_more(base.wait).min(pace.interval_max).max(low);
            (between(low, high, jitter), base.why)
        }
    };
    let next = Next { at: Some(facts.now.plus(wait)), why };
    defer_past_skip_windows(next, facts.skip_hours, facts.skip_days, jitter)
}

/// Moves a visit out of the hours and days that the feed wants to be left alone in, by at most a day. The sets are those
/// of [`ScheduleInput`]; `jitter` is a random number from 0 to 1, from outside.
#[must_use]
pub fn defer_past_skip_windows(next: Next, skip_hours: u32, skip_days: u8, jitter: f64) -> Next {
    let Next { at: Some(at), why } = next else { return next };
    let latest = at.plus(ASK_MAX);
    match Calendar::new(skip_hours, skip_days).first_allowed(at, latest) {
        hour if hour == at => Next { at: Some(at), why },
        hour => {
            // Spread over ten minutes, lest every feed of a publisher is due at the full hour.
            let spread = between(Duration::ZERO, Duration::from_secs(600), jitter);
            let at = if hour == latest { latest } else { hour.plus(spread).min(latest) };
            Next { at: Some(at), why: format!("{why}, moved out of the feed's skipHours and skipDays") }
        }
    }
}

/// Says when a source that was never visited is visited first: new sources start 10 ms apart, and all of them
/// within `interval_min`. `place` counts from 0.
#[must_use]
pub fn first_visit(now: Timestamp, place: usize, total: usize, pace: IntervalBounds) -> Next {
    let total = u32::try_from(total.max(1)).unwrap_or(u32::MAX);
    let place = u32::try_from(place).unwrap_or(u32::MAX).min(total - 1);
    let in_all = FIRST_STEP.saturating_mul(total).min(pace.interval_min);
    let wait = Duration::from_secs_f64(in_all.as_secs_f64() * f64::from(place) / f64::from(total));
    Next { at: Some(now.plus(wait)), why: format!("new source, number {} of {total}", place + 1) }
}

/// The longest time for which a server may send us away.
#[must_use]
pub fn ask_max(pace: IntervalBounds) -> Duration {
    ASK_MAX.max(pace.interval_max)
}

fn doubled(start: Duration, times: u32, pace: IntervalBounds) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    start.saturating_mul(factor).clamp(pace.interval_min, pace.interval_max)
}

fn failed(failures: u32, start: Duration, pace: IntervalBounds) -> Rule {
    let wait = doubled(start, failures - 1, pace);
    let why = match failures {
        1 => format!("first failure: {}", humanize(wait)),
        n if wait == pace.interval_max => {
            format!("{} failure in a row, never later than {}", ordinal(n), humanize(wait))
        }
        n => format!("{} failure in a row, doubling: {}", ordinal(n), humanize(wait)),
    };
    Rule { wait, why }
}

fn throttled(facts: &ScheduleInput<'_>, start: Duration, pace: IntervalBounds) -> Rule {
    let status = facts.code.unwrap_or(429);
    if let Some(asked) = facts.retry_after {
        let why = format!(
            "throttled ({status}): server asked for {} (Retry-After), never sooner than {}",
            humanize(asked),
            humanize(start)
        );
        return Rule { wait: start, why };
    }
    // A 503 is a server in trouble, mostly for minutes; a 429 is about us.
    let first = if status == 503 { start } else { start.max(THROTTLED) };
    let failures = facts.failures.max(1);
    let wait = doubled(first, failures - 1, pace);
    let why = format!(
        "throttled ({status}) without Retry-After, {} visit in a row without a feed: {}",
        ordinal(failures),
        humanize(wait)
    );
    Rule { wait, why }
}

fn gone(times: u32, start: Duration, pace: IntervalBounds) -> Rule {
    let wait = doubled(start.saturating_mul(GONE_SPREAD), times - 1, pace);
    let why =
        format!("gone (410), seen {times} of {GONE_CONFIRMATIONS} times: asking again in {}", humanize(wait));
    Rule { wait, why }
}

/// The longest of what the server and the document ask for.
fn longest_ask(facts: &ScheduleInput<'_>, pace: IntervalBounds) -> Option<Rule> {
    let server = ask_max(pace);
    let has_feed = matches!(facts.outcome, ScheduleOutcome::Healthy | ScheduleOutcome::Unchanged);
    let hint = |wait: Option<Duration>| wait.filter(|_| has_feed && facts.every.is_none());
    let asks = [
        (facts.retry_after, server, "server asked for", "Retry-After"),
        (facts.cache_life, server, "server says its answer stays fresh for", "max-age or Expires"),
        (hint(facts.ttl), pace.interval_max, "feed says it stays fresh for", "ttl"),
        (hint(facts.update_period), pace.interval_max, "feed says it changes every", "sy:updatePeriod"),
    ];
    let cut = |(wait, max, says, field): (Option<Duration>, Duration, &str, &str)| {
        let asked = wait.filter(|wait| !wait.is_zero())?;
        let cut = if asked > max { format!(", cut to {}", humanize(max)) } else { String::new() };
        let why = format!("{says} {} ({field}){cut}", humanize(asked));
        Some(Rule { wait: asked.min(max), why })
    };
    // `max_by_key` gives the last of equals, so reversed: on a tie the stronger voice is named.
    asks.into_iter().filter_map(cut).rev().max_by_key(|rule| rule.wait)
}

fn tenth_more(wait: Duration) -> Duration {
    wait.saturating_add(wait / 10)
}

fn between(low: Duration, high: Duration, jitter: f64) -> Duration {
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
    (low + high.saturating_sub(low).mul_f64(jitter)).min(high.max(low))
}

#[cfg(test)]
mod tests;
