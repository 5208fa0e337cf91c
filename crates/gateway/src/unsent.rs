//! Bytes that were made for clients and that these have not taken yet: the bodies of plain answers, and the pages of
//! the log that streams have read. One budget for the whole process.
//!
//! One address gets at most a quarter of what the others leave, an IPv6 /48 at most half, so that those who do not read
//! never take all of it, however many they are. An eighth is for small answers only: the kernel takes those at once,
//! even for a client that does not read, so that every client that wants a small page gets it.
//!
//! Frames of the ring count only once, as the ring's: what is reserved here is what an answer may keep alive after the
//! ring has let go of it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use daemon::metrics::MetricsRegistry;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use crate::client_address::{ClientAddress, ClientNetwork};

/// One address gets at most this part of the budget, and of what the others leave of it.
const ADDRESS_SHARE: usize = 4;
/// An IPv6 /48 gets at most this part.
const NETWORK_SHARE: usize = 2;
/// This part is for small answers only.
const SMALL_SHARE: usize = 8;
/// Bytes of all answers to one address that are small together: less than the kernel buffers for one connection.
pub(crate) const SMALL_BYTES: usize = 64 * 1024;
/// In a small budget, fewer are small: this part of it.
const SMALL_PART: usize = 16;
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
    by_network: HashMap<ClientNetwork, usize>,
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

    /// Reserves `bytes` for an answer to an address. An answer that is larger than the share is accepted if nothing else
    /// waits: otherwise a small budget would refuse it for ever.
    ///
    /// # Errors
    /// Which limit is reached: that of the address, or of all clients.
    pub(crate) fn reserve(&self, address: ClientAddress, bytes: usize) -> Result<UnsentBytes, UnsentRefused> {
        self.reserve_for(UnsentKind::Answer, address, bytes)
    }

    /// The same for an answer that can be shorter: as much as there is room for, of `bytes`, its half, a quarter …, but
    /// at least `bytes_min`.
    ///
    /// # Errors
    /// As [`UnsentBudget::reserve`], of the smallest part.
    pub(crate) fn reserve_up_to(
        &self,
        address: ClientAddress,
        bytes: usize,
        bytes_min: usize,
    ) -> Result<UnsentBytes, UnsentRefused> {
        let mut wanted = bytes;
        loop {
            // Only the last one is counted as refused.
            let is_last = wanted / 2 < bytes_min;
            if is_last || self.counts().check(UnsentKind::Answer, address, wanted).is_ok() {
                match self.reserve(address, wanted) {
                    Err(_) if !is_last => {}
                    reserved => return reserved,
                }
            }
            wanted /= 2;
        }
    }

    /// The same as [`UnsentBudget::reserve`] for a page of the log that a stream is to read.
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
        self.check(kind, address, bytes)?;
        if bytes > 0 {
            self.total += bytes;
            if kind == UnsentKind::LogPage {
                self.log_pages += bytes;
            }
            *self.by_address.entry(address).or_default() += bytes;
            if let Some(network) = address.network() {
                *self.by_network.entry(network).or_default() += bytes;
            }
        }
        Ok(())
    }

    /// Whether there is room for `bytes`.
    fn check(&self, kind: UnsentKind, address: ClientAddress, bytes: usize) -> Result<(), UnsentRefused> {
        if self.max == 0 || self.total == 0 {
            return Ok(());
        }
        let of_address = self.by_address.get(&address).copied().unwrap_or_default();
        let of_address_then = of_address.saturating_add(bytes);
        let total_then = self.total.saturating_add(bytes);
        let small = SMALL_BYTES.min(self.max / SMALL_PART);
        if kind == UnsentKind::Answer && of_address_then <= small && total_then <= self.max {
            return Ok(());
        }
        let large_max = self.max - self.max / SMALL_SHARE;
        let left_by_others = large_max.saturating_sub(self.total - of_address);
        // Half of the largest share is much, whatever the others have.
        let has_much = of_address > large_max / ADDRESS_SHARE / 2;
        if has_much && of_address_then > left_by_others / ADDRESS_SHARE {
            return Err(UnsentRefused::Address);
        }
        let of_network = address.network().map(|network| self.by_network.get(&network).copied().unwrap_or(0));
        let network_exceeds = of_network.is_some_and(|of_network| {
            let left_by_others = large_max.saturating_sub(self.total - of_network);
            of_network.saturating_add(bytes) > left_by_others / NETWORK_SHARE
        });
        let log_pages_exceed = kind == UnsentKind::LogPage
            && self.log_pages > 0
            && self.log_pages.saturating_add(bytes) > self.max / LOG_PAGES_SHARE;
        let exceeds = of_address_then > left_by_others / ADDRESS_SHARE || total_then > large_max;
        if exceeds || network_exceeds || log_pages_exceed {
            return Err(UnsentRefused::Total);
        }
        Ok(())
    }

    fn give_back(&mut self, kind: UnsentKind, address: ClientAddress, bytes: usize) {
        self.total -= bytes;
        if kind == UnsentKind::LogPage {
            self.log_pages -= bytes;
        }
        subtract(&mut self.by_address, address, bytes);
        if let Some(network) = address.network() {
            subtract(&mut self.by_network, network, bytes);
        }
    }
}

fn subtract<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K, bytes: usize) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= bytes;
        if *count == 0 {
            counts.remove(&key);
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
    /// What is reserved still.
    pub(crate) fn len(&self) -> usize {
        self.left
    }

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

    const MAX: usize = 64 << 20;

    /// Reserves pages for each of these addresses, as many as it gets, until none gets any more.
    fn take_all(budget: &UnsentBudget, addresses: &[ClientAddress]) -> Vec<UnsentBytes> {
        let mut taken = Vec::new();
        for bytes in [1 << 20, 300 << 10, 65 << 10] {
            for address in addresses {
                while let Ok(reserved) = budget.reserve(*address, bytes) {
                    taken.push(reserved);
                }
            }
        }
        taken
    }

    #[test]
    fn one_address_gets_a_quarter_of_what_the_others_leave() {
        let (budget, read) = budget(800);
        let mut first = budget.reserve(address(1), 150).unwrap();
        assert_eq!(budget.reserve(address(1), 26).unwrap_err(), UnsentRefused::Address);
        // 700 are for answers that are not small.
        assert_eq!(budget.reserve(address(2), 138).unwrap_err(), UnsentRefused::Total);
        let _second = budget.reserve(address(2), 137).unwrap();
        first.release(150);
        assert!(budget.reserve(address(1), 140).is_ok());
        assert_eq!(read("newswire_gateway_unsent_refused_total{reason=\"address\"}"), 1);
        assert_eq!(read("newswire_gateway_unsent_refused_total{reason=\"total\"}"), 1);
    }

    #[test]
    fn however_many_addresses_take_all_they_get_another_one_gets_a_small_answer() {
        let v4: Vec<_> = (1..=200).map(address).collect();
        let parse = |text: String| -> ClientAddress { text.parse().unwrap() };
        let one_48: Vec<_> = (0..200).map(|n| parse(format!("2001:db8:1:{n:x}::1"))).collect();
        let many_48: Vec<_> = (0..200).map(|n| parse(format!("2001:db8:{:x}:{n:x}::1", n % 25))).collect();
        for hostile in [v4, one_48, many_48] {
            let (budget, read) = budget(MAX);
            let taken = take_all(&budget, &hostile);
            assert!(taken.len() > 10);
            assert!(read("newswire_gateway_unsent_bytes") <= MAX as u64);
            for other in ["198.51.100.1", "2001:db9::1", "2001:db8:1:ffff::1"] {
                let other = other.parse().unwrap();
                assert_eq!(budget.reserve(other, SMALL_BYTES).unwrap().len(), SMALL_BYTES);
                assert!(budget.reserve_up_to(other, 1 << 20, SMALL_BYTES).unwrap().len() >= SMALL_BYTES);
            }
        }
    }

    #[test]
    fn a_48_leaves_half_to_the_others() {
        let (budget, read) = budget(MAX);
        let one_48: Vec<_> = (0..200).map(|n| format!("2001:db8:1:{n:x}::1").parse().unwrap()).collect();
        let _taken = take_all(&budget, &one_48);
        let bytes = read("newswire_gateway_unsent_bytes") as usize;
        assert!((MAX / 4..=MAX / 2).contains(&bytes), "{bytes}");
        assert!(budget.reserve("2001:db8:2::1".parse().unwrap(), 4 << 20).is_ok());
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
        assert_eq!(budget.reserve(address(2), 50).unwrap_err(), UnsentRefused::Total);
        drop(large);
        budget.resize(0);
        let _all: Vec<_> = (0..9).map(|_| budget.reserve(address(1), usize::MAX / 16).unwrap()).collect();
    }

    #[test]
    fn pages_of_the_log_leave_half_of_the_budget_to_answers() {
        let (budget, read) = budget(MAX);
        let page = |n| budget.reserve_log_page(address(n), 256 << 10).ok();
        let pages: Vec<_> = (0..10).flat_map(|_| 0..40).filter_map(page).collect();
        let bytes = read("newswire_gateway_unsent_bytes") as usize;
        assert!((MAX / 4..=MAX / 2).contains(&bytes), "{bytes}");
        let answer = budget.reserve(address(99), 4 << 20).unwrap();
        drop(pages);
        let page = page(9).unwrap();
        drop((answer, page));
        let counts = budget.counts();
        assert_eq!((counts.total, counts.log_pages), (0, 0));
        assert!(counts.by_address.is_empty() && counts.by_network.is_empty());
    }

    #[test]
    fn addresses_of_one_64_are_one_address() {
        let (budget, _) = budget(400);
        let _one = budget.reserve("2001:db8::1".parse().unwrap(), 80).unwrap();
        let other = budget.reserve("2001:db8::2".parse().unwrap(), 30);
        assert_eq!(other.unwrap_err(), UnsentRefused::Address);
        assert!(budget.reserve("2001:db8:0:1::1".parse().unwrap(), 50).is_ok());
    }
}
