//! The life of a subscription as pure functions: its state, and when the next request to the hub is due.
//!
//! ```text
//!             request         verified             a visit finds items that the hub did not push
//!   pending ──────► pending ───────────► verified ─────────────────────────────────────────► silent
//!      │ refused, or never verified        │  ▲ └─ renewed at two thirds of the lease           │
//!      ▼                                   │  └───────────────────── a push ────────────────────┘
//!    failed ── retried, each time later     │ the lease expires             denied ── retried a day later
//!      ▲────────────────────────────────────┘
//! ```

use std::time::Duration;

use news::{Escaped, HubSubscription, PushState, SecretText, Timestamp, UnsettledPushes, WebSubState};

use notation::humanize;

use super::pushes::PushOutcome;

/// The lease that is requested.
pub(crate) const LEASE_WANTED: Duration = Duration::from_secs(10 * 24 * 3600);
/// The longest lease that is trusted: hubs that promised years have been seen to forget.
const LEASE_LONGEST: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long a hub has to verify, and the first wait after a failure; doubles with each failure.
const TRY_FIRST: Duration = Duration::from_secs(10 * 60);
/// A lease is renewed no sooner than this after it was granted, however short it is.
const RENEW_MIN: Duration = TRY_FIRST;
/// The longest such wait.
const TRY_LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The first wait before a request to a silent hub is repeated; doubles each time.
const SILENT_FIRST: Duration = Duration::from_secs(3600);
/// How long after a push, or a visit because of one, what a visit finds counts as pushed: the second visit for a push
/// comes a minute after the first.
const PUSH_COVERS: Duration = Duration::from_secs(120);
/// How long after a push that announced something another one may be the same once more.
const PUSH_REPEATS: Duration = Duration::from_secs(15);
/// Longest text from a hub that is kept, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// A subscription that was not requested yet.
pub(crate) fn create(
    hub: &SecretText,
    topic: &SecretText,
    id: SecretText,
    secret: SecretText,
    now: Timestamp,
) -> HubSubscription {
    // A secret sent in clear text is worthless, so there is none if neither URL is https. An https topic alone gets
    // one: its publisher cares.
    let guarded = [hub, topic].into_iter().any(|url| url.reveal().starts_with("https://"));
    HubSubscription {
        id,
        secret: guarded.then_some(secret),
        hub: hub.clone(),
        topic: topic.clone(),
        state: PushState::Pending,
        since: now,
        next_try: now,
        tries: 0,
        silences: 0,
        lease_end: None,
        last_push: None,
        last_push_visit: None,
        last_fruitful_push: None,
        unsettled: UnsettledPushes::default(),
        error: None,
    }
}

/// Whether the subscription is for the hub and the topic that the feed names now.
pub(crate) fn matches_feed(websub: &WebSubState) -> bool {
    let of = websub.subscription.as_ref().map(|s| (&s.hub, &s.topic));
    of == websub.hub.as_ref().zip(websub.topic.as_ref())
}

/// When it has to be processed next.
pub(crate) fn next_due(subscription: &HubSubscription) -> Timestamp {
    let ends = subscription.lease_end.filter(|_| subscription.state == PushState::Verified);
    ends.map_or(subscription.next_try, |end| end.min(subscription.next_try))
}

fn set_state(subscription: &mut HubSubscription, state: PushState, now: Timestamp) {
    if subscription.state != state {
        (subscription.state, subscription.since) = (state, now);
    }
}

fn backoff(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(TRY_LONGEST)
}

/// Applies the passage of time: a lease expires, a hub fails to verify.
pub(crate) fn expire(subscription: &mut HubSubscription, now: Timestamp) {
    let over = subscription.lease_end.is_some_and(|end| end <= now);
    match subscription.state {
        PushState::Verified if over => {
            let why = subscription.error.take().map(|error| format!("; {error}"));
            fail(subscription, now, &format!("the lease expired{}", why.unwrap_or_default()));
        }
        PushState::Pending if subscription.tries > 0 && subscription.next_try <= now => {
            fail(subscription, now, "the hub did not verify the subscription");
        }
        _ => {}
    }
}

fn fail(subscription: &mut HubSubscription, now: Timestamp, error: &str) {
    set_state(subscription, PushState::Failed, now);
    subscription.lease_end = None;
    subscription.error = Some(truncated(error));
}

fn truncated(text: &str) -> String {
    let text = Escaped(text).to_string();
    text[..text.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}

/// A request is about to be sent. The next try is scheduled now, so that a response that never comes does no harm.
pub(crate) fn mark_requested(subscription: &mut HubSubscription, now: Timestamp) {
    subscription.next_try = now.plus(backoff(TRY_FIRST, subscription.tries));
    subscription.tries = subscription.tries.saturating_add(1);
    if subscription.state == PushState::Denied {
        set_state(subscription, PushState::Pending, now);
    }
}

/// Why a hub did not accept a request, or was not asked.
#[derive(Debug)]
pub(crate) struct HubFailure {
    pub(crate) error: String,
    /// How long it may not be asked, if it said so.
    pub(crate) wait: Option<Duration>,
}

impl HubFailure {
    pub(crate) fn new(error: String) -> Self {
        Self { error, wait: None }
    }
}

/// The hub did not accept the request. A current lease stays.
pub(crate) fn request_failed(subscription: &mut HubSubscription, now: Timestamp, failure: &HubFailure) {
    if let Some(wait) = failure.wait {
        subscription.next_try = subscription.next_try.max(now.plus(wait));
    }
    if matches!(subscription.state, PushState::Pending) {
        fail(subscription, now, &failure.error);
    }
    // It may name a pause, which counts from then.
    subscription.error = Some(format!("at {now}: {}", truncated(&failure.error)));
}

/// The hub verified the subscription. `jitter` is from 0 to 1.
pub(crate) fn mark_verified(
    subscription: &mut HubSubscription,
    now: Timestamp,
    lease: Option<Duration>,
    jitter: f64,
) {
    let lease = lease.filter(|lease| !lease.is_zero()).unwrap_or(LEASE_WANTED).min(LEASE_LONGEST);
    subscription.lease_end = Some(now.plus(lease));
    subscription.tries = 0;
    subscription.error = (lease < RENEW_MIN).then(|| {
        let (lease, pause) = (humanize(lease), humanize(RENEW_MIN));
        format!("the hub grants a lease of {lease} only; it is asked no more often than every {pause}")
    });
    // Two thirds, give or take a twentieth.
    subscription.next_try = now.plus(lease.mul_f64(0.617 + jitter * 0.1).max(RENEW_MIN));
    // A silent hub has to push first.
    if subscription.state != PushState::Silent {
        set_state(subscription, PushState::Verified, now);
    }
}

/// The hub denied the subscription.
pub(crate) fn mark_denied(subscription: &mut HubSubscription, now: Timestamp, reason: &str) {
    fail(subscription, now, if reason.is_empty() { "the hub gave no reason" } else { reason });
    set_state(subscription, PushState::Denied, now);
    subscription.next_try = now.plus(TRY_LONGEST);
}

/// Whether a push is accepted: only after verification, and during the lease.
pub(crate) fn is_live(subscription: &HubSubscription, now: Timestamp) -> bool {
    matches!(subscription.state, PushState::Verified | PushState::Silent)
        && subscription.lease_end.is_some_and(|end| end > now)
}

/// Records a push.
pub(crate) fn record_push(subscription: &mut HubSubscription, now: Timestamp) {
    subscription.last_push = Some(now);
    subscription.silences = 0;
    if subscription.state == PushState::Silent {
        set_state(subscription, PushState::Verified, now);
        let left = subscription.lease_end.map_or(Duration::ZERO, |end| end.since(now));
        subscription.next_try = now.plus(left.mul_f64(2.0 / 3.0).max(RENEW_MIN));
        subscription.error = None;
    }
}

/// Records what came of a push.
pub(crate) fn record_outcome(subscription: &mut HubSubscription, outcome: PushOutcome) {
    match outcome {
        PushOutcome::Fruitful(came) => subscription.last_fruitful_push = Some(came),
        // Many hubs push one thing twice.
        PushOutcome::Empty(came) if repeats_fruitful(subscription, came) => {}
        PushOutcome::Empty(_) => subscription.last_fruitful_push = None,
    }
}

/// Whether a push came seconds after one that announced something.
fn repeats_fruitful(subscription: &HubSubscription, came: Timestamp) -> bool {
    subscription.last_fruitful_push.is_some_and(|fruitful| came.since(fruitful) <= PUSH_REPEATS)
}

/// Whether the hub had announced what a visit finds now: there was a push since the last visit that has seen the feed, or a
/// short time ago, or one that no visit has settled, or the visit came because of one, however long it has waited for its
/// host since.
pub(crate) fn was_announced(
    subscription: &HubSubscription,
    now: Timestamp,
    last_seen: Option<Timestamp>,
) -> bool {
    let is_recent = |at| now.since(at) <= PUSH_COVERS;
    let is_since = |push| last_seen.is_none_or(|seen| push >= seen) || is_recent(push);
    let is_for_push = |ordered| last_seen.is_none_or(|seen| ordered > seen) || is_recent(ordered);
    subscription.unsettled != UnsettledPushes::default()
        || subscription.last_push.is_some_and(is_since)
        || subscription.last_push_visit.is_some_and(is_for_push)
}

/// A visit found something new. Returns whether the hub should have pushed it and did not; the hub is then silent,
/// and gets another request later. `last_seen` is when the last visit ended that has seen the feed.
pub(crate) fn detect_missed_push(
    subscription: &mut HubSubscription,
    now: Timestamp,
    last_seen: Option<Timestamp>,
) -> bool {
    let verified_then = last_seen.is_some_and(|seen| subscription.since <= seen);
    let promised = subscription.state == PushState::Verified && verified_then;
    if !promised || was_announced(subscription, now, last_seen) {
        return false;
    }
    set_state(subscription, PushState::Silent, now);
    subscription.error = Some("a visit found new items that the hub had not pushed".to_owned());
    subscription.next_try = now.plus(backoff(SILENT_FIRST, subscription.silences));
    subscription.silences = subscription.silences.saturating_add(1);
    subscription.tries = 0;
    true
}

/// Whether pushes work, so that fewer visits are enough: verified, and the last push had announced something. `has_news`:
/// a visit that ends now may have found what a newer push announces.
pub(crate) fn is_effective(subscription: &HubSubscription, now: Timestamp, has_news: bool) -> bool {
    let was_fruitful = |push| has_news || repeats_fruitful(subscription, push);
    subscription.state == PushState::Verified
        && is_live(subscription, now)
        && subscription.last_fruitful_push.is_some()
        && subscription.last_push.is_some_and(was_fruitful)
}

/// A visit carries the subscription as it was when the visit started; puts the current one in its place.
pub(crate) fn keep_newer(current: Option<Box<WebSubState>>, visited: &mut Option<Box<WebSubState>>) {
    match (current.and_then(|websub| websub.subscription), visited) {
        (Some(subscription), visited) => visited.get_or_insert_default().subscription = Some(subscription),
        (None, Some(visited)) => visited.subscription = None,
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(s: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(s))
    }

    fn hidden(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    fn subscription() -> HubSubscription {
        create(
            &hidden("https://hub.example/"),
            &hidden("http://a.example/"),
            hidden("id"),
            hidden("secret"),
            at(0),
        )
    }

    fn refused(error: &str) -> HubFailure {
        HubFailure::new(error.to_owned())
    }

    fn verified_subscription() -> HubSubscription {
        let mut one = subscription();
        mark_requested(&mut one, at(0));
        mark_verified(&mut one, at(1), Some(24 * HOUR), 0.5);
        one
    }

    #[test]
    fn a_lease_is_renewed_after_two_thirds_and_stays_while_the_hub_is_asked() {
        let mut one = subscription();
        assert_eq!(next_due(&one), at(0), "asked at once");
        mark_requested(&mut one, at(0));
        assert_eq!(one.state, PushState::Pending);
        mark_verified(&mut one, at(10), Some(Duration::from_secs(3000)), 0.5);
        assert_eq!((one.state, one.lease_end), (PushState::Verified, Some(at(3010))));
        assert_eq!(next_due(&one).since(at(10)).as_secs(), 2001);
        for jitter in [0.0, 1.0] {
            mark_verified(&mut one, at(10), Some(Duration::from_secs(3000)), jitter);
            assert!((1850..=2152).contains(&next_due(&one).since(at(10)).as_secs()));
        }
        mark_requested(&mut one, at(2010));
        request_failed(&mut one, at(2011), &refused("the hub answered 500"));
        assert_eq!(
            (one.state, next_due(&one)),
            (PushState::Verified, at(2610)),
            "asked again, the lease still runs"
        );
        mark_requested(&mut one, at(2610));
        request_failed(&mut one, at(2611), &refused("the hub answered 500"));
        assert_eq!(next_due(&one), at(3010), "the end of the lease is noticed");
        expire(&mut one, at(3010));
        assert_eq!((one.state, next_due(&one)), (PushState::Failed, at(3810)));
    }

    #[test]
    fn a_lease_is_bounded_and_a_hub_cannot_make_us_ask_all_the_time() {
        let mut one = subscription();
        mark_verified(&mut one, at(0), Some(365 * 24 * HOUR), 0.5);
        assert_eq!(one.lease_end, Some(at(14 * 86_400)));
        mark_verified(&mut one, at(0), Some(Duration::from_secs(1)), 0.5);
        assert_eq!(one.next_try, at(600), "nor does a lease of a second");
        let told = "the hub grants a lease of 1s only; it is asked no more often than every 10m";
        assert_eq!(one.error.as_deref(), Some(told));
        expire(&mut one, at(1));
        assert_eq!(
            (one.state, next_due(&one), one.error),
            (PushState::Failed, at(600), Some(format!("the lease expired; {told}")))
        );
        // Nor does a push to a silent hub.
        let mut one = subscription();
        mark_verified(&mut one, at(0), Some(MINUTE), 0.5);
        set_state(&mut one, PushState::Silent, at(1));
        record_push(&mut one, at(2));
        assert_eq!((one.state, one.next_try), (PushState::Verified, at(602)));
        let mut one = subscription();
        mark_verified(&mut one, at(0), None, 0.5);
        assert_eq!(one.lease_end, Some(at(10 * 86_400)));
    }

    #[test]
    fn a_hub_that_fails_is_asked_again_each_time_later_and_at_least_once_a_day() {
        let mut one = subscription();
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..10 {
            expire(&mut one, now);
            mark_requested(&mut one, now);
            request_failed(&mut one, now, &refused("connect: no"));
            assert_eq!(one.state, PushState::Failed);
            waits.push(next_due(&one).since(now).as_secs() / 60);
            now = next_due(&one);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]);
    }

    #[test]
    fn a_hub_is_not_asked_before_the_pause_that_it_asked_for_is_over() {
        let mut one = subscription();
        for (wait, next) in [(HOUR, at(3600)), (MINUTE, at(600))] {
            one.tries = 0;
            mark_requested(&mut one, at(0));
            request_failed(&mut one, at(0), &HubFailure { wait: Some(wait), ..refused("429") });
            assert_eq!(next_due(&one), next, "the longer of the two");
            let websub = WebSubState { subscription: Some(one.clone()), ..WebSubState::default() };
            let status = news::PushStatus::from(&websub);
            assert_eq!((status.state, status.next_request), (PushState::Failed, Some(next)));
            assert_eq!(status.error, Some(format!("at {}: 429", at(0))), "a pause counts from then");
        }
    }

    #[test]
    fn a_hub_that_accepts_the_request_and_never_verifies_has_failed() {
        let mut one = subscription();
        mark_requested(&mut one, at(0));
        expire(&mut one, at(599));
        assert_eq!(one.state, PushState::Pending);
        expire(&mut one, at(600));
        assert_eq!(
            (one.state, one.error.as_deref()),
            (PushState::Failed, Some("the hub did not verify the subscription"))
        );
    }

    #[test]
    fn a_denial_is_kept_with_its_reason_and_retried_a_day_later() {
        let mut one = verified_subscription();
        mark_denied(&mut one, at(5), "no \u{1b}[31mroom");
        assert_eq!((one.state, next_due(&one)), (PushState::Denied, at(86_405)));
        assert!(one.error.as_deref().is_some_and(|e| e.starts_with("no ") && !e.contains('\u{1b}')));
        assert!(!is_live(&one, at(6)));
        mark_requested(&mut one, at(86_405));
        assert_eq!(one.state, PushState::Pending);
    }

    #[test]
    fn pushes_work_from_the_first_one_until_something_was_missed() {
        let mut one = verified_subscription();
        assert!(is_live(&one, at(2)) && !is_effective(&one, at(2), false), "a promise is not a push");
        record_push(&mut one, at(100));
        assert!(!is_effective(&one, at(101), true), "nor is a push alone");
        record_outcome(&mut one, PushOutcome::Fruitful(at(100)));
        assert!(is_effective(&one, at(101), false));
        assert!(!detect_missed_push(&mut one, at(110), Some(at(50))), "it was pushed");
        assert!(!detect_missed_push(&mut one, at(150), Some(at(110))), "the publisher was slow to write it");
        assert!(is_effective(&one, at(200), false));
        assert!(detect_missed_push(&mut one, at(1000), Some(at(150))), "the hub said nothing");
        assert_eq!((one.state, next_due(&one)), (PushState::Silent, at(1000).plus(HOUR)));
        assert!(!is_effective(&one, at(1001), false) && is_live(&one, at(1001)));
        mark_verified(&mut one, at(4600), Some(24 * HOUR), 0.5);
        assert_eq!(one.state, PushState::Silent, "another promise is not a push either");
        record_push(&mut one, at(5000));
        assert!(!is_effective(&one, at(5001), false));
        record_outcome(&mut one, PushOutcome::Fruitful(at(5000)));
        assert!(is_effective(&one, at(5001), false));
    }

    #[test]
    fn an_empty_push_ends_the_effect_of_pushes_until_the_next_fruitful_one() {
        let mut one = verified_subscription();
        record_push(&mut one, at(100));
        record_outcome(&mut one, PushOutcome::Fruitful(at(100)));
        record_push(&mut one, at(110));
        record_outcome(&mut one, PushOutcome::Empty(at(110)));
        assert!(is_effective(&one, at(160), false), "the same was pushed twice");
        for soon in [116, 130, 1000] {
            let mut one = one.clone();
            record_push(&mut one, at(soon));
            assert!(!is_effective(&one, at(soon + 1), false), "a visit found nothing");
            record_outcome(&mut one, PushOutcome::Empty(at(soon)));
            assert!(!is_effective(&one, at(soon + 1), true), "{soon}");
        }
        record_push(&mut one, at(1000));
        assert!(is_effective(&one, at(1001), true), "it may have found what was pushed");
        record_outcome(&mut one, PushOutcome::Empty(at(1000)));
        assert!(!is_effective(&one, at(1002), true));
        record_push(&mut one, at(2000));
        record_outcome(&mut one, PushOutcome::Fruitful(at(2000)));
        assert!(is_effective(&one, at(2001), false));
    }

    #[test]
    fn what_the_second_visit_for_a_push_finds_was_pushed() {
        let mut one = verified_subscription();
        record_push(&mut one, at(1000));
        let mut missed = one.clone();
        assert!(!detect_missed_push(&mut one, at(1065), Some(at(1001))), "a minute later");
        // Both visits waited for their host, the second since it was ordered.
        assert!(detect_missed_push(&mut missed, at(1400), Some(at(1200))));
        one.last_push_visit = Some(at(1235));
        assert!(!detect_missed_push(&mut one, at(1400), Some(at(1200))));
        assert!(detect_missed_push(&mut one, at(2400), Some(at(1401))), "that visit has ended");
    }

    #[test]
    fn a_hub_that_verifies_again_and_again_and_never_pushes_is_asked_ever_later() {
        let mut one = verified_subscription();
        let mut waits = Vec::new();
        for n in 1..=7 {
            let now = at(n * 100_000);
            mark_verified(&mut one, at(n * 100_000 - 500), Some(48 * HOUR), 0.5);
            set_state(&mut one, PushState::Verified, at(n * 100_000 - 500));
            assert!(detect_missed_push(&mut one, now, Some(at(n * 100_000 - 400))));
            waits.push(next_due(&one).since(now).as_secs() / 3600);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 24, 24]);
    }

    #[test]
    fn what_was_there_before_the_hub_verified_was_not_missed() {
        let mut one = verified_subscription();
        assert!(!detect_missed_push(&mut one, at(50), None), "the first visit of all");
        assert!(!detect_missed_push(&mut one, at(50), Some(at(0))), "verified between the two visits");
        assert_eq!(one.state, PushState::Verified);
    }

    #[test]
    fn a_secret_is_created_only_if_the_hub_or_the_topic_is_https() {
        let secret = |hub: &str, topic: &str| {
            create(&hidden(hub), &hidden(topic), hidden("id"), hidden("s"), at(0)).secret.is_some()
        };
        assert!(secret("https://h.example/", "http://a.example/"));
        assert!(secret("http://h.example/", "https://a.example/"));
        assert!(!secret("http://h.example/", "http://a.example/"));
    }

    #[test]
    fn a_visit_never_undoes_what_a_hub_did_meanwhile() {
        let verified = WebSubState { subscription: Some(verified_subscription()), ..WebSubState::default() };
        let hub = Some(SecretText::new("https://new.example/".to_owned()));
        let mut visited = Some(Box::new(WebSubState { hub: hub.clone(), ..WebSubState::default() }));
        keep_newer(Some(Box::new(verified.clone())), &mut visited);
        let kept = visited.clone().unwrap();
        assert_eq!((kept.hub, kept.subscription), (hub, verified.subscription.clone()));
        keep_newer(None, &mut visited);
        assert_eq!(visited.unwrap().subscription, None, "an ended subscription is not restored");
        let mut visited = None;
        keep_newer(Some(Box::new(verified.clone())), &mut visited);
        assert_eq!(visited.unwrap().subscription, verified.subscription);
    }
}
