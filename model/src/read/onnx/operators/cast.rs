//! What leaves numbers as they are, or changes their type.

use super::{Results, one, truth};
use crate::read::ReadError;
use crate::read::onnx::evaluate::Call;
use crate::read::onnx::rows::{Element, Known};
use crate::read::onnx::tensor::{Numbers, Tensor, element};

pub(super) fn identity(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    match call.optional(0) {
        Some(Known::Labels) | None => call.rows(0).map(|_| Vec::new()),
        Some(known) => Ok(vec![known.clone()]),
    }
}

/// Nothing is dropped where nothing is trained.
pub(super) fn dropout(call: &mut Call<'_>) -> Results {
    call.inputs_max(3)?;
    for name in ["ratio", "seed"] {
        call.node.ignore(name);
    }
    let trains = match call.optional(2) {
        None => false,
        Some(_) => call.integers(2)? != Some(vec![0]),
    };
    if trains {
        return Err(call.node.unsupported("training_mode", "export the model for inference (model.eval())"));
    }
    one(call.rows(0)?)
}

pub(super) fn cast(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    // Both are about types of 8 bits.
    for name in ["saturate", "round_mode"] {
        call.node.ignore(name);
    }
    let to = call.node.integer("to")?.and_then(|to| i32::try_from(to).ok());
    let to = to.ok_or_else(|| call.node.malformed("does not say to what"))?;
    match call.optional(0) {
        Some(Known::Constant(tensor)) => {
            let tensor = tensor.clone();
            call.program.spend(&call.node, tensor.numbers.len())?;
            cast_constant(call, &tensor, to).map(|tensor| vec![Known::Constant(tensor)])
        }
        Some(extents @ Known::Extents(_)) if to == element::INT64 => Ok(vec![extents.clone()]),
        _ => cast_rows(call, to),
    }
}

fn cast_rows(call: &mut Call<'_>, to: i32) -> Results {
    let rows = call.rows(0)?;
    let element = match (to, rows.element) {
        (element::FLOAT, _) => Element::Float,
        // What was a float, or a small integer, is one still.
        (element::DOUBLE, _) => Element::Double,
        (element::INT64 | element::INT32, Element::Integer | Element::Truth) => Element::Integer,
        (element::BOOL, Element::Truth) => Element::Truth,
        (element::BOOL, _) => return truth::not_zero(call, &rows),
        (element::INT64 | element::INT32, Element::Float | Element::Double) => {
            let what = format!("a cast of floats to {}", element::name(to));
            return Err(call.node.unsupported(what, "export the model with float inputs"));
        }
        _ => {
            let what = format!("a cast to {}", element::name(to));
            return Err(call.node.unsupported(what, "casts to float are"));
        }
    };
    one(rows.with(rows.value, element))
}

fn cast_constant(call: &Call<'_>, tensor: &Tensor, to: i32) -> Result<Tensor, ReadError> {
    let numbers = match (to, &tensor.numbers) {
        (element::FLOAT, _) => tensor.to_f32().map(Numbers::F32),
        (element::DOUBLE, Numbers::F32(numbers)) => {
            Some(Numbers::F64(numbers.iter().map(|number| f64::from(*number)).collect()))
        }
        (element::DOUBLE, Numbers::F64(_)) | (element::INT64 | element::INT32, Numbers::Integers(_)) => {
            Some(tensor.numbers.clone())
        }
        _ => None,
    };
    let what = || format!("a cast of a constant to {}", element::name(to));
    let numbers = numbers.ok_or_else(|| call.node.unsupported(what(), "casts between floats are"))?;
    Ok(Tensor::new(tensor.dims.clone(), numbers))
}
