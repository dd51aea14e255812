//! The models of the simulated server: the sum, or small trees with one output or several, in versions that score otherwise;
//! each fails on requests that are marked.
//!
//! What they must score is said twice: by the crate that serves models, and here, by hand.

use disrust_model::engine::Compiled;
use disrust_model::form::{Child, Ensemble, Form, Leaves, Rounding, Split, Step, Targets, Test, Tree};
use disrust_model::{Model, PredictError, Rows, Sum};
use disrust_protocol::F32_BYTES;

use super::client::{MODEL_ERRS, MODEL_PANICS};

/// What a panic of [`Fragile`] says.
pub const PANIC_MESSAGE: &str = "the simulated model panics as a test";

/// Trees for each output.
const TREES: usize = 2;

/// What a run's model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scorer {
    /// The sum of the features, whatever the version.
    Sum,
    /// Trees with leaves of their own for each version, so that an answer tells its version.
    Trees { outputs: usize },
}

impl Scorer {
    /// Scores for each row.
    pub fn outputs(self) -> usize {
        match self {
            Scorer::Sum => 1,
            Scorer::Trees { outputs } => outputs,
        }
    }

    /// Adds what this version must score the row to `scores`.
    pub fn score(self, version: usize, row: &[f32], scores: &mut Vec<f32>) {
        match self {
            // From left to right, from -0.0: the bits depend on the order.
            Scorer::Sum => scores.push(row.iter().fold(-0.0, |sum, feature| sum + feature)),
            Scorer::Trees { outputs } => {
                for output in 0..outputs {
                    let leaves = (0..TREES).map(|tree| {
                        let [first, second] = splits(row.len(), output, tree);
                        let passes = |(feature, threshold): (usize, f32)| row[feature] <= threshold;
                        let leaf = if passes(first) { 0 } else { 2 - usize::from(passes(second)) };
                        leaf_value(version, output, tree, leaf)
                    });
                    scores.push(leaves.fold(0.0, |sum, leaf| sum + leaf));
                }
            }
        }
    }

    /// The version's model, for rows of so many features.
    pub fn model(self, features: usize, version: usize) -> Fragile {
        let model: Box<dyn Model> = match self {
            Scorer::Sum => Box::new(Sum::new(features)),
            Scorer::Trees { outputs } => {
                let form = form(features, outputs, version);
                form.check().expect("the trees are a model");
                Box::new(Compiled::new(form, &version_name(version)))
            }
        };
        Fragile { model, version: version as u64 }
    }
}

/// What a version of trees is called.
pub fn version_name(version: usize) -> String {
    format!("version {version}")
}

/// Feature and threshold of a tree's root, and of the split that follows where a row does not pass it.
fn splits(features: usize, output: usize, tree: usize) -> [(usize, f32); 2] {
    [((output + tree) % features, 1.0e6 * tree as f32), ((output + 2 * tree + 1) % features, 1.0e7)]
}

/// Far apart for different versions, near for different leaves.
fn leaf_value(version: usize, output: usize, tree: usize, leaf: usize) -> f32 {
    0.37 * (31 * version + 7 * output + 3 * tree + leaf) as f32
}

fn form(features: usize, outputs: usize, version: usize) -> Form {
    let tree = |output: usize, tree: usize| {
        let [first, second] = splits(features, output, tree);
        let split = |(feature, threshold): (usize, f32), yes, no| Split {
            feature: feature as u32,
            test: Test::AtMost { threshold, zero: None },
            missing: false,
            yes,
            no,
        };
        let values = (0..3).map(|leaf| f64::from(leaf_value(version, output, tree, leaf)));
        Tree {
            root: Child::Split(0),
            splits: vec![split(first, Child::Leaf(0), Child::Split(1)), split(second, Child::Leaf(1), Child::Leaf(2))],
            leaves: Leaves {
                count: 3,
                targets: Targets::One(output as u32),
                values: values.collect(),
                linear: Vec::new(),
            },
        }
    };
    let trees = (0..outputs).flat_map(|output| (0..TREES).map(move |number| (output, number)));
    let ensemble = Ensemble {
        targets: outputs,
        trees: trees.map(|(output, number)| tree(output, number)).collect(),
        rounding: Rounding::F32,
        start: vec![0.0; outputs],
        factor: 1.0,
        offset: vec![0.0; outputs],
    };
    Form {
        kind: "a simulated ensemble".to_owned(),
        feature_dim: features,
        feature_names: Vec::new(),
        steps: vec![Step::Trees { input: 0, ensemble }],
        margin: 1,
        score: 1,
        output_names: (0..outputs).map(|output| output.to_string()).collect(),
    }
}

/// A model that fails, after half of its work, on vectors that begin with a mark.
pub struct Fragile {
    model: Box<dyn Model>,
    version: u64,
}

impl Model for Fragile {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn feature_dim(&self) -> usize {
        self.model.feature_dim()
    }

    fn outputs(&self) -> usize {
        self.model.outputs()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        let row_bytes = self.feature_dim() * F32_BYTES;
        let (mut errs, mut panics) = (false, false);
        rows.for_each_span(|request| {
            for row in request.chunks_exact(row_bytes) {
                let first = row.first_chunk().map(|feature| f32::from_le_bytes(*feature));
                errs |= first == Some(MODEL_ERRS);
                panics |= first == Some(MODEL_PANICS);
            }
        });
        if errs || panics {
            scores.iter_mut().step_by(2).for_each(|score| *score = f32::NAN);
        }
        assert!(!panics, "{PANIC_MESSAGE}");
        if errs { Err(PredictError("a marked row".to_owned())) } else { self.model.predict(rows, scores) }
    }
}
