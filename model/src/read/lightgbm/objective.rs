//! What becomes of the sums: `ConvertOutput` of the classes in LightGBM's `src/objective/`.
#![forbid(unsafe_code)]

use super::fields::{Fields, shortened, tokens, unsupported};
use crate::form::Transform;
use crate::read::ReadError;

/// What a model was trained for, as far as scores depend on it.
pub(super) struct Objective {
    /// What people call it.
    pub name: String,
    /// What is applied to the sums; nothing if they are the scores.
    pub transform: Option<Transform>,
    /// Whether the outputs are exclusive classes.
    pub classes: bool,
    /// Whether the one output is a probability.
    pub probability: bool,
}

impl Objective {
    /// A function of the user's own: LightGBM writes no objective then, and predicts the sums.
    pub fn none() -> Objective {
        Objective { name: "no objective".to_owned(), transform: None, classes: false, probability: false }
    }

    /// Reads `name option …`, as `ObjectiveFunction::ToString` writes it.
    pub fn read(fields: &Fields<'_>, line: &str, targets: usize) -> Result<Objective, ReadError> {
        let mut words = tokens(line);
        let name = words.next().ok_or_else(|| fields.malformed("objective", "it is empty"))?;
        let options = Options::read(fields, words)?;
        let sigmoid = |slope| Some(Transform::Sigmoid { slope });
        let (transform, classes, probability) = match name {
            "regression"
            | "regression_l2"
            | "mean_squared_error"
            | "mse"
            | "l2"
            | "l2_root"
            | "rmse"
            | "root_mean_squared_error"
            | "regression_l1"
            | "mean_absolute_error"
            | "l1"
            | "mae"
            | "fair"
            | "quantile"
            | "mape"
            | "mean_absolute_percentage_error" => {
                (options.square_root.then_some(Transform::SignedSquare), false, false)
            }
            "huber" | "lambdarank" | "rank_xendcg" | "xendcg" | "xe_ndcg" | "xe_ndcg_mart" | "xendcg_mart" => {
                (None, false, false)
            }
            "poisson" | "gamma" | "tweedie" => (Some(Transform::Exp), false, false),
            "binary" => (sigmoid(options.sigmoid(fields)?), false, true),
            "cross_entropy" | "xentropy" => (sigmoid(1.0), false, true),
            "cross_entropy_lambda" | "xentlambda" => (Some(Transform::LogOnePlusExp), false, false),
            "multiclass" | "softmax" => (Some(Transform::Softmax), true, false),
            "multiclassova" | "multiclass_ova" | "ova" | "ovr" => (sigmoid(options.sigmoid(fields)?), true, false),
            "custom" | "none" | "null" | "na" => return Ok(Objective::none()),
            _ => return Err(unsupported(format!("objective={}", shortened(line)), "LightGBM's own objectives are")),
        };
        let targets_expected = if classes { options.classes(fields)? } else { 1 };
        if targets != targets_expected {
            let what = format!("{name} has {targets_expected} sums, num_tree_per_iteration={targets}");
            return Err(fields.malformed("objective", what));
        }
        let suffix = if transform == Some(Transform::SignedSquare) { " sqrt" } else { "" };
        Ok(Objective { name: format!("{name}{suffix}"), transform, classes, probability })
    }
}

#[derive(Default)]
struct Options {
    sigmoid: Option<f64>,
    num_class: Option<usize>,
    square_root: bool,
}

impl Options {
    fn read<'a>(fields: &Fields<'_>, words: impl Iterator<Item = &'a str>) -> Result<Options, ReadError> {
        let mut options = Options::default();
        for word in words {
            let invalid = || fields.malformed("objective", format!("{:?}", shortened(word)));
            match word.split_once(':') {
                Some(("sigmoid", slope)) => options.sigmoid = Some(slope.parse().map_err(|_| invalid())?),
                Some(("num_class", classes)) => options.num_class = Some(classes.parse().map_err(|_| invalid())?),
                None if word == "sqrt" => options.square_root = true,
                _ => {
                    let what = format!("the objective's option {:?}", shortened(word));
                    return Err(unsupported(what, "sigmoid, num_class and sqrt are"));
                }
            }
        }
        Ok(options)
    }

    /// The slope; LightGBM has no default for it in a file.
    fn sigmoid(&self, fields: &Fields<'_>) -> Result<f64, ReadError> {
        let positive = self.sigmoid.filter(|slope| *slope > 0.0 && slope.is_finite());
        positive.ok_or_else(|| fields.malformed("objective", "sigmoid: it has to be there, finite and above 0"))
    }

    fn classes(&self, fields: &Fields<'_>) -> Result<usize, ReadError> {
        self.num_class.ok_or_else(|| fields.malformed("objective", "num_class: it is missing"))
    }
}
