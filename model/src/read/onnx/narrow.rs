//! One column of a value, computed without the others where that is possible.
//!
//! Exporters write two columns for two classes, `[1 − p, p]`, and the served score is the second. Instead of computing both and
//! choosing, the choice moves up the program, through what works column by column, as far as it gets.

use std::collections::HashMap;

use super::errors::malformed;
use super::program::Program;
use crate::form::{Ensemble, Leaves, Operand, Operation, Step, Targets, Transform, Tree, Value};
use crate::read::ReadError;

/// How far up a choice moves. Longer: a chain of a million nodes would need as deep a stack.
const DEPTH_MAX: usize = 64;

const BY: &str = "the choice of a class";

pub(super) struct Narrow<'a> {
    pub program: &'a mut Program,
    /// How many steps use each value that the score needs.
    uses: Vec<usize>,
    chosen: HashMap<(Value, usize), Value>,
}

impl<'a> Narrow<'a> {
    pub fn new(program: &'a mut Program, score: Value) -> Narrow<'a> {
        let uses = program.uses(&[score]);
        Narrow { program, uses, chosen: HashMap::new() }
    }

    /// One column of a value.
    pub fn column(&mut self, value: Value, column: usize) -> Result<Value, ReadError> {
        self.column_at(value, column, 0)
    }

    fn column_at(&mut self, value: Value, column: usize, depth: usize) -> Result<Value, ReadError> {
        if self.program.widths[value] == 1 {
            return Ok(value);
        }
        if let Some(chosen) = self.chosen.get(&(value, column)) {
            return Ok(*chosen);
        }
        let moved = if depth < DEPTH_MAX { self.moved(value, column, depth + 1)? } else { None };
        let chosen = match moved {
            Some(chosen) => chosen,
            None => self.program.select(&BY, value, vec![column])?,
        };
        self.chosen.insert((value, column), chosen);
        Ok(chosen)
    }

    /// The column as a result of a step of its own; none if the step needs all columns.
    fn moved(&mut self, value: Value, column: usize, depth: usize) -> Result<Option<Value>, ReadError> {
        let Some(index) = value.checked_sub(1) else { return Ok(None) };
        // Values that only the margin needs have no uses, and the same steps as those of the score.
        let is_used_once = self.uses.get(value).is_some_and(|uses| *uses == 1);
        let step = match &self.program.steps[index] {
            Step::Select { input, columns } => {
                let (input, column) = (*input, columns[column]);
                return self.column_at(input, column, depth).map(Some);
            }
            Step::Concat { inputs } => {
                let mut column = column;
                for input in inputs {
                    let width = self.program.widths[*input];
                    if column < width {
                        let input = *input;
                        return self.column_at(input, column, depth).map(Some);
                    }
                    column -= width;
                }
                return Err(malformed("a column is in none of its parts"));
            }
            Step::Apply { input, transform } if is_by_column(*transform) => {
                let (input, transform) = (*input, *transform);
                Step::Apply { input: self.column_at(input, column, depth)?, transform }
            }
            Step::Scale { input, offset, scale } => {
                let (input, offset, scale) = (*input, vec![offset[column]], vec![scale[column]]);
                Step::Scale { input: self.column_at(input, column, depth)?, offset, scale }
            }
            Step::Arithmetic { operation, left, right } => {
                let operation = *operation;
                let (left, right) = (part_of(left, column), part_of(right, column));
                let (left, right) = (self.operand(left, column, depth)?, self.operand(right, column, depth)?);
                if let Some(same) = unchanged(operation, &left, &right) {
                    return Ok(Some(same));
                }
                Step::Arithmetic { operation, left, right }
            }
            Step::Gemm { input, weights, bias } if is_used_once => {
                let width = self.program.widths[*input];
                let weights = weights[column * width..(column + 1) * width].to_vec();
                Step::Gemm { input: *input, weights, bias: vec![bias[column]] }
            }
            Step::Trees { input, ensemble } if is_used_once => {
                let (input, ensemble) = (*input, of_target(ensemble, column));
                Step::Trees { input, ensemble }
            }
            _ => return Ok(None),
        };
        self.program.push(&BY, step).map(Some)
    }

    fn operand(&mut self, operand: Operand, column: usize, depth: usize) -> Result<Operand, ReadError> {
        match operand {
            Operand::Value(value) => Ok(Operand::Value(self.column_at(value, column, depth)?)),
            constant => Ok(constant),
        }
    }
}

fn is_by_column(transform: Transform) -> bool {
    !matches!(transform, Transform::Softmax | Transform::SoftmaxZero | Transform::Proportion | Transform::ArgMax)
}

/// An operand with only the number that a column has of it, if it is a constant.
fn part_of(operand: &Operand, column: usize) -> Operand {
    match operand {
        Operand::Constant(numbers) if numbers.len() > 1 => Operand::Constant(vec![numbers[column]]),
        operand => operand.clone(),
    }
}

/// The value, if nothing happens to it. (A −0 to which 0 is added stays −0, which is the same number.)
fn unchanged(operation: Operation, left: &Operand, right: &Operand) -> Option<Value> {
    let (Operand::Value(value), Operand::Constant(numbers)) = (left, right) else { return None };
    let neutral = match operation {
        Operation::Add | Operation::Subtract => 0.0,
        Operation::Multiply | Operation::Divide => 1.0,
    };
    (numbers[..] == [neutral]).then_some(*value)
}

/// What trees add to one target.
fn of_target(ensemble: &Ensemble, target: usize) -> Ensemble {
    let adds = |tree: &&Tree| match tree.leaves.targets {
        Targets::One(own) => own as usize == target,
        Targets::All => true,
    };
    let of_tree = |tree: &Tree| {
        let values = match tree.leaves.targets {
            Targets::One(_) => tree.leaves.values.clone(),
            Targets::All => tree.leaves.values.iter().skip(target).step_by(ensemble.targets).copied().collect(),
        };
        let leaves = Leaves { targets: Targets::One(0), values, ..tree.leaves.clone() };
        Tree { root: tree.root, splits: tree.splits.clone(), leaves }
    };
    Ensemble {
        targets: 1,
        trees: ensemble.trees.iter().filter(adds).map(of_tree).collect(),
        rounding: ensemble.rounding,
        start: vec![ensemble.start[target]],
        factor: ensemble.factor,
        offset: vec![ensemble.offset[target]],
    }
}
