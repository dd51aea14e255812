//! Files that are malformed, cut, hostile, or hold what is not supported: each is an error that says what and where.

use disrust_model::read::read;

use super::file::{Model, leaf, stump};
use crate::scored::assert_refused;

/// Two trees: a stump, and a linear one with categories.
fn model() -> String {
    let stump = stump(0.5, 8).text();
    let tree = stump.split("Tree=0\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a tree");
    let linear = "num_leaves=2\nnum_cat=1\nsplit_feature=1\nthreshold=0\ndecision_type=1\nleft_child=-1\nright_child=-2\n\
                  leaf_value=1 2\ncat_boundaries=0 1\ncat_threshold=6\nis_linear=1\nleaf_const=1 2\nnum_features=1 0\n\
                  leaf_features=0   \nleaf_coeff=2   ";
    Model::new(&[tree, linear]).objective("binary sigmoid:1").text()
}

/// The file with the last of `from` replaced; that of the second tree, where both have it.
#[track_caller]
fn with(from: &str, to: &str) -> String {
    let text = model();
    let start = text.rfind(from).unwrap_or_else(|| panic!("{from:?} is there"));
    format!("{}{to}{}", &text[..start], &text[start + from.len()..])
}

/// Errors name the tree, the key and what is wrong with it.
#[test]
fn what_is_wrong_in_a_tree_is_named() {
    for (from, to, words) in [
        ("num_leaves=2", "num_leaves=3", &["tree 1", "leaf_value", "2 numbers instead of 3"][..]),
        ("num_leaves=2", "num_leaves=1", &["tree 1", "leaf_value", "more than the 1"]),
        ("num_leaves=2", "num_leaves=0", &["tree 1", "num_leaves", "0"]),
        ("num_leaves=2", "num_leaves=-2", &["tree 1", "num_leaves", "\"-2\""]),
        ("num_leaves=2", "num_leaves=1000000000", &["tree 1", "leaf_value", "2 numbers instead of 1000000000"]),
        ("num_leaves=2", "num_leaves=99999999999999999999", &["tree 1", "num_leaves"]),
        ("num_leaves=2\n", "", &["tree 1", "num_leaves", "missing"]),
        ("num_cat=1\n", "", &["tree 1", "num_cat", "missing"]),
        ("num_cat=1", "num_cat=1000000000", &["tree 1", "cat_boundaries", "instead of 1000000001"]),
        ("num_cat=1", "num_cat=18446744073709551615", &["tree 1", "cat_boundaries"]),
        ("num_cat=1", "num_cat=0", &["tree 1", "threshold", "split 0 is of categories 0", "num_cat=0"]),
        ("threshold=0", "threshold=1", &["tree 1", "threshold", "categories 1", "num_cat=1"]),
        ("threshold=0", "threshold=-1", &["tree 1", "threshold", "categories -1"]),
        ("threshold=0", "threshold=nan", &["tree 1", "threshold", "NaN"]),
        ("threshold=0.5", "threshold=nan", &["tree 0", "threshold", "split 0 is NaN"]),
        ("threshold=0.5", "threshold=0x1p3", &["tree 0", "threshold", "\"0x1p3\""]),
        ("threshold=0.5", "threshold=0,5", &["tree 0", "threshold", "\"0,5\""]),
        ("decision_type=1", "decision_type=12", &["tree 1", "decision_type", "split 0, 12"]),
        ("decision_type=1", "decision_type=-1", &["tree 1", "decision_type", "\"-1\""]),
        ("cat_boundaries=0 1", "cat_boundaries=0 2", &["tree 1", "cat_threshold", "1 numbers instead of 2"]),
        ("cat_boundaries=0 1", "cat_boundaries=1 1", &["tree 1", "cat_boundaries", "ascend"]),
        ("cat_boundaries=0 1", "cat_boundaries=0 18446744073709551615", &["tree 1", "cat_threshold"]),
        ("cat_threshold=6", "cat_threshold=4294967296", &["tree 1", "cat_threshold"]),
        ("split_feature=1", "split_feature=2", &["tree 1", "split_feature", "feature 2 of 2"]),
        ("split_feature=1", "split_feature=-1", &["tree 1", "split_feature", "\"-1\""]),
        ("left_child=-1", "left_child=0", &["tree 1", "split 0 is reached twice"]),
        ("left_child=-1", "left_child=-2", &["tree 1", "leaf 1 is reached twice"]),
        ("left_child=-1", "left_child=-9", &["tree 1", "no leaf 8"]),
        ("left_child=-1", "left_child=-2147483648", &["tree 1", "no leaf 2147483647"]),
        ("left_child=-1", "left_child=7", &["tree 1", "no split 7"]),
        ("right_child=-2", "right_child=", &["tree 1", "right_child", "0 numbers instead of 1"]),
        ("is_linear=1", "is_linear=2", &["tree 1", "is_linear"]),
        ("leaf_const=1 2", "leaf_const=1", &["tree 1", "leaf_const", "1 numbers instead of 2"]),
        ("num_features=1 0", "num_features=1 18446744073709551615", &["tree 1", "leaf_features"]),
        ("num_features=1 0", "num_features=1 -1", &["tree 1", "num_features", "\"-1\""]),
        ("leaf_features=0", "leaf_features=5", &["tree 1", "leaf_features", "feature 5 of 2"]),
        ("leaf_features=0", "leaf_features=-5", &["tree 1", "leaf_features", "\"-5\""]),
        ("leaf_coeff=2", "leaf_coeff=", &["tree 1", "leaf_coeff", "0 numbers instead of 1"]),
        ("leaf_value=1 2", "leaf_value=1 2\nleaf_value=1 2", &["tree 1", "leaf_value", "twice"]),
        ("leaf_value=1 2", "leaf_value=1 2\nleaf_spline=1", &["tree 1", "\"leaf_spline\"", "not supported"]),
        ("leaf_value=1 2", "leaf_value=1 2\n1 2 3", &["tree 1", "\"1 2 3\"", "not supported"]),
    ] {
        assert_refused(with(from, to).as_bytes(), words);
    }
}

/// So do errors in what stands before and between the trees.
#[test]
fn what_is_wrong_around_the_trees_is_named() {
    for (from, to, words) in [
        ("version=v4", "version=v5", &["version=v5", "not supported"][..]),
        ("version=v4\n", "", &["no version", "not supported", "2.0.12"]),
        ("num_class=1\n", "", &["the header", "num_class", "missing"]),
        ("num_class=1", "num_class=2", &["the header", "num_class", "num_tree_per_iteration=1"]),
        ("iteration=1", "iteration=0", &["the header", "num_tree_per_iteration", "0"]),
        ("iteration=1", "iteration=1000000000", &["num_tree_per_iteration=1000000000", "4096"]),
        ("max_feature_idx=1", "max_feature_idx=-1", &["the header", "max_feature_idx"]),
        ("max_feature_idx=1", "max_feature_idx=4096", &["max_feature_idx=4096", "4096 features"]),
        ("max_feature_idx=1", "max_feature_idx=2", &["the header", "2 entries for 3 features"]),
        ("max_feature_idx=1\n", "max_feature_idx=1\nmax_feature_idx=1\n", &["max_feature_idx", "twice"]),
        ("max_feature_idx=1\n", "max_feature_idx=1\nmystery=1\n", &["the header", "\"mystery\"", "not supported"]),
        ("names=Column_0 Column_1", "names=Column_0", &["the header", "feature_names", "1 entries for 2"]),
        ("infos=none [-1:1]", "infos=none", &["the header", "feature_infos", "1 entries for 2"]),
        ("binary sigmoid:1", "binary", &["the header", "objective", "sigmoid"]),
        ("binary sigmoid:1", "binary sigmoid:0", &["the header", "objective", "sigmoid"]),
        ("binary sigmoid:1", "binary sigmoid:nan", &["the header", "objective", "sigmoid"]),
        ("binary sigmoid:1", "binary sigmoid:1 mystery:1", &["\"mystery:1\"", "not supported"]),
        ("binary sigmoid:1", "mystery", &["objective=mystery", "not supported"]),
        ("binary sigmoid:1", "", &["the header", "objective", "empty"]),
        ("binary sigmoid:1", "multiclass", &["the header", "objective", "num_class"]),
        ("binary sigmoid:1", "multiclass num_class:3", &["the header", "objective", "3 sums"]),
        ("end of trees", "Tree=2", &["tree 2", "num_leaves", "missing"]),
        ("end of trees\n", "the end\n", &["tree 1", "\"the end\""]),
    ] {
        assert_refused(with(from, to).as_bytes(), words);
    }
    let one_more = model().replace("tree_sizes=", "tree_sizes=1 ");
    assert_refused(one_more.as_bytes(), &["2 trees", "tree_sizes has 3"]);
    let uneven = Model::new(&[&leaf(1.0)]).classes(2).text();
    assert_refused(uneven.as_bytes(), &["1 trees", "num_tree_per_iteration=2"]);
    let averaged = Model::new(&[]).average().text();
    assert_refused(averaged.as_bytes(), &["average_output"]);
}

/// A file that is cut anywhere before the end of its trees is refused.
#[test]
fn cut_files_are_refused() {
    let text = model();
    let end = text.find("end of trees").expect("an end") + "end of trees".len();
    for length in 0..end {
        assert!(read(&text.as_bytes()[..length], None).is_err(), "{length} of {end} bytes");
    }
    assert!(read(&text.as_bytes()[..end], None).is_ok());
    let before_the_first = text.find("Tree=0").expect("a tree");
    assert_refused(&text.as_bytes()[..before_the_first], &["cut", "0 trees"]);
}

/// What is no UTF-8 is an error where it matters and passed over where it does not.
#[test]
fn invalid_utf8_is_named() {
    let swapped = |from: &str, to: &[u8]| -> Vec<u8> {
        let text = model();
        let start = text.rfind(from).expect("it is there");
        [&text.as_bytes()[..start], to, &text.as_bytes()[start + from.len()..]].concat()
    };
    assert_refused(&swapped("Column_0 ", b"\xff "), &["the header", "feature_names", "UTF-8"]);
    assert_refused(&swapped("leaf_value=1 2", b"leaf_value=\xff 2"), &["tree 1", "leaf_value", "UTF-8"]);
    assert_refused(&swapped("leaf_value=1 2", b"leaf_\xff=1 2"), &["tree 1", "the key"]);
    assert!(read(&[model().as_bytes(), b"\nparameters:\n[data: \xff]\n"].concat(), None).is_ok());
}

/// One set of categories serves one split, so that a small file cannot ask for many copies of a large set.
#[test]
fn a_set_of_categories_is_not_shared() {
    let shared = Model::new(&[
        "num_leaves=3\nnum_cat=1\nsplit_feature=0 0\nthreshold=0 0\nleft_child=-1 -2\nright_child=1 -3\n\
         leaf_value=1 2 3\ndecision_type=1 1\ncat_boundaries=0 1\ncat_threshold=6",
    ]);
    assert_refused(shared.text().as_bytes(), &["tree 0", "split 1", "categories 0, as another"]);
}
