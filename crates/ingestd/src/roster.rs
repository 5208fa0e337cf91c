//! Which sources run. Starts their actors, notices the dead and rebuilds them, each time slower.
//!
//! actix restarts an actor that stops, but not one that panics: its address then stays closed for ever. So the roster
//! looks at every address, and rebuilds from the source and the state on the board.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext as _, Context, Handler, Message, MessageResult};
use fetch::schedule::first_visit;
use news::{Catalogue, Source, SourceId, SourceState, Timestamp};
use tokio::time::Instant;

use crate::{
    board::{Activity, Board, Plate},
    source_actor::{Leave, SourceActor, VisitNow, Workshop},
};

/// How often the dead are looked for.
const ROLL_CALL_EVERY: Duration = Duration::from_secs(1);
/// The first wait before a dead actor is rebuilt; doubles with each death.
const REBUILD_FIRST: Duration = Duration::from_secs(1);
/// The longest such wait.
const REBUILD_LONGEST: Duration = Duration::from_secs(300);

/// Starts and keeps one actor per source.
pub(crate) struct Roster {
    shop: Rc<Workshop>,
    board: Board,
    /// What the store remembers of sources that have not been started yet.
    remembered: HashMap<SourceId, SourceState>,
    members: BTreeMap<SourceId, Member>,
}

struct Member {
    plate: Arc<Plate>,
    /// Nothing for a disabled source.
    actor: Option<Addr<SourceActor>>,
    /// When the dead actor is rebuilt.
    rebuild: Option<Instant>,
}

/// Take this catalogue: sources that did not change go on as if nothing had happened.
#[derive(Debug, Message)]
#[rtype(result = "Taken")]
pub(crate) struct Take {
    pub(crate) catalogue: Catalogue,
    /// What the store remembers of the sources in it.
    pub(crate) remembered: HashMap<SourceId, SourceState>,
}

/// What a new catalogue changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
    pub(crate) unchanged: usize,
}

/// Visit these sources now.
#[derive(Debug, Message)]
#[rtype(result = "Visiting")]
pub(crate) struct Visit(pub(crate) Vec<String>);

/// Which of them are going to be visited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Visiting {
    pub(crate) accepted: Vec<String>,
    pub(crate) unknown: Vec<String>,
    pub(crate) disabled: Vec<String>,
    pub(crate) busy: Vec<String>,
}

/// Send every actor home.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Dismiss;

impl Roster {
    pub(crate) fn new(shop: Rc<Workshop>, board: Board) -> Self {
        Self { shop, board, remembered: HashMap::new(), members: BTreeMap::new() }
    }

    fn start(&mut self, source: Source, state: SourceState) {
        let plate = Arc::new(Plate::new(Arc::new(source), state));
        self.board.put(Arc::clone(&plate));
        let actor = plate.source.enabled.then(|| self.build(&plate));
        self.members.insert(plate.source.id.clone(), Member { plate, actor, rebuild: None });
    }

    fn build(&self, plate: &Arc<Plate>) -> Addr<SourceActor> {
        SourceActor::new(Arc::clone(plate), Rc::clone(&self.shop)).start()
    }

    fn leave(&mut self, id: &SourceId) -> Option<SourceState> {
        let member = self.members.remove(id)?;
        self.board.take_off(id);
        if let Some(actor) = member.actor {
            // A full mailbox would only mean that it is about to hear the same from a closed address.
            actor.try_send(Leave).ok();
        }
        Some(member.plate.state())
    }

    /// Rebuilds whose wait is over, and gives the newly dead a wait.
    fn call_the_roll(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (id, member) in &mut self.members {
            let dead = member.actor.as_ref().is_some_and(|actor| !actor.connected());
            match member.rebuild {
                None if dead => {
                    let deaths = member.plate.count_restart();
                    let wait = REBUILD_FIRST.saturating_mul(1 << (deaths - 1).min(16)).min(REBUILD_LONGEST);
                    member.rebuild = Some(now + wait);
                    member.plate.set_activity(Activity::Down, self.shop.now());
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    tracing::error!(source = %id, deaths, wait_ms, "source actor died");
                }
                Some(at) if at <= now => due.push(id.clone()),
                _ => {}
            }
        }
        for id in due {
            let plate = Arc::clone(&self.members[&id].plate);
            let actor = self.build(&plate);
            self.shop.numbers.restarts.inc();
            tracing::info!(source = %id, "source actor rebuilt");
            self.members.insert(id, Member { plate, actor: Some(actor), rebuild: None });
        }
        self.shop.gates.sweep();
    }

    /// Gives every source that is due a place of its own, so that a start is no burst.
    fn plan(&self, sources: Vec<Source>) -> Vec<(Source, SourceState)> {
        let now = self.shop.now();
        let latest = now.plus(self.shop.pace.interval_max.max(Duration::from_secs(86_400)));
        let mut planned: Vec<_> = sources
            .into_iter()
            .map(|source| {
                let mut state = self.remembered.get(&source.id).cloned().unwrap_or_default();
                // A clock that was wrong must not put a visit off for years.
                state.next_visit = state.next_visit.map(|next| next.min(latest));
                (source, state)
            })
            .collect();
        let is_due = |source: &Source, state: &SourceState| {
            source.enabled && (state.last_visit.is_none() || state.next_visit.is_some_and(|next| next <= now))
        };
        let total = planned.iter().filter(|(source, state)| is_due(source, state)).count();
        let due = planned.iter_mut().filter(|(source, state)| is_due(source, state));
        for (place, (_, state)) in due.enumerate() {
            let first = first_visit(now, place, total, self.shop.pace);
            if state.last_visit.is_some() {
                state.why = "due since before the start".to_owned();
            } else {
                state.why = first.why;
            }
            state.next_visit = first.at;
        }
        planned
    }
}

impl Actor for Roster {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(ROLL_CALL_EVERY, |roster, _| roster.call_the_roll());
    }
}

impl Handler<Take> for Roster {
    type Result = MessageResult<Take>;

    fn handle(&mut self, Take { catalogue, remembered }: Take, _: &mut Self::Context) -> Self::Result {
        self.remembered = remembered;
        let mut taken = Taken::default();
        let wanted: HashMap<_, _> = catalogue.sources.iter().map(|s| (s.id.clone(), s.clone())).collect();
        let gone: Vec<_> = self.members.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        for id in gone {
            self.leave(&id);
            taken.removed += 1;
        }
        let mut fresh = Vec::new();
        for source in catalogue.sources {
            match self.members.get(&source.id) {
                Some(member) if *member.plate.source == source => {
                    taken.unchanged += 1;
                    continue;
                }
                Some(_) => {
                    if let Some(state) = self.leave(&source.id) {
                        self.remembered.insert(source.id.clone(), state);
                    }
                    taken.changed += 1;
                }
                None => taken.added += 1,
            }
            fresh.push(source);
        }
        for (source, state) in self.plan(fresh) {
            self.start(source, state);
        }
        self.remembered = HashMap::new();
        self.shop.numbers.sources.set(i64::try_from(self.members.len()).unwrap_or(i64::MAX));
        // An error says that nobody listens.
        self.shop.notices.send(wire::Notice::Catalogue).ok();
        MessageResult(taken)
    }
}

impl Handler<Visit> for Roster {
    type Result = MessageResult<Visit>;

    fn handle(&mut self, Visit(ids): Visit, _: &mut Self::Context) -> Self::Result {
        let mut visiting = Visiting::default();
        for id in ids {
            let group = match self.members.get(id.as_str()).map(|member| &member.actor) {
                None => &mut visiting.unknown,
                Some(None) => &mut visiting.disabled,
                Some(Some(actor)) => match actor.try_send(VisitNow) {
                    Ok(()) => &mut visiting.accepted,
                    Err(_) => &mut visiting.busy,
                },
            };
            group.push(id);
        }
        MessageResult(visiting)
    }
}

impl Handler<Dismiss> for Roster {
    type Result = ();

    fn handle(&mut self, _: Dismiss, ctx: &mut Self::Context) {
        use actix::ActorContext as _;
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            self.leave(&id);
        }
        ctx.stop();
    }
}

/// When every source would be visited again, for the status.
pub(crate) fn overdue(board: &Board, now: Timestamp) -> usize {
    let late = |plate: &Arc<Plate>| plate.state().next_visit.is_some_and(|next| next < now);
    board.plates().iter().filter(|plate| plate.activity() == Activity::Idle && late(plate)).count()
}
