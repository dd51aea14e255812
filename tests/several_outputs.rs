//! Answers that carry several scores for each vector, whether they are shorter or longer than their requests.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use disrust::config::Config;
use disrust::limits::{OUTPUTS_MAX, ShapeError};
use disrust::server::{Server, StartError};
use disrust_model::{Model, PredictError, Rows};
use disrust_protocol::{ErrorCode, RequestLayout, write_answer_of, write_request};
use fastrand::Rng;

use common::{Gate, PATIENCE, TestServer, config, seeded};

/// Features and outputs: fewer, as many, one more, far more, and as many as there can be.
const SHAPES: [(usize, usize); 7] = [(16, 5), (3, 3), (3, 4), (8, 2), (5, 700), (16, 300), (1, OUTPUTS_MAX)];

/// Output o of a row is its features' sum, times o + 1. It fails on rows that begin with NaN.
#[derive(Clone)]
struct Multiples {
    features: usize,
    outputs: usize,
    gate: Option<Gate>,
}

impl Multiples {
    fn of((features, outputs): (usize, usize)) -> Multiples {
        Multiples { features, outputs, gate: None }
    }

    fn layout(&self) -> RequestLayout {
        RequestLayout::with_outputs(self.features, self.outputs)
    }

    fn score(&self, row: &[f32], scores: &mut [f32]) {
        let sum: f32 = row.iter().sum();
        scores.iter_mut().enumerate().for_each(|(output, score)| *score = sum * (output + 1) as f32);
    }

    /// A random request, and its answer.
    fn draw(&self, rng: &mut Rng, vectors: usize, fails: bool) -> (Vec<u8>, Vec<u8>) {
        let mut rows: Vec<f32> = (0..vectors * self.features).map(|_| (rng.f32() - 0.5) * 1.0e3).collect();
        let mut request = Vec::new();
        if fails {
            rows[rng.usize(..vectors) * self.features] = f32::NAN;
            write_request(self.layout(), &rows, &mut request);
            return (request, ErrorCode::ModelFailed.answer().to_vec());
        }
        write_request(self.layout(), &rows, &mut request);
        let mut scores = vec![0.0; vectors * self.outputs];
        let places = scores.chunks_mut(self.outputs);
        rows.chunks(self.features).zip(places).for_each(|(row, scores)| self.score(row, scores));
        let mut answer = vec![0; self.layout().answer_bytes(1, vectors)];
        write_answer_of(self.outputs, &scores, &mut answer);
        (request, answer)
    }

    /// Requests one after the other, and their answers, about `answer_bytes` of them.
    fn draw_many(&self, rng: &mut Rng, answer_bytes: usize, fails: bool) -> (Vec<u8>, Vec<u8>) {
        let (mut requests, mut answers) = (Vec::new(), Vec::new());
        while answers.len() < answer_bytes && requests.len() < answer_bytes {
            let vectors = [1, 1, 1, 2, 3, 64, rng.usize(1..=64)][rng.usize(..7)];
            let fails = fails && rng.u8(..5) == 0;
            let (request, answer) = self.draw(rng, vectors, fails);
            requests.extend(request);
            answers.extend(answer);
        }
        (requests, answers)
    }
}

impl Model for Multiples {
    fn name(&self) -> &str {
        "multiples"
    }

    fn feature_dim(&self) -> usize {
        self.features
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        self.gate.iter().for_each(Gate::pass);
        let mut matrix = vec![0.0; rows.count() * self.features];
        rows.gather(&mut matrix);
        for (row, scores) in matrix.chunks(self.features).zip(scores.chunks_mut(self.outputs)) {
            if row[0].is_nan() {
                return Err(PredictError("a row begins with NaN".to_owned()));
            }
            self.score(row, scores);
        }
        Ok(())
    }
}

fn connect(server: &TestServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above 0");
    stream
}

fn expect(stream: &mut TcpStream, answers: &[u8]) {
    let mut received = vec![0; answers.len()];
    stream.read_exact(&mut received).expect("every answer");
    let wrong = received.iter().zip(answers).position(|(received, answer)| received != answer);
    assert_eq!(wrong, None, "every byte is right");
}

/// Writes and reads at the same time, in pieces of at most `piece_max` bytes, to the end of the stream.
fn exchange(server: &TestServer, requests: &[u8], answers: &[u8], piece_max: usize) {
    let mut stream = connect(server);
    let mut writer = stream.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            requests.chunks(piece_max).for_each(|piece| writer.write_all(piece).expect("the server takes it"));
            writer.shutdown(Shutdown::Write).expect("the connection is open");
        });
        expect(&mut stream, answers);
    });
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0, "nothing follows");
}

/// Every vector gets all of its scores, however requests are pipelined and cut.
#[test]
fn every_vector_gets_all_of_its_scores() {
    let mut rng = seeded();
    for shape in SHAPES {
        let model = Multiples::of(shape);
        let server = TestServer::serve(config(), model.clone());
        for piece_max in [usize::MAX, 1000, 33] {
            let (requests, answers) = model.draw_many(&mut rng, 3_000_000 / (1 + 1000 / piece_max), false);
            exchange(&server, &requests, &answers, piece_max);
        }
    }
}

/// A request that the model fails on gets error 2 in its place, among answers that are longer or shorter than requests.
#[test]
fn a_failing_request_costs_no_other_its_scores() {
    let mut rng = seeded();
    for shape in SHAPES {
        let model = Multiples::of(shape);
        let server = TestServer::serve(config(), model.clone());
        let (requests, answers) = model.draw_many(&mut rng, 1_000_000, true);
        exchange(&server, &requests, &answers, usize::MAX);
    }
}

/// More connections than buffers, whose requests are all with the model at the same moment, each get their own scores.
#[test]
fn a_crowd_is_answered_each_with_its_own() {
    let mut rng = seeded();
    for shape in [(5, 700), (3, 4)] {
        let gate = Gate::default();
        let model = Multiples { gate: Some(gate.clone()), ..Multiples::of(shape) };
        let server = TestServer::serve(Config { io_threads: Some(2), ..config() }, model.clone());
        let sent: Vec<_> = (0..100)
            .map(|_| {
                let (requests, answers) = model.draw_many(&mut rng, 50_000, true);
                let stream = connect(&server);
                let mut writer = stream.try_clone().expect("a descriptor");
                let thread = std::thread::spawn(move || writer.write_all(&requests).expect("the server takes it"));
                (stream, answers, thread)
            })
            .collect();
        server.wait_until_still();
        gate.open();
        for (mut stream, answers, thread) in sent {
            expect(&mut stream, &answers);
            thread.join().expect("all is taken");
        }
    }
}

/// A peer that reads nothing for long holds the server back, and then gets all answers, though each is hundreds of times
/// as long as its request.
#[test]
fn a_peer_that_reads_late_gets_everything() {
    let mut rng = seeded();
    let model = Multiples::of((5, 700));
    let server = TestServer::serve(config(), model.clone());
    let (requests, answers) = model.draw_many(&mut rng, 40_000_000, false);
    let mut stream = connect(&server);
    let mut writer = stream.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&requests).expect("the server takes what is sent"));
        server.wait_until_held_back(|| {});
        expect(&mut stream, &answers);
    });
}

/// A model whose answers would not fit is refused before anything is bound, with what would work.
#[test]
fn a_shape_beyond_the_limits_does_not_start() {
    for (shape, expected) in [
        ((16, OUTPUTS_MAX + 1), ShapeError::Outputs(OUTPUTS_MAX + 1)),
        ((5000, 1), ShapeError::Features(5000)),
        ((16, 0), ShapeError::Outputs(0)),
    ] {
        let Err(StartError::Shape(error)) = Server::start(&config(), Box::new(Multiples::of(shape))) else {
            panic!("{shape:?} is refused")
        };
        assert_eq!(error, expected);
    }
}
