//! `search`: the highest rate at which every limit holds, and the knee above it.
//!
//! Which rates are measured is decided in [`edge`]; here they are measured, printed and judged.
//!
//! Invariants: the rate that is found held in a valid run; if what is above it is not known, because the client was too
//! slow or was kept from its CPU, that is said, and is the exit status. A rate at which anything is shed does not hold, unless a
//! limit says how much may be.
#![forbid(unsafe_code)]

mod edge;

use std::io::Write;

use crate::args::SearchPlan;
use crate::connect::Target;
use crate::failure::Failure;
use crate::limit::Metric;
use crate::load::error_answers::Unscored;
use crate::load::measure;
use crate::output::text::{figure, time};
use crate::processor_time::OthersWatch;
use crate::summary::{InvalidCause, Repeat, others_in_words};
use edge::{Found, Range, Verdict, find};

/// At or above this share of the offered rate a server keeps up.
const ACHIEVED_SHARE_ENOUGH: f64 = 0.9;

/// A server that does not keep up, and answers less than this many times what it answered at half the rate, is at its
/// end. The share alone does not tell: of a short run the last answers come after its end, and do not count.
const GROWTH_ENOUGH: f64 = 1.25;

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
    let mut steps: Vec<Step> = Vec::new();
    let range = Range { from: plan.from, to: plan.to.max(plan.from), precision: plan.precision };
    let found = find(range, |rate_per_second| {
        let repeat = measure_rate(target, plan, rate_per_second)?;
        let half = steps.iter().filter(|step| step.rate_per_second < 0.6 * rate_per_second);
        let achieved_at_half = half.map(|step| step.repeat.achieved_per_second).fold(0.0, f64::max);
        let (verdict, result) = judge(plan, &repeat, achieved_at_half);
        print_step(rate_per_second, &repeat, &result, out).map_err(&print)?;
        steps.push(Step { rate_per_second, repeat });
        Ok::<Verdict, Failure>(verdict)
    })?;
    let shares = steps.iter().filter_map(|step| step.repeat.others_cpu_share);
    writeln!(out, "others: {}", others_in_words(shares)).map_err(&print)?;
    match found {
        Some(found) => conclude(&found, &steps, out),
        None => Err(nothing_holds(plan, &steps)),
    }
}

fn measure_rate(target: &Target, plan: &SearchPlan, rate_per_second: f64) -> Result<Repeat, Failure> {
    let load = plan.load(rate_per_second, target.seed);
    let others = plan.clients.server_pid.map(OthersWatch::begin);
    let mut measurement = measure(target, &load, &mut |_| {})?;
    // What is shed is a matter of the rate; what the model failed on is wrong at any.
    if let Some(failed) = measurement.tally.first_errors[Unscored::ModelFailed as usize].take() {
        return Err(failed);
    }
    let others_cpu_share = others.and_then(|others| others.share());
    Ok(Repeat { others_cpu_share, ..Repeat::of(&load, &measurement, plan.clients.lag_limit) })
}

/// What came of a rate, and the words for it; about half of it had `achieved_at_half` answers a second.
fn judge(plan: &SearchPlan, repeat: &Repeat, achieved_at_half: f64) -> (Verdict, String) {
    let verdict = match repeat.invalid_cause {
        Some(InvalidCause::ClientSaturated) => return (Verdict::ClientSaturated, repeat.verdict()),
        Some(InvalidCause::CpuTaken | InvalidCause::NothingAnswered) => return (Verdict::Disturbed, repeat.verdict()),
        None if is_overloaded(repeat, achieved_at_half) => Verdict::Overloaded,
        None => Verdict::Breaks,
    };
    if repeat.lost > 0 {
        return (Verdict::Overloaded, format!("{} requests got no answer", repeat.lost));
    }
    if repeat.errors.shed > 0 && plan.slo.iter().all(|limit| limit.metric != Metric::Shed) {
        return (
            Verdict::Overloaded,
            format!("{} requests were shed (--slo can allow it: shed<=N)", repeat.errors.shed),
        );
    }
    match plan.slo.iter().find(|limit| limit.holds(repeat) != Some(true)) {
        None => (Verdict::Holds, "holds".to_owned()),
        Some(limit) => {
            let value = limit.metric.value(repeat);
            let value = value.map_or_else(|| "unknown".to_owned(), |value| figure(limit.metric, value));
            (verdict, format!("breaks {limit}: {value}"))
        }
    }
}

fn is_overloaded(repeat: &Repeat, achieved_at_half: f64) -> bool {
    let achieved = repeat.achieved_per_second;
    let is_short = repeat.offered_per_second.is_some_and(|offered| achieved < ACHIEVED_SHARE_ENOUGH * offered);
    is_short && achieved < GROWTH_ENOUGH * achieved_at_half
}

fn print_step(rate_per_second: f64, repeat: &Repeat, result: &str, out: &mut impl Write) -> std::io::Result<()> {
    let times = |pick: fn(&Repeat) -> Option<u64>| pick(repeat).map_or_else(String::new, |ns| time(ns as f64));
    writeln!(
        out,
        "{:>12.0} {:>12.0} {:>10} {:>10} {:>10} {:>10} {:>7.0}%  {result}",
        repeat.offered_per_second.unwrap_or(rate_per_second),
        repeat.achieved_per_second,
        times(|repeat| Some(repeat.response_ns.as_ref()?.p50)),
        p99(repeat),
        times(|repeat| Some(repeat.response_ns.as_ref()?.p99_9)),
        times(|repeat| Some(repeat.schedule_lag_ns.as_ref()?.p99)),
        repeat.client_busy_share * 100.0,
    )
}

fn conclude(found: &Found, steps: &[Step], out: &mut impl Write) -> Result<(), Failure> {
    let print = Failure::local("print");
    writeln!(out, "holds up to: {:.0} requests/s", found.highest).map_err(&print)?;
    if steps.iter().any(|step| step.rate_per_second < found.lowest) {
        let lowest = found.lowest;
        writeln!(out, "holds from: {lowest:.0} requests/s; at lower rates it was not found to").map_err(&print)?;
    }
    // The last measurement of a rate is the one that counts.
    let at = |rate: f64| steps.iter().rfind(|step| step.rate_per_second == rate).map(|step| &step.repeat);
    let Some((rate, verdict)) = found.above else {
        return writeln!(out, "no limit broke above it (see --to)").map_err(&print);
    };
    let (Some(held), Some(broke)) = (at(found.highest), at(rate)) else {
        unreachable!("a search finds rates that it has measured")
    };
    let (highest, held) = (found.highest, p99(held));
    writeln!(out, "knee: {highest:.0} requests/s (p99 {held}) to {rate:.0} requests/s (p99 {})", p99(broke))
        .map_err(&print)?;
    match verdict {
        Verdict::ClientSaturated | Verdict::Disturbed => {
            Err(Failure::Invalid { verdict: format!("{}; the server may hold more", broke.verdict()) })
        }
        Verdict::Holds | Verdict::Breaks | Verdict::Overloaded => Ok(()),
    }
}

/// What is said of a search without a result: how near it came, or that it could not measure.
fn nothing_holds(plan: &SearchPlan, steps: &[Step]) -> Failure {
    let valid: Vec<&Step> = steps.iter().filter(|step| step.repeat.valid).collect();
    if let (true, Some(step)) = (valid.is_empty(), steps.last()) {
        return Failure::Invalid { verdict: step.repeat.verdict() };
    }
    let metric = plan.slo.iter().map(|limit| limit.metric).find(|metric| metric.is_time());
    let values = metric.into_iter().flat_map(|metric| {
        valid.iter().filter_map(move |step| Some((metric, step.rate_per_second, metric.value(&step.repeat)?)))
    });
    let nearest = values.min_by(|(.., first), (.., second)| first.total_cmp(second));
    let nearest = nearest.map_or_else(String::new, |(metric, rate, value)| {
        format!("; the least {metric} was {}, at {rate:.0} requests/s", figure(metric, value))
    });
    Failure::LimitBroken(format!("the limits hold at no rate that was tried (see --from and --to){nearest}"))
}

fn p99(repeat: &Repeat) -> String {
    repeat.response_ns.as_ref().map_or_else(String::new, |times| time(times.p99 as f64))
}
