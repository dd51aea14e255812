//! `run`: measures once or several times, prints each result, writes the files, and judges.
//!
//! Invariants: the table is printed even if the run fails by a limit, by losses, by error answers, by a late client, or because
//! the server ended a connection; a wrong answer leaves nothing to print. The files hold all repeats; the histograms' files hold
//! their sum. A repeat that is not valid is taken again as long as [`retakes`] lasts; it stays in the JSON, and what it lost
//! counts as lost.
#![forbid(unsafe_code)]

use std::io::Write;

use crate::args::RunPlan;
use crate::connect::Target;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::load::error_answers::Unscored;
use crate::load::{Measurement, measure_so_far};
use crate::output::progress::Progress;
use crate::output::{self, text};
use crate::processor_time::OthersWatch;
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
        environment: Environment::here(plan.server_version.as_deref(), clients.server_pid),
        plan: Plan::of(&load, target.features, target.seed),
        repeats: Vec::new(),
        retaken: Vec::new(),
    };
    text::print_head(&report, out).map_err(Failure::local("print"))?;
    let mut measurements: Vec<Measurement> = Vec::new();
    let (mut first_lost, mut first_errors, mut cut_off) = (None, [None, None], None);
    let mut metrics = plan.server_metrics.as_deref().map(MetricsFile::open).transpose()?;
    while report.repeats.len() < plan.repeat as usize {
        let progress = Progress::new(&load, report.repeats.len() as u32, plan.repeat);
        let others = clients.server_pid.map(OthersWatch::begin);
        let mut measurement = measure_so_far(target, &load, &mut |interval| progress.show(interval))?;
        progress.clear();
        let mut repeat = Repeat::of(&load, &measurement, clients.lag_limit);
        repeat.others_cpu_share = others.and_then(|others| others.share());
        if let Some(metrics) = &mut metrics {
            repeat.server_figures = metrics.read(load.warmup)?;
            if repeat.server_figures.is_none() {
                let problem = "no interval lies inside the measured time; give the server a shorter --metrics-interval";
                writeln!(out, "the server's own figures: {problem}").map_err(Failure::local("print"))?;
            }
        }
        text::print_repeat(&repeat, out).map_err(Failure::local("print"))?;
        first_lost = first_lost.or(measurement.tally.first_lost.take());
        for (first, found) in first_errors.iter_mut().zip(&mut measurement.tally.first_errors) {
            *first = first.take().or(found.take());
        }
        cut_off = measurement.cut_off.take();
        if !repeat.valid && cut_off.is_none() && report.retaken.len() < retakes(plan.repeat) {
            writeln!(out, "this repeat is taken again").map_err(Failure::local("print"))?;
            report.retaken.push(repeat);
            continue;
        }
        report.repeats.push(repeat);
        measurements.push(measurement);
        if cut_off.is_some() {
            break;
        }
    }
    if plan.repeat > 1 {
        text::print_spread(&report.repeats, out).map_err(Failure::local("print"))?;
    }
    output::write_files(&plan.output, &report, &measurements)?;
    cut_off.map_or_else(|| judge(plan, &report, first_lost, first_errors), Err)
}

/// How many repeats that are not valid are taken again, of all of a run: as many as it has, so that it takes at most
/// twice as long. More: a client that is too slow is told late. Fewer: one busy minute of a machine spoils a run. A run
/// that is not repeated says at once what it found.
fn retakes(repeats: u32) -> usize {
    if repeats > 1 { repeats as usize } else { 0 }
}

/// What a script must not miss, the worst first.
fn judge(
    plan: &RunPlan,
    report: &Report,
    first_lost: Option<Failure>,
    first_errors: [Option<Failure>; Unscored::ALL.len()],
) -> Result<(), Failure> {
    let Report { repeats, retaken, .. } = report;
    if let Some(invalid) = repeats.iter().find(|repeat| !repeat.valid) {
        return Err(Failure::Invalid { verdict: invalid.verdict() });
    }
    if let Some(first) = first_lost {
        let lost = repeats.iter().chain(retaken).map(|repeat| repeat.lost).sum();
        return Err(Failure::Lost { lost, first: Box::new(first) });
    }
    for (kind, first) in Unscored::ALL.into_iter().zip(first_errors) {
        if let (Some(first), false) = (first, plan.accept_errors.contains(&kind)) {
            let count = repeats.iter().chain(retaken).map(|repeat| repeat.errors.of(kind)).sum();
            return Err(Failure::ErrorAnswers { count, kind: kind.name(), first: Box::new(first) });
        }
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
