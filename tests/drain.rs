//! A drain: what was sent before it is answered, what comes late is refused in words, and it comes to an end.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use disrust::config::Config;
use disrust_protocol::{ErrorCode, FEATURE_DIM};

use nix::sys::signal::Signal;

use common::{Client, Reply, Request, ServerProcess, TestServer, config, random_requests, seeded, wait_until};

/// Longer than any test: a drain that needs its timeout to end does not pass.
const NEVER: Duration = Duration::from_secs(3600);

fn endless(io_threads: usize) -> Config {
    Config { drain_timeout: NEVER, io_threads: Some(io_threads), ..config() }
}

/// Requests that are with the model when the drain begins are answered; then the stream ends.
#[test]
fn requests_in_flight_are_answered() {
    for io_threads in [1, 3] {
        let (server, gate) = TestServer::start_gated(endless(io_threads));
        let mut rng = seeded();
        let mut clients = server.connect_many(8);
        let requests = random_requests(&mut rng, 60, 1..=4);
        clients.iter().for_each(|client| client.send_all(&requests));
        server.wait_for_requests(8 * 60);
        server.handle().drain();
        gate.open();
        for client in &mut clients {
            client.expect(&requests);
            client.expect_end();
        }
        drop(clients);
        let report = server.finish();
        assert_eq!((report.answered, report.discarded, report.refused, report.cut), (480, 0, 0, 0));
    }
}

/// Requests that were written before the drain are answered, though the server has not read all of them yet.
#[test]
fn requests_written_before_the_drain_are_answered() {
    let mut rng = seeded();
    for io_threads in [1, 3] {
        let server = TestServer::start(endless(io_threads));
        let mut clients = server.connect_many(10);
        let requests = random_requests(&mut rng, 60, 1..=16);
        clients.iter().for_each(|client| client.send_all(&requests));
        server.handle().drain();
        for client in &mut clients {
            client.expect(&requests);
            client.expect_end();
        }
        drop(clients);
        assert_eq!(server.finish().answered, 10 * 60);
    }
}

/// A connection that was made before the drain is served even if the server had not accepted it yet.
#[test]
fn connections_made_before_the_drain_are_served() {
    let mut rng = seeded();
    for io_threads in [1, 3] {
        let server = TestServer::start(endless(io_threads));
        let request = Request::random(&mut rng, FEATURE_DIM, 3);
        let mut clients = server.connect_many(50);
        clients.iter().for_each(|client| client.send(&request.bytes));
        server.handle().drain();
        for client in &mut clients {
            client.expect([&request]);
            client.expect_end();
        }
    }
}

/// Once the drain has closed the listeners, new connections are refused, while old ones are still served.
#[test]
fn new_connections_are_refused() {
    for io_threads in [1, 3] {
        let (server, gate) = TestServer::start_gated(endless(io_threads));
        let (mut client, request) = (server.connect(), Request::of(FEATURE_DIM, &[0.25; FEATURE_DIM]));
        client.send(&request.bytes);
        server.wait_for_requests(1);
        server.handle().drain();
        wait_until("connections are refused", || {
            // A reset counts too: the kernel breaks off what was queued at the moment of closing.
            TcpStream::connect(server.address()).is_err()
        });
        gate.open();
        client.expect([&request]);
        client.expect_end();
    }
}

/// Who goes on asking gets scores, then refusals, then the end of the stream; never a reset, and nothing unasked.
#[test]
fn late_requests_get_scores_then_refusals_then_the_end() {
    let mut rng = seeded();
    let server = TestServer::start(endless(2));
    let clients = server.connect_many(4);
    let requests = random_requests(&mut rng, 20, 1..=8);
    let refused: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(|| ask_until_the_end(client, &requests))).collect();
        wait_until("all are being served", || server.report().answered > 100);
        server.handle().drain();
        clients.into_iter().map(|client| client.join().expect("right answers")).sum()
    });
    let report = server.finish();
    assert_eq!(report.cut, 0);
    assert!(report.refused >= refused, "{refused} refusals were received: {report:?}");
}

/// Asks one request after the other until the stream ends. Returns how many were refused.
fn ask_until_the_end(mut client: Client, requests: &[Request]) -> u64 {
    let mut refused = 0;
    for request in requests.iter().cycle() {
        client.send(&request.bytes);
        match client.receive() {
            Some(Reply::Error(ErrorCode::Closing)) => refused += 1,
            Some(reply) => assert!(reply == request.reply && refused == 0, "{reply:?} after {refused} refusals"),
            None => break,
        }
    }
    refused
}

/// The same for a client that pipelines without a pause: the answers are those to its first requests, in order, then
/// come refusals, then the end.
#[test]
fn a_pipeline_without_end_is_answered_refused_and_ended() {
    let mut rng = seeded();
    let server = TestServer::start(endless(1));
    let requests = random_requests(&mut rng, 20, 1..=8);
    let mut client = server.connect();
    let mut writer = client.stream().try_clone().expect("a descriptor");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for request in requests.iter().cycle() {
                // A write may fail once the server has closed, which the reader sees as the end.
                if ended.load(Ordering::Relaxed) || writer.write_all(&request.bytes).is_err() {
                    return;
                }
            }
        });
        let (mut refused, mut scored) = (0, 0);
        for request in requests.iter().cycle() {
            match client.receive() {
                Some(Reply::Error(ErrorCode::Closing)) => refused += 1,
                Some(reply) => {
                    assert!(reply == request.reply && refused == 0, "{reply:?} after {refused} refusals");
                    scored += 1;
                    if scored == 500 {
                        server.handle().drain();
                    }
                }
                None => break,
            }
        }
        ended.store(true, Ordering::Relaxed);
        assert!(scored >= 500);
    });
}

/// Idle connections, and those with half a request, get the end of the stream and no answer.
#[test]
fn connections_that_owe_a_request_are_ended_without_an_answer() {
    let server = TestServer::start(endless(2));
    let request = Request::of(FEATURE_DIM, &[0.25; FEATURE_DIM]);
    let mut clients = server.connect_many(4);
    clients[1].send(&request.bytes[..2]);
    clients[2].send(&request.bytes[..30]);
    clients[3].send(&request.bytes);
    clients[3].expect([&request]);
    server.handle().drain();
    clients.iter_mut().for_each(Client::expect_end);
    drop(clients);
    assert_eq!(server.finish().cut, 0);
}

/// A drain without connections ends; several drains, from several threads and with a cut behind them, do no harm.
#[test]
fn a_drain_may_be_asked_for_many_times() {
    drop(TestServer::start(endless(2)));
    let server = TestServer::start(endless(2));
    let request = Request::of(FEATURE_DIM, &[0.25; FEATURE_DIM]);
    let mut client = server.connect();
    client.send(&request.bytes);
    let handle = server.handle();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| handle.drain()));
        }
    });
    client.expect([&request]);
    client.expect_end();
    drop(client);
    server.finish();
    handle.drain();
    handle.cut();
}

/// Clients that never read are cut at the drain's timeout, and counted; one that reads is not.
#[test]
fn clients_that_never_read_are_cut_at_the_timeout() {
    let server = TestServer::start(Config { features: Some(1), drain_timeout: Duration::from_secs(2), ..config() });
    let deaf = server.connect_deaf(3, &Request::of(1, &[1.0; 64]));
    let mut client = server.connect();
    server.handle().drain();
    client.expect_end();
    drop(client);
    assert_eq!(server.finish().cut, 3);
    drop(deaf);
}

/// A cut ends a drain at once, whatever is still open.
#[test]
fn a_cut_ends_the_drain() {
    for drain_first in [false, true] {
        let server = TestServer::start(Config { features: Some(1), ..endless(2) });
        let deaf = server.connect_deaf(3, &Request::of(1, &[1.0; 64]));
        let mut idle = server.connect();
        if drain_first {
            server.handle().drain();
            idle.expect_end();
        }
        drop(idle);
        wait_until("only the deaf are there", || server.handle().open_connections() == 3);
        server.handle().cut();
        assert_eq!(server.finish().cut, 3);
        drop(deaf);
    }
}

/// With a delay, a server that was told to stop serves and accepts as ever, and says that it leaves; told again, it drains.
#[test]
fn a_server_serves_on_for_its_delay() {
    let server = TestServer::start(Config { shutdown_delay: NEVER, ..endless(2) });
    let request = Request::of(FEATURE_DIM, &[0.25; FEATURE_DIM]);
    let (handle, mut before) = (server.handle(), server.connect());
    assert!(!handle.is_leaving());
    handle.drain();
    wait_until("it leaves", || handle.is_leaving());
    let mut after = server.connect();
    for client in [&mut before, &mut after] {
        client.send(&request.bytes);
        client.expect([&request]);
    }
    assert!(!handle.is_draining());
    handle.hurry();
    before.expect_end();
    after.expect_end();
    drop((before, after));
    assert_eq!(server.finish().answered, 2);
}

/// The same for the process, which hears signals: the first one begins the delay, the second one ends it.
#[test]
fn a_second_signal_ends_the_delay() {
    let server = ServerProcess::start(&["--shutdown-delay", "1h", "--drain-timeout", "1h"]);
    server.signal(Signal::SIGTERM);
    wait_until("it has heard", || server.stderr().contains("serving on, then draining"));
    let (mut client, request) = (server.connect(), Request::of(FEATURE_DIM, &[0.25; FEATURE_DIM]));
    client.send(&request.bytes);
    client.expect([&request]);
    server.signal(Signal::SIGTERM);
    client.expect_end();
    drop(client);
    let (status, log) = server.wait();
    assert!(status == Some(0) && log.contains("SIGTERM again: draining at once"), "{status:?}: {log}");
    assert!(log.contains("1 requests answered, 0 of them failed and 0 shed"), "{log}");
}

/// Nobody needs to ask again: the drain comes when the delay is over.
#[test]
fn a_delay_ends_by_itself() {
    let server = ServerProcess::start(&["--shutdown-delay", "10ms", "--drain-timeout", "1h"]);
    let mut client = server.connect();
    server.signal(Signal::SIGINT);
    client.expect_end();
    drop(client);
    assert_eq!(server.wait().0, Some(0));
}

/// A connection that is old is drained by itself: scores, then refusals, then the end, and the server goes on.
#[test]
fn an_old_connection_is_drained_by_itself() {
    let mut rng = seeded();
    let server = TestServer::start(Config { max_connection_age: Some(Duration::from_millis(200)), ..endless(2) });
    let requests = random_requests(&mut rng, 20, 1..=8);
    let refused: u64 = (0..3).map(|_| ask_until_the_end(server.connect(), &requests)).sum();
    let mut idle = server.connect();
    idle.expect_end();
    assert!(!server.handle().is_leaving());
    drop(idle);
    let report = server.finish();
    assert!(report.refused >= refused && refused > 0 && report.cut == 0, "{refused} refusals: {report:?}");
    assert_eq!(report.connections, 4);
}
