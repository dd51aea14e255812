//! The command line of `client bench`; a part of [`super`], which reads it.
//!
//! Invariants: as there.

use std::time::Duration;

use clap::{Args, value_parser};
use disrust_protocol::MAX_VECTORS_PER_REQUEST;

use super::run::DURATION_MAX;
use super::{CONNECTIONS_MAX, WINDOW_MAX};
use crate::load::truth::Expectation;
use crate::load::{Load, Loop};

/// What `bench` is to do.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BenchPlan {
    /// Connections.
    #[arg(value_name = "CONNS", value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub connections: u32,
    /// Requests in total, shared out over the connections as they become free to send.
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub requests: u64,
    /// The most requests of one connection that wait for their answers.
    #[arg(long, default_value_t = 16, value_parser = value_parser!(u32).range(1..=WINDOW_MAX))]
    pub window: u32,
    /// Vectors in a request.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=i64::from(MAX_VECTORS_PER_REQUEST)))]
    pub vectors: u32,
    /// Also reports the CPU time of this process, the server, on this machine.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

impl BenchPlan {
    /// The load that this plan means.
    pub fn load(&self) -> Load {
        let share = self.requests.div_ceil(u64::from(self.connections));
        Load {
            // With fewer requests than windows, every connection still gets its share.
            pace: Loop::Closed { window: u32::try_from(share).map_or(self.window, |share| self.window.min(share)) },
            requests: Some(self.requests),
            greeting: true,
            connections: self.connections,
            vectors: self.vectors.to_string().parse().expect("a number of vectors is a mix"),
            threads: 1,
            pin: Vec::new(),
            warmup: Duration::ZERO,
            duration: DURATION_MAX,
            spin: Duration::ZERO,
            overtime: Duration::ZERO,
            connect_rate: None,
            reconnect_every: None,
            reconnect_on_close: false,
            counts_errors: false,
            slow_readers: 0,
            expectation: Expectation::Sum,
            server_pid: self.server_pid,
            interval: Duration::from_secs(1),
            keep_intervals: false,
        }
    }
}
