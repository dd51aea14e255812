//! What the threads count, and where it is asked for also time.
//!
//! Each counter has one writer at a time and any readers: an I/O thread's is that thread; the batch processor's is who has its
//! role, which passes from thread to thread with all that was written ([`crate::exchange::token`]). They are for people and tests; no decision of the server
//! depends on one. Each thread's counters have cache lines of their own. Counting is always on; what needs a clock is taken where
//! `stage_times` says so, as the server is put together: where it is not, that costs a branch which is never taken.
//! [`catalogue`] names all of it, and [`report`] prints it.
//!
//! Invariants, at rest: each request that was published is counted once more, by the I/O thread that ends it: `requests = ok +
//! model_errors + shed + discarded`. A hello is no request. Each connection that was accepted is counted once more, by how it ended.
//!
//! | atomic | writer | readers | guards | ordering |
//! |---|---|---|---|---|
//! | every [`Counter`], every bucket of a [`Histogram`] | its thread, or who has the role | anyone | nothing | Relaxed: a count orders nothing; readers after a join see all |
//! | every [`Gauge`] | its thread | anyone | nothing | Relaxed: it is of some moment |
//! | every [`Peak`] | its thread raises it, the reporter takes it | the reporter | nothing | Relaxed read-modify-write: a peak is reported once, in one of two adjoining intervals |
#![forbid(unsafe_code)]

pub mod catalogue;
mod closes;
pub mod families;
mod histogram;
pub mod report;
mod roster;

use std::sync::atomic::{AtomicU64, Ordering};

pub use closes::{CloseReason, Closes};
pub use histogram::{Histogram, HistogramSnapshot};
pub use roster::{ROSTER_MAX, Roster, RosterEntry};

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

/// A value that one thread sets, of the present.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the value. Only its writer may call this.
    pub fn set(&self, value: usize) {
        // Relaxed: see the table above.
        self.0.store(value as u64, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        // Relaxed: see the table above.
        self.0.load(Ordering::Relaxed)
    }
}

/// The largest value since it was last taken.
#[derive(Debug, Default)]
pub struct Peak(AtomicU64);

impl Peak {
    /// Raises the peak to `value`, if that is larger.
    pub fn raise(&self, value: usize) {
        // Relaxed: see the table above. The load spares the read-modify-write in nearly every turn.
        if value as u64 > self.0.load(Ordering::Relaxed) {
            self.0.fetch_max(value as u64, Ordering::Relaxed);
        }
    }

    /// The peak, and begins anew.
    pub fn take(&self) -> u64 {
        // Relaxed: see the table above.
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// What one I/O thread counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct IoMetrics {
    /// Whether times are taken, of this thread and of its requests.
    pub stage_times: bool,
    /// Connections accepted and served.
    pub accepted: Counter,
    /// Connections accepted, and given to a thread with fewer, which counts them as accepted.
    pub given_away: Counter,
    /// Accepts that failed, mostly because descriptors ran out.
    pub accept_failures: Counter,
    /// Connections that ended, by how they did.
    pub closed: Closes,
    /// Requests sent to the batch processor.
    pub requests: Counter,
    /// Events that they were in.
    pub events: Counter,
    /// Requests whose scores were put into a send buffer.
    pub ok: Counter,
    /// Requests for which error 2 was: the model failed on them.
    pub model_errors: Counter,
    /// Requests for which error 3 was: they had waited for too long.
    pub shed: Counter,
    /// Requests whose connection was gone when the answers came, whatever these said.
    pub discarded: Counter,
    /// Requests answered with error 4, which were not published.
    pub refused: Counter,
    /// Requests answered with error 1, with which a connection's framing was lost; they were not published.
    pub bad: Counter,
    /// Hellos that were answered with what the server is, or are to be.
    pub hellos: Counter,
    /// Hellos for another number of features, answered with error 5.
    pub hellos_wrong: Counter,
    /// Hellos answered with error 4.
    pub hellos_refused: Counter,
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
    /// Nanoseconds that the thread did not wait, if times are taken: in the kernel or outside of it, spinning without work not
    /// counted.
    pub busy_ns: Counter,
    /// Turns begun.
    pub turns: Counter,
    /// Buffers that were not lent to the kernel at the end of the last turn.
    pub buffers_in_use: Gauge,
    /// Bytes of blocks that were lent at the end of the last turn.
    pub buffer_memory_bytes: Gauge,
    /// Its connections that have most under way, when somebody asks.
    pub roster: Roster,
    /// The most responses taken in one turn.
    pub responses_peak: Peak,
    /// The most buffers that were not lent to the kernel at the end of a turn.
    pub buffers_in_use_peak: Peak,
    /// Of each request that was answered: from when its last byte was received to when its answer was in the send buffer.
    pub request_ns: Histogram,
}

impl IoMetrics {
    /// What a thread counts, and whether it takes times too.
    pub fn new(stage_times: bool) -> IoMetrics {
        IoMetrics { stage_times, request_ns: Histogram::new(stage_times), ..IoMetrics::default() }
    }

    /// Requests whose answers were put into a send buffer, be they scores or an error.
    pub fn answered(&self) -> u64 {
        self.ok.get() + self.model_errors.get() + self.shed.get()
    }
}

/// What the batch processor counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BatchMetrics {
    /// Whether times are taken.
    pub stage_times: bool,
    /// Steps begun, each with at least one event.
    pub steps_begun: Counter,
    /// Steps finished; one less than begun while the model works.
    pub steps_finished: Counter,
    /// Calls of the model, each counted before it is made: one for each step, and more where there are very many scores or the
    /// model fails.
    pub model_calls: Counter,
    /// Models taken in place of the one before.
    pub model_swaps: Counter,
    /// Requests answered, with scores or an error.
    pub requests: Counter,
    /// Vectors scored.
    pub rows: Counter,
    /// Nanoseconds of steps with events, if times are taken, whichever thread took them.
    pub busy_ns: Counter,
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
    /// Of each request that was scored: from when it could have been received to the step that scored it.
    pub queue_ns: Histogram,
    /// What the model takes for a step.
    pub predict_ns: Histogram,
    /// What writing and sending back a step's answers takes.
    pub respond_ns: Histogram,
}

impl BatchMetrics {
    /// What the batch processor counts, and whether it takes times too.
    pub fn new(stage_times: bool) -> BatchMetrics {
        let histogram = || Histogram::new(stage_times);
        BatchMetrics {
            stage_times,
            batch_rows: histogram(),
            queue_ns: histogram(),
            predict_ns: histogram(),
            respond_ns: histogram(),
            ..BatchMetrics::default()
        }
    }
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
