//! Bodies are read as what they say, or refused: never as other numbers, and never with a panic.
//!
//! What is right is told by others: numbers by the standard library's parser, JSON by serde_json.

use disrust_gateway::codec::{Encoding, Form, InferRequest, read_request, write_answer};
use proptest::prelude::*;
use serde_json::Value;

const FEATURES: usize = 3;

fn form() -> Form {
    Form { features: FEATURES, outputs: 1, input_name: "input".to_owned(), output_name: "output".to_owned() }
}

fn read(text: &str) -> Result<InferRequest, String> {
    read_request(&form(), None, text.as_bytes()).map_err(|error| error.to_string())
}

/// A request of one input with these members besides its name.
fn of_input(members: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"input",{members}}}]}}"#)
}

/// The rows that a text of `data` is read as, in one row.
fn row_of(data: &str) -> Result<Vec<f32>, String> {
    read(&of_input(&format!(r#""datatype":"FP32","shape":[1,{FEATURES}],"data":{data}"#))).map(|request| request.rows)
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    // All NaN are one to JSON.
    numbers.iter().map(|number| if number.is_nan() { f32::NAN.to_bits() } else { number.to_bits() }).collect()
}

#[test]
fn what_clients_write_is_read() {
    let one = [0.5, -2.0, 1e-3];
    for (members, rows) in [
        (r#""shape":[1,3],"datatype":"FP32","data":[0.5,-2,1e-3]"#, &one[..]),
        (r#""shape":[3],"datatype":"FP32","data":[0.5,-2.0,1E-3]"#, &one),
        (r#""shape":[1,3],"datatype":"FP32","data":[[0.5,-2,0.001]]"#, &one),
        (r#""data":[[5e-1,-2,1e-3]],"datatype":"FP32","shape":[1,3]"#, &one),
        (r#" "data" : [ [ 0.5 , -2 , 1e-3 ] ] , "x":{"y":[1,{"z":NaN}]}, "datatype":"FP32","shape":[ 1 , 3 ] "#, &one),
        (r#""shape":[2,3],"datatype":"FP32","data":[[0.5,-2,1e-3],[0.5,-2,1e-3]]"#, &[one, one].concat()),
        (r#""shape":[2,3],"datatype":"FP32","data":[0.5,-2,1e-3,0.5,-2,1e-3]"#, &[one, one].concat()),
        (r#""shape":[0,3],"datatype":"FP32","data":[]"#, &[]),
        (
            r#""shape":[1,3],"datatype":"FP32","data":[NaN,Infinity,-Infinity]"#,
            &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY],
        ),
        (r#""shape":[1,3],"datatype":"FP32","data":[[null,-0,0]],"parameters":{"a":1}"#, &[f32::NAN, -0.0, 0.0]),
    ] {
        let request = read(&of_input(members)).expect(members);
        assert_eq!((bits(&request.rows), request.row_count), (bits(rows), rows.len() / 3), "{members}");
        assert_eq!((request.id, request.encoding, request.timeout), (None, Encoding::Json, None));
    }
}

#[test]
fn the_rest_of_a_request_is_heard() {
    let input = r#""inputs":[{"name":"input","shape":[3],"datatype":"FP32","data":[1,2,3]}]"#;
    let read = |members: &str| read(&format!("{{{members},{input}}}")).expect(members);
    assert_eq!(read(r#""id":"a\"\u00fc\ud83d\ude00\n/""#).id.as_deref(), Some("a\"ü😀\n/"));
    assert_eq!(read(r#""parameters":{"timeout":1500}"#).timeout, Some(std::time::Duration::from_micros(1500)));
    assert_eq!(read(r#""parameters":{"timeout":0,"sequence_id":7}"#).timeout, None);
    for (members, encoding) in [
        (r#""parameters":{"binary_data_output":true}"#, Encoding::Binary),
        (r#""parameters":{"binary_data_output":false}"#, Encoding::Json),
        (r#""outputs":[]"#, Encoding::Json),
        (r#""outputs":[{"name":"output"}]"#, Encoding::Json),
        (r#""outputs":[{"name":"output"}],"parameters":{"binary_data_output":true}"#, Encoding::Binary),
        (r#""outputs":[{"name":"output","parameters":{"binary_data":true}}]"#, Encoding::Binary),
        // What an output says of itself beats what is said of all, wherever it stands.
        (
            r#""outputs":[{"parameters":{"binary_data":false},"name":"output"}],"parameters":{"binary_data_output":true}"#,
            Encoding::Json,
        ),
        (
            r#""parameters":{"binary_data_output":false},"outputs":[{"name":"output","parameters":{"binary_data":true}}]"#,
            Encoding::Binary,
        ),
    ] {
        assert_eq!(read(members).encoding, encoding, "{members}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let shape = r#""datatype":"FP32","shape":[1,3]"#;
    for (text, said) in [
        ("".to_owned(), "no object at byte 0: it ends there"),
        ("[]".to_owned(), "no object at byte 0"),
        ("{}".to_owned(), "there are no inputs"),
        (r#"{"inputs":[]}"#.to_owned(), "there are no inputs"),
        (r#"{"inputs":[{}]}"#.to_owned(), "an input has no name"),
        (r#"{"inputs":[],"inputs":[]}"#.to_owned(), "inputs is there twice"),
        (of_input(r#""name":"input""#), "name is there twice"),
        (r#"{"inputs":[{"name":"x"}]}"#.to_owned(), r#"no input "x": the model has one, "input""#),
        (of_input(shape), "neither data nor binary_data_size"),
        (of_input(r#""shape":[1,3],"data":[1,2,3]"#), "no datatype; the model takes FP32"),
        (of_input(r#""datatype":"FP64","shape":[1,3],"data":[1,2,3]"#), ".astype(numpy.float32)"),
        (of_input(r#""datatype":"INT64","shape":[1,3],"data":[1,2,3]"#), "of datatype INT64"),
        (of_input(r#""datatype":"FP32","data":[1,2,3]"#), "no shape"),
        (
            of_input(r#""datatype":"FP32","shape":[1,4],"data":[1,2,3,4]"#),
            "shape [1, 4], but the model takes [rows, 3], or [3]",
        ),
        (of_input(r#""datatype":"FP32","shape":[],"data":[]"#), "shape []"),
        (of_input(r#""datatype":"FP32","shape":[1,1,3],"data":[1,2,3]"#), "shape [1, 1, 3]"),
        (of_input(r#""datatype":"FP32","shape":[-1,3],"data":[]"#), "-1 is no dimension of a shape"),
        (of_input(r#""datatype":"FP32","shape":[1.5,3],"data":[]"#), "1.5 is no dimension"),
        (of_input(r#""datatype":"FP32","shape":["1",3],"data":[]"#), "no dimension of a shape at byte"),
        (
            of_input(r#""datatype":"FP32","shape":[18446744073709551615,3],"data":[1,2,3]"#),
            "has 3 numbers, but its shape",
        ),
        (of_input(r#""datatype":"FP32","shape":[99999999999999999999,3],"data":[1,2,3]"#), "is no dimension"),
        (of_input(r#""datatype":"FP32","shape":[1,1,1,1,1,1,1,1,1],"data":[1]"#), "more than 8 dimensions"),
        (of_input(&format!(r#"{shape},"data":[1,2]"#)), "has 2 numbers, but its shape [1, 3] has 3"),
        (of_input(&format!(r#"{shape},"data":[1,2,3,4]"#)), "has 4 numbers"),
        (of_input(&format!(r#"{shape},"data":[[1,2],[3]]"#)), "data is ragged: row 1 has 1 numbers, those before it 2"),
        (of_input(&format!(r#"{shape},"data":[[1],[2],[3]]"#)), "data of 3 rows of 1 numbers, but its shape is [1, 3]"),
        (of_input(r#""datatype":"FP32","shape":[3],"data":[[1,2,3]]"#), "its shape is [3]"),
        (of_input(&format!(r#"{shape},"data":[[1,2,3],4]"#)), "no array at byte"),
        (of_input(&format!(r#"{shape},"data":[1,[2,3]]"#)), "no number at byte"),
        (of_input(&format!(r#"{shape},"data":[[[1,2,3]]]"#)), "no number at byte"),
        (of_input(&format!(r#"{shape},"data":["1",2,3]"#)), "no number at byte"),
        (of_input(&format!(r#"{shape},"data":[true,2,3]"#)), "no number at byte"),
        (of_input(&format!(r#"{shape},"data":[1e39,2,3]"#)), "the number 1e39 is beyond what FP32 has"),
        (of_input(&format!(r#"{shape},"data":[1,2,3]],"#)), "no comma or end of an object"),
        (of_input(&format!(r#"{shape},"parameters":{{"binary_data_size":12}}"#)), "Inference-Header-Content-Length"),
        (of_input(r#""parameters":{"shared_memory_region":"a"}"#), "shared memory is not supported"),
        (r#"{"outputs":[{"name":"y"}]}"#.to_owned(), r#"no output "y": the model has one, "output""#),
        (r#"{"outputs":[{"parameters":{}}]}"#.to_owned(), "an output has no name"),
        (r#"{"outputs":[{"name":"output"},{"name":"output"}]}"#.to_owned(), "an output is there twice"),
        (
            r#"{"outputs":[{"name":"output","parameters":{"classification":3}}]}"#.to_owned(),
            "classification is not supported",
        ),
        (r#"{"outputs":[{"name":"output","parameters":{"binary_data":1}}]}"#.to_owned(), "true or false"),
        (r#"{"parameters":{"timeout":-1}}"#.to_owned(), "-1 is no timeout in microseconds"),
        (r#"{"id":7}"#.to_owned(), "no string at byte 6"),
        (r#"{"id":"\ud800"}"#.to_owned(), "half of a surrogate pair"),
        (r#"{"id":"\x"}"#.to_owned(), "escape sequence"),
        ("{\"id\":\"a\nb\"}".to_owned(), "control character"),
        (format!(r#"{{"x":{}1{}}}"#, "[".repeat(100), "]".repeat(100)), "nested deeper than 32"),
    ] {
        let error = read(&text).expect_err(&text);
        assert!(error.contains(said), "{text}: {error}");
    }
    let two = r#"{"inputs":[{"name":"input","shape":[3],"datatype":"FP32","data":[1,2,3]},{"name":"input"}]}"#;
    assert!(read(two).is_err_and(|error| error.contains("several inputs")));
    let error = read_request(&form(), None, b"{\"id\":\"\xff\"}").expect_err("no text");
    assert!(error.to_string().contains("not in UTF-8 at byte 7"), "{error}");
}

/// What JSON does not take for a number is none here either.
#[test]
fn numbers_are_those_of_json() {
    for wrong in [
        "01",
        "-",
        "+1",
        ".5",
        "5.",
        "1e",
        "1e+",
        "1.e5",
        "0x10",
        "1_000",
        "--1",
        "1 2",
        "NaNs",
        "nan",
        "inf",
        "-NaN",
        "-Infinityy",
        "Infinit",
        "nul",
        "١",
        "1f",
        "",
    ] {
        assert!(row_of(&format!("[{wrong},2,3]")).is_err(), "{wrong}");
    }
}

/// Just above half-way between two FP32, which a double has no bits for: what is rounded to a double first comes out one too low.
#[test]
fn numbers_are_not_doubles_on_their_way() {
    for (text, nearest) in [
        ("1.00000005960464477539062500000000001", 1.0 + f32::EPSILON),
        ("-1.00000005960464477539062500000000001", -1.0 - f32::EPSILON),
        ("16777217.000000000000000000001", 16_777_218.0),
    ] {
        assert_eq!(row_of(&format!("[{text},0,0]")).expect("a number")[0], nearest, "{text}");
    }
}

/// Whole requests with bytes behind their text, as tritonclient sends them.
#[test]
fn bytes_behind_the_text_are_read() {
    let text = r#"{"id":"b","inputs":[{"name":"input","shape":[2,3],"datatype":"FP32","parameters":{"binary_data_size":24}}],"parameters":{"binary_data_output":true}}"#;
    let rows = [1.5_f32, -0.0, f32::from_bits(0x7fc0_1234), f32::MIN_POSITIVE / 2.0, f32::INFINITY, f32::MAX];
    let bytes: Vec<u8> = rows.iter().flat_map(|number| number.to_le_bytes()).collect();
    let body = [text.as_bytes(), &bytes].concat();
    let request = read_request(&form(), Some(text.len()), &body).expect("a request");
    let raw = |rows: &[f32]| rows.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    assert_eq!(
        (raw(&request.rows), request.row_count, request.encoding),
        (raw(&rows), 2, Encoding::Binary),
        "bit by bit"
    );
    for (json_bytes, body, said) in [
        (Some(text.len()), &body[..body.len() - 1], "binary_data_size 24, but 23 bytes come"),
        (Some(text.len()), &[&body[..], b"x"].concat(), "but 25 bytes come"),
        (Some(body.len() + 1), &body, "but the body has"),
        (Some(text.len() - 1), &body, "end of an object"),
        (Some(text.len() + 1), &body, "no end at byte"),
        (None, &body, "JSON text"),
        (None, text.as_bytes(), "does not say where the JSON text ends"),
    ] {
        let error = read_request(&form(), json_bytes, body).expect_err(said).to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    let text = r#"{"inputs":[{"name":"input","shape":[3],"datatype":"FP32","data":[1,2,3]}]}"#;
    let error = read_request(&form(), Some(text.len()), &[text.as_bytes(), b"1234"].concat()).expect_err("too much");
    assert!(error.to_string().contains("4 bytes come behind the JSON text, and no input is binary"), "{error}");
    let odd = r#"{"inputs":[{"name":"input","shape":[3],"datatype":"FP32","parameters":{"binary_data_size":13}}]}"#;
    let error = read_request(&form(), Some(odd.len()), &[odd.as_bytes(), &[0; 13]].concat()).expect_err("too much");
    assert!(error.to_string().contains("no whole FP32 numbers"), "{error}");
}

/// Numbers as programs write them: shortest, with all digits, with an exponent, as a double.
fn written(number: f32) -> [String; 5] {
    [
        format!("{number}"),
        format!("{number:e}").replace('e', "E"),
        format!("{:.60}", f64::from(number)),
        format!("{:e}", f64::from(number)),
        serde_json::to_string(&f64::from(number)).expect("JSON"),
    ]
}

fn scored(encoding: Encoding, outputs: usize, scores: &[f32], id: Option<String>) -> (Value, Vec<u8>) {
    let request = InferRequest { id, rows: Vec::new(), row_count: scores.len() / outputs, encoding, timeout: None };
    let answer = write_answer("y\"", outputs, "\"model_name\":\"m\",", &request, scores);
    let (text, behind) = answer.body.split_at(answer.json_bytes.unwrap_or(answer.body.len()));
    (serde_json::from_slice(text).expect("JSON"), behind.to_vec())
}

#[test]
fn answers_say_what_they_are() {
    let scores = [1.0, 2.5, f32::NAN, f32::INFINITY, -0.0, 1e30];
    let (json, behind) = scored(Encoding::Json, 2, &scores, Some("a\"".to_owned()));
    let data = serde_json::json!([1.0, 2.5, null, null, -0.0, 1e30]);
    assert_eq!(json["outputs"][0]["data"].to_string(), data.to_string());
    assert_eq!((&json["id"], &json["model_name"]), (&Value::from("a\""), &Value::from("m")));
    assert_eq!(json["outputs"][0]["shape"], serde_json::json!([3, 2]));
    assert_eq!((&json["outputs"][0]["name"], &json["outputs"][0]["datatype"]), (&"y\"".into(), &"FP32".into()));
    assert!(behind.is_empty());
    let (json, behind) = scored(Encoding::Binary, 1, &scores, None);
    assert_eq!(json["outputs"][0]["shape"], serde_json::json!([6]));
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 24);
    assert!(json.get("id").is_none() && json["outputs"][0].get("data").is_none());
    assert_eq!(behind, scores.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<_>>());
}

/// Texts near those of requests: of pieces, in any order.
fn text_of_pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(",".to_owned()),
        Just(":".to_owned()),
        Just("\"inputs\"".to_owned()),
        Just("\"outputs\"".to_owned()),
        Just("\"name\"".to_owned()),
        Just("\"input\"".to_owned()),
        Just("\"shape\"".to_owned()),
        Just("\"datatype\"".to_owned()),
        Just("\"FP32\"".to_owned()),
        Just("\"data\"".to_owned()),
        Just("\"parameters\"".to_owned()),
        Just("\"id\"".to_owned()),
        Just("\\u00".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("NaN".to_owned()),
        Just("null".to_owned()),
        Just("-".to_owned()),
        Just("1e9".to_owned()),
        Just("3".to_owned()),
        Just(" ".to_owned()),
        Just("\u{0}".to_owned()),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// A right request, and what a change of some of its letters makes of it.
fn changed_request() -> impl Strategy<Value = String> {
    let text =
        of_input(r#""datatype":"FP32","shape":[2,3],"data":[[1.5,-2e3,null],[0.25,7,NaN]],"parameters":{"x":[{}]}"#);
    let length = text.len();
    prop::collection::vec((0..length, prop::sample::select(b"{}[],:\"\\0123eE+-.nNtf x\x01".to_vec())), 0..4).prop_map(
        move |changes| {
            let mut bytes = text.clone().into_bytes();
            changes.iter().for_each(|(at, letter)| bytes[*at] = *letter);
            String::from_utf8(bytes).expect("ASCII")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever is written of a number is read as the nearest FP32, bit by bit.
    #[test]
    fn numbers_are_read_as_they_are_written(bits in any::<u32>(), nested in any::<bool>()) {
        let number = f32::from_bits(bits);
        prop_assume!(number.is_finite());
        for text in written(number) {
            let data = if nested { format!("[[0, {text} ,0]]") } else { format!("[0,{text},0]") };
            let row = row_of(&data).expect(&text);
            prop_assert_eq!(row[1].to_bits(), number.to_bits(), "{}", text);
        }
    }

    /// Numbers between two FP32 are rounded to the nearest, as the standard library does from the same text.
    #[test]
    fn numbers_are_rounded_once(text in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?") {
        let nearest: f32 = text.parse().expect("a number");
        match row_of(&format!("[{text},0,0]")) {
            Ok(row) => prop_assert_eq!(row[0].to_bits(), nearest.to_bits()),
            Err(error) => prop_assert!(nearest.is_infinite() && error.contains("beyond what FP32 has"), "{}", error),
        }
    }

    /// Whatever comes, it is read or refused in words.
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), json_bytes in prop::option::of(0_usize..250)) {
        if let Err(error) = read_request(&form(), json_bytes, &body) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// What is read is JSON, but for the words of numbers that JSON has not; so it is to others who look at the same bytes.
    #[test]
    fn what_is_read_is_json(text in prop_oneof![text_of_pieces(), changed_request()]) {
        if let Ok(request) = read(&text) {
            let json = text.replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null");
            let value: Value = serde_json::from_str(&json).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
            let data = value["inputs"][0]["data"].as_array().expect("data");
            let flat = data.iter().flat_map(|row| row.as_array().cloned().unwrap_or_else(|| vec![row.clone()]));
            let theirs: Vec<f32> = flat.map(|number| number.to_string().parse().unwrap_or(f32::NAN)).collect();
            prop_assert_eq!(bits(&request.rows), bits(&theirs));
            prop_assert_eq!(request.rows.len(), request.row_count * FEATURES);
        }
    }

    /// Scores are read back by others as they are.
    #[test]
    fn scores_are_read_back(scores in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..50)) {
        let (json, _) = scored(Encoding::Json, 1, &scores, None);
        let data = json["outputs"][0]["data"].as_array().expect("data");
        prop_assert_eq!(data.len(), scores.len());
        for (read, score) in data.iter().zip(&scores) {
            match read.as_f64() {
                Some(number) => prop_assert_eq!((number as f32).to_bits(), score.to_bits()),
                None => prop_assert!(read.is_null() && !score.is_finite()),
            }
        }
    }
}
