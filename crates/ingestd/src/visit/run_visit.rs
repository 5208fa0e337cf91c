//! One visit, in order: permit, fetch, parse, outcome, record.

use std::{panic::AssertUnwindSafe, rc::Rc, sync::Arc, time::Duration};

use daemon::work;
use fetch::{AddressScope, FailureClass, FetchReport, FetchResult, HopGate, RequestOptions};
use futures_util::FutureExt as _;
use news::{FeedUrl, SourceState, Timestamp};
use store::AppendedVisit;
use tokio::time::Instant;

use super::{
    context::VisitContext,
    hops::PacedHops,
    outage::{Observation, OutageChange},
    outcome::{ParseOutcome, VisitInputs, VisitOutcome},
    parse::{FetchedBody, parse_body},
    redirects::effective_url,
    validators::{request_hash, validators},
};
use crate::{
    messages::RecordVisit,
    queue::{
        host::Host,
        limiter::{Priority, VisitPermit},
    },
    status::{activity::Activity, registry::SourceEntry},
    websub::subscription::keep_newer,
};

/// A visit whose outcome is on disk.
pub(super) struct RecordedVisit {
    pub(super) outcome: VisitOutcome,
    pub(super) appended: AppendedVisit,
    pub(super) took: Duration,
}

/// Runs a visit; `due` is when it should have started, if it was scheduled. `None` if the source was paused while the
/// visit waited, and if the log is closed because the process is about to end.
pub(super) async fn run_visit(
    ctx: Rc<VisitContext>,
    entry: Arc<SourceEntry>,
    due: Option<Timestamp>,
) -> Option<RecordedVisit> {
    let source = &entry.source;
    let before = entry.state();
    let url = effective_url(source, &before.moves);
    let host = Host::of(url.secret());
    let priority = priority(&before);
    let permit = acquire(&ctx, &entry, &host, priority).await;
    if entry.is_paused() {
        return None;
    }
    if let Some(due) = due {
        ctx.metrics.late_seconds.observe(ctx.now().since(due).as_secs_f64());
    }
    let mut started = Instant::now();
    let mut hops = PacedHops::of_visit(&ctx, &entry, priority, permit);
    let mut fetched = AssertUnwindSafe(fetch_and_parse(&ctx, &entry, &url, &hops)).catch_unwind().await;
    if let Ok(None) = fetched {
        ctx.metrics.preempted.inc();
        drop(hops);
        let permit = acquire(&ctx, &entry, &host, Priority::Probation).await;
        hops = PacedHops::of_visit(&ctx, &entry, Priority::Probation, permit);
        started = Instant::now();
        fetched = AssertUnwindSafe(fetch_and_parse(&ctx, &entry, &url, &hops)).catch_unwind().await;
    }
    let waited = hops.waited();
    drop(hops);
    let fetched = fetched.map(|fetched| fetched.expect("a visit on probation is never preempted"));
    let (interval_bounds, now, jitter) = (ctx.interval_bounds.get(), ctx.now(), fastrand::f64());
    let (request_hash, took) = (before.url_hash, started.elapsed().saturating_sub(waited));
    let inputs = VisitInputs { source, before: &before, request_hash, interval_bounds, now, took, jitter };
    let mut outcome = match fetched {
        Ok(fetched) => conclude(&ctx, host, inputs, fetched),
        Err(panic) => {
            ctx.metrics.panics.inc();
            VisitOutcome::panicked(inputs, daemon::panics::message(&*panic))
        }
    };
    entry.set_activity(Activity::Recording, now);
    let items = std::mem::take(&mut outcome.items);
    keep_newer(entry.websub(), &mut outcome.state.websub);
    let record = store::VisitRecord { source: Arc::clone(source), items, state: outcome.state.clone(), now };
    let appended = ctx.recorder.send(RecordVisit(record)).await.ok()?.ok()?;
    Some(RecordedVisit { outcome, appended, took: started.elapsed().saturating_sub(waited) })
}

async fn acquire(ctx: &VisitContext, entry: &SourceEntry, host: &Host, priority: Priority) -> VisitPermit {
    let queued = ctx.limiter.enqueue(host, priority);
    entry.set_waiting(queued.wait_status(), ctx.now());
    queued.await
}

/// A source that did not answer the last visit may hang again.
fn priority(before: &SourceState) -> Priority {
    let class = before.attempts.last().filter(|_| before.failures > 0).and_then(|last| last.class);
    match class {
        Some(FailureClass::Timeout | FailureClass::Connect | FailureClass::Dns) => Priority::Probation,
        _ => Priority::Normal,
    }
}

fn conclude(ctx: &VisitContext, host: Host, inputs: VisitInputs<'_>, fetched: FetchedVisit) -> VisitOutcome {
    let FetchedVisit { report, parsed, parse_time, request_hash } = fetched;
    ctx.metrics.body_bytes.inc_by(report.body_bytes);
    let mut outcome = VisitOutcome::conclude(VisitInputs { request_hash, ..inputs }, &report, parsed);
    if is_local_outage(ctx, host, inputs.before, &report) {
        outcome.exempt(inputs);
    }
    if parse_time.is_some_and(|took| outcome.check_parse_time(took)) {
        ctx.metrics.slow_parses.inc();
    }
    outcome.apply_quarantine(inputs);
    outcome
}

/// Feeds the outage detector; returns whether the visit failed because of an outage of our own network.
fn is_local_outage(ctx: &VisitContext, host: Host, before: &SourceState, report: &FetchReport) -> bool {
    let unreachable = match &report.answer {
        FetchResult::Failed(failure) if report.code.is_none() => {
            matches!(failure.class, FailureClass::Dns | FailureClass::Connect | FailureClass::Timeout)
        }
        _ => false,
    };
    let was_healthy = before.failures == 0 && before.last_success.is_some();
    let observation = if unreachable { Observation::Unreachable } else { Observation::Reachable };
    let mut outage = ctx.outage.borrow_mut();
    if !unreachable || was_healthy {
        match outage.observe(host, observation, Instant::now()) {
            Some(OutageChange::Began { hosts }) => {
                tracing::warn!(
                    hosts,
                    "local outage: most hosts are unreachable; not counted against the feeds"
                );
            }
            Some(OutageChange::Ended { lasted, exempted }) => {
                tracing::info!(lasted_s = lasted.as_secs(), pardoned = exempted, "local outage ended");
            }
            None => {}
        }
        ctx.metrics.outage.set(i64::from(outage.is_on()));
    }
    let is_exempt = unreachable && outage.is_on();
    if is_exempt {
        outage.count_exempt();
        ctx.metrics.exempted.inc();
    }
    is_exempt
}

/// A visit that was answered, or that failed.
struct FetchedVisit {
    report: FetchReport,
    parsed: ParseOutcome,
    /// How long the parser ran.
    parse_time: Option<Duration>,
    request_hash: u64,
}

/// `None` if the visit was preempted.
async fn fetch_and_parse(
    ctx: &VisitContext,
    entry: &SourceEntry,
    url: &FeedUrl,
    hops: &PacedHops,
) -> Option<FetchedVisit> {
    let (source, state) = (&entry.source, entry.state());
    entry.set_activity(Activity::Fetching, ctx.now());
    let options = match ctx.credentials.request_options(&source.access).await {
        Ok(options) => options,
        Err(failure) => {
            let (report, parsed) = (FetchReport::not_attempted(failure), ParseOutcome::NotParsed);
            return Some(FetchedVisit { report, parsed, parse_time: None, request_hash: state.url_hash });
        }
    };
    let request_hash = request_hash(source, options.as_ref().map_or(0, RequestOptions::fingerprint));
    let (etag, last_modified) = validators(request_hash, &state, ctx.now());
    let request = fetch::VisitRequest {
        etag,
        last_modified,
        validator_key: state.validator_key,
        timeout: source.timeout,
        timeout_first_byte: source.timeout_first_byte,
        body_bytes_max: source.body_bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
        options: options.as_ref(),
        scope: AddressScope::Configured(&source.url),
        gate: Some(hops as &dyn HopGate),
        ..fetch::VisitRequest::new(url, ctx.now())
    };
    let mut report = tokio::select! {
        biased;
        report = work::during("fetching", source.id.as_str(), ctx.visitor.visit(&request)) => report,
        () = hops.preempted() => return None,
    };
    hops.pin();
    let (parsed, parse_time) = match &mut report.answer {
        FetchResult::Full(full) if state.body_hash == Some(full.body_hash) => {
            // Free the bytes; they are not needed.
            full.body = bytes::Bytes::new();
            (ParseOutcome::SameBytes, None)
        }
        FetchResult::Full(full) => {
            entry.set_activity(Activity::Parsing, ctx.now());
            let (url, content_type) = (full.url.clone(), full.content_type.clone());
            parse_body(ctx, source, FetchedBody { bytes: std::mem::take(&mut full.body), url, content_type })
                .await
        }
        _ => (ParseOutcome::NotParsed, None),
    };
    if matches!(&parsed, ParseOutcome::Panicked(_)) {
        ctx.metrics.panics.inc();
    }
    Some(FetchedVisit { report, parsed, parse_time, request_hash })
}
