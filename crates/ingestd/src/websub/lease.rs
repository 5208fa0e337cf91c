//! The life of a subscription as pure functions: what is remembered, and when the hub is asked next.
//!
//! ```text
//!             ask             verified             a visit finds what the hub did not tell
//!   pending ──────► pending ───────────► verified ─────────────────────────────────────────► silent
//!      │ refused, or never verified        │  ▲ └─ asked again at two thirds of the lease       │
//!      ▼                                   │  └───────────────────── a push ────────────────────┘
//!    failed ── asked again, each time later │ the lease ends unrenewed          denied ── asked again a day later
//!      ▲────────────────────────────────────┘
//! ```

use std::time::Duration;

use news::{Escaped, FeedUrl, HubSubscription, PushState, SecretText, Source, Timestamp, WebSubState};

/// The lease that is asked for.
pub(crate) const LEASE_WANTED: Duration = Duration::from_secs(10 * 24 * 3600);
/// The longest lease that is believed: hubs that promised years have been seen to forget.
const LEASE_LONGEST: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long a hub has to verify, and the first wait after a failure; doubles with each.
const TRY_FIRST: Duration = Duration::from_secs(10 * 60);
/// The longest such wait.
const TRY_LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The first wait before a silent hub is asked again; doubles with each silence.
const SILENT_FIRST: Duration = Duration::from_secs(3600);
/// Longest text of a hub that is kept, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// Takes over what a feed says of itself: its hub, and the name under which the hub knows it. `links` are those of
/// the answer's head, which win; `document` is what stood in the body, when there was one that was read.
pub(crate) fn discover(
    websub: &mut Option<Box<WebSubState>>,
    source: &Source,
    links: &fetch::HeaderLinks,
    document: Option<&feed::FeedInfo>,
) {
    let text = |url: &FeedUrl| SecretText::new(url.secret().as_str().to_owned());
    let said =
        |text: &Option<String>| text.clone().filter(|t| t.len() <= FeedUrl::LENGTH_MAX).map(SecretText::new);
    let hub = links.hub.as_ref().map(text).or_else(|| said(&document?.hub));
    match hub {
        Some(hub) => {
            let topic = links.topic.as_ref().map(text).or_else(|| said(&document?.self_url));
            let known = websub.get_or_insert_default();
            known.topic = topic.or_else(|| known.topic.take()).or_else(|| plain(source));
            known.hub = Some(hub);
        }
        // Only a whole document without a hub says that there is none any more.
        None if document.is_some() => {
            if let Some(known) = websub {
                (known.hub, known.topic) = (None, None);
            }
            websub.take_if(|known| known.subscription.is_none());
        }
        None => {}
    }
}

/// The address of a feed that does not name itself, if it holds nothing that is none of a hub's business.
fn plain(source: &Source) -> Option<SecretText> {
    let url = source.url.secret();
    let is_plain = url.query().is_none() && url.username().is_empty() && url.password().is_none();
    is_plain.then(|| SecretText::new(url.as_str().to_owned()))
}

/// A subscription that was never asked for yet.
pub(crate) fn begin(
    hub: &SecretText,
    topic: &SecretText,
    id: SecretText,
    secret: SecretText,
    now: Timestamp,
) -> HubSubscription {
    // A secret that was sent in the clear is none. Where only the topic is https, its publisher has asked for care.
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
        error: None,
    }
}

/// Whether this is what the feed says now.
pub(crate) fn fits(websub: &WebSubState) -> bool {
    let of = websub.subscription.as_ref().map(|s| (&s.hub, &s.topic));
    of == websub.hub.as_ref().zip(websub.topic.as_ref())
}

/// When something is to be done about it next.
pub(crate) fn due(subscription: &HubSubscription) -> Timestamp {
    let ends = subscription.lease_end.filter(|_| subscription.state == PushState::Verified);
    ends.map_or(subscription.next_try, |end| end.min(subscription.next_try))
}

fn enter(subscription: &mut HubSubscription, state: PushState, now: Timestamp) {
    if subscription.state != state {
        (subscription.state, subscription.since) = (state, now);
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(TRY_LONGEST)
}

/// What passed unnoticed by then: a lease that ended, a hub that never came to verify.
pub(crate) fn look(subscription: &mut HubSubscription, now: Timestamp) {
    let over = subscription.lease_end.is_some_and(|end| end <= now);
    match subscription.state {
        PushState::Verified if over => fail(subscription, now, "the lease ended"),
        PushState::Pending if subscription.tries > 0 && subscription.next_try <= now => {
            fail(subscription, now, "the hub did not come to verify");
        }
        _ => {}
    }
}

fn fail(subscription: &mut HubSubscription, now: Timestamp, error: &str) {
    enter(subscription, PushState::Failed, now);
    subscription.lease_end = None;
    subscription.error = Some(shortened(error));
}

fn shortened(text: &str) -> String {
    let text = Escaped(text).to_string();
    text[..text.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}

/// The hub is about to be asked. The next time is fixed before there is an answer, so that none is waited for in vain.
pub(crate) fn asking(subscription: &mut HubSubscription, now: Timestamp) {
    subscription.next_try = now.plus(doubled(TRY_FIRST, subscription.tries));
    subscription.tries = subscription.tries.saturating_add(1);
    if subscription.state == PushState::Denied {
        enter(subscription, PushState::Pending, now);
    }
}

/// The hub did not take the question. A lease that still runs goes on.
pub(crate) fn refused(subscription: &mut HubSubscription, now: Timestamp, error: &str) {
    subscription.error = Some(shortened(error));
    if matches!(subscription.state, PushState::Pending) {
        fail(subscription, now, error);
    }
}

/// The hub came to verify. `jitter` is from 0 to 1; the lease is renewed no sooner than after `renew_min`.
pub(crate) fn verified(
    subscription: &mut HubSubscription,
    now: Timestamp,
    lease: Option<Duration>,
    renew_min: Duration,
    jitter: f64,
) {
    let lease = lease.filter(|lease| !lease.is_zero()).unwrap_or(LEASE_WANTED).min(LEASE_LONGEST);
    subscription.lease_end = Some(now.plus(lease));
    subscription.tries = 0;
    subscription.error = None;
    // Two thirds, a twentieth more or less.
    subscription.next_try = now.plus(lease.mul_f64(0.617 + jitter * 0.1).max(renew_min));
    // One that was silent has to push first.
    if subscription.state != PushState::Silent {
        enter(subscription, PushState::Verified, now);
    }
}

/// The hub will not.
pub(crate) fn denied(subscription: &mut HubSubscription, now: Timestamp, reason: &str) {
    fail(subscription, now, if reason.is_empty() { "the hub gave no reason" } else { reason });
    enter(subscription, PushState::Denied, now);
    subscription.next_try = now.plus(TRY_LONGEST);
}

/// Whether a push may be a hint: only from a hub that has verified us, and only while its promise runs.
pub(crate) fn is_live(subscription: &HubSubscription, now: Timestamp) -> bool {
    matches!(subscription.state, PushState::Verified | PushState::Silent)
        && subscription.lease_end.is_some_and(|end| end > now)
}

/// A push came.
pub(crate) fn pushed(subscription: &mut HubSubscription, now: Timestamp) {
    subscription.last_push = Some(now);
    subscription.silences = 0;
    if subscription.state == PushState::Silent {
        enter(subscription, PushState::Verified, now);
        let left = subscription.lease_end.map_or(Duration::ZERO, |end| end.since(now));
        subscription.next_try = now.plus(left.mul_f64(2.0 / 3.0));
        subscription.error = None;
    }
}

/// Whether the hub had told us of what a visit finds now: a push came since the visit before it, or not longer than
/// `covers` ago.
pub(crate) fn told(
    subscription: &HubSubscription,
    now: Timestamp,
    previous_visit: Option<Timestamp>,
    covers: Duration,
) -> bool {
    let since = |push| previous_visit.is_none_or(|visit| push >= visit) || now.since(push) <= covers;
    subscription.last_push.is_some_and(since)
}

/// A visit found something new. Whether the hub should have told us of it, and did not: then it is silent from now on,
/// and asked again later.
pub(crate) fn found(
    subscription: &mut HubSubscription,
    now: Timestamp,
    previous_visit: Option<Timestamp>,
    covers: Duration,
) -> bool {
    let verified_then = previous_visit.is_some_and(|visit| subscription.since <= visit);
    let promised = subscription.state == PushState::Verified && verified_then;
    if !promised || told(subscription, now, previous_visit, covers) {
        return false;
    }
    enter(subscription, PushState::Silent, now);
    subscription.error = Some("a visit found something new that was not pushed".to_owned());
    subscription.next_try = now.plus(doubled(SILENT_FIRST, subscription.silences));
    subscription.silences = subscription.silences.saturating_add(1);
    subscription.tries = 0;
    true
}

/// Whether pushes work, so that visits may be fewer: verified, and at least one came.
pub(crate) fn works(subscription: &HubSubscription, now: Timestamp) -> bool {
    subscription.state == PushState::Verified
        && is_live(subscription, now)
        && subscription.last_push.is_some()
}

#[cfg(test)]
mod tests {
    use news::SourceId;

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
        begin(
            &hidden("https://hub.example/"),
            &hidden("http://a.example/"),
            hidden("id"),
            hidden("secret"),
            at(0),
        )
    }

    fn verified_one() -> HubSubscription {
        let mut one = subscription();
        asking(&mut one, at(0));
        verified(&mut one, at(1), Some(24 * HOUR), MINUTE, 0.5);
        one
    }

    #[test]
    fn a_lease_is_renewed_after_two_thirds_and_goes_on_while_the_hub_is_asked() {
        let mut one = subscription();
        assert_eq!(due(&one), at(0), "asked at once");
        asking(&mut one, at(0));
        assert_eq!(one.state, PushState::Pending);
        verified(&mut one, at(10), Some(Duration::from_secs(3000)), MINUTE, 0.5);
        assert_eq!((one.state, one.lease_end), (PushState::Verified, Some(at(3010))));
        assert_eq!(due(&one).since(at(10)).as_secs(), 2001);
        for jitter in [0.0, 1.0] {
            verified(&mut one, at(10), Some(Duration::from_secs(3000)), MINUTE, jitter);
            assert!((1850..=2152).contains(&due(&one).since(at(10)).as_secs()));
        }
        asking(&mut one, at(2010));
        refused(&mut one, at(2011), "the hub answered 500");
        assert_eq!(
            (one.state, due(&one)),
            (PushState::Verified, at(2610)),
            "asked again, the lease still runs"
        );
        asking(&mut one, at(2610));
        refused(&mut one, at(2611), "the hub answered 500");
        assert_eq!(due(&one), at(3010), "the end of the lease is noticed");
        look(&mut one, at(3010));
        assert_eq!((one.state, due(&one)), (PushState::Failed, at(3810)));
    }

    #[test]
    fn a_lease_is_bounded_and_a_hub_cannot_make_us_ask_all_the_time() {
        let mut one = subscription();
        verified(&mut one, at(0), Some(365 * 24 * HOUR), MINUTE, 0.5);
        assert_eq!(one.lease_end, Some(at(14 * 86_400)));
        verified(&mut one, at(0), Some(Duration::from_secs(1)), MINUTE, 0.5);
        assert_eq!(one.next_try, at(60));
        verified(&mut one, at(0), None, MINUTE, 0.5);
        assert_eq!(one.lease_end, Some(at(10 * 86_400)));
    }

    #[test]
    fn a_hub_that_fails_is_asked_again_each_time_later_and_at_least_once_a_day() {
        let mut one = subscription();
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..10 {
            look(&mut one, now);
            asking(&mut one, now);
            refused(&mut one, now, "connect: no");
            assert_eq!(one.state, PushState::Failed);
            waits.push(due(&one).since(now).as_secs() / 60);
            now = due(&one);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]);
    }

    #[test]
    fn a_hub_that_takes_the_question_and_never_verifies_has_failed() {
        let mut one = subscription();
        asking(&mut one, at(0));
        look(&mut one, at(599));
        assert_eq!(one.state, PushState::Pending);
        look(&mut one, at(600));
        assert_eq!(
            (one.state, one.error.as_deref()),
            (PushState::Failed, Some("the hub did not come to verify"))
        );
    }

    #[test]
    fn a_denial_is_kept_with_its_reason_and_asked_again_a_day_later() {
        let mut one = verified_one();
        denied(&mut one, at(5), "no \u{1b}[31mroom");
        assert_eq!((one.state, due(&one)), (PushState::Denied, at(86_405)));
        assert!(one.error.as_deref().is_some_and(|e| e.starts_with("no ") && !e.contains('\u{1b}')));
        assert!(!is_live(&one, at(6)));
        asking(&mut one, at(86_405));
        assert_eq!(one.state, PushState::Pending);
    }

    #[test]
    fn pushes_work_once_one_came_and_until_something_was_missed() {
        let mut one = verified_one();
        assert!(is_live(&one, at(2)) && !works(&one, at(2)), "a promise is no push");
        pushed(&mut one, at(100));
        assert!(works(&one, at(101)));
        assert!(!found(&mut one, at(110), Some(at(50)), MINUTE), "it was pushed");
        assert!(!found(&mut one, at(150), Some(at(110)), MINUTE), "the publisher was slow to write it");
        assert!(works(&one, at(200)));
        assert!(found(&mut one, at(1000), Some(at(150)), MINUTE), "the hub said nothing");
        assert_eq!((one.state, due(&one)), (PushState::Silent, at(1000).plus(HOUR)));
        assert!(!works(&one, at(1001)) && is_live(&one, at(1001)));
        verified(&mut one, at(4600), Some(24 * HOUR), MINUTE, 0.5);
        assert_eq!(one.state, PushState::Silent, "another promise is no push either");
        pushed(&mut one, at(5000));
        assert!(works(&one, at(5001)));
    }

    #[test]
    fn a_hub_that_promises_again_and_again_and_never_pushes_is_asked_ever_later() {
        let mut one = verified_one();
        let mut waits = Vec::new();
        for n in 1..=7 {
            let now = at(n * 100_000);
            verified(&mut one, at(n * 100_000 - 500), Some(48 * HOUR), MINUTE, 0.5);
            enter(&mut one, PushState::Verified, at(n * 100_000 - 500));
            assert!(found(&mut one, now, Some(at(n * 100_000 - 400)), MINUTE));
            waits.push(due(&one).since(now).as_secs() / 3600);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 24, 24]);
    }

    #[test]
    fn what_was_there_before_the_hub_verified_was_not_missed() {
        let mut one = verified_one();
        assert!(!found(&mut one, at(50), None, MINUTE), "the first visit of all");
        assert!(!found(&mut one, at(50), Some(at(0)), MINUTE), "verified between the two visits");
        assert_eq!(one.state, PushState::Verified);
    }

    #[test]
    fn a_secret_is_made_only_where_somebody_speaks_https() {
        let secret = |hub: &str, topic: &str| {
            begin(&hidden(hub), &hidden(topic), hidden("id"), hidden("s"), at(0)).secret.is_some()
        };
        assert!(secret("https://h.example/", "http://a.example/"));
        assert!(secret("http://h.example/", "https://a.example/"));
        assert!(!secret("http://h.example/", "http://a.example/"));
    }

    #[test]
    fn the_head_wins_over_the_document_and_silence_of_both_ends_it() {
        let source = |url: &str| Source::new(SourceId::try_new("a").unwrap(), FeedUrl::try_new(url).unwrap());
        let feed = source("https://example.org/feed");
        let link = |text: &str| Some(FeedUrl::try_new(text).unwrap());
        let none = fetch::HeaderLinks::default();
        let info = feed::FeedInfo {
            hub: Some("https://document.example/".to_owned()),
            self_url: Some("https://example.org/self".to_owned()),
            ..feed::FeedInfo::default()
        };
        let said = |websub: &Option<Box<WebSubState>>| {
            let websub = websub.as_ref().unwrap();
            let text = |hidden: &Option<SecretText>| hidden.as_ref().map(|h| h.reveal().to_owned());
            (text(&websub.hub), text(&websub.topic))
        };
        let wanted = |hub: &str, topic: &str| (Some(hub.to_owned()), Some(topic.to_owned()));

        let mut websub = None;
        discover(&mut websub, &feed, &none, None);
        assert_eq!(websub, None);
        discover(&mut websub, &feed, &none, Some(&info));
        assert_eq!(said(&websub), wanted("https://document.example/", "https://example.org/self"));
        let head = fetch::HeaderLinks {
            hub: link("https://head.example/"),
            topic: link("https://example.org/head"),
        };
        discover(&mut websub, &feed, &head, Some(&info));
        assert_eq!(said(&websub), wanted("https://head.example/", "https://example.org/head"));
        discover(&mut websub, &feed, &none, None);
        assert_eq!(
            said(&websub),
            wanted("https://head.example/", "https://example.org/head"),
            "a 304 says nothing"
        );
        discover(&mut websub, &feed, &none, Some(&feed::FeedInfo::default()));
        assert_eq!(websub, None);

        let hub_only = fetch::HeaderLinks { hub: link("https://head.example/"), topic: None };
        discover(&mut websub, &feed, &hub_only, None);
        assert_eq!(said(&websub).1.as_deref(), Some("https://example.org/feed"));
        let mut websub = None;
        discover(&mut websub, &source("https://example.org/feed?key=TOPSECRET"), &hub_only, None);
        assert_eq!(said(&websub).1, None, "a hub is not told a secret that the feed did not publish");
    }
}
