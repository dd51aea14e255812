//! What the tests of this folder share: the gateway in a process of its own, servers that are threads of the test and do what they are
//! told, and a client that knows just enough HTTP to see what is answered.
//!
//! Nothing here measures a time: a deadline is only where a test gives up, so that none hangs.
#![allow(dead_code, unused_imports, reason = "each test crate uses its part of this")]

mod http;
mod process;
mod stub;

use std::thread::sleep;
use std::time::{Duration, Instant};

pub use http::{Answer, Connection, ask, get, post};
pub use process::{GatewayProcess, Run, binary};
pub use stub::{Behaviour, Stub};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun_at = Instant::now();
    while !holds() {
        assert!(begun_at.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// The path by which the stub's model is asked.
pub const INFER: &str = "/v2/models/sum/infer";

/// A request of rows, as JSON.
pub fn request(rows: &[&[f32]]) -> String {
    let width = rows.first().map_or(0, |row| row.len());
    format!(
        "{{\"inputs\":[{{\"name\":\"input\",\"shape\":[{},{width}],\"datatype\":\"FP32\",\"data\":{rows:?}}}]}}",
        rows.len()
    )
}
