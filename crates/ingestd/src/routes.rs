//! What the ingestion process answers on `ingestd.sock`: the wire, the log in pages, the sources, and orders to visit.
//!
//! Only processes of this machine that may open the socket get here. Few of them, so actix-web-lab's SSE with its
//! encoding per client costs nothing.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix::Addr;
use actix_web::{
    HttpRequest, HttpResponse, Responder,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};
use actix_web_lab::sse::{self, Sse};
use futures_util::{Stream as _, StreamExt as _, stream};
use news::{Cursor, Pause, Seq, SourceInFull, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use tokio::sync::{mpsc, oneshot};
use wire::{EventLog as _, Publisher, StreamBlock};

use crate::{
    board::Board,
    metrics::Numbers,
    roster::{Pausing, Roster, SetPause, Visit, Visiting},
    run::{Reload, RunError},
    websub::{Hubs, Pushed, Signer, Verify, Whose, is_right},
    wire_log::WireLog,
};

/// What the routes need; shared by the server's workers.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) publisher: Publisher,
    pub(crate) log: WireLog,
    pub(crate) board: Board,
    pub(crate) roster: Addr<Roster>,
    pub(crate) reloads: mpsc::Sender<Reload>,
    pub(crate) clock: daemon::Clock,
    /// Nothing while no hub could reach us.
    pub(crate) hubs: Option<Addr<Hubs>>,
    pub(crate) metrics: daemon::metrics::MetricsRegistry,
    pub(crate) numbers: Numbers,
}

/// Events in one page of `/log`.
const PAGE_EVENTS_MAX: usize = 1000;
/// About the bytes of one page.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Recent events of a stream that asks for no number.
const SNAPSHOT_DEFAULT: u64 = 50;
/// Sources in one order.
const VISITS_MAX: usize = 1000;
/// Largest body of a push; the gateway takes no larger one.
const PUSH_BYTES_MAX: usize = 1024 * 1024;
/// How long the roster may take to answer.
const ROSTER_WITHIN: Duration = Duration::from_secs(5);
/// How long a reload may take: 100,000 sources are read, and recalled from the store.
const RELOAD_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.route("/health", web::get().to(health))
        .route("/wire", web::get().to(wire))
        .route("/log", web::get().to(log))
        .route("/sources", web::get().to(sources))
        .route("/sources/{id}", web::get().to(source))
        .route("/visits", web::post().to(visits))
        .route("/pauses", web::post().to(pauses))
        .route("/pauses/end", web::post().to(end_pauses))
        .route("/reload", web::post().to(reload))
        .route("/metrics", web::get().to(metrics))
        .route("/websub/verifications", web::post().to(verification))
        .service(
            web::resource("/websub/pushes/{id}")
                .app_data(web::PayloadConfig::new(PUSH_BYTES_MAX))
                .route(web::post().to(push)),
        )
        .default_service(web::to(|| async { problem(404, "not-found", "there is no such route") }));
}

fn problem(status: u16, code: &str, title: &str) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).expect("a status of ours is one");
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .body(json!({ "status": status.as_u16(), "code": code, "title": title }).to_string())
}

/// Says whose request the worker is at, for the watchdog.
pub(crate) async fn at_work<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let path = Arc::<str>::from(request.path());
    daemon::work::during("answering", path, next.call(request)).await
}

async fn health(desk: web::Data<Desk>) -> impl Responder {
    let standing = desk.log.bounds();
    web::Json(json!({
        "status": "ok",
        "name": "newswire-ingestd",
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": standing.epoch,
        "oldest": standing.oldest,
        "head": standing.head,
    }))
}

#[derive(Debug, Deserialize)]
struct WireQuery {
    snapshot: Option<u64>,
    after: Option<String>,
}

async fn wire(desk: web::Data<Desk>, query: web::Query<WireQuery>, request: HttpRequest) -> impl Responder {
    let header = request.headers().get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()));
    let requested = header.as_deref().or(query.after.as_deref());
    let blocks = desk.publisher.stream(requested, query.snapshot.unwrap_or(SNAPSHOT_DEFAULT));
    #[cfg(feature = "drill")]
    let blocks = crate::drill::until_cut(blocks);
    let gauge = Subscribed::new(&desk.numbers);
    let shown = Arc::clone(&desk.numbers.shown);
    let (mut blocks, of) = (Box::pin(blocks), Arc::<str>::from("the wire"));
    let blocks = stream::poll_fn(move |cx| {
        let _at_work = daemon::work::on("sending", Arc::clone(&of));
        blocks.as_mut().poll_next(cx)
    });
    let events = blocks.map(move |block| {
        let _counted = &gauge;
        if let Some(id) = &block.id {
            shown.sent.fetch_max(id.seq.0, Ordering::Relaxed);
        }
        Ok::<_, Infallible>(event(block))
    });
    Sse::from_stream(events).with_retry_duration(Duration::from_millis(500))
}

fn event(block: StreamBlock) -> sse::Event {
    let data = sse::Data::new(block.data).event(block.event);
    match block.id {
        Some(id) => data.id(id.to_string()).into(),
        None => data.into(),
    }
}

/// Counts an open stream until it is dropped.
struct Subscribed(prometheus_client::metrics::gauge::Gauge);

impl Subscribed {
    fn new(numbers: &Numbers) -> Self {
        numbers.subscribers.inc();
        Self(numbers.subscribers.clone())
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug, Deserialize)]
struct LogQuery {
    after: Option<String>,
    /// RFC 3339; instead of `after`: begins with the first event recorded since then.
    since: Option<Timestamp>,
    limit: Option<usize>,
}

/// A page of the log: `{"epoch","oldest","head","missed","events":[Event],"next"}`.
#[derive(Serialize)]
struct LogAnswer {
    epoch: news::Epoch,
    oldest: Cursor,
    head: Cursor,
    missed: u64,
    events: Vec<Box<RawValue>>,
    /// The `after` of the next page; nothing when this was the last.
    next: Option<Cursor>,
}

async fn log(desk: web::Data<Desk>, query: web::Query<LogQuery>) -> HttpResponse {
    let standing = desk.log.bounds();
    let after = match query.after.as_deref() {
        None => Seq(standing.oldest.0 - 1),
        Some(text) => match text.parse::<Cursor>() {
            Ok(cursor) if cursor.epoch == standing.epoch => cursor.seq,
            Ok(_) => return problem(410, "other-epoch", "this id belongs to another log"),
            Err(_) => return problem(400, "bad-id", "after: an event id is wanted, such as k3v9q2-412"),
        },
    };
    let limit = query.limit.unwrap_or(100).clamp(1, PAGE_EVENTS_MAX);
    let log = desk.log.clone();
    let since = query.since;
    let page = web::block(move || {
        let after = match since {
            Some(since) => log.before(since)?,
            None => after,
        };
        log.page(after, limit, PAGE_BYTES_MAX)
    });
    let page = page.await;
    let Ok(Ok(page)) = page else { return problem(500, "log-unreadable", "the log cannot be read") };
    let id = |seq| Cursor { epoch: standing.epoch.clone(), seq };
    let last = page.events.last().map(|e| e.seq);
    let raw = |json: String| RawValue::from_string(json).expect("the log holds JSON that we wrote");
    HttpResponse::Ok().json(LogAnswer {
        oldest: id(standing.oldest),
        head: id(standing.head),
        missed: page.missed,
        events: page.events.into_iter().map(|e| raw(e.json)).collect(),
        next: last.filter(|seq| *seq < standing.head).map(id),
        epoch: standing.epoch.clone(),
    })
}

/// With the last visits: the gateways keep them for `GET /sources/{id}`.
async fn sources(desk: web::Data<Desk>) -> impl Responder {
    let sources: Vec<_> = desk.board.plates().iter().map(|plate| plate.status_in_full()).collect();
    web::Json(json!({ "sources": sources }))
}

async fn source(desk: web::Data<Desk>, id: web::Path<String>) -> HttpResponse {
    match desk.board.get(&id) {
        Some(plate) => HttpResponse::Ok().json(SourceInFull::from(plate.status_in_full())),
        None => problem(404, "no-such-source", "there is no source of this id"),
    }
}

/// An order: `{"sources":["bbc"]}`; without a list, every source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    sources: Option<Vec<String>>,
}

async fn visits(desk: web::Data<Desk>, order: web::Json<Order>) -> HttpResponse {
    let everything = || desk.board.plates().iter().map(|p| p.source.id.to_string()).collect();
    let ids: Vec<String> = match order.into_inner().sources {
        Some(ids) if ids.len() > VISITS_MAX => {
            return problem(413, "too-many-sources", "an order names at most 1000 sources");
        }
        Some(ids) => ids,
        None => everything(),
    };
    match desk.roster.send(Visit(ids)).timeout(ROSTER_WITHIN).await {
        Ok(Visiting { accepted, unknown, disabled, busy, paused }) => HttpResponse::Accepted().json(json!({
            "accepted": accepted, "unknown": unknown, "disabled": disabled, "busy": busy, "paused": paused,
        })),
        Err(_) => problem(503, "roster-busy", "the roster did not answer in time"),
    }
}

/// An order to pause: `{"sources":["bbc"],"for_s":7200,"reason":"moves house"}`; without `for_s` or `until` only an
/// order ends it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseOrder {
    sources: Vec<String>,
    for_s: Option<u64>,
    until: Option<Timestamp>,
    reason: Option<String>,
}

async fn pauses(desk: web::Data<Desk>, order: web::Json<PauseOrder>) -> HttpResponse {
    let PauseOrder { sources, for_s, until, reason } = order.into_inner();
    let since = Timestamp::from_millis(desk.clock.now_millis());
    let until = until.or(for_s.map(|seconds| since.plus(Duration::from_secs(seconds))));
    if until.is_some_and(|until| until <= since) {
        return problem(400, "pause-over", "the pause would be over already");
    }
    if reason.as_ref().is_some_and(|reason| reason.len() > Pause::REASON_BYTES_MAX) {
        return problem(400, "long-reason", "a reason has at most 200 bytes");
    }
    set_pause(&desk, sources, Some(Pause { since, until, reason })).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeOrder {
    sources: Vec<String>,
}

async fn end_pauses(desk: web::Data<Desk>, order: web::Json<ResumeOrder>) -> HttpResponse {
    set_pause(&desk, order.into_inner().sources, None).await
}

async fn set_pause(desk: &Desk, ids: Vec<String>, pause: Option<Pause>) -> HttpResponse {
    if ids.len() > VISITS_MAX {
        return problem(413, "too-many-sources", "an order names at most 1000 sources");
    }
    match desk.roster.send(SetPause { ids, pause }).timeout(ROSTER_WITHIN).await {
        Ok(Ok(Pausing { done, idle, unknown, disabled })) => HttpResponse::Ok().json(json!({
            "done": done, "idle": idle, "unknown": unknown, "disabled": disabled,
        })),
        Ok(Err(closed)) => problem(503, "log-closed", &closed.to_string()),
        Err(_) => problem(503, "roster-busy", "the roster did not answer in time"),
    }
}

/// What SIGHUP does, with an answer: `{"file","added","changed","removed","unchanged"}`, or every complaint about the
/// file, which then changes nothing.
async fn reload(desk: web::Data<Desk>) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    let busy = || problem(503, "reload-busy", "the list of sources is being read; come again");
    if desk.reloads.try_send(reply).is_err() {
        return busy();
    }
    match tokio::time::timeout(RELOAD_WITHIN, answer).await {
        Ok(Ok(Ok(reloaded))) => HttpResponse::Ok().json(reloaded),
        Ok(Ok(Err(RunError::Catalogue(complaints)))) => HttpResponse::UnprocessableEntity()
            .content_type("application/problem+json")
            .body(bad_catalogue(&complaints)),
        Ok(Ok(Err(error))) => problem(500, "reload-failed", &error.to_string()),
        Ok(Err(_)) | Err(_) => busy(),
    }
}

fn bad_catalogue(complaints: &str) -> String {
    json!({
        "status": 422,
        "code": "bad-catalogue",
        "title": "the list of sources has mistakes, and the old one is kept",
        "complaints": complaints.lines().collect::<Vec<_>>(),
    })
    .to_string()
}

/// What a hub asks of the gateway: do we want this?
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
async fn verification(desk: web::Data<Desk>, asked: web::Json<Verification>) -> HttpResponse {
    let Verification { id, mode, topic, lease_seconds, reason } = asked.into_inner();
    let Some(hubs) = &desk.hubs else { return HttpResponse::Ok().json(json!({ "confirmed": false })) };
    let verify = Verify { id, mode, topic, lease: lease_seconds.map(Duration::from_secs), reason };
    match hubs.send(verify).timeout(ROSTER_WITHIN).await {
        Ok(confirmed) => HttpResponse::Ok().json(json!({ "confirmed": confirmed })),
        Err(_) => problem(503, "roster-busy", "the subscriptions were not looked up in time"),
    }
}

/// `{"known":true}`; whether it was believed is for the metrics, and nothing that a hub should learn.
async fn push(
    desk: web::Data<Desk>,
    id: web::Path<String>,
    request: HttpRequest,
    body: web::Bytes,
) -> HttpResponse {
    let header = request.headers().get("x-hub-signature").and_then(|h| h.to_str().ok());
    let Ok(result) = judge(&desk, id.into_inner(), header, &body).await else {
        return problem(503, "roster-busy", "the subscriptions were not looked up in time");
    };
    desk.numbers.websub.pushes.get_or_create(&[("result", result)]).inc();
    tracing::debug!(status = result, "a hub pushed");
    HttpResponse::Ok().json(json!({ "known": result != "unknown" }))
}

/// What becomes of a push, in one word. Its signature is looked at here, on the thread of the wire.
async fn judge(
    desk: &Desk,
    id: String,
    signature: Option<&str>,
    body: &[u8],
) -> Result<&'static str, actix::MailboxError> {
    let Some(hubs) = &desk.hubs else { return Ok("unknown") };
    let Some(Signer(secret)) = hubs.send(Whose(id.clone())).timeout(ROSTER_WITHIN).await? else {
        return Ok("unknown");
    };
    let is_signed = |secret: &str| signature.is_some_and(|header| is_right(secret, header, body));
    if secret.is_some_and(|secret| !is_signed(secret.reveal())) {
        return Ok("bad_signature");
    }
    hubs.send(Pushed(id)).timeout(ROSTER_WITHIN).await
}

/// In the pool: the disk is asked for its free space, and every source for what it does.
async fn metrics(desk: web::Data<Desk>) -> HttpResponse {
    match web::block(move || desk.metrics.encode()).await {
        Ok(text) => HttpResponse::Ok().content_type(daemon::metrics::CONTENT_TYPE).body(text),
        Err(_) => problem(503, "no-metrics", "the metrics could not be read"),
    }
}
