//! Logs: to stderr, for people, and never in the way of a request.
//!
//! Lines go through a bounded queue to a thread of their own, which drops what a slow reader of stderr does not take;
//! so a stuck terminal or a closed pipe cannot hold up serving. What a peer can cause is logged through a [`LogGate`].
#![forbid(unsafe_code)]

use std::io::Write;
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::model::model_runs;

/// Lines that wait to be written; beyond them, lines are dropped.
const LINES_WAITING_MAX: usize = 1024;

/// The shortest time between two lines of one gate.
const GATE_INTERVAL: Duration = Duration::from_secs(1);

/// The process's logs. Dropping it writes what waits, as far as stderr takes it within a second.
pub struct Logging {
    writer: NonBlocking,
    _worker: WorkerGuard,
}

impl Logging {
    /// Sends the process's logs to stderr, and with them the panics of its threads.
    pub fn start() -> Logging {
        let (writer, worker) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX).finish(std::io::stderr());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(writer.clone())
            .with_ansi(false)
            .with_target(false)
            .with_thread_names(true)
            // A failing stderr must not be reported to stderr.
            .log_internal_errors(false)
            .finish();
        // Fails only if logging was started before, which is as good.
        let _started_before = tracing::subscriber::set_global_default(subscriber);
        log_panics();
        Logging { writer, _worker: worker }
    }

    /// Prints text for the operator, as it is.
    pub fn print(&self, text: &str) {
        // The queue takes it or drops it; the writer behind it reports nothing.
        let _unheard = self.writer.clone().write_all(text.as_bytes());
    }
}

/// Logs panics: the last words of a thread. A model may panic on every request, which whoever called it reports.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if !model_runs() {
            tracing::error!("{panic}");
        }
    }));
}

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
