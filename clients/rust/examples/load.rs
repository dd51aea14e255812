//! How many requests a second callers of this client get: each sends its next one when it has the answer to the last one, and
//! holds every answer to what the sum model must say.
//!
//! Usage: `load [--blocking] [--threads N] ADDRESS CALLERS SECONDS [CONNECTIONS [ROWS]]`. Prints `REQUESTS_PER_SECOND
//! CPU_NS_PER_REQUEST`. Runs in one thread unless it is told otherwise; `--blocking` is one thread a caller.
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use disrust_client::{Builder, Client, Error, blocking};

const FEATURES: usize = 16;

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut words: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let is_blocking = words.first().is_some_and(|word| word == "--blocking");
    words.drain(..usize::from(is_blocking));
    let threads = match words.first() {
        Some(word) if word == "--threads" => words.drain(..2).next_back().ok_or("how many threads?")?.parse()?,
        _ => 1,
    };
    let [address, callers, seconds, rest @ ..] = &words[..] else { return Err("ADDRESS CALLERS SECONDS".into()) };
    let plan = Plan {
        callers: callers.parse()?,
        time: Duration::from_secs_f64(seconds.parse()?),
        rows: rest.get(1).map_or(Ok(1), |rows| rows.parse())?,
    };
    let connections = rest.first().map_or(Ok(1), |connections| connections.parse())?;
    let builder = Client::builder([address]).connections(connections).features(FEATURES);
    let begun_at = Instant::now();
    let cpu_ns_before = cpu_ns();
    let answered = if is_blocking { plan.block(builder)? } else { plan.serve(builder, threads)? };
    let (elapsed, cpu_ns) = (begun_at.elapsed(), cpu_ns() - cpu_ns_before);
    println!("{:.0} {:.1}", answered as f64 / elapsed.as_secs_f64(), cpu_ns as f64 / answered as f64);
    Ok(())
}

struct Plan {
    callers: usize,
    time: Duration,
    rows: usize,
}

impl Plan {
    /// Callers as tasks; how many requests were answered.
    fn serve(self, builder: Builder, threads: usize) -> Result<u64, Error> {
        let mut runtime = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = runtime.worker_threads(threads.max(1)).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = builder.connect().await?;
            let stop = Arc::new(AtomicBool::new(false));
            let callers: Vec<_> = (0..self.callers)
                .map(|caller| {
                    let (client, stop) = (client.clone(), Arc::clone(&stop));
                    tokio::spawn(async move {
                        let (mut rows, mut answered) = (vec![0.0; self.rows * FEATURES], 0);
                        while !stop.load(Ordering::Relaxed) {
                            let sum = number(&mut rows, caller as u64 + answered);
                            let scores = client.predict(&rows, FEATURES).await?;
                            assert!(scores.values.iter().all(|score| *score == sum), "the scores of these rows");
                            answered += 1;
                        }
                        Ok::<u64, Error>(answered)
                    })
                })
                .collect();
            tokio::time::sleep(self.time).await;
            stop.store(true, Ordering::Relaxed);
            let mut answered = 0;
            for caller in callers {
                answered += caller.await.expect("a caller does not panic")?;
            }
            Ok(answered)
        })
    }

    /// Callers as threads that wait.
    fn block(self, builder: Builder) -> Result<u64, Error> {
        let client = blocking::Client::connect_with(builder)?;
        let begun_at = Instant::now();
        let call = |caller: usize, client: blocking::Client| {
            let (mut rows, mut answered) = (vec![0.0; self.rows * FEATURES], 0);
            while begun_at.elapsed() < self.time {
                let sum = number(&mut rows, caller as u64 + answered);
                let scores = client.predict(&rows, FEATURES)?;
                assert!(scores.values.iter().all(|score| *score == sum), "the scores of these rows");
                answered += 1;
            }
            Ok(answered)
        };
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..self.callers)
                .map(|caller| {
                    let client = client.clone();
                    scope.spawn(move || call(caller, client))
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().expect("a caller does not panic")).sum()
        })
    }
}

/// Makes the rows those of a number, and says what their scores must be.
fn number(rows: &mut [f32], number: u64) -> f32 {
    let number = (number % 1_000_000) as f32;
    rows.iter_mut().step_by(FEATURES).for_each(|first| *first = number);
    number
}

/// CPU time of this process until now.
fn cpu_ns() -> u64 {
    const NS_PER_TICK: u64 = 10_000_000;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc(5)");
    let behind_name = stat.rsplit_once(')').expect("proc(5)").1;
    behind_name.split(' ').skip(12).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * NS_PER_TICK
}
