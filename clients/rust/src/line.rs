//! What a connection owes, without any I/O: calls put requests in line, bytes that come are their answers, in order.
//!
//! A line knows bytes, places and moments; it neither reads the clock nor touches a socket, so all of it is tested
//! without either. Whoever drives the connection hands in what was received ([`Line::received`]), takes what is to be written
//! ([`Line::take_unsent`]) and looks in when it was asked to ([`Line::look`]); callers poll their calls ([`Line::poll_call`]).
//!
//! Invariants:
//! - An answer belongs to the oldest place in line and to nothing else. A call that is given up keeps its places; their answers
//!   are read, held to what was asked, and dropped.
//! - An answer that does not fit its place ends the line: no number of it, and none behind it, reaches a call.
//! - Requests in line and bytes unsent are bounded; a call that finds no room waits for it, and is woken when half of it is free.
//! - A closed line owes nothing: all its calls have failed.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use disrust_protocol::{
    Answer, BadAnswer, ErrorCode, F32_BYTES, HELLO_REQUEST_BYTES, HelloAnswer, HelloRequest, MAX_VECTORS_PER_REQUEST,
    REQUEST_HEADER_BYTES, read_answer_of, read_hello_answer,
};
use slab::Slab;

use crate::error::Error;
use crate::limits::{REQUESTS_IN_LINE_MAX, UNSENT_BYTES_MAX};
use crate::model::ModelInfo;

/// How a line's server answers: what a hello said, or what is assumed of a server that knows none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Scores for each row.
    pub outputs: usize,
    /// The most rows of one request: 1 to 64.
    pub rows_max: usize,
}

impl Shape {
    /// As a server says that it is.
    pub fn of(model: &ModelInfo) -> Shape {
        Shape { outputs: model.outputs, rows_max: model.max_vectors.clamp(1, MAX_VECTORS_PER_REQUEST as usize) }
    }

    /// Of a server that says nothing.
    pub fn assumed(outputs: usize) -> Shape {
        Shape { outputs, rows_max: MAX_VECTORS_PER_REQUEST as usize }
    }
}

/// A place in line: what its answer must be, and whose it is.
#[derive(Debug, Clone, Copy)]
struct Place {
    call: usize,
    /// Of the request, or 0 for a hello.
    rows: u8,
}

/// A call that has places in line, or waits for some.
#[derive(Debug)]
struct Call {
    /// What was answered, in order.
    scores: Vec<f32>,
    /// What a hello was answered with.
    model: Option<ModelInfo>,
    /// Places in line.
    unanswered: usize,
    failure: Option<Error>,
    /// All of it is or was in line.
    is_whole: bool,
    /// Nobody waits for it any more; it goes with its last place.
    given_up: bool,
    /// Is in `waiting`.
    waits_for_room: bool,
    waker: Option<Waker>,
    deadline: Instant,
    timeout: Duration,
}

/// What a call asks for, and how far it has come with it.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// Rows that are not yet in line.
    Scores { rows: &'a [f32], features: usize },
    /// A hello that is not yet in line, or none.
    Hello { said: bool },
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Answered {
    pub scores: Vec<f32>,
    pub outputs: usize,
    /// What a hello was answered with.
    pub model: Option<ModelInfo>,
}

/// What became of [`Line::take_unsent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There was nothing.
    Nothing,
    /// More is about to come.
    Wait,
    /// All that there was.
    All,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    /// Who is at the other end, for messages.
    server: Arc<str>,
    shape: Shape,
    /// Requests in order that are not yet taken for writing.
    unsent: Vec<u8>,
    /// What is owed, the oldest first.
    places: VecDeque<Place>,
    calls: Slab<Call>,
    /// Calls that found no room.
    waiting: VecDeque<usize>,
    /// Why nothing is taken any more.
    refusal: Option<Error>,
    /// Who drives the connection.
    driver: Option<Waker>,
    /// The driver has been told that there is something to write, and has not looked since.
    driver_knows: bool,
    /// When the driver looks in by itself.
    look_at: Option<Instant>,
    /// When something was received, or the line was last empty.
    silent_since: Instant,
    /// How long the server may say nothing while it owes something.
    silence_max: Duration,
    /// Calls that the last bytes have ended, and that may be put again.
    just_ended: usize,
    /// Requests put in line since the last take.
    just_put: usize,
    /// A call ran out of its time since the last bytes came.
    late: bool,
}

impl Line {
    pub fn new(server: Arc<str>, shape: Shape, silence_max: Duration, now: Instant) -> Line {
        Line {
            server,
            shape,
            unsent: Vec::new(),
            places: VecDeque::new(),
            calls: Slab::new(),
            waiting: VecDeque::new(),
            refusal: None,
            driver: None,
            driver_knows: false,
            look_at: None,
            silent_since: now,
            silence_max,
            just_ended: 0,
            just_put: 0,
            late: false,
        }
    }

    /// Requests that wait for their answers.
    pub fn in_line(&self) -> usize {
        self.places.len()
    }

    /// Whether a call has waited in vain and nothing was heard since.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// Why it takes nothing any more.
    pub fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// Begins a call.
    ///
    /// # Errors
    /// The line takes nothing any more.
    pub fn begin(&mut self, now: Instant, timeout: Duration) -> Result<usize, Error> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let deadline = now + timeout;
        let call = self.calls.insert(Call {
            scores: Vec::new(),
            model: None,
            unanswered: 0,
            failure: None,
            is_whole: false,
            given_up: false,
            waits_for_room: false,
            waker: None,
            deadline,
            timeout,
        });
        if self.places.is_empty() {
            self.silent_since = now;
        }
        let look_at = deadline.min(self.silent_since + self.silence_max);
        if self.look_at.is_none_or(|at| look_at < at) {
            self.look_at = Some(look_at);
            self.wake_driver();
        }
        Ok(call)
    }

    /// Puts as much of a call in line as there is room for; and what became of it, if that is known. After that the call is no
    /// more.
    pub fn poll_call(&mut self, key: usize, asked: &mut Asked<'_>, waker: &Waker) -> Poll<Result<Answered, Error>> {
        if let Some(failure) = self.calls[key].failure.take() {
            self.give_up(key);
            return Poll::Ready(Err(failure));
        }
        let is_whole = self.put(key, asked);
        let call = &mut self.calls[key];
        if is_whole && call.unanswered == 0 {
            let call = self.calls.remove(key);
            return Poll::Ready(Ok(Answered { scores: call.scores, outputs: self.shape.outputs, model: call.model }));
        }
        if !call.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            call.waker = Some(waker.clone());
        }
        if !is_whole && !call.waits_for_room {
            call.waits_for_room = true;
            self.waiting.push_back(key);
        }
        Poll::Pending
    }

    /// Ends a call that nobody waits for any more. Its places stay.
    pub fn give_up(&mut self, key: usize) {
        let call = &mut self.calls[key];
        if call.waits_for_room {
            self.waiting.retain(|waiting| *waiting != key);
        }
        if call.unanswered == 0 {
            self.calls.remove(key);
        } else {
            call.given_up = true;
            call.waits_for_room = false;
            call.waker = None;
            call.scores = Vec::new();
        }
    }

    /// Puts what there is room for; whether that is all of the rest.
    fn put(&mut self, key: usize, asked: &mut Asked<'_>) -> bool {
        let mut has_put = false;
        let is_whole = loop {
            let (rows, bytes) = match asked {
                Asked::Scores { rows, features } => {
                    let rows = (rows.len() / *features).min(self.shape.rows_max);
                    (rows, REQUEST_HEADER_BYTES + rows * *features * F32_BYTES)
                }
                Asked::Hello { said } => (0, if *said { 0 } else { HELLO_REQUEST_BYTES }),
            };
            let is_done = match asked {
                Asked::Scores { .. } => rows == 0,
                Asked::Hello { said } => *said,
            };
            if is_done {
                break true;
            }
            if !self.has_room(bytes) {
                break false;
            }
            match asked {
                Asked::Scores { rows: rest, features } => {
                    let (request, behind) = rest.split_at(rows * *features);
                    write_rows(rows, request, &mut self.unsent);
                    *rest = behind;
                }
                Asked::Hello { said } => {
                    self.unsent.extend_from_slice(&HelloRequest { feature_dim: 0 }.to_bytes());
                    *said = true;
                }
            }
            self.places.push_back(Place { call: key, rows: rows as u8 });
            self.calls[key].unanswered += 1;
            self.just_put += 1;
            has_put = true;
        };
        self.calls[key].is_whole = is_whole;
        if has_put && !self.driver_knows {
            self.wake_driver();
        }
        is_whole
    }

    /// Whether a request of so many bytes may be put in line. Who has waited goes first.
    fn has_room(&self, bytes: usize) -> bool {
        let fits = self.unsent.is_empty() || self.unsent.len() + bytes <= UNSENT_BYTES_MAX;
        fits && self.places.len() < REQUESTS_IN_LINE_MAX && self.waiting.is_empty()
    }

    fn wake_driver(&mut self) {
        self.driver_knows = true;
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Who is woken when there is something to write, or another moment to look in.
    pub fn driven_by(&mut self, waker: &Waker) {
        if !self.driver.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.driver = Some(waker.clone());
        }
    }

    /// Takes all that is to be written, in exchange for an empty buffer; whether there was something. From then on the
    /// driver is woken again.
    ///
    /// Those whom the last answers have woken are likely to come back at once: if `may_wait`, and not as many have, nothing is
    /// taken yet, and the driver is to look in again once they had their turn.
    pub fn take_unsent(&mut self, empty: &mut Vec<u8>, may_wait: bool, woken: &mut Vec<Waker>) -> Taken {
        if self.unsent.is_empty() {
            self.driver_knows = false;
            return Taken::Nothing;
        }
        if may_wait && self.just_put < self.just_ended {
            return Taken::Wait;
        }
        std::mem::swap(&mut self.unsent, empty);
        self.driver_knows = false;
        (self.just_put, self.just_ended) = (0, 0);
        self.wake_if_room(woken);
        Taken::All
    }

    /// Takes the answers at the front of `bytes`, and says how many bytes they were; of whom to wake once the line is
    /// free again.
    ///
    /// # Errors
    /// The line has to be closed, with this error.
    pub fn received(&mut self, bytes: &[u8], now: Instant, woken: &mut Vec<Waker>) -> Result<usize, Error> {
        self.silent_since = now;
        self.late = false;
        let mut at = 0;
        while at < bytes.len() {
            let Some(place) = self.places.front().copied() else {
                return Err(self.violation(format!("byte {:#04x} where nothing is owed", bytes[at])));
            };
            let answer = if place.rows == 0 {
                self.take_hello(place, &bytes[at..])?
            } else {
                self.take_answer(place, &bytes[at..])?
            };
            let Some(answer_bytes) = answer else { break };
            at += answer_bytes;
            self.places.pop_front();
            self.answered(place.call, woken);
        }
        self.wake_if_room(woken);
        Ok(at)
    }

    /// The answer to a request, if all of it is there: its length.
    fn take_answer(&mut self, place: Place, bytes: &[u8]) -> Result<Option<usize>, Error> {
        // Seen at the first byte, so that nobody waits for the rest of it.
        if bytes[0] != 0 && bytes[0] != place.rows {
            return Err(self.violation(format!("scores of {} rows where {} were asked for", bytes[0], place.rows)));
        }
        let read =
            read_answer_of(self.shape.outputs, bytes).map_err(|bad: BadAnswer| self.violation(bad.to_string()))?;
        let Some((answer, length)) = read else { return Ok(None) };
        let call = &mut self.calls[place.call];
        match answer {
            Answer::Scores(scores) if call.is_wanted() => call.scores.extend(scores.iter()),
            Answer::Scores(_) => {}
            Answer::Error(code) => self.take_error(place, code)?,
        }
        Ok(Some(length))
    }

    fn take_error(&mut self, place: Place, code: ErrorCode) -> Result<(), Error> {
        let failure = match code {
            ErrorCode::ModelFailed => Error::ModelFailed,
            ErrorCode::Shed => Error::Overloaded,
            ErrorCode::Closing => {
                self.refusal.get_or_insert(Error::Closing);
                Error::Closing
            }
            ErrorCode::BadVectorCount => return Err(Error::Unreadable { server: Arc::clone(&self.server) }),
            ErrorCode::WrongFeatureDim => {
                return Err(self.violation("error 5 in the place of scores".to_owned()));
            }
        };
        self.calls[place.call].failure.get_or_insert(failure);
        Ok(())
    }

    /// The answer to a hello, if all of it is there: its length.
    fn take_hello(&mut self, place: Place, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let read = read_hello_answer(bytes).map_err(|bad| self.violation(bad.to_string()))?;
        let Some((answer, length)) = read else { return Ok(None) };
        match answer {
            HelloAnswer::Error(code @ (ErrorCode::Closing | ErrorCode::Shed | ErrorCode::ModelFailed)) => {
                self.take_error(place, code)?;
            }
            HelloAnswer::Error(code) => return Err(self.violation(format!("hello is answered with: {code}"))),
            HelloAnswer::Server(hello) => {
                let model = ModelInfo::of(hello).map_err(|reason| self.violation(reason))?;
                if model.outputs != self.shape.outputs {
                    let (was, is) = (self.shape.outputs, model.outputs);
                    return Err(self.violation(format!("it had {was} outputs and now says {is}")));
                }
                self.calls[place.call].model = Some(model);
            }
        }
        Ok(Some(length))
    }

    /// An answer to this call has been taken.
    fn answered(&mut self, key: usize, woken: &mut Vec<Waker>) {
        let call = &mut self.calls[key];
        call.unanswered -= 1;
        let is_over = call.failure.is_some() || (call.is_whole && call.unanswered == 0);
        if call.given_up && call.unanswered == 0 {
            self.calls.remove(key);
        } else if is_over && let Some(waker) = call.waker.take() {
            self.just_ended += 1;
            woken.push(waker);
        }
    }

    fn violation(&self, violation: String) -> Error {
        Error::Protocol { server: Arc::clone(&self.server), violation: violation.into() }
    }

    /// Whoever waits may try again once half of the room is free, and all of them then: each waits again if others were
    /// faster.
    fn wake_if_room(&mut self, woken: &mut Vec<Waker>) {
        let is_half_free = self.places.len() <= REQUESTS_IN_LINE_MAX / 2 && self.unsent.len() <= UNSENT_BYTES_MAX / 2;
        if self.waiting.is_empty() || !(is_half_free || self.refusal.is_some()) {
            return;
        }
        for key in self.waiting.drain(..) {
            let call = &mut self.calls[key];
            call.waits_for_room = false;
            if let Some(refusal) = &self.refusal {
                call.failure.get_or_insert_with(|| refusal.clone());
            }
            woken.extend(call.waker.take());
        }
    }

    /// Fails the calls whose time is over; when to look in again.
    ///
    /// # Errors
    /// The server has been silent for too long: the line has to be closed, with this error.
    pub fn look(&mut self, now: Instant, woken: &mut Vec<Waker>) -> Result<Option<Instant>, Error> {
        if self.look_at.is_none_or(|at| now < at) {
            return Ok(self.look_at);
        }
        let mut next = None;
        if !self.places.is_empty() {
            let silent_until = self.silent_since + self.silence_max;
            if silent_until <= now {
                let reason = format!("it owes {} answers and was silent for {:?}", self.places.len(), self.silence_max);
                return Err(Error::Lost { server: Arc::clone(&self.server), reason: reason.into() });
            }
            next = Some(silent_until);
        }
        for (_, call) in &mut self.calls {
            if !call.is_wanted() {
                continue;
            }
            if now < call.deadline {
                next = Some(next.map_or(call.deadline, |next: Instant| next.min(call.deadline)));
                continue;
            }
            self.late |= call.unanswered > 0;
            call.failure = Some(Error::Deadline { timeout: call.timeout });
            woken.extend(call.waker.take());
        }
        self.look_at = next;
        Ok(next)
    }

    /// Fails all calls and takes nothing any more.
    pub fn close(&mut self, reason: &Error, woken: &mut Vec<Waker>) {
        self.refusal = Some(reason.clone());
        self.places.clear();
        self.waiting.clear();
        self.unsent = Vec::new();
        self.calls.retain(|_, call| {
            call.unanswered = 0;
            call.waits_for_room = false;
            call.failure.get_or_insert_with(|| reason.clone());
            woken.extend(call.waker.take());
            !call.given_up
        });
    }
}

impl Call {
    /// Whether more of it would be of use to anybody.
    fn is_wanted(&self) -> bool {
        !self.given_up && self.failure.is_none()
    }
}

/// Appends a request of whole rows, 1 to 64.
fn write_rows(rows: usize, values: &[f32], out: &mut Vec<u8>) {
    out.extend_from_slice(&(rows as u32).to_le_bytes());
    let begin = out.len();
    out.resize(begin + size_of_val(values), 0);
    for (place, value) in out[begin..].as_chunks_mut::<F32_BYTES>().0.iter_mut().zip(values) {
        *place = value.to_le_bytes();
    }
}
