//! ONNX files as skl2onnx 1.20, onnxmltools 1.16 and PyTorch write them score as onnxruntime 1.31 does. The files were trained
//! once, with LightGBM 4.7 and scikit-learn 1.9, and are kept as they are. Those that have margins too are made by
//! `scripts/train_test_models/onnx_models.py`: models of skl2onnx, onnxmltools and CatBoost, networks as PyTorch writes them,
//! and one made by hand. The traps of the format are stepped over in the reader's own tests, which write files with the
//! messages that it reads.

use std::fs;
use std::path::Path;

use disrust_model::engine::Compiled;
use disrust_model::form::{Choice, Output};
use disrust_model::read::{ReadError, read};
use disrust_model::{Model, Rows};

/// The numbers of a table without a head; an empty field is missing.
fn numbers(text: &str) -> Vec<Vec<f32>> {
    let number = |field: &str| if field.is_empty() { f32::NAN } else { field.parse().expect("a number") };
    text.lines().map(|line| line.split(',').map(|field| number(field.trim())).collect()).collect()
}

fn agree(found: f32, expected: f32) -> bool {
    let difference = (f64::from(found) - f64::from(expected)).abs();
    let close = difference <= 1e-6 || difference <= 1e-5 * f64::from(expected).abs();
    close || found == expected || found.is_nan() && expected.is_nan()
}

/// Whether a file scores as it should; of two classes the second one's probability is compared.
fn check(name: &str, file: &[u8], raw: bool, inputs: &str, expected: &str) {
    let mut form = read(file, None).unwrap_or_else(|error| panic!("{name}: {error}"));
    form.choose(&Choice { output: Some(Output::All), raw }).expect("all is always there");
    let mut model = Compiled::new(form, name);
    let (inputs, expected) = (numbers(inputs), numbers(expected));
    assert_eq!(inputs.len(), expected.len());
    let bytes: Vec<u8> = inputs.iter().flatten().flat_map(|feature| feature.to_le_bytes()).collect();
    let mut scores = vec![0.0; inputs.len() * model.outputs()];
    model.predict(&Rows::new(&&bytes[..], inputs.len(), model.feature_dim()), &mut scores).expect("scores");
    for (row, (found, expected)) in scores.chunks(model.outputs()).zip(&expected).enumerate() {
        let expected = if found.len() == 1 { &expected[expected.len() - 1..] } else { &expected[..] };
        let all = found.len() == expected.len() && found.iter().zip(expected).all(|(one, other)| agree(*one, *other));
        assert!(all, "{name}, row {row}: {found:?}, not {expected:?}");
    }
}

macro_rules! files {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            check(
                stringify!($name),
                include_bytes!(concat!("data/onnx/", stringify!($name), ".onnx")),
                false,
                include_str!(concat!("data/onnx/", stringify!($name), ".inputs.csv")),
                include_str!(concat!("data/onnx/", stringify!($name), ".expected.csv")),
            );
        }
    )*};
}

files!(
    skl_rf_clf3_nozipmap,
    skl_scaler_linreg,
    skl_scaler_logreg_zipmap,
    torchstyle_mlp_16_64_64_1,
    lgbm_clf_zipmap,
    lgbm_reg_nan
);

/// Scores and margins of every model are those of onnxruntime, on rows with NaN, infinities, −0 and values on the thresholds.
#[test]
fn scores_and_margins_are_those_of_onnxruntime() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx");
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let read_beside = |path: &Path, what: &str| fs::read_to_string(path.with_extension(what)).expect("a table");
    let mut count = 0;
    for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")) {
        if path.with_extension("margins.csv").exists() {
            let (name, file) = (path.display().to_string(), fs::read(&path).expect("a file"));
            let inputs = read_beside(&path, "inputs.csv");
            check(&name, &file, false, &inputs, &read_beside(&path, "expected.csv"));
            check(&name, &file, true, &inputs, &read_beside(&path, "margins.csv"));
            count += 1;
        }
    }
    assert!(count >= 40, "the models are there");
}

/// What onnxruntime may score is told apart from what nobody could, and the refusal says how, if this build can't.
#[test]
fn what_onnxruntime_may_score_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnxruntime");
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut count = 0;
    for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")) {
        let file = fs::read(&path).expect("a file");
        let error = read(&file, Some(features_of(&path))).expect_err("it is not supported");
        assert!(matches!(error, ReadError::ForOnnxruntime { .. }), "{}: {error}", path.display());
        let told = error.to_string().contains("built with --features onnxruntime");
        assert_eq!(told, !cfg!(feature = "onnxruntime"), "{error}");
        count += 1;
    }
    assert!(count >= 18, "the models are there");
    let file = include_bytes!("data/onnx/skl_scaler_linreg.onnx");
    let error = read(file, Some(1)).expect_err("it has other features");
    assert!(matches!(error, ReadError::Unsupported { .. }) && !error.to_string().contains("onnxruntime"), "{error}");
}

/// As many as the model's rows have, by the table beside it; else 2.
fn features_of(path: &Path) -> usize {
    let inputs = fs::read_to_string(path.with_extension("inputs.csv"));
    inputs.map_or(2, |inputs| numbers(&inputs)[0].len())
}

/// A file cut anywhere is an error, or still a model; never a panic.
#[test]
fn cut_files_are_errors() {
    let file = include_bytes!("data/onnx/skl_scaler_logreg_zipmap.onnx");
    let errors = (0..file.len()).filter(|end| read(&file[..*end], None).is_err()).count();
    assert!(errors > file.len() * 9 / 10, "{errors} of {} cuts are noticed", file.len());
}
