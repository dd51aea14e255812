//! Many runs, on all CPUs, and what came of each.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use super::checker::REACHED;
use super::model::PANIC_MESSAGE;
use super::world::{self, Summary};

/// How often a long run says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Failing seeds that are told one by one.
const FAILURES_TOLD_MAX: usize = 5;

/// What came of a run.
pub enum Outcome {
    Passed(Box<Summary>),
    Failed(String),
}

thread_local! {
    /// The message of this thread's last panic that was not the model's.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Plays a seed; a panic is a failure, with its message and place.
pub fn play(seed: u64) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let formatted = payload.downcast_ref::<String>().map(String::as_str);
            let message = formatted.or(payload.downcast_ref::<&str>().copied()).unwrap_or_default();
            if message == PANIC_MESSAGE {
                return;
            }
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            if place.starts_with("tests/simulation/main.rs") {
                usual(panic);
            } else {
                PANIC.with_borrow_mut(|told| *told = format!("{message} ({place})"));
            }
        }));
    });
    match catch_unwind(AssertUnwindSafe(|| world::run(seed))) {
        Ok(summary) => Outcome::Passed(Box::new(summary)),
        Err(_panic) => Outcome::Failed(PANIC.take()),
    }
}

/// An environment variable that holds a number.
pub fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// What came of many runs.
pub struct Runs {
    /// The seeds that failed, ascending.
    pub failures: Vec<u64>,
    /// What they came to, together.
    pub reached: Vec<(&'static str, u64)>,
}

/// Plays `count` seeds from `first` on.
pub fn play_many(first: u64, count: u64) -> Runs {
    let jobs = variable("SIMULATION_JOBS").map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        |jobs| usize::try_from(jobs).unwrap_or(1),
    );
    let (next, began_at) = (AtomicU64::new(0), Instant::now());
    let progress = Mutex::new(Progress::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let seed = first.wrapping_add(index);
                    let outcome = play(seed);
                    progress.lock().expect("no run panics outside `play`").add(seed, outcome, began_at, count);
                }
            });
        }
    });
    let mut progress = progress.into_inner().expect("no run panics outside `play`");
    progress.tell(began_at.elapsed(), count);
    progress.failures.sort_unstable();
    Runs { failures: progress.failures, reached: REACHED.into_iter().zip(progress.reached).collect() }
}

#[derive(Default)]
struct Progress {
    runs: u64,
    requests: u64,
    steps: u64,
    simulated_ns: u64,
    reached: [u64; REACHED.len()],
    failures: Vec<u64>,
    told: Duration,
}

impl Progress {
    fn add(&mut self, seed: u64, outcome: Outcome, began_at: Instant, count: u64) {
        self.runs += 1;
        match outcome {
            Outcome::Passed(summary) => {
                self.requests += summary.requests;
                self.steps += summary.steps;
                self.simulated_ns += summary.simulated_ns;
                self.reached.iter_mut().zip(summary.reached).for_each(|(sum, count)| *sum += count);
            }
            Outcome::Failed(why) => {
                if self.failures.len() < FAILURES_TOLD_MAX {
                    println!("seed {seed} fails: {why}\n  replay it: scripts/simulate.sh --replay {seed}");
                }
                self.failures.push(seed);
            }
        }
        let elapsed = began_at.elapsed();
        if elapsed - self.told > PROGRESS_INTERVAL {
            self.tell(elapsed, count);
        }
    }

    fn tell(&mut self, elapsed: Duration, count: u64) {
        self.told = elapsed;
        let (runs, failures) = (self.runs, self.failures.len());
        println!(
            "{runs} of {count} seeds, {failures} failed, {:.0} seeds/s; a run: {} requests, {} steps, {:.1} simulated seconds",
            runs as f64 / elapsed.as_secs_f64(),
            self.requests / runs.max(1),
            self.steps / runs.max(1),
            self.simulated_ns as f64 / 1e9 / runs.max(1) as f64
        );
    }
}
