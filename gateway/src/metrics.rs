//! What the gateway counts, and how it tells Prometheus.
//!
//! The text is Prometheus' own format, 0.0.4, as the servers' is. Nothing is reset by reading. The table in docs/GATEWAY.md is made
//! of [`FAMILIES`], and a test holds it to that.
//!
//! | atomic | written by | read by | orders |
//! |---|---|---|---|
//! | all of [`Metrics`] | the threads that serve, and the one that accepts | whoever is asked for /metrics | nothing: Relaxed, each is a number by itself |
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What requests are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Rows to be scored.
    Infer,
    /// What the server or the model is.
    Metadata,
    /// Whether it is live or ready.
    Health,
    /// The numbers of this file.
    Metrics,
    /// There is no such path.
    Unknown,
}

const ENDPOINTS: [(&str, Endpoint); 5] = [
    ("infer", Endpoint::Infer),
    ("metadata", Endpoint::Metadata),
    ("health", Endpoint::Health),
    ("metrics", Endpoint::Metrics),
    ("unknown", Endpoint::Unknown),
];

/// Every status that a request is answered with.
const STATUSES: [u16; 13] = [200, 400, 404, 405, 408, 413, 415, 429, 500, 502, 503, 504, 0];

/// How a connection ended, where that was not its peer's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was idle for `--idle-timeout`.
    Idle,
    /// Its head did not come to an end.
    HeadTimeout,
    /// Its peer read nothing of an answer.
    WriteTimeout,
    /// It was idle when another one needed its place.
    Evicted,
    /// There was no place for it.
    Refused,
    /// It was open when the drain's time was over.
    Cut,
}

const ENDS: [(&str, Ended); 6] = [
    ("idle", Ended::Idle),
    ("head_timeout", Ended::HeadTimeout),
    ("write_timeout", Ended::WriteTimeout),
    ("evicted", Ended::Evicted),
    ("refused", Ended::Refused),
    ("cut", Ended::Cut),
];

/// From 20 µs to 10 s.
const BOUNDS_US: [u64; 18] = [
    20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

/// Times by length.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Those within each bound and not within the one before; then the others.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let place = BOUNDS_US.partition_point(|bound| bound * 1000 < nanoseconds);
        self.counts[place].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(nanoseconds, Relaxed);
    }
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [[AtomicU64; STATUSES.len()]; ENDPOINTS.len()],
    /// From the head of a request for scores to its answer.
    pub request_time: Histogram,
    /// From rows being handed to the client to their scores.
    pub server_time: Histogram,
    /// Rows that were scored.
    pub rows: AtomicU64,
    /// Bytes of bodies that came.
    pub body_bytes: AtomicU64,
    /// Bytes of bodies that were answered.
    pub answer_bytes: AtomicU64,
    /// Requests that are under way.
    pub requests_in_flight: AtomicU64,
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    ended: [AtomicU64; ENDS.len()],
}

/// What is not counted but found when somebody asks.
#[derive(Debug, Default)]
pub struct Facts {
    /// One of [`STATES`].
    pub state: &'static str,
    /// Connections that are open.
    pub connections: u64,
    /// Connections that there can be.
    pub connections_max: u64,
    /// Bytes that bodies take.
    pub body_memory: u64,
    /// Bytes that they may take.
    pub body_memory_max: u64,
    /// Each server's address, and whether it is connected.
    pub servers: Vec<(String, bool)>,
    /// The model's name and version, once a server has told.
    pub model: Option<(String, String)>,
    /// The version of the program, and its commit.
    pub build: (&'static str, &'static str),
    /// Each thread's name and how long it has worked.
    pub busy: Vec<(String, Duration)>,
    /// CPU time of the process.
    pub cpu_time: Option<Duration>,
    /// Memory of the process that is resident.
    pub resident_bytes: Option<u64>,
}

/// The states that a gateway can be in.
pub const STATES: [&str; 4] = ["ready", "no_server", "leaving", "draining"];

/// One family of samples.
pub struct Family {
    /// As it is scraped.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
    write: fn(&mut Samples<'_>),
}

/// Where samples are read from and written to.
struct Samples<'a> {
    name: &'static str,
    metrics: &'a Metrics,
    facts: &'a Facts,
    text: &'a mut String,
}

impl Samples<'_> {
    fn add(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.add_as("", labels, value);
    }

    fn add_as(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        // A string takes all that is written.
        let _ = writeln!(self.text, "{}{suffix}{labels} {value}", self.name);
    }

    fn count(&mut self, value: &AtomicU64) {
        self.add(&[], value.load(Relaxed));
    }

    fn histogram(&mut self, histogram: &Histogram) {
        let mut count = 0;
        for (bound, own) in BOUNDS_US.iter().zip(&histogram.counts) {
            count += own.load(Relaxed);
            self.add_as("_bucket", &[("le", &(*bound as f64 / 1e6).to_string())], count);
        }
        count += histogram.counts[BOUNDS_US.len()].load(Relaxed);
        self.add_as("_bucket", &[("le", "+Inf")], count);
        self.add_as("_sum", &[], histogram.sum_ns.load(Relaxed) as f64 / 1e9);
        self.add_as("_count", &[], count);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Metrics {
    /// Counts a request by its answer's status.
    pub fn answered(&self, endpoint: Endpoint, status: u16) {
        // The last one is for what no code here answers with.
        let status = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        self.requests[endpoint as usize][status].fetch_add(1, Relaxed);
    }

    /// Counts a connection by how the gateway ended it.
    pub fn ended(&self, how: Ended) {
        self.ended[how as usize].fetch_add(1, Relaxed);
    }

    /// All of it, for Prometheus.
    pub fn text(&self, facts: &Facts) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for Family { name, kind, help, write, .. } in FAMILIES {
            let begin = text.len();
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            let head_end = text.len();
            write(&mut Samples { name, metrics: self, facts, text: &mut text });
            if text.len() == head_end {
                text.truncate(begin);
            }
        }
        text
    }
}

const fn family(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    write: fn(&mut Samples<'_>),
) -> Family {
    Family { name, kind, labels, help, write }
}

/// All of them, in the order in which they are told.
pub const FAMILIES: &[Family] = &[
    family(
        "disrust_gateway_requests_total",
        "counter",
        &["endpoint", "status"],
        "Requests by what they asked for and the status of their answer; those that were no HTTP are not among them.",
        |samples| {
            for (endpoint, _) in ENDPOINTS.iter().zip(0..) {
                for (status, count) in STATUSES.iter().zip(&samples.metrics.requests[endpoint.1 as usize]) {
                    let count = count.load(Relaxed);
                    // Most never occur.
                    if count > 0 {
                        samples.add(&[("endpoint", endpoint.0), ("status", &status.to_string())], count);
                    }
                }
            }
        },
    ),
    family(
        "disrust_gateway_request_duration_seconds",
        "histogram",
        &[],
        "From the head of a request for scores being read to its answer being handed to HTTP: its body, reading, scoring, writing. \
         One value for each that was answered with scores.",
        |samples| samples.histogram(&samples.metrics.request_time),
    ),
    family(
        "disrust_gateway_server_duration_seconds",
        "histogram",
        &[],
        "From a request's rows being handed to the client of the servers to all of their scores being there. One value for each \
         request that was scored.",
        |samples| samples.histogram(&samples.metrics.server_time),
    ),
    family("disrust_gateway_rows_total", "counter", &[], "Rows scored.", |samples| {
        samples.count(&samples.metrics.rows);
    }),
    family(
        "disrust_gateway_body_bytes_total",
        "counter",
        &[],
        "Bytes of the bodies of requests for scores that were received.",
        |samples| samples.count(&samples.metrics.body_bytes),
    ),
    family("disrust_gateway_answer_bytes_total", "counter", &[], "Bytes of the bodies of all answers.", |samples| {
        samples.count(&samples.metrics.answer_bytes)
    }),
    family(
        "disrust_gateway_requests_in_flight",
        "gauge",
        &[],
        "Requests whose head has been read and whose answer is not there yet.",
        |samples| samples.count(&samples.metrics.requests_in_flight),
    ),
    family("disrust_gateway_connections", "gauge", &[], "Connections open now.", |samples| {
        samples.add(&[], samples.facts.connections);
    }),
    family("disrust_gateway_connections_limit", "gauge", &[], "Connections that there can be at once.", |samples| {
        samples.add(&[], samples.facts.connections_max);
    }),
    family("disrust_gateway_connections_accepted_total", "counter", &[], "Connections accepted.", |samples| {
        samples.count(&samples.metrics.accepted);
    }),
    family(
        "disrust_gateway_connections_ended_total",
        "counter",
        &["reason"],
        "Connections that the gateway ended, by why: idle, head_timeout (a head that came too slowly), write_timeout (nothing of an \
         answer was read), evicted (idle, and another one needed the place), refused (there was no place for it), cut (open when a \
         drain was over).",
        |samples| {
            for ((reason, _), count) in ENDS.iter().zip(&samples.metrics.ended) {
                samples.add(&[("reason", reason)], count.load(Relaxed));
            }
        },
    ),
    family(
        "disrust_gateway_body_memory_bytes",
        "gauge",
        &[],
        "Memory that bodies, rows and answers take now.",
        |samples| samples.add(&[], samples.facts.body_memory),
    ),
    family("disrust_gateway_body_memory_limit_bytes", "gauge", &[], "Memory that they may take.", |samples| {
        samples.add(&[], samples.facts.body_memory_max)
    }),
    family(
        "disrust_gateway_server_up",
        "gauge",
        &["server"],
        "1 for each server that has told which model it has and is connected, else 0.",
        |samples| {
            for (server, is_up) in &samples.facts.servers {
                samples.add(&[("server", server)], u8::from(*is_up));
            }
        },
    ),
    family(
        "disrust_gateway_state",
        "gauge",
        &["state"],
        "1 for the state that the gateway is in, 0 for the others: ready, no_server (none is there), leaving (about to drain), \
         draining.",
        |samples| {
            for state in STATES {
                samples.add(&[("state", state)], u8::from(samples.facts.state == state));
            }
        },
    ),
    family(
        "disrust_gateway_thread_busy_seconds_total",
        "counter",
        &["thread"],
        "Time in which a thread worked; it waits for the rest.",
        |samples| {
            for (thread, busy) in &samples.facts.busy {
                samples.add(&[("thread", thread)], busy.as_secs_f64());
            }
        },
    ),
    family(
        "disrust_gateway_model_info",
        "gauge",
        &["name", "version"],
        "1; the model as the servers told of it.",
        |samples| {
            if let Some((name, version)) = &samples.facts.model {
                samples.add(&[("name", name), ("version", version)], 1);
            }
        },
    ),
    family(
        "disrust_gateway_build_info",
        "gauge",
        &["version", "commit"],
        "1; which version runs, and the commit that it was built of.",
        |samples| {
            let (version, commit) = samples.facts.build;
            samples.add(&[("version", version), ("commit", commit)], 1);
        },
    ),
    family("process_cpu_seconds_total", "counter", &[], "CPU time of the process, user and system.", |samples| {
        if let Some(time) = samples.facts.cpu_time {
            samples.add(&[], time.as_secs_f64());
        }
    }),
    family("process_resident_memory_bytes", "gauge", &[], "Memory of the process that is resident.", |samples| {
        if let Some(bytes) = samples.facts.resident_bytes {
            samples.add(&[], bytes);
        }
    }),
];

/// CPU time that the process has used.
pub fn cpu_time() -> Option<Duration> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let time = usage.user_time() + usage.system_time();
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    Some(Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec()).ok()?))
}

/// Memory that is resident, as /proc tells.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that explains the families to people.
    fn table() -> String {
        let mut table = "| name | type | labels | what |\n|---|---|---|---|\n".to_owned();
        for Family { name, kind, labels, help, .. } in FAMILIES {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            table += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
        }
        table
    }

    #[test]
    fn the_documented_families_are_these() {
        let document = include_str!("../../docs/GATEWAY.md");
        let written = document.split("<!-- metrics:gateway -->\n").nth(1);
        let written = written.and_then(|rest| rest.split("<!-- /metrics:gateway -->").next());
        assert!(written == Some(&table()), "docs/GATEWAY.md should have, between its marks:\n{}", table());
    }

    #[test]
    fn the_text_is_what_is_declared() {
        let metrics = Metrics::default();
        metrics.answered(Endpoint::Infer, 429);
        metrics.answered(Endpoint::Unknown, 999);
        metrics.ended(Ended::Evicted);
        metrics.request_time.add(Duration::from_micros(20));
        metrics.request_time.add(Duration::from_micros(21));
        metrics.request_time.add(Duration::from_secs(11));
        let facts = Facts {
            state: "leaving",
            servers: vec![("127.0.0.1:1".to_owned(), true)],
            model: Some(("a \"b\"".to_owned(), "00".to_owned())),
            busy: vec![("serve-0".to_owned(), Duration::from_millis(1500))],
            cpu_time: cpu_time(),
            resident_bytes: resident_bytes(),
            ..Facts::default()
        };
        let text = metrics.text(&facts);
        for Family { name, kind, labels, help, .. } in FAMILIES {
            assert_eq!(text.matches(&format!("# TYPE {name} {kind}\n")).count(), 1, "{name}");
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '|', '\\']), "{name}");
            for sample in text.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{"))) {
                assert_eq!(sample.matches("=\"").count(), labels.len(), "{name}: {sample}");
            }
        }
        for line in [
            "disrust_gateway_requests_total{endpoint=\"infer\",status=\"429\"} 1",
            "disrust_gateway_requests_total{endpoint=\"unknown\",status=\"0\"} 1",
            "disrust_gateway_request_duration_seconds_bucket{le=\"0.00002\"} 1",
            "disrust_gateway_request_duration_seconds_bucket{le=\"0.00005\"} 2",
            "disrust_gateway_request_duration_seconds_bucket{le=\"10\"} 2",
            "disrust_gateway_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "disrust_gateway_request_duration_seconds_count 3",
            "disrust_gateway_connections_ended_total{reason=\"evicted\"} 1",
            "disrust_gateway_state{state=\"leaving\"} 1",
            "disrust_gateway_server_up{server=\"127.0.0.1:1\"} 1",
            "disrust_gateway_thread_busy_seconds_total{thread=\"serve-0\"} 1.5",
            "disrust_gateway_model_info{name=\"a \\\"b\\\"\",version=\"00\"} 1",
        ] {
            assert!(text.lines().any(|is| is == line), "{line}: {text}");
        }
    }
}
