//! XGBoost's models: the scores are those of the library that made them, and every trap of the format is stepped over.
//!
//! `data/xgboost` has models of several versions with what the library says about some rows
//! (`scripts/train_test_models/xgboost.py` makes them); the rest is made by hand, with scores computed by hand.

#[path = "xgboost/document.rs"]
mod document;
#[path = "xgboost/hostile.rs"]
mod hostile;

use std::fs;
use std::path::{Path, PathBuf};

use disrust_model::engine::Compiled;
use disrust_model::form::{Choice, Form, Output};
use disrust_model::read::read;
use disrust_model::{Model, RowSource, Rows};

use document::{Doc, MODEL, Node, learner, model, text, tree};

/// A model of `data/xgboost`.
struct File {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl File {
    /// A table of numbers beside the model.
    fn table(&self, what: &str) -> Vec<Vec<f32>> {
        let path = self.path.with_extension(format!("{what}.csv"));
        let table = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let row = |line: &str| line.split(',').map(|number| number.parse().expect("a number")).collect();
        table.lines().map(row).collect()
    }
}

fn files() -> Vec<File> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/xgboost");
    let entries = |folder: &Path| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = entries(&folder).flat_map(|version| entries(&version).collect::<Vec<_>>()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json" || extension == "ubj"));
    paths.sort();
    paths.into_iter().map(|path| File { bytes: fs::read(&path).expect("a file"), path }).collect()
}

/// Rows as they come over the wire.
struct Wire(Vec<u8>);

impl RowSource for Wire {
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
        visitor(&[&self.0]);
    }
}

/// What a model says about rows that lie one after the other.
fn scores(model: &mut Compiled, rows: &[f32]) -> Vec<f32> {
    let wire = Wire(rows.iter().flat_map(|value| value.to_le_bytes()).collect());
    let count = rows.len() / model.feature_dim();
    let mut scores = vec![0.0; count * model.outputs()];
    model.predict(&Rows::new(&wire, count, model.feature_dim()), &mut scores).expect("it scores");
    scores
}

/// All outputs, or all margins.
fn compiled(mut form: Form, raw: bool) -> Compiled {
    form.choose(&Choice { output: Some(Output::All), raw }).expect("all can be chosen");
    Compiled::new(form, "test")
}

/// Reads both encodings, which must be the same to the bit.
fn form(doc: &Doc) -> Form {
    let of_json = read(doc.json().as_bytes(), None).unwrap_or_else(|error| panic!("{error}"));
    let of_ubj = read(&doc.ubj(), None).unwrap_or_else(|error| panic!("{error}"));
    // As text: a NaN equals none.
    assert_eq!(format!("{of_ubj:?}"), format!("{of_json:?}"));
    of_json
}

/// The scores of rows of two features.
fn scored(doc: &Doc, rows: &[[f32; 2]]) -> Vec<f32> {
    scores(&mut compiled(form(doc), false), rows.as_flattened())
}

fn margins(doc: &Doc, rows: &[[f32; 2]]) -> Vec<f32> {
    scores(&mut compiled(form(doc), true), rows.as_flattened())
}

/// A tree that is nothing but a leaf.
fn constant(id: i64, value: f32) -> Doc {
    tree(id, &[Node::Leaf(value)])
}

/// Scores and margins of every model are those of the library, on rows with NaN, −0 and values on the thresholds: within
/// 1e-5, the margins of trees to the bit.
#[test]
fn models_score_as_the_library_does() {
    let files = files();
    assert!(files.len() >= 36, "the models of all versions are there");
    for file in files {
        let name = file.path.display();
        let form = read(&file.bytes, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let inputs = file.table("inputs").concat();
        for (raw, what) in [(false, "expected"), (true, "margins")] {
            let wanted = file.table(what).concat();
            let found = scores(&mut compiled(form.clone(), raw), &inputs);
            assert_eq!(found.len(), wanted.len(), "{name}, {what}");
            // Where no logarithm comes before the sums; it may differ in its last bit from one system to another.
            let plain = ["squarederror", "multi:", "hinge", "quantile"].iter().any(|name| form.kind.contains(name));
            let exact = raw && plain && !form.kind.contains("gblinear");
            for (index, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let allowed = if exact { 0.0 } else { (1e-5 * wanted.abs()).max(1e-6) };
                assert!((found - wanted).abs() <= allowed, "{name}, {what} {index}: {found}, not {wanted}");
            }
        }
    }
}

/// `x < t` goes left, `t` itself right; NaN goes where the split says.
#[test]
fn thresholds_are_open_on_the_left() {
    let split = |threshold: f32, default_left: bool| {
        model(vec![tree(0, &[Node::Split(1, threshold, 1, default_left), Node::Leaf(1.0), Node::Leaf(2.0)])])
    };
    let rows = |values: [f32; 5]| values.map(|value| [7.0, value]);
    let around = rows([0.1, 0.1_f32.next_down(), 0.1_f32.next_up(), f32::NAN, f32::INFINITY]);
    assert_eq!(scored(&split(0.1, true), &around), [2.0, 1.0, 2.0, 1.0, 2.0]);
    assert_eq!(scored(&split(0.1, false), &around), [2.0, 1.0, 2.0, 2.0, 2.0]);
    let zeros = rows([0.0, -0.0, f32::from_bits(1), -f32::from_bits(1), f32::NEG_INFINITY]);
    assert_eq!(scored(&split(0.0, true), &zeros), [2.0, 2.0, 2.0, 1.0, 1.0]);
    assert_eq!(scored(&split(f32::INFINITY, true), &around), [1.0, 1.0, 1.0, 1.0, 2.0]);
    assert_eq!(scored(&split(f32::NEG_INFINITY, false), &zeros), [2.0; 5]);
}

/// Listed categories go right; what is not listed, negative, or too large for a category goes left; NaN where the split
/// says.
#[test]
fn categories_that_are_listed_go_right() {
    let split = |default_left: bool| {
        let listed = vec![40, 0, 2, 3, 2, (1 << 24) - 1, 1 << 24];
        model(vec![tree(0, &[Node::Categories(0, listed, 1, default_left), Node::Leaf(1.0), Node::Leaf(2.0)])])
    };
    let right = [0.0, -0.0, 0.99, 2.0, 3.5, 40.0, 16_777_215.0].map(|value| [value, 9.0]);
    assert_eq!(scored(&split(true), &right), [2.0; 7]);
    let left = [1.0, 1.99, 4.0, -0.5, -1.0, 41.0, 16_777_216.0, 1e30, f32::INFINITY].map(|value| [value, 9.0]);
    assert_eq!(scored(&split(false), &left), [1.0; 9]);
    let missing = [[f32::NAN, 9.0]];
    assert_eq!(scored(&split(true), &missing), [1.0]);
    assert_eq!(scored(&split(false), &missing), [2.0]);
}

/// Nodes that pruning left behind are no part of the tree, wherever they lie and whatever they hold.
#[test]
fn deleted_nodes_are_left_out() {
    let nodes = [
        Node::Split(0, 0.5, 3, true),
        Node::Deleted,
        Node::Deleted,
        Node::Leaf(1.0),
        Node::Split(1, 0.5, 7, true),
        Node::Deleted,
        Node::Deleted,
        Node::Leaf(2.0),
        Node::Leaf(3.0),
        Node::Categories(1, vec![5], 1, true),
    ];
    let doc = model(vec![tree(0, &nodes)]);
    assert_eq!(scored(&doc, &[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]), [1.0, 2.0, 3.0]);
    let Form { steps, .. } = form(&doc);
    assert!(format!("{steps:?}").contains("count: 3"), "three leaves are left");
}

/// One base score serves all outputs, several serve one each; the link's inverse makes margins of them.
#[test]
fn base_scores_come_in_all_forms() {
    let outputs = |score: &str, outputs: i64| {
        let trees = (0..outputs).map(|index| constant(index, index as f32)).collect();
        model(trees)
            .with("learner.learner_model_param.base_score", text(score))
            .with("learner.learner_model_param.num_target", text(outputs))
            .with(&format!("{MODEL}.tree_info"), Doc::Integers((0..outputs).collect()))
    };
    let row = [[0.0, 0.0]];
    assert_eq!(scored(&outputs("5E-1", 1), &row), [0.5]);
    assert_eq!(scored(&outputs("[5E-1]", 1), &row), [0.5]);
    assert_eq!(scored(&outputs("5E-1", 3), &row), [0.5, 1.5, 2.5]);
    assert_eq!(scored(&outputs("[5E-1,1E0,-2E0]", 3), &row), [0.5, 2.0, 0.0]);
    let poisson = outputs("[2E0,4E0]", 2).with("learner.objective.name", text("count:poisson"));
    let e = std::f32::consts::E;
    for (found, wanted) in scored(&poisson, &row).iter().zip([2.0, 4.0 * e]) {
        assert!((found - wanted).abs() < 1e-5, "{found}");
    }
    let logistic = outputs("2.5E-1", 1).with("learner.objective.name", text("binary:logistic"));
    assert!((scored(&logistic, &row)[0] - 0.25).abs() < 1e-6);
    assert!((margins(&logistic, &row)[0] + 3.0_f32.ln()).abs() < 1e-6);
}

/// Sums are f32 from the base margin on, tree by tree: what is lost there is lost here.
#[test]
fn sums_are_those_of_f32() {
    let doc = model(vec![constant(0, 1.0), constant(1, -16_777_216.0), constant(2, 1.0)]);
    let doc = doc.with("learner.learner_model_param.base_score", text("[1.6777216E7]"));
    assert_eq!(scored(&doc, &[[0.0, 0.0]]), [1.0]);
}

/// Weights of dropped trees are multiplied in f32, beside `gbtree` (up to 3.3) as inside of `model` (from 3.4 on).
#[test]
fn dropped_trees_have_weights() {
    let trees = || model(vec![constant(0, 0.1), constant(1, 10.0)]);
    let weights = Doc::Numbers(vec![0.3, 0.5]);
    let new = trees().and(MODEL, "weight_drop", weights.clone());
    let mut old = trees();
    let booster = old.at("learner.gradient_booster").clone();
    let dart = Doc::Object(vec![("gbtree", booster), ("name", text("dart")), ("weight_drop", weights)]);
    *old.at("learner.gradient_booster") = dart;
    for doc in [old, new] {
        assert_eq!(scored(&doc, &[[0.0, 0.0]]), [0.1_f32 * 0.3 + 5.0]);
        assert_eq!(form(&doc).kind, "XGBoost 3.2.0, dart, reg:squarederror");
    }
}

/// Linear models: a missing value adds nothing, and all outputs start at the first base score.
#[test]
fn linear_models_skip_what_is_missing() {
    // Feature by feature, the weights of both outputs; then both biases.
    let weights = Doc::Numbers(vec![1.0, 10.0, 2.0, 20.0, 0.5, 5.0]);
    let booster = Doc::Object(vec![("weights", weights), ("boosted_rounds", Doc::Integer(3))]);
    let doc = learner(Doc::Object(vec![("model", booster), ("name", text("gblinear"))]))
        .with("learner.learner_model_param.num_target", text(2))
        .with("learner.learner_model_param.base_score", text("[1E2,7E2]"));
    let rows = [[1.0, 1.0], [f32::NAN, 1.0], [f32::NAN, f32::NAN]];
    assert_eq!(scored(&doc, &rows), [103.5, 135.0, 102.5, 125.0, 100.5, 105.0]);
}

/// Leaves that are vectors stand in `base_weights`, by node, or in `leaf_weights`, by leaf, if that is there.
#[test]
fn vector_leaves_stand_in_two_places() {
    let place = format!("{MODEL}.trees[0]");
    let old = model(vec![tree(0, &[Node::Split(0, 0.5, 1, true), Node::Leaf(0.0), Node::Leaf(0.0)])])
        .with(&format!("{place}.tree_param.size_leaf_vector"), text(2))
        .with(&format!("{place}.base_weights"), Doc::Numbers(vec![9.0, 9.0, 1.0, 2.0, 3.0, 4.0]))
        .with("learner.learner_model_param.num_target", text(2));
    let rows = [[0.0, 0.0], [1.0, 0.0]];
    assert_eq!(scored(&old, &rows), [1.0, 2.0, 3.0, 4.0]);
    // The left leaf is the second one.
    let new = old.with(&format!("{place}.right_children"), Doc::Integers(vec![2, 1, 0])).and(
        &place,
        "leaf_weights",
        Doc::Numbers(vec![5.0, 6.0, 7.0, 8.0]),
    );
    assert_eq!(scored(&new, &rows), [7.0, 8.0, 5.0, 6.0]);
    assert_eq!(
        scored(&new.with(&format!("{place}.base_weights"), Doc::Numbers(vec![1.0; 3])), &rows),
        [7.0, 8.0, 5.0, 6.0]
    );
}

/// `multi:softmax` answers with one number, the class; raw, it has the margins of all classes.
#[test]
fn softmax_answers_with_a_class() {
    let classes = Doc::Object(vec![("num_class", text(3))]);
    let doc = model(vec![constant(0, 1.0), constant(1, 3.0), constant(2, 3.0)])
        .with(&format!("{MODEL}.tree_info"), Doc::Integers(vec![0, 1, 2]))
        .with("learner.learner_model_param.num_class", text(3))
        .with("learner.objective.name", text("multi:softmax"))
        .and("learner.objective", "softmax_multiclass_param", classes);
    assert_eq!(scored(&doc, &[[0.0, 0.0]]), [1.0]);
    assert_eq!(margins(&doc, &[[0.0, 0.0]]), [1.0, 3.0, 3.0]);
    assert_eq!(form(&doc).output_names, ["class"]);
    let probabilities = doc.with("learner.objective.name", text("multi:softprob"));
    let scores = scored(&probabilities, &[[0.0, 0.0]]);
    let wanted = 1.0 / (2.0 + (-2.0_f32).exp());
    assert!((scores[1] - wanted).abs() < 1e-6 && scores[1] == scores[2], "{scores:?}");
    assert_eq!(form(&probabilities).output_names, ["0", "1", "2"]);
}

/// Quantiles that cross are put in order from 3.4 on, and not before; expectiles are steps of a staircase.
#[test]
fn quantiles_and_expectiles_do_not_cross() {
    let outputs = |objective: &str, param: &'static str, key: &'static str| {
        model(vec![constant(0, 2.0), constant(1, 0.0), constant(2, -1.0)])
            .with(&format!("{MODEL}.tree_info"), Doc::Integers(vec![0, 1, 2]))
            .with("learner.learner_model_param.num_target", text(3))
            .with("learner.objective.name", text(objective))
            .and("learner.objective", param, Doc::Object(vec![(key, text("[0.1, 0.5, 0.9]"))]))
    };
    let quantiles = outputs("reg:quantileerror", "quantile_loss_param", "quantile_alpha");
    assert_eq!(scored(&quantiles, &[[0.0, 0.0]]), [2.0, 0.0, -1.0]);
    let sorted = quantiles.with("version", Doc::Integers(vec![3, 4, 0]));
    assert_eq!(scored(&sorted, &[[0.0, 0.0]]), [-1.0, 0.0, 2.0]);
    assert_eq!(margins(&sorted, &[[0.0, 0.0]]), [2.0, 0.0, -1.0]);
    let expectiles = outputs("reg:expectileerror", "expectile_loss_param", "expectile_alpha")
        .with("learner.learner_model_param.base_score", text("[0E0,1E0,3E0]"));
    let found = scored(&expectiles, &[[0.0, 0.0]]);
    // The steps of 1 and 2 have the margins ln(e − 1) and ln(e² − 1); the leaves move them by 0 and −1.
    let e = std::f32::consts::E;
    let last = (1.0 + (e * e - 1.0) / e).ln();
    for (found, wanted) in found.iter().zip([2.0, 3.0, 3.0 + last]) {
        assert!((found - wanted).abs() < 1e-5, "{found}, not {wanted}");
    }
}

/// The banner has the file's own words for features and objective.
#[test]
fn names_are_those_of_the_file() {
    let names = Doc::Array(vec![text("age"), text("größe")]);
    let doc = model(vec![constant(0, 1.0)]).with("learner.feature_names", names);
    let Form { kind, feature_names, output_names, feature_dim, .. } = form(&doc);
    assert_eq!(kind, "XGBoost 3.2.0, gbtree, reg:squarederror");
    assert_eq!(feature_names, ["age", "größe"]);
    assert_eq!((output_names, feature_dim), (vec!["0".to_owned()], 2));
}

/// Decimals become the nearest f32, also where a detour over f64 would not: the threshold decides for its neighbours.
#[test]
fn decimals_are_read_in_one_step() {
    let doc = model(vec![tree(0, &[Node::Split(0, 1.0, 1, true), Node::Leaf(1.0), Node::Leaf(2.0)])]);
    let json = doc.json().replace("\"split_conditions\":[1E0,", "\"split_conditions\":[1.00000005960464477540,");
    let form = read(json.as_bytes(), None).expect("a model");
    let rows = [1.0, 9.0, 1.0_f32.next_up(), 9.0];
    assert_eq!(scores(&mut compiled(form, false), &rows), [1.0, 2.0]);
}
