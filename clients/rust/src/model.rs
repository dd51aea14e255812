//! What a server says of its model.
#![forbid(unsafe_code)]

use disrust_protocol::ServerHello;

use crate::limits::{FEATURES_MAX, OUTPUTS_MAX};

/// What a server says of its model when it is asked (hello).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Its name: `sum`, the stem of its file, or what the server was told to call it.
    pub name: String,
    /// The first 8 bytes of its file's SHA-256, the first one highest; 0 for `sum`, which is no file.
    pub version: u64,
    /// Features in a row.
    pub feature_dim: usize,
    /// Scores for each row.
    pub outputs: usize,
    /// Rows that one request may have. Calls may have any number; the client splits them.
    pub max_vectors: usize,
}

impl ModelInfo {
    /// Errors with what is wrong with it, if the client cannot believe it.
    pub(crate) fn of(hello: ServerHello<'_>) -> Result<ModelInfo, String> {
        if hello.feature_dim > FEATURES_MAX || hello.outputs > OUTPUTS_MAX {
            let (features, outputs) = (hello.feature_dim, hello.outputs);
            return Err(format!("it claims a model of {features} features and {outputs} outputs"));
        }
        Ok(ModelInfo {
            name: hello.model_name.to_owned(),
            version: hello.model_version,
            feature_dim: hello.feature_dim as usize,
            outputs: hello.outputs as usize,
            max_vectors: hello.max_vectors as usize,
        })
    }
}
