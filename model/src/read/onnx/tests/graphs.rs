//! Inputs, outputs and versions: how wide a row is, what is served, and what is said if that can't be known.

use super::{File, element, node};
use crate::form::limits::FEATURES_MAX;

const FLOAT: i32 = element::FLOAT;

/// The width is that of the input, or of the first operator that has one; or what the operator says; it is never a guess.
#[test]
fn the_width_is_known_or_told() {
    let unknown = || File::new(2).no_input().input("X", FLOAT, &[None, None]);
    let scaler = node("ml.Scaler", "X", "A").floats("offset", &[0.0; 3]).floats("scale", &[1.0; 3]);
    assert_eq!(unknown().node(scaler).node(node("Relu", "A", "Y")).output("Y").form().feature_dim, 3);
    let matrix = unknown().floats("W", &[4, 1], &[1.0; 4]).node(node("Identity", "X", "A"));
    assert_eq!(matrix.node(node("MatMul", "A W", "Y")).output("Y").form().feature_dim, 4);
    let relu = unknown().node(node("Relu", "X", "Y")).output("Y");
    relu.assert_refused(&["input \"X\" of unknown width", "--features N"]);
    let told = super::super::read(&relu.bytes(), Some(5)).expect("it is told");
    assert_eq!(told.feature_dim, 5);
    let tree = node("ml.TreeEnsembleRegressor", "X", "Y").integers("nodes_featureids", &[0, 16]);
    unknown().node(tree).output("Y").assert_refused(&["--features N", "17 of them"]);
    let known = File::new(2).node(node("Relu", "X", "Y")).output("Y");
    let error = super::super::read(&known.bytes(), Some(5)).expect_err("it is another width").to_string();
    assert!(error.contains("2 features, not 5"), "{error}");
    assert!(super::super::read(&known.bytes(), Some(2)).is_ok());
}

/// The batch may have any name, number or none; other shapes are not `[batch, features]`.
#[test]
fn shapes_of_inputs() {
    for batch in [None, Some(1), Some(64), Some(-1), Some(0)] {
        let file =
            File::new(2).no_input().input("X", FLOAT, &[batch, Some(3)]).node(node("Relu", "X", "Y")).output("Y");
        assert_eq!(file.form().feature_dim, 3);
    }
    let of = |element, dims: &[Option<i64>]| {
        File::new(2).no_input().input("X", element, dims).node(node("Relu", "X", "Y")).output("Y")
    };
    of(FLOAT, &[]).assert_refused(&["input \"X\" without dimensions"]);
    of(FLOAT, &[Some(3)]).assert_refused(&["input \"X\" of one dimension"]);
    of(FLOAT, &[None, None, Some(3)]).assert_refused(&["unknown dimensions"]);
    of(FLOAT, &[None, Some(1 << 40)]).assert_refused(&["input \"X\""]);
    of(FLOAT, &[None, Some(1 << 40), Some(1 << 40)]).assert_refused(&["input \"X\""]);
    of(element::INT64, &[None, Some(3)]).assert_refused(&["input \"X\" of int64", "FloatTensorType"]);
    of(element::STRING, &[None, Some(3)]).assert_refused(&["input \"X\" of string"]);
    let most = i64::try_from(FEATURES_MAX).expect("it is small");
    of(FLOAT, &[None, Some(most + 1)]).assert_refused(&["input \"X\"", "4096"]);
    assert_eq!(of(FLOAT, &[None, Some(most)]).form().feature_dim, FEATURES_MAX);
}

/// Several inputs are features one after the other, under their names; put together again, they are the row itself.
#[test]
fn several_inputs_are_columns() {
    let file = File::new(1).no_input().input("age", FLOAT, &[None, Some(1)]).input("size", FLOAT, &[None, Some(1)]);
    let both = file.clone().node(node("Concat", "age size", "Y").integer("axis", 1)).output("Y");
    assert_eq!((both.form().feature_names, both.form().steps.len()), (vec!["age".to_owned(), "size".to_owned()], 0));
    assert_eq!(both.scores(&[[1.0, 2.0]]), [1.0, 2.0]);
    let swapped = file.clone().node(node("Concat", "size age", "Y").integer("axis", 1)).output("Y");
    assert_eq!(swapped.scores(&[[1.0, 2.0]]), [2.0, 1.0]);
    let vector = node("ml.FeatureVectorizer", "age size", "Y").integers("inputdimensions", &[1, 1]);
    assert_eq!(file.clone().node(vector.clone()).output("Y").scores(&[[1.0, 2.0]]), [1.0, 2.0]);
    file.clone()
        .node(vector.integers("inputdimensions", &[1, 2]))
        .output("Y")
        .assert_refused(&["inputdimensions [1, 2]"]);
    let wide = File::new(3)
        .input("Z", FLOAT, &[None, Some(2)])
        .node(node("Concat", "Z X", "Y").integer("axis", 1))
        .output("Y");
    assert_eq!(wide.scores(&[[1.0, 2.0, 3.0, 8.0, 9.0]]), [8.0, 9.0, 1.0, 2.0, 3.0]);
    let open = File::new(3).input("Z", FLOAT, &[None, None]).node(node("Relu", "X", "Y")).output("Y");
    open.assert_refused(&["input \"Z\" of unknown width"]);
}

/// A label and scores are the scores; an index alone is itself; anything else is refused by name.
#[test]
fn what_is_served() {
    let index = File::new(3).node(node("ArgMax", "X", "Y").integer("axis", 1).integer("keepdims", 0)).label("Y");
    assert_eq!(index.scores(&[[1.0, 5.0, 2.0], [7.0, 7.0, 0.0]]), [1.0, 0.0]);
    let model = node("ml.LinearClassifier", "X", "L P").integers("classlabels_ints", &[0, 1, 2]);
    let model = model.floats("coefficients", &[1.0; 9]).floats("intercepts", &[0.0; 3]);
    File::new(3).node(model.clone()).label("L").assert_refused(&["output \"L\", a label without scores"]);
    let used = File::new(3).node(model.clone()).node(node("Identity", "L", "M")).label("M");
    used.assert_refused(&["labels as input 0"]);
    let two = File::new(3).node(node("Relu", "X", "a")).node(node("Tanh", "X", "b")).output("a").output("b");
    two.assert_refused(&["2 outputs (\"a\", \"b\")"]);
    File::new(3).node(node("Relu", "X", "a")).assert_refused(&["0 outputs"]);
    File::new(3).output("nowhere").assert_refused(&["nothing gives the output \"nowhere\""]);
    File::new(3).floats("c", &[1, 3], &[1.0; 3]).output("c").assert_refused(&["output \"c\", which does not depend"]);
    assert_eq!(File::new(3).output("X").scores(&[[1.0, 2.0, 3.0]]), [1.0, 2.0, 3.0]);
    // How a label is computed is nobody's business.
    let labelled = File::new(3).node(node("Relu", "X", "Y")).node(node("Strange", "Y", "L")).label("L").output("Y");
    assert_eq!(labelled.form().output_names, ["0", "1", "2"]);
}

/// Classes are called as the list that the label is chosen from, if nothing else names them.
#[test]
fn classes_are_called_as_labels() {
    let mut file = File::new(3).node(node("Softmax", "X", "Y")).node(node("ArgMax", "Y", "i").integer("axis", 1));
    let mut classes = super::integers(&[3], &[10, 20, 30]);
    classes.name = "classes".to_owned();
    file.initializers.push(classes);
    let file =
        file.node(node("ml.ArrayFeatureExtractor", "classes i", "a")).node(node("Cast", "a", "L").integer("to", 7));
    assert_eq!(file.label("L").output("Y").form().output_names, ["10", "20", "30"]);
}

/// `[1 − p, p]` of a network is served as p, and its margin is before the sigmoid; nothing that is not needed is computed.
#[test]
fn of_two_classes_the_second_is_computed() {
    let file = File::new(2)
        .floats("W", &[1, 2], &[1.0, 2.0])
        .floats("one", &[], &[1.0])
        .node(node("Gemm", "X W", "m").integer("transB", 1));
    let file = file.node(node("Sigmoid", "m", "p")).node(node("Sub", "one p", "q"));
    let file =
        file.node(node("Concat", "q p", "Y").integer("axis", 1)).node(node("ArgMax", "Y", "L").integer("axis", 1));
    let file = file.label("L").output("Y");
    super::assert_near(&file.scores(&[[0.0, 0.5]]), &[0.731_058_58]);
    assert_eq!((file.margins(&[[0.0, 0.5]]), file.form().steps.len()), (vec![1.0], 2));
    assert_eq!(file.form().kind, "ONNX, Gemm + Sigmoid + Sub");
}

/// Versions that are known are read, others refused, with what would work.
#[test]
fn versions_of_operators() {
    let of = |opset| File::new(2).node(node("Relu", "X", "Y")).output("Y").opset(opset);
    for opset in [7, 9, 15, 27] {
        of(opset).form();
    }
    for opset in [6, 0, -1, 28, i64::MAX] {
        of(opset).assert_refused(&[&format!("version {opset} of the operators of ai.onnx"), "7 to 27"]);
    }
    let strange = File::new(2).node(node("Erf", "X", "Y")).output("Y");
    strange.assert_refused(&["node 0 (Erf)", "trees, linear models"]);
    let mut own = node("FusedGemm", "X", "Y");
    own.domain = "com.microsoft".to_owned();
    File::new(2).node(own).output("Y").assert_refused(&["node 0 (com.microsoft.FusedGemm)", "ai.onnx.ml"]);
    let svm = File::new(2).node(node("ml.SVMRegressor", "X", "Y")).output("Y");
    svm.assert_refused(&["node 0 (ai.onnx.ml.SVMRegressor)"]);
}
