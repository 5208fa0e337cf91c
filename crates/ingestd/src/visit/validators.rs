//! Which validators a visit sends (RFC 9110, section 13): those of the last response to the same request, and none once a day.

use std::time::Duration;

use news::{FloodingState, Source, SourceState, Timestamp};

use super::redirects::url_hash;

/// Once in this time a source is requested without validators: there are servers that answer 304 for ever.
pub(super) const UNCONDITIONAL_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Identifies a request for the purpose of validators: the configured URL and what is sent with it, secrets included.
/// `fingerprint` is that of the source's [`fetch::RequestOptions`]. An adopted redirect does not change the hash.
pub(crate) fn request_hash(source: &Source, fingerprint: u64) -> u64 {
    url_hash(&source.url) ^ fingerprint
}

/// A visit that begins so much before its date still counts as the planned one: timers and clocks are not exact.
const EARLY: Duration = Duration::from_secs(1);

/// The `ETag` and the `Last-Modified` to send: none if the URL or the credentials changed, none once a day, and none while
/// items wait that the source may not record yet. A server that had no document for us then (throttled, cut off) is sent
/// validators again at the next visit.
pub(super) fn validators(
    request_hash: u64,
    state: &SourceState,
    now: Timestamp,
) -> (Option<&str>, Option<&str>) {
    let lately = |at: Option<Timestamp>| at.is_some_and(|at| now.since(at) < UNCONDITIONAL_EVERY);
    let fresh = lately(state.last_full) || lately(state.asked_in_full);
    if state.url_hash != request_hash || !fresh || reads_what_waits(state, now) {
        return (None, None);
    }
    (state.etag.as_deref(), state.last_modified.as_deref())
}

/// For a visit that an operator ordered in full: as if no document was ever received. If it fails, the next one is
/// conditional again, because the state that it began with stays.
pub(super) fn forget_document(state: &mut SourceState) {
    (state.etag, state.last_modified, state.validator_key, state.body_hash) = (None, None, None, None);
}

/// Whether the same document is asked for once more, because it has items that wait. Only when a visit is due anyway, not at a
/// push or an order, and only so many times: a document that is larger than what so many visits record must not make its
/// server send it for ever.
fn reads_what_waits(state: &SourceState, now: Timestamp) -> bool {
    let is_due = state.next_visit.is_none_or(|next| next <= now.plus(EARLY));
    state.flooding.as_ref().is_some_and(|flooding| {
        is_due && state.failures == 0 && flooding.full_visits < FloodingState::FULL_VISITS_MAX
    })
}

/// Binds a state to a request. What another request was answered with is removed, even if the first visit here fails.
pub(super) fn bind_to(state: &mut SourceState, request_hash: u64) {
    if state.url_hash != request_hash {
        (state.url_hash, state.etag, state.last_modified, state.validator_key) =
            (request_hash, None, None, None);
        (state.body_hash, state.last_full, state.asked_in_full) = (None, None, None);
        state.flooding = None;
    }
}

#[cfg(test)]
mod tests {
    use news::{Flooding, FloodingBound, FloodingState};

    use super::*;

    #[test]
    fn what_waits_is_fetched_eight_times_at_most_then_at_a_change_and_once_a_day() {
        let minutes = |n: u64| Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(60 * n));
        let flooding = Flooding {
            since: minutes(0),
            waiting_items: 3,
            waiting_bytes: 300,
            bound: FloodingBound::Visit,
            lost_items: 0,
        };
        let mut state = SourceState {
            etag: Some("\"1\"".to_owned()),
            asked_in_full: Some(minutes(0)),
            next_visit: Some(minutes(10)),
            ..SourceState::default()
        };
        let is_full = |state: &SourceState, n| validators(0, state, minutes(n)) == (None, None);
        assert!(!is_full(&state, 10), "control: nothing waits");
        for full_visits in 0..20 {
            state.flooding = Some(Box::new(FloodingState { flooding, full_visits }));
            assert_eq!(is_full(&state, 10), full_visits < 8, "{full_visits}");
            assert!(!is_full(&state, 9), "a push or an order before its date costs no document");
            assert!(is_full(&state, 24 * 60), "once a day");
        }
        state.flooding = Some(Box::new(FloodingState { flooding, full_visits: 0 }));
        state.failures = 1;
        assert!(!is_full(&state, 10), "not while it fails");
    }
}
