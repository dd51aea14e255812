//! What every client relies on: the right answers, in order, however the bytes travel.

mod common;

use std::io::Write;

use disrust::config::Config;
use disrust::config::placement::{HelpBatch, Wait};
use disrust::exchange::wait::WaitStrategy;
use disrust_protocol::FEATURE_DIM;

use common::{Client, Reply, Request, TestServer, bytes_of, config, random_requests, seeded};

/// A request of any permitted size gets one exact score for each vector.
#[test]
fn every_number_of_vectors_is_answered_exactly() {
    let server = TestServer::start(config());
    let (mut client, mut rng) = (server.connect(), seeded());
    let requests: Vec<_> = (1..=64).map(|vectors| Request::random(&mut rng, FEATURE_DIM, vectors)).collect();
    for request in &requests {
        client.send(&request.bytes);
        client.expect([request]);
    }
    client.exchange(&requests);
}

/// Where a request is split does not matter. The request before it, which comes in the same write as the first part,
/// has been answered when the second part is sent; so the server has seen the first part by itself.
#[test]
fn a_request_may_be_split_at_every_offset() {
    let server = TestServer::start(config());
    let (mut client, mut rng) = (server.connect(), seeded());
    let (before, split) = (Request::random(&mut rng, FEATURE_DIM, 1), Request::random(&mut rng, FEATURE_DIM, 3));
    for offset in 1..split.bytes.len() {
        let (head, tail) = split.bytes.split_at(offset);
        client.send(&[&before.bytes, head].concat());
        client.expect([&before]);
        client.send(tail);
        client.expect([&split]);
    }
}

/// Requests may come byte by byte, on several connections at once.
#[test]
fn requests_may_come_one_byte_at_a_time() {
    let server = TestServer::start(config());
    let mut rng = seeded();
    let mut clients = server.connect_many(3);
    let requests = random_requests(&mut rng, 5, 1..=3);
    for byte in bytes_of(&requests) {
        clients.iter().for_each(|client| client.send(&[byte]));
        std::thread::yield_now();
    }
    clients.iter_mut().for_each(|client| client.expect(&requests));
}

/// A client may write thousands of requests before it reads anything, and gets all answers in order. The server holds
/// it back through TCP; so it reads nothing until the server has taken all that it takes.
#[test]
fn ten_thousand_pipelined_requests_are_answered_in_order() {
    let server = TestServer::start(config());
    let (mut client, mut rng) = (server.connect(), seeded());
    let requests = random_requests(&mut rng, 10_000, 1..=64);
    let mut writer = client.stream().try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&bytes_of(&requests)).expect("the server takes what is sent"));
        server.wait_until_held_back(|| {});
        client.expect(&requests);
    });
    client.half_close();
    client.expect_end();
    drop(client);
    assert_eq!(server.finish().answered, 10_000);
}

/// A client that shuts down its sending side still gets every answer, then the end of the stream.
#[test]
fn after_a_half_close_every_answer_comes_then_the_end() {
    let server = TestServer::start(config());
    let mut rng = seeded();
    for count in [0, 1, 2, 50, 600] {
        let mut client = server.connect();
        let requests = random_requests(&mut rng, count, 1..=8);
        client.send_all(&requests);
        client.half_close();
        client.expect(&requests);
        client.expect_end();
    }
}

/// A request that its client leaves unfinished gets no answer; those before it do, and the connection ends.
#[test]
fn a_truncated_request_is_not_answered() {
    let server = TestServer::start(config());
    let mut rng = seeded();
    for complete in [0, 1, 40] {
        let requests = random_requests(&mut rng, complete, 1..=4);
        let truncated = Request::random(&mut rng, FEATURE_DIM, 2);
        for length in [1, 3, 4, 5, 67, truncated.bytes.len() - 1] {
            let mut client = server.connect();
            client.send(&[&bytes_of(&requests), &truncated.bytes[..length]].concat());
            client.half_close();
            client.expect(&requests);
            client.expect_end();
        }
    }
}

/// NaN, infinities, zeros and denormals are numbers like all others, and stay in their row.
#[test]
fn special_values_leave_other_rows_alone() {
    let server = TestServer::start(config());
    let (mut client, mut rng) = (server.connect(), seeded());
    let specials = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        -0.0,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        -f32::from_bits(0x007f_ffff),
        f32::MAX,
        f32::MIN,
    ];
    let mut requests = Vec::new();
    for special in specials {
        let mut rows: Vec<f32> = (0..64 * FEATURE_DIM).map(|_| rng.f32()).collect();
        let row = rng.usize(..64);
        rows[row * FEATURE_DIM + rng.usize(..FEATURE_DIM)] = special;
        requests.push(Request::of(FEATURE_DIM, &rows));
        requests.push(Request::of(FEATURE_DIM, &[special; 3 * FEATURE_DIM]));
    }
    client.exchange(&requests);
}

/// The width of a vector is the model's affair.
#[test]
fn vectors_may_be_narrow_or_wide() {
    let mut rng = seeded();
    for features in [1, 3, 100, 1024] {
        let server = TestServer::start(Config { features: Some(features), ..config() });
        let sizes = [1, 64, 2, 63, 7, 1, 1, 33, 64, 64];
        let requests: Vec<_> = sizes.map(|vectors| Request::random(&mut rng, features, vectors)).into();
        let mut clients = server.connect_many(3);
        for client in &mut clients {
            client.exchange(&requests);
        }
    }
}

/// However the threads wait and help each other and however many there are, every connection gets its answers.
#[test]
fn every_way_of_waiting_serves_every_connection() {
    let mut rng = seeded();
    let named = [WaitStrategy::Park, WaitStrategy::SpinThenPark, WaitStrategy::Yield, WaitStrategy::Spin];
    for wait in named.map(Wait::As).into_iter().chain([Wait::Auto]) {
        for (io_threads, help_batch) in
            [(1, HelpBatch::On), (1, HelpBatch::Off), (3, HelpBatch::On), (3, HelpBatch::Off)]
        {
            let config = Config { wait, help_batch, io_threads: Some(io_threads), ..config() };
            let server = TestServer::start(config);
            let mut clients = server.connect_many(7);
            for _ in 0..3 {
                let requests = random_requests(&mut rng, 7, 1..=64);
                clients.iter().zip(&requests).for_each(|(client, request)| client.send(&request.bytes));
                clients.iter_mut().zip(&requests).for_each(|(client, request)| client.expect([request]));
            }
        }
    }
}

/// The same vector always gives the same bits, whatever it was batched with; that goes for NaNs with payloads too.
#[test]
fn a_vector_gives_the_same_bits_in_any_company() {
    let server = TestServer::start(config());
    let mut rng = seeded();
    let mut vector: [f32; FEATURE_DIM] = std::array::from_fn(|_| (rng.f32() - 0.5) * 1.0e6);
    let two_nans = {
        let mut vector = vector;
        (vector[2], vector[9]) = (f32::from_bits(0x7fc0_0001), f32::from_bits(0xffc0_0002));
        vector
    };
    vector[7] = 1.0e-3;
    for vector in [vector, two_nans] {
        let mut clients = server.connect_many(8);
        let alone = score_bits(&mut clients[0], &Request::of(FEATURE_DIM, &vector), 0);
        for _ in 0..20 {
            let asked: Vec<_> = clients.iter().map(|client| ask_in_company(client, &mut rng, &vector)).collect();
            for (client, (request, row)) in clients.iter_mut().zip(asked) {
                assert_eq!(received_bits(client, &request, row), alone);
            }
        }
    }
}

/// Sends `vector` among others, and tells which row it is.
fn ask_in_company(client: &Client, rng: &mut fastrand::Rng, vector: &[f32]) -> (Request, usize) {
    let vectors = rng.usize(1..=64);
    let mut rows: Vec<f32> = (0..vectors * FEATURE_DIM).map(|_| rng.f32()).collect();
    let row = rng.usize(..vectors);
    rows[row * FEATURE_DIM..][..FEATURE_DIM].copy_from_slice(vector);
    let request = Request::of(FEATURE_DIM, &rows);
    client.send(&request.bytes);
    (request, row)
}

fn score_bits(client: &mut Client, request: &Request, row: usize) -> u32 {
    client.send(&request.bytes);
    received_bits(client, request, row)
}

fn received_bits(client: &mut Client, request: &Request, row: usize) -> u32 {
    let reply = client.receive().expect("an answer");
    assert_eq!(reply, request.reply);
    let Reply::Scores(scores) = reply else { panic!("scores") };
    scores[row].to_bits()
}

/// More connections than there are receive buffers may send at the same moment: some wait, all are answered. The gate
/// keeps the buffers away until the server can take no more.
#[test]
fn more_connections_than_buffers_are_all_answered() {
    let (server, gate) = TestServer::start_gated(Config { io_threads: Some(1), ..config() });
    let mut rng = seeded();
    let mut clients = server.connect_many(600);
    for _ in 0..2 {
        gate.close();
        let requests: Vec<_> = clients.iter().map(|_| random_requests(&mut rng, 2, 1..=4)).collect();
        clients.iter().zip(&requests).for_each(|(client, requests)| client.send_all(requests));
        server.wait_until_still();
        assert!(server.report().requests < server.report().answered + 1200, "some wait for buffers");
        gate.open();
        clients.iter_mut().zip(&requests).for_each(|(client, requests)| client.expect(requests));
    }
}
