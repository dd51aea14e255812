//! Products with constant matrices, and the linear models of `ai.onnx.ml`.

use super::arithmetic::floats_of;
use super::{Results, labels, one};
use crate::form::{Step, Value};
use crate::read::ReadError;
use crate::read::onnx::evaluate::Call;
use crate::read::onnx::post::{Post, minus_and_itself, one_minus_and_itself};
use crate::read::onnx::rows::{Element, Known, Rows};
use crate::read::onnx::tensor::Tensor;

/// `alpha × A B + beta × C`, A being the rows.
pub(super) fn gemm(call: &mut Call<'_>) -> Results {
    call.inputs_max(3)?;
    let rows = call.flat_floats(0)?;
    let (alpha, beta) = (call.node.float("alpha")?.unwrap_or(1.0), call.node.float("beta")?.unwrap_or(1.0));
    if call.node.integer("transA")?.unwrap_or_default() != 0 {
        return Err(call.node.unsupported("transA", "rows are rows: transA=0 is"));
    }
    let is_turned = call.node.integer("transB")?.unwrap_or_default() != 0;
    let matrix = call.constant(1)?.clone();
    let (mut weights, outputs) = weights_of(call, &rows, &matrix, is_turned)?;
    if alpha != 1.0 {
        weights.iter_mut().for_each(|weight| *weight *= alpha);
    }
    let mut bias = vec![0.0; outputs];
    if call.optional(2).is_some() {
        let tensor = call.constant(2)?.clone();
        let numbers = floats_of(call, &tensor)?;
        let is_row = tensor.dims.len() < 2 || tensor.dims[..tensor.dims.len() - 1].iter().all(|dim| *dim == 1);
        if !is_row || numbers.len() != 1 && numbers.len() != outputs {
            let what = format!("a bias of dimensions {:?} for {outputs} outputs", tensor.dims);
            return Err(call.node.unsupported(what, "one number for each output is"));
        }
        let number = |index: usize| if numbers.len() == 1 { numbers[0] } else { numbers[index] };
        bias.iter_mut().enumerate().for_each(|(index, place)| *place = beta * number(index));
    }
    let value = call.push(Step::Gemm { input: rows.value, weights, bias })?;
    one(Rows::flat(value, outputs, Element::Float))
}

pub(super) fn mat_mul(call: &mut Call<'_>) -> Results {
    call.inputs_max(2)?;
    let rows = call.flat_floats(0)?;
    let matrix = call.constant(1)?.clone();
    // A vector gives one number, and no dimension for it.
    let is_vector = matrix.dims.len() == 1;
    let columns = if is_vector { matrix.reshaped(vec![matrix.dims[0], 1]) } else { matrix };
    let (weights, outputs) = weights_of(call, &rows, &columns, false)?;
    let value = call.push(Step::Gemm { input: rows.value, weights, bias: vec![0.0; outputs] })?;
    let dims = if is_vector { Vec::new() } else { vec![outputs] };
    one(Rows { value, dims, batch: 0, element: Element::Float })
}

/// A matrix `[inputs, outputs]`, or the other way round if it is turned, output by output; and how many outputs there are.
fn weights_of(
    call: &mut Call<'_>,
    rows: &Rows,
    matrix: &Tensor,
    is_turned: bool,
) -> Result<(Vec<f32>, usize), ReadError> {
    let numbers = floats_of(call, matrix)?;
    let (inputs, outputs) = match (matrix.dims.as_slice(), is_turned) {
        ([inputs, outputs], false) | ([outputs, inputs], true) => (*inputs, *outputs),
        (dims, _) => return Err(call.node.unsupported(format!("a factor of dimensions {dims:?}"), "a matrix is")),
    };
    if inputs != rows.width() || outputs == 0 {
        let columns = rows.width();
        return Err(call
            .node
            .malformed(format!("multiplies {columns} columns with a matrix for {inputs} ({outputs} outputs)")));
    }
    call.program.spend(&call.node, numbers.len())?;
    let weights = match is_turned {
        true => numbers.to_vec(),
        false => (0..outputs)
            .flat_map(|output| (0..inputs).map(move |input| input * outputs + output))
            .map(|at| numbers[at])
            .collect(),
    };
    Ok((weights, outputs))
}

pub(super) fn regressor(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let rows = call.flat_floats(0)?;
    let targets = call.node.integer("targets")?.unwrap_or(1);
    let Some(targets) = usize::try_from(targets).ok().filter(|targets| *targets > 0) else {
        return Err(call.node.malformed(format!("has {targets} targets")));
    };
    let bias = call.node.floats("intercepts")?.filter(|intercepts| !intercepts.is_empty());
    let coefficients = call.node.floats("coefficients")?.unwrap_or_default();
    check_coefficients(call, &rows, coefficients.len(), targets)?;
    let bias = bias.unwrap_or_else(|| vec![0.0; targets]);
    if bias.len() != targets {
        return Err(call.node.malformed(format!("has {} intercepts for {targets} targets", bias.len())));
    }
    let post = Post::of_name(call)?;
    let sums = call.push(Step::Gemm { input: rows.value, weights: coefficients, bias })?;
    let value = post.apply_to_targets(call, sums)?;
    one(Rows::flat(value, targets, Element::Float))
}

fn check_coefficients(call: &Call<'_>, rows: &Rows, coefficients: usize, outputs: usize) -> Result<(), ReadError> {
    let columns = rows.width();
    match columns.checked_mul(outputs) == Some(coefficients) {
        true => Ok(()),
        false => {
            let what = format!("has {coefficients} coefficients for {columns} columns and {outputs} outputs");
            Err(call.node.malformed(what))
        }
    }
}

/// Gives labels, which nobody computes, and scores.
pub(super) fn classifier(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    // Doubles are cut to floats first.
    let rows = call.flat(0)?;
    if rows.element != Element::Double {
        call.flat_floats(0)?;
    }
    // It says how the model was trained, and changes nothing.
    call.node.ignore("multi_class");
    let bias = call.node.floats("intercepts")?.unwrap_or_default();
    let weights = call.node.floats("coefficients")?.unwrap_or_default();
    let outputs = bias.len();
    if outputs == 0 {
        return Err(call.node.unsupported("no intercepts", "one for each class is"));
    }
    check_coefficients(call, &rows, weights.len(), outputs)?;
    let labels = labels(call, "classlabels_ints", "classlabels_strings")?;
    let post = Post::of_name(call)?;
    let sums = call.push(Step::Gemm { input: rows.value, weights, bias })?;
    let scores = match (outputs, labels.len()) {
        (1, 2) => one_row_of_two(call, post, sums)?,
        (outputs @ 2.., classes) if outputs == classes => post.apply_to_targets(call, sums)?,
        (outputs, classes) => {
            return Err(call.node.malformed(format!("has {classes} labels and {outputs} intercepts")));
        }
    };
    let width = call.program.widths[scores];
    call.program.labels = Some(labels);
    Ok(vec![Known::Labels, Known::Rows(Rows::flat(scores, width, Element::Float))])
}

/// onnxruntime takes the sum, or with LOGISTIC what that gives, for the probability of the second class. (Up to 1.26 the sum in
/// any case, which the specification does not say.)
fn one_row_of_two(call: &mut Call<'_>, post: Post, sums: Value) -> Result<Value, ReadError> {
    match post {
        Post::Logistic => {
            let sums = minus_and_itself(call, sums)?;
            post.apply(call, sums)
        }
        Post::Probit => Err(call.node.unsupported("PROBIT for one row of coefficients", "one row for each class is")),
        _ => one_minus_and_itself(call, sums),
    }
}
