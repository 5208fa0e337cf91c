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
    if lost > 0 {
        tracing::warn!(%source, items = lost, "flooding; items that waited have left the feed and are lost");
    }
    match (&before.flooding, &after.flooding) {
        (None, Some(state)) => {
            let (items, bytes) = (state.flooding.waiting_items, state.flooding.waiting_bytes);
            let bound = state.flooding.bound.as_str();
            tracing::warn!(%source, items, bytes, bound, "flooding; more is new than the source may record, and the rest waits");
        }
        (Some(_), None) => tracing::info!(%source, "flooding ended; nothing waits any more"),
        _ => {}
    }
}

/// A feed may change its hub once a day.
pub(super) fn log_hub(source: &SourceId, before: &SourceState, after: &SourceState) {
    let waits = |state: &SourceState| state.websub.as_ref().is_some_and(|websub| websub.named.is_some());
    let changed = |state: &SourceState| state.websub.as_ref().and_then(|websub| websub.hub_changed);
    if waits(after) && !waits(before) {
        tracing::warn!(%source, "the feed names another hub again; the old one stays for the rest of the day");
    }
    if changed(after) > changed(before) {
        tracing::info!(%source, "the feed names another hub, topic, or none");
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

#[cfg(test)]
mod tests {
    use daemon::{Clock, logs};
    use news::{Flooding, FloodingBound, FloodingState, Timestamp};

    use super::*;

    #[test]
    fn a_loss_is_told_before_the_end_of_the_flooding_that_had_it() {
        let (subscriber, kept) = logs::capture("info", Clock::system()).unwrap();
        let source = SourceId::try_new("flood").unwrap();
        let flooding = Flooding {
            since: Timestamp::from_millis(0),
            waiting_items: 3,
            waiting_bytes: 300,
            bound: FloodingBound::Visit,
            lost_items: 0,
        };
        let flooding = Some(Box::new(FloodingState { flooding, full_visits: 0 }));
        let before = SourceState { flooding, ..SourceState::default() };
        tracing::subscriber::with_default(subscriber, || {
            log_flooding(&source, &before, &SourceState::default(), 3);
        });
        let text = kept.text();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains("are lost"), "{text}");
        assert!(lines[1].contains("flooding ended"), "{text}");
    }
}
