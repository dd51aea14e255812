//! How this reader complains: always of something that has a name in the file.

use crate::read::ReadError;

const FORMAT: &str = "ONNX";

pub(super) fn malformed(what: impl Into<String>) -> ReadError {
    ReadError::Malformed { format: FORMAT, what: what.into() }
}

pub(super) fn unsupported(what: impl Into<String>, instead: impl Into<String>) -> ReadError {
    ReadError::Unsupported { format: FORMAT, what: what.into(), instead: instead.into() }
}

/// Text out of the file, in quotes, without control characters, and never long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    format!("{shown:?}{}", if shown.len() < text.len() { "…" } else { "" })
}
