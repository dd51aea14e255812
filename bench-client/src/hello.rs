//! `--hello`: what a connection says before its first request, and what it must be told.
//!
//! It knows no socket: who has one writes [`Hello::bytes`] first, and hands what comes to [`Hello::take`] until that is
//! complete. Whatever comes behind the answer is an answer to a request.
//!
//! Invariants: the server's model is of the shape that is sent and checked, one score a vector of `--features`, and takes requests
//! of as many vectors as are sent; or there is a fault.
#![forbid(unsafe_code)]

use disrust_protocol::{
    BadHelloAnswer, ErrorCode, HELLO_ANSWER_BYTES_MAX, HELLO_REQUEST_BYTES, HelloAnswer, HelloRequest,
    MAX_VECTORS_PER_REQUEST, ServerHello, read_hello_answer,
};
use thiserror::Error;

/// Why a connection goes no further than hello.
#[derive(Debug, Error)]
pub enum HelloFault {
    /// The server says no.
    #[error("error answer to hello: {0} (code {code}){advice}", code = *.0 as u8, advice = advice(*.0))]
    Error(ErrorCode),
    /// The bytes are no answer to it.
    #[error("not an answer to hello: {0}")]
    Bad(#[from] BadHelloAnswer),
    /// The server serves another model.
    #[error("the server says in its hello that {what} is {told}, and here it is {expected}")]
    Other {
        /// What is.
        what: &'static str,
        /// What the server says.
        told: u32,
        /// What would do.
        expected: u32,
    },
    /// The stream ended where the answer was owed.
    #[error("the server closed the connection, with {0} bytes of its answer to hello sent")]
    ClosedEarly(usize),
}

fn advice(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::BadVectorCount => "; it knows no hello: go without --hello",
        ErrorCode::WrongFeatureDim => "; say how many: --features",
        ErrorCode::ModelFailed | ErrorCode::Shed | ErrorCode::Closing => "",
    }
}

/// One connection's hello.
#[derive(Debug, Clone)]
pub struct Hello {
    features: u32,
    received: [u8; HELLO_ANSWER_BYTES_MAX],
    received_bytes: usize,
}

impl Hello {
    /// For vectors of so many features.
    pub fn new(features: u32) -> Hello {
        Hello { features, received: [0; HELLO_ANSWER_BYTES_MAX], received_bytes: 0 }
    }

    /// What is said.
    pub fn bytes(&self) -> [u8; HELLO_REQUEST_BYTES] {
        HelloRequest { feature_dim: self.features }.to_bytes()
    }

    /// Bytes of the answer that have come.
    pub fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    /// Takes of what has come what belongs to the answer: how many bytes that is, and whether the answer is complete.
    ///
    /// # Errors
    /// The answer is not what it must be.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), HelloFault> {
        let before = self.received_bytes;
        let more = bytes.len().min(HELLO_ANSWER_BYTES_MAX - before);
        self.received[before..before + more].copy_from_slice(&bytes[..more]);
        match read_hello_answer(&self.received[..before + more])? {
            None => {
                self.received_bytes += more;
                Ok((more, false))
            }
            Some((HelloAnswer::Error(error), _)) => Err(HelloFault::Error(error)),
            Some((HelloAnswer::Server(hello), length)) => {
                self.check(hello)?;
                self.received_bytes = length;
                Ok((length - before, true))
            }
        }
    }

    fn check(&self, hello: ServerHello<'_>) -> Result<(), HelloFault> {
        for (what, told, expected) in [
            ("the number of features", hello.feature_dim, self.features),
            ("the number of outputs", hello.outputs, 1),
            ("the most vectors of a request", hello.max_vectors, MAX_VECTORS_PER_REQUEST),
        ] {
            if told != expected {
                return Err(HelloFault::Other { what, told, expected });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: ServerHello<'_> =
        ServerHello { feature_dim: 16, outputs: 1, max_vectors: 64, model_version: 7, model_name: "sum" };

    fn answer(hello: ServerHello<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        bytes
    }

    #[test]
    fn an_answer_is_taken_in_any_pieces_and_nothing_behind_it_is() {
        let bytes = answer(HELLO);
        for cut in 0..bytes.len() {
            let mut hello = Hello::new(16);
            assert_eq!(hello.take(&bytes[..cut]).expect("a part"), (cut, false));
            let behind = [&bytes[cut..], &[1; 500]].concat();
            assert_eq!(hello.take(&behind).expect("the rest"), (bytes.len() - cut, true));
        }
    }

    #[test]
    fn another_model_is_a_fault() {
        let fault = |features, hello| Hello::new(features).take(&answer(hello)).expect_err("another model").to_string();
        assert!(fault(15, HELLO).contains("features is 16, and here it is 15"));
        assert!(fault(16, ServerHello { outputs: 3, ..HELLO }).contains("outputs is 3"));
        assert!(fault(16, ServerHello { max_vectors: 8, ..HELLO }).contains("vectors of a request is 8"));
    }

    #[test]
    fn a_refusal_says_what_to_try() {
        let fault = |bytes: &[u8]| Hello::new(16).take(bytes).expect_err("no hello").to_string();
        assert!(fault(&[0, 5]).contains("--features") && fault(&[0, 1]).contains("without --hello"));
        assert!(fault(&[0, 4]).contains("closing"));
        assert!(fault(&[1, 0, 0, 0, 0]).contains("1 scores"));
    }
}
