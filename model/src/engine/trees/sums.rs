//! What the leaves add, and the sums of rows: the one place where an order of additions is decided.
//!
//! Engines find leaves, each in its own way; here they are added, for each row tree by tree, in the precision of the
//! ensemble. Leaves are known by their ordinal: they are counted through all trees.
#![forbid(unsafe_code)]

use std::ops::{Add, Mul, Range};

use super::ROWS_MAX;
use crate::form::{Ensemble, LinearLeaf, Targets};

/// A precision in which sums are added. Adding two f32 in f64 and rounding to f32 gives what adding them in f32 does.
pub(super) trait Real: Copy + Default + Add<Output = Self> + Mul<Output = Self> + Send + 'static {
    fn of(number: f64) -> Self;
    fn narrow(self) -> f32;
}

impl Real for f32 {
    fn of(number: f64) -> f32 {
        number as f32
    }
    fn narrow(self) -> f32 {
        self
    }
}

impl Real for f64 {
    fn of(number: f64) -> f64 {
        number
    }
    fn narrow(self) -> f32 {
        self as f32
    }
}

/// What the leaves of an ensemble add to the sums.
pub(super) struct Leaves<T> {
    targets: usize,
    start: Vec<T>,
    factor: T,
    offset: Vec<T>,
    trees: Vec<TreeLeaves>,
    /// Leaf by leaf, each as wide as its tree says; [`BYTE_LEAVES`] more of them than needed.
    values: Vec<T>,
    /// By ordinal, ascending.
    linear: Vec<(u32, LinearLeaf)>,
    /// All trees add to the only target, and no leaf is linear: an ordinal is an index of `values`.
    is_plain: bool,
}

/// The leaves of one tree.
struct TreeLeaves {
    /// Ordinal of the first one.
    first: u32,
    /// Where the first one's values lie.
    start: usize,
    targets: Targets,
    has_linear: bool,
}

/// Leaves that all add one number to the only sum.
#[derive(Clone, Copy)]
pub(super) struct Plain<'a, T>(&'a [T]);

impl<T: Real> Plain<'_, T> {
    /// The sum of a row with a leaf more, by its ordinal. Trees come in order.
    #[inline(always)]
    pub fn add(self, leaf: u32, sum: T) -> T {
        sum + self.0[leaf as usize]
    }
}

/// Leaves of a tree whose number fits in a byte.
pub(super) const BYTE_LEAVES: usize = 256;

/// The rows whose sums are added.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub numbers: &'a [f32],
    pub columns: usize,
}

impl<'a> Matrix<'a> {
    pub fn rows(self) -> usize {
        self.numbers.len() / self.columns
    }

    pub fn row(self, row: usize) -> &'a [f32] {
        &self.numbers[row * self.columns..][..self.columns]
    }

    pub fn part(self, rows: Range<usize>) -> Matrix<'a> {
        Matrix { numbers: &self.numbers[rows.start * self.columns..rows.end * self.columns], ..self }
    }
}

impl<T: Real> Leaves<T> {
    pub fn new(ensemble: &Ensemble) -> Leaves<T> {
        let mut trees = Vec::with_capacity(ensemble.trees.len());
        let mut values = Vec::new();
        let mut linear = Vec::new();
        let mut first = 0_u32;
        for tree in &ensemble.trees {
            let leaves = &tree.leaves;
            let has_linear = !leaves.linear.is_empty();
            trees.push(TreeLeaves { first, start: values.len(), targets: leaves.targets, has_linear });
            values.extend(leaves.values.iter().map(|value| T::of(*value)));
            linear.extend(leaves.linear.iter().map(|(leaf, function)| (first + leaf, function.clone())));
            first += u32::try_from(leaves.count).expect("fewer leaves than 2^31");
        }
        values.resize(values.len() + BYTE_LEAVES, T::default());
        let is_plain = ensemble.targets == 1 && linear.is_empty();
        let of = |numbers: &[f64]| numbers.iter().map(|number| T::of(*number)).collect();
        Leaves {
            targets: ensemble.targets,
            start: of(&ensemble.start),
            factor: T::of(ensemble.factor),
            offset: of(&ensemble.offset),
            trees,
            values,
            linear,
            is_plain,
        }
    }

    pub fn targets(&self) -> usize {
        self.targets
    }

    pub fn bytes(&self) -> usize {
        let terms = self.linear.iter().map(|(_, function)| size_of_val(&function.terms[..])).sum::<usize>();
        size_of_val(&self.values[..]) + size_of_val(&self.trees[..]) + size_of_val(&self.linear[..]) + terms
    }

    /// Sets the sums of rows (shape `[rows, targets]`) to where they start.
    pub fn begin(&self, sums: &mut [T]) {
        for sums in sums.chunks_exact_mut(self.targets) {
            sums.copy_from_slice(&self.start);
        }
    }

    /// What the sums of rows come to, once all trees are added.
    pub fn finish(&self, sums: &[T], results: &mut [f32]) {
        for (sums, results) in sums.chunks_exact(self.targets).zip(results.chunks_exact_mut(self.targets)) {
            for ((sum, offset), result) in sums.iter().zip(&self.offset).zip(results) {
                *result = (*sum * self.factor + *offset).narrow();
            }
        }
    }

    /// The leaves, if an ordinal is all that is to be known of one.
    pub fn plain(&self) -> Option<Plain<'_, T>> {
        self.is_plain.then_some(Plain(&self.values))
    }

    /// Adds, for one row, its leaves of the trees from `first_tree` on to its sums.
    #[inline]
    pub fn add_trees(&self, first_tree: usize, leaves: &[u32], row: &[f32], sums: &mut [T]) {
        if self.is_plain {
            sums[0] = leaves.iter().fold(sums[0], |sum, leaf| sum + self.values[*leaf as usize]);
        } else {
            for (tree, leaf) in self.trees[first_tree..].iter().zip(leaves) {
                self.add(tree, *leaf, row, sums);
            }
        }
    }

    /// Adds, for each row, its leaf of one tree to its sums.
    #[inline]
    pub fn add_rows(&self, tree: usize, leaves: &[u32], rows: Matrix<'_>, sums: &mut [T]) {
        if self.is_plain {
            for (sum, leaf) in sums.iter_mut().zip(leaves) {
                *sum = *sum + self.values[*leaf as usize];
            }
        } else {
            let tree = &self.trees[tree];
            for (row, (sums, leaf)) in sums.chunks_exact_mut(self.targets).zip(leaves).enumerate() {
                self.add(tree, *leaf, rows.row(row), sums);
            }
        }
    }

    /// Adds, for each row, its leaves of the trees from `first_tree` on to its sums. The trees have at most [`BYTE_LEAVES`]
    /// leaves; a leaf is known by its number in its tree, for tree after tree and row after row.
    #[inline]
    pub fn add_bytes<'a>(
        &self,
        first_tree: usize,
        leaves: impl Iterator<Item = &'a [u8; ROWS_MAX]> + Clone,
        rows: Matrix<'_>,
        sums: &mut [T],
    ) {
        let trees = self.trees[first_tree..].iter().zip(leaves);
        if self.is_plain {
            self.add_plain_bytes(trees, sums);
            return;
        }
        for (tree, leaves) in trees {
            for (row, (sums, leaf)) in sums.chunks_exact_mut(self.targets).zip(leaves).enumerate() {
                self.add(tree, tree.first + u32::from(*leaf), rows.row(row), sums);
            }
        }
    }

    /// Eight rows at a time, so that their sums stay in registers while the trees pass by.
    #[inline]
    fn add_plain_bytes<'a, 'b>(
        &self,
        trees: impl Iterator<Item = (&'a TreeLeaves, &'b [u8; ROWS_MAX])> + Clone,
        sums: &mut [T],
    ) {
        let values_of = |start: usize| -> &[T; BYTE_LEAVES] {
            self.values[start..].first_chunk().expect("the values end with more than are needed")
        };
        let (eights, rest) = sums.as_chunks_mut::<8>();
        let rest_start = eights.len() * 8;
        for (eight, sums) in eights.iter_mut().enumerate() {
            let mut now = *sums;
            for (tree, leaves) in trees.clone() {
                let values = values_of(tree.start);
                let leaves = &leaves.as_chunks::<8>().0[eight];
                for (sum, leaf) in now.iter_mut().zip(leaves) {
                    *sum = *sum + values[usize::from(*leaf)];
                }
            }
            *sums = now;
        }
        if !rest.is_empty() {
            for (tree, leaves) in trees {
                let values = values_of(tree.start);
                for (sum, leaf) in rest.iter_mut().zip(&leaves[rest_start..]) {
                    *sum = *sum + values[usize::from(*leaf)];
                }
            }
        }
    }

    #[inline]
    fn add(&self, tree: &TreeLeaves, leaf: u32, row: &[f32], sums: &mut [T]) {
        let in_tree = (leaf - tree.first) as usize;
        match tree.targets {
            Targets::One(target) => {
                let plain = self.values[tree.start + in_tree];
                let value = if tree.has_linear { self.linear(leaf, plain, row) } else { plain };
                let sum = &mut sums[target as usize];
                *sum = *sum + value;
            }
            Targets::All => {
                let values = &self.values[tree.start + in_tree * self.targets..];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = *sum + *value);
            }
        }
    }

    fn linear(&self, leaf: u32, plain: T, row: &[f32]) -> T {
        let Ok(index) = self.linear.binary_search_by_key(&leaf, |(leaf, _)| *leaf) else { return plain };
        let LinearLeaf { constant, terms } = &self.linear[index].1;
        let of = |feature: &u32| row[*feature as usize];
        if terms.iter().any(|(feature, _)| of(feature).is_nan()) {
            return plain;
        }
        T::of(terms.iter().fold(*constant, |sum, (feature, coefficient)| sum + coefficient * f64::from(of(feature))))
    }
}
