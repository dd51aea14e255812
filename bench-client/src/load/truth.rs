//! Where vectors and their true scores come from: the sum model, or two files with inputs and expected scores.
//!
//! A file has one vector a line, numbers separated by commas, no header; `nan` and `inf` are numbers. The file of
//! expected scores has the scores of the same line, one column for a regressor or one for each class.
//!
//! Invariants: there is one score for each row, and at least one row.

use std::fs;
use std::path::{Path, PathBuf};

use disrust_protocol::RequestLayout;
use fastrand::Rng;

use crate::failure::Failure;
use crate::rows;

/// Rows of the sum model, about, in bytes. Larger: out of the cache, so that the client's misses are measured too.
/// Smaller: answers that went to the wrong connection may be the right ones by chance.
const SUM_ROWS_BYTES: usize = 256 * 1024;

/// The fewest rows of the sum model, however many features they have; see [`SUM_ROWS_BYTES`].
const SUM_ROWS_MIN: usize = 64;

/// How far a score may be from the expected one: `tolerance * max(1, |expected|)`.
pub type Tolerance = f32;

/// Which answers are right.
#[derive(Debug, Clone, PartialEq)]
pub enum Expectation {
    /// The sum of the features, to the last bit.
    Sum,
    /// What a file says.
    Files(ExpectedFiles),
}

/// Inputs and the scores that a server should give them.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpectedFiles {
    /// One vector a line.
    pub inputs: PathBuf,
    /// The scores of the same lines.
    pub expected: PathBuf,
    /// The column of `expected` that the server answers with, from 0; needed if there are several.
    pub column: Option<usize>,
    /// 0: the same bits.
    pub tolerance: Tolerance,
}

/// Vectors and their scores.
pub struct Truth {
    /// One row after the other.
    pub rows: Vec<f32>,
    /// One for each row.
    pub scores: Vec<f32>,
    /// How far an answer may be off.
    pub tolerance: Tolerance,
}

impl Truth {
    /// Makes or reads the rows.
    pub fn load(expectation: &Expectation, layout: RequestLayout, seed: u64) -> Result<Truth, Failure> {
        match expectation {
            Expectation::Sum => {
                let count = (SUM_ROWS_BYTES / layout.row_bytes()).max(SUM_ROWS_MIN);
                let rows = rows::random_rows(layout, count, &mut Rng::with_seed(seed));
                Ok(Truth { scores: rows::scores(layout, &rows), rows, tolerance: 0.0 })
            }
            Expectation::Files(files) => read(files, layout),
        }
    }
}

/// Whether `received` is near enough to `expected`.
pub fn within(expected: f32, received: f32, tolerance: Tolerance) -> bool {
    rows::same_score(expected, received) || (expected - received).abs() <= tolerance * expected.abs().max(1.0)
}

fn read(files: &ExpectedFiles, layout: RequestLayout) -> Result<Truth, Failure> {
    let inputs = read_lines(&files.inputs)?;
    let expected = read_lines(&files.expected)?;
    let wrong = |path: &Path, problem| Err(Failure::Input { path: path.to_owned(), problem });
    if inputs.is_empty() {
        return wrong(&files.inputs, "no line has a vector".to_owned());
    }
    if let Some(line) = inputs.iter().position(|row| row.len() != layout.feature_dim()) {
        let (has, wants) = (inputs[line].len(), layout.feature_dim());
        return wrong(&files.inputs, format!("line {} has {has} features, not {wants} (see --features)", line + 1));
    }
    if expected.len() != inputs.len() {
        return wrong(&files.expected, format!("{} lines for {} inputs", expected.len(), inputs.len()));
    }
    let column = match files.column {
        Some(column) => column,
        None if expected[0].len() == 1 => 0,
        None => {
            let problem = format!("{} columns: say with --expect-column which one is answered", expected[0].len());
            return wrong(&files.expected, problem);
        }
    };
    let scores: Option<Vec<f32>> = expected.iter().map(|row| row.get(column).copied()).collect();
    let Some(scores) = scores else {
        return wrong(&files.expected, format!("not every line has a column {column} (counted from 0)"));
    };
    Ok(Truth { rows: inputs.concat(), scores, tolerance: files.tolerance })
}

fn read_lines(path: &Path) -> Result<Vec<Vec<f32>>, Failure> {
    let wrong = |problem| Failure::Input { path: path.to_owned(), problem };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parsed = lines.map(|(index, line)| {
        let number = |field: &str| {
            let field = field.trim();
            field.parse().map_err(|_| wrong(format!("line {}: '{field}' is no number", index + 1)))
        };
        line.split(',').map(number).collect()
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: a tolerance is relative above 1, absolute below, and 0 means the same bits.
    #[test]
    fn tolerance_is_relative_for_large_scores() {
        assert!(within(1000.0, 1000.5, 1e-3) && !within(1000.0, 1001.5, 1e-3));
        assert!(within(0.0, 0.0005, 1e-3) && !within(0.0, 0.0015, 1e-3));
        assert!(within(0.1, 0.1, 0.0) && !within(0.1, 0.1 + f32::EPSILON, 0.0));
        assert!(within(f32::NAN, f32::NAN, 0.0) && !within(f32::NAN, 1.0, 1.0) && !within(1.0, f32::NAN, 1.0));
    }
}
