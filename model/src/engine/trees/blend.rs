//! Decides all splits of a tree for up to 64 rows at once, and blends leaf numbers from the bottom up: no walk, no branch.
//!
//! Ranks lie column by column, a byte a row. A split whose branches are both leaves is a [`Pair`]: its leaf number is one of
//! two that follow each other. A split of pairs, or of a pair and a leaf, is a [`Quad`], which nobody else needs to know the
//! pairs of. Any other is a [`Merge`] of two vectors that are there already: results of splits below it, or a leaf's number.
//! The trees' programs are run some trees at a time, pairs first, then quads, then merges from the lowest to the highest, so
//! that what a split needs was done a while before.
//!
//! Here is what the programs are; the CPU's part is in `portable.rs`, and in `avx2.rs` and `avx512.rs`, which trust a [`Group`]'s places.
#![forbid(unsafe_code)]

use super::ROWS_MAX;
use super::columns::Survey;
use super::kernel::Kernel;
use super::order::from_below;
use super::ranks::{Probe, Ranks};
use super::sums::{BYTE_LEAVES, Leaves, Matrix, Real};
use crate::form::{Child, Ensemble, Split, Tree};

/// Splits of the trees that are run together, if they are more than one tree. Larger: their results leave the first-level cache.
/// Smaller: more changes between pairs and merges, which no CPU foresees.
const GROUP_SPLITS: usize = 256;

/// A byte for each row.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub [u8; ROWS_MAX]);

/// A split between two leaves.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Pair {
    pub column: u16,
    /// The rank, as the kernel compares it.
    pub limit: u8,
    /// The leaf of those who do not pass; the other is the one after.
    pub leaf: u8,
}

/// A split between two pairs, each of which can be a leaf instead: then nobody passes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Quad {
    /// Of the split itself, of its no side, of its yes side.
    pub columns: [u16; 3],
    /// Their ranks, as the kernel compares them.
    pub limits: [u8; 3],
    /// As of a pair, for the no side and the yes side.
    pub leaves: [u8; 2],
}

/// Any other split.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Merge {
    pub column: u16,
    /// Places of the two branches' leaf numbers: the leaf's number, or [`BYTE_LEAVES`] and the index of a result.
    pub yes: u16,
    pub no: u16,
    /// The rank, as the kernel compares it.
    pub limit: u8,
}

/// What is done for some trees that follow each other. Results are numbered in order, pairs first.
///
/// Invariant, of every group that [`groups`] gives: columns are below `columns`, and places are below [`BYTE_LEAVES`] and the
/// number of results.
pub(super) struct Group {
    pairs: Vec<Pair>,
    quads: Vec<Quad>,
    merges: Vec<Merge>,
    /// The place of each tree's leaf numbers.
    roots: Vec<u16>,
    columns: usize,
}

impl Group {
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    pub fn quads(&self) -> &[Quad] {
        &self.quads
    }

    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        BYTE_LEAVES + self.pairs.len() + self.quads.len() + self.merges.len()
    }
}

/// The engine.
pub(super) struct Blend {
    kernel: Kernel,
    ranks: Ranks,
    groups: Vec<Group>,
    /// The rows' ranks, column by column.
    columns: Vec<Lanes>,
    /// All leaf numbers, then the results of a group.
    places: Vec<Lanes>,
}

impl Blend {
    /// None if a tree has too many leaves, or there are too many columns.
    pub fn new(ensemble: &Ensemble, survey: &Survey, kernel: Kernel) -> Option<Blend> {
        let (ranks, probes) = Ranks::new(survey);
        let leaves_max = ensemble.trees.iter().map(|tree| tree.leaves.count).max().unwrap_or(0);
        if leaves_max > BYTE_LEAVES || ranks.columns() > usize::from(u16::MAX) {
            return None;
        }
        let probe = |split: &Split| probes.of(survey.question(split));
        let groups = groups(&ensemble.trees, &probe, kernel, ranks.columns());
        let places = groups.iter().map(Group::places).max().unwrap_or(BYTE_LEAVES);
        let mut places = vec![Lanes([0; ROWS_MAX]); places];
        for (leaf, place) in (0..=u8::MAX).zip(&mut places) {
            place.0.fill(leaf);
        }
        let columns = vec![Lanes([0; ROWS_MAX]); ranks.columns()];
        Some(Blend { kernel, ranks, groups, columns, places })
    }

    pub fn bytes(&self) -> usize {
        let group = |group: &Group| {
            let small = size_of_val(&group.pairs[..]) + size_of_val(&group.quads[..]);
            small + size_of_val(&group.merges[..]) + size_of_val(&group.roots[..])
        };
        let groups = self.groups.iter().map(group).sum::<usize>();
        groups + size_of_val(&self.columns[..]) + size_of_val(&self.places[..]) + self.ranks.bytes()
    }

    /// Adds the leaves of at most [`ROWS_MAX`] rows to their sums.
    pub fn score<T: Real>(&mut self, rows: Matrix<'_>, leaves: &Leaves<T>, sums: &mut [T]) {
        self.kernel.rank_columns(&self.ranks, rows, &mut self.columns);
        let first_set = self.ranks.first_set();
        let kernel = self.kernel;
        self.ranks.sets.answer(rows, |row, set, answer| {
            self.columns[first_set + set].0[row] = kernel.coded(answer);
        });
        let mut first_tree = 0;
        for group in &self.groups {
            self.kernel.blend(group, rows.rows(), &self.columns, &mut self.places);
            let roots = group.roots.iter().map(|root| &self.places[usize::from(*root)].0);
            leaves.add_bytes(first_tree, roots, rows, sums);
            first_tree += group.roots.len();
        }
    }
}

/// The programs of all trees, in order.
fn groups(trees: &[Tree], probe: &dyn Fn(&Split) -> Probe, kernel: Kernel, columns: usize) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut rest = trees;
    while !rest.is_empty() {
        let mut splits = 0;
        let fits = |tree: &&Tree| {
            splits += tree.splits.len();
            splits <= GROUP_SPLITS
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        groups.push(group(now, probe, kernel, columns));
        rest = later;
    }
    groups
}

fn group(trees: &[Tree], probe: &dyn Fn(&Split) -> Probe, kernel: Kernel, columns: usize) -> Group {
    // Height, tree, split, of those that have a result.
    let mut order: Vec<(u32, usize, usize)> = Vec::new();
    for (index, tree) in trees.iter().enumerate() {
        let heights = heights(tree);
        let in_quads = in_quads(tree, &heights);
        let heights = heights.into_iter().zip(in_quads).enumerate();
        order.extend(heights.filter(|(_, (_, in_quad))| !in_quad).map(|(split, (height, _))| (height, index, split)));
    }
    order.sort_unstable();
    let mut places: Vec<Vec<u16>> = trees.iter().map(|tree| vec![0; tree.splits.len()]).collect();
    for (result, (_, tree, split)) in order.iter().enumerate() {
        // At most GROUP_SPLITS results, or those of one tree.
        places[*tree][*split] = (BYTE_LEAVES + result) as u16;
    }
    let place = |tree: usize, child: Child| match child {
        Child::Leaf(leaf) => leaf as u16,
        Child::Split(split) => places[tree][split as usize],
    };
    let ask = |split: &Split| {
        let Probe { column, rank } = probe(split);
        (column as u16, kernel.limit(rank))
    };
    let pair = |tree: &Tree, split: &Split| {
        let (Child::Leaf(yes), Child::Leaf(no)) = (split.yes, split.no) else { unreachable!("a pair has two leaves") };
        assert!(yes == no + 1 && (yes as usize) < tree.leaves.count, "leaves are numbered from the no side on");
        let (column, limit) = ask(split);
        Pair { column, limit, leaf: no as u8 }
    };
    let mut group = Group { pairs: Vec::new(), quads: Vec::new(), merges: Vec::new(), roots: Vec::new(), columns };
    for (height, index, split) in order {
        let tree = &trees[index];
        let split = &tree.splits[split];
        let (column, limit) = ask(split);
        match height {
            1 => group.pairs.push(pair(tree, split)),
            2 => {
                let [no, yes] = [split.no, split.yes].map(|child| match child {
                    Child::Split(below) => pair(tree, &tree.splits[below as usize]),
                    // Nobody's rank is below the smallest one.
                    Child::Leaf(leaf) => Pair { column, limit: kernel.coded(0), leaf: leaf as u8 },
                });
                group.quads.push(Quad {
                    columns: [column, no.column, yes.column],
                    limits: [limit, no.limit, yes.limit],
                    leaves: [no.leaf, yes.leaf],
                });
            }
            _ => {
                group.merges.push(Merge { column, yes: place(index, split.yes), no: place(index, split.no), limit });
            }
        }
    }
    group.roots = trees.iter().enumerate().map(|(index, tree)| place(index, tree.root)).collect();
    let sound = |merge: &Merge| usize::from(merge.yes.max(merge.no)) < group.places();
    assert!(group.merges.iter().all(sound), "a place for each result");
    let pairs = group.pairs.iter().map(|pair| pair.column).chain(group.merges.iter().map(|merge| merge.column));
    let asked = pairs.chain(group.quads.iter().flat_map(|quad| quad.columns));
    assert!(asked.max().is_none_or(|column| usize::from(column) < columns), "a column for each question");
    group
}

/// Which splits are done within the quad above them.
fn in_quads(tree: &Tree, heights: &[u32]) -> Vec<bool> {
    let mut in_quads = vec![false; tree.splits.len()];
    for (split, _) in tree.splits.iter().zip(heights).filter(|(_, height)| **height == 2) {
        for child in [split.yes, split.no] {
            if let Child::Split(below) = child {
                in_quads[below as usize] = true;
            }
        }
    }
    in_quads
}

/// How far each split is from its farthest leaf.
fn heights(tree: &Tree) -> Vec<u32> {
    from_below(tree, 0, |yes, no| 1 + yes.max(no))
}
