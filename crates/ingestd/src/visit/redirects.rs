//! Permanent redirects: when the target is requested instead of the configured URL, and when not any more. Pure
//! functions over [`RedirectState`].
//!
//! ```text
//! 301/308 only, a feed at the end ─► observed ──7 days and 3 visits, the same target──► adopted ──5 failures──► dropped
//!                                      ├─ http to https of the same host: at once         └─ 404 or 410: at once
//!                                      └─ the old URL answers 404 or 410: at once
//! ```
//!
//! A chain with a 302, 303 or 307 in it is not permanent, and discards what was observed before. Never adopted: a
//! downgrade from https to http, and, for a source with credentials, another host, which must not get them.

use std::time::Duration;

use fetch::{FetchReport, RedirectHop, may_share_credentials, validator_key};
use news::{
    AdoptedRedirect, FeedUrl, ObservedRedirect, RedirectState, Source, StoredUrl, Timestamp, VisitStatus,
};

/// How long the target must have been the same: a hijacked domain is mostly noticed within days.
const SEEN_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many visits must have observed it in that time.
const SEEN_TIMES: u32 = 3;
/// Failed visits in a row after which an adopted redirect is dropped.
const FAILURES_MAX: u32 = 5;

/// A change of the URL that is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedirectChange {
    /// The target is requested from now on.
    Adopted {
        /// The target.
        to: StoredUrl,
        /// Why now.
        why: &'static str,
    },
    /// The configured URL is requested again.
    Dropped {
        /// The target that was requested until now.
        adopted: StoredUrl,
        /// Why now.
        why: &'static str,
    },
}

/// The hash of a URL, secrets included.
pub(crate) fn url_hash(url: &FeedUrl) -> u64 {
    news::stable_hash(url.secret().as_str().as_bytes())
}

/// The URL to request: the adopted one if there is one, with the user and password of the configured URL where these
/// may be sent.
pub(crate) fn effective_url(source: &Source, moves: &RedirectState) -> FeedUrl {
    let configured = &source.url;
    let adopted = moves.adopted.as_ref().filter(|_| moves.home == url_hash(configured));
    let Some(to) = adopted.and_then(|adopted| adopted.to.get()) else { return configured.clone() };
    if !has_url_credentials(configured) || !may_share_credentials(configured, &to) {
        return to;
    }
    let mut url = to.secret().clone();
    let (user, password) = (configured.secret().username(), configured.secret().password());
    match url.set_username(user).and_then(|()| url.set_password(password)) {
        Ok(()) => FeedUrl::try_new(url.as_str()).unwrap_or(to),
        Err(()) => to,
    }
}

/// Updates what is known about redirects after a visit that ended with `status`.
pub(crate) fn observe(
    moves: &mut RedirectState,
    source: &Source,
    report: &FetchReport,
    status: VisitStatus,
    now: Timestamp,
) -> Option<RedirectChange> {
    let configured = url_hash(&source.url);
    if moves.home != configured {
        *moves = RedirectState { home: configured, ..RedirectState::default() };
    }
    match (status, &mut moves.adopted) {
        // The feed is there, but the server is busy.
        (VisitStatus::Throttled, _) => None,
        (status, Some(adopted)) if !status.is_healthy() => {
            adopted.failures = adopted.failures.saturating_add(1);
            let why = match adopted.failures {
                _ if is_gone(report) => "it answers 404 or 410",
                FAILURES_MAX.. => "it failed five times in a row",
                _ => return None,
            };
            moves.seen = None;
            moves.adopted.take().map(|adopted| RedirectChange::Dropped { adopted: adopted.to, why })
        }
        (status, None) if !status.is_healthy() => {
            let seen = moves.seen.take_if(|_| is_gone(report))?;
            Some(adopt(moves, source, seen.to, "the old URL answers 404 or 410", now))
        }
        (_, adopted) => {
            if let Some(adopted) = adopted {
                adopted.failures = 0;
            }
            observe_chain(moves, source, report, now)
        }
    }
}

/// A feed was fetched: looks at the redirects that led to it.
fn observe_chain(
    moves: &mut RedirectState,
    source: &Source,
    report: &FetchReport,
    now: Timestamp,
) -> Option<RedirectChange> {
    let Some((from, to)) = permanent_target(&report.hops).filter(|(from, to)| may_adopt(source, from, to))
    else {
        moves.seen = None;
        return None;
    };
    let target = StoredUrl::new(to);
    if from.secret().scheme() == "http" && to.secret().scheme() == "https" && may_share_credentials(from, to)
    {
        moves.seen = None;
        return Some(adopt(moves, source, target, "https instead of http", now));
    }
    let seen = match moves.seen.take() {
        Some(seen) if seen.to == target => ObservedRedirect { times: seen.times.saturating_add(1), ..*seen },
        _ => ObservedRedirect { to: target, first: now, times: 1 },
    };
    if seen.times >= SEEN_TIMES && now.since(seen.first) >= SEEN_FOR {
        return Some(adopt(moves, source, seen.to, "the same target for 7 days", now));
    }
    moves.seen = Some(Box::new(seen));
    None
}

fn adopt(
    moves: &mut RedirectState,
    source: &Source,
    to: StoredUrl,
    why: &'static str,
    since: Timestamp,
) -> RedirectChange {
    let is_configured = to.get().is_some_and(|to| to == source.url);
    match moves.adopted.take() {
        // The feed has moved back.
        Some(adopted) if is_configured => RedirectChange::Dropped { adopted: adopted.to, why },
        _ => {
            moves.adopted = Some(Box::new(AdoptedRedirect { to: to.clone(), since, failures: 0 }));
            RedirectChange::Adopted { to, why }
        }
    }
}

/// The first URL of a chain and its target, if every redirect in it is permanent. A chain that sets cookies can end where it
/// began, which is no move.
fn permanent_target(hops: &[RedirectHop]) -> Option<(&FeedUrl, &FeedUrl)> {
    let (from, to) = (&hops.first()?.from, &hops.last()?.to);
    let is_move = validator_key(from) != validator_key(to);
    (is_move && hops.iter().all(RedirectHop::is_permanent)).then_some((from, to))
}

fn may_adopt(source: &Source, from: &FeedUrl, to: &FeedUrl) -> bool {
    let downgrades = from.secret().scheme() == "https" && to.secret().scheme() == "http";
    let access = &source.access;
    let has_secrets = has_url_credentials(&source.url)
        || !access.headers.is_empty()
        || access.credential.is_some()
        || access.cookie_file.is_some();
    !downgrades && (!has_secrets || may_share_credentials(&source.url, to))
}

fn has_url_credentials(url: &FeedUrl) -> bool {
    !url.secret().username().is_empty() || url.secret().password().is_some()
}

/// The requested URL itself answers that the feed is gone.
fn is_gone(report: &FetchReport) -> bool {
    report.hops.is_empty() && matches!(report.code, Some(404 | 410))
}

#[cfg(test)]
mod tests {
    use fetch::{Failure, FailureClass};
    use news::{CredentialFile, SourceId};

    use super::*;

    const OLD: &str = "https://old.example/feed?token=TOPSECRET";
    const NEW: &str = "https://new.example/feed";
    const DAY: i64 = 24 * 3600 * 1000;

    fn url(text: &str) -> FeedUrl {
        FeedUrl::try_new(text).unwrap()
    }

    fn source_at(address: &str) -> Source {
        Source::new(SourceId::try_new("a").unwrap(), url(address))
    }

    /// A source, what is remembered of it, and a clock.
    struct World {
        source: Source,
        moves: RedirectState,
        now_ms: i64,
    }

    impl World {
        fn at(address: &str) -> Self {
            Self { source: source_at(address), moves: RedirectState::default(), now_ms: 1_800_000_000_000 }
        }

        fn effective_url(&self) -> String {
            effective_url(&self.source, &self.moves).secret().to_string()
        }

        fn visit(&mut self, code: u16, hops: &[(u16, &str)], status: VisitStatus) -> Option<RedirectChange> {
            let mut from = effective_url(&self.source, &self.moves);
            let mut visit = FetchReport::not_attempted(Failure::new(FailureClass::HttpStatus, ""));
            visit.code = Some(code);
            for (code, to) in hops {
                let hop = RedirectHop { code: *code, from, to: url(to) };
                from = hop.to.clone();
                visit.hops.push(hop);
            }
            observe(&mut self.moves, &self.source, &visit, status, Timestamp::from_millis(self.now_ms))
        }

        /// A feed at the end of these redirects, `days` after the last one.
        fn feed(&mut self, days: i64, hops: &[(u16, &str)]) -> Option<RedirectChange> {
            self.now_ms += days * DAY;
            self.visit(200, hops, VisitStatus::Unchanged)
        }

        fn failure(&mut self, code: u16) -> Option<RedirectChange> {
            self.visit(code, &[], if code == 410 { VisitStatus::Gone } else { VisitStatus::Error })
        }
    }

    fn adopted() -> World {
        let mut world = World::at(OLD);
        for day in [0, 3] {
            assert_eq!(world.feed(day, &[(301, NEW)]), None);
            assert_eq!(world.effective_url(), OLD);
        }
        let change = world.feed(4, &[(308, NEW)]);
        assert!(matches!(change, Some(RedirectChange::Adopted { .. })), "{change:?}");
        world
    }

    #[test]
    fn a08_a_permanent_redirect_is_adopted_after_the_same_target_for_seven_days() {
        let world = adopted();
        assert_eq!(world.effective_url(), NEW);
        let mut hasty = World::at(OLD);
        for _ in 0..100 {
            assert_eq!(hasty.feed(0, &[(301, NEW)]), None, "however often it is seen in six days");
        }
        assert_eq!(hasty.feed(6, &[(301, NEW)]), None);
        let mut rare = World::at(OLD);
        rare.feed(0, &[(301, NEW)]);
        assert_eq!(rare.feed(30, &[(301, NEW)]), None, "two answers are too few, however far apart");
    }

    #[test]
    fn a_permanent_redirect_back_to_where_it_began_is_no_move() {
        let mut world = World::at(OLD);
        for day in 0..20 {
            assert_eq!(world.feed(day, &[(301, "https://elsewhere.example/cookie"), (301, OLD)]), None);
            assert_eq!(world.feed(day, &[(301, OLD)]), None);
            assert_eq!((world.effective_url().as_str(), world.moves.seen.as_ref()), (OLD, None));
        }
    }

    #[test]
    fn another_answer_in_between_begins_the_seven_days_anew() {
        let other = "https://other.example/";
        for between in [&[][..], &[(301, other)], &[(302, NEW)], &[(301, "https://x.example/"), (307, NEW)]] {
            let mut world = World::at(OLD);
            world.feed(0, &[(301, NEW)]);
            world.feed(3, &[(301, NEW)]);
            assert_eq!(world.feed(3, between), None);
            assert_eq!(world.feed(3, &[(301, NEW)]), None, "{between:?}");
        }
    }

    #[test]
    fn a_temporary_redirect_is_never_adopted() {
        for code in [302, 303, 307] {
            let mut world = World::at(OLD);
            for _ in 0..30 {
                assert_eq!(world.feed(1, &[(code, NEW)]), None);
                assert_eq!(world.feed(1, &[(301, "https://x.example/"), (code, NEW)]), None);
            }
        }
    }

    #[test]
    fn only_a_target_that_gave_a_feed_counts() {
        let mut world = World::at(OLD);
        for _ in 0..30 {
            world.now_ms += DAY;
            assert_eq!(world.visit(200, &[(301, NEW)], VisitStatus::Error), None);
        }
        assert_eq!((world.effective_url(), &world.moves.seen), (OLD.to_owned(), &None));
    }

    #[test]
    fn https_of_the_same_host_is_adopted_at_once_and_http_never() {
        let mut world = World::at("http://old.example/feed");
        let change = world.feed(0, &[(301, "https://old.example/rss")]);
        assert!(matches!(change, Some(RedirectChange::Adopted { .. })));
        assert_eq!(world.effective_url(), "https://old.example/rss");
        let mut elsewhere = World::at("http://old.example/feed");
        assert_eq!(elsewhere.feed(0, &[(301, "https://new.example/feed")]), None);
        let mut back = World::at(OLD);
        for _ in 0..30 {
            assert_eq!(back.feed(1, &[(301, "http://old.example/feed")]), None);
        }
    }

    #[test]
    fn a_move_that_was_seen_is_adopted_when_the_old_address_is_gone() {
        for code in [404, 410] {
            let mut world = World::at(OLD);
            assert_eq!(world.failure(code), None, "nothing was seen");
            world.feed(0, &[(301, NEW)]);
            assert_eq!(world.failure(500), None, "in trouble is not gone");
            assert!(matches!(world.failure(code), Some(RedirectChange::Adopted { .. })), "{code}");
            assert_eq!(world.effective_url(), NEW);
        }
    }

    #[test]
    fn an_adopted_address_that_fails_five_times_in_a_row_is_forgotten() {
        let mut world = adopted();
        for _ in 0..4 {
            assert_eq!(world.failure(500), None);
        }
        world.feed(0, &[]);
        for _ in 0..4 {
            assert_eq!(world.failure(500), None, "a success in between counts");
        }
        assert_eq!(world.visit(429, &[], VisitStatus::Throttled), None, "busy is not a failure");
        let change = world.failure(500);
        assert!(matches!(change, Some(RedirectChange::Dropped { .. })), "{change:?}");
        assert_eq!(world.effective_url(), OLD);
        let mut world = adopted();
        assert!(matches!(world.failure(410), Some(RedirectChange::Dropped { .. })), "gone is gone");
    }

    #[test]
    fn a_feed_that_moves_on_is_followed_and_one_that_moves_back_is_recognised() {
        let third = "https://third.example/";
        let mut world = adopted();
        for day in [0, 4, 4] {
            world.feed(day, &[(301, third)]);
        }
        assert_eq!(world.effective_url(), third);
        for day in [0, 4] {
            world.feed(day, &[(301, OLD)]);
        }
        assert!(matches!(world.feed(4, &[(301, OLD)]), Some(RedirectChange::Dropped { .. })));
        assert_eq!((world.effective_url(), &world.moves.adopted), (OLD.to_owned(), &None));
    }

    #[test]
    fn another_address_in_the_catalogue_ends_everything_that_was_learned() {
        let mut world = adopted();
        world.source = source_at("https://chosen.example/");
        assert_eq!(world.effective_url(), "https://chosen.example/");
        world.feed(0, &[]);
        assert_eq!(world.moves.adopted, None);
    }

    #[test]
    fn a_source_with_secrets_moves_within_its_host_only_and_keeps_its_password() {
        let own = "https://user:pass@old.example/feed";
        let mut world = World::at(own);
        for _ in 0..10 {
            assert_eq!(world.feed(1, &[(301, NEW)]), None);
        }
        for _ in 0..10 {
            world.feed(1, &[(301, "https://old.example/new")]);
        }
        assert_eq!(world.effective_url(), "https://user:pass@old.example/new");
        let mut world = World::at(OLD);
        world.source.access.credential = Some(CredentialFile::Bearer("token".into()));
        for _ in 0..10 {
            assert_eq!(world.feed(1, &[(301, NEW)]), None);
        }
    }

    #[test]
    fn what_is_remembered_of_a_move_shows_no_secret_and_survives_a_restart() {
        let mut world = World::at(NEW);
        for _ in 0..10 {
            world.feed(1, &[(301, OLD)]);
        }
        assert_eq!(world.effective_url(), OLD);
        assert!(!format!("{:?}", world.moves).contains("TOPSECRET"), "{:?}", world.moves);
        let json = serde_json::to_string(&world.moves).unwrap();
        assert_eq!(serde_json::from_str::<RedirectState>(&json).unwrap(), world.moves);
    }
}
