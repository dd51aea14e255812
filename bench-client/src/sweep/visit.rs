//! One visit: a fresh server, one measurement by the engine that `run` has, and what the system says of the process.
//!
//! A fresh process for each visit costs some milliseconds, and no point inherits another's memory or warmth.
//!
//! Invariants: the server has ended when this returns; a wrong answer is an error, a saturated client is not: the point
//! is kept and marked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::SweepError;
use super::journal::Visit;
use super::machine::Machine;
use super::plan::{Grid, Pacing, Point};
use super::server::{Programs, Running};
use crate::args::OVERTIME;
use crate::connect::Target;
use crate::failure::Failure;
use crate::load::schedule::{Arrival, Arrivals};
use crate::load::truth::Expectation;
use crate::load::{Load, Loop, measure};
use crate::processor_time::OthersWatch;
use crate::summary::Repeat;

/// How long a thread of the client polls before a request is due. As `run` has it.
const SPIN: Duration = Duration::from_micros(50);

/// What all visits have in common.
pub struct Visitor<'a> {
    /// Features, seed and patience; its port is nobody's.
    pub target: &'a Target,
    /// Times.
    pub grid: &'a Grid,
    /// CPUs.
    pub machine: &'a Machine,
    /// What is started.
    pub programs: &'a Programs,
}

impl Visitor<'_> {
    /// How long a visit of `point` takes, about.
    pub fn planned(&self, point: &Point) -> Duration {
        /// Starting and ending the server, and connecting.
        const AROUND: Duration = Duration::from_millis(100);
        self.grid.warmup + self.duration(point) + AROUND
    }

    fn duration(&self, point: &Point) -> Duration {
        match point.pacing {
            Pacing::Closed { .. } => self.grid.duration,
            Pacing::Open { .. } => self.grid.duration * 2,
        }
    }

    /// Measures `point`. Rounds differ by their seed, so that no visit has the gaps of another.
    pub fn visit(&self, point: &Point, round: u32, key: String) -> Result<Visit, Failure> {
        let server = Running::start(&point.server, self.programs, self.machine)?;
        let target = Target { port: server.port, path: None, host: "127.0.0.1".to_owned(), ..self.target.clone() };
        let load = self.load(point, round, &server)?;
        let others = OthersWatch::begin(server.process());
        let measurement = measure(&target, &load, &mut |_| {})?;
        let others_cpu_share = others.share();
        let switches: Option<u64> =
            measurement.server.as_ref().map(|threads| threads.iter().map(|thread| thread.context_switches).sum());
        let repeat = Repeat { others_cpu_share, ..Repeat::of(&load, &measurement, None) };
        Ok(Visit {
            key,
            point: *point,
            round,
            measured_at_unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            resident_bytes: server.resident_bytes(),
            context_switches_per_request: switches.map(|count| count as f64 / repeat.answered.max(1) as f64),
            repeat,
        })
    }

    fn load(&self, point: &Point, round: u32, server: &Running) -> Result<Load, SweepError> {
        let pace = match point.pacing {
            Pacing::Closed { window } => Loop::Closed { window },
            Pacing::Open { rate_per_second, .. } => Loop::Open(Arrivals {
                arrival: Arrival::Poisson,
                rate_per_second,
                burst: 1,
                seed: self.target.seed.wrapping_add(u64::from(round)),
            }),
        };
        Ok(Load {
            pace,
            requests: None,
            greeting: false,
            connections: point.connections,
            vectors: point.vectors.to_string().parse().map_err(SweepError::Vectors)?,
            threads: self.machine.client_threads.min(point.connections),
            pin: self.machine.client_cpus(),
            warmup: self.grid.warmup,
            duration: self.duration(point),
            spin: SPIN,
            overtime: OVERTIME,
            connect_rate: None,
            reconnect_every: None,
            reconnect_on_close: false,
            counts_errors: false,
            slow_readers: 0,
            expectation: Expectation::Sum,
            server_pid: Some(server.process()),
            interval: Duration::from_secs(1),
            keep_intervals: false,
        })
    }
}
