//! Histograms that one thread fills while others read.
//!
//! Their buckets are the decimal ones: ninety for each power of ten, the whole multiples of a hundredth of the next one. So a value is
//! known to a tenth, and every bound with two decimal digits, such as those of a Prometheus histogram, is one of a bucket's.
//! HdrHistogram's idea with a fixed size. Filling is a few loads and stores; nothing is locked or lost.
//!
//! Invariant: the buckets' counts never fall, so the difference of two snapshots is the histogram of the time between.
#![forbid(unsafe_code)]

use super::Counter;

/// Buckets of a power of ten, each a whole multiple of a hundredth of the next power.
const BUCKETS_A_DECADE: usize = 90;

/// Values of up to this have a bucket each.
const EXACT_MAX: u64 = 100;

/// Values above 10¹² (a thousand seconds, in nanoseconds) share the last bucket.
const DECADE_MAX: u32 = 12;

const BUCKETS: usize = EXACT_MAX as usize + 1 + (DECADE_MAX as usize - 2) * BUCKETS_A_DECADE;

/// Counts of values, by size.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: Box<[Counter]>,
    sum: Counter,
}

impl Histogram {
    /// One that counts, or one that takes no room and counts nothing.
    pub fn new(counts: bool) -> Histogram {
        let buckets = if counts { BUCKETS } else { 0 };
        Histogram { buckets: (0..buckets).map(|_| Counter::default()).collect(), sum: Counter::default() }
    }

    /// Counts a value. Only the owner thread may call this.
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts a value that is that of so many. Only the owner thread may call this.
    pub fn record_many(&self, value: u64, count: u64) {
        if !self.buckets.is_empty() {
            self.buckets[bucket(value)].add(count);
            self.sum.add(value.saturating_mul(count));
        }
    }

    /// The counts now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot { counts: self.buckets.iter().map(Counter::get).collect(), sum: self.sum.get() }
    }
}

/// A histogram's counts at a moment, or between two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: Vec<u64>,
    /// Of all values, exact.
    sum: u64,
}

impl HistogramSnapshot {
    /// What came since `earlier`.
    pub fn since(&self, earlier: &HistogramSnapshot) -> HistogramSnapshot {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        HistogramSnapshot {
            counts: self.counts.iter().zip(before).map(|(now, before)| now - before).collect(),
            sum: self.sum.wrapping_sub(earlier.sum),
        }
    }

    /// Both together.
    pub fn merge(mut self, other: &HistogramSnapshot) -> HistogramSnapshot {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
        self.sum = self.sum.wrapping_add(other.sum);
        self
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What they add up to.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many are not above each of these bounds, which ascend and have at most two decimal digits before their zeros.
    pub fn counts_within(&self, bounds: &[u64]) -> Vec<u64> {
        let (mut index, mut count) = (0, 0);
        let mut up_to = |bound: u64| {
            while index < self.counts.len() && upper_bound(index) <= bound {
                count += self.counts[index];
                index += 1;
            }
            count
        };
        bounds.iter().map(|bound| up_to(*bound)).collect()
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

/// The bucket of a value: small values have one each, others share by their first two digits. A bucket holds its upper bound.
fn bucket(value: u64) -> usize {
    if value <= EXACT_MAX {
        return value as usize;
    }
    let below = value - 1;
    let decade = below.ilog10();
    if decade >= DECADE_MAX {
        return BUCKETS - 1;
    }
    let digits = (below / UNITS[decade as usize]) as usize;
    EXACT_MAX as usize + 1 + (decade as usize - 2) * BUCKETS_A_DECADE + digits - 10
}

/// The width of a bucket of each power of ten.
const UNITS: [u64; DECADE_MAX as usize] = {
    let mut units = [1; DECADE_MAX as usize];
    let mut decade = 2;
    while decade < units.len() {
        units[decade] = 10 * units[decade - 1];
        decade += 1;
    }
    units
};

/// The largest value of a bucket.
fn upper_bound(index: usize) -> u64 {
    let Some(beyond) = index.checked_sub(EXACT_MAX as usize + 1) else { return index as u64 };
    let (decade, digits) = (2 + beyond / BUCKETS_A_DECADE, 10 + beyond % BUCKETS_A_DECADE);
    UNITS[decade] * (digits as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_values_in_order_and_within_a_tenth() {
        let mut last = 0;
        for value in (0..100_000_u64).chain((0..39).map(|bits| 1 << bits)).chain((10..39).map(|bits| (1 << bits) - 1)) {
            let bound = upper_bound(bucket(value));
            assert!(bound >= value && bound - value <= value / 10, "{value} is counted as {bound}");
        }
        for value in 0..100_000 {
            assert!(bucket(value) >= last && bucket(value) <= last + 1);
            last = bucket(value);
        }
        assert_eq!((bucket(1_000_000_000_000), bucket(1_000_000_000_001)), (BUCKETS - 1, BUCKETS - 1));
        assert_eq!((bucket(u64::MAX), upper_bound(BUCKETS - 1)), (BUCKETS - 1, 1_000_000_000_000));
    }

    /// A value that equals a bound is within it, and the next one is not.
    #[test]
    fn bounds_of_two_digits_are_exact() {
        let bounds: Vec<u64> =
            (0..11).flat_map(|decade| [1, 2, 5, 15].map(|digits| digits * 10_u64.pow(decade))).collect();
        for bound in bounds {
            let histogram = Histogram::new(true);
            histogram.record(bound - 1);
            histogram.record_many(bound, 3);
            histogram.record_many(bound + 1, 5);
            let snapshot = histogram.snapshot();
            assert_eq!(snapshot.counts_within(&[bound]), [4], "{bound}");
            assert_eq!((snapshot.count(), snapshot.sum()), (9, 9 * bound + 4));
        }
    }

    #[test]
    fn one_that_is_not_asked_for_takes_no_room() {
        let histogram = Histogram::new(false);
        histogram.record(5);
        assert_eq!((histogram.snapshot(), histogram.snapshot().quantile(0.5)), (HistogramSnapshot::default(), 0));
    }

    #[test]
    fn quantiles_of_an_interval_are_those_of_its_values() {
        let histogram = Histogram::new(true);
        histogram.record_many(1_000_000, 50);
        let early = histogram.snapshot();
        (1..=100).for_each(|value| histogram.record(value));
        let interval = histogram.snapshot().since(&early);
        assert_eq!((interval.quantile(0.5), interval.quantile(0.99), interval.sum()), (50, 99, 5050));
        assert_eq!(interval.merge(&early).quantile(0.99), 1_000_000);
    }
}
