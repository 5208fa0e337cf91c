//! Which streams are open, and whether one more is accepted. An open stream is never evicted for a new one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

use crate::{
    address_counts::{AddressCounts, CountLimit, CountLimits},
    client_address::ClientAddress,
    settings::Settings,
};

/// The open streams, counted in all, per address and per IPv6 /48.
#[derive(Debug)]
pub(crate) struct OpenStreams {
    counts: Mutex<AddressCounts>,
    gauge: Gauge,
}

impl OpenStreams {
    /// `gauge` follows the number of open streams.
    pub(crate) fn new(gauge: Gauge) -> Self {
        Self { counts: Mutex::default(), gauge }
    }

    fn counts(&self) -> MutexGuard<'_, AddressCounts> {
        // Every change under it is complete before it can panic.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> usize {
        self.counts().total()
    }

    /// Admits one more stream.
    ///
    /// # Errors
    /// The setting that limits it, as the metric names it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: ClientAddress,
        settings: &Settings,
    ) -> Result<StreamPermit, &'static str> {
        let Settings { clients_max, clients_per_address_max, addresses_per_network, .. } = *settings;
        let limits = CountLimits::new(clients_max, clients_per_address_max, addresses_per_network);
        self.counts().try_add(address, limits).map_err(|limit| match limit {
            CountLimit::Total => "clients_max",
            CountLimit::Address => "clients_per_address_max",
            CountLimit::Network => "addresses_per_network",
        })?;
        self.gauge.inc();
        Ok(StreamPermit { streams: Arc::clone(self), address })
    }
}

/// The right to one open stream; given back when dropped.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    streams: Arc<OpenStreams>,
    address: ClientAddress,
}

impl StreamPermit {
    /// Whose stream it is.
    pub(crate) fn address(&self) -> ClientAddress {
        self.address
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.streams.counts().remove(self.address);
        self.streams.gauge.dec();
    }
}
