//! Limits on what was measured, as `--slo` and `--fail-if` take them: `p99<=200us`, `service.p99.9>1ms`, `rate<50k`.
//!
//! A limit names a metric, a comparison and a number with its unit. It is a statement about one run; what it means that
//! the statement holds is the caller's.
//!
//! Invariants: times are nanoseconds; a bare quantile is the response time's.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::summary::{Repeat, TimesNs};

/// A statement about a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    text: String,
    /// What it is about.
    pub metric: Metric,
    comparison: Comparison,
    bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Of a distribution of times.
    Time(Distribution, Statistic),
    /// Answers with scores a second.
    Rate,
    /// Requests without an answer.
    Lost,
    /// Requests that the server shed.
    Shed,
    /// CPU time of the server a request.
    ServerCpu,
    /// CPU time of the client a request.
    ClientCpu,
}

/// Which times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// From the intended send time.
    Response,
    /// From the write.
    Service,
    /// How late requests were written.
    Lag,
}

/// What of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// The shortest.
    Min,
    /// The arithmetic mean.
    Mean,
    /// Half are not longer.
    P50,
    /// 90 % are not longer.
    P90,
    /// 99 % are not longer.
    P99,
    /// 99.9 % are not longer.
    P999,
    /// 99.99 % are not longer.
    P9999,
    /// The longest.
    Max,
}

/// Every statistic and its name.
const STATISTICS: [(&str, Statistic); 8] = [
    ("min", Statistic::Min),
    ("mean", Statistic::Mean),
    ("p50", Statistic::P50),
    ("p90", Statistic::P90),
    ("p99", Statistic::P99),
    ("p99.9", Statistic::P999),
    ("p99.99", Statistic::P9999),
    ("max", Statistic::Max),
];

/// Units of time in nanoseconds.
const TIME_UNITS: [(&str, f64); 5] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];

/// Units of everything else.
const COUNT_UNITS: [(&str, f64); 3] = [("", 1.0), ("k", 1e3), ("M", 1e6)];

impl Limit {
    /// Whether the statement is true of `run`; `None` if the run has no such figure.
    pub fn holds(&self, run: &Repeat) -> Option<bool> {
        self.metric.value(run).map(|value| self.holds_for(value))
    }

    /// Whether the statement is true of `value`.
    pub fn holds_for(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Less => value < self.bound,
            Comparison::LessOrEqual => value <= self.bound,
            Comparison::Greater => value > self.bound,
            Comparison::GreaterOrEqual => value >= self.bound,
        }
    }
}

impl Metric {
    /// The figure of `run`, in nanoseconds if it is a time.
    pub fn value(self, run: &Repeat) -> Option<f64> {
        match self {
            Metric::Time(distribution, statistic) => {
                let times = match distribution {
                    Distribution::Response => run.response_ns.as_ref(),
                    Distribution::Service => run.service_ns.as_ref(),
                    Distribution::Lag => run.schedule_lag_ns.as_ref(),
                };
                times.map(|times| statistic.of(times))
            }
            Metric::Rate => Some(run.achieved_per_second),
            Metric::Lost => Some(run.lost as f64),
            Metric::Shed => Some(run.errors.shed as f64),
            Metric::ServerCpu => run.server_cpu_ns_per_request,
            Metric::ClientCpu => Some(run.client_cpu_ns_per_request),
        }
    }

    /// Whether it is a time.
    pub fn is_time(self) -> bool {
        !matches!(self, Metric::Rate | Metric::Lost | Metric::Shed)
    }
}

impl Statistic {
    fn of(self, times: &TimesNs) -> f64 {
        match self {
            Statistic::Min => times.min as f64,
            Statistic::Mean => times.mean,
            Statistic::P50 => times.p50 as f64,
            Statistic::P90 => times.p90 as f64,
            Statistic::P99 => times.p99 as f64,
            Statistic::P999 => times.p99_9 as f64,
            Statistic::P9999 => times.p99_99 as f64,
            Statistic::Max => times.max as f64,
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        let wrong = || format!("'{text}' is not like p99<=200us, service.p99.9>1ms or rate<50k");
        let operator = text.find(['<', '>']).ok_or_else(wrong)?;
        let (metric, rest) = text.split_at(operator);
        let (comparison, bound) = [
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ]
        .iter()
        .find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?)))
        .ok_or_else(wrong)?;
        let metric: Metric = metric.trim().parse()?;
        let bound = number(bound.trim(), if metric.is_time() { &TIME_UNITS } else { &COUNT_UNITS })?;
        Ok(Limit { text: text.to_owned(), metric, comparison, bound })
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Metric, String> {
        match text {
            "rate" => return Ok(Metric::Rate),
            "lost" => return Ok(Metric::Lost),
            "shed" => return Ok(Metric::Shed),
            "server-cpu" => return Ok(Metric::ServerCpu),
            "client-cpu" => return Ok(Metric::ClientCpu),
            _ => {}
        }
        let (distribution, statistic) = [
            ("response.", Distribution::Response),
            ("service.", Distribution::Service),
            ("lag.", Distribution::Lag),
            ("", Distribution::Response),
        ]
        .iter()
        .find_map(|(prefix, distribution)| Some((*distribution, text.strip_prefix(prefix)?)))
        .expect("every text begins with nothing");
        let found = STATISTICS.iter().find(|(name, _)| *name == statistic);
        found.map(|(_, statistic)| Metric::Time(distribution, *statistic)).ok_or_else(|| {
            let names: Vec<&str> = STATISTICS.iter().map(|(name, _)| *name).collect();
            format!(
                "'{text}' is not {}, with response. (or nothing), service. or lag. before it, \
                 nor rate, lost, shed, server-cpu or client-cpu",
                names.join(", ")
            )
        })
    }
}

/// A positive number with one of the units, or of the first unit named "".
fn number(text: &str, units: &[(&str, f64)]) -> Result<f64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_alphabetic());
    let unit = &text[digits.len()..];
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
    let number = digits.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    number.zip(factor).map(|(number, factor)| number * factor).ok_or_else(|| {
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        format!("'{text}' is not a number with a unit ({})", names.join(", "))
    })
}

/// A rate: `1000`, `50k`, `1.5M`.
pub fn rate(text: &str) -> Result<f64, String> {
    number(text, &COUNT_UNITS)
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (distribution, statistic) = match self {
            Metric::Rate => return formatter.write_str("rate"),
            Metric::Lost => return formatter.write_str("lost"),
            Metric::Shed => return formatter.write_str("shed"),
            Metric::ServerCpu => return formatter.write_str("server-cpu"),
            Metric::ClientCpu => return formatter.write_str("client-cpu"),
            Metric::Time(distribution, statistic) => (distribution, statistic),
        };
        let prefix = match distribution {
            Distribution::Response => "response",
            Distribution::Service => "service",
            Distribution::Lag => "lag",
        };
        let name = STATISTICS.iter().find(|(_, listed)| listed == statistic).map_or("", |(name, _)| name);
        write!(formatter, "{prefix}.{name}")
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Limit {
        text.parse().expect("a valid limit")
    }

    /// The promise: limits read as they are written, whatever the unit.
    #[test]
    fn limits_read() {
        let p99 = limit("p99<=200us");
        assert_eq!(p99.metric, Metric::Time(Distribution::Response, Statistic::P99));
        assert_eq!((p99.comparison, p99.bound), (Comparison::LessOrEqual, 200_000.0));
        assert_eq!(limit("service.p99.9 > 1.5ms").bound, 1_500_000.0);
        assert_eq!(limit("lag.max>=1s").metric, Metric::Time(Distribution::Lag, Statistic::Max));
        assert_eq!((limit("rate<50k").bound, limit("lost>0").bound), (50_000.0, 0.0));
        assert_eq!((limit("shed>1k").metric, limit("shed>1k").bound), (Metric::Shed, 1000.0));
        assert_eq!(limit("server-cpu<800ns").metric, Metric::ServerCpu);
    }

    /// The promise: what is no limit is refused, above all a time without its unit.
    #[test]
    fn nonsense_is_refused() {
        for text in ["", "p99", "p99<=", "p99<=200", "p98<1us", "rate<1us", "p99=1us", "p99<-1us", "<1us", "p99<1h"] {
            assert!(text.parse::<Limit>().is_err(), "{text:?}");
        }
    }
}
