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
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use control::{HealthReport, LogLevel, Problem, ProcessIdentity, ReloadAnswer, WatchReport, paths};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::json::to_json;
use crate::logs::Logs;
use crate::metrics::{CONTENT_TYPE, MetricsRegistry};
use crate::problem;
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
/// How long a reload may take: 100,000 sources are read and compared with the store.
const RELOAD_WITHIN: Duration = Duration::from_secs(60);
/// How long the stacks of all threads may take.
const STACKS_WITHIN: Duration = Duration::from_secs(10);
/// How long [`AdminHandle`] waits for its thread to end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The process behind the admin socket.
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
    /// What `/status` shows, see [`status_of`]. May block; then `/status` answers 503 after two seconds.
    pub status: StatusSource,
    /// Where orders of `POST /reload` go, a bounded channel; without it there is no such route.
    pub reloads: Option<mpsc::Sender<ReloadOrder>>,
}

/// An order to do what SIGHUP does; the answer is what changed, or why nothing did: a [`Problem`] with every complaint.
pub type ReloadOrder = oneshot::Sender<Result<ReloadAnswer, Problem>>;

/// Reads the status of the process.
pub type StatusSource = Arc<dyn Fn() -> Value + Send + Sync>;

/// A status of any type, such as [`control::GatewayStatus`], as [`Admin::status`].
pub fn status_of<S: Serialize>(read: impl Fn() -> S + Send + Sync + 'static) -> StatusSource {
    Arc::new(move || to_json(&read()))
}

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
            .route(paths::HEALTH, web::get().to(health))
            .route(paths::WATCH, web::get().to(watch))
            .route(paths::STACKS, web::get().to(stacks))
            .route(paths::STATUS, web::get().to(status))
            .route(paths::METRICS, web::get().to(metrics))
            .route(paths::LOG_LEVEL, web::get().to(log_level))
            .route(paths::LOG_LEVEL, web::put().to(set_log_level));
        let app = match state.what.reloads {
            Some(_) => app.route(paths::RELOAD, web::post().to(reload)),
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
    fn identity(&self) -> ProcessIdentity {
        ProcessIdentity {
            name: self.what.name.to_owned(),
            version: self.what.version.to_owned(),
            pid: std::process::id().cast_signed(),
        }
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn health(state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(HealthReport {
        process: state.identity(),
        uptime_ms: state.uptime_ms(),
        status: "ok".to_owned(),
    })
}

async fn watch(state: web::Data<State>) -> HttpResponse {
    let progress = state.what.watch.report();
    let (reply, answer) = oneshot::channel();
    // The receiver is gone when the vitals are late.
    state.what.watch.ask_vitals(move |vitals| drop(reply.send(vitals)));
    let vitals = tokio::time::timeout(VITALS_WITHIN, answer).await;
    HttpResponse::Ok().json(WatchReport {
        process: state.identity(),
        uptime_ms: state.uptime_ms(),
        progress,
        vitals: vitals.ok().and_then(Result::ok),
    })
}

/// Text, or JSON for whoever prefers that.
async fn stacks(state: web::Data<State>, request: HttpRequest) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    state.what.watch.ask_stacks(move |capture| drop(reply.send(capture)));
    let capture = match tokio::time::timeout(STACKS_WITHIN, answer).await {
        Ok(Ok(capture)) => capture,
        Ok(Err(_)) => {
            let none = "the process takes no stacks of itself, or another request is taking them";
            return unavailable("no-stacks", none);
        }
        Err(_) => return unavailable("stuck", "the stacks were not taken within 10 seconds"),
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
    let busy = "earlier requests are not answered yet";
    let permit = Arc::clone(&state.questions).try_acquire_owned().map_err(|_| unavailable("stuck", busy))?;
    let asked = web::block(move || {
        let _permit = permit;
        question()
    });
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(problem::response(&Problem::new(500, "panicked", "reading the answer panicked"))),
        Err(_) => Err(unavailable("stuck", "the process did not answer within 2 seconds")),
    }
}

async fn log_level(state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(LogLevel { level: state.logs.level() })
}

async fn set_log_level(state: web::Data<State>, body: String) -> HttpResponse {
    let level = body.trim();
    match state.logs.set_level(level) {
        Ok(()) => {
            tracing::info!(level, "changed the log level");
            HttpResponse::Ok().json(LogLevel { level: level.to_owned() })
        }
        Err(detail) => problem::response(&Problem::new(400, "bad-level", detail)),
    }
}

/// What SIGHUP does, with an answer. The order waits in a channel, and the task that receives it may be stuck.
async fn reload(state: web::Data<State>) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    let sent = state.what.reloads.as_ref().is_some_and(|reloads| reloads.try_send(reply).is_ok());
    if !sent {
        let busy = "earlier reloads are not done yet, or the process is stopping; try again later";
        return unavailable("reload-busy", busy);
    }
    match tokio::time::timeout(RELOAD_WITHIN, answer).await {
        Ok(Ok(Ok(answer))) => HttpResponse::Ok().json(answer),
        Ok(Ok(Err(refusal))) => problem::response(&refusal),
        Ok(Err(_)) => unavailable("stopping", "the process is stopping"),
        Err(_) => unavailable("stuck", "the reload did not end within 60 seconds; it may still take effect"),
    }
}

fn unavailable(code: &str, detail: &str) -> HttpResponse {
    problem::response(&Problem::new(503, code, detail))
}
