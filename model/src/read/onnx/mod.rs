//! ONNX: opset 7 to 27, ai.onnx.ml 1 to 5, as skl2onnx, onnxmltools, CatBoost and PyTorch write models of rows of features.
//!
//! A graph is computed symbolically, from the output that is served back to the inputs ([`evaluate`]). What depends on the rows
//! is a value of the form's program, what does not is a constant, and all that is not understood is refused by the name of the
//! node. Semantics are onnxruntime's.
//!
//! The order of reading: [`proto`] decodes, [`graph`] knows what is where, [`inputs`] how wide a row is, [`operators`] and
//! [`trees`] what nodes do, [`output`] which output is served.

mod errors;
mod evaluate;
mod graph;
mod inputs;
mod narrow;
mod node;
mod operators;
mod output;
mod post;
mod program;
mod proto;
mod rows;
mod tensor;
#[cfg(test)]
mod tests;
mod trees;
#[cfg(feature = "onnxruntime")]
mod whole;

#[cfg(feature = "onnxruntime")]
pub(crate) use self::{errors::quoted, whole::is_whole};

use prost::bytes::Bytes;

use self::errors::for_onnxruntime;
use self::evaluate::Evaluation;
use self::graph::Graph;
use self::inputs::Features;
use self::output::Served;
use super::ReadError;
use crate::form::Form;

/// Whether the bytes look like an ONNX file.
pub(super) fn is_onnx(bytes: &[u8]) -> bool {
    proto::is_model(bytes)
}

/// Reads a file. `features` is how many the operator says that a row has, for a graph whose input does not say so.
///
/// # Errors
/// If it is malformed or holds what is not supported. Of what comes in and goes out onnxruntime would not know better.
pub(super) fn read(bytes: &[u8], features: Option<usize>) -> Result<Form, ReadError> {
    let graph = Graph::decode(&Bytes::copy_from_slice(bytes)).map_err(for_onnxruntime)?;
    let features_of_row = Features::of(&graph, features)?;
    let served = Served::of(&graph)?;
    let evaluation = Evaluation::new(graph, &features_of_row, bytes.len()).map_err(for_onnxruntime)?;
    served.compute(evaluation, features_of_row.names).map_err(for_onnxruntime)
}
