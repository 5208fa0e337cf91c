//! The sources of a large installation: how many each host has, how often they publish, how often they are to be visited.
//!
//! ```text
//! 60 % of the sources share hosts: the host of rank r has a constant divided by r, but at most a list of sources
//! 40 % have a host of their own
//! ```

use news::stable_hash;

/// A list has at most as many sources (`Catalogue::SOURCES_MAX`), and so has the part of one host.
pub(super) const LIST_SOURCES_MAX: u32 = 100_000;
/// Share of the sources that have a host with others.
const SHARED: f64 = 0.6;
/// Items a day of the median source, and the standard deviation of the logarithm: one item in ten days, and 1.4 a day on
/// average.
const ITEMS_PER_DAY_MEDIAN: f64 = 0.1;
const ITEMS_SIGMA: f64 = 2.3;
const ITEMS_PER_DAY_MAX: f64 = 500.0;
const DAY_S: f64 = 86_400.0;
/// `fetch.interval_min` and `fetch.interval_max`, in seconds.
const INTERVAL_MIN_S: f64 = 300.0;
const INTERVAL_MAX_S: f64 = DAY_S;

/// All sources of one registrable domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SimulatedHost {
    /// Its number, which its name has.
    pub(super) number: u32,
    pub(super) sources: u32,
    pub(super) items_per_day: f32,
    /// Visits a day as the schedule asks for them, without the spacing of the host.
    pub(super) visits_per_day: f32,
}

/// The hosts, the largest first.
#[derive(Debug)]
pub(super) struct Population {
    pub(super) hosts: Vec<SimulatedHost>,
    seed: u64,
}

impl Population {
    /// The same for the same arguments.
    pub(super) fn new(sources: u32, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let sizes = host_sizes(sources);
        let hosts = (0..).zip(sizes).map(|(number, sources)| {
            let (mut items, mut visits) = (0.0, 0.0);
            for _ in 0..sources {
                let items_per_day = items_per_day(&mut random);
                items += items_per_day;
                visits += visits_per_day(items_per_day);
            }
            #[expect(clippy::cast_possible_truncation, reason = "estimates")]
            SimulatedHost { number, sources, items_per_day: items as f32, visits_per_day: visits as f32 }
        });
        Self { hosts: hosts.collect(), seed }
    }

    /// The registrable domain of a host.
    pub(super) fn name(&self, host: &SimulatedHost) -> String {
        format!("host-{}-{:x}.example", host.number, stable_hash(&self.seed.to_le_bytes()) >> 40)
    }
}

/// The numbers of sources of all hosts, the largest first; their sum is `sources`.
fn host_sizes(sources: u32) -> Vec<u32> {
    let largest = LIST_SOURCES_MAX.min(sources / 100).max(1);
    let shared = |constant: u32| (1..=constant / 2).map(move |rank| (constant / rank).min(largest));
    let total = |constant: u32| shared(constant).map(u64::from).sum::<u64>();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
    let wanted = (f64::from(sources) * SHARED) as u64;
    let (mut low, mut high) = (0, sources);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if total(middle) <= wanted { low = middle } else { high = middle - 1 }
    }
    let mut sizes: Vec<_> = shared(low).collect();
    let alone = sources - sizes.iter().sum::<u32>();
    sizes.extend((0..alone).map(|_| 1));
    sizes
}

/// How often a source publishes: log-normal.
fn items_per_day(random: &mut fastrand::Rng) -> f64 {
    let normal = (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
    (ITEMS_PER_DAY_MEDIAN * (ITEMS_SIGMA * normal).exp()).min(ITEMS_PER_DAY_MAX)
}

/// How often the schedule visits it: at half the gap between its items, and more often after each, from the shortest interval
/// on, doubling (`fetch::schedule`).
fn visits_per_day(items_per_day: f64) -> f64 {
    let interval = (DAY_S / items_per_day / 2.0).clamp(INTERVAL_MIN_S, INTERVAL_MAX_S);
    let after_each_item = (interval / INTERVAL_MIN_S).log2();
    (DAY_S / interval + items_per_day * after_each_item).min(DAY_S / INTERVAL_MIN_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_have_all_sources_and_none_has_more_than_a_list() {
        for sources in [1, 99, 1000, 50_000] {
            let sizes = host_sizes(sources);
            assert_eq!(sizes.iter().map(|n| u64::from(*n)).sum::<u64>(), u64::from(sources));
            assert!(sizes.is_sorted_by(|a, b| a >= b), "the largest first");
        }
        let sizes = host_sizes(10_000_000);
        assert_eq!(sizes.iter().sum::<u32>(), 10_000_000);
        assert!(sizes[0] == LIST_SOURCES_MAX && sizes[2] == LIST_SOURCES_MAX, "some hosts fill a list");
        assert!(sizes.iter().filter(|n| **n == 1).count() > 3_900_000);
    }

    #[test]
    fn a_population_is_the_same_for_the_same_seed_and_another_one_for_another() {
        let of = |seed| Population::new(2000, seed);
        assert_eq!(of(7).hosts, of(7).hosts);
        assert_ne!(of(7).hosts, of(8).hosts);
        assert_ne!(of(7).name(&of(7).hosts[0]), of(8).name(&of(8).hosts[0]));
    }

    #[test]
    fn a_source_is_visited_between_once_a_day_and_every_five_minutes() {
        for items in [0.0, 0.001, 0.5, 3.0, 100.0, 500.0] {
            let visits = visits_per_day(items);
            assert!((1.0..=288.0).contains(&visits), "{items}: {visits}");
        }
        assert!(visits_per_day(3.0) > visits_per_day(0.5));
    }
}
