//! How many connections may be open, and how many are.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Connections in addition to the streams: health checks, pages, the page's own requests, streams to be refused.
const OTHER_CONNECTIONS: usize = 2048;
/// The same for one address.
const OTHER_CONNECTIONS_PER_ADDRESS: usize = 1024;
/// Descriptors that the rest of the process needs: listeners, the wire, the workers' pollers, the log.
const DESCRIPTORS_RESERVED: usize = 64;
/// With fewer connections than this the service would be useless.
const CONNECTIONS_MIN: usize = 8;

/// All open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    open: Mutex<OpenConnections>,
}

#[derive(Clone, Copy, Debug, Default)]
struct ConnectionLimits {
    /// One more is closed as soon as it is accepted.
    max: usize,
    per_address_max: usize,
    /// Connections that have a second descriptor. The others cannot be closed from outside; if they do not read, the
    /// kernel closes them once their data has been unacknowledged for too long.
    handles_max: usize,
}

#[derive(Debug, Default)]
struct OpenConnections {
    limits: ConnectionLimits,
    total: usize,
    handles: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl ConnectionLimits {
    /// Limits that fit `clients_max` streams and the other connections, as far as `descriptors` allow.
    fn new(clients_max: usize, clients_per_address_max: usize, descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let reserved = DESCRIPTORS_RESERVED.min(descriptors / 4 * 3);
        let (needed, free) = (clients_max.saturating_add(OTHER_CONNECTIONS), descriptors - reserved);
        // Connections come first, then their second descriptors; where both do not fit, a sixth is left for those.
        let max = needed.min(free - free / 6).max(CONNECTIONS_MIN);
        Self {
            max,
            handles_max: free.saturating_sub(max),
            per_address_max: clients_per_address_max.saturating_add(OTHER_CONNECTIONS_PER_ADDRESS),
        }
    }
}

impl Connections {
    /// With limits that fit `clients_max` streams and the other connections, as far as `descriptors` allow.
    pub(crate) fn new(clients_max: usize, clients_per_address_max: usize, descriptors: u64) -> Self {
        let limits = ConnectionLimits::new(clients_max, clients_per_address_max, descriptors);
        Self { open: Mutex::new(OpenConnections { limits, ..OpenConnections::default() }) }
    }

    /// Changes the limits; open connections stay open.
    pub(crate) fn resize(&self, clients_max: usize, clients_per_address_max: usize, descriptors: u64) {
        self.open().limits = ConnectionLimits::new(clients_max, clients_per_address_max, descriptors);
    }

    pub(crate) fn max(&self) -> usize {
        self.open().limits.max
    }

    /// Whether more than seven eighths are in use: then only probes and refusals are answered.
    pub(crate) fn is_crowded(&self) -> bool {
        let open = self.open();
        open.total > open.limits.max - open.limits.max / 8
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        // Every change under it is complete before it can panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection; returns whether it is within the limits. A trusted proxy has no limit per address.
    pub(super) fn add(&self, address: IpAddr, is_trusted: bool) -> bool {
        let mut open = self.open();
        open.total += 1;
        let limits = open.limits;
        let of_address = open.by_address.entry(address).or_default();
        *of_address += 1;
        (is_trusted || *of_address <= limits.per_address_max) && open.total <= limits.max
    }

    pub(super) fn remove(&self, address: IpAddr) {
        let mut open = self.open();
        open.total -= 1;
        if let Some(of_address) = open.by_address.get_mut(&address) {
            *of_address -= 1;
            if *of_address == 0 {
                open.by_address.remove(&address);
            }
        }
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

    #[test]
    fn few_descriptors_mean_few_connections_but_always_some() {
        let max = |clients, descriptors| Connections::new(clients, 64, descriptors).max();
        assert_eq!(max(10_000, u64::MAX), 12_048);
        assert_eq!(max(10_000, 20_000), 12_048, "where two descriptors each are too many, some have one");
        assert_eq!(max(10_000, 1024), 800);
        assert_eq!(max(10_000, 64), 14);
        assert_eq!(max(10_000, 3), 8);
    }

    #[test]
    fn the_last_eighth_counts_as_crowded_and_each_address_has_a_limit() {
        let connections = Connections::new(10, 0, 96);
        let limits = ConnectionLimits { max: 16, per_address_max: 10, ..connections.open().limits };
        connections.open().limits = limits;
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert!((0..10).all(|_| connections.add(one, false)));
        assert!(!connections.add(one, false), "the limit per address");
        connections.remove(one);
        assert!((0..4).all(|_| connections.add(other, false)));
        assert!(!connections.is_crowded());
        assert!(connections.add(other, false) && connections.is_crowded());
        assert!(connections.add(other, false) && !connections.add(other, false), "the limit in all");
        (0..10).for_each(|_| connections.remove(one));
        assert!(!connections.is_crowded());
    }
}
