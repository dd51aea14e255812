//! Whether scores are what they should be.
#![forbid(unsafe_code)]

/// A score may be off by this much of the expected one.
const RELATIVE_MAX: f64 = 1e-5;

/// Or by this much, near zero.
const ABSOLUTE_MAX: f64 = 1e-6;

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Agreement {
    /// The largest difference; infinite if one is a number and the other is none, or another infinity.
    pub max_abs_error: f64,
    /// The largest difference in parts of the expected score; where that is below 0.1, in parts of 0.1, so that this is at most
    /// 1e-5 exactly if all scores agree.
    pub max_rel_error: f64,
    /// Scores that do not agree.
    pub disagreements: usize,
    /// Where the relative difference is largest, if there is any.
    pub worst: Option<Place>,
}

/// A score.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// From 0.
    pub row: usize,
    /// From 0.
    pub output: usize,
    pub score: f32,
    pub expected: f64,
}

impl Agreement {
    pub fn agrees(&self) -> bool {
        self.disagreements == 0
    }
}

/// Compares scores with as many expected ones; both have `outputs` columns.
pub(super) fn compare(scores: &[f32], outputs: usize, expected: &[f64]) -> Agreement {
    assert!(scores.len() == expected.len(), "as many as there are");
    let mut agreement = Agreement { max_abs_error: 0.0, max_rel_error: 0.0, disagreements: 0, worst: None };
    for (at, (score, expected)) in scores.iter().zip(expected).enumerate() {
        let absolute = difference(*score, *expected);
        let relative = if absolute == 0.0 { 0.0 } else { absolute / expected.abs().max(ABSOLUTE_MAX / RELATIVE_MAX) };
        // An infinite difference from an infinite score has no part.
        let relative = if relative.is_nan() { f64::INFINITY } else { relative };
        agreement.max_abs_error = agreement.max_abs_error.max(absolute);
        if relative > agreement.max_rel_error {
            agreement.max_rel_error = relative;
            let (row, output) = (at / outputs, at % outputs);
            agreement.worst = Some(Place { row, output, score: *score, expected: *expected });
        }
        agreement.disagreements += usize::from(relative > RELATIVE_MAX);
    }
    agreement
}

fn difference(score: f32, expected: f64) -> f64 {
    if f64::from(score) == expected || (score.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    // What f32 has no number for.
    if score.is_infinite() && score == expected as f32 {
        return 0.0;
    }
    let difference = (f64::from(score) - expected).abs();
    if difference.is_nan() { f64::INFINITY } else { difference }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exactly what is within 1e-5, relative, or 1e-6, absolute, agrees; NaN agrees with NaN, infinities with themselves.
    #[test]
    fn scores_agree_within_the_bounds() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for (score, expected, agrees) in [
            (1.0_f32, 1.0, true),
            (1.0, 1.000009, true),
            (1.0, 1.000011, false),
            (-1000.0, -1000.009, true),
            (-1000.0, -1000.011, false),
            (0.0, 0.9e-6, true),
            (0.0, 1.1e-6, false),
            (0.05, 0.0500009, true),
            (0.0, -0.0, true),
            (f32::NAN, nan, true),
            (f32::NAN, 0.0, false),
            (0.0, nan, false),
            (f32::INFINITY, inf, true),
            (f32::INFINITY, -inf, false),
            (f32::INFINITY, 1e39, true),
            (f32::MAX, inf, false),
            (f32::INFINITY, 1.0, false),
        ] {
            let agreement = compare(&[score], 1, &[expected]);
            assert_eq!(agreement.agrees(), agrees, "{score} where {expected} is expected: {agreement:?}");
            assert_eq!(agreement.max_rel_error <= RELATIVE_MAX, agrees, "{agreement:?}");
        }
    }

    #[test]
    fn the_worst_is_named() {
        let agreement = compare(&[1.0, 2.0, 3.0, 5.0], 2, &[1.0, 2.1, 3.0, 4.0]);
        let worst = Place { row: 1, output: 1, score: 5.0, expected: 4.0 };
        assert_eq!((agreement.max_abs_error, agreement.max_rel_error), (1.0, 0.25));
        assert_eq!((agreement.disagreements, agreement.worst), (2, Some(worst)));
    }
}
