//! The command line of `client table`; a part of [`super`], which reads it.

use std::path::PathBuf;

use clap::Args;

/// Where `table` is to put the table from standard input.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct TablePlan {
    /// The document.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What stands between `<!-- MARK -->` and `<!-- /MARK -->` is replaced.
    #[arg(value_name = "MARK")]
    pub mark: String,
    /// What is said below the table, behind the machine and the day.
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}
