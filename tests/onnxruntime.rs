//! ONNX files that disrust does not support itself, through a libonnxruntime: `scripts/onnxruntime.sh` gets one, and
//! runs this.
//!
//! The models are made by `scripts/train_test_models/onnxruntime_models.py`, which also writes what onnxruntime says of
//! them from Python. Where ORT_DYLIB_PATH names no library, only what needs none is tested.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::models::{Stump, TemporaryFile, lightgbm};
use common::{Client, PATIENCE_FOR_END, Reply, Request, Run, ServerProcess, binary, wait_patiently_until};
use disrust_protocol::ErrorCode;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Where the library is said to be; the test that asks says why it does nothing, if nobody said so.
fn library_is_there() -> bool {
    let there = std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty());
    if !there {
        println!("skipped: ORT_DYLIB_PATH names no libonnxruntime");
    }
    there
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model/tests/data/onnxruntime")
}

fn file(name: &str) -> String {
    folder().join(name).into_os_string().into_string().expect("a path in UTF-8")
}

fn content(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).expect("a test file")
}

/// The numbers of a table without a header.
fn table(name: &str) -> Vec<Vec<f32>> {
    let text = fs::read_to_string(folder().join(name)).expect("a test file");
    text.lines().map(|line| line.split(',').map(|field| field.parse().expect("a number")).collect()).collect()
}

fn verify(model: &str, flags: &[&str]) -> Run {
    Run::of(binary().args(["verify", "--rows", "1", "--model", model]).args(flags))
}

/// A server in a home of its own, so that whatever a library leaves there is seen.
fn server(model: &str, home: &Path, flags: &[&str]) -> ServerProcess {
    let mut command = binary();
    command.args(["--port", "0", "--pin", "none", "--model", model]).args(flags);
    ServerProcess::launch(command.env("HOME", home).env_remove("XDG_CACHE_HOME").stdout(Stdio::null()))
}

/// Sends rows, and compares the answer with what is expected of them.
fn expect_scores(client: &mut Client, rows: &[Vec<f32>], expected: &[Vec<f32>]) {
    client.send_all(&[Request::of(rows[0].len(), &rows.concat())]);
    let Some(Reply::Scores(scores)) = client.receive() else { panic!("scores") };
    let close = |(one, other): (&f32, &f32)| (one - other).abs() <= 1e-5 * other.abs().max(0.1);
    let expected = expected.concat();
    assert!(scores.len() == expected.len() && scores.iter().zip(&expected).all(close), "{scores:?}, not {expected:?}");
}

/// Every model scores as onnxruntime does from Python, rows alone and in batches, and is told apart by its version.
#[test]
fn scores_are_those_of_onnxruntime() {
    if !library_is_there() {
        return;
    }
    let entries = fs::read_dir(folder()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let tables = entries.filter(|path| path.to_string_lossy().ends_with(".expected.csv"));
    let names: Vec<String> = tables
        .map(|path| path.file_name().and_then(|name| name.to_str()).expect("a name")[..].replace(".expected.csv", ""))
        .collect();
    assert!(names.len() >= 14, "the models are there");
    // Each takes two seconds, most of them for times that nobody looks at here.
    let mut versions: Vec<String> = std::thread::scope(|scope| {
        let verified: Vec<_> = names.iter().map(|name| scope.spawn(|| verified_version(name))).collect();
        verified.into_iter().map(|thread| thread.join().expect("it agrees")).collect()
    });
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), names.len());
}

/// Verifies a model with the tables beside it.
fn verified_version(name: &str) -> String {
    let (model, inputs) = (file(&format!("{name}.onnx")), file(&format!("{name}.inputs.csv")));
    let expected = file(&format!("{name}.expected.csv"));
    let several = table(&format!("{name}.expected.csv"))[0].len() > 1;
    let mut flags = vec!["--json", "--inputs", &inputs, "--expected", &expected];
    flags.extend(if several { &["--output", "all"][..] } else { &[] });
    flags.extend(if name == "unknown_widths" { &["--features", "3"][..] } else { &[] });
    let run = verify(&model, &flags);
    let said: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{name}: {error}: {run:?}"));
    let of_engine = said["engine"].as_str().is_some_and(|engine| engine.starts_with("onnxruntime "));
    assert!(run.status == Some(0) && said["agrees"] == true && of_engine, "{name}: {said}");
    assert!(said["kind"].as_str().is_some_and(|kind| kind.starts_with("ONNX with node ")), "{name}: {said}");
    said["version"].to_string()
}

/// Outputs are chosen as of any model: of two classes the second one, of several by index or name.
#[test]
fn outputs_are_chosen_by_index_and_name() {
    if !library_is_there() {
        return;
    }
    let classes = file("bayes_of_three_zipmap.onnx");
    for (output, names) in [("1", &["low"][..]), ("high", &["high"]), ("all", &["high", "low", "middle"])] {
        let run = verify(&classes, &["--output", output, "--json"]);
        let said: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        assert_eq!(said["output_names"], serde_json::json!(names));
    }
    let run = Run::of(binary().args(["--model", &classes]));
    assert!(run.status == Some(78) && run.stderr.contains(r#"3 outputs (0 "high", 1 "low", 2 "middle")"#), "{run:?}");
    // One column of several, of rows that come together.
    let (rows, expected) = (table("layer_norm.inputs.csv"), table("layer_norm.expected.csv"));
    let server = server(&file("layer_norm.onnx"), Path::new("/"), &["--output", "2"]);
    let column: Vec<Vec<f32>> = expected.iter().map(|row| vec![row[2]]).collect();
    expect_scores(&mut server.connect(), &rows[..64], &column[..64]);
}

/// What onnxruntime does not take either, or what a server of rows can't serve, is refused with both reasons.
#[test]
fn refusals_say_why_neither_serves() {
    if !library_is_there() {
        return;
    }
    for (name, flags, ours, theirs) in [
        ("refused_mixes_rows", &[][..], "node 0 (Sin)", "scores a row otherwise if other rows come with it"),
        ("refused_seven_rows", &[], "node 0 (Sin)", "of exactly 7 rows"),
        ("refused_elsewhere", &[], "node 0 (Sin)", "weights are in other files"),
        ("refused_unknown", &[], "node 0 (oracle.Divine)", "nor does onnxruntime take it: "),
        ("doubles", &["--raw"], "node 1 (Sin)", "leave --raw out"),
    ] {
        let run = Run::of(binary().args(["--model", &file(&format!("{name}.onnx"))]).args(flags));
        let both = run.stderr.contains(ours) && run.stderr.contains(theirs);
        assert!(run.status == Some(78) && both && run.stderr.lines().count() == 1, "{name}: {run:?}");
    }
}

/// Without the library, what needs it is refused with how to get it, and nothing else changes.
#[test]
fn without_the_library_only_what_needs_it_is_refused() {
    let without = |command: &mut Command| Run::of(command.env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so"));
    for program in [&["verify"][..], &[]] {
        let run = without(binary().args(program).args(["--model", &file("doubles.onnx")]));
        for words in ["node 1 (Sin)", "/nowhere/libonnxruntime.so: cannot open", "pip install", "ORT_DYLIB_PATH"] {
            assert!(run.status == Some(78) && run.stderr.contains(words), "{words}: {run:?}");
        }
        assert!(!run.stderr.contains("panicked"), "{run:?}");
    }
    // A library, but another one.
    let mut other = binary();
    let maps = fs::read_to_string("/proc/self/maps").expect("Linux");
    let libc = maps.split_whitespace().find(|word| word.contains("/libc.so") || word.contains("/libc-"));
    if let Some(libc) = libc {
        let run = Run::of(other.args(["--model", &file("doubles.onnx")]).env("ORT_DYLIB_PATH", libc));
        assert!(run.status == Some(78) && run.stderr.contains("OrtGetApiBase"), "{run:?}");
    }
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/tests/data/onnx/skl_scaler_linreg.onnx");
    let run = without(binary().args(["verify", "--rows", "1", "--model"]).arg(ours));
    assert!(run.status == Some(0) && run.stdout.contains("engine: dense"), "{run:?}");
}

/// A row that the model fails on costs its own request an error, and no other one anything; nor does it fill the log.
#[test]
fn a_row_that_fails_costs_its_request_alone() {
    if !library_is_there() {
        return;
    }
    let server = server(&file("embedding.onnx"), Path::new("/"), &[]);
    let (rows, expected) = (table("embedding.inputs.csv"), table("embedding.expected.csv"));
    let mut client = server.connect();
    let unknown_category = Request::of(3, &[7.0, 0.0, 0.0]);
    for round in 0..100 {
        let good: Vec<Request> = rows.chunks(10).map(|rows| Request::of(3, &rows.concat())).collect();
        let (before, after) = good.split_at(round % good.len());
        client.send_all(before);
        client.send_all(std::slice::from_ref(&unknown_category));
        client.send_all(after);
        for (index, expected) in expected.chunks(10).enumerate() {
            if index == before.len() {
                assert_eq!(client.receive(), Some(Reply::Error(ErrorCode::ModelFailed)));
            }
            let Some(Reply::Scores(scores)) = client.receive() else { panic!("scores") };
            assert!(scores.iter().zip(expected).all(|(one, other)| (one - other[0]).abs() < 1e-5), "{scores:?}");
        }
    }
    let log = server.stderr();
    assert!(log.contains("onnxruntime: ") && log.lines().count() < 50, "{log}");
}

/// SIGHUP changes between this engine and ours, there and back, also in a process that has given system calls up before
/// it loads the library; what can't be served leaves what serves. Nothing is left in the home directory, and no thread.
#[test]
fn a_reload_changes_between_engines() {
    if !library_is_there() {
        return;
    }
    const TREES: [Stump; 1] = [(0, 0.0, 5.0, 5.0)];
    let trees = lightgbm("regression", &["a", "b", "c", "d"], 1, &TREES);
    for flags in [&[][..], &["--seccomp", "--io-threads", "2"]] {
        let model = TemporaryFile::new("engines.model", &trees);
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-home", std::process::id()));
        fs::create_dir_all(&home).expect("cargo's folder for tests can be written");
        let server = server(model.path(), &home, flags);
        let threads = || fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs").count();
        let threads_before = threads();
        let mut client = server.connect();
        let mut replaced = 0;
        let mut reload = |content: &[u8]| {
            model.replace(content);
            server.signal(Signal::SIGHUP);
            replaced += 1;
            wait_patiently_until(PATIENCE_FOR_END, "the new model serves", || {
                server.stderr().matches("is replaced: version ").count() == replaced
            });
        };
        for name in ["pow_where", "doubles", "pow_where"] {
            reload(&content(&format!("{name}.onnx")));
            let (rows, expected) = (table(&format!("{name}.inputs.csv")), table(&format!("{name}.expected.csv")));
            expect_scores(&mut client, &rows[..64], &expected[..64]);
            expect_scores(&mut client, &rows[64..65], &expected[64..65]);
        }
        reload(trees.as_bytes());
        expect_scores(&mut client, &[vec![0.0; 4]], &[vec![5.0]]);
        reload(&content("doubles.onnx"));
        for (name, reason) in [("refused_elsewhere", "in other files"), ("sum_of_sines", "features")] {
            model.replace(content(&format!("{name}.onnx")));
            server.signal(Signal::SIGHUP);
            wait_patiently_until(PATIENCE_FOR_END, "it is said", || {
                let log = server.stderr();
                log.lines().any(|line| line.contains("the new model is not taken") && line.contains(reason))
            });
        }
        let (rows, expected) = (table("doubles.inputs.csv"), table("doubles.expected.csv"));
        expect_scores(&mut client, &rows[..3], &expected[..3]);
        assert_eq!(threads(), threads_before);
        assert_eq!(fs::read_dir(&home).expect("it is ours").count(), 0, "nothing is left in {}", home.display());
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait();
        assert_eq!(status, Some(0), "{log}");
        fs::remove_dir(&home).expect("it is empty");
    }
}
