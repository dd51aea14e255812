//! All steps but the trees: a handful of arithmetic for each row, plainly written, in f32.
#![forbid(unsafe_code)]

use super::Place;
use super::gemm::Gemm;
use crate::form::{Norm, Operand, Operation, Step};
use crate::rows::F32_BYTES;

/// A step that is no tree.
pub(super) enum Dense {
    Step(Step),
    /// What is multiplied, and with what.
    Gemm(usize, Gemm),
}

impl Dense {
    /// # Panics
    /// If the step is one of trees.
    pub fn new(step: Step) -> Dense {
        Dense::Step(match step {
            Step::Trees { .. } => panic!("trees have an engine of their own"),
            Step::Gemm { input, weights, bias } => return Dense::Gemm(input, Gemm::new(&weights, bias)),
            // Input by input: the sums of all outputs grow together, which the compiler vectorizes without reordering any.
            Step::Linear { input, weights, bias } => {
                let (outputs, inputs) = (bias.len(), weights.len() / bias.len());
                let turned = (0..weights.len()).map(|at| weights[at % outputs * inputs + at / outputs]).collect();
                Step::Linear { input, weights: turned, bias }
            }
            step => step,
        })
    }

    pub fn bytes(&self) -> usize {
        let step = match self {
            Dense::Step(step) => step,
            Dense::Gemm(_, gemm) => return size_of::<Dense>() + gemm.bytes(),
        };
        let numbers = match step {
            Step::Linear { weights, bias, .. } => weights.len() + bias.len(),
            Step::Scale { offset, scale, .. } => offset.len() + scale.len(),
            Step::Impute { values, .. } => values.len(),
            Step::Select { columns, .. } => 2 * columns.len(),
            _ => 0,
        };
        size_of::<Dense>() + numbers * F32_BYTES
    }

    /// Computes value `result` of `rows` rows.
    pub fn run(&self, arena: &mut [f32], places: &[Place], result: usize, rows: usize) {
        let columns = places[result].width;
        // Values lie in the order of the program: what a step reads is before what it writes.
        let (before, after) = arena.split_at_mut(places[result].start);
        let before = &*before;
        let results = after[..rows * columns].chunks_exact_mut(columns);
        let of = |value: usize| before[places[value].range(rows)].chunks_exact(places[value].width);
        let step = match self {
            Dense::Step(step) => step,
            Dense::Gemm(input, gemm) => {
                return gemm.run(&before[places[*input].range(rows)], &mut after[..rows * columns]);
            }
        };
        match step {
            Step::Trees { .. } | Step::Gemm { .. } => unreachable!("made into something else"),
            Step::Linear { input, weights, bias } => {
                for (row, sums) in of(*input).zip(results) {
                    sums.copy_from_slice(bias);
                    for (x, weights) in row.iter().zip(weights.chunks_exact(columns)) {
                        sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight * x);
                    }
                }
            }
            Step::Scale { input, offset, scale } => {
                for (row, scaled) in of(*input).zip(results) {
                    let factors = offset.iter().zip(scale);
                    for ((x, place), (offset, scale)) in row.iter().zip(scaled).zip(factors) {
                        *place = (x - offset) * scale;
                    }
                }
            }
            Step::Impute { input, missing, values } => {
                for (row, imputed) in of(*input).zip(results) {
                    for ((x, place), value) in row.iter().zip(imputed).zip(values) {
                        let is_missing = if missing.is_nan() { x.is_nan() } else { x == missing };
                        *place = if is_missing { *value } else { *x };
                    }
                }
            }
            Step::Normalize { input, norm } => {
                for (row, divided) in of(*input).zip(results) {
                    normalize(row, *norm, divided);
                }
            }
            Step::Arithmetic { operation, left, right } => {
                for (row, result) in results.enumerate() {
                    let left = Side::of(left, before, places, row);
                    let right = Side::of(right, before, places, row);
                    for (column, place) in result.iter_mut().enumerate() {
                        let (left, right) = (left.at(column), right.at(column));
                        *place = match operation {
                            Operation::Add => left + right,
                            Operation::Subtract => left - right,
                            Operation::Multiply => left * right,
                            Operation::Divide => left / right,
                        };
                    }
                }
            }
            Step::Apply { input, transform } => {
                if transform.columns(places[*input].width) == places[*input].width {
                    for (row, result) in of(*input).zip(results) {
                        result.copy_from_slice(row);
                        transform.apply(result);
                    }
                } else {
                    for (row, result) in of(*input).zip(results) {
                        let mut row = row.to_vec();
                        transform.apply(&mut row);
                        result.copy_from_slice(&row[..columns]);
                    }
                }
            }
            Step::Concat { inputs } => {
                for (row, result) in results.enumerate() {
                    let mut end = 0;
                    for input in inputs {
                        let Place { start, width } = places[*input];
                        let from = start + row * width;
                        result[end..end + width].copy_from_slice(&before[from..from + width]);
                        end += width;
                    }
                }
            }
            Step::Select { input, columns } => {
                for (row, chosen) in of(*input).zip(results) {
                    columns.iter().zip(chosen).for_each(|(column, place)| *place = row[*column]);
                }
            }
        }
    }
}

/// As onnxruntime does it: a row whose norm is 0 stays as it is, and for L2 squares are divided, so that what overflows there
/// overflows here.
fn normalize(row: &[f32], norm: Norm, divided: &mut [f32]) {
    let norm_of_row: f32 = match norm {
        Norm::Max => row.iter().copied().fold(f32::MIN, f32::max),
        Norm::L1 => row.iter().map(|x| x.abs()).sum(),
        Norm::L2 => row.iter().map(|x| x * x).sum(),
    };
    let function = |x: f32| match norm {
        _ if norm_of_row == 0.0 => x,
        Norm::Max | Norm::L1 => x / norm_of_row,
        Norm::L2 if x < 0.0 => -(x * x / norm_of_row).sqrt(),
        Norm::L2 => (x * x / norm_of_row).sqrt(),
    };
    row.iter().zip(divided).for_each(|(x, place)| *place = function(*x));
}

/// One row of one side of an operation.
struct Side<'a>(&'a [f32]);

impl<'a> Side<'a> {
    fn of(operand: &'a Operand, before: &'a [f32], places: &[Place], row: usize) -> Side<'a> {
        match operand {
            Operand::Constant(numbers) => Side(numbers),
            Operand::Value(value) => {
                let Place { start, width } = places[*value];
                Side(&before[start + row * width..start + (row + 1) * width])
            }
        }
    }

    fn at(&self, column: usize) -> f32 {
        if self.0.len() == 1 { self.0[0] } else { self.0[column] }
    }
}
