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
const ROWS_FOR_TREES: usize = 8;

/// Steps between two looks at who has arrived.
const STEPS: usize = 3;

const COLUMN_BITS: u32 = 12;
const LEFT_BITS: u32 = 32 - COLUMN_BITS;

/// The trees, for walking.
pub(super) struct Descent {
    keys: Keys,
    nodes: Vec<Node>,
    trees: Vec<Way>,
    /// Of the rows at hand, shape `[rows, columns]`.
    row_keys: Vec<i32>,
    walkers: Walkers,
}

/// One tree.
struct Way {
    /// Its nodes.
    start: usize,
    end: usize,
    /// Steps that most rows take.
    steps: u32,
}

/// A split, or a leaf: then its column is [`LEAF_COLUMN`], its key the leaf's ordinal and its left child itself.
#[derive(Clone, Copy)]
struct Node {
    /// A value that is at most this goes to the left child, another to the one after.
    key: i32,
    /// The column in the lower bits, then the index of the left child in the tree.
    link: u32,
}

/// A column that is at most whatever key.
const LEAF_COLUMN: u32 = 0;

impl Node {
    fn new(key: i32, column: u32, left: u32) -> Node {
        Node { key, link: column | left << COLUMN_BITS }
    }

    #[inline(always)]
    fn column(self) -> u32 {
        self.link & ((1 << COLUMN_BITS) - 1)
    }

    #[inline(always)]
    fn left(self) -> u32 {
        self.link >> COLUMN_BITS
    }
}

impl Descent {
    /// None if a tree or the number of columns is too large for a node.
    pub fn new(ensemble: &Ensemble, survey: &Survey) -> Option<Descent> {
        let keys = Keys::new(survey);
        let parts_max = ensemble.trees.iter().map(|tree| tree.splits.len() + tree.leaves.count).max().unwrap_or(0);
        if keys.columns() > 1 << COLUMN_BITS || parts_max > 1 << LEFT_BITS {
            return None;
        }
        let parts = ensemble.trees.iter().map(|tree| tree.splits.len() + tree.leaves.count).sum();
        let mut nodes = Vec::with_capacity(parts);
        let mut first = 0;
        let trees = ensemble.trees.iter().map(|tree| {
            let start = nodes.len();
            add_nodes(tree, first, survey, &mut nodes);
            first += tree.leaves.count as u32;
            Way { start, end: nodes.len(), steps: usual_steps(tree) }
        });
        let trees = trees.collect();
        Some(Descent { keys, nodes, trees, row_keys: Vec::new(), walkers: Walkers::default() })
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
        let columns = self.keys.columns();
        let needed = rows.rows() * columns;
        if self.row_keys.len() < needed {
            self.row_keys.resize(needed, i32::MIN);
        }
        self.keys.fill(rows, &mut self.row_keys);
        if rows.rows() < ROWS_FOR_TREES {
            for (row, sums) in sums.chunks_exact_mut(leaves.targets()).enumerate() {
                let keys = &self.row_keys[row * columns..][..columns];
                for first in (0..self.trees.len()).step_by(TREES_TOGETHER) {
                    let trees = &self.trees[first..self.trees.len().min(first + TREES_TOGETHER)];
                    let found = self.walkers.through_trees(&self.nodes, trees, keys);
                    leaves.add_trees(first, found, rows.row(row), sums);
                }
            }
        } else {
            for (index, tree) in self.trees.iter().enumerate() {
                let nodes = &self.nodes[tree.start..tree.end];
                let found = self.walkers.through_tree(nodes, tree.steps, &self.row_keys[..needed], columns);
                leaves.add_rows(index, found, rows, sums);
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
                let here = (nodes.len() - start) as u32;
                nodes.push(Node::new((first_leaf + leaf) as i32, LEAF_COLUMN, here));
            }
            Child::Split(split) => {
                let split = &tree.splits[split as usize];
                let (column, key) = Keys::place(survey, survey.question(split));
                nodes.push(Node::new(key, column, next));
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
    /// Where each walker is: its node in its tree, in the end its leaf.
    places: Vec<u32>,
    /// Walkers that have not arrived.
    late: Vec<u32>,
}

#[inline(always)]
fn step(nodes: &[Node], keys: &[i32], at: u32) -> u32 {
    let node = nodes[at as usize];
    node.left() + u32::from(keys[node.column() as usize] > node.key)
}

impl Walkers {
    fn reserve(&mut self, count: usize) {
        if self.places.len() < count {
            self.places.resize(count, 0);
            self.late.resize(count, 0);
        }
    }

    /// The leaves of one row in some trees.
    fn through_trees(&mut self, nodes: &[Node], trees: &[Way], keys: &[i32]) -> &[u32] {
        self.reserve(trees.len());
        let (places, late) = (&mut self.places[..trees.len()], &mut self.late[..trees.len()]);
        let mut late_count = 0;
        for (index, tree) in trees.iter().enumerate() {
            let nodes = &nodes[tree.start..tree.end];
            let at = (0..tree.steps).fold(0, |at, _| step(nodes, keys, at));
            late_count += arrive(nodes, at, &mut places[index], &mut late[late_count], index);
        }
        while late_count > 0 {
            let mut later_count = 0;
            for index in 0..late_count {
                let walker = late[index] as usize;
                let tree = &trees[walker];
                let nodes = &nodes[tree.start..tree.end];
                let at = (0..STEPS).fold(places[walker], |at, _| step(nodes, keys, at));
                later_count += arrive(nodes, at, &mut places[walker], &mut late[later_count], walker);
            }
            late_count = later_count;
        }
        places
    }

    /// The leaves of some rows in one tree.
    fn through_tree(&mut self, nodes: &[Node], steps: u32, keys: &[i32], columns: usize) -> &[u32] {
        let rows = keys.len() / columns;
        self.reserve(rows);
        let (places, late) = (&mut self.places[..rows], &mut self.late[..rows]);
        let mut late_count = 0;
        for (index, keys) in keys.chunks_exact(columns).enumerate() {
            let at = (0..steps).fold(0, |at, _| step(nodes, keys, at));
            late_count += arrive(nodes, at, &mut places[index], &mut late[late_count], index);
        }
        while late_count > 0 {
            let mut later_count = 0;
            for index in 0..late_count {
                let walker = late[index] as usize;
                let keys = &keys[walker * columns..][..columns];
                let at = (0..STEPS).fold(places[walker], |at, _| step(nodes, keys, at));
                later_count += arrive(nodes, at, &mut places[walker], &mut late[later_count], walker);
            }
            late_count = later_count;
        }
        places
    }
}

/// Writes down where a walker is, and that it is late; 1 if it is.
#[inline(always)]
fn arrive(nodes: &[Node], at: u32, place: &mut u32, late: &mut u32, walker: usize) -> usize {
    let node = nodes[at as usize];
    let is_late = node.column() != LEAF_COLUMN;
    *place = if is_late { at } else { node.key as u32 };
    *late = walker as u32;
    usize::from(is_late)
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

    /// Fills the keys of rows, shape `[rows, columns]`.
    fn fill(&self, rows: Matrix<'_>, keys: &mut [i32]) {
        let columns = self.columns();
        for (row, keys) in keys.chunks_exact_mut(columns).take(rows.rows()).enumerate() {
            let row = rows.row(row);
            for (rule, key) in self.rules.iter().zip(&mut keys[1..]) {
                *key = key_by(*rule, row[rule.feature as usize]);
            }
        }
        let first_set = 1 + self.rules.len();
        self.sets.answer(rows, |row, set, answer| keys[row * columns + first_set + set] = i32::from(answer));
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
