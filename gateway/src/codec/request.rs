//! A request's body, as a whole.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::json::{Cursor, shortened};
use super::tensor::{Input, once};
use super::{BadRequest, Encoding, Form};

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub struct InferRequest {
    /// What it is called by whoever sent it; it stands in the answer.
    pub id: Option<String>,
    /// The features, row by row.
    pub rows: Vec<f32>,
    /// How many rows they are.
    pub row_count: usize,
    /// How the scores are to be written.
    pub encoding: Encoding,
    /// How long whoever sent it waits, if it says so.
    pub timeout: Option<Duration>,
}

/// The parts of a request that are outside of its tensors.
#[derive(Default)]
struct Asked {
    id: Option<String>,
    timeout_us: Option<u64>,
    /// How all outputs are to be written.
    binary_data_output: Option<bool>,
    /// How the one output is to be written; nothing if it is not named.
    output: Option<Option<bool>>,
}

/// Reads a request's body, whose JSON text is its first `json_bytes` bytes, or all of it.
///
/// # Errors
/// It is no request that the model can score; the error says why.
pub fn read_request(form: &Form, json_bytes: Option<usize>, body: &[u8]) -> Result<InferRequest, BadRequest> {
    let Some((text, behind)) = body.split_at_checked(json_bytes.unwrap_or(body.len())) else {
        return Err(BadRequest::new(format!(
            "Inference-Header-Content-Length is {}, but the body has {} bytes",
            json_bytes.unwrap_or_default(),
            body.len()
        )));
    };
    let text = str::from_utf8(text)
        .map_err(|error| BadRequest::new(format!("the JSON text is not in UTF-8 at byte {}", error.valid_up_to())))?;
    let mut cursor = Cursor::new(text);
    let (mut input, mut asked) = (None, Asked::default());
    let (mut has_inputs, mut has_outputs) = (None, None);
    cursor.object(|cursor, key| match key {
        "id" => once("id", &mut asked.id, cursor.string()?.into_owned()),
        "parameters" => asked.read_parameters(cursor),
        "inputs" => {
            once("inputs", &mut has_inputs, ())?;
            cursor.array(|cursor| match input.replace(Input::read(cursor)?) {
                None => Ok(()),
                Some(_) => Err(BadRequest::new("there are several inputs, but the model has one")),
            })
        }
        "outputs" => {
            once("outputs", &mut has_outputs, ())?;
            cursor.array(|cursor| asked.read_output(form, cursor))
        }
        _ => cursor.skip_value(),
    })?;
    cursor.expect_end()?;
    let input = input.ok_or_else(|| BadRequest::new("there are no inputs"))?;
    if json_bytes.is_none() && input.is_binary() {
        return Err(BadRequest::new(
            "an input is binary, but the header Inference-Header-Content-Length does not say where the JSON text ends",
        ));
    }
    if !input.is_binary() && !behind.is_empty() {
        return Err(BadRequest::new(format!(
            "{} bytes come behind the JSON text, and no input is binary",
            behind.len()
        )));
    }
    let rows = input.into_rows(form, behind)?;
    Ok(InferRequest {
        id: asked.id.take(),
        rows: rows.values,
        row_count: rows.count,
        encoding: asked.encoding(),
        timeout: asked.timeout_us.filter(|microseconds| *microseconds > 0).map(Duration::from_micros),
    })
}

impl Asked {
    fn read_parameters(&mut self, cursor: &mut Cursor<'_>) -> Result<(), BadRequest> {
        cursor.object(|cursor, key| match key {
            "timeout" => {
                let microseconds = cursor.whole("timeout in microseconds")?;
                once("timeout", &mut self.timeout_us, microseconds)
            }
            "binary_data_output" => {
                let is_binary = cursor.truth("binary_data_output, which is true or false")?;
                once("binary_data_output", &mut self.binary_data_output, is_binary)
            }
            _ => cursor.skip_value(),
        })
    }

    /// Reads an element of `outputs`.
    fn read_output(&mut self, form: &Form, cursor: &mut Cursor<'_>) -> Result<(), BadRequest> {
        let (mut name, mut is_binary) = (None, None);
        cursor.object(|cursor, key| match key {
            "name" => once("name", &mut name, cursor.string()?.into_owned()),
            "parameters" => cursor.object(|cursor, key| match key {
                "binary_data" => {
                    let truth = cursor.truth("binary_data, which is true or false")?;
                    once("binary_data", &mut is_binary, truth)
                }
                "classification" => Err(BadRequest::new("classification is not supported: ask for the scores")),
                "shared_memory_region" => Err(BadRequest::new("shared memory is not supported")),
                _ => cursor.skip_value(),
            }),
            _ => cursor.skip_value(),
        })?;
        let name = name.ok_or_else(|| BadRequest::new("an output has no name"))?;
        if name != form.output_name {
            return Err(BadRequest::new(format!(
                "there is no output {:?}: the model has one, {:?}",
                shortened(&name),
                form.output_name
            )));
        }
        once("an output", &mut self.output, is_binary)
    }

    /// What an output says of itself beats what the request says of all.
    fn encoding(&self) -> Encoding {
        let own = self.output.flatten();
        if own.or(self.binary_data_output).unwrap_or(false) { Encoding::Binary } else { Encoding::Json }
    }
}
