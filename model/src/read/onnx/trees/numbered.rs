//! The lists of `TreeEnsemble` (ai.onnx.ml 5): nodes and leaves are known by their places, and a node says of each child which of
//! the two it is. Leaves and nodes may be shared.

use std::collections::HashMap;

use super::Reals;
use super::grow::{Kind, Names, Nodes};
use super::question::Mode;
use crate::read::ReadError;
use crate::read::onnx::evaluate::Call;

/// Takes all lists out of the node; and whether splits or weights are doubles.
pub(super) fn take(call: &mut Call<'_>, targets: usize) -> Result<(Nodes, bool), ReadError> {
    call.node.ignore("nodes_hitrates");
    let features = integers(call, "nodes_featureids")?;
    let count = features.len();
    let same = |call: &Call<'_>, name: &str, length: usize| {
        let what = || format!("has {length} {name} for {count} nodes");
        if length == count { Ok(()) } else { Err(call.node.malformed(what())) }
    };
    let splits = reals(call, "nodes_splits")?;
    same(call, "nodes_splits", splits.numbers.len())?;
    let kinds = kinds(call)?;
    same(call, "nodes_modes", kinds.len())?;
    let tracks = call.node.integers("nodes_missing_value_tracks_true")?.filter(|tracks| !tracks.is_empty());
    let tracks = tracks.map_or_else(|| vec![false; count], |tracks| tracks.iter().map(|track| *track != 0).collect());
    same(call, "nodes_missing_value_tracks_true", tracks.len())?;
    let weights = reals(call, "leaf_weights")?;
    let leaves = weights.numbers.len();
    let leaf_targets = integers(call, "leaf_targetids")?;
    if leaf_targets.len() != leaves {
        return Err(call.node.malformed(format!("has {} leaf_targetids for {leaves} leaves", leaf_targets.len())));
    }
    if u32::try_from(count.saturating_add(leaves)).is_err() {
        return Err(call.node.unsupported(format!("{count} nodes and {leaves} leaves"), "fewer are"));
    }
    let mut sides = Vec::with_capacity(2);
    for (ids, are_leaves) in [("nodes_truenodeids", "nodes_trueleafs"), ("nodes_falsenodeids", "nodes_falseleafs")] {
        let (ids, are_leaves) = (integers(call, ids)?, integers(call, are_leaves)?);
        same(call, "children", ids.len())?;
        same(call, "nodes_trueleafs or nodes_falseleafs", are_leaves.len())?;
        sides.push(children(call, &ids, &are_leaves, leaves)?);
    }
    let no = sides.pop().unwrap_or_default();
    let yes = sides.pop().unwrap_or_default();
    let roots = roots(call, &yes, &no)?;
    let sets = sets(call, &kinds)?;
    let entries = leaf_targets.iter().zip(&weights.numbers).map(|(target, weight)| {
        let within = u32::try_from(*target).ok().filter(|target| (*target as usize) < targets);
        let outside = || call.node.malformed(format!("has a leaf that adds to target {target} of {targets}"));
        within.map(|target| (target, *weight)).ok_or_else(outside)
    });
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let feature = |id: &i64| u32::try_from(*id).map_err(|_| call.node.malformed(format!("looks at feature {id}")));
    let features = features.iter().map(feature).collect::<Result<Vec<_>, _>>()?;
    let mut nodes = Nodes {
        kinds,
        features,
        thresholds: splits.numbers,
        tracks,
        yes,
        no,
        sets,
        entries_of: vec![(0, 0); count],
        entries,
        roots,
        names: Names::Indices { nodes: count },
    };
    append_leaves(&mut nodes, leaves);
    Ok((nodes, splits.are_double || weights.are_double))
}

fn integers(call: &mut Call<'_>, name: &str) -> Result<Vec<i64>, ReadError> {
    Ok(call.node.integers(name)?.unwrap_or_default())
}

fn reals(call: &mut Call<'_>, name: &str) -> Result<Reals, ReadError> {
    let tensor = call.node.tensor(name)?.ok_or_else(|| call.node.malformed(format!("has no {name}")))?;
    Reals::of_tensor(call, &tensor, name)
}

fn kinds(call: &mut Call<'_>) -> Result<Vec<Kind>, ReadError> {
    const KINDS: [Kind; 7] = [
        Kind::Compare(Mode::LessOrEqual),
        Kind::Compare(Mode::Less),
        Kind::Compare(Mode::GreaterOrEqual),
        Kind::Compare(Mode::Greater),
        Kind::Compare(Mode::Equal),
        Kind::Compare(Mode::NotEqual),
        Kind::Member,
    ];
    let modes = call.node.tensor("nodes_modes")?.ok_or_else(|| call.node.malformed("has no nodes_modes"))?;
    let modes = modes.integers().ok_or_else(|| call.node.malformed("has nodes_modes that are no integers"))?;
    let kind = |mode: &i64| {
        let kind = usize::try_from(*mode).ok().and_then(|mode| KINDS.get(mode).copied());
        kind.ok_or_else(|| call.node.unsupported(format!("the node mode {mode}"), "0 to 6 are"))
    };
    modes.iter().map(kind).collect()
}

/// Indices of children, those of leaves after those of nodes.
fn children(call: &Call<'_>, ids: &[i64], are_leaves: &[i64], leaves: usize) -> Result<Vec<u32>, ReadError> {
    let nodes = ids.len();
    let child = |(id, is_leaf): (&i64, &i64)| {
        let (first, count, what) = if *is_leaf != 0 { (nodes, leaves, "leaf") } else { (0, nodes, "node") };
        let place = usize::try_from(*id).ok().filter(|place| *place < count);
        let index = place.and_then(|place| u32::try_from(first + place).ok());
        index.ok_or_else(|| call.node.malformed(format!("leads to {what} {id} of {count}")))
    };
    ids.iter().zip(are_leaves).map(child).collect()
}

/// A root both of whose children are one leaf is a tree of that leaf.
fn roots(call: &mut Call<'_>, yes: &[u32], no: &[u32]) -> Result<Vec<u32>, ReadError> {
    let roots = integers(call, "tree_roots")?;
    let nodes = yes.len();
    let root = |root: &i64| {
        let outside = || call.node.malformed(format!("has a tree that starts at node {root} of {nodes}"));
        let index = usize::try_from(*root).ok().filter(|index| *index < nodes).ok_or_else(outside)?;
        let (yes, no) = (yes[index], no[index]);
        if yes != no || (yes as usize) < nodes {
            return u32::try_from(index).map_err(|_| outside());
        }
        match (yes as usize) - nodes {
            leaf if leaf == index => Ok(yes),
            // The specification means the leaf, onnxruntime and the reference take the one that has the root's index.
            leaf => {
                let what = format!("node {index}, a tree of leaf {leaf} alone");
                Err(call.node.unsupported(what, "a leaf of the same index is"))
            }
        }
    };
    roots.iter().map(root).collect()
}

/// What members are asked for: lists with a NaN after each, one for each node that asks, in order.
fn sets(call: &mut Call<'_>, kinds: &[Kind]) -> Result<HashMap<u32, Vec<f64>>, ReadError> {
    let members = kinds.iter().enumerate().filter(|(_, kind)| **kind == Kind::Member);
    let members: Vec<u32> = members.filter_map(|(index, _)| u32::try_from(index).ok()).collect();
    let Some(tensor) = call.node.tensor("membership_values")? else {
        return match members.is_empty() {
            true => Ok(HashMap::new()),
            false => Err(call.node.malformed("has no membership_values for nodes that ask for them")),
        };
    };
    let values = Reals::of_tensor(call, &tensor, "membership_values")?.numbers;
    // The last NaN may be left out.
    let values = values.strip_suffix_nan();
    let count = if members.is_empty() && values.is_empty() { 0 } else { values.split(|value| value.is_nan()).count() };
    if count != members.len() {
        let what = format!("has {count} lists of membership_values for {} nodes that ask for them", members.len());
        return Err(call.node.malformed(what));
    }
    Ok(members.into_iter().zip(values.split(|value| value.is_nan()).map(<[f64]>::to_vec)).collect())
}

trait StripNan {
    fn strip_suffix_nan(&self) -> &[f64];
}

impl StripNan for Vec<f64> {
    fn strip_suffix_nan(&self) -> &[f64] {
        match self.split_last() {
            Some((last, before)) if last.is_nan() => before,
            _ => self,
        }
    }
}

/// Leaves are nodes too, each with one entry.
fn append_leaves(nodes: &mut Nodes, leaves: usize) {
    let count = nodes.kinds.len() + leaves;
    nodes.kinds.resize(count, Kind::Leaf);
    nodes.features.resize(count, 0);
    nodes.thresholds.resize(count, 0.0);
    nodes.tracks.resize(count, false);
    nodes.yes.resize(count, 0);
    nodes.no.resize(count, 0);
    let entry = |leaf: usize| u32::try_from(leaf).unwrap_or_default();
    nodes.entries_of.extend((0..leaves).map(|leaf| (entry(leaf), entry(leaf + 1))));
}
