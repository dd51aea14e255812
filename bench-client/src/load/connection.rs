//! One connection of a run: a place in the [`RequestStream`], and the socket that carries it for now.
//!
//! The journey of a request: the worker raises [`Connection::due`] → [`Connection::send`] hands it to the kernel, with
//! all that is due, in one write → [`Connection::receive`] verifies the bytes of answers → [`Connection::take_answers`]
//! tells the worker how many are whole and when their requests were sent.
//!
//! Requests that the kernel has no room for stay due and go out when the socket is writable again: a server that does
//! not read holds the sender back, and their wait is the server's doing. A socket can be replaced by a fresh one
//! between two requests, or when the server has ended it ([`Connection::reconnect`]).
//!
//! Invariants: `answered <= sent <= due`, counted in requests of the stream; nothing is allocated for a request; every
//! byte that arrives is verified; no more answers are taken than are owed.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use disrust_protocol::{ErrorCode, HELLO_ANSWER_BYTES_MAX};
use socket2::{SockAddr, Socket, Type};

use crate::connect::socket_for;
use crate::failure::{Failure, Fault};
use crate::hello::Hello;
use crate::load::answer_stream::{ANSWER_BYTES_MAX, AnswerStream};
use crate::load::error_answers::Unscored;
use crate::load::request_stream::{Mismatch, RequestStream};

/// Writes of one connection that are told apart while their answers are owed; later ones count as part of the last.
///
/// Larger: memory when a server stalls. Smaller: the service time of what is sent in a stall is overstated.
const BURSTS_MAX: usize = 16 * 1024;

/// Room for bursts at the start: as many as most connections ever need, so that few ever grow.
const BURSTS_START: usize = 256;

/// Requests that went to the kernel together.
#[derive(Debug, Clone, Copy)]
struct Burst {
    /// The request behind the last one.
    end: u64,
    sent_at_ns: u64,
}

/// Whether the socket takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// The kernel has not said yes or no to the connection yet.
    Connecting,
    /// The next write is worth trying.
    Writable,
    /// The kernel had no room; it will tell when it has.
    Full,
    /// The server has ended the connection, and another one has not been begun.
    Ended,
}

/// Answers that were taken together: their requests follow each other, were sent together and have the same outcome.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// The first of the requests, in the stream.
    pub request: u64,
    /// How many they are.
    pub count: u64,
    /// When they were sent.
    pub sent_at_ns: u64,
    /// The error that answered them; none: their scores are right.
    pub unscored: Option<Unscored>,
}

/// What was under way on a connection that the server has ended.
#[derive(Debug, Clone, Copy)]
pub struct GivenUp {
    /// Requests that it refused because it was closing.
    pub refused: u64,
    /// Requests that it neither answered nor refused.
    pub lost: u64,
}

/// A connection and what is under way on it.
pub struct Connection<'a> {
    socket: Socket,
    requests: &'a RequestStream,
    /// Among all connections of the run.
    index: usize,
    readiness: Readiness,
    /// What each later socket says first, and what is still to be told over this one.
    says_hello: Option<Hello>,
    hello: Option<Box<Hello>>,
    first_request: u64,
    /// Requests up to here should have been sent.
    due: u64,
    /// Requests up to here are wholly with the kernel.
    sent: u64,
    /// Requests up to here are answered.
    answered: u64,
    /// The request at which this socket is replaced.
    socket_end: u64,
    sent_bytes: u64,
    answers: AnswerStream<'a>,
    /// Where the answer to `answered` ends.
    answer_end: u64,
    bursts: VecDeque<Burst>,
    /// When something last moved: answers came, the socket was made, or it had no room although nothing was under way.
    progress_ns: u64,
}

impl<'a> Connection<'a> {
    /// The connection `index` over `socket`, which is connected, and nonblocking from the start of the run on. If
    /// `counts_errors`, errors that end no connection are answers.
    pub fn new(socket: Socket, index: usize, requests: &'a RequestStream, counts_errors: bool) -> Connection<'a> {
        let first_request = requests.first_request(index);
        Connection {
            socket,
            requests,
            index,
            readiness: Readiness::Writable,
            says_hello: None,
            hello: None,
            first_request,
            due: first_request,
            sent: first_request,
            answered: first_request,
            socket_end: u64::MAX,
            sent_bytes: requests.request_start(first_request),
            answers: AnswerStream::new(requests, first_request, counts_errors),
            answer_end: requests.answer_start(first_request + 1),
            bursts: VecDeque::with_capacity(BURSTS_START),
            progress_ns: 0,
        }
    }

    /// The same, if the sockets that replace this one say hello first.
    pub fn saying_hello(self, says_hello: Option<Hello>) -> Connection<'a> {
        Connection { says_hello, ..self }
    }

    /// The socket, to be watched.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Has one request answered, before the run begins: the socket still blocks, and gives up after `timeout`.
    pub fn greet(&mut self, timeout: Duration) -> Result<(), Failure> {
        self.claim(1);
        self.send(0)?;
        let mut buffer = [0; ANSWER_BYTES_MAX];
        while !self.answers.is_complete() {
            if self.receive_once(&mut buffer)?.is_none() {
                return Err(self.failure(self.answered, Fault::Stalled(timeout)));
            }
        }
        self.take_answers(0, |_| ());
        Ok(())
    }

    /// Requests that are due or under way.
    pub fn outstanding(&self) -> u64 {
        self.due - self.answered
    }

    /// Makes `count` more requests due.
    pub fn claim(&mut self, count: u64) {
        self.due += count;
    }

    /// Whether requests that become due can go out now.
    pub fn takes_requests(&self) -> bool {
        self.is_writable() && self.sent < self.socket_end
    }

    /// A server that is closing takes none any more.
    fn is_writable(&self) -> bool {
        self.readiness == Readiness::Writable && self.answers.refused() == 0
    }

    /// Sends what is due and tells whether all of it is with the kernel; `now_ns` is when that was.
    pub fn send(&mut self, now_ns: u64) -> Result<bool, Failure> {
        let end = self.due.min(self.socket_end);
        let end_byte = self.requests.request_start(end);
        while self.sent_bytes < end_byte && self.is_writable() {
            let bytes = self.requests.requests(self.sent_bytes, end_byte);
            match self.socket.write(bytes) {
                Ok(bytes) => self.sent_bytes += bytes as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readiness = Readiness::Full;
                    if self.bursts.is_empty() {
                        self.progress_ns = now_ns;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(self.sent, Fault::Send(error))),
            }
        }
        let sent = if self.sent_bytes == end_byte { end } else { self.wholly_sent() };
        if sent > self.sent {
            self.sent = sent;
            self.answers.owe_up_to(sent);
            self.push_burst(Burst { end: sent, sent_at_ns: now_ns });
        }
        Ok(sent == self.due)
    }

    fn wholly_sent(&self) -> u64 {
        let mut sent = self.sent;
        while self.requests.request_start(sent + 1) <= self.sent_bytes {
            sent += 1;
        }
        sent
    }

    fn push_burst(&mut self, burst: Burst) {
        let full = self.bursts.len() == BURSTS_MAX;
        match self.bursts.back_mut() {
            Some(last) if full => last.end = burst.end,
            _ => self.bursts.push_back(burst),
        }
    }

    /// The socket has room again.
    pub fn writable(&mut self) -> Result<(), Failure> {
        if self.readiness == Readiness::Connecting
            && let Some(source) = self.socket.take_error().map_err(Failure::local("ask a socket for its error"))?
        {
            return Err(self.failure(self.sent, Fault::Reconnect(source)));
        }
        if self.readiness == Readiness::Connecting
            && let Some(hello) = &self.says_hello
        {
            // A fresh socket has room for it.
            self.socket.write_all(&hello.bytes()).map_err(|error| self.failure(self.sent, Fault::Send(error)))?;
            self.hello = Some(Box::new(hello.clone()));
        }
        self.readiness = Readiness::Writable;
        Ok(())
    }

    /// Whether a connection is being made.
    pub fn is_connecting(&self) -> bool {
        self.readiness == Readiness::Connecting
    }

    /// Whether the server has ended the connection, and another one has not been begun.
    pub fn has_ended(&self) -> bool {
        self.readiness == Readiness::Ended
    }

    /// How long ago something last moved here.
    pub fn since_progress_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.progress_ns)
    }

    /// Receives and verifies what is there, and tells whether that was anything. A short read means that it was all,
    /// unless the stream has ended: then the end comes next, and no further event would tell of it.
    pub fn receive(&mut self, buffer: &mut [u8], read_closed: bool) -> Result<bool, Failure> {
        let before = self.answers.place();
        while let Some(bytes) = self.receive_once(buffer)? {
            if bytes < buffer.len() && !read_closed {
                break;
            }
        }
        Ok(self.answers.place() > before)
    }

    /// Receives and verifies what one read brings: its bytes, or `None` if nothing is there yet.
    pub fn receive_once(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Failure> {
        let begun_bytes = self.answers.begin(buffer);
        loop {
            match self.socket.read(&mut buffer[begun_bytes..]) {
                Ok(0) => return Err(self.closed_early()),
                Ok(bytes) => {
                    let bytes = begun_bytes + bytes;
                    let hello_bytes = if self.hello.is_some() { self.take_hello(&buffer[..bytes])? } else { 0 };
                    let checked = self.answers.check(&buffer[hello_bytes..bytes]);
                    let failure = |Mismatch { request, fault }| self.failure(request, fault);
                    return checked.map(|()| Some(bytes)).map_err(failure);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(self.answered, Fault::Receive(error))),
            }
        }
    }

    /// Takes the answer to hello off the front of what came first over this socket; returns its bytes.
    #[cold]
    fn take_hello(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let mut hello = self.hello.take().expect("hello is owed an answer");
        let (taken, is_complete) = hello.take(bytes).map_err(|fault| self.failure(self.sent, Fault::Hello(fault)))?;
        self.hello = (!is_complete).then_some(hello);
        Ok(taken)
    }

    /// The server's refusal of a request because it is closing, if there was one.
    pub fn refusal(&self) -> Option<Failure> {
        let closing = || self.failure(self.answers.next_request(), Fault::ErrorAnswer(ErrorCode::Closing));
        (self.answers.refused() > 0).then(closing)
    }

    /// Whether all that is under way is refused.
    pub fn is_all_refused(&self) -> bool {
        self.sent - self.answered == self.answers.refused()
    }

    /// Hands the answers that are whole since the last time to `take`, in groups. Returns the vectors that were scored.
    pub fn take_answers(&mut self, now_ns: u64, mut take: impl FnMut(Taken)) -> u64 {
        let (mut taken, mut vectors) = (self.answered, 0);
        while self.answer_end <= self.answers.place() {
            vectors += self.requests.vectors(self.answered);
            self.answered += 1;
            self.answer_end += self.requests.answer_bytes(self.answered);
        }
        self.progress_ns = now_ns;
        while taken < self.answered {
            let burst = *self.bursts.front().expect("every request under way is in a burst");
            let (end, unscored) = self.answers.take_alike(taken, burst.end.min(self.answered));
            if unscored.is_some() {
                vectors -= (taken..end).map(|request| self.requests.vectors(request)).sum::<u64>();
            }
            take(Taken { request: taken, count: end - taken, sent_at_ns: burst.sent_at_ns, unscored });
            taken = end;
            if burst.end == end {
                self.bursts.pop_front();
            }
        }
        vectors
    }

    /// That `request` was answered with an error.
    #[cold]
    pub fn unscored(&self, request: u64, kind: Unscored) -> Failure {
        self.failure(request, Fault::ErrorAnswer(kind.code()))
    }

    /// The request that has waited for `timeout` without anything moving, if there is one.
    pub fn stalled(&self, now_ns: u64, timeout: Duration) -> Option<Failure> {
        let waiting_since_ns = match self.bursts.front() {
            Some(burst) => burst.sent_at_ns.max(self.progress_ns),
            None if self.due > self.sent => self.progress_ns,
            None => return None,
        };
        let stalled = now_ns.saturating_sub(waiting_since_ns) > timeout.as_nanos() as u64;
        stalled.then(|| self.failure(self.answered, Fault::Stalled(timeout)))
    }

    /// The oldest request that has no answer (there is one), so long after the end of the run.
    pub fn late(&self, timeout: Duration) -> Failure {
        self.failure(self.answered, Fault::Late(timeout))
    }

    /// The socket carries `requests` more requests.
    pub fn end_socket_after(&mut self, requests: u64) {
        self.socket_end = self.answered + requests;
    }

    /// Whether all is answered that this socket was to carry.
    pub fn socket_is_spent(&self) -> bool {
        self.answered == self.socket_end && !self.is_connecting()
    }

    /// Closes the socket, on which nothing is under way, and begins another connection to `address`.
    pub fn reconnect(&mut self, address: &SockAddr, now_ns: u64) -> Result<(), Failure> {
        let begin = || {
            let socket = socket_for(address, Type::STREAM.nonblocking())?;
            match socket.connect(address) {
                Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => Err(error),
                _ => Ok(socket),
            }
        };
        self.hello = None;
        self.socket = begin().map_err(|error| self.failure(self.sent, Fault::Reconnect(error)))?;
        self.readiness = Readiness::Connecting;
        self.progress_ns = now_ns;
        Ok(())
    }

    /// The server has ended the connection: gives up what is under way. What is due and not sent waits for the next
    /// socket, as does a request that is sent in part.
    pub fn give_up(&mut self, now_ns: u64) -> GivenUp {
        let refused = self.answers.refused();
        let given_up = GivenUp { refused, lost: self.sent - self.answered - refused };
        self.answered = self.sent;
        self.sent_bytes = self.requests.request_start(self.sent);
        self.answers.restart(self.sent);
        self.answer_end = self.requests.answer_start(self.sent + 1);
        self.bursts.clear();
        // The server is done with it, and need not wait for us. If this fails, the connection is down already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.readiness = Readiness::Ended;
        self.progress_ns = now_ns;
        given_up
    }

    /// Ends our side, on which nothing is under way, and makes sure that nothing else comes before the server's end.
    /// Tells whether the server ended its side in time; if not, that is none of our business here.
    pub fn finish(mut self, patience: Duration) -> Result<bool, Failure> {
        let end = || {
            self.socket.shutdown(Shutdown::Write)?;
            self.socket.set_nonblocking(false)?;
            self.socket.set_read_timeout(Some(patience))
        };
        if end().is_err() {
            return Ok(false);
        }
        let mut buffer = [0; HELLO_ANSWER_BYTES_MAX];
        loop {
            let bytes = match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(bytes) => bytes,
                Err(_) => return Ok(false),
            };
            let hello_bytes = match self.hello.is_some().then(|| self.take_hello(&buffer[..bytes])) {
                None => 0,
                Some(Ok(taken)) => taken,
                Some(Err(failure)) if failure.is_end_of_connection() => return Ok(true),
                Some(Err(failure)) => return Err(failure),
            };
            if hello_bytes < bytes {
                return Err(self.failure(self.sent, Fault::Unasked(bytes - hello_bytes)));
            }
        }
    }

    #[cold]
    fn closed_early(&self) -> Failure {
        self.failure(self.answers.next_request(), Fault::ClosedEarly(self.answers.begun_bytes()))
    }

    /// What was wrong at the stream's request `request`, counted as this connection sent it.
    #[cold]
    fn failure(&self, request: u64, fault: Fault) -> Failure {
        Failure::At { connection: self.index, request: request - self.first_request, fault }
    }
}
