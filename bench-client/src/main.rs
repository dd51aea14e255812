//! `client`: the client of the disrust inference server, from its arguments to its exit status.
//!
//! The journey of a command: [`args`] reads it; a module of its name carries it out over connections from
//! [`mod@connect`], with vectors and their true scores from [`rows`]; whatever is not right comes back as a
//! [`failure::Failure`].
//!
//! - [`smoke`] and [`pipeline`] check a server and read answers with [`answers`].
//! - [`run`] is the instrument: the [`load`] engine measures, a [`summary`] has the figures and whether they are the
//!   server's, [`output`] writes them. [`search`], [`probe`] and [`mod@bench`], a quick look at throughput, use the same
//!   engine; [`mod@compare`] reads what `run` wrote. [`limit`] is how all of them are told what is good enough.
//! - [`mod@pairs`] and [`document`] work for scripts: two builds side by side, a table put into a document by its
//!   [`markers`].
//! - [`mod@floor`] is the other side: servers to compare with.
//! - [`sweep`] starts the server and the floors, measures them at many points with the same engine, and writes tables.
//!
//! Imports run one way, and `tests/imports.rs` holds it; from the bottom up:
//! 1. [`failure`], [`rows`], [`pinning`], [`processor_time`], [`environment`], [`server_figures`] and [`markers`] know no
//!    other module of ours.
//! 2. [`answers`] and [`mod@connect`], which says what a [`connect::Target`] is.
//! 3. [`load`], then [`summary`], then [`limit`] and [`server_metrics`].
//! 4. [`args`] turns words into plans, and plans into loads; [`output`] writes what a plan asks for.
//! 5. The commands, each of which is told its plan: none knows another.
//!
//! Invariants: exit status 0 means that every answer was checked and right; 1 that one was not, or that the server or
//! this machine failed; 2 that the command line was wrong; 3 that the client was too slow to measure the server, or
//! was kept from its CPU; 4 that a limit was broken. Every wait has a bound (`--timeout`), so it always ends; all but `floor`, which serves until it is
//! told to stop, and ends with 0 then. Unsafe code is in the io_uring floor only.
#![deny(unsafe_code)]

mod answers;
mod args;
mod bench;
mod compare;
mod connect;
mod document;
mod environment;
mod failure;
mod floor;
mod hello;
mod limit;
mod load;
mod markers;
mod output;
mod pairs;
mod pinning;
mod pipeline;
mod probe;
mod processor_time;
mod rows;
mod run;
mod search;
mod server_figures;
mod server_metrics;
mod smoke;
mod summary;
mod sweep;

use std::io;
use std::process::ExitCode;

use args::{Arguments, Mode};
use failure::Failure;

fn main() -> ExitCode {
    match carry_out(&Arguments::of_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("client: {failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

fn carry_out(arguments: &Arguments) -> Result<(), Failure> {
    let out = &mut io::stdout();
    match &arguments.mode {
        None | Some(Mode::Smoke) => smoke::run(&arguments.target, out),
        Some(Mode::Pipeline) => pipeline::run(&arguments.target, out),
        Some(Mode::Bench(plan)) => bench::run(&arguments.target, plan, out),
        Some(Mode::Floor(plan)) => floor::run(&arguments.target, plan, out),
        Some(Mode::Run(plan)) => run::run(&arguments.target, plan, out),
        Some(Mode::Search(plan)) => search::run(&arguments.target, plan, out),
        Some(Mode::Compare(plan)) => compare::run(plan, out),
        Some(Mode::Probe(plan)) => probe::run(&arguments.target, plan, out),
        Some(Mode::Sweep(plan)) => sweep::run(&arguments.target, plan, out),
        Some(Mode::Pairs(plan)) => pairs::run(plan, out),
        Some(Mode::Table(plan)) => document::run(plan, out),
    }
}
