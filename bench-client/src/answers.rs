//! Answers as a blocking connection brings them: read whole, checked against what is expected.
//!
//! It is for [`crate::smoke`] and [`crate::pipeline`]; the load engine never blocks and compares bytes.
//!
//! Invariants: an answer is taken once and in order; no byte of the stream is skipped.
#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read};
use std::time::Duration;

use disrust_protocol::{Answer, ErrorCode, read_answer};
use socket2::Socket;

use crate::failure::Fault;
use crate::rows::same_score;

/// Bytes that are received at once. It only has to hold the largest answer (257 bytes); larger: fewer system calls.
const BUFFER_BYTES: usize = 16 * 1024;

/// Whether `answer` carries the expected scores.
pub fn check_scores(answer: Answer<'_>, expected: &[f32]) -> Result<(), Fault> {
    let received = match answer {
        Answer::Error(code) => return Err(Fault::ErrorAnswer(code)),
        Answer::Scores(scores) => scores.iter(),
    };
    if received.len() != expected.len() {
        return Err(Fault::ScoreCount { expected: expected.len(), received: received.len() });
    }
    let mut pairs = expected.iter().copied().zip(received).enumerate();
    match pairs.find(|&(_, (expected, received))| !same_score(expected, received)) {
        None => Ok(()),
        Some((vector, (expected, received))) => Err(Fault::Score { vector, expected, received }),
    }
}

/// Whether `answer` is the expected error answer.
fn check_error(answer: Answer<'_>, expected: ErrorCode) -> Result<(), Fault> {
    match answer {
        Answer::Error(code) if code == expected => Ok(()),
        Answer::Error(code) => Err(Fault::ErrorAnswer(code)),
        Answer::Scores(scores) => Err(Fault::NoError { expected, received: scores.iter().len() }),
    }
}

/// The answers of one connection, in order.
pub struct AnswerReader<'a> {
    stream: &'a Socket,
    /// The stream's own read timeout, to tell how long was waited.
    timeout: Duration,
    buffer: Vec<u8>,
    /// `buffer[start..end]` has been received and not been taken.
    start: usize,
    end: usize,
}

impl<'a> AnswerReader<'a> {
    /// A reader of all that `stream` will still bring; its read timeout is `timeout`.
    pub fn new(stream: &'a Socket, timeout: Duration) -> AnswerReader<'a> {
        AnswerReader { stream, timeout, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 }
    }

    /// Takes the next answer, which must carry the expected scores.
    pub fn read_scores(&mut self, expected: &[f32]) -> Result<(), Fault> {
        self.read_with(|answer| check_scores(answer, expected))
    }

    /// Takes the next answer, which must be the expected error answer.
    pub fn read_error(&mut self, expected: ErrorCode) -> Result<(), Fault> {
        self.read_with(|answer| check_error(answer, expected))
    }

    /// Takes the end of the stream, which must come with nothing before it.
    pub fn read_end(&mut self) -> Result<(), Fault> {
        if self.start == self.end {
            match self.receive() {
                Ok(()) => {}
                Err(Fault::ClosedEarly(_)) => return Ok(()),
                Err(Fault::Stalled(timeout)) => return Err(Fault::NoEnd(timeout)),
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::Unasked(self.end - self.start))
    }

    fn read_with(&mut self, check: impl FnOnce(Answer<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        loop {
            if let Some((answer, bytes)) = read_answer(&self.buffer[self.start..self.end])? {
                let checked = check(answer);
                self.start += bytes;
                return checked;
            }
            self.receive()?;
        }
    }

    /// Receives at least one byte behind what is there.
    fn receive(&mut self) -> Result<(), Fault> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(Fault::ClosedEarly(self.end)),
                Ok(bytes) => {
                    self.end += bytes;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Fault::Stalled(self.timeout)),
                Err(error) => return Err(Fault::Receive(error)),
            }
        }
    }
}
