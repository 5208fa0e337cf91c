//! Applies a new catalogue: what changed is started, replaced or stopped, and everything else is not disturbed.

use std::collections::{HashMap, HashSet};

use actix::{AsyncContext as _, Handler, MessageResult};
use news::{Source, SourceId};

use super::{
    SupervisedSource, Supervisor,
    first_visits::{StartingSource, plan_first_visits, restore_state},
    new_beginning::{Beginning, CatalogueFacts, has_new_request},
};
use crate::{
    messages::{ApplyCatalogue, CatalogueDiff, OwnSources, RecordPauses, RecordRemovals},
    status::activity::Activity,
    visit::source_actor::{StopAfterVisit, VisitNow},
    websub::messages::ReviewSubscriptions,
};

impl Handler<ApplyCatalogue> for Supervisor {
    type Result = MessageResult<ApplyCatalogue>;

    fn handle(&mut self, message: ApplyCatalogue, actor_ctx: &mut Self::Context) -> Self::Result {
        let ApplyCatalogue { catalogue, stored_states, request_hashes, elsewhere } = message;
        let sources = format!("{} sources", catalogue.sources.len());
        let _at_work = daemon::work::on("taking the catalogue", sources);
        (self.stored_states, self.request_hashes) = (stored_states, request_hashes);
        let removed = self.remove_missing(&catalogue.sources);
        let mut diff = CatalogueDiff { removed, ..CatalogueDiff::default() };
        let mut replaced = std::mem::take(&mut self.replacements);
        let is_reload = std::mem::replace(&mut self.has_catalogue, true);
        let was_elsewhere = std::mem::take(&mut self.elsewhere);
        let (mut to_start, mut to_leave) = (Vec::new(), Vec::new());
        for source in catalogue.sources {
            let is_listed = self.sources.contains_key(&source.id);
            let comes_back = was_elsewhere.contains_key(&source.id);
            match self.sources.get(&source.id) {
                running if elsewhere.contains(&source.id) => {
                    let begins = running.is_some_and(|running| !running.is_leaving());
                    to_leave.extend(begins.then(|| source.id.clone()));
                    self.elsewhere.insert(source.id.clone(), source);
                    diff.unchanged += 1;
                    continue;
                }
                Some(running) if running.is_leaving() => {
                    // It starts when it has left.
                    self.replacements.insert(source.id.clone(), source);
                    diff.unchanged += 1;
                    continue;
                }
                Some(running)
                    if *running.entry.source == source
                        && !replaced.contains_key(&source.id)
                        && !self.has_new_credentials(running) =>
                {
                    diff.unchanged += 1;
                    continue;
                }
                Some(_) if replaced.remove(&source.id).is_some() || self.stop_after_visit(&source.id) => {
                    self.replacements.insert(source.id.clone(), source);
                    diff.changed += 1;
                    continue;
                }
                Some(_) => {
                    if let Some(state) = self.remove_source(&source.id) {
                        self.stored_states.insert(source.id.clone(), state);
                    }
                    diff.changed += 1;
                }
                None if comes_back => diff.unchanged += 1,
                None => diff.added += 1,
            }
            to_start.push((source, is_reload && !is_listed && !comes_back));
        }
        if !to_leave.is_empty() {
            actor_ctx.spawn(self.leave(to_leave, false));
        }
        self.start_sources(to_start);
        self.documents.accept();
        self.note_sources();
        MessageResult(diff)
    }
}

impl Handler<OwnSources> for Supervisor {
    type Result = MessageResult<OwnSources>;

    fn handle(&mut self, _: OwnSources, _: &mut Self::Context) -> Self::Result {
        let here = self.sources.iter().filter(|(id, _)| !self.elsewhere.contains_key(*id));
        let newest = here.map(|(id, supervised)| match self.replacements.get(id) {
            Some(source) => source,
            None => &*supervised.entry.source,
        });
        let all = newest.chain(self.elsewhere.values());
        MessageResult(all.filter(|source| source.list.is_none()).cloned().collect())
    }
}

impl Supervisor {
    /// Stops the sources that are not in the catalogue any more; returns how many there were.
    fn remove_missing(&mut self, catalogue: &[Source]) -> usize {
        let listed: HashSet<_> = catalogue.iter().map(|source| &source.id).collect();
        let missing: Vec<_> = self.sources.keys().filter(|id| !listed.contains(id)).cloned().collect();
        for id in &missing {
            self.remove_source(id);
        }
        let removed = missing.len();
        if removed > 0 {
            // Without waiting: until it is on disk, this process knows that they were not listed.
            self.record_removals.do_send(RecordRemovals(missing));
        }
        removed
    }

    /// Other sources run than before.
    pub(super) fn note_sources(&self) {
        self.ctx.metrics.sources.set(i64::try_from(self.sources.len()).unwrap_or(i64::MAX));
        self.announce_catalogue();
        if let Some(websub) = &self.websub {
            // With a full mailbox, the next periodic review finds the changes.
            websub.try_send(ReviewSubscriptions).ok();
        }
    }

    /// Starts sources from their stored states, with their first visits spread over time. The second of each pair says that
    /// the running daemon did not have the source until now.
    pub(super) fn start_sources(&mut self, sources: Vec<(Source, bool)>) {
        let now = self.ctx.now();
        let mut stored_states = std::mem::take(&mut self.stored_states);
        let mut documents = HashMap::new();
        let mut pauses = Vec::new();
        let restored = sources.into_iter().map(|(source, is_added)| {
            if is_added && source.enabled {
                let document = self.documents.take(&source, self.ctx.visitor.default_proxy());
                documents.extend(document.map(|document| (source.id.clone(), document)));
            }
            let state = stored_states.remove(&source.id).unwrap_or_default();
            let request_hash = self.request_hashes.get(&source.id).copied();
            let facts = CatalogueFacts { is_added, request_hash };
            let mut starting = restore_state(&self.ctx, source, state, facts, now);
            if let Some(pause) = self.coming_pauses.take(&starting.source.id)
                && starting.source.enabled
                && pause.is_active(now)
            {
                pauses.push((starting.source.id.clone(), Some(pause.clone())));
                starting.state.paused = Some(pause);
            }
            starting
        });
        let mut starting: Vec<_> = restored.collect();
        if !pauses.is_empty() {
            // Without waiting: until they are on disk, the entries have them.
            self.record_pauses.do_send(RecordPauses(pauses));
        }
        plan_first_visits(&mut starting, now, self.ctx.interval_bounds.get());
        for StartingSource { source, state, beginning } in starting {
            let (id, document) = (source.id.clone(), documents.remove(&source.id));
            self.start_source(source, state, document);
            let actor = self.sources.get(&id).and_then(|supervised| supervised.actor.as_ref());
            if let Some(actor) = actor.filter(|_| beginning == Beginning::Look) {
                // The mailbox of a new actor has room.
                actor.try_send(VisitNow).ok();
            }
        }
    }

    /// Whether a file of its request settings has changed since its last visit.
    fn has_new_credentials(&self, running: &SupervisedSource) -> bool {
        let request_hash = self.request_hashes.get(&running.entry.source.id);
        request_hash.is_some_and(|hash| has_new_request(&running.entry.state(), *hash))
    }

    /// Has the actor of a source that is being visited stop when the visit ends. Returns whether there is such a
    /// visit.
    pub(super) fn stop_after_visit(&self, id: &SourceId) -> bool {
        let Some(SupervisedSource { entry, actor: Some(actor), rebuild_at: None }) = self.sources.get(id)
        else {
            return false;
        };
        let in_progress =
            [Activity::Fetching, Activity::Parsing, Activity::Recording].contains(&entry.activity());
        // An actor with a full mailbox makes no progress, and is not waited for.
        in_progress && actor.try_send(StopAfterVisit).is_ok()
    }

    /// Starts the changed sources for which the visit of the old one has ended.
    pub(super) fn start_replacements(&mut self) {
        let has_ended = |id: &&SourceId| {
            let Some(supervised) = self.sources.get(*id) else { return true };
            // One that leaves starts when that has ended.
            !supervised.is_leaving() && supervised.actor.as_ref().is_none_or(|actor| !actor.connected())
        };
        let ended: Vec<_> = self.replacements.keys().filter(has_ended).cloned().collect();
        for id in ended {
            let (state, source) = (self.remove_source(&id), self.replacements.remove(&id));
            self.stored_states.extend(state.map(|state| (id, state)));
            self.start_sources(source.into_iter().map(|source| (source, false)).collect());
        }
    }
}
