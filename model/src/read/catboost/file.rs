//! The fields of the file that scores depend on, as they are. All else is skipped without being kept.
//!
//! serde_json bounds the nesting, and with it the recursion over [`Node`]s, to 128 levels; a field that is there twice is an
//! error.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

#[derive(Deserialize)]
pub(super) struct Model<'a> {
    #[serde(borrow)]
    pub features_info: FeaturesInfo<'a>,
    #[serde(borrow)]
    pub model_info: ModelInfo<'a>,
    #[serde(borrow)]
    pub oblivious_trees: Option<Trees<ObliviousTree<'a>>>,
    #[serde(borrow)]
    pub trees: Option<Trees<Node<'a>>>,
    /// Absent before CatBoost 0.21: 1 and 0.
    pub scale_and_bias: Option<(f64, Bias)>,
}

/// What is added to the sums in the end.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Bias {
    One(f64),
    Each(Vec<f64>),
}

/// CatBoost has no features of text or embeddings in its JSON; a kind that is not known would move the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeaturesInfo<'a> {
    #[serde(borrow)]
    pub float_features: Option<Vec<FloatFeature<'a>>>,
    #[serde(borrow)]
    pub categorical_features: Option<Vec<CategoricalFeature<'a>>>,
    #[serde(rename = "ctrs")]
    _ctrs: Option<IgnoredAny>,
    #[serde(rename = "cat_features_hash")]
    _cat_features_hash: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct FloatFeature<'a> {
    /// What splits call it: its place among the features of numbers.
    pub feature_index: usize,
    /// Its place in a row.
    pub flat_feature_index: usize,
    pub has_nans: Option<bool>,
    #[serde(borrow)]
    pub nan_value_treatment: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub feature_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub feature_name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct CategoricalFeature<'a> {
    pub flat_feature_index: usize,
    #[serde(borrow)]
    pub feature_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub feature_name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct ModelInfo<'a> {
    /// In a sum of models: a [`LossFunction`] as text. Comes before that of the parameters.
    #[serde(borrow)]
    pub loss_function: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub params: Option<Params<'a>>,
    #[serde(alias = "multiclass_params")]
    pub class_params: Option<ClassParams>,
}

#[derive(Deserialize)]
pub(super) struct Params<'a> {
    #[serde(borrow)]
    pub loss_function: Option<LossFunction<'a>>,
}

#[derive(Deserialize)]
pub(super) struct LossFunction<'a> {
    #[serde(borrow, rename = "type")]
    pub name: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
pub(super) struct ClassParams {
    /// Empty if the user gave none and a number of classes instead.
    #[serde(default)]
    pub class_names: Vec<Label>,
    /// Which of the user's classes each dimension stands for.
    #[serde(default)]
    pub class_to_label: Vec<f64>,
    /// 0 if the user gave none.
    #[serde(default)]
    pub classes_count: usize,
}

/// The label of a class.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Label {
    Text(String),
    Integer(i64),
    Float(f64),
    Truth(bool),
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Text(text) => formatter.write_str(text),
            Label::Integer(integer) => integer.fmt(formatter),
            Label::Float(float) => float.fmt(formatter),
            Label::Truth(truth) => truth.fmt(formatter),
        }
    }
}

/// All splits of a level are the same one.
#[derive(Deserialize)]
pub(super) struct ObliviousTree<'a> {
    /// Nothing, or null, if the tree has but one leaf.
    #[serde(borrow)]
    pub splits: Option<Vec<Split<'a>>>,
    /// Leaf by leaf, each with a value for each dimension.
    pub leaf_values: Vec<f64>,
}

/// A split with its two sides, or a leaf.
#[derive(Deserialize)]
pub(super) struct Node<'a> {
    #[serde(borrow)]
    pub split: Option<Split<'a>>,
    #[serde(borrow)]
    pub left: Option<Box<Node<'a>>>,
    #[serde(borrow)]
    pub right: Option<Box<Node<'a>>>,
    pub value: Option<LeafValue>,
}

/// One value, or one for each dimension.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum LeafValue {
    One(f64),
    Each(Vec<f64>),
}

/// Which other fields there are depends on the type.
#[derive(Deserialize)]
pub(super) struct Split<'a> {
    #[serde(borrow)]
    pub split_type: Cow<'a, str>,
    pub float_feature_index: Option<usize>,
    pub border: Option<f32>,
}

/// Trees; an error in one of them names it.
pub(super) struct Trees<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Trees<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(TreesVisitor(PhantomData))
    }
}

struct TreesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TreesVisitor<T> {
    type Value = Trees<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of trees")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Trees<T>, A::Error> {
        let mut trees = Vec::new();
        loop {
            match sequence.next_element() {
                Ok(Some(tree)) => trees.push(tree),
                Ok(None) => return Ok(Trees(trees)),
                Err(error) => return Err(Error::custom(format_args!("tree {}: {error}", trees.len()))),
            }
        }
    }
}

/// Whether one of the file's outermost fields is one that CatBoost's models have and no other format does. Goes no further
/// than to the first of them.
pub(super) fn has_field_of_model(bytes: &[u8]) -> bool {
    let mut found = false;
    // An error only means that there is more after the field, or that what comes before it is no JSON.
    let _ = serde_json::Deserializer::from_slice(bytes).deserialize_map(FieldVisitor(&mut found));
    found
}

struct FieldVisitor<'a>(&'a mut bool);

impl<'de> Visitor<'de> for FieldVisitor<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if matches!(&*key, "features_info" | "oblivious_trees" | "trees") {
                *self.0 = true;
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
