//! `post_transform`, and how onnxruntime makes two columns of one sum.

use super::evaluate::Call;
use crate::form::{Operand, Operation, Step, Transform, Value};
use crate::read::ReadError;

/// What becomes of the sums of a model of `ai.onnx.ml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Post {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

impl Post {
    /// Of the node's attribute.
    pub fn of_name(call: &mut Call<'_>) -> Result<Post, ReadError> {
        let name = call.node.text("post_transform")?;
        Ok(match name.as_deref() {
            None | Some("NONE") => Post::None,
            Some("LOGISTIC") => Post::Logistic,
            Some("SOFTMAX") => Post::Softmax,
            Some("SOFTMAX_ZERO") => Post::SoftmaxZero,
            Some("PROBIT") => Post::Probit,
            Some(name) => {
                let what = format!("post_transform {}", super::errors::quoted(name));
                return Err(call.node.unsupported(what, "NONE, LOGISTIC, SOFTMAX, SOFTMAX_ZERO and PROBIT are"));
            }
        })
    }

    /// As the specification of `TreeEnsemble` numbers them.
    pub fn of_number(number: i64) -> Option<Post> {
        const ALL: [Post; 5] = [Post::None, Post::Softmax, Post::Logistic, Post::SoftmaxZero, Post::Probit];
        usize::try_from(number).ok().and_then(|number| ALL.get(number).copied())
    }

    pub fn transform(self) -> Option<Transform> {
        match self {
            Post::None => None,
            Post::Logistic => Some(Transform::Sigmoid { slope: 1.0 }),
            Post::Softmax => Some(Transform::Softmax),
            Post::SoftmaxZero => Some(Transform::SoftmaxZero),
            Post::Probit => Some(Transform::Probit),
        }
    }

    /// Applies it to all columns, which become a score whose margin they are.
    pub fn apply(self, call: &mut Call<'_>, sums: Value) -> Result<Value, ReadError> {
        let Some(transform) = self.transform() else { return Ok(sums) };
        let value = call.push(Step::Apply { input: sums, transform })?;
        call.program.margins.insert(value, sums);
        Ok(value)
    }

    /// For a regression: of one target, onnxruntime applies PROBIT alone.
    pub fn apply_to_targets(self, call: &mut Call<'_>, sums: Value) -> Result<Value, ReadError> {
        match (self, call.program.widths[sums]) {
            (Post::Probit, _) | (_, 2..) => self.apply(call, sums),
            _ => Ok(sums),
        }
    }
}

/// `[−s, s]`.
pub(super) fn minus_and_itself(call: &mut Call<'_>, sum: Value) -> Result<Value, ReadError> {
    let (left, right) = (Operand::Value(sum), Operand::Constant(vec![-1.0, 1.0]));
    call.push(Step::Arithmetic { operation: Operation::Multiply, left, right })
}

/// `[1 − s, s]`.
pub(super) fn one_minus_and_itself(call: &mut Call<'_>, sum: Value) -> Result<Value, ReadError> {
    let (left, right) = (Operand::Value(minus_and_itself(call, sum)?), Operand::Constant(vec![1.0, 0.0]));
    call.push(Step::Arithmetic { operation: Operation::Add, left, right })
}
