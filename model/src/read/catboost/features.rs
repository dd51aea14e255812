//! What the rows of a model look like, and what its splits ask of them.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::file::{FeaturesInfo, FloatFeature, Split};
use super::{malformed, unsupported};
use crate::form::limits::FEATURES_MAX;
use crate::form::{Child, Split as FormSplit, Test};
use crate::read::ReadError;

pub(super) struct Features {
    /// Places in a row: 1 to [`FEATURES_MAX`].
    pub count: usize,
    /// As many, or none.
    pub names: Vec<String>,
    /// By what splits call them.
    floats: HashMap<usize, Float>,
}

/// A feature of numbers.
struct Float {
    /// Its place in a row.
    place: u32,
    /// What NaN counts as.
    missing: Missing,
}

/// `ENanValueTreatment`, where the training rows had NaN; where they had none, NaN is not above any border, `AsFalse`.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    /// Below all borders.
    Low,
    /// As +∞, above all finite borders.
    High,
}

impl Features {
    pub fn read(info: &FeaturesInfo<'_>) -> Result<Features, ReadError> {
        let floats = info.float_features.as_deref().unwrap_or_default();
        let categories = info.categorical_features.as_deref().unwrap_or_default();
        let float_names =
            floats.iter().map(|feature| (feature.flat_feature_index, [&feature.feature_name, &feature.feature_id]));
        let category_names =
            categories.iter().map(|feature| (feature.flat_feature_index, [&feature.feature_name, &feature.feature_id]));
        let named = || float_names.clone().chain(category_names.clone());
        let count = named().map(|(place, _)| place.saturating_add(1)).max().unwrap_or_default();
        if count > FEATURES_MAX {
            let what = format!("flat_feature_index {}", count - 1);
            return Err(unsupported(what, format!("train on at most {FEATURES_MAX} features")));
        }
        let mut names: Vec<String> = (0..count).map(|place| place.to_string()).collect();
        let mut any_name = false;
        let mut taken = vec![false; count];
        for (place, [name, id]) in named() {
            if std::mem::replace(&mut taken[place], true) {
                return Err(malformed(format!("two features have flat_feature_index {place}")));
            }
            if let Some(name) = [name, id].into_iter().flatten().find(|name| !name.is_empty()) {
                names[place] = name.to_string();
                any_name = true;
            }
        }
        if !any_name {
            names.clear();
        }
        Ok(Features { count, names, floats: by_index(floats)? })
    }

    /// A split between `yes`, not above the border, and `no`. `tree` is what errors call the tree.
    pub fn split(&self, tree: usize, split: &Split<'_>, yes: Child, no: Child) -> Result<FormSplit, ReadError> {
        if split.split_type != "FloatFeature" {
            let instead = "train on numbers alone, with categories encoded before";
            return Err(unsupported(format!("tree {tree}: a split of type {}", split.split_type), instead));
        }
        let (Some(index), Some(border)) = (split.float_feature_index, split.border) else {
            return Err(malformed(format!("tree {tree}: a split has no float_feature_index or no border")));
        };
        let Some(feature) = self.floats.get(&index) else {
            return Err(malformed(format!(
                "tree {tree}: a split has float_feature_index {index}, which no feature has"
            )));
        };
        if border.is_nan() {
            return Err(malformed(format!("tree {tree}: a border is NaN")));
        }
        let test = Test::AtMost { threshold: border, zero: None };
        let missing = feature.missing == Missing::Low || border == f32::INFINITY;
        Ok(FormSplit { feature: feature.place, test, missing, yes, no })
    }
}

fn by_index(floats: &[FloatFeature<'_>]) -> Result<HashMap<usize, Float>, ReadError> {
    let mut features = HashMap::new();
    for feature in floats {
        let FloatFeature { feature_index, flat_feature_index, .. } = *feature;
        let float = Float { place: flat_feature_index as u32, missing: missing(feature)? };
        if features.insert(feature_index, float).is_some() {
            return Err(malformed(format!("two features have feature_index {feature_index}")));
        }
    }
    Ok(features)
}

/// NaN is compared like any value (and so above no border) unless the training rows had some: `BinarizeFeatures`.
fn missing(feature: &FloatFeature<'_>) -> Result<Missing, ReadError> {
    match feature.nan_value_treatment.as_deref() {
        Some("AsTrue") if feature.has_nans != Some(false) => Ok(Missing::High),
        None | Some("AsIs" | "AsFalse" | "AsTrue") => Ok(Missing::Low),
        Some(other) => {
            let what = format!("feature {}: nan_value_treatment {other:?}", feature.flat_feature_index);
            Err(unsupported(what, "AsIs, AsFalse and AsTrue are"))
        }
    }
}
