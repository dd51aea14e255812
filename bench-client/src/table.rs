//! What `bench` sends and expects, encoded before it starts: the hot path copies no row and decodes no answer.
//!
//! The table is an endless, repeating stream of requests and the stream of their answers. A connection is a place in
//! it, so a burst of requests is one slice, and verifying the answers is comparing bytes. Rejected: encoding and
//! decoding each request, which costs the client several times what the server needs to answer it.
//!
//! Invariants: request `n` of the stream is request `n % cycle` of the table; a window of requests behind the cycle
//! repeats its beginning, so that every slice of up to a window lies in one piece, wherever it begins.

use disrust_protocol::{
    MAX_VECTORS_PER_REQUEST, RequestLayout, answer_bytes, read_answer, write_answer, write_request,
};
use fastrand::Rng;

use crate::answers::check_scores;
use crate::failure::Fault;
use crate::rows;

/// Bytes of requests before they repeat, about. Larger: the client's cache misses are measured too. Smaller: answers
/// that went to the wrong connection may be the right ones by chance.
const CYCLE_BYTES: usize = 256 * 1024;

/// The fewest requests before they repeat, however large they are; see [`CYCLE_BYTES`].
const CYCLE_REQUESTS_MIN: usize = 64;

const _: () = assert!(usize::BITS == 64, "places in the stream are u64 and index memory");

/// The encoded requests and their answers.
pub struct Table {
    /// Requests before they repeat.
    cycle: usize,
    vectors: usize,
    request_bytes: usize,
    answer_bytes: usize,
    requests: Vec<u8>,
    answers: Vec<u8>,
    /// Of one cycle; only read to tell what is wrong with an answer.
    scores: Vec<f32>,
}

/// An answer that is not the expected one.
pub struct Mismatch {
    /// The request in the stream.
    pub request: u64,
    /// What is wrong with its answer.
    pub fault: Fault,
}

impl Table {
    /// A table of requests of `vectors` random vectors, for connections with at most `window` requests under way.
    pub fn new(layout: RequestLayout, vectors: u32, window: u32, seed: u64) -> Table {
        let request_bytes = layout.request_bytes(vectors);
        let cycle = (CYCLE_BYTES / request_bytes).max(CYCLE_REQUESTS_MIN);
        let rows = rows::random_rows(layout, cycle * vectors as usize, &mut Rng::with_seed(seed));
        let scores = rows::scores(layout, &rows);
        let mut table = Table {
            cycle,
            vectors: vectors as usize,
            request_bytes,
            answer_bytes: answer_bytes(vectors),
            requests: Vec::new(),
            answers: Vec::new(),
            scores,
        };
        let row_floats = layout.feature_dim() * table.vectors;
        for request in (0..cycle).cycle().take(cycle + window as usize) {
            write_request(layout, &rows[request * row_floats..][..row_floats], &mut table.requests);
            let mut answer = [0; answer_bytes(MAX_VECTORS_PER_REQUEST)];
            let bytes = write_answer(table.scores_of(request), &mut answer);
            table.answers.extend_from_slice(&answer[..bytes]);
        }
        table
    }

    /// A place to begin for the connection `index`: neighbours begin far apart.
    pub fn first_request(&self, index: usize) -> u64 {
        (index * 37 % self.cycle) as u64
    }

    /// Bytes of every request.
    pub fn request_bytes(&self) -> u64 {
        self.request_bytes as u64
    }

    /// Bytes of every answer.
    pub fn answer_bytes(&self) -> u64 {
        self.answer_bytes as u64
    }

    /// Bytes `from..to` of the stream of requests, at most a window of requests.
    pub fn requests(&self, from: u64, to: u64) -> &[u8] {
        let start = from as usize % (self.cycle * self.request_bytes);
        &self.requests[start..][..(to - from) as usize]
    }

    /// Whether `received` is what the stream of answers has at byte `from`; at most a window of answers.
    pub fn check(&self, from: u64, received: &[u8]) -> Result<(), Mismatch> {
        let start = from as usize % (self.cycle * self.answer_bytes);
        let expected = &self.answers[start..][..received.len()];
        if expected == received { Ok(()) } else { Err(self.mismatch(from, start, received)) }
    }

    /// Finds the first wrong answer in `received`, which differs from `answers` at `start`, and what is wrong with it.
    #[cold]
    fn mismatch(&self, from: u64, start: usize, received: &[u8]) -> Mismatch {
        let same_bytes =
            self.answers[start..].iter().zip(received).take_while(|(expected, byte)| expected == byte).count();
        let wrong = start + same_bytes;
        let answer_start = wrong - wrong % self.answer_bytes;
        let answer: Vec<u8> =
            self.answers[answer_start..wrong].iter().chain(&received[same_bytes..]).copied().collect();
        let scores = self.scores_of(answer_start / self.answer_bytes % self.cycle);
        let not_whole =
            Fault::Byte { index: wrong - answer_start, expected: self.answers[wrong], received: received[same_bytes] };
        let fault = match read_answer(&answer) {
            Err(bad) => Fault::NotAnAnswer(bad),
            Ok(None) => not_whole,
            Ok(Some((answer, _))) => check_scores(answer, scores).err().unwrap_or(not_whole),
        };
        Mismatch { request: (from + same_bytes as u64) / self.answer_bytes(), fault }
    }

    fn scores_of(&self, request: usize) -> &[f32] {
        &self.scores[request * self.vectors..][..self.vectors]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: RequestLayout = RequestLayout::new(16);

    /// The promise: the stream repeats without a seam, and a window of it is one slice wherever it begins.
    #[test]
    fn the_streams_have_no_seam() {
        let table = Table::new(LAYOUT, 3, 5, 1);
        let (cycle, request, answer) = (table.cycle as u64, table.request_bytes(), table.answer_bytes());
        for first in 0..2 * cycle {
            let window = table.requests(first * request, (first + 5) * request);
            for (offset, bytes) in (0..).zip(window.chunks_exact(request as usize)) {
                let same = (first + offset) % cycle;
                assert_eq!(bytes, table.requests(same * request, (same + 1) * request));
            }
            let answers = table.answers[(first % cycle * answer) as usize..][..5 * answer as usize].to_vec();
            assert!(table.check(first * answer, &answers).is_ok());
            assert!(table.check(first * answer + 1, &answers[1..]).is_ok(), "from inside an answer");
        }
    }

    /// The promise: one wrong bit anywhere is found, and laid to the request that it answers.
    #[test]
    fn every_wrong_bit_is_found() {
        let table = Table::new(LAYOUT, 2, 4, 1);
        let (cycle, answer) = (table.cycle as u64, table.answer_bytes());
        let first = 3 * cycle - 2;
        let right = table.answers[((cycle - 2) * answer) as usize..][..4 * answer as usize].to_vec();
        for byte in 0..right.len() {
            for bit in 0..8 {
                let mut wrong = right.clone();
                wrong[byte] ^= 1 << bit;
                let found = table.check(first * answer, &wrong).err().map(|mismatch| mismatch.request);
                assert_eq!(found, Some(first + byte as u64 / answer));
            }
        }
    }

    fn fault(table: &Table, from: u64, received: &[u8]) -> Fault {
        match table.check(from, received) {
            Ok(()) => panic!("right"),
            Err(mismatch) => mismatch.fault,
        }
    }

    /// The promise: what is told is what the answer is, as far as it has come.
    #[test]
    fn a_wrong_answer_is_told_for_what_it_is() {
        let table = Table::new(LAYOUT, 1, 4, 1);
        let mut other_score = table.answers[..5].to_vec();
        other_score[1] ^= 1;
        assert!(matches!(fault(&table, 0, &other_score), Fault::Score { vector: 0, .. }));
        assert!(matches!(fault(&table, 0, &other_score[..2]), Fault::Byte { index: 1, .. }));
        assert!(matches!(fault(&table, 1, &other_score[1..]), Fault::Score { vector: 0, .. }), "begun earlier");
        assert!(matches!(fault(&table, 0, &[0, 3, 1]), Fault::ErrorAnswer(disrust_protocol::ErrorCode::Shed)));
        assert!(matches!(fault(&table, 0, &[0]), Fault::Byte { index: 0, expected: 1, received: 0 }));
        assert!(matches!(fault(&table, 0, &[200]), Fault::NotAnAnswer(_)));
        let two_scores = [2, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(fault(&table, 0, &two_scores), Fault::ScoreCount { expected: 1, received: 2 }));
    }
}
