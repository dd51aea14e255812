//! The seam between the server and whatever scores: rows in, scores out.
//!
//! A [`Model`] sees all rows of a step at once, as they lie in memory; one that needs a contiguous matrix gathers it
//! ([`Rows::gather`]). It knows no connection, no request and no wire format. [`Sum`] is the default model, and
//! [`guarded_predict`] is how a server calls any of them.
//!
//! Invariant: the scores' slice has exactly one place for each output of each row, so a model cannot return a wrong number
//! of them.
#![deny(unsafe_code)]

pub mod engine;
mod facts;
pub mod form;
mod guard;
mod load;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
pub mod read;
mod rows;
mod sum;

use thiserror::Error;

pub use facts::Facts;
pub use guard::{guarded_predict, model_runs};
pub use load::{FILE_BYTES_MAX, LoadError, LoadOptions, Loaded, ModelFile, NAME_BYTES_MAX, load};
#[cfg(feature = "onnxruntime")]
pub use onnxruntime::OnnxruntimeError;
pub use rows::{F32_BYTES, RowSource, Rows};
pub use sum::Sum;

/// Scores rows. Called by one thread at a time.
pub trait Model: Send {
    /// What to call the model in logs and the banner.
    fn name(&self) -> &str;

    /// Which version of it this is, as clients are told: of a file, the first 8 bytes of its SHA-256 as a number, the first one
    /// highest; 0 of what is no file. Constant for the model's life.
    fn version(&self) -> u64 {
        0
    }

    /// Features in each row (>= 1); constant for the model's life.
    fn feature_dim(&self) -> usize;

    /// Scores for each row (>= 1); constant for the model's life.
    fn outputs(&self) -> usize {
        1
    }

    /// Scores `rows` (shape `[rows.count(), feature_dim]`) into `scores` (shape `[rows.count(), outputs]`, row by row), in
    /// order.
    ///
    /// A score must depend on its own row alone: which rows come together is an accident of timing.
    ///
    /// # Errors
    /// If these rows can't be scored. The server then asks again for fewer of them, down to the rows of single requests, so
    /// that one request that the model fails on costs no other request its answer. A panic counts as an error.
    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError>;
}

/// Why a model could not score the rows that it was given.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct PredictError(pub String);
