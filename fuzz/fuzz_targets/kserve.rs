//! Bodies of the gateway's requests: whatever comes is read or refused in words. What is read as JSON alone is JSON to serde_json, too,
//! but for the words of numbers that JSON has not, with the same numbers in it; and what is answered is JSON with the scores in it.
//!
//! The input's first two bytes say where its JSON text ends; 65535 means that nothing says so.
#![no_main]

use disrust_gateway::codec::{Encoding, Form, InferRequest, read_request, write_answer};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const FEATURES: usize = 3;

fuzz_target!(|input: &[u8]| {
    let Some((length, body)) = input.split_first_chunk::<2>() else { return };
    let json_bytes = Some(usize::from(u16::from_le_bytes(*length))).filter(|bytes| *bytes != 0xffff);
    let form =
        Form { features: FEATURES, outputs: 1, input_name: "input".to_owned(), output_name: "output".to_owned() };
    match read_request(&form, json_bytes, body) {
        Ok(request) => {
            assert_eq!(request.rows.len(), request.row_count * FEATURES);
            if json_bytes.is_none() {
                assert_agrees(body, &request.rows);
            }
            assert_answered(&request);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

/// What serde_json reads of the same text, where that says anything: a text with these words in strings is left out.
fn assert_agrees(body: &[u8], rows: &[f32]) {
    let text = str::from_utf8(body).expect("what was read is text");
    let words: usize = ["NaN", "Infinity"].iter().map(|word| text.matches(word).count()).sum();
    let json = text.replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null");
    let Ok(value) = serde_json::from_str::<Value>(&json) else {
        // It refuses numbers beyond what a double has, wherever they are, and deeper texts; and the words may have been anywhere.
        return assert!(words > 0 || text.contains(['e', 'E']) || text.len() > 300, "{text}");
    };
    let Some(data) = value["inputs"][0]["data"].as_array() else { return assert!(rows.is_empty(), "{text}") };
    let flat = data.iter().flat_map(|row| row.as_array().cloned().unwrap_or_else(|| vec![row.clone()]));
    let theirs: Vec<f64> = flat.map(|number| number.as_f64().unwrap_or(f64::NAN)).collect();
    assert_eq!(rows.len(), theirs.len());
    for (ours, theirs) in rows.iter().zip(theirs) {
        // Theirs is rounded twice, to a double before: then it may be off by the last bit.
        let near = theirs as f32;
        let is_near = near.to_bits().abs_diff(ours.to_bits()) <= 1 || !ours.is_finite() && theirs.is_nan();
        assert!(is_near || ours.is_nan() && theirs.is_nan(), "{ours} {theirs}");
    }
}

fn assert_answered(request: &InferRequest) {
    let scores: Vec<f32> = request.rows.iter().step_by(FEATURES).copied().collect();
    let answer = write_answer("output", 1, "", request, &scores);
    let (text, behind) = answer.body.split_at(answer.json_bytes.unwrap_or(answer.body.len()));
    let value: Value = serde_json::from_slice(text).expect("JSON");
    assert_eq!(value["id"].as_str(), request.id.as_deref());
    match request.encoding {
        Encoding::Binary => assert_eq!(behind, scores.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<_>>()),
        Encoding::Json => {
            let data = value["outputs"][0]["data"].as_array().expect("scores");
            assert_eq!(data.len(), scores.len());
            for (read, score) in data.iter().zip(scores) {
                assert!(read.as_f64().map_or(!score.is_finite(), |read| (read as f32).to_bits() == score.to_bits()));
            }
        }
    }
}
