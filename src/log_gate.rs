//! How often a line is logged that a peer or a model can cause.
//!
//! Whoever logs owns a gate for each such line, and hands in its own time: no clock is read here.
#![forbid(unsafe_code)]

use std::time::Duration;

/// The shortest time between two lines of one gate.
const GATE_INTERVAL: Duration = Duration::from_secs(1);

/// Lets one line a second pass.
#[derive(Debug, Default)]
pub struct LogGate {
    passed_at_ns: Option<u64>,
    suppressed: u64,
}

impl LogGate {
    /// Whether a line may be written now: then how many were suppressed since the last one.
    pub fn pass(&mut self, now_ns: u64) -> Option<u64> {
        let interval_ns = GATE_INTERVAL.as_nanos() as u64;
        if self.passed_at_ns.is_some_and(|passed_at_ns| now_ns.saturating_sub(passed_at_ns) < interval_ns) {
            self.suppressed += 1;
            return None;
        }
        self.passed_at_ns = Some(now_ns);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_one_line_a_second_pass_and_counts_the_others() {
        let mut gate = LogGate::default();
        assert_eq!(gate.pass(5), Some(0));
        assert_eq!(gate.pass(6), None);
        assert_eq!(gate.pass(999_999_999), None);
        assert_eq!(gate.pass(1_000_000_005), Some(2));
        assert_eq!(gate.pass(2_000_000_005), Some(0));
    }
}
