//! `disrust verify`: what a model file is, whether its scores are those that its library gives, and how fast they are.
//!
//! It serves nobody and starts no thread. It scores with the engine that serves, on rows as they come over the wire, so that
//! what it says holds for a server: the same bits, the same speed but for what surrounds the model.
#![forbid(unsafe_code)]

mod compare;
mod csv;
mod npy;
mod report;
mod rows;
mod table;
mod timing;

use std::io;
use std::path::{Path, PathBuf};

use disrust_model::{Facts, LoadError, Loaded, Model, ModelFile, PredictError};
use thiserror::Error;

use crate::config::verify::VerifyOptions;
use compare::{Agreement, compare};
use report::Report;
use rows::{Draw, RowBytes};
pub use table::TableError;
use table::{Table, counted};

/// Rows that are also scored one by one. Larger: a slow model takes long to verify. Smaller: less is shown.
const ALONE_ROWS_MAX: usize = 1024;

/// Why nothing could be verified.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The model can't be served.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// The inputs or the expected scores can't be used.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The engine does not score.
    #[error("the model failed: {0}")]
    Failed(#[from] PredictError),
    /// The scores or the report can't be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// To where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Looks at a model file as it was asked to, and says what it found. Returns whether nothing disagrees.
///
/// # Errors
/// See [`VerifyError`].
pub fn run(options: &VerifyOptions) -> Result<bool, VerifyError> {
    let file = ModelFile::open(&options.model, &options.load_options())?;
    let draw = file.form().map(Draw::of_thresholds);
    let Loaded { mut model, facts } = file.compile();
    let mut draw = draw.unwrap_or_else(|| Draw::around_zero(facts.features));
    let inputs = options.inputs.as_deref().map(|path| read_inputs(path, &facts)).transpose()?;
    let mut scored = None;
    if let Some(inputs) = &inputs {
        let expected = options.expected.as_deref().map(|path| read_expected(path, inputs, options.raw, &facts));
        let expected = expected.transpose()?;
        let scores = inputs.score(&mut *model, inputs.count())?;
        let agreement = expected.map(|expected| compare(&scores, facts.outputs.len(), &expected));
        if let Some(path) = &options.scores {
            report::write_scores(path, &scores, &facts)?;
        }
        scored = Some(Scored { rows: inputs.count(), scores, agreement });
        draw = Draw::of_rows(inputs);
    }
    let drawn = timing::pool(&mut draw, facts.features, &options.rows.0);
    let (alone_rows, alone) = check_batches(&mut *model, inputs.as_ref().unwrap_or(&drawn))?;
    let ns_per_row = timing::time(&mut *model, &drawn, &options.rows.0)?;
    let report = Report { facts, scored, alone_rows, alone, ns_per_row };
    report.print(options)?;
    Ok(report.agrees())
}

/// The inputs' scores.
struct Scored {
    rows: usize,
    /// Shape `[rows, outputs]`.
    scores: Vec<f32>,
    /// With what was expected, if that is known.
    agreement: Option<Agreement>,
}

fn read_inputs(path: &Path, facts: &Facts) -> Result<RowBytes, TableError> {
    let table = Table::read(path)?;
    table.check_header(&facts.feature_names)?;
    if table.columns != facts.features {
        let one_more =
            if table.columns == facts.features + 1 { ". Is one of them an index, or the target?" } else { "" };
        return Err(table.wrong(format!(
            "{} has {}, but the model has {}{one_more}",
            table.first_row(),
            counted(table.columns, "column"),
            counted(facts.features, "feature")
        )));
    }
    let features: Vec<f32> = table.values.iter().map(|value| *value as f32).collect();
    Ok(RowBytes::of(&features, facts.features))
}

/// Reads the expected scores, in the shape of the model's: of two classes' probabilities, the second is the model's output.
fn read_expected(path: &Path, inputs: &RowBytes, raw: bool, facts: &Facts) -> Result<Vec<f64>, TableError> {
    let table = Table::read(path)?;
    if table.rows() != inputs.count() {
        let (rows, inputs) = (counted(table.rows(), "row"), counted(inputs.count(), "row"));
        return Err(table.wrong(format!("it has {rows}, but the inputs have {inputs}")));
    }
    match (table.columns, facts.outputs.len()) {
        (columns, outputs) if columns == outputs => Ok(table.values),
        (2, 1) if !raw && table.values.chunks(2).all(are_of_two_classes) => {
            Ok(table.values.chunks(2).map(|classes| classes[1]).collect())
        }
        (2, 1) if !raw => Err(table.wrong(format!(
            "{} has 2 columns, but the model has 1 output, and they are not the probabilities of two classes",
            table.first_row()
        ))),
        (columns, outputs) => Err(table.wrong(format!(
            "{} has {}, but the model has {}",
            table.first_row(),
            counted(columns, "column"),
            counted(outputs, "output")
        ))),
    }
}

fn are_of_two_classes(probabilities: &[f64]) -> bool {
    let sum: f64 = probabilities.iter().sum();
    sum.is_nan() || (sum - 1.0).abs() < 1e-3
}

/// How scores of rows alone compare with those in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alone {
    /// The same, bit for bit.
    SameBits,
    /// As close as expected scores have to be.
    Agrees,
    Differs,
}

/// How the scores of rows alone, and in batches of a few, compare with those of all together. Also says how many rows
/// these were.
fn check_batches(model: &mut dyn Model, rows: &RowBytes) -> Result<(usize, Alone), PredictError> {
    let rows = rows.first(ALONE_ROWS_MAX);
    let together = rows.score(model, rows.count())?;
    let expected: Vec<f64> = together.iter().map(|score| f64::from(*score)).collect();
    let mut outcome = Alone::SameBits;
    for at_once in [1, 7] {
        let scores = rows.score(model, at_once)?;
        if !compare(&scores, model.outputs(), &expected).agrees() {
            return Ok((rows.count(), Alone::Differs));
        }
        if !scores.iter().zip(&together).all(|(one, other)| one.to_bits() == other.to_bits()) {
            outcome = Alone::Agrees;
        }
    }
    Ok((rows.count(), outcome))
}
