//! Damaged files: see [`crate::read::damage`].
#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::{is_catboost, read};
use crate::read::damage::{damaged, damages, judge};

/// Oblivious and not, of one dimension and of several.
const FILES: [&[u8]; 3] = [
    include_bytes!("../../../tests/data/catboost/names_SymmetricTree.json"),
    include_bytes!("../../../tests/data/catboost/regression_Lossguide_Max.json"),
    include_bytes!("../../../tests/data/catboost/RMSEWithUncertainty.json"),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Whatever happens to a file, reading it ends in an error or in a model.
    #[test]
    fn damaged_files_are_errors_or_models(file in 0..FILES.len(), damages in damages()) {
        let file = damaged(FILES[file], &damages);
        is_catboost(&file);
        judge(read(&file))?;
    }

    /// So it does with any bytes, inside a field too.
    #[test]
    fn any_bytes_are_errors(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        is_catboost(&bytes);
        judge(read(&bytes))?;
        judge(read(&[&br#"{"features_info": {}, "oblivious_trees": ["#[..], &bytes].concat()))?;
    }
}

/// Other formats of JSON are not taken for CatBoost's, nor what is no JSON.
#[test]
fn only_models_of_catboost_are_seen_as_such() {
    for file in FILES {
        assert!(is_catboost(file) && is_catboost(&file[..100]));
    }
    let xgboost = br#"{"learner": {"trees": 1, "features_info": {}}, "version": [3, 0, 0]}"#;
    for file in [&b""[..], b"tree\n", b"[1]", b"{}", b"{\"a\"", b"\"features_info\"", xgboost] {
        assert!(!is_catboost(file));
    }
    assert!(is_catboost(br#" {"model_info": {"a": [{}]}, "oblivious_trees": ["#));
}
