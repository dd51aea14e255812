//! Connections that the server ends: a run goes on and counts, or ends with its figures so far.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::files::{json, temporary};
use super::{PATIENT, json_of_run};
use crate::schema::assert_valid;
use crate::stub::{self, Behaviour};
use crate::{LAYOUT, assert_caught, assert_right, client, client_against};

const RUN_SCHEMA: &str = include_str!("../../schema/run.v1.schema.json");

/// 1000 requests on two connections.
const OPEN: &str = "--rate 1k --arrival constant --connections 2 --duration 1s --reconnect-on-close";

fn count(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("{name} is no number in {figures}"))
}

/// Each request of the schedule is answered in time, lost or refused.
fn assert_all_accounted_for(repeat: &Value) {
    let reconnects = &repeat["reconnects"];
    let answered = count(&repeat["response_ns"], "count");
    assert_eq!(answered + count(reconnects, "lost") + count(reconnects, "refused"), 1000, "{repeat}");
    assert_eq!(count(reconnects, "lost"), count(repeat, "lost"), "{repeat}");
    assert_eq!(count(repeat, "unsent"), 0, "{repeat}");
}

/// The promise: connections that the server closes are counted, with what is lost on them, and made again.
#[test]
fn closed_connections_are_made_again() {
    let written = json_of_run(Behaviour::Closes(100), "reconnect_closed.json", OPEN);
    assert_valid(RUN_SCHEMA, &written);
    let repeat = &written["repeats"][0];
    assert_all_accounted_for(repeat);
    // 500 requests a connection, of which no socket answers more than 100.
    assert!(count(&repeat["reconnects"], "closed") >= 2 && count(repeat, "lost") >= 2, "{repeat}");
    assert_eq!(count(&repeat["reconnects"], "refused"), 0);
    assert!(repeat["cut_off"].is_null());

    let words = "--closed --connections 2 --window 8 --duration 500ms --threads 2 --reconnect-on-close";
    let written = json_of_run(Behaviour::Closes(100), "reconnect_closed_loop.json", words);
    let repeat = &written["repeats"][0];
    assert!(count(&repeat["reconnects"], "closed") >= 2 && count(repeat, "answered") > 200, "{repeat}");
}

/// The promise: requests that are refused with error 4 are counted as that and not as lost, and the connection is left
/// when all is refused; also if the two bytes come one by one, and if answers may be near.
#[test]
fn refused_requests_are_counted() {
    let written = json_of_run(Behaviour::Refuses(100), "reconnect_refused.json", OPEN);
    assert_valid(RUN_SCHEMA, &written);
    let repeat = &written["repeats"][0];
    assert_all_accounted_for(repeat);
    assert!(count(&repeat["reconnects"], "refused") >= 2 && count(repeat, "lost") == 0, "{repeat}");
    let path = temporary("reconnect_refused_not_compared.json");
    fs::write(&path, written.to_string()).expect("a file");
    let compared = client(9900, &format!("compare {path} {path}"));
    assert_caught(&compared, &["the server ended connections: nothing to compare"]);

    let [inputs, expected, written] = ["ones.csv", "sixteen.csv", "reconnect_near.json"].map(temporary);
    fs::write(&inputs, "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1\n").expect("a file");
    fs::write(&expected, "16\n").expect("a file");
    let files = format!("--expect {inputs} {expected} --tolerance 1e-3 --json {written}");
    assert_right(&client_against(Behaviour::Refuses(100), &format!("run {PATIENT} {OPEN} {files}")));
    assert_all_accounted_for(&json(&written)["repeats"][0]);
}

/// The promise: a server that is away for a while is tried until it is there again, and the run goes on.
#[test]
fn a_restart_is_measured() {
    let port = stub::start_with_absence(LAYOUT, 2, 100, Some(Duration::from_millis(700)));
    let written = temporary("reconnect_restart.json");
    let run = client(port, &format!("run {PATIENT} {OPEN} --json {written}"));
    assert_right(&run);
    assert!(run.out.contains("reconnects: 2 connections closed by the server, 0 requests refused"), "{}", run.out);
    let repeat = &json(&written)["repeats"][0];
    assert_all_accounted_for(repeat);
    assert!(count(&repeat["reconnects"], "attempts_failed") > 0, "{repeat}");
    assert!(count(&repeat["reconnects"], "missing_ns_max") > 0, "{repeat}");
}

/// The promise: what is lost does not shift the intended times of what comes behind it: of a loss in the warm-up, all
/// requests of the measured time are there, and no others.
#[test]
fn a_loss_shifts_no_intended_time() {
    let port = stub::start_with_absence(LAYOUT, 2, 100, Some(Duration::from_millis(50)));
    let path = temporary("reconnect_warmup.json");
    let words = "--rate 1k --arrival constant --connections 2 --warmup 3s --duration 500ms --reconnect-on-close";
    assert_right(&client(port, &format!("run --lag-limit 1h {words} --json {path}")));
    let repeat = &json(&path)["repeats"][0];
    assert!(count(repeat, "lost") >= 2, "{repeat}");
    assert_eq!(count(&repeat["response_ns"], "count"), 500, "{repeat}");
}

/// The promise: a server that does not come again ends the run, with its figures so far.
#[test]
fn a_server_that_stays_away_ends_the_run() {
    let port = stub::start_with_absence(LAYOUT, 2, 100, None);
    let run = client(port, &format!("run {PATIENT} {OPEN} --timeout 300ms"));
    assert_caught(&run, &["cannot connect again", "refused"]);
    assert!(run.out.contains("reconnects: 2 connections closed"), "{}", run.out);
}

/// The promise: without the flag the first connection that the server ends is the end of the run, long before its time,
/// with its figures so far: on standard output, and in the files.
#[test]
fn a_run_that_is_cut_off_has_its_figures() {
    for (index, pace) in ["--rate 1k", "--closed --window 4", "--rate 1k --threads 2"].iter().enumerate() {
        for (behaviour, told) in [
            (Behaviour::Closes(50), "request 50: the server closed the connection"),
            (Behaviour::Refuses(50), "request 50: error answer: the server is closing"),
        ] {
            let path = temporary(&format!("cut_off_{index}_{}.json", told.len()));
            let words = format!("run {PATIENT} {pace} --connections 2 --duration 1000s --json {path}");
            let run = client_against(behaviour, &words);
            assert_caught(&run, &[told]);
            for words in ["throughput: ", "cut off before its time: connection", " 0 never sent", "verdict: valid"] {
                assert!(run.out.contains(words), "{words:?} is not in {}", run.out);
            }
            let written = json(&path);
            assert_valid(RUN_SCHEMA, &written);
            let repeat = &written["repeats"][0];
            assert!(repeat["cut_off"].as_str().is_some_and(|why| why.contains(told)), "{repeat}");
            let compared = client(9900, &format!("compare {path} {path}"));
            assert_caught(&compared, &["nothing to compare"]);
            let rate = repeat["achieved_per_second"].as_f64().expect("a number");
            assert!(count(repeat, "answered") >= 50 && rate > 1.0, "of the time until then: {repeat}");
        }
    }
}
