//! Requests, and the answers that they must get.

use std::ops::RangeInclusive;

use disrust_protocol::{ErrorCode, FEATURE_DIM, RequestLayout, answer_bytes, write_answer, write_request};

use super::truth;

/// A source of randomness whose seed is printed; the variable of that name replays it.
pub fn seeded() -> fastrand::Rng {
    let replayed = std::env::var("DISRUST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = replayed.unwrap_or_else(|| fastrand::u64(..));
    println!("DISRUST_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// An answer, as it comes or as it should come.
#[derive(Debug, Clone)]
pub enum Reply {
    Scores(Vec<f32>),
    Error(ErrorCode),
}

impl Reply {
    /// As it comes over the wire.
    pub fn wire_bytes(&self) -> Vec<u8> {
        match self {
            Reply::Scores(scores) => {
                let vectors = u32::try_from(scores.len()).expect("at most as many as a request has vectors");
                let mut bytes = vec![0; answer_bytes(vectors)];
                write_answer(scores, &mut bytes);
                bytes
            }
            Reply::Error(code) => code.answer().to_vec(),
        }
    }
}

/// Scores are equal if their bits are. Which NaN a sum of NaNs is, the processor decides.
impl PartialEq for Reply {
    fn eq(&self, other: &Reply) -> bool {
        match (self, other) {
            (Reply::Scores(ours), Reply::Scores(theirs)) => {
                let equal = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                ours.len() == theirs.len() && ours.iter().zip(theirs).all(equal)
            }
            (Reply::Error(ours), Reply::Error(theirs)) => ours == theirs,
            (Reply::Scores(_), Reply::Error(_)) | (Reply::Error(_), Reply::Scores(_)) => false,
        }
    }
}

/// A request and the answer that it must get.
#[derive(Debug, Clone)]
pub struct Request {
    pub bytes: Vec<u8>,
    pub reply: Reply,
}

impl Request {
    /// The request for these vectors, to be answered by the model that is served: see [`truth`].
    pub fn of(features: usize, rows: &[f32]) -> Request {
        Request::scored(features, rows, truth::scores(features, rows))
    }

    /// The request for these vectors, to be answered with these scores.
    pub fn scored(features: usize, rows: &[f32], scores: Vec<f32>) -> Request {
        let mut bytes = Vec::new();
        write_request(RequestLayout::new(features), rows, &mut bytes);
        Request { bytes, reply: Reply::Scores(scores) }
    }

    /// A request of `vectors` random vectors.
    pub fn random(rng: &mut fastrand::Rng, features: usize, vectors: usize) -> Request {
        Request::of(features, &random_rows(rng, features, vectors))
    }

    /// Bytes that begin no request, and what they are answered with.
    pub fn bad(bytes: &[u8]) -> Request {
        Request { bytes: bytes.to_vec(), reply: Reply::Error(ErrorCode::BadVectorCount) }
    }
}

/// `vectors` random vectors.
pub fn random_rows(rng: &mut fastrand::Rng, features: usize, vectors: usize) -> Vec<f32> {
    (0..features * vectors).map(|_| random_feature(rng)).collect()
}

/// Of magnitudes apart, so that a sum in another order, or of another vector, has other bits.
pub fn random_feature(rng: &mut fastrand::Rng) -> f32 {
    (rng.f32() - 0.5) * [1.0e-3, 1.0, 1.0e3, 1.0e6][rng.usize(..4)]
}

/// `count` requests of random sizes within `vectors`.
pub fn random_requests(rng: &mut fastrand::Rng, count: usize, vectors: RangeInclusive<usize>) -> Vec<Request> {
    (0..count)
        .map(|_| {
            let vectors = rng.usize(vectors.clone());
            Request::random(rng, FEATURE_DIM, vectors)
        })
        .collect()
}

/// The requests as one stream.
pub fn bytes_of(requests: &[Request]) -> Vec<u8> {
    requests.iter().flat_map(|request| request.bytes.iter().copied()).collect()
}
