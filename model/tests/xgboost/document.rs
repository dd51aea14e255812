//! Model files made by hand: a value that both encodings can be written of, and the keys that XGBoost would write.

/// A value of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Doc {
    Text(String),
    Integer(i64),
    Integers(Vec<i64>),
    Numbers(Vec<f32>),
    Array(Vec<Doc>),
    Object(Vec<(&'static str, Doc)>),
}

/// A string.
pub fn text(text: impl ToString) -> Doc {
    Doc::Text(text.to_string())
}

impl Doc {
    /// The value at a path like `learner.gradient_booster.model.trees[0].id`.
    pub fn at(&mut self, path: &str) -> &mut Doc {
        path.split('.').fold(self, |doc, part| {
            let (key, index) = part.split_once('[').map_or((part, None), |(key, index)| (key, Some(index)));
            let Doc::Object(entries) = doc else { panic!("{key} is asked of {doc:?}") };
            let place = entries.iter().position(|(name, _)| *name == key).unwrap_or_else(|| panic!("no {key}"));
            let value = &mut entries[place].1;
            match (index, value) {
                (None, value) => value,
                (Some(index), Doc::Array(values)) => {
                    &mut values[index.trim_end_matches(']').parse::<usize>().expect("an index")]
                }
                (Some(_), value) => panic!("an element is asked of {value:?}"),
            }
        })
    }

    /// The document with another value at a path.
    pub fn with(&self, path: &str, value: Doc) -> Doc {
        let mut doc = self.clone();
        *doc.at(path) = value;
        doc
    }

    /// The document without the key at the end of a path.
    pub fn without(&self, path: &str) -> Doc {
        let mut doc = self.clone();
        let (parent, key) = path.rsplit_once('.').expect("a key in something");
        let Doc::Object(entries) = doc.at(parent) else { panic!("{parent} is no object") };
        entries.retain(|(name, _)| *name != key);
        doc
    }

    /// The document with one more key in the object at a path.
    pub fn and(&self, path: &str, key: &'static str, value: Doc) -> Doc {
        let mut doc = self.clone();
        let Doc::Object(entries) = doc.at(path) else { panic!("{path} is no object") };
        entries.push((key, value));
        doc
    }

    /// As XGBoost writes JSON.
    pub fn json(&self) -> String {
        let list = |values: Vec<String>| format!("[{}]", values.join(","));
        match self {
            Doc::Text(text) => format!("{text:?}"),
            Doc::Integer(integer) => integer.to_string(),
            Doc::Integers(integers) => list(integers.iter().map(i64::to_string).collect()),
            Doc::Numbers(numbers) => list(numbers.iter().copied().map(number).collect()),
            Doc::Array(values) => list(values.iter().map(Doc::json).collect()),
            Doc::Object(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key:?}:{}", value.json()));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
        }
    }

    /// As XGBoost writes UBJSON.
    pub fn ubj(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_ubj(&mut bytes);
        bytes
    }

    fn write_ubj(&self, bytes: &mut Vec<u8>) {
        let length = |bytes: &mut Vec<u8>, length: usize| {
            bytes.push(b'L');
            bytes.extend_from_slice(&(length as i64).to_be_bytes());
        };
        match self {
            Doc::Text(text) => {
                bytes.push(b'S');
                length(bytes, text.len());
                bytes.extend_from_slice(text.as_bytes());
            }
            Doc::Integer(integer) => {
                bytes.push(b'L');
                bytes.extend_from_slice(&integer.to_be_bytes());
            }
            Doc::Integers(integers) => {
                bytes.extend_from_slice(b"[$L#");
                length(bytes, integers.len());
                integers.iter().for_each(|integer| bytes.extend_from_slice(&integer.to_be_bytes()));
            }
            Doc::Numbers(numbers) => {
                bytes.extend_from_slice(b"[$d#");
                length(bytes, numbers.len());
                numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
            }
            Doc::Array(values) => {
                bytes.extend_from_slice(b"[#");
                length(bytes, values.len());
                values.iter().for_each(|value| value.write_ubj(bytes));
            }
            Doc::Object(entries) => {
                bytes.push(b'{');
                for (key, value) in entries {
                    length(bytes, key.len());
                    bytes.extend_from_slice(key.as_bytes());
                    value.write_ubj(bytes);
                }
                bytes.push(b'}');
            }
        }
    }
}

fn number(number: f32) -> String {
    match number {
        number if number.is_nan() => "NaN".to_owned(),
        f32::INFINITY => "Infinity".to_owned(),
        f32::NEG_INFINITY => "-Infinity".to_owned(),
        number => format!("{number:E}"),
    }
}

/// A node of a tree made by hand. Children are given by the left one; the right one is its neighbour.
#[derive(Debug, Clone)]
pub enum Node {
    /// Feature, threshold, left child, whether missing values go left.
    Split(i64, f32, i64, bool),
    /// Feature, listed categories, left child, whether missing values go left.
    Categories(i64, Vec<i64>, i64, bool),
    Leaf(f32),
    /// What pruning leaves behind.
    Deleted,
}

/// Number `id` of a model's trees.
pub fn tree(id: i64, nodes: &[Node]) -> Doc {
    let integers = |of: &dyn Fn(&Node) -> i64| Doc::Integers(nodes.iter().map(of).collect());
    let left = |node: &Node| match node {
        Node::Split(_, _, left, _) | Node::Categories(_, _, left, _) => *left,
        Node::Leaf(_) | Node::Deleted => -1,
    };
    let right = |node: &Node| if left(node) < 0 { -1 } else { left(node) + 1 };
    let feature = |node: &Node| match node {
        Node::Split(feature, ..) | Node::Categories(feature, ..) => *feature,
        Node::Leaf(_) => 0,
        Node::Deleted => i64::from(i32::MAX),
    };
    let condition = |node: &Node| match node {
        Node::Split(_, value, ..) | Node::Leaf(value) => *value,
        Node::Categories(..) | Node::Deleted => f32::from_bits(1),
    };
    let default_left = |node: &Node| match node {
        Node::Split(_, _, _, left) | Node::Categories(_, _, _, left) => i64::from(*left),
        Node::Leaf(_) => 0,
        Node::Deleted => 1,
    };
    let listed = |node: &Node| match node {
        Node::Categories(_, categories, ..) => categories.clone(),
        _ => Vec::new(),
    };
    let lists: Vec<Vec<i64>> = nodes.iter().map(listed).collect();
    let filled = || lists.iter().enumerate().filter(|(_, list)| !list.is_empty());
    let mut begin = 0;
    let segments = filled().map(|(_, list)| {
        begin += list.len() as i64;
        begin - list.len() as i64
    });
    let deleted = nodes.iter().filter(|node| matches!(node, Node::Deleted)).count();
    Doc::Object(vec![
        ("base_weights", Doc::Numbers(vec![9.0; nodes.len()])),
        ("categories_segments", Doc::Integers(segments.collect())),
        ("categories", Doc::Integers(lists.concat())),
        ("categories_nodes", Doc::Integers(filled().map(|(node, _)| node as i64).collect())),
        ("categories_sizes", Doc::Integers(filled().map(|(_, list)| list.len() as i64).collect())),
        ("default_left", integers(&default_left)),
        ("id", Doc::Integer(id)),
        ("left_children", integers(&left)),
        ("loss_changes", Doc::Numbers(vec![f32::NAN; nodes.len()])),
        ("parents", Doc::Integers(vec![i64::from(i32::MAX); nodes.len()])),
        ("right_children", integers(&right)),
        ("split_conditions", Doc::Numbers(nodes.iter().map(condition).collect())),
        ("split_indices", integers(&feature)),
        ("split_type", integers(&|node| i64::from(matches!(node, Node::Categories(..))))),
        ("sum_hessian", Doc::Numbers(vec![f32::INFINITY; nodes.len()])),
        (
            "tree_param",
            Doc::Object(vec![
                ("num_deleted", text(deleted)),
                ("num_feature", text(2)),
                ("num_nodes", text(nodes.len())),
                ("size_leaf_vector", text(1)),
            ]),
        ),
    ])
}

/// A model of two features and one output, `reg:squarederror`, that starts at 0.
pub fn model(trees: Vec<Doc>) -> Doc {
    let count = trees.len();
    let booster = Doc::Object(vec![
        ("cats", Doc::Object(vec![("enc", Doc::Array(Vec::new()))])),
        ("gbtree_model_param", Doc::Object(vec![("num_parallel_tree", text(1)), ("num_trees", text(count))])),
        ("iteration_indptr", Doc::Integers((0..=count as i64).collect())),
        ("tree_info", Doc::Integers(vec![0; count])),
        ("trees", Doc::Array(trees)),
    ]);
    learner(Doc::Object(vec![("model", booster), ("name", text("gbtree"))]))
}

/// A model of two features and one output around a booster.
pub fn learner(booster: Doc) -> Doc {
    Doc::Object(vec![
        (
            "learner",
            Doc::Object(vec![
                ("attributes", Doc::Object(vec![("best_iteration", text(0))])),
                ("feature_names", Doc::Array(Vec::new())),
                ("feature_types", Doc::Array(Vec::new())),
                ("gradient_booster", booster),
                (
                    "learner_model_param",
                    Doc::Object(vec![
                        ("base_score", text("0E0")),
                        ("boost_from_average", text(1)),
                        ("num_class", text(0)),
                        ("num_feature", text(2)),
                        ("num_target", text(1)),
                    ]),
                ),
                ("objective", Doc::Object(vec![("name", text("reg:squarederror"))])),
            ]),
        ),
        ("version", Doc::Integers(vec![3, 2, 0])),
    ])
}

/// The path of the booster's model.
pub const MODEL: &str = "learner.gradient_booster.model";
