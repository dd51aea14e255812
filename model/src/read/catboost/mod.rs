//! CatBoost's JSON, as `save_model(…, format="json")` writes it; its binary `.cbm` is another format and not read.
//!
//! A model's score is what `predict_proba` (classifiers) or `predict` (regressors, rankers) of CatBoost's Python package gives,
//! its margin what `prediction_type="RawFormulaVal"` does. The file is read into the types of [`mod@file`], and their trees turned
//! into the form's one by one. Semantics are those of `catboost/libs/model/model_export/json_model_helpers.cpp`,
//! `catboost/libs/model/cpu/quantization.h` and `catboost/libs/eval_result/eval_helpers.cpp` in CatBoost's sources.
//!
//! A row has a place for each feature that the model was trained with, in their order, used or not: a feature of categories
//! that no split uses has one too, whose value does not matter. Splits by categories are refused: they ask for hashes of
//! strings, which a row of numbers does not have.
#![forbid(unsafe_code)]

mod features;
mod file;
mod loss;
#[cfg(test)]
mod tests;
mod trees;

use self::features::Features;
use self::file::{Bias, Model};
use self::loss::Loss;
use super::ReadError;
use crate::form::{Ensemble, Form, Operand, Operation, Rounding, Step, Transform};

/// What errors call the format.
const FORMAT: &str = "CatBoost JSON";

/// Whether this is a JSON object with the fields of a CatBoost model. Reads up to the first of them, mostly the first field.
pub(super) fn is_catboost(bytes: &[u8]) -> bool {
    file::has_field_of_model(bytes)
}

/// Reads a model; what it gives has still to be checked by [`Form::check`].
///
/// # Errors
/// If the file is malformed or holds what is not supported.
pub(super) fn read(bytes: &[u8]) -> Result<Form, ReadError> {
    let model: Model<'_> = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let features = Features::read(&model.features_info)?;
    let (scale, bias) = model.scale_and_bias.unwrap_or((1.0, Bias::One(0.0)));
    let trees = match (model.oblivious_trees, model.trees) {
        (Some(trees), None) => trees::oblivious(trees.0, &features)?,
        (None, Some(trees)) => trees::not_oblivious(trees.0, &features)?,
        (Some(_), Some(_)) => return Err(malformed("it has both oblivious_trees and trees")),
        (None, None) => return Err(malformed("it has neither oblivious_trees nor trees")),
    };
    let bias = bias_of_each(bias, trees.dimensions)?;
    let targets = bias.len();
    let loss = Loss::read(&model.model_info, targets)?;
    let ensemble = Ensemble {
        targets,
        trees: trees.trees,
        rounding: Rounding::F64,
        start: vec![0.0; targets],
        factor: scale,
        offset: bias,
    };
    Ok(form(ensemble, loss, features))
}

/// The bias of each dimension; older files have one number for all. Without a tree, it tells how many there are.
fn bias_of_each(bias: Bias, dimensions: Option<usize>) -> Result<Vec<f64>, ReadError> {
    let mut bias = match bias {
        Bias::One(bias) => vec![bias; if bias == 0.0 { dimensions.unwrap_or(1) } else { 1 }],
        Bias::Each(bias) => bias,
    };
    if bias.is_empty() {
        bias = vec![0.0; dimensions.unwrap_or(1)];
    }
    match dimensions {
        Some(dimensions) if dimensions != bias.len() => {
            Err(malformed(format!("scale_and_bias has {} biases, leaves have {dimensions} values", bias.len())))
        }
        _ => Ok(bias),
    }
}

fn form(ensemble: Ensemble, loss: Loss, features: Features) -> Form {
    let mut steps = vec![Step::Trees { input: 0, ensemble }];
    let (mut margin, mut score) = (1, 1);
    let mut add = |step| {
        steps.push(step);
        steps.len()
    };
    match loss.transform {
        None => {}
        Some(loss::Transformed::All(transform)) => score = add(Step::Apply { input: 1, transform }),
        Some(loss::Transformed::Uncertainty) => {
            let mean = add(Step::Select { input: 1, columns: vec![0] });
            let deviation = add(Step::Select { input: 1, columns: vec![1] });
            let double = Operand::Constant(vec![2.0]);
            let (operation, left) = (Operation::Multiply, Operand::Value(deviation));
            let doubled = add(Step::Arithmetic { operation, left, right: double });
            let variance = add(Step::Apply { input: doubled, transform: Transform::Exp });
            score = add(Step::Concat { inputs: vec![mean, variance] });
        }
    }
    if loss.two_classes {
        margin = add(Step::Select { input: margin, columns: vec![1] });
        score = add(Step::Select { input: score, columns: vec![1] });
    }
    Form {
        kind: format!("{FORMAT}, {}", loss.name),
        feature_dim: features.count,
        feature_names: features.names,
        steps,
        margin,
        score,
        output_names: loss.output_names,
    }
}

/// An error about what the file says.
fn malformed(what: impl Into<String>) -> ReadError {
    ReadError::Malformed { format: FORMAT, what: what.into() }
}

/// An error about what disrust does not do.
fn unsupported(what: impl Into<String>, instead: impl Into<String>) -> ReadError {
    ReadError::Unsupported { format: FORMAT, what: what.into(), instead: instead.into() }
}
