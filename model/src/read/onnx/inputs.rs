//! How many features a row has, and which input of the graph takes which of them.
//!
//! One input of shape `[batch, features]` is the rule. Several inputs, as converters write them for a data frame, take their
//! features one after the other.

use std::collections::HashSet;

use super::errors::{malformed, quoted, unsupported};
use super::graph::{Graph, Input};
use super::node::Node;
use super::rows::{Element, Rows};
use super::tensor::element;
use crate::form::limits::FEATURES_MAX;
use crate::read::ReadError;

/// The features of a row.
pub(super) struct Features {
    pub count: usize,
    /// As many as features, or none.
    pub names: Vec<String>,
    /// How many rows the graph takes at once, if it says so. A `Reshape` may count on it.
    pub batch: Option<usize>,
    /// For each input: its name, the first of its features, and what shape they have.
    pub inputs: Vec<(String, usize, Rows)>,
}

impl Features {
    /// Of a graph; `told` is what the operator says.
    pub fn of(graph: &Graph, told: Option<usize>) -> Result<Features, ReadError> {
        let mut features = Features { count: 0, names: Vec::new(), batch: None, inputs: Vec::new() };
        for input in &graph.inputs {
            let what = format!("the input {}", quoted(&input.name));
            let element = element_of(input, &what)?;
            let dims = match own_dims(input, &what)? {
                Ok(dims) => dims,
                Err(Unknown) if graph.inputs.len() == 1 => vec![told_or_inferred(graph, input, told)?],
                Err(Unknown) => {
                    let instead = "with several inputs, each is to say how many features it takes";
                    return Err(unsupported(format!("{what} of unknown width"), instead));
                }
            };
            let width = dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
            let width = width.filter(|width| (1..=FEATURES_MAX - features.count.min(FEATURES_MAX)).contains(width));
            let Some(width) = width else {
                return Err(unsupported(format!("{what} of {dims:?} features"), format!("{FEATURES_MAX} in all are")));
            };
            features.batch = features.batch.or(input.dims.as_ref().and_then(|dims| dims[0]));
            features.inputs.push((input.name.clone(), features.count, Rows { value: 0, dims, batch: 0, element }));
            features.count += width;
        }
        if features.count == 0 {
            return Err(malformed("the graph has no input"));
        }
        if let Some(told) = told.filter(|told| *told != features.count) {
            let instead = format!("leave --features out, or say {}", features.count);
            return Err(unsupported(format!("rows of {} features, not {told}", features.count), instead));
        }
        // Names of columns are a data frame's.
        if graph.inputs.len() > 1 && graph.inputs.len() == features.count {
            features.names = graph.inputs.iter().map(|input| input.name.clone()).collect();
        }
        Ok(features)
    }
}

fn element_of(input: &Input, what: &str) -> Result<Element, ReadError> {
    match input.element {
        element::FLOAT => Ok(Element::Float),
        element::DOUBLE => Ok(Element::Double),
        other => {
            let instead = "features are floats: export the model with float inputs (FloatTensorType)";
            Err(unsupported(format!("{what} of {}", element::name(other)), instead))
        }
    }
}

/// A row's own dimensions are not all known.
struct Unknown;

fn own_dims(input: &Input, what: &str) -> Result<Result<Vec<usize>, Unknown>, ReadError> {
    let Some(dims) = &input.dims else { return Ok(Err(Unknown)) };
    let [_, own @ ..] = dims.as_slice() else {
        return Err(unsupported(format!("{what} without dimensions"), "an input of shape [batch, features] is"));
    };
    match own {
        [] => Err(unsupported(format!("{what} of one dimension"), "an input of shape [batch, features] is")),
        [None] => Ok(Err(Unknown)),
        own => match own.iter().copied().collect() {
            Some(own) => Ok(Ok(own)),
            None => {
                Err(unsupported(format!("{what} of unknown dimensions"), "say all but the batch when you export it"))
            }
        },
    }
}

fn told_or_inferred(graph: &Graph, input: &Input, told: Option<usize>) -> Result<usize, ReadError> {
    if let Some(told) = told {
        return Ok(told);
    }
    let mut search = Search { graph, aliases: HashSet::from([input.name.clone()]), features_min: 0 };
    for node in graph.nodes.iter().flatten() {
        let first = node.inputs.first();
        if first.is_some_and(|first| search.aliases.contains(first)) {
            let mut node = node.clone();
            node.open()?;
            if let Some(width) = search.width(&mut node)? {
                return Ok(width);
            }
        }
    }
    let what = format!("the input {} of unknown width", quoted(&input.name));
    let trees = match search.features_min {
        0 => String::new(),
        features => format!(" (its trees look at {features} of them at least)"),
    };
    Err(unsupported(
        what,
        format!("say how many features a row has with --features N{trees}, or export it with a shape"),
    ))
}

/// Looks for the first operator that says how many features it takes.
struct Search<'a> {
    graph: &'a Graph,
    /// The input, and what has as many columns as it.
    aliases: HashSet<String>,
    /// What trees look at.
    features_min: i64,
}

impl Search<'_> {
    fn width(&mut self, node: &mut Node) -> Result<Option<usize>, ReadError> {
        let several = |numbers: Option<Vec<f32>>| numbers.map(|numbers| numbers.len()).filter(|len| *len > 1);
        let per =
            |numbers: Option<Vec<f32>>, count: usize| numbers.and_then(|numbers| numbers.len().checked_div(count));
        let width = match node.operator.as_str() {
            "Scaler" => several(node.floats("offset")?),
            "Imputer" => several(node.floats("imputed_value_floats")?),
            "LinearRegressor" => {
                let targets = usize::try_from(node.integer("targets")?.unwrap_or(1)).unwrap_or_default();
                per(node.floats("coefficients")?, targets)
            }
            "LinearClassifier" => {
                let classes = node.floats("intercepts")?.map_or(0, |intercepts| intercepts.len());
                per(node.floats("coefficients")?, classes)
            }
            "MatMul" => self.second(node)?.and_then(|dims| dims.first().copied()),
            "Gemm" => {
                let turned = node.integer("transB")?.unwrap_or_default() != 0;
                self.second(node)?.and_then(|dims| dims.get(usize::from(turned)).copied())
            }
            "Add" | "Sub" | "Mul" | "Div" => {
                self.second(node)?.and_then(|dims| dims.last().copied()).filter(|dim| *dim > 1)
            }
            "TreeEnsembleRegressor" | "TreeEnsembleClassifier" | "TreeEnsemble" => {
                let ids = node.integers("nodes_featureids")?.unwrap_or_default();
                self.features_min = self.features_min.max(ids.into_iter().max().unwrap_or_default().saturating_add(1));
                return Ok(None);
            }
            "Cast" | "Identity" | "Normalizer" => None,
            _ => return Ok(None),
        };
        if width.is_none() {
            self.aliases.extend(node.outputs.first().cloned());
        }
        Ok(width)
    }

    /// Dimensions of the second input, if it is an initializer.
    fn second(&self, node: &Node) -> Result<Option<Vec<usize>>, ReadError> {
        let Some(name) = node.inputs.get(1) else { return Ok(None) };
        Ok(self.graph.initializer(name)?.map(|tensor| tensor.dims))
    }
}
