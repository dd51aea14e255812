//! What can be set for `disrust health`.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Parser;

use super::values::{Admin, parse_admin};

/// The subcommand.
pub(super) const NAME: &str = "health";

/// Ask a running server whether it is ready, and end
///
/// It asks /readyz of the server's admin port and prints what it says: for health checks in containers that have no shell.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_HELP)]
pub struct HealthFlags {
    /// The server's --admin; else that of the environment or of the config file, as for the server
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_admin)]
    pub(super) admin: Option<Admin>,

    /// The server's config file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Exit status: 0 the server is ready, 1 it is not, or nobody answers, 2 usage, 78 bad config file.";
