//! What was found, for people or in JSON.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use disrust_model::Facts;
use serde_json::{Map, Value, json};

use super::compare::Agreement;
use super::{Alone, Scored, VerifyError};
use crate::config::verify::VerifyOptions;

/// Rows whose scores are shown.
const SHOWN_ROWS_MAX: usize = 3;

/// Scores of a row that are shown.
const SHOWN_OUTPUTS_MAX: usize = 8;

/// What was found.
pub(super) struct Report {
    pub facts: Facts,
    /// The inputs' scores, if there were inputs.
    pub scored: Option<Scored>,
    /// Rows that were scored alone and together, and how that compares.
    pub alone_rows: usize,
    pub alone: Alone,
    /// By the number of rows at once.
    pub ns_per_row: Vec<(usize, f64)>,
}

impl Report {
    /// Whether nothing disagrees.
    pub fn agrees(&self) -> bool {
        let agreement = self.scored.as_ref().and_then(|scored| scored.agreement.as_ref());
        let alone_agrees = match self.alone {
            Alone::SameBits => true,
            Alone::Agrees => !self.facts.same_bits,
            Alone::Differs => false,
        };
        alone_agrees && agreement.is_none_or(Agreement::agrees)
    }

    /// Prints it to stdout, or to stderr if the scores are there.
    pub fn print(&self, options: &VerifyOptions) -> Result<(), VerifyError> {
        let text = if options.json { format!("{:#}\n", self.json()) } else { self.text() };
        if is_stdout(options.scores.as_deref()) {
            write_all(io::stderr().lock(), text.as_bytes(), Path::new("stderr"))
        } else {
            write_all(io::stdout().lock(), text.as_bytes(), Path::new("stdout"))
        }
    }

    fn json(&self) -> Value {
        let Facts { name, kind, features, feature_names, outputs, trees, leaves_max, depth_max, engine, bytes, .. } =
            &self.facts;
        let agreement = self.scored.as_ref().and_then(|scored| scored.agreement.as_ref());
        let worst = agreement.and_then(|agreement| agreement.worst.as_ref());
        let times = self.ns_per_row.iter().map(|(rows, ns)| (rows.to_string(), json!((ns * 10.0).round() / 10.0)));
        // What is no number is null in JSON: an infinite difference is told by `agrees`.
        json!({
            "name": name,
            "kind": kind,
            "version": self.facts.version_text(),
            "features": features,
            "feature_names": feature_names,
            "outputs": outputs.len(),
            "output_names": outputs,
            "trees": trees,
            "leaves_max": leaves_max,
            "depth_max": depth_max,
            "engine": engine,
            "bytes": bytes,
            "rows": self.scored.as_ref().map_or(0, |scored| scored.rows),
            "max_abs_error": agreement.map(|agreement| agreement.max_abs_error),
            "max_rel_error": agreement.map(|agreement| agreement.max_rel_error),
            "disagreements": agreement.map(|agreement| agreement.disagreements),
            "worst_row": worst.map(|worst| worst.row),
            "same_bits_in_any_batch": self.alone == Alone::SameBits,
            "agrees": self.agrees(),
            "ns_per_row": times.collect::<Map<_, _>>(),
        })
    }

    fn text(&self) -> String {
        let mut text = self.facts.to_string();
        // Writing to a text does not fail.
        let _written = self.write_scored(&mut text);
        let _written = self.write_times(&mut text);
        text
    }

    fn write_scored(&self, text: &mut String) -> std::fmt::Result {
        let rows = self.alone_rows;
        match self.alone {
            Alone::SameBits => {
                writeln!(text, "batches: {rows} rows have the same scores alone as in batches, bit for bit")?
            }
            Alone::Agrees if !self.facts.same_bits => {
                let engine = &self.facts.engine;
                writeln!(
                    text,
                    "batches: {rows} rows have scores alone that agree with those in batches, as {engine} rounds"
                )?;
            }
            Alone::Agrees | Alone::Differs => {
                writeln!(text, "batches: DIFFERENT: of {rows} rows, some have other scores alone than in batches")?;
            }
        }
        let Some(Scored { rows, scores, agreement }) = &self.scored else { return Ok(()) };
        writeln!(text, "scores: of {rows} rows")?;
        let outputs = self.facts.outputs.len();
        for (row, scores) in scores.chunks(outputs).enumerate().take(SHOWN_ROWS_MAX) {
            let shown = scores.iter().take(SHOWN_OUTPUTS_MAX).map(|score| format!("{score:?}"));
            let more = if outputs > SHOWN_OUTPUTS_MAX { ", …" } else { "" };
            writeln!(text, "  row {row}: {}{more}", shown.collect::<Vec<_>>().join(", "))?;
        }
        if *rows > SHOWN_ROWS_MAX {
            writeln!(text, "  … and {} more, which --scores writes", rows - SHOWN_ROWS_MAX)?;
        }
        agreement.as_ref().map_or(Ok(()), |agreement| write_agreement(agreement, scores.len(), text))
    }

    fn write_times(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "speed: one thread, fresh rows, median")?;
        let times = |of: &dyn Fn(&(usize, f64)) -> String| -> String {
            self.ns_per_row.iter().map(|time| format!("{:>9}", of(time))).collect()
        };
        writeln!(text, "  rows at once {}", times(&|(rows, _)| rows.to_string()))?;
        writeln!(text, "  ns a row     {}", times(&|(_, ns)| format!("{ns:.0}")))
    }
}

fn write_agreement(agreement: &Agreement, scores: usize, text: &mut String) -> std::fmt::Result {
    let Agreement { max_abs_error, max_rel_error, disagreements, worst } = agreement;
    match disagreements {
        0 => write!(text, "expected: all {scores} scores agree")?,
        some => write!(text, "expected: DIFFERENT: {some} of {scores} scores do not agree")?,
    }
    write!(text, "; the largest difference is {max_abs_error:.2e}, or {max_rel_error:.2e} of the score")?;
    match worst {
        Some(worst) => writeln!(
            text,
            " (row {}, output {}: {:?} where {:?} is expected)",
            worst.row, worst.output, worst.score, worst.expected
        ),
        None => writeln!(text),
    }
}

/// Writes all scores, a line for each row, in as many digits as tell them apart.
pub(super) fn write_scores(path: &Path, scores: &[f32], facts: &Facts) -> Result<(), VerifyError> {
    let mut text = String::new();
    for scores in scores.chunks(facts.outputs.len()) {
        for (place, score) in scores.iter().enumerate() {
            // Writing to a text does not fail.
            let _written = write!(text, "{}{score:?}", if place == 0 { "" } else { "," });
        }
        text.push('\n');
    }
    if is_stdout(Some(path)) {
        return write_all(io::stdout().lock(), text.as_bytes(), Path::new("stdout"));
    }
    let file = File::create(path).map_err(|source| VerifyError::Write { path: path.to_owned(), source })?;
    write_all(BufWriter::new(file), text.as_bytes(), path)
}

fn is_stdout(path: Option<&Path>) -> bool {
    path.is_some_and(|path| path.as_os_str() == "-")
}

fn write_all(mut to: impl Write, bytes: &[u8], path: &Path) -> Result<(), VerifyError> {
    let written = to.write_all(bytes).and_then(|()| to.flush());
    written.map_err(|source| VerifyError::Write { path: PathBuf::from(path), source })
}
