//! What becomes of the sums, and what the outputs are called: `PrepareEval` in CatBoost's `eval_helpers.cpp`, and which type of
//! prediction `predict` of its Python classes has by default (`_get_default_prediction_type`).
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::file::{ClassParams, LossFunction, ModelInfo};
use super::{malformed, unsupported};
use crate::form::Transform;
use crate::read::ReadError;

/// What a model was trained for, as far as scores depend on it.
pub(super) struct Loss {
    /// What CatBoost calls it.
    pub name: String,
    /// Nothing if the sums are the scores.
    pub transform: Option<Transformed>,
    /// Whether two sums are one output, P(class 1).
    pub two_classes: bool,
    /// As many as there are outputs.
    pub output_names: Vec<String>,
}

pub(super) enum Transformed {
    /// A function of all sums.
    All(Transform),
    /// A mean, which stays, and the logarithm of a deviation, which becomes a variance: `exp(2x)`.
    Uncertainty,
}

/// What outputs are.
enum Kind {
    /// A probability of class 1.
    Binary,
    /// Probabilities of classes, of which one is true.
    Classes(Transform),
    /// Probabilities of labels, each true or not.
    Labels,
    /// Values.
    Values(Option<Transformed>),
}

impl Loss {
    pub fn read(info: &ModelInfo<'_>, targets: usize) -> Result<Loss, ReadError> {
        let name = loss_name(info)?.into_owned();
        let kind = kind(&name)?;
        if !kind.fits(targets) {
            return Err(malformed(format!("leaves have {targets} values, which does not fit the loss {name}")));
        }
        let classes = info.class_params.as_ref();
        let indices = || (0..targets).map(|index| index.to_string()).collect();
        let sigmoid = Some(Transformed::All(Transform::Sigmoid { slope: 1.0 }));
        let two_classes = matches!(kind, Kind::Classes(_)) && targets == 2;
        let (transform, output_names) = match kind {
            Kind::Binary => {
                class_names(classes, 2)?;
                (sigmoid, probability())
            }
            Kind::Classes(transform) => {
                let labels = class_names(classes, targets)?;
                (Some(Transformed::All(transform)), if two_classes { probability() } else { labels })
            }
            Kind::Labels => (sigmoid, class_names(classes, targets)?),
            Kind::Values(transform @ Some(Transformed::Uncertainty)) => {
                (transform, vec!["mean".to_owned(), "variance".to_owned()])
            }
            Kind::Values(transform) if targets == 1 => (transform, vec!["score".to_owned()]),
            Kind::Values(transform) => (transform, indices()),
        };
        Ok(Loss { name, transform, two_classes, output_names })
    }
}

impl Kind {
    /// Whether leaves have as many values as the loss wants.
    fn fits(&self, targets: usize) -> bool {
        match self {
            Kind::Binary | Kind::Values(Some(Transformed::All(_))) => targets == 1,
            Kind::Classes(_) => targets >= 2,
            Kind::Values(Some(Transformed::Uncertainty)) => targets == 2,
            Kind::Labels | Kind::Values(None) => true,
        }
    }
}

/// The name of the one output of two classes.
fn probability() -> Vec<String> {
    vec!["probability".to_owned()]
}

/// `TFullModel::GetLossFunctionName`.
fn loss_name<'a>(info: &'a ModelInfo<'_>) -> Result<Cow<'a, str>, ReadError> {
    if let Some(text) = &info.loss_function {
        let loss: LossFunction<'_> = serde_json::from_str(text)
            .map_err(|error| malformed(format!("model_info.loss_function, which is JSON in a string: {error}")))?;
        return Ok(Cow::Owned(loss.name.into_owned()));
    }
    match info.params.as_ref().and_then(|params| params.loss_function.as_ref()) {
        Some(loss) => Ok(Cow::Borrowed(&loss.name)),
        None => {
            let instead = "a model that CatBoost trained says with which loss, and so what its scores are";
            Err(unsupported("no model_info.params.loss_function", instead))
        }
    }
}

fn kind(loss: &str) -> Result<Kind, ReadError> {
    Ok(match loss {
        "Logloss" | "CrossEntropy" | "Focal" => Kind::Binary,
        "MultiClass" => Kind::Classes(Transform::Softmax),
        "MultiClassOneVsAll" => Kind::Classes(Transform::Sigmoid { slope: 1.0 }),
        "MultiLogloss" | "MultiCrossEntropy" => Kind::Labels,
        "Poisson" | "Tweedie" => Kind::Values(Some(Transformed::All(Transform::Exp))),
        "RMSEWithUncertainty" => Kind::Values(Some(Transformed::Uncertainty)),
        "RMSE"
        | "MAE"
        | "Quantile"
        | "MultiQuantile"
        | "LogLinQuantile"
        | "GroupQuantile"
        | "Expectile"
        | "Lq"
        | "MAPE"
        | "RMSPE"
        | "Huber"
        | "LogCosh"
        | "SurvivalAft"
        | "Cox"
        | "MultiRMSE"
        | "MultiRMSEWithMissingValues"
        | "QueryRMSE"
        | "QuerySoftMax"
        | "QueryCrossEntropy"
        | "PairLogit"
        | "PairLogitPairwise"
        | "YetiRank"
        | "YetiRankPairwise"
        | "StochasticFilter"
        | "StochasticRank"
        | "LambdaMart" => Kind::Values(None),
        // Its file does not say whether its sums are scores or the logarithms of odds.
        _ => {
            let what = format!("the loss {:?}", loss.chars().take(60).collect::<String>());
            return Err(unsupported(what, "CatBoost's own losses are, whose scores are known"));
        }
    })
}

/// The labels of the classes; their indices if the file has none.
///
/// # Errors
/// If the classes are not those of the sums, in their order: CatBoost gives a class of which it saw no row a column too.
fn class_names(classes: Option<&ClassParams>, count: usize) -> Result<Vec<String>, ReadError> {
    let none = ClassParams::default();
    let ClassParams { class_names, class_to_label, classes_count } = classes.unwrap_or(&none);
    let in_order = class_to_label.iter().enumerate().all(|(index, label)| *label == index as f64);
    let fits = |length: usize| length == 0 || length == count;
    if !in_order || !fits(class_to_label.len()) || !fits(class_names.len()) || !fits(*classes_count) {
        let instead = "train with rows of every class";
        return Err(unsupported("class_params with classes that the trees do not know", instead));
    }
    if class_names.is_empty() {
        return Ok((0..count).map(|class| class.to_string()).collect());
    }
    Ok(class_names.iter().map(ToString::to_string).collect())
}
