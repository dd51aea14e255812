//! What there is to say about a model, to people who know its file.
//!
//! Names come from the file, which anybody may have written: they are shown without what would move a terminal's cursor, and
//! not at any length.
#![forbid(unsafe_code)]

use std::fmt;

#[cfg(feature = "onnxruntime")]
use crate::Model as _;
use crate::form::{Form, Step};
#[cfg(feature = "onnxruntime")]
use crate::{onnxruntime::Onnxruntime, read::ReadError};

/// What there is to say about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What it is called.
    pub name: String,
    /// What the file is: `LightGBM, binary`.
    pub kind: String,
    /// Features in each row.
    pub features: usize,
    /// What they are called; none if the file does not say.
    pub feature_names: Vec<String>,
    /// What the outputs that are served are called.
    pub outputs: Vec<String>,
    /// Trees, in all ensembles.
    pub trees: usize,
    /// Leaves of the largest tree.
    pub leaves_max: usize,
    /// Splits on the longest path of any tree.
    pub depth_max: usize,
    /// What scores.
    pub engine: String,
    /// Bytes that the compiled model takes; 0 if that is not known.
    pub bytes: usize,
    /// Whether its engine promises that a row has the same scores in any batch, bit for bit.
    pub same_bits: bool,
    /// The first 8 bytes of the file's SHA-256, as a big-endian number: which version of a model this is.
    pub version: u64,
}

impl Facts {
    pub(crate) fn of_form(form: &Form, name: String, version: u64) -> Facts {
        let trees = form.steps.iter().flat_map(|step| match step {
            Step::Trees { ensemble, .. } => &ensemble.trees[..],
            _ => &[],
        });
        Facts {
            name,
            kind: form.kind.clone(),
            features: form.feature_dim,
            feature_names: form.feature_names.clone(),
            outputs: form.output_names.clone(),
            trees: trees.clone().count(),
            leaves_max: trees.clone().map(|tree| tree.leaves.count).max().unwrap_or(0),
            depth_max: trees.map(|tree| tree.depth()).max().unwrap_or(0),
            engine: String::new(),
            bytes: 0,
            same_bits: true,
            version,
        }
    }

    /// Of a file that onnxruntime scores; `unsupported` is why.
    #[cfg(feature = "onnxruntime")]
    pub(crate) fn of_onnxruntime(model: &Onnxruntime, unsupported: &ReadError, name: String, version: u64) -> Facts {
        let kind = match unsupported {
            ReadError::ForOnnxruntime { what, .. } => format!("ONNX with {what}"),
            _ => "ONNX".to_owned(),
        };
        Facts {
            name,
            kind,
            features: model.feature_dim(),
            feature_names: Vec::new(),
            outputs: model.output_names().to_vec(),
            trees: 0,
            leaves_max: 0,
            depth_max: 0,
            engine: Onnxruntime::engine(),
            bytes: 0,
            same_bits: false,
            version,
        }
    }

    /// The version as it is written everywhere.
    pub fn version_text(&self) -> String {
        format!("{:016x}", self.version)
    }
}

/// In lines, the first of which is that of any model.
impl fmt::Display for Facts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = if self.outputs.len() > 1 { format!(", {} outputs", self.outputs.len()) } else { String::new() };
        writeln!(formatter, "model: {}, {} features{several}", printable(&self.name), self.features)?;
        writeln!(formatter, "file: {}, version {}", printable(&self.kind), self.version_text())?;
        if !self.feature_names.is_empty() {
            writeln!(formatter, "features: {}", listed(&self.feature_names, |_, name| name))?;
        }
        if self.outputs.iter().ne(["0"]) {
            let numbered = |index: usize, name: String| {
                if self.outputs.len() == 1 || name == index.to_string() { name } else { format!("{index} {name}") }
            };
            let what = if self.outputs.len() == 1 { "output" } else { "outputs" };
            writeln!(formatter, "{what}: {}", listed(&self.outputs, numbered))?;
        }
        if self.trees > 0 {
            let (trees, leaves, depth) = (self.trees, self.leaves_max, self.depth_max);
            writeln!(formatter, "trees: {trees}, of at most {leaves} leaves and depth {depth}")?;
        }
        match self.bytes {
            0 => writeln!(formatter, "engine: {}", self.engine),
            bytes => writeln!(formatter, "engine: {}, {} KiB in memory", self.engine, bytes.div_ceil(1024)),
        }
    }
}

/// All names if they are few, else the first ones and how many more.
fn listed(names: &[String], shown: impl Fn(usize, String) -> String) -> String {
    const ALL_MAX: usize = 16;
    const FIRST: usize = 8;
    let count = if names.len() > ALL_MAX { FIRST } else { names.len() };
    let first = names[..count].iter().enumerate().map(|(index, name)| shown(index, printable(name)));
    let more = (names.len() > count).then(|| format!("… and {} more", names.len() - count));
    first.chain(more).collect::<Vec<_>>().join(", ")
}

/// A name of a file's, for a terminal.
fn printable(name: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let mut shown: String = name.chars().take(CHARACTERS_MAX).flat_map(escaped).collect();
    if name.chars().nth(CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn escaped(letter: char) -> impl Iterator<Item = char> {
    let (same, other) = if letter.is_control() { (None, Some(letter.escape_default())) } else { (Some(letter), None) };
    same.into_iter().chain(other.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(features: usize, outputs: &[&str]) -> Facts {
        Facts {
            name: "m".to_owned(),
            kind: "Test, two\nlines".to_owned(),
            features,
            feature_names: (0..features).map(|feature| format!("f{feature}")).collect(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            trees: 3,
            leaves_max: 4,
            depth_max: 2,
            engine: "walk".to_owned(),
            bytes: 1025,
            same_bits: true,
            version: 0xfe,
        }
    }

    /// A file's names are shown in lines of their own, all or as many as fit, and none of them moves the cursor.
    #[test]
    fn facts_are_said_in_lines() {
        assert_eq!(
            facts(2, &["0"]).to_string(),
            "model: m, 2 features\nfile: Test, two\\nlines, version 00000000000000fe\nfeatures: f0, f1\n\
             trees: 3, of at most 4 leaves and depth 2\nengine: walk, 2 KiB in memory\n"
        );
        let said = facts(17, &["0", "b", "c"]).to_string();
        assert!(
            said.contains("model: m, 17 features, 3 outputs\n") && said.contains("f6, f7, … and 9 more\n"),
            "{said}"
        );
        assert!(said.contains("\noutputs: 0, 1 b, 2 c\n"), "{said}");
        assert!(facts(1, &["setosa"]).to_string().contains("\noutput: setosa\n"));
        let long = Facts { feature_names: vec!["ä".repeat(1000)], trees: 0, ..facts(1, &["0"]) }.to_string();
        assert!(long.lines().all(|line| line.chars().count() < 80) && !long.contains("trees"), "{long}");
    }
}
