//! How pushes change the interval between visits: a source whose hub works is visited half as often.

use fetch::schedule::{Next, ScheduleInput, ScheduleOutcome, next_visit};
use news::{Timestamp, WebSubState};

use super::subscription;

/// The next visit of a source whose hub pushes what is new: after twice the usual interval, within the configured
/// bounds. An interval that the operator fixed is not changed.
pub(crate) fn relax_interval(
    usual: Next,
    input: &ScheduleInput<'_>,
    websub: Option<&WebSubState>,
    last_seen: Option<Timestamp>,
) -> Next {
    let Some(subscription) = websub.and_then(|websub| websub.subscription.as_ref()) else { return usual };
    let is_news = input.outcome == ScheduleOutcome::Healthy;
    let is_healthy = is_news || input.outcome == ScheduleOutcome::Unchanged;
    let was_announced = !is_news || subscription::was_announced(subscription, input.now, last_seen);
    let is_effective =
        is_healthy && was_announced && subscription::is_effective(subscription, input.now, is_news);
    let (Some(at), None, true) = (usual.at, input.every, is_effective) else { return usual };
    let twice = at.since(input.now).saturating_mul(2);
    let longer = next_visit(&ScheduleInput { every: Some(twice), ..input.clone() }, 0.5);
    // An interval that the operator fixes overrides them, but this one is ours.
    let longer = input.defer_past_skip_windows(longer, 0.5);
    if longer.at <= usual.at {
        return usual;
    }
    Next { at: longer.at, why: format!("hub pushes: twice the usual interval ({})", usual.why) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fetch::schedule::IntervalBounds;
    use news::SecretText;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: fn() -> Timestamp = || Timestamp::from_millis(1_800_000_000_000);

    /// Verified an hour ago; the last push was `pushed` ago.
    fn websub(pushed: Option<Duration>) -> WebSubState {
        let hidden = |text: &str| SecretText::new(text.to_owned());
        let began = Timestamp::from_millis(NOW().millis() - 3_600_000);
        let mut one = subscription::create(
            &hidden("https://h.example/"),
            &hidden(""),
            hidden("id"),
            hidden("s"),
            began,
        );
        subscription::mark_requested(&mut one, began);
        subscription::mark_verified(&mut one, began, Some(100 * HOUR), 0.5);
        one.last_push = pushed.map(|ago| {
            let ms = i64::try_from(ago.as_millis()).unwrap();
            Timestamp::from_millis(NOW().millis() - ms)
        });
        one.last_fruitful_push = one.last_push;
        WebSubState { subscription: Some(one), ..WebSubState::default() }
    }

    fn input(outcome: ScheduleOutcome) -> ScheduleInput<'static> {
        ScheduleInput::new(IntervalBounds::default(), NOW(), outcome)
    }

    fn minutes(next: &Next) -> u64 {
        next.at.unwrap().since(NOW()).as_secs() / 60
    }

    #[test]
    fn while_pushes_work_visits_are_half_as_often_and_never_rarer_than_interval_max() {
        use ScheduleOutcome::{Failed, Healthy, Unchanged};
        let minute = Duration::from_secs(60);
        let previous = Some(Timestamp::from_millis(NOW().millis() - 600_000));
        let usual = |wait| Next { at: Some(NOW().plus(wait)), why: "every 1 h".to_owned() };
        let after = |input: ScheduleInput<'_>, pushed: Option<Duration>, wait: Duration| {
            let next = relax_interval(usual(wait), &input, Some(&websub(pushed)), previous);
            (minutes(&next), next.why)
        };
        let (wait, why) = after(input(Unchanged), Some(minute), HOUR);
        assert_eq!((wait, why.as_str()), (120, "hub pushes: twice the usual interval (every 1 h)"));
        assert_eq!(after(input(Healthy), Some(minute), HOUR).0, 120, "the push announced it");
        let bounded = after(input(Unchanged), Some(minute), 20 * HOUR).0;
        assert!((20 * 60..=24 * 60).contains(&bounded), "{bounded}");
        for (input, pushed) in [
            (input(Unchanged), None),
            (input(Failed), Some(minute)),
            (input(Healthy), Some(HOUR)),
            (ScheduleInput { every: Some(HOUR), ..input(Unchanged) }, Some(minute)),
        ] {
            assert_eq!(after(input, pushed, HOUR), (60, "every 1 h".to_owned()));
        }
        let items = [1, 2].map(|n: i64| Timestamp::from_millis(NOW().millis() - n * 600_000));
        for (recent, minutes) in [(&[][..], 24 * 60), (&items, 20)] {
            let skips =
                ScheduleInput { recent, skip_days: 0x7e, skip_hours: 0x00ff_fffe, ..input(Unchanged) };
            let wait = after(skips, Some(minute), 10 * minute).0;
            assert!(if minutes == 20 { wait == 20 } else { wait > 60 }, "a burst is not deferred: {wait}");
        }
        // Pushes that announced nothing stretch nothing.
        let mut empty = websub(Some(minute));
        empty.subscription.as_mut().unwrap().last_fruitful_push = None;
        for outcome in [Unchanged, Healthy] {
            let next = relax_interval(usual(HOUR), &input(outcome), Some(&empty), previous);
            assert_eq!(minutes(&next), 60, "{outcome:?}");
        }
        let nothing = relax_interval(usual(HOUR), &input(Unchanged), None, previous);
        assert_eq!(minutes(&nothing), 60);
    }
}
