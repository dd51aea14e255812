//! A whole file: from the learner's keys to a [`Form`].
#![forbid(unsafe_code)]

use super::booster::{Booster, Forest};
use super::objective::{Meaning, Objective, Version, parameters};
use super::source::{Fault, Source, fill, required};
use crate::form::limits::{COLUMNS_MAX, FEATURES_MAX};
use crate::form::{Ensemble, Form, Rounding, Step};

/// The oldest version whose files are read: 1.0 still had another margin for `binary:logitraw`.
const VERSION_OLDEST: [i32; 2] = [1, 3];

/// The newest version whose rules are known: 3.4, for one, began to sort quantiles, and nothing but the version says so.
const VERSION_NEWEST: [i32; 2] = [3, 4];

/// From here on, what is no category goes left; before, it went where missing values go.
const VERSION_OF_CATEGORIES: Version = [1, 7, 0];

/// What stands beside each other in a file.
struct Learner {
    param: Param,
    booster: Booster,
    objective: Objective,
    feature_names: Vec<String>,
}

/// The value of `learner_model_param`.
struct Param {
    base_scores: Vec<f32>,
    features: usize,
    outputs: usize,
}

/// Reads a file.
///
/// # Errors
/// If it is malformed, or has what is not supported.
pub(super) fn read<'a, S: Source<'a>>(mut source: S) -> Result<Form, Fault> {
    let (mut version, mut learner) = (None, None);
    source.object(|key, value| match key {
        "version" => fill(&mut version, value.integers()?),
        "learner" => fill(&mut learner, Learner::read(value)?),
        _ => value.skip(),
    })?;
    source.end()?;
    let version = known(required(version, "version")?)?;
    required(learner, "learner")?.into_form(version).map_err(|fault| fault.at("learner"))
}

fn known(version: Vec<i32>) -> Result<Version, Fault> {
    let version = Version::try_from(version).map_err(|_| Fault::malformed("3 numbers were expected").at("version"))?;
    let instead = if version[..2] > VERSION_NEWEST[..] {
        let [major, minor] = VERSION_NEWEST;
        format!("save it with XGBoost {major}.{minor} or older, save_model('model.json')")
    } else if version[..2] < VERSION_OLDEST[..] {
        "load it with a newer XGBoost, and save it again with save_model('model.json')".to_owned()
    } else {
        return Ok(version);
    };
    Err(Fault::unsupported(format!("the version {}", dotted(version)), instead))
}

fn dotted(version: Version) -> String {
    version.map(|number| number.to_string()).join(".")
}

impl Learner {
    fn read<'a, S: Source<'a>>(source: &mut S) -> Result<Learner, Fault> {
        let (mut param, mut booster, mut objective, mut feature_names) = (None, None, None, None);
        source.object(|key, value| match key {
            "learner_model_param" => fill(&mut param, Param::read(value)?),
            "gradient_booster" => fill(&mut booster, Booster::read(value)?),
            "objective" => fill(&mut objective, Objective::read(value)?),
            "feature_names" => {
                let mut names = Vec::new();
                value.array(|index, value| {
                    within(index + 1, FEATURES_MAX, "name")?;
                    names.push(value.text()?.into_owned());
                    Ok(())
                })?;
                fill(&mut feature_names, names)
            }
            // Attributes too: see the module's head about best_iteration.
            _ => value.skip(),
        })?;
        Ok(Learner {
            param: required(param, "learner_model_param")?,
            booster: required(booster, "gradient_booster")?,
            objective: required(objective, "objective")?,
            feature_names: feature_names.unwrap_or_default(),
        })
    }

    fn into_form(self, version: Version) -> Result<Form, Fault> {
        let Learner { param, booster, objective, feature_names } = self;
        let Param { base_scores, features, outputs } = param;
        if !feature_names.is_empty() && feature_names.len() != features {
            let what = format!("{} names for {features} features", feature_names.len());
            return Err(Fault::malformed(what).at("feature_names"));
        }
        let meaning = objective.meaning(version, outputs).map_err(|fault| fault.at("objective"))?;
        let start = meaning.margins(base_scores, version);
        let start = start.map_err(|fault| fault.at("learner_model_param.base_score"))?;
        let kind = |booster: &str| format!("XGBoost {}, {booster}, {}", dotted(version), objective.name);
        let (kind, steps) = match booster {
            Booster::Trees(forest) => {
                if forest.has_categories && version < VERSION_OF_CATEGORIES {
                    let what = format!("splits by category of version {}", dotted(version));
                    let instead = "load it with XGBoost 1.7 or newer, and save it again with save_model('model.json')";
                    return Err(Fault::unsupported(what, instead));
                }
                let kind = kind(if forest.is_dart { "dart" } else { "gbtree" });
                (kind, vec![trees(forest, &start).map_err(|fault| fault.at("gradient_booster.model"))?])
            }
            Booster::Linear(weights) => {
                let steps = linear(&weights, &start, features);
                (kind("gblinear"), steps.map_err(|fault| fault.at("gradient_booster.model.weights"))?)
            }
        };
        Ok(form(kind, features, feature_names, steps, &meaning, outputs))
    }
}

fn form(
    kind: String,
    feature_dim: usize,
    feature_names: Vec<String>,
    mut steps: Vec<Step>,
    meaning: &Meaning,
    outputs: usize,
) -> Form {
    let margin = steps.len();
    let score = meaning.finish(&mut steps, margin);
    let output_names = match meaning.is_class() {
        true => vec!["class".to_owned()],
        false => (0..outputs).map(|output| output.to_string()).collect(),
    };
    Form { kind, feature_dim, feature_names, steps, margin, score, output_names }
}

/// Sums start at the base margin and are added in f32, in the order of the trees (`src/predictor/cpu_predictor.cc`, the same
/// in all versions).
fn trees(forest: Forest, start: &[f32]) -> Result<Step, Fault> {
    let targets = start.len();
    let ensemble = Ensemble {
        targets,
        trees: forest.into_trees(targets)?,
        rounding: Rounding::F32,
        start: start.iter().map(|margin| f64::from(*margin)).collect(),
        factor: 1.0,
        offset: vec![0.0; targets],
    };
    Ok(Step::Trees { input: 0, ensemble })
}

/// The file has the weights of all outputs for each feature, then the biases. What is missing adds nothing. All outputs
/// start at the first base score: so it is in all versions (`PredictBatchInternal` of `src/gbm/gblinear.cc`), also in those
/// that have several.
fn linear(weights: &[f32], start: &[f32], features: usize) -> Result<Vec<Step>, Fault> {
    let outputs = start.len();
    if weights.is_empty() {
        return Err(Fault::unsupported("no weights", "train it, and save it then"));
    }
    if weights.len() != (features + 1) * outputs {
        let what = format!("{} weights for {features} features and a bias, {outputs} times", weights.len());
        return Err(Fault::malformed(what));
    }
    let (weights, biases) = weights.split_at(features * outputs);
    let turned = (0..weights.len()).map(|at| weights[at % features * outputs + at / features]).collect();
    let bias = biases.iter().map(|bias| bias + start[0]).collect();
    Ok(vec![
        Step::Impute { input: 0, missing: f32::NAN, values: vec![0.0; features] },
        Step::Linear { input: 1, weights: turned, bias },
    ])
}

impl Param {
    fn read<'a, S: Source<'a>>(source: &mut S) -> Result<Param, Fault> {
        let (mut base_scores, mut features, mut classes, mut targets) = (None, None, None, None);
        source.object(|key, value| match key {
            "base_score" => fill(&mut base_scores, parameters(&value.text()?)?),
            "num_feature" => fill(&mut features, value.count()?),
            "num_class" => fill(&mut classes, value.count()?),
            "num_target" => fill(&mut targets, value.count()?),
            _ => value.skip(),
        })?;
        let features = within(required(features, "num_feature")?, FEATURES_MAX, "num_feature")?;
        let classes = within(classes.unwrap_or(0).max(1), COLUMNS_MAX, "num_class")?;
        let targets = within(targets.unwrap_or(1).max(1), COLUMNS_MAX, "num_target")?;
        if classes > 1 && targets > 1 {
            let what = format!("{classes} classes for each of {targets} targets");
            return Err(Fault::unsupported(what, "XGBoost itself knows either the one or the other"));
        }
        let outputs = classes.max(targets);
        let mut base_scores = required(base_scores, "base_score")?;
        if base_scores.len() == 1 {
            base_scores = vec![base_scores[0]; outputs];
        }
        if base_scores.len() != outputs {
            let what = format!("{} scores for {outputs} outputs", base_scores.len());
            return Err(Fault::malformed(what).at("base_score"));
        }
        Ok(Param { base_scores, features, outputs })
    }
}

fn within(count: usize, max: usize, key: &str) -> Result<usize, Fault> {
    match count {
        0 => Err(Fault::malformed("it is 0").at(key)),
        count if count > max => {
            Err(Fault::unsupported(format!("the number {count}"), format!("at most {max} is")).at(key))
        }
        count => Ok(count),
    }
}
