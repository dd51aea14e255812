//! `disrust verify`, as a script sees it: what it says of a file, of scores, and its exit status.

mod common;

use std::fs;

use common::models::{TemporaryFile, lightgbm, regression, three_classes};
use common::{Run, binary};
use serde_json::Value;

/// The end of `disrust verify` with these flags; it times little, which is enough to see that it does.
fn verify(flags: &[&str]) -> Run {
    Run::of(binary().args(["verify", "--rows", "1,8"]).args(flags))
}

fn verify_json(flags: &[&str]) -> (Option<i32>, Value) {
    let run = verify(&[flags, &["--json"]].concat());
    let value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    (run.status, value)
}

/// A model, inputs and expected scores.
struct Case {
    model: TemporaryFile,
    inputs: TemporaryFile,
    expected: TemporaryFile,
}

impl Case {
    fn new(name: &str, model: &str, inputs: &str, expected: &str) -> Case {
        let file = |kind: &str, content: &str| TemporaryFile::new(&format!("{name}.{kind}"), content);
        Case { model: file("txt", model), inputs: file("inputs.csv", inputs), expected: file("expected.csv", expected) }
    }

    fn flags(&self) -> [&str; 6] {
        ["--model", self.model.path(), "--inputs", self.inputs.path(), "--expected", self.expected.path()]
    }
}

/// An array as numpy saves it.
fn npy(type_name: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{type_name}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = u16::try_from(header.len()).expect("a short header").to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), numbers].concat()
}

/// All that a script may want to know of a file has its key, and a file that nothing is compared with is no failure.
#[test]
fn a_file_is_described() {
    let model = TemporaryFile::new("described.txt", regression());
    let (status, said) = verify_json(&["--model", model.path()]);
    assert_eq!(status, Some(0));
    for (key, value) in [
        ("kind", "\"LightGBM, regression\""),
        ("features", "2"),
        ("feature_names", "[\"age\",\"income\"]"),
        ("outputs", "1"),
        ("trees", "3"),
        ("leaves_max", "2"),
        ("depth_max", "1"),
        ("rows", "0"),
        ("max_abs_error", "null"),
        ("max_rel_error", "null"),
        ("agrees", "true"),
    ] {
        assert_eq!(said[key].to_string(), value, "{key}");
    }
    assert!(said["engine"].is_string() && said["bytes"].as_u64() > Some(0), "{said}");
    assert_eq!(said["version"].as_str().map(str::len), Some(16), "{said}");
    let times = said["ns_per_row"].as_object().expect("an object");
    assert_eq!(times.keys().collect::<Vec<_>>(), ["1", "8"]);
    assert!(times.values().all(|time| time.as_f64() > Some(0.0)), "{said}");
    let run = Run::of(binary().args(["verify", "--model", model.path()]));
    for said in
        ["LightGBM, regression", "features: age, income", "trees: 3", "      1        8       64      512     4096"]
    {
        assert!(run.status == Some(0) && run.stdout.contains(said), "{said}: {run:?}");
    }
}

/// Scores that are as expected are status 0, others status 1, with the worst named; missing values and headers are read.
#[test]
fn scores_are_compared() {
    let inputs = "age,income\n0.5,-0.5\n0.6,\n4,nan\n-inf,inf\n";
    let good = Case::new("good", &regression(), inputs, "11\n22\n122.0001\n21.0000009\n");
    let (status, said) = verify_json(&good.flags());
    assert!(status == Some(0) && said["agrees"] == true && said["rows"] == 4, "{said}");
    assert!(said["max_rel_error"].as_f64().is_some_and(|error| (1e-7..1e-5).contains(&error)), "{said}");
    let bad = Case::new("bad", &regression(), inputs, "11\n22\n122.01\n21\n");
    let (status, said) = verify_json(&bad.flags());
    assert!(status == Some(1) && said["agrees"] == false && said["worst_row"] == 2, "{said}");
    let run = verify(&bad.flags());
    assert!(run.status == Some(1) && run.stdout.contains("1 of 4 scores") && run.stdout.contains("row 2"), "{run:?}");
}

/// A model of two classes is its second column's; one of several is compared with all columns, or with the chosen one.
#[test]
fn columns_are_those_of_the_model() {
    let binary = lightgbm("binary sigmoid:1", &["a", "b"], 1, &[(0, 0.0, -1.0, 1.0)]);
    let one = Case::new("binary", &binary, "-1,0\n1,0\n", "0.2689414\n0.7310586\n");
    let two = Case::new("binary2", &binary, "-1,0\n1,0\n", "0.7310586,0.2689414\n0.2689414,0.7310586\n");
    let swapped = Case::new("swapped", &binary, "-1,0\n1,0\n", "0.2689414,0.7310586\n0.7310586,0.2689414\n");
    for (case, status) in [(&one, 0), (&two, 0), (&swapped, 1)] {
        let run = verify(&case.flags());
        assert_eq!(run.status, Some(status), "{run:?}");
    }
    let margins = Case::new("margins", &binary, "-1,0\n1,0\n", "-1\n1\n");
    let raw = [&margins.flags()[..], &["--raw"]].concat();
    assert_eq!((verify(&raw).status, verify(&margins.flags()).status), (Some(0), Some(1)));

    let classes = Case::new("classes", &three_classes(), "0,0\n", "0.39,0.22,0.39\n");
    let (status, said) = verify_json(&classes.flags());
    assert!(status == Some(1) && said["outputs"] == 3, "{said}");
    let right = Case::new("classes2", &three_classes(), "0,0\n", "0.38365173,0.23269655,0.38365173\n");
    let (status, said) = verify_json(&right.flags());
    assert!(status == Some(0) && said["outputs"] == 3, "{said}");
    let second = Case::new("classes3", &three_classes(), "0,0\n", "0.23269655\n");
    let chosen = [&second.flags()[..], &["--output", "1"]].concat();
    assert_eq!(verify(&chosen).status, Some(0));
}

/// Files of numpy are read as comma-separated ones are.
#[test]
fn arrays_of_numpy_are_read() {
    let model = TemporaryFile::new("numpy.txt", regression());
    let floats: Vec<u8> = [0.5_f32, -0.5, 0.6, f32::NAN].iter().flat_map(|number| number.to_le_bytes()).collect();
    let inputs = TemporaryFile::new("numpy.inputs.npy", npy("<f4", "(2, 2)", &floats));
    let scores: Vec<u8> = [11.0_f64, 22.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    let expected = TemporaryFile::new("numpy.expected.npy", npy("<f8", "(2,)", &scores));
    let flags = ["--model", model.path(), "--inputs", inputs.path(), "--expected", expected.path()];
    let (status, said) = verify_json(&flags);
    assert!(status == Some(0) && said["rows"] == 2, "{said}");
}

/// All scores are written, in as many digits as they have, to a file or to stdout, where nothing else is then.
#[test]
fn scores_are_written() {
    let case = Case::new("written", &three_classes(), "0,0\n9,9\n", "");
    let file = TemporaryFile::named("written.scores.csv");
    let flags = ["--model", case.model.path(), "--inputs", case.inputs.path(), "--raw", "--scores"];
    let run = verify(&[&flags[..], &[file.path()]].concat());
    assert_eq!(run.status, Some(0), "{run:?}");
    assert_eq!(fs::read_to_string(file.path()).expect("it was written"), "1.0,0.5,1.0\n-1.0,0.0,1.0\n");
    let run = verify(&[&flags[..], &["-", "--json"]].concat());
    assert!(run.status == Some(0) && run.stdout == "1.0,0.5,1.0\n-1.0,0.0,1.0\n", "{run:?}");
    assert!(serde_json::from_str::<Value>(&run.stderr).is_ok(), "{run:?}");
    let run = verify(&[&flags[..], &["/no/such/folder/scores.csv"]].concat());
    assert!(run.status == Some(74) && run.stderr.contains("/no/such/folder/scores.csv"), "{run:?}");
}

/// Tables that cannot be used are status 65, and the message names the file, the line and the column.
#[test]
fn bad_tables_are_named() {
    for (name, inputs, expected, said) in [
        ("word", "1,2\n3,x\n", "1\n2\n", "line 2, column 2: \"x\" is no number"),
        ("ragged", "1,2\n3\n", "1\n2\n", "line 2 has 1 column, but the lines before it have 2 columns"),
        ("narrow", "1\n3\n", "1\n2\n", "line 1 has 1 column, but the model has 2 features"),
        (
            "index",
            "a,b,c\n0,1,2\n",
            "1\n",
            "line 2 has 3 columns, but the model has 2 features. Is one of them an index",
        ),
        ("swapped", "income,age\n1,2\n", "1\n", "line 1, column 1: it is named \"income\""),
        ("empty", "", "1\n", "it has no rows"),
        ("few", "1,2\n3,4\n", "1\n", "it has 1 row, but the inputs have 2 rows"),
        ("wide", "1,2\n", "1,2\n", "line 1 has 2 columns, but the model has 1 output"),
        ("wider", "1,2\n", "1,2,3\n", "line 1 has 3 columns, but the model has 1 output"),
        ("npy", "\u{93}NUMPY", "1\n", "no rows"),
    ] {
        let case = Case::new(name, &regression(), inputs, expected);
        let run = verify(&case.flags());
        assert!(run.status == Some(65) && run.stderr.contains(said) && run.stdout.is_empty(), "{name}: {run:?}");
        let named = [case.inputs.path(), case.expected.path()];
        assert!(named.iter().any(|path| run.stderr.contains(path)) && run.stderr.lines().count() == 1, "{run:?}");
    }
    let case = Case::new("missing", &regression(), "1,2\n", "1\n");
    let run = verify(&["--model", case.model.path(), "--inputs", "missing.csv"]);
    assert!(run.status == Some(65) && run.stderr.contains("missing.csv: it cannot be read"), "{run:?}");
}

/// A model that cannot be served cannot be verified either, with the same words and status.
#[test]
fn a_model_that_is_not_served_is_not_verified() {
    let model = TemporaryFile::new("unserved.txt", regression());
    for (flags, said) in [
        (&["--model", "missing.txt"][..], "missing.txt: No such file"),
        (&["--model", model.path(), "--features", "3"], "has 2 features, but --features says 3"),
        (&["--model", model.path(), "--output", "setosa"], "no output setosa"),
    ] {
        let run = verify(flags);
        assert!(run.status == Some(78) && run.stderr.contains(said) && run.stdout.is_empty(), "{run:?}");
    }
}
