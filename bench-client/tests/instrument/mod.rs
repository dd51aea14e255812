//! The instrument measured: `run`, `search`, `compare` and `probe` against stubs whose figures are known beforehand.
//!
//! It is not a measurement of anything else: bounds on times are counted by hand from the stub's stall, and wide enough
//! for a debug build on a busy machine. Where a test is not about the verdict, `--lag-limit` is set so high that a busy
//! machine does not make the client "saturated".
//!
//! Invariants: each test has files of its own, below cargo's directory for them.

mod error_answers;
mod files;
mod reconnect;

use serde_json::Value;

use super::stub::Behaviour;
use super::{LAYOUT, Run, assert_caught, assert_right, client, client_against, stub};
use files::{json, temporary};

/// No machine is so busy.
const PATIENT: &str = "--lag-limit 1h --warmup 0s";

const SECOND_NS: u64 = 1_000_000_000;

/// `client run` against a stub that behaves so, with a verdict that a busy machine does not change.
fn run_against(behaviour: Behaviour, words: &str) -> Run {
    client_against(behaviour, &format!("run {PATIENT} {words}"))
}

/// The same, and what it wrote as JSON under `name`.
fn json_of_run(behaviour: Behaviour, name: &str, words: &str) -> Value {
    let path = temporary(name);
    let run = run_against(behaviour, &format!("{words} --json {path}"));
    assert_right(&run);
    json(&path)
}

fn ns(run: &Value, distribution: &str, statistic: &str) -> u64 {
    let figure = &run["repeats"][0][distribution][statistic];
    figure.as_u64().unwrap_or_else(|| panic!("{distribution}.{statistic} is {figure}"))
}

/// The promise: a right server passes in every way of sending, and nothing is printed but the table.
#[test]
fn a_right_server_passes_every_kind_of_run() {
    let port = stub::start(LAYOUT, Behaviour::Right);
    for words in [
        "--rate 500",
        "--rate 2k --arrival constant --connections 3 --threads 2",
        "--rate 2000 --arrival burst --burst 50 --vectors 1..64",
        "--rate 1k --vectors 1:90,64:10 --spin 0s",
        "--rate 1k --connections 4 --reconnect-every 20 --connect-rate 100",
        "--rate 500 --slow-readers 2",
        "--closed --connections 3 --window 16 --vectors 1:90,64:10",
        "--closed --connections 2 --window 4 --reconnect-every 50 --threads 2",
    ] {
        let run = client(port, &format!("run {PATIENT} --duration 500ms {words}"));
        assert_right(&run);
        let told: &[&str] = if words.contains("--closed") {
            &["throughput, not a latency claim", "service time (closed loop)"]
        } else {
            &["response time (intended)", "service time (sent)", "schedule lag", "offered"]
        };
        for words in told.iter().chain(&["every one verified", "verdict: valid", "0 unanswered, 0 never sent"]) {
            assert!(run.out.contains(words), "{words:?} is not in {:?}", run.out);
        }
    }
}

/// The promise: a stall of 1 s in a run of 4 s shows in the open loop as it must: the 1000 requests that came due in it
/// waited 1 s to 0 s, so a share of (1 s - x) / 4 s of all waited longer than x. By hand: p90 = 0.6 s, p99 = 0.96 s.
#[test]
fn a_stall_shows_at_its_full_length_in_the_open_loop() {
    let stall = Behaviour::StallsOnce { after_ms: 1500, stall_ms: 1000 };
    let run = json_of_run(stall, "stall_open.json", "--rate 1000 --arrival constant --duration 4s --connections 8");
    assert_eq!(ns(&run, "response_ns", "count"), 4000, "no request is left out");
    let (p90, p99) = (ns(&run, "response_ns", "p90"), ns(&run, "response_ns", "p99"));
    let max = ns(&run, "response_ns", "max");
    assert!((SECOND_NS / 2..2 * SECOND_NS).contains(&p90), "{p90}");
    assert!((SECOND_NS * 9 / 10..3 * SECOND_NS).contains(&p99), "{p99}");
    assert!((SECOND_NS * 95 / 100..3 * SECOND_NS).contains(&max), "{max}");
    assert!(ns(&run, "response_ns", "p50") < SECOND_NS / 2, "most requests came due outside of the stall");
}

/// The promise: why the closed loop is no latency claim: the same stall delays one request in it, and p99 knows nothing.
#[test]
fn a_stall_hides_from_the_closed_loop() {
    let stall = Behaviour::StallsOnce { after_ms: 1500, stall_ms: 1000 };
    let run = json_of_run(stall, "stall_closed.json", "--closed --connections 1 --window 1 --duration 4s");
    assert!(run["repeats"][0]["response_ns"].is_null(), "a closed loop intends nothing");
    assert!(ns(&run, "service_ns", "max") > SECOND_NS / 2);
    assert!(ns(&run, "service_ns", "p99") < SECOND_NS / 2, "{run}");
}

/// The promise: one wrong answer fails any run, and is laid to its request.
#[test]
fn wrong_answers_are_caught() {
    for pace in ["--rate 1k --connections 2", "--closed --connections 2 --window 4"] {
        let words = format!("{pace} --duration 2s");
        for (behaviour, told) in [
            (Behaviour::WrongBit(50), "request 50: wrong answer: the score of vector 0"),
            (Behaviour::WrongOrderOfAdding, "wrong answer: the score of vector"),
            (Behaviour::OutOfOrder(50), "request 50: wrong answer"),
            (Behaviour::ErrorAnswer(50), "request 50: error answer"),
            (Behaviour::Nonsense(50), "request 50: not an answer"),
            (Behaviour::ExtraScore(50), "request 50: wrong answer: 2 scores, expected 1"),
            (Behaviour::CutMidFrame(50), "request 50: the server closed the connection, with 2 bytes"),
            (Behaviour::Closes(50), "request 50: "),
            (Behaviour::Twice(50), "request 51: "),
        ] {
            assert_caught(&run_against(behaviour, &words), &[told]);
        }
    }
}

/// The promise: an answer too many is caught behind the last request too.
#[test]
fn an_answer_too_many_at_the_end_is_caught() {
    let words = "--rate 100 --arrival constant --duration 1s --connections 1";
    assert_caught(&run_against(Behaviour::Twice(99), words), &["request 100: 5 bytes came that answer nothing"]);
}

/// The promise: answers that come later than `--timeout`, or never, are losses: counted, named, and the run fails.
#[test]
fn late_and_missing_answers_are_losses() {
    let late = Behaviour::StallsOnce { after_ms: 300, stall_ms: 5000 };
    for behaviour in [late, Behaviour::Silent(50)] {
        for pace in ["--rate 1k", "--closed --window 1"] {
            let run = run_against(behaviour, &format!("{pace} --connections 1 --duration 1s --timeout 500ms"));
            assert_caught(&run, &["got no answer", "connection 0, request", "the server stalled", "500ms"]);
            assert!(run.out.contains("losses: ") && !run.out.contains("losses: 0 "), "{}", run.out);
        }
    }
}

/// The promise: a server that answers, but too slowly ever to be done, does not hold the client for ever; what it owes
/// is lost, and the client is not called saturated.
#[test]
fn a_server_that_does_not_keep_up_loses_requests() {
    let words = "--rate 1k --arrival constant --connections 1 --duration 300ms --timeout 1s";
    let run = run_against(Behaviour::TricklesOut, words);
    assert_caught(&run, &["requests got no answer", "the server did not keep up", "1s after the end of the run"]);
    assert!(run.out.contains(" 0 never sent") && run.out.contains("verdict: valid"), "{}", run.out);
}

/// The promise: a client that cannot send what it was asked to send says so, and has an exit status of its own.
#[test]
fn a_saturated_client_is_invalid() {
    let words = "run --rate 500M --warmup 0s --duration 300ms --connections 2 --timeout 2s";
    let run = client_against(Behaviour::Right, words);
    assert_eq!(run.status, Some(3), "out: {}error: {}", run.out, run.error);
    // On a busy machine it may truly be something else that had its CPU.
    let causes =
        ["client saturated: ", "something else had the client's CPU: "].map(|cause| format!("INVALID: {cause}"));
    assert!(causes.iter().any(|cause| run.error.contains(cause)), "{}", run.error);
    assert!(causes.iter().any(|cause| run.out.contains(&format!("verdict: {cause}"))), "{}", run.out);
    assert!(run.out.contains("were never sent"), "{}", run.out);
}

/// The promise: a lag that the user does not accept makes a run invalid too.
#[test]
fn lag_above_the_limit_is_invalid() {
    let run = client_against(Behaviour::Right, "run --rate 500 --warmup 0s --duration 300ms --lag-limit 1ns");
    assert_eq!(run.status, Some(3), "out: {}error: {}", run.out, run.error);
    assert!(run.error.contains("schedule lag's p99"), "{}", run.error);
}

/// The promise: at a low rate the client sleeps, and leaves the CPU to the server beside it.
#[test]
fn a_low_rate_costs_little() {
    let run = json_of_run(Behaviour::Right, "low_rate.json", "--rate 100 --arrival constant --duration 1s");
    let share = run["repeats"][0]["client_cpu_share"].as_f64().expect("a number");
    assert!(share < 0.5, "{share} of a CPU for 100 requests");
}

/// The promise: a run in which nothing came due is a run still, with nothing to show.
#[test]
fn a_run_without_requests_shows_nothing() {
    let [json_file, hgrm, svg] = ["none.json", "none.hgrm", "none.svg"].map(temporary);
    let words = format!("--rate 0.001 --duration 50ms --json {json_file} --hgrm {hgrm} --svg {svg}");
    assert_right(&run_against(Behaviour::Right, &words));
    assert!(json(&json_file)["repeats"][0]["response_ns"].is_null());
}

/// The promise: `--fail-if` fails a run in which it is true, and only then.
#[test]
fn fail_if_has_its_own_status() {
    let port = stub::start(LAYOUT, Behaviour::Right);
    let words = format!("run {PATIENT} --rate 500 --duration 300ms --fail-if");
    assert_right(&client(port, &format!("{words} p99>1h --fail-if rate<1").replace("1h", "3000s")));
    let run = client(port, &format!("{words} p50>1ns"));
    assert_eq!(run.status, Some(4), "{}", run.error);
    assert!(run.error.contains("--fail-if p50>1ns: it is"), "{}", run.error);
    let closed = client(port, &format!("run {PATIENT} --closed --duration 300ms --fail-if p99>1s"));
    assert_eq!(closed.status, Some(4), "{}", closed.error);
    assert!(closed.error.contains("no such figure"), "a closed loop has no response time: {}", closed.error);
}

/// The promise: `search` finds the rate up to which a limit holds, and says so when there is none.
#[test]
fn search_finds_what_holds() {
    let port = stub::start(LAYOUT, Behaviour::Right);
    let words = format!("search {PATIENT} --from 200 --to 400 --duration 300ms");
    let run = client(port, &format!("{words} --slo p99<=100s"));
    assert_right(&run);
    assert!(run.out.contains("holds up to: 400 requests/s"), "{}", run.out);
    let run = client(port, &format!("{words} --slo p50<=1ns"));
    assert_eq!(run.status, Some(4), "{}", run.error);
}

/// The promise: latency that falls and rises with the rate does not hide the rates between: the search begins where the
/// limit does not hold and finds the upper edge, and how far down it was found to hold. The edges are the stub's, which
/// counts requests over a quarter of a second; the bounds are a factor of two around them.
#[test]
fn search_finds_a_valley() {
    let port = stub::start(LAYOUT, Behaviour::Valley { from: 150, to: 900 });
    let words = "--warmup 400ms --duration 400ms --arrival constant --connections 2 --from 40 --to 20k --precision 0.3";
    let run = client(port, &format!("search --lag-limit 1h {words} --slo p50<=250ms"));
    assert_right(&run);
    let rate = |name: &str| -> f64 {
        let line = run.out.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{}", run.out));
        line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a rate")
    };
    let (lowest, highest) = (rate("holds from: "), rate("holds up to: "));
    assert!((100.0..=600.0).contains(&lowest) && (450.0..=1800.0).contains(&highest), "{}", run.out);
    assert!(run.out.contains("knee: ") && run.out.contains("breaks p50<=250ms"), "{}", run.out);
}

/// The promise: `probe` tells the round trip of each size, and checks answers too.
#[test]
fn probe_tells_the_round_trip() {
    let run = client_against(Behaviour::Right, "probe --duration 200ms");
    assert_right(&run);
    assert_eq!(run.out.lines().count(), 5, "{}", run.out);
    assert_caught(&client_against(Behaviour::WrongBit(9), "probe --duration 200ms"), &["request 9: wrong answer"]);
}
