//! What this crate writes and reads is what clients/vectors.json says, by which clients in other languages are tested, too.

use std::fs;
use std::path::Path;

use disrust_protocol::{
    Answer, ErrorCode, HELLO_ANSWER_BYTES_MAX, HELLO_ANSWER_CODE, HELLO_MAGIC, HELLO_REQUEST_BYTES, HelloAnswer,
    HelloRequest, MAX_VECTORS_PER_REQUEST, MODEL_NAME_BYTES_MAX, RequestLayout, ServerHello, read_answer_of,
    read_hello_answer, read_vector_count, write_answer_of, write_request,
};
use serde_json::Value;

fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/vectors.json");
    serde_json::from_str(&fs::read_to_string(path).expect("the vectors are there")).expect("they are JSON")
}

/// The entries of a part of the file; there are some.
fn entries<'a>(vectors: &'a Value, part: &str) -> &'a [Value] {
    let entries = vectors[part].as_array().expect("a list");
    assert!(!entries.is_empty(), "{part} is empty");
    entries
}

fn number<T: TryFrom<u64>>(entry: &Value, field: &str) -> T {
    let number = entry[field].as_u64().unwrap_or_else(|| panic!("{field} of {entry} is no number"));
    T::try_from(number).unwrap_or_else(|_| panic!("{field} of {entry} is too large"))
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap_or_else(|| panic!("{field} of {entry} is no text"))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).expect("a digit") as u8).collect();
    assert!(digits.len().is_multiple_of(2), "two digits a byte");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Features or scores, vector by vector, as one list.
fn numbers(vectors: &Value) -> Vec<f32> {
    let rows = vectors.as_array().expect("a list of vectors");
    rows.iter().flat_map(|row| row.as_array().expect("a list of numbers")).map(f32_of).collect()
}

fn f32_of(number: &Value) -> f32 {
    match number.as_str() {
        Some("NaN") => f32::NAN,
        Some("Infinity") => f32::INFINITY,
        Some("-Infinity") => f32::NEG_INFINITY,
        Some("-0.0") => -0.0,
        Some(other) => panic!("{other} is no number"),
        // Each is an f32 as it stands, so that rounding twice changes nothing.
        None => number.as_f64().expect("a number") as f32,
    }
}

fn bits(numbers: impl IntoIterator<Item = f32>) -> Vec<u32> {
    numbers.into_iter().map(f32::to_bits).collect()
}

fn answer_bytes(outputs: usize, scores: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; 1 + size_of_val(scores)];
    let written = write_answer_of(outputs, scores, &mut bytes);
    assert_eq!(written, bytes.len());
    bytes
}

fn hello_of(entry: &Value) -> ServerHello<'_> {
    ServerHello {
        feature_dim: number(entry, "feature_dim"),
        outputs: number(entry, "outputs"),
        max_vectors: number(entry, "max_vectors"),
        model_version: u64::from_str_radix(text(entry, "model_version"), 16).expect("16 digits"),
        model_name: text(entry, "model_name"),
    }
}

fn hello_bytes(hello: ServerHello<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    bytes
}

#[test]
fn constants() {
    let vectors = vectors();
    let constants = &vectors["constants"];
    assert_eq!(number::<u32>(constants, "max_vectors"), MAX_VECTORS_PER_REQUEST);
    assert_eq!(number::<u32>(constants, "hello_magic"), HELLO_MAGIC);
    assert_eq!(number::<u8>(constants, "hello_answer_code"), HELLO_ANSWER_CODE);
    assert_eq!(number::<usize>(constants, "hello_request_bytes"), HELLO_REQUEST_BYTES);
    assert_eq!(number::<usize>(constants, "hello_answer_bytes_max"), HELLO_ANSWER_BYTES_MAX);
    assert_eq!(number::<usize>(constants, "model_name_bytes_max"), MODEL_NAME_BYTES_MAX);
}

#[test]
fn requests() {
    for entry in entries(&vectors(), "requests") {
        let (layout, rows) = (RequestLayout::new(number(entry, "feature_dim")), numbers(&entry["rows"]));
        let mut written = Vec::new();
        write_request(layout, &rows, &mut written);
        assert_eq!(written, bytes(text(entry, "hex")), "{entry}");
        let count = read_vector_count(*written.first_chunk().expect("a header")).expect("a good count");
        assert_eq!(layout.request_bytes(count), written.len(), "{entry}");
    }
}

#[test]
fn answers() {
    for entry in entries(&vectors(), "answers") {
        let (outputs, scores) = (number(entry, "outputs"), numbers(&entry["scores"]));
        assert_eq!(scores.len(), outputs * number::<usize>(entry, "num_vectors"), "{entry}");
        let bytes = bytes(text(entry, "hex"));
        assert_eq!(answer_bytes(outputs, &scores), bytes, "{entry}");
        let Ok(Some((Answer::Scores(read), length))) = read_answer_of(outputs, &bytes) else {
            panic!("an answer: {entry}")
        };
        assert_eq!((bits(read.iter()), length), (bits(scores), bytes.len()), "{entry}");
    }
}

#[test]
fn errors() {
    let vectors = vectors();
    let entries = entries(&vectors, "errors");
    assert!(entries.iter().map(|entry| number::<u8>(entry, "code")).eq(1..=5));
    for entry in entries {
        let error = ErrorCode::from_code(number(entry, "code")).expect("a known code");
        assert_eq!(error.answer()[..], bytes(text(entry, "hex")), "{entry}");
        assert_eq!(error.to_string(), text(entry, "name"));
        assert_eq!(read_answer_of(1, &error.answer()), Ok(Some((Answer::Error(error), 2))));
        assert_eq!(read_hello_answer(&error.answer()), Ok(Some((HelloAnswer::Error(error), 2))));
    }
}

#[test]
fn hello_requests() {
    for entry in entries(&vectors(), "hello_requests") {
        let hello = HelloRequest { feature_dim: number(entry, "feature_dim") };
        assert_eq!(hello.to_bytes()[..], bytes(text(entry, "hex")), "{entry}");
        assert_eq!(HelloRequest::from_bytes(hello.to_bytes()), Some(hello), "{entry}");
    }
}

#[test]
fn hello_answers() {
    for entry in entries(&vectors(), "hello_answers") {
        let (hello, bytes) = (hello_of(entry), bytes(text(entry, "hex")));
        assert_eq!(hello_bytes(hello), bytes, "{entry}");
        assert_eq!(read_hello_answer(&bytes), Ok(Some((HelloAnswer::Server(hello), bytes.len()))), "{entry}");
    }
}

/// What is received means what is said of it, and whole messages were sent.
#[test]
fn conversations() {
    for entry in entries(&vectors(), "conversations") {
        let (received, meaning) = (entries(entry, "received"), entries(entry, "meaning"));
        assert_eq!(received.len(), meaning.len(), "{entry}");
        for (message, meaning) in received.iter().zip(meaning) {
            let expected = match text(meaning, "kind") {
                "answer" => answer_bytes(number(entry, "outputs"), &numbers(&meaning["scores"])),
                "error" => ErrorCode::from_code(number(meaning, "code")).expect("a known code").answer().to_vec(),
                "hello" => hello_bytes(hello_of(meaning)),
                kind => panic!("{kind} is no message"),
            };
            assert_eq!(bytes(message.as_str().expect("text")), expected, "{entry}");
        }
        // Only the last one that is answered may be no message at all.
        let layout = RequestLayout::new(number(entry, "feature_dim"));
        for message in &entries(entry, "sent")[..received.len() - 1] {
            let message = bytes(message.as_str().expect("text"));
            let is_hello = |bytes: &[u8]| bytes.try_into().is_ok_and(|bytes| HelloRequest::from_bytes(bytes).is_some());
            let is_request = || {
                let count = read_vector_count(*message.first_chunk().expect("a header"));
                count.is_ok_and(|count| layout.request_bytes(count) == message.len())
            };
            assert!(is_hello(&message) || is_request(), "{message:?} in {entry}");
        }
    }
}

/// Bytes of the message at the front, as far as it has come; an error in words.
fn read(kind: &str, entry: &Value, bytes: &[u8]) -> Result<Option<usize>, String> {
    let outputs = number(entry, "outputs");
    match kind {
        "answer" => match read_answer_of(outputs, bytes) {
            Ok(Some((Answer::Scores(scores), length))) => {
                let asked = entry["num_vectors"].as_u64().map(|vectors| vectors as usize * outputs);
                let is_asked = asked.is_none_or(|asked| scores.iter().len() == asked);
                if is_asked { Ok(Some(length)) } else { Err("another count than asked".to_owned()) }
            }
            Ok(read) => Ok(read.map(|(_, length)| length)),
            Err(bad) => Err(bad.to_string()),
        },
        "hello_answer" => match read_hello_answer(bytes) {
            Ok(read) => Ok(read.map(|(_, length)| length)),
            Err(bad) => Err(bad.to_string()),
        },
        "request" | "hello_request" => {
            let Some(header) = bytes.first_chunk() else { return Ok(None) };
            let message = match (read_vector_count(*header), kind) {
                (Ok(count), "request") => RequestLayout::new(number(entry, "feature_dim")).request_bytes(count),
                (Err(bad), "hello_request") if bad.count == HELLO_MAGIC => HELLO_REQUEST_BYTES,
                (outcome, _) => return Err(format!("{outcome:?}")),
            };
            Ok((bytes.len() >= message).then_some(message))
        }
        kind => panic!("{kind} is no message"),
    }
}

#[test]
fn truncations() {
    for entry in entries(&vectors(), "truncations") {
        let (kind, bytes) = (text(entry, "kind"), bytes(text(entry, "hex")));
        assert_eq!(text(entry, "prefixes"), "all");
        for end in 0..bytes.len() {
            assert_eq!(read(kind, entry, &bytes[..end]), Ok(None), "{end} bytes of {entry}");
        }
        assert_eq!(read(kind, entry, &bytes), Ok(Some(bytes.len())), "{entry}");
    }
}

#[test]
fn malformed() {
    for entry in entries(&vectors(), "malformed") {
        let (kind, bytes) = (text(entry, "kind"), bytes(text(entry, "hex")));
        let read = read(kind, entry, &bytes);
        assert!(read.is_err(), "{read:?} of {entry}");
    }
}

#[test]
fn splits() {
    let vectors = vectors();
    for entry in entries(&vectors, "splits") {
        let named = |conversation: &&Value| conversation["name"] == entry["conversation"];
        let conversation = entries(&vectors, "conversations").iter().find(named).expect("a conversation");
        let messages = entries(conversation, text(entry, "direction"));
        let stream: String = messages.iter().map(|message| message.as_str().expect("text")).collect();
        assert_eq!(stream, text(entry, "hex"), "{entry}");
        let at: Vec<u64> = entries(entry, "at").iter().map(|offset| offset.as_u64().expect("an offset")).collect();
        assert!(at.is_sorted_by(|a, b| a < b), "{entry}");
        assert!(at[0] > 0 && at[at.len() - 1] < stream.len() as u64 / 2, "{entry}");
    }
}
