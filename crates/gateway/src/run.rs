//! The process from its first socket to its last: what `main` and the tests call.

use std::{net::TcpListener, rc::Rc, sync::Arc, time::Duration};

use actix_web::{
    App, HttpServer, dev::ServerHandle, http::KeepAlive, middleware::from_fn, rt::net::TcpStream, web,
};
use anyhow::Context as _;
use daemon::{
    Exit,
    admin::{Admin, AdminHandle, ReloadOrder},
    config::{Config, ConfigChange, Reloader},
    logs::Logs,
    notify,
    process::{DaemonContext, ExitReason},
    sockets::{SocketError, bind_tcp},
    stop::Signals,
    watch::WatchKind,
};
use listenfd::ListenFd;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    callbacks::Callbacks,
    connection::Connection,
    headers,
    hub::{Hub, Settings},
    intake,
    limits::Limits,
    metrics,
    operator::Operator,
    readers::{BadFiles, Readers},
    refresh::Refreshes,
    replay::Replays,
    ring::{Bounds, Ring},
    routes::{self, Shared},
    shard::Shard,
    vitals::vitals,
};

/// How long after its window a drain may take.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How often systemd is told how we stand.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The head of an answer fits, so that it goes out with the first events.
const WRITE_BUFFER_BYTES: usize = 2048;

/// Orders to reload that wait for the one under way.
const RELOADS: usize = 4;

/// What of the configuration is read here.
const SECTIONS: &[&str] = &["daemon", "wire", "gateway", "log"];

/// Why the process did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The operator's token cannot be had.
    #[error("{0:#}")]
    Token(anyhow::Error),
    /// The files of readers' tokens and keys are wrong.
    #[error(transparent)]
    Readers(#[from] BadFiles),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl ExitReason for RunError {
    fn exit(&self) -> Exit {
        match self {
            Self::Socket(error) => error.exit(),
            Self::Token(_) | Self::Readers(_) => Exit::Config,
            Self::Other(_) => Exit::Failure,
        }
    }
}

/// Runs the process until the stop signal. Call it inside an actix system.
///
/// # Errors
/// [`RunError`]: what to print, and what to exit with.
pub async fn run(start: DaemonContext) -> Result<(), RunError> {
    run_within(start, Limits::default()).await
}

/// [`run`] with other limits than the usual ones.
///
/// # Errors
/// [`RunError`]: what to print, and what to exit with.
pub async fn run_within(start: DaemonContext, limits: Limits) -> Result<(), RunError> {
    let DaemonContext { config, reloader, clock, logs, mut signals, watch, self_sampler } = start;
    watch.event_loop("main", WatchKind::Arbiter);
    watch.pool("pool-main", &tokio::runtime::Handle::current());
    let settings = settings(&config, limits)?;
    let Door { listener, inherited } = open_door(&config)?;
    let address = listener.local_addr().context("ask the listener for its address")?;
    let bounds = Bounds {
        events: config.gateway.ring_events,
        bytes: usize::try_from(config.gateway.ring_bytes).unwrap_or(usize::MAX),
    };
    let (replays, librarian) = Replays::new();
    let (refreshes, clerk) = Refreshes::new();
    let (callbacks, porter) = Callbacks::new();
    let hub = Hub::new(settings, Ring::new(bounds), replays, refreshes, callbacks, clock, watch.clone());
    let hub = Arc::new(hub);
    hub.metrics.register_process("gateway", env!("CARGO_PKG_VERSION"), &hub.clock, &logs);
    metrics::ask(&hub);
    let shown = Arc::clone(&hub);
    let _watchdog = watch
        .start(self_sampler, move || vitals(&shown, address, inherited))
        .context("start the watchdog")?;
    let (reloads, orders) = mpsc::channel(RELOADS);
    let _admin = serve_admin(&config, &hub, &logs, reloads)?;
    let intake_stop = CancellationToken::new();
    let socket = config.daemon.run_dir.join("ingestd.sock");
    let servants = (librarian, clerk, porter);
    let intake = intake::start(Arc::clone(&hub), socket, bounds.events, servants, intake_stop.clone());
    let intake = intake.context("start the intake")?;
    let server = serve(&config, &hub, listener)?;
    warn_of_few_descriptors(&hub);
    tracing::info!(listen = %address, "ready");
    notify::ready();

    attend(&hub, &logs, reloader.for_sections(SECTIONS), &mut signals, orders).await;
    notify::stopping();
    if inherited {
        // Whoever comes from now on waits in the socket's queue for our successor.
        server.pause().await;
    }
    drain(&hub).await;
    server.stop(true).await;
    intake_stop.cancel();
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    let wait = move || intake.join();
    tokio::task::spawn_blocking(wait).await.ok();
    tracing::info!("stopped");
    Ok(())
}

/// For `systemctl status`.
fn sentence(hub: &Hub) -> String {
    let (link, ring) = (hub.link.get(), hub.ring.state());
    let head = ring
        .standing
        .map_or_else(String::new, |standing| format!(" at {}-{}", standing.epoch, standing.head));
    let wire = match (link.connected, link.reason.as_str()) {
        (true, _) => format!("the wire is connected{head}"),
        (false, "") => "the wire is not connected yet".to_owned(),
        (false, why) => format!("the wire is not connected: {why}"),
    };
    format!("{} clients; {wire}", hub.client_count())
}

/// Until the stop signal: reloads, and a sentence for systemd.
async fn attend(
    hub: &Hub,
    logs: &Logs,
    mut reloader: Reloader,
    signals: &mut Signals,
    mut orders: mpsc::Receiver<ReloadOrder>,
) {
    let mut status = tokio::time::interval(STATUS_EVERY);
    loop {
        tokio::select! {
            () = signals.stop.cancelled() => return,
            Ok(()) = signals.reload.changed() => {
                // What came of it has been logged.
                reload(hub, logs, &mut reloader).ok();
            }
            Some(order) = orders.recv() => {
                // Whoever asked may be gone.
                let answer = |changes| control::ReloadAnswer { catalogue: None, changes };
                let reloaded = reload(hub, logs, &mut reloader);
                order.send(reloaded.map(answer).map_err(control::Problem::bad_configuration)).ok();
            }
            _ = status.tick() => notify::status(&sentence(hub)),
        }
    }
}

/// The configuration and the files of tokens and keys anew; a mistake in any of them changes nothing. Gives what is
/// different, or each complaint.
fn reload(hub: &Hub, logs: &Logs, reloader: &mut Reloader) -> Result<Vec<ConfigChange>, Vec<String>> {
    notify::reloading();
    let changes = try_reload(hub, logs, reloader);
    notify::ready();
    changes
}

fn try_reload(hub: &Hub, logs: &Logs, reloader: &mut Reloader) -> Result<Vec<ConfigChange>, Vec<String>> {
    let lines = |error: &dyn std::fmt::Display| error.to_string().lines().map(str::to_owned).collect();
    let draft = reloader.read().map_err(|complaints| lines(&complaints))?;
    let settings = settings(draft.config(), hub.settings().limits).map_err(|error| {
        let complaints: Vec<String> = lines(&error);
        for line in &complaints {
            tracing::error!(error = line, "kept the old configuration");
        }
        complaints
    })?;
    logs.reconfigure(&draft.config().log.level, &draft.changes);
    hub.set(settings);
    let changes = reloader.take(draft);
    let changed = changes.iter().filter(|change| change.live).count();
    tracing::info!(changed, kept = changes.len() - changed, "reloaded");
    Ok(changes)
}

/// Where clients come in.
struct Door {
    listener: TcpListener,
    /// It was there before us and will be after us.
    inherited: bool,
}

/// The socket that systemd listens at for us (`sd_listen_fds(3)`), else one of our own.
fn open_door(config: &Config) -> Result<Door, RunError> {
    let inherited =
        ListenFd::from_env().take_tcp_listener(0).context("take over the socket of LISTEN_FDS")?;
    match inherited {
        Some(listener) => {
            listener.set_nonblocking(true).context("take over the socket of LISTEN_FDS")?;
            tracing::info!("took over a listening socket; gateway.listen is not used");
            Ok(Door { listener, inherited: true })
        }
        None => Ok(Door { listener: bind_tcp(config.gateway.listen)?, inherited: false }),
    }
}

fn settings(config: &Config, limits: Limits) -> Result<Settings, RunError> {
    let gateway = &config.gateway;
    let proxies = gateway.trusted_proxies.iter().map(|net| net.parse()).collect::<Result<_, _>>();
    Ok(Settings {
        clients_max: gateway.clients_max,
        clients_per_address_max: gateway.clients_per_address_max,
        heartbeat: gateway.heartbeat,
        drain: gateway.drain,
        any_host: gateway.hosts.is_empty() && !gateway.listen.ip().is_loopback(),
        // Who comes by the public address comes to us.
        hosts: gateway.hosts.iter().cloned().chain(public_host(gateway)).collect(),
        has_callbacks: gateway.public_url.is_some(),
        cors_origins: gateway.cors_origins.clone(),
        operator: Operator::load(gateway.operator_token_file.as_deref()).map_err(RunError::Token)?,
        readers: Readers::load(gateway)?,
        trusted_proxies: proxies.context("gateway.trusted_proxies")?,
        limits,
        descriptors: daemon::limits::raise_open_files().context("ask how many files may be open")?,
    })
}

/// The name under which we are known to the world.
fn public_host(gateway: &daemon::config::Gateway) -> Option<String> {
    let url = url::Url::parse(gateway.public_url.as_deref()?).ok()?;
    url.host_str().map(str::to_owned)
}

fn serve_admin(
    config: &Config,
    hub: &Arc<Hub>,
    logs: &Logs,
    reloads: mpsc::Sender<ReloadOrder>,
) -> Result<AdminHandle, SocketError> {
    #[cfg(feature = "drill")]
    crate::drill::offer_all();
    let shown = Arc::clone(hub);
    let status = move || {
        let (link, ring) = (shown.link.get(), shown.ring.state());
        json!({
            "clients": shown.client_count(),
            "draining": shown.is_draining(),
            "panics": daemon::panics::count(),
            "wire": {
                "connected": link.connected,
                "reason": link.reason,
                "heard_ms_ago": link.heard.map(|heard| heard.elapsed().as_millis() as u64),
            },
            "ring": { "filled": ring.filled, "events": ring.events, "bytes": ring.bytes },
        })
    };
    let admin = Admin {
        name: "newswire-gateway",
        version: env!("CARGO_PKG_VERSION"),
        metrics: hub.metrics.clone(),
        watch: hub.watch.clone(),
        status: Arc::new(status),
        reloads: Some(reloads),
    };
    daemon::admin::serve(&config.daemon.run_dir.join("gateway-admin.sock"), admin, logs)
}

fn serve(config: &Config, hub: &Arc<Hub>, listener: TcpListener) -> anyhow::Result<ServerHandle> {
    let workers = match config.gateway.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let (hub, greeter) = (Arc::clone(hub), Arc::clone(hub));
    let limits = hub.settings().limits;
    let app = move || {
        App::new()
            .app_data(web::Data::new(Shared { hub: Arc::clone(&hub) }))
            .app_data(Rc::clone(&Shard::start(Arc::clone(&hub))))
            .wrap(from_fn(headers::dress))
            .configure(routes::configure)
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .disable_signals()
        .shutdown_timeout(1)
        .client_request_timeout(limits.head)
        .client_disconnect_timeout(Duration::from_secs(1))
        // actix has a deadline for a connection's first head only, so there is no second one.
        .keep_alive(KeepAlive::Disabled)
        // A stream is not asked for more while more than this waits to be sent, or the buffer would double to hold both.
        .h1_write_buffer_size(WRITE_BUFFER_BYTES)
        .tcp_nodelay(true)
        // Otherwise a client that closes an idle stream is noticed only when the next write fails.
        .h1_allow_half_closed(false)
        // At actix's own limit clients would hang in the backlog, neither served nor refused.
        .max_connections(usize::MAX / 2)
        .on_connect(move |stream, data| {
            if let Some(stream) = stream.downcast_ref::<TcpStream>() {
                data.insert(Connection::open(&greeter, stream));
            }
        })
        .listen(listener)
        .context("serve")?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(handle)
}

/// The operator asked for more clients than the system lets us have.
fn warn_of_few_descriptors(hub: &Hub) {
    let settings = hub.settings();
    let (connections_max, clients_max) = (hub.connections.max(), settings.clients_max);
    if connections_max <= clients_max {
        tracing::warn!(
            open_files_max = settings.descriptors,
            connections_max,
            clients_max,
            "too few files may be open for gateway.clients_max; raise LimitNOFILE"
        );
    }
}

/// Ends the streams, each at its own moment, and waits until they are gone.
async fn drain(hub: &Arc<Hub>) {
    let window = hub.drain_window();
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(clients = hub.client_count(), window_ms, "draining");
    hub.drain();
    let gone = async {
        while hub.client_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(window + DRAIN_GRACE, gone).await.is_err() {
        tracing::warn!(clients = hub.client_count(), "streams did not end in time");
    }
    let cut = hub.numbers.connections_cut.get_or_create(&[("reason", "drain")]).get();
    tracing::info!(cut, "drained");
}
