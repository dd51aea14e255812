//! An answer's body.
#![forbid(unsafe_code)]

use super::{DATATYPE, Encoding, InferRequest};

/// A body, and where its JSON text ends if something follows it.
#[derive(Debug, PartialEq, Eq)]
pub struct EncodedAnswer {
    /// All of it.
    pub body: Vec<u8>,
    /// Bytes of its JSON text, if the scores come behind it.
    pub json_bytes: Option<usize>,
}

/// Writes the answer to a request whose rows were given these scores, `outputs` for each, row by row. `model` is the beginning of the
/// JSON text: the members that tell of the model, each with a comma behind it.
///
/// JSON has no NaN and no infinity: a score that is one of them is `null` there. In binary, all of its bits are sent.
///
/// # Panics
/// If there are not so many scores.
pub fn write_answer(
    output_name: &str,
    outputs: usize,
    model: &str,
    request: &InferRequest,
    scores: &[f32],
) -> EncodedAnswer {
    assert_eq!(scores.len(), request.row_count * outputs, "each row has its scores");
    /// Bytes of a score in JSON, at most, with its comma.
    const SCORE_LETTERS: usize = 18;
    const FRAME_LETTERS: usize = 160;
    let score_bytes = if request.encoding == Encoding::Json { SCORE_LETTERS } else { 4 };
    let mut body = Vec::with_capacity(FRAME_LETTERS + model.len() + scores.len() * score_bytes);
    body.push(b'{');
    body.extend_from_slice(model.as_bytes());
    if let Some(id) = &request.id {
        body.extend_from_slice(b"\"id\":");
        write_string(id, &mut body);
        body.push(b',');
    }
    body.extend_from_slice(b"\"outputs\":[{\"name\":");
    write_string(output_name, &mut body);
    body.extend_from_slice(b",\"datatype\":\"");
    body.extend_from_slice(DATATYPE.as_bytes());
    body.extend_from_slice(b"\",\"shape\":[");
    write_whole(request.row_count, &mut body);
    if outputs > 1 {
        body.push(b',');
        write_whole(outputs, &mut body);
    }
    match request.encoding {
        Encoding::Json => {
            body.extend_from_slice(b"],\"data\":[");
            write_scores(scores, &mut body);
            body.extend_from_slice(b"]}]}");
            EncodedAnswer { body, json_bytes: None }
        }
        Encoding::Binary => {
            body.extend_from_slice(b"],\"parameters\":{\"binary_data_size\":");
            write_whole(scores.len() * 4, &mut body);
            body.extend_from_slice(b"}}]}");
            let json_bytes = body.len();
            body.extend(scores.iter().flat_map(|score| score.to_le_bytes()));
            EncodedAnswer { body, json_bytes: Some(json_bytes) }
        }
    }
}

/// The shortest numbers that are read back as these.
fn write_scores(scores: &[f32], body: &mut Vec<u8>) {
    let mut buffer = zmij::Buffer::new();
    for (index, score) in scores.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let text = if score.is_finite() { buffer.format_finite(*score) } else { "null" };
        body.extend_from_slice(text.as_bytes());
    }
}

fn write_whole(number: usize, body: &mut Vec<u8>) {
    // It has the room that was reserved; a number in decimal is what Display writes.
    use std::io::Write as _;
    write!(body, "{number}").expect("a vector takes all that is written");
}

/// Writes a string as JSON has it.
pub(crate) fn write_string(text: &str, body: &mut Vec<u8>) {
    serde_json::to_writer(body, text).expect("a vector takes all that is written");
}
