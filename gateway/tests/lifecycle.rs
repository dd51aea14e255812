//! The program, as an operator and a service manager see it: flags, messages, exit statuses, signals, drains.

mod common;

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::{Behaviour, Connection, GatewayProcess, INFER, Run, Stub, binary, get, post, request, wait_until};
use nix::sys::signal::Signal;

const ROW: &[&[f32]] = &[&[1.0, 2.0, 3.0]];

fn run(flags: &[&str]) -> Run {
    Run::of(binary().args(flags))
}

#[test]
fn help_and_version_are_no_failure() {
    for (flag, said) in
        [("--version", env!("CARGO_PKG_VERSION")), ("--help", "--listen"), ("-h", "DISRUST_GATEWAY_SERVER")]
    {
        let run = run(&[flag]);
        assert!(run.status == Some(0) && run.stdout.contains(said) && run.stderr.is_empty(), "{flag}: {run:?}");
    }
}

/// A mistake on the command line is status 2, and the message names the flag.
#[test]
fn bad_flags_are_named() {
    for (flags, said) in [
        (&["--listen", "8000"][..], "--listen"),
        (&["--server", "here"], "--server"),
        (&["--server", "127.0.0.1:1,unix:"], "unix:"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["127.0.0.1:9900"], "127.0.0.1:9900"),
    ] {
        let run = run(flags);
        assert!(run.status == Some(2) && run.stderr.contains(said), "{flags:?}: {run:?}");
    }
    let run = Run::of(binary().env("DISRUST_GATEWAY_MAX_BODY", "much"));
    assert!(run.status == Some(2) && run.stderr.contains("DISRUST_GATEWAY_MAX_BODY"), "{run:?}");
}

/// An address that can't be listened on is status 71, and the message says which, why, and what to try.
#[test]
fn a_taken_address_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().map(|address| (address.to_string(), taken)).expect("an address");
    for (address, said) in [(&taken.0[..], "another process that listens there"), ("192.0.2.1:80", "no interface")] {
        let run = run(&["--listen", address]);
        assert!(run.status == Some(71) && run.stderr.contains(said) && run.stderr.contains(address), "{run:?}");
        assert!(run.stderr.lines().count() == 1 && run.stderr.contains("Try: "), "one message: {run:?}");
        let json = Run::of(binary().args(["--listen", address, "--log-format", "json"]));
        let line: serde_json::Value = serde_json::from_str(&json.stderr).expect("one object");
        assert!(
            json.status == Some(71) && line["message"].as_str().is_some_and(|text| text.contains(said)),
            "{json:?}"
        );
    }
}

/// Whoever has no HTTP client asks with the same program.
#[test]
fn health_is_a_status() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    let address = gateway.address().to_string();
    let asked = run(&["health", "--listen", &address]);
    assert!(asked.status == Some(0) && asked.stderr.is_empty(), "{asked:?}");
    let everywhere = format!("0.0.0.0:{}", gateway.address().port());
    let asked = Run::of(binary().arg("health").env("DISRUST_GATEWAY_LISTEN", everywhere));
    assert_eq!(asked.status, Some(0), "{asked:?}");
    server.behave(Behaviour::Closes);
    server.hang_up();
    gateway.signal(Signal::SIGTERM);
    wait_until("it is not ready", || {
        let asked = run(&["health", "--listen", &address]);
        assert!(asked.status == Some(0) || asked.stderr.contains(&address), "{asked:?}");
        asked.status == Some(1)
    });
    assert_eq!(gateway.wait().0, Some(0));
    let asked = run(&["health", "--listen", &address]);
    assert!(asked.status == Some(1) && asked.stderr.contains("no gateway runs there"), "{asked:?}");
}

/// From SIGTERM on it is not ready; what is under way is answered, and its connection closed; the idle ones are closed; then it
/// ends with status 0.
#[test]
fn a_drain_finishes_what_is_under_way() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--drain-timeout", "1h"]);
    let mut idle = Connection::open(gateway.address());
    assert_eq!(idle.get("/v2/health/ready").status, 200);
    let mut watching = Connection::open(gateway.address());
    assert_eq!(watching.get("/v2/health/ready").header("connection"), None);
    server.behave(Behaviour::Silent);
    let body = request(ROW);
    let whole = format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut busy = Connection::open(gateway.address());
    busy.send(&whole);
    let mut begun = Connection::open(gateway.address());
    begun.send(&whole[..whole.len() - 1]);
    wait_until("it is under way", || server.requests() == 1);
    gateway.signal(Signal::SIGTERM);
    let mut ready = watching.get("/v2/health/ready");
    while ready.status == 200 {
        ready = watching.get("/v2/health/ready");
    }
    assert_eq!((ready.status, ready.error()), (503, "the gateway drains".to_owned()));
    assert_eq!(ready.header("connection"), Some("close"));
    assert!(watching.is_closed() && idle.is_closed());
    wait_until("nobody can connect any more", || TcpStream::connect(gateway.address()).is_err());
    begun.send(&whole[whole.len() - 1..]);
    server.behave(Behaviour::Sums);
    for connection in [&mut busy, &mut begun] {
        let answer = connection.receive().expect("what is under way is answered");
        assert_eq!((answer.scores(), answer.header("connection")), (vec![6.0], Some("close")));
        assert!(connection.is_closed());
    }
    let (status, log) = gateway.wait();
    assert!(status == Some(0) && log.contains("drained: 0 connections were cut"), "{status:?}: {log}");
}

/// Requests that cross the signal are answered: for a moment it serves as ever, new connections included.
#[test]
fn a_drain_begins_with_a_last_call() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    gateway.signal(Signal::SIGINT);
    let whole =
        format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{}", request(ROW).len(), request(ROW));
    let mut in_drain = 0;
    // Until nobody can connect any more.
    while let Some(mut connection) = Connection::try_open(gateway.address()) {
        connection.try_send(&whole);
        let Some(answer) = connection.receive() else { break };
        assert_eq!(answer.scores(), [6.0]);
        in_drain += usize::from(answer.header("connection") == Some("close"));
    }
    assert!(in_drain > 2, "only {in_drain} were answered since the drain has begun");
    let (status, log) = gateway.wait();
    assert!(status == Some(0) && log.contains("SIGINT: draining"), "{log}");
}

/// With a delay it serves on as ever, and says that it will not for long; a second signal drains, a third one cuts.
#[test]
fn each_signal_makes_it_shorter() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--shutdown-delay", "1h", "--drain-timeout", "1h"]);
    gateway.signal(Signal::SIGTERM);
    wait_until("it leaves", || get(gateway.address(), "/v2/health/ready").status == 503);
    assert_eq!(get(gateway.address(), "/v2/health/live").status, 200);
    let mut connection = Connection::open(gateway.address());
    for _ in 0..3 {
        let answer = connection.post(INFER, "", request(ROW));
        assert_eq!((answer.scores(), answer.header("connection")), (vec![6.0], None));
    }
    assert_eq!(gateway.sample("disrust_gateway_state{state=\"leaving\"}"), 1.0);
    server.behave(Behaviour::Silent);
    let body = request(ROW);
    connection.send(format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    wait_until("it is under way", || server.requests() == 4);
    gateway.signal(Signal::SIGTERM);
    wait_until("it drains", || gateway.stderr().contains("SIGTERM: draining"));
    // Signals of one kind that come at once are one.
    std::thread::sleep(Duration::from_millis(100));
    gateway.signal(Signal::SIGTERM);
    assert!(connection.is_closed());
    let (status, log) = gateway.wait();
    assert!(status == Some(0) && log.contains("drained: 1 connections were cut"), "{log}");
}

/// What is open when the drain's time is over is cut.
#[test]
fn a_drain_ends() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--drain-timeout", "1s"]);
    server.behave(Behaviour::Silent);
    let mut connection = Connection::open(gateway.address());
    let body = request(ROW);
    connection.send(format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    wait_until("it is under way", || server.requests() == 1);
    gateway.signal(Signal::SIGTERM);
    assert!(connection.is_closed());
    let (status, log) = gateway.wait();
    assert!(status == Some(0) && log.contains("cutting 1 connections"), "{log}");
}

/// It starts without a server, says so, and logs one object a line when it is asked to.
#[test]
fn it_starts_without_a_server() {
    let server = Stub::start(3, 1);
    let address = server.address();
    let gateway = GatewayProcess::start(&[address], &["--log-format", "json"]);
    gateway.wait_until_ready();
    assert_eq!(post(gateway.address(), INFER, request(ROW)).scores(), [6.0]);
    gateway.signal(Signal::SIGTERM);
    let (status, log) = gateway.wait();
    assert_eq!(status, Some(0), "{log}");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let says =
        |text: &str| lines.iter().any(|line| line["message"].as_str().is_some_and(|message| message.contains(text)));
    assert!(says("listening on http://") && says(&format!("server {address}: ready")) && says("drained"), "{log}");
}
