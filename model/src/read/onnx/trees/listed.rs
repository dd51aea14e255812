//! The lists of `TreeEnsembleRegressor` and `TreeEnsembleClassifier`: nodes have a tree's id and an id in it, in any order; the
//! first one listed of a tree is its root.

use std::collections::HashMap;

use super::Reals;
use super::grow::{Kind, Names, Nodes};
use super::question::Mode;
use crate::read::ReadError;
use crate::read::onnx::errors::quoted;
use crate::read::onnx::evaluate::Call;

pub(super) struct Listed {
    pub nodes: Nodes,
    /// Whether thresholds or weights are doubles.
    pub are_double: bool,
    /// Of all entries, also those that no leaf has: the only target, if there is but one, and whether no weight is negative.
    pub only_target: Option<u32>,
    pub weights_are_positive: bool,
}

/// Where the nodes of a tree are listed.
struct Run {
    start: usize,
    /// Ids and indices, by id; none if ids count up from 0.
    by_id: Option<Vec<(i64, u32)>>,
    length: usize,
}

impl Run {
    fn find(&self, id: i64) -> Option<u32> {
        match &self.by_id {
            Some(by_id) => by_id.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| by_id[at].1),
            None => {
                let place = usize::try_from(id).ok().filter(|place| *place < self.length)?;
                u32::try_from(self.start + place).ok()
            }
        }
    }
}

impl Listed {
    /// Takes all lists out of the node; those of leaves begin with `leaves`.
    pub fn take(call: &mut Call<'_>, leaves: &str, targets: usize) -> Result<Listed, ReadError> {
        let trees = call.node.integers("nodes_treeids")?.unwrap_or_default();
        let ids = call.node.integers("nodes_nodeids")?.unwrap_or_default();
        let count = trees.len();
        let same = |call: &Call<'_>, name: &str, length: usize| {
            let what = || format!("has {length} {name} for {count} nodes");
            if length == count { Ok(()) } else { Err(call.node.malformed(what())) }
        };
        if u32::try_from(count).is_err() {
            return Err(call.node.unsupported(format!("{count} nodes"), "fewer are"));
        }
        same(call, "nodes_nodeids", ids.len())?;
        let kinds = kinds(call)?;
        same(call, "nodes_modes", kinds.len())?;
        let thresholds = Reals::take(call, "nodes_values")?.unwrap_or(Reals { numbers: Vec::new(), are_double: false });
        same(call, "nodes_values", thresholds.numbers.len())?;
        let features = features(call, &kinds)?;
        same(call, "nodes_featureids", features.len())?;
        let tracks = call.node.integers("nodes_missing_value_tracks_true")?.filter(|tracks| !tracks.is_empty());
        let tracks =
            tracks.map_or_else(|| vec![false; count], |tracks| tracks.iter().map(|track| *track != 0).collect());
        same(call, "nodes_missing_value_tracks_true", tracks.len())?;
        for name in ["nodes_hitrates", "nodes_hitrates_as_tensor"] {
            call.node.ignore(name);
        }
        let runs = runs(call, &trees, &ids)?;
        let mut sides = Vec::with_capacity(2);
        for name in ["nodes_truenodeids", "nodes_falsenodeids"] {
            let children = call.node.integers(name)?.unwrap_or_default();
            same(call, name, children.len())?;
            sides.push(children_of(call, &runs, &trees, &kinds, &children)?);
        }
        let no = sides.pop().unwrap_or_default();
        let yes = sides.pop().unwrap_or_default();
        let roots = runs.in_order.iter().map(|run| u32::try_from(run.start).unwrap_or_default()).collect();
        let entries = Entries::take(call, leaves, targets, &runs)?;
        let (entries_of, sorted) = entries.by_node(count);
        let nodes = Nodes {
            kinds,
            features,
            thresholds: thresholds.numbers,
            tracks,
            yes,
            no,
            sets: HashMap::new(),
            entries_of,
            entries: sorted,
            roots,
            names: Names::Ids { trees, nodes: ids },
        };
        refuse_values_of_bare_leaves(call, &nodes, targets)?;
        Ok(Listed {
            nodes,
            are_double: thresholds.are_double || entries.are_double,
            only_target: entries.only_target(),
            weights_are_positive: !entries.weights.iter().any(|weight| *weight < 0.0),
        })
    }
}

fn kinds(call: &mut Call<'_>) -> Result<Vec<Kind>, ReadError> {
    let modes = call.node.raw_texts("nodes_modes")?.unwrap_or_default();
    let kind = |mode: &prost::bytes::Bytes| match mode.as_ref() {
        b"LEAF" => Ok(Kind::Leaf),
        name => Mode::of_name(name).map(Kind::Compare).ok_or_else(|| {
            let what = format!("the node mode {}", quoted(&String::from_utf8_lossy(name)));
            call.node.unsupported(what, "LEAF and BRANCH_LEQ, LT, GTE, GT, EQ and NEQ are")
        }),
    };
    modes.iter().map(kind).collect()
}

/// What leaves say is nobody's business.
fn features(call: &mut Call<'_>, kinds: &[Kind]) -> Result<Vec<u32>, ReadError> {
    let ids = call.node.integers("nodes_featureids")?.unwrap_or_default();
    let feature = |(index, id): (usize, &i64)| match kinds.get(index) {
        Some(Kind::Leaf) => Ok(0),
        _ => u32::try_from(*id).map_err(|_| call.node.malformed(format!("looks at feature {id}"))),
    };
    ids.iter().enumerate().map(feature).collect()
}

/// Where trees are listed.
struct Runs {
    in_order: Vec<Run>,
    by_tree: HashMap<i64, usize>,
}

impl Runs {
    fn find(&self, tree: i64, node: i64) -> Option<u32> {
        self.in_order[*self.by_tree.get(&tree)?].find(node)
    }
}

fn runs(call: &Call<'_>, trees: &[i64], ids: &[i64]) -> Result<Runs, ReadError> {
    let mut runs = Runs { in_order: Vec::new(), by_tree: HashMap::new() };
    let mut start = 0;
    for run in trees.chunk_by(|one, other| one == other) {
        let (tree, length) = (run[0], run.len());
        if runs.by_tree.insert(tree, runs.in_order.len()).is_some() {
            let what = format!("the nodes of tree {tree} in two places");
            return Err(call.node.unsupported(what, "nodes listed tree by tree are"));
        }
        let own = &ids[start..start + length];
        let counts_up = own.iter().copied().eq(0..i64::try_from(length).unwrap_or(i64::MAX));
        let by_id = if counts_up { None } else { Some(sorted(call, tree, own, start)?) };
        runs.in_order.push(Run { start, by_id, length });
        start += length;
    }
    Ok(runs)
}

fn sorted(call: &Call<'_>, tree: i64, ids: &[i64], start: usize) -> Result<Vec<(i64, u32)>, ReadError> {
    let index = |at: usize| u32::try_from(start + at).unwrap_or_default();
    let mut sorted: Vec<(i64, u32)> = ids.iter().enumerate().map(|(at, id)| (*id, index(at))).collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(call.node.malformed(format!("has node {} of tree {tree} twice", pair[0].0))),
        None => Ok(sorted),
    }
}

/// The indices of children; of a leaf, 0.
fn children_of(
    call: &Call<'_>,
    runs: &Runs,
    trees: &[i64],
    kinds: &[Kind],
    children: &[i64],
) -> Result<Vec<u32>, ReadError> {
    let nodes = children.iter().zip(trees).zip(kinds);
    let child = |((child, tree), kind): ((&i64, &i64), &Kind)| match kind {
        Kind::Leaf => Ok(0),
        _ => runs
            .find(*tree, *child)
            .ok_or_else(|| call.node.malformed(format!("leads to node {child} of tree {tree}, which is not there"))),
    };
    nodes.map(child).collect()
}

/// What leaves add.
struct Entries {
    /// Index of the node, the target.
    places: Vec<(u32, u32)>,
    weights: Vec<f64>,
    are_double: bool,
}

/// A target, and what is added to it.
type Entry = (u32, f64);

impl Entries {
    fn take(call: &mut Call<'_>, leaves: &str, targets: usize, runs: &Runs) -> Result<Entries, ReadError> {
        let mut list = |name: &str| call.node.integers(&format!("{leaves}_{name}")).map(Option::unwrap_or_default);
        let (ids, nodes, trees) = (list("ids")?, list("nodeids")?, list("treeids")?);
        let weights = Reals::take(call, &format!("{leaves}_weights"))?;
        let weights = weights.unwrap_or(Reals { numbers: Vec::new(), are_double: false });
        let lengths = [ids.len(), nodes.len(), trees.len(), weights.numbers.len()];
        if lengths.iter().any(|length| *length != ids.len()) || u32::try_from(ids.len()).is_err() {
            let what = format!("has {lengths:?} {leaves}_ids, nodeids, treeids and weights, not as many of each");
            return Err(call.node.malformed(what));
        }
        let place = |((id, node), tree): ((&i64, &i64), &i64)| {
            let node_index = runs.find(*tree, *node);
            let node_index = node_index.ok_or_else(|| {
                call.node.malformed(format!("has a weight for node {node} of tree {tree}, which is not there"))
            })?;
            let target = usize::try_from(*id).ok().filter(|target| *target < targets);
            let target = target.and_then(|target| u32::try_from(target).ok());
            let outside = || call.node.malformed(format!("adds to {leaves} {id} of {targets}"));
            Ok((node_index, target.ok_or_else(outside)?))
        };
        let places = ids.iter().zip(&nodes).zip(&trees).map(place).collect::<Result<_, ReadError>>()?;
        Ok(Entries { places, weights: weights.numbers, are_double: weights.are_double })
    }

    /// For each node, which entries are its own; and the entries, sorted by node, in the file's order for each.
    fn by_node(&self, nodes: usize) -> (Vec<(u32, u32)>, Vec<Entry>) {
        let mut ranges = vec![(0_u32, 0_u32); nodes];
        self.places.iter().for_each(|(node, _)| ranges[*node as usize].1 += 1);
        let mut start = 0;
        for range in &mut ranges {
            let count = range.1;
            *range = (start, start);
            start += count;
        }
        let mut sorted = vec![(0, 0.0); self.places.len()];
        for ((node, target), weight) in self.places.iter().zip(&self.weights) {
            let end = &mut ranges[*node as usize].1;
            sorted[*end as usize] = (*target, *weight);
            *end += 1;
        }
        (ranges, sorted)
    }

    fn only_target(&self) -> Option<u32> {
        let (_, first) = self.places.first()?;
        self.places.iter().all(|(_, target)| target == first).then_some(*first)
    }
}

/// A leaf without a weight adds nothing; but onnxruntime, if there is one target, its threshold.
fn refuse_values_of_bare_leaves(call: &Call<'_>, nodes: &Nodes, targets: usize) -> Result<(), ReadError> {
    let is_bare = |index: &usize| {
        let (start, end) = nodes.entries_of[*index];
        nodes.kinds[*index] == Kind::Leaf && start == end && nodes.thresholds[*index] != 0.0
    };
    match (0..nodes.kinds.len()).filter(|_| targets == 1).find(is_bare) {
        Some(index) => {
            let name = nodes.name(u32::try_from(index).unwrap_or_default());
            Err(call.node.unsupported(format!("{name}, a leaf without a weight"), "a weight for each leaf is"))
        }
        None => Ok(()),
    }
}
