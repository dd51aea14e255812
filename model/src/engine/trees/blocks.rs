//! Decides all splits of a tree's first six levels at once, for one row: the row's ranks lie in registers, from which each
//! split picks its own.
//!
//! A [`Fork`] is three levels, seven splits and eight exits, padded where a branch ends before; the decisions of its splits
//! are seven bits, which a table turns into the exit. A tree is a [`Root`], nine forks in two layers; what is below it are
//! forks one by one. Trees whose way goes on are noted and done after the others, so that nothing waits for a guess.
//!
//! Here is how trees are cut; the CPU's part is in `avx2.rs`.
#![forbid(unsafe_code)]

use super::columns::Survey;
use super::kernel::Kernel;
use super::ranks::{Probe, Ranks, Row};
use super::sums::{Leaves, Matrix, Real};
use crate::form::{Child, Ensemble, Split, Tree};

/// Trees that are done together. Larger: their leaves are added later, and nothing is done meanwhile. Smaller: more ends of
/// loops, which no CPU foresees.
pub(super) const TREES_TOGETHER: usize = 32;

/// An exit that leads to a fork, the other bits being its index. The others lead to a leaf, which they are the ordinal of.
pub(super) const TO_FORK: u32 = 1 << 31;

/// Splits of a fork.
const SPLITS: usize = 7;
/// Exits of a fork.
const EXITS: usize = 8;

/// To which exit seven decisions lead: bit 0 is the first split, bits 1 and 2 those after its no and its yes, then so on.
pub(super) const EXIT: [u8; 1 << SPLITS] = {
    let mut exits = [0; 1 << SPLITS];
    let mut decisions = 0;
    while decisions < exits.len() {
        let first = decisions & 1;
        let second = (decisions >> (1 + first)) & 1;
        let third = (decisions >> (3 + 2 * first + second)) & 1;
        exits[decisions] = (4 * first + 2 * second + third) as u8;
        decisions += 1;
    }
    exits
};

/// The first six levels of a tree. Split `s` of the first fork is at index `s`; of the fork behind its exit `e`, at
/// `7 + 7 × e + s`. Exit `x` of that one is at `8 × e + x`. Aligned so that each array is one cache line, or a few.
#[repr(C, align(64))]
pub(super) struct Root {
    pub columns: [u8; 64],
    /// The ranks, as the kernel compares them.
    pub limits: [u8; 64],
    pub exits: [u32; 64],
}

/// Three levels of a tree.
#[repr(C, align(16))]
pub(super) struct Fork {
    pub columns: [u8; EXITS],
    /// The ranks, as the kernel compares them.
    pub limits: [u8; EXITS],
    pub exits: [u32; EXITS],
}

/// To which exit of a root its decisions lead.
#[inline(always)]
pub(super) fn exit_of(decisions: u64) -> usize {
    let first = usize::from(EXIT[(decisions & 0x7F) as usize]);
    let second = EXIT[((decisions >> (SPLITS * (1 + first))) & 0x7F) as usize];
    EXITS * first + usize::from(second)
}

/// The engine.
pub(super) struct Blocks {
    kernel: Kernel,
    ranks: Ranks,
    roots: Vec<Root>,
    forks: Vec<Fork>,
    /// The row's ranks.
    row: Row,
    /// Where the row is in some trees: an exit, in the end a leaf.
    found: [u32; TREES_TOGETHER],
}

impl Blocks {
    /// None if the kernel does not do it, or not for so many columns.
    pub fn new(ensemble: &Ensemble, survey: &Survey, kernel: Kernel) -> Option<Blocks> {
        let columns_max = kernel.block_columns()?;
        let (ranks, probes) = Ranks::new(survey);
        if ranks.columns() > columns_max {
            return None;
        }
        let probe = |split: &Split| probes.of(survey.question(split));
        let mut cutter = Cutter { kernel, probe: &probe, forks: Vec::new() };
        let mut first_leaf = 0;
        let roots = ensemble.trees.iter().map(|tree| {
            let root = cutter.cut(tree, first_leaf);
            first_leaf += tree.leaves.count as u32;
            root
        });
        let roots = roots.collect();
        let row = Row::new(&ranks);
        Some(Blocks { kernel, ranks, roots, forks: cutter.forks, row, found: [0; TREES_TOGETHER] })
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.roots[..]) + size_of_val(&self.forks[..]) + self.ranks.bytes()
    }

    /// Adds the leaves of some rows to their sums.
    pub fn score<T: Real>(&mut self, rows: Matrix<'_>, leaves: &Leaves<T>, sums: &mut [T]) {
        let first_set = self.ranks.first_set();
        for (index, sums) in sums.chunks_exact_mut(leaves.targets()).enumerate() {
            let row = rows.part(index..index + 1);
            self.kernel.rank_row(&self.ranks, row.numbers, &mut self.row);
            let kernel = self.kernel;
            self.ranks.sets.answer(row, |_, set, answer| self.row.ranks.0[first_set + set] = kernel.coded(answer));
            for (part, roots) in self.roots.chunks(TREES_TOGETHER).enumerate() {
                self.kernel.find(roots, &self.forks, &self.row, self.ranks.columns(), &mut self.found);
                leaves.add_trees(part * TREES_TOGETHER, &self.found[..roots.len()], row.numbers, sums);
            }
        }
    }
}

/// Cuts trees into forks.
struct Cutter<'a> {
    kernel: Kernel,
    probe: &'a dyn Fn(&Split) -> Probe,
    forks: Vec<Fork>,
}

impl Cutter<'_> {
    fn cut(&mut self, tree: &Tree, first_leaf: u32) -> Root {
        let mut root = Root { columns: [0; 64], limits: [0; 64], exits: [0; 64] };
        let mut to_cut = Vec::new();
        let (columns, limits, branches) = self.levels(tree, tree.root);
        root.columns[..SPLITS].copy_from_slice(&columns);
        root.limits[..SPLITS].copy_from_slice(&limits);
        for (index, branch) in branches.into_iter().enumerate() {
            let (columns, limits, branches) = self.levels(tree, branch);
            let splits = SPLITS * (1 + index);
            root.columns[splits..][..SPLITS].copy_from_slice(&columns);
            root.limits[splits..][..SPLITS].copy_from_slice(&limits);
            root.exits[EXITS * index..][..EXITS].copy_from_slice(&self.exits(first_leaf, branches, &mut to_cut));
        }
        let mut next = self.forks.len() - to_cut.len();
        while let Some(branch) = to_cut.get(next + to_cut.len() - self.forks.len()).copied() {
            let (columns, limits, branches) = self.levels(tree, branch);
            let exits = self.exits(first_leaf, branches, &mut to_cut);
            let fork = &mut self.forks[next];
            fork.columns[..SPLITS].copy_from_slice(&columns);
            fork.limits[..SPLITS].copy_from_slice(&limits);
            fork.exits = exits;
            next += 1;
        }
        root
    }

    /// Exits to leaves, and to forks that are still to be cut.
    fn exits(&mut self, first_leaf: u32, branches: [Child; EXITS], to_cut: &mut Vec<Child>) -> [u32; EXITS] {
        branches.map(|branch| match branch {
            Child::Leaf(leaf) => first_leaf + leaf,
            // Two exits lead to the same split only if it is padding, which is a leaf.
            Child::Split(_) => {
                to_cut.push(branch);
                self.forks.push(Fork { columns: [0; EXITS], limits: [0; EXITS], exits: [0; EXITS] });
                TO_FORK | (self.forks.len() - 1) as u32
            }
        })
    }

    /// The splits of three levels, and where they lead.
    fn levels(&self, tree: &Tree, from: Child) -> ([u8; SPLITS], [u8; SPLITS], [Child; EXITS]) {
        let (mut columns, mut limits) = ([0; SPLITS], [0; SPLITS]);
        let mut layer = vec![from];
        for level in 0..3 {
            let mut below = Vec::with_capacity(2 * layer.len());
            for (index, child) in layer.into_iter().enumerate() {
                let Child::Split(split) = child else {
                    // Whatever is decided, it is this leaf.
                    below.extend([child, child]);
                    continue;
                };
                let split = &tree.splits[split as usize];
                let Probe { column, rank } = (self.probe)(split);
                let place = (1 << level) - 1 + index;
                // The kernel takes at most 256 columns.
                (columns[place], limits[place]) = (column as u8, self.kernel.limit(rank));
                below.extend([split.no, split.yes]);
            }
            layer = below;
        }
        (columns, limits, layer.try_into().expect("eight exits"))
    }
}
