//! The percentile file of the HdrHistogram tools: value, percentile, count, 1/(1-percentile).
//!
//! It has the layout of `outputPercentileDistribution` of HdrHistogram (Java), which their plotter reads.
//!
//! Invariants: values are milliseconds.

use std::fmt::Write;

use hdrhistogram::Histogram;

/// Lines for each halving of the distance to 100 %, as the tools have them.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

const NS_PER_MS: f64 = 1e6;

/// The whole file.
pub fn percentiles(times_ns: &Histogram<u64>) -> String {
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    // Writing to a string cannot fail.
    let mut line = |arguments: std::fmt::Arguments<'_>| text.write_fmt(arguments).expect("a string takes everything");
    let mut count = 0;
    for step in times_ns.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64 / NS_PER_MS, step.quantile_iterated_to());
        if quantile < 1.0 {
            line(format_args!("{value:12.6} {quantile:2.12} {count:10} {:14.2}\n", 1.0 / (1.0 - quantile)));
        } else {
            line(format_args!("{value:12.6} {quantile:2.12} {count:10}\n"));
        }
    }
    line(format_args!(
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n",
        times_ns.mean() / NS_PER_MS,
        times_ns.stdev() / NS_PER_MS
    ));
    line(format_args!(
        "#[Max     = {:12.6}, Total count    = {:12}]\n",
        times_ns.max() as f64 / NS_PER_MS,
        times_ns.len()
    ));
    let sub_buckets = 2 * 10_u64.pow(u32::from(times_ns.sigfig()));
    line(format_args!(
        "#[Buckets = {:12}, SubBuckets     = {:12}]\n",
        times_ns.buckets(),
        sub_buckets.next_power_of_two()
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::recorder::times_ns;

    /// The promise: the file is what the tools read: a line each for growing percentiles, and the comments at the end.
    #[test]
    fn the_file_has_the_tools_layout() {
        let mut times = times_ns();
        for time_us in 1..=10_000 {
            times.saturating_record(time_us * 1000);
        }
        let text = percentiles(&times);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|field| field.parse().expect("a number")).collect())
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1]));
        let median = rows.iter().find(|row| row[1] >= 0.5).expect("a median");
        assert!((4.99..5.02).contains(&median[0]) && (4990.0..5020.0).contains(&median[2]), "{median:?}");
        let last = rows.last().expect("rows");
        assert_eq!((last[1], last[2], last.len()), (1.0, 10_000.0, 3));
        assert!(text.contains("Total count    =        10000]"), "{text}");
    }
}
