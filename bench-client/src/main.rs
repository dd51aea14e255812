//! `client`: the client of the disrust inference server, from its arguments to its exit status.
//!
//! It is not a load generator for latency claims: `bench` is a closed loop, which slows down with the server that it
//! measures. The journey of a command: [`args`] reads it; [`smoke`], [`pipeline`] or [`mod@bench`] carries it out over
//! connections from [`mod@connect`], with vectors and their true scores from [`rows`]. The first two read answers with
//! [`answers`]; `bench` runs its [`closed_loop`] over a pre-encoded [`table`], takes [`processor_time`] around it and
//! prints a [`report`]. Whatever is not right comes back as a [`failure::Failure`]. [`mod@floor`] is the other side: servers
//! to compare with.
//!
//! Invariants: exit status 0 means that every answer was checked and right; 1 that one was not, or that the server or
//! this machine failed; 2 that the command line was wrong. Every wait has a bound (`--timeout`), so it always ends;
//! all but `floor`, which serves until it is told to stop, and ends with 0 then.
#![forbid(unsafe_code)]

mod answers;
mod args;
mod bench;
mod closed_loop;
mod connect;
mod failure;
mod floor;
mod pipeline;
mod processor_time;
mod report;
mod rows;
mod smoke;
mod table;

use std::io;
use std::process::ExitCode;

use args::{Arguments, Mode};
use failure::Failure;

fn main() -> ExitCode {
    match run(&args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("client: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let out = &mut io::stdout();
    match &arguments.mode {
        None | Some(Mode::Smoke) => smoke::run(&arguments.target, out),
        Some(Mode::Pipeline) => pipeline::run(&arguments.target, out),
        Some(Mode::Bench(plan)) => bench::run(&arguments.target, plan, out),
        Some(Mode::Floor(plan)) => floor::run(&arguments.target, plan, out),
    }
}
