//! How this reader complains: always of something that has a name in the file.

use crate::read::ReadError;

const FORMAT: &str = "ONNX";

pub(super) fn malformed(what: impl Into<String>) -> ReadError {
    ReadError::Malformed { format: FORMAT, what: what.into() }
}

pub(super) fn unsupported(what: impl Into<String>, instead: impl Into<String>) -> ReadError {
    ReadError::Unsupported { format: FORMAT, what: what.into(), instead: instead.into() }
}

/// What is not supported of a graph's insides may be by onnxruntime.
pub(super) fn for_onnxruntime(error: ReadError) -> ReadError {
    match error {
        ReadError::Unsupported { what, instead, .. } => ReadError::ForOnnxruntime { what, instead },
        other => other,
    }
}

/// Text out of the file, in quotes, without control characters, and never long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    format!("{shown:?}{}", if shown.len() < text.len() { "…" } else { "" })
}
