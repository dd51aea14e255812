//! The command line of `client floor`; a part of [`super`], which reads it.
//!
//! Invariants: as there; besides, a number of threads is given only for the kind that has a choice.

use std::num::NonZeroU16;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueEnum};

use super::CommandLine;
use crate::connect::Target;

/// What `floor` is to serve with. Host and features are the [`Target`]'s.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct FloorPlan {
    /// How the reference server does its input and output.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// The port to listen on, 0 for a free one; the PORT before `floor` if it is left out.
    #[arg(long)]
    port: Option<u16>,
    /// The CPU that all of its threads run on.
    #[arg(long, value_name = "CPU")]
    pub pin: Option<usize>,
    /// Worker threads of `--kind tokio`; as many as there are CPUs if it is left out.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroU16>,
}

/// The reference servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One thread, level-triggered epoll, answers inline.
    Epoll,
    /// One thread, io_uring, answers inline.
    Uring,
    /// Many threads, a task for each connection: what one writes in an afternoon.
    Tokio,
}

impl Kind {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Epoll => "epoll",
            Kind::Uring => "uring",
            Kind::Tokio => "tokio",
        }
    }
}

impl FloorPlan {
    /// The port to listen on.
    pub fn port(&self, target: &Target) -> u16 {
        self.port.unwrap_or(target.port)
    }

    /// What clap cannot say by itself: `--threads` is for one kind, and all are for TCP.
    pub(super) fn check(&self, target: &Target) -> Result<(), clap::Error> {
        if target.path.is_some() {
            let message = "a floor listens on a port: client PORT floor, or --port";
            return Err(CommandLine::command().error(ErrorKind::ArgumentConflict, message));
        }
        if self.threads.is_none() || self.kind == Kind::Tokio {
            return Ok(());
        }
        let message = "--threads is for --kind tokio: the others have one thread, which is their point";
        Err(CommandLine::command().error(ErrorKind::ArgumentConflict, message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arguments, Mode};
    use super::*;

    fn parsed(line: &str) -> (Target, FloorPlan) {
        let arguments = Arguments::read(line.split_whitespace()).expect("a valid command line");
        let Some(Mode::Floor(plan)) = arguments.mode else { panic!("{line} asks for a floor") };
        (arguments.target, plan)
    }

    /// The promise: a floor listens where `--port` says, or where the other modes would connect.
    #[test]
    fn the_port_is_its_own_or_the_targets() {
        for (line, port) in [
            ("client floor --kind epoll", 9900),
            ("client 9901 floor --kind epoll", 9901),
            ("client floor --kind epoll --port 0", 0),
            ("client 9901 floor --port 9902 --kind epoll", 9902),
        ] {
            let (target, plan) = parsed(line);
            assert_eq!(plan.port(&target), port, "{line}");
        }
    }

    /// The promise: only the kind with a choice takes a number of threads.
    #[test]
    fn threads_are_tokios() {
        for (line, valid) in [
            ("client floor --kind tokio --threads 4 --pin 1", true),
            ("client floor --kind tokio", true),
            ("client floor --kind epoll --threads 1", false),
            ("client floor --kind uring --threads 2", false),
        ] {
            assert_eq!(Arguments::read(line.split_whitespace()).is_ok(), valid, "{line}");
        }
        for line in ["client floor", "client floor --kind kqueue", "client floor --kind tokio --threads 0"] {
            assert!(Arguments::read(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
