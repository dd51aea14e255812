//! One tree: `Tree::Tree(const char*)` and `Tree::Predict` of LightGBM's `src/io/tree.cpp` and `include/LightGBM/tree.h`.
//!
//! Shrinkage and the average that boosting starts from are in the leaves already.
#![forbid(unsafe_code)]

use super::categories::Categories;
use super::fields::Fields;
use crate::form::{Child, Leaves, LinearLeaf, Split, Targets, Test, Tree, at_most_f64};
use crate::read::ReadError;

/// All keys that LightGBM 2.0.12 to 4.x writes in a tree's section.
pub(super) const KEYS: &[&str] = &[
    "num_leaves",
    "num_cat",
    "split_feature",
    "split_gain",
    "threshold",
    "decision_type",
    "left_child",
    "right_child",
    "leaf_value",
    "leaf_weight",
    "leaf_count",
    "internal_value",
    "internal_weight",
    "internal_count",
    "cat_boundaries",
    "cat_threshold",
    "is_linear",
    "leaf_const",
    "num_features",
    "leaf_features",
    "leaf_coeff",
    "shrinkage",
];

/// LightGBM's `kZeroThreshold`. `predict` takes what is not larger for 0 (`RowPairFunctionFromDenseMatric` in `c_api.cpp`
/// leaves it out of the row), so that a threshold within this range has all of the range on one side.
const ZERO_MAX: f32 = 1e-35;

/// Bits of a decision type.
const CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;

/// Bits 2 and 3 of a decision type: what counts as missing. With any but `NaN`, NaN becomes 0 first.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    None,
    Zero,
    NaN,
}

/// Reads a tree that adds to `target`.
pub(super) fn read(fields: &Fields<'_>, feature_dim: usize, target: u32) -> Result<Tree, ReadError> {
    let leaves: usize = fields.number("num_leaves")?;
    if leaves == 0 {
        return Err(fields.malformed("num_leaves", "it is 0"));
    }
    let values = fields.numbers("leaf_value", leaves)?;
    let mut leaves = Leaves { count: leaves, targets: Targets::One(target), values, linear: Vec::new() };
    if is_linear(fields)? {
        read_linear(fields, feature_dim, &mut leaves)?;
    }
    let splits = if leaves.count > 1 { read_splits(fields, leaves.count - 1, feature_dim)? } else { Vec::new() };
    let root = if splits.is_empty() { Child::Leaf(0) } else { Child::Split(0) };
    Ok(Tree { root, splits, leaves })
}

fn is_linear(fields: &Fields<'_>) -> Result<bool, ReadError> {
    match fields.optional("is_linear")? {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err(fields.malformed("is_linear", "it is neither 0 nor 1")),
    }
}

fn read_splits(fields: &Fields<'_>, count: usize, feature_dim: usize) -> Result<Vec<Split>, ReadError> {
    let features: Vec<u32> = fields.numbers("split_feature", count)?;
    let thresholds: Vec<f64> = fields.numbers("threshold", count)?;
    let left: Vec<i32> = fields.numbers("left_child", count)?;
    let right: Vec<i32> = fields.numbers("right_child", count)?;
    // Absent, every decision is numeric, without a missing value: LightGBM's default.
    let decisions: Vec<u8> = match fields.optional("decision_type")? {
        Some(_) => fields.numbers("decision_type", count)?,
        None => vec![0; count],
    };
    let mut categories = Categories::read(fields)?;
    let mut splits = Vec::with_capacity(count);
    for index in 0..count {
        let feature = features[index];
        if feature as usize >= feature_dim {
            let what = format!("split {index} looks at feature {feature} of {feature_dim}");
            return Err(fields.malformed("split_feature", what));
        }
        let (yes, no) = (child(left[index]), child(right[index]));
        let (test, missing) = if decisions[index] & CATEGORICAL == 0 {
            numeric(fields, index, decisions[index], thresholds[index])?
        } else {
            // NaN is in no category.
            (Test::Within(categories.take(fields, index, thresholds[index])?), false)
        };
        splits.push(Split { feature, test, missing, yes, no });
    }
    Ok(splits)
}

/// Leaves are numbered downwards from -1.
fn child(number: i32) -> Child {
    match u32::try_from(number) {
        Ok(split) => Child::Split(split),
        Err(_) => Child::Leaf(!number as u32),
    }
}

/// `Tree::NumericalDecision`: the test, and whether NaN passes it.
fn numeric(fields: &Fields<'_>, index: usize, decision: u8, threshold: f64) -> Result<(Test, bool), ReadError> {
    if threshold.is_nan() {
        return Err(fields.malformed("threshold", format!("that of split {index} is NaN")));
    }
    let default_left = decision & DEFAULT_LEFT != 0;
    let (zero, missing) = match missing(fields, index, decision)? {
        Missing::None => (None, 0.0 <= threshold),
        Missing::Zero => (Some(default_left), default_left),
        Missing::NaN => (None, default_left),
    };
    Ok((Test::AtMost { threshold: threshold_f32(threshold), zero }, missing))
}

fn missing(fields: &Fields<'_>, index: usize, decision: u8) -> Result<Missing, ReadError> {
    match decision >> 2 {
        0 => Ok(Missing::None),
        1 => Ok(Missing::Zero),
        2 => Ok(Missing::NaN),
        _ => Err(fields.malformed("decision_type", format!("that of split {index}, {decision}, is none"))),
    }
}

/// The threshold that answers `x <= threshold` for every f32 as LightGBM's `predict` does.
fn threshold_f32(threshold: f64) -> f32 {
    let zero_max = f64::from(ZERO_MAX);
    if !(-zero_max..zero_max).contains(&threshold) {
        at_most_f64(threshold)
    } else if threshold < 0.0 {
        (-ZERO_MAX).next_down()
    } else {
        ZERO_MAX
    }
}

/// `Tree::Predict` of a linear tree: a leaf without features has its constant, whatever its value.
fn read_linear(fields: &Fields<'_>, feature_dim: usize, leaves: &mut Leaves) -> Result<(), ReadError> {
    let constants: Vec<f64> = fields.numbers("leaf_const", leaves.count)?;
    let counts: Vec<usize> = fields.numbers("num_features", leaves.count)?;
    let total = counts.iter().fold(0_usize, |total, count| total.saturating_add(*count));
    let (features, coefficients): (Vec<u32>, Vec<f64>) =
        (fields.numbers("leaf_features", total)?, fields.numbers("leaf_coeff", total)?);
    if let Some(feature) = features.iter().find(|feature| **feature as usize >= feature_dim) {
        return Err(fields.malformed("leaf_features", format!("a leaf looks at feature {feature} of {feature_dim}")));
    }
    let mut terms = features.into_iter().zip(coefficients);
    for (leaf, (constant, count)) in constants.into_iter().zip(counts).enumerate() {
        if count == 0 {
            leaves.values[leaf] = constant;
        } else {
            let terms = terms.by_ref().take(count).collect();
            leaves.linear.push((leaf as u32, LinearLeaf { constant, terms }));
        }
    }
    Ok(())
}
