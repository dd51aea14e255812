//! LightGBM's text format, `model.txt`, as LightGBM 2.0.12 to 4.x write it; its JSON dump is another format and not read.
//!
//! The file is lines of `key=value`: a header, a section for each tree, `end of trees`, then what no prediction needs (feature
//! importances, parameters, pandas' categories). A key that is not known is refused: LightGBM adds keys when the meaning of a
//! tree changes (`is_linear` came so). Semantics are those of `GBDT::LoadModelFromString`, `Tree::Tree(const char*)` and
//! `GBDT::Predict` in LightGBM's sources; the values of a categorical feature are the codes that LightGBM was trained with.
//!
//! One output is called `score`, or `probability` where it is one; classes are called by their index. A random forest's margin
//! is the sum of its trees and not their mean, as `predict(raw_score=True)` has it.
#![forbid(unsafe_code)]

mod categories;
mod fields;
mod header;
mod objective;
#[cfg(test)]
mod tests;
mod tree;

use self::fields::{Fields, Lines, malformed};
use self::header::Header;
use super::ReadError;
use crate::form::{Ensemble, Form, Rounding, Step, Tree};

/// What errors call the format.
const FORMAT: &str = "LightGBM";

/// What follows the trees: `end of trees` from 2.2 on, before that the importances.
const AFTER_TREES: [&[u8]; 3] = [b"end of trees", b"feature importances:", b"feature_importances:"];

/// Whether the first line is the one that LightGBM begins its models with.
pub(super) fn is_lightgbm(bytes: &[u8]) -> bool {
    Lines::new(bytes).next() == Some(b"tree")
}

/// Reads a model; what it gives has still to be checked by [`Form::check`].
///
/// # Errors
/// If the file is malformed or holds what is not supported.
pub(super) fn read(bytes: &[u8]) -> Result<Form, ReadError> {
    let mut lines = Lines::new(bytes);
    if lines.next() != Some(b"tree") {
        return Err(malformed("the first line is not \"tree\""));
    }
    let header = Header::read(&mut lines)?;
    let trees = read_trees(&mut lines, &header)?;
    check_count(&header, trees.len())?;
    Ok(form(header, trees))
}

fn read_trees(lines: &mut Lines<'_>, header: &Header) -> Result<Vec<Tree>, ReadError> {
    let mut trees = Vec::new();
    loop {
        match lines.next() {
            Some(line) if line.starts_with(b"Tree=") => {
                let index = trees.len();
                let fields = Fields::read(lines, format!("tree {index}"), tree::KEYS)?;
                let target = (index % header.trees_per_iteration) as u32;
                trees.push(tree::read(&fields, header.feature_dim, target)?);
            }
            Some(line) if AFTER_TREES.contains(&line) => return Ok(trees),
            Some(_) => {
                return Err(malformed(format!("after {} trees comes neither a tree nor their end", trees.len())));
            }
            None => return Err(malformed(format!("it is cut: it ends after {} trees", trees.len()))),
        }
    }
}

/// The header tells how many trees there are, and there are as many for each class.
fn check_count(header: &Header, trees: usize) -> Result<(), ReadError> {
    if let Some(expected) = header.trees
        && expected != trees
    {
        return Err(malformed(format!("it has {trees} trees, tree_sizes has {expected}")));
    }
    if !trees.is_multiple_of(header.trees_per_iteration) {
        let iteration = header.trees_per_iteration;
        return Err(malformed(format!(
            "it has {trees} trees, which is no multiple of num_tree_per_iteration={iteration}"
        )));
    }
    if header.average && trees == 0 {
        return Err(malformed("average_output stands for no tree"));
    }
    Ok(())
}

fn form(header: Header, trees: Vec<Tree>) -> Form {
    let targets = header.trees_per_iteration;
    let iterations = (trees.len() / targets) as f64;
    let ensemble = Ensemble {
        targets,
        trees,
        rounding: Rounding::F64,
        start: vec![0.0; targets],
        factor: if header.average { 1.0 / iterations } else { 1.0 },
        offset: vec![0.0; targets],
    };
    let mut steps = vec![Step::Trees { input: 0, ensemble }];
    let (mut margin, mut score) = (1, 1);
    if let Some(transform) = header.objective.transform {
        steps.push(Step::Apply { input: 1, transform });
        score = steps.len();
    }
    if header.average {
        let scale = vec![iterations as f32; targets];
        steps.push(Step::Scale { input: 1, offset: vec![0.0; targets], scale });
        margin = steps.len();
    }
    // Two classes are one output, P(class 1), however the model counts them.
    let two_classes = header.objective.classes && targets == 2;
    if two_classes {
        for value in [&mut margin, &mut score] {
            steps.push(Step::Select { input: *value, columns: vec![1] });
            *value = steps.len();
        }
    }
    let output_names = match targets {
        2 if two_classes => vec!["probability".to_owned()],
        1 if header.objective.probability => vec!["probability".to_owned()],
        1 => vec!["score".to_owned()],
        _ => (0..targets).map(|class| class.to_string()).collect(),
    };
    let kind = format!("{FORMAT}, {}", header.objective.name);
    Form {
        kind,
        feature_dim: header.feature_dim,
        feature_names: header.feature_names,
        steps,
        margin,
        score,
        output_names,
    }
}
