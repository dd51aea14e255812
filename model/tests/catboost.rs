//! CatBoost's models: the scores are those of the library that made them, and every trap of the format is stepped over.
//!
//! `data/catboost` has models with what the library says about some rows (`scripts/train_test_models/catboost.py` makes them);
//! the rest is made by hand, with scores computed by hand.

mod scored;

#[path = "catboost/file.rs"]
mod file;
#[path = "catboost/hostile.rs"]
mod hostile;

use file::{Model, OBLIVIOUS, classes, split};
use scored::{assert_near, compare_to_library, form, margins, scores};

const NAN: f32 = f32::NAN;
const INFINITY: f32 = f32::INFINITY;

/// Scores and margins of every model are those of the library, on rows with NaN, infinities, −0 and values on the borders.
#[test]
fn models_score_as_the_library_does() {
    assert!(compare_to_library("catboost", "json") >= 20, "the models are there");
}

/// Split `i` sets bit `i` of the leaf's index, if `x > border`: a value on the border is below.
#[test]
fn splits_are_the_bits_of_the_leaf() {
    let file = Model::default().text();
    assert!(file.contains(OBLIVIOUS));
    let rows = [[0.5, 2.0], [0.5_f32.next_up(), 2.0], [0.0, 2.5], [INFINITY, 2.5], [-INFINITY, -0.0]];
    assert_eq!(scores(&file, &rows), [1.0, 2.0, 4.0, 8.0, 1.0]);
    let deeper = Model::default().trees(&format!(
        r#"[{{"leaf_values": [0, 1, 2, 3, 4, 5, 6, 7], "splits": [{}, {}, {}]}}]"#,
        split(0, 0.0),
        split(1, 0.0),
        split(1, 5.0)
    ));
    let rows = [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, 9.0], [1.0, 9.0]];
    assert_eq!(scores(&deeper.text(), &rows), [0.0, 1.0, 2.0, 3.0, 6.0, 7.0]);
}

/// In trees that are not oblivious, `x > border` goes right.
#[test]
fn other_trees_go_right_above_the_border() {
    let inner = format!(r#"{{"split": {}, "left": {{"value": 2}}, "right": {{"value": 3}}}}"#, split(1, 0.0));
    let trees = format!(
        r#"[{{"split": {}, "left": {{"value": 1, "weight": 5}}, "right": {inner}}}, {{"value": 0.25, "weight": 9}}]"#,
        split(0, 0.5)
    );
    let file = Model::default().not_oblivious(&trees).text();
    let rows = [[0.5, 7.0], [0.6, 0.0], [0.6, 0.1], [INFINITY, NAN]];
    assert_eq!(scores(&file, &rows), [1.25, 2.25, 3.25, 2.25]);
}

/// NaN is above the border only where the training rows had NaN that were taken so.
#[test]
fn missing_values_are_below_or_above() {
    for (treatment, has_nans, wanted) in [
        ("AsIs", true, 1.0),
        ("AsIs", false, 1.0),
        ("AsFalse", true, 1.0),
        ("AsFalse", false, 1.0),
        ("AsTrue", true, 2.0),
        ("AsTrue", false, 1.0),
    ] {
        let file = Model::default().missing(treatment, has_nans).text();
        assert_eq!(scores(&file, &[[NAN, 0.0]]), [wanted], "{treatment}, {has_nans}");
    }
    // Borders at the ends, as nan_mode puts them: what is NaN has a side of its own, but for infinities.
    let at = |border: f32| {
        Model::default().trees(&format!(r#"[{{"leaf_values": [1, 2], "splits": [{}]}}]"#, split(0, f64::from(border))))
    };
    let rows = [[NAN, 0.0], [INFINITY, 0.0], [f32::MAX, 0.0], [f32::MIN, 0.0], [-INFINITY, 0.0]];
    assert_eq!(scores(&at(f32::MAX).missing("AsTrue", true).text(), &rows), [2.0, 2.0, 1.0, 1.0, 1.0]);
    assert_eq!(scores(&at(f32::MIN).missing("AsFalse", true).text(), &rows), [1.0, 2.0, 2.0, 1.0, 1.0]);
}

/// The sum is multiplied by the scale, then the bias is added; older files have one bias, the oldest neither.
#[test]
fn the_sum_is_scaled_before_the_bias() {
    let two = format!("[{OBLIVIOUS}, {OBLIVIOUS}]");
    for (scale_and_bias, wanted) in [("[0.5, [10]]", 11.0), ("[0.5, 10]", 11.0), ("[1, []]", 2.0), ("null", 2.0)] {
        let file = Model::default().trees(&two).scale_and_bias(scale_and_bias).text();
        assert_eq!(scores(&file, &[[0.0, 0.0]]), [wanted], "{scale_and_bias}");
    }
    let none = Model::default().trees("[]").scale_and_bias("[1, [3.5]]").text();
    assert_eq!(scores(&none, &[[0.0, 0.0]]), [3.5]);
    // A tree without splits is a leaf.
    for splits in ["[]", "null"] {
        let leaf = format!(r#"[{{"leaf_values": [7], "splits": {splits}}}]"#);
        assert_eq!(scores(&Model::default().trees(&leaf).text(), &[[0.0, 0.0]]), [7.0]);
    }
}

/// Leaves have a value for each dimension, leaf by leaf.
#[test]
fn leaves_are_vectors() {
    let tree = format!(r#"[{{"leaf_values": [1, 2, 3, 4, 5, 6], "splits": [{}]}}]"#, split(0, 0.0));
    let model = Model::default().scale_and_bias("[2, [0.5, 0, -1]]").loss("MultiRMSE");
    let file = model.clone().trees(&tree).text();
    assert_eq!(scores(&file, &[[0.0, 0.0], [1.0, 0.0]]), [2.5, 4.0, 5.0, 8.5, 10.0, 11.0]);
    assert_eq!(form(&file).output_names, ["0", "1", "2"]);
    let trees =
        format!(r#"[{{"split": {}, "left": {{"value": [1, 2, 3]}}, "right": {{"value": [4, 5, 6]}}}}]"#, split(0, 0.0));
    let file = model.not_oblivious(&trees).text();
    assert_eq!(scores(&file, &[[0.0, 0.0], [1.0, 0.0]]), [2.5, 4.0, 5.0, 8.5, 10.0, 11.0]);
}

/// Each loss has the transform that `predict_proba` or `predict` applies by default.
#[test]
fn losses_transform_the_sum() {
    let (row, x) = ([[0.6, 0.0]], 2.0_f64);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (losses, wanted, name) in [
        (&["RMSE", "MAE", "Quantile", "LogLinQuantile", "Cox", "YetiRank", "PairLogit"][..], x, "score"),
        (&["Poisson", "Tweedie"], x.exp(), "score"),
        (&["Logloss", "CrossEntropy", "Focal"], sigmoid(x), "probability"),
    ] {
        for loss in losses {
            let file = Model::default().loss(loss).text();
            assert_near(&scores(&file, &row), &[wanted]);
            assert_eq!(margins(&file, &row), [2.0], "{loss}");
            assert_eq!(form(&file).output_names, [name]);
        }
    }
    let leaf = |values: &str| format!(r#"[{{"leaf_values": {values}, "splits": []}}]"#);
    let vector = |loss: &str, values: &str| Model::default().scale_and_bias("null").loss(loss).trees(&leaf(values));
    let file = vector("RMSEWithUncertainty", "[1.5, -0.25]").text();
    assert_near(&scores(&file, &row), &[1.5, (-0.5_f64).exp()]);
    assert_eq!(
        (margins(&file, &row), form(&file).output_names),
        (vec![1.5, -0.25], vec!["mean".into(), "variance".into()])
    );
    let file = vector("MultiLogloss", "[1, -1]").text();
    assert_near(&scores(&file, &row), &[sigmoid(1.0), sigmoid(-1.0)]);
    let file = vector("MultiClassOneVsAll", "[1, -1, 0]").text();
    assert_near(&scores(&file, &row), &[sigmoid(1.0), sigmoid(-1.0), 0.5]);
    let file = vector("MultiClass", "[1, -1, 0]").text();
    let sum = 1.0_f64.exp() + (-1.0_f64).exp() + 1.0;
    assert_near(&scores(&file, &row), &[1.0_f64.exp() / sum, (-1.0_f64).exp() / sum, 1.0 / sum]);
    assert_eq!(margins(&file, &row), [1.0, -1.0, 0.0]);
    // A sum of models says its loss elsewhere.
    let file = Model::default().info(r#""loss_function": "{\"type\":\"Logloss\",\"params\":{}}""#).text();
    assert_near(&scores(&file, &row), &[sigmoid(x)]);
}

/// Two classes are one output, P(class 1), also where the model counts two; its margin is that of class 1.
#[test]
fn two_classes_are_one_output() {
    let leaf = r#"[{"leaf_values": [1, 2], "splits": []}]"#;
    for (loss, wanted) in
        [("MultiClass", 1.0 / (1.0 + (-1.0_f64).exp())), ("MultiClassOneVsAll", 1.0 / (1.0 + (-2.0_f64).exp()))]
    {
        let file = Model::default().scale_and_bias("null").loss(loss).trees(leaf).text();
        assert_near(&scores(&file, &[[0.0, 0.0]]), &[wanted]);
        assert_eq!(margins(&file, &[[0.0, 0.0]]), [2.0]);
        assert_eq!(form(&file).output_names, ["probability"]);
    }
}

/// Outputs are called as the classes are, whatever kind of label they have.
#[test]
fn outputs_have_the_names_of_the_classes() {
    let leaf = r#"[{"leaf_values": [1, 2, 3], "splits": []}]"#;
    for (labels, names) in [
        (r#"["zebra", "größe", "a b"]"#, ["zebra", "größe", "a b"]),
        ("[5, -1, 7]", ["5", "-1", "7"]),
        ("[0.5, 1.5, 2]", ["0.5", "1.5", "2"]),
        ("[]", ["0", "1", "2"]),
    ] {
        for key in ["class_params", "multiclass_params"] {
            let params = classes("MultiClass", key, labels, "[0, 1, 2]", 0);
            let file = Model::default().scale_and_bias("null").info(&params).trees(leaf).text();
            assert_eq!(form(&file).output_names, names);
        }
    }
}

/// A row has a place for every feature of the training, used or not; splits call them by another number.
#[test]
fn features_have_a_place_and_a_number() {
    let features = r#""categorical_features": [{"feature_index": 0, "flat_feature_index": 1, "feature_name": "city"}],
        "float_features": [
            {"borders": [0.5], "feature_index": 0, "flat_feature_index": 2, "feature_id": "height", "has_nans": false,
             "nan_value_treatment": "AsIs"},
            {"borders": null, "feature_index": 1, "flat_feature_index": 0, "feature_id": "", "has_nans": false,
             "nan_value_treatment": "AsIs"}]"#;
    let file = Model::default().features(features).text();
    assert_eq!(
        (form(&file).feature_dim, form(&file).feature_names),
        (3, vec!["0".into(), "city".into(), "height".into()])
    );
    assert_eq!(scores(&file, &[[2.5, 9.0, 0.0], [0.0, NAN, 0.6]]), [4.0, 2.0]);
}
