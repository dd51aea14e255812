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
use crate::limits::{REQUESTS_IN_LINE_MAX, SCORES_RESERVED_MAX, UNSENT_BYTES_MAX};
use crate::model::ModelInfo;

/// What a line's server takes and gives: what a hello said, or what is assumed of a server that knows none. It stays as long
/// as the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Features in a row, if that is known.
    pub features: Option<usize>,
    /// Scores for each row.
    pub outputs: usize,
    /// The most rows of one request: 1 to 64.
    pub rows_max: usize,
}

impl Shape {
    /// As a server says that it is.
    pub fn of(model: &ModelInfo) -> Shape {
        Shape {
            features: Some(model.feature_dim),
            outputs: model.outputs,
            rows_max: model.max_vectors.clamp(1, MAX_VECTORS_PER_REQUEST as usize),
        }
    }

    /// Of a server that says nothing.
    pub fn assumed(features: Option<usize>, outputs: usize) -> Shape {
        Shape { features, outputs, rows_max: MAX_VECTORS_PER_REQUEST as usize }
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
    model: Option<Box<ModelInfo>>,
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

/// What a call asks for and has not yet put in line.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// Scores of whole rows of so many features.
    Scores { rows: &'a [f32], features: usize },
    /// What the server is.
    Hello,
    /// Nothing more.
    Nothing,
}

impl Asked<'_> {
    /// Rows that are not yet in line.
    fn rows(&self) -> usize {
        match self {
            Asked::Scores { rows, features } => rows.len() / features,
            Asked::Hello | Asked::Nothing => 0,
        }
    }

    /// Rows and bytes of the request that is next, if there is one. A hello has no rows.
    fn next(&self, rows_max: usize) -> Option<(usize, usize)> {
        match self {
            Asked::Scores { rows: [], .. } => None,
            Asked::Scores { features, .. } => {
                let count = self.rows().min(rows_max);
                Some((count, REQUEST_HEADER_BYTES + count * features * F32_BYTES))
            }
            Asked::Hello => Some((0, HELLO_REQUEST_BYTES)),
            Asked::Nothing => None,
        }
    }

    /// Writes the request of so many rows that is next.
    fn write(&mut self, count: usize, out: &mut Vec<u8>) {
        match self {
            Asked::Scores { rows, features } => {
                let (request, rest) = rows.split_at(count * *features);
                write_rows(count, request, out);
                *rows = rest;
            }
            Asked::Hello => {
                out.extend_from_slice(&HelloRequest { feature_dim: 0 }.to_bytes());
                *self = Asked::Nothing;
            }
            Asked::Nothing => {}
        }
    }
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Answered {
    pub scores: Vec<f32>,
    pub outputs: usize,
    /// What a hello was answered with.
    pub model: Option<Box<ModelInfo>>,
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
    /// When something was received, or the first call came to an empty line.
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
    pub fn begin(&mut self, asked: &Asked<'_>, now: Instant, timeout: Duration) -> Result<usize, Error> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let deadline = now + timeout;
        let scores = asked.rows().saturating_mul(self.shape.outputs);
        let call = self.calls.insert(Call {
            scores: Vec::with_capacity(scores.min(SCORES_RESERVED_MAX)),
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
        let put_before = self.just_put;
        let is_whole = loop {
            let Some((rows, bytes)) = asked.next(self.shape.rows_max) else { break true };
            if !self.has_room(bytes) {
                break false;
            }
            asked.write(rows, &mut self.unsent);
            self.places.push_back(Place { call: key, rows: rows as u8 });
            self.just_put += 1;
        };
        let has_put = self.just_put - put_before;
        let call = &mut self.calls[key];
        call.unanswered += has_put;
        call.is_whole = is_whole;
        if has_put > 0 && !self.driver_knows {
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
                let is = Shape::of(&model);
                if is != self.shape {
                    return Err(self.violation(format!("it was {:?} and now says {is:?}", self.shape)));
                }
                self.calls[place.call].model = Some(Box::new(model));
            }
        }
        Ok(Some(length))
    }

    /// An answer to this call has been taken.
    fn answered(&mut self, key: usize, woken: &mut Vec<Waker>) {
        let call = &mut self.calls[key];
        call.unanswered -= 1;
        if call.given_up && call.unanswered == 0 {
            self.calls.remove(key);
        } else if call.is_over()
            && let Some(waker) = call.waker.take()
        {
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
            if call.given_up || call.is_over() {
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
            // Who has all answers, and has not looked since, keeps them.
            if !call.is_over() {
                call.failure = Some(reason.clone());
                woken.extend(call.waker.take());
            }
            call.unanswered = 0;
            call.waits_for_room = false;
            !call.given_up
        });
    }
}

impl Call {
    /// Whether what became of it is known.
    fn is_over(&self) -> bool {
        self.failure.is_some() || (self.is_whole && self.unanswered == 0)
    }

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use disrust_protocol::write_answer_of;

    use super::*;

    const FEATURES: usize = 2;
    const LONG: Duration = Duration::from_secs(1000);

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A line whose time stands still, and the server behind it, which answers with sums.
    struct Pair {
        line: Line,
        now: Instant,
        woken: Vec<Waker>,
        /// Requests that the server has not answered.
        received: Vec<u8>,
        /// Answers that the line has not read.
        answers: Vec<u8>,
    }

    impl Pair {
        fn new() -> Pair {
            let now = Instant::now();
            let line = Line::new("here".into(), Shape::assumed(None, 1), LONG, now);
            Pair { line, now, woken: Vec::new(), received: Vec::new(), answers: Vec::new() }
        }

        fn begin(&mut self, asked: &Asked<'_>) -> usize {
            self.line.begin(asked, self.now, LONG).expect("the line is open")
        }

        fn poll(&mut self, key: usize, asked: &mut Asked<'_>) -> Poll<Result<Vec<f32>, Error>> {
            self.line.poll_call(key, asked, Waker::noop()).map(|outcome| outcome.map(|answered| answered.scores))
        }

        /// Takes what is to be written.
        fn write(&mut self) {
            let mut bytes = Vec::new();
            if self.line.take_unsent(&mut bytes, false, &mut self.woken) == Taken::All {
                self.received.append(&mut bytes);
            }
        }

        /// Answers so many requests.
        fn answer(&mut self, requests: usize) {
            for _ in 0..requests {
                let Some(header) = self.received.first_chunk() else { return };
                let rows = u32::from_le_bytes(*header) as usize;
                let request: Vec<u8> = self.received.drain(..4 + rows * FEATURES * 4).collect();
                let values: Vec<f32> =
                    request[4..].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                let mut answer = vec![0; 1 + 4 * rows];
                write_answer_of(1, &sums(&values), &mut answer);
                self.answers.append(&mut answer);
            }
        }

        /// Reads so many bytes of the answers, or all.
        fn read(&mut self, bytes: usize) {
            let bytes = bytes.min(self.answers.len());
            let taken = self.line.received(&self.answers[..bytes], self.now, &mut self.woken).expect("answers");
            self.answers.drain(..taken);
        }

        fn exchange(&mut self) {
            self.write();
            self.answer(usize::MAX);
            self.read(usize::MAX);
        }
    }

    fn sums(values: &[f32]) -> Vec<f32> {
        values.chunks(FEATURES).map(|row| row.iter().sum()).collect()
    }

    fn scores<'a>(rows: &'a [f32]) -> Asked<'a> {
        Asked::Scores { rows, features: FEATURES }
    }

    fn rows(number: usize, count: usize) -> Vec<f32> {
        (0..count * FEATURES).map(|value| (number * 1000 + value) as f32).collect()
    }

    #[test]
    fn what_waits_is_bounded_and_goes_on_when_half_is_free() {
        let mut pair = Pair::new();
        let many = rows(1, 100_000);
        let mut asked = scores(&many);
        let key = pair.begin(&asked);
        let mut polls = 0;
        let outcome = loop {
            if let Poll::Ready(outcome) = pair.poll(key, &mut asked) {
                break outcome;
            }
            assert!(pair.line.in_line() <= REQUESTS_IN_LINE_MAX && pair.line.unsent.len() <= UNSENT_BYTES_MAX);
            pair.exchange();
            assert!(!pair.woken.is_empty(), "it is told that there is room, or that it is over");
            pair.woken.clear();
            polls += 1;
        };
        assert_eq!(outcome, Ok(sums(&many)));
        assert!(polls > 2, "{polls}");
        assert!(pair.line.calls.is_empty() && pair.line.waiting.is_empty());
    }

    #[test]
    fn who_waits_for_room_goes_before_who_comes_later() {
        let mut pair = Pair::new();
        let one = rows(1, 1);
        let mut first: Vec<_> = (0..REQUESTS_IN_LINE_MAX).map(|_| (pair.begin(&scores(&one)), scores(&one))).collect();
        for (key, asked) in &mut first {
            assert!(pair.poll(*key, asked).is_pending());
        }
        let (mut second, mut third) = (scores(&one), scores(&one));
        let (second_key, third_key) = (pair.begin(&second), pair.begin(&third));
        assert!(pair.poll(second_key, &mut second).is_pending());
        pair.write();
        pair.answer(1);
        pair.read(usize::MAX);
        assert!(pair.poll(third_key, &mut third).is_pending(), "there is room for one, and another one waits for it");
        assert_eq!(pair.line.waiting, [second_key, third_key]);
        // Who waits and is given up waits no more.
        pair.line.give_up(second_key);
        assert_eq!(pair.line.waiting, [third_key]);
        pair.answer(REQUESTS_IN_LINE_MAX / 2);
        pair.read(usize::MAX);
        assert!(pair.line.waiting.is_empty());
        assert!(pair.poll(third_key, &mut third).is_pending());
        pair.exchange();
        assert_eq!(pair.poll(third_key, &mut third), Poll::Ready(Ok(sums(&one))));
    }

    /// Calls of all sizes, polled, answered, cut and given up in any order: each gets its own scores.
    #[test]
    fn answers_find_their_calls_whatever_happens_in_between() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut pair = Pair::new();
            let values: Vec<Vec<f32>> = (0..60).map(|number| rows(number, rng.usize(0..300))).collect();
            let mut fresh = values.iter();
            let mut calls: BTreeMap<usize, (&[f32], Asked<'_>)> = BTreeMap::new();
            let (mut answered, mut given_up) = (0, 0);
            while answered + given_up < values.len() {
                let some_key = (!calls.is_empty()).then(|| *calls.keys().nth(rng.usize(..calls.len())).expect("one"));
                match (rng.u8(..10), some_key) {
                    (0..2, _) => {
                        if let Some(values) = fresh.next() {
                            let asked = scores(values);
                            let key = pair.begin(&asked);
                            let before = calls.insert(key, (values, asked));
                            assert!(before.is_none(), "no two calls at once have a key");
                        }
                    }
                    (2..5, Some(key)) => {
                        let (values, asked) = calls.get_mut(&key).expect("it is there");
                        if let Poll::Ready(outcome) = pair.poll(key, asked) {
                            assert_eq!(outcome, Ok(sums(values)), "seed {seed}");
                            calls.remove(&key);
                            answered += 1;
                        }
                    }
                    (5, Some(key)) if rng.u8(..4) == 0 => {
                        pair.line.give_up(key);
                        calls.remove(&key);
                        given_up += 1;
                    }
                    (6, _) => pair.write(),
                    (7, _) => pair.answer(rng.usize(..4)),
                    (8, _) => pair.read(rng.usize(..100)),
                    _ => {}
                }
            }
            pair.exchange();
            assert!(pair.line.calls.is_empty() && pair.line.places.is_empty() && pair.line.waiting.is_empty());
        }
    }

    /// Any bytes: an error, or an answer that was asked for, and never more scores than rows.
    #[test]
    fn bytes_that_are_no_answers_close_the_line() {
        let (mut errors, mut rng) = (0, fastrand::Rng::with_seed(1));
        for _ in 0..20_000 {
            let mut pair = Pair::new();
            let values = rows(1, rng.usize(1..200));
            let mut asked = scores(&values);
            let key = pair.begin(&asked);
            assert!(pair.poll(key, &mut asked).is_pending());
            let likely = [0, 1, 2, 3, 4, 5, 64, 65, 128, values.len() as u8 / 2];
            let bytes: Vec<u8> = (0..rng.usize(..300))
                .map(|_| if rng.bool() { *rng.choice(&likely).expect("some") } else { rng.u8(..) })
                .collect();
            match pair.line.received(&bytes, pair.now, &mut pair.woken) {
                Ok(taken) => assert!(taken <= bytes.len()),
                Err(error) => {
                    errors += 1;
                    pair.line.close(&error, &mut pair.woken);
                    assert!(pair.poll(key, &mut asked).is_ready());
                    assert_eq!(pair.line.begin(&asked, pair.now, LONG), Err(error));
                    continue;
                }
            }
            match pair.poll(key, &mut asked) {
                Poll::Ready(Ok(scores)) => assert_eq!(scores.len(), values.len() / FEATURES),
                Poll::Ready(Err(Error::ModelFailed | Error::Overloaded | Error::Closing)) | Poll::Pending => {}
                Poll::Ready(Err(error)) => panic!("{error}"),
            }
        }
        assert!(errors > 1000, "{errors}");
    }

    #[test]
    fn time_fails_whom_it_is_over_for_and_nobody_else() {
        let mut pair = Pair::new();
        let (one, second) = (rows(1, 1), Duration::from_secs(1));
        let mut asked = [scores(&one), scores(&one), scores(&one)];
        let keys = [1, 2, 3].map(|seconds| pair.line.begin(&asked[0], pair.now, seconds * second).expect("it is open"));
        for (key, asked) in keys.iter().zip(&mut asked) {
            assert!(pair.poll(*key, asked).is_pending());
        }
        let [first, other, last] = &mut asked;
        assert_eq!(pair.line.look(pair.now, &mut pair.woken), Ok(Some(pair.now + second)));
        // The first one is answered in time, and has not looked since.
        pair.write();
        pair.answer(1);
        pair.read(usize::MAX);
        pair.woken.clear();
        pair.now += 2 * second;
        assert_eq!(pair.line.look(pair.now, &mut pair.woken), Ok(Some(pair.now + second)));
        assert_eq!(pair.woken.len(), 1);
        assert!(pair.line.is_late());
        assert_eq!(pair.poll(keys[0], first), Poll::Ready(Ok(sums(&one))));
        assert_eq!(pair.poll(keys[1], other), Poll::Ready(Err(Error::Deadline { timeout: 2 * second })));
        pair.answer(2);
        pair.read(usize::MAX);
        assert!(!pair.line.is_late());
        pair.line.close(&Error::Closing, &mut pair.woken);
        assert_eq!(pair.poll(keys[2], last), Poll::Ready(Ok(sums(&one))), "it had its answer");
        assert!(pair.line.calls.is_empty());
    }

    #[test]
    fn a_server_that_owes_something_may_not_be_silent_for_ever() {
        let mut pair = Pair::new();
        let one = rows(1, 1);
        let mut asked = scores(&one);
        let key = pair.line.begin(&asked, pair.now, 2 * LONG).expect("it is open");
        assert!(pair.poll(key, &mut asked).is_pending());
        assert_eq!(pair.line.look(pair.now, &mut pair.woken), Ok(Some(pair.now + LONG)));
        let silent = pair.line.look(pair.now + LONG, &mut pair.woken);
        assert!(matches!(silent, Err(Error::Lost { .. })), "{silent:?}");
    }

    /// The driver is woken once for all that is put in line before it looks.
    #[test]
    fn the_driver_is_woken_once_for_many_requests() {
        let mut pair = Pair::new();
        let wakes = Arc::new(Wakes::default());
        pair.line.driven_by(&Arc::clone(&wakes).into());
        let one = rows(1, 1);
        for turn in 1..=3 {
            let mut calls: Vec<_> = (0..64).map(|_| (pair.begin(&scores(&one)), scores(&one))).collect();
            calls.iter_mut().for_each(|(key, asked)| assert!(pair.poll(*key, asked).is_pending()));
            assert_eq!(wakes.0.load(Ordering::Relaxed), turn);
            pair.exchange();
            calls.iter_mut().for_each(|(key, asked)| assert!(pair.poll(*key, asked).is_ready()));
        }
    }

    /// Those whom answers have woken come back: what the first of them asks waits for the others, once.
    #[test]
    fn what_is_about_to_come_is_waited_for() {
        let mut pair = Pair::new();
        let one = rows(1, 1);
        let mut both = [scores(&one), scores(&one)];
        let keys = [0, 1].map(|_| pair.begin(&scores(&one)));
        keys.iter().zip(&mut both).for_each(|(key, asked)| assert!(pair.poll(*key, asked).is_pending()));
        pair.exchange();
        keys.iter().zip(&mut both).for_each(|(key, asked)| assert!(pair.poll(*key, asked).is_ready()));
        let (mut again, mut bytes) = (scores(&one), Vec::new());
        let key = pair.begin(&again);
        assert!(pair.poll(key, &mut again).is_pending());
        assert_eq!(pair.line.take_unsent(&mut bytes, true, &mut pair.woken), Taken::Wait);
        assert_eq!(pair.line.take_unsent(&mut bytes, false, &mut pair.woken), Taken::All);
        assert_eq!(pair.line.take_unsent(&mut Vec::new(), true, &mut pair.woken), Taken::Nothing);
    }
}
