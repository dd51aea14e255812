//! The files that the instrument reads and writes: JSON and its schema, CSV, HdrHistogram's formats, SVG, expectations.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

use super::{PATIENT, json_of_run, run_against};
use crate::schema::assert_valid;
use crate::stub::{self, Behaviour};
use crate::{LAYOUT, assert_caught, assert_right, client};

/// A file for one test, which nobody has written yet.
pub fn temporary(name: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It is there only if an earlier run of the test left it.
    let _ = fs::remove_file(&path);
    path.to_str().expect("cargo's directories are UTF-8").to_owned()
}

/// What a run wrote.
pub fn json(path: &str) -> Value {
    serde_json::from_str(&read(path)).expect("JSON")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).expect("the file was written")
}

/// The promise: what is written is what the committed schema says, in both loops.
#[test]
fn the_json_is_as_the_schema_says() {
    let schema = include_str!("../../schema/run.v1.schema.json");
    let process = std::process::id();
    for (name, words) in [
        ("open.json", format!("--rate 500 --repeat 2 --reconnect-every 9 --server-pid {process} --pin 0")),
        ("closed.json", "--closed --window 3 --server-version 1.2.3".to_owned()),
    ] {
        let written = json_of_run(Behaviour::Right, name, &format!("--duration 300ms {words}"));
        assert_valid(schema, &written);
    }
}

/// The promise: a repeat that is not valid is taken again, as often as there are repeats and not for ever, and is kept
/// apart in the file; what else ran is recorded where the server's process is known.
#[test]
fn invalid_repeats_are_taken_again() {
    let path = temporary("retaken.json");
    let words = format!("--rate 500 --warmup 0s --duration 200ms --repeat 2 --server-pid {}", std::process::id());
    let port = stub::start(LAYOUT, Behaviour::Right);
    let run = client(port, &format!("run {words} --lag-limit 1ns --json {path}"));
    assert_eq!(run.status, Some(3), "out: {}error: {}", run.out, run.error);
    assert_eq!(run.out.matches("this repeat is taken again").count(), 2, "{}", run.out);
    let written = json(&path);
    assert_valid(include_str!("../../schema/run.v1.schema.json"), &written);
    for list in ["repeats", "retaken"] {
        let repeats = written[list].as_array().expect("a list");
        assert_eq!(repeats.len(), 2, "{list}");
        assert!(repeats.iter().all(|repeat| repeat["others_cpu_share"].as_f64() >= Some(0.0)), "{list}: {written}");
    }
    let run = client(port, &format!("run {PATIENT} --rate 500 --duration 200ms --repeat 2 --json {path}"));
    assert_right(&run);
    assert_eq!(json(&path)["retaken"], Value::Array(Vec::new()), "valid ones are not");
    assert!(json(&path)["repeats"][0]["others_cpu_share"].is_null(), "without the process nobody knows");
}

/// The promise: what the server prints of itself during a run is part of the result; without a line of it the run
/// fails, and says how to get them.
#[test]
fn the_servers_own_figures_are_shown_and_written() {
    let printed = temporary("metrics.log");
    fs::write(&printed, "the banner, and a line that is not whole yet: metrics interval_s=9\n").expect("a file");
    let words = format!("--rate 500 --duration 300ms --server-metrics {printed}");
    assert_caught(&run_against(Behaviour::Right, &words), &["no line of metrics", "--features metrics"]);

    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, path) = (Arc::clone(&stop), printed.clone());
    let server = std::thread::spawn(move || {
        let mut file = fs::OpenOptions::new().append(true).open(path).expect("the file");
        while !stopped.load(Ordering::Relaxed) {
            let line = "metrics interval_s=0.001 published=7 connections=3 queue_ns_p50=1500 queue_ns_p99=25000\n";
            file.write_all(line.as_bytes()).expect("it is written");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let json_path = temporary("server_figures.json");
    let run = run_against(Behaviour::Right, &format!("{words} --json {json_path}"));
    stop.store(true, Ordering::Relaxed);
    server.join().expect("it writes until it is stopped");
    assert_right(&run);
    for words in ["the server's own figures", "queue_ns", "1.5us p50", "25.0us p99"] {
        assert!(run.out.contains(words), "{words:?} is not in {}", run.out);
    }
    let written = json(&json_path);
    assert_valid(include_str!("../../schema/run.v1.schema.json"), &written);
    let figures = &written["repeats"][0]["server_figures"];
    assert_eq!(figures["counts"]["published"].as_u64(), figures["intervals"].as_u64().map(|count| 7 * count));
    assert!(figures["counts"].get("connections").is_none(), "a gauge is not added up");
}

/// The promise: two equal runs compare as equal, a slower one is a regression with its own exit status, and what is
/// no run is refused.
#[test]
fn compare_tells_a_regression_from_noise() {
    let before = temporary("before.json");
    assert_right(&run_against(Behaviour::Right, &format!("--rate 500 --duration 200ms --repeat 5 --json {before}")));
    let run = client(9900, &format!("compare {before} {before}"));
    assert_right(&run);
    assert!(run.out.contains("within noise"), "{}", run.out);

    let after = temporary("after.json");
    let mut slower = json(&before);
    for repeat in slower["repeats"].as_array_mut().expect("repeats") {
        repeat["response_ns"]["p99"] = 3_000_000_000_000_u64.into();
    }
    fs::write(&after, slower.to_string()).expect("a file");
    let run = client(9900, &format!("compare {before} {after}"));
    assert_eq!(run.status, Some(4), "{}{}", run.out, run.error);
    assert!(run.error.contains("regression: response.p99"), "{}", run.error);
    assert_right(&client(9900, &format!("compare {after} {before}")));
    assert_right(&client(9900, &format!("compare {before} {after} --metrics rate,service.p50")));

    let few = temporary("few.json");
    let mut shorter = slower.clone();
    for index in [1, 3] {
        shorter["repeats"][index]["valid"] = false.into();
    }
    fs::write(&few, shorter.to_string()).expect("a file");
    let run = client(9900, &format!("compare {before} {few}"));
    assert_caught(&run, &["5 and 3 valid repeats are too few", "run --repeat 5"]);
    assert!(run.out.contains("3 valid repeats, 2 that were not") && run.out.contains("not decided"), "{}", run.out);

    let crowded = temporary("crowded.json");
    for (path, report, share) in [(&after, &slower, 0.0), (&crowded, &json(&before), 0.4)] {
        let mut report = report.clone();
        for repeat in report["repeats"].as_array_mut().expect("repeats") {
            repeat["others_cpu_share"] = share.into();
        }
        fs::write(path, report.to_string()).expect("a file");
    }
    let run = client(9900, &format!("compare {crowded} {after}"));
    assert_caught(&run, &["response.p99 +", "other work took 40 % of the CPUs beside one run and 0 %"]);
    assert!(run.out.contains("not decided") && run.out.contains("within noise"), "{}", run.out);

    slower["schema_version"] = 99.into();
    fs::write(&after, slower.to_string()).expect("a file");
    assert_caught(&client(9900, &format!("compare {before} {after}")), &["version 99"]);
}

/// The promise: the interval log and the percentile file hold every request, and the HdrHistogram library reads them.
#[test]
fn the_histogram_files_hold_every_request() {
    let [hlog, hgrm, csv, svg] = ["run.hlog", "run.hgrm", "run.csv", "run.svg"].map(temporary);
    let words = "--rate 1k --arrival constant --duration 1s --interval 200ms --threads 2 --connections 2";
    let run = run_against(Behaviour::Right, &format!("{words} --hlog {hlog} --hgrm {hgrm} --csv {csv} --svg {svg}"));
    assert_right(&run);

    let text = read(&hlog);
    let (mut intervals, mut requests) = (0, 0);
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        if let LogEntry::Interval(interval) = entry.expect("an entry") {
            let bytes = base64_decoded(interval.encoded_histogram());
            let histogram: Histogram<u64> =
                Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a histogram");
            intervals += 1;
            requests += histogram.len();
        }
    }
    assert!(intervals >= 4, "{intervals} intervals");
    assert_eq!(requests, 1000);

    assert!(read(&hgrm).contains("Total count    =         1000]"), "{}", read(&hgrm));
    let csv = read(&csv);
    let [head, line] = csv.lines().collect::<Vec<_>>()[..] else { panic!("two lines: {csv}") };
    assert_eq!(head.split(',').count(), line.split(',').count());
    assert!(head.contains("response_ns_p99") && line.starts_with("open,1000,constant,"), "{csv}");
    let svg = read(&svg);
    assert!(svg.starts_with("<svg") && svg.contains("percentile"), "{svg}");
}

/// The promise: what is left of a run that is not valid says so, in every file.
#[test]
fn files_of_an_invalid_run_say_so() {
    let [json_file, hlog, csv, svg] = ["invalid.json", "invalid.hlog", "invalid.csv", "invalid.svg"].map(temporary);
    let port = stub::start(LAYOUT, Behaviour::Right);
    let words = "run --rate 500 --warmup 0s --duration 300ms --lag-limit 1ns";
    let run = client(port, &format!("{words} --json {json_file} --hlog {hlog} --csv {csv} --svg {svg}"));
    assert_eq!(run.status, Some(3), "{}", run.error);
    assert_eq!(json(&json_file)["repeats"][0]["valid"], false);
    assert!(read(&csv).contains(",false,") && read(&hlog).contains("INVALID") && read(&svg).contains("INVALID"));
    assert_caught(&client(port, &format!("compare {json_file} {json_file}")), &["no run that was valid"]);
}

/// Runs the client with `input` on its standard input.
fn client_reading(input: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the client starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("the client reads");
    drop(stdin);
    child.wait_with_output().expect("it is our child")
}

/// The promise: a script's table comes between its marks and nowhere else, with the machine, the day and the note below
/// it; an empty one, or one without marks, changes nothing and fails.
#[test]
fn a_scripts_table_is_written() {
    let document = temporary("document.md");
    let old = "mine\n<!-- mutations -->\nold\n<!-- /mutations -->\nmine too\n";
    fs::write(&document, old).expect("a file");
    let table = "| defect | caught by |\n|---|---|\n";
    for (input, mark) in [(table.to_owned(), "mutations"), (format!("{table}| a | b |\n"), "elsewhere")] {
        let refused = client_reading(&input, &["table", &document, mark]);
        assert_eq!((refused.status.code(), read(&document).as_str()), (Some(1), old), "{refused:?}");
    }
    let words = ["table", &document, "mutations", "--note", "1 defect. Again: `scripts/mutations.sh`"];
    let written = client_reading(&format!("{table}| a | b |\n"), &words);
    assert!(written.status.success(), "{written:?}");
    let text = read(&document);
    assert!(text.starts_with(&format!("mine\n<!-- mutations -->\n{table}| a | b |\n\nLinux ")), "{text}");
    assert!(text.ends_with("; 1 defect. Again: `scripts/mutations.sh`.\n<!-- /mutations -->\nmine too\n"), "{text}");
    let source = text.lines().find(|line| line.starts_with("Linux ")).expect("where it was made");
    assert!(source.contains(" CPUs (") && source.contains("), 2"), "the machine and the day: {source}");
}

/// The promise: a script's pairs come back as a median, an interval with its coverage and a verdict.
#[test]
fn a_scripts_pairs_are_compared() {
    let pairs: String = (0..10).map(|round| format!("{} {}\n", 1000 + round, 1100 + round)).collect();
    for (flag, verdict) in [(None, "faster"), (Some("--less-is-better"), "dearer")] {
        let words: Vec<&str> = ["pairs", "requests/s"].into_iter().chain(flag).collect();
        let told = client_reading(&pairs, &words);
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.status.success() && text.starts_with("requests/s, second to first: median 1.1"), "{told:?}");
        assert!(text.contains("97.9 % interval") && text.ends_with(&format!(": {verdict}\n")), "{text}");
    }
    assert_eq!(client_reading("1 x\n", &["pairs", "requests/s"]).status.code(), Some(1));
}

/// The alphabet of RFC 4648, with its padding.
fn base64_decoded(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |byte: u8| alphabet.iter().position(|letter| *letter == byte).expect("base64") as u32;
    let (mut bits, mut bit_count, mut bytes) = (0_u32, 0, Vec::new());
    for byte in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | digit(byte);
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            bytes.push((bits >> bit_count & 0xff) as u8);
        }
    }
    bytes
}

/// The promise: with files of inputs and expected scores, answers are held to them within the tolerance.
#[test]
fn expected_scores_are_checked() {
    let [inputs, right, near, wrong, classes] =
        ["inputs.csv", "right.csv", "near.csv", "wrong.csv", "classes.csv"].map(temporary);
    let rows: Vec<Vec<f32>> =
        (0..50).map(|row| (0..16).map(|feature| (row * feature) as f32 + 1.25).collect()).collect();
    let sum = |row: &Vec<f32>| row.iter().fold(0.0_f32, |sum, feature| sum + feature);
    let lines = |line: &dyn Fn(&Vec<f32>) -> String| rows.iter().map(|row| line(row) + "\n").collect::<String>();
    let written = |path: &str, text: String| fs::write(path, text).expect("a file");
    written(&inputs, lines(&|row| row.iter().map(f32::to_string).collect::<Vec<_>>().join(",")));
    written(&right, lines(&|row| sum(row).to_string()));
    written(&near, lines(&|row| (sum(row) * (1.0 + 1e-4)).to_string()));
    written(&wrong, lines(&|row| (sum(row) * if row[1] == 8.25 { 1.01 } else { 1.0 }).to_string()));
    written(&classes, lines(&|row| format!("0.5,{}", sum(row))));

    let port = stub::start(LAYOUT, Behaviour::Right);
    let run = |words: &str| {
        let words = words.replace("--expect ", &format!("--expect {inputs} "));
        client(port, &format!("run {PATIENT} --rate 1k --duration 300ms --vectors 1..5 {words}"))
    };
    assert_right(&run(&format!("--expect {right}")));
    assert_right(&run(&format!("--expect {right} --tolerance 0")));
    assert_right(&run(&format!("--expect {near} --tolerance 1e-3")));
    assert_right(&run(&format!("--expect {classes} --expect-column 1")));
    assert_caught(&run(&format!("--expect {near}")), &["wrong answer: the score of vector"]);
    assert_caught(&run(&format!("--expect {wrong}")), &["wrong answer: the score of vector"]);
    assert_caught(&run(&format!("--expect {classes}")), &["2 columns", "--expect-column"]);
    assert_caught(&run(&format!("--expect {right} --features 4")), &["16 features, not 4"]);
}
