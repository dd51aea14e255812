//! Whether something grows: a leak of memory or descriptors, or answers that come later and later.
//!
//! Single seconds say little, since the faults come and go. So the samples are cut into windows; of memory and descriptors
//! each window gives its smallest value, the level to which everything comes back, and of the latency its median p99. A
//! straight line is fitted to the windows by least squares. It is a trend if it rises by more than what is harmless over
//! the whole soak, and by more than three standard errors of the slope, so that chance is an unlikely cause.

use super::samples::Sample;

/// How many windows. More: a window's smallest value is still disturbed by the faults. Fewer: too few to fit.
const WINDOWS: usize = 20;

/// Standard errors by which a slope must differ from none.
const STANDARD_ERRORS: f64 = 3.0;

/// What is fitted: its name, its unit, its value for a window, and what rise over the whole soak is harmless.
struct Series {
    name: &'static str,
    of_window: fn(&[Sample]) -> f64,
    harmless: fn(mean: f64) -> f64,
}

const SERIES: [Series; 3] = [
    Series {
        name: "memory, KiB",
        of_window: |window| smallest(window, |sample| sample.resident_bytes as f64 / 1024.0),
        harmless: |mean| (0.1 * mean).max(2048.0),
    },
    Series {
        name: "descriptors",
        of_window: |window| smallest(window, |sample| sample.descriptors as f64),
        harmless: |_| 8.0,
    },
    Series {
        name: "p99, µs",
        of_window: |window| median(window, |sample| sample.latency_ns_p99 as f64 / 1000.0),
        harmless: |mean| (0.5 * mean).max(1000.0),
    },
];

/// A line through points at 0, 1, 2, …
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    slope: f64,
    standard_error: f64,
    mean: f64,
}

/// Fits all series, prints them, and returns those that rise.
pub fn trends(samples: &[Sample]) -> Vec<String> {
    if samples.len() < 2 * WINDOWS {
        println!(
            "soak: too short for a trend: {} samples after the warm-up, {} are needed",
            samples.len(),
            2 * WINDOWS
        );
        return Vec::new();
    }
    let mut problems = Vec::new();
    for series in SERIES {
        let windows: Vec<f64> = samples.chunks(samples.len().div_ceil(WINDOWS)).map(series.of_window).collect();
        let line = fit(&windows);
        let rise = line.slope * (windows.len() - 1) as f64;
        let verdict = if rises(line, windows.len(), (series.harmless)(line.mean)) { "a TREND" } else { "no trend" };
        println!(
            "soak: {}: mean {:.0}, rises by {rise:.0} over the soak (standard error {:.0}): {verdict}",
            series.name,
            line.mean,
            line.standard_error * (windows.len() - 1) as f64
        );
        if verdict == "a TREND" {
            problems.push(format!("{} rises by {rise:.0} over the soak", series.name));
        }
    }
    problems
}

fn rises(line: Line, windows: usize, harmless: f64) -> bool {
    line.slope * (windows - 1) as f64 > harmless && line.slope > STANDARD_ERRORS * line.standard_error
}

/// Least squares, with the standard error of the slope.
fn fit(values: &[f64]) -> Line {
    let count = values.len() as f64;
    let (mean_x, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let points = || values.iter().enumerate().map(|(x, y)| (x as f64 - mean_x, y - mean));
    let squares: f64 = points().map(|(x, _)| x * x).sum();
    let slope = points().map(|(x, y)| x * y).sum::<f64>() / squares;
    let residuals: f64 = points().map(|(x, y)| (y - slope * x).powi(2)).sum();
    Line { slope, standard_error: (residuals / (count - 2.0) / squares).sqrt(), mean }
}

fn smallest(window: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    window.iter().map(value).fold(f64::INFINITY, f64::min)
}

fn median(window: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = window.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
