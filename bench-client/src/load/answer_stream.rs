//! The answers of one connection as they come, in any pieces: each is checked, and those that are errors are told.
//!
//! It knows no socket and no time. What was expected is the [`RequestStream`]'s, and places are bytes of its answers: an error
//! answer takes two bytes of what comes and the place of the whole answer that it stands for, so that what comes behind it is
//! compared with what belongs there. Bytes that are all as expected cost one comparison; only what differs is walked through
//! answer by answer, as is everything if scores have a tolerance.
//!
//! Invariants: every byte is checked, none twice; no more is taken than is owed; behind an answer that says that the server is
//! closing comes nothing else.

use std::collections::VecDeque;

use disrust_protocol::{BadAnswer, ERROR_ANSWER_BYTES, ErrorCode, MAX_VECTORS_PER_REQUEST, answer_bytes};

use crate::failure::Fault;
use crate::load::error_answers::Unscored;
use crate::load::request_stream::{Mismatch, RequestStream};

/// The bytes of the largest answer, which may have to wait for its end.
pub const ANSWER_BYTES_MAX: usize = answer_bytes(MAX_VECTORS_PER_REQUEST);

/// Requests that follow each other and were answered with the same error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UnscoredRun {
    from: u64,
    /// Behind the last one.
    to: u64,
    kind: Unscored,
}

/// The answers of one connection.
pub struct AnswerStream<'a> {
    requests: &'a RequestStream,
    /// Whether errors that end no connection are answers; otherwise the first one is a [`Mismatch`].
    counts_errors: bool,
    /// Answers up to this byte are here, or the errors that stand for them.
    place: u64,
    /// Where the answers that are owed end: a request, and the byte behind its answer.
    owed_request: u64,
    owed_end: u64,
    /// What has come of an answer that is not whole and is checked with a tolerance.
    partial: Vec<u8>,
    /// The first byte of an error answer has come.
    error_begun: bool,
    /// Requests from the one at `place` on that the server refused because it is closing.
    refused: u64,
    /// Of the answers that are here and were not taken.
    unscored: VecDeque<UnscoredRun>,
}

impl<'a> AnswerStream<'a> {
    /// The answers from the one to `first_request` on, none of which is owed.
    pub fn new(requests: &'a RequestStream, first_request: u64, counts_errors: bool) -> AnswerStream<'a> {
        let place = requests.answer_start(first_request);
        AnswerStream {
            requests,
            counts_errors,
            place,
            owed_request: first_request,
            owed_end: place,
            partial: Vec::with_capacity(ANSWER_BYTES_MAX),
            error_begun: false,
            refused: 0,
            unscored: VecDeque::new(),
        }
    }

    /// The answers to the requests before `request` are owed.
    pub fn owe_up_to(&mut self, request: u64) {
        self.owed_request = request;
        self.owed_end = self.requests.answer_start(request);
    }

    /// Answers that end here or before are whole.
    pub fn place(&self) -> u64 {
        self.place
    }

    /// Whether all is here that is owed.
    pub fn is_complete(&self) -> bool {
        self.place == self.owed_end
    }

    /// The request whose answer is the next to be whole.
    pub fn next_request(&self) -> u64 {
        self.requests.request_at(self.place)
    }

    /// Bytes of that answer that have come.
    pub fn begun_bytes(&self) -> usize {
        (self.place - self.requests.answer_start(self.next_request())) as usize + usize::from(self.error_begun)
    }

    /// Requests that the server refused because it is closing.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Begins again with the answer to `request`: what was owed never comes.
    pub fn restart(&mut self, request: u64) {
        self.owe_up_to(request);
        self.place = self.owed_end;
        self.partial.clear();
        self.error_begun = false;
        self.refused = 0;
        self.unscored.clear();
    }

    /// Puts what has to be looked at once more before what comes next, and returns its bytes.
    pub fn begin(&self, buffer: &mut [u8]) -> usize {
        let begun_bytes = usize::from(self.error_begun);
        buffer[..begun_bytes].fill(0);
        begun_bytes
    }

    /// Checks what has come behind [`AnswerStream::begin`], with that before it.
    ///
    /// # Errors
    /// The first answer that is neither right nor an error that counts.
    pub fn check(&mut self, received: &[u8]) -> Result<(), Mismatch> {
        self.error_begun = false;
        if self.refused > 0 {
            return self.check_refusals(received);
        }
        let owed_bytes = received.len().min((self.owed_end - self.place) as usize);
        let (owed, unasked) = received.split_at(owed_bytes);
        if !self.requests.is_exact() || !self.requests.is_as_expected(self.place, owed) {
            return self.walk(received);
        }
        self.place += owed_bytes as u64;
        self.check_end(unasked)
    }

    /// Checks `received` answer by answer.
    fn walk(&mut self, received: &[u8]) -> Result<(), Mismatch> {
        let mut request = self.next_request();
        let mut start = self.requests.answer_start(request);
        let mut rest = received;
        while !rest.is_empty() && self.place < self.owed_end {
            let end = start + self.requests.answer_bytes(request);
            if self.place == start && rest[0] == 0 {
                let Some((answer, behind)) = rest.split_first_chunk::<ERROR_ANSWER_BYTES>() else {
                    self.error_begun = true;
                    return Ok(());
                };
                match self.kind(answer[1]) {
                    Ok(Some(kind)) => self.push_unscored(request, kind),
                    Ok(None) => {
                        self.refused = 1;
                        return self.check_refusals(behind);
                    }
                    Err(fault) => return Err(Mismatch { request, fault }),
                }
                (self.place, rest) = (end, behind);
            } else {
                let (piece, behind) = rest.split_at(rest.len().min((end - self.place) as usize));
                if !self.requests.is_exact() {
                    self.check_near(request, end, piece)?;
                } else if !self.requests.is_as_expected(self.place, piece) {
                    return Err(self.requests.mismatch(self.place, rest));
                }
                self.place += piece.len() as u64;
                rest = behind;
            }
            if self.place == end {
                request += 1;
                start = end;
            }
        }
        self.check_end(rest)
    }

    /// What the second byte of an error answer says: an error that counts, `None` for one that says that the server is
    /// closing, or what is wrong.
    fn kind(&self, code: u8) -> Result<Option<Unscored>, Fault> {
        let error = ErrorCode::from_code(code).ok_or(Fault::NotAnAnswer(BadAnswer::Code(code)))?;
        match Unscored::of(error) {
            _ if error == ErrorCode::Closing => Ok(None),
            Some(kind) if self.counts_errors => Ok(Some(kind)),
            _ => Err(Fault::ErrorAnswer(error)),
        }
    }

    /// Checks what there is of the answer to `request`, which ends at `end`, with a tolerance; `piece` is the last of it.
    fn check_near(&mut self, request: u64, end: u64, piece: &[u8]) -> Result<(), Mismatch> {
        let is_whole = self.place + piece.len() as u64 == end;
        let checked = if self.partial.is_empty() && is_whole {
            self.requests.check_near(request, piece)
        } else {
            self.partial.extend_from_slice(piece);
            self.requests.check_near(request, &self.partial)
        };
        if is_whole {
            self.partial.clear();
        }
        checked.map_err(|fault| Mismatch { request, fault })
    }

    fn push_unscored(&mut self, request: u64, kind: Unscored) {
        match self.unscored.back_mut() {
            Some(last) if last.to == request && last.kind == kind => last.to += 1,
            _ => self.unscored.push_back(UnscoredRun { from: request, to: request + 1, kind }),
        }
    }

    /// Behind a request that the server did not take because it is closing, it takes none.
    #[cold]
    fn check_refusals(&mut self, received: &[u8]) -> Result<(), Mismatch> {
        let (refusals, rest) = received.as_chunks::<ERROR_ANSWER_BYTES>();
        let is_refusal = |answer: &[u8; ERROR_ANSWER_BYTES]| *answer == ErrorCode::Closing.answer();
        if !refusals.iter().all(is_refusal) || rest.first().is_some_and(|byte| *byte != 0) {
            return Err(Mismatch { request: self.next_request() + self.refused, fault: Fault::AfterClosing });
        }
        self.refused += refusals.len() as u64;
        self.error_begun = !rest.is_empty();
        if self.next_request() + self.refused > self.owed_request {
            return Err(Mismatch { request: self.owed_request, fault: Fault::Unasked(received.len()) });
        }
        Ok(())
    }

    fn check_end(&self, unasked: &[u8]) -> Result<(), Mismatch> {
        if unasked.is_empty() {
            return Ok(());
        }
        Err(Mismatch { request: self.owed_request, fault: Fault::Unasked(unasked.len()) })
    }

    /// Takes the answers from the one to `request` on that have the same outcome, before the one to `end`, up to which all
    /// are here: the request behind them, and the error if that is what they are.
    pub fn take_alike(&mut self, request: u64, end: u64) -> (u64, Option<Unscored>) {
        match self.unscored.front_mut() {
            None => (end, None),
            Some(run) if run.from > request => (end.min(run.from), None),
            Some(run) => {
                let (to, kind) = (end.min(run.to), run.kind);
                run.from = to;
                if run.from == run.to {
                    self.unscored.pop_front();
                }
                (to, Some(kind))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// Where the answers begin in each test, a little before the stream repeats.
    const FIRST: u64 = 4093;

    /// Checks `bytes` as they come in pieces, each in a buffer of its own.
    fn check(answers: &mut AnswerStream<'_>, pieces: &[&[u8]]) -> Result<(), Mismatch> {
        for piece in pieces {
            let mut buffer = [0xee; 4096];
            let begun_bytes = answers.begin(&mut buffer);
            let bytes = begun_bytes + piece.len();
            buffer[begun_bytes..bytes].copy_from_slice(piece);
            answers.check(&buffer[..bytes])?;
        }
        Ok(())
    }

    /// The outcomes of the answers that are here from the one to `FIRST` on.
    fn outcomes(answers: &mut AnswerStream<'_>) -> Vec<Option<Unscored>> {
        let (mut outcomes, end) = (Vec::new(), answers.next_request());
        let mut request = FIRST;
        while request < end {
            let (to, unscored) = answers.take_alike(request, end);
            assert!(to > request, "a group has at least one");
            outcomes.extend((request..to).map(|_| unscored));
            request = to;
        }
        outcomes
    }

    fn bytes_of(requests: &RequestStream, outcomes: &[Option<Unscored>]) -> Vec<u8> {
        let answers = (FIRST..).zip(outcomes).map(|(request, unscored)| match unscored {
            Some(kind) => kind.code().answer().to_vec(),
            None => requests.right_answer(request),
        });
        answers.collect::<Vec<_>>().concat()
    }

    /// The promise: errors among right answers, in whatever order and pieces they come, are told each in its place, and
    /// what comes behind them is still checked: one wrong bit is found, and laid to its request.
    #[test]
    fn errors_take_the_place_of_answers() {
        for (seed, tolerance) in (0..400).flat_map(|seed| [(seed, 0.0), (seed, 1e-3)]) {
            let mut random = Rng::with_seed(seed);
            let requests = RequestStream::of_sums(["1", "1..64"][seed as usize % 2], tolerance);
            let errors_of_ten = random.u8(0..=10);
            let expected: Vec<Option<Unscored>> = (0..random.usize(1..40))
                .map(|_| (random.u8(0..10) < errors_of_ten).then(|| Unscored::ALL[random.usize(0..2)]))
                .collect();
            let bytes = bytes_of(&requests, &expected);
            let piece_bytes_max = [1, 3, bytes.len()][random.usize(0..3)];
            let pieces = |random: &mut Rng, bytes: &[u8]| {
                let (mut pieces, mut rest) = (Vec::new(), bytes.to_vec());
                while !rest.is_empty() {
                    let behind = rest.split_off(random.usize(1..=piece_bytes_max).min(rest.len()));
                    pieces.push(std::mem::replace(&mut rest, behind));
                }
                pieces
            };
            let checked = |pieces: &[Vec<u8>]| {
                let mut answers = AnswerStream::new(&requests, FIRST, true);
                answers.owe_up_to(FIRST + expected.len() as u64);
                let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
                check(&mut answers, &pieces).map(|()| (answers.is_complete(), outcomes(&mut answers)))
            };
            let right = checked(&pieces(&mut random, &bytes)).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong:?}"));
            assert_eq!(right, (true, expected.clone()), "seed {seed}");

            // The last byte of a score of one of them.
            let Some(scored) = expected.iter().rposition(Option::is_none) else { continue };
            let end = bytes_of(&requests, &expected[..=scored]).len();
            let mut wrong = bytes.clone();
            wrong[end - 1] ^= 0x40;
            let found = checked(&pieces(&mut random, &wrong)).expect_err("a wrong score");
            assert_eq!(found.request, FIRST + scored as u64, "seed {seed}: {found:?}");
        }
    }

    /// The promise: errors that do not count, and codes that nobody knows, are what is wrong, with and without a tolerance;
    /// where they are not counted, no error is an answer; and no more is taken than was asked for.
    #[test]
    fn other_errors_are_no_answers() {
        for tolerance in [0.0, 1e-3] {
            let requests = RequestStream::of_sums("1", tolerance);
            let fault = |counts_errors: bool, pieces: &[&[u8]]| {
                let mut answers = AnswerStream::new(&requests, FIRST, counts_errors);
                answers.owe_up_to(FIRST + 2);
                check(&mut answers, pieces).expect_err("wrong")
            };
            let first = requests.right_answer(FIRST);
            let bad = fault(true, &[&first, &[0], &[1]]);
            assert!(matches!(bad.fault, Fault::ErrorAnswer(ErrorCode::BadVectorCount)), "{bad:?}");
            assert_eq!(bad.request, FIRST + 1);
            let unknown = fault(true, &[&[0, 77]]);
            assert!(matches!(unknown.fault, Fault::NotAnAnswer(BadAnswer::Code(77))), "{unknown:?}");
            let shed = fault(false, &[&[0, 3]]);
            assert!(matches!(shed.fault, Fault::ErrorAnswer(ErrorCode::Shed)), "{shed:?}");
            for unasked in [&[0, 3, 0, 3, 0, 3, 1][..], &[0, 3, 0, 3, 0][..]] {
                let found = fault(true, &[unasked]);
                assert_eq!(found.request, FIRST + 2);
                assert!(matches!(found.fault, Fault::Unasked(bytes) if bytes == unasked.len() - 4), "{found:?}");
            }
        }
    }

    /// The promise: behind an answer that says that the server is closing come only more of them, as many as are owed, and what
    /// was shed before them is not among them.
    #[test]
    fn refusals_come_last() {
        for tolerance in [0.0, 1e-3] {
            let requests = RequestStream::of_sums("1", tolerance);
            let owing = |owed: u64| {
                let mut answers = AnswerStream::new(&requests, FIRST, true);
                answers.owe_up_to(FIRST + owed);
                answers
            };
            let mut answers = owing(4);
            assert!(check(&mut answers, &[&[0, 3, 0], &[4, 0, 4, 0], &[4]]).is_ok());
            assert_eq!((answers.next_request(), answers.refused()), (FIRST + 1, 3));
            assert_eq!(outcomes(&mut answers), [Some(Unscored::Shed)]);
            let more = check(&mut owing(2), &[&[0, 4, 0, 4, 0, 4]]).expect_err("one too many");
            assert!(matches!(more.fault, Fault::Unasked(_)), "{more:?}");
            let other = check(&mut owing(4), &[&[0, 4, 0, 3]]).expect_err("it is closing");
            assert!(matches!(other.fault, Fault::AfterClosing), "{other:?}");
        }
    }
}
