//! Requests in, answers out, as a pure function: all that the reference servers have in common.
//!
//! It sums by itself, in the sum model's order and with the same bits. Rejected: the server's own model for
//! each request, which sets out to score a whole batch: with it, the epoll floor took 155 instructions a request in user
//! space, and takes 79 now (callgrind, `bench 64 N --window 64`). A floor with that in it would not be one.
//!
//! Invariants: answers are appended in request order; behind a bad count's error answer comes nothing.
#![forbid(unsafe_code)]

use disrust_protocol::{ErrorCode, F32_BYTES, FEATURE_DIM, REQUEST_HEADER_BYTES, RequestLayout, read_vector_count};

/// What became of some received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes were whole requests and are answered; a request that is not whole may follow.
    Kept(usize),
    /// A bad count came. Everything before it and the count itself are answered; nothing behind it can be read.
    Lost,
}

/// Appends the answers to all whole requests at the front of `received` to `answers`.
pub fn answer_all(layout: RequestLayout, received: &[u8], answers: &mut Vec<u8>) -> Framing {
    let mut taken = 0;
    while let Some(header) = received[taken..].first_chunk::<REQUEST_HEADER_BYTES>() {
        let Ok(vectors) = read_vector_count(*header) else {
            answers.extend_from_slice(&ErrorCode::BadVectorCount.answer());
            return Framing::Lost;
        };
        let Some(request) = received[taken..].get(..layout.request_bytes(vectors)) else { break };
        // At most 64.
        answers.push(vectors as u8);
        append_scores(layout, &request[REQUEST_HEADER_BYTES..], answers);
        taken += request.len();
    }
    Framing::Kept(taken)
}

/// The usual width is known to the compiler, which unrolls it.
fn append_scores(layout: RequestLayout, rows: &[u8], answers: &mut Vec<u8>) {
    const ROW_BYTES: usize = FEATURE_DIM * F32_BYTES;
    if layout.row_bytes() == ROW_BYTES {
        rows.as_chunks::<ROW_BYTES>().0.iter().for_each(|row| append_score(row, answers));
    } else {
        rows.chunks_exact(layout.row_bytes()).for_each(|row| append_score(row, answers));
    }
}

#[inline(always)]
fn append_score(row: &[u8], answers: &mut Vec<u8>) {
    let features = row.as_chunks::<F32_BYTES>().0.iter().map(|feature| f32::from_le_bytes(*feature));
    // -0 is what changes no sum.
    answers.extend_from_slice(&features.fold(-0.0, |sum, feature| sum + feature).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use disrust_protocol::{Answer, read_answer, write_request};
    use fastrand::Rng;

    use super::*;
    use crate::rows;

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
            assert_eq!(answer_all(LAYOUT, &bytes[..end], &mut answers), Framing::Kept(taken), "{end}");
            assert_eq!(answers, expected[..answered]);
        }
    }

    /// The promise: the scores are the sum model's to the last bit, for the usual width and for others.
    #[test]
    fn scores_are_the_sum_models() {
        for feature_dim in [1, 2, 15, FEATURE_DIM, 17, 100] {
            let layout = RequestLayout::new(feature_dim);
            let random = rows::random_rows(layout, 50, &mut Rng::with_seed(5));
            for rows in [random, rows::special_rows(layout)] {
                let (mut bytes, mut answers) = (Vec::new(), Vec::new());
                write_request(layout, &rows, &mut bytes);
                assert_eq!(answer_all(layout, &bytes, &mut answers), Framing::Kept(bytes.len()));
                let Ok(Some((Answer::Scores(scores), _))) = read_answer(&answers) else { panic!("a whole answer") };
                let same = |(expected, score): (f32, f32)| rows::same_score(expected, score);
                assert!(rows::scores(layout, &rows).into_iter().zip(scores.iter()).all(same), "{feature_dim}");
            }
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
            assert_eq!(answer_all(LAYOUT, &bytes, &mut answers), Framing::Lost);
            assert_eq!(answers, [1, 0, 0, 0x40, 0x40, 0, 1]);
        }
    }
}
