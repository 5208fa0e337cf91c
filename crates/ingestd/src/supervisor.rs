//! The supervisor: runs one source actor per source, and passes orders on to them.
//!
//! Its other jobs are in separate files: [`catalogue`] applies a new catalogue, [`new_beginning`] decides what a changed
//! source keeps, [`first_visits`] plans the visits of sources that are about to start, [`leaving`] ends those that another
//! daemon visits, [`liveness`] rebuilds dead actors, [`clock_jump`] reschedules after a jump of the clock.

mod catalogue;
mod clock_jump;
mod coming_pauses;
mod first_visits;
mod leaving;
mod liveness;
mod new_beginning;

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, Addr, AsyncContext as _, Context, Handler, MessageResult,
    Recipient, ResponseActFuture, ResponseFuture, WrapFuture as _,
};
use control::{PauseAnswer, VisitAnswer};
use fetch::{HeldHop, HopGate as _};
use news::{Pause, Source, SourceId, SourceState};
use tokio::time::Instant;

use self::coming_pauses::ComingPauses;
use crate::{
    clock_reading::ClockReading,
    documents::{FetchedDocument, FetchedDocuments},
    messages::{
        LogClosed, RecordPauses, RecordRemovals, RecordSubscriptions, SetPause, Stop, TakeTurn, VisitSources,
    },
    queue::limiter::Priority,
    status::registry::{SourceEntry, SourceRegistry},
    visit::{
        context::VisitContext,
        hops::PacedHops,
        source_actor::{Reschedule, SourceActor, VisitNow},
    },
    websub::messages::ReviewSubscriptions,
};

/// How often dead actors and jumps of the clock are looked for.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// Runs one actor per source.
pub(crate) struct Supervisor {
    ctx: Rc<VisitContext>,
    registry: SourceRegistry,
    record_pauses: Recipient<RecordPauses>,
    record_removals: Recipient<RecordRemovals>,
    record_subscriptions: Recipient<RecordSubscriptions>,
    /// Notified when the catalogue changed; `None` while WebSub is off.
    websub: Option<Recipient<ReviewSubscriptions>>,
    /// States, as the store has them, of sources that are about to start.
    stored_states: HashMap<SourceId, SourceState>,
    /// As in the last [`ApplyCatalogue`](crate::messages::ApplyCatalogue).
    request_hashes: HashMap<SourceId, u64>,
    /// Whether a catalogue was applied since the start.
    has_catalogue: bool,
    sources: BTreeMap<SourceId, SupervisedSource>,
    /// Changed sources that start as soon as the visit in progress of the old one has ended.
    replacements: BTreeMap<SourceId, Source>,
    /// Sources of the list that another daemon visits: those of the last catalogue, and those that have left since.
    elsewhere: BTreeMap<SourceId, Source>,
    /// Where the next liveness check continues.
    last_checked: Option<SourceId>,
    clock_reading: ClockReading,
    check_every: Duration,
    /// Of sources that are about to be listed.
    documents: FetchedDocuments,
    coming_pauses: ComingPauses,
}

struct SupervisedSource {
    entry: Arc<SourceEntry>,
    /// `None` for a disabled source.
    actor: Option<Addr<SourceActor>>,
    /// When the dead actor is rebuilt.
    rebuild_at: Option<Instant>,
}

impl SupervisedSource {
    fn is_leaving(&self) -> bool {
        self.entry.is_leaving()
    }

    fn is_dead(&self) -> bool {
        self.actor.as_ref().is_some_and(|actor| !actor.connected())
    }
}

impl Supervisor {
    pub(crate) fn new(
        ctx: Rc<VisitContext>,
        registry: SourceRegistry,
        record_pauses: Recipient<RecordPauses>,
        record_removals: Recipient<RecordRemovals>,
        record_subscriptions: Recipient<RecordSubscriptions>,
        websub: Option<Recipient<ReviewSubscriptions>>,
    ) -> Self {
        Self {
            clock_reading: ClockReading::now(&ctx.clock),
            ctx,
            registry,
            record_pauses,
            record_removals,
            record_subscriptions,
            websub,
            stored_states: HashMap::new(),
            request_hashes: HashMap::new(),
            has_catalogue: false,
            sources: BTreeMap::new(),
            replacements: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            last_checked: None,
            check_every: CHECK_EVERY,
            documents: FetchedDocuments::default(),
            coming_pauses: ComingPauses::default(),
        }
    }

    /// A supervisor that takes these documents for the first visits of new sources.
    pub(crate) fn with_documents(self, documents: FetchedDocuments) -> Self {
        Self { documents, ..self }
    }

    /// A supervisor that checks less often: on simulated time each check costs a moment of real time.
    #[cfg(test)]
    pub(crate) fn checking_every(self, check_every: Duration) -> Self {
        Self { check_every, ..self }
    }

    fn start_source(&mut self, source: Source, state: SourceState, document: Option<FetchedDocument>) {
        let entry = Arc::new(SourceEntry::new(Arc::new(source), state));
        self.registry.insert(Arc::clone(&entry));
        let actor = entry.source.enabled.then(|| self.start_actor(&entry, document));
        self.sources.insert(entry.source.id.clone(), SupervisedSource { entry, actor, rebuild_at: None });
    }

    fn start_actor(&self, entry: &Arc<SourceEntry>, document: Option<FetchedDocument>) -> Addr<SourceActor> {
        SourceActor::new(Arc::clone(entry), Rc::clone(&self.ctx)).with_document(document).start()
    }

    /// Stops the actor and forgets the source; returns its last state.
    fn remove_source(&mut self, id: &SourceId) -> Option<SourceState> {
        let supervised = self.sources.remove(id)?;
        self.registry.remove(id);
        if let Some(actor) = supervised.actor {
            // With a full mailbox the actor stops when its address, the last one, is dropped here.
            actor.try_send(Stop).ok();
        }
        Some(supervised.entry.state())
    }

    /// The sources whose pause the order changes, and why not that of the others.
    fn check_pause(&self, order: &SetPause) -> (Vec<SourceId>, PauseAnswer) {
        let (mut ids, mut answer) = (Vec::new(), PauseAnswer::default());
        for id in &order.ids {
            match self.sources.get(id.as_str()) {
                None => answer.unknown.push(id.clone()),
                Some(supervised) if supervised.actor.is_none() => answer.disabled.push(id.clone()),
                Some(supervised) if order.pause.is_none() && !supervised.entry.is_paused() => {
                    answer.idle.push(id.clone());
                }
                Some(supervised) => {
                    ids.push(supervised.entry.source.id.clone());
                    answer.done.push(id.clone());
                }
            }
        }
        (ids, answer)
    }

    /// Sets or ends the pause in the entry of the source, and has its actor reschedule.
    fn apply_pause(&self, id: &SourceId, pause: Option<&Pause>) {
        let Some(supervised) = self.sources.get(id) else { return };
        match pause {
            Some(pause) => supervised.entry.set_pause(pause.clone()),
            None => supervised.entry.end_pause(self.ctx.now()),
        }
        if let Some(actor) = supervised.actor.clone() {
            // Waits for room in the mailbox. A dead actor is rebuilt, and reads the entry then.
            actix_rt::spawn(async move { actor.send(Reschedule).await.ok() });
        }
    }

    /// Has the gateways read the list of sources again.
    fn announce_catalogue(&self) {
        // An error means that no gateway is connected.
        self.ctx.notices.send(wire::Notice::Catalogue).ok();
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, actor_ctx: &mut Self::Context) {
        actor_ctx.spawn(self.ctx.limiter.clone().run_timers().into_actor(self));
        actor_ctx.run_interval(self.check_every, |supervisor, _| {
            supervisor.start_replacements();
            supervisor.check_liveness();
            supervisor.ctx.limiter.remove_idle_hosts();
            supervisor.ctx.limiter.check_lease();
            supervisor.check_clock();
            supervisor.documents.remove_expired();
            supervisor.coming_pauses.remove_expired();
        });
    }
}

impl Handler<VisitSources> for Supervisor {
    type Result = MessageResult<VisitSources>;

    fn handle(&mut self, VisitSources(ids): VisitSources, _: &mut Self::Context) -> Self::Result {
        let mut answer = VisitAnswer::default();
        for id in ids {
            let supervised = self.sources.get(id.as_str());
            let group = match supervised.map(|supervised| (&supervised.entry, &supervised.actor)) {
                None => &mut answer.unknown,
                // Another daemon visits it in a moment.
                Some((entry, _)) if entry.is_leaving() => &mut answer.busy,
                Some((_, None)) => &mut answer.disabled,
                Some((entry, Some(_))) if entry.is_paused() => &mut answer.paused,
                Some((entry, Some(actor))) => match actor.try_send(VisitNow) {
                    Ok(()) => {
                        entry.lift_quarantine();
                        &mut answer.accepted
                    }
                    Err(_) => &mut answer.busy,
                },
            };
            group.push(id);
        }
        MessageResult(answer)
    }
}

impl Handler<TakeTurn> for Supervisor {
    type Result = ResponseFuture<Result<(), HeldHop>>;

    fn handle(&mut self, TakeTurn(url): TakeTurn, _: &mut Self::Context) -> Self::Result {
        let hops = PacedHops::to_hub(&self.ctx, Priority::Normal);
        // How long the request lasts is not known here: it counts for the spacing only.
        Box::pin(async move { hops.enter(&url).await })
    }
}

impl Handler<SetPause> for Supervisor {
    type Result = ResponseActFuture<Self, Result<PauseAnswer, LogClosed>>;

    fn handle(&mut self, order: SetPause, _: &mut Self::Context) -> Self::Result {
        let (ids, answer) = self.check_pause(&order);
        let pause = order.pause;
        if let Some(pause) = pause.as_ref().filter(|_| order.is_for_coming) {
            self.coming_pauses.keep(&answer.unknown, pause);
        }
        let pauses = ids.iter().map(|id| (id.clone(), pause.clone())).collect();
        let recorded = self.record_pauses.send(RecordPauses(pauses)).into_actor(self);
        Box::pin(recorded.map(move |recorded, supervisor, _| {
            recorded.map_err(|_| LogClosed).flatten()?;
            for id in &ids {
                supervisor.apply_pause(id, pause.as_ref());
                tracing::debug!(source = %id, paused = pause.is_some(), "source paused or resumed");
            }
            let (sources, paused) = (answer.done.len(), pause.is_some());
            tracing::info!(sources, paused, "sources paused or resumed");
            supervisor.announce_catalogue();
            Ok(answer)
        }))
    }
}

/// Visits in progress are cancelled.
impl Handler<Stop> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Stop, actor_ctx: &mut Self::Context) {
        for id in self.sources.keys().cloned().collect::<Vec<_>>() {
            self.remove_source(&id);
        }
        actor_ctx.stop();
    }
}

#[cfg(test)]
pub(crate) mod tests;
