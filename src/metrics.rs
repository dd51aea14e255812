//! What the threads count.
//!
//! Each counter has one writer, its thread, and any readers. They are for people and tests; no decision of the server
//! depends on one. Each thread's counters have cache lines of their own.
//!
//! | atomic | writer | readers | guards | ordering |
//! |---|---|---|---|---|
//! | every [`Counter`] | its thread | anyone | nothing | Relaxed: a count orders nothing; readers after a join see all |
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that one thread raises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises the count. Only the owner thread may call this: it is no read-modify-write.
    pub fn add(&self, count: u64) {
        // Relaxed: see the table above.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        // Relaxed: see the table above.
        self.0.load(Ordering::Relaxed)
    }
}

/// What one I/O thread counts. At rest, `requests = answered + discarded`.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct IoMetrics {
    /// Connections accepted and served.
    pub accepted: Counter,
    /// Connections closed at once because there were too many.
    pub rejected: Counter,
    /// Accepts that failed, mostly because descriptors ran out.
    pub accept_failures: Counter,
    /// Connections that ended, for whatever reason.
    pub closed: Counter,
    /// Requests sent to the batch processor.
    pub requests: Counter,
    /// Events that they were in.
    pub events: Counter,
    /// Requests whose answers were put into a send buffer, error 2 included.
    pub answered: Counter,
    /// Requests whose connection was gone when the answers came.
    pub discarded: Counter,
    /// Requests answered with error 4.
    pub refused: Counter,
    /// Connections whose framing was lost (error 1).
    pub framing_errors: Counter,
    /// Connections that broke (reset, timed out by TCP).
    pub broken: Counter,
    /// Connections that missed a deadline.
    pub expired: Counter,
    /// Connections cut at the end of a drain.
    pub cut: Counter,
    /// Receives that found no buffer.
    pub starved: Counter,
    /// Bytes received.
    pub received_bytes: Counter,
    /// Bytes sent.
    pub sent_bytes: Counter,
    /// Sends that took only a part of their block.
    pub partial_sends: Counter,
    /// Wakes of the batch processor.
    pub wakes: Counter,
}

/// What the batch processor counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BatchMetrics {
    /// Steps begun, each with at least one event.
    pub steps_begun: Counter,
    /// Steps finished; one less than begun while the model works.
    pub steps_finished: Counter,
    /// Requests answered, with scores or error 2.
    pub requests: Counter,
    /// Vectors scored.
    pub rows: Counter,
    /// Requests answered with error 2.
    pub model_failures: Counter,
    /// Wakes of I/O threads.
    pub wakes: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_on_lines_of_their_own() {
        assert!(align_of::<IoMetrics>() >= 128 && align_of::<BatchMetrics>() >= 128);
    }

    #[test]
    fn a_counter_counts() {
        let counter = Counter::default();
        counter.add(2);
        counter.add(3);
        assert_eq!(counter.get(), 5);
    }
}
