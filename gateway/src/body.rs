//! A request's body: bounded in size, in time, and together with all others in memory.
#![forbid(unsafe_code)]

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use tokio::time::{Instant, timeout_at};

use crate::answers::{Failure, JSON_LENGTH};
use crate::memory::Reservation;

/// Where the JSON text of a request's body ends, if its head says so.
///
/// # Errors
/// The head says something else there, or that the body is compressed.
pub fn check_head(head: &HeaderMap) -> Result<Option<usize>, Failure> {
    let is_plain = |encoding: &hyper::header::HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !head.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is compressed (Content-Encoding), which is not supported: send it as it is",
        ));
    }
    let Some(length) = head.get(JSON_LENGTH) else { return Ok(None) };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
    let length = digits.and_then(|digits| digits.parse().ok());
    let wrong =
        || Failure::new(StatusCode::BAD_REQUEST, "the header Inference-Header-Content-Length is no number of bytes");
    length.map(Some).ok_or_else(wrong)
}

/// Receives all of a body.
///
/// # Errors
/// It is too large, too slow, or does not come to its end; or there is no memory for it.
pub async fn receive(
    mut body: Incoming,
    bytes_max: usize,
    deadline: Instant,
    memory: &mut Reservation,
) -> Result<Bytes, Failure> {
    let too_large = || {
        let why = format!("the body is larger than {bytes_max} bytes (--max-body); send fewer rows at once");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    let claimed = body.size_hint().lower();
    if claimed > bytes_max as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    let late = |_| Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time (--request-timeout)");
    while let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(late)? {
        let broken =
            |error| Failure::new(StatusCode::BAD_REQUEST, format!("the body does not come to its end: {error}"));
        let Ok(bytes) = frame.map_err(broken)?.into_data() else { continue };
        let length = whole.len() + first.as_ref().map_or(0, Bytes::len) + bytes.len();
        if length > bytes_max {
            return Err(too_large());
        }
        memory.set(length)?;
        match first.take() {
            // Most bodies come in one piece, which is not copied.
            None if whole.is_empty() => first = Some(bytes),
            begun => {
                if let Some(begun) = begun {
                    whole.reserve(begun.len() + bytes.len());
                    whole.extend_from_slice(&begun);
                }
                whole.extend_from_slice(&bytes);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}
