//! Framing at every split: any pipeline of requests, of any width, however the network cuts it and takes the answers,
//! gets the bytes that it is owed. A counterexample is made as small as it goes.

mod common;

use disrust::config::Config;
use std::sync::Arc;

use disrust::connections::{Arrival, Connection, Drain, HelloAnswers, Lost, Rules, Step, Timeouts, Turn};
use disrust::exchange::blocks::BlockPool;
use disrust::exchange::event::{ConnectionId, InferenceEvent, Response};
use disrust::exchange::model_version::ModelVersion;
use disrust::limits::ConnectionLimits;
use disrust_protocol::{ErrorCode, HelloRequest, RequestLayout, ServerHello, write_answer};
use proptest::collection::vec;
use proptest::prelude::*;

use common::{Client, Request, TestServer, bytes_of, config};

/// Cuts of a stream: lengths of its pieces, the last of which takes the rest.
fn cut<'a>(mut stream: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter();
    std::iter::from_fn(move || {
        let length = lengths.next().map_or(stream.len(), |length| *length.min(&stream.len()));
        let (piece, rest) = stream.split_at(length);
        stream = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Numbers of vectors of a pipeline's requests, most of them small.
fn pipeline(requests_max: usize) -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![4 => 1..=4_usize, 1 => 1..=64_usize], 0..=requests_max)
}

/// Lengths of pieces: around a header, around a request, and around many.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1..=9_usize, 1..=300_usize, 1..=20_000_usize]
}

/// Requests of so many vectors each; which numbers they hold follows from their place.
fn requests(features: usize, counts: &[usize]) -> Vec<Request> {
    let random = |(place, count): (usize, &usize)| {
        Request::random(&mut fastrand::Rng::with_seed(place as u64), features, *count)
    };
    counts.iter().enumerate().map(random).collect()
}

/// What the servers here call their model, and its version.
const MODEL_NAME: &str = "a name";
const VERSION: u64 = 0x0123_4567_89ab_cdef;

/// How a stream that is not read to its end stops.
#[derive(Debug, Clone, Copy)]
enum End {
    BadCount(u32),
    /// A hello for so many features more than there are.
    WrongHello(u32),
}

fn end() -> impl Strategy<Value = End> {
    let bad_count = prop_oneof![Just(0), 65..=u32::MAX].prop_filter("a hello", |count| *count != 0x3152_5344);
    prop_oneof![bad_count.prop_map(End::BadCount), (1..=1000_u32).prop_map(End::WrongHello)]
}

/// What a server of so many features says to a hello.
fn hello_answer(features: usize) -> Vec<u8> {
    let hello = ServerHello {
        feature_dim: features as u32,
        outputs: 1,
        max_vectors: 64,
        model_version: VERSION,
        model_name: MODEL_NAME,
    };
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    bytes
}

/// Failures are not kept in a file: what is printed says all that a test of its own needs.
fn bounded(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// A connection and the peer that it is to satisfy.
struct Bench {
    connection: Connection<()>,
    rules: Rules,
    turn: Turn,
    blocks: BlockPool,
    in_flight: Vec<(InferenceEvent, Vec<u8>)>,
    sent: Vec<u8>,
}

impl Bench {
    fn new(features: usize) -> Bench {
        let limits = ConnectionLimits { send_block_bytes_max: 300, ..ConnectionLimits::SERVING };
        let layout = RequestLayout::new(features);
        Bench {
            connection: Connection::new(ConnectionId { slot: 1, generation: 1 }, (), 0, None),
            rules: Rules {
                layout,
                limits,
                timeouts: Timeouts { request: None, idle: None },
                hello: HelloAnswers::new(layout, MODEL_NAME, Arc::new(ModelVersion::new(VERSION))),
            },
            turn: Turn { now_ns: 0, drain: Drain::No },
            blocks: BlockPool::new(limits.block_sizes(layout, 1 << 20)),
            in_flight: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Returns why nothing behind it can be read.
    fn receive(&mut self, piece: &[u8]) -> Option<Lost> {
        let headroom = self.rules.layout.request_bytes_max();
        let mut buffer = vec![0xee; headroom];
        buffer.extend_from_slice(piece);
        let received = self.connection.received(
            Arrival { buffer: &mut buffer, headroom, bytes: piece.len() },
            &self.rules,
            self.turn,
            &mut self.blocks,
        );
        if let Some(framed) = received.framed {
            let event = self.connection.event_for(framed, &self.rules, 0, 0);
            let answers = self.predict(&buffer[framed.offset..framed.offset + framed.request_bytes]);
            self.in_flight.push((event, answers));
        }
        received.lost
    }

    /// The sums of a run of requests, read anew, as answers.
    fn predict(&self, mut run: &[u8]) -> Vec<u8> {
        let mut answers = Vec::new();
        while let Some((header, rest)) = run.split_first_chunk::<4>() {
            let (rows, rest) = rest.split_at(u32::from_le_bytes(*header) as usize * self.rules.layout.row_bytes());
            let sum = |row: &[u8]| {
                let features = row.as_chunks::<4>().0.iter().map(|feature| f32::from_le_bytes(*feature));
                features.reduce(|sum, feature| sum + feature).expect("a feature")
            };
            let scores: Vec<f32> = rows.chunks(self.rules.layout.row_bytes()).map(sum).collect();
            let mut answer = [0; 257];
            let bytes = write_answer(&scores, &mut answer);
            answers.extend_from_slice(&answer[..bytes]);
            run = rest;
        }
        answers
    }

    /// Answers what is in flight, and has the network take at most so many bytes of each send.
    fn answer_and_send(&mut self, bytes_max: usize) {
        for (event, answers) in std::mem::take(&mut self.in_flight) {
            let response = Response {
                connection: event.connection,
                buffer: event.buffer,
                requests: event.requests,
                request_bytes: event.request_bytes,
                offset: event.offset,
                answer_bytes: answers.len() as u32,
                sequence: event.sequence,
                received_at_ns: 0,
                failed: 0,
                shed: 0,
                model_version: VERSION,
            };
            assert!(self.connection.answered(&response, &answers, &self.rules, self.turn, &mut self.blocks));
        }
        while let Some(step) = self.connection.next_step(&self.rules, self.turn, &mut self.blocks) {
            if let Step::Send(block) = step {
                let bytes = block.content().len().min(bytes_max);
                self.sent.extend_from_slice(&block.content()[..bytes]);
                self.connection.send_completed(block, bytes, self.turn, &mut self.blocks);
            }
        }
    }
}

proptest! {
    #![proptest_config(bounded(500))]

    /// A connection answers every request and hello of a pipeline in order, then a bad count or a hello for other features if there is one;
    /// wherever the stream is cut, whenever the answers come back, and however little of them the network takes at a time.
    #[test]
    fn a_connection_answers_any_pipeline_however_it_is_cut(
        features in 1..=20_usize,
        counts in pipeline(30),
        hellos in vec(0..=3_usize, 31),
        says_hello in any::<bool>(),
        end in proptest::option::of(end()),
        lengths in vec(length(), 0..=40),
        answer_every in 1..=5_usize,
        send_bytes_max in 1..=400_usize,
    ) {
        let requests = requests(features, &counts);
        let (mut stream, mut owed) = (Vec::new(), Vec::new());
        let mut bench = Bench::new(features);
        for (place, hellos) in hellos.into_iter().enumerate() {
            for hello in 0..if says_hello { hellos } else { 0 } {
                let feature_dim = if hello == 0 { features as u32 } else { 0 };
                stream.extend(HelloRequest { feature_dim }.to_bytes());
                owed.extend(hello_answer(features));
            }
            if let Some(request) = requests.get(place) {
                stream.extend_from_slice(&request.bytes);
                owed.extend(bench.predict(&request.bytes));
            }
        }
        match end {
            None => {}
            Some(End::BadCount(count)) => {
                stream.extend(count.to_le_bytes());
                owed.extend(ErrorCode::BadVectorCount.answer());
            }
            Some(End::WrongHello(more)) => {
                stream.extend(HelloRequest { feature_dim: features as u32 + more }.to_bytes());
                owed.extend(ErrorCode::WrongFeatureDim.answer());
            }
        }
        let mut lost = None;
        for (place, piece) in cut(&stream, &lengths).enumerate() {
            lost = lost.or(bench.receive(piece));
            if place % answer_every == 0 {
                bench.answer_and_send(send_bytes_max);
            }
        }
        bench.answer_and_send(send_bytes_max);
        match end {
            None => prop_assert_eq!(lost, None),
            Some(End::BadCount(_)) => prop_assert!(matches!(lost, Some(Lost::BadCount(_)))),
            Some(End::WrongHello(more)) => {
                prop_assert_eq!(lost, Some(Lost::WrongFeatureDim(features as u32 + more)));
            }
        }
        prop_assert_eq!(bench.sent, owed);
        prop_assert_eq!((bench.blocks.lent(), bench.blocks.lent_bytes(), bench.connection.held_bytes()), (0, 0, 0));
    }
}

/// The server does the same over a socket. Where the client waits for the answers to all that is complete, the server
/// has seen the stream cut there.
#[test]
fn a_server_answers_any_pipeline_however_it_is_cut() {
    let widths = [1, 3, 16, 100];
    let servers = widths.map(|features| TestServer::start(Config { features: Some(features), ..config() }));
    let pieces = vec((length(), any::<bool>()), 0..=20);
    let cases = (0..widths.len(), pipeline(40), pieces);
    let outcome = proptest::test_runner::TestRunner::new(bounded(150)).run(&cases, |(server, counts, pieces)| {
        let requests = requests(widths[server], &counts);
        exchange_in_pieces(servers[server].connect(), &requests, &pieces);
        Ok(())
    });
    if let Err(counterexample) = outcome {
        panic!("{counterexample}");
    }
}

/// Sends pieces of these lengths; behind those that say so, receives all answers that can have come.
fn exchange_in_pieces(mut client: Client, requests: &[Request], pieces: &[(usize, bool)]) {
    let stream = bytes_of(requests);
    let (lengths, mut waits): (Vec<_>, Vec<_>) = pieces.iter().copied().unzip();
    waits.push(false);
    let ends = requests.iter().scan(0, |end, request| {
        *end += request.bytes.len();
        Some((*end, request))
    });
    let (mut unanswered, mut sent_bytes) = (ends.peekable(), 0);
    for (piece, waits) in cut(&stream, &lengths).zip(waits) {
        client.send(piece);
        sent_bytes += piece.len();
        while waits && let Some((_, request)) = unanswered.next_if(|(end, _)| *end <= sent_bytes) {
            client.expect([request]);
        }
    }
    client.half_close();
    client.expect(unanswered.map(|(_, request)| request));
    client.expect_end();
}
