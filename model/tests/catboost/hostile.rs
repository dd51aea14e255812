//! Files that are malformed, cut, hostile, or hold what is not supported: each is an error that says what and where.

use disrust_model::form::limits::{COLUMNS_MAX, FEATURES_MAX};
use disrust_model::read::read;

use super::file::{Model, OBLIVIOUS, classes, split};
use crate::scored::{assert_refused, form};

/// Two trees of a model, the second of which is given.
fn second(tree: &str) -> String {
    Model::default().trees(&format!("[{OBLIVIOUS}, {tree}]")).text()
}

/// Errors name the tree and what is wrong with it.
#[test]
fn what_is_wrong_in_an_oblivious_tree_is_named() {
    let one = split(0, 0.5);
    let tree = |values: &str, splits: &str| format!(r#"{{"leaf_values": {values}, "splits": [{splits}]}}"#);
    let other = |from: &str, to: &str| tree("[1, 2]", &one.replace(from, to));
    for (tree, words) in [
        (tree("[1, 2, 3]", &one), &["tree 1", "3 leaf_values", "2 leaves"][..]),
        (tree("[]", &one), &["tree 1", "0 leaf_values"]),
        (tree("[1, 2, 3, 4]", &one), &["tree 1", "2 values", "1"]),
        (tree("[1]", &one), &["tree 1", "1 leaf_values for 2 leaves"]),
        (tree("[1, null]", &one), &["tree 1", "null"]),
        (tree("[1, 1e999]", &one), &["tree 1", "number out of range"]),
        (tree("[1, NaN]", &one), &["tree 1", "expected value"]),
        (tree("1", &one), &["tree 1", "invalid type"]),
        (r#"{"splits": []}"#.to_owned(), &["tree 1", "leaf_values"]),
        (r#"{"leaf_values": [1], "leaf_values": [1]}"#.to_owned(), &["tree 1", "duplicate field `leaf_values`"]),
        ("3".to_owned(), &["tree 1", "invalid type"]),
        (other("\"float_feature_index\": 0", "\"float_feature_index\": 2"), &["tree 1", "float_feature_index 2"]),
        (other("\"float_feature_index\": 0", "\"float_feature_index\": -1"), &["tree 1", "-1"]),
        (other("\"float_feature_index\": 0, ", ""), &["tree 1", "no float_feature_index"]),
        (other("\"border\": 0.5, ", ""), &["tree 1", "no border"]),
        (other("0.5", "null"), &["tree 1", "no border"]),
        (other("FloatFeature", "OnlineCtr"), &["tree 1", "OnlineCtr", "not supported", "encoded before"]),
        (other("FloatFeature", "OneHotFeature"), &["tree 1", "OneHotFeature", "not supported"]),
        (other("\"split_type\"", "\"kind\""), &["tree 1", "split_type"]),
        (tree("[1]", &vec![&one[..]; 17].join(",")), &["tree 1", "17 levels", "not supported"]),
        (tree("[1]", &vec![&one[..]; 4000].join(",")), &["tree 1", "4000 levels", "not supported"]),
    ] {
        assert_refused(second(&tree).as_bytes(), words);
    }
}

/// So do errors in trees that are not oblivious.
#[test]
fn what_is_wrong_in_another_tree_is_named() {
    let split = split(0, 0.5);
    let of_children = |children: &str| format!(r#"{{"split": {split}, {children}}}"#);
    for (tree, words) in [
        (of_children(r#""left": {"value": 1}"#), &["tree 1", "a node"][..]),
        (of_children(r#""left": {"value": 1}, "right": null"#), &["tree 1", "a node"]),
        (of_children(r#""left": {"value": 1}, "right": {}"#), &["tree 1", "a node"]),
        (of_children(r#""left": {"value": 1}, "right": {"value": 1}, "value": 1"#), &["tree 1", "a node"]),
        (of_children(r#""left": {"value": 1}, "right": {"value": [1, 2]}"#), &["tree 1", "2 values", "1"]),
        (of_children(r#""left": {"value": [1, 2]}, "right": {"value": [1, 2]}"#), &["tree 1", "2 values"]),
        (of_children(r#""left": {"value": "x"}, "right": {"value": 1}"#), &["tree 1", "did not match"]),
        (r#"{"value": []}"#.to_owned(), &["tree 1", "0 values"]),
        (r#"{"left": {"value": 1}, "right": {"value": 1}}"#.to_owned(), &["tree 1", "a node"]),
    ] {
        let trees = format!(r#"[{{"value": 1}}, {tree}]"#);
        assert_refused(Model::default().not_oblivious(&trees).text().as_bytes(), words);
    }
    let wide = format!(r#"[{{"value": [{}]}}]"#, vec!["1"; COLUMNS_MAX + 1].join(","));
    assert_refused(Model::default().not_oblivious(&wide).text().as_bytes(), &["tree 0", "4097 values", "4096"]);
}

/// And in what stands around the trees.
#[test]
fn what_is_wrong_around_the_trees_is_named() {
    let text = Model::default().text();
    for (from, to, words) in [
        ("\"oblivious_trees\"", "\"mystery\"", &["neither oblivious_trees nor trees"][..]),
        ("\"oblivious_trees\"", "\"trees\": [], \"oblivious_trees\"", &["both oblivious_trees and trees"]),
        ("[1, [0]]", "[1, [0, 0]]", &["scale_and_bias", "2 biases", "1 values"]),
        ("[1, [0]]", "[1]", &["invalid length 1"]),
        ("[1, [0]]", "\"x\"", &["invalid type"]),
        ("RMSE", "Mystery", &["the loss \"Mystery\"", "not supported"]),
        ("RMSE", "PythonUserDefinedPerObject", &["PythonUserDefinedPerObject", "not supported"]),
        ("RMSE", "MultiClass", &["1 values", "the loss MultiClass"]),
        ("RMSE", "RMSEWithUncertainty", &["1 values", "the loss RMSEWithUncertainty"]),
        ("\"loss_function\"", "\"loss\"", &["loss_function", "not supported"]),
        ("\"params\": {\"it", "\"loss_function\": \"RMSE\", \"params\": {\"it", &["model_info.loss_function", "JSON"]),
        ("AsIs", "AsMystery", &["feature 0", "AsMystery", "not supported"]),
        ("\"flat_feature_index\": 1", "\"flat_feature_index\": 0", &["two features", "flat_feature_index 0"]),
        ("\"flat_feature_index\": 1", "\"flat_feature_index\": -1", &["-1"]),
        ("\"flat_feature_index\": 1", "\"flat_feature_index\": 1e9", &["1000000000"]),
        ("\"feature_index\": 1", "\"feature_index\": 0", &["two features", "feature_index 0"]),
        ("\"float_features\"", "\"text_features\": [], \"float_features\"", &["text_features"]),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert_refused(changed.as_bytes(), words);
    }
    for index in [FEATURES_MAX, 1_000_000_000, usize::MAX] {
        let to = format!("\"flat_feature_index\": {index}");
        let far = text.replacen("\"flat_feature_index\": 1", &to, 1);
        assert_refused(far.as_bytes(), &["flat_feature_index", "4096 features"]);
    }
    assert_refused(Model::default().features("").trees("[]").text().as_bytes(), &["0 features"]);
}

/// Classes that the trees do not know would have a column in CatBoost's answer: they are refused.
#[test]
fn classes_without_a_sum_are_refused() {
    let leaf = r#"[{"leaf_values": [1, 2, 3], "splits": []}]"#;
    let file = |labels: &str, to_label: &str, count: usize| {
        let info = classes("MultiClass", "class_params", labels, to_label, count);
        Model::default().scale_and_bias("null").info(&info).trees(leaf).text()
    };
    assert_eq!(form(&file("[]", "[0, 1, 2]", 3)).output_names.len(), 3);
    for (labels, to_label, count) in [
        (r#"["a", "b", "c", "d"]"#, "[0, 1, 2]", 0),
        (r#"["a", "b"]"#, "[0, 1, 2]", 0),
        ("[]", "[0, 1, 2]", 5),
        ("[]", "[0, 2, 3]", 0),
        ("[]", "[0, 1]", 0),
    ] {
        assert_refused(file(labels, to_label, count).as_bytes(), &["class_params", "not supported", "every class"]);
    }
}

/// A tree that is nested too deep is refused, however deep.
#[test]
fn deep_nesting_is_refused() {
    let nested = |levels: usize| {
        let open = format!(r#"{{"split": {}, "left": {{"value": 1}}, "right": "#, split(0, 0.5)).repeat(levels);
        Model::default().not_oblivious(&format!("[{open}{{\"value\": 2}}{}]", "}".repeat(levels))).text()
    };
    assert!(read(nested(100).as_bytes(), None).is_ok());
    for levels in [200, 100_000] {
        assert_refused(nested(levels).as_bytes(), &["tree 0", "recursion limit"]);
    }
    // What is skipped may be nested as deep as it likes.
    let open = |nested: &str| format!(r#"{{"features_info": {{}}, "mystery": {}"#, nested.repeat(100_000));
    assert_refused(open("[").as_bytes(), &["EOF"]);
    assert_refused(open(r#"{"a":"#).as_bytes(), &["EOF"]);
}

/// A file that is cut anywhere is refused.
#[test]
fn cut_files_are_refused() {
    let text = Model::default().text();
    for length in 0..text.len() {
        assert!(read(&text.as_bytes()[..length], None).is_err(), "{length} of {} bytes", text.len());
    }
    assert_refused(&text.as_bytes()[..text.len() - 1], &["CatBoost", "EOF"]);
    assert_refused(format!("{text} x").as_bytes(), &["CatBoost", "trailing"]);
}

/// What is no UTF-8 is an error.
#[test]
fn invalid_utf8_is_named() {
    let text = Model::default().text();
    let start = text.find("FloatFeature").expect("a split");
    let changed = [&text.as_bytes()[..start], b"\xff", &text.as_bytes()[start..]].concat();
    assert_refused(&changed, &["tree 0", "unicode"]);
}
