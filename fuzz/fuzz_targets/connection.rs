//! A connection's state machine, driven by any sequence of what can happen to it, against what it owes by the protocol.
//!
//! The target plays the kernel, the batch processor and the peer. It demands: one receive and one send at a time; bytes
//! leave in request order, each answer once, answers to hellos and refusals in their place; the descriptor is closed when nothing is in the
//! kernel and the slot is freed when nothing is in flight; no block is lost.
#![no_main]

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use disrust::exchange::blocks::{Block, BlockPool};
use disrust::connections::{Arrival, Connection, Drain, HelloAnswers, Rules, Step, Timeouts, Turn};
use disrust::kernel::Shots;
use disrust::exchange::event::{ConnectionId, InferenceEvent, Response};
use disrust::exchange::model_version::ModelVersion;
use disrust::limits::ConnectionLimits;
use disrust::metrics::CloseReason;
use disrust_protocol::{HELLO_MAGIC, HelloRequest, MAX_VECTORS_PER_REQUEST, RequestLayout, ServerHello};
use libfuzzer_sys::fuzz_target;

const LAYOUT: RequestLayout = RequestLayout::new(1);
const HEADROOM: usize = LAYOUT.request_bytes_max();
const RECEIVE_BYTES: usize = 256;
/// So little that the pressure on the blocks changes.
const BUDGET_BYTES: usize = 4096;
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    layout: LAYOUT,
    limits: ConnectionLimits::SERVING,
    timeouts: Timeouts { request: Some(Duration::from_secs(3)), idle: Some(Duration::from_secs(2)) },
    hello: HelloAnswers::new(LAYOUT, MODEL_NAME, Arc::new(ModelVersion::new(VERSION))),
});
/// Which version is told when, the simulation sees.
const VERSION: u64 = 0x0102_0304_0506_0708;
const MODEL_NAME: &str = "a model";

#[derive(Debug, Arbitrary)]
enum Happening {
    /// Good requests of so many vectors each.
    Requests(Vec<u8>),
    /// Hellos, each before a good request of so many vectors, or alone; for one feature, or one that only asks.
    Hellos(Vec<(bool, Option<u8>)>),
    /// A hello for so many features.
    Hello(u32),
    /// Any bytes.
    Bytes(Vec<u8>),
    PeerFinishes,
    /// The receive ends for reasons of the kernel's.
    ReceiveEnds,
    NoBuffers,
    Buffers,
    /// The oldest request in flight is answered.
    Answer,
    /// The send takes so much of its block, in 255ths.
    Sent(u8),
    SendFails,
    /// The kernel says that so much of what it took is unacknowledged, in 255ths.
    Acknowledged(u8),
    Milliseconds(u16),
    Deadlines,
    DrainGoesOn,
}

/// What surrounds the connection.
struct World {
    connection: Connection<()>,
    turn: Turn,
    blocks: BlockPool,
    /// Events in flight, each with the answers to it.
    in_flight: VecDeque<(InferenceEvent, Vec<u8>)>,
    sending: Option<Box<Block>>,
    receiving: bool,
    /// What the peer was sent, and what it is to be sent.
    sent: Vec<u8>,
    expected: Vec<u8>,
    /// Bytes of a request that has begun.
    begun: Vec<u8>,
    answers: u32,
    /// What comes in is not looked at any more.
    deaf: bool,
    peer_finished: bool,
    abandoned: bool,
    closed: bool,
    freed: bool,
}

fuzz_target!(|happenings: Vec<Happening>| {
    let mut world = World {
        connection: Connection::new(ConnectionId { slot: 1, generation: 2 }, (), 0, None),
        turn: Turn { now_ns: 0, drain: Drain::No },
        blocks: BlockPool::new(ConnectionLimits::SERVING.block_sizes(LAYOUT, BUDGET_BYTES)),
        in_flight: VecDeque::new(),
        sending: None,
        receiving: false,
        sent: Vec::new(),
        expected: Vec::new(),
        begun: Vec::new(),
        answers: 0,
        deaf: false,
        peer_finished: false,
        abandoned: false,
        closed: false,
        freed: false,
    };
    world.carry_on();
    for happening in happenings {
        world.happens(happening);
        world.carry_on();
    }
    world.end();
});

fn hello_answer() -> Vec<u8> {
    let hello = ServerHello {
        feature_dim: LAYOUT.feature_dim() as u32,
        outputs: 1,
        max_vectors: MAX_VECTORS_PER_REQUEST,
        model_version: VERSION,
        model_name: MODEL_NAME,
    };
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    bytes
}

impl World {
    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Requests(counts) => {
                let counts = counts.iter().map(|count| 1 + u32::from(*count) % MAX_VECTORS_PER_REQUEST);
                let bytes = counts.flat_map(|count| {
                    count.to_le_bytes().into_iter().chain(std::iter::repeat_n(0, LAYOUT.request_bytes(count) - 4))
                });
                self.receive(&bytes.collect::<Vec<u8>>());
            }
            Happening::Hellos(hellos) => {
                let mut bytes = Vec::new();
                for (asks, count) in hellos {
                    bytes.extend(HelloRequest { feature_dim: u32::from(!asks) }.to_bytes());
                    if let Some(count) = count {
                        let count = 1 + u32::from(count) % MAX_VECTORS_PER_REQUEST;
                        bytes.extend(count.to_le_bytes());
                        bytes.resize(bytes.len() + LAYOUT.request_bytes(count) - 4, 0);
                    }
                }
                self.receive(&bytes);
            }
            Happening::Hello(feature_dim) => self.receive(&HelloRequest { feature_dim }.to_bytes()),
            Happening::Bytes(bytes) => self.receive(&bytes),
            Happening::PeerFinishes if self.receiving => {
                self.connection.receive_ended(self.turn);
                self.connection.peer_ended(&mut self.blocks);
                (self.receiving, self.peer_finished, self.deaf) = (false, true, true);
            }
            Happening::ReceiveEnds if self.receiving => self.receive_ends(),
            Happening::NoBuffers if self.receiving => {
                self.receive_ends();
                self.connection.starve(self.turn);
            }
            Happening::Buffers => self.connection.feed(),
            Happening::Answer => self.answer(),
            Happening::Sent(share) => self.sent(share),
            Happening::SendFails if self.sending.is_some() => {
                self.sent(0);
                self.abandon();
            }
            Happening::Acknowledged(share) => {
                let unacknowledged = self.sent.len() * usize::from(share) / 255;
                let before = self.connection.unacknowledged_bytes();
                self.connection.acknowledged(unacknowledged, self.turn);
                assert!(self.connection.unacknowledged_bytes() <= before, "what is acknowledged only grows");
            }
            Happening::Milliseconds(count) => self.turn.now_ns += u64::from(count) * 1_000_000,
            Happening::Deadlines => {
                if let Some(expiry) = self.connection.expired(&RULES, self.turn) {
                    self.connection.expire(expiry, self.turn, &mut self.blocks);
                    self.deaf = true;
                    self.abandoned |= self.connection.is_gone();
                }
            }
            Happening::DrainGoesOn => {
                self.turn.drain = match self.turn.drain {
                    Drain::No => Drain::LastCall,
                    Drain::LastCall | Drain::Refuse => Drain::Refuse,
                }
            }
            Happening::PeerFinishes | Happening::ReceiveEnds | Happening::NoBuffers | Happening::SendFails => {}
        }
    }

    fn receive_ends(&mut self) {
        self.connection.receive_ended(self.turn);
        self.receiving = false;
    }

    fn abandon(&mut self) {
        self.connection.abandon(CloseReason::Broken, &mut self.blocks);
        (self.abandoned, self.deaf) = (true, true);
    }

    fn receive(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(RECEIVE_BYTES) {
            if !self.receiving {
                return;
            }
            let mut buffer = vec![0; HEADROOM];
            buffer.extend_from_slice(chunk);
            buffer.resize(HEADROOM + RECEIVE_BYTES, 0);
            let received =
                self.connection.received(
            Arrival { buffer: &mut buffer, headroom: HEADROOM, bytes: chunk.len() },
            &RULES,
            self.turn,
            &mut self.blocks,
        );
            let answers = self.expect(chunk);
            if let Some(framed) = received.framed {
                self.in_flight.push_back((self.connection.event_for(framed, &RULES, 0, 0), answers));
            } else {
                assert!(answers.is_empty(), "requests are published");
            }
        }
    }

    /// What the peer is owed for these bytes; returns the part that the batch processor answers.
    fn expect(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut answers = Vec::new();
        if self.deaf {
            return answers;
        }
        self.begun.extend_from_slice(bytes);
        while let Some(header) = self.begun.first_chunk::<4>() {
            let count = u32::from_le_bytes(*header);
            if count == HELLO_MAGIC {
                let Some(hello) = self.begun.first_chunk() else { break };
                let hello = HelloRequest::from_bytes(*hello).expect("it begins as one does");
                self.begun.drain(..8);
                let is_right = hello.agrees_with(LAYOUT.feature_dim());
                if self.turn.drain >= Drain::Refuse {
                    self.expected.extend([0, 4]);
                } else if is_right {
                    self.expected.extend(hello_answer());
                } else {
                    self.expected.extend([0, 5]);
                }
                if is_right {
                    continue;
                }
                self.deaf = true;
                break;
            }
            if count == 0 || count > MAX_VECTORS_PER_REQUEST {
                self.expected.extend([0, 1]);
                self.deaf = true;
                break;
            }
            let length = LAYOUT.request_bytes(count);
            if self.begun.len() < length {
                break;
            }
            self.begun.drain(..length);
            if self.turn.drain >= Drain::Refuse {
                self.expected.extend([0, 4]);
                continue;
            }
            self.answers += 1;
            let start = answers.len();
            answers.push(count as u8);
            answers.extend((0..count).flat_map(|_| self.answers.to_le_bytes()));
            self.expected.extend(&answers[start..]);
        }
        answers
    }

    fn answer(&mut self) {
        let Some((event, answers)) = self.in_flight.pop_front() else { return };
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
        self.connection.answered(&response, &answers, &RULES, self.turn, &mut self.blocks);
    }

    fn sent(&mut self, share: u8) {
        let Some(block) = self.sending.take() else { return };
        let bytes = block.content().len() * usize::from(share) / 255;
        self.sent.extend_from_slice(&block.content()[..bytes]);
        self.connection.send_completed(block, bytes, self.turn, &mut self.blocks);
        assert!(self.expected.starts_with(&self.sent), "bytes leave in order, each once");
    }

    fn carry_on(&mut self) {
        while !self.freed
            && let Some(step) = self.connection.next_step(&RULES, self.turn, &mut self.blocks)
        {
            match step {
                Step::Send(block) => {
                    assert!(self.sending.is_none() && !self.closed, "one send at a time");
                    self.sending = Some(block);
                }
                Step::Receive(Shots::One | Shots::Many) => {
                    assert!(!self.receiving && !self.closed, "one receive at a time");
                    self.receiving = true;
                }
                Step::CancelReceive => assert!(self.receiving, "there is something to cancel"),
                Step::HalfClose => self.deaf = true,
                Step::Abort => self.deaf = true,
                Step::Close => {
                    assert!(!self.receiving && self.sending.is_none(), "closed with an operation in the kernel");
                    assert!(self.abandoned || self.sent == self.expected, "closed before all was sent");
                    self.closed = true;
                }
                Step::Free => {
                    assert!(self.closed && self.in_flight.is_empty(), "freed with requests in flight");
                    self.freed = true;
                }
            }
        }
    }

    /// Everything in flight comes back, the peer goes: the connection ends with nothing lent.
    fn end(mut self) {
        while !self.in_flight.is_empty() || self.sending.is_some() {
            self.answer();
            self.sent(255);
            self.carry_on();
        }
        self.abandon();
        self.carry_on();
        if self.receiving {
            self.receive_ends();
        }
        self.sent(0);
        self.carry_on();
        assert!(self.freed, "it comes to its end");
        assert_eq!(
            (self.blocks.lent(), self.blocks.lent_bytes(), self.connection.held_bytes()),
            (0, 0, 0),
            "every block came back"
        );
    }
}
