//! WebSub (<https://www.w3.org/TR/websub/>): a hub's push is a hint to visit sooner, never a reason to stop visiting.
//!
//! ```text
//! visit ──names a hub──► Hubs ──POST──► hub ──GET /websub/{id}──► gateway ──► Hubs: is this ours? ──► verified
//!                                       hub ──POST /websub/{id}─► gateway ──► Hubs: signed? ──► VisitNow, soon
//! ```
//!
//! One actor with the calendar of all subscriptions. The truth is on the board, a copy of it in the store. What a hub
//! pushes is never read as a feed; a source whose hub works is still visited, at most half as often.

mod lease;
mod signature;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, Addr, AsyncContext as _, Context, Handler, Message,
    MessageResult, WrapFuture as _,
};
use fetch::schedule::{IntervalBounds, Next, ScheduleInput, next_visit};
use futures_util::FutureExt as _;
use news::{
    FeedUrl, HubSubscription, PushState, SecretText, Source, SourceId, Timestamp, VisitStatus, WebSubState,
};
use ring::rand::{SecureRandom as _, SystemRandom};

pub(crate) use self::{lease::discover, signature::is_right};
use crate::{
    board::{Activity, Board, Plate},
    gates::Standing,
    host::Host,
    recorder::Remember,
    roster::{Roster, Visit},
    source_actor::Workshop,
};

/// How often the calendar is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often the whole board is looked through, besides when a visit or a new catalogue says that there is a reason.
const REVIEW_EVERY: Duration = Duration::from_secs(5);
/// How often gateways are told to read the list of sources again because of us: it may be long.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Hubs that are asked at the same time; the rest waits for its turn.
const ASKING_MAX: usize = 16;
/// Messages that may wait; what finds no room is found again by the next review.
const MAILBOX: usize = 1024;
/// The shortest time between two visits that pushes make, or `fetch.interval_min` if that is shorter still.
const HINT_SPACING: Duration = Duration::from_secs(30);
/// Subscriptions that we gave up lately; of more than these the hub is not told that we did.
const LEAVING_MAX: usize = 10_000;
/// How long a hub may take to ask whether we really want to leave.
const LEAVING_FOR: Duration = Duration::from_secs(3600);

/// Keeps the subscriptions of all sources.
pub(crate) struct Hubs {
    shop: Rc<Workshop>,
    board: Board,
    roster: Addr<Roster>,
    /// Without a final slash.
    public_url: String,
    /// By the id of the callback.
    known: HashMap<String, Arc<Plate>>,
    leaving: HashMap<String, Leaving>,
    /// What comes next; an entry may be out of date, the board decides.
    due: BTreeSet<(Timestamp, SourceId)>,
    /// Sources whose hub is being asked.
    asking: HashSet<SourceId>,
    hints: BTreeMap<SourceId, Hint>,
    /// Not in the store yet.
    unsaved: BTreeMap<SourceId, Arc<Plate>>,
    /// States have changed without a visit that would have told of it.
    is_untold: bool,
    /// When gateways were last told.
    told: Option<Timestamp>,
    random: SystemRandom,
}

struct Leaving {
    topic: SecretText,
    until: Timestamp,
}

/// A push that is to become a visit, or has lately.
struct Hint {
    not_before: Timestamp,
    is_waiting: bool,
}

/// Look through the board: the catalogue has changed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Review;

/// Look at this source: it was visited.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Visited(pub(crate) SourceId);

/// A hub asks whether this is what we want; the answer is yes or no.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub(crate) struct Verify {
    pub(crate) id: String,
    pub(crate) mode: String,
    pub(crate) topic: String,
    pub(crate) lease: Option<Duration>,
    pub(crate) reason: String,
}

/// Whose secret is to be used for what comes under this id; nothing when the id is none of ours.
#[derive(Debug, Message)]
#[rtype(result = "Option<Signer>")]
pub(crate) struct Whose(pub(crate) String);

/// The secret that the hub signs with, if it was given one.
#[derive(Debug)]
pub(crate) struct Signer(pub(crate) Option<SecretText>);

/// A push came under this id and is as it should be.
#[derive(Debug, Message)]
#[rtype(result = "&'static str")]
pub(crate) struct Pushed(pub(crate) String);

/// The process ends; subscriptions stay.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Close;

/// What is asked of a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Subscribe,
    Unsubscribe,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
        }
    }
}

/// The shortest time between two visits of a source that pushes make; also how long a push accounts for what is found.
fn spacing(pace: IntervalBounds) -> Duration {
    HINT_SPACING.min(pace.interval_min)
}

/// The next visit of a source whose hub does what it promised: twice as far off as usual, within the bounds and
/// whatever else counts, and never where the operator fixed the interval.
pub(crate) fn stretch(
    usual: Next,
    facts: &ScheduleInput<'_>,
    websub: Option<&WebSubState>,
    previous_visit: Option<Timestamp>,
) -> Next {
    let Some(subscription) = websub.and_then(|websub| websub.subscription.as_ref()) else { return usual };
    let is_news = facts.outcome == fetch::schedule::ScheduleOutcome::Healthy;
    let is_healthy = is_news || facts.outcome == fetch::schedule::ScheduleOutcome::Unchanged;
    let told = !is_news || lease::told(subscription, facts.now, previous_visit, spacing(facts.bounds));
    let works = is_healthy && told && lease::works(subscription, facts.now);
    let (Some(at), None, true) = (usual.at, facts.every, works) else { return usual };
    let twice = at.since(facts.now).saturating_mul(2);
    let longer = next_visit(&ScheduleInput { every: Some(twice), ..facts.clone() }, 0.5);
    if longer.at <= usual.at {
        return usual;
    }
    Next { at: longer.at, why: format!("hub pushes: twice the usual pause ({})", usual.why) }
}

/// What a visit knew of the subscription is older than what the board knows by now.
pub(crate) fn keep(current: Option<Box<WebSubState>>, visited: &mut Option<Box<WebSubState>>) {
    match (current.and_then(|websub| websub.subscription), visited) {
        (Some(subscription), visited) => visited.get_or_insert_default().subscription = Some(subscription),
        (None, Some(visited)) => visited.subscription = None,
        (None, None) => {}
    }
}

/// A visit has found `new` items: did the hub tell us?
pub(crate) fn settled(shop: &Workshop, plate: &Plate, new: u32, previous_visit: Option<Timestamp>) {
    let Some(hubs) = &shop.hubs else { return };
    let (now, covers) = (shop.now(), spacing(shop.pace.get()));
    let missed = new > 0
        && plate.change(|subscription| lease::found(subscription, now, previous_visit, covers)) == Some(true);
    if missed {
        shop.numbers.websub.missed.inc();
        tracing::info!(source = %plate.source.id, "hub was silent; polling as usual");
    }
    if plate.has_websub() {
        // A full mailbox: the next review finds it.
        hubs.try_send(Visited(plate.source.id.clone())).ok();
    }
}

impl Hubs {
    pub(crate) fn new(shop: Rc<Workshop>, board: Board, roster: Addr<Roster>, public_url: String) -> Self {
        Self {
            shop,
            board,
            roster,
            public_url,
            known: HashMap::new(),
            leaving: HashMap::new(),
            due: BTreeSet::new(),
            asking: HashSet::new(),
            hints: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            is_untold: false,
            told: None,
            random: SystemRandom::new(),
        }
    }

    /// So many random bits, as hexadecimal digits. Nothing when the system has none to give: then later.
    fn draw<const BYTES: usize>(&self) -> Option<SecretText> {
        let mut bytes = [0; BYTES];
        self.random.fill(&mut bytes).ok()?;
        let mut text = String::with_capacity(2 * BYTES);
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a string takes everything");
        }
        Some(SecretText::new(text))
    }

    /// Everything on the board as it should be: subscriptions begun, ended, found again; the numbers counted.
    fn review(&mut self, ctx: &mut Context<Self>) {
        let mut states = [0_i64; PushState::ALL.len()];
        let mut gone = std::mem::take(&mut self.known);
        for plate in self.board.plates() {
            let state = self.look_at(&plate, ctx);
            states[state as usize] += 1;
            if let Some(id) = plate.websub().and_then(|w| w.subscription).map(|s| s.id) {
                gone.remove(id.reveal());
            }
        }
        for plate in gone.into_values() {
            // Given up already, or its source is no longer in the catalogue.
            if self.board.get(plate.source.id.as_str()).is_none() {
                self.give_up(&plate, ctx);
            }
        }
        for (state, count) in PushState::ALL.into_iter().zip(states) {
            self.shop.numbers.websub.subscriptions.get_or_create(&[("state", state.as_str())]).set(count);
        }
        let now = self.shop.now();
        self.leaving.retain(|_, leaving| leaving.until > now);
        self.hints.retain(|_, hint| hint.is_waiting || hint.not_before > now);
    }

    fn look_at(&mut self, plate: &Arc<Plate>, ctx: &mut Context<Self>) -> PushState {
        let Some(websub) = plate.websub() else { return PushState::None };
        if !plate.source.enabled {
            self.give_up(plate, ctx);
            return PushState::None;
        }
        if !lease::fits(&websub) {
            self.give_up(plate, ctx);
            self.begin(plate, &websub);
        }
        let Some(subscription) = plate.websub().and_then(|w| w.subscription) else { return PushState::None };
        self.known.insert(subscription.id.reveal().to_owned(), Arc::clone(plate));
        self.due.insert((lease::due(&subscription), plate.source.id.clone()));
        subscription.state
    }

    fn begin(&mut self, plate: &Arc<Plate>, websub: &WebSubState) {
        let (Some(hub), Some(topic)) = (&websub.hub, &websub.topic) else { return };
        // 128 and 256 bits.
        let (Some(id), Some(secret)) = (self.draw::<16>(), self.draw::<32>()) else { return };
        let subscription = lease::begin(hub, topic, id, secret, self.shop.now());
        plate.set_subscription(Some(subscription));
        self.save(plate);
    }

    /// Ends a subscription, and tells the hub if it may know of it. What it answers changes nothing.
    fn give_up(&mut self, plate: &Arc<Plate>, ctx: &mut Context<Self>) {
        let Some(subscription) = plate.websub().and_then(|w| w.subscription) else { return };
        plate.set_subscription(None);
        self.save(plate);
        self.known.remove(subscription.id.reveal());
        let is_asked = subscription.tries > 0 || subscription.lease_end.is_some();
        if !is_asked {
            return;
        }
        if self.leaving.len() >= LEAVING_MAX || self.asking.len() >= ASKING_MAX {
            let labels = [("mode", Mode::Unsubscribe.as_str()), ("result", "skipped")];
            self.shop.numbers.websub.requests.get_or_create(&labels).inc();
            return;
        }
        let until = self.shop.now().plus(LEAVING_FOR);
        let leaving = Leaving { topic: subscription.topic.clone(), until };
        self.leaving.insert(subscription.id.reveal().to_owned(), leaving);
        self.ask(&plate.source, &subscription, Mode::Unsubscribe, ctx);
    }

    fn save(&mut self, plate: &Arc<Plate>) {
        self.unsaved.insert(plate.source.id.clone(), Arc::clone(plate));
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if !self.unsaved.is_empty() {
            let plates = self.unsaved.values().cloned().collect();
            // A full mailbox: the next tick tries again.
            if self.shop.recorder.try_send(Remember(plates)).is_ok() {
                self.unsaved.clear();
            }
        }
        let now = self.shop.now();
        if self.is_untold && self.told.is_none_or(|told| now.since(told) >= TELL_EVERY) {
            // An error says that nobody listens.
            self.shop.notices.send(wire::Notice::Catalogue).ok();
            (self.is_untold, self.told) = (false, Some(now));
        }
        while self.asking.len() < ASKING_MAX && self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, source)) = self.due.pop_first() else { break };
            self.attend(&source, now, ctx);
        }
        let waiting = self.hints.iter().filter(|(_, hint)| hint.is_waiting && hint.not_before <= now);
        let waiting: Vec<_> = waiting.map(|(source, _)| source.clone()).collect();
        for source in waiting {
            self.visit(source, now);
        }
    }

    /// It is time for this subscription, or was when the entry was made.
    fn attend(&mut self, source: &SourceId, now: Timestamp, ctx: &mut Context<Self>) {
        let Some(plate) = self.board.get(source.as_str()).filter(|plate| plate.source.enabled) else {
            return;
        };
        let is_asked = self.asking.contains(source);
        let looked = plate.change(|subscription| {
            let was = subscription.clone();
            lease::look(subscription, now);
            let asks = subscription.next_try <= now && !is_asked;
            if asks {
                lease::asking(subscription, now);
            }
            (asks, was != *subscription, subscription.clone())
        });
        let Some((asks, changed, subscription)) = looked else { return };
        if changed {
            self.save(&plate);
        }
        if asks {
            self.ask(&plate.source, &subscription, Mode::Subscribe, ctx);
        }
        if !is_asked {
            self.due.insert((lease::due(&subscription), source.clone()));
        }
    }

    /// Asks the hub, through the same gates and the same guard as a visit.
    fn ask(&mut self, source: &Source, subscription: &HubSubscription, mode: Mode, ctx: &mut Context<Self>) {
        let id = subscription.id.clone();
        let mut form = vec![
            ("hub.mode", mode.as_str().to_owned()),
            ("hub.topic", subscription.topic.reveal().to_owned()),
            ("hub.callback", format!("{}/websub/{}", self.public_url, id.reveal())),
        ];
        if mode == Mode::Subscribe {
            form.push(("hub.lease_seconds", lease::LEASE_WANTED.as_secs().to_string()));
            form.extend(
                subscription.secret.as_ref().map(|secret| ("hub.secret", secret.reveal().to_owned())),
            );
        }
        let (shop, hub) = (Rc::clone(&self.shop), subscription.hub.clone());
        let standing = if subscription.tries > 1 { Standing::Suspect } else { Standing::Living };
        let question = async move {
            let hub = FeedUrl::try_new(hub.reveal()).map_err(|error| error.to_string())?;
            let mut permit = shop.gates.queue(&Host::of(hub.secret()), standing).await;
            // A form is not sent twice.
            permit.stay();
            let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = AssertUnwindSafe(shop.visitor.post_form(&hub, &form)).catch_unwind().await;
            drop(permit);
            match answer {
                Ok(Ok(200..=299)) => Ok(()),
                Ok(Ok(code)) => Err(format!("http-status: the hub answered {code}")),
                Ok(Err(failure)) => Err(failure.to_string()),
                Err(panic) => Err(format!("panic: {}", daemon::panics::message(&*panic))),
            }
        };
        let source = source.id.clone();
        self.asking.insert(source.clone());
        ctx.spawn(question.into_actor(self).map(move |answer, hubs, _| {
            hubs.asking.remove(&source);
            hubs.hear(&source, &id, mode, answer);
        }));
    }

    /// What the hub said to a question.
    fn hear(&mut self, source: &SourceId, id: &SecretText, mode: Mode, answer: Result<(), String>) {
        let result = if answer.is_ok() { "taken" } else { "failed" };
        let labels = [("mode", mode.as_str()), ("result", result)];
        self.shop.numbers.websub.requests.get_or_create(&labels).inc();
        let Some(plate) = self.board.get(source.as_str()).filter(|_| mode == Mode::Subscribe) else { return };
        let now = self.shop.now();
        let heard = plate.change(|subscription| {
            if subscription.id != *id {
                return None;
            }
            let first = subscription.error.is_none();
            if let Err(error) = &answer {
                lease::refused(subscription, now, error);
            }
            Some((first, lease::due(subscription)))
        });
        let Some((first, due)) = heard.flatten() else { return };
        self.is_untold |= answer.is_err() && first;
        match answer {
            Err(error) if first => tracing::warn!(%source, error, "could not subscribe at the hub"),
            Err(error) => tracing::debug!(%source, error, "could not subscribe at the hub again"),
            Ok(()) => tracing::debug!(%source, "hub took the subscription"),
        }
        self.due.insert((due, source.clone()));
        self.save(&plate);
    }

    /// The plate that a callback belongs to, as the board has it now.
    fn plate(&self, id: &str) -> Option<Arc<Plate>> {
        let plate = self.board.get(self.known.get(id)?.source.id.as_str())?;
        let is_current = |websub: Box<WebSubState>| websub.subscription.is_some_and(|s| s.id.reveal() == id);
        plate.websub().is_some_and(is_current).then_some(plate)
    }

    fn verify(&mut self, verify: &Verify) -> bool {
        if verify.mode == Mode::Unsubscribe.as_str() {
            let now = self.shop.now();
            let leaving = self.leaving.get(&verify.id);
            return leaving.is_some_and(|l| l.until > now && l.topic.reveal() == verify.topic);
        }
        let Some(plate) = self.plate(&verify.id) else { return false };
        let (now, renew_min) = (self.shop.now(), self.shop.pace.get().interval_min);
        let answer = plate.change(|subscription| {
            let was = subscription.state;
            let is_asked = subscription.tries > 0 || subscription.lease_end.is_some();
            let is_ours = is_asked && subscription.topic.reveal() == verify.topic;
            match verify.mode.as_str() {
                "subscribe" if is_ours && was != PushState::Denied => {
                    lease::verified(subscription, now, verify.lease, renew_min, fastrand::f64());
                }
                "denied" if is_ours => lease::denied(subscription, now, &verify.reason),
                _ => return None,
            }
            Some((was, subscription.state, lease::due(subscription)))
        });
        let Some((was, is, due)) = answer.flatten() else { return false };
        let source = &plate.source.id;
        if was != is {
            self.is_untold = true;
            tracing::info!(%source, status = is.as_str(), before = was.as_str(), "subscription changed");
        }
        self.due.insert((due, source.clone()));
        self.save(&plate);
        true
    }

    /// A push that may be believed: what became of it, in one word.
    fn take_push(&mut self, id: &str) -> &'static str {
        let Some(plate) = self.plate(id) else { return "unknown" };
        let now = self.shop.now();
        let due = plate.change(|subscription| {
            let is_live = lease::is_live(subscription, now);
            is_live.then(|| {
                lease::pushed(subscription, now);
                lease::due(subscription)
            })
        });
        let Some(due) = due.flatten() else { return "unverified" };
        let source = plate.source.id.clone();
        self.due.insert((due, source.clone()));
        self.save(&plate);
        let state = plate.state();
        let is_sent_away = matches!(state.last_status, Some(VisitStatus::Throttled | VisitStatus::Gone));
        if is_sent_away && state.next_visit.is_none_or(|next| next > now) {
            return "held";
        }
        let hint = self.hints.entry(source.clone()).or_insert(Hint { not_before: now, is_waiting: false });
        if hint.is_waiting {
            return "coalesced";
        }
        hint.is_waiting = true;
        if hint.not_before <= now {
            self.visit(source, now);
        }
        "taken"
    }

    /// Turns a hint into a visit. One that is under way may have begun before the publication, so it is waited for.
    fn visit(&mut self, source: SourceId, now: Timestamp) {
        let Some(hint) = self.hints.get_mut(&source) else { return };
        let Some(plate) = self.board.get(source.as_str()).filter(|plate| plate.source.enabled) else {
            self.hints.remove(&source);
            return;
        };
        if plate.activity() != Activity::Idle {
            return;
        }
        // A full mailbox: the next tick tries again.
        if self.roster.try_send(Visit(vec![source.to_string()])).is_ok() {
            *hint = Hint { not_before: now.plus(spacing(self.shop.pace.get())), is_waiting: false };
        }
    }
}

impl Actor for Hubs {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(TICK, |hubs, ctx| hubs.tick(ctx));
        ctx.run_interval(REVIEW_EVERY, |hubs, ctx| hubs.review(ctx));
    }
}

impl Handler<Review> for Hubs {
    type Result = ();

    fn handle(&mut self, _: Review, ctx: &mut Self::Context) {
        self.review(ctx);
    }
}

impl Handler<Visited> for Hubs {
    type Result = ();

    fn handle(&mut self, Visited(source): Visited, ctx: &mut Self::Context) {
        if let Some(plate) = self.board.get(source.as_str()) {
            self.look_at(&plate, ctx);
        }
    }
}

impl Handler<Verify> for Hubs {
    type Result = MessageResult<Verify>;

    fn handle(&mut self, verify: Verify, _: &mut Self::Context) -> Self::Result {
        let answer = self.verify(&verify);
        let result = if answer { "confirmed" } else { "refused" };
        self.shop.numbers.websub.verifications.get_or_create(&[("result", result)]).inc();
        MessageResult(answer)
    }
}

impl Handler<Whose> for Hubs {
    type Result = MessageResult<Whose>;

    fn handle(&mut self, Whose(id): Whose, _: &mut Self::Context) -> Self::Result {
        let websub = self.plate(&id).and_then(|plate| plate.websub());
        MessageResult(websub.and_then(|w| w.subscription).map(|subscription| Signer(subscription.secret)))
    }
}

impl Handler<Pushed> for Hubs {
    type Result = MessageResult<Pushed>;

    fn handle(&mut self, Pushed(id): Pushed, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.take_push(&id))
    }
}

impl Handler<Close> for Hubs {
    type Result = ();

    fn handle(&mut self, _: Close, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: fn() -> Timestamp = || Timestamp::from_millis(1_800_000_000_000);

    /// Verified an hour ago; the last push came as long ago as `pushed`.
    fn websub(pushed: Option<Duration>) -> WebSubState {
        let hidden = |text: &str| SecretText::new(text.to_owned());
        let began = Timestamp::from_millis(NOW().millis() - 3_600_000);
        let mut one =
            lease::begin(&hidden("https://h.example/"), &hidden(""), hidden("id"), hidden("s"), began);
        lease::asking(&mut one, began);
        lease::verified(&mut one, began, Some(100 * HOUR), HOUR, 0.5);
        one.last_push = pushed.map(|ago| {
            let ms = i64::try_from(ago.as_millis()).unwrap();
            Timestamp::from_millis(NOW().millis() - ms)
        });
        WebSubState { hub: None, topic: None, subscription: Some(one) }
    }

    fn facts(outcome: fetch::schedule::ScheduleOutcome) -> ScheduleInput<'static> {
        ScheduleInput::new(IntervalBounds::default(), NOW(), outcome)
    }

    fn minutes(next: &Next) -> u64 {
        next.at.unwrap().since(NOW()).as_secs() / 60
    }

    #[test]
    fn while_pushes_work_visits_are_half_as_often_and_never_rarer_than_the_longest_interval() {
        use fetch::schedule::ScheduleOutcome::{Failed, Healthy, Unchanged};
        let minute = Duration::from_secs(60);
        let previous = Some(Timestamp::from_millis(NOW().millis() - 600_000));
        let usual = |wait| Next { at: Some(NOW().plus(wait)), why: "every 1 h".to_owned() };
        let after = |facts: ScheduleInput<'_>, pushed: Option<Duration>, wait: Duration| {
            let next = stretch(usual(wait), &facts, Some(&websub(pushed)), previous);
            (minutes(&next), next.why)
        };
        let (wait, why) = after(facts(Unchanged), Some(minute), HOUR);
        assert_eq!((wait, why.as_str()), (120, "hub pushes: twice the usual pause (every 1 h)"));
        assert_eq!(after(facts(Healthy), Some(minute), HOUR).0, 120, "the push told of it");
        let bounded = after(facts(Unchanged), Some(minute), 20 * HOUR).0;
        assert!((20 * 60..=24 * 60).contains(&bounded), "{bounded}");
        for (facts, pushed) in [
            (facts(Unchanged), None),
            (facts(Failed), Some(minute)),
            (facts(Healthy), Some(HOUR)),
            (ScheduleInput { every: Some(HOUR), ..facts(Unchanged) }, Some(minute)),
        ] {
            assert_eq!(after(facts, pushed, HOUR), (60, "every 1 h".to_owned()));
        }
        let nothing = stretch(usual(HOUR), &facts(Unchanged), None, previous);
        assert_eq!(minutes(&nothing), 60);
    }

    #[test]
    fn a_visit_never_undoes_what_a_hub_said_meanwhile() {
        let verified = websub(None);
        let hub = Some(SecretText::new("https://new.example/".to_owned()));
        let mut visited = Some(Box::new(WebSubState { hub: hub.clone(), ..WebSubState::default() }));
        keep(Some(Box::new(verified.clone())), &mut visited);
        let kept = visited.clone().unwrap();
        assert_eq!((kept.hub, kept.subscription), (hub, verified.subscription.clone()));
        keep(None, &mut visited);
        assert_eq!(visited.unwrap().subscription, None, "one that was given up meanwhile does not come back");
        let mut visited = None;
        keep(Some(Box::new(verified.clone())), &mut visited);
        assert_eq!(visited.unwrap().subscription, verified.subscription);
    }
}
