//! Step 1 of the life of an item: a visit is due. One actor per source, with its own timer.
//!
//! ```text
//! idle ──due──► waiting (limiter) ──► fetching ──► parsing ──► recording ──► finish ──► idle
//! ```
//!
//! The visit runs as a future of this actor, so stopping the actor cancels it. A panic in it costs that visit only.
//! Between visits nothing is kept but the entry of the source.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message,
    ResponseActFuture, SpawnHandle, WrapFuture as _,
};
use control::black_box::BlackBoxEvent;
use daemon::{black_box, work};
use news::{Cursor, Pause, SourceNotice, Timestamp, VisitReport, VisitStatus};
use store::AppendedVisit;

use super::{
    context::VisitContext,
    log::{log_certificate, log_flooding, log_hub, log_quarantine, log_quiet, log_redirect, log_result},
    outcome::VisitOutcome,
    run_visit::{RecordedVisit, record_document, run_visit},
};
use crate::{
    documents::FetchedDocument,
    messages::Stop,
    status::{activity::Activity, registry::SourceEntry},
    websub::{
        messages::{SourceVisited, VisitFindings},
        subscription,
    },
};

/// How often a paused source checks whether its pause is over: the clock may have been set, or the machine asleep.
const PAUSE_CHECK_EVERY: Duration = Duration::from_secs(60);

/// Visits one source.
pub(crate) struct SourceActor {
    entry: Arc<SourceEntry>,
    ctx: Rc<VisitContext>,
    timer: Option<SpawnHandle>,
    is_visiting: bool,
    /// Stop at the end of the visit: the source has changed in the catalogue.
    stops_after_visit: bool,
    /// What takes the place of the first visit. Boxed: hardly any source has one, and each actor would be 600 bytes larger.
    document: Option<Box<FetchedDocument>>,
}

/// Visit now, ahead of schedule. A visit in progress satisfies the request.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct VisitNow;

/// The next visit was rescheduled, or a pause began or ended: reset the timer. A visit in progress continues.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Reschedule;

/// Stop at the end of the visit in progress, or now if there is none.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct StopAfterVisit;

/// Answered with an error when the actor has ended.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct AwaitEnd;

impl SourceActor {
    pub(crate) fn new(entry: Arc<SourceEntry>, ctx: Rc<VisitContext>) -> Self {
        Self { entry, ctx, timer: None, is_visiting: false, stops_after_visit: false, document: None }
    }

    /// Begins with a document that was fetched for the source before it was listed.
    pub(crate) fn with_document(self, document: Option<FetchedDocument>) -> Self {
        Self { document: document.map(Box::new), ..self }
    }

    fn schedule(&mut self, actor_ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            actor_ctx.cancel_future(timer);
        }
        if let Some(pause) = self.entry.pause() {
            return self.wait_for_resume(pause, actor_ctx);
        }
        let Some(due) = self.entry.next_visit() else { return };
        let wait = due.since(self.ctx.now());
        self.timer = Some(actor_ctx.run_later(wait, move |actor, actor_ctx| {
            actor.timer = None;
            actor.begin(Some(due), actor_ctx);
        }));
    }

    /// No visit before the pause is over; a visit that was due meanwhile is due then.
    fn wait_for_resume(&mut self, pause: Pause, actor_ctx: &mut Context<Self>) {
        let Some(until) = pause.until else { return };
        let wait = until.since(self.ctx.now()).min(PAUSE_CHECK_EVERY);
        self.timer = Some(actor_ctx.run_later(wait, move |actor, actor_ctx| {
            actor.timer = None;
            let now = actor.ctx.now();
            // Unless another pause was set meanwhile.
            if actor.entry.pause().as_ref() == Some(&pause) && !pause.is_active(now) {
                actor.entry.end_pause(now);
                tracing::info!(source = %actor.entry.source.id, "pause ended");
            }
            actor.schedule(actor_ctx);
        }));
    }

    /// `due` is when the visit should have started; `None` for a visit ahead of schedule.
    fn begin(&mut self, due: Option<Timestamp>, actor_ctx: &mut Context<Self>) {
        if self.is_visiting {
            return;
        }
        if self.entry.is_paused() {
            return self.schedule(actor_ctx);
        }
        let visit = run_visit(Rc::clone(&self.ctx), Arc::clone(&self.entry), due);
        self.run(visit, actor_ctx);
    }

    fn run(
        &mut self,
        visit: impl Future<Output = Option<RecordedVisit>> + 'static,
        actor_ctx: &mut Context<Self>,
    ) {
        self.is_visiting = true;
        let id: Arc<str> = self.entry.source.id.as_str().into();
        let visit = work::during("visiting", id, visit).into_actor(self).map(|recorded, actor, actor_ctx| {
            actor.is_visiting = false;
            if let Some(recorded) = recorded {
                actor.finish(recorded);
                if actor.stops_after_visit {
                    return actor_ctx.stop();
                }
                // Ordered after this visit had sent its request.
                if actor.entry.is_full_visit_ordered() {
                    return actor.begin(None, actor_ctx);
                }
                actor.schedule(actor_ctx);
            } else if actor.stops_after_visit {
                actor_ctx.stop();
            } else if actor.entry.is_paused() {
                actor.entry.set_activity(Activity::Idle, actor.ctx.now());
                actor.schedule(actor_ctx);
            }
        });
        actor_ctx.spawn(visit);
    }

    /// The one place where a visit ends: state, metrics, log lines, notice.
    fn finish(&mut self, recorded: RecordedVisit) {
        let RecordedVisit { outcome, appended, started, took } = recorded;
        let _at_work = work::on("settling", self.entry.source.id.as_str());
        let before = self.entry.state();
        let after = appended.state.clone();
        let status = after.last_status.unwrap_or(VisitStatus::Error);
        if let Some(seq) = appended.last {
            self.entry.set_last_event(Cursor { epoch: self.ctx.epoch.clone(), seq });
        }
        let report = VisitReport {
            source: self.entry.source.id.clone(),
            status,
            new: appended.new,
            updated: appended.updated,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            next_visit: after.next_visit,
            why: after.why.clone(),
            error: after.last_error.clone(),
        };
        self.count(&outcome, &appended, status, took);
        black_box::record(BlackBoxEvent::VisitEnded {
            source: report.source.as_str().into(),
            outcome: status.as_str().into(),
            ms: report.took_ms,
        });
        if !outcome.is_exempt {
            log_result(&report, before.failures, &appended, &self.ctx.epoch);
        }
        log_quarantine(&report.source, &before, &after);
        if let Some(change) = &outcome.redirect_change {
            log_redirect(&self.entry.source, change);
        }
        if after.guids_flap && !before.guids_flap {
            tracing::warn!(source = %report.source, held = appended.held, "guids or links flap; items are matched by what else they have");
        }
        if after.updates_damped && !before.updates_damped {
            tracing::warn!(source = %report.source, absorbed = appended.absorbed, "updates damped; many items change at most visits");
        }
        log_flooding(&report.source, &before, &after, appended.lost);
        log_hub(&report.source, &before, &after);
        log_quiet(&report.source, &before, &after);
        log_certificate(&report.source, &before, &after);
        self.entry.set_state(after);
        if let Some(ended) = outcome.ended {
            self.entry.set_ended(ended);
        }
        self.entry.set_activity(Activity::Idle, self.ctx.now());
        let found = appended.new.saturating_add(appended.updated);
        let visit = VisitFindings { started, found, is_healthy: status.is_healthy() };
        // What waited, and the rest of a document that was cut off, may have been there at the visit before.
        let was_complete = before.flooding.is_none() && before.last_status != Some(VisitStatus::Partial);
        self.report_to_websub(visit, was_complete && appended.new > 0, before.last_success);
        let notice = SourceNotice { report, health: self.entry.full_status() };
        let json = serde_json::to_string(&notice).expect("every field of a notice has a JSON form");
        // An error means that no gateway is connected.
        self.ctx.notices.send(wire::Notice::Source(json.into())).ok();
    }

    /// If the feed has something that it did not have when it was last seen: checks whether the hub had announced it.
    fn report_to_websub(&self, visit: VisitFindings, has_news: bool, last_seen: Option<Timestamp>) {
        let Some(websub) = &self.ctx.websub else { return };
        let now = self.ctx.now();
        let missed = has_news
            && self.entry.update_subscription(|subscription| {
                subscription::detect_missed_push(subscription, now, last_seen)
            }) == Some(true);
        if missed {
            self.ctx.metrics.websub.missed.inc();
            tracing::info!(source = %self.entry.source.id, "hub did not push new items; visits as often as without it");
        }
        if self.entry.has_websub() {
            // With a full mailbox, the next periodic review finds it.
            websub.try_send(SourceVisited { source: self.entry.source.id.clone(), visit }).ok();
        }
    }

    fn count(&self, outcome: &VisitOutcome, appended: &AppendedVisit, status: VisitStatus, took: Duration) {
        let metrics = &self.ctx.metrics;
        metrics.visits.get_or_create(&[("status", status.as_str())]).inc();
        if let Some(class) = outcome.class {
            metrics.failures.get_or_create(&[("class", class.as_str())]).inc();
        }
        metrics.items.get_or_create(&[("kind", "item")]).inc_by(u64::from(appended.new));
        metrics.items.get_or_create(&[("kind", "update")]).inc_by(u64::from(appended.updated));
        metrics.items_dropped.inc_by(outcome.dropped as u64);
        metrics.items_held.inc_by(u64::from(appended.held));
        metrics.items_forgotten.inc_by(u64::from(appended.forgotten));
        metrics.updates_absorbed.inc_by(u64::from(appended.absorbed));
        metrics.items_deferred.inc_by(u64::from(appended.deferred));
        metrics.bytes_deferred.inc_by(appended.deferred_bytes);
        metrics.items_lost.inc_by(u64::from(appended.lost));
        metrics.visit_seconds.observe(took.as_secs_f64());
        if outcome.state.quarantine.is_some() && self.entry.quarantine().is_none() {
            metrics.quarantines.get_or_create(&[("for", "slow")]).inc();
        }
    }
}

impl Actor for SourceActor {
    type Context = Context<Self>;

    fn started(&mut self, actor_ctx: &mut Self::Context) {
        self.entry.set_activity(Activity::Idle, self.ctx.now());
        match self.document.take() {
            Some(document) => {
                let visit = record_document(Rc::clone(&self.ctx), Arc::clone(&self.entry), *document);
                self.run(visit, actor_ctx);
            }
            None => self.schedule(actor_ctx),
        }
    }
}

impl Handler<VisitNow> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: VisitNow, actor_ctx: &mut Self::Context) {
        if let Some(timer) = self.timer.take() {
            actor_ctx.cancel_future(timer);
        }
        self.begin(None, actor_ctx);
    }
}

impl Handler<Reschedule> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: Reschedule, actor_ctx: &mut Self::Context) {
        if !self.is_visiting {
            self.schedule(actor_ctx);
        }
    }
}

impl Handler<StopAfterVisit> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: StopAfterVisit, actor_ctx: &mut Self::Context) {
        self.stops_after_visit = true;
        if !self.is_visiting {
            actor_ctx.stop();
        }
    }
}

/// The answer is dropped with the actor.
impl Handler<AwaitEnd> for SourceActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: AwaitEnd, _: &mut Self::Context) -> Self::Result {
        Box::pin(std::future::pending().into_actor(self))
    }
}

/// A visit in progress is cancelled.
impl Handler<Stop> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: Stop, actor_ctx: &mut Self::Context) {
        actor_ctx.stop();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes the actor panic, as a bug in one of its handlers would.
    #[derive(Clone, Copy, Debug, Message)]
    #[rtype(result = "()")]
    pub(crate) struct Die;

    impl Handler<Die> for SourceActor {
        type Result = ();

        fn handle(&mut self, _: Die, _: &mut Self::Context) {
            panic!("told to die");
        }
    }
}
