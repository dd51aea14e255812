//! What a model file means, whatever format it came in: the one validated form between readers and engines.
//!
//! A reader (`read/`) builds a [`Form`], an engine (`engine/`) compiles it; neither knows the other. A form is a short program
//! over one row: value 0 is the row itself, value `n` the result of step `n - 1`, each of a fixed width in f32. [`Form::check`]
//! is the gate between the two: what has passed it can be compiled and run without a panic, and within the limits of
//! [`limits`].
//!
//! The form keeps the semantics of the library that made the model: what precision and order a sum has, on which side a
//! missing value goes. It knows no file format: `x < t`, categories and unknown values have become [`Test`]s.
#![forbid(unsafe_code)]

mod check;
mod choose;
pub mod limits;
mod transform;
mod trees;

pub use check::FormError;
pub use choose::{Choice, ChoiceError, Output};
pub use transform::Transform;
pub use trees::{
    Child, Ensemble, Interval, Leaves, LinearLeaf, Rounding, Split, Targets, Test, Tree, at_most_f64, less_than,
};

/// A model, as its file says it.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// What the file is, for people: `LightGBM, binary`, `ONNX, TreeEnsembleRegressor`.
    pub kind: String,
    /// Features in each row: 1 to [`limits::FEATURES_MAX`].
    pub feature_dim: usize,
    /// As many names as features, or none if the file has none.
    pub feature_names: Vec<String>,
    /// The program, in order: a step uses the row and the results of steps before it.
    pub steps: Vec<Step>,
    /// What the model says before the last transform: of the width of `score`, or the same value if there is no transform.
    pub margin: Value,
    /// What the model says: one column for a regression, P(class 1) for two classes, a column for each of several classes or
    /// targets.
    pub score: Value,
    /// What the columns of `score` are called, as many as it has: the classes' labels, or the targets' indices.
    pub output_names: Vec<String>,
}

/// A value of a form's program: 0 is the row, `n` the result of step `n - 1`.
pub type Value = usize;

/// One step of a form's program. `w` is the width of its input.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Trees over the input; gives [`Ensemble::targets`] columns.
    Trees {
        /// What the splits look at.
        input: Value,
        /// The trees.
        ensemble: Ensemble,
    },
    /// `bias[o] + Σ weights[o × w + i] × input[i]`, added in the order of `i` to the bias, in f32; gives `bias.len()` columns.
    Linear {
        /// What is multiplied.
        input: Value,
        /// Shape `[outputs, w]`, output by output.
        weights: Vec<f32>,
        /// Where the sums start; one for each output.
        bias: Vec<f32>,
    },
    /// `Σ weights[o × w + i] × input[i] + bias[o]` as BLAS libraries compute it, and with them ONNX runtimes: in f32, from 0 in
    /// the order of `i`, each product fused with the addition, the bias last; gives `bias.len()` columns. Where large terms
    /// cancel out, [`Step::Linear`] differs from it by more than a hundred-thousandth.
    Gemm {
        /// What is multiplied.
        input: Value,
        /// Shape `[outputs, w]`, output by output.
        weights: Vec<f32>,
        /// What is added in the end; one for each output.
        bias: Vec<f32>,
    },
    /// `(input - offset) × scale`, in f32; both of width `w`.
    Scale {
        /// What is scaled.
        input: Value,
        /// Subtracted first.
        offset: Vec<f32>,
        /// Multiplied then.
        scale: Vec<f32>,
    },
    /// Where the input is `missing` (a NaN: where it is any NaN), the place's value of `values`, which has width `w`.
    Impute {
        /// What may miss values.
        input: Value,
        /// What stands for a missing value.
        missing: f32,
        /// What comes into its place.
        values: Vec<f32>,
    },
    /// The row divided by its norm.
    Normalize {
        /// What is divided.
        input: Value,
        /// By what.
        norm: Norm,
    },
    /// `left op right`, element by element, in f32. A side of width 1 serves all columns.
    Arithmetic {
        /// What is done.
        operation: Operation,
        /// The left side.
        left: Operand,
        /// The right side.
        right: Operand,
    },
    /// A function of the row; keeps the width but for [`Transform::ArgMax`], which gives 1 column.
    Apply {
        /// What it is applied to.
        input: Value,
        /// Which function.
        transform: Transform,
    },
    /// The columns of all inputs, one after the other.
    Concat {
        /// What is put together; one at least.
        inputs: Vec<Value>,
    },
    /// Some columns of the input, in this order.
    Select {
        /// What is chosen from.
        input: Value,
        /// Which columns; one at least.
        columns: Vec<usize>,
    },
}

/// Of what a row is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// The largest absolute value is not meant: the largest value, as ONNX's reference has it.
    Max,
    /// The sum of absolute values.
    L1,
    /// The root of the sum of squares.
    L2,
}

/// What two values are combined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// One side of an [`Operation`].
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A value of the program.
    Value(Value),
    /// The same for every row: one number for all columns, or one for each.
    Constant(Vec<f32>),
}

impl Step {
    /// The values that the step reads.
    pub fn inputs(&self) -> impl Iterator<Item = Value> {
        let (one, many): ([Option<Value>; 2], &[Value]) = match self {
            Step::Trees { input, .. }
            | Step::Linear { input, .. }
            | Step::Gemm { input, .. }
            | Step::Scale { input, .. }
            | Step::Impute { input, .. }
            | Step::Normalize { input, .. }
            | Step::Apply { input, .. }
            | Step::Select { input, .. } => ([Some(*input), None], &[]),
            Step::Arithmetic { left, right, .. } => ([left.value(), right.value()], &[]),
            Step::Concat { inputs } => ([None, None], inputs),
        };
        one.into_iter().flatten().chain(many.iter().copied())
    }

    /// Gives each value that the step reads another number.
    pub fn renumber_inputs(&mut self, number: impl Fn(Value) -> Value) {
        match self {
            Step::Trees { input, .. }
            | Step::Linear { input, .. }
            | Step::Gemm { input, .. }
            | Step::Scale { input, .. }
            | Step::Impute { input, .. }
            | Step::Normalize { input, .. }
            | Step::Apply { input, .. }
            | Step::Select { input, .. } => *input = number(*input),
            Step::Arithmetic { left, right, .. } => {
                for side in [left, right] {
                    if let Operand::Value(value) = side {
                        *value = number(*value);
                    }
                }
            }
            Step::Concat { inputs } => inputs.iter_mut().for_each(|input| *input = number(*input)),
        }
    }
}

impl Operand {
    fn value(&self) -> Option<Value> {
        match self {
            Operand::Value(value) => Some(*value),
            Operand::Constant(_) => None,
        }
    }
}
