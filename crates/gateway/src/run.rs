//! The process from its first socket to its last: what `main` and the tests call.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use control::ControlSocket;
use daemon::{
    admin::{Admin, AdminHandle, ReloadOrder, status_of},
    black_box,
    config::Config,
    logs::Logs,
    notify,
    process::DaemonContext,
    sockets::SocketError,
    watch::{ListenerAddress, WatchKind},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::ending::ConnectionCut,
    control_loop, diagnostics,
    error::GatewayError,
    http::{
        listener::{self, ListeningSocket},
        server::{self, ClientServer},
    },
    ingest::{intake, transport::TransportSettings},
    limits::Limits,
    pages, scrape,
    settings::Settings,
    state::{AppState, DaemonQueues},
    stream::ring::{Ring, RingBounds},
};

/// How much longer than its window a drain may take.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How long the other threads may take to stop.
const THREADS_STOP_MAX: Duration = Duration::from_secs(2);

/// Reload orders that wait for the one in progress.
const RELOADS_MAX: usize = 4;

/// The sections of the configuration that this process reads.
const SECTIONS: &[&str] = &["daemon", "wire", "gateway", "log"];

/// Runs the process until the stop signal. Call it inside an actix system.
///
/// # Errors
/// [`GatewayError`]: what to print, and the exit code.
pub async fn run(start: DaemonContext) -> Result<(), GatewayError> {
    run_within(start, Limits::default()).await
}

/// [`run`] with other limits than the default ones.
///
/// # Errors
/// [`GatewayError`]: what to print, and the exit code.
pub async fn run_within(start: DaemonContext, limits: Limits) -> Result<(), GatewayError> {
    let DaemonContext { config, reloader, clock, logs, mut signals, watch, self_sampler } = start;
    watch.event_loop("main", WatchKind::Arbiter);
    watch.pool("pool-main", &tokio::runtime::Handle::current());
    let settings = Settings::from_config(&config, limits)?;
    let transport = TransportSettings::from_config(&config)?;
    let ListeningSocket { listener, inherited } = listener::acquire(config.gateway.listen)?;
    let address = listener.local_addr().context("get the address of the listening socket")?;
    let bounds = RingBounds {
        events: config.gateway.ring_events,
        bytes: usize::try_from(config.gateway.ring_bytes).unwrap_or(usize::MAX),
    };
    let (queues, forwarders) = DaemonQueues::new();
    let (state, page_jobs) = AppState::new(settings, Ring::new(bounds), queues, clock, watch.clone());
    let state = Arc::new(state);
    state.registry.register_process("gateway", env!("CARGO_PKG_VERSION"), &state.clock, &logs);
    scrape::register(&state);
    let counted = Arc::clone(&state);
    black_box::count_with(move || diagnostics::counts(&counted));
    let of_vitals = Arc::clone(&state);
    let _watchdog = watch
        .start(self_sampler, move || diagnostics::vitals(&of_vitals, address, inherited))
        .context("start the watchdog")?;
    let (reloads, reload_orders) = mpsc::channel(RELOADS_MAX);
    let _admin = start_admin(&config, &state, &logs, reloads)?;
    let intake_stop = CancellationToken::new();
    let intake = intake::start(Arc::clone(&state), transport, bounds.events, forwarders, intake_stop.clone());
    let intake = intake.context("start the intake")?;
    let pages =
        pages::pool::start(watch.clone(), page_jobs, intake_stop.clone()).context("start the pool")?;
    let mut server = ClientServer::start(&state, listener, config.gateway.workers)?;
    let watched = watch.listener("clients", WatchKind::Front, ListenerAddress::Tcp(address));
    warn_of_few_descriptors(&state);
    state.settings().warn();
    black_box::ready();
    tracing::info!(listen = %address, "ready");
    notify::ready();

    tokio::select! {
        () = control_loop::run(&state, &logs, reloader.for_sections(SECTIONS), &mut signals, reload_orders) => {}
        () = server.ended() => return Err(anyhow::anyhow!("the front loop has ended by itself").into()),
    }
    notify::stopping();
    drop(watched);
    if inherited {
        // Clients that connect from now on wait in the socket's backlog for the next process.
        server.pause().await;
    }
    drain(&state).await;
    server.stop().await;
    intake_stop.cancel();
    server::end_within(THREADS_STOP_MAX, [intake, pages]).await;
    tracing::info!("stopped");
    Ok(())
}

fn start_admin(
    config: &Config,
    state: &Arc<AppState>,
    logs: &Logs,
    reloads: mpsc::Sender<ReloadOrder>,
) -> Result<AdminHandle, SocketError> {
    #[cfg(feature = "drill")]
    crate::drill::offer_all();
    let shared = Arc::clone(state);
    let admin = Admin {
        name: "newswire-gateway",
        version: env!("CARGO_PKG_VERSION"),
        metrics: state.registry.clone(),
        watch: state.watch.clone(),
        status: status_of(move || diagnostics::status(&shared)),
        reloads: Some(reloads),
        documents: None,
    };
    daemon::admin::serve(&config.socket(ControlSocket::GatewayAdmin), admin, logs)
}

/// Warns if the process may not open enough files for `gateway.clients_max`.
fn warn_of_few_descriptors(state: &AppState) {
    let settings = state.settings();
    let (connections_max, clients_max) = (state.connections.max(), settings.clients_max);
    if connections_max <= clients_max {
        tracing::warn!(
            open_files_max = settings.descriptors,
            connections_max,
            clients_max,
            "the limit of open files is too low for gateway.clients_max; raise LimitNOFILE"
        );
    }
}

/// Ends the streams, each at its own moment, and waits until they are closed.
async fn drain(state: &Arc<AppState>) {
    let window = state.drain_window();
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(clients = state.client_count(), window_ms, "draining");
    state.drain();
    let closed = async {
        while state.client_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(window + DRAIN_GRACE, closed).await.is_err() {
        tracing::warn!(clients = state.client_count(), "streams did not end in time");
    }
    let cut = state.metrics.connections_cut.get_or_create(&[("reason", ConnectionCut::Drain.as_str())]).get();
    tracing::info!(cut, "drained");
}
