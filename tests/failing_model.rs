//! A model that fails costs the requests that it fails on their scores, and nothing else.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use disrust::config::Config;
use disrust_model::engine::Compiled;
use disrust_model::{F32_BYTES, Model, PredictError, RowSource, Rows, Sum};
use disrust_protocol::{ErrorCode, FEATURE_DIM};

use common::models::{compiled, grown, scores};
use common::{Bystander, Client, Reply, Request, TestServer, bytes_of, config, random_requests, random_rows, seeded};

/// How a model fails.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Error,
    Panic,
    /// An error, with scores written for some rows already.
    HalfDone,
}

const FAILURES: [Failure; 3] = [Failure::Error, Failure::Panic, Failure::HalfDone];

/// The sum model, except that a call with a row whose first feature is NaN fails as a whole.
struct Fragile {
    sum: Sum,
    failure: Failure,
    /// Calls and rows that it has seen.
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    rows: AtomicUsize,
}

impl Fragile {
    fn new(feature_dim: usize, failure: Failure) -> Fragile {
        Fragile { sum: Sum::new(feature_dim), failure, seen: Arc::default() }
    }
}

impl Model for Fragile {
    fn name(&self) -> &str {
        "fragile sum"
    }

    fn feature_dim(&self) -> usize {
        self.sum.feature_dim()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        // Relaxed: read after the answers have come, which the sockets order.
        self.seen.calls.fetch_add(1, Ordering::Relaxed);
        self.seen.rows.fetch_add(rows.count(), Ordering::Relaxed);
        let mut matrix = vec![0.0; rows.count() * self.feature_dim()];
        rows.gather(&mut matrix);
        if matrix.chunks(self.feature_dim()).all(|row| !row[0].is_nan()) {
            return self.sum.predict(rows, scores);
        }
        match self.failure {
            Failure::Error => {}
            Failure::Panic => panic!("a row begins with NaN"),
            Failure::HalfDone => scores.iter_mut().step_by(2).for_each(|score| *score = -1.0),
        }
        Err(PredictError("a row begins with NaN".to_owned()))
    }
}

fn start(failure: Failure) -> TestServer {
    TestServer::serve(config(), Fragile::new(FEATURE_DIM, failure))
}

/// A request that the model fails on, in one of its rows.
fn fragile_request(rng: &mut fastrand::Rng, vectors: usize) -> Request {
    let mut rows: Vec<f32> = (0..vectors * FEATURE_DIM).map(|_| rng.f32()).collect();
    rows[rng.usize(..vectors) * FEATURE_DIM] = f32::NAN;
    Request { reply: Reply::Error(ErrorCode::ModelFailed), ..Request::of(FEATURE_DIM, &rows) }
}

/// Requests of which about one in `one_in` fails.
fn mixed_requests(rng: &mut fastrand::Rng, count: usize, one_in: usize) -> Vec<Request> {
    let mut requests = random_requests(rng, count, 1..=64);
    for request in &mut requests {
        if rng.usize(..one_in) == 0 {
            let vectors = rng.usize(1..=64);
            *request = fragile_request(rng, vectors);
        }
    }
    requests
}

/// Within one write, exactly the requests that the model fails on get error answer 2, in their places; a NaN elsewhere
/// in a row is a number like any other.
#[test]
fn exactly_the_failing_requests_get_error_2() {
    let mut rng = seeded();
    for failure in FAILURES {
        let server = start(failure);
        let mut client = server.connect();
        let mut rows = [1.0; 2 * FEATURE_DIM];
        rows[3] = f32::NAN;
        for place in 0..5 {
            let mut requests = random_requests(&mut rng, 4, 1..=64);
            requests.insert(place, fragile_request(&mut rng, 64));
            requests.insert(place, Request::of(FEATURE_DIM, &rows));
            client.send_all(&requests);
            client.expect(&requests);
        }
    }
}

/// The connection goes on after any number of failures, in a row or among others.
#[test]
fn the_connection_goes_on() {
    let mut rng = seeded();
    for failure in FAILURES {
        let server = start(failure);
        let mut client = server.connect();
        for one_in in [1, 2, 20] {
            client.exchange(&mixed_requests(&mut rng, 100, one_in));
        }
        client.exchange(&random_requests(&mut rng, 20, 1..=64));
        client.half_close();
        client.expect_end();
    }
}

/// Requests of other connections get their scores, though they were with the model in one batch.
#[test]
fn other_connections_get_their_scores() {
    let mut rng = seeded();
    for failure in FAILURES {
        let server = start(failure);
        let bystander = Bystander::start(server.address());
        let mut clients = server.connect_many(10);
        for _ in 0..10 {
            let sent: Vec<_> = clients.iter().map(|_| mixed_requests(&mut rng, 6, 6)).collect();
            clients.iter().zip(&sent).for_each(|(client, requests)| client.send_all(requests));
            clients.iter_mut().zip(&sent).for_each(|(client, requests)| client.expect(requests));
        }
        bystander.finish();
    }
}

/// One request on which the model fails costs those around it a few calls and not three times their rows.
#[test]
fn one_failing_request_is_found_by_halving() {
    let mut rng = seeded();
    for failure in FAILURES {
        let model = Fragile::new(FEATURE_DIM, failure);
        let seen = Arc::clone(&model.seen);
        let server = TestServer::serve(config(), model);
        let mut client = server.connect();
        let (rounds, count) = (10, 400);
        for _ in 0..rounds {
            let mut requests = random_requests(&mut rng, count - 1, 1..=1);
            requests.insert(rng.usize(..count), fragile_request(&mut rng, 1));
            client.exchange(&requests);
        }
        let (calls, rows) = (seen.calls.load(Ordering::Relaxed), seen.rows.load(Ordering::Relaxed));
        assert!(rows <= rounds * 3 * count && calls < rounds * count / 4, "{calls} calls, {rows} rows");
    }
}

/// Both kinds of error keep their order: scores, error 2, scores, then error 1 and the end.
#[test]
fn a_failure_and_a_bad_count_keep_their_order() {
    let mut rng = seeded();
    for failure in FAILURES {
        let server = start(failure);
        let mut requests = mixed_requests(&mut rng, 30, 3);
        requests.push(fragile_request(&mut rng, 1));
        requests.push(Request::bad(&[65, 0, 0, 0]));
        let mut client = server.connect();
        client.send(&bytes_of(&requests));
        client.expect(&requests);
        client.expect_end();
    }
}

/// An error answer is an answer: the books count it, also when its client has gone or the smallest vectors are served.
#[test]
fn failed_requests_are_in_the_books() {
    let mut rng = seeded();
    for failure in FAILURES {
        let model = Fragile::new(1, failure);
        let server = TestServer::serve(Config { features: Some(1), ..config() }, model);
        let mut client = server.connect();
        let failed = Request { reply: Reply::Error(ErrorCode::ModelFailed), ..Request::of(1, &[f32::NAN]) };
        let fine = Request::random(&mut rng, 1, 1);
        let requests: Vec<_> = (0..1000).map(|index| if index % 3 == 0 { &failed } else { &fine }).cloned().collect();
        client.exchange(&requests);
        let leavers = server.connect_many(5);
        leavers.iter().for_each(|leaver| leaver.send_all(&requests[..300]));
        leavers.into_iter().for_each(Client::reset);
        drop(client);
        let report = server.finish();
        assert!(1000 <= report.answered && report.requests <= 2500, "{report:?}");
    }
}

/// Trees as of a model file. A row whose first feature is NaN makes the engine panic in the middle of its work, with
/// the rows before it taken and some of the scores written.
struct Bursting(Compiled);

impl Model for Bursting {
    fn name(&self) -> &str {
        "bursting trees"
    }

    fn feature_dim(&self) -> usize {
        self.0.feature_dim()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        let (count, feature_dim) = (rows.count(), rows.feature_dim());
        self.0.predict(&Rows::new(&Mined { rows, feature_dim }, count, feature_dim), scores)
    }
}

/// Rows that panic where one begins with NaN, when they come to it.
struct Mined<'a> {
    rows: &'a Rows<'a>,
    feature_dim: usize,
}

impl RowSource for Mined<'_> {
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
        self.rows.for_each_span(|span| {
            for row in span.chunks(self.feature_dim * F32_BYTES) {
                let first = f32::from_le_bytes(*row.first_chunk().expect("a feature"));
                assert!(!first.is_nan(), "a row begins with NaN");
                visitor(&[row]);
            }
        });
    }
}

/// An engine of a model file that panics while it scores costs the requests that it panics on their scores, and nobody
/// else; what it scores otherwise and afterwards is bit by bit what one says that has never panicked.
#[test]
fn an_engine_that_panics_goes_on() {
    let (mut rng, file) = (seeded(), grown(FEATURE_DIM, 1));
    let mut truth = compiled(&file);
    let server = TestServer::serve(config(), Bursting(compiled(&file)));
    let mut clients = server.connect_many(8);
    for round in 0..30 {
        let mut draw = |one_in: usize| {
            let vectors = [1, 2, 64, rng.usize(1..=64)][rng.usize(..4)];
            let mut rows = random_rows(&mut rng, FEATURE_DIM, vectors);
            let mut request = Request::scored(FEATURE_DIM, &rows, scores(&mut truth, &rows));
            if rng.usize(..one_in) == 0 {
                rows[rng.usize(..vectors) * FEATURE_DIM] = f32::NAN;
                request = Request { reply: Reply::Error(ErrorCode::ModelFailed), ..Request::of(FEATURE_DIM, &rows) };
            }
            request
        };
        // Half of the clients ask nothing that it panics on.
        let sent: Vec<Vec<Request>> = (0..clients.len())
            .map(|client| (0..20).map(|_| draw(if client % 2 == 0 { usize::MAX } else { 1 + round % 8 })).collect())
            .collect();
        clients.iter().zip(&sent).for_each(|(client, requests)| client.send_all(requests));
        clients.iter_mut().zip(&sent).for_each(|(client, requests)| client.expect(requests));
    }
}
