//! The admin socket: HTTP for the operator's tools, on threads of its own, so that it answers while every other thread
//! of the process is stuck.
//!
//! `/health` touches nothing but itself, `/watch` and `/stacks` nothing that a stuck thread could hold. `/status` and `/metrics` ask the rest of the process, which may never answer:
//! they do so on a few threads apart, wait a bounded time and then say so.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::config::ConfigChange;
use crate::logs::Logs;
use crate::metrics::{CONTENT_TYPE, MetricsRegistry};
use crate::sockets::{SocketError, bind_unix};
use crate::watch::{Watch, WatchKind};

/// Rights of the socket: the gateway, which shares the group, shows the daemon's metrics beside its own.
const SOCKET_MODE: u32 = 0o660;
/// Questions to the rest of the process at the same time.
const QUESTIONS_MAX: usize = 4;
/// How long one such question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Largest request body, bytes; the only one is a log filter.
const BODY_BYTES_MAX: usize = 4_096;
/// How long the vitals may take; without them `/watch` is answered all the same.
const VITALS_WITHIN: Duration = Duration::from_millis(500);
/// How long a reload may take.
const RELOAD_WITHIN: Duration = Duration::from_secs(10);
/// How long the stacks of all threads may take.
const STACKS_WITHIN: Duration = Duration::from_secs(10);
/// How long [`AdminHandle`] waits for its thread to end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// What the admin socket tells about.
#[derive(Clone)]
pub struct Admin {
    /// The name of the process.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What `/metrics` shows.
    pub metrics: MetricsRegistry,
    /// What `/watch` and `/stacks` show.
    pub watch: Watch,
    /// What `/status` shows. May block; then `/status` answers 503 after two seconds.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Who carries out `POST /reload`, over a bounded channel; without it there is no such route.
    pub reloads: Option<mpsc::Sender<ReloadOrder>>,
}

/// An order to do what SIGHUP does; the answer is what changed, or everything that is wrong, one complaint a line.
pub type ReloadOrder = oneshot::Sender<Result<Vec<ConfigChange>, Vec<String>>>;

/// The running admin socket; dropping it ends the thread and removes the socket.
#[derive(Debug)]
pub struct AdminHandle {
    path: PathBuf,
    server: ServerHandle,
    ended: Receiver<io::Result<()>>,
}

struct State {
    what: Admin,
    logs: Logs,
    questions: Arc<Semaphore>,
    started: Instant,
}

/// Serves `GET /health`, `GET /watch`, `GET /stacks`, `GET /status`, `GET /metrics`, `GET /log-level` and `PUT /log-level` (the body is a level or
/// filter in the words of `log.level`), and `POST /reload` for whom [`Admin::reloads`] carries it out, at the Unix socket `path`, with the rights 0660.
///
/// # Errors
/// When the socket cannot be had, see [`SocketError`].
pub fn serve(path: &Path, what: Admin, logs: &Logs) -> Result<AdminHandle, SocketError> {
    let failed = |source| SocketError::Unix { attempt: "serve", path: path.to_path_buf(), source };
    let listener = bind_unix(path, SOCKET_MODE)?;
    let questions = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let state = web::Data::new(State { what, logs: logs.clone(), questions, started: Instant::now() });
    let (started, server) = sync_channel(1);
    let (end, ended) = sync_channel(1);
    let run = move || {
        let result = actix_web::rt::System::new().block_on(run(state, listener, &started));
        // Nobody listens any more when the handle has waited long enough.
        drop(end.try_send(result));
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(run).map_err(failed)?;
    match server.recv() {
        Ok(server) => Ok(AdminHandle { path: path.to_path_buf(), server, ended }),
        Err(_) => Err(failed(match ended.recv() {
            Ok(Err(error)) => error,
            _ => io::Error::other("the admin thread ended at once"),
        })),
    }
}

async fn run(
    state: web::Data<State>,
    listener: std::os::unix::net::UnixListener,
    started: &SyncSender<ServerHandle>,
) -> io::Result<()> {
    let app = move || {
        // Called once, on the thread of the one worker.
        state.what.watch.event_loop("admin", WatchKind::Admin);
        let app = App::new()
            .app_data(state.clone())
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .route("/health", web::get().to(health))
            .route("/watch", web::get().to(watch))
            .route("/stacks", web::get().to(stacks))
            .route("/status", web::get().to(status))
            .route("/metrics", web::get().to(metrics))
            .route("/log-level", web::get().to(log_level))
            .route("/log-level", web::put().to(set_log_level));
        let app = match state.what.reloads {
            Some(_) => app.route("/reload", web::post().to(reload)),
            None => app,
        };
        #[cfg(feature = "drill")]
        let app = app
            .route("/drill/{name}", web::post().to(crate::drill::start))
            .route("/drill", web::delete().to(crate::drill::end));
        app
    };
    let server = HttpServer::new(app)
        .workers(1)
        .worker_max_blocking_threads(QUESTIONS_MAX)
        .disable_signals()
        .shutdown_timeout(1)
        .listen_uds(listener)?
        .run();
    // `serve` waits for exactly this one handle.
    drop(started.try_send(server.handle()));
    server.await
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        // First the name, while it is certainly ours: once nobody listens, another process may take it over.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "could not remove the admin socket");
        }
        drop(self.server.stop(false)); // sends at once; the future would only wait
        if self.ended.recv_timeout(END_WITHIN).is_err() {
            tracing::warn!("the admin thread did not end in time");
        }
    }
}

impl State {
    fn introduce(&self) -> Value {
        json!({
            "name": self.what.name,
            "version": self.what.version,
            "pid": std::process::id(),
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

async fn health(state: web::Data<State>) -> HttpResponse {
    let mut body = state.introduce();
    body["status"] = json!("ok");
    HttpResponse::Ok().json(body)
}

async fn watch(state: web::Data<State>) -> HttpResponse {
    let mut body = state.introduce();
    if let (Value::Object(body), Value::Object(report)) = (&mut body, state.what.watch.report()) {
        body.extend(report);
    }
    let (tell, told) = oneshot::channel();
    // Whoever asked may have given up.
    state.what.watch.ask_vitals(move |vitals| drop(tell.send(vitals)));
    let vitals = tokio::time::timeout(VITALS_WITHIN, told).await;
    body["vitals"] = vitals.ok().and_then(Result::ok).unwrap_or_default();
    HttpResponse::Ok().json(body)
}

/// Text, or JSON for whoever prefers that.
async fn stacks(state: web::Data<State>, request: HttpRequest) -> HttpResponse {
    let (tell, told) = oneshot::channel();
    state.what.watch.ask_stacks(move |capture| drop(tell.send(capture)));
    let capture = match tokio::time::timeout(STACKS_WITHIN, told).await {
        Ok(Ok(capture)) => capture,
        Ok(Err(_)) => {
            let none = "there are no stacks, or somebody is taking them at this moment";
            return problem(StatusCode::SERVICE_UNAVAILABLE, "no-stacks", none);
        }
        Err(_) => {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "stuck", "no stacks in 10 seconds");
        }
    };
    let accept = request.headers().get("accept").and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/json")) {
        HttpResponse::Ok().json(capture)
    } else {
        HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(crate::watch::text(&capture))
    }
}

async fn status(state: web::Data<State>) -> HttpResponse {
    let ask = Arc::clone(&state.what.status);
    match answer(&state, move || ask()).await {
        Ok(value) => HttpResponse::Ok().json(value),
        Err(refusal) => refusal,
    }
}

async fn metrics(state: web::Data<State>) -> HttpResponse {
    let all = state.what.metrics.clone();
    match answer(&state, move || all.encode()).await {
        Ok(text) => HttpResponse::Ok().content_type(CONTENT_TYPE).body(text),
        Err(refusal) => refusal,
    }
}

/// Asks the rest of the process, which may be stuck. A question that never ends keeps its permit for ever, so that at
/// most [`QUESTIONS_MAX`] threads are lost to it.
async fn answer<T: Send + 'static>(
    state: &State,
    question: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HttpResponse> {
    let busy = "earlier questions are still without an answer";
    let permit = Arc::clone(&state.questions)
        .try_acquire_owned()
        .map_err(|_| problem(StatusCode::SERVICE_UNAVAILABLE, "stuck", busy))?;
    let asked = web::block(move || {
        let _permit = permit;
        question()
    });
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => {
            Err(problem(StatusCode::INTERNAL_SERVER_ERROR, "panicked", "the question ended in a panic"))
        }
        Err(_) => {
            Err(problem(StatusCode::SERVICE_UNAVAILABLE, "stuck", "the process did not answer in 2 seconds"))
        }
    }
}

async fn log_level(state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "level": state.logs.level() }))
}

async fn set_log_level(state: web::Data<State>, body: String) -> HttpResponse {
    let level = body.trim();
    match state.logs.set_level(level) {
        Ok(()) => {
            tracing::info!(level, "changed the log level");
            HttpResponse::Ok().json(json!({ "level": level }))
        }
        Err(detail) => problem(StatusCode::BAD_REQUEST, "bad-level", &detail),
    }
}

/// What SIGHUP does, with an answer: `{"changes"}`, or every complaint, and then nothing has changed. The order waits in
/// a channel, and whoever carries it out may be stuck.
async fn reload(state: web::Data<State>) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    let sent = state.what.reloads.as_ref().is_some_and(|reloads| reloads.try_send(reply).is_ok());
    if !sent {
        let busy = "earlier orders are not carried out yet, or the process is stopping";
        return problem(StatusCode::SERVICE_UNAVAILABLE, "reload-busy", busy);
    }
    match tokio::time::timeout(RELOAD_WITHIN, answer).await {
        Ok(Ok(Ok(changes))) => HttpResponse::Ok().json(json!({ "changes": changes })),
        Ok(Ok(Err(complaints))) => HttpResponse::UnprocessableEntity()
            .content_type("application/problem+json")
            .body(bad_configuration(&complaints)),
        Ok(Err(_)) => problem(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the process is stopping"),
        Err(_) => {
            let late = "nothing came of it in 10 seconds; it may still be carried out";
            problem(StatusCode::SERVICE_UNAVAILABLE, "stuck", late)
        }
    }
}

fn bad_configuration(complaints: &[String]) -> String {
    json!({
        "type": "about:blank",
        "title": "the configuration has mistakes, and the old one is kept",
        "status": 422,
        "code": "bad-configuration",
        "complaints": complaints,
    })
    .to_string()
}

/// Problem details (RFC 9457) with a stable `code`.
fn problem(status: StatusCode, code: &str, detail: &str) -> HttpResponse {
    HttpResponse::build(status).content_type("application/problem+json").body(
        json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("error"),
            "status": status.as_u16(),
            "code": code,
            "detail": detail,
        })
        .to_string(),
    )
}
