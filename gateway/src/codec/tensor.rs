//! Rows of features, as a request has them: numbers in JSON, nested or flat, or bytes.
#![forbid(unsafe_code)]

use super::json::{Cursor, shortened};
use super::{BadRequest, DATATYPE, Form};

/// How the numbers of `data` were nested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nesting {
    Flat,
    /// An array for each row, all of one length; of no row, of any.
    Rows {
        rows: usize,
        length: Option<usize>,
    },
}

/// The one tensor of a request, as it is written there.
#[derive(Debug, Default)]
pub(super) struct Input {
    name: Option<String>,
    datatype: Option<String>,
    shape: Option<Vec<u64>>,
    data: Option<(Vec<f32>, Nesting)>,
    binary_data_size: Option<u64>,
}

/// Features of rows, row by row.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rows {
    pub values: Vec<f32>,
    pub count: usize,
}

impl Input {
    /// Reads an element of `inputs`.
    pub fn read(cursor: &mut Cursor<'_>) -> Result<Input, BadRequest> {
        let mut input = Input::default();
        cursor.object(|cursor, key| match key {
            "name" => once("name", &mut input.name, cursor.string()?.into_owned()),
            "datatype" => once("datatype", &mut input.datatype, cursor.string()?.into_owned()),
            "shape" => once("shape", &mut input.shape, read_shape(cursor)?),
            "data" => once("data", &mut input.data, read_data(cursor)?),
            "parameters" => cursor.object(|cursor, key| match key {
                "binary_data_size" => {
                    let size = cursor.whole("binary_data_size")?;
                    once("binary_data_size", &mut input.binary_data_size, size)
                }
                "shared_memory_region" => Err(BadRequest::new("shared memory is not supported: send the data itself")),
                _ => cursor.skip_value(),
            }),
            _ => cursor.skip_value(),
        })?;
        Ok(input)
    }

    /// Whether its data is behind the JSON text.
    pub fn is_binary(&self) -> bool {
        self.binary_data_size.is_some()
    }

    /// The rows, if the model takes such ones; `behind` is what comes behind the JSON text.
    pub fn into_rows(self, form: &Form, behind: &[u8]) -> Result<Rows, BadRequest> {
        let Form { features, input_name, .. } = form;
        let name = self.name.ok_or_else(|| BadRequest::new("an input has no name"))?;
        if name != *input_name {
            return Err(BadRequest::new(format!(
                "there is no input {:?}: the model has one, {input_name:?}",
                shortened(&name)
            )));
        }
        match self.datatype.as_deref() {
            Some(DATATYPE) => {}
            Some(other) => {
                return Err(BadRequest::new(format!(
                    "input {name:?} is of datatype {}, but the model takes {DATATYPE}. Convert it before it is sent, with numpy by \
                     .astype(numpy.float32)",
                    shortened(other)
                )));
            }
            None => return Err(BadRequest::new(format!("input {name:?} has no datatype; the model takes {DATATYPE}"))),
        }
        let shape = self.shape.ok_or_else(|| BadRequest::new(format!("input {name:?} has no shape")))?;
        let count = match shape[..] {
            [count, width] if width == *features as u64 => usize::try_from(count).ok(),
            [width] if width == *features as u64 => Some(1),
            _ => None,
        };
        let Some(count) = count else {
            return Err(BadRequest::new(format!(
                "input {name:?} has shape {}, but the model takes [rows, {features}], or [{features}] for one row",
                written(&shape)
            )));
        };
        // Of so many that memory has no place for them, no request has the data.
        let numbers = count.saturating_mul(*features);
        let values = match (self.data, self.binary_data_size) {
            (Some((values, nesting)), None) => {
                check_nesting(&name, &shape, nesting)?;
                values
            }
            (None, Some(size)) => read_bytes(&name, size, behind)?,
            (Some(_), Some(_)) => {
                return Err(BadRequest::new(format!("input {name:?} has both data and binary_data_size")));
            }
            (None, None) => {
                return Err(BadRequest::new(format!("input {name:?} has neither data nor binary_data_size")));
            }
        };
        if values.len() != numbers {
            return Err(BadRequest::new(format!(
                "input {name:?} has {} numbers, but its shape {} has {numbers}",
                values.len(),
                written(&shape)
            )));
        }
        Ok(Rows { values, count })
    }
}

/// Takes a value that there may be once.
pub(super) fn once<T>(what: &str, place: &mut Option<T>, value: T) -> Result<(), BadRequest> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadRequest::new(format!("{what} is there twice"))),
    }
}

fn read_shape(cursor: &mut Cursor<'_>) -> Result<Vec<u64>, BadRequest> {
    const DIMENSIONS_MAX: usize = 8;
    let mut shape = Vec::new();
    cursor.array(|cursor| {
        if shape.len() == DIMENSIONS_MAX {
            return Err(BadRequest::new(format!("a shape has more than {DIMENSIONS_MAX} dimensions")));
        }
        shape.push(cursor.whole("dimension of a shape")?);
        Ok(())
    })?;
    Ok(shape)
}

/// Reads `data`, which may come before anybody knows of what shape it is.
fn read_data(cursor: &mut Cursor<'_>) -> Result<(Vec<f32>, Nesting), BadRequest> {
    /// Letters that a number takes, with its comma, in a text of the shortest sensible ones: so much is reserved at once.
    const LETTERS_OF_A_NUMBER: usize = 8;
    let mut values = Vec::with_capacity(cursor.remaining() / LETTERS_OF_A_NUMBER);
    let mut nesting = None;
    cursor.array(|cursor| {
        let is_row = cursor.peek() == b'[';
        let so_far = *nesting.get_or_insert(match is_row {
            true => Nesting::Rows { rows: 0, length: None },
            false => Nesting::Flat,
        });
        match so_far {
            Nesting::Flat => values.push(cursor.f32()?),
            Nesting::Rows { rows, length } => {
                let begin = values.len();
                cursor.array(|cursor| {
                    values.push(cursor.f32()?);
                    Ok(())
                })?;
                let own = values.len() - begin;
                if length.is_some_and(|length| length != own) {
                    return Err(BadRequest::new(format!(
                        "data is ragged: row {rows} has {own} numbers, those before it {}",
                        length.unwrap_or_default()
                    )));
                }
                nesting = Some(Nesting::Rows { rows: rows + 1, length: Some(own) });
            }
        }
        Ok(())
    })?;
    Ok((values, nesting.unwrap_or(Nesting::Flat)))
}

/// Data that is nested has the shape that it says.
fn check_nesting(name: &str, shape: &[u64], nesting: Nesting) -> Result<(), BadRequest> {
    let Nesting::Rows { rows, length } = nesting else { return Ok(()) };
    let is_right =
        matches!(*shape, [count, width] if count == rows as u64 && length.is_none_or(|own| own as u64 == width));
    if is_right {
        return Ok(());
    }
    Err(BadRequest::new(format!(
        "input {name:?} has data of {rows} rows of {} numbers, but its shape is {}",
        length.unwrap_or_default(),
        written(shape)
    )))
}

/// Reads the tensor's bytes, which are all that there are: there is no other input.
fn read_bytes(name: &str, size: u64, behind: &[u8]) -> Result<Vec<f32>, BadRequest> {
    let (numbers, rest) = behind.as_chunks::<4>();
    if size != behind.len() as u64 {
        return Err(BadRequest::new(format!(
            "input {name:?} has binary_data_size {size}, but {} bytes come behind the JSON text",
            behind.len()
        )));
    }
    if !rest.is_empty() {
        return Err(BadRequest::new(format!("input {name:?} has {size} bytes, which are no whole {DATATYPE} numbers")));
    }
    Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

fn written(shape: &[u64]) -> String {
    let dimensions: Vec<String> = shape.iter().map(u64::to_string).collect();
    format!("[{}]", dimensions.join(", "))
}
