//! A sweep as its users run it, as small as one can be: one floor, one load, fractions of a second.
//!
//! It is not a measurement: nothing is asserted about any figure but that it is there.
//!
//! Invariants: the test has a directory of its own, below cargo's for it; the sweep's servers are on loopback and end
//! with it.

mod schema;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use schema::assert_valid;

/// One point in each loop.
const TINY: &str = "--servers epoll --io-threads 1 --connections 2 --window 4 --vectors 1 --fractions 0.05 --repeats 2 \
                    --duration 100ms --warmup 20ms";

/// The longest that anything here may take.
const TIMEOUT: Duration = Duration::from_secs(60);

fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It is there only if an earlier run of the test left it.
    let _unless_there = fs::remove_dir_all(&path);
    path
}

fn sweep(out: &Path, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.arg("sweep").args(words.split_whitespace()).arg("--out").arg(out);
    command
}

fn output(out: &Path, words: &str) -> Output {
    sweep(out, words).output().expect("the client starts")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_right(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// The promise: every file is there with its figures, a second run measures nothing again, and a document gets its
/// tables between its markers and nowhere else.
#[test]
fn a_sweep_leaves_its_files_and_goes_on_from_them() {
    let out = directory("sweep_files");
    assert_right(&output(&out, TINY));
    let journal = read(&out.join("points.jsonl"));
    assert_eq!(journal.lines().count(), 4, "2 points, 2 rounds: {journal}");
    let json: Value = serde_json::from_str(&read(&out.join("sweep.json"))).expect("JSON");
    assert_valid(include_str!("../schema/sweep.v1.schema.json"), &json);
    for point in json["points"].as_array().expect("points") {
        for figure in ["requests_per_second", "server_cpu_ns_per_request", "ns_p99_9", "server_resident_bytes"] {
            assert!(point["figures"][figure]["median"].as_f64() > Some(0.0), "{figure}: {point}");
        }
        assert_eq!(point["visits"], 2);
    }
    assert_eq!(read(&out.join("sweep.csv")).lines().count(), 3);
    for plot in ["throughput.svg", "cpu.svg", "latency_p50.svg", "latency_p99.svg", "latency_p999.svg"] {
        assert!(read(&out.join(plot)).contains("epoll floor"), "{plot}");
    }

    let document = out.join("document.md");
    let unmeasured = "<!-- sweep:wait -->\nof yesterday\n<!-- /sweep:wait -->\n";
    let marked = format!("mine\n{unmeasured}<!-- sweep:scaling -->\nold\n<!-- /sweep:scaling -->\nmine too\n");
    fs::write(&document, marked).expect("a file");
    let path = document.to_str().expect("cargo's directories are UTF-8");
    let again = output(&out, &format!("{TINY} --write {path}"));
    assert_right(&again);
    assert_eq!(read(&out.join("points.jsonl")), journal, "nothing was measured again");
    let text = read(&document);
    let begins = format!("mine\n{unmeasured}<!-- sweep:scaling -->\n2 connections, window 4");
    assert!(text.starts_with(&begins), "a table that was not measured stays: {text}");
    assert!(text.ends_with("<!-- /sweep:scaling -->\nmine too\n") && !text.contains("old"), "{text}");

    let printed = String::from_utf8_lossy(&again.stdout);
    assert!(printed.contains("## scaling") && !printed.contains("## wait"), "{printed}");
    let last: Vec<&str> = printed.lines().rev().take(3).collect();
    for (line, begins) in
        last.iter().rev().zip(["throughput at 2 connections", "server CPU a request at", "p99 at 5 %"])
    {
        assert!(line.starts_with(begins), "{printed}");
    }

    assert_right(&output(&out, &format!("{TINY} --fresh")));
    let measured_anew = read(&out.join("points.jsonl"));
    assert_eq!(measured_anew.lines().count(), 4);
    assert!(measured_anew.lines().all(|line| !journal.contains(line)), "what was kept is forgotten");
}

/// The promise: what cannot work is told before anything is measured.
#[test]
fn a_sweep_that_cannot_work_ends_at_once() {
    let out = directory("sweep_refused");
    let words = format!("{TINY} --servers disrust --server {}", out.join("nothing").display());
    let refused = output(&out, &words.replace("--servers epoll", ""));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cargo build --release --workspace"), "{refused:?}");

    fs::create_dir_all(&out).expect("a directory");
    let document = out.join("document.md");
    fs::write(&document, "<!-- sweep:nonsense --><!-- /sweep:nonsense -->").expect("a file");
    let refused = output(&out, &format!("{TINY} --write {}", document.display()));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no table `nonsense`"), "{refused:?}");
    assert_eq!(read(&out.join("points.jsonl")), "", "nothing was measured");
}

/// The promise: a sweep that is told to stop takes its servers with it, keeps what it has, and says how to go on.
#[test]
fn an_interrupted_sweep_leaves_no_server() {
    let out = directory("sweep_interrupted");
    let words = TINY.replace("--duration 100ms", "--duration 1s").replace("--repeats 2", "--repeats 100");
    let child = sweep(&out, &words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the client starts");
    let servers = wait_for_children(&child);
    kill(process(&child), Signal::SIGTERM).expect("it runs");
    let ended = child.wait_with_output().expect("it is our child");
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("interrupted"), "{ended:?}");
    for server in servers {
        assert!(!Path::new(&format!("/proc/{server}")).exists(), "{server} is still there");
    }
}

fn process(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id is positive"))
}

/// The processes that `parent` has started, as soon as there is one.
fn wait_for_children(parent: &Child) -> Vec<u32> {
    let start = Instant::now();
    loop {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.id())).expect("it runs");
        let children: Vec<u32> = children.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        if !children.is_empty() {
            return children;
        }
        assert!(start.elapsed() < TIMEOUT, "the sweep starts a server");
        std::thread::sleep(Duration::from_millis(5));
    }
}
