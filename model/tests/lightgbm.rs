//! LightGBM's models: the scores are those of the library that made them, and every trap of the format is stepped over.
//!
//! `data/lightgbm` has models with what the library says about some rows (`scripts/train_test_models/lightgbm.py` makes them);
//! the rest is made by hand, with scores computed by hand.

mod scored;

#[path = "lightgbm/file.rs"]
mod file;
#[path = "lightgbm/hostile.rs"]
mod hostile;

use disrust_model::form::limits::FEATURES_MAX;
use file::{Model, leaf, stump};
use scored::{assert_near, compare_to_library, form, margins, scores};

const NAN: f32 = f32::NAN;
const INFINITY: f32 = f32::INFINITY;

/// Missing types of a decision type, and its bits.
const NONE: i32 = 0;
const ZERO: i32 = 1 << 2;
const NAN_TYPE: i32 = 2 << 2;
const DEFAULT_LEFT: i32 = 2;
const CATEGORICAL: i32 = 1;

/// Which side each value of the first feature goes: `l` or `r`.
#[track_caller]
fn assert_sides(model: &Model, sides: &[(f32, char)]) {
    let rows: Vec<[f32; 2]> = sides.iter().map(|(value, _)| [*value, 9.0]).collect();
    let found = scores(&model.text(), &rows);
    for ((value, side), score) in sides.iter().zip(found) {
        assert_eq!(score, if *side == 'l' { 1.0 } else { 2.0 }, "{value} goes {side}");
    }
}

/// Scores and margins of every model are those of the library, on rows with NaN, infinities, −0 and values on the thresholds.
#[test]
fn models_score_as_the_library_does() {
    assert!(compare_to_library("lightgbm", "txt") >= 15, "the models are there");
}

/// `x <= t` goes left, decided in f64: a threshold that f32 rounds up lets fewer values through.
#[test]
fn thresholds_decide_in_f64() {
    let below = 0.1_f32.next_down();
    assert!(f64::from(0.1_f32) > 0.1);
    assert_sides(&stump(0.1, NAN_TYPE), &[(0.1, 'r'), (below, 'l'), (0.1_f32.next_up(), 'r'), (INFINITY, 'r')]);
    assert_sides(&stump(0.5, NAN_TYPE), &[(0.5, 'l'), (0.5_f32.next_up(), 'r'), (-INFINITY, 'l')]);
    assert_sides(&stump(1e300, NAN_TYPE), &[(f32::MAX, 'l'), (INFINITY, 'r')]);
    assert_sides(&stump(-1e300, NAN_TYPE), &[(f32::MIN, 'r'), (-INFINITY, 'l')]);
    assert_sides(&stump(f64::INFINITY, NAN_TYPE), &[(INFINITY, 'l'), (0.0, 'l'), (NAN, 'r')]);
}

/// What counts as missing goes to the default side; where NaN is not missing, it is 0.
#[test]
fn missing_values_go_where_the_type_says() {
    assert_sides(&stump(-1.0, NAN_TYPE | DEFAULT_LEFT), &[(NAN, 'l'), (0.0, 'r'), (-2.0, 'l')]);
    assert_sides(&stump(-1.0, NAN_TYPE), &[(NAN, 'r'), (0.0, 'r'), (-2.0, 'l')]);
    // The default side of type None is meaningless.
    for default in [0, DEFAULT_LEFT] {
        assert_sides(&stump(-1.0, NONE | default), &[(NAN, 'r'), (0.0, 'r'), (-2.0, 'l')]);
        assert_sides(&stump(1.0, NONE | default), &[(NAN, 'l'), (0.0, 'l'), (2.0, 'r')]);
    }
    // Zero: all that is not larger than 1e-35 is missing, and NaN is 0 first.
    let zeros = [0.0, -0.0, 1e-35, -1e-35, 1e-40, NAN];
    for (default, side) in [(0, 'r'), (DEFAULT_LEFT, 'l')] {
        for threshold in [-1.0, 1.0] {
            assert_sides(&stump(threshold, ZERO | default), &zeros.map(|value| (value, side)));
        }
    }
    let (above, below) = (1e-35_f32.next_up(), (-1e-35_f32).next_down());
    assert_sides(&stump(-1.0, ZERO | DEFAULT_LEFT), &[(above, 'r'), (below, 'r'), (-INFINITY, 'l')]);
}

/// LightGBM's `predict` leaves what is not larger than 1e-35 out of a row, which makes it 0: a threshold in that range, as
/// training puts around zeros, has all of the range on one side.
#[test]
fn what_is_nearly_zero_is_zero() {
    let zero = f64::from(1e-35_f32);
    let (above, below) = (1e-35_f32.next_up(), (-1e-35_f32).next_down());
    for threshold in [zero, 1e-40, 0.0, -0.0] {
        let sides = [(0.0, 'l'), (1e-35, 'l'), (1e-38, 'l'), (-1e-35, 'l'), (above, 'r'), (below, 'l')];
        assert_sides(&stump(threshold, NONE), &sides);
    }
    for threshold in [-zero, -1e-40] {
        let sides = [(0.0, 'r'), (1e-35, 'r'), (-1e-38, 'r'), (-1e-35, 'r'), (below, 'l')];
        assert_sides(&stump(threshold, NONE), &sides);
    }
}

/// A category is what a C cast makes of the value; it goes left if its bit is set. NaN, what is negative and what has no bit go
/// right. The threshold is the number of the set.
#[test]
fn categories_go_left_by_their_bit() {
    let model = Model::new(&[
        "num_leaves=2\nnum_cat=1\nsplit_feature=0\nthreshold=0\nleft_child=-1\nright_child=-2\nleaf_value=1 2\n\
         decision_type=1\ncat_boundaries=0 2\ncat_threshold=4294967293 5",
    ]);
    let sides = [(0.0, 'l'), (-0.5, 'l'), (-1.0, 'r'), (1.0, 'r'), (1.99, 'r'), (2.0, 'l'), (31.9, 'l'), (32.0, 'l')];
    assert_sides(&model, &sides);
    let sides =
        [(33.0, 'r'), (34.7, 'l'), (35.0, 'r'), (64.0, 'r'), (NAN, 'r'), (INFINITY, 'r'), (3e9, 'r'), (-3e9, 'r')];
    assert_sides(&model, &sides);
}

/// Each split of categories has the set that its threshold numbers, in any order; others are numeric as ever.
#[test]
fn sets_of_categories_are_found_by_their_boundaries() {
    let decisions = format!("{CATEGORICAL} {CATEGORICAL} {NAN_TYPE}");
    let model = Model::new(&[&format!(
        "num_leaves=4\nnum_cat=2\nsplit_feature=0 0 1\nthreshold=1 0 0.5\nleft_child=1 -1 -3\nright_child=2 -2 -4\n\
         leaf_value=1 2 3 4\ndecision_type={decisions}\ncat_boundaries=0 1 2\ncat_threshold=2 6"
    )]);
    // Set 1 (6) is {1, 2}, set 0 (2) is {1}.
    let rows = [[1.0, 0.0], [2.0, 0.0], [3.0, 0.5], [3.0, 0.6]];
    assert_eq!(scores(&model.text(), &rows), [1.0, 2.0, 3.0, 4.0]);
}

/// Leaves are the bitwise complements of negative children, and a tree of one leaf has no arrays.
#[test]
fn children_below_zero_are_leaves() {
    let model = Model::new(&[
        "num_leaves=3\nnum_cat=0\nsplit_feature=0 1\nthreshold=0 0\nleft_child=-2 -3\nright_child=1 -1\n\
         leaf_value=1 2 4\nshrinkage=0.1",
        "num_leaves=1\nnum_cat=0\nsplit_feature=\nsplit_gain=\nthreshold=\nleaf_value=0.25\nshrinkage=1",
        "num_leaves=1\nnum_cat=0\nleaf_value=-0.125",
    ]);
    let rows = [[-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]];
    assert_eq!(scores(&model.text(), &rows), [2.125, 4.125, 1.125]);
}

/// A linear leaf is its constant and what its features add; if one of them is NaN, it is its value. Without features it is
/// its constant. LightGBM writes two spaces after each leaf's numbers.
#[test]
fn linear_leaves_add_up_their_features() {
    let tree = "num_leaves=3\nnum_cat=0\nsplit_feature=0 0\nthreshold=0 5\ndecision_type=8 8\nleft_child=-1 -2\n\
                right_child=1 -3\nleaf_value=10 20 30\nis_linear=1\nleaf_const=1 2 3\nnum_features=2 0 1\n\
                leaf_features=0 1   1  \nleaf_coeff=2 0.5   -4  ";
    let model = Model::new(&[tree]);
    let rows = [[-1.0, 4.0], [-1.0, NAN], [1.0, NAN], [9.0, 2.0], [9.0, NAN], [NAN, 0.5], [-INFINITY, 1.0]];
    let wanted = [1.0, 10.0, 2.0, -5.0, 30.0, 1.0, -INFINITY];
    assert_eq!(scores(&model.text(), &rows), wanted);
    // A linear tree may be a leaf, and stand beside plain ones.
    let constant =
        "num_leaves=1\nnum_cat=0\nleaf_value=7\nis_linear=1\nleaf_const=3\nnum_features=0\nleaf_features=\nleaf_coeff=";
    assert_eq!(scores(&Model::new(&[constant, &leaf(0.5)]).text(), &[[0.0, 0.0]]), [3.5]);
}

/// Trees add to the classes in turn.
#[test]
fn trees_belong_to_classes_in_turn() {
    let trees: Vec<String> = [0.0, 1.0, 2.0, 0.5, 0.25, -2.0].map(leaf).to_vec();
    let model = Model::of(&trees).classes(3).objective("multiclass num_class:3");
    assert_eq!(margins(&model.text(), &[[0.0, 0.0]]), [0.5, 1.25, 0.0]);
    let sum = 0.5_f64.exp() + 1.25_f64.exp() + 1.0;
    assert_near(&scores(&model.text(), &[[0.0, 0.0]]), &[0.5_f64.exp() / sum, 1.25_f64.exp() / sum, 1.0 / sum]);
    assert_eq!(form(&model.text()).output_names, ["0", "1", "2"]);
    let ova = Model::of(&trees).classes(3).objective("multiclassova num_class:3 sigmoid:2");
    let sigmoid = |x: f64| 1.0 / (1.0 + (-2.0 * x).exp());
    assert_near(&scores(&ova.text(), &[[0.0, 0.0]]), &[sigmoid(0.5), sigmoid(1.25), 0.5]);
    // A function of the user's own has margins for scores.
    let own = Model::of(&trees).classes(3);
    assert_eq!(scores(&own.text(), &[[0.0, 0.0]]), [0.5, 1.25, 0.0]);
}

/// Two classes are one output, P(class 1), also where the model counts two; its margin is that of class 1.
#[test]
fn two_classes_are_one_output() {
    let trees: Vec<String> = [0.5, 1.25].map(leaf).to_vec();
    let softmax = Model::of(&trees).classes(2).objective("multiclass num_class:2").text();
    assert_near(&scores(&softmax, &[[0.0, 0.0]]), &[1.0 / (1.0 + (-0.75_f64).exp())]);
    assert_eq!(margins(&softmax, &[[0.0, 0.0]]), [1.25]);
    let ova = Model::of(&trees).classes(2).objective("multiclassova num_class:2 sigmoid:1").text();
    assert_near(&scores(&ova, &[[0.0, 0.0]]), &[1.0 / (1.0 + (-1.25_f64).exp())]);
    for file in [softmax, ova, Model::new(&[&leaf(1.0)]).objective("binary sigmoid:1").text()] {
        assert_eq!(form(&file).output_names, ["probability"]);
    }
}

/// Each objective has its transform, under all its names.
#[test]
fn objectives_transform_the_sum() {
    let x = 1.5_f64;
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (objectives, wanted) in [
        (&["regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank"][..], x),
        (&["rank_xendcg", "custom", "none", "regression_l2", "mae", "huber sqrt"], x),
        (&["regression sqrt", "regression_l1 sqrt", "fair sqrt", "quantile sqrt", "mape sqrt"], x * x),
        (&["poisson", "gamma", "tweedie", "poisson sqrt"], x.exp()),
        (&["binary sigmoid:1", "cross_entropy", "xentropy"], sigmoid(x)),
        (&["binary sigmoid:0.37"], sigmoid(0.37 * x)),
        (&["cross_entropy_lambda", "xentlambda"], x.exp().ln_1p()),
    ] {
        for objective in objectives {
            let file = Model::new(&[&leaf(1.0), &leaf(0.5)]).objective(objective).text();
            assert_near(&scores(&file, &[[0.0, 0.0]]), &[wanted]);
            assert_eq!(margins(&file, &[[0.0, 0.0]]), [1.5], "{objective}");
        }
    }
    let negative = Model::new(&[&leaf(-3.0)]).objective("regression sqrt").text();
    assert_eq!(scores(&negative, &[[0.0, 0.0]]), [-9.0]);
    let plain = Model::new(&[&leaf(1.5)]);
    assert_eq!(
        (scores(&plain.text(), &[[0.0, 0.0]]), form(&plain.text()).output_names),
        (vec![1.5], vec!["score".to_owned()])
    );
}

/// A random forest's sum is divided by its iterations before the transform; its margin is the sum.
#[test]
fn forests_are_averaged_before_the_transform() {
    let trees: Vec<String> = [1.0, 2.0, 4.5].map(leaf).to_vec();
    let file = Model::of(&trees).average().objective("poisson").text();
    assert_near(&scores(&file, &[[0.0, 0.0]]), &[2.5_f64.exp()]);
    assert_eq!(margins(&file, &[[0.0, 0.0]]), [7.5]);
    let file = Model::of(&trees).average().objective("regression").text();
    assert_eq!((scores(&file, &[[0.0, 0.0]]), margins(&file, &[[0.0, 0.0]])), (vec![2.5], vec![7.5]));
    let trees: Vec<String> = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(leaf).to_vec();
    let file = Model::of(&trees).classes(3).average().objective("multiclassova num_class:3 sigmoid:1").text();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    assert_near(&scores(&file, &[[0.0, 0.0]]), &[sigmoid(2.5), sigmoid(3.5), sigmoid(4.5)]);
    assert_eq!(margins(&file, &[[0.0, 0.0]]), [5.0, 7.0, 9.0]);
}

/// A model that stopped before its first tree says 0.
#[test]
fn no_tree_at_all_adds_nothing() {
    let file = Model::of(&[]).objective("binary sigmoid:1").text();
    assert_eq!((scores(&file, &[[0.0, 0.0]]), margins(&file, &[[0.0, 0.0]])), (vec![0.5], vec![0.0]));
}

/// Files of all versions are read: the oldest have no end of trees; a checkout on Windows has other line ends; what follows the
/// trees does not matter.
#[test]
fn files_of_all_versions_are_read() {
    let text = stump(0.5, NAN_TYPE).text();
    let drop = |text: &str, starts: &[&str]| -> String {
        let kept = text.split_inclusive('\n').filter(|line| !starts.iter().any(|start| line.starts_with(start)));
        kept.collect()
    };
    let old = drop(&text.replace("=v4", "=v2"), &["tree_sizes=", "num_tree_per_iteration="])
        .replace("end of trees", "\nfeature importances:\nColumn_0=1");
    let trailed = format!(
        "{text}\nparameters:\n[tree=\u{1}]\nend of parameters\n\npandas_categorical:[[\"a\", \"b=c\"], null]\n"
    );
    let cut_after_the_trees = &text[..text.find("end of trees").expect("an end") + "end of trees".len()];
    let files = [
        old.clone(),
        text.replace("version=v4", "version=v2"),
        text.replace('\n', "\r\n"),
        trailed,
        cut_after_the_trees.to_owned(),
        drop(&text, &["decision_type="]),
    ];
    assert!(!old.contains("end of trees") && files.iter().skip(1).all(|file| *file != text));
    for file in files {
        assert_eq!(scores(&file, &[[0.5, 0.0], [0.6, 0.0]]), [1.0, 2.0], "{file}");
    }
}

/// A row has a place for every feature of the training, used or not, and names may have any letters.
#[test]
fn features_are_those_of_the_training() {
    let file = stump(0.5, NAN_TYPE).text().replace("names=Column_0 Column_1", "names=größe a=b");
    let form = form(&file);
    assert_eq!((form.feature_dim, &form.feature_names[..]), (2, &["größe".to_owned(), "a=b".to_owned()][..]));
    let columns = |what: &str| vec![what; FEATURES_MAX].join(" ");
    let wide = stump(0.5, NAN_TYPE).text();
    let wide = wide.replace("max_feature_idx=1", &format!("max_feature_idx={}", FEATURES_MAX - 1));
    let wide = wide.replace("Column_0 Column_1", &columns("c")).replace("none [-1:1]", &columns("none"));
    assert_eq!(scored::form(&wide).feature_dim, FEATURES_MAX);
}
