//! Files that are broken or were made to break something: they are refused with a reason that says where, and nothing else
//! happens.

use disrust_model::engine::Compiled;
use disrust_model::form::Form;
use disrust_model::read::read;

use super::document::{Doc, MODEL, Node, learner, model, text, tree};
use super::{files, scores};

fn small() -> Doc {
    let of_categories = [Node::Categories(1, vec![0, 2], 1, true), Node::Leaf(3.0), Node::Leaf(4.0)];
    let numeric = [
        Node::Split(0, 0.5, 1, true),
        Node::Split(1, 1.5, 3, false),
        Node::Leaf(1.0),
        Node::Leaf(2.0),
        Node::Leaf(4.0),
    ];
    model(vec![tree(0, &numeric), tree(1, &of_categories)])
}

fn reason(bytes: &[u8]) -> String {
    read(bytes, None).expect_err("it is refused").to_string()
}

/// Both encodings of the file are refused, with all of these words.
fn refused(doc: &Doc, words: &[&str]) {
    for reason in [reason(doc.json().as_bytes()), reason(&doc.ubj())] {
        assert!(words.iter().all(|word| reason.contains(word)), "{reason:?} has not all of {words:?}");
    }
}

/// What is wrong with one tree is said with the tree's number, the key, and what is there.
#[test]
fn broken_trees_are_refused_by_place() {
    let integers = |integers: &[i64]| Doc::Integers(integers.to_vec());
    let numbers = |numbers: &[f32]| Doc::Numbers(numbers.to_vec());
    let cases: [(&str, Doc, &[&str]); 25] = [
        ("left_children", integers(&[1, 0, -1, -1, -1]), &["left_children[1]", "node 0 is no child", "5 nodes"]),
        ("left_children", integers(&[3, 3, -1, -1, -1]), &["right_children[0]", "3 and 2"]),
        ("left_children", integers(&[1, 4, -1, -1, -1]), &["left_children[1]", "node 4 is no child"]),
        ("left_children", integers(&[1, -2, -1, -1, -1]), &["left_children[1]", "node -2 is no child"]),
        ("left_children", integers(&[1, 2_000_000_000, -1, -1, -1]), &["node 2000000000 is no child"]),
        ("left_children", integers(&[1, 1 << 31, -1, -1, -1]), &["left_children[1]", "2147483648 is too large"]),
        ("left_children", integers(&[1, 3, -1, -1]), &["left_children", "4 entries for 5 nodes"]),
        ("left_children", numbers(&[1.0, 3.0, -1.0, -1.0, -1.0]), &["left_children[0]", "an integer was expected"]),
        ("left_children", text("x"), &["left_children", "array"]),
        ("right_children", integers(&[2, 3, -1, -1, -1]), &["right_children[1]", "3 and 3", "neighbours"]),
        ("split_indices", integers(&[0, -1, 0, 0, 0]), &["split_indices[1]", "negative"]),
        ("split_indices", integers(&[0]), &["split_indices", "1 entries for 5 nodes"]),
        ("split_conditions", numbers(&[f32::NAN, 1.0, 1.0, 1.0, 1.0]), &["split_conditions[0]", "NaN"]),
        ("default_left", integers(&[0, 2, 0, 0, 0]), &["default_left[1]", "0 or 1"]),
        ("id", Doc::Integer(7), &["id 7", "tree 0"]),
        ("split_type", integers(&[0, 0, 0, 0, 3]), &["split_type[4]", "3 is neither"]),
        ("split_type", integers(&[0, 0, 0]), &["split_type", "3 entries for 5 nodes"]),
        ("split_type", integers(&[0, 1, 0, 0, 0]), &["categories_nodes", "node 1 splits by category, but lists none"]),
        ("categories_nodes", integers(&[0]), &["categories_nodes", "1 entries, 0 categories_segments"]),
        ("categories", integers(&[-1]), &["categories[0]", "negative"]),
        ("tree_param.num_nodes", text("1000000000"), &["5 entries for 1000000000 nodes"]),
        ("tree_param.num_nodes", text("-5"), &["tree_param.num_nodes", "\"-5\" is no count"]),
        ("tree_param.num_nodes", Doc::Integer(5), &["tree_param.num_nodes", "a string was expected"]),
        ("tree_param.size_leaf_vector", text(3), &["base_weights", "5 weights for 5 times 3"]),
        ("tree_param.size_leaf_vector", text(1_000_000_000), &["a leaf of 1000000000 values", "at most 4096"]),
    ];
    for (key, value, words) in cases {
        let place = format!("{MODEL}.trees[0]");
        let doc = small().with(&format!("{place}.{key}"), value);
        refused(&doc, &[&[place.as_str()], words].concat());
    }
    for key in ["left_children", "right_children", "split_indices", "split_conditions", "default_left", "tree_param"] {
        refused(&small().without(&format!("{MODEL}.trees[1].{key}")), &["trees[1]", "there is no", key]);
    }
}

/// A cycle, and a child of two, are no tree.
#[test]
fn nodes_are_reached_once() {
    let place = format!("{MODEL}.trees[0]");
    for (left, right, node) in
        [([1, 1, -1, -1, -1], [2, 2, -1, -1, -1], "1"), ([1, 3, 3, -1, -1], [2, 4, 4, -1, -1], "3")]
    {
        let doc = small()
            .with(&format!("{place}.left_children"), Doc::Integers(left.to_vec()))
            .with(&format!("{place}.right_children"), Doc::Integers(right.to_vec()));
        refused(&doc, &["trees[0].left_children", &format!("node {node} is reached twice")]);
    }
}

/// Categories that overlap could make a small file a large model.
#[test]
fn segments_of_categories_follow_each_other() {
    let place = format!("{MODEL}.trees[1]");
    let cases: [(&str, &[i64]); 5] = [
        ("categories_segments", &[1]),
        ("categories_segments", &[-1]),
        ("categories_sizes", &[3]),
        ("categories_sizes", &[0]),
        ("categories_sizes", &[i32::MAX as i64]),
    ];
    for (key, value) in cases {
        let doc = small().with(&format!("{place}.{key}"), Doc::Integers(value.to_vec()));
        refused(&doc, &["trees[1].categories_segments[0]", "of 2"]);
    }
    let two = small()
        .with(&format!("{place}.categories_nodes"), Doc::Integers(vec![1, 0]))
        .with(&format!("{place}.categories_segments"), Doc::Integers(vec![0, 1]))
        .with(&format!("{place}.categories_sizes"), Doc::Integers(vec![1, 1]));
    refused(&two, &["trees[1].categories_nodes", "not in order"]);
}

/// What the model and the learner say about themselves must agree, and be within limits, before anything is made of it.
#[test]
fn contradictions_are_refused() {
    let param = |key: &str| format!("learner.learner_model_param.{key}");
    let of_model = |key: &str| format!("{MODEL}.{key}");
    let cases: [(String, Doc, &[&str]); 23] = [
        (of_model("gbtree_model_param.num_trees"), text(1_000_000_000), &["num_trees", "1000000000 for 2 trees"]),
        (of_model("tree_info"), Doc::Integers(vec![0]), &["tree_info", "1 for 2 trees"]),
        (of_model("tree_info"), Doc::Integers(vec![0, 1]), &["tree_info[1]", "a target of 1"]),
        (of_model("tree_info"), Doc::Integers(vec![0, -1]), &["tree_info[1]", "a target of 1"]),
        (of_model("iteration_indptr"), Doc::Integers(vec![0, 3]), &["iteration_indptr", "3 for 2 trees"]),
        (of_model("trees"), Doc::Integers(vec![0, 3]), &["model.trees"]),
        (param("num_feature"), text(1), &["tree 0", "column 1 of 1"]),
        (param("num_feature"), text(0), &["num_feature", "it is 0"]),
        (
            param("num_feature"),
            text("4294967296"),
            &["4294967296 (learner.learner_model_param.num_feature)", "at most 4096"],
        ),
        (param("num_class"), text(1_000_000_000), &["1000000000", "num_class)", "at most 4096"]),
        (param("num_target"), text("99999999999999999999999"), &["num_target", "no count"]),
        (param("base_score"), text("NaN"), &["base_score", "neither a number"]),
        (param("base_score"), text("[1,2]"), &["base_score", "2 scores for 1 outputs"]),
        (param("base_score"), text(""), &["base_score", "neither a number"]),
        ("learner.feature_names".to_owned(), Doc::Array(vec![text("a")]), &["feature_names", "1 names for 2 features"]),
        (
            "learner.objective.name".to_owned(),
            text("reg:mine"),
            &["learner.objective", "\"reg:mine\"", "binary:logistic"],
        ),
        ("learner.objective.name".to_owned(), text("multi:softprob"), &["no softmax_multiclass_param.num_class"]),
        ("learner.gradient_booster.name".to_owned(), text("gbforest"), &["\"gbforest\"", "gblinear"]),
        ("learner.gradient_booster.name".to_owned(), text("gblinear"), &["there is no model.weights"]),
        ("version".to_owned(), Doc::Integers(vec![3, 5, 0]), &["3.5.0", "3.4 or older", "save_model('model.json')"]),
        ("version".to_owned(), Doc::Integers(vec![1, 2, 1]), &["1.2.1", "save_model('model.json')"]),
        ("version".to_owned(), Doc::Integers(vec![1, 6, 2]), &["by category", "1.6.2", "1.7 or newer"]),
        ("version".to_owned(), Doc::Integers(vec![3]), &["version", "3 numbers"]),
    ];
    for (path, value, words) in cases {
        refused(&small().with(&path, value), words);
    }
    let both = small().with(&param("num_class"), text(2)).with(&param("num_target"), text(2));
    refused(&both, &["2 classes for each of 2 targets"]);
    refused(&model(Vec::new()), &["no trees", "train it"]);
    let many = Doc::Array(vec![text(""); 5000]);
    refused(&small().with("learner.feature_names", many), &["feature_names[4096]", "4097", "at most 4096"]);
    let twice = small().and(&format!("{MODEL}.trees[0]"), "left_children", Doc::Integers(vec![-1; 5]));
    refused(&twice, &["trees[0].left_children", "twice"]);
    refused(&small().and("learner", "version", text(1)).without("learner.objective"), &["there is no objective"]);
}

/// Weights of a linear model and of dropped trees are as many as there must be.
#[test]
fn weights_are_counted() {
    let linear = |weights: usize| {
        let weights = Doc::Object(vec![("weights", Doc::Numbers(vec![1.0; weights]))]);
        learner(Doc::Object(vec![("model", weights), ("name", text("gblinear"))]))
    };
    refused(&linear(0), &["no weights", "train it"]);
    refused(&linear(4), &["weights", "4 weights for 2 features"]);
    let dropped = small().and(MODEL, "weight_drop", Doc::Numbers(vec![1.0]));
    refused(&dropped, &["weight_drop", "1 for 2 trees"]);
}

/// Leaves of vectors point at each other's weights: no more of them than there are.
#[test]
fn vector_leaves_are_within_their_weights() {
    let place = format!("{MODEL}.trees[0]");
    let vectors = model(vec![tree(0, &[Node::Split(0, 0.5, 1, true), Node::Leaf(0.0), Node::Leaf(0.0)])])
        .with(&format!("{place}.tree_param.size_leaf_vector"), text(2))
        .with("learner.learner_model_param.num_target", text(2));
    let with_weights = |right: [i64; 3], weights: usize| {
        vectors.with(&format!("{place}.right_children"), Doc::Integers(right.to_vec())).and(
            &place,
            "leaf_weights",
            Doc::Numbers(vec![1.0; weights]),
        )
    };
    assert!(read(&with_weights([2, 0, 1], 4).ubj(), None).is_ok());
    for right in [[2, 0, 2], [2, -1, 1]] {
        refused(&with_weights(right, 4), &["trees[0].right_children", "of 2 is meant"]);
    }
    refused(&with_weights([2, 0, 0], 2), &["leaf_weights", "2 weights for 2 times 2"]);
    let three = with_weights([2, 0, 1], 4).with("learner.learner_model_param.num_target", text(3));
    refused(&three, &["trees[0]", "leaves of 2 values", "3 outputs"]);
    refused(&vectors.without(&format!("{place}.base_weights")), &["neither leaf_weights nor base_weights"]);
}

/// A chain of splits as deep as the file is long ends in the form's limit, not on the stack.
#[test]
fn deep_trees_are_refused() {
    let depth = 100_000;
    // Each left child is the next split, each right one a leaf.
    let mut nodes = vec![Node::Split(0, 0.5, 1, true)];
    for level in 1..depth {
        nodes.extend([Node::Split(0, 0.5, 2 * level + 1, true), Node::Leaf(1.0)]);
    }
    nodes.extend([Node::Leaf(1.0), Node::Leaf(1.0)]);
    refused(&model(vec![tree(0, &nodes)]), &["tree 0", "more than 4096 levels"]);
}

/// Every cut of a file is noticed, and everything that follows it.
#[test]
fn cut_and_lengthened_files_are_refused() {
    for bytes in [small().json().into_bytes(), small().ubj()] {
        assert!(read(&bytes, None).is_ok());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], None).is_err(), "{length} of {}", bytes.len());
        }
        for more in ["{", "}", "x", "0"] {
            let error = reason(&[bytes.as_slice(), more.as_bytes()].concat());
            assert!(error.contains("the end of the file was expected"), "{error}");
        }
    }
}

/// What is changed at random is refused, or is a model that runs: no panic, no hang. The seeds are the numbers of the rounds.
#[test]
fn mutated_files_never_panic() {
    let mut files: Vec<Vec<u8>> =
        files().into_iter().map(|file| file.bytes).filter(|bytes| bytes.len() < 8000).collect();
    files.extend([small().json().into_bytes(), small().ubj()]);
    assert!(files.len() > 8, "the smaller models are there");
    let mut accepted = 0;
    for seed in 0..3000_u64 {
        let mut random = Random(seed);
        let mut bytes = files[random.below(files.len())].clone();
        for _ in 0..=random.below(3) {
            mutate(&mut bytes, &mut random);
        }
        if let Ok(form) = read(&bytes, None) {
            runs(form);
            accepted += 1;
        }
    }
    assert!(accepted > 30, "some changes leave a model: {accepted}");
}

fn runs(form: Form) {
    let row = vec![0.5; form.feature_dim];
    scores(&mut Compiled::new(form, "mutated"), &row);
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(5) {
        0 => bytes[at] = random.next() as u8,
        1 => bytes[at] ^= 1 << random.below(8),
        // Digits, signs and markers lead deeper than any byte.
        2 => bytes[at] = b"0123456789-.E,[]{}\"$#LlUdS"[random.below(26)],
        3 => {
            let end = (at + random.below(16)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let end = (at + random.below(16)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, again);
        }
    }
    if bytes.is_empty() {
        bytes.push(b'{');
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
