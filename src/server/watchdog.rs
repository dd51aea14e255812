//! Sees whether the batch processor comes back from the model, and whether a drain comes to its end.
//!
//! It reads no clock: its caller tells it the time, as far as the process lived through it ([`crate::exchange::lived_time`]), so that
//! a process that was stopped for longer than any of these bounds is not taken for hung.
#![forbid(unsafe_code)]

use std::time::Duration;

use thiserror::Error;

use crate::limits::{DRAIN_GRACE, MODEL_STALL_MAX, THREAD_STALL_MAX};

/// What does not come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Stall {
    /// The model does not come back.
    #[error("the model has been working on one batch for more than {MODEL_STALL_MAX:?} and is taken for hung")]
    Model,
    /// The drain did not end in time, because requests are still with the model.
    #[error("the drain timed out while the model was still working")]
    Drain,
    /// The drain did not end, though the model has nothing to do.
    #[error("the drain timed out, and {THREAD_STALL_MAX:?} later its connections were still not cut")]
    Threads,
}

/// What there is to see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sight {
    /// Batches that the model was given.
    pub steps_begun: u64,
    /// Batches that it came back from.
    pub steps_finished: u64,
    /// Calls of it: more than one for a batch in which it fails, which may take long without being hung.
    pub model_calls: u64,
    /// Whether the server drains.
    pub draining: bool,
}

/// What was seen, and when it changed.
#[derive(Debug)]
pub struct Watchdog {
    drain_timeout: Duration,
    model_calls: u64,
    /// When the model last began or had nothing to do.
    changed_at: Duration,
    drain_seen_at: Option<Duration>,
}

impl Watchdog {
    /// How often it is to look at a server that serves. Larger: a hung model is noticed later. Smaller: an idle server wakes
    /// more often.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    /// How often it is to look at a drain, which should be noticed to be over time.
    pub const INTERVAL_DRAINING: Duration = Duration::from_millis(100);

    /// Watches a server whose drain may take `drain_timeout`.
    pub fn new(drain_timeout: Duration) -> Watchdog {
        Watchdog { drain_timeout, model_calls: 0, changed_at: Duration::ZERO, drain_seen_at: None }
    }

    /// How long until the next look.
    pub fn interval(&self) -> Duration {
        if self.drain_seen_at.is_some() { Self::INTERVAL_DRAINING } else { Self::INTERVAL }
    }

    /// Looks.
    ///
    /// # Errors
    /// Something does not come to an end.
    pub fn look(&mut self, now: Duration, sight: Sight) -> Result<(), Stall> {
        let working = sight.steps_begun != sight.steps_finished;
        if sight.model_calls != self.model_calls || !working {
            (self.model_calls, self.changed_at) = (sight.model_calls, now);
        }
        if now - self.changed_at > MODEL_STALL_MAX {
            return Err(Stall::Model);
        }
        if !sight.draining {
            return Ok(());
        }
        let over_at = self.drain_seen_at.get_or_insert(now).saturating_add(self.drain_timeout);
        // The I/O threads cut what is open by themselves, but for connections whose requests are with the model.
        if now.saturating_sub(over_at.max(self.changed_at)) > DRAIN_GRACE {
            return Err(Stall::Drain);
        }
        if now.saturating_sub(over_at) > THREAD_STALL_MAX {
            return Err(Stall::Threads);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::exchange::lived_time::LivedTime;

    const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
    const WORKING: Sight = Sight { steps_begun: 1, steps_finished: 0, model_calls: 1, draining: false };
    const IDLE: Sight = Sight { steps_begun: 1, steps_finished: 1, model_calls: 1, draining: false };

    /// Looks every time that it is due, on a clock that goes `pace` times as fast as the waits are meant to take, until
    /// something stalls. Returns what, and after how much time of that clock.
    fn watch(pace: u32, sight: impl Fn(Duration) -> Sight, end: Duration) -> Option<(Stall, Duration)> {
        let (begun_at, mut passed) = (Instant::now(), Duration::ZERO);
        let (mut watchdog, mut time) = (Watchdog::new(DRAIN_TIMEOUT), LivedTime::starting(begun_at));
        while passed < end {
            let wait = watchdog.interval();
            passed += wait * pace;
            time.waited(wait, begun_at + passed);
            if let Err(stall) = watchdog.look(time.lived(), sight(passed)) {
                return Some((stall, passed));
            }
        }
        None
    }

    const LONG: Duration = Duration::from_secs(10_000);

    fn is_about(bound: Duration, after: Duration) -> bool {
        bound < after && after <= bound + 2 * Watchdog::INTERVAL
    }

    #[test]
    fn a_model_that_does_not_come_back_is_noticed() {
        let (stall, after) = watch(1, |_| WORKING, LONG).expect("it is hung");
        assert!(stall == Stall::Model && is_about(MODEL_STALL_MAX, after), "{stall:?} after {after:?}");
    }

    #[test]
    fn a_model_that_comes_back_or_has_nothing_to_do_is_not_hung() {
        assert_eq!(watch(1, |_| IDLE, LONG), None);
        let busy = |now: Duration| Sight { model_calls: now.as_secs() / 20 + 1, ..WORKING };
        assert_eq!(watch(1, busy, LONG), None);
    }

    #[test]
    fn a_drain_that_waits_for_the_model_is_noticed() {
        let draining = Sight { draining: true, ..WORKING };
        let (stall, after) = watch(1, |_| draining, LONG).expect("it is over time");
        assert!(stall == Stall::Drain && is_about(DRAIN_TIMEOUT + DRAIN_GRACE, after), "{stall:?} after {after:?}");
    }

    #[test]
    fn a_drain_in_which_the_model_goes_on_is_the_io_threads_business_for_longer() {
        let draining = Sight { draining: true, ..IDLE };
        let (stall, after) = watch(1, |_| draining, LONG).expect("it is over time");
        assert!(stall == Stall::Threads && is_about(DRAIN_TIMEOUT + THREAD_STALL_MAX, after), "{stall:?} {after:?}");
    }

    /// A process that is frozen most of the time, or once for an hour, is not taken for hung before it has had the time.
    #[test]
    fn a_freeze_of_any_length_stalls_nothing() {
        for sight in [WORKING, Sight { draining: true, ..WORKING }, Sight { draining: true, ..IDLE }] {
            let (stall, usual) = watch(1, |_| sight, LONG).expect("it is hung");
            assert_eq!(watch(100, |_| sight, 50 * usual), None, "{stall:?}");
            // One wait of an hour, in a server that else has done nothing wrong.
            let (begun_at, mut time) = (Instant::now(), LivedTime::starting(Instant::now()));
            let mut watchdog = Watchdog::new(DRAIN_TIMEOUT);
            time.waited(watchdog.interval(), begun_at + Duration::from_secs(3600));
            assert_eq!(watchdog.look(time.lived(), sight), Ok(()));
        }
    }

    #[test]
    fn the_longest_drain_timeout_is_no_overflow() {
        let mut watchdog = Watchdog::new(Duration::MAX);
        for second in 1..100 {
            let sight = Sight { draining: true, ..IDLE };
            assert_eq!(watchdog.look(Duration::from_secs(second), sight), Ok(()));
        }
    }
}
