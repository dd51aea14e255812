//! Requests in, answers out, as pure computation: all that the reference servers have in common.
//!
//! It scores with the server's own model and protocol code, so that they differ from the server in input, output and
//! threads alone.
//!
//! Invariants: answers are appended in request order; behind a bad count's error answer comes nothing.

use disrust::model::{Model, Rows, Sum};
use disrust::protocol::{
    ErrorCode, MAX_VECTORS_PER_REQUEST, REQUEST_HEADER_BYTES, RequestLayout, answer_bytes, read_vector_count,
    write_answer,
};

/// What became of some received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes were whole requests and are answered; a request that is not whole may follow.
    Kept(usize),
    /// A bad count came. Everything before it and the count itself are answered; nothing behind it can be read.
    Lost,
}

/// The sum model and what it needs.
#[derive(Debug)]
pub struct Responder {
    layout: RequestLayout,
    model: Sum,
    scores: [f32; MAX_VECTORS_PER_REQUEST as usize],
}

impl Responder {
    /// A responder to requests of this layout.
    pub fn new(layout: RequestLayout) -> Responder {
        let model = Sum::new(layout.feature_dim());
        Responder { layout, model, scores: [0.0; MAX_VECTORS_PER_REQUEST as usize] }
    }

    /// Appends the answers to all whole requests at the front of `received` to `answers`.
    pub fn answer_all(&mut self, received: &[u8], answers: &mut Vec<u8>) -> Framing {
        let mut taken = 0;
        while let Some(header) = received[taken..].first_chunk::<REQUEST_HEADER_BYTES>() {
            let Ok(vectors) = read_vector_count(*header) else {
                answers.extend_from_slice(&ErrorCode::BadVectorCount.answer());
                return Framing::Lost;
            };
            let Some(request) = received[taken..].get(..self.layout.request_bytes(vectors)) else { break };
            self.answer(vectors, &request[REQUEST_HEADER_BYTES..], answers);
            taken += request.len();
        }
        Framing::Kept(taken)
    }

    fn answer(&mut self, vectors: u32, rows: &[u8], answers: &mut Vec<u8>) {
        let scores = &mut self.scores[..vectors as usize];
        match self.model.predict(&Rows::of_request(self.layout, rows), scores) {
            Ok(()) => {
                let start = answers.len();
                answers.resize(start + answer_bytes(vectors), 0);
                write_answer(scores, &mut answers[start..]);
            }
            Err(_) => answers.extend_from_slice(&ErrorCode::ModelFailed.answer()),
        }
    }
}

#[cfg(test)]
mod tests {
    use disrust::protocol::write_request;

    use super::*;

    const LAYOUT: RequestLayout = RequestLayout::new(2);

    /// The promise: whole requests are answered, and the bytes of one that is not whole are left.
    #[test]
    fn whole_requests_are_answered_and_the_rest_is_left() {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        write_request(LAYOUT, &[1.0, 2.0], &mut bytes);
        write_request(LAYOUT, &[3.0, 4.0, 5.0, 6.0], &mut bytes);
        expected.extend([&[1][..], &3.0_f32.to_le_bytes()].concat());
        expected.extend([&[2][..], &7.0_f32.to_le_bytes(), &11.0_f32.to_le_bytes()].concat());
        for end in 0..=bytes.len() {
            let (taken, answered) = match end {
                0..12 => (0, 0),
                12..32 => (12, 5),
                _ => (32, 14),
            };
            let mut answers = Vec::new();
            assert_eq!(Responder::new(LAYOUT).answer_all(&bytes[..end], &mut answers), Framing::Kept(taken), "{end}");
            assert_eq!(answers, expected[..answered]);
        }
    }

    /// The promise: a bad count is answered behind everything before it, and nothing is answered behind it.
    #[test]
    fn a_bad_count_ends_the_framing() {
        for count in [0_u32, 65, u32::MAX] {
            let (mut bytes, mut answers) = (Vec::new(), Vec::new());
            write_request(LAYOUT, &[1.0, 2.0], &mut bytes);
            bytes.extend(count.to_le_bytes());
            write_request(LAYOUT, &[1.0, 2.0], &mut bytes);
            assert_eq!(Responder::new(LAYOUT).answer_all(&bytes, &mut answers), Framing::Lost);
            assert_eq!(answers, [1, 0, 0, 0x40, 0x40, 0, 1]);
        }
    }
}
