//! A node of the graph and its attributes.
//!
//! An operator takes the attributes that it knows; [`Node::finish`] refuses what is left, so that nothing in a file is ignored
//! in silence.

use std::fmt;

use prost::bytes::Bytes;

use super::errors::{malformed, quoted, unsupported};
use super::proto::{self, decode};
use super::tensor::{Tensor, texts};
use crate::read::ReadError;

#[derive(Clone)]
pub(super) struct Node {
    /// Its place in the file, from 0.
    index: usize,
    name: String,
    pub operator: String,
    pub domain: String,
    /// Names of values; empty where an optional one is left out.
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    /// Not decoded before the node is opened: most of a file is in them.
    closed: Vec<Bytes>,
    attributes: Vec<proto::Attribute>,
}

/// For people: `node "name" (Gemm)`, or `node 3 (Gemm)` if it has no name.
impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = if self.domain.is_empty() { String::new() } else { format!("{}.", quoted_bare(&self.domain)) };
        let operator = format!("{domain}{}", quoted_bare(&self.operator));
        match self.name.as_str() {
            "" => write!(formatter, "node {} ({operator})", self.index),
            name => write!(formatter, "node {} ({operator})", quoted(name)),
        }
    }
}

fn quoted_bare(text: &str) -> String {
    quoted(text).trim_matches('"').to_owned()
}

/// The two domains whose operators are known. The first one has two names.
pub(super) const DOMAIN: &str = "";
pub(super) const DOMAIN_LONG: &str = "ai.onnx";
pub(super) const DOMAIN_ML: &str = "ai.onnx.ml";

impl Node {
    pub fn decode(index: usize, bytes: &Bytes) -> Result<Node, ReadError> {
        let proto: proto::Node = decode(bytes, &format!("node {index}"))?;
        let domain = if proto.domain == DOMAIN_LONG { DOMAIN.to_owned() } else { proto.domain };
        Ok(Node {
            index,
            name: proto.name,
            operator: proto.op_type,
            domain,
            inputs: proto.input,
            outputs: proto.output,
            closed: proto.attribute,
            attributes: Vec::new(),
        })
    }

    /// Decodes the attributes. To be called once, before the first is taken.
    pub fn open(&mut self) -> Result<(), ReadError> {
        let what = format!("an attribute of {self}");
        self.attributes = self.closed.drain(..).map(|bytes| decode(&bytes, &what)).collect::<Result<_, _>>()?;
        let names: Vec<&str> = self.attributes.iter().map(|attribute| attribute.name.as_str()).collect();
        match first_twice(&names) {
            Some(twice) => Err(self.malformed(format!("has the attribute {} twice", quoted(twice)))),
            None => Ok(()),
        }
    }

    pub fn malformed(&self, what: impl fmt::Display) -> ReadError {
        malformed(format!("{self} {what}"))
    }

    /// `what` follows the node's name and `with`.
    pub fn unsupported(&self, what: impl fmt::Display, instead: impl Into<String>) -> ReadError {
        unsupported(format!("{self} with {what}"), instead)
    }

    /// Takes an attribute out, if it is there; `kind` is its `AttributeType`.
    fn take(&mut self, name: &str, kind: i32, kind_name: &str) -> Result<Option<proto::Attribute>, ReadError> {
        let Some(index) = self.attributes.iter().position(|attribute| attribute.name == name) else { return Ok(None) };
        let attribute = self.attributes.swap_remove(index);
        if !attribute.ref_attr_name.is_empty() {
            return Err(self.malformed(format!("has the attribute {name} of a function, outside of one")));
        }
        // Files before IR version 2 have no type.
        if attribute.kind != kind && attribute.kind != 0 {
            return Err(self.malformed(format!("has an attribute {name} that is no {kind_name}")));
        }
        Ok(Some(attribute))
    }

    pub fn float(&mut self, name: &str) -> Result<Option<f32>, ReadError> {
        Ok(self.take(name, 1, "float")?.map(|attribute| attribute.f.unwrap_or_default()))
    }

    pub fn integer(&mut self, name: &str) -> Result<Option<i64>, ReadError> {
        Ok(self.take(name, 2, "integer")?.map(|attribute| attribute.i.unwrap_or_default()))
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, ReadError> {
        let Some(attribute) = self.take(name, 3, "text")? else { return Ok(None) };
        let text = String::from_utf8(attribute.s.unwrap_or_default().to_vec());
        text.map(Some).map_err(|_| self.malformed(format!("has an attribute {name} that is not UTF-8")))
    }

    pub fn tensor(&mut self, name: &str) -> Result<Option<Tensor>, ReadError> {
        let Some(attribute) = self.take(name, 4, "tensor")? else { return Ok(None) };
        let what = format!("attribute {name} of {self}");
        Ok(Some(Tensor::decode(&attribute.t.unwrap_or_default(), &what)?.1))
    }

    pub fn floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, ReadError> {
        Ok(self.take(name, 6, "list of floats")?.map(|attribute| attribute.floats))
    }

    pub fn integers(&mut self, name: &str) -> Result<Option<Vec<i64>>, ReadError> {
        Ok(self.take(name, 7, "list of integers")?.map(|attribute| attribute.ints))
    }

    /// As they lie in the file.
    pub fn raw_texts(&mut self, name: &str) -> Result<Option<Vec<Bytes>>, ReadError> {
        Ok(self.take(name, 8, "list of texts")?.map(|attribute| attribute.strings))
    }

    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, ReadError> {
        let Some(raw) = self.raw_texts(name)? else { return Ok(None) };
        texts(&raw, &format!("attribute {name} of {self}")).map(Some)
    }

    /// Leaves out an attribute that changes nothing.
    pub fn ignore(&mut self, name: &str) {
        self.attributes.retain(|attribute| attribute.name != name);
    }

    /// Refuses the attributes that nobody took.
    pub fn finish(&self) -> Result<(), ReadError> {
        match self.attributes.first() {
            None => Ok(()),
            Some(attribute) => {
                let what = format!("the attribute {}", quoted(&attribute.name));
                Err(self.unsupported(what, "export the model without it"))
            }
        }
    }
}

/// The first text that is in the list twice.
pub(super) fn first_twice<'a>(texts: &[&'a str]) -> Option<&'a str> {
    let mut sorted = texts.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}
