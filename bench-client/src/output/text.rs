//! The table that `run` prints, and how figures look in every other command.
//!
//! Invariants: every figure carries its unit; a time is told apart as response time or service time; no closed-loop time
//! goes without its warning.

use std::io::{self, Write};

use crate::limit::Metric;
use crate::load::Reconnects;
use crate::server_figures::{SERVER_COUNTS, ServerFigures};
use crate::summary::{Repeat, Report, Spread, TimesNs, others_in_words};

/// What open-loop times are.
pub const CLAIM_OPEN: &str = "open loop: latency from the intended send time";

/// What closed-loop times are not.
pub const CLAIM_CLOSED: &str = "closed loop: throughput, not a latency claim";

/// The figures that repeats are summed up by.
const SPREAD: [&str; 9] = [
    "rate",
    "response.p50",
    "response.p99",
    "response.p99.9",
    "response.max",
    "service.p50",
    "service.p99",
    "server-cpu",
    "client-cpu",
];

/// Prints what is run, and where.
pub fn print_head(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let plan = &report.plan;
    writeln!(out, "run: {}", report.claim)?;
    match (plan.rate_per_second, &plan.arrival) {
        (Some(rate), Some(arrival)) => write!(out, "plan: {rate:.0} requests/s ({arrival})")?,
        _ => write!(out, "plan: window {}", plan.window.unwrap_or(0))?,
    }
    writeln!(
        out,
        ", {} connections, {} threads, vectors {}, features {}, {} s after {} s of warm-up, seed {}",
        plan.connections,
        plan.threads,
        plan.vectors,
        plan.features,
        plan.duration_seconds,
        plan.warmup_seconds,
        plan.seed
    )?;
    writeln!(out, "environment: {}", report.environment.line())
}

/// Prints one result.
pub fn print_repeat(repeat: &Repeat, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<26} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "p50", "p90", "p99", "p99.9", "p99.99", "max", "mean"
    )?;
    let is_open = repeat.offered_per_second.is_some();
    print_times("response time (intended)", repeat.response_ns.as_ref(), out)?;
    let service = if is_open { "service time (sent)" } else { "service time (closed loop)" };
    print_times(service, repeat.service_ns.as_ref(), out)?;
    print_times("schedule lag", repeat.schedule_lag_ns.as_ref(), out)?;
    print_times("connecting", repeat.connect_ns.as_ref(), out)?;
    let offered = repeat.offered_per_second.map_or_else(String::new, |rate| format!("offered {rate:.0}/s, "));
    let turn = repeat.requests_per_turn.map_or_else(String::new, |count| format!(", {count:.1} answers a turn"));
    writeln!(
        out,
        "throughput: {offered}achieved {:.0}/s ({:.0} vectors/s){turn}; {} answers, every one verified",
        repeat.achieved_per_second, repeat.vectors_per_second, repeat.answered
    )?;
    writeln!(
        out,
        "losses: {} unanswered, {} never sent, {} held back by the server",
        repeat.lost, repeat.unsent, repeat.held_back
    )?;
    if repeat.errors.count() > 0 {
        let (shed, failed, share) = (repeat.errors.shed, repeat.errors.model_failed, repeat.error_share * 100.0);
        writeln!(
            out,
            "error answers: {shed} shed (error 3), {failed} the model failed on (error 2): {share:.2} % of the requests, \
             in none of the times and rates above"
        )?;
    }
    if let Some(reconnects) = &repeat.reconnects {
        print_reconnects(reconnects, out)?;
    }
    if let Some(why) = &repeat.cut_off {
        writeln!(out, "cut off before its time: {why}")?;
    }
    writeln!(
        out,
        "client CPU: {:.3} us a request, {:.0} % of a CPU (polling included), threads busy {:.0} % of the time",
        repeat.client_cpu_ns_per_request / 1e3,
        repeat.client_cpu_share * 100.0,
        repeat.client_busy_share * 100.0
    )?;
    print_server(repeat, out)?;
    if let Some(figures) = &repeat.server_figures {
        print_server_figures(figures, out)?;
    }
    if repeat.slow_answers > 0 {
        writeln!(out, "slow readers: {} answers read", repeat.slow_answers)?;
    }
    if let Some(share) = repeat.others_cpu_share {
        writeln!(out, "others: {:.0} % of this machine's CPUs; {}", share * 100.0, others_in_words([share]))?;
    }
    writeln!(out, "verdict: {}", repeat.verdict())
}

fn print_reconnects(reconnects: &Reconnects, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "reconnects: {} connections closed by the server, {} requests refused (error 4), {} lost with a connection, \
         {} attempts failed, {} the longest without a connection",
        reconnects.closed,
        reconnects.refused,
        reconnects.lost,
        reconnects.attempts_failed,
        time(reconnects.missing_ns_max as f64)
    )
}

fn print_times(name: &str, times: Option<&TimesNs>, out: &mut impl Write) -> io::Result<()> {
    let Some(times) = times else { return Ok(()) };
    write!(out, "{name:<26}")?;
    for time_ns in [times.p50, times.p90, times.p99, times.p99_9, times.p99_99, times.max] {
        write!(out, " {:>9}", time(time_ns as f64))?;
    }
    writeln!(out, " {:>9}", time(times.mean))
}

fn print_server(repeat: &Repeat, out: &mut impl Write) -> io::Result<()> {
    let (Some(cpu_ns), Some(share)) = (repeat.server_cpu_ns_per_request, repeat.server_cpu_share) else {
        return Ok(());
    };
    write!(out, "server CPU: {:.3} us a request, {:.0} % of a CPU", cpu_ns / 1e3, share * 100.0)?;
    for (index, thread) in repeat.server_threads.iter().enumerate() {
        let separator = if index == 0 { " (" } else { ", " };
        write!(out, "{separator}{} {:.3} us", thread.name, thread.cpu_ns_per_request / 1e3)?;
    }
    writeln!(out, "{}", if repeat.server_threads.is_empty() { "" } else { ")" })
}

fn print_server_figures(figures: &ServerFigures, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "the server's own figures, {} intervals, {:.1} s:", figures.intervals, figures.seconds)?;
    for times in &figures.stages {
        let [p50, p99, max] = [times.p50_ns, times.p99_ns, times.p99_ns_max].map(time);
        writeln!(out, "  {:<24} {p50:>9} p50 {p99:>9} p99 {max:>9} worst p99 of an interval", times.stage)?;
    }
    let counts = SERVER_COUNTS.iter().filter_map(|name| Some(format!("{name} {}", figures.counts.get(*name)?)));
    writeln!(out, "  {}", counts.collect::<Vec<_>>().join(", "))
}

/// Prints minimum, median and maximum of each figure.
pub fn print_spread(repeats: &[Repeat], out: &mut impl Write) -> io::Result<()> {
    let title = format!("{} repeats", repeats.len());
    writeln!(out, "{title:<26} {:>12} {:>12} {:>12}", "min", "median", "max")?;
    for name in SPREAD {
        let metric: Metric = name.parse().expect("a metric of ours");
        let Some(spread) = Spread::of(repeats.iter().filter_map(|repeat| metric.value(repeat))) else { continue };
        let [min, median, max] = [spread.min, spread.median, spread.max].map(|value| figure(metric, value));
        writeln!(out, "{name:<26} {min:>12} {median:>12} {max:>12}")?;
    }
    Ok(())
}

/// A figure with its unit.
pub fn figure(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Rate => format!("{value:.0}/s"),
        Metric::Lost | Metric::Shed => format!("{value:.0}"),
        Metric::Time(..) | Metric::ServerCpu | Metric::ClientCpu => time(value),
    }
}

/// A time with the unit that suits its size.
pub fn time(ns: f64) -> String {
    if ns < 10e6 {
        format!("{:.1}us", ns / 1e3)
    } else if ns < 10e9 {
        format!("{:.1}ms", ns / 1e6)
    } else {
        format!("{:.1}s", ns / 1e9)
    }
}
