//! The client as its users run it: the program, its arguments and its exit status, against a stub server.
//!
//! It is not a test of the real server. Every server here is a thread of the test, on loopback.
//!
//! Invariants: a client ends by itself (`--timeout`), so a test that goes wrong fails and does not hang.

mod instrument;
mod schema;
mod stub;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use disrust_protocol::RequestLayout;
use stub::Behaviour;

const LAYOUT: RequestLayout = RequestLayout::new(16);

/// What a client's run came to.
struct Run {
    status: Option<i32>,
    out: String,
    error: String,
}

/// Runs `client PORT WORDS` to its end.
fn client(port: u16, words: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.arg(port.to_string()).args(words.split_whitespace());
    let Output { status, stdout, stderr } = command.output().expect("the client starts");
    let text = |bytes| String::from_utf8(bytes).expect("the client prints UTF-8");
    Run { status: status.code(), out: text(stdout), error: text(stderr) }
}

/// Runs the client against a stub that behaves so.
fn client_against(behaviour: Behaviour, words: &str) -> Run {
    client(stub::start(LAYOUT, behaviour), words)
}

fn assert_right(run: &Run) {
    assert_eq!(run.status, Some(0), "out: {}error: {}", run.out, run.error);
    assert_eq!(run.error, "");
}

/// The client must have stopped with exit status 1 and one message that says all of `told`.
fn assert_caught(run: &Run, told: &[&str]) {
    assert_eq!(run.status, Some(1), "out: {}error: {}", run.out, run.error);
    for words in told {
        assert!(run.error.contains(words), "{words:?} is not in {:?}", run.error);
    }
}

/// The promise: a server that keeps the contract passes every mode, and each mode tells what it did.
#[test]
fn a_right_server_passes() {
    for behaviour in [Behaviour::Right, Behaviour::RightByteByByte] {
        let port = stub::start(LAYOUT, behaviour);
        for (mode, told) in [
            ("", "smoke: all right"),
            ("smoke", "error answer [0, 1]"),
            ("pipeline", "received all answers in order"),
            ("bench 3 1000", "every answer verified"),
            ("bench 2 100 --window 7 --vectors 64", "(100 requests in"),
        ] {
            let run = client(port, mode);
            assert_right(&run);
            assert!(run.out.contains(told), "{mode}: {told:?} is not in {:?}", run.out);
        }
    }
}

/// The promise: every mode works with the server's number of features, also the smallest.
#[test]
fn other_numbers_of_features_pass() {
    for features in [1, 2, 100] {
        let port = stub::start(RequestLayout::new(features), Behaviour::Right);
        for mode in ["smoke", "pipeline", "bench 2 500 --vectors 3"] {
            assert_right(&client(port, &format!("{mode} --features {features}")));
        }
    }
}

/// The promise: with `--hello`, each connection says it first, also those that replace others, and checks what it is told.
#[test]
fn each_connection_says_hello_first_if_it_is_to() {
    let port = stub::start(LAYOUT, Behaviour::DemandsHello);
    for mode in [
        "smoke",
        "pipeline",
        "bench 3 2000 --window 7",
        "run --lag-limit 1h --closed --connections 3 --window 5 --duration 500ms --warmup 0s --reconnect-every 20 --slow-readers 1",
        "run --lag-limit 1h --rate 2k --connections 2 --duration 500ms --warmup 0s --reconnect-every 9",
    ] {
        assert_right(&client(port, &format!("{mode} --hello")));
        let run = client(port, mode);
        assert!(run.status != Some(0) && !run.error.is_empty(), "{mode}: without hello it is hung up on");
    }
    assert_right(&client(port, "--hello smoke"));
}

/// The promise: who knows no hello, or takes other vectors, is told of with what to try.
#[test]
fn a_refused_hello_is_told_with_advice() {
    for mode in ["smoke", "bench 1 1", "run --closed --duration 100ms"] {
        let run = client_against(Behaviour::Right, &format!("{mode} --hello"));
        assert_caught(&run, &["bad num_vectors", "knows no hello", "without --hello"]);
        let run = client_against(Behaviour::DemandsHello, &format!("{mode} --hello --features 15"));
        assert_caught(&run, &["another number of features (code 5)", "--features"]);
    }
    assert_eq!(client_against(Behaviour::Right, "sweep --quick --hello").status, Some(2), "the floors know none");
}

/// The promise: without a server the client says what to try.
#[test]
fn no_server_is_told_with_advice() {
    // The port of a client's end is taken, so nobody else listens on it, and neither do we.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    let address = listener.local_addr().expect("a bound listener has an address");
    let stream = TcpStream::connect(address).expect("a connection to ourselves");
    let port = stream.local_addr().expect("a connected stream has an address").port();
    for mode in ["", "smoke", "pipeline", "bench 1 1"] {
        assert_caught(
            &client(port, mode),
            &["cannot connect to 127.0.0.1:", "Is the server running?", "cargo run --release"],
        );
    }
}

/// The promise: a usage error is not a failed check: its exit status is 2.
#[test]
fn a_usage_error_has_its_own_status() {
    assert_eq!(client(9900, "bench 64").status, Some(2));
}

/// The promise: one wrong bit in one score is caught by every mode, and laid to its request.
#[test]
fn a_wrong_bit_is_caught() {
    assert_caught(
        &client_against(Behaviour::WrongBit(2), "smoke"),
        &["connection 0, request 2: wrong answer: the score of vector 63"],
    );
    assert_caught(&client_against(Behaviour::WrongBit(777), "pipeline"), &["connection 0, request 777: wrong answer"]);
    assert_caught(
        &client_against(Behaviour::WrongBit(777), "bench 1 1000"),
        &["connection 0, request 777: wrong answer"],
    );
    assert_caught(
        &client_against(Behaviour::WrongBit(5), "bench 4 1000 --vectors 3"),
        &["request 5: wrong answer: the score of vector 2"],
    );
}

/// The promise: a model that adds the features in another order is caught.
#[test]
fn another_order_of_adding_is_caught() {
    for mode in ["smoke", "pipeline", "bench 4 1000"] {
        assert_caught(&client_against(Behaviour::WrongOrderOfAdding, mode), &["wrong answer: the score of vector"]);
    }
}

/// The promise: two answers that changed places are caught.
#[test]
fn answers_out_of_order_are_caught() {
    assert_caught(
        &client_against(Behaviour::OutOfOrder(500), "pipeline"),
        &["connection 0, request 500: wrong answer"],
    );
    assert_caught(
        &client_against(Behaviour::OutOfOrder(500), "bench 1 1000"),
        &["connection 0, request 500: wrong answer"],
    );
}

/// The promise: a stream that ends inside an answer, or before it, is caught.
#[test]
fn an_early_end_is_caught() {
    for (mode, at) in [("smoke", 1), ("pipeline", 300), ("bench 2 1000", 300)] {
        let request = format!("request {at}: the server closed the connection");
        assert_caught(&client_against(Behaviour::CutMidFrame(at), mode), &[&request]);
        assert_caught(&client_against(Behaviour::Closes(at), mode), &[&request, "with 0 bytes of the answer sent"]);
    }
}

/// The promise: an error answer, bytes that are no answer, and a wrong number of scores are told for what they are.
#[test]
fn other_answers_are_caught() {
    for (mode, at) in [("smoke", 1), ("pipeline", 300), ("bench 2 1000", 300)] {
        let request = format!("request {at}: ");
        assert_caught(
            &client_against(Behaviour::ErrorAnswer(at), mode),
            &[&request, "error answer", "shed", "(code 3)"],
        );
        assert_caught(&client_against(Behaviour::Nonsense(at), mode), &[&request, "not an answer"]);
    }
    assert_caught(
        &client_against(Behaviour::ExtraScore(1), "smoke"),
        &["request 1: wrong answer: 4 scores, expected 3"],
    );
    assert_caught(
        &client_against(Behaviour::ExtraScore(9), "bench 1 100"),
        &["request 9: wrong answer: 2 scores, expected 1"],
    );
}

/// The promise: an answer that comes twice is caught, also behind the last request.
#[test]
fn an_answer_too_many_is_caught() {
    assert_caught(&client_against(Behaviour::Twice(4), "smoke"), &["answer nothing"]);
    assert_caught(&client_against(Behaviour::Twice(999), "pipeline"), &["answer nothing"]);
    assert_caught(&client_against(Behaviour::Twice(40), "bench 1 100"), &["request 41: wrong answer"]);
    assert_caught(
        &client_against(Behaviour::Twice(100), "bench 1 100 --window 1"),
        &["request 101: 5 bytes came that answer nothing"],
    );
}

/// The promise: a server that falls silent ends the run after `--timeout`, and the request that waits is named.
#[test]
fn a_silent_server_is_caught_in_time() {
    let start = Instant::now();
    for (mode, at) in [("smoke", 1), ("pipeline", 300), ("bench 2 1000", 300)] {
        let run = client_against(Behaviour::Silent(at), &format!("{mode} --timeout 300ms"));
        assert_caught(&run, &[&format!("request {at}: "), "the server stalled", "300ms"]);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

/// The promise: after an invalid request the client insists on error answer 1 and the end of the stream.
#[test]
fn a_wrong_reaction_to_an_invalid_request_is_caught() {
    assert_caught(&client_against(Behaviour::NoErrorAnswer, "smoke"), &["connection 1, request 2: the server closed"]);
    assert_caught(
        &client_against(Behaviour::OtherErrorAnswer, "smoke"),
        &["connection 1, request 2: error answer", "(code 2)"],
    );
}

/// The promise: a client that shuts down its sending side insists on the end of the stream.
#[test]
fn a_connection_that_never_ends_is_caught() {
    for mode in ["smoke", "pipeline"] {
        let run = client_against(Behaviour::NeverCloses, &format!("{mode} --timeout 300ms"));
        assert_caught(&run, &["the server does not end the stream", "300ms"]);
    }
}

/// The promise: bursts that neither the sockets' buffers nor one read can hold come through whole.
#[test]
fn windows_larger_than_the_sockets_buffers_pass() {
    let run = client_against(Behaviour::Right, "bench 2 6000 --window 1024 --vectors 64");
    assert_right(&run);
}

/// The promise: every connection takes part, and no request is lost or counted twice, however they divide.
#[test]
fn every_connection_takes_part() {
    let run = client_against(Behaviour::Right, "bench 10 25");
    assert_right(&run);
    assert!(run.out.contains("(25 requests in"), "{}", run.out);
    assert_right(&client_against(Behaviour::Right, "bench 10 3"));
}

/// The promise: the server's CPU time is reported, by thread, and one that cannot be read is an error.
#[test]
fn the_servers_cpu_time_is_reported() {
    let this_process = std::process::id();
    let run = client_against(Behaviour::Right, &format!("bench 4 20000 --server-pid {this_process}"));
    assert_right(&run);
    assert!(run.out.contains("server CPU: ") && run.out.contains(" us an answer-turn"), "{}", run.out);

    let run = client_against(Behaviour::Right, "bench 1 10 --server-pid 4294967295");
    assert_caught(&run, &["cannot read the CPU time of process 4294967295", "--server-pid"]);
}
