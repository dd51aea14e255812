//! Hello: how a client learns what the server's model takes and gives, before rows of another width are scored wrongly in
//! silence, and which model that is. A client says it or not, anywhere between two requests, as often as it likes.
//!
//! ```text
//! hello         [u32 "DSR1" = 0x31525344][u32 feature_dim, or 0 to ask]
//! hello answer  [u8 0][u8 128][u16 bytes that follow][u32 feature_dim][u32 outputs][u32 max_vectors][u64 model version]
//!               [UTF-8 model name, at most 255 bytes]
//! ```
//!
//! Invariants: a hello is no request, because its first four bytes are no `num_vectors`; its answer is no error answer,
//! because 128 is no [`ErrorCode`]. In place of its answer there may be an error answer: 5 if the feature_dim is another, 4 if
//! the server is closing, 1 from a server that knows no hello. The name is all that follows the numbers, so an answer with anything
//! behind the name cannot be told from a longer name, and there is none.

use std::error::Error;
use std::fmt;

use super::{ErrorCode, MAX_VECTORS_PER_REQUEST};

/// The first four bytes of a hello: "DSR1".
pub const HELLO_MAGIC: u32 = 0x3152_5344;

/// Bytes of a hello.
pub const HELLO_REQUEST_BYTES: usize = 8;

/// The second byte of the answer to a hello, where an error answer has its code.
pub const HELLO_ANSWER_CODE: u8 = 128;

/// The longest name of a model, in bytes.
///
/// Larger: an answer would be so much longer than the hello that asks for it. Smaller: names of models have to be cut.
pub const MODEL_NAME_BYTES_MAX: usize = 255;

/// Bytes of a hello's answer up to and including how many follow.
pub const HELLO_ANSWER_HEADER_BYTES: usize = 4;

/// Bytes of a hello's answer between its header and the name.
const NUMBERS_BYTES: usize = 20;

/// Bytes of the longest answer to a hello.
pub const HELLO_ANSWER_BYTES_MAX: usize = HELLO_ANSWER_HEADER_BYTES + NUMBERS_BYTES + MODEL_NAME_BYTES_MAX;

const _: () = assert!(HELLO_MAGIC > MAX_VECTORS_PER_REQUEST, "a hello is no request");
const _: () = assert!(ErrorCode::from_code(HELLO_ANSWER_CODE).is_none(), "an answer to a hello is no error answer");
const _: () = assert!(NUMBERS_BYTES + MODEL_NAME_BYTES_MAX <= u16::MAX as usize, "how many bytes follow is two bytes");

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloRequest {
    /// The features of each vector that it sends, or 0 if it only asks.
    pub feature_dim: u32,
}

impl HelloRequest {
    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; HELLO_REQUEST_BYTES] {
        (HELLO_MAGIC as u64 | (self.feature_dim as u64) << u32::BITS).to_le_bytes()
    }

    /// The hello of these bytes, or `None` if they do not begin with [`HELLO_MAGIC`].
    pub const fn from_bytes(bytes: [u8; HELLO_REQUEST_BYTES]) -> Option<HelloRequest> {
        let both = u64::from_le_bytes(bytes);
        let is_hello = both as u32 == HELLO_MAGIC;
        if is_hello { Some(HelloRequest { feature_dim: (both >> u32::BITS) as u32 }) } else { None }
    }

    /// Whether a server of so many features serves this client.
    pub const fn agrees_with(self, feature_dim: usize) -> bool {
        self.feature_dim == 0 || self.feature_dim as usize == feature_dim
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHello<'a> {
    /// Features in a vector: at least 1.
    pub feature_dim: u32,
    /// Scores for each vector: at least 1.
    pub outputs: u32,
    /// Vectors that one request may have: 1 to 255.
    pub max_vectors: u32,
    /// The model that scores the requests behind the hello, if no newer one does: the first 8 bytes of the SHA-256 of its
    /// file, the first one highest, or 0 for one that is no file.
    pub model_version: u64,
    /// At most [`MODEL_NAME_BYTES_MAX`] bytes.
    pub model_name: &'a str,
}

impl ServerHello<'_> {
    /// Appends the answer that says this.
    ///
    /// # Panics
    /// If the name is too long.
    pub fn write(&self, out: &mut Vec<u8>) {
        assert!(self.model_name.len() <= MODEL_NAME_BYTES_MAX, "a model's name has at most 255 bytes");
        out.extend_from_slice(&[0, HELLO_ANSWER_CODE]);
        out.extend_from_slice(&((NUMBERS_BYTES + self.model_name.len()) as u16).to_le_bytes());
        for number in [self.feature_dim, self.outputs, self.max_vectors] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.model_version.to_le_bytes());
        out.extend_from_slice(self.model_name.as_bytes());
    }
}

/// What stands in the place of the answer to a hello, as a client reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloAnswer<'a> {
    /// The server says what it is.
    Server(ServerHello<'a>),
    /// It does not: the feature_dim is another, it is closing, or it knows no hello.
    Error(ErrorCode),
}

/// No answer to a hello in this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHelloAnswer {
    /// It is an answer with scores, so many of them, which a hello does not ask for.
    Scores(u8),
    /// Neither a hello's answer nor a known error: the second byte.
    Code(u8),
    /// So many bytes are to follow as cannot.
    Length(u16),
    /// A number that cannot be: no feature, no output, or not 1 to 255 vectors a request.
    Number {
        /// Which one.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// The name is not UTF-8.
    Name,
}

impl fmt::Display for BadHelloAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadHelloAnswer::Scores(count) => write!(formatter, "hello is answered with {count} scores"),
            BadHelloAnswer::Code(code) => write!(formatter, "hello is answered with the unknown code {code}"),
            BadHelloAnswer::Length(bytes) => {
                let most = NUMBERS_BYTES + MODEL_NAME_BYTES_MAX;
                write!(formatter, "hello's answer claims {bytes} more bytes, not {NUMBERS_BYTES} to {most}")
            }
            BadHelloAnswer::Number { field, value } => write!(formatter, "hello's answer says that {field} is {value}"),
            BadHelloAnswer::Name => formatter.write_str("the model's name in hello's answer is not UTF-8"),
        }
    }
}

impl Error for BadHelloAnswer {}

/// Reads what stands at the front of `bytes` in the place of the answer to a hello: the answer and its length in bytes, or
/// `None` if more bytes must arrive.
///
/// # Errors
/// The bytes are no answer to a hello; nothing behind them can be read.
pub fn read_hello_answer(bytes: &[u8]) -> Result<Option<(HelloAnswer<'_>, usize)>, BadHelloAnswer> {
    match *bytes {
        [] | [0] => Ok(None),
        [0, HELLO_ANSWER_CODE, ref rest @ ..] => read_server_hello(rest),
        [0, code, ..] => {
            let error = ErrorCode::from_code(code).ok_or(BadHelloAnswer::Code(code))?;
            Ok(Some((HelloAnswer::Error(error), super::ERROR_ANSWER_BYTES)))
        }
        [count, ..] => Err(BadHelloAnswer::Scores(count)),
    }
}

/// The same from behind the code on.
fn read_server_hello(bytes: &[u8]) -> Result<Option<(HelloAnswer<'_>, usize)>, BadHelloAnswer> {
    let Some((length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = u16::from_le_bytes(*length);
    if !(NUMBERS_BYTES..=NUMBERS_BYTES + MODEL_NAME_BYTES_MAX).contains(&usize::from(length)) {
        return Err(BadHelloAnswer::Length(length));
    }
    let Some((numbers, name)) = rest.get(..usize::from(length)).and_then(<[u8]>::split_first_chunk) else {
        return Ok(None);
    };
    let numbers: &[u8; NUMBERS_BYTES] = numbers;
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| numbers[at + byte]));
    let (feature_dim, outputs, max_vectors) = (number(0), number(4), number(8));
    for (field, value, most) in
        [("feature_dim", feature_dim, u32::MAX), ("outputs", outputs, u32::MAX), ("max_vectors", max_vectors, 255)]
    {
        if !(1..=most).contains(&value) {
            return Err(BadHelloAnswer::Number { field, value });
        }
    }
    let model_version = u64::from_le_bytes(std::array::from_fn(|byte| numbers[12 + byte]));
    let model_name = str::from_utf8(name).map_err(|_| BadHelloAnswer::Name)?;
    let hello = ServerHello { feature_dim, outputs, max_vectors, model_version, model_name };
    Ok(Some((HelloAnswer::Server(hello), HELLO_ANSWER_HEADER_BYTES + usize::from(length))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: ServerHello<'_> = ServerHello {
        feature_dim: 16,
        outputs: 3,
        max_vectors: 64,
        model_version: 0x0123_4567_89ab_cdef,
        model_name: "é",
    };

    #[test]
    fn golden_hello() {
        assert_eq!(HelloRequest { feature_dim: 16 }.to_bytes(), *b"DSR1\x10\0\0\0");
        let mut bytes = Vec::new();
        HELLO.write(&mut bytes);
        let numbers = [16, 0, 0, 0, 3, 0, 0, 0, 64, 0, 0, 0, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01];
        assert_eq!(bytes, [&[0, 128, 22, 0][..], &numbers, "é".as_bytes()].concat());
    }

    #[test]
    fn a_hello_reads_back_and_a_request_is_none() {
        for feature_dim in [0, 1, 16, u32::MAX] {
            let hello = HelloRequest { feature_dim };
            assert_eq!(HelloRequest::from_bytes(hello.to_bytes()), Some(hello));
        }
        assert_eq!(HelloRequest::from_bytes(*b"DSR2\x10\0\0\0"), None);
        assert_eq!(HelloRequest::from_bytes([1, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn who_only_asks_agrees_with_any_server() {
        let agrees = |feature_dim| HelloRequest { feature_dim }.agrees_with(16);
        assert_eq!([0, 15, 16, 17, u32::MAX].map(agrees), [true, false, true, false, false]);
    }

    #[test]
    fn no_answer_is_read_from_a_part_of_it() {
        for name in ["", "sum", &"n".repeat(255)] {
            let hello = ServerHello { model_name: name, ..HELLO };
            let mut bytes = Vec::new();
            hello.write(&mut bytes);
            for end in 0..bytes.len() {
                assert_eq!(read_hello_answer(&bytes[..end]), Ok(None), "{end} bytes");
            }
            let length = bytes.len();
            assert!(length <= HELLO_ANSWER_BYTES_MAX);
            bytes.extend([1, 2, 3]);
            assert_eq!(read_hello_answer(&bytes), Ok(Some((HelloAnswer::Server(hello), length))));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_as_soon_as_it_is_seen() {
        assert_eq!(read_hello_answer(&[0, 5]), Ok(Some((HelloAnswer::Error(ErrorCode::WrongFeatureDim), 2))));
        assert_eq!(read_hello_answer(&[0, 6]), Err(BadHelloAnswer::Code(6)));
        assert_eq!(read_hello_answer(&[0, 0]), Err(BadHelloAnswer::Code(0)));
        assert_eq!(read_hello_answer(&[7]), Err(BadHelloAnswer::Scores(7)));
        for length in [0, 19, 276, u16::MAX] {
            let [low, high] = length.to_le_bytes();
            assert_eq!(read_hello_answer(&[0, 128, low, high]), Err(BadHelloAnswer::Length(length)));
        }
        for (number, value, field) in
            [(4, 0, "feature_dim"), (8, 0, "outputs"), (12, 0, "max_vectors"), (13, 1, "max_vectors")]
        {
            let mut bytes = Vec::new();
            HELLO.write(&mut bytes);
            bytes[number] = value;
            let refused = read_hello_answer(&bytes);
            assert!(
                matches!(refused, Err(BadHelloAnswer::Number { field: named, .. }) if named == field),
                "{refused:?}"
            );
        }
        let mut bytes = Vec::new();
        HELLO.write(&mut bytes);
        bytes[24] = 0xff;
        assert_eq!(read_hello_answer(&bytes), Err(BadHelloAnswer::Name));
    }

    proptest! {
        /// Whatever a server sends is an answer, a part of one or refused; and an answer says the same if more comes behind it.
        #[test]
        fn any_bytes_are_read_without_a_panic(
            start in prop_oneof![Just(vec![]), Just(vec![0, 128]), Just(vec![0, 128, 24, 0])],
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, rest].concat();
            let read = read_hello_answer(&bytes);
            if let Ok(Some((_, length))) = read {
                prop_assert!((2..=HELLO_ANSWER_BYTES_MAX).contains(&length));
                prop_assert_eq!(read_hello_answer(&bytes[..length]), read);
                prop_assert_eq!(read_hello_answer(&bytes[..length - 1]), Ok(None));
            }
        }
    }
}
