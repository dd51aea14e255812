//! Trees in the order in which engines want them.
#![forbid(unsafe_code)]

use crate::form::{Child, Targets, Tree};

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
