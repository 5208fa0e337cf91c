//! The outcome of a visit: a pure function from what was fetched and parsed to the state to store.
//!
//! Every way a visit can end goes through [`VisitOutcome::conclude`], so that none forgets to schedule the next
//! visit.

use std::time::Duration;

use control::watch::FeedTrouble;
use fetch::{
    FailureClass, FetchReport, FetchResult,
    schedule::{
        IntervalBounds, Next, RecordedNews, ScheduleInput, ScheduleOutcome, next_visit, server_interval_max,
    },
};
use news::{
    Attempt, Escaped, FeedRhythm, FormerAddresses, Item, Source, SourceState, Timestamp, VisitStatus,
};
use notation::humanize;
use store::{NewsPlan, SoonerVisit};

use super::{
    redirects::{self, RedirectChange, effective_url},
    trouble::trouble,
    validators::bind_to,
};
use crate::{
    queue::{host::Host, limiter::BUSY_PAUSE_MAX},
    status::registry::EndedVisit,
    websub::{discovery::discover, interval::relax_interval},
};

/// What the parser made of the body.
#[derive(Debug)]
pub(crate) enum ParseOutcome {
    /// There was no body, or none worth parsing.
    NotParsed,
    /// The same bytes as last time.
    SameBytes,
    /// A feed.
    Document(Box<feed::FeedDocument>),
    /// Not a feed.
    Failed {
        /// The failure class.
        class: FailureClass,
        /// The reason, for people.
        message: String,
    },
    /// The parser panicked, with this message.
    Panicked(String),
    /// It was not parsed, because this machine had no processor or no disk for it.
    Postponed,
}

/// Why a visit that failed does not count against its feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exemption {
    /// Most hosts are unreachable.
    LocalOutage,
    /// This process did not run for a part of the visit.
    LostTime,
    /// The document was not parsed in time: see [`ParseOutcome::Postponed`].
    NotParsed,
    /// The files with the credentials of the source could not be read in time.
    FilesNotRead,
}

impl Exemption {
    fn why(self) -> &'static str {
        match self {
            Self::LocalOutage => "local outage, not counted against the feed: most hosts are unreachable",
            Self::LostTime => {
                "newswire was stopped or had no processor during the visit, not counted against the feed"
            }
            Self::NotParsed => {
                "newswire had no processor or disk to parse the document, not counted against the feed"
            }
            Self::FilesNotRead => {
                "the disk did not answer with the files of the source, not counted against the feed"
            }
        }
    }
}

/// What a visit concluded.
#[derive(Debug)]
pub(crate) struct VisitOutcome {
    /// Oldest first.
    pub(crate) items: Vec<Item>,
    /// The state to store; `last_status` is final only after the append.
    pub(crate) state: SourceState,
    /// Why it failed; `None` also for a panic, which has its own counter.
    pub(crate) class: Option<FailureClass>,
    /// For conclusions from many visits; `None` if it says nothing about the feed.
    pub(crate) ended: Option<EndedVisit>,
    /// Another URL is requested from now on.
    pub(crate) redirect_change: Option<RedirectChange>,
    /// Items beyond the limits of the parser.
    pub(crate) dropped: usize,
    /// It failed for a reason of ours, and does not count against the feed.
    pub(crate) is_exempt: bool,
    /// What changes if items turn out to be new.
    pub(crate) plan: NewsPlan,
}

/// What the outcome depends on, besides the fetch and the document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisitInputs<'a> {
    pub(crate) source: &'a Source,
    pub(crate) before: &'a SourceState,
    /// It is ahead of schedule: an order, or a push announced something.
    pub(crate) is_early: bool,
    /// What the validators belong to: see [`super::validators::request_hash`].
    pub(crate) request_hash: u64,
    pub(crate) interval_bounds: IntervalBounds,
    pub(crate) now: Timestamp,
    pub(crate) took: Duration,
    /// From 0 to 1.
    pub(crate) jitter: f64,
}

/// Warnings of a document that are kept.
const WARNINGS_MAX: usize = 8;
/// Publication dates of a document that are kept, to estimate how often something is published.
const RECENT_MAX: usize = 20;
/// A source whose document takes more processor time to parse is quarantined.
pub(crate) const PARSE_SLOW: Duration = Duration::from_secs(2);
/// The longest wait after a visit that failed because of a local outage.
const EXEMPT_WAIT_MAX: Duration = Duration::from_secs(3600);

impl VisitOutcome {
    /// Concludes a visit.
    pub(crate) fn conclude(inputs: VisitInputs<'_>, report: &FetchReport, parsed: ParseOutcome) -> Self {
        let mut state = inputs.before.clone();
        bind_to(&mut state, inputs.request_hash);
        if !report.is_conditional {
            state.asked_in_full = Some(inputs.now);
        }
        state.last_visit = Some(inputs.now);
        state.last_code = report.code;
        state.last_took_ms = Some(u64::try_from(inputs.took.as_millis()).unwrap_or(u64::MAX));
        if report.code.is_some() {
            state.certificate_expired = report.certificate_expired.map(Box::new);
            // It has answered since.
            let former = state.former.take().map(|mut former| {
                former.forget(state.address);
                *former
            });
            state.former = former.and_then(FormerAddresses::boxed);
        }
        state.counts.visits += 1;
        state.counts.body_bytes += report.body_bytes;
        if report.answer.is_healthy()
            && !matches!(
                parsed,
                ParseOutcome::Failed { .. } | ParseOutcome::Panicked(_) | ParseOutcome::Postponed
            )
        {
            let document = match &parsed {
                ParseOutcome::Document(document) => Some(&document.feed),
                _ => None,
            };
            discover(&mut state.websub, inputs.source, &report.links, document, inputs.now);
        }
        let mut outcome = Self::of(state);
        let status = outcome.apply_result(inputs, report, parsed);
        outcome.redirect_change =
            redirects::observe(&mut outcome.state.moves, inputs.source, report, status, inputs.now);
        outcome.count_visit(status, inputs.now);
        let waited_ms = report.timings.total.saturating_sub(report.timings.dns).as_millis();
        outcome.ended = Some(EndedVisit {
            trouble: trouble(report, outcome.class, status),
            waited_ms: u32::try_from(waited_ms).unwrap_or(u32::MAX),
        });
        outcome.record_attempt(inputs, report.code, report.body_bytes, status);
        outcome.schedule_next(inputs, report, status);
        outcome.keep_plan(inputs, report, status);
        outcome
    }

    fn of(state: SourceState) -> Self {
        Self {
            items: Vec::new(),
            state,
            class: None,
            ended: None,
            redirect_change: None,
            dropped: 0,
            is_exempt: false,
            plan: NewsPlan::default(),
        }
    }

    /// The outcome of a visit during which our own code panicked.
    pub(crate) fn panicked(inputs: VisitInputs<'_>, message: &str) -> Self {
        let mut outcome = Self::of(inputs.before.clone());
        outcome.state.last_visit = Some(inputs.now);
        outcome.state.counts.visits += 1;
        outcome.record_panic(message);
        outcome.ended = Some(EndedVisit { trouble: Some(FeedTrouble::Internal), waited_ms: 0 });
        outcome.count_visit(VisitStatus::Error, inputs.now);
        outcome.record_attempt(inputs, None, 0, VisitStatus::Error);
        let facts = schedule_input(inputs.into(), inputs.before, &outcome.state, VisitStatus::Error);
        let next = next_visit(&facts, inputs.jitter);
        outcome.state.next_visit = next.at;
        outcome.state.why = next.why;
        outcome
    }

    /// The failure says nothing about the feed. The next visit is soon; in an outage it is within the usual interval. It is at a
    /// random time, so that many that are exempt together cause no burst.
    pub(crate) fn exempt(&mut self, inputs: VisitInputs<'_>, exemption: Exemption) {
        let (before, interval_bounds) = (inputs.before, inputs.interval_bounds);
        let usual =
            before.last_visit.zip(before.next_visit).map_or(Duration::ZERO, |(last, next)| next.since(last));
        let usual = if exemption == Exemption::LocalOutage { usual } else { Duration::ZERO };
        let longest = usual.min(EXEMPT_WAIT_MAX).max(interval_bounds.interval_min * 2);
        let wait =
            interval_bounds.interval_min + (longest - interval_bounds.interval_min).mul_f64(inputs.jitter);
        self.state.failures = before.failures;
        self.state.gone_in_a_row = before.gone_in_a_row;
        self.state.next_visit = Some(inputs.now.plus(wait));
        self.state.why = format!("{}, again in {}", exemption.why(), humanize(wait));
        self.is_exempt = true;
        if exemption != Exemption::LocalOutage {
            self.ended = None;
        }
    }

    /// Quarantines the source if parsing took too much processor time, and releases it otherwise. Returns whether it did.
    pub(crate) fn check_parse_time(&mut self, took: Duration) -> bool {
        let slow = took > PARSE_SLOW;
        self.state.quarantine =
            slow.then(|| format!("its document took {} of processor time to parse", humanize(took)));
        slow
    }

    /// Limits a quarantined source to one visit per `interval_max`.
    pub(crate) fn apply_quarantine(&mut self, inputs: VisitInputs<'_>) {
        let (Some(reason), Some(next)) = (&self.state.quarantine, self.state.next_visit) else { return };
        let max = inputs.interval_bounds.interval_max;
        let earliest = inputs.now.plus(max - (max / 10).mul_f64(inputs.jitter));
        self.plan.sooner = None;
        if next < earliest {
            self.state.why = format!("in quarantine ({reason}): every {}", humanize(max));
            self.state.next_visit = Some(earliest);
        }
    }

    fn apply_result(
        &mut self,
        inputs: VisitInputs<'_>,
        report: &FetchReport,
        parsed: ParseOutcome,
    ) -> VisitStatus {
        match &report.answer {
            FetchResult::Full(full) => {
                let is_damaged = match &parsed {
                    ParseOutcome::Failed { class, message } => return self.fail(*class, message),
                    ParseOutcome::Panicked(message) => return self.record_panic(message),
                    ParseOutcome::Postponed => return self.postpone(),
                    ParseOutcome::Document(document) => document.damaged,
                    ParseOutcome::SameBytes | ParseOutcome::NotParsed => false,
                };
                self.state.body_hash = Some(full.body_hash);
                // A truncated document must not be kept by a 304. If the same bytes are served again, they are all
                // there is.
                if !is_damaged {
                    self.state.etag.clone_from(&full.etag);
                    self.state.last_modified.clone_from(&full.last_modified);
                    self.state.validator_key = Some(full.validator_key);
                    if !full.is_delta {
                        self.state.last_full = Some(inputs.now);
                    }
                }
                match parsed {
                    ParseOutcome::Document(document) => self.apply_document(*document),
                    _ => VisitStatus::Unchanged,
                }
            }
            FetchResult::NotModified { etag, last_modified } => {
                for (ours, theirs) in
                    [(&mut self.state.etag, etag), (&mut self.state.last_modified, last_modified)]
                {
                    if theirs.is_some() {
                        ours.clone_from(theirs);
                    }
                }
                self.state.counts.not_modified += 1;
                VisitStatus::Unchanged
            }
            FetchResult::Throttled => {
                match &report.held {
                    Some(why) => self.fail(FailureClass::HttpStatus, &format!("the feed redirects: {why}")),
                    None => {
                        let who = report.answerer();
                        self.fail(FailureClass::HttpStatus, &format!("{who} asked us to retry later"))
                    }
                };
                VisitStatus::Throttled
            }
            FetchResult::Gone => {
                self.fail(FailureClass::HttpStatus, "the feed is gone (410)");
                VisitStatus::Gone
            }
            FetchResult::Failed(failure) => self.fail(failure.class, &failure.message),
        }
    }

    fn apply_document(&mut self, document: feed::FeedDocument) -> VisitStatus {
        let text = |w: &news::Warning| match w.line {
            Some(line) => format!("line {line}: {}", w.message),
            None => w.message.clone(),
        };
        self.state.warnings = document.warnings.iter().take(WARNINGS_MAX).map(text).collect();
        // The store sets it again when it sees the items.
        self.state.guids_flap = false;
        self.state.updates_damped = false;
        self.state.rhythm = summarize_rhythm(&document);
        self.dropped = document.dropped;
        self.items = seen::oldest_first(document.items);
        if document.damaged { VisitStatus::Partial } else { VisitStatus::New }
    }

    fn fail(&mut self, class: FailureClass, message: &str) -> VisitStatus {
        self.class = Some(class);
        self.state.last_error = Some(format!("{class}: {message}"));
        VisitStatus::Error
    }

    fn postpone(&mut self) -> VisitStatus {
        self.state.last_error = Some(Exemption::NotParsed.why().to_owned());
        VisitStatus::Error
    }

    fn record_panic(&mut self, message: &str) -> VisitStatus {
        self.state.last_error = Some(format!("panic: {}", Escaped(message)));
        VisitStatus::Error
    }

    fn record_attempt(
        &mut self,
        inputs: VisitInputs<'_>,
        code: Option<u16>,
        body_bytes: u64,
        status: VisitStatus,
    ) {
        let attempt = Attempt {
            at: inputs.now,
            status,
            code,
            took_ms: u32::try_from(inputs.took.as_millis()).unwrap_or(u32::MAX),
            body_bytes: u32::try_from(body_bytes).unwrap_or(u32::MAX),
            new: 0,
            updated: 0,
            class: self.class,
        };
        Attempt::push(&mut self.state.attempts, attempt);
    }

    fn count_visit(&mut self, status: VisitStatus, now: Timestamp) {
        let state = &mut self.state;
        state.last_status = Some(status);
        if status.is_healthy() {
            state.last_success = Some(now);
            state.last_error = None;
            state.failures = 0;
            state.counts.unchanged += u64::from(status == VisitStatus::Unchanged);
        } else {
            state.failures = state.failures.saturating_add(1);
            state.counts.errors += 1;
        }
        state.gone_in_a_row =
            if status == VisitStatus::Gone { state.gone_in_a_row.saturating_add(1) } else { 0 };
    }

    fn schedule_next(&mut self, inputs: VisitInputs<'_>, report: &FetchReport, status: VisitStatus) {
        let is_healthy = status.is_healthy();
        let items_since = if self.items.is_empty() { None } else { appeared_since(inputs, &self.items) };
        let state = &mut self.state;
        let cache_life = cache_life(state, report, is_healthy, inputs.now);
        let answers = ScheduleInput {
            // A redirect that was not followed has a status that says nothing.
            code: report.code.filter(|_| report.held.is_none()),
            cache_life,
            retry_after: report.retry_after,
            ..schedule_input(inputs.into(), inputs.before, state, status)
        };
        // A new URL starts afresh: it is requested soon, and earlier failures do not count.
        let is_elsewhere = self.redirect_change.is_some() && !is_healthy;
        let facts = if is_elsewhere {
            ScheduleInput {
                outcome: ScheduleOutcome::Failed,
                failures: 1,
                recent: &[],
                quiet_for: Some(Duration::ZERO),
                ttl: None,
                update_period: None,
                worked_at: None,
                cache_life_before: None,
                ..answers
            }
        } else {
            answers
        };
        let next = next_visit(&facts, inputs.jitter);
        let next = relax_interval(next, &facts, state.websub.as_deref(), inputs.before.last_success);
        let sooner =
            if self.items.is_empty() { None } else { sooner(&facts, &next, items_since, inputs.jitter) };
        state.next_visit = next.at;
        state.why = next.why;
        if is_elsewhere {
            state.gone_in_a_row = 0;
            state.why.push_str(", then at another URL");
        }
        let is_delta = matches!(&report.answer, FetchResult::Full(full) if full.is_delta);
        self.plan = NewsPlan { since: items_since, sooner, was_watched: was_watched(inputs), is_delta };
        let host = answering_host(inputs, report);
        let longest = match report.code {
            Some(429) => server_interval_max(inputs.interval_bounds),
            Some(503) => BUSY_PAUSE_MAX,
            _ => Duration::ZERO,
        };
        let wait = report.retry_after.map(|wait| wait.min(longest)).filter(|wait| !wait.is_zero());
        self.state.host_asked_until = wait.map(|wait| inputs.now.plus(wait));
        self.state.host_asked = wait.map(|_| host.name().into());
    }

    /// Orders do not count as planned looks: while the feed fails as it did before, or is still gone, its next visit stays
    /// where it was.
    fn keep_plan(&mut self, inputs: VisitInputs<'_>, report: &FetchReport, status: VisitStatus) {
        let VisitInputs { before, interval_bounds, now, .. } = inputs;
        let is_as_before = matches!(status, VisitStatus::Gone | VisitStatus::Error)
            && (before.last_status, before.last_code) == (Some(status), report.code)
            && before.attempts.last().is_some_and(|last| last.class == self.class)
            && self.redirect_change.is_none();
        let is_kept = |next: &Timestamp| inputs.is_early && is_as_before && now < *next;
        let Some(next) = before.next_visit.filter(is_kept) else { return };
        let asked = report.retry_after.unwrap_or_default().min(server_interval_max(interval_bounds));
        let state = &mut self.state;
        (state.failures, state.gone_in_a_row) = (before.failures, before.gone_in_a_row);
        state.next_visit = Some(next.max(now.plus(asked.max(interval_bounds.interval_min))));
        state.why.clone_from(&before.why);
    }
}

/// After which time the new items of this visit have appeared: after the visit before, or, if a feed has no dates that say
/// otherwise, just now. `None` at the first visit, when every item is new.
fn appeared_since(inputs: VisitInputs<'_>, items: &[Item]) -> Option<Timestamp> {
    let before = inputs.before.last_success?;
    let is_dated = items.iter().any(|item| item.published.or(item.updated).is_some());
    Some(if is_dated { before } else { inputs.now })
}

/// Whether the source has answered about as recently as its visits are planned: neither the daemon nor the server was down.
fn was_watched(inputs: VisitInputs<'_>) -> bool {
    let usual = inputs.interval_bounds.interval_max.max(inputs.source.every.unwrap_or_default());
    inputs.before.last_success.is_some_and(|last| inputs.now.since(last) <= usual * 2)
}

/// The next visit if so many items are new that the feed is in a burst.
fn sooner(
    facts: &ScheduleInput<'_>,
    next: &Next,
    found_since: Option<Timestamp>,
    jitter: f64,
) -> Option<SoonerVisit> {
    (1..=2).find_map(|found| {
        let recorded = RecordedNews { found, found_since, ..facts.recorded };
        let sooner = next_visit(&ScheduleInput { recorded, ..facts.clone() }, jitter);
        let at = sooner.at.filter(|at| next.at.is_some_and(|next| *at < next))?;
        Some(SoonerVisit { items: found, at, why: sooner.why })
    })
}

/// How long the feed is fresh from now on, and remembers it: a 304 renews what the last document said, except what it says
/// itself (RFC 9111, sections 3.2 and 4.3.4).
fn cache_life(
    state: &mut SourceState,
    report: &FetchReport,
    is_healthy: bool,
    now: Timestamp,
) -> Option<Duration> {
    let said = report.cache;
    if !is_healthy {
        return said.fresh_for;
    }
    let is_renewal = matches!(report.answer, FetchResult::NotModified { .. }) && !said.is_stated;
    if is_renewal {
        let lifetime = state.fresh_s.map(|fresh| Duration::from_secs(fresh.into()));
        return match state.fresh_until {
            Some(until) => Some(until.since(now)),
            None => lifetime.map(|lifetime| lifetime.saturating_sub(said.age)),
        };
    }
    state.fresh_s = said.lifetime.map(|fresh| u32::try_from(fresh.as_secs()).unwrap_or(u32::MAX));
    state.fresh_until = said.fresh_for.filter(|_| said.is_by_date).map(|left| now.plus(left));
    said.fresh_for
}

/// Plans the next visit of a source again, after a change of its interval or its limits. The wait that its server asked for
/// stays, and so does a quarantine. `None` for a failing source: its plan stays, and it is looked at now, because the change
/// may be the remedy.
pub(crate) fn plan_again(
    source: &Source,
    state: &SourceState,
    interval_bounds: IntervalBounds,
    now: Timestamp,
    jitter: f64,
) -> Option<Next> {
    let planned = || Next { at: state.next_visit, why: state.why.clone() };
    let at_once = || Next { at: Some(now), why: "its settings have changed".to_owned() };
    let since = last_look(state, now);
    let after = |status: VisitStatus| {
        let inputs = ScheduledSource { source, interval_bounds, now: since };
        let facts = ScheduleInput {
            cache_life: match state.fresh_until {
                Some(until) => Some(until.since(since)),
                None => state.fresh_s.map(|fresh| Duration::from_secs(fresh.into())),
            },
            ..schedule_input(inputs, state, state, status)
        };
        let next = next_visit(&facts, jitter);
        Next { at: next.at.map(|at| at.max(now)), ..next }
    };
    let next = match state.last_status {
        _ if state.next_visit.is_some() && state.quarantine.is_some() => planned(),
        Some(VisitStatus::Throttled) if state.next_visit.is_some() => planned(),
        Some(status @ (VisitStatus::Throttled | VisitStatus::Gone)) if state.next_visit.is_none() => {
            after(status)
        }
        Some(status) if status.is_healthy() => after(status),
        _ if state.next_visit.is_some() => return None,
        _ => at_once(),
    };
    Some(next)
}

/// Defers the visit of an overdue source past the hours and days that its last document skips, unless it was in a burst when
/// it was looked at last.
pub(crate) fn defer_overdue(
    next: Next,
    source: &Source,
    state: &SourceState,
    interval_bounds: IntervalBounds,
    now: Timestamp,
    jitter: f64,
) -> Next {
    let inputs = ScheduledSource { source, interval_bounds, now: last_look(state, now) };
    let facts = schedule_input(inputs, state, state, state.last_status.unwrap_or(VisitStatus::Unchanged));
    facts.defer_past_skip_windows(next, jitter)
}

fn last_look(state: &SourceState, now: Timestamp) -> Timestamp {
    state.last_visit.filter(|last| *last <= now).unwrap_or(now)
}

/// The host that answered last: where the redirects led to.
fn answering_host(inputs: VisitInputs<'_>, report: &FetchReport) -> Host {
    match report.hops.last() {
        Some(hop) => Host::of(hop.to.secret()),
        None => Host::of(effective_url(inputs.source, &inputs.before.moves).secret()),
    }
}

/// A source, and when its last visit ended.
#[derive(Clone, Copy)]
struct ScheduledSource<'a> {
    source: &'a Source,
    interval_bounds: IntervalBounds,
    now: Timestamp,
}

impl<'a> From<VisitInputs<'a>> for ScheduledSource<'a> {
    fn from(VisitInputs { source, interval_bounds, now, .. }: VisitInputs<'a>) -> Self {
        Self { source, interval_bounds, now }
    }
}

/// What the schedule needs to know about a source whose last visit ended with `status`, except the head of the response.
fn schedule_input<'a>(
    scheduled: ScheduledSource<'_>,
    before: &SourceState,
    state: &'a SourceState,
    status: VisitStatus,
) -> ScheduleInput<'a> {
    let outcome = match status {
        VisitStatus::New | VisitStatus::Partial => ScheduleOutcome::Healthy,
        VisitStatus::Unchanged => ScheduleOutcome::Unchanged,
        VisitStatus::Throttled => ScheduleOutcome::Throttled,
        VisitStatus::Gone => ScheduleOutcome::Gone,
        VisitStatus::Error => ScheduleOutcome::Failed,
    };
    let rhythm = &state.rhythm;
    let (one_since, two_since) = state.news.since();
    ScheduleInput {
        failures: state.failures,
        gone_in_a_row: state.gone_in_a_row,
        every: scheduled.source.every,
        ignores_hints: scheduled.source.ignores_freshness,
        recorded: RecordedNews { two_since, one_since, ..RecordedNews::default() },
        recent: &rhythm.recent,
        quiet_for: quiet_for(before, scheduled.now),
        ttl: rhythm.ttl_s.map(Duration::from_secs),
        update_period: rhythm.update_interval_s.map(Duration::from_secs),
        skip_hours: rhythm.skip_hours,
        skip_days: rhythm.skip_days,
        worked_at: before.last_success,
        cache_life_before: state.fresh_s.map(|fresh| Duration::from_secs(fresh.into())),
        ..ScheduleInput::new(scheduled.interval_bounds, scheduled.now, outcome)
    }
}

/// How long ago the source last had something new; zero if it never worked, `None` if unknown.
fn quiet_for(before: &SourceState, now: Timestamp) -> Option<Duration> {
    match (before.last_news, before.last_visit) {
        (Some(news), _) => Some(now.since(news)),
        (None, Some(_)) if before.last_success.is_some() => None,
        (None, _) => Some(Duration::ZERO),
    }
}

fn summarize_rhythm(document: &feed::FeedDocument) -> FeedRhythm {
    let rhythm = &document.rhythm;
    let mut recent: Vec<_> = document.items.iter().filter_map(|i| i.published.or(i.updated)).collect();
    recent.sort_unstable_by(|a, b| b.cmp(a));
    recent.truncate(RECENT_MAX);
    FeedRhythm {
        ttl_s: rhythm.ttl.map(|d| d.as_secs()),
        update_interval_s: rhythm.update_interval.map(|d| d.as_secs()),
        skip_hours: rhythm.skip_hours.0,
        skip_days: rhythm.skip_days.0,
        recent,
    }
}

#[cfg(test)]
mod tests {
    use fetch::{Failure, Freshness, Full, Timings};
    use news::{FeedUrl, SourceId};

    use super::{
        super::validators::{UNCONDITIONAL_EVERY, request_hash, validators},
        *,
    };

    const NOW: fn() -> Timestamp = || Timestamp::from_millis(1_800_000_000_000);

    fn source() -> Source {
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        Source::new(SourceId::try_new("a").unwrap(), url)
    }

    fn visit(code: u16, answer: FetchResult) -> FetchReport {
        FetchReport {
            answer,
            code: Some(code),
            is_conditional: code == 304,
            hops: Vec::new(),
            timings: Timings::default(),
            headers: Vec::new(),
            links: fetch::HeaderLinks::default(),
            cache: Freshness::default(),
            retry_after: None,
            remote: None,
            body_bytes: 10,
            held: None,
            certificate_expired: None,
            read_by: None,
        }
    }

    fn full(etag: &str) -> FetchResult {
        FetchResult::Full(Full {
            body: bytes::Bytes::new(),
            body_hash: 7,
            content_type: None,
            etag: Some(etag.to_owned()),
            last_modified: None,
            validator_key: 5,
            url: "https://example.org/feed".parse().unwrap(),
            is_delta: false,
        })
    }

    fn fresh(lifetime: Duration) -> Freshness {
        let fresh_for = Some(lifetime);
        Freshness { fresh_for, lifetime: fresh_for, is_stated: true, ..Freshness::default() }
    }

    fn conclude(before: &SourceState, visit: &FetchReport, parsed: ParseOutcome) -> VisitOutcome {
        let source = source();
        let took = Duration::from_millis(12);
        let request_hash = request_hash(&source, 0);
        let interval_bounds = IntervalBounds::default();
        let inputs = VisitInputs {
            source: &source,
            before,
            is_early: false,
            request_hash,
            interval_bounds,
            now: NOW(),
            took,
            jitter: 0.5,
        };
        VisitOutcome::conclude(inputs, visit, parsed)
    }

    #[test]
    fn validators_are_sent_only_for_the_url_they_came_from_and_not_for_ever() {
        let state =
            conclude(&SourceState::default(), &visit(200, full("\"v1\"")), ParseOutcome::SameBytes).state;
        let mut source = source();
        assert_eq!(validators(request_hash(&source, 0), &state, NOW()), (Some("\"v1\""), None));
        assert_eq!(
            validators(request_hash(&source, 0), &state, NOW().plus(UNCONDITIONAL_EVERY)),
            (None, None)
        );
        assert_eq!(validators(request_hash(&source, 1), &state, NOW()), (None, None), "other credentials");
        source.url = FeedUrl::try_new("https://example.org/other").unwrap();
        assert_eq!(validators(request_hash(&source, 0), &state, NOW()), (None, None));
    }

    #[test]
    fn the_store_is_told_that_a_document_has_only_what_has_changed() {
        for is_delta in [false, true] {
            let FetchResult::Full(document) = full("x") else { unreachable!() };
            let answer = FetchResult::Full(Full { is_delta, ..document });
            let outcome = conclude(&SourceState::default(), &visit(226, answer), ParseOutcome::SameBytes);
            assert_eq!(outcome.plan.is_delta, is_delta);
        }
    }

    #[test]
    fn a_request_without_validators_is_sent_once_a_day_even_if_it_fails() {
        let good =
            conclude(&SourceState::default(), &visit(200, full("\"v1\"")), ParseOutcome::SameBytes).state;
        let a_day_ago = SourceState {
            last_full: Some(Timestamp::from_millis(NOW().millis() - 86_400_000)),
            asked_in_full: None,
            ..good
        };
        let validators = |state, now| validators(request_hash(&source(), 0), state, now);
        assert_eq!(validators(&a_day_ago, NOW()), (None, None));
        let busy = conclude(&a_day_ago, &visit(503, FetchResult::Throttled), ParseOutcome::NotParsed).state;
        assert_eq!(validators(&busy, NOW()), (Some("\"v1\""), None));
        assert_eq!(validators(&busy, NOW().plus(UNCONDITIONAL_EVERY)), (None, None));
    }

    #[test]
    fn an_error_names_the_proxy_that_may_have_asked_to_retry_later() {
        let said = |read_by| {
            let report = FetchReport { read_by, ..visit(503, FetchResult::Throttled) };
            conclude(&SourceState::default(), &report, ParseOutcome::NotParsed).state.last_error.unwrap()
        };
        assert!(said(None).ends_with("the server asked us to retry later"));
        let proxy = news::ProxyUrl::try_new("http://user:TOPSECRET@127.0.0.1:3128").ok();
        let expected =
            "the server, or the proxy http://…@127.0.0.1:3128 in front of it, asked us to retry later";
        assert!(said(proxy).ends_with(expected));
    }

    #[test]
    fn an_answer_ends_the_pause_that_came_back_with_the_address_and_no_other() {
        let mut former = FormerAddresses::default();
        for address in [7, 8] {
            former.add(news::FormerAddress { address, not_before: NOW().plus(PARSE_SLOW), failures: 1 });
        }
        let before = SourceState { address: 7, former: former.boxed(), ..SourceState::default() };
        let kept = |report: &FetchReport| {
            let former = conclude(&before, report, ParseOutcome::NotParsed).state.former.unwrap();
            [7, 8].map(|address| former.get(address).is_some())
        };
        assert_eq!(kept(&visit(200, full("x"))), [false, true]);
        let silent = FetchResult::Failed(Failure::new(FailureClass::Connect, "x"));
        assert_eq!(kept(&FetchReport { code: None, ..visit(0, silent) }), [true, true]);
    }

    #[test]
    fn an_order_leaves_the_plan_of_a_gone_or_failing_feed_where_it_was_unless_it_answers_differently() {
        let source = source();
        let look = |before: &SourceState, hours: u64, is_early: bool, report: &FetchReport| {
            let inputs = VisitInputs {
                source: &source,
                before,
                is_early,
                request_hash: request_hash(&source, 0),
                interval_bounds: IntervalBounds::default(),
                now: NOW().plus(Duration::from_secs(3600 * hours)),
                took: Duration::ZERO,
                jitter: 0.5,
            };
            VisitOutcome::conclude(inputs, report, ParseOutcome::NotParsed).state
        };
        let gone = visit(410, FetchResult::Gone);
        let failed = |code| visit(code, FetchResult::Failed(Failure::new(FailureClass::HttpStatus, "x")));
        for (report, counted) in [(&gone, 3), (&gone, 1), (&failed(500), 4)] {
            let before =
                (0..counted).fold(SourceState::default(), |before, _| look(&before, 0, false, report));
            let ordered = (0..5).fold(before.clone(), |before, _| look(&before, 0, true, report));
            let plan = |state: &SourceState| {
                (state.next_visit, state.why.clone(), state.failures, state.gone_in_a_row)
            };
            assert_eq!(plan(&ordered), plan(&before));
            assert_eq!((ordered.attempts.len(), ordered.counts.visits), (counted + 5, counted as u64 + 5));
            // A look that was planned counts, and so does an order after the time of the planned one.
            for is_early in [false, true] {
                let later = look(&ordered, 24 * 9, is_early, report);
                assert_eq!(later.failures, before.failures + 1);
                assert!(later.next_visit > before.next_visit);
            }
            let other = look(&ordered, 0, true, &failed(404));
            assert_eq!((other.failures, other.gone_in_a_row), (before.failures + 1, 0));
            let healthy = look(&ordered, 0, true, &visit(200, full("x")));
            assert_eq!((healthy.failures, healthy.gone_in_a_row), (0, 0));
        }
        // Never sooner than the server asks for.
        let busy = FetchReport { retry_after: Some(Duration::from_secs(72_000)), ..failed(500) };
        let before = look(&SourceState::default(), 0, false, &failed(500));
        let asked = look(&before, 0, true, &busy);
        assert!(asked.next_visit >= Some(NOW().plus(Duration::from_secs(72_000))));
    }

    #[test]
    fn a_proxy_that_asks_for_a_pause_instead_of_connecting_throttles_its_source_only() {
        let wait = Duration::from_secs(72_000);
        let failure = Failure::new(FailureClass::Connect, "it answered 429 Too Many Requests");
        let refused =
            FetchReport { code: None, retry_after: Some(wait), ..visit(0, FetchResult::Failed(failure)) };
        let state = conclude(&SourceState::default(), &refused, ParseOutcome::NotParsed).state;
        assert!(state.next_visit >= Some(NOW().plus(wait)), "{:?}", state.next_visit);
        assert_eq!((state.host_asked, state.host_asked_until), (None, None));
    }

    #[test]
    fn a_pause_is_booked_to_the_host_that_asked_for_it() {
        let hop = |to: &str| fetch::RedirectHop {
            code: 302,
            from: source().url,
            to: FeedUrl::try_new(to).unwrap(),
        };
        let asked = |code: u16, hops: Vec<fetch::RedirectHop>, held: Option<&str>| {
            let busy = FetchReport {
                hops,
                held: held.map(str::to_owned),
                retry_after: Some(Duration::from_secs(7200)),
                ..visit(code, FetchResult::Throttled)
            };
            let state = conclude(&SourceState::default(), &busy, ParseOutcome::NotParsed).state;
            let wait = state.host_asked_until.map(|until| until.since(NOW()).as_secs() / 3600);
            (state.host_asked.map(String::from), wait, state.last_error.unwrap(), state.why)
        };
        let (host, wait, ..) = asked(429, Vec::new(), None);
        assert_eq!((host.as_deref(), wait), (Some("example.org"), Some(2)));
        let (host, wait, ..) = asked(429, vec![hop("https://cdn.example.net/a")], None);
        assert_eq!((host.as_deref(), wait), (Some("example.net"), Some(2)));
        let (host, wait, ..) = asked(503, vec![hop("https://cdn.example.net/a")], None);
        assert_eq!((host.as_deref(), wait), (Some("example.net"), Some(1)), "often one service of many");
        for (code, hours) in [(429, 2), (503, 1)] {
            let (host, wait, ..) = asked(code, vec![hop("http://10.0.0.1:8080/a")], None);
            assert_eq!((host.as_deref(), wait), (Some("10.0.0.1:8080"), Some(hours)), "with its port");
        }
        let held = Some("example.net asked for a pause, which is over in 2h");
        let (host, wait, error, why) = asked(302, vec![hop("https://cdn.example.net/a")], held);
        assert_eq!((host, wait), (None, None), "it did not answer");
        assert_eq!(
            error,
            "http-status: the feed redirects: example.net asked for a pause, which is over in 2h"
        );
        assert!(why.contains("the server asked for 2h (Retry-After)"), "{why}");
    }

    #[test]
    fn validators_of_an_old_url_do_not_return_after_a_failure_at_the_new_one() {
        let good =
            conclude(&SourceState::default(), &visit(200, full("\"v1\"")), ParseOutcome::SameBytes).state;
        let elsewhere = SourceState { url_hash: good.url_hash ^ 1, ..good };
        let busy = conclude(&elsewhere, &visit(503, FetchResult::Throttled), ParseOutcome::NotParsed).state;
        assert_eq!(validators(request_hash(&source(), 0), &busy, NOW()), (None, None));
        assert_eq!(busy.body_hash, None, "nor is its document the same");
    }

    #[test]
    fn a_failure_keeps_the_validators_and_plans_the_next_visit() {
        let good =
            conclude(&SourceState::default(), &visit(200, full("\"v1\"")), ParseOutcome::SameBytes).state;
        let failure = Failure::new(FailureClass::Timeout, "no answer within 30s");
        let bad = conclude(&good, &visit(200, FetchResult::Failed(failure)), ParseOutcome::NotParsed);
        assert_eq!(bad.class, Some(FailureClass::Timeout));
        assert_eq!((bad.state.failures, bad.state.etag.as_deref()), (1, Some("\"v1\"")));
        assert_eq!(bad.state.last_error.as_deref(), Some("timeout: no answer within 30s"));
        assert!(bad.state.next_visit > Some(NOW()));
        let again = conclude(
            &bad.state,
            &visit(304, FetchResult::NotModified { etag: None, last_modified: None }),
            ParseOutcome::NotParsed,
        );
        assert_eq!((again.state.failures, again.state.last_error), (0, None));
        assert_eq!(again.state.etag.as_deref(), Some("\"v1\""), "a 304 without validators changes none");
    }

    #[test]
    fn a_document_that_cannot_be_parsed_keeps_the_old_validators() {
        let good =
            conclude(&SourceState::default(), &visit(200, full("\"v1\"")), ParseOutcome::SameBytes).state;
        let parsed = ParseOutcome::Failed { class: FailureClass::NotAFeed, message: "an HTML page".into() };
        let bad = conclude(&good, &visit(200, full("\"v2\"")), parsed);
        assert_eq!((bad.state.etag.as_deref(), bad.class), (Some("\"v1\""), Some(FailureClass::NotAFeed)));
    }

    #[test]
    fn the_third_410_in_a_row_makes_visits_days_apart_and_a_success_in_between_does_not() {
        let mut state = SourceState::default();
        for _ in 0..2 {
            state = conclude(&state, &visit(410, FetchResult::Gone), ParseOutcome::NotParsed).state;
            assert!(state.next_visit < Some(NOW().plus(UNCONDITIONAL_EVERY)));
        }
        let healed = conclude(&state, &visit(200, full("\"v\"")), ParseOutcome::SameBytes).state;
        assert_eq!(healed.gone_in_a_row, 0);
        let gone = conclude(&state, &visit(410, FetchResult::Gone), ParseOutcome::NotParsed).state;
        assert_eq!((gone.gone_in_a_row, gone.last_status), (3, Some(VisitStatus::Gone)));
        assert!(gone.next_visit >= Some(NOW().plus(UNCONDITIONAL_EVERY * 7)), "{}", gone.why);
    }

    #[test]
    fn a_failing_feed_is_retried_no_sooner_than_it_was_visited_while_it_worked() {
        let day = UNCONDITIONAL_EVERY;
        let hours = |n: u32| day / 24 * n;
        let fresh = FetchReport { cache: fresh(hours(6)), ..visit(200, full("\"v1\"")) };
        let worked = conclude(&SourceState::default(), &fresh, ParseOutcome::SameBytes).state;
        assert!(worked.next_visit >= Some(NOW().plus(hours(6))));
        let mut state = worked;
        for failures in [1, 2] {
            let failure = Failure::new(FailureClass::Timeout, "no answer within 30s");
            let failed = visit(0, FetchResult::Failed(failure));
            state = conclude(&state, &failed, ParseOutcome::NotParsed).state;
            assert!(state.next_visit >= Some(NOW().plus(hours(6) * failures)), "{}", state.why);
        }
    }

    #[test]
    fn a_bare_304_is_fresh_as_long_as_the_document_was() {
        let hour = UNCONDITIONAL_EVERY / 24;
        let cached = |code, answer, cache| FetchReport { cache, ..visit(code, answer) };
        let same = || FetchResult::NotModified { etag: None, last_modified: None };
        let since = |state: &SourceState| state.next_visit.unwrap().since(NOW());
        let first = cached(200, full("\"v1\""), Freshness { age: hour, ..fresh(hour * 8) });
        let first = conclude(&SourceState::default(), &first, ParseOutcome::SameBytes).state;
        let bare = |age| cached(304, same(), Freshness { age, ..Freshness::default() });
        for age in [Duration::ZERO, hour * 2] {
            let renewed = conclude(&first, &bare(age), ParseOutcome::NotParsed).state;
            assert!(since(&renewed) >= hour * 8 - age && since(&renewed) < hour * 9 - age, "{}", renewed.why);
            let again = conclude(&renewed, &bare(Duration::ZERO), ParseOutcome::NotParsed).state;
            assert!(since(&again) >= hour * 8, "{}", again.why);
        }
        let shorter = conclude(&first, &cached(304, same(), fresh(hour * 3)), ParseOutcome::NotParsed).state;
        assert!(since(&shorter) >= hour * 3 && since(&shorter) < hour * 4, "{}", shorter.why);
        let taken_back = Freshness { is_stated: true, ..Freshness::default() };
        let taken_back = conclude(&shorter, &cached(304, same(), taken_back), ParseOutcome::NotParsed).state;
        let later = conclude(&taken_back, &bare(Duration::ZERO), ParseOutcome::NotParsed).state;
        assert!(since(&later) < hour * 2, "{}", later.why);
        // Expires is a date, which a 304 without it does not move.
        let dated = cached(200, full("\"v1\""), Freshness { is_by_date: true, ..fresh(hour * 8) });
        let dated = conclude(&SourceState::default(), &dated, ParseOutcome::SameBytes).state;
        assert_eq!(dated.fresh_until, Some(NOW().plus(hour * 8)));
        let expired = SourceState { fresh_until: Some(Timestamp::from_millis(NOW().millis() - 1)), ..dated };
        let renewed = conclude(&expired, &bare(Duration::ZERO), ParseOutcome::NotParsed).state;
        assert!(since(&renewed) < hour * 2, "{}", renewed.why);
    }

    #[test]
    fn items_that_turn_out_to_be_new_make_the_next_visit_sooner() {
        let document = |dates: &[Option<i64>]| {
            let item = |(n, minutes): (usize, &Option<i64>)| {
                let date = minutes.map(|ago| Timestamp::from_millis(NOW().millis() - ago * 60_000));
                let date = date.map_or(String::new(), |date| format!("<pubDate>{date}</pubDate>"));
                format!("<item><title>{n}</title><guid>{n}</guid>{date}</item>")
            };
            let items: String = dates.iter().enumerate().map(item).collect();
            let text = format!("<rss version='2.0'><channel><title>t</title>{items}</channel></rss>");
            ParseOutcome::Document(Box::new(feed::read(text.as_bytes(), &feed::Hints::default()).unwrap()))
        };
        let slow = || FetchReport { cache: fresh(UNCONDITIONAL_EVERY), ..visit(200, full("\"v\"")) };
        let ago = |minutes: i64| Some(Timestamp::from_millis(NOW().millis() - minutes * 60_000));
        let known = SourceState { last_success: ago(600), last_visit: ago(600), ..SourceState::default() };
        let needed = |before: &SourceState, dates: &[Option<i64>]| {
            let outcome = conclude(before, &slow(), document(dates));
            assert!(
                outcome.state.next_visit >= Some(NOW().plus(UNCONDITIONAL_EVERY)),
                "{}",
                outcome.state.why
            );
            outcome
                .plan
                .sooner
                .map(|sooner| (sooner.items, sooner.at.since(NOW()).as_secs() / 60, sooner.why))
        };
        let why = |items| format!("in 5m: {items} items in the last hour, not the 24h of max-age or Expires");
        let silent = SourceState { last_news: ago(600), ..known.clone() };
        assert_eq!(
            needed(&silent, &[Some(5), Some(20)]),
            Some((1, 5, why(2))),
            "dates, if a visit confirms them"
        );
        assert_eq!(needed(&known, &[None, None]), Some((2, 5, why(2))), "without dates, two that are new");
        assert_eq!(needed(&silent, &[Some(300), Some(400)]), None, "two that are new, but hours old");
        assert_eq!(needed(&SourceState::default(), &[None, None]), None, "at a first visit all are new");
        let recently = SourceState { last_success: ago(20), ..silent.clone() };
        assert_eq!(needed(&recently, &[Some(300), Some(400)]), Some((2, 5, why(2))), "wrong dates");
        let mut after_one = SourceState { last_news: ago(20), ..recently };
        after_one.news.note(1, ago(40).unwrap(), ago(20).unwrap());
        assert_eq!(needed(&after_one, &[Some(300), Some(400)]), Some((1, 5, why(2))));
    }

    #[test]
    fn news_after_the_daemon_or_the_server_was_down_end_no_silence_of_the_source() {
        let watched = |last_success: Option<Timestamp>| {
            let before = SourceState { last_success, ..SourceState::default() };
            conclude(&before, &visit(200, full("x")), ParseOutcome::NotParsed).plan.was_watched
        };
        let hours_ago = |hours: i64| Some(Timestamp::from_millis(NOW().millis() - hours * 3_600_000));
        let found = [None, hours_ago(0), hours_ago(26), hours_ago(48), hours_ago(49)].map(watched);
        assert_eq!(found, [false, true, true, true, false]);
        let mut slow = source();
        slow.every = Some(Duration::from_secs(7 * 86_400));
        let before = SourceState { last_success: hours_ago(8 * 24), ..SourceState::default() };
        let inputs = VisitInputs {
            source: &slow,
            before: &before,
            is_early: false,
            request_hash: 0,
            interval_bounds: IntervalBounds::default(),
            now: NOW(),
            took: Duration::ZERO,
            jitter: 0.5,
        };
        assert!(was_watched(inputs), "it is visited once a week");
    }

    #[test]
    fn every_way_a_visit_ends_has_a_reason_for_the_next() {
        let failed = FetchResult::Failed(Failure::new(FailureClass::Dns, "no such name"));
        let same = FetchResult::NotModified { etag: None, last_modified: None };
        for (code, answer) in [
            (200, full("x")),
            (304, same),
            (429, FetchResult::Throttled),
            (410, FetchResult::Gone),
            (0, failed),
        ] {
            let outcome = conclude(&SourceState::default(), &visit(code, answer), ParseOutcome::SameBytes);
            assert!(!outcome.state.why.is_empty() && outcome.state.next_visit.is_some(), "{code}");
        }
        let source = source();
        let before = SourceState::default();
        let took = Duration::ZERO;
        let (request_hash, interval_bounds) = (request_hash(&source, 0), IntervalBounds::default());
        let inputs = VisitInputs {
            source: &source,
            before: &before,
            is_early: false,
            request_hash,
            interval_bounds,
            now: NOW(),
            took,
            jitter: 0.5,
        };
        let crashed = VisitOutcome::panicked(inputs, "index out of bounds");
        assert!(crashed.state.next_visit > Some(NOW()));
        assert_eq!(crashed.state.last_error.as_deref(), Some("panic: index out of bounds"));
    }

    #[test]
    fn a_local_outage_is_not_counted_against_the_feed() {
        let good =
            conclude(&SourceState::default(), &visit(200, full("\"v1\"")), ParseOutcome::SameBytes).state;
        let failed = || visit(0, FetchResult::Failed(Failure::new(FailureClass::Dns, "no answer")));
        let source = source();
        let mut state = good;
        for _ in 0..5 {
            let mut outcome = conclude(&state, &failed(), ParseOutcome::NotParsed);
            let (interval_bounds, took) = (IntervalBounds::default(), Duration::ZERO);
            let request_hash = request_hash(&source, 0);
            let before = &state;
            let inputs = VisitInputs {
                source: &source,
                before,
                is_early: false,
                request_hash,
                interval_bounds,
                now: NOW(),
                took,
                jitter: 1.0,
            };
            let mut ours = conclude(&state, &failed(), ParseOutcome::NotParsed);
            ours.exempt(inputs, Exemption::LostTime);
            assert!(ours.state.next_visit <= Some(NOW().plus(interval_bounds.interval_min * 2)), "soon");
            assert_eq!((ours.state.failures, ours.ended), (0, None), "it says nothing about the feed");
            outcome.exempt(inputs, Exemption::LocalOutage);
            assert!(outcome.ended.is_some(), "an outage is told");
            assert!(outcome.state.next_visit <= Some(NOW().plus(EXEMPT_WAIT_MAX)));
            assert!(outcome.state.why.starts_with("local outage"), "{}", outcome.state.why);
            state = outcome.state;
        }
        assert_eq!(state.failures, 0);
    }

    #[test]
    fn a_slow_document_puts_its_source_into_quarantine_until_one_is_fast() {
        let source = source();
        let before = SourceState::default();
        let (interval_bounds, took) = (IntervalBounds::default(), Duration::ZERO);
        let request_hash = request_hash(&source, 0);
        let inputs = VisitInputs {
            source: &source,
            before: &before,
            is_early: false,
            request_hash,
            interval_bounds,
            now: NOW(),
            took,
            jitter: 0.5,
        };
        let mut outcome = conclude(&before, &visit(200, full("x")), ParseOutcome::SameBytes);
        outcome.apply_quarantine(inputs);
        let usual = outcome.state.next_visit;
        assert!(outcome.check_parse_time(PARSE_SLOW * 2));
        outcome.apply_quarantine(inputs);
        assert!(outcome.state.next_visit >= Some(NOW().plus(interval_bounds.interval_max * 9 / 10)));
        assert_eq!(outcome.state.why, "in quarantine (its document took 4s to parse): every 24h");
        let mut again = conclude(&outcome.state, &visit(200, full("x")), ParseOutcome::SameBytes);
        assert!(!again.check_parse_time(PARSE_SLOW / 2));
        again.apply_quarantine(inputs);
        assert!(again.state.next_visit < outcome.state.next_visit && usual.is_some());
    }
}
