//! Sources that another daemon visits from now on: their visits end, then they are forgotten here. They stay in the list.

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt as _, Addr, Context, Handler, ResponseActFuture, WrapFuture as _};
use futures_util::future::join_all;
use news::{Source, SourceId};

use super::Supervisor;
use crate::{
    messages::{LeaveSources, RecordSubscriptions, Stop},
    status::registry::SourceEntry,
    visit::source_actor::{AwaitEnd, SourceActor},
};

/// How long the visits in progress of sources that leave may take to end, before they are cancelled.
pub(super) const LEAVING_VISIT_MAX: Duration = Duration::from_secs(10);

impl Handler<LeaveSources> for Supervisor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, LeaveSources { ids, at_once }: LeaveSources, _: &mut Context<Self>) -> Self::Result {
        self.leave(ids, at_once)
    }
}

impl Supervisor {
    /// Ends the visits of these sources, and forgets them. From now on none of them begins.
    pub(super) fn leave(&mut self, ids: Vec<SourceId>, at_once: bool) -> ResponseActFuture<Self, ()> {
        let (mut leaving, mut actors, mut crowded) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids {
            let Some(supervised) = self.sources.get(&id) else { continue };
            supervised.entry.set_leaving();
            leaving.push(Arc::clone(&supervised.entry));
            actors.extend(supervised.actor.clone());
            if at_once || !self.stop_after_visit(&id) {
                let has_no_room = |actor: &&Addr<SourceActor>| actor.try_send(Stop).is_err();
                crowded.extend(supervised.actor.as_ref().filter(has_no_room).cloned());
            }
            // It does not start again when the visit has ended.
            let changed = self.replacements.remove(&id);
            let source = changed.unwrap_or_else(|| Source::clone(&supervised.entry.source));
            self.elsewhere.entry(id).or_insert(source);
        }
        let ended = end_actors(actors, crowded).into_actor(self);
        Box::pin(ended.then(|(), supervisor, _| {
            // What a hub was asked or has said since the last visit moves with the source.
            let subscribed = leaving.iter().filter(|entry| entry.has_websub()).cloned().collect();
            let recorded = supervisor.record_subscriptions.send(RecordSubscriptions(subscribed));
            recorded
                .into_actor(supervisor)
                .map(move |_closed, supervisor, _| supervisor.forget_left(&leaving))
        }))
    }

    /// Forgets those that have left. One that has come back meanwhile starts.
    fn forget_left(&mut self, left: &[Arc<SourceEntry>]) {
        let mut returned = Vec::new();
        let mut count = 0_usize;
        for entry in left {
            let id = &entry.source.id;
            // It may have been taken out of the list, or another order has been quicker.
            let is_here = self.sources.get(id).is_some_and(|known| Arc::ptr_eq(&known.entry, entry));
            let Some(state) = is_here.then(|| self.remove_source(id)).flatten() else { continue };
            count += 1;
            if let Some(source) = self.replacements.remove(id) {
                self.stored_states.insert(id.clone(), state);
                returned.push((source, false));
            }
        }
        if count == 0 {
            return;
        }
        tracing::info!(sources = count - returned.len(), "sources left for another daemon");
        self.start_sources(returned);
        self.note_sources();
    }
}

/// Waits until the actors have ended; cancels the visits that take too long, and at once those of actors that had no room for
/// the message that does.
async fn end_actors(actors: Vec<Addr<SourceActor>>, crowded: Vec<Addr<SourceActor>>) {
    stop(&crowded).await;
    // The answer is that there is none.
    let mut ended = Box::pin(join_all(actors.iter().map(|actor| actor.send(AwaitEnd))));
    if tokio::time::timeout(LEAVING_VISIT_MAX, &mut ended).await.is_ok() {
        return;
    }
    let late: Vec<_> = actors.iter().filter(|actor| actor.connected()).cloned().collect();
    tracing::warn!(
        sources = late.len(),
        "visits of sources that leave for another daemon took too long, and were cancelled"
    );
    stop(&late).await;
    ended.await;
}

/// Cancels visits in progress, as soon as the mailboxes have room.
async fn stop(actors: &[Addr<SourceActor>]) {
    // One that has ended does not answer.
    join_all(actors.iter().map(|actor| actor.send(Stop))).await;
}
