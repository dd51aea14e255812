//! ONNX files that the reader does not support, scored by the user's own libonnxruntime.
//!
//! The library is loaded when the first such file is opened, and stays: ORT_DYLIB_PATH names it, else it is
//! `libonnxruntime.so`, beside the program or where the system looks for libraries. One thread scores, the caller's.
//!
//! What [`crate::engine`] promises is onnxruntime's here: it may round a sum otherwise for many rows than for one, it
//! allocates while it scores, and what it does with hostile files is its own affair. What is checked is the seam: one
//! input of rows of f32, one output of a row of numbers for each of them, no row that changes another's scores, and no
//! weights in other files.
#![forbid(unsafe_code)]

mod library;
mod output;

use ort::logging::LogLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{TensorElementType, TensorRef, ValueType};
use thiserror::Error;

use self::output::Output;
use crate::form::limits::FEATURES_MAX;
use crate::form::{Choice, ChoiceError};
use crate::read::{is_whole, quoted};
use crate::rows::Rows;
use crate::{Model, PredictError};

/// Rows of one run. Larger: onnxruntime's memory, which it keeps, grows with it. Smaller: what a run costs in itself,
/// some microseconds, is shared by fewer rows.
const CHUNK_ROWS: usize = 64;

/// Scores of a row may differ by this much, alone and beside others, in parts of the score, or of 1 where that is more.
/// Larger: another row's influence passes for rounding. Smaller: the rounding of a long sum passes for another row.
const ROUNDING_MAX: f32 = 1e-3;

/// Why onnxruntime does not serve a model either.
#[derive(Debug, Error)]
pub enum OnnxruntimeError {
    /// There is no library.
    #[error(
        "onnxruntime may support it, but its library cannot be loaded: {0}. Try: pip install onnxruntime, and \
         ORT_DYLIB_PATH with the path of the libonnxruntime.so.1.* in its folder onnxruntime/capi"
    )]
    Library(String),
    /// What comes in or goes out is no rows of numbers.
    #[error("onnxruntime may support it, but {what}: {instead}")]
    Shape {
        /// What there is.
        what: String,
        /// What would work.
        instead: String,
    },
    /// Margins are asked for.
    #[error("onnxruntime may support it, but tells no margins: leave --raw out")]
    Raw,
    /// It says no.
    #[error("nor does onnxruntime take it: {0}")]
    Refused(String),
    /// A row's score is not its own.
    #[error(
        "onnxruntime supports it, but scores a row otherwise if other rows come with it, which nobody who sends one \
         can know of: export a model that scores each row by itself"
    )]
    MixesRows,
    /// Its outputs and what was chosen do not fit.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
}

/// A model in onnxruntime.
pub(crate) struct Onnxruntime {
    name: String,
    version: u64,
    session: Session,
    run_options: RunOptions<HasSelectedOutputs>,
    /// What onnxruntime takes: rows, then the dimensions of one.
    shape: Vec<i64>,
    feature_dim: usize,
    /// Rows of one run at most: 1 if the graph is made for that.
    chunk_rows: usize,
    output: Output,
    /// The rows of a call; shape `[rows, feature_dim]`.
    matrix: Vec<f32>,
}

impl Onnxruntime {
    /// Opens a file that the reader does not support, as a model of this name and version. `features` is how many the operator says that a row has, for a
    /// graph that does not say so itself.
    ///
    /// # Errors
    /// See [`OnnxruntimeError`].
    pub fn open(
        bytes: &[u8],
        (name, version): (&str, u64),
        features: Option<usize>,
        choice: &Choice,
    ) -> Result<Onnxruntime, OnnxruntimeError> {
        if choice.raw {
            return Err(OnnxruntimeError::Raw);
        }
        if !is_whole(bytes).map_err(|error| OnnxruntimeError::Refused(error.to_string()))? {
            let instead = "save the model with its weights in one file (save_as_external_data=False)";
            return Err(shape_error("some of its weights are in other files", instead));
        }
        library::load().map_err(OnnxruntimeError::Library)?;
        let session = session(bytes)?;
        let (shape, chunk_rows) = input(&session, features)?;
        let feature_dim = shape[1..].iter().map(|dim| *dim as usize).product();
        let output = Output::of(session.outputs())?;
        let selected = OutputSelector::no_default().with(output.name.as_str());
        let run_options = RunOptions::new().map_err(refused)?.with_outputs(selected);
        let mut model = Onnxruntime {
            name: name.to_owned(),
            version,
            session,
            run_options,
            shape,
            feature_dim,
            chunk_rows,
            output,
            matrix: Vec::new(),
        };
        model.learn_output()?;
        model.check_rows()?;
        model.output.choose(choice)?;
        Ok(model)
    }

    /// What the outputs that are served are called.
    pub fn output_names(&self) -> &[String] {
        &self.output.names
    }

    /// What scores, for people.
    pub fn engine() -> String {
        format!("onnxruntime {}", library::version())
    }

    /// A row of zeros tells how wide the output is: files often do not.
    fn learn_output(&mut self) -> Result<(), OnnxruntimeError> {
        self.shape[0] = 1;
        let row = vec![0.0_f32; self.feature_dim];
        let input = TensorRef::from_array_view((self.shape.as_slice(), row.as_slice())).map_err(refused)?;
        let values = self.session.run_with_options(ort::inputs![input], &self.run_options).map_err(refused)?;
        self.output.learn(&values[0])
    }

    /// Sees to it that rows come alone if the graph takes no others, and that none of them changes another's scores.
    fn check_rows(&mut self) -> Result<(), OnnxruntimeError> {
        const ROWS: usize = 5;
        if self.chunk_rows == 1 {
            return Ok(());
        }
        // Zeros and ones: numbers that are categories as well.
        let bit = |at: usize| f32::from(u8::from((at + 1).wrapping_mul(0x9e37_79b9) >> 16 & 1 == 1));
        let rows: Vec<f32> = (0..ROWS * self.feature_dim).map(bit).collect();
        let width = self.output.width();
        let (mut alone, mut together) = (vec![0.0; ROWS * width], vec![0.0; ROWS * width]);
        for (row, scores) in rows.chunks(self.feature_dim).zip(alone.chunks_mut(width)) {
            // A model may refuse some rows, also these: nothing is learnt of it then.
            if self.run(row, scores).is_err() {
                return Ok(());
            }
        }
        if self.run(&rows, &mut together).is_err() {
            self.chunk_rows = 1;
            return Ok(());
        }
        let close = |(one, other): (&f32, &f32)| {
            one == other || one.is_nan() && other.is_nan() || (one - other).abs() <= ROUNDING_MAX * one.abs().max(1.0)
        };
        if alone.iter().zip(&together).all(close) { Ok(()) } else { Err(OnnxruntimeError::MixesRows) }
    }

    /// Scores rows that are few enough for one run.
    fn run(&mut self, rows: &[f32], scores: &mut [f32]) -> Result<(), PredictError> {
        let count = rows.len() / self.feature_dim;
        self.shape[0] = count as i64;
        let failed = |error: ort::Error| PredictError(format!("onnxruntime: {}", quoted(&error.to_string())));
        let input = TensorRef::from_array_view((self.shape.as_slice(), rows)).map_err(failed)?;
        let values = self.session.run_with_options(ort::inputs![input], &self.run_options).map_err(failed)?;
        self.output.copy(&values[0], count, scores)
    }
}

impl Model for Onnxruntime {
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
        self.output.names.len()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        let mut matrix = std::mem::take(&mut self.matrix);
        matrix.resize(rows.count() * self.feature_dim, 0.0);
        rows.gather(&mut matrix);
        let chunks = matrix.chunks(self.chunk_rows * self.feature_dim);
        let mut scores = scores.chunks_mut(self.chunk_rows * self.outputs());
        let outcome = chunks.zip(&mut scores).try_for_each(|(rows, scores)| self.run(rows, scores));
        self.matrix = matrix;
        outcome
    }
}

/// One thread, and nothing written to stderr, which a peer could fill by sending what the model fails on.
fn session(bytes: &[u8]) -> Result<Session, OnnxruntimeError> {
    let builder = Session::builder().map_err(refused)?;
    let builder = builder.with_intra_threads(1).map_err(refused)?;
    let builder = builder.with_inter_threads(1).map_err(refused)?;
    let mut builder = builder.with_log_level(LogLevel::Fatal).map_err(refused)?;
    builder.commit_from_memory(bytes).map_err(refused)
}

/// The shape of the input, and how many rows it takes at most.
fn input(session: &Session, told: Option<usize>) -> Result<(Vec<i64>, usize), OnnxruntimeError> {
    let [input] = session.inputs() else {
        return Err(shape_error(
            format!("it has {} inputs", session.inputs().len()),
            "one of shape [rows, features] is",
        ));
    };
    let what = |of: String| format!("its input {} is {of}", quoted(input.name()));
    let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
        return Err(shape_error(what(input.dtype().to_string()), "a tensor of floats is"));
    };
    if *ty != TensorElementType::Float32 {
        return Err(shape_error(what(format!("of {ty}")), "export the model with a float input, as features are f32"));
    }
    let mut shape = shape.to_vec();
    if shape.len() < 2 {
        return Err(shape_error(what(format!("of {} dimensions", shape.len())), "one of shape [rows, features] is"));
    }
    let chunk_rows = match shape[0] {
        1 => 1,
        ..=0 => CHUNK_ROWS,
        rows => {
            let instead = "export it with a dynamic first axis (dynamic_axes)";
            return Err(shape_error(what(format!("of exactly {rows} rows")), instead));
        }
    };
    if let ([_, features @ ..=0], Some(told)) = (&mut shape[..], told) {
        *features = told as i64;
    }
    let features = shape[1..].iter().try_fold(1_i64, |product, dim| product.checked_mul((*dim).max(0)));
    match features {
        Some(0) => {
            let instead = "say so with --features N, or export it with fixed dimensions but for the first";
            Err(shape_error(what("of rows of unknown width".to_owned()), instead))
        }
        Some(features) if features <= FEATURES_MAX as i64 => Ok((shape, chunk_rows)),
        _ => {
            Err(shape_error(what(format!("of rows of {:?} numbers", &shape[1..])), format!("1 to {FEATURES_MAX} are")))
        }
    }
}

fn shape_error(what: impl Into<String>, instead: impl Into<String>) -> OnnxruntimeError {
    OnnxruntimeError::Shape { what: what.into(), instead: instead.into() }
}

/// What onnxruntime says may have the file's names in it.
fn refused<R>(error: ort::Error<R>) -> OnnxruntimeError {
    const SHOWN_MAX: usize = 300;
    let text = error.to_string();
    let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
    OnnxruntimeError::Refused(text.chars().take(SHOWN_MAX).map(printable).collect())
}
