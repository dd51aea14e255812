//! Trees into the form's.
//!
//! Invariant: the arrays of a tree are as long as the form wants them; what a leaf adds has the same width in all of them.
#![forbid(unsafe_code)]

use super::features::Features;
use super::file::{LeafValue, Node, ObliviousTree};
use super::{malformed, unsupported};
use crate::form::limits::COLUMNS_MAX;
use crate::form::{Child, Leaves, Targets, Tree};
use crate::read::ReadError;

/// Levels of an oblivious tree at most: CatBoost has no more either. It becomes a tree of 2^levels leaves.
const OBLIVIOUS_DEPTH_MAX: usize = 16;

#[derive(Default)]
pub(super) struct Ensemble {
    pub trees: Vec<Tree>,
    /// What a leaf has values for; nothing if there is no tree.
    pub dimensions: Option<usize>,
}

impl Ensemble {
    /// Adds a tree whose leaves have `dimensions` values each.
    fn add(&mut self, mut tree: Tree, dimensions: usize) -> Result<(), ReadError> {
        let index = self.trees.len();
        if !(1..=COLUMNS_MAX).contains(&dimensions) {
            return Err(malformed(format!(
                "tree {index}: a leaf has {dimensions} values: 1 to {COLUMNS_MAX} are supported"
            )));
        }
        let others = *self.dimensions.get_or_insert(dimensions);
        if dimensions != others {
            return Err(malformed(format!("tree {index}: a leaf has {dimensions} values, those before have {others}")));
        }
        tree.leaves.targets = if dimensions == 1 { Targets::One(0) } else { Targets::All };
        self.trees.push(tree);
        Ok(())
    }
}

pub(super) fn oblivious(trees: Vec<ObliviousTree<'_>>, features: &Features) -> Result<Ensemble, ReadError> {
    let mut ensemble = Ensemble::default();
    for (index, tree) in trees.into_iter().enumerate() {
        let depth = tree.splits.as_ref().map_or(0, Vec::len);
        if depth > OBLIVIOUS_DEPTH_MAX {
            let instead = format!("train with depth {OBLIVIOUS_DEPTH_MAX} or less");
            return Err(unsupported(format!("tree {index}: an oblivious tree of {depth} levels"), instead));
        }
        let (leaves, values) = (1 << depth, tree.leaf_values.len());
        if values == 0 || !values.is_multiple_of(leaves) {
            return Err(malformed(format!("tree {index}: {values} leaf_values for {leaves} leaves")));
        }
        ensemble.add(perfect_tree(index, tree, leaves, features)?, values / leaves)?;
    }
    Ok(ensemble)
}

/// Split `i` decides bit `i` of the leaf's index, so that a tree in heap order whose top looks at the last split has its leaves
/// in the file's order.
fn perfect_tree(index: usize, tree: ObliviousTree<'_>, leaves: usize, features: &Features) -> Result<Tree, ReadError> {
    let mut splits = Vec::with_capacity(leaves - 1);
    for split in tree.splits.unwrap_or_default().iter().rev() {
        let level = splits.len() + 1;
        for _ in 0..level {
            let [yes, no] = [1, 2].map(|side| heap_child(2 * splits.len() + side, leaves));
            splits.push(features.split(index, split, yes, no)?);
        }
    }
    let leaves = Leaves { count: leaves, targets: Targets::All, values: tree.leaf_values, linear: Vec::new() };
    Ok(Tree { root: heap_child(0, leaves.count), splits, leaves })
}

/// Places 0 to `leaves - 2` of a heap are splits, those after are leaves.
fn heap_child(place: usize, leaves: usize) -> Child {
    match (place + 1).checked_sub(leaves) {
        Some(leaf) => Child::Leaf(leaf as u32),
        None => Child::Split(place as u32),
    }
}

pub(super) fn not_oblivious(trees: Vec<Node<'_>>, features: &Features) -> Result<Ensemble, ReadError> {
    let mut ensemble = Ensemble::default();
    for (index, root) in trees.into_iter().enumerate() {
        let leaves = Leaves { count: 0, targets: Targets::All, values: Vec::new(), linear: Vec::new() };
        let tree = Tree { root: Child::Leaf(0), splits: Vec::new(), leaves };
        let mut builder = Builder { index, features, tree, dimensions: None };
        let root = builder.add(root)?;
        let Builder { tree, dimensions, .. } = builder;
        ensemble.add(Tree { root, ..tree }, dimensions.unwrap_or_default())?;
    }
    Ok(ensemble)
}

/// Takes a tree of nodes apart.
struct Builder<'a> {
    index: usize,
    features: &'a Features,
    tree: Tree,
    /// Values of the leaves so far.
    dimensions: Option<usize>,
}

impl Builder<'_> {
    /// Adds a node and all below it. Nodes are nested as deep as JSON may be, 128 levels.
    fn add(&mut self, node: Node<'_>) -> Result<Child, ReadError> {
        match node {
            Node { split: Some(split), left: Some(left), right: Some(right), value: None } => {
                let place = self.tree.splits.len();
                let unknown = Child::Leaf(0);
                self.tree.splits.push(self.features.split(self.index, &split, unknown, unknown)?);
                let (yes, no) = (self.add(*left)?, self.add(*right)?);
                (self.tree.splits[place].yes, self.tree.splits[place].no) = (yes, no);
                Ok(Child::Split(place as u32))
            }
            Node { split: None, left: None, right: None, value: Some(value) } => self.add_leaf(value),
            _ => {
                let what = "a node is neither a leaf with a value nor a split with left and right";
                Err(malformed(format!("tree {}: {what}", self.index)))
            }
        }
    }

    fn add_leaf(&mut self, value: LeafValue) -> Result<Child, ReadError> {
        let values = match value {
            LeafValue::One(value) => vec![value],
            LeafValue::Each(values) => values,
        };
        let others = *self.dimensions.get_or_insert(values.len());
        if values.len() != others {
            let what = format!("a leaf has {} values, those before have {others}", values.len());
            return Err(malformed(format!("tree {}: {what}", self.index)));
        }
        let leaf = self.tree.leaves.count;
        self.tree.leaves.count += 1;
        self.tree.leaves.values.extend(values);
        Ok(Child::Leaf(leaf as u32))
    }
}
