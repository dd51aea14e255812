//! Walks down trees without a branch, on any CPU: a node is eight bytes, a leaf leads to itself, and a row whose way is
//! longer than most is taken up again later.
//!
//! Features become integers that order as they do ([`Keys`]), so that a missing value is one of them, and a step is a load,
//! a comparison and an addition. Several ways are in the CPU at once since none depends on another: those of the trees for one
//! row, of the rows for one tree.
#![forbid(unsafe_code)]

use super::columns::{Question, Rule, Survey, positive_zero};
use super::sets::Sets;
use super::sums::{Leaves, Matrix, Real};
use crate::form::{Child, Ensemble, Tree};

/// Rows that are scored together, at most. Larger: their keys leave the cache. Smaller: large trees are loaded more often.
pub(super) const ROWS_MAX: usize = 512;

/// Trees that one row walks through together. Larger: the leaves are added later, and nothing is done meanwhile.
const TREES_TOGETHER: usize = 64;

/// Rows from which a tree is walked by all rows, before the next one is.
const ROWS_FOR_TREES: usize = 24;

/// Walkers that take their steps together. More do not fit in the registers, fewer do not fill the CPU.
const TOGETHER: usize = 8;

/// Rows whose keys lie side by side.
const LANES: usize = 8;

/// Steps between two looks at who has arrived.
const STEPS: u32 = 3;

/// What a node says of its column: where the column's keys are in those of [`LANES`] rows.
const COLUMN_BITS: u32 = 15;
const COLUMNS_MAX: usize = (1 << COLUMN_BITS) / LANES;
const LEFT_BITS: u32 = 32 - COLUMN_BITS;

/// The trees, for walking.
pub(super) struct Descent {
    keys: Keys,
    nodes: Vec<Node>,
    trees: Vec<Way>,
    /// Steps that most rows take in most trees.
    steps: u32,
    /// Of the rows at hand, shape `[rows / LANES, columns, LANES]`.
    row_keys: Vec<i32>,
    walkers: Walkers,
}

/// One tree.
struct Way {
    /// Its root.
    start: u32,
    /// Steps that most rows take.
    steps: u32,
}

/// A split, or a leaf: then its column is [`LEAF_COLUMN`], its key the leaf's ordinal and its left child itself.
#[derive(Clone, Copy)]
struct Node {
    /// A value that is at most this goes to the left child, another to the one after.
    key: i32,
    /// [`LANES`] times the column in the lower bits, then how far away the left child is.
    link: u32,
}

/// A column that is at most whatever key.
const LEAF_COLUMN: u32 = 0;

impl Node {
    fn new(key: i32, column: u32, left: u32) -> Node {
        Node { key, link: (column * LANES as u32) | (left << COLUMN_BITS) }
    }

    /// Where the column's keys are.
    #[inline(always)]
    fn column(self) -> usize {
        (self.link & ((1 << COLUMN_BITS) - 1)) as usize
    }

    #[inline(always)]
    fn left(self) -> u32 {
        self.link >> COLUMN_BITS
    }

    #[inline(always)]
    fn is_split(self) -> bool {
        self.column() != LEAF_COLUMN as usize
    }
}

impl Descent {
    /// None if a tree or the number of columns is too large for a node.
    pub fn new(ensemble: &Ensemble, survey: &Survey) -> Option<Descent> {
        let keys = Keys::new(survey);
        let parts = || ensemble.trees.iter().map(|tree| tree.splits.len() + tree.leaves.count);
        let (parts_max, parts) = (parts().max().unwrap_or(0), parts().sum::<usize>());
        if keys.columns() > COLUMNS_MAX || parts_max > 1 << LEFT_BITS || parts > u32::MAX as usize {
            return None;
        }
        let mut nodes = Vec::with_capacity(parts);
        let mut first = 0;
        let trees = ensemble.trees.iter().map(|tree| {
            let start = nodes.len();
            add_nodes(tree, first, survey, &mut nodes);
            first += tree.leaves.count as u32;
            Way { start: start as u32, steps: usual_steps(tree) }
        });
        let trees: Vec<Way> = trees.collect();
        let steps = trees.iter().map(|tree| tree.steps).sum::<u32>().div_ceil(trees.len().max(1) as u32);
        Some(Descent { keys, nodes, trees, steps, row_keys: Vec::new(), walkers: Walkers::default() })
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.nodes[..]) + size_of_val(&self.trees[..]) + self.row_keys.len() * 4 + self.keys.sets.bytes()
    }

    /// Whether the trees are so large that rows should come many at a time.
    pub fn is_large(&self) -> bool {
        // The trees do not stay in the second-level cache of most CPUs.
        size_of_val(&self.nodes[..]) > 256 << 10
    }

    /// Adds the leaves of at most [`ROWS_MAX`] rows to their sums.
    pub fn score<T: Real>(&mut self, rows: Matrix<'_>, leaves: &Leaves<T>, sums: &mut [T]) {
        let block = self.keys.columns() * LANES;
        let needed = rows.rows().div_ceil(LANES) * block;
        if self.row_keys.len() < needed {
            self.row_keys.resize(needed, i32::MIN);
        }
        let row_keys = &mut self.row_keys[..needed];
        self.keys.fill(rows, row_keys);
        let lane = |row: usize| row / LANES * block + row % LANES;
        if rows.rows() < ROWS_FOR_TREES {
            for (row, sums) in sums.chunks_exact_mut(leaves.targets()).enumerate() {
                for (part, trees) in self.trees.chunks(TREES_TOGETHER).enumerate() {
                    let count = trees.len().next_multiple_of(TOGETHER);
                    let start = |tree: usize| trees.get(tree).map_or(trees[0].start, |tree| tree.start);
                    let found = self.walkers.leaves(&self.nodes, row_keys, count, self.steps, start, |_| lane(row));
                    leaves.add_trees(part * TREES_TOGETHER, &found[..trees.len()], rows.row(row), sums);
                }
            }
        } else {
            let count = rows.rows().next_multiple_of(LANES);
            for (index, tree) in self.trees.iter().enumerate() {
                let end = self.trees.get(index + 1).map_or(self.nodes.len(), |next| next.start as usize);
                let nodes = &self.nodes[tree.start as usize..end];
                let found = self.walkers.leaves(nodes, row_keys, count, tree.steps, |_| 0, lane);
                leaves.add_rows(index, &found[..rows.rows()], rows, sums);
            }
        }
    }
}

/// Nodes of a tree, level by level, so that its top lies together.
fn add_nodes(tree: &Tree, first_leaf: u32, survey: &Survey, nodes: &mut Vec<Node>) {
    let start = nodes.len();
    let mut level = std::collections::VecDeque::from([tree.root]);
    let mut next = 1;
    while let Some(child) = level.pop_front() {
        match child {
            Child::Leaf(leaf) => {
                nodes.push(Node::new((first_leaf + leaf) as i32, LEAF_COLUMN, 0));
            }
            Child::Split(split) => {
                let split = &tree.splits[split as usize];
                let (column, key) = Keys::place(survey, survey.question(split));
                let here = (nodes.len() - start) as u32;
                nodes.push(Node::new(key, column, next - here));
                next += 2;
                level.extend([split.yes, split.no]);
            }
        }
    }
}

/// How many steps a row takes if both ways of each split are as likely, rounded up.
fn usual_steps(tree: &Tree) -> u32 {
    let mut steps = 0.0;
    let mut open = vec![(tree.root, 0_i32)];
    while let Some((child, depth)) = open.pop() {
        match child {
            Child::Leaf(_) => steps += f64::from(depth) * 0.5_f64.powi(depth),
            Child::Split(split) => {
                let split = &tree.splits[split as usize];
                open.extend([(split.yes, depth + 1), (split.no, depth + 1)]);
            }
        }
    }
    steps.ceil() as u32
}

/// Who is on the way, and where.
#[derive(Default)]
struct Walkers {
    /// Where each walker is: its node, in the end its leaf.
    places: Vec<u32>,
    /// Walkers that have not arrived.
    late: Vec<u32>,
}

/// Steps of [`TOGETHER`] walkers; each has its place among the keys, and its node.
#[inline(always)]
fn walk(
    nodes: &[Node],
    keys: &[i32],
    lanes: [usize; TOGETHER],
    mut at: [u32; TOGETHER],
    steps: u32,
) -> [u32; TOGETHER] {
    for _ in 0..steps {
        for (at, lane) in at.iter_mut().zip(lanes) {
            let node = nodes[*at as usize];
            *at += node.left() + u32::from(keys[node.column() + lane] > node.key);
        }
    }
    at
}

impl Walkers {
    /// The leaves that walkers come to: walker `n` starts at node `starts(n)`, and its keys are at `lane(n)`. Their number is a
    /// multiple of [`TOGETHER`].
    #[inline(always)]
    fn leaves(
        &mut self,
        nodes: &[Node],
        keys: &[i32],
        count: usize,
        steps: u32,
        start: impl Fn(usize) -> u32,
        lane: impl Fn(usize) -> usize,
    ) -> &[u32] {
        if self.places.len() < count {
            self.places.resize(count, 0);
            // One more, for whoever is not late after all.
            self.late.resize(count + 1, 0);
        }
        let (places, late) = (&mut self.places[..count], &mut self.late[..=count]);
        let mut late_count = 0;
        for first in (0..count).step_by(TOGETHER) {
            let walkers: [u32; TOGETHER] = std::array::from_fn(|index| (first + index) as u32);
            let at = walk(
                nodes,
                keys,
                walkers.map(|walker| lane(walker as usize)),
                walkers.map(|w| start(w as usize)),
                steps,
            );
            late_count = arrive(nodes, at, walkers, places, late, late_count);
        }
        while late_count > 0 {
            // What is missing in the last group walks twice, to the same leaf.
            let last = late[late_count - 1];
            late[late_count..late_count.next_multiple_of(TOGETHER)].fill(last);
            let mut later_count = 0;
            for group in 0..late_count.div_ceil(TOGETHER) {
                let walkers = late.as_chunks::<TOGETHER>().0[group];
                let at = walkers.map(|walker| places[walker as usize]);
                let at = walk(nodes, keys, walkers.map(|walker| lane(walker as usize)), at, STEPS);
                later_count = arrive(nodes, at, walkers, places, late, later_count);
            }
            late_count = later_count;
        }
        places.iter_mut().for_each(|place| *place = nodes[*place as usize].key as u32);
        places
    }
}

/// Writes down where walkers are, and who of them is late.
#[inline(always)]
fn arrive(
    nodes: &[Node],
    at: [u32; TOGETHER],
    walkers: [u32; TOGETHER],
    places: &mut [u32],
    late: &mut [u32],
    mut late_count: usize,
) -> usize {
    for (at, walker) in at.into_iter().zip(walkers) {
        let node = nodes[at as usize];
        places[walker as usize] = at;
        late[late_count] = walker;
        late_count += usize::from(node.is_split());
    }
    late_count
}

/// The columns that nodes look at: features as integers.
struct Keys {
    rules: Vec<Rule>,
    sets: Sets,
}

impl Keys {
    fn new(survey: &Survey) -> Keys {
        Keys { rules: survey.rules.clone(), sets: survey.sets.clone() }
    }

    /// The first column is [`LEAF_COLUMN`]; rules and sets follow.
    fn columns(&self) -> usize {
        1 + self.rules.len() + self.sets.count()
    }

    /// Which column answers a question, and what is at most compared with.
    fn place(survey: &Survey, question: Question) -> (u32, i32) {
        match question {
            Question::AtMost { rule, threshold } => {
                (1 + rule, key(survey.thresholds[rule as usize][threshold as usize]))
            }
            Question::Within { set } => (1 + survey.rules.len() as u32 + set, 0),
        }
    }

    /// Fills the keys of rows, shape `[rows / LANES, columns, LANES]`.
    fn fill(&self, rows: Matrix<'_>, keys: &mut [i32]) {
        let block = self.columns() * LANES;
        for row in 0..rows.rows() {
            let keys = &mut keys[row / LANES * block..][..block];
            let keys = keys.as_chunks_mut::<LANES>().0.iter_mut().map(|lanes| &mut lanes[row % LANES]);
            let row = rows.row(row);
            for (rule, key) in self.rules.iter().zip(keys.skip(1)) {
                *key = key_by(*rule, row[rule.feature as usize]);
            }
        }
        let first_set = 1 + self.rules.len();
        self.sets.answer(rows, |row, set, answer| {
            keys[row / LANES * block + (first_set + set) * LANES + row % LANES] = i32::from(answer);
        });
    }
}

#[inline(always)]
fn key_by(rule: Rule, x: f32) -> i32 {
    match rule.answer(x) {
        None => key(positive_zero(x)),
        Some(true) => i32::MIN,
        Some(false) => i32::MAX,
    }
}

/// An integer that orders as the number does, above the smallest integer and below the largest one.
#[inline(always)]
fn key(number: f32) -> i32 {
    let bits = number.to_bits() as i32;
    bits ^ ((bits >> 31) & i32::MAX)
}
