//! The schedule, rule by rule and as properties.

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// `quiet_for` of a source that never worked.
const NEVER_WORKED: Option<Duration> = Some(Duration::ZERO);

fn now() -> Timestamp {
    "2026-03-02T12:00:00Z".parse().unwrap()
}

fn input(outcome: ScheduleOutcome) -> ScheduleInput<'static> {
    ScheduleInput::new(IntervalBounds::default(), now(), outcome)
}

/// Items at so many minutes before now.
fn ago(minutes: &[u32]) -> Vec<Timestamp> {
    minutes.iter().map(|m| Timestamp::from_millis(now().millis() - i64::from(*m) * 60_000)).collect()
}

fn wait(input: &ScheduleInput<'_>, jitter: f64) -> Duration {
    next_visit(input, jitter).at.unwrap().since(input.now)
}

fn why(input: &ScheduleInput<'_>) -> String {
    next_visit(input, 0.5).why
}

#[test]
fn a_busy_feed_is_visited_at_half_its_gap_but_never_too_often() {
    let recent = ago(&[9, 18, 27, 36]);
    let busy = ScheduleInput { recent: &recent, ..input(ScheduleOutcome::Healthy) };
    assert_eq!(why(&busy), "every 5m (the feed publishes about every 9m)");
    assert_eq!(wait(&busy, 0.0), 5 * MINUTE);
    assert_eq!(wait(&busy, 1.0), Duration::from_secs(330));
    let recent = ago(&[72, 144, 216]);
    let calm = ScheduleInput { recent: &recent, ..input(ScheduleOutcome::Unchanged) };
    assert_eq!(why(&calm), "every 36m (the feed publishes about every 1h 12m)");
    assert_eq!((wait(&calm, 0.0), wait(&calm, 1.0)), (MINUTE * 324 / 10, MINUTE * 396 / 10));
}

#[test]
fn a_feed_that_stops_publishing_is_visited_less_often() {
    let day = 24 * 60;
    for (age, expected, reason) in [
        (1, 6 * HOUR, "every 6h (the feed publishes about every 24h)"),
        (7, 6 * HOUR, "every 6h (nothing new for 7d)"),
        (14, 12 * HOUR, "every 12h (nothing new for 14d)"),
        (30, 24 * HOUR, "every 24h (nothing new for 30d)"),
        (4000, 24 * HOUR, "every 24h (nothing new for 4000d)"),
    ] {
        let recent = ago(&[age * day]);
        let input = ScheduleInput { recent: &recent, ..input(ScheduleOutcome::Healthy) };
        assert_eq!(why(&input), reason);
        assert_eq!(wait(&input, 0.0), expected * 9 / 10);
        assert_eq!(wait(&input, 1.0), (expected * 11 / 10).min(24 * HOUR));
    }
}

#[test]
fn items_from_the_future_and_undated_feeds_do_not_decide() {
    let future = [now().plus(HOUR)];
    for recent in [&[][..], &future] {
        let input = ScheduleInput { recent, ..input(ScheduleOutcome::Healthy) };
        assert_eq!(why(&input), "every 1h (no item has a date)");
    }
}

#[test]
fn a_fixed_interval_is_kept_within_the_bounds() {
    let fixed = |every| ScheduleInput { every: Some(every), recent: &[], ..input(ScheduleOutcome::Healthy) };
    assert_eq!(why(&fixed(10 * MINUTE)), "every 10m, as configured");
    assert_eq!(wait(&fixed(10 * MINUTE), 0.5), 10 * MINUTE);
    assert_eq!(why(&fixed(MINUTE)), "every 5m, the minimum (1m configured)");
    assert!(wait(&fixed(MINUTE), 0.0) >= 5 * MINUTE);
    assert!(wait(&fixed(48 * HOUR), 1.0) <= 24 * HOUR);
}

#[test]
fn a_fixed_interval_and_ignored_hints_override_all_but_retry_after_and_the_backoff() {
    let recent = ago(&[72, 144, 216]);
    let hinted = ScheduleInput {
        recent: &recent,
        ttl: Some(2 * HOUR),
        update_period: Some(3 * HOUR),
        cache_life: Some(12 * HOUR),
        cache_life_before: Some(12 * HOUR),
        skip_hours: 0x00ff_f000,
        ..input(ScheduleOutcome::Healthy)
    };
    assert_eq!(wait(&hinted, 0.5), 12 * HOUR + 36 * MINUTE);
    let fixed = ScheduleInput { every: Some(10 * MINUTE), ..hinted.clone() };
    assert_eq!((wait(&fixed, 0.5), why(&fixed).as_str()), (10 * MINUTE, "every 10m, as configured"));
    let ignoring = ScheduleInput { ignores_hints: true, ..hinted };
    assert_eq!(wait(&ignoring, 0.5), 36 * MINUTE);
    assert_eq!(why(&ignoring), "every 36m (the feed publishes about every 1h 12m)");
    for source in [fixed, ignoring] {
        let usual = wait(&source, 0.5);
        let throttled =
            ScheduleInput { retry_after: Some(2 * HOUR), code: Some(429), failures: 1, ..source.clone() };
        let throttled = ScheduleInput { outcome: ScheduleOutcome::Throttled, ..throttled };
        assert_eq!(why(&throttled), "the server asked for 2h (Retry-After)");
        assert!(wait(&throttled, 0.0) >= 2 * HOUR);
        let again = ScheduleInput { retry_after: None, failures: 3, ..throttled };
        assert_eq!(wait(&again, 0.5), 4 * HOUR, "the backoff after a 429");
        let busy = ScheduleInput { code: Some(503), ..again };
        assert_eq!(wait(&busy, 0.5), usual * 4, "the backoff after a 503");
    }
}

#[test]
fn the_longest_hint_applies_and_is_named() {
    let recent = ago(&[10, 70]);
    let mut input = ScheduleInput { recent: &recent, ttl: Some(HOUR), ..input(ScheduleOutcome::Healthy) };
    assert_eq!(why(&input), "the feed asks for 1h (ttl)");
    assert!(wait(&input, 0.0) >= HOUR);
    input.update_period = Some(2 * HOUR);
    assert_eq!(why(&input), "the feed changes every 2h (sy:updatePeriod)");
    input.cache_life = Some(2 * HOUR);
    assert_eq!(why(&input), "the server says that the response is fresh for 2h (max-age or Expires)");
    input.cache_life = Some(MINUTE);
    input.update_period = None;
    input.ttl = Some(MINUTE);
    assert_eq!(why(&input), "every 17m 30s (the feed publishes about every 35m)");
}

/// A feed that asks to be visited rarely, in three ways.
fn reluctant(input: ScheduleInput<'_>) -> [ScheduleInput<'_>; 3] {
    let day = Some(24 * HOUR);
    [
        ScheduleInput { ttl: day, ..input.clone() },
        ScheduleInput { update_period: day, ..input.clone() },
        ScheduleInput { cache_life: day, ..input },
    ]
}

#[test]
fn a_feed_in_a_burst_is_looked_at_within_interval_min_whatever_it_says() {
    let two = ago(&[20, 59, 5000]);
    for (asked, name) in reluctant(ScheduleInput { recent: &two, ..input(ScheduleOutcome::Healthy) })
        .iter()
        .zip(["ttl", "sy:updatePeriod", "max-age or Expires"])
    {
        assert_eq!((wait(asked, 0.0), wait(asked, 1.0)), (5 * MINUTE, Duration::from_secs(330)));
        assert_eq!(why(asked), format!("in 5m: 2 items in the last hour, not the 24h of {name}"));
    }
    // Also sooner than its mean gap, without hints.
    let slow = ScheduleInput { recent: &two, ..input(ScheduleOutcome::Unchanged) };
    assert_eq!(why(&slow), "in 5m: 2 items in the last hour");
    let failed = ScheduleInput { failures: 1, ..input(ScheduleOutcome::Failed) };
    for asked in reluctant(ScheduleInput { recent: &two, cache_life_before: Some(24 * HOUR), ..failed }) {
        assert_eq!(why(&asked), "first failure: retry in 5m", "as often as while it worked");
    }
}

#[test]
fn a_quiet_feed_is_slowed_by_its_hints_as_before() {
    for minutes in [&[59, 61][..], &[61, 62, 63], &[240, 480, 720, 960, 1200], &[]] {
        let recent = ago(minutes);
        for asked in reluctant(ScheduleInput { recent: &recent, ..input(ScheduleOutcome::Healthy) }) {
            assert!(wait(&asked, 0.0) >= 24 * HOUR, "{minutes:?}: {}", why(&asked));
        }
    }
    let future = [now().plus(MINUTE), now().plus(2 * MINUTE)];
    let [_, _, asked] = reluctant(ScheduleInput { recent: &future, ..input(ScheduleOutcome::Healthy) });
    assert!(wait(&asked, 0.0) >= 24 * HOUR, "what is not published yet is no news");
}

#[test]
fn a_hint_stretches_the_interval_by_as_many_gaps_as_a_gap_has_half_hours() {
    let limited = |gap: u32| {
        let recent: Vec<_> = (1..=10).map(|n| n * gap).collect();
        let recent = ago(&recent);
        let [_, _, asked] = reluctant(ScheduleInput { recent: &recent, ..input(ScheduleOutcome::Healthy) });
        (wait(&asked, 0.0), why(&asked))
    };
    let (soon, reason) = limited(40);
    assert_eq!(soon, Duration::from_secs(40 * 60 * 4 / 3));
    assert_eq!(reason, "in 53m 20s: the feed publishes about every 40m, not the 24h of max-age or Expires");
    assert_eq!(limited(60).0, 2 * HOUR);
    assert_eq!(limited(120).0, 8 * HOUR);
    assert_eq!(
        limited(240).0,
        24 * HOUR,
        "five items a day are not visited weekly, nor less than the day asked for"
    );
    // The last new item came long ago, and the base is longer than the limit.
    let recent = ago(&[65, 66, 67, 68, 69, 70, 71, 72]);
    let asked = ScheduleInput { recent: &recent, ttl: Some(24 * HOUR), ..input(ScheduleOutcome::Healthy) };
    assert_eq!(wait(&asked, 0.0), 9 * MINUTE, "its own gap, as one gap has less than a half hour");
    assert_eq!(why(&asked), "in 9m: the feed publishes about every 9m, not the 24h of ttl");
}

#[test]
fn what_visits_recorded_is_evidence_without_dates() {
    let minutes = |n: i64| Some(Timestamp::from_millis(now().millis() - n * 60_000));
    let asked = |recorded| ScheduleInput {
        recorded,
        quiet_for: Some(10 * MINUTE),
        cache_life: Some(24 * HOUR),
        ..input(ScheduleOutcome::Healthy)
    };
    let none = RecordedNews::default();
    for (recorded, items) in [
        (RecordedNews { two_since: minutes(59), ..none }, 2),
        (RecordedNews { two_since: minutes(59), found: 1, found_since: minutes(5), ..none }, 3),
        (RecordedNews { one_since: minutes(40), found: 1, found_since: minutes(5), ..none }, 2),
        (RecordedNews { found: 7, found_since: minutes(0), ..none }, 7),
    ] {
        assert_eq!(
            why(&asked(recorded)),
            format!("in 5m: {items} items in the last hour, not the 24h of max-age or Expires")
        );
    }
    for recorded in [
        none,
        RecordedNews { two_since: minutes(60), one_since: minutes(30), ..none },
        RecordedNews { one_since: minutes(61), found: 1, found_since: minutes(5), ..none },
        RecordedNews { found: 7, found_since: minutes(1440), ..none },
        RecordedNews { found: 7, found_since: None, ..none },
        RecordedNews { two_since: minutes(-5), ..none },
    ] {
        assert!(wait(&asked(recorded), 0.0) >= 24 * HOUR, "{recorded:?}");
    }
}

#[test]
fn dates_that_no_visit_confirms_are_no_evidence() {
    let recent = ago(&[0, 0, 0]);
    let dated_now = ScheduleInput {
        recent: &recent,
        quiet_for: Some(2 * HOUR),
        cache_life: Some(24 * HOUR),
        ..input(ScheduleOutcome::Healthy)
    };
    assert!(wait(&dated_now, 0.0) >= 24 * HOUR, "all items have the date of the request, and none is new");
    let recorded = RecordedNews { found: 1, ..RecordedNews::default() };
    assert!(wait(&ScheduleInput { recorded, ..dated_now.clone() }, 1.0) < 6 * MINUTE);
    let confirmed = ScheduleInput { quiet_for: Some(10 * MINUTE), ..dated_now.clone() };
    assert!(wait(&confirmed, 1.0) < 6 * MINUTE);
    let new_source = ScheduleInput { quiet_for: NEVER_WORKED, ..dated_now };
    assert!(wait(&new_source, 1.0) < 6 * MINUTE);
}

#[test]
fn years_of_freshness_are_limited_to_a_day() {
    let input = ScheduleInput { cache_life: Some(365 * 24 * HOUR), ..input(ScheduleOutcome::Healthy) };
    assert_eq!(
        why(&input),
        "the server says that the response is fresh for 365d (max-age or Expires), limited to 24h"
    );
    assert!(wait(&input, 0.0) >= 24 * HOUR && wait(&input, 1.0) <= 27 * HOUR);
}

#[test]
fn a_server_may_ask_for_longer_than_the_longest_interval() {
    let bounds = IntervalBounds { interval_min: Duration::from_secs(1), interval_max: 10 * MINUTE };
    let input = ScheduleInput {
        retry_after: Some(3 * HOUR),
        failures: 1,
        ..ScheduleInput::new(bounds, now(), ScheduleOutcome::Throttled)
    };
    assert!(wait(&input, 0.0) >= 3 * HOUR);
    assert_eq!(why(&input), "the server asked for 3h (Retry-After)");
}

#[test]
fn a_short_retry_after_never_shortens_the_interval() {
    let input = ScheduleInput {
        retry_after: Some(Duration::from_secs(5)),
        code: Some(503),
        ..input(ScheduleOutcome::Throttled)
    };
    let input = ScheduleInput { quiet_for: NEVER_WORKED, ..input };
    assert_eq!(wait(&input, 0.0), 5 * MINUTE);
    assert_eq!(
        why(&input),
        "throttled (503), first failure in a row: retry in 5m; the server asked for 5s (Retry-After)"
    );
}

#[test]
fn a_short_retry_after_backs_off_all_the_same() {
    for (code, first) in [(429, HOUR), (503, 5 * MINUTE)] {
        let throttled = |failures| ScheduleInput {
            retry_after: Some(Duration::from_secs(5)),
            code: Some(code),
            failures,
            quiet_for: NEVER_WORKED,
            ..input(ScheduleOutcome::Throttled)
        };
        let waits = [1, 2, 3, 4, 20].map(|failures| wait(&throttled(failures), 0.5));
        assert!(waits[0] >= first && waits[0] <= first * 6 / 5);
        assert_eq!(waits[1..4], [first * 2, first * 4, first * 8]);
        assert!(waits[4] > 22 * HOUR);
        let longer = ScheduleInput { retry_after: Some(3 * HOUR), ..throttled(2) };
        assert!(wait(&longer, 0.0) >= 3 * HOUR);
        assert_eq!(why(&longer), "the server asked for 3h (Retry-After)");
    }
}

#[test]
fn no_retry_after_makes_the_wait_shorter_than_none() {
    for code in [429, 503] {
        for failures in [1, 2, 5] {
            let after = |retry_after| {
                let throttled = input(ScheduleOutcome::Throttled);
                let quiet_for = NEVER_WORKED;
                wait(&ScheduleInput { retry_after, code: Some(code), failures, quiet_for, ..throttled }, 0.5)
            };
            // A date in the past is a wait of zero.
            for asked in [Duration::ZERO, Duration::from_secs(1), MINUTE, 10 * MINUTE, HOUR] {
                assert!(after(Some(asked)) >= after(None), "{code} {failures} {asked:?}");
            }
        }
    }
    let held = ScheduleInput {
        retry_after: Some(2 * MINUTE),
        quiet_for: NEVER_WORKED,
        ..input(ScheduleOutcome::Throttled)
    };
    assert!(wait(&held, 0.5) < 10 * MINUTE, "a redirect to a host that was not asked");
}

#[test]
fn a_feed_that_seems_quiet_because_it_fails_is_not_given_up_sooner() {
    let failed = |minutes: u64, failures| {
        let input = ScheduleInput {
            worked_at: Some(Timestamp::from_millis(
                now().millis() - i64::try_from(minutes).unwrap() * 60_000,
            )),
            quiet_for: Some(MINUTE * u32::try_from(minutes + 10).unwrap()),
            failures,
            ..input(ScheduleOutcome::Failed)
        };
        next_visit(&input, 0.5).at.unwrap().since(now())
    };
    assert_eq!(failed(0, 1), 10 * MINUTE);
    assert_eq!(failed(10, 1), 20 * MINUTE, "as if it worked");
    assert_eq!(failed(30, 3), 40 * MINUTE, "not four times the 40 minutes without news");
}

#[test]
fn a_feed_that_fails_is_retried_after_its_own_interval() {
    let recent = ago(&[12 * 60, 24 * 60, 36 * 60]);
    let slow = ScheduleInput {
        recent: &recent,
        quiet_for: Some(12 * HOUR),
        failures: 1,
        ..input(ScheduleOutcome::Failed)
    };
    assert_eq!(why(&slow), "first failure: retry in 6h");
    assert_eq!(
        why(&ScheduleInput { failures: 2, ..slow.clone() }),
        "second failure in a row: retry in 12h, doubled each time"
    );
    let busy = ago(&[4, 9, 13, 21]);
    let busy = ScheduleInput { recent: &busy, ..slow.clone() };
    assert_eq!(why(&busy), "first failure: retry in 5m");
    let calm = ago(&[72, 144, 216, 288]);
    let calm = ScheduleInput { recent: &calm, ..slow };
    let fresh = ScheduleInput { cache_life_before: Some(2 * HOUR), ..calm.clone() };
    assert_eq!(why(&fresh), "first failure: retry in 2h");
    assert!(wait(&fresh, 0.0) >= 2 * HOUR);
    let hinted = ScheduleInput { ttl: Some(HOUR), ..calm };
    assert_eq!(why(&hinted), "first failure: retry in 1h");
}

#[test]
fn throttling_without_a_time_doubles_from_an_hour_for_429_and_from_the_interval_for_503() {
    let throttled = |code, failures| ScheduleInput {
        code: Some(code),
        failures,
        quiet_for: NEVER_WORKED,
        ..input(ScheduleOutcome::Throttled)
    };
    let waits = |code| [1, 2, 3].map(|failures| wait(&throttled(code, failures), 0.5));
    assert_eq!(waits(429), [HOUR, 2 * HOUR, 4 * HOUR]);
    let [first, second, third] = waits(503);
    assert!(first >= 5 * MINUTE && first <= 6 * MINUTE);
    assert_eq!([second, third], [10 * MINUTE, 20 * MINUTE]);
    assert_eq!(
        why(&throttled(429, 2)),
        "throttled (429) without Retry-After, second failure in a row: retry in 2h"
    );
}

#[test]
fn failures_double_up_to_a_day_and_never_end() {
    let failed =
        |failures| ScheduleInput { failures, quiet_for: NEVER_WORKED, ..input(ScheduleOutcome::Failed) };
    assert_eq!(why(&failed(1)), "first failure: retry in 5m");
    assert_eq!(why(&failed(3)), "third failure in a row: retry in 20m, doubled each time");
    assert_eq!(wait(&failed(3), 0.5), 20 * MINUTE);
    assert_eq!(why(&failed(12)), "12th failure in a row: retry in 24h, the maximum");
    for failures in [0, 1, 2, 40, 1_000, u32::MAX] {
        let wait = wait(&failed(failures), 1.0);
        assert!(wait >= 5 * MINUTE && wait <= 24 * HOUR, "{failures}: {wait:?}");
    }
}

#[test]
fn failures_double_from_a_fixed_interval() {
    let input = ScheduleInput { every: Some(HOUR), failures: 2, ..input(ScheduleOutcome::Failed) };
    assert_eq!(why(&input), "second failure in a row: retry in 2h, doubled each time");
}

#[test]
fn a_410_that_is_confirmed_is_looked_at_again_days_apart() {
    let gone = |gone_in_a_row| ScheduleInput {
        gone_in_a_row,
        quiet_for: NEVER_WORKED,
        ..input(ScheduleOutcome::Gone)
    };
    assert_eq!(why(&gone(1)), "gone (410), response 1 of 3 that confirm it: retry in 30m");
    assert_eq!(wait(&gone(2), 0.5), HOUR);
    assert_eq!(why(&gone(3)), "gone (410), confirmed 3 times: looked at again in 7d");
    for (times, days) in [(3, 7), (4, 14), (5, 28), (6, 56), (7, 56), (u32::MAX, 56)] {
        assert_eq!(wait(&gone(times), 0.0), 24 * HOUR * days, "{times}");
        assert!(wait(&gone(times), 1.0) > 24 * HOUR * days);
    }
    let never_counted = ScheduleInput { failures: 9, ..gone(0) };
    assert!(wait(&never_counted, 0.5) < HOUR);
}

#[test]
fn a_visit_is_deferred_past_skipped_hours_and_days() {
    // 2026-03-02 is a Monday; now is noon.
    let hours = (12..18).map(|hour| 1 << hour).sum();
    let input = ScheduleInput { skip_hours: hours, ..input(ScheduleOutcome::Healthy) };
    let next = next_visit(&input, 0.5);
    assert_eq!(next.at, Some("2026-03-02T18:05:00Z".parse().unwrap()));
    assert_eq!(next.why, "every 1h (no item has a date), deferred past the feed's skipHours and skipDays");
    let all_day = ScheduleInput { skip_hours: 0, skip_days: 1, ..input };
    assert_eq!(next_visit(&all_day, 0.0).at, Some("2026-03-03T00:00:00Z".parse().unwrap()));
}

#[test]
fn a_feed_in_a_burst_is_not_deferred_past_the_hours_and_days_that_it_skips() {
    let two_since = Some(ago(&[20])[0]);
    let recorded = RecordedNews { two_since, ..RecordedNews::default() };
    let dated = ago(&[10, 40]);
    for (skip_hours, skip_days) in [(0x00ff_0000 | 1 << 12, 0), (0, 1), (1 << 12 | 1 << 13, 0b11)] {
        let skips = ScheduleInput { skip_hours, skip_days, ..input(ScheduleOutcome::Unchanged) };
        for burst in [
            ScheduleInput { recent: &dated, quiet_for: Some(10 * MINUTE), ..skips.clone() },
            ScheduleInput { recorded, quiet_for: Some(20 * MINUTE), ..skips.clone() },
        ] {
            let Next { at, why } = next_visit(&burst, 0.5);
            assert!(at.unwrap().since(now()) <= 6 * MINUTE, "{why}");
            assert_eq!(why, "in 5m: 2 items in the last hour, although the feed skips that time");
        }
        let quiet = ScheduleInput { recent: &dated, quiet_for: Some(2 * HOUR), ..skips };
        assert!(why(&quiet).ends_with("deferred past the feed's skipHours and skipDays"), "{}", why(&quiet));
    }
}

#[test]
fn new_sources_are_spread_within_the_shortest_interval() {
    let first = |place, total, bounds| first_visit(now(), place, total, bounds).at.unwrap().since(now());
    let bounds = IntervalBounds::default();
    assert_eq!(first(0, 60, bounds), Duration::ZERO);
    assert_eq!(first(59, 60, bounds), Duration::from_millis(590));
    assert!(first(99_999, 100_000, bounds) < bounds.interval_min);
    let quick = IntervalBounds { interval_min: Duration::from_secs(1), ..bounds };
    assert!(first(999, 1_000, quick) < Duration::from_secs(1));
    assert_eq!(first(7, 0, bounds), Duration::ZERO);
    assert_eq!(first_visit(now(), 2, 60, bounds).why, "new source, number 3 of 60");
}

fn outcome() -> impl Strategy<Value = ScheduleOutcome> {
    prop_oneof![
        Just(ScheduleOutcome::Healthy),
        Just(ScheduleOutcome::Unchanged),
        Just(ScheduleOutcome::Failed),
        Just(ScheduleOutcome::Throttled),
        Just(ScheduleOutcome::Gone)
    ]
}

fn maybe_wait() -> impl Strategy<Value = Option<Duration>> {
    let wait = prop_oneof![0..100_u64, 0..200_000_u64, Just(u64::MAX / 4)].prop_map(Duration::from_secs);
    prop::option::of(wait)
}

prop_compose! {
    fn any_input()(
        (min, more) in (1..7_200_u64, 0..200_000_u64),
        outcome in outcome(),
        code in prop::option::of(prop_oneof![Just(429_u16), Just(503), Just(200)]),
        (failures, gone_in_a_row) in (prop_oneof![0..20_u32, any::<u32>()], 0..5_u32),
        (every, ttl, update_period) in (maybe_wait(), maybe_wait(), maybe_wait()),
        (cache_life, cache_life_before, retry_after) in (maybe_wait(), maybe_wait(), maybe_wait()),
        ignores_hints in any::<bool>(),
        (found, ago) in (0..4_u32, prop::collection::vec(-4_000..8_000_i64, 0..4)),
        (quiet_for, worked_ago) in (maybe_wait(), prop::option::of(0..4_000_000_i64)),
        recent in prop::collection::vec(-4_000_000..1_000_000_i64, 0..30),
    ) -> ScheduleInput<'static> {
        let interval_min = Duration::from_secs(min);
        let bounds = IntervalBounds { interval_min, interval_max: interval_min + Duration::from_secs(more) };
        let recent: Vec<_> = recent.iter().map(|s| Timestamp::from_millis(now().millis() + s * 1000)).collect();
        let ago = |n: usize| ago.get(n).map(|s| Timestamp::from_millis(now().millis() - s * 1000));
        let recorded = RecordedNews { two_since: ago(0), one_since: ago(1), found, found_since: ago(2) };
        let worked_at = worked_ago.map(|s| Timestamp::from_millis(now().millis() - s * 1000));
        ScheduleInput {
            worked_at, code, failures, gone_in_a_row, every, ttl, update_period, cache_life,
            cache_life_before, retry_after, quiet_for, ignores_hints, recorded,
            recent: recent.leak(),
            ..ScheduleInput::new(bounds, now(), outcome)
        }
    }
}

proptest! {
    #[test]
    fn no_source_is_visited_too_early(input in any_input(), jitter in -1.0..2.0_f64) {
        let Next { at: Some(at), why } = next_visit(&input, jitter) else { return Ok(()) };
        let wait = at.since(input.now);
        let server = (24 * HOUR).max(input.bounds.interval_max);
        prop_assert!(wait >= input.bounds.interval_min, "{wait:?} {why}");
        prop_assert!(wait >= input.retry_after.unwrap_or_default().min(server), "{wait:?} {why}");
        if !input.overrides_hints() && evidence::burst(&input).is_none() {
            let limit = evidence::hint_limit(&input).map_or(server, |limit| limit.wait);
            prop_assert!(wait >= input.cache_life.unwrap_or_default().min(server).min(limit), "{wait:?} {why}");
        }
    }

    #[test]
    fn a_failure_never_makes_a_source_be_visited_sooner_than_a_success_would(
        input in any_input(),
        jitter in 0.0..=1.0_f64,
        is_before in any::<bool>(),
    ) {
        // What the last response with a feed said holds as long as what this one says.
        let cache_life = if is_before { input.cache_life_before } else { input.cache_life };
        let worked = ScheduleInput { outcome: ScheduleOutcome::Healthy, cache_life, ..input.clone() };
        let (failed, worked) = (next_visit(&input, jitter), next_visit(&worked, jitter));
        prop_assert!(
            input.outcome == ScheduleOutcome::Healthy || input.outcome == ScheduleOutcome::Unchanged
                || failed.at >= worked.at,
            "{} is sooner than {}", failed.why, worked.why
        );
    }

    #[test]
    fn no_source_is_forgotten(input in any_input(), jitter in 0.0..=1.0_f64) {
        let Next { at, why } = next_visit(&input, jitter);
        let is_confirmed = input.outcome == ScheduleOutcome::Gone && input.gone_in_a_row >= 3;
        prop_assert!(at.is_some());
        let Some(at) = at else { return Ok(()) };
        let wait = at.since(input.now);
        if is_confirmed {
            prop_assert!(wait >= 7 * 24 * HOUR && wait <= 56 * 24 * HOUR * 11 / 10, "{wait:?} {why}");
            return Ok(());
        }
        let asked = input.retry_after.max(input.cache_life).max(input.ttl).max(input.update_period);
        let asked = asked.max(input.cache_life_before);
        let server = (24 * HOUR).max(input.bounds.interval_max);
        let latest = input.bounds.interval_max.max(asked.unwrap_or_default().min(server) * 11 / 10);
        prop_assert!(wait <= latest, "{wait:?} {why}");
    }

    #[test]
    fn there_is_always_one_short_reason(input in any_input(), jitter in 0.0..=1.0_f64) {
        let why = next_visit(&input, jitter).why;
        prop_assert!(!why.is_empty() && why.len() <= 160 && !why.contains('\n'), "{why}");
    }

    #[test]
    fn skipped_hours_are_never_visited(hours in 0..0x00ff_ffff_u32, jitter in 0.0..=1.0_f64, input in any_input()) {
        let input = ScheduleInput { skip_hours: hours, every: None, ignores_hints: false, ..input };
        prop_assume!(evidence::burst(&input).is_none());
        let Next { at: Some(at), .. } = next_visit(&input, jitter) else { return Ok(()) };
        let hour = at.millis().rem_euclid(86_400_000) / 3_600_000;
        prop_assert!(hours >> hour & 1 == 0, "{at}");
    }

    #[test]
    fn two_feeds_with_the_same_input_are_not_visited_at_the_same_time(input in any_input()) {
        let (Some(early), Some(late)) = (next_visit(&input, 0.0).at, next_visit(&input, 1.0).at) else { return Ok(()) };
        let is_fixed = input.bounds.interval_min == input.bounds.interval_max;
        prop_assert!(late > early || is_fixed || input.bounds.interval_max < input.bounds.interval_min * 11 / 10);
    }
}

#[test]
fn a_feed_is_visited_often_after_a_new_item_and_less_the_longer_it_is_quiet() {
    let now = now();
    let old = [Timestamp::from_millis(now.millis() - 40 * 86_400_000)];
    let wait = |quiet_s: u64, every: Option<Duration>| {
        let mut input = ScheduleInput::new(IntervalBounds::default(), now, ScheduleOutcome::Unchanged);
        input.recent = &old;
        input.every = every;
        input.quiet_for = Some(Duration::from_secs(quiet_s));
        let next = next_visit(&input, 0.5);
        (next.at.unwrap().since(now).as_secs() / 60, next.why)
    };
    assert_eq!(wait(0, None).0, 5, "never sooner than interval_min");
    assert!(wait(0, None).1.contains("new source"));
    assert!((19..=22).contains(&wait(20 * 60, None).0));
    assert!(wait(20 * 60, None).1.contains("20m ago"), "{}", wait(20 * 60, None).1);
    assert!(wait(30 * 86_400, None).0 >= 21 * 60, "in the end its own rhythm holds");
    assert!(
        (54..=66).contains(&wait(0, Some(Duration::from_secs(3600))).0),
        "what the operator fixed is fixed"
    );
}
