//! Histograms of a run, interval by interval: each worker fills its own, and the main thread adds them up.
//!
//! A worker never adds histograms (30 to 100 us, which would show as schedule lag): at the end of an interval it sends
//! the full pair away and goes on with an empty one, which the main thread has sent back.
//!
//! Invariants: the hot path records into memory that is the worker's alone; after the start a pair is only allocated if
//! the main thread did not keep up.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is told from longer ones.
const TIME_NS_MAX: u64 = 3_600_000_000_000;

/// Digits of a time that are kept: 1 in 1000.
const TIME_DIGITS: u8 = 3;

/// Empty pairs that a worker has at the start. More: memory (0.5 MB each). Fewer: one is allocated during the run.
const SPARES: usize = 3;

/// A histogram of times in nanoseconds.
pub fn times_ns() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_NS_MAX, TIME_DIGITS).expect("1 ns to 1 h with 3 digits is a valid histogram")
}

/// What one worker measured in one interval.
pub struct Interval {
    /// Of the measured time, from 0.
    pub index: u64,
    /// From the intended send time to the answer.
    pub response_ns: Histogram<u64>,
    /// From handing the request to the kernel to the answer.
    pub service_ns: Histogram<u64>,
    /// Answers that arrived in this interval.
    pub answers: u64,
    /// Vectors of those answers.
    pub vectors: u64,
}

impl Interval {
    fn new() -> Interval {
        Interval { index: 0, response_ns: times_ns(), service_ns: times_ns(), answers: 0, vectors: 0 }
    }

    fn reset(&mut self) {
        self.response_ns.reset();
        self.service_ns.reset();
        (self.answers, self.vectors) = (0, 0);
    }
}

/// A worker's end.
pub struct Recorder {
    full: Sender<(usize, Interval)>,
    empty: Receiver<Interval>,
    worker: usize,
    current: Interval,
    /// When the measured time begins, and how long an interval is.
    measured_from_ns: u64,
    interval_ns: u64,
    current_end_ns: u64,
}

/// The main thread's end of one worker.
pub struct EmptyIntervals(Sender<Interval>);

impl EmptyIntervals {
    /// Gives a pair back that has been added up.
    pub fn give_back(&self, mut interval: Interval) {
        interval.reset();
        // The worker may have ended, and needs no more then.
        let _ = self.0.send(interval);
    }
}

impl Recorder {
    /// A recorder of worker `worker` that sends full intervals to `full`.
    pub fn new(
        worker: usize,
        full: Sender<(usize, Interval)>,
        measured_from_ns: u64,
        interval: Duration,
    ) -> (Recorder, EmptyIntervals) {
        let (empty_sender, empty) = channel();
        for _ in 0..SPARES {
            empty_sender.send(Interval::new()).expect("the receiver is here");
        }
        let interval_ns = interval.as_nanos() as u64;
        let current_end_ns = measured_from_ns + interval_ns;
        let current = Interval::new();
        let recorder = Recorder { full, empty, worker, current, measured_from_ns, interval_ns, current_end_ns };
        (recorder, EmptyIntervals(empty_sender))
    }

    /// The histograms of the interval at `now_ns`, after sending away those before it.
    pub fn at(&mut self, now_ns: u64) -> &mut Interval {
        if now_ns >= self.current_end_ns {
            self.send_current();
            self.current.index = (now_ns - self.measured_from_ns) / self.interval_ns;
            self.current_end_ns = self.measured_from_ns + (self.current.index + 1) * self.interval_ns;
        }
        &mut self.current
    }

    fn send_current(&mut self) {
        let next = self.empty.try_recv().unwrap_or_else(|_| Interval::new());
        let full = std::mem::replace(&mut self.current, next);
        // If the main thread is gone, the process is about to end.
        let _ = self.full.send((self.worker, full));
    }

    /// Sends the last interval away.
    pub fn finish(mut self) {
        self.send_current();
    }
}
