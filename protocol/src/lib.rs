//! The wire format, as pure functions over bytes: what a request and an answer look like.
//!
//! It is not a parser with state (that is the server's `connections`), knows no socket, and depends on nothing.
//! Both ends use it: the server to find frames and write answers, the clients of this workspace to do the reverse.
//! All integers and floats are little-endian.
//!
//! ```text
//! request       [u32 num_vectors][f32 × num_vectors × feature_dim]     1 <= num_vectors <= 64
//! answer        [u8 num_vectors][f32 × num_vectors × outputs]          outputs is 1 unless the model is asked for all
//! error answer  [u8 0][u8 code]                                        in the place of the answer it replaces
//! ```
//!
//! A client may also say hello between two requests ([`HelloRequest`], [`ServerHello`]).
//!
//! Invariants: no valid answer starts with 0, so the first byte tells an answer from an error. Unless there are more outputs
//! than features, an answer is shorter than its request; else it is longer, always ([`RequestLayout::growth_bytes_max`]).
//! An error answer is shorter than any request and any answer.
#![forbid(unsafe_code)]

mod hello;

use std::error::Error;
use std::fmt;

pub use hello::{
    BadHelloAnswer, HELLO_ANSWER_BYTES_MAX, HELLO_ANSWER_CODE, HELLO_ANSWER_HEADER_BYTES, HELLO_MAGIC,
    HELLO_REQUEST_BYTES, HelloAnswer, HelloRequest, MODEL_NAME_BYTES_MAX, ServerHello, read_hello_answer,
};

/// The largest `num_vectors` of one request.
///
/// Larger: one request holds a batch for longer, and its answer's count must still fit in one byte (255).
/// Smaller: a caller who scores a whole page of candidates needs more requests for it.
pub const MAX_VECTORS_PER_REQUEST: u32 = 64;

/// Features in a vector, unless the model or `--features` says otherwise.
pub const FEATURE_DIM: usize = 16;

/// Bytes of a request before its features: `num_vectors`.
pub const REQUEST_HEADER_BYTES: usize = 4;

/// Bytes of an answer before its scores: `num_vectors`, or 0 for an error answer.
pub const ANSWER_HEADER_BYTES: usize = 1;

/// Bytes of an error answer: the 0 and the code.
pub const ERROR_ANSWER_BYTES: usize = 2;

/// Bytes of one feature or one score.
pub const F32_BYTES: usize = 4;

const _: () = assert!(MAX_VECTORS_PER_REQUEST <= u8::MAX as u32, "an answer's count is one byte");
const _: () = assert!(
    ERROR_ANSWER_BYTES <= REQUEST_HEADER_BYTES + F32_BYTES && ERROR_ANSWER_BYTES <= answer_bytes(1),
    "an error answer fits where the smallest request was, and where its answer would be"
);

/// Why a request was not answered with scores; the second byte of an error answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorCode {
    /// `num_vectors` is 0 or above [`MAX_VECTORS_PER_REQUEST`]. The framing is lost: the server sends the answers that
    /// it owes, then this, then closes.
    BadVectorCount = 1,
    /// The model failed on this request. The connection goes on.
    ModelFailed = 2,
    /// The server is overloaded and shed this request. The connection goes on. A server that was not told how long requests may
    /// wait never sends it: it holds peers back through TCP.
    Shed = 3,
    /// The server is closing and did not take this request.
    Closing = 4,
    /// A hello named another number of features than the server's model takes. Only a hello is answered with it: the server sends
    /// the answers that it owes, then this, then closes.
    WrongFeatureDim = 5,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ErrorCode::BadVectorCount => "bad num_vectors",
            ErrorCode::ModelFailed => "the model failed on this request",
            ErrorCode::Shed => "the server is overloaded and shed this request",
            ErrorCode::Closing => "the server is closing and did not take this request",
            ErrorCode::WrongFeatureDim => "the server's model takes another number of features",
        })
    }
}

impl Error for ErrorCode {}

impl ErrorCode {
    /// The two bytes of this error's answer.
    pub const fn answer(self) -> [u8; ERROR_ANSWER_BYTES] {
        [0, self as u8]
    }

    /// The error of a code byte, or `None` if the protocol knows no such code.
    pub const fn from_code(code: u8) -> Option<ErrorCode> {
        match code {
            1 => Some(ErrorCode::BadVectorCount),
            2 => Some(ErrorCode::ModelFailed),
            3 => Some(ErrorCode::Shed),
            4 => Some(ErrorCode::Closing),
            5 => Some(ErrorCode::WrongFeatureDim),
            _ => None,
        }
    }
}

/// Sizes of requests and of their answers, for one `feature_dim` and one number of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLayout {
    row_bytes: usize,
    outputs: usize,
}

impl RequestLayout {
    /// The layout of requests whose vectors have `feature_dim` features (>= 1), answered with one score each.
    pub const fn new(feature_dim: usize) -> RequestLayout {
        RequestLayout::with_outputs(feature_dim, 1)
    }

    /// The same, answered with `outputs` scores (>= 1) a vector.
    pub const fn with_outputs(feature_dim: usize, outputs: usize) -> RequestLayout {
        assert!(feature_dim >= 1, "a vector has at least one feature");
        assert!(outputs >= 1, "a vector has at least one score");
        RequestLayout { row_bytes: feature_dim * F32_BYTES, outputs }
    }

    /// Features in a vector.
    pub const fn feature_dim(self) -> usize {
        self.row_bytes / F32_BYTES
    }

    /// Scores for each vector.
    pub const fn outputs(self) -> usize {
        self.outputs
    }

    /// Bytes of one vector.
    pub const fn row_bytes(self) -> usize {
        self.row_bytes
    }

    /// Bytes of a whole request of `num_vectors` vectors.
    pub const fn request_bytes(self, num_vectors: u32) -> usize {
        REQUEST_HEADER_BYTES + num_vectors as usize * self.row_bytes
    }

    /// Vectors in `requests` whole requests of `request_bytes` bytes together.
    pub const fn rows_of(self, request_bytes: usize, requests: u32) -> usize {
        (request_bytes - requests as usize * REQUEST_HEADER_BYTES) / self.row_bytes
    }

    /// Bytes of the largest request.
    pub const fn request_bytes_max(self) -> usize {
        self.request_bytes(MAX_VECTORS_PER_REQUEST)
    }

    /// Bytes of the smallest request.
    pub const fn request_bytes_min(self) -> usize {
        self.request_bytes(1)
    }

    /// Bytes of the answers to `requests` requests of `rows` vectors together, if none of them is an error answer.
    pub const fn answer_bytes(self, requests: usize, rows: usize) -> usize {
        requests * ANSWER_HEADER_BYTES + rows * self.outputs * F32_BYTES
    }

    /// Bytes of the largest answer.
    pub const fn answer_bytes_max(self) -> usize {
        self.answer_bytes(1, MAX_VECTORS_PER_REQUEST as usize)
    }

    /// By how many bytes the answers to whole requests outgrow these at most, if the requests are `request_bytes` or fewer
    /// bytes together. 0 unless there are more outputs than features; then each answer outgrows its own request, so that
    /// the first of several answers never outgrow their requests by more than all of them together.
    pub const fn growth_bytes_max(self, request_bytes: usize) -> usize {
        let feature_dim = self.feature_dim();
        if self.outputs <= feature_dim || request_bytes < self.request_bytes_min() {
            return 0;
        }
        // A request of v vectors grows by v × (outputs - feature_dim) numbers, less what its header is longer: most in one
        // request, if it might be so long.
        let rows_max = (request_bytes - REQUEST_HEADER_BYTES) / self.row_bytes;
        rows_max * (self.outputs - feature_dim) * F32_BYTES - (REQUEST_HEADER_BYTES - ANSWER_HEADER_BYTES)
    }
}

/// Reads a request's header.
///
/// # Errors
/// The count as it was sent, if it is 0 or above [`MAX_VECTORS_PER_REQUEST`]: the framing is lost.
pub const fn read_vector_count(header: [u8; REQUEST_HEADER_BYTES]) -> Result<u32, BadVectorCount> {
    let count = u32::from_le_bytes(header);
    if 1 <= count && count <= MAX_VECTORS_PER_REQUEST { Ok(count) } else { Err(BadVectorCount { count }) }
}

/// A request's `num_vectors` is outside 1 to [`MAX_VECTORS_PER_REQUEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadVectorCount {
    /// The count as it was sent.
    pub count: u32,
}

impl fmt::Display for BadVectorCount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "num_vectors is {}, not in 1..={MAX_VECTORS_PER_REQUEST}", self.count)
    }
}

impl Error for BadVectorCount {}

/// Appends the request for `rows`, whole vectors one after the other.
///
/// # Panics
/// If `rows` is not a whole number of vectors between 1 and [`MAX_VECTORS_PER_REQUEST`].
pub fn write_request(layout: RequestLayout, rows: &[f32], out: &mut Vec<u8>) {
    assert!(rows.len().is_multiple_of(layout.feature_dim()), "whole vectors");
    let count = u32::try_from(rows.len() / layout.feature_dim()).expect("at most 64 vectors");
    assert!((1..=MAX_VECTORS_PER_REQUEST).contains(&count), "1 to 64 vectors");
    out.extend_from_slice(&count.to_le_bytes());
    out.extend(rows.iter().flat_map(|feature| feature.to_le_bytes()));
}

/// Bytes of the answer to a request of `num_vectors` vectors, of one score each.
pub const fn answer_bytes(num_vectors: u32) -> usize {
    ANSWER_HEADER_BYTES + num_vectors as usize * F32_BYTES
}

/// Writes the answer that carries `scores`, one for each vector, to the front of `out` and returns its length in bytes.
///
/// # Panics
/// If there are not 1 to [`MAX_VECTORS_PER_REQUEST`] scores, or `out` is shorter than the answer.
pub fn write_answer(scores: &[f32], out: &mut [u8]) -> usize {
    write_answer_of(1, scores, out)
}

/// As [`write_answer`], with `outputs` scores for each vector, vector by vector.
///
/// # Panics
/// If `scores` are not those of 1 to [`MAX_VECTORS_PER_REQUEST`] vectors, or `out` is shorter than the answer.
pub fn write_answer_of(outputs: usize, scores: &[f32], out: &mut [u8]) -> usize {
    let vectors = scores.len() / outputs;
    assert!((1..=MAX_VECTORS_PER_REQUEST as usize).contains(&vectors), "scores of 1 to 64 vectors");
    assert!(vectors * outputs == scores.len(), "each vector has all of its scores");
    let bytes = ANSWER_HEADER_BYTES + scores.len() * F32_BYTES;
    let (header, body) = out[..bytes].split_at_mut(ANSWER_HEADER_BYTES);
    header[0] = vectors as u8;
    for (place, score) in body.as_chunks_mut::<F32_BYTES>().0.iter_mut().zip(scores) {
        *place = score.to_le_bytes();
    }
    bytes
}

/// One answer, as a client reads it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer<'a> {
    /// The scores of each vector, in the request's order.
    Scores(Scores<'a>),
    /// The request was not answered with scores.
    Error(ErrorCode),
}

/// The scores of an answer, still as bytes: they lie unaligned behind a one-byte header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores<'a>(&'a [[u8; F32_BYTES]]);

impl<'a> Scores<'a> {
    /// The scores in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = f32> + 'a {
        self.0.iter().map(|score| f32::from_le_bytes(*score))
    }
}

/// An answer that this protocol does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAnswer {
    /// The first byte claims more scores than a request can ask for.
    Count(u8),
    /// An error answer with an unknown code.
    Code(u8),
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadAnswer::Count(count) => {
                write!(formatter, "an answer claims {count} scores, more than {MAX_VECTORS_PER_REQUEST}")
            }
            BadAnswer::Code(code) => write!(formatter, "an error answer carries the unknown code {code}"),
        }
    }
}

impl Error for BadAnswer {}

/// Reads the answer at the front of `bytes`, of one score a vector: the answer and its length in bytes, or `None` if more
/// bytes must arrive.
///
/// # Errors
/// The bytes are no answer of this protocol; nothing behind them can be read.
pub fn read_answer(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, BadAnswer> {
    read_answer_of(1, bytes)
}

/// As [`read_answer`], with `outputs` scores for each vector.
///
/// # Errors
/// As [`read_answer`].
pub fn read_answer_of(outputs: usize, bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, BadAnswer> {
    match *bytes {
        [] | [0] => Ok(None),
        [0, code, ..] => {
            let error = ErrorCode::from_code(code).ok_or(BadAnswer::Code(code))?;
            Ok(Some((Answer::Error(error), ERROR_ANSWER_BYTES)))
        }
        [count, ref rest @ ..] => {
            if u32::from(count) > MAX_VECTORS_PER_REQUEST {
                return Err(BadAnswer::Count(count));
            }
            let (scores, _) = rest.as_chunks::<F32_BYTES>();
            let scores = scores.get(..usize::from(count) * outputs);
            Ok(scores.map(|scores| (Answer::Scores(Scores(scores)), ANSWER_HEADER_BYTES + size_of_val(scores))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_request() {
        let mut bytes = Vec::new();
        write_request(RequestLayout::new(2), &[1.0, -2.5], &mut bytes);
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
    }

    #[test]
    fn golden_answer() {
        let mut bytes = [0xaa; 10];
        assert_eq!(write_answer(&[1.0, -2.5], &mut bytes), 9);
        assert_eq!(bytes, [2, 0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0, 0xaa]);
    }

    #[test]
    fn golden_error_answers() {
        assert_eq!(ErrorCode::BadVectorCount.answer(), [0, 1]);
        assert_eq!(ErrorCode::ModelFailed.answer(), [0, 2]);
        assert_eq!(ErrorCode::Shed.answer(), [0, 3]);
        assert_eq!(ErrorCode::Closing.answer(), [0, 4]);
        assert_eq!(ErrorCode::WrongFeatureDim.answer(), [0, 5]);
    }

    #[test]
    fn every_code_reads_back_and_no_other_does() {
        for code in 0..=u8::MAX {
            match ErrorCode::from_code(code) {
                Some(error) => assert_eq!(error.answer(), [0, code]),
                None => assert!(!(1..=5).contains(&code)),
            }
        }
    }

    #[test]
    fn only_counts_from_1_to_64_are_taken() {
        for count in [0, 65, 256, 1 << 16, 1 << 24, u32::MAX] {
            assert_eq!(read_vector_count(count.to_le_bytes()), Err(BadVectorCount { count }));
        }
        for count in 1..=64_u32 {
            assert_eq!(read_vector_count(count.to_le_bytes()), Ok(count));
        }
    }

    #[test]
    fn an_answer_is_shorter_than_its_request_unless_there_are_more_outputs_than_features() {
        for (feature_dim, outputs) in [(1, 1), (2, 1), (16, 1), (16, 16), (1000, 999), (1, 2), (5, 6), (16, 4096)] {
            let layout = RequestLayout::with_outputs(feature_dim, outputs);
            for count in 1..=MAX_VECTORS_PER_REQUEST {
                let (answer, request) = (layout.answer_bytes(1, count as usize), layout.request_bytes(count));
                assert_eq!(answer < request, outputs <= feature_dim, "{feature_dim} features, {outputs} outputs");
                assert_eq!(layout.growth_bytes_max(request), answer.saturating_sub(request));
            }
        }
    }

    /// The bound on growth holds however bytes are divided among requests, and is the growth of one request where that
    /// takes all bytes.
    #[test]
    fn answers_outgrow_their_requests_by_no_more_than_the_bound() {
        for (feature_dim, outputs) in [(1, 2), (1, 700), (3, 4), (8, 9), (5, 700)] {
            let layout = RequestLayout::with_outputs(feature_dim, outputs);
            for bytes in 0..layout.request_bytes(6) {
                let bound = layout.growth_bytes_max(bytes);
                for requests in 1..=6_usize {
                    let Some(row_bytes) = bytes.checked_sub(requests * REQUEST_HEADER_BYTES) else { break };
                    let rows = row_bytes / layout.row_bytes();
                    if rows >= requests {
                        let request_bytes = requests * REQUEST_HEADER_BYTES + rows * layout.row_bytes();
                        let growth = layout.answer_bytes(requests, rows).saturating_sub(request_bytes);
                        assert!(growth <= bound, "{rows} rows in {requests} requests");
                    }
                }
            }
        }
    }

    #[test]
    fn golden_answer_of_several_outputs() {
        let mut bytes = [0xaa; 18];
        assert_eq!(write_answer_of(2, &[1.0, -2.5, 0.0, 1.0], &mut bytes), 17);
        assert_eq!(bytes, [2, 0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0xaa]);
        for end in 0..17 {
            assert_eq!(read_answer_of(2, &bytes[..end]), Ok(None));
        }
        let Ok(Some((Answer::Scores(read), 17))) = read_answer_of(2, &bytes) else { panic!("a whole answer") };
        assert!(read.iter().eq([1.0, -2.5, 0.0, 1.0]));
    }

    #[test]
    #[should_panic(expected = "all of its scores")]
    fn a_vector_without_all_of_its_scores_is_no_answer() {
        write_answer_of(2, &[1.0, 2.0, 3.0], &mut [0; 100]);
    }

    #[test]
    fn an_answer_reads_back_from_any_prefix_only_when_it_is_whole() {
        let scores = [1.5, f32::NEG_INFINITY, -0.0];
        let mut bytes = [0; 13];
        write_answer(&scores, &mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(read_answer(&bytes[..end]), Ok(None));
        }
        let Ok(Some((Answer::Scores(read), 13))) = read_answer(&bytes) else { panic!("a whole answer") };
        assert!(read.iter().map(f32::to_bits).eq(scores.iter().map(|score| score.to_bits())));
    }

    #[test]
    fn an_error_answer_reads_back() {
        assert_eq!(read_answer(&[0, 4, 9]), Ok(Some((Answer::Error(ErrorCode::Closing), 2))));
        assert_eq!(read_answer(&[0, 9]), Err(BadAnswer::Code(9)));
        assert_eq!(read_answer(&[65]), Err(BadAnswer::Count(65)));
    }
}
