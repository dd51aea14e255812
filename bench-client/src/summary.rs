//! What a run came to, as plain figures: what is printed, written as JSON, compared and judged.
//!
//! The shape of the JSON is `schema/run.v1.schema.json`; a field that changes its meaning gets a new version there.
//!
//! Invariants: a figure's unit is in its name; what was not measured is absent (`null`), never 0; a run is valid unless
//! a reason says otherwise.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::load::error_answers::ErrorAnswers;
use crate::load::{Load, Loop, Measurement, Reconnects};
use crate::server_figures::ServerFigures;

/// What the file is, for whoever finds it.
pub const SCHEMA: &str = "disrust-bench-client-run";

/// The version of the file's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// Of all requests on the schedule, the share that the client may fail to send without being called saturated.
const UNSENT_SHARE_MAX: f64 = 0.001;

/// Schedule lag that is too small to matter, whatever the response time.
///
/// Larger: a fast server's latency may be half the client's. Smaller: a thread that merely woke up is called saturated.
const LAG_NS_ALLOWED: u64 = 100_000;

/// Schedule lag that is too small to matter as a share of the response time, at the same percentile.
const LAG_SHARE_ALLOWED: f64 = 0.2;

/// Below this share of busy time a client that is late had time enough, and was kept from running: requests of a few
/// microseconds that come one by one wait for seven others at the most, 99 times in 100, where the client is busy for
/// three quarters of the time (a queue of Poisson arrivals and equal services), and that is not too late yet.
const BUSY_SHARE_OF_A_SATURATED_CLIENT: f64 = 0.75;

/// Below this share of CPU time in its busy time a client was busy only because something else ran in its place.
const CPU_SHARE_OF_A_SATURATED_CLIENT: f64 = 0.9;

/// A share of others above which they are worth a word.
pub const OTHERS_SHARE_QUIET: f64 = 0.05;

/// One file: a run, once or repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What the times may be taken for.
    pub claim: String,
    /// Where it was measured.
    pub environment: Environment,
    /// What was run.
    pub plan: Plan,
    /// What came of it, in order.
    pub repeats: Vec<Repeat>,
    /// Repeats that were not valid, and in whose place others were taken.
    #[serde(default)]
    pub retaken: Vec<Repeat>,
}

/// What was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `open` or `closed`.
    pub pacing: String,
    /// Open loop: requests a second.
    pub rate_per_second: Option<f64>,
    /// Open loop: how they arrive.
    pub arrival: Option<String>,
    /// Closed loop: the most requests under way on a connection.
    pub window: Option<u32>,
    /// Connections.
    pub connections: u32,
    /// Vectors of the requests, as `--vectors` takes them.
    pub vectors: String,
    /// Features of a vector.
    pub features: u32,
    /// Threads of the client.
    pub threads: u32,
    /// Their CPUs, if they were pinned.
    pub pin: Vec<usize>,
    /// Of the vectors and the schedule.
    pub seed: u64,
    /// Before the measured time.
    pub warmup_seconds: f64,
    /// The measured time.
    pub duration_seconds: f64,
    /// Requests after which a connection was replaced.
    pub reconnect_every: Option<u64>,
    /// Connections that read next to nothing.
    pub slow_readers: u32,
}

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repeat {
    /// Whether the figures are the server's.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// Whose doing that was.
    #[serde(default)]
    pub invalid_cause: Option<InvalidCause>,
    /// Open loop: requests on the schedule, a second.
    pub offered_per_second: Option<f64>,
    /// Answers with scores that arrived, a second.
    pub achieved_per_second: f64,
    /// Vectors of those answers, a second.
    pub vectors_per_second: f64,
    /// Answers with scores that arrived in the measured time, all of them right.
    pub answered: u64,
    /// Requests that were answered with an error: those that became due in the measured time (open loop), or whose errors
    /// arrived in it (closed loop). No time is of them, and no rate.
    #[serde(default)]
    pub errors: ErrorAnswers,
    /// Their share of all requests on the schedule (open loop), or of all answers (closed loop).
    #[serde(default)]
    pub error_share: f64,
    /// Requests without an answer.
    pub lost: u64,
    /// Requests on the schedule that the client never came to send.
    pub unsent: u64,
    /// Requests that waited for the server to take earlier ones.
    pub held_back: u64,
    /// Requests whose answers arrived together, on average.
    pub requests_per_turn: Option<f64>,
    /// From the intended send time to the answer (open loop).
    pub response_ns: Option<TimesNs>,
    /// From the write to the answer.
    pub service_ns: Option<TimesNs>,
    /// From the intended send time to the write (open loop).
    pub schedule_lag_ns: Option<TimesNs>,
    /// From beginning a connection to having it, for those made during the run.
    pub connect_ns: Option<TimesNs>,
    /// CPU time of the client, an answer.
    pub client_cpu_ns_per_request: f64,
    /// CPU time of the client, of one CPU.
    pub client_cpu_share: f64,
    /// The part of the time in which the client's threads had something to do; the rest they slept or polled.
    pub client_busy_share: f64,
    /// CPU time of the server, an answer.
    pub server_cpu_ns_per_request: Option<f64>,
    /// CPU time of the server, of one CPU.
    pub server_cpu_share: Option<f64>,
    /// The same, by thread; threads that used none are left out.
    pub server_threads: Vec<ServerThread>,
    /// Answers that slow readers read.
    pub slow_answers: u64,
    /// What the server itself says of the measured time, with --server-metrics.
    #[serde(default)]
    pub server_figures: Option<ServerFigures>,
    /// The share of this machine's CPUs that neither client nor server used; known with --server-pid.
    #[serde(default)]
    pub others_cpu_share: Option<f64>,
    /// What became of connections that the server ended, with --reconnect-on-close.
    #[serde(default)]
    pub reconnects: Option<Reconnects>,
    /// Why the run ended before its time, if it did; all figures are of the time until then.
    #[serde(default)]
    pub cut_off: Option<String>,
}

/// Why a client did not keep its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidCause {
    /// It had its CPU, and more to do than that allows.
    ClientSaturated,
    /// It had time enough, but not its CPU: something else ran there, or the machine woke late.
    CpuTaken,
    /// No answer came in the measured time of a closed loop: there is nothing to take figures from.
    NothingAnswered,
}

impl fmt::Display for InvalidCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            InvalidCause::ClientSaturated => "client saturated",
            InvalidCause::CpuTaken => "something else had the client's CPU",
            InvalidCause::NothingAnswered => "nothing was answered",
        })
    }
}

/// CPU time of one thread of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerThread {
    /// Its name.
    pub name: String,
    /// An answer, of all answers.
    pub cpu_ns_per_request: f64,
}

/// A distribution of times in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimesNs {
    /// Times in it.
    pub count: u64,
    /// The shortest.
    pub min: u64,
    /// The arithmetic mean.
    pub mean: f64,
    /// Half are not longer.
    pub p50: u64,
    /// 90 % are not longer.
    pub p90: u64,
    /// 99 % are not longer.
    pub p99: u64,
    /// 99.9 % are not longer.
    pub p99_9: u64,
    /// 99.99 % are not longer.
    pub p99_99: u64,
    /// The longest.
    pub max: u64,
}

impl TimesNs {
    /// The figures of `times_ns`, or `None` if it is empty.
    pub fn of(times_ns: &Histogram<u64>) -> Option<TimesNs> {
        let at = |quantile| times_ns.value_at_quantile(quantile);
        (!times_ns.is_empty()).then(|| TimesNs {
            count: times_ns.len(),
            min: times_ns.min(),
            mean: times_ns.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: times_ns.max(),
        })
    }
}

impl Plan {
    /// What `load` was.
    pub fn of(load: &Load, features: u32, seed: u64) -> Plan {
        let (arrivals, window) = match load.pace {
            Loop::Open(arrivals) => (Some(arrivals), None),
            Loop::Closed { window } => (None, Some(window)),
        };
        Plan {
            pacing: if arrivals.is_some() { "open" } else { "closed" }.to_owned(),
            rate_per_second: arrivals.map(|arrivals| arrivals.rate_per_second),
            arrival: arrivals.map(|arrivals| arrivals.arrival.to_string()),
            window,
            connections: load.connections,
            vectors: load.vectors.to_string(),
            features,
            threads: load.threads,
            pin: load.pin.clone(),
            seed,
            warmup_seconds: load.warmup.as_secs_f64(),
            duration_seconds: load.duration.as_secs_f64(),
            reconnect_every: load.reconnect_every,
            slow_readers: load.slow_readers,
        }
    }
}

impl Repeat {
    /// The figures of `measurement`, and whether they are the server's: not if the schedule lag's p99 is above
    /// `lag_limit`, or, without one, if its p50 or p99 is above what [`LAG_NS_ALLOWED`] and [`LAG_SHARE_ALLOWED`] say.
    pub fn of(load: &Load, measurement: &Measurement, lag_limit: Option<Duration>) -> Repeat {
        let seconds = measurement.window.as_secs_f64();
        let tally = &measurement.tally;
        let each = |time: Duration| time.as_nanos() as f64 / tally.answered.max(1) as f64;
        let client = measurement.client.user + measurement.client.system;
        let server: Option<Duration> =
            measurement.server.as_ref().map(|threads| threads.iter().map(|thread| thread.time).sum());
        let threads = measurement.server.iter().flatten().filter(|thread| !thread.time.is_zero());
        let is_open = matches!(load.pace, Loop::Open(_));
        let mut repeat = Repeat {
            valid: true,
            invalid_reasons: Vec::new(),
            invalid_cause: None,
            offered_per_second: is_open.then_some(tally.scheduled as f64 / seconds),
            achieved_per_second: tally.answered as f64 / seconds,
            vectors_per_second: tally.vectors as f64 / seconds,
            answered: tally.answered,
            errors: tally.errors,
            error_share: tally.errors.count() as f64
                / if is_open { tally.scheduled } else { tally.answered + tally.errors.count() }.max(1) as f64,
            lost: tally.lost,
            unsent: tally.unsent,
            held_back: tally.held_back,
            requests_per_turn: (tally.answer_turns > 0).then(|| tally.answered as f64 / tally.answer_turns as f64),
            response_ns: TimesNs::of(&measurement.response_ns),
            service_ns: TimesNs::of(&measurement.service_ns),
            schedule_lag_ns: TimesNs::of(&tally.lag_ns),
            connect_ns: TimesNs::of(&tally.connect_ns),
            client_cpu_ns_per_request: each(client),
            client_cpu_share: client.as_secs_f64() / seconds,
            client_busy_share: 1.0 - tally.idle_ns as f64 / 1e9 / seconds / f64::from(load.threads),
            server_cpu_ns_per_request: server.map(each),
            server_cpu_share: server.map(|time| time.as_secs_f64() / seconds),
            server_threads: threads
                .map(|thread| ServerThread { name: thread.name.clone(), cpu_ns_per_request: each(thread.time) })
                .collect(),
            slow_answers: measurement.slow_answers,
            server_figures: None,
            others_cpu_share: None,
            reconnects: tally.reconnects,
            cut_off: measurement.cut_off.as_ref().map(ToString::to_string),
        };
        let is_burst = matches!(load.pace, Loop::Open(arrivals) if arrivals.burst > 1);
        repeat.judge(tally.scheduled, load.threads, is_burst, lag_limit);
        repeat
    }

    /// The verdict in words: `valid`, or whose doing it is that the figures are not the server's, and what shows it.
    pub fn verdict(&self) -> String {
        match self.invalid_cause {
            None => "valid".to_owned(),
            Some(cause) => format!("INVALID: {cause}: {}", self.invalid_reasons.join("; ")),
        }
    }

    fn judge(&mut self, scheduled: u64, threads: u32, is_burst: bool, lag_limit: Option<Duration>) {
        if self.unsent as f64 > UNSENT_SHARE_MAX * scheduled as f64 {
            self.invalid_reasons.push(format!("{} of {scheduled} requests were never sent", self.unsent));
        }
        if let (Some(lag_ns), Some(response_ns)) = (&self.schedule_lag_ns, &self.response_ns) {
            let allowed_ns = |response_ns: u64| LAG_NS_ALLOWED.max((response_ns as f64 * LAG_SHARE_ALLOWED) as u64);
            let limits_ns = match lag_limit {
                Some(limit) => vec![("p99", lag_ns.p99, limit.as_nanos() as u64)],
                None => vec![
                    ("p50", lag_ns.p50, allowed_ns(response_ns.p50)),
                    ("p99", lag_ns.p99, allowed_ns(response_ns.p99)),
                ],
            };
            for (name, lag_ns, limit_ns) in limits_ns.into_iter().filter(|(_, lag_ns, limit_ns)| lag_ns > limit_ns) {
                let [lag_us, limit_us] = [lag_ns, limit_ns].map(|ns| ns as f64 / 1e3);
                let reason =
                    format!("the schedule lag's {name} is {lag_us:.1} us, above {limit_us:.1} us (see --lag-limit)");
                self.invalid_reasons.push(reason);
            }
        }
        let has_answers = self.offered_per_second.is_some() || self.answered + self.errors.count() + self.lost > 0;
        self.valid = self.invalid_reasons.is_empty() && has_answers;
        if !self.valid {
            let nothing = || (InvalidCause::NothingAnswered, "no answer came in the measured time".to_owned());
            let (cause, reason) = if has_answers { self.cause(threads, is_burst) } else { nothing() };
            self.invalid_cause = Some(cause);
            self.invalid_reasons.push(reason);
        }
    }

    /// Why a client of `threads` threads was late. Time in which it had something to do is by the clock: it holds time
    /// in which something else ran in its place, and then it is longer than the CPU time. Of requests that come in bursts
    /// the last ones are late by what the others take, however much time there is afterwards.
    fn cause(&self, threads: u32, is_burst: bool) -> (InvalidCause, String) {
        let busy_share = self.client_busy_share;
        let busy = format!("its threads were busy {:.0} % of the time", busy_share * 100.0);
        let cpu_share = self.client_cpu_share / f64::from(threads);
        if busy_share < BUSY_SHARE_OF_A_SATURATED_CLIENT && !is_burst {
            (InvalidCause::CpuTaken, format!("{busy}, so they had time enough"))
        } else if cpu_share < CPU_SHARE_OF_A_SATURATED_CLIENT * busy_share {
            let reason = format!("{busy} and had a CPU only {:.0} % of it", cpu_share * 100.0);
            (InvalidCause::CpuTaken, reason)
        } else {
            (InvalidCause::ClientSaturated, busy)
        }
    }
}

/// How quiet a machine was whose CPUs others used for `shares` of the time, in words. It is judged by the worst of them:
/// what ran beside one repeat may have changed its figures.
pub fn others_in_words(shares: impl IntoIterator<Item = f64>) -> String {
    match Spread::of(shares) {
        None => "what else ran is not known".to_owned(),
        Some(spread) if spread.max <= OTHERS_SHARE_QUIET => "nothing else ran".to_owned(),
        Some(spread) => format!(
            "the machine was busy with other work, which took up to {:.0} % of its CPUs (median {:.0} %)",
            spread.max * 100.0,
            spread.median * 100.0
        ),
    }
}

/// The smallest, the middle and the largest of some figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of `figures`, or `None` if there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let middle = [sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]];
        Some(Spread { min: first, median: (middle[0] + middle[1]) / 2.0, max: last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(p50: u64, p99: u64) -> TimesNs {
        let mean = p50 as f64;
        TimesNs { count: 1, min: 0, mean, p50, p90: p99, p99, p99_9: p99, p99_99: p99, max: p99 }
    }

    fn repeat(lag: TimesNs, response: TimesNs, unsent: u64) -> Repeat {
        Repeat {
            valid: true,
            invalid_reasons: Vec::new(),
            invalid_cause: None,
            offered_per_second: Some(1000.0),
            achieved_per_second: 1000.0,
            vectors_per_second: 1000.0,
            answered: 1000,
            errors: ErrorAnswers::default(),
            error_share: 0.0,
            lost: 0,
            unsent,
            held_back: 0,
            requests_per_turn: None,
            response_ns: Some(response),
            service_ns: None,
            schedule_lag_ns: Some(lag),
            connect_ns: None,
            client_cpu_ns_per_request: 0.0,
            client_cpu_share: 1.0,
            client_busy_share: 1.0,
            server_cpu_ns_per_request: None,
            server_cpu_share: None,
            server_threads: Vec::new(),
            slow_answers: 0,
            server_figures: None,
            others_cpu_share: None,
            reconnects: None,
            cut_off: None,
        }
    }

    fn judged(lag: TimesNs, response: TimesNs, unsent: u64, lag_limit: Option<Duration>) -> bool {
        let mut repeat = repeat(lag, response, unsent);
        repeat.judge(1000, 1, false, lag_limit);
        repeat.valid
    }

    /// The promise: a lag that is a fifth of the response time, at p50 or p99, is not passed off as the server's; a few
    /// microseconds always are allowed; a limit of the user's replaces both.
    #[test]
    fn a_late_client_is_not_passed_off_as_the_server() {
        const US: u64 = 1000;
        let response = || times(1000 * US, 10_000 * US);
        assert!(judged(times(150 * US, 1900 * US), response(), 0, None));
        assert!(!judged(times(150 * US, 2100 * US), response(), 0, None), "p99");
        assert!(!judged(times(250 * US, 1900 * US), response(), 0, None), "p50");
        assert!(judged(times(US, 90 * US), times(50 * US, 120 * US), 0, None), "allowed however small the response");
        assert!(judged(times(250 * US, 2100 * US), response(), 0, Some(Duration::from_millis(3))));
        assert!(!judged(times(US, 2100 * US), response(), 0, Some(Duration::from_millis(2))));
        assert!(judged(times(US, US), response(), 1, None) && !judged(times(US, US), response(), 2, None), "unsent");
    }

    /// The promise: a late client is called saturated only if it was busy, and had its CPU while it was.
    #[test]
    fn saturated_is_said_of_a_busy_client_only() {
        let told = |busy_share: f64, cpu_share: f64, threads: u32, is_burst: bool| {
            let mut late = Repeat {
                client_busy_share: busy_share,
                client_cpu_share: cpu_share,
                ..repeat(times(1, 900_000), times(1, 1_000_000), 0)
            };
            late.judge(1000, threads, is_burst, None);
            late.verdict()
        };
        for (busy_share, cpu_share, threads, is_burst) in
            [(1.0, 1.0, 1, false), (0.8, 0.75, 1, false), (0.9, 1.7, 2, false), (0.3, 0.3, 1, true)]
        {
            let verdict = told(busy_share, cpu_share, threads, is_burst);
            assert!(verdict.starts_with("INVALID: client saturated: the schedule lag"), "{verdict}");
        }
        for (busy_share, cpu_share, threads, is_burst) in
            [(0.6, 1.0, 1, false), (1.0, 0.5, 1, false), (0.9, 0.9, 2, false), (0.9, 0.5, 1, true)]
        {
            let verdict = told(busy_share, cpu_share, threads, is_burst);
            assert!(verdict.starts_with("INVALID: something else had the client's CPU: "), "{verdict}");
        }
        assert_eq!(repeat(times(1, 1), times(1, 1), 0).verdict(), "valid");
    }

    /// The promise: a closed loop without an answer has no figures, and is not called valid; what is lost is told as lost.
    #[test]
    fn a_closed_loop_without_answers_is_invalid() {
        let judged = |lost| {
            let mut repeat =
                Repeat { offered_per_second: None, answered: 0, lost, ..repeat(times(1, 1), times(1, 1), 0) };
            repeat.judge(0, 1, false, None);
            repeat.verdict()
        };
        assert_eq!(judged(0), "INVALID: nothing was answered: no answer came in the measured time");
        assert_eq!(judged(1), "valid");
    }

    /// The promise: others are told where they ran, and what is not known is not called quiet.
    #[test]
    fn others_are_told_by_the_worst() {
        assert_eq!(others_in_words([0.0, 0.04, 0.05]), "nothing else ran");
        assert!(others_in_words([0.0, 0.0, 0.4]).contains("which took up to 40 % of its CPUs (median 0 %)"));
        assert_eq!(others_in_words([]), "what else ran is not known");
    }

    /// The promise: the middle is the middle, also of an even number of figures.
    #[test]
    fn spreads_are_by_order() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
    }
}
