//! Tree ensembles: what onnxruntime does where the specification says little.

use super::{File, INFINITY, NAN, Node, assert_near, doubles, floats, node};
use crate::read::onnx::tests::assert_refused;

/// A node of `TreeEnsembleRegressor`: tree, node, mode, feature, threshold, true and false child, whether NaN is true.
type Listed = (i64, i64, &'static str, i64, f32, i64, i64, bool);

const LEAF: &str = "LEAF";

/// `X[0] <op> threshold`, with leaves 1 and 2.
fn stump(mode: &'static str, threshold: f32, missing: bool) -> Vec<Listed> {
    vec![
        (0, 0, mode, 0, threshold, 1, 2, missing),
        (0, 1, LEAF, 0, 0.0, 0, 0, false),
        (0, 2, LEAF, 0, 0.0, 0, 0, false),
    ]
}

/// Nodes; and tree, node, target and weight of what leaves add.
fn with_lists(node: Node, nodes: &[Listed], leaves: &str, entries: &[(i64, i64, i64, f32)]) -> Node {
    let node = node
        .integers("nodes_treeids", &nodes.iter().map(|node| node.0).collect::<Vec<_>>())
        .integers("nodes_nodeids", &nodes.iter().map(|node| node.1).collect::<Vec<_>>())
        .texts("nodes_modes", &nodes.iter().map(|node| node.2).collect::<Vec<_>>())
        .integers("nodes_featureids", &nodes.iter().map(|node| node.3).collect::<Vec<_>>())
        .floats("nodes_values", &nodes.iter().map(|node| node.4).collect::<Vec<_>>())
        .integers("nodes_truenodeids", &nodes.iter().map(|node| node.5).collect::<Vec<_>>())
        .integers("nodes_falsenodeids", &nodes.iter().map(|node| node.6).collect::<Vec<_>>());
    let tracks: Vec<i64> = nodes.iter().map(|node| i64::from(node.7)).collect();
    node.integers("nodes_missing_value_tracks_true", &tracks)
        .integers(&format!("{leaves}_treeids"), &entries.iter().map(|entry| entry.0).collect::<Vec<_>>())
        .integers(&format!("{leaves}_nodeids"), &entries.iter().map(|entry| entry.1).collect::<Vec<_>>())
        .integers(&format!("{leaves}_ids"), &entries.iter().map(|entry| entry.2).collect::<Vec<_>>())
        .floats(&format!("{leaves}_weights"), &entries.iter().map(|entry| entry.3).collect::<Vec<_>>())
}

fn regressor(nodes: &[Listed], entries: &[(i64, i64, i64, f32)]) -> Node {
    with_lists(node("ml.TreeEnsembleRegressor", "X", "Y").integer("n_targets", 1), nodes, "target", entries)
}

fn classifier(nodes: &[Listed], entries: &[(i64, i64, i64, f32)], classes: i64) -> Node {
    let labels: Vec<i64> = (0..classes).collect();
    let node = node("ml.TreeEnsembleClassifier", "X", "L Y").integers("classlabels_int64s", &labels);
    with_lists(node, nodes, "class", entries)
}

fn file(node: Node) -> File {
    File::new(2).node(node).output("Y")
}

/// Which side values of the first feature go: `t` or `f`.
#[track_caller]
fn assert_sides(nodes: &[Listed], sides: &[(f32, char)]) {
    let rows: Vec<[f32; 2]> = sides.iter().map(|(value, _)| [*value, 9.0]).collect();
    let found = file(regressor(nodes, &[(0, 1, 0, 1.0), (0, 2, 0, 2.0)])).scores(&rows);
    for ((value, side), score) in sides.iter().zip(found) {
        assert_eq!(score, if *side == 't' { 1.0 } else { 2.0 }, "{value} goes {side}");
    }
}

/// Each mode decides as its name says on the threshold, beside it, and at both zeros; NaN is false, but not equal.
#[test]
fn modes_decide_as_they_are_called() {
    let (below, above) = (0.5_f32.next_down(), 0.5_f32.next_up());
    for (mode, sides) in [
        ("BRANCH_LEQ", "ttf"),
        ("BRANCH_LT", "tff"),
        ("BRANCH_GTE", "ftt"),
        ("BRANCH_GT", "fft"),
        ("BRANCH_EQ", "ftf"),
        ("BRANCH_NEQ", "tft"),
    ] {
        let of_nan = if mode == "BRANCH_NEQ" { 't' } else { 'f' };
        let sides: Vec<char> = sides.chars().collect();
        let values = [(below, sides[0]), (0.5, sides[1]), (above, sides[2])];
        assert_sides(&stump(mode, 0.5, false), &[&values[..], &[(NAN, of_nan)]].concat());
        let zeros = [(-0.0, sides[1]), (0.0, sides[1]), (-1e-45, sides[0]), (1e-45, sides[2])];
        assert_sides(&stump(mode, 0.0, false), &zeros);
        assert_sides(&stump(mode, -0.0, false), &zeros);
        assert_sides(&stump(mode, INFINITY, false), &[(INFINITY, sides[1]), (f32::MAX, sides[0])]);
        assert_sides(&stump(mode, -INFINITY, false), &[(-INFINITY, sides[1]), (f32::MIN, sides[2])]);
    }
}

/// `missing_value_tracks_true` is an alternative to the comparison, and no answer to anything but NaN.
#[test]
fn missing_values_go_where_they_are_tracked() {
    for mode in ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"] {
        assert_sides(&stump(mode, 0.5, true), &[(NAN, 't')]);
    }
    assert_sides(&stump("BRANCH_GT", 0.5, true), &[(0.5, 'f'), (0.6, 't')]);
    let without = regressor(&stump("BRANCH_GT", 0.5, true), &[(0, 1, 0, 1.0), (0, 2, 0, 2.0)]);
    let file = file(without.without("nodes_missing_value_tracks_true"));
    assert_eq!(file.scores(&[[NAN, 0.0], [0.6, 0.0]]), [2.0, 1.0]);
}

/// The first node listed of a tree is its root, whatever its id; nodes and trees may come in any order and with any ids.
#[test]
fn the_first_node_listed_is_the_root() {
    let nodes = [
        (9, 7, "BRANCH_LEQ", 0, 0.5, 3, 90, false),
        (9, 90, LEAF, 0, 0.0, 0, 0, false),
        (9, 3, "BRANCH_LEQ", 1, 0.5, 4, 5, false),
        (9, 5, LEAF, 0, 0.0, 0, 0, false),
        (9, 4, LEAF, 0, 0.0, 0, 0, false),
        (2, 0, LEAF, 0, 0.0, 0, 0, false),
    ];
    let entries = [(2, 0, 0, 100.0), (9, 4, 0, 1.0), (9, 5, 0, 2.0), (9, 90, 0, 4.0)];
    assert_eq!(file(regressor(&nodes, &entries)).scores(&[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), [101.0, 102.0, 104.0]);
}

/// Nodes that the root does not lead to are left out, as are weights of nodes that are no leaves.
#[test]
fn what_is_not_reached_adds_nothing() {
    let mut nodes = stump("BRANCH_LEQ", 0.5, false);
    nodes.push((0, 3, LEAF, 0, 0.0, 0, 0, false));
    let entries = [(0, 0, 0, 50.0), (0, 1, 0, 1.0), (0, 2, 0, 2.0), (0, 3, 0, 70.0)];
    assert_eq!(file(regressor(&nodes, &entries)).scores(&[[0.0, 0.0], [1.0, 0.0]]), [1.0, 2.0]);
}

/// Sums are of f32, in the order of the trees, from 0; the base value comes last.
#[test]
fn sums_are_rounded_in_order_and_the_base_value_comes_last() {
    let leaf = |tree| (tree, 0, LEAF, 0, 0.0, 0, 0, false);
    let nodes: Vec<Listed> = (0..4).map(leaf).collect();
    let weights = [16_777_216.0, 1.0, 1.0, -16_777_216.0];
    let entries: Vec<_> = (0..4).zip(weights).map(|(tree, weight)| (tree, 0, 0, weight)).collect();
    let model = regressor(&nodes, &entries);
    assert_eq!(file(model.clone()).scores(&[[0.0, 0.0]]), [0.0]);
    assert_eq!(file(model.clone().floats("base_values", &[0.5])).scores(&[[0.0, 0.0]]), [0.5]);
    let as_doubles =
        model.without("target_weights").tensor("target_weights_as_tensor", &doubles(&weights.map(f64::from)));
    assert_eq!(file(as_doubles).scores(&[[0.0, 0.0]]), [2.0]);
}

/// An average divides by the number of trees before the base value is added.
#[test]
fn an_average_is_of_all_trees() {
    let mut nodes = stump("BRANCH_LEQ", 0.5, false);
    nodes.push((1, 0, LEAF, 0, 0.0, 0, 0, false));
    let model = regressor(&nodes, &[(0, 1, 0, 1.0), (0, 2, 0, 2.0), (1, 0, 0, 4.0)]);
    let average = model.text("aggregate_function", "AVERAGE").floats("base_values", &[10.0]);
    assert_eq!(file(average.clone()).scores(&[[0.0, 0.0], [1.0, 0.0]]), [12.5, 13.0]);
    for name in ["MIN", "MAX"] {
        file(average.clone().text("aggregate_function", name)).assert_refused(&["node 0", name, "SUM and AVERAGE"]);
    }
}

/// Thresholds that are doubles decide in f64, whatever the nearest f32 is.
#[test]
fn thresholds_in_double_decide_in_double() {
    let nodes = stump("BRANCH_LEQ", 0.0, false);
    let model = regressor(&nodes, &[(0, 1, 0, 1.0), (0, 2, 0, 2.0)]).without("nodes_values");
    let below = file(model.clone().tensor("nodes_values_as_tensor", &doubles(&[0.1, 0.0, 0.0])));
    assert_eq!(below.scores(&[[0.1, 0.0], [0.1_f32.next_down(), 0.0]]), [2.0, 1.0]);
    let beyond = file(model.tensor("nodes_values_as_tensor", &doubles(&[1e300, 0.0, 0.0])));
    assert_eq!(beyond.scores(&[[f32::MAX, 0.0], [INFINITY, 0.0]]), [1.0, 2.0]);
}

/// Of one target, onnxruntime applies PROBIT and nothing else; of several, all transforms.
#[test]
fn a_regression_of_one_target_ignores_all_transforms_but_one() {
    let nodes = stump("BRANCH_LEQ", 0.5, false);
    let one = regressor(&nodes, &[(0, 1, 0, 0.975), (0, 2, 0, -2.0)]);
    for name in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"] {
        let file = file(one.clone().text("post_transform", name));
        assert_eq!(file.scores(&[[0.0, 0.0], [1.0, 0.0]]), [0.975, -2.0], "{name}");
    }
    assert!((file(one.text("post_transform", "PROBIT")).scores(&[[0.0, 0.0]])[0] - 1.96).abs() < 0.005);
    let entries = [(0, 1, 0, 1.0), (0, 1, 1, 3.0), (0, 2, 0, -1.0), (0, 2, 1, 0.0)];
    let two = regressor(&nodes, &entries).integer("n_targets", 2);
    let logistic = file(two.clone().text("post_transform", "LOGISTIC"));
    assert_near(&logistic.scores(&[[0.0, 0.0]]), &[0.731_058_58, 0.952_574_13]);
    assert_eq!(logistic.margins(&[[0.0, 0.0]]), [1.0, 3.0]);
    let zero = file(two.text("post_transform", "SOFTMAX_ZERO"));
    assert_near(&zero.scores(&[[0.0, 0.0], [1.0, 0.0]]), &[0.119_202_92, 0.880_797_08, 1.0, 0.0]);
}

/// onnxruntime adds a base value to those targets alone that a leaf has added to: where that depends on the row, the file is
/// refused.
#[test]
fn base_values_of_targets_without_weights_are_refused() {
    let nodes = stump("BRANCH_LEQ", 0.5, false);
    let model = regressor(&nodes, &[(0, 1, 0, 1.0), (0, 2, 1, 2.0)]).integer("n_targets", 2);
    assert_eq!(file(model.clone()).scores(&[[0.0, 0.0], [1.0, 0.0]]), [1.0, 0.0, 0.0, 2.0]);
    file(model.floats("base_values", &[0.0, 0.5])).assert_refused(&["base value for target 1"]);
}

/// Of two classes with weights for class 0 alone, these stand for class 1: `[1 − s, s]` if none is negative, else `[−s, s]`.
#[test]
fn weights_for_one_of_two_classes_are_those_of_the_second() {
    let nodes = stump("BRANCH_LEQ", 0.5, false);
    let of = |low, high, post: &str| {
        let model = classifier(&nodes, &[(0, 1, 0, low), (0, 2, 0, high)], 2).text("post_transform", post);
        File::new(2).node(model).label("L").output("Y")
    };
    let rows = [[0.0, 0.0], [1.0, 0.0]];
    assert_eq!(of(0.25, 0.75, "NONE").scores(&rows), [0.25, 0.75]);
    assert_eq!(of(0.25, 0.75, "LOGISTIC").scores(&rows), [0.25, 0.75]);
    assert_eq!(of(-1.0, 3.0, "NONE").scores(&rows), [-1.0, 3.0]);
    assert_eq!(of(-1.0, 3.0, "SOFTMAX").scores(&rows), [-1.0, 3.0]);
    let logistic = of(-1.0, 3.0, "LOGISTIC");
    assert_near(&logistic.scores(&rows), &[0.268_941_42, 0.952_574_13]);
    assert_eq!(logistic.margins(&rows), [-1.0, 3.0]);
    assert_eq!((logistic.form().output_names, logistic.form().steps.len()), (vec!["1".to_owned()], 2));
    of(0.25, 0.75, "PROBIT").assert_refused(&["PROBIT"]);
    // What comes after sees both columns.
    let model = classifier(&nodes, &[(0, 1, 0, 0.25), (0, 2, 0, 0.75)], 2);
    let summed =
        File::new(2).node(model).integers("axis", &[1], &[1]).node(node("ReduceSum", "Y axis", "Z")).output("Z");
    assert_eq!(summed.scores(&rows), [1.0, 1.0]);
}

/// The base value of two classes is added where onnxruntime adds it, and refused where it leaves something out.
#[test]
fn base_values_of_two_classes() {
    let nodes = stump("BRANCH_LEQ", 0.5, false);
    let rows = [[0.0, 0.0], [1.0, 0.0]];
    let first = classifier(&nodes, &[(0, 1, 0, -1.0), (0, 2, 0, 3.0)], 2);
    assert_eq!(file(first.clone().floats("base_values", &[0.5])).scores(&rows), [-0.5, 3.5]);
    file(first.floats("base_values", &[0.5, 0.5])).assert_refused(&["2 base values for 2 classes"]);
    let second = classifier(&nodes, &[(0, 1, 1, -1.0), (0, 2, 1, 3.0)], 2);
    assert_eq!(file(second.clone()).scores(&rows), [-1.0, 3.0]);
    assert_near(&file(second.clone().text("post_transform", "SOFTMAX")).scores(&rows), &[0.268_941_42, 0.952_574_13]);
    assert_eq!(file(second.clone().floats("base_values", &[0.0])).scores(&rows), [-1.0, 3.0]);
    file(second.floats("base_values", &[0.5])).assert_refused(&["1 base values for 2 classes"]);
    let entries = [(0, 1, 0, 0.25), (0, 1, 1, 0.75), (0, 2, 0, 0.5), (0, 2, 1, 0.5)];
    let both = classifier(&nodes, &entries, 2).text("post_transform", "SOFTMAX");
    assert_near(&file(both.floats("base_values", &[0.5])).scores(&rows), &[0.5, 0.377_540_67]);
    let sparse = classifier(&nodes, &[(0, 1, 0, 0.25), (0, 2, 1, 0.5)], 2);
    file(sparse).assert_refused(&["no weight for class 1"]);
}

/// Of several classes, each has its base value, whether a leaf adds to it or not.
#[test]
fn several_classes_have_a_score_each() {
    let nodes = stump("BRANCH_LEQ", 0.5, false);
    let model = classifier(&nodes, &[(0, 1, 0, 1.0), (0, 2, 2, 2.0)], 3);
    let strings = model.clone().without("classlabels_int64s").texts("classlabels_strings", &["a", "b", "c"]);
    let named = File::new(2).node(strings.floats("base_values", &[0.5, 0.25, 0.125])).label("L").output("Y");
    assert_eq!(named.form().output_names, ["a", "b", "c"]);
    assert_eq!(named.scores(&[[0.0, 0.0], [1.0, 0.0]]), [1.5, 0.25, 0.125, 0.5, 0.25, 2.125]);
    file(model.clone().floats("base_values", &[0.5])).assert_refused(&["1 base values for 3 classes"]);
    let softmax = file(model.text("post_transform", "SOFTMAX"));
    assert_near(&softmax.scores(&[[0.0, 0.0]]), &[0.576_116_87, 0.211_941_56, 0.211_941_56]);
    assert_eq!(softmax.margins(&[[0.0, 0.0]]), [1.0, 0.0, 0.0]);
}

/// A `ZipMap` is seen through, and names the classes.
#[test]
fn maps_are_their_scores() {
    let model = classifier(&stump("BRANCH_LEQ", 0.5, false), &[(0, 1, 0, 1.0), (0, 2, 2, 2.0)], 3);
    let map = node("ml.ZipMap", "Y", "M").texts("classlabels_strings", &["x", "y", "z"]);
    let file = File::new(2).node(model).node(map).label("L").maps("M");
    assert_eq!(file.form().output_names, ["x", "y", "z"]);
    assert_eq!(file.scores(&[[1.0, 0.0]]), [0.0, 0.0, 2.0]);
}

/// A chain of equalities whose true branches meet, as LightGBM's converter writes categories, is one test.
#[test]
fn a_chain_of_equalities_is_a_set() {
    let equal = |id, value, no| (0, id, "BRANCH_EQ", 0, value, 9, no, false);
    let mut nodes = vec![equal(0, 1.0, 1), equal(1, 2.0, 2), equal(2, 7.0, 3)];
    nodes.extend([(0, 3, LEAF, 0, 0.0, 0, 0, false), (0, 9, LEAF, 0, 0.0, 0, 0, false)]);
    let file = file(regressor(&nodes, &[(0, 9, 0, 1.0), (0, 3, 0, 2.0)]));
    let rows = [1.0, 2.0, 7.0, 3.0, 1.5, NAN, INFINITY].map(|value| [value, 0.0]);
    assert_eq!(file.scores(&rows), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
    let crate::form::Step::Trees { ensemble, .. } = &file.form().steps[0] else { panic!("trees") };
    assert_eq!(ensemble.trees[0].splits.len(), 1);
}

/// Nodes that others share otherwise are copied, but not without end; a cycle is an error.
#[test]
fn shared_nodes_are_copied_and_cycles_refused() {
    let mut nodes = stump("BRANCH_LEQ", 0.5, false);
    nodes.insert(0, (0, 3, "BRANCH_LEQ", 1, 0.5, 0, 1, false));
    let entries = [(0, 1, 0, 1.0), (0, 2, 0, 2.0)];
    assert_eq!(file(regressor(&nodes, &entries)).scores(&[[1.0, 0.0], [1.0, 1.0]]), [2.0, 1.0]);
    nodes[2] = (0, 1, "BRANCH_LT", 1, 0.5, 2, 3, false);
    file(regressor(&nodes, &[(0, 2, 0, 2.0)])).assert_refused(&["node 0", "cycle through node 3 of tree 0"]);
    // Each node has the next one as both children: 2³⁰ paths.
    let next = |id| (0, id, "BRANCH_LEQ", 0, id as f32, id + 1, id + 1, false);
    let mut deep: Vec<Listed> = (0..30).map(next).collect();
    deep.push((0, 30, LEAF, 0, 0.0, 0, 0, false));
    file(regressor(&deep, &[(0, 30, 0, 1.0)])).assert_refused(&["that many others share", "of tree 0"]);
}

/// What is wrong is named: the node of the graph, the list, the tree and the node.
#[test]
fn what_is_wrong_in_a_tree_is_named() {
    let entries = [(0, 1, 0, 1.0), (0, 2, 0, 2.0)];
    let with = |change: &dyn Fn(Node) -> Node| file(change(regressor(&stump("BRANCH_LEQ", 0.5, false), &entries)));
    for (list, words) in [
        ("nodes_nodeids", &["2 nodes_nodeids for 3 nodes"][..]),
        ("nodes_featureids", &["2 nodes_featureids for 3 nodes"]),
        ("nodes_truenodeids", &["2 nodes_truenodeids"]),
        ("nodes_falsenodeids", &["2 nodes_falsenodeids"]),
        ("nodes_missing_value_tracks_true", &["2 nodes_missing_value_tracks_true"]),
    ] {
        with(&|node| node.integers(list, &[0, 0])).assert_refused(&[&["node 0"], words].concat().as_slice()[..2]);
    }
    with(&|node| node.integers("target_ids", &[0])).assert_refused(&["[1, 2, 2, 2] target_ids"]);
    with(&|node| node.integers("nodes_featureids", &[7, 0, 0])).assert_refused(&["feature 7 of 2 in node 0 of tree 0"]);
    with(&|node| node.integers("nodes_featureids", &[-1, 0, 0])).assert_refused(&["feature -1"]);
    with(&|node| node.integers("nodes_featureids", &[0, -9, 1 << 40])).form();
    with(&|node| node.integers("nodes_truenodeids", &[8, 0, 0]))
        .assert_refused(&["node 8 of tree 0, which is not there"]);
    with(&|node| node.integers("nodes_falsenodeids", &[0, 0, 0])).assert_refused(&["cycle through node 0 of tree 0"]);
    with(&|node| node.integers("nodes_nodeids", &[0, 1, 1])).assert_refused(&["node 1 of tree 0 twice"]);
    with(&|node| node.integers("nodes_treeids", &[0, 1, 0])).assert_refused(&["tree 0 in two places"]);
    with(&|node| node.floats("nodes_values", &[NAN, 0.0, 0.0])).assert_refused(&["NaN in node 0 of tree 0"]);
    with(&|node| node.texts("nodes_modes", &["BRANCH_XOR", LEAF, LEAF])).assert_refused(&["BRANCH_XOR"]);
    with(&|node| node.integers("target_ids", &[0, 1])).assert_refused(&["target 1 of 1"]);
    with(&|node| node.integers("target_nodeids", &[1, 9])).assert_refused(&["weight for node 9 of tree 0"]);
    with(&|node| node.integers("target_nodeids", &[1, 1])).assert_refused(&["two weights for target 0 in node 1"]);
    with(&|node| node.integer("n_targets", 1_000_000_000)).assert_refused(&["1000000000 targets"]);
    with(&|node| node.integer("n_targets", 0)).assert_refused(&["0 targets"]);
    with(&|node| node.text("post_transform", "CAUCHIT")).assert_refused(&["CAUCHIT"]);
    with(&|node| node.floats("base_values", &[1.0, 2.0])).assert_refused(&["2 base values for 1 targets"]);
    with(&|node| node.floats("own", &[1.0])).assert_refused(&["attribute \"own\""]);
    with(&|node| node.integer("nodes_values", 3)).assert_refused(&["nodes_values that is no list of floats"]);
    let both = floats(&[3], &[0.5; 3]);
    with(&|node| node.tensor("nodes_values_as_tensor", &both)).assert_refused(&["both nodes_values"]);
    let bare = [(0, 0, LEAF, 0, 5.0, 0, 0, false)];
    file(regressor(&bare, &[])).assert_refused(&["node 0 of tree 0, a leaf without a weight"]);
    assert_refused(&file(regressor(&[], &[])).bytes(), &["has no tree"]);
}

/// More levels than a walk may take are refused, and need no stack.
#[test]
fn a_tree_of_many_levels_is_refused() {
    let count = 100_000;
    let mut nodes: Vec<Listed> = (0..count).map(|id| (0, id, "BRANCH_LEQ", 0, 0.5, id + 1, count + 1, false)).collect();
    nodes.extend([(0, count, LEAF, 0, 0.0, 0, 0, false), (0, count + 1, LEAF, 0, 0.0, 0, 0, false)]);
    file(regressor(&nodes, &[(0, count, 0, 1.0)])).assert_refused(&["4096 levels"]);
}

/// `TreeEnsemble` of version 5.
fn ensemble() -> Node {
    let modes = crate::read::onnx::proto::TensorProto {
        dims: vec![2],
        data_type: crate::read::onnx::tensor::element::UINT8,
        raw_data: Some(vec![6, 3].into()),
        ..Default::default()
    };
    node("ml.TreeEnsemble", "X", "Y")
        .integer("n_targets", 2)
        .integers("nodes_featureids", &[0, 1])
        .tensor("nodes_splits", &floats(&[2], &[0.0, 0.5]))
        .tensor("nodes_modes", &modes)
        .integers("nodes_truenodeids", &[1, 0])
        .integers("nodes_trueleafs", &[0, 1])
        .integers("nodes_falsenodeids", &[2, 1])
        .integers("nodes_falseleafs", &[1, 1])
        .tensor("membership_values", &floats(&[3], &[1.0, 4.0, NAN]))
        .integers("leaf_targetids", &[0, 1, 0])
        .tensor("leaf_weights", &floats(&[3], &[1.0, 2.0, 4.0]))
        .integers("tree_roots", &[0, 0, 1])
}

/// Members, leaves of their own list, roots that two trees share; transforms are numbered as in the specification.
#[test]
fn numbered_nodes_and_leaves() {
    let rows = [[1.0, 1.0], [4.0, 0.0], [2.0, 1.0], [NAN, 1.0]];
    let sums = [3.0, 0.0, 0.0, 6.0, 9.0, 0.0, 9.0, 0.0];
    assert_eq!(file(ensemble()).scores(&rows), sums);
    let unended = ensemble().tensor("membership_values", &floats(&[2], &[1.0, 4.0]));
    assert_eq!(file(unended).scores(&rows), sums);
    let tracked = ensemble().integers("nodes_missing_value_tracks_true", &[1, 0]);
    assert_eq!(file(tracked).scores(&rows)[6..], [3.0, 0.0]);
    let average = ensemble().integer("aggregate_function", 0);
    assert_near(&file(average).scores(&rows[..1]), &[1.0, 0.0]);
    let softmax = file(ensemble().integer("post_transform", 1));
    assert_near(&softmax.scores(&rows[..1]), &[0.952_574_13, 0.047_425_87]);
    let logistic = file(ensemble().integer("post_transform", 2));
    assert_near(&logistic.scores(&rows[..1]), &[0.952_574_13, 0.5]);
}

/// A tree of one leaf is a node with that leaf on both sides; and what does not fit together is named.
#[test]
fn numbered_nodes_that_do_not_fit() {
    let leaf = ensemble().integers("nodes_truenodeids", &[0, 0]).integers("nodes_trueleafs", &[1, 1]);
    let leaf = leaf.integers("nodes_falsenodeids", &[0, 1]).integers("tree_roots", &[0]);
    assert_eq!(file(leaf.clone()).scores(&[[9.0, 9.0]]), [1.0, 0.0]);
    let other = leaf.integers("nodes_truenodeids", &[2, 0]).integers("nodes_falsenodeids", &[2, 1]);
    file(other).assert_refused(&["node 0, a tree of leaf 2 alone"]);
    let refused = |node: Node, words: &[&str]| file(node).assert_refused(words);
    refused(ensemble().integers("tree_roots", &[2]), &["starts at node 2 of 2"]);
    refused(ensemble().integers("tree_roots", &[]), &["no tree"]);
    refused(ensemble().integers("nodes_truenodeids", &[0, 0]), &["cycle through node 0"]);
    refused(ensemble().integers("nodes_truenodeids", &[5, 0]), &["node 5 of 2"]);
    refused(ensemble().integers("nodes_falsenodeids", &[-1, 1]), &["leaf -1 of 3"]);
    refused(ensemble().integers("leaf_targetids", &[0, 1, 2]), &["target 2 of 2"]);
    refused(ensemble().tensor("membership_values", &floats(&[4], &[1.0, NAN, 4.0, NAN])), &["2 lists", "1 nodes"]);
    refused(ensemble().without("membership_values"), &["no membership_values"]);
    refused(ensemble().without("leaf_weights"), &["no leaf_weights"]);
    refused(ensemble().integer("post_transform", 5), &["post_transform 5"]);
    refused(ensemble().integer("aggregate_function", 2), &["aggregate_function 2"]);
    refused(ensemble().tensor("nodes_splits", &floats(&[2], &[0.0, NAN])), &["NaN in node 1"]);
    let one = ensemble().integer("n_targets", 1).integers("leaf_targetids", &[0, 0, 0]);
    assert_eq!(file(one.clone()).scores(&[[1.0, 1.0]]), [3.0]);
    refused(one.integer("post_transform", 2), &["post_transform 2 of one target"]);
}
