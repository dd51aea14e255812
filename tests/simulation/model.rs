//! The model of the simulated server: the sum, except that it fails on requests that are marked.

use disrust_model::{Model, PredictError, Rows, Sum};
use disrust_protocol::F32_BYTES;

use super::client::{MODEL_ERRS, MODEL_PANICS};

/// What a panic of [`FragileSum`] says.
pub const PANIC_MESSAGE: &str = "the simulated model panics as a test";

/// The sum of a vector's features; fails, after half of its work, on vectors that begin with a mark.
pub struct FragileSum(Sum);

impl FragileSum {
    pub fn new(feature_dim: usize) -> FragileSum {
        FragileSum(Sum::new(feature_dim))
    }
}

impl Model for FragileSum {
    fn name(&self) -> &str {
        "fragile sum"
    }

    fn feature_dim(&self) -> usize {
        self.0.feature_dim()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        let row_bytes = self.feature_dim() * F32_BYTES;
        let (mut errs, mut panics) = (false, false);
        rows.for_each_span(|request| {
            for row in request.chunks_exact(row_bytes) {
                let first = row.first_chunk().map(|feature| f32::from_le_bytes(*feature));
                errs |= first == Some(MODEL_ERRS);
                panics |= first == Some(MODEL_PANICS);
            }
        });
        if errs || panics {
            scores.iter_mut().step_by(2).for_each(|score| *score = f32::NAN);
        }
        assert!(!panics, "{PANIC_MESSAGE}");
        if errs { Err(PredictError("a marked row".to_owned())) } else { self.0.predict(rows, scores) }
    }
}
