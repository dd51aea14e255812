//! What misbehaving peers can do: nothing to anybody but themselves.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::thread::sleep;
use std::time::Duration;

use disrust::config::Config;
use disrust_protocol::{ErrorCode, FEATURE_DIM, RequestLayout, read_vector_count};

use common::{
    Bystander, Client, DeafCrowd, PATIENCE_FOR_END, Reply, Request, ServerProcess, TestServer, bytes_of, config,
    free_port, random_requests, seeded, wait_patiently_until, wait_until,
};

/// After a bad count come the answers owed, then error answer 1, then the end: decided on the count's last byte, and
/// whatever follows it.
#[test]
fn a_bad_count_ends_the_connection_after_the_answers_owed() {
    let server = TestServer::start(config());
    let bystander = Bystander::start(server.address());
    let mut rng = seeded();
    let garbage: Vec<u8> = (0..200_000).map(|_| rng.u8(..)).collect();
    for count in [0, 65, 256, u32::MAX] {
        for good in [0, 1, 500] {
            for followed_by in [&[][..], &[1], &garbage] {
                let mut requests = random_requests(&mut rng, good, 1..=4);
                requests.push(Request::bad(&count.to_le_bytes()));
                let mut client = server.connect();
                client.send(&[&bytes_of(&requests), followed_by].concat());
                client.expect(&requests);
                client.expect_end();
            }
        }
    }
    bystander.finish();
}

/// Three bytes of a count decide nothing, even if no good fourth is left.
#[test]
fn a_count_is_judged_on_its_fourth_byte() {
    let server = TestServer::start(config());
    let mut rng = seeded();
    let good = Request::random(&mut rng, FEATURE_DIM, 1);
    for (start, end, bad) in [([1, 0, 0], 1, true), ([64, 0, 0], 0, false), ([0, 0, 0], 0, true)] {
        let mut client = server.connect();
        client.send(&[&good.bytes[..], &start].concat());
        client.expect([&good]);
        client.send(&[end]);
        if bad {
            client.expect([&Request::bad(&[])]);
        } else {
            let rest = Request::of(FEATURE_DIM, &[0.5; 64 * FEATURE_DIM]);
            client.send(&rest.bytes[4..]);
            client.expect([&rest]);
            client.half_close();
        }
        client.expect_end();
    }
}

/// Bytes of any kind get exactly what the protocol says, and disturb nobody.
#[test]
fn bytes_of_any_kind_are_answered_by_the_protocol() {
    let server = TestServer::start(config());
    let bystander = Bystander::start(server.address());
    let mut rng = seeded();
    for _ in 0..10 {
        let streams: Vec<_> = (0..60).map(|_| any_bytes(&mut rng)).collect();
        let mut clients = server.connect_many(streams.len());
        clients.iter().zip(&streams).for_each(|(client, bytes)| client.send(bytes));
        clients.iter().for_each(Client::half_close);
        for (client, bytes) in clients.iter_mut().zip(&streams) {
            for reply in replies_to(bytes) {
                assert_eq!(client.receive(), Some(reply), "to {bytes:?}");
            }
            client.expect_end();
        }
    }
    bystander.finish();
}

/// Some requests perhaps, then bytes of some other protocol or of none.
fn any_bytes(rng: &mut fastrand::Rng) -> Vec<u8> {
    let good = rng.usize(..4);
    let mut bytes = bytes_of(&random_requests(rng, good, 1..=64));
    let length = rng.usize(..2_000);
    match rng.u8(..6) {
        0 => bytes.extend_from_slice(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        1 => bytes.extend_from_slice(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        2 => bytes.extend((0..length).map(|_| rng.u8(..))),
        // Mostly zeros: many of them are good counts.
        3 => bytes.extend((0..length).map(|_| if rng.u8(..8) == 0 { rng.u8(..4) } else { 0 })),
        4 => bytes.truncate(rng.usize(..=bytes.len())),
        _ => bytes.extend((0..length).flat_map(|_| 1_u32.to_le_bytes())),
    }
    bytes
}

/// What the protocol answers to a stream of bytes that ends.
fn replies_to(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(header) = bytes.first_chunk() {
        let Ok(vectors) = read_vector_count(*header) else {
            replies.push(Reply::Error(ErrorCode::BadVectorCount));
            break;
        };
        let length = RequestLayout::new(FEATURE_DIM).request_bytes(vectors);
        if bytes.len() < length {
            break;
        }
        let features = bytes[4..length].as_chunks().0.iter().map(|feature| f32::from_le_bytes(*feature));
        replies.push(Request::of(FEATURE_DIM, &features.collect::<Vec<_>>()).reply);
        bytes = &bytes[length..];
    }
    replies
}

/// Requests whose client has broken off are discarded and counted; those of others are answered.
#[test]
fn requests_of_a_reset_connection_are_counted_as_discarded() {
    let (server, gate) = TestServer::start_gated(Config { io_threads: Some(1), ..config() });
    let mut rng = seeded();
    let leavers = server.connect_many(20);
    let requests = random_requests(&mut rng, 50, 1..=2);
    leavers.iter().for_each(|leaver| leaver.send_all(&requests));
    server.wait_for_requests(1000);
    leavers.into_iter().for_each(Client::reset);
    let (mut stayer, request) = (server.connect(), Request::random(&mut rng, FEATURE_DIM, 64));
    stayer.send(&request.bytes);
    server.wait_for_requests(1001);
    gate.open();
    stayer.expect([&request]);
    drop(stayer);
    let report = server.finish();
    assert_eq!((report.answered, report.discarded), (1, 1000));
}

/// A connection that takes the place of one that broke off never sees a byte that was meant for that one, though its
/// requests were still with the model.
#[test]
fn the_next_connection_never_sees_an_answer_to_the_last_one() {
    let (server, gate) = TestServer::start_gated(Config { io_threads: Some(1), ..config() });
    let mut rng = seeded();
    for round in 1..=30 {
        gate.close();
        let leaver = server.connect();
        leaver.send_all(&random_requests(&mut rng, 20, 1..=4));
        server.wait_for_requests(25 * round - 5);
        leaver.reset();
        let mut next = server.connect();
        let requests = random_requests(&mut rng, 5, 1..=4);
        next.send_all(&requests);
        server.wait_for_requests(25 * round);
        gate.open();
        next.half_close();
        next.expect(&requests);
        next.expect_end();
    }
    assert_eq!(server.finish().discarded, 30 * 20);
}

/// The same at full speed, for clients that leave in every way.
#[test]
fn places_change_hands_quickly_without_a_stray_byte() {
    let server = TestServer::start(Config { io_threads: Some(1), ..config() });
    let mut rng = seeded();
    for round in 0..500 {
        let leaver = server.connect();
        leaver.send_all(&random_requests(&mut rng, 20, 1..=4));
        match round % 4 {
            0 => leaver.reset(),
            1 => leaver.stream().shutdown(Shutdown::Both).expect("it is open"),
            2 => leaver.half_close(),
            // With answers unread, this is a reset too.
            _ => drop(leaver),
        }
        let mut next = server.connect();
        let requests = random_requests(&mut rng, 3, 1..=4);
        next.send_all(&requests);
        next.half_close();
        next.expect(&requests);
        next.expect_end();
    }
}

/// Peers that never read are held back, and cost themselves alone; a drain cuts them when its time is over.
#[test]
fn peers_that_never_read_are_held_back_and_cut() {
    let drain_timeout = Duration::from_secs(1);
    let server = TestServer::start(Config { features: Some(1), drain_timeout, ..config() });
    let request = Request::random(&mut seeded(), 1, 64);
    let deaf = server.connect_deaf(25, &request);
    let mut polite = server.connect();
    for _ in 0..100 {
        polite.send(&request.bytes);
        polite.expect([&request]);
    }
    drop(polite);
    assert_eq!(server.finish().cut, 25);
    drop(deaf);
}

/// Over the limit on connections, the next one is accepted and closed; a place that becomes free can be used.
#[test]
fn connections_over_the_limit_are_closed_at_once() {
    for io_threads in [1, 2] {
        let server = TestServer::start(Config { max_connections: Some(3), io_threads: Some(io_threads), ..config() });
        let request = Request::of(FEATURE_DIM, &[1.5; FEATURE_DIM]);
        let mut within = server.connect_many(3);
        let serves = |client: &mut Client| {
            client.send(&request.bytes);
            client.expect([&request]);
        };
        for round in 1..=5 {
            within.iter_mut().for_each(serves);
            server.connect().expect_end();
            server.connect().expect_end();
            within.iter_mut().for_each(serves);
            within.remove(0);
            wait_until("the place is free", || server.handle().open_connections() == 2);
            within.push(server.connect());
            within.iter_mut().for_each(serves);
            assert_eq!(server.report().rejected, 2 * round);
        }
    }
}

/// Idle connections are closed in order after the idle timeout; busy ones are not.
#[test]
fn idle_connections_are_closed_and_busy_ones_spared() {
    let server = TestServer::start(Config { idle_timeout: Some(Duration::from_secs(2)), ..config() });
    let bystander = Bystander::start(server.address());
    let (mut silent, mut paused) = (server.connect(), server.connect());
    let request = Request::of(FEATURE_DIM, &[2.5; FEATURE_DIM]);
    paused.send(&request.bytes);
    paused.expect([&request]);
    silent.expect_end();
    paused.expect_end();
    bystander.finish();
}

/// A request that takes too long to arrive ends its connection, although bytes keep coming.
#[test]
fn a_request_that_trickles_in_is_given_up() {
    let server = TestServer::start(Config { request_timeout: Some(Duration::from_secs(1)), ..config() });
    let bystander = Bystander::start(server.address());
    let mut slow = server.connect_many(5);
    let request = Request::of(FEATURE_DIM, &[2.5; 64 * FEATURE_DIM]);
    let mut bytes = request.bytes.iter();
    wait_until("the server gives up", || {
        let byte = bytes.next().expect("the request lasts longer than our patience");
        slow.iter().for_each(|client| {
            // Fails once the server has closed.
            let _closed = client.stream().write_all(&[*byte]);
        });
        sleep(Duration::from_millis(50));
        server.handle().open_connections() == 1
    });
    assert!(slow.iter_mut().all(Client::is_closed_by_server));
    bystander.finish();
    drop(slow);
    assert_eq!(server.finish().cut, 0);
}

/// One client with a deep pipeline of large requests, beside polite ones: all get their answers, in order.
#[test]
fn a_greedy_pipeliner_and_polite_clients_are_all_served() {
    let server = TestServer::start(Config { io_threads: Some(1), ..config() });
    let mut rng = seeded();
    let greedy = random_requests(&mut rng, 3_000, 48..=64);
    let polite = random_requests(&mut rng, 30, 1..=4);
    let address = server.address();
    std::thread::scope(|scope| {
        scope.spawn(|| Client::connect(address).exchange(&greedy));
        for _ in 0..10 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                for request in &polite {
                    client.send(&request.bytes);
                    client.expect([request]);
                }
            });
        }
    });
}

/// Connections that come and go by the thousands leave nothing behind.
#[test]
fn churn_leaves_nothing_behind() {
    let server = TestServer::start(config());
    let bystander = Bystander::start(server.address());
    let mut rng = seeded();
    let request = Request::random(&mut rng, FEATURE_DIM, 2);
    for round in 0..2_000 {
        let mut client = server.connect();
        match round % 5 {
            0 => {}
            1 => client.reset(),
            2 => client.send(&request.bytes[..30]),
            3 => {
                client.send(&request.bytes);
                client.reset();
            }
            _ => {
                client.send(&request.bytes);
                client.expect([&request]);
            }
        }
    }
    wait_until("all but the bystander are gone", || server.handle().open_connections() == 1);
    bystander.finish();
}

/// What peers that never read have cost is given back to the system when they have gone.
#[test]
fn the_memory_of_never_readers_is_given_back() {
    const MEBIBYTE: u64 = 1024 * 1024;
    let server = ServerProcess::start(&["--features", "1", "--io-threads", "1"]);
    let request = Request::of(1, &[1.0; 64]);
    let until = |what, holds: &mut dyn FnMut() -> bool| wait_patiently_until(PATIENCE_FOR_END, what, holds);
    // Up to 9 MiB of buffers and scores become resident once and for all; the rest is unsent answers.
    let start = server.resident_bytes();
    let mut crowd = DeafCrowd::connect(server.address(), 150, &request);
    until("the answers pile up", &mut || {
        crowd.send();
        server.resident_bytes() > start + 14 * MEBIBYTE
    });
    let peak = server.resident_bytes();
    drop(crowd);
    until("the memory is given back", &mut || server.resident_bytes() < peak - 2 * MEBIBYTE);
}

/// Connections that wait to be accepted while descriptors have run out are taken as soon as there are some again,
/// however many they are.
#[test]
fn accepting_goes_on_when_descriptors_are_free_again() {
    let port = free_port().to_string();
    let script = r#"ulimit -n 64 && exec "$0" "$@""#;
    let server = ServerProcess::start_in_shell(script, &["--port", &port, "--io-threads", "1"]);
    server.wait_for_banner();
    let mut first = server.connect();
    first.exchange(&[Request::of(FEATURE_DIM, &[1.0; FEATURE_DIM])]);
    // More than it has descriptors for, all at once; and fewer descriptors from its next accept on.
    server.stop();
    let address = server.address();
    let crowd: Vec<_> = (0..80).map(|_| Client::connect(address)).collect();
    server.limit_descriptors(32);
    server.carry_on();
    wait_until("descriptors run out", || server.stderr().contains("accepting failed"));
    // Established and gone before they are accepted: each takes a descriptor, if only for a moment.
    (0..3000).for_each(|_| drop(Client::connect(address)));
    drop(crowd);
    let mut late = server.connect();
    late.exchange(&[Request::of(FEATURE_DIM, &[2.0; FEATURE_DIM])]);
    first.exchange(&[Request::of(FEATURE_DIM, &[3.0; FEATURE_DIM])]);
}

/// A server that was stopped for longer than a deadline takes what came meanwhile before it judges who was late.
#[test]
fn what_arrived_in_time_is_answered_after_the_server_was_stopped() {
    let server = ServerProcess::start(&["--io-threads", "1", "--request-timeout", "3s"]);
    let mut rng = seeded();
    let request = Request::random(&mut rng, FEATURE_DIM, 4);
    let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let (begin, end) = request.bytes.split_at(50);
    clients.iter().for_each(|client| client.send(begin));
    // Taken by now, since it comes later on the same thread.
    let mut last = server.connect();
    last.exchange(std::slice::from_ref(&request));
    server.stop();
    // The server's timer goes off first, and is the first thing that it is told of.
    sleep(Duration::from_millis(500));
    clients.iter().for_each(|client| client.send(end));
    sleep(Duration::from_secs(3));
    server.carry_on();
    clients.iter_mut().for_each(|client| client.expect([&request]));
}
