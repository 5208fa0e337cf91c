use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    "2026-03-02T12:00:00Z".parse().unwrap()
}

fn facts(outcome: ScheduleOutcome) -> ScheduleInput<'static> {
    ScheduleInput::new(IntervalBounds::default(), now(), outcome)
}

/// Items at so many minutes before now.
fn ago(minutes: &[u32]) -> Vec<Timestamp> {
    minutes.iter().map(|m| Timestamp::from_millis(now().millis() - i64::from(*m) * 60_000)).collect()
}

fn wait(facts: &ScheduleInput<'_>, jitter: f64) -> Duration {
    next_visit(facts, jitter).at.unwrap().since(facts.now)
}

fn why(facts: &ScheduleInput<'_>) -> String {
    next_visit(facts, 0.5).why
}

#[test]
fn a_busy_feed_is_visited_at_half_its_gap_but_never_too_often() {
    let recent = ago(&[9, 18, 27, 36]);
    let busy = ScheduleInput { recent: &recent, ..facts(ScheduleOutcome::Healthy) };
    assert_eq!(why(&busy), "every 5m (feed publishes about every 9m)");
    assert_eq!(wait(&busy, 0.0), 5 * MINUTE);
    assert_eq!(wait(&busy, 1.0), Duration::from_secs(330));
    let recent = ago(&[72, 144, 216]);
    let calm = ScheduleInput { recent: &recent, ..facts(ScheduleOutcome::Unchanged) };
    assert_eq!(why(&calm), "every 36m (feed publishes about every 1h 12m)");
    assert_eq!((wait(&calm, 0.0), wait(&calm, 1.0)), (MINUTE * 324 / 10, MINUTE * 396 / 10));
}

#[test]
fn a_feed_that_falls_asleep_is_visited_less_often() {
    let day = 24 * 60;
    for (age, expected, said) in [
        (1, 6 * HOUR, "every 6h (feed publishes about every 24h)"),
        (7, 6 * HOUR, "every 6h (nothing new for 7d)"),
        (14, 12 * HOUR, "every 12h (nothing new for 14d)"),
        (30, 24 * HOUR, "every 24h (nothing new for 30d)"),
        (4000, 24 * HOUR, "every 24h (nothing new for 4000d)"),
    ] {
        let recent = ago(&[age * day]);
        let facts = ScheduleInput { recent: &recent, ..facts(ScheduleOutcome::Healthy) };
        assert_eq!(why(&facts), said);
        assert_eq!(wait(&facts, 0.0), expected * 9 / 10);
        assert_eq!(wait(&facts, 1.0), (expected * 11 / 10).min(24 * HOUR));
    }
}

#[test]
fn items_from_the_future_and_undated_feeds_do_not_decide() {
    let future = [now().plus(HOUR)];
    for recent in [&[][..], &future] {
        let facts = ScheduleInput { recent, ..facts(ScheduleOutcome::Healthy) };
        assert_eq!(why(&facts), "every 1h (no item has a date)");
    }
}

#[test]
fn a_fixed_interval_is_kept_within_the_bounds() {
    let fixed = |every| ScheduleInput { every: Some(every), recent: &[], ..facts(ScheduleOutcome::Healthy) };
    assert_eq!(why(&fixed(10 * MINUTE)), "every 10m, as configured");
    assert_eq!(wait(&fixed(10 * MINUTE), 0.5), 10 * MINUTE);
    assert_eq!(why(&fixed(MINUTE)), "every 5m, as configured (1m, within the bounds)");
    assert!(wait(&fixed(MINUTE), 0.0) >= 5 * MINUTE);
    assert!(wait(&fixed(48 * HOUR), 1.0) <= 24 * HOUR);
}

#[test]
fn a_fixed_interval_overrules_the_document_but_not_the_server() {
    let fixed = ScheduleInput {
        every: Some(10 * MINUTE),
        ttl: Some(2 * HOUR),
        update_period: Some(3 * HOUR),
        ..facts(ScheduleOutcome::Healthy)
    };
    assert_eq!(wait(&fixed, 0.5), 10 * MINUTE);
    let cached = ScheduleInput { cache_life: Some(HOUR), ..fixed };
    assert!(wait(&cached, 0.0) >= HOUR);
    assert_eq!(why(&cached), "server says its answer stays fresh for 1h (max-age or Expires)");
}

#[test]
fn the_longest_wish_counts_and_is_named() {
    let recent = ago(&[9, 18]);
    let mut facts = ScheduleInput { recent: &recent, ttl: Some(HOUR), ..facts(ScheduleOutcome::Healthy) };
    assert_eq!(why(&facts), "feed says it stays fresh for 1h (ttl)");
    assert!(wait(&facts, 0.0) >= HOUR);
    facts.update_period = Some(2 * HOUR);
    assert_eq!(why(&facts), "feed says it changes every 2h (sy:updatePeriod)");
    facts.cache_life = Some(2 * HOUR);
    assert_eq!(why(&facts), "server says its answer stays fresh for 2h (max-age or Expires)");
    facts.cache_life = Some(MINUTE);
    facts.update_period = None;
    facts.ttl = Some(MINUTE);
    assert_eq!(why(&facts), "every 5m (feed publishes about every 9m)");
}

#[test]
fn years_of_freshness_are_cut_to_a_day() {
    let facts = ScheduleInput { cache_life: Some(365 * 24 * HOUR), ..facts(ScheduleOutcome::Healthy) };
    assert_eq!(why(&facts), "server says its answer stays fresh for 365d (max-age or Expires), cut to 24h");
    assert!(wait(&facts, 0.0) >= 24 * HOUR && wait(&facts, 1.0) <= 27 * HOUR);
}

#[test]
fn a_server_that_asks_for_longer_than_our_longest_interval_is_obeyed() {
    let pace = IntervalBounds { interval_min: Duration::from_secs(1), interval_max: 10 * MINUTE };
    let facts = ScheduleInput {
        retry_after: Some(3 * HOUR),
        failures: 1,
        ..ScheduleInput::new(pace, now(), ScheduleOutcome::Throttled)
    };
    assert!(wait(&facts, 0.0) >= 3 * HOUR);
    assert_eq!(why(&facts), "server asked for 3h (Retry-After)");
}

#[test]
fn a_short_retry_after_never_brings_us_sooner_than_ourselves() {
    let facts = ScheduleInput {
        retry_after: Some(Duration::from_secs(5)),
        code: Some(503),
        ..facts(ScheduleOutcome::Throttled)
    };
    assert_eq!(wait(&facts, 0.0), 5 * MINUTE);
    assert_eq!(why(&facts), "throttled (503): server asked for 5s (Retry-After), never sooner than 5m");
}

#[test]
fn throttling_without_a_time_doubles_from_an_hour_for_429_and_from_our_own_pace_for_503() {
    let throttled = |code, failures| ScheduleInput {
        code: Some(code),
        failures,
        recent: &[],
        ..facts(ScheduleOutcome::Throttled)
    };
    let waits = |code| [1, 2, 3].map(|failures| wait(&throttled(code, failures), 0.5));
    assert_eq!(waits(429), [HOUR, 2 * HOUR, 4 * HOUR]);
    let [first, second, third] = waits(503);
    assert!(first >= 5 * MINUTE && first <= 6 * MINUTE);
    assert_eq!([second, third], [10 * MINUTE, 20 * MINUTE]);
    assert_eq!(
        why(&throttled(429, 2)),
        "throttled (429) without Retry-After, second visit in a row without a feed: 2h"
    );
}

#[test]
fn failures_double_up_to_a_day_and_never_end() {
    let failed = |failures| ScheduleInput { failures, recent: &[], ..facts(ScheduleOutcome::Failed) };
    assert_eq!(why(&failed(1)), "first failure: 5m");
    assert_eq!(why(&failed(3)), "third failure in a row, doubling: 20m");
    assert_eq!(wait(&failed(3), 0.5), 20 * MINUTE);
    assert_eq!(why(&failed(12)), "12th failure in a row, never later than 24h");
    for failures in [0, 1, 2, 40, 1_000, u32::MAX] {
        let wait = wait(&failed(failures), 1.0);
        assert!(wait >= 5 * MINUTE && wait <= 24 * HOUR, "{failures}: {wait:?}");
    }
}

#[test]
fn failures_double_from_a_fixed_interval() {
    let facts = ScheduleInput { every: Some(HOUR), failures: 2, ..facts(ScheduleOutcome::Failed) };
    assert_eq!(why(&facts), "second failure in a row, doubling: 2h");
}

#[test]
fn a_410_ends_the_visits_only_when_it_is_confirmed() {
    let gone = |gone_in_a_row| ScheduleInput { gone_in_a_row, recent: &[], ..facts(ScheduleOutcome::Gone) };
    assert_eq!(why(&gone(1)), "gone (410), seen 1 of 3 times: asking again in 30m");
    assert_eq!(wait(&gone(2), 0.5), HOUR);
    let next = next_visit(&gone(3), 0.5);
    assert_eq!((next.at, next.why.as_str()), (None, "gone (410), confirmed 3 times"));
    let never_counted = ScheduleInput { failures: 9, ..gone(0) };
    assert!(next_visit(&never_counted, 0.5).at.is_some());
}

#[test]
fn skipped_hours_and_days_are_waited_out() {
    // 2026-03-02 is a Monday; now is noon.
    let hours = (12..18).map(|hour| 1 << hour).sum();
    let facts =
        ScheduleInput { every: Some(10 * MINUTE), skip_hours: hours, ..facts(ScheduleOutcome::Healthy) };
    let next = next_visit(&facts, 0.5);
    assert_eq!(next.at, Some("2026-03-02T18:05:00Z".parse().unwrap()));
    assert_eq!(next.why, "every 10m, as configured, moved out of the feed's skipHours and skipDays");
    let all_day = ScheduleInput { skip_hours: 0, skip_days: 1, ..facts };
    assert_eq!(next_visit(&all_day, 0.0).at, Some("2026-03-03T00:00:00Z".parse().unwrap()));
}

#[test]
fn new_sources_are_spread_within_the_shortest_interval() {
    let first = |place, total, pace| first_visit(now(), place, total, pace).at.unwrap().since(now());
    let pace = IntervalBounds::default();
    assert_eq!(first(0, 60, pace), Duration::ZERO);
    assert_eq!(first(59, 60, pace), Duration::from_millis(590));
    assert!(first(99_999, 100_000, pace) < pace.interval_min);
    let quick = IntervalBounds { interval_min: Duration::from_secs(1), ..pace };
    assert!(first(999, 1_000, quick) < Duration::from_secs(1));
    assert_eq!(first(7, 0, pace), Duration::ZERO);
    assert_eq!(first_visit(now(), 2, 60, pace).why, "new source, number 3 of 60");
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
    fn any_facts()(
        (min, more) in (1..7_200_u64, 0..200_000_u64),
        outcome in outcome(),
        code in prop::option::of(prop_oneof![Just(429_u16), Just(503), Just(200)]),
        (failures, gone_in_a_row) in (prop_oneof![0..20_u32, any::<u32>()], 0..5_u32),
        (every, ttl, update_period) in (maybe_wait(), maybe_wait(), maybe_wait()),
        (cache_life, retry_after) in (maybe_wait(), maybe_wait()),
        recent in prop::collection::vec(-4_000_000..1_000_000_i64, 0..30),
    ) -> ScheduleInput<'static> {
        let interval_min = Duration::from_secs(min);
        let pace = IntervalBounds { interval_min, interval_max: interval_min + Duration::from_secs(more) };
        let recent: Vec<_> = recent.iter().map(|s| Timestamp::from_millis(now().millis() + s * 1000)).collect();
        ScheduleInput {
            code, failures, gone_in_a_row, every, ttl, update_period, cache_life, retry_after,
            recent: recent.leak(),
            ..ScheduleInput::new(pace, now(), outcome)
        }
    }
}

proptest! {
    #[test]
    fn nobody_is_visited_sooner_than_he_may_be(facts in any_facts(), jitter in -1.0..2.0_f64) {
        let Next { at: Some(at), why } = next_visit(&facts, jitter) else { return Ok(()) };
        let wait = at.since(facts.now);
        let server = (24 * HOUR).max(facts.pace.interval_max);
        let asked = facts.retry_after.max(facts.cache_life).unwrap_or_default().min(server);
        prop_assert!(wait >= facts.pace.interval_min, "{wait:?} {why}");
        prop_assert!(wait >= asked, "{wait:?} {why}");
    }

    #[test]
    fn nobody_is_forgotten(facts in any_facts(), jitter in 0.0..=1.0_f64) {
        let Next { at, why } = next_visit(&facts, jitter);
        let is_confirmed = facts.outcome == ScheduleOutcome::Gone && facts.gone_in_a_row >= 3;
        prop_assert_eq!(at.is_none(), is_confirmed);
        let Some(at) = at else { return Ok(()) };
        let wait = at.since(facts.now);
        let asked = facts.retry_after.max(facts.cache_life).max(facts.ttl).max(facts.update_period);
        let server = (24 * HOUR).max(facts.pace.interval_max);
        let latest = facts.pace.interval_max.max(asked.unwrap_or_default().min(server) * 11 / 10);
        prop_assert!(wait <= latest, "{wait:?} {why}");
    }

    #[test]
    fn there_is_always_one_short_reason(facts in any_facts(), jitter in 0.0..=1.0_f64) {
        let why = next_visit(&facts, jitter).why;
        prop_assert!(!why.is_empty() && why.len() <= 160 && !why.contains('\n'), "{why}");
    }

    #[test]
    fn skipped_hours_are_never_visited(hours in 0..0x00ff_ffff_u32, jitter in 0.0..=1.0_f64, facts in any_facts()) {
        let facts = ScheduleInput { skip_hours: hours, ..facts };
        let Next { at: Some(at), .. } = next_visit(&facts, jitter) else { return Ok(()) };
        let hour = at.millis().rem_euclid(86_400_000) / 3_600_000;
        prop_assert!(hours >> hour & 1 == 0, "{at}");
    }

    #[test]
    fn two_feeds_with_the_same_facts_do_not_come_at_the_same_time(facts in any_facts()) {
        let (Some(early), Some(late)) = (next_visit(&facts, 0.0).at, next_visit(&facts, 1.0).at) else { return Ok(()) };
        let is_fixed = facts.pace.interval_min == facts.pace.interval_max;
        prop_assert!(late > early || is_fixed || facts.pace.interval_max < facts.pace.interval_min * 11 / 10);
    }
}

#[test]
fn a_feed_is_watched_closely_after_something_new_and_less_the_longer_it_is_quiet() {
    let now = now();
    let old = [Timestamp::from_millis(now.millis() - 40 * 86_400_000)];
    let wait = |quiet_s: u64, every: Option<Duration>| {
        let mut facts = ScheduleInput::new(IntervalBounds::default(), now, ScheduleOutcome::Unchanged);
        facts.recent = &old;
        facts.every = every;
        facts.quiet_for = Some(Duration::from_secs(quiet_s));
        let next = next_visit(&facts, 0.5);
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
