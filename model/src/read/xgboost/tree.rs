//! One tree of a file: from arrays with an entry for each node to a [`Tree`].
//!
//! Node 0 is the root; a node whose left child is −1 is a leaf, and its value stands in `split_conditions`, or, where leaves
//! are vectors, in `leaf_weights` (3.2 on, found through `right_children`) or `base_weights`. Pruning leaves nodes behind
//! that nothing leads to: only what the root leads to becomes part of the tree.
#![forbid(unsafe_code)]

use super::source::{Fault, Source, fill, required};
use crate::form::limits::COLUMNS_MAX;
use crate::form::{Child, Interval, Leaves, Split, Targets, Test, Tree, less_than};

/// The first number that is no category any more (`OutOfRangeCat` of `src/common/categorical.h`): f32 cannot tell those
/// beyond apart.
const CATEGORIES_END: i32 = 1 << 24;

/// What leads nowhere.
const NO_CHILD: i32 = -1;

/// Reads the tree that is number `number` of its model. Its leaves add to target 0 or, if they are vectors, to all.
///
/// # Errors
/// If it is no tree.
pub(super) fn read<'a, S: Source<'a>>(source: &mut S, number: usize) -> Result<Tree, Fault> {
    let mut id = None;
    let mut param = None;
    let (mut left, mut right, mut feature) = (None, None, None);
    let (mut condition, mut default_left) = (None, None);
    let mut categories = CategoryArrays::default();
    // Which of them is needed, and whether, the last key tells: they are come back to.
    let (mut base_weights, mut leaf_weights) = (None, None);
    source.object(|key, value| match key {
        "id" => fill(&mut id, value.integer()?),
        "tree_param" => fill(&mut param, Param::read(value)?),
        "left_children" => fill(&mut left, value.integers()?),
        "right_children" => fill(&mut right, value.integers()?),
        "split_indices" => fill(&mut feature, value.integers()?),
        "split_conditions" => fill(&mut condition, value.numbers()?),
        "default_left" => fill(&mut default_left, value.flags()?),
        "base_weights" => later(&mut base_weights, value),
        "leaf_weights" => later(&mut leaf_weights, value),
        _ => categories.read(key, value),
    })?;
    if let Some(id) = id.filter(|id| usize::try_from(*id) != Ok(number)) {
        return Err(Fault::malformed(format!("it is tree {number}")).at(&format!("id {id}")));
    }
    let param = required(param, "tree_param")?;
    let nodes = Nodes {
        left: param.sized(left, "left_children")?,
        right: param.sized(right, "right_children")?,
        feature: param.sized(feature, "split_indices")?,
        condition: param.sized(condition, "split_conditions")?,
        default_left: param.sized(default_left, "default_left")?,
        categories: categories.checked(param.nodes)?,
    };
    let shape = nodes.shape()?;
    let leaves = match param.leaf_width {
        0 | 1 => shape.leaves.iter().map(|node| f64::from(nodes.condition[*node])).collect(),
        width => {
            let weights = VectorLeaves { width, base: base_weights, leaf: leaf_weights };
            weights.read(&nodes, &shape.leaves)?
        }
    };
    let targets = if param.leaf_width > 1 { Targets::All } else { Targets::One(0) };
    let splits: Result<_, _> = shape.splits.iter().map(|node| nodes.split(*node, &shape.child_of)).collect();
    Ok(Tree {
        root: shape.child_of[0].expect("the walk begins at the root"),
        splits: splits?,
        leaves: Leaves { count: shape.leaves.len(), targets, values: leaves, linear: Vec::new() },
    })
}

/// Remembers where a value is.
fn later<'a, S: Source<'a>>(slot: &mut Option<S>, value: &mut S) -> Result<(), Fault> {
    fill(slot, value.clone())?;
    value.skip()
}

/// What a tree says about its size.
struct Param {
    nodes: usize,
    /// Values of a leaf; 0 is written for 1 by old versions.
    leaf_width: usize,
}

impl Param {
    fn read<'a, S: Source<'a>>(source: &mut S) -> Result<Param, Fault> {
        let (mut nodes, mut leaf_width) = (None, None);
        source.object(|key, value| match key {
            "num_nodes" => fill(&mut nodes, value.count()?),
            "size_leaf_vector" => fill(&mut leaf_width, value.count()?),
            _ => value.skip(),
        })?;
        let leaf_width = leaf_width.unwrap_or(1);
        if leaf_width > COLUMNS_MAX {
            let what = format!("a leaf of {leaf_width} values");
            return Err(Fault::unsupported(what, format!("at most {COLUMNS_MAX} are")).at("size_leaf_vector"));
        }
        Ok(Param { nodes: required(nodes, "num_nodes")?, leaf_width })
    }

    /// The array with an entry for each node.
    fn sized<T>(&self, array: Option<Vec<T>>, key: &str) -> Result<Vec<T>, Fault> {
        let array = required(array, key)?;
        if array.len() != self.nodes || array.is_empty() {
            let what = format!("{} entries for {} nodes", array.len(), self.nodes);
            return Err(Fault::malformed(what).at(key));
        }
        Ok(array)
    }
}

/// The categories that splits list, in one array for the tree.
#[derive(Default)]
struct CategoryArrays {
    split_type: Option<Vec<i32>>,
    nodes: Option<Vec<i32>>,
    segments: Option<Vec<i32>>,
    sizes: Option<Vec<i32>>,
    categories: Option<Vec<i32>>,
}

/// Checked: for each node in `nodes`, ascending, where its categories end in `categories`; they begin where those before
/// end.
struct Categories {
    /// Whether a node's split is by category; empty if none is.
    is_category: Vec<bool>,
    nodes: Vec<i32>,
    ends: Vec<usize>,
    categories: Vec<i32>,
}

impl CategoryArrays {
    fn read<'a, S: Source<'a>>(&mut self, key: &str, value: &mut S) -> Result<(), Fault> {
        let slot = match key {
            "split_type" => &mut self.split_type,
            "categories_nodes" => &mut self.nodes,
            "categories_segments" => &mut self.segments,
            "categories_sizes" => &mut self.sizes,
            "categories" => &mut self.categories,
            _ => return value.skip(),
        };
        fill(slot, value.integers()?)
    }

    /// They are there from 1.3 on, filled if there are categories.
    fn checked(self, node_count: usize) -> Result<Categories, Fault> {
        let split_type = self.split_type.unwrap_or_default();
        if !split_type.is_empty() && split_type.len() != node_count {
            let what = format!("{} entries for {node_count} nodes", split_type.len());
            return Err(Fault::malformed(what).at("split_type"));
        }
        if let Some(index) = split_type.iter().position(|kind| !matches!(kind, 0 | 1)) {
            let what = format!("{} is neither 0 nor 1", split_type[index]);
            return Err(Fault::malformed(what).at_index(index).at("split_type"));
        }
        let nodes = self.nodes.unwrap_or_default();
        let categories = self.categories.unwrap_or_default();
        let (begins, sizes) = (self.segments.unwrap_or_default(), self.sizes.unwrap_or_default());
        if begins.len() != nodes.len() || sizes.len() != nodes.len() {
            let what = format!(
                "{} entries, {} categories_segments, {} categories_sizes",
                nodes.len(),
                begins.len(),
                sizes.len()
            );
            return Err(Fault::malformed(what).at("categories_nodes"));
        }
        if !nodes.is_sorted_by(|one, other| one < other) {
            return Err(Fault::malformed("its nodes are not in order").at("categories_nodes"));
        }
        let mut ends = Vec::with_capacity(nodes.len());
        let mut end = 0;
        for (index, (begin, size)) in begins.iter().zip(&sizes).enumerate() {
            let size = usize::try_from(*size).ok().filter(|size| (1..=categories.len() - end).contains(size));
            let (true, Some(size)) = (usize::try_from(*begin) == Ok(end), size) else {
                let what = format!("its node has {} categories from {begin} on, of {}", sizes[index], categories.len());
                return Err(Fault::malformed(what).at_index(index).at("categories_segments"));
            };
            end += size;
            ends.push(end);
        }
        if let Some(index) = categories.iter().position(|category| *category < 0) {
            return Err(Fault::malformed("a category is negative").at_index(index).at("categories"));
        }
        Ok(Categories { is_category: split_type.iter().map(|kind| *kind == 1).collect(), nodes, ends, categories })
    }
}

impl Categories {
    /// Whether the split of a node is by category.
    fn has(&self, node: usize) -> bool {
        self.is_category.get(node).copied().unwrap_or(false)
    }

    /// The test for the categories that a node lists. As in XGBoost, −0.5 is no category, but −0 is.
    fn test(&self, node: usize) -> Result<Test, Fault> {
        let wanted = i32::try_from(node).ok();
        let Some(index) = wanted.and_then(|node| self.nodes.binary_search(&node).ok()) else {
            let what = format!("node {node} splits by category, but lists none");
            return Err(Fault::malformed(what).at("categories_nodes"));
        };
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        let mut listed = self.categories[begin..self.ends[index]].to_vec();
        listed.retain(|category| *category < CATEGORIES_END);
        listed.sort_unstable();
        listed.dedup();
        let interval = |category: &i32| {
            let first = *category as f32;
            Interval { first, last: (first + 1.0).next_down() }
        };
        Ok(Test::Within(Interval::union(listed.iter().map(interval).collect())))
    }
}

/// The arrays with an entry for each node, all of one length, which is not 0.
struct Nodes {
    left: Vec<i32>,
    right: Vec<i32>,
    feature: Vec<i32>,
    condition: Vec<f32>,
    default_left: Vec<bool>,
    categories: Categories,
}

/// What the root leads to.
struct Shape {
    /// Which split or leaf a node becomes.
    child_of: Vec<Option<Child>>,
    /// The nodes of the splits and of the leaves, in the order of their indices.
    splits: Vec<usize>,
    leaves: Vec<usize>,
}

impl Nodes {
    /// Goes down all ways from the root, left before right.
    fn shape(&self) -> Result<Shape, Fault> {
        let mut shape = Shape { child_of: vec![None; self.left.len()], splits: Vec::new(), leaves: Vec::new() };
        let mut open = vec![0_usize];
        while let Some(node) = open.pop() {
            if shape.child_of[node].is_some() {
                let what = format!("node {node} is reached twice: a cycle, or a child that two nodes share");
                return Err(Fault::malformed(what).at("left_children"));
            }
            let is_leaf = self.left[node] == NO_CHILD;
            let kind = if is_leaf { &mut shape.leaves } else { &mut shape.splits };
            let index = u32::try_from(kind.len()).map_err(|_| Fault::malformed("it has more than 2³² nodes"))?;
            kind.push(node);
            shape.child_of[node] = Some(if is_leaf { Child::Leaf(index) } else { Child::Split(index) });
            if !is_leaf {
                let left = self.left_child(node)?;
                open.extend([left + 1, left]);
            }
        }
        Ok(shape)
    }

    /// A split's left child, whose neighbour is the right one. XGBoost itself takes that for granted when it predicts one row
    /// (`GetNextNode` of `src/predictor/predict_fn.h`), but not when it predicts many: there is no telling what a file means
    /// that has it otherwise.
    fn left_child(&self, node: usize) -> Result<usize, Fault> {
        let (left, right) = (self.left[node], self.right[node]);
        let count = self.left.len();
        let child = usize::try_from(left).ok().filter(|left| (1..count.saturating_sub(1)).contains(left));
        let Some(child) = child else {
            let what = format!("node {left} is no child, in a tree of {count} nodes");
            return Err(Fault::malformed(what).at_index(node).at("left_children"));
        };
        if i64::from(right) != i64::from(left) + 1 {
            let what = format!("the children are nodes {left} and {right}, but XGBoost only has neighbours");
            return Err(Fault::malformed(what).at_index(node).at("right_children"));
        }
        Ok(child)
    }

    fn split(&self, node: usize, child_of: &[Option<Child>]) -> Result<Split, Fault> {
        let feature = u32::try_from(self.feature[node])
            .map_err(|_| Fault::malformed("it is negative").at_index(node).at("split_indices"))?;
        let left_node = self.left_child(node)?;
        let child = |node: usize| child_of[node].expect("the walk has been to all children");
        let (left, right) = (child(left_node), child(left_node + 1));
        let default_left = self.default_left[node];
        if self.categories.has(node) {
            // What is listed goes right; what is not, or is no category at all, left.
            let test = self.categories.test(node)?;
            return Ok(Split { feature, test, missing: !default_left, yes: right, no: left });
        }
        let threshold = self.condition[node];
        if threshold.is_nan() {
            return Err(Fault::malformed("the threshold is NaN").at_index(node).at("split_conditions"));
        }
        Ok(Split { feature, test: less_than(threshold), missing: default_left, yes: left, no: right })
    }
}

/// Where the leaves of a tree are that are vectors.
struct VectorLeaves<S> {
    width: usize,
    /// Shape `[nodes, width]`, up to 3.1; later another width is possible, and it is not what is predicted with.
    base: Option<S>,
    /// Shape `[leaves, width]`, from 3.2 on.
    leaf: Option<S>,
}

impl<'a, S: Source<'a>> VectorLeaves<S> {
    /// The values of these leaves, one after the other.
    fn read(self, nodes: &Nodes, leaves: &[usize]) -> Result<Vec<f64>, Fault> {
        let (key, source, rows) = match (self.leaf, self.base) {
            (Some(leaf), _) => ("leaf_weights", leaf, leaves.len()),
            (None, Some(base)) => ("base_weights", base, nodes.left.len()),
            (None, None) => return Err(Fault::malformed("there is neither leaf_weights nor base_weights")),
        };
        let weights = { source }.numbers().map_err(|fault| fault.at(key))?;
        if weights.len() != rows.saturating_mul(self.width) {
            let what = format!("{} weights for {rows} times {}", weights.len(), self.width);
            return Err(Fault::malformed(what).at(key));
        }
        let mut values = Vec::with_capacity(leaves.len() * self.width);
        for node in leaves {
            let row = if key == "base_weights" { Some(*node) } else { usize::try_from(nodes.right[*node]).ok() };
            let Some(row) = row.filter(|row| *row < rows) else {
                let what = format!("leaf {} of {rows} is meant", nodes.right[*node]);
                return Err(Fault::malformed(what).at_index(*node).at("right_children"));
            };
            values.extend(weights[row * self.width..(row + 1) * self.width].iter().map(|weight| f64::from(*weight)));
        }
        Ok(values)
    }
}
