//! When sources that are about to start are visited first: spread over time, so that a start causes no burst.

use fetch::schedule::{
    IntervalBounds, Next, PlannedVisit, catch_up, defer_past_skip_windows, first_visit, is_confirmed_gone,
    server_interval_max,
};
use news::{Source, SourceState, Timestamp};
use notation::humanize;

use crate::{
    queue::host::Host,
    visit::{context::VisitContext, crash_guard::CRASHES_MAX},
};

/// Gives each new source a first visit and each overdue one its own next visit.
pub(super) fn plan_first_visits(
    mut sources: Vec<(Source, SourceState)>,
    now: Timestamp,
    bounds: IntervalBounds,
) -> Vec<(Source, SourceState)> {
    let is_new = |source: &Source, state: &SourceState| source.enabled && state.last_visit.is_none();
    let total = sources.iter().filter(|(source, state)| is_new(source, state)).count();
    let new = sources.iter_mut().filter(|(source, state)| is_new(source, state));
    for (index, (_, state)) in new.enumerate() {
        let first = first_visit(now, index, total, bounds);
        (state.next_visit, state.why) = (first.at, first.why);
    }
    let known = |(index, (source, state)): (usize, &(Source, SourceState))| {
        let next = state.next_visit.filter(|_| source.enabled && state.last_visit.is_some())?;
        Some((
            index,
            PlannedVisit { last: state.last_visit, next, is_gone: is_confirmed_gone(state.gone_in_a_row) },
        ))
    };
    let (indexes, known): (Vec<_>, Vec<_>) = sources.iter().enumerate().filter_map(known).unzip();
    for (index, at) in catch_up(now, &known, bounds) {
        let state = &mut sources[indexes[index]].1;
        let next = Next { at: Some(at), why: "due since before the start".to_owned() };
        let rhythm = &state.rhythm;
        let next = defer_past_skip_windows(next, rhythm.skip_hours, rhythm.skip_days, fastrand::f64());
        (state.next_visit, state.why) = (next.at, next.why);
    }
    sources
}

/// Restores a source from its stored state: a pause that is over ends, a host that asked for a pause gets it, and a
/// source whose document was being parsed at several crashes of the process goes into quarantine.
pub(super) fn restore_state(
    ctx: &VisitContext,
    source: Source,
    mut state: SourceState,
    now: Timestamp,
) -> (Source, SourceState) {
    let bounds = ctx.interval_bounds.get();
    state.paused = state.paused.filter(|pause| pause.is_active(now));
    let latest = now.plus(server_interval_max(bounds));
    if let Some(until) = state.host_asked_until.filter(|until| now < *until && *until <= latest) {
        ctx.limiter.hold(&Host::of(source.url.secret()), until.since(now));
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
    (source, state)
}
