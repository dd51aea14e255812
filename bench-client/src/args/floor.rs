//! The command line of `client floor`; a part of [`super`], which reads it.
//!
//! Invariants: as there.

use clap::{Args, ValueEnum};

use super::Target;

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
}

/// The reference servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One thread, level-triggered epoll, answers inline.
    Epoll,
    /// One thread, io_uring as the server sets it up, answers inline.
    Uring,
}

impl Kind {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Epoll => "epoll",
            Kind::Uring => "uring",
        }
    }
}

impl FloorPlan {
    /// The port to listen on.
    pub fn port(&self, target: &Target) -> u16 {
        self.port.unwrap_or(target.port)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Arguments, Mode};
    use super::*;

    fn parsed(line: &str) -> (Target, FloorPlan) {
        let arguments = Arguments::try_parse_from(line.split_whitespace()).expect("a valid command line");
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
}
