//! What the intake, the workers and the handlers share: all of it in memory, none of it locked across a wait.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daemon::{Clock, metrics::MetricsRegistry, watch::Watch};
use news::Timestamp;
use tokio::{sync::watch, time::Instant};

use crate::{
    budgets::Budgets,
    client_address::ClientAddress,
    connection::capacity::Connections,
    ingest::{
        alias_directory::AliasDirectory,
        callbacks::{CallbackForwarder, Callbacks},
        catalogue_labels::CatalogueLabels,
        history::{HistoryForwarder, HistoryQueue},
        newest_events::NewestEvents,
        refresh::{RefreshForwarder, Refreshes},
        source_directory::SourceDirectory,
        wire_link::WireLink,
    },
    metrics::GatewayMetrics,
    pages::{
        metrics_page::MetricsTexts,
        pool::{PagePool, PoolJobs},
    },
    settings::Settings,
    stream::{
        admission::{OpenStreams, StreamPermit},
        notices::Notices,
        replay::{self, ReplayForwarder, ReplayQueue},
        ring::Ring,
        stream_waits::WaitsOfWorkers,
        worker_lag::WorkerLag,
    },
    unsent::UnsentBudget,
};

/// Shared by everything in the process.
pub(crate) struct AppState {
    /// Replaced as a whole at a reload. Read once per request or tick, never for a delivery.
    settings: RwLock<Arc<Settings>>,
    pub(crate) ring: Ring,
    pub(crate) replays: ReplayQueue,
    pub(crate) history: HistoryQueue,
    pub(crate) refreshes: Refreshes,
    pub(crate) callbacks: Callbacks,
    pub(crate) notices: Notices,
    pub(crate) sources: SourceDirectory,
    pub(crate) catalogue_labels: CatalogueLabels,
    pub(crate) newest_events: NewestEvents,
    pub(crate) aliases: AliasDirectory,
    pub(crate) wire: WireLink,
    /// Changes when the ring, the notices or the state of the process have something new for the streams.
    changes: watch::Sender<u64>,
    draining: AtomicBool,
    streams: Arc<OpenStreams>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) budgets: Budgets,
    pub(crate) unsent: UnsentBudget,
    /// Makes pages; no worker does.
    pub(crate) pages: PagePool,
    pub(crate) metrics_texts: MetricsTexts,
    pub(crate) worker_lag: WorkerLag,
    pub(crate) stream_waits: WaitsOfWorkers,
    pub(crate) registry: MetricsRegistry,
    pub(crate) metrics: GatewayMetrics,
    /// The daemon's metrics, as last read.
    pub(crate) daemon_metrics: RwLock<String>,
    pub(crate) clock: Clock,
    /// Which event loops make progress.
    pub(crate) watch: Watch,
    pub(crate) started: Instant,
}

/// The workers' ends of the queues to the daemon.
pub(crate) struct DaemonQueues {
    pub(crate) replays: ReplayQueue,
    pub(crate) history: HistoryQueue,
    pub(crate) refreshes: Refreshes,
    pub(crate) callbacks: Callbacks,
}

/// The intake's ends of them.
pub(crate) struct Forwarders {
    pub(crate) replays: ReplayForwarder,
    pub(crate) history: HistoryForwarder,
    pub(crate) refreshes: RefreshForwarder,
    pub(crate) callbacks: CallbackForwarder,
}

impl Forwarders {
    /// Shows each of them in `/watch`.
    pub(crate) fn show(&mut self, watch: &Watch) {
        self.replays.show(watch, "replays");
        self.history.show(watch, "history");
        self.refreshes.show(watch, "refreshes");
        self.callbacks.show(watch, "callbacks");
    }
}

impl DaemonQueues {
    pub(crate) fn new() -> (Self, Forwarders) {
        let (replays, replay_forwarder) = replay::queue();
        let (history, history_forwarder) = HistoryQueue::new();
        let (refreshes, refresh_forwarder) = Refreshes::new();
        let (callbacks, callback_forwarder) = Callbacks::new();
        let forwarders = Forwarders {
            replays: replay_forwarder,
            history: history_forwarder,
            refreshes: refresh_forwarder,
            callbacks: callback_forwarder,
        };
        (Self { replays, history, refreshes, callbacks }, forwarders)
    }
}

impl AppState {
    pub(crate) fn new(
        settings: Settings,
        ring: Ring,
        queues: DaemonQueues,
        clock: Clock,
        watch: Watch,
    ) -> (Self, PoolJobs) {
        let registry = MetricsRegistry::new();
        let (pages, jobs) = PagePool::new(&registry);
        watch.register_loops(&registry, "gateway");
        watch.register_clock_jumps(&registry, "gateway");
        let budgets = Budgets::new(settings.budgets);
        let unsent_bytes_max = usize::try_from(settings.unsent_bytes_max).unwrap_or(usize::MAX);
        let metrics = GatewayMetrics::register(&registry);
        let connections = Arc::new(Connections::new(&settings, metrics.connections.clone()));
        let state = Self {
            settings: RwLock::new(Arc::new(settings)),
            connections,
            budgets,
            ring,
            replays: queues.replays,
            history: queues.history,
            refreshes: queues.refreshes,
            callbacks: queues.callbacks,
            notices: Notices::default(),
            sources: SourceDirectory::default(),
            catalogue_labels: CatalogueLabels::default(),
            newest_events: NewestEvents::default(),
            aliases: AliasDirectory::default(),
            wire: WireLink::default(),
            changes: watch::channel(0).0,
            draining: AtomicBool::new(false),
            streams: Arc::new(OpenStreams::new(metrics.clients.clone())),
            pages,
            metrics_texts: MetricsTexts::default(),
            unsent: UnsentBudget::new(unsent_bytes_max, &registry),
            worker_lag: WorkerLag::default(),
            stream_waits: WaitsOfWorkers::default(),
            metrics,
            registry,
            daemon_metrics: RwLock::default(),
            clock,
            watch,
            started: Instant::now(),
        };
        (state, jobs)
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the settings in force. Streams whose reader they no longer authorise end at the next tick.
    pub(crate) fn replace_settings(&self, settings: Settings) {
        self.connections.resize(&settings);
        self.budgets.resize(settings.budgets);
        self.unsent.resize(usize::try_from(settings.unsent_bytes_max).unwrap_or(usize::MAX));
        let settings = Arc::new(settings);
        let before =
            std::mem::replace(&mut *self.settings.write().unwrap_or_else(PoisonError::into_inner), settings);
        // Thousands of tokens, freed after the lock is released.
        drop(before);
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.now_millis())
    }

    /// Wakes every stream.
    pub(crate) fn notify_streams(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    pub(crate) fn subscribe_to_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Starts the drain: no new streams, and the open ones end, each at its own moment.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.notify_streams();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Open streams.
    pub(crate) fn client_count(&self) -> usize {
        self.streams.count()
    }

    /// Admits one more stream. An open stream is never evicted for a new one.
    ///
    /// # Errors
    /// Why not, as the metric names it.
    pub(crate) fn admit(&self, address: ClientAddress) -> Result<StreamPermit, &'static str> {
        if self.is_draining() {
            return Err("draining");
        }
        if self.connections.is_crowded() {
            return Err("connections");
        }
        let permit = self.streams.admit(address, &self.settings())?;
        self.metrics.streams.inc();
        Ok(permit)
    }

    /// How long the drain takes: at most a hundred clients per second reconnect elsewhere.
    pub(crate) fn drain_window(&self) -> Duration {
        const PER_CLIENT: Duration = Duration::from_millis(10);
        let clients = u32::try_from(self.client_count()).unwrap_or(u32::MAX);
        PER_CLIENT.saturating_mul(clients).min(self.settings().drain)
    }
}

#[cfg(test)]
impl AppState {
    /// A small ring, and queues that are never emptied.
    pub(crate) fn for_tests(settings: Settings) -> Self {
        let ring = Ring::new(crate::stream::ring::RingBounds { events: 10, bytes: 1 << 20 });
        Self::new(settings, ring, DaemonQueues::new().0, Clock::system(), Watch::new()).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app_state(clients_max: usize, clients_per_address_max: usize) -> AppState {
        AppState::for_tests(Settings { clients_max, clients_per_address_max, ..Settings::for_tests() })
    }

    #[test]
    fn a_new_stream_is_refused_at_a_limit_and_open_ones_stay() {
        let state = app_state(3, 2);
        let admit = |address: &str| state.admit(address.parse().unwrap());
        let (one, _two) = (admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap());
        assert_eq!(admit("192.0.2.1").err(), Some("clients_per_address_max"));
        let _three = admit("2001:db8::1").unwrap();
        assert_eq!(admit("192.0.2.9").err(), Some("clients_max"));
        drop(one);
        let _four = admit("2001:db8::2").unwrap();
        assert_eq!(admit("2001:db8::3").err(), Some("clients_max"));
        assert_eq!(state.client_count(), 3);
        state.drain();
        assert_eq!(admit("192.0.2.7").err(), Some("draining"));
    }

    #[test]
    fn addresses_of_one_64_share_their_limit() {
        let state = app_state(10, 1);
        let _one = state.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(state.admit("2001:db8::ffff".parse().unwrap()).err(), Some("clients_per_address_max"));
        assert!(state.admit("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn addresses_of_one_48_share_a_limit_of_eight_addresses() {
        let state = app_state(10_000, 64);
        let of = |n: usize| format!("2001:db8:0:{n:x}::1").parse().unwrap();
        let admitted: Vec<_> = (0..157 * 64).filter_map(|n| state.admit(of(n / 64)).ok()).collect();
        assert_eq!(admitted.len(), 8 * 64, "157 addresses took all 10,000 places");
        assert_eq!(state.admit(of(157)).err(), Some("addresses_per_network"));
        assert!(state.admit("2001:db8:1::1".parse().unwrap()).is_ok());
    }
}
