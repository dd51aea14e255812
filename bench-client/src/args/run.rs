//! The arguments of `run`, `search` and `probe`, and how they become a [`Load`].
//!
//! Invariants: every number is inside its bounds, so nothing behind this file checks them again; flags that contradict
//! each other are usage errors.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::cpu_list::{CpuList, cpu_list};
use super::{CONNECTIONS_MAX, WINDOW_MAX, heading};
use crate::limit::{Limit, Metric, rate};
use crate::load::error_answers::Unscored;
use crate::load::mix::VectorMix;
use crate::load::schedule::{Arrival, Arrivals};
use crate::load::truth::{Expectation, ExpectedFiles};
use crate::load::{Load, Loop};

/// The largest `--rate`. Larger: gaps below the clock's 1 ns. Smaller: no client could be shown to be saturated.
const RATE_MAX: f64 = 1e9;

/// The smallest `--rate`. Smaller: a request in less than 1000 s.
const RATE_MIN: f64 = 0.001;

/// The longest `--duration`, and the longest of other times. Larger: counters of nanoseconds might overflow in sums.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The most `--threads`. Larger: only memory. Smaller: limits what a large machine can send.
pub(super) const THREADS_MAX: i64 = 1024;

/// The largest `--burst`. Larger: a burst that no socket buffer holds. Smaller: only limits what is tried.
const BURST_MAX: i64 = 65_536;

/// The most `--repeat`.
pub(super) const REPEATS_MAX: i64 = 1000;

/// How long after the measured time requests are still sent that became due in it, unless `--lag-limit` is longer.
/// Longer: a saturated client is told later. Shorter: one hiccup of the machine at the end is called saturation.
pub const OVERTIME: Duration = Duration::from_millis(100);

/// What `run` is to do.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct RunPlan {
    /// Requests a second, of all connections (`20000`, `50k`, `1.5M`).
    #[arg(long, help_heading = heading::LOAD)]
    #[arg(default_value = "10k", value_parser = rate_in_bounds, conflicts_with = "closed")]
    pub rate: f64,
    /// How requests arrive.
    #[command(flatten)]
    pub arrivals: ArrivalPlan,
    /// Closed loop: sends when answers come. Throughput, not a latency claim.
    #[arg(long, help_heading = heading::LOAD)]
    pub closed: bool,
    /// Closed loop: the most requests of one connection that wait for their answers.
    #[arg(long, help_heading = heading::LOAD, requires = "closed", default_value_t = 16)]
    #[arg(value_parser = value_parser!(u32).range(1..=WINDOW_MAX))]
    pub window: u32,
    /// The measured time.
    #[arg(long, help_heading = heading::LOAD, default_value = "10s", value_parser = positive_duration)]
    pub duration: Duration,
    /// Runs so many times and prints minimum, median and maximum. What is not valid is run again, so often at the most.
    #[arg(long, help_heading = heading::LOAD)]
    #[arg(default_value_t = 1, value_parser = value_parser!(u32).range(1..=REPEATS_MAX))]
    pub repeat: u32,
    /// What connects, and with what.
    #[command(flatten)]
    pub clients: ClientPlan,
    /// Goes on when the server closes a connection or refuses a request because it is closing (error 4), as at a restart:
    /// counts what is lost, and connects again, for as long as --timeout. Without it such a run ends, with its figures so
    /// far.
    #[arg(long, help_heading = heading::CONNECTIONS)]
    pub reconnect_on_close: bool,
    /// Error answers that are meant to come: shed (error 3, the server was overloaded), model-failed (error 2). Both are counted
    /// and shown in any case, apart from the times and rates of what was scored; what is not named here fails the run.
    #[arg(long, help_heading = heading::VERDICT, value_name = "KIND", value_delimiter = ',')]
    pub accept_errors: Vec<Unscored>,
    /// Shows the server's own stage times and counts of the measured time, from the file that its stdout goes to; the
    /// server is built with its metrics, and prints them often (`--metrics-interval 1s`).
    #[arg(long, help_heading = heading::SERVER, value_name = "FILE")]
    pub server_metrics: Option<PathBuf>,
    /// The server's version, for the record; with --server-pid disrust is asked for it.
    #[arg(long, help_heading = heading::SERVER, value_name = "TEXT")]
    pub server_version: Option<String>,
    /// Fails if this is true of the run (`p99>1ms`; may be given several times). With --repeat, of the median run.
    #[arg(long, help_heading = heading::VERDICT, value_name = "LIMIT")]
    pub fail_if: Vec<Limit>,
    /// Where results go, beside the table.
    #[command(flatten)]
    pub output: OutputPlan,
}

/// How requests arrive in the open loop.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = heading::LOAD)]
pub struct ArrivalPlan {
    /// Open loop: poisson, constant or burst.
    #[arg(long, default_value = "poisson", conflicts_with = "closed")]
    pub arrival: Arrival,
    /// Requests that come at the same instant with `--arrival burst`.
    #[arg(long, default_value_t = 32, value_parser = value_parser!(u32).range(1..=BURST_MAX))]
    pub burst: u32,
}

/// What connects, and with what.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ClientPlan {
    /// Connections.
    #[arg(long, help_heading = heading::CONNECTIONS)]
    #[arg(default_value_t = 16, value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub connections: u32,
    /// Vectors in a request: `4`, `1..64` (both included), or weighted parts such as `1:90,64:10`.
    #[arg(long, help_heading = heading::REQUESTS, default_value = "1")]
    pub vectors: VectorMix,
    /// Threads that send and receive.
    #[arg(long, help_heading = heading::CLIENT)]
    #[arg(default_value_t = 1, value_parser = value_parser!(u32).range(1..=THREADS_MAX))]
    pub threads: u32,
    /// CPUs of the threads, in order and over again (`1`, `2-3`).
    #[arg(long, help_heading = heading::CLIENT, value_name = "LIST", value_parser = cpu_list)]
    pub pin: Option<CpuList>,
    /// Sends for so long before the measured time.
    #[arg(long, help_heading = heading::LOAD, default_value = "1s", value_parser = duration)]
    pub warmup: Duration,
    /// Polls, and does not sleep, for so long before a request is due and after the last answer; 0 always sleeps.
    #[arg(long, help_heading = heading::CLIENT, default_value = "50us", value_parser = duration)]
    pub spin: Duration,
    /// Calls a run invalid when the schedule lag's p99 is above this; default: when its p50 or p99 is above a fifth of the
    /// response time's, but at least 100us. The verdict says whether the client was saturated or kept from its CPU.
    #[arg(long, help_heading = heading::VERDICT, value_name = "TIME", value_parser = positive_duration)]
    pub lag_limit: Option<Duration>,
    /// Makes the connections at so many a second, and not as fast as they are accepted.
    #[arg(long, help_heading = heading::CONNECTIONS, value_name = "RATE", value_parser = rate_in_bounds)]
    pub connect_rate: Option<f64>,
    /// Replaces a connection after so many requests; requests that wait for the new one count its time.
    #[arg(long, help_heading = heading::CONNECTIONS)]
    #[arg(value_name = "REQUESTS", value_parser = value_parser!(u64).range(1..))]
    pub reconnect_every: Option<u64>,
    /// Connections beside the measured ones that ask as much as they can and read next to nothing.
    #[arg(long, help_heading = heading::CONNECTIONS)]
    #[arg(value_name = "CONNS", default_value_t = 0, value_parser = value_parser!(u32).range(0..=CONNECTIONS_MAX))]
    pub slow_readers: u32,
    /// Sends the vectors of one file and checks answers against the scores of another, instead of the sum model.
    #[arg(long, help_heading = heading::REQUESTS, num_args = 2, value_names = ["INPUTS.csv", "EXPECTED.csv"])]
    pub expect: Option<Vec<PathBuf>>,
    /// The column of EXPECTED.csv that the server answers with, from 0.
    #[arg(long, help_heading = heading::REQUESTS, value_name = "N", requires = "expect")]
    pub expect_column: Option<usize>,
    /// How far a score may be from EXPECTED.csv's, as a share of it (absolute below 1); 0: the same bits.
    #[arg(long, help_heading = heading::REQUESTS)]
    #[arg(default_value_t = 1e-5, requires = "expect", value_parser = tolerance)]
    pub tolerance: f32,
    /// Also reports the CPU time of this process, the server, on this machine.
    #[arg(long, help_heading = heading::SERVER, value_name = "PID")]
    pub server_pid: Option<u32>,
}

/// Where results go, beside the table.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = heading::FILES)]
pub struct OutputPlan {
    /// Everything, as schema/run.v1.schema.json has it; what `compare` reads.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// One line a run.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// An interval log that the HdrHistogram tools read.
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// A percentile file that the HdrHistogram tools read, in milliseconds.
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// A plot of the latency spectrum.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// The length of an interval of the interval log.
    #[arg(long, default_value = "1s", value_parser = interval)]
    pub interval: Duration,
}

/// What `search` is to do.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct SearchPlan {
    /// What must hold at a rate (`p99<=200us`; may be given several times).
    #[arg(long, required = true, value_name = "LIMIT")]
    pub slo: Vec<Limit>,
    /// The lowest rate that is tried; the limit need not hold there.
    #[arg(long, default_value = "1k", value_name = "RATE", value_parser = rate_in_bounds)]
    pub from: f64,
    /// The highest rate that is tried.
    #[arg(long, default_value = "10M", value_name = "RATE", value_parser = rate_in_bounds)]
    pub to: f64,
    /// The measured time at each rate.
    #[arg(long, default_value = "2s", value_parser = positive_duration)]
    pub duration: Duration,
    /// How near the highest rate is to be found, as a share of it.
    #[arg(long, default_value_t = 0.05, value_parser = precision)]
    pub precision: f64,
    /// How requests arrive.
    #[command(flatten)]
    pub arrivals: SearchArrivals,
    /// What connects, and with what.
    #[command(flatten)]
    pub clients: ClientPlan,
}

/// How requests arrive in a search, which is always an open loop.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = heading::LOAD)]
pub struct SearchArrivals {
    /// poisson, constant or burst.
    #[arg(long, default_value = "poisson")]
    pub arrival: Arrival,
    /// Requests that come at the same instant with `--arrival burst`.
    #[arg(long, default_value_t = 32, value_parser = value_parser!(u32).range(1..=BURST_MAX))]
    pub burst: u32,
}

/// What `probe` is to do.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ProbePlan {
    /// The measured time for each number of vectors.
    #[arg(long, default_value = "1s", value_parser = positive_duration)]
    pub duration: Duration,
    /// The CPU of the thread.
    #[arg(long, value_name = "CPU", value_parser = cpu_list)]
    pub pin: Option<CpuList>,
}

/// What `compare` is to do.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ComparePlan {
    /// The run before, written by `run --json`.
    #[arg(value_name = "A.json")]
    pub before: PathBuf,
    /// The run after.
    #[arg(value_name = "B.json")]
    pub after: PathBuf,
    /// A change smaller than this share is noise, whatever the repeats say.
    #[arg(long, default_value_t = 0.05, value_parser = precision)]
    pub noise: f64,
    /// The figures that may fail the comparison (`p99`, `service.p50`, `rate`, `server-cpu`); others are only shown.
    #[arg(long, value_delimiter = ',', default_value = "p50,p99,service.p50,service.p99,rate,shed,server-cpu")]
    pub metrics: Vec<Metric>,
}

impl RunPlan {
    /// The load that this plan means.
    pub fn load(&self, seed: u64) -> Load {
        let pace = if self.closed {
            Loop::Closed { window: self.window }
        } else {
            Loop::Open(arrivals(self.arrivals.arrival, self.arrivals.burst, self.rate, seed))
        };
        let load = self.clients.load(pace, self.duration);
        Load {
            reconnect_on_close: self.reconnect_on_close,
            interval: self.output.interval,
            keep_intervals: self.output.hlog.is_some(),
            ..load
        }
    }
}

impl SearchPlan {
    /// The load at `rate_per_second`.
    pub fn load(&self, rate_per_second: f64, seed: u64) -> Load {
        let pace = Loop::Open(arrivals(self.arrivals.arrival, self.arrivals.burst, rate_per_second, seed));
        self.clients.load(pace, self.duration)
    }
}

impl ProbePlan {
    /// One connection that has one request of `vectors` vectors under way.
    pub fn load(&self, vectors: VectorMix) -> Load {
        Load {
            pace: Loop::Closed { window: 1 },
            requests: None,
            greeting: false,
            connections: 1,
            vectors,
            threads: 1,
            pin: self.pin.as_deref().unwrap_or_default().to_vec(),
            warmup: Duration::from_millis(200),
            duration: self.duration,
            spin: Duration::ZERO,
            overtime: OVERTIME,
            connect_rate: None,
            reconnect_every: None,
            reconnect_on_close: false,
            counts_errors: false,
            slow_readers: 0,
            expectation: Expectation::Sum,
            server_pid: None,
            interval: Duration::from_secs(1),
            keep_intervals: false,
        }
    }
}

impl ClientPlan {
    fn load(&self, pace: Loop, duration: Duration) -> Load {
        Load {
            pace,
            requests: None,
            greeting: false,
            connections: self.connections,
            vectors: self.vectors.clone(),
            threads: self.threads.min(self.connections),
            pin: self.pin.as_deref().unwrap_or_default().to_vec(),
            warmup: self.warmup,
            duration,
            spin: self.spin,
            overtime: self.lag_limit.unwrap_or(OVERTIME).max(OVERTIME),
            connect_rate: self.connect_rate,
            reconnect_every: self.reconnect_every,
            reconnect_on_close: false,
            counts_errors: true,
            slow_readers: self.slow_readers,
            expectation: self.expectation(),
            server_pid: self.server_pid,
            interval: Duration::from_secs(1),
            keep_intervals: false,
        }
    }

    fn expectation(&self) -> Expectation {
        match self.expect.as_deref() {
            Some([inputs, expected]) => Expectation::Files(ExpectedFiles {
                inputs: inputs.clone(),
                expected: expected.clone(),
                column: self.expect_column,
                tolerance: self.tolerance,
            }),
            _ => Expectation::Sum,
        }
    }
}

fn arrivals(arrival: Arrival, burst: u32, rate_per_second: f64, seed: u64) -> Arrivals {
    Arrivals { arrival, rate_per_second, burst: if arrival == Arrival::Burst { burst } else { 1 }, seed }
}

fn rate_in_bounds(text: &str) -> Result<f64, String> {
    let rate = rate(text)?;
    if (RATE_MIN..=RATE_MAX).contains(&rate) { Ok(rate) } else { Err(format!("not between {RATE_MIN} and {RATE_MAX}")) }
}

/// A time in bounds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > DURATION_MAX { Err("longer than 7 days".to_owned()) } else { Ok(duration) }
}

/// A time in bounds that is not 0.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|duration| if duration.is_zero() { Err("not above 0".to_owned()) } else { Ok(duration) })
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(10) { Err("not at least 10ms".to_owned()) } else { Ok(interval) }
}

fn tolerance(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|share| (0.0..1.0).contains(share)).ok_or_else(|| "not between 0 and 1".to_owned())
}

/// A share in bounds that is not 0.
pub(super) fn precision(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.001..1.0).contains(share)).ok_or_else(|| "not between 0.001 and 1".to_owned())
}
