//! Sums, means and the index of the largest value along one of a row's own axes.

use super::{Results, one};
use crate::form::{Operand, Operation, Step, Transform, Value};
use crate::read::ReadError;
use crate::read::onnx::evaluate::Call;
use crate::read::onnx::rows::{Element, Rows};

/// The axes were an attribute before version 13 (`ReduceSum`) or 18 (`ReduceMean`).
pub(super) fn reduce(call: &mut Call<'_>, is_mean: bool) -> Results {
    call.inputs_max(2)?;
    let rows = call.floats(0)?;
    let keeps = call.node.integer("keepdims")?.unwrap_or(1) != 0;
    call.node.ignore("noop_with_empty_axes");
    let axes = call.attribute_or_input("axes", 1)?.unwrap_or_default();
    let [axis] = axes.as_slice() else {
        return Err(call.node.unsupported(format!("the axes {axes:?}"), "one axis is"));
    };
    let own = rows.own_axis(&call.node, *axis)?;
    let mut value = sum(call, &rows, own)?;
    if is_mean {
        let (left, right) = (Operand::Value(value), Operand::Constant(vec![rows.dims[own] as f32]));
        value = call.push(Step::Arithmetic { operation: Operation::Divide, left, right })?;
    }
    one(without(&rows, own, keeps, value, Element::Float))
}

/// In order, from the first one on. A whole row is a product with ones; of several sums, slices are added, so that what is no
/// number in one of them stays there.
fn sum(call: &mut Call<'_>, rows: &Rows, axis: usize) -> Result<Value, ReadError> {
    let (length, width) = (rows.dims[axis], rows.width());
    if length == width {
        return call.push(Step::Linear { input: rows.value, weights: vec![1.0; width], bias: vec![0.0] });
    }
    let after: usize = rows.dims[axis + 1..].iter().product();
    let slice = |place: usize| {
        let starts = (0..width / after / length).map(|block| (block * length + place) * after);
        starts.flat_map(|start| start..start + after).collect()
    };
    let mut sum = call.program.select(&call.node, rows.value, slice(0))?;
    for place in 1..length {
        let next = call.program.select(&call.node, rows.value, slice(place))?;
        let (left, right) = (Operand::Value(sum), Operand::Value(next));
        sum = call.push(Step::Arithmetic { operation: Operation::Add, left, right })?;
    }
    Ok(sum)
}

/// The shape of rows that have one value along an axis, or not even the axis.
fn without(rows: &Rows, axis: usize, keeps: bool, value: Value, element: Element) -> Rows {
    let mut reduced = rows.with(value, element);
    if keeps {
        reduced.dims[axis] = 1;
    } else {
        reduced.dims.remove(axis);
        reduced.batch -= usize::from(axis < reduced.batch);
    }
    reduced
}

pub(super) fn arg_max(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let rows = call.flat_floats(0)?;
    let axis = call.node.integer("axis")?.unwrap_or_default();
    let keeps = call.node.integer("keepdims")?.unwrap_or(1) != 0;
    let own = rows.own_axis(&call.node, axis)?;
    if call.node.integer("select_last_index")?.unwrap_or_default() != 0 {
        return Err(call.node.unsupported("select_last_index", "the first index of equals is"));
    }
    let value = call.push(Step::Apply { input: rows.value, transform: Transform::ArgMax })?;
    one(without(&rows, own, keeps, value, Element::Integer))
}
