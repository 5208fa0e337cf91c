//! The process from its first socket to its last: what `main` and the tests call.
//!
//! ```text
//! start: catalogue → sockets → store (opens, heals) → recorder → roster → wire → READY
//! stop:  roster leaves (visits are cancelled) → recorder ends (what is queued is on disk) → wire closes
//! ```

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{Actor as _, AsyncContext as _};
use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn, web};
use anyhow::Context as _;
use daemon::{
    Clock, Exit,
    admin::{Admin, AdminHandle},
    config::{CheckedConfig, Config, ConfigChange, Reloader},
    logs::Logs,
    metrics::MetricsRegistry,
    notify,
    process::{DaemonContext, ExitReason},
    sockets::{SocketError, bind_unix},
    stop::Signals,
    watch::{Watch, WatchHandle, WatchKind},
};
use fetch::{Policy, Visitor, schedule::IntervalBounds};
use news::{Catalogue, Seq, SourceId, SourceState};
use serde::Serialize;
use serde_json::json;
use stacks::SelfSampler;
use store::{LogReader, StoreOpenError};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use crate::{
    board::{Board, Health},
    gates::{Bounds, Gates},
    marks::Marks,
    metrics::Numbers,
    recorder::{self, Recorder, WriterThread},
    roster::{Dismiss, Roster, Take, Taken, overdue},
    routes,
    secrets::Secrets,
    source_actor::Workshop,
    vitals::{Tally, Vitals},
    websub::{self, Hubs},
    wire_log::{Fault, WireLog},
};

/// Notices that a slow gateway may lag behind before it is told to read the list of sources again.
const NOTICES: usize = 1024;
/// How often the wire shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Rights of the wire's socket: the gateway shares our group.
const SOCKET_MODE: u32 = 0o660;
/// Orders to reload that wait for the one under way.
const RELOADS: usize = 4;
/// Largest body of an order.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Why the process did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The catalogue cannot be used; every complaint, one a line.
    #[error("{0}")]
    Catalogue(String),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreOpenError),
    /// A socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The log can no longer be read.
    #[error("{0}")]
    Damaged(String),
    /// The log can no longer be written.
    #[error(transparent)]
    Append(#[from] store::AppendError),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl ExitReason for RunError {
    fn exit(&self) -> Exit {
        match self {
            Self::Catalogue(_) => Exit::Config,
            Self::Store(StoreOpenError::Locked { .. }) => Exit::Locked,
            Self::Store(_) | Self::Append(_) | Self::Damaged(_) => Exit::Io,
            Self::Socket(error) => error.exit(),
            Self::Other(_) => Exit::Failure,
        }
    }
}

/// An order to read the catalogue again; the answer is what came of it.
pub(crate) type Reload = oneshot::Sender<Result<Reloaded, RunError>>;

/// What a reload changed.
#[derive(Debug, Serialize)]
pub(crate) struct Reloaded {
    /// The file that was read.
    file: String,
    #[serde(flatten)]
    taken: Taken,
    /// Keys of the configuration with another value; those that are not `live` wait for a restart.
    changes: Vec<ConfigChange>,
}

/// What a reload reads and what it changes.
struct Reloads {
    reloader: Reloader,
    logs: Logs,
    shop: Rc<Workshop>,
    reader: LogReader,
    roster: actix::Addr<Roster>,
    board: Board,
}

impl Reloads {
    fn new(
        reloader: Reloader,
        logs: Logs,
        shop: &Rc<Workshop>,
        reader: &LogReader,
        roster: &actix::Addr<Roster>,
        board: &Board,
    ) -> Self {
        let (shop, reader, roster) = (Rc::clone(shop), reader.clone(), roster.clone());
        Self { reloader: reloader.for_sections(SECTIONS), logs, shop, reader, roster, board: board.clone() }
    }

    /// For `systemctl status`.
    fn sentence(&self) -> String {
        let plates = self.board.plates();
        let tally = Tally::of(&plates, self.shop.now());
        let (failing, head) = (tally.healths[Health::Failing as usize], self.reader.head());
        let commits = self.shop.numbers.shown.commits.last_ms_ago();
        let last = commits.map_or_else(String::new, |ms| format!(", the last {} s ago", ms / 1000));
        let outage = if self.shop.numbers.outage.get() == 0 { "" } else { "; the network seems to be away" };
        format!("{} sources, {failing} failing; {head} events recorded{last}{outage}", plates.len())
    }
}

/// What of the configuration is read here.
const SECTIONS: &[&str] = &["daemon", "ingestd", "store", "fetch", "wire", "log"];

fn pace(config: &Config) -> IntervalBounds {
    IntervalBounds { interval_min: config.fetch.interval_min, interval_max: config.fetch.interval_max }
}

/// Runs the process until the stop signal or until the log fails. Call it inside an actix system.
///
/// # Errors
/// [`RunError`]: what to print, and what to exit with.
pub async fn run(start: DaemonContext) -> Result<(), RunError> {
    let DaemonContext { config, reloader, clock, logs, signals, watch: watched, self_sampler } = start;
    watch_this_loop(&watched);
    let catalogue = read_catalogue(&config.ingestd.sources).await?;
    let (writer, reader) = open_store(&config).await?;
    let wire_socket = bind_unix(&config.daemon.run_dir.join("ingestd.sock"), SOCKET_MODE)?;
    let metrics = MetricsRegistry::new();
    metrics.register_process("ingestd", env!("CARGO_PKG_VERSION"), &clock, &logs);
    let numbers = Numbers::register(&metrics);
    let board = Board::default();
    let (bell, bell_heard) = watch::channel(reader.head());
    let (notices, _) = broadcast::channel(NOTICES);
    let desk = recorder::Desk {
        writer,
        reader: reader.clone(),
        bell,
        clock: clock.clone(),
        numbers: numbers.clone(),
        watch: watched.clone(),
    };
    let failed = signals.stop.clone();
    let (recorder, writer_thread) = Recorder::start(desk, move || failed.cancel())?;
    let vitals = vitals(&config, &board, &reader, &clock, &numbers, recorder.queued());
    let _overseers = oversee(&config, &metrics, vitals, (&watched, self_sampler), &logs)?;
    let recorder = recorder.start();
    let marks = open_marks(&config).await?;
    let hubs = config.gateway.public_url.clone().map(|url| (actix::Context::<Hubs>::new(), url));
    let shop = Rc::new(Workshop {
        visitor: visitor(&config, &metrics)?,
        secrets: secrets(&config),
        gates: Gates::new(bounds(&config), numbers.clone()),
        parsers: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
        read: feed::read,
        marks: marks.clone(),
        outage: RefCell::default(),
        recorder: recorder.clone(),
        hubs: hubs.as_ref().map(|(context, _)| context.address()),
        notices: notices.clone(),
        pace: Cell::new(pace(&config)),
        epoch: reader.epoch().clone(),
        clock: clock.clone(),
        numbers: numbers.clone(),
    });
    let roster = Roster::new(Rc::clone(&shop), board.clone()).start();
    let desk_for_reloads = Reloads::new(reloader, logs, &shop, &reader, &roster, &board);
    let hubs = hubs.map(|(context, url)| context.run(Hubs::new(shop, board.clone(), roster.clone(), url)));
    let (reloads, orders) = mpsc::channel(RELOADS);
    let fault = Fault::new(signals.stop.clone());
    let log = WireLog { reader: reader.clone(), fault: fault.clone() };
    let desk = routes::Desk {
        publisher: publisher(&log, bell_heard, notices),
        log,
        board,
        roster: roster.clone(),
        reloads,
        clock,
        hubs: hubs.clone(),
        metrics,
        numbers,
    };
    let server = serve_wire(desk, wire_socket, watched)?;
    take_catalogue(&roster, catalogue, &reader).await?;
    announce(&config, &reader);
    attend(desk_for_reloads, signals, orders).await;
    stop(&config, (roster, hubs, recorder), writer_thread, server).await?;
    tokio::task::spawn_blocking(move || marks.clear()).await.ok();
    fault.reason().map_or(Ok(()), |reason| Err(RunError::Damaged(reason.to_owned())))
}

/// The actors live here, and documents are read in this runtime's pool.
fn watch_this_loop(watch: &Watch) {
    watch.event_loop("main", WatchKind::Arbiter);
    watch.pool("pool-main", &tokio::runtime::Handle::current());
}

fn announce(config: &Config, reader: &LogReader) {
    tracing::info!(
        epoch = %reader.epoch(), seq = reader.head().0, seq_oldest = reader.oldest().0,
        socket = %config.daemon.run_dir.join("ingestd.sock").display(), "ready"
    );
    notify::ready();
}

fn vitals(
    config: &Config,
    board: &Board,
    reader: &LogReader,
    clock: &Clock,
    numbers: &Numbers,
    queued: impl Fn() -> usize + Send + Sync + 'static,
) -> Vitals {
    Vitals {
        board: board.clone(),
        reader: reader.clone(),
        clock: clock.clone(),
        numbers: numbers.clone(),
        path: config.store.path.clone(),
        queued: Box::new(queued),
    }
}

/// The admin socket and the watchdog.
fn oversee(
    config: &Config,
    metrics: &MetricsRegistry,
    vitals: Vitals,
    (watch, inside): (&Watch, Option<SelfSampler>),
    logs: &Logs,
) -> Result<(AdminHandle, WatchHandle), RunError> {
    watch.register_loops(metrics, "ingestd");
    let vitals = Arc::new(vitals);
    vitals.register(metrics);
    let admin = serve_admin(config, metrics, &vitals, watch, logs)?;
    let watchdog = watch.start(inside, move || vitals.tell()).context("start the watchdog")?;
    Ok((admin, watchdog))
}

fn publisher(
    log: &WireLog,
    bell: watch::Receiver<Seq>,
    notices: broadcast::Sender<wire::Notice>,
) -> wire::Publisher {
    wire::Publisher {
        log: Arc::new(log.clone()),
        bell,
        notices,
        heartbeat: HEARTBEAT,
        server: concat!("newswire-ingestd/", env!("CARGO_PKG_VERSION")).into(),
    }
}

pub(crate) async fn read_catalogue(path: &Path) -> Result<Catalogue, RunError> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| {
        let hint = "name the file in ingestd.sources, or make one with [[source]] tables";
        RunError::Catalogue(format!("{}: cannot read the list of sources: {error}; {hint}", path.display()))
    })?;
    Catalogue::parse(&text)
        .map_err(|complaints| RunError::Catalogue(complaints.in_file(path.display()).to_string()))
}

/// On a thread of its own: it reads the log since the last start, and sled can panic on a damaged one.
async fn open_store(config: &Config) -> Result<(store::LogWriter, LogReader), RunError> {
    let path = config.store.path.clone();
    let options = store::StoreOptions {
        cache_bytes: config.store.cache_bytes,
        retention: store::Retention {
            age: config.store.retention_age,
            events: config.store.retention_events,
            bytes: config.store.retention_bytes,
        },
    };
    notify::status("opening the log");
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    let open = move || store::open(&path, &options);
    let opened = tokio::task::spawn_blocking(open).await;
    Ok(opened.context("the thread that opens the log died")??)
}

/// Only whoever has the store may look at its marks.
async fn open_marks(config: &Config) -> Result<Marks, RunError> {
    let path = config.store.path.clone();
    let marks = tokio::task::spawn_blocking(move || Marks::open(&path)).await;
    let marks = marks.context("the thread that opens the marks died")?;
    Ok(marks.with_context(|| format!("cannot use {}", config.store.path.join("parsing").display()))?)
}

fn serve_admin(
    config: &Config,
    metrics: &MetricsRegistry,
    vitals: &Vitals,
    watch: &Watch,
    logs: &Logs,
) -> Result<AdminHandle, SocketError> {
    #[cfg(feature = "drill")]
    crate::drill::offer_all();
    let (board, reader, clock) = (vitals.board.clone(), vitals.reader.clone(), vitals.clock.clone());
    let status = move || {
        let now = news::Timestamp::from_millis(clock.now_millis());
        json!({
            "epoch": reader.epoch(),
            "oldest": reader.oldest(),
            "head": reader.head(),
            "panics": daemon::panics::count(),
            "overdue": overdue(&board, now),
            "sources": board.plates().iter().map(|plate| plate.status()).collect::<Vec<_>>(),
        })
    };
    let admin = Admin {
        name: "newswire-ingestd",
        version: env!("CARGO_PKG_VERSION"),
        metrics: metrics.clone(),
        watch: watch.clone(),
        status: Arc::new(status),
        // `ingestd.sock` takes that order.
        reloads: None,
    };
    daemon::admin::serve(&config.daemon.run_dir.join("ingestd-admin.sock"), admin, logs)
}

fn visitor(config: &Config, metrics: &MetricsRegistry) -> anyhow::Result<Visitor> {
    let allow = config.fetch.allow.iter().map(|cidr| cidr.parse()).collect::<Result<_, _>>();
    let policy = Policy {
        timeout_connect: config.fetch.timeout_connect,
        timeout_total: config.fetch.timeout_total,
        body_bytes_max: usize::try_from(config.fetch.body_bytes_max).unwrap_or(usize::MAX),
        allow: allow.context("fetch.allow")?,
        user_agent: config.fetch.user_agent.clone(),
        ..Policy::default()
    };
    let visitor = Visitor::try_new(policy)?;
    let counted = visitor.clone();
    metrics.register_counter(
        "newswire_ingestd_clients_displaced_total",
        "HTTP clients that made room, because sources have more distinct proxies and authorities than are kept",
        move || counted.clients_displaced(),
    );
    Ok(visitor)
}

pub(crate) fn secrets(config: &Config) -> Secrets {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Secrets::new(&config.ingestd.sources, credentials)
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        in_flight: config.fetch.in_flight,
        host_in_flight: config.fetch.host_in_flight,
        host_spacing: config.fetch.host_spacing,
    }
}

fn serve_wire(
    desk: routes::Desk,
    socket: std::os::unix::net::UnixListener,
    watch: Watch,
) -> anyhow::Result<ServerHandle> {
    let app = move || {
        // Called once, on the thread of the one worker; pages of the log are read in its pool.
        watch.event_loop("wire", WatchKind::Wire);
        watch.pool("pool-wire", &tokio::runtime::Handle::current());
        App::new()
            .app_data(web::Data::new(desk.clone()))
            .app_data(web::JsonConfig::default().limit(BODY_BYTES_MAX))
            .wrap(from_fn(routes::at_work))
            .configure(routes::configure)
    };
    let server = HttpServer::new(app)
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .h1_allow_half_closed(false)
        .listen_uds(socket)
        .context("serve the wire")?
        .run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok(handle)
}

async fn take_catalogue(
    roster: &actix::Addr<Roster>,
    catalogue: Catalogue,
    reader: &LogReader,
) -> Result<Taken, RunError> {
    for source in catalogue.sources.iter().filter(|source| source.access.tls_ca_file.is_some()) {
        tracing::warn!(source = %source.id, "trusts certificate authorities of its own (tls_ca_file)");
    }
    let ids: Vec<_> = catalogue.sources.iter().map(|s| s.id.clone()).collect();
    let reader = reader.clone();
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    let recall = move || -> Result<HashMap<SourceId, SourceState>, store::LogReadError> {
        let state = |id: SourceId| Ok(reader.state(&id)?.map(|state| (id, state)));
        ids.into_iter().filter_map(|id| state(id).transpose()).collect()
    };
    let remembered = tokio::task::spawn_blocking(recall).await.context("recall the sources")?;
    let remembered = remembered.map_err(store::AppendError::from)?;
    let taken = roster.send(Take { catalogue, remembered }).await.context("hand the catalogue over")?;
    let (added, changed, removed, unchanged) = (taken.added, taken.changed, taken.removed, taken.unchanged);
    tracing::info!(added, changed, removed, unchanged, "took the catalogue");
    Ok(taken)
}

/// Until the stop signal: reloads, and a sentence for `systemctl status`.
async fn attend(mut reloads: Reloads, mut signals: Signals, mut orders: mpsc::Receiver<Reload>) {
    let mut status = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            () = signals.stop.cancelled() => return,
            Ok(()) = signals.reload.changed() => {
                // What came of it has been logged.
                reload(&mut reloads).await.ok();
            }
            Some(order) = orders.recv() => {
                // Whoever asked may be gone.
                order.send(reload(&mut reloads).await).ok();
            }
            _ = status.tick() => notify::status(&reloads.sentence()),
        }
    }
}

/// A catalogue with mistakes changes nothing.
async fn reload(reloads: &mut Reloads) -> Result<Reloaded, RunError> {
    notify::reloading();
    let reloaded = match reloads.reloader.read() {
        Ok(draft) => take_draft(reloads, draft).await,
        Err(complaints) => Err(RunError::Catalogue(complaints.to_string())),
    };
    notify::ready();
    reloaded
}

async fn take_draft(reloads: &mut Reloads, draft: CheckedConfig) -> Result<Reloaded, RunError> {
    let config = draft.config();
    let sources = config.ingestd.sources.clone();
    let taken = match read_catalogue(&sources).await {
        Ok(catalogue) => {
            reloads.shop.pace.set(pace(config));
            reloads.shop.gates.set(bounds(config));
            take_catalogue(&reloads.roster, catalogue, &reloads.reader).await
        }
        Err(error) => Err(error),
    };
    let taken = taken.inspect_err(|error| {
        for line in error.to_string().lines() {
            tracing::error!(error = line, "kept the old catalogue");
        }
    })?;
    reloads.logs.reconfigure(&config.log.level, &draft.changes);
    let changes = reloads.reloader.take(draft);
    let file = std::path::absolute(&sources).unwrap_or(sources).display().to_string();
    Ok(Reloaded { file, taken, changes })
}

async fn stop(
    config: &Config,
    (roster, hubs, recorder): (actix::Addr<Roster>, Option<actix::Addr<Hubs>>, actix::Addr<Recorder>),
    writer_thread: WriterThread,
    server: ServerHandle,
) -> Result<(), RunError> {
    notify::stopping();
    // Before the store is free for the next one, who will want the name.
    tokio::fs::remove_file(config.daemon.run_dir.join("ingestd.sock")).await.ok();
    tracing::info!("stopping");
    // A closed address means that it is gone already.
    roster.send(Dismiss).await.ok();
    drop(roster);
    if let Some(hubs) = hubs {
        hubs.send(websub::Close).await.ok();
    }
    recorder.send(recorder::Close).await.ok();
    drop(recorder);
    let written = tokio::task::spawn_blocking(move || writer_thread.join()).await;
    server.stop(false).await;
    written.context("the recorder's thread died")??;
    tracing::info!("stopped");
    Ok(())
}
