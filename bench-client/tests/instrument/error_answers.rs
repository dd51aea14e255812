//! Requests that the server sheds, or that its model fails on: counted in their places, apart from what is scored.

use std::fs;

use disrust_protocol::ErrorCode;
use serde_json::Value;

use super::files::{json, temporary};
use super::{PATIENT, run_against};
use crate::schema::assert_valid;
use crate::stub::{self, Behaviour};
use crate::{LAYOUT, assert_caught, assert_right, client};

const RUN_SCHEMA: &str = include_str!("../../schema/run.v1.schema.json");

/// 500 requests on each of two connections.
const OPEN: &str = "--rate 1k --arrival constant --connections 2 --duration 1s";

fn count(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("{name} is no number in {figures}"))
}

/// The promise: every request of the schedule is scored or counted by its error, no error is in a histogram or a rate, and
/// what is behind an error is still checked; the errors are shown, and fail the run unless they were meant to come.
#[test]
fn errors_are_counted_in_their_places() {
    for (code, kind, shed, failed) in
        [(ErrorCode::Shed, "shed", 250, 0), (ErrorCode::ModelFailed, "model-failed", 0, 250)]
    {
        let path = temporary(&format!("errors_{kind}.json"));
        let csv = temporary(&format!("errors_{kind}.csv"));
        let words = format!("{OPEN} --json {path} --csv {csv}");
        let run = run_against(Behaviour::EveryFourth(code), &words);
        let told = format!("250 requests were answered with an error ({kind})");
        assert_caught(&run, &[&told, "request 3: error answer", &format!("--accept-errors {kind}")]);
        let shown = format!("error answers: {shed} shed (error 3), {failed} the model failed on (error 2): 25.00 %");
        assert!(run.out.contains(&shown), "{}", run.out);
        let written = json(&path);
        assert_valid(RUN_SCHEMA, &written);
        let repeat = &written["repeats"][0];
        assert_eq!((count(&repeat["errors"], "shed"), count(&repeat["errors"], "model_failed")), (shed, failed));
        assert_eq!(repeat["error_share"].as_f64(), Some(0.25));
        assert_eq!((count(&repeat["response_ns"], "count"), count(&repeat["service_ns"], "count")), (750, 750));
        assert!(count(repeat, "answered") <= 750 && count(repeat, "lost") == 0, "{repeat}");
        let [head, line] =
            &fs::read_to_string(&csv).expect("the file was written").lines().map(str::to_owned).collect::<Vec<_>>()[..]
        else {
            panic!("two lines")
        };
        let column = head.split(',').position(|name| name == "shed").expect("a column");
        assert_eq!(line.split(',').nth(column), Some(shed.to_string().as_str()));

        let accepted = run_against(Behaviour::EveryFourth(code), &format!("{OPEN} --accept-errors {kind}"));
        assert_right(&accepted);
        assert!(accepted.out.contains(&shown) && accepted.out.contains("verdict: valid"), "{}", accepted.out);
    }
    let other = run_against(Behaviour::EveryFourth(ErrorCode::ModelFailed), &format!("{OPEN} --accept-errors shed"));
    assert_caught(&other, &["(model-failed)"]);
}

/// The promise: the closed loop counts them too, with any window, on sockets that are replaced, beside slow readers, and
/// where scores may be near.
#[test]
fn every_kind_of_run_counts_errors() {
    let [inputs, expected] = ["errors_ones.csv", "errors_sixteen.csv"].map(temporary);
    fs::write(&inputs, "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1\n").expect("a file");
    fs::write(&expected, "16\n").expect("a file");
    let path = temporary("errors_kinds.json");
    for words in [
        "--closed --connections 3 --window 16 --vectors 1:90,64:10",
        "--closed --connections 2 --window 4 --reconnect-every 50 --threads 2",
        "--rate 500 --slow-readers 2",
        &format!("--rate 1k --expect {inputs} {expected} --tolerance 1e-3"),
    ] {
        let words = format!("{words} --duration 500ms --accept-errors shed,model-failed --json {path}");
        let run = run_against(Behaviour::EveryFourth(ErrorCode::Shed), &words);
        assert_right(&run);
        let repeat = &json(&path)["repeats"][0];
        assert!(count(&repeat["errors"], "shed") > 10 && count(repeat, "answered") > 30, "{words}: {repeat}");
        let (shed, scored) = (count(&repeat["errors"], "shed") as f64, count(repeat, "answered") as f64);
        assert!((0.15..=0.35).contains(&(shed / (shed + scored))), "{words}: {repeat}");
    }
}

/// The promise: errors that end a connection end the run as before.
#[test]
fn other_errors_end_the_run() {
    let run = run_against(Behaviour::EveryFourth(ErrorCode::BadVectorCount), OPEN);
    assert_caught(&run, &["request 3: error answer: bad num_vectors"]);
    let run = run_against(Behaviour::EveryFourth(ErrorCode::Closing), &format!("{OPEN} --accept-errors shed"));
    assert_caught(&run, &["request 3: error answer: the server is closing"]);
}

/// The promise: a rate at which anything is shed does not hold, unless a limit allows it; a model that fails ends the search.
#[test]
fn search_takes_shedding_for_overload() {
    let words = format!("search {PATIENT} --from 200 --to 400 --duration 300ms --slo p99<=100s");
    let port = stub::start(LAYOUT, Behaviour::EveryFourth(ErrorCode::Shed));
    let run = client(port, &words);
    assert_eq!(run.status, Some(4), "{}{}", run.out, run.error);
    assert!(run.out.contains("requests were shed (--slo can allow it"), "{}", run.out);
    let run = client(port, &format!("{words} --slo shed<=1k"));
    assert_right(&run);
    assert!(run.out.contains("holds up to: 400 requests/s"), "{}", run.out);
    let port = stub::start(LAYOUT, Behaviour::EveryFourth(ErrorCode::ModelFailed));
    assert_caught(&client(port, &words), &["request 3: error answer: the model failed"]);
}

/// The promise: a run that sheds where the one before did not is worse, and one whose model failed is not compared.
#[test]
fn compare_sees_what_is_shed() {
    let [before, after, failed] = ["errors_before.json", "errors_after.json", "errors_failed.json"].map(temporary);
    let words = "--rate 500 --arrival constant --duration 200ms --repeat 5";
    assert_right(&run_against(Behaviour::Right, &format!("{words} --json {before}")));
    let mut report = json(&before);
    for (path, name) in [(&after, "shed"), (&failed, "model_failed")] {
        for repeat in report["repeats"].as_array_mut().expect("repeats") {
            repeat["errors"][name] = 30.into();
        }
        fs::write(path, report.to_string()).expect("a file");
    }
    let run = client(9900, &format!("compare {before} {after}"));
    assert_eq!(run.status, Some(4), "{}{}", run.out, run.error);
    assert!(run.error.contains("regression: shed"), "{}", run.error);
    assert_right(&client(9900, &format!("compare {after} {before}")));
    assert_caught(&client(9900, &format!("compare {before} {failed}")), &["the model failed on requests"]);
}
