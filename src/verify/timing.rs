//! How long a row takes, by the number of rows that the model is given at once.
//!
//! The rows are fresh: thousands of different ones, so that no branch predictor learns the model's way through them. What is
//! printed is the median of repeats, which a neighbour on the machine does not move.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use disrust_model::{F32_BYTES, Model, PredictError};

use super::rows::{Draw, RowBytes};

/// How long all of it may take, but for models of which one call takes longer.
const BUDGET: Duration = Duration::from_secs(2);

/// Rows to draw, unless they are very wide.
const POOL_ROWS: usize = 16_384;

/// Bytes of rows to draw at most, unless more are asked for at once.
const POOL_BYTES_MAX: usize = 32 << 20;

/// Rows between two looks at the clock, at least: a look costs as much as a quick row.
const SAMPLE_ROWS_MIN: usize = 256;

/// Repeats at most.
const SAMPLES_MAX: usize = 2001;

/// Rows for these numbers of rows at once.
pub(super) fn pool(draw: &mut Draw<'_>, features: usize, row_counts: &[usize]) -> RowBytes {
    let largest = row_counts.iter().copied().max().unwrap_or(1);
    let rows = POOL_ROWS.min(POOL_BYTES_MAX / (features * F32_BYTES)).max(largest);
    draw.rows(rows, features)
}

/// Nanoseconds a row, for each of these numbers of rows at once.
pub(super) fn time(
    model: &mut dyn Model,
    pool: &RowBytes,
    row_counts: &[usize],
) -> Result<Vec<(usize, f64)>, PredictError> {
    let share = BUDGET / u32::try_from(row_counts.len()).expect("as many as a flag may name");
    row_counts.iter().map(|rows| Ok((*rows, time_one(model, pool, *rows, share)?))).collect()
}

fn time_one(model: &mut dyn Model, pool: &RowBytes, rows: usize, budget: Duration) -> Result<f64, PredictError> {
    let calls = SAMPLE_ROWS_MIN.div_ceil(rows);
    let mut scores = vec![0.0; rows * model.outputs()];
    let mut samples = Vec::new();
    let mut first = 0;
    let begun_at = Instant::now();
    // One sample more than counts: the first one finds everything cold.
    while samples.len() <= 1 || (samples.len() <= SAMPLES_MAX && begun_at.elapsed() < budget) {
        let sample_begun_at = Instant::now();
        for _ in 0..calls {
            pool.score_some(model, first, rows, &mut scores)?;
            first += rows;
            if first + rows > pool.count() {
                first = 0;
            }
        }
        samples.push(sample_begun_at.elapsed());
    }
    let mut samples = samples.split_off(1);
    samples.sort_unstable();
    Ok(samples[samples.len() / 2].as_nanos() as f64 / (calls * rows) as f64)
}

#[cfg(test)]
mod tests {
    use disrust_model::Rows;

    use super::*;

    /// Takes 10 µs a row, or more.
    struct Slow;

    impl Model for Slow {
        fn name(&self) -> &str {
            "slow"
        }

        fn feature_dim(&self) -> usize {
            3
        }

        fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
            assert_eq!(rows.count(), scores.len());
            let begun_at = Instant::now();
            while begun_at.elapsed() < Duration::from_micros(10) * u32::try_from(rows.count()).expect("few") {}
            Ok(())
        }
    }

    /// Each number of rows is timed by itself, and all of it comes to an end in about the time that it may take.
    #[test]
    fn a_model_is_timed_by_the_row() {
        let counts = [1, 8, 5000, 20_000];
        let pool = pool(&mut Draw::of_rows(&RowBytes::of(&[1.0, 2.0, 3.0], 3)), 3, &counts);
        assert_eq!(pool.count(), 20_000);
        let times = time(&mut Slow, &pool, &counts).expect("it does not fail");
        assert_eq!(times.iter().map(|(rows, _)| *rows).collect::<Vec<_>>(), counts);
        assert!(times.iter().all(|(_, ns)| *ns >= 10_000.0), "{times:?}");
    }
}
