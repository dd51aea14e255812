//! The closed loop of `bench`: many connections, each with a window of requests under way, one thread.
//!
//! The journey of an answer: [`ClosedLoop::run`] waits for a readable connection → `Connection::receive` compares the
//! bytes with the [`Table`] → `Connection::record` notes the round trips → `Connection::send` fills the window again,
//! with one write. It sets nothing up and prints nothing ([`crate::bench`], [`crate::report`]).
//!
//! Invariants: nothing is allocated for a request; every byte that arrives is verified; a connection has at most a
//! window of requests under way; readiness is edge-triggered, so a connection is read until a read comes back short.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::failure::{Failure, Fault};
use crate::table::Table;

/// Bytes that are received at once. Larger: out of the L1 cache. Smaller: more system calls when answers are large.
const RECEIVE_BYTES: usize = 32 * 1024;

/// Connections that are served between two waits. Larger: more memory. Smaller: more system calls.
const EVENTS_MAX: usize = 1024;

/// The longest round trip that is told from longer ones.
const ROUND_TRIP_NS_MAX: u64 = 3_600_000_000_000;

/// Digits of a round trip that are kept: 1 in 1000.
const ROUND_TRIP_DIGITS: u8 = 3;

/// What a run came to.
pub struct Tally {
    /// Answers, all of them right.
    pub answers: u64,
    /// Turns in which a connection brought answers.
    pub answer_turns: u64,
    /// From handing a burst to the kernel to reading the answer, in nanoseconds, one for each request.
    pub round_trips_ns: Histogram<u64>,
    /// The fewest and the most answers of one connection.
    pub answers_per_connection: (u64, u64),
    /// From the first request sent to the last answer verified.
    pub elapsed: Duration,
}

/// The connections and what they share.
pub struct ClosedLoop<'a> {
    table: &'a Table,
    timeout: Duration,
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    /// Holds nothing between turns: what arrives is compared at once.
    receive_buffer: Vec<u8>,
}

impl<'a> ClosedLoop<'a> {
    /// A loop over `streams`, which are connected and nonblocking, with at most `window` requests under way on each.
    pub fn new(
        streams: Vec<std::net::TcpStream>,
        table: &'a Table,
        window: u32,
        timeout: Duration,
    ) -> io::Result<ClosedLoop<'a>> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(streams.len());
        for (index, stream) in streams.into_iter().enumerate() {
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            connections.push(Connection::new(index, stream, table, window));
        }
        let (events, receive_buffer) = (Events::with_capacity(EVENTS_MAX), vec![0; RECEIVE_BYTES]);
        Ok(ClosedLoop { table, timeout, poll, events, connections, receive_buffer })
    }

    /// Sends `requests` requests in all, with at most `window` under way on a connection, and verifies every answer.
    pub fn run(&mut self, requests: u64, window: u64) -> Result<Tally, Failure> {
        let mut round = Round::new(self.table, requests, window)?;
        for connection in &mut self.connections {
            connection.answers_in_round = 0;
            let now_ns = round.elapsed_ns();
            connection.send(&mut round, now_ns)?;
        }
        while round.answers < requests {
            self.wait()?;
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                connection.turn(&mut round, &mut self.receive_buffer, event.is_read_closed())?;
            }
        }
        Ok(self.tally(round))
    }

    /// Waits until a connection is ready.
    fn wait(&mut self) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, Some(self.timeout)) {
            Ok(()) if self.events.is_empty() => Err(self.stalled()),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(Failure::Local { action: "wait for readiness", source: error }),
        }
    }

    #[cold]
    fn stalled(&self) -> Failure {
        let waiting = self.connections.iter().find(|connection| connection.answered < connection.claimed);
        let connection = waiting.expect("a run waits only while an answer is owed");
        connection.failure(connection.answered, Fault::Stalled(self.timeout))
    }

    fn tally(&self, round: Round<'_>) -> Tally {
        let elapsed = round.start.elapsed();
        let shares = || self.connections.iter().map(|connection| connection.answers_in_round);
        Tally {
            answers: round.answers,
            answer_turns: round.answer_turns,
            round_trips_ns: round.round_trips_ns,
            answers_per_connection: (shares().min().unwrap_or(0), shares().max().unwrap_or(0)),
            elapsed,
        }
    }
}

/// What the connections share during one run.
struct Round<'a> {
    table: &'a Table,
    window: u64,
    /// Requests that no connection has taken yet.
    unclaimed: u64,
    answers: u64,
    answer_turns: u64,
    round_trips_ns: Histogram<u64>,
    start: Instant,
}

impl<'a> Round<'a> {
    fn new(table: &'a Table, requests: u64, window: u64) -> Result<Round<'a>, Failure> {
        let round_trips_ns = Histogram::new_with_bounds(1, ROUND_TRIP_NS_MAX, ROUND_TRIP_DIGITS)
            .map_err(|error| Failure::Local { action: "create a histogram", source: io::Error::other(error) })?;
        let start = Instant::now();
        Ok(Round { table, window, unclaimed: requests, answers: 0, answer_turns: 0, round_trips_ns, start })
    }

    /// 585 years fit.
    fn elapsed_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// Requests that went to the kernel together.
struct Burst {
    /// The request behind the last one.
    end: u64,
    sent_at_ns: u64,
}

/// One connection: a place in the table's streams. Requests and bytes are counted from the streams' beginning, and this
/// connection began at `first_request`.
struct Connection {
    stream: TcpStream,
    index: usize,
    first_request: u64,
    /// Requests up to here are this connection's: sent, or as soon as the kernel takes them.
    claimed: u64,
    /// Requests up to here are answered.
    answered: u64,
    sent_bytes: u64,
    received_bytes: u64,
    answers_in_round: u64,
    /// The requests that are under way, oldest first: at most a window of them, so this never grows.
    bursts: VecDeque<Burst>,
}

impl Connection {
    fn new(index: usize, stream: TcpStream, table: &Table, window: u32) -> Connection {
        let first_request = table.first_request(index);
        Connection {
            stream,
            index,
            first_request,
            claimed: first_request,
            answered: first_request,
            sent_bytes: first_request * table.request_bytes(),
            received_bytes: first_request * table.answer_bytes(),
            answers_in_round: 0,
            bursts: VecDeque::with_capacity(window as usize),
        }
    }

    fn turn(&mut self, round: &mut Round<'_>, buffer: &mut [u8], read_closed: bool) -> Result<(), Failure> {
        if self.receive(round.table, buffer, read_closed)? {
            round.answer_turns += 1;
        }
        let now_ns = round.elapsed_ns();
        self.record(round, now_ns);
        self.send(round, now_ns)
    }

    /// Receives and verifies what is there, and tells whether that was anything. A short read means that it was all,
    /// unless the stream has ended: then the end comes next, and no further event would tell of it.
    fn receive(&mut self, table: &Table, buffer: &mut [u8], read_closed: bool) -> Result<bool, Failure> {
        let before = self.received_bytes;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(self.closed_early(table)),
                Ok(bytes) => {
                    self.verify(table, &buffer[..bytes])?;
                    if bytes < buffer.len() && !read_closed {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(self.failure(self.received_bytes / table.answer_bytes(), Fault::Receive(error)));
                }
            }
        }
        Ok(self.received_bytes > before)
    }

    fn verify(&mut self, table: &Table, received: &[u8]) -> Result<(), Failure> {
        let owed_bytes = self.sent_bytes / table.request_bytes() * table.answer_bytes() - self.received_bytes;
        let (owed, unasked) = received.split_at(received.len().min(owed_bytes as usize));
        if let Err(mismatch) = table.check(self.received_bytes, owed) {
            return Err(self.failure(mismatch.request, mismatch.fault));
        }
        self.received_bytes += owed.len() as u64;
        if !unasked.is_empty() {
            return Err(self.failure(self.claimed, Fault::Unasked(unasked.len())));
        }
        Ok(())
    }

    /// Notes the round trips of the requests whose answers are whole since the last turn.
    fn record(&mut self, round: &mut Round<'_>, now_ns: u64) {
        let answered = self.received_bytes / round.table.answer_bytes();
        round.answers += answered - self.answered;
        self.answers_in_round += answered - self.answered;
        while let Some(burst) = self.bursts.front() {
            let end = burst.end.min(answered);
            round.round_trips_ns.saturating_record_n(now_ns - burst.sent_at_ns, end - self.answered);
            self.answered = end;
            if burst.end > answered {
                break;
            }
            self.bursts.pop_front();
        }
    }

    /// Fills the window and sends as much as the kernel takes.
    fn send(&mut self, round: &mut Round<'_>, now_ns: u64) -> Result<(), Failure> {
        let claim = (self.answered + round.window - self.claimed).min(round.unclaimed);
        if claim > 0 {
            self.claimed += claim;
            round.unclaimed -= claim;
            self.bursts.push_back(Burst { end: self.claimed, sent_at_ns: now_ns });
        }
        let end_byte = self.claimed * round.table.request_bytes();
        while self.sent_bytes < end_byte {
            match self.stream.write(round.table.requests(self.sent_bytes, end_byte)) {
                Ok(bytes) => self.sent_bytes += bytes as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(self.failure(self.sent_bytes / round.table.request_bytes(), Fault::Send(error)));
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn closed_early(&self, table: &Table) -> Failure {
        let (request, bytes) = (self.received_bytes / table.answer_bytes(), self.received_bytes % table.answer_bytes());
        self.failure(request, Fault::ClosedEarly(bytes as usize))
    }

    /// What was wrong at the stream's request `request`, counted as this connection sent it.
    #[cold]
    fn failure(&self, request: u64, fault: Fault) -> Failure {
        Failure::At { connection: self.index, request: request - self.first_request, fault }
    }
}
