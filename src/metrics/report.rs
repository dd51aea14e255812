//! Prints what was counted since the last time, as one line of `name=value` pairs on stdout.
//!
//! Only a reader: it stops nobody and may miss what happens while it reads, never twice count it. The names are part of
//! the interface; PERFORMANCE.md explains them.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{BatchMetrics, Counter, Histogram, HistogramSnapshot, IoMetrics, Peak};

/// Reads all threads' metrics, interval by interval.
pub struct Reporter {
    io: Vec<Arc<IoMetrics>>,
    batch: Arc<BatchMetrics>,
    counts: Vec<u64>,
    times: Vec<HistogramSnapshot>,
    at: Instant,
}

/// A counter of all I/O threads together, by its name in the report.
type IoCount = (&'static str, fn(&IoMetrics) -> &Counter);
/// A counter of the batch processor.
type BatchCount = (&'static str, fn(&BatchMetrics) -> &Counter);

const IO_COUNTS: [IoCount; 22] = [
    ("published", |io| &io.requests),
    ("sent", |io| &io.answered),
    ("discarded", |io| &io.discarded),
    ("refused", |io| &io.refused),
    ("req_ring_full", |io| &io.request_ring_full),
    ("pool_exh", |io| &io.starved),
    ("pool_too_large", |io| &io.request_too_large),
    ("accepted", |io| &io.accepted),
    ("closed", |io| &io.closed),
    ("rejected", |io| &io.rejected),
    ("received_bytes", |io| &io.received_bytes),
    ("sent_bytes", |io| &io.sent_bytes),
    ("partial_sends", |io| &io.partial_sends),
    ("err_accept", |io| &io.accept_failures),
    ("err_framing", |io| &io.framing_errors),
    ("err_broken", |io| &io.broken),
    ("err_expired", |io| &io.expired),
    ("err_evicted", |io| &io.evicted),
    ("cut", |io| &io.cut),
    ("trimmed_bytes", |io| &io.trimmed_bytes),
    ("batch_wakes", |io| &io.wakes),
    ("batch_wakes_coalesced", |io| &io.wakes_coalesced),
];

const BATCH_COUNTS: [BatchCount; 7] = [
    ("resp_ring_full", |batch| &batch.response_queue_full),
    ("err_model", |batch| &batch.model_failures),
    ("rows", |batch| &batch.rows),
    ("io_wakes", |batch| &batch.wakes),
    ("io_wakes_coalesced", |batch| &batch.wakes_coalesced),
    ("poll_events", |batch| &batch.steps_begun),
    ("poll_no_events", |batch| &batch.polls_empty),
];

impl Reporter {
    /// A reporter whose first interval begins now.
    pub fn new(io: Vec<Arc<IoMetrics>>, batch: Arc<BatchMetrics>) -> Reporter {
        let mut reporter = Reporter { io, batch, counts: Vec::new(), times: Vec::new(), at: Instant::now() };
        (reporter.counts, reporter.times) = (reporter.read_counts(), reporter.read_times());
        reporter
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
        let (counts, times, at) = (self.read_counts(), self.read_times(), Instant::now());
        let seconds = (at - self.at).as_secs_f64();
        let names = IO_COUNTS.iter().map(|(name, _)| *name).chain(BATCH_COUNTS.iter().map(|(name, _)| *name));
        let deltas: Vec<_> =
            names.zip(counts.iter().zip(&self.counts)).map(|(name, (now, before))| (name, now - before)).collect();
        let delta = |wanted| deltas.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, delta)| *delta);

        let mut line =
            format!("metrics interval_s={seconds:.3} requests_per_s={:.0}", delta("published") as f64 / seconds);
        let mut put = |name: &str, value: u64| {
            // Writing to a String cannot fail.
            let _ = write!(line, " {name}={value}");
        };
        deltas.iter().for_each(|(name, delta)| put(name, *delta));
        let polls = delta("poll_events") + delta("poll_no_events");
        put("stall_pct", (100 * delta("poll_no_events")).checked_div(polls).unwrap_or(0));
        put("connections", self.io_sum(|io| &io.accepted).saturating_sub(self.io_sum(|io| &io.closed)));
        put("req_occ", self.io_sum(|io| &io.events).saturating_sub(self.batch.events.get()));
        put("resp_occ", self.batch.responses.get().saturating_sub(self.io_sum(|io| &io.responses)));
        put("req_max", self.batch.events_peak.take());
        put("resp_max", self.io_peak(|io| &io.responses_peak));
        put("pool_max_in_use", self.io_peak(|io| &io.buffers_in_use_peak));
        for (name, (now, before)) in TIMES.iter().zip(times.iter().zip(&self.times)) {
            let interval = now.since(before);
            for (quantile, label) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p999")] {
                put(&format!("{name}_{label}"), interval.quantile(quantile));
            }
        }
        line.push('\n');
        (self.counts, self.times, self.at) = (counts, times, at);
        line
    }

    fn read_counts(&self) -> Vec<u64> {
        let io = IO_COUNTS.iter().map(|(_, counter)| self.io_sum(*counter));
        io.chain(BATCH_COUNTS.iter().map(|(_, counter)| counter(&self.batch).get())).collect()
    }

    fn read_times(&self) -> Vec<HistogramSnapshot> {
        let rounds = self.io.iter().map(|io| io.round_ns.snapshot());
        let rounds = rounds.reduce(|all, one| all.merge(&one)).unwrap_or_default();
        let batch: [&Histogram; 4] =
            [&self.batch.queue_ns, &self.batch.predict_ns, &self.batch.respond_ns, &self.batch.batch_rows];
        std::iter::once(rounds).chain(batch.map(Histogram::snapshot)).collect()
    }

    fn io_sum(&self, counter: impl Fn(&IoMetrics) -> &Counter) -> u64 {
        self.io.iter().map(|io| counter(io).get()).sum()
    }

    fn io_peak(&self, peak: fn(&IoMetrics) -> &Peak) -> u64 {
        self.io.iter().map(|io| peak(io).take()).max().unwrap_or(0)
    }
}

/// Names of the histograms, in the order of [`Reporter::read_times`].
const TIMES: [&str; 5] = ["round_ns", "queue_ns", "predict_ns", "respond_ns", "batch_rows"];

#[cfg(test)]
mod tests {
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
        io[1].closed.add(1);
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
