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
    Answer, BadAnswer, ErrorCode, HelloAnswer, MAX_VECTORS_PER_REQUEST, read_answer_of, read_hello_answer,
};
use slab::Slab;

use crate::asked::Asked;
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
    failure: Option<Box<Error>>,
    /// All of it is or was in line.
    is_whole: bool,
    /// Nobody waits for it any more; it goes with its last place.
    given_up: bool,
    /// Is in `waiting`.
    waits_for_room: bool,
    waker: Option<Waker>,
    /// When its time is over; none until the driver has looked.
    deadline: Option<Instant>,
    timeout: Duration,
}

/// What a call came to.
#[derive(Debug, PartialEq)]
pub(crate) struct Answered {
    pub scores: Vec<f32>,
    pub outputs: usize,
    /// What a hello was answered with.
    pub model: Option<Box<ModelInfo>>,
}

/// Why a call came to nothing.
#[derive(Debug, PartialEq)]
pub(crate) struct Failed {
    pub error: Error,
    /// When its time is over, if that is known.
    pub deadline: Option<Instant>,
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
    /// Calls that have begun since the driver last looked; also such as are no more.
    begun: Vec<usize>,
    /// Why nothing is taken any more.
    refusal: Option<Error>,
    /// Who drives the connection.
    driver: Option<Waker>,
    /// The driver has been told that there is something to write, and has not looked since.
    driver_knows: bool,
    /// When the driver looks in by itself.
    look_at: Option<Instant>,
    /// When something was last received, or first owed, if something is.
    silent_since: Option<Instant>,
    /// How long the server may say nothing while it owes something.
    silence_max: Duration,
    /// Requests put in line since the last take.
    just_put: usize,
    /// A call ran out of its time since the last bytes came.
    late: bool,
}

impl Line {
    pub fn new(server: Arc<str>, shape: Shape, silence_max: Duration) -> Line {
        Line {
            server,
            shape,
            unsent: Vec::new(),
            places: VecDeque::new(),
            calls: Slab::new(),
            waiting: VecDeque::new(),
            begun: Vec::new(),
            refusal: None,
            driver: None,
            driver_knows: false,
            look_at: None,
            silent_since: None,
            silence_max,
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

    /// Begins a call that may take so long, or until its deadline, if that has been set before.
    ///
    /// Its time begins when the driver looks in the next time, which it is woken to do: reading the clock for each call
    /// would be a good part of what a call costs.
    ///
    /// # Errors
    /// The line takes nothing any more.
    pub fn begin(&mut self, asked: &Asked<'_>, timeout: Duration, deadline: Option<Instant>) -> Result<usize, Failed> {
        if let Some(refusal) = &self.refusal {
            return Err(Failed { error: refusal.clone(), deadline });
        }
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
        if self.begun.is_empty() {
            self.wake_driver();
        }
        self.begun.push(call);
        Ok(call)
    }

    /// Puts as much of a call in line as there is room for; and what became of it, if that is known. After that the call is no
    /// more.
    pub fn poll_call(&mut self, key: usize, asked: &mut Asked<'_>, waker: &Waker) -> Poll<Result<Answered, Failed>> {
        if let Some(error) = self.calls[key].failure.take() {
            let deadline = self.calls[key].deadline;
            self.give_up(key);
            return Poll::Ready(Err(Failed { error: *error, deadline }));
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

    /// Takes all that is to be written, in exchange for an empty buffer, unless fewer requests than `expected` have been put
    /// in line since the last time: then more is about to come, and the driver is to look in again once callers had their turn.
    pub fn take_unsent(&mut self, empty: &mut Vec<u8>, expected: usize, woken: &mut Vec<Waker>) -> Taken {
        if self.unsent.is_empty() {
            self.driver_knows = false;
            return Taken::Nothing;
        }
        if self.just_put < expected {
            return Taken::Wait;
        }
        std::mem::swap(&mut self.unsent, empty);
        self.driver_knows = false;
        self.just_put = 0;
        self.wake_if_room(woken);
        Taken::All
    }

    /// Takes the answers at the front of `bytes`, and says how many bytes they were; of whom to wake once the line is
    /// free again.
    ///
    /// # Errors
    /// The line has to be closed, with this error.
    pub fn received(&mut self, bytes: &[u8], now: Instant, woken: &mut Vec<Waker>) -> Result<usize, Error> {
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
        self.silent_since = (!self.places.is_empty()).then_some(now);
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
        self.calls[place.call].failure.get_or_insert_with(|| Box::new(failure));
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
                call.failure.get_or_insert_with(|| Box::new(refusal.clone()));
            }
            woken.extend(call.waker.take());
        }
    }

    /// Fails the calls whose time is over; when to look in again.
    ///
    /// # Errors
    /// The server has been silent for too long: the line has to be closed, with this error.
    pub fn look(&mut self, now: Instant, woken: &mut Vec<Waker>) -> Result<Option<Instant>, Error> {
        for key in self.begun.drain(..) {
            if let Some(call) = self.calls.get_mut(key) {
                let deadline = *call.deadline.get_or_insert(now + call.timeout);
                self.look_at = earlier(self.look_at, deadline);
            }
        }
        if self.silent_since.is_none() && !self.places.is_empty() {
            self.silent_since = Some(now);
            self.look_at = earlier(self.look_at, now + self.silence_max);
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = self.look_at_all(now, woken)?;
        }
        Ok(self.look_at)
    }

    fn look_at_all(&mut self, now: Instant, woken: &mut Vec<Waker>) -> Result<Option<Instant>, Error> {
        let mut next = self.silent_since.map(|since| since + self.silence_max);
        if next.is_some_and(|until| until <= now) {
            let reason = format!("it owes {} answers and was silent for {:?}", self.places.len(), self.silence_max);
            return Err(Error::Lost { server: Arc::clone(&self.server), reason: reason.into() });
        }
        for (_, call) in &mut self.calls {
            let Some(deadline) = call.deadline.filter(|_| !call.given_up && !call.is_over()) else { continue };
            if now < deadline {
                next = earlier(next, deadline);
                continue;
            }
            self.late |= call.unanswered > 0;
            call.failure = Some(Box::new(Error::Deadline { timeout: call.timeout }));
            woken.extend(call.waker.take());
        }
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
                call.failure = Some(Box::new(reason.clone()));
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

fn earlier(moment: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(moment.map_or(other, |moment| moment.min(other)))
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
            let line = Line::new("here".into(), Shape::assumed(None, 1), LONG);
            Pair { line, now, woken: Vec::new(), received: Vec::new(), answers: Vec::new() }
        }

        fn begin(&mut self, asked: &Asked<'_>) -> usize {
            self.line.begin(asked, LONG, None).expect("the line is open")
        }

        fn poll(&mut self, key: usize, asked: &mut Asked<'_>) -> Poll<Result<Vec<f32>, Error>> {
            let outcome = self.line.poll_call(key, asked, Waker::noop());
            outcome.map(|outcome| outcome.map(|answered| answered.scores).map_err(|failed| failed.error))
        }

        /// Takes what is to be written.
        fn write(&mut self) {
            let mut bytes = Vec::new();
            if self.line.take_unsent(&mut bytes, 0, &mut self.woken) == Taken::All {
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
                    assert_eq!(pair.line.begin(&asked, LONG, None), Err(Failed { error, deadline: None }));
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
        let keys = [1, 2, 3].map(|seconds| pair.line.begin(&asked[0], seconds * second, None).expect("it is open"));
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
        let key = pair.line.begin(&asked, 2 * LONG, None).expect("it is open");
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

    /// What the first of several callers asks waits for the others.
    #[test]
    fn what_is_about_to_come_is_waited_for() {
        let mut pair = Pair::new();
        let (one, mut bytes) = (rows(1, 1), Vec::new());
        let mut both = [scores(&one), scores(&one)];
        assert_eq!(pair.line.take_unsent(&mut bytes, 2, &mut pair.woken), Taken::Nothing);
        for (asked, taken) in both.iter_mut().zip([Taken::Wait, Taken::All]) {
            let key = pair.begin(asked);
            assert!(pair.poll(key, asked).is_pending());
            assert_eq!(pair.line.take_unsent(&mut bytes, 2, &mut pair.woken), taken);
        }
    }
}
