//! Files written with the messages that the reader reads, each for one trap of the format; scores are computed by hand.

mod dense;
mod graphs;
mod hostile;
mod trees;

use prost::Message;
use prost::bytes::Bytes;

use super::proto::{self, TensorProto};
use super::tensor::element;
use crate::engine::Compiled;
use crate::form::{Choice, Form, Output};
use crate::read::ReadError;
use crate::{Model, RowSource, Rows};

const NAN: f32 = f32::NAN;
const INFINITY: f32 = f32::INFINITY;

/// A graph of one input of floats, `X`.
#[derive(Clone)]
struct File {
    opset: i64,
    nodes: Vec<Node>,
    initializers: Vec<TensorProto>,
    inputs: Vec<(String, i32, Vec<Option<i64>>)>,
    /// Names and types; of what a `ZipMap` gives, none.
    outputs: Vec<(String, Option<i32>)>,
}

impl File {
    /// Of rows of `width` features.
    fn new(width: i64) -> File {
        File {
            opset: 18,
            nodes: Vec::new(),
            initializers: Vec::new(),
            inputs: vec![("X".to_owned(), element::FLOAT, vec![None, Some(width)])],
            outputs: Vec::new(),
        }
    }

    fn opset(self, opset: i64) -> File {
        File { opset, ..self }
    }

    /// Another input, after those that are there.
    fn input(mut self, name: &str, element: i32, dims: &[Option<i64>]) -> File {
        self.inputs.push((name.to_owned(), element, dims.to_vec()));
        self
    }

    /// Without `X`.
    fn no_input(mut self) -> File {
        self.inputs.clear();
        self
    }

    fn node(mut self, node: Node) -> File {
        self.nodes.push(node);
        self
    }

    fn floats(mut self, name: &str, dims: &[i64], numbers: &[f32]) -> File {
        self.initializers.push(TensorProto { name: name.to_owned(), ..floats(dims, numbers) });
        self
    }

    fn integers(mut self, name: &str, dims: &[i64], numbers: &[i64]) -> File {
        self.initializers.push(TensorProto { name: name.to_owned(), ..integers(dims, numbers) });
        self
    }

    fn output(mut self, name: &str) -> File {
        self.outputs.push((name.to_owned(), Some(element::FLOAT)));
        self
    }

    fn label(mut self, name: &str) -> File {
        self.outputs.push((name.to_owned(), Some(element::INT64)));
        self
    }

    fn maps(mut self, name: &str) -> File {
        self.outputs.push((name.to_owned(), None));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let graph = proto::Graph {
            node: self.nodes.iter().map(Node::bytes).collect(),
            initializer: self.initializers.iter().map(bytes_of).collect(),
            sparse_initializer: Vec::new(),
            input: self.inputs.iter().map(|(name, element, dims)| tensor_info(name, *element, dims)).collect(),
            output: self.outputs.iter().map(output_info).collect(),
        };
        let import = |domain: &str, version| bytes_of(&proto::OperatorSet { domain: domain.to_owned(), version });
        let imports = vec![import("", self.opset), import("ai.onnx.ml", 3)];
        proto::Model { ir_version: 8, graph: vec![bytes_of(&graph)], opset_import: imports }.encode_to_vec()
    }

    fn read(&self) -> Result<Form, ReadError> {
        super::read(&self.bytes(), None)
    }

    #[track_caller]
    fn form(&self) -> Form {
        let form = self.read().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(form.check(), Ok(()));
        form
    }

    /// All scores of some rows.
    #[track_caller]
    fn scores<const N: usize>(&self, rows: &[[f32; N]]) -> Vec<f32> {
        scores_of(self.form(), false, rows.as_flattened())
    }

    #[track_caller]
    fn margins<const N: usize>(&self, rows: &[[f32; N]]) -> Vec<f32> {
        scores_of(self.form(), true, rows.as_flattened())
    }

    /// Fails unless the file is refused with a message that has all of these words.
    #[track_caller]
    fn assert_refused(&self, words: &[&str]) {
        assert_refused(&self.bytes(), words);
    }
}

#[track_caller]
fn assert_refused(file: &[u8], words: &[&str]) {
    let error = match super::read(file, None) {
        Ok(form) => panic!("it is read, {words:?} is not seen: {form:?}"),
        Err(error) => error.to_string(),
    };
    assert!(words.iter().all(|word| error.contains(word)), "{error:?} does not say {words:?}");
}

fn scores_of(mut form: Form, raw: bool, rows: &[f32]) -> Vec<f32> {
    form.choose(&Choice { output: Some(Output::All), raw }).expect("all can be chosen");
    let mut model = Compiled::new(form, "test");
    let wire = Wire(rows.iter().flat_map(|value| value.to_le_bytes()).collect());
    let count = rows.len() / model.feature_dim();
    let mut scores = vec![0.0; count * model.outputs()];
    model.predict(&Rows::new(&wire, count, model.feature_dim()), &mut scores).expect("it scores");
    scores
}

struct Wire(Vec<u8>);

impl RowSource for Wire {
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
        visitor(&[&self.0]);
    }
}

#[derive(Clone, Default)]
struct Node {
    operator: String,
    domain: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    attributes: Vec<proto::Attribute>,
}

/// A node of the default domain, or one of `ai.onnx.ml` if its name begins with `ml.`; names are put apart by blanks, and `-`
/// is one that is left out.
fn node(operator: &str, inputs: &str, outputs: &str) -> Node {
    let names = |names: &str| names.split_whitespace().map(|name| name.trim_matches('-').to_owned()).collect();
    let (domain, operator) = match operator.strip_prefix("ml.") {
        Some(operator) => ("ai.onnx.ml", operator),
        None => ("", operator),
    };
    let (operator, domain) = (operator.to_owned(), domain.to_owned());
    Node { operator, domain, inputs: names(inputs), outputs: names(outputs), attributes: Vec::new() }
}

impl Node {
    fn with(mut self, name: &str, kind: i32, change: impl FnOnce(&mut proto::Attribute)) -> Node {
        self.attributes.retain(|attribute| attribute.name != name);
        let mut attribute = proto::Attribute { name: name.to_owned(), kind, ..proto::Attribute::default() };
        change(&mut attribute);
        self.attributes.push(attribute);
        self
    }

    fn float(self, name: &str, number: f32) -> Node {
        self.with(name, 1, |attribute| attribute.f = Some(number))
    }

    fn integer(self, name: &str, number: i64) -> Node {
        self.with(name, 2, |attribute| attribute.i = Some(number))
    }

    fn text(self, name: &str, text: &str) -> Node {
        self.with(name, 3, |attribute| attribute.s = Some(text.to_owned().into()))
    }

    fn tensor(self, name: &str, tensor: &TensorProto) -> Node {
        self.with(name, 4, |attribute| attribute.t = Some(bytes_of(tensor)))
    }

    fn floats(self, name: &str, numbers: &[f32]) -> Node {
        self.with(name, 6, |attribute| attribute.floats = numbers.to_vec())
    }

    fn integers(self, name: &str, numbers: &[i64]) -> Node {
        self.with(name, 7, |attribute| attribute.ints = numbers.to_vec())
    }

    fn texts(self, name: &str, texts: &[&str]) -> Node {
        self.with(name, 8, |attribute| attribute.strings = texts.iter().map(|text| (*text).to_owned().into()).collect())
    }

    fn without(mut self, name: &str) -> Node {
        self.attributes.retain(|attribute| attribute.name != name);
        self
    }

    fn bytes(&self) -> Bytes {
        let node = self.clone();
        bytes_of(&proto::Node {
            input: node.inputs,
            output: node.outputs,
            name: String::new(),
            op_type: node.operator,
            domain: node.domain,
            attribute: node.attributes.iter().map(bytes_of).collect(),
        })
    }
}

fn bytes_of(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn floats(dims: &[i64], numbers: &[f32]) -> TensorProto {
    let float_data = numbers.to_vec();
    TensorProto { dims: dims.to_vec(), data_type: element::FLOAT, float_data, ..TensorProto::default() }
}

fn doubles(numbers: &[f64]) -> TensorProto {
    let dims = vec![i64::try_from(numbers.len()).expect("few")];
    TensorProto { dims, data_type: element::DOUBLE, double_data: numbers.to_vec(), ..TensorProto::default() }
}

fn integers(dims: &[i64], numbers: &[i64]) -> TensorProto {
    let int64_data = numbers.to_vec();
    TensorProto { dims: dims.to_vec(), data_type: element::INT64, int64_data, ..TensorProto::default() }
}

fn tensor_info(name: &str, element: i32, dims: &[Option<i64>]) -> Bytes {
    let dim = |value: &Option<i64>| bytes_of(&proto::Dimension { value: *value, parameter: None });
    let shape = Some(bytes_of(&proto::Shape { dim: dims.iter().map(dim).collect() }));
    let tensor = Some(bytes_of(&proto::TensorType { elem_type: element, shape }));
    info(name, proto::TypeProto { tensor, ..proto::TypeProto::default() })
}

fn info(name: &str, kind: proto::TypeProto) -> Bytes {
    bytes_of(&proto::ValueInfo { name: name.to_owned(), r#type: Some(bytes_of(&kind)) })
}

fn output_info((name, element): &(String, Option<i32>)) -> Bytes {
    match element {
        Some(element) => tensor_info(name, *element, &[None, None]),
        None => info(name, proto::TypeProto { sequence: Some(Bytes::new()), ..proto::TypeProto::default() }),
    }
}

/// Whether numbers are the same within a millionth.
#[track_caller]
fn assert_near(found: &[f32], wanted: &[f64]) {
    let near = |(found, wanted): (&f32, &f64)| (f64::from(*found) - wanted).abs() <= 1e-6 * wanted.abs().max(1.0);
    assert!(found.len() == wanted.len() && found.iter().zip(wanted).all(near), "{found:?}, not {wanted:?}");
}
