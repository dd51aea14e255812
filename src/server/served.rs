//! What a server scores with, and what it knows of where that came from.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use disrust_model::{Facts, LoadOptions, Loaded, Model};

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
