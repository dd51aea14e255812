//! The last five minutes, second by second, for the status page.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::kernel::unix_seconds;
use crate::limits::ADMIN_HISTORY_SECONDS;
use crate::metrics::{BatchMetrics, HistogramSnapshot, IoMetrics};

/// How long a sample is.
const INTERVAL: Duration = Duration::from_secs(1);

/// What came in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sample {
    pub unix_seconds: f64,
    pub requests_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub batch_vectors: f64,
    /// Of the busiest thread.
    pub busy_share: f64,
    pub shed_per_s: f64,
    pub connections: u64,
}

/// Of one I/O thread, in the last second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ThreadSample {
    pub receive_bytes_per_s: f64,
    pub send_bytes_per_s: f64,
    pub busy_share: f64,
}

#[derive(Debug)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    threads: Vec<ThreadSample>,
    batch_busy_share: f64,
    before: Moment,
}

/// All that only grows, at a moment.
#[derive(Debug)]
struct Moment {
    at: Instant,
    requests: u64,
    shed: u64,
    rows: u64,
    steps: u64,
    batch_busy_ns: u64,
    request_ns: HistogramSnapshot,
    threads: Vec<ThreadMoment>,
}

#[derive(Debug)]
struct ThreadMoment {
    received_bytes: u64,
    sent_bytes: u64,
    busy_ns: u64,
}

impl Moment {
    fn of(io: &[Arc<IoMetrics>], batch: &BatchMetrics, at: Instant) -> Moment {
        let requests = io.iter().map(|io| io.request_ns.snapshot());
        let of_thread = |io: &Arc<IoMetrics>| ThreadMoment {
            received_bytes: io.received_bytes.get(),
            sent_bytes: io.sent_bytes.get(),
            busy_ns: io.busy_ns.get(),
        };
        Moment {
            at,
            requests: io.iter().map(|io| io.answered()).sum(),
            shed: io.iter().map(|io| io.shed.get()).sum(),
            rows: batch.rows.get(),
            steps: batch.steps_finished.get(),
            batch_busy_ns: batch.busy_ns.get(),
            request_ns: requests.reduce(|all, one| all.merge(&one)).unwrap_or_default(),
            threads: io.iter().map(of_thread).collect(),
        }
    }
}

impl History {
    pub fn beginning(io: &[Arc<IoMetrics>], batch: &BatchMetrics, now: Instant) -> History {
        let before = Moment::of(io, batch, now);
        History {
            samples: VecDeque::with_capacity(ADMIN_HISTORY_SECONDS),
            threads: Vec::new(),
            batch_busy_share: 0.0,
            before,
        }
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> impl DoubleEndedIterator<Item = &Sample> {
        self.samples.iter()
    }

    /// What each I/O thread did in the last one; nothing before that.
    pub fn thread(&self, index: usize) -> ThreadSample {
        self.threads.get(index).copied().unwrap_or_default()
    }

    /// How much of the last one the batch processor was busy, whichever thread played it.
    pub fn batch_busy_share(&self) -> f64 {
        self.batch_busy_share
    }

    /// Takes a sample if a second has passed. Returns whether it has.
    pub fn sample_when_due(
        &mut self,
        io: &[Arc<IoMetrics>],
        batch: &BatchMetrics,
        connections: usize,
        now: Instant,
    ) -> bool {
        let passed = now.saturating_duration_since(self.before.at);
        if passed < INTERVAL {
            return false;
        }
        let seconds = passed.as_secs_f64();
        let now = Moment::of(io, batch, now);
        let before = std::mem::replace(&mut self.before, now);
        let now = &self.before;
        let requests = now.request_ns.since(&before.request_ns);
        let us = |quantile| requests.quantile(quantile) as f64 / 1e3;
        let per_s = |now: u64, before: u64| (now - before) as f64 / seconds;
        let steps = now.steps - before.steps;
        let share = |now: u64, before: u64| (per_s(now, before) / 1e9).min(1.0);
        let of_thread = |(now, before): (&ThreadMoment, &ThreadMoment)| ThreadSample {
            receive_bytes_per_s: per_s(now.received_bytes, before.received_bytes),
            send_bytes_per_s: per_s(now.sent_bytes, before.sent_bytes),
            busy_share: share(now.busy_ns, before.busy_ns),
        };
        self.threads = now.threads.iter().zip(&before.threads).map(of_thread).collect();
        self.batch_busy_share = share(now.batch_busy_ns, before.batch_busy_ns);
        if self.samples.len() == ADMIN_HISTORY_SECONDS {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            unix_seconds: unix_seconds(),
            requests_per_s: per_s(now.requests, before.requests),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            batch_vectors: if steps == 0 { 0.0 } else { (now.rows - before.rows) as f64 / steps as f64 },
            busy_share: self.threads.iter().map(|thread| thread.busy_share).fold(self.batch_busy_share, f64::max),
            shed_per_s: per_s(now.shed, before.shed),
            connections: connections as u64,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_tells_of_its_second_and_the_oldest_goes() {
        let (io, batch) = ([Arc::new(IoMetrics::default()), Arc::default()], BatchMetrics::default());
        let begun_at = Instant::now();
        let mut history = History::beginning(&io, &batch, begun_at);
        for second in 1..=2 * ADMIN_HISTORY_SECONDS as u64 {
            io[0].ok.add(20);
            io[1].model_errors.add(10);
            io[1].shed.add(4);
            io[1].busy_ns.add(500_000_000);
            batch.busy_ns.add(200_000_000);
            io[1].received_bytes.add(64);
            batch.rows.add(12);
            batch.steps_finished.add(3);
            let end = begun_at + Duration::from_secs(2 * second);
            assert!(!history.sample_when_due(&io, &batch, 7, end - Duration::from_millis(1500)));
            assert!(history.sample_when_due(&io, &batch, 7, end));
        }
        let samples: Vec<_> = history.samples().collect();
        let last = samples[ADMIN_HISTORY_SECONDS - 1];
        assert_eq!(samples.len(), ADMIN_HISTORY_SECONDS);
        assert_eq!((last.requests_per_s, last.batch_vectors, last.connections), (17.0, 4.0, 7));
        assert_eq!((last.shed_per_s, last.busy_share, history.batch_busy_share()), (2.0, 0.25, 0.1));
        assert_eq!((history.thread(0).receive_bytes_per_s, history.thread(1).receive_bytes_per_s), (0.0, 32.0));
    }
}
