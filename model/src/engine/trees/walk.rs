//! Walks each tree from its root to a leaf, split by split, as the form has them: the reference that every other engine must
//! equal bit for bit, and what scores ensembles that no other engine takes.
#![forbid(unsafe_code)]

use crate::form::{Child, Ensemble, Leaves, LinearLeaf, Rounding, Split, Targets, Test, Tree};

/// The ensemble as it is.
pub(super) struct Walk {
    ensemble: Ensemble,
    inputs: usize,
    sums: Vec<f64>,
}

impl Walk {
    pub fn new(ensemble: Ensemble, inputs: usize) -> Walk {
        let sums = vec![0.0; ensemble.targets];
        Walk { ensemble, inputs, sums }
    }

    pub fn bytes(&self) -> usize {
        let tree = |tree: &Tree| tree.splits.len() * size_of::<Split>() + tree.leaves.values.len() * size_of::<f64>();
        self.ensemble.trees.iter().map(tree).sum()
    }

    /// Scores rows (shape `[rows, inputs]`) into `scores` (shape `[rows, targets]`).
    pub fn score(&mut self, rows: &[f32], scores: &mut [f32]) {
        let results = scores.chunks_exact_mut(self.ensemble.targets);
        for (row, result) in rows.chunks_exact(self.inputs).zip(results) {
            score_row(&self.ensemble, row, &mut self.sums, result);
        }
    }
}

fn score_row(ensemble: &Ensemble, row: &[f32], sums: &mut [f64], result: &mut [f32]) {
    let rounded = |sum: f64| match ensemble.rounding {
        Rounding::F32 => f64::from(sum as f32),
        Rounding::F64 => sum,
    };
    sums.iter_mut().zip(&ensemble.start).for_each(|(sum, start)| *sum = rounded(*start));
    for tree in &ensemble.trees {
        let leaf = leaf_of(tree, row);
        match tree.leaves.targets {
            // Adding two f32 in f64 and rounding to f32 gives what adding them in f32 does.
            Targets::One(target) => {
                let sum = &mut sums[target as usize];
                *sum = rounded(*sum + rounded(value_of(&tree.leaves, leaf, row)));
            }
            Targets::All => {
                let values = &tree.leaves.values[leaf * ensemble.targets..];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = rounded(*sum + rounded(*value)));
            }
        }
    }
    for ((sum, offset), place) in sums.iter().zip(&ensemble.offset).zip(result) {
        *place = (rounded(rounded(sum * rounded(ensemble.factor)) + rounded(*offset))) as f32;
    }
}

fn leaf_of(tree: &Tree, row: &[f32]) -> usize {
    let mut place = tree.root;
    loop {
        match place {
            Child::Leaf(leaf) => return leaf as usize,
            Child::Split(split) => {
                let split = &tree.splits[split as usize];
                place = if passes(split, row[split.feature as usize]) { split.yes } else { split.no };
            }
        }
    }
}

fn passes(split: &Split, x: f32) -> bool {
    /// `kZeroThreshold` of LightGBM, in f64 as there.
    const ZERO_MAX: f64 = 1e-35_f32 as f64;
    if x.is_nan() {
        return split.missing;
    }
    match &split.test {
        Test::AtMost { zero: Some(zero), .. } if f64::from(x).abs() <= ZERO_MAX => *zero,
        Test::AtMost { threshold, .. } => x <= *threshold,
        Test::Within(intervals) => {
            let after = intervals.partition_point(|interval| interval.first <= x);
            after > 0 && x <= intervals[after - 1].last
        }
    }
}

fn value_of(leaves: &Leaves, leaf: usize, row: &[f32]) -> f64 {
    let plain = leaves.values[leaf];
    let Ok(index) = leaves.linear.binary_search_by_key(&leaf, |(leaf, _)| *leaf as usize) else { return plain };
    let LinearLeaf { constant, terms } = &leaves.linear[index].1;
    let of = |feature: &u32| row[*feature as usize];
    if terms.iter().any(|(feature, _)| of(feature).is_nan()) {
        return plain;
    }
    terms.iter().fold(*constant, |sum, (feature, coefficient)| sum + coefficient * f64::from(of(feature)))
}
