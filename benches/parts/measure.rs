//! How long every bench measures, and how: short, in equal samples, with nothing but criterion's text as a result.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, Criterion, SamplingMode, Throughput};

/// Criterion as the command line wants it, or else with so many samples in so much time for each bench: all of a file are
/// to end within a minute on two CPUs.
pub fn criterion(samples: usize, time: Duration) -> Criterion {
    Criterion::default()
        .without_plots()
        .sample_size(samples)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(time)
        .nresamples(10_000)
        .configure_from_args()
}

/// A group whose benches count in items of one kind, named by what one of them is measured for.
pub fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(1));
    group
}

/// Measures the time for one item. `round` is told how many are wanted, does at least one, and says how many it did and
/// how long that took; what it does while its clock stands still is not measured.
pub fn iter_items(bencher: &mut Bencher<'_>, mut round: impl FnMut(u64) -> (u64, Duration)) {
    bencher.iter_custom(|wanted| {
        let (mut done, mut elapsed) = (0, Duration::ZERO);
        while done < wanted {
            let (items, took) = round(wanted - done);
            done += items;
            elapsed += took;
        }
        elapsed.mul_f64(wanted as f64 / done as f64)
    });
}
