//! `bench`: a quick look at throughput: the closed loop of the [`load`](crate::load) engine, by a number of requests.
//!
//! It is not a latency benchmark: a closed loop sends less when the server is slow. `run --closed` is the same loop, by
//! time, with everything that is written and judged there. Before the measured part every connection has one request
//! answered, so that accepting connections is not measured.
//!
//! Invariants: one line a subject, so that a reader and a script both find it; every figure carries its unit, and a round
//! trip never goes without its warning.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::time::Duration;

use crate::args::BenchPlan;
use crate::connect::Target;
use crate::failure::Failure;
use crate::load::{Measurement, measure};
use crate::processor_time::ThreadTime;

/// Runs `plan` against `target`.
pub fn run(target: &Target, plan: &BenchPlan, out: &mut impl Write) -> Result<(), Failure> {
    let mut measurement = measure(target, &plan.load(), &mut |_| {})?;
    if let Some(first) = measurement.tally.first_lost.take() {
        return Err(Failure::Lost { lost: measurement.tally.lost, first: Box::new(first) });
    }
    print(target, plan, &measurement, out).map_err(Failure::local("print"))
}

fn print(target: &Target, plan: &BenchPlan, measurement: &Measurement, out: &mut impl Write) -> io::Result<()> {
    let Measurement { tally, client, window, .. } = measurement;
    let requests_per_second = tally.answered as f64 / window.as_secs_f64();
    writeln!(
        out,
        "bench: {} connections, window {}, vectors a request {}, features {}, seed {}; every answer verified",
        plan.connections, plan.window, plan.vectors, target.features, target.seed
    )?;
    writeln!(
        out,
        "throughput: {requests_per_second:.0} requests/s ({} requests in {:.3} s, {:.0} vectors/s)",
        tally.answered,
        window.as_secs_f64(),
        requests_per_second * f64::from(plan.vectors)
    )?;
    writeln!(
        out,
        "answer-turns: {} ({:.1} requests each)",
        tally.answer_turns,
        tally.answered as f64 / tally.answer_turns as f64
    )?;
    print_round_trips(measurement, out)?;
    writeln!(
        out,
        "client CPU: {:.3} us a request ({:.3} user, {:.3} system), {:.0} % of a CPU",
        micros_each(client.user + client.system, tally.answered),
        micros_each(client.user, tally.answered),
        micros_each(client.system, tally.answered),
        percent(client.user + client.system, *window)
    )?;
    measurement.server.as_ref().map_or(Ok(()), |threads| print_server(measurement, threads, out))
}

fn print_round_trips(measurement: &Measurement, out: &mut impl Write) -> io::Result<()> {
    let micros = |ns: u64| ns as f64 / 1e3;
    let at = |quantile| micros(measurement.service_ns.value_at_quantile(quantile));
    writeln!(
        out,
        "round trip: p50 {:.1} us, p99 {:.1} us, max {:.1} us (closed loop: throughput, not a latency claim)",
        at(0.50),
        at(0.99),
        micros(measurement.service_ns.max())
    )
}

fn print_server(measurement: &Measurement, threads: &[ThreadTime], out: &mut impl Write) -> io::Result<()> {
    let tally = &measurement.tally;
    let total = threads.iter().map(|thread| thread.time).sum();
    writeln!(
        out,
        "server CPU: {:.3} us a request, {:.3} us an answer-turn, {:.0} % of a CPU",
        micros_each(total, tally.answered),
        micros_each(total, tally.answer_turns),
        percent(total, measurement.window)
    )?;
    for thread in threads.iter().filter(|thread| !thread.time.is_zero()) {
        let micros = micros_each(thread.time, tally.answered);
        writeln!(out, "  {} ({}): {micros:.3} us a request", thread.name, thread.id)?;
    }
    Ok(())
}

fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

fn percent(time: Duration, elapsed: Duration) -> f64 {
    100.0 * time.as_secs_f64() / elapsed.as_secs_f64()
}
