//! The clock of the benches that have one thread: the processor time of that thread, not the time of day, so that what
//! else runs on the machine takes its cache but not its turn on the CPU into the figures.
//!
//! Reading it is a system call, unlike reading the time of day; what an empty interval measures is taken off.

use std::time::Duration;

use nix::time::ClockId;

/// Measures intervals of the calling thread.
pub struct Stopwatch {
    empty: Duration,
}

impl Stopwatch {
    pub fn new() -> Stopwatch {
        let bare = Stopwatch { empty: Duration::ZERO };
        let empty = (0..1000).map(|_| bare.time(|| ()).1).min().expect("there are intervals");
        Stopwatch { empty }
    }

    /// What `work` returns, and the processor time that it took.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> (T, Duration) {
        let start = now();
        let outcome = work();
        let elapsed = now() - start;
        (outcome, elapsed.saturating_sub(self.empty))
    }
}

fn now() -> Duration {
    let time = ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("Linux has this clock");
    Duration::from(time)
}
