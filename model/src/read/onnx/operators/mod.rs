//! The operators: each becomes steps of the program, or a constant.

mod arithmetic;
mod cast;
mod choose;
mod linear;
mod preprocess;
mod reduce;
mod shape;
mod truth;

use super::evaluate::{Call, unknown_operator};
use super::node::{DOMAIN, DOMAIN_ML};
use super::rows::{Known, Rows};
use super::tensor::{Numbers, Tensor};
use super::trees;
use crate::form::{Operation, Transform};
use crate::read::ReadError;

/// What an operator gives, output by output.
type Results = Result<Vec<Known>, ReadError>;

/// Computes a node.
pub(super) fn compute(call: &mut Call<'_>) -> Results {
    let (domain, operator) = (call.node.domain.clone(), call.node.operator.clone());
    match (domain.as_str(), operator.as_str()) {
        (DOMAIN, "Constant") => constant(call),
        (DOMAIN, "Identity") => cast::identity(call),
        (DOMAIN, "Dropout") => cast::dropout(call),
        (DOMAIN, "Cast") => cast::cast(call),
        (DOMAIN, "Add") => arithmetic::binary(call, Operation::Add),
        (DOMAIN, "Sub") => arithmetic::binary(call, Operation::Subtract),
        (DOMAIN, "Mul") => arithmetic::binary(call, Operation::Multiply),
        (DOMAIN, "Div") => arithmetic::binary(call, Operation::Divide),
        (DOMAIN, "Sum") => arithmetic::sum(call),
        (DOMAIN, "Neg") => arithmetic::negate(call),
        (DOMAIN, "Relu") => arithmetic::apply(call, Transform::Relu),
        (DOMAIN, "Tanh") => arithmetic::apply(call, Transform::Tanh),
        (DOMAIN, "Exp") => arithmetic::link(call, Transform::Exp),
        (DOMAIN, "Softplus") => arithmetic::apply(call, Transform::LogOnePlusExp),
        (DOMAIN, "Sigmoid") => arithmetic::link(call, Transform::Sigmoid { slope: 1.0 }),
        (DOMAIN, "Softmax") => arithmetic::softmax(call),
        (DOMAIN, "LeakyRelu") => arithmetic::leaky_relu(call),
        (DOMAIN, "Elu") => arithmetic::elu(call),
        (DOMAIN, "Clip") => arithmetic::clip(call),
        (DOMAIN, "Not") => truth::not(call),
        (DOMAIN, "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Equal") => truth::compare(call, &operator),
        (DOMAIN, "Gemm") => linear::gemm(call),
        (DOMAIN, "MatMul") => linear::mat_mul(call),
        (DOMAIN, "BatchNormalization") => preprocess::batch_normalization(call),
        (DOMAIN, "LpNormalization") => preprocess::lp_normalization(call),
        (DOMAIN, "ReduceSum") => reduce::reduce(call, false),
        (DOMAIN, "ReduceMean") => reduce::reduce(call, true),
        (DOMAIN, "ArgMax") => reduce::arg_max(call),
        (DOMAIN, "Reshape") => shape::reshape(call),
        (DOMAIN, "Flatten") => shape::flatten(call),
        (DOMAIN, "Squeeze") => shape::squeeze(call),
        (DOMAIN, "Unsqueeze") => shape::unsqueeze(call),
        (DOMAIN, "Transpose") => shape::transpose(call),
        (DOMAIN, "Shape") => shape::shape(call),
        (DOMAIN, "Concat") => choose::concat(call),
        (DOMAIN, "Gather") => choose::gather(call),
        (DOMAIN, "Slice") => choose::slice(call),
        (DOMAIN, "Split") => choose::split(call),
        (DOMAIN_ML, "ArrayFeatureExtractor") => choose::array_feature_extractor(call),
        (DOMAIN_ML, "FeatureVectorizer") => choose::feature_vectorizer(call),
        (DOMAIN_ML, "Scaler") => preprocess::scaler(call),
        (DOMAIN_ML, "Imputer") => preprocess::imputer(call),
        (DOMAIN_ML, "Normalizer") => preprocess::normalizer(call),
        (DOMAIN_ML, "LinearRegressor") => linear::regressor(call),
        (DOMAIN_ML, "LinearClassifier") => linear::classifier(call),
        (DOMAIN_ML, "TreeEnsembleRegressor") => trees::regressor(call),
        (DOMAIN_ML, "TreeEnsembleClassifier") => trees::classifier(call),
        (DOMAIN_ML, "TreeEnsemble") => trees::ensemble(call),
        (DOMAIN_ML, "ZipMap") => zip_map(call),
        _ => Err(unknown_operator(&call.node)),
    }
}

fn one(rows: Rows) -> Results {
    Ok(vec![Known::Rows(rows)])
}

fn constant(call: &mut Call<'_>) -> Results {
    call.inputs_max(0)?;
    let node = &mut call.node;
    let tensor = if let Some(tensor) = node.tensor("value")? {
        tensor
    } else if let Some(number) = node.float("value_float")? {
        Tensor::new(Vec::new(), Numbers::F32([number].into()))
    } else if let Some(numbers) = node.floats("value_floats")? {
        Tensor::list(Numbers::F32(numbers.into()))
    } else if let Some(number) = node.integer("value_int")? {
        Tensor::new(Vec::new(), Numbers::Integers([number].into()))
    } else if let Some(numbers) = node.integers("value_ints")? {
        Tensor::list(Numbers::Integers(numbers.into()))
    } else {
        return Err(node.unsupported("no number", "a constant of floats or integers is"));
    };
    Ok(vec![Known::Constant(tensor)])
}

/// A map of labels to scores is the scores, under those names.
fn zip_map(call: &mut Call<'_>) -> Results {
    call.inputs_max(1)?;
    let rows = call.flat(0)?;
    let labels = labels(call, "classlabels_int64s", "classlabels_strings")?;
    if labels.len() != rows.width() {
        let (labels, columns) = (labels.len(), rows.width());
        return Err(call.node.malformed(format!("has {labels} labels for {columns} columns")));
    }
    call.program.labels = Some(labels);
    one(rows)
}

/// Labels of classes, whichever of two attributes has them.
pub(super) fn labels(call: &mut Call<'_>, integers: &str, strings: &str) -> Result<Vec<String>, ReadError> {
    let strings = call.node.texts(strings)?.filter(|strings| !strings.is_empty());
    let integers = call.node.integers(integers)?.filter(|integers| !integers.is_empty());
    match (strings, integers) {
        (Some(labels), None) => Ok(labels),
        (None, Some(integers)) => Ok(integers.iter().map(i64::to_string).collect()),
        (None, None) => Err(call.node.malformed("has no labels")),
        (Some(_), Some(_)) => Err(call.node.malformed("has two lists of labels")),
    }
}
