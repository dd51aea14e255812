//! `compare`: what changed between two runs, beside how much they vary by themselves.
//!
//! A figure has changed if two things hold. First, all repeats of one run lie on one side of all of the other's, and the
//! chance of that between runs that do not differ is small. It is 1 in `C(a + b, a)` for one side (the rank-sum test at
//! its extreme: Mann and Whitney, Annals of Mathematical Statistics 18, 1947), and all figures that may fail the
//! comparison share [`FALSE_ALARMS_MAX`] (Bonferroni's bound; Dunn, Journal of the American Statistical Association 56,
//! 1961). For the seven of the default that takes five repeats each; with fewer nothing is decided, and that is said.
//!
//! That test takes repeats for independent, and they are not: a machine drifts, and the runs were taken one after the
//! other. So, second, the change is beyond the noise band: [`DRIFT_FACTOR`] times the larger spread (maximum less
//! minimum) of the two runs' repeats, and at least `--noise` of the median. The tests below simulate runs of one server
//! that follow each other, with and without drift: at most 1 in 20 is called worse by any figure, and 20 % slower is
//! found where the noise is 2 %. What no band can tell from a change of the server is a machine that became another one
//! between the runs; and a change that is smaller than the band is found by interleaved rounds
//! (`scripts/compare_builds.sh`).
//!
//! Invariants: a figure that got worse is a regression, and exit status 4; two runs of different plans are compared,
//! with a warning; repeats that were not valid are left out, and said so; a run that lost requests or connections, or whose
//! server's model failed, is not compared, nor is a change laid to the server if others used different shares of the CPUs beside the runs.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::args::ComparePlan;
use crate::failure::Failure;
use crate::limit::Metric;
use crate::output::text::figure;
use crate::summary::{OTHERS_SHARE_QUIET, Repeat, Report, SCHEMA, SCHEMA_VERSION, Spread, others_in_words};

/// The figures that are shown, in order.
const SHOWN: [&str; 13] = [
    "rate",
    "shed",
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

/// How often runs that do not differ may be told apart, by whichever figure. Larger: alarms that nobody believes.
/// Smaller: more repeats are needed, six for 1 in 100.
const FALSE_ALARMS_MAX: f64 = 0.05;

/// The noise band in spreads of a run's repeats. A drift that goes on at one pace moves the median from run to run by one
/// spread and more, and noise may hide it inside of both. Larger: changes must be larger to be found. Smaller: drift is
/// called a change.
const DRIFT_FACTOR: f64 = 2.5;

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
    let counts = [before.repeats.len(), after.repeats.len()];
    let judged = plan.metrics.iter().filter(|metric| [&before, &after].iter().all(|report| has(report, **metric)));
    let chance_max = FALSE_ALARMS_MAX / judged.count().max(1) as f64;
    let too_few = (chance_of_separation(counts) > chance_max).then(|| too_few(counts, chance_max));
    let other_work = other_work(others_shares(&before), others_shares(&after));
    let is_enough = too_few.is_none();
    let regressions =
        print(plan, &before, &after, is_enough, other_work.is_none(), out).map_err(Failure::local("print"))?;
    match (too_few, other_work) {
        (Some(problem), _) => Err(Failure::Input { path: plan.after.clone(), problem }),
        _ if regressions.is_empty() => Ok(()),
        (None, Some(problem)) => {
            Err(Failure::Input { path: plan.after.clone(), problem: format!("{}: {problem}", regressions.join(", ")) })
        }
        (None, None) => Err(Failure::LimitBroken(format!("regression: {}", regressions.join(", ")))),
    }
}

fn has(report: &Report, metric: Metric) -> bool {
    report.repeats.iter().any(|repeat| metric.value(repeat).is_some())
}

fn too_few([before, after]: [usize; 2], chance_max: f64) -> String {
    let needed = (1..).find(|count| chance_of_separation([*count; 2]) <= chance_max).unwrap_or(usize::MAX);
    format!(
        "{before} and {after} valid repeats are too few to tell a change from noise; \
         it takes {needed} each (run --repeat {needed})"
    )
}

fn others_shares(report: &Report) -> Option<Spread> {
    Spread::of(report.repeats.iter().filter_map(|repeat| repeat.others_cpu_share))
}

/// Why runs are not compared beside which others took so much of the CPUs, if that differs by more than is quiet.
fn other_work(before: Option<Spread>, after: Option<Spread>) -> Option<String> {
    let (before, after) = (before?.median, after?.median);
    let differs = (after - before).abs() > OTHERS_SHARE_QUIET;
    let told = || {
        let [before, after] = [before, after].map(|share| share * 100.0);
        format!(
            "other work took {before:.0} % of the CPUs beside one run and {after:.0} % beside the other, so a change may \
             not be the server's; run both beside the same, or on a quiet machine"
        )
    };
    differs.then(told)
}

/// The chance that all repeats of the second run lie above all of the first, if the runs do not differ: one order of
/// `C(a + b, a)` that are as likely.
fn chance_of_separation([before, after]: [usize; 2]) -> f64 {
    (1..=before).map(|index| index as f64 / (after + index) as f64).product()
}

fn print(
    plan: &ComparePlan,
    before: &Report,
    after: &Report,
    is_enough: bool,
    is_same_company: bool,
    out: &mut impl Write,
) -> io::Result<Vec<String>> {
    print_run("A", &plan.before, before, out)?;
    print_run("B", &plan.after, after, out)?;
    if before.plan != after.plan {
        writeln!(out, "warning: the two runs had different plans")?;
    }
    if (&before.environment.kernel, &before.environment.cpu_model)
        != (&after.environment.kernel, &after.environment.cpu_model)
    {
        writeln!(out, "warning: the two runs were on different machines or kernels")?;
    }
    writeln!(out, "{:<16} {:>12} {:>12} {:>8} {:>8}  change", "median of", "A", "B", "delta", "noise")?;
    let mut regressions = Vec::new();
    for name in SHOWN {
        let metric: Metric = name.parse().expect("a metric of ours");
        let of = |report: &Report| Spread::of(report.repeats.iter().filter_map(|repeat| metric.value(repeat)));
        let (Some(a), Some(b)) = (of(before), of(after)) else { continue };
        let (change, band) = judge(metric, a, b, plan.noise);
        // Of nothing it is 0, or infinitely more.
        let share = |part: f64| if part == 0.0 { 0.0 } else { 100.0 * part / a.median };
        let fails = change == Change::Worse && plan.metrics.contains(&metric);
        writeln!(
            out,
            "{name:<16} {:>12} {:>12} {:>+7.1}% {:>7.1}%  {}",
            figure(metric, a.median),
            figure(metric, b.median),
            share(b.median - a.median),
            share(band),
            match (change, fails) {
                _ if !is_enough => "not decided",
                (Change::Noise, _) => "within noise",
                _ if !is_same_company => "not decided",
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

fn print_run(name: &str, path: &Path, report: &Report, out: &mut impl Write) -> io::Result<()> {
    let shares = report.repeats.iter().filter_map(|repeat| repeat.others_cpu_share);
    let counted = format!("{} valid repeats, {} that were not", report.repeats.len(), report.retaken.len());
    writeln!(out, "{name}: {} ({counted}; {})", path.display(), others_in_words(shares))
}

/// What the change from `a` to `b` is, and the noise band. Beyond the band the repeats lie apart, since it is wider than
/// both spreads.
fn judge(metric: Metric, a: Spread, b: Spread, noise: f64) -> (Change, f64) {
    let spread = (a.max - a.min).max(b.max - b.min);
    let band = (DRIFT_FACTOR * spread).max(noise * a.median.max(b.median));
    let more_is_better = metric == Metric::Rate;
    let change = if (b.median - a.median).abs() <= band {
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
    let mut report: Report =
        serde_json::from_str(&text).map_err(|error| wrong(format!("not a run's JSON: {error}")))?;
    if report.schema != SCHEMA || report.schema_version != SCHEMA_VERSION {
        return Err(wrong(format!(
            "{} version {} is not {SCHEMA} version {SCHEMA_VERSION}",
            report.schema, report.schema_version
        )));
    }
    if report.repeats.iter().any(|repeat| repeat.lost > 0) {
        return Err(wrong("it has a run that lost requests: nothing to compare".to_owned()));
    }
    if report.repeats.iter().any(|repeat| repeat.errors.model_failed > 0) {
        return Err(wrong("it has a run in which the model failed on requests: nothing to compare".to_owned()));
    }
    let lost_connections = |repeat: &Repeat| repeat.reconnects.is_some_and(|reconnects| reconnects.closed > 0);
    if report.repeats.iter().any(|repeat| repeat.cut_off.is_some() || lost_connections(repeat)) {
        return Err(wrong("it has a run in which the server ended connections: nothing to compare".to_owned()));
    }
    let (valid, invalid): (Vec<_>, Vec<_>) = report.repeats.into_iter().partition(|repeat| repeat.valid);
    report.repeats = valid;
    report.retaken.extend(invalid);
    if report.repeats.is_empty() {
        return Err(wrong("it has no run that was valid: nothing to compare".to_owned()));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn spread(min: f64, median: f64, max: f64) -> Spread {
        Spread { min, median, max }
    }

    fn p99() -> Metric {
        "p99".parse().expect("a metric")
    }

    /// The promise: a change counts only beyond what the repeats and the floor allow, and in the right direction.
    #[test]
    fn changes_count_beyond_the_noise() {
        let verdict = |metric, a, b| judge(metric, a, b, 0.05).0;
        let a = spread(95.0, 100.0, 105.0);
        assert_eq!(verdict(p99(), a, spread(114.0, 124.0, 124.0)), Change::Noise);
        assert_eq!(verdict(p99(), a, spread(120.0, 126.0, 128.0)), Change::Worse);
        assert_eq!(verdict(p99(), a, spread(70.0, 74.0, 75.0)), Change::Better);
        assert_eq!(verdict(Metric::Rate, a, spread(70.0, 74.0, 75.0)), Change::Worse);
        assert_eq!(
            verdict(p99(), spread(100.0, 100.0, 100.0), spread(104.0, 104.0, 104.0)),
            Change::Noise,
            "the floor"
        );
        assert_eq!(
            verdict(p99(), spread(90.0, 100.0, 160.0), spread(130.0, 220.0, 230.0)),
            Change::Noise,
            "wide repeats"
        );
    }

    /// The promise: the chance is that of the one order among all, and seven figures take five repeats.
    #[test]
    fn few_repeats_decide_nothing() {
        assert!((chance_of_separation([1, 1]) - 1.0 / 2.0).abs() < 1e-12);
        assert!((chance_of_separation([5, 5]) - 1.0 / 252.0).abs() < 1e-12);
        assert!((chance_of_separation([2, 3]) - chance_of_separation([3, 2])).abs() < 1e-12);
        assert!(too_few([4, 9], FALSE_ALARMS_MAX / 7.0).contains("4 and 9 valid repeats are too few"));
        assert!(too_few([4, 4], FALSE_ALARMS_MAX / 7.0).contains("it takes 5 each (run --repeat 5)"));
    }

    /// The promise: what others took from one run and not from the other is not laid to the server.
    #[test]
    fn changes_in_different_company_are_not_the_servers() {
        let share = |median| Some(spread(0.0, median, 1.0));
        let told = other_work(share(0.48), share(0.66)).expect("they differ");
        assert!(told.contains("48 % of the CPUs beside one run and 66 % beside the other"), "{told}");
        assert!(other_work(share(0.66), share(0.48)).is_some());
        assert_eq!((other_work(share(0.5), share(0.54)), other_work(share(0.0), None)), (None, None));
    }

    /// A machine whose speed changes from one repeat to the next, as a factor of every time.
    #[derive(Debug, Clone, Copy)]
    enum Drift {
        None,
        /// The same part slower with every repeat.
        Steady(f64),
        /// Faster or slower by about such a part with every repeat, for good.
        Wandering(f64),
        /// The same, but it comes back by a tenth of the way each time.
        Returning(f64),
    }

    /// About normal, of deviation 1: the sum of twelve.
    fn normal(random: &mut Rng) -> f64 {
        (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
    }

    /// `count` repeats of `FIGURES` figures that are 1 but for the drift, and for noise of their own of deviation `noise`.
    fn repeats(count: usize, drift: Drift, noise: f64, random: &mut Rng) -> Vec<[f64; FIGURES]> {
        let mut level: f64 = 0.0;
        let mut next = || {
            level = match drift {
                Drift::None => 0.0,
                Drift::Steady(part) => level + part,
                Drift::Wandering(part) => level + part * normal(random),
                Drift::Returning(part) => 0.9 * level + part * normal(random),
            };
            [(); FIGURES].map(|()| (level + noise * normal(random)).exp())
        };
        (0..count).map(|_| next()).collect()
    }

    const FIGURES: usize = 6;
    const REPEATS: usize = 5;

    /// Whether two runs of five repeats, with the time of one between them, are told to be worse by any figure; the second
    /// is `slower` times as slow.
    fn is_alarm(drift: Drift, noise: f64, slower: f64, random: &mut Rng) -> bool {
        const PAUSE: usize = 1;
        let all = repeats(2 * REPEATS + PAUSE, drift, noise, random);
        (0..FIGURES).any(|figure| {
            let of = |part: &[[f64; FIGURES]], factor: f64| Spread::of(part.iter().map(|all| all[figure] * factor));
            let (Some(a), Some(b)) = (of(&all[..REPEATS], 1.0), of(&all[REPEATS + PAUSE..], slower)) else {
                panic!("there are repeats")
            };
            judge(p99(), a, b, 0.05).0 == Change::Worse
        })
    }

    /// The promise: of 20 comparisons of a server with itself at most one is wrong, by any of six figures, whatever the
    /// noise and however the machine drifts; and a server that is 20 % slower is still found.
    #[test]
    fn a_server_is_seldom_worse_than_itself() {
        const PAIRS: usize = 2000;
        let random = &mut Rng::with_seed(20);
        let drifts = [
            Drift::None,
            Drift::Steady(0.01),
            Drift::Steady(0.05),
            Drift::Wandering(0.02),
            Drift::Wandering(0.05),
            Drift::Returning(0.05),
        ];
        for drift in drifts {
            for noise in [0.01, 0.03, 0.1] {
                let alarms = (0..PAIRS).filter(|_| is_alarm(drift, noise, 1.0, random)).count();
                assert!(alarms * 20 <= PAIRS, "{drift:?}, noise {noise}: {alarms} of {PAIRS}");
            }
        }
        let found = (0..PAIRS).filter(|_| is_alarm(Drift::Wandering(0.01), 0.02, 1.2, random)).count();
        assert!(found * 20 >= 19 * PAIRS, "{found} of {PAIRS}");
    }
}
