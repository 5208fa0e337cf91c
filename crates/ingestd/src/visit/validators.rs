//! Which validators a visit sends (RFC 9110, section 13): those of the last response to the same request, and none once a day.

use std::time::Duration;

use news::{Source, SourceState, Timestamp};

use super::redirects::url_hash;

/// Once in this time a source is requested without validators: there are servers that answer 304 for ever.
pub(super) const UNCONDITIONAL_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Identifies a request for the purpose of validators: the configured URL and what is sent with it, secrets included.
/// `fingerprint` is that of the source's [`fetch::RequestOptions`]. An adopted redirect does not change the hash.
pub(crate) fn request_hash(source: &Source, fingerprint: u64) -> u64 {
    url_hash(&source.url) ^ fingerprint
}

/// The `ETag` and the `Last-Modified` to send: none if the URL or the credentials changed, and none once a day. A
/// server that had no document for us then (throttled, cut off) is sent validators again at the next visit.
pub(super) fn validators(
    request_hash: u64,
    state: &SourceState,
    now: Timestamp,
) -> (Option<&str>, Option<&str>) {
    let lately = |at: Option<Timestamp>| at.is_some_and(|at| now.since(at) < UNCONDITIONAL_EVERY);
    let fresh = lately(state.last_full) || lately(state.asked_in_full);
    if state.url_hash != request_hash || !fresh {
        return (None, None);
    }
    (state.etag.as_deref(), state.last_modified.as_deref())
}

/// For a visit that an operator ordered in full: as if no document was ever received. If it fails, the next one is
/// conditional again, because the state that it began with stays.
pub(super) fn forget_document(state: &mut SourceState) {
    (state.etag, state.last_modified, state.validator_key, state.body_hash) = (None, None, None, None);
}

/// Binds a state to a request. What another request was answered with is removed, even if the first visit here fails.
pub(super) fn bind_to(state: &mut SourceState, request_hash: u64) {
    if state.url_hash != request_hash {
        (state.url_hash, state.etag, state.last_modified, state.validator_key) =
            (request_hash, None, None, None);
        (state.body_hash, state.last_full, state.asked_in_full) = (None, None, None);
    }
}
