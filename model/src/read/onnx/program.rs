//! The form's program while it is built.
//!
//! Invariant: each step that was pushed is right by itself, so the width of each value is known, and all of them together take
//! no more memory than a small multiple of the file.

use std::collections::HashMap;
use std::fmt;

use super::errors::{malformed, unsupported};
use super::node::Node;
use crate::form::limits::COLUMNS_MAX;
use crate::form::{Operand, Step, Value};
use crate::read::ReadError;

/// Steps before those that nothing needs are dropped. Larger: a hostile file of few bytes keeps the reader busy for longer.
const STEPS_PUSHED_MAX: usize = 1 << 16;

/// Numbers of constants, for each byte of the file and to begin with. A weight has 4 bytes in the file and is used once or
/// twice; a scalar that serves all columns becomes one for each.
const NUMBERS_PER_BYTE: usize = 2;
const NUMBERS_FREE: usize = 1 << 22;

pub(super) struct Program {
    pub steps: Vec<Step>,
    /// Of each value, the row's too.
    pub widths: Vec<usize>,
    /// For a value that is the last transform of another one: that one.
    pub margins: HashMap<Value, Value>,
    /// What the operator `Softmax` gave last: probabilities of classes.
    pub softmax: Option<Value>,
    /// The operators that did something, in order.
    operators: Vec<String>,
    /// What the last classifier calls its classes.
    pub labels: Option<Vec<String>>,
    numbers_left: usize,
}

impl Program {
    pub fn new(feature_dim: usize, file_bytes: usize) -> Program {
        Program {
            steps: Vec::new(),
            widths: vec![feature_dim],
            margins: HashMap::new(),
            softmax: None,
            operators: Vec::new(),
            labels: None,
            numbers_left: file_bytes.saturating_mul(NUMBERS_PER_BYTE).saturating_add(NUMBERS_FREE),
        }
    }

    /// Takes `count` numbers of constants from what the file may have.
    pub fn spend(&mut self, by: &dyn fmt::Display, count: usize) -> Result<(), ReadError> {
        let Some(left) = self.numbers_left.checked_sub(count) else {
            let instead = "fewer nodes that share constants or parts of trees are";
            return Err(unsupported(format!("{by}, with which the model outgrows its file"), instead));
        };
        self.numbers_left = left;
        Ok(())
    }

    /// Adds a step for `by`.
    pub fn push(&mut self, by: &dyn fmt::Display, step: Step) -> Result<Value, ReadError> {
        if self.steps.len() == STEPS_PUSHED_MAX {
            return Err(unsupported(format!("more than {STEPS_PUSHED_MAX} steps, at {by}"), "fewer are"));
        }
        self.spend(by, numbers_of(&step))?;
        let columns = step.columns(&self.widths).map_err(|error| malformed(format!("{by}: {error}")))?;
        self.steps.push(step);
        self.widths.push(columns);
        Ok(self.steps.len())
    }

    /// Adds a step that is what `node` does.
    pub fn push_operator(&mut self, node: &Node, step: Step) -> Result<Value, ReadError> {
        if !self.operators.contains(&node.operator) {
            self.operators.push(node.operator.clone());
        }
        self.push(node, step)
    }

    /// What the program does, for people: `Scaler + LinearClassifier`.
    pub fn kind(&self) -> String {
        const SHOWN_MAX: usize = 6;
        let mut shown: Vec<&str> = self.operators.iter().take(SHOWN_MAX).map(String::as_str).collect();
        if self.operators.len() > SHOWN_MAX {
            shown.push("…");
        }
        if shown.is_empty() { "no operator".to_owned() } else { shown.join(" + ") }
    }

    /// Some columns of a value; no step where it is not needed.
    pub fn select(&mut self, by: &dyn fmt::Display, value: Value, columns: Vec<usize>) -> Result<Value, ReadError> {
        if self.is_all(value, &columns) {
            return Ok(value);
        }
        let width = self.widths[value];
        let (input, columns) = match value.checked_sub(1).map(|index| &self.steps[index]) {
            Some(Step::Select { input, columns: inner }) if columns.iter().all(|column| *column < width) => {
                (*input, columns.iter().map(|column| inner[*column]).collect())
            }
            _ => (value, columns),
        };
        if self.is_all(input, &columns) { Ok(input) } else { self.push(by, Step::Select { input, columns }) }
    }

    fn is_all(&self, value: Value, columns: &[usize]) -> bool {
        columns.len() == self.widths[value] && columns.iter().enumerate().all(|(index, column)| index == *column)
    }

    /// The columns of all values, one after the other. Columns of one value, whichever way they were chosen, stay columns of it:
    /// a row that comes as many inputs is the row itself.
    pub fn concat(&mut self, by: &dyn fmt::Display, values: Vec<Value>) -> Result<Value, ReadError> {
        let columns: usize = values.iter().map(|value| self.widths[*value]).sum();
        if columns > COLUMNS_MAX {
            return Err(unsupported(format!("{by} that gives {columns} columns"), format!("{COLUMNS_MAX} are")));
        }
        let mut chosen = Vec::with_capacity(columns);
        let mut source = None;
        for value in &values {
            let input = match value.checked_sub(1).map(|index| &self.steps[index]) {
                Some(Step::Select { input, columns }) => {
                    chosen.extend_from_slice(columns);
                    *input
                }
                _ => {
                    chosen.extend(0..self.widths[*value]);
                    *value
                }
            };
            if *source.get_or_insert(input) != input {
                return self.push(by, Step::Concat { inputs: values });
            }
        }
        match source {
            Some(source) => self.select(by, source, chosen),
            None => Err(malformed(format!("{by} has no input"))),
        }
    }

    /// Keeps only what `needed` values need, and tells their new numbers.
    pub fn prune<const COUNT: usize>(self, needed: [Value; COUNT]) -> (Vec<Step>, [Value; COUNT]) {
        let mut uses = self.uses(&needed);
        uses[0] = 1;
        let mut numbers = vec![0; uses.len()];
        let mut steps = Vec::new();
        for (index, mut step) in self.steps.into_iter().enumerate() {
            if uses[index + 1] == 0 {
                continue;
            }
            step.renumber_inputs(|input| numbers[input]);
            steps.push(step);
            numbers[index + 1] = steps.len();
        }
        (steps, needed.map(|value| numbers[value]))
    }

    /// How many steps, and `needed` values, use each value, of those that any of them needs.
    pub fn uses(&self, needed: &[Value]) -> Vec<usize> {
        let mut uses = vec![0; self.widths.len()];
        needed.iter().for_each(|value| uses[*value] += 1);
        for value in (1..uses.len()).rev() {
            if uses[value] > 0 {
                self.steps[value - 1].inputs().for_each(|input| uses[input] += 1);
            }
        }
        uses
    }
}

/// Numbers of constants in a step; those of trees are counted where they are read.
fn numbers_of(step: &Step) -> usize {
    let operand = |operand: &Operand| match operand {
        Operand::Constant(numbers) => numbers.len(),
        Operand::Value(_) => 0,
    };
    match step {
        Step::Linear { weights, bias, .. } | Step::Gemm { weights, bias, .. } => weights.len() + bias.len(),
        Step::Scale { offset, scale, .. } => offset.len() + scale.len(),
        Step::Impute { values, .. } => values.len(),
        Step::Arithmetic { left, right, .. } => operand(left) + operand(right),
        Step::Select { columns, .. } => columns.len(),
        Step::Concat { inputs } => inputs.len(),
        Step::Trees { .. } | Step::Normalize { .. } | Step::Apply { .. } => 0,
    }
}
