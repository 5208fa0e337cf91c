//! Bytes that were made for clients and that these have not taken yet: the bodies of plain answers, and the pages of
//! the log that streams have read. One budget for the whole process; one address gets at most a quarter of it.
//!
//! Frames of the ring count only once, as the ring's: what is reserved here is what an answer may keep alive after the
//! ring has let go of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use daemon::metrics::MetricsRegistry;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use crate::client_address::ClientAddress;

/// One address gets at most this part of the budget.
const ADDRESS_SHARE: usize = 4;
/// Pages of the log for streams get at most this part: a stopped daemon, or many replays at once, must not refuse plain
/// answers.
const LOG_PAGES_SHARE: usize = 2;

/// The budget. Cheap to clone; all clones share it.
#[derive(Clone, Debug)]
pub(crate) struct UnsentBudget(Arc<UnsentState>);

#[derive(Debug)]
struct UnsentState {
    counts: Mutex<UnsentCounts>,
    bytes: Gauge,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
}

#[derive(Debug, Default)]
struct UnsentCounts {
    /// 0 for no limit.
    max: usize,
    total: usize,
    /// Of these, for pages of the log that streams read.
    log_pages: usize,
    by_address: HashMap<ClientAddress, usize>,
}

/// Why nothing was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnsentRefused {
    /// This address has used its share.
    Address,
    /// All addresses together have used the budget.
    Total,
}

/// What bytes are reserved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnsentKind {
    Answer,
    LogPage,
}

/// Reserved bytes; what was not released is released when this is dropped.
#[derive(Debug)]
pub(crate) struct UnsentBytes {
    budget: UnsentBudget,
    address: ClientAddress,
    kind: UnsentKind,
    left: usize,
}

impl UnsentBudget {
    /// A budget of `max` bytes; 0 for no limit.
    pub(crate) fn new(max: usize, registry: &MetricsRegistry) -> Self {
        let bytes = registry.add(
            "newswire_gateway_unsent_bytes",
            "Bytes of answers and of pages of the log that clients have not taken yet",
        );
        let refused = registry.add_by(
            "newswire_gateway_unsent_refused_total",
            "Answers and pages that had to wait or were refused because of gateway.unsent_bytes_max, by whether the address or all clients together reached the limit",
            "reason",
            [UnsentRefused::Address.as_str(), UnsentRefused::Total.as_str()],
        );
        let counts = Mutex::new(UnsentCounts { max, ..UnsentCounts::default() });
        Self(Arc::new(UnsentState { counts, bytes, refused }))
    }

    /// Changes the limit; what is reserved stays reserved.
    pub(crate) fn resize(&self, max: usize) {
        self.counts().max = max;
    }

    /// Reserves `bytes` for an answer to an address. An answer that is larger than the share is accepted if nothing else of this
    /// address waits: otherwise a small budget would refuse it for ever.
    ///
    /// # Errors
    /// Which limit is reached: that of the address, or of all clients.
    pub(crate) fn reserve(&self, address: ClientAddress, bytes: usize) -> Result<UnsentBytes, UnsentRefused> {
        self.reserve_for(UnsentKind::Answer, address, bytes)
    }

    /// The same for a page of the log that a stream is to read.
    ///
    /// # Errors
    /// As [`UnsentBudget::reserve`]; pages of the log have a part of the budget.
    pub(crate) fn reserve_log_page(
        &self,
        address: ClientAddress,
        bytes: usize,
    ) -> Result<UnsentBytes, UnsentRefused> {
        self.reserve_for(UnsentKind::LogPage, address, bytes)
    }

    fn reserve_for(
        &self,
        kind: UnsentKind,
        address: ClientAddress,
        bytes: usize,
    ) -> Result<UnsentBytes, UnsentRefused> {
        let taken = self.counts().take(kind, address, bytes);
        match taken {
            Ok(()) => {
                self.0.bytes.inc_by(as_gauge(bytes));
                Ok(UnsentBytes { budget: self.clone(), address, kind, left: bytes })
            }
            Err(refused) => {
                self.0.refused.get_or_create(&[("reason", refused.as_str())]).inc();
                Err(refused)
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, UnsentCounts> {
        // Every change under it is complete before it can panic.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnsentCounts {
    fn take(&mut self, kind: UnsentKind, address: ClientAddress, bytes: usize) -> Result<(), UnsentRefused> {
        let of_address = self.by_address.get(&address).copied().unwrap_or_default();
        let exceeds = |used: usize, max: usize| self.max > 0 && used > 0 && used.saturating_add(bytes) > max;
        if exceeds(of_address, self.max / ADDRESS_SHARE) {
            return Err(UnsentRefused::Address);
        }
        let log_pages_exceed =
            kind == UnsentKind::LogPage && exceeds(self.log_pages, self.max / LOG_PAGES_SHARE);
        if log_pages_exceed || exceeds(self.total, self.max) {
            return Err(UnsentRefused::Total);
        }
        if bytes > 0 {
            self.total += bytes;
            if kind == UnsentKind::LogPage {
                self.log_pages += bytes;
            }
            *self.by_address.entry(address).or_default() += bytes;
        }
        Ok(())
    }

    fn give_back(&mut self, kind: UnsentKind, address: ClientAddress, bytes: usize) {
        self.total -= bytes;
        if kind == UnsentKind::LogPage {
            self.log_pages -= bytes;
        }
        if let Some(of_address) = self.by_address.get_mut(&address) {
            *of_address -= bytes;
            if *of_address == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl UnsentRefused {
    /// Its name in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Total => "total",
        }
    }
}

impl UnsentBytes {
    /// Releases all but `bytes`: less was made than was reserved for.
    pub(crate) fn keep(&mut self, bytes: usize) {
        self.release(self.left.saturating_sub(bytes));
    }

    /// Releases `bytes` that the client's connection has taken; at most what is left.
    pub(crate) fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.left);
        if bytes > 0 {
            self.left -= bytes;
            self.budget.counts().give_back(self.kind, self.address, bytes);
            self.budget.0.bytes.dec_by(as_gauge(bytes));
        }
    }
}

impl Drop for UnsentBytes {
    fn drop(&mut self) {
        self.release(self.left);
    }
}

fn as_gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(max: usize) -> (UnsentBudget, impl Fn(&str) -> u64) {
        let registry = MetricsRegistry::new();
        let budget = UnsentBudget::new(max, &registry);
        let read = move |name: &str| {
            let text = registry.encode();
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.unwrap().parse().unwrap()
        };
        (budget, read)
    }

    fn address(n: u8) -> ClientAddress {
        std::net::IpAddr::from([192, 0, 2, n]).into()
    }

    #[test]
    fn one_address_gets_a_quarter_and_all_together_the_whole() {
        let (budget, read) = budget(400);
        let mut first = budget.reserve(address(1), 60).unwrap();
        assert_eq!(budget.reserve(address(1), 41).unwrap_err(), UnsentRefused::Address);
        let _rest: Vec<_> = (2..=4).map(|n| budget.reserve(address(n), 100).unwrap()).collect();
        assert_eq!(budget.reserve(address(5), 41).unwrap_err(), UnsentRefused::Total);
        first.release(1);
        assert!(budget.reserve(address(5), 41).is_ok());
        assert_eq!(read("newswire_gateway_unsent_refused_total{reason=\"address\"}"), 1);
        assert_eq!(read("newswire_gateway_unsent_refused_total{reason=\"total\"}"), 1);
    }

    #[test]
    fn everything_that_was_reserved_is_released_once() {
        let (budget, read) = budget(400);
        let mut bytes = budget.reserve(address(1), 100).unwrap();
        bytes.release(30);
        assert_eq!(read("newswire_gateway_unsent_bytes"), 70);
        bytes.release(1000);
        assert_eq!(read("newswire_gateway_unsent_bytes"), 0);
        drop(bytes);
        drop(budget.reserve(address(2), 100).unwrap());
        drop(budget.reserve(address(3), 0).unwrap());
        assert_eq!(read("newswire_gateway_unsent_bytes"), 0);
        assert!(budget.counts().by_address.is_empty(), "an address without bytes takes no memory");
    }

    #[test]
    fn an_answer_larger_than_the_share_is_accepted_alone_and_zero_is_no_limit() {
        let (budget, _) = budget(400);
        let large = budget.reserve(address(1), 300).unwrap();
        assert_eq!(budget.reserve(address(1), 1).unwrap_err(), UnsentRefused::Address);
        assert_eq!(budget.reserve(address(2), 101).unwrap_err(), UnsentRefused::Total);
        drop(large);
        budget.resize(0);
        let _all: Vec<_> = (0..9).map(|_| budget.reserve(address(1), usize::MAX / 16).unwrap()).collect();
    }

    #[test]
    fn pages_of_the_log_leave_half_of_the_budget_to_answers() {
        let (budget, read) = budget(400);
        let pages: Vec<_> = (1..9).filter_map(|n| budget.reserve_log_page(address(n), 100).ok()).collect();
        assert_eq!(pages.len(), 2);
        let answers: Vec<_> = (1..9).filter_map(|n| budget.reserve(address(10 + n), 100).ok()).collect();
        assert_eq!(answers.len(), 2);
        assert_eq!(budget.reserve_log_page(address(9), 1).unwrap_err(), UnsentRefused::Total);
        drop(pages);
        let page = budget.reserve_log_page(address(9), 100).unwrap();
        assert_eq!(read("newswire_gateway_unsent_bytes"), 300);
        drop((answers, page));
        let counts = budget.counts();
        assert_eq!((counts.total, counts.log_pages), (0, 0));
    }

    #[test]
    fn addresses_of_one_64_share_a_quarter() {
        let (budget, _) = budget(400);
        let _one = budget.reserve("2001:db8::1".parse().unwrap(), 100).unwrap();
        let other = budget.reserve("2001:db8::2".parse().unwrap(), 1);
        assert_eq!(other.unwrap_err(), UnsentRefused::Address);
        assert!(budget.reserve("2001:db8:0:1::1".parse().unwrap(), 100).is_ok());
    }
}
