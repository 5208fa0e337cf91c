//! How many connections may be open, and how many are.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
}

#[derive(Clone, Copy, Debug)]
struct ConnectionLimits {
    /// One more is closed as soon as it is accepted.
    counts: CountLimits,
    /// Connections that have a second descriptor. The others cannot be closed from outside; if they do not read, the
    /// kernel closes them once their data has been unacknowledged for too long.
    handles_max: usize,
}

#[derive(Debug)]
struct OpenConnections {
    limits: ConnectionLimits,
    counts: AddressCounts,
    handles: usize,
}

impl ConnectionLimits {
    /// Limits that fit `clients_max` streams and the other connections, as far as the descriptors allow.
    fn new(settings: &Settings) -> Self {
        let Settings { clients_max, connections_per_address, addresses_per_network, descriptors, .. } =
            *settings;
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let reserved = DESCRIPTORS_RESERVED.min(descriptors / 4 * 3);
        let (needed, free) = (clients_max.saturating_add(OTHER_CONNECTIONS), descriptors - reserved);
        // Connections come first, then their second descriptors; where both do not fit, a sixth is left for those.
        let max = needed.min(free - free / 6).max(CONNECTIONS_MIN);
        Self {
            counts: CountLimits::new(max, connections_per_address, addresses_per_network),
            handles_max: free.saturating_sub(max),
        }
    }
}

impl Connections {
    /// With limits that fit `clients_max` streams and the other connections, as far as the descriptors allow.
    pub(crate) fn new(settings: &Settings) -> Self {
        let limits = ConnectionLimits::new(settings);
        Self { open: Mutex::new(OpenConnections { limits, counts: AddressCounts::default(), handles: 0 }) }
    }

    /// Changes the limits; open connections stay open.
    pub(crate) fn resize(&self, settings: &Settings) {
        self.open().limits = ConnectionLimits::new(settings);
    }

    pub(crate) fn max(&self) -> usize {
        self.open().limits.counts.total
    }

    /// Whether more than seven eighths are in use: then only probes and refusals are answered.
    pub(crate) fn is_crowded(&self) -> bool {
        let open = self.open();
        let max = open.limits.counts.total;
        open.counts.total() > max - max / 8
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        // Every change under it is complete before it can panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection. A trusted proxy has no limit per address.
    ///
    /// # Errors
    /// The limit that was reached, as the metric names it.
    pub(super) fn try_add(&self, address: ClientAddress, is_trusted: bool) -> Result<(), &'static str> {
        let mut open = self.open();
        let limits = open.limits.counts;
        let limits = if is_trusted { limits.without_address() } else { limits };
        open.counts.try_add(address, limits).map_err(|limit| match limit {
            CountLimit::Total => "full",
            CountLimit::Address => "connections_per_address",
            CountLimit::Network => "addresses_per_network",
        })
    }

    pub(super) fn remove(&self, address: ClientAddress) {
        self.open().counts.remove(address);
    }

    /// Reserves a second descriptor; returns whether one was left.
    pub(super) fn acquire_handle(&self) -> bool {
        let mut open = self.open();
        let is_left = open.handles < open.limits.handles_max;
        open.handles += usize::from(is_left);
        is_left
    }

    pub(super) fn release_handle(&self) {
        self.open().handles -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(clients_max: usize, descriptors: u64) -> Connections {
        Connections::new(&Settings { clients_max, descriptors, ..Settings::for_tests() })
    }

    #[test]
    fn few_descriptors_mean_few_connections_but_always_some() {
        let max = |clients, descriptors| connections(clients, descriptors).max();
        assert_eq!(max(10_000, u64::MAX), 12_048);
        assert_eq!(max(10_000, 20_000), 12_048, "where two descriptors each are too many, some have one");
        assert_eq!(max(10_000, 1024), 800);
        assert_eq!(max(10_000, 64), 14);
        assert_eq!(max(10_000, 3), 8);
    }

    #[test]
    fn the_last_eighth_counts_as_crowded_and_each_address_has_a_limit() {
        let connections = connections(10, 96);
        connections.open().limits.counts = CountLimits::new(16, 10, 8);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert!((0..10).all(|_| connections.try_add(one, false).is_ok()));
        assert_eq!(connections.try_add(one, false), Err("connections_per_address"));
        assert!((0..4).all(|_| connections.try_add(other, false).is_ok()));
        assert!(!connections.is_crowded());
        assert_eq!(connections.try_add(one, true), Ok(()), "a trusted proxy");
        assert!(connections.is_crowded());
        assert_eq!(connections.try_add(other, false), Ok(()));
        assert_eq!(connections.try_add(other, false), Err("full"));
        (0..10).for_each(|_| connections.remove(one));
        assert!(!connections.is_crowded());
    }
}
