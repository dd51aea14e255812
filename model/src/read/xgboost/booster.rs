//! What was trained: trees (gbtree, dart) or weights (gblinear).
#![forbid(unsafe_code)]

use super::source::{Fault, Source, fill, required, shown};
use super::tree;
use crate::form::{Split, Targets, Test, Tree};

/// A booster, checked but for what the learner says about it.
pub(super) enum Booster {
    Trees(Forest),
    Linear(Vec<f32>),
}

/// Trees and what each adds to.
pub(super) struct Forest {
    pub trees: Vec<Tree>,
    /// The targets of those trees whose leaves are no vectors, one for each tree.
    pub targets: Vec<i32>,
    /// Whether trees were dropped in training, and so have weights now.
    pub is_dart: bool,
    /// Whether any split is by category.
    pub has_categories: bool,
}

/// What the keys hold, wherever they stand.
#[derive(Default)]
struct Parts {
    name: Option<String>,
    trees: Option<Vec<Tree>>,
    tree_info: Option<Vec<i32>>,
    tree_count: Option<usize>,
    iteration_indptr: Option<Vec<i32>>,
    weight_drop: Option<Vec<f32>>,
    weights: Option<Vec<f32>>,
}

impl Booster {
    /// Reads the value of `gradient_booster`.
    ///
    /// # Errors
    /// If it is none, or one that is not known.
    pub fn read<'a, S: Source<'a>>(source: &mut S) -> Result<Booster, Fault> {
        let mut parts = Parts::default();
        let mut inner = Parts::default();
        source.object(|key, value| match key {
            // Up to 3.3, dart is a booster around a gbtree.
            "gbtree" => value.object(|key, value| inner.read(key, value)),
            _ => parts.read(key, value),
        })?;
        let name = required(parts.name.take(), "name")?;
        match name.as_str() {
            "gbtree" => parts.forest().map(Booster::Trees),
            "dart" => {
                if let Some(weights) = parts.weight_drop.take() {
                    fill(&mut inner.weight_drop, weights).map_err(|fault| fault.at("weight_drop"))?;
                }
                inner.forest().map_err(|fault| fault.at("gbtree")).map(Booster::Trees)
            }
            "gblinear" => required(parts.weights, "model.weights").map(Booster::Linear),
            other => {
                let instead = "gbtree, dart and gblinear are";
                Err(Fault::unsupported(format!("the booster {}", shown(other)), instead).at("name"))
            }
        }
    }
}

impl Parts {
    fn read<'a, S: Source<'a>>(&mut self, key: &str, value: &mut S) -> Result<(), Fault> {
        match key {
            "name" => fill(&mut self.name, value.text()?.into_owned()),
            "weight_drop" => fill(&mut self.weight_drop, value.numbers()?),
            "model" => value.object(|key, value| self.read_model(key, value)),
            _ => value.skip(),
        }
    }

    fn read_model<'a, S: Source<'a>>(&mut self, key: &str, value: &mut S) -> Result<(), Fault> {
        match key {
            "gbtree_model_param" => value.object(|key, value| match key {
                "num_trees" => fill(&mut self.tree_count, value.count()?),
                _ => value.skip(),
            }),
            "trees" => {
                let mut trees = Vec::new();
                value.array(|index, value| {
                    trees.push(tree::read(value, index)?);
                    Ok(())
                })?;
                fill(&mut self.trees, trees)
            }
            "tree_info" => fill(&mut self.tree_info, value.integers()?),
            "iteration_indptr" => fill(&mut self.iteration_indptr, value.integers()?),
            // From 3.4 on.
            "weight_drop" => fill(&mut self.weight_drop, value.numbers()?),
            "weights" => fill(&mut self.weights, value.numbers()?),
            // `cats` are the names of categories in the data frame that was trained on: rows of numbers hold their codes.
            _ => value.skip(),
        }
    }

    fn forest(self) -> Result<Forest, Fault> {
        let mut trees = required(self.trees, "model.trees")?;
        let targets = required(self.tree_info, "model.tree_info")?;
        let count = required(self.tree_count, "model.gbtree_model_param.num_trees")?;
        let fits = |key: &str, found: usize| {
            let what = format!("{found} for {} trees", trees.len());
            if found == trees.len() { Ok(()) } else { Err(Fault::malformed(what).at(key).at("model")) }
        };
        fits("gbtree_model_param.num_trees", count)?;
        fits("tree_info", targets.len())?;
        if let Some(last) = self.iteration_indptr.as_deref().and_then(<[i32]>::last) {
            fits("iteration_indptr", usize::try_from(*last).unwrap_or(usize::MAX))?;
        }
        let weights = self.weight_drop.filter(|weights| !weights.is_empty());
        if let Some(weights) = &weights {
            fits("weight_drop", weights.len())?;
            trees.iter_mut().zip(weights).for_each(|(tree, weight)| weigh(tree, *weight));
        }
        let has_categories = trees.iter().flat_map(|tree| &tree.splits).any(is_by_category);
        Ok(Forest { trees, targets, is_dart: weights.is_some(), has_categories })
    }
}

fn is_by_category(split: &Split) -> bool {
    matches!(&split.test, Test::Within(intervals) if !intervals.is_empty())
}

/// Multiplies the leaves, in f32, as the predictor does before it adds them.
fn weigh(tree: &mut Tree, weight: f32) {
    tree.leaves.values.iter_mut().for_each(|value| *value = f64::from(*value as f32 * weight));
}

impl Forest {
    /// The trees, each adding to its target of so many.
    ///
    /// # Errors
    /// If there are none, or a target is not there.
    pub fn into_trees(self, target_count: usize) -> Result<Vec<Tree>, Fault> {
        if self.trees.is_empty() {
            let instead = "train it, and save it then";
            return Err(Fault::unsupported("no trees", instead));
        }
        let mut trees = self.trees;
        for (index, (tree, target)) in trees.iter_mut().zip(self.targets).enumerate() {
            let is_vector = tree.leaves.targets == Targets::All;
            let width = if is_vector { tree.leaves.values.len() / tree.leaves.count } else { target_count };
            if width != target_count {
                let what = format!("leaves of {width} values, but the model has {target_count} outputs");
                return Err(Fault::malformed(what).at_index(index).at("trees"));
            }
            if !is_vector {
                let target = u32::try_from(target).ok().filter(|target| (*target as usize) < target_count);
                let wrong = || format!("a target of {target_count} was expected");
                let fault = || Fault::malformed(wrong()).at_index(index).at("tree_info");
                tree.leaves.targets = Targets::One(target.ok_or_else(fault)?);
            }
        }
        Ok(trees)
    }
}
