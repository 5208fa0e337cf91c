//! When the next visit is due, and why: one pure function.
//!
//! ```text
//!   base     every | rhythm of the feed                                   within interval_min..interval_max
//!   hints    max-age/Expires (up to a day), ttl, sy:update                the longer of base and hints applies
//!   evidence two items in the last hour: interval_min; a feed that is not quiet limits the hints
//!   failure  doubles what a working feed would get, each time             up to interval_max; Retry-After if longer
//!   gone     after three 410s: 7, 14, 28, then 56 days
//!   jitter   ±10 %, never below interval_min nor below the hint
//!   defer    past skipHours and skipDays, by at most a day, unless two items came in the last hour
//! ```
//!
//! `every` and `fresh = "ignore"` override all hints, skipHours and skipDays, but neither Retry-After nor the backoff.
//! A failure never makes a source be visited sooner than a success would. No source is ever given up.

mod calendar;
mod catch_up;
mod evidence;
mod ordinal;
mod rhythm;

use std::time::Duration;

use news::Timestamp;
use notation::humanize;

use calendar::Calendar;
pub use catch_up::{PlannedVisit, catch_up};
pub use evidence::RecordedNews;
use ordinal::ordinal;

/// The bounds of every interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntervalBounds {
    /// Shortest interval, whatever feed, server and operator ask for. 5 minutes.
    pub interval_min: Duration,
    /// Longest interval, unless the server asks for a longer one. 24 hours.
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
    /// The feed was fetched, all of it or in part.
    Healthy,
    /// The feed has not changed: 304, or the same bytes.
    Unchanged,
    /// The visit failed.
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
    pub bounds: IntervalBounds,
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
    /// `every` of the source: what document and server ask for does not count.
    pub every: Option<Duration>,
    /// `fresh = "ignore"` of the source: what document and server ask for does not count, except `Retry-After`.
    pub ignores_hints: bool,
    /// When its items were published (or first seen, if they have no date), in any order; the newest 20 count.
    pub recent: &'a [Timestamp],
    /// Time since the last new item; zero for a source that never worked. `None` if unknown.
    pub quiet_for: Option<Duration>,
    /// What its visits recorded.
    pub recorded: RecordedNews,
    /// `ttl` of RSS 2.0.
    pub ttl: Option<Duration>,
    /// `sy:updatePeriod` divided by `sy:updateFrequency`.
    pub update_period: Option<Duration>,
    /// `skipHours`: hours of the day in UTC to skip. Bit `n` is the hour `n`, 0 to 23.
    pub skip_hours: u32,
    /// `skipDays`: days of the week in UTC to skip. Bit 0 is Monday, bit 6 Sunday.
    pub skip_days: u8,
    /// How long the response is fresh, according to the server ([`crate::Freshness`]).
    pub cache_life: Option<Duration>,
    /// When the last visit ended that found a feed; `None` if unknown. Failures double the interval of that time.
    pub worked_at: Option<Timestamp>,
    /// `cache_life` of the last response with a feed: how often a feed that fails now was visited while it worked.
    pub cache_life_before: Option<Duration>,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl ScheduleInput<'_> {
    /// Input with no more than how a visit ended.
    #[must_use]
    pub fn new(bounds: IntervalBounds, now: Timestamp, outcome: ScheduleOutcome) -> Self {
        Self {
            bounds,
            now,
            outcome,
            code: None,
            failures: 0,
            gone_in_a_row: 0,
            every: None,
            ignores_hints: false,
            recent: &[],
            quiet_for: None,
            recorded: RecordedNews::default(),
            ttl: None,
            update_period: None,
            skip_hours: 0,
            skip_days: 0,
            cache_life: None,
            worked_at: None,
            cache_life_before: None,
            retry_after: None,
        }
    }
}

/// The next visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// When it is due; `None` never comes out of [`next_visit`].
    pub at: Option<Timestamp>,
    /// The rule that decided, in one short sentence for operators.
    pub why: String,
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longest interval that a server may ask for, unless `interval_max` is longer.
const ASK_MAX: Duration = DAY;
/// First interval after a 429 without `Retry-After`.
const THROTTLED: Duration = Duration::from_secs(3600);
/// Number of 410s in a row that confirm that a feed is gone.
const GONE_CONFIRMATIONS: u32 = 3;
/// A 410 is often a deployment error, so the visits that confirm it are further apart than others by this factor.
const GONE_SPREAD: u32 = 6;
/// First interval after a confirmed 410, and the longest: people move feeds back, and correct their servers.
const GONE_WAITS: (Duration, Duration) = (DAY.saturating_mul(7), DAY.saturating_mul(56));
/// The end of the reason for a visit in hours or on days that the feed skips.
const SKIPPED_TIME: &str = ", although the feed skips that time";
/// Interval between the first visits of new sources.
const FIRST_STEP: Duration = Duration::from_millis(10);

/// An interval, and the reason for it.
struct Rule {
    wait: Duration,
    why: String,
}

/// An interval before jitter, its bounds with jitter, and the reason for it.
struct PlannedInterval {
    rule: Rule,
    low: Duration,
    high: Duration,
}

/// Decides when the next visit is due. `jitter` is a random number from 0 to 1, passed in.
#[must_use]
pub fn next_visit(input: &ScheduleInput<'_>, jitter: f64) -> Next {
    let bounds = IntervalBounds {
        interval_min: input.bounds.interval_min,
        interval_max: input.bounds.interval_max.max(input.bounds.interval_min),
    };
    let PlannedInterval { rule, low, high } = match input.outcome {
        ScheduleOutcome::Healthy | ScheduleOutcome::Unchanged => working(input, bounds),
        _ => failing(input, bounds),
    };
    let next = Next { at: Some(input.now.plus(between(low, high, jitter))), why: rule.why };
    input.defer_past_skip_windows(next, jitter)
}

impl ScheduleInput<'_> {
    /// Defers a visit past the feed's skipHours and skipDays, by at most a day, unless the operator has decided that they do
    /// not count, or the feed is in a burst. `jitter` is a random number from 0 to 1, passed in.
    #[must_use]
    pub fn defer_past_skip_windows(&self, next: Next, jitter: f64) -> Next {
        let Next { at: Some(at), why } = next else { return next };
        let latest = at.plus(ASK_MAX);
        let hour = Calendar::new(self.skip_hours, self.skip_days).first_allowed(at, latest);
        if hour == at || self.overrides_hints() {
            return Next { at: Some(at), why };
        }
        if evidence::burst(self).is_some() {
            let is_said = why.ends_with(SKIPPED_TIME);
            return Next { at: Some(at), why: if is_said { why } else { format!("{why}{SKIPPED_TIME}") } };
        }
        // Spread over ten minutes, so that the feeds of a publisher are not all due on the hour.
        let spread = between(Duration::ZERO, Duration::from_secs(600), jitter);
        let at = if hour == latest { latest } else { hour.plus(spread).min(latest) };
        Next { at: Some(at), why: format!("{why}, deferred past the feed's skipHours and skipDays") }
    }

    /// Whether the operator has decided that what document and server ask for does not count.
    fn overrides_hints(&self) -> bool {
        self.every.is_some() || self.ignores_hints
    }

    /// The same, at the time of the last visit that found a feed: a feed that fails seems quiet, and what grows with time
    /// must not be doubled as well.
    fn while_it_worked(&self) -> Self {
        let Some(now) = self.worked_at.filter(|at| *at <= self.now) else { return self.clone() };
        let since = self.now.since(now);
        let quiet_for = self.quiet_for.map(|quiet| quiet.saturating_sub(since));
        Self { now, quiet_for, ..self.clone() }
    }
}

/// The interval after a visit that found a feed.
fn working(input: &ScheduleInput<'_>, bounds: IntervalBounds) -> PlannedInterval {
    let [ttl, update_period] = document_hints(input, bounds);
    let interval = usual(input, bounds, longest([cache_hint(input.cache_life, bounds), ttl, update_period]));
    not_before_retry_after(interval, input, bounds)
}

/// The feed's own rhythm, or the hint if that is longer and the feed has been quiet.
fn usual(input: &ScheduleInput<'_>, bounds: IntervalBounds, hint: Option<Hint>) -> PlannedInterval {
    let base = rhythm::base(input, bounds);
    let around = |rule: Rule, floor: Duration| {
        let low = (rule.wait - rule.wait / 10).max(floor.max(bounds.interval_min));
        let high = tenth_more(rule.wait).min(bounds.interval_max).max(low);
        PlannedInterval { rule, low, high }
    };
    let hint = hint.filter(|_| !input.overrides_hints());
    let longer = hint.as_ref().filter(|hint| hint.wait >= base.wait);
    if let Some(items) = evidence::burst(input) {
        let wait = bounds.interval_min;
        if longer.is_none() && base.wait <= wait {
            return around(base, wait);
        }
        let why = format!("in {}: {items} items in the last hour{}", humanize(wait), not_the(longer));
        return around(Rule { wait, why }, wait);
    }
    let limit = evidence::hint_limit(input);
    match (hint, limit) {
        (Some(hint), Some(limit)) if hint.wait > limit.wait && limit.wait > base.wait => {
            let why = format!(
                "in {}: the feed publishes about every {}{}",
                humanize(limit.wait),
                humanize(limit.gap),
                not_the(Some(&hint))
            );
            let (low, high) = (limit.wait, tenth_more(limit.wait).min(hint.wait));
            PlannedInterval { rule: Rule { wait: limit.wait, why }, low, high }
        }
        (Some(hint), Some(limit)) if hint.wait > limit.wait && hint.wait >= base.wait => {
            let why = format!("{}{}", base.why, not_the(Some(&hint)));
            around(Rule { why, ..base }, limit.wait)
        }
        (Some(hint), _) if hint.wait >= base.wait => {
            let wait = hint.wait;
            PlannedInterval { low: wait, high: tenth_more(wait), rule: hint.rule() }
        }
        (hint, limit) => {
            let hinted = hint.map_or(Duration::ZERO, |hint| hint.wait);
            around(base, limit.map_or(hinted, |limit| hinted.min(limit.wait)))
        }
    }
}

/// What was asked for and does not count.
fn not_the(hint: Option<&Hint>) -> String {
    hint.map_or(String::new(), |hint| format!(", not the {} of {}", humanize(hint.requested), hint.field))
}

/// The interval after a visit that found none: never shorter than if the feed still worked.
fn failing(input: &ScheduleInput<'_>, bounds: IntervalBounds) -> PlannedInterval {
    let [ttl, update_period] = document_hints(input, bounds);
    let before = longest([cache_hint(input.cache_life_before, bounds), ttl, update_period]);
    let worked = usual(input, bounds, longest([before, cache_hint(input.cache_life, bounds), None]));
    let start = RetryStart {
        usual: usual(&input.while_it_worked(), bounds, before).rule.wait,
        least: worked.rule.wait,
    };
    let after = match input.outcome {
        ScheduleOutcome::Throttled => throttled(input, start, bounds),
        ScheduleOutcome::Gone if is_confirmed_gone(input.gone_in_a_row) => {
            let rule = confirmed_gone(input.gone_in_a_row, start.least);
            return PlannedInterval { low: rule.wait, high: tenth_more(rule.wait), rule };
        }
        ScheduleOutcome::Gone => gone(input.gone_in_a_row.max(1), start, bounds),
        _ => failed(input.failures.max(1), start, bounds),
    };
    let low = (after.wait - after.wait / 10).max(worked.low);
    let is_hinted = start.usual > bounds.interval_max;
    let latest = if is_hinted { tenth_more(start.usual) } else { bounds.interval_max };
    let high = tenth_more(after.wait).min(latest).max(worked.high).max(low);
    not_before_retry_after(PlannedInterval { rule: after, low, high }, input, bounds)
}

/// Never before the server's `Retry-After`, whatever the operator has configured.
fn not_before_retry_after(
    interval: PlannedInterval,
    input: &ScheduleInput<'_>,
    bounds: IntervalBounds,
) -> PlannedInterval {
    let hint = Hint::new(input.retry_after, server_interval_max(bounds), RETRY_AFTER);
    let PlannedInterval { rule, low, high } = interval;
    match hint {
        Some(asked) if asked.wait >= rule.wait => {
            PlannedInterval { low: asked.wait, high: tenth_more(asked.wait), rule: asked.rule() }
        }
        asked => {
            let asked = asked.map_or(Duration::ZERO, |asked| asked.wait);
            let (low, high) = (low.max(asked), high.max(tenth_more(asked)));
            PlannedInterval { rule, low, high: high.max(low) }
        }
    }
}

/// Decides when a source is visited for the first time: new sources start 10 ms apart, all of them within
/// `interval_min`. `index` counts from 0.
#[must_use]
pub fn first_visit(now: Timestamp, index: usize, total: usize, bounds: IntervalBounds) -> Next {
    let total = u32::try_from(total.max(1)).unwrap_or(u32::MAX);
    let index = u32::try_from(index).unwrap_or(u32::MAX).min(total - 1);
    let span = FIRST_STEP.saturating_mul(total).min(bounds.interval_min);
    let wait = Duration::from_secs_f64(span.as_secs_f64() * f64::from(index) / f64::from(total));
    Next { at: Some(now.plus(wait)), why: format!("new source, number {} of {total}", index + 1) }
}

/// Whether so many 410s in a row confirm that a feed is gone.
#[must_use]
pub fn is_confirmed_gone(gone_in_a_row: u32) -> bool {
    gone_in_a_row >= GONE_CONFIRMATIONS
}

/// The longest interval that a server may ask for.
#[must_use]
pub fn server_interval_max(bounds: IntervalBounds) -> Duration {
    ASK_MAX.max(bounds.interval_max)
}

/// Where the doubling starts.
#[derive(Clone, Copy)]
struct RetryStart {
    /// The interval that the feed had while it worked.
    usual: Duration,
    /// The interval that it would have if it worked now: longer, because it has been quiet for longer.
    least: Duration,
}

impl RetryStart {
    fn doubled(self, times: u32, bounds: IntervalBounds) -> Duration {
        let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
        let wait = self.usual.saturating_mul(factor);
        wait.clamp(bounds.interval_min, bounds.interval_max.max(self.usual)).max(self.least)
    }
}

fn failed(failures: u32, start: RetryStart, bounds: IntervalBounds) -> Rule {
    let wait = start.doubled(failures - 1, bounds);
    let why = match failures {
        1 => format!("first failure: retry in {}", humanize(wait)),
        n if wait >= bounds.interval_max => {
            format!("{} failure in a row: retry in {}, the maximum", ordinal(n), humanize(wait))
        }
        n => format!("{} failure in a row: retry in {}, doubled each time", ordinal(n), humanize(wait)),
    };
    Rule { wait, why }
}

fn throttled(input: &ScheduleInput<'_>, start: RetryStart, bounds: IntervalBounds) -> Rule {
    let status = input.code.unwrap_or(429);
    let failures = input.failures.max(1);
    // A 503 is an overloaded server, mostly for minutes; a 429 is about our requests, however short the time it names. No
    // status: a host on the way, which was not asked, is closed for a known time.
    let first = match (input.code, input.retry_after) {
        (Some(503), _) | (None, Some(_)) => Duration::ZERO,
        _ => THROTTLED,
    };
    let wait = RetryStart { usual: start.usual.max(first.min(bounds.interval_max)), ..start }
        .doubled(failures - 1, bounds);
    let (nth, retry) = (ordinal(failures), humanize(wait));
    let why = match input.retry_after {
        None => {
            format!("throttled ({status}) without Retry-After, {nth} failure in a row: retry in {retry}")
        }
        Some(asked) => format!(
            "throttled ({status}), {nth} failure in a row: retry in {retry}; the server asked for {} (Retry-After)",
            humanize(asked)
        ),
    };
    Rule { wait, why }
}

fn gone(times: u32, start: RetryStart, bounds: IntervalBounds) -> Rule {
    let spread = start.usual.saturating_mul(GONE_SPREAD).min(bounds.interval_max.max(start.usual));
    let wait = RetryStart { usual: spread, ..start }.doubled(times - 1, bounds);
    let why = format!(
        "gone (410), response {times} of {GONE_CONFIRMATIONS} that confirm it: retry in {}",
        humanize(wait)
    );
    Rule { wait, why }
}

/// Not limited by `interval_max`: the server has said three times that there is nothing.
fn confirmed_gone(times: u32, start: Duration) -> Rule {
    let (first, longest) = GONE_WAITS;
    let factor = 1_u32.checked_shl(times - GONE_CONFIRMATIONS).unwrap_or(u32::MAX);
    let wait = first.saturating_mul(factor).min(longest).max(start);
    let why = format!("gone (410), confirmed {times} times: looked at again in {}", humanize(wait));
    Rule { wait, why }
}

/// An interval that the server or the document asks for.
#[derive(Clone, Copy)]
struct Hint {
    wait: Duration,
    requested: Duration,
    reason: &'static str,
    field: &'static str,
}

/// The reason, and the field that has the interval.
type HintWords = (&'static str, &'static str);

const RETRY_AFTER: HintWords = ("the server asked for", "Retry-After");
const CACHE_LIFE: HintWords = ("the server says that the response is fresh for", "max-age or Expires");
const TTL: HintWords = ("the feed asks for", "ttl");
const UPDATE_PERIOD: HintWords = ("the feed changes every", "sy:updatePeriod");

impl Hint {
    fn new(requested: Option<Duration>, max: Duration, (reason, field): HintWords) -> Option<Self> {
        let requested = requested.filter(|wait| !wait.is_zero())?;
        Some(Self { wait: requested.min(max), requested, reason, field })
    }

    fn rule(self) -> Rule {
        let Self { wait, requested, reason, field } = self;
        let limit = if requested > wait { format!(", limited to {}", humanize(wait)) } else { String::new() };
        Rule { wait, why: format!("{reason} {} ({field}){limit}", humanize(requested)) }
    }
}

/// How long the response is fresh.
fn cache_hint(cache_life: Option<Duration>, bounds: IntervalBounds) -> Option<Hint> {
    Hint::new(cache_life, server_interval_max(bounds), CACHE_LIFE)
}

/// What the last document asks for.
fn document_hints(input: &ScheduleInput<'_>, bounds: IntervalBounds) -> [Option<Hint>; 2] {
    let max = bounds.interval_max;
    [Hint::new(input.ttl, max, TTL), Hint::new(input.update_period, max, UPDATE_PERIOD)]
}

/// The first of the longest.
fn longest<const N: usize>(hints: [Option<Hint>; N]) -> Option<Hint> {
    // `max_by_key` returns the last of equals, hence reversed: on a tie the server is named.
    hints.into_iter().flatten().rev().max_by_key(|hint| hint.wait)
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
