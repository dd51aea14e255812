//! The wire format, as pure functions over bytes: what a request and an answer look like.
//!
//! It is not a parser with state (that is the server's `connections`), knows no socket, and depends on nothing.
//! Both ends use it: the server to find frames and write answers, the clients of this workspace to do the reverse.
//! All integers and floats are little-endian.
//!
//! ```text
//! request       [u32 num_vectors][f32 × num_vectors × feature_dim]     1 <= num_vectors <= 64
//! answer        [u8 num_vectors][f32 × num_vectors]
//! error answer  [u8 0][u8 code]                                        in the place of the answer it replaces
//! ```
//!
//! Invariants: no valid answer starts with 0, so the first byte tells an answer from an error; an answer is always
//! shorter than the request that it answers, so answers can be written over the requests they come from.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;

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
    ERROR_ANSWER_BYTES <= REQUEST_HEADER_BYTES + F32_BYTES,
    "an error answer fits where the smallest request was"
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
    /// The server is overloaded and shed this request. The connection goes on. This server never sends it: it holds
    /// a peer back through TCP instead; the code is reserved for servers of the same protocol that shed.
    Shed = 3,
    /// The server is closing and did not take this request.
    Closing = 4,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ErrorCode::BadVectorCount => "bad num_vectors",
            ErrorCode::ModelFailed => "the model failed on this request",
            ErrorCode::Shed => "the server is overloaded and shed this request",
            ErrorCode::Closing => "the server is closing and did not take this request",
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
            _ => None,
        }
    }
}

/// Sizes of requests for one `feature_dim`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLayout {
    row_bytes: usize,
}

impl RequestLayout {
    /// The layout of requests whose vectors have `feature_dim` features (>= 1).
    pub const fn new(feature_dim: usize) -> RequestLayout {
        assert!(feature_dim >= 1, "a vector has at least one feature");
        RequestLayout { row_bytes: feature_dim * F32_BYTES }
    }

    /// Features in a vector.
    pub const fn feature_dim(self) -> usize {
        self.row_bytes / F32_BYTES
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

/// Bytes of the answer to a request of `num_vectors` vectors.
pub const fn answer_bytes(num_vectors: u32) -> usize {
    ANSWER_HEADER_BYTES + num_vectors as usize * F32_BYTES
}

/// Writes the answer that carries `scores` to the front of `out` and returns its length in bytes.
///
/// # Panics
/// If there are not 1 to [`MAX_VECTORS_PER_REQUEST`] scores, or `out` is shorter than the answer.
pub fn write_answer(scores: &[f32], out: &mut [u8]) -> usize {
    assert!((1..=MAX_VECTORS_PER_REQUEST as usize).contains(&scores.len()), "1 to 64 scores");
    let bytes = ANSWER_HEADER_BYTES + scores.len() * F32_BYTES;
    let (header, body) = out[..bytes].split_at_mut(ANSWER_HEADER_BYTES);
    header[0] = scores.len() as u8;
    for (place, score) in body.as_chunks_mut::<F32_BYTES>().0.iter_mut().zip(scores) {
        *place = score.to_le_bytes();
    }
    bytes
}

/// One answer, as a client reads it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer<'a> {
    /// One score a vector, in the request's order.
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

/// Reads the answer at the front of `bytes`: the answer and its length in bytes, or `None` if more bytes must arrive.
///
/// # Errors
/// The bytes are no answer of this protocol; nothing behind them can be read.
pub fn read_answer(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, BadAnswer> {
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
            let scores = scores.get(..usize::from(count));
            Ok(scores.map(|scores| (Answer::Scores(Scores(scores)), answer_bytes(u32::from(count)))))
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
    }

    #[test]
    fn every_code_reads_back_and_no_other_does() {
        for code in 0..=u8::MAX {
            match ErrorCode::from_code(code) {
                Some(error) => assert_eq!(error.answer(), [0, code]),
                None => assert!(!(1..=4).contains(&code)),
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
    fn an_answer_is_shorter_than_its_request() {
        for feature_dim in [1, 2, 16, 1000] {
            let layout = RequestLayout::new(feature_dim);
            for count in 1..=MAX_VECTORS_PER_REQUEST {
                assert!(answer_bytes(count) < layout.request_bytes(count));
            }
        }
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
