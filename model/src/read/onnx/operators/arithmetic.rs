//! Element by element: sums, products, activations.

use super::{Results, one};
use crate::form::{Operand, Operation, Step, Transform};
use crate::read::ReadError;
use crate::read::onnx::evaluate::Call;
use crate::read::onnx::rows::{Axis, Element, Known, Rows, broadcast, mixes, together, width_of};
use crate::read::onnx::tensor::{Numbers, Tensor};

pub(super) fn binary(call: &mut Call<'_>, operation: Operation) -> Results {
    call.inputs_max(2)?;
    let sides = [side(call, 0)?, side(call, 1)?];
    Ok(vec![combine(call, operation, sides)?])
}

/// Any number of inputs, added from the first one on.
pub(super) fn sum(call: &mut Call<'_>) -> Results {
    let mut sum = side(call, 0)?;
    for index in 1..call.inputs.len() {
        let next = side(call, index)?;
        sum = combine(call, Operation::Add, [sum, next])?;
    }
    Ok(vec![sum])
}

/// A constant, or rows of floats.
fn side(call: &Call<'_>, index: usize) -> Result<Known, ReadError> {
    match call.optional(index) {
        Some(Known::Constant(tensor)) => Ok(Known::Constant(tensor.clone())),
        _ => call.floats(index).map(Known::Rows),
    }
}

fn combine(call: &mut Call<'_>, operation: Operation, sides: [Known; 2]) -> Result<Known, ReadError> {
    match sides {
        [Known::Constant(left), Known::Constant(right)] => fold(call, operation, &left, &right).map(Known::Constant),
        [Known::Rows(left), Known::Rows(right)] => of_rows(call, operation, &left, &right).map(Known::Rows),
        [Known::Rows(rows), Known::Constant(tensor)] => with_constant(call, operation, &rows, &tensor, false),
        [Known::Constant(tensor), Known::Rows(rows)] => with_constant(call, operation, &rows, &tensor, true),
        _ => Err(call.node.malformed("computes with shapes")),
    }
}

fn fold(call: &mut Call<'_>, operation: Operation, left: &Tensor, right: &Tensor) -> Result<Tensor, ReadError> {
    let rank = left.dims.len().max(right.dims.len());
    let (left_dims, right_dims) = (padded(&left.dims, rank), padded(&right.dims, rank));
    let dims = together(&left_dims, &right_dims).ok_or_else(|| do_not_fit(call, &left.dims, &right.dims))?;
    let width = width_of(&call.node, &dims)?;
    call.program.spend(&call.node, width)?;
    let (left, right) = (floats_of(call, left)?, floats_of(call, right)?);
    let places = broadcast(&left_dims, &dims).into_iter().zip(broadcast(&right_dims, &dims));
    let numbers = places.map(|(left_at, right_at)| match operation {
        Operation::Add => left[left_at] + right[right_at],
        Operation::Subtract => left[left_at] - right[right_at],
        Operation::Multiply => left[left_at] * right[right_at],
        Operation::Divide => left[left_at] / right[right_at],
    });
    Ok(Tensor::new(dims.clone(), Numbers::F32(numbers.collect())))
}

fn of_rows(call: &mut Call<'_>, operation: Operation, left: &Rows, right: &Rows) -> Result<Rows, ReadError> {
    let rank = left.rank().max(right.rank());
    let (pad_left, pad_right) = (rank - left.rank(), rank - right.rank());
    let batch = left.batch + pad_left;
    if batch != right.batch + pad_right {
        return Err(mixes(&call.node, &format!("the shapes {} and {}", left.shape(), right.shape())));
    }
    let (left_dims, right_dims) = (padded(&left.dims, rank - 1), padded(&right.dims, rank - 1));
    let dims = together(&left_dims, &right_dims).ok_or_else(|| do_not_fit(call, &left.dims, &right.dims))?;
    width_of(&call.node, &dims)?;
    let left = Operand::Value(repeated(call, left, &left_dims, &dims)?);
    let right = Operand::Value(repeated(call, right, &right_dims, &dims)?);
    let value = call.push(Step::Arithmetic { operation, left, right })?;
    Ok(Rows { value, dims, batch, element: Element::Float })
}

/// The value of rows of dimensions `from` under dimensions `to`, unless one column serves all.
fn repeated(call: &mut Call<'_>, rows: &Rows, from: &[usize], to: &[usize]) -> Result<usize, ReadError> {
    if rows.width() == 1 || from == to {
        return Ok(rows.value);
    }
    call.program.select(&call.node, rows.value, broadcast(from, to))
}

fn with_constant(
    call: &mut Call<'_>,
    operation: Operation,
    rows: &Rows,
    tensor: &Tensor,
    constant_is_left: bool,
) -> Result<Known, ReadError> {
    let rank = rows.rank().max(tensor.dims.len());
    let batch = rows.batch + rank - rows.rank();
    let rows_dims = padded(&rows.dims, rank - 1);
    let mut tensor_dims = padded(&tensor.dims, rank);
    if tensor_dims.remove(batch) != 1 {
        let what = format!("a constant of dimensions {:?} for rows of shape {}", tensor.dims, rows.shape());
        return Err(mixes(&call.node, &what));
    }
    let dims = together(&rows_dims, &tensor_dims).ok_or_else(|| do_not_fit(call, &rows.dims, &tensor.dims))?;
    width_of(&call.node, &dims)?;
    let numbers = floats_of(call, tensor)?;
    let changes_nothing = operation == Operation::Multiply || operation == Operation::Divide && !constant_is_left;
    if changes_nothing && dims == rows_dims && numbers.iter().all(|number| *number == 1.0) {
        return Ok(Known::Rows(Rows { dims, batch, ..rows.clone() }));
    }
    let constant = match numbers.len() {
        1 => numbers.to_vec(),
        _ => broadcast(&tensor_dims, &dims).iter().map(|index| numbers[*index]).collect(),
    };
    let constant = Operand::Constant(constant);
    let value = if constant_is_left || dims == rows_dims || rows.width() == 1 {
        rows.value
    } else {
        repeated(call, rows, &rows_dims, &dims)?
    };
    let value = Operand::Value(value);
    let (left, right) = if constant_is_left { (constant, value) } else { (value, constant) };
    let value = call.push(Step::Arithmetic { operation, left, right })?;
    Ok(Known::Rows(Rows { value, dims, batch, element: Element::Float }))
}

/// Dimensions with ones in front.
fn padded(dims: &[usize], rank: usize) -> Vec<usize> {
    let mut padded = vec![1; rank - dims.len()];
    padded.extend_from_slice(dims);
    padded
}

fn do_not_fit(call: &Call<'_>, left: &[usize], right: &[usize]) -> ReadError {
    call.node.malformed(format!("combines dimensions {left:?} and {right:?}, which do not fit together"))
}

/// The numbers of a constant that is to be of floats.
pub(super) fn floats_of(call: &Call<'_>, tensor: &Tensor) -> Result<std::rc::Rc<[f32]>, ReadError> {
    match &tensor.numbers {
        Numbers::F32(numbers) => Ok(numbers.clone()),
        Numbers::F64(_) => {
            let instead = "export the model in float (FloatTensorType)";
            Err(call.node.unsupported("constants in double", instead))
        }
        Numbers::Integers(_) | Numbers::Text(_) => {
            Err(call.node.unsupported("constants that are no floats", "floats are"))
        }
    }
}

/// A function of each element.
pub(super) fn apply(call: &mut Call<'_>, transform: Transform) -> Results {
    call.inputs_max(1)?;
    apply_to_first(call, transform)
}

fn apply_to_first(call: &mut Call<'_>, transform: Transform) -> Results {
    let rows = call.floats(0)?;
    let value = call.push(Step::Apply { input: rows.value, transform })?;
    one(rows.with(value, Element::Float))
}

pub(super) fn negate(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let rows = call.floats(0)?;
    let (left, right) = (Operand::Value(rows.value), Operand::Constant(vec![-1.0]));
    let value = call.push(Step::Arithmetic { operation: Operation::Multiply, left, right })?;
    one(rows.with(value, Element::Float))
}

/// A function that is the last of many a model.
pub(super) fn link(call: &mut Call<'_>, transform: Transform) -> Results {
    let input = call.floats(0)?.value;
    let results = apply(call, transform)?;
    remember_margin(call, &results, input);
    Ok(results)
}

/// Over the last axis from version 13 on; before, over all of a row from an axis on.
pub(super) fn softmax(call: &mut Call<'_>) -> Results {
    let rows = call.floats(0)?;
    let (axis, to_the_end) = if call.version >= 13 { (-1, false) } else { (1, true) };
    let axis = call.node.integer("axis")?.unwrap_or(axis);
    let first = rows.axis(&call.node, axis)?;
    let whole = rows.batch == 0 && first == Axis::Row(0) && (to_the_end || rows.dims.len() == 1);
    if !whole {
        return Err(mixes(&call.node, &format!("axis {axis} of the shape {}", rows.shape())));
    }
    let results = apply(call, Transform::Softmax)?;
    remember_margin(call, &results, rows.value);
    call.program.softmax = Some(call.program.steps.len());
    Ok(results)
}

/// What the last transform of a model is applied to is its margin.
fn remember_margin(call: &mut Call<'_>, results: &[Known], margin: usize) {
    if let [Known::Rows(rows)] = results {
        call.program.margins.insert(rows.value, margin);
    }
}

pub(super) fn leaky_relu(call: &mut Call<'_>) -> Results {
    let slope = call.node.float("alpha")?.unwrap_or(0.01);
    apply(call, Transform::LeakyRelu { slope })
}

pub(super) fn elu(call: &mut Call<'_>) -> Results {
    let scale = call.node.float("alpha")?.unwrap_or(1.0);
    apply(call, Transform::Elu { scale })
}

/// The bounds were attributes before version 11.
pub(super) fn clip(call: &mut Call<'_>) -> Results {
    call.inputs_max(3)?;
    let bounds = [call.node.float("min")?, call.node.float("max")?];
    let bound = |index: usize| match (bounds[index], call.optional(index + 1)) {
        (Some(bound), _) => Ok(Some(bound)),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let numbers = floats_of(call, call.constant(index + 1)?)?;
            let one = numbers.first().copied().filter(|_| numbers.len() == 1);
            one.map(Some).ok_or_else(|| call.node.malformed(format!("has {} bounds on a side", numbers.len())))
        }
    };
    // Without a bound, infinities become the largest finite numbers.
    let (low, high) = (bound(0)?.unwrap_or(f32::MIN), bound(1)?.unwrap_or(f32::MAX));
    apply_to_first(call, Transform::Clamp { low, high })
}
