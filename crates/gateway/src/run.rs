//! The process from its first socket to its last: what `main` and the tests call.

use std::{any::Any, net::TcpListener, rc::Rc, sync::Arc, time::Duration};

use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn, rt::net::TcpStream, web};
use anyhow::Context as _;
use daemon::{
    Exit,
    admin::{Admin, AdminHandle},
    config::Config,
    logs::Logs,
    notify,
    process::{Ending, Start},
    sockets::{SocketError, bind_tcp},
};
use serde_json::json;
use socket2::SockRef;
use tokio_util::sync::CancellationToken;

use crate::{
    headers,
    hub::{Hub, Settings},
    intake,
    operator::Operator,
    refresh::Refreshes,
    replay::Replays,
    ring::{Bounds, Ring},
    routes::{self, Shared},
    shard::Shard,
};

/// How long a request's head may take, its first one.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long an idle connection is kept for another request.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long what we wrote may stay unacknowledged before the kernel gives the client up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// What the kernel holds for a client that does not read; its default goes to 4 MB.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Connections beyond the streams: health checks, pages, the page's own requests.
const CONNECTIONS_BESIDES: usize = 1024;
/// How long after its window a drain may take.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Why the process did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The operator's token cannot be had.
    #[error("{0:#}")]
    Token(anyhow::Error),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Ending for RunError {
    fn exit(&self) -> Exit {
        match self {
            Self::Socket(error) => error.exit(),
            Self::Token(_) => Exit::Config,
            Self::Other(_) => Exit::Failure,
        }
    }
}

/// Runs the process until the stop signal. Call it inside an actix system.
///
/// # Errors
/// [`RunError`]: what to print, and what to exit with.
pub async fn run(start: Start) -> Result<(), RunError> {
    let Start { config, clock, logs, signals } = start;
    let listener = bind_tcp(config.gateway.listen)?;
    let address = listener.local_addr().context("ask the listener for its address")?;
    let bounds = Bounds {
        events: config.gateway.ring_events,
        bytes: usize::try_from(config.gateway.ring_bytes).unwrap_or(usize::MAX),
    };
    let (replays, librarian) = Replays::new();
    let (refreshes, clerk) = Refreshes::new();
    let hub = Arc::new(Hub::new(settings(&config)?, Ring::new(bounds), replays, refreshes, clock));
    let _admin = serve_admin(&config, &hub, &logs)?;
    let intake_stop = CancellationToken::new();
    let socket = config.daemon.run_dir.join("ingestd.sock");
    let intake =
        intake::start(Arc::clone(&hub), socket, bounds.events, (librarian, clerk), intake_stop.clone());
    let intake = intake.context("start the intake")?;
    let server = serve(&config, &hub, listener)?;
    tracing::info!(listen = %address, "ready");
    notify::ready();

    signals.stop.cancelled().await;
    notify::stopping();
    drain(&hub).await;
    server.stop(true).await;
    intake_stop.cancel();
    tokio::task::spawn_blocking(move || intake.join()).await.ok();
    tracing::info!("stopped");
    Ok(())
}

fn settings(config: &Config) -> Result<Settings, RunError> {
    let gateway = &config.gateway;
    let proxies = gateway.trusted_proxies.iter().map(|net| net.parse()).collect::<Result<_, _>>();
    Ok(Settings {
        clients_max: gateway.clients_max,
        clients_per_address_max: gateway.clients_per_address_max,
        heartbeat: gateway.heartbeat,
        drain: gateway.drain,
        any_host: gateway.hosts.is_empty() && !gateway.listen.ip().is_loopback(),
        hosts: gateway.hosts.clone(),
        cors_origins: gateway.cors_origins.clone(),
        operator: Operator::load(gateway.operator_token_file.as_deref()).map_err(RunError::Token)?,
        trusted_proxies: proxies.context("gateway.trusted_proxies")?,
    })
}

fn serve_admin(config: &Config, hub: &Arc<Hub>, logs: &Logs) -> Result<AdminHandle, SocketError> {
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
        status: Arc::new(status),
    };
    daemon::admin::serve(&config.daemon.run_dir.join("gateway-admin.sock"), admin, logs)
}

fn serve(config: &Config, hub: &Arc<Hub>, listener: TcpListener) -> anyhow::Result<ServerHandle> {
    let workers = match config.gateway.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let hub = Arc::clone(hub);
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
        .client_request_timeout(HEAD_WITHIN)
        .client_disconnect_timeout(Duration::from_secs(1))
        .keep_alive(KEEP_ALIVE)
        .tcp_nodelay(true)
        // Otherwise a client that closes an idle stream is noticed only when the next write fails.
        .h1_allow_half_closed(false)
        .max_connections(config.gateway.clients_max + CONNECTIONS_BESIDES)
        .on_connect(|connection, _| bound_the_socket(connection))
        .listen(listener)
        .context("serve")?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(handle)
}

/// actix has no write timeout: the kernel ends a client that does not acknowledge, and holds little for it.
fn bound_the_socket(connection: &dyn Any) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
    let socket = SockRef::from(stream);
    let bounded = socket
        .set_send_buffer_size(SEND_BUFFER_BYTES)
        .and(socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)));
    if let Err(error) = bounded {
        tracing::debug!(%error, "could not bound a client's socket");
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
}
