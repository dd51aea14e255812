//! Constants: what initializers, `Constant` nodes and attributes hold.
//!
//! Invariant: a tensor has as many numbers as its dimensions say. Its numbers are shared: a copy of a tensor is a few words.

use std::rc::Rc;

use prost::bytes::Bytes;

use super::errors::{malformed, quoted, unsupported};
use super::proto::{TensorProto, decode};
use crate::read::ReadError;

/// Dimensions of a tensor at most. What is supported has 2, 3 with a batch.
const RANK_MAX: usize = 8;

#[derive(Debug, Clone)]
pub(super) struct Tensor {
    pub dims: Vec<usize>,
    pub numbers: Numbers,
}

#[derive(Debug, Clone)]
pub(super) enum Numbers {
    F32(Rc<[f32]>),
    F64(Rc<[f64]>),
    /// Any integers, and booleans.
    Integers(Rc<[i64]>),
    Text(Rc<[String]>),
}

impl Numbers {
    pub fn len(&self) -> usize {
        match self {
            Numbers::F32(numbers) => numbers.len(),
            Numbers::F64(numbers) => numbers.len(),
            Numbers::Integers(numbers) => numbers.len(),
            Numbers::Text(texts) => texts.len(),
        }
    }
}

/// The element types of `TensorProto` that have a name here.
pub(super) mod element {
    pub const FLOAT: i32 = 1;
    pub const UINT8: i32 = 2;
    pub const INT32: i32 = 6;
    pub const INT64: i32 = 7;
    pub const STRING: i32 = 8;
    pub const BOOL: i32 = 9;
    pub const DOUBLE: i32 = 11;

    /// What the specification calls the type.
    pub fn name(kind: i32) -> String {
        const NAMES: [&str; 17] = [
            "undefined",
            "float",
            "uint8",
            "int8",
            "uint16",
            "int16",
            "int32",
            "int64",
            "string",
            "bool",
            "float16",
            "double",
            "uint32",
            "uint64",
            "complex64",
            "complex128",
            "bfloat16",
        ];
        let name = usize::try_from(kind).ok().and_then(|kind| NAMES.get(kind));
        name.map_or_else(|| format!("type {kind}"), |name| (*name).to_owned())
    }
}

impl Tensor {
    pub fn new(dims: Vec<usize>, numbers: Numbers) -> Tensor {
        debug_assert_eq!(dims.iter().product::<usize>(), numbers.len());
        Tensor { dims, numbers }
    }

    /// One dimension of numbers.
    pub fn list(numbers: Numbers) -> Tensor {
        Tensor { dims: vec![numbers.len()], numbers }
    }

    /// Decodes the tensor `what`; returns it with the name it has in itself.
    ///
    /// # Errors
    /// If its data is elsewhere, of no known type, or not as much as its dimensions say.
    pub fn decode(bytes: &Bytes, what: &str) -> Result<(String, Tensor), ReadError> {
        let mut proto: TensorProto = decode(bytes, what)?;
        let name = std::mem::take(&mut proto.name);
        let what = if name.is_empty() { what.to_owned() } else { format!("the tensor {}", quoted(&name)) };
        if proto.data_location != 0 || !proto.external_data.is_empty() {
            let instead = "save the model with its weights in one file (save_as_external_data=False)";
            return Err(unsupported(format!("{what}, whose data is in another file"), instead));
        }
        if proto.segment.is_some() {
            return Err(unsupported(format!("{what}, which is a segment"), "save it whole"));
        }
        let dims = dims_of(&proto.dims, &what)?;
        let numbers = numbers_of(proto, &what)?;
        let wanted = dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
        if wanted != Some(numbers.len()) {
            return Err(malformed(format!("{what} has {} numbers for the dimensions {dims:?}", numbers.len())));
        }
        Ok((name, Tensor { dims, numbers }))
    }

    /// The numbers in f32; none if they are text.
    pub fn to_f32(&self) -> Option<Rc<[f32]>> {
        match &self.numbers {
            Numbers::F32(numbers) => Some(Rc::clone(numbers)),
            Numbers::F64(numbers) => Some(numbers.iter().map(|number| *number as f32).collect()),
            Numbers::Integers(numbers) => Some(numbers.iter().map(|number| *number as f32).collect()),
            Numbers::Text(_) => None,
        }
    }

    /// The numbers, if they are integers.
    pub fn integers(&self) -> Option<&[i64]> {
        match &self.numbers {
            Numbers::Integers(numbers) => Some(numbers),
            _ => None,
        }
    }

    /// The same numbers under other dimensions, whose product is the same.
    pub fn reshaped(&self, dims: Vec<usize>) -> Tensor {
        Tensor::new(dims, self.numbers.clone())
    }
}

fn dims_of(dims: &[i64], what: &str) -> Result<Vec<usize>, ReadError> {
    if dims.len() > RANK_MAX {
        let (count, instead) = (dims.len(), format!("at most {RANK_MAX} are"));
        return Err(unsupported(format!("{what} of {count} dimensions"), instead));
    }
    let checked = dims.iter().map(|dim| usize::try_from(*dim));
    checked.collect::<Result<_, _>>().map_err(|_| malformed(format!("{what} has the dimensions {dims:?}")))
}

/// All numbers, from wherever the message has them.
fn numbers_of(proto: TensorProto, what: &str) -> Result<Numbers, ReadError> {
    let kind = proto.data_type;
    let Some(raw) = &proto.raw_data else {
        return Ok(match kind {
            element::FLOAT => Numbers::F32(proto.float_data.into()),
            element::DOUBLE => Numbers::F64(proto.double_data.into()),
            element::INT64 => Numbers::Integers(proto.int64_data.into()),
            element::INT32 | element::UINT8 | element::BOOL => {
                Numbers::Integers(proto.int32_data.iter().map(|number| i64::from(*number)).collect())
            }
            element::STRING => Numbers::Text(texts(&proto.string_data, what)?.into()),
            _ => return Err(unknown_type(kind, what)),
        });
    };
    let cut = || malformed(format!("{what} has {} raw bytes of {}", raw.len(), element::name(kind)));
    Ok(match kind {
        element::FLOAT => Numbers::F32(raw_numbers(raw, f32::from_le_bytes).ok_or_else(cut)?),
        element::DOUBLE => Numbers::F64(raw_numbers(raw, f64::from_le_bytes).ok_or_else(cut)?),
        element::INT64 => Numbers::Integers(raw_numbers(raw, i64::from_le_bytes).ok_or_else(cut)?),
        element::INT32 => {
            Numbers::Integers(raw_numbers(raw, |bytes| i64::from(i32::from_le_bytes(bytes))).ok_or_else(cut)?)
        }
        element::UINT8 | element::BOOL => Numbers::Integers(raw.iter().map(|byte| i64::from(*byte)).collect()),
        _ => return Err(unknown_type(kind, what)),
    })
}

fn unknown_type(kind: i32, what: &str) -> ReadError {
    let instead = "float, double, int32, int64, uint8, bool and string are";
    unsupported(format!("{what} of {}", element::name(kind)), instead)
}

/// Little-endian, as the format has it; none if bytes are left over.
fn raw_numbers<T, const BYTES: usize>(raw: &[u8], number: impl Fn([u8; BYTES]) -> T) -> Option<Rc<[T]>> {
    let (numbers, rest) = raw.as_chunks::<BYTES>();
    rest.is_empty().then(|| numbers.iter().map(|bytes| number(*bytes)).collect())
}

pub(super) fn texts(texts: &[Bytes], what: &str) -> Result<Vec<String>, ReadError> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec());
    texts
        .iter()
        .map(text)
        .collect::<Result<_, _>>()
        .map_err(|_| malformed(format!("{what} holds text that is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn decoded(proto: TensorProto) -> Result<(String, Tensor), String> {
        Tensor::decode(&proto.encode_to_vec().into(), "tensor").map_err(|error| error.to_string())
    }

    #[test]
    fn data_is_read_from_wherever_it_is() {
        let raw: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        let floats = TensorProto { dims: vec![2], data_type: element::FLOAT, ..TensorProto::default() };
        let packed = TensorProto { float_data: vec![1.5, -2.0], ..floats.clone() };
        let raw = TensorProto { raw_data: Some(raw.into()), ..floats.clone() };
        for proto in [packed, raw] {
            assert_eq!(decoded(proto).expect("floats").1.to_f32().as_deref(), Some([1.5, -2.0].as_slice()));
        }
        let raw = Some(vec![255, 255, 255, 255].into());
        let int = TensorProto { dims: vec![], data_type: element::INT32, raw_data: raw, ..TensorProto::default() };
        assert_eq!(decoded(int).expect("a scalar").1.integers(), Some([-1].as_slice()));
    }

    #[test]
    fn what_lies_is_refused() {
        let refused = |proto: TensorProto, reason: &str| {
            let error = decoded(proto).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        };
        let float = TensorProto { data_type: element::FLOAT, name: "w".to_owned(), ..TensorProto::default() };
        refused(
            TensorProto { dims: vec![3], float_data: vec![1.0], ..float.clone() },
            "1 numbers for the dimensions [3]",
        );
        refused(TensorProto { dims: vec![-1], ..float.clone() }, "dimensions [-1]");
        refused(TensorProto { dims: vec![1 << 40, 1 << 40], ..float.clone() }, "0 numbers for the dimensions");
        refused(TensorProto { dims: vec![1; 9], ..float.clone() }, "9 dimensions");
        refused(TensorProto { dims: vec![1], raw_data: Some(vec![0; 3].into()), ..float.clone() }, "3 raw bytes");
        refused(TensorProto { data_location: 1, ..float.clone() }, "\"w\", whose data is in another file");
        refused(TensorProto { data_type: 10, ..float }, "\"w\" of float16");
    }
}
