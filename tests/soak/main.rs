//! A soak: one server, everything that peers can do to it, mixed by a seed, for as many minutes as one likes, beside
//! clients that mind their own business and check every answer.
//!
//! Run by `scripts/soak.sh MINUTES [SEED]`, which builds the server with its metrics; no part of `cargo test`. Each second
//! it samples memory, descriptors, connections, the server's counts and the bystanders' latency, and writes them down. It
//! fails on a wrong answer, on a request that is neither answered nor discarded nor in flight, on a gauge that does not
//! come back to rest, and on a [trend].

mod bystanders;
#[path = "../common/mod.rs"]
mod common;
mod mischief;
mod samples;
mod trend;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use disrust_protocol::FEATURE_DIM;
use nix::sys::signal::Signal;

use bystanders::Bystanders;
use common::{ServerProcess, binary, wait_patiently_until};
use mischief::Mischief;
use samples::{Counts, Sample, Sampler};

/// Threads that misbehave, each in one way at a time.
const MISCHIEF_THREADS: u64 = 3;

/// Samples before these are not fitted: pools, stacks and the kernel's caches fill.
const WARM_UP: Duration = Duration::from_secs(30);

/// How long the server may take to come to rest when all have left: its timeouts are seconds.
const REST_PATIENCE: Duration = Duration::from_secs(30);

/// The server that is soaked: short deadlines, so that they pass often.
const FLAGS: [&str; 14] = [
    "--port",
    "0",
    "--pin",
    "none",
    "--io-threads",
    "2",
    "--request-timeout",
    "2s",
    "--idle-timeout",
    "5s",
    "--max-connections",
    "600",
    "--metrics-interval",
    "1s",
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let minutes = arguments.next().and_then(|minutes| minutes.parse::<f64>().ok()).filter(|minutes| *minutes > 0.0);
    let Some(minutes) = minutes else {
        eprintln!("usage: soak MINUTES [SEED [FOLDER]]");
        return ExitCode::from(2);
    };
    let seed = arguments.next().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..1_000_000));
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    println!("soak: {minutes} minutes, seed {seed}, files in {}", folder.display());
    let problems = soak(Duration::from_secs_f64(60.0 * minutes), seed, &folder);
    for problem in &problems {
        println!("soak: FAILED: {problem}");
    }
    if problems.is_empty() {
        println!("soak: passed");
        return ExitCode::SUCCESS;
    }
    println!("soak: again with scripts/soak.sh {minutes} {seed}");
    ExitCode::FAILURE
}

/// Runs the soak; returns what did not hold.
fn soak(duration: Duration, seed: u64, folder: &std::path::Path) -> Vec<String> {
    let printed = folder.join("soak-metrics.log");
    let stdout = File::create(&printed).expect("the folder can be written to");
    let server = ServerProcess::launch(binary().args(FLAGS).stdout(stdout));
    let mut sampler = Sampler::new(server.pid(), printed);
    // What a server costs that has served: every buffer touched once.
    Bystanders::start(server.address(), FEATURE_DIM, seed).finish();
    let at_rest = sampler.sample(&[]);

    let bystanders = Bystanders::start(server.address(), FEATURE_DIM, seed);
    let mischief: Vec<_> =
        (0..MISCHIEF_THREADS).map(|thread| Mischief::start(&server, seed.wrapping_add(thread))).collect();
    let mut csv = File::create(folder.join("soak.csv")).expect("the folder can be written to");
    writeln!(csv, "{}", Sample::HEADER).expect("it can be written");
    let (begun_at, mut samples, mut problems) = (Instant::now(), Vec::new(), Vec::new());
    while begun_at.elapsed() < duration && problems.is_empty() {
        std::thread::sleep(Duration::from_secs(1));
        let sample = sampler.sample(&bystanders.take_latencies());
        writeln!(csv, "{}", sample.line(begun_at.elapsed())).expect("it can be written");
        problems.extend(sample.counts.problem());
        problems.extend(mischief.iter().filter(|one| one.has_ended()).map(|_| "a thread of the soak ended".to_owned()));
        if samples.len() % 60 == 59 {
            println!("soak: {:.0} s: {}", begun_at.elapsed().as_secs_f64(), sample.line(begun_at.elapsed()));
        }
        samples.push(sample);
    }

    let done: Vec<_> = mischief.into_iter().map(Mischief::finish).collect();
    mischief::print_counts(&done);
    let answered = bystanders.finish();
    println!("soak: the bystanders got {answered} answers, every one right and in order");
    problems.extend(rest(&mut sampler, &at_rest));
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    let counts = sampler.counts();
    problems.extend(end(status, &log, counts));
    let settled = samples.get(usize::try_from(WARM_UP.as_secs()).unwrap_or(0)..).unwrap_or_default();
    problems.extend(trend::trends(settled));
    problems
}

/// Two gauges that must come back to where they were before anybody misbehaved.
fn rest(sampler: &mut Sampler, before: &Sample) -> Option<String> {
    // Of each thread: its receive buffers, which become resident as they are first used, and the blocks that it keeps.
    const MEMORY_KEPT_MAX: u64 = 2 * (5 + 1) * 1024 * 1024;
    let is_at_rest = |now: &Sample| {
        now.descriptors <= before.descriptors && now.resident_bytes <= before.resident_bytes + MEMORY_KEPT_MAX
    };
    let mut last = sampler.sample(&[]);
    let begun_at = Instant::now();
    while !is_at_rest(&last) && begun_at.elapsed() < REST_PATIENCE {
        std::thread::sleep(Duration::from_millis(500));
        last = sampler.sample(&[]);
    }
    let kibibytes = |sample: &Sample| sample.resident_bytes / 1024;
    println!(
        "soak: at rest {} descriptors and {} KiB, before {} and {}",
        last.descriptors,
        kibibytes(&last),
        before.descriptors,
        kibibytes(before)
    );
    (!is_at_rest(&last)).then(|| "descriptors or memory did not come back to rest".to_owned())
}

/// What the server must say at its end.
fn end(status: Option<i32>, log: &str, counts: Counts) -> Vec<String> {
    let mut problems = Vec::new();
    if status != Some(0) {
        problems.push(format!("exit status {status:?}; its last words: {}", log.lines().last().unwrap_or_default()));
    }
    println!("soak: {}", log.lines().last().unwrap_or_default());
    println!("soak: {counts}");
    if counts.published != counts.sent + counts.discarded {
        problems.push(format!("requests are lost: {counts}"));
    }
    problems
}

/// Waits for something that a fault needs, with a bound that no machine is too slow for.
fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_patiently_until(Duration::from_secs(60), what, holds);
}
