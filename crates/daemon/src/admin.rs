//! The admin socket: HTTP for the operator's tools, on a separate threads, so that it answers while every other thread
//! of the process is stuck.
//!
//! `/health` reads no shared state, and `/watch` and `/stacks` none that a stuck thread could hold. `/status` and
//! `/metrics` read state that may be locked for ever: they do so on a few separate threads and answer 503 after a
//! timeout.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use control::documents::DOCUMENT_BODY_BYTES_MAX;
use control::{
    DocumentAnswer, DocumentHead, HealthReport, LogLevel, Problem, ProcessIdentity, ReloadAnswer,
    WatchReport, paths,
};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::accept::AcceptedTypes;
use crate::json::json_text;
use crate::logs::Logs;
use crate::metrics::{MetricsFormat, MetricsRegistry};
use crate::problem;
use crate::sockets::{SocketError, bind_unix};
use crate::watch::{ListenerAddress, Watch, WatchKind, WatchedListener};

/// Mode of the socket: the gateway, which runs in the same group, serves the daemon's metrics along with its own.
const SOCKET_MODE: u32 = 0o660;
/// Concurrent queries of the process's state.
const QUERIES_MAX: usize = 4;
/// How long one query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest request body, bytes, except that of a document; the only other request with a body sets the log level.
const BODY_BYTES_MAX: usize = 4_096;
/// How long the diagnostics may take; after that, `/watch` answers without them.
const DIAGNOSTICS_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a reload may take; with 100,000 sources it reads a large file and the store.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the stacks of all threads may take.
const STACKS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long [`AdminHandle`] waits for its thread to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The process behind the admin socket.
#[derive(Clone)]
pub struct Admin {
    /// The name of the process.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Served at `/metrics`.
    pub metrics: MetricsRegistry,
    /// Served at `/watch` and `/stacks`.
    pub watch: Watch,
    /// Served at `/status`, see [`status_of`]. May block; `/status` answers 503 after two seconds.
    pub status: StatusSource,
    /// Receives the orders of `POST /reload`; `None` if there is no such route. The channel is bounded.
    pub reloads: Option<mpsc::Sender<ReloadOrder>>,
    /// Receives the documents of `POST /documents`; `None` if there is no such route.
    pub documents: Option<DocumentSink>,
}

/// An order to reload, as by SIGHUP. The answer says what changed; if nothing did, it is a [`Problem`] with every
/// complaint.
pub type ReloadOrder = oneshot::Sender<Result<ReloadAnswer, Problem>>;

/// Reads the status of the process, as JSON.
pub type StatusSource = Arc<dyn Fn() -> Bytes + Send + Sync>;

/// Takes a document that was fetched for a source which is about to be listed. Must not block.
pub type DocumentSink = Arc<dyn Fn(DocumentHead, Bytes) -> Result<DocumentAnswer, Problem> + Send + Sync>;

/// Makes [`Admin::status`] of a function that returns any serialisable status, such as [`control::GatewayStatus`].
pub fn status_of<S: Serialize>(read: impl Fn() -> S + Send + Sync + 'static) -> StatusSource {
    Arc::new(move || json_text(&read()))
}

/// The running admin socket; dropping it ends the thread and removes the socket.
#[derive(Debug)]
pub struct AdminHandle {
    path: PathBuf,
    server: ServerHandle,
    ended: Receiver<io::Result<()>>,
    /// `None` once the socket is no longer served.
    watched: Option<WatchedListener>,
}

struct AdminState {
    process: Admin,
    logs: Logs,
    queries: Arc<Semaphore>,
    started: Instant,
}

/// Serves the admin socket at `path`, with mode 0660: `GET /health`, `/watch`, `/stacks`, `/status`, `/metrics` and
/// `/log-level`, `PUT /log-level` (the body is a level or filter as in `log.level`), `POST /reload` if [`Admin::reloads`] is
/// set, and `POST /documents` if [`Admin::documents`] is.
///
/// # Errors
/// If the socket is unavailable, see [`SocketError`].
pub fn serve(path: &Path, process: Admin, logs: &Logs) -> Result<AdminHandle, SocketError> {
    let failed = |source| SocketError::Unix { attempt: "serve", path: path.to_path_buf(), source };
    let listener = bind_unix(path, SOCKET_MODE)?;
    let queries = Arc::new(Semaphore::new(QUERIES_MAX));
    let watch = process.watch.clone();
    let state = web::Data::new(AdminState { process, logs: logs.clone(), queries, started: Instant::now() });
    let (started, server) = sync_channel(1);
    let (end, ended) = sync_channel(1);
    let run = move || {
        let result = actix_web::rt::System::new().block_on(run(state, listener, &started));
        // The receiver is gone if the handle has stopped waiting.
        drop(end.try_send(result));
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(run).map_err(failed)?;
    match server.recv() {
        Ok(server) => {
            let address = ListenerAddress::Unix(path.to_path_buf());
            let watched = Some(watch.listener("admin", WatchKind::Admin, address));
            Ok(AdminHandle { path: path.to_path_buf(), server, ended, watched })
        }
        Err(_) => Err(failed(match ended.recv() {
            Ok(Err(error)) => error,
            _ => io::Error::other("the admin thread ended unexpectedly"),
        })),
    }
}

async fn run(
    state: web::Data<AdminState>,
    listener: std::os::unix::net::UnixListener,
    started: &SyncSender<ServerHandle>,
) -> io::Result<()> {
    let app = move || {
        // Called once, on the thread of the only worker.
        state.process.watch.event_loop("admin", WatchKind::Admin);
        let app = App::new()
            .app_data(state.clone())
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .default_service(web::to(|| async { problem::response(&Problem::unknown_route()) }))
            .route(paths::HEALTH, web::get().to(health))
            .route(paths::WATCH, web::get().to(watch))
            .route(paths::STACKS, web::get().to(stacks))
            .route(paths::STATUS, web::get().to(status))
            .route(paths::METRICS, web::get().to(metrics))
            .route(paths::LOG_LEVEL, web::get().to(log_level))
            .route(paths::LOG_LEVEL, web::put().to(set_log_level));
        let app = match state.process.reloads {
            Some(_) => app.route(paths::RELOAD, web::post().to(reload)),
            None => app,
        };
        let app = match state.process.documents {
            Some(_) => app.service(
                web::resource(paths::DOCUMENTS)
                    .app_data(web::PayloadConfig::new(DOCUMENT_BODY_BYTES_MAX))
                    .route(web::post().to(document)),
            ),
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
        .worker_max_blocking_threads(QUERIES_MAX)
        .disable_signals()
        .shutdown_timeout(1)
        .listen_uds(listener)?
        .run();
    // `serve` waits for exactly one handle.
    drop(started.try_send(server.handle()));
    server.await
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.watched = None;
        // Remove the file while it is certainly ours: once the server has ended, another process may replace it.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "could not remove the admin socket");
        }
        drop(self.server.stop(false)); // stops at once; awaiting the future would only wait for the end
        if self.ended.recv_timeout(END_TIMEOUT).is_err() {
            tracing::warn!("the admin thread did not end in time");
        }
    }
}

impl AdminState {
    fn identity(&self) -> ProcessIdentity {
        ProcessIdentity {
            name: self.process.name.to_owned(),
            version: self.process.version.to_owned(),
            pid: std::process::id().cast_signed(),
        }
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn health(state: web::Data<AdminState>) -> HttpResponse {
    HttpResponse::Ok().json(HealthReport {
        process: state.identity(),
        uptime_ms: state.uptime_ms(),
        status: "ok".to_owned(),
    })
}

async fn watch(state: web::Data<AdminState>) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    // The receiver is gone if the diagnostics are late.
    state.process.watch.request_diagnostics(move |diagnostics| drop(reply.send(diagnostics)));
    let diagnostics = tokio::time::timeout(DIAGNOSTICS_TIMEOUT, answer).await;
    // Afterwards, so that it names the thread that did not answer.
    let progress = state.process.watch.report();
    HttpResponse::Ok().json(WatchReport {
        process: state.identity(),
        uptime_ms: state.uptime_ms(),
        progress,
        vitals: diagnostics.ok().and_then(Result::ok),
    })
}

/// The stacks of all threads, as text or, if the client accepts it, as JSON.
async fn stacks(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    state.process.watch.request_stacks(move |capture| drop(reply.send(capture)));
    let capture = match tokio::time::timeout(STACKS_TIMEOUT, answer).await {
        Ok(Ok(capture)) => capture,
        Ok(Err(_)) => {
            let detail = "this process cannot sample its stacks, or another request is doing so";
            return unavailable("no-stacks", detail);
        }
        Err(_) => return unavailable("stuck", "the stacks could not be sampled within 10 seconds"),
    };
    let accepted = AcceptedTypes::of(request.headers());
    let json = accepted.acceptance("application/json");
    if json.is_named() && json >= accepted.acceptance("text/plain") {
        HttpResponse::Ok().json(capture)
    } else {
        HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(crate::watch::stacks_text(&capture))
    }
}

async fn status(state: web::Data<AdminState>) -> HttpResponse {
    let read = Arc::clone(&state.process.status);
    match run_query(&state, move || read()).await {
        Ok(json) => HttpResponse::Ok().content_type(ContentType::json()).body(json),
        Err(response) => response,
    }
}

async fn metrics(state: web::Data<AdminState>, request: HttpRequest) -> HttpResponse {
    let all = state.process.metrics.clone();
    let format = MetricsFormat::negotiated(request.headers());
    match run_query(&state, move || format.of_openmetrics(all.encode())).await {
        Ok(text) => HttpResponse::Ok().content_type(format.content_type()).body(text),
        Err(response) => response,
    }
}

/// Runs `query` on a blocking thread, with a timeout. One that never ends keeps its permit for ever, so that at most
/// [`QUERIES_MAX`] threads are lost.
async fn run_query<T: Send + 'static>(
    state: &AdminState,
    query: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HttpResponse> {
    let busy = "earlier requests are still running";
    let permit = Arc::clone(&state.queries).try_acquire_owned().map_err(|_| unavailable("stuck", busy))?;
    let running = web::block(move || {
        let _permit = permit;
        query()
    });
    match tokio::time::timeout(QUERY_TIMEOUT, running).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(problem::response(&Problem::new(
            500,
            "panicked",
            "a panic occurred while the response was built; see the log",
        ))),
        Err(_) => Err(unavailable("stuck", "the process did not answer within 2 seconds")),
    }
}

async fn log_level(state: web::Data<AdminState>) -> HttpResponse {
    HttpResponse::Ok().json(LogLevel { level: state.logs.level() })
}

async fn set_log_level(state: web::Data<AdminState>, body: String) -> HttpResponse {
    let level = body.trim();
    match state.logs.set_level(level) {
        Ok(()) => {
            tracing::info!(level, "changed the log level");
            HttpResponse::Ok().json(LogLevel { level: level.to_owned() })
        }
        Err(detail) => problem::response(&Problem::new(400, "bad-level", detail)),
    }
}

/// Reloads as SIGHUP does, and answers with the result. The task that receives the order may be stuck.
async fn reload(state: web::Data<AdminState>) -> HttpResponse {
    let (reply, answer) = oneshot::channel();
    let sent = state.process.reloads.as_ref().is_some_and(|reloads| reloads.try_send(reply).is_ok());
    if !sent {
        let busy = "earlier reloads are still running, or the process is stopping; try again later";
        return unavailable("reload-busy", busy);
    }
    match tokio::time::timeout(RELOAD_TIMEOUT, answer).await {
        Ok(Ok(Ok(answer))) => HttpResponse::Ok().json(answer),
        Ok(Ok(Err(problem))) => problem::response(&problem),
        Ok(Err(_)) => unavailable("stopping", "the process is stopping"),
        Err(_) => {
            unavailable("stuck", "the reload did not finish within 60 seconds; it may still take effect")
        }
    }
}

/// Keeps a document for the source that it was fetched for.
async fn document(state: web::Data<AdminState>, body: web::Bytes) -> HttpResponse {
    let Some(take) = &state.process.documents else {
        return problem::response(&Problem::unknown_route());
    };
    let (head, document) = match DocumentHead::split(body) {
        Ok(parts) => parts,
        Err(bad) => return problem::response(&Problem::new(400, "bad-document", bad.to_string())),
    };
    match take(head, document) {
        Ok(answer) => HttpResponse::Accepted().json(answer),
        Err(problem) => problem::response(&problem),
    }
}

fn unavailable(code: &str, detail: &str) -> HttpResponse {
    problem::response(&Problem::new(503, code, detail))
}
