//! What a server scores with, and what it knows of where that came from.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use disrust_model::{Facts, LoadOptions, Loaded, Model};

use crate::admin::ModelFacts;

/// The format of a model that is no file.
const BUILT_IN: &str = "built in";

/// A model to serve.
pub struct ServedModel {
    pub(super) model: Box<dyn Model>,
    pub(super) file: Option<ServedFile>,
}

/// The file of a model that is served.
#[derive(Debug, Clone)]
pub(super) struct ServedFile {
    pub path: PathBuf,
    pub options: LoadOptions,
    pub facts: Facts,
}

impl ServedModel {
    /// What was loaded from the file at `path` with these options. SIGHUP loads it again.
    pub fn of_file(loaded: Loaded, path: PathBuf, options: LoadOptions) -> ServedModel {
        let Loaded { model, facts } = loaded;
        ServedModel { model, file: Some(ServedFile { path, options, facts }) }
    }

    /// What the admin port says of it.
    pub(super) fn facts(&self) -> ModelFacts {
        match &self.file {
            Some(file) => told_facts(&file.facts),
            None => ModelFacts {
                name: self.model.name().to_owned(),
                version: 0,
                format: BUILT_IN.to_owned(),
                features: self.model.feature_dim(),
                outputs: self.model.outputs(),
                feature_names: Vec::new(),
            },
        }
    }

    /// What a banner says of it, in lines.
    pub(super) fn description(&self) -> String {
        match (&self.file, self.model.outputs()) {
            (Some(file), _) => file.facts.to_string(),
            (None, 1) => format!("model: {}, {} features\n", self.model.name(), self.model.feature_dim()),
            (None, outputs) => {
                format!("model: {}, {} features, {outputs} outputs\n", self.model.name(), self.model.feature_dim())
            }
        }
    }
}

/// What the admin port says of a file's model.
pub(super) fn told_facts(facts: &Facts) -> ModelFacts {
    ModelFacts {
        name: facts.name.clone(),
        version: facts.version,
        format: facts.kind.clone(),
        features: facts.features,
        outputs: facts.outputs.len(),
        feature_names: facts.feature_names.clone(),
    }
}

impl<M: Model + 'static> From<Box<M>> for ServedModel {
    fn from(model: Box<M>) -> ServedModel {
        ServedModel { model, file: None }
    }
}

impl From<Box<dyn Model>> for ServedModel {
    fn from(model: Box<dyn Model>) -> ServedModel {
        ServedModel { model, file: None }
    }
}
