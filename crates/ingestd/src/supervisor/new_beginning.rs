//! What a source keeps when it has changed in the catalogue.
//!
//! Its state belongs to its id, its address and its request settings ([`Source::request_hash`]). What another address was
//! answered with says nothing about this one: validators, failures, 410s and the quarantine are dropped, and the source is
//! visited as a new one. Its counts, its pause, its last visits and the list of items that it has already had stay.

use fetch::schedule::{IntervalBounds, server_interval_max};
use news::{
    FeedRhythm, FormerAddress, FormerAddresses, NewsRhythm, RedirectState, Silences, Source, SourceState,
    Timestamp, VisitStatus,
};

use crate::visit::{outcome::plan_again, redirects::url_hash};

/// What of a source is new, compared with its stored state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Nothing that decides about its visits.
    Same,
    /// Its interval or its limits: the next visit was planned again.
    Planned,
    /// The same of a gone or failing source: it is looked at now, as if that was ordered, and its next visit stays.
    Look,
    /// Its address or its request settings, or it was not in the catalogue for a time: it is visited as a new source.
    New,
}

/// What the catalogue and the files of a source say about it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CatalogueFacts {
    /// The running daemon did not have this source until now.
    pub(super) is_added: bool,
    /// The hash of what is requested now, files included ([`SourceState::url_hash`]), if its request settings have files.
    pub(super) request_hash: Option<u64>,
}

/// Whether the last visit requested something else than `request_hash`, contents of files included.
pub(super) fn has_new_request(state: &SourceState, request_hash: u64) -> bool {
    state.last_visit.is_some() && state.url_hash != request_hash
}

/// Adapts a stored state to the source as it is in the catalogue now.
pub(super) fn adapt(
    state: &mut SourceState,
    source: &Source,
    CatalogueFacts { is_added, request_hash }: CatalogueFacts,
    bounds: IntervalBounds,
    now: Timestamp,
) -> Beginning {
    let (address, plan) = (source.request_hash(), source.plan_hash());
    let (address_before, plan_before) = (state.address, state.plan);
    (state.address, state.plan) = (address, plan);
    let is_added = std::mem::take(&mut state.removed) || is_added;
    let has_same_url = state.moves.home == url_hash(&source.url);
    let is_same = match address_before {
        // A store of an older version, which knows the URL only.
        0 => has_same_url || state.moves.home == 0,
        before => before == address,
    };
    let asked_until = asked_until(state, bounds, now);
    let has_new_files = request_hash.is_some_and(|hash| has_new_request(state, hash));
    if !is_same || has_new_files {
        begin_at_new_address(state, address_before, has_same_url, asked_until, now);
        return Beginning::New;
    }
    if is_added && state.last_visit.is_some() && asked_until.is_none() {
        forget_failures(state);
        "added again".clone_into(&mut state.why);
        return Beginning::New;
    }
    let has_plan = state.next_visit.is_some() && (plan_before == 0 || plan_before == plan);
    if has_plan || state.last_visit.is_none() {
        return Beginning::Same;
    }
    let Some(next) = plan_again(source, state, bounds, now, fastrand::f64()) else { return Beginning::Look };
    (state.next_visit, state.why) = (next.at, next.why);
    Beginning::Planned
}

/// Until when the server has asked for a pause, by Retry-After or by throttling; `None` if that is over.
fn asked_until(state: &SourceState, bounds: IntervalBounds, now: Timestamp) -> Option<Timestamp> {
    // Longer than the schedule ever waits means that the clock was wrong.
    let latest = now.plus(server_interval_max(bounds) * 2);
    let throttled = state.next_visit.filter(|_| state.last_status == Some(VisitStatus::Throttled));
    throttled.max(state.host_asked_until).filter(|until| now < *until && *until <= latest)
}

fn begin_at_new_address(
    state: &mut SourceState,
    before: u64,
    has_same_url: bool,
    asked_until: Option<Timestamp>,
    now: Timestamp,
) {
    let failures = state.failures;
    let mut former = state.former.take().map_or_else(FormerAddresses::default, |former| *former);
    former.forget_over(now);
    // A pause is not over because an address came back for a moment and was not visited.
    let comes_back = former.get(state.address).filter(|_| before != state.address).cloned();
    if let Some(not_before) = asked_until.filter(|_| before != 0) {
        former.add(FormerAddress { address: before, not_before, failures });
    }
    state.former = former.boxed();
    forget_failures(state);
    (state.validator_key, state.etag, state.last_modified, state.body_hash) = (None, None, None, None);
    (state.last_full, state.asked_in_full, state.fresh_s, state.fresh_until) = (None, None, None, None);
    state.warnings.clear();
    (state.flooding, state.certificate_expired) = (None, None);
    state.moves = RedirectState::default();
    let has_visits = state.counts.visits > 0;
    let why = match (has_visits, has_same_url) {
        (false, _) => "",
        (true, true) => "its request settings have changed",
        (true, false) => "its address has changed",
    };
    why.clone_into(&mut state.why);
    if !has_same_url {
        state.rhythm = FeedRhythm::default();
        (state.last_news, state.last_success) = (None, None);
        (state.news, state.silences) = (NewsRhythm::default(), Silences::default());
        if let Some(websub) = &mut state.websub {
            // What the other feed named does not make this one wait, and is not its topic. Its subscription ends.
            (websub.hub, websub.topic) = (None, None);
            (websub.hub_changed, websub.named) = (None, None);
        }
    }
    if let Some(former) = comes_back {
        (state.failures, state.next_visit) = (former.failures, Some(former.not_before));
        "the server asked for a pause before the address was changed".clone_into(&mut state.why);
    }
}

/// What the last visits were answered with, except validators, is of no importance any more.
fn forget_failures(state: &mut SourceState) {
    (state.failures, state.gone_in_a_row) = (0, 0);
    (state.quarantine, state.last_error) = (None, None);
    (state.host_asked_until, state.host_asked) = (None, None);
    (state.last_visit, state.last_status, state.last_code, state.next_visit) = (None, None, None, None);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use news::{FeedUrl, SourceId};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    fn ago(time: Duration) -> Timestamp {
        Timestamp::from_millis(now().millis() - i64::try_from(time.as_millis()).unwrap())
    }

    fn source(url: &str) -> Source {
        Source::new(SourceId::try_new("a").unwrap(), FeedUrl::try_new(url).unwrap())
    }

    fn adapted(state: &mut SourceState, source: &Source) -> Beginning {
        adapt(state, source, CatalogueFacts::default(), IntervalBounds::default(), now())
    }

    /// The state of a source that was visited a minute ago for the `visits`-th time.
    fn visited(source: &Source, status: VisitStatus) -> SourceState {
        let mut state = SourceState {
            address: source.request_hash(),
            plan: source.plan_hash(),
            etag: Some("\"v\"".to_owned()),
            last_visit: Some(ago(DAY / 1440)),
            last_status: Some(status),
            next_visit: Some(now().plus(DAY)),
            why: "planned".to_owned(),
            quarantine: Some("slow".to_owned()),
            ..SourceState::default()
        };
        state.counts.visits = 9;
        state.moves.home = url_hash(&source.url);
        if !status.is_healthy() {
            (state.failures, state.last_error) = (3, Some("x".to_owned()));
        }
        state
    }

    #[test]
    fn a_new_address_or_new_access_begins_anew_and_what_is_no_request_does_not() {
        let old = source("https://example.org/old");
        let mut with_header = old.clone();
        with_header.access.headers = vec![("x-key".to_owned(), "1".to_owned())];
        for changed in [source("https://example.org/new"), with_header] {
            let mut state = visited(&old, VisitStatus::Gone);
            state.gone_in_a_row = 3;
            state.paused = Some(news::Pause { since: now(), until: None, reason: None });
            assert_eq!(adapted(&mut state, &changed), Beginning::New);
            assert_eq!((state.failures, state.gone_in_a_row), (0, 0));
            assert_eq!((state.etag.as_deref(), state.quarantine.as_deref()), (None, None));
            assert_eq!((state.last_visit, state.next_visit, state.last_status), (None, None, None));
            assert!(state.counts.visits == 9 && state.paused.is_some() && state.why.ends_with("changed"));
            let again = state.clone();
            assert_eq!((adapted(&mut state, &changed), &state), (Beginning::Same, &again));
        }
        let mut renamed = old.clone();
        renamed.name = "Another name".to_owned();
        let mut state = visited(&old, VisitStatus::Gone);
        let before = state.clone();
        assert_eq!((adapted(&mut state, &renamed), state), (Beginning::Same, before));
    }

    #[test]
    fn a_new_address_has_no_known_rhythm_and_new_access_keeps_it() {
        let old = source("https://example.org/old");
        let mut with_agent = old.clone();
        with_agent.access.user_agent = Some("x/1".to_owned());
        let mut before = visited(&old, VisitStatus::Unchanged);
        (before.last_news, before.certificate_expired) = (Some(ago(DAY)), Some(Box::new(ago(DAY))));
        before.silences.note(ago(DAY * 2), ago(DAY));
        let mut state = before.clone();
        assert_eq!(adapted(&mut state, &with_agent), Beginning::New);
        assert_eq!((state.silences, state.last_news), (before.silences, before.last_news));
        assert_eq!(state.certificate_expired, None, "the next visit says so again");
        let mut state = before.clone();
        assert_eq!(adapted(&mut state, &source("https://example.org/new")), Beginning::New);
        assert_eq!((state.silences, state.last_news), (Silences::default(), None));
    }

    #[test]
    fn an_address_that_comes_back_still_waits_for_its_retry_after() {
        let (first, second) = (source("https://example.org/1"), source("https://example.org/2"));
        let mut state = visited(&first, VisitStatus::Throttled);
        assert_eq!(adapted(&mut state, &second), Beginning::New);
        assert_eq!((state.failures, state.next_visit), (0, None));
        assert_eq!(adapted(&mut state, &first), Beginning::New);
        assert_eq!((state.failures, state.next_visit), (3, Some(now().plus(DAY))));
        let mut state = visited(&first, VisitStatus::Error);
        adapted(&mut state, &second);
        adapted(&mut state, &first);
        assert_eq!((state.failures, state.next_visit), (0, None), "nothing was asked for");
    }

    #[test]
    fn a_pause_stays_with_its_address_however_often_that_is_changed_without_a_visit() {
        let of = |n: usize| source(&format!("https://example.org/{n}"));
        for round in [&[1, 0, 1, 0, 1, 0][..], &[1, 2, 0, 1, 2, 0, 2, 1, 0], &[1, 2, 3, 4, 5, 0]] {
            for code in [429, 503] {
                let mut state = visited(&of(0), VisitStatus::Throttled);
                state.last_code = Some(code);
                for n in round {
                    assert_eq!(adapted(&mut state, &of(*n)), Beginning::New);
                    let (failures, next) = if *n == 0 { (3, Some(now().plus(DAY))) } else { (0, None) };
                    assert_eq!((state.failures, state.next_visit), (failures, next), "{round:?} {n}");
                    let stored = serde_json::to_string(&state).unwrap();
                    state = serde_json::from_str(&stored).unwrap();
                }
            }
        }
    }

    #[test]
    fn each_of_several_addresses_has_its_own_pause_and_the_latest_four_are_kept() {
        let of = |n: u32| source(&format!("https://example.org/{n}"));
        let mut state = SourceState::default();
        for n in 1..=6 {
            adapted(&mut state, &of(n));
            let next_visit = Some(now().plus(DAY / 8 * n));
            state =
                SourceState { next_visit, former: state.former, ..visited(&of(n), VisitStatus::Throttled) };
        }
        adapted(&mut state, &of(7));
        for (n, hours) in [(6, 18), (3, 9), (5, 15), (4, 12)] {
            adapted(&mut state, &of(n));
            assert_eq!(state.next_visit, Some(now().plus(DAY / 24 * hours)), "{n}");
        }
        adapted(&mut state, &of(1));
        assert_eq!(state.next_visit, None);
        let later = now().plus(DAY / 2);
        adapt(&mut state, &of(4), CatalogueFacts::default(), IntervalBounds::default(), later);
        assert_eq!(state.next_visit, None, "it is over");
    }

    #[test]
    fn a_store_of_an_older_version_has_one_former_address() {
        let first = source("https://example.org/1");
        let one = serde_json::json!({
            "former": { "address": first.request_hash(), "not_before": now().plus(DAY), "failures": 3 }
        });
        let mut state: SourceState = serde_json::from_value(one).unwrap();
        state.address = source("https://example.org/2").request_hash();
        adapted(&mut state, &first);
        assert_eq!((state.failures, state.next_visit), (3, Some(now().plus(DAY))));
    }

    #[test]
    fn a_new_interval_or_ignored_freshness_holds_at_once_but_never_against_retry_after() {
        let old = source("https://example.org/feed");
        let mut quick = old.clone();
        quick.every = Some(Duration::from_secs(600));
        let mut state = visited(&old, VisitStatus::Unchanged);
        state.quarantine = None;
        assert_eq!(adapted(&mut state, &quick), Beginning::Planned);
        assert_eq!(state.why, "every 10m, as configured");
        assert!(state.next_visit.is_some_and(|next| now() < next && next.since(now()) < DAY / 144));
        assert_eq!(state.etag.as_deref(), Some("\"v\""), "the address is the same");
        let mut fresh = SourceState { fresh_s: Some(7200), ..visited(&old, VisitStatus::Unchanged) };
        fresh.quarantine = None;
        let mut slow = old.clone();
        slow.timeout = Some(Duration::from_secs(7));
        let mut hinted = fresh.clone();
        adapted(&mut hinted, &slow);
        assert!(hinted.next_visit >= Some(ago(DAY / 1440).plus(DAY / 12)), "{}", hinted.why);
        let mut ignoring = old.clone();
        ignoring.ignores_freshness = true;
        for (source, latest) in [(&quick, DAY / 144), (&ignoring, DAY / 20)] {
            let mut state = fresh.clone();
            assert_eq!(adapted(&mut state, source), Beginning::Planned);
            assert!(state.next_visit.is_some_and(|next| next < now().plus(latest)), "{}", state.why);
        }
        let mut failing = visited(&old, VisitStatus::Error);
        failing.quarantine = None;
        assert_eq!(adapted(&mut failing, &quick), Beginning::Look);
        assert_eq!((failing.next_visit, failing.failures), (Some(now().plus(DAY)), 3));
        failing = SourceState { plan: 1, next_visit: None, ..failing };
        assert_eq!((adapted(&mut failing, &quick), failing.next_visit), (Beginning::Planned, Some(now())));
        let mut throttled = visited(&old, VisitStatus::Throttled);
        adapted(&mut throttled, &quick);
        assert_eq!(throttled.next_visit, Some(now().plus(DAY)));
    }

    #[test]
    fn a_source_that_is_added_again_is_a_new_one_unless_its_server_asked_for_a_pause() {
        let source = source("https://example.org/feed");
        let facts = CatalogueFacts { is_added: true, request_hash: None };
        let added = |state: &mut SourceState| adapt(state, &source, facts, IntervalBounds::default(), now());
        let mut gone = visited(&source, VisitStatus::Gone);
        assert_eq!(added(&mut gone), Beginning::New);
        assert_eq!((gone.next_visit, gone.failures, gone.why.as_str()), (None, 0, "added again"));
        let mut throttled = visited(&source, VisitStatus::Throttled);
        assert_eq!(added(&mut throttled), Beginning::Same);
        assert_eq!((throttled.next_visit, throttled.failures), (Some(now().plus(DAY)), 3));
        assert_eq!(added(&mut SourceState::default()), Beginning::Same, "it was never here");
        let mut removed = SourceState { removed: true, ..visited(&source, VisitStatus::Gone) };
        assert_eq!(adapted(&mut removed, &source), Beginning::New, "and added while the daemon did not run");
        assert!(!removed.removed);
    }

    #[test]
    fn after_an_upgrade_the_visits_are_the_planned_ones_and_no_gone_source_is_dead() {
        let same = source("https://example.org/feed");
        let mut state = SourceState { address: 0, plan: 0, ..visited(&same, VisitStatus::Unchanged) };
        assert_eq!(adapted(&mut state, &same), Beginning::Same);
        assert_eq!((state.next_visit, state.why.as_str()), (Some(now().plus(DAY)), "planned"));
        assert!(state.etag.is_some() && state.address == same.request_hash());
        let mut moved = SourceState { address: 0, plan: 0, ..visited(&same, VisitStatus::Unchanged) };
        assert_eq!(adapted(&mut moved, &source("https://example.org/other")), Beginning::New);
        let mut gone = SourceState {
            address: 0,
            plan: 0,
            gone_in_a_row: 3,
            next_visit: None,
            quarantine: None,
            ..visited(&same, VisitStatus::Gone)
        };
        assert_eq!(adapted(&mut gone, &same), Beginning::Planned);
        assert!(gone.next_visit > Some(now().plus(DAY * 6)), "{}", gone.why);
    }
}
