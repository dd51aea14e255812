//! Model files: whatever the bytes, an error with a message or a model that scores every row, in bounded time and memory.
//!
//! What a reader lets through is compiled and scored, on one row and on many: both must give the same bits.
#![no_main]

use disrust_model::engine::Compiled;
use disrust_model::form::{Choice, Output};
use disrust_model::{Model, Rows};
use libfuzzer_sys::fuzz_target;

/// Larger forms are read and checked, but not scored: compiling 4,096 columns for each input would be all that is tried.
const COLUMNS_MAX: usize = 256;

fuzz_target!(|bytes: &[u8]| {
    let mut form = match disrust_model::read::read(bytes, None) {
        Err(error) => return assert!(!error.to_string().is_empty()),
        Ok(form) => form,
    };
    assert_eq!(form.check(), Ok(()));
    form.choose(&Choice { output: Some(Output::All), raw: false }).expect("all is always there");
    if form.feature_dim > COLUMNS_MAX || form.output_names.len() > COLUMNS_MAX {
        return;
    }
    let mut model = Compiled::new(form, "fuzzed");
    let values = [0.0, -0.0, 1.0, -1.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, 3.0e38];
    let (features, outputs) = (model.feature_dim(), model.outputs());
    let rows: Vec<u8> = (0..70 * features).flat_map(|at| f32::to_le_bytes(values[at * 7 % 11 % values.len()])).collect();
    let mut together = vec![0.0; 70 * outputs];
    model.predict(&Rows::new(&&rows[..], 70, features), &mut together).expect("a model that was checked scores");
    for (row, expected) in rows.chunks(4 * features).zip(together.chunks(outputs)) {
        let mut alone = vec![0.0; outputs];
        model.predict(&Rows::new(&row, 1, features), &mut alone).expect("a model that was checked scores");
        assert!(alone.iter().zip(expected).all(|(one, other)| one.to_bits() == other.to_bits()), "the same bits");
    }
});
