//! From nodes that name each other to trees.
//!
//! In a file, several nodes may have the same child: LightGBM's converter writes a set of categories as a chain of equalities
//! whose true branches meet. A form's tree has no such thing. So a chain of equalities becomes one test, and anything else that
//! is shared is copied, up to a bound.
//!
//! Invariant: what a tree becomes is at most a small multiple of what is listed, whatever is shared; a cycle is found.

use std::collections::HashMap;

use super::question::{Mode, among, question};
use crate::form::limits::TREE_DEPTH_MAX;
use crate::form::{Child, Leaves, Split, Targets, Test, Tree};
use crate::read::ReadError;
use crate::read::onnx::evaluate::Call;

/// Nodes visited for each that is listed, and to begin with. Real files share nothing but chains of equalities.
const VISITS_PER_NODE: usize = 4;
const VISITS_FREE: usize = 4096;

/// Weights of leaves that are vectors, for each that is listed, and to begin with. Real files list all or one.
const WEIGHTS_PER_ENTRY: usize = 64;
const WEIGHTS_FREE: usize = 1 << 16;

/// Numbers of 4 bytes that a split or a leaf takes.
const NUMBERS_PER_NODE: usize = size_of::<Split>() / 4;

/// Nodes of all trees.
pub(super) struct Nodes {
    pub kinds: Vec<Kind>,
    pub features: Vec<u32>,
    pub thresholds: Vec<f64>,
    /// Whether NaN goes where the comparison holds.
    pub tracks: Vec<bool>,
    /// Where a row goes for which the comparison holds, and where otherwise: indices of nodes. Of leaves: anything.
    pub yes: Vec<u32>,
    pub no: Vec<u32>,
    /// Numbers of those that ask for a member.
    pub sets: HashMap<u32, Vec<f64>>,
    /// Of each leaf: which of the entries are its own. Of others: anything.
    pub entries_of: Vec<(u32, u32)>,
    /// Targets and weights.
    pub entries: Vec<(u32, f64)>,
    /// Nodes that trees start at, in order.
    pub roots: Vec<u32>,
    /// What to call them.
    pub names: Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Leaf,
    Member,
    Compare(Mode),
}

/// What nodes are called in the file.
pub(super) enum Names {
    /// By tree and node.
    Ids { trees: Vec<i64>, nodes: Vec<i64> },
    /// By index, leaves after so many nodes by an index of their own.
    Indices { nodes: usize },
}

impl Nodes {
    /// For people.
    pub fn name(&self, node: u32) -> String {
        let index = node as usize;
        match &self.names {
            Names::Ids { trees, nodes } => format!("node {} of tree {}", nodes[index], trees[index]),
            Names::Indices { nodes } if index >= *nodes => format!("leaf {}", index - nodes),
            Names::Indices { .. } => format!("node {index}"),
        }
    }
}

/// Trees, and which targets each row adds to, whatever leaves it ends at.
pub(super) struct Grown {
    pub trees: Vec<Tree>,
    pub covered: Vec<bool>,
    /// Numbers that the trees take beyond those that the file has for them.
    pub numbers_added: usize,
}

/// Grows all trees over rows of `width` columns.
pub(super) fn grow(call: &Call<'_>, nodes: &Nodes, width: usize, targets: usize) -> Result<Grown, ReadError> {
    let count = nodes.kinds.len();
    let mut grower = Grower {
        call,
        nodes,
        width,
        targets,
        visits_left: count.saturating_mul(VISITS_PER_NODE) + VISITS_FREE,
        weights_left: nodes.entries.len().saturating_mul(WEIGHTS_PER_ENTRY) + WEIGHTS_FREE,
        is_on_path: vec![false; count],
        seen: vec![0; targets],
        leaves_seen: 0,
    };
    let (visits_max, weights_max) = (grower.visits_left, grower.weights_left);
    let mut grown = Grown { trees: Vec::new(), covered: vec![false; targets], numbers_added: 0 };
    for root in &nodes.roots {
        let tree = grower.tree(*root, &mut grown.covered)?;
        grown.trees.push(tree);
    }
    let (visits, weights) = (visits_max - grower.visits_left, weights_max - grower.weights_left);
    let added = (visits.saturating_sub(count) * NUMBERS_PER_NODE, weights.saturating_sub(nodes.entries.len()));
    grown.numbers_added = added.0 + added.1;
    match grown.trees.is_empty() {
        true => Err(call.node.malformed("has no tree")),
        false => Ok(grown),
    }
}

struct Grower<'a> {
    call: &'a Call<'a>,
    nodes: &'a Nodes,
    width: usize,
    targets: usize,
    visits_left: usize,
    weights_left: usize,
    is_on_path: Vec<bool>,
    /// For each target, the last leaf that had a weight for it, counted from 1.
    seen: Vec<usize>,
    leaves_seen: usize,
}

enum Visit {
    /// A node, what leads to it (a split, and whether by its yes), and how many splits are above it.
    Enter {
        node: u32,
        from: Option<(usize, bool)>,
        depth: usize,
    },
    Leave {
        node: u32,
    },
}

impl Grower<'_> {
    fn tree(&mut self, start: u32, covered: &mut [bool]) -> Result<Tree, ReadError> {
        let mut splits: Vec<Split> = Vec::new();
        let mut leaves = Vec::new();
        let mut root = Child::Leaf(0);
        let mut visits = vec![Visit::Enter { node: start, from: None, depth: 0 }];
        while let Some(visit) = visits.pop() {
            let (node, from, depth) = match visit {
                Visit::Enter { node, from, depth } => (node, from, depth),
                Visit::Leave { node } => {
                    self.is_on_path[node as usize] = false;
                    continue;
                }
            };
            self.count_visit(node)?;
            let child = if self.nodes.kinds[node as usize] == Kind::Leaf {
                leaves.push(node);
                Child::Leaf(index_of(leaves.len() - 1))
            } else {
                self.enter(node, depth)?;
                let (split, ways) = self.split(node)?;
                let index = splits.len();
                splits.push(split);
                visits.push(Visit::Leave { node });
                for (is_yes, node) in [(false, ways.no), (true, ways.yes)] {
                    visits.push(Visit::Enter { node, from: Some((index, is_yes)), depth: depth + 1 });
                }
                Child::Split(index_of(index))
            };
            match from {
                None => root = child,
                Some((split, true)) => splits[split].yes = child,
                Some((split, false)) => splits[split].no = child,
            }
        }
        let leaves = self.leaves(&leaves, covered)?;
        Ok(Tree { root, splits, leaves })
    }

    fn count_visit(&mut self, node: u32) -> Result<(), ReadError> {
        let Some(left) = self.visits_left.checked_sub(1) else {
            let what = format!("nodes that many others share, such as {}", self.nodes.name(node));
            return Err(self.call.node.unsupported(what, "trees are"));
        };
        self.visits_left = left;
        Ok(())
    }

    fn enter(&mut self, node: u32, depth: usize) -> Result<(), ReadError> {
        if std::mem::replace(&mut self.is_on_path[node as usize], true) {
            return Err(self.call.node.malformed(format!("has a cycle through {}", self.nodes.name(node))));
        }
        if depth >= TREE_DEPTH_MAX {
            let what = format!("a tree of more than {TREE_DEPTH_MAX} levels, at {}", self.nodes.name(node));
            return Err(self.call.node.unsupported(what, "flatter trees are"));
        }
        Ok(())
    }

    /// The split of a node, whose children are still to come, and which nodes they are.
    fn split(&mut self, node: u32) -> Result<(Split, Ways), ReadError> {
        let index = node as usize;
        let (feature, threshold) = (self.nodes.features[index], self.nodes.thresholds[index]);
        if feature as usize >= self.width {
            let what = format!("looks at feature {feature} of {} in {}", self.width, self.nodes.name(node));
            return Err(self.call.node.malformed(what));
        }
        let mut ways = Ways { yes: self.nodes.yes[index], no: self.nodes.no[index] };
        let (test, is_swapped) = match self.nodes.kinds[index] {
            Kind::Member => (among(&self.nodes.sets[&node]), false),
            Kind::Compare(_) if threshold.is_nan() => {
                return Err(self.call.node.malformed(format!("compares with NaN in {}", self.nodes.name(node))));
            }
            Kind::Compare(Mode::Equal) => (self.chain(node, &mut ways)?, false),
            Kind::Compare(mode) => question(mode, threshold),
            Kind::Leaf => unreachable!("a leaf asks nothing"),
        };
        // NaN is not equal to anything.
        let missing = self.nodes.tracks[index] || self.nodes.kinds[index] == Kind::Compare(Mode::NotEqual);
        if is_swapped {
            (ways.yes, ways.no) = (ways.no, ways.yes);
        }
        let open = Child::Leaf(0);
        Ok((Split { feature, test, missing: missing != is_swapped, yes: open, no: open }, ways))
    }

    /// One test for a chain of equalities of the same feature, all of which lead to the same node.
    fn chain(&mut self, node: u32, ways: &mut Ways) -> Result<Test, ReadError> {
        let nodes = self.nodes;
        let of = |node: u32| {
            let index = node as usize;
            (nodes.kinds[index], nodes.features[index], nodes.tracks[index], nodes.yes[index])
        };
        let mut numbers = vec![nodes.thresholds[node as usize]];
        while of(ways.no) == of(node) {
            self.count_visit(ways.no)?;
            numbers.push(nodes.thresholds[ways.no as usize]);
            ways.no = nodes.no[ways.no as usize];
        }
        match numbers.iter().any(|number| number.is_nan()) {
            true => Err(self.call.node.malformed(format!("compares with NaN after {}", nodes.name(node)))),
            false => Ok(among(&numbers)),
        }
    }

    /// What leaves add, and to which targets all of them do.
    fn leaves(&mut self, leaves: &[u32], covered: &mut [bool]) -> Result<Leaves, ReadError> {
        let entries_of = |leaf: &u32| {
            let (start, end) = self.nodes.entries_of[*leaf as usize];
            &self.nodes.entries[start as usize..end as usize]
        };
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for leaf in leaves {
            self.leaves_seen += 1;
            for (target, _) in entries_of(leaf) {
                if std::mem::replace(&mut self.seen[*target as usize], self.leaves_seen) == self.leaves_seen {
                    let what = format!("has two weights for target {target} in {}", self.nodes.name(*leaf));
                    return Err(self.call.node.malformed(what));
                }
                *counts.entry(*target).or_default() += 1;
            }
        }
        counts
            .iter()
            .filter(|(_, count)| **count == leaves.len())
            .for_each(|(target, _)| covered[*target as usize] = true);
        let (targets, each) = match counts.len() {
            0 => (Targets::One(0), 1),
            1 => (Targets::One(*counts.keys().next().expect("there is one")), 1),
            _ => (Targets::All, self.targets),
        };
        let weights = leaves.len().saturating_mul(each);
        let Some(left) = self.weights_left.checked_sub(weights) else {
            let what = format!("{} targets, of which leaves have but a few", self.targets);
            return Err(self.call.node.unsupported(what, "leaves of one target, or of all, are"));
        };
        self.weights_left = left;
        let mut values = vec![0.0; weights];
        for (leaf, values) in leaves.iter().zip(values.chunks_exact_mut(each)) {
            for (target, weight) in entries_of(leaf) {
                values[if each == 1 { 0 } else { *target as usize }] = *weight;
            }
        }
        Ok(Leaves { count: leaves.len(), targets, values, linear: Vec::new() })
    }
}

/// Which nodes a split leads to.
struct Ways {
    yes: u32,
    no: u32,
}

/// Visits are counted, so splits and leaves are fewer than 2³².
fn index_of(index: usize) -> u32 {
    u32::try_from(index).expect("visits are bounded by what is listed, which has an index of 32 bits")
}
