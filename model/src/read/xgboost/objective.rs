//! What a model was trained for, and so what comes before its sums (the link's inverse, applied to `base_score`) and after
//! them (`PredTransform`). Read in `src/objective/` of XGBoost 1.7 to 3.4.
#![forbid(unsafe_code)]

use super::source::{Fault, Source, fill, required, shown};
use crate::form::{Operand, Operation, Step, Transform, Value};

/// `kRtEps` of `include/xgboost/base.h`.
const EPSILON: f32 = 1e-6;

/// Which version of XGBoost wrote a file.
pub(super) type Version = [i32; 3];

/// An objective as the file has it.
pub(super) struct Objective {
    pub name: String,
    /// How many quantiles or expectiles, if it has any.
    alphas: Option<usize>,
    /// How many classes, if it has any.
    classes: Option<usize>,
}

impl Objective {
    /// Reads the value of `objective`.
    ///
    /// # Errors
    /// If it is none.
    pub fn read<'a, S: Source<'a>>(source: &mut S) -> Result<Objective, Fault> {
        let (mut name, mut alphas, mut classes) = (None, None, None);
        source.object(|key, value| match key {
            "name" => fill(&mut name, value.text()?.into_owned()),
            "softmax_multiclass_param" => value.object(|key, value| match key {
                "num_class" => fill(&mut classes, value.count()?),
                _ => value.skip(),
            }),
            "quantile_loss_param" | "expectile_loss_param" => value.object(|key, value| match key {
                "quantile_alpha" | "expectile_alpha" => fill(&mut alphas, parameters(&value.text()?)?.len()),
                _ => value.skip(),
            }),
            _ => value.skip(),
        })?;
        Ok(Objective { name: required(name, "name")?, alphas, classes })
    }

    /// What it means for a model of so many outputs.
    ///
    /// # Errors
    /// If it is not known, or has another number of outputs.
    pub fn meaning(&self, version: Version, outputs: usize) -> Result<Meaning, Fault> {
        let meaning = |link, answer| Ok(Meaning { link, answer });
        match self.name.as_str() {
            "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "binary:logitraw"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => meaning(Link::None, Answer::Margin),
            "reg:logistic" | "binary:logistic" => {
                meaning(Link::Logit, Answer::Transformed(Transform::Sigmoid { slope: 1.0 }))
            }
            "binary:hinge" => meaning(Link::None, Answer::Transformed(Transform::Step)),
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
                meaning(Link::Log, Answer::Transformed(Transform::Exp))
            }
            "multi:softprob" | "multi:softmax" => {
                self.demand(self.classes, outputs, "softmax_multiclass_param.num_class")?;
                let transform = if self.name == "multi:softmax" { Transform::ArgMax } else { Transform::Softmax };
                meaning(Link::None, Answer::Transformed(transform))
            }
            "reg:quantileerror" => {
                self.demand(self.alphas, outputs, "quantile_loss_param.quantile_alpha")?;
                // So that quantiles do not cross; 3.3 lets them.
                let sorts = version >= [3, 4, 0] && outputs > 1;
                meaning(Link::None, if sorts { Answer::Transformed(Transform::Sort) } else { Answer::Margin })
            }
            "reg:expectileerror" => {
                self.demand(self.alphas, outputs, "expectile_loss_param.expectile_alpha")?;
                if outputs == 1 {
                    return meaning(Link::None, Answer::Margin);
                }
                meaning(Link::Stairs, Answer::Stairs { outputs })
            }
            other => Err(Fault::unsupported(
                format!("the objective {}", shown(other)),
                "train it with one of reg:squarederror, reg:squaredlogerror, reg:pseudohubererror, reg:absoluteerror, \
                 reg:quantileerror, reg:expectileerror, reg:logistic, binary:logistic, binary:logitraw, binary:hinge, \
                 multi:softprob, multi:softmax, count:poisson, reg:gamma, reg:tweedie, survival:cox, survival:aft, \
                 rank:pairwise, rank:ndcg or rank:map",
            )),
        }
    }

    fn demand(&self, found: Option<usize>, outputs: usize, key: &str) -> Result<(), Fault> {
        match found {
            Some(found) if found == outputs => Ok(()),
            Some(found) => Err(Fault::malformed(format!("{found} for {outputs} outputs")).at(key)),
            None => Err(Fault::malformed(format!("there is no {key}"))),
        }
    }
}

/// What an objective means.
pub(super) struct Meaning {
    link: Link,
    answer: Answer,
}

/// How `base_score` becomes the margin that sums start at.
enum Link {
    None,
    Logit,
    Log,
    /// The inverse of [`Answer::Stairs`].
    Stairs,
}

/// How margins become scores.
enum Answer {
    /// They are.
    Margin,
    Transformed(Transform),
    /// Each output is the one before it plus something positive, `ln(1 + exp(margin))`: expectiles that do not cross.
    Stairs {
        outputs: usize,
    },
}

impl Meaning {
    /// Turns base scores into margins.
    ///
    /// # Errors
    /// If they are outside of what the link is made for.
    pub fn margins(&self, mut scores: Vec<f32>, version: Version) -> Result<Vec<f32>, Fault> {
        let outside = |score: f32, what: &str| Fault::malformed(format!("{score} is {what}"));
        for score in &mut scores {
            match self.link {
                Link::None | Link::Stairs => {}
                Link::Logit if !(0.0..=1.0).contains(score) => return Err(outside(*score, "no probability")),
                Link::Logit => *score = logit(*score, version),
                // A Poisson model of nothing but zeros has 0: its margin is −∞ and its answer 0.
                Link::Log if *score < 0.0 => return Err(outside(*score, "negative")),
                Link::Log => *score = score.ln(),
            }
        }
        if let Link::Stairs = self.link {
            for index in (1..scores.len()).rev() {
                let step = (scores[index] - scores[index - 1] - EPSILON).max(EPSILON);
                scores[index] = step + (-(-step).exp_m1()).ln();
            }
        }
        Ok(scores)
    }

    /// Adds the steps that make scores of margins; returns the scores' value.
    pub fn finish(&self, steps: &mut Vec<Step>, margin: Value) -> Value {
        match self.answer {
            Answer::Margin => margin,
            Answer::Transformed(transform) => push(steps, Step::Apply { input: margin, transform }),
            Answer::Stairs { outputs } => {
                let columns = (1..outputs).collect();
                let heights = push(steps, Step::Select { input: margin, columns });
                let heights = push(steps, Step::Apply { input: heights, transform: Transform::LogOnePlusExp });
                let (left, right) = (Operand::Value(heights), Operand::Constant(vec![EPSILON]));
                let heights = push(steps, Step::Arithmetic { operation: Operation::Add, left, right });
                let first = push(steps, Step::Select { input: margin, columns: vec![0] });
                let inputs = vec![first, heights];
                let input = push(steps, Step::Concat { inputs });
                let weight = |at: usize| if at % outputs <= at / outputs { 1.0 } else { 0.0 };
                let weights = (0..outputs * outputs).map(weight).collect();
                push(steps, Step::Linear { input, weights, bias: vec![0.0; outputs] })
            }
        }
    }

    /// Whether the answer is the index of a class.
    pub fn is_class(&self) -> bool {
        matches!(self.answer, Answer::Transformed(Transform::ArgMax))
    }
}

fn push(steps: &mut Vec<Step>, step: Step) -> Value {
    steps.push(step);
    steps.len()
}

/// In f32, as there. From 3.2 on, models of nothing but one class have 0 or 1.
fn logit(score: f32, version: Version) -> f32 {
    let is_end = score == 0.0 || score == 1.0;
    let bounded = if version >= [3, 2, 0] || is_end { score.clamp(EPSILON, 1.0 - EPSILON) } else { score };
    -(1.0 / bounded - 1.0).ln()
}

/// Reads one or several numbers: `5E-1`, `[5E-1,1E0]`, `(0.5, 1)`.
///
/// # Errors
/// If it is none.
pub(super) fn parameters(text: &str) -> Result<Vec<f32>, Fault> {
    let wrong = || Fault::malformed(format!("{} is neither a number nor a list of numbers", shown(text)));
    let trimmed = text.trim();
    let inside = trimmed.strip_prefix(['[', '(']).and_then(|rest| rest.strip_suffix([']', ')']));
    let number = |part: &str| part.trim().parse::<f32>().ok().filter(|number| number.is_finite()).ok_or_else(wrong);
    match inside {
        Some(list) => list.split(',').map(number).collect(),
        None => number(trimmed).map(|number| vec![number]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objective(name: &str, count: usize) -> Objective {
        Objective { name: name.to_owned(), alphas: Some(count), classes: Some(count) }
    }

    fn margins(name: &str, version: Version, scores: &[f32]) -> Option<Vec<f32>> {
        let meaning = objective(name, scores.len()).meaning(version, scores.len()).ok()?;
        meaning.margins(scores.to_vec(), version).ok()
    }

    /// Each objective's inverse link, by hand.
    #[test]
    fn base_scores_become_margins() {
        let of = |name: &str, score: f32| margins(name, [2, 1, 0], &[score]).map(|margins| margins[0]);
        assert_eq!(of("reg:squarederror", 3.5), Some(3.5));
        assert_eq!(of("binary:logitraw", 3.5), Some(3.5));
        assert_eq!(of("binary:logistic", 0.5), Some(0.0));
        assert!(of("binary:logistic", 0.75).is_some_and(|margin| (margin - 3.0_f32.ln()).abs() < 1e-6));
        assert_eq!(of("count:poisson", 1.0), Some(0.0));
        assert_eq!(of("survival:aft", 0.5), Some(0.5_f32.ln()));
        assert_eq!(of("count:poisson", 0.0), Some(f32::NEG_INFINITY));
        assert_eq!(of("multi:softprob", 0.5), Some(0.5));
        assert_eq!(of("binary:logistic", 1.5), None);
        assert_eq!(of("reg:gamma", -1.0), None);
    }

    /// Small probabilities are bounded from 3.2 on only; 0 and 1 have a margin in any version.
    #[test]
    fn probabilities_are_bounded_as_their_version_does() {
        let of = |version: Version, score: f32| {
            margins("binary:logistic", version, &[score]).map_or(0.0, |margins| margins[0])
        };
        let bound = of([3, 2, 0], 1e-6);
        assert_eq!(of([3, 2, 0], 1e-9), bound);
        assert!(of([3, 1, 3], 1e-9) < bound - 1.0);
        assert_eq!(of([1, 7, 6], 0.0), bound);
        assert!(of([1, 7, 6], 1.0).is_finite());
    }

    /// The stairs' inverse undoes the stairs.
    #[test]
    fn expectiles_are_undone() {
        let margins = margins("reg:expectileerror", [3, 3, 0], &[1.0, 1.5, 4.0]).unwrap_or_default();
        let mut sum = margins[0];
        let mut scores = vec![sum];
        for margin in &margins[1..] {
            sum += EPSILON + margin.exp().ln_1p();
            scores.push(sum);
        }
        for (score, wanted) in scores.iter().zip([1.0, 1.5, 4.0]) {
            assert!((score - wanted).abs() < 1e-5, "{scores:?}");
        }
    }

    /// All forms in which lists of numbers are written.
    #[test]
    fn parameters_are_one_or_several() {
        let of = |text: &str| parameters(text).ok();
        assert_eq!(of("5E-1"), Some(vec![0.5]));
        assert_eq!(of(" [5E-1, 1] "), Some(vec![0.5, 1.0]));
        assert_eq!(of("(0.5,1.)"), Some(vec![0.5, 1.0]));
        for wrong in ["", "[]", "[1", "nan", "[1,inf]", "a", "[1,]", "1,2"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    /// Nothing is guessed about an objective that is not known, or that contradicts the model.
    #[test]
    fn what_is_not_known_is_refused() {
        for name in ["reg:unheard", "", "binary:LOGISTIC", "gpu:reg:linear"] {
            assert!(objective(name, 1).meaning([3, 0, 0], 1).is_err(), "{name}");
        }
        for name in ["multi:softmax", "multi:softprob", "reg:quantileerror", "reg:expectileerror"] {
            assert!(objective(name, 2).meaning([3, 0, 0], 3).is_err(), "{name}");
            assert!(objective(name, 3).meaning([3, 0, 0], 3).is_ok(), "{name}");
        }
    }
}
