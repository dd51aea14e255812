//! Which output of the graph is served, and what its columns are called.
//!
//! A classifier gives a label and scores: the scores are served. Of two classes, only the second one's: P(class 1).

use super::errors::{quoted, unsupported};
use super::evaluate::Evaluation;
use super::graph::{Graph, Output, OutputKind};
use super::narrow::Narrow;
use super::node::DOMAIN_ML;
use super::rows::{Known, Rows};
use super::tensor::Numbers;
use crate::form::Form;
use crate::read::ReadError;

/// The output that is served.
pub(super) struct Served {
    pub name: String,
    kind: OutputKind,
    /// The label beside it.
    label: Option<String>,
}

impl Served {
    pub fn of(graph: &Graph) -> Result<Served, ReadError> {
        let (labels, scores): (Vec<&Output>, Vec<&Output>) =
            graph.outputs.iter().partition(|output| output.kind == OutputKind::Labels);
        let label = labels.first().map(|label| label.name.clone());
        match (scores.as_slice(), labels.as_slice()) {
            ([score], _) => Ok(Served { name: score.name.clone(), kind: score.kind, label }),
            ([], [only]) => Ok(Served { name: only.name.clone(), kind: only.kind, label: None }),
            _ => {
                let names: Vec<String> = graph.outputs.iter().take(8).map(|output| quoted(&output.name)).collect();
                let what = format!("{} outputs ({})", graph.outputs.len(), names.join(", "));
                let instead = "one output is, or a label and scores (for scikit-learn, not zipmap='columns')";
                Err(unsupported(what, instead))
            }
        }
    }

    /// Computes the output, and what it needs, into a form.
    pub fn compute(self, mut evaluation: Evaluation, feature_names: Vec<String>) -> Result<Form, ReadError> {
        let rows = self.rows(&mut evaluation)?;
        let labels = self.labels(&evaluation, rows.width())?;
        let program = &mut evaluation.program;
        let (mut score, mut margin) = (rows.value, program.margins.get(&rows.value).copied());
        let width = program.widths[score];
        let is_classifier = labels.is_some() || self.label.is_some() || self.kind == OutputKind::Maps;
        let is_binary = width == 2 && (is_classifier || program.softmax == Some(score));
        let mut output_names = labels.unwrap_or_else(|| (0..width).map(|index| index.to_string()).collect());
        if is_binary {
            let mut narrow = Narrow::new(program, score);
            score = narrow.column(score, 1)?;
            margin = margin.map(|margin| narrow.column(margin, 1)).transpose()?;
            margin = margin.or_else(|| narrow.program.margins.get(&score).copied());
            output_names.remove(0);
        }
        let feature_dim = program.widths[0];
        let kind = format!("ONNX, {}", program.kind());
        let margin = margin.filter(|margin| program.widths[*margin] == program.widths[score]).unwrap_or(score);
        let (steps, [score, margin]) = evaluation.program.prune([score, margin]);
        Ok(Form { kind, feature_dim, feature_names, steps, margin, score, output_names })
    }

    /// The output's rows: `[batch, columns]`, or one number for each row.
    fn rows(&self, evaluation: &mut Evaluation) -> Result<Rows, ReadError> {
        let what = format!("the output {}", quoted(&self.name));
        match evaluation.value(&self.name)? {
            Known::Rows(rows) if rows.batch == 0 && rows.dims.len() <= 1 => Ok(rows),
            Known::Rows(rows) => {
                Err(unsupported(format!("{what} of shape {}", rows.shape()), "an output of shape [batch, columns] is"))
            }
            Known::Labels => {
                let instead = "export the model with its probabilities or scores as an output";
                Err(unsupported(format!("{what}, a label without scores beside it"), instead))
            }
            Known::Constant(_) | Known::Extents(_) => {
                Err(unsupported(format!("{what}, which does not depend on the features"), "one that does is"))
            }
        }
    }

    /// What the classes are called: by a `ZipMap` or a classifier, or in the list that the label is chosen from.
    fn labels(&self, evaluation: &Evaluation, width: usize) -> Result<Option<Vec<String>>, ReadError> {
        if self.kind != OutputKind::Maps
            && let Some(label) = &self.label
            && let Some(listed) = listed_labels(&evaluation.graph, label)?
            && listed.len() == width
        {
            return Ok(Some(listed));
        }
        let labels = evaluation.program.labels.clone().filter(|_| self.kind != OutputKind::Labels);
        Ok(match (labels, width) {
            (Some(labels), width) if labels.len() == width => Some(labels),
            // One score for two classes is the second one's.
            (Some(labels), 1) if labels.len() == 2 => Some(labels[1..].to_vec()),
            _ => None,
        })
    }
}

/// The list that an `ArrayFeatureExtractor` on the way to the label chooses from.
fn listed_labels(graph: &Graph, label: &str) -> Result<Option<Vec<String>>, ReadError> {
    /// Steps between the list and the label: casts and reshapes.
    const HOPS_MAX: usize = 16;
    let mut name = label.to_owned();
    for _ in 0..HOPS_MAX {
        let producer = graph.producer(&name).and_then(|index| graph.nodes[index].as_ref());
        let Some(node) = producer else { return Ok(None) };
        let Some(first) = node.inputs.first() else { return Ok(None) };
        match node.operator.as_str() {
            "ArrayFeatureExtractor" if node.domain == DOMAIN_ML => {
                let list = graph.initializer(first)?.map(|tensor| tensor.numbers);
                return Ok(match list {
                    Some(Numbers::Integers(labels)) => Some(labels.iter().map(i64::to_string).collect()),
                    Some(Numbers::Text(labels)) => Some(labels.to_vec()),
                    _ => None,
                });
            }
            "Cast" | "Identity" | "Reshape" | "Squeeze" | "Flatten" => name.clone_from(first),
            _ => return Ok(None),
        }
    }
    Ok(None)
}
