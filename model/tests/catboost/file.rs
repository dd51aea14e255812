//! Model files, made by hand.

/// An oblivious tree whose leaves are 1, 2, 4 and 8.
pub const OBLIVIOUS: &str = r#"{"leaf_values": [1, 2, 4, 8], "leaf_weights": [1, 1, 1, 1], "splits": [
    {"border": 0.5, "float_feature_index": 0, "split_index": 0, "split_type": "FloatFeature"},
    {"border": 2, "float_feature_index": 1, "split_index": 1, "split_type": "FloatFeature"}]}"#;

/// A model of two features.
#[derive(Clone)]
pub struct Model {
    features: String,
    info: String,
    trees_key: &'static str,
    trees: String,
    scale_and_bias: String,
}

impl Default for Model {
    /// One oblivious tree.
    fn default() -> Model {
        let model = Model {
            features: String::new(),
            info: String::new(),
            trees_key: "oblivious_trees",
            trees: format!("[{OBLIVIOUS}]"),
            scale_and_bias: "[1, [0]]".to_owned(),
        };
        model.missing("AsIs", false).loss("RMSE")
    }
}

impl Model {
    pub fn trees(self, trees: &str) -> Model {
        Model { trees: trees.to_owned(), ..self }
    }

    pub fn not_oblivious(self, trees: &str) -> Model {
        Model { trees_key: "trees", ..self.trees(trees) }
    }

    pub fn scale_and_bias(self, scale_and_bias: &str) -> Model {
        Model { scale_and_bias: scale_and_bias.to_owned(), ..self }
    }

    pub fn loss(self, loss: &str) -> Model {
        self.info(&params(loss))
    }

    /// The fields of `model_info`.
    pub fn info(self, info: &str) -> Model {
        Model { info: info.to_owned(), ..self }
    }

    /// What NaN counts as in both features.
    pub fn missing(self, treatment: &str, has_nans: bool) -> Model {
        let feature = |index: usize| {
            format!(
                r#"{{"borders": [0.5], "feature_id": "", "feature_index": {index}, "flat_feature_index": {index},
                "has_nans": {has_nans}, "nan_value_treatment": "{treatment}"}}"#
            )
        };
        self.features(&format!(r#""float_features": [{}, {}]"#, feature(0), feature(1)))
    }

    /// The fields of `features_info`.
    pub fn features(self, features: &str) -> Model {
        Model { features: features.to_owned(), ..self }
    }

    /// As CatBoost writes it.
    pub fn text(&self) -> String {
        let Model { features, info, trees_key, trees, scale_and_bias } = self;
        format!(
            r#"{{"features_info": {{{features}}}, "model_info": {{"catboost_version_info": "1", {info}}},
            "{trees_key}": {trees}, "scale_and_bias": {scale_and_bias}}}"#
        )
    }
}

/// A split by a feature of numbers.
pub fn split(feature: usize, border: f64) -> String {
    format!(
        r#"{{"border": {border}, "float_feature_index": {feature}, "split_index": 0, "split_type": "FloatFeature"}}"#
    )
}

/// The fields of `model_info` of a classifier.
pub fn classes(loss: &str, key: &str, labels: &str, to_label: &str, count: usize) -> String {
    let fields = format!(r#""class_names": {labels}, "class_to_label": {to_label}, "classes_count": {count}"#);
    format!(r#"{}, "{key}": {{"class_label_type": "String", {fields}}}"#, params(loss))
}

fn params(loss: &str) -> String {
    format!(r#""params": {{"iterations": 1, "loss_function": {{"params": {{}}, "type": "{loss}"}}}}"#)
}
