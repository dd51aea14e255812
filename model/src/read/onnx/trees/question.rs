//! What a node asks, as a test of the form.

use crate::form::{Interval, Test, at_most_f64, less_than};

/// How a node compares a feature with its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
}

impl Mode {
    /// Of the name in `nodes_modes`.
    pub fn of_name(name: &[u8]) -> Option<Mode> {
        Some(match name {
            b"BRANCH_LEQ" => Mode::LessOrEqual,
            b"BRANCH_LT" => Mode::Less,
            b"BRANCH_GTE" => Mode::GreaterOrEqual,
            b"BRANCH_GT" => Mode::Greater,
            b"BRANCH_EQ" => Mode::Equal,
            b"BRANCH_NEQ" => Mode::NotEqual,
            _ => return None,
        })
    }
}

/// The test of a comparison with a threshold that is not NaN, and whether those that pass it are those for which the
/// comparison does not hold.
pub fn question(mode: Mode, threshold: f64) -> (Test, bool) {
    match mode {
        Mode::LessOrEqual => (at_most(threshold), false),
        Mode::Greater => (at_most(threshold), true),
        Mode::Less => (below(threshold), false),
        Mode::GreaterOrEqual => (below(threshold), true),
        Mode::Equal => (among(&[threshold]), false),
        Mode::NotEqual => (among(&[threshold]), true),
    }
}

fn at_most(threshold: f64) -> Test {
    Test::AtMost { threshold: at_most_f64(threshold), zero: None }
}

fn below(threshold: f64) -> Test {
    let at_most = at_most_f64(threshold);
    if f64::from(at_most) == threshold { less_than(at_most) } else { Test::AtMost { threshold: at_most, zero: None } }
}

/// Whether a value is equal to one of some numbers; what is no f32 is equal to none.
pub fn among(numbers: &[f64]) -> Test {
    let floats = numbers.iter().filter(|number| f64::from(**number as f32) == **number);
    let points = floats.map(|number| Interval { first: *number as f32, last: *number as f32 });
    Test::Within(Interval::union(points.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(mode: Mode, threshold: f64, x: f32) -> bool {
        let (test, swapped) = question(mode, threshold);
        let passes = match test {
            Test::AtMost { threshold, .. } => x <= threshold,
            Test::Within(intervals) => intervals.iter().any(|interval| interval.first <= x && x <= interval.last),
        };
        passes != swapped
    }

    #[test]
    fn a_test_in_f32_decides_as_the_comparison_in_f64() {
        let thresholds = [0.5, 0.1, -0.1, 0.0, -0.0, 1e300, -1e300, 1e-60, -1e-60, f64::INFINITY, f64::NEG_INFINITY];
        for threshold in thresholds.into_iter().chain([f64::from(f32::MAX), f64::from(f32::MIN), 16_777_217.0]) {
            let near = threshold as f32;
            let around = [near, near.next_up(), near.next_down(), 0.0, -0.0, f32::MAX, f32::MIN, f32::INFINITY];
            for x in around.into_iter().chain([f32::NEG_INFINITY, f32::MIN_POSITIVE, 1e-45]) {
                let wide = f64::from(x);
                for (mode, expected) in [
                    (Mode::LessOrEqual, wide <= threshold),
                    (Mode::Less, wide < threshold),
                    (Mode::GreaterOrEqual, wide >= threshold),
                    (Mode::Greater, wide > threshold),
                    (Mode::Equal, wide == threshold),
                    (Mode::NotEqual, wide != threshold),
                ] {
                    assert_eq!(holds(mode, threshold, x), expected, "{x} {mode:?} {threshold}");
                }
            }
        }
    }
}
