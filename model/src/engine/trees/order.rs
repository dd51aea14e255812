//! Trees in the order in which engines want them.
#![forbid(unsafe_code)]

use crate::form::{Child, Ensemble, Targets, Tree};

/// Numbers the leaves of a tree of `targets` targets from its `no` side to its `yes` side, so that those of a split's
/// branches follow each other.
pub(super) fn number_leaves(tree: &mut Tree, targets: usize) {
    let places = places(tree);
    let leaves = &mut tree.leaves;
    let width = match leaves.targets {
        Targets::One(_) => 1,
        Targets::All => targets,
    };
    let mut values = vec![0.0; leaves.values.len()];
    for (from, place) in leaves.values.chunks_exact(width).zip(&places) {
        values[*place as usize * width..][..width].copy_from_slice(from);
    }
    leaves.values = values;
    for (leaf, _) in &mut leaves.linear {
        *leaf = places[*leaf as usize];
    }
    leaves.linear.sort_unstable_by_key(|(leaf, _)| *leaf);
    let renumber = |child: &mut Child| {
        if let Child::Leaf(leaf) = child {
            *leaf = places[*leaf as usize];
        }
    };
    renumber(&mut tree.root);
    for split in &mut tree.splits {
        renumber(&mut split.yes);
        renumber(&mut split.no);
    }
}

/// The place of each leaf in the order.
fn places(tree: &Tree) -> Vec<u32> {
    let mut places = vec![0; tree.leaves.count];
    let mut next = 0;
    let mut open = vec![tree.root];
    while let Some(child) = open.pop() {
        match child {
            Child::Leaf(leaf) => {
                places[leaf as usize] = next;
                next += 1;
            }
            Child::Split(split) => {
                let split = &tree.splits[split as usize];
                open.extend([split.yes, split.no]);
            }
        }
    }
    places
}

/// Levels of a tree whose leaves are padded.
pub(super) const PADDED_LEVELS: u32 = 6;

/// Leaves of a tree of that many levels.
pub(super) const PADDED_LEAVES: usize = 1 << PADDED_LEVELS;

/// Gives each tree the leaves of a complete tree of six levels, those of missing branches being copies, if no tree has more
/// levels and most leaves are there; whether it did. A leaf's number then is the way to it, read as bits. Leaves are numbered
/// from the no side to the yes side before and after.
pub(super) fn pad_leaves(ensemble: &mut Ensemble) -> bool {
    let levels = |tree: &Tree| from_below(tree, 0, |yes, no| 1 + yes.max(no)).into_iter().max().unwrap_or(0);
    let fits = |tree: &Tree| {
        matches!(tree.leaves.targets, Targets::One(_)) && tree.leaves.linear.is_empty() && levels(tree) <= PADDED_LEVELS
    };
    let leaves: usize = ensemble.trees.iter().map(|tree| tree.leaves.count).sum();
    let pads = 2 * leaves > PADDED_LEAVES * ensemble.trees.len() && ensemble.trees.iter().all(fits);
    if pads {
        ensemble.trees.iter_mut().for_each(pad_tree);
    }
    pads
}

fn pad_tree(tree: &mut Tree) {
    let mut values = vec![0.0; PADDED_LEAVES];
    let mut put = |leaf: u32, first: usize, count: usize| {
        values[first..first + count].fill(tree.leaves.values[leaf as usize]);
    };
    // A split, its level, the first of the leaves below it.
    let mut open = Vec::new();
    match tree.root {
        Child::Leaf(leaf) => {
            put(leaf, 0, PADDED_LEAVES);
            tree.root = Child::Leaf(0);
        }
        Child::Split(split) => open.push((split, 0, 0)),
    }
    while let Some((index, level, first)) = open.pop() {
        let half = PADDED_LEAVES >> (level + 1);
        let split = &mut tree.splits[index as usize];
        for (child, is_yes) in [(&mut split.no, false), (&mut split.yes, true)] {
            let first = first + if is_yes { half } else { 0 };
            match child {
                Child::Split(below) => open.push((*below, level + 1, first)),
                Child::Leaf(leaf) => {
                    put(*leaf, first, half);
                    // Of the copies, the one next to the other branch: two leaves of a split follow each other.
                    *leaf = (if is_yes { first } else { first + half - 1 }) as u32;
                }
            }
        }
    }
    tree.leaves.values = values;
    tree.leaves.count = PADDED_LEAVES;
}

/// A number for each split, made of those of its branches: `leaf` for a leaf, what `join` makes of both for a split.
pub(super) fn from_below(tree: &Tree, leaf: u32, join: impl Fn(u32, u32) -> u32) -> Vec<u32> {
    let mut numbers = vec![0; tree.splits.len()];
    let mut down = Vec::with_capacity(tree.splits.len());
    let mut open = vec![tree.root];
    while let Some(child) = open.pop() {
        if let Child::Split(split) = child {
            down.push(split as usize);
            let split = &tree.splits[split as usize];
            open.extend([split.yes, split.no]);
        }
    }
    for index in down.into_iter().rev() {
        let number = |child: Child| match child {
            Child::Leaf(_) => leaf,
            Child::Split(split) => numbers[split as usize],
        };
        let split = &tree.splits[index];
        numbers[index] = join(number(split.yes), number(split.no));
    }
    numbers
}
