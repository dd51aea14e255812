//! What scales, fills in and normalizes features.

use super::arithmetic::floats_of;
use super::{Results, one};
use crate::form::{Norm, Operand, Operation, Step};
use crate::read::ReadError;
use crate::read::onnx::errors::quoted;
use crate::read::onnx::evaluate::Call;
use crate::read::onnx::rows::{Element, Rows};

/// `(x − offset) × scale`.
pub(super) fn scaler(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let rows = call.flat_floats(0)?;
    let offset = call.node.floats("offset")?.unwrap_or_default();
    let scale = call.node.floats("scale")?.unwrap_or_default();
    if offset.len() != scale.len() {
        return Err(call.node.malformed(format!("has {} offsets and {} scales", offset.len(), scale.len())));
    }
    let (offset, scale) = (one_or_each(call, offset, rows.width())?, one_or_each(call, scale, rows.width())?);
    let value = call.push(Step::Scale { input: rows.value, offset, scale })?;
    one(rows.with(value, Element::Float))
}

/// One number for each column, of a list of one for all or for each.
fn one_or_each(call: &Call<'_>, numbers: Vec<f32>, width: usize) -> Result<Vec<f32>, ReadError> {
    match numbers.as_slice() {
        [one] => Ok(vec![*one; width]),
        _ if numbers.len() == width => Ok(numbers),
        _ => Err(call.node.malformed(format!("has {} numbers for {width} columns", numbers.len()))),
    }
}

pub(super) fn imputer(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let rows = call.flat_floats(0)?;
    let missing = call.node.float("replaced_value_float")?.unwrap_or_default();
    let values = call.node.floats("imputed_value_floats")?.unwrap_or_default();
    call.node.ignore("replaced_value_int64");
    let values = one_or_each(call, values, rows.width())?;
    let value = call.push(Step::Impute { input: rows.value, missing, values })?;
    one(rows.with(value, Element::Float))
}

pub(super) fn normalizer(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    // Doubles that are floats have the same squares and norms, rounded to float.
    let rows = call.flat(0)?;
    if rows.element != Element::Double {
        call.flat_floats(0)?;
    }
    let norm = match call.node.text("norm")?.as_deref() {
        None | Some("MAX") => Norm::Max,
        Some("L1") => Norm::L1,
        Some("L2") => Norm::L2,
        Some(norm) => return Err(call.node.unsupported(format!("norm {}", quoted(norm)), "MAX, L1 and L2 are")),
    };
    normalize(call, &rows, norm)
}

/// The same of the default domain, for probabilities.
pub(super) fn lp_normalization(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let rows = call.flat_floats(0)?;
    let axis = call.node.integer("axis")?.unwrap_or(-1);
    rows.own_axis(&call.node, axis)?;
    match call.node.integer("p")?.unwrap_or(2) {
        1 => normalize(call, &rows, Norm::L1),
        p => Err(call.node.unsupported(format!("p {p}"), "p=1 is")),
    }
}

fn normalize(call: &mut Call<'_>, rows: &Rows, norm: Norm) -> Results {
    let value = call.push(Step::Normalize { input: rows.value, norm })?;
    // Probabilities that are made to add up to 1 are still those of the margin.
    if let Some(margin) = call.program.margins.get(&rows.value).copied().filter(|_| norm == Norm::L1) {
        call.program.margins.insert(value, margin);
    }
    one(rows.with(value, Element::Float))
}

/// `(x − mean) / √(variance + epsilon) × scale + bias`, with what training has found.
pub(super) fn batch_normalization(call: &mut Call<'_>) -> Results {
    call.inputs_max(5)?;
    let rows = call.flat_floats(0)?;
    let epsilon = call.node.float("epsilon")?.unwrap_or(1e-5);
    call.node.ignore("momentum");
    if call.node.integer("training_mode")?.unwrap_or_default() != 0 {
        return Err(call.node.unsupported("training_mode", "export the model for inference (model.eval())"));
    }
    let mut lists = Vec::new();
    for index in 1..=4 {
        let numbers = floats_of(call, call.constant(index)?)?;
        if numbers.len() != rows.width() {
            let (count, width) = (numbers.len(), rows.width());
            return Err(call.node.malformed(format!("has {count} numbers as input {index} for {width} columns")));
        }
        lists.push(numbers);
    }
    let [factor, bias, mean, variance] = lists.as_slice() else { unreachable!("four lists") };
    let factors = factor.iter().zip(variance.iter());
    let scale = factors.map(|(factor, variance)| factor / (variance + epsilon).sqrt()).collect();
    let value = call.push(Step::Scale { input: rows.value, offset: mean.to_vec(), scale })?;
    let (left, right) = (Operand::Value(value), Operand::Constant(bias.to_vec()));
    let value = call.push(Step::Arithmetic { operation: Operation::Add, left, right })?;
    one(rows.with(value, Element::Float))
}
