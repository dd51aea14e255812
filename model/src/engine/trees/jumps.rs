//! Finds the leaf of a whole tree without walking down: all splits decide at once, then pointers jump, for a few rows.
//!
//! A [`Page`] has up to 64 splits: whole trees that follow each other. The row's ranks lie in registers, from which each split
//! picks its own; what it decides says where it leads, to another split or out of the page by an exit, which is a leaf. Then
//! every place takes over where the place that it leads to leads, which doubles the way: after k rounds, 2^k splits lie
//! behind, whatever the shape of the tree (pointer jumping: J. C. Wyllie, The Complexity of Parallel Computations, 1979).
//! Larger trees are not done: cut into pages, 500 trees of 127 leaves took 9.6 µs a row where blocks take 4.5.
//!
//! Here is how trees are laid out; the CPU's part is in `avx512.rs`.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::slice::{Iter, IterMut};

use super::columns::Survey;
use super::kernel::Kernel;
use super::order::{PADDED_LEAVES, PADDED_LEVELS};
use super::ranks::{Probe, ROW_COLUMNS, Ranks, Row};
use super::sums::{Leaves, Matrix, Plain, Real};
use crate::form::{Child, Ensemble, Split, Tree};

/// Splits in a page, and its exits. The places of splits are below it; exits are numbered from it on.
pub(super) const PLACES: usize = 64;

/// Trees in a page, at most. Larger: more to read from each page. Smaller: small trees leave places empty.
pub(super) const TREES_MAX: usize = 8;

/// Pages that are done together. Larger: the leaves are added later, and nothing is done meanwhile. Smaller: more ends of
/// loops, which no CPU foresees.
const PAGES_TOGETHER: usize = 32;

/// Rows that go through the pages together, if there are so many. Larger: their ranks and sums do not fit in the registers.
/// Smaller: the pages are loaded more often.
const ROWS_TOGETHER: usize = 4;

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

/// Which trees a page has.
#[derive(Clone, Copy)]
struct Content {
    /// How many trees.
    trees: u32,
    /// The ordinal of the leaf behind the first exit; those behind the others follow.
    first_leaf: u32,
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
    /// In the order of the trees.
    pages: Pages,
    contents: Vec<Content>,
    groups: Vec<Group>,
    /// The ranks of the rows that are done together.
    rows: [Row; ROWS_TOGETHER],
    /// The leaves of a row in the trees of a group.
    found: Vec<u32>,
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
    /// Tells how rows leave some of them.
    fn jump<const ROWS: usize>(&self, range: Range<usize>, rows: &[Row; ROWS], leaving: &mut impl Leaving<ROWS>) {
        let questions = self.questions[range.clone()].iter();
        if self.ways.is_empty() {
            let pages = questions.map(|questions| Page { questions, ways: &COMPLETE });
            self.kernel.jump(pages, self.rounds, rows, self.columns, leaving);
        } else {
            let pages = questions.zip(&self.ways[range]).map(|(questions, ways)| Page { questions, ways });
            self.kernel.jump(pages, self.rounds, rows, self.columns, leaving);
        }
    }
}

impl Jumps {
    /// None if the kernel does not do it, a tree is too large, or there are too many columns.
    pub fn new(ensemble: &Ensemble, is_padded: bool, survey: &Survey, kernel: Kernel) -> Option<Jumps> {
        let (ranks, probes) = Ranks::new(survey);
        let fits = |tree: &Tree| tree.leaves.count <= PLACES;
        if !kernel.jumps() || ranks.columns() > ROW_COLUMNS || !ensemble.trees.iter().all(fits) {
            return None;
        }
        let probe = |split: &Split| probes.of(survey.question(split));
        let mut layout = Layout { kernel, probe: &probe, depth: 0 };
        let (mut questions, mut ways, mut contents) = (Vec::new(), Vec::new(), Vec::new());
        let mut groups: Vec<Group> = Vec::new();
        let (mut first_tree, mut first_leaf) = (0, 0);
        let mut rest = &ensemble.trees[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            let (asked, led) = match now {
                [tree] if is_padded => layout.complete(tree),
                trees => layout.page(trees),
            };
            let page = questions.len();
            if page.is_multiple_of(PAGES_TOGETHER) {
                groups.push(Group { pages: page..page, trees: first_tree..first_tree });
            }
            questions.push(asked);
            if !is_padded {
                ways.push(led);
            }
            contents.push(Content { trees: now.len() as u32, first_leaf });
            first_tree += now.len();
            first_leaf += now.iter().map(|tree| tree.leaves.count as u32).sum::<u32>();
            let group = groups.last_mut().expect("a page is in a group");
            (group.pages.end, group.trees.end) = (questions.len(), first_tree);
            rest = later;
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
            found: vec![0; together],
        })
    }

    pub fn bytes(&self) -> usize {
        let pages = size_of_val(&self.pages.questions[..]) + size_of_val(&self.pages.ways[..]);
        pages + size_of_val(&self.contents[..]) + size_of_val(&self.groups[..]) + self.ranks.bytes()
    }

    /// Adds the leaves of some rows to their sums.
    pub fn score<T: Real>(&mut self, rows: Matrix<'_>, leaves: &Leaves<T>, sums: &mut [T]) {
        match leaves.plain() {
            Some(leaves) => {
                let (together, rest) = sums.as_chunks_mut::<ROWS_TOGETHER>();
                let first_rest = together.len() * ROWS_TOGETHER;
                for (index, sums) in together.iter_mut().enumerate() {
                    self.add_plain(rows, index * ROWS_TOGETHER, leaves, sums);
                }
                for (index, sum) in rest.iter_mut().enumerate() {
                    self.add_plain(rows, first_rest + index, leaves, std::array::from_mut(sum));
                }
            }
            None => {
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
    fn add_plain<T: Real, const ROWS: usize>(
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
        let ranked = self.rows.first_chunk::<1>().expect("there is a row");
        let mut finding = Finding { contents: self.contents[pages.clone()].iter(), found: self.found.iter_mut() };
        self.pages.jump(pages, ranked, &mut finding);
        trees
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

/// Writes leaves down.
struct Finding<'a> {
    contents: Iter<'a, Content>,
    found: IterMut<'a, u32>,
}

impl Leaving<1> for Finding<'_> {
    #[inline(always)]
    fn leaves(&mut self, [ends]: [Ends; 1]) {
        let Some(Content { trees, first_leaf }) = self.contents.next() else { return };
        for (end, found) in ends.iter().take(*trees as usize).zip(&mut self.found) {
            *found = first_leaf + exit(*end) as u32;
        }
    }
}

/// The number of an exit.
#[inline(always)]
fn exit(end: u8) -> usize {
    usize::from(end) % PLACES
}

/// How many of the first trees fit in a page.
fn fitting(trees: &[Tree]) -> usize {
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
    /// Splits on the longest way through a page.
    depth: u32,
}

impl Layout<'_> {
    /// A page of some trees. Exits are numbered as the leaves are, through all of them.
    fn page(&mut self, trees: &[Tree]) -> (Questions, Ways) {
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
        page
    }

    /// The same for a tree whose leaves are padded.
    fn complete(&mut self, tree: &Tree) -> (Questions, Ways) {
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
        (questions, Ways::COMPLETE)
    }

    fn put(&self, questions: &mut Questions, place: usize, split: &Split) {
        let Probe { column, rank } = (self.probe)(split);
        // There are at most 256 columns.
        (questions.columns[place], questions.limits[place]) = (column as u8, self.kernel.limit(rank));
    }
}
