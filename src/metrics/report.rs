//! Prints what was counted since the last time, as one line of `name=value` pairs on stdout.
//!
//! Only a reader: it stops nobody and may miss what happens while it reads, never twice count it. What the names mean is in
//! [`super::catalogue`].
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::catalogue::{METRICS, QUANTILES, Read, State, value_of, values_of};
use super::{BatchMetrics, HistogramSnapshot, IoMetrics};

/// Reads all threads' metrics, interval by interval.
pub struct Reporter {
    io: Vec<Arc<IoMetrics>>,
    batch: Arc<BatchMetrics>,
    before: Reading,
    at: Instant,
}

/// All that only grows, at a moment; each in the order of [`METRICS`].
struct Reading {
    counts: Vec<(&'static str, u64)>,
    histograms: Vec<HistogramSnapshot>,
}

impl Reporter {
    /// A reporter whose first interval begins now.
    pub fn new(io: Vec<Arc<IoMetrics>>, batch: Arc<BatchMetrics>) -> Reporter {
        let before = Reading::of(&io, &batch);
        Reporter { io, batch, before, at: Instant::now() }
    }

    /// Prints a line every `interval` until the other end of `stop` is gone, and a last one then.
    pub fn run(mut self, interval: Duration, stop: &Receiver<()>) {
        loop {
            let stopped = matches!(stop.recv_timeout(interval), Err(RecvTimeoutError::Disconnected));
            let line = self.line();
            // Nobody may be reading; the server goes on.
            let _unheard = std::io::stdout().write_all(line.as_bytes());
            if stopped {
                return;
            }
        }
    }

    /// The line for the interval that ends now; the next one begins.
    pub fn line(&mut self) -> String {
        let (now, at) = (Reading::of(&self.io, &self.batch), Instant::now());
        let before = std::mem::replace(&mut self.before, now);
        let seconds = (at - std::mem::replace(&mut self.at, at)).as_secs_f64();
        let (now, io, batch) = (&self.before, &self.io[..], &*self.batch);
        let counts: Vec<_> =
            now.counts.iter().zip(&before.counts).map(|((name, now), (_, before))| (*name, now - before)).collect();
        let mut histograms = now.histograms.iter().zip(&before.histograms).map(|(now, before)| now.since(before));
        let mut next_count = counts.iter();
        let state = State { io, batch, counts: &counts, seconds };

        let mut line = format!("metrics interval_s={seconds:.3}");
        let mut put = |name: &str, value: u64| {
            // Writing to a String cannot fail.
            let _ = write!(line, " {name}={value}");
        };
        for metric in &METRICS {
            match metric.read {
                Read::Io(_) | Read::IoSum(_) | Read::Batch(_) => {
                    put(metric.name, next_count.next().expect("as many as there are metrics of this kind").1);
                }
                Read::Never => put(metric.name, 0),
                Read::State(value) => put(metric.name, value(&state)),
                Read::IoPeak(peak) => put(metric.name, io.iter().map(|io| peak(io).take()).max().unwrap_or(0)),
                Read::BatchPeak(peak) => put(metric.name, peak(batch).take()),
                Read::IoTimes(_) | Read::BatchTimes(_) => {
                    let interval = histograms.next().expect("as many as there are metrics of this kind");
                    for (quantile, label) in QUANTILES {
                        put(&format!("{}_{label}", metric.name), interval.quantile(quantile));
                    }
                }
            }
        }
        line.push('\n');
        line
    }
}

impl Reading {
    fn of(io: &[Arc<IoMetrics>], batch: &BatchMetrics) -> Reading {
        let (mut counts, mut histograms) = (Vec::new(), Vec::new());
        for metric in &METRICS {
            match metric.read {
                Read::Io(_) | Read::IoSum(_) | Read::Batch(_) => {
                    counts.push((metric.name, value_of(metric.name, io, batch)));
                }
                Read::IoTimes(_) | Read::BatchTimes(_) => histograms.push(values_of(metric.name, io, batch)),
                Read::Never | Read::State(_) | Read::IoPeak(_) | Read::BatchPeak(_) => {}
            }
        }
        Reading { counts, histograms }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CloseReason;
    use super::*;

    fn value(line: &str, name: &str) -> Option<u64> {
        line.split_whitespace().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }

    #[test]
    fn a_line_counts_what_came_since_the_last_one_over_all_threads() {
        let (io, batch) = ([Arc::new(IoMetrics::default()), Arc::new(IoMetrics::default())], Arc::default());
        io[0].requests.add(5);
        let mut reporter = Reporter::new(io.to_vec(), Arc::clone(&batch));
        io[0].requests.add(1);
        io[1].requests.add(2);
        io[1].accepted.add(4);
        io[1].closed.by(CloseReason::Idle).add(1);
        io[1].closed.by(CloseReason::Rejected).add(9);
        batch.polls_empty.add(3);
        batch.steps_begun.add(1);
        let line = reporter.line();
        assert_eq!(value(&line, "published"), Some(3));
        assert_eq!(value(&line, "connections"), Some(3));
        assert_eq!(value(&line, "stall_pct"), Some(75));
        let line = reporter.line();
        assert_eq!((value(&line, "published"), value(&line, "connections")), (Some(0), Some(3)));
    }

    #[test]
    fn a_line_has_every_name_that_operators_know() {
        let line = Reporter::new(vec![Arc::default()], Arc::default()).line();
        for name in [
            "published",
            "sent",
            "req_ring_full",
            "resp_ring_full",
            "pool_exh",
            "pool_too_large",
            "poll_events",
            "poll_no_events",
            "stall_pct",
            "req_occ",
            "resp_occ",
            "req_max",
            "resp_max",
            "pool_max_in_use",
            "round_ns_p99",
        ] {
            assert_eq!(value(&line, name), Some(0), "{name}");
        }
    }
}
