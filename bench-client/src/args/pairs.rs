//! The command line of `client pairs`; a part of [`super`], which reads it.

use clap::Args;

use super::run::precision;

/// What `pairs` is to say of the lines of standard input.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct PairsPlan {
    /// What the figures are (`requests/s`).
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The figure is a cost.
    #[arg(long)]
    pub less_is_better: bool,
    /// Builds are the same if the interval is inside such a share around 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = precision)]
    pub same_within: f64,
}
