//! How many of something are open, in all, per address and per IPv6 /48: streams, connections.

use std::{collections::HashMap, hash::Hash};

use crate::client_address::{ClientAddress, ClientNetwork};

/// What is open now.
#[derive(Debug, Default)]
pub(crate) struct AddressCounts {
    total: usize,
    by_address: HashMap<ClientAddress, usize>,
    by_network: HashMap<ClientNetwork, usize>,
}

/// How many may be open; [`usize::MAX`] for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CountLimits {
    pub(crate) total: usize,
    pub(crate) per_address: usize,
    pub(crate) per_network: usize,
}

/// The limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountLimit {
    Total,
    Address,
    Network,
}

impl CountLimits {
    /// Limits of which an IPv6 /48 may reach as much as `addresses_per_network` addresses; 0 for no limit.
    pub(crate) fn new(total: usize, per_address: usize, addresses_per_network: u64) -> Self {
        let per_network = match usize::try_from(addresses_per_network).unwrap_or(usize::MAX) {
            0 => usize::MAX,
            addresses => per_address.saturating_mul(addresses),
        };
        Self { total, per_address, per_network }
    }

    /// The same for an address that has no limit of its own.
    pub(crate) fn without_address(self) -> Self {
        Self { per_address: usize::MAX, per_network: usize::MAX, ..self }
    }
}

impl AddressCounts {
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Counts one more.
    ///
    /// # Errors
    /// The limit that was reached; nothing was counted.
    pub(crate) fn try_add(&mut self, address: ClientAddress, limits: CountLimits) -> Result<(), CountLimit> {
        let of_address = self.by_address.get(&address).copied().unwrap_or_default();
        let network = address.network();
        let of_network =
            network.and_then(|network| self.by_network.get(&network)).copied().unwrap_or_default();
        if self.total >= limits.total {
            return Err(CountLimit::Total);
        }
        if of_address >= limits.per_address {
            return Err(CountLimit::Address);
        }
        if of_network >= limits.per_network {
            return Err(CountLimit::Network);
        }
        self.total += 1;
        self.by_address.insert(address, of_address + 1);
        if let Some(network) = network {
            self.by_network.insert(network, of_network + 1);
        }
        Ok(())
    }

    /// Takes back what [`AddressCounts::try_add`] has counted.
    pub(crate) fn remove(&mut self, address: ClientAddress) {
        self.total -= 1;
        remove_one(&mut self.by_address, &address);
        if let Some(network) = address.network() {
            remove_one(&mut self.by_network, &network);
        }
    }
}

fn remove_one<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ClientAddress {
        text.parse().unwrap()
    }

    #[test]
    fn each_limit_is_kept_and_what_is_removed_leaves_nothing() {
        let limits = CountLimits::new(100, 3, 2);
        let mut counts = AddressCounts::default();
        let one = address("192.0.2.1");
        assert!((0..3).all(|_| counts.try_add(one, limits).is_ok()));
        assert_eq!(counts.try_add(one, limits), Err(CountLimit::Address));
        assert_eq!(counts.try_add(one, limits.without_address()), Ok(()));
        let of = |n: u32| address(&format!("2001:db8:0:{n:x}::"));
        assert!((0..6).all(|n| counts.try_add(of(n), limits).is_ok()));
        assert_eq!(counts.try_add(of(99), limits), Err(CountLimit::Network), "157 addresses of one /48");
        assert_eq!(
            counts.try_add(address("2001:db8:1::"), CountLimits { total: 10, ..limits }),
            Err(CountLimit::Total)
        );
        counts.remove(of(0));
        assert_eq!(counts.try_add(of(99), limits), Ok(()));
        (0..4).for_each(|_| counts.remove(one));
        (1..6).chain([99]).for_each(|n| counts.remove(of(n)));
        assert!(counts.by_address.is_empty() && counts.by_network.is_empty() && counts.total() == 0);
        assert_eq!(CountLimits::new(1, 3, 0).per_network, usize::MAX, "0 for no limit");
    }
}
