//! What one address may use per second: requests, and events and bytes from the past. Token buckets, for the address
//! and for its IPv6 /48.
//!
//! An answer is refused or delayed, never cut short. The buckets of at most twice [`ADDRESSES_MAX`] addresses are
//! remembered, those of the addresses that came last: a flood of addresses costs a bounded amount of memory, and no
//! scan.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use governor::{
    Quota, RateLimiter, clock::Clock, middleware::StateInformationMiddleware, nanos::Nanos, state::StateStore,
};
use tokio::time::Instant;

use crate::{
    client_address::{ClientAddress, ClientNetwork},
    settings::BudgetLimits,
};

/// Addresses in one generation of a [`RecentKeys`].
const ADDRESSES_MAX: usize = 8192;
/// For a short time, so many times the requests and events of a second.
const BURST_SECONDS: u64 = 16;
/// The same for bytes.
const BURST_SECONDS_BYTES: u64 = 4;
/// Bytes are counted in pieces of this size, because a bucket holds less than 2^32 of what it counts.
const BYTES_PER_UNIT: u64 = 64;
/// The largest rate of a bucket, in units per second: a nanosecond each at least.
const RATE_MAX: u64 = 500_000_000;
/// Units that may be owed. More than one reply can be, and small enough for 64 bits of nanoseconds at one per second.
const DEBT_MAX: u64 = 1 << 30;

/// A request over the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverBudget {
    /// When the next request will be answered.
    pub(crate) wait: Duration,
    /// The setting that limits it, as the metrics name it.
    pub(crate) reason: &'static str,
}

/// The budgets of all addresses.
#[derive(Debug)]
pub(crate) struct Budgets(RwLock<Arc<Buckets>>);

#[derive(Debug)]
struct Buckets {
    limits: BudgetLimits,
    requests: TwoLevels,
    replay_events: TwoLevels,
    replay_bytes: TwoLevels,
}

impl Budgets {
    /// Full budgets within `limits`.
    pub(crate) fn new(limits: BudgetLimits) -> Self {
        Self(RwLock::new(Arc::new(Buckets::new(limits))))
    }

    /// Changes the limits; if they differ, every address starts with a full budget.
    pub(crate) fn resize(&self, limits: BudgetLimits) {
        if self.buckets().limits != limits {
            let buckets = Arc::new(Buckets::new(limits));
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = buckets;
        }
    }

    fn buckets(&self) -> Arc<Buckets> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes one request from the budget of `address`.
    ///
    /// # Errors
    /// If the budget is used up.
    pub(crate) fn request(&self, address: ClientAddress) -> Result<(), OverBudget> {
        let TwoLevels { address: addresses, network: networks } = &self.buckets().requests;
        let over = |reason| move |wait| OverBudget { wait, reason };
        addresses.take(&address).map_err(over("requests_per_address"))?;
        address
            .network()
            .map_or(Ok(()), |network| networks.take(&network))
            .map_err(over("addresses_per_network"))
    }

    /// Takes events and bytes that were just read or sent from the past.
    ///
    /// # Errors
    /// How long to wait before more of the past is sent.
    pub(crate) fn replay(&self, address: &ClientAddress, events: u64, bytes: u64) -> Result<(), Duration> {
        let buckets = self.buckets();
        let waits = [
            buckets.replay_events.charge(*address, events),
            buckets.replay_bytes.charge(*address, bytes.div_ceil(BYTES_PER_UNIT)),
        ];
        match waits.into_iter().max().unwrap_or_default() {
            Duration::ZERO => Ok(()),
            wait => Err(wait),
        }
    }
}

impl Buckets {
    fn new(limits: BudgetLimits) -> Self {
        let BudgetLimits { requests, replay_events, replay_bytes, addresses_per_network } = limits;
        let bytes = replay_bytes.div_ceil(BYTES_PER_UNIT);
        Self {
            limits,
            requests: TwoLevels::new(requests, addresses_per_network, BURST_SECONDS, 0),
            replay_events: TwoLevels::new(replay_events, addresses_per_network, BURST_SECONDS, DEBT_MAX),
            replay_bytes: TwoLevels::new(bytes, addresses_per_network, BURST_SECONDS_BYTES, DEBT_MAX),
        }
    }
}

/// One bucket for each address, and one for each network.
#[derive(Debug)]
struct TwoLevels {
    address: KeyedBuckets<ClientAddress>,
    network: KeyedBuckets<ClientNetwork>,
}

impl TwoLevels {
    fn new(rate: u64, addresses_per_network: u64, burst_seconds: u64, debt_max: u64) -> Self {
        Self {
            address: KeyedBuckets::new(rate, burst_seconds, debt_max),
            network: KeyedBuckets::new(rate.saturating_mul(addresses_per_network), burst_seconds, debt_max),
        }
    }

    /// See [`KeyedBuckets::charge`].
    fn charge(&self, address: ClientAddress, units: u64) -> Duration {
        let of_network =
            address.network().map_or(Duration::ZERO, |network| self.network.charge(&network, units));
        self.address.charge(&address, units).max(of_network)
    }
}

type Limiter<K> = RateLimiter<K, RecentKeys<K>, TokioClock, StateInformationMiddleware>;

/// One token bucket for each key. The limiter's bucket is larger by `debt_max` than what may be taken at once: what was
/// used already is always taken, and what is below `debt_max` is owed.
#[derive(Debug)]
struct KeyedBuckets<K: Clone + Eq + Hash> {
    /// `None` for no limit.
    limiter: Option<Limiter<K>>,
    debt_max: u64,
    /// The time in which one unit comes back.
    period: Duration,
}

impl<K: Clone + Eq + Hash> KeyedBuckets<K> {
    fn new(rate: u64, burst_seconds: u64, debt_max: u64) -> Self {
        let rate = rate.min(RATE_MAX);
        let burst = rate.saturating_mul(burst_seconds).saturating_add(debt_max).min(u64::from(u32::MAX));
        let units = |units: u64| u32::try_from(units).ok().and_then(NonZeroU32::new);
        let quota =
            units(rate).zip(units(burst)).map(|(rate, burst)| Quota::per_second(rate).allow_burst(burst));
        let limiter = |quota| Limiter::new(quota, RecentKeys::default(), TokioClock(Instant::now()));
        Self {
            period: quota.map_or(Duration::ZERO, |quota| quota.replenish_interval()),
            limiter: quota.map(limiter),
            debt_max,
        }
    }

    /// Takes one unit, or says how long until there is one.
    fn take(&self, key: &K) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        match limiter.check_key(key) {
            Ok(_) => Ok(()),
            Err(until) => Err(until.wait_time_from(limiter.clock().now())),
        }
    }

    /// Takes `units` in any case; returns how long until nothing is owed.
    fn charge(&self, key: &K, units: u64) -> Duration {
        let Some(limiter) = &self.limiter else { return Duration::ZERO };
        let Some(units) = u32::try_from(units.min(self.debt_max)).ok().and_then(NonZeroU32::new) else {
            return Duration::ZERO;
        };
        match limiter.check_key_n(key, units) {
            Ok(Ok(taken)) => {
                let owed = self.debt_max.saturating_sub(u64::from(taken.remaining_burst_capacity()));
                Duration::from_nanos(
                    u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX).saturating_mul(owed),
                )
            }
            // The debt is at its maximum: the client waits until it is smaller.
            Ok(Err(until)) => until.wait_time_from(limiter.clock().now()),
            Err(_) => Duration::ZERO,
        }
    }
}

/// The clock that tests can pause: the time since the limiter was made.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The states of the keys that were used last. When the newer generation is full, the older one is dropped: that of a
/// key that is still in use has moved to the newer one. A dropped state is that of an unused budget.
#[derive(Debug)]
struct RecentKeys<K>(Mutex<Generations<K>>);

#[derive(Debug)]
struct Generations<K> {
    newer: HashMap<K, Nanos>,
    older: HashMap<K, Nanos>,
}

impl<K> Default for RecentKeys<K> {
    fn default() -> Self {
        Self(Mutex::new(Generations { newer: HashMap::new(), older: HashMap::new() }))
    }
}

impl<K: Clone + Eq + Hash> StateStore for RecentKeys<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Every change under it is complete before it can panic.
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = generations.newer.get(key).or_else(|| generations.older.get(key)).copied();
        let measured = measure(state);
        // A refused key is in use, too.
        let next = measured.as_ref().map(|(_, next)| *next).ok().or(state);
        if let Some(next) = next
            && generations.newer.insert(key.clone(), next).is_none()
            && generations.newer.len() >= ADDRESSES_MAX
        {
            generations.older = std::mem::take(&mut generations.newer);
        }
        measured.map(|(outcome, _)| outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BudgetLimits =
        BudgetLimits { requests: 2, replay_events: 100, replay_bytes: 6400, addresses_per_network: 3 };

    fn address(text: &str) -> ClientAddress {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_burst_and_then_its_rate_and_others_have_their_own() {
        let budgets = Budgets::new(LIMITS);
        let one = address("192.0.2.1");
        assert_eq!((0..100).filter(|_| budgets.request(one).is_ok()).count(), 32);
        let over = budgets.request(one).unwrap_err();
        assert_eq!((over.reason, over.wait), ("requests_per_address", Duration::from_millis(500)));
        assert!(budgets.request(address("192.0.2.2")).is_ok());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!((0..100).filter(|_| budgets.request(one).is_ok()).count(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_48_may_use_as_much_as_some_addresses_together() {
        let budgets = Budgets::new(LIMITS);
        let of = |n: u32| address(&format!("2001:db8:0:{n:x}::1"));
        assert_eq!((0..3000).filter(|n| budgets.request(of(n % 500)).is_ok()).count(), 3 * 32);
        assert_eq!(budgets.request(of(700)).unwrap_err().reason, "addresses_per_network");
        assert!(budgets.request(address("2001:db8:1::1")).is_ok());
        let budgets = Budgets::new(BudgetLimits { addresses_per_network: 0, ..LIMITS });
        assert!((0..3000).all(|n| budgets.request(of(n % 500)).is_ok()), "0 for no limit");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_replayed_is_always_taken_and_what_is_owed_is_waited_for() {
        let budgets = Budgets::new(LIMITS);
        let one = address("192.0.2.1");
        assert_eq!(budgets.replay(&one, 1600, 0), Ok(()), "the burst");
        assert_eq!(budgets.replay(&one, 200, 0), Err(Duration::from_secs(2)));
        assert_eq!(
            budgets.replay(&one, 100, 0),
            Err(Duration::from_secs(3)),
            "another stream of the address"
        );
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(budgets.replay(&one, 1, 0), Err(Duration::from_millis(10)));
        assert_eq!(budgets.replay(&one, 0, 4 * 6400 + 640), Err(Duration::from_millis(100)), "bytes");
        assert_eq!(budgets.replay(&address("192.0.2.2"), 1, 1), Ok(()));
        let no_limit = BudgetLimits { replay_events: 0, replay_bytes: 0, ..LIMITS };
        assert_eq!(Budgets::new(no_limit).replay(&one, u64::MAX, u64::MAX), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn rates_from_one_per_second_to_the_largest_are_kept_and_a_huge_debt_is_a_long_wait() {
        for (rate, owed_s) in [(1, 1 << 30), (1_000_000, 1073), (u64::MAX, 0)] {
            let budgets = Budgets::new(BudgetLimits { replay_events: rate, ..LIMITS });
            let one = address("2001:db8::1");
            let waits: Vec<_> = (0..5).map(|_| budgets.replay(&one, u64::MAX, 0)).collect();
            let longest = waits.into_iter().filter_map(Result::err).max().unwrap_or_default();
            assert!(longest.as_secs() >= owed_s / 2, "{rate}: {longest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_takes_bounded_memory_and_forgets_no_active_client() {
        let budgets = Budgets::new(BudgetLimits { addresses_per_network: 0, ..LIMITS });
        let stays = address("192.0.2.1");
        let mut admitted = 0;
        for n in 0..200_000_u32 {
            budgets.request(address(&format!("2001:{:x}:{:x}::1", n >> 16, n & 0xffff))).unwrap();
            admitted += u32::from(n % 1000 == 0 && budgets.request(stays).is_ok());
        }
        assert_eq!(admitted, 32, "the budget of an address that stays is not forgotten");
        let keys = RecentKeys::default();
        for n in 0..100_000_u32 {
            keys.measure_and_replace(&n, |_| Ok::<_, ()>(((), Nanos::new(1)))).unwrap();
            let generations = keys.0.lock().unwrap();
            assert!(generations.newer.len() + generations.older.len() <= 2 * ADDRESSES_MAX);
        }
    }
}
