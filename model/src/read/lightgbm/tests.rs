//! Damaged files: see [`crate::read::damage`].
#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::{is_lightgbm, read};
use crate::read::damage::{damaged, damages, judge};

/// With categories, linear leaves, and several classes.
const FILES: [&[u8]; 3] = [
    include_bytes!("../../../tests/data/lightgbm/categories_500.txt"),
    include_bytes!("../../../tests/data/lightgbm/linear_binary.txt"),
    include_bytes!("../../../tests/data/lightgbm/multiclass.txt"),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Whatever happens to a file, reading it ends in an error or in a model.
    #[test]
    fn damaged_files_are_errors_or_models(file in 0..FILES.len(), damages in damages()) {
        judge(read(&damaged(FILES[file], &damages)))?;
    }

    /// So it does with any bytes, behind the first line too.
    #[test]
    fn any_bytes_are_errors(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        prop_assert!(!is_lightgbm(&bytes) || bytes.starts_with(b"tree"));
        judge(read(&bytes))?;
        judge(read(&[&b"tree\nnum_class=1\n"[..], &bytes].concat()))?;
    }
}
