//! Whether a file holds all of its weights.
//!
//! ONNX lets a tensor name another file, by a path that whoever wrote the file chose. A runtime would open it; and a
//! model's version would not tell one set of weights from another.

use prost::Message;
use prost::bytes::Bytes;

use super::proto::decode;
use crate::read::ReadError;

/// Whether none of the tensors of a file, in whatever subgraph or function, lies in another file.
///
/// # Errors
/// If the file is malformed.
pub(crate) fn is_whole(bytes: &[u8]) -> Result<bool, ReadError> {
    // A list and no recursion: a file may be as deep as it likes.
    let mut parts = vec![Part::Model(Bytes::copy_from_slice(bytes))];
    while let Some(part) = parts.pop() {
        match part {
            Part::Model(bytes) => {
                let model: Model = decode(&bytes, "the file")?;
                parts.extend(model.graph.into_iter().map(Part::Graph));
                parts.extend(model.functions.into_iter().map(Part::Function));
            }
            Part::Graph(bytes) => {
                let graph: Graph = decode(&bytes, "a graph")?;
                parts.extend(graph.node.into_iter().map(Part::Node));
                parts.extend(graph.initializer.into_iter().map(Part::Tensor));
                parts.extend(graph.sparse_initializer.into_iter().map(Part::SparseTensor));
            }
            Part::Function(bytes) => {
                parts.extend(decode::<Function>(&bytes, "a function")?.node.into_iter().map(Part::Node));
            }
            Part::Node(bytes) => {
                for attribute in decode::<Node>(&bytes, "a node")?.attribute {
                    let attribute: Attribute = decode(&attribute, "an attribute")?;
                    parts.extend(attribute.tensors.into_iter().map(Part::Tensor));
                    parts.extend(attribute.graphs.into_iter().map(Part::Graph));
                    parts.extend(attribute.sparse_tensors.into_iter().map(Part::SparseTensor));
                    parts.extend(attribute.tensor.into_iter().map(Part::Tensor));
                    parts.extend(attribute.graph.into_iter().map(Part::Graph));
                    parts.extend(attribute.sparse_tensor.into_iter().map(Part::SparseTensor));
                }
            }
            Part::SparseTensor(bytes) => {
                let SparseTensor { values, indices } = decode(&bytes, "a sparse tensor")?;
                parts.extend(values.into_iter().chain(indices).map(Part::Tensor));
            }
            Part::Tensor(bytes) => {
                let tensor: Tensor = decode(&bytes, "a tensor")?;
                if tensor.data_location != 0 || !tensor.external_data.is_empty() {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// A message that is still to be looked into.
enum Part {
    Model(Bytes),
    Graph(Bytes),
    Function(Bytes),
    Node(Bytes),
    SparseTensor(Bytes),
    Tensor(Bytes),
}

// The messages of `onnx.proto`, with the fields alone that lead to tensors. A field that is to be there once may be
// there twice in hostile bytes: it is repeated here, so that none is overlooked.

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(bytes = "bytes", repeated, tag = "7")]
    graph: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "25")]
    functions: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    node: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    initializer: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "15")]
    sparse_initializer: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(bytes = "bytes", repeated, tag = "7")]
    node: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(bytes = "bytes", repeated, tag = "5")]
    attribute: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(bytes = "bytes", repeated, tag = "5")]
    tensor: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    graph: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "10")]
    tensors: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    graphs: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "22")]
    sparse_tensor: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "23")]
    sparse_tensors: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensor {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    values: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    indices: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(bytes = "bytes", repeated, tag = "13")]
    external_data: Vec<Bytes>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: &impl Message) -> Bytes {
        message.encode_to_vec().into()
    }

    /// However deep, and in whatever kind of place, a tensor that lies elsewhere is found.
    #[test]
    fn weights_elsewhere_are_found_wherever_they_are() {
        let tensor = |data_location| bytes(&Tensor { external_data: Vec::new(), data_location });
        let sparse = |location| bytes(&SparseTensor { values: vec![tensor(0)], indices: vec![tensor(location)] });
        let node = |attribute: Attribute| bytes(&Node { attribute: vec![bytes(&attribute)] });
        let of = |graph: Graph| bytes(&Model { graph: vec![bytes(&graph)], functions: Vec::new() });
        for (location, whole) in [(0, true), (1, false)] {
            let inner = bytes(&Graph { initializer: vec![tensor(0), tensor(location)], ..Graph::default() });
            let deep = (0..2000).fold(inner.clone(), |graph, _| {
                let node = node(Attribute { graph: vec![graph], ..Attribute::default() });
                bytes(&Graph { node: vec![node], ..Graph::default() })
            });
            let in_attribute = node(Attribute { tensor: vec![tensor(location)], ..Attribute::default() });
            for file in [
                of(Graph { initializer: vec![tensor(location)], ..Graph::default() }),
                of(Graph { sparse_initializer: vec![sparse(location)], ..Graph::default() }),
                of(Graph { node: vec![in_attribute.clone()], ..Graph::default() }),
                of(Graph {
                    node: vec![node(Attribute { graphs: vec![inner.clone()], ..Attribute::default() })],
                    ..Graph::default()
                }),
                bytes(&Model { graph: vec![deep], functions: Vec::new() }),
                bytes(&Model { graph: Vec::new(), functions: vec![bytes(&Function { node: vec![in_attribute] })] }),
            ] {
                assert_eq!(is_whole(&file), Ok(whole));
            }
        }
        let listed = Tensor { external_data: vec![Bytes::from_static(b"\x0a\x00")], data_location: 0 };
        assert_eq!(is_whole(&of(Graph { initializer: vec![bytes(&listed)], ..Graph::default() })), Ok(false));
    }
}
