//! SIGHUP reads the model file again: under load, with files that serve and files that do not.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use disrust_protocol::{ErrorCode, HelloRequest};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use common::models::{TemporaryFile, constant, cut, lightgbm, regression, three_classes};
use common::{Client, PATIENCE_FOR_END, Reply, Request, ServerProcess, wait_patiently_until, wait_until};

/// A line that a new model leaves in the log.
const REPLACED: &str = "is replaced: version ";

/// A line that a file leaves that is not taken.
const NOT_TAKEN: &str = "the new model is not taken";

fn count(server: &ServerProcess, said: &str) -> usize {
    server.stderr().matches(said).count()
}

/// Asks for the file to be read, and waits until it serves.
fn reload(server: &ServerProcess) {
    let before = count(server, REPLACED);
    server.signal(Signal::SIGHUP);
    // Where all CPUs are busy it takes its time.
    wait_patiently_until(PATIENCE_FOR_END, "the new model serves", || count(server, REPLACED) > before);
}

/// A request of rows of two features.
fn request(rows: usize) -> Request {
    Request::of(2, &vec![0.25; 2 * rows])
}

/// The one number that all scores of an answer are.
fn number_of(reply: &Reply, rows: usize) -> u32 {
    let Reply::Scores(scores) = reply else { panic!("scores, not {reply:?}") };
    assert!(scores.len() == rows && scores.iter().all(|score| *score == scores[0]), "of one model: {scores:?}");
    scores[0] as u32
}

fn score(client: &mut Client) -> u32 {
    client.send_all(&[request(3)]);
    number_of(&client.receive().expect("an answer"), 3)
}

/// While clients keep the server busy, the file changes back and forth: each answer is of one version, none is lost, and from
/// the line in the log on all of them are of the new one.
#[test]
fn a_reload_under_load_loses_and_mixes_nothing() {
    const ROWS: [usize; 4] = [1, 7, 64, 2];
    for flags in [&[][..], &["--seccomp", "--io-threads", "2"]] {
        let file = TemporaryFile::new("loaded.txt", constant(1));
        let server = ServerProcess::start(&[&["--model", file.path()], flags].concat());
        let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        // The version that was the last to be in force when a window began.
        let in_force = AtomicUsize::new(1);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mut client = server.connect();
                let (stop, answered, in_force) = (&stop, &answered, &in_force);
                scope.spawn(move || {
                    let window: Vec<Request> = (0..40).map(|index| request(ROWS[index % ROWS.len()])).collect();
                    while !stop.load(Ordering::Relaxed) {
                        let mut least = in_force.load(Ordering::SeqCst) as u32;
                        client.send_all(&window);
                        for index in 0..window.len() {
                            let reply = client.receive().expect("no request is lost");
                            let version = number_of(&reply, ROWS[index % ROWS.len()]);
                            assert!(version >= least && version <= least + 2, "{version} after {least}");
                            least = version;
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            for version in 2..12_u32 {
                let before = answered.load(Ordering::Relaxed);
                wait_until("the load is on", || answered.load(Ordering::Relaxed) > before + 200);
                file.replace(constant(version));
                reload(&server);
                in_force.store(version as usize, Ordering::SeqCst);
                assert_eq!(score(&mut server.connect()), version, "whoever comes after the line in the log");
            }
            stop.store(true, Ordering::Relaxed);
        });
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait();
        assert!(status == Some(0) && log.matches(REPLACED).count() == 10 && !log.contains("WARN"), "{log}");
    }
}

/// A hello names the file's version, which is the beginning of its SHA-256, and after SIGHUP the new file's; requests behind it are
/// scored by the version that it named or a newer one.
#[test]
fn a_hello_names_the_version_of_the_file() {
    let version_of = |content: &str| u64::from_be_bytes(*Sha256::digest(content).first_chunk().expect("32 bytes"));
    let file = TemporaryFile::new("greeted.txt", constant(1));
    let server = ServerProcess::start(&["--model", file.path(), "--model-name", "credit"]);
    let versions: Vec<u64> = (1..=5).map(|number| version_of(&constant(number))).collect();
    let (stop, address) = (AtomicBool::new(false), server.address());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut client, mut least) = (Client::connect(address), 1);
            let hello = HelloRequest { feature_dim: 2 }.to_bytes();
            while !stop.load(Ordering::Relaxed) {
                let request = request(3);
                client.send(&[&hello[..], &request.bytes, &hello, &hello, &request.bytes, &request.bytes].concat());
                for is_hello in [true, false, true, true, false, false] {
                    let number = if is_hello {
                        let told = client.receive_hello().expect("an answer").expect("no error");
                        assert_eq!((told.feature_dim, told.outputs, &told.model_name[..]), (2, 1, "credit"));
                        1 + versions.iter().position(|version| *version == told.model_version).expect("it was served")
                    } else {
                        number_of(&client.receive().expect("no request is lost"), 3) as usize
                    };
                    assert!(number >= least, "{number} after {least}");
                    least = number;
                }
            }
        });
        for number in 1..=5_u32 {
            if number > 1 {
                file.replace(constant(number));
                reload(&server);
            }
            let told = server.connect().hello(2).expect("no error");
            assert_eq!(told.model_version, versions[number as usize - 1], "whoever comes after the line in the log");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// A file that is bad, or for other rows or answers, leaves the one that serves, with one line that says why; a good one
/// that comes later is taken, and one that is gone is too late for nothing.
#[test]
fn a_bad_file_leaves_the_old_model() {
    let file = TemporaryFile::new("bad.txt", constant(1));
    let server = ServerProcess::start(&["--model", file.path(), "--model-name", "credit"]);
    let mut client = server.connect();
    let mut bad = 0;
    let mut refused = |said: &str, client: &mut Client| {
        server.signal(Signal::SIGHUP);
        bad += 1;
        wait_until("it is said", || count(&server, NOT_TAKEN) == bad);
        let log = server.stderr();
        let line = log.lines().rfind(|line| line.contains(NOT_TAKEN)).expect("it is there");
        assert!(line.contains("WARN") && line.contains("credit of version ") && line.contains(said), "{said}: {line}");
        assert_eq!(score(client), 1, "{said}");
    };
    file.replace("no model at all");
    refused("cannot serve the model file", &mut client);
    file.replace(cut(&constant(2)));
    refused("still being written", &mut client);
    file.replace(lightgbm("regression", &["a", "b", "c"], 1, &[(0, 0.0, 2.0, 2.0)]));
    refused("takes 3 features, and the one that serves takes 2", &mut client);
    file.replace(lightgbm("regression", &["b", "a"], 1, &[(0, 0.0, 2.0, 2.0)]));
    refused("its features are those of the model that serves, in another order", &mut client);
    file.replace(three_classes());
    refused("3 outputs", &mut client);
    std::fs::remove_file(file.path()).expect("it is ours");
    refused("No such file", &mut client);
    file.replace(constant(3));
    reload(&server);
    assert_eq!(score(&mut client), 3);
    file.replace(constant(4));
    reload(&server);
    assert_eq!(score(&mut client), 4);
    let log = server.stderr();
    let banner = log.lines().find(|line| line.starts_with("file: ")).expect("a banner");
    let mut serving = banner.rsplit(' ').next().expect("a version");
    for line in log.lines().filter(|line| line.contains(REPLACED)) {
        let (old, rest) = line.split_once(REPLACED).and_then(|(_, rest)| rest.split_once(" -> ")).expect("old -> new");
        let (new, took) = rest.split_once(", loaded in ").expect("how long it took");
        assert!(old == serving && new != old && new.len() == 16 && took.ends_with(" ms"), "{line}");
        assert!(line.contains("INFO") && line.contains("the model credit is"), "{line}");
        serving = new;
    }
}

/// All outputs stay all outputs, and one that is chosen by name is looked for by its name in the new file.
#[test]
fn what_is_served_of_a_file_is_chosen_again() {
    let file = TemporaryFile::new("chosen.txt", three_classes());
    let server = ServerProcess::start(&["--model", file.path(), "--output", "all"]);
    file.replace(regression());
    server.signal(Signal::SIGHUP);
    wait_until("it is said", || server.stderr().contains("gives 1 outputs, and the one that serves gives 3"));
    let one = ServerProcess::start(&["--model", file.path(), "--output", "score"]);
    file.replace(three_classes());
    one.signal(Signal::SIGHUP);
    wait_until("it is said", || one.stderr().contains("no output score"));
}

/// However many SIGHUPs come at once, what serves in the end is what the file held when the last one came.
#[test]
fn signals_at_once_coalesce_and_the_last_one_counts() {
    let file = TemporaryFile::new("many.txt", constant(1));
    let server = ServerProcess::start(&["--model", file.path()]);
    let mut client = server.connect();
    for round in 1..=20 {
        for step in 0..5 {
            file.replace(constant(10 * round + step));
            server.signal(Signal::SIGHUP);
        }
        wait_until("the last one serves", || score(&mut client) == 10 * round + 4);
    }
    wait_until("all are heard", || count(&server, "SIGHUP") > 0);
    std::thread::sleep(Duration::from_millis(100));
    assert!(count(&server, REPLACED) <= 100, "{}", server.stderr());
}

/// A SIGHUP during the drain is a line in the log, and the drain goes on.
#[test]
fn a_drain_is_not_disturbed() {
    let file = TemporaryFile::new("draining.txt", constant(1));
    let server = ServerProcess::start(&["--model", file.path(), "--drain-timeout", "1h"]);
    let deaf = Client::with_small_buffers(server.address());
    let bytes = Request::of(2, &[1.0; 128]).bytes.repeat(100);
    deaf.stream().set_write_timeout(Some(Duration::from_secs(1))).expect("a time above 0");
    while std::io::Write::write_all(&mut deaf.stream(), &bytes).is_ok() {}
    server.signal(Signal::SIGTERM);
    wait_until("it drains", || server.stderr().contains("SIGTERM: draining"));
    server.signal(Signal::SIGHUP);
    wait_until("it is said", || server.stderr().contains("SIGHUP: nothing changes, the server drains"));
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    assert!(status == Some(0) && !log.contains(REPLACED), "{log}");
    drop(deaf);
}

/// An idle server, whose batch processor sleeps, takes a new model too, and a client that is midway in a request gets the
/// new one's scores.
#[test]
fn a_sleeping_server_takes_a_new_model() {
    let file = TemporaryFile::new("idle.txt", constant(1));
    let server = ServerProcess::start(&["--model", file.path()]);
    let mut client = server.connect();
    let request = request(2);
    let (begin, end) = request.bytes.split_at(9);
    client.send(begin);
    file.replace(constant(2));
    reload(&server);
    client.send(end);
    let reply = client.receive().expect("an answer");
    assert!(reply != Reply::Error(ErrorCode::ModelFailed) && number_of(&reply, 2) == 2, "{reply:?}");
}
