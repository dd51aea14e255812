//! `TreeEnsembleRegressor`, `TreeEnsembleClassifier` and `TreeEnsemble`, with the semantics of onnxruntime
//! (`core/providers/cpu/ml/tree_ensemble_common.h`, `tree_ensemble_aggregator.h`).
//!
//! Sums start at 0, leaves are added in f32 in the order of the trees, the base value comes last. With doubles among the
//! inputs or the numbers, sums are of doubles. Where onnxruntime leaves a base value out, or computes what depends on which
//! leaves have which classes, the file is refused.

mod classes;
mod grow;
mod listed;
mod numbered;
mod question;

use self::grow::Grown;
pub(super) use self::question::{Mode, question};
use super::evaluate::Call;
use super::post::Post;
use super::rows::{Element, Known, Rows};
use super::tensor::{Numbers, Tensor};
use crate::form::limits::COLUMNS_MAX;
use crate::form::{Ensemble, Rounding, Step, Value};
use crate::read::ReadError;

type Results = Result<Vec<Known>, ReadError>;

/// Numbers of an attribute, which come as floats, or as a tensor of floats or doubles.
struct Reals {
    numbers: Vec<f64>,
    are_double: bool,
}

impl Reals {
    /// Takes `name`, or `name` as a tensor. None if there is neither.
    fn take(call: &mut Call<'_>, name: &str) -> Result<Option<Reals>, ReadError> {
        let tensor_name = format!("{name}_as_tensor");
        let floats = call.node.floats(name)?.filter(|floats| !floats.is_empty());
        let tensor = call.node.tensor(&tensor_name)?.filter(|tensor| tensor.numbers.len() > 0);
        match (floats, tensor) {
            (Some(_), Some(_)) => Err(call.node.malformed(format!("has both {name} and {tensor_name}"))),
            (Some(floats), None) => {
                Ok(Some(Reals { numbers: floats.into_iter().map(f64::from).collect(), are_double: false }))
            }
            (None, Some(tensor)) => Reals::of_tensor(call, &tensor, &tensor_name).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn of_tensor(call: &Call<'_>, tensor: &Tensor, name: &str) -> Result<Reals, ReadError> {
        match &tensor.numbers {
            Numbers::F32(floats) => {
                Ok(Reals { numbers: floats.iter().map(|number| f64::from(*number)).collect(), are_double: false })
            }
            Numbers::F64(doubles) => Ok(Reals { numbers: doubles.to_vec(), are_double: true }),
            _ => Err(call.node.malformed(format!("has {name} that are neither floats nor doubles"))),
        }
    }
}

/// What the leaves of all trees become.
struct Sums {
    input: Value,
    grown: Grown,
    rounding: Rounding,
    /// As many as targets, or none.
    base: Vec<f64>,
    is_average: bool,
}

impl Sums {
    /// Adds the ensemble to the program.
    fn push(self, call: &mut Call<'_>) -> Result<Value, ReadError> {
        call.program.spend(&call.node, self.grown.numbers_added)?;
        let targets = self.grown.covered.len();
        let base = if self.base.is_empty() { vec![0.0; targets] } else { self.base };
        for (target, base) in base.iter().enumerate() {
            // onnxruntime adds it to those targets alone that a leaf has added to.
            if *base != 0.0 && !self.grown.covered[target] {
                let what = format!("a base value for target {target}, which not every row adds to");
                return Err(call.node.unsupported(what, "leaves that each have a weight for it are"));
            }
        }
        let count = self.grown.trees.len();
        let ensemble = Ensemble {
            targets,
            trees: self.grown.trees,
            rounding: self.rounding,
            start: vec![0.0; targets],
            factor: if self.is_average { 1.0 / count as f64 } else { 1.0 },
            offset: base,
        };
        call.push(Step::Trees { input: self.input, ensemble })
    }
}

/// Rows that trees look at, and how their sums are rounded.
fn rows_of(call: &Call<'_>) -> Result<(Rows, Rounding), ReadError> {
    call.inputs_max(1)?;
    let rows = call.flat(0)?;
    match rows.element {
        Element::Double => Ok((rows, Rounding::F64)),
        _ => Ok((call.flat_floats(0)?, Rounding::F32)),
    }
}

/// A number of targets within the limits.
fn targets_of(call: &Call<'_>, targets: i64) -> Result<usize, ReadError> {
    let within = usize::try_from(targets).ok().filter(|targets| (1..=COLUMNS_MAX).contains(targets));
    within.ok_or_else(|| call.node.unsupported(format!("{targets} targets"), format!("1 to {COLUMNS_MAX} are")))
}

fn is_average(call: &Call<'_>, name: &str) -> Result<bool, ReadError> {
    match name {
        "SUM" => Ok(false),
        "AVERAGE" => Ok(true),
        name => {
            let what = format!("aggregate_function {}", super::errors::quoted(name));
            Err(call.node.unsupported(what, "SUM and AVERAGE are"))
        }
    }
}

pub(super) fn regressor(call: &mut Call<'_>) -> Results {
    let (rows, rounding) = rows_of(call)?;
    let targets = call.node.integer("n_targets")?;
    let targets = targets_of(call, targets.unwrap_or_default())?;
    let aggregate = call.node.text("aggregate_function")?;
    let is_average = is_average(call, aggregate.as_deref().unwrap_or("SUM"))?;
    let post = Post::of_name(call)?;
    let base = Reals::take(call, "base_values")?;
    let listed = listed::Listed::take(call, "target", targets)?;
    let are_double = listed.are_double || base.as_ref().is_some_and(|base| base.are_double);
    let base = base.map(|base| base.numbers).unwrap_or_default();
    if !base.is_empty() && base.len() != targets {
        return Err(call.node.unsupported(format!("{} base values for {targets} targets", base.len()), "one each is"));
    }
    let grown = grow::grow(call, &listed.nodes, rows.width(), targets)?;
    let rounding = if are_double { Rounding::F64 } else { rounding };
    let sums = Sums { input: rows.value, grown, rounding, base, is_average }.push(call)?;
    let value = post.apply_to_targets(call, sums)?;
    Ok(vec![Known::Rows(Rows::flat(value, targets, Element::Float))])
}

/// Gives labels, which nobody computes, and scores.
pub(super) fn classifier(call: &mut Call<'_>) -> Results {
    let (rows, rounding) = rows_of(call)?;
    let labels = super::operators::labels(call, "classlabels_int64s", "classlabels_strings")?;
    let classes = targets_of(call, i64::try_from(labels.len()).unwrap_or(i64::MAX))?;
    let post = Post::of_name(call)?;
    let base = Reals::take(call, "base_values")?;
    let listed = listed::Listed::take(call, "class", classes)?;
    let are_double = listed.are_double || base.as_ref().is_some_and(|base| base.are_double);
    let rounding = if are_double { Rounding::F64 } else { rounding };
    let base = base.map(|base| base.numbers).unwrap_or_default();
    let scores = classes::Classes { input: rows.value, width: rows.width(), rounding, base, listed, post };
    let value = scores.push(call, classes)?;
    let width = call.program.widths[value];
    call.program.labels = Some(labels);
    Ok(vec![Known::Labels, Known::Rows(Rows::flat(value, width, Element::Float))])
}

/// Of version 5, where leaves have a list of their own.
pub(super) fn ensemble(call: &mut Call<'_>) -> Results {
    let (rows, rounding) = rows_of(call)?;
    let targets = call.node.integer("n_targets")?;
    let targets = targets_of(call, targets.unwrap_or_default())?;
    let is_average = match call.node.integer("aggregate_function")?.unwrap_or(1) {
        0 => true,
        1 => false,
        number => {
            return Err(call.node.unsupported(format!("aggregate_function {number}"), "0 (average) and 1 (sum) are"));
        }
    };
    let number = call.node.integer("post_transform")?.unwrap_or_default();
    let post = Post::of_number(number);
    let post = post.ok_or_else(|| call.node.malformed(format!("has the post_transform {number}, of 0 to 4")))?;
    if targets == 1 && !matches!(post, Post::None | Post::Probit) {
        // The specification applies it, onnxruntime does not.
        let instead = "leave it out, or apply it in a node of its own";
        return Err(call.node.unsupported(format!("post_transform {number} of one target"), instead));
    }
    let (nodes, are_double) = numbered::take(call, targets)?;
    let grown = grow::grow(call, &nodes, rows.width(), targets)?;
    let rounding = if are_double { Rounding::F64 } else { rounding };
    let sums = Sums { input: rows.value, grown, rounding, base: Vec::new(), is_average }.push(call)?;
    let value = post.apply_to_targets(call, sums)?;
    Ok(vec![Known::Rows(Rows::flat(value, targets, Element::Float))])
}
