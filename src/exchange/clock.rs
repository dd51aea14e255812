//! The process's clock, one for all threads: what one wrote down, another can compare.
//!
//! Whoever decides by time is handed it, so that a simulation can hand in its own.
#![forbid(unsafe_code)]

use std::time::Instant;

/// Monotonic time since a moment before the threads began.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn starting() -> Clock {
        Clock { epoch: Instant::now() }
    }

    /// Nanoseconds since it began.
    pub fn now_ns(&self) -> u64 {
        // 584 years fit.
        self.epoch.elapsed().as_nanos() as u64
    }
}
