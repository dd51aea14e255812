//! From the bytes of a model file to a checked [`Form`], whatever library wrote it.
//!
//! Readers know no engine. They never guess: what a file holds and is not supported is an error that names it; so is anything
//! malformed or hostile, without a panic, a hang, or memory beyond a small multiple of the file.
#![forbid(unsafe_code)]

mod catboost;
#[cfg(test)]
mod damage;
mod lightgbm;
mod onnx;
mod strangers;
mod xgboost;

#[cfg(feature = "onnxruntime")]
pub(crate) use onnx::{is_whole, quoted};

use thiserror::Error;

use crate::form::Form;

/// Why a file can't be read as a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// It is not what it seems to be, or cut, or contradicts itself.
    #[error("the {format} file is malformed: {what}")]
    Malformed {
        /// What it seems to be.
        format: &'static str,
        /// Where, and what is wrong.
        what: String,
    },
    /// It holds something that is not supported.
    #[error("the {format} file has {what}, which is not supported: {instead}")]
    Unsupported {
        /// What it is.
        format: &'static str,
        /// The node, operator, field or value.
        what: String,
        /// What would work.
        instead: String,
    },
    /// It is an ONNX file of what is not supported here, which onnxruntime may support.
    #[error("the ONNX file has {what}, which is not supported: {instead}{OR_ONNXRUNTIME}")]
    ForOnnxruntime {
        /// The node, operator or value.
        what: String,
        /// What would work.
        instead: String,
    },
    /// It is nothing that is known.
    #[error("{0}")]
    Unknown(String),
}

/// What else would work, if that is not tried anyway.
const OR_ONNXRUNTIME: &str = if cfg!(feature = "onnxruntime") {
    ""
} else {
    "; or a disrust that is built with --features onnxruntime, which has a libonnxruntime of yours score it"
};

/// Reads a model file of any supported format, which its first bytes tell, and checks it. `features` is how many the operator
/// says that a row has, for a file that does not say so itself.
///
/// # Errors
/// If it is none, is malformed, or holds what is not supported.
pub fn read(bytes: &[u8], features: Option<usize>) -> Result<Form, ReadError> {
    let form = match bytes {
        _ if lightgbm::is_lightgbm(bytes) => lightgbm::read(bytes)?,
        _ if xgboost::is_ubj(bytes) => xgboost::read_ubj(bytes)?,
        _ if xgboost::is_json(bytes) => xgboost::read_json(bytes)?,
        _ if catboost::is_catboost(bytes) => catboost::read(bytes)?,
        _ if onnx::is_onnx(bytes) => onnx::read(bytes, features)?,
        _ => return Err(xgboost::refusal(bytes).unwrap_or_else(|| strangers::refusal(bytes))),
    };
    form.check().map_err(|error| ReadError::Malformed { format: "model", what: error.to_string() })?;
    Ok(form)
}
