//! What the tests of this folder share: a server in this process, a server in a process of its own, a client that
//! compares answers bit by bit, and a seeded source of requests.
//!
//! Nothing here measures a time: a deadline is only where a test gives up, so that none hangs.
#![allow(dead_code, unused_imports, reason = "each test crate uses its part of this")]

pub mod admin;
mod client;
pub mod models;
mod process;
mod request;
mod server;
pub mod truth;

use std::thread::sleep;
use std::time::{Duration, Instant};

pub use client::{Client, DeafCrowd, Told, connected};
pub use process::{Run, ServerProcess, binary, free_port};
pub use request::{Reply, Request, bytes_of, random_requests, random_rows, seeded};
pub use server::{Bystander, Gate, TestServer, config};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long a whole server may take to end, whatever else the machine does.
pub const PATIENCE_FOR_END: Duration = Duration::from_secs(60);

/// Waits until something holds.
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_patiently_until(PATIENCE, what, holds);
}

/// Waits until something holds that may take long on a busy machine.
pub fn wait_patiently_until(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun_at = Instant::now();
    while !holds() {
        assert!(begun_at.elapsed() < patience, "waited in vain: {what}");
        sleep(Duration::from_millis(2));
    }
}
