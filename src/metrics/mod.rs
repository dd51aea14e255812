//! What the threads count, and with the feature `metrics` also time.
//!
//! Each counter has one writer at a time and any readers: an I/O thread's is that thread; the batch processor's is who has its
//! role, which passes from thread to thread with all that was written ([`crate::exchange::token`]). They are for people and tests; no decision of the server
//! depends on one. Each thread's counters have cache lines of their own. Counting is always on; what needs a clock or
//! a look at every turn is [`DETAILED`], and compiled out without the feature. [`catalogue`] names all of it, and [`report`] prints it.
//!
//! | atomic | writer | readers | guards | ordering |
//! |---|---|---|---|---|
//! | every [`Counter`], every bucket of a [`Histogram`] | its thread, or who has the role | anyone | nothing | Relaxed: a count orders nothing; readers after a join see all |
//! | every [`Peak`] | its thread raises it, the reporter takes it | the reporter | nothing | Relaxed read-modify-write: a peak is reported once, in one of two adjoining intervals |
#![forbid(unsafe_code)]

pub mod catalogue;
mod histogram;
pub mod report;

use std::sync::atomic::{AtomicU64, Ordering};

pub use histogram::{Histogram, HistogramSnapshot};

/// Whether stage times and peaks are taken: `cargo build --features metrics`.
pub const DETAILED: bool = cfg!(feature = "metrics");

/// A count that one thread raises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises the count. Only its writer may call this: it is no read-modify-write.
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

/// The largest value since it was last taken.
#[derive(Debug, Default)]
pub struct Peak(AtomicU64);

impl Peak {
    /// Raises the peak to `value`, if that is larger. Does nothing unless [`DETAILED`].
    pub fn raise(&self, value: usize) {
        // Relaxed: see the table above. The load spares the read-modify-write in nearly every turn.
        if DETAILED && value as u64 > self.0.load(Ordering::Relaxed) {
            self.0.fetch_max(value as u64, Ordering::Relaxed);
        }
    }

    /// The peak, and begins anew.
    pub fn take(&self) -> u64 {
        // Relaxed: see the table above.
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// What one I/O thread counts. At rest, `requests = answered + discarded`.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct IoMetrics {
    /// Connections accepted and served.
    pub accepted: Counter,
    /// Connections accepted, and given to a thread with fewer, which counts them as accepted.
    pub given_away: Counter,
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
    /// Connections closed because the budget for blocks was used up.
    pub evicted: Counter,
    /// Connections cut at the end of a drain, or given up in one with answers that their peers had not taken.
    pub cut: Counter,
    /// Receives that found no buffer.
    pub starved: Counter,
    /// Bytes received.
    pub received_bytes: Counter,
    /// Bytes sent.
    pub sent_bytes: Counter,
    /// Sends that took only a part of their block.
    pub partial_sends: Counter,
    /// Bytes of blocks that were given back to the allocator.
    pub trimmed_bytes: Counter,
    /// Publications that this thread scored itself.
    pub helps: Counter,
    /// Wakes of the batch processor.
    pub wakes: Counter,
    /// Publications that needed no wake, because the batch processor was awake.
    pub wakes_coalesced: Counter,
    /// Responses taken from the queue.
    pub responses: Counter,
    /// Times that the request ring had no place. Cannot happen; asserted.
    pub request_ring_full: Counter,
    /// The most responses taken in one turn.
    pub responses_peak: Peak,
    /// The most buffers that were not lent to the kernel at the end of a turn.
    pub buffers_in_use_peak: Peak,
    /// From publishing an event to taking its response.
    pub round_ns: Histogram,
}

/// What the batch processor counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BatchMetrics {
    /// Steps begun, each with at least one event.
    pub steps_begun: Counter,
    /// Steps finished; one less than begun while the model works.
    pub steps_finished: Counter,
    /// Calls of the model, each counted before it is made: one for each step, and more where there are very many scores or the
    /// model fails.
    pub model_calls: Counter,
    /// Models taken in place of the one before.
    pub model_swaps: Counter,
    /// Requests answered, with scores or error 2.
    pub requests: Counter,
    /// Vectors scored.
    pub rows: Counter,
    /// Requests answered with error 2.
    pub model_failures: Counter,
    /// Wakes of I/O threads.
    pub wakes: Counter,
    /// Publications that needed no wake, because the I/O thread was awake.
    pub wakes_coalesced: Counter,
    /// Looks that found no event.
    pub polls_empty: Counter,
    /// Events taken from the ring.
    pub events: Counter,
    /// Responses sent back.
    pub responses: Counter,
    /// The most events taken in one step.
    pub events_peak: Peak,
    /// Vectors of one step.
    pub batch_rows: Histogram,
    /// From publishing an event to the step that takes it.
    pub queue_ns: Histogram,
    /// What the model takes for a step.
    pub predict_ns: Histogram,
    /// What writing and sending back a step's answers takes.
    pub respond_ns: Histogram,
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
