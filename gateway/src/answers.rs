//! What requests are answered with, as HTTP has it.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use bytes::Bytes;
use disrust_client::Error;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::codec::{BadRequest, EncodedAnswer, write_string};
use crate::memory::{NoMemory, Reservation};

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Where the JSON text of a body ends, if binary tensors follow it.
pub const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its status.
    pub status: StatusCode,
    /// Why, for whoever sent it.
    pub why: Cow<'static, str>,
    /// The methods that there are, if it is of another one.
    pub allowed: Option<&'static str>,
}

impl Failure {
    /// A failure of this status.
    pub fn new(status: StatusCode, why: impl Into<Cow<'static, str>>) -> Failure {
        Failure { status, why: why.into(), allowed: None }
    }

    /// The answer that tells of it.
    pub fn answer(&self) -> Answer {
        let mut body = Vec::with_capacity(16 + self.why.len());
        body.extend_from_slice(b"{\"error\":");
        write_string(&self.why, &mut body);
        body.push(b'}');
        let mut answer = json(self.status, body);
        if let Some(allowed) = self.allowed {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        answer
    }
}

impl From<BadRequest> for Failure {
    fn from(bad: BadRequest) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, bad.to_string())
    }
}

impl From<NoMemory> for Failure {
    fn from(none: NoMemory) -> Failure {
        match none {
            NoMemory::Now => Failure::new(
                StatusCode::TOO_MANY_REQUESTS,
                "the bodies of other requests take all the memory that there is for them (--body-memory); try again later",
            ),
            NoMemory::Ever => Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "this request and its answer take more memory than there is for all of them (--body-memory); send fewer rows at once",
            ),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match &error {
            Error::Shape { .. } | Error::WrongFeatures { .. } => StatusCode::BAD_REQUEST,
            Error::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Error::ModelFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Error::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            Error::Closing | Error::Lost { .. } | Error::NoServer { .. } => StatusCode::SERVICE_UNAVAILABLE,
            // A server that is none of ours, or has another model than it told of.
            _ => StatusCode::BAD_GATEWAY,
        };
        Failure::new(status, error.to_string())
    }
}

/// A JSON text. Clients of KServe compare its media type as a whole.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, JSON, body.into())
}

/// Text of another type.
pub fn text(media_type: &'static str, body: String) -> Answer {
    with_type(StatusCode::OK, HeaderValue::from_static(media_type), body.into())
}

/// Scores. The memory is given back when the body is sent.
pub fn scores(encoded: EncodedAnswer, memory: Reservation) -> Answer {
    struct Held(Vec<u8>, #[expect(dead_code, reason = "it gives the memory back when it is dropped")] Reservation);
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let EncodedAnswer { body, json_bytes } = encoded;
    let media_type = if json_bytes.is_some() { BINARY } else { JSON };
    let mut answer = with_type(StatusCode::OK, media_type, Bytes::from_owner(Held(body, memory)));
    if let Some(json_bytes) = json_bytes {
        answer.headers_mut().insert(JSON_LENGTH, HeaderValue::from(json_bytes));
    }
    answer
}

/// Tells the peer that no more requests are taken on its connection.
pub fn close_after(answer: &mut Answer) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

fn with_type(status: StatusCode, media_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, media_type);
    answer
}
