//! The graph as the file has it: nodes, what they give, initializers, inputs and outputs by name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use prost::Message;
use prost::bytes::Bytes;

use super::errors::{malformed, quoted, unsupported};
use super::node::{DOMAIN, DOMAIN_LONG, DOMAIN_ML, Node, first_twice};
use super::proto::{self, decode};
use super::tensor::{Tensor, element};
use crate::read::ReadError;

/// Versions of the operators that are known. Before 7 they broadcast otherwise; LightGBM's converter writes 8 where it needs
/// no more.
const OPSET_MIN: i64 = 7;
const OPSET_MAX: i64 = 27;
const OPSET_ML_MAX: i64 = 5;

pub(super) struct Graph {
    /// Versions of the operators.
    pub versions: Versions,
    /// In the file's order; taken out when they are computed.
    pub nodes: Vec<Option<Node>>,
    /// Which node gives a value.
    producers: HashMap<String, usize>,
    initializers: HashMap<String, Bytes>,
    /// Without those that have an initializer.
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
}

#[derive(Debug)]
pub(super) struct Input {
    pub name: String,
    /// A type of `TensorProto`.
    pub element: i32,
    /// None if nothing is said of its shape; in it, none for a dimension that has a name or nothing.
    pub dims: Option<Vec<Option<usize>>>,
}

#[derive(Debug)]
pub(super) struct Output {
    pub name: String,
    pub kind: OutputKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputKind {
    Floats,
    /// Integers or text.
    Labels,
    /// What a `ZipMap` gives: labels and floats.
    Maps,
}

impl Graph {
    pub fn decode(bytes: &Bytes) -> Result<Graph, ReadError> {
        let model: proto::Model = decode(bytes, "the file")?;
        let [graph] = model.graph.as_slice() else {
            return Err(malformed(format!("it has {} graphs", model.graph.len())));
        };
        let versions = Versions::of(&model.opset_import)?;
        let graph: proto::Graph = decode(graph, "the graph")?;
        if !graph.sparse_initializer.is_empty() {
            return Err(unsupported("sparse initializers", "write them as dense ones"));
        }
        let initializers = by_name(&graph.initializer)?;
        let inputs = graph.input.iter().map(Input::decode).collect::<Result<Vec<_>, _>>()?;
        let nodes = graph.node.iter().enumerate().map(|(index, bytes)| Node::decode(index, bytes));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let mut producers = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            for output in node.outputs.iter().filter(|output| !output.is_empty()) {
                if producers.insert(output.clone(), index).is_some() || initializers.contains_key(output) {
                    return Err(node.malformed(format!("gives {}, which is there already", quoted(output))));
                }
            }
        }
        let outputs = graph.output.iter().map(Output::decode).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<_> = inputs.into_iter().filter(|input| !initializers.contains_key(&input.name)).collect();
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let also_given = names.iter().copied().find(|name| producers.contains_key(*name));
        if let Some(name) = first_twice(&names).or(also_given) {
            return Err(malformed(format!("the input {} is there twice", quoted(name))));
        }
        let nodes = nodes.into_iter().map(Some).collect();
        Ok(Graph { versions, nodes, producers, initializers, inputs, outputs })
    }

    /// Which node gives a value; none for an input, an initializer, or what is not there at all.
    pub fn producer(&self, value: &str) -> Option<usize> {
        self.producers.get(value).copied()
    }

    pub fn initializer(&self, name: &str) -> Result<Option<Tensor>, ReadError> {
        let Some(bytes) = self.initializers.get(name) else { return Ok(None) };
        Ok(Some(Tensor::decode(bytes, &format!("the initializer {}", quoted(name)))?.1))
    }
}

/// Of the two domains that are known; none for one that the file does not import.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Versions {
    pub default: Option<i64>,
    pub ml: Option<i64>,
}

impl Versions {
    fn of(imports: &[Bytes]) -> Result<Versions, ReadError> {
        let mut versions = Versions::default();
        for import in imports {
            let import: proto::OperatorSet = decode(import, "an operator set")?;
            let (domain, version, range) = match import.domain.as_str() {
                DOMAIN | DOMAIN_LONG => (DOMAIN_LONG, &mut versions.default, OPSET_MIN..=OPSET_MAX),
                DOMAIN_ML => (DOMAIN_ML, &mut versions.ml, 1..=OPSET_ML_MAX),
                _ => continue,
            };
            if !range.contains(&import.version) {
                let instead = format!("versions {} to {} are: export it with target_opset", range.start(), range.end());
                return Err(unsupported(format!("version {} of the operators of {domain}", import.version), instead));
            }
            // skl2onnx writes the same line twice.
            if *version.get_or_insert(import.version) != import.version {
                return Err(malformed(format!("it imports two versions of {domain}")));
            }
        }
        Ok(versions)
    }
}

/// The name alone of a tensor.
#[derive(Clone, PartialEq, Message)]
struct NameOfTensor {
    #[prost(string, tag = "8")]
    name: String,
}

fn by_name(initializers: &[Bytes]) -> Result<HashMap<String, Bytes>, ReadError> {
    let mut tensors = HashMap::new();
    for bytes in initializers {
        let tensor: NameOfTensor = decode(bytes, "an initializer")?;
        match tensors.entry(tensor.name) {
            Entry::Occupied(entry) => {
                return Err(malformed(format!("the initializer {} is there twice", quoted(entry.key()))));
            }
            Entry::Vacant(entry) => {
                entry.insert(bytes.clone());
            }
        }
    }
    Ok(tensors)
}

impl Input {
    fn decode(bytes: &Bytes) -> Result<Input, ReadError> {
        let info: proto::ValueInfo = decode(bytes, "an input")?;
        let what = format!("the input {}", quoted(&info.name));
        let kind: proto::TypeProto = decode(&info.r#type.unwrap_or_default(), &what)?;
        let Some(tensor) = kind.tensor else {
            return Err(unsupported(format!("{what}, which is no tensor"), "a tensor of floats is"));
        };
        let tensor: proto::TensorType = decode(&tensor, &what)?;
        let dims = tensor.shape.map(|shape| dims_of(&shape, &what)).transpose()?;
        Ok(Input { name: info.name, element: tensor.elem_type, dims })
    }
}

fn dims_of(shape: &Bytes, what: &str) -> Result<Vec<Option<usize>>, ReadError> {
    let shape: proto::Shape = decode(shape, what)?;
    let dims = shape.dim.iter().map(|dim| {
        let dim: proto::Dimension = decode(dim, what)?;
        // Zero and less are what some writers have for a dimension that is not known.
        Ok(dim.value.and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0))
    });
    dims.collect()
}

impl Output {
    fn decode(bytes: &Bytes) -> Result<Output, ReadError> {
        let info: proto::ValueInfo = decode(bytes, "an output")?;
        let what = format!("the output {}", quoted(&info.name));
        let kind: proto::TypeProto = decode(&info.r#type.unwrap_or_default(), &what)?;
        let kind = match (kind.tensor, kind.sequence) {
            (Some(tensor), _) => {
                let tensor: proto::TensorType = decode(&tensor, &what)?;
                match tensor.elem_type {
                    element::FLOAT | element::DOUBLE => OutputKind::Floats,
                    element::INT64 | element::INT32 | element::STRING | element::BOOL => OutputKind::Labels,
                    other => {
                        let instead = "floats are, and labels beside them";
                        return Err(unsupported(format!("{what} of {}", element::name(other)), instead));
                    }
                }
            }
            (None, Some(_)) => OutputKind::Maps,
            (None, None) => return Err(malformed(format!("{what} has no type"))),
        };
        Ok(Output { name: info.name, kind })
    }
}
