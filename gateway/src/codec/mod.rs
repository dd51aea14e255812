//! Bodies of inference: from the bytes of a request to rows, from scores to the bytes of an answer.
//!
//! It knows no HTTP and no server: bytes in, numbers out, and the other way round. What comes is from whoever reaches the gateway, so
//! nothing here panics, allocates by what is only claimed, or reads a number as another one; `tests/codec.rs` and
//! `fuzz/fuzz_targets/kserve.rs` hold that.
//!
//! The protocol is KServe's (`inference_rest.md` of kserve/open-inference-protocol) with Triton's binary tensors
//! (`extension_binary_data.md` of triton-inference-server/server).
#![forbid(unsafe_code)]

mod answer;
mod json;
mod request;
mod tensor;

use thiserror::Error;

pub(crate) use answer::write_string;
pub use answer::{EncodedAnswer, write_answer};
pub use request::{InferRequest, read_request};

/// What a model takes and gives, and what the tensors are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Features of a row.
    pub features: usize,
    /// Scores of a row.
    pub outputs: usize,
    /// The name of the tensor of rows.
    pub input_name: String,
    /// The name of the tensor of scores.
    pub output_name: String,
}

/// The datatype of both tensors.
pub const DATATYPE: &str = "FP32";

/// How a tensor is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Numbers in the JSON text.
    Json,
    /// Little-endian bytes behind the JSON text.
    Binary,
}

/// Why a request is not understood, for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct BadRequest(String);

impl BadRequest {
    pub(crate) fn new(why: impl Into<String>) -> BadRequest {
        BadRequest(why.into())
    }
}
