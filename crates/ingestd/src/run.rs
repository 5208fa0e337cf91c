//! The daemon from its first socket to its last: what `main` and the tests call.
//!
//! ```text
//! start: catalogue → sockets → store (opens, heals) → recorder → supervisor → wire → READY
//! stop:  supervisor stops (visits are cancelled) → recorder stops (what is queued gets to disk) → wire closes (what is on
//!        disk is published, if NATS is the wire)
//! ```

use std::{
    cell::{Cell, RefCell},
    mem::ManuallyDrop,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{Actor as _, Addr, AsyncContext as _, Context};
use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn, web};
use anyhow::Context as _;
use control::{ControlSocket, IngestStatus};
use daemon::{
    Clock, Exit,
    admin::{Admin, AdminHandle, ReloadOrder, status_of},
    black_box,
    config::Config,
    logs::Logs,
    metrics::MetricsRegistry,
    notify,
    process::{self, DaemonContext},
    program::LossOfLog,
    sockets::bind_unix,
    watch::{ListenerAddress, Watch, WatchHandle, WatchKind},
};
use fetch::schedule::server_interval_max;
use news::{HeldHost, RecordingPauseReason, Seq, Timestamp};
use stacks::SelfSampler;
use store::{LogReader, LogWriter, OpenNote};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::nats::NatsSettings;

use crate::{
    catalogue::{CatalogueEnds, apply_catalogue, read_catalogue},
    control_loop::ControlLoop,
    disk_space::{DiskSpace, SpaceBounds, SpaceProbe, open_on_full_disk},
    documents::FetchedDocuments,
    error::{IngestError, WriterError},
    http::{
        control_state::{ControlState, WebSubRecipients},
        routes,
        wire_log::WireLog,
    },
    known_aliases::KnownAliases,
    lists::{FeedLists, ListBoard, ListReadRequest},
    messages::Stop,
    nats_wire::{NatsMetrics, NatsThread, NatsWire},
    queue::{held_hosts, limiter::HostLimiter},
    recorder::{Recorder, WriterLoop, WriterThread},
    recording::{PausedWork, Recording},
    settings,
    sharing::{ChangedSources, SharedCatalogue, Sharing, SharingActors, SharingMetrics},
    status::{
        diagnostics::IngestDiagnostics,
        metrics::IngestMetrics,
        registry::{SourceRegistry, StatusOf},
    },
    supervisor::Supervisor,
    visit::{
        context::{ParseLimits, VisitContext},
        crash_guard::CrashGuard,
        lost_time::LostTime,
    },
    websub::actor::WebSubActor,
};

/// Notices that a slow gateway may lag behind before it has to read the list of sources again.
const NOTICES: usize = 1024;
/// How often a heartbeat is sent on the wire.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Mode of the wire's socket: the gateway is in our group.
const SOCKET_MODE: u32 = 0o660;
/// Reload requests, and orders to read lists, that may wait for the one in progress.
const RELOADS: usize = 4;
/// Largest JSON body of a request.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How long a stop may take in which everything that is queued gets to disk; systemd waits 20 s (`TimeoutStopSec`).
const STOP_MAX: Duration = Duration::from_secs(15);
/// How long the removal of the marks of the crash guard may take at the end.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the stop may take after the log could not be written.
const STOP_AFTER_FAILURE_MAX: Duration = Duration::from_secs(4);

/// Shared by most parts of the daemon.
struct DaemonParts {
    clock: Clock,
    reader: LogReader,
    registry: SourceRegistry,
    metrics_registry: MetricsRegistry,
    metrics: IngestMetrics,
    recording: Recording,
    notices: broadcast::Sender<wire::Notice>,
    documents: FetchedDocuments,
    lists: ListBoard,
    aliases: KnownAliases,
    /// Sources whose checkpoint in NATS is older than the store, if several daemons divide the list.
    changed: Option<ChangedSources>,
}

/// The running actors.
struct Actors {
    recorder: Addr<Recorder>,
    supervisor: Addr<Supervisor>,
    /// `None` without `gateway.public_url`, because no hub could reach us.
    websub: Option<Addr<WebSubActor>>,
}

/// Runs the daemon until the stop signal or until the log fails; `loss` says what happens if the log is gone. Call it inside
/// an actix system.
///
/// # Errors
/// [`IngestError`]: what to print, and what to exit with.
pub async fn run(start: DaemonContext, loss: LossOfLog) -> Result<(), IngestError> {
    let DaemonContext { config, reloader, clock, logs, signals, watch: watched, self_sampler } = start;
    watch_this_loop(&watched);
    daemon::panics::expect_if(store::is_in_sled);
    let nats = settings::nats(&config)?;
    let catalogue = read_catalogue(&config.ingestd.sources).await?;
    let (writer, reader, held) = open_store(&config, loss).await?;
    let wire_socket = bind_unix(&config.socket(ControlSocket::Ingestd), SOCKET_MODE)?;
    let (head_changed, head) = watch::channel(reader.head());
    let parts = DaemonParts::new(&config, clock, reader, &logs).await;
    parts.pause_copy(&config);
    let space_bounds = parts.watch_disk(&config).await;
    let failed = signals.stop.clone();
    let writer_loop = parts.writer_loop(&config, writer, head_changed, &watched);
    let (recorder, writer_thread) = Recorder::start(writer_loop, move |error| end_after(error, &failed))?;
    let diagnostics = parts.diagnostics(&config, recorder.queued());
    black_box::count_with(counts(parts.metrics.clone(), recorder.queued()));
    let (reloads, reload_requests) = mpsc::channel(RELOADS);
    let (list_orders, list_requests) = mpsc::channel(RELOADS);
    let admin = parts.admin(&watched, reloads.clone());
    let _admin = start_admin(&config, admin, diagnostics, self_sampler, &logs)?;
    let crash_guard = open_crash_guard(&config, &watched).await?;
    let (ctx, actors) = parts.start_actors(&config, recorder.start(), crash_guard.clone())?;
    held_hosts::restore(&ctx.limiter, held, ctx.now(), server_interval_max(ctx.interval_bounds.get()));
    let record_held = actors.recorder.clone().recipient();
    let limiter = ctx.limiter.clone();
    actix_rt::spawn(parts.recording.clone().follow(move |paused_by| limiter.set_paused(paused_by)));
    actix_rt::spawn(held_hosts::record(ctx.limiter.clone(), parts.clock.clone(), record_held));
    let log = WireLog { reader: parts.reader.clone(), metrics: parts.metrics.clone() };
    let (mut shared, sharing) = parts.share(&config, &actors).unzip();
    sharing.iter().for_each(|sharing: &Sharing| ctx.limiter.require(sharing.lease.clone()));
    let nats = parts.start_nats(&config, nats, &log, &head, sharing, &watched)?;
    let server = serve_wire(
        parts.control_state(&actors, &watched, log, head, reloads, list_orders),
        wire_socket,
        watched.clone(),
    )?;
    let address = ListenerAddress::Unix(config.socket(ControlSocket::Ingestd));
    let watched_socket = watched.listener("wire", WatchKind::Wire, address);
    let (supervisor, own_sources) =
        (actors.supervisor.clone().recipient(), actors.supervisor.clone().recipient());
    let mut lists = FeedLists::new(Rc::clone(&ctx), &config.store.path, parts.lists.clone());
    let mut catalogue = lists.complete(catalogue, &config.ingestd.sources).await?;
    catalogue.inherit_proxy(ctx.visitor.default_proxy());
    parts.registry.expect(catalogue.sources.len());
    let ends =
        CatalogueEnds { supervisor: &supervisor, credentials: &ctx.credentials, reader: &parts.reader };
    apply_catalogue(ends, catalogue, shared.as_mut()).await?;
    parts.registry.set_complete();
    notify_ready(&config, &parts.reader);
    let DaemonParts { reader, registry, .. } = parts;
    let reloader = reloader.for_sections(settings::SECTIONS);
    let control_loop = ControlLoop {
        reloader,
        logs,
        ctx,
        reader,
        supervisor,
        own_sources,
        lists,
        registry,
        space_bounds,
        shared,
    };
    control_loop.run(signals, reload_requests, list_requests).await;
    drop(watched_socket);
    stop(&config, actors, writer_thread, server, nats).await?;
    // A disk that hangs does not keep the process from ending.
    tokio::time::timeout(CLEAR_TIMEOUT, tokio::task::spawn_blocking(move || crash_guard.clear())).await.ok();
    Ok(())
}

impl DaemonParts {
    async fn new(config: &Config, clock: Clock, reader: LogReader, logs: &Logs) -> Self {
        let metrics_registry = MetricsRegistry::new();
        metrics_registry.register_process("ingestd", env!("CARGO_PKG_VERSION"), &clock, logs);
        let metrics = IngestMetrics::register(&metrics_registry);
        Self {
            aliases: KnownAliases::read(&config.store.path, reader.epoch(), reader.head()).await,
            recording: Recording::new(clock.clone(), metrics.clone()),
            clock,
            reader,
            registry: SourceRegistry::default(),
            metrics,
            metrics_registry,
            notices: broadcast::channel(NOTICES).0,
            documents: FetchedDocuments::default(),
            lists: ListBoard::default(),
            changed: (!config.ingestd.share_group.is_empty()).then(ChangedSources::default),
        }
    }

    /// Pauses recording if the store is a copy: what is recorded now would have numbers that the original has given to other
    /// events, and no client could tell.
    fn pause_copy(&self, config: &Config) {
        if !self.reader.notes().contains(&OpenNote::Copied) {
            return;
        }
        let path = std::path::absolute(&config.store.path).unwrap_or_else(|_| config.store.path.clone());
        let detail = format!(
            "the files in {} are a copy of another store; stop newswire-ingestd and run `newswire log restore`, which begins \
             a new epoch, or `newswire log restore --same-epoch` if the original is gone and no client was ahead of this copy",
            path.display()
        );
        self.recording.pause(RecordingPauseReason::StoreCopied, PausedWork::NewVisits, detail);
    }

    /// Pauses recording if the disk of the store is nearly full: now, before the first visit, and from now on.
    async fn watch_disk(&self, config: &Config) -> watch::Sender<SpaceBounds> {
        let (bounds, current) = watch::channel(settings::space_bounds(config));
        let path = std::path::absolute(&config.store.path).unwrap_or_else(|_| config.store.path.clone());
        let of_store = path.clone();
        let probe: SpaceProbe = Arc::new(move || store::space::of_open_store(&of_store));
        let mut disk_space = DiskSpace::new(path, probe, current, self.recording.clone());
        disk_space.check().await;
        actix_rt::spawn(disk_space.run());
        bounds
    }

    fn writer_loop(
        &self,
        config: &Config,
        writer: LogWriter,
        head_changed: watch::Sender<Seq>,
        watch: &Watch,
    ) -> WriterLoop {
        WriterLoop {
            writer,
            reader: self.reader.clone(),
            head_changed,
            clock: self.clock.clone(),
            retention_age: config.store.retention_age,
            metrics: self.metrics.clone(),
            recording: self.recording.clone(),
            watch: watch.clone(),
            changed: self.changed.clone(),
        }
    }

    fn diagnostics(
        &self,
        config: &Config,
        queued: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Arc<IngestDiagnostics> {
        Arc::new(IngestDiagnostics {
            registry: self.registry.clone(),
            reader: self.reader.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            recording: self.recording.clone(),
            path: config.store.path.clone(),
            slots: config.fetch.in_flight,
            queued: Box::new(queued),
        })
    }

    fn admin(&self, watch: &Watch, reloads: mpsc::Sender<ReloadOrder>) -> Admin {
        let (registry, reader, clock) = (self.registry.clone(), self.reader.clone(), self.clock.clone());
        let documents = self.documents.clone();
        let status = move || IngestStatus {
            epoch: reader.epoch().to_string(),
            oldest: reader.oldest().0,
            head: reader.head().0,
            panics: daemon::panics::count(),
            overdue: registry.overdue(Timestamp::from_millis(clock.now_millis())) as u64,
            sources: registry.entries().into_iter().map(StatusOf).collect(),
        };
        Admin {
            name: "newswire-ingestd",
            version: env!("CARGO_PKG_VERSION"),
            metrics: self.metrics_registry.clone(),
            watch: watch.clone(),
            status: status_of(status),
            reloads: Some(reloads),
            documents: Some(Arc::new(move |head, bytes| documents.add(head, bytes))),
        }
    }

    fn start_actors(
        &self,
        config: &Config,
        recorder: Addr<Recorder>,
        crash_guard: CrashGuard,
    ) -> anyhow::Result<(Rc<VisitContext>, Actors)> {
        let websub = config.gateway.public_url.clone().map(|url| (Context::<WebSubActor>::new(), url));
        let ctx = Rc::new(VisitContext {
            visitor: settings::visitor(config, &self.metrics_registry)?,
            credentials: settings::credential_files(config),
            limiter: HostLimiter::new(settings::visit_limits(config), self.metrics.clone()),
            parsers: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
            parse: feed::read,
            crash_guard,
            parse_limits: ParseLimits::default(),
            lost_time: LostTime::default(),
            outage: RefCell::default(),
            recorder: recorder.clone().recipient(),
            websub: websub.as_ref().map(|(actor_ctx, _)| actor_ctx.address().recipient()),
            notices: self.notices.clone(),
            interval_bounds: Cell::new(settings::interval_bounds(config)),
            epoch: self.reader.epoch().clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        });
        ctx.lost_time.watch();
        let supervisor = Supervisor::new(
            Rc::clone(&ctx),
            self.registry.clone(),
            recorder.clone().recipient(),
            recorder.clone().recipient(),
            recorder.clone().recipient(),
            websub.as_ref().map(|(actor_ctx, _)| actor_ctx.address().recipient()),
        );
        let supervisor = supervisor.with_documents(self.documents.clone()).start();
        let websub = websub.map(|(actor_ctx, url)| {
            let (registry, visits) = (self.registry.clone(), supervisor.clone().recipient());
            let actor =
                WebSubActor::new(Rc::clone(&ctx), registry, visits, recorder.clone().recipient(), url);
            actor_ctx.run(actor)
        });
        Ok((ctx, Actors { recorder, supervisor, websub }))
    }

    /// What divides the list with other daemons, if that is configured.
    fn share(&self, config: &Config, actors: &Actors) -> Option<(SharedCatalogue, Sharing)> {
        let metrics = SharingMetrics::register(&self.metrics_registry);
        let changed = self.changed.clone()?;
        let sharing_actors = SharingActors {
            leave: actors.supervisor.clone().recipient(),
            export: actors.recorder.clone().recipient(),
            adopt: actors.recorder.clone().recipient(),
        };
        let since = Timestamp::from_millis(self.clock.now_millis());
        let group = config.ingestd.share_group.clone();
        Some(Sharing::new(group, sharing_actors, self.recording.clone(), changed, metrics, since))
    }

    /// Starts what publishes to NATS, if that is the wire.
    fn start_nats(
        &self,
        config: &Config,
        settings: Option<NatsSettings>,
        log: &WireLog,
        head: &watch::Receiver<Seq>,
        sharing: Option<Sharing>,
        watch: &Watch,
    ) -> anyhow::Result<Option<NatsThread>> {
        let reader = self.reader.clone();
        let metrics = NatsMetrics::register(&self.metrics_registry, move || reader.head());
        let Some(settings) = settings else { return Ok(None) };
        let recording = self.recording.clone();
        let wire = NatsWire {
            settings,
            in_flight_max: usize::try_from(config.wire.nats_publish_in_flight).unwrap_or(usize::MAX),
            socket: config.socket(ControlSocket::Ingestd),
            log: Arc::new(log.clone()),
            head_changed: head.clone(),
            notices: self.notices.subscribe(),
            recording_pauses: Arc::new(move || recording.pauses()),
            metrics,
            aliases: self.aliases.clone(),
            watch: watch.clone(),
            sharing,
        };
        wire.start().map(Some)
    }

    fn control_state(
        &self,
        actors: &Actors,
        watch: &Watch,
        log: WireLog,
        head: watch::Receiver<Seq>,
        reloads: mpsc::Sender<ReloadOrder>,
        list_orders: mpsc::Sender<ListReadRequest>,
    ) -> ControlState {
        let recording = self.recording.clone();
        let publisher = wire::Publisher {
            recording_pauses: Arc::new(move || recording.pauses()),
            log: Arc::new(log.clone()),
            head_changed: head,
            notices: self.notices.clone(),
            aliases: self.aliases.subscribe(),
            heartbeat: HEARTBEAT,
            server: concat!("newswire-ingestd/", env!("CARGO_PKG_VERSION")).into(),
        };
        ControlState {
            publisher,
            log,
            registry: self.registry.clone(),
            lists: self.lists.clone(),
            list_orders,
            visits: actors.supervisor.clone().recipient(),
            pauses: actors.supervisor.clone().recipient(),
            turns: actors.supervisor.clone().recipient(),
            reloads,
            clock: self.clock.clone(),
            websub: actors.websub.clone().map(|websub| WebSubRecipients {
                verify: websub.clone().recipient(),
                lookup: websub.clone().recipient(),
                push: websub.recipient(),
            }),
            metrics_registry: self.metrics_registry.clone(),
            metrics: self.metrics.clone(),
            recording: self.recording.clone(),
            watch: watch.clone(),
            newest_ahead: Arc::default(),
        }
    }
}

/// The actors live on this loop, and documents are parsed in the pool of this runtime.
fn watch_this_loop(watch: &Watch) {
    watch.event_loop("main", WatchKind::Arbiter);
    watch.pool("pool-main", &tokio::runtime::Handle::current());
}

/// For the black box: atomics only.
fn counts(
    metrics: IngestMetrics,
    queued: impl Fn() -> usize + Send + Sync + 'static,
) -> impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static {
    let gauge = |value: i64| u64::try_from(value).unwrap_or_default();
    move || {
        vec![
            ("visits", gauge(metrics.in_flight.get())),
            ("visits_waiting", gauge(metrics.waiting.get())),
            ("recorder_queue", queued() as u64),
            ("wire_subscribers", gauge(metrics.subscribers.get())),
            ("head", gauge(metrics.log_head.get())),
        ]
    }
}

fn notify_ready(config: &Config, reader: &LogReader) {
    black_box::ready();
    tracing::info!(
        epoch = %reader.epoch(), seq = reader.head().0, seq_oldest = reader.oldest().0,
        socket = %config.socket(ControlSocket::Ingestd).display(), "ready"
    );
    notify::ready();
}

/// Starts the admin socket and the watchdog.
fn start_admin(
    config: &Config,
    admin: Admin,
    diagnostics: Arc<IngestDiagnostics>,
    self_sampler: Option<SelfSampler>,
    logs: &Logs,
) -> Result<(AdminHandle, WatchHandle), IngestError> {
    let watch = admin.watch.clone();
    watch.register_loops(&admin.metrics, "ingestd");
    diagnostics.register(&admin.metrics);
    #[cfg(feature = "drill")]
    crate::drill::offer_all();
    let socket = config.socket(ControlSocket::IngestdAdmin);
    let admin = daemon::admin::serve(&socket, admin, logs)?;
    let watchdog = watch.start(self_sampler, move || diagnostics.vitals()).context("start the watchdog")?;
    Ok((admin, watchdog))
}

/// Stops the process because of `error`: orderly if that is possible, and soon in any case.
fn end_after(error: &WriterError, stop: &CancellationToken) {
    process::end_within(
        STOP_AFTER_FAILURE_MAX,
        Exit::Io,
        "the stop after the failure of the log takes too long; the process ends at once",
    );
    tracing::error!("{error}");
    stop.cancel();
}

/// On its own thread: it reads the log since the last checkpoint, and sled can panic on a damaged store.
async fn open_store(
    config: &Config,
    loss: LossOfLog,
) -> Result<(LogWriter, LogReader, Vec<HeldHost>), IngestError> {
    let (path, options) = (config.store.path.clone(), settings::store_options(config, loss));
    notify::status("opening the log");
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    let open = move || {
        let (writer, reader) = open_on_full_disk(&path, || store::open(&path, &options))?;
        reader.notes().iter().for_each(log_note);
        let held = reader.held_hosts().unwrap_or_else(|error| {
            tracing::warn!(%error, "the pauses that hosts asked for before the start are lost");
            Vec::new()
        });
        // Keeps the log open until the process exits: the last one to close it would wait for sled to write what it holds,
        // and for ever if the disk does not answer. What counts is on disk after each commit.
        let _kept = ManuallyDrop::new(reader.clone());
        Ok::<_, store::StoreOpenError>((writer, reader, held))
    };
    let opened = tokio::task::spawn_blocking(open).await;
    Ok(opened.context("the thread that opens the log died")??)
}

fn log_note(note: &OpenNote) {
    match note {
        OpenNote::Begun => tracing::info!(
            "a new log was begun, because there was none in store.path; if there should be one, look whether its disk is mounted"
        ),
        OpenNote::Migrated { events } => {
            tracing::info!(
                events,
                "the store was brought into the layout of this version; earlier versions refuse it"
            );
        }
        OpenNote::Rebuilt { why } => {
            tracing::warn!(reason = why, "the states of sources were made again from the journal");
        }
        OpenNote::EndLost { first, count } => tracing::error!(
            seq = first.0,
            events = count,
            "the end of the journal is gone, and these events with it; readers are told a gap"
        ),
        OpenNote::EndUnfinished { bytes } => tracing::warn!(
            bytes,
            "the last commit in the journal was not finished when the daemon ended, and was removed; nothing of it had been \
             announced, and its items come again with the next visits"
        ),
        OpenNote::DamagedChanges { records } => tracing::error!(
            records,
            "records of the journal are damaged: the states of some sources may be older than their last visit"
        ),
        OpenNote::IdentityRepaired => tracing::warn!(
            "one of the files `identity` and `identity.2` was missing or damaged, and was written again from the other one; \
             check the disk"
        ),
        OpenNote::Strays { segments } => tracing::warn!(
            ?segments,
            "files of the journal are copies of other segments; they were renamed to .copy-N, and can be removed"
        ),
        // Recording is paused, which says it.
        OpenNote::Copied => {}
        OpenNote::NewEpoch => tracing::warn!("the log is empty and has a new epoch, as ordered"),
    }
}

/// After [`open_store`], whose lock keeps a second process away from the files of the crash guard as well.
async fn open_crash_guard(config: &Config, watch: &Watch) -> Result<CrashGuard, IngestError> {
    let (path, watch) = (config.store.path.clone(), watch.clone());
    let opened = tokio::task::spawn_blocking(move || CrashGuard::open(&path, &watch)).await;
    let opened = opened.context("the thread that opens the crash guard died")?;
    let folder = config.store.path.join("parsing");
    opened.map_err(|error| IngestError::CrashGuard { folder, error })
}

fn serve_wire(
    state: ControlState,
    socket: std::os::unix::net::UnixListener,
    watch: Watch,
) -> anyhow::Result<ServerHandle> {
    let app = move || {
        // Called once, on the thread of the only worker; pages of the log are read in its pool.
        watch.event_loop("wire", WatchKind::Wire);
        watch.pool("pool-wire", &tokio::runtime::Handle::current());
        App::new()
            .app_data(web::Data::new(state.clone()))
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

async fn stop(
    config: &Config,
    actors: Actors,
    writer_thread: WriterThread,
    server: ServerHandle,
    nats: Option<NatsThread>,
) -> Result<(), IngestError> {
    notify::stopping();
    process::end_within(
        STOP_MAX,
        Exit::Io,
        "the disk of store.path does not take what is queued in time; the process ends without it (all announced events are \
         on disk, and the sources are visited again after a start); check the disk",
    );
    // Before the store is released: the next process binds the socket again.
    tokio::fs::remove_file(config.socket(ControlSocket::Ingestd)).await.ok();
    tracing::info!("stopping");
    store::crash::point("shutdown-begun");
    let Actors { recorder, supervisor, websub } = actors;
    // An error means that the actor has stopped already.
    supervisor.send(Stop).await.ok();
    drop(supervisor);
    if let Some(websub) = websub {
        websub.send(Stop).await.ok();
    }
    recorder.send(Stop).await.ok();
    drop(recorder);
    let written = tokio::task::spawn_blocking(move || writer_thread.join()).await;
    if let Some(nats) = nats {
        nats.stop().await;
    }
    server.stop(false).await;
    written.context("the recorder's thread died")??;
    store::crash::point("shutdown-joined");
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use daemon::process::ExitReason as _;

    use super::*;

    #[tokio::test]
    async fn a_start_that_cannot_use_the_folder_of_what_is_parsed_ends_as_with_any_error_of_the_disk() {
        let store = tempfile::tempdir().unwrap();
        std::fs::write(store.path().join("parsing"), "").unwrap();
        let mut config = Config::default();
        config.store.path = store.path().to_owned();
        let error = open_crash_guard(&config, &Watch::new()).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Io);
        let text = error.to_string();
        assert!(text.starts_with("cannot use /") && text.contains("/parsing: "), "{text}");
    }
}
