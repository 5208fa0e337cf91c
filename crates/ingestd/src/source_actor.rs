//! Step 1 of the life of an item: it is time. One actor per source, with its own calendar.
//!
//! ```text
//! idle ──due──► waiting (gates) ──► fetching ──► parsing ──► recording ──► settle ──► idle
//! ```
//!
//! The visit runs as a future of this actor, so stopping the actor cancels it. A panic in it costs that visit only.
//! Between visits nothing is held but the state on the board.

use std::{
    cell::{Cell, RefCell},
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, Addr, AsyncContext as _, Context, Handler, Message,
    SpawnHandle, WrapFuture as _,
};
use daemon::{Clock, work};
use fetch::{FailureClass, FetchResult, RequestOptions, Visitor, schedule::IntervalBounds};
use futures_util::FutureExt as _;
use news::{
    Cursor, Epoch, FeedUrl, Pause, Source, SourceId, SourceNotice, SourceState, Timestamp, VisitReport,
    VisitStatus,
};
use store::AppendedVisit;
use tokio::{
    sync::{Semaphore, broadcast},
    time::Instant,
};

use crate::{
    board::{Activity, Plate},
    gates::{Gates, Heard, Permit, Standing},
    host::Host,
    marks::Marks,
    metrics::Numbers,
    moving::{self, Change as Move},
    outage::{Change, Outage, Word},
    outcome::{Given, Outcome, Reading, binding, validators},
    recorder::{Record, Recorder},
    secrets::Secrets,
    websub::{self, Hubs},
};

/// How often a paused source looks whether its pause is over: the clock may have been set, or the machine asleep.
const PAUSE_LOOK_EVERY: Duration = Duration::from_secs(60);

/// How bytes become a document.
pub(crate) type Read = fn(&[u8], &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError>;

/// What all sources of one arbiter share.
pub(crate) struct Workshop {
    pub(crate) visitor: Visitor,
    /// Where the credentials of sources stand.
    pub(crate) secrets: Secrets,
    pub(crate) gates: Gates,
    /// Documents read at a time: the permit stays with the thread until it really ends.
    pub(crate) parsers: Arc<Semaphore>,
    /// Reads a document; `feed::read`, but for tests of what happens when it fails.
    pub(crate) read: Read,
    /// Which documents are being read, for the next process.
    pub(crate) marks: Marks,
    /// Whether it is them or us.
    pub(crate) outage: RefCell<Outage>,
    pub(crate) recorder: Addr<Recorder>,
    /// Keeps the subscriptions at hubs; nothing where no hub could reach us.
    pub(crate) hubs: Option<Addr<Hubs>>,
    pub(crate) notices: broadcast::Sender<wire::Notice>,
    /// A reload may set another one.
    pub(crate) pace: Cell<IntervalBounds>,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Clock,
    pub(crate) numbers: Numbers,
}

impl Workshop {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.now_millis())
    }
}

/// The visit does not wait longer for its document to be read; the thread keeps its permit until it really ends.
const READ_GIVE_UP: Duration = Duration::from_secs(30);

/// Watches one source.
pub(crate) struct SourceActor {
    plate: Arc<Plate>,
    shop: Rc<Workshop>,
    timer: Option<SpawnHandle>,
    visiting: bool,
    /// Stops at the end of the visit: the roster has another entry for this source.
    relieved: bool,
}

/// Come now, whatever the calendar says. A visit under way is that visit.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct VisitNow;

/// The calendar changed, or a pause began or ended: look at it again. A visit under way goes on.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Reconsider;

/// Stop; a visit under way is cancelled.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Leave;

/// Stop, at the end of the visit if one is under way.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Relieve;

/// A visit that is on record.
struct Settled {
    outcome: Outcome,
    appended: AppendedVisit,
    took: Duration,
}

impl SourceActor {
    pub(crate) fn new(plate: Arc<Plate>, shop: Rc<Workshop>) -> Self {
        Self { plate, shop, timer: None, visiting: false, relieved: false }
    }

    fn schedule(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        if let Some(pause) = self.plate.pause() {
            return self.sit_out(pause, ctx);
        }
        let Some(due) = self.plate.next_visit() else { return };
        let wait = due.since(self.shop.now());
        self.timer = Some(ctx.run_later(wait, move |actor, ctx| {
            actor.timer = None;
            actor.begin(Some(due), ctx);
        }));
    }

    /// No visit before the pause is over; one that fell due meanwhile is due then.
    fn sit_out(&mut self, pause: Pause, ctx: &mut Context<Self>) {
        let Some(until) = pause.until else { return };
        let wait = until.since(self.shop.now()).min(PAUSE_LOOK_EVERY);
        self.timer = Some(ctx.run_later(wait, move |actor, ctx| {
            actor.timer = None;
            let now = actor.shop.now();
            // Unless another order came in between.
            if actor.plate.pause().as_ref() == Some(&pause) && !pause.is_active(now) {
                actor.plate.end_pause(now);
                tracing::info!(source = %actor.plate.source.id, "pause ended");
            }
            actor.schedule(ctx);
        }));
    }

    /// `due` is when it should have begun; nothing when somebody asked for it out of turn.
    fn begin(&mut self, due: Option<Timestamp>, ctx: &mut Context<Self>) {
        if self.visiting {
            return;
        }
        if self.plate.is_paused() {
            return self.schedule(ctx);
        }
        self.visiting = true;
        let (shop, plate) = (Rc::clone(&self.shop), Arc::clone(&self.plate));
        let visit = carry_out(shop, plate, due);
        let id: Arc<str> = self.plate.source.id.as_str().into();
        let visit = work::during("visiting", id, visit).into_actor(self).map(|settled, actor, ctx| {
            actor.visiting = false;
            if let Some(settled) = settled {
                actor.settle(settled);
                if actor.relieved {
                    return ctx.stop();
                }
                actor.schedule(ctx);
            } else if actor.relieved {
                ctx.stop();
            } else if actor.plate.is_paused() {
                actor.plate.set_activity(Activity::Idle, actor.shop.now());
                actor.schedule(ctx);
            }
        });
        ctx.spawn(visit);
    }

    /// The one place where a visit ends: state, numbers, log line, notice.
    fn settle(&mut self, settled: Settled) {
        let Settled { outcome, appended, took } = settled;
        let _at_work = work::on("settling", self.plate.source.id.as_str());
        let before = self.plate.state();
        let after = appended.state.clone();
        let status = after.last_status.unwrap_or(VisitStatus::Error);
        if let Some(seq) = appended.last {
            self.plate.set_last_event(Cursor { epoch: self.shop.epoch.clone(), seq });
        }
        let report = VisitReport {
            source: self.plate.source.id.clone(),
            status,
            new: appended.new,
            updated: appended.updated,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            next_visit: after.next_visit,
            why: after.why.clone(),
            error: after.last_error.clone(),
        };
        self.count(&outcome, &appended, status, took);
        if !outcome.is_pardoned {
            log_change(&report, before.failures, &appended, &self.shop.epoch);
        }
        log_quarantine(&report.source, &before, &after);
        if let Some(change) = &outcome.moved {
            log_move(&self.plate.source, change);
        }
        let flapped = before.warnings.iter().any(|warning| warning.starts_with("guid-flap"));
        if appended.flapping && !flapped {
            tracing::warn!(source = %report.source, held = appended.held, "guids flap; matching by link and title");
        }
        self.plate.set_state(after);
        self.plate.set_activity(Activity::Idle, self.shop.now());
        websub::settled(&self.shop, &self.plate, appended.new, before.last_visit);
        let notice = SourceNotice { report, health: self.plate.status_in_full() };
        let json = serde_json::to_string(&notice).expect("every field of a notice has a JSON form");
        // An error says that nobody listens.
        self.shop.notices.send(wire::Notice::Source(json.into())).ok();
    }

    fn count(&self, outcome: &Outcome, appended: &AppendedVisit, status: VisitStatus, took: Duration) {
        let numbers = &self.shop.numbers;
        numbers.visits.get_or_create(&[("status", status.as_str())]).inc();
        if let Some(class) = outcome.class {
            numbers.failures.get_or_create(&[("class", class.as_str())]).inc();
        }
        numbers.items.get_or_create(&[("kind", "item")]).inc_by(u64::from(appended.new));
        numbers.items.get_or_create(&[("kind", "update")]).inc_by(u64::from(appended.updated));
        numbers.items_dropped.inc_by(outcome.dropped as u64);
        numbers.items_held.inc_by(u64::from(appended.held));
        numbers.visit_seconds.observe(took.as_secs_f64());
        if outcome.state.quarantine.is_some() && self.plate.quarantine().is_none() {
            numbers.quarantines.get_or_create(&[("for", "slow")]).inc();
        }
    }
}

impl Actor for SourceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.plate.set_activity(Activity::Idle, self.shop.now());
        self.schedule(ctx);
    }
}

impl Handler<VisitNow> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: VisitNow, ctx: &mut Self::Context) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.begin(None, ctx);
    }
}

impl Handler<Reconsider> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: Reconsider, ctx: &mut Self::Context) {
        if !self.visiting {
            self.schedule(ctx);
        }
    }
}

impl Handler<Relieve> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: Relieve, ctx: &mut Self::Context) {
        self.relieved = true;
        if !self.visiting {
            ctx.stop();
        }
    }
}

impl Handler<Leave> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Visits, concludes, records. Nothing when the source was paused while it waited, and when the log is closed: then
/// the process is about to end.
async fn carry_out(shop: Rc<Workshop>, plate: Arc<Plate>, due: Option<Timestamp>) -> Option<Settled> {
    let source = &plate.source;
    let before = plate.state();
    let asked = moving::asked(source, &before.moves);
    let host = Host::of(asked.secret());
    let mut permit = enter(&shop, &plate, &host, standing(&before)).await;
    if plate.is_paused() {
        return None;
    }
    if let Some(due) = due {
        shop.numbers.late_seconds.observe(shop.now().since(due).as_secs_f64());
    }
    let mut started = Instant::now();
    let mut fetched =
        AssertUnwindSafe(fetch_and_read(&shop, &plate, &asked, &mut permit)).catch_unwind().await;
    if let Ok(None) = fetched {
        shop.numbers.gave_way.inc();
        drop(permit);
        permit = enter(&shop, &plate, &host, Standing::Suspect).await;
        started = Instant::now();
        fetched = AssertUnwindSafe(fetch_and_read(&shop, &plate, &asked, &mut permit)).catch_unwind().await;
    }
    drop(permit);
    let fetched = fetched.map(|fetched| fetched.expect("a suspect never gives way"));
    if let Ok(fetched) = &fetched {
        listen(&shop, host.clone(), &fetched.visit);
    }
    let (pace, now, jitter) = (shop.pace.get(), shop.now(), fastrand::f64());
    let took = started.elapsed();
    let given = Given { source, before: &before, binding: before.url_hash, pace, now, took, jitter };
    let mut outcome = match fetched {
        Ok(Fetched { visit, reading, read_in, binding }) => {
            shop.numbers.body_bytes.inc_by(visit.body_bytes);
            let mut outcome = Outcome::conclude(Given { binding, ..given }, &visit, reading);
            if is_our_fault(&shop, host, &before, &visit) {
                outcome.pardon(given);
            }
            if read_in.is_some_and(|took| outcome.judge_reading(took)) {
                shop.numbers.slow_parses.inc();
            }
            outcome.confine(given);
            outcome
        }
        Err(panic) => {
            shop.numbers.panics.inc();
            Outcome::crashed(given, daemon::panics::message(&*panic))
        }
    };
    plate.set_activity(Activity::Recording, now);
    let items = std::mem::take(&mut outcome.items);
    websub::keep(plate.websub(), &mut outcome.state.websub);
    let record = store::VisitRecord { source: Arc::clone(source), items, state: outcome.state.clone(), now };
    let appended = shop.recorder.send(Record(record)).await.ok()?.ok()?;
    Some(Settled { outcome, appended, took: started.elapsed() })
}

async fn enter(shop: &Workshop, plate: &Plate, host: &Host, standing: Standing) -> Permit {
    let turn = shop.gates.queue(host, standing);
    plate.set_waiting(turn.sign(), shop.now());
    turn.await
}

/// A source whose last visit got no answer may hang again.
fn standing(before: &SourceState) -> Standing {
    let hung = [FailureClass::Timeout, FailureClass::Connect, FailureClass::Dns];
    let error = before.last_error.as_deref().filter(|_| before.failures > 0).unwrap_or_default();
    match hung.iter().any(|class| error.strip_prefix(class.as_str()).is_some_and(|e| e.starts_with(':'))) {
        true => Standing::Suspect,
        false => Standing::Living,
    }
}

/// Tells the gates what the host said: the one that answered, after redirects.
fn listen(shop: &Workshop, host: Host, visit: &fetch::FetchReport) {
    let host = visit.hops.last().map_or(host, |hop| Host::of(hop.to.secret()));
    match (&visit.answer, visit.code) {
        (FetchResult::Full(_) | FetchResult::NotModified { .. }, _) => shop.gates.hear(&host, Heard::Served),
        (_, Some(429)) => {
            let asked = visit.retry_after.map(|asked| asked.min(fetch::schedule::ask_max(shop.pace.get())));
            shop.gates.hear(&host, Heard::TooMany(asked));
        }
        _ => {}
    }
}

/// Listens for an outage of ours, and tells whether there is one and the visit failed because of it.
fn is_our_fault(shop: &Workshop, host: Host, before: &SourceState, visit: &fetch::FetchReport) -> bool {
    let lost = match &visit.answer {
        FetchResult::Failed(failure) if visit.code.is_none() => {
            matches!(failure.class, FailureClass::Dns | FailureClass::Connect | FailureClass::Timeout)
        }
        _ => false,
    };
    let was_healthy = before.failures == 0 && before.last_success.is_some();
    let word = if lost { Word::Lost } else { Word::Reached };
    let mut outage = shop.outage.borrow_mut();
    if !lost || was_healthy {
        match outage.hear(host, word, Instant::now()) {
            Some(Change::Began { hosts }) => {
                tracing::warn!(hosts, "most hosts cannot be reached; not blamed on the feeds");
            }
            Some(Change::Ended { lasted, pardoned }) => {
                tracing::info!(lasted_s = lasted.as_secs(), pardoned, "hosts can be reached again");
            }
            None => {}
        }
        shop.numbers.outage.set(i64::from(outage.is_on()));
    }
    let pardoned = lost && outage.is_on();
    if pardoned {
        outage.pardon();
        shop.numbers.pardoned.inc();
    }
    pardoned
}

/// A visit on its way to its conclusions.
struct Fetched {
    visit: fetch::FetchReport,
    reading: Reading,
    /// How long the reading took.
    read_in: Option<Duration>,
    /// What the validators belong to: see [`binding`].
    binding: u64,
}

/// Nothing when it hung while others wanted its place.
async fn fetch_and_read(
    shop: &Workshop,
    plate: &Plate,
    asked: &FeedUrl,
    permit: &mut Permit,
) -> Option<Fetched> {
    let (source, state) = (&plate.source, plate.state());
    plate.set_activity(Activity::Fetching, shop.now());
    let manner = match shop.secrets.manner(&source.access).await {
        Ok(manner) => manner,
        Err(failure) => {
            let visit = fetch::FetchReport::not_attempted(failure);
            return Some(Fetched { visit, reading: Reading::None, read_in: None, binding: state.url_hash });
        }
    };
    let binding = binding(source, manner.as_ref().map_or(0, RequestOptions::fingerprint));
    let (etag, last_modified) = validators(binding, &state, shop.now());
    let request = fetch::VisitRequest {
        etag,
        last_modified,
        validator_key: state.validator_key,
        timeout: source.timeout,
        body_bytes_max: source.body_bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
        options: manner.as_ref(),
        ..fetch::VisitRequest::new(asked, shop.now())
    };
    let mut visit = tokio::select! {
        biased;
        visit = work::during("fetching", source.id.as_str(), shop.visitor.visit(&request)) => visit,
        () = permit.told_to_give_way() => return None,
    };
    permit.stay();
    let mut read_in = None;
    let reading = match &mut visit.answer {
        FetchResult::Full(full) if state.body_hash == Some(full.body_hash) => {
            // Nothing is held between visits, and nothing needs the bytes any more.
            full.body = bytes::Bytes::new();
            Reading::Same
        }
        FetchResult::Full(full) => {
            plate.set_activity(Activity::Parsing, shop.now());
            let body = std::mem::take(&mut full.body);
            let known = (full.url.clone(), full.content_type.clone(), source.language.clone());
            let (reading, took) = read(shop, &source.id, body, known).await;
            read_in = took;
            reading
        }
        _ => Reading::None,
    };
    if matches!(&reading, Reading::Panicked(_)) {
        shop.numbers.panics.inc();
    }
    Some(Fetched { visit, reading, read_in, binding })
}

/// Reads the document on a thread of the blocking pool, and says how long that took.
async fn read(
    shop: &Workshop,
    source: &SourceId,
    body: bytes::Bytes,
    (url, content_type, language): (url::Url, Option<String>, Option<String>),
) -> (Reading, Option<Duration>) {
    let permit = Arc::clone(&shop.parsers).acquire_owned().await;
    let permit = permit.expect("the parsers' semaphore is never closed");
    let (read, marks, source) = (shop.read, shop.marks.clone(), source.clone());
    let parse = move || {
        let _permit = permit;
        let _at_work = work::on("parsing", source.as_str());
        let _mark = marks.begin(&source);
        let hints = feed::Hints {
            url: Some(&url),
            content_type: content_type.as_deref(),
            language: language.as_deref(),
        };
        let started = Instant::now();
        (read(&body, &hints), started.elapsed())
    };
    match tokio::time::timeout(READ_GIVE_UP, tokio::task::spawn_blocking(parse)).await {
        Ok(Ok((Ok(document), took))) => (Reading::Document(Box::new(document)), Some(took)),
        Ok(Ok((Err(error), took))) => {
            (Reading::Failed { class: error.class(), message: error.to_string() }, Some(took))
        }
        Ok(Err(join)) => {
            let message = match join.try_into_panic() {
                Ok(panic) => daemon::panics::message(&*panic).to_owned(),
                Err(cancelled) => cancelled.to_string(),
            };
            (Reading::Panicked(message), None)
        }
        Err(_) => {
            let class = FailureClass::TooComplex;
            let message = "reading the document takes too long".to_owned();
            (Reading::Failed { class, message }, Some(READ_GIVE_UP))
        }
    }
}

fn log_quarantine(source: &SourceId, before: &SourceState, after: &SourceState) {
    match (&before.quarantine, &after.quarantine) {
        (None, Some(reason)) => tracing::warn!(%source, reason, "put into quarantine"),
        (Some(_), None) => tracing::info!(%source, "out of quarantine"),
        _ => {}
    }
}

/// Changes of state are for people, repeats for whoever asks.
fn log_change(report: &VisitReport, failures_before: u32, appended: &AppendedVisit, epoch: &Epoch) {
    let (source, status) = (&report.source, report.status.as_str());
    match &report.error {
        Some(error) if failures_before == 0 => {
            tracing::warn!(%source, status, error, why = report.why, "visit failed");
        }
        Some(error) => tracing::debug!(%source, status, error, why = report.why, "visit failed again"),
        None if failures_before > 0 => {
            tracing::info!(%source, status, failures = failures_before, items = report.new, "source recovered");
        }
        None => {}
    }
    if let (Some(first), Some(last)) = (appended.first, appended.last) {
        let (items, updates, took_ms) = (report.new, report.updated, report.took_ms);
        let (seq_first, seq) = (first.0, last.0);
        tracing::info!(%source, %epoch, seq, seq_first, items, updates, took_ms, "recorded items");
    }
}

/// The catalogue stays as it is, so whoever reads it must be able to find out.
fn log_move(source: &Source, change: &Move) {
    let (id, url) = (&source.id, &source.url);
    match change {
        Move::Adopted { to, why } => {
            tracing::info!(source = %id, %url, moved_to = %to, why, "adopted the address that the feed moved to");
        }
        Move::Forgotten { adopted, why } => {
            tracing::info!(source = %id, %url, moved_to = %adopted, why, "went back to the catalogue's address");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes the actor die, as a fault of ours in one of its handlers would.
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
