//! Which streams are open, and whether one more is accepted. An open stream is never evicted for a new one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::metrics::gauge::Gauge;

use crate::{client_address::rate_limit_key, settings::Settings};

/// The open streams, counted in all and per address.
#[derive(Debug)]
pub(crate) struct OpenStreams {
    counts: Mutex<StreamCounts>,
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct StreamCounts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl OpenStreams {
    /// `gauge` follows the number of open streams.
    pub(crate) fn new(gauge: Gauge) -> Self {
        Self { counts: Mutex::default(), gauge }
    }

    fn counts(&self) -> MutexGuard<'_, StreamCounts> {
        // Every change under it is complete before it can panic.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> usize {
        self.counts().total
    }

    /// Admits one more stream.
    ///
    /// # Errors
    /// The setting that limits it, as the metric names it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        settings: &Settings,
    ) -> Result<StreamPermit, &'static str> {
        let address = rate_limit_key(address);
        let mut counts = self.counts();
        if counts.total >= settings.clients_max {
            return Err("clients_max");
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= settings.clients_per_address_max {
            return Err("clients_per_address_max");
        }
        *of_address += 1;
        counts.total += 1;
        drop(counts);
        self.gauge.inc();
        Ok(StreamPermit { streams: Arc::clone(self), address })
    }
}

/// The right to one open stream; given back when dropped.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    streams: Arc<OpenStreams>,
    address: IpAddr,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut counts = self.streams.counts();
        counts.total -= 1;
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
        drop(counts);
        self.streams.gauge.dec();
    }
}
