//! The command line: `client [PORT] [smoke | pipeline | bench CONNS REQUESTS | run | …]`, and the bounds of what it may
//! ask for.
//!
//! Only this file and those below it name clap, and they do nothing but read: what they return is plain data.
//!
//! Invariants: every number is inside its bounds below, so nothing behind this file checks them again.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod bench;
mod cpu_list;
mod floor;
mod pairs;
mod run;
mod sweep;
mod table;
mod target;

use crate::connect::Target;
pub use bench::BenchPlan;
pub use floor::{FloorPlan, Kind};
pub use pairs::PairsPlan;
pub use run::{ComparePlan, OVERTIME, OutputPlan, ProbePlan, RunPlan, SearchPlan};
pub use sweep::{IO_THREADS_MAX, ServerKind, SweepPlan, Wait};
pub use table::TablePlan;
use target::{Address, TargetFlags};

/// Under which options stand in the help.
mod heading {
    pub const LOAD: &str = "Load";
    pub const CONNECTIONS: &str = "Connections";
    pub const REQUESTS: &str = "Requests and answers";
    pub const SERVER: &str = "Server";
    pub const CLIENT: &str = "This client";
    pub const VERDICT: &str = "Verdict";
    pub const FILES: &str = "Files";
}

/// The largest `--window`. Larger: only longer bursts. Smaller: bursts of more answers than one
/// vectored write takes (512 or 1024 of them) would go untried.
const WINDOW_MAX: i64 = 1024;

/// The most connections. Larger: one address pair has no more ports. Smaller: only limits what is tried.
const CONNECTIONS_MAX: i64 = 65_535;

/// What the process is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Arguments {
    /// Whom to talk to, and how.
    pub target: Target,
    /// What to do; `smoke` if it is left out.
    pub mode: Option<Mode>,
}

impl Arguments {
    /// Reads the process's arguments; on a usage error or `--help` it prints what clap has to say and ends the process.
    pub fn of_process() -> Arguments {
        Arguments::read(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads `words`, the first of which is the program.
    pub fn read(words: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Arguments, clap::Error> {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let line = target::offer_flags(CommandLine::command());
        let matches = line.try_get_matches_from(&words).map_err(|error| {
            let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            target::tell_where_the_port_goes(error, &words)
        })?;
        let CommandLine { address, flags, mode } = CommandLine::from_arg_matches(&matches)?;
        let target = flags.target(address, &matches)?;
        if let Some(Mode::Floor(plan)) = &mode {
            plan.check(&target)?;
        }
        Ok(Arguments { target, mode })
    }
}

/// Talks to a disrust server and checks every answer against the sum model.
#[derive(Parser)]
#[command(name = "client", version, subcommand_precedence_over_arg = true)]
struct CommandLine {
    /// The port that the server listens on, or unix:PATH for its Unix socket.
    #[arg(value_name = "PORT", default_value = "9900", value_parser = target::address)]
    address: Address,
    #[command(flatten)]
    flags: TargetFlags,
    #[command(subcommand)]
    mode: Option<Mode>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Mode {
    /// A few requests of every kind, valid and not: does the server keep its contract?
    Smoke,
    /// 1000 requests of mixed sizes on one connection, sent while their answers are read.
    Pipeline,
    /// Throughput: a closed loop over many connections, every answer verified.
    Bench(BenchPlan),
    /// Serves: a reference server that answers inline, to compare with; SIGTERM or SIGINT stops it.
    Floor(FloorPlan),
    /// The instrument: latency at a rate, in an open loop; or throughput with --closed.
    ///
    /// Response time counts from when a request was meant to be sent, service time from when it was. Exit status: 1 a
    /// wrong or missing answer, 3 the client was saturated or kept from its CPU and the figures are not the server's, 4
    /// --fail-if.
    ///
    /// Examples: `client run --rate 50k --connections 64 --repeat 5 --json run.json --fail-if 'p99>1ms'`;
    /// `client run --closed --connections 64 --window 64`; `client run --rate 5k --vectors 1:90,64:10 --svg run.svg`.
    Run(Box<RunPlan>),
    /// The highest rate at which a limit such as p99<=200us holds.
    Search(Box<SearchPlan>),
    /// What changed between two runs, beside their noise; exit status 4 if it got worse.
    ///
    /// With five repeats a run (`run --repeat 5`) a server is called worse than itself at most once in 20 comparisons;
    /// with fewer nothing is decided, and the exit status is 1; nor is a change if other work took different shares of
    /// the CPUs beside the runs (known with --server-pid). A change must be beyond the noise: 2.5 spreads of the repeats,
    /// and `--noise` of the median.
    Compare(ComparePlan),
    /// The unloaded round trip: one connection, one request at a time.
    Probe(ProbePlan),
    /// Many runs: I/O threads x connections x window x vectors, disrust beside the floors, in interleaved repeats.
    ///
    /// It starts and stops the servers itself, each on a port that the kernel chooses. What is measured is kept in DIR;
    /// run again, it goes on where it was stopped (see --fresh). It ends with its conclusion in three lines.
    Sweep(Box<SweepPlan>),
    /// What pairs of figures on standard input say of the second of two builds; for scripts/compare_builds.sh.
    #[command(hide = true)]
    Pairs(PairsPlan),
    /// Puts a table from standard input between the marks of a document, with the machine and the day; for scripts.
    #[command(hide = true)]
    Table(TablePlan),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::Loop;
    use crate::load::schedule::Arrivals;

    fn parsed(line: &str) -> Arguments {
        Arguments::read(line.split_whitespace()).expect("a valid command line")
    }

    fn refused(line: &str) -> bool {
        Arguments::read(line.split_whitespace()).is_err()
    }

    /// The promise: the port may stand first or be left out, before any mode or none.
    #[test]
    fn the_port_comes_first_or_not_at_all() {
        let bench =
            Mode::Bench(BenchPlan { connections: 64, requests: 1_000_000, window: 16, vectors: 1, server_pid: None });
        for (mode_words, mode) in [
            ("", None),
            ("smoke", Some(Mode::Smoke)),
            ("pipeline", Some(Mode::Pipeline)),
            ("bench 64 1000000", Some(bench)),
        ] {
            for (port_word, port) in [("", 9900), ("9900", 9900), ("7", 7)] {
                let arguments = parsed(&format!("client {port_word} {mode_words}"));
                assert_eq!((arguments.target.port, &arguments.mode), (port, &mode), "{port_word} {mode_words}");
            }
        }
    }

    /// The promise: a Unix socket may stand where the port does.
    #[test]
    fn a_path_may_stand_for_the_port() {
        for line in
            ["client unix:/run/a.sock", "client unix:/run/a.sock pipeline", "client unix:/run/a.sock run --closed"]
        {
            let target = parsed(line).target;
            assert_eq!(target.to_string(), "unix:/run/a.sock", "{line}");
        }
        assert_eq!(parsed("client 80 --host ::1").target.to_string(), "::1:80");
    }

    /// The promise: with no flags it is the server's own defaults that are met.
    #[test]
    fn the_defaults_meet_the_server() {
        let target = parsed("client").target;
        assert_eq!((target.host.as_str(), target.port, target.features), ("127.0.0.1", 9900, 16));
        assert_eq!((target.timeout, target.seed), (Duration::from_secs(10), 1));
    }

    /// The promise: the flags of every mode may stand before or behind the mode's name.
    #[test]
    fn common_flags_stand_anywhere() {
        for line in [
            "client --features 4 --host ::1 --seed 9 --timeout 1s 80 pipeline",
            "client 80 pipeline --features 4 --host ::1 --seed 9 --timeout 1s",
            "client 80 --features 4 --host ::1 pipeline --seed 9 --timeout 1s",
        ] {
            let Arguments { target, mode } = parsed(line);
            assert_eq!((target.port, target.features, target.host.as_str(), target.seed), (80, 4, "::1", 9), "{line}");
            assert_eq!((target.timeout, mode), (Duration::from_secs(1), Some(Mode::Pipeline)), "{line}");
        }
    }

    /// The promise: `bench` takes its own flags on any side of its numbers.
    #[test]
    fn bench_takes_its_flags() {
        let plan = BenchPlan { connections: 2, requests: 3, window: 64, vectors: 5, server_pid: Some(7) };
        for line in [
            "client bench 2 3 --window 64 --vectors 5 --server-pid 7",
            "client 9900 bench --window 64 2 --vectors 5 3 --server-pid 7",
        ] {
            assert_eq!(parsed(line).mode, Some(Mode::Bench(plan.clone())), "{line}");
        }
    }

    /// The promise: `run` takes the words of its documentation, and its flags become the load they say.
    #[test]
    fn run_takes_its_flags() {
        let line = "client 80 run --rate 1.5M --arrival burst --burst 8 --vectors 1:90,64:10 --threads 2 --pin 0-1 \
                    --duration 3s --warmup 0s --connect-rate 50 --reconnect-every 9 --slow-readers 2 --host ::1 \
                    --expect a.csv b.csv --tolerance 0 --fail-if p99>1ms --fail-if lost>0 --repeat 3";
        let Some(Mode::Run(plan)) = parsed(line).mode else { panic!("run") };
        let load = plan.load(1);
        let Loop::Open(arrivals) = load.pace else { panic!("an open loop") };
        assert_eq!((arrivals.rate_per_second, arrivals.burst), (1.5e6, 8));
        assert_eq!((load.pin.as_slice(), load.threads, load.slow_readers), ([0, 1].as_slice(), 2, 2));
        assert_eq!((load.connect_rate, load.reconnect_every, plan.fail_if.len()), (Some(50.0), Some(9), 2));
        let Some(Mode::Run(plan)) = parsed("client run --closed --connections 3 --window 5").mode else {
            panic!("run")
        };
        let load = plan.load(1);
        assert!(matches!(load.pace, Loop::Closed { window: 5 }) && load.connections == 3, "{load:?}");
        let Some(Mode::Run(plan)) = parsed("client run").mode else { panic!("run") };
        assert!(matches!(plan.load(1).pace, Loop::Open(Arrivals { rate_per_second: 10_000.0, burst: 1, .. })));
    }

    /// The promise: a number outside its bounds, a wrong word or a missing one is a usage error.
    #[test]
    fn what_is_out_of_bounds_is_refused() {
        for line in [
            "client 0",
            "client unix:",
            "client unix:/run/a.sock floor --kind epoll",
            "client 65536",
            "client nonsense",
            "client pipeline 9900",
            "client 9900 9901",
            "client bench",
            "client bench 64",
            "client bench 0 1",
            "client bench 1 0",
            "client bench 1 1 --window 0",
            "client bench 1 1 --window 1025",
            "client bench 1 1 --vectors 65",
            "client --features 0",
            "client --features 4097",
            "client --timeout 0s",
            "client --timeout 2h",
            "client --window 4",
            "client run --closed --rate 5",
            "client run --closed --arrival burst",
            "client run --window 4",
            "client run --rate 0",
            "client run --rate 2000M",
            "client run --arrival never",
            "client run --duration 0s",
            "client run --vectors 0..3",
            "client run --connections 0",
            "client run --pin 1024",
            "client run --tolerance 0.1",
            "client run --expect inputs.csv",
            "client run --fail-if p99>1",
            "client search",
            "client compare one.json",
            "client compare one.json two.json --metrics p98",
        ] {
            assert!(refused(line), "{line}");
        }
    }
}
