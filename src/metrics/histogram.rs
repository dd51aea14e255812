//! Log-linear histograms that one thread fills while others read.
//!
//! Eight buckets for each power of two, so a value is known to an eighth (12.5 %); the idea of HdrHistogram with a fixed
//! size and without its precision. Filling is two loads and stores; nothing is locked or lost.
//!
//! Invariant: the buckets' counts never fall, so the difference of two snapshots is the histogram of the time between.
#![forbid(unsafe_code)]

use super::{Counter, DETAILED};

/// Bits of a value below its highest that choose the bucket.
const SUB_BITS: u32 = 3;

/// Values from 2⁴⁰ on (18 minutes, in nanoseconds) share the last bucket.
const MAGNITUDES: u32 = 40;

const BUCKETS: usize = ((MAGNITUDES - SUB_BITS + 1) << SUB_BITS) as usize;

/// Counts of values, by size.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Counter]>,
}

impl Default for Histogram {
    fn default() -> Histogram {
        let buckets = if DETAILED { BUCKETS } else { 0 };
        Histogram { buckets: (0..buckets).map(|_| Counter::default()).collect() }
    }
}

impl Histogram {
    /// Counts a value. Only the owner thread may call this. Does nothing unless [`DETAILED`].
    pub fn record(&self, value: u64) {
        if DETAILED {
            self.buckets[bucket(value)].add(1);
        }
    }

    /// The counts now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot { counts: self.buckets.iter().map(Counter::get).collect() }
    }
}

/// A histogram's counts at a moment, or between two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: Vec<u64>,
}

impl HistogramSnapshot {
    /// What came since `earlier`.
    pub fn since(&self, earlier: &HistogramSnapshot) -> HistogramSnapshot {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        HistogramSnapshot { counts: self.counts.iter().zip(before).map(|(now, before)| now - before).collect() }
    }

    /// Both together.
    pub fn merge(mut self, other: &HistogramSnapshot) -> HistogramSnapshot {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
        self
    }

    /// The upper bound of the bucket that holds the value at `quantile` (0 to 1); 0 if there are no values.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let rank = (quantile * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(index);
            }
        }
        0
    }
}

/// The bucket of a value: small values have one each, others share by their highest bits.
fn bucket(value: u64) -> usize {
    let magnitude = value.checked_ilog2().unwrap_or(0);
    if magnitude < SUB_BITS {
        return value as usize;
    }
    let shift = magnitude - SUB_BITS;
    let sub = (value >> shift) as usize - (1 << SUB_BITS);
    let index = ((shift as usize + 1) << SUB_BITS) + sub;
    index.min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper_bound(index: usize) -> u64 {
    let (row, sub) = (index >> SUB_BITS, (index & ((1 << SUB_BITS) - 1)) as u64);
    if row == 0 { sub } else { (((1 << SUB_BITS) + sub + 1) << (row - 1)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_values_in_order_and_within_an_eighth() {
        let mut last = 0;
        for value in (0..100_000_u64).chain((0..40).map(|bits| 1 << bits)).chain((10..39).map(|bits| (1 << bits) - 1)) {
            let bound = upper_bound(bucket(value));
            assert!(bound >= value && bound - value <= value / 8, "{value} is counted as {bound}");
        }
        for value in 0..100_000 {
            assert!(bucket(value) >= last && bucket(value) <= last + 1);
            last = bucket(value);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_an_interval_are_those_of_its_values() {
        let mut early = HistogramSnapshot { counts: vec![0; BUCKETS] };
        early.counts[bucket(1_000_000)] = 50;
        let mut late = early.clone();
        for value in 1..=100 {
            late.counts[bucket(value)] += 1;
        }
        let interval = late.since(&early);
        assert!((50..=56).contains(&interval.quantile(0.5)), "{}", interval.quantile(0.5));
        assert!((99..=112).contains(&interval.quantile(0.99)));
        assert_eq!(interval.merge(&early).quantile(0.99), upper_bound(bucket(1_000_000)));
        assert_eq!(HistogramSnapshot::default().quantile(0.5), 0);
    }
}
