//! `search`: the highest rate at which every limit holds, and the knee above it.
//!
//! The rate doubles until a limit breaks, then the gap is halved (by ratio) until it is as small as `--precision`.
//! A rate that only fails once may be noise, so a failure is tried once more before it counts.
//!
//! Invariants: the rate that is found held in a valid run; if what broke first is the client and not a limit, that is
//! said, and is the exit status.
#![forbid(unsafe_code)]

use std::io::Write;

use crate::args::SearchPlan;
use crate::connect::Target;
use crate::failure::Failure;
use crate::load::measure;
use crate::output::text::{figure, time};
use crate::summary::Repeat;

/// Growth while no limit is broken. Larger: the first failure may be far beyond the knee, and take long to drain.
/// Smaller: more steps.
const GROWTH: f64 = 2.0;

/// What became of one rate.
enum Outcome {
    Holds,
    Breaks,
    Invalid(String),
}

/// One line of the table.
struct Step {
    rate_per_second: f64,
    repeat: Repeat,
}

/// Searches as `plan` says.
pub fn run(target: &Target, plan: &SearchPlan, out: &mut impl Write) -> Result<(), Failure> {
    let limits: Vec<String> = plan.slo.iter().map(ToString::to_string).collect();
    let print = Failure::local("print");
    writeln!(out, "search: the highest rate at which {} holds (open loop)", limits.join(" and ")).map_err(&print)?;
    writeln!(
        out,
        "{:>12} {:>12} {:>10} {:>10} {:>10} {:>10} {:>8}  result",
        "offered/s", "achieved/s", "p50", "p99", "p99.9", "lag p99", "client"
    )
    .map_err(&print)?;

    let mut holding: Option<Step> = None;
    let mut breaking: Option<Step> = None;
    let mut client_limit: Option<String> = None;
    let mut rate_per_second = plan.from;
    loop {
        let (step, outcome) = try_twice(target, plan, rate_per_second, out)?;
        match outcome {
            Outcome::Holds => holding = Some(step),
            Outcome::Breaks => (breaking, client_limit) = (Some(step), None),
            Outcome::Invalid(verdict) => (breaking, client_limit) = (Some(step), Some(verdict)),
        }
        rate_per_second = match (&holding, &breaking) {
            (Some(held), None) if held.rate_per_second >= plan.to => break,
            (Some(held), None) => (held.rate_per_second * GROWTH).min(plan.to),
            (None, _) => break,
            (Some(held), Some(broke)) if broke.rate_per_second / held.rate_per_second <= 1.0 + plan.precision => break,
            (Some(held), Some(broke)) => (held.rate_per_second * broke.rate_per_second).sqrt(),
        };
    }
    conclude(holding.as_ref(), breaking.as_ref(), client_limit, out)
}

fn conclude(
    holding: Option<&Step>,
    breaking: Option<&Step>,
    client_limit: Option<String>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let print = Failure::local("print");
    if let Some(held) = holding {
        writeln!(out, "holds up to: {:.0} requests/s", held.rate_per_second).map_err(&print)?;
    }
    if let (Some(held), Some(broke)) = (holding, breaking) {
        writeln!(
            out,
            "knee: {:.0} requests/s (p99 {}) to {:.0} requests/s (p99 {})",
            held.rate_per_second,
            p99(&held.repeat),
            broke.rate_per_second,
            p99(&broke.repeat)
        )
        .map_err(&print)?;
    }
    match (client_limit, holding, breaking) {
        (Some(verdict), _, _) => Err(Failure::Invalid { verdict: format!("{verdict}; the server may hold more") }),
        (None, None, _) => {
            Err(Failure::LimitBroken("the limits do not hold at the lowest rate (see --from)".to_owned()))
        }
        (None, Some(_), None) => writeln!(out, "no limit broke up to there (see --to)").map_err(&print),
        (None, Some(_), Some(_)) => Ok(()),
    }
}

fn try_twice(
    target: &Target,
    plan: &SearchPlan,
    rate_per_second: f64,
    out: &mut impl Write,
) -> Result<(Step, Outcome), Failure> {
    let (step, outcome) = try_rate(target, plan, rate_per_second, out)?;
    if matches!(outcome, Outcome::Holds) {
        return Ok((step, outcome));
    }
    try_rate(target, plan, rate_per_second, out)
}

fn try_rate(
    target: &Target,
    plan: &SearchPlan,
    rate_per_second: f64,
    out: &mut impl Write,
) -> Result<(Step, Outcome), Failure> {
    let load = plan.load(rate_per_second, target.seed);
    let measurement = measure(target, &load, &mut |_| {})?;
    let repeat = Repeat::of(&load, &measurement, plan.clients.lag_limit);
    let broken = plan.slo.iter().find(|limit| limit.holds(&repeat) != Some(true));
    let (outcome, result) = match broken {
        _ if !repeat.valid => (Outcome::Invalid(repeat.verdict()), repeat.verdict()),
        _ if repeat.lost > 0 => (Outcome::Breaks, format!("{} requests got no answer", repeat.lost)),
        None => (Outcome::Holds, "holds".to_owned()),
        Some(limit) => {
            let value =
                limit.metric.value(&repeat).map_or_else(|| "unknown".to_owned(), |value| figure(limit.metric, value));
            (Outcome::Breaks, format!("breaks {limit}: {value}"))
        }
    };
    let times = |pick: fn(&Repeat) -> Option<u64>| pick(&repeat).map_or_else(String::new, |ns| time(ns as f64));
    writeln!(
        out,
        "{:>12.0} {:>12.0} {:>10} {:>10} {:>10} {:>10} {:>7.0}%  {result}",
        repeat.offered_per_second.unwrap_or(rate_per_second),
        repeat.achieved_per_second,
        times(|repeat| Some(repeat.response_ns.as_ref()?.p50)),
        p99(&repeat),
        times(|repeat| Some(repeat.response_ns.as_ref()?.p99_9)),
        times(|repeat| Some(repeat.schedule_lag_ns.as_ref()?.p99)),
        repeat.client_busy_share * 100.0,
    )
    .map_err(Failure::local("print"))?;
    Ok((Step { rate_per_second, repeat }, outcome))
}

fn p99(repeat: &Repeat) -> String {
    repeat.response_ns.as_ref().map_or_else(String::new, |times| time(times.p99 as f64))
}
