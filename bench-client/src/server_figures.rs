//! What the server says of itself, as plain figures: a part of a run's result.
//!
//! Invariants: counts are sums over the intervals, times are compared.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
