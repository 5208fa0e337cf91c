//! Which sources run. Starts their actors, notices the dead and rebuilds them, each time slower.
//!
//! actix restarts an actor that stops, but not one that panics: its address then stays closed for ever. So the roster
//! looks at every address, and rebuilds from the source and the state on the board.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{
    Actor, ActorFutureExt as _, Addr, AsyncContext as _, Context, Handler, Message, MessageResult,
    ResponseActFuture, WrapFuture as _,
};
use fetch::schedule::{Next, PlannedVisit, ask_max, catch_up, defer_past_skip_windows, first_visit};
use news::{Catalogue, Pause, Source, SourceId, SourceState, Timestamp};
use notation::humanize;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    board::{Activity, Board, Plate},
    host::Host,
    marks::DEATHS_MAX,
    recorder::{Closed, RecordPauses},
    source_actor::{Leave, Reconsider, Relieve, SourceActor, VisitNow, Workshop},
    websub,
};

/// How often the dead are looked for.
const ROLL_CALL_EVERY: Duration = Duration::from_millis(250);
/// So many are called at a time: at 100,000 sources each is called every 12 s, and a call costs no more than at 2,000.
const CALLED_MAX: usize = 2000;
/// The clock jumped when it is so far from where it should be; less than that is NTP's daily bread.
const CLOCK_JUMP: Duration = Duration::from_secs(5);
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
    /// New entries of sources whose visit under the old one is under way.
    waiting: BTreeMap<SourceId, Source>,
    /// The member at which the next roll call begins.
    called: Option<SourceId>,
    /// The wall clock and the steady one at the last look.
    clock_read: (Timestamp, Instant),
    roll_call_every: Duration,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
    /// Not visited until their pause is over.
    pub(crate) paused: Vec<String>,
}

/// Pause these sources, or end their pause; answered when that is on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<Pausing, Closed>")]
pub(crate) struct SetPause {
    pub(crate) ids: Vec<String>,
    /// Nothing ends the pause.
    pub(crate) pause: Option<Pause>,
}

/// Whose pause was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pausing {
    pub(crate) done: Vec<SourceId>,
    /// Not paused, and so not resumed either.
    pub(crate) idle: Vec<String>,
    pub(crate) unknown: Vec<String>,
    pub(crate) disabled: Vec<String>,
}

/// Send every actor home.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Dismiss;

impl Roster {
    pub(crate) fn new(shop: Rc<Workshop>, board: Board) -> Self {
        Self {
            clock_read: (shop.now(), Instant::now()),
            shop,
            board,
            remembered: HashMap::new(),
            members: BTreeMap::new(),
            waiting: BTreeMap::new(),
            called: None,
            roll_call_every: ROLL_CALL_EVERY,
        }
    }

    /// A roster that looks for the dead less often: on simulated time each look is a moment of the real one.
    #[cfg(test)]
    pub(crate) fn calling_every(self, roll_call_every: Duration) -> Self {
        Self { roll_call_every, ..self }
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

    /// Asks a source that is being visited to make room when that is over; tells whether there is one to wait for.
    fn relieve(&self, id: &SourceId) -> bool {
        let Some(Member { plate, actor: Some(actor), rebuild: None }) = self.members.get(id) else {
            return false;
        };
        let visited =
            [Activity::Fetching, Activity::Parsing, Activity::Recording].contains(&plate.activity());
        // A full mailbox is one that does not get on.
        visited && actor.try_send(Relieve).is_ok()
    }

    /// Starts those under their new entries whose visits under the old ones have ended.
    fn take_turns(&mut self) {
        let has_ended = |id: &&SourceId| {
            let actor = self.members.get(*id).and_then(|member| member.actor.as_ref());
            actor.is_none_or(|actor| !actor.connected())
        };
        let ended: Vec<_> = self.waiting.keys().filter(has_ended).cloned().collect();
        for id in ended {
            let (state, source) = (self.leave(&id), self.waiting.remove(&id));
            self.remembered.extend(state.map(|state| (id, state)));
            for (source, state) in self.plan(source.into_iter().collect()) {
                self.start(source, state);
            }
            self.remembered = HashMap::new();
        }
    }

    /// Who the order is about.
    fn sort(&self, order: &SetPause) -> Pausing {
        let mut pausing = Pausing::default();
        for id in &order.ids {
            match self.members.get(id.as_str()) {
                None => pausing.unknown.push(id.clone()),
                Some(member) if member.actor.is_none() => pausing.disabled.push(id.clone()),
                Some(member) if order.pause.is_none() && !member.plate.is_paused() => {
                    pausing.idle.push(id.clone());
                }
                Some(member) => pausing.done.push(member.plate.source.id.clone()),
            }
        }
        pausing
    }

    /// Shows the pause on the board, and has the actor look at its calendar.
    fn show_pause(&self, id: &SourceId, pause: Option<&Pause>) {
        let Some(member) = self.members.get(id) else { return };
        match pause {
            Some(pause) => member.plate.set_pause(pause.clone()),
            None => member.plate.end_pause(self.shop.now()),
        }
        if let Some(actor) = member.actor.clone() {
            // Waits for room in the mailbox. A closed one is rebuilt, and then looks at the board anyway.
            actix_rt::spawn(async move { actor.send(Reconsider).await.ok() });
        }
    }

    /// Rebuilds whose wait is over, and gives the newly dead a wait.
    fn call_the_roll(&mut self) {
        let now = Instant::now();
        let (mut due, mut called, mut last) = (Vec::new(), 0, None);
        let from = self.called.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (id, member) in self.members.range_mut((from, Bound::Unbounded)).take(CALLED_MAX) {
            called += 1;
            last = Some(id);
            let dead = member.actor.as_ref().is_some_and(|actor| !actor.connected());
            match member.rebuild {
                // It has made room for a new entry.
                None if dead && self.waiting.contains_key(id) => {}
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
        self.called = last.filter(|_| called == CALLED_MAX).cloned();
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
        let mut planned: Vec<_> = sources.into_iter().map(|source| self.recall(source, now)).collect();
        let is_new = |source: &Source, state: &SourceState| source.enabled && state.last_visit.is_none();
        let total = planned.iter().filter(|(source, state)| is_new(source, state)).count();
        let new = planned.iter_mut().filter(|(source, state)| is_new(source, state));
        for (place, (_, state)) in new.enumerate() {
            let first = first_visit(now, place, total, self.shop.pace.get());
            (state.next_visit, state.why) = (first.at, first.why);
        }
        let known = |(place, (source, state)): (usize, &(Source, SourceState))| {
            let next = state.next_visit.filter(|_| source.enabled && state.last_visit.is_some())?;
            Some((place, PlannedVisit { last: state.last_visit, next }))
        };
        let (places, known): (Vec<_>, Vec<_>) = planned.iter().enumerate().filter_map(known).unzip();
        for (place, at) in catch_up(now, &known, self.shop.pace.get()) {
            let state = &mut planned[places[place]].1;
            let next = Next { at: Some(at), why: "due since before the start".to_owned() };
            let next = defer_past_skip_windows(
                next,
                state.rhythm.skip_hours,
                state.rhythm.skip_days,
                fastrand::f64(),
            );
            (state.next_visit, state.why) = (next.at, next.why);
        }
        planned
    }

    /// What is known of a source, and what its past says about its host and its document.
    fn recall(&self, source: Source, now: Timestamp) -> (Source, SourceState) {
        let (shop, mut state) = (&self.shop, self.remembered.get(&source.id).cloned().unwrap_or_default());
        state.paused = state.paused.filter(|pause| pause.is_active(now));
        let longest = now.plus(ask_max(shop.pace.get()));
        if let Some(until) = state.host_asked_until.filter(|until| now < *until && *until <= longest) {
            shop.gates.hold(&Host::of(source.url.secret()), until.since(now));
        }
        if shop.marks.deaths_of(&source.id) >= DEATHS_MAX {
            let deaths = shop.marks.deaths_of(&source.id);
            let reason = format!("its document was being read at {deaths} deaths of the process");
            tracing::warn!(source = %source.id, reason, "put into quarantine");
            shop.numbers.quarantines.get_or_create(&[("for", "deaths")]).inc();
            state.why = format!("in quarantine ({reason}): every {}", humanize(shop.pace.get().interval_max));
            state.quarantine = Some(reason);
            state.next_visit = Some(now.plus(shop.pace.get().interval_max));
            // It is no new source any more, even if no visit of it ever ended.
            state.last_visit.get_or_insert(now);
        }
        (source, state)
    }

    /// Compares the clock with one that never jumps, and plans anew when it did: timers do not know of it.
    fn look_at_the_clock(&mut self) {
        let (wall, steady) = (self.shop.now(), Instant::now());
        let (wall_before, steady_before) = std::mem::replace(&mut self.clock_read, (wall, steady));
        let expected = wall_before.plus(steady - steady_before);
        let (ahead, behind) = (wall.since(expected), expected.since(wall));
        if ahead.max(behind) < CLOCK_JUMP {
            return;
        }
        self.shop.numbers.clock_jumps.inc();
        let idle: Vec<_> = self.members.values().filter_map(|m| Some((m, m.plate.planned()?))).collect();
        if behind > ahead {
            // Nobody has waited shorter or longer for it: every date moves with the clock.
            let back = i64::try_from(behind.as_millis()).unwrap_or(i64::MAX);
            for (member, planned) in &idle {
                let next = Timestamp::from_millis(planned.next.millis().saturating_sub(back));
                member.plate.plan(next, None);
            }
            tracing::warn!(by_s = behind.as_secs(), "the clock was set back; the next visits move with it");
        } else {
            let planned: Vec<_> = idle.iter().map(|(_, planned)| *planned).collect();
            let late = catch_up(wall, &planned, self.shop.pace.get());
            for (place, at) in &late {
                let plate = &idle[*place].0.plate;
                let next = Next { at: Some(*at), why: "due since before the clock jumped".to_owned() };
                let rhythm = plate.state().rhythm;
                let next =
                    defer_past_skip_windows(next, rhythm.skip_hours, rhythm.skip_days, fastrand::f64());
                plate.plan(next.at.unwrap_or(*at), Some(&next.why));
            }
            let overdue = late.len();
            tracing::warn!(
                by_s = ahead.as_secs(),
                overdue,
                "the clock jumped ahead, or the machine slept; overdue visits are spread"
            );
        }
        for actor in idle.iter().filter_map(|(member, _)| member.actor.as_ref()) {
            // A full mailbox means orders to visit now, after which it plans anew anyway.
            actor.try_send(Reconsider).ok();
        }
    }
}

impl Actor for Roster {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(self.shop.gates.clone().keep_time().into_actor(self));
        ctx.run_interval(self.roll_call_every, |roster, _| {
            roster.take_turns();
            roster.call_the_roll();
            roster.look_at_the_clock();
        });
    }
}

impl Handler<Take> for Roster {
    type Result = MessageResult<Take>;

    fn handle(&mut self, Take { catalogue, remembered }: Take, _: &mut Self::Context) -> Self::Result {
        let sources = format!("{} sources", catalogue.sources.len());
        let _at_work = daemon::work::on("taking the catalogue", sources);
        self.remembered = remembered;
        let mut taken = Taken::default();
        let mut relieved = std::mem::take(&mut self.waiting);
        let wanted: HashSet<_> = catalogue.sources.iter().map(|source| &source.id).collect();
        let gone: Vec<_> = self.members.keys().filter(|id| !wanted.contains(id)).cloned().collect();
        for id in gone {
            self.leave(&id);
            taken.removed += 1;
        }
        let mut fresh = Vec::new();
        for source in catalogue.sources {
            match self.members.get(&source.id) {
                Some(member) if *member.plate.source == source && !relieved.contains_key(&source.id) => {
                    taken.unchanged += 1;
                    continue;
                }
                Some(_) if relieved.remove(&source.id).is_some() || self.relieve(&source.id) => {
                    self.waiting.insert(source.id.clone(), source);
                    taken.changed += 1;
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
        if let Some(hubs) = &self.shop.hubs {
            // A full mailbox: they look through the board now and then anyway.
            hubs.try_send(websub::Review).ok();
        }
        MessageResult(taken)
    }
}

impl Handler<Visit> for Roster {
    type Result = MessageResult<Visit>;

    fn handle(&mut self, Visit(ids): Visit, _: &mut Self::Context) -> Self::Result {
        let mut visiting = Visiting::default();
        for id in ids {
            let group = match self.members.get(id.as_str()).map(|member| (&member.plate, &member.actor)) {
                None => &mut visiting.unknown,
                Some((_, None)) => &mut visiting.disabled,
                Some((plate, Some(_))) if plate.is_paused() => &mut visiting.paused,
                Some((plate, Some(actor))) => match actor.try_send(VisitNow) {
                    Ok(()) => {
                        plate.lift_quarantine();
                        &mut visiting.accepted
                    }
                    Err(_) => &mut visiting.busy,
                },
            };
            group.push(id);
        }
        MessageResult(visiting)
    }
}

impl Handler<SetPause> for Roster {
    type Result = ResponseActFuture<Self, Result<Pausing, Closed>>;

    fn handle(&mut self, order: SetPause, _: &mut Self::Context) -> Self::Result {
        let pausing = self.sort(&order);
        let pause = order.pause;
        let orders = pausing.done.iter().map(|id| (id.clone(), pause.clone())).collect();
        let recorded = self.shop.recorder.send(RecordPauses(orders)).into_actor(self);
        Box::pin(recorded.map(move |recorded, roster, _| {
            recorded.map_err(|_| Closed).flatten()?;
            for id in &pausing.done {
                roster.show_pause(id, pause.as_ref());
                tracing::debug!(source = %id, paused = pause.is_some(), "paused or resumed");
            }
            let (sources, paused) = (pausing.done.len(), pause.is_some());
            tracing::info!(sources, paused, "took an order to pause or resume");
            // The gateways read the list of sources again. An error says that nobody listens.
            roster.shop.notices.send(wire::Notice::Catalogue).ok();
            Ok(pausing)
        }))
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
    let late = |plate: &Arc<Plate>| plate.next_visit().is_some_and(|next| next < now);
    let at_rest = |plate: &Arc<Plate>| plate.activity() == Activity::Idle && !plate.is_paused();
    board.plates().iter().filter(|plate| at_rest(plate) && late(plate)).count()
}

#[cfg(test)]
pub(crate) mod tests {
    use daemon::{Clock, metrics::MetricsRegistry};
    use fetch::{Policy, Visitor, schedule::IntervalBounds};
    use news::{FeedUrl, VisitStatus};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::{Semaphore, broadcast, watch},
    };

    use std::cell::RefCell;

    use super::*;
    use crate::{
        gates::{Bounds, Gates},
        marks::Marks,
        metrics::Numbers,
        recorder::{Desk, Recorder},
        secrets::Secrets,
        source_actor::{Read, tests::Die},
    };

    const FEED: &str = "<rss version='2.0'><channel><title>t</title><link>http://x.example/</link>\
                        <description>d</description><item><title>one</title><guid>1</guid></item></channel></rss>";

    /// A roster over a real store, and a server that answers every request with [`FEED`].
    pub(crate) struct World {
        roster: Addr<Roster>,
        pub(crate) board: Board,
        notices: broadcast::Receiver<wire::Notice>,
        url: String,
        pub(crate) numbers: Numbers,
        directory: tempfile::TempDir,
    }

    async fn serve() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        actix_rt::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", FEED.len());
                stream.write_all(format!("{head}{FEED}").as_bytes()).await.ok();
            }
        });
        url
    }

    async fn world(read: Read) -> World {
        let visitor = Visitor::try_new(Policy { allow_private: true, ..Policy::default() }).unwrap();
        world_with(read, visitor, Secrets::default()).await
    }

    pub(crate) async fn world_with(read: Read, visitor: Visitor, secrets: Secrets) -> World {
        let directory = tempfile::tempdir().unwrap();
        let (writer, reader) = store::open(directory.path(), &store::StoreOptions::default()).unwrap();
        let numbers = Numbers::register(&MetricsRegistry::new());
        let clock = Clock::system();
        let bell = watch::channel(reader.head()).0;
        let epoch = reader.epoch().clone();
        let desk = Desk {
            writer,
            reader,
            bell,
            clock: clock.clone(),
            numbers: numbers.clone(),
            watch: daemon::watch::Watch::new(),
        };
        let (recorder, _thread) = Recorder::start(desk, || panic!("the log failed")).unwrap();
        let (notices, heard) = broadcast::channel(64);
        let second = Duration::from_secs(1);
        let bounds = Bounds { in_flight: 8, host_in_flight: 8, host_spacing: Duration::ZERO };
        let shop = Workshop {
            visitor,
            secrets,
            gates: Gates::new(bounds, numbers.clone()),
            parsers: Arc::new(Semaphore::new(1)),
            read,
            marks: Marks::open(directory.path()).unwrap(),
            outage: RefCell::default(),
            recorder: recorder.start(),
            hubs: None,
            notices,
            pace: std::cell::Cell::new(IntervalBounds { interval_min: second, interval_max: second * 60 }),
            epoch,
            clock,
            numbers: numbers.clone(),
        };
        let board = Board::default();
        let roster = Roster::new(Rc::new(shop), board.clone()).start();
        World { roster, board, notices: heard, url: serve().await, numbers, directory }
    }

    impl World {
        fn source(&self, id: &str) -> Source {
            let mut source =
                Source::new(SourceId::try_new(id).unwrap(), FeedUrl::try_new(&self.url).unwrap());
            source.every = Some(Duration::from_secs(3600));
            source
        }

        pub(crate) async fn take(&self, sources: Vec<Source>) -> Taken {
            let take = Take { catalogue: Catalogue { sources }, remembered: HashMap::new() };
            self.roster.send(take).await.unwrap()
        }

        /// The next report of a visit.
        pub(crate) async fn report(&mut self) -> news::VisitReport {
            loop {
                let notice = tokio::time::timeout(Duration::from_secs(10), self.notices.recv());
                if let wire::Notice::Source(json) = notice.await.unwrap().unwrap() {
                    return serde_json::from_str(&json).unwrap();
                }
            }
        }

        /// Orders a visit and waits for its report.
        pub(crate) async fn visit_again(&mut self, id: &str) -> news::VisitReport {
            let visiting = self.roster.send(Visit(vec![id.to_owned()])).await.unwrap();
            assert_eq!(visiting.accepted, [id]);
            self.report().await
        }

        async fn until(&self, what: impl Fn() -> bool) {
            let wait = async {
                while !what() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it happens within ten seconds");
        }
    }

    pub(crate) fn run<F: Future>(test: F) -> F::Output {
        actix_rt::System::new().block_on(test)
    }

    #[test]
    fn a_source_actor_that_dies_is_rebuilt_and_goes_on_with_its_state() {
        run(async {
            let mut world = world(feed::read).await;
            world.take(vec![world.source("a"), world.source("b")]).await;
            let (first, second) = (world.report().await, world.report().await);
            assert_eq!((first.new, second.new), (1, 1));
            world.roster.send(Kill("a")).await.unwrap();
            let plate = world.board.get("a").unwrap();
            world.until(|| plate.status().restarts == 1).await;
            assert_eq!(plate.activity(), Activity::Down, "and it is shown");
            assert_eq!(
                world.board.get("b").unwrap().activity(),
                Activity::Idle,
                "its neighbour is not concerned"
            );
            world.until(|| plate.activity() == Activity::Idle).await;
            let visiting = world.roster.send(Visit(vec!["a".into()])).await.unwrap();
            assert_eq!(visiting.accepted, ["a"]);
            let report = world.report().await;
            assert_eq!((report.status, report.new), (VisitStatus::Unchanged, 0), "its state was kept");
            assert_eq!(world.numbers.restarts.get(), 1);
        });
    }

    #[test]
    fn each_death_makes_the_next_rebuild_later() {
        run(async {
            let mut world = world(feed::read).await;
            world.take(vec![world.source("a")]).await;
            world.report().await;
            let plate = world.board.get("a").unwrap();
            let mut waits = Vec::new();
            for deaths in 1..=2 {
                world.roster.send(Kill("a")).await.unwrap();
                world.until(|| plate.status().restarts == deaths).await;
                let died = Instant::now();
                world.until(|| plate.activity() == Activity::Idle).await;
                waits.push(died.elapsed());
            }
            assert!(waits[1] > waits[0] + Duration::from_millis(500), "{waits:?}");
        });
    }

    #[test]
    fn a_panic_while_reading_a_document_costs_that_visit_and_is_shown() {
        run(async {
            let mut world = world(|_, _| panic!("index out of bounds")).await;
            world.take(vec![world.source("a")]).await;
            let report = world.report().await;
            assert_eq!(report.status, VisitStatus::Error);
            assert_eq!(report.error.as_deref(), Some("panic: index out of bounds"));
            assert!(report.next_visit.is_some(), "it is visited again");
            assert_eq!(world.numbers.panics.get(), 1);
            assert_eq!(world.board.get("a").unwrap().status().restarts, 0, "its actor lives on");
        });
    }

    #[test]
    fn a_new_catalogue_leaves_alone_what_did_not_change() {
        run(async {
            let mut world = world(feed::read).await;
            world.take(vec![world.source("a"), world.source("b"), world.source("c")]).await;
            for _ in 0..3 {
                world.report().await;
            }
            let before = world.board.get("a").unwrap();
            let mut renamed = world.source("b");
            renamed.name = "Another name".to_owned();
            let mut off = world.source("d");
            off.enabled = false;
            let taken = world.take(vec![world.source("a"), renamed, off]).await;
            assert_eq!(taken, Taken { added: 1, changed: 1, removed: 1, unchanged: 1 });
            assert!(Arc::ptr_eq(&before, &world.board.get("a").unwrap()));
            assert_eq!(world.board.get("b").unwrap().status().counts.visits, 1, "its state came along");
            assert!(world.board.get("c").is_none());
            let ids = ["a", "c", "d"].map(str::to_owned).to_vec();
            let visiting = world.roster.send(Visit(ids)).await.unwrap();
            assert_eq!(visiting.unknown, ["c"]);
            assert_eq!(visiting.disabled, ["d"]);
        });
    }

    #[test]
    fn a_visit_under_way_ends_under_the_old_entry_and_is_not_asked_again() {
        fn slow(bytes: &[u8], hints: &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError> {
            std::thread::sleep(Duration::from_millis(500));
            feed::read(bytes, hints)
        }
        run(async {
            let mut world = world(slow).await;
            world.take(vec![world.source("a")]).await;
            world.until(|| world.board.get("a").unwrap().activity() == Activity::Parsing).await;
            let before = world.board.get("a").unwrap();
            for name in ["Another name", "And another"] {
                let mut renamed = world.source("a");
                name.clone_into(&mut renamed.name);
                assert_eq!(world.take(vec![renamed]).await.changed, 1);
                assert!(Arc::ptr_eq(&before, &world.board.get("a").unwrap()), "it is not disturbed");
            }
            assert_eq!(world.report().await.new, 1, "the visit came to its end");
            world.until(|| !Arc::ptr_eq(&before, &world.board.get("a").unwrap())).await;
            let after = world.board.get("a").unwrap();
            assert_eq!(after.source.name, "And another");
            assert_eq!(after.status().counts.visits, 1, "its state came along");
            assert_eq!((after.status().restarts, after.activity()), (0, Activity::Idle));
        });
    }

    impl World {
        async fn pause(&self, id: &str, pause: Option<Pause>) -> Pausing {
            self.roster.send(SetPause { ids: vec![id.to_owned()], pause }).await.unwrap().unwrap()
        }
    }

    fn pause(since: Timestamp, until: Option<Timestamp>) -> Pause {
        Pause { since, until, reason: Some("the publisher asked".to_owned()) }
    }

    #[test]
    fn a_paused_source_is_not_visited_says_why_and_refuses_orders() {
        run(async {
            let mut world = world(feed::read).await;
            let mut often = world.source("a");
            often.every = Some(Duration::from_secs(1));
            world.take(vec![often.clone(), world.source("b")]).await;
            let now = Timestamp::from_millis(Clock::system().now_millis());
            let until = now.plus(Duration::from_secs(3600));
            assert_eq!(world.pause("a", Some(pause(now, Some(until)))).await.done.len(), 1);
            world.report().await;
            let visiting = world.roster.send(Visit(vec!["a".into(), "b".into()])).await.unwrap();
            assert_eq!((visiting.paused, visiting.accepted), (vec!["a".to_owned()], vec!["b".to_owned()]));
            let status = world.board.get("a").unwrap().status();
            assert_eq!((status.activity.as_str(), status.next_visit), ("paused", Some(until)));
            assert_eq!(status.why, format!("paused until {until}: the publisher asked"));
            often.name = "Another name".to_owned();
            world.take(vec![often, world.source("b")]).await;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            let status = world.board.get("a").unwrap().status();
            assert!(status.paused.is_some(), "a new catalogue ends no pause");
            assert!(status.counts.visits <= 1, "at most the visit that was under way: {status:?}");
            assert_eq!(world.pause("a", None).await.done.len(), 1);
            world.until(|| world.board.get("a").unwrap().status().counts.visits > status.counts.visits).await;
            let again = world.pause("a", None).await;
            assert_eq!(
                (again.idle, world.pause("x", None).await.unknown),
                (vec!["a".into()], vec!["x".into()])
            );
        });
    }

    #[test]
    fn a_pause_ends_by_itself_and_one_that_is_over_is_forgotten_at_a_start() {
        run(async {
            let mut world = world(feed::read).await;
            world.take(vec![world.source("a")]).await;
            world.report().await;
            let now = Timestamp::from_millis(Clock::system().now_millis());
            let ended = pause(now, Some(now.plus(Duration::from_millis(700))));
            world.pause("a", Some(ended.clone())).await;
            let plate = world.board.get("a").unwrap();
            assert_eq!(plate.status().activity, "paused");
            world.until(|| !plate.is_paused()).await;
            assert_eq!(plate.status().activity, "idle");
            let held = pause(now, None);
            let state =
                |paused: &Pause| SourceState { paused: Some(paused.clone()), ..SourceState::default() };
            let remembered = [("b", state(&ended)), ("c", state(&held))]
                .map(|(id, state)| (SourceId::try_new(id).unwrap(), state));
            let sources = ["a", "b", "c"].map(|id| world.source(id)).to_vec();
            let take = Take { catalogue: Catalogue { sources }, remembered: remembered.into() };
            world.roster.send(take).await.unwrap();
            let paused = |id: &str| world.board.get(id).unwrap().pause();
            assert_eq!((paused("a"), paused("b"), paused("c")), (None, None, Some(held)));
        });
    }

    #[test]
    fn a_restart_spreads_what_is_due_and_keeps_what_is_not() {
        run(async {
            let world = world(feed::read).await;
            let now = Timestamp::from_millis(Clock::system().now_millis());
            let later = now.plus(Duration::from_secs(600));
            let state =
                |next| SourceState { last_visit: Some(now), next_visit: next, ..SourceState::default() };
            let far = now.plus(Duration::from_secs(400 * 86_400));
            let remembered = [("due", Some(now)), ("later", Some(later)), ("gone", None), ("far", Some(far))]
                .map(|(id, next)| (SourceId::try_new(id).unwrap(), state(next)));
            let sources = ["due", "later", "gone", "far"].map(|id| world.source(id)).to_vec();
            let take = Take { catalogue: Catalogue { sources }, remembered: remembered.into() };
            world.roster.send(take).await.unwrap();
            let next = |id: &str| world.board.get(id).unwrap().state().next_visit;
            assert_eq!((next("later"), next("gone")), (Some(later), None));
            assert!(next("far") < Some(far), "a clock that was wrong puts nothing off for years");
            let due = world.board.get("due").unwrap();
            world.until(|| due.state().counts.visits == 1).await;
        });
    }

    #[test]
    fn a_clock_that_jumps_makes_no_visit_late_and_moves_what_is_planned() {
        run(async {
            let mut world = world(feed::read).await;
            world.take(vec![world.source("a")]).await;
            world.report().await;
            let plate = world.board.get("a").unwrap();
            // As after a sleep: the date has passed, and the timer does not know.
            let passed = Timestamp::from_millis(Clock::system().now_millis() - 1000);
            plate.plan(passed, None);
            world.roster.send(Jump { by_ms: 7_200_000 }).await.unwrap();
            assert_eq!(world.report().await.status, VisitStatus::Unchanged);
            let next = plate.next_visit().unwrap();
            world.roster.send(Jump { by_ms: -10_000 }).await.unwrap();
            world.until(|| plate.next_visit().is_some_and(|now| now < next)).await;
            let moved = next.since(plate.next_visit().unwrap());
            assert!(moved.abs_diff(Duration::from_secs(10)) < Duration::from_secs(1), "{moved:?}");
            assert_eq!(world.numbers.clock_jumps.get(), 2, "each is told once");
        });
    }

    #[test]
    fn a_document_that_is_slow_to_read_is_shown_in_quarantine_until_an_operator_asks() {
        #[expect(clippy::disallowed_methods, reason = "a thread of the blocking pool")]
        fn slow(bytes: &[u8], hints: &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError> {
            std::thread::sleep(crate::outcome::READ_SLOW + Duration::from_millis(100));
            feed::read(bytes, hints)
        }
        run(async {
            let mut world = world(slow).await;
            world.take(vec![world.source("a")]).await;
            let report = world.report().await;
            assert_eq!(
                (report.new, world.numbers.slow_parses.get()),
                (1, 1),
                "its items are recorded all the same"
            );
            let plate = world.board.get("a").unwrap();
            assert_eq!(plate.status().quarantine.as_deref(), Some("its document took 2s to read"));
            world.roster.send(Visit(vec!["a".into()])).await.unwrap();
            assert_eq!(world.report().await.status, VisitStatus::Unchanged);
            assert_eq!(plate.status().quarantine, None, "the same bytes were not read again");
        });
    }

    #[test]
    fn a_source_that_was_being_read_at_three_deaths_waits_in_quarantine() {
        run(async {
            let world = world(feed::read).await;
            for _ in 0..DEATHS_MAX {
                let marks = Marks::open(world.directory.path()).unwrap();
                std::mem::forget(marks.begin(&SourceId::try_new("a").unwrap()));
            }
            let marks = Marks::open(world.directory.path()).unwrap();
            world.roster.send(Remarked(marks)).await.unwrap();
            world.take(vec![world.source("a"), world.source("b")]).await;
            let plate = |id| world.board.get(id).unwrap();
            world.until(|| plate("b").state().counts.visits == 1).await;
            let status = plate("a").status();
            assert_eq!((status.counts.visits, status.activity.as_str()), (0, "idle"));
            assert!(status.quarantine.unwrap().ends_with("at 3 deaths of the process"));
            assert!(status.next_visit.is_some(), "never silently dead");
        });
    }

    /// Other marks than those of the start.
    #[derive(Debug, Message)]
    #[rtype(result = "()")]
    struct Remarked(Marks);

    impl Handler<Remarked> for Roster {
        type Result = ();

        fn handle(&mut self, Remarked(marks): Remarked, _: &mut Self::Context) {
            Rc::get_mut(&mut self.shop).unwrap().marks = marks;
        }
    }

    /// Makes the clock look as if it had jumped.
    #[derive(Debug, Message)]
    #[rtype(result = "()")]
    struct Jump {
        by_ms: i64,
    }

    impl Handler<Jump> for Roster {
        type Result = ();

        fn handle(&mut self, Jump { by_ms }: Jump, _: &mut Self::Context) {
            self.clock_read.0 = Timestamp::from_millis(self.clock_read.0.millis() - by_ms);
        }
    }

    /// Kills the actor of a source.
    #[derive(Debug, Message)]
    #[rtype(result = "()")]
    struct Kill(&'static str);

    impl Handler<Kill> for Roster {
        type Result = ();

        fn handle(&mut self, Kill(id): Kill, _: &mut Self::Context) {
            let member = &self.members[id];
            member.actor.as_ref().unwrap().try_send(Die).unwrap();
        }
    }
}
