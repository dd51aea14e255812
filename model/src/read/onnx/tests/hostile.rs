//! Files that are cut, damaged or made to harm: each is an error or a model, never a panic, a hang or a heap of memory.

use proptest::prelude::*;
use prost::Message;

use super::{File, Node, assert_refused, bytes_of, floats, node};
use crate::read::damage::{damaged, damages, judge};
use crate::read::onnx::proto::{self, TensorProto};
use crate::read::onnx::{is_onnx, read};

const GOLDEN: [&[u8]; 4] = [
    include_bytes!("../../../../tests/data/onnx/sklearn_forest_two.onnx"),
    include_bytes!("../../../../tests/data/onnx/tree_ensemble.onnx"),
    include_bytes!("../../../../tests/data/onnx/sklearn_calibrated.onnx"),
    include_bytes!("../../../../tests/data/onnx/torch_batch_normalization.onnx"),
];

proptest! {
    /// Whatever is done to a file, the reader gives an error or a form that can be judged.
    #[test]
    fn damaged_files_are_errors_or_models(file in 0..GOLDEN.len(), damages in damages()) {
        judge(read(&damaged(GOLDEN[file], &damages), None))?;
    }

    /// As above, with numbers that mean something to protobuf in the place of bytes.
    #[test]
    fn damaged_numbers_are_errors_or_models(
        file in 0..GOLDEN.len(),
        places in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&[0_u8, 1, 2, 7, 10, 127, 128, 255][..])), 1..4),
    ) {
        let mut bytes = GOLDEN[file].to_vec();
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        judge(read(&bytes, None))?;
    }
}

/// Each beginning of a file is an error, or what the whole is: the version of an operator set that is not used may be gone.
#[test]
fn cut_files_are_errors() {
    for file in GOLDEN {
        assert!(is_onnx(file));
        let whole = read(file, None).expect("it is whole");
        for end in 0..file.len() {
            assert!(read(&file[..end], None).map_or_else(|_| true, |form| form == whole), "cut at {end}");
        }
    }
}

/// An ONNX file is told by its version, or by its fields, in whichever order; other files are none.
#[test]
fn other_files_are_no_models() {
    let file = File::new(2).node(node("Relu", "X", "Y")).output("Y").bytes();
    let turned = [&file[2..], &file[..2]].concat();
    assert!(is_onnx(&file) && is_onnx(&turned) && is_onnx(&file[..9]));
    assert_eq!(read(&turned, None), read(&file, None));
    for other in [
        &b""[..],
        b"tree\nversion=v4\n",
        b"{\"learner\": {}}",
        b"CBM1",
        b"\x80\x04\x95",
        b"PK\x03\x04",
        b"\x08",
        b"hello",
    ] {
        assert!(!is_onnx(other), "{other:?}");
    }
}

/// A graph that goes round in circles, reads what is not there, or says things twice.
#[test]
fn graphs_that_contradict_themselves() {
    let file = |nodes: &[Node]| nodes.iter().cloned().fold(File::new(2), File::node).output("Y");
    file(&[node("Relu", "B", "A"), node("Relu", "A", "B"), node("Relu", "A", "Y")])
        .assert_refused(&["(Relu)", "cycle"]);
    file(&[node("Relu", "Y", "Y")]).assert_refused(&["node 0 (Relu)", "cycle"]);
    file(&[node("Relu", "gone", "Y")]).assert_refused(&["node 0 (Relu) reads \"gone\""]);
    file(&[node("Relu", "X", "Y"), node("Tanh", "X", "Y")]).assert_refused(&["node 1 (Tanh)", "\"Y\"", "already"]);
    file(&[node("Relu", "X", "X")]).assert_refused(&["\"X\" is there twice"]);
    file(&[node("Relu", "", "Y")]).assert_refused(&["node 0 (Relu) has no input 0"]);
    file(&[node("Relu", "- X", "Y")]).assert_refused(&["node 0 (Relu)"]);
    file(&[node("Relu", "X X", "Y")]).assert_refused(&["2 inputs, of 1 at most"]);
    file(&[node("Relu", "X", "Y Z")]).assert_refused(&["2 outputs"]);
    file(&[node("Relu", "X", "Y").float("alpha", 1.0)]).assert_refused(&["attribute \"alpha\""]);
    let twice =
        File::new(2).floats("W", &[1], &[1.0]).floats("W", &[1], &[2.0]).node(node("Add", "X W", "Y")).output("Y");
    twice.assert_refused(&["initializer \"W\" is there twice"]);
    // Nodes may come in any order.
    file(&[node("Relu", "A", "Y"), node("Tanh", "X", "A")]).form();
}

/// A chain of as many nodes as a file may have needs no stack, and many steps are refused.
#[test]
fn long_chains() {
    let chain = |count: usize, operator: &str| {
        let mut file = File::new(2).output("Y");
        for index in 0..count {
            let from = if index == 0 { "X".to_owned() } else { format!("v{index}") };
            let to = if index + 1 == count { "Y".to_owned() } else { format!("v{}", index + 1) };
            file = file.node(node(operator, &from, &to));
        }
        file
    };
    assert_eq!(chain(70_000, "Identity").form().steps.len(), 0);
    let form = chain(2000, "Relu").read().expect("the reader has no limit of its own");
    assert!(form.check().is_err_and(|error| error.0.contains("2000 steps")));
    // Two columns of a long chain: the choice of one stops somewhere on its way up.
    let mut two = chain(900, "Relu");
    two.outputs = vec![("Z".to_owned(), Some(super::element::FLOAT))];
    let two = two.node(node("Softmax", "Y", "S")).node(node("Neg", "S", "Z")).label("L");
    assert_eq!(two.form().score, two.form().steps.len());
}

/// Constants that many nodes use do not make a small file a large program.
#[test]
fn one_constant_for_many_nodes() {
    let mut file = File::new(512).floats("W", &[512, 512], &vec![1.0; 512 * 512]).output("Y");
    for index in 0..60 {
        let from = if index == 0 { "X".to_owned() } else { format!("v{index}") };
        file = file.node(node("MatMul", &format!("{from} W"), &format!("v{}", index + 1)));
    }
    file.node(node("Relu", "v60", "Y")).assert_refused(&["outgrows its file"]);
}

/// Empty fields take two bytes of a file and must not take a hundred of memory.
#[test]
fn empty_fields_are_counted() {
    let many = |tag: u8| [tag, 0].repeat(200_000);
    let graph = |bytes: Vec<u8>| {
        proto::Model { ir_version: 8, graph: vec![bytes.into()], opset_import: vec![] }.encode_to_vec()
    };
    // Nodes, initializers, inputs, outputs.
    for tag in [0x0a, 0x2a, 0x5a, 0x62] {
        assert_refused(&graph(many(tag)), &["the graph has 200000 fields"]);
    }
    let message = |bytes: Vec<u8>, tag: u8| graph([&[tag], varint(bytes.len()).as_slice(), &bytes].concat());
    // Inputs and attributes of a node.
    for tag in [0x0a, 0x2a] {
        assert_refused(&message(many(tag), 0x0a), &["node 0 has 200000 fields"]);
    }
    let attribute =
        proto::Attribute { name: "value_strings".to_owned(), ..proto::Attribute::default() }.encode_to_vec();
    let attribute = [attribute, many(0x4a)].concat();
    let constant = proto::Node {
        op_type: "Constant".to_owned(),
        output: vec!["Y".to_owned()],
        attribute: vec![attribute.into()],
        ..Default::default()
    };
    let mut file = File::new(1).output("Y");
    file.nodes.clear();
    let with_node = proto::Model::decode(file.bytes().as_slice()).expect("a model");
    let mut inner = proto::Graph::decode(with_node.graph[0].clone()).expect("a graph");
    inner.node.push(bytes_of(&constant));
    let model = proto::Model { graph: vec![bytes_of(&inner)], ..with_node };
    assert_refused(&model.encode_to_vec(), &["attribute of node 0", "200001 fields"]);
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push((number % 128) as u8 | 128);
        number /= 128;
    }
    bytes.push(number as u8);
    bytes
}

/// Messages in messages are not followed down.
#[test]
fn nesting_is_not_followed() {
    let mut deep = vec![0x0a, 0];
    for _ in 0..2000 {
        deep = [&[0x32], varint(deep.len()).as_slice(), &deep].concat();
    }
    let attribute =
        proto::Attribute { name: "then_branch".to_owned(), kind: 5, ..proto::Attribute::default() }.encode_to_vec();
    let attribute = [attribute, deep].concat();
    let branch = proto::Node {
        op_type: "If".to_owned(),
        input: vec!["X".to_owned()],
        output: vec!["Y".to_owned()],
        attribute: vec![attribute.into()],
        ..Default::default()
    };
    let model = proto::Model::decode(File::new(1).output("Y").bytes().as_slice()).expect("a model");
    let mut graph = proto::Graph::decode(model.graph[0].clone()).expect("a graph");
    graph.node.push(bytes_of(&branch));
    let model = proto::Model { graph: vec![bytes_of(&graph)], ..model };
    assert_refused(&model.encode_to_vec(), &["node 0 (If)"]);
}

/// What is not in the file, or in no known form, is refused by name.
#[test]
fn data_that_is_elsewhere() {
    let with = |tensor: TensorProto| {
        let mut file = File::new(2).node(node("Add", "X W", "Y")).output("Y");
        file.initializers.push(TensorProto { name: "W".to_owned(), ..tensor });
        file
    };
    let good = floats(&[2], &[1.0, 2.0]);
    with(good.clone()).form();
    with(TensorProto { data_location: 1, ..good.clone() }).assert_refused(&["\"W\", whose data is in another file"]);
    with(TensorProto { dims: vec![1 << 62, 4], ..good.clone() }).assert_refused(&["\"W\" has 2 numbers"]);
    with(TensorProto { data_type: 16, ..good.clone() }).assert_refused(&["\"W\" of bfloat16"]);
    with(TensorProto { data_type: 99, ..good.clone() }).assert_refused(&["\"W\" of type 99"]);
    with(TensorProto { raw_data: Some(vec![1, 2, 3].into()), ..good }).assert_refused(&["\"W\" has 3 raw bytes"]);
    let two = proto::Model { ir_version: 8, graph: vec![], opset_import: vec![] }.encode_to_vec();
    assert_refused(&two, &["0 graphs"]);
}

/// What doubles, copies or makes trees out of columns is counted, node by node.
#[test]
fn what_grows_is_counted() {
    let mut doubled = File::new(2).node(node("Shape", "X", "s0"));
    for index in 0..40 {
        let concat = node("Concat", &format!("s{index} s{index}"), &format!("s{}", index + 1)).integer("axis", 0);
        doubled = doubled.node(concat);
    }
    doubled.node(node("Reshape", "X s40", "Y")).output("Y").assert_refused(&["shape of 128 dimensions"]);
    let mut asked = File::new(4096).output("Y");
    for index in 0..200 {
        let from = if index == 0 { "X".to_owned() } else { format!("v{index}") };
        asked = asked.node(node("Cast", &from, &format!("b{index}")).integer("to", 9));
        asked = asked.node(node("Cast", &format!("b{index}"), &format!("v{}", index + 1)).integer("to", 1));
    }
    asked.node(node("Relu", "v200", "Y")).assert_refused(&["(Cast)", "outgrows its file"]);
    // Each tree is of ten nodes with two paths to the next, and has a thousand paths.
    let listed: Vec<i64> = (0..11).collect();
    let next: Vec<i64> = (1..12).collect();
    let modes: Vec<&str> = (0..11).map(|node| if node == 10 { "LEAF" } else { "BRANCH_LT" }).collect();
    let tree = node("ml.TreeEnsembleRegressor", "X", "-").integer("n_targets", 1).integers("nodes_treeids", &[0; 11]);
    let tree =
        tree.integers("nodes_nodeids", &listed).texts("nodes_modes", &modes).integers("nodes_featureids", &[0; 11]);
    let tree = tree
        .floats("nodes_values", &[0.5; 11])
        .integers("nodes_truenodeids", &next)
        .integers("nodes_falsenodeids", &next);
    let tree = tree.integers("target_treeids", &[0]).integers("target_nodeids", &[10]).integers("target_ids", &[0]);
    let tree = tree.floats("target_weights", &[1.0]);
    let mut many = File::new(1).output("Y");
    let names: Vec<String> = (0..500).map(|index| format!("t{index}")).collect();
    for name in &names {
        many = many.node(super::Node { outputs: vec![name.clone()], ..tree.clone() });
    }
    many.node(node("Sum", &names.join(" "), "Y")).assert_refused(&["TreeEnsembleRegressor", "outgrows its file"]);
}
