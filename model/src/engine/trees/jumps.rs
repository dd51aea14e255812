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
use std::slice::Iter;

use super::columns::Survey;
use super::kernel::Kernel;
use super::order::{PADDED_LEAVES, PADDED_LEVELS, from_below};
use super::ranks::{Probe, ROW_COLUMNS, Ranks, Row};
use super::sums::{Leaves, Matrix, Plain, Real};
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

/// Rows that go through whole trees together, if there are so many. Larger: their ranks and sums do not fit in the registers.
/// Smaller: the pages are loaded more often.
const ROWS_TOGETHER: usize = 4;

/// An exit that leads to a lower page, the other bits being its index. The others lead to a leaf, which they are the ordinal of.
const TO_PAGE: u32 = 1 << 31;

/// Up to 64 splits.
pub(super) struct Page<'a> {
    pub questions: &'a Questions,
    pub ways: &'a Ways,
}

/// What splits ask.
#[repr(C, align(64))]
pub(super) struct Questions {
    pub columns: [u8; PLACES],
    /// The ranks, as the kernel compares them.
    pub limits: [u8; PLACES],
}

/// Where splits lead: to a place, or an exit. The first places are those of the trees' roots.
#[repr(C, align(64))]
pub(super) struct Ways {
    /// Where those who pass go.
    pub yes: [u8; PLACES],
    /// Where the others go.
    pub no: [u8; PLACES],
}

impl Questions {
    const NONE: Questions = Questions { columns: [0; PLACES], limits: [0; PLACES] };
}

impl Ways {
    const OUT: Ways = Ways { yes: [PLACES as u8; PLACES], no: [PLACES as u8; PLACES] };

    /// Those of a complete tree of six levels: the root is at place 0, and what split `n` leads to at `2 n` and `2 n + 1`, the
    /// root being the first split. Nothing is at place 1. Exits are numbered from the no side to the yes side.
    const COMPLETE: Ways = {
        let mut ways = Ways::OUT;
        let mut place = 0;
        while place < PLACES {
            let split = if place == 0 { 1 } else { place };
            (ways.no[place], ways.yes[place]) = (2 * split as u8, 2 * split as u8 + 1);
            place += 1;
        }
        ways
    };
}

/// See [`Ways::COMPLETE`].
static COMPLETE: Ways = Ways::COMPLETE;
const _: () = assert!(PLACES == PADDED_LEAVES);

/// By which exits a row leaves the trees of a page.
pub(super) type Ends = [u8; TREES_MAX];

/// Which trees a page has, and what its exits lead to.
#[derive(Clone, Copy)]
struct Content {
    /// How many trees.
    trees: u32,
    /// The ordinal of the leaf behind the first exit. Those behind the others follow if all trees of the ensemble are whole;
    /// otherwise the page has a list of them.
    first_leaf: u32,
}

/// A tree, by its number in its group, in which the row's way goes on in a lower page.
#[derive(Clone, Copy, Default)]
struct Late {
    tree: u32,
    page: u32,
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
    pages: Pages,
    contents: Vec<Content>,
    groups: Vec<Group>,
    /// What the exits of each of the pages lead to; empty if all trees are whole.
    lists: Vec<[u32; PLACES]>,
    /// What else large trees consist of.
    lower_pages: Vec<Parts>,
    lower_lists: Vec<[u32; PLACES]>,
    /// The ranks of the rows that are done together.
    rows: [Row; ROWS_TOGETHER],
    /// Where the row is in the trees of a group: an exit, in the end a leaf.
    found: Vec<u32>,
    /// Whose way goes on, and a place for one whose does not.
    late: Vec<Late>,
    /// Whose way goes on even after that.
    later: Vec<Late>,
}

/// Pages, and how they are gone through.
struct Pages {
    kernel: Kernel,
    questions: Vec<Questions>,
    /// Empty if all trees are padded.
    ways: Vec<Ways>,
    /// So often must pointers jump on the longest way through a page.
    rounds: u32,
    /// Of the row's ranks.
    columns: usize,
}

impl Pages {
    /// Tells how the row leaves some of them.
    fn jump<const ROWS: usize>(&self, range: Range<usize>, rows: &[Row; ROWS], leaving: &mut impl Leaving<ROWS>) {
        let questions = self.questions[range.clone()].iter();
        if self.ways.is_empty() {
            self.jump_in(questions.map(|questions| Page { questions, ways: &COMPLETE }), rows, leaving);
        } else {
            let pages = questions.zip(&self.ways[range]);
            self.jump_in(pages.map(|(questions, ways)| Page { questions, ways }), rows, leaving);
        }
    }

    /// The same for others.
    fn jump_in<'a, const ROWS: usize>(
        &self,
        pages: impl Iterator<Item = Page<'a>>,
        rows: &[Row; ROWS],
        leaving: &mut impl Leaving<ROWS>,
    ) {
        self.kernel.jump(pages, self.rounds, rows, self.columns, leaving);
    }
}

impl Jumps {
    /// None if the kernel does not do it, or there are too many columns.
    pub fn new(ensemble: &Ensemble, is_padded: bool, survey: &Survey, kernel: Kernel) -> Option<Jumps> {
        let (ranks, probes) = Ranks::new(survey);
        if !kernel.jumps() || ranks.columns() > ROW_COLUMNS {
            return None;
        }
        let probe = |split: &Split| probes.of(survey.question(split));
        let mut layout = Layout { kernel, probe: &probe, lower: Vec::new(), depth: 0 };
        let (mut questions, mut ways, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        let mut contents: Vec<Content> = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        let (mut first_tree, mut first_leaf) = (0, 0);
        let mut rest = &ensemble.trees[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(whole(rest).max(1));
            let ((asked, led), list) = match now {
                [tree] if is_padded => layout.complete(tree, first_leaf),
                [tree] if tree.leaves.count > PLACES => layout.top(tree, first_leaf),
                _ => layout.whole(now, first_leaf),
            };
            let page = questions.len();
            if page.is_multiple_of(PAGES_TOGETHER) {
                groups.push(Group { pages: page..page, trees: first_tree..first_tree });
            }
            questions.push(asked);
            ways.push(led);
            lists.push(list);
            contents.push(Content { trees: now.len() as u32, first_leaf });
            first_tree += now.len();
            first_leaf += now.iter().map(|tree| tree.leaves.count as u32).sum::<u32>();
            let group = groups.last_mut().expect("a page is in a group");
            (group.pages.end, group.trees.end) = (questions.len(), first_tree);
            rest = later;
        }
        let (lower_pages, lower_lists): (Vec<_>, _) = std::mem::take(&mut layout.lower).into_iter().unzip();
        if lower_pages.is_empty() {
            lists = Vec::new();
        }
        if is_padded {
            ways = Vec::new();
        }
        let together = groups.iter().map(|group| group.trees.len()).max().unwrap_or(0);
        let rounds = layout.depth.next_power_of_two().ilog2();
        let pages = Pages { kernel, questions, ways, rounds, columns: ranks.columns() };
        Some(Jumps {
            kernel,
            rows: std::array::from_fn(|_| Row::new(&ranks)),
            ranks,
            pages,
            contents,
            groups,
            lists,
            lower_pages,
            lower_lists,
            found: vec![0; together],
            late: vec![Late::default(); together + 1],
            later: vec![Late::default(); together + 1],
        })
    }

    pub fn bytes(&self) -> usize {
        let pages = size_of_val(&self.pages.questions[..]) + size_of_val(&self.pages.ways[..]);
        let pages = pages + size_of_val(&self.lower_pages[..]);
        let lists = size_of_val(&self.lists[..]) + size_of_val(&self.lower_lists[..]);
        pages + lists + size_of_val(&self.contents[..]) + size_of_val(&self.groups[..]) + self.ranks.bytes()
    }

    /// Adds the leaves of some rows to their sums.
    pub fn score<T: Real>(&mut self, rows: Matrix<'_>, leaves: &Leaves<T>, sums: &mut [T]) {
        match leaves.plain() {
            Some(leaves) if self.lists.is_empty() => {
                let (together, rest) = sums.as_chunks_mut::<ROWS_TOGETHER>();
                let first_rest = together.len() * ROWS_TOGETHER;
                for (index, sums) in together.iter_mut().enumerate() {
                    self.add_whole(rows, index * ROWS_TOGETHER, leaves, sums);
                }
                for (index, sum) in rest.iter_mut().enumerate() {
                    self.add_whole(rows, first_rest + index, leaves, std::array::from_mut(sum));
                }
            }
            _ => {
                for (index, sums) in sums.chunks_exact_mut(leaves.targets()).enumerate() {
                    self.rank(rows, index, 0);
                    for group in 0..self.groups.len() {
                        let trees = self.find(group);
                        leaves.add_trees(trees.start, &self.found[..trees.len()], rows.row(index), sums);
                    }
                }
            }
        }
    }

    /// Ranks a row, as the one of that place among those that are done together.
    fn rank(&mut self, rows: Matrix<'_>, index: usize, place: usize) {
        let (kernel, first_set) = (self.kernel, self.ranks.first_set());
        let ranked = &mut self.rows[place];
        kernel.rank_row(&self.ranks, rows.row(index), ranked);
        let row = rows.part(index..index + 1);
        self.ranks.sets.answer(row, |_, set, answer| ranked.ranks.0[first_set + set] = kernel.coded(answer));
    }

    /// Adds some rows' leaves as they are found: while one is added, the next ones are looked for.
    fn add_whole<T: Real, const ROWS: usize>(
        &mut self,
        rows: Matrix<'_>,
        first: usize,
        leaves: Plain<'_, T>,
        sums: &mut [T; ROWS],
    ) {
        (0..ROWS).for_each(|row| self.rank(rows, first + row, row));
        let ranked = self.rows.first_chunk().expect("as many rows as are done together, or one");
        let mut adding = Adding { contents: self.contents.iter(), leaves, sums: *sums };
        self.pages.jump::<ROWS>(0..self.contents.len(), ranked, &mut adding);
        *sums = adding.sums;
    }

    /// Finds the row's leaves in the trees of a group; which trees these are.
    fn find(&mut self, group: usize) -> Range<usize> {
        let Group { pages, trees } = self.groups[group].clone();
        let mut finding = Finding {
            contents: self.contents[pages.clone()].iter(),
            lists: self.lists.get(pages.clone()).unwrap_or_default().iter(),
            found: &mut self.found,
            found_count: 0,
            late: &mut self.late,
            late_count: 0,
        };
        self.pages.jump(pages, self.rows.first_chunk::<1>().expect("a row"), &mut finding);
        let mut late_count = finding.late_count;
        while late_count > 0 {
            late_count = self.go_on(late_count);
        }
        trees
    }

    /// Follows those whose way goes on through one page more; how many of them are left.
    fn go_on(&mut self, late_count: usize) -> usize {
        let late = &self.late[..late_count];
        let pages = late.iter().map(|late| page(&self.lower_pages[late.page as usize]));
        let lists = &self.lower_lists;
        let (found, later) = (&mut self.found, &mut self.later);
        let mut following = Following { late: late.iter(), lists, found, later, later_count: 0 };
        self.pages.jump_in(pages, self.rows.first_chunk::<1>().expect("a row"), &mut following);
        let later_count = following.later_count;
        std::mem::swap(&mut self.late, &mut self.later);
        later_count
    }
}

/// Who is told how rows leave the pages, one after the other. A trait and not a closure, so that it is inlined between the
/// kernel's instructions for certain.
pub(super) trait Leaving<const ROWS: usize> {
    /// By which exits each row leaves.
    fn leaves(&mut self, ends: [Ends; ROWS]);
}

/// Adds whole trees' leaves.
struct Adding<'a, T, const ROWS: usize> {
    contents: Iter<'a, Content>,
    leaves: Plain<'a, T>,
    sums: [T; ROWS],
}

impl<T: Real, const ROWS: usize> Leaving<ROWS> for Adding<'_, T, ROWS> {
    #[inline(always)]
    fn leaves(&mut self, ends: [Ends; ROWS]) {
        let Some(Content { trees, first_leaf }) = self.contents.next() else { return };
        for tree in 0..(*trees as usize).min(TREES_MAX) {
            for (sum, ends) in self.sums.iter_mut().zip(ends) {
                *sum = self.leaves.add(first_leaf + exit(ends[tree]) as u32, *sum);
            }
        }
    }
}

/// Writes down leaves, and whose way goes on.
struct Finding<'a> {
    contents: Iter<'a, Content>,
    lists: Iter<'a, [u32; PLACES]>,
    found: &'a mut [u32],
    found_count: usize,
    late: &'a mut [Late],
    late_count: usize,
}

impl Leaving<1> for Finding<'_> {
    #[inline(always)]
    fn leaves(&mut self, [ends]: [Ends; 1]) {
        let Some(Content { trees, first_leaf }) = self.contents.next() else { return };
        let list = self.lists.next();
        for end in ends.iter().take(*trees as usize) {
            let found = list.map_or(first_leaf + exit(*end) as u32, |list| list[exit(*end)]);
            self.found[self.found_count] = found;
            self.late[self.late_count] = Late { tree: self.found_count as u32, page: found ^ TO_PAGE };
            self.found_count += 1;
            self.late_count += usize::from(found >= TO_PAGE);
        }
    }
}

/// As [`Finding`], for the trees of lower pages.
struct Following<'a> {
    late: Iter<'a, Late>,
    lists: &'a [[u32; PLACES]],
    found: &'a mut [u32],
    later: &'a mut [Late],
    later_count: usize,
}

impl Leaving<1> for Following<'_> {
    #[inline(always)]
    fn leaves(&mut self, [ends]: [Ends; 1]) {
        let Some(Late { tree, page }) = self.late.next() else { return };
        let found = self.lists[*page as usize][exit(ends[0])];
        self.found[*tree as usize] = found;
        self.later[self.later_count] = Late { tree: *tree, page: found ^ TO_PAGE };
        self.later_count += usize::from(found >= TO_PAGE);
    }
}

/// A lower page.
fn page((questions, ways): &Parts) -> Page<'_> {
    Page { questions, ways }
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

/// Of a page.
type Parts = (Questions, Ways);

/// Lays out trees in pages.
struct Layout<'a> {
    kernel: Kernel,
    probe: &'a dyn Fn(&Split) -> Probe,
    /// Pages that others lead to, and what their exits lead to.
    lower: Vec<(Parts, [u32; PLACES])>,
    /// Splits on the longest way through a page.
    depth: u32,
}

impl Layout<'_> {
    /// A page of whole trees, and what its exits lead to: they are numbered as the leaves are, through all of them.
    fn whole(&mut self, trees: &[Tree], first_leaf: u32) -> (Parts, [u32; PLACES]) {
        let mut page = (Questions::NONE, Ways::OUT);
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
                    (page.1.yes[place], page.1.no[place]) = (leaf_exit(leaf), leaf_exit(leaf));
                    continue;
                };
                let split = &tree.splits[split as usize];
                self.put(&mut page.0, place, split);
                self.depth = self.depth.max(depth + 1);
                let mut lead = |child: Child| match child {
                    Child::Leaf(leaf) => leaf_exit(leaf),
                    Child::Split(_) => {
                        open.push((free, child, depth + 1));
                        free += 1;
                        (free - 1) as u8
                    }
                };
                (page.1.yes[place], page.1.no[place]) = (lead(split.yes), lead(split.no));
            }
            first_exit += tree.leaves.count;
        }
        (page, std::array::from_fn(|exit| first_leaf + exit as u32))
    }

    /// As [`Layout::whole`], for a tree whose leaves are padded.
    fn complete(&mut self, tree: &Tree, first_leaf: u32) -> (Parts, [u32; PLACES]) {
        let mut questions = Questions::NONE;
        let mut open = vec![(1, tree.root)];
        while let Some((number, child)) = open.pop() {
            // Whatever is decided below a leaf, it is a copy of it.
            let Child::Split(split) = child else { continue };
            let split = &tree.splits[split as usize];
            self.put(&mut questions, if number == 1 { 0 } else { number }, split);
            open.extend([(2 * number, split.no), (2 * number + 1, split.yes)]);
        }
        self.depth = PADDED_LEVELS;
        ((questions, Ways::COMPLETE), std::array::from_fn(|exit| first_leaf + exit as u32))
    }

    /// The first page of a large tree, and what its exits lead to.
    fn top(&mut self, tree: &Tree, first_leaf: u32) -> (Parts, [u32; PLACES]) {
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
    ) -> (Parts, [u32; PLACES]) {
        let (mut page, mut list) = ((Questions::NONE, Ways::OUT), [0; PLACES]);
        // The largest branches that are left: leaves, split, how many splits come before it, who leads to it.
        let mut open = BinaryHeap::from([(sizes[from as usize], from, 0, None)]);
        let (mut place, mut exits) = (0, 0);
        while let Some((_, split, depth, leader)) = open.pop() {
            let lead = |ways: &mut Ways, to: usize| match leader {
                Some((leader, true)) => ways.yes[leader] = to as u8,
                Some((leader, false)) => ways.no[leader] = to as u8,
                None => {}
            };
            if place == SPLITS_MAX {
                list[exits] = TO_PAGE | self.lower.len() as u32;
                lead(&mut page.1, PLACES + exits);
                exits += 1;
                to_cut.push((self.lower.len(), split));
                self.lower.push(((Questions::NONE, Ways::OUT), [0; PLACES]));
                continue;
            }
            lead(&mut page.1, place);
            let split = &tree.splits[split as usize];
            self.put(&mut page.0, place, split);
            self.depth = self.depth.max(depth + 1);
            for (child, passes) in [(split.yes, true), (split.no, false)] {
                match child {
                    Child::Split(below) => {
                        open.push((sizes[below as usize], below, depth + 1, Some((place, passes))));
                    }
                    Child::Leaf(leaf) => {
                        list[exits] = first_leaf + leaf;
                        let side = if passes { &mut page.1.yes } else { &mut page.1.no };
                        side[place] = (PLACES + exits) as u8;
                        exits += 1;
                    }
                }
            }
            place += 1;
        }
        (page, list)
    }

    fn put(&self, questions: &mut Questions, place: usize, split: &Split) {
        let Probe { column, rank } = (self.probe)(split);
        // There are at most 256 columns.
        (questions.columns[place], questions.limits[place]) = (column as u8, self.kernel.limit(rank));
    }
}
