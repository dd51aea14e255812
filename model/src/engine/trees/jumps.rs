//! Finds the leaf of a whole tree without walking down: all splits decide at once, then pointers jump, for one row.
//!
//! A [`Page`] has up to 64 splits, whole trees that follow each other or a part of a large one. The row's ranks lie in registers,
//! from which each split picks its own; what it decides says where it leads, to another split or out of the page by an exit.
//! Then every place takes over where the place that it leads to leads, which doubles the way: after k rounds, 2^k splits
//! lie behind, whatever the shape of the tree (pointer jumping: J. C. Wyllie, The Complexity of Parallel Computations, 1979).
//! Trees that do not fit in a page are cut, largest branches first; those whose way goes on in another page are noted and
//! done after the others, so that nothing waits for a guess.
//!
//! Here is how trees are laid out; the CPU's part is in `avx512.rs`.
#![forbid(unsafe_code)]

use std::collections::BinaryHeap;
use std::ops::Range;

use super::columns::Survey;
use super::kernel::Kernel;
use super::order::from_below;
use super::ranks::{Probe, ROW_COLUMNS, Ranks, Row};
use super::sums::{Leaves, Matrix, Real};
use crate::form::{Child, Ensemble, Split, Tree};

/// Splits in a page, and its exits. The places of splits are below it; exits are numbered from it on.
pub(super) const PLACES: usize = 64;

/// Splits of one tree in a page: there is one exit more.
const SPLITS_MAX: usize = PLACES - 1;

/// Trees in a page, at most. Larger: more to read from each page. Smaller: small trees leave places empty.
pub(super) const TREES_MAX: usize = 8;

/// Pages that are done together. Larger: the leaves are added later, and nothing is done meanwhile. Smaller: more ends of
/// loops, which no CPU foresees.
const PAGES_TOGETHER: usize = 32;

/// An exit that leads to a lower page, the other bits being its index. The others lead to a leaf, which they are the ordinal of.
const TO_PAGE: u32 = 1 << 31;

/// Up to 64 splits. The first ones are the roots of its trees.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Page {
    pub columns: [u8; PLACES],
    /// The ranks, as the kernel compares them.
    pub limits: [u8; PLACES],
    /// Where those who pass go: a place, or an exit.
    pub yes: [u8; PLACES],
    /// Where the others go.
    pub no: [u8; PLACES],
}

impl Page {
    const EMPTY: Page =
        Page { columns: [0; PLACES], limits: [0; PLACES], yes: [PLACES as u8; PLACES], no: [PLACES as u8; PLACES] };
}

/// By which exits a row leaves the trees of a page.
pub(super) type Ends = [u8; TREES_MAX];

/// The ends of pages that are done together.
const ENDS: usize = PAGES_TOGETHER * TREES_MAX;

/// How to read by which exit a row has left a tree.
struct Slot {
    /// Which of the [`ENDS`].
    end: u16,
    /// If all trees are whole: the ordinal of the leaf behind the page's first exit. Otherwise: which of the lists.
    of: u32,
}

/// Pages that are done together.
#[derive(Clone)]
struct Group {
    pages: Range<usize>,
    trees: Range<usize>,
}

/// The engine.
pub(super) struct Jumps {
    kernel: Kernel,
    ranks: Ranks,
    /// Whole trees and tops of large ones, in the order of the trees.
    pages: Vec<Page>,
    /// Of each tree.
    slots: Vec<Slot>,
    groups: Vec<Group>,
    /// What the exits of each of the pages lead to; empty if all trees are whole.
    lists: Vec<[u32; PLACES]>,
    /// What else large trees consist of.
    lower_pages: Vec<Page>,
    lower_lists: Vec<[u32; PLACES]>,
    /// So often must pointers jump on the longest way through a page.
    rounds: u32,
    /// The row's ranks.
    row: Row,
    ends: [Ends; PAGES_TOGETHER],
    /// Where the row is in some trees: an exit, in the end a leaf.
    found: [u32; ENDS],
    /// Those of them whose way goes on, and a place for whoever's does not.
    late: [u16; ENDS + 1],
}

impl Jumps {
    /// None if the kernel does not do it, or there are too many columns.
    pub fn new(ensemble: &Ensemble, survey: &Survey, kernel: Kernel) -> Option<Jumps> {
        let (ranks, probes) = Ranks::new(survey);
        if !kernel.jumps() || ranks.columns() > ROW_COLUMNS {
            return None;
        }
        let probe = |split: &Split| probes.of(survey.question(split));
        let mut layout = Layout { kernel, probe: &probe, lower: Vec::new(), depth: 0 };
        let (mut pages, mut lists, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let mut groups: Vec<Group> = Vec::new();
        let mut first_leaf = 0;
        let mut rest = &ensemble.trees[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(whole(rest).max(1));
            let (page, list) = match now {
                [tree] if tree.leaves.count > PLACES => layout.top(tree, first_leaf),
                _ => layout.whole(now, first_leaf),
            };
            let place = pages.len() % PAGES_TOGETHER;
            if place == 0 {
                groups.push(Group { pages: pages.len()..pages.len(), trees: slots.len()..slots.len() });
            }
            let slot = |tree: usize| Slot { end: (place * TREES_MAX + tree) as u16, of: pages.len() as u32 };
            slots.extend((0..now.len()).map(slot));
            pages.push(page);
            lists.push(list);
            let group = groups.last_mut().expect("a page is in a group");
            (group.pages.end, group.trees.end) = (pages.len(), slots.len());
            first_leaf += now.iter().map(|tree| tree.leaves.count as u32).sum::<u32>();
            rest = later;
        }
        let (lower_pages, lower_lists): (Vec<_>, _) = layout.lower.into_iter().unzip();
        if lower_pages.is_empty() {
            // Exits of whole trees lead to leaves that follow each other.
            slots.iter_mut().for_each(|slot| slot.of = lists[slot.of as usize][0]);
            lists = Vec::new();
        }
        Some(Jumps {
            kernel,
            ranks,
            pages,
            slots,
            groups,
            lists,
            lower_pages,
            lower_lists,
            rounds: layout.depth.next_power_of_two().ilog2(),
            row: Row([0; ROW_COLUMNS]),
            ends: [[0; TREES_MAX]; PAGES_TOGETHER],
            found: [0; ENDS],
            late: [0; ENDS + 1],
        })
    }

    pub fn bytes(&self) -> usize {
        let pages = size_of_val(&self.pages[..]) + size_of_val(&self.lower_pages[..]);
        let lists = size_of_val(&self.lists[..]) + size_of_val(&self.lower_lists[..]);
        pages + lists + size_of_val(&self.slots[..]) + size_of_val(&self.groups[..]) + self.ranks.bytes()
    }

    /// Adds the leaves of some rows to their sums.
    pub fn score<T: Real>(&mut self, rows: Matrix<'_>, leaves: &Leaves<T>, sums: &mut [T]) {
        let first_set = self.ranks.first_set();
        for (index, sums) in sums.chunks_exact_mut(leaves.targets()).enumerate() {
            let row = rows.part(index..index + 1);
            self.kernel.rank_row(&self.ranks, row.numbers, &mut self.row);
            let kernel = self.kernel;
            self.ranks.sets.answer(row, |_, set, answer| self.row.0[first_set + set] = kernel.coded(answer));
            for group in 0..self.groups.len() {
                let trees = self.find(group);
                leaves.add_trees(trees.start, &self.found[..trees.len()], row.numbers, sums);
            }
        }
    }

    /// Finds the row's leaves in the trees of a group; which trees these are.
    fn find(&mut self, group: usize) -> Range<usize> {
        let Group { pages, trees } = self.groups[group].clone();
        let pages = self.pages[pages].iter();
        self.kernel.jump(pages, self.rounds, &self.row, self.ranks.columns(), &mut self.ends);
        let ends = self.ends.as_flattened();
        let slots = &self.slots[trees.clone()];
        if self.lists.is_empty() {
            for (found, slot) in self.found.iter_mut().zip(slots) {
                *found = slot.of + exit(ends[usize::from(slot.end) % ENDS]) as u32;
            }
        } else {
            let mut late_count = 0;
            for ((tree, found), slot) in self.found.iter_mut().enumerate().zip(slots) {
                *found = self.lists[slot.of as usize][exit(ends[usize::from(slot.end) % ENDS])];
                self.late[late_count] = tree as u16;
                late_count += usize::from(*found >= TO_PAGE);
            }
            self.go_on(late_count);
        }
        trees
    }

    /// Goes on in lower pages, until all have found their leaves.
    fn go_on(&mut self, mut late_count: usize) {
        while late_count > 0 {
            let mut later_count = 0;
            for first in (0..late_count).step_by(PAGES_TOGETHER) {
                let part = first..late_count.min(first + PAGES_TOGETHER);
                let page_of = |tree: &u16| (self.found[usize::from(*tree)] ^ TO_PAGE) as usize;
                let pages = self.late[part.clone()].iter().map(|tree| &self.lower_pages[page_of(tree)]);
                self.kernel.jump(pages, self.rounds, &self.row, self.ranks.columns(), &mut self.ends);
                for (index, end) in part.zip(&self.ends) {
                    let tree = self.late[index];
                    let found = &mut self.found[usize::from(tree)];
                    *found = self.lower_lists[(*found ^ TO_PAGE) as usize][exit(end[0])];
                    self.late[later_count] = tree;
                    later_count += usize::from(*found >= TO_PAGE);
                }
            }
            late_count = later_count;
        }
    }
}

/// The number of an exit.
#[inline(always)]
fn exit(end: u8) -> usize {
    usize::from(end) % PLACES
}

/// How many of the first trees fit in a page as a whole.
fn whole(trees: &[Tree]) -> usize {
    let mut exits = 0;
    let fits = |tree: &&Tree| {
        exits += tree.leaves.count;
        exits <= PLACES
    };
    trees.iter().take(TREES_MAX).take_while(fits).count()
}

/// Lays out trees in pages.
struct Layout<'a> {
    kernel: Kernel,
    probe: &'a dyn Fn(&Split) -> Probe,
    /// Pages that others lead to, and what their exits lead to.
    lower: Vec<(Page, [u32; PLACES])>,
    /// Splits on the longest way through a page.
    depth: u32,
}

impl Layout<'_> {
    /// A page of whole trees, and what its exits lead to: they are numbered as the leaves are, through all of them.
    fn whole(&mut self, trees: &[Tree], first_leaf: u32) -> (Page, [u32; PLACES]) {
        let mut page = Page::EMPTY;
        let mut free = trees.len();
        let mut first_exit = PLACES;
        for (root, tree) in trees.iter().enumerate() {
            // What is still to be laid out: a place, what comes there, how many splits came before it.
            let mut open = vec![(root, tree.root, 0)];
            let leaf_exit = |leaf: u32| (first_exit + leaf as usize) as u8;
            while let Some((place, child, depth)) = open.pop() {
                let Child::Split(split) = child else {
                    // A tree that is a leaf: whatever is decided, it is this one.
                    let Child::Leaf(leaf) = child else { unreachable!("a child is a split or a leaf") };
                    (page.yes[place], page.no[place]) = (leaf_exit(leaf), leaf_exit(leaf));
                    continue;
                };
                let split = &tree.splits[split as usize];
                self.put(&mut page, place, split);
                self.depth = self.depth.max(depth + 1);
                let mut lead = |child: Child| match child {
                    Child::Leaf(leaf) => leaf_exit(leaf),
                    Child::Split(_) => {
                        open.push((free, child, depth + 1));
                        free += 1;
                        (free - 1) as u8
                    }
                };
                (page.yes[place], page.no[place]) = (lead(split.yes), lead(split.no));
            }
            first_exit += tree.leaves.count;
        }
        (page, std::array::from_fn(|exit| first_leaf + exit as u32))
    }

    /// The first page of a large tree, and what its exits lead to.
    fn top(&mut self, tree: &Tree, first_leaf: u32) -> (Page, [u32; PLACES]) {
        let sizes = from_below(tree, 1, |yes, no| yes + no);
        let Child::Split(root) = tree.root else { unreachable!("a leaf fits in a page") };
        let mut to_cut = Vec::new();
        let top = self.part(tree, &sizes, root, first_leaf, &mut to_cut);
        while let Some((index, split)) = to_cut.pop() {
            self.lower[index] = self.part(tree, &sizes, split, first_leaf, &mut to_cut);
        }
        top
    }

    /// A page of a tree from a split on, and what its exits lead to: leaves, and pages that are still to be filled.
    fn part(
        &mut self,
        tree: &Tree,
        sizes: &[u32],
        from: u32,
        first_leaf: u32,
        to_cut: &mut Vec<(usize, u32)>,
    ) -> (Page, [u32; PLACES]) {
        let (mut page, mut list) = (Page::EMPTY, [0; PLACES]);
        // The largest branches that are left: leaves, split, how many splits come before it, who leads to it.
        let mut open = BinaryHeap::from([(sizes[from as usize], from, 0, None)]);
        let (mut place, mut exits) = (0, 0);
        while let Some((_, split, depth, leader)) = open.pop() {
            let lead = |page: &mut Page, to: usize| match leader {
                Some((leader, true)) => page.yes[leader] = to as u8,
                Some((leader, false)) => page.no[leader] = to as u8,
                None => {}
            };
            if place == SPLITS_MAX {
                list[exits] = TO_PAGE | self.lower.len() as u32;
                lead(&mut page, PLACES + exits);
                exits += 1;
                to_cut.push((self.lower.len(), split));
                self.lower.push((Page::EMPTY, [0; PLACES]));
                continue;
            }
            lead(&mut page, place);
            let split = &tree.splits[split as usize];
            self.put(&mut page, place, split);
            self.depth = self.depth.max(depth + 1);
            for (child, passes) in [(split.yes, true), (split.no, false)] {
                match child {
                    Child::Split(below) => {
                        open.push((sizes[below as usize], below, depth + 1, Some((place, passes))));
                    }
                    Child::Leaf(leaf) => {
                        list[exits] = first_leaf + leaf;
                        let side = if passes { &mut page.yes } else { &mut page.no };
                        side[place] = (PLACES + exits) as u8;
                        exits += 1;
                    }
                }
            }
            place += 1;
        }
        (page, list)
    }

    fn put(&self, page: &mut Page, place: usize, split: &Split) {
        let Probe { column, rank } = (self.probe)(split);
        // There are at most 256 columns.
        (page.columns[place], page.limits[place]) = (column as u8, self.kernel.limit(rank));
    }
}
