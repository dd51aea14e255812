//! Rows as they come over the wire, and where to get some.
#![forbid(unsafe_code)]

use disrust_model::form::{Form, Step, Test};
use disrust_model::{F32_BYTES, Model, PredictError, Rows, guarded_predict};

/// Rows, one after the other, in little-endian f32.
pub(super) struct RowBytes {
    bytes: Vec<u8>,
    features: usize,
}

impl RowBytes {
    /// The rows of a matrix of so many columns.
    pub fn of(matrix: &[f32], features: usize) -> RowBytes {
        RowBytes { bytes: matrix.iter().flat_map(|feature| feature.to_le_bytes()).collect(), features }
    }

    pub fn count(&self) -> usize {
        self.bytes.len() / self.row_bytes()
    }

    /// At most the first `count` of them.
    pub fn first(&self, count: usize) -> RowBytes {
        let bytes = self.bytes[..self.count().min(count) * self.row_bytes()].to_vec();
        RowBytes { bytes, features: self.features }
    }

    /// The scores of all rows, `at_once` in each call of the model; shape `[count, outputs]`.
    pub fn score(&self, model: &mut dyn Model, at_once: usize) -> Result<Vec<f32>, PredictError> {
        let outputs = model.outputs();
        let mut scores = vec![0.0; self.count() * outputs];
        let batches = self.bytes.chunks(at_once.max(1) * self.row_bytes());
        for (batch, scores) in batches.zip(scores.chunks_mut(at_once.max(1) * outputs)) {
            let rows = Rows::new(&batch, batch.len() / self.row_bytes(), self.features);
            guarded_predict(model, &rows, scores)?;
        }
        Ok(scores)
    }

    /// Scores `count` rows from the row `first` on.
    pub fn score_some(
        &self,
        model: &mut dyn Model,
        first: usize,
        count: usize,
        scores: &mut [f32],
    ) -> Result<(), PredictError> {
        let bytes = &self.bytes[first * self.row_bytes()..][..count * self.row_bytes()];
        guarded_predict(model, &Rows::new(&bytes, count, self.features), scores)
    }

    fn row_bytes(&self) -> usize {
        self.features * F32_BYTES
    }

    fn feature(&self, row: usize, feature: usize) -> f32 {
        let at = (row * self.features + feature) * F32_BYTES;
        f32::from_le_bytes(*self.bytes[at..].first_chunk().expect("a row's feature has four bytes"))
    }
}

/// Rows that are like those that a model is meant for, but new: a model that is asked the same thing twice is faster than it
/// will be. The same rows each time that the program runs.
pub(super) struct Draw<'a> {
    source: Source<'a>,
    random: fastrand::Rng,
}

enum Source<'a> {
    /// Each feature from another row, and changed a little.
    Rows(&'a RowBytes),
    /// Each feature between two neighbouring thresholds of its own, ascending, or outside all of them; without any, from −3
    /// to 3.
    Thresholds(Vec<Vec<f32>>),
}

/// Thresholds of a feature that are remembered. Larger: memory for nothing. Smaller: rows go fewer ways.
const THRESHOLDS_MAX: usize = 64;

impl Draw<'_> {
    const SEED: u64 = 0x6469_7372_7573_7421;

    /// Like these.
    pub fn of_rows(rows: &RowBytes) -> Draw<'_> {
        Draw { source: Source::Rows(rows), random: fastrand::Rng::with_seed(Draw::SEED) }
    }

    /// To all sides of what the model's trees ask.
    pub fn of_thresholds(form: &Form) -> Draw<'static> {
        let mut thresholds = vec![Vec::new(); form.feature_dim];
        let ensembles = form.steps.iter().filter_map(|step| match step {
            Step::Trees { input: 0, ensemble } => Some(ensemble),
            _ => None,
        });
        for split in ensembles.flat_map(|ensemble| &ensemble.trees).flat_map(|tree| &tree.splits) {
            let of_feature = &mut thresholds[split.feature as usize];
            match &split.test {
                Test::AtMost { threshold, .. } => of_feature.push(*threshold),
                Test::Within(intervals) => of_feature.extend(intervals.iter().map(|interval| interval.first)),
            }
        }
        thresholds.iter_mut().for_each(thin_out);
        Draw { source: Source::Thresholds(thresholds), random: fastrand::Rng::with_seed(Draw::SEED) }
    }

    /// Of a model that nothing is known of, with so many features.
    pub fn around_zero(features: usize) -> Draw<'static> {
        let source = Source::Thresholds(vec![Vec::new(); features]);
        Draw { source, random: fastrand::Rng::with_seed(Draw::SEED) }
    }

    /// So many rows of so many features.
    pub fn rows(&mut self, count: usize, features: usize) -> RowBytes {
        let matrix: Vec<f32> = (0..count * features).map(|at| self.feature(at % features)).collect();
        RowBytes::of(&matrix, features)
    }

    fn feature(&mut self, feature: usize) -> f32 {
        let random = &mut self.random;
        match &self.source {
            Source::Rows(rows) => {
                let value = rows.feature(random.usize(..rows.count()), feature);
                value * (1.0 + 0.1 * (random.f32() - 0.5))
            }
            Source::Thresholds(thresholds) => match &thresholds[feature][..] {
                [] => 6.0 * random.f32() - 3.0,
                known @ [first, .., last] => {
                    let margin = 0.1 * (last - first);
                    let place = random.usize(..=known.len());
                    let from = if place == 0 { first - margin } else { known[place - 1] };
                    let to = known.get(place).copied().unwrap_or(last + margin);
                    from + random.f32() * (to - from)
                }
                [only] => only + random.f32() - 0.5,
            },
        }
    }
}

/// Sorted, finite, different, and at most [`THRESHOLDS_MAX`], spread evenly.
fn thin_out(thresholds: &mut Vec<f32>) {
    thresholds.retain(|threshold| threshold.is_finite());
    thresholds.sort_by(f32::total_cmp);
    thresholds.dedup();
    let count = thresholds.len();
    if count > THRESHOLDS_MAX {
        *thresholds = (0..THRESHOLDS_MAX).map(|place| thresholds[place * (count - 1) / (THRESHOLDS_MAX - 1)]).collect();
    }
}

#[cfg(test)]
mod tests {
    use disrust_model::Sum;

    use super::*;

    /// However many rows a call has, each row's score is its own.
    #[test]
    fn rows_are_scored_in_batches_of_any_size() {
        let matrix: Vec<f32> = (0..2 * 10).map(|number| number as f32).collect();
        let rows = RowBytes::of(&matrix, 2);
        let expected: Vec<f32> = (0..10).map(|row| (4 * row + 1) as f32).collect();
        for at_once in [1, 3, 10, 99] {
            assert_eq!(rows.score(&mut Sum::new(2), at_once).expect("a sum"), expected);
        }
        assert_eq!(rows.first(3).count(), 3);
        let mut some = [0.0; 2];
        rows.score_some(&mut Sum::new(2), 4, 2, &mut some).expect("a sum");
        assert_eq!(some, expected[4..6]);
    }

    /// Drawn rows are new, stay near what they are drawn from, and miss what that misses.
    #[test]
    fn drawn_rows_are_like_their_source() {
        let source = RowBytes::of(&[1.0, f32::NAN, 2.0, f32::NAN], 2);
        let drawn = Draw::of_rows(&source).rows(1000, 2);
        for row in 0..1000 {
            assert!((0.9..=2.2).contains(&drawn.feature(row, 0)) && drawn.feature(row, 1).is_nan());
        }
        let mut values: Vec<u32> = (0..1000).map(|row| drawn.feature(row, 0).to_bits()).collect();
        values.sort_unstable();
        values.dedup();
        assert!(values.len() > 900, "{} different ones", values.len());
    }

    #[test]
    fn thresholds_are_few_finite_and_spread() {
        let mut thresholds: Vec<f32> = (0..1000).map(|number| number as f32).chain([f32::INFINITY, 5.0]).collect();
        thin_out(&mut thresholds);
        assert_eq!((thresholds.len(), thresholds[0], thresholds[63]), (THRESHOLDS_MAX, 0.0, 999.0));
        let thresholds = vec![vec![0.0, 10.0], Vec::new(), vec![100.0]];
        let mut draw = Draw { source: Source::Thresholds(thresholds), random: fastrand::Rng::with_seed(1) };
        let rows = draw.rows(1000, 3);
        let below = (0..1000).filter(|row| rows.feature(*row, 0) <= 0.0).count();
        let above = (0..1000).filter(|row| rows.feature(*row, 0) > 10.0).count();
        assert!(below > 200 && above > 200 && below + above < 800, "{below} below, {above} above");
        assert!((0..1000).all(|row| (-3.0..=3.0).contains(&rows.feature(row, 1))));
        assert!((0..1000).all(|row| (99.5..=100.5).contains(&rows.feature(row, 2))));
    }
}
