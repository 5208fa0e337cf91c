//! One visit, in order: permit, fetch, parse, outcome, record.

use std::{panic::AssertUnwindSafe, rc::Rc, sync::Arc, time::Duration};

use control::black_box::BlackBoxEvent;
use daemon::{black_box, work};
use fetch::{AddressScope, Failure, FailureClass, FetchReport, FetchResult, HopGate, RequestOptions};
use futures_util::FutureExt as _;
use news::{FeedUrl, Source, SourceState, Timestamp};
use store::AppendedVisit;
use tokio::time::Instant;

use super::{
    context::VisitContext,
    hops::PacedHops,
    lost_time::is_starved,
    memory::VisitMemory,
    outage::{Observation, OutageChange},
    outcome::{Exemption, ParseOutcome, VisitInputs, VisitOutcome},
    parse::{FetchedBody, parse_body},
    redirects::effective_url,
    validators::{forget_document, request_hash, validators},
};
use crate::{
    documents::FetchedDocument,
    messages::RecordVisit,
    queue::{
        host::Host,
        limiter::{Priority, VisitPermit},
        memory::{MemoryPart, MemoryShare},
    },
    status::{activity::Activity, registry::SourceEntry},
    websub::subscription::keep_newer,
};

/// How long the files with the credentials of a source may take to be read. Then the visit is postponed.
const FILES_TIMEOUT: Duration = Duration::from_secs(10);

/// Items in memory at the same time while they are written: as parsed, and as JSON.
const ITEM_COPIES: usize = 2;

/// A visit whose outcome is on disk.
pub(super) struct RecordedVisit {
    pub(super) outcome: VisitOutcome,
    pub(super) appended: AppendedVisit,
    /// When its first request was sent.
    pub(super) started: Timestamp,
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
    let mut started = Moment::now(&ctx);
    let mut share = permit.memory();
    let mut hops = PacedHops::of_visit(&ctx, &entry, priority, permit);
    let mut fetched =
        AssertUnwindSafe(fetch_and_parse(&ctx, &entry, &url, &hops, share)).catch_unwind().await;
    if let Ok(None) = fetched {
        ctx.metrics.preempted.inc();
        drop(hops);
        let permit = acquire(&ctx, &entry, &host, Priority::Probation).await;
        share = permit.memory();
        hops = PacedHops::of_visit(&ctx, &entry, Priority::Probation, permit);
        started = Moment::now(&ctx);
        fetched = AssertUnwindSafe(fetch_and_parse(&ctx, &entry, &url, &hops, share)).catch_unwind().await;
    }
    let waited = hops.waited();
    drop(hops);
    let fetched = fetched.map(|fetched| fetched.expect("a visit on probation is never preempted"));
    let times = VisitTimes { due, started, waited };
    record(&ctx, &entry, &before, host, times, fetched).await
}

/// Runs the visit that a document from elsewhere stands for. It makes no request, so it waits for no permit, and a pause does
/// not concern it.
pub(super) async fn record_document(
    ctx: Rc<VisitContext>,
    entry: Arc<SourceEntry>,
    document: FetchedDocument,
) -> Option<RecordedVisit> {
    let (before, started) = (entry.state(), Moment::now(&ctx));
    let host = Host::of(effective_url(&entry.source, &before.moves).secret());
    let fetched = AssertUnwindSafe(parse_document(&ctx, &entry, document)).catch_unwind().await;
    let times = VisitTimes { due: None, started, waited: Duration::ZERO };
    record(&ctx, &entry, &before, host, times, fetched).await
}

/// A time on both clocks.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    wall: Timestamp,
}

impl Moment {
    fn now(ctx: &VisitContext) -> Self {
        Self { at: Instant::now(), wall: ctx.now() }
    }
}

/// When a visit was due and began, and how long its redirects waited for their hosts.
#[derive(Clone, Copy)]
struct VisitTimes {
    /// `None` for a visit ahead of schedule.
    due: Option<Timestamp>,
    started: Moment,
    waited: Duration,
}

impl VisitTimes {
    fn took(self) -> Duration {
        self.started.at.elapsed().saturating_sub(self.waited)
    }
}

/// Concludes a visit and has it recorded; `None` if the log is closed.
async fn record(
    ctx: &VisitContext,
    entry: &SourceEntry,
    before: &SourceState,
    host: Host,
    times: VisitTimes,
    mut fetched: std::thread::Result<FetchedVisit>,
) -> Option<RecordedVisit> {
    let source = &entry.source;
    let memory = fetched.as_mut().ok().and_then(|fetched| fetched.memory.take());
    let (interval_bounds, now, jitter) = (ctx.interval_bounds.get(), ctx.now(), fastrand::f64());
    let (request_hash, took) = (before.url_hash, times.took());
    let is_early = times.due.is_none();
    let inputs = VisitInputs { source, before, is_early, request_hash, interval_bounds, now, took, jitter };
    let mut outcome = match fetched {
        Ok(fetched) => conclude(ctx, host, inputs, fetched),
        Err(panic) => {
            ctx.metrics.panics.inc();
            VisitOutcome::panicked(inputs, daemon::panics::message(&*panic))
        }
    };
    entry.set_activity(Activity::Recording, now);
    let items = std::mem::take(&mut outcome.items);
    keep_newer(entry.websub(), &mut outcome.state.websub);
    let plan = std::mem::take(&mut outcome.plan);
    let state = outcome.state.clone();
    let visit = store::VisitRecord { source: Arc::clone(source), items, state, now, plan };
    let appended = ctx.recorder.send(RecordVisit { visit, memory }).await.ok()?.ok()?;
    Some(RecordedVisit { outcome, appended, started: times.started.wall, took: times.took() })
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
    let FetchedVisit { report, parsed, parse_time, request_hash, is_ours, .. } = fetched;
    ctx.metrics.body_bytes.inc_by(report.body_bytes);
    let is_ours = is_ours.or(matches!(parsed, ParseOutcome::Postponed).then_some(Exemption::NotParsed));
    let mut outcome = VisitOutcome::conclude(VisitInputs { request_hash, ..inputs }, &report, parsed);
    if let Some(exemption) = is_ours {
        outcome.exempt(inputs, exemption);
        ctx.metrics.exempted.inc();
        let source = &inputs.source.id;
        tracing::debug!(%source, reason = outcome.state.why, "visit not counted against its feed");
    } else if is_local_outage(ctx, host, inputs.before, &report) {
        outcome.exempt(inputs, Exemption::LocalOutage);
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
    /// What the document uses of the memory budget.
    memory: Option<Arc<MemoryShare>>,
    /// It failed for a reason of ours.
    is_ours: Option<Exemption>,
}

impl FetchedVisit {
    /// Nothing was requested.
    fn not_attempted(failure: Failure, is_ours: Option<Exemption>, state: &SourceState) -> Self {
        let (report, parsed) = (FetchReport::not_attempted(failure), ParseOutcome::NotParsed);
        Self { report, parsed, parse_time: None, request_hash: state.url_hash, memory: None, is_ours }
    }
}

/// What is sent with the requests of a source.
///
/// # Errors
/// The visit without a request.
async fn request_options(
    ctx: &VisitContext,
    source: &Source,
    state: &SourceState,
) -> Result<Option<RequestOptions>, FetchedVisit> {
    match tokio::time::timeout(FILES_TIMEOUT, ctx.credentials.request_options(&source.access)).await {
        Ok(options) => options.map_err(|failure| FetchedVisit::not_attempted(failure, None, state)),
        Err(_) => {
            let failure =
                Failure::new(FailureClass::Timeout, "the disk did not answer with the files of the source");
            Err(FetchedVisit::not_attempted(failure, Some(Exemption::FilesNotRead), state))
        }
    }
}

/// Whether a visit failed because this process did not run for a part of it: a time limit passed, or the connection was lost,
/// while nothing was read.
fn has_lost_time(answer: &FetchResult, lost: Duration, took: Duration) -> bool {
    let FetchResult::Failed(failure) = answer else { return false };
    let is_likely = matches!(
        failure.class,
        FailureClass::Timeout
            | FailureClass::Connect
            | FailureClass::Dns
            | FailureClass::Tls
            | FailureClass::Truncated
    );
    is_likely && is_starved(lost, took)
}

/// `None` if the visit was preempted.
async fn fetch_and_parse(
    ctx: &VisitContext,
    entry: &Arc<SourceEntry>,
    url: &FeedUrl,
    hops: &PacedHops,
    share: Arc<MemoryShare>,
) -> Option<FetchedVisit> {
    let (source, mut state) = (&entry.source, entry.state());
    let is_full = entry.take_full_visit();
    if is_full {
        forget_document(&mut state);
    }
    entry.phase.set(fetch::VisitPhase::Options);
    entry.set_activity(Activity::Fetching, ctx.now());
    let options = match request_options(ctx, source, &state).await {
        Ok(options) => options,
        Err(visit) => return Some(visit),
    };
    let request_hash = request_hash(source, options.as_ref().map_or(0, RequestOptions::fingerprint));
    let (etag, last_modified) = validators(request_hash, &state, ctx.now());
    let memory = VisitMemory::new(ctx, share, entry, &Host::of(url.secret()));
    let request = fetch::VisitRequest {
        etag,
        last_modified,
        validator_key: state.validator_key,
        timeout: source.timeout,
        timeout_first_byte: source.timeout_first_byte,
        body_bytes_max: source.body_bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
        options: options.as_ref(),
        scope: scope(source),
        budget: Some(&memory),
        gate: Some(hops as &dyn HopGate),
        phase: Some(&entry.phase),
        ..fetch::VisitRequest::new(url, ctx.now())
    };
    black_box::record(BlackBoxEvent::VisitBegan { source: source.id.as_str().into() });
    let (lost_before, began) = (ctx.lost_time.total(), Instant::now());
    let mut report = tokio::select! {
        biased;
        report = work::during("fetching", source.id.as_str(), ctx.visitor.visit(&request)) => report,
        () = hops.preempted() => {
            if is_full {
                entry.order_full_visit();
            }
            return None;
        }
    };
    hops.pin();
    let lost = ctx.lost_time.total().saturating_sub(lost_before);
    let is_ours = has_lost_time(&report.answer, lost, began.elapsed()).then_some(Exemption::LostTime);
    // The server did not take this part.
    report.timings.total = report.timings.total.saturating_sub(lost);
    let (parsed, parse_time, memory) = parse_answer(ctx, entry, &state, &memory, &mut report).await;
    Some(FetchedVisit { report, parsed, parse_time, request_hash, memory, is_ours })
}

/// An address that other people have chosen does not count as configured.
fn scope(source: &Source) -> AddressScope<'_> {
    if source.has_foreign_address() { AddressScope::Named } else { AddressScope::Configured(&source.url) }
}

/// As [`fetch_and_parse`], of a document that is there already.
async fn parse_document(
    ctx: &VisitContext,
    entry: &Arc<SourceEntry>,
    document: FetchedDocument,
) -> FetchedVisit {
    let (source, state) = (&entry.source, entry.state());
    let fingerprint = match request_options(ctx, source, &state).await {
        Ok(options) => options.as_ref().map_or(0, RequestOptions::fingerprint),
        // As every later visit.
        Err(visit) => return visit,
    };
    entry.set_activity(Activity::Parsing, ctx.now());
    let share = ctx.limiter.share_for(document.bytes());
    let memory = VisitMemory::new(ctx, share, entry, &Host::of(source.url.secret()));
    let report = tokio::task::spawn_blocking(move || document.into_report()).await;
    let mut report = report.expect("hashing a document does not panic");
    let (parsed, parse_time, memory) = parse_answer(ctx, entry, &state, &memory, &mut report).await;
    let request_hash = request_hash(source, fingerprint);
    FetchedVisit { report, parsed, parse_time, request_hash, memory, is_ours: None }
}

/// Parses the document of an answer, if it has one that is not the same as last time; also returns how long that took, and
/// what the document uses of the memory budget.
async fn parse_answer(
    ctx: &VisitContext,
    entry: &SourceEntry,
    state: &SourceState,
    memory: &VisitMemory,
    report: &mut FetchReport,
) -> (ParseOutcome, Option<Duration>, Option<Arc<MemoryShare>>) {
    let source = &entry.source;
    let (parsed, parse_time) = match &mut report.answer {
        FetchResult::Full(full) if state.body_hash == Some(full.body_hash) => {
            // Free the bytes; they are not needed.
            full.body = bytes::Bytes::new();
            (ParseOutcome::SameBytes, None)
        }
        FetchResult::Full(full) => {
            entry.set_activity(Activity::Parsing, ctx.now());
            let (url, content_type) = (full.url.clone(), full.content_type.clone());
            let bytes = std::mem::take(&mut full.body);
            parse_body(ctx, source, memory, FetchedBody { bytes, url, content_type }).await
        }
        _ => (ParseOutcome::NotParsed, None),
    };
    if matches!(&parsed, ParseOutcome::Panicked(_)) {
        ctx.metrics.panics.inc();
    }
    let memory = match &parsed {
        ParseOutcome::Document(document) => {
            let share = memory.share();
            share.use_for(MemoryPart::Queue, ITEM_COPIES * document.bytes());
            Some(share)
        }
        _ => None,
    };
    (parsed, parse_time, memory)
}
