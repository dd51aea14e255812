//! `run`: measures once or several times, prints each result, writes the files, and judges.
//!
//! Invariants: the table is printed even if the run fails by a limit, by losses or by a late client; a wrong answer
//! leaves nothing to print. The files hold all repeats; the histograms' files hold their sum.
#![forbid(unsafe_code)]

use std::io::Write;

use crate::args::RunPlan;
use crate::connect::Target;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::load::{Measurement, measure};
use crate::output::progress::Progress;
use crate::output::{self, text};
use crate::server_metrics::MetricsFile;
use crate::summary::{Plan, Repeat, Report, SCHEMA, SCHEMA_VERSION, Spread};

/// Runs `plan` against `target`.
pub fn run(target: &Target, plan: &RunPlan, out: &mut impl Write) -> Result<(), Failure> {
    let load = plan.load(target.seed);
    let clients = &plan.clients;
    let claim = if plan.closed { text::CLAIM_CLOSED } else { text::CLAIM_OPEN };
    let mut report = Report {
        schema: SCHEMA.to_owned(),
        schema_version: SCHEMA_VERSION,
        claim: claim.to_owned(),
        environment: Environment::here(clients.server_version.as_deref(), clients.server_pid),
        plan: Plan::of(&load, target.features, target.seed),
        repeats: Vec::new(),
    };
    text::print_head(&report, out).map_err(Failure::local("print"))?;
    let mut measurements: Vec<Measurement> = Vec::new();
    let mut first_lost = None;
    let mut metrics = plan.server_metrics.as_deref().map(MetricsFile::open).transpose()?;
    for index in 0..plan.repeat {
        let progress = Progress::new(&load, index, plan.repeat);
        let mut measurement = measure(target, &load, &mut |interval| progress.show(interval))?;
        progress.clear();
        let mut repeat = Repeat::of(&load, &measurement, clients.lag_limit);
        if let Some(metrics) = &mut metrics {
            repeat.server_figures = metrics.read(load.warmup)?;
            if repeat.server_figures.is_none() {
                let problem = "no interval lies inside the measured time; give the server a shorter --metrics-interval";
                writeln!(out, "the server's own figures: {problem}").map_err(Failure::local("print"))?;
            }
        }
        text::print_repeat(&repeat, out).map_err(Failure::local("print"))?;
        first_lost = first_lost.or(measurement.tally.first_lost.take());
        report.repeats.push(repeat);
        measurements.push(measurement);
    }
    if plan.repeat > 1 {
        text::print_spread(&report.repeats, out).map_err(Failure::local("print"))?;
    }
    output::write_files(&plan.output, &report, &measurements)?;
    judge(plan, &report.repeats, first_lost)
}

/// What a script must not miss, the worst first.
fn judge(plan: &RunPlan, repeats: &[Repeat], first_lost: Option<Failure>) -> Result<(), Failure> {
    if let Some(invalid) = repeats.iter().find(|repeat| !repeat.valid) {
        return Err(Failure::Invalid { verdict: invalid.verdict() });
    }
    if let Some(first) = first_lost {
        return Err(Failure::Lost { lost: repeats.iter().map(|repeat| repeat.lost).sum(), first: Box::new(first) });
    }
    for limit in &plan.fail_if {
        let Some(median) = Spread::of(repeats.iter().filter_map(|repeat| limit.metric.value(repeat))) else {
            return Err(Failure::LimitBroken(format!("--fail-if {limit}: this run has no such figure")));
        };
        if limit.holds_for(median.median) {
            let is = text::figure(limit.metric, median.median);
            return Err(Failure::LimitBroken(format!("--fail-if {limit}: it is {is}")));
        }
    }
    Ok(())
}
