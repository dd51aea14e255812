//! The scores of a `TreeEnsembleClassifier`, as `TreeAggregatorClassifier::FinalizeScores` of onnxruntime up to 1.25 computes
//! them. The specification is silent about most of it.
//!
//! With two classes, what happens depends on whether all weights are for one class, on their signs, on how many base values
//! there are, and on whether the leaves that a row ends at have a weight for class 1.

use super::listed::Listed;
use super::{Sums, grow};
use crate::form::{Rounding, Value};
use crate::read::ReadError;
use crate::read::onnx::evaluate::Call;
use crate::read::onnx::post::{Post, minus_and_itself, one_minus_and_itself};

pub(super) struct Classes {
    pub input: Value,
    /// Of the input.
    pub width: usize,
    pub rounding: Rounding,
    pub base: Vec<f64>,
    pub listed: Listed,
    pub post: Post,
}

impl Classes {
    pub fn push(self, call: &mut Call<'_>, classes: usize) -> Result<Value, ReadError> {
        match classes {
            1 => self.of_one(call),
            2 => self.of_two(call),
            classes if self.base.is_empty() || self.base.len() == classes => self.of_several(call, classes),
            classes => {
                let what = format!("{} base values for {classes} classes", self.base.len());
                Err(call.node.unsupported(what, "one for each is"))
            }
        }
    }

    fn of_one(self, call: &mut Call<'_>) -> Result<Value, ReadError> {
        if self.base.len() > 1 {
            return Err(call.node.unsupported(format!("{} base values for 1 class", self.base.len()), "one is"));
        }
        let post = self.post;
        let sums = self.sums(call, 1)?;
        post.apply_to_targets(call, sums)
    }

    fn of_two(self, call: &mut Call<'_>) -> Result<Value, ReadError> {
        match (self.listed.only_target, self.base.as_slice()) {
            (Some(0), [] | [_]) => self.of_first_alone(call),
            (_, []) => self.of_several(call, 2),
            // It leaves the base value of the second class out.
            (Some(_), [base]) if *base == 0.0 => Classes { base: Vec::new(), ..self }.of_several(call, 2),
            (None, [base]) => {
                let base = vec![*base, 0.0];
                Classes { base, ..self }.of_several(call, 2)
            }
            (_, base) => {
                let what = format!("{} base values for 2 classes", base.len());
                let instead = "onnxruntime leaves weights out then; one for weights of class 0 is";
                Err(call.node.unsupported(what, instead))
            }
        }
    }

    /// All weights are for class 0, which stands for class 1.
    fn of_first_alone(self, call: &mut Call<'_>) -> Result<Value, ReadError> {
        let (post, are_positive) = (self.post, self.listed.weights_are_positive);
        if post == Post::Probit {
            return Err(call.node.unsupported("PROBIT for two classes with weights for one", "weights for both are"));
        }
        let sum = self.sums(call, 1)?;
        if are_positive {
            return one_minus_and_itself(call, sum);
        }
        let sums = minus_and_itself(call, sum)?;
        if post == Post::Logistic { post.apply(call, sums) } else { Ok(sums) }
    }

    fn of_several(self, call: &mut Call<'_>, classes: usize) -> Result<Value, ReadError> {
        let post = self.post;
        let sums = self.sums(call, classes)?;
        post.apply(call, sums)
    }

    fn sums(self, call: &mut Call<'_>, classes: usize) -> Result<Value, ReadError> {
        let mut grown = grow::grow(call, &self.listed.nodes, self.width, classes)?;
        if classes == 2 && !grown.covered[1] {
            let what = "leaves of which some have no weight for class 1";
            return Err(call
                .node
                .unsupported(what, "weights for both classes in each leaf, or for class 0 alone, are"));
        }
        if classes > 2 {
            // Here, unlike in a regression, every class gets its base value.
            grown.covered.fill(true);
        }
        let Classes { input, rounding, base, .. } = self;
        Sums { input, grown, rounding, base, is_average: false }.push(call)
    }
}
