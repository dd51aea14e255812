//! The part of `onnx.proto` that is needed, decoded by prost.
//!
//! Messages inside of messages are fields of bytes, which prost lends out of the file without a copy, and are decoded when
//! they are asked for. So nothing is as deep as the file says, and what is not used is not decoded.
//!
//! Invariant: decoding takes no more memory than a small multiple of the message. A field of two bytes, `tag` and `length 0`,
//! becomes 32 in memory; [`decode`] therefore counts before it decodes.

use prost::Message;
use prost::bytes::Bytes;

use super::errors::malformed;
use crate::read::ReadError;

/// Fields with a length in one message, at most, that may be as short as they like. Larger: more memory for a file of empty
/// fields (32 bytes each). Smaller: a graph of more nodes is refused; a form has at most 1,024 steps.
const SHORT_FIELDS_MAX: usize = 1 << 16;

/// Bytes that a field with a length has on average in a message with more of them: `LEAF`, its tag and its length.
const FIELD_BYTES_MEAN_MIN: usize = 4;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub graph: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub opset_import: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub node: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub initializer: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "15")]
    pub sparse_initializer: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub input: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "12")]
    pub output: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(string, tag = "7")]
    pub domain: String,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub attribute: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "21")]
    pub ref_attr_name: String,
    #[prost(int32, tag = "20")]
    pub kind: i32,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub s: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub t: Option<Bytes>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub strings: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub segment: Option<Bytes>,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub string_data: Vec<Bytes>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    #[prost(bytes = "bytes", repeated, tag = "13")]
    pub external_data: Vec<Bytes>,
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub r#type: Option<Bytes>,
}

/// One of its fields is there.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TypeProto {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub tensor: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub sequence: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub map: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub shape: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub dim: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub parameter: Option<String>,
}

/// Decodes the message `what`.
///
/// # Errors
/// If it is cut or none, or has an absurd number of empty fields.
pub(super) fn decode<M: Message + Default>(bytes: &Bytes, what: &str) -> Result<M, ReadError> {
    let mut count = 0_usize;
    for field in Fields(bytes) {
        let Some(field) = field else { return Err(malformed(format!("{what} is cut or no protobuf"))) };
        count += usize::from(field.wire_type == LENGTH_DELIMITED);
    }
    if count > SHORT_FIELDS_MAX.max(bytes.len() / FIELD_BYTES_MEAN_MIN) {
        return Err(malformed(format!("{what} has {count} fields in {} bytes", bytes.len())));
    }
    M::decode(bytes.clone()).map_err(|error| malformed(format!("{what}: {error}")))
}

/// Whether the bytes look like a model: they start with its version, or all of them are fields of one with a graph.
pub(super) fn is_model(bytes: &[u8]) -> bool {
    /// `ir_version` is the first field of what every known writer writes; versions up to 13 are there.
    const IR_VERSION_TAG: u8 = 0x08;
    if let [IR_VERSION_TAG, version, ..] = bytes {
        return (1..=127).contains(version);
    }
    let mut graph = false;
    for field in Fields(bytes) {
        match field {
            Some(Field { number: 7, wire_type: LENGTH_DELIMITED }) => graph = true,
            Some(Field { number: 2..=4 | 6 | 8 | 14 | 20 | 25 | 26, wire_type: LENGTH_DELIMITED })
            | Some(Field { number: 1 | 5, wire_type: VARINT }) => {}
            _ => return false,
        }
    }
    graph
}

const VARINT: usize = 0;
const LENGTH_DELIMITED: usize = 2;

struct Field {
    number: usize,
    wire_type: usize,
}

/// The fields of a message, one after the other, nothing kept of them; none in the place of one that is cut or unknown.
struct Fields<'a>(&'a [u8]);

impl Iterator for Fields<'_> {
    type Item = Option<Field>;

    fn next(&mut self) -> Option<Option<Field>> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl Fields<'_> {
    fn field(&mut self) -> Option<Field> {
        let tag = self.varint()?;
        let (number, wire_type) = (tag >> 3, tag & 7);
        let bytes = match wire_type {
            VARINT => {
                self.varint()?;
                0
            }
            1 => 8,
            LENGTH_DELIMITED => self.varint()?,
            5 => 4,
            _ => return None,
        };
        self.0 = self.0.get(bytes..)?;
        Some(Field { number, wire_type })
    }

    /// A length is a varint like any other.
    fn varint(&mut self) -> Option<usize> {
        prost::decode_length_delimiter(&mut self.0).ok()
    }
}
