//! The routes of `ingestd.sock`: the wire, the log in pages, the sources, and orders to visit, pause and reload.
//!
//! Only processes of this machine that may open the socket are served.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, Responder,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::header::ContentType,
    middleware::Next,
    web,
};
use control::{
    IngestHealth, ListOrder, PauseAnswer, PauseOrder, Problem, ResumeOrder, SourceSelection, TurnAnswer,
    TurnOrder, VisitAnswer, VisitOrder, orders::ORDER_SOURCES_MAX, paths,
};
use fetch::HeldHop;
use news::{Cursor, FeedUrl, Pause, Seq, SourceInFull, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;
use wire::{EventLog as _, LogBounds, LogError, LogEvent};

use super::{
    after_start::AfterStart, control_state::ControlState, selection::SelectedSources, source_list,
    wire_log::WireLog, wire_stream,
};
use crate::{
    lists::ListReadRequest,
    messages::{SetPause, TakeTurn, VisitSources},
    queue::limiter::PAUSE_WAIT_MAX,
    websub::{
        messages::{AcceptPush, CallbackSecret, IntentAnswer, LookupSecret, PushResult, VerifyIntent},
        signature::is_valid_signature,
    },
};

/// Events in one page of `/log`.
const PAGE_EVENTS_MAX: usize = 1000;
/// Bytes in one page, roughly.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest body of a push; the gateway accepts no larger one.
const PUSH_BYTES_MAX: usize = 1024 * 1024;
/// How long an actor may take to answer.
const ACTOR_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reload may take: up to 100,000 sources are read, with their states from the store.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.route(paths::HEALTH, web::get().to(health))
        .route("/wire", web::get().to(wire_stream::wire))
        .route("/log", web::get().to(log))
        .route("/sources", web::get().to(sources))
        .route("/sources/{id}", web::get().to(source))
        .route(paths::LISTS, web::get().to(lists))
        .route(paths::LIST_READS, web::post().to(read_lists))
        .route(paths::VISITS, web::post().to(visits))
        .route(paths::PAUSES, web::post().to(pauses))
        .route(paths::PAUSES_END, web::post().to(end_pauses))
        .route(paths::TURNS, web::post().to(turns))
        .route(paths::RELOAD, web::post().to(reload))
        .route(paths::METRICS, web::get().to(metrics_text))
        .route("/websub/verifications", web::post().to(verification))
        .service(
            web::resource("/websub/pushes/{id}")
                .app_data(web::PayloadConfig::new(PUSH_BYTES_MAX))
                .route(web::post().to(push)),
        )
        .app_data(web::JsonConfig::default().error_handler(|error, _| {
            InternalError::from_response("bad body", problem(400, "bad-body", error.to_string())).into()
        }))
        .app_data(web::QueryConfig::default().error_handler(|error, _| {
            InternalError::from_response("bad query", problem(400, "bad-parameter", error.to_string())).into()
        }))
        .default_service(web::to(|| async { daemon::problem::response(&Problem::unknown_route()) }));
}

fn problem(status: u16, code: &str, detail: impl Into<String>) -> HttpResponse {
    daemon::problem::response(&Problem::new(status, code, detail))
}

/// Records the request that the worker is answering, for the watchdog.
pub(crate) async fn at_work<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let path = Arc::<str>::from(request.path());
    daemon::work::during("answering", path, next.call(request)).await
}

async fn health(state: web::Data<ControlState>) -> impl Responder {
    let bounds = state.log.bounds();
    web::Json(IngestHealth {
        status: "ok".to_owned(),
        name: "newswire-ingestd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: bounds.epoch.to_string(),
        oldest: bounds.oldest.0,
        head: bounds.head.0,
    })
}

#[derive(Debug, Deserialize)]
struct LogQuery {
    /// Upwards: the events after this one, the oldest first.
    after: Option<String>,
    /// Downwards: the events before this one, the newest first.
    before: Option<String>,
    /// RFC 3339. Upwards, instead of `after`: starts with the first event recorded since then. Downwards: ends there.
    since: Option<Timestamp>,
    limit: Option<usize>,
    /// Bytes of the events, about; the page has one event at least.
    bytes: Option<usize>,
}

/// A page of the log: `{"epoch","oldest","head","missed","next","events":[Event]}`. This is all but the events.
#[derive(Serialize)]
struct LogPageHead {
    epoch: news::Epoch,
    oldest: Cursor,
    head: Cursor,
    /// Upwards: how many events the log does not have before the first of these, or before its end if there are none.
    missed: u64,
    /// The `after` or the `before` of the next page; null if this is the last one.
    next: Option<Cursor>,
}

impl LogPageHead {
    /// The page as JSON; the events are JSON that we wrote.
    fn with(&self, events: &[LogEvent]) -> String {
        let mut page = serde_json::to_string(self).expect("our own types have a JSON form");
        page.pop();
        page.reserve(events.iter().map(|event| event.json.len() + 1).sum::<usize>() + 16);
        page.push_str(",\"events\":[");
        for (n, event) in events.iter().enumerate() {
            if n > 0 {
                page.push(',');
            }
            page.push_str(&event.json);
        }
        page.push_str("]}");
        page
    }
}

/// Where a page begins, and in which direction it goes.
enum LogStart {
    After(Seq),
    Since(Timestamp),
    Before { before: Seq, since: Option<Timestamp> },
}

impl LogStart {
    fn try_new(query: &LogQuery, bounds: &LogBounds) -> Result<Self, Problem> {
        let parse = |name: &str, text: &str| match text.parse::<Cursor>() {
            Ok(cursor) if cursor.epoch == bounds.epoch => Ok(cursor.seq),
            Ok(_) => Err(Problem::new(410, "other-epoch", "this id belongs to another log")),
            Err(_) => {
                Err(Problem::new(400, "bad-id", format!("{name}: expected an event id, such as k3v9q2-412")))
            }
        };
        match (&query.before, query.since, &query.after) {
            (Some(before), since, _) => Ok(Self::Before { before: parse("before", before)?, since }),
            (None, Some(since), _) => Ok(Self::Since(since)),
            (None, None, Some(after)) => Ok(Self::After(parse("after", after)?)),
            (None, None, None) => Ok(Self::After(bounds.oldest.previous())),
        }
    }
}

/// A part of the log.
struct LogPart {
    events: Vec<LogEvent>,
    /// Upwards: how many events are missing before the first of these.
    missed: u64,
    /// The sequence number to continue with, if there are more.
    next: Option<Seq>,
}

/// Reads a part of the log. Blocks.
fn read_log(log: &WireLog, start: &LogStart, limit: usize, bytes: usize) -> Result<LogPart, LogError> {
    let after = match *start {
        LogStart::After(after) => after,
        LogStart::Since(since) => log.before(since)?,
        LogStart::Before { before, since } => {
            let floor = since.map(|since| log.before(since)).transpose()?.map_or(Seq(1), Seq::next);
            let events = log.page_before(before, floor, limit, bytes)?;
            let floor = floor.max(log.bounds().oldest);
            let next = events.last().map(|event| event.seq).filter(|last| *last > floor);
            return Ok(LogPart { events, missed: 0, next });
        }
    };
    let page = log.page(after, limit, bytes)?;
    let end = page.events.last().map_or(Seq(after.0.saturating_add(page.missed)), |event| event.seq);
    let next = Some(end).filter(|end| *end < log.bounds().head);
    Ok(LogPart { events: page.events, missed: page.missed, next })
}

async fn log(state: web::Data<ControlState>, query: web::Query<LogQuery>) -> HttpResponse {
    let bounds = state.log.bounds();
    let start = match LogStart::try_new(&query, &bounds) {
        Ok(start) => start,
        Err(problem) => return daemon::problem::response(&problem),
    };
    let limit = query.limit.unwrap_or(100).clamp(1, PAGE_EVENTS_MAX);
    let bytes = query.bytes.unwrap_or(PAGE_BYTES_MAX).min(PAGE_BYTES_MAX);
    let log = state.log.clone();
    // All of it in the pool: this thread sends what is new to the gateways.
    let page = move || {
        let LogPart { events, missed, next } = read_log(&log, &start, limit, bytes)?;
        let id = |seq| Cursor { epoch: bounds.epoch.clone(), seq };
        let (oldest, head, next) = (id(bounds.oldest), id(bounds.head), next.map(id));
        Ok::<_, LogError>(
            LogPageHead { epoch: bounds.epoch.clone(), oldest, head, missed, next }.with(&events),
        )
    };
    match web::block(page).await {
        Ok(Ok(page)) => HttpResponse::Ok().content_type(ContentType::json()).body(page),
        _ => problem(500, "log-unreadable", "the log cannot be read"),
    }
}

async fn sources(_: AfterStart, state: web::Data<ControlState>) -> impl Responder {
    HttpResponse::Ok().content_type(ContentType::json()).streaming(source_list::parts(state.registry.clone()))
}

async fn lists(_: AfterStart, state: web::Data<ControlState>) -> impl Responder {
    web::Json(json!({ "lists": state.lists.statuses() }))
}

async fn read_lists(state: web::Data<ControlState>, order: web::Json<ListOrder>) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    let ordered = state.list_orders.try_send(ListReadRequest { order: order.into_inner(), reply });
    match tokio::time::timeout(ACTOR_TIMEOUT, answer).await {
        Ok(Ok(answer)) if ordered.is_ok() => HttpResponse::Accepted().json(answer),
        _ => problem(503, "lists-busy", "a reload is in progress; retry later"),
    }
}

async fn source(_: AfterStart, state: web::Data<ControlState>, id: web::Path<String>) -> HttpResponse {
    match state.registry.get(&id) {
        Some(entry) => HttpResponse::Ok().json(SourceInFull::from(entry.full_status())),
        None => problem(404, "no-such-source", "unknown source"),
    }
}

async fn visits(_: AfterStart, state: web::Data<ControlState>, order: web::Json<VisitOrder>) -> HttpResponse {
    let VisitOrder { sources, select, full } = order.into_inner();
    let select = select.or_else(|| sources.is_none().then(SourceSelection::default));
    let selected = match SelectedSources::find(&state.registry, sources.unwrap_or_default(), select).await {
        Ok(selected) => selected,
        Err(refusal) => return daemon::problem::response(&refusal),
    };
    let mut all = VisitAnswer { unknown_categories: selected.unknown_categories, ..VisitAnswer::default() };
    // In parts, because the supervisor does nothing else meanwhile.
    for ids in selected.ids.chunks(ORDER_SOURCES_MAX) {
        if full {
            ids.iter().filter_map(|id| state.registry.get(id)).for_each(|entry| entry.order_full_visit());
        }
        match state.visits.send(VisitSources(ids.to_vec())).timeout(ACTOR_TIMEOUT).await {
            Ok(answer) => {
                all.accepted.extend(answer.accepted);
                all.unknown.extend(answer.unknown);
                all.disabled.extend(answer.disabled);
                all.busy.extend(answer.busy);
                all.paused.extend(answer.paused);
            }
            Err(_) => return supervisor_busy(),
        }
    }
    HttpResponse::Accepted().json(all)
}

async fn turns(_: AfterStart, state: web::Data<ControlState>, order: web::Json<TurnOrder>) -> HttpResponse {
    let Ok(url) = FeedUrl::try_new(&order.url) else {
        return problem(400, "bad-address", "url is not the address of a host");
    };
    match state.turns.send(TakeTurn(url)).timeout(PAUSE_WAIT_MAX + ACTOR_TIMEOUT).await {
        Ok(Ok(())) => HttpResponse::Ok().json(TurnAnswer::default()),
        Ok(Err(HeldHop { why, wait })) => {
            HttpResponse::Ok().json(TurnAnswer { held: Some(why), wait_s: wait.map(|wait| wait.as_secs()) })
        }
        Err(_) => supervisor_busy(),
    }
}

async fn pauses(
    _: AfterStart,
    state: web::Data<ControlState>,
    order: web::Json<PauseOrder<Timestamp>>,
) -> HttpResponse {
    let PauseOrder { sources, for_s, until, reason, select, coming } = order.into_inner();
    let since = Timestamp::from_millis(state.clock.now_millis());
    let until = until.or(for_s.map(|seconds| since.plus(Duration::from_secs(seconds))));
    if until.is_some_and(|until| until <= since) {
        return problem(400, "pause-over", "the end of the pause is in the past");
    }
    if reason.as_ref().is_some_and(|reason| reason.len() > Pause::REASON_BYTES_MAX) {
        return problem(400, "long-reason", "the reason is too long; at most 200 bytes");
    }
    set_pause(&state, sources, select, Some(Pause { since, until, reason }), coming).await
}

async fn end_pauses(
    _: AfterStart,
    state: web::Data<ControlState>,
    order: web::Json<ResumeOrder>,
) -> HttpResponse {
    let ResumeOrder { sources, select } = order.into_inner();
    set_pause(&state, sources, select, None, false).await
}

async fn set_pause(
    state: &ControlState,
    named: Vec<String>,
    select: Option<SourceSelection>,
    pause: Option<Pause>,
    is_for_coming: bool,
) -> HttpResponse {
    if let Some(held_by) = state.recording.writes_held_by() {
        // It would wait, and be carried out long after its sender has given up.
        let detail =
            format!("nothing is written to the store, so no order can be recorded: {}", held_by.detail);
        return problem(503, "recording-paused", detail);
    }
    let selected = match SelectedSources::find(&state.registry, named, select).await {
        Ok(selected) => selected,
        Err(refusal) => return daemon::problem::response(&refusal),
    };
    let mut all = PauseAnswer { unknown_categories: selected.unknown_categories, ..PauseAnswer::default() };
    // Each part is one commit.
    for ids in selected.ids.chunks(ORDER_SOURCES_MAX) {
        let order = SetPause { ids: ids.to_vec(), pause: pause.clone(), is_for_coming };
        match state.pauses.send(order).timeout(ACTOR_TIMEOUT).await {
            Ok(Ok(answer)) => {
                all.done.extend(answer.done);
                all.idle.extend(answer.idle);
                all.unknown.extend(answer.unknown);
                all.disabled.extend(answer.disabled);
            }
            Ok(Err(closed)) => return problem(503, "log-closed", closed.to_string()),
            Err(_) => return supervisor_busy(),
        }
    }
    HttpResponse::Ok().json(all)
}

fn supervisor_busy() -> HttpResponse {
    problem(503, "roster-busy", "the supervisor did not answer in time; retry later")
}

/// The same as on the admin socket, for clients from before it had this route.
async fn reload(state: web::Data<ControlState>) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    let busy = || problem(503, "reload-busy", "another reload is in progress; retry later");
    if state.reloads.try_send(reply).is_err() {
        return busy();
    }
    match tokio::time::timeout(RELOAD_TIMEOUT, answer).await {
        Ok(Ok(Ok(answer))) => HttpResponse::Ok().json(answer),
        Ok(Ok(Err(refusal))) => daemon::problem::response(&refusal),
        Ok(Err(_)) | Err(_) => busy(),
    }
}

/// A hub's verification request, as the gateway received it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verification {
    id: String,
    mode: String,
    topic: String,
    lease_seconds: Option<u64>,
    reason: String,
}

/// `{"confirmed":true}`
async fn verification(state: web::Data<ControlState>, request: web::Json<Verification>) -> HttpResponse {
    let Verification { id, mode, topic, lease_seconds, reason } = request.into_inner();
    let Some(websub) = &state.websub else { return HttpResponse::Ok().json(json!({ "confirmed": false })) };
    let verify = VerifyIntent { id, mode, topic, lease: lease_seconds.map(Duration::from_secs), reason };
    match websub.verify.send(verify).timeout(ACTOR_TIMEOUT).await {
        Ok(IntentAnswer::Leaving) => source_leaves(),
        Ok(answer) => HttpResponse::Ok().json(json!({ "confirmed": answer == IntentAnswer::Confirmed })),
        Err(_) => websub_busy(),
    }
}

/// `{"known":true}`; whether the push was accepted is counted, but not reported to the hub.
async fn push(
    state: web::Data<ControlState>,
    id: web::Path<String>,
    request: HttpRequest,
    body: web::Bytes,
) -> HttpResponse {
    let header = request.headers().get("x-hub-signature").and_then(|h| h.to_str().ok());
    let Ok(result) = check_push(&state, id.into_inner(), header, &body).await else {
        return websub_busy();
    };
    state.metrics.websub.pushes.get_or_create(&[("result", result.as_str())]).inc();
    tracing::debug!(status = result.as_str(), "push received");
    if result == PushResult::Leaving {
        return source_leaves();
    }
    HttpResponse::Ok().json(json!({ "known": result != PushResult::Unknown }))
}

/// Answers a push. The signature is checked here, on the thread of the wire.
async fn check_push(
    state: &ControlState,
    id: String,
    signature: Option<&str>,
    body: &[u8],
) -> Result<PushResult, actix::MailboxError> {
    let Some(websub) = &state.websub else { return Ok(PushResult::Unknown) };
    let secret = match websub.lookup.send(LookupSecret(id.clone())).timeout(ACTOR_TIMEOUT).await? {
        CallbackSecret::Known(secret) => secret,
        CallbackSecret::Leaving => return Ok(PushResult::Leaving),
        CallbackSecret::Unknown => return Ok(PushResult::Unknown),
    };
    let is_signed = |secret: &str| signature.is_some_and(|header| is_valid_signature(secret, header, body));
    if secret.is_some_and(|secret| !is_signed(secret.reveal())) {
        return Ok(PushResult::BadSignature);
    }
    websub.push.send(AcceptPush(id)).timeout(ACTOR_TIMEOUT).await
}

/// Another daemon knows the callback id, now or in a moment.
fn source_leaves() -> HttpResponse {
    problem(503, "source-leaves", "another daemon visits the source from now on; retry later")
}

fn websub_busy() -> HttpResponse {
    problem(503, "roster-busy", "the subscriptions could not be looked up in time; retry later")
}

/// In the pool: the free space of the disk is read, and the activity of every source.
async fn metrics_text(state: web::Data<ControlState>) -> HttpResponse {
    match web::block(move || state.metrics_registry.encode()).await {
        Ok(text) => HttpResponse::Ok().content_type(daemon::metrics::CONTENT_TYPE).body(text),
        Err(_) => problem(503, "no-metrics", "the metrics cannot be read"),
    }
}
