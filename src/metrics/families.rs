//! What scrapers are told: each family by its name, its type, its labels, what it tells, and where it is read; and the text of it all.
//!
//! The names are part of the interface. Values come from the catalogue ([`super::catalogue`]) wherever it has them, in base units
//! (seconds, bytes). The table in docs/OPERATIONS.md is made of this one, and a test holds it to that.
//!
//! The text is Prometheus' own format, 0.0.4, written here: the crate `prometheus-client` writes OpenMetrics, in which a counter's
//! name and its type's differ, so that whoever reads 0.0.4 takes it for untyped.
//!
//! Nothing is reset by reading, so that any number of scrapers see the same.
#![forbid(unsafe_code)]

use std::fmt::{self, Write as _};
use std::sync::{Arc, LazyLock};

use super::catalogue::{value_of, values_of};
use super::{BatchMetrics, CloseReason, HistogramSnapshot, IoMetrics};

/// The media type of [`text`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What may be done with a family's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is of the moment.
    Gauge,
    /// Values by size.
    Histogram,
}

/// One family.
pub struct Family {
    /// As it is scraped.
    pub name: &'static str,
    /// What may be done with it.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells; of a duration, from where to where.
    pub help: &'static str,
    read: fn(&Sources<'_>, &mut Samples<'_>),
}

/// Everything that values are read from.
pub struct Sources<'a> {
    /// The I/O threads', in order.
    pub io: &'a [Arc<IoMetrics>],
    /// The batch processor's.
    pub batch: &'a BatchMetrics,
    /// What is no count of theirs.
    pub facts: &'a Facts,
}

/// What there is to tell that no thread counts.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The I/O threads' names.
    pub io_names: Vec<String>,
    /// The state that the server is in, of [`STATES`].
    pub state: &'static str,
    /// The version of the program.
    pub version: &'static str,
    /// The commit that it was built of.
    pub commit: &'static str,
    /// What the model is called.
    pub model_name: String,
    /// Which version of it serves, as it is written everywhere.
    pub model_version: String,
    /// What its file is.
    pub model_format: String,
    /// When it was loaded, in seconds since 1970.
    pub model_loaded_unix_seconds: f64,
    /// Reloads after which a new model serves.
    pub reloads_ok: u64,
    /// Reloads after which the one before went on.
    pub reloads_failed: u64,
    /// Receive buffers of each I/O thread.
    pub buffers_each: u64,
    /// What peers can make the server hold beyond those, in bytes.
    pub buffer_memory_limit_bytes: u64,
    /// Connections that there can be.
    pub connections_max: u64,
    /// What the process has used.
    pub process: ProcessUsage,
}

/// What the process has used until now, and what it may; each part is left out where the system does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUsage {
    /// Seconds of CPU time, of all threads, in user and system mode.
    pub cpu_seconds: Option<f64>,
    /// Bytes that are resident.
    pub resident_bytes: Option<u64>,
    /// Bytes of address space.
    pub virtual_bytes: Option<u64>,
    /// Descriptors that are open.
    pub open_descriptors: Option<u64>,
    /// Descriptors that may be.
    pub descriptors_max: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// When it began, in seconds since 1970.
    pub started_unix_seconds: Option<f64>,
}

/// The states that a server can be in, as everybody is told.
pub const STATES: [&str; 4] = ["ready", "leaving", "draining", "broken"];

/// A value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A count.
    Whole(u64),
    /// Anything else.
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Real(value)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(value) => value.fmt(formatter),
            Number::Real(value) => value.fmt(formatter),
        }
    }
}

/// Where the values of one family go as they are read.
struct Samples<'a>(&'a mut TakeSample<'a>);

/// What follows the family's name in a histogram's parts, the labels, the value.
type TakeSample<'a> = dyn FnMut(&'static str, &[(&str, &str)], Number) + 'a;

impl Samples<'_> {
    fn add(&mut self, value: impl Into<Number>) {
        self.add_labelled(&[], value);
    }

    fn add_labelled(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) {
        (self.0)("", labels, value.into());
    }

    fn add_known(&mut self, value: Option<impl Into<Number>>) {
        if let Some(value) = value {
            self.add(value);
        }
    }

    fn add_histogram(&mut self, values: &HistogramSnapshot, bounds: &Bounds) {
        let within = values.counts_within(bounds.values);
        for (bound, count) in bounds.written.iter().zip(within) {
            (self.0)("_bucket", &[("le", bound)], count.into());
        }
        let count = values.count();
        (self.0)("_bucket", &[("le", "+Inf")], count.into());
        (self.0)("_sum", &[], bounds.in_base(values.sum()));
        (self.0)("_count", &[], count.into());
    }
}

/// The bounds of a histogram's buckets.
struct Bounds {
    /// In the unit of the values, of which there are `per_base` in a base unit.
    values: &'static [u64],
    per_base: u64,
    /// In the base unit, as they are told.
    written: Vec<String>,
}

impl Bounds {
    fn new(values: &'static [u64], per_base: u64) -> Bounds {
        let mut bounds = Bounds { values, per_base, written: Vec::new() };
        bounds.written = values.iter().map(|value| bounds.in_base(*value).to_string()).collect();
        bounds
    }

    fn in_base(&self, value: u64) -> Number {
        match self.per_base {
            1 => Number::Whole(value),
            _ => Number::Real(value as f64 / self.per_base as f64),
        }
    }
}

/// A name with its labels, as it is told.
fn write_name(text: &mut String, name: &str, suffix: &str, labels: &[(&str, &str)]) {
    text.push_str(name);
    text.push_str(suffix);
    for (index, (label, value)) in labels.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(label);
        text.push_str("=\"");
        for letter in value.chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
}

impl Sources<'_> {
    fn count(&self, name: &str) -> u64 {
        value_of(name, self.io, self.batch)
    }

    fn times(&self, name: &str, samples: &mut Samples<'_>) {
        samples.add_histogram(&values_of(name, self.io, self.batch), &DURATION_BOUNDS);
    }

    /// One value for each I/O thread.
    fn by_thread(&self, samples: &mut Samples<'_>, value: impl Fn(&IoMetrics) -> Number) {
        for (name, io) in self.facts.io_names.iter().zip(self.io) {
            samples.add_labelled(&[("thread", name)], value(io));
        }
    }
}

fn seconds(nanoseconds: u64) -> Number {
    Number::Real(nanoseconds as f64 / 1e9)
}

/// From 5 µs to 1 s, in nanoseconds.
static DURATION_BOUNDS: LazyLock<Bounds> = LazyLock::new(|| {
    const BOUNDS_US: [u64; 17] = [
        5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    ];
    const BOUNDS_NS: [u64; 17] = {
        let mut bounds = BOUNDS_US;
        let mut index = 0;
        while index < bounds.len() {
            bounds[index] *= 1_000;
            index += 1;
        }
        bounds
    };
    Bounds::new(&BOUNDS_NS, 1_000_000_000)
});

static VECTOR_BOUNDS: LazyLock<Bounds> =
    LazyLock::new(|| Bounds::new(&[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000], 1));

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Sources<'_>, &mut Samples<'_>),
) -> Family {
    Family { name, kind: Kind::Counter, labels, help, read }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Sources<'_>, &mut Samples<'_>),
) -> Family {
    Family { name, kind: Kind::Gauge, labels, help, read }
}

const fn histogram(name: &'static str, help: &'static str, read: fn(&Sources<'_>, &mut Samples<'_>)) -> Family {
    Family { name, kind: Kind::Histogram, labels: &[], help, read }
}

/// All of them, in the order in which they are told.
pub const FAMILIES: &[Family] = &[
    counter(
        "disrust_requests_total",
        &["result"],
        "Requests, each counted once, by how they ended: ok, model_error (error 2) and shed (error 3) when the answer is put \
         into the connection's send buffer, bad (error 1) when the framing is lost, closing (error 4) when a drain refuses \
         them, discarded when their connection is gone before the answer.",
        |sources, samples| {
            let ok = sources.io.iter().map(|io| io.ok.get()).sum();
            for (result, count) in [
                ("ok", ok),
                ("bad", sources.count("err_framing")),
                ("model_error", sources.count("err_model")),
                ("shed", sources.count("shed")),
                ("closing", sources.count("refused")),
                ("discarded", sources.count("discarded")),
            ] {
                samples.add_labelled(&[("result", result)], count);
            }
        },
    ),
    counter(
        "disrust_hellos_total",
        &["result"],
        "Hellos, which are no requests, each counted once when it is received, by what it is answered with: ok is what the server \
         is, wrong_feature_dim error 5, closing error 4.",
        |sources, samples| {
            for (result, count) in [
                ("ok", sources.count("hellos")),
                ("wrong_feature_dim", sources.count("err_features")),
                ("closing", sources.count("hellos_refused")),
            ] {
                samples.add_labelled(&[("result", result)], count);
            }
        },
    ),
    counter("disrust_vectors_total", &[], "Vectors (rows) scored.", |sources, samples| {
        samples.add(sources.count("rows"));
    }),
    counter(
        "disrust_batches_total",
        &[],
        "Steps of the batch processor, each of which scores what has been published until then.",
        |sources, samples| samples.add(sources.count("poll_events")),
    ),
    histogram("disrust_batch_vectors", "Vectors (rows) of a step of the batch processor.", |sources, samples| {
        samples.add_histogram(&values_of("batch_rows", sources.io, sources.batch), &VECTOR_BOUNDS);
    }),
    histogram(
        "disrust_request_duration_seconds",
        "From a request's last byte being received to its answer being in the send buffer: waiting, scoring and both ways, \
         without what the network takes. One value for each request that was answered.",
        |sources, samples| sources.times("round_ns", samples),
    ),
    histogram(
        "disrust_queue_duration_seconds",
        "From a request's last byte being received to the step of the batch processor that scores it: waiting alone. One value \
         a request.",
        |sources, samples| sources.times("queue_ns", samples),
    ),
    histogram(
        "disrust_predict_duration_seconds",
        "From the call of the model to its return, all calls of a step together: scoring alone. One value a step.",
        |sources, samples| sources.times("predict_ns", samples),
    ),
    histogram(
        "disrust_respond_duration_seconds",
        "From the model's return to the step's answers being with the I/O threads: writing and handing over. One value \
         a step.",
        |sources, samples| sources.times("respond_ns", samples),
    ),
    counter(
        "disrust_thread_busy_seconds_total",
        &["thread"],
        "Time in which an I/O thread worked, in the kernel or outside of it; spinning without work is not in it, helping the \
         batch processor is.",
        |sources, samples| sources.by_thread(samples, |io| seconds(io.busy_ns.get())),
    ),
    counter(
        "disrust_batch_busy_seconds_total",
        &[],
        "Time of all steps of the batch processor, whichever thread took them.",
        |sources, samples| samples.add(seconds(sources.batch.busy_ns.get())),
    ),
    counter(
        "disrust_turns_total",
        &["thread"],
        "Turns of an I/O thread's loop; a thread that spins takes them without end.",
        |sources, samples| sources.by_thread(samples, |io| io.turns.get().into()),
    ),
    counter(
        "disrust_helps_total",
        &[],
        "Publications that an I/O thread scored itself, in the batch processor's role.",
        |sources, samples| samples.add(sources.count("helps")),
    ),
    counter(
        "disrust_wakes_total",
        &["woken"],
        "Threads that slept and were woken: the batch processor's by requests, the I/O threads by answers.",
        |sources, samples| {
            samples.add_labelled(&[("woken", "batch")], sources.count("batch_wakes"));
            samples.add_labelled(&[("woken", "io")], sources.count("io_wakes"));
        },
    ),
    counter(
        "disrust_wakes_spared_total",
        &["awake"],
        "Publications that found the other side awake, so that nobody had to be woken.",
        |sources, samples| {
            samples.add_labelled(&[("awake", "batch")], sources.count("batch_wakes_coalesced"));
            samples.add_labelled(&[("awake", "io")], sources.count("io_wakes_coalesced"));
        },
    ),
    counter(
        "disrust_polls_empty_total",
        &[],
        "Looks of the batch processor that found nothing; without end while it spins.",
        |sources, samples| samples.add(sources.count("poll_no_events")),
    ),
    gauge(
        "disrust_queue_bursts",
        &[],
        "Bursts (the requests of one receive) published and not yet taken by the batch processor.",
        |sources, samples| samples.add(sources.count("req_occ")),
    ),
    gauge(
        "disrust_queue_answers",
        &[],
        "Bursts scored whose answers are not yet taken by their I/O thread.",
        |sources, samples| samples.add(sources.count("resp_occ")),
    ),
    gauge("disrust_connections", &[], "Connections open now.", |sources, samples| {
        samples.add(sources.count("connections"));
    }),
    gauge("disrust_connections_limit", &[], "Connections that there can be at once.", |sources, samples| {
        samples.add(sources.facts.connections_max);
    }),
    counter("disrust_connections_accepted_total", &[], "Connections accepted and served.", |sources, samples| {
        samples.add(sources.count("accepted"));
    }),
    counter(
        "disrust_connections_closed_total",
        &["reason"],
        "Connections that ended, by how: peer (it closed), idle, request_timeout, send_timeout (it took no answers), linger \
         (it did not close after us), broken (reset or vanished), framing (error 1), feature_dim (error 5), age, drain, cut (at a \
         drain's end), evicted (for its memory), rejected (one too many, which was never served).",
        |sources, samples| {
            for reason in CloseReason::ALL {
                let count = sources.io.iter().map(|io| io.closed.by(reason).get()).sum::<u64>();
                samples.add_labelled(&[("reason", reason.name())], count);
            }
        },
    ),
    counter(
        "disrust_connections_given_away_total",
        &[],
        "Connections that the I/O thread with the fewest serves, and not the one that accepted them.",
        |sources, samples| samples.add(sources.count("given_away")),
    ),
    counter(
        "disrust_accept_failures_total",
        &[],
        "Accepts that failed, mostly because descriptors ran out.",
        |sources, samples| samples.add(sources.count("err_accept")),
    ),
    counter("disrust_receive_bytes_total", &[], "Bytes received from clients.", |sources, samples| {
        samples.add(sources.count("received_bytes"));
    }),
    counter("disrust_send_bytes_total", &[], "Bytes that the kernel took to send to clients.", |sources, samples| {
        samples.add(sources.count("sent_bytes"));
    }),
    counter(
        "disrust_sends_partial_total",
        &[],
        "Sends of which the kernel took only a part, as the client does not read.",
        |sources, samples| samples.add(sources.count("partial_sends")),
    ),
    counter(
        "disrust_receives_starved_total",
        &[],
        "Receives that found no buffer; they wait in the kernel, and TCP holds the client back.",
        |sources, samples| samples.add(sources.count("pool_exh")),
    ),
    gauge("disrust_buffers", &["thread"], "Receive buffers of an I/O thread, in use or not.", |sources, samples| {
        sources.by_thread(samples, |_| sources.facts.buffers_each.into())
    }),
    gauge(
        "disrust_buffers_in_use",
        &["thread"],
        "Receive buffers of an I/O thread that were not lent to the kernel at the end of its last turn.",
        |sources, samples| sources.by_thread(samples, |io| io.buffers_in_use.get().into()),
    ),
    gauge(
        "disrust_buffer_memory_bytes",
        &[],
        "Memory lent for what clients have not read or not finished, at the end of each thread's last turn.",
        |sources, samples| samples.add(sources.io.iter().map(|io| io.buffer_memory_bytes.get()).sum::<u64>()),
    ),
    gauge(
        "disrust_buffer_memory_limit_bytes",
        &[],
        "Memory that may be lent for that, on all threads together (--buffer-memory).",
        |sources, samples| samples.add(sources.facts.buffer_memory_limit_bytes),
    ),
    counter(
        "disrust_buffer_memory_released_bytes_total",
        &[],
        "Memory that was lent for that and was given back to the allocator.",
        |sources, samples| samples.add(sources.count("trimmed_bytes")),
    ),
    gauge(
        "disrust_state",
        &["state"],
        "1 for the state that the server is in (ready, leaving, draining, broken), 0 for the others.",
        |sources, samples| {
            for state in STATES {
                samples.add_labelled(&[("state", state)], u64::from(sources.facts.state == state));
            }
        },
    ),
    gauge(
        "disrust_model_info",
        &["name", "version", "format"],
        "1; which model serves: the first 8 bytes of its file's SHA-256 are its version.",
        |sources, samples| {
            let Facts { model_name, model_version, model_format, .. } = sources.facts;
            samples.add_labelled(&[("name", model_name), ("version", model_version), ("format", model_format)], 1_u64);
        },
    ),
    gauge(
        "disrust_model_load_timestamp_seconds",
        &[],
        "When the model that serves was loaded, in seconds since 1970.",
        |sources, samples| samples.add(sources.facts.model_loaded_unix_seconds),
    ),
    counter(
        "disrust_model_reloads_total",
        &["result"],
        "Times that the model file was read again: ok if a new model serves, failed if the one before goes on.",
        |sources, samples| {
            samples.add_labelled(&[("result", "ok")], sources.facts.reloads_ok);
            samples.add_labelled(&[("result", "failed")], sources.facts.reloads_failed);
        },
    ),
    gauge(
        "disrust_build_info",
        &["version", "commit"],
        "1; which version runs, and the commit that it was built of.",
        |sources, samples| {
            let Facts { version, commit, .. } = sources.facts;
            samples.add_labelled(&[("version", version), ("commit", commit)], 1_u64);
        },
    ),
    counter(
        "process_cpu_seconds_total",
        &[],
        "CPU time of the process, user and system; of a server that spins, hardly its load.",
        |sources, samples| samples.add_known(sources.facts.process.cpu_seconds),
    ),
    gauge("process_resident_memory_bytes", &[], "Memory of the process that is resident.", |sources, samples| {
        samples.add_known(sources.facts.process.resident_bytes);
    }),
    gauge("process_virtual_memory_bytes", &[], "Address space of the process.", |sources, samples| {
        samples.add_known(sources.facts.process.virtual_bytes);
    }),
    gauge("process_open_fds", &[], "Descriptors that the process has open.", |sources, samples| {
        samples.add_known(sources.facts.process.open_descriptors);
    }),
    gauge("process_max_fds", &[], "Descriptors that the process may have open.", |sources, samples| {
        samples.add_known(sources.facts.process.descriptors_max);
    }),
    gauge("process_threads", &[], "Threads of the process.", |sources, samples| {
        samples.add_known(sources.facts.process.threads);
    }),
    gauge("process_start_time_seconds", &[], "When the process began, in seconds since 1970.", |sources, samples| {
        samples.add_known(sources.facts.process.started_unix_seconds)
    }),
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// All families, as Prometheus reads them.
pub fn text(sources: &Sources<'_>) -> String {
    let mut text = String::with_capacity(TEXT_BYTES);
    for Family { name, kind, help, read, .. } in FAMILIES {
        let mut is_first = true;
        let mut write = |suffix: &'static str, labels: &[(&str, &str)], value: Number| {
            // Writing to a String cannot fail.
            if std::mem::replace(&mut is_first, false) {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
            }
            write_name(&mut text, name, suffix, labels);
            let _ = writeln!(text, " {value}");
        };
        read(sources, &mut Samples(&mut write));
    }
    text
}

/// What the text takes with a few I/O threads; with more of them, its room grows.
const TEXT_BYTES: usize = 24 * 1024;

/// All counters by their names with their labels, as in [`text`].
pub fn counters(sources: &Sources<'_>) -> Vec<(String, Number)> {
    let mut counters = Vec::new();
    for Family { name, read, .. } in FAMILIES.iter().filter(|family| family.kind == Kind::Counter) {
        let mut add = |suffix: &'static str, labels: &[(&str, &str)], value: Number| {
            let mut named = String::new();
            write_name(&mut named, name, suffix, labels);
            counters.push((named, value));
        };
        read(sources, &mut Samples(&mut add));
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(read: impl FnOnce(&Sources<'_>)) {
        let io: [Arc<IoMetrics>; 2] = Default::default();
        let facts = Facts {
            io_names: vec!["io-0".to_owned(), "io-1".to_owned()],
            state: "leaving",
            model_name: "a \"b\" \\ c\nd".to_owned(),
            process: ProcessUsage { cpu_seconds: Some(0.5), open_descriptors: Some(7), ..ProcessUsage::default() },
            ..Facts::default()
        };
        io[1].turns.add(5);
        read(&Sources { io: &io, batch: &BatchMetrics::default(), facts: &facts });
    }

    /// The table that explains the families to people.
    fn table() -> String {
        let mut table = "| name | type | labels | what |\n|---|---|---|---|\n".to_owned();
        for Family { name, kind, labels, help, .. } in FAMILIES {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            table += &format!("| `{name}` | {} | {} | {help} |\n", kind.name(), labels.join(", "));
        }
        table
    }

    #[test]
    fn the_documented_families_are_these() {
        let document = include_str!("../../docs/OPERATIONS.md");
        let written = document.split("<!-- metrics:prometheus -->\n").nth(1);
        let written = written.and_then(|rest| rest.split("<!-- /metrics:prometheus -->").next());
        assert!(written == Some(&table()), "docs/OPERATIONS.md should have, between its marks:\n{}", table());
    }

    /// What Prometheus' own rules ask of names and units (promtool check metrics), and this project of help.
    #[test]
    fn names_are_as_scrapers_expect_them() {
        let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len(), "each is there once");
        for Family { name, kind, help, .. } in FAMILIES {
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(name.starts_with("disrust_") || name.starts_with("process_"), "{name}");
            for unit in ["ns", "us", "ms", "milliseconds", "minutes", "kib", "mb", "percent"] {
                assert!(!name.split('_').any(|word| word == unit), "{name}");
            }
            assert!(help.ends_with('.') && !help.contains(['\n', '\\', '|']), "{name}: {help}");
            assert!(
                *kind != Kind::Histogram || !name.ends_with("_seconds") || help.starts_with("From "),
                "{name}: {help}"
            );
        }
    }

    /// Every family that is declared has samples with its labels and no others, but for what the system does not say.
    #[test]
    fn the_text_is_what_is_declared() {
        told(|sources| {
            let text = text(sources);
            for Family { name, labels, .. } in FAMILIES {
                let declared = text.matches(&format!("# TYPE {name} ")).count();
                let is_unsaid =
                    name.starts_with("process_") && !["process_cpu_seconds_total", "process_open_fds"].contains(name);
                assert_eq!(declared, usize::from(!is_unsaid), "{name}");
                for sample in text.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{"))) {
                    assert!(labels.iter().all(|label| sample.contains(&format!("{label}=\""))), "{name}: {sample}");
                    assert_eq!(sample.matches("=\"").count(), labels.len(), "{name}: {sample}");
                }
            }
            for line in [
                "disrust_state{state=\"leaving\"} 1",
                "disrust_state{state=\"ready\"} 0",
                "disrust_turns_total{thread=\"io-1\"} 5",
                "disrust_model_info{name=\"a \\\"b\\\" \\\\ c\\nd\",version=\"\",format=\"\"} 1",
                "disrust_request_duration_seconds_bucket{le=\"0.000005\"} 0",
                "disrust_batch_vectors_bucket{le=\"+Inf\"} 0",
                "process_cpu_seconds_total 0.5",
            ] {
                assert!(text.lines().any(|is| is == line), "{line}: {text}");
            }
        });
    }

    /// Each count of the catalogue is in a family, but for what cannot happen, what is a peak, and what another one is made of.
    #[test]
    fn nothing_is_counted_that_scrapers_are_not_told() {
        let source = include_str!("families.rs");
        for metric in &super::super::catalogue::METRICS {
            let is_told = source.contains(&format!("(\"{}\"", metric.name));
            let is_left_out = [
                "requests_per_s",
                "sent",
                "rejected",
                "published",
                "req_ring_full",
                "pool_too_large",
                "closed",
                "resp_ring_full",
                "model_swaps",
                "stall_pct",
                "err_broken",
                "err_expired",
                "err_evicted",
                "cut",
            ];
            let is_left_out = metric.kind() == "peak" || is_left_out.contains(&metric.name);
            assert!(is_told != is_left_out, "{} is told: {is_told}", metric.name);
        }
    }

    /// Counters are the same to those who read the text and to those who read numbers.
    #[test]
    fn counters_are_those_of_the_text() {
        told(|sources| {
            let text = text(sources);
            let counters = counters(sources);
            assert!(counters.len() > 20);
            for (name, value) in counters {
                assert!(text.lines().any(|line| line == format!("{name} {value}")), "{name} {value}");
            }
        });
    }
}
