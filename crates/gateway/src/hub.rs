//! What the intake, the workers and the handlers share: all of it in memory, none of it held across a wait.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daemon::{Clock, metrics::MetricsRegistry, watch::Watch};
use ipnet::IpNet;
use news::{SourceId, SourceStatus, Timestamp};
use tokio::{sync::watch, time::Instant};

use crate::{
    callbacks::Callbacks, connection::Connections, filter::Filter, limits::Limits, metrics::Numbers,
    operator::Operator, readers::Readers, refresh::Refreshes, replay::Replays, ring::Ring, wording::Wording,
};

/// What the operator set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) clients_max: usize,
    pub(crate) clients_per_address_max: usize,
    pub(crate) heartbeat: Duration,
    pub(crate) drain: Duration,
    /// Empty on a public address: then every host name is served.
    pub(crate) hosts: Vec<String>,
    pub(crate) any_host: bool,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) operator: Operator,
    pub(crate) readers: Readers,
    /// Whether hubs may call: we have told them where.
    pub(crate) has_callbacks: bool,
    pub(crate) limits: Limits,
    /// Files that the process may have open.
    pub(crate) descriptors: u64,
}

impl Settings {
    /// Whether it is a proxy of ours.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}

/// Open streams.
#[derive(Debug, Default)]
struct Clients {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Shared by everything in the process.
pub(crate) struct Hub {
    /// Replaced as a whole at a reload. Read once a request or a look round, never for a delivery.
    settings: RwLock<Arc<Settings>>,
    pub(crate) ring: Ring,
    pub(crate) replays: Replays,
    pub(crate) refreshes: Refreshes,
    pub(crate) callbacks: Callbacks,
    pub(crate) notices: Notices,
    pub(crate) sources: Sources,
    pub(crate) link: Link,
    /// Rings when the ring, the notices or our own state have something new.
    bell: watch::Sender<u64>,
    draining: AtomicBool,
    clients: Mutex<Clients>,
    pub(crate) connections: Connections,
    pub(crate) lags: Lags,
    pub(crate) metrics: MetricsRegistry,
    pub(crate) numbers: Numbers,
    /// The daemon's metrics as they last came.
    pub(crate) daemon_metrics: RwLock<String>,
    pub(crate) clock: Clock,
    /// Which of our loops make progress.
    pub(crate) watch: Watch,
    pub(crate) started: Instant,
}

impl Hub {
    pub(crate) fn new(
        settings: Settings,
        ring: Ring,
        replays: Replays,
        refreshes: Refreshes,
        callbacks: Callbacks,
        clock: Clock,
        watch: Watch,
    ) -> Self {
        let metrics = MetricsRegistry::new();
        watch.register_loops(&metrics, "gateway");
        watch.register_clock_jumps(&metrics, "gateway");
        let connections =
            Connections::new(settings.clients_max, settings.clients_per_address_max, settings.descriptors);
        Self {
            settings: RwLock::new(Arc::new(settings)),
            connections,
            ring,
            replays,
            refreshes,
            callbacks,
            notices: Notices::default(),
            sources: Sources::default(),
            link: Link::default(),
            bell: watch::channel(0).0,
            draining: AtomicBool::new(false),
            clients: Mutex::default(),
            lags: Lags::default(),
            numbers: Numbers::register(&metrics),
            metrics,
            daemon_metrics: RwLock::default(),
            clock,
            watch,
            started: Instant::now(),
        }
    }

    /// What the operator set, as of now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these hold. Streams whose reader they no longer let in end at the next look round.
    pub(crate) fn set(&self, settings: Settings) {
        self.connections.resize(settings.clients_max, settings.clients_per_address_max, settings.descriptors);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.now_millis())
    }

    pub(crate) fn ring_the_bell(&self) {
        self.bell.send_modify(|rung| *rung = rung.wrapping_add(1));
    }

    pub(crate) fn hear_the_bell(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    /// From now on streams end, each at its own moment, and no new ones are taken.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.ring_the_bell();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        // Every change under it is complete before it can panic.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Open streams.
    pub(crate) fn client_count(&self) -> usize {
        self.clients().all
    }

    /// A place for one more stream, or why there is none. Nobody is put out for a newcomer.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, &'static str> {
        let address = neighbourhood(address);
        if self.is_draining() {
            return Err("draining");
        }
        if self.connections.is_crowded() {
            return Err("connections");
        }
        let settings = self.settings();
        let mut clients = self.clients();
        if clients.all >= settings.clients_max {
            return Err("clients_max");
        }
        let here = clients.by_address.entry(address).or_default();
        if *here >= settings.clients_per_address_max {
            return Err("clients_per_address_max");
        }
        *here += 1;
        clients.all += 1;
        drop(clients);
        self.numbers.clients.inc();
        self.numbers.streams.inc();
        Ok(Place { hub: Arc::clone(self), address })
    }

    /// How long the streams take to end, spread so that a hundred clients a second come back at most.
    pub(crate) fn drain_window(&self) -> Duration {
        const EACH: Duration = Duration::from_millis(10);
        let clients = u32::try_from(self.client_count()).unwrap_or(u32::MAX);
        EACH.saturating_mul(clients).min(self.settings().drain)
    }
}

/// An IPv6 client has at least a /64 to itself, so that counts as one address.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// A stream's place; given back when dropped.
pub(crate) struct Place {
    hub: Arc<Hub>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.hub.clients();
        clients.all -= 1;
        if let Some(here) = clients.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                clients.by_address.remove(&self.address);
            }
        }
        drop(clients);
        self.hub.numbers.clients.dec();
    }
}

/// How far the slowest client of each worker is behind, in events.
#[derive(Debug, Default)]
pub(crate) struct Lags(Mutex<Vec<u64>>);

impl Lags {
    fn all(&self) -> MutexGuard<'_, Vec<u64>> {
        // Every change under it is complete before it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more worker.
    pub(crate) fn enter(&self) -> usize {
        let mut all = self.all();
        all.push(0);
        all.len() - 1
    }

    /// One worker has looked round; gives the slowest of all.
    pub(crate) fn put(&self, worker: usize, lag: u64) -> u64 {
        let mut all = self.all();
        all[worker] = lag;
        all.iter().copied().max().unwrap_or_default()
    }
}

/// What is known of the wire.
#[derive(Debug, Default)]
pub(crate) struct Link(Mutex<LinkState>);

/// The state of the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkState {
    pub(crate) connected: bool,
    /// When the daemon was last heard of.
    pub(crate) heard: Option<Instant>,
    /// Why it is not connected.
    pub(crate) reason: String,
}

impl Link {
    pub(crate) fn get(&self) -> LinkState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Without waiting.
    pub(crate) fn try_get(&self) -> Option<LinkState> {
        self.0.try_lock().ok().map(|state| state.clone())
    }

    pub(crate) fn heard(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.connected = true;
        state.heard = Some(Instant::now());
    }

    /// Returns whether it was connected before.
    pub(crate) fn lost(&self, reason: &str) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone_into(&mut state.reason);
        std::mem::replace(&mut state.connected, false)
    }
}

/// The sources and their health, as the daemon last told.
#[derive(Debug, Default)]
pub(crate) struct Sources(RwLock<BTreeMap<SourceId, Arc<SourceStatus>>>);

impl Sources {
    pub(crate) fn replace(&self, sources: Vec<SourceStatus>) {
        let sources = sources.into_iter().map(|s| (s.id.clone(), Arc::new(s))).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    pub(crate) fn put(&self, source: SourceStatus) {
        let mut sources = self.0.write().unwrap_or_else(PoisonError::into_inner);
        sources.insert(source.id.clone(), Arc::new(source));
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<SourceStatus>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The categories of some of them, each once. An unknown one has the empty category, which nobody is granted.
    pub(crate) fn categories(&self, ids: &[SourceId]) -> Arc<[String]> {
        let sources = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let category = |id| sources.get(id).map_or_else(String::new, |source| source.category.clone());
        let categories: BTreeSet<_> = ids.iter().map(category).collect();
        categories.into_iter().collect()
    }

    /// By id.
    pub(crate) fn all(&self) -> Vec<Arc<SourceStatus>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Blocks without an id: a client that is too late for one goes without it.
#[derive(Debug, Default)]
pub(crate) struct Notices(RwLock<NoticeRing>);

#[derive(Debug, Default)]
struct NoticeRing {
    /// The number of the first kept.
    first: u64,
    kept: VecDeque<NoticeBlock>,
}

/// An event without an id, and what filters look at.
#[derive(Clone, Debug)]
pub(crate) struct NoticeBlock {
    /// `source` or `refresh`.
    pub(crate) kind: &'static str,
    pub(crate) of: Of,
    /// Its data, on one line.
    pub(crate) json: String,
}

/// Whom it concerns.
#[derive(Clone, Debug)]
pub(crate) enum Of {
    /// Whoever wants to hear of this source.
    Visit { source: SourceId, category: String, tags: Vec<String> },
    /// Everybody who may see all these categories.
    Refresh(Arc<[String]>),
}

impl Of {
    fn concerns(&self, filter: &Filter) -> bool {
        match self {
            Self::Visit { source, category, tags } => filter.wants_source(source.as_str(), category, tags),
            Self::Refresh(categories) => filter.may_see(categories.iter().map(String::as_str)),
        }
    }
}

/// What a client gets of the notices.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) given: usize,
    pub(crate) next: u64,
    pub(crate) missed: u64,
}

impl Notices {
    /// Kept: what a client can be behind before it misses one.
    const KEPT_MAX: usize = 1024;
    /// Given out at a time.
    const TAKEN_MAX: usize = 64;

    pub(crate) fn push(&self, notice: NoticeBlock) {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ring.kept.len() == Self::KEPT_MAX {
            ring.kept.pop_front();
            ring.first += 1;
        }
        ring.kept.push_back(notice);
    }

    /// The number of the next one.
    pub(crate) fn next(&self) -> u64 {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ring.first + ring.kept.len() as u64
    }

    pub(crate) fn take(&self, from: u64, filter: &Filter, wording: Wording) -> Noticed {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut noticed = Noticed { missed: ring.first.saturating_sub(from), ..Noticed::default() };
        noticed.next = from.max(ring.first);
        let skip = usize::try_from(noticed.next - ring.first).unwrap_or(usize::MAX);
        for notice in ring.kept.iter().skip(skip) {
            if noticed.given == Self::TAKEN_MAX {
                break;
            }
            noticed.next += 1;
            if filter.wants_kind(notice.kind) && notice.of.concerns(filter) {
                noticed.bytes.extend_from_slice(&wording.event_of_json(notice.kind, &notice.json));
                noticed.given += 1;
            }
        }
        noticed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Bounds;

    pub(crate) fn hub(clients_max: usize, clients_per_address_max: usize) -> Arc<Hub> {
        let settings = Settings {
            clients_max,
            clients_per_address_max,
            heartbeat: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            hosts: Vec::new(),
            any_host: true,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            operator: Operator::load(None).unwrap(),
            readers: Readers::default(),
            has_callbacks: false,
            limits: Limits::default(),
            descriptors: u64::MAX,
        };
        let ring = Ring::new(Bounds { events: 10, bytes: 1 << 20 });
        let (replays, refreshes, callbacks) = (Replays::new().0, Refreshes::new().0, Callbacks::new().0);
        Arc::new(Hub::new(settings, ring, replays, refreshes, callbacks, Clock::system(), Watch::new()))
    }

    #[test]
    fn a_newcomer_is_refused_and_nobody_is_put_out() {
        let hub = hub(3, 2);
        let admit = |address: &str| hub.admit(address.parse().unwrap());
        let (one, _two) = (admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap());
        assert_eq!(admit("192.0.2.1").err(), Some("clients_per_address_max"));
        let _three = admit("2001:db8::1").unwrap();
        assert_eq!(admit("192.0.2.9").err(), Some("clients_max"));
        drop(one);
        let _four = admit("2001:db8::2").unwrap();
        assert_eq!(admit("2001:db8::3").err(), Some("clients_max"));
        assert_eq!(hub.client_count(), 3);
        hub.drain();
        assert_eq!(admit("192.0.2.7").err(), Some("draining"));
    }

    #[test]
    fn the_slowest_of_all_workers_is_the_slowest() {
        let lags = Lags::default();
        let (one, other) = (lags.enter(), lags.enter());
        assert_eq!((lags.put(one, 7), lags.put(other, 3), lags.put(one, 0)), (7, 7, 3));
    }

    #[test]
    fn neighbours_in_a_64_share_their_limit() {
        let hub = hub(10, 1);
        let _one = hub.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(hub.admit("2001:db8::ffff".parse().unwrap()).err(), Some("clients_per_address_max"));
        assert!(hub.admit("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_client_that_is_too_late_for_a_notice_goes_without_it() {
        let notices = Notices::default();
        let notice =
            |n: usize| NoticeBlock { kind: "refresh", of: Of::Refresh(Arc::default()), json: n.to_string() };
        (0..Notices::KEPT_MAX + 5).for_each(|n| notices.push(notice(n)));
        let noticed = notices.take(3, &Filter::default(), Wording::Lines);
        assert_eq!((noticed.missed, noticed.given), (2, Notices::TAKEN_MAX));
        let first = "{\"event\":\"refresh\",\"data\":5}\n".as_bytes();
        assert!(noticed.bytes.starts_with(first));
        assert_eq!(noticed.next, 5 + Notices::TAKEN_MAX as u64);
        assert!(notices.take(notices.next(), &Filter::default(), Wording::Sse).bytes.is_empty());
    }
}
