//! Time as far as the process was there to use it.
//!
//! A stopped process, a frozen container or a suspended machine does not work, and its clocks go on. Whoever judges by the
//! clock how long something has taken then takes for hung what has just not been allowed to run. So time is added up from
//! waits: each counts as long as it was meant to be, at most, however late the thread came back from it.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// One thread's sum of its waits.
#[derive(Debug)]
pub struct LivedTime {
    lived: Duration,
    at: Instant,
}

impl LivedTime {
    /// No time has passed until `now`.
    pub fn starting(now: Instant) -> LivedTime {
        LivedTime { lived: Duration::ZERO, at: now }
    }

    /// Counts the time since the last call: as much as there was, but not more than the `wait` that was begun then.
    pub fn waited(&mut self, wait: Duration, now: Instant) {
        self.lived += now.saturating_duration_since(self.at).min(wait);
        self.at = now;
    }

    /// The time until now.
    pub fn lived(&self) -> Duration {
        self.lived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A freeze of any length counts for one wait; a wait that ends early counts for what it took.
    #[test]
    fn a_freeze_is_no_time() {
        let (wait, mut now) = (Duration::from_millis(100), Instant::now());
        let mut time = LivedTime::starting(now);
        for (passed_ms, lived_ms) in [(100, 100), (40, 140), (3_600_000, 240), (150, 340), (0, 340)] {
            now += Duration::from_millis(passed_ms);
            time.waited(wait, now);
            assert_eq!(time.lived(), Duration::from_millis(lived_ms));
        }
    }
}
