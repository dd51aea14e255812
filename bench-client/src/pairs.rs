//! `pairs`: what pairs of figures say of the second of two builds beside the first; `scripts/compare_builds.sh` asks it.
//!
//! It reads lines of two numbers, the figure of the first build and that of the second in one round. The rounds alternate,
//! so that a machine that drifts moves both of a pair, and the ratio hardly: the ratios may be taken for independent.
//!
//! The interval is one of the median, by order statistics, which assumes nothing about the ratios' distribution: of `n`
//! sorted ratios the `k`-th smallest and the `k`-th largest enclose the true median with a probability of
//! `1 - 2 P(B < k)`, where `B` counts heads of `n` fair coins (David and Nagaraja, Order Statistics, 3rd edition, section
//! 7.1). `k` is the largest for which that is at least [`COVERAGE_MIN`], and the real probability is printed.
//!
//! Invariants: a verdict other than "not decided" needs an interval that covers enough, and so [six
//! rounds](COVERAGE_MIN); a number that is not positive is refused.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{Read, Write, stdin};
use std::path::PathBuf;

use crate::args::PairsPlan;
use crate::failure::Failure;
use crate::summary::Spread;

/// The probability with which the interval encloses the median, at least. Six rounds are the fewest that reach it.
const COVERAGE_MIN: f64 = 0.95;

/// The most rounds. More: the probability of one head less than the smallest number that is not 0.
const ROUNDS_MAX: usize = 1000;

/// Reads pairs from standard input and prints what they come to.
pub fn run(plan: &PairsPlan, out: &mut impl Write) -> Result<(), Failure> {
    let mut text = String::new();
    stdin().read_to_string(&mut text).map_err(Failure::local("read standard input"))?;
    let ratios = ratios(&text).map_err(|problem| Failure::Input { path: PathBuf::from("standard input"), problem })?;
    let result = Comparison::of(ratios);
    let verdict = result.verdict(plan.same_within).in_words(plan.less_is_better);
    writeln!(out, "{}, second to first: {result}: {verdict}", plan.name).map_err(Failure::local("print"))
}

/// The second number of each line to the first.
fn ratios(text: &str) -> Result<Vec<f64>, String> {
    let positive = |word: &str| word.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    let ratio = |line: &str| match line.split_whitespace().map(positive).collect::<Vec<_>>()[..] {
        [Some(first), Some(second)] => Ok(second / first),
        _ => Err(format!("'{line}' is not a pair of positive numbers")),
    };
    let ratios: Vec<f64> = text.lines().map(ratio).collect::<Result<_, _>>()?;
    match ratios.len() {
        1..=ROUNDS_MAX => Ok(ratios),
        count => Err(format!("{count} pairs are not between 1 and {ROUNDS_MAX}")),
    }
}

/// What the ratios of all rounds come to.
#[derive(Debug, Clone, PartialEq)]
struct Comparison {
    rounds: usize,
    spread: Spread,
    /// The interval's ends are the ratios of this rank, counted from 1 from either side.
    rank: usize,
    low: f64,
    high: f64,
    coverage: f64,
}

/// The second build beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    More,
    Less,
    NotDecided,
}

impl Comparison {
    /// Of at least one ratio.
    fn of(mut ratios: Vec<f64>) -> Comparison {
        ratios.sort_by(f64::total_cmp);
        let rounds = ratios.len();
        let ranks = (1..=rounds.div_ceil(2)).rev();
        let rank = ranks.clone().find(|rank| coverage(rounds, *rank) >= COVERAGE_MIN).unwrap_or(1);
        let (low, high) = (ratios[rank - 1], ratios[rounds - rank]);
        let spread = Spread::of(ratios).expect("there is at least one ratio");
        Comparison { rounds, spread, rank, low, high, coverage: coverage(rounds, rank) }
    }

    /// What it says, if ratios inside `1 ± same_within` do not matter.
    fn verdict(&self, same_within: f64) -> Verdict {
        if self.coverage < COVERAGE_MIN {
            Verdict::NotDecided
        } else if self.low >= 1.0 - same_within && self.high <= 1.0 + same_within {
            Verdict::Same
        } else if self.low > 1.0 {
            Verdict::More
        } else if self.high < 1.0 {
            Verdict::Less
        } else {
            Verdict::NotDecided
        }
    }
}

impl Verdict {
    fn in_words(self, less_is_better: bool) -> &'static str {
        match (self, less_is_better) {
            (Verdict::Same, _) => "same",
            (Verdict::More, false) => "faster",
            (Verdict::Less, false) => "slower",
            (Verdict::More, true) => "dearer",
            (Verdict::Less, true) => "cheaper",
            (Verdict::NotDecided, _) => "not decided",
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { rounds, spread, rank, low, high, coverage } = self;
        write!(
            formatter,
            "median {:.3}, {low:.3} to {high:.3} (a {:.1} % interval of the median: number {rank} from below and from \
             above of {rounds} rounds; all {:.3} to {:.3})",
            spread.median,
            coverage * 100.0,
            spread.min,
            spread.max
        )
    }
}

/// The probability that the median lies between the ratio of `rank` from below and that from above, of so many rounds.
fn coverage(rounds: usize, rank: usize) -> f64 {
    let mut heads_probability = 0.5_f64.powi(rounds as i32);
    let mut fewer_heads = 0.0;
    for heads in 0..rank {
        fewer_heads += heads_probability;
        heads_probability *= (rounds - heads) as f64 / (heads + 1) as f64;
    }
    1.0 - 2.0 * fewer_heads
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// The promise: the interval is told with its real probability: of ten rounds it is not the smallest and the largest.
    #[test]
    fn the_interval_is_one_of_the_median() {
        assert!((coverage(10, 2) - 1002.0 / 1024.0).abs() < 1e-12 && coverage(10, 3) < COVERAGE_MIN);
        let ten = Comparison::of((1..=10).map(f64::from).collect());
        assert_eq!((ten.rank, ten.low, ten.high), (2, 2.0, 9.0));
        let told = ten.to_string();
        for words in ["median 5.500, 2.000 to 9.000", "a 97.9 % interval", "number 2 from", "all 1.000 to 10.000"] {
            assert!(told.contains(words), "{words:?} is not in {told}");
        }
        assert_eq!((Comparison::of(vec![1.0; 6]).rank, Comparison::of(vec![1.0; 130]).rank), (1, 54));
        let most = Comparison::of(vec![1.0; ROUNDS_MAX]);
        assert!((COVERAGE_MIN..0.96).contains(&most.coverage), "{}", most.coverage);
    }

    /// The promise: it is what it says: of many comparisons of builds that do not differ, so many intervals hold 1.
    #[test]
    fn the_coverage_is_real() {
        let random = &mut Rng::with_seed(3);
        let mut rounds = |count: usize| (0..count).map(|_| 0.7 + 0.6 * random.f64()).collect::<Vec<_>>();
        for count in [6, 10, 25] {
            let results: Vec<Comparison> = (0..20_000).map(|_| Comparison::of(rounds(count))).collect();
            let held = results.iter().filter(|result| result.low <= 1.0 && 1.0 <= result.high).count();
            let (share, told) = (held as f64 / results.len() as f64, results[0].coverage);
            assert!((share - told).abs() < 0.01, "{count} rounds: {share}, told {told}");
        }
    }

    /// The promise: a verdict needs an interval on one side of 1, or one inside of what does not matter, and enough rounds.
    #[test]
    fn verdicts_follow_the_interval() {
        let verdict = |low: f64, high: f64, rounds: usize| {
            let ratio = |round: usize| low + (high - low) * round as f64 / (rounds - 1) as f64;
            Comparison::of((0..rounds).map(ratio).collect()).verdict(0.02)
        };
        assert_eq!(verdict(1.03, 1.2, 6), Verdict::More);
        assert_eq!(verdict(0.8, 0.97, 6), Verdict::Less);
        assert_eq!(verdict(0.985, 1.015, 6), Verdict::Same);
        assert_eq!(verdict(1.001, 1.015, 6), Verdict::Same, "it differs, but by less than matters");
        assert_eq!(verdict(0.9, 1.1, 6), Verdict::NotDecided);
        assert_eq!(verdict(1.03, 1.2, 5), Verdict::NotDecided, "five rounds cover 93.75 %");
        assert_eq!([Verdict::More, Verdict::Less].map(|verdict| verdict.in_words(false)), ["faster", "slower"]);
        assert_eq!([Verdict::More, Verdict::Less].map(|verdict| verdict.in_words(true)), ["dearer", "cheaper"]);
    }

    /// The promise: what are no pairs is refused.
    #[test]
    fn pairs_are_read() {
        assert_eq!(ratios("2 3\n4.0  2e0\n"), Ok(vec![1.5, 0.5]));
        for text in ["", "1", "1 2 3", "1 0", "-1 2", "1 nan", "1 2\n\n"] {
            assert!(ratios(text).is_err(), "{text:?}");
        }
    }
}
