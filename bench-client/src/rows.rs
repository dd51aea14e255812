//! Feature vectors and what the sum model scores them: the truth that every answer is checked against.
//!
//! It knows no socket and no frame. A row is one vector; rows lie one after the other in a `[f32]`.
//!
//! Invariants: a score is the sum of the row's features from left to right, in f32, with no other order and no wider
//! intermediate; random rows are finite, so their scores have one bit pattern each.
#![forbid(unsafe_code)]

use disrust_protocol::RequestLayout;
use fastrand::Rng;

/// The sum model's score of one row.
pub fn score(row: &[f32]) -> f32 {
    row.iter().copied().reduce(|sum, feature| sum + feature).unwrap_or(0.0)
}

/// The sum model's scores of all rows.
pub fn scores(layout: RequestLayout, rows: &[f32]) -> Vec<f32> {
    rows.chunks_exact(layout.feature_dim()).map(score).collect()
}

/// Whether `received` is the score `expected`: the same bits. NaNs are all alike, as IEEE 754 leaves open which of its
/// NaNs a sum gives.
pub fn same_score(expected: f32, received: f32) -> bool {
    expected.to_bits() == received.to_bits() || (expected.is_nan() && received.is_nan())
}

/// `count` rows of features in -100 to 100: almost any other order of adding them gives other bits.
pub fn random_rows(layout: RequestLayout, count: usize, random: &mut Rng) -> Vec<f32> {
    (0..count * layout.feature_dim()).map(|_| (random.f32() - 0.5) * 200.0).collect()
}

/// Rows on the edges of f32: NaN, infinities, overflow, subnormals, a signed zero, and a sum that only comes right from
/// left to right.
pub fn special_rows(layout: RequestLayout) -> Vec<f32> {
    const SUBNORMAL: f32 = f32::from_bits(1);
    const CYCLES: [&[f32]; 7] = [
        &[f32::NAN, 1.0],
        &[1.0, f32::INFINITY],
        &[f32::NEG_INFINITY, 2.0],
        &[f32::MAX, f32::MAX],
        &[SUBNORMAL],
        &[0.0, -0.0],
        &[1e8, 1.0, -1e8],
    ];
    CYCLES.iter().flat_map(|cycle| cycle.iter().copied().cycle().take(layout.feature_dim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: the order of adding is left to right, which these features tell from every other.
    #[test]
    fn a_score_is_summed_from_left_to_right() {
        assert_eq!(score(&[1e8, 1.0, -1e8, 1.0]), 1.0);
        assert_eq!(score(&[1e8, -1e8, 1.0, 1.0]), 2.0);
        assert_eq!(scores(RequestLayout::new(2), &[1.0, 2.0, 3.0, 4.0]), [3.0, 7.0]);
    }

    /// The promise: one wrong bit is wrong, also in a zero, and only NaNs are all alike.
    #[test]
    fn scores_are_the_same_by_their_bits() {
        assert!(same_score(1.5, 1.5));
        assert!(!same_score(1.5, f32::from_bits(1.5_f32.to_bits() + 1)));
        assert!(!same_score(0.0, -0.0));
        assert!(same_score(f32::NAN, -f32::NAN));
        assert!(!same_score(f32::NAN, 1.0));
    }

    /// The promise: a seed gives the same rows again, and reversing a row would mostly be noticed.
    #[test]
    fn random_rows_follow_from_the_seed_and_show_their_order() {
        let layout = RequestLayout::new(16);
        let rows = random_rows(layout, 100, &mut Rng::with_seed(3));
        assert_eq!(rows, random_rows(layout, 100, &mut Rng::with_seed(3)));
        let reversed = |row: &[f32]| score(&row.iter().rev().copied().collect::<Vec<_>>());
        let noticed = rows.chunks_exact(16).filter(|row| !same_score(score(row), reversed(row))).count();
        assert!(noticed > 50, "{noticed} of 100");
    }
}
