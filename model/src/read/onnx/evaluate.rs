//! Computes the graph symbolically: from an output back to the inputs, node by node, each becoming steps of the program.
//!
//! Only what the output needs is looked at: how a classifier's label is computed is nobody's business here. Nothing recurses,
//! so a long chain of nodes needs no stack.

use std::collections::HashMap;

use super::errors::{malformed, quoted, unsupported};
use super::graph::Graph;
use super::inputs::Features;
use super::node::{DOMAIN, DOMAIN_ML, Node};
use super::operators;
use super::program::Program;
use super::rows::{Element, Known, Rows, mixes};
use super::tensor::Tensor;
use crate::form::Value;
use crate::read::ReadError;

pub(super) struct Evaluation {
    pub graph: Graph,
    pub program: Program,
    /// How many rows the graph takes at once, if it says so.
    pub batch: Option<usize>,
    known: HashMap<String, Known>,
    /// Nodes that something before them on the way back from the output waits for.
    open: Vec<bool>,
}

/// A node to compute, whose inputs are there.
pub(super) struct Call<'a> {
    pub node: Node,
    /// None for one that is left out.
    pub inputs: Vec<Option<Known>>,
    pub program: &'a mut Program,
    pub batch: Option<usize>,
    /// Version of the operator's domain.
    pub version: i64,
}

struct Visit {
    node: usize,
    inputs_are_there: bool,
}

impl Evaluation {
    pub fn new(graph: Graph, features: &Features, file_bytes: usize) -> Result<Evaluation, ReadError> {
        let mut program = Program::new(features.count, file_bytes);
        let mut known = HashMap::new();
        for (name, first, rows) in &features.inputs {
            let columns = (*first..first + rows.width()).collect();
            let value = program.select(&format!("the input {}", quoted(name)), 0, columns)?;
            known.insert(name.clone(), Known::Rows(Rows { value, ..rows.clone() }));
        }
        let open = vec![false; graph.nodes.len()];
        Ok(Evaluation { graph, program, batch: features.batch, known, open })
    }

    /// What a name stands for.
    pub fn value(&mut self, name: &str) -> Result<Known, ReadError> {
        let mut visits: Vec<Visit> = self.visit(name).into_iter().collect();
        while let Some(Visit { node: index, inputs_are_there }) = visits.pop() {
            if inputs_are_there {
                self.compute(index)?;
                continue;
            }
            // It is gone if another way led to it before.
            let Some(node) = &self.graph.nodes[index] else { continue };
            if std::mem::replace(&mut self.open[index], true) {
                return Err(node.malformed("needs its own result: the graph has a cycle"));
            }
            visits.push(Visit { node: index, inputs_are_there: true });
            visits.extend(node.inputs.iter().filter_map(|input| self.visit(input)));
        }
        self.lookup(name)?.ok_or_else(|| malformed(format!("nothing gives the output {}", quoted(name))))
    }

    /// The node to compute for a value that is not known yet.
    fn visit(&self, name: &str) -> Option<Visit> {
        if self.known.contains_key(name) {
            return None;
        }
        self.graph.producer(name).map(|node| Visit { node, inputs_are_there: false })
    }

    fn lookup(&mut self, name: &str) -> Result<Option<Known>, ReadError> {
        if let Some(known) = self.known.get(name) {
            return Ok(Some(known.clone()));
        }
        let Some(tensor) = self.graph.initializer(name)? else { return Ok(None) };
        self.known.insert(name.to_owned(), Known::Constant(tensor.clone()));
        Ok(Some(Known::Constant(tensor)))
    }

    fn compute(&mut self, index: usize) -> Result<(), ReadError> {
        let mut node = self.graph.nodes[index].take().expect("a node is computed once");
        node.open()?;
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            let known = match name.as_str() {
                "" => None,
                name => {
                    let missing = || node.malformed(format!("reads {}, which is not there", quoted(name)));
                    Some(self.lookup(name)?.ok_or_else(missing)?)
                }
            };
            inputs.push(known);
        }
        let outputs = node.outputs.clone();
        let version = match node.domain.as_str() {
            DOMAIN => self.graph.versions.default,
            DOMAIN_ML => self.graph.versions.ml,
            _ => return Err(unknown_operator(&node)),
        };
        let version = version.ok_or_else(|| node.malformed("is of a domain that the file does not import"))?;
        let mut call = Call { node, inputs, program: &mut self.program, batch: self.batch, version };
        let results = operators::compute(&mut call)?;
        call.node.finish()?;
        if outputs.iter().skip(results.len()).any(|output| !output.is_empty()) {
            return Err(call.node.unsupported(format!("{} outputs", outputs.len()), format!("{} are", results.len())));
        }
        for (name, known) in outputs.into_iter().zip(results) {
            self.known.insert(name, known);
        }
        Ok(())
    }
}

impl Call<'_> {
    fn input(&self, index: usize) -> Result<&Known, ReadError> {
        let missing = || self.node.malformed(format!("has no input {index}"));
        self.optional(index).ok_or_else(missing)
    }

    pub fn optional(&self, index: usize) -> Option<&Known> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// Rows of any shape and element.
    pub fn rows(&self, index: usize) -> Result<Rows, ReadError> {
        match self.input(index)? {
            Known::Rows(rows) => Ok(rows.clone()),
            Known::Constant(_) => {
                Err(self.node.unsupported(format!("a constant as input {index}"), "rows are expected"))
            }
            Known::Extents(_) => Err(self.node.unsupported(format!("a shape as input {index}"), "rows are expected")),
            Known::Labels => Err(self.labels(index)),
        }
    }

    /// Rows of floats, of any shape.
    pub fn floats(&self, index: usize) -> Result<Rows, ReadError> {
        let rows = self.rows(index)?;
        match rows.element {
            Element::Float => Ok(rows),
            Element::Double => {
                let instead = "export the model with float inputs (FloatTensorType), or with a Cast to float first";
                Err(self.node.unsupported("arithmetic in double", instead))
            }
            Element::Integer | Element::Truth => {
                Err(self.node.unsupported("arithmetic in integers", "with a Cast to float before it, it is"))
            }
        }
    }

    /// Rows of any element, of shape `[batch, width]`.
    pub fn flat(&self, index: usize) -> Result<Rows, ReadError> {
        let rows = self.rows(index)?;
        match rows.is_flat() {
            true => Ok(rows),
            false => {
                let what = format!("an input of shape {}, where [batch, features] is expected", rows.shape());
                Err(mixes(&self.node, &what))
            }
        }
    }

    /// Rows of floats, of shape `[batch, width]`.
    pub fn flat_floats(&self, index: usize) -> Result<Rows, ReadError> {
        self.floats(index).and_then(|_| self.flat(index))
    }

    pub fn constant(&self, index: usize) -> Result<&Tensor, ReadError> {
        match self.input(index)? {
            Known::Constant(tensor) => Ok(tensor),
            Known::Rows(_) | Known::Extents(_) => {
                let what = format!("an input {index} that depends on the rows");
                Err(self.node.unsupported(what, "a constant there is"))
            }
            Known::Labels => Err(self.labels(index)),
        }
    }

    /// A constant list of integers, or none if the input is left out.
    pub fn integers(&self, index: usize) -> Result<Option<Vec<i64>>, ReadError> {
        if self.optional(index).is_none() {
            return Ok(None);
        }
        let integers = self.constant(index)?.integers().map(<[i64]>::to_vec);
        integers.map(Some).ok_or_else(|| self.node.malformed(format!("has an input {index} that holds no integers")))
    }

    /// Integers that were an attribute before some version and are an input from then on.
    pub fn attribute_or_input(&mut self, name: &str, index: usize) -> Result<Option<Vec<i64>>, ReadError> {
        match self.node.integers(name)? {
            Some(integers) => Ok(Some(integers)),
            None => self.integers(index),
        }
    }

    fn labels(&self, index: usize) -> ReadError {
        let what = format!("labels as input {index}");
        self.node.unsupported(what, "export the model with its probabilities or scores as the output")
    }

    /// Refuses more inputs than `count`.
    pub fn inputs_max(&self, count: usize) -> Result<(), ReadError> {
        match self.inputs.len() <= count {
            true => Ok(()),
            false => Err(self.node.malformed(format!("has {} inputs, of {count} at most", self.inputs.len()))),
        }
    }

    pub fn push(&mut self, step: crate::form::Step) -> Result<Value, ReadError> {
        self.program.push_operator(&self.node, step)
    }
}

/// Refuses an operator that is not known.
pub(super) fn unknown_operator(node: &Node) -> ReadError {
    let known = match node.domain.as_str() {
        DOMAIN | DOMAIN_ML => "trees, linear models, dense layers and the scaling around them are",
        _ => "only operators of ai.onnx and ai.onnx.ml are known",
    };
    unsupported(node.to_string(), known)
}
