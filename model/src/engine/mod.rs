//! From a checked [`Form`] to something that scores rows.
//!
//! [`Compiled`] runs the form's program over bounded chunks of rows; the trees, where the time goes, have engines of their own
//! (`trees/`). Engines know no file format.
//!
//! Invariant: a row's scores depend on the row alone, bit for bit: on no neighbour, no chunk, no CPU path. So no sum is
//! reordered, and a multiplication is fused with an addition where the form says so and nowhere else.
#![deny(unsafe_code)]

mod dense;
mod gemm;
mod simd;
mod trees;

pub use self::simd::Simd;

use self::dense::Dense;
use self::trees::Trees;
use crate::form::{Form, Step};
use crate::rows::{F32_BYTES, Rows};
use crate::{Model, PredictError};

/// Rows that are scored together, if no engine wants more. Larger: what lies between two steps leaves the cache. Smaller:
/// engines that decide for 64 rows at once are not filled.
const CHUNK_ROWS: usize = 64;

/// Numbers that lie between the steps, at most, if a chunk has more than one row. Larger: more memory for long programs.
const ARENA_MAX: usize = 1 << 20;

/// A compiled model.
pub struct Compiled {
    name: String,
    version: u64,
    feature_dim: usize,
    outputs: usize,
    operations: Vec<Operation>,
    /// Where each value lies in the arena, and its width.
    places: Vec<Place>,
    /// The value that is the answer.
    score: usize,
    /// The values of a chunk: shape `[rows, width]` each, row by row.
    arena: Vec<f32>,
    /// Rows in a chunk at most.
    chunk_rows: usize,
}

/// A step that is needed.
enum Operation {
    /// Value, input.
    Trees {
        result: usize,
        input: usize,
        trees: Box<Trees>,
    },
    Dense {
        result: usize,
        dense: Dense,
    },
}

impl Operation {
    /// How many rows should come together if there are many.
    fn rows_max(&self) -> usize {
        match self {
            Operation::Trees { trees, .. } => trees.rows_max(),
            Operation::Dense { .. } => CHUNK_ROWS,
        }
    }
}

/// Where a value lies in the arena.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Index of the first number.
    start: usize,
    /// Columns.
    width: usize,
}

impl Place {
    fn range(self, rows: usize) -> std::ops::Range<usize> {
        self.start..self.start + rows * self.width
    }
}

impl Compiled {
    /// Compiles a form for this CPU; steps that its score does not need are left out.
    ///
    /// # Panics
    /// If the form has not passed [`Form::check`].
    pub fn new(form: Form, name: &str) -> Compiled {
        Compiled::with_simd(form, name, Simd::detect())
    }

    /// As [`Compiled::new`], on a certain CPU path.
    ///
    /// # Panics
    /// As [`Compiled::new`], and if this CPU has not that path.
    pub fn with_simd(form: Form, name: &str, simd: Simd) -> Compiled {
        assert!(simd.is_available(), "this CPU has no {} path", simd.name());
        let widths = form.widths().expect("the form has been checked");
        let needed = needed(&form);
        let mut operations = Vec::new();
        for (index, step) in form.steps.into_iter().enumerate() {
            let result = index + 1;
            match step {
                _ if !needed[result] => {}
                Step::Trees { input, ensemble } => {
                    let trees = Box::new(Trees::new(ensemble, widths[input], simd));
                    operations.push(Operation::Trees { result, input, trees });
                }
                step => operations.push(Operation::Dense { result, dense: Dense::new(step) }),
            }
        }
        let columns: usize = (0..widths.len()).filter(|value| needed[*value]).map(|value| widths[value]).sum();
        let wanted = operations.iter().map(Operation::rows_max).max().unwrap_or(CHUNK_ROWS);
        let chunk_rows = (ARENA_MAX / columns).clamp(1, wanted);
        let mut places = Vec::with_capacity(widths.len());
        let mut end = 0;
        for (width, needed) in widths.iter().zip(&needed) {
            places.push(Place { start: end, width: *width });
            end += if *needed { chunk_rows * width } else { 0 };
        }
        Compiled {
            name: name.to_owned(),
            version: 0,
            feature_dim: form.feature_dim,
            outputs: widths[form.score],
            operations,
            places,
            score: form.score,
            arena: vec![0.0; end],
            chunk_rows,
        }
    }

    /// The same as this version of the model.
    #[must_use]
    pub fn of_version(self, version: u64) -> Compiled {
        Compiled { version, ..self }
    }

    /// What scores the trees, for people; none if there are none.
    pub fn engine(&self) -> String {
        let engine = |operation: &Operation| match operation {
            Operation::Trees { trees, .. } => Some(trees.engine()),
            Operation::Dense { .. } => None,
        };
        let engines: Vec<_> = self.operations.iter().filter_map(engine).collect();
        if engines.is_empty() { "dense".to_owned() } else { engines.join(", ") }
    }

    /// Bytes that the model takes in memory.
    pub fn bytes(&self) -> usize {
        let operation = |operation: &Operation| match operation {
            Operation::Trees { trees, .. } => trees.bytes(),
            Operation::Dense { dense, .. } => dense.bytes(),
        };
        self.arena.len() * F32_BYTES + self.operations.iter().map(operation).sum::<usize>()
    }

    /// Scores the first rows of the arena into `scores`.
    fn score_chunk(&mut self, scores: &mut [f32]) {
        let rows = scores.len() / self.outputs;
        for operation in &mut self.operations {
            match operation {
                Operation::Trees { result, input, trees } => {
                    // Values are laid out in the order of the program, so an input always lies before its result.
                    let (before, after) = self.arena.split_at_mut(self.places[*result].start);
                    let sums = &mut after[..rows * self.places[*result].width];
                    trees.score(&before[self.places[*input].range(rows)], sums);
                }
                Operation::Dense { result, dense } => dense.run(&mut self.arena, &self.places, *result, rows),
            }
        }
        scores.copy_from_slice(&self.arena[self.places[self.score].range(rows)]);
    }
}

impl Model for Compiled {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn feature_dim(&self) -> usize {
        self.feature_dim
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn predict(&mut self, rows: &Rows<'_>, mut scores: &mut [f32]) -> Result<(), PredictError> {
        let mut filled = 0;
        let row_bytes = self.feature_dim * F32_BYTES;
        rows.for_each_span(|mut span| {
            while !span.is_empty() {
                let rows = (span.len() / row_bytes).min(self.chunk_rows - filled);
                let (now, later) = span.split_at(rows * row_bytes);
                span = later;
                let places = &mut self.arena[filled * self.feature_dim..(filled + rows) * self.feature_dim];
                for (feature, place) in now.as_chunks::<F32_BYTES>().0.iter().zip(places) {
                    *place = f32::from_le_bytes(*feature);
                }
                filled += rows;
                if filled == self.chunk_rows {
                    let chunk = scores.split_off_mut(..filled * self.outputs).expect("a place for each score");
                    self.score_chunk(chunk);
                    filled = 0;
                }
            }
        });
        if filled > 0 {
            self.score_chunk(scores);
        }
        Ok(())
    }
}

/// Which values the score needs, by their number.
fn needed(form: &Form) -> Vec<bool> {
    let mut needed = vec![false; form.steps.len() + 1];
    // The rows are gathered in any case.
    (needed[0], needed[form.score]) = (true, true);
    for value in (1..=form.steps.len()).rev().filter(|value| *value <= form.score) {
        if needed[value] {
            form.steps[value - 1].inputs().for_each(|input| needed[input] = true);
        }
    }
    needed
}
