//! When sources that are about to start are visited first: spread over time, so that a start causes no burst.

use fetch::schedule::{
    IntervalBounds, Next, PlannedVisit, catch_up, first_visit, is_confirmed_gone, server_interval_max,
};
use news::{Source, SourceState, Timestamp};
use notation::humanize;

use super::new_beginning::{Beginning, CatalogueFacts, adapt};
use crate::{
    queue::host::Host,
    visit::{context::VisitContext, crash_guard::CRASHES_MAX, outcome::defer_overdue, redirects::url_hash},
};

/// A source that is about to start.
pub(super) struct StartingSource {
    pub(super) source: Source,
    pub(super) state: SourceState,
    beginning: Beginning,
}

/// Gives each new source a first visit and each overdue one its own next visit.
pub(super) fn plan_first_visits(sources: &mut [StartingSource], now: Timestamp, bounds: IntervalBounds) {
    let is_new = |starting: &StartingSource| starting.source.enabled && starting.state.last_visit.is_none();
    let total = sources.iter().filter(|starting| is_new(starting)).count();
    for (index, StartingSource { state, .. }) in
        sources.iter_mut().filter(|starting| is_new(starting)).enumerate()
    {
        let first = first_visit(now, index, total, bounds);
        // Later only if the server has asked for that.
        state.next_visit = state.next_visit.max(first.at);
        if state.why.is_empty() {
            state.why = first.why;
        }
    }
    let known = |(index, StartingSource { source, state, .. }): (usize, &StartingSource)| {
        let next = state.next_visit.filter(|_| source.enabled && state.last_visit.is_some())?;
        let is_gone = is_confirmed_gone(state.gone_in_a_row);
        Some((index, PlannedVisit { last: state.last_visit, next, is_gone }))
    };
    let (indexes, known): (Vec<_>, Vec<_>) = sources.iter().enumerate().filter_map(known).unzip();
    for (index, at) in catch_up(now, &known, bounds) {
        let StartingSource { source, state, beginning } = &mut sources[indexes[index]];
        let why = match beginning {
            Beginning::Planned => std::mem::take(&mut state.why),
            Beginning::Same | Beginning::New => "due since before the start".to_owned(),
        };
        let next = Next { at: Some(at), why };
        let next = defer_overdue(next, source, state, bounds, now, fastrand::f64());
        (state.next_visit, state.why) = (next.at, next.why);
    }
}

/// Restores a source from its stored state: what belongs to another address is dropped, a pause that is over ends, a host
/// that asked for a pause gets it, and a source whose document was being parsed at several crashes of the process goes into
/// quarantine.
pub(super) fn restore_state(
    ctx: &VisitContext,
    source: Source,
    mut state: SourceState,
    facts: CatalogueFacts,
    now: Timestamp,
) -> StartingSource {
    let bounds = ctx.interval_bounds.get();
    let waiting = state.flooding.as_ref().map_or(0, |flooding| flooding.flooding.waiting_items);
    let has_same_url = state.moves.home == url_hash(&source.url);
    let beginning = adapt(&mut state, &source, facts, bounds, now);
    if beginning == Beginning::New {
        ctx.crash_guard.forget(&source.id);
    }
    if waiting > 0 && !has_same_url && state.flooding.is_none() {
        ctx.metrics.items_lost.inc_by(u64::from(waiting));
        tracing::warn!(source = %source.id, items = waiting, "flooding; items that waited were those of the address before, and are lost");
    }
    state.paused = state.paused.filter(|pause| pause.is_active(now));
    let latest = now.plus(server_interval_max(bounds));
    if let Some(until) = state.host_asked_until.filter(|until| now < *until && *until <= latest) {
        let host = match &state.host_asked {
            Some(name) => Host::named(name),
            // A store of an older version has those of the configured address only.
            None => Host::of(source.url.secret()),
        };
        ctx.limiter.hold(&host, state.last_code.unwrap_or(429), until.since(now));
    }
    let crashes = ctx.crash_guard.crashes_of(&source.id);
    if crashes >= CRASHES_MAX {
        let reason = format!("its document was being parsed at {crashes} crashes of the process");
        tracing::warn!(source = %source.id, reason, "source quarantined");
        ctx.metrics.quarantines.get_or_create(&[("for", "deaths")]).inc();
        state.why = format!("in quarantine ({reason}): every {}", humanize(bounds.interval_max));
        state.quarantine = Some(reason);
        state.next_visit = Some(now.plus(bounds.interval_max));
        // It is not a new source any more, even if none of its visits ever ended.
        state.last_visit.get_or_insert(now);
    }
    StartingSource { source, state, beginning }
}
