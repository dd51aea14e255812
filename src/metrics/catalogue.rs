//! Every metric there is: its name, its unit, what it tells, and where it is read. Once, for whoever prints or explains them.
//!
//! The names are part of the interface. The table in PERFORMANCE.md is made of this one, and a test holds it to that.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::{BatchMetrics, CloseReason, Counter, Histogram, HistogramSnapshot, IoMetrics, Peak};

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// As it is printed; that of a histogram is followed by a quantile.
    pub name: &'static str,
    /// What its value counts.
    pub unit: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// Where it is read.
    pub(super) read: Read,
}

/// How a metric is read, and what may be done with its values.
#[derive(Debug)]
pub(super) enum Read {
    /// A count of all I/O threads together.
    Io(fn(&IoMetrics) -> &Counter),
    /// A count that several counters of all I/O threads add up to.
    IoSum(fn(&IoMetrics) -> u64),
    /// A count of the batch processor.
    Batch(fn(&BatchMetrics) -> &Counter),
    /// A count of what cannot happen.
    Never,
    /// What follows from the state, or from an interval's counts.
    State(fn(&State<'_>) -> u64),
    /// The largest value of any I/O thread in an interval.
    IoPeak(fn(&IoMetrics) -> &Peak),
    /// The largest value of the batch processor.
    BatchPeak(fn(&BatchMetrics) -> &Peak),
    /// Values of all I/O threads.
    IoTimes(fn(&IoMetrics) -> &Histogram),
    /// Values of the batch processor.
    BatchTimes(fn(&BatchMetrics) -> &Histogram),
}

impl Metric {
    /// What may be done with its values: a `count` of an interval can be added up, a `gauge` is of one moment, a `peak` is the
    /// largest of an interval, a `histogram` is printed as quantiles of an interval.
    pub fn kind(&self) -> &'static str {
        match self.read {
            Read::Io(_) | Read::IoSum(_) | Read::Batch(_) | Read::Never => "count",
            Read::State(_) => "gauge",
            Read::IoPeak(_) | Read::BatchPeak(_) => "peak",
            Read::IoTimes(_) | Read::BatchTimes(_) => "histogram",
        }
    }
}

/// What a value can follow from.
pub(super) struct State<'a> {
    pub io: &'a [Arc<IoMetrics>],
    pub batch: &'a BatchMetrics,
    /// An interval's counts, by name.
    pub counts: &'a [(&'static str, u64)],
    pub seconds: f64,
}

impl State<'_> {
    fn count(&self, wanted: &str) -> u64 {
        self.counts.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, count)| *count)
    }

    fn io_sum(&self, counter: fn(&IoMetrics) -> &Counter) -> u64 {
        self.io.iter().map(|io| counter(io).get()).sum()
    }
}

/// What a count is by now, or what follows from the state: of the metric of this name.
///
/// # Panics
/// If there is none, or it is neither. Names are written down in [`super::families`], and a test reads all of them.
pub(super) fn value_of(name: &str, io: &[Arc<IoMetrics>], batch: &BatchMetrics) -> u64 {
    match named(name).read {
        Read::Io(counter) => io.iter().map(|io| counter(io).get()).sum(),
        Read::IoSum(count) => io.iter().map(|io| count(io)).sum(),
        Read::Batch(counter) => counter(batch).get(),
        Read::State(value) => value(&State { io, batch, counts: &[], seconds: 1.0 }),
        Read::Never | Read::IoPeak(_) | Read::BatchPeak(_) | Read::IoTimes(_) | Read::BatchTimes(_) => {
            panic!("{name} has no value of its own")
        }
    }
}

/// The values of the histogram of this name until now, of all threads.
///
/// # Panics
/// As [`value_of`].
pub(super) fn values_of(name: &str, io: &[Arc<IoMetrics>], batch: &BatchMetrics) -> HistogramSnapshot {
    match named(name).read {
        Read::IoTimes(histogram) => {
            let threads = io.iter().map(|io| histogram(io).snapshot());
            threads.reduce(|all, one| all.merge(&one)).unwrap_or_default()
        }
        Read::BatchTimes(histogram) => histogram(batch).snapshot(),
        _ => panic!("{name} is no histogram"),
    }
}

fn named(name: &str) -> &'static Metric {
    METRICS.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("there is no metric {name}"))
}

/// Quantiles of a histogram that are printed, and what follows its name then.
pub const QUANTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p999")];

const fn metric(name: &'static str, unit: &'static str, read: Read, help: &'static str) -> Metric {
    Metric { name, unit, help, read }
}

/// All of them, in the order in which they are printed.
pub const METRICS: [Metric; 49] = [
    metric(
        "requests_per_s",
        "requests/s",
        Read::State(|state| (state.count("published") as f64 / state.seconds) as u64),
        "`published`, by the interval's length",
    ),
    metric("published", "requests", Read::Io(|io| &io.requests), "handed to the batch processor"),
    metric(
        "sent",
        "requests",
        Read::IoSum(IoMetrics::answered),
        "whose answers, errors 2 and 3 included, were put into a send buffer; the peer may not have read them",
    ),
    metric("discarded", "requests", Read::Io(|io| &io.discarded), "whose connection was gone when the answers came"),
    metric("refused", "requests", Read::Io(|io| &io.refused), "answered with error 4 (closing)"),
    metric("hellos", "hellos", Read::Io(|io| &io.hellos), "answered with what the server is; they are no requests"),
    metric("hellos_refused", "hellos", Read::Io(|io| &io.hellos_refused), "answered with error 4 (closing)"),
    metric(
        "req_ring_full",
        "events",
        Read::Io(|io| &io.request_ring_full),
        "for which the request ring had no place; asserted not to happen",
    ),
    metric(
        "pool_exh",
        "receives",
        Read::Io(|io| &io.starved),
        "that found no buffer; they wait in the kernel, and TCP holds the peer back",
    ),
    metric("pool_too_large", "requests", Read::Never, "larger than a buffer; cannot happen by the buffers' sizes"),
    metric("accepted", "connections", Read::Io(|io| &io.accepted), "served"),
    metric(
        "given_away",
        "connections",
        Read::Io(|io| &io.given_away),
        "that the I/O thread with the fewest serves, and not the one that accepted them",
    ),
    metric("closed", "connections", Read::IoSum(|io| io.closed.served()), "that ended, for whatever reason"),
    metric(
        "rejected",
        "connections",
        Read::Io(|io| io.closed.by(CloseReason::Rejected)),
        "closed at once because there were too many",
    ),
    metric("received_bytes", "bytes", Read::Io(|io| &io.received_bytes), "received"),
    metric("sent_bytes", "bytes", Read::Io(|io| &io.sent_bytes), "that the kernel took to send"),
    metric("partial_sends", "sends", Read::Io(|io| &io.partial_sends), "of which the kernel took only a part"),
    metric(
        "err_accept",
        "accepts",
        Read::Io(|io| &io.accept_failures),
        "that failed, mostly because descriptors ran out",
    ),
    metric("err_framing", "connections", Read::Io(|io| &io.bad), "whose framing was lost (error 1)"),
    metric(
        "err_features",
        "connections",
        Read::Io(|io| &io.hellos_wrong),
        "whose hello named another number of features than the model takes (error 5)",
    ),
    metric(
        "err_broken",
        "connections",
        Read::Io(|io| io.closed.by(CloseReason::Broken)),
        "that were reset, or whose peer vanished",
    ),
    metric(
        "err_expired",
        "connections",
        Read::IoSum(|io| io.closed.by_any(&CloseReason::EXPIRED)),
        "that missed a deadline",
    ),
    metric(
        "err_evicted",
        "connections",
        Read::Io(|io| io.closed.by(CloseReason::Evicted)),
        "closed because the memory for what peers do not read or finish was used up",
    ),
    metric(
        "cut",
        "connections",
        Read::Io(|io| io.closed.by(CloseReason::Cut)),
        "cut at the end of a drain, or given up in one with answers that their peers had not taken",
    ),
    metric("trimmed_bytes", "bytes", Read::Io(|io| &io.trimmed_bytes), "of blocks, given back to the allocator"),
    metric(
        "helps",
        "publications",
        Read::Io(|io| &io.helps),
        "that an I/O thread scored itself, in the batch processor's role",
    ),
    metric("batch_wakes", "wakes", Read::Io(|io| &io.wakes), "of the batch processor by publications"),
    metric(
        "batch_wakes_coalesced",
        "publications",
        Read::Io(|io| &io.wakes_coalesced),
        "that found the batch processor awake",
    ),
    metric("resp_ring_full", "responses", Read::Never, "for which a response queue had no place; cannot happen"),
    metric("err_model", "requests", Read::Io(|io| &io.model_errors), "on which the model failed (error 2)"),
    metric("shed", "requests", Read::Io(|io| &io.shed), "that had waited for too long (error 3)"),
    metric("model_swaps", "models", Read::Batch(|batch| &batch.model_swaps), "put in the place of the one before"),
    metric("rows", "vectors", Read::Batch(|batch| &batch.rows), "scored"),
    metric("io_wakes", "wakes", Read::Batch(|batch| &batch.wakes), "of I/O threads by responses"),
    metric(
        "io_wakes_coalesced",
        "publications",
        Read::Batch(|batch| &batch.wakes_coalesced),
        "of responses that found their I/O thread awake",
    ),
    metric(
        "poll_events",
        "looks",
        Read::Batch(|batch| &batch.steps_begun),
        "of the batch processor that found events, one event or many: its steps",
    ),
    metric(
        "poll_no_events",
        "looks",
        Read::Batch(|batch| &batch.polls_empty),
        "of the batch processor that found none",
    ),
    metric(
        "stall_pct",
        "percent",
        Read::State(|state| {
            let looks = state.count("poll_events") + state.count("poll_no_events");
            (100 * state.count("poll_no_events")).checked_div(looks).unwrap_or(0)
        }),
        "of the looks, that found no event: near 100 while the batch processor spins idle, not a fault",
    ),
    metric(
        "connections",
        "connections",
        Read::State(|state| {
            state.io_sum(|io| &io.accepted).saturating_sub(state.io.iter().map(|io| io.closed.served()).sum())
        }),
        "open now",
    ),
    metric(
        "req_occ",
        "events",
        Read::State(|state| state.io_sum(|io| &io.events).saturating_sub(state.batch.events.get())),
        "published and not yet taken",
    ),
    metric(
        "resp_occ",
        "responses",
        Read::State(|state| state.batch.responses.get().saturating_sub(state.io_sum(|io| &io.responses))),
        "pushed and not yet taken",
    ),
    metric("req_max", "events", Read::BatchPeak(|batch| &batch.events_peak), "taken in one step"),
    metric("resp_max", "responses", Read::IoPeak(|io| &io.responses_peak), "taken by an I/O thread in one turn"),
    metric(
        "pool_max_in_use",
        "buffers",
        Read::IoPeak(|io| &io.buffers_in_use_peak),
        "of one I/O thread that were not lent to the kernel at the end of a turn",
    ),
    metric(
        "round_ns",
        "ns",
        Read::IoTimes(|io| &io.request_ns),
        "from a request's last byte to its answer in the send buffer",
    ),
    metric(
        "queue_ns",
        "ns",
        Read::BatchTimes(|batch| &batch.queue_ns),
        "from when a request could have been received to the step that scores it",
    ),
    metric("predict_ns", "ns", Read::BatchTimes(|batch| &batch.predict_ns), "that the model takes for a step"),
    metric(
        "respond_ns",
        "ns",
        Read::BatchTimes(|batch| &batch.respond_ns),
        "that writing and sending back a step's answers takes",
    ),
    metric("batch_rows", "vectors", Read::BatchTimes(|batch| &batch.batch_rows), "of a step"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that explains the metrics to people.
    fn table() -> String {
        let mut table = "| name | kind | unit | what |\n|---|---|---|---|\n".to_owned();
        for metric in &METRICS {
            let quantiles = if metric.kind() == "histogram" { "`_p50`, `_p99`, `_p999`" } else { "" };
            let Metric { name, unit, help, .. } = metric;
            table += &format!("| `{name}`{quantiles} | {} | {unit} | {help} |\n", metric.kind());
        }
        table
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn the_documented_metrics_are_these() {
        let document = include_str!("../../PERFORMANCE.md");
        let written =
            document.split("<!-- metrics -->\n").nth(1).and_then(|rest| rest.split("<!-- /metrics -->").next());
        assert!(written == Some(&table()), "PERFORMANCE.md should have, between its marks:\n{}", table());
    }
}
