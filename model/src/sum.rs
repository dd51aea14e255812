//! The default model: it shows the pipe, and anyone can check its scores.

use crate::rows::{F32_BYTES, Rows};
use crate::{Model, PredictError};

/// The default model: the sum of a row's features, added from left to right.
///
/// The order is fixed so that the same row always gives the same bits.
#[derive(Debug, Clone)]
pub struct Sum {
    name: String,
    feature_dim: usize,
}

impl Sum {
    /// Sums rows of `feature_dim` features (>= 1).
    pub fn new(feature_dim: usize) -> Sum {
        assert!(feature_dim >= 1, "a row has at least one feature");
        Sum { name: "sum".to_owned(), feature_dim }
    }

    /// The same by another name.
    pub fn named(self, name: &str) -> Sum {
        Sum { name: name.to_owned(), ..self }
    }
}

impl Model for Sum {
    fn name(&self) -> &str {
        &self.name
    }

    fn feature_dim(&self) -> usize {
        self.feature_dim
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        let mut places = scores.iter_mut();
        rows.for_each_span(|span| {
            // The usual width is known to the compiler, which unrolls it.
            let (wide, rest) = span.as_chunks::<{ 16 * F32_BYTES }>();
            if self.feature_dim == 16 && rest.is_empty() {
                wide.iter().zip(&mut places).for_each(|(row, place)| *place = sum(row));
            } else {
                let rows = span.chunks_exact(self.feature_dim * F32_BYTES);
                rows.zip(&mut places).for_each(|(row, place)| *place = sum(row));
            }
        });
        Ok(())
    }
}

/// Adds the features of one row from left to right.
#[inline(always)]
fn sum(row: &[u8]) -> f32 {
    let (features, _) = row.as_chunks::<F32_BYTES>();
    features.iter().map(|feature| f32::from_le_bytes(*feature)).fold(-0.0, |sum, feature| sum + feature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowSource;

    fn scores(feature_dim: usize, rows: &[f32]) -> Vec<f32> {
        // One byte off, so that nothing is aligned by accident.
        let bytes: Vec<u8> = [0].into_iter().chain(rows.iter().flat_map(|feature| feature.to_le_bytes())).collect();
        let mut scores = vec![f32::NAN; rows.len() / feature_dim];
        let source = Unaligned(bytes);
        assert!(Sum::new(feature_dim).predict(&Rows::new(&source, scores.len(), feature_dim), &mut scores).is_ok());
        scores
    }

    struct Unaligned(Vec<u8>);

    impl RowSource for Unaligned {
        fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
            visitor(&[&self.0[1..]]);
        }
    }

    #[test]
    fn features_are_added_from_left_to_right() {
        let row: Vec<f32> = (0..16).map(|index| 1.0e7 / (index as f32 + 0.1)).collect();
        let expected = row.iter().fold(0.0, |sum, feature| sum + feature);
        assert_eq!(scores(16, &row), [expected]);
        assert_eq!(scores(3, &[1.0e8, 1.0, -1.0e8, 1.0, 2.0, 3.0]), [0.0, 6.0]);
    }

    #[test]
    fn special_values_stay_in_their_row() {
        let mut rows = vec![1.0; 5 * 16];
        rows[3] = f32::NAN;
        rows[16] = f32::INFINITY;
        rows[32..48].fill(-0.0);
        rows[48..64].fill(f32::from_bits(1));
        let scores = scores(16, &rows);
        assert!(scores[0].is_nan() && scores[1].is_infinite());
        assert_eq!(scores[2].to_bits(), (-0.0f32).to_bits());
        assert_eq!(scores[3].to_bits(), 16);
        assert_eq!(scores[4], 16.0);
    }
}
