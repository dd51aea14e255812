//! Reads a model from memory and scores rows with it; and models in a folder, with what their library says about some rows.

use std::fs;
use std::path::{Path, PathBuf};

use disrust_model::engine::Compiled;
use disrust_model::form::{Choice, Form, Output};
use disrust_model::read::read;
use disrust_model::{Model, RowSource, Rows};

/// Rows as they come over the wire.
struct Wire(Vec<u8>);

impl RowSource for Wire {
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
        visitor(&[&self.0]);
    }
}

/// All scores, or all margins, of rows that lie one after the other.
fn all_outputs(mut form: Form, raw: bool, rows: &[f32]) -> Vec<f32> {
    form.choose(&Choice { output: Some(Output::All), raw }).expect("all can be chosen");
    let mut model = Compiled::new(form, "test");
    let wire = Wire(rows.iter().flat_map(|value| value.to_le_bytes()).collect());
    let count = rows.len() / model.feature_dim();
    let mut scores = vec![0.0; count * model.outputs()];
    model.predict(&Rows::new(&wire, count, model.feature_dim()), &mut scores).expect("it scores");
    scores
}

/// What the file means.
pub fn form(file: &str) -> Form {
    read(file.as_bytes(), None).unwrap_or_else(|error| panic!("{error}\n{file}"))
}

/// The scores of some rows.
pub fn scores<const N: usize>(file: &str, rows: &[[f32; N]]) -> Vec<f32> {
    all_outputs(form(file), false, rows.as_flattened())
}

/// The margins of some rows.
pub fn margins<const N: usize>(file: &str, rows: &[[f32; N]]) -> Vec<f32> {
    all_outputs(form(file), true, rows.as_flattened())
}

/// Whether numbers are the same within a millionth.
#[track_caller]
pub fn assert_near(found: &[f32], wanted: &[f64]) {
    let near = |(found, wanted): (&f32, &f64)| (f64::from(*found) - wanted).abs() <= 1e-6 * wanted.abs().max(1.0);
    assert!(found.len() == wanted.len() && found.iter().zip(wanted).all(near), "{found:?}, not {wanted:?}");
}

/// Fails unless the file is refused with a message that has all of these words.
#[track_caller]
pub fn assert_refused(file: &[u8], words: &[&str]) {
    let error = match read(file, None) {
        Ok(form) => panic!("it is read, {words:?} is not seen: {form:?}"),
        Err(error) => error.to_string(),
    };
    assert!(words.iter().all(|word| error.contains(word)), "{error:?} does not say {words:?}");
}

/// Compares each model `NAME.extension` of a folder of `tests/data` to `NAME.expected.csv` and `NAME.margins.csv`, which its
/// library gives for the rows of `NAME.inputs.csv`; returns how many there are.
pub fn compare_to_library(folder: &str, extension: &str) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    for file in &files {
        let form = read(&fs::read(file).expect("a file"), None).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let inputs: Vec<f32> = table(file, "inputs");
        for (raw, what) in [(false, "expected"), (true, "margins")] {
            let wanted: Vec<f64> = table(file, what);
            let found = all_outputs(form.clone(), raw, &inputs);
            assert_eq!(found.len(), wanted.len(), "{file:?}, {what}");
            for (index, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let allowed = (1e-5 * wanted.abs()).max(1e-6);
                let same = (f64::from(*found) - wanted).abs() <= allowed
                    || (found.is_nan() && wanted.is_nan())
                    || f64::from(*found) == *wanted;
                assert!(same, "{file:?}, {what} {index}: {found}, not {wanted}");
            }
        }
    }
    files.len()
}

/// The numbers of a table beside a model, row by row.
fn table<T: std::str::FromStr>(model: &Path, what: &str) -> Vec<T> {
    let path = model.with_extension(format!("{what}.csv"));
    let table = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let number = |number: &str| number.parse().unwrap_or_else(|_| panic!("{path:?}: {number:?} is no number"));
    table.lines().flat_map(|line| line.split(',')).map(number).collect()
}
