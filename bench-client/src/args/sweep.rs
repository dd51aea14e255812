//! The command line of `client sweep`; a part of [`super`], which reads it.
//!
//! Invariants: as there; a list that is left out is empty here, and [`crate::sweep`] fills it by the machine.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};
use disrust_protocol::MAX_VECTORS_PER_REQUEST;
use serde::{Deserialize, Serialize};

use super::run::{REPEATS_MAX, THREADS_MAX, duration, positive_duration};
use super::{CONNECTIONS_MAX, WINDOW_MAX};

/// The most I/O threads that disrust takes.
pub const IO_THREADS_MAX: u32 = 64;

/// What `sweep` is to do.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct SweepPlan {
    /// Fewer points, fewer repeats, shorter ones: less than two minutes on two CPUs. A look, not a result.
    #[arg(long)]
    pub quick: bool,
    /// Where everything is written, and what was measured is kept; `sweep.json` is as schema/sweep.v1.schema.json has it.
    #[arg(long, value_name = "DIR", default_value = "target/sweep")]
    pub out: PathBuf,
    /// Measures everything anew: what was kept in DIR is forgotten.
    #[arg(long)]
    pub fresh: bool,
    /// The program of the server; `disrust` beside this program if it is left out.
    #[arg(long, value_name = "PROGRAM")]
    pub server: Option<PathBuf>,
    /// Also rewrites the tables of this file that stand between `<!-- sweep:NAME -->` and `<!-- /sweep:NAME -->`.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "disrust,epoll,uring,tokio")]
    pub servers: Vec<ServerKind>,
    /// I/O threads of disrust; 1, 2, 4, … up to one CPU less than there are if it is left out.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    #[arg(value_parser = value_parser!(u32).range(1..=i64::from(IO_THREADS_MAX)))]
    pub io_threads: Vec<u32>,
    /// Connections.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub connections: Vec<u32>,
    /// Closed loop: the most requests of one connection that wait for their answers.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = value_parser!(u32).range(1..=WINDOW_MAX))]
    pub window: Vec<u32>,
    /// Vectors in a request.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    #[arg(value_parser = value_parser!(u32).range(1..=i64::from(MAX_VECTORS_PER_REQUEST)))]
    pub vectors: Vec<u32>,
    /// Wait strategies of disrust that are compared at one point, beside `auto` everywhere else.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub wait: Vec<Wait>,
    /// Open loop: the rates, as shares of the best throughput that any server had with one request at a time on each
    /// connection.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = fraction, conflicts_with = "closed_only")]
    pub fractions: Vec<f64>,
    /// Leaves the open loop out.
    #[arg(long)]
    pub closed_only: bool,
    /// How often each point is measured.
    #[arg(long, value_parser = value_parser!(u32).range(1..=REPEATS_MAX))]
    pub repeats: Option<u32>,
    /// The measured time of a point in the closed loop; the open loop takes twice as long.
    #[arg(long, value_parser = positive_duration)]
    pub duration: Option<Duration>,
    /// Before the measured time.
    #[arg(long, value_parser = duration)]
    pub warmup: Option<Duration>,
    /// Threads of the client; half as many as there are CPUs if it is left out.
    #[arg(long, value_parser = value_parser!(u32).range(1..=THREADS_MAX))]
    pub threads: Option<u32>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// The server.
    Disrust,
    /// `floor --kind epoll`.
    Epoll,
    /// `floor --kind uring`.
    Uring,
    /// `floor --kind tokio`.
    Tokio,
}

/// How the threads of disrust wait, as its `--wait` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// By the CPUs.
    Auto,
    /// Never sleeps.
    Spin,
    /// Yields, guarded.
    Yield,
    /// Sleeps at once.
    Park,
}

impl ServerKind {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            ServerKind::Disrust => "disrust",
            ServerKind::Epoll => "epoll",
            ServerKind::Uring => "uring",
            ServerKind::Tokio => "tokio",
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Wait::Auto => "auto",
            Wait::Spin => "spin",
            Wait::Yield => "yield",
            Wait::Park => "park",
        })
    }
}

/// The largest `--fractions`. Larger: the queue of a run that is offered more than is served takes long to drain.
const FRACTION_MAX: f64 = 3.0;

fn fraction(text: &str) -> Result<f64, String> {
    let in_bounds = |fraction: &f64| *fraction > 0.0 && *fraction <= FRACTION_MAX;
    text.parse().ok().filter(in_bounds).ok_or_else(|| format!("not above 0 and at most {FRACTION_MAX}"))
}
