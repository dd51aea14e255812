//! XGBoost's models, versions 1.3 to 3.4, in JSON and UBJSON: what `save_model('model.json')` and `('model.ubj')` write.
//!
//! The answer is that of `Booster.predict`: all trees count, also those after `best_iteration`, which only the scikit-learn
//! wrapper leaves out (`booster[:booster.best_iteration + 1].save_model(…)` makes a file of the others). Custom objectives
//! are saved under the name of the one they replaced; what they do after the sums is not in the file.
//!
//! Rows hold what a DMatrix of numbers holds: NaN is missing, 0 is not; a category is its code. Where a data frame was
//! trained on, the code is the category's place in the frame's list, which newer files keep in `cats`; rows that come as
//! numbers are not coded anew, here as there.
//!
//! Both encodings are read in one go through the same code ([`source::Source`]); trees become [`crate::form::Tree`]s as
//! they come, so that nothing but them is in memory beside the file.
#![forbid(unsafe_code)]

mod booster;
mod json;
mod learner;
mod objective;
mod source;
mod tree;
mod ubj;

use super::ReadError;
use crate::form::Form;
use json::Json;
use source::{Fault, Source};
use ubj::Ubj;

/// What errors call a file.
const FORMAT: &str = "XGBoost";

/// Reads a JSON file; the form is not checked yet.
///
/// # Errors
/// If it is malformed, or holds what is not supported.
pub(super) fn read_json(bytes: &[u8]) -> Result<Form, ReadError> {
    learner::read(Json::new(bytes)).map_err(ReadError::from)
}

/// Reads a UBJSON file; the form is not checked yet.
///
/// # Errors
/// If it is malformed, or holds what is not supported.
pub(super) fn read_ubj(bytes: &[u8]) -> Result<Form, ReadError> {
    learner::read(Ubj::new(bytes)).map_err(ReadError::from)
}

/// Whether these are the first bytes of a UBJSON object, as no text has them. No other format of models is UBJSON.
pub(super) fn is_ubj(bytes: &[u8]) -> bool {
    matches!(bytes, [b'{', b'i' | b'U' | b'I' | b'l' | b'L', ..])
}

/// Whether this is a JSON object with a `learner`, be it cut behind it.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    let mut found = false;
    // What stops the search is of no interest.
    let _ = Json::new(bytes).object(|key, value| {
        found |= key == "learner";
        if found { Err(Fault::malformed("far enough")) } else { value.skip() }
    });
    found
}

/// What there is to say about files of XGBoost's that are no model to load: its own binary format of before 3.1, and dumps
/// for people.
pub(super) fn refusal(bytes: &[u8]) -> Option<ReadError> {
    let what = if bytes.starts_with(b"binf") || is_old_binary(bytes) {
        "the old binary format"
    } else if bytes.starts_with(b"booster[") {
        "a dump of trees as text"
    } else if is_json_dump(bytes) {
        "a dump of trees as JSON"
    } else {
        return None;
    };
    Some(ReadError::Unsupported {
        format: FORMAT,
        what: what.to_owned(),
        instead: "load it with the XGBoost that wrote it, and write it again with save_model('model.json')".to_owned(),
    })
}

/// Without a mark at its beginning, the old format has 136 bytes of numbers, then the objective's name, with its length
/// before it (`LearnerIO::Save` of 1.7).
fn is_old_binary(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.get(136..).and_then(<[u8]>::split_first_chunk) else { return false };
    let name = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length < 64);
    let Some(name) = name.and_then(|length| rest.get(..length)) else { return false };
    let families: [&[u8]; 6] = [b"reg:", b"binary:", b"multi:", b"count:", b"survival:", b"rank:"];
    families.iter().any(|family| name.starts_with(family))
}

/// `[ { "nodeid": 0, …`
fn is_json_dump(bytes: &[u8]) -> bool {
    let head = bytes.trim_ascii_start().strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    let head = head.and_then(|head| head.strip_prefix(b"{")).map(<[u8]>::trim_ascii_start);
    head.is_some_and(|head| head.starts_with(b"\"nodeid\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files are told apart by their first bytes.
    #[test]
    fn files_are_recognized() {
        assert!(is_ubj(b"{L\0\0\0\0\0\0\0\x07learner") && !is_ubj(b"{\"learner\":") && !is_ubj(b"{") && !is_ubj(b"{}"));
        assert!(is_json(b" {\"version\":[1,2,3], \"learner\": {") && is_json(b"{\"learner\":"));
        for other in ["{\"oblivious_trees\":[]}", "{\"a\":{\"learner\":1}}", "[]", "", "tree\nversion=v4", "{\"learner"]
        {
            assert!(!is_json(other.as_bytes()), "{other}");
        }
    }

    /// What XGBoost wrote, but not for loading, is refused with what would work.
    #[test]
    fn other_files_are_refused_by_name() {
        let mut old = vec![0; 136];
        old.extend_from_slice(&16_u64.to_le_bytes());
        old.extend_from_slice(b"reg:squarederror");
        let json_dump = b"[\n  { \"nodeid\": 0, \"depth\": 0 }]".as_slice();
        for bytes in [b"binf\0\0\0\x3f", old.as_slice(), b"booster[0]:\n0:[f2<1]", json_dump] {
            let error = refusal(bytes).map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("save_model('model.json')"), "{error}");
        }
        for other in [b"".as_slice(), b"[{\"a\":1}]", &[0xff; 200], &[0; 200], b"{}"] {
            assert_eq!(refusal(other), None);
        }
    }
}
