//! What a thread does when it has nothing to do: spin, yield, or sleep.
//!
//! Only the decision; [`crate::server::threads`] carries it out, and [`super::wake`] sees that no work is missed.
//!
//! A thread with a CPU of its own spins for a moment, because a wake across cores costs far more than the wait between
//! two requests under load, and then sleeps, so that an idle server costs nothing. A thread that shares its CPU sleeps
//! at once: spinning would keep the very thread from running that it waits for. Yielding is a trap beside any other
//! load, since the scheduler gives the CPU away for a whole time slice; so one slow yield bans yielding for a while.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

/// How long `auto` spins before it sleeps, on a CPU of its own. Longer: more CPU while idle. Shorter: more wakes.
pub const SPIN_BEFORE_PARK: Duration = Duration::from_micros(30);

/// A yield that takes longer than this shows that somebody else wants the CPU.
const YIELD_MAX: Duration = Duration::from_micros(500);

/// After such a yield the thread sleeps instead for this long.
const YIELD_BAN: Duration = Duration::from_millis(200);

/// How a thread waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStrategy {
    /// Never sleeps. Fastest on a CPU of its own, ruinous on a shared one.
    Spin,
    /// Yields the CPU between looks, and sleeps instead for a while after a slow yield.
    Yield,
    /// Spins for [`SPIN_BEFORE_PARK`], then sleeps.
    SpinThenPark,
    /// Sleeps at once.
    Park,
}

impl fmt::Display for WaitStrategy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitStrategy::Spin => formatter.write_str("spin"),
            WaitStrategy::Yield => formatter.write_str("yield"),
            WaitStrategy::SpinThenPark => write!(formatter, "spin {} µs, then park", SPIN_BEFORE_PARK.as_micros()),
            WaitStrategy::Park => formatter.write_str("park"),
        }
    }
}

/// What to do before the next look for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Look again at once.
    Poll,
    /// Give the CPU away, look again, and report with [`Waiter::yielded`] how long that took.
    Yield,
    /// Sleep until woken.
    Sleep,
}

/// One thread's waiting.
#[derive(Debug)]
pub struct Waiter {
    strategy: WaitStrategy,
    /// When the thread last had work.
    busy_at_ns: u64,
    /// Until when it does not yield.
    yield_banned_until_ns: u64,
}

impl Waiter {
    /// A thread that waits by `strategy`.
    pub fn new(strategy: WaitStrategy) -> Waiter {
        Waiter { strategy, busy_at_ns: 0, yield_banned_until_ns: 0 }
    }

    /// Whether the decision depends on the time, so that a caller can save itself the clock.
    pub fn needs_clock(&self) -> bool {
        matches!(self.strategy, WaitStrategy::SpinThenPark | WaitStrategy::Yield)
    }

    /// What to do after a look for work that found some (`worked`) or none.
    pub fn pause(&mut self, worked: bool, now_ns: u64) -> Pause {
        if worked {
            self.busy_at_ns = now_ns;
        }
        match self.strategy {
            WaitStrategy::Spin => Pause::Poll,
            WaitStrategy::Park => Pause::Sleep,
            WaitStrategy::SpinThenPark if now_ns.saturating_sub(self.busy_at_ns) < nanoseconds(SPIN_BEFORE_PARK) => {
                Pause::Poll
            }
            WaitStrategy::SpinThenPark => Pause::Sleep,
            WaitStrategy::Yield if worked => Pause::Poll,
            WaitStrategy::Yield if now_ns < self.yield_banned_until_ns => Pause::Sleep,
            WaitStrategy::Yield => Pause::Yield,
        }
    }

    /// A yield took from `before_ns` to `after_ns`.
    pub fn yielded(&mut self, before_ns: u64, after_ns: u64) {
        if after_ns.saturating_sub(before_ns) > nanoseconds(YIELD_MAX) {
            self.yield_banned_until_ns = after_ns + nanoseconds(YIELD_BAN);
        }
    }
}

const fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_ends_in_sleep_and_starts_over_with_work() {
        let mut waiter = Waiter::new(WaitStrategy::SpinThenPark);
        let spin_ns = nanoseconds(SPIN_BEFORE_PARK);
        assert_eq!(waiter.pause(true, 1000), Pause::Poll);
        assert_eq!(waiter.pause(false, 1000 + spin_ns - 1), Pause::Poll);
        assert_eq!(waiter.pause(false, 1000 + spin_ns), Pause::Sleep);
        assert_eq!(waiter.pause(true, 5000 + spin_ns), Pause::Poll);
    }

    #[test]
    fn one_slow_yield_bans_yielding_for_a_while() {
        let mut waiter = Waiter::new(WaitStrategy::Yield);
        assert_eq!(waiter.pause(false, 0), Pause::Yield);
        waiter.yielded(0, nanoseconds(YIELD_MAX));
        assert_eq!(waiter.pause(false, 1), Pause::Yield);
        waiter.yielded(0, nanoseconds(YIELD_MAX) + 1);
        let end = nanoseconds(YIELD_MAX) + 1 + nanoseconds(YIELD_BAN);
        assert_eq!(waiter.pause(false, end - 1), Pause::Sleep);
        assert_eq!(waiter.pause(false, end), Pause::Yield);
    }

    #[test]
    fn parking_is_at_once_and_spinning_for_ever() {
        assert_eq!(Waiter::new(WaitStrategy::Park).pause(true, 0), Pause::Sleep);
        assert_eq!(Waiter::new(WaitStrategy::Spin).pause(false, u64::MAX), Pause::Poll);
    }
}
