//! What a form means, word by word, as slow as it may be.

use disrust_model::form::{Child, Ensemble, LinearLeaf, Rounding, Split, Targets, Test, Tree};

/// The scores of rows, shape `[rows, targets]`.
pub fn scores(ensemble: &Ensemble, features: usize, rows: &[f32]) -> Vec<f32> {
    rows.chunks_exact(features).flat_map(|row| row_scores(ensemble, row)).collect()
}

fn row_scores(ensemble: &Ensemble, row: &[f32]) -> Vec<f32> {
    let round = |number: f64| match ensemble.rounding {
        Rounding::F32 => f64::from(number as f32),
        Rounding::F64 => number,
    };
    let mut sums: Vec<f64> = ensemble.start.iter().map(|start| round(*start)).collect();
    for tree in &ensemble.trees {
        let leaf = leaf(tree, row);
        let values = leaf_values(tree, leaf, row, ensemble.targets);
        for (target, value) in values {
            sums[target] = round(sums[target] + round(value));
        }
    }
    let scaled = sums.iter().map(|sum| round(sum * round(ensemble.factor)));
    scaled.zip(&ensemble.offset).map(|(sum, offset)| round(sum + round(*offset)) as f32).collect()
}

fn leaf(tree: &Tree, row: &[f32]) -> usize {
    let mut place = tree.root;
    loop {
        match place {
            Child::Leaf(leaf) => return leaf as usize,
            Child::Split(split) => {
                let split = &tree.splits[split as usize];
                place = if is_yes(split, row[split.feature as usize]) { split.yes } else { split.no };
            }
        }
    }
}

fn is_yes(split: &Split, x: f32) -> bool {
    if x.is_nan() {
        return split.missing;
    }
    match &split.test {
        Test::AtMost { zero: Some(zero), .. } if x.abs() <= 1e-35 => *zero,
        Test::AtMost { threshold, .. } => x <= *threshold,
        Test::Within(intervals) => intervals.iter().any(|interval| interval.first <= x && x <= interval.last),
    }
}

fn leaf_values(tree: &Tree, leaf: usize, row: &[f32], targets: usize) -> Vec<(usize, f64)> {
    let leaves = &tree.leaves;
    match leaves.targets {
        Targets::All => leaves.values[leaf * targets..][..targets].iter().copied().enumerate().collect(),
        Targets::One(target) => {
            let linear = leaves.linear.iter().find(|(index, _)| *index as usize == leaf);
            let value = linear.and_then(|(_, linear)| linear_value(linear, row)).unwrap_or(leaves.values[leaf]);
            vec![(target as usize, value)]
        }
    }
}

fn linear_value(leaf: &LinearLeaf, row: &[f32]) -> Option<f64> {
    let mut sum = leaf.constant;
    for (feature, coefficient) in &leaf.terms {
        sum += coefficient * f64::from(row[*feature as usize]);
    }
    (!leaf.terms.iter().any(|(feature, _)| row[*feature as usize].is_nan())).then_some(sum)
}
