//! What holds in every run, whatever goes wrong; the answers themselves each client compares.
//!
//! - Conservation, always: requests parsed = answered + discarded + in flight, and each of the two stages in between has
//!   seen no more than the one before.
//! - When nobody can do anything, nothing is in flight: whoever slept beside work has lost a wake.
//! - At rest everything parsed is answered or discarded, and every connection that came has gone.
//! - No client was given an end that the server does not account for.
//! - Accepting that fails is tried again at most eight times in any second, by all threads together, and once more for
//!   each listener, and for each descriptor that is closed meanwhile.

use std::sync::Arc;

use disrust::metrics::{BatchMetrics, CloseReason, Counter, IoMetrics};

use super::client::Client;
use super::ring::RingReached;

/// Accepts that may fail in any second in which no descriptor is closed, and one more for each listener.
const ACCEPT_FAILURES_A_SECOND_MAX: usize = 8;

/// What runs must come to, together; what none comes to is not tested.
pub const REACHED: [&str; 30] = [
    "rejected",
    "connections given to another thread",
    "accept failures",
    "answered",
    "discarded",
    "refused",
    "framing errors",
    "hellos",
    "hellos refused",
    "hellos for other features",
    "broken",
    "expired",
    "cut",
    "evicted",
    "old",
    "starved",
    "partial sends",
    "model failures",
    "shed",
    "models replaced",
    "answered at greater length",
    "helps of the batch processor",
    "wakes of the batch processor",
    "wakes of I/O threads",
    "wakes saved",
    "enters failed",
    "completions overflowed",
    "receives cancelled",
    "one-shot receives",
    "accepted at a path",
];

/// The server's own counts, and what they must be.
pub struct Checker {
    io: Vec<Arc<IoMetrics>>,
    batch: Arc<BatchMetrics>,
}

impl Checker {
    pub fn new(io: Vec<Arc<IoMetrics>>, batch: Arc<BatchMetrics>) -> Checker {
        Checker { io, batch }
    }

    fn sum(&self, counter: impl Fn(&IoMetrics) -> &Counter) -> u64 {
        self.io.iter().map(|metrics| counter(metrics).get()).sum()
    }

    fn closed(&self, reason: CloseReason) -> u64 {
        self.sum(|metrics| metrics.closed.by(reason))
    }

    fn expired(&self) -> u64 {
        self.io.iter().map(|metrics| metrics.closed.by_any(&CloseReason::EXPIRED)).sum()
    }

    fn answered(&self) -> u64 {
        self.io.iter().map(|metrics| metrics.answered()).sum()
    }

    pub fn requests(&self) -> u64 {
        self.sum(|metrics| &metrics.requests)
    }

    /// Models that the batch processor has taken in place of the one before.
    pub fn models_taken(&self) -> u64 {
        self.batch.model_swaps.get()
    }

    /// The counts that [`REACHED`] names. `longer_answers` says that answers are longer than their requests in this run.
    pub fn reached(&self, longer_answers: bool, rings: impl Iterator<Item = RingReached>) -> [u64; REACHED.len()] {
        let rings = rings.fold(RingReached::default(), |sum, ring| RingReached {
            enters_failed: sum.enters_failed + ring.enters_failed,
            overflows: sum.overflows + ring.overflows,
            cancels: sum.cancels + ring.cancels,
            one_shots: sum.one_shots + ring.one_shots,
            unix_accepts: sum.unix_accepts + ring.unix_accepts,
        });
        [
            self.closed(CloseReason::Rejected),
            self.sum(|metrics| &metrics.given_away),
            self.sum(|metrics| &metrics.accept_failures),
            self.answered(),
            self.sum(|metrics| &metrics.discarded),
            self.sum(|metrics| &metrics.refused),
            self.sum(|metrics| &metrics.bad),
            self.sum(|metrics| &metrics.hellos),
            self.sum(|metrics| &metrics.hellos_refused),
            self.sum(|metrics| &metrics.hellos_wrong),
            self.closed(CloseReason::Broken),
            self.expired(),
            self.closed(CloseReason::Cut),
            self.closed(CloseReason::Evicted),
            self.closed(CloseReason::Age),
            self.sum(|metrics| &metrics.starved),
            self.sum(|metrics| &metrics.partial_sends),
            self.sum(|metrics| &metrics.model_errors),
            self.sum(|metrics| &metrics.shed),
            self.batch.model_swaps.get(),
            if longer_answers { self.answered() } else { 0 },
            self.sum(|metrics| &metrics.helps),
            self.sum(|metrics| &metrics.wakes),
            self.batch.wakes.get(),
            self.sum(|metrics| &metrics.wakes_coalesced) + self.batch.wakes_coalesced.get(),
            rings.enters_failed,
            rings.overflows,
            rings.cancels,
            rings.one_shots,
            rings.unix_accepts,
        ]
    }

    pub fn check_conservation(&self) {
        let settled = self.answered() + self.sum(|metrics| &metrics.discarded);
        let (parsed, scored) = (self.requests(), self.batch.requests.get());
        assert!(settled <= scored && scored <= parsed, "{parsed} parsed, {scored} scored, {settled} settled");
    }

    /// `open` connections have been counted in by whoever accepted them.
    pub fn check_nothing_in_flight(&self, open: usize) {
        let accepted = self.sum(|metrics| &metrics.accepted);
        let closed: u64 = self.io.iter().map(|metrics| metrics.closed.served()).sum();
        assert!(accepted - closed == open as u64, "an I/O thread sleeps beside connections that it was given");
        let (published, taken) = (self.sum(|metrics| &metrics.events), self.batch.events.get());
        assert!(published == taken, "the batch processor sleeps beside {} events", published - taken);
        let (sent, received) = (self.batch.responses.get(), self.sum(|metrics| &metrics.responses));
        assert!(sent == received, "an I/O thread sleeps beside {} responses", sent - received);
    }

    pub fn check_at_rest(&self) {
        self.check_nothing_in_flight(0);
        let (answered, discarded) = (self.answered(), self.sum(|metrics| &metrics.discarded));
        let parsed = self.requests();
        assert!(parsed == answered + discarded, "{parsed} parsed, {answered} answered, {discarded} discarded");
        assert!(self.batch.requests.get() == parsed, "every request is scored once");
        for metrics in self.io.iter().filter(|metrics| metrics.stage_times) {
            let timed = metrics.request_ns.snapshot().count();
            assert!(timed == metrics.answered(), "{timed} answers timed, {} given", metrics.answered());
        }
        if self.batch.stage_times {
            let [queued, batched] = [&self.batch.queue_ns, &self.batch.batch_rows].map(|times| times.snapshot());
            let unscored = self.sum(|metrics| &metrics.shed) + self.sum(|metrics| &metrics.discarded);
            assert!((parsed - unscored..=parsed).contains(&queued.count()), "{} waits", queued.count());
            assert!(batched.sum() == self.batch.rows.get(), "{} rows in batches", batched.sum());
        }
        let (accepted, closed) =
            (self.sum(|metrics| &metrics.accepted), self.io.iter().map(|io| io.closed.served()).sum::<u64>());
        assert!(accepted == closed, "{accepted} accepted, {closed} closed");
        assert!(self.sum(|metrics| &metrics.request_ring_full) == 0, "the request ring is never full");
    }

    pub fn check_clients(&self, clients: &[Client]) {
        let unserved = clients.iter().filter(|client| client.unserved).count() as u64;
        let rejected = self.closed(CloseReason::Rejected);
        assert!(unserved <= rejected, "{unserved} clients without service, {rejected} rejected");
        let given_up = clients.iter().filter(|client| client.given_up).count() as u64;
        let expired = self.expired() + self.closed(CloseReason::Evicted) + self.closed(CloseReason::Cut);
        let (ended, excused) = (unserved + given_up, rejected + expired);
        assert!(
            ended <= excused,
            "{ended} clients without service or given up, {excused} rejected, expired or evicted"
        );
        let sent = [
            self.sum(|metrics| &metrics.ok),
            self.sum(|metrics| &metrics.bad),
            self.sum(|metrics| &metrics.model_errors),
            self.sum(|metrics| &metrics.shed),
            self.sum(|metrics| &metrics.refused),
            self.sum(|metrics| &metrics.hellos_wrong),
            self.sum(|metrics| &metrics.hellos),
            self.sum(|metrics| &metrics.hellos_refused),
        ];
        for (result, sent) in sent.into_iter().enumerate() {
            let received: u64 = clients.iter().map(|client| client.results[result]).sum();
            assert!(received <= sent, "of result {result}, {received} answers received, {sent} sent");
        }
    }

    /// Takes the times at which accepts failed and at which descriptors were closed, ascending.
    pub fn check_accept_failures(listeners: usize, failures_ns: &[u64], closes_ns: &[u64]) {
        let within_a_second = |times_ns: &[u64], from_ns: u64| {
            let before = |end_ns: u64| times_ns.partition_point(|time_ns| *time_ns < end_ns);
            before(from_ns + 1_000_000_000) - before(from_ns)
        };
        for from_ns in failures_ns.iter().copied() {
            let (failures, closes) = (within_a_second(failures_ns, from_ns), within_a_second(closes_ns, from_ns));
            assert!(
                failures <= ACCEPT_FAILURES_A_SECOND_MAX + listeners + closes,
                "{failures} accepts fail within a second in which {closes} descriptors are closed"
            );
        }
    }
}
