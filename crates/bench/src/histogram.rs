//! A histogram of millions of latencies in a few kilobytes, with a relative error of about 3%.
//!
//! ```text
//! below 32: one bucket per value;  above: 32 buckets per doubling
//! ```

/// Buckets per doubling.
const STEPS: u64 = 32;

/// Counts of values of any unit.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; 60 * STEPS as usize], count: 0, max: 0 }
    }
}

fn bucket(value: u64) -> usize {
    let doublings = u64::from(value.max(1).ilog2()).saturating_sub(4);
    let index = match doublings {
        0 => value,
        _ => STEPS * doublings + (value >> (doublings - 1)) - STEPS,
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    match index / STEPS {
        0 | 1 => index,
        doublings => ((index % STEPS + STEPS + 1) << (doublings - 1)) - 1,
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Adds the values of another one.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(ours, theirs)| *ours += theirs);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The value that `per_mille` of a thousand values do not exceed; 0 if there are none.
    pub(crate) fn per_mille(&self, per_mille: u64) -> u64 {
        let rank = (self.count * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (index, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank && seen > 0 {
                return upper(index).min(self.max);
            }
        }
        self.max
    }
}

/// The median; of an even number of values the lower middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_histogram_is_zero_and_one_value_is_every_quantile() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.per_mille(500), histogram.max(), histogram.count()), (0, 0, 0));
        histogram.record(70_001);
        assert_eq!(
            (histogram.per_mille(1), histogram.per_mille(990), histogram.max()),
            (70_001, 70_001, 70_001)
        );
    }

    #[test]
    fn the_median_does_not_depend_on_order() {
        assert_eq!([median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])], [0.0, 2.0, 1.0]);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_values_and_is_narrow(value in 0..u64::MAX / 2) {
            let index = bucket(value);
            prop_assert!(upper(index) >= value);
            prop_assert!(index == 0 || upper(index - 1) < value);
            prop_assert!(upper(index) - value <= value / 32);
        }

        #[test]
        fn a_percentile_is_that_of_the_sorted_list(mut values in prop::collection::vec(0..5_000_000u64, 1..300), per_mille in 1..=1000u64) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|v| histogram.record(*v));
            values.sort_unstable();
            let rank = (values.len() as u64 * per_mille).div_ceil(1000).max(1);
            let exact = values[usize::try_from(rank).unwrap() - 1];
            let estimate = histogram.per_mille(per_mille);
            prop_assert!(estimate >= exact && estimate <= exact + exact / 32, "{estimate} for {exact}");
        }
    }
}
