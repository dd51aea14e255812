//! The gate between readers and engines: whether a form can be compiled and run without a panic, and within the limits.
//!
//! A reader refuses what its format does not say or disrust does not support, in the format's own words; this refuses what
//! would be no program or no tree, whoever built it: indices out of range, cycles, shared children, NaN thresholds, widths
//! that do not fit. Its cost is linear in the size of the form, on a stack of its own.

use thiserror::Error;

use super::limits::{COLUMNS_MAX, FEATURES_MAX, STEPS_MAX, TREE_DEPTH_MAX, TREE_PARTS_MAX};
use super::{Child, Ensemble, Form, Interval, Operand, Step, Targets, Test, Tree, Value};

/// Why a form is none: where, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct FormError(pub String);

/// Fails unless the condition holds.
macro_rules! demand {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(FormError(format!($($message)+)));
        }
    };
}

impl Form {
    /// Checks everything that engines rely on.
    ///
    /// # Errors
    /// At the first thing that is wrong.
    pub fn check(&self) -> Result<(), FormError> {
        let features = self.feature_dim;
        demand!((1..=FEATURES_MAX).contains(&features), "{features} features: 1 to {FEATURES_MAX} are supported");
        let names = self.feature_names.len();
        demand!(names == 0 || names == features, "{names} feature names for {features} features");
        demand!(self.steps.len() <= STEPS_MAX, "{} steps: at most {STEPS_MAX} are supported", self.steps.len());
        let widths = self.widths()?;
        let (score, margin) = (width(&widths, self.score)?, width(&widths, self.margin)?);
        demand!(score <= COLUMNS_MAX, "{score} outputs: at most {COLUMNS_MAX} are supported");
        demand!(margin <= COLUMNS_MAX, "{margin} outputs: at most {COLUMNS_MAX} are supported");
        let names = self.output_names.len();
        demand!(names == score, "{names} output names for {score} outputs");
        Ok(())
    }

    /// How many columns each value has, by its number.
    ///
    /// # Errors
    /// At the first step that is wrong.
    pub fn widths(&self) -> Result<Vec<usize>, FormError> {
        let mut widths = vec![self.feature_dim];
        for (index, step) in self.steps.iter().enumerate() {
            let columns = step.columns(&widths).map_err(|error| FormError(format!("step {}: {error}", index + 1)))?;
            widths.push(columns);
        }
        Ok(widths)
    }
}

fn width(widths: &[usize], value: Value) -> Result<usize, FormError> {
    widths.get(value).copied().ok_or_else(|| FormError(format!("value {value} is not there yet")))
}

impl Step {
    /// Checks the step over values of these widths, and tells how many columns it gives.
    ///
    /// # Errors
    /// If it is wrong.
    pub fn columns(&self, widths: &[usize]) -> Result<usize, FormError> {
        let columns = match self {
            Step::Trees { input, ensemble } => {
                ensemble.check(width(widths, *input)?)?;
                ensemble.targets
            }
            Step::Linear { input, weights, bias } | Step::Gemm { input, weights, bias } => {
                let (inputs, outputs) = (width(widths, *input)?, bias.len());
                demand!(
                    weights.len() == inputs.saturating_mul(outputs),
                    "{} weights for {inputs} inputs and {outputs} outputs",
                    weights.len()
                );
                outputs
            }
            Step::Scale { input, offset, scale } => {
                let columns = width(widths, *input)?;
                let fits = offset.len() == columns && scale.len() == columns;
                demand!(fits, "{} offsets and {} scales for {columns} columns", offset.len(), scale.len());
                columns
            }
            Step::Impute { input, values, .. } => {
                let columns = width(widths, *input)?;
                demand!(values.len() == columns, "{} imputed values for {columns} columns", values.len());
                columns
            }
            Step::Normalize { input, .. } => width(widths, *input)?,
            Step::Arithmetic { left, right, .. } => {
                let (left, right) = (left.columns(widths)?, right.columns(widths)?);
                demand!(left == right || left == 1 || right == 1, "{left} and {right} columns do not fit together");
                left.max(right)
            }
            Step::Apply { input, transform } => transform.columns(width(widths, *input)?),
            Step::Concat { inputs } => {
                let mut columns = 0_usize;
                for input in inputs {
                    columns += width(widths, *input)?;
                }
                columns
            }
            Step::Select { input, columns } => {
                let inputs = width(widths, *input)?;
                let outside = columns.iter().find(|column| **column >= inputs);
                demand!(outside.is_none(), "column {} of {inputs} is chosen", outside.copied().unwrap_or_default());
                columns.len()
            }
        };
        demand!((1..=COLUMNS_MAX).contains(&columns), "{columns} columns: 1 to {COLUMNS_MAX} are supported");
        Ok(columns)
    }
}

impl Operand {
    fn columns(&self, widths: &[usize]) -> Result<usize, FormError> {
        match self {
            Operand::Value(value) => width(widths, *value),
            Operand::Constant(numbers) if numbers.is_empty() => Err(FormError("an empty constant".to_owned())),
            Operand::Constant(numbers) => Ok(numbers.len()),
        }
    }
}

impl Ensemble {
    /// Checks the ensemble over an input of `inputs` columns.
    fn check(&self, inputs: usize) -> Result<(), FormError> {
        let targets = self.targets;
        demand!((1..=COLUMNS_MAX).contains(&targets), "{targets} targets: 1 to {COLUMNS_MAX} are supported");
        let fits = self.start.len() == targets && self.offset.len() == targets;
        demand!(fits, "{} starts and {} offsets for {targets} targets", self.start.len(), self.offset.len());
        for (index, tree) in self.trees.iter().enumerate() {
            tree.check(inputs, targets).map_err(|error| FormError(format!("tree {index}: {error}")))?;
        }
        Ok(())
    }
}

impl Tree {
    fn check(&self, inputs: usize, targets: usize) -> Result<(), FormError> {
        self.check_leaves(inputs, targets)?;
        let (splits, leaves) = (self.splits.len(), self.leaves.count);
        demand!(splits <= TREE_PARTS_MAX, "{splits} splits: at most {TREE_PARTS_MAX} are supported");
        for (index, split) in self.splits.iter().enumerate() {
            let feature = split.feature as usize;
            demand!(feature < inputs, "split {index} looks at column {feature} of {inputs}");
            split.test.check().map_err(|error| FormError(format!("split {index}: {error}")))?;
        }
        demand!(leaves == splits + 1, "{splits} splits and {leaves} leaves: a tree has one leaf more than splits");
        self.check_paths()
    }

    fn check_leaves(&self, inputs: usize, targets: usize) -> Result<(), FormError> {
        let (leaves, values) = (self.leaves.count, self.leaves.values.len());
        demand!((1..=TREE_PARTS_MAX).contains(&leaves), "{leaves} leaves: 1 to {TREE_PARTS_MAX} are supported");
        let each = match self.leaves.targets {
            Targets::One(target) => {
                demand!((target as usize) < targets, "it adds to target {target} of {targets}");
                1
            }
            Targets::All => targets,
        };
        demand!(values == leaves.saturating_mul(each), "{values} leaf values for {leaves} leaves of {each}");
        let ascending = self.leaves.linear.is_sorted_by(|(one, _), (other, _)| one < other);
        demand!(ascending, "the linear leaves are not in order");
        for (leaf, linear) in &self.leaves.linear {
            demand!((*leaf as usize) < leaves, "leaf {leaf} of {leaves} is linear");
            demand!(matches!(self.leaves.targets, Targets::One(_)), "a linear leaf is a vector");
            for (feature, _) in &linear.terms {
                demand!((*feature as usize) < inputs, "leaf {leaf} looks at column {feature} of {inputs}");
            }
        }
        Ok(())
    }

    /// Every split and every leaf is reached on exactly one path. With as many leaves as splits and one, it is enough that
    /// none is reached twice and none lies outside.
    fn check_paths(&self) -> Result<(), FormError> {
        let mut splits_seen = vec![false; self.splits.len()];
        let mut leaves_seen = vec![false; self.leaves.count];
        let mut open = vec![(self.root, 1_usize)];
        while let Some((child, depth)) = open.pop() {
            let (seen, index, what) = match child {
                Child::Split(index) => (&mut splits_seen, index, "split"),
                Child::Leaf(index) => (&mut leaves_seen, index, "leaf"),
            };
            let Some(seen) = seen.get_mut(index as usize) else {
                return Err(FormError(format!("there is no {what} {index}")));
            };
            demand!(!*seen, "{what} {index} is reached twice: a cycle, or a child that two splits share");
            *seen = true;
            if let Child::Split(index) = child {
                demand!(depth <= TREE_DEPTH_MAX, "more than {TREE_DEPTH_MAX} levels");
                let split = &self.splits[index as usize];
                open.extend([(split.yes, depth + 1), (split.no, depth + 1)]);
            }
        }
        let unreached = splits_seen.iter().position(|seen| !seen);
        demand!(unreached.is_none(), "split {} is reached from nowhere", unreached.unwrap_or_default());
        Ok(())
    }

    /// How many splits the longest path has. The tree has been checked.
    pub fn depth(&self) -> usize {
        let mut depth_max = 0;
        let mut open = vec![(self.root, 0)];
        while let Some((child, depth)) = open.pop() {
            depth_max = depth_max.max(depth);
            if let Child::Split(index) = child {
                let split = &self.splits[index as usize];
                open.extend([(split.yes, depth + 1), (split.no, depth + 1)]);
            }
        }
        depth_max
    }
}

impl Test {
    fn check(&self) -> Result<(), FormError> {
        match self {
            Test::AtMost { threshold, .. } => demand!(!threshold.is_nan(), "the threshold is NaN"),
            Test::Within(intervals) => {
                let valid = |interval: &Interval| interval.first <= interval.last;
                let apart = |one: &Interval, other: &Interval| one.last.next_up() < other.first;
                let sorted = intervals.windows(2).all(|pair| apart(&pair[0], &pair[1]));
                demand!(intervals.iter().all(valid) && sorted, "its intervals are empty, unsorted or touch");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Leaves, Rounding, Split};
    use super::*;

    fn split(yes: Child, no: Child) -> Split {
        Split { feature: 0, test: Test::AtMost { threshold: 0.5, zero: None }, missing: false, yes, no }
    }

    fn tree(splits: Vec<Split>, leaves: usize) -> Tree {
        let root = if splits.is_empty() { Child::Leaf(0) } else { Child::Split(0) };
        let values = vec![1.0; leaves];
        Tree { root, splits, leaves: Leaves { count: leaves, targets: Targets::One(0), values, linear: Vec::new() } }
    }

    fn form(tree: Tree) -> Form {
        let ensemble = Ensemble {
            targets: 1,
            trees: vec![tree],
            rounding: Rounding::F64,
            start: vec![0.0],
            factor: 1.0,
            offset: vec![0.0],
        };
        Form {
            kind: "test".to_owned(),
            feature_dim: 2,
            feature_names: Vec::new(),
            steps: vec![Step::Trees { input: 0, ensemble }],
            margin: 1,
            score: 1,
            output_names: vec!["0".to_owned()],
        }
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        use Child::{Leaf, Split as To};
        let good = tree(vec![split(Leaf(0), To(1)), split(Leaf(1), Leaf(2))], 3);
        assert_eq!(form(good.clone()).check(), Ok(()));
        assert_eq!(good.depth(), 2);
        assert_eq!(form(tree(vec![], 1)).check(), Ok(()));
        for (splits, leaves, reason) in [
            (vec![split(Leaf(0), To(1)), split(Leaf(1), To(0))], 3, "reached twice"),
            (vec![split(Leaf(0), Leaf(0))], 2, "reached twice"),
            (vec![split(To(1), To(1)), split(Leaf(0), Leaf(1))], 3, "reached twice"),
            (vec![split(Leaf(0), Leaf(9))], 2, "there is no leaf 9"),
            (vec![split(Leaf(0), To(9))], 2, "there is no split 9"),
            (vec![split(Leaf(0), Leaf(1))], 3, "one leaf more than splits"),
            (vec![split(Leaf(0), Leaf(1)), split(Leaf(2), Leaf(2))], 3, "reached from nowhere"),
        ] {
            let error = form(tree(splits, leaves)).check().map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|error| error.contains(reason)), "{reason}: {error:?}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let refused = |change: &dyn Fn(&mut Form), reason: &str| {
            let mut form = form(tree(vec![split(Child::Leaf(0), Child::Leaf(1))], 2));
            change(&mut form);
            let error = form.check().map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|error| error.contains(reason)), "{reason}: {error:?}");
        };
        let ensemble = |form: &mut Form, change: &dyn Fn(&mut Ensemble)| match &mut form.steps[0] {
            Step::Trees { ensemble, .. } => change(ensemble),
            _ => panic!("trees"),
        };
        let first_split = |form: &mut Form, change: &dyn Fn(&mut Split)| {
            ensemble(form, &|ensemble| change(&mut ensemble.trees[0].splits[0]));
        };
        refused(&|form| form.feature_dim = 0, "0 features");
        refused(&|form| form.feature_dim = 4097, "4097 features");
        refused(&|form| form.feature_names = vec!["a".to_owned()], "1 feature names for 2");
        refused(&|form| form.score = 2, "value 2 is not there");
        refused(&|form| form.output_names.clear(), "0 output names");
        refused(&|form| first_split(form, &|split| split.feature = 2), "column 2 of 2");
        let nan = Test::AtMost { threshold: f32::NAN, zero: None };
        refused(&|form| first_split(form, &|split| split.test = nan.clone()), "NaN");
        let touching = Test::Within(Box::new([Interval { first: 2.0, last: 3.0 }, Interval { first: 1.0, last: 1.5 }]));
        refused(&|form| first_split(form, &|split| split.test = touching.clone()), "unsorted");
        refused(
            &|form| ensemble(form, &|ensemble| ensemble.trees[0].leaves.targets = Targets::One(1)),
            "target 1 of 1",
        );
        refused(&|form| ensemble(form, &|ensemble| ensemble.start.clear()), "0 starts");
        refused(&|form| ensemble(form, &|ensemble| ensemble.trees[0].leaves.values.clear()), "0 leaf values");
        refused(&|form| form.steps.push(Step::Concat { inputs: vec![] }), "0 columns");
        refused(&|form| form.steps.push(Step::Select { input: 0, columns: vec![2] }), "column 2 of 2");
        let constants = |numbers: &[f32]| Step::Arithmetic {
            operation: super::super::Operation::Add,
            left: Operand::Value(0),
            right: Operand::Constant(numbers.to_vec()),
        };
        refused(&|form| form.steps.push(constants(&[1.0; 3])), "do not fit together");
    }
}
