//! What `disrust verify` is asked for. It takes no setting from the environment or a file: it is no server.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Parser;
use disrust_model::LoadOptions;
use disrust_model::form::{Choice, Output};

use super::values::{parse_features, parse_output, parse_row_counts};

/// What the command is called.
pub(super) const NAME: &str = "verify";

/// Says what a model file is, which engine scores it and how fast; scores rows, and compares the scores with expected ones.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(max_term_width = 100, after_help = AFTER_HELP)]
pub struct VerifyOptions {
    /// The model file
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,

    /// Rows to score: comma-separated with or without a header, or of numpy (.npy); an empty field is a missing value
    #[arg(long, value_name = "X.csv|X.npy")]
    pub inputs: Option<PathBuf>,

    /// What the scores should be, a row for each row of the inputs and a column for each output; for a model of two classes
    /// one column, or one for each class
    #[arg(long, value_name = "Y.csv|Y.npy", requires = "inputs")]
    pub expected: Option<PathBuf>,

    /// Which output, by index from 0 or by name, or all of them [default: all]
    #[arg(long, value_name = "N|NAME|all", value_parser = parse_output, allow_negative_numbers = true)]
    pub output: Option<Output>,

    /// The margin instead of the score
    #[arg(long)]
    pub raw: bool,

    /// Features in a row; the model must agree
    #[arg(long, value_name = "N", value_parser = parse_features, allow_negative_numbers = true)]
    pub features: Option<usize>,

    /// Write all scores, comma-separated, to a file, or to stdout if this is -, and the rest to stderr then
    #[arg(long, value_name = "FILE.csv|-", requires = "inputs")]
    pub scores: Option<PathBuf>,

    /// How many rows at once to time
    #[arg(long, value_name = "N,...", value_parser = parse_row_counts, default_value = "1,8,64,512,4096")]
    pub rows: RowCounts,

    /// Say it in JSON
    #[arg(long)]
    pub json: bool,
}

/// How many rows to score at once, several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowCounts(pub Vec<usize>);

const AFTER_HELP: &str = "\
A score agrees if it is within 1e-5 of the expected one, relative, or within 1e-6. NaN agrees with NaN, an infinity with \
itself.

Exit status: 0 all scores agree, or there is nothing to compare them with; 1 they do not; 2 usage; 65 the inputs or the \
expected scores cannot be read; 74 the scores cannot be written; 78 the model cannot be served.";

impl VerifyOptions {
    /// How the model is to be loaded: with all outputs, unless one is chosen.
    pub fn load_options(&self) -> LoadOptions {
        let choice = Choice { output: Some(self.output.clone().unwrap_or(Output::All)), raw: self.raw };
        LoadOptions { name: None, choice, features: self.features }
    }
}
