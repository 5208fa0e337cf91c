//! What a visit writes to the log: changes of state as warnings or information, repetitions at debug level.

use news::{Epoch, Source, SourceId, SourceState, VisitReport};
use store::AppendedVisit;

use super::redirects::RedirectChange;

pub(super) fn log_quarantine(source: &SourceId, before: &SourceState, after: &SourceState) {
    match (&before.quarantine, &after.quarantine) {
        (None, Some(reason)) => tracing::warn!(%source, reason, "source quarantined"),
        (Some(_), None) => tracing::info!(%source, "source released from quarantine"),
        _ => {}
    }
}

/// `lost` items waited and have left the feed.
pub(super) fn log_flooding(source: &SourceId, before: &SourceState, after: &SourceState, lost: u32) {
    match (&before.flooding, &after.flooding) {
        (None, Some(state)) => {
            let (items, bytes) = (state.flooding.waiting_items, state.flooding.waiting_bytes);
            let bound = state.flooding.bound.as_str();
            tracing::warn!(%source, items, bytes, bound, "flooding; more is new than the source may record, and the rest waits");
        }
        (Some(_), None) => tracing::info!(%source, "flooding ended; nothing waits any more"),
        _ => {}
    }
    if lost > 0 {
        tracing::warn!(%source, items = lost, "flooding; items that waited have left the feed and are lost");
    }
}

pub(super) fn log_quiet(source: &SourceId, before: &SourceState, after: &SourceState) {
    match (before.quiet(), after.quiet()) {
        (None, Some(quiet)) => {
            let (since, usually_every_s) = (quiet.since, quiet.usually_every_s);
            tracing::info!(%source, %since, usually_every_s, "source went quiet; it answers, and has had nothing new for much longer than usual");
        }
        (Some(_), None) => tracing::info!(%source, "source has news again"),
        _ => {}
    }
}

pub(super) fn log_certificate(source: &SourceId, before: &SourceState, after: &SourceState) {
    match &after.certificate_expired {
        Some(expired) if before.certificate_expired.is_none() => {
            tracing::warn!(%source, %expired, "certificate of the server has expired; it is trusted because it is in tls_ca_file");
        }
        _ => {}
    }
}

/// A failure or a recovery, and what was recorded.
pub(super) fn log_result(
    report: &VisitReport,
    failures_before: u32,
    appended: &AppendedVisit,
    epoch: &Epoch,
) {
    let (source, status) = (&report.source, report.status.as_str());
    match &report.error {
        Some(error) if failures_before == 0 => {
            tracing::warn!(%source, status, error, why = report.why, "visit failed");
        }
        Some(error) => tracing::debug!(%source, status, error, why = report.why, "visit failed again"),
        None if failures_before > 0 => {
            tracing::info!(%source, status, failures = failures_before, items = report.new, "source recovered");
        }
        None => {}
    }
    if let (Some(first), Some(last)) = (appended.first, appended.last) {
        let (items, updates, took_ms) = (report.new, report.updated, report.took_ms);
        let (seq_first, seq) = (first.0, last.0);
        tracing::info!(%source, %epoch, seq, seq_first, items, updates, took_ms, "recorded items");
    }
}

/// The catalogue is not changed, so this line tells its maintainer about the new URL.
pub(super) fn log_redirect(source: &Source, change: &RedirectChange) {
    let (id, url) = (&source.id, &source.url);
    match change {
        RedirectChange::Adopted { to, why } => {
            tracing::info!(source = %id, %url, moved_to = %to, why, "adopted a permanent redirect");
        }
        RedirectChange::Dropped { adopted, why } => {
            tracing::info!(source = %id, %url, moved_to = %adopted, why, "dropped an adopted redirect");
        }
    }
}
