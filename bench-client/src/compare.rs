//! `compare`: what changed between two runs, beside how much they vary by themselves.
//!
//! The noise band of a figure is the larger spread (maximum less minimum) of the two runs' repeats, but at least
//! `--noise` of the median. A change of the medians beyond the band counts, if the repeats do not overlap either. With
//! one repeat a run's own spread is unknown, which is said.
//!
//! Invariants: a figure that got worse beyond the band is a regression, and exit status 4; two runs of different plans
//! are compared, with a warning; runs that were not valid are not compared.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::args::ComparePlan;
use crate::failure::Failure;
use crate::limit::Metric;
use crate::output::text::figure;
use crate::summary::{Report, SCHEMA, SCHEMA_VERSION, Spread};

/// The figures that are shown, in order.
const SHOWN: [&str; 12] = [
    "rate",
    "response.p50",
    "response.p90",
    "response.p99",
    "response.p99.9",
    "response.max",
    "service.p50",
    "service.p99",
    "service.p99.9",
    "lag.p99",
    "server-cpu",
    "client-cpu",
];

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Noise,
    Better,
    Worse,
}

/// Compares the two files of `plan`.
pub fn run(plan: &ComparePlan, out: &mut impl Write) -> Result<(), Failure> {
    let (before, after) = (read(&plan.before)?, read(&plan.after)?);
    let regressions = print(plan, &before, &after, out).map_err(Failure::local("print"))?;
    if regressions.is_empty() {
        Ok(())
    } else {
        Err(Failure::LimitBroken(format!("regression: {}", regressions.join(", "))))
    }
}

fn print(plan: &ComparePlan, before: &Report, after: &Report, out: &mut impl Write) -> io::Result<Vec<String>> {
    writeln!(out, "A: {} ({} repeats)", plan.before.display(), before.repeats.len())?;
    writeln!(out, "B: {} ({} repeats)", plan.after.display(), after.repeats.len())?;
    if before.plan != after.plan {
        writeln!(out, "warning: the two runs had different plans")?;
    }
    if (&before.environment.kernel, &before.environment.cpu_model)
        != (&after.environment.kernel, &after.environment.cpu_model)
    {
        writeln!(out, "warning: the two runs were on different machines or kernels")?;
    }
    if before.repeats.len().min(after.repeats.len()) < 2 {
        writeln!(out, "warning: without repeats the noise is a guess (see run --repeat)")?;
    }
    writeln!(out, "{:<16} {:>12} {:>12} {:>8} {:>8}  change", "median of", "A", "B", "delta", "noise")?;
    let mut regressions = Vec::new();
    for name in SHOWN {
        let metric: Metric = name.parse().expect("a metric of ours");
        let of = |report: &Report| Spread::of(report.repeats.iter().filter_map(|repeat| metric.value(repeat)));
        let (Some(a), Some(b)) = (of(before), of(after)) else { continue };
        let (change, band) = judge(metric, a, b, plan.noise);
        let share = |part: f64| if a.median == 0.0 { 0.0 } else { 100.0 * part / a.median };
        let fails = change == Change::Worse && plan.metrics.contains(&metric);
        writeln!(
            out,
            "{name:<16} {:>12} {:>12} {:>+7.1}% {:>7.1}%  {}",
            figure(metric, a.median),
            figure(metric, b.median),
            share(b.median - a.median),
            share(band),
            match (change, fails) {
                (Change::Noise, _) => "within noise",
                (Change::Better, _) => "better",
                (Change::Worse, true) => "WORSE",
                (Change::Worse, false) => "worse",
            }
        )?;
        if fails {
            regressions.push(format!("{name} {:+.1} %", share(b.median - a.median)));
        }
    }
    Ok(regressions)
}

/// What the change from `a` to `b` is, and the noise band.
fn judge(metric: Metric, a: Spread, b: Spread, noise: f64) -> (Change, f64) {
    let band = (a.max - a.min).max(b.max - b.min).max(noise * a.median.max(b.median));
    let more_is_better = metric == Metric::Rate;
    let change = if (b.median - a.median).abs() <= band || (a.min <= b.max && b.min <= a.max) {
        Change::Noise
    } else if (b.median > a.median) == more_is_better {
        Change::Better
    } else {
        Change::Worse
    };
    (change, band)
}

fn read(path: &Path) -> Result<Report, Failure> {
    let wrong = |problem: String| Failure::Input { path: path.to_owned(), problem };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let report: Report = serde_json::from_str(&text).map_err(|error| wrong(format!("not a run's JSON: {error}")))?;
    if report.schema != SCHEMA || report.schema_version != SCHEMA_VERSION {
        return Err(wrong(format!(
            "{} version {} is not {SCHEMA} version {SCHEMA_VERSION}",
            report.schema, report.schema_version
        )));
    }
    if report.repeats.is_empty() {
        return Err(wrong("it has no repeats".to_owned()));
    }
    if report.repeats.iter().any(|repeat| !repeat.valid || repeat.lost > 0) {
        return Err(wrong("it has a run that was not valid, or that lost requests: nothing to compare".to_owned()));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(min: f64, median: f64, max: f64) -> Spread {
        Spread { min, median, max }
    }

    /// The promise: a change counts only beyond what the repeats and the floor allow, and in the right direction.
    #[test]
    fn changes_count_beyond_the_noise() {
        let p99: Metric = "p99".parse().expect("a metric");
        let verdict = |metric, a, b| judge(metric, a, b, 0.05).0;
        let a = spread(95.0, 100.0, 105.0);
        assert_eq!(verdict(p99, a, spread(104.0, 109.0, 112.0)), Change::Noise);
        assert_eq!(verdict(p99, a, spread(118.0, 120.0, 125.0)), Change::Worse);
        assert_eq!(verdict(p99, a, spread(78.0, 80.0, 82.0)), Change::Better);
        assert_eq!(verdict(Metric::Rate, a, spread(78.0, 80.0, 82.0)), Change::Worse);
        assert_eq!(verdict(p99, spread(100.0, 100.0, 100.0), spread(104.0, 104.0, 104.0)), Change::Noise, "the floor");
        assert_eq!(
            verdict(p99, spread(90.0, 100.0, 160.0), spread(130.0, 150.0, 170.0)),
            Change::Noise,
            "wide repeats"
        );
    }
}
