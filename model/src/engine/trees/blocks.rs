//! All splits of a small tree at once, for a row that comes alone or with few others.
//!
//! A [`Block`] has up to 63 splits in heap order: six levels. With a row's ranks in registers, a shuffle of bytes brings each split
//! the rank that it looks at, one comparison answers all splits, and a walk over the bits of the answer finds the way out. Where a
//! tree goes deeper, ways out lead to other blocks.
//!
//! What takes certain instructions is in [`super::blocks_avx2`]. Where trees would become too many blocks, the branchless walk is faster,
//! and there are none.
#![forbid(unsafe_code)]

use super::blocks_avx2::ByteShuffles;
use super::columns::Survey;
use super::ranks::{Probe, Ranks};
use super::sums::{Leaves, Matrix, Real};
use crate::engine::simd::Simd;
use crate::form::{Child, Ensemble, Tree};

/// Ranks of a row, at most: each 16 columns cost as much again.
pub(super) const COLUMNS_MAX: usize = 64;

/// Levels of a block.
const LEVELS: u32 = 6;

/// Bytes of blocks, at most. More would not stay in the second-level cache beside what else a server does.
const BYTES_MAX: usize = 512 << 10;

/// Trees whose ways are found before their leaves are added: their additions, which wait for each other, overlap with the
/// search of the next ones.
const TREES_TOGETHER: usize = 8;

/// A way out that leads to another block; the other bits are its index. Else they are a leaf's ordinal.
pub(super) const GOES_ON: u32 = 1 << 31;

/// Up to 63 splits, in heap order from place 1 on: below place `n` are `2n` for yes and `2n + 1` for no.
#[repr(C, align(64))]
#[derive(Clone)]
pub(super) struct Block {
    /// Which column each split looks at.
    pub columns: [u8; 64],
    /// The largest rank with the answer yes.
    pub ranks: [u8; 64],
    /// Where the 64 ways out lead.
    pub exits: [u32; 64],
}

impl Block {
    /// Splits that are not there answer yes.
    const EMPTY: Block = Block { columns: [0; 64], ranks: [u8::MAX; 64], exits: [0; 64] };

    /// The way out for these answers, the bits of which are the splits that say no.
    #[inline(always)]
    pub fn way_out(&self, no: u64) -> u32 {
        let mut at = 1_u64;
        for _ in 0..LEVELS {
            at = 2 * at + (no >> (at & 63) & 1);
        }
        self.exits[(at & 63) as usize]
    }
}

/// The trees as blocks. The first ones are the roots, in the order of the trees.
pub(super) struct Blocks {
    ranks: Ranks,
    blocks: Vec<Block>,
    trees: usize,
    shuffles: ByteShuffles,
    row: RowRanks,
    found: [u32; TREES_TOGETHER],
}

/// The ranks of a row, those that are not there being anything.
#[repr(C, align(64))]
pub(super) struct RowRanks(pub [u8; COLUMNS_MAX]);

impl Blocks {
    /// None if the path has no instructions for it, or there are too many columns or blocks.
    pub fn new(ensemble: &Ensemble, survey: &Survey, simd: Simd) -> Option<Blocks> {
        let shuffles = ByteShuffles::of(simd)?;
        let (ranks, probes) = Ranks::new(survey);
        if ranks.columns() > COLUMNS_MAX {
            return None;
        }
        let mut blocks = vec![Block::EMPTY; ensemble.trees.len()];
        let mut first_leaf = 0;
        for (index, tree) in ensemble.trees.iter().enumerate() {
            let probe = |split: u32| probes.of(survey.question(&tree.splits[split as usize]));
            add_tree(tree, first_leaf, probe, index, &mut blocks);
            first_leaf += tree.leaves.count as u32;
            if size_of_val(&blocks[..]) > BYTES_MAX {
                return None;
            }
        }
        let row = RowRanks([0; COLUMNS_MAX]);
        Some(Blocks { ranks, blocks, trees: ensemble.trees.len(), shuffles, row, found: [0; TREES_TOGETHER] })
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.blocks[..]) + self.ranks.bytes()
    }

    /// Adds the leaves of rows to their sums, row by row.
    pub fn score<T: Real>(&mut self, rows: Matrix<'_>, leaves: &Leaves<T>, sums: &mut [T]) {
        for (index, sums) in sums.chunks_exact_mut(leaves.targets()).enumerate() {
            let row = rows.part(index..index + 1);
            self.shuffles.rank_row(&self.ranks, row.numbers, &mut self.row);
            let (ranks, cuts) = (&mut self.row.0, self.ranks.cuts.len());
            self.ranks.sets.answer(row, |_, set, answer| ranks[cuts + set] = answer);
            for (group, roots) in self.blocks[..self.trees].chunks(TREES_TOGETHER).enumerate() {
                let found = &mut self.found[..roots.len()];
                self.shuffles.follow(&self.row, self.ranks.columns(), roots, &self.blocks, found);
                leaves.add_trees(group * TREES_TOGETHER, found, row.numbers, sums);
            }
        }
    }
}

/// Finds the leaves: `answers` gives the splits of a block that say no.
#[inline(always)]
pub(super) fn follow(roots: &[Block], all: &[Block], found: &mut [u32], answers: impl Fn(&Block) -> u64) {
    let mut any_goes_on = 0;
    for (block, place) in roots.iter().zip(&mut *found) {
        *place = block.way_out(answers(block));
        any_goes_on |= *place;
    }
    while any_goes_on & GOES_ON != 0 {
        any_goes_on = 0;
        for place in &mut *found {
            if *place & GOES_ON != 0 {
                let block = &all[(*place & !GOES_ON) as usize];
                *place = block.way_out(answers(block));
                any_goes_on |= *place;
            }
        }
    }
}

/// Adds a tree whose root is the block at `place`.
fn add_tree(tree: &Tree, first_leaf: u32, probe: impl Fn(u32) -> Probe, place: usize, blocks: &mut Vec<Block>) {
    let mut open = vec![(tree.root, place)];
    while let Some((root, place)) = open.pop() {
        let mut block = Block::EMPTY;
        let mut within = vec![(root, 1_usize, 0_u32)];
        while let Some((child, at, level)) = within.pop() {
            match child {
                Child::Split(split) if level < LEVELS => {
                    let Probe { column, rank } = probe(split);
                    (block.columns[at], block.ranks[at]) = (column as u8, rank);
                    let split = &tree.splits[split as usize];
                    within.extend([(split.yes, 2 * at, level + 1), (split.no, 2 * at + 1, level + 1)]);
                }
                // Splits that are not there answer yes: all the way down on that side.
                Child::Leaf(leaf) => block.exits[(at << (LEVELS - level)) - 64] = first_leaf + leaf,
                Child::Split(_) => {
                    block.exits[at - 64] = GOES_ON | blocks.len() as u32;
                    open.push((child, blocks.len()));
                    blocks.push(Block::EMPTY);
                }
            }
        }
        blocks[place] = block;
    }
}
