//! What `bench` prints: one line a subject, so that a reader and a script both find it.
//!
//! Invariants: every figure carries its unit, and a round trip never goes without its warning.

use std::io::{self, Write};
use std::time::Duration;

use crate::args::{Plan, Target};
use crate::closed_loop::Tally;
use crate::processor_time::{OwnTime, ThreadTime};

/// Everything that was measured.
pub struct Measurement {
    /// What the loop counted.
    pub tally: Tally,
    /// CPU time of this process.
    pub client: OwnTime,
    /// CPU time of the server's threads, if they are on this machine and were asked for.
    pub server: Option<Vec<ThreadTime>>,
}

/// Prints `measurement`, which was taken as `plan` says.
pub fn print(target: &Target, plan: &Plan, measurement: &Measurement, out: &mut impl Write) -> io::Result<()> {
    let Measurement { tally, client, server } = measurement;
    let seconds = tally.elapsed.as_secs_f64();
    let requests_per_second = tally.answers as f64 / seconds;
    let (fewest, most) = tally.answers_per_connection;
    writeln!(
        out,
        "bench: {} connections, window {}, vectors a request {}, features {}, seed {}; every answer verified",
        plan.connections, plan.window, plan.vectors, target.features, target.seed
    )?;
    writeln!(
        out,
        "throughput: {requests_per_second:.0} requests/s ({} requests in {seconds:.3} s, {:.0} vectors/s)",
        tally.answers,
        requests_per_second * f64::from(plan.vectors)
    )?;
    writeln!(
        out,
        "answer-turns: {} ({:.1} requests each); {fewest} to {most} requests a connection",
        tally.answer_turns,
        tally.answers as f64 / tally.answer_turns as f64
    )?;
    print_round_trips(tally, out)?;
    writeln!(
        out,
        "client CPU: {:.3} us a request ({:.3} user, {:.3} system), {:.0} % of a CPU",
        micros_each(client.user + client.system, tally.answers),
        micros_each(client.user, tally.answers),
        micros_each(client.system, tally.answers),
        percent(client.user + client.system, tally.elapsed)
    )?;
    server.as_ref().map_or(Ok(()), |threads| print_server(tally, threads, out))
}

fn print_round_trips(tally: &Tally, out: &mut impl Write) -> io::Result<()> {
    let micros = |ns: u64| ns as f64 / 1e3;
    let at = |quantile| micros(tally.round_trips_ns.value_at_quantile(quantile));
    writeln!(
        out,
        "round trip: p50 {:.1} us, p99 {:.1} us, max {:.1} us (closed loop: throughput, not a latency claim)",
        at(0.50),
        at(0.99),
        micros(tally.round_trips_ns.max())
    )
}

fn print_server(tally: &Tally, threads: &[ThreadTime], out: &mut impl Write) -> io::Result<()> {
    let total = threads.iter().map(|thread| thread.time).sum();
    writeln!(
        out,
        "server CPU: {:.3} us a request, {:.3} us an answer-turn, {:.0} % of a CPU",
        micros_each(total, tally.answers),
        micros_each(total, tally.answer_turns),
        percent(total, tally.elapsed)
    )?;
    for thread in threads.iter().filter(|thread| !thread.time.is_zero()) {
        writeln!(
            out,
            "  {} ({}): {:.3} us a request",
            thread.name,
            thread.id,
            micros_each(thread.time, tally.answers)
        )?;
    }
    Ok(())
}

fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

fn percent(time: Duration, elapsed: Duration) -> f64 {
    100.0 * time.as_secs_f64() / elapsed.as_secs_f64()
}
