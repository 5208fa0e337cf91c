//! The actor that maintains the subscriptions of all sources: it sends requests to hubs when they are due, and handles
//! pushes. The state is in the entries of the sources, a copy of it in the store.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, MessageResult,
    Recipient, WrapFuture as _,
};
use fetch::{Failure, FormAnswer, HeldHop, RequestOptions, schedule::server_interval_max};
use futures_util::FutureExt as _;
use news::{
    FeedUrl, HubSubscription, PushState, SecretText, Source, SourceId, Timestamp, VisitStatus, WebSubState,
};
use notation::humanize;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{
    due::DueDates,
    messages::{
        AcceptPush, CallbackSecret, IntentAnswer, LookupSecret, PushResult, ReviewSubscriptions,
        SourceVisited, VerifyIntent, VisitFindings,
    },
    pushes::{PushOutcome, SourcePushes, earliest_visit},
    subscription::{self, HubFailure, LEASE_WANTED},
};
use crate::{
    messages::{RecordSubscriptions, Stop, VisitSources},
    queue::limiter::Priority,
    status::{
        activity::Activity,
        registry::{SourceEntry, SourceRegistry},
    },
    visit::{context::VisitContext, hops::PacedHops},
};

/// How often due subscriptions and pushes are processed.
const TICK: Duration = Duration::from_millis(250);
/// How often all sources are reviewed, besides after a visit or a new catalogue.
const REVIEW_EVERY: Duration = Duration::from_secs(5);
/// How often at most the gateways read the list of sources again because of us: it may be long.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(30);
/// A visit that ended so long ago, in milliseconds, has been reported, unless our mailbox was full.
const REPORTED_MS: i64 = 60_000;
/// Requests to hubs at the same time.
const REQUESTS_MAX: usize = 16;
/// Messages in the mailbox; the next review finds what was rejected.
const MAILBOX: usize = 1024;
/// Unsubscriptions that wait for the verification of their hub; beyond these, a hub is not notified.
const UNSUBSCRIBING_MAX: usize = 10_000;
/// Callback ids of sources that have left for another daemon; those beyond are unknown.
const LEFT_MAX: usize = 65_536;
/// How long a hub is told to come again that uses one of them: until the other daemon knows it, which takes seconds.
const LEFT_FOR: Duration = Duration::from_secs(3600);
/// How long a hub may take to verify an unsubscription.
const UNSUBSCRIBING_FOR: Duration = Duration::from_secs(3600);

/// Keeps the subscriptions of all sources.
pub(crate) struct WebSubActor {
    ctx: Rc<VisitContext>,
    registry: SourceRegistry,
    supervisor: Recipient<VisitSources>,
    recorder: Recipient<RecordSubscriptions>,
    /// Without a trailing slash.
    public_url: String,
    /// Sources with a subscription, by callback id.
    by_callback: HashMap<String, Arc<SourceEntry>>,
    unsubscribing: HashMap<String, Unsubscription>,
    /// Callback ids of sources that have left for another daemon, and how long they are remembered.
    left: HashMap<String, Timestamp>,
    /// When which subscription is due; may be out of date, the entry of the source decides.
    due: DueDates,
    /// Sources with a request to their hub in progress.
    requesting: HashSet<SourceId>,
    /// Pushes that are not settled yet.
    pushes: BTreeMap<SourceId, SourcePushes>,
    /// Subscriptions that the store does not have yet.
    unsaved: BTreeMap<SourceId, Arc<SourceEntry>>,
    /// A state has changed without a visit, whose notice would have shown it.
    has_unannounced: bool,
    /// When the gateways were last notified.
    last_announced: Option<Timestamp>,
    random: SystemRandom,
}

struct Unsubscription {
    topic: SecretText,
    until: Timestamp,
}

/// Whose callback id it is.
enum CallbackOwner {
    /// Of this source.
    Here(Arc<SourceEntry>),
    /// Of a source that leaves for another daemon, or has left.
    Leaving,
    /// Of none.
    Unknown,
}

/// `hub.mode` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HubMode {
    Subscribe,
    Unsubscribe,
}

impl HubMode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
        }
    }
}

impl WebSubActor {
    pub(crate) fn new(
        ctx: Rc<VisitContext>,
        registry: SourceRegistry,
        supervisor: Recipient<VisitSources>,
        recorder: Recipient<RecordSubscriptions>,
        public_url: String,
    ) -> Self {
        Self {
            ctx,
            registry,
            supervisor,
            recorder,
            public_url,
            by_callback: HashMap::new(),
            unsubscribing: HashMap::new(),
            left: HashMap::new(),
            due: DueDates::default(),
            requesting: HashSet::new(),
            pushes: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            has_unannounced: false,
            last_announced: None,
            random: SystemRandom::new(),
        }
    }

    /// Random bytes as hexadecimal digits. `None` if the system has no randomness yet; then it is tried later.
    fn random_hex<const BYTES: usize>(&self) -> Option<SecretText> {
        let mut bytes = [0; BYTES];
        self.random.fill(&mut bytes).ok()?;
        let mut text = String::with_capacity(2 * BYTES);
        for byte in bytes {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        Some(SecretText::new(text))
    }

    /// Reviews all sources: begins and ends subscriptions, and counts them.
    fn review(&mut self, actor_ctx: &mut Context<Self>) {
        let mut states = [0_i64; PushState::ALL.len()];
        let mut removed = std::mem::take(&mut self.by_callback);
        for entry in self.registry.entries() {
            let state = self.review_source(&entry, actor_ctx);
            states[state as usize] += 1;
            if let Some(id) = entry.websub().and_then(|w| w.subscription).map(|s| s.id) {
                removed.remove(id.reveal());
            }
        }
        let now = self.ctx.now();
        for (id, entry) in removed {
            if entry.is_leaving() {
                // The subscription is the other daemon's.
                self.remember_left(id, now);
            } else if self.registry.get(entry.source.id.as_str()).is_none() {
                // The subscription has ended already, or its source is no longer in the catalogue.
                self.unsubscribe(&entry, actor_ctx);
            }
        }
        for (state, count) in PushState::ALL.into_iter().zip(states) {
            self.ctx.metrics.websub.subscriptions.get_or_create(&[("state", state.as_str())]).set(count);
        }
        self.unsubscribing.retain(|_, unsubscription| unsubscription.until > now);
        self.left.retain(|_, until| *until > now);
        self.review_pushes(now);
    }

    fn review_source(&mut self, entry: &Arc<SourceEntry>, actor_ctx: &mut Context<Self>) -> PushState {
        let Some(websub) = entry.websub() else { return PushState::None };
        let stays = !entry.is_leaving();
        if stays && !entry.source.enabled {
            self.unsubscribe(entry, actor_ctx);
            return PushState::None;
        }
        if stays && !subscription::matches_feed(&websub) {
            self.unsubscribe(entry, actor_ctx);
            self.subscribe(entry, &websub);
        }
        let Some(subscription) = entry.websub().and_then(|w| w.subscription) else { return PushState::None };
        let id = subscription.id.reveal();
        self.by_callback.insert(id.to_owned(), Arc::clone(entry));
        if stays {
            self.left.remove(id);
            self.due.set(&entry.source.id, subscription::next_due(&subscription));
            self.restore_push(entry, &subscription, self.ctx.now());
        }
        subscription.state
    }

    fn subscribe(&mut self, entry: &Arc<SourceEntry>, websub: &WebSubState) {
        let (Some(hub), Some(topic)) = (&websub.hub, &websub.topic) else { return };
        // 128 and 256 bits.
        let (Some(id), Some(secret)) = (self.random_hex::<16>(), self.random_hex::<32>()) else { return };
        let mut subscription = subscription::create(hub, topic, id, secret, self.ctx.now());
        // Another hub does not make visits more frequent.
        subscription.last_push_visit = websub.subscription.as_ref().and_then(|old| old.last_push_visit);
        entry.set_subscription(Some(subscription));
        self.mark_unsaved(entry);
    }

    /// Ends a subscription, and notifies the hub if it may know about it. The response of the hub does not matter.
    fn unsubscribe(&mut self, entry: &Arc<SourceEntry>, actor_ctx: &mut Context<Self>) {
        let Some(subscription) = entry.websub().and_then(|w| w.subscription) else { return };
        entry.set_subscription(None);
        self.mark_unsaved(entry);
        self.by_callback.remove(subscription.id.reveal());
        self.due.remove(&entry.source.id);
        let was_requested = subscription.tries > 0 || subscription.lease_end.is_some();
        if !was_requested {
            return;
        }
        if self.unsubscribing.len() >= UNSUBSCRIBING_MAX || self.requesting.len() >= REQUESTS_MAX {
            let labels = [("mode", HubMode::Unsubscribe.as_str()), ("result", "skipped")];
            self.ctx.metrics.websub.requests.get_or_create(&labels).inc();
            return;
        }
        let until = self.ctx.now().plus(UNSUBSCRIBING_FOR);
        let unsubscription = Unsubscription { topic: subscription.topic.clone(), until };
        self.unsubscribing.insert(subscription.id.reveal().to_owned(), unsubscription);
        self.send_request(&entry.source, &subscription, HubMode::Unsubscribe, actor_ctx);
    }

    fn mark_unsaved(&mut self, entry: &Arc<SourceEntry>) {
        self.unsaved.insert(entry.source.id.clone(), Arc::clone(entry));
    }

    fn tick(&mut self, actor_ctx: &mut Context<Self>) {
        if !self.unsaved.is_empty() {
            // What has left is saved by then, and may have come back since.
            let entries = self.unsaved.values().filter(|entry| !entry.is_leaving()).cloned().collect();
            // With a full mailbox, the next tick tries again.
            if self.recorder.try_send(RecordSubscriptions(entries)).is_ok() {
                self.unsaved.clear();
            }
        }
        let now = self.ctx.now();
        if self.has_unannounced && self.last_announced.is_none_or(|at| now.since(at) >= ANNOUNCE_EVERY) {
            // An error means that no gateway is connected.
            self.ctx.notices.send(wire::Notice::Catalogue).ok();
            (self.has_unannounced, self.last_announced) = (false, Some(now));
        }
        while self.requesting.len() < REQUESTS_MAX
            && let Some(source) = self.due.pop(now)
        {
            self.process_due(&source, now, actor_ctx);
        }
        let due = self.pushes.iter().filter(|(_, pushes)| pushes.is_due(now));
        let due: Vec<_> = due.map(|(source, _)| source.clone()).collect();
        for source in due {
            self.visit_for_push(source, now);
        }
    }

    /// This subscription is due, or was when it was scheduled.
    fn process_due(&mut self, source: &SourceId, now: Timestamp, actor_ctx: &mut Context<Self>) {
        let has_requests = |entry: &Arc<SourceEntry>| entry.source.enabled && !entry.is_leaving();
        let Some(entry) = self.registry.get(source.as_str()).filter(has_requests) else { return };
        let is_requesting = self.requesting.contains(source);
        let processed = entry.update_subscription(|subscription| {
            let before = subscription.clone();
            subscription::expire(subscription, now);
            let sends = subscription.next_try <= now && !is_requesting;
            if sends {
                subscription::mark_requested(subscription, now);
            }
            (sends, before, subscription.clone())
        });
        let Some((sends, before, subscription)) = processed else { return };
        let changed = before != subscription;
        self.has_unannounced |= before.state != subscription.state;
        if changed {
            self.mark_unsaved(&entry);
        }
        if sends {
            self.send_request(&entry.source, &subscription, HubMode::Subscribe, actor_ctx);
        }
        if !is_requesting {
            self.due.set(source, subscription::next_due(&subscription));
        }
    }

    /// Sends a request to a hub, admitted and guarded like a visit, through the proxy of the source.
    fn send_request(
        &mut self,
        source: &Source,
        subscription: &HubSubscription,
        mode: HubMode,
        actor_ctx: &mut Context<Self>,
    ) {
        let id = subscription.id.clone();
        let mut form = vec![
            ("hub.mode", mode.as_str().to_owned()),
            ("hub.topic", subscription.topic.reveal().to_owned()),
            ("hub.callback", format!("{}/websub/{}", self.public_url, id.reveal())),
        ];
        if mode == HubMode::Subscribe {
            form.push(("hub.lease_seconds", LEASE_WANTED.as_secs().to_string()));
            form.extend(
                subscription.secret.as_ref().map(|secret| ("hub.secret", secret.reveal().to_owned())),
            );
        }
        let (ctx, hub) = (Rc::clone(&self.ctx), subscription.hub.clone());
        let priority = if subscription.tries > 1 { Priority::Probation } else { Priority::Normal };
        // What else a source sends is for its feed only.
        let options = source.access.proxy.clone().map(|proxy| RequestOptions::default().with_proxy(proxy));
        let request = async move {
            let hub = FeedUrl::try_new(hub.reveal()).map_err(|error| HubFailure::new(error.to_string()))?;
            let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let gate = PacedHops::to_hub(&ctx, priority);
            let request = ctx.visitor.post_form(&hub, &form, options.as_ref(), Some(&gate), ctx.now());
            match AssertUnwindSafe(request).catch_unwind().await {
                Ok(answer) => accepted(answer, server_interval_max(ctx.interval_bounds.get())),
                Err(panic) => Err(HubFailure::new(format!("panic: {}", daemon::panics::message(&*panic)))),
            }
        };
        let source = source.id.clone();
        self.requesting.insert(source.clone());
        actor_ctx.spawn(request.into_actor(self).map(move |response, actor, _| {
            actor.requesting.remove(&source);
            actor.on_response(&source, &id, mode, response);
        }));
    }

    /// Applies the response of a hub to a request.
    fn on_response(
        &mut self,
        source: &SourceId,
        id: &SecretText,
        mode: HubMode,
        response: Result<(), HubFailure>,
    ) {
        let result = if response.is_ok() { "taken" } else { "failed" };
        let labels = [("mode", mode.as_str()), ("result", result)];
        self.ctx.metrics.websub.requests.get_or_create(&labels).inc();
        let Some(entry) = self.registry.get(source.as_str()).filter(|_| mode == HubMode::Subscribe) else {
            return;
        };
        let now = self.ctx.now();
        let applied = entry.update_subscription(|subscription| {
            if subscription.id != *id {
                return None;
            }
            let is_first = subscription.error.is_none();
            if let Err(failure) = &response {
                subscription::request_failed(subscription, now, failure);
            }
            Some((is_first, subscription::next_due(subscription)))
        });
        let Some((is_first, due)) = applied.flatten() else { return };
        self.has_unannounced |= response.is_err() && is_first;
        match response {
            Err(HubFailure { error, .. }) if is_first => {
                tracing::warn!(%source, error, "subscription request failed");
            }
            Err(HubFailure { error, .. }) => {
                tracing::debug!(%source, error, "subscription request failed again");
            }
            Ok(()) => tracing::debug!(%source, "hub accepted the subscription request"),
        }
        self.due.set(source, due);
        self.mark_unsaved(&entry);
    }

    fn remember_left(&mut self, id: String, now: Timestamp) {
        if self.left.len() < LEFT_MAX {
            self.left.insert(id, now.plus(LEFT_FOR));
        }
    }

    /// The source that a callback belongs to, as the registry has it now.
    fn owner(&self, id: &str) -> CallbackOwner {
        let known = self.by_callback.get(id);
        let is_current = |entry: &Arc<SourceEntry>| {
            entry.websub().and_then(|websub| websub.subscription).is_some_and(|s| s.id.reveal() == id)
        };
        let entry = known.and_then(|known| self.registry.get(known.source.id.as_str())).filter(is_current);
        match entry.as_ref().or(known) {
            Some(entry) if entry.is_leaving() => CallbackOwner::Leaving,
            None if self.left.contains_key(id) => CallbackOwner::Leaving,
            _ => entry.map_or(CallbackOwner::Unknown, CallbackOwner::Here),
        }
    }

    fn verify(&mut self, verify: &VerifyIntent) -> IntentAnswer {
        let entry = match self.owner(&verify.id) {
            CallbackOwner::Leaving => return IntentAnswer::Leaving,
            CallbackOwner::Unknown => None,
            CallbackOwner::Here(entry) => Some(entry),
        };
        if self.is_wanted(verify, entry) { IntentAnswer::Confirmed } else { IntentAnswer::Refused }
    }

    fn is_wanted(&mut self, verify: &VerifyIntent, entry: Option<Arc<SourceEntry>>) -> bool {
        if verify.mode == HubMode::Unsubscribe.as_str() {
            let now = self.ctx.now();
            let unsubscription = self.unsubscribing.get(&verify.id);
            return unsubscription.is_some_and(|l| l.until > now && l.topic.reveal() == verify.topic);
        }
        let Some(entry) = entry else { return false };
        let now = self.ctx.now();
        let answer = entry.update_subscription(|subscription| {
            let before = subscription.state;
            let was_requested = subscription.tries > 0 || subscription.lease_end.is_some();
            let is_ours = was_requested && subscription.topic.reveal() == verify.topic;
            match verify.mode.as_str() {
                "subscribe" if is_ours && before != PushState::Denied => {
                    subscription::mark_verified(subscription, now, verify.lease, fastrand::f64());
                }
                "denied" if is_ours => subscription::mark_denied(subscription, now, &verify.reason),
                _ => return None,
            }
            Some((before, subscription.state, subscription::next_due(subscription)))
        });
        let Some((before, after, due)) = answer.flatten() else { return false };
        let source = &entry.source.id;
        if before != after {
            self.has_unannounced = true;
            tracing::info!(%source, status = after.as_str(), before = before.as_str(), "subscription changed");
        }
        self.due.set(source, due);
        self.mark_unsaved(&entry);
        true
    }

    /// Schedules a visit for a push with a valid signature.
    fn accept_push(&mut self, id: &str) -> PushResult {
        let entry = match self.owner(id) {
            CallbackOwner::Here(entry) => entry,
            CallbackOwner::Leaving => return PushResult::Leaving,
            CallbackOwner::Unknown => return PushResult::Unknown,
        };
        let (now, bounds) = (self.ctx.now(), self.ctx.interval_bounds.get());
        let last_visit = entry.state().last_visit;
        let planned = entry.update_subscription(|subscription| {
            let is_live = subscription::is_live(subscription, now);
            is_live.then(|| {
                subscription::record_push(subscription, now);
                let earliest = earliest_visit(subscription, &entry.source, last_visit, bounds, now);
                (subscription::next_due(subscription), earliest)
            })
        });
        let Some((due, earliest)) = planned.flatten() else { return PushResult::Unverified };
        let source = entry.source.id.clone();
        self.due.set(&source, due);
        self.mark_unsaved(&entry);
        if takes_no_push(&entry, now) {
            return PushResult::Held;
        }
        let is_first = self.pushes.entry(source.clone()).or_default().add(now, earliest);
        self.keep_unsettled(&entry);
        if !is_first {
            return PushResult::Coalesced;
        }
        self.visit_for_push(source, now);
        PushResult::Taken
    }

    /// Orders the visit for a push, if it is due. A visit in progress may have started before the publication, so its end is
    /// awaited first.
    fn visit_for_push(&mut self, source: SourceId, now: Timestamp) {
        let Some(pushes) = self.pushes.get_mut(&source).filter(|pushes| pushes.is_due(now)) else { return };
        let entry = self.registry.get(source.as_str()).filter(|entry| entry.source.enabled);
        let Some(entry) = entry.filter(|entry| !takes_no_push(entry, now)) else {
            // If its server asked for a pause, the visit after that comes anyway.
            self.pushes.remove(&source);
            if let Some(entry) = self.registry.get(source.as_str()) {
                self.keep_unsettled(&entry);
            }
            return;
        };
        if entry.activity() != Activity::Idle || entry.is_leaving() {
            return;
        }
        // A visit may have ended since the push came.
        let state = entry.state();
        if let Some(subscription) = state.websub.and_then(|websub| websub.subscription) {
            let bounds = self.ctx.interval_bounds.get();
            pushes.postpone(earliest_visit(&subscription, &entry.source, state.last_visit, bounds, now));
        }
        if !pushes.is_due(now) {
            return;
        }
        // With a full mailbox, the next tick tries again.
        if self.supervisor.try_send(VisitSources(vec![source.to_string()])).is_ok() {
            pushes.mark_ordered(now);
            entry.update_subscription(|subscription| subscription.last_push_visit = Some(now));
            self.mark_unsaved(&entry);
            self.keep_unsettled(&entry);
        }
    }

    /// Copies to the subscription what a restart must not lose.
    fn keep_unsettled(&mut self, entry: &Arc<SourceEntry>) {
        let unsettled = self.pushes.get(&entry.source.id).map(SourcePushes::unsettled).unwrap_or_default();
        let replaced = entry.update_subscription(|subscription| {
            std::mem::replace(&mut subscription.unsettled, unsettled) != unsettled
        });
        if replaced == Some(true) {
            self.mark_unsaved(entry);
        }
    }

    /// A visit has ended: what does it mean for the pushes before it?
    fn settle_pushes(&mut self, entry: &Arc<SourceEntry>, visit: VisitFindings) {
        let source = &entry.source.id;
        let Some(pushes) = self.pushes.get_mut(source) else { return };
        let was_ordered = pushes.has_ordered(visit);
        let outcome = pushes.settle(visit, self.ctx.now(), fastrand::f64());
        if pushes.is_settled() {
            self.pushes.remove(source);
        }
        self.keep_unsettled(entry);
        if matches!(outcome, Some(PushOutcome::Empty(_))) {
            tracing::debug!(%source, "a push announced nothing; looking once more within a minute");
        }
        if !was_ordered && outcome.is_none() {
            return;
        }
        entry.update_subscription(|subscription| {
            // It may have waited for its host.
            subscription.last_push_visit = subscription.last_push_visit.max(Some(visit.started));
            if let Some(outcome) = outcome {
                subscription::record_outcome(subscription, outcome);
            }
        });
        self.mark_unsaved(entry);
    }

    /// Brings the pushes that wait up to date, and what the subscriptions say about them.
    fn review_pushes(&mut self, now: Timestamp) {
        let (registry, bounds) = (&self.registry, self.ctx.interval_bounds.get());
        let mut changed = Vec::new();
        self.pushes.retain(|source, pushes| {
            let Some(entry) = registry.get(source.as_str()) else { return false };
            let state = entry.state();
            let subscription = state.websub.and_then(|websub| websub.subscription);
            // Without a hub, the usual visits are all there are.
            let Some(subscription) = subscription else { return false };
            let earliest = earliest_visit(&subscription, &entry.source, state.last_visit, bounds, now);
            let reported = Timestamp::from_millis(now.millis() - REPORTED_MS);
            pushes.review(earliest, state.last_visit, reported, now);
            if pushes.unsettled() != subscription.unsettled {
                changed.push(entry);
            }
            !pushes.is_settled()
        });
        for entry in changed {
            self.keep_unsettled(&entry);
        }
    }

    /// What was unsettled at the last stop still is, and what was when another daemon has left the source.
    fn restore_push(&mut self, entry: &Arc<SourceEntry>, subscription: &HubSubscription, now: Timestamp) {
        if self.pushes.contains_key(&entry.source.id) {
            return;
        }
        let Some(came) = subscription.last_push else { return };
        let (last_visit, bounds) = (entry.state().last_visit, self.ctx.interval_bounds.get());
        let earliest = earliest_visit(subscription, &entry.source, last_visit, bounds, now);
        let pushes = SourcePushes::restore(subscription.unsettled, came, earliest, now);
        if !pushes.is_settled() {
            self.pushes.insert(entry.source.id.clone(), pushes);
        }
    }
}

/// Whether a push makes no visit: the server asked for a pause, or the source is in quarantine.
fn takes_no_push(entry: &SourceEntry, now: Timestamp) -> bool {
    let state = entry.state();
    let is_held = matches!(state.last_status, Some(VisitStatus::Throttled | VisitStatus::Gone));
    state.quarantine.is_some() || is_held && state.next_visit.is_none_or(|next| next > now)
}

/// Whether a hub accepted a request. It may ask for a pause of at most `pause_max`.
fn accepted(answer: Result<FormAnswer, Failure>, pause_max: Duration) -> Result<(), HubFailure> {
    let (error, wait) = match answer {
        Ok(FormAnswer::Answered { code: 200..=299, .. }) => return Ok(()),
        Ok(FormAnswer::Answered { code, retry_after }) => {
            let pause = retry_after.filter(|_| matches!(code, 429 | 503)).map(|wait| wait.min(pause_max));
            let why = pause.map(|wait| format!(" and asked for a pause of {}", humanize(wait)));
            (format!("http-status: the hub answered {code}{}", why.unwrap_or_default()), pause)
        }
        Ok(FormAnswer::Held(HeldHop { why, wait })) => (format!("the hub was not asked: {why}"), wait),
        Err(failure) => (failure.to_string(), None),
    };
    Err(HubFailure { error, wait })
}

impl Actor for WebSubActor {
    type Context = Context<Self>;

    fn started(&mut self, actor_ctx: &mut Self::Context) {
        actor_ctx.set_mailbox_capacity(MAILBOX);
        actor_ctx.run_interval(TICK, |actor, actor_ctx| actor.tick(actor_ctx));
        actor_ctx.run_interval(REVIEW_EVERY, |actor, actor_ctx| actor.review(actor_ctx));
    }
}

impl Handler<ReviewSubscriptions> for WebSubActor {
    type Result = ();

    fn handle(&mut self, _: ReviewSubscriptions, actor_ctx: &mut Self::Context) {
        self.review(actor_ctx);
    }
}

impl Handler<SourceVisited> for WebSubActor {
    type Result = ();

    fn handle(&mut self, visited: SourceVisited, actor_ctx: &mut Self::Context) {
        if let Some(entry) = self.registry.get(visited.source.as_str()) {
            self.settle_pushes(&entry, visited.visit);
            self.review_source(&entry, actor_ctx);
        }
    }
}

impl Handler<VerifyIntent> for WebSubActor {
    type Result = MessageResult<VerifyIntent>;

    fn handle(&mut self, verify: VerifyIntent, _: &mut Self::Context) -> Self::Result {
        let answer = self.verify(&verify);
        self.ctx.metrics.websub.verifications.get_or_create(&[("result", answer.as_str())]).inc();
        MessageResult(answer)
    }
}

impl Handler<LookupSecret> for WebSubActor {
    type Result = MessageResult<LookupSecret>;

    fn handle(&mut self, LookupSecret(id): LookupSecret, _: &mut Self::Context) -> Self::Result {
        let secret_of = |entry: Arc<SourceEntry>| entry.websub()?.subscription.map(|known| known.secret);
        MessageResult(match self.owner(&id) {
            CallbackOwner::Here(entry) => {
                secret_of(entry).map_or(CallbackSecret::Unknown, CallbackSecret::Known)
            }
            CallbackOwner::Leaving => CallbackSecret::Leaving,
            CallbackOwner::Unknown => CallbackSecret::Unknown,
        })
    }
}

impl Handler<AcceptPush> for WebSubActor {
    type Result = MessageResult<AcceptPush>;

    fn handle(&mut self, AcceptPush(id): AcceptPush, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.accept_push(&id))
    }
}

/// The subscriptions stay: the hubs are not notified.
impl Handler<Stop> for WebSubActor {
    type Result = ();

    fn handle(&mut self, _: Stop, actor_ctx: &mut Self::Context) {
        actor_ctx.stop();
    }
}
