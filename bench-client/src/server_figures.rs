//! What the server says of itself, as plain figures: a part of a run's result.
//!
//! Invariants: counts are sums over the intervals, times are compared.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The counts of the server that are printed; the JSON has all.
pub const SERVER_COUNTS: [&str; 7] =
    ["published", "poll_events", "batch_wakes", "batch_wakes_coalesced", "io_wakes", "io_wakes_coalesced", "pool_exh"];

/// What the server says of the measured time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerFigures {
    /// Whole intervals inside the measured time.
    pub intervals: u32,
    /// Their length together.
    pub seconds: f64,
    /// What was counted in them, by the server's names.
    pub counts: BTreeMap<String, u64>,
    /// Times by stage.
    pub stages: Vec<StageTimes>,
}

/// The times of one stage, over the intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageTimes {
    /// As the server names it.
    pub stage: String,
    /// The median of the intervals' p50.
    pub p50_ns: f64,
    /// The median of the intervals' p99.
    pub p99_ns: f64,
    /// The largest of the intervals' p99.
    pub p99_ns_max: f64,
}
