//! What a run sends and expects, encoded before it starts: the hot path copies no row and decodes no answer.
//!
//! An endless, repeating stream of requests of mixed sizes, and the stream of their answers. A connection is a place in
//! it, so a burst of requests is one slice, and verifying exact answers is comparing bytes. With a tolerance answers
//! are decoded one by one, which costs a few nanoseconds a score.
//!
//! Invariants: request `n` is request `n % cycle`; places are counted in requests and bytes from the beginning of the
//! streams and never wrap; behind each cycle its beginning is repeated, so that a slice of up to [`SLICE_BYTES_MAX`]
//! lies in one piece, wherever it begins.

use disrust_protocol::{
    Answer, MAX_VECTORS_PER_REQUEST, RequestLayout, answer_bytes, read_answer, write_answer, write_request,
};
use fastrand::Rng;

use crate::answers::check_scores;
use crate::failure::Fault;
use crate::load::mix::VectorMix;
use crate::load::truth::{Tolerance, Truth, within};

/// The longest slice, and so the most bytes of one read or write.
///
/// Larger: out of the L2 cache. Smaller: more system calls for large windows.
pub const SLICE_BYTES_MAX: usize = 64 * 1024;

/// Requests before they repeat. Larger: memory and misses. Smaller: a mix of sizes is drawn less faithfully.
const CYCLE_REQUESTS: usize = 4096;

/// Bytes of requests before they repeat, at most, about; see [`CYCLE_REQUESTS`]. At least [`CYCLE_REQUESTS_MIN`].
const CYCLE_BYTES_MAX: usize = 512 * 1024;

/// The fewest requests before they repeat, however large they are.
const CYCLE_REQUESTS_MIN: usize = 64;

const _: () = assert!(usize::BITS == 64, "places in the streams are u64 and index memory");
const _: () = assert!(CYCLE_REQUESTS.is_power_of_two() && CYCLE_REQUESTS_MIN.is_power_of_two());

/// The encoded requests and answers of one cycle.
pub struct RequestStream {
    /// Of each request.
    vectors: Vec<u8>,
    requests: Encoded,
    answers: Encoded,
    /// Of one cycle.
    scores: Vec<f32>,
    /// Where the scores of each request begin.
    score_starts: Vec<usize>,
    tolerance: Tolerance,
}

/// Frames one after the other.
struct Encoded {
    bytes: Vec<u8>,
    /// Where each frame of the cycle begins.
    starts: Vec<usize>,
    cycle_bytes: usize,
}

/// An answer that is not the expected one.
#[derive(Debug)]
pub struct Mismatch {
    /// The request in the stream.
    pub request: u64,
    /// What is wrong with its answer.
    pub fault: Fault,
}

impl RequestStream {
    /// A stream of requests over the rows of `truth`, of as many vectors as `mix` draws.
    pub fn new(layout: RequestLayout, truth: &Truth, mix: &VectorMix, seed: u64) -> RequestStream {
        let mut random = Rng::with_seed(seed);
        let row_count = truth.scores.len();
        let row = |index: usize| &truth.rows[index % row_count * layout.feature_dim()..][..layout.feature_dim()];
        let cycle = cycle_requests(layout, mix);
        let mut stream = RequestStream {
            vectors: Vec::with_capacity(cycle),
            requests: Encoded::new(),
            answers: Encoded::new(),
            scores: Vec::new(),
            score_starts: Vec::with_capacity(cycle),
            tolerance: truth.tolerance,
        };
        let (mut next_row, mut request_rows) = (0, Vec::new());
        for _ in 0..cycle {
            let count = mix.draw(&mut random);
            let indices = next_row..next_row + count as usize;
            next_row = indices.end;
            request_rows.clear();
            request_rows.extend(indices.clone().flat_map(|index| row(index).iter().copied()));
            let scores: Vec<f32> = indices.map(|index| truth.scores[index % row_count]).collect();
            let mut answer = [0; answer_bytes(MAX_VECTORS_PER_REQUEST)];
            let bytes = write_answer(&scores, &mut answer);
            stream.vectors.push(count as u8);
            stream.requests.push_with(|frames| write_request(layout, &request_rows, frames));
            stream.answers.push_with(|frames| frames.extend_from_slice(&answer[..bytes]));
            stream.score_starts.push(stream.scores.len());
            stream.scores.extend_from_slice(&scores);
        }
        stream.requests.repeat_beginning();
        stream.answers.repeat_beginning();
        stream
    }

    /// A place to begin for the connection `index`: neighbours begin far apart.
    pub fn first_request(&self, index: usize) -> u64 {
        (index * 37 % self.vectors.len()) as u64
    }

    /// Vectors of the stream's request `request`.
    pub fn vectors(&self, request: u64) -> u64 {
        u64::from(self.vectors[self.in_cycle(request)])
    }

    /// The byte of the stream of requests at which `request` begins.
    pub fn request_start(&self, request: u64) -> u64 {
        self.requests.start(request)
    }

    /// The byte of the stream of answers at which the answer to `request` begins.
    pub fn answer_start(&self, request: u64) -> u64 {
        self.answers.start(request)
    }

    /// Bytes of the answer to `request`.
    pub fn answer_bytes(&self, request: u64) -> u64 {
        answer_bytes(u32::from(self.vectors[self.in_cycle(request)])) as u64
    }

    /// Bytes `from..to` of the stream of requests, or the first of them.
    pub fn requests(&self, from: u64, to: u64) -> &[u8] {
        self.requests.slice(from, ((to - from) as usize).min(SLICE_BYTES_MAX))
    }

    /// The request whose answer has the byte `place` of the stream of answers.
    pub fn request_at(&self, place: u64) -> u64 {
        let (cycle_bytes, cycle) = (self.answers.cycle_bytes as u64, self.vectors.len() as u64);
        let in_cycle = self.answers.starts.partition_point(|start| *start as u64 <= place % cycle_bytes) - 1;
        place / cycle_bytes * cycle + in_cycle as u64
    }

    /// Whether answers are compared by their bytes; if not, [`RequestStream::check_near`] is for them.
    pub fn is_exact(&self) -> bool {
        self.tolerance == 0.0
    }

    /// Whether `received`, at most [`SLICE_BYTES_MAX`], is what the stream of answers has from the byte `from` on.
    pub fn is_as_expected(&self, from: u64, received: &[u8]) -> bool {
        self.answers.slice(from, received.len()) == received
    }

    /// Checks as much of the answer to `request` as there is, with the tolerance: all of it, or too little to be more than a
    /// beginning.
    pub fn check_near(&self, request: u64, frame: &[u8]) -> Result<(), Fault> {
        let expected = self.scores_of(self.in_cycle(request));
        if let Some(&count) = frame.first().filter(|count| **count != 0 && usize::from(**count) != expected.len()) {
            read_answer(&[count])?;
            return Err(Fault::ScoreCount { expected: expected.len(), received: usize::from(count) });
        }
        let Some((answer, _)) = read_answer(frame)? else { return Ok(()) };
        let scores = match answer {
            Answer::Error(code) => return Err(Fault::ErrorAnswer(code)),
            Answer::Scores(scores) => scores.iter(),
        };
        let mut pairs = expected.iter().copied().zip(scores).enumerate();
        match pairs.find(|&(_, (expected, received))| !within(expected, received, self.tolerance)) {
            None => Ok(()),
            Some((vector, (expected, received))) => Err(Fault::FarScore { vector, expected, received }),
        }
    }

    /// Finds the first wrong answer in `received`, which differs from the answers at `from` and is at most
    /// [`SLICE_BYTES_MAX`], and what is wrong with it.
    #[cold]
    pub fn mismatch(&self, from: u64, received: &[u8]) -> Mismatch {
        let expected = self.answers.slice(from, received.len());
        let same_bytes = expected.iter().zip(received).take_while(|(expected, byte)| expected == byte).count();
        let wrong = from + same_bytes as u64;
        let wrong_in_cycle = (wrong % self.answers.cycle_bytes as u64) as usize;
        let request = self.request_at(wrong);
        let in_cycle = self.in_cycle(request);
        let answer_start = self.answers.starts[in_cycle];
        let answer: Vec<u8> =
            self.answers.bytes[answer_start..wrong_in_cycle].iter().chain(&received[same_bytes..]).copied().collect();
        let not_whole = Fault::Byte {
            index: wrong_in_cycle - answer_start,
            expected: expected[same_bytes],
            received: received[same_bytes],
        };
        let fault = match read_answer(&answer) {
            Err(bad) => Fault::NotAnAnswer(bad),
            Ok(None) => not_whole,
            Ok(Some((answer, _))) => check_scores(answer, self.scores_of(in_cycle)).err().unwrap_or(not_whole),
        };
        Mismatch { request, fault }
    }

    fn scores_of(&self, in_cycle: usize) -> &[f32] {
        &self.scores[self.score_starts[in_cycle]..][..usize::from(self.vectors[in_cycle])]
    }

    /// The cycle is a power of two.
    fn in_cycle(&self, request: u64) -> usize {
        request as usize & (self.vectors.len() - 1)
    }
}

fn cycle_requests(layout: RequestLayout, mix: &VectorMix) -> usize {
    let largest = layout.request_bytes(mix.fixed().unwrap_or(MAX_VECTORS_PER_REQUEST));
    let fitting = (CYCLE_BYTES_MAX / largest).max(CYCLE_REQUESTS_MIN);
    // The power of two that is not above.
    CYCLE_REQUESTS.min(1 << fitting.ilog2())
}

impl Encoded {
    fn new() -> Encoded {
        Encoded { bytes: Vec::new(), starts: Vec::new(), cycle_bytes: 0 }
    }

    fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.starts.push(self.bytes.len());
        write(&mut self.bytes);
        self.cycle_bytes = self.bytes.len();
    }

    fn repeat_beginning(&mut self) {
        self.bytes.reserve_exact(SLICE_BYTES_MAX);
        for index in 0..SLICE_BYTES_MAX {
            self.bytes.push(self.bytes[index % self.cycle_bytes]);
        }
    }

    fn start(&self, frame: u64) -> u64 {
        let cycle = self.starts.len() as u64;
        frame / cycle * self.cycle_bytes as u64 + self.starts[(frame % cycle) as usize] as u64
    }

    fn slice(&self, from: u64, bytes: usize) -> &[u8] {
        &self.bytes[from as usize % self.cycle_bytes..][..bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::truth::Expectation;

    const LAYOUT: RequestLayout = RequestLayout::new(16);

    fn stream(mix: &str) -> RequestStream {
        let truth = Truth::load(&Expectation::Sum, LAYOUT, 1).expect("the sum model needs no file");
        RequestStream::new(LAYOUT, &truth, &mix.parse().expect("a mix"), 1)
    }

    fn answers(stream: &RequestStream, from: u64, count: u64) -> Vec<u8> {
        let bytes = stream.answer_start(from + count) - stream.answer_start(from);
        stream.answers.slice(stream.answer_start(from), bytes as usize).to_vec()
    }

    /// The promise: the stream repeats without a seam, and places in it are where its frames begin.
    #[test]
    fn the_streams_have_no_seam() {
        for mix in ["1", "1..64"] {
            let stream = stream(mix);
            let cycle = stream.vectors.len() as u64;
            for first in [0, 1, cycle - 3, cycle - 1, cycle, 5 * cycle - 2] {
                let mut request = first;
                let mut bytes = stream.requests(stream.request_start(first), stream.request_start(first + 5));
                while let Some(header) = bytes.first_chunk() {
                    assert_eq!(u64::from(u32::from_le_bytes(*header)), stream.vectors(request));
                    bytes = &bytes[LAYOUT.request_bytes(u32::from_le_bytes(*header))..];
                    request += 1;
                }
                assert_eq!(request, first + 5);
                let right = answers(&stream, first, 5);
                assert!(stream.is_as_expected(stream.answer_start(first), &right));
                assert!(stream.is_as_expected(stream.answer_start(first) + 1, &right[1..]), "inside an answer");
                for request in first..first + 5 {
                    let (start, end) = (stream.answer_start(request), stream.answer_start(request + 1));
                    assert_eq!((stream.request_at(start), stream.request_at(end - 1)), (request, request));
                }
            }
        }
    }

    /// The promise: one wrong bit anywhere is found, and laid to the request that it answers.
    #[test]
    fn every_wrong_bit_is_found() {
        let stream = stream("1..5");
        let first = 3 * stream.vectors.len() as u64 - 2;
        let right = answers(&stream, first, 4);
        for byte in 0..right.len() {
            let at = stream.answer_start(first) + byte as u64;
            let request = (first..).find(|request| stream.answer_start(request + 1) > at);
            for bit in 0..8 {
                let mut wrong = right.clone();
                wrong[byte] ^= 1 << bit;
                assert!(!stream.is_as_expected(stream.answer_start(first), &wrong));
                assert_eq!(Some(stream.mismatch(stream.answer_start(first), &wrong).request), request);
            }
        }
    }

    /// The promise: what is told is what the answer is, as far as it has come.
    #[test]
    fn a_wrong_answer_is_told_for_what_it_is() {
        let stream = stream("1");
        let fault = |from: u64, received: &[u8]| stream.mismatch(from, received).fault;
        let mut other_score = answers(&stream, 0, 1);
        other_score[1] ^= 1;
        assert!(matches!(fault(0, &other_score), Fault::Score { vector: 0, .. }));
        assert!(matches!(fault(0, &other_score[..2]), Fault::Byte { index: 1, .. }));
        assert!(matches!(fault(1, &other_score[1..]), Fault::Score { vector: 0, .. }), "begun earlier");
        assert!(matches!(fault(0, &[200]), Fault::NotAnAnswer(_)));
        let two_scores = [2, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(fault(0, &two_scores), Fault::ScoreCount { expected: 1, received: 2 }));
    }

    /// The promise: with a tolerance an answer passes if it is near, and only then, and its beginning does as soon as it is wrong.
    #[test]
    fn near_answers_pass() {
        let mut stream = stream("1..3");
        stream.tolerance = 1e-3;
        for request in 0..6 {
            let right = answers(&stream, request, 1);
            assert!((1..=right.len()).all(|bytes| stream.check_near(request, &right[..bytes]).is_ok()));
            let mut near = right.clone();
            near[1] ^= 1;
            assert!(stream.check_near(request, &near).is_ok(), "one bit off");
            let mut far = right.clone();
            far[4] ^= 0x1f;
            assert!(matches!(stream.check_near(request, &far), Err(Fault::FarScore { vector: 0, .. })));
            let other_count = [right[0] + 1];
            assert!(matches!(stream.check_near(request, &other_count), Err(Fault::ScoreCount { .. })));
        }
    }

    impl RequestStream {
        /// For the tests of what reads it.
        pub fn of_sums(mix: &str, tolerance: Tolerance) -> RequestStream {
            RequestStream { tolerance, ..stream(mix) }
        }

        /// The answer to `request`.
        pub fn right_answer(&self, request: u64) -> Vec<u8> {
            answers(self, request, 1)
        }
    }
}
