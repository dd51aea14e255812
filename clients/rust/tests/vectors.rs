//! The client keeps to clients/vectors.json, by which clients in other languages are tested, too: the server's side of it is
//! played by a stub, in whatever pieces.

mod stub;

use std::path::Path;
use std::sync::mpsc::channel;

use disrust_client::{Client, Error, ModelInfo};
use serde_json::Value;

use stub::{PATIENCE, Peer, Stub};

fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the vectors are there")).expect("they are JSON")
}

/// The entries of a part of the file; there are some.
fn entries<'a>(vectors: &'a Value, part: &str) -> &'a [Value] {
    let entries = vectors[part].as_array().expect("a list");
    assert!(!entries.is_empty(), "{part} is empty");
    entries
}

fn number(entry: &Value, field: &str) -> usize {
    entry[field].as_u64().unwrap_or_else(|| panic!("{field} of {entry} is no number")) as usize
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap_or_else(|| panic!("{field} of {entry} is no text"))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).expect("a digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Features or scores, vector by vector, as one list.
fn numbers(vectors: &Value) -> Vec<f32> {
    let f32_of = |number: &Value| match number.as_str() {
        Some("NaN") => f32::NAN,
        Some("Infinity") => f32::INFINITY,
        Some("-Infinity") => f32::NEG_INFINITY,
        Some("-0.0") => -0.0,
        Some(other) => panic!("{other} is no number"),
        // Each is an f32 as it stands, so that rounding twice changes nothing.
        None => number.as_f64().expect("a number") as f32,
    };
    let rows = vectors.as_array().expect("a list of vectors");
    rows.iter().flat_map(|row| row.as_array().expect("a list of numbers")).map(f32_of).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

fn is_model(model: &ModelInfo, entry: &Value) -> bool {
    model.name == text(entry, "model_name")
        && format!("{:016x}", model.version) == text(entry, "model_version")
        && (model.feature_dim, model.outputs) == (number(entry, "feature_dim"), number(entry, "outputs"))
        && model.max_vectors == number(entry, "max_vectors")
}

/// A server whose connections begin with a right hello, and then go on like this.
fn after_hello(features: usize, outputs: usize, play: impl Fn(&mut Peer) + Send + Sync + 'static) -> Stub {
    Stub::start(move |mut peer, _| {
        peer.receive_bytes(features);
        peer.send_hello(features, outputs as u32);
        play(&mut peer);
        peer.end();
    })
}

async fn connect(stub: &Stub) -> Client {
    Client::builder([stub.address()]).timeout(PATIENCE).retries(0).connect().await.expect("the stub listens")
}

/// Rows of zeros are answered with these bytes, one by one; what the call comes to.
async fn answered(outputs: usize, rows: usize, answer: Vec<u8>) -> Result<Vec<f32>, Error> {
    let stub = after_hello(1, outputs, move |peer| {
        peer.receive_bytes(1);
        peer.send_slowly(&answer);
    });
    connect(&stub).await.predict(&vec![0.0; rows], 1).await.map(|scores| scores.values)
}

#[tokio::test]
async fn requests() {
    for entry in entries(&vectors(), "requests") {
        let features = number(entry, "feature_dim");
        let (sender, received) = channel();
        let stub = after_hello(features, 1, move |peer| {
            sender.send(peer.receive_bytes(features)).expect("the test listens");
        });
        let lost = connect(&stub).await.predict(&numbers(&entry["rows"]), features).await;
        assert!(matches!(lost, Err(Error::Lost { .. })), "{entry}: {lost:?}");
        let request = received.recv_timeout(PATIENCE).expect("it was sent");
        assert_eq!(request, Some(bytes(text(entry, "hex"))), "{entry}");
    }
}

#[tokio::test]
async fn answers() {
    for entry in entries(&vectors(), "answers") {
        let (outputs, rows) = (number(entry, "outputs"), number(entry, "num_vectors"));
        let scores = answered(outputs, rows, bytes(text(entry, "hex"))).await.expect("scores");
        assert_eq!(bits(&scores), bits(&numbers(&entry["scores"])), "{entry}");
    }
}

#[tokio::test]
async fn errors() {
    for entry in entries(&vectors(), "errors") {
        let error = answered(1, 1, bytes(text(entry, "hex"))).await.expect_err("no scores");
        expect_error(number(entry, "code"), &error);
        assert_eq!(error.is_retried(), text(entry, "retry") == "elsewhere", "{entry}");
    }
}

/// What a code in the place of scores, or of a hello that only asks, comes to.
fn expect_error(code: usize, error: &Error) {
    let is_right = match code {
        1 => matches!(error, Error::Unreadable { .. } | Error::Protocol { .. }),
        2 => *error == Error::ModelFailed,
        3 => *error == Error::Overloaded,
        4 => *error == Error::Closing,
        // Nobody has said a number that could be wrong.
        5 => matches!(error, Error::Protocol { .. }),
        _ => false,
    };
    assert!(is_right, "{code}: {error:?}");
}

#[tokio::test]
async fn hello_answers() {
    for entry in entries(&vectors(), "hello_answers") {
        let hello = bytes(text(entry, "hex"));
        let stub = Stub::start(move |mut peer, _| {
            assert_eq!(peer.receive_bytes(1), Some(b"DSR1\0\0\0\0".to_vec()));
            peer.send_slowly(&hello);
            peer.receive_bytes(1);
        });
        let model = connect(&stub).await.model().expect("it has said hello");
        assert!(is_model(&model, entry), "{model:?} is not {entry}");
    }
}

/// What a decoder must refuse is refused, without waiting for more.
#[tokio::test]
async fn malformed() {
    for entry in entries(&vectors(), "malformed") {
        let wrong = bytes(text(entry, "hex"));
        match text(entry, "kind") {
            "answer" => {
                let rows = entry["num_vectors"].as_u64().unwrap_or(1) as usize;
                let outputs = number(entry, "outputs");
                let stub = after_hello(1, outputs, move |peer| {
                    peer.receive_bytes(1);
                    peer.send(&wrong);
                    // The end of the stream does not come to the client's help.
                    peer.receive_bytes(1);
                });
                let violation = connect(&stub).await.predict(&vec![0.0; rows], 1).await;
                assert!(matches!(violation, Err(Error::Protocol { .. })), "{entry}: {violation:?}");
            }
            "hello_answer" => {
                let stub = Stub::start(move |mut peer, _| {
                    peer.receive_bytes(1);
                    peer.send(&wrong);
                    peer.receive_bytes(1);
                });
                let refused = Client::builder([stub.address()]).connect_timeout(PATIENCE).connect().await;
                let Err(Error::NoServer { reasons }) = refused else { panic!("{entry}: {refused:?}") };
                assert!(reasons.contains("does not speak the protocol"), "{entry}: {reasons}");
            }
            "request" => {}
            kind => panic!("the kind {kind} is new"),
        }
    }
}

/// Every prefix is a beginning: waited for, and no error of the server until the stream ends.
#[tokio::test]
async fn truncations() {
    for entry in entries(&vectors(), "truncations") {
        let whole = bytes(text(entry, "hex"));
        for end in 0..whole.len() {
            let part = whole[..end].to_vec();
            match text(entry, "kind") {
                "answer" => {
                    let (rows, outputs) = (usize::from(whole[0].max(1)), number(entry, "outputs"));
                    let lost = answered(outputs, rows, part).await;
                    assert!(matches!(lost, Err(Error::Lost { .. })), "{end} bytes of {entry}: {lost:?}");
                }
                "hello_answer" => {
                    let stub = Stub::start(move |mut peer, _| {
                        peer.receive_bytes(1);
                        peer.send(&part);
                        peer.end();
                    });
                    let refused = Client::builder([stub.address()]).connect_timeout(PATIENCE).connect().await;
                    let Err(Error::NoServer { reasons }) = refused else { panic!("{entry}: {refused:?}") };
                    assert!(reasons.contains("was lost"), "{end} bytes of {entry}: {reasons}");
                }
                "request" | "hello_request" => {}
                kind => panic!("the kind {kind} is new"),
            }
        }
    }
}

/// What is asked in a conversation, as far as this client can ask it: it never sends a bad count.
enum Call {
    Hello,
    Rows(Vec<f32>),
}

fn calls(conversation: &Value) -> Option<Vec<Call>> {
    let sent = conversation["sent"].as_array().expect("messages");
    let call = |message: &Value| {
        let message = bytes(message.as_str().expect("hex"));
        let (header, rest) = message.split_first_chunk::<4>()?;
        match u32::from_le_bytes(*header) {
            1..=64 => Some(Call::Rows(rest.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())),
            _ => header.starts_with(b"DSR1").then_some(Call::Hello),
        }
    };
    sent.iter().map(call).collect()
}

/// The calls of a conversation, put in line in their order, get what it means, however the answers are cut.
#[tokio::test]
async fn conversations() {
    let vectors = vectors();
    let mut had = 0;
    for conversation in entries(&vectors, "conversations") {
        let Some(calls) = calls(conversation) else { continue };
        let received: Vec<u8> = conversation["received"]
            .as_array()
            .expect("messages")
            .iter()
            .flat_map(|hex| bytes(hex.as_str().expect("hex")))
            .collect();
        let splits = entries(&vectors, "splits")
            .iter()
            .filter(|split| split["conversation"] == conversation["name"] && text(split, "direction") == "received");
        let at: Vec<usize> = splits
            .flat_map(|split| split["at"].as_array().expect("offsets"))
            .map(|at| at.as_u64().expect("an offset") as usize)
            .collect();
        let each = at.iter().map(|at| vec![*at]);
        for cuts in [Vec::new(), at.clone(), (1..received.len()).collect()].into_iter().chain(each) {
            have(conversation, &calls, &received, cuts).await;
            had += 1;
        }
    }
    assert!(had > 100, "{had}");
}

async fn have(conversation: &Value, calls: &[Call], received: &[u8], cuts: Vec<usize>) {
    let (features, outputs) = (number(conversation, "feature_dim"), number(conversation, "outputs"));
    let (name, expected) = (text(conversation, "name"), conversation["meaning"].as_array().expect("meanings"));
    // Rows of another width are not sent.
    let is_sent = |call: &&Call| {
        matches!(call, Call::Rows(rows) if rows.len().is_multiple_of(features)) || matches!(call, Call::Hello)
    };
    let (asked, bytes) = (calls.iter().filter(is_sent).count(), received.to_vec());
    // What the stub says first is what the conversation's hellos say, so that theirs are no surprise.
    let hello = expected.iter().position(|meaning| text(meaning, "kind") == "hello");
    let hello = hello.map(|at| self::bytes(conversation["received"][at].as_str().expect("hex")));
    let stub = Stub::start(move |mut peer, _| {
        peer.receive_bytes(features);
        match &hello {
            Some(hello) => peer.send(hello),
            None => peer.send_hello(features, outputs as u32),
        };
        for _ in 0..asked {
            if peer.receive_bytes(features).is_none() {
                return;
            }
        }
        let mut begin = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            peer.send(&bytes[begin..cut]);
            begin = cut;
        }
        peer.end();
    });
    let client = connect(&stub).await;
    let tasks: Vec<_> = calls
        .iter()
        .map(|call| {
            let client = client.clone();
            match call {
                Call::Hello => tokio::spawn(async move {
                    let check = client.check(PATIENCE).await.remove(0);
                    check.model.map(|model| (Vec::new(), model))
                }),
                Call::Rows(rows) => {
                    let rows = rows.clone();
                    tokio::spawn(async move {
                        let scores = client.predict(&rows, features).await;
                        scores.map(|scores| (scores.values, None))
                    })
                }
            }
        })
        .collect();
    for (index, task) in tasks.into_iter().enumerate() {
        let outcome = tokio::time::timeout(PATIENCE, task).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("{name}, {index}: no answer")).expect("no panic");
        match (expected.get(index), outcome) {
            (Some(meaning), Ok((scores, model))) => match text(meaning, "kind") {
                "answer" => assert_eq!(bits(&scores), bits(&numbers(&meaning["scores"])), "{name}, {index}"),
                "hello" => assert!(model.is_some_and(|model| is_model(&model, meaning)), "{name}, {index}"),
                kind => panic!("{name}, {index}: {kind} was taken for an answer"),
            },
            (Some(meaning), Err(error)) => {
                assert_eq!(text(meaning, "kind"), "error", "{name}, {index}: {error}");
                expect_error(number(meaning, "code"), &error);
            }
            (None, outcome) => assert!(outcome.is_err(), "{name}: {index} is answered"),
        }
    }
}
