//! How many connections may be open, and how many are.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use prometheus_client::metrics::gauge::Gauge;

use crate::{
    address_counts::{AddressCounts, CountLimit, CountLimits},
    client_address::ClientAddress,
    settings::Settings,
};

/// Connections in addition to the streams: health checks, pages, the page's own requests, streams to be refused.
const OTHER_CONNECTIONS: usize = 2048;
/// Descriptors that the rest of the process needs: listeners, the wire, the workers' pollers, the log.
const DESCRIPTORS_RESERVED: usize = 64;
/// With fewer connections than this the service would be useless.
const CONNECTIONS_MIN: usize = 8;

/// All open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    open: Mutex<OpenConnections>,
    gauge: Gauge,
    accepted: AtomicU64,
}

#[derive(Debug)]
struct OpenConnections {
    limits: CountLimits,
    counts: AddressCounts,
}

/// The right to one open connection; given back when dropped.
pub(crate) struct ConnectionPermit {
    connections: Arc<Connections>,
    address: ClientAddress,
}

/// How many connections one worker has.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerLoad(Arc<AtomicUsize>);

/// One of these connections, until it is dropped.
#[derive(Debug)]
pub(crate) struct WorkerShare(WorkerLoad);

impl WorkerLoad {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more connection.
    pub(crate) fn add_one(&self) -> WorkerShare {
        self.0.fetch_add(1, Ordering::Relaxed);
        WorkerShare(self.clone())
    }
}

impl Drop for WorkerShare {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Limits that fit `clients_max` streams and the other connections, as far as the descriptors allow.
fn limits(settings: &Settings) -> CountLimits {
    let Settings { clients_max, connections_per_address, addresses_per_network, descriptors, .. } = *settings;
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let reserved = DESCRIPTORS_RESERVED.min(descriptors / 4 * 3);
    let max = clients_max.saturating_add(OTHER_CONNECTIONS).min(descriptors - reserved).max(CONNECTIONS_MIN);
    CountLimits::new(max, connections_per_address, addresses_per_network)
}

impl Connections {
    /// With limits that fit `clients_max` streams and the other connections, as far as the descriptors allow. `gauge`
    /// follows the number of open connections.
    pub(crate) fn new(settings: &Settings, gauge: Gauge) -> Self {
        let open = OpenConnections { limits: limits(settings), counts: AddressCounts::default() };
        Self { open: Mutex::new(open), gauge, accepted: AtomicU64::new(0) }
    }

    /// Changes the limits; open connections stay open.
    pub(crate) fn resize(&self, settings: &Settings) {
        self.open().limits = limits(settings);
    }

    pub(crate) fn max(&self) -> usize {
        self.open().limits.total
    }

    /// Connections admitted since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.open().counts.total()
    }

    /// Whether more than seven eighths are in use: then only probes and refusals are answered.
    pub(crate) fn is_crowded(&self) -> bool {
        let open = self.open();
        open.counts.total() > open.limits.total - open.limits.total / 8
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        // Every change under it is complete before it can panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits one more connection. A trusted proxy has no limit per address.
    ///
    /// # Errors
    /// The limit that was reached, as the metric names it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        settings: &Settings,
    ) -> Result<ConnectionPermit, &'static str> {
        let peer = peer.to_canonical();
        let address = ClientAddress::from(peer);
        let mut open = self.open();
        let limits = if settings.trusts(peer) { open.limits.without_address() } else { open.limits };
        open.counts.try_add(address, limits).map_err(|limit| match limit {
            CountLimit::Total => "full",
            CountLimit::Address => "connections_per_address",
            CountLimit::Network => "addresses_per_network",
        })?;
        self.gauge.inc();
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(ConnectionPermit { connections: Arc::clone(self), address })
    }
}

impl fmt::Debug for ConnectionPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionPermit").field(&self.address).finish()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.open().counts.remove(self.address);
        self.connections.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(settings: &Settings) -> Arc<Connections> {
        Arc::new(Connections::new(settings, Gauge::default()))
    }

    #[test]
    fn few_descriptors_mean_few_connections_but_always_some() {
        let max = |clients_max, descriptors| {
            connections(&Settings { clients_max, descriptors, ..Settings::for_tests() }).max()
        };
        assert_eq!(max(10_000, u64::MAX), 12_048);
        assert_eq!(max(10_000, 12_112), 12_048, "each connection has one descriptor");
        assert_eq!(max(10_000, 1024), 960);
        assert_eq!(max(10_000, 64), 16);
        assert_eq!(max(10_000, 3), 8);
    }

    #[test]
    fn the_last_eighth_counts_as_crowded_and_each_address_has_a_limit() {
        let trusted_proxies = vec!["::1/128".parse().unwrap()];
        let connections_per_address = 10;
        let descriptors = 64;
        let settings =
            Settings { connections_per_address, trusted_proxies, descriptors, ..Settings::for_tests() };
        let connections = connections(&settings);
        let admit = |address: &str| connections.admit(address.parse().unwrap(), &settings);
        let mut one: Vec<_> = (0..10).map(|_| admit("192.0.2.1").unwrap()).collect();
        assert_eq!(admit("::ffff:192.0.2.1").unwrap_err(), "connections_per_address");
        let other: Vec<_> = (0..4).map(|_| admit("::1").unwrap()).collect();
        assert!(!connections.is_crowded());
        let last = admit("192.0.2.2").unwrap();
        assert!(connections.is_crowded());
        let full = admit("192.0.2.2").unwrap();
        assert_eq!(admit("192.0.2.2").unwrap_err(), "full");
        one.clear();
        assert!(!connections.is_crowded());
        drop((other, last, full));
        let proxy: Vec<_> = (0..16).map(|_| admit("::1").unwrap()).collect();
        assert_eq!(
            (proxy.len(), admit("::1").unwrap_err()),
            (16, "full"),
            "a trusted proxy has no other limit"
        );
        drop(proxy);
        assert_eq!(connections.count(), 0);
    }
}
